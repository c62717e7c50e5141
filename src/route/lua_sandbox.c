/* SPDX-License-Identifier: Apache-2.0
 * lua_sandbox.c - everything a script can name.
 *
 * A whitelist: the script's environment starts empty and gets what is listed here; there is no way from it to Lua's own
 * global table, to a metatable, or to another function. What is chosen makes two things true of every script:
 *
 *   S1  it can be put aside at any of its instructions: no function here calls back into Lua except pcall, which may
 *       yield; there are no metamethods, no coroutines and no comparators.
 *   S2  no function here takes long: each looks at LUA__ITEMS_MAX items or LIM__ROUTE_TEXT_MAX bytes at most, and
 *       charges for them (lua_limits.c).
 *   S3  what it answers depends on its input and its seed alone: no clock, no addresses, no order of hash tables.
 *
 * Taken from Lua as they are: assert, error, ipairs, pcall, select, tonumber, type and most of math. All else is ours,
 * because Lua's is unbounded (string.rep, table.concat), depends on locale or chance (string.upper, math.random),
 * iterates in the order of a hash table (pairs), or writes to the host's standard output (print). */
#include "route/lua.h"

enum { UNPACK_MAX = 250, CHARGE_PER_MOVE = 64, FIND_COST = 16 };

/* ---- base ---- */

/* Of others Lua would give an address (S3). */
static bool has_text(int type)
{
    return type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TBOOLEAN || type == LUA_TNIL;
}

static int base_tostring(lua_State *L)
{
    luaL_checkany(L, 1);
    if (!has_text(lua_type(L, 1)))
        return luaL_error(L, "tostring: a %s has no text", luaL_typename(L, 1));
    luaL_tolstring(L, 1, NULL);
    return 1;
}

/* One value as tostring would show it; what has no text is shown as its type. Control characters become spaces, so that
 * a line is a line. Answers how many bytes of `out` are used. */
static size_t print_value(lua_State *L, int at, char *out, size_t room)
{
    size_t len;
    if (has_text(lua_type(L, at)))
        luaL_tolstring(L, at, NULL);
    else
        lua_pushstring(L, luaL_typename(L, at));
    const char *text = lua_tolstring(L, -1, &len);
    size_t n = len < room ? len : room;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)((unsigned char)text[i] < 0x20 || text[i] == 0x7F ? ' ' : text[i]);
    lua_pop(L, 1);
    return n;
}

/* A line that was cut ends with a whole UTF-8 sequence. */
static size_t whole_sequences(const char *line, size_t len)
{
    size_t start = len;
    while (start > 0 && len - start < 4 && ((unsigned char)line[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return len;
    unsigned char head = (unsigned char)line[start - 1];
    size_t want = head >= 0xF0 ? 4 : head >= 0xE0 ? 3 : head >= 0xC0 ? 2 : 1;
    return len - (start - 1) < want && head >= 0x80 ? start - 1 : len;
}

/* print(...): one line, values with a tab between, to the version's log. */
static int base_print(lua_State *L)
{
    char line[LIM__ROUTE_LINE_MAX];
    size_t n = 0;
    int values = lua_gettop(L);
    for (int i = 1; i <= values && n < sizeof line; i++) {
        if (i > 1)
            line[n++] = '\t';
        n += print_value(L, i, line + n, sizeof line - n);
    }
    if (n == sizeof line)
        n = whole_sequences(line, n);
    lim__lua_charge(lim__lua_of(L), LIM__ROUTE_LINE_MAX + n);
    lim__router_log(lim__lua_of(L)->router, line, n);
    return 0;
}

static int base_counter(lua_State *L)
{
    uint64_t *counter = lim__lua_of(L)->router->counter;
    lua_pushinteger(L, (lua_Integer)++ * counter);
    return 1;
}

/* ---- pairs, in key order: numbers, then texts bytewise, then false and true ----
 * The keys are sorted when the loop begins; what is removed meanwhile is skipped, what is added is not seen. */

typedef struct key {
    int type;
    lua_Number number;
    lua_Integer integer; /* if whole */
    bool whole;
    const char *text; /* the key stays in the list of keys */
    size_t len;
    int index; /* in the list of keys */
} key;

static int compare_numbers(const key *a, const key *b)
{
    if (a->whole && b->whole)
        return (a->integer > b->integer) - (a->integer < b->integer);
    if (a->number != b->number)
        return a->number > b->number ? 1 : -1;
    return (int)b->whole -
           (int)a->whole; /* a float that is a key is no int64: 2^63 comes after the int that rounds to it */
}

static int compare_keys(const key *a, const key *b)
{
    static const int rank[] = { [LUA_TNUMBER] = 1, [LUA_TSTRING] = 2, [LUA_TBOOLEAN] = 3 };
    if (a->type != b->type)
        return rank[a->type] - rank[b->type];
    if (a->type != LUA_TSTRING)
        return compare_numbers(a, b);
    size_t n = a->len < b->len ? a->len : b->len;
    int c = n ? memcmp(a->text, b->text, n) : 0;
    return c != 0 ? c : (a->len > b->len) - (a->len < b->len);
}

static void sift(key *keys, size_t at, size_t count)
{
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && compare_keys(&keys[child], &keys[child + 1]) < 0)
            child++;
        if (compare_keys(&keys[at], &keys[child]) >= 0)
            return;
        key swap = keys[at];
        keys[at] = keys[child];
        keys[child] = swap;
    }
}

/* Heapsort: no memory, no bad input. No two keys of a table are equal. */
static void sort_keys(key *keys, size_t count)
{
    for (size_t i = count / 2; i-- > 0;)
        sift(keys, i, count);
    for (size_t i = count; i-- > 1;) {
        key swap = keys[0];
        keys[0] = keys[i];
        keys[i] = swap;
        sift(keys, 0, i);
    }
}

/* A list comes in order, however long; what has to be sorted is limited more closely, because it takes longer. */
static void put_in_order(lua_State *L, key *keys, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) < 0)
            continue;
        if (count > LUA__SORT_MAX)
            luaL_error(L, "pairs: %d keys cannot be put in order, at most %d; use ipairs or a loop", (int)count,
                       LUA__SORT_MAX);
        sort_keys(keys, count);
        return;
    }
}

