/* SPDX-License-Identifier: Apache-2.0
 * line_name.c - what a line knows by name: types, fairness keys and their limits, order keys, cells; made with the
 * first item that needs them, freed with the last.
 *
 * All memory of a line is taken here and in the roll, before anything else has changed (lim__line_bind): if one piece
 * is not to be had, those that were made for this item have no items and are dropped again. */
#include "bus/line_inside.h"

#include <stdlib.h>

enum { SQUEEZE_MIN = 1024 };

/* ---- maps ---- */

/* Maps grow by themselves; what a burst of names left behind is given back here, if there is memory for the smaller
 * one. */
static void squeeze(lim__smap *m)
{
    if (m->count == 0) {
        lim__smap_fini(m);
        return;
    }
    if (m->cap < SQUEEZE_MIN || m->count * 16 > m->cap)
        return;
    lim__smap smaller;
    lim__smap_init(&smaller, m->seed);
    size_t pos = 0;
    lim_bytes key;
    void *value;
    while (lim__smap_next(m, &pos, &key, &value))
        if (lim__smap_put(&smaller, key, value) != LIM_OK) {
            lim__smap_fini(&smaller);
            return;
        }
    lim__smap_fini(m);
    *m = smaller;
}

static void forget(lim__smap *m, lim_bytes name)
{
    void *was = lim__smap_remove(m, name);
    LIM_ASSERT(was != NULL);
    squeeze(m);
}

static lim_bytes copy_name(char *text, lim_bytes name)
{
    if (name.len > 0)
        memcpy(text, name.ptr, name.len);
    return lim__bytes(text, name.len);
}

/* ---- types ---- */

static bool open_reserve(lim__line *l)
{
    if (l->types.count < l->open_cap)
        return true;
    uint32_t cap = l->open_cap > 0 ? l->open_cap * 2 : 4;
    lim__line_type **open = realloc(l->open, cap * sizeof *open);
    if (open == NULL)
        return false;
    l->open = open;
    l->open_cap = cap;
    return true;
}

static lim__line_type *type_get(lim__line *l, lim_bytes name)
{
    lim__line_type *t = lim__smap_get(&l->types, name);
    if (t != NULL)
        return t;
    t = open_reserve(l) ? calloc(1, sizeof *t + name.len) : NULL;
    if (t == NULL)
        return NULL;
    t->no = ++l->names;
    t->name = copy_name(t->text, name);
    if (lim__smap_put(&l->types, t->name, t) == LIM_OK)
        return t;
    free(t);
    return NULL;
}

static void free_type(void *what)
{
    lim__line_type *t = what;
    for (unsigned p = 0; p <= LIM__PRIORITY_MAX; p++)
        lim__line_ready_fini(&t->ready[p]);
    free(t);
}

static void type_drop(lim__line *l, lim__line_type *t)
{
    if (t != NULL && t->cells == 0) {
        forget(&l->types, t->name);
        free_type(t);
    }
    if (l->types.count == 0) {
        free(l->open);
        l->open = NULL;
        l->open_cap = 0;
    }
}

/* ---- flows ---- */

static void flow_free(lim__line_flow *f)
{
    lim__line_queue_fini(&f->home.queue);
    lim__line_queue_fini(&lim__line_more_of(f)->bench);
    free(lim__line_more_of(f));
}

static lim__line_flow *flow_new(lim_bytes name)
{
    lim__line_more *m = aligned_alloc(64, (sizeof *m + name.len + 63) / 64 * 64);
    if (m == NULL)
        return NULL;
    *m = (lim__line_more){ .flow = { .weight = 1, .name_len = (uint16_t)name.len } };
    lim__list_init(&m->away);
    lim__list_init(&m->limited_node);
    copy_name((char *)(&m->flow + 1), name);
    return &m->flow;
}

static lim__line_flow *flow_get(lim__line *l, lim_bytes name)
{
    lim__line_flow *f = lim__smap_get(&l->keys, name);
    if (f != NULL)
        return f;
    f = flow_new(name);
    if (f == NULL)
        return NULL;
    uint64_t *no = &lim__line_more_of(f)->no;
    if (lim__line_roll_add(&l->flows, f, no) != LIM_OK) {
        flow_free(f);
        return NULL;
    }
    if (lim__smap_put(&l->keys, lim__line_name(f), f) == LIM_OK)
        return f;
    lim__line_roll_remove(&l->flows, *no);
    flow_free(f);
    return NULL;
}

