/* SPDX-License-Identifier: Apache-2.0
 * sub.c - subscriptions: messages to handlers, and acknowledgements back.
 *
 * Acknowledging is cumulative: one number says that everything up to it is done. It is sent when half a window is done,
 * so that a busy subscription never runs dry, and when there is nothing left to handle, so that an idle one is settled.
 *
 *      base          acked        done       handled          seq
 *       |--- told ---|-- to tell --|-- held --|-- in the queue --|          done = (first held) - 1, else handled
 *
 * A subscription that reads a log is acknowledged in the same way while its numbers ascend and nothing is held or
 * refused; what is delivered again, or done while something before it is not, is acknowledged by itself (CONFIRM).
 * When the server says UNREACHABLE of one with a cursor (what read for it has died) it subscribes again.
 * After a break one without a cursor goes on behind what it has seen. With a cursor the server knows: it delivers again
 * what was not acknowledged, and so what waits here for its handler, from the connection that broke, is thrown away.
 *
 * Invariants:
 *   S1  base <= acked <= done <= handled <= seq, once everything of an earlier connection has been handled.
 *   S2  a subscription on `dirty` has something to tell. */
#include "client/client.h"
#include "data/block.h"
#include "data/options.h"

#include <stdlib.h>

typedef struct message {
    lim__item item; /* first */
    uint64_t seq;
    uint32_t connection;
    uint8_t channel_len;
    size_t row_len; /* not 0: messages in a row, these bytes, instead of a channel and item.msg */
    char channel[]; /* and, in item.msg, the headers */
} message;

void lim__client_sub_free(lim__sub *sub)
{
    lim__list_remove(&sub->dirty);
    free(sub->pattern);
    free(sub->cursor);
    free(sub->dead_letter);
    free(sub->held);
    free(sub);
}

/* ---- acknowledging ---- */

static void ack(lim_client *c, lim__sub *sub)
{
    lim__list_remove(&sub->dirty);
    if (c->link != LIM__LINK_UP || sub->order.state != LIM__ORDER_LIVE || sub->done <= sub->acked)
        return;
    if (LIM__SAY(c, ack, .stream = sub->order.stream, .upto_seq = sub->done - sub->base) == LIM_OK)
        sub->acked = sub->done;
}

void lim__client_sub_acks(lim_client *c)
{
    while (!lim__list_empty(&c->dirty))
        ack(c, LIM_CONTAINER(c->dirty.next, lim__sub, dirty));
}

/* Something more may be done. `soon`: somebody will call lim__client_sub_acks. */
static void advance(lim_client *c, lim__sub *sub, bool soon)
{
    uint64_t done = sub->held_count > 0 ? sub->held[0] - 1 : sub->handled;
    if (done > sub->done)
        sub->done = done;
    if (sub->order.state != LIM__ORDER_LIVE || sub->done <= sub->acked)
        return;
    if (!soon || sub->done - sub->acked >= (sub->window + 1) / 2)
        ack(c, sub);
    else if (lim__list_empty(&sub->dirty))
        lim__list_push(&c->dirty, &sub->dirty);
}

/* Without memory for the note the message counts as done: the window must not leak. */
static void hold(lim__sub *sub, uint64_t seq)
{
    if (seq <= sub->completed || seq <= sub->base)
        return; /* completed before its handler returned, or of an earlier connection: nobody waits for it */
    if (sub->held_count == sub->held_cap) {
        size_t cap = sub->held_cap ? sub->held_cap * 2 : 16;
        uint64_t *held = realloc(sub->held, cap * sizeof *held);
        if (!held)
            return;
        sub->held = held;
        sub->held_cap = cap;
    }
    sub->held[sub->held_count++] = seq;
}

/* ---- of one that reads a log ---- */

static bool is_held(const lim__sub *sub, uint64_t seq, size_t *at)
{
    size_t i = 0;
    while (i < sub->held_count && sub->held[i] < seq)
        i++;
    *at = i;
    return i < sub->held_count && sub->held[i] == seq;
}

static bool unhold(lim__sub *sub, uint64_t seq)
{
    size_t i;
    if (!is_held(sub, seq, &i))
        return false;
    sub->held_count--;
    memmove(sub->held + i, sub->held + i + 1, (sub->held_count - i) * sizeof *sub->held);
    return true;
}

