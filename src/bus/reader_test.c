/* SPDX-License-Identifier: Apache-2.0
 * reader_test.c - reading a log: from where, in which order, and what a cursor remembers. */
#include "bus/reader_world.h"

static log_world w;
static hearer a, b, c;

static lim_read_opts from_all(void)
{
    return (lim_read_opts){ .from = LIM_FROM_ALL };
}

static lim_read_opts cursor(const char *name)
{
    return (lim_read_opts){ .from = LIM_FROM_ALL, .cursor = name };
}

static void expect_run(const hearer *h, uint32_t at, uint64_t from, uint32_t count)
{
    assert_true(h->count >= at + count);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(h->seqs[at + i], from + i);
}

static void test_all_of_a_log_is_read_and_then_what_is_new(void **state) /* proves DU5 */
{
    (void)state;
    log_world_open(&w, 1, NULL);
    publish_some(&w, 1, 500);
    log_world_wait(&w);
    hearer_open(&a, &w, LIM_DONE, 0, from_all());
    hearer_until(&a, 500);
    publish_some(&w, 501, 100);
    hearer_until(&a, 600);
    expect_run(&a, 0, 1, 600);
    assert_string_equal(a.last, "m600");
    hearer_close(&a);
    log_world_close(&w);
}

static void test_a_log_is_read_from_a_number_a_time_or_now(void **state) /* proves CH7 DU5 */
{
    (void)state;
    log_world_open(&w, 2, NULL);
    publish_some(&w, 1, 10);
    log_world_wait(&w);
    durable_settle(&w.d, 5000000000);
    uint64_t noon_us = w.d.os->wall_ns(w.d.os) / 1000;
    durable_settle(&w.d, 5000000000);
    publish_some(&w, 11, 10);
    log_world_wait(&w);
    hearer_open(&a, &w, LIM_DONE, 0, (lim_read_opts){ .from = LIM_FROM_SEQ, .start = 7 });
    hearer_open(&b, &w, LIM_DONE, 0, (lim_read_opts){ .from = LIM_FROM_TIME, .start = noon_us });
    hearer_open(&c, &w, LIM_DONE, 0, (lim_read_opts){ .from = LIM_FROM_NEW });
    publish_some(&w, 21, 1);
    hearer_until(&a, 15);
    hearer_until(&b, 11);
    hearer_until(&c, 1);
    expect_run(&a, 0, 7, 15);
    expect_run(&b, 0, 11, 11);
    expect_run(&c, 0, 21, 1);
    log_world_close(&w);
}

static void test_a_cursor_goes_on_behind_what_was_acknowledged(void **state) /* proves DU6 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        log_world_open(&w, seed, NULL);
        publish_some(&w, 1, 40);
        log_world_wait(&w);
        hearer_open(&a, &w, LIM_HOLD, 10, cursor("billing"));
        hearer_until(&a, 10);
        assert_int_equal(hearer_ack(&a, 3), LIM_OK); /* individually, */
        hearer_until(&a, 11);
        assert_int_equal(hearer_ack(&a, 3), LIM_E_NOTFOUND);
        assert_int_equal(hearer_ack(&a, 1), LIM_OK);
        hearer_until(&a, 12);
        if (seed & 1)
            durable_kill(&w.d);
        else
            durable_power_off(&w.d);
        assert_int_equal(a.ends, 1);
        log_world_start(&w);
        hearer_open(&a, &w, LIM_DONE, 10, cursor("billing"));
        hearer_until(&a, 38);
        assert_int_equal(a.seqs[0], 2);
        expect_run(&a, 1, 4, 37);
        publish_some(&w, 41, 1);
        hearer_until(&a, 39);
        log_world_close(&w);
    }
}

static void test_the_window_is_what_is_not_acknowledged(void **state) /* proves CH7 */
{
    (void)state;
    log_world_open(&w, 3, NULL);
    publish_some(&w, 1, 30);
    log_world_wait(&w);
    hearer_open(&a, &w, LIM_HOLD, 4, from_all());
    hearer_until(&a, 4);
    durable_settle(&w.d, 1000000000);
    assert_int_equal(a.count, 4);
    assert_int_equal(lim_complete(w.d.bus, a.sub, 3), LIM_OK);
    hearer_until(&a, 7);
    durable_settle(&w.d, 1000000000);
    assert_int_equal(a.count, 7);
    lim_sub_info info;
    assert_int_equal(lim_sub_inspect(w.d.bus, a.sub, &info), LIM_OK);
    assert_int_equal(info.delivered, 7);
    assert_int_equal(info.in_flight, 4);
    assert_int_equal(info.window, 4);
    log_world_close(&w);
}

