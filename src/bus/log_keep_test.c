/* SPDX-License-Identifier: Apache-2.0
 * log_keep_test.c - what durable channels forget, and what they append later: retention, time to live, overflow, delay.
 */
#include "bus/log_world.h"

static log_world w;

static void publish_n(uint32_t n, lim_publish_opts opts)
{
    for (uint32_t i = 0; i < n; i++) {
        char text[32];
        snprintf(text, sizeof text, "m%u", (unsigned)w.offered);
        assert_int_equal(log_world_offer(&w, text, opts), LIM_OK);
    }
    log_world_wait(&w);
}

static void settle_ms(uint64_t ms)
{
    durable_settle(&w.d, ms * 1000000);
}

static void test_only_so_many_are_kept(void **state) /* proves CH12 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.count_max = 5;
    log_world_open(&w, 1, &opts);
    publish_n(12, (lim_publish_opts){ 0 });
    settle_ms(1000);
    assert_int_equal(log_world_look(&w, "orders"), 5);
    assert_int_equal(w.seqs[0], 8);
    for (uint32_t i = 0; i < 20; i++) { /* one at a time: each makes room in its own step */
        publish_n(1, (lim_publish_opts){ 0 });
        assert_in_range(log_world_look(&w, "orders"), 5, 6);
    }
    settle_ms(1000);
    assert_int_equal(log_world_look(&w, "orders"), 5);
    assert_int_equal(w.seqs[4], 32);
    durable_kill(&w.d);
    log_world_start(&w);
    publish_n(3, (lim_publish_opts){ 0 });
    settle_ms(1000);
    assert_int_equal(log_world_look(&w, "orders"), 5);
    log_world_close(&w);
}

static void test_only_so_many_bytes_are_kept(void **state) /* proves CH12 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.bytes_max = 1000;
    log_world_open(&w, 2, &opts);
    publish_n(200, (lim_publish_opts){ 0 });
    settle_ms(1000);
    uint32_t n = log_world_look(&w, "orders");
    assert_in_range(n, 40, 1000 / 14);
    assert_int_equal(w.seqs[n - 1], 200);
    log_world_close(&w);
}

static void test_old_ones_are_forgotten_also_when_nobody_publishes(void **state) /* proves CH12 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.age_ms_max = 10000;
    log_world_open(&w, 3, &opts);
    publish_n(3, (lim_publish_opts){ 0 });
    settle_ms(6000);
    publish_n(2, (lim_publish_opts){ 0 });
    settle_ms(5000);
    assert_int_equal(log_world_look(&w, "orders"), 2);
    durable_kill(&w.d);
    log_world_start(&w);
    settle_ms(11000);
    assert_int_equal(log_world_look(&w, "orders"), 0);
    publish_n(1, (lim_publish_opts){ 0 });
    assert_int_equal(w.receipts[w.told - 1].seq, 6); /* numbers go on */
    log_world_close(&w);
}

static void test_of_each_key_the_newest_is_kept(void **state) /* proves CH12 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.latest_per_key = true;
    log_world_open(&w, 4, &opts);
    for (uint32_t i = 0; i < 30; i++) {
        char key[8], text[8];
        snprintf(key, sizeof key, "k%u", (unsigned)(i % 3));
        snprintf(text, sizeof text, "v%u", (unsigned)i);
        assert_int_equal(log_world_offer(&w, text, (lim_publish_opts){ .key = key }), LIM_OK);
    }
    publish_n(1, (lim_publish_opts){ 0 }); /* without a key: stays */
    settle_ms(1000);
    assert_int_equal(log_world_look(&w, "orders"), 4);
    assert_string_equal(w.texts[0], "v27");
    durable_kill(&w.d);
    log_world_start(&w);
    assert_int_equal(log_world_publish(&w, "last", (lim_publish_opts){ .key = "k1" }).seq, 32);
    settle_ms(1000);
    assert_int_equal(log_world_look(&w, "orders"), 4);
    assert_string_equal(w.texts[3], "last");
    log_world_close(&w);
}

