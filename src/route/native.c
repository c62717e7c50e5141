/* SPDX-License-Identifier: Apache-2.0
 * native.c - calls of native routing functions: into the ring, a short wait, an answer; the engine's table.
 *
 *      call --write, wake--> wait at most a slice --> answered --> the result
 *               |                 |-- the helper died or lies --> condemned: CRASHED, or moved on to the spare
 *               |                 `-- neither --> PENDING: `want` and `bell` are set, the keeper watches event and life
 *               `-- batching, or others are before it: PENDING at once
 *
 *      helper --event--> keeper --pump--> collect, hear, look, limits --> DONE --on_ready--> owner --resume--> on_done
 *
 * native_ring.h has the memory and what of it is believed: `done` if it lies between head and tail, a reply if its
 * serial is right and its id is that of the candidate of that index. Everything is copied before it is
 * looked at. There is no path on which the bus waits for a helper without a bound.
 *
 * Without a keeper (offline: route test, checks, benchmarks) all that is pending is runnable, and each resume waits for
 * at most a slice.
 *
 * Invariants (ring_check):
 *   N1  the row holds calls in phase QUEUED or DROPPED, oldest first; tail - head of them.
 *   N2  done holds the calls in phase DONE; done_count counts them; pending_count these, QUEUED and DYING ones.
 *   N3  the router holds a reference to itself per call in QUEUED, DYING or DONE, but for one that lim__router_call is
 * in. N4  messages from first to last belong to the row. */
#include "route/native_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLE_EVERY = 16 };

static uint64_t now_ns(const lim__ring *g)
{
    return g->router->os->now_ns(g->router->os);
}

static void ring_check(lim__ring *g)
{
#ifdef LIM_DEBUG
    uint32_t done = 0, pending = 0;
    for (uint32_t s = g->head; s != g->tail; s++) {
        lim__native_phase phase = lim__ring_at(g, s)->phase;
        LIM_CHECK(phase == NATIVE__QUEUED || phase == NATIVE__DROPPED); /* N1 */
        pending += phase == NATIVE__QUEUED;
    }
    for (uint32_t i = 0; i < 2; i++)
        pending += g->place[i].culprit != NULL;
    LIM__LIST_EACH(node, &g->done) {
        LIM_CHECK(LIM_CONTAINER(node, lim__native_call, link)->phase == NATIVE__DONE); /* N2 */
        done++;
    }
    LIM_CHECK(done == g->done_count && pending + done == g->pending_count);
#else
    (void)g;
#endif
}

/* ---- ends ---- */

lim__native_call *lim__ring_pop(lim__ring *g)
{
    LIM_ASSERT(g->head != g->tail);
    lim__native_call *c = lim__ring_at(g, g->head);
    lim__ring_release(g, c);
    g->head++;
    return c;
}

void lim__ring_idle(lim__ring *g, lim__native_call *c)
{
    c->phase = NATIVE__IDLE;
    c->next_idle = g->idle;
    g->idle = c;
}

void lim__ring_end_call(lim__ring *g, lim__native_call *c, const lim__route_result *result)
{
    if (c->phase == NATIVE__DROPPED) {
        lim__ring_idle(g, c);
        return;
    }
    c->result = *result;
    c->phase = NATIVE__DONE;
    lim__list_push(&g->done, &c->link);
    g->done_count++;
}

void lim__ring_fault(lim__ring *g, lim__native_call *c, lim__route_how how, uint64_t after_ns, const char *format, ...)
{
    va_list args;
    int n = snprintf(c->text, LIM__NATIVE_TEXT, "%s: ", g->router->name);
    va_start(args, format);
    vsnprintf(c->text + n, LIM__NATIVE_TEXT - (size_t)n, format, args);
    va_end(args);
    lim__route_result result = { .how = how, .after_ns = after_ns, .text = c->text, .hash = g->router->artifact->hash };
    lim__ring_end_call(g, c, &result);
}

