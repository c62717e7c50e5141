/* SPDX-License-Identifier: Apache-2.0
 * runtime.c - a runtime is its schedulers, their depot, the names, and the host's loop if there are no threads.
 *
 * Three ways to turn it: a thread per scheduler; the host's own event loop (own_loop: one scheduler, lim_runtime_fd
 * and lim_runtime_turn); or the simulator, which calls lim__sched_turn for each scheduler in the order of its seed.
 *
 * Closing: let the blocking handlers return, refuse spawns, let each scheduler kill its processes on its own thread,
 * join, then let the letters that are still in inboxes find nobody at home until none is left (a LINK comes back as an
 * EXIT, which finds nobody either). */
#include "actor/internal.h"
#include <stdio.h>
#include <stdlib.h>

static void release(lim_runtime *rt)
{
    for (uint32_t i = 0; i < rt->count; i++)
        lim__sched_fini(rt->scheds[i]);
    lim__registry_fini(&rt->registry);
    lim__depot_fini(&rt->depot);
    lim__blocking_fini(&rt->blocking);
    free(rt);
}

static void threads_stop(lim_runtime *rt, uint32_t started)
{
    atomic_store(&rt->closing, 1);
    for (uint32_t i = 0; i < started; i++)
        rt->os->poller_wake(rt->os, rt->scheds[i]->poller);
    for (uint32_t i = 0; i < started; i++)
        lim__thread_join(rt->scheds[i]->thread);
}

static lim_err threads_start(lim_runtime *rt)
{
    for (uint32_t i = 0; i < rt->count; i++) {
        char name[24];
        snprintf(name, sizeof name, "sched-%u", (unsigned)i);
        if (lim__thread_start(&rt->scheds[i]->thread, name, lim__sched_main, rt->scheds[i]) != 0) {
            threads_stop(rt, i);
            return LIM_E_NOMEM;
        }
    }
    return LIM_OK;
}

static lim_err open_runtime(const lim__runtime_opts *opts, bool own_loop, lim_runtime **out)
{
    if (opts->scheduler_count == 0 || opts->scheduler_count > LIM__SCHEDULERS_MAX)
        return LIM_E_MISUSE;
    lim_runtime *rt = calloc(1, sizeof *rt);
    if (!rt)
        return LIM_E_NOMEM;
    rt->os = opts->os ? opts->os : lim__os_linux();
    rt->threads = opts->threads;
    rt->own_loop = own_loop;
    rt->spin_ns = opts->threads && lim__cpu_count() > 1 ? opts->spin_us * 1000ull : 0; /* never on all of them */
    rt->overrun_ns = (opts->overrun_ms ? opts->overrun_ms : LIM__OVERRUN_MS_DEFAULT) * 1000000ull;
    rt->on_overrun = opts->on_overrun;
    rt->on_overrun_ctx = opts->ctx;
    lim__blocking_init(&rt->blocking, opts->blocking_max);
    lim__registry_init(&rt->registry, rt->os->random(rt->os));
    /* From 1 (pid 0 is nobody) to the middle: each slot has half of its generations at least. */
    rt->first_generation = 1 + (uint32_t)(rt->os->random(rt->os) & ((1u << (LIM__GENERATION_BITS - 1)) - 1));
    lim_err err = lim__depot_init(&rt->depot);
    while (err == LIM_OK && rt->count < opts->scheduler_count) {
        err = lim__sched_init(rt, rt->count, &rt->scheds[rt->count]);
        rt->count += rt->scheds[rt->count] != NULL;
    }
    if (err == LIM_OK && rt->threads)
        err = threads_start(rt);
    if (err == LIM_OK)
        *out = rt;
    else
        release(rt);
    return err;
}

lim_err lim__runtime_open(const lim__runtime_opts *opts, lim_runtime **out)
{
    return open_runtime(opts, false, out);
}

lim_err lim_runtime_open(const lim_runtime_opts *opts, lim_runtime **out)
{
    if (!opts || opts->size != sizeof *opts || lim__sched_current())
        return LIM_E_MISUSE;
    if (opts->own_loop && opts->scheduler_count != 1)
        return LIM_E_MISUSE;
    if (opts->spin_us > LIM__SPIN_US_MAX)
        return LIM_E_INVALID;
    return open_runtime(&(lim__runtime_opts){ .scheduler_count = opts->scheduler_count,
                                              .threads = !opts->own_loop,
                                              .spin_us = opts->spin_us,
                                              .blocking_max = opts->blocking_max,
                                              .overrun_ms = opts->overrun_ms,
                                              .on_overrun = opts->on_overrun,
                                              .ctx = opts->ctx },
                        opts->own_loop, out);
}

