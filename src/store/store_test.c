/* SPDX-License-Identifier: Apache-2.0
 * store_test.c - the store from outside, on real files, once with each kind of index. */
#include "store/test_world.h"
#include "base/crc32c.h"

/* Everything in the file runs with LMDB and with the index in memory. */
static void test_what_was_committed_is_read_and_is_there_again(void **state)
{
    world *w = *state;
    for (uint64_t i = 1; i <= 10; i++)
        assert_int_equal(append(w, 7, "", text("record %u", (unsigned)i)), i);
    expect_stream(w, 7, 1, 11, 10);
    expect_records(w, 7, 1,
                   "record 1|record 2|record 3|record 4|record 5|record 6|record 7|record 8|record 9|record 10|");
    expect_records(w, 7, 9, "record 9|record 10|");
    expect_records(w, 7, 11, "");
    expect_records(w, 8, 1, "");
    reopen(w);
    expect_stream(w, 7, 1, 11, 10);
    expect_records(w, 7, 8, "record 8|record 9|record 10|");
    assert_int_equal(append(w, 7, "", text("record %u", 11)), 11);
    expect_records(w, 7, 10, "record 10|record 11|");
}

static void test_rows_are_put_deleted_scanned_and_expected(void **state)
{
    world *w = *state;
    put(w, 1, "a", "1"), put(w, 1, "ab", "2"), put(w, 1, "b", "3"), put(w, 2, "a", "4");
    for (int round = 0; round < 2; round++) {
        expect_row(w, 1, "a", "1"), expect_row(w, 1, "b", "3"), expect_row(w, 2, "a", "4");
        expect_row(w, 1, "c", NULL), expect_row(w, 3, "a", NULL), expect_row(w, 1, "", NULL);
        expect_scan(w, 1, "", "", "a=1,ab=2,b=3,");
        expect_scan(w, 1, "a", "", "a=1,ab=2,");
        expect_scan(w, 1, "", "a", "ab=2,b=3,");
        expect_scan(w, 1, "b", "a", "b=3,");
        reopen(w);
    }
    lim__batch *b = lim__batch_new();
    lim__batch_delete(b, 1, lim__str("a"));
    lim__batch_put(b, 1, lim__str("b"), lim__bytes("", 0));
    assert_int_equal(commit(w, b).how, LIM__COMMITTED);
    expect_row(w, 1, "a", NULL), expect_row(w, 1, "b", "");
    reopen(w);
    expect_row(w, 1, "a", NULL), expect_row(w, 1, "b", "");
    expect_scan(w, 1, "", "", "ab=2,b=,");
}

static void test_an_expectation_that_does_not_hold_stores_nothing_and_tells_what_is_there(void **state)
{
    world *w = *state;
    put(w, 1, "k", "old");
    lim__batch *b = lim__batch_new();
    lim__batch_expect(b, 1, lim__str("none"), lim__bytes(NULL, 0));
    lim__batch_expect(b, 1, lim__str("k"), lim__str("new"));
    lim__batch_append(b, 1, lim__str(""), &(lim_bytes){ "x", 1 }, 1);
    lim__batch_put(b, 1, lim__str("k"), lim__str("newer"));
    outcome o = commit(w, b);
    assert_int_equal(o.how, LIM__COMMIT_CONFLICT);
    assert_int_equal(o.conflict, 1);
    assert_string_equal(o.found, "old");
    expect_row(w, 1, "k", "old");
    expect_stream(w, 1, 0, 1, 0);
}

/* Also within one log write: the second sees what the first did. */
static void test_of_two_batches_that_expect_the_same_the_first_wins(void **state)
{
    world *w = *state;
    outcome o[3] = { { 0 } };
    for (int i = 0; i < 3; i++) {
        lim__batch *b = lim__batch_new();
        lim__batch_expect(b, 1, lim__str("once"), lim__bytes(NULL, 0));
        lim__batch_put(b, 1, lim__str("once"), text("%d", i));
        submit(w, b, &o[i]);
    }
    settle(w);
    assert_int_equal(o[0].how, LIM__COMMITTED);
    assert_int_equal(o[1].how, LIM__COMMIT_CONFLICT);
    assert_int_equal(o[2].how, LIM__COMMIT_CONFLICT);
    assert_string_equal(o[1].found, "0");
    expect_row(w, 1, "once", "0");
}

