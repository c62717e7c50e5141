/* SPDX-License-Identifier: Apache-2.0
 * reader.c - the second reader: files, segments, batches. See reader.h for why there are two.
 *
 * Only "The format" and "Reading it back" of docs/internals/store.md were needed to write this. Where the document
 * leaves a choice, the reader believes less and tells more. */
#include "store/reader_inside.h"
#include "base/crc32c.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const uint64_t SEGMENT_MAGIC = 0x3130676573636d6cull;
static const uint32_t SEAL_MAGIC = 0x4c414553u, HEAD_MAGIC = 0x424d494cu, FOOT_MAGIC = 0x464d494cu;

void lim__reader_tell(lim__reader *r, const char *format, ...)
{
    char line[240];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (r->odd)
        r->odd(r->ctx, line);
}

/* ---- names ---- */

static uint64_t id_in(const char *name)
{
    char *end;
    if (strlen(name) != 20 || strcmp(name + 16, ".seg") != 0 || strspn(name, "0123456789abcdef") != 16)
        return 0;
    return strtoull(name, &end, 16);
}

static void add_name(void *ctx, const char *name)
{
    lim__reader *r = ctx;
    uint64_t id = id_in(name);
    reader_file *files = id ? realloc(r->files, (r->file_count + 1) * sizeof *files) : NULL;
    r->failed = r->failed || (id && !files);
    if (!files)
        return;
    r->files = files;
    r->files[r->file_count++] = (reader_file){ .id = id };
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const reader_file *)a)->id, y = ((const reader_file *)b)->id;
    return (x > y) - (x < y);
}

static int open_file(lim__reader *r, uint64_t id)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%016llx.seg", r->dir, (unsigned long long)id);
    return r->os->file_open(r->os, path, 0);
}

/* ---- heads and seals ---- */

static bool head_at(const uint8_t *at, reader_file *f, uint64_t *store_id, uint32_t *version)
{
    if (reader_u64(at) != SEGMENT_MAGIC || reader_u32(at + 8) != lim__crc32c(0, at + 12, 36))
        return false;
    *version = reader_u32(at + 12);
    *store_id = reader_u64(at + 16);
    f->nonce = reader_u64(at + 32);
    f->seed = lim__crc32c(0, at + 16, 24); /* store id, segment id, nonce */
    return reader_u64(at + 24) == f->id;
}

static bool seal_at(const uint8_t *at, reader_file *f)
{
    if (reader_u32(at) != SEAL_MAGIC || reader_u32(at + 4) != lim__crc32c(f->seed, at + 8, 16))
        return false;
    f->last_lsn = reader_u64(at + 8);
    return true;
}

static int read_head(lim__reader *r, reader_file *f, const uint8_t *block)
{
    uint64_t store_id = 0;
    uint32_t version = 0;
    f->usable = head_at(block, f, &store_id, &version) || head_at(block + 2048, f, &store_id, &version);
    if (!f->usable) {
        lim__reader_tell(r, "segment %016llx: neither copy of its head is right, nothing of it can be read",
                         (unsigned long long)f->id);
        return 0;
    }
    if (version > 1)
        return -ENOTSUP;
    if (r->store_id == 0)
        r->store_id = store_id;
    if (r->store_id != store_id) {
        lim__reader_tell(r, "segment %016llx is of another store", (unsigned long long)f->id);
        f->usable = false;
    }
    f->sealed = seal_at(block + 1024, f) || seal_at(block + 3072, f);
    return 0;
}

/* ---- batches ---- */

typedef struct batch {
    uint64_t lsn, synced_lsn, wall_ns, total;
    uint32_t length, ops_length, count, payload_crc, echo_crc;
} batch;

typedef struct bytes { /* all of a segment's file */
    const reader_file *file;
    uint8_t *ptr;
    uint64_t size; /* whole blocks */
} bytes;

