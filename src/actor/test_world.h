/* SPDX-License-Identifier: Apache-2.0
 * test_world.h - a world for tests of the runtime: a virtual clock, no threads, and puppets.
 *
 * A puppet is a process that does what the test tells it to, as itself, and writes down every signal it sees:
 *
 *      puppet *a = puppet_new(w, .trap_exit = true);        act(w, a, link_to, b);   settle(w);
 *      assert_int_equal(a->log[0].reason, LIM_FAULT);
 *
 * settle() turns all schedulers until nothing is left to do; step(w, i) turns one of them. */
#ifndef LIM__TEST_WORLD_H
#define LIM__TEST_WORLD_H

#include "actor/internal.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct lim__poller {
    bool woken;
    int64_t last_timeout_ns;
    uint64_t waits, blocked; /* blocked: would have slept */
    lim__io_event ready[16]; /* what the next wait reports */
    int ready_count;
    void *ctx[64]; /* by descriptor: what is registered */
};

typedef struct world {
    lim__os os; /* first: os functions get the world */
    lim_runtime *rt;
    uint64_t now_ns, seed;
    uint32_t schedulers;
} world;

static uint64_t world_now(lim__os *os)
{
    return ((world *)os)->now_ns;
}

static uint64_t world_random(lim__os *os)
{
    world *w = (world *)os;
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return w->seed ^ w->seed >> 29;
}

static lim__poller *world_poller_open(lim__os *os)
{
    (void)os;
    return calloc(1, sizeof(lim__poller));
}

static void world_poller_close(lim__os *os, lim__poller *p)
{
    (void)os;
    free(p);
}

static int world_poller_set(lim__os *os, lim__poller *p, int fd, uint32_t interest, void *ctx)
{
    (void)os;
    if (fd < 0 || fd >= 64)
        return -EBADF;
    for (int i = 0; i < p->ready_count; i++) /* after removal no event for fd is returned */
        if (!interest && p->ready[i].ctx == p->ctx[fd])
            p->ready[i].ctx = NULL;
    p->ctx[fd] = interest ? ctx : NULL;
    return 0;
}

static int world_poller_wait(lim__os *os, lim__poller *p, lim__io_event *ev, int max, int64_t timeout_ns)
{
    (void)os;
    int n = p->ready_count < max ? p->ready_count : max;
    memcpy(ev, p->ready, (size_t)n * sizeof *ev);
    p->ready_count -= n;
    memmove(p->ready, p->ready + n, (size_t)p->ready_count * sizeof *ev);
    p->last_timeout_ns = timeout_ns;
    p->waits++;
    p->blocked += timeout_ns != 0 && !p->woken && n == 0;
    p->woken = false;
    return n;
}

static void world_poller_wake(lim__os *os, lim__poller *p)
{
    (void)os;
    p->woken = true;
}

static int world_poller_fd(lim__os *os, lim__poller *p)
{
    (void)os, (void)p;
    return 7;
}

static inline world *world_open(uint32_t schedulers)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->os = (lim__os){ .now_ns = world_now,
                       .wall_ns = world_now,
                       .random = world_random,
                       .poller_open = world_poller_open,
                       .poller_close = world_poller_close,
                       .poller_set = world_poller_set,
                       .poller_wait = world_poller_wait,
                       .poller_wake = world_poller_wake,
                       .poller_fd = world_poller_fd };
    w->now_ns = 1000000000;
    w->seed = 42;
    w->schedulers = schedulers;
    lim__runtime_opts opts = { .os = &w->os, .scheduler_count = schedulers };
    assert_int_equal(lim__runtime_open(&opts, &w->rt), LIM_OK);
    return w;
}

static inline void world_close(world *w)
{
    lim_runtime_close(w->rt);
    free(w);
}

static inline lim__poller *world_poller(world *w, uint32_t index)
{
    return lim__sched_at(w->rt, index)->poller;
}

static inline bool step(world *w, uint32_t index)
{
    return lim__sched_turn(lim__sched_at(w->rt, index), 0);
}

static inline bool idle(world *w)
{
    for (uint32_t i = 0; i < w->schedulers; i++) {
        lim__sched *s = lim__sched_at(w->rt, i);
        if (s->run_head || s->flush_head || s->outbox_mask || s->event_next < s->event_count ||
            s->poller->ready_count || atomic_load(&s->inbox))
            return false;
    }
    return true;
}

static inline void settle(world *w)
{
    do
        for (uint32_t i = 0; i < w->schedulers; i++)
            (void)step(w, i);
    while (!idle(w));
}

