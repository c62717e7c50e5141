/* SPDX-License-Identifier: Apache-2.0
 * session_outside_test.c - conversations that others find, signal and follow, and what everybody in one hears of: over
 * connections, in simulated worlds. */
#include "server/server_world.h"

#include <inttypes.h>

#define OPTION(key, text) lim__bytes("\000\001" key text, sizeof("\000\001" key text) - 1)
#define NAMED             OPTION("\004name", "\000\006room-1")
#define REQUIRED          OPTION("\010required", "\000\0011")
#define TRACED            OPTION("\005trace", "\000\0011")

static uint64_t serve(client *c, const char *group)
{
    lim__f_served f;
    PUT(c, serve, .stream = 3, .kind = LIM__SERVE_GROUP, .capacity = 4, .group = lim__str(group));
    TAKE(c, served, SERVED, &f);
    return f.participant;
}

static lim__f_opened open_with(client *c, uint32_t on, lim_bytes options)
{
    lim__f_opened f;
    PUT(c, open, .stream = on, .timeout_ms = 600000, .on_crash = LIM_CRASH_FAIL, .options = options);
    TAKE(c, opened, OPENED, &f);
    assert_int_equal(f.stream, on);
    return f;
}

static void join(client *c, uint32_t on, uint32_t corr, uint64_t who, lim_bytes options)
{
    lim__f_joined f;
    PUT(c, join, .stream = on, .corr = corr, .participant = who, .options = options);
    TAKE(c, joined, JOINED, &f);
    assert_int_equal(f.corr, corr);
    assert_int_equal(f.code, 0);
}

static lim__f_found find(client *c, uint64_t corr, lim_bytes name)
{
    lim__f_found f;
    PUT(c, find, .corr = corr, .name = name);
    TAKE(c, found, FOUND, &f);
    assert_int_equal(f.corr, corr);
    return f;
}

static uint16_t signal_code(client *c, uint64_t corr, uint64_t conv, lim_bytes name)
{
    lim__f_signalled f;
    PUT(c, signal, .corr = corr, .conversation = conv, .name = name, .payload = lim__str("1h"));
    TAKE(c, signalled, SIGNALLED, &f);
    assert_int_equal(f.corr, corr);
    return f.code;
}

static void hear(client *c, lim_event event, uint64_t from, const char *type)
{
    lim__f_request f;
    TAKE(c, request, REQUEST, &f);
    assert_int_equal(f.event, event);
    assert_int_equal(f.from, from);
    assert_int_equal(f.lease, 0);
    assert_text(f.type, type);
}

static void opener_hears(client *c, lim_event event, uint64_t from, const char *note, const char *payload)
{
    lim__f_message f;
    TAKE(c, message, MESSAGE, &f);
    assert_int_equal(f.event, event);
    assert_int_equal(f.from, from);
    assert_text(f.note, note);
    assert_text(f.payload, payload);
}

/* ---- names ---- */

static void test_a_named_conversation_is_found_while_it_lives(void **state) /* proves CV19 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c"), *other = client_new(w, "other");
        assert_int_equal(find(other, 1, lim__str("room-1")).code, LIM_E_NOTFOUND);
        lim__f_opened first = open_with(c, 5, NAMED);
        assert_int_equal(first.code, 0);
        lim__f_opened second = open_with(other, 5, NAMED);
        assert_int_equal(second.code, LIM_E_EXISTS);
        assert_text(second.detail, "a living conversation has that name");
        assert_int_equal(find(other, 2, lim__str("room-1")).conversation, first.conversation);
        assert_int_equal(find(other, 3, lim__bytes("room-1\0x", 8)).code, LIM_E_NOTFOUND);
        assert_int_equal(find(other, 4, lim__str("")).code, LIM_E_NOTFOUND);
        lim__f_closed closed;
        PUT(c, close, .stream = 5);
        TAKE(c, closed, CLOSED, &closed);
        assert_int_equal(find(other, 5, lim__str("room-1")).code, LIM_E_NOTFOUND);
        assert_int_equal(open_with(other, 7, NAMED).code, 0);
    }
}

static void expect_refused(client *c, uint64_t corr, const char *detail)
{
    lim__f_outcome o;
    TAKE(c, outcome, OUTCOME, &o);
    assert_int_equal(o.corr, corr);
    assert_int_equal(o.how, LIM_HOW_REFUSED);
    assert_int_equal(o.why, LIM_WHY_BAD_REQUEST);
    assert_text(o.detail, detail);
}

static void test_an_option_that_is_wrong_is_refused_by_its_name(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c");
        lim_bytes unknown = OPTION("\006colour", "\000\003red"), high = OPTION("\010priority", "\000\00210");
        lim__f_dispatched d;
        lim__f_joined j;
        serve(c, "g");
        PUT(c, ask, .corr = 1, .timeout_ms = 1000, .on_crash = 1, .group = lim__str("g"), .options = unknown);
        expect_refused(c, 1, "option 'colour' is unknown");
        PUT(c, dispatch, .corr = 2, .timeout_ms = 1000, .queue = lim__str("q"), .options = high);
        TAKE(c, dispatched, DISPATCHED, &d);
        assert_int_equal(d.verdict, LIM_REJECT);
        assert_int_equal(d.why, LIM_WHY_BAD_REQUEST);
        assert_text(d.detail, "option priority: '10' is not a whole number from 0 to 9");
        lim__f_opened o = open_with(c, 5, unknown);
        assert_int_equal(o.code, LIM_E_INVALID);
        assert_text(o.detail, "option 'colour' is unknown");
        assert_int_equal(open_with(c, 5, NAMED).code, 0); /* the stream is free */
        PUT(c, join, .stream = 5, .corr = 9, .participant = 77, .options = unknown);
        TAKE(c, joined, JOINED, &j);
        assert_int_equal(j.code, LIM_E_INVALID);
        assert_text(j.detail, "option 'colour' is unknown");
    }
}

