/* SPDX-License-Identifier: Apache-2.0
 * session_serve_test.c - asks, tasks, registrations and their ends, over connections. */
#include "server/server_world.h"

static lim__f_served serve(client *c, uint32_t on, uint8_t kind, const char *group, const char *identity,
                           uint32_t capacity)
{
    lim__f_served f;
    PUT(c, serve, .stream = on, .kind = kind, .capacity = capacity, .group = lim__str(group),
        .identity = lim__str(identity));
    TAKE(c, served, SERVED, &f);
    return f;
}

static void ask(client *c, uint64_t corr, const char *group, const char *payload)
{
    PUT(c, ask, .corr = corr, .timeout_ms = 20000, .on_crash = LIM_CRASH_FAIL, .group = lim__str(group),
        .payload = lim__str(payload));
}

static lim__f_request take_request(client *c)
{
    lim__f_request f;
    TAKE(c, request, REQUEST, &f);
    return f;
}

static lim__f_outcome take_outcome(client *c)
{
    lim__f_outcome f;
    TAKE(c, outcome, OUTCOME, &f);
    return f;
}

static void reply(client *c, uint32_t on, const lim__f_request *r, const char *payload)
{
    PUT(c, reply, .stream = on, .conversation = r->conversation, .lease = r->lease, .how = LIM__REPLY_REPLY,
        .payload = lim__str(payload));
}

static lim__f_dispatched dispatch(client *c, uint64_t corr, const char *queue, const char *payload, uint8_t flags)
{
    lim__f_dispatched f;
    PUT(c, dispatch, .corr = corr, .flags = flags, .timeout_ms = LIM__NO_TIMEOUT, .queue = lim__str(queue),
        .payload = lim__str(payload));
    TAKE(c, dispatched, DISPATCHED, &f);
    assert_int_equal(f.corr, corr);
    assert_int_equal(f.verdict, LIM_ACCEPT);
    return f;
}

static void take_it(client *c, uint32_t on, const lim__f_request *r)
{
    PUT(c, taken, .stream = on, .conversation = r->conversation, .lease = r->lease);
}

static void expect_settled(client *c, const lim__f_request *r, bool accepted)
{
    lim__f_settled f;
    TAKE(c, settled, SETTLED, &f);
    assert_int_equal(f.conversation, r->conversation);
    assert_int_equal(f.lease, r->lease);
    assert_int_equal(f.accepted, accepted);
}

static client *worker(world *w, const char *machine, const char *identity)
{
    client *c = client_new(w, machine);
    serve(c, 1, LIM__SERVE_QUEUE, "q", identity, 1);
    return c;
}

/* ---- asks ---- */

/* Portions (session.c) are nobody's business: what came in one read is dealt with whole, in order, whatever its length,
 * and so is a goodbye behind it. */
static void test_however_much_comes_at_once_is_dealt_with_in_order(void **state)
{
    static const uint32_t counts[] = { 1, 31, 32, 33, 64, 65, 100, 129, 300 };
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "s"), *asker = client_new(w, "a");
        serve(server, 1, LIM__SERVE_GROUP, "g", "", LIM_UNLIMITED);
        for (size_t i = 0; i < LIM_COUNT(counts); i++) {
            for (uint32_t n = 1; n <= counts[i]; n++)
                ask(asker, n, "g", "x");
            for (uint32_t n = 1; n <= counts[i]; n++) {
                lim__f_request r = take_request(server);
                reply(server, 1, &r, "y");
            }
            for (uint32_t n = 1; n <= counts[i]; n++)
                assert_int_equal(take_outcome(asker).corr, n);
        }
        lim__f_subscribed ready;
        lim__f_deliver last;
        PUT(server, subscribe, .stream = 2, .window = 100, .policy = LIM_DROP_OLDEST, .pattern = lim__str("x"));
        TAKE(server, subscribed, SUBSCRIBED, &ready);
        for (uint32_t n = 1; n <= 100; n++) /* refused one by one, as they are read */
            ask(asker, n, "two words", "x");
        PUT(asker, publish, .corr = 1, .channel = lim__str("x"), .payload = lim__str("last words"));
        lim__wire_bye(&asker->wire);
        client_poke(asker);
        TAKE(server, deliver, DELIVER, &last);
        assert_text(last.payload, "last words");
    }
}

