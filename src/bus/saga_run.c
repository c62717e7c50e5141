/* SPDX-License-Identifier: Apache-2.0
 * saga_run.c - the process of one saga: acts out saga_plan.c on the record in the book.
 *
 *      FORWARD: open the step's conversation --outcome--> next step | UNDO
 *      UNDO:    open the compensation's task --outcome--> next one  | end
 *
 * Asks are linked to it (they end when it dies), tasks are watched (they live on, and are awaited by whoever is started
 * in its place). One conversation is under way at a time, and each has a deadline that it keeps by itself. A
 * compensation that could not be offered, because its queue was full or memory short, is offered again until its own
 * deadline. */
#include "bus/saga_inside.h"
#include <stdio.h>

enum { TAG_AGAIN = 'A', AGAIN_MIN_MS = 100, AGAIN_MAX_MS = 10000 };
#define MS UINT64_C(1000000)

typedef struct runner {
    lim_bus *bus;
    lim__saga *saga;
    lim_process *self; /* during a signal */
    uint64_t ref;      /* of the conversation under way: later ones of earlier offers are not meant */
    uint64_t monitor, again;
    bool started;
} runner;

static void carry_out(runner *r, lim__saga_do what);

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
    carry_out(r, next);
}

static void ended_so(runner *r, lim_how how, lim_handed handed, lim_why why, const char *detail)
{
    ended(r, &(lim_outcome){ .how = how, .handed_over = handed, .why = why, .detail = lim__str(detail) }, NULL);
}

/* ---- what is begun ---- */

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
    open->terms = lim__terms_ref(r->saga->terms);
    return open;
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

static void start(runner *r)
{
    lim__saga *saga = r->saga;
    if (saga->plan.state == 0) {
        carry_out(r, lim__saga_begin(&saga->plan));
        return;
    }
    lim__saga_work *w = lim__saga_current(saga);
    if (w == NULL)
        carry_out(r, LIM__SAGA_DO_END);
    else if (w->task && w->conv.id != 0)
        await(r, w);
    else if (saga->plan.state == LIM__SAGA_UNDO)
        offer_undo(r);
    else
        ended_so(r, LIM_HOW_CRASHED, w->conv.id != 0 ? LIM_HANDED_UNKNOWN : LIM_HANDED_NO, LIM_WHY_NONE,
                 "the saga's process died meanwhile");
}

/* ---- signals ---- */

static void on_outcome(runner *r, const lim__outcome_letter *letter)
{
    lim_bytes excluded[LIM__EXCLUDED_MAX];
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

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    runner *r = state;
    r->self = self;
    if (!r->started) {
        r->started = true; /* the first signal is the service's word to begin */
        start(r);
        return;
    }
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

lim_err lim__saga_start(lim__system *s, lim__saga *saga)
{
    runner init = { .bus = s->bus, .saga = saga };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "saga",
                            .on_signal = on_signal,
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
