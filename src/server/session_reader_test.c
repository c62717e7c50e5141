/* SPDX-License-Identifier: Apache-2.0
 * session_reader_test.c - reading the log of a durable channel over connections. */
#include "data/block.h"
#include "server/server_world.h"

static void channel(world *w, const char *name)
{
    const lim_channel_opts opts = { .size = sizeof opts, .durable = true };
    lim_channel ch;
    assert_int_equal(lim_channel_open(w->bus, name, &opts, &ch), LIM_OK);
    run_for(w, SECOND / 10);
}

static void on_stored(void *ctx, const lim_receipt *r)
{
    assert_int_equal(r->admission.verdict, LIM_ACCEPT);
    ++*(uint32_t *)ctx;
}

static void publish_all(world *w, const char *name, uint32_t count)
{
    uint32_t stored = 0;
    lim_channel ch;
    lim_admission a;
    const lim_publish_opts opts = { .size = sizeof opts, .on_receipt = on_stored, .ctx = &stored };
    assert_int_equal(lim_channel_open(w->bus, name, NULL, &ch), LIM_OK);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(lim_publish(w->bus, ch, lim__str("text"), &opts, &a), LIM_OK);
    run_for(w, SECOND);
    assert_int_equal(stored, count);
}

static lim__buf options(const char *const *pairs)
{
    lim__buf b = { 0 };
    for (; pairs[0] != NULL; pairs += 2)
        assert_int_equal(lim__packed_add(&b, lim__str(pairs[0]), lim__str(pairs[1])), LIM_OK);
    return b;
}
#define OPTIONS(...) options((const char *const[]){ __VA_ARGS__, NULL })

static void ask_to_read(client *c, uint32_t on, uint32_t window, lim__buf o)
{
    PUT(c, subscribe, .stream = on, .window = window, .pattern = lim__str("log"), .options = lim__buf_bytes(&o));
    lim__buf_fini(&o);
}

static void read_log(client *c, uint32_t on, uint32_t window, lim__buf o)
{
    lim__f_subscribed f;
    ask_to_read(c, on, window, o);
    TAKE(c, subscribed, SUBSCRIBED, &f);
}

static lim__f_deliver take_message(client *c)
{
    lim__f_deliver f;
    TAKE(c, deliver, DELIVER, &f);
    return f;
}

static void expect_messages(client *c, uint64_t from, uint64_t to)
{
    for (uint64_t seq = from; seq <= to; seq++)
        assert_int_equal(take_message(c).seq, seq);
    run_for(c->w, SECOND);
    assert_false(client_has(c, LIM__DELIVER));
}

static void expect_confirmed(client *c, uint32_t corr, lim_err code)
{
    lim__f_confirmed f;
    TAKE(c, confirmed, CONFIRMED, &f);
    assert_int_equal(f.corr, corr);
    assert_int_equal(f.code, code);
}

static void test_a_log_is_read_with_credit(void **state) /* proves DU5 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log");
        publish_all(w, "log", 10);
        client *a = client_new(w, "a");
        read_log(a, 1, 4, OPTIONS("from", "seq:3"));
        expect_messages(a, 3, 6);
        PUT(a, ack, .stream = 1, .upto_seq = 5);
        expect_messages(a, 7, 9);
        PUT(a, unsubscribe, .stream = 1);
        lim__f_ended f;
        TAKE(a, ended, ENDED, &f);
        assert_int_equal(f.code, 0);
        assert_int_equal(f.delivered, 7);
        read_log(a, 1, 100, (lim__buf){ 0 }); /* by its name, with no policy: what is new, and none of it is dropped */
        publish_all(w, "log", 3);
        expect_messages(a, 11, 13);
    }
}