/* Entered before the handler runs, so that whoever acknowledges meanwhile finds it. False: no memory. */
static bool note_held(lim__sub *sub, uint64_t seq)
{
    size_t i;
    if (is_held(sub, seq, &i))
        return true;
    if (sub->held_count == sub->held_cap) {
        size_t cap = sub->held_cap ? sub->held_cap * 2 : 16;
        uint64_t *held = realloc(sub->held, cap * sizeof *held);
        if (!held)
            return false;
        sub->held = held;
        sub->held_cap = cap;
    }
    memmove(sub->held + i + 1, sub->held + i, (sub->held_count - i) * sizeof *sub->held);
    sub->held[i] = seq;
    sub->held_count++;
    return true;
}

static lim_err confirm(lim_client *c, lim__sub *sub, uint8_t how, uint64_t seq, uint32_t delay_ms, uint32_t corr)
{
    if (c->link != LIM__LINK_UP || sub->order.state != LIM__ORDER_LIVE)
        return LIM_E_CLOSED;
    return LIM__SAY(c, confirm, .stream = sub->order.stream, .corr = corr, .how = how, .delay_ms = delay_ms,
                    .seq = seq);
}

/* The handler is done with it. */
static void read_handled(lim_client *c, lim__sub *sub, uint64_t seq, lim_done result, bool noted)
{
    bool again = seq <= sub->handled;
    bool waited = noted && unhold(sub, seq); /* else lim_client_ack was faster */
    if (!again)
        sub->handled = seq;
    if (result == LIM_HOLD) {
        if (waited)
            (void)note_held(sub, seq);
    } else if (result == LIM_FAIL && (waited || !noted)) {
        sub->strict = true;
        (void)confirm(c, sub, 3, seq, UINT32_MAX, 0);
    } else if ((again || sub->strict || sub->held_count > 0) && (waited || !noted)) {
        (void)confirm(c, sub, 1, seq, 0, 0);
    }
    if (!sub->strict)
        advance(c, sub, true);
}

/* ---- handling ---- */

static void handled(lim_client *c, lim__sub *sub, uint64_t seq, lim_done result)
{
    if (result == LIM_HOLD)
        hold(sub, seq);
    sub->handled = seq;
    if (seq > sub->base)
        sub->in_hand--;
    advance(c, sub, true);
}

static lim_err read_complete(lim_client *c, lim__sub *sub, uint64_t seq)
{
    size_t n = 0;
    while (n < sub->held_count && sub->held[n] <= seq)
        n++;
    sub->held_count -= n;
    if (sub->held_count > 0)
        memmove(sub->held, sub->held + n, sub->held_count * sizeof *sub->held);
    return n > 0 ? confirm(c, sub, 2, seq, 0, 0) : LIM_OK;
}

lim_err lim_client_complete(lim_client *c, lim_sub id, uint64_t seq)
{
    lim__client_lock(c);
    lim__sub *sub = (lim__sub *)lim__client_order_find(c, id.id, LIM__SUB);
    lim_err err = !sub ? LIM_E_GONE : seq == 0 || seq > sub->seq ? LIM_E_INVALID : LIM_OK;
    if (err == LIM_OK && sub->reads) {
        err = read_complete(c, sub, seq);
    } else if (err == LIM_OK) {
        size_t n = 0;
        while (n < sub->held_count && sub->held[n] <= seq)
            n++;
        sub->held_count -= n;
        if (sub->held_count > 0)
            memmove(sub->held, sub->held + n, sub->held_count * sizeof *sub->held);
        if (seq > sub->completed)
            sub->completed = seq;
        advance(c, sub, c->own_loop ? c->in_process : !lim__list_empty(&c->queue));
    }
    lim__client_unlock(c);
    return err;
}

/* ---- lim_client_ack and the like ---- */

static lim_err read_sub(lim_client *c, lim_sub id, lim__sub **out)
{
    *out = (lim__sub *)lim__client_order_find(c, id.id, LIM__SUB);
    return !*out ? LIM_E_GONE : (*out)->reads ? LIM_OK : LIM_E_MISUSE;
}

