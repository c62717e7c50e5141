/* SPDX-License-Identifier: Apache-2.0
 * segment.h - the files of the log: one segment after the other, each written once from its beginning to its end.
 *
 *                 .-- zeros, a step at a time; or an old file under a new name --.
 *   (nothing) ----+                                                              +--> PREPARED --activate--> CURRENT
 *                 `--------------------------------------------------------------'                              |
 *                     gone <--drop-- DEAD <--(nothing in it is needed)-- SEALED <--full, or the disk failed-----'
 *
 * Names: 0000000000000001.seg, in hexadecimal, in the order in which they were prepared and so of the log. What is being
 * prepared is called next.tmp and removed when the store opens.
 *
 * Threads: the table and the handles are under its lock, so that anybody can read; a segment that somebody reads is not
 * used again for something else. Everything else is the writer's. */
#ifndef LIM__STORE_SEGMENT_H
#define LIM__STORE_SEGMENT_H

#include <stdatomic.h>

#include "store/format.h"
#include "store/store.h"

typedef enum lim__segment_state { LIM__PREPARED = 1, LIM__CURRENT, LIM__SEALED } lim__segment_state;

/* What is kept of each segment in the index, too. */
typedef struct lim__segment_stats {
    uint64_t first_lsn, last_lsn; /* 0: no batch */
    uint64_t end;                 /* where the next batch would begin */
    uint64_t live_bytes, live_records;
    uint32_t erases;  /* ops that may still be needed: see upkeep.c */
    uint32_t damages; /* places that went bad */
    uint32_t keyed;   /* records with keys */
    uint32_t suspect; /* a write or a sync failed: readers go past the page cache, and it is looked at again */
} lim__segment_stats;

typedef struct lim__segment {
    uint64_t id;
    /* the writer's */
    lim__segment_state state;
    lim__segment_stats stats;
    bool dropped; /* nothing in it is needed, the log says so: its file is about to go */
    bool checked; /* suspect, and was looked at */
    bool stuck;   /* damaged: it stays */
    bool changed; /* in the table's list of those whose stats the index does not have */
    struct lim__segment *next_changed;
    int write_file; /* DIRECT; -1: not open */
    /* under the table's lock */
    _Atomic bool loaded; /* size, seal and sealed are known, and do not change any more, except that cutting changes the size */
    bool past_cache;  /* readers must not believe the page cache */
    bool sealed;      /* its head says where it ends: */
    uint64_t sealed_last_lsn, sealed_end;
    uint64_t nonce;
    bool leaving;     /* its file is about to go */
    bool unlisted;    /* not in the table: whoever gives the last reference back frees it */
    uint64_t size;
    lim__seal seal;
    int read_files[2]; /* through the page cache, past it; -1: not open */
    uint32_t refs;
    uint64_t used; /* when it was last asked for, for closing old handles */
} lim__segment;

typedef struct lim__segments {
    lim__os *os;
    const char *dir; /* borrowed */
    uint64_t store_id, segment_bytes;
    lim__mutex lock;
    lim__segment **list; /* by id */
    size_t count, cap;
    size_t open_files;
    uint64_t clock;
    uint32_t pins;                          /* while there are any, no segment goes */
    uint64_t visible_segment, visible_end;  /* where the log ends, for those who copy it */
    /* the writer's */
    lim__segment *changed;
    struct lim__preparing {
        int file; /* -1: nothing */
        uint64_t done, synced;
    } preparing;
    uint8_t *zeros; /* LIM__PREPARE_STEP of them, aligned */
} lim__segments;
enum { LIM__PREPARE_STEP = 1 << 20, LIM__PREPARE_SYNC = 8 << 20, LIM__FILES_OPEN_MAX = 128 };

int lim__segments_init(lim__segments *t, lim__os *os, const char *dir, uint64_t store_id, uint64_t segment_bytes);
void lim__segments_fini(lim__segments *t);
void lim__segment_name(char out[32], uint64_t id); /* "0000000000000001.seg" */
uint64_t lim__segment_id_of(const char *name);     /* 0: not a segment's name */

