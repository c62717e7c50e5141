/* SPDX-License-Identifier: Apache-2.0
 * isolated.c - functions of the embedding program that may take long: each call is a process of its own, on a thread of
 * the pool for blocking work.
 *
 *      call --> a process, blocking --queue--> a thread: decide() --returned--> the process ends --> DONE --on_ready-->
 *        |                                                                                   owner --resume--> on_done
 *        `-- keeper's timer: the limit is over --> nobody waits for it any more; what it answers is dropped
 *
 * Nobody can stop a thread. A function that does not come back in time keeps its own, and what it was given (a copy of
 * the candidates, a reference to the message) stays until it returns. Such threads are counted; when all but one of
 * the pool are lost that way no call is begun: the last one is for others.
 *
 * All but decide() happens on the router's scheduler: the process is born there, and its on_end runs there.
 *
 * Invariants (isolated_check):
 *   I1  a call is IDLE, OUT (it has an invocation that knows it) or DONE (in `done`); out + done_count are pending.
 *   I2  an invocation belongs to its process, whose on_end frees it; its call may have left it before.
 *   I3  an invocation that was left while it ran is counted in the pool's `lost` until it returns. */
#include <liminal/liminal.h>
#include "base/list.h"
#include "route/engine.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 256 };

typedef enum call_phase { CALL_IDLE = 1, CALL_OUT, CALL_DONE } call_phase;

/*  WAITING --a thread--> RUNNING --decide returned--> RETURNED
 *     `--its call left it--> CANCELLED: no thread begins it */
typedef enum run_phase { RUN_WAITING = 1, RUN_RUNNING, RUN_RETURNED, RUN_CANCELLED } run_phase;

typedef struct call {
    call_phase phase;
    void *call_ctx;
    struct invocation *v;     /* OUT */
    uint64_t begun_ns, timer; /* OUT */
    lim__route_result result; /* DONE */
    char text[TEXT_MAX];
    lim__list link; /* in done, or idle */
} call;

typedef struct isolated { /* of a router */
    lim__router *router;
    lim_pid keeper;
    uint32_t out, done_count, alive; /* alive: how many are in `living` */
    lim__list idle, done;
    lim__list living; /* invocations that have not ended, left ones too */
    call calls[];     /* unfinished_max of them */
} isolated;

typedef struct invocation { /* of a process */
    lim__list node;         /* scheduler only: in home->living */
    isolated *home;         /* scheduler only; NULL: the router is gone */
    call *c;                /* scheduler only; NULL: it was left */
    bool lost;              /* scheduler only: counted */
    _Atomic uint32_t phase;
    _Atomic uint32_t *lost_count;
    lim__host fn;
    lim_route_message msg;
    lim__msg *keep; /* NULL: what msg shows is behind the views */
    int64_t answer;
    uint32_t count;
    lim_candidate views[];
} invocation;

static void isolated_check(const isolated *h)
{
#ifdef LIM_DEBUG
    uint32_t out = 0, done = 0;
    for (uint32_t i = 0; i < h->router->limits.unfinished_max; i++) {
        out += h->calls[i].phase == CALL_OUT;
        done += h->calls[i].phase == CALL_DONE;
        LIM_CHECK(h->calls[i].phase != CALL_OUT || h->calls[i].v->c == &h->calls[i]); /* I1 */
    }
    LIM_CHECK(out == h->out && done == h->done_count && h->out <= h->alive);
#else
    (void)h;
#endif
}

static lim_process *keeper_of(const isolated *h)
{
    lim__sched *s = lim__sched_current();
    return s != NULL ? lim__local_process(s, h->keeper) : NULL;
}

/* ---- what an invocation is given ---- */

typedef struct packer { /* counts first, then copies to `at` */
    char *at;
    size_t bytes;
} packer;

static lim_bytes pack(packer *p, lim_bytes from)
{
    lim_bytes to = lim__bytes(p->at, from.len);
    p->bytes += from.len;
    if (p->at != NULL && from.len > 0) {
        memcpy(p->at, from.ptr, from.len);
        p->at += from.len;
    }
    return to;
}

