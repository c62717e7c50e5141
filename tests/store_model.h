/* SPDX-License-Identifier: Apache-2.0
 * store_model.h - what a store on a simulated disk should have in it: a list of what was submitted and how it was answered.
 *
 * What the model knows of a batch: what it would do, and how it was answered. After a sudden end
 *   - what was answered COMMITTED with class DISK is there (DU2, DU3); with class OS too, unless the power failed: then of
 *     those behind the last DISK one only the last ones may be missing;
 *   - what was answered CONFLICT, FULL or FAILED is not there;
 *   - of what was not answered, or UNKNOWN, each is there as a whole or not at all (DU4): a row with its number says which.
 * Then everything that can be read is compared: numbers, keys, contents, times in order, counts, rows, newest of a key. A
 * record whose bytes were made to rot may answer -EBADMSG with its number, and nothing else may change. */
#ifndef STORE_MODEL_H
#define STORE_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "sim/sim_os.h"
#include "store/reader.h"
#include "store/store.h"

enum { STREAMS = 3, RECORDS = 4000, ROWS = 8, MARKS = 64, OPEN_MAX = 48, OPS = 6, TABLE = 1, MARK_TABLE = 9 };
enum { SEGMENT = 64 << 10 };
#define MS 1000000ull

/* ---- what is submitted ---- */

typedef enum op_kind { APPEND = 1, PUT, DELETE, TRIM, ERASE, DROP } op_kind;
typedef struct op {
    op_kind kind;
    uint32_t stream, row, key; /* key: 0: none */
    uint64_t seq;
    uint32_t content, len; /* of a record or a value */
} op;

typedef enum status { OPEN = 1, DISK, OS, NOTHING, UNKNOWN } status;
typedef struct step {
    struct world *w;
    uint32_t number, count;
    op ops[OPS];
    bool small, expects;
    uint32_t expect_row, expect_content; /* content 0: absent */
    lim__sync sync;
    status status;
    uint64_t seqs[OPS]; /* of appends, when answered */
} step;

/* ---- what there should be ---- */

typedef struct record {
    uint32_t content, len, key;
    bool alive, bad; /* bad: rotten, and known to be */
} record;
typedef struct contents {
    record records[STREAMS][RECORDS]; /* by number */
    uint64_t next[STREAMS];
    uint32_t rows[ROWS]; /* content; 0: absent */
} contents;

typedef struct world {
    lim__sim *sim;
    lim__os *os;
    lim__store *store;
    lim__store_opts opts;
    contents base, now;    /* as of the last comparison; with all that was answered since */
    step *steps[OPEN_MAX]; /* since then, in order */
    uint32_t step_count, numbers;
    bool tight, faulty, rots, rotten, power_lost, armed; /* armed: a call was told to fail */
    uint32_t read_errors; /* permille, while it lives: recovery believes what it cannot read to be lost */
    const char *broken;
    bool log_broken;    /* in this life */
    bool ever_failed;   /* a call on the disk, in any life */
    char flipped[1024]; /* names of files: two bits in one batch may take a name with them */
    uint32_t refused, unknown, quarantined, lives, sealed;
} world;

static world *the;

static uint64_t pick(uint64_t below)
{
    return lim__rng_below(lim__sim_rng(the->sim), below);
}

static bool rule(bool holds, const char *what)
{
    if (!holds && !the->broken && lim__sim_host_alive(the->os)) { /* what the dead read says nothing */
        the->broken = what;
        lim__sim_note(the->sim, "BROKEN %s", what);
    }
    return holds;
}

static void content_of(uint32_t content, uint32_t len, uint8_t *to)
{
    lim__rng rng = lim__rng_seeded(content);
    for (uint32_t i = 0; i < len; i++)
        to[i] = i % 8 ? (uint8_t)(to[i - 1] * 7 + 1) : (uint8_t)lim__rng_next(&rng);
    if (len >= 4)
        memcpy(to, &content, 4);
}

/* ---- the model ---- */

