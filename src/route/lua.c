/* SPDX-License-Identifier: Apache-2.0
 * lua.c - routing functions in Lua: a state per version and scheduler, a coroutine per call.
 *
 *      call --refresh----> resume coroutine --ended--> what it returned --> DECIDED, NONE or nonsense (CRASHED)
 *               |               |  `--error--> CRASHED, the coroutine is dropped
 *            members: sync      `--yielded (the hook's doing)--> over a limit? TIMED_OUT or CRASHED, dropped
 *        (the only protected                                     else aside, PENDING; lim__router_resume goes on
 *         call on the way)
 *
 * A coroutine that returned is used for the next call; one that raised an error, or shall not go on, is dropped: its
 * place is overwritten and the collector takes it, a step with each of the next calls. It is never closed or reset,
 * which could run what a script left.
 *
 * The way of a short call: compare what the tables show with what the candidates are (one number each), replace what
 * changed, push function, msg and array, resume, look at one value. No allocation, no clock, nothing parsed unless the
 * script asks.
 *
 * Invariants (lua_check):
 *   L1  aside holds the calls in phase ASIDE, in the order of their last slice, and aside_count counts them.
 *   L2  running is NULL outside of lua_resume.
 *   L3  the router holds one reference to itself per call aside.
 *   L4  used counts every byte of the state; when it is closed, none is left. */
#include "route/lua.h"

#include <stdlib.h>

enum {
    SAMPLE_EVERY = 16,
    GC_STEP_LOG2 =
        11 /* bytes allocated between two steps of the collector: a quarter of Lua's, so that each is short */
};

static void lua_check(const lim__lua *m)
{
    uint32_t n = 0;
    LIM__LIST_EACH(node, &m->aside) {
        LIM_CHECK(LIM_CONTAINER(node, lim__lua_call, link)->phase == LUA__ASIDE); /* L1 */
        n++;
    }
    LIM_CHECK(n == m->aside_count);
    LIM_CHECK(m->running == NULL);                                                                       /* L2 */
    LIM_CHECK(m->router->refs >= n);                                                                     /* L3 */
    LIM_CHECK((size_t)lua_gc(m->L, LUA_GCCOUNT) * 1024 + (size_t)lua_gc(m->L, LUA_GCCOUNTB) == m->used); /* L4 */
    (void)n;
}

/* ---- what a call was answered ---- */

static lim__route_how decide(lim__lua_call *c, uint32_t index, lim__route_result *out)
{
    *out = (lim__route_result){ .how = LIM__ROUTE_DECIDED,
                                .index = index,
                                .id = c->list->items[index].id,
                                .text = "",
                                .hash = c->lua->router->artifact->hash };
    return LIM__ROUTE_DECIDED;
}

static bool is_item(const lim__lua_list *list, uint32_t i, const void *table, const char *name, size_t len)
{
    if (table != NULL)
        return list->items[i].table == table;
    return list->items[i].name_len == len && (len == 0 || memcmp(list->names + list->items[i].name, name, len) == 0);
}

/* The candidate that the value on top is, or names; looked for from *from on, and all around. False: none, and what was
 * looked at is in *steps. */
static bool find_candidate(lim__lua_call *c, uint32_t *from, uint32_t *steps)
{
    size_t len = 0;
    const void *table = lua_istable(c->co, -1) ? lua_topointer(c->co, -1) : NULL;
    const char *name = lua_type(c->co, -1) == LUA_TSTRING ? lua_tolstring(c->co, -1, &len) : NULL;
    const lim__lua_list *list = c->list;
    if (table == NULL && name == NULL)
        return false;
    for (uint32_t n = 0, i = *from; n < list->count; n++, i = i + 1 < list->count ? i + 1 : 0) {
        ++*steps;
        if (!is_item(list, i, table, name, len))
            continue;
        *from = i;
        return true;
    }
    return false;
}

static lim__route_how end_set(lim__lua_call *c, lim__route_result *out)
{
    if (lim__router_set_end(c->lua->router, c->list->count, out) == LIM__ROUTE_DECIDED)
        out->id = c->list->items[out->index].id;
    return out->how;
}

static lim__route_how no_room(lim__lua_call *c, lim__route_result *out)
{
    lim__router *r = c->lua->router;
    (void)lim__lua_nonsense(c, out);
    snprintf(r->text, sizeof r->text, "%s: there was no memory to read what it returned", r->name);
    return out->how;
}

