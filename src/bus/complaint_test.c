/* SPDX-License-Identifier: Apache-2.0
 * complaint_test.c - what users of earlier work queues complained about and is not so here; docs/acceptance.md names
 * the complaints. Beside it what workflow engines rely on. Puppets, letter by letter (group_world.h). */
#include "bus/group_world.h"

static const char why[] = "{\"op\":\"queue.why\"}";

static void test_four_workers_do_four_times_as_much_as_one(void **state) /* aion#117, proves GR3 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *all[4];
    for (int i = 0; i < 4; i++)
        all[i] = good(w, (const char *[]){ "a", "b", "c", "d" }[i], 50);
    for (int i = 0; i < 100; i++)
        task(w, boss, "q", NULL, "x");
    settle(w);
    for (int i = 0; i < 4; i++)
        assert_int_equal(all[i]->request_count, 25);
}

static void test_a_worker_of_four_is_never_given_fourteen(void **state) /* aion#204, proves GR2 GR7 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *one = good(w, "w", 4);
    for (int i = 0; i < 14; i++)
        task(w, boss, "q", NULL, "x");
    settle(w);
    assert_int_equal(one->request_count, 4);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 3600 * SECOND, NULL, NULL);
    assert_int_equal(one->request_count, 4); /* busy for an hour: still a worker, still with what it has */
    assert_int_equal(one->revoked, 0);
    has(admin(w, boss, "q", why), "\"why\":\"workers_full\"");
    for (uint32_t i = 0; i < 14; i++) {
        answer(w, one, &one->requests[i]);
        assert_int_equal(one->request_count, i + 5 < 14 ? i + 5 : 14);
    }
    assert_int_equal(boss->outcome_count, 14);
}

static void test_a_waiting_task_goes_to_whoever_becomes_eligible(void **state) /* aion#218, proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = good(w, "w", 1);
    task(w, boss, "q", NULL, "x");
    settle(w);
    has(admin(w, boss, "q", "{\"op\":\"worker.drain\",\"identity\":\"w\"}"), "\"draining\":true");
    lose(w, first, LIM_LOST);
    puppet *second = good(w, "x", 1); /* the task is orphaned, its replacement comes */
    assert_int_equal(second->request_count, 1);
    has(admin(w, boss, "q", "{\"op\":\"worker.drain\",\"identity\":\"x\"}"), "\"draining\":true");
    answer(w, second, &second->requests[0]);
    task(w, boss, "q", NULL, "y");
    settle(w);
    assert_int_equal(second->request_count, 1);
    has(admin(w, boss, "q", "{\"op\":\"worker.resume\",\"identity\":\"x\"}"), "\"draining\":false");
    assert_int_equal(second->request_count, 2);
}

static void test_who_works_is_listed_and_why_it_gets_nothing(void **state) /* aion#118, proves GR14 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *one = good(w, "one", 1);
    has(members(w, boss, "q"), "\"identity\":\"one\"");
    has(boss->json, "\"eligible\":true,\"why\":\"\"");
    has(boss->json, "\"capacity\":1,\"in_flight\":0");
    task(w, boss, "q", NULL, "x");
    settle(w);
    has(members(w, boss, "q"), "\"eligible\":false,\"why\":\"full\"");
    has(boss->json, "\"last_seen_ms_ago\"");
    has(admin(w, boss, "q", "{\"op\":\"worker.drain\",\"identity\":\"one\"}"), "\"draining\":true");
    has(members(w, boss, "q"), "\"eligible\":false,\"why\":\"draining\"");
    lose(w, one, LIM_LOST);
    has(members(w, boss, "q"), "\"eligible\":false,\"why\":\"away\"");
}

static void test_a_worker_that_never_acknowledges_is_told_from_one_that_works(void **state) /* proves GR4 GR14 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *mute = worker(w, "q", "mute", 1, NULL);
    bool said = false;
    task(w, boss, "q", NULL, "x");
    for (int i = 0; i < 200 && !said; i++) {
        lim__sim_run(w->sim, lim__sim_now(w->sim) + SECOND / 50, NULL, NULL);
        said = strstr(admin(w, boss, "q", why), "did not acknowledge") != NULL;
    }
    assert_true(said && mute->request_count > 0);
    has(members(w, boss, "q"), "\"completed\":0,\"latency_us\":0");
    puppet *one = good(w, "one", 1);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 3 * SECOND, NULL, NULL);
    answer(w, one, &one->requests[0]);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_REPLY);
    has(members(w, boss, "q"), "\"completed\":1");
}

/* A worker that dies while its registration is on its way: nothing is given to it, or it comes back at once. */
static void test_crash_detection_is_armed_before_a_worker_can_be_chosen(void **state) /* proves GR1 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *dead = puppet_new(w);
    task(w, boss, "q", NULL, "x");
    settle(w);
    lose(w, dead, LIM_LOST);
    worker_is(w, dead, "q", "dead", 1, NULL);
    settle(w);
    assert_int_equal(dead->request_count, 0);
    assert_null(strstr(members(w, boss, "q"), "\"eligible\":true"));
    puppet *alive = good(w, "alive", 1);
    assert_int_equal(alive->request_count, 1);
    answer(w, alive, &alive->requests[0]);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_REPLY);
}

static void test_the_outcome_says_past_whom_and_when_it_was_rerouted(void **state) /* proves GR5 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = good(w, "first", 1);
    task(w, boss, "q", NULL, "x");
    settle(w);
    uint64_t before_us = w->os->wall_ns(w->os) / 1000;
    lose(w, first, LIM_LOST);
    uint64_t between_us = w->os->wall_ns(w->os) / 1000;
    puppet *second = good(w, "second", 1);
    lose(w, second, LIM_LOST);
    uint64_t after_us = w->os->wall_ns(w->os) / 1000;
    puppet *third = good(w, "third", 1);
    answer(w, third, &third->requests[0]);
    const seen *o = &boss->outcomes[0];
    assert_int_equal(o->how, LIM_HOW_REPLY);
    assert_int_equal(o->excluded, 2);
    assert_string_equal(o->past, "first");
    assert_in_range(o->gone[0].observed_wall_us, before_us, between_us);
    assert_in_range(o->gone[0].rerouted_wall_us, o->gone[0].observed_wall_us + 1, after_us);
    assert_in_range(o->gone[1].observed_wall_us, o->gone[0].rerouted_wall_us, after_us);
    assert_in_range(o->gone[1].rerouted_wall_us, o->gone[1].observed_wall_us + 1, w->os->wall_ns(w->os) / 1000);
    assert_int_equal(o->crashed_wall_us, o->gone[1].observed_wall_us);
    assert_true(o->rerouted_ns > 0 && o->rerouted_ns < 2 * SECOND);
}

/* ---- anything may happen: no ready task beside somebody who could have it ---- */