static void test_a_channel_that_begins_to_keep_the_newest_forgets_what_is_older(void **state)
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    log_world_open(&w, 5, NULL);
    publish_n(5, (lim_publish_opts){ .key = "a" });
    publish_n(5, (lim_publish_opts){ .key = "b" });
    opts.latest_per_key = true;
    log_world_channel(&w, "orders", &opts); /* opening it again with others changes them */
    settle_ms(2000);
    assert_int_equal(log_world_look(&w, "orders"), 2);
    log_world_close(&w);
}

static void test_what_has_expired_is_forgotten_wherever_it_stands(void **state) /* proves CH12 */
{
    (void)state;
    log_world_open(&w, 6, NULL);
    publish_n(1, (lim_publish_opts){ 0 });
    publish_n(3, (lim_publish_opts){ .expires_ms = 5000 });
    publish_n(1, (lim_publish_opts){ 0 });
    assert_int_equal(log_world_look(&w, "orders"), 5);
    settle_ms(6000);
    assert_int_equal(log_world_look(&w, "orders"), 2);
    publish_n(2, (lim_publish_opts){ .expires_ms = 5000 });
    durable_power_off(&w.d);
    log_world_start(&w);
    settle_ms(6000);
    assert_int_equal(log_world_look(&w, "orders"), 2);
    log_world_close(&w);
}

static void test_a_full_channel_may_refuse(void **state)
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.count_max = 3;
    opts.overflow = LIM_OVERFLOW_REJECT;
    log_world_open(&w, 7, &opts);
    publish_n(5, (lim_publish_opts){ .idempotency_key = NULL });
    uint32_t stored = 0, refused = 0;
    for (uint32_t i = 0; i < w.told; i++) {
        stored += w.receipts[i].admission.verdict == LIM_ACCEPT;
        refused += w.receipts[i].admission.why == LIM_WHY_CHANNEL_FULL;
    }
    assert_int_equal(stored, 3);
    assert_int_equal(refused, 2);
    assert_int_equal(log_world_look(&w, "orders"), 3);
    /* a refusal leaves the key free (PR2) */
    assert_int_equal(log_world_publish(&w, "x", (lim_publish_opts){ .idempotency_key = "k" }).admission.why,
                     LIM_WHY_CHANNEL_FULL);
    opts.count_max = 4;
    log_world_channel(&w, "orders", &opts);
    settle_ms(1000);
    lim_receipt r = log_world_publish(&w, "x", (lim_publish_opts){ .idempotency_key = "k" });
    assert_int_equal(r.admission.verdict, LIM_ACCEPT);
    assert_false(r.duplicate);
    log_world_close(&w);
}

static void test_what_is_too_many_may_go_to_another_channel(void **state)
{
    (void)state;
    lim_channel_opts opts = log_world_opts(), plain = log_world_opts();
    log_world_open(&w, 8, NULL);
    log_world_channel(&w, "dead", &plain);
    opts.count_max = 3;
    opts.overflow = LIM_OVERFLOW_DEAD_LETTER;
    opts.dead_letter = "dead";
    log_world_channel(&w, "orders", &opts);
    settle_ms(1000);
    publish_n(10, (lim_publish_opts){ .key = "k" });
    settle_ms(3000);
    assert_int_equal(log_world_look(&w, "orders"), 3);
    assert_int_equal(w.seqs[0], 8);
    assert_int_equal(log_world_look(&w, "dead"), 7);
    assert_string_equal(w.texts[0], "m0");
    assert_string_equal(w.keys[6], "k");
    log_world_close(&w);
}

static void test_a_message_for_later_is_appended_once_when_it_is_due(void **state)
{
    (void)state;
    log_world_open(&w, 9, NULL);
    lim_receipt r = log_world_publish(&w, "later", (lim_publish_opts){ .delay_ms = 5000, .key = "k" });
    assert_int_equal(r.admission.verdict, LIM_ACCEPT);
    assert_int_equal(r.seq, 0);
    assert_int_equal(log_world_publish(&w, "now", (lim_publish_opts){ 0 }).seq, 1);
    assert_int_equal(log_world_publish(&w, "much later", (lim_publish_opts){ .delay_ms = 60000 }).seq, 0);
    settle_ms(4000);
    assert_int_equal(log_world_look(&w, "orders"), 1);
    settle_ms(2000);
    assert_int_equal(log_world_look(&w, "orders"), 2);
    assert_string_equal(w.texts[1], "later");
    assert_string_equal(w.keys[1], "k");
    durable_kill(&w.d);
    log_world_start(&w);
    settle_ms(30000);
    assert_int_equal(log_world_look(&w, "orders"), 2);
    settle_ms(30000);
    assert_int_equal(log_world_look(&w, "orders"), 3);
    durable_kill(&w.d);
    log_world_start(&w);
    settle_ms(10000);
    assert_int_equal(log_world_look(&w, "orders"), 3);
    log_world_close(&w);
}

