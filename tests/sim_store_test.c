/* SPDX-License-Identifier: Apache-2.0
 * sim_store_test.c - the store on simulated disks: random steps, sudden ends, failing calls, full disks and rot,
 * against a model that is a list of what was submitted.
 *
 *   life:  open (may be made to fail) --> compare --> random batches, turns, reads --> close, kill, or power loss
 *          a world is a few lives of one directory; between two of them bits may flip
 *
 * What the model knows of a batch: what it would do, and how it was answered. After a sudden end
 *   - what was answered COMMITTED with class DISK is there (DU2, DU3); with class OS too, unless the power failed: then
 * of those behind the last DISK one only the last ones may be missing;
 *   - what was answered CONFLICT, FULL or FAILED is not there;
 *   - of what was not answered, or UNKNOWN, each is there as a whole or not at all (DU4): a row with its number says
 * which. Then everything that can be read is compared: numbers, keys, contents, times in order, counts, rows, newest of
 * a key. A record whose bytes were made to rot may answer -EBADMSG with its number, and nothing else may change; a
 * store that was closed before loses nothing but that.
 *
 * LIM_SEEDS worlds from LIM_SEED on; the history of a single one is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "sim/sim_os.h"
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
        t->status = NOTHING;
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

/* The row with the batch's number: did it happen? */
static void add_mark(lim__batch *b, uint32_t number)
{
    char text[16];
    lim__batch_put(b, MARK_TABLE, name_of('m', number % MARKS, text), lim__bytes(&number, sizeof number));
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
    add_mark(b, t->number);
    for (uint32_t i = 0; i < t->count; i++)
        add_op(b, &t->ops[i]);
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

static bool happened(world *w, const step *t)
{
    char text[16];
    void *value = NULL;
    size_t len = 0;
    uint32_t number = 0;
    int err = lim__store_get(w->store, MARK_TABLE, name_of('m', t->number % MARKS, text), &value, &len);
    if (err == 0 && len == sizeof number)
        memcpy(&number, value, sizeof number);
    free(value);
    return number == t->number;
}

static void find_out(world *w, bool power_lost)
{
    bool missing = false; /* one that had been answered with class OS */
    w->now = w->base;
    for (uint32_t i = 0; i < w->step_count; i++) {
        step *t = w->steps[i];
        bool did = happened(w, t);
        if (t->status == DISK)
            rule(did, "a batch that was acknowledged as durable is not there");
        if (t->status == OS)
            rule(did || power_lost || w->log_broken, "a batch that the system had is not there after a kill");
        if (t->status == NOTHING)
            rule(!did, "a batch that was refused is there");
        rule(!did || !missing || t->status == OPEN || t->status == UNKNOWN, "a batch is missing before others");
        missing = missing || (!did && t->status == OS);
        rule(!did || expectation_holds(&w->now, t), "a batch is there whose expectation did not hold");
        if (did)
            apply(&w->now, t);
        free(t);
    }
    w->step_count = 0;
    compare(w);
    w->base = w->now;
}

static void forget_steps(world *w)
{
    for (uint32_t i = 0; i < w->step_count; i++)
        free(w->steps[i]);
    w->step_count = 0;
}

/* ---- lives ---- */

static void on_event(void *ctx, const char *kind, const char *text)
{
    world *w = ctx;
    if (is_dead())
        return;
    lim__sim_note(w->sim, "event %s: %s", kind, text);
    w->sealed += strcmp(kind, "segment_sealed") == 0;
    w->log_broken = w->log_broken || strcmp(kind, "log_broken") == 0;
    if (strcmp(kind, "quarantined") == 0)
        rule(w->rotten || w->faulty || w->armed, "something is quarantined that nobody has damaged");
}

static void turn(world *w, uint32_t most)
{
    while (most-- > 0 && lim__store_turn(w->store, NULL) && !is_dead())
        continue;
}

/* Opens it, if need be after a failure that was ordered. False: the program was killed while it opened. */
static bool open_store(world *w)
{
    lim__store_error error = { "" };
    for (int tries = 0; tries < 4; tries++) {
        w->os = lim__sim_host(w->sim, "disk");
        w->opts.os = w->os;
        int err = lim__store_open(&w->opts, &error, &w->store);
        if (err == 0)
            return true;
        w->store = NULL;
        lim__sim_note(w->sim, "open: %d, %s", err, error.text);
        w->power_lost = true; /* its last sync may have been what failed: then it took what was in a cache with it */
        if (is_dead())
            return false;
        if (!rule(w->armed || w->faulty || w->tight, "opening fails"))
            return false;
        lim__sim_disk_fail_at_call(w->os, 0, 0);
        if (tries == 1 && w->faulty) { /* somebody sees to the disk */
            lim__sim_disk d = lim__sim_disk_get(w->os);
            d.read_error_permille = d.write_error_permille = d.sync_error_permille = 0;
            lim__sim_disk_set(w->os, &d);
        }
    }
    rule(false, "opening fails again and again");
    return false;
}

static void flip_while_running(world *w);

static void live(world *w, uint32_t steps)
{
    while (steps-- > 0 && !is_dead() && !w->broken) {
        uint32_t room = OPEN_MAX - w->step_count, most = (uint32_t)pick(6);
        for (uint32_t i = 0; i < most && i < room; i++) {
            step t = draw_step(w);
            submit(w, &t);
        }
        turn(w, (uint32_t)pick(8));
        if (w->rots && pick(20) == 0)
            flip_while_running(w);
        if (pick(6) == 0)
            lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + pick(400) * MS);
        bool full = true; /* everything answered: what is known is known for good, unless it is not synced */
        for (uint32_t i = 0; i < w->step_count; i++)
            full = full && (w->steps[i]->status == DISK || w->steps[i]->status == NOTHING);
        if (is_dead() || !full)
            continue;
        if (pick(3) == 0)
            compare(w);
        w->base = w->now;
        forget_steps(w);
    }
}

