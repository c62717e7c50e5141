/* SPDX-License-Identifier: Apache-2.0
 * hostile_test.c - functions that mean harm: each ends with the outcome that is promised, and nobody else notices. */
#include "route/test_router.h"

#include <time.h>

enum { BASELINE_SLACK = 32768 }; /* a table of names that grew, a coroutine that is kept */

typedef struct attempt {
    const char *what, *body; /* of function(msg, c) */
    lim__route_how how;
    const char *text; /* part of the result's; NULL: none is expected */
} attempt;

#define CRASH(what, body, text)                                                                                        \
    {                                                                                                                  \
        what, body, LIM__ROUTE_CRASHED, text                                                                           \
    }
#define HANG(what, body)                                                                                               \
    {                                                                                                                  \
        what, body, LIM__ROUTE_TIMED_OUT, "routing.cpu_us_max"                                                         \
    }
#define MEMORY "out of memory: the limit is 1048576 bytes (routing.memory_bytes_max)"
#define BIG    "a text longer than 65536 bytes"

static const attempt attempts[] = {
    /* loops */
    HANG("empty loop", "while true do end"),
    HANG("repeat", "repeat until false"),
    HANG("goto", "::again:: goto again"),
    HANG("huge for", "for i = 1, math.maxinteger do end"),
    HANG("float for", "for i = 1, math.huge do end"),
    HANG("backwards for", "for i = math.maxinteger, math.mininteger, -1 do end"),
    HANG("loop of pcall", "while true do pcall(error) end"),
    HANG("loop of pcall with a closure", "while true do pcall(function() error({}) end) end"),
    HANG("loop inside pcall", "pcall(function() while true do end end)"),
    HANG("loop inside nested pcall", "pcall(pcall, pcall, function() while true do end end)"),
    HANG("nested pcall, each goes on", "local function f() pcall(f) while true do end end f()"),
    HANG("tail calls", "local function f() return f() end f()"),
    HANG("tail calls of two", "local f, g function f() return g() end function g() return f() end return f()"),
    HANG("loop in an iterator", "for x in function() return 1 end do end"),
    HANG("loop of concatenation", "local s = '' while true do s = #s < 60000 and s .. 'x' or '' end"),
    HANG("loop of comparisons", "local a = 'x' while #a < 30000 do a = a .. a end local b = a .. 'y' a = a .. 'z' "
                                "while true do local x = a < b local y = a .. 'q' == b end"),
    HANG("loop of find",
         "local a = 'x' while #a < 30000 do a = a .. a end while true do a:find('xxxxxxxxxxxxxxxy') end"),
    HANG("loop of insertions", "local t = {} for i = 1, 4000 do t[i] = i end while true do table.insert(t, 1, 0) "
                               "table.remove(t, 1) end"),
    HANG("loop of pairs",
         "local t = {} for i = 1, 1000 do t['k' .. i] = i end while true do for k in pairs(t) do end end"),
    HANG("loop of concat", "local t = {} for i = 1, 4000 do t[i] = 'xxxxxxxx' end while true do table.concat(t) end"),
    HANG("loop of case", "local a = 'x' while #a < 30000 do a = a .. a end while true do a:upper() end"),
    HANG("loop over varargs",
         "local function f(...) while true do local n = select('#', ...) end end f(table.unpack(c))"),
    HANG("loop over the message", "while true do local x = msg.a.b[1] end"),
    HANG("loop of closures", "while true do local f = function() return f end end"),
    HANG("loop over the message's fields", "while true do for k, v in pairs(msg) do end end"),
    HANG("loop over the candidates", "while true do for i, v in ipairs(c) do local x = v.tags.gpu end end"),
    HANG("loop over the candidates' fields", "while true do for k, v in pairs(c[1]) do end end"),
    HANG("an iterator that never ends", "for k in next or pcall, error do end"),
    HANG("exponential recursion",
         "local function f(n) if n < 2 then return n end return f(n - 1) + f(n - 2) end f(80)"),
    HANG("exponential recursion through pcall",
         "local function f(n) if n > 0 then pcall(f, n - 1) pcall(f, n - 1) end end f(60)"),
    HANG("deep recursion, again and again",
         "local function f(n) if n > 0 then f(n - 1) end return n end while true do f(50) end"),
    HANG("loop of errors that are tables", "while true do pcall(error, {}) end"),
    HANG("loop of errors in errors", "while true do pcall(pcall, error, pcall) end"),
    HANG("loop of failing asserts", "while true do pcall(assert, false, 'x') end"),
    HANG("loop of chance", "while true do math.random(1, 1000) counter() end"),
    HANG("loop of numbers and texts", "local i = 0 while true do i = tonumber(tostring(i)) + 1 end"),
    HANG("loop of bytes", "local s = 'x' while #s < 200 do s = s .. s end while true do string.byte(s, 1, 200) end"),
    HANG("loop of parts", "local s = 'x' while #s < 30000 do s = s .. s end while true do local x = s:sub(2) end"),
    HANG("loop of unpacking", "local t = {} for i = 1, 200 do t[i] = i end while true do table.unpack(t) end"),
    HANG("loop of headers", "while true do local x = msg('$header.x') end"),
    HANG("loop of paths", "while true do local x = msg('a.b[1]') end"),
    HANG("numeric loops in loops", "for i = 1, 1e5 do for k = 1, 1e5 do end end"),
    HANG("goto back and forth", "::a:: goto b ::c:: goto a ::b:: goto c"),
    HANG("loop that closes nothing", "while true do local x <close> = nil end"),
    HANG("loop of coroutines that are none", "while true do pcall(function() coroutine.wrap() end) end"),
    /* memory */
    CRASH("table of tables", "local t = {} while true do t[#t + 1] = {} end", MEMORY),
    CRASH("array", "local t = {} for i = 1, 1e9 do t[i] = i end", MEMORY),
    CRASH("hash", "local t = {} for i = 1, 1e9 do t[i + 0.5] = i end", MEMORY),
    CRASH("hash of texts", "local t = {} for i = 1, 1e9 do t[i .. ''] = i end", MEMORY),
    CRASH("doubling text", "local s = 'x' while true do s = s .. s end", BIG),
    CRASH("many texts", "local t = {} for i = 1, 1e9 do t[i] = ('x' .. i) end", MEMORY),
    CRASH("wide concatenation", "local s = 'x' for i = 1, 15 do s = s .. s end local x = s .. s .. s", BIG),
    CRASH("recursion", "local function f() return 1 + f() end f()", "out of memory"),
    CRASH("recursion with locals", "local function f(a, b, d) local x, y, z = f(a, b, d) return x end f(1, 2, 3)",
          "out of memory"),
    CRASH("growing varargs", "local function f(...) return 1 + f(1, ...) end f()", "out of memory"),
    CRASH("unpack too much", "local t = {} for i = 1, 300 do t[i] = i end table.unpack(t)", "at most 250"),
    CRASH("unpack the number line", "table.unpack({}, math.mininteger, math.maxinteger)", "at most 250"),
    CRASH("unpack a wrapping range", "table.unpack({}, math.maxinteger - 300, math.maxinteger)", "at most 250"),
    CRASH("concat the number line", "table.concat({}, '', math.mininteger, math.maxinteger)", "at most 4096"),
    CRASH("concat to too long a text",
          "local t = {} for i = 1, 4000 do t[i] = 'x' end table.concat(t, ('12345678901234567890'))", "over 65536"),
    CRASH("pairs over too much", "local t = {} for i = 1, 5000 do t[i] = i end for k in pairs(t) do end",
          "more than 4096"),
    CRASH("pairs over too much to sort", "local t = {} for i = 1, 2000 do t['k' .. i] = i end for k in pairs(t) do end",
          "at most 1024"),
    { "pairs over a long list",
      "local t, n = {}, 0 for i = 1, 4000 do t[i] = i end for k, v in pairs(t) do assert(k == n + 1 and "
      "v == k) n = k end return n == 4000 and c[1]",
      LIM__ROUTE_DECIDED, NULL },
    CRASH("insert in front of too much", "local t = {} for i = 1, 5000 do t[i] = i end table.insert(t, 1, 0)",
          "5000 elements to move"),
    CRASH("loop that catches its lack of memory",
          "while true do pcall(function() local t = {} while true do t[#t + 1] = {} "
          "end end) end",
          MEMORY),
    CRASH("loop that catches too long texts",
          "while true do pcall(function() local s = 'x' while true do s = s .. s end end) "
          "end",
          BIG),
    CRASH("a chain of tables", "local t = {} while true do t = { t } end", MEMORY),
    CRASH("a tree of tables", "local function f() return { f(), f() } end f()", "out of memory"),
    CRASH("a chain of closures", "local f while true do local g = f f = function() return g end end", MEMORY),
    CRASH("parts of the message", "local t = {} while true do t[#t + 1] = msg.a end", MEMORY),
    CRASH("iterators over the message", "local t = {} while true do t[#t + 1] = pairs(msg) end", MEMORY),
    CRASH("iterators over tables", "local t = {} while true do t[#t + 1] = pairs(c) end", MEMORY),
    CRASH("long texts", "local s, t = 'x', {} for i = 1, 15 do s = s .. s end while true do t[#t + 1] = s .. #t end",
          MEMORY),
    CRASH("varargs of varargs", "local function f(...) return f(1, 2, 3, ...) end f()", "out of memory"),
    CRASH("a table as its own key", "local t = {} while true do t[t] = t t = { t } t[1][t] = t end", MEMORY),
    /* the C stack */
    CRASH("pcall of pcall of pcall", "local function f() local ok, e = pcall(f) if not ok then error(e, 0) end end f()",
          "overflow"),
    CRASH("deep pcall chain",
          "local t = {} for i = 1, 249 do t[i] = pcall end local a, b = pcall(table.unpack(t)) error(tostring(b), 0)",
          "best.lua"),
    /* error objects */
    CRASH("error with a table", "error({})", "a table as error"),
    CRASH("error with nil", "error(nil)", "a nil as error"),
    CRASH("error with nothing", "error()", "a nil as error"),
    CRASH("error with a number", "error(42)", "42"),
    CRASH("error with a float", "error(1.5)", "1.5"),
    CRASH("error with a function", "error(error)", "a function as error"),
    CRASH("error with a boolean", "error(true)", "true"),
    CRASH("error with a message object", "error(msg)", "a userdata as error"),
    CRASH("error with control characters", "error('a\\0b\\nc', 0)", "a b c"),
    CRASH("error with a long text", "local s = 'x' for i = 1, 15 do s = s .. s end error(s)", "xxxxxxxx"),
    CRASH("error with a lying place", "error('best.lua:999999999999999999999: x', 0)", "x"),
    CRASH("error on a level that is not there", "error('x', 1000000)", "x"),
    CRASH("assert", "assert(false, 'because')", "because"),
    CRASH("assert with a table", "assert(nil, {})", "a table as error"),
    CRASH("index nil", "local x = nil return x.y", "attempt to index a nil value (local 'x')"),
    CRASH("call a number", "(1)()", "attempt to call a number"),
    CRASH("divide by zero", "local z = 0 return c[1 // z]", "attempt to divide by zero"),
    CRASH("modulo zero", "local z = 0 return c[1 % z]", "attempt to perform 'n%"),
    CRASH("text arithmetic", "return c['1' + 1]", "attempt to perform arithmetic on a string"),
    CRASH("compare apples", "return c[1] < c[2]", "attempt to compare two table values"),
    CRASH("nan key", "local t = {} t[0/0] = 1", "index is NaN"),
    CRASH("nil key", "local t = {} t[nil] = 1", "index is nil"),
    CRASH("select beyond", "select(0)", "index out of range"),
    CRASH("a step of zero", "for i = 1, 10, 0 do end", "'for' step is zero"),
    CRASH("a limit that is no number", "for i = 1, {} do end", "bad 'for' limit (number expected, got table)"),
    CRASH("assert nothing", "assert()", "value expected"),
    CRASH("an error in an error", "local ok, e = pcall(error, { 1 }) error(e)", "a table as error"),
    CRASH("an error while an error is shown", "local ok, e = pcall(function() return {} .. 'x' end) error(e .. {}, 0)",
          "attempt to concatenate a table value"),
    CRASH("no environment", "local _ENV = nil x = 1", "_ENV"),
    CRASH("a field of a text", "return ('x').y.z", "attempt to index a nil value"),
    CRASH("assign to a text", "('x').upper = error", "attempt to index a string value"),
    CRASH("a text as a function", "('x')()", "attempt to call a string value"),
    CRASH("length of a number", "return #5", "attempt to get length of a number"),
    CRASH("a closing value of a loop", "for k in pcall, nil, nil, {} do end", "got a non-closable value"),
    CRASH("close a candidate", "local x <close> = c[1]", "got a non-closable value"),
    CRASH("close a function", "local x <close> = error", "got a non-closable value"),
    CRASH("a finaliser that is only a field", "local t = { __gc = error, __close = error } local x <close> = t",
          "got a non-closable value"),
    CRASH("close a value", "local x <close> = {}", "got a non-closable value"),
    CRASH("close the message", "local x <close> = msg", "got a non-closable value"),
    /* what is not there */
    CRASH("load", "load('return 1')()", "global 'load'"),
    CRASH("loadstring", "loadstring('return 1')()", "global 'loadstring'"),
    CRASH("dofile", "dofile('/etc/passwd')", "global 'dofile'"),
    CRASH("loadfile", "loadfile('/etc/passwd')", "global 'loadfile'"),
    CRASH("require", "require('os')", "global 'require'"),
    CRASH("os", "os.execute('true')", "global 'os'"),
    CRASH("io", "io.open('/etc/passwd')", "global 'io'"),
    CRASH("debug", "debug.getregistry()", "global 'debug'"),
    CRASH("debug.sethook", "debug.sethook()", "global 'debug'"),
    CRASH("os.exit", "os.exit(1)", "global 'os'"),
    CRASH("io.popen", "io.popen('true')", "global 'io'"),
    CRASH("bytecode", "load('\\27Lua')()", "global 'load'"),
    CRASH("coroutine.yield", "coroutine.yield()", "global 'coroutine'"),
    CRASH("string.reverse", "('x'):reverse()", "method 'reverse'"),
    CRASH("rawequal", "rawequal(c, c)", "global 'rawequal'"),
    CRASH("rawlen", "rawlen(c)", "global 'rawlen'"),
    CRASH("_VERSION", "_VERSION.x = 1", "global '_VERSION'"),
    /* what is no answer */
    CRASH("return nan", "return 0/0", "returned a number"),
    CRASH("return a negative index", "return -1", "returned a number"),
    CRASH("return infinity", "return math.huge", "returned a number"),
    CRASH("return a table of its own", "return { id = c[1].id }", "not one of the candidates"),
    CRASH("return all of them", "return c", "not one of the candidates"),
    CRASH("return a part of one", "return c[1].tags", "not one of the candidates"),
    CRASH("return the message", "return msg", "returned a userdata"),
    CRASH("return a part of the message", "return msg.a", "returned a userdata"),
    CRASH("return a function", "return function() return c[1] end", "returned a function"),
    CRASH("return a boolean", "return true", "returned a boolean"),
    CRASH("return a stranger", "return 'nobody'", "chose nobody"),
    CRASH("return an empty id", "return ''", "not among the candidates"),
    CRASH("return a long id", "local s = 'x' for i = 1, 15 do s = s .. s end return s", "not among the candidates"),
    { "return whoever is before the first", "return c[0] or c[-1] or c[9] or c['1']", LIM__ROUTE_NONE, NULL },
    CRASH("package", "package.loadlib('x', 'y')", "global 'package'"),
    CRASH("coroutine", "coroutine.wrap(function() end)()", "global 'coroutine'"),
    CRASH("utf8", "utf8.char(1)", "global 'utf8'"),
    CRASH("collectgarbage", "collectgarbage('stop')", "global 'collectgarbage'"),
    CRASH("setmetatable", "setmetatable({}, { __gc = error })", "global 'setmetatable'"),
    CRASH("getmetatable", "getmetatable('').__index = error", "global 'getmetatable'"),
    CRASH("rawset", "rawset({}, 1, 1)", "global 'rawset'"),
    CRASH("rawget", "rawget({}, 1)", "global 'rawget'"),
    CRASH("xpcall", "xpcall(error, error)", "global 'xpcall'"),
    CRASH("next", "next({})", "global 'next'"),
    CRASH("printf", "printf('%n')", "global 'printf'"),
    HANG("loop of print", "while true do print(1, 'x', {}, c[1], msg) end"),
    CRASH("warn", "warn('@on')", "global 'warn'"),
    CRASH("_G", "_G.x = 1", "global '_G'"),
    CRASH("string.rep", "string.rep('x', 1e9)", "field 'rep'"),
    CRASH("method rep", "('x'):rep(1e9)", "method 'rep'"),
    CRASH("string.format", "string.format('%99999999d', 1)", "field 'format'"),
    CRASH("string.gsub", "('x'):gsub('x', error)", "method 'gsub'"),
    CRASH("string.gmatch", "('x'):gmatch('x')", "method 'gmatch'"),
    CRASH("string.match", "('x'):match('x')", "method 'match'"),
    CRASH("string.dump", "string.dump(error)", "field 'dump'"),
    CRASH("string.pack", "string.pack('i', 1)", "field 'pack'"),
    CRASH("table.sort", "table.sort({}, error)", "field 'sort'"),
    CRASH("table.move", "table.move({}, 1, 1e9, 2)", "field 'move'"),
    CRASH("table.pack", "table.pack()", "field 'pack'"),
    CRASH("math.randomseed", "math.randomseed(1)", "field 'randomseed'"),
    CRASH("tostring of a table", "tostring({})", "a table has no text"),
    CRASH("tostring of a function", "tostring(error)", "a function has no text"),
    CRASH("tostring of the message", "tostring(msg)", "a userdata has no text"),
    CRASH("pairs over tables as keys", "for k in pairs({ [{}] = 1 }) do end", "a key that is a table"),
    CRASH("a method of a message", "msg:rep(1)", "attempt to call a nil value"),
    CRASH("write to the message", "msg.x = 1", "cannot be changed"),
    CRASH("write to a part of the message", "msg.a.b = 1", "cannot be changed"),
    CRASH("random over an empty interval", "math.random(0)", "interval is empty"),
    { "a pattern is a plain text", "return ('aaaa'):find('(a*)*b') == nil and ('a.c'):find('.') == 2 and c[1]",
      LIM__ROUTE_DECIDED, NULL },
    { "print more than there is room for",
      "local s = 'x' for i = 1, 15 do s = s .. s end for i = 1, 9 do print(s, s, table.unpack(c)) end return c[1]",
      LIM__ROUTE_DECIDED, NULL },
    { "the last numbers there are", "for i = math.maxinteger - 1, math.maxinteger do end return c[1]",
      LIM__ROUTE_DECIDED, NULL },
    /* what is allowed, and harmless */
    { "close nil and false", "local x <close>, y = nil local z <close> = false return c[1]", LIM__ROUTE_DECIDED, NULL },
    { "spoil the sandbox", "string.upper = nil table.insert = nil math = nil pcall, error, type = nil return c[1]",
      LIM__ROUTE_DECIDED, NULL },
    { "another environment", "local _ENV = {} x = 1 return c[1]", LIM__ROUTE_DECIDED, NULL },
    { "a constant environment", "local _ENV <const> = { a = c } return a[1]", LIM__ROUTE_DECIDED, NULL },
    { "spoil everything it was given",
      "for i = 1, 8 do for k in pairs(c[i]) do c[i][k] = nil end end local x = c[1] for i = 8, 1, -1 "
      "do c[i] = nil end c.x = c return x",
      LIM__ROUTE_DECIDED, NULL },
    { "catch a stack overflow", "local function f() return 1 + f() end local ok = pcall(f) return not ok and c[1]",
      LIM__ROUTE_DECIDED, NULL },
    { "catch a lack of memory",
      "local ok = pcall(function() local t = {} while true do t[#t + 1] = {} end end) return not ok and c[1]",
      LIM__ROUTE_DECIDED, NULL },
    { "swap the candidates", "local x = c[1] c[1], c[2] = c[2], c[1] return c[1] ~= x and x", LIM__ROUTE_DECIDED,
      NULL },
    { "call another what it is called", "c[1].id = 'worker-5' return c[1]", LIM__ROUTE_DECIDED, NULL },
    { "candidates in candidates", "c[1].c = c c[1].self = c[1] return c[1].c[1].self", LIM__ROUTE_DECIDED, NULL },
    { "spoil the methods of texts", "string.__index = error string.sub = nil return ('x'):len() == 1 and c[1]",
      LIM__ROUTE_DECIDED, NULL },
    { "many results", "return c[1], table.unpack(c)", LIM__ROUTE_DECIDED, NULL },
    { "random over everything", "math.random(math.mininteger, math.maxinteger) return c[1]", LIM__ROUTE_DECIDED, NULL },
};

