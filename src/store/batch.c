/* SPDX-License-Identifier: Apache-2.0
 * batch.c - what a caller puts into one step, in the form that it will have in the log.
 *
 * The op heads lack what only the store's thread can know (the number of a record, its time, the seal); everything that
 * costs in proportion to the data, copying and its checksum, is done here, by the caller's thread. A batch that ran out
 * of memory or was given something too long remembers that, and submit refuses it. */
#include "store/inside.h"
#include "base/crc32c.h"

#include <errno.h>
#include <stdlib.h>

lim__batch *lim__batch_new(void)
{
    lim__batch *b = malloc(sizeof *b);
    if (!b)
        return NULL;
    memset(b, 0, offsetof(lim__batch, room));
    lim__list_init(&b->node);
    b->ops = (lim__bytes_grow){ .ptr = b->room, .cap = sizeof b->room };
    b->sync = LIM__SYNC_ALWAYS;
    return b;
}

void lim__batch_free(lim__batch *b)
{
    if (!b)
        return;
    LIM_ASSERT(lim__list_empty(&b->node));
    if (b->ops.ptr != b->room)
        free(b->ops.ptr);
    free(b->expects.ptr);
    lim__buf_fini(&b->found);
    free(b);
}

/* Room for n more bytes; NULL: no memory. */
static uint8_t *grow(lim__bytes_grow *g, size_t n, const uint8_t *inside)
{
    if (n <= g->cap - g->len)
        return g->ptr + g->len;
    size_t cap = g->cap < 512 ? 1024 : g->cap * 2;
    cap = cap < g->len + n ? g->len + n : cap;
    bool inside_it = inside != NULL && g->ptr == inside;
    uint8_t *ptr = inside_it ? malloc(cap) : realloc(g->ptr, cap);
    if (!ptr)
        return NULL;
    if (inside_it)
        memcpy(ptr, inside, g->len);
    g->ptr = ptr;
    g->cap = cap;
    return ptr + g->len;
}

lim__op *lim__batch_add(lim__batch *b, lim__op_kind kind, size_t key_len, size_t data_len)
{
    lim__op head = { .kind = (uint8_t)kind, .key_len = (uint16_t)key_len, .data_len = (uint32_t)data_len };
    if (b->error != 0)
        return NULL;
    if (key_len > UINT16_MAX || data_len > LIM__SEGMENT_BYTES_MAX || b->ops.len > LIM__SEGMENT_BYTES_MAX) {
        b->error = -EINVAL;
        return NULL;
    }
    size_t size = lim__op_size(&head);
    uint8_t *at = grow(&b->ops, size, b->room);
    if (!at) {
        b->error = -ENOMEM;
        return NULL;
    }
    memcpy(at, &head, sizeof head);
    memset(at + size - 8, 0, size > LIM__OP_HEAD ? 8 : 0); /* the padding; what is before it will be written */
    b->ops.len += size;
    b->op_count++;
    bool record = kind == LIM__OP_APPEND || kind == LIM__OP_COPY;
    b->append_count += kind == LIM__OP_APPEND;
    b->echo_bytes += record ? LIM__OP_HEAD : kind == LIM__OP_PAGE ? 0 : size;
    return (lim__op *)(void *)at;
}

void lim__batch_finish_op(lim__batch *b, lim__op *op)
{
    (void)b;
    op->payload_crc = lim__crc32c(0, (const uint8_t *)op + LIM__OP_HEAD, (size_t)op->key_len + op->data_len);
}

static void invalid(lim__batch *b)
{
    b->error = b->error ? b->error : -EINVAL;
}

void lim__batch_append(lim__batch *b, uint64_t stream, lim_bytes key, const lim_bytes *parts, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    if (key.len > LIM__STREAM_KEY_MAX) {
        invalid(b);
        return;
    }
    lim__op *op = lim__batch_add(b, LIM__OP_APPEND, key.len, len);
    if (!op)
        return;
    uint8_t *to = (uint8_t *)op + LIM__OP_HEAD;
    op->stream = stream;
    if (key.len > 0)
        memcpy(to, key.ptr, key.len);
    to += key.len;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len > 0)
            memcpy(to, parts[i].ptr, parts[i].len);
        to += parts[i].len;
    }
    lim__batch_finish_op(b, op);
}

