/* SPDX-License-Identifier: Apache-2.0
 * route_test.c - decisions, what a function sees, loading. Slices and versions are in slice_test.c, what hostile
 * functions try in hostile_test.c. */
#include "route/test_router.h"

/* ---- built-in strategies ---- */

static lim__router *builtin(const char *name)
{
    lim__router *r = NULL;
    assert_int_equal(try_open(LIM__ENGINE_BUILTIN, lim__str(name), (lim__route_limits){ 0 }, NULL, &r), LIM_OK);
    return r;
}

static void test_least_loaded_takes_the_largest_free_share(void **state)
{
    (void)state;
    lim__router *r = builtin("least_loaded");
    assert_decided(call(r, "{}"), 0);
    w.workers[5].in_flight = 0;
    w.workers[0].in_flight = 3;
    assert_decided(call(r, "{}"), 5);
    w.workers[5].max_in_flight = 1; /* all of one is free as well as all of ten: fewer waiting decides */
    w.workers[2].in_flight = 0;
    assert_decided(call(r, "{}"), 2);
    for (int i = 0; i < WORKERS; i++)
        w.workers[i].in_flight = w.workers[i].max_in_flight;
    assert_decided(call(r, "{}"), 0); /* all full: the shortest buffer */
    w.workers[3].max_in_flight = LIM_UNLIMITED;
    assert_decided(call(r, "{}"), 3);
    lim__router_unref(r);
}

static uint32_t choice(lim__router *r, const char *payload)
{
    lim__route_msg msg = { .payload = lim__str(payload) };
    lim__route_result result;
    assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, NULL, &result), LIM__ROUTE_DECIDED);
    return result.index;
}

static void test_power_of_two_prefers_the_less_loaded_and_herds_nobody(void **state) /* proves GR3 */
{
    (void)state;
    lim__router *r = builtin("power_of_two");
    uint32_t count[WORKERS] = { 0 };
    for (int i = 0; i < 4000; i++)
        count[choice(r, "{}")]++;
    for (uint32_t i = 1; i < WORKERS; i++)
        assert_true(count[i] < count[i - 1]); /* worker i has i in flight */
    assert_int_equal(count[WORKERS - 1], 0);  /* the most loaded loses against everybody */
    assert_true(count[0] < 4000 * 2 / 5);
    for (uint32_t i = 1; i < WORKERS; i++)
        w.workers[i].in_flight = 10;
    for (int i = 0; i < 100; i++)
        assert_int_equal(choice(r, "{}"), 0);
    lim__router_unref(r);
}

static void test_hash_keeps_a_value_with_its_worker_when_others_leave(void **state) /* proves GR3 */
{
    (void)state;
    lim__router *r = builtin("hash:user.id");
    uint32_t at[200], moved = 0, used[WORKERS] = { 0 };
    char payload[64];
    for (uint32_t i = 0; i < 200; i++) {
        snprintf(payload, sizeof payload, "{\"user\":{\"id\":%u}}", i);
        at[i] = choice(r, payload);
        used[at[i]]++;
        assert_int_equal(choice(r, payload), at[i]);
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        assert_true(used[i] > 0);
    const lim__candidate *gone = w.list[WORKERS - 1];
    for (uint32_t i = 0; i < 200; i++) {
        lim__route_result result;
        snprintf(payload, sizeof payload, "{\"user\":{\"id\":%u}}", i);
        lim__route_msg msg = { .payload = lim__str(payload) };
        assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS - 1, NULL, &result), LIM__ROUTE_DECIDED);
        moved += result.index != at[i];
        if (result.index != at[i])
            assert_ptr_equal(w.list[at[i]], gone);
    }
    assert_int_equal(moved, used[WORKERS - 1]);
    w.workers[at[7]].in_flight = 10; /* full: the next in rank, until there is room again */
    assert_int_not_equal(choice(r, "{\"user\":{\"id\":7}}"), at[7]);
    w.workers[at[7]].in_flight = 0;
    assert_int_equal(choice(r, "{\"user\":{\"id\":7}}"), at[7]);
    for (uint32_t i = 0; i < WORKERS; i++)
        w.workers[i].in_flight = 5;
    w.workers[3].in_flight = 4;
    assert_int_equal(choice(r, "no json"), 3); /* no such field: the least loaded */
    lim__router_unref(r);
}

