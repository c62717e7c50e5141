/* SPDX-License-Identifier: Apache-2.0
 * segment.c - the table of segments, and reading and writing their bytes. Making and removing files: prepare.c. */
#include "store/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void *lim__aligned(size_t bytes)
{
    return aligned_alloc(LIM__FILE_BLOCK, (size_t)lim__up(bytes ? bytes : 1, LIM__FILE_BLOCK));
}

int lim__write_all(lim__os *os, int file, const void *buf, size_t len, uint64_t at)
{
    for (size_t done = 0; done < len;) {
        long n = os->file_write(os, file, (const uint8_t *)buf + done, len - done, at + done);
        if (n <= 0)
            return n < 0 ? (int)n : -ENOSPC;
        done += (size_t)n;
    }
    return 0;
}

int lim__segments_init(lim__segments *t, lim__os *os, const char *dir, uint64_t store_id, uint64_t segment_bytes)
{
    *t = (lim__segments){ .os = os, .dir = dir, .store_id = store_id, .segment_bytes = segment_bytes };
    t->preparing.file = -1;
    pthread_mutex_init(&t->lock, NULL);
    t->zeros = lim__aligned(LIM__PREPARE_STEP);
    if (!t->zeros)
        return -ENOMEM;
    memset(t->zeros, 0, LIM__PREPARE_STEP);
    return 0;
}

static void close_reading(lim__segments *t, lim__segment *s)
{
    for (int i = 0; i < 2; i++) {
        if (s->read_files[i] >= 0) {
            t->os->file_close(t->os, s->read_files[i]);
            t->open_files--;
        }
        s->read_files[i] = -1;
    }
}

static void segment_free(lim__segments *t, lim__segment *s)
{
    close_reading(t, s);
    free(s);
}

void lim__segments_fini(lim__segments *t)
{
    if (!t->os)
        return;
    for (size_t i = 0; i < t->count; i++) {
        LIM_ASSERT(t->list[i]->refs == 0);
        lim__segment_close_write(t, t->list[i]);
        segment_free(t, t->list[i]);
    }
    if (t->preparing.file >= 0)
        t->os->file_close(t->os, t->preparing.file);
    free(t->list);
    free(t->zeros);
    pthread_mutex_destroy(&t->lock);
    *t = (lim__segments){ 0 };
}

/* ---- names ---- */

void lim__segment_name(char out[32], uint64_t id)
{
    snprintf(out, 32, "%016llx.seg", (unsigned long long)id);
}

uint64_t lim__segment_id_of(const char *name)
{
    char again[32];
    unsigned long long id = 0;
    if (strlen(name) != 20 || sscanf(name, "%16llx.seg", &id) != 1)
        return 0;
    lim__segment_name(again, id);
    return strcmp(again, name) == 0 ? id : 0;
}

static void path_of(const lim__segments *t, uint64_t id, char *path, size_t size)
{
    char name[32];
    lim__segment_name(name, id);
    snprintf(path, size, "%s/%s", t->dir, name);
}

/* ---- the table ---- */

/* Where it is, or would be. */
static size_t place_of(const lim__segments *t, uint64_t id)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->list[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

lim__segment *lim__segment_find(lim__segments *t, uint64_t id)
{
    size_t at = place_of(t, id);
    return at < t->count && t->list[at]->id == id ? t->list[at] : NULL;
}

lim__segment *lim__segment_add(lim__segments *t, uint64_t id)
{
    LIM_ASSERT(id != 0 && !lim__segment_find(t, id));
    lim__segment *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    *s = (lim__segment){ .id = id, .state = LIM__SEALED, .write_file = -1, .read_files = { -1, -1 } };
    pthread_mutex_lock(&t->lock);
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 16;
        lim__segment **list = realloc(t->list, cap * sizeof *list);
        if (!list) {
            pthread_mutex_unlock(&t->lock);
            free(s);
            return NULL;
        }
        t->list = list;
        t->cap = cap;
    }
    size_t at = place_of(t, id);
    memmove(t->list + at + 1, t->list + at, (t->count - at) * sizeof *t->list);
    t->list[at] = s;
    t->count++;
    pthread_mutex_unlock(&t->lock);
    return s;
}

void lim__segment_touch(lim__segments *t, lim__segment *s)
{
    if (s->changed)
        return;
    s->changed = true;
    s->next_changed = t->changed;
    t->changed = s;
}

lim__segment *lim__segment_take_changed(lim__segments *t)
{
    lim__segment *s = t->changed;
    if (s) {
        t->changed = s->next_changed;
        s->changed = false;
    }
    return s;
}