static void apply(contents *s, const step *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        const op *o = &t->ops[i];
        uint64_t *next = &s->next[o->stream];
        switch (o->kind) {
        case APPEND:
            LIM_ASSERT(*next < RECORDS);
            s->records[o->stream][(*next)++] = (record){ o->content, o->len, o->key, true, false };
            break;
        case PUT:
            s->rows[o->row] = o->content;
            break;
        case DELETE:
            s->rows[o->row] = 0;
            break;
        case TRIM:
        case DROP:
            for (uint64_t n = 1; n < *next && (o->kind == DROP || n < o->seq); n++)
                s->records[o->stream][n].alive = false;
            break;
        case ERASE:
            if (o->seq < *next)
                s->records[o->stream][o->seq].alive = false;
            break;
        }
    }
}

static bool expectation_holds(const contents *s, const step *t)
{
    return !t->expects || s->rows[t->expect_row] == t->expect_content;
}

/* ---- submitting ---- */

static op draw_op(const contents *s)
{
    static const op_kind kinds[] = { APPEND, APPEND, APPEND, APPEND, PUT, PUT, DELETE, TRIM, ERASE, DROP };
    op o = { .kind = kinds[pick(LIM_COUNT(kinds))], .stream = (uint32_t)pick(STREAMS), .row = (uint32_t)pick(ROWS) };
    uint64_t next = s->next[o.stream];
    o.content = 1 + (uint32_t)pick(1u << 30);
    o.len = (uint32_t)(pick(10) == 0 ? pick(14000) : pick(300));
    o.key = pick(3) == 0 ? 1 + (uint32_t)pick(3) : 0;
    o.seq = o.kind == TRIM ? 1 + pick(next + 1) : 1 + pick(next);
    if (o.kind == TRIM && pick(4) != 0 && next > 40)
        o.seq = next - 40 + pick(40);
    if (o.kind == DROP && pick(12) != 0)
        o.kind = APPEND;
    return o;
}

static lim_bytes name_of(char prefix, uint32_t n, char text[16])
{
    int len = snprintf(text, 16, "%c%u", prefix, n);
    return lim__bytes(text, (size_t)len);
}

static void add_op(lim__batch *b, const op *o)
{
    static uint8_t data[16384];
    char text[16];
    lim_bytes value = lim__bytes(data, o->len);
    switch (o->kind) {
    case APPEND:
        content_of(o->content, o->len, data);
        lim__batch_append(b, o->stream, o->key ? name_of('k', o->key, text) : lim__str(""), &value, 1);
        break;
    case PUT:
        value.len = 4 + o->content % 300;
        content_of(o->content, (uint32_t)value.len, data);
        lim__batch_put(b, TABLE, name_of('r', o->row, text), value);
        break;
    case DELETE:
        lim__batch_delete(b, TABLE, name_of('r', o->row, text));
        break;
    case TRIM:
        lim__batch_trim(b, o->stream, o->seq);
        break;
    case ERASE:
        lim__batch_erase(b, o->stream, o->seq);
        break;
    case DROP:
        lim__batch_drop(b, o->stream);
        break;
    }
}

static bool is_dead(void)
{
    return !lim__sim_host_alive(the->os);
}

