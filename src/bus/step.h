/* SPDX-License-Identifier: Apache-2.0
 * step.h - several changes in one commit: messages published, messages acknowledged, a task's result (XO2, DU4).
 *
 *      publish, ack, reply --> step --commit--> each reader: is it still this member's to acknowledge?
 *                                                   | all: yes            | one: no
 *                                                   v                     v
 *                                    one batch --> store --> done       done(GONE), nothing has changed
 *
 * A result is stored by its task's own process, which takes the batch with everything else in it. */
#ifndef LIM__STEP_H
#define LIM__STEP_H

#include "bus/exchange.h"
#include "bus/log.h"
#include "bus/reader.h"

typedef struct lim_step lim__step; /* = lim_step of liminal.h; one owner, until it is committed */
lim__step *lim__step_open(lim_bus *bus); /* NULL: no memory */
void lim__step_drop(lim__step *step);    /* one that was not committed; NULL is a no-op */
/* Views are copied. NOTFOUND, MISUSE: no durable channel; INVALID; NOMEM. */
lim_err lim__step_add_message(lim__step *step, lim_bytes channel, const lim__log_message *m);
lim_err lim__step_add_ack(lim__step *step, lim__reading reading, uint64_t seq);
/* FULL: there is one in it. */
lim_err lim__step_add_reply(lim__step *step, uint64_t task, uint64_t lease, uint64_t from, lim_bytes payload);
/* Takes the step. done: exactly once after LIM_OK, on any thread of the bus: short, and it may not wait. INVALID: it is
 * empty. */
typedef void lim__on_step(void *ctx, lim_err err, const char *detail);
lim_err lim__step_commit(lim__step *step, lim__on_step *done, void *ctx);

#endif
