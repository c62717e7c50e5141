/* SPDX-License-Identifier: Apache-2.0
 * log_test.c - durable channels: what is acknowledged is there, in order, once per key. */
#include "bus/log_world.h"

static log_world w;

static lim_publish_opts with_key(const char *key)
{
    return (lim_publish_opts){ .idempotency_key = key };
}

static void test_what_was_acknowledged_is_there_after_a_kill(void **state) /* proves DU1 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        log_world_open(&w, seed, NULL);
        for (uint32_t i = 0; i < 100; i++) {
            char text[16];
            snprintf(text, sizeof text, "m%u", (unsigned)i);
            assert_int_equal(log_world_offer(&w, text, (lim_publish_opts){ 0 }), LIM_OK);
        }
        log_world_wait(&w);
        for (uint32_t i = 0; i < 100; i++) {
            assert_int_equal(w.receipts[i].admission.verdict, LIM_ACCEPT);
            assert_int_equal(w.receipts[i].seq, i + 1);
            assert_int_equal(w.receipts[i].durability, LIM_CLASS_DISK);
        }
        if (seed & 1)
            durable_kill(&w.d);
        else
            durable_power_off(&w.d);
        log_world_start(&w);
        assert_int_equal(log_world_look(&w, "orders"), 100);
        assert_string_equal(w.texts[99], "m99");
        assert_int_equal(log_world_publish(&w, "next", (lim_publish_opts){ 0 }).seq, 101);
        log_world_close(&w);
    }
}

static void test_a_duplicate_gets_the_original_receipt_and_is_not_stored(void **state) /* proves XO1 */
{
    (void)state;
    log_world_open(&w, 3, NULL);
    assert_int_equal(log_world_publish(&w, "zero", (lim_publish_opts){ 0 }).seq, 1);
    assert_int_equal(log_world_offer(&w, "first", with_key("k")), LIM_OK);
    assert_int_equal(log_world_offer(&w, "again", with_key("k")), LIM_OK); /* while the first is in progress */
    assert_int_equal(log_world_offer(&w, "other", with_key("l")), LIM_OK);
    log_world_wait(&w);
    assert_int_equal(w.receipts[1].seq, 2);
    assert_false(w.receipts[1].duplicate);
    assert_int_equal(w.receipts[2].seq, 2);
    assert_true(w.receipts[2].duplicate);
    assert_int_equal(w.receipts[2].at_wall_us, w.receipts[1].at_wall_us);
    assert_int_equal(w.receipts[3].seq, 3);
    durable_kill(&w.d);
    log_world_start(&w);
    lim_receipt r = log_world_publish(&w, "after the restart", with_key("k"));
    assert_true(r.duplicate);
    assert_int_equal(r.seq, 2);
    assert_int_equal(r.admission.verdict, LIM_ACCEPT);
    assert_int_equal(log_world_look(&w, "orders"), 3);
    log_world_close(&w);
}

static void test_a_key_is_forgotten_after_its_window(void **state)
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.window_ms = 5000;
    log_world_open(&w, 4, &opts);
    assert_int_equal(log_world_publish(&w, "a", with_key("k")).seq, 1);
    durable_settle(&w.d, 4000000000);
    assert_true(log_world_publish(&w, "b", with_key("k")).duplicate);
    durable_settle(&w.d, 2000000000); /* not slid by the duplicate */
    assert_int_equal(log_world_publish(&w, "c", with_key("k")).seq, 2);
    durable_kill(&w.d); /* the window is loaded, and goes on */
    log_world_start(&w);
    assert_true(log_world_publish(&w, "d", with_key("k")).duplicate);
    durable_settle(&w.d, 6000000000);
    assert_int_equal(log_world_publish(&w, "e", with_key("k")).seq, 3);
    log_world_close(&w);
}

static void test_a_sliding_window_begins_anew_with_each_duplicate(void **state)
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.window_ms = 5000;
    opts.window_slides = true;
    log_world_open(&w, 5, &opts);
    assert_int_equal(log_world_publish(&w, "a", with_key("k")).seq, 1);
    for (int i = 0; i < 5; i++) {
        durable_settle(&w.d, 4000000000);
        assert_true(log_world_publish(&w, "b", with_key("k")).duplicate);
    }
    durable_settle(&w.d, 6000000000);
    assert_int_equal(log_world_publish(&w, "c", with_key("k")).seq, 2);
    log_world_close(&w);
}

