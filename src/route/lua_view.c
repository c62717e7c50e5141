/* SPDX-License-Identifier: Apache-2.0
 * lua_view.c - candidates as a script sees them: tables that stay, updated in place.
 *
 *      lim__candidate (the group's) --stamp changed--> table { id, in_flight, ... } in VIEWS[slot + 1]
 *      array of this call           --other members--> ARRAY { table, table, ... }
 *
 * Whoever is chosen is known by the identity of the table, never by what stands in it. A script that writes into these
 * tables spoils its own view, until the bus writes that field again; one that changes the length of the array gets a
 * fresh one with the next call.
 *
 * Everything here that may allocate in the Lua state runs inside one protected call (sync), because an error outside
 * of one would end the program; what it takes is the bus's, and raises the script's limit by as much. The usual case, a
 * number that changed in a table that still has it, needs none (refresh): to replace a value takes no memory.
 *
 * Invariants:
 *   V1  views[s].table is the table in VIEWS[s + 1] while views[s].id is not 0.
 *   V2  list describes what the bus wrote into ARRAY last, and array_len how many that were.
 *   V3  a list with more than one reference is read by a call that was put aside, an ARRAY with array_shared set may
 * be: they are replaced, not changed. */
#include "route/lua.h"

#include <stdlib.h>

enum {
    TABLE_SHARE = 64,    /* what a candidate takes of VIEWS and ARRAY, with the room they keep */
    ROOM_FOR_FIELDS = 32 /* four times as many as there are */
};

/* ---- lists ---- */

lim__lua_list *lim__lua_list_ref(lim__lua_list *list)
{
    list->refs++;
    return list;
}

void lim__lua_list_unref(lim__lua_list *list)
{
    if (list == NULL || --list->refs > 0)
        return;
    free(list->names);
    free(list);
}

lim__lua_list *lim__lua_list_new(uint32_t capacity)
{
    lim__lua_list *list = malloc(sizeof *list + capacity * sizeof list->items[0]);
    if (list != NULL)
        *list = (lim__lua_list){ .refs = 1, .capacity = capacity };
    return list;
}

static bool reserve_names(lim__lua_list *list, size_t n)
{
    if (n > UINT32_MAX)
        return false;
    if (n <= list->names_capacity)
        return true;
    char *names = realloc(list->names, n);
    if (names == NULL)
        return false;
    list->names = names;
    list->names_capacity = (uint32_t)n;
    return true;
}

/* A list of our own with room for these; *fresh: the ARRAY must not be changed either (V3). */
static bool own_list(lim__lua *m, const lim__candidate *const *candidates, uint32_t n, bool *fresh)
{
    size_t names = 0;
    for (uint32_t i = 0; i < n; i++)
        names += candidates[i]->name.len;
    *fresh = m->array_shared;
    if (m->list->refs > 1 || n > m->list->capacity) {
        lim__lua_list *list = lim__lua_list_new(n + n / 2 + 8);
        if (list == NULL)
            return false;
        lim__lua_list_unref(m->list);
        m->list = list;
    }
    m->list->count = 0; /* nobody's, until it is filled */
    return reserve_names(m->list, names);
}

static void fill_list(lim__lua *m, const lim__candidate *const *candidates, uint32_t n)
{
    lim__lua_list *list = m->list;
    list->names_len = 0;
    for (uint32_t i = 0; i < n; i++) {
        const lim__lua_view *v = &m->views[candidates[i]->slot];
        list->items[i] = (struct lim__lua_listed){
            .id = v->id,
            .stamp = v->stamp,
            .table = v->table,
            .name = list->names_len,
            .name_len = (uint32_t)v->name_len,
        };
        if (v->name_len > 0)
            memcpy(list->names + list->names_len, v->name, v->name_len);
        list->names_len += (uint32_t)v->name_len;
    }
    list->count = n;
}

/* ---- one candidate's table ---- */

const char *const lim__lua_number_names[NUM__COUNT] = { "in_flight", "max_in_flight", "available", "buffer_depth",
                                                        "latency_us" };

static void read_numbers(const lim__candidate *c, uint32_t numbers[static NUM__COUNT])
{
    numbers[NUM__IN_FLIGHT] = c->in_flight;
    numbers[NUM__MAX_IN_FLIGHT] = c->max_in_flight;
    numbers[NUM__AVAILABLE] = c->in_flight < c->max_in_flight ? c->max_in_flight - c->in_flight : 0;
    numbers[NUM__BUFFER_DEPTH] = c->buffer_depth;
    numbers[NUM__LATENCY_US] = c->latency_us;
}

static void set_number(lua_State *L, int number, uint32_t value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, lim__lua_number_names[number]);
}

static void set_names(lua_State *L, const char *field, const lim_bytes *names, uint32_t count)
{
    lua_createtable(L, 0, (int)count);
    for (uint32_t i = 0; i < count; i++) {
        lua_pushlstring(L, names[i].len ? names[i].ptr : "", names[i].len);
        lua_pushboolean(L, true);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, field);
}

