/* SPDX-License-Identifier: Apache-2.0
 * test_world.h - a store in a directory of its own, and short words for what tests do with it. */
#ifndef LIM__STORE_TEST_WORLD_H
#define LIM__STORE_TEST_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "store/format.h"
#include "store/reader.h"
#include "store/store.h"

enum { SEGMENT_BYTES = 128 << 10, SEQS_MAX = 8 };

typedef struct outcome {
    lim__commit_how how;
    lim__class class;
    uint64_t lsn, wall_ns, limit, current;
    uint32_t conflict;
    char found[64];
    uint64_t seqs[SEQS_MAX];
    int order;
} outcome;

typedef struct world {
    char dir[64];
    lim__store_opts opts;
    lim__store *store;
    char events[8192];
    int wakes;
} world;

/* A view of text that lives until 16 later calls. */
__attribute__((format(printf, 1, 2))) static inline lim_bytes text(const char *format, ...)
{
    static char texts[16][256];
    static int turn;
    char *to = texts[turn++ % 16];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(to, sizeof texts[0], format, args);
    va_end(args);
    return lim__bytes(to, (size_t)n);
}

static inline void on_done(void *ctx, lim__batch *b, const lim__committed *what)
{
    static int order;
    outcome *o = ctx;
    *o = (outcome){ .how = what->how,
                    .class = what->class,
                    .lsn = what->lsn,
                    .wall_ns = what->first_ns,
                    .conflict = what->conflict,
                    .limit = what->limit,
                    .current = what->current,
                    .order = ++order };
    if (what->found.ptr)
        snprintf(o->found, sizeof o->found, "%.*s", (int)what->found.len, (const char *)what->found.ptr);
    for (uint32_t i = 0; what->how == LIM__COMMITTED && i < lim__batch_appends(b) && i < SEQS_MAX; i++)
        o->seqs[i] = lim__batch_seq(b, i);
    lim__batch_free(b);
}

static inline void on_event(void *ctx, const char *kind, const char *what)
{
    world *w = ctx;
    size_t len = strlen(w->events);
    snprintf(w->events + len, sizeof w->events - len, "%s: %s\n", kind, what);
}

static inline void on_wake(void *ctx)
{
    __atomic_fetch_add(&((world *)ctx)->wakes, 1, __ATOMIC_RELAXED);
}

static inline void open_store(world *w)
{
    lim__store_error error = { "" };
    w->events[0] = 0;
    int err = lim__store_open(&w->opts, &error, &w->store);
    if (err != 0)
        print_message("open: %d, %s\n", err, error.text);
    assert_int_equal(err, 0);
}

/* ---- what the second reader says ---- */
typedef struct agreement {
    world *w;
    uint64_t records, rows, lost;
    const lim__reader_record *record; /* that is looked for */
    bool found;
} agreement;

static inline void on_odd(void *ctx, const char *line)
{
    lim__buf_format(ctx, "%s\n", line);
}

static inline bool same_record(void *ctx, const lim__record *r)
{
    agreement *a = ctx;
    const lim__reader_record *expected = a->record;
    a->found = r->seq == expected->seq && r->wall_ns == expected->wall_ns && lim__bytes_eq(r->key, expected->key) &&
               lim__bytes_eq(r->data, expected->data);
    return false;
}

static inline bool agree_on_record(void *ctx, const lim__reader_record *r)
{
    agreement *a = ctx;
    uint64_t bad = 0;
    a->record = r;
    a->found = false;
    a->records++;
    a->lost += r->lost;
    int err = lim__store_read(a->w->store, r->stream, r->seq, 1, same_record, a, &bad);
    if (r->lost)
        assert_true(err == -EBADMSG && bad == r->seq);
    else
        assert_true(err == 0 && a->found);
    return true;
}

static inline bool agree_on_row(void *ctx, uint8_t table, lim_bytes key, lim_bytes value)
{
    agreement *a = ctx;
    void *found;
    size_t len;
    assert_int_equal(lim__store_get(a->w->store, table, key, &found, &len), 0);
    assert_true(lim__bytes_eq(lim__bytes(found, len), value));
    free(found);
    a->rows++;
    return true;
}