typedef struct receipt {
    char text[4];
    uint8_t seq[8], wall_ns[8];
} receipt;

static void expect_receipt(world *w, const char *key, uint64_t seq, uint64_t wall_ns)
{
    void *value;
    size_t len;
    receipt r;
    uint64_t numbers[2];
    assert_int_equal(lim__store_get(w->store, 1, lim__str(key), &value, &len), 0);
    assert_int_equal(len, sizeof r);
    memcpy(&r, value, sizeof r);
    free(value);
    memcpy(&numbers[0], r.seq, 8), memcpy(&numbers[1], r.wall_ns, 8);
    assert_memory_equal(r.text, "rcpt", 4);
    assert_int_equal(numbers[0], seq);
    assert_int_equal(numbers[1], wall_ns);
}

static void test_a_receipt_names_its_record_in_the_same_step(void **state)
{
    world *w = *state;
    append(w, 7, "", text("one")), append(w, 7, "", text("two"));
    lim__batch *b = lim__batch_new();
    lim_bytes data = text("x");
    lim__batch_append(b, 8, lim__str(""), &data, 1);
    lim__batch_append(b, 7, lim__str(""), &data, 1);
    lim__batch_put_seq(b, 1, lim__str("of 7"), lim__str("rcpt"), 1);
    lim__batch_append(b, 7, lim__str(""), &data, 1);
    lim__batch_put_seq(b, 1, lim__str("of 8"), lim__str("rcpt"), 0);
    lim__batch_put_seq(b, 1, lim__str("last"), lim__str("rcpt"), 2);
    lim__batch_put(b, 1, lim__str("plain"), lim__str("value"));
    outcome o = commit(w, b);
    assert_int_equal(o.how, LIM__COMMITTED);
    for (int round = 0; round < 3; round++) {
        expect_receipt(w, "of 7", 3, o.wall_ns);
        expect_receipt(w, "of 8", 1, o.wall_ns);
        expect_receipt(w, "last", 4, o.wall_ns);
        expect_row(w, 1, "plain", "value");
        lim__store_close(w->store);
        char path[256];
        path_of(w, "index/data.mdb", path);
        if (round == 1)
            (void)unlink(path);
        open_store(w);
    }
}

static void test_a_receipt_of_no_append_is_refused(void **state)
{
    world *w = *state;
    lim__batch *b = lim__batch_new();
    lim_bytes data = text("x");
    outcome o;
    lim__batch_append(b, 8, lim__str(""), &data, 1);
    lim__batch_put_seq(b, 1, lim__str("k"), lim__str(""), 1);
    assert_int_equal(lim__store_submit(w->store, b, on_done, &o), -EINVAL);
    lim__batch_free(b);
}

typedef struct twice {
    uint64_t seq, wall_ns;
    lim__commit_how how[2];
    lim__class class[2];
    uint32_t answered;
} twice;

static uint64_t syncs_of(world *w)
{
    lim__store_info info;
    lim__store_info_get(w->store, &info);
    return info.syncs;
}

static void on_twice(void *ctx, lim__batch *b, const lim__committed *what)
{
    twice *t = ctx;
    t->how[t->answered] = what->how;
    t->class[t->answered++] = what->class;
    if (what->how == LIM__COMMITTED) {
        t->seq = lim__batch_seq(b, 0);
        t->wall_ns = what->first_ns;
    } else {
        uint64_t numbers[2];
        assert_int_equal(what->found.len, 4 + sizeof numbers);
        memcpy(numbers, (const uint8_t *)what->found.ptr + 4, sizeof numbers);
        assert_int_equal(numbers[0], t->seq);
        assert_int_equal(numbers[1], t->wall_ns);
    }
    lim__batch_free(b);
}

static void submit_once(world *w, twice *t, lim__sync sync)
{
    lim__batch *b = lim__batch_new();
    lim_bytes data = text("once");
    lim__batch_expect(b, 1, lim__str("key"), lim__bytes(NULL, 0));
    lim__batch_append(b, 7, lim__str(""), &data, 1);
    lim__batch_put_seq(b, 1, lim__str("key"), lim__str("rcpt"), 0);
    lim__batch_sync(b, sync);
    assert_int_equal(lim__store_submit(w->store, b, on_twice, t), 0);
}

