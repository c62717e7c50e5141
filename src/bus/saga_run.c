/* SPDX-License-Identifier: Apache-2.0
 * saga_run.c - the process of one saga: acts out saga_plan.c on the record in the book.
 *
 *      FORWARD: open the step's conversation --outcome--> next step | UNDO
 *      UNDO:    open the compensation's task --outcome--> next one  | end
 *
 * Asks are linked to it (they end when it dies), tasks are watched (they live on, and are awaited by whoever is started
 * in its place). One conversation is under way at a time, and each has a deadline that it keeps by itself. A
 * A durable one stores what has ended, and what is next, before it does that; until it is stored, it listens to nothing
 * else. A compensation that could not be offered, because its queue was full or memory short, is offered again until
 * its own deadline. */
#include "bus/saga_inside.h"
#include "data/data.h"
#include <inttypes.h>
#include <stdio.h>

enum { TAG_AGAIN = 'A', TAG_STORE = 'S', AGAIN_MIN_MS = 100, AGAIN_MAX_MS = 10000, STORE_MS = 1000 };
#define MS UINT64_C(1000000)

typedef struct runner {
    lim_bus *bus;
    lim__saga *saga;
    lim_process *self; /* during a signal */
    uint64_t ref;      /* of the conversation under way: later ones of earlier offers are not meant */
    uint64_t monitor, again;
    bool started;
    /* durable */
    bool storing;      /* and listens to nothing else */
    lim__saga_do next; /* what to do once it is stored; 0: go on where it was */
    uint64_t stored;   /* number of the commit */
    lim__stash stash;
} runner;

static void carry_out(runner *r, lim__saga_do what);
static void store(runner *r, lim__saga_do next);

static void cut(char *at, size_t size, lim_bytes text)
{
    snprintf(at, size, "%.*s", (int)(text.len < size ? text.len : size), text.len > 0 ? (const char *)text.ptr : "");
}

/* ---- what is under way has ended ---- */

static void ended(runner *r, const lim_outcome *o, lim__msg *reply)
{
    lim__saga *saga = r->saga;
    lim__saga_work *w = lim__saga_current(saga);
    if (r->monitor != 0)
        lim_demonitor(r->self, r->monitor);
    r->monitor = 0;
    r->ref++; /* whatever else comes of it is not heard */
    w->how = o->how;
    w->handed = o->handed_over;
    w->why = o->why;
    w->reply = lim__msg_ref(reply);
    w->elapsed_ns = lim_now_ns(r->self) - w->begun_ns;
    cut(w->detail, sizeof w->detail, o->detail);
    cut(w->participant, sizeof w->participant, o->participant);
    lim__saga_event event = o->how == LIM_HOW_REPLY           ? LIM__SAGA_SUCCEEDED
                            : o->handed_over == LIM_HANDED_NO ? LIM__SAGA_UNTOUCHED
                                                              : LIM__SAGA_FAILED;
    lim__saga_do next = lim__saga_step(&saga->plan, event);
    LIM_CHECK((lim__saga_check(&saga->plan), true));
    if (saga->durable)
        store(r, next);
    else
        carry_out(r, next);
}

static void ended_so(runner *r, lim_how how, lim_handed handed, lim_why why, const char *detail)
{
    ended(r, &(lim_outcome){ .how = how, .handed_over = handed, .why = why, .detail = lim__str(detail) }, NULL);
}

/* ---- what is begun ---- */

/* A durable saga's tasks are durable, and each has a key of its own: dispatched twice it runs once. */
static lim__terms *terms_of(const runner *r, const lim__saga_work *w)
{
    char key[64];
    const lim__saga *saga = r->saga;
    lim__terms *own = NULL;
    lim__buf block = { 0 };
    if (!saga->durable || !w->task)
        return lim__terms_ref(saga->terms);
    if (saga->terms != NULL)
        lim__buf_add(&block, saga->terms->block.ptr, saga->terms->block.len);
    snprintf(key, sizeof key, "saga.%" PRIx64 ".%u.%s", saga->id, saga->plan.at,
             saga->plan.state == LIM__SAGA_UNDO ? "undo" : "do");
    lim_err err = lim__packed_add(&block, lim__str("durable"), lim__str("1"));
    if (err == LIM_OK)
        err = lim__packed_add(&block, lim__str("idempotency_key"), lim__str(key));
    if (err == LIM_OK && !block.failed)
        (void)!lim__terms_parse(lim__buf_bytes(&block), NULL, &own);
    lim__buf_fini(&block);
    return own;
}