static void on_done(void *ctx, lim__batch *b, const lim__committed *what)
{
    step *t = ctx;
    world *w = t->w;
    uint32_t append = 0;
    if (is_dead()) { /* nobody hears this any more */
        lim__batch_free(b);
        return;
    }
    lim__sim_note(w->sim, "batch %u: %d, class %d, lsn %llu", t->number, what->how, what->class,
                  (unsigned long long)what->lsn);
    switch (what->how) {
    case LIM__COMMITTED:
        rule(expectation_holds(&w->now, t), "a batch was committed whose expectation does not hold");
        t->status = what->class == LIM__CLASS_DISK ? DISK : OS;
        rule(t->sync != LIM__SYNC_ALWAYS || t->status == DISK, "a batch that must be synced is class os");
        for (uint32_t i = 0; i < t->count; i++) {
            if (t->ops[i].kind == APPEND)
                t->seqs[i] = lim__batch_seq(b, append++);
        }
        contents *before = malloc(sizeof *before);
        *before = w->now;
        apply(&w->now, t);
        for (uint32_t i = 0; i < t->count; i++) {
            if (t->ops[i].kind == APPEND)
                rule(t->seqs[i] == before->next[t->ops[i].stream]++, "numbers are not dense, or not in order");
        }
        free(before);
        break;
    case LIM__COMMIT_CONFLICT:
        rule(!expectation_holds(&w->now, t), "a conflict where there is none");
        rule(t->sync != LIM__SYNC_ALWAYS || what->class == LIM__CLASS_DISK, "a conflict that must be synced is class os");
        t->status = NOTHING;
        for (uint32_t i = 0; i < w->step_count && what->class == LIM__CLASS_DISK; i++) /* what it found is there for good */
            w->steps[i]->status = w->steps[i]->status == OS ? DISK : w->steps[i]->status;
        break;
    case LIM__COMMIT_FULL:
        rule(w->tight || w->armed, "full, with a disk that is not");
        w->refused++;
        t->status = NOTHING;
        break;
    case LIM__COMMIT_FAILED:
    case LIM__COMMIT_UNKNOWN:
        rule(w->faulty || w->armed, "the disk is said to have failed, and it has not");
        t->status = what->how == LIM__COMMIT_FAILED ? NOTHING : UNKNOWN;
        w->unknown++;
        break;
    case LIM__COMMIT_CLOSED:
        t->status = NOTHING;
        break;
    }
    lim__batch_free(b);
}

/* The row with the batch's number: did it happen? And where it put its last record, if it has any. */
typedef struct mark {
    uint32_t number;
    uint8_t seq[8], wall_ns[8];
} mark;
static_assert(sizeof(mark) == 20, "layout");

static void add_mark(lim__batch *b, uint32_t number)
{
    char text[16];
    lim_bytes name = name_of('m', number % MARKS, text), value = lim__bytes(&number, sizeof number);
    uint32_t appends = lim__batch_appends(b);
    if (appends > 0)
        lim__batch_put_seq(b, MARK_TABLE, name, value, appends - 1);
    else
        lim__batch_put(b, MARK_TABLE, name, value);
}

static void submit(world *w, const step *drawn)
{
    char text[16];
    step *t = malloc(sizeof *t);
    lim__batch *b = lim__batch_new();
    *t = *drawn;
    t->w = w;
    t->number = ++w->numbers;
    t->status = OPEN;
    w->steps[w->step_count++] = t;
    if (t->expects) {
        uint8_t value[304];
        uint32_t len = 4 + t->expect_content % 300;
        content_of(t->expect_content, len, value);
        lim__batch_expect(b, TABLE, name_of('r', t->expect_row, text),
                          lim__bytes(t->expect_content ? value : NULL, t->expect_content ? len : 0));
    }
    for (uint32_t i = 0; i < t->count; i++)
        add_op(b, &t->ops[i]);
    add_mark(b, t->number);
    if (t->small)
        lim__batch_small(b);
    lim__batch_sync(b, t->sync);
    assert_int_equal(lim__store_submit(w->store, b, on_done, t), 0);
}

static step draw_step(const world *w)
{
    step t = { .count = 1 + (uint32_t)pick(OPS), .sync = LIM__SYNC_ALWAYS };
    for (uint32_t i = 0; i < t.count; i++)
        t.ops[i] = draw_op(&w->now);
    if (pick(4) == 0) {
        t.expects = true;
        t.expect_row = (uint32_t)pick(ROWS);
        t.expect_content = pick(3) == 0 ? 1 + (uint32_t)pick(9) : w->now.rows[t.expect_row];
    }
    if (pick(8) == 0)
        t.sync = pick(2) ? LIM__SYNC_INTERVAL : LIM__SYNC_NEVER;
    return t;
}

