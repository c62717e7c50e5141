/* SPDX-License-Identifier: Apache-2.0
 * host.c - routing functions of the embedding program: a C function and its context, known by an identity that is
 * hashed.
 *
 * It runs on the caller's scheduler and cannot be put aside: while it runs nobody else there has a turn, and if it
 * crashes the program does. So it is watched: a call that takes longer than a slice is counted, and told in the
 * version's log. One that says that it is isolated runs elsewhere (isolated.c). What must not hurt anybody belongs into
 * Lua or a native function. */
#include <liminal/liminal.h>
#include "route/engine.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct host {
    lim__host fn;
    lim_candidate *views; /* scratch */
    uint32_t cap;
} host;

static lim_err host_open(lim__router *r, lim_diag *diag)
{
    if (r->host.decide == NULL) {
        lim__diag_set(diag, 0, 0,
                      "the program has not loaded this function since it was started (lim_route_host_load)");
        return LIM_E_NOTFOUND;
    }
    if (r->host.isolated && lim__sched_current() != NULL) {
        r->ops = &lim__engine_isolated;
        return r->ops->open(r, diag);
    }
    host *h = calloc(1, sizeof *h);
    if (h == NULL)
        return LIM_E_NOMEM;
    h->fn = r->host;
    r->state = h;
    return LIM_OK;
}

static void host_close(lim__router *r)
{
    host *h = r->state;
    free(h->views);
    free(h);
}

static bool room_for(host *h, uint32_t n)
{
    if (n <= h->cap)
        return true;
    lim_candidate *grown = realloc(h->views, n * sizeof *grown);
    if (grown == NULL)
        return false;
    h->views = grown;
    h->cap = n;
    return true;
}

void lim__host_view(const lim__candidate *c, lim_candidate *out)
{
    *out = (lim_candidate){ .id = c->id,
                            .in_flight = c->in_flight,
                            .max_in_flight = c->max_in_flight,
                            .buffer_depth = c->buffer_depth,
                            .latency_us = c->latency_us,
                            .name = c->name,
                            .node = c->node,
                            .tags = c->tags,
                            .types = c->types,
                            .tag_count = c->tag_count,
                            .type_count = c->type_count };
}

static void watch(lim__router *r, uint64_t took_ns)
{
    char line[200];
    lim__hist_record(&r->stats.time_ns, took_ns);
    if (took_ns <= r->limits.slice_ns)
        return;
    r->stats.overruns++;
    snprintf(line, sizeof line, "overrun: %s kept its scheduler for %" PRIu64 " us; a slice is %" PRIu64 " us", r->name,
             took_ns / 1000, r->limits.slice_ns / 1000);
    lim__router_log(r, line, strlen(line));
}

static lim__route_how everybody(lim__router *r, const lim__candidate *const *candidates, uint32_t n,
                                lim__route_result *result)
{
    if (!lim__router_set_begin(r, n)) {
        result->text = "out of memory";
        return result->how = LIM__ROUTE_NOT_STARTED;
    }
    for (uint32_t i = 0; i < n; i++)
        lim__router_set_mark(r, i);
    (void)lim__router_set_end(r, n, result);
    result->id = candidates[0]->id;
    return result->how;
}

static lim__route_how host_call(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                uint32_t n, void *call_ctx, lim__route_result *result)
{
    host *h = r->state;
    const lim_route_message m = { .payload = msg->payload, .headers = msg->headers };
    (void)call_ctx;
    *result = (lim__route_result){ .text = "", .hash = r->artifact->hash };
    if (!room_for(h, n)) {
        result->text = "out of memory";
        return result->how = LIM__ROUTE_NOT_STARTED;
    }
    for (uint32_t i = 0; i < n; i++)
        lim__host_view(candidates[i], &h->views[i]);
    uint64_t start = r->os->now_ns(r->os);
    int64_t index = h->fn.decide(h->fn.ctx, &m, h->views, n);
    watch(r, r->os->now_ns(r->os) - start);
    if (index == LIM_ROUTE_NOBODY)
        return result->how = LIM__ROUTE_NONE;
    if (index == LIM_ROUTE_EVERYBODY && r->sets)
        return everybody(r, candidates, n, result);
    if (index < 0 || index >= n) {
        snprintf(r->text, sizeof r->text, "%s: answered %" PRId64 ", which is none of the %u candidates", r->name,
                 index, n);
        result->text = r->text;
        return result->how = LIM__ROUTE_CRASHED;
    }
    result->index = (uint32_t)index;
    result->id = candidates[index]->id;
    return result->how = LIM__ROUTE_DECIDED;
}

static uint32_t nothing(lim__router *r)
{
    (void)r;
    return 0;
}

static uint32_t none_pending(const lim__router *r)
{
    (void)r;
    return 0;
}

static uint64_t no_memory(const lim__router *r)
{
    (void)r;
    return 0;
}

const lim__engine_ops lim__engine_host = { .open = host_open,
                                           .call = host_call,
                                           .resume = nothing,
                                           .abandon = nothing,
                                           .pending = none_pending,
                                           .memory = no_memory,
                                           .close = host_close };
