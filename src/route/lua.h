/* SPDX-License-Identifier: Apache-2.0
 * lua.h - one Lua state of one router, shared by the files lua_*.c.
 *
 *   lua.c          calls: start, slice, put aside, finish, drop        lua_sandbox.c  what a script can name
 *   lua_limits.c   memory and time                                     lua_message.c  msg
 *   lua_view.c     candidates                                          lua_report.c   what is told to people
 *   lua_bound.c    who needs no hook                                   lua_fields.c   the fields of short messages
 *
 * Main stack of the state, set once by lim__lua_setup and used by index (so nothing on a call's way is looked up by
 * name, and dropping a coroutine is writing nil over it, which cannot fail):
 *
 *      FN | ARRAY | VIEWS | META | ENV | names of numbers | coroutine 0 | message 0 | coroutine 1 | message 1 | ...
 *
 * and of each coroutine, below what it runs: FN | MSG | ARRAY. */
#ifndef LIM__ROUTE_LUA_H
#define LIM__ROUTE_LUA_H

#include <lua.h>
#include <lauxlib.h>
#include <lualib.h>

#include "base/list.h"
#include "route/engine.h"
#include "route/lua_fields.h"

/* The numbers of a candidate, in the order their names have on the main stack and their values in a view. */
enum { NUM__IN_FLIGHT, NUM__MAX_IN_FLIGHT, NUM__AVAILABLE, NUM__BUFFER_DEPTH, NUM__LATENCY_US, NUM__COUNT };
enum { LUA__FN = 1, LUA__ARRAY, LUA__VIEWS, LUA__META, LUA__ENV, LUA__NAMES, LUA__SLOTS = LUA__NAMES + NUM__COUNT };
enum { CO__FN = 1, CO__MSG, CO__ARRAY }; /* each coroutine's */
#ifdef LIM_HOSTILE
enum { LUA__STEP = 1 };
#else
enum { LUA__STEP = 1000 }; /* instructions from hook to hook, at most */
#endif
enum {
    LUA__CHARGE_MAX = 1 << 17, /* bytes moved between two hooks before the next one is called early */
    LUA__REFUSALS_MAX = 16,    /* of memory, in one call */
    LUA__SORT_MAX = 1024,      /* keys that pairs puts in order */
    LUA__ITEMS_MAX = 4096      /* that one call of a library function looks at */
};

/* What the router remembers of a candidate's table: the slots of lim__candidate index these. */
typedef struct lim__lua_view {
    uint64_t id, stamp; /* 0: no table */
    const void *table;  /* identity only: Lua moves nothing, and VIEWS holds it */
    char *name;
    size_t name_len, bytes; /* bytes: what the table took of the state's memory, beside the script's limit */
    uint32_t numbers[NUM__COUNT]; /* as they were written into the table */
} lim__lua_view;

/* The candidates of a call. Current one: the router's; a call that is put aside keeps the one it started with. */
typedef struct lim__lua_list {
    uint32_t refs, count, capacity, names_len, names_capacity;
    char *names;
    struct lim__lua_listed {
        uint64_t id, stamp; /* stamp: of what its table shows, while this is the router's list */
        const void *table;
        uint32_t name, name_len; /* in names */
    } items[];
} lim__lua_list;

typedef enum lim__lua_phase { LUA__IDLE = 1, LUA__RUNNING, LUA__ASIDE } lim__lua_phase;

/*  IDLE --call--> RUNNING --ends--> IDLE
 *                 |    ^
 *              yields  resume
 *                 v    |
 *                 ASIDE --at its limit: dropped--> IDLE (without coroutine) */
typedef struct lim__lua_call {
    lim__lua_phase phase;
    uint32_t index;    /* its places on the main stack */
    lua_State *co;     /* NULL: to be made */
    uint32_t array_gen; /* of the ARRAY on its stack */
    int step;          /* instructions to the next hook, as set; 0: there is none */
    struct lim__lua *lua;
    /* the message */
    uint64_t serial; /* grows with each end: proxies of an earlier message answer nil */
    lim__doc *doc;
    enum { DOC__UNREAD = 1, DOC__GOOD, DOC__BAD } read, read_fields;
    lim__lua_fields fields;
    lim_bytes payload, headers;
    lim__msg *keep;
    void *copy;
    /* memory that it was refused: why last, and how often */
    enum { REFUSED__NOTHING = 0, REFUSED__MEMORY, REFUSED__TEXT } refused;
    uint32_t refusals;
    uint64_t slice_start_ns, last_hook_ns; /* 0: not looked yet */
    uint64_t slice_cpu_ns;                 /* this thread's processor time when the slice was first looked at */
    uint64_t cpu_ns;                       /* processor time of earlier slices */
    uint64_t aside_ns;                     /* wall: when it was put aside first, less what it had used */
    lim__lua_list *list;
    void *call_ctx;
    lim__list link; /* in aside */
} lim__lua_call;