static void test_a_duplicate_of_a_message_for_later_is_no_second_one(void **state)
{
    (void)state;
    lim_publish_opts later = { .delay_ms = 3000, .idempotency_key = "k" };
    log_world_open(&w, 10, NULL);
    lim_receipt r = log_world_publish(&w, "a", later);
    assert_false(r.duplicate);
    assert_int_equal(r.seq, 0);
    assert_true(r.delayed);
    assert_in_range(r.due_wall_us - r.at_wall_us, 2999000, 3000000);
    lim_receipt again = log_world_publish(&w, "a", later);
    assert_true(again.duplicate && again.delayed && again.due_wall_us == r.due_wall_us);
    assert_int_equal(log_world_publish(&w, "meanwhile", (lim_publish_opts){ 0 }).seq, 1);
    settle_ms(5000);
    again = log_world_publish(&w, "a", later);
    assert_true(again.duplicate);
    assert_false(again.delayed);
    assert_int_equal(again.seq, 2); /* what was published meanwhile came before it */
    durable_kill(&w.d);
    log_world_start(&w);
    assert_int_equal(log_world_publish(&w, "a", later).seq, 2);
    settle_ms(5000);
    assert_int_equal(log_world_look(&w, "orders"), 2);
    log_world_close(&w);
}

typedef struct ended {
    lim_err err;
    bool told;
} ended;

static void on_ended(void *ctx, lim_err err, const char *detail)
{
    ended *e = ctx;
    (void)detail;
    e->err = err;
    e->told = true;
}

static bool is_told(void *ctx)
{
    return ((ended *)ctx)->told;
}

static bool count_all(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    ++*(uint32_t *)ctx;
    return true;
}

static uint32_t rows_of(lim__table table)
{
    uint32_t n = 0;
    lim_bytes all = { NULL, 0 };
    assert_int_equal(lim__store_scan(lim__durable_store(w.d.bus), (uint8_t)table, all, all, count_all, &n), 0);
    return n;
}

static void test_a_deleted_channel_leaves_nothing(void **state)
{
    (void)state;
    for (int killed = 0; killed < 2; killed++) {
        lim_channel_opts plain = log_world_opts();
        lim__log *log;
        ended e = { 0 };
        log_world_open(&w, 11, NULL);
        for (uint32_t i = 0; i < 1500; i++) {
            char key[8];
            snprintf(key, sizeof key, "k%u", (unsigned)i);
            assert_int_equal(log_world_offer(&w, "x", (lim_publish_opts){ .idempotency_key = key }), LIM_OK);
        }
        publish_n(20, (lim_publish_opts){ .expires_ms = 100000, .delay_ms = 100000 });
        assert_int_equal(lim__log_find(w.d.bus, lim__str("orders"), &log), LIM_OK);
        lim__log_changed done = { on_ended, &e };
        assert_int_equal(lim__log_delete(log, &done), LIM_OK);
        lim__log_unref(log);
        durable_until(&w.d, is_told, &e);
        assert_int_equal(e.err, LIM_OK);
        assert_int_equal(log_world_offer(&w, "x", (lim_publish_opts){ 0 }), LIM_E_GONE);
        if (killed) {
            durable_kill(&w.d); /* in the middle of what is forgotten a few at a time */
            durable_start(&w.d);
        }
        settle_ms(5000);
        assert_int_equal(rows_of(LIM__TABLE_RECEIPTS), 0);
        assert_int_equal(rows_of(LIM__TABLE_DELAYED), 0);
        assert_int_equal(rows_of(LIM__TABLE_CHANNELS), 0);
        assert_int_equal(rows_of(LIM__TABLE_META), 2); /* its format, and the number of streams */
        log_world_channel(&w, "orders", &plain);
        assert_int_equal(log_world_publish(&w, "x", (lim_publish_opts){ .idempotency_key = "k1" }).seq, 1);
        log_world_close(&w);
    }
}

