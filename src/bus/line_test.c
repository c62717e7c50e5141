/* SPDX-License-Identifier: Apache-2.0
 * line_test.c - what a queue's waiting line promises, one complaint or rule at a time: who is next, order keys, time,
 * reasons, memory. Limits are in line_limit_test.c; where everything is compared with a model, line_model_test.c. */
#include "bus/line_steps.h"

/* ---- who is next ---- */

static void test_without_keys_it_is_first_in_first_out(void **state)
{
    world *w = *state;
    for (unsigned n = 0; n < 300; n++)
        add(w, n % 3 == 0 ? ITEM(TYPE("mail")) : ITEM(TYPE("scan")));
    for (unsigned n = 0; n < 300; n++) {
        lim__item *i = out(w);
        assert_ptr_equal(i, &w->items[n]);
        lim__line_done(&w->line, i, w->now_ns);
    }
    assert_baseline(&w->line);
}

static void test_nine_goes_before_zero_however_late_it_came(void **state) /* proves GR10 */
{
    world *w = *state;
    for (unsigned p = 0; p <= LIM__PRIORITY_MAX; p++)
        add(w, ITEM(.priority = (uint8_t)p));
    for (unsigned p = LIM__PRIORITY_MAX + 1; p-- > 0;) {
        assert_int_equal(next(w)->priority, p);
        serve(w);
    }
    lim__item bad = { .priority = LIM__PRIORITY_MAX + 1 };
    assert_int_equal(lim__line_add(&w->line, &bad, w->now_ns), LIM_E_INVALID);
    assert_baseline(&w->line);
}

static void test_keys_take_turns_whoever_has_more(void **state) /* proves GR10 */
{
    world *w = *state;
    add_many(w, ITEM(KEY("a")), 1000);
    add_many(w, ITEM(KEY("b")), 10);
    for (unsigned n = 0; n < 20; n++)
        serve(w);
    assert_int_equal(served_of(w, 'b', 0, 20), 10);
}

static void test_weights_one_and_three_give_one_and_three(void **state) /* proves GR10 */
{
    world *w = *state;
    add_many(w, ITEM(KEY("a"), .weight = 1), 1000);
    add_many(w, ITEM(KEY("b"), .weight = 3), 1000);
    for (unsigned n = 0; n < 1000; n++)
        serve(w);
    assert_in_range(served_of(w, 'a', 0, 1000), 249, 251);
    for (unsigned n = 0; n + 8 <= 1000; n += 8) /* not in bursts either */
        assert_in_range(served_of(w, 'a', n, n + 8), 1, 3);
}

static void test_weights_hold_over_types_and_priorities(void **state)
{
    world *w = *state;
    for (unsigned n = 0; n < 600; n++) {
        add(w, ITEM(KEY("a"), TYPE("mail"), .weight = 1));
        add(w, n % 2 == 0 ? ITEM(KEY("b"), TYPE("mail"), .weight = 2) : ITEM(KEY("b"), TYPE("scan"), .weight = 2));
    }
    for (unsigned n = 0; n < 600; n++)
        serve(w);
    assert_in_range(served_of(w, 'a', 0, 600), 199, 201);
}

static void test_an_idle_key_has_saved_nothing(void **state) /* proves GR10 */
{
    world *w = *state;
    add(w, ITEM(KEY("b")));
    add_many(w, ITEM(KEY("a")), 1000);
    for (unsigned n = 0; n < 500; n++)
        serve(w); /* b has had one, and then nothing to do */
    add_many(w, ITEM(KEY("b")), 500);
    for (unsigned n = 0; n < 100; n++)
        serve(w);
    assert_in_range(served_of(w, 'b', 501, 601), 49, 51);
}

