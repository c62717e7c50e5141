/* SPDX-License-Identifier: Apache-2.0
 * lease_test.c - who may speak for a request, and when: pauses between attempts, progress, workers that come back, and
 * strangers who know a lease. In a simulated world, with puppets. */
#include "bus/group_world.h"

static const lim_dispatch_opts *options(lim_dispatch_opts o)
{
    static lim_dispatch_opts kept;
    o.size = sizeof o;
    kept = o;
    return &kept;
}

static void configure(world *w, const char *queue, const char *json)
{
    lim_pid group;
    puppet *p = puppet_new(w);
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &group), LIM_OK);
    lim__admin *a = lim__letter_new(NULL, &lim__type_admin, sizeof *a + strlen(json));
    *a = (lim__admin){ p->pid, 1, (uint32_t)strlen(json) };
    memcpy(a->json, json, strlen(json));
    assert_int_equal(lim__post_reserved(w->bus->rt, group, a), LIM_OK);
    settle(w);
    assert_non_null(p->json);
    assert_null(strstr(p->json, "\"error\""));
}

static void pass(world *w, uint64_t ns)
{
    lim__sim_run(w->sim, lim__sim_now(w->sim) + ns, NULL, NULL);
}

static void progress(world *w, const puppet *p, const seen *r, const char *note)
{
    size_t len = strlen(note);
    lim__progress *m = lim__letter_new(NULL, &lim__type_progress, sizeof *m + len);
    *m = (lim__progress){ r->lease, p->pid, (uint8_t)len };
    memcpy(m->note, note, len);
    assert_int_equal(lim__post_reserved(w->bus->rt, r->conv, m), LIM_OK);
    settle(w);
}

static void test_pauses_between_attempts_grow_up_to_their_limit(void **state) /* proves GR9 */
{
    world *w = *state;
    configure(w, "q",
              "{\"op\":\"queue.configure\",\"attempts_max\":5,\"backoff_min_ms\":10000,\"backoff_max_ms\":30000,"
              "\"backoff_factor_percent\":200,\"backoff_jitter_percent\":0}");
    puppet *p = worker(w, "q", "w", 1, NULL), *asker = puppet_new(w);
    p->takes = true;
    task(w, asker, "q", "", "a");
    settle(w);
    static const uint64_t pauses[] = { 10, 20, 30, 30 };
    for (uint32_t i = 0; i < LIM_COUNT(pauses); i++) {
        assert_int_equal(p->request_count, i + 1);
        answer_failed(w, p, &p->requests[i], "no");
        assert_int_equal(p->accepted, i + 1);
        pass(w, (pauses[i] - 1) * SECOND);
        assert_int_equal(p->request_count, i + 1); /* not yet */
        pass(w, SECOND);
        assert_int_equal(p->request_count, i + 2);
    }
    answer_failed(w, p, &p->requests[4], "no");
    assert_int_equal(asker->outcome_count, 1);
    assert_int_equal(asker->outcomes[0].why, LIM_WHY_ATTEMPTS);
}

static void test_progress_keeps_a_task_and_silence_loses_it(void **state) /* proves GR7 */
{
    world *w = *state;
    puppet *p = worker(w, "q", "first", 1, NULL), *asker = puppet_new(w);
    p->takes = true;
    task_with(w, asker, "q", "a", options((lim_dispatch_opts){ .progress_ms = 2000 }));
    puppet *other = worker(w, "q", "second", 1, NULL);
    other->takes = true;
    for (int i = 0; i < 6; i++) { /* longer than that in all, never in silence */
        progress(w, p, &p->requests[0], "half");
        pass(w, SECOND);
    }
    assert_int_equal(other->request_count, 0);
    progress(w, other, &p->requests[0], "I do it"); /* nobody else's word counts */
    pass(w, SECOND);
    assert_int_equal(p->revoked, 1);
    assert_int_equal(other->request_count, 1);
    answer(w, p, &p->requests[0]); /* late: refused by its token */
    assert_int_equal(p->refused, 1);
    assert_int_equal(asker->outcome_count, 0);
    answer(w, other, &other->requests[0]);
    assert_int_equal(asker->outcomes[0].how, LIM_HOW_REPLY);
}

static void test_a_stuck_worker_has_no_other_task_until_it_has_answered(void **state) /* proves GR2 GR12 */
{
    world *w = *state;
    configure(w, "q",
              "{\"op\":\"queue.configure\",\"attempts_max\":2,\"start_to_close_ms\":2000,\"backoff_min_ms\":0}");
    puppet *p = worker(w, "q", "w", 1, NULL), *asker = puppet_new(w);
    p->takes = true;
    task(w, asker, "q", "", "a");
    pass(w, 3 * SECOND);
    assert_int_equal(p->revoked, 1);
    pass(w, 60 * SECOND);
    assert_int_equal(p->request_count, 1); /* it has one place, and keeps it */
    answer(w, p, &p->requests[0]);
    assert_int_equal(p->refused, 1);
    pass(w, SECOND);
    assert_int_equal(p->request_count, 2); /* nobody else is there: it gets it again, under another lease */
    assert_int_not_equal(p->requests[1].lease, p->requests[0].lease);
    answer(w, p, &p->requests[1]);
    assert_int_equal(asker->outcomes[0].how, LIM_HOW_REPLY);
    assert_int_equal(asker->outcome_count, 1);
}

