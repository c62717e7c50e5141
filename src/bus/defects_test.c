/* SPDX-License-Identifier: Apache-2.0
 * defects_test.c - what the earlier durability library did wrong and no other test names: see docs/acceptance.md. */
#include "bus/reader_world.h"

static log_world w;

static bool refused(const char *text, lim_publish_opts opts)
{
    lim_admission a = { 0 };
    opts.size = sizeof opts;
    lim_err err = lim_publish(w.d.bus, w.channel, lim__str(text), &opts, &a);
    durable_settle(&w.d, 10000000);
    return err != LIM_OK || a.verdict == LIM_REJECT;
}

static void test_what_is_refused_is_not_in_the_log_and_takes_no_number(void **state)
{
    (void)state;
    static char key[300];
    memset(key, 'k', sizeof key - 1);
    log_world_open(&w, 1, NULL);
    assert_int_equal(log_world_publish(&w, "one", (lim_publish_opts){ 0 }).seq, 1);
    assert_true(refused("x", (lim_publish_opts){ .key = key }));
    assert_true(refused("x", (lim_publish_opts){ .idempotency_key = key }));
    assert_true(refused("x", (lim_publish_opts){ .expires_ms = -1 }));
    assert_true(refused("x", (lim_publish_opts){ .delay_ms = -1 }));
    assert_true(refused("x", (lim_publish_opts){ .mandatory = true }));
    assert_true(refused("x", (lim_publish_opts){ .mandatory = true, .idempotency_key = "k" }));
    assert_int_equal(log_world_look(&w, "orders"), 1);
    lim_receipt r = log_world_publish(&w, "two", (lim_publish_opts){ .idempotency_key = "k" });
    assert_int_equal(r.seq, 2);
    assert_false(r.duplicate); /* nor does a refusal claim its key */
    log_world_close(&w);
}

static void test_a_key_is_refused_where_its_message_would_not_be_kept(void **state)
{
    (void)state;
    lim_channel live;
    lim_admission a;
    const lim_publish_opts keyed = { .size = sizeof keyed, .idempotency_key = "k" };
    log_world_open(&w, 2, NULL);
    assert_int_equal(lim_channel_open(w.d.bus, "live", NULL, &live), LIM_OK);
    assert_int_equal(lim_publish(w.d.bus, live, lim__str("x"), &keyed, &a), LIM_E_MISUSE);
    log_world_close(&w);
}

/* Calls of the disk that reading all of a log takes. */
static uint64_t calls_to_read(uint32_t count)
{
    static hearer h;
    char text[LOG_TEXT_MAX];
    log_world_open(&w, 3, NULL);
    for (uint32_t i = 1; i <= count; i++) {
        snprintf(text, sizeof text, "m%u", (unsigned)i);
        assert_int_equal(log_world_offer(&w, text, (lim_publish_opts){ 0 }), LIM_OK);
    }
    log_world_wait(&w);
    durable_kill(&w.d);
    log_world_start(&w); /* nothing of it is in memory */
    durable_settle(&w.d, 1000000000);
    uint64_t before = lim__sim_disk_calls(w.d.os);
    hearer_open(&h, &w, LIM_DONE, 0, (lim_read_opts){ .from = LIM_FROM_ALL });
    hearer_until(&h, count);
    uint64_t calls = lim__sim_disk_calls(w.d.os) - before;
    hearer_close(&h);
    log_world_close(&w);
    return calls;
}

static void test_reading_twice_as_much_takes_twice_as_long(void **state)
{
    (void)state;
    uint64_t some = calls_to_read(1000), twice = calls_to_read(2000), four = calls_to_read(4000);
    if (twice > 2 * some + 16 || four > 2 * twice + 16)
        fail_msg("1000, 2000, 4000 messages: %u, %u, %u calls", (unsigned)some, (unsigned)twice, (unsigned)four);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused_is_not_in_the_log_and_takes_no_number),
        cmocka_unit_test(test_a_key_is_refused_where_its_message_would_not_be_kept),
        cmocka_unit_test(test_reading_twice_as_much_takes_twice_as_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
