/* SPDX-License-Identifier: Apache-2.0
 * log_keep.c - the keeper: a process with a timer per channel that has something to forget or to append later.
 *
 *      anybody --want(due)--> log.due_ns --letter, unless one is on its way--> keeper --timer--> upkeep (log_upkeep.c)
 *
 * It reads nothing and decides nothing: what is to be done is found by the upkeep. If it dies its supervisor starts it
 * again, and it looks at every channel. */
#include "bus/log_inside.h"

#include <errno.h>
#include <stdlib.h>

typedef struct call {
    lim__log *log;
} call;

static void call_drop(void *body)
{
    lim__log_unref(((call *)body)->log);
}
static const lim__letter_type call_type = { "log_call", call_drop };

typedef struct keeper { /* its process's */
    lim__logs *all;
    bool ready;
    lim__map timers; /* timer -> log, counted */
} keeper;

/* ---- being told ---- */

static void post_call(lim__log *log)
{
    call *c = lim__letter_new(NULL, &call_type, sizeof *c);
    lim_pid to = { atomic_load(&log->bus->logs->keeper) };
    if (c != NULL)
        *c = (call){ lim__log_ref(log) };
    if (c == NULL || to.id == 0) { /* whoever wants something next calls again */
        lim__letter_free(NULL, c);
        lim__lock(&log->lock);
        log->called = false;
        lim__unlock(&log->lock);
        return;
    }
    (void)!lim__post_reserved(log->bus->rt, to, c); /* dead: its successor looks at all of them */
}

void lim__log_want(lim__log *log, uint64_t due_wall_ns)
{
    lim__lock(&log->lock);
    bool sooner = due_wall_ns < log->due_ns && log->state == LIM__LOG_OPEN;
    if (sooner)
        log->due_ns = due_wall_ns;
    bool calls = sooner && !log->called && !log->busy;
    log->called |= calls;
    lim__unlock(&log->lock);
    if (calls)
        post_call(log);
}

/* ---- the process ---- */

static void set_timer(keeper *k, lim_process *self, lim__log *log, uint64_t delay_ns)
{
    void *old = log->timer != 0 ? lim__map_remove(&k->timers, log->timer) : NULL;
    if (old != NULL) {
        lim_timer_cancel(self, log->timer);
        lim__log_unref(old);
    }
    log->timer = 0;
    if (lim_timer_start(self, delay_ns, 0, &log->timer) != LIM_OK)
        return; /* at the next message */
    if (lim__map_put(&k->timers, log->timer, log) == LIM_OK) {
        lim__log_ref(log);
        return;
    }
    lim_timer_cancel(self, log->timer);
    log->timer = 0;
}

/* Its time has come, or it has a timer. */
static void look(keeper *k, lim_process *self, lim__log *log)
{
    uint64_t now = log->bus->os->wall_ns(log->bus->os);
    lim__lock(&log->lock);
    uint64_t due = log->due_ns;
    bool runs = due <= now && !log->busy && log->state == LIM__LOG_OPEN;
    if (runs) {
        log->busy = true;
        log->due_ns = UINT64_MAX;
    }
    bool waits = !runs && !log->busy && due != UINT64_MAX && log->state == LIM__LOG_OPEN;
    log->called = false;
    lim__unlock(&log->lock);
    if (runs)
        lim__log_upkeep(log);
    else if (waits)
        set_timer(k, self, log, due - now);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    keeper *k = state;
    if (!k->ready) {
        lim__map_init(&k->timers, k->all->bus->os->random(k->all->bus->os));
        k->ready = true;
    }
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &call_type) {
        look(k, self, ((const call *)signal->body.ptr)->log);
    } else if (signal->kind == LIM_SIGNAL_TIMER) {
        lim__log *log = lim__map_remove(&k->timers, signal->ref);
        if (log == NULL)
            return;
        log->timer = 0;
        look(k, self, log);
        lim__log_unref(log);
    }
}

static void on_end(void *state, lim_reason reason)
{
    keeper *k = state;
    uint64_t timer;
    void *log;
    (void)reason;
    if (!k->ready)
        return;
    for (size_t pos = 0; lim__map_next(&k->timers, &pos, &timer, &log);) {
        ((lim__log *)log)->timer = 0;
        lim__log_unref(log);
    }
    lim__map_fini(&k->timers);
}

static void on_start(void *ctx, lim_pid pid, uint32_t starts)
{
    lim__logs *all = ctx;
    lim_bytes name;
    void *log;
    (void)starts;
    atomic_store(&all->keeper, pid.id);
    lim__lock(&all->lock);
    for (size_t pos = 0; lim__smap_next(&all->names, &pos, &name, &log);)
        post_call(log);
    lim__unlock(&all->lock);
}

lim_err lim__keeper_open(lim_bus *bus)
{
    keeper init = { .all = bus->logs };
    lim_bytes name;
    void *found;
    for (size_t pos = 0; lim__smap_next(&bus->logs->names, &pos, &name, &found);)
        ((lim__log *)found)->due_ns = 0;
    lim_child_spec spec = { .size = sizeof spec, .restart = LIM_PERMANENT, .on_start = on_start, .ctx = bus->logs };
    spec.spawn = (lim_spawn_opts){ .size = sizeof spec.spawn,
                                   .name = "channel-keeper",
                                   .on_signal = on_signal,
                                   .on_end = on_end,
                                   .state_bytes = sizeof init,
                                   .init = &init,
                                   .init_bytes = sizeof init,
                                   .mailbox_max = LIM_UNLIMITED - 1 };
    return lim_supervisor_add(bus->rt, bus->supervisor, &spec);
}
