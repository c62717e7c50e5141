/* SPDX-License-Identifier: Apache-2.0
 * line_inside.h - what a line is made of, shared by line.c (the rules), line_name.c (names, limits, memory), line_queue.c
 * (containers), line_show.c (what people see) and line_check.c.
 *
 *   line --> type "resize" --> ready[priority]: queue of cells by (service, turn) of their flows
 *                                                  |
 *            flow "tenant-7" <---------------- cell (flow, type, priority): queue of READY items, oldest first
 *            service, weight, limits, counts      ^
 *                                                 |
 *            lane "order-99": head, queue of BEHIND <--- item      the roll: all items by number
 *
 * Queues. What comes in order is appended to a list of chunks of pointers, the rest goes to a pairing heap; the first is
 * the smaller of their firsts. Almost everything comes in order: new tasks by age, and keys of one weight by service (each
 * gets V + 1 / weight, and V only grows). The heap needs no memory, so nothing that waits can fail to wait.
 *
 * Memory is far away: with a million tasks an item that nobody looked at for a while costs as much as all the work of a
 * step. So a step touches one such item, the one that goes out; it is known some steps before, and fetched ahead. To append
 * to the items of a key the last one is not touched, nor is the next one when the first
 * goes, nor the neighbours of one that leaves the roll. Of a flow, four cache lines are touched, side by side.
 *
 * A cell's place is not corrected when its flow is charged or reaches its limit (a flow may have cells with many types),
 * but when it comes up as the first: service only grows, so a place is never too late. A cell of a limited flow that comes
 * up is benched, and put back when the limit is lifted.
 *
 * Invariants (lim__line_check):
 *   L1  An item is in exactly one structure, the one its state says: DELAYED: delays; READY: its cell's queue; BEHIND: its
 *       lane's queue; PARKED, HELD: their rings; OUT: none. The roll has all of them.
 *   L2  Counts of the line and of each flow are the numbers of items in each state; `limited` is READY of limited flows.
 *   L3  In-flight of a key is its number of OUT items: changed by set_state alone, with the state.
 *   L4  A lane's head is not BEHIND; at most one item of a lane is OUT, and it is the head; a lane with BEHIND ones has one.
 *       Of READY, HELD and PARKED ones only the head.
 *   L5  A cell is in its type's queue or on its flow's bench if and only if it has READY items; in the queue with a place
 *       that is not after its flow's; on the bench only if its flow is limited.
 *   L6  A type is open if and only if one of its queues has cells; `mask` has the bits of those.
 *   L7  The service of a flow with waiting items is at most V + 1.
 *   L8  A flow is IN_FLIGHT limited if and only if as many as its limit are out; it has a timer if it waits for a token.
 *   L9  A name is there if and only if something refers to it: an item, a limit of its own, tokens not yet whole. */
#ifndef LIM__LINE_INSIDE_H
#define LIM__LINE_INSIDE_H

#include "bus/line.h"
#include "base/base.h"

#include <assert.h>
#include <stdalign.h>

#ifdef LIM_HOSTILE
enum { LINE_PAGE = 2, LINE_CHUNK = 2, LINE_QUEUES = 2, LINE_WAKE_MAX = 2 };
#else
enum { LINE_PAGE = 64, LINE_CHUNK = 7, LINE_QUEUES = 12, LINE_WAKE_MAX = LIM__LINE_WAKE_MAX };
#endif
enum { LINE_NAME_MAX = 65535, LINE_FETCH_ITEM = 5, LINE_FETCH_FLOW = 6, LINE_FETCH_CELL = 10 /* steps ahead */ };
#define LINE_STRIDE      (1u << 20)     /* virtual time of one task at weight 1 */
#define LINE_FORGET_NS   1000000000ull  /* idle keys are forgotten at multiples of this: one timer for many */

typedef struct lim__line_chunk {
    struct lim__line_chunk *next;
    lim__line_node *slot[LINE_CHUNK];
} lim__line_chunk;