static void test_who_comes_second_in_one_write_finds_the_receipt_of_the_first(void **state)
{
    world *w = *state;
    twice t = { .answered = 0 };
    append(w, 7, "", text("before"));
    submit_once(w, &t, LIM__SYNC_ALWAYS), submit_once(w, &t, LIM__SYNC_ALWAYS);
    assert_int_equal(t.answered, 0);
    settle(w);
    assert_int_equal(t.answered, 2);
    assert_int_equal(t.how[0], LIM__COMMITTED), assert_int_equal(t.how[1], LIM__COMMIT_CONFLICT);
    assert_int_equal(t.class[0], LIM__CLASS_DISK), assert_int_equal(t.class[1], LIM__CLASS_DISK);
    assert_int_equal(t.seq, 2);
    expect_stream(w, 7, 1, 3, 2);
    expect_receipt(w, "key", 2, t.wall_ns);
}

/* Alone, too, and in one write with it. */
static void test_a_conflict_with_what_is_not_synced_waits_for_the_sync(void **state)
{
    world *w = *state;
    twice t = { .answered = 0 };
    submit_once(w, &t, LIM__SYNC_NEVER);
    settle(w);
    assert_int_equal(t.class[0], LIM__CLASS_OS);
    uint64_t before = syncs_of(w);
    submit_once(w, &t, LIM__SYNC_NEVER);
    settle(w);
    assert_int_equal(t.how[1], LIM__COMMIT_CONFLICT), assert_int_equal(t.class[1], LIM__CLASS_OS);
    assert_int_equal(syncs_of(w), before);
    t.answered = 1;
    submit_once(w, &t, LIM__SYNC_ALWAYS);
    settle(w);
    assert_int_equal(t.how[1], LIM__COMMIT_CONFLICT), assert_int_equal(t.class[1], LIM__CLASS_DISK);
    assert_int_equal(syncs_of(w), before + 1);
    lim__batch *b = lim__batch_new();
    lim__batch_delete(b, 1, lim__str("key"));
    assert_int_equal(commit(w, b).how, LIM__COMMITTED);
    t.answered = 0;
    submit_once(w, &t, LIM__SYNC_NEVER), submit_once(w, &t, LIM__SYNC_ALWAYS);
    settle(w);
    assert_int_equal(t.how[0], LIM__COMMITTED), assert_int_equal(t.how[1], LIM__COMMIT_CONFLICT);
    assert_int_equal(t.class[0], LIM__CLASS_DISK), assert_int_equal(t.class[1], LIM__CLASS_DISK);
}

/* proves DU4 */
static void test_one_step_goes_to_several_streams_and_rows_together(void **state)
{
    world *w = *state;
    lim__batch *b = lim__batch_new();
    lim__batch_append(b, 1, lim__str("k"), (lim_bytes[]){ { "he", 2 }, { "llo", 3 } }, 2);
    lim__batch_append(b, 2, lim__str(""), (lim_bytes[]){ { "world", 5 } }, 1);
    lim__batch_append(b, 1, lim__str(""), NULL, 0);
    lim__batch_put(b, 5, lim__str("cursor"), lim__str("2"));
    outcome o = commit(w, b);
    assert_int_equal(o.how, LIM__COMMITTED);
    assert_int_equal(o.class, LIM__CLASS_DISK);
    assert_int_equal(o.seqs[0], 1), assert_int_equal(o.seqs[1], 1), assert_int_equal(o.seqs[2], 2);
    expect_records(w, 1, 1, "k:hello||");
    expect_records(w, 2, 1, "world|");
    expect_row(w, 5, "cursor", "2");
    reopen(w);
    expect_records(w, 1, 1, "k:hello||");
    expect_records(w, 2, 1, "world|");
    expect_row(w, 5, "cursor", "2");
}