static void test_a_key_that_was_limited_or_not_served_has_saved_one_task_at_most(void **state)
{
    world *w = *state;
    limit(w, "b", LIMIT(.in_flight_max = 1));
    add_many(w, ITEM(KEY("a")), 1000);
    add_many(w, ITEM(KEY("b")), 500);
    lim__item *held = NULL;
    while (served_of(w, 'b', 0, w->outs) == 0) {
        held = out(w);
        if (*(const char *)held->key.ptr == 'a')
            lim__line_done(&w->line, held, w->now_ns);
    }
    for (unsigned n = 0; n < 300; n++)
        serve(w);
    uint32_t from = w->outs;
    lim__line_limit_clear(&w->line, lim__str("b"), w->now_ns);
    for (unsigned n = 0; n < 100; n++)
        serve(w);
    assert_in_range(served_of(w, 'b', from, from + 100), 49, 52);
    lim__line_done(&w->line, held, w->now_ns);
}

static void test_ever_new_keys_do_not_starve_one_that_waits(void **state) /* proves GR10 */
{
    world *w = *state;
    add_many(w, ITEM(KEY("old")), 20);
    uint32_t waited = 0, worst = 0;
    for (unsigned n = 0; n < 1500; n++) { /* two new ones for each that goes: the line only grows */
        for (unsigned k = 0; k < 2; k++) {
            char name[16];
            snprintf(name, sizeof name, "%u", n * 2 + k);
            add(w, ITEM(.key = lim__str(name), .weight = 1));
        }
        serve(w);
        waited = w->order[w->outs - 1] == 'o' ? 0 : waited + 1;
        worst = waited > worst ? waited : worst;
        if (served_of(w, 'o', 0, w->outs) == 5)
            return;
        assert_true(waited <= 1u << 10);
    }
    fail_msg("it was served %u times, and waited for %u others", served_of(w, 'o', 0, w->outs), worst);
}

static bool only_scan(void *ctx, lim_bytes type)
{
    ++*(unsigned *)ctx;
    return lim__bytes_eq(type, lim__str("scan"));
}

static void test_only_types_that_somebody_serves_and_each_is_asked_once(void **state) /* proves GR8 */
{
    world *w = *state;
    unsigned asked = 0;
    add_many(w, ITEM(TYPE("mail"), .priority = 9), 10);
    add_many(w, ITEM(TYPE("scan"), .priority = 1), 3);
    lim__line_begin(&w->line);
    for (unsigned n = 0; n < 3; n++) {
        lim__item *i = lim__line_next(&w->line, w->now_ns, only_scan, &asked);
        assert_true(lim__bytes_eq(i->type, lim__str("scan")));
        lim__line_out(&w->line, i, w->now_ns);
    }
    assert_null(lim__line_next(&w->line, w->now_ns, only_scan, &asked));
    assert_int_equal(asked, 2);
}

static void test_a_blocked_type_is_not_given_before_the_next_pass(void **state)
{
    world *w = *state;
    lim__item *mail = add(w, ITEM(TYPE("mail"))), *scan = add(w, ITEM(TYPE("scan")));
    assert_ptr_equal(next(w), mail);
    lim__line_block(&w->line, mail);
    assert_ptr_equal(lim__line_next(&w->line, w->now_ns, any, NULL), scan);
    lim__line_block(&w->line, scan);
    assert_null(lim__line_next(&w->line, w->now_ns, any, NULL));
    assert_ptr_equal(next(w), mail);
}

static void test_a_held_one_lets_others_pass_and_is_at_its_place_again(void **state)
{
    world *w = *state;
    add_many(w, ITEM(KEY("a")), 3);
    lim__line_hold(&w->line, &w->items[0]);
    assert_ptr_equal(next(w), &w->items[1]);
    assert_int_equal(lim__line_why_item(&w->line, &w->items[0], w->now_ns).how, LIM__LINE_HELD);
    lim__line_hold(&w->line, &w->items[1]);
    lim__line_unhold(&w->line, &w->items[0]);
    assert_ptr_equal(next(w), &w->items[0]);
    lim__line_hold(&w->line, &w->items[0]);
    lim__line_hold(&w->line, &w->items[2]);
    assert_null(next(w));
    lim__line_unhold_all(&w->line);
    for (unsigned n = 0; n < 3; n++)
        assert_ptr_equal(out(w), &w->items[n]);
}