static void test_an_ask_is_answered_by_whoever_serves(void **state) /* proves CV3 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "s"), *asker = client_new(w, "a");
        lim__f_served served = serve(server, 3, LIM__SERVE_GROUP, "g", "", 4);
        assert_text(served.identity, "participant-1");
        lim__buf headers = { 0 };
        assert_int_equal(lim__packed_add(&headers, lim__str("k"), lim__str("v")), LIM_OK);
        PUT(asker, ask, .corr = 77, .timeout_ms = 5000, .on_crash = 1, .group = lim__str("g"),
            .type = lim__str("quote"), .headers = lim__buf_bytes(&headers), .payload = lim__str("how much?"));
        lim__f_request r = take_request(server);
        assert_int_equal(r.stream, 3);
        assert_text(r.payload, "how much?");
        assert_text(r.type, "quote");
        assert_true(lim__bytes_eq(r.headers, lim__buf_bytes(&headers)));
        assert_in_range(r.remaining_ms, 1, 5000);
        assert_int_equal(r.flags & LIM__FLAG_TAKEN, 0);
        lim__buf_fini(&headers);
        reply(server, 3, &r, "42");
        lim__f_outcome f = take_outcome(asker);
        assert_int_equal(f.corr, 77);
        assert_int_equal(f.how, LIM_HOW_REPLY);
        assert_int_equal(f.handed_over, LIM_HANDED_YES);
        assert_text(f.payload, "42");
        assert_text(f.participant, "participant-1");
        assert_text(f.router, "least_loaded");
        reply(server, 3, &r, "43"); /* exactly the first counts */
        run_for(w, SECOND);
        assert_false(client_has(asker, LIM__OUTCOME));
        assert_false(client_has(server, LIM__SETTLED));
        ask(asker, 77, "g", "again"); /* the number is free again */
        r = take_request(server);
        PUT(server, reply, .stream = 3, .conversation = r.conversation, .lease = r.lease, .how = LIM__REPLY_FAILED,
            .detail = lim__str("sold out"));
        f = take_outcome(asker);
        assert_int_equal(f.how, LIM_HOW_FAILED);
        assert_text(f.detail, "sold out");
    }
}

static void expect_refused(client *c, uint64_t corr, lim_why why)
{
    lim__f_outcome f = take_outcome(c);
    assert_int_equal(f.corr, corr);
    assert_int_equal(f.how, LIM_HOW_REFUSED);
    assert_int_equal(f.verdict, LIM_REJECT);
    assert_int_equal(f.handed_over, LIM_HANDED_NO);
    assert_int_equal(f.why, why);
}

