/* SPDX-License-Identifier: Apache-2.0
 * session_channel_test.c - publishing and subscribing, and conversations with more than one exchange, over connections.
 */
#include "server/server_world.h"

static void subscribe(client *c, uint32_t on, const char *pattern, uint32_t window, uint32_t backlog)
{
    lim__f_subscribed f;
    PUT(c, subscribe, .stream = on, .window = window, .backlog = backlog, .policy = LIM_DROP_OLDEST,
        .pattern = lim__str(pattern));
    TAKE(c, subscribed, SUBSCRIBED, &f);
    assert_int_equal(f.stream, on);
}

static void publish(client *c, uint32_t corr, const char *channel, const char *payload)
{
    PUT(c, publish, .corr = corr, .channel = lim__str(channel), .payload = lim__str(payload));
}

static lim__f_deliver take_message(client *c)
{
    lim__f_deliver f;
    TAKE(c, deliver, DELIVER, &f);
    return f;
}

static lim__f_published take_verdict(client *c)
{
    lim__f_published f;
    TAKE(c, published, PUBLISHED, &f);
    return f;
}

static void test_what_is_published_reaches_who_subscribed(void **state) /* proves CH5 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a"), *b = client_new(w, "b"), *pub = client_new(w, "pub");
        subscribe(a, 1, "orders.eu", 10, 0);
        subscribe(b, 9, "orders.*", 10, 0);
        lim__buf headers = { 0 };
        assert_int_equal(lim__packed_add(&headers, lim__str("k"), lim__str("v")), LIM_OK);
        PUT(pub, publish, .corr = 1, .channel = lim__str("orders.eu"), .headers = lim__buf_bytes(&headers),
            .payload = lim__str("one"));
        publish(pub, 2, "orders.eu", "two");
        lim__f_deliver f = take_message(a);
        assert_int_equal(f.seq, 1);
        assert_int_equal(f.channel.len, 0);
        assert_true(lim__bytes_eq(f.headers, lim__buf_bytes(&headers)));
        assert_text(f.payload, "one");
        assert_text(take_message(a).payload, "two");
        f = take_message(b);
        assert_int_equal(f.stream, 9);
        assert_text(f.channel, "orders.eu");
        f = take_message(b);
        assert_int_equal(f.seq, 2);
        lim__buf_fini(&headers);
    }
}

static void test_equal_answers_are_merged_and_none_is_missing(void **state) /* proves WI2 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *pub = client_new(w, "pub");
        for (uint32_t i = 0; i < 1000; i++)
            publish(pub, UINT32_MAX - 500 + i, i == 600 ? "bad name" : i == 700 ? "$sys.x" : "good", "x");
        uint32_t next = UINT32_MAX - 500, refused = 0;
        for (uint32_t n = 0; n < 1000;) {
            lim__f_published f = take_verdict(pub);
            assert_int_equal(f.first_corr, next);
            assert_true(f.verdict == LIM_ACCEPT || f.count == 1);
            refused += f.why == LIM_WHY_BAD_NAME;
            n += f.count;
            next += f.count;
        }
        assert_int_equal(refused, 2);
        assert_false(client_has(pub, LIM__PUBLISHED));
    }
}

static void test_a_mandatory_message_that_nobody_wants_is_rejected(void **state) /* proves PR1 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a"), *pub = client_new(w, "pub");
        PUT(pub, publish, .corr = 1, .flags = LIM__FLAG_MANDATORY, .channel = lim__str("x"));
        lim__f_published f = take_verdict(pub);
        assert_int_equal(f.verdict, LIM_REJECT);
        assert_int_equal(f.why, LIM_WHY_NO_SUBSCRIBER);
        subscribe(a, 1, "x", 1, 0); /* what was remembered of the channel no longer holds */
        PUT(pub, publish, .corr = 2, .flags = LIM__FLAG_MANDATORY, .channel = lim__str("x"));
        f = take_verdict(pub);
        assert_int_equal(f.verdict, LIM_ACCEPT);
        assert_int_equal(f.matched, 1);
        (void)take_message(a);
        PUT(a, unsubscribe, .stream = 1);
        lim__f_ended ended;
        TAKE(a, ended, ENDED, &ended);
        assert_int_equal(ended.code, 0);
        assert_int_equal(ended.delivered, 1);
        PUT(pub, publish, .corr = 3, .flags = LIM__FLAG_MANDATORY, .channel = lim__str("x"));
        assert_int_equal(take_verdict(pub).verdict, LIM_REJECT);
        subscribe(a, 1, ">", 1, 0);
        PUT(pub, publish, .corr = 4, .flags = LIM__FLAG_MANDATORY, .channel = lim__str("x"));
        assert_int_equal(take_verdict(pub).verdict, LIM_ACCEPT);
    }
}

