/* SPDX-License-Identifier: Apache-2.0
 * read.c - answers, for any thread.
 *
 *   index --where they are--> up to READ_BYTES of one segment, in one read --each op checked--> the caller, one by one
 *
 * Between the index's answer and the read, a segment may go: then its records were copied, and the index is asked
 * again. What was read is believed only if the op's checksums are right and it is the record that the index spoke of
 * (L3). No lock and no view of the index is held while the caller looks at a record. */
#include "store/inside.h"

#include <errno.h>
#include <stdlib.h>

enum { READ_BYTES = 1 << 20, READ_GAP = 64 << 10, ITEMS_MAX = 8192, TRIES = 4 };

typedef struct item {
    uint64_t seq, at, wall_ns;
    uint32_t size;
} item;

/* Records that lie together. */
typedef struct cluster {
    uint64_t segment, from, to; /* bytes of it */
    uint32_t count, bytes_max;
    item items[ITEMS_MAX];
} cluster;

static uint64_t op_bytes(uint32_t size)
{
    return lim__up((uint64_t)LIM__OP_HEAD + size, 8);
}

/* ---- buffers: kept between reads, since making a large one costs as much as reading into it ---- */

typedef struct reader {
    cluster cluster;
    uint8_t bytes[READ_BYTES];
} reader;

static reader *take_reader(lim__store *s)
{
    reader *r = NULL;
    pthread_mutex_lock(&s->info_lock);
    for (size_t i = 0; i < LIM_COUNT(s->read_bufs) && !r; i++) {
        r = s->read_bufs[i];
        s->read_bufs[i] = NULL;
    }
    pthread_mutex_unlock(&s->info_lock);
    return r ? r : malloc(sizeof *r);
}

static void give_reader(lim__store *s, reader *r)
{
    pthread_mutex_lock(&s->info_lock);
    for (size_t i = 0; i < LIM_COUNT(s->read_bufs) && r; i++) {
        if (!s->read_bufs[i]) {
            s->read_bufs[i] = r;
            r = NULL;
        }
    }
    pthread_mutex_unlock(&s->info_lock);
    free(r);
}

/* ---- damage ---- */

/* Once for each record; the store's thread tells. */
static void note_sick(lim__store *s, uint64_t stream, uint64_t seq)
{
    bool known = false;
    pthread_mutex_lock(&s->info_lock);
    for (uint32_t i = 0; i < s->sick_count && !known; i++)
        known = s->sick[i].stream == stream && s->sick[i].seq == seq;
    if (!known && s->sick_count < LIM__SICK_MAX)
        s->sick[s->sick_count++] = (lim__sick){ stream, seq };
    pthread_mutex_unlock(&s->info_lock);
    if (!known && s->opts.wake) {
        atomic_store(&s->attention, true);
        s->opts.wake(s->opts.ctx);
    }
}

/* ---- gathering ---- */

static item item_of(const lim__run *run, uint64_t seq)
{
    const lim__run_item *i = &run->items[seq - run->first];
    return (item){ seq, (uint64_t)i->at8 * 8, run->wall_ns + (uint64_t)i->after * LIM__WALL_UNIT, i->size };
}

/* False: it lies too far from the others. */
static bool cluster_add(cluster *c, uint64_t segment, item i)
{
    uint64_t end = i.at + op_bytes(i.size);
    if (c->count == 0) {
        c->segment = segment;
        c->from = i.at;
        c->to = end;
    } else if (c->segment != segment || i.at < c->to || i.at - c->to > READ_GAP || end - c->from > c->bytes_max ||
               c->count == ITEMS_MAX) {
        return false;
    }
    c->to = end;
    c->items[c->count++] = i;
    return true;
}

/* Records from `seq` on, at most `most`. 0; -ENOENT: there are none; -EBADMSG: the first one, *bad, is lost. */
static int gather(lim__store *s, cluster *c, uint64_t stream, uint64_t seq, uint32_t most, uint64_t *bad)
{
    lim__run run;
    c->count = 0;
    for (;;) {
        int err = lim__run_find(lim__index_seek, s->index, stream, seq, &run);
        if (err != 0)
            return c->count && err == -ENOENT ? 0 : err;
        seq = run.first > seq ? run.first : seq;
        if (run.segment == 0) {
            *bad = seq;
            return c->count ? 0 : -EBADMSG;
        }
        for (; seq < run.first + run.count; seq++) {
            if (c->count == most || !cluster_add(c, run.segment, item_of(&run, seq)))
                return 0;
        }
    }
}

/* ---- reading ---- */

/* The bytes of a cluster: into r->bytes, or for one large record into *large. -ESTALE: the segment is gone. */
static int read_cluster(lim__store *s, reader *r, const uint8_t **bytes, uint8_t **large, lim__seal *seal)
{
    const cluster *c = &r->cluster;
    size_t len = (size_t)(c->to - c->from);
    lim__segment *segment = lim__segment_ref(&s->segments, c->segment);
    if (!segment)
        return -ESTALE;
    uint8_t *to = len <= READ_BYTES ? r->bytes : (*large = malloc(len));
    int err = to ? lim__segment_load(&s->segments, segment) : -ENOMEM;
    if (err == 0)
        err = lim__segment_read(&s->segments, segment, to, len, c->from);
    *seal = segment->seal;
    *bytes = to;
    lim__segment_unref(&s->segments, segment);
    return err;
}

