/* SPDX-License-Identifier: Apache-2.0
 * reader_care_test.c - readers where messages were forgotten, have expired or went bad; steps; what becomes of cursors.
 */
#include "bus/log_inside.h"
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

/* ---- readers that are killed ---- */

static lim_pid kill_reader(void)
{
    lim_pid pid = { 0 };
    assert_int_equal(lim__readers_list(w.d.bus, lim__str("orders"), lim__str("c"), &pid, 1), 1);
    assert_int_equal(lim_runtime_exit(w.d.bus->rt, pid, LIM_KILL), LIM_OK);
    return pid;
}

static lim_census census(void)
{
    lim_census now;
    durable_settle(&w.d, 1000000000);
    lim_runtime_census(w.d.bus->rt, &now);
    return now;
}

static void assert_same(const lim_census *before)
{
    lim_census now = census();
    assert_int_equal(now.processes, before->processes);
    assert_int_equal(now.monitors, before->monitors);
    assert_int_equal(now.timers, before->timers);
    assert_int_equal(now.messages, before->messages);
    assert_int_equal(now.letter_bytes, before->letter_bytes);
}

static void test_a_reader_that_is_killed_is_made_again_and_goes_on(void **state) /* proves DU6 */
{
    (void)state;
    for (uint64_t seed = 50; seed < 60; seed++) {
        log_world_open(&w, seed, NULL);
        publish_some(&w, 1, 10);
        log_world_wait(&w);
        hearer_open(&a, &w, LIM_HOLD, 4, cursor("c"));
        hearer_until(&a, 4);
        assert_int_equal(hearer_ack(&a, 2), LIM_OK);
        hearer_until(&a, 5);
        const lim_census before = census();
        lim_pid first = kill_reader();
        hearer_until(&a, 9);
        assert_same(&before);
        lim_pid second;
        assert_int_equal(lim__readers_list(w.d.bus, lim__str("orders"), lim__str("c"), &second, 1), 1);
        assert_int_not_equal(first.id, second.id);
        static const uint64_t again[] = { 1, 3, 4, 5 };
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(a.seqs[5 + i], again[i]);
            assert_int_equal(a.deliveries[5 + i], 2);
            assert_int_equal(hearer_ack(&a, again[i]), LIM_OK);
        }
        hearer_until(&a, 13);
        assert_int_equal(a.seqs[9], 6);
        assert_int_equal(a.ends, 0);
        kill_reader();
        kill_reader();
        hearer_close(&a);
        hearer_open(&a, &w, LIM_DONE, 4, cursor("c")); /* nobody is in it any more */
        hearer_until(&a, 5);
        assert_int_equal(a.seqs[0], 6);
        hearer_close(&a);
        durable_settle(&w.d, 1000000000);
        durable_kill(&w.d);
        log_world_start(&w);
        hearer_open(&a, &w, LIM_DONE, 4, cursor("c"));
        durable_settle(&w.d, 1000000000);
        assert_int_equal(a.count, 0);
        log_world_close(&w);
    }
}

static void test_without_a_cursor_the_end_of_the_reader_is_the_end(void **state)
{
    (void)state;
    log_world_open(&w, 61, NULL);
    publish_some(&w, 1, 3);
    log_world_wait(&w);
    const lim_census before = census();
    hearer_open(&a, &w, LIM_DONE, 4, (lim_read_opts){ .from = LIM_FROM_ALL });
    hearer_until(&a, 3);
    static stepping s;
    assert_int_equal(lim__reader_of(w.d.bus, a.sub, &s.ack.reading), LIM_OK);
    assert_int_equal(lim_runtime_exit(w.d.bus->rt, s.ack.reading.reader, LIM_KILL), LIM_OK);
    durable_until(&w.d, hearer_has_ended, &a);
    assert_int_equal(a.ends, 1);
    assert_same(&before);
    log_world_close(&w);
}

static void test_a_step_decides_even_if_the_reader_is_killed_meanwhile(void **state) /* proves XO2 */
{
    (void)state;
    static stepping s;
    for (uint64_t seed = 62; seed < 70; seed++) {
        bool good = seed & 1, late = seed & 2;
        log_world_open(&w, seed, NULL);
        publish_some(&w, 1, 3);
        log_world_wait(&w);
        hearer_open(&a, &w, LIM_HOLD, 8, cursor("c"));
        hearer_until(&a, 3);
        assert_int_equal(ask(&s, &a, 2), LIM_OK);
        kill_reader();
        if (late)
            durable_settle(&w.d, 1000000000);
        store_step(&s, good);
        if (!late)
            kill_reader(); /* with the news of it in its hands */
        durable_settle(&w.d, 1000000000);
        assert_int_equal(a.count, good ? 5 : 6);
        for (uint32_t i = 3; i < 5 && good; i++)
            assert_int_not_equal(a.seqs[i], 2);
        hearer_close(&a);
        durable_settle(&w.d, 1000000000);
        log_world_close(&w);
    }
}

static void test_a_cursor_is_deleted_although_its_reader_is_killed(void **state) /* proves CH10 */
{
    (void)state;
    for (uint64_t seed = 70; seed < 90; seed++) {
        log_world_open(&w, seed, NULL);
        publish_some(&w, 1, 3);
        log_world_wait(&w);
        hearer_open(&a, &w, LIM_HOLD, 8, cursor("c"));
        hearer_until(&a, 3);
        lim__log *log;
        lim_pid reader;
        assert_int_equal(lim__log_find(w.d.bus, lim__str("orders"), &log), LIM_OK);
        assert_int_equal(lim__log_delete(log, &(lim__log_changed){ 0 }), LIM_OK);
        lim__log_unref(log);
        lim__sim_run(w.d.sim, lim__sim_now(w.d.sim) + (seed - 70) * 20000, NULL, NULL);
        if (lim__readers_list(w.d.bus, lim__str("orders"), lim__str("c"), &reader, 1) == 1)
            (void)!lim_runtime_exit(w.d.bus->rt, reader, LIM_KILL);
        durable_settle(&w.d, 2000000000);
        assert_int_equal(cursor_rows(), 0);
        assert_int_equal(a.ends, 1);
        log_world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_forgotten_or_has_expired_is_passed_over),
        cmocka_unit_test(test_a_message_that_went_bad_is_named_and_the_others_come),
        cmocka_unit_test(test_a_step_acknowledges_with_what_it_stores_or_not_at_all),
        cmocka_unit_test(test_what_a_step_has_goes_to_somebody_else_only_if_the_step_fails),
        cmocka_unit_test(test_a_closed_channel_keeps_its_cursors),
        cmocka_unit_test(test_a_reader_that_is_killed_is_made_again_and_goes_on),
        cmocka_unit_test(test_without_a_cursor_the_end_of_the_reader_is_the_end),
        cmocka_unit_test(test_a_step_decides_even_if_the_reader_is_killed_meanwhile),
        cmocka_unit_test(test_a_cursor_is_deleted_although_its_reader_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
