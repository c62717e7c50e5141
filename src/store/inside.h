/* SPDX-License-Identifier: Apache-2.0
 * inside.h - what the files of the store share: a submitted batch, the log that is being written, the store itself.
 *
 *   batch.c    what a caller puts into a batch            commit.c   many batches become one log write
 *   log.c      writing that, and going on elsewhere when the disk fails (J3, J7)
 *   scan.c     reading segments back: what is torn, what is damaged, what was saved (J4)
 *   open.c     recovery       upkeep.c   checkpoints, compaction, segments to come       read.c   answers
 *   store.c    submit, turn, close */
#ifndef LIM__STORE_INSIDE_H
#define LIM__STORE_INSIDE_H

#include <stdalign.h>
#include <stdatomic.h>

#include "store/ledger.h"
#include "store/store.h"

/* ---- batches ---- */
enum { LIM__BATCH_INLINE = 448 };
typedef struct lim__expect { /* followed by the table's byte and key, then the value, padded to 8; key_len 0: of a stream, the
                              * value is its number and that of its newest record, u64 each */
    uint32_t key_len, value_len;
    bool absent;
} lim__expect;
typedef struct lim__bytes_grow { /* bytes that begin inside the batch, so that a small one is one allocation */
    uint8_t *ptr;
    size_t len, cap;
} lim__bytes_grow;
struct lim__batch {
    lim__list node;
    lim__bytes_grow ops, expects;
    uint32_t op_count, append_count, expect_count;
    size_t echo_bytes; /* at most */
    int error;         /* -ENOMEM, -EINVAL: refused by submit */
    bool small, inner; /* inner: the store's own */
    bool frees;        /* inner: makes room, so it may use the last of it */
    lim__sync sync;
    lim__on_committed *on_done;
    void *ctx;
    lim__committed result; /* the writer's, until it is told */
    lim__buf found;
    uint32_t walk_index; /* see nth_append */
    size_t walk_pos;
    alignas(8) uint8_t room[LIM__BATCH_INLINE];
};
/* Room for an op at the end, its key and data not filled in; NULL: no memory. */
lim__op *lim__batch_add(lim__batch *b, lim__op_kind kind, size_t key_len, size_t data_len);
void lim__batch_finish_op(lim__batch *b, lim__op *op); /* when key and data are there */
/* A put that ends with the number and the time of a record. Until it is in the log, its flag is OP_STAMPED, and its seq is
 * where the append begins in the batch's ops; in the log it is a put like any other. */
enum { LIM__OP_STAMPED = 1, LIM__STAMP = 16 };
void lim__batch_stamp(lim__batch *b, lim__op *op, uint64_t wall_ns); /* fills that in; the append has its number */

/* ---- the log that is being written ---- */
typedef enum lim__log_state {
    LIM__LOG_GOOD = 1,
    LIM__LOG_BROKEN /* no segment could be written: what the last write did is not known; it is tried again */
} lim__log_state;
typedef struct lim__log {
    lim__log_state state;
    uint64_t lsn, synced_lsn;  /* of the last batch; of the last that is on stable storage */
    uint64_t wall_ns;          /* of the last batch */
    uint64_t sync_due_ns;      /* UINT64_MAX: nobody waits for one */
    uint64_t retry_ns;         /* when BROKEN */
    uint64_t written_bytes;    /* all, since it was opened */
    uint64_t flushed_bytes;    /* bytes written since the index gave its changes to its base */
    uint64_t checkpoint_bytes; /* and since the last checkpoint began */
    uint8_t *buf;              /* the log batch that is being made; aligned */
    size_t cap;
    struct {                   /* log batches that are written and not synced: if that fails, they are written again */
        uint8_t *bytes;        /* aligned; whole batches, one behind the other */
        size_t len, cap;
        uint64_t segment, at;  /* where they are */
    } kept;
} lim__log;

