/* SPDX-License-Identifier: Apache-2.0
 * queue_test.c - what a queue does with tasks that say more than "do me": priorities, keys, order, delays, duplicates,
 * retries, dead letters; and what operators ask of it. Puppets again (group_world.h). */
#include "bus/group_world.h"

/* Does what the worker has in hand last, and gives its payload. */
static const char *next_done(world *w, puppet *p)
{
    seen *r = &p->requests[p->request_count - 1];
    answer(w, p, r);
    return r->payload;
}

static void test_the_highest_priority_goes_first(void **state) /* proves GR10 */
{
    world *w = *state;
    puppet *boss = puppet_new(w);
    task_with(w, boss, "q", "low", TASK(.priority = LIM_PRIORITY(0)));
    task_with(w, boss, "q", "usual", TASK());
    task_with(w, boss, "q", "high", TASK(.priority = LIM_PRIORITY(9)));
    puppet *one = good(w, "w", 1);
    assert_string_equal(next_done(w, one), "high");
    assert_string_equal(next_done(w, one), "usual");
    assert_string_equal(next_done(w, one), "low");
    assert_int_equal(boss->outcome_count, 3);
}

static void test_a_limited_key_does_not_block_the_others(void **state) /* proves GR8 GR10 GR14 */
{
    world *w = *state;
    puppet *boss = puppet_new(w);
    has(admin(w, boss, "q", "{\"op\":\"queue.limit\",\"key\":\"a\",\"in_flight_max\":1}"), "\"in_flight_max\":1");
    puppet *many = good(w, "w", 8);
    for (int i = 0; i < 3; i++)
        task_with(w, boss, "q", "a", TASK(.key = "a"));
    task_with(w, boss, "q", "b", TASK(.key = "b"));
    assert_int_equal(many->request_count, 2);
    assert_string_equal(many->requests[0].payload, "a");
    assert_string_equal(many->requests[1].payload, "b");
    has(admin(w, boss, "q", "{\"op\":\"queue.why\"}"), "\"why\":\"limited\"");
    has(boss->json, "key a is at its limit of 1");
    has(admin(w, boss, "q", "{\"op\":\"queue.keys\"}"), "\"key\":\"a\"");
    lose(w, many, LIM_LEFT); /* its worker is gone: the place is free with it, nothing leaks */
    puppet *other = good(w, "x", 8);
    assert_int_equal(other->request_count, 2);
    answer(w, other, &other->requests[0]);
    assert_int_equal(other->request_count, 3);
    has(admin(w, boss, "q", "{\"op\":\"queue.limit\",\"key\":\"a\",\"clear\":true}"), "\"cleared\":true");
    assert_int_equal(other->request_count, 4); /* in the same turn: GR8 */
}

