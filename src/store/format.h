/* SPDX-License-Identifier: Apache-2.0
 * format.h - the bytes of the log. docs/internals/store.md says the same to somebody who writes a reader.
 *
 *   segment   [ header block 4096 ][ log batch ][ log batch ] ... [ not yet written ]
 *   log batch [ head 64 ][ ops ][ echo ][ zeros ][ foot 64 ]      a multiple of 4096, at a multiple of 4096
 *   op        [ op head 40 ][ key ][ data ][ zeros to 8 ]
 *
 * All numbers are little-endian. A log batch is good when its head and its payload (ops and echo) have the right
 * checksums. These begin with the segment's seed, which is drawn for each life of a segment's file, so that nothing from
 * an earlier life, and nothing that somebody put into a record, can pass for a batch (J5).
 *
 * What is there twice, so that one place that went bad does not make a whole batch unreadable:
 *   - the foot is the head again: with a bad head, it says where the batch begins;
 *   - the echo has every op again except records and checkpoint pages; of records it has how many there were of which
 *     stream. So a lost record has a name, and a lost change of a row is not lost;
 *   - each op has a checksum of its own, and can be found again behind one that is bad. */
#ifndef LIM__STORE_FORMAT_H
#define LIM__STORE_FORMAT_H

#include <assert.h>

#include "base/base.h"
#include "os/os.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures are written as they are");

enum {
    LIM__FORMAT_VERSION = 1,
    LIM__SEGMENT_BYTES_MIN = 64 << 10,
    LIM__SEGMENT_BYTES_MAX = 1 << 30,
    LIM__BATCH_HEAD = 64,
    LIM__OP_HEAD = 40,
};
#define LIM__SEGMENT_MAGIC 0x3130676573636d6cull /* "lmcseg01" */
#define LIM__HEAD_MAGIC    0x424d494cu           /* "LIMB" */
#define LIM__FOOT_MAGIC    0x464d494cu           /* "LIMF" */

/* At the beginning of a segment, and once more at LIM__SEGMENT_COPY. */
enum { LIM__SEGMENT_COPY = 2048 };
typedef struct lim__segment_head {
    uint64_t magic;
    uint32_t crc, version; /* crc: of what follows it */
    uint64_t store_id;     /* drawn when the store was made */
    uint64_t id, nonce;    /* nonce: drawn for this life of the file */
    uint64_t size;
} lim__segment_head;
static_assert(sizeof(lim__segment_head) == 48, "layout");

/* Written into the same block when the segment is full, twice: so that what should be in it is known even when the
 * segments around it are gone. */
#define LIM__SEAL_MAGIC 0x4c414553u /* "SEAL" */
enum { LIM__SEAL_AT = 1024, LIM__SEAL_COPY = 3072 };
typedef struct lim__segment_seal {
    uint32_t magic, crc; /* crc: seeded, of what follows it */
    uint64_t last_lsn;   /* 0: there is no batch in it */
    uint64_t end;        /* behind the last batch */
} lim__segment_seal;
static_assert(sizeof(lim__segment_seal) == 24, "layout");

typedef struct lim__batch_head {
    uint32_t magic, crc; /* crc: seeded, of what follows it */
    uint64_t segment, lsn;
    uint64_t synced_lsn; /* up to here the log was on stable storage when this was written */
    uint64_t wall_ns;
    uint32_t length;      /* of ops and echo */
    uint32_t ops_length;  /* of the ops */
    uint32_t count;       /* of ops, without the echo */
    uint32_t payload_crc; /* seeded, of ops and echo */
    uint32_t echo_crc;    /* seeded, of the echo */
    uint32_t flags;       /* LIM__BATCH_* */
} lim__batch_head;
static_assert(sizeof(lim__batch_head) == LIM__BATCH_HEAD, "layout");
enum { LIM__BATCH_CLOSE = 1 }; /* the store was closed behind it: nothing was being written */