static void untouch(lim__segments *t, lim__segment *s)
{
    for (lim__segment **at = &t->changed; s->changed && *at; at = &(*at)->next_changed) {
        if (*at == s) {
            *at = s->next_changed;
            s->changed = false;
            break;
        }
    }
}

/* Readers that hold it free it. */
void lim__segment_unlist(lim__segments *t, lim__segment *s)
{
    untouch(t, s);
    lim__segment_close_write(t, s);
    pthread_mutex_lock(&t->lock);
    size_t at = place_of(t, s->id);
    LIM_ASSERT(at < t->count && t->list[at] == s);
    memmove(t->list + at, t->list + at + 1, (t->count - at - 1) * sizeof *t->list);
    t->count--;
    s->unlisted = true;
    if (s->refs == 0)
        segment_free(t, s);
    pthread_mutex_unlock(&t->lock);
}

lim__segment *lim__segment_newest(lim__segments *t, lim__segment_state state)
{
    for (size_t i = t->count; i > 0; i--) {
        if (t->list[i - 1]->state == state)
            return t->list[i - 1];
    }
    return NULL;
}

lim__segment *lim__segment_oldest(lim__segments *t, lim__segment_state state)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->list[i]->state == state)
            return t->list[i];
    }
    return NULL;
}

size_t lim__segment_number(lim__segments *t, lim__segment_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++)
        n += t->list[i]->state == state;
    return n;
}

uint64_t lim__segments_bytes(lim__segments *t)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->count; i++)
        bytes += t->list[i]->loaded ? t->list[i]->size : t->segment_bytes;
    pthread_mutex_unlock(&t->lock);
    return bytes;
}

/* ---- the head ---- */

/* Once more if it fails: what fails twice is broken. */
static long read_twice(lim__segments *t, int file, void *buf, size_t len, uint64_t at)
{
    long n = t->os->file_read(t->os, file, buf, len, at);
    return n < 0 ? t->os->file_read(t->os, file, buf, len, at) : n;
}

/* With the table's lock, or before anybody else knows the segment. */
static int load_from(lim__segments *t, lim__segment *s, int file)
{
    uint8_t block[LIM__FILE_BLOCK];
    lim__segment_head head;
    int64_t size = t->os->file_size(t->os, file);
    if (size < 0)
        return (int)size;
    long n = read_twice(t, file, block, sizeof block, 0);
    if (n < 0)
        return (int)n;
    int err = n < LIM__FILE_BLOCK ? -EBADMSG : lim__segment_head_read(block, &head);
    if (err == 0 && (head.id != s->id || head.store_id != t->store_id))
        err = -EBADMSG;
    if (err != 0)
        return err;
    s->size = (uint64_t)size / LIM__FILE_BLOCK * LIM__FILE_BLOCK;
    s->seal = (lim__seal){ s->id, lim__segment_seed(head.store_id, head.id, head.nonce) };
    s->nonce = head.nonce;
    lim__segment_seal end;
    s->sealed = lim__segment_seal_read(block, s->seal, &end);
    s->sealed_last_lsn = s->sealed ? end.last_lsn : 0;
    s->sealed_end = s->sealed ? end.end : 0;
    s->loaded = true;
    return 0;
}

