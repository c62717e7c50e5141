/* SPDX-License-Identifier: Apache-2.0
 * scan.h - reading a segment back: every log batch that is in it, whole or in parts. */
#ifndef LIM__STORE_SCAN_H
#define LIM__STORE_SCAN_H

#include "store/segment.h"

typedef struct lim__scan {
    lim__segments *segments;
    uint8_t *buf; /* of the segment that is being read, from `from` on */
    size_t cap, len;
    uint64_t from;
} lim__scan;

typedef struct lim__scan_visitor {
    /* A good batch (damaged: only its length and its lsn are known to be right), where it is and where it ends. */
    void (*batch)(void *ctx, lim__segment *s, uint64_t at, const lim__batch_head *h, const uint8_t *payload, bool damaged);
    /* A place that went bad. lost: the batches first..last are not there at all. */
    void (*damage)(void *ctx, lim__segment *s, uint64_t at, uint64_t first, uint64_t last, bool lost, const char *what);
    void *ctx;
} lim__scan_visitor;

typedef struct lim__scan_end {
    uint64_t expect; /* the lsn that was not found */
    uint64_t end;    /* behind the last batch */
    bool closed;     /* that one was written by close */
    bool ghosts;     /* batches behind it that were never on stable storage: they are not in the log */
} lim__scan_end;

void lim__scan_fini(lim__scan *sc);
/* Visits the batches from `from` on; the first should have the lsn `expect`. `limit`: the lsn with which the next segment
 * that has any begins, 0: this is the last. 0; -EIO: a part could not be read that may be the end of the log; -errno. */
int lim__scan_segment(lim__scan *sc, lim__segment *s, uint64_t from, uint64_t expect, uint64_t limit,
                      const lim__scan_visitor *v, lim__scan_end *end);
/* The lsn of its first batch, 0: there is none. 0 or -errno. */
int lim__scan_first_lsn(lim__scan *sc, lim__segment *s, uint64_t *lsn);

/* The ops of a damaged batch that are still good, each where it lies (the echo has no place: at 0). `records`: only these
 * are called for: records and pages; then what is missing of records (total), then all others. True: nothing else was in it. */
typedef void lim__scan_op(void *ctx, uint64_t at, const lim__op *op);
bool lim__scan_save(const lim__batch_head *h, const uint8_t *payload, uint64_t at, lim__seal seal, lim__scan_op *each,
                    void *ctx);

#endif
