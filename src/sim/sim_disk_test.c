/* SPDX-License-Identifier: Apache-2.0
 * sim_disk_test.c - the simulated disk and death: what was synced is there after every one, and what was not is lost,
 * torn, reordered or kept, each in some seed. A manner of losing that no seed shows would test nothing. */
#include "sim/disk_box.h"

/* ---- deaths ---- */

static void test_a_killed_program_leaves_what_it_wrote(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    put(&b, opened(&b, "/d/f", NEW), "cached", 6, 0);
    put(&b, opened(&b, "/d/f", DIRECT), blocks_of('d'), BLOCK, BLOCK);
    lim__sim_kill_host(b.sim, b.os);
    restart(&b);
    const uint8_t *bytes = shown(&b, "/d/f", 0, 2 * BLOCK);
    assert_memory_equal(bytes, "cached", 6);
    assert_int_equal(sectors_of(bytes + BLOCK, BLOCK, 'd'), 8);
    lim__sim_close(b.sim);
}

static void test_a_dead_programs_calls_are_ebadf_and_change_nothing(void **state)
{
    (void)state;
    struct box b;
    char byte;
    box_open(&b, 1);
    int file = synced_file(&b, BLOCK, 'o');
    lim__sim_kill_host(b.sim, b.os);
    uint64_t hash = lim__sim_hash(b.sim), calls = lim__sim_disk_calls(b.os);
    assert_int_equal(b.os->file_open(b.os, "/d/g", NEW), -EBADF);
    assert_int_equal(b.os->file_read(b.os, file, &byte, 1, 0), -EBADF);
    assert_int_equal(b.os->file_write(b.os, file, "x", 1, 0), -EBADF);
    assert_int_equal(b.os->file_sync(b.os, file), -EBADF);
    assert_int_equal(b.os->file_size(b.os, file), -EBADF);
    assert_int_equal(b.os->file_truncate(b.os, file, 0), -EBADF);
    assert_int_equal(b.os->file_lock(b.os, file), -EBADF);
    assert_int_equal(b.os->file_rename(b.os, "/d/f", "/d/g"), -EBADF);
    assert_int_equal(b.os->file_remove(b.os, "/d/f"), -EBADF);
    assert_int_equal(b.os->dir_create(b.os, "/e"), -EBADF);
    assert_int_equal(b.os->dir_sync(b.os, "/d"), -EBADF);
    assert_int_equal(b.os->dir_list(b.os, "/d", NULL, NULL), -EBADF);
    assert_int_equal(b.os->disk_free(b.os, "/d"), -EBADF);
    b.os->file_close(b.os, file);
    assert_int_equal(lim__sim_hash(b.sim), hash);
    assert_int_equal(lim__sim_disk_calls(b.os), calls);
    restart(&b);
    assert_int_equal(sectors_of(shown(&b, "/d/f", 0, BLOCK), BLOCK, 'o'), 8);
    lim__sim_close(b.sim);
}

static void test_locks_die_with_their_program(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    int file = synced_file(&b, 1, 'x');
    assert_int_equal(b.os->file_lock(b.os, file), 0);
    assert_int_equal(b.os->file_lock(b.os, opened(&b, "/d/f", 0)), -EAGAIN);
    lim__sim_kill_host(b.sim, b.os);
    restart(&b);
    assert_int_equal(b.os->file_lock(b.os, opened(&b, "/d/f", 0)), 0);
    lose_power(&b);
    assert_int_equal(b.os->file_lock(b.os, opened(&b, "/d/f", 0)), 0);
    lim__sim_close(b.sim);
}

static void test_what_was_synced_survives_every_death(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        int file = synced_file(&b, 3 * BLOCK, 'o'), direct = opened(&b, "/d/f", DIRECT);
        put(&b, file, "some", 4, 100);
        put(&b, direct, blocks_of('d'), BLOCK, BLOCK);
        assert_int_equal(b.os->file_truncate(b.os, file, 2 * BLOCK + 7), 0);
        sync_file(&b, direct);
        lim__sim_kill_host(b.sim, b.os);
        lim__sim_power_off(b.sim, b.os);
        lim__sim_power_off(b.sim, b.os);
        restart(&b);
        assert_int_equal(size_of(&b, "/d/f"), 2 * BLOCK + 7);
        const uint8_t *bytes = shown(&b, "/d/f", 0, 2 * BLOCK + 7);
        assert_memory_equal(bytes + 99, "osomeo", 6);
        assert_int_equal(sectors_of(bytes + BLOCK, BLOCK, 'd'), 8);
        assert_memory_equal(bytes + 2 * BLOCK - 1, "dooooooo", 8);
        lim__sim_close(b.sim);
    }
}