/* Is this the record that the index has there? */
static bool record_good(const uint8_t *at, const item *i, uint64_t stream, lim__seal seal, lim__record *out)
{
    const lim__op *op = (const lim__op *)(const void *)at;
    if (!lim__op_good(at, (size_t)op_bytes(i->size), seal) || op->stream != stream || op->seq != i->seq ||
        (op->kind != LIM__OP_APPEND && op->kind != LIM__OP_COPY) || (uint32_t)op->key_len + op->data_len != i->size)
        return false;
    *out = (lim__record){ .seq = op->seq, .wall_ns = op->wall_ns, .key = lim__op_key(op), .data = lim__op_data(op) };
    return true;
}

typedef struct reading {
    lim__store *s;
    uint64_t stream, next; /* the number after the last record that was handed out */
    uint32_t left, bytes_max;
    bool (*each)(void *ctx, const lim__record *r);
    void *ctx;
    uint64_t *bad;
    bool enough;
} reading;

static int hand_out(reading *g, const cluster *c, const uint8_t *bytes, lim__seal seal)
{
    for (uint32_t i = 0; i < c->count && !g->enough; i++) {
        lim__record record;
        if (!record_good(bytes + (c->items[i].at - c->from), &c->items[i], g->stream, seal, &record)) {
            *g->bad = c->items[i].seq;
            note_sick(g->s, g->stream, c->items[i].seq);
            return -EBADMSG;
        }
        g->next = record.seq + 1;
        g->left -= g->left != UINT32_MAX;
        g->enough = !g->each(g->ctx, &record) || g->left == 0;
    }
    return 0;
}

/* One cluster. -ENOENT: the end. */
static int read_some(reading *g, reader *r)
{
    for (int i = 0; i < TRIES; i++) {
        const uint8_t *bytes = NULL;
        uint8_t *large = NULL;
        lim__seal seal;
        r->cluster.bytes_max = g->bytes_max;
        int err = gather(g->s, &r->cluster, g->stream, g->next, g->left, g->bad);
        if (err == 0)
            err = read_cluster(g->s, r, &bytes, &large, &seal);
        if (err == 0)
            err = hand_out(g, &r->cluster, bytes, seal);
        free(large);
        if (err != -ESTALE)
            return err;
    }
    *g->bad = r->cluster.items[0].seq; /* the index names a segment that is not there */
    note_sick(g->s, g->stream, *g->bad);
    return -EBADMSG;
}

static int read_all(reading *g, bool once)
{
    uint64_t nowhere;
    g->bad = g->bad ? g->bad : &nowhere;
    g->left = g->left ? g->left : UINT32_MAX;
    reader *r = take_reader(g->s);
    int err = r ? 0 : -ENOMEM;
    while (err == 0 && !g->enough) {
        err = read_some(g, r);
        g->enough |= once;
    }
    give_reader(g->s, r);
    return err == -ENOENT ? 0 : err;
}

int lim__store_read(lim__store *s, uint64_t stream, uint64_t from, uint32_t max,
                    bool (*each)(void *ctx, const lim__record *r), void *ctx, uint64_t *bad)
{
    reading g = { .s = s, .stream = stream, .next = from, .left = max, .bytes_max = READ_BYTES };
    g.each = each, g.ctx = ctx, g.bad = bad;
    return read_all(&g, false);
}

int lim__store_read_some(lim__store *s, uint64_t stream, uint64_t from, uint32_t max, uint32_t bytes_max,
                         bool (*each)(void *ctx, const lim__record *r), void *ctx, uint64_t *bad)
{
    reading g = { .s = s, .stream = stream, .next = from, .left = max };
    g.bytes_max = bytes_max < READ_BYTES ? bytes_max : READ_BYTES;
    g.each = each, g.ctx = ctx, g.bad = bad;
    return read_all(&g, true);
}

/* ---- streams ---- */

int lim__store_stream(lim__store *s, uint64_t stream, lim__stream_info *out)
{
    lim__buf value = { 0 };
    lim__key k = lim__key_stream(stream);
    int err = lim__index_get(s->index, lim__key_bytes(&k), &value);
    *out = (lim__stream_info){ .next = 1 };
    if (err == 0 && lim__buf_len(&value) == sizeof *out)
        memcpy(out, lim__buf_bytes(&value).ptr, sizeof *out);
    else if (err == 0) {
        lim__index_damage(s->index);
        err = -EAGAIN;
    }
    lim__buf_fini(&value);
    return err == -ENOENT ? 0 : err;
}