static lim__route_how everybody(lim__lua_call *c, lim__route_result *out)
{
    if (!lim__router_set_begin(c->lua->router, c->list->count))
        return no_room(c, out);
    for (uint32_t i = 0; i < c->list->count; i++)
        lim__router_set_mark(c->lua->router, i);
    return end_set(c, out);
}

/* A list of candidates and names, on top. It may take as many steps as a library function may: in the order of the
 * candidates that is one for each. */
static lim__route_how decide_by_list(lim__lua_call *c, lim__route_result *out)
{
    enum { STEPS_MAX = 1 << 20 };
    uint32_t from = 0, steps = 0;
    size_t count = lua_rawlen(c->co, -1);
    if (!lua_checkstack(c->co, 2) || !lim__router_set_begin(c->lua->router, c->list->count))
        return no_room(c, out);
    for (size_t i = 1; i <= count; i++) {
        lua_rawgeti(c->co, -1, (lua_Integer)i);
        bool found = steps < STEPS_MAX && find_candidate(c, &from, &steps);
        lua_pop(c->co, 1);
        if (!found)
            return lim__lua_nonsense(c, out);
        lim__router_set_mark(c->lua->router, from);
    }
    return end_set(c, out);
}

static lim__route_how decide_by_value(lim__lua_call *c, lim__route_result *out)
{
    uint32_t at = 0, steps = 0;
    if (find_candidate(c, &at, &steps))
        return decide(c, at, out);
    if (LIM__MUTATION("stranger_chosen"))
        return decide(c, 0, out);
    return c->lua->router->sets && lua_istable(c->co, -1) ? decide_by_list(c, out) : lim__lua_nonsense(c, out);
}

/* The call ended well; what it returned stands above its three arguments. */
static lim__route_how answer(lim__lua_call *c, int top, lim__route_result *out)
{
    if (top != CO__ARRAY + 1) /* nothing, or more than the one that counts */
        lua_settop(c->co, CO__ARRAY + 1);
    switch (lua_type(c->co, -1)) {
    case LUA_TTABLE:
    case LUA_TSTRING:
        return decide_by_value(c, out);
    case LUA_TBOOLEAN:
        return c->lua->router->sets && lua_toboolean(c->co, -1) ? everybody(c, out) : lim__lua_nonsense(c, out);
    case LUA_TNIL:
        *out = (lim__route_result){ .how = LIM__ROUTE_NONE, .text = "", .hash = c->lua->router->artifact->hash };
        return LIM__ROUTE_NONE;
    default:
        return lim__lua_nonsense(c, out);
    }
}

/* ---- ends ---- */

/* The collector takes the coroutine; nothing of it is run. */
static void drop(lim__lua_call *c)
{
    lua_pushnil(c->lua->L);
    lua_replace(c->lua->L, lim__lua_co_at(c));
    c->co = NULL;
    if (!LIM__MUTATION("dropped_and_kept"))
        c->lua->cycles_due = 2; /* the one under way may have marked it */
}

/* One step of the collector, which runs nothing of a script's: there are no finalisers. */
static void collect(lim__lua *m)
{
    if (lua_gc(m->L, LUA_GCSTEP, 0))
        m->cycles_due--;
}

/* The call is over: its message is no longer there for anybody. */
static void end(lim__lua_call *c)
{
    c->serial++;
    c->read = c->read_fields = DOC__UNREAD;
    c->payload.len = c->headers.len = 0;
    c->phase = LUA__IDLE;
    c->list = NULL;
}

/* What a call aside held beyond one that ends at once. */
static void release_aside(lim__lua_call *c)
{
    lim__lua_list_unref(c->list);
    lim__msg_unref(c->keep);
    free(c->copy);
    c->keep = NULL;
    c->copy = NULL;
}

/* One slice. PENDING: it yielded and may go on. */
static lim__route_how run(lim__lua_call *c, int arguments, lim__route_result *out)
{
    lim__lua *m = c->lua;
    int results;
    lim__lua_slice_begin(c);
    if (arguments == 0) /* it goes on */
        lim__lua_slice_look(c);
    int status = lua_resume(c->co, m->L, arguments, &results);
    lim__lua_slice_end(c, status == LUA_YIELD);
    if (LIM_LIKELY(status == LUA_OK)) {
        lim__route_how how = answer(c, results, out); /* the stack is all its own */
        lua_settop(c->co, CO__ARRAY);
        return how;
    }
    lim__route_how how;
    if (status == LUA_YIELD && c->refusals > LUA__REFUSALS_MAX)
        how = lim__lua_crashed(c, LUA_ERRMEM, out);
    else if (status != LUA_YIELD)
        how = lim__lua_crashed(c, status, out);
    else if (c->cpu_ns < m->router->limits.cpu_ns)
        return LIM__ROUTE_PENDING;
    else
        how = lim__lua_timed_out(m, c->cpu_ns, false, out);
    drop(c);
    return how;
}

