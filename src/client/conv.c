/* SPDX-License-Identifier: Apache-2.0
 * conv.c - the life of conversations with more than one exchange; their verbs are in talk.c.
 *
 *   OPENING --OPENED--> OPEN --CLOSED, link broke, inbox full--> OVER --lim_client_conv_close--> (gone)
 *      |                 |                                        `-- the same, answers due --.
 *      |                 `--------- lim_client_conv_close --> CLOSING --CLOSED, link broke--> (gone)
 *      `---- refused, link broke --> (gone; the opener is told)
 *
 * Messages and events that nobody is waiting for wait in the inbox, and stay readable after the end. A receive that was
 * there first is served first; one that timed out takes nothing with it.
 *
 * Callbacks run on the I/O side only. What the server says is told as it is read. What a call of the user's decides (a
 * receive finds something in the inbox; a conversation is closed under it), and what is late, goes to `receives_done`
 * and is told in the next turn, before anything that is read then. Who wants to hear what became of a SEND, JOIN or
 * DEPART hears it exactly once: by its answer, or CLOSED when the stream has ended. So a conversation closed by the
 * user stays until the server has closed it.
 *
 * Invariants:
 *   V1  at_server: it is in conv_streams, under its stream. A conversation is freed by others than the I/O side only if
 *       it is not, and has no `sends` and `joins`.
 *   V2  CLOSING: it is not in conv_ids; nobody waits for it.
 *   V3  receives are only in an OPEN conversation with an empty inbox; `receiving` counts them. */
#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>

lim__conv *lim__client_conv_find(lim_client *c, lim_conv id)
{
    return lim__map_get(&c->conv_ids, id.id);
}

/* ---- letters ---- */

static lim__letter *letter_new(const lim__f_message *f)
{
    lim__letter *l = malloc(sizeof *l + f->payload.len + f->note.len);
    if (!l)
        return NULL;
    *l = (lim__letter){ .from = f->from, .event = f->event, .note_len = (uint8_t)f->note.len, .len = f->payload.len };
    if (f->payload.len > 0)
        memcpy(l->bytes, f->payload.ptr, f->payload.len);
    if (f->note.len > 0)
        memcpy(l->bytes + l->len, f->note.ptr, f->note.len);
    return l;
}

static lim_outcome message_outcome(uint64_t conv, uint64_t from, uint8_t event, lim_bytes payload, lim_bytes note)
{
    return (lim_outcome){ .how = LIM_HOW_REPLY,
                          .handed_over = LIM_HANDED_YES,
                          .conv = { conv },
                          .payload = payload,
                          .detail = note,
                          .from = { from },
                          .event = event };
}

lim_outcome lim__client_letter_outcome(uint64_t conv, const lim__letter *l)
{
    return message_outcome(conv, l->from, l->event, lim__bytes(l->bytes, l->len),
                           lim__bytes(l->bytes + l->len, l->note_len));
}

lim_outcome lim__client_over_outcome(const lim__conv *conv)
{
    return (lim_outcome){ .how = conv->over_how,
                          .handed_over = LIM_HANDED_NO,
                          .reason = conv->over_reason,
                          .conv = { conv->id },
                          .participant = lim__str(conv->over_how == LIM_HOW_CLOSED ? "opener" : NULL),
                          .detail = lim__str(conv->detail) };
}

static size_t weight(const lim__letter *l)
{
    return sizeof *l + l->len + l->note_len;
}

lim__letter *lim__client_inbox_take(lim__conv *conv)
{
    lim__list *node = lim__list_pop(&conv->inbox);
    if (!node)
        return NULL;
    lim__letter *l = LIM_CONTAINER(node, lim__letter, node);
    conv->inbox_bytes -= weight(l);
    return l;
}

static void drop_inbox(lim__conv *conv)
{
    for (lim__letter *l; (l = lim__client_inbox_take(conv)) != NULL;)
        free(l);
}

/* ---- receives ---- */

void lim__client_receive_withdraw(lim_client *c, lim__receive *r)
{
    LIM_ASSERT(r->conv != NULL && c->receiving > 0);
    lim__list_remove(&r->node);
    r->conv = NULL;
    if (--c->receiving == 0)
        c->receive_due_ns = UINT64_MAX;
}

/* For the I/O side to tell; it may have to be woken. */
static void hand_in(lim_client *c, lim__receive *r)
{
    lim__list_push(&c->receives_done, &r->node);
    if (c->sleeping) {
        c->sleeping = false;
        c->wake = true;
    }
}