/* Key on top of the stack. */
static void read_key(lua_State *L, key *k, int index)
{
    *k = (key){ .type = lua_type(L, -1), .index = index };
    switch (k->type) {
    case LUA_TNUMBER:
        k->whole = lua_isinteger(L, -1);
        k->integer = k->whole ? lua_tointeger(L, -1) : 0;
        k->number = lua_tonumber(L, -1);
        return;
    case LUA_TSTRING:
        k->text = lua_tolstring(L, -1, &k->len);
        return;
    case LUA_TBOOLEAN:
        k->whole = true;
        k->integer = lua_toboolean(L, -1);
        return;
    default:
        luaL_error(L, "pairs: a key that is a %s has no order", luaL_typename(L, -1));
    }
}

static int count_keys(lua_State *L)
{
    int count = 0;
    lim__lua_charge(lim__lua_of(L), LUA__ITEMS_MAX); /* most of a table's places may be empty */
    for (lua_pushnil(L); lua_next(L, 1) != 0; lua_pop(L, 1)) {
        if (++count > LUA__ITEMS_MAX)
            luaL_error(L, "pairs: more than %d keys; use ipairs or a loop", LUA__ITEMS_MAX);
    }
    return count;
}

/* (table) -> list of its keys in order; leaves it on top. */
static int sorted_keys(lua_State *L)
{
    int count = count_keys(L), n = 0;
    lim__lua_charge(lim__lua_of(L), (size_t)count * CHARGE_PER_MOVE * 8);
    key *keys = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *keys, 0);
    lua_createtable(L, count, 0);
    int unsorted = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, 1) != 0;) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        read_key(L, &keys[n], n + 1);
        lua_rawseti(L, unsorted, ++n);
    }
    put_in_order(L, keys, (size_t)n);
    lua_createtable(L, count, 0);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, unsorted, keys[i].index);
        lua_rawseti(L, -2, i + 1);
    }
    return n;
}

enum { UP_TABLE = 1, UP_KEYS, UP_COUNT, UP_NEXT };

static int pairs_step(lua_State *L)
{
    lua_Integer at = lua_tointeger(L, lua_upvalueindex(UP_NEXT));
    lua_Integer count = lua_tointeger(L, lua_upvalueindex(UP_COUNT));
    lua_settop(L, 0);
    while (at < count) {
        lua_rawgeti(L, lua_upvalueindex(UP_KEYS), ++at);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, lua_upvalueindex(UP_TABLE)) != LUA_TNIL)
            break;
        lua_settop(L, 0); /* removed meanwhile */
    }
    lua_pushinteger(L, at);
    lua_replace(L, lua_upvalueindex(UP_NEXT));
    if (lua_gettop(L) == 0)
        lua_pushnil(L);
    return lua_gettop(L);
}

