/* SPDX-License-Identifier: Apache-2.0
 * native_time.c - limits, and who looks after them: the keeper, a small process on each scheduler.
 *
 * The bus believes no clock of a helper. It notes when it first saw a call at the head of the row, and what processor
 * time its helper had used then; the kernel says how much that is now. A call that is not known to be done is charged
 * with all of it, so the first one is charged from its start. For one behind others the bus looks more often (a
 * sixteenth of the limit), so that it gets at most that much more than its limit.
 *
 * A keeper has one timer per router with something to do, and none for the others. When the row has become empty it
 * looks some times more, at longer and longer distances, 20 s in all: a helper that goes on working with nothing to do
 * is no longer ours, and is killed, also when the machine gave it hardly any processor at first.
 */
#include "route/native_inside.h"

#include <stdlib.h>

enum { CLOSER_LOOK = 16, IDLE_LOOK_NS = 20000000, IDLE_CPU_NS = 2000000, IDLE_LOOKS = 10, TIMER_LEAST_NS = 50000 };

static uint64_t now_ns(const lim__ring *g)
{
    return g->router->os->now_ns(g->router->os);
}

static lim__native_place *current(lim__ring *g)
{
    return g->current != LIM__NATIVE_NOBODY ? &g->place[g->current] : NULL;
}

static uint64_t cpu_ns(const lim__native_place *p)
{
    return p->pid > 0 ? lim__process_cpu_ns(p->pid) : 0;
}

/* ---- limits ---- */

/* Who was first when it was handed over may have run since then, and is charged as if it had. */
void lim__ring_observe(lim__ring *g)
{
    const lim__native_place *p = current(g);
    bool first = g->head != g->tail && g->head == g->front;
    uint64_t since_ns = first ? lim__ring_at(g, g->head)->begun_ns : 0;
    uint64_t now = now_ns(g), cpu = p != NULL ? cpu_ns(p) : 0,
             ran = since_ns != 0 && since_ns < now ? now - since_ns : 0;
    g->seen = g->head;
    g->seen_ns = now - ran;
    g->seen_cpu_ns = cpu > ran ? cpu - ran : 0;
}

/* What the call at the head has used for certain not less than. */
static uint64_t used_ns(const lim__ring *g, const lim__native_place *p, uint64_t now)
{
    uint64_t cpu = cpu_ns(p), used = cpu > g->seen_cpu_ns ? cpu - g->seen_cpu_ns : 0, passed = now - g->seen_ns;
    return used < passed ? used : passed;
}

uint64_t lim__ring_head_used_ns(lim__ring *g)
{
    const lim__native_place *p = current(g);
    if (p == NULL || p->phase != PLACE__READY || lim__ring_waiting(g) == 0)
        return 0;
    uint64_t cpu = cpu_ns(p);
    if (g->asked_about != g->head || cpu < g->asked_cpu_ns) {
        g->asked_about = g->head;
        g->asked_cpu_ns = cpu;
    }
    return cpu - g->asked_cpu_ns;
}

static void limit_loading(lim__ring *g, uint32_t i, uint64_t now)
{
    lim__native_place *p = &g->place[i];
    uint64_t cpu_max = g->router->limits.cpu_ns + LIM__NATIVE_FORK_NS;
    if (p->phase != PLACE__LOADING)
        return;
    if (cpu_ns(p) > cpu_max)
        lim__place_condemn(g, i, DOOM__LOAD, 0, "loading and the first call took too long (routing.cpu_us_max)");
    else if (now - p->born_ns > LIM__NATIVE_LOAD_NS)
        lim__place_condemn(g, i, DOOM__LOAD, 0, "loading and the first call took longer than 1 s");
}

static void limit_head(lim__ring *g, uint64_t now)
{
    lim__native_place *p = current(g);
    const lim__native_call *c = lim__ring_at(g, g->head);
    if (p == NULL || p->phase != PLACE__READY) {
        if (now - c->begun_ns >= g->router->limits.wall_ns)
            lim__ring_fault(g, lim__ring_pop(g), LIM__ROUTE_NOT_STARTED, 0,
                            "no helper was ready within %llu ms (routing.wall_ms_max)",
                            (unsigned long long)(g->router->limits.wall_ns / 1000000));
        return;
    }
    if (g->seen != g->head)
        lim__ring_observe(g);
    uint64_t used = used_ns(g, p, now);
    if (used >= g->router->limits.cpu_ns)
        lim__place_condemn(g, g->current, DOOM__CPU, used, "");
    else if (now - c->begun_ns >= g->router->limits.wall_ns)
        lim__place_condemn(g, g->current, DOOM__WALL, now - c->begun_ns, "");
}

/* It has used time since it was first seen with nothing to do; or it is near the end of what the kernel allows it. */
static void limit_idle(lim__ring *g)
{
    const lim__native_place *p = current(g);
    uint64_t cpu = p != NULL && p->phase == PLACE__READY ? cpu_ns(p) : 0;
    bool busy = g->idle_looks > 0 && cpu > g->idle_cpu_ns + IDLE_CPU_NS;
    if (g->idle_looks++ == 0)
        g->idle_cpu_ns = cpu;
    if (busy || cpu > (uint64_t)LIM__NATIVE_LIFE_S * 500000000u)
        lim__place_condemn(g, g->current, DOOM__RETIRED, 0, "");
}

