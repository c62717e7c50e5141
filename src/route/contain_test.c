/* SPDX-License-Identifier: Apache-2.0
 * contain_test.c - what hostile functions cost others: slices and memory, counted. What they try is in hostile_test.c.
 */
#include "route/test_router.h"

#include <malloc.h>

enum { BASELINE_SLACK = 4096, CALM_CALLS = 400 };

static uint64_t memory_of(const lim__router *r)
{
    lim__router_stats stats;
    lim__router_stats_get(r, &stats);
    return stats.memory_bytes;
}

/* ---- slices ---- */

static const char *const loops[] = {
    "while true do end",
    "repeat pcall(error) until false",
    "local function f() return f() end f()",
    "while true do local t = {} for i = 1, 100 do t[i] = i end for k in pairs(t) do end end",
    "local s = 'x' while #s < 20000 do s = s .. s end while true do local x = s .. 'y' end",
    "while true do for k, v in pairs(msg) do end end",
};

/* The owner gives one slice to the oldest call, again and again. A call that needs `slices` more of them is done when
 * each of the others had as many, and one is under way. */
static void test_a_healthy_call_waits_one_slice_for_each_unfinished_one(void **state) /* proves RF9 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(loops); i++) {
        for (uint32_t hostile = 0; hostile < 4; hostile++) {
            char source[512];
            world_reset();
            snprintf(source, sizeof source,
                     "return function(msg, c) if msg.spin then for i = 1, msg.spin do end return c[1] end %s end",
                     loops[i]);
            lim__router *r = lua(source);
            for (uint32_t k = 0; k < hostile; k++)
                assert_int_equal(call(r, "{\"a\":1}").how, LIM__ROUTE_PENDING);
            assert_decided(call(r, "{\"spin\":1}"), 0); /* what is short does not wait at all */
            uint32_t resumes = 0, slices = 2;
            assert_int_equal(call(r, "{\"spin\":50000}").how, LIM__ROUTE_PENDING); /* 500 us: three slices */
            while (w.done == 0) {
                assert_int_equal(lim__router_runnable(r), hostile + 1);
                lim__router_resume(r);
                resumes++;
            }
            assert_true(resumes <= slices * (hostile + 1));
            assert_decided(w.last, 0);
            assert_int_equal(lim__router_abandon(r), hostile);
            lim__router_unref(r);
        }
    }
}

/* Two versions on one scheduler: whoever is stuck in one is nothing to the other. */
static void test_calls_of_another_version_do_not_wait(void **state) /* proves RF9 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(loops); i++) {
        world_reset();
        lim__router *stuck = lua_body(loops[i]), *healthy = lua_body("return c[2]");
        for (int k = 0; k < 4; k++)
            assert_int_equal(call(stuck, "{\"a\":1}").how, LIM__ROUTE_PENDING);
        assert_int_equal(call(stuck, "{}").how, LIM__ROUTE_NOT_STARTED);
        for (int k = 0; k < 100; k++)
            assert_decided(call(healthy, "{}"), 1);
        lim__router_abandon(stuck);
        lim__router_unref(stuck);
        lim__router_unref(healthy);
    }
}

/* ---- again and again ---- */

static void test_sixteen_crashes_and_sixteen_healthy_calls_alternate(void **state) /* proves RF8 */
{
    (void)state;
    lim__router *bad = lua_body("error('boom')"), *good = lua_body("return c[4]");
    for (int i = 0; i < 16; i++) {
        assert_crashed(call(bad, "{}"), "best.lua:1: boom");
        assert_decided(call(good, "{}"), 3);
    }
    lim__router_unref(bad);
    lim__router_unref(good);
}

static void test_a_hundred_thousand_crashes_leave_nothing(void **state) /* proves RF9 */
{
    (void)state;
    lim__router *r =
        lua("return function(msg, c)\n"
            "  if msg.ok then return c[msg.ok] end\n"
            "  local t = { msg.n } local f = function() return t end\n"
            "  if msg.n == 1 then error(t) elseif msg.n == 2 then return f elseif msg.n == 3 then return t.x.y end\n"
            "  pcall(error, f) error('plain')\n"
            "end");
    static const char *const messages[] = { "{\"n\":1}", "{\"n\":2}", "{\"n\":3}", "{\"n\":4}" };
    uint64_t early = 0;
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(call(r, messages[i & 3]).how, LIM__ROUTE_CRASHED);
        assert_decided(call(r, "{\"ok\":2}"), 1);
        if (i < 1000 && memory_of(r) > early)
            early = memory_of(r);
        else if (i >= 1000)
            assert_true(memory_of(r) <= early + BASELINE_SLACK);
    }
    lim__router_stats stats;
    lim__router_stats_get(r, &stats);
    assert_int_equal(stats.crashed, 100000);
    assert_int_equal(stats.decided, 100000);
    lim__router_unref(r);
}