static void test_what_asks_beyond_the_rules_is_refused(void **state) /* proves CV16 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c");
        lim_bytes deep = OPTION("\004hops", "\000\00265"), quorum = OPTION("\006quorum", "\000\0012");
        uint64_t who = serve(c, "g");
        lim__f_outcome o;
        PUT(c, ask, .corr = 1, .timeout_ms = 1000, .on_crash = 3, .group = lim__str("g"));
        expect_refused(c, 1, "on_crash 3 needs the option compensate");
        PUT(c, ask, .corr = 2, .timeout_ms = 1000, .on_crash = 1, .participant = who, .options = quorum);
        expect_refused(c, 2, "an ask with a quorum names a group");
        PUT(c, ask, .corr = 3, .timeout_ms = 1000, .on_crash = 1, .group = lim__str("g"), .options = deep);
        TAKE(c, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_REFUSED);
        assert_int_equal(o.why, LIM_WHY_HOP_LIMIT);
        assert_int_equal(o.limit, LIM_HOPS_MAX);
        assert_int_equal(open_with(c, 5, deep).code, LIM_E_INVALID);
        assert_false(client_has(c, LIM__REQUEST)); /* nobody was asked */
    }
}

/* ---- members ---- */

static void test_everybody_hears_who_comes_and_goes_in_one_order(void **state) /* proves CV12 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *two = client_new(w, "two"), *c = client_new(w, "c");
        uint64_t a = serve(one, "a"), b = serve(two, "b");
        lim__f_joined left;
        assert_int_equal(open_with(c, 5, NAMED).code, 0);
        join(c, 5, 1, a, lim__str(""));
        join(c, 5, 2, b, lim__str(""));
        opener_hears(c, LIM_EVENT_JOINED, a, "", "");
        opener_hears(c, LIM_EVENT_JOINED, b, "", "");
        hear(one, LIM_EVENT_JOINED, b, "");
        hear(two, LIM_EVENT_JOINED, a, "");
        PUT(c, depart, .stream = 5, .corr = 3, .participant = a);
        TAKE(c, joined, JOINED, &left);
        assert_int_equal(left.corr, 3);
        assert_int_equal(left.code, 0);
        PUT(c, depart, .stream = 5, .corr = 4, .participant = a);
        TAKE(c, joined, JOINED, &left);
        assert_int_equal(left.code, LIM_E_NOTFOUND);
        opener_hears(c, LIM_EVENT_LEFT, a, "", "");
        hear(two, LIM_EVENT_LEFT, a, "");
        lim__f_revoked over;
        TAKE(one, revoked, REVOKED, &over); /* it takes no part any more */
        assert_int_equal(over.lease, 0);
        join(c, 5, 5, a, lim__str(""));
        opener_hears(c, LIM_EVENT_JOINED, a, "", "");
        hear(one, LIM_EVENT_JOINED, b, "");
        client_kill(two);
        opener_hears(c, LIM_EVENT_CRASHED, b, "connection_lost", "");
        hear(one, LIM_EVENT_CRASHED, b, "connection_lost");
    }
}

