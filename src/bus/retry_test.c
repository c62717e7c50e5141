/* SPDX-License-Identifier: Apache-2.0
 * retry_test.c - tasks that fail, take too long or get stuck; what they become, and what is left of them. */
#include "bus/exchange_world.h"

#define TASK(...) OPTS(lim_dispatch_opts, .timeout_ms = 60000, __VA_ARGS__)

static lim_conv dispatch(lim_bus *bus, const char *queue, const lim_dispatch_opts *o, got *g)
{
    lim_admission a;
    lim_conv t = { 0 };
    assert_int_equal(lim_dispatch(bus, queue, BYTES("job"), o, g != NULL ? on_outcome : NULL, g, &a, &t), LIM_OK);
    assert_int_not_equal(a.verdict, LIM_REJECT);
    return t;
}

static void retries(lim_bus *bus, const char *queue)
{
    admin(bus, queue, "{\"op\":\"queue.configure\",\"attempts_max\":3,\"backoff_min_ms\":1}", NULL, 0);
}

/* Of its process: nobody keeps a place for it any more. */
static void wait_end(lim_bus *bus, lim_conv conv)
{
    while (lim_alive(bus->rt, (lim_pid){ conv.id }))
        sched_yield();
}

static void assert_dead(lim_bus *bus, const char *queue, int count, const char *has)
{
    char json[4096], words[32];
    snprintf(words, sizeof words, "\"count\":%d", count);
    admin(bus, queue, "{\"op\":\"dead.ls\"}", json, sizeof json);
    assert_non_null(strstr(json, words));
    if (has != NULL)
        assert_non_null(strstr(json, has));
}

static void test_a_failed_task_is_tried_again_until_it_succeeds(void **state) /* proves GR9 */
{
    lim_bus *bus = *state;
    worker w = WORKER("ffr");
    got g = GOT;
    retries(bus, "q");
    work(bus, "q", &w, "w");
    dispatch(bus, "q", TASK(), &g);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_string_equal(g.text, "job");
    assert_int_equal(g.attempts, 2); /* that failed */
    assert_int_equal(g.losses, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(w.seen[i].attempt, i + 1);
        assert_int_equal(w.seen[i].conv.id, g.conv.id);
        assert_true(i == 0 || w.seen[i].lease != w.seen[i - 1].lease);
    }
    assert_dead(bus, "q", 0, NULL);
}

static void test_no_attempts_left_is_an_outcome_and_a_dead_letter(void **state) /* proves GR9 */
{
    lim_bus *bus = *state;
    worker w = WORKER("f");
    got g = GOT;
    retries(bus, "q");
    work(bus, "q", &w, "w");
    dispatch(bus, "q", TASK(.type = "bake"), &g);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_FAILED);
    assert_int_equal(g.why, LIM_WHY_ATTEMPTS);
    assert_int_equal(g.attempts, 3);
    assert_string_equal(g.detail, "it could not");
    assert_int_equal(w.count, 3);
    assert_dead(bus, "q", 1, "\"attempts\":3");
    assert_dead(bus, "q", 1, "\"type\":\"bake\"");
}

static void test_without_a_policy_one_failure_is_the_end(void **state) /* proves GR9 */
{
    lim_bus *bus = *state;
    worker w = WORKER("f");
    got g = GOT;
    work(bus, "q", &w, "w");
    dispatch(bus, "q", TASK(), &g);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_FAILED);
    assert_int_equal(g.why, LIM_WHY_NONE);
    assert_int_equal(g.attempts, 1);
    assert_dead(bus, "q", 1, "it could not");
}

static void test_a_death_is_a_loss_and_no_attempt(void **state) /* proves GR5 GR9 */
{
    lim_bus *bus = *state;
    worker dies = WORKER("h"), fails = WORKER("f");
    got g = GOT;
    retries(bus, "q");
    lim_participant p = work(bus, "q", &dies, "dies");
    lim_conv t = dispatch(bus, "q", TASK(), &g);
    worker_wait(&dies, &dies.count, 1);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    work(bus, "q", &fails, "fails");
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.conv.id, t.id);
    assert_int_equal(g.attempts, 3);
    assert_int_equal(g.losses, 1);
    assert_int_equal(g.excluded, 1); /* the one that died; who failed has not */
    assert_int_equal(fails.seen[0].attempt, 1);
    assert_int_equal(fails.seen[0].losses, 1);
    assert_int_equal(fails.count, 3);
}

static void test_a_task_that_kills_its_workers_is_a_dead_letter(void **state) /* proves GR5 GR9 */
{
    lim_bus *bus = *state;
    worker w[2] = { WORKER("h"), WORKER("h") };
    got g = GOT;
    dispatch(bus, "q", TASK(.losses_max = 2), &g);
    for (int i = 0; i < 2; i++) {
        lim_participant p = work(bus, "q", &w[i], i == 0 ? "first" : "second");
        worker_wait(&w[i], &w[i].count, 1);
        assert_int_equal(lim_leave(bus, p), LIM_OK);
    }
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_CRASHED);
    assert_int_equal(g.why, LIM_WHY_KILLS_WORKERS);
    assert_int_equal(g.excluded, 2);
    assert_dead(bus, "q", 1, "kills_workers");
}