typedef struct lim__line_queue { /* first, then head->slot[head_at ..] and so on; NULL: gone; child of each is itself */
    lim__line_node *first;
    lim__line_node *heap;
    lim__line_chunk *head, *tail; /* NULL: no chunk */
    uint64_t last_key, last_tie;  /* of what was appended last */
    uint16_t head_at, tail_at;
    lim__line_node *slot[LINE_CHUNK]; /* the tail's slots, until it is full */
} lim__line_queue;

/* Keys of different weights are each in order, but not together: so there are some queues, and each cell goes to the one
 * where it comes closest behind the last. As many queues as weights are enough, up to LINE_QUEUES. */
typedef struct lim__line_ready {
    lim__line_queue queue, *more[LINE_QUEUES - 1]; /* queue 0, and 1 to queues - 1 */
    unsigned queues;                               /* 0 counts as 1 */
} lim__line_ready;

typedef enum line_limited { LINE_FREE = 0, LINE_IN_FLIGHT, LINE_RATE } line_limited;
typedef enum line_seat { LINE_NOWHERE = 0, LINE_IN_TYPE, LINE_BENCHED } line_seat;

typedef struct lim__line_type {
    uint32_t cells, mask; /* bit p: ready[p] has cells */
    uint32_t open_at;     /* in line->open, if mask is not 0 */
    bool asked, can;      /* asked: in the pass `pass` */
    uint64_t pass, no;
    lim__line_ready ready[LIM__PRIORITY_MAX + 1];
    lim_bytes name;
    char text[];
} lim__line_type;

typedef struct lim__line_cell {
    lim__line_node node; /* key: service, tie: turn; as of when it took its place */
    lim__line_queue queue;
    struct lim__line_flow *flow;
    lim__line_type *type;   /* NULL: a home that is not used */
    uint32_t items;
    uint8_t priority, seat; /* line_seat */
    uint8_t queue_at;       /* which of its type's */
} lim__line_cell;

typedef struct lim__line_away { /* a cell that is not its flow's first */
    lim__line_cell cell;
    lim__list node;
    uint64_t name[2]; /* numbers of flow and type, and the priority */
} lim__line_away;

/* What a step touches; what it does not touch, unless there are limits, stands before it. */
typedef struct lim__line_flow {
    lim__line_cell home;    /* the first cell; most keys need one */
    uint64_t service, turn; /* S, and when it was given */
    uint32_t weight, items;
    uint32_t count[LIM__ITEM_STATES];
    uint8_t limited;        /* line_limited */
    bool own;               /* has a limit of its own */
    bool timed;             /* its timer runs */
    uint16_t name_len;      /* the name is behind it */
} lim__line_flow;

typedef struct lim__line_more {
    lim__line_limit limit;  /* its own */
    lim__line_bucket bucket;
    lim__line_queue bench;  /* cells */
    lim__list away, limited_node;
    lim__line_node timer;
    uint64_t no;
    alignas(64) lim__line_flow flow;
} lim__line_more;
static_assert(sizeof(lim__line_flow) <= 4 * 64 - 8, "a flow and the start of its name are four cache lines");

typedef struct lim__line_lane {
    lim__item *head;
    lim__line_queue queue;
    uint32_t items;
    lim__list waiting; /* in line->waiting_lanes while the queue is not empty */
    lim_bytes name;
    char text[];
} lim__line_lane;

typedef struct lim__line_page {
    uint64_t base; /* number of slot[0] */
    uint64_t here; /* one bit each: those that are gone are not looked at; 0: the slots are freed */
    void **slot;
} lim__line_page;

/* ---- line_queue.c ---- */

void lim__line_heap_push(lim__line_node **heap, lim__line_node *n); /* by n->key, n->tie */
void lim__line_heap_remove(lim__line_node **heap, lim__line_node *n);
void lim__line_queue_push(lim__line_queue *q, lim__line_node *n);
void lim__line_queue_remove(lim__line_queue *q, lim__line_node *n);
void lim__line_queue_fini(lim__line_queue *q); /* its chunks; what is in it is not touched */
/* What will be the first after n others went, if all is in order; NULL: perhaps nothing. */
lim__line_node *lim__line_queue_ahead(const lim__line_queue *q, unsigned n);

