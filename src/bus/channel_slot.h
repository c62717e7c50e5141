/* SPDX-License-Identifier: Apache-2.0
 * channel_slot.h - a function in front of a channel: which of its subscriptions get this message?
 *
 *      deploy, rollback, show --> control process: a lim__slot (versions, trial, history, breaker, what is stored)
 *                                      | makes a rule, compiled for every seat, and installs it: one atomic store
 *                                      v
 *      publish --> channel --> lim__chan_slot { rule } --> seat of this scheduler: its own compiled state
 *                    | NULL: no function, nothing else to look at           `--said: faults, lines, differences--> control
 *
 *   channel_slot.c    the control process: its letters, rules, and the registry of slots by channel name
 *   channel_route.c   the publisher's side: seats, candidates, who is chosen
 *   channel_rule.c    rules: what is compiled before anything is changed, and what was counted
 *
 * Publishes happen on every scheduler and on threads of the host, so every scheduler has a seat of its own, and the
 * threads share one under host_lock: a seat is only touched where its tally of the channel is written. A seat looks at
 * the rule before each call; when it is another one than before, it takes the routers that were compiled for it. A rule is
 * freed when every publisher that may have seen it is through (lim__retire), with the routers that nobody took.
 *
 * The control survives its process: killed from outside, it gets another one, which goes on where it was. Meanwhile
 * publishes go by the rule that is installed.
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

/* The versions of a rule: who decides; what is tried out beside it; and who is asked when the live one failed: the version
 * before it, or least_loaded. */
typedef enum lim__chan_role {
    LIM__CHAN_LIVE = 0,
    LIM__CHAN_TRIAL,
    LIM__CHAN_BEFORE,
    LIM__CHAN_LAST,
    LIM__CHAN_ROLES
} lim__chan_role;

typedef struct lim__chan_code { /* a version, as it is compiled */
    lim__artifact *artifact; /* counted; NULL: none */
    lim__route_limits limits;
} lim__chan_code;

typedef struct lim__chan_counts { /* one writer each, as the channel's */
    _Atomic uint64_t calls, decided, none, crashed, timed_out, not_started;
} lim__chan_counts;

struct lim__chan_slot;
typedef struct lim__chan_rule { /* who decides; never changes, but for the numbers and what seats take */
    lim__retired retired;
    uint64_t generation;     /* never 0, never reused */
    lim__chan_code codes[LIM__CHAN_ROLES];
    lim_on_fault on_fault[2]; /* of live and trial */
    bool shadow;             /* the trial decides nothing */
    lim__ramp ramp;          /* of a trial that is none; `by` and `where` are this rule's own */
    char ramp_key[128];
    lim__pred *where;
    uint32_t seat_count;
    struct lim__chan_made {
        lim__router *routers[LIM__CHAN_ROLES]; /* until its seat takes them */
    } *made;
    struct lim__chan_tally {
        _Alignas(64) lim__chan_counts of[2]; /* live, trial */
        _Atomic uint64_t agreed, differed, live_faults, shadow_faults;
    } tallies[];
} lim__chan_rule;

typedef struct lim__chan_view {
    lim__candidate c;
    char text[24]; /* its name, if its owner has none */
} lim__chan_view;

typedef struct lim__chan_seat {
    _Alignas(64) struct lim__chan_slot *slot;
    uint64_t generation; /* of the rule whose routers these are */
    lim__router *routers[LIM__CHAN_ROLES];
    struct lim__chan_voice { /* what a router's callbacks get */
        struct lim__chan_seat *seat;
        lim__chan_role role;
    } voices[LIM__CHAN_ROLES];
    bool busy;           /* a function that publishes to the channel it decides about */
    uint64_t counter, shadow_counter, stamp, number;
    lim__ramp_reader reader;
    lim__chan_view *views; /* by place in the table */
    const lim__candidate **list;
    uint32_t *places;    /* of list, in the table */
    uint32_t cap;
} lim__chan_seat;

typedef struct lim__chan_slot {
    lim__retired retired;
    lim__channels *all;
    lim_bus *bus;
    _Atomic uint64_t control;       /* a pid's id; written by the control under slots_lock */
    uint8_t len;
    char name[256];
    _Atomic(lim__chan_rule *) rule; /* NULL: nothing is deployed */
    _Atomic uint32_t said;          /* letters on their way to the control */
    lim__chan_seat seats[];         /* sched_count + 1 */
} lim__chan_slot;

/* ---- channel_route.c ---- */
typedef enum lim__chose { LIM__CHOSE_ALL = 1, LIM__CHOSE_SOME, LIM__CHOSE_NOBODY, LIM__CHOSE_FAULT } lim__chose;
typedef struct lim__chan_choice {
    uint32_t *places, count; /* in the table, ascending; `few` if there is room for them */
    uint32_t few[32];
} lim__chan_choice;
void lim__chan_choice_fini(lim__chan_choice *choice);
/* In a publish, covered as the table is. ALL: nothing is deployed, or nobody is there. SOME: *choice. */
lim__chose lim__channel_choose(lim__chan_slot *slot, uint32_t seat, lim__sub_table *table, uint32_t count,
                               const lim__route_msg *msg, lim__chan_choice *choice);
lim__chan_slot *lim__chan_slot_new(lim_bus *bus, lim_bytes name); /* NULL: no memory */
void lim__chan_slot_free(lim__retired *retired);
void lim__chan_on_log(void *voice, const char *line, size_t len);

/* ---- channel_rule.c ---- */
typedef struct lim__chan_part { /* a version and how it runs; v NULL: none */
    const lim__version *v;
    const lim__slot_terms *terms;
} lim__chan_part;
/* Compiles what its faults may need, too, for every seat, here and now. On an error diag says why, and nothing is left.
 * before: the version before live. last: least_loaded. */
lim_err lim__chan_rule_new(lim__chan_slot *slot, uint64_t generation, lim__chan_part live, lim__chan_part trial,
                           lim__chan_part before, lim__artifact *last, lim_diag *diag, lim__chan_rule **out);
void lim__chan_rule_free(lim__retired *retired);
void lim__chan_counts_sum(const lim__chan_rule *rule, lim__chan_role role, lim__router_stats *out);

/* What a seat tells its control: a line that was printed, a fault, or a difference. */
typedef struct lim__chan_said {
    uint64_t generation;
    lim__chan_role role;
    lim__route_how how; /* a fault; 0: a line, or a difference */
    int line;
    uint32_t len, shadow, about; /* of a difference: where text's second and third part begin; else 0 */
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