/* ---- putting aside ---- */

static bool keep_message(lim__lua_call *c, lim__msg *keep)
{
    if (keep != NULL) {
        c->keep = lim__msg_ref(keep);
        return true;
    }
    uint8_t *copy = malloc(c->payload.len + c->headers.len + 1);
    if (copy == NULL)
        return false;
    if (c->payload.len > 0)
        memcpy(copy, c->payload.ptr, c->payload.len);
    if (c->headers.len > 0)
        memcpy(copy + c->payload.len, c->headers.ptr, c->headers.len);
    c->payload.ptr = copy;
    c->headers.ptr = copy + c->payload.len;
    c->copy = copy;
    return true;
}

static lim__route_how put_aside(lim__lua_call *c, lim__msg *keep, void *call_ctx, lim__route_result *out)
{
    lim__lua *m = c->lua;
    if (!keep_message(c, keep)) {
        drop(c);
        end(c);
        return lim__lua_not_started(m, true, out);
    }
    uint64_t now = m->router->os->now_ns(m->router->os);
    c->aside_ns = now > c->cpu_ns ? now - c->cpu_ns : 0;
    c->call_ctx = call_ctx;
    c->list = lim__lua_list_ref(m->list);
    m->array_shared = true;
    c->phase = LUA__ASIDE;
    lim__list_push(&m->aside, &c->link);
    m->aside_count++;
    lim__router_ref(m->router);
    return LIM__ROUTE_PENDING;
}

/* ---- calls ---- */

static lim__lua_call *idle_call(lim__lua *m)
{
    for (uint32_t i = 0; i < m->router->limits.unfinished_max; i++) {
        if (m->calls[i].phase == LUA__IDLE)
            return &m->calls[i];
    }
    return NULL;
}

/* One call in so many reads the clock twice for the histogram; the others cost nothing for it. */
static lim__route_how run_timed(lim__lua_call *c, int arguments, lim__route_result *out)
{
    lim__router *r = c->lua->router;
    if (LIM_LIKELY(r->stats.calls % SAMPLE_EVERY != 0))
        return run(c, arguments, out);
    uint64_t start = lim__lua_clock(c->lua);
    lim__route_how how = run(c, arguments, out);
    if (how != LIM__ROUTE_PENDING)
        lim__hist_record(&r->stats.time_ns, lim__lua_clock(c->lua) - start);
    return how;
}

static lim__route_how engine_call(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                  uint32_t n, void *call_ctx, lim__route_result *result)
{
    lim__lua *m = r->state;
    LIM_ASSERT(m->running == NULL); /* L2: no function calls another */
    lim__lua_call *c = idle_call(m);
    if (c == NULL)
        return lim__lua_not_started(m, false, result);
    if (LIM_UNLIKELY(m->cycles_due > 0))
        collect(m);
    if ((c->co == NULL || !lim__lua_refresh(m, c, candidates, n)) && !lim__lua_sync(m, c, candidates, n))
        return lim__lua_not_started(m, true, result);
    c->payload = msg->payload;
    c->headers = msg->headers;
    c->list = m->list;
    c->cpu_ns = 0;
    c->refused = REFUSED__NOTHING;
    c->refusals = 0;
    lim__lua_set_step(c, n <= m->unhooked_max ? 0 : LUA__STEP);
    lua_pushvalue(c->co, CO__FN);
    lua_pushvalue(c->co, CO__MSG);
    lua_pushvalue(c->co, CO__ARRAY);
    lim__route_how how = run_timed(c, 2, result);
    if (LIM_UNLIKELY(how == LIM__ROUTE_PENDING))
        how = put_aside(c, msg->keep, call_ctx, result);
    else
        end(c);
    lua_check(m);
    return how;
}

