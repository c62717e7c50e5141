/* SPDX-License-Identifier: Apache-2.0
 * lua_bound_test.c - a function is run without a hook only if it ends before the hook would have been called. */
#include "route/lua.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { COUNTED_MAX = 100 * LUA__STEP };

static lua_State *L;

static int setup(void **state)
{
    (void)state;
    L = luaL_newstate();
    assert_non_null(L);
    luaL_openlibs(L);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lua_close(L);
    return 0;
}

/* The bound of the function that `source` returns, which is left on the stack; UINT32_MAX: it is no Lua. */
static uint32_t bound_of(const char *source)
{
    lua_settop(L, 0);
    if (luaL_loadstring(L, source) != LUA_OK)
        return UINT32_MAX;
    lua_call(L, 0, 1);
    return lim__lua_bound(L);
}

static const char *const bounded[] = {
    "return function(msg, c) end",
    "return function(msg, c) return c[1] end",
    "return function(msg, c) local p = msg.priority for i = 1, #c do local w = c[i] if w.available > 0 and w.depth <= "
    "p "
    "then return w end end end",
    "return function(msg, c) for i = 1, #c do if c[i].in_flight < c[i].max_in_flight then return c[i] end end end",
    "return function(msg, c) local best = c[1] for i = 2, #c do if c[i].available > best.available then best = c[i] "
    "end "
    "end return best end",
    "return function(msg, c) for i = #c, 1, -1 do if c[i].available > 0 then return c[i] end end end",
    "return function(msg, c) local n = 0 for i = 1, 10 do n = n + i * 2 - i // 3 end return c[n % #c + 1] end",
    "local n = 0 return function(msg, c) n = n + 1 return c[n % #c + 1] end",
    "return function(msg, c) for i = 1, #c do for k = 1, 2 do if c[i].tags.gpu then goto next end end ::next:: end end",
    "return function(msg, c) for i = 1, #c do if not c[i].tags[msg.tag or 'none'] then break end end return 'x' .. 1 "
    "end",
    "return function(msg, c) local x, y = msg('$header.x'), msg(msg.field) return x and c[1] end",
    "return function(msg, c) for i = 1, #c do if c[i].tags[msg('$header.region')] then return c[i] end end end",
    "return function(msg, c) if msg('$size') > 100 then return c[1] end end",
    "return function(msg, c) for i = 1, #c, 3 do local a, b, d = nil, i == 1, -i if b then return c[i] end end end",
};

static const char *const unbounded[] = {
    "return function(msg, c) while true do end end",
    "return function(msg, c) repeat until false end",
    "return function(msg, c) ::again:: goto again end",
    "return function(msg, c) for i = 1, 1000000000 do end end",
    "return function(msg, c) for i = 1, 2000 do end end",
    "return function(msg, c) for i = 1, math.huge do end end",
    "return function(msg, c) for i = 1, msg.n do end end",
    "return function(msg, c) for i = 1, #msg.list do end end",
    "return function(msg, c) for i = 1, msg.x and #c or 1e9 do end end",
    "return function(msg, c) for i = 1, msg.x or #c do end end",
    "return function(msg, c) for i = 1, (msg.x or 1) do end end",
    "return function(msg, c) for i = 1.0, 10 do end end",
    "return function(msg, c) for i = 1, 10, msg.step do end end",
    "return function(msg, c) c = msg for i = 1, #c do end end",
    "return function(msg, c) local x, y = 1, 2 c = x for i = 1, #c do end end",
    "return function(msg, c) msg, c = c, msg for i = 1, #c do end end",
    "return function(msg, c) for i = 1, #c do c[#c + 1] = 1 for k = 1, #c do c[#c + 1] = 1 end end end",
    "return function(msg, c) local c = msg for i = 1, #c do end end",
    "return function(msg, c, d) for i = 1, #d do end end",
    "return function(c) for i = 1, #c do end end",
    "return function(...) end",
    "return function(msg, c) for k, v in pairs(c) do end end",
    "return function(msg, c) local x = math.random() return c[1] end",
    "return function(msg, c) return c('$size') end",
    "return function(msg, c) return msg('$size') end", /* a tail call */
    "return function(msg, c) local f = c[1] local x = f('$size') end",
    "return function(msg, c) local x = msg('a', 'b') end",
    "return function(msg, c) local x = msg() end",
    "return function(msg, c) local x, y = msg('a') end",
    "return function(msg, c) msg = c[1] local x = msg('a') end",
    "local function f() while true do end end return function(msg, c) local x = (msg.x and f or msg)('a') end",
    "local function f() while true do end end return function(msg, c) local x = (f or msg)('a') end",
    "return function(msg, c) local msg = c[1] local x = msg('a') end",
    "return function(msg, c) local f = function() c = msg end f() end",
    "local function f() return f() end return function(msg, c) return f() end",
    "return function(msg, c) c[1].x = 1 end",
    "return function(msg, c) x = 1 end",
    "return function(msg, c) local t = {} end",
    "return function(msg, c) local x <close> = nil end",
    "return function(msg, c) return ('x'):upper() end",
    "return pcall",
};

