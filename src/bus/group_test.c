/* SPDX-License-Identifier: Apache-2.0
 * group_test.c - who gets what and when, letter by letter: workers and askers are puppets, the bus is simulated. */
#include "bus/group_world.h"

static void deploy_slow(world *w, puppet *owner, const char *queue, const char *code, lim_on_fault on_fault,
                        uint32_t cpu_us)
{
    lim_pid group;
    lim__deploy *d = lim__letter_new(NULL, &lim__type_deploy, sizeof *d);
    *d = (lim__deploy){ .reply_to = owner->pid,
                        .opts = { .size = sizeof d->opts, .on_fault = on_fault, .cpu_us_max = cpu_us } };
    assert_int_equal(lim__artifact_new(LIM__ENGINE_LUA, lim__str(code), "test.lua", 0, &d->artifact), LIM_OK);
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &group), LIM_OK);
    assert_int_equal(lim__post_reserved(w->bus->rt, group, d), LIM_OK);
}

static void deploy(world *w, puppet *owner, const char *queue, const char *code, lim_on_fault on_fault)
{
    deploy_slow(w, owner, queue, code, on_fault, 0);
}

/* ---- tests ---- */

static void test_a_worker_that_comes_back_gets_what_waited_for_it(void **state) /* proves GR6 GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = worker(w, "q", "w", 2, NULL), *again;
    task(w, boss, "q", NULL, "one");
    settle(w);
    assert_int_equal(first->request_count, 1);
    take(w, &first->requests[0]);
    lose(w, first, LIM_LOST);
    task(w, boss, "q", NULL, "two"); /* nobody is there */
    settle(w);
    again = worker(w, "q", "w", 2, NULL);
    hold(w, again, &first->requests[0]);
    assert_true(again->request_count >= 1);
    answer(w, again, &first->requests[0]);
    for (uint32_t i = 0; i < again->request_count; i++)
        answer(w, again, &again->requests[i]);
    assert_int_equal(boss->outcome_count, 2);
}

static void test_a_worker_that_takes_over_from_itself_keeps_its_leases(void **state) /* proves GR1 GR6 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = worker(w, "q", "w", 1, NULL);
    task(w, boss, "q", NULL, "one");
    settle(w);
    take(w, &first->requests[0]);
    puppet *again = worker(w, "q", "w", 1, NULL); /* its old connection was never found dead */
    assert_int_equal(first->ended, LIM_REPLACED);
    hold(w, again, &first->requests[0]);
    assert_int_equal(again->revoked, 0);
    assert_int_equal(again->request_count, 0);
    answer(w, again, &first->requests[0]);
    assert_int_equal(again->accepted, 1);
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_REPLY);
}

static void test_holding_may_arrive_before_the_old_connection_ends(void **state) /* proves GR6 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = worker(w, "q", "w", 1, NULL), *again = puppet_new(w);
    task(w, boss, "q", NULL, "one");
    settle(w);
    take(w, &first->requests[0]);
    hold(w, again, &first->requests[0]);
    worker_is(w, again, "q", "w", 1, NULL);
    assert_int_equal(again->revoked, 0);
    answer(w, again, &first->requests[0]);
    assert_int_equal(again->accepted, 1);
    assert_int_equal(boss->outcome_count, 1);
}

static void test_all_that_is_parked_for_one_gets_its_places(void **state) /* proves GR3 GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, NULL), *b = worker(w, "q", "b", 1, NULL);
    /* what says `shy` wants `a` only as long as that one is busy */
    deploy(w, boss, "q",
           "return function(msg, c) if msg.shy and c[1].in_flight == 0 then return c[2] end return c[1] end",
           LIM_ON_FAULT_REJECT);
    task(w, boss, "q", NULL, "{\"shy\":false}");
    task(w, boss, "q", NULL, "{\"shy\":true}");
    task(w, boss, "q", NULL, "{\"shy\":false}");
    settle(w);
    assert_int_equal(a->request_count, 1);
    assert_int_equal(b->request_count, 0);
    assert_non_null(strstr(members(w, boss, "q"), "\"in_flight\":1,\"buffer\":2,\"node\":\"local\""));
    take(w, &a->requests[0]);
    answer(w, a, &a->requests[0]);
    assert_int_equal(b->request_count, 1);
    assert_int_equal(a->request_count, 2);
    assert_null(strstr(members(w, boss, "q"), "\"buffer\":2"));
}

static void test_the_ninth_that_the_router_chose_nobody_for_gets_its_turn(void **state) /* proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 2, NULL);
    deploy(w, boss, "q", "return function(msg, c) if not msg.never and c[1].in_flight == 0 then return c[1] end end",
           LIM_ON_FAULT_REJECT);
    task(w, boss, "q", NULL, "{\"never\":false}");
    for (int i = 0; i < 12; i++)
        task(w, boss, "q", NULL, "{\"never\":true}");
    task(w, boss, "q", NULL, "{\"never\":false}");
    settle(w);
    assert_int_equal(a->request_count, 1);
    take(w, &a->requests[0]);
    answer(w, a, &a->requests[0]);
    assert_int_equal(a->request_count, 2);
}

static void test_a_long_row_of_one_type_does_not_hide_the_others(void **state) /* proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, "a"), *b = worker(w, "q", "b", 1, "b");
    task(w, boss, "q", "b", "x");
    for (int i = 0; i < 1500; i++)
        task(w, boss, "q", "a", "x");
    task(w, boss, "q", "b", "y");
    settle(w);
    assert_int_equal(a->request_count, 1);
    assert_int_equal(b->request_count, 1);
    take(w, &a->requests[0]);
    take(w, &b->requests[0]);
    answer(w, b, &b->requests[0]);
    assert_int_equal(b->request_count, 2);
}

static void test_one_without_a_type_does_not_hide_the_typed(void **state) /* proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *any = worker(w, "q", "any", 1, NULL), *b = worker(w, "q", "b", 1, "b");
    task(w, boss, "q", NULL, "x");
    task(w, boss, "q", "b", "x");
    task(w, boss, "q", NULL, "y"); /* only `any` can have it */
    task(w, boss, "q", "b", "y");
    settle(w);
    assert_int_equal(any->request_count + b->request_count, 2);
    take(w, &any->requests[0]);
    take(w, &b->requests[0]);
    answer(w, b, &b->requests[0]);
    assert_int_equal(b->request_count, 2);
}

