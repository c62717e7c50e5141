/* SPDX-License-Identifier: Apache-2.0
 * newest.c - numbers that were heard of: see newest.h. */
#include "base/newest.h"

void lim__newest_init(lim__newest *n, uint64_t seed)
{
    lim__map_init(&n->young, seed);
    lim__map_init(&n->old, seed);
}

void lim__newest_fini(lim__newest *n)
{
    lim__map_fini(&n->young);
    lim__map_fini(&n->old);
}

bool lim__newest_has(const lim__newest *n, uint64_t key, uint64_t number)
{
    const void *last = lim__map_get(&n->young, key);
    if (last == NULL)
        last = lim__map_get(&n->old, key);
    return (uint64_t)(uintptr_t)last >= number;
}

void lim__newest_clear(lim__newest *n)
{
    lim__map_clear(&n->young);
    lim__map_clear(&n->old);
}

static void turn(lim__newest *n)
{
    lim__map was = n->old;
    lim__map_clear(&was);
    n->old = n->young;
    n->young = was;
}

bool lim__newest_is(lim__newest *n, uint64_t key, uint64_t number)
{
    uint64_t last = (uint64_t)(uintptr_t)lim__map_get(&n->young, key);
    bool young = last != 0;
    if (!young)
        last = (uint64_t)(uintptr_t)lim__map_get(&n->old, key);
    if (!young && n->young.count >= LIM__NEWEST_MAX)
        turn(n);
    bool newer = number > last;
    if (newer || !young)
        (void)!lim__map_put(&n->young, key, (void *)(uintptr_t)(newer ? number : last));
    return newer;
}