static void test_only_functions_that_end_by_themselves_are_bounded(void **state) /* proves RF9 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(unbounded); i++) {
        if (bound_of(unbounded[i]) != 0)
            fail_msg("bounded: %s", unbounded[i]);
    }
    for (size_t i = 0; i < LIM_COUNT(bounded) && LUA__STEP > 1; i++) {
        if (bound_of(bounded[i]) - 8 > LUA__STEP)
            fail_msg("not bounded for 8: %s", bounded[i]);
    }
}

static void test_many_candidates_bring_the_hook_back(void **state)
{
    (void)state;
    if (LUA__STEP == 1)
        skip();
    assert_in_range(bound_of(bounded[2]), 50, 200);
    assert_in_range(bound_of("return function(m, c) for i = 1, #c do for k = 1, #c do local x = c[k] end end end"), 10,
                    30);
    assert_int_equal(bound_of(bounded[0]), LUA__STEP);
    assert_in_range(bound_of("return function(m, c) for i = 1, 400 do end for i = 1, #c do end end"), 1, 600);
}

/* ---- counted ---- */

static uint64_t counted;

static void count(lua_State *co, lua_Debug *ar)
{
    (void)ar;
    if (++counted > COUNTED_MAX)
        luaL_error(co, "too many");
}

static void push_candidates(uint32_t n)
{
    lua_createtable(L, (int)n, 0);
    for (uint32_t i = 1; i <= n; i++) {
        lua_createtable(L, 0, 4);
        lua_pushinteger(L, i % 3);
        lua_setfield(L, -2, "available");
        lua_newtable(L);
        lua_setfield(L, -2, "tags");
        lua_rawseti(L, -2, i);
    }
}

static int answer_field(lua_State *co)
{
    lua_pushinteger(co, 1 << 30);
    return 1;
}

/* What can be called and indexed, as a message. */
static void push_message(void)
{
    lua_newuserdatauv(L, 1, 0);
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, answer_field);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, answer_field);
    lua_setfield(L, -2, "__call");
    lua_setmetatable(L, -2);
}

/* Instructions of the function on top, whether it returns or fails. */
static uint64_t count_instructions(uint32_t n)
{
    lua_pushvalue(L, -1);
    push_message();
    push_candidates(n);
    counted = 0;
    lua_sethook(L, count, LUA_MASKCOUNT, 1);
    (void)lua_pcall(L, 2, 0, 0);
    lua_sethook(L, NULL, 0, 0);
    lua_settop(L, 1);
    return counted;
}

static void test_bounded_functions_execute_no_more_than_the_step(void **state) /* proves RF9 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(bounded); i++) {
        uint32_t n = bound_of(bounded[i]);
        if (n > 0)
            assert_in_range(count_instructions(n), 0, LUA__STEP);
    }
}

/* ---- by chance ---- */

