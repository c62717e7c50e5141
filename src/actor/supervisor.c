/* SPDX-License-Identifier: Apache-2.0
 * supervisor.c - a process that starts children, starts them again when they end, and stops them in order.
 *
 * A supervisor is an ordinary process that traps exits. Its children are linked to it before they first run, so every
 * end is seen exactly once. on_start runs inside the supervisor's handler: the child cannot run before it returns.
 *
 *   add --> WAITING --start--> STARTING --lim_ready--> UP --doom--> DOOMED --its turn: stop--> STOPPING --EXIT--.
 *              ^  (ready_ms 0: UP at once)   |          |              |        (after shutdown_ms: kill)        |
 *              |                             `---EXIT---+---- EXIT ----'                                         |
 *              `---- to be started again <--------------+--------------------------------------------------------'
 *                                                       `--> forgotten
 *
 * Children are kept in the order they were added. After each event `proceed` does what can be done: of those DOOMED the
 * youngest is stopped, and the next one when it has ended; when nobody is left to stop, those WAITING are started, the
 * eldest first, each when the one before it is UP. LIM_DYNAMIC takes no turns. Who is doomed is the strategy's choice
 * when a child ends that is to be started again; shutting down dooms all, and the supervisor ends when all have.
 *
 * Intensity is a sliding window: the instants of the last restarts_max restarts are kept; one more while the oldest is
 * younger than the period shuts the supervisor down with LIM_SHUTDOWN: its own supervisor then decides (escalation).
 *
 * An exit from somebody who is not a child (a linked parent, lim_runtime_exit) shuts the supervisor down too.
 *
 * Memory: a child is started only when the two exits that may have to stop it are in its record (U1). A start for which
 * there is no memory is tried again RETRY_NS later; a stop for whose timer there is none kills at once.
 *
 * Invariants:
 *   U1  a child that is not WAITING has both its carriers, or has been sent what they carried.
 *   U2  by_pid holds exactly the children that are not WAITING.
 *   U3  waiting, starting and doomed count the children in WAITING, in STARTING, and in DOOMED or STOPPING. */
#include "actor/internal.h"

enum { RETRY_NS = 100000000, RESTARTS_DEFAULT = 1, PERIOD_MS_DEFAULT = 5000, RESTARTS_MAX = 65536, MAILBOX = 65536 };
enum { SHUTDOWN_MS_DEFAULT = 5000 };

typedef enum child_phase { WAITING = 1, STARTING, UP, DOOMED, STOPPING } child_phase;
typedef enum child_then { AGAIN = 1, FORGET } child_then; /* what follows the end of one that was doomed */

typedef struct child {
    struct child *older, *younger;
    lim_child_spec spec;
    lim_supervisor_opts supervisor; /* spec.supervisor points here, or nowhere */
    lim_pid pid;                    /* 0: WAITING */
    child_phase phase;
    child_then then;
    uint32_t starts;
    uint64_t timer;           /* STARTING: ready_ms, STOPPING: shutdown_ms; 0: none */
    lim__letter *stop, *kill; /* what will carry the exits; NULL: sent */
    size_t bytes;             /* of this block, with the init that follows */
} child;

typedef struct supervisor {
    child *eldest, *youngest;
    lim__map by_pid;
    uint64_t *window; /* instants of the last restarts, a ring */
    uint32_t window_next, window_count, restarts_max;
    uint64_t period_ns; /* UINT64_MAX: the window never slides */
    lim_strategy strategy;
    lim_reason ending; /* LIM_REASON_NONE: not shutting down */
    uint32_t waiting, starting, doomed;
    uint64_t retry; /* timer; 0: none */
} supervisor;

typedef struct add_body {
    lim_child_spec spec;
    lim_supervisor_opts supervisor;
} add_body; /* and the init */

static const lim__letter_type add_type = { .name = "supervisor-add", .drop = NULL };
static const lim__letter_type stop_type = { .name = "supervisor-stop", .drop = NULL };
static const lim__letter_type ready_type = { .name = "supervisor-ready", .drop = NULL };

/* ---- the list ---- */
static uint32_t *count_of(supervisor *sup, child_phase phase)
{
    switch (phase) {
    case WAITING:
        return &sup->waiting;
    case STARTING:
        return &sup->starting;
    case DOOMED:
    case STOPPING:
        return &sup->doomed;
    case UP:
        break;
    }
    return NULL; /* nobody counts those */
}

