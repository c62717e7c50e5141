/* SPDX-License-Identifier: Apache-2.0
 * index_lmdb_test.c - the real LMDB: deleted, cut, flipped, older than the log, or somebody else's, it is made again
 * from the log, and all answers are the same. */
#include "store/test_world.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "store/index.h"
#include "store/index_lmdb.h"

enum { STREAMS = 4, FLIPS = 400 };

/* ---- a store with something of everything in it ---- */

static void random_batch(world *w, lim__rng *rng, unsigned number)
{
    static char bytes[9000];
    lim__batch *b = lim__batch_new();
    memset(bytes, (int)('a' + number % 26), sizeof bytes);
    for (int i = 0; i < 4; i++) {
        uint64_t stream = lim__rng_below(rng, STREAMS);
        lim_bytes parts[2] = { text("%06u", number), { bytes, (size_t)lim__rng_below(rng, 200) } };
        lim_bytes key = lim__rng_chance(rng, 300) ? text("key%u", (unsigned)lim__rng_below(rng, 9)) : lim__str("");
        lim_bytes row = text("row%u", (unsigned)lim__rng_below(rng, 90));
        switch (lim__rng_below(rng, 8)) {
        case 0:
            lim__batch_delete(b, 1, row);
            break;
        case 1:
            lim__batch_put(b, 1, row, lim__bytes(bytes, (size_t)lim__rng_below(rng, number % 20 == 0 ? 9000 : 60)));
            break;
        case 2:
            lim__batch_erase(b, stream, 1 + lim__rng_below(rng, 200));
            break;
        case 3:
            lim__batch_trim(b, stream, lim__rng_below(rng, 1 + number / 2));
            break;
        default:
            lim__batch_append(b, stream, key, parts, 2);
        }
    }
    assert_int_equal(commit(w, b).how, LIM__COMMITTED);
}

static bool sum_record(void *ctx, const lim__record *r)
{
    uint32_t *crc = ctx;
    *crc = lim__crc32c(*crc, &r->seq, 16); /* and the time */
    *crc = lim__crc32c(*crc, r->key.ptr, r->key.len);
    *crc = lim__crc32c(*crc, r->data.ptr, r->data.len);
    return true;
}

static bool sum_row(void *ctx, lim_bytes key, lim_bytes value)
{
    uint32_t *crc = ctx;
    *crc = lim__crc32c(*crc, key.ptr, key.len);
    *crc = lim__crc32c(*crc, value.ptr, value.len);
    return true;
}

/* A checksum of every answer that the store can give. */
static uint32_t all_answers(world *w)
{
    uint32_t crc = 0;
    uint64_t bad;
    for (uint64_t s = 0; s < STREAMS; s++) {
        lim__stream_info info;
        assert_int_equal(lim__store_stream(w->store, s, &info), 0);
        crc = lim__crc32c(crc, &info, sizeof info);
        assert_int_equal(lim__store_read(w->store, s, 1, 0, sum_record, &crc, &bad), 0);
        for (unsigned k = 0; k < 9; k++) {
            int err = lim__store_last(w->store, s, text("key%u", k), sum_record, &crc);
            assert_true(err == 0 || err == -ENOENT);
        }
        for (uint64_t seq;
             info.count && lim__store_seek(w->store, s, info.last_ns / 2 + info.first_ns / 2, &seq) == 0;) {
            crc = lim__crc32c(crc, &seq, sizeof seq);
            break;
        }
    }
    assert_int_equal(lim__store_scan(w->store, 1, lim__str(""), lim__str(""), sum_row, &crc), 0);
    return crc;
}

static world *filled(unsigned batches, uint64_t seed)
{
    world *w = world_new_in(quick_dir(), false);
    lim__rng rng = lim__rng_seeded(seed);
    for (unsigned i = 1; i <= batches; i++) {
        random_batch(w, &rng, i);
        if (i % 100 == 0)
            reopen(w);
    }
    return w;
}

/* ---- files ---- */

typedef struct bytes {
    uint8_t *ptr;
    size_t len;
} bytes;

static bytes read_bytes(world *w, const char *name)
{
    char path[256];
    bytes b;
    void *ptr;
    path_of(w, name, path);
    assert_int_equal(lim__file_read(path, SIZE_MAX / 4, &ptr, &b.len), 0);
    b.ptr = ptr;
    return b;
}

static void write_bytes(world *w, const char *name, const uint8_t *ptr, size_t len)
{
    char path[256];
    path_of(w, name, path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(ptr, 1, len, f), len);
    fclose(f);
}

static void end_world(world *w)
{
    void *state = w;
    tear_down(&state);
}

/* ---- tests ---- */

static void test_the_check_finds_nothing_wrong_with_what_lmdb_has_written(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        char path[256];
        world *w = filled((unsigned)seed * 40 - 39, seed);
        lim__store_close(w->store);
        path_of(w, "index/data.mdb", path);
        assert_int_equal(lim__lmdb_check(w->opts.os, path), 0);
        open_store(w);
        assert_null(strstr(w->events, "index"));
        end_world(w);
    }
}

