/* SPDX-License-Identifier: Apache-2.0
 * prepare.c - segments come and go: files are written full of zeros before they are needed (J6), and those that are not
 * needed any more become new ones or are removed.
 *
 * A write into blocks that the file has already is half as dear to sync as one that makes it longer, so a segment gets
 * all of its blocks in advance. That is done in steps between log writes, under the name next.tmp; the head is written
 * last, then the file gets its name. A file of the right size that is retired only gets a new head: what is in it has
 * another seed, so nobody takes it for something (J5). */
#include "store/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void paths_of(const lim__segments *t, uint64_t id, char *path, char *next, size_t size)
{
    char name[32];
    lim__segment_name(name, id);
    snprintf(path, size, "%s/%s", t->dir, name);
    snprintf(next, size, "%s/next.tmp", t->dir);
}

static uint64_t next_id(const lim__segments *t)
{
    return t->count ? t->list[t->count - 1]->id + 1 : 1;
}

/* Head, sync, name, sync: then it is there. */
static int finish(lim__segments *t, int file)
{
    char path[4200], next[4200];
    uint64_t id = next_id(t), nonce = t->os->random(t->os);
    uint8_t *block = lim__aligned(LIM__FILE_BLOCK);
    if (!block)
        return -ENOMEM;
    paths_of(t, id, path, next, sizeof path);
    lim__segment_head_make(block, t->store_id, id, nonce, t->segment_bytes);
    int err = lim__write_all(t->os, file, block, LIM__FILE_BLOCK, 0);
    free(block);
    if (err == 0)
        err = t->os->file_sync(t->os, file);
    if (err == 0)
        err = t->os->file_rename(t->os, next, path);
    if (err != 0)
        return err;
    err = t->os->dir_sync(t->os, t->dir);
    lim__segment *s = err == 0 ? lim__segment_add(t, id) : NULL;
    if (!s) { /* it may come back after a power loss, empty: that does no harm */
        (void)t->os->file_remove(t->os, path);
        return err ? err : -ENOMEM;
    }
    s->state = LIM__PREPARED;
    s->size = t->segment_bytes;
    s->seal = (lim__seal){ id, lim__segment_seed(t->store_id, id, nonce) };
    s->nonce = nonce;
    s->loaded = true;
    s->stats.end = LIM__FILE_BLOCK;
    return 0;
}

static int begin(lim__segments *t)
{
    char path[4200], next[4200];
    paths_of(t, 1, path, next, sizeof path);
    int file = t->os->file_open(t->os, next, LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_DIRECT);
    if (file < 0)
        return file;
    t->preparing = (struct lim__preparing){ .file = file };
    return t->os->file_truncate(t->os, file, 0);
}

static void end(lim__segments *t, bool remove)
{
    char path[4200], next[4200];
    paths_of(t, 1, path, next, sizeof path);
    if (t->preparing.file >= 0)
        t->os->file_close(t->os, t->preparing.file);
    if (remove)
        (void)t->os->file_remove(t->os, next);
    t->preparing = (struct lim__preparing){ .file = -1 };
}

static int step(lim__segments *t, size_t bytes)
{
    struct lim__preparing *p = &t->preparing;
    int err = 0;
    if (p->file < 0)
        err = begin(t);
    if (err == 0 && p->done < t->segment_bytes) {
        uint64_t left = t->segment_bytes - p->done;
        size_t part = bytes < LIM__PREPARE_STEP ? bytes : LIM__PREPARE_STEP;
        part = part < left ? part : (size_t)left;
        err = lim__write_all(t->os, p->file, t->zeros, part, p->done);
        p->done += part;
    }
    if (err == 0 && p->done < t->segment_bytes && p->done - p->synced >= LIM__PREPARE_SYNC) {
        err = t->os->file_sync(t->os, p->file); /* a little now, so that there is not too much at the end */
        p->synced = p->done;
    }
    return err;
}

bool lim__segment_prepare(lim__segments *t, size_t bytes, int *err)
{
    *err = step(t, bytes);
    bool more = *err == 0 && t->preparing.done < t->segment_bytes;
    if (!more && *err == 0)
        *err = finish(t, t->preparing.file);
    if (!more)
        end(t, *err != 0);
    return more;
}

int lim__segment_forget(lim__segments *t, lim__segment *s)
{
    char path[4200], next[4200];
    paths_of(t, s->id, path, next, sizeof path);
    int err = t->os->file_remove(t->os, path);
    if (err == 0 || err == -ENOENT)
        err = t->os->dir_sync(t->os, t->dir);
    if (err == 0)
        lim__segment_unlist(t, s);
    return err;
}

static bool is_read(lim__segments *t, lim__segment *s)
{
    pthread_mutex_lock(&t->lock);
    bool read = s->refs > 0;
    pthread_mutex_unlock(&t->lock);
    return read;
}

int lim__segment_retire(lim__segments *t, lim__segment *s, bool again)
{
    char path[4200], next[4200];
    if (!again || t->preparing.file >= 0 || s->size != t->segment_bytes || s->stats.suspect || is_read(t, s))
        return lim__segment_forget(t, s);
    paths_of(t, s->id, path, next, sizeof path);
    int err = t->os->file_rename(t->os, path, next);
    if (err == 0)
        err = t->os->dir_sync(t->os, t->dir);
    if (err != 0)
        return err == -ENOENT ? lim__segment_forget(t, s) : err;
    lim__segment_unlist(t, s);
    int file = t->os->file_open(t->os, next, LIM__FILE_WRITE | LIM__FILE_DIRECT);
    t->preparing.file = file; /* what goes wrong from here on costs a file, which is removed */
    end(t, file < 0 || finish(t, file) != 0);
    return 0;
}
