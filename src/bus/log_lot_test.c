/* SPDX-License-Identifier: Apache-2.0
 * log_lot_test.c - many messages of one publisher stored as one step: one receipt, one block in memory. */
#include "bus/log_world.h"

static log_world w;

static void on_logged(void *ctx, const lim_receipt *r, const char *detail)
{
    (void)detail;
    log_world_on_receipt(ctx, r);
}

static lim__log *find(const char *name)
{
    lim__log *log;
    assert_int_equal(lim__log_find(w.d.bus, lim__str(name), &log), LIM_OK);
    return log;
}

static void add(lim__log_lot *lot, uint32_t from, uint32_t count)
{
    for (uint32_t i = from; i < from + count; i++) {
        char text[16];
        snprintf(text, sizeof text, "m%u", (unsigned)i);
        assert_true(lim__log_lot_add(lot, lim__bytes(NULL, 0), lim__str(text)));
    }
}

static lim_err offer(const char *name, uint32_t from, uint32_t count)
{
    lim__log *log = find(name);
    lim__log_lot lot;
    assert_true(lim__log_lot_begin(log, 16 * count, &lot));
    lim__log_unref(log);
    add(&lot, from, count);
    lim_err err = lim__log_lot_publish(&lot, on_logged, &w);
    assert_null(lot.log);
    w.offered += err == LIM_OK;
    return err;
}

static lim_receipt publish(uint32_t from, uint32_t count)
{
    assert_int_equal(offer("orders", from, count), LIM_OK);
    log_world_wait(&w);
    return w.receipts[w.told - 1];
}

static void start(uint64_t seed, const lim_channel_opts *opts)
{
    log_world_open(&w, seed, opts);
    durable_settle(&w.d, 1000000000); /* its row is stored */
}

static void test_a_lot_is_one_commit_and_one_receipt(void **state) /* proves DU1 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        start(seed, NULL);
        assert_int_equal(log_world_publish(&w, "m0", (lim_publish_opts){ 0 }).seq, 1);
        uint64_t syncs = lim__sim_disk_syncs(w.d.os);
        lim_receipt r = publish(1, 50);
        assert_int_equal(lim__sim_disk_syncs(w.d.os) - syncs, 1);
        assert_int_equal(r.admission.verdict, LIM_ACCEPT);
        assert_int_equal(r.seq, 2);
        assert_int_equal(r.durability, LIM_CLASS_DISK);
        assert_true(r.at_wall_us > 0);
        assert_int_equal(log_world_publish(&w, "m51", (lim_publish_opts){ 0 }).seq, 52);
        if (seed & 1)
            durable_kill(&w.d);
        else
            durable_power_off(&w.d);
        log_world_start(&w);
        assert_int_equal(log_world_look(&w, "orders"), 52);
        for (uint32_t i = 0; i < 52; i++) {
            char text[16];
            snprintf(text, sizeof text, "m%u", (unsigned)i);
            assert_string_equal(w.texts[i], text);
        }
        log_world_close(&w);
    }
}

static void test_what_is_in_memory_is_the_same_as_messages_and_as_blocks(void **state)
{
    (void)state;
    start(20, NULL);
    assert_int_equal(log_world_publish(&w, "m0", (lim_publish_opts){ 0 }).seq, 1);
    (void)publish(1, 30);
    (void)publish(31, 1);
    lim__log *log = find("orders");
    lim__logged out[64];
    for (uint64_t from = 1; from <= 32; from++) {
        uint32_t n = lim__log_tail(log, from, out, 64);
        assert_int_equal(n, 33 - from);
        for (uint32_t i = 0; i < n; i++) {
            char text[16];
            snprintf(text, sizeof text, "m%u", (unsigned)(from + i - 1));
            assert_int_equal(out[i].seq, from + i);
            assert_true(lim__bytes_eq(lim__msg_bytes(out[i].msg), lim__str(text)));
            lim__msg_unref(out[i].msg);
        }
        lim__log_check(log);
    }
    lim__log_view v;
    uint64_t next = 2;
    lim__log_block *block = lim__log_tail_block(log, 17);
    assert_int_equal(block->first, 2);
    assert_int_equal(block->count, 30);
    for (size_t pos = 0; lim__log_block_next(block, &pos, &v); next++)
        assert_int_equal(v.seq, next);
    assert_int_equal(next, 32);
    assert_null(lim__log_tail_block(log, 1)); /* it went alone */
    assert_null(lim__log_tail_block(log, 33));
    (void)publish(32, 2000); /* which is more than is kept in memory: the oldest blocks go, whoever has one keeps it */
    (void)publish(2032, 2000);
    assert_int_equal(lim__log_tail(log, 17, out, 64), 0);
    assert_int_equal(lim__log_tail(log, 4030, out, 64), 3);
    for (uint32_t i = 0; i < 3; i++)
        lim__msg_unref(out[i].msg);
    size_t pos = 0;
    assert_true(lim__log_block_next(block, &pos, &v));
    assert_true(lim__bytes_eq(v.payload, lim__str("m1")));
    lim__log_block_unref(block);
    lim__log_check(log);
    lim__log_unref(log);
    log_world_close(&w);
}