static void test_what_cannot_be_asked_is_refused_at_once(void **state) /* proves CV3 PR1 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "a");
        static char large[1024 * 1024 + 1];
        ask(c, 1, "nobody", "x");
        expect_refused(c, 1, LIM_WHY_NO_PARTICIPANT);
        ask(c, 2, "two words", "x");
        expect_refused(c, 2, LIM_WHY_BAD_NAME);
        PUT(c, ask, .corr = 3, .timeout_ms = 1000, .on_crash = 1, .group = lim__str("g"),
            .payload = lim__bytes(large, sizeof large));
        expect_refused(c, 3, LIM_WHY_TOO_BIG);
        PUT(c, ask, .corr = 4, .timeout_ms = 1000, .on_crash = 1);
        expect_refused(c, 4, LIM_WHY_BAD_REQUEST);
        PUT(c, ask, .corr = 5, .timeout_ms = 0, .on_crash = 1, .group = lim__str("g"));
        expect_refused(c, 5, LIM_WHY_BAD_REQUEST);
        PUT(c, await, .corr = 6, .task = 12345);
        expect_refused(c, 6, LIM_WHY_NO_PARTICIPANT);
        PUT(c, ask, .corr = 7, .timeout_ms = 1000, .on_crash = 1, .participant = 0x7fffffffffff);
        lim__f_outcome f = take_outcome(c);
        assert_int_equal(f.how, LIM_HOW_CRASHED);
        assert_int_equal(f.reason, LIM_NOPROC);
    }
}

static void test_a_system_group_answers_over_the_wire(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "a");
        ask(c, 1, "$sys.info", "{}");
        assert_int_equal(take_outcome(c).how, LIM_HOW_REPLY);
        lim__f_left f;
        PUT(c, serve, .stream = 1, .kind = 1, .capacity = 1, .group = lim__str("$sys.info"));
        TAKE(c, left, LEFT, &f);
        assert_int_equal(f.code, LIM_E_DENIED);
        PUT(c, serve, .stream = 1, .kind = 1, .capacity = 0, .group = lim__str("g"));
        TAKE(c, left, LEFT, &f);
        assert_int_equal(f.code, LIM_E_MISUSE);
        PUT(c, serve, .stream = 1, .kind = 2, .capacity = LIM_UNLIMITED, .group = lim__str("g"));
        TAKE(c, left, LEFT, &f);
        assert_int_equal(f.code, LIM_E_MISUSE);
    }
}

static void test_a_responder_that_is_killed_is_told_as_crashed(void **state) /* proves CV3 CV4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "s"), *asker = client_new(w, "a");
        serve(server, 1, LIM__SERVE_GROUP, "g", "bob", LIM_UNLIMITED);
        for (uint64_t corr = 1; corr <= 5; corr++)
            ask(asker, corr, "g", "x");
        for (int i = 0; i < 5; i++)
            (void)take_request(server);
        client_kill(server);
        for (uint64_t corr = 1; corr <= 5; corr++) {
            lim__f_outcome f = take_outcome(asker);
            assert_int_equal(f.how, LIM_HOW_CRASHED);
            assert_int_equal(f.reason, LIM_LOST);
            assert_text(f.participant, "bob");
            assert_true(f.crashed_us > 0 && f.crashed_us < 1000000);
        }
    }
}

static void test_an_answer_followed_by_a_death_is_an_answer(void **state) /* proves CV3 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        for (uint64_t corr = 1; corr <= 4; corr++) {
            char name[16];
            snprintf(name, sizeof name, "s%d", (int)corr);
            client *server = client_new(w, name), *asker = client_new(w, "a");
            serve(server, 1, LIM__SERVE_GROUP, name, "", 4);
            ask(asker, corr, name, "x");
            lim__f_request r = take_request(server);
            reply(server, 1, &r, "done");
            while (lim__buf_len(&server->out) > 0)
                lim__sim_step(w->sim);
            client_cut(server);
            lim__f_outcome f = take_outcome(asker);
            assert_int_equal(f.how, LIM_HOW_REPLY);
            assert_text(f.payload, "done");
        }
    }
}

static void test_an_asker_that_is_killed_has_its_request_revoked(void **state) /* proves CV4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "s"), *asker = client_new(w, "a");
        serve(server, 1, LIM__SERVE_GROUP, "g", "", 4);
        ask(asker, 1, "g", "x");
        lim__f_request r = take_request(server);
        client_kill(asker);
        lim__f_revoked f;
        TAKE(server, revoked, REVOKED, &f);
        assert_int_equal(f.conversation, r.conversation);
        assert_int_equal(f.lease, r.lease);
        assert_int_equal(f.why, LIM__REVOKED_CANCELLED);
    }
}

static void test_cancel_and_timeout_end_an_ask_once(void **state) /* proves CV3 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "s"), *asker = client_new(w, "a");
        serve(server, 1, LIM__SERVE_GROUP, "g", "", 4);
        ask(asker, 1, "g", "x");
        lim__f_request r = take_request(server);
        PUT(asker, cancel, .corr = 1);
        assert_int_equal(take_outcome(asker).how, LIM_HOW_CANCELLED);
        lim__f_revoked f;
        TAKE(server, revoked, REVOKED, &f);
        assert_int_equal(f.why, LIM__REVOKED_CANCELLED);
        reply(server, 1, &r, "too late");
        PUT(asker, ask, .corr = 2, .timeout_ms = 300, .on_crash = 1, .group = lim__str("g"));
        (void)take_request(server);
        assert_int_equal(take_outcome(asker).how, LIM_HOW_TIMEOUT);
        TAKE(server, revoked, REVOKED, &f);
        assert_int_equal(f.why, LIM__REVOKED_TIMED_OUT);
        PUT(asker, cancel, .corr = 2);
        run_for(w, SECOND);
        assert_false(client_has(asker, LIM__OUTCOME));
    }
}

static void test_an_ask_that_may_move_on_finds_the_next_one(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *asker = client_new(w, "a");
        serve(one, 1, LIM__SERVE_GROUP, "g", "one", 1);
        PUT(asker, ask, .corr = 1, .timeout_ms = 20000, .on_crash = LIM_CRASH_NEXT, .group = lim__str("g"),
            .payload = lim__str("x"));
        (void)take_request(one);
        client *two = client_new(w, "two");
        serve(two, 1, LIM__SERVE_GROUP, "g", "two", 1);
        client_kill(one);
        lim__f_request r = take_request(two);
        assert_int_equal(r.losses, 1);
        reply(two, 1, &r, "y");
        lim__f_outcome f = take_outcome(asker);
        assert_int_equal(f.how, LIM_HOW_REPLY);
        assert_text(f.participant, "two");
        lim__lost_one gone;
        assert_int_equal(f.losses, 1);
        assert_true(lim__lost_next(&f.excluded, &gone));
        assert_text(gone.name, "one");
        assert_true(gone.ago_us > 0 && gone.rerouted_us > 0 && gone.rerouted_us <= gone.ago_us);
    }
}

static void test_the_same_number_twice_is_a_fault(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "s"), *asker = client_new(w, "a");
        serve(server, 1, LIM__SERVE_GROUP, "g", "", 4);
        ask(asker, 1, "g", "x");
        (void)take_request(server);
        ask(asker, 1, "g", "x");
        expect_fault(asker, LIM_E_PROTOCOL);
    }
}

static void test_an_identity_is_taken_once_and_replaced_by_its_own_session(void **state) /* proves GR1 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a"), *b = client_new(w, "b");
        serve(a, 1, LIM__SERVE_GROUP, "g", "bob", 4);
        lim__f_left f;
        PUT(b, serve, .stream = 1, .kind = 1, .capacity = 1, .group = lim__str("g"), .identity = lim__str("bob"));
        TAKE(b, left, LEFT, &f);
        assert_int_equal(f.code, LIM_E_EXISTS);
        client *again = client_session(w, "again", &a->session, 0);
        serve(again, 1, LIM__SERVE_GROUP, "g", "bob", 4);
        TAKE(a, left, LEFT, &f);
        assert_int_equal(f.code, LIM_E_EXISTS);
        PUT(again, leave, .stream = 1);
        TAKE(again, left, LEFT, &f);
        assert_int_equal(f.code, 0);
        serve(again, 1, LIM__SERVE_GROUP, "g", "bob", 4); /* name and stream are free */
    }
}

