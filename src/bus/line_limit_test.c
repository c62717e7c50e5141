/* SPDX-License-Identifier: Apache-2.0
 * line_limit_test.c - how many at once and how many per time: of a key, of all keys, of the whole line. */
#include "bus/line_steps.h"

/* Another broker's users: one tenant at its rate held up the whole queue. */
static void test_a_throttled_key_does_not_block_the_others(void **state) /* proves GR10 */
{
    world *w = *state;
    limit(w, "slow", LIMIT(.in_flight_max = 1));
    limit(w, "rare", LIMIT(.rate_max = 1, .period_ns = 60 * SECOND));
    add_many(w, ITEM(KEY("slow"), .priority = 9), 1000);
    add_many(w, ITEM(KEY("rare"), .priority = 9), 1000);
    add_many(w, ITEM(KEY("fast"), .priority = 0), 1000);
    for (unsigned n = 0; n < 1002; n++)
        assert_non_null(out(w));
    assert_int_equal(served_of(w, 's', 0, 1002), 1);
    assert_int_equal(served_of(w, 'r', 0, 1002), 1);
    assert_int_equal(served_of(w, 'f', 0, 1002), 1000);
    assert_null(next(w));
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_LIMITED), 1998);
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_READY), 0);
    assert_int_equal(lim__line_due(&w->line), w->now_ns + 60 * SECOND);
}

/* Another scheduler's users: a worker died, its slot stayed taken, and 53,000 tasks waited for nobody. */
static void test_slots_are_derived_from_live_leases(void **state) /* proves GR10 */
{
    world *w = *state;
    lim__line_key shown;
    limit(w, "a", LIMIT(.in_flight_max = 2));
    add_many(w, ITEM(KEY("a"), ORDER("x")), 2);
    add_many(w, ITEM(KEY("a")), 50);
    for (unsigned round = 0; round < 40; round++) {
        lim__item *one = out(w), *two = out(w);
        assert_null(next(w));
        assert_true(lim__line_key_get(&w->line, lim__str("a"), &shown, w->now_ns));
        assert_int_equal(shown.count[LIM__ITEM_OUT], 2);
        assert_int_equal(shown.count[LIM__ITEM_LIMITED] + shown.count[LIM__ITEM_BEHIND], shown.count[0] - 2);
        if (round % 3 == 0)
            lim__line_again(&w->line, one, w->now_ns, 0); /* its worker died */
        else if (round % 3 == 1)
            lim__line_again(&w->line, one, w->now_ns, w->now_ns + 5); /* it failed */
        else
            lim__line_remove(&w->line, one, w->now_ns); /* it was cancelled */
        lim__line_again(&w->line, two, w->now_ns, 0);
        lim__line_key_get(&w->line, lim__str("a"), &shown, w->now_ns);
        assert_int_equal(shown.count[LIM__ITEM_OUT], 0);
        assert_int_equal(shown.count[LIM__ITEM_LIMITED], 0);
        lim__line_check(&w->line);
        later(w, 10);
    }
    drain(w);
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_NONE), 0);
    assert_true(lim__line_limit_clear(&w->line, lim__str("a"), w->now_ns));
    assert_baseline(&w->line);
}

static void test_a_rate_is_exact_over_time(void **state) /* proves GR10 */
{
    static const lim__line_limit rates[] = { { .rate_max = 7, .period_ns = 1000003 },
                                             { .rate_max = 100, .period_ns = 60 * SECOND },
                                             { .rate_max = 3, .period_ns = 1 },
                                             { .rate_max = LIM__LINE_RATE_MAX, .period_ns = LIM__LINE_PERIOD_MAX_NS } };
    world *w = *state;
    for (unsigned r = 0; r < LIM_COUNT(rates); r++) {
        uint64_t start_ns = w->now_ns, starts = 0;
        limit(w, "a", rates[r]);
        while (starts < 1000) {
            lim__item *i = add(w, ITEM(KEY("a")));
            while (next(w) == NULL) {
                assert_true(lim__line_due(&w->line) > w->now_ns);
                later(w, lim__line_due(&w->line) - w->now_ns);
            }
            serve(w);
            limit(w, "a", rates[r]); /* said again: changes nothing */
            w->used--;
            starts++;
            assert_int_equal(i->state, LIM__ITEM_NONE);
            if (starts <= rates[r].rate_max) /* the burst */
                assert_int_equal(w->now_ns, start_ns);
            else /* each as soon as its token is there, rounded up once, not once each */
                assert_int_equal(w->now_ns - start_ns,
                                 ((starts - rates[r].rate_max) * rates[r].period_ns + rates[r].rate_max - 1) /
                                     rates[r].rate_max);
        }
        lim__line_limit_clear(&w->line, lim__str("a"), w->now_ns);
    }
    assert_baseline(&w->line);
}

