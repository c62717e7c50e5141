/* SPDX-License-Identifier: Apache-2.0
 * reader_care_test.c - readers where messages were forgotten, have expired or went bad; steps; what becomes of cursors.
 */
#include "bus/log.h"
#include "bus/reader_world.h"

static log_world w;
static hearer a, b;

static lim_read_opts cursor(const char *name)
{
    return (lim_read_opts){ .from = LIM_FROM_ALL, .cursor = name };
}

static void test_what_was_forgotten_or_has_expired_is_passed_over(void **state) /* proves CH12 DU5 */
{
    (void)state;
    lim_channel_opts opts = log_world_opts();
    opts.count_max = 20;
    log_world_open(&w, 21, &opts);
    publish_some(&w, 1, 30);
    log_world_wait(&w);
    assert_int_equal(log_world_publish(&w, "soon gone", (lim_publish_opts){ .expires_ms = 2000 }).seq, 31);
    assert_int_equal(log_world_publish(&w, "stays", (lim_publish_opts){ 0 }).seq, 32);
    durable_settle(&w.d, 3000000000);
    hearer_open(&a, &w, LIM_DONE, 0, cursor("c"));
    hearer_until(&a, 19);
    assert_int_equal(a.seqs[0], 13);
    assert_int_equal(a.seqs[17], 30);
    assert_int_equal(a.seqs[18], 32);
    durable_kill(&w.d);
    log_world_start(&w);
    hearer_open(&a, &w, LIM_DONE, 0, cursor("c"));
    assert_int_equal(log_world_publish(&w, "next", (lim_publish_opts){ 0 }).seq, 33);
    durable_settle(&w.d, 1000000000);
    assert_int_equal(a.seqs[a.count - 1], 33);
    log_world_close(&w);
}

/* The bytes of one message on the platter. */
static void spoil(const char *text)
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
        if (at == NULL)
            continue;
        assert_int_equal(lim__sim_disk_flip(w.d.os, path, offset * 8), 0);
        return;
    }
    fail_msg("%s is in no segment", text);
}

static void test_a_message_that_went_bad_is_named_and_the_others_come(void **state) /* proves DU3 */
{
    (void)state;
    log_world_open(&w, 22, NULL);
    char text[32];
    for (uint32_t i = 1; i <= 30; i++) { /* each in a batch of its own */
        snprintf(text, sizeof text, "needle-%02u", i);
        assert_int_equal(log_world_publish(&w, text, (lim_publish_opts){ 0 }).seq, i);
    }
    durable_kill(&w.d);
    log_world_start(&w); /* nothing is in memory */
    spoil("needle-17");
    a.header_name = "$damaged";
    hearer_open(&a, &w, LIM_DONE, 1, cursor("c"));
    hearer_until(&a, 17);
    assert_int_equal(a.seqs[15], 16);
    assert_int_equal(a.seqs[16], 18);
    assert_string_equal(a.header, "17");
    hearer_until(&a, 29);
    assert_string_equal(a.header, "");
    a.header_name = NULL;
    log_world_close(&w);
}

/* ---- steps ---- */

typedef struct stepping {
    lim__step_ack ack;
    bool answered;
    lim_err err;
} stepping;

static void on_answer(lim__step_ack *ack, lim_err err)
{
    stepping *s = LIM_CONTAINER(ack, stepping, ack);
    s->answered = true;
    s->err = err;
}

static bool is_answered(void *ctx)
{
    return ((stepping *)ctx)->answered;
}

static lim_err ask(stepping *s, hearer *h, uint64_t seq)
{
    *s = (stepping){ .ack = { .seq = seq, .on_answer = on_answer } };
    assert_int_equal(lim__reader_of(w.d.bus, h->sub, &s->ack.reading), LIM_OK);
    assert_int_equal(lim__reader_step_ask(w.d.bus, NULL, &s->ack), LIM_OK);
    durable_until(&w.d, is_answered, s);
    return s->err;
}

static void on_step(void *ctx, lim__batch *batch, const lim__committed *what)
{
    stepping *s = ctx;
    s->answered = true;
    lim__reader_step_end(w.d.bus, &s->ack, what->how == LIM__COMMITTED);
    lim__batch_free(batch);
}

static void store_step(stepping *s, bool good)
{
    lim__batch *batch = lim__batch_new();
    s->answered = false;
    if (!good)
        lim__batch_expect(batch, LIM__TABLE_META, lim__str("format"), lim__str("another one"));
    lim__reader_step_row(&s->ack, batch);
    assert_int_equal(lim__durable_submit(w.d.bus, batch, on_step, s), LIM_OK);
    durable_until(&w.d, is_answered, s);
}