static int base_pairs(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TUSERDATA) {
        lua_settop(L, 1);
        return lim__lua_message_pairs(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    int count = sorted_keys(L);
    lua_pushvalue(L, 1);
    lua_insert(L, -2);
    lua_pushinteger(L, count);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, pairs_step, UP_NEXT);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* ---- string ---- */

/* A place in a text of `len` bytes, counted from 1, or from behind if negative. */
static lua_Integer place(lua_Integer i, size_t len)
{
    if (i >= 0)
        return i;
    return (lua_Unsigned)0 - (lua_Unsigned)i > len ? 0 : (lua_Integer)len + i + 1;
}

/* The range [i, j] of arguments 2 and 3, cut to the text: false if nothing is left. */
static bool range(lua_State *L, size_t len, lua_Integer i_default, lua_Integer j_default, size_t *from, size_t *count)
{
    lua_Integer i = place(luaL_optinteger(L, 2, i_default), len);
    lua_Integer j = place(luaL_optinteger(L, 3, j_default), len);
    if (i < 1)
        i = 1;
    if (j > (lua_Integer)len)
        j = (lua_Integer)len;
    if (i > j)
        return false;
    *from = (size_t)i - 1;
    *count = (size_t)(j - i) + 1;
    return true;
}

static int string_len(lua_State *L)
{
    size_t len;
    luaL_checklstring(L, 1, &len);
    lua_pushinteger(L, (lua_Integer)len);
    return 1;
}

static int string_sub(lua_State *L)
{
    size_t len, from, count;
    const char *s = luaL_checklstring(L, 1, &len);
    luaL_checkinteger(L, 2);
    if (range(L, len, 1, -1, &from, &count))
        lua_pushlstring(L, s + from, count);
    else
        lua_pushliteral(L, "");
    return 1;
}

static int string_byte(lua_State *L)
{
    size_t len, from, count;
    const char *s = luaL_checklstring(L, 1, &len);
    lua_Integer first = luaL_optinteger(L, 2, 1);
    if (!range(L, len, 1, first, &from, &count))
        return 0;
    if (count > UNPACK_MAX)
        return luaL_error(L, "string.byte: %d bytes at once; at most %d", (int)count, UNPACK_MAX);
    luaL_checkstack(L, (int)count, NULL);
    for (size_t i = 0; i < count; i++)
        lua_pushinteger(L, (unsigned char)s[from + i]);
    return (int)count;
}

/* ASCII only: the same everywhere. */
static int change_case(lua_State *L, char first, char last)
{
    size_t len;
    const char *s = luaL_checklstring(L, 1, &len);
    char *out = lua_newuserdatauv(L, len + 1, 0);
    for (size_t i = 0; i < len; i++)
        out[i] = (char)(s[i] >= first && s[i] <= last ? s[i] ^ 0x20 : s[i]);
    lua_pushlstring(L, out, len);
    return 1;
}

static int string_lower(lua_State *L)
{
    return change_case(L, 'A', 'Z');
}

static int string_upper(lua_State *L)
{
    return change_case(L, 'a', 'z');
}

/* find(text, what [, from]): where it stands first, as it is written; there are no patterns. */
static int string_find(lua_State *L)
{
    size_t len, what_len;
    const char *s = luaL_checklstring(L, 1, &len), *what = luaL_checklstring(L, 2, &what_len);
    lua_Integer from = place(luaL_optinteger(L, 3, 1), len);
    if (from < 1)
        from = 1;
    lim__lua_charge(lim__lua_of(L), (len + what_len) * FIND_COST);
    const char *found = NULL;
    if ((lua_Unsigned)from <= len + 1)
        found = memmem(s + from - 1, len - (size_t)from + 1, what, what_len);
    if (found == NULL) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, found - s + 1);
    lua_pushinteger(L, found - s + (lua_Integer)what_len);
    return 2;
}

/* ---- table ---- */