/* The i-th append. Where the last search ended is remembered, so that going through all of them is one way. */
static const lim__op *nth_append(const lim__batch *batch, uint32_t i)
{
    lim__batch *b = (lim__batch *)(uintptr_t)batch;
    LIM_ASSERT(i < b->append_count);
    if (i < b->walk_index) {
        b->walk_index = 0;
        b->walk_pos = 0;
    }
    for (size_t pos = b->walk_pos;;) {
        size_t here = pos;
        const lim__op *op = lim__op_next(b->ops.ptr, b->ops.len, &pos);
        LIM_ASSERT(op);
        if (op->kind != LIM__OP_APPEND)
            continue;
        if (b->walk_index == i) {
            b->walk_pos = here;
            return op;
        }
        b->walk_index++;
    }
}

/* `more`: bytes behind the value that somebody fills in; zeros until then. NULL: it was refused. */
static lim__op *add_row(lim__batch *b, lim__op_kind kind, uint8_t table, lim_bytes key, lim_bytes value, size_t more)
{
    if (table >= LIM__TABLES_MAX || key.len > LIM__ROW_KEY_MAX) {
        invalid(b);
        return NULL;
    }
    lim__op *op = lim__batch_add(b, kind, 1 + key.len, value.len + more);
    if (!op)
        return NULL;
    uint8_t *to = (uint8_t *)op + LIM__OP_HEAD;
    *to++ = table;
    if (key.len > 0)
        memcpy(to, key.ptr, key.len);
    if (value.len > 0)
        memcpy(to + key.len, value.ptr, value.len);
    memset(to + key.len + value.len, 0, more);
    lim__batch_finish_op(b, op);
    return op;
}

void lim__batch_put(lim__batch *b, uint8_t table, lim_bytes key, lim_bytes value)
{
    (void)add_row(b, LIM__OP_PUT, table, key, value, 0);
}

void lim__batch_put_seq(lim__batch *b, uint8_t table, lim_bytes key, lim_bytes value, uint32_t append)
{
    if (append >= b->append_count) {
        invalid(b);
        return;
    }
    lim__op *op = add_row(b, LIM__OP_PUT, table, key, value, LIM__STAMP);
    if (!op)
        return;
    op->flag = LIM__OP_STAMPED;
    op->seq = (uint64_t)((const uint8_t *)nth_append(b, append) - b->ops.ptr);
}

void lim__batch_stamp(lim__batch *b, lim__op *op, uint64_t wall_ns)
{
    LIM_ASSERT(op->kind == LIM__OP_PUT && op->flag == LIM__OP_STAMPED && op->data_len >= LIM__STAMP);
    const lim__op *append = (const lim__op *)(const void *)(b->ops.ptr + op->seq);
    uint64_t stamp[2] = { append->seq + (LIM__MUTATION("receipt_of_another_record") ? 1 : 0), wall_ns };
    static_assert(sizeof stamp == LIM__STAMP, "as store.h says");
    memcpy((uint8_t *)op + LIM__OP_HEAD + op->key_len + op->data_len - LIM__STAMP, stamp, sizeof stamp);
    lim__batch_finish_op(b, op);
}

void lim__batch_delete(lim__batch *b, uint8_t table, lim_bytes key)
{
    (void)add_row(b, LIM__OP_DELETE, table, key, lim__bytes(NULL, 0), 0);
}

