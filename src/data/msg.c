/* SPDX-License-Identifier: Apache-2.0
 * msg.c - a message's bytes: one block, counted, never changed after it was made.
 *
 * Fan-out costs a count, not a copy. The count is the only thing that is written after lim__msg_new returned, so any
 * thread may read the bytes while it holds a reference.
 *
 * Invariants:
 *   D1  refs > 0 while anybody can reach the block; who brings it to 0 frees it, and nobody can have taken a new
 *       reference by then, because taking one needs one. */
#include "data/data.h"

#include <stdatomic.h>
#include <stdlib.h>

struct lim__msg {
    _Atomic uint32_t refs; /* any thread */
    uint32_t headers_len;  /* from here on: set once before publication */
    size_t payload_len;
    uint8_t bytes[]; /* payload, then headers */
};

static void copy(uint8_t *to, lim_bytes from)
{
    if (from.len > 0)
        memcpy(to, from.ptr, from.len);
}

lim__msg *lim__msg_new_with(lim_bytes payload, lim_bytes headers)
{
    if (headers.len > UINT32_MAX || payload.len > SIZE_MAX / 2)
        return NULL;
    lim__msg *m = malloc(sizeof *m + payload.len + headers.len);
    if (m == NULL)
        return NULL;
    atomic_init(&m->refs, 1);
    m->headers_len = (uint32_t)headers.len;
    m->payload_len = payload.len;
    copy(m->bytes, payload);
    copy(m->bytes + payload.len, headers);
    return m;
}

lim__msg *lim__msg_new(lim_bytes payload)
{
    return lim__msg_new_with(payload, (lim_bytes){ NULL, 0 });
}

lim__msg *lim__msg_ref(lim__msg *m)
{
    if (m == NULL)
        return NULL;
    /* relaxed: the reference the caller already has makes the block visible to it */
    uint32_t before = atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    LIM_ASSERT(before > 0 && before < UINT32_MAX);
    return m;
}

void lim__msg_unref(lim__msg *m)
{
    if (m == NULL)
        return;
    /* release and acquire: everybody's last read happens before the free */
    uint32_t before = atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel);
    LIM_ASSERT(before > 0);
    if (before == 1)
        free(m);
}

lim_bytes lim__msg_bytes(const lim__msg *m)
{
    return (lim_bytes){ m->bytes, m->payload_len };
}

lim_bytes lim__msg_headers(const lim__msg *m)
{
    return (lim_bytes){ m->bytes + m->payload_len, m->headers_len };
}

size_t lim__msg_cost(const lim__msg *m)
{
    return sizeof *m + m->payload_len + m->headers_len;
}
