/* SPDX-License-Identifier: Apache-2.0
 * lua_message.c - msg: the payload's fields, looked up when a script asks for them.
 *
 *      msg.amount          a member of the payload         msg("$size")       bytes of the payload
 *      msg.order.lines[1]  members of members, from 1      msg("$header.x")   a header
 *      #msg.order.lines    how many                        msg("order.amount") a path in one go
 *
 * A message is a proxy: a userdata that knows its call and a place in the document. The payload is read when it is
 * first asked for, at most once per call: a short one by lua_fields.c, which is enough for members that are no array or
 * object; for all else it is parsed. What is not JSON has no fields. Null, absent and any field of a proxy that is used
 * outside of its call (kept in a variable, say) read as nil. Whole numbers above 2^63 - 1 become floats.
 *
 * The metatable has no way to a script: nothing it can name reads metatables. So a proxy is the only userdata there
 * is, and the functions below need not ask what argument 1 is. */
#include "route/lua.h"

enum { CHARGE_PER_ITEM = 32, HEADER_PREFIX = 8 };

static const char meta_key; /* its address names the metatable in the registry */

typedef struct proxy {
    lim__lua_call *call;
    uint64_t serial; /* of its message; a root is for every message of its call, and notes whose it walked in */
    bool root;
    lim__val val;
    lim__iter at; /* arrays: where the last look was, so that walking one is linear */
    bool walking;
} proxy;

/* ---- reading ---- */

static lim__val read_payload(lim__lua_call *c)
{
    if (c->read == DOC__UNREAD) {
        lim__lua_charge(c->lua, c->payload.len * 2);
        if (c->doc == NULL)
            c->doc = lim__doc_new();
        bool good = c->doc != NULL && lim__doc_parse(c->doc, c->payload, NULL) == LIM_OK;
        c->read = good ? DOC__GOOD : DOC__BAD;
    }
    return c->read == DOC__GOOD ? lim__doc_root(c->doc) : (lim__val){ .kind = LIM__ABSENT };
}

/* The value behind a proxy, absent if its call is not the one that runs. */
static lim__val value_of(proxy *p)
{
    lim__lua_call *c = p->call;
    if (LIM_UNLIKELY(c->lua->running != c))
        return (lim__val){ .kind = LIM__ABSENT };
    if (p->root)
        return c->read == DOC__GOOD ? lim__doc_root(c->doc) : read_payload(c);
    return p->serial == c->serial || LIM__MUTATION("stale_message") ? p->val : (lim__val){ .kind = LIM__ABSENT };
}

static void push_proxy(lua_State *L, lim__lua_call *c, lim__val val, bool root)
{
    proxy *p = lua_newuserdatauv(L, sizeof *p, 0);
    *p = (proxy){ .call = c, .serial = c->serial, .root = root, .val = val };
    lua_rawgetp(L, LUA_REGISTRYINDEX, &meta_key);
    lua_setmetatable(L, -2);
}

static void push_text(lua_State *L, lim_bytes text)
{
    if (text.len > LIM__ROUTE_TEXT_MAX)
        luaL_error(L, "a text of %d bytes in the message is over the %d that a function may see", (int)text.len,
                   LIM__ROUTE_TEXT_MAX);
    lua_pushlstring(L, text.len ? text.ptr : "", text.len);
}

static int push_value(lua_State *L, lim__lua_call *c, lim__val v)
{
    switch (v.kind) {
    case LIM__ABSENT:
    case LIM__NULL:
        lua_pushnil(L);
        break;
    case LIM__BOOL:
        lua_pushboolean(L, v.truth);
        break;
    case LIM__INT:
        lua_pushinteger(L, v.i);
        break;
    case LIM__UINT:
        lua_pushnumber(L, (lua_Number)v.u);
        break;
    case LIM__DOUBLE:
        lua_pushnumber(L, v.d);
        break;
    case LIM__TEXT:
        push_text(L, v.text);
        break;
    case LIM__ARRAY:
    case LIM__OBJECT:
        push_proxy(L, c, v, false);
    }
    return 1;
}

/* ---- indexing ---- */