unsigned lim__line_ready_push(lim__line_ready *r, lim__line_node *n); /* into which queue */
lim__line_node *lim__line_ready_first(lim__line_ready *r);
void lim__line_ready_fini(lim__line_ready *r);
static inline lim__line_queue *lim__line_ready_queue(lim__line_ready *r, unsigned at)
{
    return at == 0 ? &r->queue : r->more[at - 1];
}

/* Keys wrap: virtual time may, and instants are far from doing so. */
static inline bool lim__line_before(const lim__line_node *a, const lim__line_node *b)
{
    return a->key != b->key ? (int64_t)(a->key - b->key) < 0 : a->tie < b->tie;
}
static inline lim__line_node *lim__line_queue_first(const lim__line_queue *q)
{
    bool listed = q->heap == NULL || (q->first != NULL && lim__line_before(q->first, q->heap));
    return listed ? q->first : q->heap;
}

lim_err lim__line_roll_add(lim__line_roll *r, void *what, uint64_t *no);
void lim__line_roll_remove(lim__line_roll *r, uint64_t no);
void lim__line_roll_fetch(const lim__line_roll *r, uint64_t no); /* remove will come soon */
void lim__line_roll_fini(lim__line_roll *r);
/* The next with a number over *after, which becomes its number; NULL at the end. Start with *at = SIZE_MAX. */
void *lim__line_roll_next(const lim__line_roll *r, uint64_t *after, size_t *at);

/* ---- line_name.c ---- */

/* The item gets its number, cell and lane, and counts as NONE; NOMEM, INVALID: nothing happened. */
lim_err lim__line_bind(lim__line *l, lim__item *i);
void lim__line_unbind(lim__line *l, lim__item *i); /* its flow stays until flow_drop */
void lim__line_flow_drop(lim__line *l, lim__line_flow *f); /* if nothing refers to it */
const lim__line_limit *lim__line_flow_limit(const lim__line *l, const lim__line_flow *f);
uint64_t lim__line_token_ns(const lim__line_bucket *b, const lim__line_limit *limit); /* when there is one; has a rate */
void lim__line_take_token(lim__line_bucket *b, const lim__line_limit *limit, uint64_t now_ns);

/* ---- line.c ---- */

/* Whether the key is at its limit now, and all that follows from that. */
void lim__line_relimit(lim__line *l, lim__line_flow *f, uint64_t now_ns);
/* The first READY one of all types that are allowed; NULL: none. any: all types are. */
lim__item *lim__line_best(lim__line *l, bool any, bool (*can)(void *ctx, lim_bytes type), void *ctx);

/* Asks the machine to bring it near; NULL: nothing. Always inline, like whatever does nothing else: compilers take a call of
 * a function that only fetches for a call that does nothing. */
static inline __attribute__((always_inline)) void lim__line_fetch(const void *what, size_t bytes)
{
    for (size_t at = 0; what != NULL && at < bytes; at += 64)
        __builtin_prefetch((const char *)what + at);
}
static inline lim__item *lim__line_item(lim__line_node *n)
{
    return LIM_CONTAINER(n, lim__item, node);
}
static inline lim__line_cell *lim__line_cell_of(lim__line_node *n)
{
    return LIM_CONTAINER(n, lim__line_cell, node);
}
static inline lim__line_more *lim__line_more_of(const lim__line_flow *f)
{
    return LIM_CONTAINER(f, lim__line_more, flow);
}
static inline lim_bytes lim__line_name(const lim__line_flow *f)
{
    return lim__bytes(f + 1, f->name_len);
}
/* In the order of one key, or of one order key. */
static inline bool lim__line_older(const lim__item *a, const lim__item *b)
{
    return a->was_out != b->was_out ? a->was_out : a->node.tie < b->node.tie;
}

#endif
