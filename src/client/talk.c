/* SPDX-License-Identifier: Apache-2.0
 * talk.c - the verbs of conversations with more than one exchange. Each is there twice: one that calls back, for event
 * loops, and one that waits, which is the first with a callback that wakes the caller. */
#include "client/client.h"
#include "data/options.h"

#include <stdlib.h>

static lim_err may_say(lim_client *c, const lim__conv *conv)
{
    return !conv || conv->state != LIM__CONV_OPEN ? LIM_E_GONE : lim__link_may_put(c);
}

/* Waits for what calls back to `w`, if it began; unlocks. */
static lim_err wait_for(lim_client *c, lim__waiter *w, lim_err err)
{
    if (err == LIM_OK) {
        lim__client_block_wait(c, w, UINT64_MAX);
        err = w->err;
    }
    lim__client_block_leave(c, w);
    return err;
}

/* ---- open ---- */

static lim_err check_open(const lim_client *c, const lim_client_conv_opts *opts, lim_diag *diag)
{
    lim_err err = LIM_OK;
    if (!c || !opts || (opts->group && opts->participant.id != 0) ||
        (opts->attach.id != 0 && (opts->group || opts->participant.id != 0)))
        err = LIM_E_INVALID;
    else if (opts->size < sizeof *opts || !lim__client_timeout_ok(opts->timeout_ms) || (int)opts->on_crash < 0 ||
             opts->on_crash > LIM_CRASH_COMPENSATE || (opts->on_crash == LIM_CRASH_COMPENSATE && !opts->compensate))
        err = LIM_E_MISUSE;
    if (err != LIM_OK)
        lim__diag_set(diag, 0, 0, "%s", lim_err_text(err));
    return err;
}

static lim_err open_locked(lim_client *c, const lim_client_conv_opts *opts, const lim__buf *options,
                           lim_on_conv *on_open, void *ctx)
{
    lim_err err = lim__link_may_put(c);
    if (err != LIM_OK)
        return err;
    lim__conv *conv = lim__client_conv_new(c, on_open, ctx);
    if (!conv)
        return LIM_E_NOMEM;
    err = LIM__SAY(c, open, .stream = conv->stream,
                   .timeout_ms = lim__client_wire_timeout(lim__options_timeout(opts->timeout_ms, &opts->cause)),
                   .on_crash = (uint8_t)(opts->on_crash ? opts->on_crash : LIM_CRASH_FAIL),
                   .participant = opts->participant.id, .group = lim__str(opts->group),
                   .options = lim__buf_bytes(options));
    if (err != LIM_OK)
        lim__client_conv_free(c, conv);
    else
        lim__client_conv_asked(c, conv);
    return err;
}

lim_err lim_client_conv_open_async(lim_client *c, const lim_client_conv_opts *opts, lim_on_conv *on_open, void *ctx)
{
    lim__buf options = { 0 };
    lim_err err = check_open(c, opts, NULL);
    if (err == LIM_OK)
        err = on_open ? lim__options_open(&options, opts, NULL) : LIM_E_INVALID;
    if (err == LIM_OK) {
        lim__client_lock(c);
        err = open_locked(c, opts, &options, on_open, ctx);
        lim__client_unlock(c);
    }
    lim__buf_fini(&options);
    return err;
}

static lim_err open_and_wait(lim_client *c, const lim_client_conv_opts *opts, const lim__buf *options, lim_diag *diag,
                             lim_conv *out)
{
    lim__waiter w;
    lim_err err = lim__client_block_enter(c, &w);
    if (err == LIM_OK) {
        lim__client_block_room(c);
        err = wait_for(c, &w, open_locked(c, opts, options, lim__client_waiter_on_conv, &w));
    } else {
        w.diag.text[0] = '\0';
    }
    if (err == LIM_OK)
        *out = w.conv;
    else
        lim__diag_set(diag, 0, 0, "%s", w.diag.text[0] ? w.diag.text : lim_err_text(err));
    return err;
}

