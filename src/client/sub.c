/* SPDX-License-Identifier: Apache-2.0
 * sub.c - subscriptions: messages to handlers, and acknowledgements back.
 *
 * Acknowledging is cumulative: one number says that everything up to it is done. It is sent when half a window is done,
 * so that a busy subscription never runs dry, and when there is nothing left to handle, so that an idle one is settled.
 *
 *      base          acked        done       handled          seq
 *       |--- told ---|-- to tell --|-- held --|-- in the queue --|          done = (first held) - 1, else handled
 *
 * Invariants:
 *   S1  base <= acked <= done <= handled <= seq, once everything of an earlier connection has been handled.
 *   S2  a subscription on `dirty` has something to tell. */
#include "client/client.h"

#include <stdlib.h>

typedef struct message {
    lim__item item; /* first */
    uint64_t seq;
    uint8_t channel_len;
    char channel[];
} message;

void lim__client_sub_free(lim__sub *sub)
{
    lim__list_remove(&sub->dirty);
    free(sub->pattern);
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

static void handled(lim_client *c, lim__sub *sub, uint64_t seq, lim_done result)
{
    if (result == LIM_HOLD)
        hold(sub, seq);
    sub->handled = seq;
    if (seq > sub->base)
        sub->in_hand--;
    advance(c, sub, true);
}

lim_err lim_client_complete(lim_client *c, lim_sub id, uint64_t seq)
{
    lim__client_lock(c);
    lim__sub *sub = (lim__sub *)lim__client_order_find(c, id.id, LIM__SUB);
    lim_err err = !sub ? LIM_E_GONE : seq == 0 || seq > sub->seq ? LIM_E_INVALID : LIM_OK;
    if (err == LIM_OK) {
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

/* ---- delivering ---- */

/* Runs the handler; the mutex is released meanwhile. */
static void deliver(lim_client *c, lim__sub *sub, const lim_delivery *d)
{
    lim_client_handler handler = sub->order.handler;
    lim__client_unlock(c);
    lim_done result = handler.on_message(c, d, handler.ctx);
    lim__client_lock(c);
    handled(c, sub, d->seq, result);
}

void lim__client_sub_run(lim_client *c, lim__sub *sub, lim__item *item)
{
    message *m = LIM_CONTAINER(item, message, item);
    lim_bytes channel = m->channel_len ? lim__bytes(m->channel, m->channel_len) : lim__str(sub->pattern);
    lim_delivery d = { .payload = lim__msg_bytes(item->msg),
                       .channel = channel,
                       .seq = m->seq,
                       .remaining_ms = LIM_FOREVER,
                       .msg = (lim_msg *)(void *)item->msg };
    if (sub->order.state != LIM__ORDER_ENDED)
        deliver(c, sub, &d);
    lim__msg_unref(item->msg);
    free(m);
}

static bool enqueue(lim_client *c, lim__sub *sub, const lim__f_deliver *f)
{
    message *m = malloc(sizeof *m + f->channel.len);
    lim__msg *msg = lim__msg_new(f->payload);
    if (!m || !msg) {
        free(m);
        lim__msg_unref(msg);
        return false;
    }
    *m = (message){ .item = { .kind = LIM__ITEM_MESSAGE, .order = &sub->order, .msg = msg }, .seq = sub->seq };
    m->channel_len = (uint8_t)f->channel.len;
    if (f->channel.len > 0)
        memcpy(m->channel, f->channel.ptr, f->channel.len);
    lim__client_queue_push(c, &m->item);
    return true;
}

static bool on_deliver(lim_client *c, lim__sub *sub, const lim__frame *frame)
{
    lim__f_deliver f;
    if (!lim__get_deliver(frame, &f) || sub->order.state != LIM__ORDER_LIVE)
        return false;
    if (f.seq <= sub->seq - sub->base || sub->in_hand >= sub->window) {
        lim__wire_fault(&c->wire, LIM_E_PROTOCOL, "the server delivered %llu after %llu, with %u of %u in hand",
                        (unsigned long long)f.seq, (unsigned long long)(sub->seq - sub->base), sub->in_hand,
                        sub->window);
        return true;
    }
    sub->seq = sub->base + f.seq;
    sub->in_hand++;
    if (!c->own_loop) {
        if (enqueue(c, sub, &f))
            return true;
        lim__wire_fault(&c->wire, LIM_E_NOMEM, "no memory for a message");
        return true;
    }
    lim_delivery d = { .payload = f.payload,
                       .channel = f.channel.len ? f.channel : lim__str(sub->pattern),
                       .seq = sub->seq,
                       .remaining_ms = LIM_FOREVER };
    deliver(c, sub, &d);
    return true;
}

bool lim__client_sub_frame(lim_client *c, const lim__frame *frame)
{
    lim__f_subscribed subscribed;
    lim__f_ended ended;
    lim__order *order = lim__map_get(&c->streams, frame->stream);
    if (!order)
        return true; /* on its way when it ended here */
    if (order->kind != LIM__SUB)
        return false;
    switch (frame->type) {
    case LIM__SUBSCRIBED:
        if (order->state != LIM__ORDER_ASKED || !lim__get_subscribed(frame, &subscribed))
            return false;
        lim__client_order_ready(c, order);
        return true;
    case LIM__DELIVER:
        return on_deliver(c, (lim__sub *)order, frame);
    case LIM__ENDED:
        if (!lim__get_ended(frame, &ended))
            return false;
        lim__client_order_end(c, order, lim__client_code_err(ended.code), ended.detail.ptr, ended.detail.len);
        return true;
    default:
        return true; /* DROPPED: the numbers of what comes tell as much */
    }
}

/* ---- subscribing ---- */

void lim__client_sub_ask(lim_client *c, lim__sub *sub)
{
    lim_err err = lim__client_order_stream(c, &sub->order);
    sub->base = sub->acked = sub->seq;
    sub->in_hand = 0;
    sub->held_count = 0;
    if (err == LIM_OK)
        err = LIM__SAY(c, subscribe, .stream = sub->order.stream, .window = sub->window, .backlog = sub->backlog,
                       .policy = (uint8_t)sub->policy, .pattern = lim__str(sub->pattern));
    if (err != LIM_OK)
        lim__client_order_end(c, &sub->order, err, lim_err_text(err), strlen(lim_err_text(err)));
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
    sub->policy = opts->policy ? opts->policy : LIM_DROP_OLDEST;
    sub->on_ready = opts->on_ready;
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
    if (order && err == LIM_OK)
        lim__client_order_end(c, order, LIM_OK, "", 0);
    lim__client_unlock(c);
    return err;
}
