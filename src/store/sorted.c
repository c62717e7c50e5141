/* SPDX-License-Identifier: Apache-2.0
 * sorted.c - the skip list; see sorted.h.
 *
 * Level 0 links all entries in order, level i about every fourth of level i-1. The heights come from a small generator
 * with a fixed beginning, so that the same history makes the same list. Keys lie behind the links of their entry. */
#include "store/sorted.h"

#include <errno.h>
#include <stdlib.h>

/* For each level, the link that leads to the first entry at or (after: strictly) behind a key. */
struct path {
    lim__entry **link[LIM__SORTED_LEVELS];
    const lim__entry *before; /* the last entry that the path passed; NULL: none */
};

int lim__key_cmp(lim_bytes a, lim_bytes b)
{
    size_t shorter = a.len < b.len ? a.len : b.len;
    int order = shorter ? memcmp(a.ptr, b.ptr, shorter) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

void lim__sorted_init(lim__sorted *m)
{
    *m = (lim__sorted){ .chance = 0x2545F4914F6CDD1Du };
}

static size_t entry_bytes(const lim__entry *e)
{
    return sizeof *e + e->levels * sizeof e->next[0] + e->key_len + e->value_len;
}

static void entry_free(lim__sorted *m, lim__entry *e)
{
    m->count--;
    m->bytes -= entry_bytes(e);
    free(e->value);
    free(e);
}

void lim__sorted_fini(lim__sorted *m)
{
    for (lim__entry *e = m->first[0], *next; e; e = next) {
        next = e->next[0];
        entry_free(m, e);
    }
    lim__sorted_init(m);
}

static void find(lim__sorted *m, lim_bytes key, bool after, struct path *path)
{
    lim__entry **links = m->first;
    path->before = NULL;
    for (int level = LIM__SORTED_LEVELS - 1; level >= 0; level--) {
        lim__entry *e;
        while ((e = links[level]) != NULL) {
            int order = lim__key_cmp(lim__entry_key(e), key);
            if (order > 0 || (order == 0 && !after))
                break;
            path->before = e;
            links = e->next;
        }
        path->link[level] = &links[level];
    }
}

lim__entry *lim__sorted_seek(const lim__sorted *m, lim_bytes key, lim__seek where)
{
    struct path path; /* finding changes nothing; what is found may be changed by an owner of the map */
    find((lim__sorted *)(uintptr_t)m, key, where == LIM__SEEK_GT || where == LIM__SEEK_LE, &path);
    bool forward = where == LIM__SEEK_GE || where == LIM__SEEK_GT;
    return forward ? *path.link[0] : (lim__entry *)(uintptr_t)path.before;
}

lim__entry *lim__sorted_get(const lim__sorted *m, lim_bytes key)
{
    lim__entry *e = lim__sorted_seek(m, key, LIM__SEEK_GE);
    return e && lim__bytes_eq(lim__entry_key(e), key) ? e : NULL;
}

static uint8_t draw_levels(lim__sorted *m)
{
    m->chance ^= m->chance << 13, m->chance ^= m->chance >> 7, m->chance ^= m->chance << 17;
    uint8_t levels = 1;
    for (uint64_t bits = m->chance; (bits & 3) == 0 && levels < LIM__SORTED_LEVELS; bits >>= 2)
        levels++;
    return levels;
}

static void link_in(lim__sorted *m, lim__entry *e, const struct path *path)
{
    for (int level = 0; level < e->levels; level++) {
        e->next[level] = *path->link[level];
        *path->link[level] = e;
    }
    m->count++;
    m->bytes += entry_bytes(e);
}

static void unlink_at(lim__entry *e, const struct path *path)
{
    for (int level = 0; level < e->levels; level++)
        *path->link[level] = e->next[level];
}

static lim__entry *entry_new(lim__sorted *m, lim_bytes key)
{
    LIM_ASSERT(key.len <= UINT16_MAX);
    uint8_t levels = draw_levels(m);
    lim__entry *e = malloc(sizeof *e + levels * sizeof e->next[0] + key.len);
    if (!e)
        return NULL;
    *e = (lim__entry){ .levels = levels, .key_len = (uint16_t)key.len };
    if (key.len > 0)
        memcpy(&e->next[levels], key.ptr, key.len);
    return e;
}

static bool entry_set(lim__entry *e, lim_bytes value)
{
    if (value.len > e->value_cap) {
        uint8_t *grown = malloc(value.len);
        if (!grown)
            return false;
        free(e->value);
        e->value = grown;
        e->value_cap = (uint32_t)value.len;
    }
    if (value.len > 0)
        memcpy(e->value, value.ptr, value.len);
    e->value_len = (uint32_t)value.len;
    e->gone = value.ptr == NULL;
    return true;
}

int lim__sorted_put(lim__sorted *m, lim_bytes key, lim_bytes value)
{
    struct path path;
    LIM_ASSERT(value.len <= UINT32_MAX);
    find(m, key, false, &path);
    lim__entry *e = *path.link[0];
    if (e && lim__bytes_eq(lim__entry_key(e), key)) {
        m->bytes -= e->value_len;
        bool set = entry_set(e, value);
        m->bytes += e->value_len;
        return set ? 0 : -ENOMEM;
    }
    e = entry_new(m, key);
    if (!e)
        return -ENOMEM;
    if (!entry_set(e, value)) {
        free(e);
        return -ENOMEM;
    }
    link_in(m, e, &path);
    return 0;
}

void lim__sorted_remove(lim__sorted *m, lim_bytes key)
{
    struct path path;
    find(m, key, false, &path);
    lim__entry *e = *path.link[0];
    if (!e || !lim__bytes_eq(lim__entry_key(e), key))
        return;
    unlink_at(e, &path);
    entry_free(m, e);
}

/* `e` comes from another map, which has forgotten it. */
static void adopt(lim__sorted *m, lim__entry *e, bool forget)
{
    struct path path;
    find(m, lim__entry_key(e), false, &path);
    lim__entry *old = *path.link[0];
    if (old && lim__bytes_eq(lim__entry_key(old), lim__entry_key(e))) {
        unlink_at(old, &path);
        entry_free(m, old);
    }
    link_in(m, e, &path);
    if (forget && e->gone) {
        unlink_at(e, &path);
        entry_free(m, e);
    }
}

void lim__sorted_join(lim__sorted *m, lim__sorted *from, bool forget)
{
    for (lim__entry *e = from->first[0], *next; e; e = next) {
        next = e->next[0];
        adopt(m, e, forget);
    }
    uint64_t chance = from->chance;
    lim__sorted_init(from);
    from->chance = chance;
}
