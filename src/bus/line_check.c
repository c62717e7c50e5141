/* SPDX-License-Identifier: Apache-2.0
 * line_check.c - asserts the invariants of line_inside.h: every structure is walked, what is found is counted again. */
#include "bus/line_inside.h"

typedef struct tally {
    uint32_t state[LIM__ITEM_STATES]; /* found in structures; OUT: in the roll */
    uint32_t limited, cells, open, waiting_lanes, limited_flows, timers, away;
} tally;

typedef void on_node(const lim__line *l, lim__line_node *n, tally *t, const void *of);

/* In the order parent, children from the left; no recursion: a heap may be as deep as it has nodes. */
static lim__line_node *following(lim__line_node *n, const lim__line_node *root)
{
    if (n->child != NULL)
        return n->child;
    while (n->next == NULL) {
        while (n != root && n->prev->child != n)
            n = n->prev;
        if (n == root || n->prev == root)
            return NULL;
        n = n->prev;
    }
    return n->next;
}

static void walk_heap(const lim__line *l, lim__line_node *root, on_node *see, tally *t, const void *of)
{
    LIM_ASSERT(root == NULL || root->next == NULL);
    for (lim__line_node *n = root; n != NULL; n = following(n, root)) {
        see(l, n, t, of);
        for (lim__line_node *c = n->child, *left = n; c != NULL; left = c, c = c->next)
            LIM_ASSERT(c->prev == left && !lim__line_before(c, n));
    }
}

static void walk_queue(const lim__line *l, const lim__line_queue *q, on_node *see, tally *t, const void *of)
{
    const lim__line_node end = { .key = q->last_key, .tie = q->last_tie };
    lim__line_node *last = q->first;
    LIM_ASSERT(q->first != NULL || q->head == NULL);
    if (q->first != NULL)
        see(l, q->first, t, of);
    for (lim__line_chunk *c = q->head; c != NULL; c = c->next)
        for (unsigned i = c == q->head ? q->head_at : 0; i < (c == q->tail ? q->tail_at : LINE_CHUNK); i++) {
            lim__line_node *n = c == q->tail ? q->slot[i] : c->slot[i];
            if (n == NULL)
                continue;
            LIM_ASSERT(n->child == n && n->slot == &c->slot[i] && !lim__line_before(n, last));
            see(l, last = n, t, of);
        }
    LIM_ASSERT(last == NULL || !lim__line_before(&end, last));
    walk_heap(l, q->heap, see, t, of);
}

/* L1: what is found in a structure has the state that says so, and knows whose it is. */
static void see_ready(const lim__line *l, lim__line_node *n, tally *t, const void *of)
{
    const lim__item *i = lim__line_item(n);
    LIM_ASSERT(i->state == LIM__ITEM_READY && i->cell == of);
    t->state[LIM__ITEM_READY]++;
    t->limited += i->cell->flow->limited != LINE_FREE;
    (void)l;
}

static void see_behind(const lim__line *l, lim__line_node *n, tally *t, const void *of)
{
    const lim__item *i = lim__line_item(n);
    LIM_ASSERT(i->state == LIM__ITEM_BEHIND && i->lane == of && i->lane->head != i);
    t->state[LIM__ITEM_BEHIND]++;
    (void)l;
}

static void see_delayed(const lim__line *l, lim__line_node *n, tally *t, const void *of)
{
    LIM_ASSERT(lim__line_item(n)->state == LIM__ITEM_DELAYED);
    t->state[LIM__ITEM_DELAYED]++;
    (void)l;
    (void)of;
}

static void see_timer(const lim__line *l, lim__line_node *n, tally *t, const void *of)
{
    LIM_ASSERT(LIM_CONTAINER(n, lim__line_more, timer)->flow.timed);
    t->timers++;
    (void)l;
    (void)of;
}