enum { CREW = 4, STEPS = 1500 };

typedef struct crew {
    puppet *who[CREW];
    uint32_t answered[CREW], came;
} crew;

static void come(world *w, crew *c, uint32_t i)
{
    char name[16];
    snprintf(name, sizeof name, "w%u", c->came++); /* somebody new: it knows nothing of what was there before */
    c->who[i] = good(w, name, 1);                  /* one task at a time, as an exclusive consumer */
    c->answered[i] = 0;
}

static void step(world *w, puppet *boss, crew *c)
{
    lim__rng *rng = lim__sim_rng(w->sim);
    uint32_t i = (uint32_t)lim__rng_below(rng, CREW);
    static const char *const keys[] = { NULL, "a", "b" };
    switch (lim__rng_below(rng, 8)) {
    case 0:
    case 1:
        task_with(w, boss, "q", "x",
                  &(lim_dispatch_opts){ .size = sizeof(lim_dispatch_opts),
                                        .timeout_ms = LIM_FOREVER,
                                        .losses_max = 1000,
                                        .order_key = keys[lim__rng_below(rng, 3)] });
        break;
    case 2:
        if (c->who[i] != NULL)
            lose(w, c->who[i], lim__rng_below(rng, 2) ? LIM_LEFT : LIM_LOST);
        c->who[i] = NULL;
        break;
    case 3:
        admin(w, boss, "q", lim__rng_below(rng, 3) == 0 ? "{\"op\":\"queue.pause\"}" : "{\"op\":\"queue.resume\"}");
        break;
    case 4:
        if (c->who[i] == NULL)
            come(w, c, i);
        break;
    default:
        if (c->who[i] != NULL && c->answered[i] < c->who[i]->request_count)
            answer(w, c->who[i], &c->who[i]->requests[c->answered[i]++]);
        break;
    }
}

static void
test_no_task_is_ready_beside_a_worker_that_could_do_it(void **state) /* rabbitmq#17317, #14141: proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w);
    crew c = { 0 };
    for (int n = 0; n < STEPS; n++) {
        step(w, boss, &c);
        const char *said = admin(w, boss, "q", why);
        if (strstr(said, "\"waiting\":0") == NULL && strstr(said, "\"why\":\"\"") != NULL)
            fail_msg("step %d: a task waits and nothing is in its way: %s", n, said);
        bool free = false;
        for (int i = 0; i < CREW; i++)
            free |= c.who[i] != NULL && c.answered[i] == c.who[i]->request_count;
        if (free && strstr(said, "\"waiting\":0") == NULL && strstr(said, "\"why\":\"paused\"") == NULL)
            has(said, "\"why\":\"ordered_behind\"");
    }
    assert_true(c.came > 50 && boss->outcome_count > 100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_four_workers_do_four_times_as_much_as_one),
        TEST(test_a_worker_of_four_is_never_given_fourteen),
        TEST(test_a_waiting_task_goes_to_whoever_becomes_eligible),
        TEST(test_who_works_is_listed_and_why_it_gets_nothing),
        TEST(test_a_worker_that_never_acknowledges_is_told_from_one_that_works),
        TEST(test_crash_detection_is_armed_before_a_worker_can_be_chosen),
        TEST(test_the_outcome_says_past_whom_and_when_it_was_rerouted),
        TEST(test_no_task_is_ready_beside_a_worker_that_could_do_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
