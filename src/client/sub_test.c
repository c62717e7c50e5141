/* SPDX-License-Identifier: Apache-2.0
 * sub_test.c - subscriptions: delivery, acknowledgement, and what is left of them after a break. */
#include "client/fake.h"

typedef struct reader {
    uint64_t seqs[64];
    int count, ready, ends;
    lim_err why;
    char channel[32], detail[64];
    lim_done answer;
    lim_sub leave; /* ends this one from inside */
    bool complete; /* says so before it returns */
} reader;

static lim_done on_message(lim_client *c, const lim_delivery *d, void *ctx)
{
    reader *r = ctx;
    assert_int_equal(r->ends, 0);
    assert_null(d->msg); /* a view: nothing was copied */
    r->seqs[r->count++ % 64] = d->seq;
    memset(r->channel, 0, sizeof r->channel);
    memcpy(r->channel, d->channel.ptr, d->channel.len);
    if (r->leave.id)
        assert_int_equal(lim_client_unsubscribe(c, r->leave), LIM_OK);
    if (r->complete)
        assert_int_equal(lim_client_complete(c, (lim_sub){ 1 }, d->seq), LIM_OK);
    return r->answer ? r->answer : LIM_DONE;
}
static void on_end(void *ctx, lim_err why, const char *detail)
{
    reader *r = ctx;
    r->ends++;
    r->why = why;
    strncpy(r->detail, detail, sizeof r->detail - 1);
}
static void on_ready(void *ctx)
{
    ((reader *)ctx)->ready++;
}

static lim_sub subscribe(lim_client *c, reader *r, uint32_t window)
{
    lim_sub sub;
    lim_client_sub_opts opts = {
        .size = sizeof opts, .window = window, .handler = { on_message, on_end, r }, .on_ready = on_ready
    };
    assert_int_equal(lim_client_subscribe(c, "a.*", &opts, NULL, &sub), LIM_OK);
    return sub;
}

static uint32_t accept_sub(fake *f, lim_client *c)
{
    pump(f, c);
    HEAR(f, SUBSCRIBE, subscribe, s);
    SAY(f, subscribed, .stream = s.stream, .subscription = 5);
    pump(f, c);
    return s.stream;
}

static void deliver(fake *f, uint32_t stream, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        SAY(f, deliver, .stream = stream, .seq = first + i, .channel = TEXT("a.b"), .payload = TEXT("m"));
}

static uint64_t acked(fake *f)
{
    HEAR(f, ACK, ack, a);
    return a.upto_seq;
}

/* Acknowledgements up to `last`, none of them later than `step` messages after the one before. */
static void acked_in_steps(fake *f, uint64_t from, uint64_t last, uint64_t step)
{
    while (from < last) {
        uint64_t upto = acked(f);
        assert_in_range(upto, from + 1, from + step);
        from = upto;
    }
    silent(f);
}

static void test_a_subscription_asks_for_what_was_said_or_the_defaults(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    subscribe(c, &r, 0);
    pump(f, c);
    HEAR(f, SUBSCRIBE, subscribe, s);
    assert_int_equal(s.window, 1024);
    assert_int_equal(s.backlog, 65536);
    assert_int_equal(s.policy, 0);
    assert_true(lim__bytes_eq(s.pattern, TEXT("a.*")));
    assert_int_equal(r.ready, 0);
    SAY(f, subscribed, .stream = s.stream);
    SAY(f, deliver, .stream = s.stream, .seq = 1);
    pump(f, c);
    assert_int_equal(r.ready, 1);
    assert_string_equal(r.channel, "a.*"); /* unnamed: the pattern is the channel */
    fake_end(f, c);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.why, LIM_OK);
}