static void test_a_version_with_unfinished_calls_may_be_replaced_and_the_bus_closed(void **state) /* proves RF7 RF9 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, NULL);
    for (int i = 0; i < 3; i++) {
        deploy_slow(w, boss, "q",
                    i % 2 ? "return function() while true do local x = 1 end end"
                          : "return function() while true do end end",
                    LIM_ON_FAULT_REJECT, 10000000);
        task(w, boss, "q", NULL, "{}");
        for (int t = 0; t < 3; t++)
            lim__sched_turn(lim__sched_at(w->bus->rt, 0), 0);
    }
    assert_int_equal(a->request_count, 0);
}

static void test_a_version_to_fall_back_on_that_fails_too_ends_the_matter(void **state) /* proves RF11 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *p = puppet_new(w);
    lim_pid group;
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str("q"), &group), LIM_OK);
    lim__join *j = lim__join_new(NULL, p->pid, LIM__MEMBER_SERVE, lim__str("p"), 1, NULL, NULL);
    j->reply_to = p->pid;
    assert_int_equal(lim__post_reserved(w->bus->rt, group, j), LIM_OK);
    deploy(w, boss, "q", "return function() while true do end end", LIM_ON_FAULT_REJECT);
    deploy(w, boss, "q", "return function() error('no') end", LIM_ON_FAULT_PREVIOUS);
    begin(w, boss, LIM__KIND_ASK, "q", NULL, "{}");
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 20 * SECOND, NULL, NULL);
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_REFUSED);
    assert_int_equal(boss->outcomes[0].why, LIM_WHY_ROUTING_FAULT);
    assert_int_equal(boss->outcomes[0].handed, LIM_HANDED_NO);
}

static void test_reported_places_cannot_wrap_around(void **state) /* proves GR2 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 2, NULL);
    lim_pid group = lim__group_find(w->bus, lim__str("q"));
    task(w, boss, "q", NULL, "x");
    settle(w);
    lim__report *r = lim__letter_new(NULL, &lim__type_report, sizeof *r);
    *r = (lim__report){ a->pid, UINT32_MAX };
    assert_int_equal(lim__post_reserved(w->bus->rt, group, r), LIM_OK);
    task(w, boss, "q", NULL, "y");
    settle(w);
    assert_int_equal(a->request_count, 1);
}

static void test_what_nobody_acknowledged_may_have_been_handed_over(void **state) /* proves CV3 GR4 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, NULL);
    lim_pid t = task(w, boss, "q", NULL, "x");
    settle(w);
    for (uint32_t had = 0; had < 18; had = a->request_count) /* offered again and again; the only one there is */
        lim__sim_run(w->sim, lim__sim_now(w->sim) + SECOND, NULL, NULL);
    lose(w, a, LIM_LEFT);
    lim__command *c = lim__letter_new(NULL, &lim__type_cancel, sizeof *c);
    *c = (lim__command){ 0 };
    assert_int_equal(lim__post_reserved(w->bus->rt, t, c), LIM_OK);
    settle(w);
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_CANCELLED);
    assert_int_equal(boss->outcomes[0].handed, LIM_HANDED_UNKNOWN);
}

static void test_more_than_64_members_are_all_reached(void **state) /* proves GR3 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *all[80];
    char name[16];
    for (int i = 0; i < 80; i++) {
        snprintf(name, sizeof name, "w%d", i);
        all[i] = worker(w, "q", name, 1, NULL);
        if (i == 70) /* one with a small slot, one with a large one, and they come again */
            lose(w, all[3], LIM_LEFT), lose(w, all[68], LIM_LEFT);
    }
    deploy(w, boss, "q", "return function(m, c) for i = 1, #c do if c[i].in_flight == 0 then return c[i] end end end",
           LIM_ON_FAULT_REJECT);
    settle(w);
    for (int i = 0; i < 78; i++)
        task(w, boss, "q", NULL, "{}");
    settle(w);
    for (int i = 0; i < 80; i++) {
        assert_int_equal(all[i]->request_count, i == 3 || i == 68 ? 0 : 1);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(test_a_worker_that_comes_back_gets_what_waited_for_it),
        T(test_a_worker_that_takes_over_from_itself_keeps_its_leases),
        T(test_holding_may_arrive_before_the_old_connection_ends),
        T(test_all_that_is_parked_for_one_gets_its_places),
        T(test_the_ninth_that_the_router_chose_nobody_for_gets_its_turn),
        T(test_a_long_row_of_one_type_does_not_hide_the_others),
        T(test_one_without_a_type_does_not_hide_the_typed),
        T(test_a_version_with_unfinished_calls_may_be_replaced_and_the_bus_closed),
        T(test_a_version_to_fall_back_on_that_fails_too_ends_the_matter),
        T(test_reported_places_cannot_wrap_around),
        T(test_what_nobody_acknowledged_may_have_been_handed_over),
        T(test_more_than_64_members_are_all_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
