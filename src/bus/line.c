/* SPDX-License-Identifier: Apache-2.0
 * line.c - the rules of a queue's waiting line: who may go, who is next, what becomes of one that comes back.
 *
 * Each operation is three steps: take the item out of the structure of its state (detach), put it where it belongs now
 * (arrive, or the state that was asked for), and look at what that changed for others: the next of its lane, and
 * whether its key is at its limit (relimit). States change in set_state alone, with every count. Containers are in
 * line_queue.c, the picture and the invariants in line_inside.h, names and limits in line_name.c. */
#include "bus/line_inside.h"

static bool waits(unsigned state)
{
    return state != LIM__ITEM_NONE && state != LIM__ITEM_OUT && state != LIM__ITEM_DELAYED;
}

static uint32_t waiting(const lim__line_flow *f)
{
    return f->items - f->count[LIM__ITEM_NONE] - f->count[LIM__ITEM_OUT] - f->count[LIM__ITEM_DELAYED];
}

static uint64_t share(const lim__line_flow *f)
{
    return LINE_STRIDE / f->weight;
}

/* A key is in `limited_keys` while tasks of it could go but for its limit. */
static void list_limited(lim__line *l, lim__line_flow *f)
{
    lim__list *node = &lim__line_more_of(f)->limited_node;
    bool listed = !lim__list_empty(node), should = f->limited != LINE_FREE && f->count[LIM__ITEM_READY] > 0;
    if (listed && !should)
        lim__list_remove(node);
    else if (should && !listed)
        lim__list_push(&l->limited_keys, node);
}

static void set_state(lim__line *l, lim__item *i, lim__item_state state)
{
    lim__line_flow *f = i->cell->flow;
    if (!waits(i->state) && waits(state) && waiting(f) == 0) { /* as if it had just been served */
        f->service = l->time + share(f);
        f->turn = ++l->turn;
    }
    l->count[i->state]--;
    f->count[i->state]--;
    l->count[state]++;
    f->count[state]++;
    if (f->limited != LINE_FREE) {
        l->limited += (uint32_t)(state == LIM__ITEM_READY) - (uint32_t)(i->state == LIM__ITEM_READY);
        list_limited(l, f);
    }
    i->state = (uint8_t)state;
}

/* ---- cells: who stands in line for its type ---- */

static void open_type(lim__line *l, lim__line_type *t)
{
    if (t->mask != 0)
        return;
    LIM_ASSERT(l->open_count < l->open_cap);
    t->open_at = l->open_count;
    l->open[l->open_count++] = t;
}

static void shut_queue(lim__line *l, lim__line_type *t, unsigned priority)
{
    if (lim__line_ready_first(&t->ready[priority]) != NULL)
        return;
    t->mask &= ~(1u << priority);
    if (t->mask != 0)
        return;
    l->open[t->open_at] = l->open[--l->open_count];
    l->open[t->open_at]->open_at = t->open_at;
}

static void seat_in_type(lim__line *l, lim__line_cell *c)
{
    open_type(l, c->type);
    c->type->mask |= 1u << c->priority;
    c->node.key = c->flow->service;
    c->node.tie = c->flow->turn;
    c->queue_at = (uint8_t)lim__line_ready_push(&c->type->ready[c->priority], &c->node);
    c->seat = LINE_IN_TYPE;
}

static lim__line_queue *queue_of(const lim__line_cell *c)
{
    return lim__line_ready_queue(&c->type->ready[c->priority], c->queue_at);
}

static void unseat(lim__line *l, lim__line_cell *c)
{
    if (c->seat == LINE_IN_TYPE) {
        lim__line_queue_remove(queue_of(c), &c->node);
        shut_queue(l, c->type, c->priority);
    } else if (c->seat == LINE_BENCHED) {
        lim__line_queue_remove(&lim__line_more_of(c->flow)->bench, &c->node);
    }
    c->seat = LINE_NOWHERE;
}

static void bench(lim__line *l, lim__line_cell *c)
{
    unseat(l, c);
    lim__line_queue_push(&lim__line_more_of(c->flow)->bench, &c->node);
    c->seat = LINE_BENCHED;
}

static void seat(lim__line *l, lim__line_cell *c)
{
    if (c->flow->limited != LINE_FREE)
        bench(l, c);
    else
        seat_in_type(l, c);
}

