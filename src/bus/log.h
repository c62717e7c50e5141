/* SPDX-License-Identifier: Apache-2.0
 * log.h - the durable side of a channel: one stream of the store, its newest messages in memory, and who waits for more.
 *
 *      publisher --lim__log_publish--> batch --> store thread --committed--> tail, span --+--> bells: readers (reader.h)
 *                                                                                         +--> live subscriptions
 *                                                                                         `--> the receipt
 *
 * So nobody sees a message, or its number, before it is stored as its channel asks for, and everybody sees all of them in
 * the order of the log. What a message is in the stream: store key = its key; data = u8 version 1, u8 flags (0), u16 length of
 * the headers, u64 expires (wall clock ns, 0: never), headers packed, payload; little-endian.
 *
 * Subscriptions by a durable channel's own name with no policy (0) or `hold` are readers; with another policy, and by
 * pattern, they are ordinary live ones. */
#ifndef LIM__LOG_H
#define LIM__LOG_H

#include "base/buf.h"
#include "base/list.h"
#include "bus/channel.h"
#include "bus/durable.h"
#include "store/store.h"

#include <stdatomic.h>

typedef struct lim__log lim__log; /* counted; one per durable channel, for as long as that exists */
lim__log *lim__log_ref(lim__log *log);
void lim__log_unref(lim__log *log); /* any thread; NULL is a no-op */
/* The log of a channel; NULL: it is ephemeral. As long as the caller's reference to the channel. Any thread. */
lim__log *lim__channel_log(lim__channel *ch);
/* A reference. NOTFOUND: no such channel; MISUSE: not durable. Any thread. */
lim_err lim__log_find(lim_bus *bus, lim_bytes channel, lim__log **out);
uint64_t lim__log_stream(const lim__log *log); /* the store's number for it */
lim_bytes lim__log_name(const lim__log *log);
lim__class lim__log_class(const lim__log *log); /* what its receipts promise */
/* What is retained: *first of the oldest (last + 1: nothing), *last the newest that is stored. Any thread. */
void lim__log_span(lim__log *log, uint64_t *first, uint64_t *last);

/* ---- reading ---- */
typedef struct lim__logged {
    uint64_t seq, wall_ns, expires_wall_ns; /* expires 0: never; one that has expired is delivered to nobody */
    lim__msg *msg; /* a reference; its headers begin with `$key` if it has a key */
} lim__logged;
/* Consecutive ones from `from` on, as far as they are still in memory (at most 1024 messages or 1 MiB of a channel); answers
 * how many, each with a reference. 0: `from` is not among them: read the store. Any thread. */
uint32_t lim__log_tail(lim__log *log, uint64_t from, lim__logged *out, uint32_t max);
/* What one publisher had stored in one step, as it lies in the log; nobody changes it. Messages first, first + 1 ... of its
 * log, none of which has a key or expires, all of wall_ns. Walk it:
 *      lim__log_view v;
 *      for (size_t pos = 0; lim__log_block_next(block, &pos, &v);) ... */
typedef struct lim__log_block {
    uint64_t first, wall_ns;
    uint32_t count;
    /* private */
    _Atomic uint32_t refs;
    size_t cost;      /* bytes of memory; under the log's lock */
    lim__batch *batch;
    lim__msg **made;  /* NULL, or `count` messages that somebody asked for, or NULL each; under the log's lock */
} lim__log_block;
typedef struct lim__log_view { /* VIEWS, as long as the reference to the block */
    uint64_t seq;
    lim_bytes headers, payload; /* headers packed */
} lim__log_view;
/* The block in memory that has number `from`, a reference. NULL: see lim__log_tail; it may be a single one. Any thread. */
lim__log_block *lim__log_tail_block(lim__log *log, uint64_t from);
bool lim__log_block_next(const lim__log_block *block, size_t *pos, lim__log_view *out); /* any thread */
void lim__log_block_unref(lim__log_block *block);                                       /* any thread; NULL is a no-op */
/* A stored record as a message with one reference. False: no memory, or not a record of this form. Any thread. */
bool lim__log_decode(const lim__record *r, lim__logged *out);