static void test_one_whose_worker_died_goes_before_those_that_never_were_out(void **state)
{
    world *w = *state;
    add_many(w, ITEM(KEY("a")), 5);
    lim__item *first = out(w), *second = out(w);
    lim__line_again(&w->line, second, w->now_ns, 0);
    lim__line_again(&w->line, first, w->now_ns, 0);
    for (unsigned n = 0; n < 5; n++)
        assert_ptr_equal(out(w), &w->items[n]);
}

/* ---- order keys ---- */

static void test_an_order_key_goes_one_at_a_time_in_order(void **state) /* proves GR11 */
{
    world *w = *state;
    for (unsigned n = 0; n < 10; n++) {
        add(w, ITEM(KEY("a"), ORDER("x")));
        add(w, ITEM(KEY("b"), ORDER("y")));
    }
    for (unsigned n = 0; n < 10; n++) {
        lim__item *one = out(w), *two = out(w);
        assert_ptr_equal(one, &w->items[2 * n]);
        assert_ptr_equal(two, &w->items[2 * n + 1]);
        assert_null(next(w));
        lim__line_done(&w->line, two, w->now_ns);
        lim__line_done(&w->line, one, w->now_ns);
    }
    assert_baseline(&w->line);
}

static void test_a_failing_head_blocks_only_its_key(void **state) /* proves GR11 */
{
    world *w = *state;
    lim__item *head = add(w, ITEM(ORDER("x"))), *behind = add(w, ITEM(ORDER("x")));
    add_many(w, ITEM(ORDER("y")), 20);
    add_many(w, ITEM(), 20);
    assert_ptr_equal(out(w), head);
    for (unsigned n = 0; n < 5; n++) {
        lim__line_again(&w->line, head, w->now_ns, w->now_ns + SECOND);
        for (unsigned k = 0; k < 4; k++)
            assert_true(serve(w));
        lim__line_why why = lim__line_why_item(&w->line, behind, w->now_ns);
        assert_int_equal(why.how, LIM__LINE_ORDERED);
        assert_ptr_equal(why.before, head);
        later(w, SECOND);
        assert_ptr_equal(out(w), head);
    }
    lim__line_done(&w->line, head, w->now_ns);
    for (unsigned n = 0; n < 21; n++)
        assert_true(serve(w));
    assert_baseline(&w->line);
}

static void test_wait_holds_its_order_key_until_the_head_has_gone(void **state) /* proves GR11 */
{
    world *w = *state;
    lim__item *head = add(w, ITEM(ORDER("x"))), *second = add(w, ITEM(ORDER("x")));
    out(w);
    lim__line_again(&w->line, head, w->now_ns, w->now_ns + 10);
    assert_null(next(w));
    later(w, 10);
    assert_ptr_equal(out(w), head);
    lim__line_again(&w->line, head, w->now_ns, w->now_ns + 10);
    lim__line_remove(&w->line, head, w->now_ns); /* it was given up: the others go on */
    assert_ptr_equal(next(w), second);
}

static void test_skip_lets_the_others_go_and_the_head_is_the_next_when_due(void **state) /* proves GR11 */
{
    world *w = *state;
    lim__line_policy(&w->line, LIM__LANE_SKIP);
    add_many(w, ITEM(ORDER("x")), 4);
    lim__item *head = out(w);
    lim__line_again(&w->line, head, w->now_ns, w->now_ns + 10);
    assert_ptr_equal(out(w), &w->items[1]);
    later(w, 10); /* due, but another one is out */
    assert_null(next(w));
    assert_int_equal(lim__line_state(&w->line, head), LIM__ITEM_BEHIND);
    lim__line_done(&w->line, &w->items[1], w->now_ns);
    assert_ptr_equal(out(w), head);
    lim__line_again(&w->line, head, w->now_ns, w->now_ns + 10);
    assert_ptr_equal(next(w), &w->items[2]);
    later(w, 10); /* due before the other one went: it is before it again */
    assert_ptr_equal(next(w), head);
    assert_int_equal(lim__line_state(&w->line, &w->items[2]), LIM__ITEM_BEHIND);
}

