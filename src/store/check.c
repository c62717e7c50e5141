/* SPDX-License-Identifier: Apache-2.0
 * check.c - looks at everything in a store that nobody has open, and changes nothing.
 *
 * The log is read from its beginning, all checksums included, and an index is made from it in memory. Then LMDB's file
 * is looked at, brought up to the end of the log, again in memory, and the two are compared: rows, streams, the place
 * of each record, and the newest of each key. How places are put together into runs may differ, so records are compared
 * one by one. */
#include "store/inside.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOLD_MAX = 20 };

typedef struct checking {
    lim__on_finding *each;
    void *ctx;
    lim__store *log, *index;
    uint64_t findings;
} checking;

__attribute__((format(printf, 2, 3))) static void find(checking *c, const char *format, ...)
{
    char line[360];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (c->findings++ < TOLD_MAX)
        c->each(c->ctx, line);
    else if (c->findings == TOLD_MAX + 1)
        c->each(c->ctx, "... and more");
}

static void on_event(void *ctx, const char *kind, const char *text)
{
    find(ctx, "%s: %s", kind, text);
}

/* ---- comparing ---- */

/* One entry after the other of the keys that begin with this character. */
typedef struct walk {
    lim__store *s;
    char kind;
    lim__key at;
    lim__buf key, value;
    bool any; /* key and value are an entry */
} walk;

static void walk_next(walk *w)
{
    lim__seek where = w->at.len ? LIM__SEEK_GT : LIM__SEEK_GE;
    lim__key first = { .len = 1, .bytes = { (uint8_t)w->kind } };
    const lim__key *from = w->at.len ? &w->at : &first;
    int err = lim__index_seek(w->s->index, lim__key_bytes(from), where, &w->key, &w->value);
    lim_bytes k = lim__buf_bytes(&w->key);
    w->any = err == 0 && *(const char *)k.ptr == w->kind;
    if (w->any) {
        w->at.len = k.len;
        memcpy(w->at.bytes, k.ptr, k.len);
    }
}

static void walk_end(walk *w)
{
    lim__buf_fini(&w->key), lim__buf_fini(&w->value);
}

static void show_key(lim_bytes key, char text[96])
{
    const uint8_t *b = key.ptr;
    if (b[0] == 'S' && key.len == 9) {
        snprintf(text, 96, "stream %llu", (unsigned long long)lim__key_number(key, 1));
        return;
    }
    int n = snprintf(text, 96, "row of table %u, key ", b[1]);
    for (size_t i = 2; i < key.len && n < 90; i++)
        n += snprintf(text + n, 96 - (size_t)n, b[i] >= ' ' && b[i] < 127 ? "%c" : "\\x%02x", b[i]);
}

static void compare_entries(checking *c, char kind)
{
    walk a = { .s = c->log, .kind = kind }, b = { .s = c->index, .kind = kind };
    char text[96];
    walk_next(&a), walk_next(&b);
    while (a.any || b.any) {
        int order = !a.any ? 1 : !b.any ? -1 : lim__key_cmp(lim__buf_bytes(&a.key), lim__buf_bytes(&b.key));
        show_key(lim__buf_bytes(order <= 0 ? &a.key : &b.key), text);
        if (order < 0)
            find(c, "%s: in the log, not in the index", text);
        else if (order > 0)
            find(c, "%s: in the index, not in the log", text);
        else if (!lim__bytes_eq(lim__buf_bytes(&a.value), lim__buf_bytes(&b.value)))
            find(c, "%s: the index has something else than the log", text);
        if (order <= 0)
            walk_next(&a);
        if (order >= 0)
            walk_next(&b);
    }
    walk_end(&a), walk_end(&b);
}

/* Records in the order of streams and numbers. */
typedef struct records {
    walk w;
    lim__run run;
    uint64_t seq; /* 0: at the end */
} records;

static void records_next(records *r)
{
    if (r->seq != 0 && r->seq + 1 < r->run.first + r->run.count) {
        r->seq++;
        return;
    }
    walk_next(&r->w);
    bool good = r->w.any && lim__run_read(lim__buf_bytes(&r->w.key), lim__buf_bytes(&r->w.value), &r->run);
    r->seq = good ? r->run.first : 0;
}

