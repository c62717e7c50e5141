/* SPDX-License-Identifier: Apache-2.0
 * slice_test.c - calls that take longer than a slice, limits of time, versions that end, what is counted. */
#include "route/test_router.h"

/* ---- slices ---- */

static const char mixed[] = "return function(msg, c)\n"
                            "  if msg.spin then local n = 0 while n < msg.spin do n = n + 1 end return c[3] end\n"
                            "  return c[1]\n"
                            "end";

static void test_a_long_call_is_put_aside_and_healthy_ones_go_on(void **state) /* proves RF8 RF9 */
{
    (void)state;
    lim__router *r = lua(mixed);
    assert_int_equal(call(r, "{\"spin\":100000}").how, LIM__ROUTE_PENDING);
    assert_int_equal(lim__router_pending(r), 1);
    assert_int_equal(lim__router_runnable(r), 1);
    for (int i = 0; i < 100; i++)
        assert_decided(call(r, "{}"), 0);
    assert_int_equal(w.done, 0);
    uint32_t slices = 1;
    while (lim__router_resume(r) > 0)
        slices++;
    assert_int_equal(w.done, 1);
    assert_in_range(slices, 10, 30);
    assert_ptr_equal(w.last_ctx, &w);
    assert_decided(w.last, 2);
    lim__router_stats stats;
    lim__router_stats_get(r, &stats);
    assert_int_equal(stats.calls, 101);
    assert_int_equal(stats.decided, 101);
    assert_int_equal(stats.slices, slices);
    assert_true(stats.time_ns.max >= 2000000);
    lim__router_unref(r);
}

static void test_an_endless_call_is_ended_at_its_processor_limit(void **state) /* proves RF8 RF10 */
{
    (void)state;
    lim__router *r = lua_body("while true do end");
    lim__route_result result = call_to_end(r, "{}");
    assert_int_equal(result.how, LIM__ROUTE_TIMED_OUT);
    assert_in_range(result.after_ns, 20000000, 20200000);
    assert_non_null(strstr(result.text, "the limit is 20000 us (routing.cpu_us_max)"));
    assert_memory_equal(result.hash, lim__router_artifact(r)->hash, 32);
    assert_int_equal(lim__router_resume(r), 0);
    lim__router_unref(r);
}

static void test_a_call_that_waits_too_long_is_ended_at_its_wall_limit(void **state) /* proves RF10 */
{
    (void)state;
    lim__router *r = lua_body("while true do end");
    assert_int_equal(call(r, "{}").how, LIM__ROUTE_PENDING);
    assert_int_equal(lim__router_resume(r), 1);
    w.clock_ns += 5000000000u;
    assert_int_equal(lim__router_resume(r), 0);
    assert_int_equal(w.last.how, LIM__ROUTE_TIMED_OUT);
    assert_true(w.last.after_ns >= 5000000000u);
    assert_non_null(strstr(w.last_text, "within 5000 ms (routing.wall_ms_max)"));
    lim__router_unref(r);
}

static void test_unfinished_calls_are_limited_and_the_refusal_names_the_limit(void **state) /* proves RF10 */
{
    (void)state;
    lim__router *r = lua(mixed);
    for (int i = 0; i < 4; i++)
        assert_int_equal(call(r, "{\"spin\":100000}").how, LIM__ROUTE_PENDING);
    lim__route_result result = call(r, "{}");
    assert_int_equal(result.how, LIM__ROUTE_NOT_STARTED);
    assert_non_null(strstr(result.text, "4 calls are unfinished; the limit is 4 (routing.unfinished_max)"));
    while (lim__router_resume(r) > 0)
        continue;
    assert_int_equal(w.done, 4);
    assert_decided(call(r, "{}"), 0);
    lim__router_unref(r);
}

static void test_unfinished_calls_take_turns(void **state)
{
    (void)state;
    lim__router *r = lua(mixed);
    lim__route_result result;
    int order_of_ends[3], tags[3];
    lim__route_msg msg = { .payload = TEXT("{\"spin\":50000}") };
    for (int i = 0; i < 3; i++)
        assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, &tags[i], &result), LIM__ROUTE_PENDING);
    for (int ended = 0; ended < 3;) {
        int done = w.done;
        assert_true(lim__router_resume(r) > 0 || w.done > done);
        if (w.done > done)
            order_of_ends[ended++] = (int)((int *)w.last_ctx - tags);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(order_of_ends[i], i);
    lim__router_unref(r);
}

