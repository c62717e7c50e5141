/* SPDX-License-Identifier: Apache-2.0
 * channel_name.c - names of channels, patterns over them, and the ids that stand for channels in public.
 *
 *      name     segment { "." segment }                  segment: one or more of A-Z a-z 0-9 _ -
 *      system   "$" name
 *      pattern  a name in which segments may be "*" (any one segment) and the last one ">" (one or more segments)
 *
 * A wildcard that comes first does not match system names: whoever wants those says "$". Names and patterns are
 * checked here once; everybody else may take a lim__channel_matches of two good ones for granted. */
#include "bus/channel_inside.h"

#include <stdlib.h>

static bool is_letter(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* Length of the segment at `at`, up to the next dot or the end. */
static size_t segment_len(lim_bytes name, size_t at)
{
    const char *dot = memchr((const char *)name.ptr + at, '.', name.len - at);
    return dot ? (size_t)(dot - ((const char *)name.ptr + at)) : name.len - at;
}

static bool segment_ok(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!is_letter((unsigned char)text[i]))
            return false;
    }
    return len > 0;
}

static bool segments_ok(lim_bytes name, bool wildcards)
{
    const char *text = name.ptr;
    if (name.len == 0 || name.len > LIM__NAME_MAX)
        return false;
    for (size_t at = text[0] == '$';; at++) { /* steps over the dot */
        size_t len = segment_len(name, at);
        bool last = at + len == name.len;
        bool wild = wildcards && len == 1 && (text[at] == '*' || (text[at] == '>' && last));
        if (!segment_ok(text + at, len) && (!wild || (at == 1 && text[0] == '$')))
            return false;
        at += len;
        if (last)
            return true;
    }
}

bool lim__channel_name_ok(lim_bytes name)
{
    return segments_ok(name, false);
}

bool lim__channel_pattern_ok(lim_bytes name)
{
    return segments_ok(name, true);
}

bool lim__pattern_is_wild(lim_bytes pattern)
{
    return memchr(pattern.ptr, '*', pattern.len) || memchr(pattern.ptr, '>', pattern.len);
}

/* Both at the start of a segment. */
static bool segments_match(lim_bytes pattern, lim_bytes name)
{
    const char *p = pattern.ptr, *n = name.ptr;
    for (size_t i = 0, j = 0;; i++, j++) {
        size_t plen = segment_len(pattern, i), nlen = segment_len(name, j);
        if (plen == 1 && p[i] == '>')
            return true;
        if (!(plen == 1 && p[i] == '*') && (plen != nlen || memcmp(p + i, n + j, plen) != 0))
            return false;
        i += plen;
        j += nlen;
        if (i == pattern.len || j == name.len)
            return i == pattern.len && j == name.len;
    }
}

bool lim__channel_matches(lim_bytes pattern, lim_bytes name)
{
    if (pattern.len == 0 || name.len == 0)
        return false;
    const char *p = pattern.ptr, *n = name.ptr;
    return (p[0] == '$') == (n[0] == '$') && segments_match(pattern, name);
}

/* ---- counted names ---- */

lim__name *lim__name_new(lim_bytes text)
{
    LIM_ASSERT(text.len <= UINT32_MAX);
    lim__name *name = malloc(sizeof *name + text.len + 1);
    if (!name)
        return NULL;
    atomic_init(&name->refs, 1);
    name->len = (uint32_t)text.len;
    if (text.len > 0)
        memcpy(name->text, text.ptr, text.len);
    name->text[text.len] = 0;
    return name;
}

lim__name *lim__name_ref(lim__name *name)
{
    /* relaxed: the reference that the caller has makes the text visible to it */
    atomic_fetch_add_explicit(&name->refs, 1, memory_order_relaxed);
    return name;
}

void lim__name_unref(lim__name *name)
{
    /* acq_rel: whoever frees comes after everybody's last look */
    if (name && atomic_fetch_sub_explicit(&name->refs, 1, memory_order_acq_rel) == 1)
        free(name);
}

/* ---- ids ---- */

static lim__id_slot *id_slot(const lim__ids *ids, uint64_t index)
{
    if (index >= (uint64_t)LIM__ID_CHUNKS_MAX * LIM__ID_CHUNK)
        return NULL;
    /* acquire: pairs with the release in ids_grow */
    lim__id_slot *chunk = atomic_load_explicit(&ids->chunks[index / LIM__ID_CHUNK], memory_order_acquire);
    return chunk ? &chunk[index % LIM__ID_CHUNK] : NULL;
}

static void ids_free(lim__ids *ids, uint32_t index)
{
    id_slot(ids, index)->next = 0;
    if (ids->free_last)
        id_slot(ids, ids->free_last - 1)->next = index + 1;
    else
        ids->free_first = index + 1;
    ids->free_last = index + 1;
}

static bool ids_grow(lim__ids *ids)
{
    uint32_t index = ids->cap / LIM__ID_CHUNK;
    lim__id_slot *chunk = index < LIM__ID_CHUNKS_MAX ? calloc(LIM__ID_CHUNK, sizeof *chunk) : NULL;
    if (!chunk)
        return false;
    atomic_store_explicit(&ids->chunks[index], chunk, memory_order_release);
    for (uint32_t i = 0; i < LIM__ID_CHUNK; i++) {
        chunk[i].generation = 1; /* so that no id is 0 */
        ids_free(ids, ids->cap++);
    }
    return true;
}

uint64_t lim__ids_take(lim__ids *ids)
{
    if (!ids->free_first && !ids_grow(ids))
        return 0;
    uint32_t index = ids->free_first - 1;
    lim__id_slot *slot = id_slot(ids, index);
    ids->free_first = slot->next;
    if (!ids->free_first)
        ids->free_last = 0;
    return (uint64_t)slot->generation << 32 | (index + 1);
}

void lim__ids_set(lim__ids *ids, uint64_t id, void *object)
{
    /* release: pairs with the acquire in lim__ids_get */
    atomic_store_explicit(&id_slot(ids, (uint32_t)id - 1)->object, object, memory_order_release);
}

void lim__ids_give(lim__ids *ids, uint64_t id)
{
    uint32_t index = (uint32_t)id - 1;
    lim__id_slot *slot = id_slot(ids, index);
    LIM_ASSERT(slot && slot->generation == id >> 32);
    atomic_store_explicit(&slot->object, NULL, memory_order_release);
    if (++slot->generation != 0)
        ids_free(ids, index);
}

void *lim__ids_get(const lim__ids *ids, uint64_t id)
{
    lim__id_slot *slot = (uint32_t)id > 0 ? id_slot(ids, (uint32_t)id - 1) : NULL;
    return slot ? atomic_load_explicit(&slot->object, memory_order_acquire) : NULL;
}

void lim__ids_fini(lim__ids *ids)
{
    for (size_t i = 0; i < LIM__ID_CHUNKS_MAX; i++)
        free(atomic_load_explicit(&ids->chunks[i], memory_order_relaxed));
    memset(ids, 0, sizeof *ids);
}