static void test_affinity_prefers_those_with_the_tag(void **state) /* proves GR3 */
{
    (void)state;
    lim__router *r = builtin("affinity:where");
    assert_int_equal(choice(r, "{\"where\":\"gpu\"}"), 1); /* tagged are 1, 3, 5, 7 */
    assert_int_equal(choice(r, "{\"where\":\"mars\"}"), 0);
    assert_int_equal(choice(r, "{}"), 0);
    for (uint32_t i = 1; i < WORKERS; i += 2)
        w.workers[i].in_flight = 10;
    assert_int_equal(choice(r, "{\"where\":\"gpu\"}"), 0); /* all of them are full */
    lim__router_unref(r);
}

static void test_a_strategy_that_is_not_there_or_lacks_its_field_is_named(void **state)
{
    (void)state;
    lim_diag diag;
    lim__router *r = NULL;
    assert_int_equal(try_open(LIM__ENGINE_BUILTIN, lim__str("hash:"), (lim__route_limits){ 0 }, &diag, &r), LIM_E_CODE);
    assert_non_null(strstr(diag.text, "name a field"));
    assert_int_not_equal(try_open(LIM__ENGINE_BUILTIN, lim__str("hasch:x"), (lim__route_limits){ 0 }, &diag, &r),
                         LIM_OK);
    assert_non_null(strstr(diag.text, "hash:FIELD"));
}

static void test_least_loaded_spreads_ties_evenly_and_repeatably(void **state)
{
    (void)state;
    uint32_t first[400];
    for (int round = 0; round < 2; round++) {
        world_reset();
        for (int i = 0; i < WORKERS; i++)
            w.workers[i].in_flight = w.workers[i].buffer_depth = 0;
        lim__router *r = builtin("least_loaded");
        int chosen[WORKERS] = { 0 };
        for (int i = 0; i < 400; i++) {
            uint32_t index = call(r, "{}").index;
            chosen[index]++;
            if (round == 0)
                first[i] = index;
            assert_int_equal(index, first[i]);
        }
        for (int i = 0; i < WORKERS; i++)
            assert_in_range(chosen[i], 25, 80);
        lim__router_unref(r);
    }
}

static void test_round_robin_goes_around_and_skips_the_full(void **state)
{
    (void)state;
    lim__router *r = builtin("round_robin");
    for (uint32_t i = 0; i < 20; i++)
        assert_decided(call(r, "{}"), i % WORKERS);
    w.workers[4].in_flight = 10;
    assert_decided(call(r, "{}"), 5);
    w.list[5] = w.list[6]; /* the one chosen last has left: the turn stays at its place */
    w.list[6] = w.list[7];
    lim__route_result result;
    assert_int_equal(lim__router_call(r, &(lim__route_msg){ 0 }, w.list, 7, NULL, &result), LIM__ROUTE_DECIDED);
    assert_int_equal(result.id, 1006);
    lim__router_unref(r);
}

static void test_nobody_to_choose_from_is_none_for_every_engine(void **state)
{
    (void)state;
    lim__router *routers[] = { builtin("least_loaded"), builtin("round_robin"), lua_body("error('not shown to me')") };
    for (size_t i = 0; i < LIM_COUNT(routers); i++) {
        lim__route_result result;
        assert_int_equal(lim__router_call(routers[i], &(lim__route_msg){ 0 }, NULL, 0, NULL, &result), LIM__ROUTE_NONE);
        assert_int_equal(lim__router_resume(routers[i]), 0);
        lim__router_unref(routers[i]);
    }
}

