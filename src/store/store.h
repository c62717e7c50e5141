/* SPDX-License-Identifier: Apache-2.0
 * store.h - the durable store: one write, `commit`, all or nothing; and snapshot reads.
 *
 * It keeps two kinds of thing and knows nothing of what they mean:
 *
 *   stream   records in order, numbered 1, 2, 3 ... without a hole, each with an optional key and a time; forgotten
 *            from the front (trim), or one by one (erase: a record that a newer one of its key replaced)
 *   row      (table, key) -> value: cursors, leases, receipts, tasks, conversations, deployments ...
 *
 * The log (segments, see segment.h) is the truth; the index (LMDB, or memory in the simulator) is rebuilt from it when it
 * is missing, older or wrong. A batch is written with one write and one sync together with all others that wait at that
 * moment, in the order of lim__store_submit; whoever submitted it hears when it is on stable storage, never before.
 * docs/internals/store.md has the format.
 *
 * Threads: one thread owns the writing side (lim__store_turn); submit is for any thread; reads are for any thread that
 * may block on the disk. lim__store_* return 0 or a negative errno where they return int. */
#ifndef LIM__STORE_H
#define LIM__STORE_H

#include "base/base.h"
#include "base/list.h"
#include "os/os.h"

typedef struct lim__store lim__store;

/* Stable numbers: they are in the files. */
typedef enum lim__class { LIM__CLASS_MEMORY = 1, LIM__CLASS_OS, LIM__CLASS_DISK } lim__class; /* what an answer means */
typedef enum lim__sync { LIM__SYNC_ALWAYS = 1, LIM__SYNC_INTERVAL, LIM__SYNC_NEVER } lim__sync;
enum { LIM__STREAM_KEY_MAX = 255, LIM__ROW_KEY_MAX = 500, LIM__TABLES_MAX = 64 };

/* ---- writing ---- */
typedef struct lim__batch lim__batch; /* one step: everything in it happens, or nothing does */
typedef enum lim__commit_how {
    LIM__COMMITTED = 1,  /* stored; on stable storage if `class` says DISK */
    LIM__COMMIT_CONFLICT, /* an expectation did not hold: nothing was stored; which one, and what is there instead */
    LIM__COMMIT_FULL,    /* no space (disk, or the store's own limit): nothing was stored; try again later */
    LIM__COMMIT_FAILED,  /* the disk failed and the batch is not in the log: nothing was stored */
    LIM__COMMIT_CLOSED,  /* the store was closed first: nothing was stored */
    LIM__COMMIT_UNKNOWN  /* the disk failed in the middle, and everywhere it was tried again: not seen by anybody now, but
                          * it may be there after the next start. All of it, or nothing */
} lim__commit_how;
typedef struct lim__committed {
    lim__commit_how how;
    lim__class class;          /* CONFLICT: of what was found */
    uint64_t lsn;              /* number of the log batch it is in; several share one */
    uint64_t first_ns;         /* wall clock (ns) that its records carry */
    uint32_t conflict;         /* CONFLICT: index of the expectation, in order of lim__batch_expect */
    lim_bytes found;           /* CONFLICT: the row's value, valid during the call; len 0 and ptr NULL: absent */
    uint64_t limit, current;   /* FULL: bytes */
} lim__committed;

/* NULL: no memory. A batch in which any call below failed for want of memory is refused by submit (-ENOMEM). */
lim__batch *lim__batch_new(void);
void lim__batch_free(lim__batch *b); /* only one that was not submitted */
/* The record's number is known when it is committed: lim__batch_seq. Parts are joined: saves the caller a copy. */
void lim__batch_append(lim__batch *b, uint64_t stream, lim_bytes key, const lim_bytes *parts, size_t count);
void lim__batch_put(lim__batch *b, uint8_t table, lim_bytes key, lim_bytes value);
/* As put; behind the value come 16 bytes, filled in at commit: the number that append `append` (0-based, appended before
 * this call) gets, and first_ns; u64 each, little-endian. So a receipt names its record in the same step. */
void lim__batch_put_seq(lim__batch *b, uint8_t table, lim_bytes key, lim_bytes value, uint32_t append);
void lim__batch_delete(lim__batch *b, uint8_t table, lim_bytes key);
/* The step happens only if this row has exactly this value (ptr NULL: is absent) just before it: what stands before it in the
 * same log write counts. The CONFLICT is told only when what was found is stored as this batch asks for (lim__batch_sync). */
