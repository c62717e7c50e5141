/* SPDX-License-Identifier: Apache-2.0
 * durable_world.h - a simulated machine whose bus keeps things on its disk, and can be killed and started again.
 *
 *      durable_world w;
 *      durable_open(&w, 7);        // seed; two schedulers and the store are tasks of the simulator
 *      ... w.bus ...
 *      durable_kill(&w);           // SIGKILL: the page cache survives; durable_power_off: it does not
 *      durable_start(&w);          // the same disk
 *      durable_close(&w);
 */
#ifndef LIM__DURABLE_WORLD_H
#define LIM__DURABLE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bus/bus.h"
#include "bus/durable.h"
#include "sim/sim_os.h"

enum { DURABLE_SCHEDULERS = 2 };

typedef struct durable_world {
    lim__sim *sim;
    lim__os *os; /* of the program that runs now */
    lim_bus *bus;
    lim__sim_task *tasks[DURABLE_SCHEDULERS + 1];
    lim_diag diag;
    uint32_t starts;
    lim_bus_opts opts; /* may be changed between starts */
} durable_world;

static inline bool durable_sched_turn(void *ctx)
{
    return lim__sched_turn(ctx, -1);
}

static inline uint64_t durable_sched_due(void *ctx)
{
    return lim__sched_next_due_ns(ctx);
}

static inline bool durable_store_turn(void *ctx)
{
    return lim__durable_turn(((durable_world *)ctx)->bus);
}

static inline uint64_t durable_store_due(void *ctx)
{
    return lim__durable_next_due_ns(((durable_world *)ctx)->bus);
}

static inline void durable_poke(void *ctx)
{
    durable_world *w = ctx;
    lim__sim_task_poke(w->tasks[DURABLE_SCHEDULERS]);
}

/* Starts the program, on whatever the disk has; answers what opening the bus did. */
static inline lim_err durable_try_start(durable_world *w)
{
    w->os = lim__sim_host(w->sim, "host");
    w->opts.diag = &w->diag;
    lim__runtime_opts runtime = { .os = w->os, .scheduler_count = DURABLE_SCHEDULERS };
    lim_err err = lim__bus_open(&w->opts, &runtime, &w->bus);
    if (err != LIM_OK)
        return err;
    w->starts++;
    for (uint32_t i = 0; i < DURABLE_SCHEDULERS; i++)
        w->tasks[i] = lim__sim_task_add(w->sim, w->os, i == 0 ? "sched-0" : "sched-1", durable_sched_turn,
                                        durable_sched_due, lim__sched_at(w->bus->rt, i));
    w->tasks[DURABLE_SCHEDULERS] =
        lim__sim_task_add(w->sim, w->os, "store", durable_store_turn, durable_store_due, w);
    lim__durable_on_poke(w->bus, durable_poke, w);
    return LIM_OK;
}

static inline void durable_start(durable_world *w)
{
    assert_int_equal(durable_try_start(w), LIM_OK);
}

static inline void durable_open(durable_world *w, uint64_t seed)
{
    *w = (durable_world){ .sim = lim__sim_open(seed) };
    w->opts = (lim_bus_opts){ .size = sizeof w->opts,
                              .scheduler_count = DURABLE_SCHEDULERS,
                              .data_dir = "data",
                              .data_segment_bytes = 1 << 20 };
    durable_start(w);
}

static inline void durable_tear_down(durable_world *w)
{
    for (uint32_t i = 0; i <= DURABLE_SCHEDULERS; i++)
        lim__sim_task_remove(w->sim, w->tasks[i]);
    lim_bus_close(w->bus);
    w->bus = NULL;
}

/* What is left of it in this process's memory is torn down afterwards, which the disk cannot see. */
static inline void durable_kill(durable_world *w)
{
    lim__sim_kill_host(w->sim, w->os);
    durable_tear_down(w);
}

static inline void durable_power_off(durable_world *w)
{
    lim__sim_power_off(w->sim, w->os);
    durable_tear_down(w);
}

static inline void durable_close(durable_world *w)
{
    if (w->bus != NULL)
        durable_tear_down(w);
    lim__sim_close(w->sim);
}

/* Runs until done(ctx), or fails after a minute of the simulated clock. */
static inline void durable_until(durable_world *w, bool (*done)(void *ctx), void *ctx)
{
    assert_true(lim__sim_run(w->sim, lim__sim_now(w->sim) + 60000000000ull, done, ctx));
}

static inline void durable_settle(durable_world *w, uint64_t ns)
{
    lim__sim_run(w->sim, lim__sim_now(w->sim) + ns, NULL, NULL);
}

#endif
