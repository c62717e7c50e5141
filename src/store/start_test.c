/* SPDX-License-Identifier: Apache-2.0
 * start_test.c - how much of the log a start after a kill has to read: a bounded part, however much there is. */
#include "store/test_world.h"

enum {
    MiB = 1 << 20,
    RECORD = 64 << 10,
    LOG_MAX = 40 * MiB /* what may be behind the index, and what is on its way */
};

static void fill(world *w, uint64_t bytes)
{
    static char data[RECORD];
    for (uint64_t n = 0; n < bytes; n += RECORD) {
        lim__batch *b = lim__batch_new();
        lim_bytes part = { data, sizeof data };
        lim__batch_append(b, 1 + n / RECORD % 3, lim__str(""), &part, 1);
        lim__batch_put(b, 1, text("row %u", (unsigned)(n / RECORD) % 50), lim__str("value"));
        lim__batch_sync(b, LIM__SYNC_NEVER);
        assert_int_equal(commit(w, b).how, LIM__COMMITTED);
    }
}

/* A copy as a kill would leave it, opened: what its start read. */
static lim__store_info start_of_copy(const world *w)
{
    char command[300];
    world killed = { .opts = w->opts };
    lim__store_info info;
    snprintf(killed.dir, sizeof killed.dir, "%.50s-killed", w->dir);
    snprintf(command, sizeof command, "cp -r %s %s", w->dir, killed.dir);
    assert_int_equal(system(command), 0);
    killed.opts.dir = killed.dir;
    killed.opts.ctx = &killed;
    open_store(&killed);
    lim__store_info_get(killed.store, &info);
    lim__store_close(killed.store);
    remove_dir(killed.dir);
    return info;
}

static void test_a_start_after_a_kill_reads_a_bounded_part_of_the_log(void **state) /* proves DU8 */
{
    world *w = *state;
    uint64_t written = 0;
    lim__store_close(w->store);
    w->opts.segment_bytes = 4 * MiB; /* quick */
    open_store(w);
    for (int round = 1; round <= 2; round++) {
        fill(w, (uint64_t)round * 36 * MiB);
        written += (uint64_t)round * 36 * MiB;
        lim__store_info info = start_of_copy(w);
        assert_int_equal(info.records, written / RECORD);
        if (info.start_bytes > LOG_MAX)
            fail_msg("of %u MiB the start read %u", (unsigned)(written / MiB), (unsigned)(info.start_bytes / MiB));
        assert_true(info.start_batches <= info.start_bytes / 4096);
    }
}

static void test_a_start_after_a_close_reads_nothing_of_the_log(void **state) /* proves DU8 */
{
    world *w = *state;
    lim__store_info info;
    fill(w, 4 * MiB);
    lim__store_close(w->store);
    open_store(w);
    lim__store_info_get(w->store, &info);
    assert_int_equal(info.start_bytes, 0);
    assert_int_equal(info.records, 4 * MiB / RECORD);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up_lmdb, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_a_start_after_a_kill_reads_a_bounded_part_of_the_log),
        EACH(test_a_start_after_a_close_reads_nothing_of_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
