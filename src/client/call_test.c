/* SPDX-License-Identifier: Apache-2.0
 * call_test.c - publishes, asks and dispatches in flight: each ends exactly once, whatever happens. */
#include "client/fake.h"

typedef struct ends { /* of any number of calls */
    int count, accepted, deferred, rejected, closed;
    int how[16]; /* by lim_how */
    lim_handed handed;
    char text[64];
    uint32_t excluded;
    uint64_t crashed_wall_us, rerouted_ns, elapsed_ns, task;
    uint64_t observed_wall_us, rerouted_wall_us, last_rerouted; /* of the first excluded; of the last */
    lim_why why;
    lim_client *again; /* publish and ask once more from inside */
} ends;

static void on_admission(void *ctx, lim_err err, const lim_admission *a)
{
    ends *e = ctx;
    e->count++;
    e->closed += err == LIM_E_CLOSED;
    assert_true((a == NULL) == (err != LIM_OK));
    if (a) {
        e->accepted += a->verdict == LIM_ACCEPT;
        e->deferred += a->verdict == LIM_DEFER;
        e->rejected += a->verdict == LIM_REJECT;
        e->why = a->why;
    }
    if (e->again) {
        lim_err again = lim_client_publish_async(e->again, "a", TEXT("again"), NULL, NULL, NULL);
        assert_int_equal(again, err == LIM_OK ? LIM_OK : LIM_E_UNREACHABLE);
    }
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    ends *e = ctx;
    lim_bytes text = o->how == LIM_HOW_REPLY ? o->payload : o->detail;
    assert_true(o->how >= LIM_HOW_REPLY && o->how <= LIM_HOW_LOST && text.len < sizeof e->text);
    e->count++;
    e->how[o->how]++;
    e->handed = o->handed_over;
    e->excluded = o->excluded_count;
    if (o->excluded_count > 0) {
        e->observed_wall_us = o->excluded[0].observed_wall_us;
        e->rerouted_wall_us = o->excluded[0].rerouted_wall_us;
        e->last_rerouted = o->excluded[o->excluded_count - 1].rerouted_wall_us;
    }
    e->crashed_wall_us = o->crashed_wall_us;
    e->rerouted_ns = o->rerouted_ns;
    e->elapsed_ns = o->elapsed_ns;
    memset(e->text, 0, sizeof e->text);
    if (text.len > 0)
        memcpy(e->text, text.ptr, text.len);
}

static void on_dispatched(void *ctx, lim_err err, const lim_admission *a, lim_conv task)
{
    ends *e = ctx;
    on_admission(e, err, a);
    e->task = task.id;
}

static void ask(lim_client *c, ends *e, uint64_t *call)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 5000, .type = "t" };
    assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), &opts, on_outcome, e, call), LIM_OK);
}

/* ---- publishing ---- */

static void test_a_run_of_answers_reaches_every_callback_in_order(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    ends e = { 0 };
    for (int i = 0; i < 1000; i++)
        assert_int_equal(lim_client_publish_async(c, "a.b", TEXT("hi"), NULL, i % 3 ? on_admission : NULL, &e), LIM_OK);
    pump(f, c);
    uint32_t first = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        HEAR(f, PUBLISH, publish, p);
        first = i == 0 ? p.corr : first;
        assert_int_equal(p.corr, first + i);
        assert_true(lim__bytes_eq(p.channel, TEXT("a.b")) && lim__bytes_eq(p.payload, TEXT("hi")));
    }
    SAY(f, published, .first_corr = first, .count = 300, .verdict = LIM_ACCEPT, .matched = 1);
    pump(f, c);
    assert_int_equal(e.accepted, 200);
    SAY(f, published, .first_corr = first + 300, .count = 1, .verdict = LIM_DEFER, .why = LIM_WHY_SUBSCRIPTION_FULL);
    SAY(f, published, .first_corr = first + 301, .count = 699, .verdict = LIM_REJECT, .why = LIM_WHY_NO_SUBSCRIBER);
    pump(f, c);
    assert_int_equal(e.deferred, 0); /* the 301st has no callback */
    assert_int_equal(e.rejected, 466);
    assert_int_equal(e.count, 666);
    assert_int_equal(e.why, LIM_WHY_NO_SUBSCRIBER);
    fake_end(f, c);
    assert_int_equal(e.count, 666);
}

typedef struct receipts {
    uint64_t seq[16], at_us;
    uint32_t count;
} receipts;

