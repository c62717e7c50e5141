/* SPDX-License-Identifier: Apache-2.0
 * line.h - the tasks of a queue that wait, and the rules about who is next. No process, no letters, no clock of its own.
 *
 *   add --due later--> DELAYED --wake--.                          READY is called LIMITED while its key is at its limit
 *    |                  ^              v
 *    `----------------- | ---------> READY <--unhold-- HELD       next() gives only READY ones
 *    `-- lane taken --> | --> BEHIND --^ | `--hold------^         hold(): the router put it aside
 *                       |   lane's head  | out
 *                       |   is done      v
 *                       `-----again---- OUT --done--> (gone)      remove() takes one out of any state
 *                                        `--again, policy PARK--> PARKED --unpark--> DELAYED or READY
 *
 * Who is next: the highest priority (9 .. 0); within it, the fairness key with the least service so far by its weight;
 * within a key, those that were out before (a worker died, a retry is due) and then the oldest. A task that was added with
 * a delay comes when it is due, behind those that came earlier. A key at its limit (how many are out at once, how many
 * start per time) is passed over and blocks nobody else. Tasks with one order key go out one at a time in the order in
 * which they came. Only tasks whose type somebody serves are considered: the asker says which. With no keys: first in,
 * first out.
 *
 * Service is virtual time (start-time fair queueing: Goyal, Vin, Cheng 1996, in a form that need not remember). The line
 * has a time V, each key with waiting tasks a time S; the smallest S is next, among equals whoever got its S first. Taking
 * a task out sets V = max(V, S), S = V + 1 / weight. A key whose first task arrives gets S = V + 1 / weight too: it stands
 * where it would if it had just been served. From that:
 *   no credit   a key that was idle, limited, or of a type nobody served is before others for one task at most: S < V
 *               counts as V as soon as it is charged.
 *   no memory   S never exceeds V + 1 / weight, so a key that left and comes back gains nothing: forgetting it is free.
 *   no starving V never falls, and only finitely many keys fit before a given S: each one that is served while V stands
 *               still, or that arrives later, gets a place at V + 1/1000 or behind. Any number of new keys, each with one
 *               task, passes a waiting key only as often as they arrive before V has reached it.
 * One S per key, over all its types and priorities: who uses much of priority 9 pays for it at priority 4.
 *
 * Every operation is O(log n) in tasks, keys and types together (amortized: heaps are put right when they are looked at);
 * next() also looks at each type that has ready tasks, once. Memory is taken by add and limit_set alone: nothing else can
 * fail, and a failure leaves all as it was. What a key, a type, an order key needs is made on first use and freed when the
 * last task of it is gone; a key with a limit of its own stays, and one with a rate until its tokens are whole again.
 *
 * How it is used, in one turn of the queue:
 *
 *   while (lim__line_wake(l, now)) continue;            // or go on in a later turn
 *   lim__line_begin(l);
 *   while ((item = lim__line_next(l, now, can, ctx)) != NULL)
 *       if (somebody takes it)  lim__line_out(l, item, now);
 *       else if (all are full)  lim__line_block(l, item);       // nobody of this type before the next begin
 *       else                    lim__line_hold(l, item);        // only this one, until unhold
 *   timer at lim__line_due(l)
 *
 * Not here: who works, attempts and losses, unique keys, timeouts, what is durable. Single owner, no threads. */
#ifndef LIM__LINE_H
#define LIM__LINE_H

#include <liminal/types.h>
#include "base/list.h"
#include "base/map.h"

enum {
    LIM__PRIORITY_MAX = 9, LIM__PRIORITY_DEFAULT = 4,
    LIM__WEIGHT_MAX = 1000,
    LIM__LINE_RATE_MAX = 1000000000,   /* per period */
    LIM__LINE_WAKE_MAX = 1024          /* tasks and keys that one wake moves; 2 in the hostile build */
};
#define LIM__LINE_PERIOD_MAX_NS (31u * 86400 * 1000000000ull)
#define LIM__LINE_NEVER UINT64_MAX

typedef enum lim__item_state {
    LIM__ITEM_NONE = 0,  /* not in a line */
    LIM__ITEM_DELAYED,   /* until due_ns */
    LIM__ITEM_READY,
    LIM__ITEM_LIMITED,   /* ready, but its key is at its limit; never in item->state: ask lim__line_state */
    LIM__ITEM_BEHIND,    /* another task of its order key is before it */
    LIM__ITEM_PARKED,    /* it failed, and its order key stands still until somebody unparks it */
    LIM__ITEM_HELD,      /* ready, but put aside by its queue */
    LIM__ITEM_OUT,       /* somebody has a lease for it */
    LIM__ITEM_STATES
} lim__item_state;

/* A place in one heap, list or queue of the line. */
typedef struct lim__line_node {
    struct lim__line_node *next, *child;
    union { struct lim__line_node *prev, **slot; };
    uint64_t key, tie; /* smaller is earlier */
} lim__line_node;

