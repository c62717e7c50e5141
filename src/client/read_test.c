/* SPDX-License-Identifier: Apache-2.0
 * read_test.c - subscriptions that read a log: what is asked for, how it is acknowledged, and how it goes on after a
 * break. */
#include "client/fake.h"
#include "data/block.h"

#include <stdio.h>

typedef struct reader {
    uint64_t seqs[64];
    int count, ends, told;
    lim_err why, ack_err;
    lim_done answer;
    char deliveries[8];
} reader;

static lim_done on_message(lim_client *c, const lim_delivery *d, void *ctx)
{
    reader *r = ctx;
    lim_bytes text;
    (void)c;
    r->seqs[r->count++ % 64] = d->seq;
    r->deliveries[0] = '\0';
    if (lim_header(d->headers, "$deliveries", &text))
        snprintf(r->deliveries, sizeof r->deliveries, "%.*s", (int)text.len, (const char *)text.ptr);
    return r->answer ? r->answer : LIM_DONE;
}
static void on_end(void *ctx, lim_err why, const char *detail)
{
    reader *r = ctx;
    (void)detail;
    r->ends++;
    r->why = why;
}
static void on_done(void *ctx, lim_err err, const char *detail)
{
    reader *r = ctx;
    (void)detail;
    r->told++;
    r->ack_err = err;
}

static lim_sub read_log(lim_client *c, reader *r, uint32_t window, lim_read_opts read)
{
    lim_sub sub;
    lim_client_sub_opts opts = {
        .size = sizeof opts, .window = window, .handler = { on_message, on_end, r }, .read = read
    };
    assert_int_equal(lim_client_subscribe(c, "log", &opts, NULL, &sub), LIM_OK);
    return sub;
}

static uint32_t accept_read(fake *f, lim_client *c, const char *option, const char *text, uint64_t begins)
{
    lim_bytes value;
    pump(f, c);
    HEAR(f, SUBSCRIBE, subscribe, s);
    assert_true(lim__packed_get(s.options, lim__str(option), &value));
    if (!lim__bytes_eq(value, lim__str(text)))
        fail_msg("%s=%.*s, expected %s", option, (int)value.len, (const char *)value.ptr, text);
    SAY(f, subscribed, .flags = LIM__FLAG_READS, .stream = s.stream, .subscription = begins);
    pump(f, c);
    return s.stream;
}

static void deliver(fake *f, lim_client *c, uint32_t stream, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        SAY(f, deliver, .stream = stream, .seq = first + i, .payload = TEXT("m"));
    pump(f, c);
}

static void expect_ack(fake *f, uint64_t upto)
{
    HEAR(f, ACK, ack, a);
    assert_int_equal(a.upto_seq, upto);
}

static lim__f_confirm expect_confirm(fake *f, uint8_t how, uint64_t seq)
{
    HEAR(f, CONFIRM, confirm, a);
    assert_int_equal(a.how, how);
    assert_int_equal(a.seq, seq);
    return a;
}

static void test_without_a_cursor_it_goes_on_behind_what_it_has_seen(void **state) /* proves WI6 DU5 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    read_log(c, &r, 10, (lim_read_opts){ .from = LIM_FROM_NEW });
    accept_read(f, c, "from", "new", 41);
    reconnect(f, c);
    uint32_t stream = accept_read(f, c, "from", "seq:41", 41); /* nothing was seen, and nothing may be missed */
    deliver(f, c, stream, 41, 3);
    expect_ack(f, 43);
    reconnect(f, c);
    stream = accept_read(f, c, "from", "seq:44", 44);
    deliver(f, c, stream, 44, 1);
    expect_ack(f, 44);
    assert_int_equal(r.count, 4);
    assert_int_equal(r.seqs[3], 44);
    fake_end(f, c);
}

static void test_a_name_that_is_a_log_is_read_without_being_asked_to(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    read_log(c, &r, 10, (lim_read_opts){ 0 });
    pump(f, c);
    HEAR(f, SUBSCRIBE, subscribe, s);
    assert_int_equal(s.options.len, 0);
    assert_int_equal(s.policy, 0);
    SAY(f, subscribed, .flags = LIM__FLAG_READS, .stream = s.stream, .subscription = 8);
    pump(f, c);
    deliver(f, c, s.stream, 8, 2);
    expect_ack(f, 9);
    reconnect(f, c);
    accept_read(f, c, "from", "seq:10", 10);
    fake_end(f, c);
}