static lim__call *new_confirm(lim_client *c, lim__sub *sub, lim_on_done *on_done, void *ctx)
{
    if ((uint32_t)c->next_corr == 0)
        c->next_corr++; /* 0 would ask for no answer */
    lim__call *call = lim__client_call_new(c, LIM__CALL_SIGNAL, NULL, ctx);
    if (call) {
        call->on_done = on_done;
        call->task.id = sub->order.id;
    }
    return call;
}

static lim_err ack_locked(lim_client *c, lim_sub id, uint64_t seq, lim_on_done *on_done, void *ctx)
{
    lim__sub *sub;
    size_t at;
    lim__call *call = NULL;
    lim_err err = read_sub(c, id, &sub);
    if (err == LIM_OK && !is_held(sub, seq, &at))
        err = LIM_E_NOTFOUND;
    if (err == LIM_OK && (c->link != LIM__LINK_UP || sub->order.state != LIM__ORDER_LIVE))
        err = LIM_E_CLOSED;
    if (err == LIM_OK && on_done && !(call = new_confirm(c, sub, on_done, ctx)))
        err = LIM_E_NOMEM;
    if (err != LIM_OK)
        return err;
    err = confirm(c, sub, 1, seq, 0, call ? (uint32_t)call->corr : 0);
    if (err == LIM_OK)
        (void)unhold(sub, seq);
    else if (call)
        lim__client_call_drop(c, call);
    return err;
}

lim_err lim__client_sub_in_hand(lim_client *c, lim_sub id, uint64_t seq, uint32_t *stream)
{
    lim__sub *sub;
    size_t at;
    lim_err err = read_sub(c, id, &sub);
    if (err != LIM_OK)
        return err;
    if (!is_held(sub, seq, &at))
        return LIM_E_NOTFOUND;
    *stream = sub->order.stream;
    return c->link == LIM__LINK_UP && sub->order.state == LIM__ORDER_LIVE ? LIM_OK : LIM_E_CLOSED;
}

void lim__client_sub_let_go(lim_client *c, lim_sub id, uint64_t seq)
{
    lim__sub *sub;
    if (read_sub(c, id, &sub) == LIM_OK)
        (void)unhold(sub, seq);
}

lim_err lim_client_ack(lim_client *c, lim_sub id, uint64_t seq, lim_on_done *on_done, void *ctx)
{
    if (!c)
        return LIM_E_INVALID;
    lim__client_lock(c);
    lim_err err = ack_locked(c, id, seq, on_done, ctx);
    lim__client_unlock_now(c);
    return err;
}

lim_err lim_client_nack(lim_client *c, lim_sub id, uint64_t seq, int64_t delay_ms)
{
    lim__sub *sub;
    size_t at;
    if (!c || delay_ms < 0)
        return LIM_E_INVALID;
    uint32_t delay = delay_ms >= UINT32_MAX ? UINT32_MAX - 1 : (uint32_t)delay_ms;
    lim__client_lock(c);
    lim_err err = read_sub(c, id, &sub);
    if (err == LIM_OK)
        err = is_held(sub, seq, &at) ? confirm(c, sub, 3, seq, delay, 0) : LIM_E_NOTFOUND;
    if (err == LIM_OK) {
        (void)unhold(sub, seq);
        sub->strict = true;
    }
    lim__client_unlock_now(c);
    return err;
}

lim_err lim_client_fetch(lim_client *c, lim_sub id, uint32_t count, int64_t ends_ms)
{
    lim__sub *sub;
    if (!c || count == 0 || ends_ms <= 0)
        return LIM_E_INVALID;
    lim__client_lock(c);
    lim_err err = read_sub(c, id, &sub);
    if (err == LIM_OK && !sub->pull)
        err = LIM_E_MISUSE;
    if (err == LIM_OK)
        err = confirm(c, sub, 4, count, ends_ms >= UINT32_MAX ? UINT32_MAX : (uint32_t)ends_ms, 0);
    lim__client_unlock_now(c);
    return err;
}

/* The order is gone; unlocks. */
static void confirms_over(lim_client *c, uint64_t id)
{
    for (bool any = true; any;) {
        any = false;
        LIM__LIST_EACH(node, &c->call_list) {
            lim__call *call = LIM_CONTAINER(node, lim__call, node);
            if (call->state != LIM__CALL_SIGNAL || call->task.id != id)
                continue;
            lim__client_call_over(c, call, LIM_E_CLOSED, (lim_conv){ 0 }, lim__str("the subscription has ended"));
            any = true;
            break;
        }
    }
}