typedef struct lim__item {
    /* the caller's, set before add and not changed while it is in the line */
    uint64_t id;                    /* of the task, for people; the line does not look at it */
    lim_bytes type, key, order_key; /* empty: none. All without a fairness key share one. Views of anything during add, of
                                       the line's own copies after that, until the item is gone from the line */
    uint64_t due_ns;                /* not before; 0: now. After again(): that one's */
    uint32_t weight;                /* of its key: the last one added says so; 1..LIM__WEIGHT_MAX, 0: 1, more: the most */
    uint8_t priority;               /* 0..LIM__PRIORITY_MAX */
    /* the line's */
    uint8_t state;                  /* lim__item_state: NONE before add and after done */
    bool was_out;
    uint64_t no;                    /* 1, 2, ... in the order of adding: a cursor for lim__line_items */
    struct lim__line_cell *cell;
    struct lim__line_lane *lane;
    lim__line_node node;
} lim__item;

/* What happens to the other tasks of an order key when its head failed and is to be tried again. (A head whose worker was
 * lost is tried at once and stays the head, whatever the policy.) */
typedef enum lim__lane_policy {
    LIM__LANE_WAIT = 1, /* they wait for it, however long its delay */
    LIM__LANE_SKIP,     /* they go on while it is delayed; when it is due it is the next of them */
    LIM__LANE_PARK      /* they stop until lim__line_unpark; so they do not when the head is removed */
} lim__lane_policy;

/* 0 in in_flight_max or rate_max: no such limit. */
typedef struct lim__line_limit {
    uint32_t in_flight_max; /* tasks out at once */
    uint32_t rate_max;      /* starts per period, and at once if none came for a period; at most LIM__LINE_RATE_MAX */
    uint64_t period_ns;     /* 1..LIM__LINE_PERIOD_MAX_NS if there is a rate */
} lim__line_limit;

/* A token bucket, exact: the time at which it is full again, in whole ns and `part` / rate_max of one. */
typedef struct lim__line_bucket {
    uint64_t full_ns, part;
} lim__line_bucket;

/* Numbered things in the order of their numbers, to be listed in pages. */
typedef struct lim__line_roll {
    struct lim__line_page *pages;
    size_t first, end, cap, gone; /* pages[first .. end - 1], of which some are empty, but not the first */
    uint64_t last;                /* number given */
} lim__line_roll;

typedef struct lim__line {
    /* for reading */
    uint32_t count[LIM__ITEM_STATES]; /* READY counts the LIMITED ones too: lim__line_count tells them apart */
    uint32_t limited;                 /* of the READY ones */
    /* private */
    lim__smap types, keys, lanes, cells;
    struct lim__line_type **open;     /* types with something in their heaps */
    uint32_t open_count, open_cap;
    uint64_t pass, order, turn, time; /* of begin; of arrivals; of charges; virtual */
    uint64_t names;                   /* given to types and keys */
    lim__line_roll items, flows;
    lim__line_node *delays, *timers;  /* heaps: delayed items; keys whose tokens are awaited, or whose end is */
    lim__line_node held, parked;      /* rings */
    lim__list limited_keys, waiting_lanes; /* with READY ones; with BEHIND ones */
    lim__line_limit limit, key_limit;
    lim__line_bucket bucket;
    uint64_t token_ns;                /* the line's next token, if next() found none */
    lim__lane_policy policy;
} lim__line;

void lim__line_init(lim__line *l, uint64_t seed); /* takes no memory; policy WAIT, no limits */
void lim__line_fini(lim__line *l);                /* what is still in it is not looked at; safe on zeroed memory, and twice */

/* ---- in and out ---- */

/* At the back. NOMEM: nothing happened. INVALID: a priority over the most; a name over 65535 bytes. */
lim_err lim__line_add(lim__line *l, lim__item *i, uint64_t now_ns);
/* One that was OUT comes back, before those of its key that never were; it keeps its order. due_ns 0: its worker was lost, at
 * once. Else it failed and is not to be tried before due_ns (now_ns will do), and its order key does what the policy says. */
void lim__line_again(lim__line *l, lim__item *i, uint64_t now_ns, uint64_t due_ns);
/* A lease is given: charges the key, its tokens, the line's. Takes one in any state but OUT (a lease that is restored is a
 * fact, whatever the limits say), unless another task of its order key is out. */
void lim__line_out(lim__line *l, lim__item *i, uint64_t now_ns);
void lim__line_done(lim__line *l, lim__item *i, uint64_t now_ns);   /* OUT: its lease is over for good */
void lim__line_remove(lim__line *l, lim__item *i, uint64_t now_ns); /* in any state, OUT too */
void lim__line_hold(lim__line *l, lim__item *i);                    /* READY (or LIMITED): not given before unhold */
void lim__line_unhold(lim__line *l, lim__item *i);                  /* HELD: at its place again */
void lim__line_unhold_all(lim__line *l);                            /* O(held) */
void lim__line_hurry(lim__line *l, lim__item *i, uint64_t now_ns);  /* DELAYED: it is due now; it keeps its names */
/* The head of this order key may be tried again, when its delay is over. False: it is not parked. */
bool lim__line_unpark(lim__line *l, lim_bytes order_key, uint64_t now_ns);