typedef struct lim__lua {
    lua_State *L;
    lim__router *router;
    lim__lua_call *running; /* whose instructions are executed; NULL: none of a script's */
    lim__lua_call *calls;   /* unfinished_max of them */
    lim__list aside;        /* oldest first */
    uint32_t aside_count;
    uint32_t array_gen, array_len;
    bool array_shared;
    lim__lua_list *list;
    lim__lua_view *views;
    uint32_t view_count;
    /* limits */
    size_t used, limit; /* bytes; limit: the script's, and what is the bus's: sandbox, candidates, coroutines */
    bool bus_allocates; /* what is allocated now is not the script's */
    uint32_t cycles_due; /* of the collector, so that what dropped coroutines held is gone */
    size_t charged;        /* bytes moved since the last hook */
    uint32_t unhooked_max; /* with up to that many candidates the function ends before a hook would be called */
    uint64_t virtual_ns;   /* the clock if instruction_ns is set */
} lim__lua;

static inline lim__lua *lim__lua_of(lua_State *L)
{
    return *(lim__lua **)lua_getextraspace(L);
}
static inline int lim__lua_co_at(const lim__lua_call *c)
{
    return LUA__SLOTS + 2 * (int)c->index;
}
static inline int lim__lua_msg_at(const lim__lua_call *c)
{
    return LUA__SLOTS + 2 * (int)c->index + 1;
}

/* ---- lua_limits.c ---- */
void *lim__lua_alloc(void *lua, void *block, size_t old_size, size_t new_size);
void lim__lua_hook(lua_State *L, lua_Debug *ar);
void lim__lua_hook_soon(lim__lua *m);
/* Work of about `bytes` bytes moved that no instruction count sees: brings the next hook forward if it adds up. */
static inline void lim__lua_charge(lim__lua *m, size_t bytes)
{
    m->charged += bytes;
    if (LIM_UNLIKELY(m->charged > LUA__CHARGE_MAX))
        lim__lua_hook_soon(m);
}
uint64_t lim__lua_clock(lim__lua *m); /* os, or instructions */
uint64_t lim__lua_cpu(lim__lua *m);   /* processor time of this thread, or instructions */
/* For a call that begins: LUA__STEP, or 0. */
static inline void lim__lua_set_step(lim__lua_call *c, int step)
{
    if (LIM_LIKELY(c->step == step))
        return;
    c->step = step;
    lua_sethook(c->co, lim__lua_hook, step > 0 ? LUA_MASKCOUNT : 0, step);
}
static inline void lim__lua_slice_begin(lim__lua_call *c)
{
    c->slice_start_ns = 0;
    c->last_hook_ns = 0;
    c->lua->charged = 0;
    c->lua->running = c;
    c->phase = LUA__RUNNING;
}
/* From here on what the slice takes is counted: a first one's from its first hook, because most calls end before it. */
static inline void lim__lua_slice_look(lim__lua_call *c)
{
    c->slice_start_ns = lim__lua_clock(c->lua);
    c->slice_cpu_ns = lim__lua_cpu(c->lua);
}
/* Adds to cpu_ns. */
static inline void lim__lua_slice_end(lim__lua_call *c, bool yielded)
{
    lim__lua *m = c->lua;
    m->running = NULL;
    if (!yielded && c->step != 0)
        lim__lua_set_step(c, LUA__STEP); /* else Lua would take the hook that yielded for one that has yet to come */
    if (LIM_UNLIKELY(c->slice_start_ns != 0))
        c->cpu_ns += lim__lua_cpu(m) - c->slice_cpu_ns;
}

/* ---- lua_sandbox.c ---- */
/* Protected C function: one argument, the lim__lua; answers what stands on the main stack from ARRAY on. */
int lim__lua_setup(lua_State *L);

/* ---- lua_bound.c ---- */
/* The largest number of candidates with which the function on top of L surely executes at most LUA__STEP instructions;
 * 0: none. */
uint32_t lim__lua_bound(lua_State *L);

/* ---- lua_message.c ---- */
void lim__lua_message_meta(lua_State *L);                        /* pushes the metatable */
void lim__lua_message_push(lua_State *L, lim__lua_call *c);      /* pushes the call's msg; metatable from the registry */
int lim__lua_message_pairs(lua_State *L);                        /* pairs(proxy): argument 1 is one */

/* ---- lua_view.c ---- */
extern const char *const lim__lua_number_names[NUM__COUNT];
/* Brings numbers that changed into the tables and answers true if then all is as the candidates are. */
bool lim__lua_refresh(lim__lua *m, const lim__lua_call *c, const lim__candidate *const *candidates, uint32_t n);
/* Does everything that may allocate before a call: tables, the array, the coroutine. False: no memory. */
bool lim__lua_sync(lim__lua *m, lim__lua_call *c, const lim__candidate *const *candidates, uint32_t n);
lim__lua_list *lim__lua_list_new(uint32_t capacity); /* NULL: no memory */
lim__lua_list *lim__lua_list_ref(lim__lua_list *list);
void lim__lua_list_unref(lim__lua_list *list);
void lim__lua_views_free(lim__lua *m);

/* ---- lua_report.c ---- all write r->text */
lim__route_how lim__lua_crashed(lim__lua_call *c, int status, lim__route_result *out); /* error value on c->co */
lim__route_how lim__lua_nonsense(lim__lua_call *c, lim__route_result *out); /* what was returned is on top of c->co */
lim__route_how lim__lua_timed_out(lim__lua *m, uint64_t after_ns, bool wall, lim__route_result *out);
lim__route_how lim__lua_not_started(lim__lua *m, bool memory, lim__route_result *out);
void lim__lua_compile_fault(lim__lua *m, lua_State *L, int status, lim_diag *diag); /* error value on top of L */

#endif