static void on_receipt(void *ctx, const lim_receipt *r)
{
    receipts *got = ctx;
    if (r->admission.verdict == LIM_REJECT)
        return;
    assert_int_equal(r->durability, LIM_CLASS_DISK);
    got->at_us = r->at_wall_us;
    got->seq[got->count++] = r->seq;
}

static void test_a_row_of_receipts_reaches_every_callback_with_its_number(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    receipts got = { 0 };
    lim_publish_opts opts = { .size = sizeof opts, .on_receipt = on_receipt, .ctx = &got };
    for (int i = 0; i < 10; i++) /* 2, 3, 6, 7: nobody wants to know */
        assert_int_equal(lim_client_publish_async(c, "log", TEXT("hi"), i % 4 < 2 ? &opts : NULL, NULL, NULL), LIM_OK);
    pump(f, c);
    HEAR(f, PUBLISH, publish, p);
    SAY(f, published, .first_corr = p.corr + 9, .count = 1, .verdict = LIM_REJECT); /* not to a log, it seems */
    SAY(f, stored, .corr = p.corr, .count = 6, .verdict = LIM_ACCEPT, .class = LIM_CLASS_DISK, .seq = 42, .at_us = 7);
    pump(f, c);
    assert_int_equal(got.count, 4);
    assert_int_equal(got.seq[1], 43);
    assert_int_equal(got.seq[2], 46);
    assert_int_equal(got.seq[3], 47);
    assert_int_equal(got.at_us, 7);
    SAY(f, stored, .corr = p.corr + 6, .count = 2, .verdict = LIM_ACCEPT, .class = LIM_CLASS_DISK, .seq = 90);
    SAY(f, stored, .corr = p.corr + 8, .count = 1, .verdict = LIM_ACCEPT, .class = LIM_CLASS_DISK, .seq = 95);
    pump(f, c);
    assert_int_equal(got.count, 5);
    assert_int_equal(got.seq[4], 95);
    fake_end(f, c);
}

static void test_publish_options_and_names_are_checked(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    char longest[258];
    memset(longest, 'a', sizeof longest);
    longest[256] = '\0';
    lim_publish_opts mandatory = { .size = sizeof mandatory, .mandatory = true }, forgotten = { 0 };
    assert_int_equal(lim_client_publish_async(c, "", TEXT("x"), NULL, NULL, NULL), LIM_E_INVALID);
    assert_int_equal(lim_client_publish_async(c, longest, TEXT("x"), NULL, NULL, NULL), LIM_E_TOOBIG);
    assert_int_equal(lim_client_publish_async(c, "\xff", TEXT("x"), NULL, NULL, NULL), LIM_E_INVALID);
    assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), &forgotten, NULL, NULL), LIM_E_MISUSE);
    void *large = calloc(1, LIM__LENGTH_MAX + 1);
    assert_int_equal(lim_client_publish_async(c, "a", lim__bytes(large, LIM__LENGTH_MAX), NULL, NULL, NULL),
                     LIM_E_TOOBIG);
    free(large);
    pump(f, c);
    silent(f); /* what was refused had no effect */
    assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), &mandatory, NULL, NULL), LIM_OK);
    pump(f, c);
    assert_int_equal(take(f, LIM__PUBLISH)->flags, LIM__FLAG_MANDATORY);
    fake_end(f, c);
}

static void test_output_is_bounded(void **state) /* proves PR5 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    size_t size = 100000, offered = 0;
    void *payload = calloc(1, size);
    f->write_room = 0;
    lim_err err;
    while ((err = lim_client_publish_async(c, "a", lim__bytes(payload, size), NULL, NULL, NULL)) == LIM_OK) {
        offered += size;
        assert_true(offered < 9 * 1024 * 1024);
        pump(f, c);
    }
    assert_int_equal(err, LIM_E_FULL);
    f->write_room = SIZE_MAX;
    pump(f, c);
    assert_int_equal(lim_client_publish_async(c, "a", lim__bytes(payload, size), NULL, NULL, NULL), LIM_OK);
    free(payload);
    fake_end(f, c);
}

/* ---- asking ---- */