/* Memory is far away, but who comes some steps from now is known: the cell, and then its flow. */
static inline __attribute__((always_inline)) void fetch_ahead(const lim__line_queue *q)
{
    lim__line_node *near = lim__line_queue_ahead(q, LINE_FETCH_FLOW);
    lim__line_fetch(lim__line_queue_ahead(q, LINE_FETCH_CELL), sizeof(lim__line_flow)); /* it may be the flow's home */
    if (near != NULL)
        lim__line_fetch(&lim__line_cell_of(near)->flow->turn, 1);
}

/* The cell of this type and priority that is next, at its right place; NULL: none. */
static lim__line_cell *first_cell(lim__line *l, lim__line_type *t, unsigned priority)
{
    for (;;) {
        lim__line_node *n = lim__line_ready_first(&t->ready[priority]);
        if (n == NULL)
            return NULL;
        lim__line_cell *c = lim__line_cell_of(n);
        if (c->flow->limited == LINE_FREE && n->tie == c->flow->turn)
            return c;
        if (c->flow->limited != LINE_FREE) {
            bench(l, c);
            continue;
        }
        lim__line_queue_remove(queue_of(c), n);
        fetch_ahead(queue_of(c));
        seat_in_type(l, c);
    }
}

/* ---- limits ---- */

/* When a key without tasks is of no interest any more; 0: now. */
static uint64_t forget_ns(const lim__line *l, const lim__line_flow *f, uint64_t now_ns)
{
    if (f->items > 0 || f->own || lim__line_flow_limit(l, f)->rate_max == 0)
        return 0;
    const lim__line_bucket *b = &lim__line_more_of(f)->bucket;
    uint64_t whole_ns = b->full_ns + (b->part > 0);
    return whole_ns > now_ns ? (whole_ns + LINE_FORGET_NS - 1) / LINE_FORGET_NS * LINE_FORGET_NS : 0;
}

static void set_timer(lim__line *l, lim__line_flow *f, uint64_t at_ns) /* 0: none */
{
    if (!f->timed && at_ns == 0)
        return;
    lim__line_node *timer = &lim__line_more_of(f)->timer;
    if (f->timed)
        lim__line_heap_remove(&l->timers, timer);
    f->timed = at_ns != 0;
    timer->key = at_ns;
    timer->tie = lim__line_more_of(f)->no;
    if (f->timed)
        lim__line_heap_push(&l->timers, timer);
}

static line_limited limited_now(const lim__line_flow *f, const lim__line_limit *limit, uint64_t now_ns)
{
    if (limit->in_flight_max != 0 && f->count[LIM__ITEM_OUT] >= limit->in_flight_max)
        return LINE_IN_FLIGHT;
    if (limit->rate_max != 0 && lim__line_token_ns(&lim__line_more_of(f)->bucket, limit) > now_ns)
        return LINE_RATE;
    return LINE_FREE;
}

static void lift(lim__line *l, lim__line_flow *f)
{
    lim__line_queue *b = &lim__line_more_of(f)->bench;
    for (lim__line_node *n; (n = lim__line_queue_first(b)) != NULL;) {
        unseat(l, lim__line_cell_of(n));
        seat_in_type(l, lim__line_cell_of(n));
    }
}

void lim__line_relimit(lim__line *l, lim__line_flow *f, uint64_t now_ns)
{
    const lim__line_limit *limit = lim__line_flow_limit(l, f);
    line_limited was = f->limited, is = limited_now(f, limit, now_ns);
    f->limited = (uint8_t)is;
    bool awaited = is == LINE_RATE && f->items > 0;
    set_timer(l, f, awaited ? lim__line_token_ns(&lim__line_more_of(f)->bucket, limit) : forget_ns(l, f, now_ns));
    if ((was == LINE_FREE) == (is == LINE_FREE))
        return;
    if (is != LINE_FREE)
        l->limited += f->count[LIM__ITEM_READY];
    else
        l->limited -= f->count[LIM__ITEM_READY];
    list_limited(l, f);
    if (is == LINE_FREE)
        lift(l, f);
}

/* May anything start at all? If only a token is missing, due() tells when there is one. */
static bool line_is_free(lim__line *l, uint64_t now_ns)
{
    if (l->limit.in_flight_max != 0 && l->count[LIM__ITEM_OUT] >= l->limit.in_flight_max)
        return false;
    if (l->limit.rate_max == 0 || lim__line_token_ns(&l->bucket, &l->limit) <= now_ns)
        return true;
    if (l->limited < l->count[LIM__ITEM_READY])
        l->token_ns = lim__line_token_ns(&l->bucket, &l->limit);
    return false;
}

/* ---- places ---- */