static bool parse(const bytes *b, uint64_t at, uint32_t magic, batch *out)
{
    const uint8_t *p = b->ptr + at;
    if (reader_u32(p) != magic || reader_u32(p + 4) != lim__crc32c(b->file->seed, p + 8, 56) ||
        reader_u64(p + 8) != b->file->id)
        return false;
    *out = (batch){ .lsn = reader_u64(p + 16),
                    .synced_lsn = reader_u64(p + 24),
                    .wall_ns = reader_u64(p + 32),
                    .length = reader_u32(p + 40),
                    .ops_length = reader_u32(p + 44),
                    .count = reader_u32(p + 48),
                    .payload_crc = reader_u32(p + 52),
                    .echo_crc = reader_u32(p + 56) };
    out->total = (64 + (uint64_t)out->length + 64 + READER_BLOCK - 1) / READER_BLOCK * READER_BLOCK;
    return out->ops_length <= out->length;
}

static bool head_here(const bytes *b, uint64_t at, batch *out)
{
    return at + READER_BLOCK <= b->size && parse(b, at, HEAD_MAGIC, out) && out->total <= b->size - at;
}

/* A foot that says that its batch begins at `at`. */
static bool foot_for(const bytes *b, uint64_t at, uint64_t lsn, batch *out)
{
    for (uint64_t end = at + READER_BLOCK; end <= b->size; end += READER_BLOCK) {
        if (parse(b, end - 64, FOOT_MAGIC, out) && out->lsn == lsn && out->total == end - at)
            return true;
    }
    return false;
}

static bool payload_right(const bytes *b, uint64_t at, const batch *x)
{
    return lim__crc32c(b->file->seed, b->ptr + at + 64, x->length) == x->payload_crc;
}

static uint64_t first_lsn_of(const bytes *b)
{
    batch x;
    for (uint64_t at = READER_BLOCK; at + READER_BLOCK <= b->size; at += READER_BLOCK) {
        if (head_here(b, at, &x) || parse(b, at + READER_BLOCK - 64, FOOT_MAGIC, &x))
            return x.lsn;
    }
    return 0;
}

/* ---- ops ---- */

bool lim__reader_op_at(const uint8_t *at, size_t room, reader_op *op)
{
    if (room < READER_OP_HEAD)
        return false;
    *op = (reader_op){ .kind = at[4],
                       .flag = at[5],
                       .key_len = (uint16_t)(at[6] | at[7] << 8),
                       .data_len = reader_u32(at + 8),
                       .payload_crc = reader_u32(at + 12),
                       .stream = reader_u64(at + 16),
                       .seq = reader_u64(at + 24),
                       .arg = reader_u64(at + 32) };
    op->key = at + READER_OP_HEAD;
    op->data = op->key + op->key_len;
    return op->kind >= READER_APPEND && op->kind <= READER_TOTAL && reader_op_size(op) <= room;
}

static bool op_right(const bytes *b, const uint8_t *at, size_t room, reader_op *op)
{
    return lim__reader_op_at(at, room, op) && reader_u32(at) == lim__crc32c(b->file->seed, at + 4, 36) &&
           lim__crc32c(0, op->key, (size_t)op->key_len + op->data_len) == op->payload_crc;
}

static bool record_or_page(const reader_op *op)
{
    return op->kind == READER_APPEND || op->kind == READER_COPY || op->kind == READER_PAGE;
}

static void apply_good(lim__reader *r, const bytes *b, uint64_t at, const batch *x)
{
    uint32_t count = 0;
    reader_op op;
    for (uint64_t pos = 0; pos < x->ops_length; pos += reader_op_size(&op), count++) {
        if (!op_right(b, b->ptr + at + 64 + pos, (size_t)(x->ops_length - pos), &op)) {
            lim__reader_tell(r, "segment %016llx at %llu: batch %llu is good, and an op in it is not",
                             (unsigned long long)b->file->id, (unsigned long long)at, (unsigned long long)x->lsn);
            return;
        }
        lim__reader_apply(r, &op, b->file->id, at + 64 + pos);
    }
    if (count != x->count)
        lim__reader_tell(r, "segment %016llx at %llu: batch %llu says %u ops and has %u",
                         (unsigned long long)b->file->id, (unsigned long long)at, (unsigned long long)x->lsn, x->count,
                         count);
}

