/* SPDX-License-Identifier: Apache-2.0
 * store.c - submit, turn, close, and what is told about the store.
 *
 *   any thread --submit--> inbox --turn--> queue --> log write --> answers --> upkeep --> (again while there is more)
 *
 * The thread that turns is the writer: log, ledger and upkeep are its own. Others have the inbox, the index's reading
 * side, the table of segments, and the numbers of lim__store_info, each behind a lock that is held for a few
 * instructions. */
#include "store/inside.h"
#include "base/crc32c.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REMAKE_RETRY_NS 200000000u

void lim__store_fail(lim__store_error *error, const char *format, ...)
{
    if (!error)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
}

void lim__store_event(lim__store *s, const char *kind, const char *format, ...)
{
    if (!s->opts.on_event)
        return;
    char text[320];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    s->opts.on_event(s->opts.ctx, kind, text);
}

void lim__store_note_damage(lim__store *s, lim__segment *segment, uint64_t at, const char *what)
{
    s->damages++;
    if (segment) {
        segment->stats.damages++;
        lim__segment_touch(&s->segments, segment);
        lim__store_event(s, "quarantined", "segment %016llx at %llu: %s", (unsigned long long)segment->id,
                         (unsigned long long)at, what);
    } else {
        lim__store_event(s, "quarantined", "%s", what);
    }
}

/* ---- submitting ---- */

/* A log batch with nothing else in it must fit into an empty segment. */
static bool fits(const lim__store *s, const lim__batch *b)
{
    uint64_t need = (uint64_t)LIM__BATCH_HEAD + b->ops.len + b->echo_bytes + LIM__OP_HEAD + LIM__BATCH_HEAD;
    return lim__up(need, LIM__FILE_BLOCK) <= s->segments.segment_bytes - LIM__FILE_BLOCK;
}

int lim__store_submit(lim__store *s, lim__batch *b, lim__on_committed *on_done, void *ctx)
{
    LIM_ASSERT(on_done && !b->on_done);
    if (b->error != 0)
        return b->error;
    if (s->opts.read_only)
        return -EROFS;
    if (!fits(s, b))
        return -EMSGSIZE;
    pthread_mutex_lock(&s->inbox_lock);
    bool closing = s->closing, first = lim__list_empty(&s->inbox);
    if (!closing) {
        b->on_done = on_done;
        b->ctx = ctx;
        lim__list_push(&s->inbox, &b->node);
    }
    pthread_mutex_unlock(&s->inbox_lock);
    if (!closing && first && s->opts.wake)
        s->opts.wake(s->opts.ctx);
    return closing ? -EPIPE : 0;
}

/* ---- what is told ---- */

static void tell_sick(lim__store *s)
{
    pthread_mutex_lock(&s->info_lock);
    uint32_t from = s->sick_told, to = s->sick_count;
    s->sick_told = to;
    pthread_mutex_unlock(&s->info_lock);
    for (uint32_t i = from; i < to; i++)
        lim__store_event(s, "quarantined", "record %llu of stream %llu is damaged", (unsigned long long)s->sick[i].seq,
                         (unsigned long long)s->sick[i].stream);
}

void lim__info_update(lim__store *s)
{
    const lim__mark *m = &s->ledger.mark;
    uint64_t bytes = lim__segments_bytes(&s->segments);
    pthread_mutex_lock(&s->info_lock);
    s->info = (lim__store_info){ .lsn = s->log.lsn,
                                 .segments = s->segments.count,
                                 .bytes = bytes,
                                 .bytes_max = s->opts.bytes_max,
                                 .live_bytes = m->live_bytes,
                                 .syncs = s->syncs,
                                 .start_batches = s->start_batches,
                                 .start_bytes = s->start_bytes,
                                 .batches = s->batches,
                                 .records = m->records,
                                 .quarantined = s->damages + s->sick_count,
                                 .checkpoint_lsn = m->checkpoint,
                                 .full = s->upkeep.told_full };
    s->info.degraded = s->info.quarantined > 0;
    pthread_mutex_unlock(&s->info_lock);
}