static void test_park_stops_its_order_key_until_somebody_unparks_it(void **state) /* proves GR11 */
{
    world *w = *state;
    lim__line_policy(&w->line, LIM__LANE_PARK);
    lim__item *head = add(w, ITEM(ORDER("x"))), *second = add(w, ITEM(ORDER("x")));
    lim__item *other = add(w, ITEM(ORDER("y")));
    assert_ptr_equal(out(w), head);
    lim__line_again(&w->line, head, w->now_ns, 0); /* its worker died: that is no failure */
    assert_ptr_equal(out(w), head);
    lim__line_again(&w->line, head, w->now_ns, w->now_ns + 10);
    assert_ptr_equal(next(w), other);
    later(w, SECOND);
    assert_int_equal(lim__line_why_item(&w->line, head, w->now_ns).how, LIM__LINE_PARKED);
    assert_int_equal(lim__line_why_item(&w->line, second, w->now_ns).how, LIM__LINE_ORDERED);
    assert_false(lim__line_unpark(&w->line, lim__str("y"), w->now_ns));
    assert_true(lim__line_unpark(&w->line, lim__str("x"), w->now_ns));
    assert_false(lim__line_unpark(&w->line, lim__str("x"), w->now_ns));
    assert_ptr_equal(next(w), head);
    out(w);
    lim__line_again(&w->line, head, w->now_ns, w->now_ns + 10);
    assert_true(lim__line_unpark(&w->line, lim__str("x"), w->now_ns)); /* before its delay is over */
    assert_int_equal(lim__line_why_item(&w->line, head, w->now_ns).how, LIM__LINE_DELAYED);
    later(w, 10);
    assert_ptr_equal(next(w), head);
}

static void test_a_parked_order_key_stands_still_for_an_older_one_too(void **state)
{
    world *w = *state;
    lim__line_policy(&w->line, LIM__LANE_SKIP);
    lim__item *older = add(w, ITEM(ORDER("x"))), *head = add(w, ITEM(ORDER("x")));
    lim__line_again(&w->line, out(w), w->now_ns, w->now_ns + 10);
    lim__line_policy(&w->line, LIM__LANE_PARK); /* for those that fail from now on */
    lim__line_again(&w->line, out(w), w->now_ns, w->now_ns + 1);
    assert_int_equal(lim__line_state(&w->line, head), LIM__ITEM_PARKED);
    later(w, 10);
    assert_ptr_equal(lim__line_why_item(&w->line, older, w->now_ns).before, head);
    assert_null(next(w));
    assert_true(lim__line_unpark(&w->line, lim__str("x"), w->now_ns));
    assert_ptr_equal(next(w), older);
}

static void test_an_order_key_may_span_fairness_keys_types_and_priorities(void **state)
{
    world *w = *state;
    lim__item *low = add(w, ITEM(KEY("a"), TYPE("mail"), ORDER("x"), .priority = 0));
    lim__item *high = add(w, ITEM(KEY("b"), TYPE("scan"), ORDER("x"), .priority = 9));
    assert_ptr_equal(out(w), low);
    assert_null(next(w));
    lim__line_done(&w->line, low, w->now_ns);
    assert_ptr_equal(out(w), high);
    lim__line_done(&w->line, high, w->now_ns);
    assert_baseline(&w->line);
}

/* ---- time ---- */

static void test_a_delayed_one_comes_when_it_is_due_behind_those_that_came_earlier(void **state) /* proves GR12 */
{
    world *w = *state;
    lim__item *late = add(w, ITEM(.due_ns = w->now_ns + 100)), *soon = add(w, ITEM(.due_ns = w->now_ns + 50));
    lim__item *now = add(w, ITEM(.due_ns = w->now_ns));
    assert_int_equal(lim__line_due(&w->line), w->now_ns + 50);
    assert_ptr_equal(next(w), now);
    later(w, 49);
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_DELAYED), 2);
    later(w, 51);
    assert_int_equal(lim__line_due(&w->line), LIM__LINE_NEVER);
    assert_ptr_equal(out(w), now);
    assert_ptr_equal(out(w), soon);
    assert_ptr_equal(out(w), late);
    lim__item *never = add(w, ITEM(.due_ns = UINT64_MAX)), *other = add(w, ITEM(.due_ns = w->now_ns + SECOND));
    assert_int_equal(lim__line_due(&w->line), w->now_ns + SECOND);
    later(w, 100 * SECOND);
    assert_int_equal(lim__line_state(&w->line, never), LIM__ITEM_DELAYED);
    assert_ptr_equal(next(w), other);
}

