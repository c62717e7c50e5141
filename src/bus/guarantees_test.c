/* SPDX-License-Identifier: Apache-2.0
 * guarantees_test.c - docs/guarantees.md, cell by cell: what is there after what, of each class.
 *
 *             process            machine              rot                 node
 *   memory    nothing            nothing              -                   nothing
 *   os        all of it          a prefix             named, the rest     nothing
 *   disk      all of it          all of it            named, the rest     nothing
 *
 * Cells hold more than messages; tasks, cursors, conversations, schedules and deployments are killed and cut off in the
 * tests beside what they are. */
#include "bus/log_world.h"

enum { MESSAGES = 40, SEEDS = 12 };

static log_world w;

static void publish_all(lim_class wanted)
{
    char text[LOG_TEXT_MAX];
    for (int i = 1; i <= MESSAGES; i++) {
        snprintf(text, sizeof text, "needle-%02d", i);
        lim_receipt r = log_world_publish(&w, text, (lim_publish_opts){ 0 });
        assert_int_equal(r.seq, i);
        assert_int_equal(r.durability, wanted); /* its class is in the receipt */
    }
}

static void open_as(uint64_t seed, lim_sync sync)
{
    lim_channel_opts opts = log_world_opts();
    opts.sync = sync;
    log_world_open(&w, seed, &opts);
    durable_settle(&w.d, 1000000000); /* the channel's own row has been synced */
    publish_all(sync == LIM_SYNC_ALWAYS ? LIM_CLASS_DISK : LIM_CLASS_OS);
}

/* Numbers 1 to n and nothing else. */
static uint32_t what_is_left(void)
{
    char text[LOG_TEXT_MAX];
    uint32_t n = log_world_look(&w, "orders");
    for (uint32_t i = 0; i < n; i++) {
        snprintf(text, sizeof text, "needle-%02u", i + 1);
        assert_int_equal(w.seqs[i], i + 1);
        assert_string_equal(w.texts[i], text);
    }
    return n;
}

/* ---- the process dies ---- */

static void test_what_is_in_memory_is_gone_with_the_process(void **state) /* proves DU9 (memory, process) */
{
    (void)state;
    lim_admission a;
    lim_channel live;
    log_world_open(&w, 1, NULL);
    assert_int_equal(lim_channel_open(w.d.bus, "live", NULL, &live), LIM_OK);
    assert_int_equal(lim_publish(w.d.bus, live, lim__str("x"), NULL, &a), LIM_OK);
    assert_non_null(lim__channel_find(w.d.bus->channels, lim__str("live")));
    durable_kill(&w.d);
    durable_start(&w.d);
    assert_null(lim__channel_find(w.d.bus->channels, lim__str("live")));
    log_world_close(&w);
}

static void test_what_the_system_has_survives_the_process(void **state) /* proves DU9 (os, process) */
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        open_as(seed, seed & 1 ? LIM_SYNC_NEVER : LIM_SYNC_INTERVAL);
        durable_kill(&w.d);
        log_world_start(&w);
        assert_int_equal(what_is_left(), MESSAGES);
        log_world_close(&w);
    }
}

static void test_what_the_disk_has_survives_the_process(void **state) /* proves DU9 (disk, process) */
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        open_as(seed, LIM_SYNC_ALWAYS);
        durable_kill(&w.d);
        log_world_start(&w);
        assert_int_equal(what_is_left(), MESSAGES);
        log_world_close(&w);
    }
}

/* ---- the machine dies ---- */

static void test_what_is_in_memory_is_gone_with_the_machine(void **state) /* proves DU9 (memory, machine) */
{
    (void)state;
    lim_channel live;
    log_world_open(&w, 2, NULL);
    assert_int_equal(lim_channel_open(w.d.bus, "live", NULL, &live), LIM_OK);
    durable_power_off(&w.d);
    durable_start(&w.d);
    assert_null(lim__channel_find(w.d.bus->channels, lim__str("live")));
    log_world_close(&w);
}

static void
test_of_what_the_system_has_the_newest_may_be_gone_with_the_machine(void **state) /* proves DU9 (os, machine) */
{
    (void)state;
    uint32_t least = MESSAGES;
    for (uint64_t seed = 1; seed <= 3 * SEEDS; seed++) {
        open_as(seed, LIM_SYNC_NEVER);
        durable_power_off(&w.d);
        durable_start(&w.d);
        lim_channel_opts same = log_world_opts();
        same.sync = LIM_SYNC_NEVER;
        log_world_channel(&w, "orders", &same); /* not even its row may be there */
        uint32_t left = what_is_left();         /* no hole, nothing wrong */
        least = left < least ? left : least;
        assert_int_equal(log_world_publish(&w, "next", (lim_publish_opts){ 0 }).seq, left + 1);
        log_world_close(&w);
    }
    assert_true(least < MESSAGES); /* the class is right to promise no more */
}