/* The ops of one sort that are right, wherever they begin. True: they all were. */
static bool apply_right_ones(lim__reader *r, const bytes *b, uint64_t at, uint64_t length, bool records)
{
    bool all = true;
    for (uint64_t pos = 0; pos < length;) {
        reader_op op;
        if (!op_right(b, b->ptr + at + pos, (size_t)(length - pos), &op)) {
            all = false;
            pos += 8;
            continue;
        }
        if (record_or_page(&op) == records)
            lim__reader_apply(r, &op, b->file->id, at + pos);
        pos += reader_op_size(&op);
    }
    return all;
}

static void apply_damaged(lim__reader *r, const bytes *b, uint64_t at, const batch *x)
{
    uint64_t ops = at + 64, echo = ops + x->ops_length, echo_length = x->length - x->ops_length;
    bool whole = apply_right_ones(r, b, ops, x->ops_length, true);
    bool echo_right = lim__crc32c(b->file->seed, b->ptr + echo, (size_t)echo_length) == x->echo_crc;
    (void)apply_right_ones(r, b, echo, echo_length, false);
    if (!echo_right && whole)
        (void)apply_right_ones(r, b, ops, x->ops_length, false);
    if (!echo_right && !whole)
        lim__reader_tell(r, "batch %llu: what it changed is not known for certain", (unsigned long long)x->lsn);
}

/* ---- walking a segment ---- */

typedef struct walk {
    lim__reader *r;
    const bytes *b;
    uint64_t at, expect, limit; /* limit 0: it is the last segment, the log may end anywhere */
} walk;

static void tell_lost(walk *w, uint64_t last, const char *why)
{
    lim__reader_tell(w->r, "segment %016llx at %llu: batches %llu to %llu are lost: %s",
                     (unsigned long long)w->b->file->id, (unsigned long long)w->at, (unsigned long long)w->expect,
                     (unsigned long long)last, why);
}

/* The first later batch from `from` on; *known: one of them knew the expected one to be on stable storage. */
static uint64_t find_later(const walk *w, uint64_t from, batch *later, bool *known)
{
    uint64_t found = 0;
    *known = false;
    for (uint64_t at = from; at + READER_BLOCK <= w->b->size; at += READER_BLOCK) {
        batch x;
        if (!head_here(w->b, at, &x) || x.lsn <= w->expect)
            continue;
        if (found == 0) {
            found = at;
            *later = x;
        }
        *known = *known || x.synced_lsn >= w->expect;
    }
    return found;
}

/* The expected batch is not whole here. True: the log goes on, at w->at. */
static bool step(walk *w)
{
    batch x, later = { 0 };
    bool known, front = head_here(w->b, w->at, &x) && x.lsn == w->expect;
    bool located = front || foot_for(w->b, w->at, w->expect, &x);
    uint64_t next = find_later(w, located ? w->at + x.total : w->at, &later, &known);
    bool was_there = known || w->limit > w->expect;
    bool good = located && !front && payload_right(w->b, w->at, &x);
    if (!was_there && !good)
        return false;
    if (located && !was_there) { /* nobody can say that it was ever otherwise */
        apply_good(w->r, w->b, w->at, &x);
    } else if (located) {
        lim__reader_tell(w->r, "segment %016llx at %llu: batch %llu is damaged%s", (unsigned long long)w->b->file->id,
                         (unsigned long long)w->at, (unsigned long long)w->expect, good ? ", in its head only" : "");
        (good ? apply_good : apply_damaged)(w->r, w->b, w->at, &x);
    }
    if (located) {
        w->at += x.total;
        w->expect++;
        return true;
    }
    tell_lost(w, next ? later.lsn - 1 : w->limit - 1, "nothing of them is left");
    w->expect = next ? later.lsn : w->limit;
    w->at = next;
    return next != 0;
}