static void test_a_required_participant_takes_the_conversation_with_it(void **state) /* proves CV6 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *two = client_new(w, "two"), *c = client_new(w, "c");
        uint64_t a = serve(one, "a"), b = serve(two, "b");
        lim__f_closed closed;
        lim__f_outcome o;
        assert_int_equal(open_with(c, 5, NAMED).code, 0);
        join(c, 5, 1, a, lim__str(""));
        join(c, 5, 2, b, REQUIRED);
        PUT(c, askin, .stream = 5, .corr = 7, .timeout_ms = 500000, .to = a, .payload = lim__str("?"));
        run_for(w, SECOND);
        client_kill(two);
        TAKE(c, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_CRASHED);
        TAKE(c, closed, CLOSED, &closed);
        assert_int_equal(closed.phase, LIM_PHASE_BROKEN);
        assert_int_equal(closed.reason, LIM_LOST);
    }
}

static void test_participants_speak_to_one_another_and_to_all(void **state) /* proves CV12 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *two = client_new(w, "two"), *c = client_new(w, "c");
        uint64_t a = serve(one, "a"), b = serve(two, "b"), conv = open_with(c, 5, NAMED).conversation;
        lim__f_request r;
        join(c, 5, 1, a, lim__str(""));
        join(c, 5, 2, b, lim__str(""));
        hear(one, LIM_EVENT_JOINED, b, "");
        hear(two, LIM_EVENT_JOINED, a, "");
        PUT(one, say, .stream = 3, .conversation = conv, .to = b, .payload = lim__str("psst"));
        TAKE(two, request, REQUEST, &r);
        assert_int_equal(r.from, a);
        assert_text(r.payload, "psst");
        PUT(two, say, .stream = 3, .conversation = conv, .to = UINT64_MAX, .payload = lim__str("hear!"));
        TAKE(one, request, REQUEST, &r);
        assert_int_equal(r.from, b);
        assert_int_equal(r.event, LIM_EVENT_NONE);
        assert_text(r.payload, "hear!");
        opener_hears(c, LIM_EVENT_JOINED, a, "", "");
        opener_hears(c, LIM_EVENT_JOINED, b, "", "");
        opener_hears(c, LIM_EVENT_NONE, b, "", "hear!");
        assert_false(client_has(two, LIM__REQUEST)); /* not to itself */
    }
}

/* ---- signals, histories ---- */

static void test_a_signal_reaches_everybody_in_a_conversation(void **state) /* proves CV19 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *c = client_new(w, "c"), *other = client_new(w, "other");
        uint64_t a = serve(one, "a"), conv = open_with(c, 5, NAMED).conversation;
        join(c, 5, 1, a, lim__str(""));
        opener_hears(c, LIM_EVENT_JOINED, a, "", "");
        assert_int_equal(signal_code(other, 1, conv, lim__str("pause")), 0);
        hear(one, LIM_EVENT_SIGNAL, 0, "pause");
        opener_hears(c, LIM_EVENT_SIGNAL, 0, "pause", "1h");
        assert_int_equal(signal_code(other, 2, conv, lim__str("a.b")), LIM_E_INVALID);
        assert_int_equal(signal_code(other, 3, conv, lim__str("")), LIM_E_INVALID);
        assert_int_equal(signal_code(other, 4, a, lim__str("pause")), LIM_E_GONE); /* not a conversation */
        lim__f_closed closed;
        PUT(c, close, .stream = 5);
        TAKE(c, closed, CLOSED, &closed);
        assert_int_equal(signal_code(other, 5, conv, lim__str("pause")), LIM_E_GONE);
    }
}

static bool says(lim_bytes json, const char *text)
{
    return memmem(json.ptr, json.len, text, strlen(text)) != NULL;
}

static void test_a_history_is_followed_over_a_connection(void **state) /* proves CV17 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *c = client_new(w, "c"), *other = client_new(w, "other");
        uint64_t a = serve(one, "a"), conv = open_with(c, 5, TRACED).conversation;
        char name[64], request[96];
        lim__f_subscribed s;
        lim__f_deliver d;
        lim__f_outcome o;
        snprintf(name, sizeof name, "$sys.history.%" PRIx64, conv);
        PUT(other, subscribe, .stream = 1, .window = 64, .backlog = 64, .policy = LIM_CLOSE_SUB,
            .pattern = lim__str(name));
        TAKE(other, subscribed, SUBSCRIBED, &s);
        join(c, 5, 1, a, lim__str(""));
        do
            TAKE(other, deliver, DELIVER, &d);
        while (!says(d.payload, "\"kind\":\"joined\""));
        snprintf(request, sizeof request, "{\"op\":\"history\",\"id\":\"%" PRIx64 "\"}", conv);
        PUT(other, ask, .corr = 1, .timeout_ms = 10000, .on_crash = 1, .group = lim__str("$sys.conversations"),
            .payload = lim__str(request));
        TAKE(other, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        assert_true(says(o.payload, "\"kind\":\"opened\""));
        assert_true(says(o.payload, "\"kind\":\"joined\""));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_named_conversation_is_found_while_it_lives),
        cmocka_unit_test(test_an_option_that_is_wrong_is_refused_by_its_name),
        cmocka_unit_test(test_what_asks_beyond_the_rules_is_refused),
        cmocka_unit_test(test_everybody_hears_who_comes_and_goes_in_one_order),
        cmocka_unit_test(test_a_required_participant_takes_the_conversation_with_it),
        cmocka_unit_test(test_participants_speak_to_one_another_and_to_all),
        cmocka_unit_test(test_a_signal_reaches_everybody_in_a_conversation),
        cmocka_unit_test(test_a_history_is_followed_over_a_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