static void test_a_key_that_comes_and_goes_does_not_get_new_tokens(void **state)
{
    world *w = *state;
    assert_int_equal(lim__line_limit_keys(&w->line, &LIMIT(.rate_max = 2, .period_ns = 10 * SECOND), w->now_ns),
                     LIM_OK);
    add(w, ITEM(KEY("a")));
    serve(w);
    add(w, ITEM(KEY("a")));
    serve(w);
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_NONE), 0);
    lim__item *third = add(w, ITEM(KEY("a")));
    assert_null(next(w));
    assert_int_equal(lim__line_due(&w->line), w->now_ns + 5 * SECOND);
    later(w, 5 * SECOND);
    assert_ptr_equal(next(w), third);
    serve(w);
    later(w, lim__line_due(&w->line) - w->now_ns); /* its tokens are whole: it is forgotten */
    assert_int_equal(lim__line_due(&w->line), LIM__LINE_NEVER);
    assert_baseline(&w->line);
}

static void test_a_limit_takes_effect_at_once(void **state) /* proves GR8, GR10 */
{
    world *w = *state;
    add_many(w, ITEM(KEY("a")), 10);
    lim__item *one = out(w);
    out(w);
    limit(w, "a", LIMIT(.in_flight_max = 2));
    assert_null(next(w));
    limit(w, "a", LIMIT(.in_flight_max = 3));
    assert_non_null(next(w));
    limit(w, "a", LIMIT(.in_flight_max = 1));
    lim__line_done(&w->line, one, w->now_ns);
    assert_null(next(w));
    assert_true(lim__line_limit_clear(&w->line, lim__str("a"), w->now_ns));
    assert_false(lim__line_limit_clear(&w->line, lim__str("a"), w->now_ns));
    assert_non_null(next(w));
    assert_int_equal(lim__line_limit_keys(&w->line, &LIMIT(.in_flight_max = 1), w->now_ns), LIM_OK);
    assert_null(next(w));
    limit(w, "a", LIMIT(0)); /* its own: none */
    assert_non_null(next(w));
    assert_int_equal(lim__line_limit_line(&w->line, &LIMIT(.in_flight_max = 1), w->now_ns), LIM_OK);
    assert_null(next(w));
    assert_int_equal(lim__line_why_first(&w->line, w->now_ns).how, LIM__LINE_QUEUE_LIMIT);
    assert_int_equal(lim__line_limit_line(&w->line, &LIMIT(.rate_max = 1), w->now_ns), LIM_E_INVALID);
    assert_int_equal(lim__line_limit_line(&w->line, &LIMIT(0), w->now_ns), LIM_OK);
    assert_non_null(next(w));
}

static void test_used_tokens_stay_used_when_the_rate_changes(void **state)
{
    world *w = *state;
    limit(w, "a", LIMIT(.rate_max = 10, .period_ns = 10 * SECOND));
    add_many(w, ITEM(KEY("a")), 50);
    for (unsigned n = 0; n < 4; n++)
        serve(w);
    limit(w, "a", LIMIT(.rate_max = 10, .period_ns = 10 * SECOND)); /* said again: nothing changes */
    limit(w, "a", LIMIT(.rate_max = 6, .period_ns = 60 * SECOND));
    assert_true(serve(w));
    assert_true(serve(w));
    assert_false(serve(w)); /* six are used */
    later(w, 10 * SECOND);
    assert_true(serve(w));
    assert_false(serve(w));
}

static void test_the_queues_own_rate_says_when_it_goes_on(void **state)
{
    world *w = *state;
    assert_int_equal(lim__line_limit_line(&w->line, &LIMIT(.rate_max = 2, .period_ns = 2 * SECOND), w->now_ns), LIM_OK);
    add_many(w, ITEM(KEY("a")), 4);
    assert_int_equal(lim__line_due(&w->line), LIM__LINE_NEVER);
    assert_true(serve(w));
    assert_true(serve(w));
    assert_false(serve(w));
    assert_int_equal(lim__line_due(&w->line), w->now_ns + SECOND);
    lim__line_why why = lim__line_why_first(&w->line, w->now_ns);
    assert_int_equal(why.how, LIM__LINE_QUEUE_LIMIT);
    assert_int_equal(why.until_ns, w->now_ns + SECOND);
    later(w, SECOND);
    assert_true(serve(w));
    assert_false(serve(w));
    assert_int_equal(lim__line_limit_line(&w->line, &LIMIT(0), w->now_ns), LIM_OK);
    assert_int_equal(lim__line_due(&w->line), LIM__LINE_NEVER);
    assert_true(serve(w));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_throttled_key_does_not_block_the_others),
        TEST(test_slots_are_derived_from_live_leases),
        TEST(test_a_rate_is_exact_over_time),
        TEST(test_a_key_that_comes_and_goes_does_not_get_new_tokens),
        TEST(test_a_limit_takes_effect_at_once),
        TEST(test_used_tokens_stay_used_when_the_rate_changes),
        TEST(test_the_queues_own_rate_says_when_it_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
