/* SPDX-License-Identifier: Apache-2.0
 * map.h - two open-addressing hash maps: 64-bit key -> pointer, and bytes -> pointer.
 *
 * Linear probing, backward-shift deletion (no tombstones), load at most 3/4, grows by doubling. Keys of a bytes map
 * are borrowed: they must live as long as the entry, usually inside the value. The seed comes from os->random, so that
 * nobody can choose colliding keys; iteration order depends on seed and history only, never on addresses. Single owner. */
#ifndef LIM__MAP_H
#define LIM__MAP_H

#include <liminal/types.h>

typedef struct lim__map {
    struct lim__map_slot *slots;
    size_t cap, count; /* cap is 0 or a power of two */
    uint64_t seed;
} lim__map;

void lim__map_init(lim__map *m, uint64_t seed);
void lim__map_fini(lim__map *m);
void lim__map_clear(lim__map *m); /* empties it, keeps the memory */
void *lim__map_get(const lim__map *m, uint64_t key);                /* NULL: absent */
lim_err lim__map_put(lim__map *m, uint64_t key, void *value);       /* value not NULL; replaces; NOMEM */
void *lim__map_remove(lim__map *m, uint64_t key);                   /* what was there, or NULL */
/* Visits all: start with *pos = 0; false at the end. Do not change the map meanwhile, except by lim__map_clear. */
bool lim__map_next(const lim__map *m, size_t *pos, uint64_t *key, void **value);

typedef struct lim__smap {
    struct lim__smap_slot *slots;
    size_t cap, count;
    uint64_t seed;
} lim__smap;
void lim__smap_init(lim__smap *m, uint64_t seed);
void lim__smap_fini(lim__smap *m);
void lim__smap_clear(lim__smap *m);
void *lim__smap_get(const lim__smap *m, lim_bytes key);
lim_err lim__smap_put(lim__smap *m, lim_bytes key, void *value); /* replaces the borrowed key, too */
void *lim__smap_remove(lim__smap *m, lim_bytes key);
bool lim__smap_next(const lim__smap *m, size_t *pos, lim_bytes *key, void **value);

uint64_t lim__hash_bytes(lim_bytes bytes, uint64_t seed); /* XXH3 */
uint64_t lim__hash_u64(uint64_t key, uint64_t seed);

#endif