static void test_a_power_loss_keeps_nothing_or_everything_if_told(void **state)
{
    (void)state;
    for (int everything = 0; everything < 2; everything++) {
        struct box b;
        box_open(&b, 1);
        int file = synced_file(&b, BLOCK, 'o');
        set_manners(&b, everything ? keep_everything : keep_nothing);
        put(&b, file, blocks_of('n'), 2 * BLOCK, 0);
        put(&b, opened(&b, "/d/g", NEW), "g", 1, 0);
        lose_power(&b);
        assert_int_equal(size_of(&b, "/d/f"), everything ? 2 * BLOCK : BLOCK);
        assert_int_equal(sectors_of(shown(&b, "/d/f", 0, BLOCK), BLOCK, everything ? 'n' : 'o'), 8);
        assert_int_equal(exists(&b, "/d/g"), everything);
        if (everything)
            assert_memory_equal(shown(&b, "/d/g", 0, 1), "g", 1);
        lim__sim_close(b.sim);
    }
}

/* ---- manners of losing bytes ---- */

static void test_an_unsynced_write_is_lost_kept_or_torn_at_sectors(void **state)
{
    (void)state;
    int lost = 0, kept = 0, torn = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        int file = synced_file(&b, 2 * BLOCK, 'o');
        if (seed % 2)
            put(&b, file, blocks_of('n'), BLOCK + 100, 256); /* through the cache: at any byte */
        else
            put(&b, opened(&b, "/d/f", DIRECT), blocks_of('n'), BLOCK, 0);
        lose_power(&b);
        const uint8_t *bytes = shown(&b, "/d/f", 0, 2 * BLOCK);
        int whole = seed % 2 ? 7 : 8; /* and a part at each end, in a sector that is new or old as a whole */
        int new = sectors_of(bytes, 2 * BLOCK, 'n'), old = sectors_of(bytes, 2 * BLOCK, 'o');
        if (seed % 2) {
            bool first = bytes[SECTOR - 1] == 'n', last = bytes[BLOCK + 256 + 99] == 'n';
            assert_int_equal(bytes[256], first ? 'n' : 'o');
            assert_int_equal(bytes[255], 'o');
            assert_int_equal(bytes[BLOCK], last ? 'n' : 'o');
            assert_int_equal(bytes[BLOCK + 256 + 100], 'o');
            assert_int_equal(new + old + first + last, 16);
        } else {
            assert_int_equal(new + old, 16);
        }
        lost += new == 0;
        kept += new == whole;
        torn += new > 0 && new < whole;
        lim__sim_close(b.sim);
    }
    assert_true(lost > SEEDS / 10 && kept > SEEDS / 10 && torn > SEEDS / 10);
}

static void test_later_writes_may_survive_earlier_ones(void **state)
{
    (void)state;
    int seen[4] = { 0 }, versions[3] = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        int file = synced_file(&b, 2 * BLOCK, 'o');
        put(&b, file, blocks_of('1'), SECTOR, 0);
        put(&b, file, blocks_of('2'), SECTOR, BLOCK);
        put(&b, file, blocks_of('3'), SECTOR, 0); /* over the first: any of three versions may be there */
        lose_power(&b);
        const uint8_t *bytes = shown(&b, "/d/f", 0, 2 * BLOCK);
        seen[(bytes[0] != 'o') * 2 + (bytes[BLOCK] != 'o')]++;
        versions[bytes[0] == 'o' ? 0 : bytes[0] == '1' ? 1 : 2]++;
        assert_int_equal(sectors_of(bytes, SECTOR, bytes[0]), 1);
        lim__sim_close(b.sim);
    }
    for (int i = 0; i < 4; i++)
        assert_true(seen[i] > SEEDS / 50);
    for (int i = 0; i < 3; i++)
        assert_true(versions[i] > SEEDS / 50);
}

static void test_within_a_sector_nothing_survives_what_was_before_it(void **state)
{
    (void)state;
    int lengths[9] = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        int file = synced_file(&b, BLOCK, '.');
        for (uint64_t i = 0; i < 8; i++)
            put(&b, file, &"abcdefgh"[i], 1, 10 + i);
        lose_power(&b);
        const uint8_t *bytes = shown(&b, "/d/f", 0, BLOCK);
        size_t n = 0;
        while (n < 8 && bytes[10 + n] == (uint8_t) "abcdefgh"[n])
            n++;
        for (size_t i = n; i < 8; i++)
            assert_int_equal(bytes[10 + i], '.');
        lengths[n]++;
        lim__sim_close(b.sim);
    }
    assert_true(lengths[8] > 0 && lengths[7] > 0 && lengths[6] > 0);
}