static void test_acknowledgements_come_at_half_a_window_and_when_all_is_handled(void **state) /* proves PR3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    subscribe(c, &r, 10);
    uint32_t stream = accept_sub(f, c);
    deliver(f, stream, 1, 3);
    pump(f, c);
    acked_in_steps(f, 0, 3, 5);
    deliver(f, stream, 4, 10);
    pump(f, c);
    assert_int_equal(r.count, 13);
    acked_in_steps(f, 3, 13, 5);
    fake_end(f, c);
}

static void test_held_messages_hold_the_acknowledgement(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    lim_sub sub = subscribe(c, &r, 100);
    uint32_t stream = accept_sub(f, c);
    deliver(f, stream, 1, 1);
    pump(f, c);
    r.answer = LIM_DONE;
    deliver(f, stream, 2, 3);
    pump(f, c);
    r.answer = LIM_HOLD;
    deliver(f, stream, 5, 1);
    pump(f, c);
    silent(f); /* 1 is held: nothing is done */
    assert_int_equal(lim_client_complete(c, sub, 6), LIM_E_INVALID);
    assert_int_equal(lim_client_complete(c, (lim_sub){ 99 }, 1), LIM_E_GONE);
    assert_int_equal(lim_client_complete(c, sub, 1), LIM_OK);
    pump(f, c);
    assert_int_equal(acked(f), 4);
    assert_int_equal(lim_client_complete(c, sub, 5), LIM_OK);
    pump(f, c);
    assert_int_equal(acked(f), 5);
    r.complete = true; /* completed before its handler said that it holds it */
    deliver(f, stream, 6, 1);
    pump(f, c);
    assert_int_equal(acked(f), 6);
    fake_end(f, c);
}

static void test_after_unsubscribe_nothing_is_delivered_and_the_end_is_told_once(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    lim_sub sub = subscribe(c, &r, 10);
    uint32_t stream = accept_sub(f, c);
    deliver(f, stream, 1, 5);
    assert_int_equal(lim_client_unsubscribe(c, sub), LIM_OK);
    assert_int_equal(lim_client_unsubscribe(c, sub), LIM_E_GONE);
    assert_int_equal(lim_client_timeout_ms(c), 0); /* its end is to be told */
    assert_int_equal(r.ends, 0);
    pump(f, c);
    assert_int_equal(r.count, 0);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.why, LIM_OK);
    take(f, LIM__UNSUBSCRIBE);
    SAY(f, ended, .stream = stream, .code = 0);
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    fake_end(f, c);
    assert_int_equal(r.ends, 1);
}

static void test_a_handler_may_end_its_own_subscription(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    r.leave = subscribe(c, &r, 10);
    deliver(f, accept_sub(f, c), 1, 5);
    pump(f, c);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.ends, 1);
    fake_end(f, c);
    assert_int_equal(r.ends, 1);
}

static void test_a_refused_or_ended_subscription_is_told_why(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 }, r2 = { 0 };
    subscribe(c, &r, 10);
    subscribe(c, &r2, 10);
    pump(f, c);
    HEAR(f, SUBSCRIBE, subscribe, s);
    HEAR(f, SUBSCRIBE, subscribe, s2);
    SAY(f, ended, .stream = s.stream, .code = LIM_E_INVALID, .detail = TEXT("no such pattern"));
    SAY(f, subscribed, .stream = s2.stream);
    SAY(f, ended, .stream = s2.stream, .code = LIM_E_FULL, .detail = TEXT("too slow"));
    pump(f, c);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.why, LIM_E_INVALID);
    assert_string_equal(r.detail, "no such pattern");
    assert_int_equal(r2.ends, 1);
    assert_int_equal(r2.why, LIM_E_FULL);
    reconnect(f, c);
    silent(f); /* and it is not asked for again */
    fake_end(f, c);
    assert_int_equal(r.ends + r2.ends, 2);
}

static void test_a_subscription_is_made_again_after_a_break_and_its_numbers_go_on(void **state) /* proves WI6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    lim_sub sub = subscribe(c, &r, 10);
    deliver(f, accept_sub(f, c), 1, 4);
    pump(f, c);
    silent(f);
    reconnect(f, c);
    uint32_t stream = accept_sub(f, c);
    assert_int_equal(r.ready, 2);
    assert_int_equal(lim_client_complete(c, sub, 4), LIM_OK);
    pump(f, c);
    silent(f); /* the new connection knows nothing of these */
    r.answer = LIM_DONE;
    deliver(f, stream, 1, 2);
    pump(f, c);
    assert_int_equal(r.seqs[3], 4);
    assert_int_equal(r.seqs[4], 5);
    assert_int_equal(acked(f), 2);
    assert_int_equal(r.ends, 0);
    fake_end(f, c);
    assert_int_equal(r.ends, 1);
}

