/* SPDX-License-Identifier: Apache-2.0
 * durable.h - the bus's end of the store: one thread that writes, two that read, and how their answers reach processes.
 *
 *      process --commit(batch, ref)--> store thread --stored{ref, how}--> process        one letter per batch, in the
 *      any thread --submit(batch)----> store thread --on_done on that thread             order of the log
 *      any thread --read(job)--------> reading thread --job->run(store)--> posts what it found
 *
 * Whatever a bus must not forget is a row of one of the tables below, or a record of a stream, and everything that changes
 * together is in one batch. The rule of every durable process: first the commit, then the effects. What arrives meanwhile
 * waits, in its order (lim__stash). After a restart the processes are made again from their rows (bus.c calls each part's
 * restore function before anybody is served), under new pids: what was known by an old id is found by lim__alias_pid.
 *
 * A bus without a data directory has none of this: bus->durable is NULL, and who asks for something durable is refused
 * with MISUSE and a sentence that says so (lim__durable_missing). */
#ifndef LIM__DURABLE_H
#define LIM__DURABLE_H

#include "base/base.h"
#include "bus/bus.h"
#include "store/store.h"

/* Stable numbers: they are in the files. Keys are bytes in the order of the comment; numbers in keys are big-endian, so that
 * scans are in their order. Values begin with a version byte, then what the table's owner writes there. */
typedef enum lim__table {
    LIM__TABLE_META = 1,  /* "streams": the newest number that was given to a stream */
    LIM__TABLE_CHANNELS,  /* name: its stream, options */
    LIM__TABLE_CURSORS,   /* stream u64, name of the cursor */
    LIM__TABLE_RECEIPTS,  /* stream u64, idempotency key: receipt (its last 16 bytes: sequence, wall clock) */
    LIM__TABLE_DELAYED,   /* stream u64, due wall ns u64, number u64: a message for later */
    LIM__TABLE_QUEUES,    /* name: configuration of a durable queue */
    LIM__TABLE_TASKS,     /* id u64: a task or an ask that lives */
    LIM__TABLE_DEAD,      /* queue's name, 0, id u64: a dead letter */
    LIM__TABLE_OUTCOMES,  /* id u64: how it ended, for as long as that is kept */
    LIM__TABLE_SEEN,      /* queue's name, 0, idempotency key: task u64 */
    LIM__TABLE_TALKS,     /* id u64: a conversation that lives */
    LIM__TABLE_SCHEDULES, /* name */
    LIM__TABLE_SAGAS,     /* id u64 */
    LIM__TABLE_ARTIFACTS, /* hash: engine, name, bytes */
    LIM__TABLE_SLOTS,     /* kind u8, name: versions, options, history of a router slot */
    LIM__TABLE_EXPIRING,  /* stream u64, due wall ns u64, number u64: a message that is to be forgotten then */
    LIM__TABLES
} lim__table;
_Static_assert((int)LIM__TABLES <= (int)LIM__TABLES_MAX, "the store has so many tables");

/* ---- opening ---- */
typedef struct lim__durable lim__durable;
/* Makes everything again that was stored; before anybody is served. diag: what could not be, and why. */
lim_err lim__durable_restore(lim_bus *bus, lim_diag *diag);
/* Opens the store in opts.data_dir and starts its threads; without threads the caller drives lim__durable_turn. On error
 * diag says what is wrong with it and what to do. */
lim_err lim__durable_open(lim_bus *bus, bool threads, lim_diag *diag);
/* Commits what was submitted, answers it, refuses more (CLOSED), ends the threads. Before the runtime closes. */
void lim__durable_stop(lim_bus *bus);
void lim__durable_free(lim_bus *bus); /* after it */
lim_err lim__durable_missing(lim_diag *diag); /* MISUSE: this bus keeps nothing */

/* Without threads: one turn of what they would do. True: there is more. `poke` is told when there is something to do. */
bool lim__durable_turn(lim_bus *bus);
uint64_t lim__durable_next_due_ns(lim_bus *bus);
void lim__durable_on_poke(lim_bus *bus, void (*poke)(void *ctx), void *ctx);

lim_err lim__queues_restore(lim_bus *bus, lim_diag *diag); /* group_store.c */

/* A random number that stays the same as long as the data does; without a store one of this run. At start-up. */
uint64_t lim__durable_birth(lim_bus *bus);

/* ---- writing; both take the batch, whatever they answer ---- */
typedef struct lim__stored { /* letter: what became of a batch */
    uint64_t ref;
    lim__commit_how how;
    lim__class class;
    uint64_t seq, wall_ns;   /* of its first append (0: there was none); the time its records carry */
    uint64_t limit, current; /* FULL: bytes */
    bool found;              /* CONFLICT: the row was there, with this value (or too little memory to say which) */
    uint32_t found_len;
    uint8_t found_bytes[];
} lim__stored;
extern const lim__letter_type lim__type_stored;
/* The process gets one letter `stored` with this ref, exactly once, whatever happens to the disk, unless the bus closes
 * first; in the order of its commits. CLOSED, NOMEM, TOOBIG (more than a batch may hold), MISUSE (no store): none comes. */