void lim__store_info_get(lim__store *s, lim__store_info *out)
{
    int64_t left = s->os->disk_free(s->os, s->dir);
    pthread_mutex_lock(&s->info_lock);
    *out = s->info;
    pthread_mutex_unlock(&s->info_lock);
    out->bytes_free = left > 0 ? (uint64_t)left : 0;
}

/* ---- the turn ---- */

/* False: the index is damaged and could not be made again now. */
static bool index_works(lim__store *s, uint64_t *next_ns)
{
    if (!lim__index_damaged(s->index) && !s->ledger.failed)
        return true;
    uint64_t now = s->os->now_ns(s->os);
    lim__store_error error;
    if (now >= s->remake_next_ns && lim__remake_index(s, &error) == 0)
        return true;
    if (now >= s->remake_next_ns) {
        s->remake_next_ns = now + REMAKE_RETRY_NS;
        lim__store_event(s, "index_failed", "%s", error.text);
        lim__index_damage(s->index);
    }
    *next_ns = s->remake_next_ns;
    return false;
}

bool lim__store_waits(lim__store *s)
{
    pthread_mutex_lock(&s->inbox_lock);
    bool any = !lim__list_empty(&s->inbox) || !lim__list_empty(&s->queue);
    pthread_mutex_unlock(&s->inbox_lock);
    return any;
}

bool lim__store_turn(lim__store *s, uint64_t *next_ns)
{
    uint64_t unused;
    next_ns = next_ns ? next_ns : &unused;
    *next_ns = UINT64_MAX;
    if (s->opts.read_only)
        return false;
    atomic_store(&s->attention, false);
    if (!index_works(s, next_ns))
        return false;
    lim__commit_group(s);
    lim__commit_answer(s);
    lim__log_mend(s);
    if (s->log.sync_due_ns != UINT64_MAX && s->os->now_ns(s->os) >= s->log.sync_due_ns)
        (void)lim__log_sync(s);
    bool more = lim__upkeep_turn(s, next_ns);
    tell_sick(s);
    lim__info_update(s);
    if (s->log.sync_due_ns < *next_ns)
        *next_ns = s->log.sync_due_ns;
    if (s->log.state == LIM__LOG_BROKEN && s->log.retry_ns < *next_ns)
        *next_ns = s->log.retry_ns;
    return more || lim__store_waits(s);
}

/* ---- opening ---- */

int lim__store_make_dir(lim__os *os, const char *dir)
{
    char above[4200];
    snprintf(above, sizeof above, "%s", dir);
    char *slash = strrchr(above, '/');
    if (slash)
        slash[slash == above] = 0; /* "/x" lies in "/" */
    int err = os->dir_create(os, dir);
    return err ? err : os->dir_sync(os, slash ? above : ".");
}

static int lock_dir(lim__store *s, lim__store_error *error)
{
    char path[4200];
    if (s->from == LIM__INDEX_LOOK) /* whoever compares has it open already */
        return 0;
    snprintf(path, sizeof path, "%s/lock", s->dir);
    int err = s->opts.read_only ? 0 : lim__store_make_dir(s->os, s->dir);
    int file = err ? err : s->os->file_open(s->os, path, s->opts.read_only ? 0 : LIM__FILE_WRITE | LIM__FILE_CREATE);
    if (file == -ENOENT && s->opts.read_only) /* a copy that nobody has opened yet; or there is no store: soon told */
        return 0;
    if (file < 0) {
        lim__store_fail(error, "%s cannot be %s: %s", s->dir, s->opts.read_only ? "read" : "written to",
                        strerror(-file));
        return file;
    }
    s->lock_file = file;
    err = s->os->file_lock(s->os, file);
    if (err != 0)
        lim__store_fail(error, "%s is in use by another program (its lock is taken): stop that one first", s->dir);
    return err;
}

/* With a checksum: with another number, all segments would be somebody else's. */
static int format_text(char text[80], int version, uint64_t store_id)
{
    int n = snprintf(text, 80, "liminal store %d %016llx ", version, (unsigned long long)store_id);
    return n + snprintf(text + n, 80 - (size_t)n, "%08x\n", lim__crc32c(0, text, (size_t)n));
}