static void check_moves(lua_State *L, const char *name, lua_Integer moves)
{
    if (moves > LUA__ITEMS_MAX)
        luaL_error(L, "table.%s: %d elements to move; at most %d", name, (int)moves, LUA__ITEMS_MAX);
    lim__lua_charge(lim__lua_of(L), (size_t)moves * CHARGE_PER_MOVE);
}

static int table_insert(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer end = (lua_Integer)lua_rawlen(L, 1) + 1, at = end;
    if (lua_gettop(L) == 3) {
        at = luaL_checkinteger(L, 2);
        luaL_argcheck(L, at >= 1 && at <= end, 2, "position out of bounds");
    } else if (lua_gettop(L) != 2) {
        return luaL_error(L, "wrong number of arguments to 'insert'");
    }
    check_moves(L, "insert", end - at);
    for (lua_Integer i = end; i > at; i--) {
        lua_rawgeti(L, 1, i - 1);
        lua_rawseti(L, 1, i);
    }
    lua_rawseti(L, 1, at);
    return 0;
}

static int table_remove(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer end = (lua_Integer)lua_rawlen(L, 1), at = luaL_optinteger(L, 2, end);
    luaL_argcheck(L, lua_isnoneornil(L, 2) || (at >= 1 && at <= end + 1) || (end == 0 && at == 0), 2,
                  "position out of bounds");
    check_moves(L, "remove", end - at);
    lua_rawgeti(L, 1, at);
    for (; at < end; at++) {
        lua_rawgeti(L, 1, at + 1);
        lua_rawseti(L, 1, at);
    }
    if (at >= 1 && at <= end) {
        lua_pushnil(L);
        lua_rawseti(L, 1, at);
    }
    return 1;
}

static int table_unpack(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer i = luaL_optinteger(L, 2, 1), j = luaL_optinteger(L, 3, (lua_Integer)lua_rawlen(L, 1));
    if (i > j)
        return 0;
    lua_Unsigned count = (lua_Unsigned)j - (lua_Unsigned)i; /* less one, so that it cannot wrap */
    if (count >= UNPACK_MAX)
        return luaL_error(L, "table.unpack: at most %d elements", UNPACK_MAX);
    luaL_checkstack(L, (int)count + 1, NULL);
    for (lua_Unsigned k = 0; k <= count; k++)
        lua_rawgeti(L, 1, (lua_Integer)((lua_Unsigned)i + k));
    return (int)count + 1;
}

typedef struct joined {
    const char *separator;
    size_t separator_len;
    lua_Integer from, to;
} joined;

/* Element i as a text on top of the stack. */
static const char *element_text(lua_State *L, lua_Integer i, size_t *len)
{
    int type = lua_rawgeti(L, 1, i);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        luaL_error(L, "table.concat: element %d is a %s", (int)i, luaL_typename(L, -1));
    return lua_tolstring(L, -1, len);
}

static size_t joined_length(lua_State *L, const joined *j)
{
    size_t total = 0, len;
    for (lua_Integer i = j->from; i <= j->to; i++) {
        element_text(L, i, &len);
        lua_pop(L, 1);
        total += len + (i < j->to ? j->separator_len : 0);
        if (total > LIM__ROUTE_TEXT_MAX)
            luaL_error(L, "table.concat: a text over %d bytes", LIM__ROUTE_TEXT_MAX);
    }
    return total;
}

static int table_concat(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    joined j = { .from = luaL_optinteger(L, 3, 1) };
    j.separator = luaL_optlstring(L, 2, "", &j.separator_len);
    j.to = luaL_optinteger(L, 4, (lua_Integer)lua_rawlen(L, 1));
    if (j.from > j.to) {
        lua_pushliteral(L, "");
        return 1;
    }
    if ((lua_Unsigned)j.to - (lua_Unsigned)j.from >= LUA__ITEMS_MAX)
        return luaL_error(L, "table.concat: at most %d elements", LUA__ITEMS_MAX);
    size_t total = joined_length(L, &j), at = 0, len;
    check_moves(L, "concat", j.to - j.from + 1);
    char *out = lua_newuserdatauv(L, total + 1, 0);
    for (lua_Integer i = j.from;; i++) {
        const char *text = element_text(L, i, &len);
        memcpy(out + at, text, len);
        at += len;
        lua_pop(L, 1);
        if (i == j.to)
            break;
        memcpy(out + at, j.separator, j.separator_len);
        at += j.separator_len;
    }
    LIM_ASSERT(at == total);
    lua_pushlstring(L, out, total);
    return 1;
}