static void walk_segment(walk *w)
{
    while (w->limit == 0 || w->expect < w->limit) {
        batch x;
        if (w->at + READER_BLOCK > w->b->size) {
            if (w->limit > w->expect)
                tell_lost(w, w->limit - 1, "the file is too short");
            return;
        }
        if (head_here(w->b, w->at, &x) && x.lsn == w->expect && payload_right(w->b, w->at, &x)) {
            apply_good(w->r, w->b, w->at, &x);
            w->at += x.total;
            w->expect++;
        } else if (!step(w)) {
            return;
        }
    }
}

/* ---- files ---- */

static int load(lim__reader *r, reader_file *f, uint64_t most, bytes *out)
{
    *out = (bytes){ .file = f };
    int file = open_file(r, f->id);
    if (file < 0)
        return file;
    int64_t size = r->os->file_size(r->os, file);
    uint64_t want = size < 0 ? 0 : (uint64_t)size / READER_BLOCK * READER_BLOCK;
    want = want < most ? want : most;
    out->ptr = calloc(1, want ? (size_t)want : 1);
    long n = !out->ptr ? -ENOMEM : size < 0 ? (long)size : r->os->file_read(r->os, file, out->ptr, (size_t)want, 0);
    if (n == -EIO) /* once more; what fails twice is bad */
        n = r->os->file_read(r->os, file, out->ptr, (size_t)want, 0);
    r->os->file_close(r->os, file);
    out->size = n > 0 ? (uint64_t)n / READER_BLOCK * READER_BLOCK : 0;
    if (n < 0)
        free(out->ptr);
    return n < 0 ? (int)n : 0;
}

/* Head, seal, and the lsn with which it begins. */
static int look(lim__reader *r, reader_file *f)
{
    bytes b;
    batch x;
    int err = load(r, f, 2 * READER_BLOCK, &b);
    if (err != 0)
        return err;
    if (b.size >= READER_BLOCK)
        err = read_head(r, f, b.ptr);
    bool quick = f->usable && b.size == 2 * READER_BLOCK && parse(&b, READER_BLOCK, HEAD_MAGIC, &x);
    f->first_lsn = quick ? x.lsn : 0;
    free(b.ptr);
    if (err != 0 || quick || !f->usable)
        return err;
    err = load(r, f, UINT64_MAX, &b);
    if (err == 0) {
        f->first_lsn = first_lsn_of(&b);
        free(b.ptr);
    }
    return err;
}

/* Those that hold a part of the log: what a segment begins with takes the place of the same in older ones. */
static void choose(lim__reader *r)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = r->file_count; i > 0; i--) {
        reader_file *f = &r->files[i - 1];
        bool leavings = f->sealed && f->first_lsn > f->last_lsn;
        f->usable = f->usable && f->first_lsn != 0 && !leavings && f->first_lsn < least;
        if (f->usable)
            least = f->first_lsn;
    }
}

static uint64_t limit_of(const lim__reader *r, size_t i)
{
    const reader_file *f = &r->files[i];
    uint64_t limit = f->sealed ? f->last_lsn + 1 : 0;
    for (size_t k = i + 1; k < r->file_count; k++) {
        if (!r->files[k].usable)
            continue;
        return limit && limit < r->files[k].first_lsn ? limit : r->files[k].first_lsn;
    }
    return limit;
}