int lim__store_seek(lim__store *s, uint64_t stream, uint64_t wall_ns, uint64_t *seq)
{
    lim__stream_info info;
    int err = lim__store_stream(s, stream, &info);
    uint64_t low = info.first, high = info.next, best = info.next;
    while (err == 0 &&
           low < high) { /* times do not fall: the first one that is late enough lies in low..high-1, or is best */
        uint64_t middle = low + (high - low) / 2;
        lim__run run;
        err = lim__run_find(lim__index_seek, s->index, stream, middle, &run);
        if (err == -ENOENT || (err == 0 && run.first >= high)) {
            err = 0;
            high = middle;
            continue;
        }
        uint64_t at = run.first > middle ? run.first : middle;
        uint64_t wall = run.segment ? item_of(&run, at).wall_ns : run.wall_ns;
        if (err == 0 && wall >= wall_ns) {
            best = at;
            high = middle;
        } else {
            low = at + 1;
        }
    }
    if (err == 0)
        *seq = best;
    return err;
}

/* The record with this number and key, if it is alive; -ENOENT: it is not. */
static int read_keyed(lim__store *s, reader *r, uint64_t stream, uint64_t seq,
                      bool (*each)(void *ctx, const lim__record *r), void *ctx)
{
    uint64_t bad = 0;
    reading g = { .s = s, .stream = stream, .next = seq, .left = 1, .bytes_max = READ_BYTES };
    g.each = each, g.ctx = ctx, g.bad = &bad;
    lim__run run;
    int err = lim__run_find(lim__index_seek, s->index, stream, seq, &run);
    if (err == 0 && run.first > seq)
        return -ENOENT;
    return err ? err : read_some(&g, r);
}

int lim__store_last(lim__store *s, uint64_t stream, lim_bytes key, bool (*each)(void *ctx, const lim__record *r),
                    void *ctx)
{
    if (key.len == 0 || key.len > LIM__STREAM_KEY_MAX)
        return -ENOENT;
    lim__buf found = { 0 };
    lim__key at = lim__key_keyed(stream, key, UINT64_MAX);
    reader *r = take_reader(s);
    int err = r ? 0 : -ENOMEM;
    while (err == 0) { /* backwards: those that are forgotten are still in the index for a while */
        err = lim__index_seek(s->index, lim__key_bytes(&at), LIM__SEEK_LT, &found, NULL);
        if (err == 0 &&
            (lim__buf_len(&found) != at.len || memcmp(lim__buf_bytes(&found).ptr, at.bytes, at.len - 8) != 0))
            err = -ENOENT;
        if (err != 0)
            break;
        uint64_t seq = lim__key_number(lim__buf_bytes(&found), at.len - 8);
        err = read_keyed(s, r, stream, seq, each, ctx);
        if (err != -ENOENT)
            break;
        at = lim__key_keyed(stream, key, seq);
        err = 0;
    }
    give_reader(s, r);
    lim__buf_fini(&found);
    return err;
}

/* ---- rows ---- */

static lim__key row_key(uint8_t table, lim_bytes key)
{
    uint8_t bytes[1 + LIM__ROW_KEY_MAX];
    bytes[0] = table;
    if (key.len > 0)
        memcpy(bytes + 1, key.ptr, key.len);
    return lim__key_row(lim__bytes(bytes, 1 + key.len));
}

int lim__store_get(lim__store *s, uint8_t table, lim_bytes key, void **value, size_t *len)
{
    if (key.len > LIM__ROW_KEY_MAX)
        return -ENOENT;
    lim__buf found = { 0 };
    lim__key k = row_key(table, key);
    int err = lim__index_get(s->index, lim__key_bytes(&k), &found);
    if (err == 0) {
        *len = lim__buf_len(&found);
        *value = malloc(*len + 1);
        if (*value && *len > 0)
            memcpy(*value, lim__buf_bytes(&found).ptr, *len);
        err = *value ? 0 : -ENOMEM;
    }
    lim__buf_fini(&found);
    return err;
}

int lim__store_scan(lim__store *s, uint8_t table, lim_bytes prefix, lim_bytes after,
                    bool (*each)(void *ctx, lim_bytes key, lim_bytes value), void *ctx)
{
    if (prefix.len > LIM__ROW_KEY_MAX || after.len > LIM__ROW_KEY_MAX)
        return -EINVAL;
    lim__buf key = { 0 }, value = { 0 };
    const lim__key begin = row_key(table, prefix);
    bool behind = after.len > 0 && lim__key_cmp(after, prefix) >= 0;
    lim__key at = behind ? row_key(table, after) : begin;
    lim__seek where = behind ? LIM__SEEK_GT : LIM__SEEK_GE;
    int err;
    while ((err = lim__index_seek(s->index, lim__key_bytes(&at), where, &key, &value)) == 0) {
        lim_bytes k = lim__buf_bytes(&key);
        if (k.len < begin.len || memcmp(k.ptr, begin.bytes, begin.len) != 0)
            break;
        memcpy(at.bytes, k.ptr, k.len);
        at.len = k.len;
        where = LIM__SEEK_GT;
        if (!each(ctx, lim__bytes(at.bytes + 2, at.len - 2), lim__buf_bytes(&value)))
            break;
    }
    lim__buf_fini(&key), lim__buf_fini(&value);
    return err == -ENOENT ? 0 : err;
}
