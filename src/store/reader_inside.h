/* SPDX-License-Identifier: Apache-2.0
 * reader_inside.h - what the two halves of the second reader share: reader.c finds the batches in the files, reader_state.c
 * knows what their ops mean. */
#ifndef LIM__STORE_READER_INSIDE_H
#define LIM__STORE_READER_INSIDE_H

#include "base/base.h"
#include "base/map.h"
#include "store/reader.h"

enum { READER_BLOCK = 4096, READER_BATCH_HEAD = 64, READER_OP_HEAD = 40 };
enum { READER_APPEND = 1, READER_COPY, READER_PUT, READER_DELETE, READER_TRIM, READER_ERASE, READER_DROP, READER_PAGE_BEGIN,
       READER_PAGE, READER_PAGE_END, READER_TOTAL };

typedef struct reader_op {
    uint8_t kind, flag;
    uint16_t key_len;
    uint32_t data_len, payload_crc;
    uint64_t stream, seq, arg; /* arg: or the time */
    const uint8_t *key, *data;
} reader_op;

typedef struct reader_place { /* of a record; `at` 0: it is lost */
    uint64_t seq, segment, at, wall_ns;
    uint32_t key_len, data_len, crc;
    uint32_t order; /* which came later */
} reader_place;

typedef struct reader_stream {
    uint64_t id, first, next; /* first: what is before it is forgotten */
    reader_place *places;
    size_t count, cap;
    uint64_t *erased;
    size_t erased_count, erased_cap;
} reader_stream;

typedef struct reader_row {
    uint64_t order;
    bool gone;
    uint32_t key_len, value_len; /* key: with the table's byte in front */
    uint8_t bytes[];
} reader_row;

typedef struct reader_page {
    uint64_t order;
    size_t from_len, to_len; /* to_len 0: to the end */
    uint8_t *from, *to;
} reader_page;

typedef struct reader_file {
    uint64_t id, nonce, size, first_lsn;
    uint32_t seed;
    bool sealed, usable;
    uint64_t last_lsn; /* sealed */
} reader_file;

struct lim__reader {
    lim__os *os;
    char *dir;
    uint64_t store_id;
    const uint64_t *only;
    uint64_t only_stream;
    lim__reader_odd *odd;
    void *ctx;
    reader_file *files;
    size_t file_count;
    bool failed; /* no memory */

    lim__map streams; /* id -> reader_stream */
    lim__smap rows;   /* key -> reader_row */
    uint64_t order;
    reader_page *pages; /* of the checkpoint that is being read */
    size_t page_count, page_cap;
    uint64_t pages_of, checkpoint; /* the newest whole one */
    uint64_t *listed; /* segments that there must be, by it; 0: dropped since */
    size_t listed_count;
};

static inline uint32_t reader_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t reader_u64(const uint8_t *p)
{
    return reader_u32(p) | (uint64_t)reader_u32(p + 4) << 32;
}
static inline size_t reader_op_size(const reader_op *op)
{
    return (READER_OP_HEAD + (size_t)op->key_len + op->data_len + 7) / 8 * 8;
}

void lim__reader_tell(lim__reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The head of an op, and where its key and data are; false: there is no room for it. No checksum is looked at. */
bool lim__reader_op_at(const uint8_t *at, size_t room, reader_op *op);
/* An op that is good, and that lies at `at` of the segment. */
void lim__reader_apply(lim__reader *r, const reader_op *op, uint64_t segment, uint64_t at);
void lim__reader_applied(lim__reader *r); /* there are no more */
void lim__reader_forget(lim__reader *r);

#endif