lim_err lim_client_conv_open(lim_client *c, const lim_client_conv_opts *opts, lim_diag *diag, lim_conv *out)
{
    lim__buf options = { 0 };
    lim_err err = out ? check_open(c, opts, diag) : LIM_E_INVALID;
    if (err == LIM_OK)
        err = lim__options_open(&options, opts, diag);
    if (err == LIM_OK)
        err = open_and_wait(c, opts, &options, diag, out);
    lim__buf_fini(&options);
    return err;
}

/* ---- send ---- */

static lim_err send_locked(lim_client *c, lim_conv id, lim_participant to, lim_bytes payload, lim__send_note *note)
{
    lim__conv *conv = lim__client_conv_find(c, id);
    lim_err err = may_say(c, conv);
    if (err == LIM_OK)
        err = LIM__SAY(c, send, .stream = conv->stream, .corr = conv->next_corr, .to = to.id, .payload = payload);
    if (err != LIM_OK)
        return err;
    if (note) {
        note->corr = conv->next_corr;
        lim__list_push(&conv->sends, &note->node);
    }
    conv->next_corr++;
    conv->unsent++;
    c->sends_offered++;
    return LIM_OK;
}

lim_err lim_client_conv_send(lim_client *c, lim_conv id, lim_participant to, lim_bytes payload,
                             lim_on_admission *on_admission, void *ctx)
{
    lim__send_note *note = on_admission ? malloc(sizeof *note) : NULL;
    if (on_admission && !note)
        return LIM_E_NOMEM;
    if (note)
        *note = (lim__send_note){ .on_admission = on_admission, .ctx = ctx };
    lim__client_lock(c);
    lim_err err = send_locked(c, id, to, payload, note);
    lim__client_unlock(c);
    if (err != LIM_OK)
        free(note);
    return err;
}

/* ---- join, leave ---- */

typedef enum membership { JOINS = 1, JOINS_REQUIRED, LEAVES } membership;

static lim_err put_member(lim_client *c, const lim__conv *conv, lim_participant who, membership what)
{
    lim__buf options = { 0 };
    if (what == LEAVES)
        return LIM__SAY(c, depart, .stream = conv->stream, .corr = conv->next_join, .participant = who.id);
    lim_err err = lim__options_join(&options, what == JOINS_REQUIRED);
    if (err == LIM_OK)
        err = LIM__SAY(c, join, .stream = conv->stream, .corr = conv->next_join, .participant = who.id,
                       .options = lim__buf_bytes(&options));
    lim__buf_fini(&options);
    return err;
}

static lim_err member_locked(lim_client *c, lim_conv id, lim_participant who, membership what, lim_on_done *on_done,
                             void *ctx)
{
    lim__conv *conv = lim__client_conv_find(c, id);
    lim_err err = may_say(c, conv);
    if (err != LIM_OK)
        return err;
    lim__join_note *note = malloc(sizeof *note);
    if (!note)
        return LIM_E_NOMEM;
    err = put_member(c, conv, who, what);
    if (err != LIM_OK) {
        free(note);
        return err;
    }
    *note = (lim__join_note){ .corr = conv->next_join++, .on_done = on_done, .ctx = ctx };
    lim__list_push(&conv->joins, &note->node);
    lim__client_conv_asked(c, conv);
    return LIM_OK;
}

static lim_err member_async(lim_client *c, lim_conv id, lim_participant who, membership what, lim_on_done *on_done,
                            void *ctx)
{
    if (!c || who.id == 0)
        return LIM_E_INVALID;
    lim__client_lock(c);
    lim_err err = member_locked(c, id, who, what, on_done, ctx);
    lim__client_unlock_now(c);
    return err;
}

static lim_err member(lim_client *c, lim_conv id, lim_participant who, membership what)
{
    lim__waiter w;
    lim_err err = !c || who.id == 0 ? LIM_E_INVALID : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    return wait_for(c, &w, member_locked(c, id, who, what, lim__client_waiter_on_done, &w));
}

