/* SPDX-License-Identifier: Apache-2.0
 * buf.h - a growable byte buffer with one reading end; what connections write into and JSON is built in.
 *
 *      ptr          ptr+start        ptr+end          ptr+cap
 *       | consumed   | content        | room           |
 *
 * Failure to grow sets `failed` and drops the append; check it once at the end. */
#ifndef LIM__BUF_H
#define LIM__BUF_H

#include <liminal/types.h>

typedef struct lim__buf {
    uint8_t *ptr;
    size_t start, end, cap;
    bool failed;
} lim__buf;

void lim__buf_fini(lim__buf *b); /* also makes it empty and usable again */
/* Room for n more bytes at ptr+end; NULL and failed: no memory. Advance with b->end += n. */
uint8_t *lim__buf_reserve(lim__buf *b, size_t n);
void lim__buf_add(lim__buf *b, const void *bytes, size_t n);
void lim__buf_text(lim__buf *b, const char *text);
void lim__buf_format(lim__buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lim__buf_consume(lim__buf *b, size_t n); /* frees the memory when empty and larger than 64 KiB */
static inline size_t lim__buf_len(const lim__buf *b)
{
    return b->end - b->start;
}
static inline lim_bytes lim__buf_bytes(const lim__buf *b)
{
    return (lim_bytes){ b->ptr + b->start, b->end - b->start };
}

bool lim__text_ok(lim_bytes text); /* is it UTF-8? */

/* ---- JSON text, written straight into a buffer: commas and nesting are the writer's business ----
 *   lim__json j = lim__json_begin(&buf); lim__json_open(&j, '{'); lim__json_str(&j, "name", value); ...close(&j) */
typedef struct lim__json {
    lim__buf *buf;
    uint64_t has_item; /* one bit per level: needs a comma before the next item */
    uint32_t depth;    /* at most 63 */
    uint8_t kind[64];
} lim__json;
lim__json lim__json_begin(lim__buf *buf);
/* `key` is NULL inside an array or at the top. */
void lim__json_open(lim__json *j, const char *key, char bracket); /* '{' or '[' */
void lim__json_close(lim__json *j);
void lim__json_bytes(lim__json *j, const char *key, lim_bytes text); /* escaped; invalid UTF-8 becomes U+FFFD */
void lim__json_str(lim__json *j, const char *key, const char *text); /* NULL: null */
void lim__json_u64(lim__json *j, const char *key, uint64_t n);
void lim__json_i64(lim__json *j, const char *key, int64_t n);
void lim__json_f64(lim__json *j, const char *key, double n);
void lim__json_bool(lim__json *j, const char *key, bool b);
void lim__json_raw(lim__json *j, const char *key, lim_bytes json); /* already JSON */

#endif
