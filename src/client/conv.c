/* SPDX-License-Identifier: Apache-2.0
 * conv.c - conversations with more than one exchange.
 *
 *   OPENING --OPENED--> OPEN --CLOSED, link broke, inbox full--> OVER --lim_client_conv_close--> (gone)
 *      `---- refused, link broke --> (gone; the opener is told)
 *
 * Messages that nobody is waiting for wait in the inbox, and stay readable after the end. A receive that was there
 * first is served first; one that timed out takes nothing with it. */
#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct letter {
    lim__list node; /* inbox */
    size_t len;
    uint8_t bytes[];
} letter;

static lim__conv *find(lim_client *c, lim_conv id)
{
    return lim__map_get(&c->conv_ids, id.id);
}

/* ---- receives ---- */

static void give(lim__waiter *w, const lim_outcome *outcome)
{
    lim__list_remove(&w->node);
    lim__client_waiter_done_locked(w, lim__outcome_copy(outcome, &w->outcome));
}

static lim__waiter *first_waiter(lim__conv *conv)
{
    return lim__list_empty(&conv->waiters) ? NULL : LIM_CONTAINER(conv->waiters.next, lim__waiter, node);
}

static lim_outcome message_outcome(const lim__conv *conv, lim_bytes payload)
{
    return (
        lim_outcome){ .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES, .conv = { conv->id }, .payload = payload };
}

static lim_outcome over_outcome(const lim__conv *conv)
{
    return (lim_outcome){ .how = conv->over_how,
                          .handed_over = LIM_HANDED_NO,
                          .reason = conv->over_reason,
                          .conv = { conv->id },
                          .detail = lim__str(conv->detail) };
}

/* ---- ends ---- */

static void leave_stream(lim_client *c, lim__conv *conv)
{
    if (conv->state == LIM__CONV_OVER)
        return;
    lim__map_remove(&c->conv_streams, conv->stream);
    c->sends_answered += conv->unsent;
    conv->unsent = 0;
}

static void end(lim_client *c, lim__conv *conv, lim_how how, lim_reason reason, lim_bytes detail)
{
    LIM_ASSERT(conv->state == LIM__CONV_OPEN);
    leave_stream(c, conv);
    conv->state = LIM__CONV_OVER;
    conv->over_how = how;
    conv->over_reason = reason;
    lim_bytes text = lim__utf8_clip(detail, sizeof conv->detail - 1);
    snprintf(conv->detail, sizeof conv->detail, "%.*s", (int)text.len, text.len ? (const char *)text.ptr : "");
    lim_outcome outcome = over_outcome(conv);
    for (lim__waiter *w; (w = first_waiter(conv)) != NULL;)
        give(w, &outcome);
}

static void conv_free(lim_client *c, lim__conv *conv)
{
    leave_stream(c, conv);
    if (conv->id != 0)
        lim__map_remove(&c->conv_ids, conv->id);
    lim__list_remove(&conv->node);
    for (lim__list *node; (node = lim__list_pop(&conv->inbox)) != NULL;)
        free(LIM_CONTAINER(node, letter, node));
    free(conv);
}

static void refuse(lim_client *c, lim__conv *conv, lim_err err, lim_bytes detail)
{
    lim__waiter *w = conv->opener;
    lim__diag_set(&w->diag, 0, 0, "%.*s", (int)lim__utf8_clip(detail, sizeof w->diag.text - 1).len,
                  detail.len ? (const char *)detail.ptr : "");
    lim__client_waiter_done_locked(w, err);
    conv_free(c, conv);
}

void lim__client_convs_break(lim_client *c, lim_how how, const char *detail)
{
    LIM__LIST_EACH_SAFE(node, after, &c->convs) {
        lim__conv *conv = LIM_CONTAINER(node, lim__conv, node);
        if (conv->state == LIM__CONV_OPENING)
            refuse(c, conv, LIM_E_CLOSED, lim__str(detail));
        else if (conv->state == LIM__CONV_OPEN)
            end(c, conv, how, LIM_REASON_NONE, lim__str(detail));
    }
}

void lim__client_convs_fini(lim_client *c)
{
    LIM__LIST_EACH_SAFE(node, after, &c->convs)
        conv_free(c, LIM_CONTAINER(node, lim__conv, node));
}

/* ---- what the server says ---- */

static bool on_opened(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_opened f;
    if (!lim__get_opened(frame, &f) || conv->state != LIM__CONV_OPENING)
        return false;
    if (f.code != 0) {
        refuse(c, conv, lim__client_code_err(f.code), f.detail);
        return true;
    }
    if (f.conversation == 0 || lim__map_get(&c->conv_ids, f.conversation))
        return false;
    lim_err err = lim__map_put(&c->conv_ids, f.conversation, conv);
    if (err != LIM_OK) {
        refuse(c, conv, err, lim__bytes(NULL, 0));
        return true;
    }
    conv->id = f.conversation;
    conv->state = LIM__CONV_OPEN;
    conv->opener->conv = (lim_conv){ conv->id };
    lim__client_waiter_done_locked(conv->opener, LIM_OK);
    conv->opener = NULL;
    return true;
}