static void ended_as(lim__receive *r, lim_how how, lim_reason reason, const char *detail)
{
    r->how = how;
    r->reason = reason;
    snprintf(r->detail, sizeof r->detail, "%s", detail);
}

void lim__client_receive_add(lim_client *c, lim__conv *conv, lim__receive *r)
{
    r->id = conv->id;
    lim__list_init(&r->node);
    r->letter = lim__client_inbox_take(conv);
    if (r->letter || conv->state == LIM__CONV_OVER) {
        ended_as(r, conv->over_how, conv->over_reason, conv->detail);
        hand_in(c, r);
        return;
    }
    r->conv = conv;
    lim__list_push(&conv->receives, &r->node);
    c->receiving++;
    if (r->deadline_ns < c->receive_due_ns)
        c->receive_due_ns = r->deadline_ns;
    if (c->sleeping) { /* until when it may sleep has changed */
        c->sleeping = false;
        c->wake = true;
    }
}

static void tell_receive(lim_client *c, lim__receive *r)
{
    lim_outcome outcome = { .how = r->how,
                            .handed_over = LIM_HANDED_NO,
                            .reason = r->reason,
                            .conv = { r->id },
                            .participant = lim__str(r->how == LIM_HOW_CLOSED ? "opener" : NULL),
                            .detail = lim__str(r->detail) };
    if (r->letter)
        outcome = lim__client_letter_outcome(r->id, r->letter);
    lim__client_unlock(c);
    r->on_outcome(r->ctx, &outcome);
    lim__client_lock(c);
    free(r->letter);
    free(r);
}

/* Takes out those that are late, and finds out when the next one is. */
static void expire(lim_client *c, uint64_t now)
{
    uint64_t due = UINT64_MAX;
    LIM__LIST_EACH(at, &c->convs) {
        LIM__LIST_EACH_SAFE(node, after, &LIM_CONTAINER(at, lim__conv, node)->receives) {
            lim__receive *r = LIM_CONTAINER(node, lim__receive, node);
            if (r->deadline_ns <= now) {
                lim__client_receive_withdraw(c, r);
                ended_as(r, LIM_HOW_TIMEOUT, LIM_REASON_NONE, "");
                hand_in(c, r);
            } else if (r->deadline_ns < due) {
                due = r->deadline_ns;
            }
        }
    }
    c->receive_due_ns = due;
}

void lim__client_receives_run(lim_client *c)
{
    uint64_t now = c->receive_due_ns == UINT64_MAX ? 0 : c->os->now_ns(c->os);
    if (c->receive_due_ns != UINT64_MAX && now >= c->receive_due_ns)
        expire(c, now);
    for (lim__list *node; (node = lim__list_pop(&c->receives_done)) != NULL;)
        tell_receive(c, LIM_CONTAINER(node, lim__receive, node));
}

/* ---- birth ---- */