static void test_one_that_is_hurried_is_due_now(void **state) /* proves GR12 */
{
    world *w = *state;
    lim__item *first = add(w, ITEM(TYPE("mail"), ORDER("x"))), *second = add(w, ITEM(ORDER("x")));
    lim__item *later_one = add(w, ITEM(TYPE("scan"), .due_ns = w->now_ns + SECOND));
    lim__line_again(&w->line, out(w), w->now_ns, w->now_ns + SECOND);
    assert_null(next(w));
    lim__line_hurry(&w->line, first, w->now_ns);
    assert_ptr_equal(out(w), first);
    assert_true(lim__bytes_eq(first->type, lim__str("mail")));
    lim__line_hurry(&w->line, later_one, w->now_ns);
    assert_ptr_equal(next(w), later_one);
    assert_int_equal(lim__line_state(&w->line, second), LIM__ITEM_BEHIND);
    assert_int_equal(lim__line_due(&w->line), LIM__LINE_NEVER);
}

static void test_one_wake_moves_no_more_than_it_says(void **state)
{
    world *w = *state;
    for (unsigned n = 0; n < 3000; n++)
        add(w, ITEM(.due_ns = w->now_ns + 1 + n % 7));
    unsigned calls = 1;
    w->now_ns += SECOND;
    for (uint32_t before = 3000; lim__line_wake(&w->line, w->now_ns); calls++) {
        uint32_t left = lim__line_count(&w->line, LIM__ITEM_DELAYED);
        assert_int_equal(before - left, LINE_WAKE_MAX);
        before = left;
    }
    assert_int_equal(calls, (3000 + LINE_WAKE_MAX - 1) / LINE_WAKE_MAX);
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_READY), 3000);
}

/* ---- why, and lists ---- */

static void test_nothing_waits_without_a_reason(void **state) /* proves GR14 */
{
    world *w = *state;
    assert_int_equal(lim__line_why_first(&w->line, w->now_ns).how, LIM__LINE_EMPTY);
    lim__item *delayed = add(w, ITEM(.due_ns = w->now_ns + 9));
    lim__line_why why = lim__line_why_first(&w->line, w->now_ns);
    assert_int_equal(why.how, LIM__LINE_DELAYED);
    assert_int_equal(why.until_ns, w->now_ns + 9);
    assert_ptr_equal(why.item, delayed);
    lim__item *head = add(w, ITEM(ORDER("x"))), *behind = add(w, ITEM(ORDER("x")));
    lim__line_out(&w->line, head, w->now_ns);
    why = lim__line_why_first(&w->line, w->now_ns);
    assert_int_equal(why.how, LIM__LINE_ORDERED);
    assert_ptr_equal(why.item, behind);
    assert_int_equal(why.before->id, head->id);
    limit(w, "a", LIMIT(.in_flight_max = 1, .rate_max = 1, .period_ns = SECOND));
    lim__item *one = add(w, ITEM(KEY("a")));
    add(w, ITEM(KEY("a"), TYPE("mail"), .priority = 1));
    lim__item *three = add(w, ITEM(KEY("a"), TYPE("scan"), .priority = 3));
    lim__line_out(&w->line, one, w->now_ns);
    why = lim__line_why_first(&w->line, w->now_ns);
    assert_int_equal(why.how, LIM__LINE_KEY_LIMIT);
    assert_ptr_equal(why.item, three);
    assert_int_equal(why.limit, 1);
    assert_int_equal(why.current, 1);
    assert_int_equal(why.until_ns, LIM__LINE_NEVER);
    lim__line_done(&w->line, one, w->now_ns);
    why = lim__line_why_item(&w->line, three, w->now_ns);
    assert_int_equal(why.how, LIM__LINE_KEY_LIMIT);
    assert_int_equal(why.until_ns, w->now_ns + SECOND);
    assert_int_equal(lim__line_state(&w->line, three), LIM__ITEM_LIMITED);
    lim__item *held = add(w, ITEM());
    lim__line_hold(&w->line, held);
    assert_ptr_equal(lim__line_why_first(&w->line, w->now_ns).item, held);
    lim__line_unhold_all(&w->line);
    assert_int_equal(lim__line_why_first(&w->line, w->now_ns).how, LIM__LINE_READY);
    assert_int_equal(lim__line_why_item(&w->line, head, w->now_ns).how, LIM__LINE_OUT);
}