static void test_a_registration_names_its_namespace(void **state) /* proves GR1 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a"), *c = client_new(w, "c");
        lim__f_served served;
        lim__f_left f;
        PUT(a, serve, .stream = 1, .kind = LIM__SERVE_GROUP, .capacity = 1, .namespace = lim__str("prod"),
            .group = lim__str("g"));
        TAKE(a, served, SERVED, &served);
        PUT(c, ask, .corr = 1, .timeout_ms = 10000, .on_crash = 1, .group = lim__str("g"));
        lim__f_outcome o = take_outcome(c);
        assert_int_equal(o.why, LIM_WHY_NO_PARTICIPANT);
        PUT(c, ask, .corr = 2, .timeout_ms = 10000, .on_crash = 1, .group = lim__str("aion.dispatch.prod.g"));
        lim__f_request r = take_request(a);
        reply(a, 1, &r, "y");
        o = take_outcome(c);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        PUT(a, serve, .stream = 2, .kind = LIM__SERVE_GROUP, .capacity = 1, .namespace = lim__str("pr.od"),
            .group = lim__str("g"));
        TAKE(a, left, LEFT, &f);
        assert_int_equal(f.code, LIM_E_INVALID);
    }
}

/* ---- liveness ---- */

static void test_a_stopped_responder_is_found_silent(void **state) /* proves CV4 WI5 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_session(w, "s", NULL, 6000), *asker = client_new(w, "a");
        serve(server, 1, LIM__SERVE_GROUP, "g", "", 4);
        PUT(asker, ask, .corr = 1, .timeout_ms = LIM__NO_TIMEOUT, .on_crash = 1, .group = lim__str("g"));
        (void)take_request(server);
        run_for(w, 20 * SECOND); /* it answers pings */
        assert_false(client_has(asker, LIM__OUTCOME));
        lim__sim_freeze_host(w->sim, server->os);
        uint64_t from = lim__sim_now(w->sim);
        lim__f_outcome f = take_outcome(asker);
        assert_int_equal(f.how, LIM_HOW_CRASHED);
        assert_int_equal(f.reason, LIM_SILENT);
        assert_in_range(lim__sim_now(w->sim) - from, 4 * SECOND, 11 * SECOND);
        lim__sim_thaw_host(w->sim, server->os);
    }
}

