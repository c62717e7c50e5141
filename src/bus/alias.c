/* SPDX-License-Identifier: Apache-2.0
 * alias.c - ids of conversations that were made again after a restart: old id -> living process.
 *
 * A process has one alias at most, which is dropped when it ends. Nothing has one on a bus that was never restarted, so
 * the look-up begins with a counter. */
#include "base/map.h"
#include "bus/durable.h"

#include <stdatomic.h>
#include <stdlib.h>

struct lim__aliases {
    lim__mutex lock;
    lim__map map; /* old id -> pid as a pointer; never 0 */
    _Atomic uint64_t count;
};

struct lim__aliases *lim__aliases_new(uint64_t seed)
{
    struct lim__aliases *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->lock = (lim__mutex)LIM__MUTEX_INIT;
    lim__map_init(&all->map, seed);
    return all;
}

void lim__aliases_free(struct lim__aliases *all)
{
    if (all == NULL)
        return;
    lim__map_fini(&all->map);
    free(all);
}

lim_err lim__alias_put(lim_bus *bus, uint64_t old, lim_pid now)
{
    struct lim__aliases *all = bus->aliases;
    pthread_mutex_lock(&all->lock);
    lim_err err = lim__map_put(&all->map, old, (void *)(uintptr_t)now.id);
    atomic_store_explicit(&all->count, all->map.count, memory_order_release); /* pairs with alias_pid */
    pthread_mutex_unlock(&all->lock);
    return err;
}

void lim__alias_drop(lim_bus *bus, uint64_t old)
{
    struct lim__aliases *all = bus->aliases;
    pthread_mutex_lock(&all->lock);
    (void)lim__map_remove(&all->map, old);
    atomic_store_explicit(&all->count, all->map.count, memory_order_release);
    pthread_mutex_unlock(&all->lock);
}

lim_pid lim__alias_pid(lim_bus *bus, uint64_t id)
{
    struct lim__aliases *all = bus->aliases;
    if (LIM_LIKELY(atomic_load_explicit(&all->count, memory_order_acquire) == 0))
        return (lim_pid){ id };
    pthread_mutex_lock(&all->lock);
    uint64_t now = (uint64_t)(uintptr_t)lim__map_get(&all->map, id);
    pthread_mutex_unlock(&all->lock);
    return (lim_pid){ now != 0 ? now : id };
}

uint64_t lim__alias_of(lim_bus *bus, lim_pid now)
{
    struct lim__aliases *all = bus->aliases;
    uint64_t id, found = now.id;
    size_t pos = 0;
    void *value;
    pthread_mutex_lock(&all->lock);
    while (now.id != 0 && lim__map_next(&all->map, &pos, &id, &value))
        if ((uint64_t)(uintptr_t)value == now.id)
            found = id;
    pthread_mutex_unlock(&all->lock);
    return found;
}
