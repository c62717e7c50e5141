/* SPDX-License-Identifier: Apache-2.0
 * test_router.h - what the tests of routing functions share: eight candidates, a router from a text, one call. */
#ifndef LIM__TEST_ROUTER_H
#define LIM__TEST_ROUTER_H

#include "route/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define TEXT(lit) ((lim_bytes){ (lit), sizeof(lit) - 1 })

enum { WORKERS = 8, TICK_NS = 10 }; /* one instruction takes 10 ns: a slice is 20,000 of them, the limit 2 million */

static const lim_bytes gpu[] = { { "gpu", 3 }, { "eu", 2 } };
static const lim_bytes resize[] = { { "resize", 6 } };

static struct {
    lim__candidate workers[WORKERS];
    const lim__candidate *list[WORKERS];
    lim__os os;        /* linux with a clock of ours */
    uint64_t clock_ns; /* moved by `step_ns` with each look, and by tests */
    uint64_t step_ns;
    int done; /* calls of on_done */
    void *last_ctx;
    lim__route_result last;
    char last_text[512];
    lim__router *unref_when_done;
    int lines; /* calls of on_log */
    char line[LIM__ROUTE_LINE_MAX + 1];
} w;

static uint64_t world_now(lim__os *os)
{
    (void)os;
    return w.clock_ns += w.step_ns;
}

static void world_reset(void)
{
    static char names[WORKERS][16];
    memset(&w, 0, sizeof w);
    w.os = *lim__os_linux();
    w.clock_ns = 1000000000;
    w.os.now_ns = world_now;
    for (uint32_t i = 0; i < WORKERS; i++) {
        snprintf(names[i], sizeof names[i], "worker-%u", i);
        w.workers[i] = (lim__candidate){ .id = 1000 + i, .stamp = 1, .slot = i, .in_flight = i, .max_in_flight = 10,
                                         .buffer_depth = 2 * i, .latency_us = 100 * i, .name = lim__str(names[i]),
                                         .node = lim__str(i < 4 ? "east" : "west"),
                                         .tags = gpu, .tag_count = i % 2 ? 2 : 0, .types = resize, .type_count = 1 };
        w.list[i] = &w.workers[i];
    }
}

static inline int setup(void **state)
{
    (void)state;
    world_reset();
    return 0;
}

static inline void on_done(void *ctx, void *call_ctx, const lim__route_result *result)
{
    assert_ptr_equal(ctx, &w);
    w.done++;
    w.last_ctx = call_ctx;
    w.last = *result;
    snprintf(w.last_text, sizeof w.last_text, "%s", result->text);
    lim__router_unref(w.unref_when_done);
    w.unref_when_done = NULL;
}

static inline void on_log(void *ctx, const char *line, size_t len)
{
    assert_ptr_equal(ctx, &w);
    assert_true(len <= LIM__ROUTE_LINE_MAX);
    w.lines++;
    memcpy(w.line, line, len);
    w.line[len] = 0;
}

/* Opens with time counted by instructions, so that every outcome is the same on every machine. */
static inline lim_err try_open(lim__engine engine, lim_bytes source, lim__route_limits limits, lim_diag *diag,
                               lim__router **out)
{
    lim__artifact *a = NULL;
    lim_err err = lim__artifact_new(engine, source, "best.lua", 0, &a);
    if (err != LIM_OK)
        return err;
    lim__router_opts opts = { .os = &w.os, .artifact = a, .seed = 7, .instruction_ns = TICK_NS, .limits = limits,
                              .on_done = on_done, .on_log = on_log, .ctx = &w };
    err = lim__router_open(&opts, diag, out);
    lim__artifact_unref(a);
    return err;
}

static inline lim__router *lua_limited(const char *source, lim__route_limits limits)
{
    lim__router *r = NULL;
    lim_diag diag = { 0 };
    if (try_open(LIM__ENGINE_LUA, lim__str(source), limits, &diag, &r) != LIM_OK)
        fail_msg("refused: %s", diag.text);
    return r;
}

static inline lim__router *lua(const char *source)
{
    return lua_limited(source, (lim__route_limits){ 0 });
}

/* A function body over (msg, c). */
static inline lim__router *lua_body(const char *body)
{
    char source[4096];
    int n = snprintf(source, sizeof source, "return function(msg, c) %s end", body);
    LIM_ASSERT(n > 0 && (size_t)n < sizeof source);
    return lua(source);
}

static inline lim__route_result call_with(lim__router *r, lim_bytes payload, lim_bytes headers)
{
    lim__route_result result = { 0 };
    lim__route_msg msg = { .payload = payload, .headers = headers };
    if (lim__router_call(r, &msg, w.list, WORKERS, &w, &result) == LIM__ROUTE_PENDING)
        result.how = LIM__ROUTE_PENDING;
    return result;
}

static inline lim__route_result call(lim__router *r, const char *json)
{
    return call_with(r, lim__str(json), (lim_bytes){ NULL, 0 });
}

/* One call to its end, however many slices it takes. */
static inline lim__route_result call_to_end(lim__router *r, const char *json)
{
    int done = w.done;
    lim__route_result result = call(r, json);
    while (result.how == LIM__ROUTE_PENDING) {
        uint32_t left = lim__router_resume(r);
        if (left == 0 && w.done == done)
            fail_msg("a call ended without a word");
        if (w.done > done) {
            result = w.last;
            result.text = w.last_text;
        }
    }
    return result;
}

static inline void assert_decided(lim__route_result result, uint32_t index)
{
    if (result.how != LIM__ROUTE_DECIDED || result.index != index)
        fail_msg("%s %u: %s; expected decided %u", lim__route_how_text(result.how), result.index, result.text, index);
    assert_int_equal(result.id, w.list[index]->id);
}

static inline void assert_crashed(lim__route_result result, const char *why)
{
    if (result.how != LIM__ROUTE_CRASHED || strstr(result.text, why) == NULL)
        fail_msg("%s: %s; expected crashed with: %s", lim__route_how_text(result.how), result.text, why);
    assert_non_null(result.hash);
}

#endif