static void test_a_silent_network_is_found_by_the_kernel(void **state) /* proves CV4 WI5 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "s"), *asker = client_new(w, "a");
        serve(server, 1, LIM__SERVE_GROUP, "g", "", 4);
        PUT(asker, ask, .corr = 1, .timeout_ms = LIM__NO_TIMEOUT, .on_crash = 1, .group = lim__str("g"));
        (void)take_request(server);
        lim__sim_cut(w->sim, w->os, server->os);
        lim__f_outcome f = take_outcome(asker);
        assert_int_equal(f.how, LIM_HOW_CRASHED);
        assert_int_equal(f.reason, LIM_SILENT);
        lim__sim_heal(w->sim, w->os, server->os);
        run_for(w, 30 * SECOND);
    }
}

/* ---- tasks ---- */

static void test_a_task_is_taken_done_and_settled(void **state) /* proves GR4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d");
        lim__f_dispatched d = dispatch(c, 1, "q", "job", LIM__FLAG_OUTCOME);
        client *one = worker(w, "one", "w1");
        lim__f_request r = take_request(one);
        assert_int_equal(r.conversation, d.task);
        assert_int_equal(r.flags & LIM__FLAG_TAKEN, LIM__FLAG_TAKEN);
        assert_text(r.payload, "job");
        take_it(one, 1, &r);
        PUT(c, await, .corr = 2, .task = d.task);
        run_for(w, SECOND);
        reply(one, 1, &r, "result");
        expect_settled(one, &r, true);
        for (int i = 0; i < 2; i++) {
            lim__f_outcome f = take_outcome(c);
            assert_int_equal(f.how, LIM_HOW_REPLY);
            assert_text(f.payload, "result");
            assert_text(f.participant, "w1");
        }
        client *late = client_new(w, "late");
        PUT(late, await, .corr = 9, .task = d.task);
        lim__f_outcome f = take_outcome(late);
        assert_int_equal(f.how, LIM_HOW_REPLY);
        assert_text(f.payload, "result");
    }
}

static void test_a_task_outlives_whoever_dispatched_it(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d");
        lim__f_dispatched d = dispatch(c, 1, "q", "job", LIM__FLAG_OUTCOME);
        client_kill(c);
        run_for(w, 2 * SECOND);
        client *one = worker(w, "one", "w1");
        lim__f_request r = take_request(one);
        take_it(one, 1, &r);
        reply(one, 1, &r, "result");
        expect_settled(one, &r, true);
        client *late = client_new(w, "late");
        PUT(late, await, .corr = 9, .task = d.task);
        assert_int_equal(take_outcome(late).how, LIM_HOW_REPLY);
    }
}

static void test_a_lost_worker_has_its_task_done_by_the_next_one(void **state) /* proves GR5 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d"), *one = worker(w, "one", "w1");
        dispatch(c, 1, "q", "job", LIM__FLAG_OUTCOME);
        lim__f_request r = take_request(one);
        take_it(one, 1, &r);
        client *two = worker(w, "two", "w2");
        run_for(w, SECOND);
        client_kill(one);
        lim__f_request again = take_request(two);
        assert_int_equal(again.attempt, r.attempt);
        assert_int_equal(again.losses, 1);
        take_it(two, 1, &again);
        reply(two, 1, &again, "result");
        expect_settled(two, &again, true);
        lim__f_outcome f = take_outcome(c);
        assert_int_equal(f.how, LIM_HOW_REPLY);
        assert_int_equal(f.losses, 1);
        assert_true(f.crashed_us > 0 && f.rerouted_us > 0);
    }
}

static void test_a_worker_that_comes_back_keeps_its_task(void **state) /* proves GR6 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d"), *one = worker(w, "one", "w1");
        dispatch(c, 1, "q", "job", LIM__FLAG_OUTCOME);
        lim__f_request r = take_request(one);
        take_it(one, 1, &r);
        run_for(w, SECOND);
        lim__sim_reset(w->sim, w->os, one->os);
        run_for(w, SECOND);
        client *back = client_session(w, "back", &one->session, 0);
        serve(back, 1, LIM__SERVE_QUEUE, "q", "w1", 1);
        PUT(back, holding, .stream = 1, .conversation = r.conversation, .lease = r.lease);
        run_for(w, SECOND);
        assert_false(client_has(back, LIM__REVOKED));
        reply(back, 1, &r, "result");
        expect_settled(back, &r, true);
        lim__f_outcome f = take_outcome(c);
        assert_int_equal(f.how, LIM_HOW_REPLY);
        assert_text(f.participant, "w1");
    }
}

static void test_a_result_sent_again_after_a_break_counts(void **state) /* proves GR6 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d"), *one = worker(w, "one", "w1");
        dispatch(c, 1, "q", "job", LIM__FLAG_OUTCOME);
        lim__f_request r = take_request(one);
        take_it(one, 1, &r);
        run_for(w, SECOND);
        lim__sim_reset(w->sim, w->os, one->os);
        client *back = client_session(w, "back", &one->session, 0);
        serve(back, 1, LIM__SERVE_QUEUE, "q", "w1", 1);
        reply(back, 1, &r, "result");
        expect_settled(back, &r, true);
        assert_int_equal(take_outcome(c).how, LIM_HOW_REPLY);
        lim__sim_reset(w->sim, w->os, back->os); /* SETTLED may have been lost: it asks once more */
        client *again = client_session(w, "again", &one->session, 0);
        serve(again, 1, LIM__SERVE_QUEUE, "q", "w1", 1);
        reply(again, 1, &r, "result");
        expect_settled(again, &r, true);
        PUT(again, holding, .stream = 1, .conversation = r.conversation, .lease = r.lease);
        lim__f_revoked f;
        TAKE(again, revoked, REVOKED, &f);
        assert_int_equal(f.why, LIM__REVOKED_ENDED);
    }
}