static void phase_set(supervisor *sup, child *c, child_phase phase)
{
    uint32_t *before = count_of(sup, c->phase), *after = count_of(sup, phase);
    if (before)
        --*before;
    if (after)
        ++*after;
    c->phase = phase;
}

static void child_link(supervisor *sup, child *c)
{
    c->older = sup->youngest;
    if (sup->youngest)
        sup->youngest->younger = c;
    else
        sup->eldest = c;
    sup->youngest = c;
    c->phase = WAITING;
    sup->waiting++;
}

static void child_free(lim__sched *s, supervisor *sup, child *c)
{
    uint32_t *count = count_of(sup, c->phase);
    if (count)
        --*count;
    *(c->older ? &c->older->younger : &sup->eldest) = c->younger;
    *(c->younger ? &c->younger->older : &sup->youngest) = c->older;
    if (c->stop)
        lim__letter_drop(s, c->stop);
    if (c->kill)
        lim__letter_drop(s, c->kill);
    lim__free(s, c, c->bytes);
}

static void window_free(uint64_t *window, uint32_t restarts_max)
{
    if (window)
        lim__free(NULL, window, restarts_max * sizeof *window);
}

static void on_end(void *state, lim_reason reason)
{
    (void)reason;
    supervisor *sup = state;
    lim__sched *s = lim__sched_current();
    while (sup->youngest)
        child_free(s, sup, sup->youngest);
    lim__map_fini(&sup->by_pid);
    window_free(sup->window, sup->restarts_max);
}

/* ---- stopping ---- */
static void timer_clear(lim_process *self, child *c)
{
    if (c->timer)
        (void)lim_timer_cancel(self, c->timer);
    c->timer = 0;
}

/* Sends the exit that was reserved; nothing if it was sent before. */
static void carry(lim_process *self, const child *c, lim__letter **carrier, lim_reason reason)
{
    lim__letter *l = *carrier;
    if (!l)
        return;
    *carrier = NULL;
    l->kind = LIM__EXIT;
    l->to = c->pid;
    l->from = self->pid;
    l->reason = reason;
    l->at_ns = self->sched->now_ns;
    lim__route(self->sched, l);
}

static uint64_t shutdown_ns(const child *c)
{
    uint32_t ms = c->spec.shutdown_ms;
    if (ms == 0)
        ms = c->spec.supervisor ? LIM_UNLIMITED : SHUTDOWN_MS_DEFAULT;
    return ms == LIM_UNLIMITED ? UINT64_MAX : ms * 1000000ull;
}

static void stop(lim_process *self, supervisor *sup, child *c)
{
    uint64_t wait = shutdown_ns(c);
    timer_clear(self, c);
    phase_set(sup, c, STOPPING);
    carry(self, c, &c->stop, LIM_SHUTDOWN);
    if (wait != UINT64_MAX && lim_timer_start(self, wait, 0, &c->timer) != LIM_OK)
        carry(self, c, &c->kill, LIM_KILL);
}

static void doom(supervisor *sup, child *c)
{
    if (c->phase == STARTING || c->phase == UP)
        phase_set(sup, c, DOOMED);
    if (c->spec.restart == LIM_TEMPORARY || sup->ending)
        c->then = FORGET;
}

/* The youngest of the doomed, or all of them at once. */
static void stop_next(lim_process *self, supervisor *sup)
{
    bool forward = LIM__MUTATION("eldest_first");
    for (child *c = forward ? sup->eldest : sup->youngest; c; c = forward ? c->younger : c->older) {
        bool doomed = c->phase == DOOMED || c->phase == STOPPING;
        if (c->phase == DOOMED)
            stop(self, sup, c);
        if (doomed && sup->strategy != LIM_DYNAMIC)
            return;
    }
}

/* ---- starting ---- */
static void retry_later(lim_process *self, supervisor *sup)
{
    if (sup->retry == 0 && lim_timer_start(self, RETRY_NS, 0, &sup->retry) != LIM_OK)
        lim_exit(self, LIM_FAULT); /* not even for that: the links tell everybody */
}

static bool carriers_reserve(lim__sched *s, child *c)
{
    if (!c->stop)
        c->stop = lim__letter_make(s, 0);
    if (!c->kill)
        c->kill = lim__letter_make(s, 0);
    return c->stop && c->kill;
}

