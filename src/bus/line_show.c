/* SPDX-License-Identifier: Apache-2.0
 * line_show.c - why one waits, lists for people, and the check of all invariants. Changes nothing that can be seen. */
#include "bus/line_inside.h"

/* ---- why ---- */

lim__item_state lim__line_state(const lim__line *l, const lim__item *i)
{
    (void)l;
    bool limited = i->state == LIM__ITEM_READY && i->cell->flow->limited != LINE_FREE;
    return limited ? LIM__ITEM_LIMITED : (lim__item_state)i->state;
}

uint32_t lim__line_count(const lim__line *l, lim__item_state state)
{
    if (state == LIM__ITEM_LIMITED)
        return l->limited;
    if (state != LIM__ITEM_NONE)
        return l->count[state] - (state == LIM__ITEM_READY ? l->limited : 0);
    uint32_t all = 0;
    for (unsigned s = LIM__ITEM_DELAYED; s < LIM__ITEM_STATES; s++)
        all += l->count[s];
    return all;
}

/* Why a limit is in the way, if it is. */
static bool over(lim__line_why *why, const lim__line_limit *limit, const lim__line_bucket *b, uint32_t out,
                 uint64_t now_ns)
{
    why->limit = why->current = 0;
    if (limit->in_flight_max != 0 && out >= limit->in_flight_max) {
        why->limit = limit->in_flight_max;
        why->current = out;
        return true;
    }
    if (limit->rate_max == 0 || lim__line_token_ns(b, limit) <= now_ns)
        return false;
    why->limit = limit->rate_max;
    why->until_ns = lim__line_token_ns(b, limit);
    return true;
}

static lim__line_how why_ready(const lim__line *l, const lim__line_flow *f, lim__line_why *why, uint64_t now_ns)
{
    if (over(why, lim__line_flow_limit(l, f), &lim__line_more_of(f)->bucket, f->count[LIM__ITEM_OUT], now_ns))
        return LIM__LINE_KEY_LIMIT;
    if (over(why, &l->limit, &l->bucket, l->count[LIM__ITEM_OUT], now_ns))
        return LIM__LINE_QUEUE_LIMIT;
    return LIM__LINE_READY;
}

lim__line_why lim__line_why_item(const lim__line *l, const lim__item *i, uint64_t now_ns)
{
    lim__line_why why = { .how = LIM__LINE_EMPTY, .item = i, .until_ns = LIM__LINE_NEVER };
    switch ((lim__item_state)i->state) {
    case LIM__ITEM_DELAYED:
        why.how = LIM__LINE_DELAYED;
        why.until_ns = i->due_ns;
        break;
    case LIM__ITEM_READY:
    case LIM__ITEM_LIMITED:
        why.how = why_ready(l, i->cell->flow, &why, now_ns);
        break;
    case LIM__ITEM_BEHIND:
        why.how = LIM__LINE_ORDERED;
        why.before = i->lane->head;
        break;
    case LIM__ITEM_PARKED:
        why.how = LIM__LINE_PARKED;
        break;
    case LIM__ITEM_HELD:
        why.how = LIM__LINE_HELD;
        break;
    case LIM__ITEM_OUT:
        why.how = LIM__LINE_OUT;
        break;
    case LIM__ITEM_NONE:
    case LIM__ITEM_STATES:
        why.item = NULL;
        break;
    }
    return why;
}

/* The one of two cells, either may be NULL, that has the higher, then the older ready task. */
static lim__line_cell *higher(lim__line_cell *a, lim__line_cell *b)
{
    if (a == NULL || a->seat == LINE_NOWHERE || b->seat == LINE_NOWHERE)
        return a == NULL || a->seat == LINE_NOWHERE ? b : a;
    if (a->priority != b->priority)
        return a->priority > b->priority ? a : b;
    return lim__line_before(lim__line_queue_first(&a->queue), lim__line_queue_first(&b->queue)) ? a : b;
}

static const lim__item *first_limited(const lim__line *l)
{
    if (lim__list_empty(&l->limited_keys))
        return NULL;
    lim__line_flow *f = &LIM_CONTAINER(l->limited_keys.next, lim__line_more, limited_node)->flow;
    lim__line_cell *best = &f->home;
    LIM__LIST_EACH(node, &lim__line_more_of(f)->away)
        best = higher(best, &LIM_CONTAINER(node, lim__line_away, node)->cell);
    LIM_ASSERT(best->seat != LINE_NOWHERE);
    return lim__line_item(lim__line_queue_first(&best->queue));
}

static const lim__item *first_waiting(lim__line *l)
{
    const lim__item *i = lim__line_best(l, true, NULL, NULL);
    if (i == NULL && l->held.next != &l->held)
        i = lim__line_item(l->held.next);
    if (i == NULL)
        i = first_limited(l);
    if (i == NULL && !lim__list_empty(&l->waiting_lanes))
        i = lim__line_item(
            lim__line_queue_first(&LIM_CONTAINER(l->waiting_lanes.next, lim__line_lane, waiting)->queue));
    if (i == NULL && l->parked.next != &l->parked)
        i = lim__line_item(l->parked.next);
    return i == NULL && l->delays != NULL ? lim__line_item(l->delays) : i;
}

lim__line_why lim__line_why_first(lim__line *l, uint64_t now_ns)
{
    const lim__item *i = first_waiting(l);
    if (i == NULL)
        return (lim__line_why){ .how = LIM__LINE_EMPTY, .until_ns = LIM__LINE_NEVER };
    return lim__line_why_item(l, i, now_ns);
}

/* ---- lists ---- */

static void show_key(const lim__line *l, const lim__line_flow *f, lim__line_key *out, uint64_t now_ns)
{
    *out = (lim__line_key){ .no = lim__line_more_of(f)->no,
                            .key = lim__line_name(f),
                            .weight = f->weight,
                            .own_limit = f->own,
                            .limit = *lim__line_flow_limit(l, f) };
    memcpy(out->count, f->count, sizeof out->count);
    out->count[LIM__ITEM_NONE] = f->items;
    if (f->limited != LINE_FREE) {
        out->count[LIM__ITEM_LIMITED] = out->count[LIM__ITEM_READY];
        out->count[LIM__ITEM_READY] = 0;
    }
    uint64_t token_ns = out->limit.rate_max != 0 ? lim__line_token_ns(&lim__line_more_of(f)->bucket, &out->limit) : 0;
    out->until_ns = token_ns > now_ns ? token_ns : 0;
}

uint32_t lim__line_keys(const lim__line *l, uint64_t after, lim__line_key *out, uint32_t max, uint64_t now_ns)
{
    uint32_t n = 0;
    for (size_t at = SIZE_MAX; n < max; n++) {
        const lim__line_flow *f = lim__line_roll_next(&l->flows, &after, &at);
        if (f == NULL)
            break;
        show_key(l, f, &out[n], now_ns);
    }
    return n;
}

bool lim__line_key_get(const lim__line *l, lim_bytes key, lim__line_key *out, uint64_t now_ns)
{
    const lim__line_flow *f = lim__smap_get(&l->keys, key);
    if (f != NULL)
        show_key(l, f, out, now_ns);
    return f != NULL;
}

uint32_t lim__line_items(const lim__line *l, uint64_t after, lim__item **out, uint32_t max)
{
    uint32_t n = 0;
    for (size_t at = SIZE_MAX; n < max; n++) {
        out[n] = lim__line_roll_next(&l->items, &after, &at);
        if (out[n] == NULL)
            break;
    }
    return n;
}
