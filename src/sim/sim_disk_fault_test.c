/* SPDX-License-Identifier: Apache-2.0
 * sim_disk_fault_test.c - what the simulated disk does to a program that lives on: syncs and writes that fail, a full
 * disk, rot, a call that is the last; and that all of it is the seed's doing. */
#include "sim/disk_box.h"

/* ---- failed syncs and writes ---- */

static void fail_syncs(lim__sim_disk *disk)
{
    disk->sync_error_permille = 1000;
}

static void heal_syncs(lim__sim_disk *disk)
{
    disk->sync_error_permille = 0;
}

static void fail_writes(lim__sim_disk *disk)
{
    disk->write_error_permille = 1000;
}

static void test_after_a_failed_sync_the_cache_lies_and_direct_reads_do_not(void **state)
{
    (void)state;
    int lied = 0, kept = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        uint8_t truth[2 * BLOCK];
        box_open(&b, seed);
        int file = synced_file(&b, BLOCK, 'o');
        put(&b, file, blocks_of('n'), 2 * BLOCK, 0);
        if (seed % 2)
            set_manners(&b, fail_syncs);
        else
            lim__sim_disk_fail_at_call(b.os, 1, EIO);
        assert_int_equal(b.os->file_sync(b.os, file), -EIO);
        set_manners(&b, heal_syncs);
        assert_int_equal(sectors_of(shown(&b, "/d/f", 0, 2 * BLOCK), 2 * BLOCK, 'n'), 16);
        memcpy(truth, shown(&b, "/d/f", LIM__FILE_DIRECT, 2 * BLOCK), sizeof truth);
        for (size_t i = 0; i < sizeof truth; i++)
            assert_true(truth[i] == 'n' || truth[i] == (i < BLOCK ? 'o' : 0));
        int new = sectors_of(truth, sizeof truth, 'n');
        lied += new < 16;
        kept += new == 16;
        sync_file(&b, file); /* succeeds, and writes nothing: all is marked clean */
        assert_int_equal(sectors_of(shown(&b, "/d/f", 0, 2 * BLOCK), 2 * BLOCK, 'n'), 16);
        assert_memory_equal(shown(&b, "/d/f", LIM__FILE_DIRECT, 2 * BLOCK), truth, sizeof truth);
        lose_power(&b);
        assert_memory_equal(shown(&b, "/d/f", 0, 2 * BLOCK), truth, sizeof truth);
        assert_memory_equal(shown(&b, "/d/f", LIM__FILE_DIRECT, 2 * BLOCK), truth, sizeof truth);
        lim__sim_close(b.sim);
    }
    assert_true(lied > SEEDS / 10 && kept > SEEDS / 20);
}

static void test_a_direct_write_has_no_cache_that_could_lie(void **state)
{
    (void)state;
    int lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        uint8_t truth[BLOCK];
        box_open(&b, seed);
        synced_file(&b, BLOCK, 'o');
        int direct = opened(&b, "/d/f", DIRECT);
        put(&b, direct, blocks_of('n'), BLOCK, 0);
        lim__sim_disk_fail_at_call(b.os, 1, EIO);
        assert_int_equal(b.os->file_sync(b.os, direct), -EIO);
        memcpy(truth, shown(&b, "/d/f", 0, BLOCK), BLOCK);
        assert_memory_equal(shown(&b, "/d/f", LIM__FILE_DIRECT, BLOCK), truth, BLOCK);
        lost += sectors_of(truth, BLOCK, 'n') < 8;
        lim__sim_close(b.sim);
    }
    assert_in_range(lost, SEEDS / 10, SEEDS - SEEDS / 10);
}

static void test_a_page_that_lies_is_written_whole_when_it_is_written_again(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    int file = synced_file(&b, 2 * BLOCK, 'o');
    set_manners(&b, keep_nothing);
    put(&b, file, blocks_of('n'), 2 * BLOCK, 0);
    lim__sim_disk_fail_at_call(b.os, 1, EIO);
    assert_int_equal(b.os->file_sync(b.os, file), -EIO);
    assert_int_equal(sectors_of(shown(&b, "/d/f", LIM__FILE_DIRECT, 2 * BLOCK), 2 * BLOCK, 'o'), 16);
    put(&b, file, "x", 1, 0); /* the first page is dirty again, as the cache has it; the second is not */
    put(&b, opened(&b, "/d/f", DIRECT), blocks_of('d'), BLOCK, BLOCK); /* and now the cache has forgotten it */
    assert_int_equal(sectors_of(shown(&b, "/d/f", 0, 2 * BLOCK), 2 * BLOCK, 'd'), 8);
    sync_file(&b, file);
    lose_power(&b);
    const uint8_t *bytes = shown(&b, "/d/f", 0, 2 * BLOCK);
    assert_int_equal(bytes[0], 'x');
    assert_int_equal(sectors_of(bytes, 2 * BLOCK, 'n'), 7);
    assert_int_equal(sectors_of(bytes, 2 * BLOCK, 'd'), 8);
    lim__sim_close(b.sim);
}

