/* SPDX-License-Identifier: Apache-2.0
 * session_part_test.c - answers in parts and of everybody, progress, retries, and tasks that stand for others: over
 * connections, in simulated worlds. */
#include "server/server_world.h"

#define OPTION(key, text) lim__bytes("\000\001" key text, sizeof("\000\001" key text) - 1)
#define WINDOW_2          OPTION("\006window", "\000\0012")
#define NOTHING           lim__bytes("", 0)

static uint64_t serve(client *c, uint8_t kind, const char *group)
{
    lim__f_served f;
    PUT(c, serve, .stream = 3, .kind = kind, .capacity = 4, .group = lim__str(group));
    TAKE(c, served, SERVED, &f);
    return f.participant;
}

static lim__f_request take_request(client *c)
{
    lim__f_request f;
    TAKE(c, request, REQUEST, &f);
    return f;
}

static lim__f_request take_task(client *c)
{
    lim__f_request f = take_request(c);
    assert_int_equal(f.flags & LIM__FLAG_TAKEN, LIM__FLAG_TAKEN);
    PUT(c, taken, .stream = 3, .conversation = f.conversation, .lease = f.lease);
    return f;
}

static lim__f_outcome take_outcome(client *c, uint64_t corr)
{
    lim__f_outcome f;
    TAKE(c, outcome, OUTCOME, &f);
    assert_int_equal(f.corr, corr);
    return f;
}

static void ask(client *c, uint64_t corr, uint8_t on_crash, lim_bytes options)
{
    PUT(c, ask, .corr = corr, .timeout_ms = 500000, .on_crash = on_crash, .group = lim__str("g"),
        .payload = lim__str("?"), .options = options);
}

static void part(client *c, const lim__f_request *r, const char *text)
{
    PUT(c, part, .stream = 3, .conversation = r->conversation, .lease = r->lease, .payload = lim__str(text));
}

static void reply(client *c, const lim__f_request *r, uint8_t how, const char *text)
{
    lim_bytes said = lim__str(text), none = NOTHING;
    PUT(c, reply, .stream = 3, .conversation = r->conversation, .lease = r->lease, .how = how,
        .detail = how == LIM__REPLY_FAILED ? said : none, .payload = how == LIM__REPLY_REPLY ? said : none);
}

static void take_part(client *c, uint64_t corr, uint32_t seq, const char *text)
{
    lim__f_partial f;
    TAKE(c, partial, PARTIAL, &f);
    assert_int_equal(f.corr, corr);
    assert_int_equal(f.seq, seq);
    assert_int_equal(f.how, LIM_HOW_REPLY);
    assert_text(f.payload, text);
}

static lim__f_dispatched dispatch(client *c, uint64_t corr, lim_bytes options)
{
    lim__f_dispatched f;
    PUT(c, dispatch, .corr = corr, .timeout_ms = 500000, .queue = lim__str("q"), .payload = lim__str("job"),
        .options = options, .flags = LIM__FLAG_OUTCOME);
    TAKE(c, dispatched, DISPATCHED, &f);
    assert_int_equal(f.corr, corr);
    return f;
}