static void test_a_worker_that_comes_back_too_late_is_told(void **state) /* proves GR6 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d"), *one = worker(w, "one", "w1");
        dispatch(c, 1, "q", "job", LIM__FLAG_OUTCOME);
        lim__f_request r = take_request(one);
        take_it(one, 1, &r);
        client *two = worker(w, "two", "w2");
        run_for(w, SECOND);
        lim__sim_reset(w->sim, w->os, one->os);
        lim__f_request second = take_request(two);
        take_it(two, 1, &second);
        run_for(w, SECOND);
        client *back = client_session(w, "back", &one->session, 0);
        serve(back, 1, LIM__SERVE_QUEUE, "q", "w1", 1);
        PUT(back, holding, .stream = 1, .conversation = r.conversation, .lease = r.lease);
        lim__f_revoked f;
        TAKE(back, revoked, REVOKED, &f);
        assert_int_equal(f.why, LIM__REVOKED_TAKEN_BY_ANOTHER);
        reply(back, 1, &r, "late result");
        expect_settled(back, &r, false);
        reply(two, 1, &second, "result");
        expect_settled(two, &second, true);
        lim__f_outcome o = take_outcome(c);
        assert_text(o.payload, "result");
        reply(back, 1, &r, "later still");
        expect_settled(back, &r, false);
    }
}

static void test_leaving_gives_tasks_back_at_once(void **state) /* proves GR1 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d"), *one = worker(w, "one", "w1");
        dispatch(c, 1, "q", "job", LIM__FLAG_OUTCOME);
        lim__f_request r = take_request(one);
        take_it(one, 1, &r);
        client *two = worker(w, "two", "w2");
        PUT(one, leave, .stream = 1);
        lim__f_left left;
        TAKE(one, left, LEFT, &left);
        assert_int_equal(left.code, 0);
        r = take_request(two);
        take_it(two, 1, &r);
        reply(two, 1, &r, "result");
        assert_text(take_outcome(c).payload, "result");
        assert_int_equal(one->end, 1); /* the connection stays */
    }
}

