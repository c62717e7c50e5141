/* SPDX-License-Identifier: Apache-2.0
 * ended.h - what is remembered of conversations that have ended.
 *
 *   summary    of every one, whatever its kind and however it ended: the newest LIM__ENDED_MAX of each scheduler
 *   outcome    of tasks, and of asks that got no reply, as long as there is room (letters.h: lim__ended_add) */
#ifndef LIM__ENDED_H
#define LIM__ENDED_H

#include "bus/bus.h"
#include "bus/letters.h"
#include "store/store.h"

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

/* ---- of durable ones: also on disk (ended_kept.c) ---- */
enum { LIM__KEPT_MAX = 100000 };
#define LIM__KEPT_NS (600ull * 1000000000)
struct lim__kept *lim__kept_new(uint64_t seed);
void lim__kept_free(struct lim__kept *all);
typedef struct lim__kept_note {
    lim__conv_kind kind;
    bool keyed;            /* an idempotency key answers with it: it is not forgotten early */
    lim_pid process;
    uint64_t lease, until_wall_ns;
} lim__kept_note;
void lim__kept_add(lim_bus *bus, const lim__kept_note *note, const lim__outcome_letter *o);
/* A few whose time is over are forgotten, and with this batch their rows are. */
void lim__kept_sweep(lim_bus *bus, lim__batch *batch);
lim__outcome_letter *lim__kept_outcome(lim_bus *bus, lim__sched *s, lim_pid conv, uint64_t ref); /* a copy; NULL: unknown */
bool lim__kept_find(lim_bus *bus, lim_pid conv, lim__ended_info *out);
void lim__kept_sort(lim_bus *bus); /* at start-up, when all are there */
lim_err lim__kept_read(lim_bus *bus, lim_bytes key, lim_bytes row); /* at start-up. INVALID: no such row */

#endif