static uint32_t heard;

static lim_done on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    char text[16];
    (void)bus, (void)ctx;
    snprintf(text, sizeof text, "m%u", (unsigned)heard++);
    assert_true(lim__bytes_eq(d->payload, lim__str(text)));
    return LIM_DONE;
}

static void test_who_does_not_read_gets_each_of_them(void **state) /* proves DU1 */
{
    (void)state;
    start(30, NULL);
    lim_sub_opts opts = { .size = sizeof opts, .handler = { .on_message = on_message } };
    lim_sub sub;
    heard = 0;
    assert_int_equal(lim_subscribe(w.d.bus, "*", &opts, &sub), LIM_OK);
    assert_int_equal(offer("orders", 0, 20), LIM_OK);
    assert_int_equal(heard, 0);
    log_world_wait(&w);
    assert_int_equal(w.receipts[0].admission.matched, 1);
    durable_settle(&w.d, 1000000000);
    assert_int_equal(heard, 20);
    log_world_close(&w);
}

static void test_a_lot_makes_its_own_room_where_only_so_many_are_kept(void **state) /* proves CH12 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.count_max = 10;
    start(40, &opts);
    (void)publish(0, 8);
    (void)publish(8, 8);
    assert_int_equal(log_world_look(&w, "orders"), 10);
    (void)publish(16, 25); /* more than may be kept */
    assert_int_equal(log_world_look(&w, "orders"), 10);
    assert_int_equal(w.seqs[0], 32);
    lim__log *log = find("orders");
    lim__logged out[64];
    assert_int_equal(lim__log_tail(log, 31, out, 64), 0);
    assert_int_equal(lim__log_tail(log, 32, out, 64), 10);
    for (uint32_t i = 0; i < 10; i++)
        lim__msg_unref(out[i].msg);
    lim__log_unref(log);
    durable_kill(&w.d);
    log_world_start(&w);
    assert_int_equal(log_world_look(&w, "orders"), 10);
    log_world_close(&w);
}

static void test_a_channel_that_refuses_what_is_beyond_a_limit_takes_one_by_one(void **state) /* proves PR1 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.count_max = 10;
    opts.overflow = LIM_OVERFLOW_REJECT;
    start(50, &opts);
    lim__log *log = find("orders");
    lim__log_lot lot;
    assert_false(lim__log_lot_begin(log, 100, &lot));
    assert_null(lot.log);
    lim__log_unref(log);
    log_world_close(&w);
}

static void test_a_lot_is_full_at_some_bytes_but_takes_any_first_one(void **state)
{
    (void)state;
    static char large[400 << 10];
    memset(large, 'x', sizeof large);
    start(60, NULL);
    lim__log *log = find("orders");
    lim__log_lot lot;
    assert_true(lim__log_lot_begin(log, 0, &lot));
    assert_true(lim__log_lot_add(&lot, lim__bytes(NULL, 0), lim__bytes(large, sizeof large)));
    assert_false(lim__log_lot_add(&lot, lim__bytes(NULL, 0), lim__str("x")));
    assert_int_equal(lim__log_lot_publish(&lot, on_logged, &w), LIM_OK);
    w.offered++;
    log_world_wait(&w);
    assert_int_equal(w.receipts[0].seq, 1);
    assert_true(lim__log_lot_begin(log, 0, &lot));
    add(&lot, 0, 3);
    lim__log_lot_drop(&lot); /* nobody hears of it */
    assert_int_equal(publish(0, 3).seq, 2);
    lim__log_unref(log);
    log_world_close(&w);
}