static const lim_bytes *pack_list(packer *p, lim_bytes **slots, const lim_bytes *from, uint32_t count)
{
    lim_bytes *list = slots != NULL ? *slots : NULL;
    for (uint32_t i = 0; i < count; i++) {
        lim_bytes text = pack(p, from[i]);
        if (list != NULL)
            list[i] = text;
    }
    if (slots != NULL)
        *slots += count;
    return list;
}

/* Texts of the candidates, and the message unless it is kept. v NULL: only counted. */
static void pack_all(packer *p, invocation *v, lim_bytes *slots, const lim__route_msg *msg,
                     const lim__candidate *const *candidates, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const lim__candidate *c = candidates[i];
        lim_candidate view;
        lim__host_view(c, &view);
        view.name = pack(p, c->name);
        view.node = pack(p, c->node);
        view.tags = pack_list(p, v != NULL ? &slots : NULL, c->tags, c->tag_count);
        view.types = pack_list(p, v != NULL ? &slots : NULL, c->types, c->type_count);
        if (v != NULL)
            v->views[i] = view;
    }
    if (msg->keep != NULL)
        return;
    lim_bytes payload = pack(p, msg->payload), headers = pack(p, msg->headers);
    if (v != NULL)
        v->msg = (lim_route_message){ .payload = payload, .headers = headers };
}

static invocation *invocation_new(const lim__router *r, const lim__route_msg *msg,
                                  const lim__candidate *const *candidates, uint32_t n)
{
    packer p = { 0 };
    size_t slots = 0;
    pack_all(&p, NULL, NULL, msg, candidates, n);
    for (uint32_t i = 0; i < n; i++)
        slots += candidates[i]->tag_count + candidates[i]->type_count;
    size_t head = sizeof(invocation) + n * sizeof(lim_candidate);
    invocation *v = malloc(head + slots * sizeof(lim_bytes) + p.bytes);
    if (v == NULL)
        return NULL;
    *v = (invocation){ .phase = RUN_WAITING, .fn = r->host, .count = n };
    lim_bytes *lists = (lim_bytes *)(void *)((char *)v + head);
    p = (packer){ .at = (char *)(lists + slots) };
    pack_all(&p, v, lists, msg, candidates, n);
    if (msg->keep != NULL) {
        v->keep = lim__msg_ref(msg->keep);
        v->msg = (lim_route_message){ .payload = msg->payload, .headers = msg->headers };
    }
    return v;
}

static void invocation_free(invocation *v)
{
    lim__msg_unref(v->keep);
    free(v);
}

/* ---- ends ---- */

static void to_idle(isolated *h, call *c)
{
    c->phase = CALL_IDLE;
    lim__list_push(&h->idle, &c->link);
}

/* OUT becomes DONE: `result` is what its owner will be told. */
static void finish(isolated *h, call *c, const lim__route_result *result)
{
    lim_process *keeper = keeper_of(h);
    if (c->timer != 0 && keeper != NULL)
        lim_timer_cancel(keeper, c->timer);
    c->timer = 0;
    c->v = NULL;
    c->result = *result;
    c->phase = CALL_DONE;
    lim__list_push(&h->done, &c->link);
    h->out--;
    h->done_count++;
}

/* Its call does not want it any more. True: a thread had begun with it. */
static bool leave(invocation *v)
{
    uint32_t waiting = RUN_WAITING;
    v->c = NULL;
    /* relaxed: nothing is handed over; the thread's own exchange decides who was first */
    if (atomic_compare_exchange_strong_explicit(&v->phase, &waiting, RUN_CANCELLED, memory_order_relaxed,
                                                memory_order_relaxed))
        return false;
    v->lost = true;
    atomic_fetch_add_explicit(v->lost_count, 1, memory_order_relaxed);
    return true;
}

