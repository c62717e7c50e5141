/* SPDX-License-Identifier: Apache-2.0
 * gather_test.c - one request to everybody in a group: quorums, deaths, deadlines, and those who come too late. */
#include "bus/exchange_world.h"

#define ALL(...) OPTS(lim_ask_opts, .timeout_ms = 60000, __VA_ARGS__)

static lim_conv ask_all(lim_bus *bus, const char *group, const lim_ask_opts *o, got *g)
{
    lim_conv c = { 0 };
    assert_int_equal(lim_ask_all(bus, group, BYTES("who?"), o, on_part, on_outcome, g, &c), LIM_OK);
    return c;
}

static void test_everybody_is_asked_and_each_answer_is_a_part(void **state) /* proves CV13 */
{
    lim_bus *bus = *state;
    static const char *const names[] = { "a", "b", "c" };
    worker w[3] = { WORKER("r"), WORKER("r"), WORKER("r") };
    got g = GOT;
    for (int i = 0; i < 3; i++)
        serve(bus, "g", &w[i], names[i]);
    ask_all(bus, "g", ALL(), &g);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_int_equal(g.handed_over, LIM_HANDED_YES);
    assert_int_equal(g.attempts, 3);
    assert_int_equal(g.losses, 0);
    assert_int_equal(g.parts, 3);
    bool seen_name[3] = { false, false, false };
    for (int i = 0; i < 3; i++) {
        assert_int_equal(g.part[i].seq, i + 1);
        assert_int_equal(g.part[i].how, LIM_HOW_REPLY);
        assert_string_equal(g.part[i].text, "who?");
        seen_name[g.part[i].participant[0] - 'a'] = true;
    }
    assert_true(seen_name[0] && seen_name[1] && seen_name[2]);
}

static void test_a_quorum_ends_it_and_the_others_are_told_to_stop(void **state) /* proves CV13 */
{
    lim_bus *bus = *state;
    worker quick = WORKER("r"), slow = WORKER("h");
    got g = GOT;
    lim_participant p = serve(bus, "g", &slow, "slow");
    serve(bus, "g", &quick, "quick");
    ask_all(bus, "g", ALL(.quorum = 1), &g);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_int_equal(g.parts, 1);
    assert_string_equal(g.part[0].participant, "quick");
    assert_int_equal(g.attempts, 2);
    assert_int_equal(g.losses, 1);
    worker_wait(&slow, &slow.cancelled, 1);
    assert_int_equal(lim_fail_to(bus, p, slow.seen[0].conv, slow.seen[0].lease, "stopped"), LIM_OK);
}

static void test_a_quorum_that_cannot_be_any_more_is_refused_at_once(void **state) /* proves CV3 */
{
    lim_bus *bus = *state;
    worker fails = WORKER("f"), holds = WORKER("h"), dies = WORKER("h");
    got g = GOT, many = GOT;
    serve(bus, "g", &fails, "fails");
    serve(bus, "g", &holds, "holds");
    ask_all(bus, "g", ALL(.quorum = 3), &many); /* there are two */
    got_wait(&many, &many.count, 1);
    assert_int_equal(many.how, LIM_HOW_REFUSED);
    assert_int_equal(many.why, LIM_WHY_QUORUM);
    assert_int_equal(many.parts, 0);
    assert_int_equal(fails.count + holds.count, 0); /* and nobody was asked for nothing */
    lim_participant p = serve(bus, "g", &dies, "dies");
    ask_all(bus, "g", ALL(.quorum = 2), &g);
    worker_wait(&dies, &dies.count, 1);
    got_wait(&g, &g.parts, 1);
    assert_int_equal(g.part[0].how, LIM_HOW_FAILED);
    assert_int_equal(g.count, 0); /* two may still reply */
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REFUSED);
    assert_int_equal(g.why, LIM_WHY_QUORUM);
    assert_int_equal(g.parts, 2);
    assert_int_equal(g.part[1].how, LIM_HOW_CRASHED);
    assert_string_equal(g.part[1].participant, "dies");
    assert_string_equal(g.part[1].text, "left"); /* why it counts as crashed */
    worker_wait(&holds, &holds.cancelled, 1);
}

