/* SPDX-License-Identifier: Apache-2.0
 * log_inside.h - what the files log_*.c share: the logs of a bus, and one log.
 *
 *      lim__logs                          of the bus: name -> log, stream -> log
 *        `-- lim__log "orders"            options, what is retained, the tail, the window of idempotency keys, seats
 *              `-- lim__channel "orders"  its entry in the registry, which it keeps there (one reference each way)
 *
 * Who may do what:
 *   any thread         publishes: looks and reserves under the log's `lock`, hands a batch to the store without it.
 *   the store's thread hears what became of each, in the order of the log: tail, span, seats, then the live subscriptions.
 *   the keeper         a process: timers. It reads no disk; when something is due it has the reading thread look (upkeep).
 *   the reading thread looks, and submits small batches that forget, or append what was delayed: one upkeep per log at a time.
 *
 * Order of locks: logs->lock and the log's `lock` are leaves; neither is held over a call of another part.
 *
 * Invariants:
 *   L1  what is in the tail, and `last`, is stored as the channel asks for.
 *   L2  the tail is consecutive and ends with `last`, or is empty.
 *   L3  a seat that awaits gets exactly one letter, unless it leaves or stops awaiting first.
 *   L4  every message that was taken by lim__log_publish is answered once, through its `publication`. */
#ifndef LIM__LOG_INSIDE_H
#define LIM__LOG_INSIDE_H

#include "base/base.h"
#include "base/map.h"
#include "bus/bus.h"
#include "bus/channel_inside.h"
#include "bus/log.h"

#include <stdatomic.h>

enum {
    LIM__LOG_TAIL_MAX = 1024,            /* messages in memory, per log, not counting the oldest block */
    LIM__LOG_TAIL_BYTES = 1 << 20,       /* and bytes; */
    LIM__LOG_TAILS_BYTES = 64 << 20,     /* of all logs together: beyond it each keeps no more than */
    LIM__LOG_TAIL_LITTLE = 64 << 10,     /* this */
    LIM__LOG_KEY_MAX = 255,
    LIM__WINDOW_MS = 600000,
    LIM__WINDOW_KEYS = 1000000,
    LIM__WINDOW_BYTES = 64 << 20,
    LIM__WINDOW_ROW = 41,                /* of each key, beside itself */
    LIM__RETRY_FULL_MS = 1000,           /* what a publisher is told to wait when the disk is full */
};

/* Stored in the row of the channel. */
typedef struct lim__log_opts {
    uint64_t age_ns, bytes_max, count_max; /* 0: none */
    uint64_t window_ns;
    uint32_t window_keys;
    uint64_t window_bytes;
    lim_overflow overflow;
    lim_sync sync; /* 0: the bus's */
    bool latest, window_slides, window_forgets;
    lim__name *dead_letter; /* NULL: none */
} lim__log_opts;

/*  CREATING --row stored--> OPEN --delete--> GONE
 *     `------ refused ----------------------> GONE          DAMAGED: its row could not be read at the start */
typedef enum lim__log_state { LIM__LOG_CREATING = 1, LIM__LOG_OPEN, LIM__LOG_GONE, LIM__LOG_DAMAGED } lim__log_state;

typedef struct lim__log_key { /* of a channel with latest_per_key: where the newest message of a key is */
    uint64_t seq;
    uint32_t bytes;
    uint8_t len;
    char text[];
} lim__log_key;

typedef struct lim__log_piece { /* of the tail */
    lim__log_block *block; /* NULL: */
    lim__logged one;
} lim__log_piece;

struct lim__log {
    /* set once */
    lim_bus *bus;
    lim__name *name;
    uint64_t stream;
    _Atomic uint32_t refs;
    /* Its entry, which it keeps open; NULL once deleted. Written under the registry's lock, read under host_lock. */
    _Atomic(lim__channel *) ch;
    /* any thread, under `lock` */
    lim__mutex lock;
    lim__log_state state;
    lim__log_opts opts;
    lim__buf row;            /* CREATING: what its row will be; so no other row is stored before that one */
    struct lim__log_change *deferred, **deferred_last; /* changes of its options, until it is OPEN */
    uint32_t changes;        /* of its options, under way or deferred */
    bool deleting;           /* a delete is under way: nothing is changed behind it */
    uint64_t first, last;
    uint64_t count, bytes;   /* retained: from the store when it is looked at, and what was appended since */
    uint64_t first_ns;       /* when the oldest one was stored; 0: not known */
    uint32_t flying;         /* messages on their way to the store */
    uint64_t flying_bytes;
    uint32_t flying_keys;
    uint64_t flying_key_bytes;
    /* tail: ring of tail_cap pieces, the oldest at tail_head (log_tail.c) */
    lim__log_piece *tail;
    uint32_t tail_cap, tail_head, tail_pieces;
    uint32_t tail_count;     /* messages */
    uint64_t tail_bytes;
    lim__list seats, waiting;
    uint32_t seat_count;
    /* window: a queue of {u64 when ns, u8 length, key}, oldest first; a key that was touched stands in it again */
    lim__buf window;
    uint64_t window_count, window_size; /* rows; bytes of them */
    /* latest_per_key */
    lim__smap keys;          /* -> lim__log_key */
    bool keys_known;         /* all of the stream is in it; until then: */
    uint64_t keys_from;      /* it is looked at from here on */
    lim__buf stale;          /* u64 numbers of messages that a newer one replaced and that are still to be erased */
    /* upkeep: wall clock ns; UINT64_MAX: nothing */
    uint64_t due_ns;         /* when it is wanted */
    uint64_t delayed_ns, expiring_ns; /* of the first row of either table */
    bool busy, called;       /* an upkeep is under way; the keeper has been told of due_ns */
    /* the keeper */
    uint64_t timer;
};