lim_err lim_client_conv_join(lim_client *c, lim_conv conv, lim_participant participant)
{
    return member(c, conv, participant, JOINS);
}

lim_err lim_client_conv_join_required(lim_client *c, lim_conv conv, lim_participant participant)
{
    return member(c, conv, participant, JOINS_REQUIRED);
}

lim_err lim_client_conv_join_async(lim_client *c, lim_conv conv, lim_participant participant, bool required,
                                   lim_on_done *on_done, void *ctx)
{
    return member_async(c, conv, participant, required ? JOINS_REQUIRED : JOINS, on_done, ctx);
}

lim_err lim_client_conv_leave(lim_client *c, lim_conv conv, lim_participant participant)
{
    return member(c, conv, participant, LEAVES);
}

lim_err lim_client_conv_leave_async(lim_client *c, lim_conv conv, lim_participant participant, lim_on_done *on_done,
                                    void *ctx)
{
    return member_async(c, conv, participant, LEAVES, on_done, ctx);
}

/* ---- receive ---- */

static lim__receive *receive_new(lim_on_outcome *on_outcome, void *ctx, uint64_t deadline_ns)
{
    lim__receive *r = calloc(1, sizeof *r);
    if (r)
        *r = (lim__receive){ .on_outcome = on_outcome, .ctx = ctx, .deadline_ns = deadline_ns };
    return r;
}

lim_err lim_client_conv_receive_async(lim_client *c, lim_conv id, int64_t timeout_ms, lim_on_outcome *on_outcome,
                                      void *ctx)
{
    if (!c || !on_outcome)
        return LIM_E_INVALID;
    if (!lim__client_timeout_ok(timeout_ms))
        return LIM_E_MISUSE;
    lim__client_lock(c);
    lim__conv *conv = lim__client_conv_find(c, id);
    lim_err err = !conv ? LIM_E_GONE : c->link == LIM__LINK_ENDED ? LIM_E_CLOSED : LIM_OK;
    lim__receive *r = err == LIM_OK ? receive_new(on_outcome, ctx, lim__client_deadline_ns(c, timeout_ms)) : NULL;
    if (r)
        lim__client_receive_add(c, conv, r);
    else if (err == LIM_OK)
        err = LIM_E_NOMEM;
    lim__client_unlock(c);
    return err;
}

/* What is there already needs no detour. False: nothing is. */
static bool receive_now(lim__conv *conv, lim__waiter *w)
{
    lim__letter *l = lim__client_inbox_take(conv);
    if (!l && conv->state != LIM__CONV_OVER)
        return false;
    lim_outcome outcome = l ? lim__client_letter_outcome(conv->id, l) : lim__client_over_outcome(conv);
    w->err = lim__outcome_copy(&outcome, &w->outcome);
    free(l);
    return true;
}

/* The caller's receive, if it is still in line. */
static lim__receive *receive_of(lim_client *c, lim_conv id, const lim__waiter *w)
{
    lim__conv *conv = lim__client_conv_find(c, id);
    if (!conv)
        return NULL;
    LIM__LIST_EACH(node, &conv->receives) {
        lim__receive *r = LIM_CONTAINER(node, lim__receive, node);
        if (r->ctx == w)
            return r;
    }
    return NULL;
}

static void receive_in_time(lim_client *c, lim_conv id, uint64_t deadline_ns, lim__waiter *w)
{
    if (lim__client_block_wait(c, w, deadline_ns))
        return;
    lim__receive *r = receive_of(c, id, w);
    if (!r) { /* it is being told right now */
        lim__client_block_wait(c, w, UINT64_MAX);
        return;
    }
    lim__client_receive_withdraw(c, r);
    free(r);
    w->outcome = (lim_outcome){ .how = LIM_HOW_TIMEOUT, .handed_over = LIM_HANDED_NO, .conv = id };
}

