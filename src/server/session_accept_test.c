/* SPDX-License-Identifier: Apache-2.0
 * session_accept_test.c - what users of other queues and buses complained about, one test each (docs/acceptance.md):
 * over connections, in simulated worlds. */
#include "server/server_world.h"

static lim__f_served serve(client *c, uint8_t kind, const char *group, const char *identity, uint32_t capacity)
{
    lim__f_served f;
    PUT(c, serve, .stream = 3, .kind = kind, .capacity = capacity, .group = lim__str(group),
        .identity = lim__str(identity));
    TAKE(c, served, SERVED, &f);
    return f;
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
    PUT(c, taken, .stream = 3, .conversation = f.conversation, .lease = f.lease);
    return f;
}

static void reply(client *c, const lim__f_request *r, uint8_t how)
{
    PUT(c, reply, .stream = 3, .conversation = r->conversation, .lease = r->lease, .how = how);
}

static void dispatch(client *c, uint64_t corr)
{
    lim__f_dispatched f;
    PUT(c, dispatch, .corr = corr, .timeout_ms = LIM__NO_TIMEOUT, .queue = lim__str("q"), .flags = LIM__FLAG_OUTCOME);
    TAKE(c, dispatched, DISPATCHED, &f);
    assert_int_equal(f.verdict, LIM_ACCEPT);
}

static lim__f_outcome take_outcome(client *c)
{
    lim__f_outcome f;
    TAKE(c, outcome, OUTCOME, &f);
    return f;
}

/* ---- row 1: a requester hangs until its timeout when the responder crashes ---- */

static void test_a_requester_is_told_of_a_crash_long_before_its_timeout(void **state) /* proves CV3 CV4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_new(w, "one"), *c = client_new(w, "c");
        serve(one, LIM__SERVE_GROUP, "g", "w1", 4);
        PUT(c, ask, .corr = 1, .timeout_ms = LIM__NO_TIMEOUT, .on_crash = LIM_CRASH_FAIL, .group = lim__str("g"));
        take_request(one);
        client_kill(one);
        lim__f_outcome o = take_outcome(c);
        assert_int_equal(o.how, LIM_HOW_CRASHED);
        assert_int_equal(o.reason, LIM_LOST);
        assert_text(o.participant, "w1");
    }
}

/* ---- row 3: an orphaned job is never dispatched again while idle workers exist ---- */

static void test_a_task_whose_worker_vanished_before_it_was_acknowledged_is_done(void **state) /* proves GR5 GR8 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c"), *one = client_new(w, "one");
        serve(one, LIM__SERVE_QUEUE, "q", "w1", 1);
        dispatch(c, 1);
        take_request(one); /* and nothing is said */
        client_cut(one);
        client *back = client_session(w, "back", &one->session, 0);
        serve(back, LIM__SERVE_QUEUE, "q", "w1", 1); /* all its places would be taken by what it never had */
        lim__f_request r = take_task(back);
        reply(back, &r, LIM__REPLY_REPLY);
        assert_int_equal(take_outcome(c).how, LIM_HOW_REPLY);
    }
}

/* Each way in which capacity can appear hands the waiting task over, and nothing but that. */
static void test_every_way_that_capacity_appears_wakes_a_waiting_task(void **state) /* proves GR8 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "c"), *one = client_new(w, "one");
        lim__f_left left;
        dispatch(c, 1); /* a worker registers */
        serve(one, LIM__SERVE_QUEUE, "q", "w1", 1);
        lim__f_request r = take_task(one);
        dispatch(c, 2); /* a result */
        reply(one, &r, LIM__REPLY_REPLY);
        r = take_task(one);
        dispatch(c, 3); /* a failure */
        reply(one, &r, LIM__REPLY_FAILED);
        r = take_task(one);
        dispatch(c, 4); /* places that were used elsewhere */
        PUT(one, report, .stream = 3, .used = 1);
        reply(one, &r, LIM__REPLY_REPLY);
        run_for(w, SECOND);
        assert_false(client_has(one, LIM__REQUEST));
        PUT(one, report, .stream = 3, .used = 0);
        r = take_task(one);
        client *two = client_new(w, "two"); /* a worker that leaves gives its task back; another one is idle */
        serve(two, LIM__SERVE_QUEUE, "q", "w2", 1);
        PUT(one, leave, .stream = 3);
        TAKE(one, left, LEFT, &left);
        r = take_task(two);
        client *three = client_new(w, "three"); /* a worker that dies */
        serve(three, LIM__SERVE_QUEUE, "q", "w3", 1);
        client_kill(two);
        r = take_task(three);
        dispatch(c, 5); /* a task that is cancelled frees its place when its worker has stopped */
        PUT(c, cancel, .corr = 4);
        lim__f_revoked gone;
        TAKE(three, revoked, REVOKED, &gone);
        reply(three, &r, LIM__REPLY_NOTHING);
        r = take_task(three);
        reply(three, &r, LIM__REPLY_REPLY);
        for (int i = 0; i < 5; i++)
            take_outcome(c);
    }
}

/* ---- row 4: a failure of the infrastructure is counted as an attempt, and the task is given up ---- */

static void test_a_lost_worker_costs_a_loss_and_no_attempt(void **state) /* proves GR5 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        static const char *const names[] = { "one", "two", "three" };
        client *c = client_new(w, "c");
        dispatch(c, 1); /* one attempt is allowed */
        for (uint16_t i = 0; i < 3; i++) {
            client *worker = client_new(w, names[i]);
            serve(worker, LIM__SERVE_QUEUE, "q", names[i], 1);
            lim__f_request r = take_task(worker);
            assert_int_equal(r.attempt, 1);
            assert_int_equal(r.losses, i);
            run_for(w, SECOND);
            client_kill(worker);
        }
        client *last = client_new(w, "last");
        serve(last, LIM__SERVE_QUEUE, "q", "last", 1);
        lim__f_request r = take_task(last);
        assert_int_equal(r.attempt, 1);
        assert_int_equal(r.losses, 3);
        reply(last, &r, LIM__REPLY_REPLY);
        assert_int_equal(take_outcome(c).how, LIM_HOW_REPLY);
    }
}

/* ---- row 9: a long call is silently executed again ---- */

static void test_a_long_call_is_executed_once(void **state) /* proves GR7 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *one = client_session(w, "one", NULL, 6000), *two = client_session(w, "two", NULL, 6000);
        client *c = client_session(w, "c", NULL, 6000);
        serve(one, LIM__SERVE_QUEUE, "q", "w1", 1);
        dispatch(c, 1);
        lim__f_request r = take_task(one);
        serve(two, LIM__SERVE_QUEUE, "q", "w2", 1); /* idle all the time */
        run_for(w, 3600 * SECOND);
        assert_false(client_has(two, LIM__REQUEST));
        assert_false(client_has(one, LIM__REVOKED));
        reply(one, &r, LIM__REPLY_REPLY);
        assert_int_equal(take_outcome(c).how, LIM_HOW_REPLY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_requester_is_told_of_a_crash_long_before_its_timeout),
        cmocka_unit_test(test_a_task_whose_worker_vanished_before_it_was_acknowledged_is_done),
        cmocka_unit_test(test_every_way_that_capacity_appears_wakes_a_waiting_task),
        cmocka_unit_test(test_a_lost_worker_costs_a_loss_and_no_attempt),
        cmocka_unit_test(test_a_long_call_is_executed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