typedef struct lim__logs {
    lim_bus *bus;
    _Atomic uint64_t keeper; /* its pid */
    _Atomic uint64_t tail_bytes;
    uint32_t tail_max;       /* for tests: fewer than LIM__LOG_TAIL_MAX; 0: that many */
    _Atomic uint64_t next_number; /* of delayed and expiring rows */
    lim__mutex changing; /* channels are opened and configured one at a time; before all other locks */
    lim__mutex lock;
    lim__smap names;   /* -> lim__log, one reference */
    lim__map streams;
} lim__logs;

/* ---- log.c ---- */
lim__log *lim__log_new(lim_bus *bus, lim_bytes name, uint64_t stream);
lim_err lim__log_register(lim__log *log);  /* name and stream lead to it: takes a reference. NOMEM */
void lim__log_forget(lim__log *log);       /* they no longer do */
lim__log *lim__log_by_stream(lim_bus *bus, uint64_t stream); /* a reference, or NULL */
lim__log *lim__log_by_name(lim_bus *bus, lim_bytes name);    /* likewise */
typedef struct lim__log_stored { /* a message that is in the log; VIEWS into its batch */
    lim__logged logged; /* msg: a reference of the caller's, or NULL: no memory */
    uint64_t stream, bytes, expiring_ns;
    lim_bytes key, idempotency_key;
    uint64_t erased, trimmed; /* what else its batch did: this record was erased; everything before that one is forgotten */
} lim__log_stored;
void lim__log_stored_read(lim__batch *batch, uint32_t i, const lim__committed *what, lim__log_stored *out);
void lim__log_land(lim__log *log, lim__log_stored *s, lim_admission *out); /* everybody who wants it hears of it */
void lim__log_key_seen(lim__log *log, lim_bytes key, uint64_t seq, uint32_t bytes, uint64_t erased);
uint64_t lim__log_next_due(const lim__log *log, uint64_t now_ns); /* under its lock: when an upkeep is wanted */
/* A letter to each seat, and none of them awaits any longer. */
void lim__log_tell(lim__log *log, lim_err why);
void lim__log_opts_fini(lim__log_opts *opts);
void lim__log_trimmed(lim__log *log, uint64_t first); /* everything before `first` is forgotten */
void lim__log_check(lim__log *log);

/* The same of a block, whose records have so many bytes, and whose batch trimmed the log to `trimmed` (0: it did not). */
void lim__log_land_block(lim__log *log, lim__log_block *block, uint64_t bytes, uint64_t trimmed, lim_admission *out);

/* ---- log_tail.c ---- under the log's lock */
lim__log_block *lim__log_block_new(void); /* before it is stored: */
void lim__log_block_stored(lim__log_block *b, lim__batch *batch, uint64_t wall_ns); /* takes the batch */
void lim__tail_push(lim__log *log, const lim__logged *m);
void lim__tail_push_block(lim__log *log, lim__log_block *block); /* takes a reference */
void lim__tail_fini(lim__log *log);
void lim__tail_check(const lim__log *log);

/* ---- log_open.c ---- */
typedef struct lim__log_changed { /* on the store's or the reading thread; may be zeroed */
    void (*run)(void *ctx, lim_err err, const char *detail);
    void *ctx;
} lim__log_changed;
lim__logs *lim__logs_new(lim_bus *bus);
void lim__logs_free(lim__logs *all);
lim_err lim__logs_restore(lim_bus *bus, lim_diag *diag);
/* Makes it, or finds it; `opts` of an existing one are changed, or (may_change false) have to be the same (EXISTS). One
 * reference at once; done.run exactly once after LIM_OK, when it is stored. MISUSE: no store; EXISTS: an ephemeral one; IO: its
 * row is damaged; INVALID. */
lim_err lim__log_open(lim_bus *bus, lim_bytes name, const lim_channel_opts *opts, bool may_change,
                      const lim__log_changed *done, lim__log **out, lim_diag *diag);