/* ---- memory ---- */

static const char *const bombs[] = {
    "local t = {} while true do t[#t + 1] = {} end",
    "local t = {} while true do t = { t } end",
    "local f while true do local g = f f = function() return g end end",
    "local t = {} while true do t[#t + 1] = msg.a end",
    "local function f() return 1 + f() end f()",
    "local t, s = {}, 'x' for i = 1, 14 do s = s .. s end while true do t[#t + 1] = s .. #t end",
    "while true do end",
    "error({ {} })",
};

static void calm(lim__router *r)
{
    for (int i = 0; i < CALM_CALLS; i++)
        assert_decided(call(r, "{\"ok\":3}"), 2);
}

static void test_after_each_bomb_the_memory_is_what_it_was(void **state) /* proves RF9 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(bombs); i++) {
        char source[512];
        world_reset();
        snprintf(source, sizeof source, "return function(msg, c) if msg.ok then return c[msg.ok] end %s end", bombs[i]);
        lim__router *r = lua_limited(source, (lim__route_limits){ .cpu_ns = 10000000 });
        calm(r);
        uint64_t baseline = memory_of(r);
        for (int round = 0; round < 3; round++) {
            lim__route_result result = call_to_end(r, "{\"a\":{}}");
            assert_true(result.how == LIM__ROUTE_CRASHED || result.how == LIM__ROUTE_TIMED_OUT);
            calm(r);
            if (memory_of(r) > baseline + BASELINE_SLACK)
                fail_msg("%s: %lu bytes, then %lu", bombs[i], (unsigned long)baseline, (unsigned long)memory_of(r));
        }
        lim__router_unref(r);
    }
}

/* What a version keeps between calls grows until the limit, to the byte, and no further. */
static void test_the_memory_limit_is_counted_exactly(void **state) /* proves RF10 */
{
    (void)state;
    static const uint32_t limits[] = { 64 << 10, 100000, 1 << 20, 8 << 20 };
    for (size_t i = 0; i < LIM_COUNT(limits); i++) {
        world_reset();
        lim__router *r = lua_limited("local kept = nil\n"
                                     "return function(msg, c)\n"
                                     "  if not msg.more then return c[1] end\n"
                                     "  local s = msg.more .. counter() kept = { kept, s .. s }\n"
                                     "  return c[1] end",
                                     (lim__route_limits){ .memory_max = limits[i] });
        char json[2000];
        int n = snprintf(json, sizeof json, "{\"more\":\"%01500d\"}", 7);
        LIM_ASSERT((size_t)n < sizeof json);
        assert_decided(call(r, "{}"), 0);
        uint64_t empty = memory_of(r), most = 0;
        lim__route_result result;
        while ((result = call_to_end(r, json)).how == LIM__ROUTE_DECIDED)
            most = memory_of(r) > most ? memory_of(r) : most;
        assert_crashed(result, "out of memory");
        assert_in_range(most - empty, limits[i] - 40000, limits[i] + 10000); /* what coroutines may take is the bus's */
        lim__router_unref(r);
    }
}

/* Whatever it held: the state's own count ends at zero (asserted when it closes), and the heap does not grow. */
static void test_ten_thousand_routers_come_and_go_without_a_trace(void **state) /* proves RF7 RF10 */
{
    (void)state;
    size_t before = 0;
    for (int i = 0; i < 10000; i++) {
        char source[256];
        snprintf(source, sizeof source, "return function(msg, c) if msg.bad then %s end return c[1] end",
                 i % 100 == 0 ? bombs[i / 100 % LIM_COUNT(bombs)] : "error('x')");
        lim__router *r = lua_limited(source, (lim__route_limits){ .cpu_ns = 1000000 });
        assert_decided(call(r, "{}"), 0);
        call_to_end(r, "{\"bad\":true}");
        lim__router_unref(r);
        if (i == 999)
            before = mallinfo2().uordblks;
    }
    assert_true(mallinfo2().uordblks <= before + 65536); /* a sanitizer's heap has its own leak check */
}