static void test_what_is_no_engine_or_strategy_is_refused(void **state)
{
    (void)state;
    lim__router *r = NULL;
    lim_diag diag;
    lim__route_limits none = { 0 };
    assert_int_equal(try_open(LIM__ENGINE_BUILTIN, TEXT("fastest"), none, &diag, &r), LIM_E_CODE);
    assert_non_null(strstr(diag.text, "'fastest'"));
    assert_int_equal(try_open(LIM__ENGINE_NATIVE, TEXT("x"), none, &diag, &r), LIM_E_MISUSE);
    assert_non_null(strstr(diag.text, "native"));
    assert_int_equal(lim__router_open(&(lim__router_opts){ 0 }, &diag, &r), LIM_E_MISUSE);
    assert_null(r);
}

/* ---- what a function sees ---- */

static void test_a_function_sees_the_candidates_and_the_message(void **state) /* proves RF12 */
{
    (void)state;
    lim__router *r = lua("return function(msg, candidates)\n"
                         "  for i = 1, #candidates do\n"
                         "    local c = candidates[i]\n"
                         "    if c.in_flight >= msg.least and c.tags.gpu and c.types.resize then return c end\n"
                         "  end\n"
                         "end\n");
    assert_decided(call(r, "{\"least\":0}"), 1);
    assert_decided(call(r, "{\"least\":4}"), 5);
    assert_int_equal(call(r, "{\"least\":9}").how, LIM__ROUTE_NONE);
    lim__router_unref(r);
}

static void test_every_field_of_a_candidate_is_there(void **state) /* proves GR3 */
{
    (void)state;
    lim__router *r =
        lua_body("local x = c[4] assert(x.id == 'worker-3' and x.in_flight == 3 and x.max_in_flight == 10 and "
                 "x.available == 7 and x.buffer_depth == 6 and x.latency_us == 300 and x.tags.eu == true and "
                 "x.node == 'east' and c[5].node == 'west' and x.types.resize and "
                 "x.tags.cpu == nil and c[3].tags.gpu == nil and #c == 8) return x");
    assert_decided(call(r, ""), 3);
    lim__router_unref(r);
}

static void test_candidates_are_updated_in_place_when_their_stamp_changes(void **state) /* proves RF12 */
{
    (void)state;
    lim__router *r =
        lua("local seen = {}\n"
            "return function(msg, c)\n"
            "  local same = seen.first == nil or seen.first == c[1]\n"
            "  seen.first = c[1]\n"
            "  if same and c[1].available == msg.available and c[1].latency_us == msg.latency then return c[1] end\n"
            "end\n");
    assert_decided(call(r, "{\"available\":10,\"latency\":0}"), 0);
    w.workers[0].in_flight = 4;
    w.workers[0].latency_us = 77;
    w.workers[0].stamp++;
    assert_decided(call(r, "{\"available\":6,\"latency\":77}"), 0);
    w.workers[0].in_flight = 12;
    w.workers[0].stamp++;
    assert_decided(call(r, "{\"available\":0,\"latency\":77}"), 0);
    lim__router_unref(r);
}

static void test_a_slot_used_again_is_another_candidate(void **state)
{
    (void)state;
    lim__router *r = lua("local first\n"
                         "return function(msg, c) first = first or c[1] return first end\n");
    assert_decided(call(r, "{}"), 0);
    assert_decided(call(r, "{}"), 0);
    w.workers[0].id = 2000;
    w.workers[0].name = TEXT("newcomer");
    assert_crashed(call(r, "{}"), "not one of the candidates");
    lim__router *by_id = lua_body("return 'newcomer'");
    assert_decided(call(by_id, "{}"), 0);
    lim__router_unref(by_id);
    lim__router_unref(r);
}

static void test_members_may_change_from_call_to_call(void **state)
{
    (void)state;
    lim__router *r = lua_body("assert(#c == msg.n and c[msg.n + 1] == nil) return c[msg.n]");
    for (uint32_t n = 1; n <= WORKERS; n++) {
        for (uint32_t from = 0; from + n <= WORKERS; from++) {
            char json[32];
            lim__route_result result;
            snprintf(json, sizeof json, "{\"n\":%u}", n);
            lim__route_msg msg = { .payload = lim__str(json) };
            lim__route_how how = lim__router_call(r, &msg, w.list + from, n, NULL, &result);
            if (how != LIM__ROUTE_DECIDED)
                fail_msg("%s", result.text);
            assert_int_equal(result.index, n - 1);
            assert_int_equal(result.id, w.list[from + n - 1]->id);
        }
    }
    lim__router_unref(r);
}