static void test_with_a_cursor_it_asks_for_the_cursor_again(void **state) /* proves WI6 DU6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    lim_sub sub = read_log(c, &r, 10, (lim_read_opts){ .from = LIM_FROM_ALL, .cursor = "billing" });
    deliver(f, c, accept_read(f, c, "cursor", "billing", 0), 1, 3);
    assert_int_equal(lim_client_ack(c, sub, 2, on_done, &r), LIM_OK);
    assert_int_equal(lim_client_ack(c, sub, 2, on_done, &r), LIM_E_NOTFOUND);
    pump(f, c);
    lim__f_confirm a = expect_confirm(f, 1, 2);
    assert_true(a.corr != 0);
    SAY(f, confirmed, .stream = a.stream, .corr = a.corr);
    pump(f, c);
    assert_int_equal(r.told, 1);
    assert_int_equal(r.ack_err, LIM_OK);
    assert_int_equal(lim_client_ack(c, sub, 1, on_done, &r), LIM_OK);
    pump(f, c);
    (void)expect_confirm(f, 1, 1);
    reconnect(f, c);
    assert_int_equal(r.told, 2);
    assert_int_equal(r.ack_err, LIM_E_CLOSED); /* it may come again */
    uint32_t stream = accept_read(f, c, "cursor", "billing", 0);
    r.answer = LIM_DONE;
    deliver(f, c, stream, 1, 1);
    expect_ack(f, 1);
    deliver(f, c, stream, 3, 1);
    expect_ack(f, 3);
    fake_end(f, c);
}

static void test_a_cursor_that_the_broken_connection_still_has_is_asked_for_again(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    read_log(c, &r, 10, (lim_read_opts){ .cursor = "billing" });
    accept_read(f, c, "cursor", "billing", 0);
    reconnect(f, c);
    for (int i = 0; i < 3; i++) {
        HEAR(f, SUBSCRIBE, subscribe, s);
        SAY(f, ended, .stream = s.stream, .code = LIM_E_EXISTS, .detail = TEXT("taken"));
        pump(f, c);
        silent(f);
        later(f, c, 260);
    }
    accept_read(f, c, "cursor", "billing", 0);
    assert_int_equal(r.ends, 0);
    reader second = { 0 }; /* one that was never there is refused */
    read_log(c, &second, 10, (lim_read_opts){ .cursor = "other" });
    pump(f, c);
    HEAR(f, SUBSCRIBE, subscribe, s);
    SAY(f, ended, .stream = s.stream, .code = LIM_E_EXISTS, .detail = TEXT("taken"));
    pump(f, c);
    assert_int_equal(second.ends, 1);
    assert_int_equal(second.why, LIM_E_EXISTS);
    fake_end(f, c);
}

static void test_a_cursor_whose_reader_has_died_is_asked_for_again(void **state) /* proves DU6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    lim_sub sub = read_log(c, &r, 10, (lim_read_opts){ .cursor = "billing" });
    uint32_t stream = accept_read(f, c, "cursor", "billing", 0);
    deliver(f, c, stream, 1, 2);
    assert_int_equal(lim_client_ack(c, sub, 1, on_done, &r), LIM_OK);
    pump(f, c);
    (void)expect_confirm(f, 1, 1);
    SAY(f, ended, .stream = stream, .code = LIM_E_UNREACHABLE, .detail = TEXT("ended"));
    pump(f, c);
    assert_int_equal(r.told, 1);
    assert_int_equal(r.ack_err, LIM_E_CLOSED); /* it may come again */
    silent(f);
    later(f, c, 260);
    stream = accept_read(f, c, "cursor", "billing", 0);
    r.answer = LIM_DONE;
    deliver(f, c, stream, 1, 2);
    expect_ack(f, 2);
    assert_int_equal(r.ends, 0);
    reader alone = { 0 }; /* without a cursor that is the end */
    read_log(c, &alone, 10, (lim_read_opts){ .from = LIM_FROM_ALL });
    stream = accept_read(f, c, "from", "all", 1);
    SAY(f, ended, .stream = stream, .code = LIM_E_UNREACHABLE, .detail = TEXT("ended"));
    pump(f, c);
    assert_int_equal(alone.ends, 1);
    fake_end(f, c);
}