/* L5 */
static void see_seated(const lim__line *l, lim__line_node *n, tally *t, const void *of)
{
    const lim__line_cell *c = lim__line_cell_of(n);
    const lim__line_node right = { .key = c->flow->service, .tie = c->flow->turn };
    LIM_ASSERT(c->seat == LINE_IN_TYPE && of == lim__line_ready_queue(&c->type->ready[c->priority], c->queue_at));
    LIM_ASSERT(!lim__line_before(&right, n));
    t->cells++;
    (void)l;
}

static void see_benched(const lim__line *l, lim__line_node *n, tally *t, const void *of)
{
    const lim__line_cell *c = lim__line_cell_of(n);
    LIM_ASSERT(c->seat == LINE_BENCHED && c->flow == of && c->flow->limited != LINE_FREE);
    t->cells++;
    (void)l;
}

static void check_ring(const lim__line_node *ring, lim__item_state state, tally *t)
{
    for (lim__line_node *n = ring->next; n != ring; n = n->next) {
        LIM_ASSERT(n->next->prev == n && lim__line_item(n)->state == state);
        t->state[state]++;
    }
}

static void check_types(const lim__line *l, tally *t)
{
    size_t pos = 0;
    lim_bytes name;
    void *value;
    while (lim__smap_next(&l->types, &pos, &name, &value)) {
        lim__line_type *type = value;
        LIM_ASSERT(type->cells > 0); /* L9 */
        for (unsigned p = 0; p <= LIM__PRIORITY_MAX; p++) {
            lim__line_ready *r = &type->ready[p];
            for (unsigned i = 0; i == 0 || i < r->queues; i++)
                walk_queue(l, lim__line_ready_queue(r, i), see_seated, t, lim__line_ready_queue(r, i));
            LIM_ASSERT((type->mask >> p & 1) == (lim__line_ready_first(r) != NULL)); /* L6 */
        }
        LIM_ASSERT(type->mask == 0 || l->open[type->open_at] == type); /* L6 */
        t->open += type->mask != 0;
    }
    LIM_ASSERT(t->open == l->open_count);
}

static void check_cell(const lim__line *l, const lim__line_flow *f, const lim__line_cell *c, tally *t)
{
    LIM_ASSERT(c->items > 0 && c->type != NULL && c->flow == f); /* L9 */
    walk_queue(l, &c->queue, see_ready, t, c);
    LIM_ASSERT((lim__line_queue_first(&c->queue) != NULL) == (c->seat != LINE_NOWHERE)); /* L5 */
    t->cells -= c->seat != LINE_NOWHERE;
}

static void check_cells(const lim__line *l, const lim__line_flow *f, tally *t)
{
    if (f->home.type != NULL)
        check_cell(l, f, &f->home, t);
    LIM__LIST_EACH(node, &lim__line_more_of(f)->away) {
        check_cell(l, f, &LIM_CONTAINER(node, lim__line_away, node)->cell, t);
        t->away++;
    }
}

/* L4 */
static void check_lanes(const lim__line *l, tally *t)
{
    size_t pos = 0;
    lim_bytes name;
    void *value;
    while (lim__smap_next(&l->lanes, &pos, &name, &value)) {
        const lim__line_lane *lane = value;
        bool some = lim__line_queue_first(&lane->queue) != NULL;
        LIM_ASSERT(lane->items > 0); /* L9 */
        LIM_ASSERT(lane->head == NULL || (lane->head->state != LIM__ITEM_BEHIND && lane->head->lane == lane));
        LIM_ASSERT(!some || lane->head != NULL);
        LIM_ASSERT(some == !lim__list_empty(&lane->waiting));
        walk_queue(l, &lane->queue, see_behind, t, lane);
        t->waiting_lanes += some;
    }
    LIM__LIST_EACH(node, &l->waiting_lanes)
        t->waiting_lanes--;
    LIM_ASSERT(t->waiting_lanes == 0);
}