static void test_what_is_confirmed_is_not_delivered_again(void **state) /* proves DU6 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log");
        publish_all(w, "log", 5);
        client *a = client_new(w, "a");
        read_log(a, 7, 8, OPTIONS("from", "all", "cursor", "c"));
        expect_messages(a, 1, 5);
        PUT(a, confirm, .stream = 7, .corr = 1, .how = 1, .seq = 4);
        expect_confirmed(a, 1, LIM_OK);
        PUT(a, confirm, .stream = 7, .corr = 2, .how = 1, .seq = 4);
        expect_confirmed(a, 2, LIM_E_NOTFOUND);
        PUT(a, confirm, .stream = 7, .corr = 3, .how = 2, .seq = 2);
        expect_confirmed(a, 3, LIM_OK);
        PUT(a, confirm, .stream = 7, .how = 3, .delay_ms = 500, .seq = 5);
        lim__f_deliver f = take_message(a);
        lim_bytes times;
        assert_int_equal(f.seq, 5);
        assert_true(lim__packed_get(f.headers, lim__str("$deliveries"), &times));
        assert_text(times, "2");
        client_cut(a);
        run_for(w, SECOND);
        client *b = client_new(w, "b");
        read_log(b, 1, 8, OPTIONS("cursor", "c"));
        assert_int_equal(take_message(b).seq, 3);
        assert_int_equal(take_message(b).seq, 5);
        run_for(w, SECOND);
        assert_false(client_has(b, LIM__DELIVER));
    }
}

static void test_a_cursor_that_is_taken_says_by_whom(void **state) /* proves CH16 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        lim__f_ended f;
        channel(w, "log");
        client *a = client_new(w, "first"), *b = client_new(w, "second");
        read_log(a, 1, 8, OPTIONS("cursor", "c"));
        ask_to_read(b, 1, 8, OPTIONS("cursor", "c"));
        TAKE(b, ended, ENDED, &f);
        assert_int_equal(f.code, LIM_E_EXISTS);
        assert_true(memmem(f.detail.ptr, f.detail.len, "first", 5) != NULL);
        ask_to_read(b, 1, 8, OPTIONS("cursor", "c", "colour", "red"));
        TAKE(b, ended, ENDED, &f);
        assert_int_equal(f.code, LIM_E_INVALID);
        PUT(b, subscribe, .stream = 2, .window = 1, .policy = 2, .pattern = lim__str("nowhere"));
        lim__f_subscribed ok;
        TAKE(b, subscribed, SUBSCRIBED, &ok);
    }
}

static void test_who_stands_by_goes_on_when_a_connection_breaks(void **state) /* proves CH16 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log");
        publish_all(w, "log", 6);
        client *a = client_new(w, "a"), *b = client_new(w, "b");
        read_log(a, 1, 3, OPTIONS("from", "all", "cursor", "c", "standby", "1"));
        read_log(b, 1, 3, OPTIONS("from", "all", "cursor", "c", "standby", "1"));
        expect_messages(a, 1, 3);
        PUT(a, confirm, .stream = 1, .how = 1, .seq = 2, .corr = 1);
        expect_confirmed(a, 1, LIM_OK);
        assert_int_equal(take_message(a).seq, 4);
        client_kill(a);
        assert_int_equal(take_message(b).seq, 1);
        assert_int_equal(take_message(b).seq, 3);
        assert_int_equal(take_message(b).seq, 4);
        PUT(b, ack, .stream = 1, .upto_seq = 4);
        expect_messages(b, 5, 6);
    }
}

static void test_pulling_over_a_connection(void **state) /* proves CH16 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log");
        publish_all(w, "log", 6);
        client *a = client_new(w, "a");
        read_log(a, 1, 1, OPTIONS("from", "all", "pull", "1"));
        run_for(w, SECOND);
        assert_false(client_has(a, LIM__DELIVER));
        PUT(a, confirm, .stream = 1, .how = 4, .delay_ms = 1000, .seq = 4, .corr = 9);
        expect_confirmed(a, 9, LIM_OK);
        expect_messages(a, 1, 4);
    }
}

static void test_a_client_that_does_not_read_costs_two_letters(void **state) /* proves CH8 */
{
    (void)state;
    static char big[300 * 1024];
    KEEPING_WORLDS(w, 5)
    {
        lim_channel ch;
        lim_admission adm;
        channel(w, "log");
        assert_int_equal(lim_channel_open(w->bus, "log", NULL, &ch), LIM_OK);
        for (int i = 0; i < 30; i++)
            assert_int_equal(lim_publish(w->bus, ch, lim__bytes(big, sizeof big), NULL, &adm), LIM_OK);
        run_for(w, SECOND);
        client *a = client_new(w, "a");
        a->deaf = true;
        ask_to_read(a, 1, 1000, OPTIONS("from", "all"));
        run_for(w, 2 * SECOND);
        size_t out = 0;
        for (uint32_t i = 0; i < w->schedulers; i++)
            LIM__LIST_EACH(node, &w->server->porters[i].sessions)
                out += lim__buf_len(&LIM_CONTAINER(node, session, node)->out);
        assert_true(out <= LIM__OUT_DELIVER + sizeof big + 1000);
        a->deaf = false;
        client_poke(a);
        expect_messages(a, 1, 30);
    }
}