static void ready(lim__line *l, lim__item *i)
{
    set_state(l, i, LIM__ITEM_READY);
    i->node.key = !i->was_out;
    lim__line_queue_push(&i->cell->queue, &i->node);
    if (i->cell->seat == LINE_NOWHERE)
        seat(l, i->cell);
}

static void behind(lim__line *l, lim__item *i)
{
    set_state(l, i, LIM__ITEM_BEHIND);
    i->node.key = !i->was_out;
    lim__line_queue_push(&i->lane->queue, &i->node);
    if (lim__list_empty(&i->lane->waiting))
        lim__list_push(&l->waiting_lanes, &i->lane->waiting);
}

static void delayed(lim__line *l, lim__item *i, uint64_t now_ns)
{
    set_state(l, i, LIM__ITEM_DELAYED);
    uint64_t far = now_ns + INT64_MAX / 2; /* keys are compared as they wrap */
    i->node.key = i->due_ns < far ? i->due_ns : far;
    lim__line_heap_push(&l->delays, &i->node);
}

static void in_ring(lim__line *l, lim__item *i, lim__item_state state, lim__line_node *ring)
{
    set_state(l, i, state);
    i->node.next = ring;
    i->node.prev = ring->prev;
    ring->prev->next = &i->node;
    ring->prev = &i->node;
}

/* Out of the structure that its state names. The state is as before: the caller sets the next one. */
static void detach(lim__line *l, lim__item *i)
{
    switch ((lim__item_state)i->state) {
    case LIM__ITEM_DELAYED:
        lim__line_heap_remove(&l->delays, &i->node);
        return;
    case LIM__ITEM_READY:
        lim__line_queue_remove(&i->cell->queue, &i->node);
        if (lim__line_queue_first(&i->cell->queue) == NULL)
            unseat(l, i->cell);
        return;
    case LIM__ITEM_BEHIND:
        lim__line_queue_remove(&i->lane->queue, &i->node);
        if (lim__line_queue_first(&i->lane->queue) == NULL)
            lim__list_remove(&i->lane->waiting);
        return;
    case LIM__ITEM_PARKED:
    case LIM__ITEM_HELD:
        i->node.prev->next = i->node.next;
        i->node.next->prev = i->node.prev;
        return;
    case LIM__ITEM_OUT:
        return;
    case LIM__ITEM_NONE:
    case LIM__ITEM_LIMITED:
    case LIM__ITEM_STATES:
        break;
    }
    LIM_ASSERT(!"an item of this line");
}

/* ---- lanes ---- */

/* The oldest of those behind becomes the head. */
static void promote(lim__line *l, lim__line_lane *lane)
{
    lim__line_node *n = lim__line_queue_first(&lane->queue);
    lane->head = n != NULL ? lim__line_item(n) : NULL;
    if (n == NULL)
        return;
    detach(l, lane->head);
    ready(l, lane->head);
}

static void leave_lane(lim__line *l, lim__item *i)
{
    if (i->lane != NULL && i->lane->head == i)
        promote(l, i->lane);
}

/* A head that has not gone gives way to an older one, or to one that is out. */
static void step_back(lim__line *l, lim__item *head)
{
    if (head->state == LIM__ITEM_DELAYED)
        return; /* it comes when it is due */
    detach(l, head);
    behind(l, head);
}

static bool gives_way(const lim__item *head, const lim__item *to)
{
    return head->state != LIM__ITEM_OUT && head->state != LIM__ITEM_PARKED && lim__line_older(to, head);
}

/* Older than the head, which went before them: they came when it was out. */
static bool older_waits(const lim__item *head)
{
    lim__line_node *n = lim__line_queue_first(&head->lane->queue);
    return n != NULL && lim__line_older(lim__line_item(n), head);
}

/* One that nothing but its order key can hold up takes its place. */
static void arrive(lim__line *l, lim__item *i)
{
    lim__line_lane *lane = i->lane;
    if (lane == NULL) {
        ready(l, i);
        return;
    }
    if (lane->head == i && !older_waits(i)) {
        ready(l, i);
        return;
    }
    if (lane->head == i) {
        promote(l, lane);
        behind(l, i);
        return;
    }
    if (lane->head != NULL && !gives_way(lane->head, i)) {
        behind(l, i);
        return;
    }
    if (lane->head != NULL)
        step_back(l, lane->head);
    lane->head = i;
    ready(l, i);
}

static void delay_due(lim__line *l, lim__item *i)
{
    detach(l, i);
    if (!i->was_out)
        i->node.tie = ++l->order; /* it comes now */
    arrive(l, i);
}

