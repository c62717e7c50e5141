/* SPDX-License-Identifier: Apache-2.0
 * order.c - standing orders: what subscriptions and registrations have in common.
 *
 * An order is made once and established with every connection, under a fresh stream number, until it ends: refused or
 * ended by the server, by the user's own call, or with the client. Its handler's on_end then runs exactly once, after
 * everything else that concerns it, because its end is the last thing in the queue that names it. The exception is an
 * order whose maker is still waiting for the first answer: that call fails, and nothing else is told. */
#include "client/client.h"

#include <stdio.h>

lim_err lim__client_code_err(uint16_t code)
{
    return code == 0 ? LIM_E_CLOSED : code <= LIM_E_DENIED ? (lim_err)code : LIM_E_PROTOCOL;
}

lim__order *lim__client_order_find(lim_client *c, uint64_t id, lim__order_kind kind)
{
    lim__order *order = lim__map_get(&c->ids, id);
    return order && order->kind == kind ? order : NULL;
}

void lim__client_order_free(lim__order *order)
{
    lim__list_remove(&order->node);
    LIM_ASSERT(lim__list_empty(&order->ready.node) && lim__list_empty(&order->end.node));
    switch (order->kind) {
    case LIM__SUB:
        lim__client_sub_free((lim__sub *)order);
        break;
    case LIM__REG:
        lim__client_reg_free((lim__reg *)order);
        break;
    }
}

static lim_err add(lim_client *c, lim__order *order)
{
    if (c->closing || c->link == LIM__LINK_ENDED)
        return LIM_E_CLOSED;
    order->id = c->next_id++;
    lim_err err = lim__map_put(&c->ids, order->id, order);
    if (err == LIM_OK)
        lim__list_push(&c->orders, &order->node);
    return err;
}

static void ask(lim_client *c, lim__order *order)
{
    LIM_ASSERT(order->state == LIM__ORDER_WANTED && c->link == LIM__LINK_UP);
    if (order->kind == LIM__SUB)
        lim__client_sub_ask(c, (lim__sub *)order);
    else
        lim__client_reg_ask(c, (lim__reg *)order);
}

lim_err lim__client_order_stream(lim_client *c, lim__order *order)
{
    uint32_t stream = c->next_stream++;
    lim_err err = stream == 0 ? LIM_E_FULL : lim__map_put(&c->streams, stream, order);
    if (err != LIM_OK)
        return err;
    order->stream = stream;
    order->state = LIM__ORDER_ASKED;
    return LIM_OK;
}

static void place_own_loop(lim_client *c, lim__order *order)
{
    if (c->link == LIM__LINK_UP)
        ask(c, order);
}

/* The order may be gone when this returns. */
static lim_err place_and_wait(lim_client *c, lim__order *order, lim__waiter *w, lim_diag *diag)
{
    order->waiter = w;
    if (c->link == LIM__LINK_UP)
        ask(c, order);
    lim__client_block_wait(c, w, UINT64_MAX);
    if (w->err != LIM_OK && diag)
        *diag = w->diag;
    return w->err;
}

lim_err lim__client_order_place(lim_client *c, lim__order *order, lim__order_kind kind,
                                const lim_client_handler *handler, lim_diag *diag, uint64_t *id_out)
{
    lim__waiter w;
    order->kind = kind;
    order->state = LIM__ORDER_WANTED;
    order->handler = *handler;
    order->ready = (lim__item){ .kind = LIM__ITEM_READY, .order = order };
    order->end = (lim__item){ .kind = LIM__ITEM_END, .order = order };
    lim__list_init(&order->node);
    lim__list_init(&order->ready.node);
    lim__list_init(&order->end.node);
    lim_err err = c->own_loop ? LIM_OK : lim__client_block_enter(c, &w);
    bool entered = err == LIM_OK && !c->own_loop;
    if (err == LIM_OK)
        err = add(c, order);
    if (err != LIM_OK) {
        lim__diag_set(diag, 0, 0, "%s", lim_err_text(err));
        lim__client_order_free(order);
    } else {
        *id_out = order->id;
        if (entered)
            err = place_and_wait(c, order, &w, diag);
        else
            place_own_loop(c, order);
    }
    if (entered)
        lim__client_block_leave(c, &w);
    return err;
}

static void push_once(lim_client *c, lim__item *item)
{
    if (lim__list_empty(&item->node))
        lim__client_queue_push(c, item);
}

void lim__client_order_ready(lim_client *c, lim__order *order)
{
    order->state = LIM__ORDER_LIVE;
    if (order->waiter)
        lim__client_waiter_done_locked(order->waiter, LIM_OK);
    order->waiter = NULL;
    if (order->kind == LIM__SUB ? ((lim__sub *)order)->on_ready != NULL : ((lim__reg *)order)->on_ready != NULL)
        push_once(c, &order->ready);
}

static void leave_stream(lim_client *c, lim__order *order)
{
    if (order->stream != 0)
        lim__map_remove(&c->streams, order->stream);
    order->stream = 0;
}

void lim__client_order_end(lim_client *c, lim__order *order, lim_err why, const char *detail, size_t detail_len)
{
    if (order->state == LIM__ORDER_ENDED)
        return;
    leave_stream(c, order);
    lim__map_remove(&c->ids, order->id);
    order->state = LIM__ORDER_ENDED;
    order->why = why;
    lim_bytes text = lim__utf8_clip(lim__bytes(detail, detail_len), sizeof order->detail - 1);
    if (text.len > 0)
        memcpy(order->detail, text.ptr, text.len);
    order->detail[text.len] = '\0';
    if (order->kind == LIM__REG)
        lim__client_reg_over(c, (lim__reg *)order);
    else
        lim__list_remove(&((lim__sub *)order)->dirty);
    if (!order->waiter) {
        push_once(c, &order->end);
        return;
    }
    lim__waiter *w = order->waiter;
    lim__diag_set(&w->diag, 0, 0, "%s", order->detail[0] ? order->detail : lim_err_text(why));
    lim__client_waiter_done_locked(w, why == LIM_OK ? LIM_E_CLOSED : why);
    lim__client_order_free(order);
}

void lim__client_orders_resume(lim_client *c)
{
    LIM__LIST_EACH_SAFE(node, after, &c->orders) {
        lim__order *order = LIM_CONTAINER(node, lim__order, node);
        if (order->state == LIM__ORDER_WANTED)
            ask(c, order);
    }
}

void lim__client_orders_break(lim_client *c)
{
    LIM__LIST_EACH(node, &c->orders) {
        lim__order *order = LIM_CONTAINER(node, lim__order, node);
        if (order->state != LIM__ORDER_ASKED && order->state != LIM__ORDER_LIVE)
            continue;
        leave_stream(c, order);
        order->state = LIM__ORDER_WANTED;
        if (order->kind == LIM__REG)
            lim__client_reg_break(c, (lim__reg *)order);
    }
    LIM_ASSERT(c->streams.count == 0);
}

void lim__client_orders_end(lim_client *c, lim_err why, const char *detail)
{
    LIM__LIST_EACH_SAFE(node, after, &c->orders)
        lim__client_order_end(c, LIM_CONTAINER(node, lim__order, node), why, detail, strlen(detail));
}