static bool row_is_next(client *c, uint64_t next)
{
    lim__f_delivers f;
    taken *t = *client_find(c, LIM__DELIVERS);
    return t != NULL && lim__get_delivers(&t->frame, &f) && f.first == next;
}

static uint64_t take_row(client *c, uint64_t next)
{
    lim__f_delivers f;
    lim_bytes headers, payload;
    uint32_t count = 0;
    TAKE(c, delivers, DELIVERS, &f);
    for (; lim__block_next(&f.messages, &headers, &payload); count++)
        assert_text(payload, "text");
    assert_int_equal(count, f.count);
    assert_int_equal(f.messages.len, 0);
    return next + count;
}

/* All that the window lets through, in order, in rows or one by one; answers the number behind the last one. */
static uint64_t take_all(client *c, uint64_t next)
{
    run_for(c->w, SECOND);
    for (;;) {
        if (row_is_next(c, next))
            next = take_row(c, next);
        else if (client_has(c, LIM__DELIVER))
            assert_int_equal(take_message(c).seq, next++);
        else
            break;
    }
    assert_false(client_has(c, LIM__DELIVERS));
    return next;
}

static void expect_again(client *c, uint64_t seq)
{
    lim__f_deliver f = take_message(c);
    lim_bytes times;
    assert_int_equal(f.seq, seq);
    assert_true(lim__packed_get(f.headers, lim__str("$deliveries"), &times));
}

static void test_what_is_old_comes_in_rows_and_counts_one_by_one(void **state) /* proves DU5 DU6 CH16 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log");
        publish_all(w, "log", 2000);
        client *a = client_new(w, "a");
        read_log(a, 1, 300, OPTIONS("from", "all", "cursor", "c"));
        run_for(w, SECOND);
        assert_true(client_has(a, LIM__DELIVERS) && !client_has(a, LIM__DELIVER));
        assert_int_equal(take_all(a, 1), 301);
        PUT(a, ack, .stream = 1, .upto_seq = 100); /* into the middle of a row */
        assert_int_equal(take_all(a, 301), 401);
        PUT(a, confirm, .stream = 1, .how = 1, .seq = 350, .corr = 1); /* out of one */
        expect_confirmed(a, 1, LIM_OK);
        PUT(a, confirm, .stream = 1, .how = 1, .seq = 350, .corr = 2);
        expect_confirmed(a, 2, LIM_E_NOTFOUND);
        assert_int_equal(take_all(a, 401), 402);
        PUT(a, confirm, .stream = 1, .how = 3, .seq = 200, .corr = 3);
        expect_again(a, 200);
        expect_confirmed(a, 3, LIM_OK);
        PUT(a, confirm, .stream = 1, .how = 2, .seq = 199, .corr = 4);
        expect_confirmed(a, 4, LIM_OK);
        client_cut(a);
        run_for(w, SECOND);
        client *b = client_new(w, "b");
        read_log(b, 1, 5000, OPTIONS("cursor", "c"));
        for (uint64_t seq = 200; seq <= 401; seq++)
            if (seq != 350)
                expect_again(b, seq);
        assert_int_equal(take_all(b, 402), 2001);
        PUT(b, confirm, .stream = 1, .how = 2, .seq = 2000, .corr = 5);
        expect_confirmed(b, 5, LIM_OK);
    }
}