static void assert_outcome(const attempt *a, lim__route_result result)
{
    if (result.how != a->how || (a->text != NULL && strstr(result.text, a->text) == NULL))
        fail_msg("%s: %s: %s", a->what, lim__route_how_text(result.how), result.text);
}

static void test_every_hostile_function_ends_as_promised(void **state) /* proves RF8 RF9 */
{
    (void)state;
    assert_true(LIM_COUNT(attempts) >= 160);
    for (size_t i = 0; i < LIM_COUNT(attempts); i++) {
        world_reset();
        lim__router *r = lua_body(attempts[i].body);
        assert_outcome(&attempts[i], call_to_end(r, "{\"a\":{\"b\":[1]}}"));
        assert_int_equal(lim__router_pending(r), 0);
        lim__router_unref(r);
    }
}

/* The same on one state, call after call, with a healthy one between: nothing an attempt leaves behind matters. */
static void test_hostile_calls_leave_no_trace(void **state) /* proves RF9 */
{
    (void)state;
    static char source[64 * 1024];
    size_t n = 0, count = 0;
    static const attempt *used[LIM_COUNT(attempts)];
    n += (size_t)snprintf(source, sizeof source, "local all = {\n");
    for (size_t i = 0; i < LIM_COUNT(attempts); i++) {
        if (attempts[i].how == LIM__ROUTE_DECIDED)
            continue; /* these spoil what the version shares, as they may */
        n += (size_t)snprintf(source + n, sizeof source - n, "function(msg, c) %s end,\n", attempts[i].body);
        used[count++] = &attempts[i];
    }
    n += (size_t)snprintf(
        source + n, sizeof source - n,
        "}\nreturn function(msg, c) if msg.ok then return c[msg.ok] end return all[msg.i](msg, c) end");
    assert_true(n < sizeof source);
    lim__router *r = lua(source);
    lim__router_stats stats;
    assert_decided(call_to_end(r, "{\"ok\":3}"), 2);
    lim__router_stats_get(r, &stats);
    uint64_t baseline = stats.memory_bytes;
    for (size_t i = 0; i < count; i++) {
        char json[64];
        snprintf(json, sizeof json, "{\"i\":%zu,\"a\":{\"b\":[1]}}", i + 1);
        lim__route_result result = call_to_end(r, json);
        if (result.how != used[i]->how)
            assert_outcome(used[i], result);
        assert_decided(call_to_end(r, "{\"ok\":3}"), 2);
    }
    for (int i = 0; i < 1000; i++)
        assert_decided(call_to_end(r, "{\"ok\":3}"), 2);
    lim__router_stats_get(r, &stats);
    assert_true(stats.memory_bytes <= baseline + BASELINE_SLACK);
    lim__router_unref(r);
}

