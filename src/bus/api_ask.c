/* SPDX-License-Identifier: Apache-2.0
 * api_ask.c - asks and tasks for the embedder: one request, perhaps an answer in parts, one outcome.
 *
 * Each becomes the first letter of a conversation, and a wait with the agent that owns it (agent.h). A blocking call
 * waits on its stack; the others keep a `pending` until their outcome, which is told exactly once, after every part. */
#include "base/base.h"
#include "bus/agent.h"
#include "bus/api.h"
#include "bus/durable.h"
#include "data/options.h"
#include "data/outcome.h"
#include <stdlib.h>

/* ---- what it is opened with ---- */

static lim_err text_check(const lim_bus *bus, const char *name, lim_bytes payload, const char *type)
{
    if (payload.len > bus->opts.payload_bytes_max || (type != NULL && strlen(type) > 255))
        return LIM_E_TOOBIG;
    if (!lim__text_ok(lim__str(type))) /* a connection could not carry it */
        return LIM_E_INVALID;
    return name == NULL || lim__channel_name_ok(lim__str(name)) ? LIM_OK : LIM_E_INVALID;
}

/* *group becomes its whole name, which may be in `room`. */
static lim_err ask_check(lim_bus *bus, const char **group, char room[256], lim_bytes request, const lim_ask_opts *o)
{
    if (o == NULL || o->size < sizeof *o || !lim__api_timeout_ok(o->timeout_ms) ||
        (o->durable && bus->durable == NULL) || (*group == NULL) == (o->participant.id == 0) ||
        (o->on_crash == LIM_CRASH_COMPENSATE) != (o->compensate != NULL))
        return LIM_E_MISUSE;
    bool named = *group != NULL;
    *group = lim__in_namespace(o->ns, *group, room);
    if (named && *group == NULL)
        return LIM_E_INVALID;
    lim_err err = text_check(bus, *group, request, o->type);
    return err == LIM_OK && lim__api_closing(bus) ? LIM_E_CLOSED : err;
}

static lim_err terms_of(lim_err err, lim__buf *block, lim__terms **out)
{
    if (err == LIM_OK)
        err = lim__terms_parse(lim__buf_bytes(block), NULL, out);
    lim__buf_fini(block);
    return err;
}

typedef enum manner { ONE = 1, STREAM, ALL } manner;

static lim_err ask_letter(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *o, manner how,
                          lim__open **out)
{
    lim__buf block = { 0 };
    lim__terms *terms = NULL;
    lim_err err = terms_of(lim__options_ask(&block, o, how == STREAM, how == ALL, NULL), &block, &terms);
    if (err == LIM_OK)
        err = lim__api_letter(how == ALL ? LIM__KIND_GATHER : LIM__KIND_ASK, group, o->type, request, out);
    if (err != LIM_OK) {
        lim__terms_unref(terms);
        return err;
    }
    (*out)->terms = terms;
    (*out)->deadline_ns = lim__api_deadline(bus, lim__options_timeout(o->timeout_ms, &o->cause));
    (*out)->on_crash = o->on_crash != 0 ? o->on_crash : LIM_CRASH_FAIL;
    (*out)->participant = pid_of(o->participant.id);
    (*out)->flags = o->wait ? LIM__OPEN_WAIT : 0;
    return LIM_OK;
}

static lim_err ask_open(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *o, manner how,
                        lim__wait *w, lim_pid *conv_out)
{
    lim__open *open;
    lim_pid near = group != NULL ? lim__group_find(bus, lim__str(group)) : pid_of(o->participant.id);
    lim_err err = ask_letter(bus, group, request, o, how, &open);
    return err == LIM_OK ? lim__api_begin(bus, lim__agent_for(bus, near), open, w, conv_out) : err;
}

/* ---- asks whose outcome goes to a callback ---- */

typedef struct pending {
    lim__wait wait;
    lim_bus *bus;
    lim_on_part *on_part; /* NULL: one answer, in one part */
    lim_on_outcome *on_outcome;
    void *ctx;
    uint32_t window;  /* of a stream: parts under way at once; 0: nothing is granted */
    uint32_t granted; /* of these, as far as known here: may still come */
    uint32_t owed;    /* were done, and may be followed by one more each */
} pending;

