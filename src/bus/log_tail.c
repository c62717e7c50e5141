/* SPDX-License-Identifier: Apache-2.0
 * log_tail.c - the newest messages of a log in memory.
 *
 *      ring of pieces:  | one | one | block of 96 | one | block of 400 |        oldest ... `last`
 *
 * It is what readers that keep up are fed from: they do not touch the disk. A piece is a message, or the block in which
 * many were stored at once, as it lies in the log: whoever sends bytes walks that, and whoever wants messages gets them
 * made, once for all readers. Whatever cannot be kept here (no memory) is dropped from it, never from the log: a reader
 * that does not find it in the tail reads the store. log_inside.h has the invariants. */
#include "bus/log_inside.h"

#include <stdlib.h>

/* ---- blocks ---- */

lim__log_block *lim__log_block_new(void)
{
    lim__log_block *b = calloc(1, sizeof *b);
    if (b != NULL)
        atomic_init(&b->refs, 1);
    return b;
}

void lim__log_block_stored(lim__log_block *b, lim__batch *batch, uint64_t wall_ns)
{
    b->first = lim__batch_seq(batch, 0);
    b->wall_ns = wall_ns;
    b->count = lim__batch_appends(batch);
    b->cost = sizeof *b + lim__batch_memory(batch);
    b->batch = batch;
}

void lim__log_block_unref(lim__log_block *b)
{
    if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (uint32_t i = 0; b->made != NULL && i < b->count; i++)
        if (b->made[i] != NULL)
            lim__msg_unref(b->made[i]);
    free(b->made);
    lim__batch_free(b->batch);
    free(b);
}

bool lim__log_block_next(const lim__log_block *b, size_t *pos, lim__log_view *out)
{
    lim__log_record r;
    lim_bytes data;
    if (!lim__batch_next(b->batch, pos, &out->seq, &data))
        return false;
    bool whole = lim__log_record_read(data, &r);
    LIM_ASSERT(whole); /* we have made it */
    out->headers = r.headers;
    out->payload = r.payload;
    return true;
}

/* ---- pieces ---- */

static lim__log_piece *piece_at(const lim__log *log, uint32_t i)
{
    return &log->tail[(log->tail_head + i) & (log->tail_cap - 1)];
}

static uint64_t first_of(const lim__log_piece *p)
{
    return p->block != NULL ? p->block->first : p->one.seq;
}

static uint32_t count_of(const lim__log_piece *p)
{
    return p->block != NULL ? p->block->count : 1;
}

static uint64_t cost_of(const lim__log_piece *p)
{
    return p->block != NULL ? p->block->cost : lim__msg_cost(p->one.msg);
}

static void evict(lim__log *log)
{
    lim__log_piece oldest = *piece_at(log, 0);
    uint64_t cost = cost_of(&oldest);
    log->tail_bytes -= cost;
    atomic_fetch_sub_explicit(&log->bus->logs->tail_bytes, cost, memory_order_relaxed);
    log->tail_head = (log->tail_head + 1) & (log->tail_cap - 1);
    log->tail_pieces--;
    log->tail_count -= count_of(&oldest);
    lim__log_block_unref(oldest.block);
    if (oldest.block == NULL)
        lim__msg_unref(oldest.one.msg);
}

static void clear(lim__log *log)
{
    while (log->tail_pieces > 0)
        evict(log);
}

void lim__tail_fini(lim__log *log)
{
    clear(log);
    free(log->tail);
    log->tail = NULL;
}

static bool reserve(lim__log *log)
{
    if (log->tail_pieces < log->tail_cap)
        return true;
    uint32_t cap = log->tail_cap > 0 ? log->tail_cap * 2 : 16;
    lim__log_piece *tail = malloc(cap * sizeof *tail);
    if (tail == NULL)
        return false;
    for (uint32_t i = 0; i < log->tail_pieces; i++)
        tail[i] = *piece_at(log, i);
    free(log->tail);
    log->tail = tail;
    log->tail_cap = cap;
    log->tail_head = 0;
    return true;
}

/* As many stay as the limits allow, and the newest piece always does unless it alone is over the bytes. */
static void spend(lim__log *log, uint64_t cost)
{
    lim__logs *all = log->bus->logs;
    log->tail_bytes += cost;
    uint64_t sum = atomic_fetch_add_explicit(&all->tail_bytes, cost, memory_order_relaxed) + cost;
    uint64_t most = sum > LIM__LOG_TAILS_BYTES ? LIM__LOG_TAIL_LITTLE : LIM__LOG_TAIL_BYTES;
    while (log->tail_bytes > most && log->tail_pieces > 0)
        evict(log);
}