/* ---- who is next ---- */

/* Forgets what `can` answered and what was blocked. */
void lim__line_begin(lim__line *l);
/* The next READY one among the types for which `can` is true (it is asked at most once per type after begin), or NULL: none,
 * or the line is at its own limit. Changes nothing: asked again it answers the same. */
lim__item *lim__line_next(lim__line *l, uint64_t now_ns, bool (*can)(void *ctx, lim_bytes type), void *ctx);
void lim__line_block(lim__line *l, const lim__item *i); /* its type is not given again before begin */

/* ---- time ---- */

uint64_t lim__line_due(const lim__line *l); /* when something changes by time alone; LIM__LINE_NEVER */
/* What is due by now takes its place. True: there was more than LIM__LINE_WAKE_MAX; call again. */
bool lim__line_wake(lim__line *l, uint64_t now_ns);

/* ---- rules; each takes effect at once, for what waits and for what is out ----
 * Tokens that were used stay used when a rate changes. INVALID: a rate without a period, or over the limits above. */
void lim__line_policy(lim__line *l, lim__lane_policy policy); /* for heads that fail from now on */
lim_err lim__line_limit_line(lim__line *l, const lim__line_limit *limit, uint64_t now_ns);
lim_err lim__line_limit_keys(lim__line *l, const lim__line_limit *limit, uint64_t now_ns); /* all without their own; O(keys) */
lim_err lim__line_limit_set(lim__line *l, lim_bytes key, const lim__line_limit *limit, uint64_t now_ns);
bool lim__line_limit_clear(lim__line *l, lim_bytes key, uint64_t now_ns); /* back to that of all; false: it had none */

/* ---- why (line_show.c) ---- */

typedef enum lim__line_how {
    LIM__LINE_EMPTY = 1,    /* nothing waits */
    LIM__LINE_READY,        /* nothing in the line is in the way */
    LIM__LINE_QUEUE_LIMIT,  /* the line's own limit: too many out (until_ns NEVER), or no token before until_ns */
    LIM__LINE_KEY_LIMIT,    /* that of its key, likewise */
    LIM__LINE_ORDERED,      /* behind `before` */
    LIM__LINE_PARKED,       /* lim__line_unpark(order_key) */
    LIM__LINE_DELAYED,      /* until until_ns */
    LIM__LINE_HELD,
    LIM__LINE_OUT
} lim__line_how;

typedef struct lim__line_why {
    lim__line_how how;
    const lim__item *item;   /* the one that waits; NULL: EMPTY */
    const lim__item *before; /* ORDERED: the head of its order key, and its id for people */
    uint64_t until_ns;       /* LIM__LINE_NEVER: not by time alone */
    uint32_t limit, current; /* of the limits: tasks out at most and now; of a rate: starts per period and 0 */
} lim__line_why;

/* Of the first that waits, in the order in which they could go: ready, held, limited, behind others, parked, delayed. */
lim__line_why lim__line_why_first(lim__line *l, uint64_t now_ns);
lim__line_why lim__line_why_item(const lim__line *l, const lim__item *i, uint64_t now_ns);
lim__item_state lim__line_state(const lim__line *l, const lim__item *i);       /* as people see it: LIMITED, too */
uint32_t lim__line_count(const lim__line *l, lim__item_state state);           /* likewise; NONE: all */

typedef struct lim__line_key {
    uint64_t no;             /* cursor */
    lim_bytes key;           /* VIEW until the line changes */
    uint32_t weight;
    uint32_t count[LIM__ITEM_STATES]; /* as people see it: READY without the LIMITED */
    bool own_limit;          /* `limit` is its own, not that of all */
    lim__line_limit limit;   /* that holds for it */
    uint64_t until_ns;       /* when it gets its next token; 0: it has one, or needs none */
} lim__line_key;

/* Up to max of them with a cursor over `after` (0: from the start), in the order of first use; how many. O(log n + max). */
uint32_t lim__line_keys(const lim__line *l, uint64_t after, lim__line_key *out, uint32_t max, uint64_t now_ns);
bool lim__line_key_get(const lim__line *l, lim_bytes key, lim__line_key *out, uint64_t now_ns); /* false: not known */
/* Likewise items in the order of adding: `after` is an item's no, whether it is still here or not. */
uint32_t lim__line_items(const lim__line *l, uint64_t after, lim__item **out, uint32_t max);

/* Asserts the invariants named in line_inside.h. O(everything). */
void lim__line_check(const lim__line *l);

#endif
