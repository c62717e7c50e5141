/* SPDX-License-Identifier: Apache-2.0
 * ended.h - what is remembered of conversations that have ended.
 *
 *   summary    of every one, whatever its kind and however it ended: the newest LIM__ENDED_MAX of each scheduler
 *   outcome    of tasks, and of asks that got no reply, as long as there is room (letters.h: lim__ended_add) */
#ifndef LIM__ENDED_H
#define LIM__ENDED_H

#include "bus/bus.h"
#include "bus/letters.h"

enum { LIM__ENDED_MAX = 4096 };

typedef struct lim__ended_summary {
    lim_pid conv;
    lim__conv_kind kind;
    lim_phase phase;
    lim_how how;
    lim_why why;
    lim_reason reason;
    uint64_t ended_ns, elapsed_ns; /* monotonic */
} lim__ended_summary;

/* On the conversation's scheduler; a few stores. */
void lim__ended_note(lim_bus *bus, lim__sched *s, const lim__ended_summary *summary);
/* False: never heard of, or forgotten. Any thread. */
bool lim__ended_summary_of(lim_bus *bus, lim_pid conv, lim__ended_summary *out);
/* The same as an object: id, kind, phase, outcome, why, reason, elapsed_us, ended_us (wall clock). */
bool lim__ended_json(lim_bus *bus, lim_pid conv, lim__json *j, const char *key);

#endif