static void test_asks_end_as_the_server_says_in_any_order(void **state) /* proves CV3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    ends e[LIM_HOW_LOST + 1] = { 0 };
    uint64_t call[LIM_HOW_LOST + 1];
    for (int how = LIM_HOW_REPLY; how <= LIM_HOW_LOST; how++)
        ask(c, &e[how], &call[how]);
    pump(f, c);
    for (int how = LIM_HOW_REPLY; how <= LIM_HOW_LOST; how++) {
        HEAR(f, ASK, ask, a);
        assert_int_equal(a.corr, call[how]);
        assert_int_equal(a.timeout_ms, 5000);
        assert_int_equal(a.on_crash, LIM_CRASH_FAIL);
        assert_true(lim__bytes_eq(a.type, TEXT("t")));
    }
    lim__buf excluded = { 0 };
    lim__lost list = { 0 };
    for (uint64_t i = 0; i < 40; i++) /* the last one's request nobody has taken since */
        assert_int_equal(lim__lost_add(&excluded, &list, &(lim__lost_one){ TEXT("w1"), 4000 - i, i < 39 ? 30 : 0 }),
                         LIM_OK);
    f->now += 7 * FAKE_MS;
    for (int how = LIM_HOW_LOST; how >= LIM_HOW_REPLY; how--)
        SAY(f, outcome, .corr = call[how], .how = (uint8_t)how, .handed_over = LIM_HANDED_YES,
            .crashed_us = how == LIM_HOW_CRASHED ? 1500 : 0, .rerouted_us = 20, .excluded = list,
            .detail = TEXT("detail"), .payload = how == LIM_HOW_REPLY ? TEXT("42") : TEXT(""));
    pump(f, c);
    for (int how = LIM_HOW_REPLY; how <= LIM_HOW_LOST; how++) {
        assert_int_equal(e[how].count, 1);
        assert_int_equal(e[how].how[how], 1);
        assert_int_equal(e[how].excluded, 40);
        assert_int_equal(e[how].observed_wall_us, f->os.wall_ns(&f->os) / 1000 - 4000);
        assert_int_equal(e[how].rerouted_wall_us, e[how].observed_wall_us + 30);
        assert_int_equal(e[how].last_rerouted, 0);
        assert_int_equal(e[how].elapsed_ns, 7 * FAKE_MS);
        assert_int_equal(e[how].rerouted_ns, 20000);
        assert_string_equal(e[how].text, how == LIM_HOW_REPLY ? "42" : "detail");
    }
    assert_int_equal(e[LIM_HOW_CRASHED].crashed_wall_us, f->os.wall_ns(&f->os) / 1000 - 1500);
    assert_int_equal(e[LIM_HOW_REPLY].crashed_wall_us, 0);
    lim__buf_fini(&excluded);
    fake_end(f, c);
}

static void test_a_broken_connection_ends_all_in_flight_once(void **state) /* proves CV3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    ends publishes = { .again = c }, sent = { 0 }, unsent = { 0 }, offered = { 0 }, task = { 0 };
    lim_dispatch_opts opts = { .size = sizeof opts, .timeout_ms = 5000 };
    assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), NULL, on_admission, &publishes), LIM_OK);
    ask(c, &sent, NULL);
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("t"), &opts, on_dispatched, on_outcome, &task), LIM_OK);
    pump(f, c);
    SAY(f, dispatched, .corr = 2, .verdict = LIM_ACCEPT, .task = 90);
    pump(f, c);
    assert_int_equal(task.accepted, 1);
    assert_int_equal(task.task, 90);
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("t"), &opts, on_dispatched, on_outcome, &offered), LIM_OK);
    pump(f, c);
    f->write_room = 0;
    assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), NULL, on_admission, &publishes), LIM_OK);
    ask(c, &unsent, NULL);
    server_breaks(f);
    pump(f, c);
    assert_int_equal(publishes.closed, 2);
    assert_int_equal(sent.how[LIM_HOW_LOST], 1);
    assert_int_equal(sent.handed, LIM_HANDED_UNKNOWN);
    assert_int_equal(sent.crashed_wall_us, f->os.wall_ns(&f->os) / 1000);
    assert_int_equal(unsent.how[LIM_HOW_LOST], 1);
    assert_int_equal(unsent.handed, LIM_HANDED_NO); /* not a byte of it had left */
    assert_int_equal(offered.closed, 1);
    assert_int_equal(offered.count, 1);
    assert_int_equal(task.how[LIM_HOW_LOST], 1);
    assert_int_equal(task.handed, LIM_HANDED_UNKNOWN);
    lim_ask_opts ask_opts = { .size = sizeof ask_opts, .timeout_ms = 5 };
    assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), &ask_opts, on_outcome, &sent, NULL), LIM_E_UNREACHABLE);
    f->write_room = SIZE_MAX;
    fake_end(f, c);
    assert_int_equal(publishes.count + sent.count + unsent.count + offered.count, 5);
    assert_int_equal(task.count, 2);
}

