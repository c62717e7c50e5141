/* SPDX-License-Identifier: Apache-2.0
 * session_talk_test.c - conversations over connections, from both ends: who opened one, and who takes part in it. */
#include "server/server_world.h"

static lim__f_served serve(client *c, uint32_t on, uint8_t kind, const char *group, uint32_t capacity)
{
    lim__f_served f;
    PUT(c, serve, .stream = on, .kind = kind, .capacity = capacity, .group = lim__str(group));
    TAKE(c, served, SERVED, &f);
    return f;
}

static void open_talk(client *c, uint32_t on, const char *group)
{
    lim__f_opened f;
    PUT(c, open, .stream = on, .timeout_ms = 60000, .on_crash = LIM_CRASH_FAIL, .group = lim__str(group));
    TAKE(c, opened, OPENED, &f);
    assert_int_equal(f.code, 0);
}

static lim__f_request take_request(client *c, const char *payload)
{
    lim__f_request f;
    TAKE(c, request, REQUEST, &f);
    assert_text(f.payload, payload);
    return f;
}

/* A participant hears that another one is there. */
static void take_joined_event(client *c, uint64_t who)
{
    lim__f_request f = take_request(c, "");
    assert_int_equal(f.event, LIM_EVENT_JOINED);
    assert_int_equal(f.from, who);
}

static void take_message_event(client *c, lim_event event, uint64_t who)
{
    lim__f_message m;
    TAKE(c, message, MESSAGE, &m);
    assert_int_equal(m.event, event);
    assert_int_equal(m.from, who);
}

static lim__f_joined join(client *c, uint32_t on, uint32_t corr, uint64_t participant)
{
    lim__f_joined f;
    PUT(c, join, .stream = on, .corr = corr, .participant = participant);
    TAKE(c, joined, JOINED, &f);
    assert_int_equal(f.stream, on);
    assert_int_equal(f.corr, corr);
    return f;
}

static void test_a_participant_on_a_connection_speaks_into_a_conversation(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *party = client_new(w, "party"), *c = client_new(w, "c");
        lim__f_served s = serve(party, 3, LIM__SERVE_GROUP, "chat", 4);
        open_talk(c, 5, "chat");
        PUT(c, send, .stream = 5, .corr = 1, .payload = lim__str("hello"));
        lim__f_request r = take_request(party, "hello");
        for (int i = 0; i < 3; i++)
            PUT(party, say, .stream = 3, .conversation = r.conversation, .payload = lim__str("by the way"));
        for (uint64_t i = 1; i <= 3; i++) {
            lim__f_message m;
            TAKE(c, message, MESSAGE, &m);
            assert_int_equal(m.stream, 5);
            assert_int_equal(m.from, s.participant);
            assert_int_equal(m.seq, i);
            assert_text(m.payload, "by the way");
        }
    }
}

static void test_who_takes_no_part_is_not_heard(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *party = client_new(w, "party"), *c = client_new(w, "c"), *stranger = client_new(w, "stranger");
        serve(party, 3, LIM__SERVE_GROUP, "chat", 4);
        serve(stranger, 3, LIM__SERVE_GROUP, "other", 4);
        open_talk(c, 5, "chat");
        PUT(c, send, .stream = 5, .corr = 1, .payload = lim__str("hello"));
        lim__f_request r = take_request(party, "hello");
        lim__f_revoked no;
        PUT(stranger, say, .stream = 3, .conversation = r.conversation, .payload = lim__str("let me in"));
        TAKE(stranger, revoked, REVOKED, &no);
        assert_int_equal(no.conversation, r.conversation);
        assert_int_equal(no.lease, 0);
        assert_false(client_has(c, LIM__MESSAGE));
        PUT(c, close, .stream = 5);
        lim__f_closed f;
        TAKE(c, closed, CLOSED, &f);
        TAKE(party, revoked, REVOKED, &no); /* it has ended */
        assert_int_equal(no.lease, 0);
        PUT(party, say, .stream = 3, .conversation = r.conversation, .payload = lim__str("too late"));
        TAKE(party, revoked, REVOKED, &no);
        assert_int_equal(no.conversation, r.conversation);
        assert_int_equal(no.why, LIM__REVOKED_ENDED);
        PUT(party, say, .stream = 9, .conversation = r.conversation); /* no such registration: ignored */
        PUT(party, ping, 0);
        run_for(w, SECOND);
        assert_int_equal(party->end, 1);
    }
}

static void test_participants_join_a_conversation(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *two = client_new(w, "two"), *c = client_new(w, "c");
        lim__f_served first = serve(one, 3, LIM__SERVE_GROUP, "chat", 4);
        lim__f_served s = serve(two, 3, LIM__SERVE_GROUP, "other", 4);
        open_talk(c, 5, "chat");
        assert_int_equal(join(c, 5, 7, s.participant).code, 0);
        assert_int_equal(join(c, 5, 8, s.participant).code, LIM_E_EXISTS);
        assert_int_equal(join(c, 5, 9, 0).code, LIM_E_INVALID);
        take_message_event(c, LIM_EVENT_JOINED, s.participant);
        take_joined_event(one, s.participant);
        take_joined_event(two, first.participant);
        PUT(c, send, .stream = 5, .corr = 1, .payload = lim__str("all of you"));
        take_request(one, "all of you");
        lim__f_request r = take_request(two, "all of you");
        PUT(two, say, .stream = 3, .conversation = r.conversation, .payload = lim__str("here"));
        lim__f_message m;
        TAKE(c, message, MESSAGE, &m);
        assert_int_equal(m.from, s.participant);
        PUT(c, askin, .stream = 5, .corr = 2, .timeout_ms = 50000, .to = s.participant, .payload = lim__str("you?"));
        r = take_request(two, "you?");
        client_kill(two);
        lim__f_outcome o;
        TAKE(c, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_CRASHED);
        take_message_event(c, LIM_EVENT_CRASHED, s.participant);
        PUT(c, send, .stream = 5, .corr = 2, .payload = lim__str("you two")); /* the other one lives on */
        r = take_request(one, "");
        assert_true(r.event == LIM_EVENT_CRASHED && r.from == s.participant);
        assert_text(r.type, "connection_lost");
        take_request(one, "you two");
    }
}