static void test_a_function_that_writes_into_its_view_spoils_only_that(void **state) /* proves RF12 */
{
    (void)state;
    lim__router *r = lua("return function(msg, c)\n"
                         "  if msg.spoil then\n"
                         "    for i = 1, #c do c[i].id = 'liar' c[i].in_flight = 'x' c[i].available = nil end\n"
                         "    local last = c[#c] table.remove(c) table.remove(c, 1) return last\n"
                         "  end\n"
                         "  assert(#c == 8)\n"
                         "  if c[2].in_flight == 1 then return c[2] end\n"
                         "end\n");
    assert_decided(call(r, "{\"spoil\":true}"), 7); /* by identity, not by what it wrote */
    assert_int_equal(call(r, "{}").how, LIM__ROUTE_NONE);
    w.workers[1].in_flight = 2;
    w.workers[1].stamp++;
    assert_int_equal(call(r, "{}").how, LIM__ROUTE_NONE);
    w.workers[1].in_flight = 1;
    w.workers[1].stamp++;
    assert_decided(call(r, "{}"), 1);
    lim__router *other = lua_body("return c[1].id == 'worker-0' and c[1] or nil");
    assert_decided(call(other, "{}"), 0);
    lim__router_unref(other);
    lim__router_unref(r);
}

static void test_an_id_counts_like_its_candidate(void **state)
{
    (void)state;
    lim__router *r = lua_body("return msg.who");
    assert_decided(call(r, "{\"who\":\"worker-6\"}"), 6);
    assert_int_equal(call(r, "{\"who\":null}").how, LIM__ROUTE_NONE);
    assert_crashed(call(r, "{\"who\":\"worker-9\"}"), "chose worker-9, which is not among the candidates");
    assert_crashed(call(r, "{\"who\":\"\"}"), "not among the candidates");
    lim__router_unref(r);
}

static void test_nonsense_answers_say_what_was_returned(void **state)
{
    (void)state;
    static const struct {
        const char *body, *why;
    } cases[] = {
        { "return true", "returned a boolean" },
        { "return false", "returned a boolean" },
        { "return 1", "returned a number" },
        { "return {}", "a table that is not one of the candidates" },
        { "return c", "a table that is not one of the candidates" },
        { "return c[1].tags", "a table that is not one of the candidates" },
        { "return msg", "returned a userdata" },
        { "return printf", NULL }, /* an absent name is nil: none */
        { "return pcall", "returned a function" },
        { "return 'nobody'", "chose nobody" },
    };
    for (size_t i = 0; i < LIM_COUNT(cases); i++) {
        lim__router *r = lua_body(cases[i].body);
        if (cases[i].why == NULL)
            assert_int_equal(call(r, "{}").how, LIM__ROUTE_NONE);
        else
            assert_crashed(call(r, "{}"), cases[i].why);
        lim__router_unref(r);
    }
}

static void test_a_candidate_that_is_not_in_this_call_cannot_be_chosen(void **state)
{
    (void)state;
    lim__router *r = lua("local kept\nreturn function(msg, c) kept = kept or c[8] return kept end");
    lim__route_result result;
    assert_decided(call(r, "{}"), 7);
    assert_int_equal(lim__router_call(r, &(lim__route_msg){ 0 }, w.list, 3, NULL, &result), LIM__ROUTE_CRASHED);
    assert_crashed(result, "chose worker-7, which is not among the candidates");
    assert_decided(call(r, "{}"), 7);
    lim__router_unref(r);
}

/* ---- the message ---- */

static const char order[] =
    "{\"amount\":12.5,\"big\":18446744073709551615,\"note\":\"f\\u00fcr\",\"no\":null,\"yes\":true,"
    "\"order\":{\"amount\":7,\"lines\":[{\"sku\":\"a\"},{\"sku\":\"b\"},null,[1,[2]]],\"none\":[],"
    "\"deep\":{\"er\":{\"x\":-1}}}}";