static void test_an_index_that_is_gone_or_cut_or_empty_is_made_again_with_the_same_answers(void **state)
{
    (void)state;
    world *w = filled(250, 5);
    reopen(w);
    uint32_t answers = all_answers(w);
    lim__rng rng = lim__rng_seeded(3);
    for (int i = 0; i < 40; i++) {
        lim__store_close(w->store);
        char path[256];
        bytes index = read_bytes(w, "index/data.mdb");
        path_of(w, "index/data.mdb", path);
        if (i % 4 == 0)
            assert_int_equal(unlink(path), 0);
        else
            write_bytes(w, "index/data.mdb", index.ptr, i % 4 == 1 ? 0 : lim__rng_below(&rng, index.len));
        free(index.ptr);
        open_store(w);
        assert_non_null(strstr(w->events, "index_remade"));
        assert_int_equal(all_answers(w), answers);
    }
    end_world(w);
}

/* proves DU7 (deleting the index loses nothing): bits that matter are found, and those that are not found do not
 * matter. */
static void test_hundreds_of_flipped_bits_in_the_index_change_no_answer(void **state)
{
    (void)state;
    world *w = filled(250, 9);
    reopen(w);
    uint32_t answers = all_answers(w);
    lim__store_close(w->store);
    bytes index = read_bytes(w, "index/data.mdb");
    lim__rng rng = lim__rng_seeded(7);
    int found = 0;
    for (int i = 0; i < FLIPS; i++) {
        size_t at = i % 5 == 0 ? (size_t)lim__rng_below(&rng, 8192) : (size_t)lim__rng_below(&rng, index.len);
        at = i % 5 == 1 ? at / 4096 * 4096 + lim__rng_below(&rng, 64) : at; /* heads of pages */
        index.ptr[at] ^= (uint8_t)(1u << lim__rng_below(&rng, 8));
        if (i % 3 == 0)
            index.ptr[(at + 4096) % index.len] ^= 1;
        write_bytes(w, "index/data.mdb", index.ptr, index.len);
        open_store(w);
        found += strstr(w->events, "index_remade") != NULL;
        assert_int_equal(all_answers(w), answers);
        lim__store_close(w->store);
        free(index.ptr);
        index = read_bytes(w, "index/data.mdb");
    }
    assert_true(found > FLIPS / 4); /* the others fell on pages that are free */
    free(index.ptr);
    open_store(w);
    end_world(w);
}

/* An end without closing: files as they are while the store is open. LMDB is behind the log, and what is missing is
 * applied. */
static void test_after_a_sudden_end_the_index_catches_up_with_the_log(void **state)
{
    (void)state;
    world *w = filled(150, 11);
    lim__rng rng = lim__rng_seeded(1);
    reopen(w);
    for (unsigned i = 0; i < 60; i++)
        random_batch(w, &rng, 500 + i);
    uint32_t answers = all_answers(w);
    char copy[80], command[300];
    snprintf(copy, sizeof copy, "%s-copy", w->dir);
    snprintf(command, sizeof command, "cp -r %s %s", w->dir, copy);
    assert_int_equal(system(command), 0);
    world other = { .opts = w->opts };
    other.opts.dir = copy;
    other.opts.ctx = &other;
    open_store(&other);
    assert_null(strstr(other.events, "index_remade"));
    assert_int_equal(all_answers(&other), answers);
    append(&other, 1, "", text("goes on"));
    lim__store_close(other.store);
    remove_dir(copy);
    end_world(w);
}

static void test_an_older_index_catches_up_and_one_of_another_store_is_made_again(void **state)
{
    (void)state;
    world *w = filled(100, 21), *x = filled(100, 22);
    lim__rng rng = lim__rng_seeded(1);
    lim__store_close(w->store);
    lim__store_close(x->store);
    bytes older = read_bytes(w, "index/data.mdb"), others = read_bytes(x, "index/data.mdb");
    open_store(w);
    for (unsigned i = 0; i < 40; i++)
        random_batch(w, &rng, 500 + i);
    uint32_t answers = all_answers(w);
    lim__store_close(w->store);
    write_bytes(w, "index/data.mdb", older.ptr, older.len);
    open_store(w);
    assert_null(strstr(w->events, "index_remade"));
    assert_int_equal(all_answers(w), answers);
    lim__store_close(w->store);
    write_bytes(w, "index/data.mdb", others.ptr, others.len);
    open_store(w);
    assert_non_null(strstr(w->events, "index_remade"));
    assert_int_equal(all_answers(w), answers);
    free(older.ptr), free(others.ptr);
    open_store(x);
    end_world(w), end_world(x);
}

/* The mapped file changes below a running store: a wrong checksum is met, readers are told to come again, the index is
 * made anew, and the answers are those of before. */