static void test_tasks_with_one_order_key_go_one_at_a_time(void **state) /* proves GR11 GR14 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *many = good(w, "w", 8);
    task_with(w, boss, "q", "k1", TASK(.order_key = "k"));
    task_with(w, boss, "q", "k2", TASK(.order_key = "k"));
    task_with(w, boss, "q", "other", TASK(.order_key = "o"));
    assert_int_equal(many->request_count, 2);
    assert_string_equal(many->requests[1].payload, "other");
    has(admin(w, boss, "q", "{\"op\":\"queue.why\"}"), "\"why\":\"ordered_behind\"");
    answer(w, many, &many->requests[0]);
    assert_int_equal(many->request_count, 3);
    assert_string_equal(many->requests[2].payload, "k2");
}

static void test_the_head_that_lost_its_worker_stays_the_head(void **state) /* proves GR5 GR11 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = good(w, "w", 8);
    task_with(w, boss, "q", "k1", TASK(.order_key = "k"));
    task_with(w, boss, "q", "k2", TASK(.order_key = "k"));
    puppet *second = good(w, "x", 8);
    lose(w, first, LIM_LOST);
    assert_int_equal(second->request_count, 1);
    assert_string_equal(second->requests[0].payload, "k1");
    answer(w, second, &second->requests[0]);
    assert_int_equal(second->request_count, 2);
    assert_string_equal(second->requests[1].payload, "k2");
}

static void test_a_delayed_task_waits_for_its_time(void **state) /* proves GR12 GR14 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *one = good(w, "w", 1);
    task_with(w, boss, "q", "later", TASK(.delay_ms = 60000));
    assert_int_equal(one->request_count, 0);
    has(admin(w, boss, "q", "{\"op\":\"queue.why\"}"), "\"why\":\"delayed\"");
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 58 * SECOND, NULL, NULL);
    assert_int_equal(one->request_count, 0);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 2 * SECOND, NULL, NULL);
    assert_int_equal(one->request_count, 1);
}

static void test_a_delayed_task_can_be_told_to_go_now(void **state) /* proves GR12 */
{
    world *w = *state;
    char op[80];
    puppet *boss = puppet_new(w), *one = good(w, "w", 1);
    lim_pid later = task_with(w, boss, "q", "later", TASK(.delay_ms = 60000, .key = "tenant", .type = "t"));
    assert_int_equal(one->request_count, 0);
    snprintf(op, sizeof op, "{\"op\":\"task.retry\",\"id\":\"%llx\"}", (unsigned long long)later.id);
    has(admin(w, boss, "q", op), "\"key\":\"tenant\"");
    assert_int_equal(one->request_count, 1);
    assert_string_equal(next_done(w, one), "later");
}

static void test_a_unique_key_rejects_replaces_or_joins(void **state) /* proves GR12 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *second = puppet_new(w), *third = puppet_new(w);
    lim_pid first = task_with(w, boss, "q", "one", TASK(.unique_key = "u"));
    task_with(w, second, "q", "two", TASK(.unique_key = "u"));
    assert_int_equal(second->admission.verdict, LIM_REJECT);
    assert_int_equal(second->admission.why, LIM_WHY_DUPLICATE);
    task_with(w, second, "q", "three", TASK(.unique_key = "u", .on_duplicate = LIM_UNIQUE_REPLACE));
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_REFUSED);
    assert_int_equal(boss->outcomes[0].why, LIM_WHY_REPLACED);
    assert_int_equal(boss->outcomes[0].conv.id, first.id);
    task_with(w, third, "q", "four", TASK(.unique_key = "u", .on_duplicate = LIM_UNIQUE_JOIN));
    puppet *one = good(w, "w", 4);
    assert_int_equal(one->request_count, 1);
    assert_string_equal(next_done(w, one), "three");
    assert_int_equal(second->outcome_count, 1);
    assert_int_equal(third->outcome_count, 1);
    assert_string_equal(third->outcomes[0].payload, "done");
    assert_int_equal(third->admitted.id, second->admitted.id);
    task_with(w, boss, "q", "five", TASK(.unique_key = "u")); /* it is over: the key is free */
    assert_int_equal(one->request_count, 2);
}

static void test_a_dispatch_that_is_repeated_gets_the_recorded_outcome(void **state) /* proves GR13 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *again = puppet_new(w), *one = good(w, "w", 1);
    task_with(w, boss, "q", "pay", TASK(.idempotency_key = "order-7"));
    task_with(w, again, "q", "pay", TASK(.idempotency_key = "order-7")); /* while it runs: gets it when it exists */
    assert_int_equal(one->request_count, 1);
    assert_int_equal(again->outcome_count, 0);
    next_done(w, one);
    assert_int_equal(again->outcome_count, 1);
    task_with(w, again, "q", "pay", TASK(.idempotency_key = "order-7"));
    assert_int_equal(again->outcome_count, 2);
    assert_string_equal(again->outcomes[1].payload, "done");
    assert_int_equal(again->admitted.id, boss->admitted.id);
    assert_int_equal(one->request_count, 1);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 601 * SECOND, NULL, NULL);
    task_with(w, again, "q", "pay", TASK(.idempotency_key = "order-7")); /* the window is over */
    assert_int_equal(one->request_count, 2);
}

