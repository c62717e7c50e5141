/* SPDX-License-Identifier: Apache-2.0
 * supervisor.c - one_for_one: a process that starts children again when they end.
 *
 * A supervisor is an ordinary process that traps exits. Its children are born on its scheduler and linked to it before
 * they first run, so every end is seen exactly once and a child never outlives its supervisor by more than its own
 * mailbox. on_start runs inside the supervisor's handler: the child cannot run before it returns.
 *
 *      add, or an end that is to be repaired --start--> RUNNING --EXIT--> restart? --yes, within intensity--> start
 *                                     |  no memory                           | no       `--over it--> shut down
 *                                     `--> WAITING (pid 0), tried again      `--> forgotten
 *
 * Intensity is a sliding window: the instants of the last restarts_max restarts are kept; one more while the oldest is
 * younger than the period ends the supervisor with LIM_SHUTDOWN. Shutting down sends each child, youngest first, an
 * exit LIM_SHUTDOWN and then LIM_KILL: who traps sees the first and has that one signal to put things in order.
 *
 * An exit from somebody who is not a child (a linked parent, lim_runtime_exit) shuts the supervisor down too. */
#include "actor/internal.h"

enum { RETRY_NS = 100000000, RESTARTS_DEFAULT = 1, PERIOD_MS_DEFAULT = 5000, RESTARTS_MAX = 65536, MAILBOX = 65536 };

typedef struct child {
    struct child *older, *younger;
    lim_child_spec spec;
    lim_pid pid; /* 0: waiting for memory */
    uint32_t starts;
    size_t bytes; /* of this block, with the init that follows */
} child;

typedef struct supervisor {
    child *youngest;
    lim__map by_pid;
    uint64_t *window; /* instants of the last restarts, a ring */
    uint32_t window_next, window_count, restarts_max;
    uint64_t period_ns;
} supervisor;

static const lim__letter_type add_type = { .name = "supervisor-add", .drop = NULL };

static void child_free(lim__sched *s, supervisor *sup, child *c)
{
    if (c->older)
        c->older->younger = c->younger;
    if (c->younger)
        c->younger->older = c->older;
    else
        sup->youngest = c->older;
    lim__free(s, c, c->bytes);
}

static void on_end(void *state, lim_reason reason)
{
    (void)reason;
    supervisor *sup = state;
    lim__sched *s = lim__sched_current();
    while (sup->youngest)
        child_free(s, sup, sup->youngest);
    lim__map_fini(&sup->by_pid);
    if (sup->window)
        lim__free(NULL, sup->window, sup->restarts_max * sizeof *sup->window);
}

static void shut_down(lim_process *self, supervisor *sup, lim_reason reason)
{
    for (child *c = sup->youngest; c; c = c->older)
        if (c->pid.id) {
            lim_exit_process(self, c->pid, LIM_SHUTDOWN);
            lim_exit_process(self, c->pid, LIM_KILL);
        }
    lim_exit(self, reason);
}