static void test_lists_go_on_after_one_that_is_gone(void **state) /* proves GR14 */
{
    world *w = *state;
    lim__item *page[100];
    lim__line_key keys[10];
    for (unsigned n = 0; n < 1000; n++) {
        char name[8];
        snprintf(name, sizeof name, "%u", n % 100);
        add(w, ITEM(.key = lim__str(name)));
    }
    uint64_t after = 0, seen = 0;
    uint32_t n;
    while ((n = lim__line_items(&w->line, after, page, 100)) > 0) {
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(page[i]->id, ++seen);
        after = page[n - 1]->no;
        lim__line_remove(&w->line, page[n - 1], w->now_ns);
        lim__line_remove(&w->line, page[0], w->now_ns);
    }
    assert_int_equal(seen, 1000);
    for (after = 0, seen = 0; (n = lim__line_keys(&w->line, after, keys, 10, w->now_ns)) > 0; after = keys[n - 1].no)
        for (uint32_t i = 0; i < n; i++)
            seen += keys[i].count[LIM__ITEM_READY];
    assert_int_equal(seen, 980);
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_NONE), 980);
    assert_false(lim__line_key_get(&w->line, lim__str("nobody"), &keys[0], w->now_ns));
}

/* ---- memory ---- */

static void test_names_need_not_outlive_the_call(void **state)
{
    world *w = *state;
    char text[] = "a";
    lim__item *i = add(w, ITEM(.key = lim__str(text), .type = lim__str(text), .order_key = lim__str(text)));
    text[0] = 'z';
    assert_true(lim__bytes_eq(i->key, lim__str("a")));
    assert_true(lim__bytes_eq(i->type, lim__str("a")));
    assert_true(lim__bytes_eq(i->order_key, lim__str("a")));
}

static void test_a_failed_allocation_leaves_all_as_it_was(void **state) /* proves GR15 */
{
    world *w = *state;
    uint64_t n = 0;
    lim__line_limit one = LIMIT(.in_flight_max = 1);
    for (unsigned round = 0; round < 2; round++) { /* into an empty line, and into one with other names */
        lim__item i = { KEY("key"), TYPE("type"), ORDER("order"), .priority = 3 };
        lim_err err = LIM_E_NOMEM;
        for (n = 1; err != LIM_OK; n++) {
            fail_at(n);
            err = lim__line_add(&w->line, &i, w->now_ns);
            bool failed = fail_reached();
            assert_int_equal(err, failed ? LIM_E_NOMEM : LIM_OK);
            assert_int_equal(i.state, failed ? LIM__ITEM_NONE : LIM__ITEM_READY);
            if (failed && round == 0)
                assert_baseline(&w->line);
            lim__line_check(&w->line);
        }
        lim__line_remove(&w->line, &i, w->now_ns);
        for (n = 1, err = LIM_E_NOMEM; err != LIM_OK; n++) {
            fail_at(n);
            err = lim__line_limit_set(&w->line, lim__str("limited"), &one, w->now_ns);
            assert_int_equal(err, fail_reached() ? LIM_E_NOMEM : LIM_OK);
            lim__line_check(&w->line);
        }
        lim__line_limit_clear(&w->line, lim__str("limited"), w->now_ns);
        if (round == 0)
            add(w, ITEM(KEY("k"), TYPE("t"), ORDER("o")));
    }
}

