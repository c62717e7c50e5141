/* SPDX-License-Identifier: Apache-2.0
 * index.h - where things are: a map from bytes to bytes in order, that can be lost at any time and made again from the
 * log. What its keys and values mean is state.h's business.
 *
 *      pending   the writer's own, until it commits      \
 *      recent    committed, in memory                     > sorted maps; what is above hides what is below
 *      frozen    on its way to the base                  /
 *      base      a table of functions: LMDB, or nothing at all (the simulator, read-only stores)
 *
 * The base gets everything as of one lsn in one transaction that is synced before it counts, on a thread of its own, a few
 * times in a minute and not for each log write: so LMDB's syncs are nobody's latency, and after a power loss it is a
 * little behind the log, never ahead of it, never torn.
 *
 * Threads: seek and get are for any thread, what is marked (w) for the writer alone. A base that finds itself damaged makes
 * every read answer -EAGAIN until the writer has made the index anew. */
#ifndef LIM__STORE_INDEX_H
#define LIM__STORE_INDEX_H

#include "base/buf.h"
#include "os/os.h"
#include "store/sorted.h"

typedef struct lim__index lim__index;

/* What lies below. seek and view: any thread; the others: one at a time. */
typedef struct lim__base_ops {
    void *(*view)(void *base); /* what is there now, for one seek; NULL: no memory */
    void (*unview)(void *base, void *view);
    /* 0, -ENOENT, -ENOMEM; -EBADMSG: damaged. */
    int (*seek)(void *base, void *view, lim_bytes key, lim__seek where, lim__buf *found, lim__buf *value);
    int (*write)(void *base, const lim__sorted *changes); /* all of it, on stable storage, or nothing; -errno */
    int (*wipe)(void *base);                              /* empty, on stable storage; nobody has a view */
    void (*close)(void *base);
} lim__base_ops;
typedef struct lim__base {
    const lim__base_ops *ops; /* NULL: there is none */
    void *self;
} lim__base;

/* Opens (or makes) an LMDB environment in this directory. One that is damaged is emptied. 0 or -errno. */
int lim__lmdb_open(lim__os *os, const char *dir, uint64_t map_bytes, lim__base *out);
/* The same, for looking only: -EBADMSG, -ENOENT, and nothing is changed. Its write answers -EROFS. */
int lim__lmdb_look(lim__os *os, const char *dir, lim__base *out);

/* on_event: the base is damaged, or has taken its changes, or could not. Any thread; may be NULL. */
int lim__index_open(lim__base base, void (*on_event)(void *ctx), void *ctx, lim__index **out); /* owns the base; -ENOMEM */
void lim__index_close(lim__index *ix); /* waits for the base's thread; what is recent is dropped: the log has it */

/* 0, -ENOENT, -ENOMEM; -EAGAIN: damaged, being made anew. The buffers are emptied first; found may be NULL. */
int lim__index_seek(lim__index *ix, lim_bytes key, lim__seek where, lim__buf *found, lim__buf *value);
int lim__index_get(lim__index *ix, lim_bytes key, lim__buf *value);

int lim__index_w_seek(lim__index *ix, lim_bytes key, lim__seek where, lim__buf *found, lim__buf *value); /* (w) */
int lim__index_w_get(lim__index *ix, lim_bytes key, lim__buf *value);                                    /* (w) */
/* (w) Seen by others after commit. What fails for want of memory makes the index damaged. value.ptr NULL: delete. */
void lim__index_put(lim__index *ix, lim_bytes key, lim_bytes value);
void lim__index_commit(lim__index *ix, uint64_t lsn); /* (w) */
bool lim__index_damaged(lim__index *ix);              /* reads answer -EAGAIN, and so do commits' readers */
void lim__index_damage(lim__index *ix);               /* somebody found out */
/* (w) Begins anew with nothing; reads answer -EAGAIN until lim__index_ready. 0 or the base's -errno. */
int lim__index_wipe(lim__index *ix);
void lim__index_loaded(lim__index *ix, uint64_t lsn); /* (w) the base was found to be as of this */
void lim__index_ready(lim__index *ix);                /* (w) */

/* (w) What is recent goes to the base, unless something is on its way already. wait: until all has arrived; 0 or the
 * base's last -errno. Call it only when the log is on stable storage up to the last commit. */
int lim__index_flush(lim__index *ix, bool wait);
size_t lim__index_recent(lim__index *ix);      /* bytes in memory that the base does not have; 0: there is no base */
uint64_t lim__index_stable(lim__index *ix);    /* lsn that the base has for good; UINT64_MAX: there is no base */

#endif
