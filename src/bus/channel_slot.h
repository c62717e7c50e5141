/* SPDX-License-Identifier: Apache-2.0
 * channel_slot.h - a function in front of a channel: which one of its subscriptions gets this message?
 *
 *      deploy, rollback, show --> control process: a lim__slot (versions, history, breaker, what is stored)
 *                                      | installs a rule: one atomic store
 *                                      v
 *      publish --> channel --> lim__chan_slot { rule } --> seat of this scheduler: its own compiled state
 *                    | NULL: no function, nothing else to look at           `--said: faults, lines--> control
 *
 *   channel_slot.c    the control process: its letters, and the registry of slots by channel name
 *   channel_route.c   the publisher's side: seats, candidates, who is chosen
 *
 * Publishes happen on every scheduler and on threads of the host, so every scheduler has a seat of its own, and the
 * threads share one under host_lock: a seat is only touched where its tally of the channel is written. A seat looks at
 * the rule before each call; when it is another one than the one it is compiled for, it compiles that one. A rule is
 * freed when every publisher that may have seen it is through (lim__retire).
 *
 * A publish never waits: what is not decided within one slice is dropped and counts as timed out. */
#ifndef LIM__CHANNEL_SLOT_H
#define LIM__CHANNEL_SLOT_H

#include "bus/bus.h"
#include "bus/channel_inside.h"
#include "bus/slot.h"

enum {
    LIM__CHAN_SLOTS_MAX = 10000,
    LIM__CHAN_SAID_MAX = 64, /* letters from one slot's seats to its control that are on their way */
    LIM__CHAN_CANDIDATES_MAX = 65536
};

typedef struct lim__chan_code { /* a version, as a seat compiles it */
    lim__artifact *artifact; /* counted; NULL: none */
    lim__route_limits limits;
} lim__chan_code;

typedef struct lim__chan_rule { /* who decides; never changes, but for the numbers */
    lim__retired retired;
    uint64_t generation;     /* never 0, never reused */
    lim__chan_code live, other; /* other: who is asked when live failed */
    struct lim__chan_tally { /* of `live`; one writer each, as the channel's */
        _Alignas(64) _Atomic uint64_t calls, decided, none, crashed, timed_out, not_started;
    } tallies[];
} lim__chan_rule;

typedef struct lim__chan_view {
    lim__candidate c;
    char text[24]; /* its name, if its owner has none */
} lim__chan_view;

typedef struct lim__chan_seat {
    _Alignas(64) struct lim__chan_slot *slot;
    uint64_t generation; /* that it is compiled for */
    lim__router *live, *other; /* NULL: it could not be compiled here */
    char why[320];       /* it could not */
    bool busy;           /* a function that publishes to the channel it decides about */
    uint64_t counter, stamp;
    lim__chan_view *views; /* by place in the table */
    const lim__candidate **list;
    uint32_t *places;    /* of list, in the table */
    uint32_t cap;
} lim__chan_seat;

typedef struct lim__chan_slot {
    lim__retired retired;
    lim__channels *all;
    lim_bus *bus;
    lim_pid control;
    uint8_t len;
    char name[256];
    _Atomic(lim__chan_rule *) rule; /* NULL: nothing is deployed */
    _Atomic uint32_t said;          /* letters on their way to the control */
    lim__chan_seat seats[];         /* sched_count + 1 */
} lim__chan_slot;

/* ---- channel_route.c ---- */
typedef enum lim__chose { LIM__CHOSE_ALL = 1, LIM__CHOSE_ONE, LIM__CHOSE_NOBODY, LIM__CHOSE_FAULT } lim__chose;
/* In a publish, covered as the table is. ALL: nothing is deployed, or nobody is there. ONE: *place in the table. */
lim__chose lim__channel_choose(lim__chan_slot *slot, uint32_t seat, lim__sub_table *table, uint32_t count,
                               const lim__route_msg *msg, uint32_t *place);
lim__chan_slot *lim__chan_slot_new(lim_bus *bus, lim_bytes name); /* NULL: no memory */
void lim__chan_slot_free(lim__retired *retired);
lim__chan_rule *lim__chan_rule_new(uint32_t seats, uint64_t generation, const lim__version *live,
                                   const lim__version *other, lim__artifact *last); /* NULL: no memory */
void lim__chan_rule_free(lim__retired *retired);
void lim__chan_tally_sum(const lim__chan_rule *rule, uint32_t seats, lim__router_stats *out);

/* What a seat tells its control: a line that was printed, or a fault. */
typedef struct lim__chan_said {
    uint64_t generation;
    lim__route_how how; /* 0: a line */
    int line;
    uint32_t len;
    char text[];
} lim__chan_said;
extern const lim__letter_type lim__type_chan_said;

/* ---- channel_slot.c ---- */
/* The control of that channel's slot, made if need be. INVALID: no name for a channel; FULL; NOMEM. */
lim_err lim__chan_slot_get(lim_bus *bus, lim_process *self, lim_bytes name, lim_pid *out);
lim_pid lim__chan_slot_find(lim_bus *bus, lim_bytes name); /* {0}: it has none */
size_t lim__chan_slots_list(lim_bus *bus, lim_pid *out, size_t max); /* fills up to max; answers how many there are */

/* ---- channel.c ---- */
/* From now on publishes look at it, in channels that are there and in those to come; NULL: no longer. */
lim_err lim__channels_slot_set(lim__channels *all, lim_bytes name, lim__chan_slot *slot);

#endif