static void test_only_the_holder_of_a_lease_may_answer(void **state) /* proves GR6 WI4 */
{
    world *w = *state;
    puppet *p = worker(w, "q", "w", 1, NULL), *stranger = puppet_new(w), *asker = puppet_new(w);
    p->takes = true;
    task(w, asker, "q", "", "a");
    settle(w);
    answer(w, stranger, &p->requests[0]);
    hold(w, stranger, &p->requests[0]);
    assert_int_equal(asker->outcome_count, 0);
    assert_int_equal(p->revoked, 0);
    answer(w, p, &p->requests[0]);
    assert_int_equal(asker->outcome_count, 1);
    assert_int_equal(p->accepted, 1);
    assert_int_equal(stranger->accepted, 0);
}

static void test_who_claims_a_lease_before_its_holder_is_found_dead_is_heard_after_that(void **state) /* proves GR6 */
{
    world *w = *state;
    for (int answers = 0; answers < 2; answers++) {
        puppet *p = worker(w, "q", "w", 1, NULL), *back = puppet_new(w), *asker = puppet_new(w);
        p->takes = back->takes = true;
        task(w, asker, "q", "", "a");
        settle(w);
        if (answers)
            answer(w, back, &p->requests[0]);
        else
            hold(w, back, &p->requests[0]);
        assert_int_equal(asker->outcome_count + back->accepted + back->revoked + back->refused, 0);
        worker_is(w, back, "q", "w", 1, NULL); /* which replaces the one before: its connection ends */
        if (!answers)
            answer(w, back, &p->requests[0]);
        assert_int_equal(asker->outcome_count, 1);
        assert_int_equal(asker->outcomes[0].how, LIM_HOW_REPLY);
        assert_int_equal(back->accepted, 1);
        lose(w, back, LIM_LEFT);
    }
}

static void
test_a_failure_of_one_that_was_away_is_an_attempt_only_while_nobody_has_the_task(void **state) /* proves GR6 GR9 */
{
    world *w = *state;
    configure(w, "q", "{\"op\":\"queue.configure\",\"attempts_max\":2,\"backoff_min_ms\":0}");
    puppet *a = worker(w, "q", "a", 1, NULL), *asker = puppet_new(w);
    a->takes = true;
    task(w, asker, "q", "", "x");
    settle(w);
    lose(w, a, LIM_LOST);
    puppet *back = puppet_new(w);
    back->takes = true;
    answer_failed(w, puppet_new(w), &a->requests[0], "not I"); /* who is not that worker is not heard */
    worker_is(w, back, "q", "a", 1, NULL);
    answer_failed(w, back, &a->requests[0], "no"); /* back, under another pid, with bad news */
    assert_int_equal(asker->outcome_count, 0);
    settle(w);
    assert_int_equal(back->request_count, 1);
    answer_failed(w, back, &back->requests[0], "no");
    assert_int_equal(asker->outcome_count, 1); /* the second, and the last */
    assert_int_equal(asker->outcomes[0].why, LIM_WHY_ATTEMPTS);
}

/* It took the task, its connection broke, and it came back with nothing in hand: as one whose program lost it. */
static void test_what_a_worker_that_came_back_does_not_speak_for_keeps_no_place(void **state) /* proves GR2 GR6 */
{
    world *w = *state;
    puppet *p = worker(w, "q", "w", 1, NULL), *asker = puppet_new(w);
    p->takes = true;
    task(w, asker, "q", "", "a");
    settle(w);
    assert_int_equal(p->request_count, 1);
    lose(w, p, LIM_LOST);
    puppet *again = puppet_new(w);
    again->takes = true;
    worker_is(w, again, "q", "w", 1, NULL);
    pass(w, 8 * SECOND);
    assert_int_equal(again->request_count, 0); /* full: it may still say that it has it */
    pass(w, 3 * SECOND);
    assert_int_equal(again->request_count, 1); /* the same task */
    answer(w, again, &again->requests[0]);
    assert_int_equal(asker->outcome_count, 1);
    assert_int_equal(asker->outcomes[0].how, LIM_HOW_REPLY);
}

static void test_an_ask_is_answered_only_by_whom_it_was_given_to(void **state) /* proves CV10 */
{
    world *w = *state;
    lim_pid conv;
    puppet *p = puppet_new(w), *stranger = puppet_new(w), *asker = puppet_new(w);
    lim__open *open = lim__open_new(NULL, LIM__KIND_ASK, lim__str(""), lim__str(""), lim__msg_new(lim__str("x")));
    open->owner = asker->pid;
    open->participant = p->pid;
    assert_int_equal(lim__conv_spawn_at(w->bus, LIM__KIND_ASK, asker->pid, &conv), LIM_OK);
    assert_int_equal(lim__post(w->bus->rt, conv, open), LIM_OK);
    settle(w);
    answer(w, stranger, &p->requests[0]);
    assert_int_equal(asker->outcome_count, 0);
    assert_int_equal(stranger->refused, 1);
    answer(w, p, &p->requests[0]);
    assert_int_equal(asker->outcome_count, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(test_pauses_between_attempts_grow_up_to_their_limit),
        T(test_progress_keeps_a_task_and_silence_loses_it),
        T(test_a_stuck_worker_has_no_other_task_until_it_has_answered),
        T(test_only_the_holder_of_a_lease_may_answer),
        T(test_who_claims_a_lease_before_its_holder_is_found_dead_is_heard_after_that),
        T(test_a_failure_of_one_that_was_away_is_an_attempt_only_while_nobody_has_the_task),
        T(test_what_a_worker_that_came_back_does_not_speak_for_keeps_no_place),
        T(test_an_ask_is_answered_only_by_whom_it_was_given_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