/* What it answered is a candidate of the call, or nobody; or it is wrong. */
static void judge(lim__ring *g, lim__native_call *c, const lim__ring_reply *reply)
{
    lim__route_result result = { .text = "", .hash = g->router->artifact->hash };
    if (reply->index == UINT32_MAX) {
        result.how = LIM__ROUTE_NONE;
    } else if (reply->index >= c->count) {
        lim__ring_fault(g, c, LIM__ROUTE_CRASHED, 0, "it answered index %u; there are %u candidates", reply->index,
                        c->count);
        return;
    } else {
        result.how = LIM__ROUTE_DECIDED;
        result.index = reply->index;
        result.id = c->ids[reply->index];
    }
    lim__ring_end_call(g, c, &result);
}

bool lim__ring_collect(lim__ring *g, const char **text)
{
    if (g->current == LIM__NATIVE_NOBODY || g->head == g->tail)
        return true;
    const lim__ring_answers *a = g->place[g->current].answers;
    uint32_t done = atomic_load_explicit(&a->done, memory_order_acquire); /* pairs with the release in served() */
    if (done - g->head > g->tail - g->head) {
        *text = "it counts calls that were never made";
        return false;
    }
    while (g->head != done) {
        lim__ring_reply reply;
        memcpy(&reply, &a->replies[g->head % LIM__RING_CALLS], sizeof reply);
        atomic_signal_fence(memory_order_seq_cst); /* the copy is what is looked at from here on */
        if (reply.serial != g->head) {
            *text = "it answered another call than the one that was made";
            return false;
        }
        lim__native_call *c = lim__ring_at(g, g->head);
        if (reply.index < c->count && reply.id != c->ids[reply.index] && !LIM__MUTATION("native_stranger_chosen")) {
            *text = "it answered the id of somebody who is not that candidate";
            return false;
        }
        if (reply.counter > *g->router->counter && c->phase != NATIVE__DROPPED)
            *g->router->counter = reply.counter;
        judge(g, c, &reply);
        (void)lim__ring_pop(g);
    }
    return true;
}

/* Answers, and what speaks against the current helper. Without a system call as long as all is well. */
static void look_quickly(lim__ring *g)
{
    const char *text;
    if (!lim__ring_collect(g, &text))
        lim__place_condemn(g, g->current, DOOM__NONSENSE, 0, text);
    else if (g->current != LIM__NATIVE_NOBODY)
        lim__place_look(g, g->current);
}

/* ---- asking for a wake ---- */