static void test_a_cursor_has_one_reader_unless_it_is_shared_or_stood_by(void **state) /* proves CH16 */
{
    (void)state;
    log_world_open(&w, 4, NULL);
    lim_read_opts shared = cursor("s"), standby = cursor("s");
    shared.shared = true;
    standby.standby = true;
    hearer_open(&a, &w, LIM_DONE, 0, cursor("s"));
    assert_int_equal(hearer_try(&b, &w, "orders", LIM_DONE, 0, cursor("s")), LIM_E_EXISTS);
    assert_int_equal(hearer_try(&b, &w, "orders", LIM_DONE, 0, shared), LIM_E_EXISTS);
    hearer_close(&a);
    hearer_open(&a, &w, LIM_DONE, 0, shared);
    hearer_open(&b, &w, LIM_DONE, 0, shared);
    assert_int_equal(hearer_try(&c, &w, "orders", LIM_DONE, 0, standby), LIM_E_EXISTS);
    hearer_close(&a);
    hearer_close(&b);
    hearer_open(&c, &w, LIM_DONE, 0, standby);
    log_world_close(&w);
}

static void test_options_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    log_world_open(&w, 5, NULL);
    lim_channel live;
    assert_int_equal(lim_channel_open(w.d.bus, "live", NULL, &live), LIM_OK);
    assert_int_equal(hearer_try(&a, &w, "orders.*", LIM_DONE, 0, from_all()), LIM_E_MISUSE);
    assert_int_equal(hearer_try(&a, &w, "live", LIM_DONE, 0, from_all()), LIM_E_MISUSE);
    assert_int_equal(hearer_try(&a, &w, "nowhere", LIM_DONE, 0, from_all()), LIM_E_NOTFOUND);
    assert_int_equal(hearer_try(&a, &w, "orders", LIM_DONE, 0, cursor("a b")), LIM_E_MISUSE);
    assert_int_equal(hearer_try(&a, &w, "orders", LIM_DONE, 0, (lim_read_opts){ .shared = true }), LIM_E_MISUSE);
    lim_read_opts both = cursor("c");
    both.shared = both.standby = true;
    assert_int_equal(hearer_try(&a, &w, "orders", LIM_DONE, 0, both), LIM_E_MISUSE);
    lim_read_opts dead = cursor("c");
    dead.dead_letter = "live";
    assert_int_equal(hearer_try(&a, &w, "orders", LIM_DONE, 0, dead), LIM_E_MISUSE);
    dead.dead_letter = "orders";
    assert_int_equal(hearer_try(&a, &w, "orders", LIM_DONE, 0, dead), LIM_E_MISUSE);
    assert_int_equal(a.ends, 0);
    log_world_close(&w);
}

static void test_what_is_refused_comes_again_after_its_delay(void **state) /* proves DU6 */
{
    (void)state;
    log_world_open(&w, 6, NULL);
    publish_some(&w, 1, 3);
    log_world_wait(&w);
    hearer_open(&a, &w, LIM_HOLD, 8, cursor("c"));
    hearer_until(&a, 3);
    assert_int_equal(lim_nack(w.d.bus, a.sub, 2, 700), LIM_OK);
    assert_int_equal(lim_nack(w.d.bus, a.sub, 2, 700), LIM_E_NOTFOUND);
    durable_settle(&w.d, 690000000);
    assert_int_equal(a.count, 3);
    hearer_until(&a, 4);
    assert_int_equal(a.seqs[3], 2);
    assert_int_equal(a.deliveries[3], 2);
    assert_int_equal(lim_nack(w.d.bus, a.sub, 2, 0), LIM_OK);
    durable_settle(&w.d, 1000000);
    assert_int_equal(a.count, 5);
    assert_int_equal(a.deliveries[4], 3);
    log_world_close(&w);
}