static lim_err supervisor_init(lim_runtime *rt, const lim_supervisor_opts *opts, supervisor *sup)
{
    uint32_t period = opts->period_ms ? opts->period_ms : PERIOD_MS_DEFAULT;
    *sup = (supervisor){ .restarts_max = opts->restarts_max ? opts->restarts_max : RESTARTS_DEFAULT,
                         .period_ns = period == LIM_UNLIMITED ? UINT64_MAX : period * 1000000ull,
                         .strategy = opts->strategy ? opts->strategy : LIM_ONE_FOR_ONE };
    if (sup->restarts_max != LIM_UNLIMITED) {
        sup->window = lim__alloc(NULL, sup->restarts_max * sizeof *sup->window);
        if (!sup->window)
            return LIM_E_NOMEM;
    }
    lim__map_init(&sup->by_pid, rt->os->random(rt->os));
    return LIM_OK;
}

static lim_spawn_opts supervisor_spawn(const lim_supervisor_opts *opts, const supervisor *init)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = opts->name ? opts->name : "supervisor",
                             .on_signal = lim__supervisor_on_signal,
                             .on_end = on_end,
                             .state_bytes = sizeof *init,
                             .init = init,
                             .init_bytes = sizeof *init,
                             .mailbox_max = MAILBOX,
                             .trap_exit = true };
}

static lim_err spawn(lim_process *self, child *c)
{
    lim_spawn_opts o = c->spec.spawn;
    supervisor init = { 0 };
    o.init = o.init_bytes ? c + 1 : NULL;
    if (c->spec.supervisor) {
        lim_err err = supervisor_init(self->sched->rt, &c->supervisor, &init);
        if (err != LIM_OK)
            return err;
        o = supervisor_spawn(&c->supervisor, &init);
        o.place = c->spec.spawn.place;
        o.scheduler = c->spec.spawn.scheduler;
    }
    o.link = true;
    o.monitor = false;
    lim_err err = lim_spawn(self, &o, &c->pid);
    if (err != LIM_OK)
        window_free(init.window, init.restarts_max);
    return err;
}

static void wait_for_ready(lim_process *self, supervisor *sup, child *c)
{
    uint32_t ms = c->spec.ready_ms;
    phase_set(sup, c, ms ? STARTING : UP);
    if (ms && ms != LIM_UNLIMITED && lim_timer_start(self, ms * 1000000ull, 0, &c->timer) != LIM_OK)
        carry(self, c, &c->kill, LIM_KILL); /* it might never be ready; its end is one like any other */
}

/* False: no memory; it stays WAITING. */
static bool start(lim_process *self, supervisor *sup, child *c)
{
    if (!carriers_reserve(self->sched, c) || spawn(self, c) != LIM_OK) {
        c->pid.id = 0;
        retry_later(self, sup);
        return false;
    }
    if (lim__map_put(&sup->by_pid, c->pid.id, c) != LIM_OK) {
        lim_unlink(self, c->pid);
        carry(self, c, &c->kill, LIM_KILL);
        c->pid.id = 0;
        retry_later(self, sup);
        return false;
    }
    c->starts++;
    c->then = AGAIN;
    wait_for_ready(self, sup, c);
    if (c->spec.on_start)
        c->spec.on_start(c->spec.ctx, c->pid, c->starts);
    return true;
}

/* Those WAITING, the eldest first, as long as nobody has to be waited for. */
static void start_next(lim_process *self, supervisor *sup)
{
    for (child *c = sup->eldest; c && sup->waiting > 0; c = c->younger) {
        if (c->phase == WAITING && !start(self, sup, c))
            return;
        if (c->phase == STARTING && sup->strategy != LIM_DYNAMIC)
            return;
    }
}

static bool is_grouped(const supervisor *sup)
{
    return sup->strategy == LIM_ONE_FOR_ALL || sup->strategy == LIM_REST_FOR_ONE;
}

static void proceed(lim_process *self, supervisor *sup)
{
    if (sup->doomed > 0)
        stop_next(self, sup);
    if (sup->doomed > 0 && (is_grouped(sup) || sup->ending))
        return;
    if (sup->ending)
        lim_exit(self, sup->ending);
    else if (sup->waiting > 0)
        start_next(self, sup);
}