static void test_heavy_crashes_between_healthy_calls_take_no_memory(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "error('x')",
        "local function f() return 1 + f() end f()",
        "local t = {} while true do t[#t + 1] = {} end",
        "local x <close> = {}",
        "while true do end",
    };
    for (size_t i = 0; i < LIM_COUNT(bodies); i++) {
        char source[256];
        snprintf(source, sizeof source, "return function(msg, c) if msg.ok then return c[1] end %s end", bodies[i]);
        lim__router *r = lua_limited(source, (lim__route_limits){ .cpu_ns = 2000000 });
        for (int k = 0; k < 250; k++) {
            lim__route_result result = call_to_end(r, "{}");
            assert_true(result.how == LIM__ROUTE_CRASHED || result.how == LIM__ROUTE_TIMED_OUT);
            assert_decided(call(r, "{\"ok\":1}"), 0);
        }
        lim__router_stats stats;
        lim__router_stats_get(r, &stats);
        assert_true(stats.memory_bytes < (2u << 20));
        lim__router_unref(r);
    }
}

static void test_a_crash_names_its_line(void **state)
{
    (void)state;
    lim__router *r = lua("return function(msg, c)\n"
                         "  if msg.kind == 1 then error('one') end\n"
                         "  if msg.kind == 2 then error({}) end\n"
                         "  local t = {}\n"
                         "  while true do t[#t + 1] = {} end\n"
                         "end");
    assert_int_equal(call(r, "{\"kind\":1}").line, 2);
    lim__route_result result = call(r, "{\"kind\":2}");
    assert_int_equal(result.line, 3);
    assert_string_equal(result.text, "best.lua:3: a table as error, in: if msg.kind == 2 then error({}) end");
    assert_int_equal(call_to_end(r, "{}").line, 5);
    lim__router_unref(r);
}