void lim__line_flow_drop(lim__line *l, lim__line_flow *f)
{
    if (f == NULL || f->items > 0 || f->own || f->timed || f->home.type != NULL ||
        !lim__list_empty(&lim__line_more_of(f)->away))
        return;
    lim__list_remove(&lim__line_more_of(f)->limited_node);
    lim__line_roll_remove(&l->flows, lim__line_more_of(f)->no);
    forget(&l->keys, lim__line_name(f));
    flow_free(f);
}

/* ---- lanes ---- */

static lim__line_lane *lane_get(lim__line *l, lim_bytes name)
{
    lim__line_lane *lane = lim__smap_get(&l->lanes, name);
    if (lane != NULL)
        return lane;
    lane = calloc(1, sizeof *lane + name.len);
    if (lane == NULL)
        return NULL;
    lim__list_init(&lane->waiting);
    lane->name = copy_name(lane->text, name);
    if (lim__smap_put(&l->lanes, lane->name, lane) == LIM_OK)
        return lane;
    free(lane);
    return NULL;
}

static void lane_drop(lim__line *l, lim__line_lane *lane)
{
    if (lane == NULL || lane->items > 0)
        return;
    forget(&l->lanes, lane->name);
    lim__line_queue_fini(&lane->queue);
    free(lane);
}

/* ---- cells ---- */

static lim__line_cell *cell_new(lim__line *l, lim__line_flow *f, const uint64_t *name)
{
    if (f->home.type == NULL)
        return &f->home;
    lim__line_away *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    memcpy(a->name, name, sizeof a->name);
    if (lim__smap_put(&l->cells, lim__bytes(a->name, sizeof a->name), a) == LIM_OK) {
        lim__list_push(&lim__line_more_of(f)->away, &a->node);
        return &a->cell;
    }
    free(a);
    return NULL;
}

static lim__line_cell *cell_get(lim__line *l, lim__line_flow *f, lim__line_type *t, uint8_t priority)
{
    if (f->home.type == t && f->home.priority == priority)
        return &f->home;
    uint64_t name[2] = { lim__line_more_of(f)->no, t->no << 4 | priority };
    lim__line_away *a = lim__smap_get(&l->cells, lim__bytes(name, sizeof name));
    lim__line_cell *c = a != NULL ? &a->cell : cell_new(l, f, name);
    if (c == NULL || a != NULL)
        return c;
    c->flow = f;
    c->type = t;
    c->priority = priority;
    t->cells++;
    return c;
}

static void cell_drop(lim__line *l, lim__line_cell *c)
{
    if (c == NULL || c->items > 0)
        return;
    LIM_ASSERT(c->seat == LINE_NOWHERE);
    c->type->cells--;
    c->type = NULL;
    lim__line_queue_fini(&c->queue);
    if (c == &c->flow->home)
        return;
    lim__line_away *a = LIM_CONTAINER(c, lim__line_away, cell);
    lim__list_remove(&a->node);
    forget(&l->cells, lim__bytes(a->name, sizeof a->name));
    free(a);
}

/* ---- items ---- */

static void drop_unused(lim__line *l, lim__line_cell *c, lim__line_type *t, lim__line_flow *f, lim__line_lane *lane)
{
    cell_drop(l, c);
    type_drop(l, t);
    lim__line_flow_drop(l, f);
    lane_drop(l, lane);
}