static bool on_confirmed(lim_client *c, const lim__frame *frame)
{
    lim__f_confirmed f;
    if (!lim__get_confirmed(frame, &f))
        return false;
    return lim__client_answered(c, f.corr, f.code, f.detail);
}

/* ---- delivering ---- */

static void read_deliver(lim_client *c, lim__sub *sub, const lim_delivery *d, uint32_t connection)
{
    lim_client_handler handler = sub->order.handler;
    bool current = connection == sub->connection, noted = current && note_held(sub, d->seq);
    lim__client_unlock(c);
    lim_done result = handler.on_message(c, d, handler.ctx);
    lim__client_lock(c);
    if (connection != sub->connection)
        return; /* the connection broke: the server has heard of it, or delivers it again */
    sub->in_hand--;
    read_handled(c, sub, d->seq, result, noted);
}

/* Runs the handler; the mutex is released meanwhile. */
static void deliver(lim_client *c, lim__sub *sub, const lim_delivery *d)
{
    lim_client_handler handler = sub->order.handler;
    lim__client_unlock(c);
    lim_done result = handler.on_message(c, d, handler.ctx);
    lim__client_lock(c);
    handled(c, sub, d->seq, result);
}

static void row_run(lim_client *c, lim__sub *sub, uint64_t first, lim_bytes rest, uint32_t connection, bool copies);

void lim__client_sub_run(lim_client *c, lim__sub *sub, lim__item *item)
{
    message *m = LIM_CONTAINER(item, message, item);
    if (m->row_len > 0) {
        row_run(c, sub, m->seq, lim__bytes(m->channel, m->row_len), m->connection, true);
        free(m);
        return;
    }
    lim_bytes channel = m->channel_len ? lim__bytes(m->channel, m->channel_len) : lim__str(sub->pattern);
    lim_delivery d = { .payload = lim__msg_bytes(item->msg),
                       .headers = lim__msg_headers(item->msg),
                       .channel = channel,
                       .seq = m->seq,
                       .remaining_ms = LIM_FOREVER,
                       .msg = (lim_msg *)(void *)item->msg };
    bool stale = sub->cursor && m->connection != sub->connection; /* it comes again */
    if (sub->order.state != LIM__ORDER_ENDED && !stale) {
        if (sub->reads)
            read_deliver(c, sub, &d, m->connection);
        else
            deliver(c, sub, &d);
    }
    lim__msg_unref(item->msg);
    free(m);
}

static bool enqueue(lim_client *c, lim__sub *sub, const lim__f_deliver *f, uint64_t seq)
{
    message *m = malloc(sizeof *m + f->channel.len);
    lim__msg *msg = lim__msg_new_with(f->payload, f->headers);
    if (!m || !msg) {
        free(m);
        lim__msg_unref(msg);
        return false;
    }
    *m = (message){ .item = { .kind = LIM__ITEM_MESSAGE, .order = &sub->order, .msg = msg },
                    .seq = seq,
                    .connection = sub->connection };
    m->channel_len = (uint8_t)f->channel.len;
    if (f->channel.len > 0)
        memcpy(m->channel, f->channel.ptr, f->channel.len);
    lim__client_queue_push(c, &m->item);
    return true;
}

static bool may_come(lim_client *c, const lim__sub *sub, uint64_t seq, uint32_t count)
{
    bool ascends = sub->reads || seq > sub->seq - sub->base; /* of a log, what is delivered again does not */
    if (seq > 0 && ascends && count > 0 && (sub->pull || count <= sub->window - sub->in_hand))
        return true;
    lim__wire_fault(&c->wire, LIM_E_PROTOCOL, "the server delivered %llu after %llu, with %u of %u in hand",
                    (unsigned long long)seq, (unsigned long long)(sub->seq - sub->base), sub->in_hand, sub->window);
    return false;
}

static void came(lim__sub *sub, uint64_t seq, uint32_t count)
{
    uint64_t last = seq + count - 1;
    if (sub->reads && sub->seq == 0)
        sub->acked = sub->done = sub->handled = seq - 1; /* the first of this connection */
    sub->seq = last > sub->seq ? last : sub->seq;
    if (sub->reads && !sub->cursor && last >= sub->resume)
        sub->resume = last + 1;
    sub->in_hand += count;
}