static void test_a_step_acknowledges_with_what_it_stores_or_not_at_all(void **state) /* proves XO2 */
{
    (void)state;
    static stepping s;
    for (uint64_t seed = 30; seed < 40; seed++) {
        log_world_open(&w, seed, NULL);
        publish_some(&w, 1, 5);
        log_world_wait(&w);
        hearer_open(&a, &w, LIM_HOLD, 8, cursor("c"));
        hearer_until(&a, 5);
        assert_int_equal(ask(&s, &a, 6), LIM_E_GONE);
        assert_int_equal(ask(&s, &a, 2), LIM_OK);
        assert_int_equal(hearer_ack(&a, 2), LIM_E_NOTFOUND); /* a step has it */
        store_step(&s, false);
        durable_settle(&w.d, 100000000);
        assert_int_equal(a.count, 5);
        assert_int_equal(ask(&s, &a, 2), LIM_OK); /* it is where it was */
        store_step(&s, true);
        if (seed & 1) /* the row of the step alone says so; else the cursor's has taken it over */
            durable_settle(&w.d, 100000000);
        if (seed & 2)
            durable_kill(&w.d);
        else
            durable_power_off(&w.d);
        log_world_start(&w);
        hearer_open(&a, &w, LIM_DONE, 8, cursor("c"));
        hearer_until(&a, 4);
        for (uint32_t i = 0; i < 4; i++)
            assert_int_not_equal(a.seqs[i], 2);
        durable_settle(&w.d, 100000000);
        durable_kill(&w.d);
        log_world_start(&w);
        hearer_open(&a, &w, LIM_DONE, 8, cursor("c"));
        durable_settle(&w.d, 1000000000);
        assert_int_equal(a.count, 0);
        log_world_close(&w);
    }
}

static void test_what_a_step_has_goes_to_somebody_else_only_if_the_step_fails(void **state) /* proves XO2 */
{
    (void)state;
    static stepping s;
    log_world_open(&w, 41, NULL);
    publish_some(&w, 1, 2);
    log_world_wait(&w);
    lim_read_opts read = cursor("c");
    read.standby = true;
    hearer_open(&a, &w, LIM_HOLD, 8, read);
    hearer_open(&b, &w, LIM_DONE, 8, read);
    hearer_until(&a, 2);
    assert_int_equal(ask(&s, &a, 1), LIM_OK);
    hearer_close(&a);
    durable_settle(&w.d, 1000000000);
    assert_int_equal(b.count, 1);
    assert_int_equal(b.seqs[0], 2);
    store_step(&s, false);
    hearer_until(&b, 2);
    assert_int_equal(b.seqs[1], 1);
    hearer_open(&a, &w, LIM_DONE, 8, (lim_read_opts){ .from = LIM_FROM_ALL });
    hearer_until(&a, 2);
    assert_int_equal(ask(&s, &a, 1), LIM_E_MISUSE); /* no cursor */
    log_world_close(&w);
}

/* ---- the end of channels ---- */

static bool count_row(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    ++*(uint32_t *)ctx;
    return true;
}

static uint32_t cursor_rows(void)
{
    uint32_t rows = 0;
    lim_bytes none = lim__bytes(NULL, 0);
    assert_int_equal(lim__store_scan(lim__durable_store(w.d.bus), LIM__TABLE_CURSORS, none, none, count_row, &rows), 0);
    return rows;
}

static void test_a_closed_channel_keeps_its_cursors(void **state) /* proves CH10 DU6 */
{
    (void)state;
    log_world_open(&w, 42, NULL);
    publish_some(&w, 1, 4);
    log_world_wait(&w);
    hearer_open(&a, &w, LIM_HOLD, 2, cursor("c"));
    hearer_until(&a, 2);
    assert_int_equal(hearer_ack(&a, 1), LIM_OK);
    assert_int_equal(lim_channel_close(w.d.bus, w.channel), LIM_OK);
    durable_until(&w.d, hearer_has_ended, &a);
    durable_settle(&w.d, 1000000000);
    assert_int_equal(cursor_rows(), 1);
    log_world_channel(&w, "orders", NULL);
    hearer_open(&a, &w, LIM_DONE, 8, cursor("c"));
    hearer_until(&a, 3);
    assert_int_equal(a.seqs[0], 2);
    publish_some(&w, 5, 1);
    hearer_until(&a, 4);
    log_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_forgotten_or_has_expired_is_passed_over),
        cmocka_unit_test(test_a_message_that_went_bad_is_named_and_the_others_come),
        cmocka_unit_test(test_a_step_acknowledges_with_what_it_stores_or_not_at_all),
        cmocka_unit_test(test_what_a_step_has_goes_to_somebody_else_only_if_the_step_fails),
        cmocka_unit_test(test_a_closed_channel_keeps_its_cursors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