/* An item that is in line needs no memory to stay there, go, or come back: what cannot be appended waits in a heap. */
static void test_nothing_but_add_can_fail(void **state)
{
    world *w = *state;
    add_many(w, ITEM(KEY("a"), ORDER("x")), 60);
    add_many(w, ITEM(KEY("b")), 60);
    lim__item *gone[100];
    uint32_t n = 0;
    for (unsigned round = 0; round < 300; round++) {
        fail_at(1);
        lim__item *i = out(w);
        if (round % 3 == 0 && i != NULL)
            lim__line_again(&w->line, i, w->now_ns, round % 2 == 0 ? 0 : w->now_ns + 3);
        else if (i != NULL)
            lim__line_done(&w->line, gone[n++ % 100] = i, w->now_ns);
        later(w, 1);
        fail_reached();
        lim__line_check(&w->line);
    }
    assert_int_equal(lim__line_count(&w->line, LIM__ITEM_NONE), 0);
    assert_baseline(&w->line);
}

static void test_memory_is_back_after_a_burst_of_names(void **state) /* proves GR15 */
{
    world *w = *state;
    for (unsigned n = 0; n < MANY; n++) {
        char name[16];
        snprintf(name, sizeof name, "%u", n);
        add(w, ITEM(.key = lim__str(name), .order_key = lim__str(name), .type = lim__bytes(name, n % 3)));
    }
    size_t cap = w->line.lanes.cap;
    for (unsigned n = 1; n < MANY; n++)
        lim__line_remove(&w->line, &w->items[n], w->now_ns);
    assert_true(w->line.lanes.cap < cap / 4); /* though one is still there */
    lim__line_remove(&w->line, &w->items[0], w->now_ns);
    assert_baseline(&w->line);
}

static void test_a_line_that_runs_for_long_stays_small(void **state) /* proves GR15 */
{
    world *w = *state;
    add(w, ITEM(.due_ns = w->now_ns + SECOND)); /* the first of all is still there at the end */
    add_many(w, ITEM(KEY("a")), 50);
    for (unsigned n = 0; n < 100000; n++) {
        lim__item *i = out(w);
        lim__line_done(&w->line, i, w->now_ns);
        *i = *ITEM(KEY("a"));
        assert_int_equal(lim__line_add(&w->line, i, w->now_ns), LIM_OK);
    }
    assert_in_range(w->line.items.cap, 1, 64);
    later(w, SECOND);
    drain(w);
    assert_baseline(&w->line);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_keys_it_is_first_in_first_out),
        TEST(test_nine_goes_before_zero_however_late_it_came),
        TEST(test_keys_take_turns_whoever_has_more),
        TEST(test_weights_one_and_three_give_one_and_three),
        TEST(test_weights_hold_over_types_and_priorities),
        TEST(test_an_idle_key_has_saved_nothing),
        TEST(test_a_key_that_was_limited_or_not_served_has_saved_one_task_at_most),
        TEST(test_ever_new_keys_do_not_starve_one_that_waits),
        TEST(test_only_types_that_somebody_serves_and_each_is_asked_once),
        TEST(test_a_blocked_type_is_not_given_before_the_next_pass),
        TEST(test_a_held_one_lets_others_pass_and_is_at_its_place_again),
        TEST(test_one_whose_worker_died_goes_before_those_that_never_were_out),
        TEST(test_an_order_key_goes_one_at_a_time_in_order),
        TEST(test_a_failing_head_blocks_only_its_key),
        TEST(test_wait_holds_its_order_key_until_the_head_has_gone),
        TEST(test_skip_lets_the_others_go_and_the_head_is_the_next_when_due),
        TEST(test_park_stops_its_order_key_until_somebody_unparks_it),
        TEST(test_a_parked_order_key_stands_still_for_an_older_one_too),
        TEST(test_an_order_key_may_span_fairness_keys_types_and_priorities),
        TEST(test_a_delayed_one_comes_when_it_is_due_behind_those_that_came_earlier),
        TEST(test_one_that_is_hurried_is_due_now),
        TEST(test_one_wake_moves_no_more_than_it_says),
        TEST(test_nothing_waits_without_a_reason),
        TEST(test_lists_go_on_after_one_that_is_gone),
        TEST(test_names_need_not_outlive_the_call),
        TEST(test_a_failed_allocation_leaves_all_as_it_was),
        TEST(test_nothing_but_add_can_fail),
        TEST(test_memory_is_back_after_a_burst_of_names),
        TEST(test_a_line_that_runs_for_long_stays_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