static void test_a_task_whose_time_is_up_is_a_dead_letter_and_a_cancelled_one_is_not(void **state) /* proves GR9 GR12 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got late = GOT, stopped = GOT;
    dispatch(bus, "q", OPTS(lim_dispatch_opts, .timeout_ms = 10), &late);
    got_wait(&late, &late.count, 1);
    assert_int_equal(late.how, LIM_HOW_TIMEOUT);
    assert_dead(bus, "q", 1, "timeout");
    lim_participant p = work(bus, "q", &w, "w");
    lim_conv t = dispatch(bus, "q", TASK(), &stopped);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(lim_conv_cancel(bus, t), LIM_OK);
    got_wait(&stopped, &stopped.count, 1);
    assert_int_equal(stopped.how, LIM_HOW_CANCELLED);
    worker_wait(&w, &w.cancelled, 1);
    assert_string_equal(w.why, "cancelled");
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    assert_dead(bus, "q", 1, NULL);
}

static void
test_a_slow_attempt_goes_to_another_worker_while_the_stuck_one_keeps_its_place(void **state) /* proves GR2 GR12 */
{
    lim_bus *bus = *state;
    worker stuck = WORKER("h"), quick = WORKER("r");
    got g = GOT, next = GOT;
    retries(bus, "q");
    lim_participant p = work(bus, "q", &stuck, "stuck");
    lim_conv t = dispatch(bus, "q", TASK(.start_to_close_ms = 20), &g);
    worker_wait(&stuck, &stuck.cancelled, 1);
    assert_string_equal(stuck.why, "timeout");
    work(bus, "q", &quick, "quick");
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_string_equal(g.participant, "quick");
    assert_int_equal(g.attempts, 1);
    assert_int_equal(g.losses, 0);
    assert_int_equal(quick.seen[0].attempt, 2);
    dispatch(bus, "q", TASK(), &next); /* the stuck one has one place, and it is taken */
    got_wait(&next, &next.count, 1);
    assert_int_equal(stuck.count, 1);
    /* Its result is late: refused, and its place is free again. */
    assert_int_equal(lim_reply_to(bus, p, t, stuck.seen[0].lease, BYTES("late")), LIM_OK);
    wait_end(bus, t);
    lim_outcome o;
    assert_int_equal(lim_task_await(bus, t, 1000, &o), LIM_OK);
    assert_int_equal(o.payload.len, 3);
    lim_outcome_fini(&o);
    assert_int_equal(quick.count, 2);
}

static void test_the_last_slow_attempt_fails_the_task(void **state) /* proves GR12 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    lim_participant p = work(bus, "q", &w, "w");
    lim_conv t = dispatch(bus, "q", TASK(.start_to_close_ms = 10), &g);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_FAILED);
    assert_int_equal(g.why, LIM_WHY_START_TO_CLOSE);
    assert_int_equal(g.attempts, 1);
    assert_string_equal(g.participant, "w");
    assert_dead(bus, "q", 1, "start_to_close");
    lim_conv_info info;
    assert_int_equal(lim_conv_inspect(bus, t, &info), LIM_OK); /* it keeps the place of its worker */
    assert_int_equal(info.phase, LIM_PHASE_COMPLETING);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    wait_end(bus, t);
}

static void test_what_progress_answers(void **state)
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    char note[256] = { 0 };
    lim_participant p = work(bus, "q", &w, "w");
    lim_conv t = dispatch(bus, "q", TASK(), NULL);
    worker_wait(&w, &w.count, 1);
    uint64_t lease = w.seen[0].lease;
    memset(note, 'n', 201);
    assert_int_equal(lim_progress(bus, p, t, lease, note), LIM_E_TOOBIG);
    note[200] = '\0';
    assert_int_equal(lim_progress(bus, p, t, lease, note), LIM_OK);
    assert_int_equal(lim_progress(bus, p, t, lease, NULL), LIM_OK);
    assert_int_equal(lim_progress(bus, p, t, lease, "\xff"), LIM_E_INVALID);
    assert_int_equal(lim_progress(bus, p, (lim_conv){ p.id }, lease, "x"), LIM_E_GONE);
    assert_int_equal(lim_conv_cancel(bus, t), LIM_OK);
    assert_int_equal(lim_fail_to(bus, p, t, lease, "stopped"), LIM_OK); /* gives the place back */
    wait_end(bus, t);
    assert_int_equal(lim_progress(bus, p, t, lease, "x"), LIM_E_GONE);
}

