/* SPDX-License-Identifier: Apache-2.0
 * handler.c - the queue to the handlers, and the thread that empties it.
 *
 * One queue for all subscriptions and registrations keeps what the server said in the order it said it. It is bounded
 * by what the server may have in flight: the windows of the subscriptions and the capacities of the registrations, and
 * two reserved places per order for its `ready` and its `end`. With own_loop messages are handed over where they are
 * read; only ends that a call of the user's own causes wait here for the next lim_client_process. */
#include "client/client.h"

void lim__client_queue_push(lim_client *c, lim__item *item)
{
    c->patrol_wanted |= !lim__list_empty(&c->queue);
    lim__list_push(&c->queue, &item->node);
    if (c->handler_sleeps) {
        c->handler_sleeps = false;
        c->handler_wake = true;
    }
}

static void run_ready(lim_client *c, lim__order *order)
{
    lim__reg *reg = (lim__reg *)order;
    void *ctx = order->handler.ctx;
    char identity[sizeof reg->identity];
    if (order->state != LIM__ORDER_LIVE)
        return; /* it will be ready again */
    switch (order->kind) {
    case LIM__SUB:
        lim__client_unlock(c);
        ((lim__sub *)order)->on_ready(ctx);
        lim__client_lock(c);
        break;
    case LIM__REG:
        memcpy(identity, reg->identity, sizeof identity);
        lim__client_unlock(c);
        reg->on_ready(ctx, identity);
        lim__client_lock(c);
        break;
    }
}

static void run_end(lim_client *c, lim__order *order)
{
    LIM_ASSERT(order->state == LIM__ORDER_ENDED);
    if (order->handler.on_end) {
        lim__client_unlock(c);
        order->handler.on_end(order->handler.ctx, order->why, order->detail);
        lim__client_lock(c);
    }
    lim__client_order_free(order);
}

static void run(lim_client *c, lim__item *item)
{
    switch (item->kind) {
    case LIM__ITEM_MESSAGE:
        lim__client_sub_run(c, (lim__sub *)item->order, item);
        break;
    case LIM__ITEM_REQUEST:
        lim__client_request_run(c, LIM_CONTAINER(item, lim__request, item));
        break;
    case LIM__ITEM_READY:
        run_ready(c, item->order);
        break;
    case LIM__ITEM_END:
        run_end(c, item->order);
        break;
    }
}

void lim__client_queue_run(lim_client *c)
{
    for (lim__list *node; (node = lim__list_pop(&c->queue)) != NULL;)
        run(c, LIM_CONTAINER(node, lim__item, node));
}

void *lim__client_handler_main(void *client)
{
    lim_client *c = client;
    lim__client_lock(c);
    for (;;) {
        lim__client_queue_run(c);
        lim__client_sub_acks(c);
        if (c->sleeping && lim__buf_len(&c->out) > 0) { /* answers that were held back */
            c->sleeping = false;
            c->wake = true;
        }
        if (c->wake) { /* while waiting nobody would do it */
            lim__client_unlock_now(c);
            lim__client_lock(c);
        }
        if (!lim__list_empty(&c->queue))
            continue;
        if (c->handler_stop)
            break;
        c->handler_sleeps = true;
        lim__cond_wait_until(&c->handler_cond, &c->mutex, UINT64_MAX);
        c->handler_sleeps = false;
    }
    lim__client_unlock(c);
    return NULL;
}