/* ---- math ---- */

/* random() in [0, 1), random(m) in 1..m, random(m, n) in m..n, from the router's seed. */
static int math_random(lua_State *L)
{
    lim__rng *rng = &lim__lua_of(L)->router->rng;
    if (lua_gettop(L) == 0) {
        lua_pushnumber(L, (lua_Number)(lim__rng_next(rng) >> 11) * 0x1p-53);
        return 1;
    }
    lua_Integer low = 1, high = luaL_checkinteger(L, 1);
    if (lua_gettop(L) > 1) {
        low = high;
        high = luaL_checkinteger(L, 2);
    }
    luaL_argcheck(L, low <= high, lua_gettop(L), "interval is empty");
    uint64_t span = (uint64_t)high - (uint64_t)low;
    lua_pushinteger(L, (lua_Integer)((uint64_t)low + lim__rng_range(rng, 0, span)));
    return 1;
}

/* ---- putting it together ---- */

static const luaL_Reg our_base[] = {
    { "tostring", base_tostring }, { "print", base_print }, { "pairs", base_pairs },
    { "counter", base_counter },   { NULL, NULL },
};
static const luaL_Reg our_string[] = {
    { "byte", string_byte },   { "sub", string_sub },   { "len", string_len }, { "lower", string_lower },
    { "upper", string_upper }, { "find", string_find }, { NULL, NULL },
};
static const luaL_Reg our_table[] = {
    { "insert", table_insert },
    { "remove", table_remove },
    { "unpack", table_unpack },
    { "concat", table_concat },
    { NULL, NULL },
};
static const char *const their_base[] = { "assert", "error", "ipairs", "pcall", "select", "tonumber", "type", NULL };
static const char *const their_math[] = {
    "abs",  "acos", "asin", "atan", "ceil",       "cos",  "deg",        "exp",  "floor",
    "fmod", "huge", "log",  "max",  "maxinteger", "min",  "mininteger", "modf", "pi",
    "rad",  "sin",  "sqrt", "tan",  "tointeger",  "type", "ult",        NULL,
};

/* The named fields of the table on top go into the table below it; the one on top is popped. */
static void take_fields(lua_State *L, const char *const *names)
{
    for (; *names != NULL; names++) {
        int type = lua_getfield(L, -1, *names);
        LIM_ASSERT(type != LUA_TNIL);
        lua_setfield(L, -3, *names);
    }
    lua_pop(L, 1);
}

static void push_environment(lua_State *L)
{
    lua_newtable(L);
    luaopen_base(L);
    take_fields(L, their_base);
    luaL_setfuncs(L, our_base, 0);
    luaL_newlib(L, our_string);
    lua_setfield(L, -2, "string");
    luaL_newlib(L, our_table);
    lua_setfield(L, -2, "table");
    lua_newtable(L);
    luaopen_math(L);
    take_fields(L, their_math);
    lua_pushcfunction(L, math_random);
    lua_setfield(L, -2, "random");
    lua_setfield(L, -2, "math");
}

/* ("x"):upper() finds our functions and nothing else; Lua's arithmetic on texts is gone with its metatable. */
static void set_string_methods(lua_State *L, int environment)
{
    lua_pushliteral(L, "");
    lua_newtable(L);
    lua_getfield(L, environment, "string");
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}

int lim__lua_setup(lua_State *L)
{
    lim__lua *m = lua_touserdata(L, 1);
    lua_settop(L, 0);
    luaL_checkstack(L, 2 * (int)m->router->limits.unfinished_max + LUA_MINSTACK, NULL);
    lua_newtable(L); /* ARRAY */
    lua_newtable(L); /* VIEWS */
    lim__lua_message_meta(L);
    push_environment(L);
    set_string_methods(L, lua_gettop(L));
    for (int i = 0; i < NUM__COUNT; i++)
        lua_pushstring(L, lim__lua_number_names[i]);
    lua_newtable(L); /* Lua's global table, emptied of what was not taken */
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    for (uint32_t i = 0; i < m->router->limits.unfinished_max; i++) {
        lua_pushnil(L);
        lim__lua_message_push(L, &m->calls[i]);
    }
    lua_gc(L, LUA_GCCOLLECT);
    return lua_gettop(L);
}