static void test_only_the_window_is_under_way(void **state) /* proves PR3 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a"), *pub = client_new(w, "pub");
        subscribe(a, 1, "x", 3, 4);
        for (uint32_t i = 1; i <= 10; i++)
            publish(pub, i, "x", "m");
        uint32_t dropped = 0;
        for (uint32_t n = 0; n < 10;) {
            lim__f_published f = take_verdict(pub);
            dropped += f.dropped * f.count;
            n += f.count;
        }
        assert_int_equal(dropped, 3);
        run_for(w, SECOND);
        for (int i = 0; i < 3; i++)
            (void)take_message(a);
        assert_false(client_has(a, LIM__DELIVER));
        lim__f_dropped d;
        TAKE(a, dropped, DROPPED, &d);
        PUT(a, ack, .stream = 1, .upto_seq = 2);
        run_for(w, SECOND);
        assert_int_equal(take_message(a).seq, 4);
        assert_int_equal(take_message(a).seq, 5);
        assert_false(client_has(a, LIM__DELIVER));
        PUT(a, unsubscribe, .stream = 1);
        lim__f_ended f;
        TAKE(a, ended, ENDED, &f);
        assert_int_equal(f.dropped, 3);
    }
}

static void test_what_cannot_be_subscribed_to_says_why(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a");
        lim__f_ended f;
        PUT(a, subscribe, .stream = 1, .window = 0, .policy = LIM_DROP_OLDEST, .pattern = lim__str("x"));
        TAKE(a, ended, ENDED, &f);
        assert_int_equal(f.code, LIM_E_MISUSE);
        PUT(a, subscribe, .stream = 1, .window = 1, .policy = LIM_DROP_OLDEST, .pattern = lim__str("a b"));
        TAKE(a, ended, ENDED, &f);
        assert_int_equal(f.code, LIM_E_INVALID);
        PUT(a, subscribe, .stream = 1, .window = 1, .policy = LIM_DROP_OLDEST, .pattern = lim__str("$sys.secret"));
        TAKE(a, ended, ENDED, &f);
        assert_int_equal(f.code, LIM_E_DENIED);
        subscribe(a, 1, "$sys.events.>", 1, 0);
    }
}

static void test_a_slow_subscriber_does_not_slow_the_other(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *slow = client_new(w, "slow"), *fast = client_new(w, "fast"), *pub = client_new(w, "pub");
        subscribe(slow, 1, "x", 1, 0);
        subscribe(fast, 1, "x", 1000000, 0);
        for (uint32_t i = 1; i <= 2000; i++)
            publish(pub, i, "x", "m");
        for (uint32_t i = 1; i <= 2000; i++)
            assert_int_equal(take_message(fast).seq, i);
    }
}

/* ---- conversations ---- */

static lim__f_opened open_talk(client *c, uint32_t on, const char *group, uint64_t participant)
{
    lim__f_opened f;
    PUT(c, open, .stream = on, .timeout_ms = LIM__NO_TIMEOUT, .on_crash = LIM_CRASH_FAIL, .group = lim__str(group),
        .participant = participant);
    TAKE(c, opened, OPENED, &f);
    return f;
}