static void retry_later(lim_process *self, child *c)
{
    uint64_t timer;
    c->pid.id = 0;
    if (lim_timer_start(self, RETRY_NS, 0, &timer) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

static void start(lim_process *self, supervisor *sup, child *c)
{
    lim_spawn_opts o = c->spec.spawn;
    o.init = o.init_bytes ? c + 1 : NULL;
    o.link = true;
    o.monitor = false;
    o.place = false;
    if (lim_spawn(self, &o, &c->pid) != LIM_OK) {
        retry_later(self, c);
        return;
    }
    if (lim__map_put(&sup->by_pid, c->pid.id, c) != LIM_OK) {
        lim_unlink(self, c->pid);
        lim_exit_process(self, c->pid, LIM_KILL);
        retry_later(self, c);
        return;
    }
    c->starts++;
    if (c->spec.on_start)
        c->spec.on_start(c->spec.ctx, c->pid, c->starts);
}

static void add(lim_process *self, supervisor *sup, const lim_signal *signal)
{
    const lim_child_spec *spec = signal->body.ptr;
    size_t bytes = sizeof(child) + spec->spawn.init_bytes;
    child *c = lim__alloc(self->sched, bytes);
    if (!c) {
        shut_down(self, sup, LIM_FAULT); /* it was promised: who watches the supervisor must know */
        return;
    }
    *c = (child){ .spec = *spec, .bytes = bytes, .older = sup->youngest };
    if (spec->spawn.init_bytes)
        memcpy(c + 1, spec + 1, spec->spawn.init_bytes);
    if (sup->youngest)
        sup->youngest->younger = c;
    sup->youngest = c;
    start(self, sup, c);
}

static bool within_intensity(supervisor *sup, uint64_t now)
{
    if (sup->restarts_max == LIM_UNLIMITED)
        return true;
    uint64_t *oldest = &sup->window[sup->window_next];
    if (sup->window_count == sup->restarts_max && now - *oldest < sup->period_ns)
        return false;
    *oldest = now;
    sup->window_next = (sup->window_next + 1) % sup->restarts_max;
    if (sup->window_count < sup->restarts_max)
        sup->window_count++;
    return true;
}

static bool is_abnormal(lim_reason reason)
{
    return reason != LIM_NORMAL && reason != LIM_SHUTDOWN && reason != LIM_DRAINED;
}

static void child_ended(lim_process *self, supervisor *sup, child *c, lim_reason reason)
{
    lim__map_remove(&sup->by_pid, c->pid.id);
    bool again = c->spec.restart == LIM_PERMANENT || (c->spec.restart == LIM_TRANSIENT && is_abnormal(reason));
    if (!again) {
        child_free(self->sched, sup, c);
        return;
    }
    c->pid.id = 0;
    if (within_intensity(sup, lim_now_ns(self)))
        start(self, sup, c);
    else
        shut_down(self, sup, LIM_SHUTDOWN);
}

static void start_waiting(lim_process *self, supervisor *sup)
{
    for (child *c = sup->youngest; c; c = c->older)
        if (!c->pid.id)
            start(self, sup, c);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    supervisor *sup = state;
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &add_type)
        add(self, sup, signal);
    else if (signal->kind == LIM_SIGNAL_TIMER)
        start_waiting(self, sup);
    if (signal->kind != LIM_SIGNAL_EXIT)
        return;
    child *c = lim__map_get(&sup->by_pid, signal->from.id);
    if (c)
        child_ended(self, sup, c, signal->reason);
    else if (signal->reason != LIM_NORMAL)
        shut_down(self, sup, signal->reason);
}

lim_err lim_supervisor_open(lim_runtime *rt, const lim_supervisor_opts *opts, lim_pid *out)
{
    if (!opts || opts->size != sizeof *opts)
        return LIM_E_MISUSE;
    supervisor init = { .restarts_max = opts->restarts_max ? opts->restarts_max : RESTARTS_DEFAULT,
                        .period_ns = (opts->period_ms ? opts->period_ms : PERIOD_MS_DEFAULT) * 1000000ull };
    if (init.restarts_max != LIM_UNLIMITED && init.restarts_max > RESTARTS_MAX)
        return LIM_E_INVALID;
    size_t window_bytes = init.restarts_max == LIM_UNLIMITED ? 0 : init.restarts_max * sizeof *init.window;
    if (window_bytes && !(init.window = lim__alloc(NULL, window_bytes)))
        return LIM_E_NOMEM;
    lim__map_init(&init.by_pid, rt->os->random(rt->os));
    lim_err err = lim_runtime_spawn(rt,
                                    &(lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                                                       .name = opts->name ? opts->name : "supervisor",
                                                       .on_signal = on_signal,
                                                       .on_end = on_end,
                                                       .state_bytes = sizeof init,
                                                       .init = &init,
                                                       .init_bytes = sizeof init,
                                                       .mailbox_max = MAILBOX,
                                                       .trap_exit = true },
                                    out);
    if (err != LIM_OK)
        lim__free(NULL, init.window, window_bytes);
    return err;
}

static lim_err check_spec(const lim_child_spec *spec)
{
    if (!spec || spec->size != sizeof *spec || spec->spawn.size != sizeof spec->spawn || !spec->spawn.on_signal)
        return LIM_E_MISUSE;
    if (spec->restart < LIM_PERMANENT || spec->restart > LIM_TEMPORARY)
        return LIM_E_MISUSE;
    if (spec->spawn.state_bytes > LIM__STATE_BYTES_MAX)
        return LIM_E_TOOBIG;
    return spec->spawn.init_bytes > spec->spawn.state_bytes ? LIM_E_INVALID : LIM_OK;
}

lim_err lim_supervisor_add(lim_runtime *rt, lim_pid supervisor_pid, const lim_child_spec *spec)
{
    lim_err err = check_spec(spec);
    if (err != LIM_OK)
        return err;
    lim__sched *s = lim__sched_current();
    lim_child_spec *body =
        lim__letter_new(s && s->rt == rt ? s : NULL, &add_type, sizeof *spec + spec->spawn.init_bytes);
    if (!body)
        return LIM_E_NOMEM;
    *body = *spec;
    if (spec->spawn.init_bytes)
        memcpy(body + 1, spec->spawn.init, spec->spawn.init_bytes);
    return lim__post(rt, supervisor_pid, body);
}