static void test_a_long_text_in_a_message_is_a_clear_error(void **state)
{
    (void)state;
    enum { LEN = 70000 };
    char *json = malloc(LEN + 32);
    int head = snprintf(json, 32, "{\"x\":\"");
    memset(json + head, 'a', LEN);
    snprintf(json + head + LEN, 8, "\"}");
    lim__router *r = lua_body("return msg.x");
    assert_crashed(call(r, json), "a text of 70000 bytes in the message is over the 65536");
    lim__router_unref(r);
    free(json);
}

static void test_a_version_that_hoards_fails_alone(void **state)
{
    (void)state;
    lim__router *hoarder =
        lua("local all = {} return function(msg, c) for i = 1, 2000 do all[#all + 1] = { i } end return c[1] end");
    lim__router *healthy = lua_body("return c[2]");
    int decided = 0, crashed = 0;
    for (int i = 0; i < 50; i++) {
        lim__route_result result = call_to_end(hoarder, "{}");
        decided += result.how == LIM__ROUTE_DECIDED;
        crashed += result.how == LIM__ROUTE_CRASHED;
        assert_decided(call(healthy, "{}"), 1);
    }
    assert_in_range(decided, 1, 20);
    assert_int_equal(decided + crashed, 50);
    lim__router_stats stats;
    lim__router_stats_get(hoarder, &stats);
    assert_true(stats.memory_bytes < (1u << 20) + 65536);
    lim__router_unref(hoarder);
    lim__router_unref(healthy);
}