static lim__open *letter(runner *r, const lim__saga_work *w, lim__msg *payload)
{
    lim__sched *s = lim__proc_sched(r->self);
    lim__open *open = lim__open_new(s, w->task ? LIM__KIND_TASK : LIM__KIND_ASK, w->group, w->type, payload);
    if (open == NULL) {
        lim__msg_unref(payload);
        return NULL;
    }
    open->owner = lim_self(r->self);
    open->ref = ++r->ref;
    open->flags = w->task ? LIM__OPEN_REPORT : 0;
    open->opened_ns = lim_now_ns(r->self);
    open->deadline_ns = w->deadline_ns;
    open->terms = terms_of(r, w);
    if (open->terms != NULL || r->saga->terms == NULL)
        return open;
    lim__letter_free(s, open);
    return NULL;
}

/* Takes the payload. */
static lim_err begin(runner *r, lim__saga_work *w, lim__msg *payload)
{
    lim__open *open = payload == NULL ? NULL : letter(r, w, payload);
    if (open == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim__conv_spawn(r->bus, r->self, open, &w->conv);
    if (err != LIM_OK)
        w->conv = (lim_pid){ 0 };
    else if (w->task && lim_monitor(r->self, w->conv, &r->monitor) != LIM_OK)
        lim_exit(r->self, LIM_FAULT); /* whoever is started in its place awaits it */
    return err;
}

static void begin_step(runner *r)
{
    lim__saga_work *w = lim__saga_current(r->saga);
    uint64_t now = lim_now_ns(r->self), end = r->saga->deadline_ns;
    w->begun_ns = now;
    w->deadline_ns = end - now > w->timeout_ns ? now + w->timeout_ns : end;
    if (r->saga->cancelled)
        ended_so(r, LIM_HOW_CANCELLED, LIM_HANDED_NO, LIM_WHY_NONE, "the saga was cancelled");
    else if (now >= end)
        ended_so(r, LIM_HOW_TIMEOUT, LIM_HANDED_NO, LIM_WHY_NONE, "the saga's own time was over");
    else if (begin(r, w, lim__msg_ref(w->payload)) != LIM_OK)
        ended_so(r, LIM_HOW_REFUSED, LIM_HANDED_NO, LIM_WHY_MEMORY, "out of memory");
}

static lim__msg *usual_compensation(const lim__saga *saga, const lim__saga_one *one)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "saga", saga->id);
    lim__json_bytes(&j, "step", one->name);
    lim__json_str(&j, "how", lim_how_text(one->step.how));
    lim__json_str(&j, "handed_over", lim_handed_text(one->step.handed));
    lim__saga_bytes_json(&j, "request", lim__msg_bytes(one->step.payload));
    if (one->step.reply != NULL)
        lim__saga_bytes_json(&j, "reply", lim__msg_bytes(one->step.reply));
    lim__json_close(&j);
    lim__msg *msg = b.failed ? NULL : lim__msg_new(lim__buf_bytes(&b));
    lim__buf_fini(&b);
    return msg;
}

/* The compensation was not taken: once more, after a while, or not at all. */
static void undo_again(runner *r, lim_why why, uint64_t after_ms)
{
    lim__saga_work *w = lim__saga_current(r->saga);
    uint64_t now = lim_now_ns(r->self);
    uint64_t wait = (after_ms < AGAIN_MIN_MS ? AGAIN_MIN_MS : after_ms > AGAIN_MAX_MS ? AGAIN_MAX_MS : after_ms) * MS;
    if (r->monitor != 0)
        lim_demonitor(r->self, r->monitor);
    r->monitor = 0;
    r->ref++;
    w->conv = (lim_pid){ 0 };
    if (now + wait >= w->deadline_ns)
        ended_so(r, LIM_HOW_REFUSED, LIM_HANDED_NO, why, "it was offered until its time was over");
    else if (lim_timer_start(r->self, wait, TAG_AGAIN, &r->again) != LIM_OK)
        lim_exit(r->self, LIM_FAULT);
}