typedef enum lim__op_kind {
    LIM__OP_APPEND = 1, /* a record: stream, seq, wall_ns; key, data */
    LIM__OP_COPY,       /* the same record, moved here from a segment that is about to go */
    LIM__OP_PUT,        /* a row: key is the table's number (a byte) and the row's key; data is the value */
    LIM__OP_DELETE,     /* a row */
    LIM__OP_TRIM,       /* stream: forget the records before seq */
    LIM__OP_ERASE,      /* stream, seq: forget it; arg: the segment in which it was (0: in this one) */
    LIM__OP_DROP,       /* seq: a segment whose file goes now */
    LIM__OP_PAGE_BEGIN, /* a checkpoint begins; seq: its number (the lsn of this batch) */
    LIM__OP_PAGE,       /* seq: the checkpoint's number. Between two keys the rows and streams are these, no others */
    LIM__OP_PAGE_END,   /* seq: the checkpoint's number. data: the ids of the sealed segments; 0: nothing */
    LIM__OP_TOTAL,      /* only in the echo: seq..seq+arg-1 of the stream were appended (flag 0) or copied (flag 1) */
    LIM__OP_KINDS
} lim__op_kind;

typedef struct lim__op {
    uint32_t crc; /* seeded, of the rest of the head */
    uint8_t kind, flag;
    uint16_t key_len;
    uint32_t data_len, payload_crc; /* payload_crc: of key and data, not seeded */
    uint64_t stream, seq;
    uint64_t wall_ns; /* or arg */
} lim__op;
static_assert(sizeof(lim__op) == LIM__OP_HEAD, "layout");

static inline uint64_t lim__up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}
static inline size_t lim__op_size(const lim__op *op)
{
    return (size_t)lim__up((uint64_t)LIM__OP_HEAD + op->key_len + op->data_len, 8);
}
static inline lim_bytes lim__op_key(const lim__op *op)
{
    return lim__bytes((const uint8_t *)op + LIM__OP_HEAD, op->key_len);
}
static inline lim_bytes lim__op_data(const lim__op *op)
{
    return lim__bytes((const uint8_t *)op + LIM__OP_HEAD + op->key_len, op->data_len);
}
/* Of a whole log batch, padding included. */
static inline uint64_t lim__batch_total(const lim__batch_head *h)
{
    return lim__up((uint64_t)LIM__BATCH_HEAD + h->length + LIM__BATCH_HEAD, LIM__FILE_BLOCK);
}

uint32_t lim__segment_seed(uint64_t store_id, uint64_t id, uint64_t nonce);
void lim__segment_head_make(void *block, uint64_t store_id, uint64_t id, uint64_t nonce, uint64_t size);
/* Either copy. 0; -ENOTSUP: a newer version; -EBADMSG: neither is good. */
int lim__segment_head_read(const void *block, lim__segment_head *out);

/* Which life of which segment bytes belong to. */
typedef struct lim__seal {
    uint64_t segment;
    uint32_t seed;
} lim__seal;

void lim__segment_seal_make(void *block, lim__seal seal, uint64_t last_lsn, uint64_t end);
bool lim__segment_seal_read(const void *block, lim__seal seal, lim__segment_seal *out); /* false: it is not sealed */

void lim__op_seal(lim__op *op, lim__seal seal);
/* Does an op with the right checksums begin here? `room`: bytes there are. */
bool lim__op_good(const void *at, size_t room, lim__seal seal);
/* The op at *pos of ops, and *pos behind it; NULL at the end. For good batches only: of the lengths, nothing is believed. */
const lim__op *lim__op_next(const uint8_t *ops, size_t len, size_t *pos);

/* `batch` is LIM__BATCH_HEAD bytes, h->length bytes of payload with unsealed ops, and room up to lim__batch_total. Seals
 * the ops, pads, and writes head and foot. Can be done again with another seal. */
void lim__batch_seal(uint8_t *batch, const lim__batch_head *h, lim__seal seal);
/* The last LIM__BATCH_HEAD bytes of a batch with this head, as batch_seal makes them. */
void lim__batch_foot(uint8_t *at, const lim__batch_head *h, lim__seal seal);
bool lim__head_good(const void *at, uint64_t room, lim__seal seal, uint32_t magic);
bool lim__payload_good(const uint8_t *batch, lim__seal seal); /* its head is good and all of it is there */

#endif