static void test_trim_erase_and_drop_forget_and_numbers_go_on(void **state)
{
    world *w = *state;
    for (int i = 1; i <= 8; i++)
        append(w, 1, "", text("r%d", i));
    change(w, 1, "trim", 3);
    expect_records(w, 1, 1, "r3|r4|r5|r6|r7|r8|");
    change(w, 1, "erase", 5), change(w, 1, "erase", 3), change(w, 1, "erase", 3), change(w, 1, "erase", 99);
    for (int round = 0; round < 2; round++) {
        expect_stream(w, 1, 4, 9, 4);
        expect_records(w, 1, 1, "r4|r6|r7|r8|");
        reopen(w);
    }
    change(w, 1, "trim", 1000);
    expect_stream(w, 1, 9, 9, 0);
    assert_int_equal(append(w, 1, "", text("r9")), 9);
    change(w, 1, "drop", 0);
    expect_stream(w, 1, 10, 10, 0);
    reopen(w);
    expect_stream(w, 1, 10, 10, 0);
    assert_int_equal(append(w, 1, "", text("r10")), 10);
    expect_records(w, 1, 1, "r10|");
}

/* proves CH15 */
static void test_the_newest_record_of_a_key_is_found_as_long_as_it_is_alive(void **state)
{
    world *w = *state;
    append(w, 1, "a", text("a1")), append(w, 1, "ab", text("ab2")), append(w, 1, "a", text("a3"));
    append(w, 2, "a", text("other"));
    for (int round = 0; round < 2; round++) {
        expect_last(w, 1, "a", "a:a3|"), expect_last(w, 1, "ab", "ab:ab2|"), expect_last(w, 1, "b", NULL);
        expect_last(w, 1, "", NULL);
        reopen(w);
    }
    change(w, 1, "erase", 3);
    expect_last(w, 1, "a", "a:a1|");
    change(w, 1, "trim", 2);
    expect_last(w, 1, "a", NULL), expect_last(w, 1, "ab", "ab:ab2|");
    reopen(w);
    expect_last(w, 1, "a", NULL), expect_last(w, 1, "ab", "ab:ab2|"), expect_last(w, 2, "a", "a:other|");
}

static bool keep_wall(void *ctx, const lim__record *r)
{
    uint64_t *wall = ctx;
    wall[r->seq] = r->wall_ns;
    return true;
}

/* proves DU5 (by number and by time) */
static void test_a_time_is_found_by_searching(void **state)
{
    world *w = *state;
    uint64_t wall[64] = { 0 }, seq, bad;
    for (int i = 1; i <= 40; i++)
        append(w, 1, "", text("%d", i));
    change(w, 1, "trim", 4), change(w, 1, "erase", 20);
    assert_int_equal(lim__store_read(w->store, 1, 1, 0, keep_wall, wall, &bad), 0);
    for (uint64_t i = 4; i <= 40; i++) {
        if (i == 20)
            continue;
        assert_true(wall[i] >= wall[i == 21 ? 19 : i - 1]);
        assert_int_equal(lim__store_seek(w->store, 1, wall[i], &seq), 0);
        assert_int_equal(wall[seq], wall[i]);
        assert_true(seq <= i && (seq == 4 || wall[seq - 1 == 20 ? 19 : seq - 1] < wall[seq]));
    }
    assert_int_equal(lim__store_seek(w->store, 1, wall[40] + 1, &seq), 0);
    assert_int_equal(seq, 41);
    assert_int_equal(lim__store_seek(w->store, 1, 0, &seq), 0);
    assert_int_equal(seq, 4);
    assert_int_equal(lim__store_seek(w->store, 9, 0, &seq), 0);
    assert_int_equal(seq, 1);
}

static void test_many_batches_at_once_are_few_log_writes_in_order(void **state)
{
    enum { MANY = 2000 };
    world *w = *state;
    static outcome o[MANY];
    lim__store_info before, after;
    lim__store_info_get(w->store, &before);
    for (int i = 0; i < MANY; i++) {
        lim__batch *b = lim__batch_new();
        lim_bytes data = text("%06d", i);
        lim__batch_append(b, (uint64_t)(i % 3), lim__str(""), &data, 1);
        submit(w, b, &o[i]);
    }
    settle(w);
    lim__store_info_get(w->store, &after);
    assert_in_range(after.lsn - before.lsn, 1, 5);
    assert_int_equal(after.batches - before.batches, MANY);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(o[i].how, LIM__COMMITTED);
        assert_int_equal(o[i].seqs[0], i / 3 + 1);
        assert_int_equal(o[i].order, o[0].order + i);
    }
    reopen(w);
    expect_stream(w, 0, 1, 668, 667);
    for (uint64_t s = 0; s < 3; s++)
        expect_counted(w, s, (unsigned)s, 3, MANY);
}