static void offer_undo(runner *r)
{
    lim__saga_one *one = &r->saga->ones[r->saga->plan.at];
    lim__msg *payload = one->undo.payload != NULL ? lim__msg_ref(one->undo.payload) : usual_compensation(r->saga, one);
    if (begin(r, &one->undo, payload) != LIM_OK)
        undo_again(r, LIM_WHY_MEMORY, 1000);
}

static void carry_out(runner *r, lim__saga_do what)
{
    lim__saga_work *w = lim__saga_current(r->saga);
    switch (what) {
    case LIM__SAGA_DO_STEP:
        begin_step(r);
        return;
    case LIM__SAGA_DO_UNDO:
        w->begun_ns = lim_now_ns(r->self);
        w->deadline_ns = w->begun_ns + w->timeout_ns;
        offer_undo(r);
        return;
    case LIM__SAGA_DO_END:
        r->saga->ended_ns = lim_now_ns(r->self);
        lim_exit(r->self, LIM_NORMAL); /* the service sees that, and answers */
        return;
    }
}

/* ---- started again: what was under way when the one before died ---- */

static void await(runner *r, const lim__saga_work *w)
{
    lim__command *c = lim__letter_new(lim__proc_sched(r->self), &lim__type_await, sizeof *c);
    if (c == NULL || lim_monitor(r->self, w->conv, &r->monitor) != LIM_OK) {
        lim__letter_free(lim__proc_sched(r->self), c);
        lim_exit(r->self, LIM_FAULT);
        return;
    }
    *c = (lim__command){ ++r->ref, lim_self(r->self) };
    (void)!lim__send_reserved(r->self, w->conv, c); /* gone: the monitor says so */
}

static void go_on(runner *r)
{
    lim__saga *saga = r->saga;
    lim__saga_work *w = lim__saga_current(saga);
    if (w == NULL)
        carry_out(r, LIM__SAGA_DO_END);
    else if (w->task && w->conv.id != 0)
        await(r, w);
    else if (saga->plan.state == LIM__SAGA_UNDO && w->deadline_ns != 0)
        offer_undo(r);
    else if (saga->plan.state == LIM__SAGA_UNDO)
        carry_out(r, LIM__SAGA_DO_UNDO);
    else if (saga->durable && w->task)
        carry_out(r, LIM__SAGA_DO_STEP);
    else
        ended_so(r, LIM_HOW_CRASHED, saga->durable || w->conv.id != 0 ? LIM_HANDED_UNKNOWN : LIM_HANDED_NO,
                 LIM_WHY_NONE, "the saga's process died meanwhile");
}

static void start(runner *r)
{
    lim__saga *saga = r->saga;
    lim__saga_do next = saga->plan.state == 0 ? lim__saga_begin(&saga->plan) : 0;
    if (saga->durable)
        store(r, next); /* also if one before it did: it may have died meanwhile */
    else if (next != 0)
        carry_out(r, next);
    else
        go_on(r);
}

/* ---- durable ones ---- */

static void store_again(runner *r)
{
    if (lim_timer_start(r->self, STORE_MS * MS, TAG_STORE, &r->again) != LIM_OK)
        lim_exit(r->self, LIM_FAULT);
}

static void store(runner *r, lim__saga_do next)
{
    r->storing = true;
    r->next = next;
    lim_err err =
        lim__durable_commit(r->self, r->bus, lim__saga_batch(r->bus, r->saga, lim_now_ns(r->self)), ++r->stored);
    if (err != LIM_OK && err != LIM_E_CLOSED) /* closed: it goes on after the next start */
        store_again(r);
}

/* Not even its beginning is stored: nothing has happened. */
static void refused(runner *r, lim_why why)
{
    r->saga->durable = false;
    r->storing = false;
    ended_so(r, LIM_HOW_REFUSED, LIM_HANDED_NO, why,
             why == LIM_WHY_DISK_FULL ? "the store is full" : "it could not be stored");
}

static void on_stored(runner *r, const lim__stored *what)
{
    bool begun = lim__buf_len(&r->saga->request) == 0;
    if (what->ref != r->stored || !r->storing)
        return;
    if (what->how == LIM__COMMITTED) {
        r->storing = false;
        lim__saga_stored(r->saga);
        if (r->next != 0)
            carry_out(r, r->next);
        else
            go_on(r);
    } else if (!begun && (what->how == LIM__COMMIT_FULL || what->how == LIM__COMMIT_FAILED)) {
        refused(r, what->how == LIM__COMMIT_FULL ? LIM_WHY_DISK_FULL : LIM_WHY_DISK_FAULT);
    } else if (what->how != LIM__COMMIT_CLOSED) {
        store_again(r);
    }
}