int lim__store_write_format(lim__os *os, const char *dir, uint64_t store_id)
{
    char path[4200], next[4200], text[80];
    snprintf(path, sizeof path, "%s/format", dir);
    snprintf(next, sizeof next, "%s/format.tmp", dir);
    int n = format_text(text, LIM__FORMAT_VERSION, store_id);
    int file = os->file_open(os, next, LIM__FILE_WRITE | LIM__FILE_CREATE);
    if (file < 0)
        return file;
    int err = os->file_truncate(os, file, 0);
    if (err == 0)
        err = lim__write_all(os, file, text, (size_t)n, 0);
    if (err == 0)
        err = os->file_sync(os, file);
    os->file_close(os, file);
    if (err == 0)
        err = os->file_rename(os, next, path);
    return err ? err : os->dir_sync(os, dir);
}

/* 0; -ENOENT: there is none, or nothing sensible in it; -ENOTSUP. */
static int read_format(lim__store *s)
{
    char path[4200], text[80] = "", again[80];
    int version = 0;
    unsigned long long id = 0;
    snprintf(path, sizeof path, "%s/format", s->dir);
    int file = s->os->file_open(s->os, path, 0);
    if (file < 0)
        return file;
    long n = s->os->file_read(s->os, file, text, sizeof text - 1, 0);
    s->os->file_close(s->os, file);
    if (n < 0)
        return (int)n;
    if (sscanf(text, "liminal store %d %16llx", &version, &id) != 2)
        return -ENOENT;
    format_text(again, version, id);
    s->store_id = id;
    if (strcmp(again, text) != 0)
        return -ENOENT;
    return version > LIM__FORMAT_VERSION ? -ENOTSUP : 0;
}

typedef struct names {
    lim__store *s;
    uint64_t *ids;
    size_t count;
    bool failed, unfinished;
} names;

static void on_name(void *ctx, const char *name)
{
    names *n = ctx;
    uint64_t id = lim__segment_id_of(name);
    uint64_t *ids = id ? realloc(n->ids, (n->count + 1) * sizeof *ids) : NULL;
    n->failed = n->failed || (id && !ids);
    if (ids) {
        n->ids = ids;
        n->ids[n->count++] = id;
    }
    size_t len = strlen(name);
    char path[4200];
    n->unfinished = n->unfinished || strcmp(name, LIM__UNFINISHED) == 0;
    if (len > 4 && strcmp(name + len - 4, ".tmp") == 0 && !n->s->opts.read_only) {
        snprintf(path, sizeof path, "%s/%s", n->s->dir, name);
        (void)n->s->os->file_remove(n->s->os, path);
    }
}

/* The format file went bad: every segment knows the store's number, too. */
static int id_from_segments(lim__store *s, const names *n)
{
    int err = -ENOENT;
    for (size_t i = 0; i < n->count && err != 0; i++) {
        char path[4200], name[32];
        uint8_t block[LIM__FILE_BLOCK] = { 0 };
        lim__segment_head head;
        lim__segment_name(name, n->ids[i]);
        snprintf(path, sizeof path, "%s/%s", s->dir, name);
        int file = s->os->file_open(s->os, path, 0);
        long got = file < 0 ? file : s->os->file_read(s->os, file, block, sizeof block, 0);
        if (file >= 0)
            s->os->file_close(s->os, file);
        err = got < 0 ? (int)got : lim__segment_head_read(block, &head);
        if (err == 0)
            s->store_id = head.store_id;
    }
    return err;
}

static int find_format(lim__store *s, const names *n, lim__store_error *error)
{
    int err = read_format(s);
    if (err == -ENOENT && n->count > 0)
        err = id_from_segments(s, n);
    else if (err == -ENOENT && !s->opts.read_only)
        s->store_id = s->os->random(s->os);
    else if (err == 0)
        return 0;
    if (err == -ENOENT && n->count == 0 && !s->opts.read_only)
        err = 0;
    if (err == 0 && !s->opts.read_only)
        err = lim__store_write_format(s->os, s->dir, s->store_id);
    if (err == -ENOTSUP)
        lim__store_fail(error, "%s was written by a newer version of liminal: use that one, or another directory",
                        s->dir);
    else if (err != 0)
        lim__store_fail(error, "%s is no store that can be read: %s", s->dir, strerror(-err));
    return err;
}