static void test_a_failed_direct_write_may_have_written_any_of_it(void **state)
{
    (void)state;
    int none = 0, all = 0, some = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        synced_file(&b, 2 * BLOCK, 'o');
        set_manners(&b, fail_writes);
        int direct = opened(&b, "/d/f", DIRECT);
        assert_int_equal(b.os->file_write(b.os, direct, blocks_of('n'), 2 * BLOCK, BLOCK), -EIO);
        assert_int_equal(size_of(&b, "/d/f"), 2 * BLOCK); /* what is beyond the end belongs to no file */
        int new = sectors_of(shown(&b, "/d/f", 0, 2 * BLOCK), 2 * BLOCK, 'n');
        assert_int_equal(sectors_of(shown(&b, "/d/f", 0, 2 * BLOCK), 2 * BLOCK, 'o'), 16 - new);
        none += new == 0;
        all += new == 8;
        some += new > 0 && new < 8;
        lim__sim_close(b.sim);
    }
    assert_true(none > SEEDS / 20 && all > SEEDS / 20 && some > SEEDS / 20);
}

static void test_a_failed_cached_write_has_written_nothing(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    int file = synced_file(&b, BLOCK, 'o');
    set_manners(&b, fail_writes);
    assert_int_equal(b.os->file_write(b.os, file, blocks_of('n'), BLOCK, 0), -EIO);
    assert_int_equal(sectors_of(shown(&b, "/d/f", 0, BLOCK), BLOCK, 'o'), 8);
    lim__sim_close(b.sim);
}

static void fail_reads_and_cut_writes(lim__sim_disk *disk)
{
    disk->read_error_permille = 500;
    disk->short_write_permille = 500;
}

static void test_reads_fail_and_writes_are_short_by_the_disks_manners(void **state)
{
    (void)state;
    struct box b;
    uint8_t bytes[100];
    int failed = 0, cut = 0, cut_direct = 0;
    box_open(&b, 1);
    int file = synced_file(&b, 100, 'o'), direct = opened(&b, "/d/f", DIRECT);
    set_manners(&b, fail_reads_and_cut_writes);
    for (int i = 0; i < SEEDS; i++) {
        long n = b.os->file_read(b.os, file, bytes, sizeof bytes, 0);
        assert_true(n == -EIO || n == sizeof bytes);
        failed += n == -EIO;
        n = b.os->file_write(b.os, file, bytes, sizeof bytes, 0);
        assert_in_range(n, 1, sizeof bytes);
        cut += n < (long)sizeof bytes;
        n = b.os->file_write(b.os, direct, blocks_of('d'), 4 * BLOCK, 0);
        assert_in_range(n, BLOCK, 4 * BLOCK);
        assert_int_equal(n % BLOCK, 0);
        cut_direct += n < 4 * BLOCK;
    }
    assert_in_range(failed, SEEDS / 4, SEEDS * 3 / 4);
    assert_in_range(cut, SEEDS / 4, SEEDS * 3 / 4);
    assert_in_range(cut_direct, SEEDS / 5, SEEDS * 3 / 4);
    lim__sim_close(b.sim);
}

/* ---- space ---- */

static void small_disk(lim__sim_disk *disk)
{
    disk->capacity = 4 * BLOCK;
}