static bool on_deliver(lim_client *c, lim__sub *sub, const lim__frame *frame)
{
    lim__f_deliver f;
    if (!lim__get_deliver(frame, &f) || sub->order.state != LIM__ORDER_LIVE)
        return false;
    if (!may_come(c, sub, f.seq, 1))
        return true;
    uint64_t seq = sub->base + f.seq;
    came(sub, seq, 1);
    if (!c->own_loop) {
        if (enqueue(c, sub, &f, seq))
            return true;
        lim__wire_fault(&c->wire, LIM_E_NOMEM, "no memory for a message");
        return true;
    }
    lim_delivery d = { .payload = f.payload,
                       .headers = f.headers,
                       .channel = f.channel.len ? f.channel : lim__str(sub->pattern),
                       .seq = seq,
                       .remaining_ms = LIM_FOREVER };
    if (sub->reads)
        read_deliver(c, sub, &d, sub->connection);
    else
        deliver(c, sub, &d);
    return true;
}

/* ---- messages in a row ---- */

/* Are they what the frame says? Looked at once, before anybody sees one. */
static bool row_good(const lim__f_delivers *f)
{
    lim_bytes rest = f->messages, headers, payload;
    uint32_t count = 0;
    while (lim__block_next(&rest, &headers, &payload) && (headers.len == 0 || lim__packed_valid(headers)))
        count++;
    return count == f->count && rest.len == 0 && f->first > 0 && f->first <= UINT64_MAX - count;
}

/* Hands them over one by one; the mutex is released meanwhile. `copies`: handlers may keep them, so each becomes a
 * message. */
static void row_run(lim_client *c, lim__sub *sub, uint64_t first, lim_bytes rest, uint32_t connection, bool copies)
{
    lim_bytes headers, payload;
    for (uint64_t seq = first; lim__block_next(&rest, &headers, &payload); seq++) {
        bool stale = sub->cursor && connection != sub->connection; /* it comes again */
        if (sub->order.state == LIM__ORDER_ENDED || stale)
            return;
        lim__msg *msg = copies ? lim__msg_new_with(payload, headers) : NULL;
        lim_delivery d = { .payload = msg ? lim__msg_bytes(msg) : payload,
                           .headers = msg ? lim__msg_headers(msg) : headers,
                           .channel = lim__str(sub->pattern),
                           .seq = seq,
                           .remaining_ms = LIM_FOREVER,
                           .msg = (lim_msg *)(void *)msg };
        read_deliver(c, sub, &d, connection);
        lim__msg_unref(msg);
    }
}

static bool enqueue_row(lim_client *c, lim__sub *sub, const lim__f_delivers *f)
{
    message *m = malloc(sizeof *m + f->messages.len);
    if (!m)
        return false;
    *m = (message){ .item = { .kind = LIM__ITEM_MESSAGE, .order = &sub->order },
                    .seq = f->first,
                    .connection = sub->connection,
                    .row_len = f->messages.len };
    memcpy(m->channel, f->messages.ptr, f->messages.len);
    lim__client_queue_push(c, &m->item);
    return true;
}

static bool on_delivers(lim_client *c, lim__sub *sub, const lim__frame *frame)
{
    lim__f_delivers f;
    if (!lim__get_delivers(frame, &f) || sub->order.state != LIM__ORDER_LIVE || !sub->reads || !row_good(&f))
        return false;
    if (!may_come(c, sub, f.first, f.count))
        return true;
    came(sub, f.first, f.count);
    if (c->own_loop)
        row_run(c, sub, f.first, f.messages, sub->connection, false);
    else if (!enqueue_row(c, sub, &f))
        lim__wire_fault(&c->wire, LIM_E_NOMEM, "no memory for messages");
    return true;
}

/* Maybe only because of the channel's name; then it did not know. */
static void reads_from(lim__sub *sub, uint64_t first)
{
    if (!sub->reads) {
        sub->reads = true;
        sub->base = sub->acked = sub->seq = sub->handled = sub->done = sub->completed = 0;
    }
    if (!sub->cursor && sub->resume == 0)
        sub->resume = first;
}