static void test_idempotency_keys_are_bounded_in_number_and_bytes(void **state) /* proves XO1 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *one = good(w, "w", 1);
    char key[256] = "";
    has(admin(w, boss, "q", "{\"op\":\"queue.configure\",\"remember_max\":2}"), "\"remember_max\":2");
    task_with(w, boss, "q", "pay", TASK(.idempotency_key = "k1"));
    task_with(w, boss, "q", "pay", TASK(.idempotency_key = "k2"));
    task_with(w, boss, "q", "pay", TASK(.idempotency_key = "k3"));
    assert_int_equal(boss->admission.why, LIM_WHY_KEYS_FULL);
    has(admin(w, boss, "q", "{\"op\":\"queue.configure\",\"remember_forgets\":true}"), "\"remember_forgets\":true");
    task_with(w, boss, "q", "pay", TASK(.idempotency_key = "k3")); /* k1 goes */
    task_with(w, boss, "q", "pay", TASK(.idempotency_key = "k1")); /* k2 goes */
    for (int i = 0; i < 4; i++)
        next_done(w, one);
    uint32_t requests = one->request_count;
    task_with(w, boss, "q", "pay", TASK(.idempotency_key = "k3"));
    assert_int_equal(one->request_count, requests); /* it is remembered */
    has(admin(w, boss, "q",
              "{\"op\":\"queue.configure\",\"remember_max\":100,\"remember_bytes\":1024,\"remember_forgets\":false}"),
        "\"remember_bytes\":1024");
    for (int i = 0; i < 6; i++) { /* 288 bytes each, and there are two small ones */
        memset(key, 'a' + i, 255);
        task_with(w, boss, "q", "pay", TASK(.idempotency_key = key));
    }
    assert_int_equal(boss->admission.why, LIM_WHY_KEYS_FULL);
    assert_int_equal(one->request_count, requests + 1); /* three were admitted: one place */
}

static void test_a_failed_task_is_tried_again_after_a_while_and_then_dead(void **state) /* proves GR9 GR5 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *one = good(w, "w", 1);
    has(admin(w, boss, "q",
              "{\"op\":\"queue.configure\",\"attempts_max\":3,\"backoff_min_ms\":10000,\"backoff_jitter_percent\":0}"),
        "\"attempts_max\":3");
    task_with(w, boss, "q", "hard", TASK());
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(one->request_count, i + 1);
        answer_failed(w, one, &one->requests[i], "no luck");
        assert_int_equal(one->request_count, i + 1); /* not at once */
        lim__sim_run(w->sim, lim__sim_now(w->sim) + (10u << i) * SECOND, NULL, NULL);
    }
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_FAILED);
    assert_string_equal(boss->outcomes[0].detail, "no luck");
    has(admin(w, boss, "q", "{\"op\":\"dead.ls\"}"), "\"attempts\":3");
    has(boss->json, "\"detail\":\"no luck\"");
    has(admin(w, boss, "q", "{\"op\":\"dead.replay\",\"all\":true}"), "\"replayed\":[{");
    assert_int_equal(one->request_count, 4);
    assert_string_equal(next_done(w, one), "hard");
    has(admin(w, boss, "q", "{\"op\":\"dead.ls\"}"), "\"count\":0");
}