/* L2: what does not follow the newest empties it first. */
static bool make_place(lim__log *log, uint64_t first)
{
    lim__logs *all = log->bus->logs;
    uint32_t most = all->tail_max != 0 ? all->tail_max : LIM__LOG_TAIL_MAX;
    if (first != log->last + 1)
        clear(log);
    while (log->tail_pieces > 0 && log->tail_count - count_of(piece_at(log, 0)) + 1 >= most)
        evict(log);
    return reserve(log);
}

static void push(lim__log *log, lim__log_piece piece)
{
    *piece_at(log, log->tail_pieces++) = piece;
    log->tail_count += count_of(&piece);
    spend(log, cost_of(&piece));
}

void lim__tail_push(lim__log *log, const lim__logged *m)
{
    if (m->msg == NULL || !make_place(log, m->seq)) {
        clear(log);
        return;
    }
    lim__msg_ref(m->msg);
    push(log, (lim__log_piece){ .one = *m });
}

void lim__tail_push_block(lim__log *log, lim__log_block *block)
{
    if (!make_place(log, block->first)) {
        clear(log);
        return;
    }
    atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    push(log, (lim__log_piece){ .block = block });
}

/* ---- looking ---- */

/* The piece that has number `from`; false: none has. */
static bool find(const lim__log *log, uint64_t from, uint32_t *out)
{
    uint32_t low = 0, high = log->tail_pieces;
    if (from < log->first || from > log->last || from < log->last + 1 - log->tail_count)
        return false;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (first_of(piece_at(log, middle)) <= from)
            low = middle;
        else
            high = middle;
    }
    *out = low;
    return true;
}

lim__log_block *lim__log_tail_block(lim__log *log, uint64_t from)
{
    uint32_t i;
    lim__log_block *block = NULL;
    lim__lock(&log->lock);
    if (find(log, from, &i))
        block = piece_at(log, i)->block;
    if (block != NULL)
        atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    lim__unlock(&log->lock);
    return block;
}

/* What was made is counted: it goes with the block. */
static lim__msg *made(lim__log *log, lim__log_block *block, const lim__log_view *v)
{
    lim__msg **at;
    if (block->made == NULL)
        block->made = calloc(block->count, sizeof(lim__msg *));
    if (block->made == NULL)
        return NULL;
    at = &block->made[v->seq - block->first];
    if (*at == NULL && (*at = lim__msg_new_with(v->payload, v->headers)) != NULL) {
        uint64_t cost = lim__msg_cost(*at);
        block->cost += cost;
        log->tail_bytes += cost;
        atomic_fetch_add_explicit(&log->bus->logs->tail_bytes, cost, memory_order_relaxed);
    }
    return *at;
}

/* Up to `max` messages of a block, from number `from` on; fewer: no memory. */
static uint32_t out_of_block(lim__log *log, lim__log_block *block, uint64_t from, lim__logged *out, uint32_t max)
{
    uint32_t n = 0;
    lim__log_view v;
    for (size_t pos = 0; n < max && lim__log_block_next(block, &pos, &v);) {
        if (v.seq < from)
            continue;
        lim__msg *msg = made(log, block, &v);
        if (msg == NULL)
            return n;
        out[n++] = (lim__logged){ .seq = v.seq, .wall_ns = block->wall_ns, .msg = msg };
    }
    return n;
}

uint32_t lim__log_tail(lim__log *log, uint64_t from, lim__logged *out, uint32_t max)
{
    uint32_t n = 0, i;
    lim__lock(&log->lock);
    bool any = find(log, from, &i);
    for (; any && i < log->tail_pieces && n < max; i++) {
        lim__log_piece *p = piece_at(log, i);
        uint32_t before = n;
        if (p->block != NULL)
            n += out_of_block(log, p->block, from + n, out + n, max - n);
        else
            out[n++] = p->one;
        any = n > before;
    }
    for (uint32_t k = 0; k < n; k++)
        lim__msg_ref(out[k].msg);
    lim__unlock(&log->lock);
    return n;
}

void lim__tail_check(const lim__log *log)
{
    uint32_t count = 0;
    uint64_t bytes = 0, next = log->last + 1 - log->tail_count;
    LIM_ASSERT(log->tail_pieces <= log->tail_cap);
    for (uint32_t i = 0; i < log->tail_pieces; i++) { /* L2 */
        const lim__log_piece *p = piece_at(log, i);
        LIM_ASSERT(first_of(p) == next && count_of(p) > 0);
        next += count_of(p);
        count += count_of(p);
        bytes += cost_of(p);
    }
    LIM_ASSERT(count == log->tail_count && bytes == log->tail_bytes);
}