static void test_an_extension_survives_without_its_bytes_or_not_at_all(void **state)
{
    (void)state;
    int none = 0, all = 0, part = 0, holes = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        int file = synced_file(&b, 1000, 'o');
        put(&b, file, blocks_of('n'), 2 * BLOCK, 1000);
        lose_power(&b);
        uint64_t size = size_of(&b, "/d/f");
        assert_in_range(size, 1000, 2 * BLOCK + 1000);
        none += size == 1000;
        all += size == 2 * BLOCK + 1000;
        part += size > 1000 && size < 2 * BLOCK + 1000;
        const uint8_t *bytes = shown(&b, "/d/f", 0, size);
        for (size_t i = 0; i < size; i++)
            assert_true(i < 1000 ? bytes[i] == 'o' : bytes[i] == 'n' || bytes[i] == 0);
        holes += size > 1024 && memchr(bytes + 1024, 0, size - 1024) != NULL;
        lim__sim_close(b.sim);
    }
    assert_true(none > SEEDS / 20 && all > SEEDS / 20 && part > SEEDS / 20 && holes > SEEDS / 20);
}

static void test_what_was_lost_stays_lost_when_the_file_grows_over_it(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        put(&b, synced_file(&b, 1000, 'o'), blocks_of('n'), 2 * BLOCK, 1000);
        lose_power(&b);
        uint64_t size = size_of(&b, "/d/f");
        int file = opened(&b, "/d/f", LIM__FILE_WRITE);
        assert_int_equal(b.os->file_truncate(b.os, file, 4 * BLOCK), 0);
        const uint8_t *bytes = shown(&b, "/d/f", 0, 4 * BLOCK);
        for (size_t i = size; i < 4 * BLOCK; i++)
            assert_int_equal(bytes[i], 0);
        lim__sim_close(b.sim);
    }
}

static void test_an_unsynced_truncation_may_not_have_happened(void **state)
{
    (void)state;
    int undone = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        int file = synced_file(&b, 2 * BLOCK, 'o');
        assert_int_equal(b.os->file_truncate(b.os, file, 100), 0);
        lose_power(&b);
        uint64_t size = size_of(&b, "/d/f");
        assert_true(size == 100 || size == 2 * BLOCK);
        const uint8_t *bytes = shown(&b, "/d/f", 0, size);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(bytes[i], 'o');
        undone += size == 2 * BLOCK;
        lim__sim_close(b.sim);
    }
    assert_in_range(undone, SEEDS / 4, SEEDS * 3 / 4);
}

/* ---- names ---- */

static void test_names_are_lost_unless_their_directory_was_synced(void **state)
{
    (void)state;
    int created = 0, removed = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        synced_file(&b, 100, 'f');
        sync_file(&b, opened(&b, "/d/kept", NEW));
        assert_int_equal(b.os->dir_sync(b.os, "/d"), 0);
        int file = opened(&b, "/d/lost", NEW);
        put(&b, file, "synced", 6, 0);
        sync_file(&b, file);
        assert_int_equal(b.os->file_remove(b.os, "/d/f"), 0);
        assert_false(exists(&b, "/d/f"));
        lose_power(&b);
        assert_true(exists(&b, "/d/kept"));
        created += exists(&b, "/d/lost");
        if (exists(&b, "/d/lost"))
            assert_memory_equal(shown(&b, "/d/lost", 0, 6), "synced", 6);
        removed += !exists(&b, "/d/f");
        if (exists(&b, "/d/f"))
            assert_memory_equal(shown(&b, "/d/f", 0, 100), blocks_of('f'), 100);
        lim__sim_close(b.sim);
    }
    assert_in_range(created, SEEDS / 4, SEEDS * 3 / 4);
    assert_in_range(removed, SEEDS / 4, SEEDS * 3 / 4);
}

static void test_a_rename_happens_as_a_whole_or_not(void **state)
{
    (void)state;
    int happened = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        synced_file(&b, 3, 'o');
        int file = opened(&b, "/d/new", NEW);
        put(&b, file, "new", 3, 0);
        sync_file(&b, file);
        if (seed % 2)
            assert_int_equal(b.os->dir_sync(b.os, "/d"), 0);
        assert_int_equal(b.os->file_rename(b.os, "/d/new", "/d/f"), 0);
        lose_power(&b);
        bool is_new = memcmp(shown(&b, "/d/f", 0, 3), "new", 3) == 0; /* one of the two is always there */
        assert_true(is_new || memcmp(shown(&b, "/d/f", 0, 3), "ooo", 3) == 0);
        if (seed % 2)
            assert_int_equal(exists(&b, "/d/new"), !is_new);
        else if (is_new)
            assert_false(exists(&b, "/d/new"));
        happened += is_new;
        lim__sim_close(b.sim);
    }
    assert_in_range(happened, SEEDS / 4, SEEDS * 3 / 4);
}