static void test_what_is_not_acknowledged_in_time_comes_again(void **state) /* proves DU6 */
{
    (void)state;
    log_world_open(&w, 7, NULL);
    publish_some(&w, 1, 2);
    log_world_wait(&w);
    lim_read_opts read = cursor("c");
    read.ack_ms = 2000;
    hearer_open(&a, &w, LIM_HOLD, 8, read);
    hearer_until(&a, 2);
    assert_int_equal(hearer_ack(&a, 1), LIM_OK);
    durable_settle(&w.d, 1900000000);
    assert_int_equal(a.count, 2);
    hearer_until(&a, 3);
    assert_int_equal(a.seqs[2], 2);
    assert_int_equal(a.deliveries[2], 2);
    assert_int_equal(hearer_ack(&a, 2), LIM_OK);
    durable_settle(&w.d, 10000000000);
    assert_int_equal(a.count, 3);
    log_world_close(&w);
}

static void test_a_message_that_is_never_done_goes_to_the_dead_letter(void **state) /* proves DU6 */
{
    (void)state;
    log_world_open(&w, 8, NULL);
    lim_channel_opts opts = log_world_opts();
    lim_channel dead;
    assert_int_equal(lim_channel_open(w.d.bus, "dead", &opts, &dead), LIM_OK);
    publish_some(&w, 1, 2);
    log_world_wait(&w);
    lim_read_opts read = cursor("c");
    read.deliveries_max = 3;
    read.dead_letter = "dead";
    b.header_name = "$dead_seq";
    hearer_open(&a, &w, LIM_FAIL, 8, read);
    assert_int_equal(hearer_try(&b, &w, "dead", LIM_DONE, 8, from_all()), LIM_OK);
    hearer_until(&b, 2);
    assert_int_equal(a.count, 6);
    assert_string_equal(b.last, "m2");
    assert_string_equal(b.header, "2");
    durable_power_off(&w.d);
    log_world_start(&w);
    hearer_open(&a, &w, LIM_DONE, 8, read);
    publish_some(&w, 3, 1);
    hearer_until(&a, 1);
    assert_int_equal(a.seqs[0], 3);
    b.header_name = NULL;
    log_world_close(&w);
}

static void test_without_a_dead_letter_a_message_is_given_up(void **state)
{
    (void)state;
    log_world_open(&w, 9, NULL);
    publish_some(&w, 1, 1);
    log_world_wait(&w);
    lim_read_opts read = cursor("c");
    read.deliveries_max = 2;
    hearer_open(&a, &w, LIM_FAIL, 8, read);
    hearer_until(&a, 2);
    durable_settle(&w.d, 60000000000);
    assert_int_equal(a.count, 2);
    log_world_close(&w);
}

static void test_who_stands_by_takes_over_what_was_not_done(void **state) /* proves CH16 */
{
    (void)state;
    log_world_open(&w, 10, NULL);
    publish_some(&w, 1, 5);
    log_world_wait(&w);
    lim_read_opts read = cursor("c");
    read.standby = true;
    hearer_open(&a, &w, LIM_HOLD, 3, read);
    hearer_open(&b, &w, LIM_DONE, 3, read);
    hearer_open(&c, &w, LIM_DONE, 3, read);
    hearer_until(&a, 3);
    assert_int_equal(hearer_ack(&a, 2), LIM_OK);
    hearer_until(&a, 4);
    assert_int_equal(b.count + c.count, 0);
    hearer_close(&a);
    hearer_until(&b, 4);
    assert_int_equal(b.seqs[0], 1);
    assert_int_equal(b.deliveries[0], 2);
    expect_run(&b, 1, 3, 3);
    assert_int_equal(b.deliveries[3], 1);
    hearer_close(&b);
    publish_some(&w, 6, 1);
    hearer_until(&c, 1);
    assert_int_equal(c.seqs[0], 6);
    log_world_close(&w);
}

