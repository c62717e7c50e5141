/* SPDX-License-Identifier: Apache-2.0
 * hostile_test.c - a hundred thousand calls of functions that do harm, through a whole bus with real threads: each ask
 * ends with its outcome, healthy ones beside them are answered, and nothing is left. What they try one by one, and what
 * slices they cost others, is in route/hostile_test.c, contain_test.c and native_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "bus/bus.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })
enum { CALLS = 100000, UNDER_WAY = 4, HEALTHY_EVERY = 20 };

/* Most are quick to fail, so that there can be many; 13 and up take their whole time or memory. */
static const char hostile[] = "local kept = {}\n"
                              "return function(m, c)\n"
                              "  local k = m.k\n"
                              "  if k == 0 then error('boom') end\n"
                              "  if k == 1 then return m.x.y end\n"
                              "  if k == 2 then return 'nobody' end\n"
                              "  if k == 3 then return { id = c[1].id } end\n"
                              "  if k == 4 then return 17 end\n"
                              "  if k == 5 then error({ {} }) end\n"
                              "  if k == 6 then error() end\n"
                              "  if k == 7 then return require('os') end\n"
                              "  if k == 8 then return load('return 1')() end\n"
                              "  if k == 9 then return (nil)() end\n"
                              "  if k == 10 then c[1].id = nil c[1] = nil return c[1].x end\n"
                              "  if k == 11 then return pcall end\n"
                              "  if k == 12 then kept[m] = c return 1 < 'x' end\n"
                              "  if k == 13 then local function f() return 1 + f() end return f() end\n"
                              "  if k == 14 then local t = {} while true do t[#t + 1] = { t } end end\n"
                              "  while true do end\n"
                              "end";

static struct {
    lim_bus *bus;
    pthread_mutex_t mutex;
    pthread_cond_t over; /* nothing is under way any more */
    _Atomic uint32_t begun, ended, contained, replies, under_way;
} w = { .mutex = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER };

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void put_up(const char *group, const char *code, const lim_deploy_opts *opts)
{
    lim_participant p;
    lim_hash hash;
    lim_diag diag = { 0 };
    assert_int_equal(
        lim_serve(w.bus, group, OPTS(lim_serve_opts, .capacity = 1000, .handler = { .on_message = on_echo }), &p),
        LIM_OK);
    if (lim_artifact_load(w.bus, LIM_LUA, (lim_bytes){ code, strlen(code) }, group, &diag, &hash) != LIM_OK ||
        lim_deploy(w.bus, group, &hash, opts, &diag, NULL) != LIM_OK)
        fail_msg("%s", diag.text);
}

static void on_outcome(void *ctx, const lim_outcome *o);

/* Endless loops are rare: each takes all the time it may. */
static void next(void)
{
    uint32_t n = atomic_fetch_add(&w.begun, 1), k = n % 1000 == 0 ? 15 : n % 100 < 2 ? 13 + n % 2 : n % 13;
    char json[32];
    int len = snprintf(json, sizeof json, "{\"k\":%u}", k);
    atomic_fetch_add(&w.under_way, 1);
    if (lim_ask_async(w.bus, "bad", (lim_bytes){ json, (size_t)len }, OPTS(lim_ask_opts, .timeout_ms = 600000),
                      on_outcome, &w.contained, NULL) != LIM_OK)
        atomic_fetch_sub(&w.under_way, 1);
    if (n % HEALTHY_EVERY != 0)
        return;
    atomic_fetch_add(&w.under_way, 1);
    if (lim_ask_async(w.bus, "good", BYTES("{}"), OPTS(lim_ask_opts, .timeout_ms = 600000), on_outcome, &w.replies,
                      NULL) != LIM_OK)
        atomic_fetch_sub(&w.under_way, 1);
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    bool hostile_one = ctx == &w.contained;
    if (hostile_one ? o->how == LIM_HOW_REFUSED && o->why == LIM_WHY_ROUTING_FAULT : o->how == LIM_HOW_REPLY)
        atomic_fetch_add((_Atomic uint32_t *)ctx, 1);
    if (hostile_one && atomic_fetch_add(&w.ended, 1) + UNDER_WAY < CALLS)
        next();
    pthread_mutex_lock(&w.mutex);
    if (atomic_fetch_sub(&w.under_way, 1) == 1)
        pthread_cond_signal(&w.over);
    pthread_mutex_unlock(&w.mutex);
}

static void test_a_hundred_thousand_hostile_calls_leave_a_bus_as_it_was(void **state) /* proves RF8 RF9 */
{
    lim_bus_census before, after;
    lim_outcome o;
    (void)state;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 1), &w.bus), LIM_OK);
    put_up("bad", hostile,
           OPTS(lim_deploy_opts, .unfinished_max = UNDER_WAY, .cpu_us_max = 2000, .memory_bytes_max = 64 << 10,
                .breaker_faults = LIM_UNLIMITED));
    put_up("good", "return function(m, c) return c[1] end", OPTS(lim_deploy_opts, .by = "test"));
    assert_int_equal(lim_ask(w.bus, "good", BYTES("{}"), OPTS(lim_ask_opts, .timeout_ms = 600000), &o), LIM_OK);
    lim_outcome_fini(&o);
    do
        lim_bus_census_take(w.bus, &before);
    while (before.conversations > 0);
    for (int i = 0; i < UNDER_WAY; i++)
        next();
    pthread_mutex_lock(&w.mutex);
    while (atomic_load(&w.under_way) > 0)
        pthread_cond_wait(&w.over, &w.mutex);
    pthread_mutex_unlock(&w.mutex);
    assert_int_equal(atomic_load(&w.begun), CALLS);
    assert_int_equal(atomic_load(&w.ended), CALLS);
    assert_int_equal(atomic_load(&w.contained), CALLS);
    assert_int_equal(atomic_load(&w.replies), CALLS / HEALTHY_EVERY);
    do /* what was told last goes a moment later */
        lim_bus_census_take(w.bus, &after);
    while (after.conversations > 0 || after.runtime.processes > before.runtime.processes ||
           after.runtime.links > before.runtime.links || after.runtime.monitors > before.runtime.monitors ||
           after.messages_kept > before.messages_kept);
    assert_int_equal(after.groups, before.groups);
    assert_int_equal(after.artifacts, before.artifacts);
    lim_bus_close(w.bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_a_hundred_thousand_hostile_calls_leave_a_bus_as_it_was) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