void lim__batch_expect(lim__batch *b, uint8_t table, lim_bytes key, lim_bytes value)
{
    if (table >= LIM__TABLES_MAX || key.len > LIM__ROW_KEY_MAX || value.len > UINT32_MAX) {
        invalid(b);
        return;
    }
    lim__expect e = { (uint32_t)key.len + 1, (uint32_t)value.len, value.ptr == NULL };
    size_t size = (size_t)lim__up(sizeof e + e.key_len + value.len, 8);
    uint8_t *at = grow(&b->expects, size, NULL);
    if (!at) {
        b->error = b->error ? b->error : -ENOMEM;
        return;
    }
    memcpy(at, &e, sizeof e);
    at += sizeof e;
    *at++ = table;
    if (key.len > 0)
        memcpy(at, key.ptr, key.len);
    if (value.len > 0)
        memcpy(at + key.len, value.ptr, value.len);
    b->expects.len += size;
    b->expect_count++;
}

void lim__batch_expect_last(lim__batch *b, uint64_t stream, uint64_t last)
{
    lim__expect e = { .value_len = 16 };
    uint64_t value[2] = { stream, last };
    size_t size = (size_t)lim__up(sizeof e + sizeof value, 8);
    uint8_t *at = grow(&b->expects, size, NULL);
    if (!at) {
        b->error = b->error ? b->error : -ENOMEM;
        return;
    }
    memcpy(at, &e, sizeof e);
    memcpy(at + sizeof e, value, sizeof value);
    b->expects.len += size;
    b->expect_count++;
}

static void add_number(lim__batch *b, lim__op_kind kind, uint64_t stream, uint64_t seq)
{
    lim__op *op = lim__batch_add(b, kind, 0, 0);
    if (!op)
        return;
    op->stream = stream;
    op->seq = seq;
    lim__batch_finish_op(b, op);
}

void lim__batch_trim(lim__batch *b, uint64_t stream, uint64_t first)
{
    add_number(b, LIM__OP_TRIM, stream, first);
}

void lim__batch_erase(lim__batch *b, uint64_t stream, uint64_t seq)
{
    add_number(b, LIM__OP_ERASE, stream, seq);
}

void lim__batch_drop(lim__batch *b, uint64_t stream)
{
    add_number(b, LIM__OP_TRIM, stream, UINT64_MAX);
}

void lim__batch_small(lim__batch *b)
{
    b->small = true;
}

void lim__batch_sync(lim__batch *b, lim__sync sync)
{
    LIM_ASSERT(sync >= LIM__SYNC_ALWAYS && sync <= LIM__SYNC_NEVER);
    b->sync = sync;
}

uint64_t lim__batch_seq(const lim__batch *b, uint32_t i)
{
    return nth_append(b, i)->seq;
}

uint32_t lim__batch_appends(const lim__batch *b)
{
    return b->append_count;
}

lim_bytes lim__batch_record(const lim__batch *b, uint32_t i, uint64_t *stream, lim_bytes *key)
{
    const lim__op *op = nth_append(b, i);
    if (stream)
        *stream = op->stream;
    if (key)
        *key = lim__op_key(op);
    return lim__op_data(op);
}

bool lim__batch_next(const lim__batch *b, size_t *pos, uint64_t *seq, lim_bytes *data)
{
    const lim__op *op;
    while ((op = lim__op_next(b->ops.ptr, b->ops.len, pos)) != NULL) {
        if (op->kind != LIM__OP_APPEND)
            continue;
        *seq = op->seq;
        *data = lim__op_data(op);
        return true;
    }
    return false;
}

void lim__batch_reserve(lim__batch *b, size_t bytes)
{
    if (bytes > b->ops.cap - b->ops.len)
        (void)grow(&b->ops, bytes, b->room); /* without memory it is tried again when it is needed */
}

void lim__batch_fit(lim__batch *b)
{
    enum { MUCH = 4096 };
    if (b->ops.ptr == b->room || b->ops.cap / 2 < b->ops.len || b->ops.cap - b->ops.len < MUCH)
        return;
    uint8_t *ptr = realloc(b->ops.ptr, b->ops.len);
    if (ptr == NULL)
        return;
    b->ops.ptr = ptr;
    b->ops.cap = b->ops.len;
}

size_t lim__batch_memory(const lim__batch *b)
{
    return sizeof *b + (b->ops.ptr != b->room ? b->ops.cap : 0) + b->expects.cap;
}

size_t lim__batch_bytes(const lim__batch *b)
{
    return b->ops.len;
}