static void test_what_is_refused_or_out_of_order_is_acknowledged_by_itself(void **state) /* proves DU6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    lim_sub sub = read_log(c, &r, 10, (lim_read_opts){ .cursor = "c" });
    uint32_t stream = accept_read(f, c, "cursor", "c", 0);
    deliver(f, c, stream, 5, 1);
    r.answer = LIM_DONE;
    deliver(f, c, stream, 6, 1); /* 5 is held: it cannot be said that all up to 6 is done */
    (void)expect_confirm(f, 1, 6);
    assert_int_equal(lim_client_complete(c, sub, 5), LIM_OK);
    pump(f, c);
    (void)expect_confirm(f, 2, 5);
    deliver(f, c, stream, 7, 1);
    expect_ack(f, 7);
    deliver(f, c, stream, 5, 1); /* again */
    (void)expect_confirm(f, 1, 5);
    r.answer = LIM_FAIL;
    deliver(f, c, stream, 8, 1);
    assert_int_equal(expect_confirm(f, 3, 8).delay_ms, UINT32_MAX);
    r.answer = LIM_HOLD;
    deliver(f, c, stream, 9, 1);
    assert_int_equal(lim_client_nack(c, sub, 9, 250), LIM_OK);
    assert_int_equal(lim_client_nack(c, sub, 9, 250), LIM_E_NOTFOUND);
    pump(f, c);
    assert_int_equal(expect_confirm(f, 3, 9).delay_ms, 250);
    r.answer = LIM_DONE;
    deliver(f, c, stream, 10, 1); /* 8 may be on its way again: 10 says nothing of it */
    (void)expect_confirm(f, 1, 10);
    silent(f);
    fake_end(f, c);
}

/* `n` messages in one frame; the first has the header `$key`. */
static void deliver_row(fake *f, lim_client *c, uint32_t stream, uint64_t first, uint32_t n)
{
    lim__block *b = lim__block_new(1000);
    assert_non_null(b);
    for (uint32_t i = 0; i < n; i++)
        assert_true(lim__block_add(b, i == 0 ? TEXT("k") : (lim_bytes){ 0 }, (lim_bytes){ 0 }, TEXT("m")));
    SAY(f, delivers, .stream = stream, .first = first, .count = n, .messages = lim__bytes(b->bytes, b->len));
    lim__block_unref(b);
    pump(f, c);
}

static void test_messages_in_a_row_are_handed_over_one_by_one(void **state) /* proves DU5 DU6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    lim_sub sub = read_log(c, &r, 10, (lim_read_opts){ .from = LIM_FROM_ALL });
    uint32_t stream = accept_read(f, c, "from", "all", 1);
    deliver_row(f, c, stream, 1, 10);
    assert_int_equal(r.count, 10);
    assert_int_equal(r.seqs[9], 10);
    expect_ack(f, 5); /* at half a window, */
    expect_ack(f, 10);
    r.answer = LIM_HOLD;
    deliver_row(f, c, stream, 11, 4);
    silent(f);
    assert_int_equal(lim_client_ack(c, sub, 12, NULL, NULL), LIM_OK);
    pump(f, c);
    (void)expect_confirm(f, 1, 12);
    reconnect(f, c);
    r.answer = LIM_DONE;
    stream = accept_read(f, c, "from", "seq:15", 15); /* behind all that was seen */
    deliver_row(f, c, stream, 15, 2);
    expect_ack(f, 16);
    assert_int_equal(r.count, 16);
    fake_end(f, c);
}

static void expect_refused(uint64_t first, uint32_t count, lim_bytes messages)
{
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { 0 };
    read_log(c, &r, 10, (lim_read_opts){ .from = LIM_FROM_ALL });
    uint32_t stream = accept_read(f, c, "from", "all", 1);
    SAY(f, delivers, .stream = stream, .first = first, .count = count, .messages = messages);
    pump(f, c);
    assert_int_equal(r.count, 0); /* none of them, if one is bad */
    assert_int_not_equal(lim_client_state(c), LIM_LINK_UP);
    fake_end(f, c);
}