static void test_closing_ends_all_in_flight_once(void **state) /* proves CV3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    ends publishes = { 0 }, asks = { 0 }, tasks = { 0 };
    lim_dispatch_opts opts = { .size = sizeof opts, .timeout_ms = 5000 };
    for (int i = 0; i < 200; i++) {
        assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), NULL, on_admission, &publishes), LIM_OK);
        ask(c, &asks, NULL);
        assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("t"), &opts, on_dispatched, on_outcome, &tasks),
                         LIM_OK);
        if (i == 100)
            pump(f, c);
    }
    fake_conn *conn = fake_last(f);
    lim_client_close(c);
    assert_int_equal(publishes.closed, 200);
    assert_int_equal(asks.how[LIM_HOW_CLOSED], 200);
    assert_int_equal(tasks.closed, 200);
    assert_int_equal(publishes.count + asks.count + tasks.count, 600);
    fake_listen(f, conn);
    for (int i = 0; i < 200; i++) { /* what was queued was written, and the goodbye behind it */
        take(f, LIM__PUBLISH);
        take(f, LIM__ASK);
        take(f, LIM__DISPATCH);
    }
    silent(f);
    assert_int_equal(conn->wire.state, LIM__WIRE_CLOSING);
    assert_int_equal(conn->wire.code, LIM_OK);
    assert_true(conn->client_shut);
    fake_end(f, NULL);
}

static void test_what_is_said_before_the_first_connection_waits_for_it(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_client(f, NULL);
    ends publishes = { 0 }, asks = { 0 };
    uint64_t call;
    assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), NULL, on_admission, &publishes), LIM_OK);
    ask(c, &asks, &call);
    pump(f, c);
    HEAR(f, PUBLISH, publish, p);
    take(f, LIM__ASK);
    SAY(f, published, .first_corr = p.corr, .count = 1, .verdict = LIM_ACCEPT);
    SAY(f, outcome, .corr = call, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES, .payload = TEXT("ok"));
    pump(f, c);
    assert_int_equal(publishes.accepted, 1);
    assert_int_equal(asks.how[LIM_HOW_REPLY], 1);
    fake_end(f, c);
}

static void test_what_never_left_is_lost_but_not_handed_over(void **state)
{
    (void)state;
    fake *f = fake_new();
    f->refuse = ECONNREFUSED;
    lim_client *c = fake_client(f, NULL);
    ends publishes = { 0 }, asks = { 0 };
    assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), NULL, on_admission, &publishes), LIM_OK);
    ask(c, &asks, NULL);
    pump(f, c);
    assert_int_equal(publishes.closed, 1);
    assert_int_equal(asks.how[LIM_HOW_LOST], 1);
    assert_int_equal(asks.handed, LIM_HANDED_NO);
    f->refuse = 0;
    later(f, c, 100);
    silent(f);
    fake_end(f, c);
}

static void test_an_ask_that_was_held_and_sent_may_have_been_handed_over(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_client(f, NULL);
    ends asks = { 0 };
    ask(c, &asks, NULL);
    pump(f, c);
    server_breaks(f);
    pump(f, c);
    assert_int_equal(asks.handed, LIM_HANDED_UNKNOWN);
    fake_end(f, c);
}

static void test_a_cancelled_ask_still_ends_once(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    ends e = { 0 };
    uint64_t call;
    ask(c, &e, &call);
    assert_int_equal(lim_client_cancel(c, call), LIM_OK);
    assert_int_equal(lim_client_cancel(c, call + 1), LIM_E_GONE);
    pump(f, c);
    take(f, LIM__ASK);
    HEAR(f, CANCEL, cancel, x);
    assert_int_equal(x.corr, call);
    assert_int_equal(e.count, 0);
    SAY(f, outcome, .corr = call, .how = LIM_HOW_CANCELLED, .handed_over = LIM_HANDED_YES);
    pump(f, c);
    assert_int_equal(e.how[LIM_HOW_CANCELLED], 1);
    assert_int_equal(lim_client_cancel(c, call), LIM_E_GONE);
    fake_end(f, c);
    assert_int_equal(e.count, 1);
}