lim_err lim_conv_grant(lim_bus *bus, lim_conv conv, uint32_t parts)
{
    if (parts == 0)
        return LIM_E_MISUSE;
    if (lim__conv_kind_of(bus, pid_of(conv.id)) == 0)
        return LIM_E_GONE;
    lim__grant *g = lim__letter_new(NULL, &lim__type_grant, sizeof *g);
    if (g == NULL)
        return LIM_E_NOMEM;
    g->parts = parts;
    return lim__post_reserved(bus->rt, pid_of(conv.id), g);
}

/* Half a window at a time; at once when the other side may be waiting. */
static void grant_owed(pending *p)
{
    if (p->owed == 0 || (p->granted > 0 && p->owed * 2 < p->window))
        return;
    if (lim_conv_grant(p->bus, (lim_conv){ p->wait.conv.id }, p->owed) == LIM_E_NOMEM)
        return; /* with the next part; there is one, for the window is never wholly owed before */
    p->granted += p->owed;
    p->owed = 0;
}

static void on_partial(pending *p, const lim__partial *letter)
{
    lim_part_view view = { .conv = { letter->conv.id },
                           .seq = letter->seq,
                           .how = letter->how,
                           .participant = lim__bytes(letter->text, letter->participant_len),
                           .detail = lim__bytes(letter->text + letter->participant_len, letter->detail_len) };
    if (letter->payload != NULL)
        view.payload = lim__msg_bytes(letter->payload);
    lim_done done = p->on_part(p->ctx, &view);
    if (done == LIM_FAIL)
        (void)!lim_conv_cancel(p->bus, view.conv);
    if (p->window == 0)
        return;
    p->granted -= p->granted > 0;
    p->owed += done == LIM_DONE;
    grant_owed(p);
}

static bool pending_letter(lim__wait *w, lim__wait_end end, const lim_signal *signal)
{
    pending *p = LIM_CONTAINER(w, pending, wait);
    if (end == LIM__WAIT_LETTER && signal->type != &lim__type_outcome) {
        if (signal->type == &lim__type_partial && p->on_part != NULL)
            on_partial(p, signal->body.ptr);
        return false;
    }
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    lim_outcome o = lim__api_no_letter(end, p->wait.conv);
    if (end == LIM__WAIT_LETTER)
        lim__outcome_view(signal->body.ptr, excluded, &o);
    p->on_outcome(p->ctx, &o);
    free(p);
    return true;
}

static bool opts_durable(const lim_ask_opts *o)
{
    return o != NULL && o->size >= sizeof *o && o->durable; /* parts are not stored */
}

static lim_err ask_pending(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *o, manner how,
                           lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, lim_conv *conv_out)
{
    lim_pid conv;
    char room[256];
    lim_err err = on_outcome == NULL || (on_part == NULL) != (how == ONE) || (how != ONE && opts_durable(o))
                      ? LIM_E_MISUSE
                      : LIM_OK;
    if (err == LIM_OK)
        err = ask_check(bus, &group, room, request, o);
    pending *p = err == LIM_OK ? calloc(1, sizeof *p) : NULL;
    if (p == NULL)
        return err == LIM_OK ? LIM_E_NOMEM : err;
    uint32_t window = how != STREAM ? 0 : o->window != 0 ? o->window : 64;
    *p = (pending){ .wait = { .ref = lim__wait_ref(bus), .on_letter = pending_letter },
                    .bus = bus,
                    .on_part = on_part,
                    .on_outcome = on_outcome,
                    .ctx = ctx,
                    .window = window,
                    .granted = window };
    err = ask_open(bus, group, request, o, how, &p->wait, &conv);
    if (err != LIM_OK)
        free(p);
    else if (conv_out != NULL)
        *conv_out = (lim_conv){ conv.id };
    return err;
}

lim_err lim_ask_async(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts,
                      lim_on_outcome *on_outcome, void *ctx, lim_conv *conv_out)
{
    return ask_pending(bus, group, request, opts, ONE, NULL, on_outcome, ctx, conv_out);
}

lim_err lim_ask_stream(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts,
                       lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, lim_conv *conv_out)
{
    return ask_pending(bus, group, request, opts, STREAM, on_part, on_outcome, ctx, conv_out);
}