lim_err lim__line_bind(lim__line *l, lim__item *i)
{
    if (i->priority > LIM__PRIORITY_MAX || i->type.len > LINE_NAME_MAX || i->key.len > LINE_NAME_MAX ||
        i->order_key.len > LINE_NAME_MAX)
        return LIM_E_INVALID;
    lim__line_flow *f = flow_get(l, i->key);
    lim__line_fetch(f, sizeof *f); /* of thousands, so it is far; the type is near */
    lim__line_type *t = f != NULL ? type_get(l, i->type) : NULL;
    lim__line_cell *c = t != NULL ? cell_get(l, f, t, i->priority) : NULL;
    lim__line_lane *lane = c != NULL && i->order_key.len > 0 ? lane_get(l, i->order_key) : NULL;
    if (c == NULL || (lane == NULL && i->order_key.len > 0) || lim__line_roll_add(&l->items, i, &i->no) != LIM_OK) {
        drop_unused(l, c, t, f, lane);
        return LIM_E_NOMEM;
    }
    i->cell = c;
    i->lane = lane;
    i->type = t->name;
    i->key = lim__line_name(f);
    c->items++;
    f->items++;
    f->count[LIM__ITEM_NONE]++;
    l->count[LIM__ITEM_NONE]++;
    if (lane != NULL) {
        i->order_key = lane->name;
        lane->items++;
    }
    return LIM_OK;
}

void lim__line_unbind(lim__line *l, lim__item *i)
{
    lim__line_cell *c = i->cell;
    lim__line_type *t = c->type;
    lim__line_flow *f = c->flow;
    lim__line_roll_remove(&l->items, i->no);
    i->cell = NULL;
    i->type = i->key = i->order_key = lim__bytes(NULL, 0);
    l->count[LIM__ITEM_NONE]--;
    f->count[LIM__ITEM_NONE]--;
    f->items--;
    if (--c->items == 0) {
        cell_drop(l, c);
        type_drop(l, t);
    }
    if (i->lane != NULL && --i->lane->items == 0)
        lane_drop(l, i->lane);
    i->lane = NULL;
}

/* ---- tokens ---- */

/* The instant at which the bucket is full again if one more token is taken, in whole ns and 1 / rate_max of one. */
static lim__line_bucket after_one(const lim__line_bucket *b, const lim__line_limit *limit)
{
    uint64_t part = b->part + limit->period_ns % limit->rate_max;
    uint64_t carry = part >= limit->rate_max;
    return (lim__line_bucket){ b->full_ns + limit->period_ns / limit->rate_max + carry,
                               part - carry * limit->rate_max };
}

uint64_t lim__line_token_ns(const lim__line_bucket *b, const lim__line_limit *limit)
{
    lim__line_bucket next = after_one(b, limit);
    uint64_t full_ns = next.full_ns + (next.part > 0);
    return full_ns > limit->period_ns ? full_ns - limit->period_ns : 0;
}

/* May be more than there are: a restored lease is a fact. It is not worse than empty after that. */
void lim__line_take_token(lim__line_bucket *b, const lim__line_limit *limit, uint64_t now_ns)
{
    if (limit->rate_max == 0)
        return;
    if (b->full_ns < now_ns)
        *b = (lim__line_bucket){ .full_ns = now_ns };
    *b = after_one(b, limit);
    if (b->full_ns - now_ns >= limit->period_ns)
        *b = (lim__line_bucket){ .full_ns = now_ns + limit->period_ns };
}

/* As many tokens stay used as were, or as the new rate has. */
static void change_rate(lim__line_bucket *b, const lim__line_limit *was, const lim__line_limit *is, uint64_t now_ns)
{
    if (was->rate_max == is->rate_max && was->period_ns == is->period_ns)
        return;
    uint64_t debt_ns = was->rate_max != 0 && b->full_ns > now_ns ? b->full_ns - now_ns : 0;
    *b = (lim__line_bucket){ 0 };
    if (debt_ns == 0 || is->rate_max == 0)
        return;
    __extension__ typedef unsigned __int128 wide;
    wide used = ((wide)debt_ns * was->rate_max << 20) / was->period_ns; /* tokens, in 2^-20 */
    wide debt = used * is->period_ns / is->rate_max >> 20;
    b->full_ns = now_ns + (debt < is->period_ns ? (uint64_t)debt : is->period_ns);
}

/* ---- limits ---- */

const lim__line_limit *lim__line_flow_limit(const lim__line *l, const lim__line_flow *f)
{
    return f->own ? &lim__line_more_of(f)->limit : &l->key_limit;
}

static bool is_limit(const lim__line_limit *limit)
{
    return limit->rate_max == 0 || (limit->rate_max <= LIM__LINE_RATE_MAX && limit->period_ns > 0 &&
                                    limit->period_ns <= LIM__LINE_PERIOD_MAX_NS);
}