static void test_a_row_that_is_not_what_it_says_ends_the_connection(void **state) /* proves WI2 */
{
    static const char two[] = "\0\0\0\1\0\0m\0\0\0\1\0\0m";
    (void)state;
    expect_refused(1, 3, lim__bytes(two, sizeof two - 1));
    expect_refused(1, 1, lim__bytes(two, sizeof two - 1));
    expect_refused(1, 2, lim__bytes(two, sizeof two - 2));
    expect_refused(0, 2, lim__bytes(two, sizeof two - 1));
    expect_refused(UINT64_MAX, 2, lim__bytes(two, sizeof two - 1));
    expect_refused(1, 1, lim__bytes("\0\0\0\2\0\3m", 7));     /* headers longer than all of it */
    expect_refused(1, 1, lim__bytes("\0\0\0\3\0\2\0\1m", 9)); /* one header, and not there */
    expect_refused(1, 0, lim__bytes("", 0));
    lim__block *b = lim__block_new(100); /* more than the window */
    assert_non_null(b);
    for (int i = 0; i < 11; i++)
        assert_true(lim__block_add(b, (lim_bytes){ 0 }, (lim_bytes){ 0 }, TEXT("m")));
    expect_refused(1, 11, lim__bytes(b->bytes, b->len));
    lim__block_unref(b);
}

static void test_pulling_asks_for_so_many(void **state) /* proves CH16 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    lim_sub sub = read_log(c, &r, LIM_PULL, (lim_read_opts){ .cursor = "c" });
    uint32_t stream = accept_read(f, c, "pull", "1", 0);
    assert_int_equal(lim_client_fetch(c, sub, 0, 1000), LIM_E_INVALID);
    assert_int_equal(lim_client_fetch(c, sub, 5, 1000), LIM_OK);
    pump(f, c);
    assert_int_equal(expect_confirm(f, 4, 5).delay_ms, 1000);
    deliver(f, c, stream, 1, 5);
    assert_int_equal(r.count, 5);
    fake_end(f, c);
}

static void test_the_end_of_a_subscription_tells_who_waits_for_a_confirmation(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    reader r = { .answer = LIM_HOLD };
    lim_sub sub = read_log(c, &r, 10, (lim_read_opts){ .cursor = "c" });
    uint32_t stream = accept_read(f, c, "cursor", "c", 0);
    deliver(f, c, stream, 1, 2);
    assert_int_equal(lim_client_ack(c, sub, 1, on_done, &r), LIM_OK);
    assert_int_equal(lim_client_ack(c, sub, 2, on_done, &r), LIM_OK);
    SAY(f, ended, .stream = stream, .code = LIM_E_GONE, .detail = TEXT("deleted"));
    pump(f, c);
    assert_int_equal(r.told, 2);
    assert_int_equal(r.ack_err, LIM_E_CLOSED);
    assert_int_equal(r.ends, 1);
    assert_int_equal(lim_client_ack(c, sub, 1, on_done, &r), LIM_E_GONE);
    fake_end(f, c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_cursor_it_goes_on_behind_what_it_has_seen),
        cmocka_unit_test(test_a_name_that_is_a_log_is_read_without_being_asked_to),
        cmocka_unit_test(test_with_a_cursor_it_asks_for_the_cursor_again),
        cmocka_unit_test(test_a_cursor_that_the_broken_connection_still_has_is_asked_for_again),
        cmocka_unit_test(test_a_cursor_whose_reader_has_died_is_asked_for_again),
        cmocka_unit_test(test_what_is_refused_or_out_of_order_is_acknowledged_by_itself),
        cmocka_unit_test(test_messages_in_a_row_are_handed_over_one_by_one),
        cmocka_unit_test(test_a_row_that_is_not_what_it_says_ends_the_connection),
        cmocka_unit_test(test_pulling_asks_for_so_many),
        cmocka_unit_test(test_the_end_of_a_subscription_tells_who_waits_for_a_confirmation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