lim_err lim_ask_all(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts, lim_on_part *on_part,
                    lim_on_outcome *on_outcome, void *ctx, lim_conv *conv_out)
{
    if (group == NULL || opts == NULL || opts->size < sizeof *opts || opts->wait || opts->on_crash > LIM_CRASH_FAIL)
        return LIM_E_MISUSE; /* everybody is asked: there is nobody to wait for, and no other to go to */
    return ask_pending(bus, group, request, opts, ALL, on_part, on_outcome, ctx, conv_out);
}

/* ---- asks that wait ---- */

lim_err lim_ask(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts, lim_outcome *out)
{
    lim__blocker b;
    lim_pid conv;
    char room[256];
    lim_err err = lim__may_block() ? ask_check(bus, &group, room, request, opts) : LIM_E_MISUSE;
    if (err != LIM_OK)
        return err;
    lim__blocker_init(&b, bus, pid_of(0));
    err = ask_open(bus, group, request, opts, ONE, &b.wait, &conv);
    if (err == LIM_OK) {
        lim__blocker_wait(&b, pid_of(0), UINT64_MAX);
        err = lim__api_outcome(&b, out);
    }
    lim__blocker_fini(&b);
    return err;
}

lim_err lim_sys(lim_bus *bus, const char *group, const char *request_json, int64_t timeout_ms, lim_outcome *out)
{
    if (group == NULL || group[0] != '$' || request_json == NULL)
        return LIM_E_MISUSE;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = timeout_ms };
    return lim_ask(bus, group, lim__str(request_json), &opts, out);
}

/* ---- tasks ---- */

typedef struct dispatched { /* verdict first, to the thread that dispatched; then the outcome, to its callback */
    lim__wait wait;
    lim__blocker *verdict;
    lim_admission admission;
    lim_on_outcome *on_outcome;
    void *ctx;
} dispatched;

static void verdict(dispatched *d, lim__wait_end end, const lim_signal *signal)
{
    lim__blocker *b = d->verdict;
    d->verdict = NULL;
    if (b != NULL)
        b->wait.on_letter(&b->wait, end, signal);
}

static bool dispatched_letter(lim__wait *w, lim__wait_end end, const lim_signal *signal)
{
    dispatched *d = LIM_CONTAINER(w, dispatched, wait);
    if (end == LIM__WAIT_LETTER && signal->type == &lim__type_admitted) {
        const lim__admitted *a = signal->body.ptr;
        bool over = a->admission.verdict == LIM_REJECT || d->on_outcome == NULL;
        verdict(d, end, signal);
        if (over)
            free(d);
        return over;
    }
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    lim_outcome o = lim__api_no_letter(end, d->wait.conv);
    if (end == LIM__WAIT_LETTER)
        lim__outcome_view(signal->body.ptr, excluded, &o);
    bool offered = d->verdict != NULL; /* it ended before it was admitted: the dispatcher hears that, and only that */
    verdict(d, end, signal);
    if (!offered && d->on_outcome != NULL)
        d->on_outcome(d->ctx, &o);
    free(d);
    return true;
}

/* *queue becomes its whole name, which may be in `room`. */
static lim_err dispatch_check(lim_bus *bus, const char **queue, char room[256], lim_bytes task,
                              const lim_dispatch_opts *o)
{
    if (!lim__may_block() || o == NULL || o->size < sizeof *o || !lim__api_timeout_ok(o->timeout_ms) ||
        *queue == NULL || (o->durable && bus->durable == NULL))
        return LIM_E_MISUSE;
    *queue = lim__in_namespace(o->ns, *queue, room);
    lim_err err = *queue == NULL || (*queue)[0] == '$' ? LIM_E_INVALID : text_check(bus, *queue, task, o->type);
    return err == LIM_OK && lim__api_closing(bus) ? LIM_E_CLOSED : err;
}