lim__conv *lim__client_conv_new(lim_client *c, lim_on_conv *on_open, void *ctx)
{
    lim__conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        return NULL;
    conv->state = LIM__CONV_OPENING;
    conv->stream = c->next_stream++;
    conv->next_corr = 1;
    conv->on_open = on_open;
    conv->open_ctx = ctx;
    lim__list_init(&conv->inbox);
    lim__list_init(&conv->receives);
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

void lim__client_conv_asked(lim_client *c, lim__conv *conv)
{
    conv->unjoined++;
    c->sends_offered++;
}

static bool answered(lim_client *c, lim__conv *conv)
{
    if (conv->unjoined == 0)
        return false;
    conv->unjoined--;
    c->sends_answered++;
    return true;
}

/* ---- ends ---- */

static void leave_stream(lim_client *c, lim__conv *conv)
{
    if (!conv->at_server)
        return;
    conv->at_server = false;
    lim__map_remove(&c->conv_streams, conv->stream);
    c->sends_answered += conv->unsent + conv->unjoined;
    conv->unsent = conv->unjoined = 0;
}

/* For who waits. Its stream may go on. */
static void end(lim_client *c, lim__conv *conv, lim_how how, lim_reason reason, lim_bytes detail)
{
    LIM_ASSERT(conv->state == LIM__CONV_OPEN);
    conv->state = LIM__CONV_OVER;
    conv->over_how = how;
    conv->over_reason = reason;
    lim_bytes text = lim__utf8_clip(detail, sizeof conv->detail - 1);
    snprintf(conv->detail, sizeof conv->detail, "%.*s", (int)text.len, text.len ? (const char *)text.ptr : "");
    while (!lim__list_empty(&conv->receives)) {
        lim__receive *r = LIM_CONTAINER(conv->receives.next, lim__receive, node);
        lim__client_receive_withdraw(c, r);
        ended_as(r, how, reason, conv->detail);
        hand_in(c, r);
    }
}

void lim__client_conv_free(lim_client *c, lim__conv *conv)
{
    leave_stream(c, conv);
    if (conv->id != 0)
        lim__map_remove(&c->conv_ids, conv->id);
    LIM_ASSERT(lim__list_empty(&conv->sends) && lim__list_empty(&conv->joins) && lim__list_empty(&conv->receives));
    lim__list_remove(&conv->node);
    drop_inbox(conv);
    free(conv);
}

void lim__client_conv_let_go(lim_client *c, lim__conv *conv)
{
    if (conv->state == LIM__CONV_OPEN)
        end(c, conv, LIM_HOW_CLOSED, LIM_REASON_NONE, lim__str("closed by this client"));
    lim__map_remove(&c->conv_ids, conv->id);
    conv->id = 0;
    conv->state = LIM__CONV_CLOSING;
    drop_inbox(conv);
    if (!conv->at_server && lim__list_empty(&conv->sends) && lim__list_empty(&conv->joins))
        lim__client_conv_free(c, conv);
}

/* Unlocks for the callback; the conversation is gone. */
static void refuse(lim_client *c, lim__conv *conv, lim_err err, lim_bytes detail)
{
    lim_on_conv *on_open = conv->on_open;
    void *ctx = conv->open_ctx;
    char text[160];
    lim_bytes clipped = lim__utf8_clip(detail, sizeof text - 1);
    snprintf(text, sizeof text, "%.*s", (int)clipped.len, clipped.len ? (const char *)clipped.ptr : "");
    lim__client_conv_free(c, conv);
    lim__client_unlock(c);
    on_open(ctx, err, (lim_conv){ 0 }, text);
    lim__client_lock(c);
}

static void move_all(lim__list *to, lim__list *from)
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

/* Unlocks. */
static void tell_join(lim_client *c, lim__join_note *note, lim_err err, const char *detail)
{
    lim__join_note was = *note;
    free(note);
    if (!was.on_done)
        return;
    lim__client_unlock(c);
    was.on_done(was.ctx, err, detail);
    lim__client_lock(c);
}

/* Its stream is over. It may be gone when this returns. */
static void stream_over(lim_client *c, lim__conv *conv)
{
    lim__list sends, joins;
    leave_stream(c, conv);
    move_all(&sends, &conv->sends);
    move_all(&joins, &conv->joins);
    if (conv->state == LIM__CONV_CLOSING)
        lim__client_conv_free(c, conv);
    tell_sends(c, &sends, LIM_E_CLOSED, NULL);
    for (lim__list *node; (node = lim__list_pop(&joins)) != NULL;)
        tell_join(c, LIM_CONTAINER(node, lim__join_note, node), LIM_E_CLOSED, lim_err_text(LIM_E_CLOSED));
}

static lim__conv *find_to_tell(lim_client *c)
{
    LIM__LIST_EACH(node, &c->convs) {
        lim__conv *conv = LIM_CONTAINER(node, lim__conv, node);
        if (conv->state == LIM__CONV_OPENING || !lim__list_empty(&conv->sends) || !lim__list_empty(&conv->joins))
            return conv;
    }
    return NULL;
}

void lim__client_convs_break(lim_client *c, lim_how how, const char *detail)
{
    LIM__LIST_EACH_SAFE(node, after, &c->convs) {
        lim__conv *conv = LIM_CONTAINER(node, lim__conv, node);
        if (conv->state == LIM__CONV_OPEN)
            end(c, conv, how, LIM_REASON_NONE, lim__str(detail));
        leave_stream(c, conv);
        if (conv->state == LIM__CONV_CLOSING && lim__list_empty(&conv->sends) && lim__list_empty(&conv->joins))
            lim__client_conv_free(c, conv);
    }
    for (lim__conv *conv; (conv = find_to_tell(c)) != NULL;) { /* only now: callbacks may close any of them */
        if (conv->state == LIM__CONV_OPENING)
            refuse(c, conv, LIM_E_CLOSED, lim__str(detail));
        else
            stream_over(c, conv);
    }
    lim__client_receives_run(c);
}

void lim__client_convs_fini(lim_client *c)
{
    LIM__LIST_EACH_SAFE(node, after, &c->convs)
        lim__client_conv_free(c, LIM_CONTAINER(node, lim__conv, node));
}

/* ---- what the server says ---- */

static bool on_opened(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_opened f;
    if (!lim__get_opened(frame, &f) || conv->state != LIM__CONV_OPENING || !answered(c, conv))
        return false;
    if (f.code != 0) {
        refuse(c, conv, lim__client_code_err(f.code), f.detail);
        return true;
    }
    lim__conv *was = lim__map_get(&c->conv_ids, f.conversation);
    if (f.conversation == 0 || (was && was->state != LIM__CONV_OVER))
        return false;
    if (was) /* a durable one that was lost with a connection, and is attached to again: its id means this one from now
                on */
        lim__client_conv_let_go(c, was);
    lim_err err = lim__map_put(&c->conv_ids, f.conversation, conv);
    if (err != LIM_OK) {
        refuse(c, conv, err, lim__bytes(NULL, 0));
        return true;
    }
    conv->id = f.conversation;
    conv->state = LIM__CONV_OPEN;
    lim_on_conv *on_open = conv->on_open;
    void *ctx = conv->open_ctx;
    lim__client_unlock(c);
    on_open(ctx, LIM_OK, (lim_conv){ f.conversation }, "");
    lim__client_lock(c);
    return true;
}

static void keep(lim_client *c, lim__conv *conv, const lim__f_message *f)
{
    lim__letter *l = conv->inbox_bytes + f->payload.len > LIM__INBOX_BYTES_MAX ? NULL : letter_new(f);
    if (!l) {
        lim_err err = LIM__SAY(c, close, .stream = conv->stream);
        (void)err; /* then the break tells the server */
        end(c, conv, LIM_HOW_CLOSED, LIM_REASON_NONE, lim__str("too much was waiting to be received"));
        return;
    }
    lim__list_push(&conv->inbox, &l->node);
    conv->inbox_bytes += weight(l);
}

static bool on_message(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_message f;
    if (!lim__get_message(frame, &f) || conv->state == LIM__CONV_OPENING)
        return false;
    if (conv->state != LIM__CONV_OPEN)
        return true; /* closed here; it was on its way */
    if (lim__list_empty(&conv->receives)) {
        keep(c, conv, &f);
        return true;
    }
    lim__receive *r = LIM_CONTAINER(conv->receives.next, lim__receive, node);
    lim_outcome outcome = message_outcome(conv->id, f.from, f.event, f.payload, f.note);
    lim_on_outcome *on_outcome = r->on_outcome;
    void *ctx = r->ctx;
    lim__client_receive_withdraw(c, r);
    free(r);
    lim__client_unlock(c);
    on_outcome(ctx, &outcome);
    lim__client_lock(c);
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
                                .matched = f.matched,
                                .delivered = f.delivered,
                                .dropped = f.dropped,
                                .limit = f.limit,
                                .current = f.current,
                                .retry_after_ms = f.retry_after_ms,
                                .phase = f.phase,
                                .wanted = f.wanted };
    tell_sends(c, &sends, LIM_OK, &admission);
    return true;
}

