/* SPDX-License-Identifier: Apache-2.0
 * registry.c - names of processes.
 *
 * One map under one lock: names are for starting up and for people, not for the way of every message. A process that
 * ends clears its pid first and then looks at its slot's `named`; lim_register sets `named` first and then looks at the
 * pid. Both sequentially consistent: one of the two sees the other, so no name outlives its process. */
#include "actor/internal.h"

enum { NAME_BYTES_MAX = 255 };

typedef struct name {
    lim_pid pid;
    struct name *next; /* of the same process */
    size_t len;
    char text[];
} name;

void lim__registry_init(lim__registry *r, uint64_t seed)
{
    pthread_mutex_init(&r->lock, NULL);
    lim__smap_init(&r->by_name, seed);
    lim__map_init(&r->by_pid, seed);
}

void lim__registry_fini(lim__registry *r)
{
    size_t pos = 0;
    lim_bytes key;
    void *value;
    while (lim__smap_next(&r->by_name, &pos, &key, &value))
        lim__block_release(value);
    lim__smap_fini(&r->by_name);
    lim__map_fini(&r->by_pid);
    pthread_mutex_destroy(&r->lock);
}

static lim_err insert_locked(lim__registry *r, name *n)
{
    lim_bytes key = { n->text, n->len };
    if (lim__smap_get(&r->by_name, key))
        return LIM_E_EXISTS;
    n->next = lim__map_get(&r->by_pid, n->pid.id);
    if (lim__smap_put(&r->by_name, key, n) != LIM_OK)
        return LIM_E_NOMEM;
    if (lim__map_put(&r->by_pid, n->pid.id, n) == LIM_OK)
        return LIM_OK;
    lim__smap_remove(&r->by_name, key);
    return LIM_E_NOMEM;
}

static void forget_locked(lim__registry *r, lim_pid pid)
{
    for (name *n = lim__map_remove(&r->by_pid, pid.id), *next; n; n = next) {
        next = n->next;
        lim__smap_remove(&r->by_name, (lim_bytes){ n->text, n->len });
        lim__block_release(n);
    }
}

void lim__registry_forget(lim_runtime *rt, lim_pid pid)
{
    pthread_mutex_lock(&rt->registry.lock);
    forget_locked(&rt->registry, pid);
    pthread_mutex_unlock(&rt->registry.lock);
}

static lim_err register_locked(lim_runtime *rt, lim__slot *slot, name *n)
{
    lim_pid pid = n->pid;
    lim_err err = insert_locked(&rt->registry, n);
    if (err != LIM_OK) {
        lim__block_release(n);
        return err;
    }
    atomic_store(&slot->named, 1);
    if (atomic_load(&slot->pid) == pid.id)
        return LIM_OK;
    forget_locked(&rt->registry, pid); /* it ended meanwhile */
    return LIM_E_GONE;
}

lim_err lim_register(lim_runtime *rt, const char *text, lim_pid pid)
{
    size_t len = strlen(text);
    if (len == 0)
        return LIM_E_INVALID;
    if (len > NAME_BYTES_MAX)
        return LIM_E_TOOBIG;
    if (!lim_alive(rt, pid))
        return LIM_E_GONE;
    name *n = lim__alloc(NULL, sizeof *n + len);
    if (!n)
        return LIM_E_NOMEM;
    *n = (name){ .pid = pid, .len = len };
    memcpy(n->text, text, len);
    lim__slot *slot = lim__slot_of(lim__sched_of(rt, pid), pid);
    pthread_mutex_lock(&rt->registry.lock);
    lim_err err = register_locked(rt, slot, n);
    pthread_mutex_unlock(&rt->registry.lock);
    return err;
}

lim_pid lim_whereis(lim_runtime *rt, const char *text)
{
    pthread_mutex_lock(&rt->registry.lock);
    const name *n = lim__smap_get(&rt->registry.by_name, lim__str(text));
    lim_pid pid = n ? n->pid : (lim_pid){ 0 };
    pthread_mutex_unlock(&rt->registry.lock);
    return pid;
}