static inline bool agree_on_stream(void *ctx, const lim__reader_stream *st)
{
    agreement *a = ctx;
    lim__stream_info info;
    assert_int_equal(lim__store_stream(a->w->store, st->id, &info), 0);
    assert_int_equal(info.next, st->next);
    assert_int_equal(info.first, st->first);
    assert_int_equal(info.count, st->count);
    assert_true(info.bytes == st->bytes || a->lost > 0);
    return true;
}

static inline bool uncount_row(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    --((agreement *)ctx)->rows;
    return true;
}

/* Whatever the second reader finds in the log, the store has, and no more. */
static inline void expect_agreement(world *w, lim__reader *r)
{
    agreement a = { .w = w };
    lim__store_info info;
    assert_int_equal(lim__reader_records(r, agree_on_record, &a), 0);
    assert_int_equal(lim__reader_rows(r, agree_on_row, &a), 0);
    assert_int_equal(lim__reader_streams(r, agree_on_stream, &a), 0);
    lim__store_info_get(w->store, &info);
    assert_int_equal(info.records, a.records);
    for (uint8_t table = 0; table < LIM__TABLES_MAX; table++)
        assert_int_equal(lim__store_scan(w->store, table, lim__str(""), lim__str(""), uncount_row, &a), 0);
    assert_int_equal(a.rows, 0);
}

static inline void reopen(world *w)
{
    lim__buf odd = { 0 };
    lim__reader *r = NULL;
    lim__store_close(w->store);
    assert_int_equal(lim__reader_open(w->opts.os, w->dir, NULL, on_odd, &odd, &r), 0);
    open_store(w);
    expect_agreement(w, r);
    lim__reader_close(r);
    lim__buf_fini(&odd);
}

/* Turns until there is nothing to do. */
static inline void settle(world *w)
{
    while (lim__store_turn(w->store, NULL))
        continue;
}

static inline void submit(world *w, lim__batch *b, outcome *o)
{
    assert_int_equal(lim__store_submit(w->store, b, on_done, o), 0);
}

static inline outcome commit(world *w, lim__batch *b)
{
    outcome o = { 0 };
    submit(w, b, &o);
    settle(w);
    assert_int_not_equal(o.how, 0);
    return o;
}

static inline uint64_t append(world *w, uint64_t stream, const char *key, lim_bytes data)
{
    lim__batch *b = lim__batch_new();
    lim__batch_append(b, stream, lim__str(key), &data, 1);
    outcome o = commit(w, b);
    assert_int_equal(o.how, LIM__COMMITTED);
    return o.seqs[0];
}

static inline void put(world *w, uint8_t table, const char *key, const char *value)
{
    lim__batch *b = lim__batch_new();
    lim__batch_put(b, table, lim__str(key), lim__str(value));
    assert_int_equal(commit(w, b).how, LIM__COMMITTED);
}

static inline void change(world *w, uint64_t stream, const char *what, uint64_t seq)
{
    lim__batch *b = lim__batch_new();
    if (strcmp(what, "trim") == 0)
        lim__batch_trim(b, stream, seq);
    else if (strcmp(what, "erase") == 0)
        lim__batch_erase(b, stream, seq);
    else
        lim__batch_drop(b, stream);
    lim__batch_small(b);
    assert_int_equal(commit(w, b).how, LIM__COMMITTED);
}

/* ---- what there is ---- */
static inline void expect_stream(world *w, uint64_t stream, uint64_t first, uint64_t next, uint64_t count)
{
    lim__stream_info info;
    assert_int_equal(lim__store_stream(w->store, stream, &info), 0);
    assert_int_equal(info.first, first);
    assert_int_equal(info.next, next);
    assert_int_equal(info.count, count);
    assert_int_equal(info.bytes > 0, count > 0);
}

static inline bool add_record(void *ctx, const lim__record *r)
{
    lim__buf *to = ctx;
    lim__buf_format(to, "%.*s%s%.*s|", (int)r->key.len, (const char *)r->key.ptr, r->key.len ? ":" : "",
                    (int)r->data.len, (const char *)r->data.ptr);
    return true;
}

static inline void expect_text(lim__buf *found, const char *expected)
{
    lim__buf_add(found, "", 1);
    assert_string_equal(lim__buf_bytes(found).ptr, expected);
    lim__buf_fini(found);
}