/* Table on top of L. */
static void update_numbers(lua_State *L, lim__lua_view *v, const lim__candidate *c)
{
    uint32_t numbers[NUM__COUNT];
    read_numbers(c, numbers);
    for (int i = 0; i < NUM__COUNT; i++) {
        if (v->numbers[i] != numbers[i])
            set_number(L, i, numbers[i]);
        v->numbers[i] = numbers[i];
    }
    v->stamp = c->stamp;
}

/* Leaves the new table on top of L. Numbers first and room to spare: what functions compare is found at the first look.
 */
static void create_table(lua_State *L, const lim__candidate *c, const uint32_t numbers[static NUM__COUNT])
{
    lua_createtable(L, 0, ROOM_FOR_FIELDS);
    for (int i = 0; i < NUM__COUNT; i++)
        set_number(L, i, numbers[i]);
    lua_pushlstring(L, c->name.len ? c->name.ptr : "", c->name.len);
    lua_setfield(L, -2, "id");
    lua_pushlstring(L, c->node.len ? c->node.ptr : "", c->node.len);
    lua_setfield(L, -2, "node");
    set_names(L, "tags", c->tags, c->tag_count);
    set_names(L, "types", c->types, c->type_count);
}

static void forget_view(lim__lua *m, lim__lua_view *v)
{
    free(v->name);
    m->limit -= v->bytes;
    *v = (lim__lua_view){ 0 };
}

static void create_view(lua_State *L, lim__lua *m, lim__lua_view *v, const lim__candidate *c)
{
    forget_view(m, v);
    char *name = malloc(c->name.len + 1);
    if (name == NULL)
        luaL_error(L, "no memory");
    if (c->name.len > 0)
        memcpy(name, c->name.ptr, c->name.len);
    v->name = name; /* from here on forget_view frees it, also after an error */
    v->name_len = c->name.len;
    size_t before = m->used;
    lua_gc(L, LUA_GCSTOP);
    read_numbers(c, v->numbers);
    create_table(L, c, v->numbers);
    lua_gc(L, LUA_GCRESTART);
    v->bytes = m->used - before;
    m->limit += v->bytes;
    v->table = lua_topointer(L, -1);
}

/* ---- sync ---- */

typedef struct sync {
    lim__lua *m;
    lim__lua_call *call;
    const lim__candidate *const *candidates;
    uint32_t n;
    bool new_members, fresh_array;
} sync;

enum { ARG_SYNC = 1, ARG_ARRAY, ARG_VIEWS };

static void sync_view(lua_State *L, lim__lua *m, const lim__candidate *c)
{
    lim__lua_view *v = &m->views[c->slot];
    if (v->id == c->id && v->stamp == c->stamp)
        return;
    if (v->id == c->id) {
        lua_rawgeti(L, ARG_VIEWS, (lua_Integer)c->slot + 1);
        update_numbers(L, v, c);
    } else {
        create_view(L, m, v, c);
        lua_pushvalue(L, -1);
        lua_rawseti(L, ARG_VIEWS, (lua_Integer)c->slot + 1);
        v->id = c->id; /* V1: last, when nothing can fail any more */
        v->stamp = c->stamp;
    }
    lua_pop(L, 1);
}

static void sync_array(lua_State *L, const sync *s)
{
    if (s->fresh_array) {
        lua_createtable(L, (int)s->n, 0);
        lua_replace(L, ARG_ARRAY);
    }
    lua_Unsigned old = lua_rawlen(L, ARG_ARRAY);
    for (uint32_t i = 0; i < s->n; i++) {
        lua_rawgeti(L, ARG_VIEWS, (lua_Integer)s->candidates[i]->slot + 1);
        lua_rawseti(L, ARG_ARRAY, (lua_Integer)i + 1);
    }
    if (s->m->array_len > old)
        old = s->m->array_len;
    for (lua_Unsigned i = s->n; i < old; i++) {
        lua_pushnil(L);
        lua_rawseti(L, ARG_ARRAY, (lua_Integer)i + 1);
    }
}

/* Protected: (sync, ARRAY, VIEWS) -> ARRAY, coroutine or nil. */
static int sync_body(lua_State *L)
{
    sync *s = lua_touserdata(L, ARG_SYNC);
    for (uint32_t i = 0; i < s->n; i++)
        sync_view(L, s->m, s->candidates[i]);
    if (s->new_members)
        sync_array(L, s);
    lua_pushvalue(L, ARG_ARRAY);
    if (s->call->co != NULL) {
        lua_pushnil(L);
        return 2;
    }
    lua_newthread(L);
    return 2;
}

static bool reserve_views(lim__lua *m, const lim__candidate *const *candidates, uint32_t n)
{
    uint32_t need = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (candidates[i]->slot >= need)
            need = candidates[i]->slot + 1;
    }
    if (need <= m->view_count)
        return true;
    need += need / 2;
    lim__lua_view *views = realloc(m->views, need * sizeof *views);
    if (views == NULL)
        return false;
    memset(views + m->view_count, 0, (need - m->view_count) * sizeof *views);
    m->limit += (size_t)(need - m->view_count) * TABLE_SHARE;
    m->views = views;
    m->view_count = need;
    return true;
}

