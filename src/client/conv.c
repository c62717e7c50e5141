/* SPDX-License-Identifier: Apache-2.0
 * conv.c - conversations with more than one exchange.
 *
 *   OPENING --OPENED--> OPEN --CLOSED, link broke, inbox full--> OVER --lim_client_conv_close--> (gone)
 *      |                 |                                        `-- the same, answers due --.
 *      |                 `--------- lim_client_conv_close --> CLOSING --CLOSED, link broke--> (gone)
 *      `---- refused, link broke --> (gone; the opener is told)
 *
 * Messages that nobody is waiting for wait in the inbox, and stay readable after the end. A receive that was there
 * first is served first; one that timed out takes nothing with it.
 *
 * Who wants to hear what became of a SEND hears it exactly once: by SENT, or CLOSED when the stream has ended. That is
 * said on the I/O side only, which is why a conversation closed by the user stays until the server has closed it.
 *
 * Invariants:
 *   V1  at_server: it is in conv_streams, under its stream. A conversation is freed by others than the I/O side only if
 *       it is not, and has no `sends`.
 *   V2  CLOSING: it is not in conv_ids; nobody waits for it. */
#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>

enum { RETRY_MS = 100 }; /* after PARTICIPANT_FULL, as on the bus */

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
    if (!conv->at_server)
        return;
    conv->at_server = false;
    lim__map_remove(&c->conv_streams, conv->stream);
    c->sends_answered += conv->unsent;
    conv->unsent = 0;
}

/* For who waits. Its stream may go on. */
static void end(lim__conv *conv, lim_how how, lim_reason reason, lim_bytes detail)
{
    LIM_ASSERT(conv->state == LIM__CONV_OPEN);
    conv->state = LIM__CONV_OVER;
    conv->over_how = how;
    conv->over_reason = reason;
    lim_bytes text = lim__utf8_clip(detail, sizeof conv->detail - 1);
    snprintf(conv->detail, sizeof conv->detail, "%.*s", (int)text.len, text.len ? (const char *)text.ptr : "");
    lim_outcome outcome = over_outcome(conv);
    for (lim__waiter *w; (w = first_waiter(conv)) != NULL;)
        give(w, &outcome);
    for (lim__list *node; (node = lim__list_pop(&conv->joins)) != NULL;)
        lim__client_waiter_done_locked(LIM_CONTAINER(node, lim__waiter, node), LIM_E_CLOSED);
}

static void drop_inbox(lim__conv *conv)
{
    for (lim__list *node; (node = lim__list_pop(&conv->inbox)) != NULL;)
        free(LIM_CONTAINER(node, letter, node));
    conv->inbox_bytes = 0;
}