static void test_a_failing_head_blocks_only_its_key(void **state) /* proves GR11 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *many = good(w, "w", 8);
    admin(w, boss, "q",
          "{\"op\":\"queue.configure\",\"attempts_max\":5,\"backoff_min_ms\":20000,\"on_failing_head\":\"wait\"}");
    task_with(w, boss, "q", "k1", TASK(.order_key = "k"));
    task_with(w, boss, "q", "k2", TASK(.order_key = "k"));
    answer_failed(w, many, &many->requests[0], "not yet");
    task_with(w, boss, "q", "o1", TASK(.order_key = "o"));
    assert_int_equal(many->request_count, 2);
    assert_string_equal(many->requests[1].payload, "o1");
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 25 * SECOND, NULL, NULL);
    assert_int_equal(many->request_count, 3);
    assert_string_equal(many->requests[2].payload, "k1");
}

static void test_a_paused_queue_keeps_and_a_draining_one_refuses(void **state) /* proves GR14 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *one = good(w, "w", 8);
    has(admin(w, boss, "q", "{\"op\":\"queue.pause\"}"), "\"paused\":true");
    task_with(w, boss, "q", "a", TASK());
    assert_int_equal(boss->admission.verdict, LIM_DEFER);
    assert_int_equal(boss->admission.why, LIM_WHY_PAUSED);
    assert_int_equal(one->request_count, 0);
    has(admin(w, boss, "q", "{\"op\":\"queue.why\"}"), "\"why\":\"paused\"");
    has(admin(w, boss, "q", "{\"op\":\"queue.resume\"}"), "\"paused\":false");
    assert_int_equal(one->request_count, 1);
    has(admin(w, boss, "q", "{\"op\":\"queue.drain\"}"), "\"draining\":true");
    task_with(w, boss, "q", "b", TASK());
    assert_int_equal(boss->admission.verdict, LIM_REJECT);
    assert_int_equal(boss->admission.why, LIM_WHY_CLOSING);
    has(admin(w, boss, "q", "{\"op\":\"queue.resume\"}"), "\"draining\":false");
    has(admin(w, boss, "q", "{\"op\":\"worker.drain\",\"identity\":\"w\"}"), "\"draining\":true");
    task_with(w, boss, "q", "c", TASK());
    assert_int_equal(one->request_count, 1);
    has(admin(w, boss, "q", "{\"op\":\"queue.why\"}"), "its workers are draining");
    has(admin(w, boss, "q", "{\"op\":\"task.ls\"}"), "\"state\":\"ready\"");
    has(admin(w, boss, "q", "{\"op\":\"queue.purge\"}"), "\"purged\":1");
    assert_int_equal(boss->outcomes[boss->outcome_count - 1].why, LIM_WHY_PURGED);
    has(admin(w, boss, "q", "{\"op\":\"worker.resume\",\"identity\":\"w\"}"), "\"draining\":false");
    task_with(w, boss, "q", "d", TASK());
    assert_int_equal(one->request_count, 2);
}

static void test_a_dead_letter_that_is_refused_again_is_not_lost(void **state) /* proves GR9 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *one = good(w, "w", 1);
    task_with(w, boss, "q", "first", TASK(.unique_key = "u"));
    answer_failed(w, one, &one->requests[0], "no");
    has(admin(w, boss, "q", "{\"op\":\"dead.ls\"}"), "\"count\":1");
    task_with(w, boss, "q", "second", TASK(.unique_key = "u")); /* it runs, and has the key */
    has(admin(w, boss, "q", "{\"op\":\"dead.replay\",\"all\":true}"), "\"task\"");
    has(admin(w, boss, "q", "{\"op\":\"dead.ls\"}"), "\"count\":1");
    has(boss->json, "\"how\":\"failed\"");
    answer(w, one, &one->requests[1]);
    has(admin(w, boss, "q", "{\"op\":\"queue.drain\"}"), "\"draining\":true");
    has(admin(w, boss, "q", "{\"op\":\"dead.replay\",\"all\":true}"), "\"task\"");
    has(admin(w, boss, "q", "{\"op\":\"dead.ls\"}"), "\"how\":\"failed\"");
    has(admin(w, boss, "q", "{\"op\":\"queue.resume\"}"), "\"draining\":false");
    has(admin(w, boss, "q", "{\"op\":\"dead.replay\",\"all\":true}"), "\"task\"");
    assert_string_equal(next_done(w, one), "first");
    has(admin(w, boss, "q", "{\"op\":\"dead.ls\"}"), "\"count\":0");
}