static void test_two_replays_of_one_connection_take_turns(void **state) /* proves CH8 */
{
    (void)state;
    KEEPING_WORLDS(w, 3)
    {
        lim__f_delivers f;
        uint64_t next[2] = { 1, 1 };
        uint32_t turns = 0, last = 0;
        lim__readers_limit(w->bus->readers, 100, 0);
        channel(w, "log");
        publish_all(w, "log", 3000);
        client *a = client_new(w, "a");
        ask_to_read(a, 1, 10000, OPTIONS("from", "all"));
        ask_to_read(a, 2, 10000, OPTIONS("from", "all"));
        run_for(w, SECOND);
        while (client_has(a, LIM__DELIVERS)) {
            TAKE(a, delivers, DELIVERS, &f);
            assert_int_equal(f.first, next[f.stream - 1]);
            next[f.stream - 1] += f.count;
            turns += f.stream != last;
            last = f.stream;
        }
        assert_true(next[0] > 1500 && next[1] > 1500); /* the rest is not old */
        assert_true(turns > 10);
    }
}

static void test_a_reader_that_is_killed_tells_who_reads_and_its_cursor_goes_on(void **state) /* proves DU6 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log");
        publish_all(w, "log", 6);
        client *a = client_new(w, "a");
        read_log(a, 3, 4, OPTIONS("from", "all", "cursor", "c"));
        expect_messages(a, 1, 4);
        PUT(a, confirm, .stream = 3, .corr = 9, .how = 2, .seq = 2);
        expect_confirmed(a, 9, LIM_OK);
        expect_messages(a, 5, 6);
        lim_pid reader;
        assert_int_equal(lim__readers_list(w->bus, lim__str("log"), lim__str("c"), &reader, 1), 1);
        lim_runtime_exit(w->bus->rt, reader, LIM_KILL);
        lim__f_ended f;
        TAKE(a, ended, ENDED, &f);
        assert_int_equal(f.code, LIM_E_UNREACHABLE);
        assert_int_equal(f.delivered, 6);
        read_log(a, 3, 8, OPTIONS("cursor", "c"));
        expect_messages(a, 3, 6);
        publish_all(w, "log", 1);
        expect_messages(a, 7, 7);
    }
}

static void test_acknowledging_what_was_not_delivered_is_a_fault(void **state)
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log");
        client *a = client_new(w, "a");
        read_log(a, 1, 8, OPTIONS("from", "all"));
        PUT(a, ack, .stream = 1, .upto_seq = 1);
        expect_fault(a, LIM_E_PROTOCOL);
    }
}

static void test_closing_the_channel_ends_its_readers(void **state) /* proves CH10 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        lim__f_ended f;
        lim_channel ch;
        channel(w, "log");
        publish_all(w, "log", 2);
        client *a = client_new(w, "a");
        read_log(a, 1, 8, OPTIONS("from", "all"));
        expect_messages(a, 1, 2);
        assert_int_equal(lim_channel_open(w->bus, "log", NULL, &ch), LIM_OK);
        assert_int_equal(lim_channel_close(w->bus, ch), LIM_OK);
        TAKE(a, ended, ENDED, &f);
        assert_true(f.code == LIM_E_CLOSED || f.code == LIM_E_GONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_log_is_read_with_credit),
        cmocka_unit_test(test_what_is_confirmed_is_not_delivered_again),
        cmocka_unit_test(test_a_cursor_that_is_taken_says_by_whom),
        cmocka_unit_test(test_who_stands_by_goes_on_when_a_connection_breaks),
        cmocka_unit_test(test_pulling_over_a_connection),
        cmocka_unit_test(test_a_client_that_does_not_read_costs_two_letters),
        cmocka_unit_test(test_what_is_old_comes_in_rows_and_counts_one_by_one),
        cmocka_unit_test(test_two_replays_of_one_connection_take_turns),
        cmocka_unit_test(test_a_reader_that_is_killed_tells_who_reads_and_its_cursor_goes_on),
        cmocka_unit_test(test_acknowledging_what_was_not_delivered_is_a_fault),
        cmocka_unit_test(test_closing_the_channel_ends_its_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