static void test_a_call_put_aside_keeps_its_message_and_its_candidates(void **state)
{
    (void)state;
    lim__router *r = lua("return function(msg, c)\n"
                         "  local n, first = 0, msg('$header.who')\n"
                         "  while n < msg.spin do n = n + 1 end\n"
                         "  assert(#c == 8 and msg('$header.who') == first)\n"
                         "  return msg.late\n"
                         "end");
    for (int kept = 0; kept < 2; kept++) {
        lim__buf headers = { 0 };
        assert_int_equal(lim__packed_add(&headers, TEXT("who"), TEXT("me")), LIM_OK);
        char *json = strdup("{\"spin\":50000,\"late\":\"worker-7\"}");
        lim__msg *m = lim__msg_new_with(lim__str(json), lim__buf_bytes(&headers));
        lim__route_msg msg = { .payload = lim__str(json), .headers = lim__buf_bytes(&headers) };
        if (kept)
            msg = (lim__route_msg){ .payload = lim__msg_bytes(m), .headers = lim__msg_headers(m), .keep = m };
        lim__route_result result;
        assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, NULL, &result), LIM__ROUTE_PENDING);
        lim__msg_unref(m);
        memset(json, 'x', strlen(json));
        free(json);
        lim__buf_fini(&headers);
        lim__route_msg other = { .payload = TEXT("{\"spin\":0,\"late\":\"worker-1\"}") };
        for (uint32_t n = 2; n < WORKERS; n++) /* other members meanwhile */
            assert_int_equal(lim__router_call(r, &other, w.list, n, NULL, &result), LIM__ROUTE_CRASHED);
        w.workers[7].id++; /* that worker left, another took its slot */
        w.workers[7].name = TEXT("successor");
        assert_decided(call(r, "{\"spin\":0,\"late\":\"successor\"}"), 7);
        while (lim__router_resume(r) > 0)
            continue;
        if (w.last.how != LIM__ROUTE_DECIDED)
            fail_msg("%s", w.last_text);
        assert_int_equal(w.last.index, 7);
        assert_int_equal(w.last.id, w.workers[7].id - 1); /* whom it was shown; the owner knows that it has left */
        w.workers[7].name = TEXT("worker-7");
        w.workers[7].id++;
    }
    lim__router_unref(r);
}

/* What is computed must not depend on where it was interrupted. */
static void test_slices_do_not_change_what_is_computed(void **state)
{
    (void)state;
    static const char source[] =
        "local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
        "local function vary(...) local n = select('#', ...) if n > 20 then return n, ... end return vary(n, ...) end\n"
        "return function(msg, c)\n"
        "  local sum, t = 0, {}\n"
        "  for i = 1, 200 do\n"
        "    local ok, x = pcall(function(k) if k % 7 == 0 then error(k) end return k .. 'x' end, i)\n"
        "    t[#t + 1] = ok and x or tostring(x)\n"
        "    sum = sum + #t[#t] + select(2, vary(i))\n"
        "    for k, v in pairs({ a = i, b = 2, 3, 4 }) do sum = sum + v end\n"
        "    local x <close> = nil\n"
        "    for j = 10, 1, -3 do if j == 4 then goto skip end sum = sum + (msg.order.amount or 0) ::skip:: end\n"
        "    while sum > 100000 do sum = sum - 99999 end\n"
        "  end\n"
        "  sum = sum + fib(12) + #table.concat(t, ',')\n"
        "  error(tostring(sum), 0)\n"
        "end";
    char first[512] = "";
    for (uint64_t slice = 100000000; slice >= 1; slice /= 3) {
        lim__router *r = lua_limited(source, (lim__route_limits){ .slice_ns = slice, .cpu_ns = 1000000000 });
        lim__route_result result = call_to_end(r, "{\"order\":{\"amount\":3}}");
        assert_int_equal(result.how, LIM__ROUTE_CRASHED);
        if (first[0] == 0)
            snprintf(first, sizeof first, "%s", result.text);
        assert_string_equal(result.text, first);
        lim__router_unref(r);
    }
    assert_non_null(strstr(first, "best.lua"));
}

/* ---- versions ---- */

static void test_a_version_whose_owner_left_ends_its_calls_and_is_then_gone(void **state) /* proves RF7 */
{
    (void)state;
    lim__router *r = lua(mixed);
    assert_int_equal(call(r, "{\"spin\":100000}").how, LIM__ROUTE_PENDING);
    assert_int_equal(call(r, "{\"spin\":100000}").how, LIM__ROUTE_PENDING);
    lim__router_unref(r); /* the calls hold it */
    assert_int_equal(lim__router_pending(r), 2);
    while (lim__router_resume(r) > 0)
        continue;
    assert_int_equal(w.done, 2); /* the sanitizer sees whether it was freed */
    assert_int_equal(w.last.how, LIM__ROUTE_DECIDED);
}

