/* SPDX-License-Identifier: Apache-2.0
 * lua_limits.c - memory and time of scripts.
 *
 * Memory. The allocator counts. What the bus itself puts into the state (the sandbox, candidates, coroutines) raises
 * the limit by what it took; the rest is the script's. One text may have LIM__ROUTE_TEXT_MAX bytes: no single
 * instruction on texts (==, .., <) then takes longer than some microseconds. Each refusal costs a full collection; a
 * call that goes on after LUA__REFUSALS_MAX of them is not resumed.
 *
 * Time. The hook is called every LUA__STEP instructions, which is 10 to 20 us of a plain script. Two things shorten the
 * way to the next hook, because an instruction may be an expensive one:
 *   - work that is charged (memory that was allocated, texts that were copied, elements that were moved), and
 *   - steps that turned out to take long: the next one is shorter in proportion.
 * What surely ends within LUA__STEP instructions is run without hook (lua_bound.c) until something is charged.
 * A slice is cut by the clock, because others wait for its end; what a call has used is the thread's processor time,
 * because a machine that is busy with something else is not the call's fault.
 * The hook never raises an error, which a script could catch. It yields, and what is not resumed has ended.
 *
 * With instruction_ns set, time is counted instead of read: equal scripts take equal time everywhere. */
#include "route/lua.h"

#include <stdlib.h>

enum {
    STEP_LONG_NS = 60000, /* a step that took longer is shortened */
    STEP_AIM_NS = 30000,  /* to about this */
    BYTES_PER_NS = 4      /* of charged work, when time is counted */
};

/* ---- memory ---- */

static bool refused(lim__lua *m, const void *block, size_t kind, size_t grow)
{
    lim__lua_call *c = m->running ? m->running : &m->calls[0]; /* the compiler works for the first call */
    if (m->bus_allocates)
        return false;
    if (block == NULL && kind == LUA_TSTRING && grow > LIM__ROUTE_TEXT_MAX + 64)
        c->refused = REFUSED__TEXT;
    else if (m->used + grow > m->limit)
        c->refused = REFUSED__MEMORY;
    else
        return false;
    c->refusals++;
    lim__lua_charge(m, m->used + LUA__CHARGE_MAX); /* Lua collects all its garbage now */
    return true;
}

void *lim__lua_alloc(void *lua, void *block, size_t old_size, size_t new_size)
{
    lim__lua *m = lua;
    size_t old = block ? old_size : 0; /* without a block, old_size tells what it is for */
    if (new_size == 0) {
        m->used -= old;
        free(block);
        return NULL;
    }
    if (new_size > old) {
        if (refused(m, block, old_size, new_size - old))
            return NULL;
        lim__lua_charge(m, new_size);
    }
    void *p = realloc(block, new_size);
    if (p == NULL)
        return new_size <= old ? block : NULL; /* Lua relies on shrinking */
    m->used += new_size - old;
    return p;
}

/* ---- time ---- */

void lim__lua_hook_soon(lim__lua *m)
{
    if (m->running != NULL)
        lim__lua_set_step(m->running, 1); /* Lua allows this at any moment, inside its allocator too */
}

uint64_t lim__lua_clock(lim__lua *m)
{
    return m->router->instruction_ns ? m->virtual_ns : m->router->os->now_ns(m->router->os);
}

uint64_t lim__lua_cpu(lim__lua *m)
{
    return m->router->instruction_ns ? m->virtual_ns : lim__thread_cpu_ns();
}

/* Moves the counted clock by what happened since the last hook. */
static void count_time(lim__lua *m, const lim__lua_call *c)
{
    if (m->router->instruction_ns != 0)
        m->virtual_ns += (uint64_t)c->step * m->router->instruction_ns + m->charged / BYTES_PER_NS;
    m->charged = 0;
}

static int next_step(const lim__lua *m, const lim__lua_call *c, uint64_t took_ns)
{
    if (m->router->instruction_ns != 0)
        return LUA__STEP;
    if (c->last_hook_ns == 0) /* the first of a slice: what was learned in the one before still holds */
        return c->step;
    if (took_ns > STEP_LONG_NS) {
        uint64_t step = (uint64_t)c->step * STEP_AIM_NS / took_ns;
        return step > 0 ? (int)step : 1;
    }
    return c->step < LUA__STEP / 2 ? 2 * c->step : LUA__STEP;
}

void lim__lua_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lim__lua *m = lim__lua_of(L);
    lim__lua_call *c = m->running;
    LIM_ASSERT(c != NULL && c->co == L);
    count_time(m, c);
    uint64_t now = lim__lua_clock(m);
    if (c->slice_start_ns == 0)
        lim__lua_slice_look(c);
    lim__lua_set_step(c, next_step(m, c, now - c->last_hook_ns));
    c->last_hook_ns = now;
    uint64_t used = now > c->slice_start_ns ? now - c->slice_start_ns : 0;
    if ((c->refusals > LUA__REFUSALS_MAX || used >= m->router->limits.slice_ns ||
         c->cpu_ns + used >= m->router->limits.cpu_ns) &&
        lua_isyieldable(L))
        lua_yield(L, 0);
}