static void test_a_full_disk_is_short_then_enospc_and_heals(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    set_manners(&b, small_disk);
    assert_int_equal(b.os->disk_free(b.os, "/d"), 4 * BLOCK);
    int file = synced_file(&b, 3 * BLOCK, 'o'), other = opened(&b, "/d/other", NEW);
    assert_int_equal(b.os->disk_free(b.os, "/d"), BLOCK);
    assert_int_equal(b.os->file_write(b.os, other, blocks_of('n'), 2 * BLOCK, 10), BLOCK - 10);
    assert_int_equal(b.os->disk_free(b.os, "/d"), 0);
    assert_int_equal(b.os->file_write(b.os, other, blocks_of('n'), 1, BLOCK), -ENOSPC);
    put(&b, file, blocks_of('n'), 3 * BLOCK, 0); /* what it has, it has */
    put(&b, other, "x", 1, BLOCK - 1);
    assert_int_equal(b.os->file_truncate(b.os, file, BLOCK + 1), 0);
    assert_int_equal(b.os->disk_free(b.os, "/d"), BLOCK);
    assert_int_equal(b.os->file_write(b.os, other, blocks_of('n'), 1, BLOCK), 1);
    assert_int_equal(b.os->file_remove(b.os, "/d/f"), 0);
    assert_int_equal(b.os->disk_free(b.os, "/d"), 0); /* still open */
    b.os->file_close(b.os, file);
    assert_int_equal(b.os->disk_free(b.os, "/d"), 2 * BLOCK);
    b.os->file_close(b.os, other);
    assert_int_equal(b.os->file_remove(b.os, "/d/other"), 0);
    assert_int_equal(b.os->disk_free(b.os, "/d"), 4 * BLOCK);
    lim__sim_close(b.sim);
}

static void test_replacing_a_file_gives_its_space_back(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    set_manners(&b, small_disk);
    b.os->file_close(b.os, synced_file(&b, 2 * BLOCK, 'o'));
    int file = opened(&b, "/d/new", NEW);
    put(&b, file, blocks_of(0), 2 * BLOCK, 0); /* zeros are written, too */
    assert_int_equal(b.os->disk_free(b.os, "/d"), 0);
    assert_int_equal(b.os->file_rename(b.os, "/d/new", "/d/f"), 0);
    assert_int_equal(b.os->disk_free(b.os, "/d"), 2 * BLOCK);
    set_manners(&b, keep_nothing);
    lose_power(&b); /* the replaced file is back, the new one's bytes are not */
    assert_int_equal(b.os->disk_free(b.os, "/d"), 2 * BLOCK);
    assert_int_equal(sectors_of(shown(&b, "/d/f", 0, 2 * BLOCK), 2 * BLOCK, 'o'), 16);
    lim__sim_close(b.sim);
}

/* ---- at the n-th call ---- */

static void ignore_name(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
}

/* Makes one call of each kind; counts those that fail so. */
static int every_call(struct box *b, int expected)
{
    int failed = 0, names = 0;
    char byte;
    lim__os *os = b->os;
    int file = os->file_open(os, "/d/f", NEW);
    long results[] = { file,
                       os->file_write(os, file, blocks_of('n'), 4 * BLOCK, 0),
                       os->file_size(os, file),
                       os->file_read(os, file, &byte, 1, 0),
                       os->file_truncate(os, file, BLOCK),
                       os->file_sync(os, file),
                       os->file_lock(os, file),
                       os->dir_create(os, "/d/sub"),
                       os->file_rename(os, "/d/f", "/d/g"),
                       os->dir_sync(os, "/d"),
                       os->dir_list(os, "/d", ignore_name, &names),
                       os->disk_free(os, "/d"),
                       os->file_remove(os, "/d/g") };
    for (size_t i = 0; i < LIM_COUNT(results); i++)
        failed += results[i] == expected;
    os->file_close(os, file);
    return failed;
}

static void test_each_call_fails_once_when_its_turn_has_come(void **state)
{
    (void)state;
    int failures = 0;
    for (uint64_t n = 1; n <= 14; n++) {
        struct box b;
        box_open(&b, n);
        uint64_t before = lim__sim_disk_calls(b.os);
        lim__sim_disk_fail_at_call(b.os, n, EDQUOT);
        int failed = every_call(&b, -EDQUOT);
        assert_int_equal(lim__sim_disk_calls(b.os), before + 13);
        assert_int_equal(failed, n <= 13);
        failures += failed;
        lim__sim_disk_fail_at_call(b.os, 1, EIO);
        lim__sim_disk_fail_at_call(b.os, 0, 0);
        assert_int_equal(every_call(&b, -EIO), 0);
        lim__sim_close(b.sim);
    }
    assert_int_equal(failures, 13);
}

static void test_each_call_can_be_a_programs_last(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 13; n++) {
        struct box b;
        box_open(&b, n);
        lim__sim_disk_fail_at_call(b.os, n, 0);
        assert_true(every_call(&b, -EBADF) >= 1);
        assert_false(lim__sim_host_alive(b.os));
        if (n % 2)
            lim__sim_power_off(b.sim, b.os);
        restart(&b);
        assert_int_equal(every_call(&b, -EBADF), 0);
        lim__sim_close(b.sim);
    }
}