static void test_ask_options_are_checked(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    ends e = { 0 };
    lim_ask_opts opts = { .size = sizeof opts };
    assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), NULL, on_outcome, &e, NULL), LIM_E_INVALID);
    assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), &opts, on_outcome, &e, NULL), LIM_E_MISUSE);
    opts.timeout_ms = LIM_FOREVER;
    assert_int_equal(lim_client_ask_async(c, NULL, TEXT("q"), &opts, on_outcome, &e, NULL), LIM_E_INVALID);
    opts.participant.id = 9;
    assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), &opts, on_outcome, &e, NULL), LIM_E_INVALID);
    opts.wait = true;
    opts.on_crash = LIM_CRASH_NEXT;
    assert_int_equal(lim_client_ask_async(c, NULL, TEXT("q"), &opts, on_outcome, &e, NULL), LIM_OK);
    pump(f, c);
    HEAR(f, ASK, ask, a);
    assert_int_equal(a.timeout_ms, LIM__NO_TIMEOUT);
    assert_int_equal(a.on_crash, LIM_CRASH_NEXT);
    assert_int_equal(a.participant, 9);
    assert_int_equal(a.flags, LIM__FLAG_WAIT);
    fake_end(f, c);
}

/* ---- dispatching ---- */

static void test_a_dispatch_is_admitted_and_its_task_ends(void **state) /* proves GR13 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    ends e = { 0 }, refused = { 0 }, blind = { 0 };
    lim_dispatch_opts opts = { .size = sizeof opts, .timeout_ms = 5000, .type = "t", .losses_max = 3 };
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("job"), &opts, on_dispatched, on_outcome, &e), LIM_OK);
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("job"), &opts, on_dispatched, on_outcome, &refused),
                     LIM_OK);
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("job"), &opts, NULL, on_outcome, &blind), LIM_OK);
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("job"), &opts, NULL, NULL, NULL), LIM_OK);
    pump(f, c);
    HEAR(f, DISPATCH, dispatch, d);
    assert_int_equal(d.flags, LIM__FLAG_OUTCOME);
    assert_int_equal(d.losses_max, 3);
    HEAR(f, DISPATCH, dispatch, d2);
    HEAR(f, DISPATCH, dispatch, d3);
    HEAR(f, DISPATCH, dispatch, d4);
    assert_int_equal(d4.flags, 0);
    SAY(f, dispatched, .corr = d.corr, .verdict = LIM_DEFER, .task = 90, .limit = 1000, .current = 801);
    SAY(f, dispatched, .corr = d2.corr, .verdict = LIM_REJECT, .why = LIM_WHY_QUEUE_FULL, .retry_after_ms = 50);
    SAY(f, dispatched, .corr = d3.corr, .verdict = LIM_REJECT, .why = LIM_WHY_QUEUE_FULL);
    SAY(f, dispatched, .corr = d4.corr, .verdict = LIM_ACCEPT, .task = 91);
    pump(f, c);
    assert_int_equal(e.deferred, 1);
    assert_int_equal(e.task, 90);
    assert_int_equal(refused.rejected, 1);
    assert_int_equal(refused.why, LIM_WHY_QUEUE_FULL);
    assert_int_equal(blind.how[LIM_HOW_REFUSED], 1); /* nobody else would have told */
    SAY(f, outcome, .corr = d.corr, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES, .payload = TEXT("done"));
    pump(f, c);
    assert_int_equal(e.how[LIM_HOW_REPLY], 1);
    assert_string_equal(e.text, "done");
    assert_int_equal(e.count, 2);
    assert_int_equal(lim_client_timeout_ms(c), -1); /* nothing is expected any more */
    fake_end(f, c);
    assert_int_equal(e.count + refused.count + blind.count, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_of_answers_reaches_every_callback_in_order),
        cmocka_unit_test(test_a_row_of_receipts_reaches_every_callback_with_its_number),
        cmocka_unit_test(test_publish_options_and_names_are_checked),
        cmocka_unit_test(test_output_is_bounded),
        cmocka_unit_test(test_asks_end_as_the_server_says_in_any_order),
        cmocka_unit_test(test_a_broken_connection_ends_all_in_flight_once),
        cmocka_unit_test(test_closing_ends_all_in_flight_once),
        cmocka_unit_test(test_what_is_said_before_the_first_connection_waits_for_it),
        cmocka_unit_test(test_what_never_left_is_lost_but_not_handed_over),
        cmocka_unit_test(test_an_ask_that_was_held_and_sent_may_have_been_handed_over),
        cmocka_unit_test(test_a_cancelled_ask_still_ends_once),
        cmocka_unit_test(test_ask_options_are_checked),
        cmocka_unit_test(test_a_dispatch_is_admitted_and_its_task_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