lim_err lim__durable_commit(lim_process *self, lim_bus *bus, lim__batch *batch, uint64_t ref);
/* The same without a process: on_done runs on the store's thread, exactly once, and owns the batch. It must be short and may
 * not wait. Any thread. */
lim_err lim__durable_submit(lim_bus *bus, lim__batch *batch, lim__on_committed *on_done, void *ctx);
/* How often it syncs, unless a batch says otherwise. */
lim__sync lim__durable_sync(const lim_bus *bus);
lim__class lim__durable_class(const lim_bus *bus); /* MEMORY without a store */

/* A number for a new stream; the batch that makes its owner's row also remembers that it was given. Any thread. */
uint64_t lim__durable_stream(lim_bus *bus, lim__batch *batch);
void lim__durable_stream_seen(lim_bus *bus, uint64_t stream); /* at start-up, for each that a row names */

/* ---- reading ---- */
/* From any thread that may wait for the disk: at start-up, and in jobs. Never on a scheduler. */
lim__store *lim__durable_store(lim_bus *bus);
typedef struct lim__job {
    /* On a reading thread, in order of lim__durable_read but for patient ones; owns itself. store NULL: the bus closes,
     * nothing can be read. */
    void (*run)(struct lim__job *job, lim__store *store);
    bool patient; /* long work that gives way to who is served live: see lim__durable_read */
    struct lim__job *next; /* private */
} lim__job;
/* Any thread. While somebody is served live (lim__bus_lively), patient jobs run on a thread that runs only when no other one
 * wants to; unless that gets nothing done, because the machine is full: then they take part as all others do. */
void lim__durable_read(lim_bus *bus, lim__job *job);

/* ---- copies ---- */
/* A copy of this instant that opens as a store, in a directory that is made, or empty (else EXISTS), by a thread of its own
 * while all goes on. on_done runs on that thread, exactly once after LIM_OK. EXISTS: one is being made. With threads only. */
typedef void lim__on_copied(void *ctx, lim_err err, const char *text);
lim_err lim__durable_copy(lim_bus *bus, lim_bytes to, lim__on_copied *on_done, void *ctx);

/* ---- ids of a former life ---- */
struct lim__aliases *lim__aliases_new(uint64_t seed);
void lim__aliases_free(struct lim__aliases *all);
/* From now on `old` means this living process. Any thread. NOMEM. */
lim_err lim__alias_put(lim_bus *bus, uint64_t old, lim_pid now);
void lim__alias_drop(lim_bus *bus, uint64_t old);
/* The process that a conversation's or task's id means: itself, unless it was made again after a restart. Any thread, a few
 * instructions when nothing has an alias. */
lim_pid lim__alias_pid(lim_bus *bus, uint64_t id);
/* The id that people know a living one by: that of its first life. As long as there are aliases. Any thread. */
uint64_t lim__alias_of(lim_bus *bus, lim_pid now);

/* ---- waiting in order ----
 * Signals that reach a process while its commit is under way: letters are kept as they are, exits and downs as values. */
typedef struct lim__stash {
    struct lim__stashed *first, **last;
    uint32_t count;
} lim__stash;
void lim__stash_init(lim__stash *s);
lim_err lim__stash_put(lim__stash *s, lim_process *self, const lim_signal *signal); /* inside on_signal. NOMEM: not kept */
/* Hands the oldest to `handler` as if it came now; false: there was none. The handler may stash again (then stop), exit, and
 * keep the letter. */
bool lim__stash_replay(lim__stash *s, lim_process *self, lim_on_signal *handler, void *state);
void lim__stash_fini(lim__stash *s, lim_process *self); /* in on_end, too: then self is NULL */

/* ---- packing values ---- */
/* Little-endian, appended to a lim__buf; reading back: false once the value ends early. */
typedef struct lim__unpack { const uint8_t *at, *end; bool bad; } lim__unpack;
void lim__pack_u8(lim__buf *b, uint8_t v);
void lim__pack_u16(lim__buf *b, uint16_t v);
void lim__pack_u32(lim__buf *b, uint32_t v);
void lim__pack_u64(lim__buf *b, uint64_t v);
void lim__pack_bytes(lim__buf *b, lim_bytes v); /* u32 length, bytes */
lim__unpack lim__unpack_begin(lim_bytes value);
uint8_t lim__unpack_u8(lim__unpack *u);
uint16_t lim__unpack_u16(lim__unpack *u);
uint32_t lim__unpack_u32(lim__unpack *u);
uint64_t lim__unpack_u64(lim__unpack *u);
lim_bytes lim__unpack_bytes(lim__unpack *u); /* VIEW into the value */
bool lim__unpack_end(const lim__unpack *u);  /* everything was there, and nothing is left */
/* Keys: big-endian at `at`; answers the bytes written. */
size_t lim__key_u64(uint8_t *at, uint64_t v);
uint64_t lim__key_get_u64(const uint8_t *at);

#endif