static void test_hostile_calls_in_flight_do_not_stop_healthy_ones(void **state) /* proves RF9 */
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(attempts); i++) {
        if (attempts[i].how != LIM__ROUTE_TIMED_OUT)
            continue;
        char body[512];
        world_reset();
        snprintf(body, sizeof body, "return function(msg, c) if msg.ok then return c[1] end %s end", attempts[i].body);
        lim__router *r = lua_limited(body, (lim__route_limits){ .cpu_ns = 4000000 });
        for (int k = 0; k < 3; k++)
            assert_int_equal(call(r, "{\"a\":{\"b\":[1]}}").how, LIM__ROUTE_PENDING);
        int healthy = 0;
        for (; lim__router_pending(r) > 0; healthy++) {
            lim__route_result result = call(r, "{\"ok\":1}");
            /* they share one memory: while the others fill it, an honest call may find none, but it ends */
            assert_true(result.how == LIM__ROUTE_DECIDED || strstr(result.text, "out of memory") != NULL);
            lim__router_resume(r);
        }
        assert_int_equal(w.done, 3);
        assert_in_range(healthy, 3 * 10, 3 * 21);
        assert_decided(call(r, "{\"ok\":1}"), 0);
        lim__router_unref(r);
    }
}

/* ---- with the processor's clock: how long does one slice keep its scheduler? ---- */