void lim__batch_expect(lim__batch *b, uint8_t table, lim_bytes key, lim_bytes value);
/* The same of a stream: only if its newest record, forgotten or not, has this number (0: there was none yet). In one order with
 * the expectations of rows; the CONFLICT's `found` is the number that it has (u64, little-endian). */
void lim__batch_expect_last(lim__batch *b, uint64_t stream, uint64_t last);
void lim__batch_trim(lim__batch *b, uint64_t stream, uint64_t first);   /* forget records before number `first` */
void lim__batch_erase(lim__batch *b, uint64_t stream, uint64_t seq);    /* forget one */
void lim__batch_drop(lim__batch *b, uint64_t stream);                   /* forget all; numbers go on where they were */
void lim__batch_small(lim__batch *b); /* may use the reserve when the disk is full: acknowledgements, cursors, deletes */
void lim__batch_sync(lim__batch *b, lim__sync sync); /* default ALWAYS: done only when on stable storage. INTERVAL, NEVER:
                                                      * done when the system has it; class OS */
/* The number of the i-th append; inside and after on_done of a committed batch. */
uint64_t lim__batch_seq(const lim__batch *b, uint32_t i);
uint32_t lim__batch_appends(const lim__batch *b);
lim_bytes lim__batch_record(const lim__batch *b, uint32_t i, uint64_t *stream, lim_bytes *key); /* as it was appended */
/* The data of the append at *pos (0: of the first), which then is that of the next; false: there is none. Any thread may walk a
 * committed batch. */
bool lim__batch_next(const lim__batch *b, size_t *pos, uint64_t *seq, lim_bytes *data);
size_t lim__batch_bytes(const lim__batch *b);
void lim__batch_reserve(lim__batch *b, size_t bytes); /* about so many more will come */
void lim__batch_fit(lim__batch *b);                   /* gives back what is not needed, if it is much */
size_t lim__batch_memory(const lim__batch *b);        /* bytes that it takes */

/* Hands the batch over; on_done runs exactly once, on the store's thread, in the order of the log, and then owns the
 * batch again (lim__batch_free). Any thread, FIFO per thread. 0; or the batch is still yours: -ENOMEM, -EINVAL (key too
 * long, no such table), -EMSGSIZE (more than a segment holds), -EROFS, -EPIPE (closing). */
typedef void lim__on_committed(void *ctx, lim__batch *batch, const lim__committed *what);
int lim__store_submit(lim__store *store, lim__batch *batch, lim__on_committed *on_done, void *ctx);

/* ---- opening ---- */
typedef struct lim__store_opts {
    lim__os *os;
    const char *dir;             /* made if it is not there, its parents are not; locked while open */
    uint64_t segment_bytes;      /* 0: 64 MiB; 64 KiB to 1 GiB, a multiple of LIM__FILE_BLOCK */
    uint64_t bytes_max;          /* of the log; 0: what the disk has; at least six segments */
    uint64_t index_map_bytes;    /* LMDB's map; 0: 64 GiB */
    uint64_t interval_ns;        /* of syncs when batches ask for INTERVAL; 0: 1 s */
    uint32_t batch_bytes_max;    /* of one log write; 0: 4 MiB */
    bool index_in_memory;        /* the simulator's index: rebuilt from the log at every start */
    bool read_only;              /* check, dump: changes nothing, not even a torn tail */
    void (*wake)(void *ctx);     /* the store has something to do: call turn soon. Any thread */
    /* Quarantine, rebuilt index, sealed segment, disk full and healed: a kind and a sentence. The store's thread. */
    void (*on_event)(void *ctx, const char *kind, const char *text);
    void *ctx;
} lim__store_opts;
typedef struct lim__store_error { char text[240]; } lim__store_error; /* what, why, what to do */
/* Recovers: newest good checkpoint + the log after it. -EAGAIN: somebody else has it open; -ENOTSUP: a newer format;
 * -EIO ...: `error` tells. A damaged store opens: what is bad is quarantined and named by on_event. */