/* What sync_body answered goes to its places: nothing here can fail. */
static void adopt(lim__lua *m, lim__lua_call *c, const sync *s)
{
    lua_State *L = m->L;
    if (!lua_isnil(L, -1)) {
        c->co = lua_tothread(L, -1);
        c->step = LUA__STEP; /* inherited from the main state */
        c->array_gen = 0;
        lua_replace(L, lim__lua_co_at(c));
        lua_pushvalue(L, LUA__FN);
        lua_pushvalue(L, lim__lua_msg_at(c));
        lua_pushnil(L);
        lua_xmove(L, c->co, 3);
    } else {
        lua_pop(L, 1);
    }
    lua_replace(L, LUA__ARRAY);
    if (s->fresh_array) {
        m->array_gen++;
        m->array_shared = false;
    }
    if (s->new_members) {
        fill_list(m, s->candidates, s->n);
        m->array_len = s->n;
    }
}

/* The coroutine's array is the current one. */
static void hand_array(lim__lua *m, lim__lua_call *c)
{
    if (c->array_gen == m->array_gen)
        return;
    lua_pushvalue(m->L, LUA__ARRAY);
    lua_xmove(m->L, c->co, 1);
    lua_replace(c->co, CO__ARRAY);
    c->array_gen = m->array_gen;
}

static bool same_members(const lim__lua *m, const lim__candidate *const *candidates, uint32_t n)
{
    const lim__lua_list *list = m->list;
    if (list->count != n || lua_rawlen(m->L, LUA__ARRAY) != n)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (list->items[i].id != candidates[i]->id)
            return false;
    }
    return true;
}

/* Replaces a number in the table on top of the main stack. False: the script has removed it, so it takes memory. */
static bool replace_number(lua_State *L, int number, uint32_t value)
{
    lua_pushvalue(L, LUA__NAMES + number);
    bool there = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 1);
    if (!there)
        return false;
    lua_pushvalue(L, LUA__NAMES + number);
    lua_pushinteger(L, value);
    lua_rawset(L, -3);
    return true;
}

static bool refresh_view(lim__lua *m, lim__lua_view *v, const lim__candidate *c)
{
    lua_State *L = m->L;
    uint32_t numbers[NUM__COUNT];
    bool good = true;
    read_numbers(c, numbers);
    lua_rawgeti(L, LUA__VIEWS, (lua_Integer)c->slot + 1);
    for (int i = 0; i < NUM__COUNT && good; i++) {
        if (v->numbers[i] == numbers[i])
            continue;
        good = replace_number(L, i, numbers[i]);
        if (good)
            v->numbers[i] = numbers[i];
    }
    lua_pop(L, 1);
    if (good)
        v->stamp = c->stamp;
    return good;
}

bool lim__lua_refresh(lim__lua *m, const lim__lua_call *c, const lim__candidate *const *candidates, uint32_t n)
{
    lim__lua_list *list = m->list;
    if (c->array_gen != m->array_gen || list->count != n)
        return false;
    if (m->unhooked_max == 0 && lua_rawlen(m->L, LUA__ARRAY) != n) /* what is bounded writes to no table */
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const lim__candidate *cand = candidates[i];
        struct lim__lua_listed *listed = &list->items[i];
        if (LIM_LIKELY(listed->id == cand->id && listed->stamp == cand->stamp))
            continue;
        if (listed->id != cand->id)
            return false;
        LIM_ASSERT(cand->slot < m->view_count); /* it is in the list */
        lim__lua_view *v = &m->views[cand->slot];
        if (v->stamp != cand->stamp && !LIM__MUTATION("stale_view") && !refresh_view(m, v, cand))
            return false;
        listed->stamp = cand->stamp;
    }
    return true;
}

bool lim__lua_sync(lim__lua *m, lim__lua_call *c, const lim__candidate *const *candidates, uint32_t n)
{
    sync s = { .m = m, .call = c, .candidates = candidates, .n = n };
    s.new_members = !same_members(m, candidates, n);
    if (!reserve_views(m, candidates, n) || (s.new_members && !own_list(m, candidates, n, &s.fresh_array)))
        return false;
    lua_State *L = m->L;
    lua_pushcfunction(L, sync_body);
    lua_pushlightuserdata(L, &s);
    lua_pushvalue(L, LUA__ARRAY);
    lua_pushvalue(L, LUA__VIEWS);
    m->bus_allocates = true;
    int status = lua_pcall(L, 3, 2, 0);
    m->bus_allocates = false;
    lua_gc(L, LUA_GCRESTART);
    if (status != LUA_OK) {
        lua_pop(L, 1);
        return false;
    }
    adopt(m, c, &s);
    hand_array(m, c);
    return true;
}

void lim__lua_views_free(lim__lua *m)
{
    for (uint32_t i = 0; i < m->view_count; i++)
        free(m->views[i].name);
    free(m->views);
    lim__lua_list_unref(m->list);
}