lim_err lim__line_limit_line(lim__line *l, const lim__line_limit *limit, uint64_t now_ns)
{
    if (!is_limit(limit))
        return LIM_E_INVALID;
    change_rate(&l->bucket, &l->limit, limit, now_ns);
    l->limit = *limit;
    l->token_ns = LIM__LINE_NEVER; /* the next next() says */
    return LIM_OK;
}

lim_err lim__line_limit_keys(lim__line *l, const lim__line_limit *limit, uint64_t now_ns)
{
    if (!is_limit(limit))
        return LIM_E_INVALID;
    lim__line_limit was = l->key_limit;
    l->key_limit = *limit;
    lim__line_flow *f;
    uint64_t no = 0;
    for (size_t at = SIZE_MAX; (f = lim__line_roll_next(&l->flows, &no, &at)) != NULL;) {
        if (f->own)
            continue;
        change_rate(&lim__line_more_of(f)->bucket, &was, limit, now_ns);
        lim__line_relimit(l, f, now_ns);
    }
    for (no = 0; (f = lim__line_roll_next(&l->flows, &no, &(size_t){ SIZE_MAX })) != NULL;)
        lim__line_flow_drop(l, f); /* pages may go: each look begins anew */
    return LIM_OK;
}

lim_err lim__line_limit_set(lim__line *l, lim_bytes key, const lim__line_limit *limit, uint64_t now_ns)
{
    if (!is_limit(limit) || key.len > LINE_NAME_MAX)
        return LIM_E_INVALID;
    lim__line_flow *f = flow_get(l, key);
    if (f == NULL)
        return LIM_E_NOMEM;
    change_rate(&lim__line_more_of(f)->bucket, lim__line_flow_limit(l, f), limit, now_ns);
    f->own = true;
    lim__line_more_of(f)->limit = *limit;
    lim__line_relimit(l, f, now_ns);
    return LIM_OK;
}

bool lim__line_limit_clear(lim__line *l, lim_bytes key, uint64_t now_ns)
{
    lim__line_flow *f = lim__smap_get(&l->keys, key);
    if (f == NULL || !f->own)
        return false;
    change_rate(&lim__line_more_of(f)->bucket, &lim__line_more_of(f)->limit, &l->key_limit, now_ns);
    f->own = false;
    lim__line_relimit(l, f, now_ns);
    lim__line_flow_drop(l, f);
    return true;
}

void lim__line_policy(lim__line *l, lim__lane_policy policy)
{
    LIM_ASSERT(policy >= LIM__LANE_WAIT && policy <= LIM__LANE_PARK);
    l->policy = policy;
}

/* ---- life ---- */

void lim__line_init(lim__line *l, uint64_t seed)
{
    *l = (lim__line){ .pass = 1, .token_ns = LIM__LINE_NEVER, .policy = LIM__LANE_WAIT };
    lim__smap_init(&l->types, seed);
    lim__smap_init(&l->keys, seed);
    lim__smap_init(&l->lanes, seed);
    lim__smap_init(&l->cells, seed);
    l->held.next = l->held.prev = &l->held;
    l->parked.next = l->parked.prev = &l->parked;
    lim__list_init(&l->limited_keys);
    lim__list_init(&l->waiting_lanes);
}

static void free_flow(void *flow)
{
    flow_free(flow);
}

static void free_away(void *away)
{
    lim__line_away *a = away;
    lim__line_queue_fini(&a->cell.queue);
    free(a);
}

static void free_lane(void *what)
{
    lim__line_lane *lane = what;
    lim__line_queue_fini(&lane->queue);
    free(lane);
}

static void free_all(lim__smap *m, void (*free_one)(void *what))
{
    size_t pos = 0;
    lim_bytes key;
    void *value;
    while (lim__smap_next(m, &pos, &key, &value))
        free_one(value);
    lim__smap_fini(m);
}

void lim__line_fini(lim__line *l)
{
    free_all(&l->types, free_type);
    free_all(&l->keys, free_flow);
    free_all(&l->lanes, free_lane);
    free_all(&l->cells, free_away);
    lim__line_roll_fini(&l->items);
    lim__line_roll_fini(&l->flows);
    free(l->open);
    lim__line_init(l, l->types.seed);
}