/* ---- comparing ---- */

typedef struct reading {
    world *w;
    uint32_t stream;
    uint64_t expected, wall;
    uint64_t sought_wall, sought; /* the first record of some time, as it was met */
} reading;

static bool record_matches(const record *r, const lim__record *got)
{
    static uint8_t data[16384];
    char text[16];
    lim_bytes key = r->key ? name_of('k', r->key, text) : lim__bytes(NULL, 0);
    content_of(r->content, r->len, data);
    return lim__bytes_eq(got->key, key) && lim__bytes_eq(got->data, lim__bytes(data, r->len));
}

/* The first number from n on that is alive. */
static uint64_t next_alive(const world *w, uint32_t stream, uint64_t n)
{
    while (n < w->now.next[stream] && !w->now.records[stream][n].alive)
        n++;
    return n;
}

static bool on_record(void *ctx, const lim__record *got)
{
    reading *r = ctx;
    world *w = r->w;
    r->expected = next_alive(w, r->stream, r->expected);
    if (!rule(r->expected < w->now.next[r->stream] && got->seq == r->expected,
              "a record is missing, or should not be there"))
        return false;
    record *m = &w->now.records[r->stream][got->seq];
    rule(record_matches(m, got), "a record is not what was written");
    rule(got->wall_ns >= r->wall, "times fall");
    if (got->wall_ns > r->wall && pick(4) == 0) {
        r->sought_wall = got->wall_ns;
        r->sought = got->seq;
    }
    r->wall = got->wall_ns;
    r->expected++;
    return true;
}

static bool excused(const world *w, int err)
{
    return (err == -EIO && w->faulty) || ((err == -EIO || err == -ENOSPC) && w->armed);
}

static void compare_stream(world *w, uint32_t stream)
{
    reading r = { .w = w, .stream = stream, .expected = 1 };
    uint64_t bad = 0;
    int err;
    while ((err = lim__store_read(w->store, stream, r.expected, 0, on_record, &r, &bad)) == -EBADMSG && !w->broken) {
        r.expected = next_alive(w, stream, r.expected);
        if (!rule(bad == r.expected && bad < w->now.next[stream], "the wrong record is called damaged"))
            return;
        rule(w->rotten, "a record is damaged that nobody has damaged");
        w->now.records[stream][bad].bad = true;
        w->quarantined++;
        r.expected = bad + 1;
    }
    if (w->broken || excused(w, err))
        return;
    if (err != 0)
        lim__sim_note(w->sim, "read of stream %u: %d", stream, err);
    rule(err == 0, "reading fails");
    rule(next_alive(w, stream, r.expected) == w->now.next[stream], "the last records are missing");
    uint64_t found = 0;
    if (r.sought && !w->rotten)
        rule(lim__store_seek(w->store, stream, r.sought_wall, &found) == 0 && found == r.sought,
             "a time is found elsewhere");
}

static void compare_info(world *w, uint32_t stream)
{
    lim__stream_info info;
    uint64_t count = 0, bytes = 0, first = next_alive(w, stream, 1), lost = 0;
    int err = lim__store_stream(w->store, stream, &info);
    for (uint64_t n = first; n < w->now.next[stream]; n++) {
        const record *r = &w->now.records[stream][n];
        count += r->alive;
        bytes += r->alive ? r->len + (r->key ? 2 : 0) : 0;
        lost += r->alive && r->bad;
    }
    rule(err == 0 && info.next == w->now.next[stream], "a stream's next number is wrong");
    if (info.next > 1)
        rule(info.first == first, "a stream's first number is wrong");
    rule(info.count == count, "a stream's count is wrong");
    rule(info.bytes == bytes || lost > 0, "a stream's bytes are wrong");
}

static bool on_last(void *ctx, const lim__record *got)
{
    reading *r = ctx;
    r->expected = got->seq;
    return true;
}

