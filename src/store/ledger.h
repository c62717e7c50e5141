/* SPDX-License-Identifier: Apache-2.0
 * ledger.h - what the log means: streams, runs, rows, and what is alive in which segment; kept in the index.
 *
 * Applying the ops of good batches in the order of the log to an empty index gives the index; that is what recovery does,
 * and each commit does the same with the batch that it has just written. Keys of the index (numbers in them big-endian, so
 * that their order is the order of the bytes):
 *
 *   M                        -> lim__mark: as of which batch all of this is
 *   G segment                -> lim__segment_stats
 *   K stream len key seq     -> nothing: a record with a key (or one that is forgotten: look)
 *   N stream seq             -> a run: where the records seq, seq+1 ... are
 *   R table key              -> a row's value                                    \ these two are in checkpoints
 *   S stream                 -> lim__stream_info                                 /
 *
 * A run is up to LIM__RUN_MAX records of one stream, one number after the other, in one segment: 12 bytes for a record
 * instead of an entry. A gap between runs is a number that was forgotten. Records that should be there and are not
 * (their place in the log is damaged) are a run in segment 0: reading it is an error with their number. */
#ifndef LIM__STORE_LEDGER_H
#define LIM__STORE_LEDGER_H

#include "base/map.h"
#include "store/index.h"
#include "store/segment.h"

/* ---- keys ---- */
enum { LIM__KEY_MAX = 1 + 1 + LIM__ROW_KEY_MAX };
typedef struct lim__key {
    size_t len;
    uint8_t bytes[LIM__KEY_MAX];
} lim__key;
static inline lim_bytes lim__key_bytes(const lim__key *k)
{
    return lim__bytes(k->bytes, k->len);
}
lim__key lim__key_mark(void);
lim__key lim__key_segment(uint64_t id);
lim__key lim__key_stream(uint64_t stream);
lim__key lim__key_run(uint64_t stream, uint64_t seq);
lim__key lim__key_row(lim_bytes table_and_key);               /* as in the log: the table's byte first */
lim__key lim__key_keyed(uint64_t stream, lim_bytes key, uint64_t seq);
uint64_t lim__key_number(lim_bytes key, size_t at);           /* the big-endian number there */
/* Of rows and streams: what checkpoints have. */
static inline bool lim__key_in_page(lim_bytes key)
{
    const uint8_t *b = key.ptr;
    return key.len > 0 && (b[0] == 'R' || b[0] == 'S');
}

/* ---- values ---- */
enum { LIM__RUN_MAX = 128, LIM__WALL_UNIT = 1000 /* ns: the resolution of records' times */ };
typedef struct lim__run_item {
    uint32_t at8;   /* where its op begins, in units of 8 bytes */
    uint32_t size;  /* of key and data */
    uint32_t after; /* its time less the run's, in LIM__WALL_UNIT */
} lim__run_item;
typedef struct lim__run {
    uint64_t stream, first; /* from the key */
    uint64_t segment;       /* 0: lost */
    uint64_t wall_ns;
    uint64_t count; /* <= LIM__RUN_MAX unless lost */
    lim__run_item items[LIM__RUN_MAX];
} lim__run;
/* False: not a run. */
bool lim__run_read(lim_bytes key, lim_bytes value, lim__run *out);
/* The run that has this number, else the first one behind it: 0 or -ENOENT (none behind it either), -errno. `seek` is
 * lim__index_seek or lim__index_w_seek. */
typedef int lim__seek_fn(lim__index *, lim_bytes, lim__seek, lim__buf *, lim__buf *);
int lim__run_find(lim__seek_fn *seek, lim__index *ix, uint64_t stream, uint64_t seq, lim__run *out);

typedef struct lim__mark { /* under M */
    uint64_t store_id;
    uint64_t lsn;               /* all batches up to here are in the index */
    uint64_t segment, at, end;  /* the last of them: where it is and where it ends; segment 0: there was none */
    uint64_t wall_ns;           /* its time */
    uint64_t checkpoint, older; /* the two newest whole checkpoints; 0: none */
    uint64_t checkpoint_bytes;  /* of the newest */
    uint64_t records, live_bytes;
} lim__mark;

/* ---- the ledger; all of it is the writer's ---- */
typedef struct lim__stream { /* of those that are in use */
    uint64_t id;
    lim__stream_info info;
    uint64_t assigned; /* the number after the last that the group being made has given out */
    bool touched, changed, run_known, run_changed;
    struct lim__stream *next_touched;
    lim__run run; /* the last one, when known; count 0: there is none */
} lim__stream;

typedef struct lim__ledger {
    lim__index *ix;
    lim__segments *segments;
    lim__map streams; /* id -> lim__stream */
    lim__stream *touched; /* since the last commit */
    lim__mark mark;
    bool remaking;    /* the whole log is applied from its beginning: then checkpoints say what there is */
    bool failed;      /* something could not be read or kept: the index must be made anew */
    uint64_t lost;    /* records marked as lost */
    struct {          /* the checkpoint whose pages are being applied */
        uint64_t id, bytes;
        lim__key covered; /* all up to this key */
        bool whole;
    } pages;
    uint64_t *listed; /* remaking: the segments that there must be, as of the last whole checkpoint; else those that the
                       * base knows and that are not there. Without those that the log has dropped since: 0 */
    size_t listed_count;
} lim__ledger;

void lim__ledger_init(lim__ledger *l, lim__index *ix, lim__segments *segments, uint64_t seed);
void lim__ledger_fini(lim__ledger *l);
void lim__ledger_clear(lim__ledger *l); /* before the index is made anew */
/* NULL: the index could not be read (l->failed) or no memory. Valid until lim__ledger_commit. */
lim__stream *lim__ledger_stream(lim__ledger *l, uint64_t id);
/* An op that lies at `at` of the segment. */
void lim__ledger_apply(lim__ledger *l, lim__segment *s, uint64_t at, const lim__op *op);
/* Records that a damaged batch should have had and that are not in a run are lost (LIM__OP_TOTAL). */
void lim__ledger_missing(lim__ledger *l, const lim__op *total, uint64_t wall_ns);
/* All ops of the batch have been applied: makes it visible. */
void lim__ledger_commit(lim__ledger *l, uint64_t lsn, lim__segment *s, uint64_t at, uint64_t end, uint64_t wall_ns);
void lim__ledger_abandon(lim__ledger *l); /* numbers given out since the last commit were not used */
/* Is this record, whose op lies there, the one that counts? */
bool lim__ledger_alive(lim__ledger *l, uint64_t stream, uint64_t seq, uint64_t segment, uint64_t at);
/* Reads what the base has kept. -ENOENT: nothing. */
int lim__ledger_load(lim__ledger *l);
#endif