static void sys(client *c, const char *group, const char *json)
{
    PUT(c, ask, .corr = 99, .timeout_ms = 10000, .on_crash = 1, .group = lim__str(group), .payload = lim__str(json));
    lim__f_outcome o = take_outcome(c, 99);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    if (o.payload.len >= 8 && memcmp(o.payload.ptr, "{\"error\"", 8) == 0)
        fail_msg("%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
}

/* What a queue was told and remembers keeps it; a world ends with nothing in it. */
static void forget_queue(client *worker, client *c)
{
    lim__f_left f;
    PUT(worker, leave, .stream = 3);
    TAKE(worker, left, LEFT, &f);
    sys(c, "$sys.groups", "{\"op\":\"rm\",\"name\":\"q\"}");
}

/* ---- who is there ---- */

static uint64_t last_seen_ms(client *c)
{
    static const char key[] = "\"last_seen_ms_ago\":";
    char text[1024];
    PUT(c, ask, .corr = 98, .timeout_ms = 10000, .on_crash = 1, .group = lim__str("$sys.workers"),
        .payload = lim__str("{\"op\":\"ls\"}"));
    lim__f_outcome o = take_outcome(c, 98);
    snprintf(text, sizeof text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
    assert_non_null(strstr(text, "\"node\":\"worker\"")); /* as its HELLO said */
    assert_non_null(strstr(text, "\"eligible\":true,\"why\":\"\""));
    assert_non_null(strstr(text, key));
    return strtoull(strstr(text, key) + sizeof key - 1, NULL, 10);
}

static void test_any_word_of_a_connection_shows_that_its_workers_were_there(void **state) /* proves GR3 GR14 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *worker = client_new(w, "worker"), *boss = client_new(w, "boss");
        serve(worker, LIM__SERVE_QUEUE, "q");
        run_for(w, 9 * SECOND);
        assert_in_range(last_seen_ms(boss), 8000, 10000);
        PUT(worker, cancel, .corr = 4711); /* of nothing: a word all the same */
        run_for(w, SECOND);
        assert_in_range(last_seen_ms(boss), 0, 2000);
        forget_queue(worker, boss);
    }
}

/* ---- parts ---- */

static void test_an_answer_in_parts_comes_in_order_and_as_granted(void **state) /* proves CV13 PR3 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "server"), *asker = client_new(w, "asker");
        lim__f_credit credit;
        serve(server, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_NEXT, WINDOW_2);
        lim__f_request r = take_request(server);
        assert_int_equal(r.credit, 2);
        part(server, &r, "a");
        part(server, &r, "b");
        take_part(asker, 1, 1, "a");
        take_part(asker, 1, 2, "b");
        for (uint32_t i = 3; i <= 9; i++) {
            PUT(asker, grant, .corr = 1, .parts = 1);
            TAKE(server, credit, CREDIT, &credit);
            assert_int_equal(credit.lease, r.lease);
            assert_int_equal(credit.parts, 1);
            part(server, &r, "more");
            take_part(asker, 1, i, "more");
        }
        reply(server, &r, LIM__REPLY_REPLY, "end");
        lim__f_outcome o = take_outcome(asker, 1);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        assert_text(o.payload, "end");
        PUT(asker, grant, .corr = 1, .parts = 2); /* crossed the outcome */
        run_for(w, SECOND);
        assert_int_equal(asker->end, 1);
    }
}

static void test_parts_and_grants_beyond_the_credit_are_faults(void **state) /* proves PR3 WI4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *greedy = client_new(w, "greedy"), *asker = client_new(w, "asker");
        serve(greedy, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_FAIL, WINDOW_2);
        lim__f_request r = take_request(greedy);
        for (int i = 0; i < 3; i++)
            part(greedy, &r, "x");
        expect_fault(greedy, LIM_E_PROTOCOL);
        take_part(asker, 1, 1, "x");
        take_part(asker, 1, 2, "x");
        assert_int_equal(take_outcome(asker, 1).how, LIM_HOW_CRASHED);
        assert_false(client_has(asker, LIM__PARTIAL));

        client *chatty = client_new(w, "chatty");
        serve(chatty, LIM__SERVE_GROUP, "g");
        ask(asker, 2, LIM_CRASH_FAIL, NOTHING);
        r = take_request(chatty);
        assert_int_equal(r.credit, 0);
        part(chatty, &r, "x");
        expect_fault(chatty, LIM_E_PROTOCOL);
        assert_int_equal(take_outcome(asker, 2).how, LIM_HOW_CRASHED);

        client *good = client_new(w, "good");
        serve(good, LIM__SERVE_GROUP, "g");
        ask(asker, 3, LIM_CRASH_FAIL, WINDOW_2);
        r = take_request(good);
        part(good, &r, "x");
        take_part(asker, 3, 1, "x");
        PUT(asker, grant, .corr = 3, .parts = 2);
        expect_fault(asker, LIM_E_PROTOCOL);
    }
}

static void test_a_cancel_reaches_who_sends_parts(void **state) /* proves CV13 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "server"), *asker = client_new(w, "asker");
        lim__f_revoked gone;
        serve(server, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_FAIL, WINDOW_2);
        lim__f_request r = take_request(server);
        part(server, &r, "a");
        take_part(asker, 1, 1, "a");
        PUT(asker, cancel, .corr = 1);
        assert_int_equal(take_outcome(asker, 1).how, LIM_HOW_CANCELLED);
        TAKE(server, revoked, REVOKED, &gone);
        assert_int_equal(gone.lease, r.lease);
        assert_int_equal(gone.why, LIM__REVOKED_CANCELLED);
        for (int i = 0; i < 5; i++)
            part(server, &r, "late"); /* crossed it: no fault, and nobody hears */
        reply(server, &r, LIM__REPLY_NOTHING, "");
        run_for(w, SECOND);
        assert_int_equal(server->end, 1);
        assert_false(client_has(asker, LIM__PARTIAL));
    }
}