/* ---- in and out ---- */

lim_err lim__line_add(lim__line *l, lim__item *i, uint64_t now_ns)
{
    LIM_ASSERT(i->state == LIM__ITEM_NONE);
    lim_err err = lim__line_bind(l, i);
    if (err != LIM_OK)
        return err;
    lim__line_flow *f = i->cell->flow;
    f->weight = i->weight == 0 ? 1 : i->weight < LIM__WEIGHT_MAX ? i->weight : LIM__WEIGHT_MAX;
    if (f->items == 1) /* nobody told it what became of its tokens meanwhile */
        lim__line_relimit(l, f, now_ns);
    i->was_out = false;
    i->node.tie = ++l->order;
    if (i->due_ns > now_ns)
        delayed(l, i, now_ns);
    else
        arrive(l, i);
    return LIM_OK;
}

void lim__line_again(lim__line *l, lim__item *i, uint64_t now_ns, uint64_t due_ns)
{
    LIM_ASSERT(i->state == LIM__ITEM_OUT);
    bool failed = due_ns != 0, later = due_ns > now_ns;
    i->was_out = true;
    i->due_ns = due_ns;
    if (failed && i->lane != NULL && l->policy == LIM__LANE_PARK)
        in_ring(l, i, LIM__ITEM_PARKED, &l->parked);
    else if (later)
        delayed(l, i, now_ns);
    else
        arrive(l, i);
    if (i->state == LIM__ITEM_DELAYED && i->lane != NULL && (l->policy == LIM__LANE_SKIP || older_waits(i)))
        leave_lane(l, i);
    lim__line_relimit(l, i->cell->flow, now_ns);
}

/* The only one of its lane that is out, whatever was before it. */
static void take_lane(lim__line *l, lim__item *i)
{
    lim__line_lane *lane = i->lane;
    if (lane == NULL || lane->head == i)
        return;
    LIM_ASSERT(lane->head == NULL || lane->head->state != LIM__ITEM_OUT);
    if (lane->head != NULL)
        step_back(l, lane->head);
    lane->head = i;
}

void lim__line_out(lim__line *l, lim__item *i, uint64_t now_ns)
{
    LIM_ASSERT(i->state != LIM__ITEM_NONE && i->state != LIM__ITEM_OUT);
    lim__line_flow *f = i->cell->flow;
    lim__line_roll_fetch(&l->items, i->no);
    take_lane(l, i);
    detach(l, i);
    set_state(l, i, LIM__ITEM_OUT);
    if ((int64_t)(f->service - l->time) > 0)
        l->time = f->service;
    f->service = l->time + share(f);
    f->turn = ++l->turn;
    lim__line_take_token(&l->bucket, &l->limit, now_ns);
    lim__line_take_token(&lim__line_more_of(f)->bucket, lim__line_flow_limit(l, f), now_ns);
    lim__line_relimit(l, f, now_ns);
}

void lim__line_remove(lim__line *l, lim__item *i, uint64_t now_ns)
{
    LIM_ASSERT(i->state != LIM__ITEM_NONE);
    lim__line_flow *f = i->cell->flow;
    detach(l, i);
    set_state(l, i, LIM__ITEM_NONE);
    leave_lane(l, i);
    lim__line_unbind(l, i);
    lim__line_relimit(l, f, now_ns);
    lim__line_flow_drop(l, f);
}

void lim__line_done(lim__line *l, lim__item *i, uint64_t now_ns)
{
    LIM_ASSERT(i->state == LIM__ITEM_OUT);
    lim__line_remove(l, i, now_ns);
}

void lim__line_hold(lim__line *l, lim__item *i)
{
    LIM_ASSERT(i->state == LIM__ITEM_READY);
    detach(l, i);
    in_ring(l, i, LIM__ITEM_HELD, &l->held);
}

void lim__line_unhold(lim__line *l, lim__item *i)
{
    LIM_ASSERT(i->state == LIM__ITEM_HELD);
    detach(l, i);
    ready(l, i);
}

void lim__line_unhold_all(lim__line *l)
{
    while (l->held.next != &l->held)
        lim__line_unhold(l, lim__line_item(l->held.next));
}

void lim__line_hurry(lim__line *l, lim__item *i, uint64_t now_ns)
{
    LIM_ASSERT(i->state == LIM__ITEM_DELAYED);
    i->due_ns = now_ns;
    delay_due(l, i);
}