static void test_a_task_that_is_never_taken_moves_on(void **state) /* proves GR4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d"), *one = worker(w, "one", "w1");
        dispatch(c, 1, "q", "job", 0);
        lim__f_request r = take_request(one);
        client *two = worker(w, "two", "w2");
        r = take_request(two);
        take_it(two, 1, &r);
        reply(two, 1, &r, "result");
        expect_settled(two, &r, true);
        run_for(w, SECOND);
        assert_false(client_has(c, LIM__OUTCOME)); /* nobody asked for it */
    }
}

static void test_nothing_is_left_of_workers_that_die_at_any_moment(void **state) /* proves CV3 GR5 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "d");
        for (uint64_t corr = 1; corr <= 3; corr++)
            dispatch(c, corr, "q", "job", LIM__FLAG_OUTCOME);
        for (uint64_t n = 0; n < 6; n++) {
            char name[16];
            snprintf(name, sizeof name, "w%d", (int)n);
            client *one = worker(w, name, name);
            lim__sim_kill_host_at_call(w->sim, one->os, 1 + n * 2);
            for (int i = 0; i < 3 && lim__sim_host_alive(one->os); i++) {
                run_for(w, SECOND / 2);
                while (lim__sim_host_alive(one->os) && client_has(one, LIM__REQUEST)) {
                    lim__f_request r = take_request(one);
                    take_it(one, 1, &r);
                    reply(one, 1, &r, "result");
                    run_for(w, SECOND / 10);
                }
            }
            if (lim__sim_host_alive(one->os))
                client_kill(one);
        }
        client *last = client_new(w, "last");
        serve(last, 1, LIM__SERVE_QUEUE, "q", "last", 10);
        uint64_t outcomes = 0;
        for (int i = 0; i < 100 && outcomes < 3; i++) {
            run_for(w, SECOND / 10);
            while (client_has(last, LIM__REQUEST)) {
                lim__f_request r = take_request(last);
                take_it(last, 1, &r);
                reply(last, 1, &r, "result");
            }
            while (client_has(c, LIM__OUTCOME)) {
                (void)take_outcome(c);
                outcomes++;
            }
        }
        assert_int_equal(outcomes, 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_however_much_comes_at_once_is_dealt_with_in_order),
        cmocka_unit_test(test_an_ask_is_answered_by_whoever_serves),
        cmocka_unit_test(test_what_cannot_be_asked_is_refused_at_once),
        cmocka_unit_test(test_a_system_group_answers_over_the_wire),
        cmocka_unit_test(test_a_responder_that_is_killed_is_told_as_crashed),
        cmocka_unit_test(test_an_answer_followed_by_a_death_is_an_answer),
        cmocka_unit_test(test_an_asker_that_is_killed_has_its_request_revoked),
        cmocka_unit_test(test_cancel_and_timeout_end_an_ask_once),
        cmocka_unit_test(test_an_ask_that_may_move_on_finds_the_next_one),
        cmocka_unit_test(test_the_same_number_twice_is_a_fault),
        cmocka_unit_test(test_an_identity_is_taken_once_and_replaced_by_its_own_session),
        cmocka_unit_test(test_a_registration_names_its_namespace),
        cmocka_unit_test(test_a_stopped_responder_is_found_silent),
        cmocka_unit_test(test_a_silent_network_is_found_by_the_kernel),
        cmocka_unit_test(test_a_task_is_taken_done_and_settled),
        cmocka_unit_test(test_a_task_outlives_whoever_dispatched_it),
        cmocka_unit_test(test_a_lost_worker_has_its_task_done_by_the_next_one),
        cmocka_unit_test(test_a_worker_that_comes_back_keeps_its_task),
        cmocka_unit_test(test_a_result_sent_again_after_a_break_counts),
        cmocka_unit_test(test_a_worker_that_comes_back_too_late_is_told),
        cmocka_unit_test(test_leaving_gives_tasks_back_at_once),
        cmocka_unit_test(test_a_task_that_is_never_taken_moves_on),
        cmocka_unit_test(test_nothing_is_left_of_workers_that_die_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