static void test_what_the_disk_has_survives_the_machine(void **state) /* proves DU9 (disk, machine) */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3 * SEEDS; seed++) {
        open_as(seed, LIM_SYNC_ALWAYS);
        durable_power_off(&w.d);
        log_world_start(&w);
        assert_int_equal(what_is_left(), MESSAGES);
        log_world_close(&w);
    }
}

/* ---- the disk rots ---- */

static bool spoil(const char *text)
{
    for (uint32_t segment = 0; segment < 64; segment++) {
        char path[64];
        void *bytes;
        size_t len;
        snprintf(path, sizeof path, "data/%016x.seg", segment);
        if (lim__sim_disk_read(w.d.os, path, &bytes, &len) != 0)
            continue;
        char *at = memmem(bytes, len, text, strlen(text));
        size_t offset = at != NULL ? (size_t)(at - (char *)bytes) : 0;
        free(bytes);
        if (at != NULL)
            return lim__sim_disk_flip(w.d.os, path, offset * 8) == 0;
    }
    return false;
}

static bool each_before(void *ctx, const lim__record *r)
{
    *(uint64_t *)ctx = r->seq;
    return true;
}

/* Message 17 is an error that names it; all others are there. */
static void expect_17_named(void)
{
    lim__log *log;
    uint64_t bad = 0, newest = 0;
    lim__store *store = lim__durable_store(w.d.bus);
    assert_int_equal(lim__log_find(w.d.bus, lim__str("orders"), &log), LIM_OK);
    assert_int_equal(lim__store_read(store, lim__log_stream(log), 1, 0, each_before, &newest, &bad), -EBADMSG);
    assert_int_equal(bad, 17);
    assert_int_equal(newest, 16);
    assert_int_equal(lim__store_read(store, lim__log_stream(log), 18, 0, each_before, &newest, &bad), 0);
    assert_int_equal(newest, MESSAGES + 1);
    lim__log_unref(log);
    lim__store_info info;
    durable_settle(&w.d, 1000000000);
    lim__store_info_get(store, &info);
    assert_true(info.degraded && info.quarantined > 0);
}

static void rot(lim_sync sync, bool while_it_runs)
{
    open_as(7, sync);
    durable_settle(&w.d, 2000000000); /* whatever is to be synced has been, and what comes next says so */
    assert_int_equal(log_world_publish(&w, "the last", (lim_publish_opts){ 0 }).seq, MESSAGES + 1);
    if (while_it_runs) {
        assert_true(spoil("needle-17"));
    } else {
        durable_kill(&w.d);
        w.d.os = lim__sim_host(w.d.sim, "host");
        assert_true(spoil("needle-17"));
        log_world_start(&w);
    }
    expect_17_named();
    log_world_close(&w);
}

static void test_what_the_system_has_and_rots_is_found_and_named(void **state) /* proves DU9 (os, rot) */
{
    (void)state;
    rot(LIM_SYNC_INTERVAL, false);
    rot(LIM_SYNC_INTERVAL, true);
}

static void test_what_the_disk_has_and_rots_is_found_and_named(void **state) /* proves DU9 (disk, rot) */
{
    (void)state;
    rot(LIM_SYNC_ALWAYS, false);
    rot(LIM_SYNC_ALWAYS, true);
}

/* ---- the node is lost ---- */

static void
test_a_lost_node_takes_everything_with_it_and_no_receipt_says_otherwise(void **state) /* proves DU9 (node) */
{
    (void)state;
    lim__log *log;
    open_as(9, LIM_SYNC_ALWAYS);
    assert_int_equal(lim__durable_class(w.d.bus), LIM__CLASS_DISK); /* and no class that spans nodes */
    log_world_close(&w);
    durable_open(&w.d, 10); /* another machine */
    assert_int_equal(lim__log_find(w.d.bus, lim__str("orders"), &log), LIM_E_NOTFOUND);
    durable_close(&w.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_in_memory_is_gone_with_the_process),
        cmocka_unit_test(test_what_the_system_has_survives_the_process),
        cmocka_unit_test(test_what_the_disk_has_survives_the_process),
        cmocka_unit_test(test_what_is_in_memory_is_gone_with_the_machine),
        cmocka_unit_test(test_of_what_the_system_has_the_newest_may_be_gone_with_the_machine),
        cmocka_unit_test(test_what_the_disk_has_survives_the_machine),
        cmocka_unit_test(test_what_the_system_has_and_rots_is_found_and_named),
        cmocka_unit_test(test_what_the_disk_has_and_rots_is_found_and_named),
        cmocka_unit_test(test_a_lost_node_takes_everything_with_it_and_no_receipt_says_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