static void check_flow(const lim__line *l, const lim__line_flow *f, tally *t)
{
    const lim__line_limit *limit = lim__line_flow_limit(l, f);
    bool full = limit->in_flight_max != 0 && f->count[LIM__ITEM_OUT] >= limit->in_flight_max;
    LIM_ASSERT((f->limited == LINE_IN_FLIGHT) == full); /* L8 */
    LIM_ASSERT(f->limited != LINE_RATE || f->items == 0 || (limit->rate_max != 0 && f->timed));
    LIM_ASSERT(f->items > 0 || f->own || f->timed); /* L9 */
    uint32_t waiting = f->items - f->count[LIM__ITEM_OUT] - f->count[LIM__ITEM_DELAYED], all = 0;
    for (unsigned s = LIM__ITEM_DELAYED; s < LIM__ITEM_STATES; s++)
        all += f->count[s];
    LIM_ASSERT(all == f->items && f->count[LIM__ITEM_NONE] == 0);
    LIM_ASSERT(waiting == 0 || (int64_t)(l->time + LINE_STRIDE - f->service) >= 0); /* L7 */
    walk_queue(l, &lim__line_more_of(f)->bench, see_benched, t, f);
    bool listed = !lim__list_empty(&lim__line_more_of(f)->limited_node);
    LIM_ASSERT(listed == (f->limited != LINE_FREE && f->count[LIM__ITEM_READY] > 0));
    t->limited_flows += listed;
    t->timers -= f->timed;
}

static void check_flows(const lim__line *l, tally *t)
{
    uint64_t no = 0;
    size_t at = SIZE_MAX, n = 0;
    uint32_t counts[LIM__ITEM_STATES] = { 0 };
    for (lim__line_flow *f; (f = lim__line_roll_next(&l->flows, &no, &at)) != NULL; n++) {
        LIM_ASSERT(lim__line_more_of(f)->no == no && lim__smap_get(&l->keys, lim__line_name(f)) == f);
        check_flow(l, f, t);
        check_cells(l, f, t);
        for (unsigned s = 0; s < LIM__ITEM_STATES; s++)
            counts[s] += f->count[s];
    }
    LIM_ASSERT(n == l->keys.count);
    LIM_ASSERT(memcmp(counts, l->count, sizeof counts) == 0); /* L2 */
    LIM__LIST_EACH(node, &l->limited_keys)
        t->limited_flows--;
    LIM_ASSERT(t->limited_flows == 0 && t->timers == 0);
}

/* L1, L2, L3: the roll has all, and as many in each state as the structures. */
static void check_items(const lim__line *l, const tally *t)
{
    uint64_t no = 0;
    size_t at = SIZE_MAX;
    uint32_t state[LIM__ITEM_STATES] = { 0 };
    for (const lim__item *i; (i = lim__line_roll_next(&l->items, &no, &at)) != NULL;) {
        state[i->state]++;
        bool head = i->lane != NULL && i->lane->head == i;
        bool only_head = i->state == LIM__ITEM_OUT || i->state == LIM__ITEM_READY || i->state == LIM__ITEM_HELD ||
                         i->state == LIM__ITEM_PARKED;
        LIM_ASSERT(i->no == no && (i->lane == NULL || head || !only_head)); /* L4 */
    }
    LIM_ASSERT(memcmp(state, l->count, sizeof state) == 0);
    state[LIM__ITEM_OUT] = 0;
    LIM_ASSERT(memcmp(state, t->state, sizeof state) == 0);
    LIM_ASSERT(t->limited == l->limited);
}

void lim__line_check(const lim__line *l)
{
    tally t = { .cells = 0 };
    walk_heap(l, l->delays, see_delayed, &t, NULL);
    walk_heap(l, l->timers, see_timer, &t, NULL);
    check_ring(&l->held, LIM__ITEM_HELD, &t);
    check_ring(&l->parked, LIM__ITEM_PARKED, &t);
    check_types(l, &t);
    check_lanes(l, &t);
    check_flows(l, &t);
    LIM_ASSERT(t.cells == 0 && t.away == l->cells.count);
    check_items(l, &t);
}
