/* SPDX-License-Identifier: Apache-2.0
 * reader.h - a second reader of a store's files, written from docs/internals/store.md and from nothing else.
 *
 * It shares no line with the code that writes the log and recovers from it: an error in one of the two shows as a difference
 * between them. `liminal store dump` is this reader, and tests hold it against what the store itself says. It looks at the
 * log only, never at LMDB; it changes nothing and takes no lock.
 *
 * All of the log is walked once when it is opened; what stays in memory is where each living record is (48 bytes) and the
 * rows. Single owner. 0 or a negative errno where it is an int. */
#ifndef LIM__STORE_READER_H
#define LIM__STORE_READER_H

#include <liminal/types.h>
#include "os/os.h"

typedef struct lim__reader lim__reader;
typedef void lim__reader_odd(void *ctx, const char *line); /* something that is not as the document says; a line */

typedef struct lim__reader_record {
    uint64_t stream, seq, wall_ns;
    lim_bytes key, data; /* VIEWS during the call */
    bool lost;           /* it should be there: only its number is known, wall_ns is 0, key and data are empty */
} lim__reader_record;
typedef struct lim__reader_stream {
    uint64_t id, first, next, count, bytes; /* as lim__stream_info has them; those that are lost count, too */
} lim__reader_stream;

/* `only`: remembers the records of this stream alone; NULL: of all. -ENOENT: there is no store; -ENOTSUP: a newer version;
 * -EIO, -ENOMEM. What is damaged is told by `odd`, now and when records are read. */
int lim__reader_open(lim__os *os, const char *dir, const uint64_t *only, lim__reader_odd *odd, void *ctx, lim__reader **out);
void lim__reader_close(lim__reader *r);
/* By stream, then by number, until `each` answers false. */
int lim__reader_records(lim__reader *r, bool (*each)(void *ctx, const lim__reader_record *record), void *ctx);
/* By table, then by key, in byte order. */
int lim__reader_rows(lim__reader *r, bool (*each)(void *ctx, uint8_t table, lim_bytes key, lim_bytes value), void *ctx);
int lim__reader_streams(lim__reader *r, bool (*each)(void *ctx, const lim__reader_stream *stream), void *ctx);

#endif