/* The call is told to its owner, who may do anything with the router then; so all is in order before. */
static void finish_aside(lim__lua_call *c, const lim__route_result *result)
{
    lim__lua *m = c->lua;
    lim__router *r = m->router;
    void *call_ctx = c->call_ctx;
    m->aside_count--;
    lim__hist_record(&r->stats.time_ns, c->cpu_ns);
    release_aside(c);
    end(c);
    lua_check(m);
    lim__router_count(r, result);
    if (r->on_done != NULL && !LIM__MUTATION("lost_decision"))
        r->on_done(r->ctx, call_ctx, result);
    lim__router_unref(r);
}

static uint32_t engine_resume(lim__router *r)
{
    lim__lua *m = r->state;
    lim__list *oldest = lim__list_pop(&m->aside);
    if (oldest == NULL)
        return 0;
    lim__lua_call *c = LIM_CONTAINER(oldest, lim__lua_call, link);
    lim__route_result result;
    uint64_t waited = r->os->now_ns(r->os) - c->aside_ns;
    lim__route_how how;
    if (waited >= r->limits.wall_ns) {
        drop(c);
        how = lim__lua_timed_out(m, waited, true, &result);
    } else {
        r->stats.slices++;
        how = run(c, 0, &result);
    }
    if (how == LIM__ROUTE_PENDING) {
        c->phase = LUA__ASIDE;
        lim__list_push(&m->aside, &c->link);
    } else {
        finish_aside(c, &result);
    }
    return m->aside_count;
}

static uint32_t engine_abandon(lim__router *r)
{
    lim__lua *m = r->state;
    lim__list *node;
    uint32_t dropped = 0;
    while ((node = lim__list_pop(&m->aside)) != NULL) {
        lim__lua_call *c = LIM_CONTAINER(node, lim__lua_call, link);
        drop(c);
        release_aside(c);
        end(c);
        dropped++;
    }
    m->aside_count = 0;
    return dropped;
}

static uint32_t engine_pending(const lim__router *r)
{
    const lim__lua *m = r->state;
    return m->aside_count;
}

static uint64_t engine_memory(const lim__router *r)
{
    const lim__lua *m = r->state;
    return m->used;
}

/* ---- opening and closing ---- */

static int panic(lua_State *L)
{
    (void)L;
    lim__panic(__FILE__, __LINE__, "an error in Lua outside of a protected call");
}

static void lua_free(lim__lua *m)
{
    if (m == NULL)
        return;
    if (m->L != NULL)
        lua_close(m->L);
    LIM_ASSERT(m->used == 0); /* L4 */
    for (uint32_t i = 0; m->calls != NULL && i < m->router->limits.unfinished_max; i++)
        lim__doc_free(m->calls[i].doc);
    lim__lua_views_free(m);
    free(m->calls);
    free(m);
}

static void engine_close(lim__router *r)
{
    lim__lua *m = r->state;
    LIM_ASSERT(m->aside_count == 0);
    r->state = NULL;
    lua_free(m);
}

static lim__lua *lua_new(lim__router *r)
{
    lim__lua *m = calloc(1, sizeof *m);
    if (m == NULL)
        return NULL;
    m->router = r;
    lim__list_init(&m->aside);
    m->list = lim__lua_list_new(0);
    m->calls = calloc(r->limits.unfinished_max, sizeof *m->calls);
    m->bus_allocates = true;
    if (m->list != NULL && m->calls != NULL)
        m->L = lua_newstate(lim__lua_alloc, m);
    if (m->L == NULL) {
        lua_free(m);
        return NULL;
    }
    for (uint32_t i = 0; i < r->limits.unfinished_max; i++)
        m->calls[i] = (lim__lua_call){
            .phase = LUA__IDLE, .index = i, .lua = m, .read = DOC__UNREAD, .read_fields = DOC__UNREAD
        };
    lua_atpanic(m->L, panic);
    lua_gc(m->L, LUA_GCINC, 0, 0, GC_STEP_LOG2);
    *(lim__lua **)lua_getextraspace(m->L) = m;
    return m;
}