static void compare_last(world *w, uint32_t stream)
{
    for (uint32_t key = 1; key <= 3; key++) {
        char text[16];
        reading r = { .w = w };
        uint64_t newest = 0;
        for (uint64_t n = 1; n < w->now.next[stream]; n++) {
            const record *m = &w->now.records[stream][n];
            newest = m->alive && m->key == key ? n : newest;
        }
        int err = lim__store_last(w->store, stream, name_of('k', key, text), on_last, &r);
        if (excused(w, err) || (w->rotten && (err == -EBADMSG || r.expected < newest)))
            continue; /* a damaged record has lost its key, too */
        rule(err == (newest ? 0 : -ENOENT) && r.expected == newest, "the newest record of a key is another one");
    }
}

static void compare_rows(world *w)
{
    for (uint32_t row = 0; row < ROWS; row++) {
        char text[16];
        uint8_t expected[304];
        void *value = NULL;
        size_t len = 0, expected_len = 4 + w->now.rows[row] % 300;
        int err = lim__store_get(w->store, TABLE, name_of('r', row, text), &value, &len);
        content_of(w->now.rows[row], (uint32_t)expected_len, expected);
        rule(err == (w->now.rows[row] ? 0 : -ENOENT), "a row is missing, or should not be there");
        if (err == 0)
            rule(len == expected_len && memcmp(value, expected, len) == 0, "a row's value is wrong");
        free(value);
    }
}

static void compare(world *w)
{
    for (uint32_t s = 0; s < STREAMS && !w->broken; s++) {
        compare_stream(w, s);
        compare_info(w, s);
        compare_last(w, s);
    }
    compare_rows(w);
}

/* ---- after an end: which of the unanswered happened? ---- */

static bool happened(world *w, const step *t, mark *m)
{
    char text[16];
    void *value = NULL;
    size_t len = 0;
    *m = (mark){ .number = 0 };
    int err = lim__store_get(w->store, MARK_TABLE, name_of('m', t->number % MARKS, text), &value, &len);
    if (err == 0 && (len == sizeof m->number || len == sizeof *m))
        memcpy(m, value, len);
    free(value);
    return m->number == t->number;
}

typedef struct stamp {
    uint64_t seq, wall_ns;
} stamp;

static bool on_stamped(void *ctx, const lim__record *got)
{
    stamp *s = ctx;
    s->wall_ns = got->seq == s->seq ? got->wall_ns : s->wall_ns;
    return false;
}

/* The mark of a step names the last record that it appended; `before`: the numbers that the streams had come to. */
static void check_mark(world *w, const step *t, const mark *m, const uint64_t before[STREAMS])
{
    uint64_t next[STREAMS], bad, expected = 0;
    uint32_t stream = 0;
    stamp in_row, in_log;
    memcpy(next, before, sizeof next);
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->ops[i].kind == APPEND)
            expected = next[stream = t->ops[i].stream]++;
    }
    memcpy(&in_row.seq, m->seq, 8), memcpy(&in_row.wall_ns, m->wall_ns, 8);
    rule(in_row.seq == expected, "a receipt names another record than its own");
    in_log = in_row;
    if (expected > 0 && lim__store_read(w->store, stream, expected, 1, on_stamped, &in_log, &bad) == 0)
        rule(in_row.wall_ns == in_log.wall_ns, "a receipt has another time than its record");
}

static void find_out(world *w, bool power_lost)
{
    bool missing = false; /* one that had been answered with class OS */
    w->now = w->base;
    for (uint32_t i = 0; i < w->step_count; i++) {
        step *t = w->steps[i];
        mark m;
        bool did = happened(w, t, &m);
        if (t->status == DISK)
            rule(did, "a batch that was acknowledged as durable is not there");
        if (t->status == OS)
            rule(did || power_lost || w->log_broken, "a batch that the system had is not there after a kill");
        if (t->status == NOTHING)
            rule(!did, "a batch that was refused is there");
        rule(!did || !missing || t->status == OPEN || t->status == UNKNOWN, "a batch is missing before others");
        missing = missing || (!did && t->status == OS);
        rule(!did || expectation_holds(&w->now, t), "a batch is there whose expectation did not hold");
        if (did) {
            check_mark(w, t, &m, w->now.next);
            apply(&w->now, t);
        }
        free(t);
    }
    w->step_count = 0;
    compare(w);
    w->base = w->now;
}