bool lim__line_unpark(lim__line *l, lim_bytes order_key, uint64_t now_ns)
{
    lim__line_lane *lane = lim__smap_get(&l->lanes, order_key);
    if (lane == NULL || lane->head == NULL || lane->head->state != LIM__ITEM_PARKED)
        return false;
    lim__item *i = lane->head;
    detach(l, i);
    if (i->due_ns <= now_ns)
        arrive(l, i);
    else
        delayed(l, i, now_ns);
    if (i->state == LIM__ITEM_DELAYED && older_waits(i))
        leave_lane(l, i);
    return true;
}

/* ---- who is next ---- */

void lim__line_begin(lim__line *l)
{
    l->pass++;
}

void lim__line_block(lim__line *l, const lim__item *i)
{
    lim__line_type *t = i->cell->type;
    t->pass = l->pass;
    t->can = false;
}

static bool is_blocked(const lim__line *l, const lim__line_type *t)
{
    return t->pass == l->pass && !t->can;
}

static bool allowed(const lim__line *l, lim__line_type *t, bool (*can)(void *ctx, lim_bytes type), void *ctx)
{
    if (t->pass != l->pass) {
        t->pass = l->pass;
        t->can = can(ctx, t->name);
    }
    return t->can;
}

/* One key may have tasks of two types: the older one goes first. */
static bool goes_before(lim__line_cell *a, lim__line_cell *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->flow != b->flow)
        return lim__line_before(&a->node, &b->node);
    return lim__line_before(lim__line_queue_first(&a->queue), lim__line_queue_first(&b->queue));
}

/* The first of a type, whatever its priority; NULL: the type is shut now. */
static lim__line_cell *first_of_type(lim__line *l, lim__line_type *t)
{
    while (t->mask != 0) {
        lim__line_cell *c = first_cell(l, t, 31 - (unsigned)__builtin_clz(t->mask));
        if (c != NULL)
            return c;
    }
    return NULL;
}

static inline __attribute__((always_inline)) void fetch_item_ahead(const lim__line_queue *q)
{
    lim__line_node *n = lim__line_queue_ahead(q, LINE_FETCH_ITEM);
    const lim__line_queue *items = n != NULL ? &lim__line_cell_of(n)->queue : NULL;
    if (items == NULL || items->first == NULL)
        return;
    lim__line_fetch(lim__line_item(items->first), sizeof(lim__item));
    if (items->head != items->tail)
        lim__line_fetch(&items->head->slot[items->head_at], 1);
}

lim__item *lim__line_best(lim__line *l, bool any, bool (*can)(void *ctx, lim_bytes type), void *ctx)
{
    lim__line_cell *best = NULL;
    for (uint32_t i = 0; i < l->open_count;) {
        lim__line_type *t = l->open[i];
        lim__line_cell *c = NULL;
        if (any || !is_blocked(l, t))
            c = first_of_type(l, t);
        if (c != NULL && (best == NULL || goes_before(c, best)) && (any || allowed(l, t, can, ctx)))
            best = c;
        i += t->mask != 0; /* else another one has its place now */
    }
    if (best == NULL)
        return NULL;
    fetch_item_ahead(queue_of(best));
    return lim__line_item(lim__line_queue_first(&best->queue));
}

lim__item *lim__line_next(lim__line *l, uint64_t now_ns, bool (*can)(void *ctx, lim_bytes type), void *ctx)
{
    return line_is_free(l, now_ns) ? lim__line_best(l, false, can, ctx) : NULL;
}

/* ---- time ---- */

uint64_t lim__line_due(const lim__line *l)
{
    uint64_t due = l->token_ns;
    if (l->delays != NULL && l->delays->key < due)
        due = l->delays->key;
    return l->timers != NULL && l->timers->key < due ? l->timers->key : due;
}

static void timer_due(lim__line *l, lim__line_flow *f, uint64_t now_ns)
{
    lim__line_relimit(l, f, now_ns);
    lim__line_flow_drop(l, f);
}

bool lim__line_wake(lim__line *l, uint64_t now_ns)
{
    if (l->token_ns <= now_ns)
        l->token_ns = LIM__LINE_NEVER;
    for (int n = 0; lim__line_due(l) <= now_ns; n++) {
        if (n == LINE_WAKE_MAX)
            return true;
        if (l->delays != NULL && l->delays->key <= now_ns)
            delay_due(l, lim__line_item(l->delays));
        else
            timer_due(l, &LIM_CONTAINER(l->timers, lim__line_more, timer)->flow, now_ns);
    }
    return false;
}