static void test_the_newest_message_of_a_key_can_be_read(void **state) /* proves CH15 */
{
    (void)state;
    lim_stored_message m = { 0 };
    log_world_open(&w, 12, NULL);
    log_world_publish(&w, "one", (lim_publish_opts){ .key = "a" });
    log_world_publish(&w, "two", (lim_publish_opts){ .key = "b" });
    log_world_publish(&w, "three", (lim_publish_opts){ .key = "a" });
    assert_int_equal(lim_channel_get(w.d.bus, "orders", "a", &m), LIM_OK);
    assert_int_equal(m.seq, 3);
    assert_true(lim__bytes_eq(m.payload, lim__str("three")));
    assert_true(lim__bytes_eq(m.key, lim__str("a")));
    lim_stored_fini(&m);
    assert_int_equal(lim_channel_get(w.d.bus, "orders", "c", &m), LIM_E_NOTFOUND);
    assert_int_equal(lim_channel_get(w.d.bus, "nowhere", "c", &m), LIM_E_NOTFOUND);
    log_world_publish(&w, "soon gone", (lim_publish_opts){ .key = "a", .expires_ms = 1000 });
    settle_ms(3000);
    assert_int_equal(lim_channel_get(w.d.bus, "orders", "a", &m), LIM_OK); /* the one before */
    assert_int_equal(m.seq, 3);
    lim_stored_fini(&m);
    log_world_close(&w);
}

static void free_batch(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx;
    assert_int_equal(what->how, LIM__COMMITTED);
    lim__batch_free(batch);
}

static void test_a_damaged_row_is_named_and_the_other_channels_are_served(void **state)
{
    (void)state;
    lim_channel_opts plain = log_world_opts();
    log_world_open(&w, 13, NULL);
    log_world_channel(&w, "others", &plain);
    log_world_publish(&w, "x", (lim_publish_opts){ 0 });
    lim__batch *b = lim__batch_new();
    lim__batch_put(b, LIM__TABLE_CHANNELS, lim__str("orders"), lim__str("no row of a channel"));
    assert_int_equal(lim__durable_submit(w.d.bus, b, free_batch, NULL), LIM_OK);
    settle_ms(1000);
    durable_kill(&w.d);
    durable_start(&w.d);
    lim_channel ch;
    assert_int_equal(lim_channel_open(w.d.bus, "orders", &plain, &ch), LIM_E_IO);
    assert_int_equal(lim_channel_open(w.d.bus, "orders", NULL, &w.channel), LIM_OK);
    assert_int_equal(log_world_publish(&w, "x", (lim_publish_opts){ 0 }).admission.why, LIM_WHY_DISK_FAULT);
    log_world_channel(&w, "others", NULL);
    assert_int_equal(log_world_publish(&w, "y", (lim_publish_opts){ 0 }).seq, 2);
    log_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_so_many_are_kept),
        cmocka_unit_test(test_only_so_many_bytes_are_kept),
        cmocka_unit_test(test_old_ones_are_forgotten_also_when_nobody_publishes),
        cmocka_unit_test(test_of_each_key_the_newest_is_kept),
        cmocka_unit_test(test_a_channel_that_begins_to_keep_the_newest_forgets_what_is_older),
        cmocka_unit_test(test_what_has_expired_is_forgotten_wherever_it_stands),
        cmocka_unit_test(test_a_full_channel_may_refuse),
        cmocka_unit_test(test_what_is_too_many_may_go_to_another_channel),
        cmocka_unit_test(test_a_message_for_later_is_appended_once_when_it_is_due),
        cmocka_unit_test(test_a_duplicate_of_a_message_for_later_is_no_second_one),
        cmocka_unit_test(test_a_deleted_channel_leaves_nothing),
        cmocka_unit_test(test_the_newest_message_of_a_key_can_be_read),
        cmocka_unit_test(test_a_damaged_row_is_named_and_the_other_channels_are_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