static void keep(lim_client *c, lim__conv *conv, lim_bytes payload)
{
    letter *l = conv->inbox_bytes + payload.len > LIM__INBOX_BYTES_MAX ? NULL : malloc(sizeof *l + payload.len);
    if (!l) {
        lim_err err = LIM__SAY(c, close, .stream = conv->stream);
        (void)err; /* then the break tells the server */
        end(c, conv, LIM_HOW_CLOSED, LIM_REASON_NONE, lim__str("too much was waiting to be received"));
        return;
    }
    l->len = payload.len;
    if (payload.len > 0)
        memcpy(l->bytes, payload.ptr, payload.len);
    lim__list_push(&conv->inbox, &l->node);
    conv->inbox_bytes += payload.len + sizeof *l;
}

static bool on_message(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_message f;
    if (!lim__get_message(frame, &f) || conv->state != LIM__CONV_OPEN)
        return false;
    lim__waiter *w = first_waiter(conv);
    lim_outcome outcome = message_outcome(conv, f.payload);
    if (w)
        give(w, &outcome);
    else
        keep(c, conv, f.payload);
    return true;
}

static bool on_sent(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_sent f;
    if (!lim__get_sent(frame, &f) || f.count > conv->unsent)
        return false;
    conv->unsent -= f.count;
    c->sends_answered += f.count;
    return true;
}

static bool on_closed(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_closed f;
    if (!lim__get_closed(frame, &f) || conv->state != LIM__CONV_OPEN)
        return false;
    bool failed = f.phase == LIM_PHASE_BROKEN;
    end(c, conv, failed ? LIM_HOW_CRASHED : LIM_HOW_CLOSED, (lim_reason)f.reason, f.detail);
    return true;
}

bool lim__client_conv_frame(lim_client *c, const lim__frame *frame)
{
    lim__conv *conv = lim__map_get(&c->conv_streams, frame->stream);
    if (!conv)
        return true; /* on its way when it ended here */
    switch (frame->type) {
    case LIM__OPENED:
        return on_opened(c, conv, frame);
    case LIM__SENT:
        return on_sent(c, conv, frame);
    case LIM__MESSAGE:
        return on_message(c, conv, frame);
    default:
        return on_closed(c, conv, frame);
    }
}

/* ---- verbs ---- */

static lim_err check_opts(const lim_client *c, const lim_client_conv_opts *opts, const lim_conv *out)
{
    if (!c || !opts || !out)
        return LIM_E_INVALID;
    if (opts->size < sizeof *opts || opts->timeout_ms <= 0 || (int)opts->on_crash < 0 ||
        opts->on_crash > LIM_CRASH_NEXT)
        return LIM_E_MISUSE;
    return opts->group && opts->participant.id != 0 ? LIM_E_INVALID : LIM_OK;
}

static lim__conv *conv_new(lim_client *c, lim__waiter *opener)
{
    lim__conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        return NULL;
    conv->state = LIM__CONV_OPENING;
    conv->stream = c->next_stream++;
    conv->next_corr = 1;
    conv->opener = opener;
    lim__list_init(&conv->inbox);
    lim__list_init(&conv->waiters);
    if (lim__map_put(&c->conv_streams, conv->stream, conv) != LIM_OK) {
        free(conv);
        return NULL;
    }
    lim__list_push(&c->convs, &conv->node);
    return conv;
}

static lim_err open_locked(lim_client *c, const lim_client_conv_opts *opts, lim__waiter *w)
{
    lim_err err = lim__link_may_put(c);
    if (err != LIM_OK)
        return err;
    lim__conv *conv = conv_new(c, w);
    if (!conv)
        return LIM_E_NOMEM;
    err = LIM__SAY(c, open, .stream = conv->stream, .timeout_ms = lim__client_wire_timeout(opts->timeout_ms),
                   .on_crash = (uint8_t)(opts->on_crash ? opts->on_crash : LIM_CRASH_FAIL),
                   .participant = opts->participant.id, .group = lim__str(opts->group));
    if (err != LIM_OK) {
        conv_free(c, conv);
        return err;
    }
    lim__client_block_wait(c, w, UINT64_MAX);
    return w->err;
}

lim_err lim_client_conv_open(lim_client *c, const lim_client_conv_opts *opts, lim_diag *diag, lim_conv *out)
{
    lim__waiter w;
    lim_err err = check_opts(c, opts, out);
    if (err == LIM_OK)
        err = lim__client_block_enter(c, &w);
    if (err != LIM_OK) {
        lim__diag_set(diag, 0, 0, "%s", lim_err_text(err));
        return err;
    }
    lim__client_block_room(c);
    err = open_locked(c, opts, &w);
    lim__client_block_leave(c, &w);
    if (err == LIM_OK)
        *out = w.conv;
    else
        lim__diag_set(diag, 0, 0, "%s", w.diag.text[0] ? w.diag.text : lim_err_text(err));
    return err;
}