/* Sandbox, hook, and the first coroutine: all that is the bus's. */
static bool lua_prepare(lim__lua *m)
{
    lua_State *L = m->L;
    enum { PER_CALL = 2048 }; /* a coroutine's, when they are made */
    if (!lua_checkstack(L, 2 * (int)m->router->limits.unfinished_max + 4 * LUA_MINSTACK))
        return false;
    lua_pushnil(L); /* FN */
    lua_pushcfunction(L, lim__lua_setup);
    lua_pushlightuserdata(L, m);
    if (lua_pcall(L, 1, LUA_MULTRET, 0) != LUA_OK)
        return false;
    lua_sethook(L, lim__lua_hook, LUA_MASKCOUNT, LUA__STEP); /* coroutines inherit it */
    if (!lim__lua_sync(m, &m->calls[0], NULL, 0))
        return false;
    m->limit = m->used + m->router->limits.memory_max + PER_CALL * m->router->limits.unfinished_max;
    m->array_gen = 1; /* the coroutine has no array yet */
    return true;
}

static bool compile(lim__lua *m, lim_diag *diag)
{
    lua_State *L = m->L;
    char chunk[sizeof m->router->name + 1] = "=";
    memcpy(chunk + 1, m->router->name, sizeof m->router->name);
    lim_bytes source = m->router->artifact->bytes;
    int status = luaL_loadbufferx(L, source.ptr, source.len, chunk, "t");
    if (status != LUA_OK) {
        lim__lua_compile_fault(m, L, status, diag);
        lua_pop(L, 1);
        return false;
    }
    lua_pushvalue(L, LUA__ENV);
    if (lua_setupvalue(L, -2, 1) == NULL)
        lua_pop(L, 1); /* it names nothing, not even what would be absent */
    lua_xmove(L, m->calls[0].co, 1);
    return true;
}

/* Runs the chunk, slice by slice without a break, within the limit of one call. */
static int run_chunk(lim__lua *m)
{
    lim__lua_call *c = &m->calls[0];
    int status, results;
    do {
        lim__lua_slice_begin(c);
        status = lua_resume(c->co, m->L, 0, &results);
        lim__lua_slice_end(c, status == LUA_YIELD);
    } while (status == LUA_YIELD && c->cpu_ns < m->router->limits.cpu_ns);
    return status;
}

static bool take_function(lim__lua *m, lim_diag *diag)
{
    lim__lua_call *c = &m->calls[0];
    int status = run_chunk(m);
    bool good = false;
    if (status == LUA_YIELD)
        lim__diag_set(diag, 0, 0, "%s: the chunk did not end within %llu us (routing.cpu_us_max)", m->router->name,
                      (unsigned long long)(m->router->limits.cpu_ns / 1000));
    else if (status != LUA_OK)
        lim__lua_compile_fault(m, c->co, status, diag);
    else if (lua_type(c->co, CO__ARRAY + 1) != LUA_TFUNCTION)
        lim__diag_set(diag, 0, 0, "%s: the chunk returned %s%s; a function(msg, candidates) is expected",
                      m->router->name, lua_isnoneornil(c->co, CO__ARRAY + 1) ? "" : "a ",
                      lua_isnoneornil(c->co, CO__ARRAY + 1) ? "nothing" : luaL_typename(c->co, CO__ARRAY + 1));
    else
        good = true;
    if (!good)
        return false;
    lua_pushvalue(c->co, CO__ARRAY + 1);
    lua_xmove(c->co, m->L, 1);
    m->unhooked_max = lim__lua_bound(m->L);
    lua_replace(m->L, LUA__FN);
    drop(c); /* it has been used without function and array; the next one gets both */
    end(c);
    return true;
}

static lim_err engine_open(lim__router *r, lim_diag *diag)
{
    if (r->artifact->bytes.len > LIM__ROUTE_SOURCE_MAX) {
        lim__diag_set(diag, 0, 0, "%s: %zu bytes of source; at most %d are taken", r->name, r->artifact->bytes.len,
                      LIM__ROUTE_SOURCE_MAX);
        return LIM_E_TOOBIG;
    }
    lim__lua *m = lua_new(r);
    if (m == NULL)
        return LIM_E_NOMEM;
    if (!lua_prepare(m)) {
        lua_free(m);
        return LIM_E_NOMEM;
    }
    m->bus_allocates = false;
    if (!compile(m, diag) || !take_function(m, diag)) {
        lua_free(m);
        return LIM_E_CODE;
    }
    r->state = m;
    return LIM_OK;
}

const lim__engine_ops lim__engine_lua = {
    .open = engine_open,
    .call = engine_call,
    .resume = engine_resume,
    .abandon = engine_abandon,
    .pending = engine_pending,
    .memory = engine_memory,
    .close = engine_close,
};