/* A PUBLISH whose headers are these bytes, which no client of ours would write. */
static void put_raw_publish(client *c, const char *headers, size_t len)
{
    uint8_t head[] = { LIM__PUBLISH, 0x01, 0, 0, 0, 0, 0, 0, 0, (uint8_t)(4 + 2 + len), 0, 0, 0, 1, 1, 'a' };
    lim__buf_add(&c->out, head, sizeof head);
    lim__buf_add(&c->out, headers, len);
    client_poke(c);
}

static void test_headers_that_no_subscriber_could_be_sent_are_refused_at_publish(void **state)
{
    (void)state;
    static const char text[] = "\0\1\1k\0\1\xff", key[] = "\0\1\1\xff\0\1v", good[] = "\0\1\1k\0\1v";
    EVERY_WORLD(w)
    {
        client *r = client_new(w, "r"), *good_one = client_new(w, "good");
        client *bad[] = { client_new(w, "text"), client_new(w, "key") };
        lim__f_subscribed s;
        PUT(r, subscribe, .stream = 1, .window = 8, .backlog = 8, .policy = LIM_DROP_OLDEST, .pattern = lim__str("a"));
        TAKE(r, subscribed, SUBSCRIBED, &s);
        put_raw_publish(bad[0], text, sizeof text - 1);
        put_raw_publish(bad[1], key, sizeof key - 1);
        for (int i = 0; i < 2; i++)
            expect_fault(bad[i], LIM_E_PROTOCOL);
        put_raw_publish(good_one, good, sizeof good - 1);
        lim__f_deliver d;
        TAKE(r, deliver, DELIVER, &d);
        assert_int_equal(d.seq, 1);
        assert_int_equal(d.headers.len, sizeof good - 1);
    }
}

static lim__f_served serve(client *c, uint32_t on, const char *group)
{
    lim__f_served f;
    PUT(c, serve, .stream = on, .kind = LIM__SERVE_GROUP, .capacity = 16, .group = lim__str(group));
    TAKE(c, served, SERVED, &f);
    return f;
}

static void test_a_conversation_carries_messages_and_asks(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *party = client_new(w, "party"), *c = client_new(w, "c");
        serve(party, 1, "chat");
        assert_int_equal(open_talk(c, 5, "chat", 0).code, 0);
        lim__f_request r;
        for (uint32_t i = 1; i <= 3; i++)
            PUT(c, send, .stream = 5, .corr = i, .payload = lim__str("hello"));
        for (uint32_t n = 0; n < 3;) {
            lim__f_sent f;
            TAKE(c, sent, SENT, &f);
            assert_int_equal(f.verdict, LIM_ACCEPT);
            assert_int_equal(f.first_corr, n + 1);
            n += f.count;
        }
        for (int i = 0; i < 3; i++) {
            TAKE(party, request, REQUEST, &r);
            assert_text(r.payload, "hello");
            assert_int_equal(r.flags & LIM__FLAG_NO_REPLY, LIM__FLAG_NO_REPLY);
        }
        PUT(c, askin, .stream = 5, .corr = 77, .timeout_ms = 5000, .payload = lim__str("how are you?"));
        TAKE(party, request, REQUEST, &r);
        PUT(party, reply, .stream = 1, .conversation = r.conversation, .lease = r.lease, .how = 1,
            .payload = lim__str("fine"));
        lim__f_outcome o;
        TAKE(c, outcome, OUTCOME, &o);
        assert_int_equal(o.corr, 77);
        assert_text(o.payload, "fine");
        PUT(c, askin, .stream = 5, .corr = 78, .timeout_ms = 50000, .payload = lim__str("and now?"));
        TAKE(party, request, REQUEST, &r);
        PUT(c, close, .stream = 5);
        TAKE(c, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_CLOSED);
        assert_text(o.participant, "opener");
        lim__f_closed f;
        TAKE(c, closed, CLOSED, &f);
        assert_int_equal(f.phase, LIM_PHASE_ENDED);
        lim__f_revoked revoked;
        TAKE(party, revoked, REVOKED, &revoked);
        assert_int_equal(open_talk(c, 5, "chat", 0).code, 0); /* the stream is free */
    }
}