static void shut_down(lim_process *self, supervisor *sup, lim_reason reason)
{
    if (sup->ending)
        return;
    sup->ending = reason;
    for (child *c = sup->eldest; c; c = c->younger)
        doom(sup, c);
    proceed(self, sup);
}

/* ---- what happens ---- */
static void on_add(lim_process *self, supervisor *sup, const add_body *body)
{
    size_t init_bytes = body->spec.supervisor ? 0 : body->spec.spawn.init_bytes, bytes = sizeof(child) + init_bytes;
    if (sup->ending)
        return;
    child *c = lim__alloc(self->sched, bytes);
    if (!c) {
        shut_down(self, sup, LIM_FAULT); /* it was promised: who watches the supervisor must know */
        return;
    }
    *c = (child){ .spec = body->spec, .supervisor = body->supervisor, .bytes = bytes, .then = AGAIN };
    c->spec.supervisor = body->spec.supervisor ? &c->supervisor : NULL;
    if (init_bytes)
        memcpy(c + 1, body + 1, init_bytes);
    child_link(sup, c);
    if (sup->strategy == LIM_DYNAMIC)
        (void)start(self, sup, c);
    else
        proceed(self, sup);
}

static void on_stop(lim_process *self, supervisor *sup, lim_pid pid)
{
    child *c = lim__map_get(&sup->by_pid, pid.id);
    if (!c)
        return;
    doom(sup, c);
    c->then = FORGET;
    proceed(self, sup);
}

static void on_ready(lim_process *self, supervisor *sup, lim_pid pid)
{
    child *c = lim__map_get(&sup->by_pid, pid.id);
    if (!c || c->phase != STARTING)
        return;
    timer_clear(self, c);
    phase_set(sup, c, UP);
    proceed(self, sup);
}

static bool within_intensity(supervisor *sup, uint64_t now)
{
    if (sup->restarts_max == LIM_UNLIMITED || LIM__MUTATION("uncounted_restart"))
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

static void doom_group(supervisor *sup, child *ended)
{
    child *first = sup->strategy == LIM_ONE_FOR_ALL ? sup->eldest : ended->younger;
    for (child *c = is_grouped(sup) ? first : NULL; c; c = c->younger)
        doom(sup, c);
}

/* It ended by itself. */
static void restart(lim_process *self, supervisor *sup, child *c, lim_reason reason)
{
    bool again = c->spec.restart == LIM_PERMANENT || (c->spec.restart == LIM_TRANSIENT && is_abnormal(reason));
    if (!again)
        child_free(self->sched, sup, c);
    else if (!within_intensity(sup, lim_now_ns(self)))
        shut_down(self, sup, LIM_SHUTDOWN);
    else if (is_grouped(sup))
        doom_group(sup, c);
    else
        (void)start(self, sup, c); /* the others do not mind */
}

static void on_child_end(lim_process *self, supervisor *sup, child *c, lim_reason reason)
{
    bool doomed = c->phase == DOOMED || c->phase == STOPPING;
    (void)lim__map_remove(&sup->by_pid, c->pid.id);
    timer_clear(self, c);
    c->pid.id = 0;
    phase_set(sup, c, WAITING);
    if (sup->ending || (doomed && c->then == FORGET))
        child_free(self->sched, sup, c);
    else if (!doomed)
        restart(self, sup, c, reason);
    proceed(self, sup);
}

static void on_exit_signal(lim_process *self, supervisor *sup, const lim_signal *signal)
{
    child *c = lim__map_get(&sup->by_pid, signal->from.id);
    if (c)
        on_child_end(self, sup, c, signal->reason);
    else if (signal->reason != LIM_NORMAL)
        shut_down(self, sup, signal->reason);
}

static void on_timer(lim_process *self, supervisor *sup, uint64_t timer)
{
    if (timer == sup->retry) {
        sup->retry = 0;
        proceed(self, sup);
        return;
    }
    for (child *c = sup->eldest; c; c = c->younger)
        if (c->timer == timer) { /* not ready, or not gone, in time */
            c->timer = 0;
            carry(self, c, &c->kill, LIM_KILL);
            return;
        }
}

static void on_letter(lim_process *self, supervisor *sup, const lim_signal *signal)
{
    if (signal->type == &add_type)
        on_add(self, sup, signal->body.ptr);
    else if (signal->type == &stop_type)
        on_stop(self, sup, *(const lim_pid *)signal->body.ptr);
    else if (signal->type == &ready_type)
        on_ready(self, sup, signal->from);
}

void lim__supervisor_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    switch (signal->kind) {
    case LIM_SIGNAL_MESSAGE:
        on_letter(self, state, signal);
        break;
    case LIM_SIGNAL_EXIT:
        on_exit_signal(self, state, signal);
        break;
    case LIM_SIGNAL_TIMER:
        on_timer(self, state, signal->ref);
        break;
    case LIM_SIGNAL_DOWN:
    case LIM_SIGNAL_RESPONSE:
        break; /* it watches and asks nobody */
    }
}