static void test_a_renamed_file_is_in_one_directory_or_the_other(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        synced_file(&b, 3, 'o');
        assert_int_equal(b.os->dir_create(b.os, "/e"), 0);
        assert_int_equal(b.os->dir_sync(b.os, "/"), 0);
        assert_int_equal(b.os->file_rename(b.os, "/d/f", "/e/f"), 0);
        if (seed % 3)
            assert_int_equal(b.os->dir_sync(b.os, seed % 3 == 1 ? "/d" : "/e"), 0);
        lose_power(&b);
        assert_int_equal(exists(&b, "/d/f") + exists(&b, "/e/f"), 1);
        if (seed % 3)
            assert_true(exists(&b, "/e/f"));
        lim__sim_close(b.sim);
    }
}

static void test_names_survive_in_any_subset(void **state)
{
    (void)state;
    int seen[8] = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        const char *names[] = { "/d/1", "/d/2", "/d/3" };
        int subset = 0;
        for (int i = 0; i < 3; i++)
            b.os->file_close(b.os, opened(&b, names[i], NEW));
        lose_power(&b);
        for (int i = 0; i < 3; i++)
            subset |= exists(&b, names[i]) << i;
        seen[subset]++;
        lim__sim_close(b.sim);
    }
    for (int i = 0; i < 8; i++)
        assert_true(seen[i] > 0);
}

static void test_a_directory_that_was_lost_takes_its_files_along(void **state)
{
    (void)state;
    int lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        assert_int_equal(b.os->dir_create(b.os, "/d/sub"), 0);
        int file = opened(&b, "/d/sub/f", NEW);
        put(&b, file, "x", 1, 0);
        sync_file(&b, file);
        assert_int_equal(b.os->dir_sync(b.os, "/d/sub"), 0);
        lose_power(&b);
        file = b.os->file_open(b.os, "/d/sub/f", 0);
        assert_true(file >= 0 || file == -ENOENT);
        lost += file < 0;
        lim__sim_close(b.sim);
    }
    assert_in_range(lost, SEEDS / 4, SEEDS * 3 / 4);
}

/* ---- against a model, and in bulk ---- */

enum { MODEL_BYTES = 5 * BLOCK };
struct model {
    uint8_t bytes[MODEL_BYTES];
    size_t size;
};

static void model_step(struct box *b, struct model *m, int file, lim__rng *r)
{
    uint64_t from = lim__rng_below(r, MODEL_BYTES), to = lim__rng_range(r, from, MODEL_BYTES);
    if (lim__rng_chance(r, 200)) {
        assert_int_equal(b->os->file_truncate(b->os, file, from), 0);
        if (from < m->size)
            memset(m->bytes + from, 0, m->size - from);
        m->size = from;
        return;
    }
    const uint8_t *data = blocks_of(lim__rng_chance(r, 300) ? 0 : (int)lim__rng_below(r, 256));
    put(b, file, data, to - from, from);
    memcpy(m->bytes + from, data, to - from);
    m->size = to > m->size && to > from ? to : m->size;
}

static void test_a_file_is_what_a_model_says_after_kills_and_synced_power_losses(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        static struct model m;
        box_open(&b, seed);
        lim__rng *r = lim__sim_rng(b.sim);
        memset(&m, 0, sizeof m);
        b.os->file_close(b.os, synced_file(&b, 0, 0));
        for (int life = 0; life < 6; life++) {
            int file = opened(&b, "/d/f", LIM__FILE_WRITE);
            for (uint64_t i = lim__rng_below(r, 8); i > 0; i--)
                model_step(&b, &m, file, r);
            if (lim__rng_chance(r, 500)) {
                sync_file(&b, file);
                lim__sim_power_off(b.sim, b.os);
            } else {
                lim__sim_kill_host(b.sim, b.os);
            }
            restart(&b);
            assert_int_equal(size_of(&b, "/d/f"), m.size);
            assert_memory_equal(shown(&b, "/d/f", 0, m.size), m.bytes, m.size);
        }
        lim__sim_close(b.sim);
    }
}