static void test_a_write_that_was_the_last_call_happened_in_part(void **state)
{
    (void)state;
    int none = 0, some = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        int file = synced_file(&b, BLOCK, 'o');
        lim__sim_disk_fail_at_call(b.os, 1, 0);
        assert_int_equal(b.os->file_write(b.os, file, blocks_of('n'), BLOCK, 0), -EBADF);
        restart(&b);
        const uint8_t *bytes = shown(&b, "/d/f", 0, BLOCK);
        int new = sectors_of(bytes, BLOCK, 'n');
        assert_int_equal(sectors_of(bytes, (size_t) new *SECTOR, 'n'), new); /* a first part */
        assert_int_equal(sectors_of(bytes, BLOCK, 'o'), 8 - new);
        none += new == 0;
        some += new > 0 && new < 8;
        lim__sim_close(b.sim);
    }
    assert_true(none > 0 && some > 0);
}

static void test_syncs_that_succeeded_are_counted(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    int file = synced_file(&b, 1, 'o');
    uint64_t before = lim__sim_disk_syncs(b.os);
    sync_file(&b, file);
    lim__sim_disk_fail_at_call(b.os, 1, EIO);
    assert_int_equal(b.os->file_sync(b.os, file), -EIO);
    lim__sim_kill_host(b.sim, b.os);
    restart(&b);
    sync_file(&b, opened(&b, "/d/f", 0));
    assert_int_equal(lim__sim_disk_syncs(b.os), before + 2);
    lim__sim_close(b.sim);
}

/* ---- rot, time, history ---- */

static void test_a_flipped_bit_is_seen_by_everybody_and_stays(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    b.os->file_close(b.os, synced_file(&b, BLOCK + 1, 'o'));
    assert_int_equal(lim__sim_disk_flip(b.os, "/d/none", 0), -ENOENT);
    assert_int_equal(lim__sim_disk_flip(b.os, "/d", 0), -EISDIR);
    assert_int_equal(lim__sim_disk_flip(b.os, "/d/f", 8 * (BLOCK + 1)), -ERANGE);
    assert_int_equal(lim__sim_disk_flip(b.os, "/d/f", 8 * (BLOCK + 1) - 8), 0);
    assert_int_equal(lim__sim_disk_flip(b.os, "/d/f", 8 * 100 + 3), 0);
    for (int round = 0; round < 2; round++) {
        for (uint32_t flags = 0; flags <= LIM__FILE_DIRECT; flags += LIM__FILE_DIRECT) {
            int file = opened(&b, "/d/f", flags);
            static uint8_t bytes[2 * BLOCK] __attribute__((aligned(LIM__FILE_BLOCK)));
            assert_int_equal(b.os->file_read(b.os, file, bytes, sizeof bytes, 0), BLOCK + 1);
            assert_int_equal(bytes[BLOCK], 'o' ^ 1);
            assert_int_equal(bytes[100], 'o' ^ 8);
            assert_int_equal(bytes[99], 'o');
            b.os->file_close(b.os, file);
        }
        put(&b, opened(&b, "/d/f", LIM__FILE_WRITE), "x", 1, 2000); /* another sector of its page is unsynced */
        lose_power(&b);
    }
    void *contents;
    size_t len;
    assert_int_equal(lim__sim_disk_read(b.os, "/d/f", &contents, &len), 0);
    assert_int_equal(len, BLOCK + 1);
    assert_int_equal(((uint8_t *)contents)[100], 'o' ^ 8);
    free(contents);
    assert_int_equal(lim__sim_disk_read(b.os, "/none", &contents, &len), -ENOENT);
    lim__sim_close(b.sim);
}

static void test_rot_is_under_every_cache(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    int file = synced_file(&b, 2 * BLOCK, 'o');
    set_manners(&b, keep_nothing);
    put(&b, file, blocks_of('n'), BLOCK, 0);
    lim__sim_disk_fail_at_call(b.os, 1, EIO);
    assert_int_equal(b.os->file_sync(b.os, file), -EIO);
    put(&b, file, "x", 1, BLOCK);
    assert_int_equal(lim__sim_disk_flip(b.os, "/d/f", 8 * 100), 0); /* where the page cache lies: it forgets the page */
    assert_int_equal(lim__sim_disk_flip(b.os, "/d/f", 8 * (2 * BLOCK - 1)), 0); /* where one sector is unsynced */
    const uint8_t *bytes = shown(&b, "/d/f", 0, 2 * BLOCK);
    assert_int_equal(bytes[99], 'o');
    assert_int_equal(bytes[100], 'o' ^ 1);
    assert_int_equal(bytes[BLOCK], 'x');
    assert_int_equal(bytes[2 * BLOCK - 1], 'o' ^ 1);
    lose_power(&b);
    bytes = shown(&b, "/d/f", 0, 2 * BLOCK);
    assert_int_equal(bytes[100], 'o' ^ 1);
    assert_int_equal(bytes[BLOCK], 'o');
    assert_int_equal(bytes[2 * BLOCK - 1], 'o' ^ 1);
    lim__sim_close(b.sim);
}