int lim__store_open(const lim__store_opts *opts, lim__store_error *error, lim__store **out);
/* Commits what was submitted, writes a checkpoint, closes. Joins nothing: the caller ends its thread first. */
void lim__store_close(lim__store *store);
/* Takes what was submitted, writes it, syncs, answers; and a bounded step of upkeep (segments to come, compaction). Until
 * it returns false there is more to do. *next_ns: when it wants to be called even if not woken (UINT64_MAX: never). */
bool lim__store_turn(lim__store *store, uint64_t *next_ns);

/* ---- reading: sees everything whose on_done has been called, and nothing that is not on its way to it ----
 * All may answer -EAGAIN: the index was found to be damaged and is being made again by the store's thread; come again. -EIO:
 * the disk could not be read just now. */
typedef struct lim__record {
    uint64_t seq, wall_ns;
    lim_bytes key, data; /* VIEWS during the call */
} lim__record;
typedef struct lim__stream_info {
    uint64_t first, next;       /* of the first record that is not forgotten (next: there is none); of the next one */
    uint64_t count, bytes;      /* of records that are not forgotten; of their keys and data */
    uint64_t first_ns, last_ns; /* time of the first of them (0: none), of the last one that was appended */
} lim__stream_info;
/* Calls each(ctx) from `from` on in order until it answers false, `max` were given (0: no limit), or the end. What was
 * forgotten is passed over; a record that went bad is -EBADMSG with *bad = its number: never silently skipped. */
int lim__store_read(lim__store *store, uint64_t stream, uint64_t from, uint32_t max,
                    bool (*each)(void *ctx, const lim__record *r), void *ctx, uint64_t *bad);
/* The same in one read: it ends, too, with the records that lie together in bytes_max bytes (the first one may be longer). */
int lim__store_read_some(lim__store *store, uint64_t stream, uint64_t from, uint32_t max, uint32_t bytes_max,
                         bool (*each)(void *ctx, const lim__record *r), void *ctx, uint64_t *bad);
int lim__store_stream(lim__store *store, uint64_t stream, lim__stream_info *out); /* an unknown one: all 0, next 1 */
/* The first record at or after this wall clock time; next if there is none. */
int lim__store_seek(lim__store *store, uint64_t stream, uint64_t wall_ns, uint64_t *seq);
/* The newest record of a key that is not forgotten. -ENOENT; -EBADMSG: it went bad. */
int lim__store_last(lim__store *store, uint64_t stream, lim_bytes key,
                    bool (*each)(void *ctx, const lim__record *r), void *ctx);
/* Copies the value into malloc'd memory. -ENOENT. */
int lim__store_get(lim__store *store, uint8_t table, lim_bytes key, void **value, size_t *len);
/* Rows of a table whose key begins with `prefix`, in byte order, from after `after` on (empty: the first). */
int lim__store_scan(lim__store *store, uint8_t table, lim_bytes prefix, lim_bytes after,
                    bool (*each)(void *ctx, lim_bytes key, lim_bytes value), void *ctx);

/* ---- looking after it ---- */
typedef struct lim__store_info {
    uint64_t lsn, segments, bytes, bytes_max, bytes_free, live_bytes, syncs, batches, records, quarantined;
    uint64_t checkpoint_lsn;
    uint64_t start_batches, start_bytes; /* of the log that had to be read at the start (DU8) */
    bool full, degraded; /* degraded: something is quarantined */
} lim__store_info;
void lim__store_info_get(lim__store *store, lim__store_info *out); /* any thread */
/* A copy that opens as a store, of one instant, while writing goes on. Any thread; to_dir is made, or empty (-EEXIST). What is
 * damaged is copied as it is. A copy that could not be finished is removed, and one that nobody removed does not open. */
int lim__store_backup(lim__store *store, const char *to_dir, lim__store_error *error);
/* The same of a store that nobody may have open meanwhile (-EAGAIN). */
int lim__store_copy(lim__os *os, const char *dir, const char *to_dir, lim__store_error *error);
/* Reads every segment and compares it with the index; nobody may have the store open (-EAGAIN). Problems are told one a
 * line. 0: none; -EBADMSG: there were some. */
typedef void lim__on_finding(void *ctx, const char *line);
int lim__store_check(lim__os *os, const char *dir, lim__on_finding *each, void *ctx, lim__store_error *error);

#endif