static uint64_t thread_ns(lim__os *os)
{
    (void)os;
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void test_no_slice_keeps_its_scheduler_long(void **state) /* proves RF9 */
{
    (void)state;
    uint64_t worst = 0;
    const char *who = "";
    for (size_t i = 0; i < LIM_COUNT(attempts); i++) {
        char source[1024];
        lim__artifact *a;
        lim__router *r;
        world_reset();
        w.os.now_ns = thread_ns;
        snprintf(source, sizeof source, "return function(msg, c) %s end", attempts[i].body);
        assert_int_equal(lim__artifact_new(LIM__ENGINE_LUA, lim__str(source), "best.lua", 0, &a), LIM_OK);
        lim__router_opts opts = { .os = &w.os, .artifact = a, .on_done = on_done, .ctx = &w };
        assert_int_equal(lim__router_open(&opts, NULL, &r), LIM_OK);
        uint64_t before = thread_ns(NULL), took;
        lim__route_result result = call(r, "{\"a\":{\"b\":[1]}}");
        do {
            took = thread_ns(NULL) - before;
            if (took > worst) {
                worst = took;
                who = attempts[i].what;
            }
            before = thread_ns(NULL);
        } while (result.how == LIM__ROUTE_PENDING && lim__router_resume(r) > 0);
        took = thread_ns(NULL) - before;
        if (took > worst) {
            worst = took;
            who = attempts[i].what;
        }
        lim__router_unref(r);
        lim__artifact_unref(a);
    }
    print_message("worst slice: %lu us (%s)\n", (unsigned long)(worst / 1000), who);
    assert_true(worst < 200000000); /* sanitizers and busy machines; bench/routing.c measures */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_every_hostile_function_ends_as_promised),
        T(test_hostile_calls_leave_no_trace),
        T(test_heavy_crashes_between_healthy_calls_take_no_memory),
        T(test_a_crash_names_its_line),
        T(test_a_long_text_in_a_message_is_a_clear_error),
        T(test_a_version_that_hoards_fails_alone),
        T(test_hostile_calls_in_flight_do_not_stop_healthy_ones),
        T(test_no_slice_keeps_its_scheduler_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