static inline void expect_records(world *w, uint64_t stream, uint64_t from, const char *expected)
{
    lim__buf found = { 0 };
    uint64_t bad;
    assert_int_equal(lim__store_read(w->store, stream, from, 0, add_record, &found, &bad), 0);
    expect_text(&found, expected);
}

static inline void expect_last(world *w, uint64_t stream, const char *key, const char *expected)
{
    lim__buf found = { 0 };
    int err = lim__store_last(w->store, stream, lim__str(key), add_record, &found);
    assert_int_equal(err, expected ? 0 : -ENOENT);
    expect_text(&found, expected ? expected : "");
}

static inline void expect_row(world *w, uint8_t table, const char *key, const char *expected)
{
    void *value;
    size_t len;
    int err = lim__store_get(w->store, table, lim__str(key), &value, &len);
    assert_int_equal(err, expected ? 0 : -ENOENT);
    if (expected) {
        assert_int_equal(len, strlen(expected));
        assert_memory_equal(value, expected, len);
        free(value);
    }
}

static inline bool add_row(void *ctx, lim_bytes key, lim_bytes value)
{
    lim__buf_format(ctx, "%.*s=%.*s,", (int)key.len, (const char *)key.ptr, (int)value.len, (const char *)value.ptr);
    return true;
}

static inline void expect_scan(world *w, uint8_t table, const char *prefix, const char *after, const char *expected)
{
    lim__buf found = { 0 };
    assert_int_equal(lim__store_scan(w->store, table, lim__str(prefix), lim__str(after), add_row, &found), 0);
    expect_text(&found, expected);
}

static inline bool count_one(void *ctx, const lim__record *r)
{
    (void)r;
    ++*(uint32_t *)ctx;
    return true;
}

static inline uint32_t count_records(world *w, uint64_t stream, uint64_t from, uint32_t max)
{
    uint32_t count = 0;
    uint64_t bad;
    assert_int_equal(lim__store_read(w->store, stream, from, max, count_one, &count, &bad), 0);
    return count;
}

/* Records begin with six digits: first, first + step ... below end. */
typedef struct counting {
    unsigned next, step;
} counting;

static inline bool check_number(void *ctx, const lim__record *r)
{
    counting *c = ctx;
    char digits[8] = "";
    memcpy(digits, r->data.ptr, 6);
    assert_int_equal(atoi(digits), c->next);
    c->next += c->step;
    return true;
}

static inline void expect_counted(world *w, uint64_t stream, unsigned first, unsigned step, unsigned end)
{
    counting c = { first, step };
    uint64_t bad;
    assert_int_equal(lim__store_read(w->store, stream, 1, 0, check_number, &c, &bad), 0);
    assert_true(c.next >= end && c.next < end + step);
}

/* ---- files ---- */
static inline void path_of(world *w, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", w->dir, name);
}

static inline void write_file(world *w, const char *name, const char *content)
{
    char path[256];
    path_of(w, name, path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(content, f);
    fclose(f);
}

static inline void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        char path[1024];
        struct stat st;
        snprintf(path, sizeof path, "%.600s/%s", dir, e->d_name);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || stat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode))
            remove_dir(path);
        else
            unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

/* Where there is no disk below, tests that close and open hundreds of times do not wait for it. */
static inline const char *quick_dir(void)
{
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static inline world *world_new_in(const char *where, bool in_memory)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    snprintf(w->dir, sizeof w->dir, "%s/liminal-store-XXXXXX", where);
    assert_non_null(mkdtemp(w->dir));
    w->opts = (lim__store_opts){ .os = lim__os_linux(),
                                 .dir = w->dir,
                                 .segment_bytes = SEGMENT_BYTES,
                                 .index_map_bytes = 1 << 28,
                                 .interval_ns = 3000000,
                                 .index_in_memory = in_memory,
                                 .wake = on_wake,
                                 .on_event = on_event,
                                 .ctx = w };
    open_store(w);
    return w;
}

static inline world *world_new(bool in_memory)
{
    return world_new_in("/tmp", in_memory);
}

static inline int set_up_lmdb(void **state)
{
    *state = world_new(false);
    return 0;
}

static inline int set_up_memory(void **state)
{
    *state = world_new(true);
    return 0;
}

static inline int tear_down(void **state)
{
    world *w = *state;
    lim__store_close(w->store);
    remove_dir(w->dir);
    free(w);
    return 0;
}

#endif