static void test_a_full_window_refuses_new_keys_and_still_knows_the_old_ones(void **state)
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.window_keys = 2;
    log_world_open(&w, 6, &opts);
    assert_int_equal(log_world_publish(&w, "a", with_key("k1")).seq, 1);
    assert_int_equal(log_world_publish(&w, "b", with_key("k2")).seq, 2);
    lim_receipt r = log_world_publish(&w, "c", with_key("k3"));
    assert_int_equal(r.admission.verdict, LIM_REJECT);
    assert_int_equal(r.admission.why, LIM_WHY_KEYS_FULL);
    assert_int_equal(r.admission.limit, 2);
    assert_true(log_world_publish(&w, "d", with_key("k1")).duplicate);
    assert_int_equal(log_world_publish(&w, "e", (lim_publish_opts){ 0 }).seq, 3);
    log_world_close(&w);
}

static void test_a_window_that_forgets_takes_new_keys_and_lets_the_oldest_go(void **state)
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.window_keys = 2;
    opts.window_forgets = true;
    log_world_open(&w, 7, &opts);
    assert_int_equal(log_world_publish(&w, "a", with_key("k1")).seq, 1);
    assert_int_equal(log_world_publish(&w, "b", with_key("k2")).seq, 2);
    assert_int_equal(log_world_publish(&w, "c", with_key("k3")).seq, 3);
    durable_settle(&w.d, 1000000000);
    assert_true(log_world_publish(&w, "d", with_key("k3")).duplicate);
    assert_int_equal(log_world_publish(&w, "e", with_key("k1")).seq, 4);
    log_world_close(&w);
}

static void test_a_window_is_bounded_in_bytes_too(void **state) /* proves XO1 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.window_bytes = 2 * (LIM__WINDOW_ROW + 2) + 5; /* two keys of two bytes */
    log_world_open(&w, 17, &opts);
    assert_int_equal(log_world_publish(&w, "a", with_key("k1")).seq, 1);
    assert_int_equal(log_world_offer(&w, "b", with_key("k2")), LIM_OK);
    assert_int_equal(log_world_offer(&w, "c", with_key("k3")), LIM_OK); /* beside one on its way */
    log_world_wait(&w);
    const lim_receipt *r = &w.receipts[w.told - 1];
    assert_int_equal(r->admission.why, LIM_WHY_KEYS_FULL);
    assert_int_equal(r->admission.limit, opts.window_bytes);
    durable_kill(&w.d);
    log_world_start(&w);
    assert_int_equal(log_world_publish(&w, "d", with_key("k3")).admission.why, LIM_WHY_KEYS_FULL);
    assert_true(log_world_publish(&w, "e", with_key("k1")).duplicate);
    opts.window_forgets = true;
    log_world_channel(&w, "forgets", &opts);
    for (int i = 0; i < 50; i++) {
        char key[8];
        snprintf(key, sizeof key, "%02d", i);
        assert_int_equal(log_world_publish(&w, "x", with_key(key)).seq, i + 1);
        durable_settle(&w.d, 100000000);
    }
    assert_true(log_world_publish(&w, "y", with_key("49")).duplicate);
    assert_true(log_world_publish(&w, "y", with_key("48")).duplicate);
    assert_int_equal(log_world_publish(&w, "y", with_key("47")).seq, 51);
    log_world_close(&w);
}

static void test_duplicates_without_end_take_no_room(void **state) /* proves XO1 */
{
    (void)state;
    lim__log *log;
    lim_channel_opts opts = log_world_opts();
    opts.window_ms = 16000;
    opts.window_slides = true;
    log_world_open(&w, 18, &opts);
    assert_int_equal(log_world_publish(&w, "a", with_key("k")).seq, 1);
    for (int i = 0; i < 400; i++) {
        durable_settle(&w.d, 100000000);
        assert_true(log_world_publish(&w, "b", with_key("k")).duplicate);
    }
    assert_int_equal(lim__log_find(w.d.bus, lim__str("orders"), &log), LIM_OK);
    assert_int_equal(log->window_count, 1);
    assert_in_range(lim__buf_len(&log->window), 1, 18 * 10);
    lim__log_unref(log);
    log_world_close(&w);
}