static void test_a_wrong_checksum_found_while_running_makes_the_index_anew(void **state)
{
    (void)state;
    world *w = filled(200, 31);
    put(w, 2, "marked", "a value that can be found in the file");
    reopen(w);
    uint32_t answers = all_answers(w);
    bytes index = read_bytes(w, "index/data.mdb");
    uint8_t *at = memmem(index.ptr, index.len, "a value that can be found", 25);
    assert_non_null(at);
    char path[256];
    path_of(w, "index/data.mdb", path);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    for (uint8_t *next = at; next;
         next = memmem(next + 1, (size_t)(index.ptr + index.len - next - 1), "a value that", 12)) {
        fseek(f, (long)(next - index.ptr), SEEK_SET);
        fputc('A', f);
    }
    fclose(f);
    free(index.ptr);
    void *value;
    size_t len;
    w->wakes = 0;
    assert_int_equal(lim__store_get(w->store, 2, lim__str("marked"), &value, &len), -EAGAIN);
    assert_true(w->wakes > 0);
    settle(w);
    assert_non_null(strstr(w->events, "index_remade"));
    expect_row(w, 2, "marked", "a value that can be found in the file");
    assert_int_equal(all_answers(w), answers);
    assert_true(append(w, 1, "", text("goes on")) > 0);
    reopen(w);
    assert_null(strstr(w->events, "index_remade"));
    end_world(w);
}

/* ---- the layers ---- */

static void expect_seek(lim__index *ix, const char *key, lim__seek where, const char *expected)
{
    lim__buf found = { 0 }, value = { 0 };
    int err = lim__index_seek(ix, lim__str(key), where, &found, &value);
    assert_int_equal(err, expected ? 0 : -ENOENT);
    if (expected) {
        lim__buf_add(&found, "=", 1);
        lim__buf_add(&found, lim__buf_bytes(&value).ptr, lim__buf_len(&value));
        expect_text(&found, expected);
    }
    lim__buf_fini(&found), lim__buf_fini(&value);
}

static void index_put(lim__index *ix, const char *key, const char *value)
{
    lim__index_put(ix, lim__str(key), value ? lim__str(value) : lim__bytes(NULL, 0));
}

static void test_upper_layers_hide_lower_ones_and_only_commits_are_seen(void **state)
{
    world *w = *state;
    char dir[256];
    lim__base base;
    lim__index *ix;
    path_of(w, "another", dir);
    assert_int_equal(lim__lmdb_open(w->opts.os, dir, 1 << 24, &base), 0);
    assert_int_equal(lim__index_open(base, NULL, NULL, &ix), 0);
    lim__index_ready(ix);
    index_put(ix, "b", "1"), index_put(ix, "d", "1"), index_put(ix, "f", "1");
    expect_seek(ix, "", LIM__SEEK_GE, NULL);
    lim__index_commit(ix, 1);
    assert_int_equal(lim__index_flush(ix, true), 0);
    assert_int_equal(lim__index_recent(ix), 0);
    assert_int_equal(lim__index_stable(ix), 1);
    index_put(ix, "d", NULL), index_put(ix, "e", "2"), index_put(ix, "f", "2");
    expect_seek(ix, "c", LIM__SEEK_GE, "d=1");
    lim__index_commit(ix, 2);
    for (int i = 0; i < 2; i++) {
        expect_seek(ix, "b", LIM__SEEK_GE, "b=1"), expect_seek(ix, "b", LIM__SEEK_GT, "e=2");
        expect_seek(ix, "d", LIM__SEEK_LE, "b=1"), expect_seek(ix, "e", LIM__SEEK_LT, "b=1");
        expect_seek(ix, "z", LIM__SEEK_LE, "f=2"), expect_seek(ix, "f", LIM__SEEK_GT, NULL);
        expect_seek(ix, "b", LIM__SEEK_LT, NULL);
        assert_int_equal(lim__index_flush(ix, true), 0);
    }
    assert_int_equal(lim__index_stable(ix), 2);
    assert_int_equal(lim__index_wipe(ix), 0);
    assert_int_equal(lim__index_seek(ix, lim__str(""), LIM__SEEK_GE, NULL, NULL), -EAGAIN);
    lim__index_ready(ix);
    expect_seek(ix, "", LIM__SEEK_GE, NULL);
    lim__index_close(ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_upper_layers_hide_lower_ones_and_only_commits_are_seen, set_up_memory,
                                        tear_down),
        cmocka_unit_test(test_the_check_finds_nothing_wrong_with_what_lmdb_has_written),
        cmocka_unit_test(test_an_index_that_is_gone_or_cut_or_empty_is_made_again_with_the_same_answers),
        cmocka_unit_test(test_after_a_sudden_end_the_index_catches_up_with_the_log),
        cmocka_unit_test(test_an_older_index_catches_up_and_one_of_another_store_is_made_again),
        cmocka_unit_test(test_a_wrong_checksum_found_while_running_makes_the_index_anew),
        cmocka_unit_test(test_hundreds_of_flipped_bits_in_the_index_change_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