/* What it answered, judged against what it was shown. */
static void judge(isolated *h, call *c, const invocation *v)
{
    lim__router *r = h->router;
    lim__route_result result = { .text = "", .hash = r->artifact->hash };
    lim__hist_record(&r->stats.time_ns, r->os->now_ns(r->os) - c->begun_ns);
    /* acquire: pairs with the release behind decide() */
    if (atomic_load_explicit(&v->phase, memory_order_acquire) != RUN_RETURNED) {
        result.how = LIM__ROUTE_NOT_STARTED;
        result.text = "the bus is closing";
    } else if (v->answer == LIM_ROUTE_NOBODY) {
        result.how = LIM__ROUTE_NONE;
    } else if (v->answer < 0 || v->answer >= v->count) {
        snprintf(c->text, sizeof c->text, "%s: answered %" PRId64 ", which is none of the %u candidates", r->name,
                 v->answer, v->count);
        result.how = LIM__ROUTE_CRASHED;
        result.text = c->text;
    } else {
        result.how = LIM__ROUTE_DECIDED;
        result.index = (uint32_t)v->answer;
        result.id = v->views[v->answer].id;
    }
    finish(h, c, &result);
}

static void tell_ready(const isolated *h)
{
    isolated_check(h);
    if (h->router->on_ready != NULL)
        h->router->on_ready(h->router->ctx);
}

/* ---- the process of a call ---- */

