/* SPDX-License-Identifier: Apache-2.0
 * format.c - making and checking the bytes of the log; see format.h for what they are.
 *
 * Everything that reads is given how many bytes there are and believes no length beyond that: these bytes come from a
 * disk. Nothing here does input or output. */
#include "store/format.h"
#include "base/crc32c.h"

#include <errno.h>

uint32_t lim__segment_seed(uint64_t store_id, uint64_t id, uint64_t nonce)
{
    uint64_t words[3] = { store_id, id, nonce };
    if (LIM__MUTATION("segment_seed_unchecked"))
        return 0;
    return lim__crc32c(0, words, sizeof words);
}

static uint32_t segment_head_crc(const lim__segment_head *h)
{
    size_t from = offsetof(lim__segment_head, version);
    return lim__crc32c(0, (const uint8_t *)h + from, sizeof *h - from);
}

void lim__segment_head_make(void *block, uint64_t store_id, uint64_t id, uint64_t nonce, uint64_t size)
{
    lim__segment_head h = { .magic = LIM__SEGMENT_MAGIC,
                            .version = LIM__FORMAT_VERSION,
                            .store_id = store_id,
                            .id = id,
                            .nonce = nonce,
                            .size = size };
    h.crc = segment_head_crc(&h);
    memset(block, 0, LIM__FILE_BLOCK);
    memcpy(block, &h, sizeof h);
    memcpy((uint8_t *)block + LIM__SEGMENT_COPY, &h, sizeof h);
}

int lim__segment_head_read(const void *block, lim__segment_head *out)
{
    for (int copy = 0; copy < 2; copy++) {
        memcpy(out, (const uint8_t *)block + (copy ? LIM__SEGMENT_COPY : 0), sizeof *out);
        if (out->magic == LIM__SEGMENT_MAGIC && out->crc == segment_head_crc(out))
            return out->version > LIM__FORMAT_VERSION ? -ENOTSUP : 0;
    }
    return -EBADMSG;
}

static uint32_t segment_seal_crc(const lim__segment_seal *x, lim__seal seal)
{
    size_t from = offsetof(lim__segment_seal, last_lsn);
    return lim__crc32c(seal.seed, (const uint8_t *)x + from, sizeof *x - from);
}

void lim__segment_seal_make(void *block, lim__seal seal, uint64_t last_lsn, uint64_t end)
{
    lim__segment_seal x = { .magic = LIM__SEAL_MAGIC, .last_lsn = last_lsn, .end = end };
    x.crc = segment_seal_crc(&x, seal);
    memcpy((uint8_t *)block + LIM__SEAL_AT, &x, sizeof x);
    memcpy((uint8_t *)block + LIM__SEAL_COPY, &x, sizeof x);
}

bool lim__segment_seal_read(const void *block, lim__seal seal, lim__segment_seal *out)
{
    for (int copy = 0; copy < 2; copy++) {
        memcpy(out, (const uint8_t *)block + (copy ? LIM__SEAL_COPY : LIM__SEAL_AT), sizeof *out);
        if (out->magic == LIM__SEAL_MAGIC && out->crc == segment_seal_crc(out, seal))
            return true;
    }
    return false;
}

/* ---- ops ---- */

static uint32_t op_crc(const lim__op *op, lim__seal seal)
{
    size_t from = offsetof(lim__op, kind);
    return lim__crc32c(seal.seed, (const uint8_t *)op + from, LIM__OP_HEAD - from);
}

void lim__op_seal(lim__op *op, lim__seal seal)
{
    op->crc = op_crc(op, seal);
}

bool lim__op_good(const void *at, size_t room, lim__seal seal)
{
    lim__op op;
    if (room < LIM__OP_HEAD)
        return false;
    memcpy(&op, at, sizeof op);
    if (op.kind == 0 || op.kind >= LIM__OP_KINDS || lim__op_size(&op) > room || op.crc != op_crc(&op, seal))
        return false;
    return lim__crc32c(0, (const uint8_t *)at + LIM__OP_HEAD, (size_t)op.key_len + op.data_len) == op.payload_crc;
}

const lim__op *lim__op_next(const uint8_t *ops, size_t len, size_t *pos)
{
    if (*pos >= len || len - *pos < LIM__OP_HEAD)
        return NULL;
    const lim__op *op = (const lim__op *)(const void *)(ops + *pos);
    if (lim__op_size(op) > len - *pos)
        return NULL;
    *pos += lim__op_size(op);
    return op;
}

/* ---- log batches ---- */

static uint32_t head_crc(const lim__batch_head *h, lim__seal seal)
{
    size_t from = offsetof(lim__batch_head, segment);
    return lim__crc32c(seal.seed, (const uint8_t *)h + from, LIM__BATCH_HEAD - from);
}

void lim__batch_seal(uint8_t *batch, const lim__batch_head *h, lim__seal seal)
{
    lim__batch_head head = *h;
    uint8_t *payload = batch + LIM__BATCH_HEAD;
    uint64_t total = lim__batch_total(h), used = (uint64_t)LIM__BATCH_HEAD + h->length;
    for (size_t pos = 0; pos < h->length;) {
        lim__op *op = (lim__op *)(void *)(payload + pos);
        lim__op_seal(op, seal);
        pos += lim__op_size(op);
    }
    memset(batch + used, 0, (size_t)(total - used));
    head.segment = seal.segment;
    head.payload_crc = lim__crc32c(seal.seed, payload, h->length);
    head.echo_crc = lim__crc32c(seal.seed, payload + h->ops_length, h->length - h->ops_length);
    lim__batch_foot(batch + total - LIM__BATCH_HEAD, &head, seal);
    head.crc = head_crc(&head, seal);
    head.magic = LIM__HEAD_MAGIC;
    memcpy(batch, &head, sizeof head);
}

void lim__batch_foot(uint8_t *at, const lim__batch_head *h, lim__seal seal)
{
    lim__batch_head foot = *h;
    foot.crc = head_crc(&foot, seal);
    foot.magic = LIM__FOOT_MAGIC;
    memcpy(at, &foot, sizeof foot);
}

bool lim__head_good(const void *at, uint64_t room, lim__seal seal, uint32_t magic)
{
    lim__batch_head h;
    if (room < LIM__BATCH_HEAD)
        return false;
    memcpy(&h, at, sizeof h);
    bool mine = h.segment == seal.segment || LIM__MUTATION("segment_seed_unchecked");
    return h.magic == magic && mine && h.crc == head_crc(&h, seal) && h.ops_length <= h.length;
}

bool lim__payload_good(const uint8_t *batch, lim__seal seal)
{
    lim__batch_head h;
    memcpy(&h, batch, sizeof h);
    return lim__crc32c(seal.seed, batch + LIM__BATCH_HEAD, h.length) == h.payload_crc;
}