static void conv_free(lim_client *c, lim__conv *conv)
{
    leave_stream(c, conv);
    if (conv->id != 0)
        lim__map_remove(&c->conv_ids, conv->id);
    LIM_ASSERT(lim__list_empty(&conv->sends) && lim__list_empty(&conv->joins) && lim__list_empty(&conv->waiters));
    lim__list_remove(&conv->node);
    drop_inbox(conv);
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

/* ---- what became of a SEND: I/O side ---- */

static void move_sends(lim__list *to, lim__list *from)
{
    lim__list_init(to);
    for (lim__list *node; (node = lim__list_pop(from)) != NULL;)
        lim__list_push(to, node);
}

/* Unlocks for each. */
static void tell_sends(lim_client *c, lim__list *sends, lim_err err, const lim_admission *admission)
{
    for (lim__list *node; (node = lim__list_pop(sends)) != NULL;) {
        lim__send_note note = *LIM_CONTAINER(node, lim__send_note, node);
        free(LIM_CONTAINER(node, lim__send_note, node));
        lim__client_unlock(c);
        note.on_admission(note.ctx, err, admission);
        lim__client_lock(c);
    }
}

/* Its stream is over. It may be gone when this returns. */
static void stream_over(lim_client *c, lim__conv *conv)
{
    lim__list sends;
    leave_stream(c, conv);
    move_sends(&sends, &conv->sends);
    if (conv->state == LIM__CONV_CLOSING)
        conv_free(c, conv);
    tell_sends(c, &sends, LIM_E_CLOSED, NULL);
}

static lim__conv *find_with_sends(lim_client *c)
{
    LIM__LIST_EACH(node, &c->convs) {
        lim__conv *conv = LIM_CONTAINER(node, lim__conv, node);
        if (!lim__list_empty(&conv->sends))
            return conv;
    }
    return NULL;
}

void lim__client_convs_break(lim_client *c, lim_how how, const char *detail)
{
    LIM__LIST_EACH_SAFE(node, after, &c->convs) {
        lim__conv *conv = LIM_CONTAINER(node, lim__conv, node);
        if (conv->state == LIM__CONV_OPENING) {
            refuse(c, conv, LIM_E_CLOSED, lim__str(detail));
            continue;
        }
        if (conv->state == LIM__CONV_OPEN)
            end(conv, how, LIM_REASON_NONE, lim__str(detail));
        leave_stream(c, conv);
        if (conv->state == LIM__CONV_CLOSING && lim__list_empty(&conv->sends))
            conv_free(c, conv);
    }
    for (lim__conv *conv; (conv = find_with_sends(c)) != NULL;) /* only now: callbacks may close any of them */
        stream_over(c, conv);
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
        end(conv, LIM_HOW_CLOSED, LIM_REASON_NONE, lim__str("too much was waiting to be received"));
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
    if (!lim__get_message(frame, &f) || conv->state == LIM__CONV_OPENING)
        return false;
    if (conv->state != LIM__CONV_OPEN)
        return true; /* closed here; it was on its way */
    lim__waiter *w = first_waiter(conv);
    lim_outcome outcome = message_outcome(conv, f.payload);
    if (w)
        give(w, &outcome);
    else
        keep(c, conv, f.payload);
    return true;
}

/* Those of `count` SENDs from `first` on that somebody wants to hear of. */
static void take_sends(lim__list *to, lim__conv *conv, uint32_t first, uint32_t count)
{
    lim__list_init(to);
    LIM__LIST_EACH_SAFE(node, after, &conv->sends) {
        uint32_t at = LIM_CONTAINER(node, lim__send_note, node)->corr - first;
        if (at >= count && at <= INT32_MAX)
            return;
        if (at >= count)
            continue;
        lim__list_remove(node);
        lim__list_push(to, node);
    }
}

static bool on_sent(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_sent f;
    lim__list sends;
    if (!lim__get_sent(frame, &f) || f.count > conv->unsent)
        return false;
    conv->unsent -= f.count;
    c->sends_answered += f.count;
    take_sends(&sends, conv, f.first_corr, f.count);
    lim_admission admission = { .verdict = (lim_verdict)f.verdict,
                                .why = (lim_why)f.why,
                                .matched = 1,
                                .delivered = f.verdict == LIM_ACCEPT,
                                .retry_after_ms = f.why == LIM_WHY_PARTICIPANT_FULL ? RETRY_MS : 0 };
    tell_sends(c, &sends, LIM_OK, &admission);
    return true;
}

static bool on_joined(lim__conv *conv, const lim__frame *frame)
{
    lim__f_joined f;
    if (!lim__get_joined(frame, &f))
        return false;
    LIM__LIST_EACH(node, &conv->joins) {
        lim__waiter *w = LIM_CONTAINER(node, lim__waiter, node);
        if (w->corr != f.corr)
            continue;
        lim__list_remove(node);
        lim__client_waiter_done_locked(w, f.code == 0 ? LIM_OK : lim__client_code_err(f.code));
        return true;
    }
    return conv->state == LIM__CONV_OVER || conv->state == LIM__CONV_CLOSING; /* told already */
}

static bool on_closed(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_closed f;
    if (!lim__get_closed(frame, &f) || conv->state == LIM__CONV_OPENING)
        return false;
    bool failed = f.phase == LIM_PHASE_BROKEN;
    if (conv->state == LIM__CONV_OPEN)
        end(conv, failed ? LIM_HOW_CRASHED : LIM_HOW_CLOSED, (lim_reason)f.reason, f.detail);
    stream_over(c, conv);
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
    case LIM__JOINED:
        return on_joined(conv, frame);
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
    lim__list_init(&conv->sends);
    lim__list_init(&conv->joins);
    if (lim__map_put(&c->conv_streams, conv->stream, conv) != LIM_OK) {
        free(conv);
        return NULL;
    }
    conv->at_server = true;
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

static lim_err send_locked(lim_client *c, lim_conv id, lim_participant to, lim_bytes payload, lim__send_note *note)
{
    lim__conv *conv = find(c, id);
    lim_err err = !conv || conv->state != LIM__CONV_OPEN ? LIM_E_GONE : lim__link_may_put(c);
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

static lim_err join_locked(lim_client *c, lim__conv *conv, lim_participant participant, lim__waiter *w)
{
    lim_err err = !conv || conv->state != LIM__CONV_OPEN ? LIM_E_GONE : lim__link_may_put(c);
    if (err == LIM_OK)
        err = LIM__SAY(c, join, .stream = conv->stream, .corr = conv->next_join, .participant = participant.id);
    if (err != LIM_OK)
        return err;
    w->corr = conv->next_join++;
    lim__list_push(&conv->joins, &w->node);
    lim__client_block_wait(c, w, UINT64_MAX);
    return w->err;
}

lim_err lim_client_conv_join(lim_client *c, lim_conv id, lim_participant participant)
{
    lim__waiter w;
    lim_err err = !c || participant.id == 0 ? LIM_E_INVALID : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    err = join_locked(c, find(c, id), participant, &w);
    lim__client_block_leave(c, &w);
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

/* It is not found any more; the I/O side frees it, unless nothing is to come. */
static void let_go(lim_client *c, lim__conv *conv)
{
    lim__map_remove(&c->conv_ids, conv->id);
    conv->id = 0;
    conv->state = LIM__CONV_CLOSING;
    drop_inbox(conv);
    if (!conv->at_server && lim__list_empty(&conv->sends))
        conv_free(c, conv);
}

lim_err lim_client_conv_close(lim_client *c, lim_conv id)
{
    lim__client_lock(c);
    lim__conv *conv = find(c, id);
    lim_err err = conv ? LIM_OK : LIM_E_GONE;
    if (conv && conv->state == LIM__CONV_OPEN) {
        err = c->link == LIM__LINK_UP ? LIM__SAY(c, close, .stream = conv->stream) : LIM_OK;
        if (err == LIM_OK)
            end(conv, LIM_HOW_CLOSED, LIM_REASON_NONE, lim__str("closed by this client"));
    }
    if (conv && err == LIM_OK)
        let_go(c, conv);
    lim__client_unlock(c);
    return err;
}