static lim__rng rng;
static lim__buf out;

static uint64_t chance(uint64_t n)
{
    return lim__rng_range(&rng, 0, n - 1);
}

static void put(const char *text)
{
    lim__buf_text(&out, text);
}

static void put_expression(void)
{
    static const char *const all[] = { "1",   "#c",        "n",      "m.n",       "x",
                                       "i",   "c[i]",      "m('a')", "m(x)",      "c(x)",
                                       "-3",  "m.n or #c", "#c + 1", "not x",     "c[1].available",
                                       "'a'", "i < 3",     "x == 2", "c[1].tags", "x and #c or 7" };
    put(all[chance(LIM_COUNT(all))]);
}

static void put_statements(int levels);

static void put_block(const char *head, int levels)
{
    put(head);
    put_statements(levels - 1);
    put(" end ");
}

static void put_for(int levels)
{
    static const char *const limits[] = {
        "#c", "3", "1", "20", "-1", "0", "n", "m.n", "#c", "100000", "x or #c", "#x"
    };
    put(" for i = ");
    put(limits[chance(6)]);
    put(", ");
    put(limits[chance(LIM_COUNT(limits))]);
    put(chance(4) ? "" : ", -1");
    put_block(" do ", levels);
}

static void put_statement(int levels)
{
    static const char *const rare[] = { " c = x ",
                                        " c[#c + 1] = 1 ",
                                        " m = c ",
                                        " while x do x = i end ",
                                        " x = f(x) ",
                                        " local c = x ",
                                        " do goto l end ::l:: ",
                                        " repeat x = 1 until x ",
                                        " x = {} " };
    switch (chance(levels > 0 ? 12 : 6)) {
    case 0:
        put(chance(8) ? " x = x " : rare[chance(LIM_COUNT(rare))]);
        break;
    case 1:
        put(" n = i ");
        break;
    case 2:
        put(" local x, y = ");
        put_expression();
        put(", 1 ");
        break;
    case 3:
        put(" if ");
        put_expression();
        put(" then return c[1] end ");
        break;
    case 4:
        put(" x = ");
        put_expression();
        put(" ");
        break;
    case 5:
        put(" x = x or ");
        put_expression();
        put(" ");
        break;
    case 6:
    case 7:
        put(" if ");
        put_expression();
        put_block(" then ", levels);
        break;
    default:
        put_for(levels);
    }
}

static void put_statements(int levels)
{
    for (uint64_t k = 1 + chance(3); k > 0; k--)
        put_statement(levels);
}

static void test_functions_by_chance_keep_their_bound(void **state) /* proves RF9 */
{
    (void)state;
    int taken = 0, refused = 0;
    rng = lim__rng_seeded(3);
    for (int round = 0; round < 20000; round++) {
        lim__buf_consume(&out, lim__buf_len(&out));
        put("local n, f, i = 1, print, 2 return function(m, c) local x = m.x ");
        put_statements(3);
        put(" end");
        lim__buf_add(&out, "", 1);
        const char *source = lim__buf_bytes(&out).ptr;
        uint32_t n = bound_of(source);
        refused += n == 0;
        if (n == 0 || n == UINT32_MAX) /* chance may write what is no Lua */
            continue;
        taken++;
        if (count_instructions(n) > LUA__STEP || count_instructions(1 + n / 2) > LUA__STEP)
            fail_msg("%lu instructions for %u: %s", (unsigned long)counted, n, source);
    }
    lim__buf_fini(&out);
    assert_true(LUA__STEP == 1 || (taken > 2000 && refused > 2000));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_only_functions_that_end_by_themselves_are_bounded),
        T(test_many_candidates_bring_the_hook_back),
        T(test_bounded_functions_execute_no_more_than_the_step),
        T(test_functions_by_chance_keep_their_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