static void test_the_same_dispatch_again_gets_the_same_task_and_outcome(void **state) /* proves GR13 */
{
    lim_bus *bus = *state;
    worker w = WORKER("hr");
    got first = GOT, second = GOT, third = GOT;
    lim_participant p = work(bus, "q", &w, "w");
    lim_conv a = dispatch(bus, "q", TASK(.idempotency_key = "once"), &first);
    worker_wait(&w, &w.count, 1);
    lim_conv b = dispatch(bus, "q", TASK(.idempotency_key = "once"), &second); /* while it runs */
    assert_int_equal(a.id, b.id);
    assert_int_equal(lim_reply_to(bus, p, a, w.seen[0].lease, BYTES("the one")), LIM_OK);
    got_wait(&first, &first.count, 1);
    got_wait(&second, &second.count, 1);
    assert_int_equal(second.how, LIM_HOW_REPLY);
    assert_string_equal(second.text, "the one");
    assert_int_equal(second.conv.id, a.id);
    lim_conv c = dispatch(bus, "q", TASK(.idempotency_key = "once"), &third); /* and after its end */
    assert_int_equal(c.id, a.id);
    got_wait(&third, &third.count, 1);
    assert_string_equal(third.text, "the one");
    assert_int_equal(w.count, 1); /* and no worker was touched */
}

static void test_who_joins_a_unique_task_hears_of_its_end(void **state) /* proves GR12 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got first = GOT, second = GOT;
    lim_dispatch_opts o = { .size = sizeof o, .timeout_ms = 60000, .unique_key = "u", .on_duplicate = LIM_UNIQUE_JOIN };
    work(bus, "q", &w, "w");
    lim_conv a = dispatch(bus, "q", &o, &first);
    lim_conv b = dispatch(bus, "q", &o, &second);
    assert_int_equal(a.id, b.id);
    assert_int_equal(lim_conv_cancel(bus, a), LIM_OK);
    got_wait(&second, &second.count, 1);
    assert_int_equal(second.how, LIM_HOW_CANCELLED);
    assert_int_equal(second.conv.id, a.id);
    got_wait(&first, &first.count, 1);
    assert_int_equal(w.count, 1);
}

/* It was never a task of its own: to replay it would do the other one's work again. */
static void test_who_stops_waiting_for_anothers_task_leaves_no_dead_letter(void **state) /* proves GR9 GR12 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got first = GOT, second = GOT;
    lim_dispatch_opts o = { .size = sizeof o, .timeout_ms = 60000, .unique_key = "u", .on_duplicate = LIM_UNIQUE_JOIN };
    work(bus, "q", &w, "w");
    lim_conv a = dispatch(bus, "q", &o, &first);
    o.timeout_ms = 10;
    dispatch(bus, "q", &o, &second);
    got_wait(&second, &second.count, 1);
    assert_int_equal(second.how, LIM_HOW_TIMEOUT);
    assert_dead(bus, "q", 0, NULL);
    assert_int_equal(lim_conv_cancel(bus, a), LIM_OK);
    got_wait(&first, &first.count, 1);
    assert_dead(bus, "q", 0, NULL);
}

static void test_a_task_that_vanishes_is_a_crash_for_who_follows_it(void **state) /* proves CV3 */
{
    lim_bus *bus = *state;
    got second = GOT;
    lim_dispatch_opts o = { .size = sizeof o, .timeout_ms = 60000, .unique_key = "u", .on_duplicate = LIM_UNIQUE_JOIN };
    lim_conv a = dispatch(bus, "q", &o, NULL);
    lim_conv_info info;
    dispatch(bus, "q", &o, &second);
    assert_int_equal(lim_conv_inspect(bus, a, &info), LIM_OK);
    assert_int_equal(lim_runtime_exit(bus->rt, (lim_pid){ a.id }, LIM_KILL), LIM_OK);
    got_wait(&second, &second.count, 1);
    assert_int_equal(second.how, LIM_HOW_CRASHED);
    assert_int_equal(second.conv.id, a.id);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
    const struct CMUnitTest tests[] = {
        T(test_a_failed_task_is_tried_again_until_it_succeeds),
        T(test_no_attempts_left_is_an_outcome_and_a_dead_letter),
        T(test_without_a_policy_one_failure_is_the_end),
        T(test_a_death_is_a_loss_and_no_attempt),
        T(test_a_task_that_kills_its_workers_is_a_dead_letter),
        T(test_a_task_whose_time_is_up_is_a_dead_letter_and_a_cancelled_one_is_not),
        T(test_a_slow_attempt_goes_to_another_worker_while_the_stuck_one_keeps_its_place),
        T(test_the_last_slow_attempt_fails_the_task),
        T(test_what_progress_answers),
        T(test_the_same_dispatch_again_gets_the_same_task_and_outcome),
        T(test_who_joins_a_unique_task_hears_of_its_end),
        T(test_who_stops_waiting_for_anothers_task_leaves_no_dead_letter),
        T(test_a_task_that_vanishes_is_a_crash_for_who_follows_it),
    };
    int failed = cmocka_run_group_tests_name("one scheduler", tests, NULL, NULL);
    schedulers = 2;
    return failed + cmocka_run_group_tests_name("two schedulers", tests, NULL, NULL);
}