static void test_the_log_goes_on_over_many_segments(void **state)
{
    world *w = *state;
    static char large[9000];
    memset(large, 'x', sizeof large);
    for (int i = 0; i < 120; i++) {
        lim_bytes parts[2] = { text("%06d", i), { large, sizeof large } };
        lim__batch *b = lim__batch_new();
        lim__batch_append(b, 1, lim__str(""), parts, 2);
        assert_int_equal(commit(w, b).how, LIM__COMMITTED);
        if (i % 40 == 39)
            reopen(w);
    }
    lim__store_info info;
    lim__store_info_get(w->store, &info);
    assert_true(info.segments > 10);
    expect_stream(w, 1, 1, 121, 120);
    expect_counted(w, 1, 0, 1, 120);
}

static void test_a_second_store_in_the_same_directory_is_refused(void **state)
{
    world *w = *state;
    lim__store *other;
    lim__store_error error;
    assert_int_equal(lim__store_open(&w->opts, &error, &other), -EAGAIN);
    assert_non_null(strstr(error.text, "in use"));
}

/* proves DU7 */
static void test_a_newer_format_is_refused_in_plain_words(void **state)
{
    world *w = *state;
    append(w, 1, "", text("x"));
    lim__store_close(w->store);
    w->store = NULL;
    char newer[80];
    int n = snprintf(newer, sizeof newer, "liminal store 2 0123456789abcdef ");
    snprintf(newer + n, sizeof newer - (size_t)n, "%08x\n", lim__crc32c(0, newer, (size_t)n));
    write_file(w, "format", newer);
    lim__store_error error;
    assert_int_equal(lim__store_open(&w->opts, &error, &w->store), -ENOTSUP);
    assert_non_null(strstr(error.text, "newer version"));
    w->store = NULL;
}

static void test_a_format_file_that_went_bad_is_written_again(void **state)
{
    world *w = *state;
    append(w, 1, "", text("x"));
    lim__store_close(w->store);
    write_file(w, "format", "liminal\tstore 1 zz");
    open_store(w);
    expect_records(w, 1, 1, "x|");
    reopen(w);
    expect_records(w, 1, 1, "x|");
}

static void test_what_is_too_long_is_refused_and_stays_the_callers(void **state)
{
    world *w = *state;
    static char large[LIM__ROW_KEY_MAX + 1];
    lim__batch *b = lim__batch_new();
    outcome o = { 0 };
    lim__batch_append(b, 1, lim__bytes(large, LIM__STREAM_KEY_MAX + 1), NULL, 0);
    assert_int_equal(lim__store_submit(w->store, b, on_done, &o), -EINVAL);
    lim__batch_free(b);
    b = lim__batch_new();
    lim__batch_put(b, 1, lim__bytes(large, LIM__ROW_KEY_MAX + 1), lim__str(""));
    assert_int_equal(lim__store_submit(w->store, b, on_done, &o), -EINVAL);
    lim__batch_free(b);
    b = lim__batch_new();
    lim__batch_delete(b, LIM__TABLES_MAX, lim__str("x"));
    assert_int_equal(lim__store_submit(w->store, b, on_done, &o), -EINVAL);
    lim__batch_free(b);
    b = lim__batch_new();
    static char huge[SEGMENT_BYTES];
    lim__batch_append(b, 1, lim__str(""), &(lim_bytes){ huge, sizeof huge }, 1);
    assert_int_equal(lim__store_submit(w->store, b, on_done, &o), -EMSGSIZE);
    lim__batch_free(b);
    b = lim__batch_new();
    static char nearly[SEGMENT_BYTES - 3 * 4096];
    lim__batch_append(b, 1, lim__str(""), &(lim_bytes){ nearly, sizeof nearly }, 1);
    assert_int_equal(commit(w, b).how, LIM__COMMITTED);
}

