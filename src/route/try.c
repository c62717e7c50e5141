/* SPDX-License-Identifier: Apache-2.0
 * try.c - routing functions without a bus: what a bus would have decided, and how long it took. The same router, limits
 * and slices; only that nobody else has a turn between two slices. */
#include <liminal/liminal.h>
#include "route/native.h"
#include "route/route.h"
#include <stdio.h>
#include <stdlib.h>

struct lim_route {
    lim__router *router;
    lim__native *native; /* the pool of its own; NULL: the engine needs none */
    lim__os *os;
    void (*on_print)(void *ctx, const char *line, size_t len);
    void *ctx;
    lim_decision *out; /* of the call that is under way; NULL: it has ended */
};

static void print(void *ctx, const char *line, size_t len)
{
    lim_route *v = ctx;
    if (v->on_print != NULL)
        v->on_print(v->ctx, line, len);
}

static lim_route_how how_of(lim__route_how how)
{
    return how == LIM__ROUTE_DECIDED     ? LIM_ROUTE_DECIDED
           : how == LIM__ROUTE_NONE      ? LIM_ROUTE_NONE
           : how == LIM__ROUTE_CRASHED   ? LIM_ROUTE_CRASHED
           : how == LIM__ROUTE_TIMED_OUT ? LIM_ROUTE_TIMED_OUT
                                         : LIM_ROUTE_NOT_STARTED;
}

static void fill(lim_route *v, lim_decision *out, const lim__route_result *r)
{
    *out = (lim_decision){ .how = how_of(r->how), .after_ns = r->after_ns, .line = r->line };
    if (r->how == LIM__ROUTE_DECIDED)
        out->id = r->id;
    memcpy(out->version.b, lim__router_artifact(v->router)->hash, sizeof out->version.b);
    snprintf(out->text, sizeof out->text, "%s", r->text);
}

static void on_done(void *ctx, void *call_ctx, const lim__route_result *r)
{
    lim_route *v = ctx;
    if (v->out != NULL && v->out == call_ctx)
        fill(v, v->out, r);
    v->out = NULL;
}

static lim_err open_router(lim_route *v, lim_engine engine, lim_bytes code, const char *name, const lim_route_opts *o,
                           lim_diag *diag)
{
    lim__artifact *a = NULL;
    lim_err err = LIM_OK;
    if (engine == LIM_NATIVE)
        err = lim__native_open(&(lim__native_opts){ .helper = o->native_helper }, diag, &v->native);
    if (err == LIM_OK)
        err = lim__artifact_new((lim__engine)engine, code, name, 0, &a);
    if (err != LIM_OK)
        return err;
    lim__router_opts opts = {
        .artifact = a,
        .os = v->os,
        .seed = o->seed,
        .native = v->native,
        .limits = { .cpu_ns = o->cpu_us_max * 1000ull, .wall_ns = INT64_MAX, .memory_max = o->memory_bytes_max },
        .on_done = on_done,
        .on_log = print,
        .ctx = v
    };
    err = lim__router_open(&opts, diag, &v->router);
    lim__artifact_unref(a);
    return err;
}

lim_err lim_route_open(lim_engine engine, lim_bytes code, const char *name, const lim_route_opts *opts, lim_diag *diag,
                       lim_route **out)
{
    static const lim_route_opts none = { .size = sizeof none };
    const lim_route_opts *o = opts != NULL ? opts : &none;
    if (o->size < sizeof *o || engine < LIM_BUILTIN || engine > LIM_NATIVE)
        return LIM_E_MISUSE;
    lim_route *v = calloc(1, sizeof *v);
    if (v == NULL)
        return LIM_E_NOMEM;
    v->os = lim__os_linux();
    v->on_print = o->on_print;
    v->ctx = o->ctx;
    lim_err err = open_router(v, engine, code, name, o, diag);
    if (err != LIM_OK)
        lim_route_close(v);
    else
        *out = v;
    return err;
}

void lim_route_close(lim_route *v)
{
    if (v == NULL)
        return;
    if (v->router != NULL)
        lim__router_abandon(v->router);
    lim__router_unref(v->router);
    lim__native_close(v->native);
    free(v);
}

static void timed_out(lim_route *v, lim_decision *out, uint64_t after_ns, int64_t timeout_ms)
{
    lim__router_abandon(v->router);
    const lim__route_result r = { .how = LIM__ROUTE_TIMED_OUT, .after_ns = after_ns, .text = "" };
    fill(v, out, &r);
    snprintf(out->text, sizeof out->text, "no decision within %lld ms", (long long)timeout_ms);
}

/* The candidates as a bus has them: `views` point into `all`. */
static void take(const lim_candidate *from, uint32_t n, lim__candidate *all, const lim__candidate **views)
{
    for (uint32_t i = 0; i < n; i++) {
        const lim_candidate *c = &from[i];
        all[i] = (lim__candidate){ .id = c->id != 0 ? c->id : i + 1,
                                   .stamp = 1,
                                   .slot = i,
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
        views[i] = &all[i];
    }
}

static void run(lim_route *v, const lim__route_msg *msg, const lim__candidate *const *views, uint32_t n,
                int64_t timeout_ms, lim_decision *out)
{
    lim__route_result r = { 0 };
    uint64_t start = v->os->now_ns(v->os);
    uint64_t end = timeout_ms == LIM_FOREVER ? UINT64_MAX : start + (uint64_t)timeout_ms * 1000000;
    v->out = out;
    if (lim__router_call(v->router, msg, views, n, out, &r) != LIM__ROUTE_PENDING) {
        fill(v, out, &r);
        v->out = NULL;
    }
    while (v->out != NULL && v->os->now_ns(v->os) < end)
        (void)lim__router_resume(v->router);
    uint64_t took = v->os->now_ns(v->os) - start;
    if (v->out != NULL)
        timed_out(v, out, took, timeout_ms);
    v->out = NULL;
    out->took_ns = took;
}

lim_err lim_route_call(lim_route *v, const lim_route_message *message, const lim_candidate *candidates, uint32_t count,
                       int64_t timeout_ms, lim_decision *out)
{
    if (v == NULL || message == NULL || timeout_ms <= 0 || (candidates == NULL && count > 0))
        return LIM_E_MISUSE;
    lim__candidate *all = calloc(count + 1, sizeof *all);
    const lim__candidate **views = calloc(count + 1, sizeof(void *));
    if (all == NULL || views == NULL) {
        free(all);
        free(views);
        return LIM_E_NOMEM;
    }
    const lim__route_msg msg = { .payload = message->payload, .headers = message->headers };
    take(candidates, count, all, views);
    run(v, &msg, views, count, timeout_ms, out);
    for (out->index = 0; out->how == LIM_ROUTE_DECIDED && all[out->index].id != out->id; out->index++)
        LIM_ASSERT(out->index < count);
    free(all);
    free(views);
    return LIM_OK;
}

const char *lim_route_how_text(lim_route_how how)
{
    static const char *const texts[] = { "unknown", "decided", "none", "crashed", "timed_out", "not_started" };
    return (size_t)how < LIM_COUNT(texts) ? texts[how] : texts[0];
}