static void assert_true_of_message(const char *condition)
{
    char body[1024];
    snprintf(body, sizeof body, "if %s then return c[1] end", condition);
    lim__router *r = lua_body(body);
    lim__route_result result = call(r, order);
    if (result.how != LIM__ROUTE_DECIDED)
        fail_msg("not so: %s (%s)", condition, result.text);
    lim__router_unref(r);
}

static void test_fields_of_the_message_are_read_on_demand(void **state) /* proves RF12 */
{
    (void)state;
    static const char *const conditions[] = {
        "msg.amount == 12.5 and msg.note == 'f\xc3\xbcr' and msg.yes == true and msg.no == nil and msg.absent == nil",
        "msg.big == 18446744073709551615.0",
        "msg.order.amount == 7 and math.type(msg.order.amount) == 'integer'",
        "msg.order.lines[1].sku == 'a' and msg.order.lines[2].sku == 'b' and msg.order.lines[3] == nil",
        "msg.order.lines[0] == nil and msg.order.lines[5] == nil and msg.order.lines[-1] == nil",
        "msg.order.lines.x == nil and msg.order[1] == nil and msg[1] == nil and msg[{}] == nil",
        "#msg.order.lines == 4 and #msg.order.none == 0 and #msg == 6",
        "msg.order.lines[4][2][1] == 2",
        "msg('order.deep.er.x') == -1 and msg('order.lines[1].sku') == 'b' and msg('nope.x') == nil",
        "msg.order('deep.er').x == -1",
        "msg('$size') == 182 and msg('$nope') == nil and msg('$header.x') == nil",
        "type(msg) == 'userdata' and not pcall(function() msg.x = 1 end)",
        "not pcall(msg) and not pcall(msg, {})",
    };
    assert_int_equal(sizeof order - 1, 182);
    for (size_t i = 0; i < LIM_COUNT(conditions); i++)
        assert_true_of_message(conditions[i]);
}

static void test_fields_iterate_in_key_order(void **state) /* proves RF12 */
{
    (void)state;
    lim__router *r = lua("return function(msg, c)\n"
                         "  local keys = {}\n"
                         "  for k, v in pairs(msg) do table.insert(keys, k) assert(type(v) ~= 'nil' or k == 'no') end\n"
                         "  for k in pairs(msg.order.deep) do table.insert(keys, k) end\n"
                         "  for i, v in pairs(msg.order.lines) do table.insert(keys, i) end\n"
                         "  for i, v in ipairs(msg.order.lines) do table.insert(keys, i) end\n"
                         "  for k in pairs(msg.order.none) do table.insert(keys, k) end\n"
                         "  error(table.concat(keys, ' '))\n"
                         "end");
    assert_crashed(call(r, order), "best.lua:8: amount big no note order yes er 1 2 3 4 1 2");
    lim__router_unref(r);
}

static void test_a_payload_that_is_not_json_has_no_fields(void **state)
{
    (void)state;
    lim__router *r = lua_body("assert(msg.x == nil and #msg == 0 and msg('a.b') == nil) "
                              "for k in pairs(msg) do error(k) end return c[msg('$size')]");
    assert_decided(call_with(r, TEXT("\xff{"), (lim_bytes){ NULL, 0 }), 1);
    assert_decided(call(r, "{\"x\":"), 4);
    assert_crashed(call(r, "{\"x\":1}"), "assertion failed");
    assert_int_equal(call(r, "").how, LIM__ROUTE_NONE);
    lim__router_unref(r);
}

static void test_headers_are_read_by_name(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    assert_int_equal(lim__packed_add(&b, TEXT("tenant"), TEXT("worker-2")), LIM_OK);
    lim__router *r = lua_body("assert(msg('$header.other') == nil) return msg('$header.tenant')");
    assert_decided(call_with(r, TEXT("junk"), lim__buf_bytes(&b)), 2);
    assert_int_equal(call(r, "{}").how, LIM__ROUTE_NONE);
    lim__buf_fini(&b);
    lim__router_unref(r);
}