static bool on_subscribed(lim_client *c, lim__sub *sub, const lim__frame *frame)
{
    lim__f_subscribed f;
    if (sub->order.state != LIM__ORDER_ASKED || !lim__get_subscribed(frame, &f))
        return false;
    if (frame->flags & LIM__FLAG_READS)
        reads_from(sub, f.subscription);
    sub->live_once = true;
    lim__client_order_ready(c, &sub->order);
    return true;
}

enum { RETRY_MS = 250 };

/* The server may not have heard yet that the connection before this one has broken; or what read for it has died. */
static bool try_again(lim_client *c, lim__sub *sub, lim_err err)
{
    bool taken = err == LIM_E_EXISTS && sub->order.state == LIM__ORDER_ASKED;
    if ((!taken && err != LIM_E_UNREACHABLE) || !sub->live_once || !sub->cursor)
        return false;
    lim__map_remove(&c->streams, sub->order.stream);
    sub->order.stream = 0;
    sub->order.state = LIM__ORDER_WANTED;
    sub->retry_ns = c->os->now_ns(c->os) + (uint64_t)RETRY_MS * 1000000;
    c->retry_ns = sub->retry_ns < c->retry_ns ? sub->retry_ns : c->retry_ns;
    return true;
}

void lim__client_sub_retry(lim_client *c)
{
    if (c->retry_ns == UINT64_MAX || c->os->now_ns(c->os) < c->retry_ns)
        return;
    c->retry_ns = UINT64_MAX;
    LIM__LIST_EACH_SAFE(node, after, &c->orders) {
        lim__sub *sub = (lim__sub *)LIM_CONTAINER(node, lim__order, node);
        if (sub->order.kind != LIM__SUB || sub->retry_ns == 0)
            continue;
        sub->retry_ns = 0;
        if (sub->order.state == LIM__ORDER_WANTED && c->link == LIM__LINK_UP)
            lim__client_sub_ask(c, sub);
    }
}

static bool on_ended(lim_client *c, lim__order *order, const lim__frame *frame)
{
    lim__f_ended f;
    if (!lim__get_ended(frame, &f))
        return false;
    lim_err err = lim__client_code_err(f.code);
    uint64_t id = order->id;
    if (try_again(c, (lim__sub *)order, err)) {
        confirms_over(c, id);
        return true;
    }
    lim__client_order_end(c, order, err, f.detail.ptr, f.detail.len);
    confirms_over(c, id);
    return true;
}

bool lim__client_sub_frame(lim_client *c, const lim__frame *frame)
{
    lim__order *order = lim__map_get(&c->streams, frame->stream);
    if (!order)
        return true; /* on its way when it ended here */
    if (order->kind != LIM__SUB)
        return false;
    switch (frame->type) {
    case LIM__SUBSCRIBED:
        return on_subscribed(c, (lim__sub *)order, frame);
    case LIM__DELIVER:
        return on_deliver(c, (lim__sub *)order, frame);
    case LIM__DELIVERS:
        return on_delivers(c, (lim__sub *)order, frame);
    case LIM__ENDED:
        return on_ended(c, order, frame);
    case LIM__CONFIRMED:
        return on_confirmed(c, frame);
    default:
        return true; /* DROPPED: the numbers of what comes tell as much */
    }
}

/* ---- subscribing ---- */

/* How it is to go on: without a cursor behind what it has seen. */
static lim_err options(const lim__sub *sub, lim__buf *block, lim_diag *diag)
{
    lim_read_opts read = sub->read;
    if (!sub->cursor && sub->resume != 0) {
        read.from = LIM_FROM_SEQ;
        read.start = sub->resume;
        read.last_per_key = false;
    }
    return lim__options_subscribe(block, &read, sub->pull, diag);
}

static void begin(lim__sub *sub)
{
    sub->base = sub->reads ? 0 : sub->seq;
    sub->acked = sub->base;
    if (sub->reads)
        sub->handled = sub->done = sub->completed = sub->seq = 0;
    sub->in_hand = 0;
    sub->held_count = 0;
    sub->strict = false;
    sub->connection++;
}

void lim__client_sub_ask(lim_client *c, lim__sub *sub)
{
    lim__buf block = { 0 };
    lim_err err = lim__client_order_stream(c, &sub->order);
    begin(sub);
    if (err == LIM_OK && sub->reads)
        err = options(sub, &block, NULL);
    if (err == LIM_OK)
        err = LIM__SAY(c, subscribe, .stream = sub->order.stream, .window = sub->window, .backlog = sub->backlog,
                       .policy = (uint8_t)sub->policy, .pattern = lim__str(sub->pattern),
                       .options = lim__buf_bytes(&block));
    lim__buf_fini(&block);
    if (err != LIM_OK)
        lim__client_order_end(c, &sub->order, err, lim_err_text(err), strlen(lim_err_text(err)));
}