/* What is still open is settled as far as it can be: room for more steps. */
static void drain(world *w)
{
    step last = { .count = 0, .small = true, .sync = LIM__SYNC_ALWAYS };
    if (w->step_count < OPEN_MAX)
        submit(w, &last);
    turn(w, 200);
}

/* ---- ends ---- */

typedef enum end { CLOSE = 1, KILL, POWER } end;

static bool end_life(world *w, end how)
{
    bool was_dead = is_dead();
    w->power_lost = how == POWER;
    if (how == POWER) /* also of a machine whose program was just killed: what it had not synced goes, too */
        lim__sim_power_off(w->sim, w->os);
    else if (how == KILL)
        lim__sim_kill_host(w->sim, w->os);
    lim__store_close(w->store);
    w->store = NULL;
    return how == CLOSE && !was_dead && !is_dead();
}

typedef struct names {
    char list[64][40];
    uint32_t count;
} names;

static void add_name(void *ctx, const char *name)
{
    names *n = ctx;
    if (n->count < LIM_COUNT(n->list))
        snprintf(n->list[n->count++], sizeof n->list[0], "%s", name);
}

static bool flip(world *w, const char *name, uint64_t bit)
{
    char path[64];
    if (strstr(w->flipped, name) || strlen(w->flipped) + strlen(name) + 2 > sizeof w->flipped)
        return false;
    strcat(strcat(w->flipped, name), " ");
    snprintf(path, sizeof path, "store/%s", name);
    w->rotten = true;
    return lim__sim_disk_flip(w->os, path, bit) == 0;
}

static void flip_a_bit(world *w)
{
    names n = { .count = 0 };
    char path[64];
    size_t size;
    void *bytes;
    w->os = lim__sim_host(w->sim, "disk");
    if (w->os->dir_list(w->os, "store", add_name, &n) != 0 || n.count == 0)
        return;
    const char *name = n.list[pick(n.count)];
    snprintf(path, sizeof path, "store/%s", name);
    if (lim__sim_disk_read(w->os, path, &bytes, &size) != 0)
        return;
    size_t used = size; /* most of a segment is nothing: flips there say little */
    while (used > 1 && ((uint8_t *)bytes)[used - 1] == 0)
        used--;
    free(bytes);
    if (size > 0)
        flip(w, name, pick(8) + 8 * pick(pick(10) ? used : size));
}

