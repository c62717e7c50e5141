/* SPDX-License-Identifier: Apache-2.0
 * care_test.c - looking after a store: damage that is named, copies, checks, segments that go, several threads. */
#include "store/test_world.h"
#include "base/crc32c.h"

#include <stdatomic.h>

/* ---- files ---- */

static void overwrite(world *w, const char *name, long at, const void *bytes, size_t len)
{
    char path[256];
    path_of(w, name, path);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

/* Where these bytes are in a file of the store; -1: they are not. */
static long where_is(world *w, const char *name, const char *bytes)
{
    char path[256];
    void *content;
    size_t len;
    path_of(w, name, path);
    if (lim__file_read(path, SIZE_MAX / 4, &content, &len) != 0)
        return -1;
    const char *at = memmem(content, len, bytes, strlen(bytes));
    long found = at ? at - (char *)content : -1;
    free(content);
    return found;
}

static const char *first_segment = "0000000000000001.seg";

static void fill(world *w, uint64_t stream, int from, int to, size_t size)
{
    static char large[60000];
    for (int i = from; i <= to; i++) {
        lim__batch *b = lim__batch_new();
        memset(large, 'a' + i % 26, size);
        lim_bytes parts[2] = { text("%06d", i), { large, size } };
        lim__batch_append(b, stream, lim__str(""), parts, 2);
        assert_int_equal(commit(w, b).how, LIM__COMMITTED);
    }
}

static uint64_t bad_number(world *w, uint64_t stream, uint64_t from)
{
    uint32_t count = 0;
    uint64_t bad = 0;
    assert_int_equal(lim__store_read(w->store, stream, from, 0, count_one, &count, &bad), -EBADMSG);
    assert_int_equal(count, bad - from);
    return bad;
}

/* ---- damage ---- */

/* proves DU3 (a bad record is quarantined and named; the rest is served) */
static void test_a_record_that_went_bad_is_named_and_the_others_are_served(void **state)
{
    world *w = *state;
    for (int i = 1; i <= 9; i++)
        append(w, 1, "k", text("this is record %d", i));
    put(w, 1, "row", "value");
    long at = where_is(w, first_segment, "this is record 5");
    assert_true(at > 0);
    overwrite(w, first_segment, at + 3, "S", 1);
    assert_int_equal(bad_number(w, 1, 1), 5);
    expect_records(w, 1, 6, "k:this is record 6|k:this is record 7|k:this is record 8|k:this is record 9|");
    settle(w);
    assert_non_null(strstr(w->events, "record 5 of stream 1 is damaged"));
    lim__store_info info;
    lim__store_info_get(w->store, &info);
    assert_true(info.degraded && info.quarantined == 1);
    reopen(w); /* LMDB knows where it should be; from the log alone, it is missed by its number */
    assert_int_equal(bad_number(w, 1, 1), 5);
    settle(w);
    lim__store_info_get(w->store, &info);
    assert_true(info.degraded);
    expect_stream(w, 1, 1, 10, 9);
    expect_row(w, 1, "row", "value");
    assert_int_equal(append(w, 1, "", text("x")), 10);
    change(w, 1, "trim", 6);
    expect_records(w, 1, 1, "k:this is record 6|k:this is record 7|k:this is record 8|k:this is record 9|x|");
}

static void test_a_head_a_foot_an_op_or_an_echo_that_went_bad_costs_nothing_else(void **state)
{
    world *w = *state;
    if (!w->opts.index_in_memory)
        return; /* LMDB would not look at old batches */
    for (int i = 1; i <= 6; i++) {
        lim__batch *b = lim__batch_new();
        lim_bytes data = text("record %d", i);
        lim__batch_append(b, 1, lim__str(""), &data, 1);
        lim__batch_put(b, 1, text("row%d", i), text("value %d", i));
        assert_int_equal(commit(w, b).how, LIM__COMMITTED);
    }
    lim__store_close(w->store);
    static const struct {
        const char *of;
        long from; /* relative to it */
    } places[] = {
        { "record 2", -40 - 64 }, /* the batch's head */
        { "record 3", 4000 },     /* its foot */
        { "value 4", 0 },         /* the row, first time */
        { "record 5", 100 },      /* somewhere in its echo */
    };
    for (size_t i = 0; i < LIM_COUNT(places); i++) {
        long at = where_is(w, first_segment, places[i].of);
        assert_true(at > 0);
        overwrite(w, first_segment, places[i].from == 4000 ? at / 4096 * 4096 + 4095 - 30 : at + places[i].from, "\xee",
                  1);
    }
    open_store(w);
    expect_records(w, 1, 1, "record 1|record 2|record 3|record 4|record 5|record 6|");
    for (int i = 1; i <= 6; i++)
        expect_row(w, 1, text("row%d", i).ptr, text("value %d", i).ptr);
}

static void test_a_batch_of_which_nothing_is_left_is_named_and_no_number_is_passed_over(void **state)
{
    world *w = *state;
    static const char nothing[8192];
    if (!w->opts.index_in_memory)
        return;
    for (int i = 1; i <= 9; i++)
        append(w, 1, "", text("this is record %d", i));
    lim__store_close(w->store);
    long at = where_is(w, first_segment, "this is record 4") / 4096 * 4096;
    overwrite(w, first_segment, at, nothing, sizeof nothing); /* and that of record 5 */
    open_store(w);
    assert_non_null(strstr(w->events, "nothing of it can be found"));
    assert_int_equal(bad_number(w, 1, 1), 4);
    assert_int_equal(bad_number(w, 1, 5), 5);
    expect_records(w, 1, 6, "this is record 6|this is record 7|this is record 8|this is record 9|");
    expect_stream(w, 1, 1, 10, 9);
}

static void test_a_segment_that_is_missing_is_named_with_all_its_records(void **state)
{
    world *w = *state;
    fill(w, 1, 1, 60, 9000);
    change(w, 1, "trim", 2);
    lim__store_close(w->store);
    char path[256];
    path_of(w, "0000000000000003.seg", path);
    assert_int_equal(unlink(path), 0);
    open_store(w);
    assert_non_null(strstr(w->events, "quarantined"));
    lim__store_info info;
    lim__store_info_get(w->store, &info);
    assert_true(info.degraded);
    uint64_t bad = bad_number(w, 1, 2), behind = bad;
    uint32_t count = 0;
    while (lim__store_read(w->store, 1, behind, 1, count_one, &count, &bad) == -EBADMSG)
        behind = bad + 1;
    assert_true(behind - bad >= 1 && behind < 40);
    expect_stream(w, 1, 2, 61, 59);
    assert_int_equal(count_records(w, 1, behind, 0), 61 - behind);
}

static void test_a_segment_whose_head_is_gone_is_kept_and_named(void **state)
{
    world *w = *state;
    static const char nothing[4096];
    char path[256];
    fill(w, 1, 1, 60, 9000);
    lim__store_close(w->store);
    overwrite(w, "0000000000000002.seg", 0, nothing, sizeof nothing);
    path_of(w, "index/data.mdb", path);
    (void)unlink(path);
    for (int i = 0; i < 2; i++) {
        open_store(w);
        assert_non_null(strstr(w->events, "quarantined: segment 0000000000000002"));
        assert_true(bad_number(w, 1, 1) > 1);
        expect_stream(w, 1, 1, 61, 60);
        lim__store_close(w->store);
    }
    path_of(w, "0000000000000002.seg", path);
    assert_int_equal(access(path, R_OK), 0);
    open_store(w);
}

/* ---- segments go ---- */

static uint64_t files_of(world *w)
{
    lim__store_info info;
    lim__store_info_get(w->store, &info);
    return info.segments;
}

/* proves CH12 (what is forgotten gives its space back) */
static void test_forgotten_segments_go_and_what_is_alive_in_them_moves(void **state)
{
    world *w = *state;
    append(w, 2, "key", text("an old record that stays"));
    put(w, 1, "old", "row");
    for (int round = 0; round < 30; round++) {
        fill(w, 1, round * 20 + 1, round * 20 + 20, 9000);
        change(w, 1, "trim", (uint64_t)round * 20 + 15);
        settle(w);
        if (round % 7 == 6)
            reopen(w);
    }
    for (int i = 0; i < 8; i++) { /* LMDB takes its time before it has what lets them go */
        reopen(w);
        append(w, 3, "", text("x"));
        settle(w);
    }
    assert_true(files_of(w) < 16); /* of some 60 that were written */
    expect_records(w, 2, 1, "key:an old record that stays|");
    expect_last(w, 2, "key", "key:an old record that stays|");
    expect_row(w, 1, "old", "row");
    expect_stream(w, 1, 595, 601, 6);
    lim__store_close(w->store);
    char path[256];
    path_of(w, "index/data.mdb", path);
    (void)unlink(path);
    path_of(w, first_segment, path);
    assert_int_not_equal(access(path, R_OK), 0); /* it moved */
    open_store(w);
    expect_records(w, 2, 1, "key:an old record that stays|");
    expect_last(w, 2, "key", "key:an old record that stays|");
    expect_row(w, 1, "old", "row");
    expect_stream(w, 1, 595, 601, 6);
    assert_int_equal(count_records(w, 1, 1, 0), 6);
    assert_null(strstr(w->events, "quarantined"));
}

static void test_erased_records_do_not_come_back(void **state)
{
    world *w = *state;
    for (int i = 1; i <= 200; i++) { /* the newest of ten keys, and one in fifty for good */
        lim__batch *b = lim__batch_new();
        static char large[4000];
        lim_bytes parts[2] = { text("%06d", i), { large, sizeof large } };
        lim__batch_append(b, 1, text("k%d", i % 10), parts, 2);
        if (i > 10 && (i - 10) % 50 != 0)
            lim__batch_erase(b, 1, (uint64_t)i - 10);
        assert_int_equal(commit(w, b).how, LIM__COMMITTED);
        if (i % 60 == 0)
            reopen(w);
    }
    settle(w);
    for (int round = 0; round < 4; round++) {
        expect_stream(w, 1, 50, 201, 13);
        assert_int_equal(count_records(w, 1, 1, 0), 13);
        lim__store_close(w->store);
        char path[256];
        path_of(w, "index/data.mdb", path);
        if (round % 2)
            (void)unlink(path);
        open_store(w);
        settle(w);
    }
    assert_true(files_of(w) < 9);
}

/* ---- copies and checks ---- */

static void on_finding(void *ctx, const char *line)
{
    world *w = ctx;
    on_event(w, "finding", line);
}

static int check(world *w, const char *dir)
{
    lim__store_error error;
    w->events[0] = 0;
    return lim__store_check(w->opts.os, dir, on_finding, w, &error);
}

static void test_a_store_in_order_has_no_findings_and_one_that_is_open_is_not_looked_at(void **state)
{
    world *w = *state;
    fill(w, 1, 1, 40, 5000);
    append(w, 1, "key", text("x"));
    change(w, 1, "erase", 7), change(w, 1, "trim", 3);
    put(w, 1, "row", "value");
    assert_int_equal(check(w, w->dir), -EAGAIN);
    lim__store_close(w->store);
    int findings = check(w, w->dir);
    assert_string_equal(w->events, "");
    assert_int_equal(findings, 0);
    open_store(w);
    expect_stream(w, 1, 3, 42, 38);
}

static void test_an_index_that_was_never_given_anything_is_in_order(void **state)
{
    world *w = *state;
    append(w, 1, "", text("x"));
    char copy[100], command[400];
    snprintf(copy, sizeof copy, "%s-killed", w->dir);
    snprintf(command, sizeof command, "cp -r %s %s", w->dir, copy); /* as a kill would leave it */
    assert_int_equal(system(command), 0);
    int findings = check(w, copy);
    assert_string_equal(w->events, "");
    assert_int_equal(findings, 0);
    remove_dir(copy);
}

/* The power failed in the middle of the last write: all of the batch is there that counts, and its foot is not. */
static void test_a_last_batch_without_a_foot_is_no_damage_and_gets_one(void **state)
{
    world *w = *state;
    static const char nothing[512];
    append(w, 1, "", text("this is the last record"));
    world torn = { .opts = w->opts };
    char command[400];
    snprintf(torn.dir, sizeof torn.dir, "%.50s-torn", w->dir);
    snprintf(command, sizeof command, "cp -r %s %s && rm -rf %s/index", w->dir, torn.dir, torn.dir);
    assert_int_equal(system(command), 0);
    long at = where_is(&torn, first_segment, "this is the last record") / 4096 * 4096;
    overwrite(&torn, first_segment, at + 4096 - 512, nothing, sizeof nothing);
    int findings = check(w, torn.dir);
    assert_string_equal(w->events, "");
    assert_int_equal(findings, 0);
    torn.opts.dir = torn.dir;
    torn.opts.ctx = &torn;
    open_store(&torn);
    assert_int_equal(append(&torn, 1, "", text("goes on")), 2);
    expect_records(&torn, 1, 1, "this is the last record|goes on|");
    lim__store_close(torn.store);
    findings = check(w, torn.dir);
    assert_string_equal(w->events, "");
    assert_int_equal(findings, 0);
    remove_dir(torn.dir);
}

static void test_a_check_finds_what_is_wrong_and_changes_nothing(void **state)
{
    world *w = *state;
    for (int i = 1; i <= 5; i++)
        append(w, 1, "", text("this is record %d", i));
    lim__store_close(w->store);
    long at = where_is(w, first_segment, "this is record 3");
    overwrite(w, first_segment, at, "T", 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(check(w, w->dir), -EBADMSG);
        assert_non_null(strstr(w->events, "the batch is damaged"));
    }
    overwrite(w, first_segment, at, "t", 1);
    assert_int_equal(check(w, w->dir), 0);
    at = where_is(w, first_segment, "this is record 4") / 4096 * 4096;
    overwrite(w, first_segment, at + 4095, "x", 1);
    assert_int_equal(check(w, w->dir), -EBADMSG);
    assert_non_null(strstr(w->events, "something else than should be"));
    overwrite(w, first_segment, at + 4095, "", 1);
    if (!w->opts.index_in_memory) {
        char path[256];
        path_of(w, "index/data.mdb", path);
        overwrite(w, "index/data.mdb", 4096 * 2 + 20, "\xff\xff", 2);
        assert_int_equal(check(w, w->dir), -EBADMSG);
        assert_non_null(strstr(w->events, "the index is damaged"));
    }
    open_store(w);
    expect_records(w, 1, 1, "this is record 1|this is record 2|this is record 3|this is record 4|this is record 5|");
}

static void test_reading_only_changes_nothing(void **state)
{
    world *w = *state;
    append(w, 1, "", text("x"));
    lim__store_close(w->store);
    w->opts.read_only = true;
    open_store(w);
    expect_records(w, 1, 1, "x|");
    lim__batch *b = lim__batch_new();
    outcome o;
    assert_int_equal(lim__store_submit(w->store, b, on_done, &o), -EROFS);
    lim__batch_free(b);
    assert_false(lim__store_turn(w->store, NULL));
    lim__store_close(w->store);
    w->opts.read_only = false;
    open_store(w);
    assert_int_equal(append(w, 1, "", text("y")), 2);
}

typedef struct backing {
    world *w;
    atomic_bool done;
    char dir[100];
    int result;
} backing;

static void *back_up(void *arg)
{
    backing *b = arg;
    lim__store_error error;
    b->result = lim__store_backup(b->w->store, b->dir, &error);
    atomic_store(&b->done, true);
    return NULL;
}

/* proves DU7 (a copy while running opens as a store, as of one instant) */
static void test_a_copy_made_while_writing_goes_on_opens_as_a_store_of_one_instant(void **state)
{
    world *w = *state;
    fill(w, 1, 1, 80, 9000);
    backing b = { .w = w };
    snprintf(b.dir, sizeof b.dir, "%s-copy", w->dir);
    lim__thread thread;
    assert_int_equal(lim__thread_start(&thread, "backup", back_up, &b), 0);
    uint64_t next = 81;
    while (!atomic_load(&b.done)) { /* in pairs: a copy of one instant has both or none */
        lim__batch *batch = lim__batch_new();
        lim_bytes data = text("%06d", (int)next);
        lim__batch_append(batch, 1, lim__str(""), &data, 1);
        lim__batch_append(batch, 2, lim__str(""), &data, 1);
        lim__batch_put(batch, 1, lim__str("last"), data);
        lim__batch_trim(batch, 1, next > 60 ? next - 60 : 1);
        assert_int_equal(commit(w, batch).how, LIM__COMMITTED);
        next++;
    }
    lim__thread_join(thread);
    assert_int_equal(b.result, 0);
    lim__store_error error;
    assert_int_equal(lim__store_backup(w->store, b.dir, &error), -EEXIST);
    assert_int_equal(check(w, b.dir), 0);
    world copy = { .opts = w->opts };
    copy.opts.dir = b.dir;
    copy.opts.ctx = &copy;
    open_store(&copy);
    lim__stream_info one, two;
    lim__store_stream(copy.store, 1, &one), lim__store_stream(copy.store, 2, &two);
    assert_true(one.next >= 81 && one.next <= next);
    assert_int_equal(two.next, one.next - 80);
    if (two.next > 1)
        expect_row(&copy, 1, "last", text("%06d", (int)one.next - 1).ptr);
    assert_int_equal(append(&copy, 1, "", text("goes on")), one.next);
    lim__store_close(copy.store);
    remove_dir(b.dir);
    assert_int_equal(append(w, 1, "", text("goes on, too")), next);
}

/* The same without chance: just before the copy of its last segment is begun, that one becomes full and is sealed. */
static world *hooked;
static char hooked_path[200];

static int open_and_write(lim__os *os, const char *path, uint32_t flags)
{
    if (hooked && strcmp(path, hooked_path) == 0) {
        world *w = hooked;
        hooked = NULL;
        fill(w, 1, 3, 60, 9000);
    }
    return lim__os_linux()->file_open(os, path, flags);
}

static bool refuses_format;

static int refuse_format(lim__os *os, const char *from, const char *to)
{
    return refuses_format && strstr(from, "format.tmp") ? -ENOSPC : lim__os_linux()->file_rename(os, from, to);
}

static void test_a_copy_whose_last_segment_is_sealed_meanwhile_ends_where_the_log_did(void **state)
{
    world *w = *state;
    lim__os os = *lim__os_linux();
    lim__store_error error;
    char dir[100];
    lim__store_close(w->store);
    os.file_open = open_and_write;
    w->opts.os = &os;
    open_store(w);
    fill(w, 1, 1, 2, 9000);
    snprintf(dir, sizeof dir, "%s-copy", w->dir);
    snprintf(hooked_path, sizeof hooked_path, "%s/%s", dir, first_segment);
    hooked = w;
    assert_int_equal(lim__store_backup(w->store, dir, &error), 0);
    assert_null(hooked);
    expect_stream(w, 1, 1, 61, 60);
    assert_int_equal(check(w, dir), 0);
    world copy = { .opts = w->opts };
    copy.opts.dir = dir;
    copy.opts.ctx = &copy;
    open_store(&copy);
    expect_stream(&copy, 1, 1, 3, 2);
    assert_int_equal(append(&copy, 1, "", text("goes on")), 3);
    lim__store_close(copy.store);
    remove_dir(dir);
    lim__store_close(w->store);
    w->opts.os = lim__os_linux();
    open_store(w);
}

static void test_a_copy_that_cannot_be_finished_leaves_nothing_and_one_that_was_cut_off_does_not_open(void **state)
{
    world *w = *state;
    lim__os os = *lim__os_linux();
    lim__store_error error;
    char dir[100];
    lim__store_close(w->store);
    os.file_rename = refuse_format;
    w->opts.os = &os;
    open_store(w);
    fill(w, 1, 1, 30, 9000);
    snprintf(dir, sizeof dir, "%s-copy", w->dir);
    refuses_format = true;
    assert_int_equal(lim__store_backup(w->store, dir, &error), -ENOSPC);
    refuses_format = false;
    assert_non_null(strstr(error.text, "could not be finished"));
    assert_int_equal(lim__store_backup(w->store, dir, &error), 0); /* it is empty again */
    world copy = { .opts = w->opts };
    snprintf(copy.dir, sizeof copy.dir, "%.60s", dir);
    write_file(&copy, "unfinished", "");
    copy.opts.dir = dir;
    assert_int_equal(lim__store_open(&copy.opts, &error, &copy.store), -EBADMSG);
    assert_non_null(strstr(error.text, "never finished"));
    remove_dir(dir);
    lim__store_close(w->store);
    w->opts.os = lim__os_linux();
    open_store(w);
}

static void test_a_damaged_store_is_copied_as_it_is(void **state)
{
    world *w = *state;
    static const char nothing[4096];
    char dir[100];
    lim__store_error error;
    fill(w, 1, 1, 60, 9000);
    snprintf(dir, sizeof dir, "%s-copy", w->dir);
    assert_int_equal(lim__store_copy(w->opts.os, w->dir, dir, &error), -EAGAIN);
    lim__store_close(w->store);
    overwrite(w, "0000000000000002.seg", 0, nothing, sizeof nothing);
    long at = -1;
    for (int i = 20; i <= 60 && at < 0; i++)
        at = where_is(w, "0000000000000003.seg", text("%06d", i).ptr);
    assert_true(at > 0);
    overwrite(w, "0000000000000003.seg", at, "X", 1);
    assert_int_equal(lim__store_copy(w->opts.os, w->dir, dir, &error), 0);
    open_store(w);
    world copy = { .opts = w->opts };
    copy.opts.dir = dir;
    copy.opts.ctx = &copy;
    open_store(&copy);
    assert_non_null(strstr(copy.events, "quarantined: segment 0000000000000002"));
    for (uint64_t n = 1; n <= 60; n++) {
        uint32_t mine = 0, its = 0;
        uint64_t bad;
        int err = lim__store_read(w->store, 1, n, 1, count_one, &mine, &bad);
        assert_int_equal(err, lim__store_read(copy.store, 1, n, 1, count_one, &its, &bad));
        assert_int_equal(mine, its);
    }
    lim__store_close(copy.store);
    remove_dir(dir);
}

/* ---- threads ---- */

enum { WRITERS = 3, EACH = 400, READERS = 2 };

typedef struct shared {
    world *w;
    _Atomic uint64_t done[WRITERS]; /* batches of this writer that were answered */
    _Atomic uint32_t left;
    atomic_bool stop;
} shared;

typedef struct writer {
    shared *s;
    unsigned number;
} writer;

typedef struct ticket {
    shared *s;
    unsigned writer;
    uint64_t number;
} ticket;

static void on_ticket(void *ctx, lim__batch *b, const lim__committed *what)
{
    ticket *t = ctx;
    assert_int_equal(what->how, LIM__COMMITTED);
    assert_int_equal(lim__batch_seq(b, 0), t->number); /* each writer has its own stream: first in, first out */
    atomic_store(&t->s->done[t->writer], t->number);
    atomic_fetch_sub(&t->s->left, 1);
    lim__batch_free(b);
    free(t);
}

static void *write_some(void *arg)
{
    writer *me = arg;
    char data[400];
    memset(data, 'x', sizeof data);
    for (uint64_t i = 1; i <= EACH; i++) {
        lim__batch *b = lim__batch_new();
        ticket *t = malloc(sizeof *t);
        *t = (ticket){ me->s, me->number, i };
        memcpy(data, &i, sizeof i);
        lim__batch_append(b, me->number, lim__str(""), &(lim_bytes){ data, sizeof data }, 1);
        if (i % 50 == 0)
            lim__batch_trim(b, me->number, i - 40);
        assert_int_equal(lim__store_submit(me->s->w->store, b, on_ticket, t), 0);
        if (i % 64 == 0)
            lim__thread_yield();
    }
    return NULL;
}

static bool check_order(void *ctx, const lim__record *r)
{
    uint64_t *next = ctx, number;
    memcpy(&number, r->data.ptr, sizeof number);
    assert_int_equal(number, r->seq);
    assert_true(r->seq >= *next);
    *next = r->seq + 1;
    return true;
}

/* What was answered before the read is read, unless it was forgotten. */
static void *read_some(void *arg)
{
    shared *s = arg;
    while (!atomic_load(&s->stop)) {
        for (unsigned i = 0; i < WRITERS; i++) {
            uint64_t done = atomic_load(&s->done[i]), next = 1, bad = 0;
            int err = lim__store_read(s->w->store, i, 1, 0, check_order, &next, &bad);
            assert_int_equal(err, 0);
            assert_true(next > done);
            lim__stream_info info;
            assert_int_equal(lim__store_stream(s->w->store, i, &info), 0);
            assert_true(info.next > done);
        }
    }
    return NULL;
}

static void test_writers_readers_and_the_stores_thread_do_not_disturb_each_other(void **state)
{
    world *w = *state;
    shared s = { .w = w };
    writer writers[WRITERS];
    lim__thread threads[WRITERS + READERS];
    atomic_store(&s.left, WRITERS * EACH);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (writer){ &s, i };
        assert_int_equal(lim__thread_start(&threads[i], "writer", write_some, &writers[i]), 0);
    }
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(lim__thread_start(&threads[WRITERS + i], "reader", read_some, &s), 0);
    while (atomic_load(&s.left) > 0) {
        if (!lim__store_turn(w->store, NULL))
            lim__thread_yield();
    }
    atomic_store(&s.stop, true);
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        lim__thread_join(threads[i]);
    settle(w);
    assert_true(w->wakes > 0 && w->wakes <= WRITERS * EACH + 50);
    reopen(w);
    for (unsigned i = 0; i < WRITERS; i++)
        expect_stream(w, i, EACH - 40, EACH + 1, 41);
}

