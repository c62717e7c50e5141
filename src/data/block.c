/* SPDX-License-Identifier: Apache-2.0
 * block.c - making blocks: block.h has their form. */
#include "data/block.h"

#include <stdlib.h>

lim__block *lim__block_new(uint32_t cap)
{
    lim__block *b = malloc(sizeof *b + cap);
    if (b == NULL)
        return NULL;
    *b = (lim__block){ .cap = cap };
    atomic_init(&b->refs, 1);
    return b;
}

lim__block *lim__block_ref(lim__block *b)
{
    if (b != NULL)
        atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void lim__block_unref(lim__block *b)
{
    /* acq_rel: what others did with it is over before it is freed */
    if (b != NULL && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
        free(b);
}

static uint8_t *put(uint8_t *at, lim_bytes bytes)
{
    if (bytes.len > 0)
        memcpy(at, bytes.ptr, bytes.len);
    return at + bytes.len;
}

static uint8_t *put16(uint8_t *at, size_t v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
    return at + 2;
}

/* The headers with one more in front; the count of the others is their first two bytes. */
static uint8_t *put_keyed(uint8_t *at, lim_bytes key, lim_bytes headers)
{
    const uint8_t *others = headers.ptr;
    size_t count = headers.len >= 2 ? (size_t)others[0] << 8 | others[1] : 0;
    at = put16(at, count + 1);
    *at++ = 4;
    at = put(at, lim__str("$key"));
    at = put(put16(at, key.len), key);
    return headers.len > 2 ? put(at, lim__bytes(others + 2, headers.len - 2)) : at;
}

bool lim__block_add(lim__block *b, lim_bytes key, lim_bytes headers, lim_bytes payload)
{
    LIM_ASSERT(headers.len == 0 || headers.len >= 2);
    size_t more = key.len == 0 ? 0 : 1 + 4 + 2 + key.len + (headers.len == 0 ? 2 : 0);
    size_t head = headers.len + more, len = head + payload.len, room = b->cap - b->len;
    if (head > UINT16_MAX || payload.len > room || room - payload.len < LIM__BLOCK_HEAD + head)
        return false;
    uint8_t *at = b->bytes + b->len;
    uint32_t swapped = __builtin_bswap32((uint32_t)len);
    memcpy(at, &swapped, sizeof swapped);
    at = put16(at + sizeof swapped, head);
    at = key.len > 0 ? put_keyed(at, key, headers) : put(at, headers);
    put(at, payload);
    b->len += LIM__BLOCK_HEAD + (uint32_t)len;
    b->count++;
    return true;
}