static void test_a_small_lot_keeps_no_room_for_a_large_one(void **state)
{
    (void)state;
    start(65, NULL);
    lim__log *log = find("orders");
    lim__log_lot lot;
    assert_true(lim__log_lot_begin(log, 100000, &lot));
    add(&lot, 0, 10);
    assert_int_equal(lim__log_lot_publish(&lot, on_logged, &w), LIM_OK);
    w.offered++;
    log_world_wait(&w);
    assert_in_range(log->tail_bytes, 10, 4096);
    assert_int_equal(log_world_look(&w, "orders"), 10);
    assert_string_equal(w.texts[9], "m9");
    lim__log_unref(log);
    log_world_close(&w);
}

static void test_a_lot_to_a_channel_that_was_deleted_is_not_taken(void **state)
{
    (void)state;
    start(70, NULL);
    lim__log *log = find("orders");
    lim__log_lot lot;
    assert_true(lim__log_lot_begin(log, 100, &lot));
    add(&lot, 0, 5);
    assert_int_equal(lim__log_delete(log, &(lim__log_changed){ 0 }), LIM_OK);
    durable_settle(&w.d, 1000000000);
    assert_int_equal(lim__log_lot_publish(&lot, on_logged, &w), LIM_E_CLOSED);
    assert_null(lot.log);
    assert_int_equal(w.told, 0);
    lim__log_unref(log);
    log_world_close(&w);
}

static void test_a_full_disk_refuses_a_lot_as_a_whole(void **state) /* proves DU3 */
{
    (void)state;
    start(80, NULL);
    lim__sim_disk disk = lim__sim_disk_get(w.d.os);
    disk.capacity = 8 << 20;
    lim__sim_disk_set(w.d.os, &disk);
    uint32_t stored = 0;
    lim_receipt r = { .admission = { .verdict = LIM_ACCEPT } };
    for (int i = 0; i < 3000 && r.admission.verdict == LIM_ACCEPT; i++) {
        static char big[3000];
        lim__log *log = find("orders");
        lim__log_lot lot;
        assert_true(lim__log_lot_begin(log, 3 * sizeof big, &lot));
        lim__log_unref(log);
        for (int n = 0; n < 3; n++)
            assert_true(lim__log_lot_add(&lot, lim__bytes(NULL, 0), lim__bytes(big, sizeof big)));
        assert_int_equal(lim__log_lot_publish(&lot, on_logged, &w), LIM_OK);
        w.offered++;
        log_world_wait(&w);
        r = w.receipts[w.told - 1];
        stored += r.admission.verdict == LIM_ACCEPT ? 3 : 0;
    }
    assert_int_equal(r.admission.why, LIM_WHY_DISK_FULL);
    assert_true(r.admission.retry_after_ms > 0);
    assert_int_equal(log_world_look(&w, "orders"), stored);
    log_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lot_is_one_commit_and_one_receipt),
        cmocka_unit_test(test_what_is_in_memory_is_the_same_as_messages_and_as_blocks),
        cmocka_unit_test(test_who_does_not_read_gets_each_of_them),
        cmocka_unit_test(test_a_lot_makes_its_own_room_where_only_so_many_are_kept),
        cmocka_unit_test(test_a_channel_that_refuses_what_is_beyond_a_limit_takes_one_by_one),
        cmocka_unit_test(test_a_lot_is_full_at_some_bytes_but_takes_any_first_one),
        cmocka_unit_test(test_a_small_lot_keeps_no_room_for_a_large_one),
        cmocka_unit_test(test_a_lot_to_a_channel_that_was_deleted_is_not_taken),
        cmocka_unit_test(test_a_full_disk_refuses_a_lot_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
