/* SPDX-License-Identifier: Apache-2.0
 * map.c - the two hash maps of map.h.
 *
 * A slot whose value is NULL is empty. A key sits at its home (hash & mask) or after it, with no empty slot between;
 * removal closes the hole by moving back whatever stood behind it and may stand there.
 *
 *      home      hole
 *       v         v
 *   [ a ][ a ][  -  ][ b ][ a ][ - ]      a may move into the hole, b (which is at home) may not
 *
 * Invariants (asserted by the tests' model, and on the way):
 *   H1  cap is 0 or a power of two, count <= 3/4 cap: a probe always meets an empty slot.
 *   H2  between a key's home and its slot no slot is empty. */
#include "base/map.h"
#include "base/base.h"

#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { CAP_MIN = 8 };

struct lim__map_slot {
    uint64_t key;
    void *value;
};
struct lim__smap_slot {
    lim_bytes key;
    uint64_t hash;
    void *value;
};

uint64_t lim__hash_bytes(lim_bytes bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes.ptr, bytes.len, seed);
}

uint64_t lim__hash_u64(uint64_t key, uint64_t seed)
{
    return XXH3_64bits_withSeed(&key, sizeof key, seed);
}

/* True if a key whose home is `home` and that stands at `at` may move back to `hole` (H2). */
static bool may_move(size_t home, size_t at, size_t hole, size_t mask)
{
    return ((at - home) & mask) >= ((at - hole) & mask);
}

static bool has_room(size_t cap, size_t count)
{
    return (count + 1) * 4 <= cap * 3;
}

/* ---- 64-bit keys ---- */

void lim__map_init(lim__map *m, uint64_t seed)
{
    *m = (lim__map){ .seed = seed };
}

void lim__map_fini(lim__map *m)
{
    free(m->slots);
    lim__map_init(m, m->seed);
}

void lim__map_clear(lim__map *m)
{
    if (m->cap > 0)
        memset(m->slots, 0, m->cap * sizeof *m->slots);
    m->count = 0;
}

/* Home of a key: one multiplication, both halves folded. Keys are pids and numbers that only their owner's own map
 * sees, so what is wanted is speed and an even spread; XXH3 costs three times as much. */
static inline size_t map_home(const lim__map *m, uint64_t key)
{
    __extension__ unsigned __int128 product = (__extension__(unsigned __int128)(key ^ m->seed)) * 0x9E3779B97F4A7C15u;
    return ((size_t)product ^ (size_t)(product >> 64)) & (m->cap - 1);
}

/* The slot of the key, or the empty one where it belongs. cap > 0. */
static inline size_t map_find(const lim__map *m, uint64_t key)
{
    size_t mask = m->cap - 1;
    size_t i = map_home(m, key);
    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & mask;
    return i;
}

static lim_err map_grow(lim__map *m)
{
    lim__map bigger = { .cap = m->cap ? m->cap * 2 : CAP_MIN, .count = m->count, .seed = m->seed };
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return LIM_E_NOMEM;
    for (size_t i = 0; i < m->cap; i++) {
        if (m->slots[i].value)
            bigger.slots[map_find(&bigger, m->slots[i].key)] = m->slots[i];
    }
    free(m->slots);
    *m = bigger;
    return LIM_OK;
}

void *lim__map_get(const lim__map *m, uint64_t key)
{
    return m->count > 0 ? m->slots[map_find(m, key)].value : NULL;
}

lim_err lim__map_put(lim__map *m, uint64_t key, void *value)
{
    LIM_ASSERT(value);
    if (!has_room(m->cap, m->count) && !lim__map_get(m, key)) {
        lim_err err = map_grow(m);
        if (err != LIM_OK)
            return err;
    }
    struct lim__map_slot *slot = &m->slots[map_find(m, key)];
    m->count += slot->value == NULL;
    *slot = (struct lim__map_slot){ key, value };
    return LIM_OK;
}