static void test_a_join_before_a_conversation_is_open_waits(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *two = client_new(w, "two"), *c = client_new(w, "c");
        lim__f_served first = serve(one, 3, LIM__SERVE_GROUP, "chat", 4);
        lim__f_served s = serve(two, 3, LIM__SERVE_GROUP, "other", 4);
        PUT(c, open, .stream = 5, .timeout_ms = 60000, .on_crash = 1, .group = lim__str("chat"));
        assert_int_equal(join(c, 5, 1, s.participant).code, 0);
        PUT(c, send, .stream = 5, .corr = 1, .payload = lim__str("x"));
        take_joined_event(one, s.participant);
        take_request(one, "x");
        take_joined_event(two, first.participant);
        take_request(two, "x");
    }
}

static void test_answers_to_messages_are_in_order_also_refusals(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *party = client_new(w, "party"), *c = client_new(w, "c");
        uint8_t payload[1001] = { 0 };
        w->bus->opts.payload_bytes_max = 1000; /* the network of some worlds needs a minute for a megabyte */
        serve(party, 3, LIM__SERVE_GROUP, "chat", 4);
        open_talk(c, 5, "chat");
        for (uint32_t i = 1; i <= 6; i++)
            PUT(c, send, .stream = 5, .corr = i, .payload = lim__bytes(payload, i % 3 == 0 ? sizeof payload : 1));
        for (uint32_t next = 1; next <= 6;) {
            lim__f_sent f;
            TAKE(c, sent, SENT, &f);
            assert_int_equal(f.first_corr, next);
            assert_int_equal(f.verdict, next % 3 == 0 ? LIM_REJECT : LIM_ACCEPT);
            assert_int_equal(f.why, next % 3 == 0 ? LIM_WHY_TOO_BIG : LIM_WHY_NONE);
            next += f.count;
        }
    }
}

static void test_places_used_elsewhere_take_no_requests(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *busy = client_new(w, "busy"), *idle = client_new(w, "idle"), *c = client_new(w, "c");
        serve(busy, 3, LIM__SERVE_GROUP, "g", 8);
        PUT(busy, report, .stream = 3, .used = 8);
        run_for(w, SECOND);
        serve(idle, 3, LIM__SERVE_GROUP, "g", 2);
        for (uint64_t i = 1; i <= 2; i++) {
            PUT(c, ask, .corr = i, .timeout_ms = 50000, .on_crash = 1, .group = lim__str("g"),
                .payload = lim__str("x"));
            take_request(idle, "x"); /* although the other one has the larger capacity */
        }
        assert_false(client_has(busy, LIM__REQUEST));
        PUT(busy, report, .stream = 3, .used = 7);
        run_for(w, SECOND);
        PUT(c, ask, .corr = 3, .timeout_ms = 50000, .on_crash = 1, .group = lim__str("g"), .payload = lim__str("y"));
        take_request(busy, "y");
        PUT(busy, report, .stream = 3, .used = UINT32_MAX); /* nonsense takes all its places, and no more */
        run_for(w, SECOND);
        PUT(busy, report, .stream = 3, .used = 0);
        run_for(w, SECOND);
        PUT(c, ask, .corr = 4, .timeout_ms = 50000, .on_crash = 1, .group = lim__str("g"), .payload = lim__str("z"));
        take_request(busy, "z");
    }
}

static void test_a_task_that_nobody_knows_is_refused_without_a_number(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c");
        lim__f_outcome o;
        lim__f_served s = serve(c, 1, LIM__SERVE_GROUP, "g", 1); /* a number that is somebody else's */
        const uint64_t numbers[] = { 123456789, s.participant, 0 };
        for (uint64_t i = 0; i < 3; i++) {
            PUT(c, await, .corr = i, .task = numbers[i]);
            TAKE(c, outcome, OUTCOME, &o);
            assert_int_equal(o.how, LIM_HOW_REFUSED);
            assert_int_equal(o.why, LIM_WHY_NO_PARTICIPANT);
            assert_int_equal(o.conversation, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_participant_on_a_connection_speaks_into_a_conversation),
        cmocka_unit_test(test_who_takes_no_part_is_not_heard),
        cmocka_unit_test(test_participants_join_a_conversation),
        cmocka_unit_test(test_a_join_before_a_conversation_is_open_waits),
        cmocka_unit_test(test_answers_to_messages_are_in_order_also_refusals),
        cmocka_unit_test(test_places_used_elsewhere_take_no_requests),
        cmocka_unit_test(test_a_task_that_nobody_knows_is_refused_without_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