static void run(lim_process *self, const lim_signal *signal, void *state)
{
    invocation *v = *(invocation **)state;
    uint32_t waiting = RUN_WAITING;
    (void)self;
    /* relaxed: the job's queue has handed over all that is read here */
    if (signal->kind != LIM_SIGNAL_MESSAGE ||
        !atomic_compare_exchange_strong_explicit(&v->phase, &waiting, RUN_RUNNING, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    v->answer = v->fn.decide(v->fn.ctx, &v->msg, v->views, v->count);
    atomic_store_explicit(&v->phase, RUN_RETURNED, memory_order_release); /* pairs with the acquire in judge */
}

static void on_run_end(void *state, lim_reason reason)
{
    invocation *v = *(invocation **)state;
    isolated *h = v->home;
    (void)reason;
    if (v->lost)
        atomic_fetch_sub_explicit(v->lost_count, 1, memory_order_relaxed);
    if (h != NULL) {
        lim__list_remove(&v->node);
        h->alive--;
        if (v->c != NULL) {
            judge(h, v->c, v);
            tell_ready(h);
        }
    }
    invocation_free(v);
}

static const lim__letter_type type_go = { "isolated_call", NULL };

/* The exit comes behind the letter: it ends when it has returned. */
static lim_err spawn(isolated *h, invocation *v)
{
    lim_process *keeper = keeper_of(h);
    lim_pid pid;
    const lim_spawn_opts opts = { .size = sizeof opts,
                                  .name = "isolated-route",
                                  .on_signal = run,
                                  .on_end = on_run_end,
                                  .state_bytes = sizeof v,
                                  .init = &v,
                                  .init_bytes = sizeof v,
                                  .blocking = true };
    if (keeper == NULL)
        return LIM_E_CLOSED;
    void *go = lim__letter_new(lim__proc_sched(keeper), &type_go, 0);
    if (go == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim_spawn(keeper, &opts, &pid);
    if (err != LIM_OK) {
        lim__letter_free(lim__proc_sched(keeper), go);
        return err;
    }
    (void)!lim__send_reserved(keeper, pid, go);
    (void)!lim_exit_process(keeper, pid, LIM_KILL);
    return LIM_OK;
}

/* ---- the keeper: a process that has timers ---- */

static void give_up(isolated *h, call *c)
{
    lim__router *r = h->router;
    uint64_t after = r->os->now_ns(r->os) - c->begun_ns;
    lim__route_result result = { .text = c->text, .hash = r->artifact->hash, .after_ns = after };
    c->timer = 0;
    if (leave(c->v)) {
        result.how = LIM__ROUTE_TIMED_OUT;
        snprintf(c->text, sizeof c->text,
                 "%s: abandoned %" PRIu64 " ms after it was called (routing.wall_ms_max); its thread is not free yet",
                 r->name, after / 1000000);
        r->stats.overruns++;
        lim__router_log(r, c->text, strlen(c->text));
    } else {
        result.how = LIM__ROUTE_NOT_STARTED;
        snprintf(c->text, sizeof c->text,
                 "%s: no thread was free for it within %" PRIu64 " ms; there are %u (blocking_max)", r->name,
                 after / 1000000, lim__blocking_thread_max(lim__sched_runtime(lim__sched_current())));
    }
    finish(h, c, &result);
    tell_ready(h);
}

static void keeper_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    isolated *h = *(isolated **)state;
    (void)self;
    if (h == NULL || signal->kind != LIM_SIGNAL_TIMER)
        return;
    for (uint32_t i = 0; i < h->router->limits.unfinished_max; i++) {
        if (h->calls[i].phase == CALL_OUT && h->calls[i].timer == signal->ref) {
            give_up(h, &h->calls[i]);
            return;
        }
    }
}

static lim_err keeper_open(isolated *h)
{
    lim__sched *s = lim__sched_current();
    const lim_spawn_opts opts = { .size = sizeof opts,
                                  .name = "isolated-keeper",
                                  .on_signal = keeper_on_signal,
                                  .state_bytes = sizeof h,
                                  .init = &h,
                                  .init_bytes = sizeof h,
                                  .place = true,
                                  .scheduler = lim__sched_index(s) };
    return lim_runtime_spawn(lim__sched_runtime(s), &opts, &h->keeper);
}

static void keeper_close(isolated *h)
{
    lim_process *keeper = keeper_of(h);
    if (keeper == NULL)
        return; /* it has ended with the runtime */
    *(isolated **)lim__proc_state(keeper) = NULL;
    (void)!lim_exit_process(keeper, h->keeper, LIM_KILL);
}

/* ---- the engine's table ---- */

static lim_err isolated_open(lim__router *r, lim_diag *diag)
{
    (void)diag;
    isolated *h = calloc(1, sizeof *h + r->limits.unfinished_max * sizeof(call));
    if (h == NULL)
        return LIM_E_NOMEM;
    h->router = r;
    lim__list_init(&h->idle);
    lim__list_init(&h->done);
    lim__list_init(&h->living);
    for (uint32_t i = 0; i < r->limits.unfinished_max; i++)
        to_idle(h, &h->calls[i]);
    lim_err err = keeper_open(h);
    if (err != LIM_OK)
        free(h);
    else
        r->state = h;
    return err;
}

static lim__route_how not_started(const lim__router *r, lim__route_result *out)
{
    *out = (lim__route_result){ .how = LIM__ROUTE_NOT_STARTED, .text = r->text, .hash = r->artifact->hash };
    return LIM__ROUTE_NOT_STARTED;
}

/* False: r->text says which limit. */
static bool may_begin(lim__router *r, const isolated *h)
{
    lim_runtime *rt = lim__sched_runtime(lim__sched_current());
    uint32_t max = lim__blocking_thread_max(rt), most = max > 1 ? max - 1 : 1;
    uint32_t lost = atomic_load_explicit(lim__blocking_lost(rt), memory_order_relaxed);
    if (lim__list_empty(&h->idle))
        snprintf(r->text, sizeof r->text, "%s: %u calls are unfinished (routing.unfinished_max)", r->name,
                 r->limits.unfinished_max);
    else if (lost >= most && !LIM__MUTATION("isolated_without_end"))
        snprintf(r->text, sizeof r->text,
                 "%s: %u of %u threads are held by functions that nobody waits for any more (blocking_max)", r->name,
                 lost, max);
    else if (h->alive >= r->limits.unfinished_max + max)
        snprintf(r->text, sizeof r->text, "%s: %u calls that were given up wait for one of %u threads (blocking_max)",
                 r->name, h->alive, max);
    else
        return true;
    return false;
}

static lim__route_how isolated_call(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                    uint32_t n, void *call_ctx, lim__route_result *result)
{
    isolated *h = r->state;
    if (!may_begin(r, h))
        return not_started(r, result);
    invocation *v = invocation_new(r, msg, candidates, n);
    if (v == NULL || spawn(h, v) != LIM_OK) {
        if (v != NULL)
            invocation_free(v);
        snprintf(r->text, sizeof r->text, "%s: out of memory, or the bus is closing", r->name);
        return not_started(r, result);
    }
    call *c = LIM_CONTAINER(lim__list_pop(&h->idle), call, link);
    v->home = h;
    v->lost_count = lim__blocking_lost(lim__sched_runtime(lim__sched_current()));
    v->c = c;
    lim__list_push(&h->living, &v->node);
    h->alive++;
    h->out++;
    *c = (call){ .phase = CALL_OUT, .call_ctx = call_ctx, .v = v, .begun_ns = r->os->now_ns(r->os) };
    (void)!lim_timer_start(keeper_of(h), r->limits.wall_ns, 0, &c->timer); /* for want of memory it has no limit */
    lim__router_ref(r);
    isolated_check(h);
    return LIM__ROUTE_PENDING;
}

/* The call is told to its owner, who may do anything with the router then. */
static void tell(isolated *h, call *c)
{
    lim__router *r = h->router;
    lim__route_result result = c->result;
    void *call_ctx = c->call_ctx;
    if (result.text == c->text) {
        memcpy(r->text, c->text, sizeof c->text);
        result.text = r->text;
    }
    lim__list_remove(&c->link);
    h->done_count--;
    to_idle(h, c);
    lim__router_count(r, &result);
    if (r->on_done != NULL)
        r->on_done(r->ctx, call_ctx, &result);
    lim__router_unref(r);
}

static uint32_t isolated_resume(lim__router *r)
{
    isolated *h = r->state;
    for (uint32_t n = h->done_count; n > 0 && h->done_count > 0; n--)
        tell(h, LIM_CONTAINER(h->done.next, call, link)); /* lim__router_resume holds the router */
    return h->out + h->done_count;
}

static uint32_t isolated_pending(const lim__router *r)
{
    const isolated *h = r->state;
    return h->out + h->done_count;
}

static uint32_t isolated_runnable(const lim__router *r)
{
    return ((const isolated *)r->state)->done_count;
}

static uint32_t isolated_abandon(lim__router *r)
{
    isolated *h = r->state;
    lim_process *keeper = keeper_of(h);
    uint32_t dropped = h->out + h->done_count;
    for (uint32_t i = 0; i < r->limits.unfinished_max; i++) {
        call *c = &h->calls[i];
        if (c->phase == CALL_DONE)
            lim__list_remove(&c->link);
        if (c->phase == CALL_OUT)
            (void)leave(c->v);
        if (c->phase == CALL_OUT && c->timer != 0 && keeper != NULL)
            lim_timer_cancel(keeper, c->timer);
        if (c->phase != CALL_IDLE)
            to_idle(h, c);
    }
    h->out = h->done_count = 0;
    return dropped;
}

static uint64_t no_memory(const lim__router *r)
{
    (void)r;
    return 0;
}

/* Threads that still run a call of it go on with what they were given. */
static void isolated_close(lim__router *r)
{
    isolated *h = r->state;
    lim__list *node;
    LIM_ASSERT(h->out == 0);
    while ((node = lim__list_pop(&h->living)) != NULL)
        LIM_CONTAINER(node, invocation, node)->home = NULL;
    keeper_close(h);
    free(h);
}

const lim__engine_ops lim__engine_isolated = { .open = isolated_open,
                                               .call = isolated_call,
                                               .resume = isolated_resume,
                                               .abandon = isolated_abandon,
                                               .pending = isolated_pending,
                                               .runnable = isolated_runnable,
                                               .memory = no_memory,
                                               .close = isolated_close };