static void test_a_hundred_thousand_unsynced_writes_are_no_burden(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, 1);
    int file = synced_file(&b, 1, 'o');
    for (uint64_t i = 0; i < 100000; i++)
        put(&b, file, "record", 6, i * 100);
    put(&b, file, "far", 3, UINT64_C(1) << 40); /* and a file of a terabyte costs what was written */
    lose_power(&b);
    assert_in_range(size_of(&b, "/d/f"), 1, (UINT64_C(1) << 40) + 3);
    lim__sim_close(b.sim);
}

/* ---- a toy: records that are appended, checksummed and synced ---- */

struct record {
    uint64_t number, sum;
    uint8_t body[700]; /* more than a sector, and no multiple of one */
};

static uint64_t record_sum(const struct record *r)
{
    return lim__hash_bytes(lim__bytes(r->body, sizeof r->body), r->number);
}

static void append(struct box *b, int file, uint64_t number)
{
    struct record r;
    memset(&r, 0, sizeof r);
    r.number = number;
    memset(r.body, (int)(number * 7 + 1), sizeof r.body);
    r.sum = record_sum(&r);
    put(b, file, &r, sizeof r, number * sizeof r);
}

/* How many records are there, up to the first that is not whole. */
static uint64_t recover(struct box *b)
{
    void *bytes;
    size_t len, whole = 0;
    assert_int_equal(lim__sim_disk_read(b->os, "/d/f", &bytes, &len), 0);
    for (struct record r; (whole + 1) * sizeof r <= len; whole++) {
        memcpy(&r, (uint8_t *)bytes + whole * sizeof r, sizeof r);
        if (r.number != whole || r.sum != record_sum(&r))
            break;
    }
    free(bytes);
    return whole;
}

static void test_synced_records_survive_and_others_may(void **state)
{
    (void)state;
    int all_lost = 0, some_kept = 0, all_kept = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct box b;
        box_open(&b, seed);
        lim__rng *r = lim__sim_rng(b.sim);
        b.os->file_close(b.os, synced_file(&b, 0, 0));
        uint64_t written = 0, synced = 0;
        for (int life = 0; life < 4; life++) {
            int file = opened(&b, "/d/f", LIM__FILE_WRITE);
            for (uint64_t i = lim__rng_range(r, 1, 6); i > 0; i--)
                append(&b, file, written++);
            if (lim__rng_chance(r, 600)) {
                sync_file(&b, file);
                synced = written;
            }
            for (uint64_t i = lim__rng_below(r, 3); i > 0; i--)
                append(&b, file, written++);
            lose_power(&b);
            uint64_t found = recover(&b);
            assert_in_range(found, synced, written);
            all_lost += written > synced && found == synced;
            some_kept += found > synced && found < written;
            all_kept += written > synced && found == written;
            file = opened(&b, "/d/f", LIM__FILE_WRITE);
            assert_int_equal(b.os->file_truncate(b.os, file, found * sizeof(struct record)), 0);
            sync_file(&b, file);
            written = synced = found;
        }
        lim__sim_close(b.sim);
    }
    assert_true(all_lost > SEEDS / 10 && some_kept > SEEDS / 50 && all_kept > SEEDS / 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_killed_program_leaves_what_it_wrote),
        cmocka_unit_test(test_a_dead_programs_calls_are_ebadf_and_change_nothing),
        cmocka_unit_test(test_locks_die_with_their_program),
        cmocka_unit_test(test_what_was_synced_survives_every_death),
        cmocka_unit_test(test_a_power_loss_keeps_nothing_or_everything_if_told),
        cmocka_unit_test(test_an_unsynced_write_is_lost_kept_or_torn_at_sectors),
        cmocka_unit_test(test_later_writes_may_survive_earlier_ones),
        cmocka_unit_test(test_within_a_sector_nothing_survives_what_was_before_it),
        cmocka_unit_test(test_an_extension_survives_without_its_bytes_or_not_at_all),
        cmocka_unit_test(test_what_was_lost_stays_lost_when_the_file_grows_over_it),
        cmocka_unit_test(test_an_unsynced_truncation_may_not_have_happened),
        cmocka_unit_test(test_names_are_lost_unless_their_directory_was_synced),
        cmocka_unit_test(test_a_rename_happens_as_a_whole_or_not),
        cmocka_unit_test(test_a_renamed_file_is_in_one_directory_or_the_other),
        cmocka_unit_test(test_names_survive_in_any_subset),
        cmocka_unit_test(test_a_directory_that_was_lost_takes_its_files_along),
        cmocka_unit_test(test_a_file_is_what_a_model_says_after_kills_and_synced_power_losses),
        cmocka_unit_test(test_a_hundred_thousand_unsynced_writes_are_no_burden),
        cmocka_unit_test(test_synced_records_survive_and_others_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
