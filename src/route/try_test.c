/* SPDX-License-Identifier: Apache-2.0
 * try_test.c - a routing function by itself: every outcome a bus could meet, without one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <liminal/liminal.h>
#include <stdio.h>
#include <string.h>

#define BYTES(lit) ((lim_bytes){ (lit), sizeof(lit) - 1 })

static const lim_bytes tags[] = { { "big", 3 } };
static const lim_candidate candidates[] = {
    { .name = { "one", 3 }, .max_in_flight = 1, .in_flight = 1 },
    { .name = { "two", 3 }, .max_in_flight = 4, .tags = tags, .tag_count = 1 },
    { .name = { "three", 5 }, .max_in_flight = 1 },
};

static lim_decision decide(const char *code, const char *message, int64_t timeout_ms)
{
    lim_route *v;
    lim_decision d;
    lim_diag diag = { 0 };
    const lim_route_opts opts = { .size = sizeof opts, .cpu_us_max = 5000 };
    const lim_route_message msg = { .payload = { message, strlen(message) } };
    if (lim_route_open(LIM_LUA, (lim_bytes){ code, strlen(code) }, "f.lua", &opts, &diag, &v) != LIM_OK)
        fail_msg("%s", diag.text);
    assert_int_equal(lim_route_call(v, &msg, candidates, 3, timeout_ms, &d), LIM_OK);
    lim_route_close(v);
    return d;
}

static void test_every_outcome_is_told_as_it_is(void **state) /* proves RF8 RF14 */
{
    (void)state;
    lim_decision d =
        decide("return function(m, c) for i = 1, #c do if c[i].tags.big then return c[i] end end end", "{}", 5000);
    assert_int_equal(d.how, LIM_ROUTE_DECIDED);
    assert_int_equal(d.index, 1);
    assert_true(d.took_ns > 0);
    d = decide("return function(m, c) return c[m.n] end", "{\"n\":3}", 5000);
    assert_int_equal(d.how, LIM_ROUTE_DECIDED);
    assert_int_equal(d.index, 2);
    d = decide("return function(m, c) return nil end", "{}", 5000);
    assert_int_equal(d.how, LIM_ROUTE_NONE);
    d = decide("return function(m, c)\n  error('no good')\nend", "{}", 5000);
    assert_int_equal(d.how, LIM_ROUTE_CRASHED);
    assert_int_equal(d.line, 2);
    assert_non_null(strstr(d.text, "no good"));
    d = decide("return function() while true do end end", "{}", 60000);
    assert_int_equal(d.how, LIM_ROUTE_TIMED_OUT);
    assert_true(d.after_ns >= 5000000);
}

static void test_it_needs_no_more_time_than_it_is_given(void **state) /* proves RF14 */
{
    lim_route *v;
    lim_decision d;
    (void)state;
    static const char code[] = "return function() while true do end end";
    const lim_route_opts opts = { .size = sizeof opts, .cpu_us_max = 30000000 };
    const lim_route_message msg = { .payload = BYTES("{}") };
    assert_int_equal(lim_route_open(LIM_LUA, BYTES(code), "f.lua", &opts, NULL, &v), LIM_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lim_route_call(v, &msg, candidates, 3, 10, &d), LIM_OK);
        assert_int_equal(d.how, LIM_ROUTE_TIMED_OUT);
        assert_non_null(strstr(d.text, "10 ms"));
    }
    assert_int_equal(lim_route_call(v, &msg, NULL, 0, 10, &d), LIM_OK);
    assert_int_equal(d.how, LIM_ROUTE_NONE);
    assert_int_equal(lim_route_call(v, &msg, candidates, 3, 0, &d), LIM_E_MISUSE);
    lim_route_close(v);
}

static void on_print(void *ctx, const char *line, size_t len)
{
    snprintf(ctx, 64, "%.*s", (int)len, line);
}

static void test_what_it_prints_and_what_is_wrong_with_it_is_told(void **state) /* proves RF6 RF14 */
{
    lim_route *v;
    lim_decision d;
    lim_diag diag = { 0 };
    char line[64] = "";
    (void)state;
    const lim_route_opts opts = { .size = sizeof opts, .on_print = on_print, .ctx = line };
    const lim_route_message msg = { .payload = BYTES("{}") };
    assert_int_equal(lim_route_open(LIM_LUA, BYTES("return function(\n"), "f.lua", NULL, &diag, &v), LIM_E_CODE);
    assert_true(diag.line > 0);
    assert_int_equal(lim_route_open(LIM_BUILTIN, BYTES("nonsense"), "x", NULL, &diag, &v), LIM_E_CODE);
    static const char code[] = "return function(m, c) print('there are', #c) return c[1] end";
    assert_int_equal(lim_route_open(LIM_LUA, BYTES(code), "f.lua", &opts, &diag, &v), LIM_OK);
    assert_int_equal(lim_route_call(v, &msg, candidates, 3, 5000, &d), LIM_OK);
    assert_non_null(strstr(line, "there are"));
    lim_route_close(v);
    assert_int_equal(lim_route_open(LIM_BUILTIN, BYTES("least_loaded"), "x", NULL, &diag, &v), LIM_OK);
    assert_int_equal(lim_route_call(v, &msg, candidates, 3, 5000, &d), LIM_OK);
    assert_int_equal(d.how, LIM_ROUTE_DECIDED);
    assert_int_not_equal(d.index, 0); /* it is full */
    lim_route_close(v);
    lim_route_close(NULL);
    assert_string_equal(lim_route_how_text(LIM_ROUTE_NOT_STARTED), "not_started");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_outcome_is_told_as_it_is),
        cmocka_unit_test(test_it_needs_no_more_time_than_it_is_given),
        cmocka_unit_test(test_what_it_prints_and_what_is_wrong_with_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