int main(void)
{
#define BOTH(test)                                                                                                     \
    { #test " [LMDB]", test, set_up_lmdb, tear_down, NULL },                                                           \
    {                                                                                                                  \
#test " [memory]", test, set_up_memory, tear_down, NULL                                                        \
    }
    const struct CMUnitTest tests[] = {
        BOTH(test_a_record_that_went_bad_is_named_and_the_others_are_served),
        BOTH(test_a_head_a_foot_an_op_or_an_echo_that_went_bad_costs_nothing_else),
        BOTH(test_a_batch_of_which_nothing_is_left_is_named_and_no_number_is_passed_over),
        BOTH(test_a_segment_that_is_missing_is_named_with_all_its_records),
        BOTH(test_a_segment_whose_head_is_gone_is_kept_and_named),
        BOTH(test_forgotten_segments_go_and_what_is_alive_in_them_moves),
        BOTH(test_erased_records_do_not_come_back),
        BOTH(test_a_store_in_order_has_no_findings_and_one_that_is_open_is_not_looked_at),
        BOTH(test_an_index_that_was_never_given_anything_is_in_order),
        BOTH(test_a_last_batch_without_a_foot_is_no_damage_and_gets_one),
        BOTH(test_a_check_finds_what_is_wrong_and_changes_nothing),
        BOTH(test_reading_only_changes_nothing),
        BOTH(test_a_copy_made_while_writing_goes_on_opens_as_a_store_of_one_instant),
        BOTH(test_a_copy_whose_last_segment_is_sealed_meanwhile_ends_where_the_log_did),
        BOTH(test_a_copy_that_cannot_be_finished_leaves_nothing_and_one_that_was_cut_off_does_not_open),
        BOTH(test_a_damaged_store_is_copied_as_it_is),
        BOTH(test_writers_readers_and_the_stores_thread_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