void lim__ring_limits(lim__ring *g)
{
    uint64_t now = now_ns(g);
    for (uint32_t i = 0; i < 2; i++)
        limit_loading(g, i, now);
    if (lim__ring_waiting(g) > 0)
        limit_head(g, now);
}

/* ---- keepers ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How long nothing need be looked at; UINT64_MAX: until something happens. */
static uint64_t quiet_ns(lim__ring *g, uint64_t now)
{
    const lim__route_limits *l = &g->router->limits;
    uint64_t quiet = UINT64_MAX;
    for (uint32_t i = 0; i < 2; i++) {
        if (g->place[i].phase == PLACE__LOADING)
            quiet = least(quiet, l->cpu_ns + LIM__NATIVE_FORK_NS);
    }
    if (lim__ring_waiting(g) > 0) {
        const lim__native_place *p = current(g);
        uint64_t passed = now - lim__ring_at(g, g->head)->begun_ns;
        quiet = least(quiet, passed < l->wall_ns ? l->wall_ns - passed : 0);
        if (p != NULL && p->phase == PLACE__READY) {
            uint64_t most = g->seen == g->head ? now - g->seen_ns : passed; /* it has used no more than that */
            uint64_t used = most < l->cpu_ns ? most : used_ns(g, p, now);
            quiet = least(quiet, used < l->cpu_ns ? l->cpu_ns - used : 0);
            if (lim__ring_waiting(g) > 1)
                quiet = least(quiet, l->cpu_ns / CLOSER_LOOK);
        }
    } else if (g->idle_looks < IDLE_LOOKS) {
        quiet = least(quiet, (uint64_t)IDLE_LOOK_NS << g->idle_looks);
    }
    return quiet;
}

void lim__ring_arm(lim__ring *g)
{
    lim_process *keeper = lim__ring_keeper(g);
    if (keeper == NULL)
        return;
    if (g->timer != 0)
        lim_timer_cancel(keeper, g->timer);
    g->timer = 0;
    uint64_t quiet = quiet_ns(g, now_ns(g));
    if (quiet != UINT64_MAX)
        (void)!lim_timer_start(keeper, quiet > TIMER_LEAST_NS ? quiet : TIMER_LEAST_NS, 0, &g->timer);
}

static void on_timer(lim__ring *g)
{
    g->timer = 0;
    if (lim__ring_waiting(g) == 0)
        limit_idle(g);
    lim__ring_pump(g);
}

static void keeper_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    lim__keeper *k = state;
    (void)self;
    if (signal->kind != LIM_SIGNAL_TIMER)
        return;
    LIM__LIST_EACH(node, &k->rings) {
        lim__ring *g = LIM_CONTAINER(node, lim__ring, link);
        if (g->timer == signal->ref) {
            on_timer(g);
            return;
        }
    }
}

/* Its routers go on without: watches and timers end with it. */
static void keeper_on_end(void *state, lim_reason reason)
{
    lim__keeper *k = state;
    (void)reason;
    while (k->rings.next != NULL && lim__list_pop(&k->rings) != NULL)
        continue;
}

lim_err lim__keepers_open(lim__native *n)
{
    for (uint32_t i = 0; n->rt != NULL && i < lim__sched_count(n->rt); i++) {
        lim_spawn_opts opts = { .size = sizeof opts,
                                .name = "native-keeper",
                                .on_signal = keeper_on_signal,
                                .on_end = keeper_on_end,
                                .state_bytes = sizeof(lim__keeper),
                                .place = true,
                                .scheduler = i };
        lim_err err = lim_runtime_spawn(n->rt, &opts, &n->keepers[i]);
        if (err != LIM_OK)
            return err;
    }
    return LIM_OK;
}

lim_process *lim__ring_keeper(lim__ring *g)
{
    lim__sched *s = lim__sched_current();
    if (lim__list_empty(&g->link) || s == NULL)
        return NULL;
    return lim__local_process(s, g->native->keepers[lim__sched_index(s)]);
}

static void on_event(lim_process *keeper, lim__watch *watch, uint32_t ready)
{
    lim__ring *g = LIM_CONTAINER(watch, lim__ring, event_watch);
    (void)keeper, (void)ready;
    lim__event_clear(g->event);
    lim__ring_pump(g);
}

bool lim__ring_may_be_kept(const lim__ring *g)
{
    lim__sched *s = lim__sched_current();
    return s != NULL && lim__sched_runtime(s) == g->native->rt &&
           lim__local_process(s, g->native->keepers[lim__sched_index(s)]) != NULL;
}

void lim__ring_join_keeper(lim__ring *g)
{
    lim__sched *s = lim__sched_current();
    lim__list_init(&g->link);
    if (s == NULL || lim__sched_runtime(s) != g->native->rt)
        return;
    lim_process *keeper = lim__local_process(s, g->native->keepers[lim__sched_index(s)]);
    if (keeper == NULL)
        return;
    lim__keeper *k = lim__proc_state(keeper);
    if (k->rings.next == NULL)
        lim__list_init(&k->rings);
    g->event_watch.on_ready = on_event;
    if (lim__watch_set(keeper, &g->event_watch, g->event, LIM__IO_READ) == 0)
        lim__list_push(&k->rings, &g->link);
}

void lim__ring_leave_keeper(lim__ring *g)
{
    lim_process *keeper = lim__ring_keeper(g);
    if (keeper != NULL) {
        (void)!lim__watch_set(keeper, &g->event_watch, g->event, 0);
        if (g->timer != 0)
            lim_timer_cancel(keeper, g->timer);
    }
    lim__list_remove(&g->link);
}