/* ---- upkeep ---- */
typedef enum lim__work { LIM__NO_WORK = 0, LIM__CHECKPOINT, LIM__COMPACTION } lim__work;
typedef struct lim__upkeep {
    lim__work work;
    bool waiting;          /* an inner batch is on its way */
    uint64_t checkpoint;   /* number of the one that is being written; 0: it has not begun */
    lim__key after;        /* pages are written up to this key */
    bool page_is_last;
    uint64_t segment, at;  /* being compacted; how far */
    uint64_t retiring;     /* dropped, and its file is still there; 0: none */
    uint64_t retire_next_ns, seal_next_ns, checkpoint_next_ns;
    uint64_t paced_bytes;  /* log.written_bytes when zeros were written last */
    bool starved;          /* no room for another segment: the disk, or bytes_max */
    int starved_err;       /* why */
    uint64_t starved_next_ns;
    bool told_full;        /* somebody was answered FULL, and there was an event */
} lim__upkeep;

typedef struct lim__sick { /* a place that readers found to be bad; told by the store's thread */
    uint64_t stream, seq;
} lim__sick;
enum { LIM__SICK_MAX = 256 };

typedef enum lim__index_from {
    LIM__INDEX_OPTS = 1, /* as the options say */
    LIM__INDEX_LOOK      /* LMDB's file as it is, changed by nobody: for comparing */
} lim__index_from;

struct lim__store {
    lim__store_opts opts;
    lim__os *os;
    char *dir;
    int lock_file;
    uint64_t store_id;
    lim__segments segments;
    lim__index *index;
    bool has_base;         /* of the index: LMDB */
    lim__index_from from;

    /* the writer's */
    lim__ledger ledger;
    lim__log log;
    lim__upkeep upkeep;
    lim__list queue, done; /* batches: taken from the inbox; answered soon */
    uint64_t batches, syncs;
    uint64_t start_batches, start_bytes; /* of the log, that the start read */
    lim__buf echo;
    uint32_t damages;      /* that were told */
    uint64_t remake_next_ns;

    /* any thread, under its lock */
    lim__mutex inbox_lock;
    lim__list inbox;
    bool closing;
    _Atomic bool attention; /* a reader or the index wants a turn */

    lim__mutex info_lock;
    lim__store_info info;
    lim__sick sick[LIM__SICK_MAX];
    uint32_t sick_count, sick_told;
    void *read_bufs[8]; /* spare ones of readers */
};

void lim__store_event(lim__store *s, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
void lim__store_fail(lim__store_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* log.c */
int lim__log_room(lim__store *s, size_t bytes);  /* in log.buf; 0 or -ENOMEM */
/* The batch in log.buf, whose payload and head (in *h) are complete but for seals: writes it, syncs it if asked, goes on in
 * other segments if the disk fails. 0: it is in the log; *segment, *at: where. -EIO: not known (the log is BROKEN now). */
int lim__log_write(lim__store *s, lim__batch_head *h, bool sync, lim__segment **segment, uint64_t *at);
int lim__log_sync(lim__store *s); /* not 0: it failed, though the log may have gone on, synced, elsewhere */
bool lim__log_roll(lim__store *s); /* to the next prepared segment; false: there is none */
void lim__log_mend(lim__store *s);               /* BROKEN: tries to go on */

/* commit.c: one log write of what waits. False: there was nothing. */
bool lim__commit_group(lim__store *s);
void lim__commit_answer(lim__store *s);
void lim__submit_inner(lim__store *s, lim__batch *b, lim__on_committed *on_done);

/* upkeep.c: a bounded step. True: more to do at once. */
bool lim__upkeep_turn(lim__store *s, uint64_t *next_ns);
bool lim__upkeep_prepare_now(lim__store *s); /* a segment, at once; false: no room */
uint64_t lim__upkeep_reserve(const lim__store *s);
void lim__upkeep_checkpoint(lim__store *s);  /* a whole one, before closing */

/* open.c */
int lim__recover(lim__store *s, lim__store_error *error);
int lim__remake_index(lim__store *s, lim__store_error *error); /* while running, too */
/* store.c */
int lim__store_open_from(const lim__store_opts *opts, lim__index_from from, lim__store_error *error, lim__store **out);
/* The directory, and its name in the one above, or all that is in it could vanish with it. */
int lim__store_make_dir(lim__os *os, const char *dir);
#define LIM__UNFINISHED "unfinished" /* the name of a file in a copy that is being made */
int lim__store_write_format(lim__os *os, const char *dir, uint64_t store_id);
void lim__store_note_damage(lim__store *s, lim__segment *segment, uint64_t at, const char *what);
void lim__info_update(lim__store *s);
bool lim__store_waits(lim__store *s); /* are there batches that wait? */

#endif