static void test_what_was_held_before_a_break_holds_nothing_after_it(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    subscribe(c, &r, 10);
    deliver(f, accept_sub(f, c), 1, 4);
    pump(f, c);
    reconnect(f, c);
    r.answer = LIM_DONE;
    deliver(f, accept_sub(f, c), 1, 3);
    pump(f, c);
    assert_int_equal(acked(f), 3);
    fake_end(f, c);
}

static void test_a_subscription_made_while_down_is_made_when_up(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    server_breaks(f);
    pump(f, c);
    lim_sub sub = subscribe(c, &r, 10);
    reader r2 = { 0 };
    lim_sub sub2 = subscribe(c, &r2, 10);
    assert_int_equal(lim_client_unsubscribe(c, sub2), LIM_OK);
    pump(f, c);
    assert_int_equal(r2.ends, 1);
    later(f, c, 100);
    deliver(f, accept_sub(f, c), 1, 1);
    pump(f, c);
    assert_int_equal(r.count, 1);
    assert_int_equal(acked(f), 1);
    assert_int_equal(lim_client_unsubscribe(c, sub), LIM_OK);
    pump(f, c);
    take(f, LIM__UNSUBSCRIBE);
    silent(f);
    fake_end(f, c);
}

static void test_a_server_that_counts_backwards_is_left(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    subscribe(c, &r, 10);
    uint32_t stream = accept_sub(f, c);
    deliver(f, stream, 1, 2);
    deliver(f, stream, 2, 1);
    pump(f, c);
    assert_int_equal(r.count, 2);
    assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
    fake_end(f, c);
    assert_int_equal(r.ends, 1);
}

static void test_subscription_options_are_checked(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    lim_sub sub;
    lim_diag diag = { 0 };
    lim_client_sub_opts good = { .size = sizeof good, .handler = { on_message, on_end, &r } }, o = good;
    assert_int_equal(lim_client_subscribe(c, "", &good, &diag, &sub), LIM_E_INVALID);
    assert_int_equal(lim_client_subscribe(c, "a", NULL, &diag, &sub), LIM_E_INVALID);
    o.size = 0;
    assert_int_equal(lim_client_subscribe(c, "a", &o, &diag, &sub), LIM_E_MISUSE);
    o = good;
    o.handler.on_message = NULL;
    assert_int_equal(lim_client_subscribe(c, "a", &o, &diag, &sub), LIM_E_MISUSE);
    o = good;
    o.backlog = LIM_UNLIMITED;
    assert_int_equal(lim_client_subscribe(c, "a", &o, &diag, &sub), LIM_E_MISUSE);
    o = good;
    o.policy = (lim_policy)5;
    assert_int_equal(lim_client_subscribe(c, "a", &o, &diag, &sub), LIM_E_MISUSE);
    assert_true(diag.text[0] != '\0');
    fake_end(f, c);
    assert_int_equal(r.ends, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_subscription_asks_for_what_was_said_or_the_defaults),
        cmocka_unit_test(test_acknowledgements_come_at_half_a_window_and_when_all_is_handled),
        cmocka_unit_test(test_held_messages_hold_the_acknowledgement),
        cmocka_unit_test(test_after_unsubscribe_nothing_is_delivered_and_the_end_is_told_once),
        cmocka_unit_test(test_a_handler_may_end_its_own_subscription),
        cmocka_unit_test(test_a_refused_or_ended_subscription_is_told_why),
        cmocka_unit_test(test_a_subscription_is_made_again_after_a_break_and_its_numbers_go_on),
        cmocka_unit_test(test_what_was_held_before_a_break_holds_nothing_after_it),
        cmocka_unit_test(test_a_subscription_made_while_down_is_made_when_up),
        cmocka_unit_test(test_a_server_that_counts_backwards_is_left),
        cmocka_unit_test(test_subscription_options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