void *lim__map_remove(lim__map *m, uint64_t key)
{
    if (m->count == 0)
        return NULL;
    size_t mask = m->cap - 1, hole = map_find(m, key);
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    for (size_t at = (hole + 1) & mask; m->slots[at].value; at = (at + 1) & mask) {
        if (may_move(map_home(m, m->slots[at].key), at, hole, mask)) {
            m->slots[hole] = m->slots[at];
            hole = at;
        }
    }
    m->slots[hole] = (struct lim__map_slot){ 0 };
    m->count--;
    return value;
}

bool lim__map_next(const lim__map *m, size_t *pos, uint64_t *key, void **value)
{
    while (*pos < m->cap) {
        const struct lim__map_slot *slot = &m->slots[(*pos)++];
        if (slot->value) {
            *key = slot->key;
            *value = slot->value;
            return true;
        }
    }
    return false;
}

/* ---- keys of bytes: the hash is kept, so growing and removing never read a key ---- */

void lim__smap_init(lim__smap *m, uint64_t seed)
{
    *m = (lim__smap){ .seed = seed };
}

void lim__smap_fini(lim__smap *m)
{
    free(m->slots);
    lim__smap_init(m, m->seed);
}

void lim__smap_clear(lim__smap *m)
{
    if (m->cap > 0)
        memset(m->slots, 0, m->cap * sizeof *m->slots);
    m->count = 0;
}

static size_t smap_find(const lim__smap *m, lim_bytes key, uint64_t hash)
{
    size_t mask = m->cap - 1;
    size_t i = hash & mask;
    while (m->slots[i].value && !(m->slots[i].hash == hash && lim__bytes_eq(m->slots[i].key, key)))
        i = (i + 1) & mask;
    return i;
}

static lim_err smap_grow(lim__smap *m)
{
    lim__smap bigger = { .cap = m->cap ? m->cap * 2 : CAP_MIN, .count = m->count, .seed = m->seed };
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return LIM_E_NOMEM;
    size_t mask = bigger.cap - 1;
    for (size_t i = 0; i < m->cap; i++) {
        if (!m->slots[i].value)
            continue;
        size_t to = m->slots[i].hash & mask;
        while (bigger.slots[to].value)
            to = (to + 1) & mask;
        bigger.slots[to] = m->slots[i];
    }
    free(m->slots);
    *m = bigger;
    return LIM_OK;
}

void *lim__smap_get(const lim__smap *m, lim_bytes key)
{
    return m->count > 0 ? m->slots[smap_find(m, key, lim__hash_bytes(key, m->seed))].value : NULL;
}

lim_err lim__smap_put(lim__smap *m, lim_bytes key, void *value)
{
    LIM_ASSERT(value);
    uint64_t hash = lim__hash_bytes(key, m->seed);
    if (!has_room(m->cap, m->count) && !lim__smap_get(m, key)) {
        lim_err err = smap_grow(m);
        if (err != LIM_OK)
            return err;
    }
    struct lim__smap_slot *slot = &m->slots[smap_find(m, key, hash)];
    m->count += slot->value == NULL;
    *slot = (struct lim__smap_slot){ key, hash, value }; /* the old key may live in the old value: never keep it */
    return LIM_OK;
}

void *lim__smap_remove(lim__smap *m, lim_bytes key)
{
    if (m->count == 0)
        return NULL;
    size_t mask = m->cap - 1, hole = smap_find(m, key, lim__hash_bytes(key, m->seed));
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    for (size_t at = (hole + 1) & mask; m->slots[at].value; at = (at + 1) & mask) {
        if (may_move(m->slots[at].hash & mask, at, hole, mask)) {
            m->slots[hole] = m->slots[at];
            hole = at;
        }
    }
    m->slots[hole] = (struct lim__smap_slot){ 0 };
    m->count--;
    return value;
}

bool lim__smap_next(const lim__smap *m, size_t *pos, lim_bytes *key, void **value)
{
    while (*pos < m->cap) {
        const struct lim__smap_slot *slot = &m->slots[(*pos)++];
        if (slot->value) {
            *key = slot->key;
            *value = slot->value;
            return true;
        }
    }
    return false;
}