/* While it runs: in a segment to which nothing is added any more, so that a sudden end leaves no doubt. */
static void flip_while_running(world *w)
{
    names n = { .count = 0 };
    const char *newest = "";
    if (w->os->dir_list(w->os, "store", add_name, &n) != 0)
        return;
    for (uint32_t i = 0; i < n.count; i++)
        newest = strstr(n.list[i], ".seg") && strcmp(n.list[i], newest) > 0 ? n.list[i] : newest;
    for (uint32_t i = 0; i < n.count; i++) {
        unsigned long long id = strtoull(n.list[i], NULL, 16);
        if (strstr(n.list[i], ".seg") && id + 4 < strtoull(newest, NULL, 16) && pick(2)) {
            flip(w, n.list[i], 8 * (4096 + pick(SEGMENT - 4096)) + pick(8));
            return;
        }
    }
}

/* ---- worlds ---- */

static void order_failure(world *w, uint64_t within)
{
    w->armed = true;
    lim__sim_disk_fail_at_call(w->os, 1 + pick(within), pick(3) ? 0 : pick(2) ? EIO : ENOSPC);
}

static void draw_manners(world *w)
{
    lim__sim_disk d = lim__sim_disk_get(w->os);
    w->tight = pick(5) == 0;
    w->faulty = !w->tight && pick(5) == 0;
    w->rots = !w->faulty && pick(4) == 0;
    if (w->tight && pick(2))
        w->opts.bytes_max = (6 + pick(6)) * SEGMENT;
    else if (w->tight)
        d.capacity = (6 + pick(6)) * SEGMENT;
    if (w->faulty) {
        d.write_error_permille = (uint32_t)pick(40);
        d.sync_error_permille = (uint32_t)pick(40);
        w->read_errors = pick(3) ? 0 : (uint32_t)pick(20);
    }
    if (pick(4) == 0)
        d.keep_nothing = true;
    lim__sim_disk_set(w->os, &d);
}

static void set_read_errors(world *w, uint32_t permille)
{
    lim__sim_disk d = lim__sim_disk_get(w->os);
    d.read_error_permille = permille;
    lim__sim_disk_set(w->os, &d);
}

static void one_life(world *w, end how)
{
    w->lives++;
    lim__sim_disk_fail_at_call(w->os, 0, 0);
    set_read_errors(w, 0);
    w->armed = false;
    if (pick(4) == 0)
        order_failure(w, 60);
    bool open = open_store(w);
    if (!open && !w->broken) { /* killed: the next one opens it undisturbed */
        w->armed = false;
        open = open_store(w);
    }
    if (!open || w->broken)
        return;
    find_out(w, w->power_lost);
    w->log_broken = false;
    set_read_errors(w, w->read_errors);
    if (pick(2))
        order_failure(w, 400);
    live(w, 5 + (uint32_t)pick(30));
    if (!is_dead() && !w->broken && how == CLOSE)
        drain(w);
}

static void print_world(const world *w, uint64_t seed)
{
    printf("seed %llu: %s (lives %u, refused %u, unknown %u, quarantined %u, sealed %u%s%s%s)\n",
           (unsigned long long)seed, w->broken ? w->broken : "well", w->lives, w->refused, w->unknown, w->quarantined,
           w->sealed, w->tight ? ", tight" : "", w->faulty ? ", faulty" : "", w->rotten ? ", rotten" : "");
}

static world *world_open(uint64_t seed, bool loud)
{
    world *w = calloc(1, sizeof *w);
    the = w;
    w->sim = lim__sim_open(seed);
    if (loud)
        lim__sim_trace(w->sim, stdout);
    w->os = lim__sim_host(w->sim, "disk");
    w->opts = (lim__store_opts){ .dir = "store",
                                 .segment_bytes = SEGMENT,
                                 .interval_ns = 50 * MS,
                                 .batch_bytes_max = 32 << 10,
                                 .index_in_memory = true,
                                 .on_event = on_event,
                                 .ctx = w };
    for (uint32_t s = 0; s < STREAMS; s++)
        w->base.next[s] = 1;
    w->now = w->base;
    return w;
}

static void world_close(world *w)
{
    if (w->store)
        lim__store_close(w->store);
    forget_steps(w);
    lim__sim_close(w->sim);
    free(w);
}