static bool is_live(const lim_client_sub_opts *o)
{
    const lim_read_opts *r = &o->read;
    return o->window != LIM_PULL && r->from == 0 && r->start == 0 && !r->cursor && !r->shared && !r->standby &&
           r->ack_ms == 0 && r->deliveries_max == 0 && !r->dead_letter && !r->last_per_key;
}

static lim_err read_as(lim__sub *sub, const lim_client_sub_opts *opts, lim_diag *diag)
{
    lim__buf block = { 0 };
    if (is_live(opts))
        return LIM_OK;
    sub->reads = true;
    sub->pull = opts->window == LIM_PULL;
    sub->window = sub->pull ? 1 : sub->window;
    sub->read = opts->read;
    if (opts->read.cursor && !(sub->read.cursor = sub->cursor = strdup(opts->read.cursor)))
        return LIM_E_NOMEM;
    if (opts->read.dead_letter && !(sub->read.dead_letter = sub->dead_letter = strdup(opts->read.dead_letter)))
        return LIM_E_NOMEM;
    lim_err err = options(sub, &block, diag);
    if (err == LIM_OK && lim__buf_len(&block) == 0) { /* from new: said, so that an ephemeral channel is refused */
        sub->read.from = LIM_FROM_NEW;
        err = options(sub, &block, diag);
    }
    lim__buf_fini(&block);
    return err;
}

static lim_err check_opts(const lim_client *c, const char *pattern, const lim_client_sub_opts *opts, lim_diag *diag)
{
    if (!c || !pattern || pattern[0] == '\0' || !opts) {
        lim__diag_set(diag, 0, 0, "a subscription needs a client, a pattern and options");
        return LIM_E_INVALID;
    }
    if (opts->size < sizeof *opts || !opts->handler.on_message || opts->window == LIM_UNLIMITED ||
        opts->backlog == LIM_UNLIMITED || (int)opts->policy < 0 || opts->policy > LIM_CLOSE_SUB) {
        lim__diag_set(diag, 0, 0, "lim_client_sub_opts: size or on_message was forgotten, or a limit is unlimited");
        return LIM_E_MISUSE;
    }
    return LIM_OK;
}

lim_err lim_client_subscribe(lim_client *c, const char *pattern, const lim_client_sub_opts *opts, lim_diag *diag,
                             lim_sub *out)
{
    lim_err err = out ? check_opts(c, pattern, opts, diag) : LIM_E_INVALID;
    if (err != LIM_OK)
        return err;
    lim__sub *sub = calloc(1, sizeof *sub);
    if (!sub || !(sub->pattern = strdup(pattern))) {
        free(sub);
        return LIM_E_NOMEM;
    }
    lim__list_init(&sub->dirty);
    sub->window = opts->window ? opts->window : LIM__WINDOW_DEFAULT;
    sub->backlog = opts->backlog ? opts->backlog : LIM__BACKLOG_DEFAULT;
    sub->policy = opts->policy;
    sub->on_ready = opts->on_ready;
    err = read_as(sub, opts, diag);
    if (err != LIM_OK) {
        lim__client_sub_free(sub);
        return err;
    }
    uint64_t id;
    err = lim__client_order_place(c, &sub->order, LIM__SUB, &opts->handler, diag, &id);
    if (err == LIM_OK)
        *out = (lim_sub){ id };
    return err;
}

lim_err lim_client_unsubscribe(lim_client *c, lim_sub id)
{
    lim__client_lock(c);
    lim__order *order = lim__client_order_find(c, id.id, LIM__SUB);
    lim_err err = order ? LIM_OK : LIM_E_GONE;
    if (order && order->stream != 0 && c->link == LIM__LINK_UP)
        err = LIM__SAY(c, unsubscribe, .stream = order->stream);
    if (order && err == LIM_OK) {
        lim__client_order_end(c, order, LIM_OK, "", 0);
        confirms_over(c, id.id);
    }
    lim__client_unlock(c);
    return err;
}
