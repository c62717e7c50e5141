/* SPDX-License-Identifier: Apache-2.0
 * box.c - requests that wait to be taken by a host thread: the mailbox of a participant that is pulled.
 *
 * A box belongs to its participant's process and to every thread inside lim_take; the last one frees it. The process
 * pushes, host threads wait and pop. Both mutexes are leaves; that of the boxes is taken first. */
#include "bus/box.h"
#include "base/base.h"
#include "base/map.h"
#include <errno.h>
#include <stdlib.h>

enum { ITEMS_MAX = 65536 };

struct lim__box {
    lim__mutex mutex;
    lim__cond cond;
    uint32_t refs; /* under the mutex of the boxes */
    bool over;
    lim_pid pid;
    lim__boxes *in;
    lim__request **items; /* ring */
    size_t head, count, cap;
    lim__os *os;
    lim__poller *poller; /* its wake is what makes the descriptor readable: raised while there is something. NULL:
                            nobody asked */
};

struct lim__boxes {
    lim__mutex mutex;
    lim__map boxes; /* pid -> box, of living participants */
};

lim__boxes *lim__boxes_new(uint64_t seed)
{
    lim__boxes *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->mutex = (lim__mutex)LIM__MUTEX_INIT;
    lim__map_init(&all->boxes, seed);
    return all;
}

void lim__boxes_free(lim__boxes *all)
{
    if (all == NULL)
        return;
    LIM_ASSERT(all->boxes.count == 0);
    lim__map_fini(&all->boxes);
    free(all);
}

lim__box *lim__box_new(void)
{
    lim__box *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->mutex = (lim__mutex)LIM__MUTEX_INIT;
    lim__cond_init(&b->cond);
    b->refs = 1;
    return b;
}

/* Of a host that waits with a poll of its own. Under the mutex, whenever `count` or `over` has changed. */
static void signal_poller(lim__box *b)
{
    lim__io_event none;
    if (b->poller == NULL)
        return;
    if (b->count > 0 || b->over)
        b->os->poller_wake(b->os, b->poller);
    else
        (void)!b->os->poller_wait(b->os, b->poller, &none, 1, 0); /* takes the wake back */
}

int lim__box_fd(lim__box *b, lim__os *os)
{
    pthread_mutex_lock(&b->mutex);
    if (b->poller == NULL) {
        b->os = os;
        b->poller = os->poller_open(os);
        signal_poller(b);
    }
    int fd = b->poller != NULL ? os->poller_fd(os, b->poller) : -ENOMEM;
    pthread_mutex_unlock(&b->mutex);
    return fd;
}

static void box_free(lim__box *b)
{
    if (b->poller != NULL)
        b->os->poller_close(b->os, b->poller);
    while (b->count > 0) {
        lim__letter_free(NULL, b->items[b->head]);
        b->head = (b->head + 1) % b->cap;
        b->count--;
    }
    free(b->items);
    pthread_cond_destroy(&b->cond);
    free(b);
}

void lim__box_unref(lim__box *b)
{
    if (b->in != NULL)
        pthread_mutex_lock(&b->in->mutex);
    lim__boxes *in = b->in;
    bool last = --b->refs == 0;
    if (in != NULL)
        pthread_mutex_unlock(&in->mutex);
    if (last)
        box_free(b);
}

lim_err lim__box_enter(lim__boxes *all, lim__box *b, lim_pid pid)
{
    pthread_mutex_lock(&all->mutex);
    b->in = all;
    b->pid = pid;
    lim_err err = b->over ? LIM_OK : lim__map_put(&all->boxes, pid.id, b); /* over: it has ended already */
    pthread_mutex_unlock(&all->mutex);
    return err;
}

lim__box *lim__box_find(lim__boxes *all, lim_pid pid)
{
    pthread_mutex_lock(&all->mutex);
    lim__box *b = lim__map_get(&all->boxes, pid.id);
    if (b != NULL)
        b->refs++;
    pthread_mutex_unlock(&all->mutex);
    return b;
}

void lim__box_close(lim__boxes *all, lim__box *b)
{
    pthread_mutex_lock(&all->mutex);
    if (b->in != NULL)
        lim__map_remove(&all->boxes, b->pid.id);
    b->in = all;
    pthread_mutex_lock(&b->mutex);
    b->over = true;
    signal_poller(b);
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mutex);
    pthread_mutex_unlock(&all->mutex);
    lim__box_unref(b);
}

bool lim__box_push(lim__box *b, lim__request *r)
{
    bool room = true;
    pthread_mutex_lock(&b->mutex);
    if (b->count == b->cap && b->cap < ITEMS_MAX) {
        size_t cap = b->cap == 0 ? 16 : b->cap * 2;
        lim__request **items = malloc(cap * sizeof(lim__request *));
        for (size_t i = 0; items != NULL && i < b->count; i++)
            items[i] = b->items[(b->head + i) % b->cap];
        if (items != NULL) {
            free(b->items);
            b->items = items;
            b->head = 0;
            b->cap = cap;
        }
    }
    if (b->count < b->cap) {
        b->items[(b->head + b->count++) % b->cap] = r;
        signal_poller(b);
        pthread_cond_signal(&b->cond);
    } else {
        room = false;
    }
    pthread_mutex_unlock(&b->mutex);
    return room;
}

lim__request *lim__box_withdraw(lim__box *b, lim_pid conv, uint64_t lease)
{
    lim__request *found = NULL;
    pthread_mutex_lock(&b->mutex);
    for (size_t i = 0; i < b->count; i++) {
        lim__request **at = &b->items[(b->head + i) % b->cap];
        if (found != NULL)
            b->items[(b->head + i - 1) % b->cap] = *at;
        else if ((*at)->conv.id == conv.id && (lease == 0 || (*at)->lease == lease))
            found = *at;
    }
    b->count -= found != NULL;
    signal_poller(b);
    pthread_mutex_unlock(&b->mutex);
    return found;
}

lim_err lim__box_pop(lim__box *b, uint64_t deadline_ns, lim__request **out)
{
    lim_err err = LIM_OK;
    pthread_mutex_lock(&b->mutex);
    while (b->count == 0 && !b->over && err == LIM_OK)
        if (!lim__cond_wait_until(&b->cond, &b->mutex, deadline_ns) && b->count == 0)
            err = LIM_E_TIMEOUT;
    if (b->count > 0 && !b->over) {
        *out = b->items[b->head];
        b->head = (b->head + 1) % b->cap;
        b->count--;
        signal_poller(b);
        err = LIM_OK;
    } else if (b->over) {
        err = LIM_E_GONE;
    }
    pthread_mutex_unlock(&b->mutex);
    return err;
}