/* Element from 0. Looking at one after the other goes on from the last. */
static lim__val element(lua_State *L, proxy *p, lim__val array, lua_Integer index)
{
    if (index < 0 || (lua_Unsigned)index >= lim__val_count(array))
        return (lim__val){ .kind = LIM__ABSENT };
    size_t from = 0;
    if (!p->walking || p->serial != p->call->serial || p->at.index >= (size_t)index)
        p->at = lim__iter_begin(array);
    else
        from = p->at.index;
    p->serial = p->call->serial; /* a root walks in one message after the other */
    lim__lua_charge(lim__lua_of(L), ((size_t)index - from) * CHARGE_PER_ITEM);
    p->walking = true;
    while (lim__iter_next(&p->at)) {
        if (p->at.index == (size_t)index)
            return p->at.val;
    }
    p->walking = false;
    return (lim__val){ .kind = LIM__ABSENT };
}

/* Walks the object's members, which are no longer than the payload. */
static lim__val member(lua_State *L, const lim__lua_call *c, lim__val object, int key_at)
{
    lim_bytes key;
    key.ptr = lua_tolstring(L, key_at, &key.len);
    lim__lua_charge(c->lua, c->payload.len);
    return lim__val_get_bytes(object, key);
}

static void push_field(lua_State *L, lim_bytes payload, const struct lim__lua_field *f)
{
    if (f->kind == LIM__INT)
        lua_pushinteger(L, f->i);
    else if (f->kind == LIM__TEXT)
        lua_pushlstring(L, (const char *)payload.ptr + f->at, f->len);
    else if (f->kind == LIM__DOUBLE)
        lua_pushnumber(L, lim__lua_field_double(f));
    else if (f->kind == LIM__BOOL)
        lua_pushboolean(L, f->truth);
    else
        lua_pushnil(L);
}

/* A member of a root without a document. False: there has to be one. */
static bool push_plain(lua_State *L, const proxy *p, int key_at)
{
    lim__lua_call *c = p->call;
    lim_bytes key;
    if (!p->root || c->read_fields == DOC__BAD || c->lua->running != c)
        return false;
    if (c->read_fields == DOC__UNREAD) {
        lim__lua_charge(c->lua, c->payload.len);
        c->read_fields = lim__lua_fields_read(&c->fields, c->payload) ? DOC__GOOD : DOC__BAD;
        if (c->read_fields == DOC__BAD)
            return false;
    }
    key.ptr = lua_tolstring(L, key_at, &key.len);
    const struct lim__lua_field *f = lim__lua_fields_get(&c->fields, c->payload, key);
    if (f != NULL && f->kind >= LIM__ARRAY)
        return false;
    if (f != NULL)
        push_field(L, c->payload, f);
    else
        lua_pushnil(L);
    return true;
}

static int message_index(lua_State *L)
{
    proxy *p = lua_touserdata(L, 1);
    if (lua_type(L, 2) == LUA_TSTRING && push_plain(L, p, 2))
        return 1;
    lim__val v = value_of(p);
    if (v.kind == LIM__OBJECT && lua_type(L, 2) == LUA_TSTRING)
        return push_value(L, p->call, member(L, p->call, v, 2));
    if (v.kind == LIM__ARRAY && lua_isinteger(L, 2))
        return push_value(L, p->call, element(L, p, v, lua_tointeger(L, 2) - 1));
    lua_pushnil(L);
    return 1;
}

static int message_len(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)lim__val_count(value_of(lua_touserdata(L, 1))));
    return 1;
}

static int message_newindex(lua_State *L)
{
    return luaL_error(L, "a message cannot be changed");
}

/* ---- msg("$size"), msg("$header.x"), msg("a.b") ---- */

static int special(lua_State *L, const lim__lua_call *c, lim_bytes name)
{
    const char *p = name.ptr;
    lim_bytes text;
    if (lim__bytes_eq(name, lim__str("$size")))
        lua_pushinteger(L, (lua_Integer)c->payload.len);
    else if (name.len > HEADER_PREFIX && memcmp(p, "$header.", HEADER_PREFIX) == 0 &&
             lim__packed_get(c->headers, (lim_bytes){ p + HEADER_PREFIX, name.len - HEADER_PREFIX }, &text))
        push_text(L, text);
    else
        lua_pushnil(L);
    return 1;
}