static lim__join_note *take_join(lim__conv *conv, uint32_t corr)
{
    LIM__LIST_EACH(node, &conv->joins) {
        lim__join_note *note = LIM_CONTAINER(node, lim__join_note, node);
        if (note->corr != corr)
            continue;
        lim__list_remove(node);
        return note;
    }
    return NULL;
}

static bool on_joined(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_joined f;
    lim__join_note *note = lim__get_joined(frame, &f) ? take_join(conv, f.corr) : NULL;
    char text[160];
    if (!note || !answered(c, conv)) {
        free(note);
        return false;
    }
    lim_bytes detail = lim__utf8_clip(f.detail, sizeof text - 1);
    snprintf(text, sizeof text, "%.*s", (int)detail.len, detail.len ? (const char *)detail.ptr : "");
    tell_join(c, note, f.code == 0 ? LIM_OK : lim__client_code_err(f.code), text);
    return true;
}

static bool on_closed(lim_client *c, lim__conv *conv, const lim__frame *frame)
{
    lim__f_closed f;
    if (!lim__get_closed(frame, &f) || conv->state == LIM__CONV_OPENING)
        return false;
    bool failed = f.phase == LIM_PHASE_BROKEN;
    if (conv->state == LIM__CONV_OPEN)
        end(c, conv, failed ? LIM_HOW_CRASHED : LIM_HOW_CLOSED, (lim_reason)f.reason, f.detail);
    stream_over(c, conv);
    lim__client_receives_run(c);
    return true;
}

bool lim__client_conv_frame(lim_client *c, const lim__frame *frame)
{
    if (!lim__list_empty(&c->receives_done))
        lim__client_receives_run(c); /* what came before is told before */
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
        return on_joined(c, conv, frame);
    default:
        return on_closed(c, conv, frame);
    }
}