/* ---- the second reader ---- */

typedef struct second_look {
    world *w;
    const lim__reader_record *record;
    bool same;
    uint64_t rows;
} second_look;

static bool second_same(void *ctx, const lim__record *r)
{
    second_look *x = ctx;
    x->same = r->seq == x->record->seq && r->wall_ns == x->record->wall_ns && lim__bytes_eq(r->key, x->record->key) &&
              lim__bytes_eq(r->data, x->record->data);
    return false;
}

static bool second_record(void *ctx, const lim__reader_record *r)
{
    second_look *x = ctx;
    uint64_t bad = 0;
    x->record = r;
    x->same = false;
    int err = lim__store_read(x->w->store, r->stream, r->seq, 1, second_same, x, &bad);
    if (r->lost)
        return rule(err == -EBADMSG && bad == r->seq, "the second reader misses a record that the store has");
    return rule(err == 0 && x->same, "the second reader has another record than the store");
}

static bool second_row(void *ctx, uint8_t table, lim_bytes key, lim_bytes value)
{
    second_look *x = ctx;
    void *found = NULL;
    size_t len = 0;
    int err = lim__store_get(x->w->store, table, key, &found, &len);
    bool same = err == 0 && lim__bytes_eq(lim__bytes(found, len), value);
    free(found);
    x->rows++;
    return rule(same, "the second reader has another row than the store");
}

static bool second_stream(void *ctx, const lim__reader_stream *st)
{
    second_look *x = ctx;
    lim__stream_info info;
    if (lim__store_stream(x->w->store, st->id, &info) != 0)
        return true;
    return rule(info.next == st->next && (x->w->rotten || (info.count == st->count && info.bytes == st->bytes)),
                "the second reader has other numbers of a stream than the store");
}

static bool second_uncount(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    --((second_look *)ctx)->rows;
    return true;
}

static void on_odd(void *ctx, const char *line)
{
    world *w = ctx;
    lim__sim_note(w->sim, "second reader: %s", line);
    if (!w->rotten)
        rule(false, "the second reader finds something odd that nobody has damaged");
}

static void on_finding(void *ctx, const char *line)
{
    world *w = ctx;
    lim__sim_note(w->sim, "check: %s", line);
    rule(false, "a check finds something that nobody has damaged");
}

/* What it finds in the files before the store is opened, and does with them what it must. */
static lim__reader *second_open(world *w)
{
    lim__reader *r = NULL;
    w->os = lim__sim_host(w->sim, "disk");
    int err = lim__reader_open(w->os, "store", NULL, on_odd, w, &r);
    rule(err == 0 || err == -ENOENT, "the second reader fails");
    if (err == 0 && !w->rotten && !w->ever_failed)
        lim__store_check(w->os, "store", on_finding, w, NULL);
    return r;
}

static void second_compare(world *w, lim__reader *r)
{
    second_look x = { .w = w };
    if (!r || w->broken)
        return;
    lim__reader_records(r, second_record, &x);
    lim__reader_streams(r, second_stream, &x);
    lim__reader_rows(r, second_row, &x);
    lim__store_scan(w->store, TABLE, lim__str(""), lim__str(""), second_uncount, &x);
    lim__store_scan(w->store, MARK_TABLE, lim__str(""), lim__str(""), second_uncount, &x);
    rule(x.rows == 0, "the second reader has not as many rows as the store");
}

static void forget_steps(world *w)
{
    for (uint32_t i = 0; i < w->step_count; i++)
        free(w->steps[i]);
    w->step_count = 0;
}

#endif