static bool any_letter(lim_runtime *rt)
{
    for (uint32_t i = 0; i < rt->count; i++)
        if (atomic_load(&rt->scheds[i]->inbox))
            return true;
    return false;
}

static void close_here(lim_runtime *rt)
{
    do
        for (uint32_t i = 0; i < rt->count; i++) {
            lim__sched *outer = lim__sched_enter(rt->scheds[i]);
            lim__process_kill_all(rt->scheds[i]); /* also what was spawned while the threads were ending */
            lim__inbox_deal(rt->scheds[i]);
            lim__bury(rt->scheds[i]); /* who comes home only now */
            lim__outboxes_push(rt->scheds[i]);
            lim__sched_leave(outer);
        }
    while (any_letter(rt));
}

void lim_runtime_close(lim_runtime *rt)
{
    if (!rt)
        return;
    LIM_ASSERT(!lim__sched_current()); /* contract B */
    lim__blocking_stop(rt);
    if (rt->threads)
        threads_stop(rt, rt->count);
    atomic_store(&rt->closing, 1);
    while (atomic_load_explicit(&rt->hosting, memory_order_acquire) > 0) /* a few instructions, and a wake */
        lim__thread_yield();
    close_here(rt);
    release(rt);
}

/* ---- the host's own loop ---- */
int lim_runtime_fd(lim_runtime *rt)
{
    return rt->own_loop ? rt->os->poller_fd(rt->os, rt->scheds[0]->poller) : -1;
}

int64_t lim_runtime_wait_ms(lim_runtime *rt)
{
    if (!rt->own_loop)
        return -1;
    uint64_t due = lim__timer_next(rt->scheds[0]), now = rt->os->now_ns(rt->os);
    if (due == UINT64_MAX)
        return -1;
    return due <= now ? 0 : (int64_t)((due - now + 999999) / 1000000);
}

lim_err lim_runtime_turn(lim_runtime *rt, int max_wait_ms)
{
    if (!rt->own_loop || lim__sched_current())
        return LIM_E_MISUSE;
    lim__sched *s = rt->scheds[0];
    if (lim__sched_turn(s, max_wait_ms < 0 ? -1 : (int64_t)max_wait_ms * 1000000))
        rt->os->poller_wake(rt->os, s->poller); /* the host's loop must see the descriptor readable */
    return LIM_OK;
}

/* ---- looking in ---- */
lim__os *lim__runtime_os(const lim_runtime *rt)
{
    return rt->os;
}

uint32_t lim__sched_count(const lim_runtime *rt)
{
    return rt->count;
}

lim__sched *lim__sched_at(lim_runtime *rt, uint32_t index)
{
    LIM_ASSERT(index < rt->count);
    return rt->scheds[index];
}

static void census_add(lim_census *out, lim__counters *c, uint64_t *link_ends)
{
    out->processes += atomic_load_explicit(&c->processes, memory_order_relaxed);
    *link_ends += atomic_load_explicit(&c->link_ends, memory_order_relaxed);
    out->monitors += atomic_load_explicit(&c->monitors, memory_order_relaxed);
    out->timers += atomic_load_explicit(&c->timers, memory_order_relaxed);
    out->messages += atomic_load_explicit(&c->messages, memory_order_relaxed);
    out->letter_bytes += atomic_load_explicit(&c->letter_bytes, memory_order_relaxed);
    out->wakes += atomic_load_explicit(&c->wakes, memory_order_relaxed);
    out->overruns += atomic_load_explicit(&c->overruns, memory_order_relaxed);
}

void lim_runtime_census(lim_runtime *rt, lim_census *out)
{
    *out = (lim_census){ 0 };
    uint64_t link_ends = 0;
    out->blocked = atomic_load_explicit(&rt->blocking.blocked, memory_order_relaxed);
    census_add(out, &rt->host, &link_ends);
    for (uint32_t i = 0; i < rt->count; i++) {
        census_add(out, &rt->scheds[i]->counters, &link_ends);
        out->turns += atomic_load_explicit(&rt->scheds[i]->phase, memory_order_relaxed) / 2;
    }
    out->links = (link_ends + 1) / 2; /* a single end left over is a leak too */
}

const char *lim_reason_text(lim_reason reason)
{
    switch (reason) {
    case LIM_REASON_NONE:
        return "none";
#define X(name, text)                                                                                                  \
    case LIM_##name:                                                                                                   \
        return text;
        LIM_REASON_MAP(X)
#undef X
    case LIM_REASON_USER:
        break;
    }
    return reason >= LIM_REASON_USER ? "user" : "unknown";
}
