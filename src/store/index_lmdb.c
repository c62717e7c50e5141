/* SPDX-License-Identifier: Apache-2.0
 * index_lmdb.c - the index's base: one LMDB environment, one unnamed table in it.
 *
 * What LMDB needs to be treated with:
 *   - its pages have no checksums, and what it finds in a damaged page it believes, to the point of leaving the file
 * that it has mapped. So the file is read and checked as a whole before LMDB sees it (lmdb_check.c), and each value
 * that is read later is checked by itself. What is damaged is removed: the log has it all;
 *   - readers are not bound to threads (MDB_NOTLS), and none lives longer than one seek, or the file could not reuse
 * pages;
 *   - no MDB_DUPSORT: 0.9.24 has errors there;
 *   - one environment for a path in one program: the store's lock sees to that. The table of readers is a file, too; it
 * is removed before opening, as there can be no reader;
 *   - a write transaction belongs to its thread: the index has one for that.
 * Commits are synced in full, so after a crash LMDB is as of its last or last but one transaction. */
#include "store/index_lmdb.h"
#include "base/crc32c.h"
#include "store/index.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

enum { READERS_MAX = 1000, SPARE_MAX = 32 };

typedef struct lmdb_base {
    lim__os *os;
    char dir[4096];
    uint64_t map_bytes;
    MDB_env *env;
    MDB_dbi dbi;
    lim__mutex lock; /* spare */
    MDB_txn *spare[SPARE_MAX];
    int spare_count;
} lmdb_base;

uint32_t lim__lmdb_crc(lim_bytes key, lim_bytes value)
{
    return lim__crc32c(lim__crc32c(0, key.ptr, key.len), value.ptr, value.len);
}

static int to_errno(int rc)
{
    if (rc == 0)
        return 0;
    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    if (rc == MDB_MAP_FULL)
        return -ENOSPC;
    return rc > 0 ? -rc : rc == MDB_READERS_FULL || rc == MDB_TXN_FULL ? -ENOMEM : -EBADMSG;
}

static MDB_val val(lim_bytes b)
{
    return (MDB_val){ b.len, (void *)(uintptr_t)b.ptr };
}

static lim_bytes bytes(MDB_val v)
{
    return lim__bytes(v.mv_data, v.mv_size);
}

/* ---- opening ---- */

static void path_in(const lmdb_base *b, const char *name, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", b->dir, name);
}

static int remove_file(const lmdb_base *b, const char *name)
{
    char path[4200];
    path_in(b, name, path, sizeof path);
    int err = b->os->file_remove(b->os, path);
    return err == -ENOENT ? 0 : err;
}

static int open_table(lmdb_base *b)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(b->env, NULL, 0, &txn);
    if (rc != 0)
        return to_errno(rc);
    rc = mdb_dbi_open(txn, NULL, 0, &b->dbi);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return to_errno(rc);
    }
    return to_errno(mdb_txn_commit(txn));
}