static void test_an_answer_that_has_begun_does_not_move_on(void **state) /* proves CV13 CV3 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *asker = client_new(w, "asker");
        serve(one, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_NEXT, WINDOW_2);
        ask(asker, 2, LIM_CRASH_NEXT, WINDOW_2);
        lim__f_request begun = take_request(one), not_begun = take_request(one);
        if (begun.conversation > not_begun.conversation) { /* which is which does not matter */
            lim__f_request other = begun;
            begun = not_begun;
            not_begun = other;
        }
        part(one, &begun, "a");
        lim__f_partial p;
        TAKE(asker, partial, PARTIAL, &p);
        client *two = client_new(w, "two");
        serve(two, LIM__SERVE_GROUP, "g");
        client_kill(one);
        assert_int_equal(take_outcome(asker, p.corr).how, LIM_HOW_CRASHED);
        lim__f_request again = take_request(two);
        assert_int_equal(again.conversation, not_begun.conversation);
        assert_int_equal(again.losses, 1);
        assert_int_equal(again.credit, 2);
        part(two, &again, "b");
        take_part(asker, 3 - p.corr, 1, "b");
        reply(two, &again, LIM__REPLY_REPLY, "end");
        assert_int_equal(take_outcome(asker, 3 - p.corr).how, LIM_HOW_REPLY);
    }
}

static void test_a_part_over_the_size_limit_ends_the_answer(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "server"), *asker = client_new(w, "asker");
        lim__f_revoked gone;
        w->bus->opts.payload_bytes_max = 10;
        serve(server, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_FAIL, WINDOW_2);
        lim__f_request r = take_request(server);
        part(server, &r, "eleven byte");
        lim__f_outcome o = take_outcome(asker, 1);
        assert_int_equal(o.how, LIM_HOW_FAILED);
        assert_text(o.detail, "a part of the answer is over the size limit");
        TAKE(server, revoked, REVOKED, &gone);
        assert_int_equal(gone.lease, r.lease);
    }
}

static void test_an_asker_that_dies_has_its_parts_revoked(void **state) /* proves CV4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "server"), *asker = client_new(w, "asker");
        lim__f_revoked gone;
        serve(server, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_FAIL, WINDOW_2);
        lim__f_request r = take_request(server);
        part(server, &r, "a");
        take_part(asker, 1, 1, "a");
        client_kill(asker);
        TAKE(server, revoked, REVOKED, &gone);
        assert_int_equal(gone.lease, r.lease);
    }
}

static void test_who_has_not_the_lease_is_not_heard(void **state) /* proves GR6 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "server"), *other = client_new(w, "other"), *asker = client_new(w, "asker");
        serve(server, LIM__SERVE_GROUP, "g");
        serve(other, LIM__SERVE_GROUP, "h");
        ask(asker, 1, LIM_CRASH_FAIL, WINDOW_2);
        lim__f_request r = take_request(server);
        part(other, &r, "lies");
        reply(other, &r, LIM__REPLY_REPLY, "lies");
        run_for(w, SECOND);
        assert_false(client_has(asker, LIM__OUTCOME));
        assert_false(client_has(asker, LIM__PARTIAL));
        reply(server, &r, LIM__REPLY_REPLY, "truth");
        assert_text(take_outcome(asker, 1).payload, "truth");
    }
}

/* ---- everybody ---- */