static void test_a_message_kept_beyond_its_call_reads_as_nothing(void **state)
{
    (void)state;
    lim__router *r = lua("local part, step, list, root\n"
                         "return function(msg, c)\n"
                         "  if part == nil then\n"
                         "    part, list, root = msg.order, msg.list, msg\n"
                         "    step = pairs(msg) step()\n"
                         "    return c[1]\n"
                         "  end\n"
                         "  assert(part.amount == nil and #part == 0 and part('amount') == nil and list[1] == nil)\n"
                         "  assert(step() == nil and #list == 0)\n"
                         "  for k in pairs(part) do error(k) end\n"
                         "  assert(root == msg and root.order.amount == 8)\n"
                         "  return c[2]\n"
                         "end");
    assert_decided(call(r, "{\"order\":{\"amount\":7},\"list\":[1,2]}"), 0);
    assert_decided(call(r, "{\"order\":{\"amount\":8},\"list\":[1,2]}"), 1);
    assert_decided(call(r, "{\"order\":{\"amount\":8}}"), 1);
    lim__router_unref(r);
}

/* ---- print ---- */

static void test_print_writes_one_line_to_the_log(void **state) /* proves RF12 */
{
    (void)state;
    static const struct {
        const char *arguments, *line;
    } cases[] = {
        { "", "" },
        { "'a', 1, 2.5, true, nil, -0.0", "a\t1\t2.5\ttrue\tnil\t-0.0" },
        { "{}, c[1], msg, print", "table\ttable\tuserdata\tfunction" },
        { "'a\\nb\\0c\\127d', 'f\xc3\xbcr'", "a b c d\tf\xc3\xbcr" },
        { "msg.name, #c, c[2].id", "alice\t8\tworker-1" },
    };
    for (size_t i = 0; i < LIM_COUNT(cases); i++) {
        char body[128];
        world_reset();
        snprintf(body, sizeof body, "print(%s) return c[1]", cases[i].arguments);
        lim__router *r = lua_body(body);
        assert_decided(call(r, "{\"name\":\"alice\"}"), 0);
        assert_int_equal(w.lines, 1);
        assert_string_equal(w.line, cases[i].line);
        lim__router_unref(r);
    }
    lim__router *r = lua("print('loading') return function() end"); /* the chunk itself may too */
    assert_string_equal(w.line, "loading");
    lim__router_unref(r);
}

static void test_a_printed_line_is_cut_at_1024_bytes_between_characters(void **state)
{
    (void)state;
    lim__router *r = lua_body("local s = msg.pad for i = 1, 9 do s = s .. s end print(s) return c[1]");
    assert_decided(call(r, "{\"pad\":\"abcd\"}"), 0);
    assert_int_equal(strlen(w.line), LIM__ROUTE_LINE_MAX);
    assert_decided(call(r, "{\"pad\":\"\xe2\x82\xac\"}"), 0); /* three bytes each: 341 of them */
    assert_int_equal(strlen(w.line), 1023);
    assert_decided(call(r, "{\"pad\":\"x\xf0\x9f\x98\x80\"}"), 0);
    assert_int_equal(strlen(w.line), 1021);
    lim__router_unref(r);
}

static void test_lines_beyond_the_limit_of_a_second_are_dropped_and_counted(void **state) /* proves RF10 */
{
    (void)state;
    lim__router *r = lua_limited("return function(msg, c) for i = 1, msg.n do print('0123456789') end return c[1] end",
                                 (lim__route_limits){ .log_bytes_per_s = 110 });
    lim__router_stats stats;
    assert_decided(call(r, "{\"n\":15}"), 0);
    assert_int_equal(w.lines, 10);
    lim__router_stats_get(r, &stats);
    assert_int_equal(stats.log_dropped, 5);
    w.clock_ns += 999999999;
    assert_decided(call(r, "{\"n\":1}"), 0);
    assert_int_equal(w.lines, 10);
    w.clock_ns += 1;
    assert_decided(call(r, "{\"n\":1}"), 0);
    assert_int_equal(w.lines, 11);
    lim__router_unref(r);
}