static int open_index(lim__store *s, lim__store_error *error);

static int open_files(lim__store *s, lim__store_error *error)
{
    names n = { .s = s };
    int err = lock_dir(s, error);
    if (err != 0)
        return err;
    err = s->os->dir_list(s->os, s->dir, on_name, &n);
    if (err == 0 && n.failed)
        err = -ENOMEM;
    if (err != 0)
        lim__store_fail(error, "%s cannot be listed: %s", s->dir, strerror(-err));
    if (err == 0 && n.unfinished) {
        lim__store_fail(error, "%s is a copy that was never finished: make it again", s->dir);
        err = -EBADMSG;
    }
    if (err == 0)
        err = find_format(s, &n, error);
    if (err == 0)
        err = lim__segments_init(&s->segments, s->os, s->dir, s->store_id, s->opts.segment_bytes);
    for (size_t i = 0; i < n.count && err == 0; i++)
        err = lim__segment_add(&s->segments, n.ids[i]) ? 0 : -ENOMEM;
    free(n.ids);
    return err ? err : open_index(s, error);
}

static void on_index_event(void *ctx)
{
    lim__store *s = ctx;
    atomic_store(&s->attention, true);
    if (s->opts.wake)
        s->opts.wake(s->opts.ctx);
}

static int open_index(lim__store *s, lim__store_error *error)
{
    lim__base base = { 0 };
    char path[4200];
    int err = 0;
    snprintf(path, sizeof path, "%s/index", s->dir);
    if (s->from == LIM__INDEX_LOOK)
        err = lim__lmdb_look(s->os, path, &base);
    else if (!s->opts.index_in_memory && !s->opts.read_only)
        err = lim__lmdb_open(s->os, path, s->opts.index_map_bytes, &base);
    s->has_base = base.ops != NULL;
    if (err == 0)
        err = lim__index_open(base, on_index_event, s, &s->index);
    if (err != 0) {
        lim__store_fail(error, "the index in %s cannot be opened: %s", path, strerror(-err));
        return err;
    }
    lim__ledger_init(&s->ledger, s->index, &s->segments, s->store_id);
    return lim__recover(s, error);
}

static int check_opts(lim__store *s, const lim__store_opts *o, lim__store_error *error)
{
    s->opts = *o;
    s->opts.segment_bytes = o->segment_bytes ? o->segment_bytes : 64 << 20;
    s->opts.index_map_bytes = o->index_map_bytes ? o->index_map_bytes : 64ull << 30;
    s->opts.interval_ns = o->interval_ns ? o->interval_ns : 1000000000u;
    s->opts.batch_bytes_max = o->batch_bytes_max ? o->batch_bytes_max : 4 << 20;
    uint64_t segment = s->opts.segment_bytes;
    bool good = o->os && o->dir && strlen(o->dir) < 4000 && segment % LIM__FILE_BLOCK == 0 &&
                segment >= LIM__SEGMENT_BYTES_MIN && segment <= LIM__SEGMENT_BYTES_MAX;
    if (good && o->bytes_max && o->bytes_max < 6 * segment) {
        lim__store_fail(error, "a store with segments of %llu bytes needs a limit of at least six of them",
                        (unsigned long long)segment);
        return -EINVAL;
    }
    if (!good)
        lim__store_fail(error, "segments must be multiples of %d bytes, from %d to %d", LIM__FILE_BLOCK,
                        LIM__SEGMENT_BYTES_MIN, LIM__SEGMENT_BYTES_MAX);
    return good ? 0 : -EINVAL;
}

static void store_free(lim__store *s)
{
    lim__ledger_fini(&s->ledger);
    lim__index_close(s->index);
    lim__segments_fini(&s->segments);
    if (s->lock_file >= 0)
        s->os->file_close(s->os, s->lock_file);
    for (size_t i = 0; i < LIM_COUNT(s->read_bufs); i++)
        free(s->read_bufs[i]);
    lim__buf_fini(&s->echo);
    pthread_mutex_destroy(&s->inbox_lock);
    pthread_mutex_destroy(&s->info_lock);
    free(s->log.buf);
    free(s->log.kept.bytes);
    free(s->dir);
    free(s);
}