static void slow(lim__sim_disk *disk)
{
    disk->write_min_ns = 1000;
    disk->write_max_ns = 2000;
    disk->sync_min_ns = 50000;
    disk->sync_max_ns = 60000;
}

static void test_writing_and_syncing_take_time(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    int file = synced_file(&b, 1, 'o');
    set_manners(&b, slow);
    uint64_t before = lim__sim_now(b.sim);
    put(&b, file, "x", 1, 0);
    assert_in_range(lim__sim_now(b.sim) - before, 1000, 2000);
    before = lim__sim_now(b.sim);
    sync_file(&b, file);
    assert_in_range(lim__sim_now(b.sim) - before, 50000, 60000);
    lim__sim_close(b.sim);
}

/* A life with everything in it; every choice is the seed's. */
static uint64_t history_of(uint64_t seed, FILE *trace)
{
    struct box b;
    box_open(&b, seed);
    lim__sim_trace(b.sim, trace);
    lim__rng *script = lim__sim_rng(b.sim);
    lim__sim_disk disk = lim__sim_disk_get(b.os);
    disk.short_write_permille = disk.write_error_permille = disk.sync_error_permille = disk.read_error_permille = 100;
    lim__sim_disk_set(b.os, &disk);
    for (int i = 0; i < 100; i++) {
        if (lim__rng_chance(script, 100))
            lim__sim_disk_fail_at_call(b.os, lim__rng_range(script, 1, 20), lim__rng_chance(script, 500) ? EIO : 0);
        every_call(&b, 0);
        if (lim__rng_chance(script, 200))
            lim__sim_power_off(b.sim, b.os);
        b.os = lim__sim_host(b.sim, "m");
        int file = b.os->file_open(b.os, "/d/kept", NEW);
        b.os->file_write(b.os, file, blocks_of(i), lim__rng_range(script, 1, 4 * BLOCK), lim__rng_below(script, BLOCK));
        b.os->file_close(b.os, file);
    }
    uint64_t hash = lim__sim_hash(b.sim);
    lim__sim_close(b.sim);
    return hash;
}

static void test_a_seed_has_one_history(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        FILE *files[2] = { tmpfile(), tmpfile() };
        assert_true(files[0] && files[1]);
        uint64_t hash = history_of(seed, files[0]);
        assert_int_equal(history_of(seed, files[1]), hash);
        assert_int_not_equal(history_of(seed + 1000, NULL), hash);
        assert_true(ftell(files[0]) > 10000);
        assert_int_equal(ftell(files[0]), ftell(files[1]));
        rewind(files[0]);
        rewind(files[1]);
        for (int c = fgetc(files[0]); c != EOF; c = fgetc(files[0]))
            assert_int_equal(fgetc(files[1]), c);
        fclose(files[0]);
        fclose(files[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_after_a_failed_sync_the_cache_lies_and_direct_reads_do_not),
        cmocka_unit_test(test_a_direct_write_has_no_cache_that_could_lie),
        cmocka_unit_test(test_a_page_that_lies_is_written_whole_when_it_is_written_again),
        cmocka_unit_test(test_a_failed_direct_write_may_have_written_any_of_it),
        cmocka_unit_test(test_a_failed_cached_write_has_written_nothing),
        cmocka_unit_test(test_reads_fail_and_writes_are_short_by_the_disks_manners),
        cmocka_unit_test(test_a_full_disk_is_short_then_enospc_and_heals),
        cmocka_unit_test(test_replacing_a_file_gives_its_space_back),
        cmocka_unit_test(test_each_call_fails_once_when_its_turn_has_come),
        cmocka_unit_test(test_each_call_can_be_a_programs_last),
        cmocka_unit_test(test_a_write_that_was_the_last_call_happened_in_part),
        cmocka_unit_test(test_syncs_that_succeeded_are_counted),
        cmocka_unit_test(test_a_flipped_bit_is_seen_by_everybody_and_stays),
        cmocka_unit_test(test_rot_is_under_every_cache),
        cmocka_unit_test(test_writing_and_syncing_take_time),
        cmocka_unit_test(test_a_seed_has_one_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