static void test_an_owner_may_leave_inside_on_done(void **state)
{
    (void)state;
    lim__router *r = lua(mixed);
    assert_int_equal(call(r, "{\"spin\":100000}").how, LIM__ROUTE_PENDING);
    w.unref_when_done = r;
    while (lim__router_resume(r) > 0)
        continue;
    assert_int_equal(w.done, 1);
}

static void test_abandoned_calls_end_without_a_word(void **state)
{
    (void)state;
    lim__router *r = lua(mixed);
    for (int i = 0; i < 3; i++)
        assert_int_equal(call(r, "{\"spin\":100000}").how, LIM__ROUTE_PENDING);
    assert_int_equal(lim__router_abandon(r), 3);
    assert_int_equal(lim__router_pending(r), 0);
    assert_int_equal(lim__router_resume(r), 0);
    assert_int_equal(w.done, 0);
    assert_decided(call(r, "{}"), 0);
    lim__router_unref(r);
}

static void test_references_keep_a_version(void **state)
{
    (void)state;
    lim__router *r = lua(mixed);
    assert_ptr_equal(lim__router_ref(r), r);
    lim__router_unref(r);
    assert_decided(call(r, "{}"), 0);
    assert_int_equal(strlen(lim__router_hash_text(r)), 64);
    lim__router_unref(r);
    lim__router_unref(NULL);
}

static void test_stats_count_every_call_once(void **state)
{
    (void)state;
    lim__router *r = lua("return function(msg, c)\n"
                         "  if msg.how == 'crash' then error('x') elseif msg.how == 'none' then return nil\n"
                         "  elseif msg.how == 'spin' then while true do end end\n"
                         "  return c[1] end");
    for (int i = 0; i < 10; i++) {
        call_to_end(r, "{}");
        call_to_end(r, "{\"how\":\"none\"}");
        call_to_end(r, "{\"how\":\"crash\"}");
    }
    call_to_end(r, "{\"how\":\"spin\"}");
    lim__router_stats s;
    lim__router_stats_get(r, &s);
    assert_int_equal(s.calls, 31);
    assert_int_equal(s.decided, 10);
    assert_int_equal(s.none, 10);
    assert_int_equal(s.crashed, 10);
    assert_int_equal(s.timed_out, 1);
    assert_int_equal(s.unfinished, 0);
    assert_true(s.memory_bytes > 1000 && s.memory_bytes < 200000);
    assert_int_equal(s.time_ns.count, 2);
    lim__router_unref(r);
}

static void test_many_candidates_do_not_take_the_script_memory(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static lim__candidate all[MANY];
    static const lim__candidate *list[MANY];
    static char names[MANY][16];
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "w%u", i);
        all[i] = (lim__candidate){ .id = i + 1,
                                   .stamp = 1,
                                   .slot = i,
                                   .max_in_flight = 1,
                                   .name = lim__str(names[i]),
                                   .tags = gpu,
                                   .tag_count = 2 };
        list[i] = &all[i];
    }
    lim__router *r = lua_limited("return function(m, c) local t = {} for i = 1, 1000 do t[i] = i end return c[#c] end",
                                 (lim__route_limits){ .memory_max = 64 << 10 });
    lim__route_result result;
    for (int round = 0; round < 5; round++) {
        for (uint32_t i = 0; i < MANY; i++)
            all[i].id += MANY; /* all of them are replaced */
        lim__route_how how = lim__router_call(r, &(lim__route_msg){ 0 }, list, MANY, NULL, &result);
        if (how == LIM__ROUTE_PENDING) {
            while (lim__router_resume(r) > 0)
                continue;
            result = w.last;
        }
        if (result.how != LIM__ROUTE_DECIDED)
            fail_msg("round %d: %s", round, result.text);
        assert_int_equal(result.id, all[MANY - 1].id);
    }
    lim__router_unref(r);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_a_long_call_is_put_aside_and_healthy_ones_go_on),
        T(test_an_endless_call_is_ended_at_its_processor_limit),
        T(test_a_call_that_waits_too_long_is_ended_at_its_wall_limit),
        T(test_unfinished_calls_are_limited_and_the_refusal_names_the_limit),
        T(test_unfinished_calls_take_turns),
        T(test_a_call_put_aside_keeps_its_message_and_its_candidates),
        T(test_slices_do_not_change_what_is_computed),
        T(test_a_version_whose_owner_left_ends_its_calls_and_is_then_gone),
        T(test_an_owner_may_leave_inside_on_done),
        T(test_abandoned_calls_end_without_a_word),
        T(test_references_keep_a_version),
        T(test_stats_count_every_call_once),
        T(test_many_candidates_do_not_take_the_script_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