/* ---- functions that keep something for the next call ---- */

static const struct {
    const char *what, *source; /* called three times: with {"n":1} and so on */
    lim__route_how how[3];
    const char *text; /* of the last */
} keepers[] = {
    { "a candidate of an earlier call is one of this",
      "local k return function(m, c) k = k or c[2] return k end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED },
      "" },
    { "a candidate that has left",
      "local k return function(m, c) k = k or c[8] return k end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED, LIM__ROUTE_CRASHED },
      "chose worker-7, which is not among the candidates" },
    { "the array of an earlier call",
      "local k return function(m, c) k = k or c return k[8] end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED, LIM__ROUTE_NONE },
      "" },
    { "a part of an earlier message",
      "local k return function(m, c) k = k or m.part return c[k.n] or c[1] end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED },
      "" },
    { "what it counts",
      "local n = 0 return function(m, c) n = n + 1 return n == m.n and c[n] end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED },
      "" },
    { "a table that it called by an id",
      "local k return function(m, c) k = k or { id = c[1].id } return k end",
      { LIM__ROUTE_CRASHED, LIM__ROUTE_CRASHED, LIM__ROUTE_CRASHED },
      "not one of the candidates" },
    { "another function in its own place",
      "local f f = function(m, c) f = function() while true do end end return c[1] end\n"
      "return function(m, c) return f(m, c) end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_TIMED_OUT, LIM__ROUTE_TIMED_OUT },
      "routing.cpu_us_max" },
    { "another tostring, pairs and error",
      "return function(m, c) tostring, pairs, error = nil, nil, nil return m.n < 3 and c[1] or tostring(1) end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_DECIDED, LIM__ROUTE_CRASHED },
      "global 'tostring'" },
    { "no environment",
      "return function(m, c) local x = pcall _ENV = nil return c[1] end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_CRASHED, LIM__ROUTE_CRASHED },
      "_ENV" },
    { "an iterator of an earlier call",
      "local k return function(m, c) k = k or pairs(m) return k() == 'n' and c[1] or nil end",
      { LIM__ROUTE_DECIDED, LIM__ROUTE_NONE, LIM__ROUTE_NONE },
      "" },
};

static void test_what_is_kept_for_the_next_call_helps_nobody(void **state) /* proves RF9 RF12 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(keepers); i++) {
        world_reset();
        lim__router *r = lua(keepers[i].source);
        for (uint32_t n = 1; n <= 3; n++) {
            char json[64];
            int done = w.done;
            lim__route_result result;
            snprintf(json, sizeof json, "{\"n\":%u,\"part\":{\"n\":%u}}", n, n);
            lim__route_msg msg = { .payload = lim__str(json) };
            lim__route_how how = lim__router_call(r, &msg, w.list, n == 3 ? 7 : WORKERS, &w, &result);
            while (how == LIM__ROUTE_PENDING && w.done == done)
                lim__router_resume(r);
            if (how == LIM__ROUTE_PENDING)
                result = w.last;
            const char *text = how == LIM__ROUTE_PENDING ? w.last_text : result.text;
            if (result.how != keepers[i].how[n - 1] || (n == 3 && strstr(text, keepers[i].text) == NULL))
                fail_msg("%s: call %u: %s: %s", keepers[i].what, n, lim__route_how_text(result.how), text);
        }
        lim__router_unref(r);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_a_healthy_call_waits_one_slice_for_each_unfinished_one),
        T(test_calls_of_another_version_do_not_wait),
        T(test_sixteen_crashes_and_sixteen_healthy_calls_alternate),
        T(test_a_hundred_thousand_crashes_leave_nothing),
        T(test_after_each_bomb_the_memory_is_what_it_was),
        T(test_the_memory_limit_is_counted_exactly),
        T(test_ten_thousand_routers_come_and_go_without_a_trace),
        T(test_what_is_kept_for_the_next_call_helps_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