static bool run_world(uint64_t seed, bool loud)
{
    world *w = world_open(seed, loud);
    draw_manners(w);
    uint64_t lives = 2 + pick(6);
    for (uint64_t i = 0; i < lives && !w->broken; i++) {
        end how = (end)(1 + pick(3));
        one_life(w, how);
        bool closed = w->store && end_life(w, how);
        if (closed && !w->broken && w->rots && pick(2) == 0)
            flip_a_bit(w);
    }
    if (w->broken || loud)
        print_world(w, seed);
    bool well = !w->broken;
    world_close(w);
    return well;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* proves DU2 DU3 DU4 */
static void test_random_lives_on_bad_disks_lose_nothing_and_invent_nothing(void **state)
{
    (void)state;
    uint64_t first = number_from("LIM_SEED", 1), count = number_from("LIM_SEEDS", 150);
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (!run_world(seed, getenv("LIM_SEED") != NULL && count == 1))
            fail_msg("seed %llu", (unsigned long long)seed);
    }
}

/* ---- every call fails once ---- */

/* One life in which the n-th call on the disk fails (err > 0) or is the program's last; then another one, undisturbed.
 */
static bool sweep_one(uint64_t seed, uint64_t n, int err, end how, uint64_t *calls)
{
    world *w = world_open(seed, false);
    lim__sim_disk d = lim__sim_disk_get(w->os);
    d.short_write_permille = 0;
    lim__sim_disk_set(w->os, &d);
    w->armed = true;
    lim__sim_disk_fail_at_call(w->os, n, err);
    if (open_store(w)) {
        live(w, 14);
        if (!is_dead())
            end_life(w, how == POWER ? CLOSE : how);
        else
            end_life(w, how);
    } else if (how == POWER) {
        lim__sim_power_off(w->sim, w->os);
        w->power_lost = true;
    }
    *calls = lim__sim_disk_calls(w->os);
    w->armed = false;
    lim__sim_disk_fail_at_call(w->os, 0, 0);
    if (!w->broken && open_store(w)) {
        find_out(w, w->power_lost);
        live(w, 2);
        drain(w);
        end_life(w, CLOSE);
    }
    bool well = !w->broken;
    if (!well) {
        printf("call %llu fails with %d: ", (unsigned long long)n, err);
        print_world(w, seed);
    }
    world_close(w);
    return well;
}

/* proves DU3 (any call fails, or is the last) */
static void test_every_call_may_fail_or_be_the_last(void **state)
{
    static const struct {
        int err;
        end how;
    } ways[] = { { EIO, CLOSE }, { ENOSPC, CLOSE }, { 0, KILL }, { 0, POWER } };
    (void)state;
    for (uint64_t seed = 1; seed <= number_from("LIM_SEEDS", 150) / 75 + 1; seed++) {
        for (size_t way = 0; way < LIM_COUNT(ways); way++) {
            uint64_t calls = 1;
            for (uint64_t n = 1; n <= calls && n < 1500; n++) {
                if (!sweep_one(seed, n, ways[way].err, ways[way].how, &calls))
                    fail_msg("seed %llu, call %llu, error %d", (unsigned long long)seed, (unsigned long long)n,
                             ways[way].err);
            }
        }
    }
}

/* ---- a full disk ---- */

static status one_step(world *w, op_kind kind, uint32_t stream, uint64_t seq, uint32_t len, bool small)
{
    step t = { .count = 1, .small = small, .sync = LIM__SYNC_ALWAYS };
    t.ops[0] = (op){ .kind = kind, .stream = stream, .seq = seq, .len = len, .content = 1 + (uint32_t)pick(1 << 20) };
    submit(w, &t);
    step *submitted = w->steps[w->step_count - 1];
    turn(w, 50);
    status s = submitted->status;
    w->base = w->now;
    forget_steps(w);
    return s;
}

static void fill_up(world *w)
{
    uint32_t most = 200;
    while (one_step(w, APPEND, 0, 0, 3000 + (uint32_t)pick(9000), false) == DISK && most-- > 0)
        continue;
    assert_true(most > 0); /* it was refused some time */
}

static bool heals(world *w)
{
    for (int i = 0; i < 60; i++) {
        lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 100 * MS);
        turn(w, 100);
        if (one_step(w, APPEND, 1, 0, 3000, false) == DISK)
            return true;
    }
    return false;
}