static lim_err dispatch_letter(lim_bus *bus, const char *queue, lim_bytes task, const lim_dispatch_opts *o,
                               lim__open **out)
{
    lim__buf block = { 0 };
    lim__terms *terms = NULL;
    lim_err err = terms_of(lim__options_dispatch(&block, o, bus->os->wall_ns(bus->os) / 1000, NULL), &block, &terms);
    if (err == LIM_OK)
        err = lim__api_letter(LIM__KIND_TASK, queue, o->type, task, out);
    if (err != LIM_OK) {
        lim__terms_unref(terms);
        return err;
    }
    (*out)->terms = terms;
    (*out)->deadline_ns = lim__api_deadline(bus, lim__options_timeout(o->timeout_ms, &o->cause));
    (*out)->losses_max = (uint16_t)(o->losses_max < UINT16_MAX ? o->losses_max : UINT16_MAX);
    return LIM_OK;
}

lim_err lim_dispatch(lim_bus *bus, const char *queue, lim_bytes task, const lim_dispatch_opts *opts,
                     lim_on_outcome *on_outcome, void *ctx, lim_admission *out, lim_conv *task_out)
{
    lim__blocker b;
    lim__open *open = NULL;
    lim_pid conv;
    char room[256];
    lim_err err = dispatch_check(bus, &queue, room, task, opts);
    dispatched *d = err == LIM_OK ? calloc(1, sizeof *d) : NULL;
    if (d == NULL)
        return err == LIM_OK ? LIM_E_NOMEM : err;
    lim__blocker_init(&b, bus, pid_of(0));
    *d = (dispatched){ .wait = { .ref = lim__wait_ref(bus), .on_letter = dispatched_letter },
                       .verdict = &b,
                       .on_outcome = on_outcome,
                       .ctx = ctx };
    err = dispatch_letter(bus, queue, task, opts, &open);
    if (err == LIM_OK) {
        open->flags = on_outcome != NULL ? LIM__OPEN_REPORT : 0;
        err = lim__api_begin(bus, lim__agent_for(bus, lim__group_find(bus, lim__str(queue))), open, &d->wait, &conv);
    }
    if (err != LIM_OK) {
        free(d);
        lim__blocker_fini(&b);
        return err;
    }
    lim__blocker_wait(&b, pid_of(0), UINT64_MAX);
    err = b.err != LIM_OK ? b.err : b.end != LIM__WAIT_LETTER || b.type != &lim__type_admitted ? LIM_E_CLOSED : LIM_OK;
    if (err == LIM_OK) {
        const lim__admitted *a = b.body;
        *out = a->admission;
        if (task_out != NULL) /* perhaps another task, that stands for this one */
            *task_out = (lim_conv){ a->conv.id };
    }
    lim__blocker_fini(&b);
    return err;
}

static void unawait(lim_bus *bus, lim_conv task, uint64_t ref)
{
    lim__command *c = lim__letter_new(NULL, &lim__type_unawait, sizeof *c);
    if (c == NULL)
        return;
    lim_pid to = lim__alias_pid(bus, task.id);
    *c = (lim__command){ ref, lim__agent_for(bus, to) };
    (void)!lim__post_reserved(bus->rt, to, c);
}

lim_err lim_task_await(lim_bus *bus, lim_conv task, int64_t timeout_ms, lim_outcome *out)
{
    lim__blocker b;
    if (!lim__may_block() || !lim__api_timeout_ok(timeout_ms))
        return LIM_E_MISUSE;
    uint64_t end = lim__api_deadline(bus, timeout_ms);
    lim_err err = lim__api_command(bus, &b, &lim__type_await, task, end);
    if (err == LIM_OK && b.end == LIM__WAIT_LETTER) {
        err = lim__api_outcome(&b, out);
        lim__blocker_fini(&b);
        return err;
    }
    bool late = err == LIM_OK && b.end == LIM__WAIT_FORGOTTEN;
    if (late) /* or each impatient look at a long task would be remembered until its end */
        unawait(bus, task, b.wait.ref);
    if (err == LIM_OK)
        lim__blocker_fini(&b);
    if (err == LIM_E_NOMEM || err == LIM_E_FULL)
        return err;
    lim__outcome_letter *was = lim__ended_outcome(bus, NULL, pid_of(task.id), 0);
    if (was == NULL)
        return late ? LIM_E_TIMEOUT : LIM_E_GONE;
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    lim_outcome view;
    lim__outcome_view(was, excluded, &view);
    err = lim__outcome_copy(&view, out);
    lim__letter_free(NULL, was);
    return err;
}