/* The helper's last look at these comes after its `done`, ours at `done` after these: one of us sees the other's. */
static void want(lim__ring *g, uint32_t done, bool ring_bell)
{
    if (ring_bell)
        atomic_store_explicit(&g->requests->bell, ++g->bell, memory_order_relaxed);
    atomic_store_explicit(&g->requests->want, done, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

static void pump_quietly(lim__ring *g)
{
    look_quickly(g);
    for (uint32_t i = 0; i < 2; i++) {
        lim__place_hear(g, i);
        lim__place_look(g, i);
    }
    lim__ring_limits(g);
    lim__ring_fill_places(g);
    if (lim__ring_waiting(g) > 0) {
        if (g->seen != g->head)
            lim__ring_observe(g);
        want(g, g->head + 1, true);
        look_quickly(g); /* what was done before that was seen */
    }
    lim__ring_arm(g);
    ring_check(g);
}

void lim__ring_pump(lim__ring *g)
{
    pump_quietly(g);
    if (g->done_count > 0 && !g->notified && g->router->on_ready != NULL) {
        g->notified = true;
        g->router->on_ready(g->router->ctx);
    }
}

/* ---- waiting ---- */

/* Until the helper has something to say about `done` calls, or the time is over; may return early. */
static void wait_for_helper(lim__ring *g, lim__native_place *p, uint32_t done, uint64_t timeout_ns)
{
    lim__ring_answers *a = p->answers;
    uint32_t word = atomic_fetch_or(&a->word, LIM__RING_WAITERS) | LIM__RING_WAITERS;
    atomic_thread_fence(memory_order_seq_cst);
    if ((int32_t)(atomic_load(&a->done) - done) >= 0 || (word & LIM__RING_OWNER_DIED) != 0 ||
        atomic_load(&a->note_kind) != LIM__RING_NO_NOTE)
        return;
    lim__futex_wait(&a->word, word, timeout_ns);
    (void)g;
}

/* One step of waiting for `c`, or for anything if it is NULL. False: there is nobody to wait for. */
static bool wait_step(lim__ring *g, const lim__native_call *c, uint32_t done, uint64_t timeout_ns)
{
    lim__native_place *dying = NULL;
    for (uint32_t i = 0; i < 2; i++) {
        if (g->place[i].phase == PLACE__DYING && (c == NULL || g->place[i].culprit == c))
            dying = &g->place[i];
    }
    if (c != NULL ? c->phase == NATIVE__DYING : lim__ring_waiting(g) == 0) {
        if (dying == NULL)
            return false;
        (void)lim__readable(dying->life, (int64_t)timeout_ns);
        lim__place_hear(g, (uint32_t)(dying - g->place));
        return true;
    }
    if (g->current == LIM__NATIVE_NOBODY) {
        if (dying == NULL)
            return false;
        (void)lim__readable(dying->life, (int64_t)timeout_ns);
        pump_quietly(g);
        return true;
    }
    wait_for_helper(g, &g->place[g->current], done, timeout_ns);
    return true;
}

/* At most a slice. */
static void wait_for_call(lim__ring *g, const lim__native_call *c, uint32_t done)
{
    uint64_t end = c->begun_ns + g->router->limits.slice_ns, now = c->begun_ns;
    for (;;) {
        look_quickly(g);
        if (c->phase == NATIVE__DONE || now >= end)
            return;
        if (!wait_step(g, c, done, end - now))
            return;
        now = now_ns(g);
    }
}

/* ---- calls ---- */

static lim__route_how not_started(lim__ring *g, lim__route_result *out, const char *why)
{
    lim__router *r = g->router;
    snprintf(r->text, sizeof r->text, "%s: %s", r->name, why);
    *out = (lim__route_result){ .how = LIM__ROUTE_NOT_STARTED, .text = r->text, .hash = r->artifact->hash };
    return LIM__ROUTE_NOT_STARTED;
}

/* A result leaves `done`; its text moves to the router's. */
static void take_result(lim__ring *g, lim__native_call *c, lim__route_result *out)
{
    lim__router *r = g->router;
    *out = c->result;
    if (out->text == c->text) {
        memcpy(r->text, c->text, LIM__NATIVE_TEXT);
        out->text = r->text;
    }
    lim__list_remove(&c->link);
    g->done_count--;
    g->pending_count--;
    lim__ring_idle(g, c);
}

static void hand_over(lim__ring *g)
{
    if (g->current == LIM__NATIVE_NOBODY)
        return;
    _Atomic uint32_t *upto = &g->requests->place[g->current].upto;
    atomic_store_explicit(upto, g->tail, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the helper's, between `asleep` and its look at `upto` */
    if (atomic_load_explicit(&g->place[g->current].answers->asleep, memory_order_relaxed) != 0)
        lim__futex_wake(upto);
}

/* After failures it is tried again, not at once. */
static void try_again(lim__ring *g)
{
    if (g->failures >= LIM__NATIVE_FAILURES_MAX && now_ns(g) - g->failed_ns > LIM__NATIVE_LOAD_NS)
        g->failures = LIM__NATIVE_FAILURES_MAX - 1;
    pump_quietly(g);
}

static lim__route_how leave_pending(lim__ring *g, lim__native_call *c, void *call_ctx)
{
    c->call_ctx = call_ctx;
    lim__router_ref(g->router);
    return LIM__ROUTE_PENDING;
}

/* The first of the row: waited for, and looked after if that was not enough. */
static lim__route_how call_first(lim__ring *g, lim__native_call *c, void *call_ctx, lim__route_result *result)
{
    lim__router *r = g->router;
    uint32_t serial = g->tail - 1;
    want(g, serial + 1, false);
    hand_over(g);
    g->idle_looks = 0;
    wait_for_call(g, c, serial + 1);
    if (LIM_LIKELY(c->phase == NATIVE__DONE)) {
        take_result(g, c, result);
        if (r->stats.calls % SAMPLE_EVERY == 0)
            lim__hist_record(&r->stats.time_ns, now_ns(g) - c->begun_ns);
        if (g->timer == 0)
            lim__ring_arm(g);
        return result->how;
    }
    pump_quietly(g);
    if (c->phase == NATIVE__DONE) {
        take_result(g, c, result);
        return result->how;
    }
    return leave_pending(g, c, call_ctx);
}

static void be_kept(lim__ring *g)
{
    lim__ring_join_keeper(g);
    lim__ring_watch_places(g, true);
    lim__ring_fill_places(g);
    lim__ring_arm(g);
}

static lim__route_how engine_call(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                  uint32_t n, void *call_ctx, lim__route_result *result)
{
    lim__ring *g = r->state;
    const char *why = "";
    lim__native_call *c = g->idle;
    if (LIM_UNLIKELY(lim__list_empty(&g->link)) && lim__ring_may_be_kept(g))
        be_kept(g); /* it was opened before its scheduler ran: after a restart */
    if (c == NULL) {
        char text[80];
        snprintf(text, sizeof text, "%u calls are unfinished (routing.unfinished_max)", r->limits.unfinished_max);
        return not_started(g, result, text);
    }
    if (LIM_UNLIKELY(g->place[0].phase != PLACE__READY || g->place[1].phase != PLACE__READY) &&
        lim__list_empty(&g->link))
        pump_quietly(g); /* there is no keeper to see to the places */
    if (LIM_UNLIKELY(g->current == LIM__NATIVE_NOBODY) && !lim__ring_has_helper(g)) {
        try_again(g);
        if (!lim__ring_has_helper(g) && g->failures >= LIM__NATIVE_FAILURES_MAX)
            return not_started(g, result, g->failure);
    }
    if (!lim__ring_write(g, c, msg, candidates, n, &why))
        return not_started(g, result, why);
    g->idle = c->next_idle;
    g->pending_count++;
    c->phase = NATIVE__QUEUED;
    c->moves = 0;
    if (g->head == g->tail) {
        g->front = g->tail;
        g->seen = g->asked_about = g->tail - 1;
    }
    g->row[g->tail % LIM__RING_CALLS] = (uint8_t)(c - g->calls);
    bool first = g->head == g->tail;
    g->tail++;
    if (g->batching) {
        c->begun_ns = first ? now_ns(g) : lim__ring_at(g, g->tail - 2)->begun_ns;
        return leave_pending(g, c, call_ctx);
    }
    c->begun_ns = now_ns(g);
    if (LIM_LIKELY(first))
        return call_first(g, c, call_ctx, result);
    hand_over(g);
    return leave_pending(g, c, call_ctx);
}

static void engine_batch(lim__router *r, bool on)
{
    lim__ring *g = r->state;
    bool over = g->batching && !on;
    g->batching = on;
    if (!over || g->head == g->tail)
        return;
    want(g, g->tail, !lim__list_empty(&g->link));
    hand_over(g);
    g->idle_looks = 0;
    lim__ring_arm(g);
}

static uint32_t engine_batch_room(const lim__router *r)
{
    const lim__ring *g = r->state;
    uint32_t n = 0;
    for (const lim__native_call *c = g->idle; c != NULL; c = c->next_idle)
        n++;
    return n;
}

/* Only the head can be one that takes long. Whoever is not ready, dying or not told yet will be, soon. */
static bool engine_busy(lim__router *r)
{
    lim__ring *g = r->state;
    return g->idle == NULL && (lim__ring_waiting(g) == 0 || lim__ring_head_used_ns(g) < r->limits.slice_ns);
}

static void engine_batch_wait(lim__router *r)
{
    lim__ring *g = r->state;
    g->batching = false;
    if (g->head == g->tail)
        return;
    want(g, g->tail, false);
    hand_over(g);
    g->idle_looks = 0;
    uint64_t now = now_ns(g), end = now + r->limits.slice_ns;
    look_quickly(g);
    while (lim__ring_waiting(g) > 0 && now < end && wait_step(g, NULL, g->tail, end - now)) {
        look_quickly(g);
        now = now_ns(g);
    }
    if (lim__ring_waiting(g) > 0)
        pump_quietly(g); /* the rest comes by the event */
    else if (g->timer == 0)
        lim__ring_arm(g);
}

/* ---- later ---- */

/* The call is told to its owner, who may do anything with the router then; so all is in order before. */
static void tell(lim__ring *g, lim__native_call *c)
{
    lim__router *r = g->router;
    void *call_ctx = c->call_ctx;
    lim__route_result result;
    take_result(g, c, &result);
    lim__router_count(r, &result);
    if (r->on_done != NULL)
        r->on_done(r->ctx, call_ctx, &result);
    lim__router_unref(r);
}

/* Without a keeper: waits for something to end, at most a slice. */
static void pump_offline(lim__ring *g)
{
    uint64_t now = now_ns(g), end = now + g->router->limits.slice_ns;
    look_quickly(g);
    while (g->done_count == 0 && now < end && wait_step(g, NULL, g->tail, end - now)) {
        look_quickly(g);
        now = now_ns(g);
    }
    if (g->done_count == 0)
        pump_quietly(g);
}

static uint32_t engine_resume(lim__router *r)
{
    lim__ring *g = r->state;
    g->notified = false;
    if (lim__list_empty(&g->link) && g->done_count == 0 && g->pending_count > 0)
        pump_offline(g);
    for (uint32_t n = g->done_count; n > 0 && g->done_count > 0; n--)
        tell(g, LIM_CONTAINER(g->done.next, lim__native_call, link)); /* lim__router_resume holds the router */
    return g->pending_count;
}

static uint32_t engine_pending(const lim__router *r)
{
    return ((const lim__ring *)r->state)->pending_count;
}

static uint32_t engine_runnable(const lim__router *r)
{
    const lim__ring *g = r->state;
    return lim__list_empty(&g->link) ? g->pending_count : g->done_count;
}

/* Those that a helper has, or will have, are answered to nobody. */
static uint32_t engine_abandon(lim__router *r)
{
    lim__ring *g = r->state;
    uint32_t dropped = g->pending_count;
    lim__list *node;
    for (uint32_t s = g->head; s != g->tail; s++)
        lim__ring_at(g, s)->phase = NATIVE__DROPPED;
    while ((node = lim__list_pop(&g->done)) != NULL)
        lim__ring_idle(g, LIM_CONTAINER(node, lim__native_call, link));
    for (uint32_t i = 0; i < 2; i++) {
        if (g->place[i].culprit != NULL)
            lim__ring_idle(g, g->place[i].culprit);
        g->place[i].culprit = NULL;
    }
    g->done_count = g->pending_count = 0;
    return dropped;
}

static uint64_t engine_memory(const lim__router *r)
{
    const lim__ring *g = r->state;
    return g->current != LIM__NATIVE_NOBODY && g->place[g->current].pid > 0
               ? lim__process_memory(g->place[g->current].pid)
               : 0;
}

/* ---- opening and closing ---- */

void lim__ring_free(lim__ring *g)
{
    if (g == NULL)
        return;
    for (uint32_t i = 0; i < 2; i++)
        lim__place_close(g, i);
    lim__ring_leave_keeper(g);
    int fds[] = { g->requests_fd, g->code_fd, g->event };
    for (size_t i = 0; i < LIM_COUNT(fds); i++) {
        if (fds[i] >= 0)
            lim__os_linux()->close(lim__os_linux(), fds[i]);
    }
    if (g->requests != NULL)
        lim__memory_unmap(g->requests, sizeof *g->requests);
    free(g->views);
    free(g->texts);
    free(g->calls);
    free(g);
}

static bool open_memory(lim__ring *g)
{
    lim_bytes code = g->router->artifact->bytes;
    g->code_fd = lim__memory_sealed("code", code.ptr, code.len);
    g->event = lim__event_open();
    g->requests_fd = lim__memory_open("requests", sizeof *g->requests);
    if (g->requests_fd >= 0)
        g->requests = lim__memory_map(g->requests_fd, sizeof *g->requests);
    return g->code_fd >= 0 && g->event >= 0 && g->requests != NULL && lim__memory_seal_writers(g->requests_fd) == 0;
}

/* As many calls as this router may leave unfinished. */
static bool open_calls(lim__ring *g, uint32_t count)
{
    free(g->calls);
    free(g->texts);
    g->idle = NULL;
    g->calls = calloc(count, sizeof *g->calls);
    g->texts = calloc(count, LIM__NATIVE_TEXT);
    for (uint32_t i = count; g->calls != NULL && g->texts != NULL && i-- > 0;) {
        g->calls[i].text = g->texts + (size_t)i * LIM__NATIVE_TEXT;
        lim__ring_idle(g, &g->calls[i]);
    }
    return g->calls != NULL && g->texts != NULL;
}

static lim__ring *ring_new(lim__router *r)
{
    lim__ring *g = calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    g->router = r;
    g->native = r->native;
    memcpy(g->hash, r->artifact->hash, sizeof g->hash);
    g->memory_max = r->limits.memory_max;
    g->requests_fd = g->code_fd = g->event = -1;
    g->current = LIM__NATIVE_NOBODY;
    lim__list_init(&g->done);
    lim__list_init(&g->link);
    for (uint32_t i = 0; i < 2; i++)
        g->place[i] = (lim__native_place){ .phase = PLACE__EMPTY, .life = -1, .pidfd = -1, .pid = -1, .ring = g };
    if (!open_calls(g, r->limits.unfinished_max) || !open_memory(g)) {
        lim__ring_free(g);
        return NULL;
    }
    return g;
}

/* One that was made to check the same code, with a helper that is ready. NULL: there is none. */
static lim__ring *ring_again(lim__router *r)
{
    lim__ring *g = lim__native_take_parked(r->native, r);
    if (g == NULL)
        return NULL;
    g->router = r;
    if (open_calls(g, r->limits.unfinished_max)) {
        pump_quietly(g);
        if (g->current != LIM__NATIVE_NOBODY && g->place[g->current].phase == PLACE__READY)
            return g;
    }
    lim__ring_free(g);
    return NULL;
}

/* Waits until the first helper is ready, or it is known why it is not. */
static bool check_loads(lim__ring *g)
{
    enum { STEP_NS = 2000000 };
    lim__place_spawn(g, 0);
    while (g->place[0].phase == PLACE__LOADING) {
        wait_for_helper(g, &g->place[0], 1, STEP_NS); /* `done` stays 0 */
        lim__place_hear(g, 0);
        lim__place_look(g, 0);
        lim__ring_limits(g);
    }
    return g->place[0].phase == PLACE__READY;
}

/* On a scheduler nobody waits for that: its code was tried out before (loader.h), calls are pending until it is ready,
 * and if it never is they are told why. */
static bool begins_to_load(lim__ring *g)
{
    lim__place_spawn(g, 0);
    return g->place[0].phase == PLACE__LOADING;
}

static lim_err check_size(const lim__router *r, lim_diag *diag)
{
    static const char elf[] = "\177ELF";
    lim_bytes code = r->artifact->bytes;
    if (code.len > LIM__NATIVE_CODE_MAX) {
        lim__diag_set(diag, 0, 0, "%s: %zu bytes of code; at most %d are taken", r->name, code.len,
                      LIM__NATIVE_CODE_MAX);
        return LIM_E_TOOBIG;
    }
    if (code.len < sizeof elf - 1 || memcmp(code.ptr, elf, sizeof elf - 1) != 0) {
        lim__diag_set(diag, 0, 0, "%s: not a shared object: build it with cc -shared -fPIC", r->name);
        return LIM_E_CODE;
    }
    return LIM_OK;
}

static lim_err ring_open(lim__router *r, lim_diag *diag)
{
    lim_err err = check_size(r, diag);
    if (err != LIM_OK)
        return err;
    lim__ring *g = ring_again(r);
    if (g == NULL) {
        g = ring_new(r);
        if (g == NULL)
            return LIM_E_NOMEM;
        if (!(lim__ring_may_be_kept(g) ? begins_to_load(g) : check_loads(g))) {
            lim__diag_set(diag, 0, 0, "%s", g->failure);
            lim__ring_free(g);
            return LIM_E_CODE;
        }
    }
    r->state = g;
    be_kept(g);
    return LIM_OK;
}

static void engine_close(lim__router *r)
{
    lim__ring *g = r->state;
    LIM_ASSERT(g->pending_count == 0);
    r->state = NULL;
    if (!r->only_checked || g->tail != 0) {
        lim__ring_free(g);
        return;
    }
    lim__ring_watch_places(g, false);
    lim__ring_leave_keeper(g);
    g->timer = 0;
    g->router = NULL;
    lim__native_park(r->native, g);
}

/* ---- the simulator's: a script decides at once ---- */

static lim__route_how script_call(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                  uint32_t n, void *call_ctx, lim__route_result *result)
{
    const lim__native *native = r->native;
    const char *text = "";
    uint32_t index = 0;
    (void)call_ctx;
    lim__route_how how = native->script(native->script_ctx, r->artifact, msg, candidates, n, &index, &text);
    *result = (lim__route_result){ .how = how, .text = text, .hash = r->artifact->hash };
    if (how == LIM__ROUTE_DECIDED) {
        LIM_ASSERT(index < n);
        result->index = index;
        result->id = candidates[index]->id;
    }
    LIM_ASSERT(how != LIM__ROUTE_PENDING);
    return how;
}

static uint32_t nothing(lim__router *r)
{
    (void)r;
    return 0;
}

static uint32_t none_pending(const lim__router *r)
{
    (void)r;
    return 0;
}

static uint64_t no_memory(const lim__router *r)
{
    (void)r;
    return 0;
}

static void script_close(lim__router *r)
{
    r->state = NULL;
}

static const lim__engine_ops script_ops = { .call = script_call,
                                            .resume = nothing,
                                            .abandon = nothing,
                                            .pending = none_pending,
                                            .memory = no_memory,
                                            .close = script_close };

static lim_err engine_open(lim__router *r, lim_diag *diag)
{
    if (r->native == NULL) {
        lim__diag_set(diag, 0, 0,
                      "%s: native routing functions are turned off; turn them on with routing.native: true (embedded: "
                      "native_engine)",
                      r->name);
        return LIM_E_MISUSE;
    }
    if (r->native->script == NULL)
        return ring_open(r, diag);
    r->ops = &script_ops;
    r->state = r->native;
    return LIM_OK;
}

const lim__engine_ops lim__engine_native = {
    .open = engine_open,
    .call = engine_call,
    .resume = engine_resume,
    .abandon = engine_abandon,
    .pending = engine_pending,
    .runnable = engine_runnable,
    .batch = engine_batch,
    .batch_room = engine_batch_room,
    .batch_wait = engine_batch_wait,
    .busy = engine_busy,
    .memory = engine_memory,
    .close = engine_close,
};