static void run_full(uint64_t seed)
{
    world *w = world_open(seed, getenv("LOUD") != NULL);
    lim__sim_disk d = lim__sim_disk_get(w->os);
    bool limit = pick(2), more_disk = !limit && pick(2);
    w->tight = true;
    d.capacity = limit ? d.capacity : (7 + pick(4)) * SEGMENT;
    w->opts.bytes_max = limit ? (7 + pick(4)) * SEGMENT : 0;
    lim__sim_disk_set(w->os, &d);
    assert_true(open_store(w));
    fill_up(w);
    lim__store_info info;
    lim__store_info_get(w->store, &info);
    assert_true(info.full);
    for (int i = 0; i < 8; i++) { /* acknowledgements, cursors */
        assert_int_equal(one_step(w, PUT, 0, 0, 0, true), DISK);
        compare(w);
    }
    if (more_disk) {
        d.capacity *= 2;
        lim__sim_disk_set(w->os, &d);
    } else {
        assert_int_equal(one_step(w, TRIM, 0, w->now.next[0] - 3, 0, true), DISK);
    }
    assert_true(heals(w));
    fill_up(w);
    compare(w);
    end_life(w, pick(2) ? CLOSE : POWER);
    assert_true(open_store(w)); /* full as it is */
    find_out(w, w->power_lost);
    assert_int_equal(one_step(w, PUT, 0, 0, 0, true), DISK);
    assert_null(w->broken);
    end_life(w, CLOSE);
    world_close(w);
}

static void test_a_full_disk_refuses_what_adds_takes_what_forgets_and_heals(void **state)
{
    (void)state;
    uint64_t count = number_from("LIM_SEEDS", 150);
    for (uint64_t seed = 1; seed <= count; seed++)
        run_full(seed);
}

/* ---- a disk that takes nothing for a while ---- */

static void set_write_errors(world *w, uint32_t permille)
{
    lim__sim_disk d = lim__sim_disk_get(w->os);
    d.write_error_permille = permille;
    lim__sim_disk_set(w->os, &d);
}

static void run_broken(uint64_t seed)
{
    world *w = world_open(seed, false);
    w->faulty = true;
    assert_true(open_store(w));
    for (int i = 0; i < 20; i++)
        assert_int_equal(one_step(w, APPEND, 0, 0, 2000, false), DISK);
    turn(w, (uint32_t)pick(40));
    bool in_doubt = false;
    set_write_errors(w, 1000);
    for (int i = 0; i < 5; i++) {
        step t = draw_step(w);
        t.sync = LIM__SYNC_ALWAYS;
        submit(w, &t);
        turn(w, 5);
        status s = w->steps[w->step_count - 1]->status;
        assert_true(s == UNKNOWN || s == NOTHING); /* the first is in doubt, the others are not even tried */
        assert_true(!in_doubt || s == NOTHING);
        in_doubt = in_doubt || s == UNKNOWN;
        compare(w); /* and nobody sees any of it */
    }
    bool in_time = pick(2);
    set_write_errors(w, 0);
    if (in_time) {
        lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 1000 * MS);
        turn(w, 100);
        w->base = w->now;
        forget_steps(w); /* what was in doubt is not any more */
        assert_int_equal(one_step(w, APPEND, 0, 0, 2000, false), DISK);
    }
    end_life(w, (end)(1 + pick(3)));
    assert_true(open_store(w));
    find_out(w, w->power_lost);
    assert_int_equal(one_step(w, APPEND, 0, 0, 2000, false), DISK);
    compare(w);
    assert_null(w->broken);
    end_life(w, CLOSE);
    world_close(w);
}

static void test_a_disk_that_takes_nothing_loses_nothing_and_the_log_goes_on_when_it_can(void **state)
{
    (void)state;
    uint64_t count = number_from("LIM_SEEDS", 150);
    for (uint64_t seed = 1; seed <= count; seed++)
        run_broken(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_disk_refuses_what_adds_takes_what_forgets_and_heals),
        cmocka_unit_test(test_a_disk_that_takes_nothing_loses_nothing_and_the_log_goes_on_when_it_can),
        cmocka_unit_test(test_every_call_may_fail_or_be_the_last),
        cmocka_unit_test(test_random_lives_on_bad_disks_lose_nothing_and_invent_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