/* ---- hearing of news: who reads sits down, and awaits what is newer than what it has seen ---- */
typedef struct lim__log_push { /* letter */
    uint64_t ref;
    lim_err why; /* OK: there is news. CLOSED: the channel was closed; GONE: it was deleted. Then the seat is to be left */
} lim__log_push;
extern const lim__letter_type lim__type_log_push;
typedef struct lim__log_seat { /* in the reader's memory */
    lim_pid reader;
    uint64_t ref;      /* the reader's own, comes back in its letters */
    /* private */
    lim__list node, waiting;
    bool seated, awaits;
} lim__log_seat;
/* It counts as a subscription of the channel (`matched`, `mandatory`), and hears when the channel is closed. Any thread.
 * GONE: deleted meanwhile. */
lim_err lim__log_sit(lim__log *log, lim__log_seat *seat);
void lim__log_leave(lim__log *log, lim__log_seat *seat); /* any thread; no letter is posted afterwards; idempotent */
/* False: there is something newer than number `seen`. True: ONE letter comes when there is, and it no longer waits then. */
bool lim__log_await(lim__log *log, lim__log_seat *seat, uint64_t seen);

/* ---- publishing ---- */
typedef struct lim__log_message {
    lim_bytes payload, headers; /* headers packed; none begins with $ */
    lim_bytes key;              /* at most 255 bytes; empty: none */
    lim_bytes idempotency_key;  /* likewise */
    int64_t expires_ms, delay_ms; /* 0: never, at once */
    bool mandatory, expect_last;
    uint64_t last;
} lim__log_message;
/* The options of a PUBLISH frame (data/options.h) into it: VIEWS of the block. False: one is unknown, or is not what it should
 * be. */
bool lim__log_message_options(lim_bytes options, lim__log_message *m);
/* The headers of a message with a key: `$key` in front. A key of no bytes: as they are. NOMEM. */
lim_err lim__headers_keyed(lim__buf *out, lim_bytes key, lim_bytes headers);
/* How it ended, exactly once, also when it was refused at once (then inside the call, before it returned): on the store's
 * thread, so it must be short, and may not wait or publish. `detail`: for people, static; "" : nothing to add. A REJECT with
 * why NONE: nobody knows whether it is stored. */
typedef void lim__on_logged(void *ctx, const lim_receipt *receipt, const char *detail);
/* Any thread; FIFO per thread. *out (may be NULL): ACCEPT, it is on its way to the store; REJECT, it will not be stored.
 * NOMEM, CLOSED (the bus): no call of on_logged will come. */
lim_err lim__log_publish(lim__log *log, const lim__log_message *m, lim__on_logged *on_logged, void *ctx,
                         lim_admission *out);
/* Many at once: plain messages of one publisher, nothing but headers and payload, that are stored as one step, or none of them;
 * one number after the other. Its owner's thread. */
typedef struct lim__log_lot {
    lim__log *log; /* a reference; NULL: there is none */
    lim__batch *batch;
    uint32_t count;
    size_t bytes, bytes_max;
} lim__log_lot;
/* `bytes`: about so many will come. False: this log takes them one by one (lim__log_publish), or there is no memory. */
bool lim__log_lot_begin(lim__log *log, size_t bytes, lim__log_lot *out);
/* Copies them. False: it is full; publish it first. The first one always fits. */
bool lim__log_lot_add(lim__log_lot *lot, lim_bytes headers, lim_bytes payload);
/* As lim__log_publish with one call of on_logged for all of them: when ACCEPT, seq is that of the first. The lot is empty
 * afterwards, whatever it answers: CLOSED: the bus, or the log was deleted; NOMEM; TOOBIG: no call will come. */
lim_err lim__log_lot_publish(lim__log_lot *lot, lim__on_logged *on_logged, void *ctx);
void lim__log_lot_drop(lim__log_lot *lot); /* one that was not published; idempotent */
/* Adds a message to somebody's batch: record, receipt row and expectations (a step, a dead letter). INVALID: delay_ms, or a key
 * that is too long; TOOBIG. `expects` (may be NULL) grows by the number of expectations that were added. */
lim_err lim__log_append(lim__log *log, lim__batch *batch, const lim__log_message *m, uint32_t *expects);
/* For whoever submits such a batch with an on_done of its own: to be called there first, whatever became of the batch. After
 * lim__durable_commit the bus does it before the letter. The store's thread. */
void lim__log_committed(lim_bus *bus, lim__batch *batch, const lim__committed *what);

#endif