/* ---- determinism ---- */

static void test_equal_seeds_decide_equally(void **state)
{
    (void)state;
    uint32_t first[100];
    for (int round = 0; round < 2; round++) {
        lim__router *r = lua_body("local x = math.random(3, 5) assert(x >= 3 and x <= 5) local f = math.random() "
                                  "assert(f >= 0 and f < 1) return c[math.random(#c)]");
        for (int i = 0; i < 100; i++) {
            uint32_t index = call(r, "{}").index;
            if (round == 0)
                first[i] = index;
            assert_int_equal(index, first[i]);
        }
        lim__router_unref(r);
    }
}

static void test_the_counter_goes_on_over_versions(void **state) /* proves RF12 */
{
    (void)state;
    uint64_t counter = 5;
    for (uint32_t version = 0; version < 3; version++) {
        char source[80];
        lim__artifact *a;
        lim__router *r;
        snprintf(source, sizeof source, "--%u\nreturn function(msg, c) return c[counter()] end", version);
        assert_int_equal(lim__artifact_new(LIM__ENGINE_LUA, lim__str(source), "n", 0, &a), LIM_OK);
        lim__router_opts opts = { .os = &w.os, .artifact = a, .counter = &counter };
        assert_int_equal(lim__router_open(&opts, NULL, &r), LIM_OK);
        assert_decided(call(r, "{}"), 5 + version);
        lim__router_unref(r);
        lim__artifact_unref(a);
    }
    assert_int_equal(counter, 8);
}

/* ---- loading ---- */

static const struct {
    const char *source;
    int line, column;
    const char *why;
} refused[] = {
    { "return function(msg, c)\n  if x return c[1] end\nend", 2, 8, "'then' expected near 'return', in: if x return" },
    { "return function(", 1, 17, "<eof>" },
    { "local x = \n\n= 1", 3, 1, "unexpected symbol near '='" },
    { "error('no')", 1, 0, "best.lua:1: no" },
    { "\nlocal x = nil + 1", 2, 0, "attempt to perform arithmetic on a nil value" },
    { "return 1", 0, 0, "returned a number; a function" },
    { "return {}", 0, 0, "returned a table; a function" },
    { "local x = 1", 0, 0, "returned nothing; a function" },
    { "return nil", 0, 0, "returned nothing; a function" },
    { "while true do end", 0, 0, "did not end within 20000 us (routing.cpu_us_max)" },
    { "while true do pcall(error) end", 0, 0, "did not end within" },
    { "local t = {}\nwhile true do t[#t + 1] = {} end", 2, 0, "out of memory: the limit is 1048576 bytes" },
    { "error({})", 1, 0, "a table as error" },
    { "require 'os'", 1, 1, "global 'require'" },
    { "goto nowhere", 1, 6, "nowhere" },
    { "return end end", 1, 0, "expected near 'end', in: return end end" }, /* which of them is not said */
    { "local id = 1\n  local d <const> = 1 d = id", 2, 0, "attempt to assign to const variable 'd'" },
    { "\n  local x <const> = 1 y.z = 2", 2, 23, "(global 'y'), in: local x <const> = 1 y.z = 2" },
    { "\x1bLua", 0, 0, "binary" },
};