static int open_env(lmdb_base *b)
{
    int err = remove_file(b, "lock.mdb");
    if (err != 0)
        return err;
    int rc = mdb_env_create(&b->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(b->env, b->map_bytes);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(b->env, READERS_MAX);
    if (rc == 0)
        rc = mdb_env_open(b->env, b->dir, MDB_NOTLS | MDB_NORDAHEAD, 0600);
    return rc ? to_errno(rc) : open_table(b);
}

static void close_env(lmdb_base *b)
{
    while (b->spare_count > 0)
        mdb_txn_abort(b->spare[--b->spare_count]);
    if (b->env)
        mdb_env_close(b->env);
    b->env = NULL;
}

static int wipe(void *base)
{
    lmdb_base *b = base;
    close_env(b);
    int err = remove_file(b, "data.mdb");
    return err ? err : open_env(b);
}

static void close_base(void *base)
{
    lmdb_base *b = base;
    close_env(b);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* ---- reading ---- */

static void *view(void *base)
{
    lmdb_base *b = base;
    MDB_txn *txn = NULL;
    pthread_mutex_lock(&b->lock);
    if (b->spare_count > 0)
        txn = b->spare[--b->spare_count];
    pthread_mutex_unlock(&b->lock);
    if (txn && mdb_txn_renew(txn) != 0) {
        mdb_txn_abort(txn);
        txn = NULL;
    }
    return txn || mdb_txn_begin(b->env, NULL, MDB_RDONLY, &txn) == 0 ? txn : NULL;
}

static void unview(void *base, void *txn)
{
    lmdb_base *b = base;
    mdb_txn_reset(txn);
    pthread_mutex_lock(&b->lock);
    bool kept = b->spare_count < SPARE_MAX;
    if (kept)
        b->spare[b->spare_count++] = txn;
    pthread_mutex_unlock(&b->lock);
    if (!kept)
        mdb_txn_abort(txn);
}

static int move(MDB_cursor *cursor, lim_bytes key, lim__seek where, MDB_val *k, MDB_val *v)
{
    *k = val(key);
    int rc = mdb_cursor_get(cursor, k, v, MDB_SET_RANGE);
    bool same = rc == 0 && lim__bytes_eq(bytes(*k), key);
    switch (where) {
    case LIM__SEEK_GE:
        return rc;
    case LIM__SEEK_GT:
        return same ? mdb_cursor_get(cursor, k, v, MDB_NEXT) : rc;
    case LIM__SEEK_LE:
        if (same)
            return rc;
        break;
    case LIM__SEEK_LT:
        break;
    }
    return rc == MDB_NOTFOUND ? mdb_cursor_get(cursor, k, v, MDB_LAST)
                              : (rc ? rc : mdb_cursor_get(cursor, k, v, MDB_PREV));
}

/* The checksum stands behind the value. False: it is not right. */
static bool unseal(lim_bytes key, lim_bytes stored, lim_bytes *value)
{
    uint32_t crc;
    if (stored.len < sizeof crc)
        return false;
    *value = lim__bytes(stored.ptr, stored.len - sizeof crc);
    memcpy(&crc, (const uint8_t *)stored.ptr + value->len, sizeof crc);
    return crc == lim__lmdb_crc(key, *value);
}

static int fill(lim__buf *to, lim_bytes from)
{
    to->start = to->end = 0;
    lim__buf_add(to, from.ptr, from.len);
    bool failed = to->failed;
    to->failed = false;
    return failed ? -ENOMEM : 0;
}

static int seek(void *base, void *txn, lim_bytes key, lim__seek where, lim__buf *found, lim__buf *value)
{
    lmdb_base *b = base;
    MDB_cursor *cursor;
    MDB_val k, v;
    lim_bytes content;
    bool forward = where == LIM__SEEK_GE || where == LIM__SEEK_GT;
    if (key.len == 0) { /* before all, and nothing that LMDB would look for */
        if (!forward)
            return -ENOENT;
        key = lim__bytes("\1", 1);
        where = LIM__SEEK_GE;
    }
    int rc = mdb_cursor_open(txn, b->dbi, &cursor);
    if (rc != 0)
        return to_errno(rc);
    rc = move(cursor, key, where, &k, &v);
    mdb_cursor_close(cursor);
    if (rc != 0)
        return to_errno(rc);
    if (k.mv_size == 0 || *(const char *)k.mv_data == 0) /* the sum: the first of all, so there is nothing before */
        return -ENOENT;
    if (!unseal(bytes(k), bytes(v), &content))
        return -EBADMSG;
    int err = fill(found, bytes(k));
    return err ? err : fill(value, content);
}

/* ---- writing ---- */

typedef struct writing {
    MDB_txn *txn;
    MDB_dbi dbi;
    lim__lmdb_sum sum;
    lim__buf sealed;
} writing;

static int forget(writing *w, lim_bytes key)
{
    MDB_val k = val(key), old;
    int rc = mdb_get(w->txn, w->dbi, &k, &old);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    w->sum.count--;
    w->sum.sum -= lim__lmdb_hash(key, bytes(old));
    return mdb_del(w->txn, w->dbi, &k, NULL);
}

static int put_sealed(writing *w, lim_bytes key, lim_bytes value)
{
    uint32_t crc = lim__lmdb_crc(key, value);
    w->sealed.start = w->sealed.end = 0;
    lim__buf_add(&w->sealed, value.ptr, value.len);
    lim__buf_add(&w->sealed, &crc, sizeof crc);
    if (w->sealed.failed)
        return ENOMEM;
    MDB_val k = val(key), v = val(lim__buf_bytes(&w->sealed));
    return mdb_put(w->txn, w->dbi, &k, &v, 0);
}

static int write_entry(writing *w, const lim__entry *e)
{
    lim_bytes key = lim__entry_key(e);
    int rc = forget(w, key);
    if (rc != 0 || e->gone)
        return rc;
    rc = put_sealed(w, key, lim__entry_value(e));
    w->sum.count++;
    w->sum.sum += lim__lmdb_hash(key, lim__buf_bytes(&w->sealed));
    return rc;
}

static int read_sum(writing *w)
{
    MDB_val k = val(LIM__LMDB_SUM_KEY), v;
    lim_bytes content;
    int rc = mdb_get(w->txn, w->dbi, &k, &v);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc != 0)
        return rc;
    if (!unseal(LIM__LMDB_SUM_KEY, bytes(v), &content) || content.len != sizeof w->sum)
        return MDB_CORRUPTED;
    memcpy(&w->sum, content.ptr, sizeof w->sum);
    return 0;
}

static int write_changes(void *base, const lim__sorted *changes)
{
    lmdb_base *b = base;
    writing w = { .dbi = b->dbi };
    int rc = mdb_txn_begin(b->env, NULL, 0, &w.txn);
    if (rc != 0)
        return to_errno(rc);
    rc = read_sum(&w);
    for (const lim__entry *e = changes->first[0]; e && rc == 0; e = e->next[0])
        rc = write_entry(&w, e);
    if (rc == 0)
        rc = put_sealed(&w, LIM__LMDB_SUM_KEY, lim__bytes(&w.sum, sizeof w.sum));
    lim__buf_fini(&w.sealed);
    if (rc != 0) {
        mdb_txn_abort(w.txn);
        return to_errno(rc);
    }
    return to_errno(mdb_txn_commit(w.txn));
}

static int write_nothing(void *base, const lim__sorted *changes)
{
    (void)base, (void)changes;
    return -EROFS;
}

static int wipe_nothing(void *base)
{
    (void)base;
    return -EROFS;
}

static const lim__base_ops look_ops = { view, unview, seek, write_nothing, wipe_nothing, close_base };
static const lim__base_ops ops = { view, unview, seek, write_changes, wipe, close_base };

static lmdb_base *base_new(lim__os *os, const char *dir, char path[4200])
{
    lmdb_base *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->os = os;
    snprintf(b->dir, sizeof b->dir, "%s", dir);
    pthread_mutex_init(&b->lock, NULL);
    path_in(b, "data.mdb", path, 4200);
    return b;
}

static int look_env(lmdb_base *b)
{
    MDB_txn *txn;
    int rc = mdb_env_create(&b->env);
    if (rc == 0)
        rc = mdb_env_open(b->env, b->dir, MDB_NOTLS | MDB_RDONLY | MDB_NOLOCK, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(b->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return to_errno(rc);
    rc = mdb_dbi_open(txn, NULL, 0, &b->dbi);
    mdb_txn_abort(txn);
    return to_errno(rc);
}

int lim__lmdb_look(lim__os *os, const char *dir, lim__base *out)
{
    char path[4200];
    lmdb_base *b = base_new(os, dir, path);
    int err = b ? lim__lmdb_check(os, path) : -ENOMEM;
    if (err == 0)
        err = look_env(b);
    if (err != 0) {
        if (b)
            close_base(b);
        return err;
    }
    *out = (lim__base){ &look_ops, b };
    return 0;
}

int lim__lmdb_open(lim__os *os, const char *dir, uint64_t map_bytes, lim__base *out)
{
    char path[4200];
    lmdb_base *b = base_new(os, dir, path);
    if (!b)
        return -ENOMEM;
    b->map_bytes = map_bytes;
    int err = os->dir_create(os, dir);
    if (err == 0 && lim__lmdb_check(os, path) != 0)
        err = remove_file(b, "data.mdb");
    if (err == 0)
        err = open_env(b);
    if (err == -EBADMSG) /* it passed the check, and LMDB does not like it: another version's, say */
        err = wipe(b);
    if (err != 0) {
        close_base(b);
        return err;
    }
    *out = (lim__base){ &ops, b };
    return 0;
}