static lim_err receive_locked(lim_client *c, lim_conv id, int64_t timeout_ms, lim__waiter *w)
{
    lim__conv *conv = lim__client_conv_find(c, id);
    if (!conv)
        return LIM_E_GONE;
    if (receive_now(conv, w))
        return w->err;
    lim__receive *r = receive_new(lim__client_waiter_on_outcome, w, UINT64_MAX); /* the caller looks at the clock */
    if (!r)
        return LIM_E_NOMEM;
    lim__client_receive_add(c, conv, r);
    receive_in_time(c, id, lim__client_deadline_ns(c, timeout_ms), w);
    return w->err;
}

lim_err lim_client_conv_receive(lim_client *c, lim_conv id, int64_t timeout_ms, lim_outcome *out)
{
    lim__waiter w;
    lim_err err = !c || !out                            ? LIM_E_INVALID
                  : !lim__client_timeout_ok(timeout_ms) ? LIM_E_MISUSE
                                                        : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    err = receive_locked(c, id, timeout_ms, &w);
    lim__client_block_leave(c, &w);
    if (err == LIM_OK)
        *out = w.outcome;
    return err;
}

/* ---- ask ---- */

static lim_err ask_locked(lim_client *c, lim_conv id, lim_participant to, lim_bytes request, int64_t timeout_ms,
                          lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out)
{
    lim__conv *conv = lim__client_conv_find(c, id);
    lim_err err = may_say(c, conv);
    if (err == LIM_OK)
        err = lim__client_may_call(c);
    if (err != LIM_OK)
        return err;
    lim__call *call = lim__client_call_new(c, LIM__CALL_PLAIN, on_outcome, ctx);
    if (!call)
        return LIM_E_NOMEM;
    call->task = (lim_conv){ conv->id };
    err = LIM__SAY(c, askin, .stream = conv->stream, .corr = call->corr,
                   .timeout_ms = lim__client_wire_timeout(timeout_ms), .to = to.id, .payload = request);
    if (err != LIM_OK)
        lim__client_call_drop(c, call);
    else if (call_out)
        *call_out = call->corr;
    return err;
}

lim_err lim_client_conv_ask_async(lim_client *c, lim_conv id, lim_participant to, lim_bytes request, int64_t timeout_ms,
                                  lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out)
{
    if (!c || !on_outcome)
        return LIM_E_INVALID;
    if (!lim__client_timeout_ok(timeout_ms))
        return LIM_E_MISUSE;
    lim__client_lock(c);
    lim_err err = ask_locked(c, id, to, request, timeout_ms, on_outcome, ctx, call_out);
    lim__client_unlock(c);
    return err;
}

lim_err lim_client_conv_ask(lim_client *c, lim_conv id, lim_participant to, lim_bytes request, int64_t timeout_ms,
                            lim_outcome *out)
{
    lim__waiter w;
    lim_err err = !c || !out                            ? LIM_E_INVALID
                  : !lim__client_timeout_ok(timeout_ms) ? LIM_E_MISUSE
                                                        : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    err = wait_for(c, &w, ask_locked(c, id, to, request, timeout_ms, lim__client_waiter_on_outcome, &w, NULL));
    if (err == LIM_OK)
        *out = w.outcome;
    return err;
}

/* ---- close ---- */

lim_err lim_client_conv_close(lim_client *c, lim_conv id)
{
    lim__client_lock(c);
    lim__conv *conv = lim__client_conv_find(c, id);
    lim_err err = conv ? LIM_OK : LIM_E_GONE;
    if (conv && conv->state == LIM__CONV_OPEN && c->link == LIM__LINK_UP)
        err = LIM__SAY(c, close, .stream = conv->stream);
    if (err == LIM_OK)
        lim__client_conv_let_go(c, conv);
    lim__client_unlock(c);
    return err;
}