/* ---- from outside ---- */
static lim_err check_opts(const lim_supervisor_opts *o)
{
    if (!o || o->size != sizeof *o || (uint32_t)o->strategy > LIM_DYNAMIC)
        return LIM_E_MISUSE;
    return o->restarts_max != LIM_UNLIMITED && o->restarts_max > RESTARTS_MAX ? LIM_E_INVALID : LIM_OK;
}

lim_err lim_supervisor_open(lim_runtime *rt, const lim_supervisor_opts *opts, lim_pid *out)
{
    supervisor init;
    lim_err err = check_opts(opts);
    if (err == LIM_OK)
        err = supervisor_init(rt, opts, &init);
    if (err != LIM_OK)
        return err;
    lim_spawn_opts o = supervisor_spawn(opts, &init);
    err = lim_runtime_spawn(rt, &o, out);
    if (err != LIM_OK)
        window_free(init.window, init.restarts_max);
    return err;
}

static lim_err check_spec(const lim_runtime *rt, const lim_child_spec *spec)
{
    if (!spec || spec->size != sizeof *spec || spec->spawn.size != sizeof spec->spawn)
        return LIM_E_MISUSE;
    if (spec->restart < LIM_PERMANENT || spec->restart > LIM_TEMPORARY)
        return LIM_E_MISUSE;
    if (spec->spawn.place && spec->spawn.scheduler >= rt->count)
        return LIM_E_INVALID;
    if (spec->supervisor)
        return check_opts(spec->supervisor);
    if (!spec->spawn.on_signal)
        return LIM_E_MISUSE;
    if (spec->spawn.state_bytes > LIM__STATE_BYTES_MAX)
        return LIM_E_TOOBIG;
    return spec->spawn.init_bytes > spec->spawn.state_bytes ? LIM_E_INVALID : LIM_OK;
}

static lim__sched *sched_here(const lim_runtime *rt)
{
    lim__sched *s = lim__sched_current();
    return s && s->rt == rt ? s : NULL;
}

lim_err lim_supervisor_add(lim_runtime *rt, lim_pid supervisor_pid, const lim_child_spec *spec)
{
    lim_err err = check_spec(rt, spec);
    if (err != LIM_OK)
        return err;
    size_t init_bytes = spec->supervisor ? 0 : spec->spawn.init_bytes;
    add_body *body = lim__letter_new(sched_here(rt), &add_type, sizeof *body + init_bytes);
    if (!body)
        return LIM_E_NOMEM;
    body->spec = *spec;
    body->supervisor = spec->supervisor ? *spec->supervisor : (lim_supervisor_opts){ 0 };
    if (init_bytes)
        memcpy(body + 1, spec->spawn.init, init_bytes);
    return lim__post(rt, supervisor_pid, body);
}

lim_err lim_supervisor_stop(lim_runtime *rt, lim_pid supervisor_pid, lim_pid child_pid)
{
    lim_pid *body = lim__letter_new(sched_here(rt), &stop_type, sizeof *body);
    if (!body)
        return LIM_E_NOMEM;
    *body = child_pid;
    return lim__post(rt, supervisor_pid, body);
}

static lim_pid supervisor_of(const lim_process *p)
{
    for (const lim__node *n = p->links; n; n = n->next)
        if ((lim__link_of(n)->link & LIM__LINK_SUPERVISED) && lim__link_is_child(n))
            return lim__link_other(n);
    return (lim_pid){ 0 };
}

lim_err lim_ready(lim_process *self)
{
    if (lim__is_away(self))
        return lim__away_ready(self);
    lim_pid to = supervisor_of(self);
    if (!to.id)
        return LIM_E_INVALID;
    void *body = lim__letter_new(self->sched, &ready_type, 0);
    return body ? lim__send_reserved(self, to, body) : LIM_E_NOMEM;
}