static void test_the_reason_is_the_first_that_applies(void **state) /* proves GR14 */
{
    world *w = *state;
    puppet *boss = puppet_new(w);
    static const char why[] = "{\"op\":\"queue.why\"}";
    has(admin(w, boss, "q", "{\"op\":\"queue.limit\",\"key\":\"a\",\"in_flight_max\":1}"), "\"in_flight_max\":1");
    task_with(w, boss, "q", "1", TASK(.key = "a", .order_key = "k"));
    has(admin(w, boss, "q", why), "\"why\":\"no_workers\"");
    puppet *typed = puppet_new(w);
    typed->takes = true;
    worker_is(w, typed, "q", "typed", 1, "other");
    has(admin(w, boss, "q", why), "\"why\":\"no_matching_type\"");
    puppet *one = good(w, "w", 1);
    has(admin(w, boss, "q", why), "\"why\":\"\"");
    task_with(w, boss, "q", "2", TASK(.key = "a"));
    has(admin(w, boss, "q", why), "\"why\":\"limited\""); /* and its worker is full, too */
    task_with(w, boss, "q", "3", TASK(.key = "b"));
    has(admin(w, boss, "q", why), "\"why\":\"workers_full\""); /* this one wants no more than a place */
    has(admin(w, boss, "q", "{\"op\":\"queue.pause\"}"), "\"paused\":true");
    has(admin(w, boss, "q", why), "\"why\":\"paused\"");
    has(admin(w, boss, "q", "{\"op\":\"queue.purge\"}"), "\"purged\":2");
    has(admin(w, boss, "q", "{\"op\":\"queue.resume\"}"), "\"paused\":false");
    task_with(w, boss, "q", "4", TASK(.order_key = "k"));
    has(admin(w, boss, "q", why), "\"why\":\"ordered_behind\"");
    has(boss->json, "which is before it");
    answer(w, one, &one->requests[0]);
    answer(w, one, &one->requests[1]);
    has(admin(w, boss, "q", why), "\"why\":\"\"");
}

static void test_what_an_operator_gets_wrong_is_named(void **state)
{
    world *w = *state;
    puppet *boss = puppet_new(w);
    has(admin(w, boss, "q", "{\"op\":\"queue.configure\",\"atempts_max\":3}"), "atempts_max is no setting");
    has(admin(w, boss, "q", "{\"op\":\"queue.configure\",\"attempts_max\":0}"), "from 1 to 65535");
    has(admin(w, boss, "q", "{\"op\":\"queue.configure\",\"on_failing_head\":\"cry\"}"), "wait, skip or park");
    has(admin(w, boss, "q", "{\"op\":\"queue.configure\",\"backoff_min_ms\":2000,\"backoff_max_ms\":1000}"),
        "is more than");
    has(admin(w, boss, "q", "{\"op\":\"queue.limit\"}"), "which fairness key");
    has(admin(w, boss, "q", "{\"op\":\"queue.dance\"}"), "unknown op");
    has(admin(w, boss, "q", "{\"op\":\"dead.show\",\"id\":\"xyz\"}"), "write the task's id");
    has(admin(w, boss, "q", "{\"op\":\"dead.show\",\"id\":\"12\"}"), "no dead letter 12");
    has(admin(w, boss, "q", "{\"op\":\"worker.drain\",\"identity\":\"me\"}"), "nobody is called me");
    has(admin(w, boss, "q", "{"), "\"error\"");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_the_highest_priority_goes_first),
        TEST(test_a_limited_key_does_not_block_the_others),
        TEST(test_tasks_with_one_order_key_go_one_at_a_time),
        TEST(test_the_head_that_lost_its_worker_stays_the_head),
        TEST(test_a_delayed_task_waits_for_its_time),
        TEST(test_a_delayed_task_can_be_told_to_go_now),
        TEST(test_a_unique_key_rejects_replaces_or_joins),
        TEST(test_a_dispatch_that_is_repeated_gets_the_recorded_outcome),
        TEST(test_idempotency_keys_are_bounded_in_number_and_bytes),
        TEST(test_a_failed_task_is_tried_again_after_a_while_and_then_dead),
        TEST(test_a_failing_head_blocks_only_its_key),
        TEST(test_a_paused_queue_keeps_and_a_draining_one_refuses),
        TEST(test_a_dead_letter_that_is_refused_again_is_not_lost),
        TEST(test_the_reason_is_the_first_that_applies),
        TEST(test_what_an_operator_gets_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
