/* SPDX-License-Identifier: Apache-2.0
 * sorted.h - a map from bytes to bytes in the order of the keys, in memory: a skip list.
 *
 * What the index has not yet given to LMDB is in such maps, and in the simulator all of it. An entry can be `gone`: a
 * remark that the key is absent, whatever lies below says. Single owner. */
#ifndef LIM__STORE_SORTED_H
#define LIM__STORE_SORTED_H

#include "base/base.h"

enum { LIM__SORTED_LEVELS = 16 };

typedef struct lim__entry lim__entry;
struct lim__entry {
    uint8_t *value;
    uint32_t value_len, value_cap;
    uint16_t key_len;
    uint8_t levels;
    bool gone;
    lim__entry *next[]; /* levels of them, then the key */
};
static inline lim_bytes lim__entry_key(const lim__entry *e)
{
    return lim__bytes(&e->next[e->levels], e->key_len);
}
static inline lim_bytes lim__entry_value(const lim__entry *e)
{
    return lim__bytes(e->value, e->value_len);
}

typedef struct lim__sorted {
    lim__entry *first[LIM__SORTED_LEVELS];
    size_t count, bytes; /* bytes: of keys and values, and what an entry takes beside them */
    uint64_t chance;
} lim__sorted;

/* Where to look from a key: at it or after, after, at it or before, before. */
typedef enum lim__seek { LIM__SEEK_GE = 1, LIM__SEEK_GT, LIM__SEEK_LE, LIM__SEEK_LT } lim__seek;

int lim__key_cmp(lim_bytes a, lim_bytes b); /* as memcmp, the shorter first */
void lim__sorted_init(lim__sorted *m);
void lim__sorted_fini(lim__sorted *m); /* leaves it empty and usable */
lim__entry *lim__sorted_seek(const lim__sorted *m, lim_bytes key, lim__seek where); /* NULL: none */
lim__entry *lim__sorted_get(const lim__sorted *m, lim_bytes key);
/* Copies; value.ptr NULL: gone. 0 or -ENOMEM. */
int lim__sorted_put(lim__sorted *m, lim_bytes key, lim_bytes value);
void lim__sorted_remove(lim__sorted *m, lim_bytes key);
/* Moves every entry of `from` into m, where it replaces that of the same key; allocates nothing. forget: entries that are
 * gone take what they hide with them, and themselves. */
void lim__sorted_join(lim__sorted *m, lim__sorted *from, bool forget);

#endif