static void test_what_is_said_before_a_conversation_is_open_arrives(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *party = client_new(w, "party"), *c = client_new(w, "c");
        serve(party, 1, "chat");
        PUT(c, open, .stream = 5, .timeout_ms = 60000, .on_crash = 1, .group = lim__str("chat"));
        PUT(c, send, .stream = 5, .corr = 1, .payload = lim__str("early"));
        PUT(c, askin, .stream = 5, .corr = 2, .timeout_ms = 5000, .payload = lim__str("bird"));
        PUT(c, close, .stream = 5);
        lim__f_request r;
        TAKE(party, request, REQUEST, &r);
        assert_text(r.payload, "early");
        TAKE(party, request, REQUEST, &r);
        assert_text(r.payload, "bird");
        lim__f_closed f;
        TAKE(c, closed, CLOSED, &f);
    }
}

static void test_a_conversation_with_nobody_is_refused(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c");
        assert_int_equal(open_talk(c, 5, "nobody", 0).code, LIM_E_NOTFOUND);
        assert_int_equal(open_talk(c, 5, "a b", 0).code, LIM_E_INVALID);
        assert_int_equal(open_talk(c, 5, "", 0).code, 0); /* a buffer that others may join */
        PUT(c, close, .stream = 5);
        lim__f_closed f;
        TAKE(c, closed, CLOSED, &f);
        PUT(c, askin, .stream = 5, .corr = 1, .timeout_ms = 1000);
        lim__f_outcome o;
        TAKE(c, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_CLOSED);
        assert_text(o.participant, "opener");
    }
}

static void test_the_death_of_a_party_is_told_to_who_asked_it(void **state) /* proves CV4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *party = client_new(w, "party"), *c = client_new(w, "c");
        lim__f_served s = serve(party, 1, "chat");
        assert_int_equal(open_talk(c, 5, "", s.participant).code, 0);
        PUT(c, askin, .stream = 5, .corr = 2, .timeout_ms = 50000, .payload = lim__str("x"));
        lim__f_request r;
        TAKE(party, request, REQUEST, &r);
        client_kill(party);
        lim__f_outcome o;
        TAKE(c, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_CRASHED);
        assert_int_equal(o.reason, LIM_LOST);
    }
}

static lim_done say_something(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    assert_int_equal(lim_conv_say(bus, d, lim__str("by the way")), LIM_OK);
    return LIM_DONE;
}

static void test_what_a_party_says_by_itself_comes_as_a_message(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c");
        lim_participant party;
        lim_serve_opts opts = { .size = sizeof opts, .capacity = 1, .handler = { .on_message = say_something } };
        assert_int_equal(lim_participant_open(w->bus, &opts, &party), LIM_OK);
        assert_int_equal(open_talk(c, 5, "", party.id).code, 0);
        PUT(c, send, .stream = 5, .corr = 1, .to = party.id, .payload = lim__str("x"));
        lim__f_message f;
        TAKE(c, message, MESSAGE, &f);
        assert_int_equal(f.stream, 5);
        assert_int_equal(f.seq, 1);
        assert_int_equal(f.from, party.id);
        assert_text(f.payload, "by the way");
        assert_int_equal(lim_leave(w->bus, party), LIM_OK);
        run_for(w, SECOND);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_published_reaches_who_subscribed),
        cmocka_unit_test(test_equal_answers_are_merged_and_none_is_missing),
        cmocka_unit_test(test_a_mandatory_message_that_nobody_wants_is_rejected),
        cmocka_unit_test(test_only_the_window_is_under_way),
        cmocka_unit_test(test_what_cannot_be_subscribed_to_says_why),
        cmocka_unit_test(test_a_slow_subscriber_does_not_slow_the_other),
        cmocka_unit_test(test_headers_that_no_subscriber_could_be_sent_are_refused_at_publish),
        cmocka_unit_test(test_a_conversation_carries_messages_and_asks),
        cmocka_unit_test(test_what_is_said_before_a_conversation_is_open_arrives),
        cmocka_unit_test(test_a_conversation_with_nobody_is_refused),
        cmocka_unit_test(test_the_death_of_a_party_is_told_to_who_asked_it),
        cmocka_unit_test(test_what_a_party_says_by_itself_comes_as_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