static void test_keys_are_of_one_channel(void **state) /* a defect of the earlier library: one name space for all */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    log_world_open(&w, 8, NULL);
    assert_int_equal(log_world_publish(&w, "a", with_key("k")).seq, 1);
    log_world_channel(&w, "others", &opts);
    assert_false(log_world_publish(&w, "a", with_key("k")).duplicate);
    assert_int_equal(log_world_look(&w, "others"), 1);
    log_world_close(&w);
}

static void test_a_publish_may_expect_the_last_number(void **state)
{
    (void)state;
    log_world_open(&w, 9, NULL);
    lim_publish_opts none = { .expect_last = true, .last = 0 }, one = { .expect_last = true, .last = 1 };
    assert_int_equal(log_world_offer(&w, "a", none), LIM_OK);
    assert_int_equal(log_world_offer(&w, "b", none), LIM_OK); /* before the first is answered */
    assert_int_equal(log_world_offer(&w, "c", one), LIM_OK);
    log_world_wait(&w);
    assert_int_equal(w.receipts[0].seq, 1);
    assert_int_equal(w.receipts[1].admission.why, LIM_WHY_EXPECTED);
    assert_int_equal(w.receipts[1].admission.current, 1);
    assert_int_equal(w.receipts[2].seq, 2);
    assert_int_equal(log_world_publish(&w, "d", one).admission.verdict, LIM_REJECT);
    log_world_close(&w);
}

static void test_a_bus_without_a_directory_refuses_a_durable_channel(void **state)
{
    (void)state;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim_channel_opts durable = log_world_opts(), plain = { .size = sizeof plain };
    lim_channel ch;
    lim_bus *bus;
    lim_admission a;
    lim_publish_opts keyed = { .size = sizeof keyed, .idempotency_key = "k" };
    assert_int_equal(lim_bus_open(&opts, &bus), LIM_OK);
    assert_int_equal(lim_channel_open(bus, "orders", &durable, &ch), LIM_E_MISUSE);
    assert_int_equal(lim_channel_open(bus, "orders", &plain, &ch), LIM_OK);
    assert_int_equal(lim_publish(bus, ch, lim__str("x"), &keyed, &a), LIM_E_MISUSE); /* what it could not keep */
    lim_bus_close(bus);
}

static void test_durable_or_not_is_decided_once(void **state) /* proves CH2 */
{
    (void)state;
    lim_channel_opts durable = log_world_opts(), plain = { .size = sizeof plain };
    lim_channel ch;
    log_world_open(&w, 10, NULL);
    assert_int_equal(lim_channel_open(w.d.bus, "orders", &plain, &ch), LIM_E_EXISTS);
    assert_int_equal(lim_channel_open(w.d.bus, "live", &plain, &ch), LIM_OK);
    assert_int_equal(lim_channel_open(w.d.bus, "live", &durable, &ch), LIM_E_EXISTS);
    assert_int_equal(lim_channel_open(w.d.bus, "orders", NULL, &ch), LIM_OK);
    assert_int_equal(lim_channel_close(w.d.bus, ch), LIM_OK); /* the handle; what is stored stays */
    assert_int_equal(log_world_offer(&w, "x", (lim_publish_opts){ 0 }), LIM_E_GONE);
    log_world_channel(&w, "orders", NULL);
    assert_int_equal(log_world_publish(&w, "x", (lim_publish_opts){ 0 }).seq, 1);
    log_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_acknowledged_is_there_after_a_kill),
        cmocka_unit_test(test_a_duplicate_gets_the_original_receipt_and_is_not_stored),
        cmocka_unit_test(test_a_key_is_forgotten_after_its_window),
        cmocka_unit_test(test_a_sliding_window_begins_anew_with_each_duplicate),
        cmocka_unit_test(test_a_full_window_refuses_new_keys_and_still_knows_the_old_ones),
        cmocka_unit_test(test_a_window_that_forgets_takes_new_keys_and_lets_the_oldest_go),
        cmocka_unit_test(test_a_window_is_bounded_in_bytes_too),
        cmocka_unit_test(test_duplicates_without_end_take_no_room),
        cmocka_unit_test(test_keys_are_of_one_channel),
        cmocka_unit_test(test_a_publish_may_expect_the_last_number),
        cmocka_unit_test(test_a_bus_without_a_directory_refuses_a_durable_channel),
        cmocka_unit_test(test_durable_or_not_is_decided_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