static void test_a_bad_source_is_refused_with_line_and_column(void **state) /* proves RF6 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(refused); i++) {
        lim_diag diag = { 0 };
        lim__router *r = NULL;
        lim_err err = try_open(LIM__ENGINE_LUA, lim__str(refused[i].source), (lim__route_limits){ 0 }, &diag, &r);
        if (err != LIM_E_CODE || r != NULL || diag.line != refused[i].line || diag.column != refused[i].column ||
            strstr(diag.text, refused[i].why) == NULL)
            fail_msg("%s -> %d, %d:%d: %s", refused[i].source, err, diag.line, diag.column, diag.text);
    }
}

static void test_a_source_may_be_long_but_not_endless(void **state)
{
    (void)state;
    lim__router *r = NULL;
    lim_diag diag;
    char *source = malloc(LIM__ROUTE_SOURCE_MAX + 1);
    memset(source, '\n', LIM__ROUTE_SOURCE_MAX + 1);
    lim_bytes all = { source, LIM__ROUTE_SOURCE_MAX + 1 };
    assert_int_equal(try_open(LIM__ENGINE_LUA, all, (lim__route_limits){ 0 }, &diag, &r), LIM_E_TOOBIG);
    static const char tail[] = "return function() error('x') end";
    memcpy(source + LIM__ROUTE_SOURCE_MAX - sizeof tail, tail, sizeof tail - 1);
    all.len--;
    assert_int_equal(try_open(LIM__ENGINE_LUA, all, (lim__route_limits){ 0 }, &diag, &r), LIM_OK);
    assert_int_equal(call(r, "").line, LIM__ROUTE_SOURCE_MAX - (int)sizeof tail + 1);
    lim__router_unref(r);
    free(source);
}

static void test_limits_out_of_range_are_refused_by_their_key(void **state) /* proves RF10 */
{
    (void)state;
    static const struct {
        lim__route_limits limits;
        const char *key;
    } cases[] = {
        { { .memory_max = 9 << 20 }, "routing.memory_bytes_max" },
        { { .memory_max = 1000 }, "routing.memory_bytes_max" },
        { { .log_bytes_per_s = UINT32_MAX }, "routing.log_bytes_max" },
        { { .unfinished_max = 65 }, "routing.unfinished_max" },
        { { .slice_ns = 1000000000 }, "routing.slice_us" },
        { { .cpu_ns = UINT64_MAX }, "routing.cpu_us_max" },
        { { .wall_ns = UINT64_MAX }, "routing.wall_ms_max" },
    };
    for (size_t i = 0; i < LIM_COUNT(cases); i++) {
        lim__router *r = NULL;
        lim_diag diag;
        assert_int_equal(try_open(LIM__ENGINE_LUA, TEXT("return function() end"), cases[i].limits, &diag, &r),
                         LIM_E_INVALID);
        assert_non_null(strstr(diag.text, cases[i].key));
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_least_loaded_takes_the_largest_free_share),
        T(test_power_of_two_prefers_the_less_loaded_and_herds_nobody),
        T(test_hash_keeps_a_value_with_its_worker_when_others_leave),
        T(test_affinity_prefers_those_with_the_tag),
        T(test_a_strategy_that_is_not_there_or_lacks_its_field_is_named),
        T(test_least_loaded_spreads_ties_evenly_and_repeatably),
        T(test_round_robin_goes_around_and_skips_the_full),
        T(test_nobody_to_choose_from_is_none_for_every_engine),
        T(test_what_is_no_engine_or_strategy_is_refused),
        T(test_a_function_sees_the_candidates_and_the_message),
        T(test_every_field_of_a_candidate_is_there),
        T(test_candidates_are_updated_in_place_when_their_stamp_changes),
        T(test_a_slot_used_again_is_another_candidate),
        T(test_members_may_change_from_call_to_call),
        T(test_a_function_that_writes_into_its_view_spoils_only_that),
        T(test_an_id_counts_like_its_candidate),
        T(test_nonsense_answers_say_what_was_returned),
        T(test_a_candidate_that_is_not_in_this_call_cannot_be_chosen),
        T(test_fields_of_the_message_are_read_on_demand),
        T(test_fields_iterate_in_key_order),
        T(test_a_payload_that_is_not_json_has_no_fields),
        T(test_headers_are_read_by_name),
        T(test_a_message_kept_beyond_its_call_reads_as_nothing),
        T(test_print_writes_one_line_to_the_log),
        T(test_a_printed_line_is_cut_at_1024_bytes_between_characters),
        T(test_lines_beyond_the_limit_of_a_second_are_dropped_and_counted),
        T(test_equal_seeds_decide_equally),
        T(test_the_counter_goes_on_over_versions),
        T(test_a_bad_source_is_refused_with_line_and_column),
        T(test_a_source_may_be_long_but_not_endless),
        T(test_limits_out_of_range_are_refused_by_their_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