lim_err lim_client_conv_send(lim_client *c, lim_conv id, lim_participant to, lim_bytes payload)
{
    lim__client_lock(c);
    lim__conv *conv = find(c, id);
    lim_err err = !conv || conv->state != LIM__CONV_OPEN ? LIM_E_GONE : lim__link_may_put(c);
    if (err == LIM_OK)
        err = LIM__SAY(c, send, .stream = conv->stream, .corr = conv->next_corr, .to = to.id, .payload = payload);
    if (err == LIM_OK) {
        conv->next_corr++;
        conv->unsent++;
        c->sends_offered++;
    }
    lim__client_unlock(c);
    return err;
}

/* OK and done: w->outcome. OK and not done: w is in line. */
static lim_err receive_or_queue(lim_client *c, lim_conv id, lim__waiter *w)
{
    lim__conv *conv = find(c, id);
    if (!conv)
        return LIM_E_GONE;
    lim_outcome outcome;
    lim__list *node = lim__list_pop(&conv->inbox);
    if (node) {
        letter *l = LIM_CONTAINER(node, letter, node);
        conv->inbox_bytes -= l->len + sizeof *l;
        outcome = message_outcome(conv, lim__bytes(l->bytes, l->len));
        give(w, &outcome);
        free(l);
    } else if (conv->state == LIM__CONV_OVER) {
        outcome = over_outcome(conv);
        give(w, &outcome);
    } else {
        lim__list_push(&conv->waiters, &w->node);
    }
    return LIM_OK;
}

lim_err lim_client_conv_receive(lim_client *c, lim_conv id, int64_t timeout_ms, lim_outcome *out)
{
    lim__waiter w;
    lim_err err = !c || !out ? LIM_E_INVALID : timeout_ms <= 0 ? LIM_E_MISUSE : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    err = receive_or_queue(c, id, &w);
    if (err == LIM_OK && !lim__client_block_wait(c, &w, lim__client_deadline_ns(c, timeout_ms))) {
        lim_outcome late = { .how = LIM_HOW_TIMEOUT, .handed_over = LIM_HANDED_NO, .conv = id };
        give(&w, &late);
    }
    if (err == LIM_OK)
        err = w.err;
    lim__client_block_leave(c, &w);
    if (err == LIM_OK)
        *out = w.outcome;
    return err;
}

static lim_err ask_locked(lim_client *c, lim__conv *conv, lim_participant to, lim_bytes request, int64_t timeout_ms,
                          lim__waiter *w)
{
    lim_err err = !conv || conv->state != LIM__CONV_OPEN ? LIM_E_GONE : lim__link_may_put(c);
    if (err != LIM_OK)
        return err;
    lim__call *call = lim__client_call_new(c, LIM__CALL_PLAIN, lim__client_waiter_on_outcome, w);
    if (!call)
        return LIM_E_NOMEM;
    call->task = (lim_conv){ conv->id };
    err = LIM__SAY(c, askin, .stream = conv->stream, .corr = call->corr,
                   .timeout_ms = lim__client_wire_timeout(timeout_ms), .to = to.id, .payload = request);
    if (err != LIM_OK) {
        lim__client_call_drop(c, call);
        return err;
    }
    lim__client_block_wait(c, w, UINT64_MAX);
    return w->err;
}

lim_err lim_client_conv_ask(lim_client *c, lim_conv id, lim_participant to, lim_bytes request, int64_t timeout_ms,
                            lim_outcome *out)
{
    lim__waiter w;
    lim_err err = !c || !out ? LIM_E_INVALID : timeout_ms <= 0 ? LIM_E_MISUSE : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    err = ask_locked(c, find(c, id), to, request, timeout_ms, &w);
    lim__client_block_leave(c, &w);
    if (err == LIM_OK)
        *out = w.outcome;
    return err;
}

lim_err lim_client_conv_close(lim_client *c, lim_conv id)
{
    lim__client_lock(c);
    lim__conv *conv = find(c, id);
    lim_err err = conv ? LIM_OK : LIM_E_GONE;
    if (conv && conv->state == LIM__CONV_OPEN) {
        err = c->link == LIM__LINK_UP ? LIM__SAY(c, close, .stream = conv->stream) : LIM_OK;
        if (err == LIM_OK)
            end(c, conv, LIM_HOW_CLOSED, LIM_REASON_NONE, lim__str("closed by this client"));
    }
    if (conv && err == LIM_OK)
        conv_free(c, conv);
    lim__client_unlock(c);
    return err;
}