static int walk_all(lim__reader *r)
{
    uint64_t expect = 0, gap = 0;
    for (size_t i = 0; i < r->file_count; i++) {
        bytes b;
        if (!r->files[i].usable)
            continue;
        if (expect != 0 && r->files[i].first_lsn != expect)
            gap = r->files[i].first_lsn - 1;
        int err = load(r, &r->files[i], UINT64_MAX, &b);
        if (err != 0)
            return err;
        walk w = { r, &b, READER_BLOCK, r->files[i].first_lsn, limit_of(r, i) };
        walk_segment(&w);
        free(b.ptr);
        expect = w.expect;
    }
    if (gap && gap >= r->checkpoint)
        lim__reader_tell(r, "batches up to %llu are missing, and no checkpoint makes up for them",
                         (unsigned long long)gap);
    return 0;
}

static void tell_missing(lim__reader *r)
{
    for (size_t i = 0; i < r->listed_count; i++) {
        bool there = r->listed[i] == 0;
        for (size_t k = 0; k < r->file_count && !there; k++)
            there = r->files[k].id == r->listed[i];
        if (!there)
            lim__reader_tell(r, "segment %016llx is missing", (unsigned long long)r->listed[i]);
    }
}

static int read_all(lim__reader *r)
{
    int err = r->failed ? -ENOMEM : 0;
    qsort(r->files, r->file_count, sizeof *r->files, by_id);
    for (size_t i = 0; i < r->file_count && err == 0; i++)
        err = look(r, &r->files[i]);
    choose(r);
    if (err == 0)
        err = walk_all(r);
    lim__reader_applied(r);
    tell_missing(r);
    return err ? err : r->failed ? -ENOMEM : 0;
}

/* The line that says which store this is. A newer one is refused; one that is not right is told, and the segments say
 * the same. */
static int read_format(lim__reader *r)
{
    char path[4200], line[80] = "";
    unsigned version = 0, crc = 0;
    unsigned long long id = 0;
    int behind = 0;
    snprintf(path, sizeof path, "%s/format", r->dir);
    int file = r->os->file_open(r->os, path, 0);
    long n = file < 0 ? file : r->os->file_read(r->os, file, line, sizeof line - 1, 0);
    if (file >= 0)
        r->os->file_close(r->os, file);
    if (n < 0 && n != -ENOENT)
        return (int)n;
    bool right = sscanf(line, "liminal store %u %16llx %n%8x", &version, &id, &behind, &crc) == 3 &&
                 crc == lim__crc32c(0, line, (size_t)behind);
    if (right && version > 1)
        return -ENOTSUP;
    r->store_id = right ? id : 0;
    if (!right)
        lim__reader_tell(r, "the format file is %s", n < 0 ? "missing" : "not right");
    return 0;
}

int lim__reader_open(lim__os *os, const char *dir, const uint64_t *only, lim__reader_odd *odd, void *ctx,
                     lim__reader **out)
{
    lim__reader *r = strlen(dir) < 4000 ? calloc(1, sizeof *r) : NULL;
    if (!r)
        return strlen(dir) < 4000 ? -ENOMEM : -ENAMETOOLONG;
    *r = (lim__reader){ .os = os, .odd = odd, .ctx = ctx, .only_stream = only ? *only : 0 };
    r->only = only ? &r->only_stream : NULL;
    lim__map_init(&r->streams, 1);
    lim__smap_init(&r->rows, 1);
    r->dir = strdup(dir);
    int err = r->dir ? r->os->dir_list(r->os, dir, add_name, r) : -ENOMEM;
    if (err == 0 && r->file_count == 0)
        err = r->failed ? -ENOMEM : -ENOENT;
    if (err == 0)
        err = read_format(r);
    if (err == 0)
        err = read_all(r);
    if (err != 0)
        lim__reader_close(r);
    else
        *out = r;
    return err;
}

void lim__reader_close(lim__reader *r)
{
    if (!r)
        return;
    lim__reader_forget(r);
    free(r->files);
    free(r->dir);
    free(r);
}

/* ---- records ---- */