lim__segment *lim__segment_add(lim__segments *t, uint64_t id); /* NULL: no memory; state SEALED, nothing known */
lim__segment *lim__segment_find(lim__segments *t, uint64_t id); /* the writer; NULL: none */
void lim__segment_touch(lim__segments *t, lim__segment *s); /* its stats changed */
lim__segment *lim__segment_take_changed(lim__segments *t);  /* NULL: no more */
lim__segment *lim__segment_newest(lim__segments *t, lim__segment_state state); /* the writer; NULL: none */
lim__segment *lim__segment_oldest(lim__segments *t, lim__segment_state state);
size_t lim__segment_number(lim__segments *t, lim__segment_state state); /* how many */
uint64_t lim__segments_bytes(lim__segments *t);                         /* of all files */
/* Reads head and size if they are not known. 0; -ENOENT; -EBADMSG: neither copy of the head is good; -errno. */
int lim__segment_load(lim__segments *t, lim__segment *s);

/* ---- making segments ---- */
/* A step: true while there is more to do. *err: 0, or why this one was given up (-ENOSPC ...). */
bool lim__segment_prepare(lim__segments *t, size_t bytes, int *err);
/* The file of a segment that nobody needs any more: its name goes, and it becomes the next prepared one if `again` and
 * nobody reads it. The segment is gone from the table when 0 is returned. */
int lim__segment_retire(lim__segments *t, lim__segment *s, bool again);
int lim__segment_forget(lim__segments *t, lim__segment *s); /* removes its file, whatever it is */
void lim__segment_unlist(lim__segments *t, lim__segment *s); /* its file is not there */

/* ---- bytes; the writer ---- */
/* All of it or -errno. Aligned. */
int lim__segment_write(lim__segments *t, lim__segment *s, const void *buf, size_t len, uint64_t at);
int lim__segment_zero(lim__segments *t, lim__segment *s); /* all behind its end */
int lim__segment_sync(lim__segments *t, lim__segment *s);
int lim__segment_seal_up(lim__segments *t, lim__segment *s); /* writes into its head where it ends */
int lim__segment_cut(lim__segments *t, lim__segment *s); /* gives back what lies behind its end */
/* From the disk, not the page cache, into an aligned buffer. Blocks that cannot be read are zero; *bad: where the last one
 * ends in the buffer, 0: there was none. */
int lim__segment_read_direct(lim__segments *t, lim__segment *s, uint8_t *buf, size_t len, uint64_t at, size_t *bad);
void lim__segment_close_write(lim__segments *t, lim__segment *s);
void lim__segment_distrust(lim__segments *t, lim__segment *s); /* makes it suspect */

/* ---- bytes; any thread ---- */
lim__segment *lim__segment_ref(lim__segments *t, uint64_t id); /* NULL: it is not there */
void lim__segment_unref(lim__segments *t, lim__segment *s);
/* Exactly len bytes: 0, -EBADMSG (beyond the end), -errno. The caller has a reference. */
int lim__segment_read(lim__segments *t, lim__segment *s, void *buf, size_t len, uint64_t at);

/* ---- copying all of it; any thread ---- */
typedef struct lim__segment_extent {
    uint64_t id, end; /* end UINT64_MAX: all of the file */
} lim__segment_extent;
/* The segments of one instant, which stay until they are let go. NULL: no memory. */
lim__segment_extent *lim__segments_pin(lim__segments *t, size_t *count);
void lim__segments_unpin(lim__segments *t);
bool lim__segment_leave(lim__segments *t, lim__segment *s); /* the writer: may its file go? */
void lim__segments_show(lim__segments *t, const lim__segment *s, uint64_t end); /* the writer: the log ends there now */

void *lim__aligned(size_t bytes); /* LIM__FILE_BLOCK; free() it */
/* All of it: 0 or -errno. */
int lim__write_all(lim__os *os, int file, const void *buf, size_t len, uint64_t at);

#endif