int lim__store_open(const lim__store_opts *opts, lim__store_error *error, lim__store **out)
{
    return lim__store_open_from(opts, LIM__INDEX_OPTS, error, out);
}

int lim__store_open_from(const lim__store_opts *opts, lim__index_from from, lim__store_error *error, lim__store **out)
{
    lim__store *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->lock_file = -1;
    s->from = from;
    s->segments.preparing.file = -1;
    s->log.state = LIM__LOG_GOOD;
    s->log.sync_due_ns = UINT64_MAX;
    lim__list_init(&s->inbox), lim__list_init(&s->queue), lim__list_init(&s->done);
    pthread_mutex_init(&s->inbox_lock, NULL);
    pthread_mutex_init(&s->info_lock, NULL);
    s->os = opts->os;
    int err = check_opts(s, opts, error);
    if (err == 0) {
        s->dir = strdup(opts->dir);
        err = s->dir ? open_files(s, error) : -ENOMEM;
    }
    if (err == -ENOMEM)
        lim__store_fail(error, "out of memory");
    if (err != 0) {
        store_free(s);
        return err;
    }
    lim__info_update(s);
    *out = s;
    return 0;
}

/* ---- closing ---- */

/* Without memory nothing moves: what cannot be committed is answered CLOSED then. */
static void commit_the_rest(lim__store *s)
{
    for (int stuck = 0; lim__store_waits(s) && stuck < 3;) {
        uint64_t next, before = s->log.lsn;
        bool works = index_works(s, &next);
        if (works && !lim__commit_group(s))
            break;
        stuck = s->log.lsn != before || !lim__list_empty(&s->done) ? 0 : stuck + 1;
        lim__commit_answer(s);
    }
}

/* The last batch: nothing is being written behind it. */
static void write_close(lim__store *s)
{
    lim__segment *segment;
    uint64_t at;
    lim__batch_head h = {
        .lsn = s->log.lsn + 1, .synced_lsn = s->log.lsn, .wall_ns = s->log.wall_ns, .flags = LIM__BATCH_CLOSE
    };
    lim__segment *current = lim__segment_newest(&s->segments, LIM__CURRENT);
    if (current && current->size - current->stats.end < lim__batch_total(&h) && !lim__log_roll(s))
        return;
    if (lim__log_sync(s) != 0 || lim__log_room(s, (size_t)lim__batch_total(&h)) != 0 ||
        lim__log_write(s, &h, true, &segment, &at) != 0)
        return;
    lim__ledger_commit(&s->ledger, h.lsn, segment, at, at + lim__batch_total(&h), h.wall_ns);
    (void)lim__index_flush(s->index, true);
}

static void answer_closed(lim__store *s)
{
    lim__list *node;
    pthread_mutex_lock(&s->inbox_lock);
    s->closing = true; /* already so; what is in the inbox now is all there will be */
    while ((node = lim__list_pop(&s->inbox)) != NULL)
        lim__list_push(&s->queue, node);
    pthread_mutex_unlock(&s->inbox_lock);
    while ((node = lim__list_pop(&s->queue)) != NULL) {
        LIM_CONTAINER(node, lim__batch, node)->result = (lim__committed){ .how = LIM__COMMIT_CLOSED };
        lim__list_push(&s->done, node);
    }
    lim__commit_answer(s);
}

void lim__store_close(lim__store *s)
{
    if (!s)
        return;
    if (!s->opts.read_only) {
        pthread_mutex_lock(&s->inbox_lock);
        s->closing = true;
        pthread_mutex_unlock(&s->inbox_lock);
        commit_the_rest(s);
        if (s->log.state == LIM__LOG_GOOD && !lim__index_damaged(s->index)) {
            lim__upkeep_checkpoint(s);
            if (s->log.state == LIM__LOG_GOOD)
                write_close(s);
        }
        answer_closed(s);
    }
    store_free(s);
}