static void test_batches_that_need_not_be_synced_are_class_os_and_synced_in_time(void **state)
{
    world *w = *state;
    lim__store_info before, after;
    settle(w);
    lim__store_info_get(w->store, &before);
    lim__batch *b = lim__batch_new();
    lim__batch_append(b, 1, lim__str(""), &(lim_bytes){ "x", 1 }, 1);
    lim__batch_sync(b, LIM__SYNC_NEVER);
    assert_int_equal(commit(w, b).class, LIM__CLASS_OS);
    b = lim__batch_new();
    lim__batch_append(b, 1, lim__str(""), &(lim_bytes){ "y", 1 }, 1);
    lim__batch_sync(b, LIM__SYNC_INTERVAL);
    assert_int_equal(commit(w, b).class, LIM__CLASS_OS);
    lim__store_info_get(w->store, &after);
    assert_int_equal(after.syncs, before.syncs);
    uint64_t next = 0;
    while (lim__store_turn(w->store, &next))
        continue;
    assert_true(next != UINT64_MAX);
    while (w->opts.os->now_ns(w->opts.os) < next)
        lim__thread_yield();
    lim__store_turn(w->store, &next);
    lim__store_info_get(w->store, &after);
    assert_int_equal(after.syncs, before.syncs + 1);
    assert_int_equal(append(w, 1, "", text("z")), 3);
    reopen(w);
    expect_records(w, 1, 1, "x|y|z|");
}

static void test_what_was_submitted_before_closing_is_committed(void **state)
{
    world *w = *state;
    outcome o = { 0 };
    lim__batch *b = lim__batch_new();
    lim__batch_append(b, 1, lim__str(""), &(lim_bytes){ "x", 1 }, 1);
    submit(w, b, &o);
    reopen(w);
    assert_int_equal(o.how, LIM__COMMITTED);
    expect_records(w, 1, 1, "x|");
}

static bool stop_after_two(void *ctx, const lim__record *r)
{
    (void)r;
    return ++*(int *)ctx < 2;
}

static void test_reading_stops_when_asked_to(void **state)
{
    world *w = *state;
    int seen = 0;
    uint64_t bad;
    for (int i = 0; i < 10; i++)
        append(w, 1, "", text("x"));
    assert_int_equal(lim__store_read(w->store, 1, 1, 0, stop_after_two, &seen, &bad), 0);
    assert_int_equal(seen, 2);
    assert_int_equal(count_records(w, 1, 3, 4), 4);
    assert_int_equal(count_records(w, 1, 8, 100), 3);
}

int main(void)
{
#define EACH(test)                                                                                                     \
    { #test " [LMDB]", test, set_up_lmdb, tear_down, NULL },                                                           \
    {                                                                                                                  \
#test " [memory]", test, set_up_memory, tear_down, NULL                                                        \
    }
    const struct CMUnitTest tests[] = {
        EACH(test_what_was_committed_is_read_and_is_there_again),
        EACH(test_rows_are_put_deleted_scanned_and_expected),
        EACH(test_an_expectation_that_does_not_hold_stores_nothing_and_tells_what_is_there),
        EACH(test_of_two_batches_that_expect_the_same_the_first_wins),
        EACH(test_a_receipt_names_its_record_in_the_same_step),
        EACH(test_a_receipt_of_no_append_is_refused),
        EACH(test_who_comes_second_in_one_write_finds_the_receipt_of_the_first),
        EACH(test_a_conflict_with_what_is_not_synced_waits_for_the_sync),
        EACH(test_one_step_goes_to_several_streams_and_rows_together),
        EACH(test_trim_erase_and_drop_forget_and_numbers_go_on),
        EACH(test_the_newest_record_of_a_key_is_found_as_long_as_it_is_alive),
        EACH(test_a_time_is_found_by_searching),
        EACH(test_many_batches_at_once_are_few_log_writes_in_order),
        EACH(test_the_log_goes_on_over_many_segments),
        EACH(test_a_second_store_in_the_same_directory_is_refused),
        EACH(test_a_newer_format_is_refused_in_plain_words),
        EACH(test_a_format_file_that_went_bad_is_written_again),
        EACH(test_what_is_too_long_is_refused_and_stays_the_callers),
        EACH(test_batches_that_need_not_be_synced_are_class_os_and_synced_in_time),
        EACH(test_what_was_submitted_before_closing_is_committed),
        EACH(test_reading_stops_when_asked_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