typedef struct reading {
    lim__reader *r;
    uint64_t segment;
    int file; /* of that segment; -1: none */
    uint8_t *buf;
    size_t cap;
} reading;

static int read_record(reading *x, const reader_place *p)
{
    size_t len = (size_t)p->key_len + p->data_len;
    if (x->segment != p->segment || x->file < 0) {
        if (x->file >= 0)
            x->r->os->file_close(x->r->os, x->file);
        x->file = open_file(x->r, p->segment);
        x->segment = p->segment;
    }
    if (x->file < 0)
        return x->file;
    if (len > x->cap) {
        uint8_t *buf = realloc(x->buf, len);
        if (!buf)
            return -ENOMEM;
        x->buf = buf;
        x->cap = len;
    }
    long n = len ? x->r->os->file_read(x->r->os, x->file, x->buf, len, p->at + READER_OP_HEAD) : 0;
    if (n < 0)
        return (int)n;
    return (size_t)n == len && lim__crc32c(0, x->buf, len) == p->crc ? 0 : -EBADMSG;
}

static bool give(reading *x, const reader_stream *st, const reader_place *p,
                 bool (*each)(void *ctx, const lim__reader_record *record), void *ctx)
{
    lim__reader_record rec = { .stream = st->id, .seq = p->seq, .wall_ns = p->wall_ns };
    int err = p->at ? read_record(x, p) : -EBADMSG;
    rec.lost = err != 0;
    if (err == 0) {
        rec.key = lim__bytes(x->buf, p->key_len);
        rec.data = lim__bytes(x->buf + p->key_len, p->data_len);
    } else {
        rec.wall_ns = 0;
        lim__reader_tell(x->r, "record %llu of stream %llu is lost", (unsigned long long)p->seq,
                         (unsigned long long)st->id);
    }
    return each(ctx, &rec);
}

static int by_stream(const void *a, const void *b)
{
    uint64_t x = (*(reader_stream *const *)a)->id, y = (*(reader_stream *const *)b)->id;
    return (x > y) - (x < y);
}

static reader_stream **streams_in_order(lim__reader *r, size_t *count)
{
    reader_stream **list = calloc(r->streams.count + 1, sizeof *list);
    uint64_t id;
    void *st;
    *count = 0;
    for (size_t pos = 0; list && lim__map_next(&r->streams, &pos, &id, &st);)
        list[(*count)++] = st;
    if (list)
        qsort(list, *count, sizeof *list, by_stream);
    return list;
}

int lim__reader_records(lim__reader *r, bool (*each)(void *ctx, const lim__reader_record *record), void *ctx)
{
    reading x = { .r = r, .file = -1 };
    size_t count;
    bool go_on = true;
    reader_stream **list = streams_in_order(r, &count);
    for (size_t i = 0; list && i < count && go_on; i++) {
        for (size_t k = 0; k < list[i]->count && go_on; k++)
            go_on = give(&x, list[i], &list[i]->places[k], each, ctx);
    }
    if (x.file >= 0)
        r->os->file_close(r->os, x.file);
    free(x.buf);
    free(list);
    return list ? 0 : -ENOMEM;
}

int lim__reader_streams(lim__reader *r, bool (*each)(void *ctx, const lim__reader_stream *stream), void *ctx)
{
    size_t count;
    bool go_on = true;
    reader_stream **list = streams_in_order(r, &count);
    for (size_t i = 0; list && i < count && go_on; i++) {
        const reader_stream *st = list[i];
        lim__reader_stream out = { .id = st->id, .first = st->next, .next = st->next, .count = st->count };
        if (st->count > 0)
            out.first = st->places[0].seq;
        for (size_t k = 0; k < st->count; k++)
            out.bytes += (uint64_t)st->places[k].key_len + st->places[k].data_len;
        go_on = each(ctx, &out);
    }
    free(list);
    return list ? 0 : -ENOMEM;
}