static bool same_place(const records *a, const records *b)
{
    if (a->run.segment != b->run.segment || a->run.segment == 0)
        return a->run.segment == b->run.segment;
    const lim__run_item *x = &a->run.items[a->seq - a->run.first], *y = &b->run.items[b->seq - b->run.first];
    uint64_t wall_x = a->run.wall_ns + (uint64_t)x->after * LIM__WALL_UNIT;
    uint64_t wall_y = b->run.wall_ns + (uint64_t)y->after * LIM__WALL_UNIT;
    return x->at8 == y->at8 && x->size == y->size && wall_x == wall_y;
}

static int records_order(const records *a, const records *b)
{
    if (a->seq == 0 || b->seq == 0)
        return a->seq == 0 ? 1 : -1;
    if (a->run.stream != b->run.stream)
        return a->run.stream < b->run.stream ? -1 : 1;
    return (a->seq > b->seq) - (a->seq < b->seq);
}

static void compare_records(checking *c)
{
    records a = { .w = { .s = c->log, .kind = 'N' } }, b = { .w = { .s = c->index, .kind = 'N' } };
    records_next(&a), records_next(&b);
    while (a.seq || b.seq) {
        int order = records_order(&a, &b);
        const records *one = order <= 0 ? &a : &b;
        const char *what = order < 0   ? "in the log, not in the index"
                           : order > 0 ? "in the index, not in the log"
                                       : "not where the index says";
        if (order != 0 || !same_place(&a, &b))
            find(c, "record %llu of stream %llu: %s", (unsigned long long)one->seq, (unsigned long long)one->run.stream,
                 what);
        if (order <= 0)
            records_next(&a);
        if (order >= 0)
            records_next(&b);
    }
    walk_end(&a.w), walk_end(&b.w);
}

/* Every record with a key that is alive is found under its key in the other one, too. */
static void compare_keyed(checking *c, lim__store *in, lim__store *other, const char *what)
{
    walk w = { .s = in, .kind = 'K' };
    for (walk_next(&w); w.any; walk_next(&w)) {
        lim_bytes key = lim__buf_bytes(&w.key);
        uint64_t stream = lim__key_number(key, 1), seq = lim__key_number(key, key.len - 8);
        lim__run run;
        lim__buf value = { 0 };
        bool alive = lim__run_find(lim__index_seek, in->index, stream, seq, &run) == 0 && run.first <= seq;
        if (alive && lim__index_get(other->index, key, &value) != 0)
            find(c, "record %llu of stream %llu is %s", (unsigned long long)seq, (unsigned long long)stream, what);
        lim__buf_fini(&value);
    }
    walk_end(&w);
}

static void compare(checking *c)
{
    compare_entries(c, 'R');
    compare_entries(c, 'S');
    compare_records(c);
    compare_keyed(c, c->log, c->index, "not found under its key by the index");
    compare_keyed(c, c->index, c->log, "under a key that it does not have");
}

/* ---- all of it ---- */

/* The index as it is on the disk, with what the log has behind it. The log's lock is taken; this is a second look. */
static void look_at_index(checking *c, lim__os *os, const char *dir)
{
    lim__store_error error;
    char path[4200];
    snprintf(path, sizeof path, "%s/index", dir);
    lim__store_opts opts = { .os = os, .dir = dir, .segment_bytes = LIM__SEGMENT_BYTES_MIN, .read_only = true };
    int err = lim__store_open_from(&opts, LIM__INDEX_LOOK, &error, &c->index);
    if (err == 0)
        compare(c);
    else if (err != -ENOENT) /* without an index there is nothing to be wrong */
        find(c, "the index is damaged: it is made again from the log at the next start");
    lim__store_close(c->index);
}

int lim__store_check(lim__os *os, const char *dir, lim__on_finding *each, void *ctx, lim__store_error *error)
{
    checking c = { .each = each, .ctx = ctx };
    lim__store_opts opts = { .os = os,
                             .dir = dir,
                             .segment_bytes =
                                 LIM__SEGMENT_BYTES_MIN, /* as long as the files are, whatever they were made with */
                             .read_only = true,
                             .on_event = on_event,
                             .ctx = &c };
    int err = lim__store_open(&opts, error, &c.log);
    if (err != 0)
        return err;
    look_at_index(&c, os, dir);
    lim__store_close(c.log);
    if (c.findings > 0)
        lim__store_fail(error, "%llu findings", (unsigned long long)c.findings);
    return c.findings > 0 ? -EBADMSG : 0;
}