static void test_a_shared_cursor_gives_each_message_to_one_and_again_when_that_one_ends(void **state) /* proves CH14 */
{
    (void)state;
    log_world_open(&w, 11, NULL);
    publish_some(&w, 1, 40);
    log_world_wait(&w);
    lim_read_opts read = cursor("c");
    read.shared = true;
    hearer_open(&a, &w, LIM_HOLD, 10, read);
    hearer_open(&b, &w, LIM_HOLD, 10, read);
    hearer_until(&a, 10);
    hearer_until(&b, 10);
    for (uint32_t i = 0; i < 10; i++)
        for (uint32_t k = 0; k < 10; k++)
            assert_int_not_equal(a.seqs[i], b.seqs[k]);
    hearer_open(&c, &w, LIM_DONE, 10, read);
    hearer_until(&c, 20);
    hearer_close(&a);
    hearer_until(&c, 30);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(c.seqs[20 + i], a.seqs[i]);
        assert_int_equal(c.deliveries[20 + i], 2);
    }
    assert_int_equal(b.count, 10);
    log_world_close(&w);
}

static void test_pulling_delivers_what_was_asked_for(void **state) /* proves CH16 */
{
    (void)state;
    log_world_open(&w, 12, NULL);
    publish_some(&w, 1, 10);
    log_world_wait(&w);
    hearer_open(&a, &w, LIM_DONE, LIM_PULL, cursor("c"));
    durable_settle(&w.d, 1000000000);
    assert_int_equal(a.count, 0);
    assert_int_equal(lim_fetch(w.d.bus, a.sub, 3, 1000), LIM_OK);
    hearer_until(&a, 3);
    assert_int_equal(lim_fetch(w.d.bus, a.sub, 20, 1000), LIM_OK);
    hearer_until(&a, 10);
    durable_settle(&w.d, 2000000000);
    publish_some(&w, 11, 2); /* the rest of the twenty are not wanted any more */
    durable_settle(&w.d, 1000000000);
    assert_int_equal(a.count, 10);
    assert_int_equal(lim_fetch(w.d.bus, a.sub, 1, LIM_FOREVER), LIM_OK);
    hearer_until(&a, 11);
    log_world_close(&w);
}

static void test_the_last_of_every_key_then_what_is_new(void **state) /* proves CH15 */
{
    (void)state;
    log_world_open(&w, 13, NULL);
    static const char *const keys[] = { "x", "y", "z" };
    for (uint32_t i = 0; i < 12; i++) {
        char text[16];
        snprintf(text, sizeof text, "m%u", i + 1);
        lim_publish_opts opts = { .key = i < 10 ? keys[i % 3] : NULL };
        assert_int_equal(log_world_offer(&w, text, opts), LIM_OK);
    }
    log_world_wait(&w);
    a.header_name = "$key";
    hearer_open(&a, &w, LIM_DONE, 0, (lim_read_opts){ .last_per_key = true });
    hearer_until(&a, 3);
    assert_string_equal(a.header, "x");
    assert_int_equal(a.seqs[0], 8);
    assert_int_equal(a.seqs[1], 9);
    assert_int_equal(a.seqs[2], 10);
    assert_int_equal(log_world_offer(&w, "new", (lim_publish_opts){ .key = "y" }), LIM_OK);
    hearer_until(&a, 4);
    assert_string_equal(a.header, "y");
    a.header_name = NULL;
    log_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_of_a_log_is_read_and_then_what_is_new),
        cmocka_unit_test(test_a_log_is_read_from_a_number_a_time_or_now),
        cmocka_unit_test(test_a_cursor_goes_on_behind_what_was_acknowledged),
        cmocka_unit_test(test_the_window_is_what_is_not_acknowledged),
        cmocka_unit_test(test_a_cursor_has_one_reader_unless_it_is_shared_or_stood_by),
        cmocka_unit_test(test_options_that_make_no_sense_are_refused),
        cmocka_unit_test(test_what_is_refused_comes_again_after_its_delay),
        cmocka_unit_test(test_what_is_not_acknowledged_in_time_comes_again),
        cmocka_unit_test(test_a_message_that_is_never_done_goes_to_the_dead_letter),
        cmocka_unit_test(test_without_a_dead_letter_a_message_is_given_up),
        cmocka_unit_test(test_who_stands_by_takes_over_what_was_not_done),
        cmocka_unit_test(test_a_shared_cursor_gives_each_message_to_one_and_again_when_that_one_ends),
        cmocka_unit_test(test_pulling_delivers_what_was_asked_for),
        cmocka_unit_test(test_the_last_of_every_key_then_what_is_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