static void test_nobody_is_handed_more_than_it_takes(void **state) /* proves GR2 */
{
    lim_bus *bus = *state;
    worker one = WORKER("h");
    got first = GOT, second = GOT;
    lim_participant p = { 0 };
    assert_int_equal(
        lim_serve(bus, "g", OPTS(lim_serve_opts, .capacity = 1, .identity = "one", .handler = HANDLER(&one)), &p),
        LIM_OK);
    ask_all(bus, "g", ALL(), &first);
    worker_wait(&one, &one.count, 1);
    ask_all(bus, "g", ALL(), &second); /* waits for its turn */
    lim_outcome o;
    assert_int_equal(lim_ask(bus, "g", BYTES("me, too"), OPTS(lim_ask_opts, .timeout_ms = 50), &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_TIMEOUT);
    lim_outcome_fini(&o);
    assert_int_equal(one.count, 1);
    assert_int_equal(lim_reply_to(bus, p, one.seen[0].conv, one.seen[0].lease, BYTES("1")), LIM_OK);
    got_wait(&first, &first.count, 1);
    worker_wait(&one, &one.count, 2);
    assert_int_equal(lim_reply_to(bus, p, one.seen[1].conv, one.seen[1].lease, BYTES("2")), LIM_OK);
    got_wait(&second, &second.count, 1);
    assert_int_equal(second.how, LIM_HOW_REPLY);
}

static void test_nobody_there_is_an_answer(void **state) /* proves CV3 */
{
    lim_bus *bus = *state;
    worker w = WORKER("r");
    got none = GOT, other = GOT;
    ask_all(bus, "nobody", ALL(), &none);
    got_wait(&none, &none.count, 1);
    assert_int_equal(none.how, LIM_HOW_REFUSED);
    assert_int_equal(none.why, LIM_WHY_NO_PARTICIPANT);
    assert_int_equal(none.handed_over, LIM_HANDED_NO);
    lim_participant p = { 0 };
    static const char *const types[] = { "sing", NULL };
    assert_int_equal(
        lim_serve(bus, "g", OPTS(lim_serve_opts, .capacity = 1, .types = types, .handler = HANDLER(&w)), &p), LIM_OK);
    ask_all(bus, "g", ALL(.type = "dance"), &other);
    got_wait(&other, &other.count, 1);
    assert_int_equal(other.why, LIM_WHY_NO_PARTICIPANT);
}

static void test_a_deadline_and_a_cancel_end_it(void **state) /* proves CV9 */
{
    lim_bus *bus = *state;
    worker quick = WORKER("r"), slow = WORKER("h");
    got late = GOT, stopped = GOT;
    lim_conv_info info;
    serve(bus, "g", &slow, "slow");
    serve(bus, "g", &quick, "quick");
    ask_all(bus, "g", OPTS(lim_ask_opts, .timeout_ms = 20), &late);
    got_wait(&late, &late.count, 1);
    assert_int_equal(late.how, LIM_HOW_TIMEOUT);
    assert_int_equal(late.attempts, 2);
    assert_int_equal(late.losses, 1);
    worker_wait(&slow, &slow.cancelled, 1);
    lim_conv c = ask_all(bus, "g", ALL(), &stopped);
    got_wait(&stopped, &stopped.parts, 1);
    assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    assert_int_equal(info.alive, 1);
    assert_int_equal(info.received, 1);
    assert_int_equal(lim_conv_cancel(bus, c), LIM_OK);
    got_wait(&stopped, &stopped.count, 1);
    assert_int_equal(stopped.how, LIM_HOW_CANCELLED);
    worker_wait(&slow, &slow.cancelled, 2);
    assert_string_equal(slow.why, "cancelled");
}

typedef struct awaiting {
    lim_bus *bus;
    lim_conv conv;
    got got;
} awaiting;

static void *await(void *ctx)
{
    awaiting *a = ctx;
    lim_outcome o = { 0 };
    assert_int_equal(lim_task_await(a->bus, a->conv, LIM_FOREVER, &o), LIM_OK);
    note_outcome(&a->got, &o);
    lim_outcome_fini(&o);
    return NULL;
}

static void test_a_gather_can_be_awaited_by_its_id(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    awaiting a = { .bus = bus, .got = GOT };
    pthread_t thread;
    lim_outcome o;
    lim_participant p = serve(bus, "g", &w, "w");
    a.conv = ask_all(bus, "g", ALL(), &g);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(lim_task_await(bus, a.conv, 1, &o), LIM_E_TIMEOUT);
    assert_int_equal(pthread_create(&thread, NULL, await, &a), 0);
    assert_int_equal(lim_reply_to(bus, p, w.seen[0].conv, w.seen[0].lease, BYTES("y")), LIM_OK);
    pthread_join(thread, NULL);
    assert_int_equal(a.got.how, LIM_HOW_REPLY);
    got_wait(&g, &g.count, 1);
}

static void test_what_cannot_be_asked_of_everybody(void **state)
{
    lim_bus *bus = *state;
    got g = GOT;
    lim_conv c;
    const lim_ask_opts *bad[] = { ALL(.wait = true), ALL(.participant = { 7 }), ALL(.on_crash = LIM_CRASH_NEXT), NULL };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(lim_ask_all(bus, "g", BYTES("x"), bad[i], on_part, on_outcome, &g, &c), LIM_E_MISUSE);
    assert_int_equal(lim_ask_all(bus, "g", BYTES("x"), ALL(), NULL, on_outcome, &g, &c), LIM_E_MISUSE);
    assert_int_equal(lim_ask_all(bus, "g", BYTES("x"), ALL(.quorum = 1025), on_part, on_outcome, &g, &c),
                     LIM_E_INVALID);
    assert_int_equal(g.count, 0);
}

static void test_many_gathers_leave_nothing_behind(void **state) /* proves RT12 */
{
    lim_bus *bus = *state;
    worker w = WORKER("s"); /* nothing is ever said: each is cancelled */
    lim_bus_census before, after;
    static got g[200];
    serve(bus, "g", &w, "w");
    lim_bus_census_take(bus, &before);
    for (int i = 0; i < 50; i++) {
        g[i] = (got)GOT;
        lim_conv c = ask_all(bus, "g", ALL(), &g[i]);
        assert_int_equal(lim_conv_cancel(bus, c), LIM_OK);
        got_wait(&g[i], &g[i].count, 1);
    }
    do {
        sched_yield();
        lim_bus_census_take(bus, &after);
    } while (after.runtime.processes != before.runtime.processes);
    assert_int_equal(after.conversations, before.conversations);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
    const struct CMUnitTest tests[] = {
        T(test_everybody_is_asked_and_each_answer_is_a_part),
        T(test_a_quorum_ends_it_and_the_others_are_told_to_stop),
        T(test_a_quorum_that_cannot_be_any_more_is_refused_at_once),
        T(test_nobody_is_handed_more_than_it_takes),
        T(test_nobody_there_is_an_answer),
        T(test_a_deadline_and_a_cancel_end_it),
        T(test_a_gather_can_be_awaited_by_its_id),
        T(test_what_cannot_be_asked_of_everybody),
        T(test_many_gathers_leave_nothing_behind),
    };
    int failed = cmocka_run_group_tests_name("one scheduler", tests, NULL, NULL);
    schedulers = 2;
    return failed + cmocka_run_group_tests_name("two schedulers", tests, NULL, NULL);
}
