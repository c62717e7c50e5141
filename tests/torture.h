/* SPDX-License-Identifier: Apache-2.0
 * torture.h - what the loads of the torture share: see torture_test.c. */
#ifndef LIM__TORTURE_H
#define LIM__TORTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <liminal/client.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- torture_test.c ---- */
void torture_until(bool (*done)(void), const char *what); /* turns everything until then; fails after a minute */
/* Asks a $sys group, waits for the answer and fails if that is an error. The text stays until the next call. */
const char *torture_ask(const char *group, const char *json);
uint64_t torture_number(const char *json, const char *key); /* of the first "key": in it; fails if there is none */
bool torture_up(const lim_client *c);

/* ---- torture_talk.c: durable conversations, and asks whose outcomes are kept ----
 * `owner` opens and asks; `worker` serves the group "talks". */
void torture_talks_open(lim_client *owner, lim_client *worker);
void torture_talks_turn(bool load);
void torture_talks_killed(void);   /* the server is gone: what was under way is in doubt */
void torture_talks_look(void);     /* it is back: every conversation is looked for, every answer asked for again */
bool torture_talks_sound(void);    /* ... and all of it was found */
bool torture_talks_settled(void);  /* nothing under way */
void torture_talks_tell(void);     /* in numbers */

/* ---- torture_admin.c: deployments and schedules ---- */
void torture_admin_open(lim_client *admin, lim_client *worker);
void torture_admin_turn(bool load);
void torture_admin_killed(void);
void torture_admin_look(void);                /* waits: the slot is as it was answered */
void torture_admin_tick(lim_bytes payload);   /* a message of the channel "ticks", in its order */
bool torture_admin_settled(void);             /* nothing under way */
void torture_admin_stop(void);                /* pauses the schedules; waits */
bool torture_admin_done(void);                /* every fire has arrived */
void torture_admin_tell(void);

#endif