static void answer_of(client *c, uint64_t corr, uint32_t seq, lim_how how, const char *text)
{
    lim__f_partial f;
    TAKE(c, partial, PARTIAL, &f);
    assert_int_equal(f.corr, corr);
    assert_int_equal(f.seq, seq);
    assert_int_equal(f.how, how);
    assert_text(how == LIM_HOW_REPLY ? f.payload : f.detail, text);
}

static void test_everybody_is_asked_and_enough_replies_end_it(void **state) /* proves CV12 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *two = client_new(w, "two"), *three = client_new(w, "three");
        client *asker = client_new(w, "asker");
        lim__f_revoked gone;
        serve(one, LIM__SERVE_GROUP, "g");
        serve(two, LIM__SERVE_GROUP, "g");
        serve(three, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_FAIL, OPTION("\006quorum", "\000\0012"));
        lim__f_request r = take_request(one);
        reply(one, &r, LIM__REPLY_REPLY, "20");
        answer_of(asker, 1, 1, LIM_HOW_REPLY, "20");
        r = take_request(three);
        take_request(two);
        reply(three, &r, LIM__REPLY_REPLY, "21");
        answer_of(asker, 1, 2, LIM_HOW_REPLY, "21");
        TAKE(two, revoked, REVOKED, &gone); /* nobody waits for it any more */
        lim__f_outcome o = take_outcome(asker, 1);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        assert_int_equal(o.attempts, 3);
        assert_int_equal(o.losses, 1);
        PUT(asker, grant, .corr = 1, .parts = 2); /* has no meaning, and does no harm */
        run_for(w, SECOND);
        assert_int_equal(asker->end, 1);
    }
}

static void test_a_quorum_that_cannot_be_any_more_is_refused(void **state) /* proves CV12 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *two = client_new(w, "two"), *asker = client_new(w, "asker");
        serve(one, LIM__SERVE_GROUP, "g");
        serve(two, LIM__SERVE_GROUP, "g");
        ask(asker, 1, LIM_CRASH_FAIL, OPTION("\006quorum", "\000\0010")); /* of all */
        lim__f_request r = take_request(two);
        reply(two, &r, LIM__REPLY_REPLY, "here");
        answer_of(asker, 1, 1, LIM_HOW_REPLY, "here");
        take_request(one);
        client_kill(one);
        lim__f_partial p;
        TAKE(asker, partial, PARTIAL, &p);
        assert_int_equal(p.how, LIM_HOW_CRASHED);
        lim__f_outcome o = take_outcome(asker, 1);
        assert_int_equal(o.how, LIM_HOW_REFUSED);
        assert_int_equal(o.why, LIM_WHY_QUORUM);
        ask(asker, 2, LIM_CRASH_FAIL, OPTION("\006quorum", "\000\0013"));
        o = take_outcome(asker, 2); /* there are not so many */
        assert_int_equal(o.how, LIM_HOW_REFUSED);
        assert_int_equal(o.why, LIM_WHY_QUORUM);
    }
}

static void test_asks_that_go_past_a_group_are_bounded(void **state) /* proves PR3 */
{
    (void)state;
    FEW_WORLDS(w)
    {
        client *one = client_new(w, "one"), *asker = client_new(w, "asker");
        uint64_t who = serve(one, LIM__SERVE_GROUP, "g"); /* four places */
        for (uint64_t i = 1; i <= 4 + LIM__DIRECT_MAX + 1; i++)
            PUT(asker, ask, .corr = i, .timeout_ms = 500000, .on_crash = 1, .participant = who);
        lim__f_outcome o;
        TAKE(asker, outcome, OUTCOME, &o);
        assert_int_equal(o.how, LIM_HOW_FAILED);
        assert_text(o.detail, "the participant has more in hand than it can answer");
        lim__f_request r = take_request(one);
        reply(one, &r, LIM__REPLY_NOTHING, "");
        run_for(w, SECOND);
        ask(asker, 9999, LIM_CRASH_FAIL, NOTHING); /* through its group it is as before */
        for (int i = 0; i < 4 + LIM__DIRECT_MAX; i++) {
            r = take_request(one);
            reply(one, &r, LIM__REPLY_REPLY, "x");
        }
        assert_int_equal(one->end, 1);
    }
}

/* ---- tasks ---- */

