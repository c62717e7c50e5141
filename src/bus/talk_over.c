/* SPDX-License-Identifier: Apache-2.0
 * talk_over.c - the ended ones, oldest first. What is dropped here and not in the store, because memory was short or
 * the store was closed, is dropped after the next start. */
#include "bus/talk_over.h"
#include "bus/durable.h"
#include "bus/talk.h"
#include "base/base.h"
#include <stdlib.h>

typedef struct ended {
    lim__list node;
    uint64_t id, stream, wall_ns;
} ended;

struct lim__over {
    lim__mutex lock;
    lim__list list;
};

lim__over *lim__over_new(void)
{
    lim__over *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->lock = (lim__mutex)LIM__MUTEX_INIT;
    lim__list_init(&all->list);
    return all;
}

void lim__over_free(lim__over *all)
{
    if (all == NULL)
        return;
    for (lim__list *n; (n = lim__list_pop(&all->list)) != NULL;)
        free(LIM_CONTAINER(n, ended, node));
    free(all);
}

static void done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what;
    lim__batch_free(batch);
}

static void drop_rows(lim_bus *bus, const ended *e)
{
    uint8_t key[18];
    lim__batch *batch = lim__batch_new();
    if (batch == NULL)
        return;
    lim__batch_small(batch);
    lim__batch_delete(batch, LIM__TABLE_TALKS, lim__keep_key(e->id, 'o', 0, key));
    lim__batch_delete(batch, LIM__TABLE_TALKS, lim__keep_key(e->id, 's', 0, key));
    lim__batch_drop(batch, e->stream);
    (void)!lim__durable_submit(bus, batch, done, NULL);
}

static ended *pop_due(lim__over *all, uint64_t wall_ns)
{
    ended *e = NULL;
    pthread_mutex_lock(&all->lock);
    if (!lim__list_empty(&all->list)) {
        e = LIM_CONTAINER(all->list.next, ended, node);
        if (e->wall_ns + LIM__OVER_MS * UINT64_C(1000000) > wall_ns)
            e = NULL;
        else
            lim__list_remove(&e->node);
    }
    pthread_mutex_unlock(&all->lock);
    return e;
}

void lim__over_ended(lim_bus *bus, uint64_t id, uint64_t stream, uint64_t ended_wall_ns)
{
    ended *e = malloc(sizeof *e);
    if (e != NULL) {
        *e = (ended){ .id = id, .stream = stream, .wall_ns = ended_wall_ns };
        pthread_mutex_lock(&bus->over->lock);
        lim__list_push(&bus->over->list, &e->node);
        pthread_mutex_unlock(&bus->over->lock);
    }
    while ((e = pop_due(bus->over, bus->os->wall_ns(bus->os))) != NULL) {
        drop_rows(bus, e);
        free(e);
    }
}
