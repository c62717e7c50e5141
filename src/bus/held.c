/* SPDX-License-Identifier: Apache-2.0
 * held.c - see held.h. One map under one leaf lock: what is in here lives long next to what a look-up takes, and
 * answers to all other deliveries see by one counter that they need not look. */
#include "bus/held.h"
#include "actor/actor.h"
#include "base/base.h"
#include "base/map.h"
#include <stdatomic.h>
#include <stdlib.h>

typedef struct held {
    struct held *next; /* of the same conversation */
    lim__list node;    /* its participant's list */
    lim__delivery_id id;
    uint32_t credit;
    bool stream, revoked;
} held;

struct lim__held {
    lim__mutex mutex;
    lim__map convs;         /* conversation -> held, the first of a chain */
    _Atomic uint64_t count; /* also read without the lock: 0, and there is nothing to look for */
};

lim__held *lim__held_new(uint64_t seed)
{
    lim__held *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->mutex = (lim__mutex)LIM__MUTEX_INIT;
    lim__map_init(&all->convs, seed);
    return all;
}

void lim__held_free(lim__held *all)
{
    if (all == NULL)
        return;
    LIM_ASSERT(all->convs.count == 0);
    lim__map_fini(&all->convs);
    free(all);
}

/* A delivery that another thread has just put here is found by those who know of it: they were told after that. */
static bool lock(lim__held *all)
{
    if (atomic_load_explicit(&all->count, memory_order_acquire) == 0)
        return false;
    pthread_mutex_lock(&all->mutex);
    return true;
}

static held *find_locked(const lim__held *all, lim__delivery_id id)
{
    held *h = lim__map_get(&all->convs, id.conv.id);
    while (h != NULL && (h->id.self.id != id.self.id || h->id.lease != id.lease))
        h = h->next;
    return h;
}

lim_err lim__held_add(lim__held *all, lim__list *mine, lim__delivery_id id, bool stream, uint32_t credit)
{
    held *h = malloc(sizeof *h);
    if (h == NULL)
        return LIM_E_NOMEM;
    pthread_mutex_lock(&all->mutex);
    *h = (held){ .next = lim__map_get(&all->convs, id.conv.id), .id = id, .credit = credit, .stream = stream };
    lim_err err = lim__map_put(&all->convs, id.conv.id, h);
    if (err == LIM_OK) {
        lim__list_init(&h->node);
        lim__list_push(mine, &h->node);
        atomic_fetch_add_explicit(&all->count, 1, memory_order_release); /* pairs with the load in lock */
    }
    pthread_mutex_unlock(&all->mutex);
    if (err != LIM_OK)
        free(h);
    return err;
}

static void remove_locked(lim__held *all, held *h)
{
    held *first = lim__map_get(&all->convs, h->id.conv.id);
    if (first != h) {
        while (first->next != h)
            first = first->next;
        first->next = h->next;
    } else if (h->next == NULL) {
        lim__map_remove(&all->convs, h->id.conv.id);
    } else if (lim__map_put(&all->convs, h->id.conv.id, h->next) != LIM_OK) {
        LIM_ASSERT(!"a key that is there takes no room");
    }
    lim__list_remove(&h->node);
    /* Pairs with the load in lock: who sees none left may free its list. */
    atomic_fetch_sub_explicit(&all->count, 1, memory_order_release);
    free(h);
}

lim_err lim__held_spend(lim__held *all, lim__delivery_id id)
{
    lim_err err = LIM_E_NOTFOUND;
    if (!lock(all))
        return err;
    held *h = find_locked(all, id);
    if (h != NULL) {
        err = !h->stream ? LIM_E_MISUSE : h->revoked ? LIM_E_GONE : h->credit == 0 ? LIM_E_FULL : LIM_OK;
        h->credit -= err == LIM_OK;
    }
    pthread_mutex_unlock(&all->mutex);
    return err;
}

bool lim__held_grant(lim__held *all, lim__delivery_id id, uint32_t credit)
{
    if (!lock(all))
        return false;
    held *h = find_locked(all, id);
    bool here = h != NULL && !h->revoked;
    if (here)
        h->credit = credit < UINT32_MAX - h->credit ? h->credit + credit : UINT32_MAX;
    pthread_mutex_unlock(&all->mutex);
    return here;
}

bool lim__held_revoke(lim__held *all, lim__delivery_id id)
{
    if (!lock(all))
        return false;
    held *h = find_locked(all, id);
    bool fresh = h != NULL && !h->revoked;
    if (fresh)
        h->revoked = true;
    pthread_mutex_unlock(&all->mutex);
    return fresh;
}

bool lim__held_is_stream(lim__held *all, lim__delivery_id id)
{
    if (!lock(all))
        return false;
    const held *h = find_locked(all, id);
    bool stream = h != NULL && h->stream;
    pthread_mutex_unlock(&all->mutex);
    return stream;
}

void lim__held_remove(lim__held *all, lim__delivery_id id)
{
    if (!lock(all))
        return;
    held *h = find_locked(all, id);
    if (h != NULL)
        remove_locked(all, h);
    pthread_mutex_unlock(&all->mutex);
}

uint64_t lim__held_revoke_in(lim__held *all, lim__list *mine, lim_conv conv)
{
    uint64_t lease = 0;
    if (!lock(all))
        return 0;
    LIM__LIST_EACH(n, mine) {
        held *h = LIM_CONTAINER(n, held, node);
        if (lease == 0 && h->id.conv.id == conv.id && !h->revoked) {
            h->revoked = true;
            lease = h->id.lease;
        }
    }
    pthread_mutex_unlock(&all->mutex);
    return lease;
}

void lim__held_remove_all(lim__held *all, lim__list *mine)
{
    if (!lock(all))
        return;
    while (!lim__list_empty(mine))
        remove_locked(all, LIM_CONTAINER(mine->next, held, node));
    pthread_mutex_unlock(&all->mutex);
}