static void test_a_stuck_worker_loses_its_task_and_one_with_progress_keeps_it(void **state) /* proves GR7 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *c = client_new(w, "c");
        lim__f_revoked gone;
        serve(one, LIM__SERVE_QUEUE, "q");
        assert_int_equal(dispatch(c, 2, OPTION("\013progress_ms", "\000\0045000")).verdict, LIM_ACCEPT);
        lim__f_request r = take_task(one);
        for (int i = 0; i < 5; i++) {
            run_for(w, 3 * SECOND);
            PUT(one, progress, .stream = 3, .conversation = r.conversation, .lease = r.lease,
                .note = lim__str("still at it"));
        }
        run_for(w, SECOND);
        assert_false(client_has(one, LIM__REVOKED));
        client *two = client_new(w, "two");
        serve(two, LIM__SERVE_QUEUE, "q");
        TAKE(one, revoked, REVOKED, &gone);
        assert_int_equal(gone.lease, r.lease);
        lim__f_request again = take_task(two);
        assert_int_equal(again.conversation, r.conversation);
        assert_int_equal(again.losses, 1);
        reply(two, &again, LIM__REPLY_REPLY, "done");
        assert_text(take_outcome(c, 2).payload, "done");
    }
}

static void test_a_task_that_fails_is_tried_again(void **state) /* proves GR9 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *worker = client_new(w, "worker"), *c = client_new(w, "c");
        serve(worker, LIM__SERVE_QUEUE, "q");
        sys(c, "$sys.queues",
            "{\"op\":\"configure\",\"queue\":\"q\",\"attempts_max\":3,\"backoff_min_ms\":100,\"backoff_max_ms\":200}");
        assert_int_equal(dispatch(c, 1, NOTHING).verdict, LIM_ACCEPT);
        for (uint16_t i = 1; i <= 3; i++) {
            lim__f_request r = take_task(worker);
            assert_int_equal(r.attempt, i);
            assert_int_equal(r.losses, 0);
            reply(worker, &r, LIM__REPLY_FAILED, "no luck");
        }
        lim__f_outcome o = take_outcome(c, 1);
        assert_int_equal(o.how, LIM_HOW_FAILED);
        assert_int_equal(o.attempts, 3);
        assert_text(o.detail, "no luck");
        sys(c, "$sys.dead", "{\"op\":\"drop\",\"queue\":\"q\",\"all\":true}");
        forget_queue(worker, c);
    }
}

static void test_the_same_dispatch_again_is_answered_with_the_first_outcome(void **state) /* proves GR13 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *worker = client_new(w, "worker"), *c = client_new(w, "c"), *other = client_new(w, "other");
        lim_bytes key = OPTION("\017idempotency_key", "\000\004o-17");
        serve(worker, LIM__SERVE_QUEUE, "q");
        uint64_t task = dispatch(c, 1, key).task;
        lim__f_request r = take_task(worker);
        assert_int_equal(dispatch(other, 5, key).task, task); /* it runs */
        reply(worker, &r, LIM__REPLY_REPLY, "once");
        assert_text(take_outcome(c, 1).payload, "once");
        assert_text(take_outcome(other, 5).payload, "once");
        assert_int_equal(dispatch(other, 6, key).task, task); /* it has run */
        assert_text(take_outcome(other, 6).payload, "once");
        run_for(w, SECOND);
        assert_false(client_has(worker, LIM__REQUEST));
        forget_queue(worker, c);
    }
}

