/* SPDX-License-Identifier: Apache-2.0
 * builtin.c - the strategies that need no code: least_loaded and round_robin.
 *
 * Both answer somebody whenever there is somebody: a full candidate is chosen only when all are full, and what that
 * means (waiting in its buffer, or nobody) is the owner's decision. */
#include "route/engine.h"

#include <stdlib.h>

typedef struct strategy {
    uint64_t last_id;    /* round_robin: whom it chose last */
    uint32_t last_index; /* and where that one stood */
} strategy;

static lim_err strategy_open(lim__router *r, lim_diag *diag)
{
    (void)diag;
    r->state = calloc(1, sizeof(strategy));
    return r->state != NULL ? LIM_OK : LIM_E_NOMEM;
}

static void strategy_close(lim__router *r)
{
    free(r->state);
}

static uint32_t none_pending(const lim__router *r)
{
    (void)r;
    return 0;
}

static uint32_t nothing_to_do(lim__router *r)
{
    (void)r;
    return 0;
}

static uint64_t no_memory(const lim__router *r)
{
    (void)r;
    return 0;
}

static lim__route_how decided(lim__router *r, const lim__candidate *c, uint32_t index, lim__route_result *result)
{
    *result = (lim__route_result){
        .how = LIM__ROUTE_DECIDED, .index = index, .id = c->id, .text = "", .hash = r->artifact->hash
    };
    return LIM__ROUTE_DECIDED;
}

static uint64_t room(const lim__candidate *c)
{
    return c->in_flight < c->max_in_flight ? c->max_in_flight - c->in_flight : 0;
}

/* > 0: `a` is less loaded than `b`: a larger share of it is free; if equal, fewer wait in its buffer. */
static int less_loaded(const lim__candidate *a, const lim__candidate *b)
{
    uint64_t free_a = room(a) * (b->max_in_flight ? b->max_in_flight : 1);
    uint64_t free_b = room(b) * (a->max_in_flight ? a->max_in_flight : 1);
    if (free_a != free_b)
        return free_a > free_b ? 1 : -1;
    return (a->buffer_depth < b->buffer_depth) - (a->buffer_depth > b->buffer_depth);
}

static lim__route_how least_loaded(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                   uint32_t n, void *call_ctx, lim__route_result *result)
{
    (void)msg, (void)call_ctx;
    uint32_t best = 0, ties = 1;
    for (uint32_t i = 1; i < n; i++) {
        int c = less_loaded(candidates[i], candidates[best]);
        if (c > 0)
            ties = 1;
        if (c > 0 || (c == 0 && lim__rng_below(&r->rng, ++ties) == 0))
            best = i;
    }
    return decided(r, candidates[best], best, result);
}

/* Where the turn is: behind the last one, or where it stood if it has left. */
static uint32_t turn(const strategy *s, const lim__candidate *const *candidates, uint32_t n)
{
    for (uint32_t i = 0; i < n && s->last_id != 0; i++) {
        if (candidates[i]->id == s->last_id)
            return (i + 1) % n;
    }
    return s->last_index % n;
}

static lim__route_how round_robin(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                  uint32_t n, void *call_ctx, lim__route_result *result)
{
    (void)msg, (void)call_ctx;
    strategy *s = r->state;
    uint32_t first = turn(s, candidates, n), chosen = first;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (first + i) % n;
        if (room(candidates[at]) > 0) {
            chosen = at;
            break;
        }
    }
    s->last_id = candidates[chosen]->id;
    s->last_index = chosen;
    return decided(r, candidates[chosen], chosen, result);
}

const lim__engine_ops lim__engine_least_loaded = {
    .open = strategy_open,
    .call = least_loaded,
    .resume = nothing_to_do,
    .abandon = nothing_to_do,
    .pending = none_pending,
    .memory = no_memory,
    .close = strategy_close,
};

const lim__engine_ops lim__engine_round_robin = {
    .open = strategy_open,
    .call = round_robin,
    .resume = nothing_to_do,
    .abandon = nothing_to_do,
    .pending = none_pending,
    .memory = no_memory,
    .close = strategy_close,
};