static int message_call(lua_State *L)
{
    proxy *p = lua_touserdata(L, 1);
    lim_bytes name;
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "msg(name): name must be a text");
    name.ptr = lua_tolstring(L, 2, &name.len);
    lim__lua *m = lim__lua_of(L);
    lim__lua_charge(m, p->call->headers.len + 256);
    if (name.len > 0 && *(const char *)name.ptr == '$' && m->running == p->call)
        return special(L, p->call, name);
    if (name.len > 0 && memchr(name.ptr, '.', name.len) == NULL && memchr(name.ptr, '[', name.len) == NULL &&
        push_plain(L, p, 2))
        return 1;
    lim__val v = value_of(p);
    lim__lua_charge(m, (name.len + lim__val_count(v)) * CHARGE_PER_ITEM);
    return push_value(L, p->call, lim__val_path_bytes(v, name));
}

/* ---- pairs ---- */

enum { UP_PROXY = 1, UP_MEMBERS, UP_COUNT, UP_NEXT };

static int object_step(lua_State *L)
{
    proxy *p = lua_touserdata(L, lua_upvalueindex(UP_PROXY));
    const lim__member *members = lua_touserdata(L, lua_upvalueindex(UP_MEMBERS));
    lua_Integer at = lua_tointeger(L, lua_upvalueindex(UP_NEXT));
    if (at >= lua_tointeger(L, lua_upvalueindex(UP_COUNT)) || value_of(p).kind != LIM__OBJECT) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, at + 1);
    lua_replace(L, lua_upvalueindex(UP_NEXT));
    push_text(L, members[at].key);
    push_value(L, p->call, members[at].val);
    return 2;
}

/* (array, i) -> i + 1, element */
static int array_step(lua_State *L)
{
    proxy *p = lua_touserdata(L, lua_upvalueindex(UP_PROXY));
    lua_Integer next = lua_tointeger(L, 2) + 1;
    lim__val v = value_of(p);
    if (next < 1 || v.kind != LIM__ARRAY || (lua_Unsigned)next > lim__val_count(v)) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, next);
    push_value(L, p->call, element(L, p, v, next - 1)); /* a null is nil, and does not end the loop */
    return 2;
}

static void push_object_step(lua_State *L, lim__val object)
{
    size_t count = lim__val_count(object);
    if (count > LUA__SORT_MAX)
        luaL_error(L, "pairs: %d members; at most %d can be put in order", (int)count, LUA__SORT_MAX);
    lua_pushvalue(L, 1);
    lim__member *members = lua_newuserdatauv(L, (count + 1) * sizeof *members, 0);
    lim__lua_charge(lim__lua_of(L), count * CHARGE_PER_ITEM * 8);
    size_t kept = lim__val_members_sorted(object, members, count);
    lua_pushinteger(L, (lua_Integer)kept);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, object_step, UP_NEXT);
}

int lim__lua_message_pairs(lua_State *L)
{
    proxy *p = lua_touserdata(L, 1);
    lim__val v = value_of(p);
    if (p->root) { /* the loop belongs to this message: a root would go on with the next one's */
        push_proxy(L, p->call, v, false);
        lua_replace(L, 1);
    }
    if (v.kind == LIM__OBJECT) {
        push_object_step(L, v);
    } else {
        lua_pushvalue(L, 1);
        lua_pushcclosure(L, array_step, UP_PROXY);
    }
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    return 3;
}

/* ---- making ---- */

void lim__lua_message_meta(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "__index", message_index },
        { "__newindex", message_newindex },
        { "__len", message_len },
        { "__call", message_call },
        { NULL, NULL },
    };
    luaL_newlib(L, functions);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &meta_key);
}

void lim__lua_message_push(lua_State *L, lim__lua_call *c)
{
    push_proxy(L, c, (lim__val){ .kind = LIM__ABSENT }, true);
}