static void test_a_signal_reaches_whoever_works_on_a_task(void **state) /* proves CV19 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *worker = client_new(w, "worker"), *c = client_new(w, "c");
        lim__f_signalled s;
        uint64_t task = dispatch(c, 1, NOTHING).task;
        PUT(c, signal, .corr = 1, .conversation = task, .name = lim__str("early"), .payload = lim__str("1"));
        TAKE(c, signalled, SIGNALLED, &s);
        assert_int_equal(s.code, 0);
        serve(worker, LIM__SERVE_QUEUE, "q");
        lim__f_request r = take_task(worker), e = take_request(worker);
        assert_int_equal(e.event, LIM_EVENT_SIGNAL);
        assert_int_equal(e.conversation, task);
        assert_text(e.type, "early");
        assert_int_equal(e.flags & LIM__FLAG_NO_REPLY, LIM__FLAG_NO_REPLY);
        PUT(c, signal, .corr = 2, .conversation = task, .name = lim__str("late"), .payload = lim__str("2"));
        e = take_request(worker);
        assert_text(e.type, "late");
        assert_text(e.payload, "2");
        reply(worker, &r, LIM__REPLY_REPLY, "done");
        assert_text(take_outcome(c, 1).payload, "done");
    }
}

static void test_an_await_that_is_cancelled_is_withdrawn(void **state) /* proves GR13 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *worker = client_new(w, "worker"), *c = client_new(w, "c"), *other = client_new(w, "other");
        serve(worker, LIM__SERVE_QUEUE, "q");
        uint64_t task = dispatch(c, 1, NOTHING).task;
        lim__f_request r = take_task(worker);
        for (int i = 0; i < 3; i++) {
            PUT(other, await, .corr = 7, .task = task);
            PUT(other, cancel, .corr = 7);
            assert_int_equal(take_outcome(other, 7).how, LIM_HOW_CANCELLED);
        }
        PUT(other, await, .corr = 8, .task = task);
        run_for(w, SECOND);
        reply(worker, &r, LIM__REPLY_REPLY, "done");
        assert_text(take_outcome(other, 8).payload, "done");
        run_for(w, SECOND);
        assert_false(client_has(other, LIM__OUTCOME));
        assert_text(take_outcome(c, 1).payload, "done");
    }
}

static void test_a_crash_leaves_a_task_that_undoes_it(void **state) /* proves CV8 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "one"), *worker = client_new(w, "worker"), *c = client_new(w, "c");
        serve(server, LIM__SERVE_GROUP, "g");
        serve(worker, LIM__SERVE_QUEUE, "undo");
        ask(c, 1, LIM_CRASH_COMPENSATE, OPTION("\012compensate", "\000\004undo"));
        take_request(server);
        client_kill(server);
        lim__f_outcome o = take_outcome(c, 1);
        assert_int_equal(o.how, LIM_HOW_CRASHED);
        assert_true(o.compensation != 0);
        lim__f_request r = take_task(worker);
        assert_int_equal(r.conversation, o.compensation);
        assert_text(r.type, "compensate");
        assert_non_null(memmem(r.payload.ptr, r.payload.len, "\"reason\":\"connection_lost\"", 26));
        assert_int_equal(r.hops, 1);
        reply(worker, &r, LIM__REPLY_REPLY, "undone");
        PUT(c, await, .corr = 2, .task = o.compensation);
        assert_text(take_outcome(c, 2).payload, "undone");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_word_of_a_connection_shows_that_its_workers_were_there),
        cmocka_unit_test(test_an_answer_in_parts_comes_in_order_and_as_granted),
        cmocka_unit_test(test_parts_and_grants_beyond_the_credit_are_faults),
        cmocka_unit_test(test_a_cancel_reaches_who_sends_parts),
        cmocka_unit_test(test_an_answer_that_has_begun_does_not_move_on),
        cmocka_unit_test(test_a_part_over_the_size_limit_ends_the_answer),
        cmocka_unit_test(test_an_asker_that_dies_has_its_parts_revoked),
        cmocka_unit_test(test_who_has_not_the_lease_is_not_heard),
        cmocka_unit_test(test_everybody_is_asked_and_enough_replies_end_it),
        cmocka_unit_test(test_a_quorum_that_cannot_be_any_more_is_refused),
        cmocka_unit_test(test_asks_that_go_past_a_group_are_bounded),
        cmocka_unit_test(test_a_stuck_worker_loses_its_task_and_one_with_progress_keeps_it),
        cmocka_unit_test(test_a_task_that_fails_is_tried_again),
        cmocka_unit_test(test_the_same_dispatch_again_is_answered_with_the_first_outcome),
        cmocka_unit_test(test_a_signal_reaches_whoever_works_on_a_task),
        cmocka_unit_test(test_an_await_that_is_cancelled_is_withdrawn),
        cmocka_unit_test(test_a_crash_leaves_a_task_that_undoes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