/* Turns schedulers in an order drawn from the seed until nothing is left. */
static inline void settle_randomly(world *w)
{
    while (!idle(w))
        (void)step(w, (uint32_t)(world_random(&w->os) % w->schedulers));
}

static inline void advance(world *w, uint64_t ns)
{
    w->now_ns += ns;
    settle(w);
}

/* ---- puppets ---- */
enum { LOG_MAX = 32 };
typedef struct puppet {
    lim_pid pid;
    uint32_t count; /* signals seen; the first LOG_MAX are kept */
    lim_signal log[LOG_MAX];
    char text[LOG_MAX][16]; /* their bodies */
    uint32_t ends;
    lim_reason end_reason;
    uint64_t ref; /* the last monitor, timer or request */
    lim_err err;  /* of the last act */
} puppet;

typedef void puppet_act(lim_process *self, puppet *p, void *arg);
typedef struct puppet_order {
    puppet_act *act;
    void *arg;
} puppet_order;
enum { ORDER_TAG = 0xfeed };

static void puppet_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    puppet *p = *(puppet **)state;
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->tag == ORDER_TAG) {
        puppet_order o;
        memcpy(&o, signal->body.ptr, sizeof o);
        o.act(self, p, o.arg);
        return;
    }
    if (p->count < LOG_MAX) {
        p->log[p->count] = *signal;
        size_t n = signal->body.len < 15 ? signal->body.len : 15;
        if (n)
            memcpy(p->text[p->count], signal->body.ptr, n);
    }
    p->count++;
}

static void puppet_on_end(void *state, lim_reason reason)
{
    puppet *p = *(puppet **)state;
    p->ends++;
    p->end_reason = reason;
}

static inline lim_spawn_opts puppet_opts(puppet **p)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "puppet",
                             .on_signal = puppet_on_signal,
                             .on_end = puppet_on_end,
                             .state_bytes = sizeof *p,
                             .init = p,
                             .init_bytes = sizeof *p };
}

static inline puppet *puppet_new(world *w, uint32_t scheduler, bool trap)
{
    puppet *p = calloc(1, sizeof *p);
    assert_non_null(p);
    lim_spawn_opts o = puppet_opts(&p);
    o.place = true;
    o.scheduler = scheduler;
    o.trap_exit = trap;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &p->pid), LIM_OK);
    return p;
}

static inline void act(world *w, puppet *p, puppet_act *a, const void *arg)
{
    puppet_order o = { a, (void *)(uintptr_t)arg };
    assert_int_equal(lim_runtime_send(w->rt, p->pid, ORDER_TAG, lim__bytes(&o, sizeof o)), LIM_OK);
}

static inline void do_link(lim_process *self, puppet *p, void *other)
{
    p->err = lim_link(self, ((puppet *)other)->pid);
}

static inline void do_unlink(lim_process *self, puppet *p, void *other)
{
    (void)p;
    lim_unlink(self, ((puppet *)other)->pid);
}

static inline void do_monitor(lim_process *self, puppet *p, void *other)
{
    p->err = lim_monitor(self, ((puppet *)other)->pid, &p->ref);
}

static inline void do_demonitor(lim_process *self, puppet *p, void *arg)
{
    (void)arg;
    lim_demonitor(self, p->ref);
}

static inline void do_exit(lim_process *self, puppet *p, void *reason)
{
    (void)p;
    lim_exit(self, (lim_reason)(uintptr_t)reason);
}
#define REASON(r) ((void *)(uintptr_t)(r))

static inline void do_ready(lim_process *self, puppet *p, void *arg)
{
    (void)arg;
    p->err = lim_ready(self);
}

static inline void do_hello(lim_process *self, puppet *p, void *other)
{
    p->err = lim_send(self, ((puppet *)other)->pid, 1, lim__str("hello"));
}

static inline void assert_signal(const puppet *p, uint32_t index, lim_signal_kind kind, lim_reason reason)
{
    assert_true(index < p->count);
    assert_int_equal(p->log[index].kind, kind);
    assert_int_equal(p->log[index].reason, reason);
}

/* Everything but processes, turns and wakes is gone. */
static inline void assert_nothing_left(world *w, uint64_t processes)
{
    lim_census c;
    lim_runtime_census(w->rt, &c);
    assert_int_equal(c.processes, processes);
    assert_int_equal(c.links, 0);
    assert_int_equal(c.monitors, 0);
    assert_int_equal(c.timers, 0);
    assert_int_equal(c.messages, 0);
    assert_int_equal(c.letter_bytes, 0);
}

#endif