lim_err lim__log_delete(lim__log *log, const lim__log_changed *done);
lim_err lim__log_opts_of(const lim_channel_opts *o, lim__log_opts *out, lim_diag *diag);
void lim__log_opts_get(lim__log *log, lim_channel_opts *out, char dead_letter[256]);
lim_err lim__committed_err(const lim__committed *what, const char **detail);
lim_bytes lim__leavings_key(uint8_t *at, uint64_t stream); /* 12 bytes */
void lim__leavings_sweep(lim_bus *bus, uint64_t stream);   /* rows of a stream whose channel is gone */
/* Its channel's entry leads to it, and it keeps the entry; EXISTS: it is ephemeral, or has `hold` subscriptions. (channel.c) */
lim_err lim__channel_attach_log(lim__log *log, lim_diag *diag);
void lim__channel_detach_log(lim__log *log); /* the entry is closed; idempotent */
uint32_t lim__channels_live(lim__channels *all, lim_bytes name); /* live subscriptions of a channel */

/* ---- log_api.c ---- */
bool lim__publish_opts_durable(const lim_publish_opts *opts); /* they ask for what only a durable channel has */
lim_err lim__log_message_of(lim_bytes payload, const lim_publish_opts *opts, lim__log_message *out); /* MISUSE, INVALID */
lim_err lim__publish_logged(lim__log *log, lim_bytes payload, const lim_publish_opts *opts, lim_admission *out);
void lim__receipt_refused(lim_bus *bus, const lim_publish_opts *opts, const lim_admission *admission);
lim__log *lim__log_of_handle(lim_bus *bus, lim_channel channel); /* a reference; NULL: ephemeral, or gone (channel_api.c) */
/* NOTFOUND; IO; NOMEM. On a thread that may read. */
lim_err lim__log_get(lim__log *log, lim__store *store, lim_bytes key, lim_stored_message *out);

/* ---- log_publish.c ---- */
lim__sync lim__log_sync_locked(const lim__log *log);
/* What a batch that is neither COMMITTED nor a CONFLICT is told as. */
const char *lim__log_not_stored(const lim__committed *what, lim_receipt *r);

/* ---- log_value.c: rows and records ---- */
typedef struct lim__log_record { /* VIEWS into the record */
    uint64_t expires_wall_ns;
    lim_bytes headers, idempotency_key, payload;
} lim__log_record;
bool lim__log_record_read(lim_bytes data, lim__log_record *out);
enum { LIM__LOG_RECORD_HEAD = 12 };
size_t lim__log_record_head(uint8_t *at, const lim__log_message *m, uint64_t expires_wall_ns); /* answers its length */
lim__msg *lim__log_msg(lim_bytes key, const lim__log_record *r); /* headers begin with $key. NULL: no memory */
enum { LIM__RECEIPT_BYTES = 33 };
typedef struct lim__log_receipt { uint64_t touched_ns, due_ns, seq, wall_ns; } lim__log_receipt; /* due: of one for later; 0 */
lim_bytes lim__log_receipt_write(uint8_t *at, uint64_t touched_ns, uint64_t due_ns); /* without its last 16 bytes */
bool lim__log_receipt_read(lim_bytes value, lim__log_receipt *out);
void lim__log_row_write(lim__buf *b, uint64_t stream, const lim__log_opts *opts);
lim_err lim__log_row_read(lim_bytes value, uint64_t *stream, lim__log_opts *opts); /* INVALID: not of this form; NOMEM */
/* stream u64, then `rest`; answers a view of `at`, which has room. */
lim_bytes lim__log_row_key(uint8_t *at, uint64_t stream, lim_bytes rest);
lim_bytes lim__log_due_key(uint8_t *at, uint64_t stream, uint64_t due_ns, uint64_t number);

/* ---- log_window.c: idempotency keys ---- under the log's lock */
void lim__window_add(lim__log *log, lim_bytes key, uint64_t when_ns);
bool lim__window_at(const lim__log *log, size_t *pos, uint64_t *when_ns, lim_bytes *key); /* visits, oldest first */
void lim__window_drop(lim__log *log, size_t bytes);
uint64_t lim__window_due(const lim__log *log); /* wall clock ns when the oldest is to go; UINT64_MAX: none */
/* Whether there is a place for a new key of that length, beside those on their way. Under the lock. */
bool lim__window_full(const lim__log *log, size_t key_len);
/* A key is remembered for so long; one that slides a little longer, so that not every duplicate is written down. */
uint64_t lim__window_ns(const lim__log_opts *o);

/* ---- log_keep.c, log_upkeep.c ---- */
lim_err lim__keeper_open(lim_bus *bus);
void lim__log_want(lim__log *log, uint64_t due_wall_ns); /* an upkeep at that time, or earlier. Any thread */
void lim__log_upkeep(lim__log *log);                     /* the keeper: one is due */

/* Reads with lim__store_* may have to be tried again: for a while. `err` is what it answered. */
bool lim__read_again(lim_bus *bus, int err, uint32_t *tries);

#endif