int lim__segment_load(lim__segments *t, lim__segment *s)
{
    int err = 0;
    pthread_mutex_lock(&t->lock);
    if (!s->loaded) {
        char path[4200];
        path_of(t, s->id, path, sizeof path);
        int file = err = t->os->file_open(t->os, path, 0);
        if (file >= 0) {
            err = load_from(t, s, file);
            t->os->file_close(t->os, file);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return err;
}

/* ---- the writer's bytes ---- */

static int open_write(lim__segments *t, lim__segment *s)
{
    if (s->write_file >= 0)
        return 0;
    char path[4200];
    path_of(t, s->id, path, sizeof path);
    bool writes = s->state != LIM__SEALED;
    int file = t->os->file_open(t->os, path, LIM__FILE_DIRECT | (writes ? LIM__FILE_WRITE : 0));
    if (file < 0)
        return file;
    s->write_file = file;
    return 0;
}

void lim__segment_close_write(lim__segments *t, lim__segment *s)
{
    if (s->write_file >= 0)
        t->os->file_close(t->os, s->write_file);
    s->write_file = -1;
}

void lim__segment_distrust(lim__segments *t, lim__segment *s)
{
    s->stats.suspect = 1;
    lim__segment_touch(t, s);
    pthread_mutex_lock(&t->lock);
    s->past_cache = true;
    pthread_mutex_unlock(&t->lock);
}

int lim__segment_write(lim__segments *t, lim__segment *s, const void *buf, size_t len, uint64_t at)
{
    LIM_ASSERT(((uintptr_t)buf | len | at) % LIM__FILE_BLOCK == 0 && at + len <= s->size); /* J8 */
    int err = open_write(t, s);
    return err ? err : lim__write_all(t->os, s->write_file, buf, len, at);
}

int lim__segment_zero(lim__segments *t, lim__segment *s)
{
    int err = 0;
    for (uint64_t at = s->stats.end; err == 0 && at < s->size; at += LIM__PREPARE_STEP) {
        uint64_t left = s->size - at;
        err = lim__segment_write(t, s, t->zeros, left < LIM__PREPARE_STEP ? (size_t)left : LIM__PREPARE_STEP, at);
    }
    return err;
}

int lim__segment_sync(lim__segments *t, lim__segment *s)
{
    int err = open_write(t, s);
    return err ? err : t->os->file_sync(t->os, s->write_file);
}

/* The head itself is written again as it was, so a torn write leaves it whole. */
static int write_seal(lim__segments *t, lim__segment *s, uint8_t *block, int file)
{
    lim__segment_head_make(block, t->store_id, s->id, s->nonce, t->segment_bytes);
    lim__segment_seal_make(block, s->seal, s->stats.last_lsn, s->stats.end);
    int err = lim__write_all(t->os, file, block, LIM__FILE_BLOCK, 0);
    return err ? err : t->os->file_sync(t->os, file);
}

int lim__segment_seal_up(lim__segments *t, lim__segment *s)
{
    int err = lim__segment_load(t, s);
    if (err != 0 || s->sealed)
        return err;
    LIM_ASSERT(s->state == LIM__SEALED);
    char path[4200];
    path_of(t, s->id, path, sizeof path);
    uint8_t *block = lim__aligned(LIM__FILE_BLOCK);
    int file = block ? t->os->file_open(t->os, path, LIM__FILE_WRITE | LIM__FILE_DIRECT) : -ENOMEM;
    if (file >= 0) {
        err = write_seal(t, s, block, file);
        t->os->file_close(t->os, file);
    }
    free(block);
    if (file < 0 || err != 0)
        return file < 0 ? file : err;
    s->sealed_last_lsn = s->stats.last_lsn;
    s->sealed_end = s->stats.end;
    s->sealed = true;
    return 0;
}

int lim__segment_cut(lim__segments *t, lim__segment *s)
{
    uint64_t end = s->stats.end ? s->stats.end : LIM__FILE_BLOCK;
    if (s->state != LIM__SEALED || end >= s->size)
        return 0;
    char path[4200];
    path_of(t, s->id, path, sizeof path);
    int file = t->os->file_open(t->os, path, LIM__FILE_WRITE);
    if (file < 0)
        return file;
    int err = t->os->file_truncate(t->os, file, end);
    if (err == 0) {
        pthread_mutex_lock(&t->lock);
        s->size = end;
        pthread_mutex_unlock(&t->lock);
        err = t->os->file_sync(t->os, file);
    }
    t->os->file_close(t->os, file);
    return err;
}

/* Block by block, when a longer read failed. */
static void read_blocks(lim__segments *t, lim__segment *s, uint8_t *buf, size_t len, uint64_t at, size_t base,
                        size_t *bad)
{
    for (size_t done = 0; done < len; done += LIM__FILE_BLOCK) {
        long n = read_twice(t, s->write_file, buf + done, LIM__FILE_BLOCK, at + done);
        if (n == LIM__FILE_BLOCK)
            continue;
        memset(buf + done, 0, LIM__FILE_BLOCK);
        *bad = base + done + LIM__FILE_BLOCK;
    }
}

int lim__segment_read_direct(lim__segments *t, lim__segment *s, uint8_t *buf, size_t len, uint64_t at, size_t *bad)
{
    enum { STEP = 4 << 20 };
    *bad = 0;
    int err = open_write(t, s);
    for (size_t done = 0; err == 0 && done < len;) {
        size_t part = len - done < STEP ? len - done : STEP;
        long n = t->os->file_read(t->os, s->write_file, buf + done, part, at + done);
        if (n != (long)part)
            read_blocks(t, s, buf + done, part, at + done, done, bad);
        done += part;
    }
    return err;
}

/* ---- reading ---- */

lim__segment *lim__segment_ref(lim__segments *t, uint64_t id)
{
    pthread_mutex_lock(&t->lock);
    lim__segment *s = lim__segment_find(t, id);
    if (s) {
        s->refs++;
        s->used = ++t->clock;
    }
    pthread_mutex_unlock(&t->lock);
    return s;
}

void lim__segment_unref(lim__segments *t, lim__segment *s)
{
    pthread_mutex_lock(&t->lock);
    LIM_ASSERT(s->refs > 0);
    if (--s->refs == 0 && s->unlisted)
        segment_free(t, s);
    pthread_mutex_unlock(&t->lock);
}

/* Closes the handles of the segment that was used least recently. */
static void close_oldest(lim__segments *t)
{
    lim__segment *oldest = NULL;
    for (size_t i = 0; i < t->count; i++) {
        lim__segment *s = t->list[i];
        bool open = s->read_files[0] >= 0 || s->read_files[1] >= 0;
        if (open && s->refs == 0 && (!oldest || s->used < oldest->used))
            oldest = s;
    }
    if (oldest)
        close_reading(t, oldest);
}

static int read_handle_locked(lim__segments *t, lim__segment *s)
{
    int *file = &s->read_files[s->past_cache];
    if (*file < 0) {
        char path[4200];
        path_of(t, s->id, path, sizeof path);
        if (t->open_files >= LIM__FILES_OPEN_MAX)
            close_oldest(t);
        int opened = t->os->file_open(t->os, path, s->past_cache ? LIM__FILE_DIRECT : 0);
        if (opened < 0)
            return opened;
        *file = opened;
        t->open_files++;
    }
    return *file;
}

/* What the page cache has may be a lie after a failed sync; then *direct (J7). */
static int read_handle(lim__segments *t, lim__segment *s, bool *direct)
{
    pthread_mutex_lock(&t->lock);
    *direct = s->past_cache;
    int file = read_handle_locked(t, s);
    pthread_mutex_unlock(&t->lock);
    return file;
}

static int read_past_cache(lim__segments *t, int file, void *buf, size_t len, uint64_t at)
{
    uint64_t from = at / LIM__FILE_BLOCK * LIM__FILE_BLOCK, to = lim__up(at + len, LIM__FILE_BLOCK);
    uint8_t *blocks = lim__aligned((size_t)(to - from));
    if (!blocks)
        return -ENOMEM;
    long n = read_twice(t, file, blocks, (size_t)(to - from), from);
    if (n >= 0 && (uint64_t)n >= at - from + len)
        memcpy(buf, blocks + (at - from), len);
    free(blocks);
    return n < 0 ? (int)n : (uint64_t)n < at - from + len ? -EBADMSG : 0;
}

int lim__segment_read(lim__segments *t, lim__segment *s, void *buf, size_t len, uint64_t at)
{
    bool direct;
    int file = read_handle(t, s, &direct);
    if (file < 0)
        return file;
    if (direct)
        return read_past_cache(t, file, buf, len, at);
    long n = read_twice(t, file, buf, len, at);
    return n < 0 ? (int)n : (size_t)n < len ? -EBADMSG : 0;
}

/* ---- copying ---- */

lim__segment_extent *lim__segments_pin(lim__segments *t, size_t *count)
{
    pthread_mutex_lock(&t->lock);
    lim__segment_extent *list = calloc(t->count + 1, sizeof *list);
    *count = 0;
    for (size_t i = 0; list && i < t->count; i++) {
        uint64_t id = t->list[i]->id;
        bool unknown = !t->list[i]->loaded; /* behind the log only one whose head is damaged is */
        if ((id <= t->visible_segment || unknown) && !t->list[i]->leaving)
            list[(*count)++] = (lim__segment_extent){ id, id == t->visible_segment ? t->visible_end : UINT64_MAX };
    }
    t->pins += list != NULL;
    pthread_mutex_unlock(&t->lock);
    return list;
}

void lim__segments_unpin(lim__segments *t)
{
    pthread_mutex_lock(&t->lock);
    LIM_ASSERT(t->pins > 0);
    t->pins--;
    pthread_mutex_unlock(&t->lock);
}

bool lim__segment_leave(lim__segments *t, lim__segment *s)
{
    pthread_mutex_lock(&t->lock);
    s->leaving = s->leaving || t->pins == 0;
    bool leaves = s->leaving;
    pthread_mutex_unlock(&t->lock);
    return leaves;
}

void lim__segments_show(lim__segments *t, const lim__segment *s, uint64_t end)
{
    pthread_mutex_lock(&t->lock);
    t->visible_segment = s->id;
    t->visible_end = end;
    pthread_mutex_unlock(&t->lock);
}