/* ---- signals ---- */

static void on_outcome(runner *r, const lim__outcome_letter *letter)
{
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    lim_outcome o;
    if (letter->ref != r->ref)
        return;
    lim__outcome_view(letter, excluded, &o);
    ended(r, &o, letter->payload);
}

static void on_admitted(runner *r, const lim__admitted *a)
{
    if (a->ref != r->ref || a->admission.verdict != LIM_REJECT)
        return;
    if (r->saga->plan.state == LIM__SAGA_UNDO)
        undo_again(r, a->admission.why, a->admission.retry_after_ms);
    else
        ended_so(r, LIM_HOW_REFUSED, LIM_HANDED_NO, a->admission.why, "the queue rejected it");
}

/* The conversation ended and nobody said how: it died, or had ended before it was awaited. */
static void on_silence(runner *r, lim_pid conv)
{
    lim__saga_work *w = lim__saga_current(r->saga);
    if (w == NULL || w->conv.id != conv.id)
        return;
    lim__outcome_letter *was = lim__ended_outcome(r->bus, lim__proc_sched(r->self), conv, r->ref);
    if (was != NULL)
        on_outcome(r, was);
    else
        ended_so(r, LIM_HOW_CRASHED, LIM_HANDED_UNKNOWN, LIM_WHY_NONE, "the conversation itself died");
    lim__letter_free(lim__proc_sched(r->self), was);
}

static void hear(runner *r, const lim_signal *signal)
{
    if (r->saga->plan.state == LIM__SAGA_ENDED)
        return;
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &lim__type_outcome)
        on_outcome(r, signal->body.ptr);
    else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &lim__type_admitted)
        on_admitted(r, signal->body.ptr);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->ref == r->again)
        offer_undo(r);
    else if (signal->kind == LIM_SIGNAL_EXIT || (signal->kind == LIM_SIGNAL_DOWN && signal->ref == r->monitor))
        on_silence(r, signal->from);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    runner *r = state;
    r->self = self;
    if (!r->started) {
        r->started = true; /* the first signal is the service's word to begin */
        lim__stash_init(&r->stash);
        start(r);
    } else if (signal->type == &lim__type_stored) {
        on_stored(r, signal->body.ptr);
        while (!r->storing && lim__stash_replay(&r->stash, self, on_signal, r))
            continue;
    } else if (r->storing && signal->kind == LIM_SIGNAL_TIMER && signal->tag == TAG_STORE) {
        store(r, r->next);
    } else if (!r->storing) {
        hear(r, signal);
    } else if (lim__stash_put(&r->stash, self, signal) != LIM_OK) {
        lim_exit(self, LIM_FAULT);
    }
}

static void on_end(void *state, lim_reason reason)
{
    runner *r = state;
    (void)reason;
    if (r->started)
        lim__stash_fini(&r->stash, NULL);
}

lim_err lim__saga_start(lim__system *s, lim__saga *saga)
{
    runner init = { .bus = s->bus, .saga = saga };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "saga",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init,
                            .trap_exit = true,
                            .monitor = true,
                            .monitor_out = &saga->monitor };
    lim_err err = lim_spawn(s->self, &opts, &saga->process);
    if (err == LIM_OK && (err = lim_send(s->self, saga->process, 0, lim__bytes(NULL, 0))) != LIM_OK)
        lim_exit_process(s->self, saga->process, LIM_KILL); /* it does nothing without that word */
    return err;
}

void lim__saga_give_up(lim__saga *saga, uint64_t now_ns)
{
    while (saga->plan.state != LIM__SAGA_ENDED) {
        lim__saga_work *w = lim__saga_current(saga);
        w->how = LIM_HOW_CRASHED;
        w->handed = LIM_HANDED_UNKNOWN;
        snprintf(w->detail, sizeof w->detail, "the saga's process died %u times", saga->deaths);
        (void)lim__saga_step(&saga->plan, LIM__SAGA_FAILED);
    }
    saga->ended_ns = now_ns;
}
