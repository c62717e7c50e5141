/* SPDX-License-Identifier: Apache-2.0
 * backup.c - a copy of the log, of one instant, while writing goes on.
 *
 * The segments that there are at that instant are pinned: none of their files goes, and what is in them up to that
 * instant does not change any more, but for one thing: while the copy is made, the last of them may become full and be
 * sealed, and then its head says where it ends, which is behind what the copy has of it. So the last one is copied up
 * to where the log ended, with a head that says nothing of an end; the others are copied byte for byte. The index is
 * not copied: whoever opens the copy makes it from the log.
 *
 * Segments that are damaged are copied as they are: a store with a bad place must be possible to copy. Until all is
 * there, a file `unfinished` lies beside them, with which nobody opens it: half of the segments would pass for a store.
 */
#include "store/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 1 << 20 };

/* Its head is good, or nothing is known of it but its bytes. */
static int size_of(lim__store *s, lim__segment *from, const lim__segment_extent *extent, uint64_t *end)
{
    int err = lim__segment_load(&s->segments, from);
    if (err == 0)
        *end = extent->end < from->size ? extent->end : from->size;
    if (err != -EBADMSG)
        return err;
    char name[32], path[4200];
    lim__segment_name(name, from->id);
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    int file = s->os->file_open(s->os, path, 0);
    int64_t size = file < 0 ? file : s->os->file_size(s->os, file);
    if (file >= 0)
        s->os->file_close(s->os, file);
    *end = size < 0 ? 0 : (uint64_t)size;
    return size < 0 ? (int)size : 0;
}

static int copy_bytes(lim__store *s, lim__segment *from, int to, const lim__segment_extent *extent, uint8_t *buf)
{
    uint64_t end = 0;
    int err = size_of(s, from, extent, &end);
    bool is_last = from->loaded && extent->end != UINT64_MAX && !LIM__MUTATION("copy_is_sealed");
    for (uint64_t at = 0; err == 0 && at < end; at += STEP) {
        size_t part = end - at < STEP ? (size_t)(end - at) : STEP;
        err = lim__segment_read(&s->segments, from, buf, part, at);
        if (err == 0 && at == 0 && is_last)
            lim__segment_head_make(buf, s->store_id, from->id, from->nonce, s->segments.segment_bytes);
        if (err == 0)
            err = lim__write_all(s->os, to, buf, part, at);
    }
    return err ? err : s->os->file_sync(s->os, to);
}

static int copy_segment(lim__store *s, const lim__segment_extent *extent, const char *to_dir, uint8_t *buf)
{
    char name[32], path[4200];
    lim__segment *from = lim__segment_ref(&s->segments, extent->id);
    if (!from)
        return -ENOENT;
    lim__segment_name(name, extent->id);
    snprintf(path, sizeof path, "%s/%s", to_dir, name);
    int to = s->os->file_open(s->os, path, LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_EXCLUSIVE);
    int err = to < 0 ? to : copy_bytes(s, from, to, extent, buf);
    if (to >= 0)
        s->os->file_close(s->os, to);
    lim__segment_unref(&s->segments, from);
    return err;
}

static void count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(size_t *)ctx;
}

/* The directory is made, or is there and empty. */
static int make_empty(lim__os *os, const char *dir)
{
    size_t names = 0;
    int err = lim__store_make_dir(os, dir);
    if (err == 0)
        err = os->dir_list(os, dir, count_name, &names);
    return err ? err : names > 0 ? -EEXIST : 0;
}

static void path_in(const char *dir, const char *name, char path[4200])
{
    snprintf(path, 4200, "%s/%s", dir, name);
}

static int mark_unfinished(lim__os *os, const char *dir)
{
    char path[4200];
    path_in(dir, LIM__UNFINISHED, path);
    int file = os->file_open(os, path, LIM__FILE_WRITE | LIM__FILE_CREATE);
    int err = file < 0 ? file : os->file_sync(os, file);
    if (file >= 0)
        os->file_close(os, file);
    return err ? err : os->dir_sync(os, dir);
}

static int finish(lim__store *s, const char *dir)
{
    char path[4200];
    int err = lim__store_write_format(s->os, dir, s->store_id);
    path_in(dir, LIM__UNFINISHED, path);
    if (err == 0)
        err = s->os->file_remove(s->os, path);
    return err ? err : s->os->dir_sync(s->os, dir);
}

/* What was copied so far; the mark last. */
static void remove_copy(lim__store *s, const lim__segment_extent *list, size_t count, const char *dir)
{
    char name[32], path[4200];
    for (size_t i = 0; list && i < count; i++) {
        lim__segment_name(name, list[i].id);
        path_in(dir, name, path);
        (void)s->os->file_remove(s->os, path);
    }
    path_in(dir, "format", path);
    (void)s->os->file_remove(s->os, path);
    path_in(dir, "format.tmp", path);
    (void)s->os->file_remove(s->os, path);
    (void)s->os->dir_sync(s->os, dir);
    path_in(dir, LIM__UNFINISHED, path);
    (void)s->os->file_remove(s->os, path);
}

int lim__store_backup(lim__store *s, const char *to_dir, lim__store_error *error)
{
    size_t count = 0;
    int err = strlen(to_dir) < 4000 ? make_empty(s->os, to_dir) : -ENAMETOOLONG;
    if (err != 0) {
        lim__store_fail(error, "%s cannot take a copy: %s", to_dir,
                        err == -EEXIST ? "it is not empty" : strerror(-err));
        return err;
    }
    uint8_t *buf = malloc(STEP);
    lim__segment_extent *list = buf ? lim__segments_pin(&s->segments, &count) : NULL;
    err = list ? mark_unfinished(s->os, to_dir) : -ENOMEM;
    if (list && err != 0)
        lim__store_fail(error, "%s cannot take a copy: %s", to_dir, strerror(-err));
    for (size_t i = 0; list && err == 0 && i < count; i++) {
        err = copy_segment(s, &list[i], to_dir, buf);
        if (err != 0)
            lim__store_fail(error, "segment %016llx could not be copied to %s: %s", (unsigned long long)list[i].id,
                            to_dir, strerror(-err));
    }
    if (list)
        lim__segments_unpin(&s->segments);
    int copied = err;
    err = err ? err : finish(s, to_dir);
    if (err != 0)
        remove_copy(s, list, count, to_dir);
    if (err == -ENOMEM)
        lim__store_fail(error, "out of memory");
    else if (err != 0 && copied == 0)
        lim__store_fail(error, "the copy in %s could not be finished: %s", to_dir, strerror(-err));
    free(list);
    free(buf);
    return err;
}

int lim__store_copy(lim__os *os, const char *dir, const char *to_dir, lim__store_error *error)
{
    lim__store *s = NULL;
    lim__store_opts opts = { .os = os, .dir = dir, .segment_bytes = LIM__SEGMENT_BYTES_MIN, .read_only = true };
    int err = lim__store_open(&opts, error, &s);
    if (err == 0)
        err = lim__store_backup(s, to_dir, error);
    lim__store_close(s);
    return err;
}
