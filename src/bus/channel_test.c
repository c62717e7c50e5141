/* SPDX-License-Identifier: Apache-2.0
 * channel_test.c - verdicts, order, windows and overflow of channels, in one thread with schedulers driven by turns. */
#include "bus/channel_world.h"

static void expect_verdict(lim_admission a, lim_verdict verdict, uint32_t matched, uint32_t delivered,
                           uint32_t deferred, uint32_t dropped)
{
    assert_int_equal(a.verdict, verdict);
    assert_int_equal(a.matched, matched);
    assert_int_equal(a.delivered, delivered);
    assert_int_equal(a.deferred, deferred);
    assert_int_equal(a.dropped, dropped);
}

static void expect_nothing_left(world *w)
{
    uint64_t channels, subscriptions, kept;
    lim__channels_count(w->all, &channels, &subscriptions, &kept);
    assert_int_equal(channels, 0);
    assert_int_equal(subscriptions, 0);
    assert_int_equal(kept, 0);
}

/* Runs `body` with the publisher near the subscription (0), on another scheduler (1), and on no scheduler. */
static void from_everywhere(void (*body)(world *w, int from))
{
    for (int from = HOST; from <= 1; from++) {
        world w;
        world_open(&w, 2);
        body(&w, from);
        world_turns(&w);
        expect_nothing_left(&w);
        world_close(&w);
    }
}

/* ---- verdicts ---- */

static void nobody_is_there(world *w, int from)
{
    expect_verdict(publish_at(w, from, "a", "x"), LIM_ACCEPT, 0, 0, 0, 0);
    publication p = publish_full(w, from, "a", "x", true);
    expect_verdict(p.out, LIM_REJECT, 0, 0, 0, 0);
    assert_int_equal(p.out.why, LIM_WHY_NO_SUBSCRIBER);
    lim__channel *ch;
    assert_int_equal(lim__channel_open(w->all, lim__str("a"), NULL, &ch), LIM_OK);
    expect_verdict(publish_at(w, from, "a", "x"), LIM_ACCEPT, 0, 0, 0, 0);
    assert_int_equal(publish_full(w, from, "a", "x", true).out.why, LIM_WHY_NO_SUBSCRIBER);
    consumer *c = consumer_open(w, 0, "a", .window = 1, .policy = LIM_DROP_NEWEST);
    assert_int_equal(publish_full(w, from, "a", "x", true).out.verdict, LIM_ACCEPT);
    world_turns(w);
    assert_string_equal(c->got, "x ");
    consumer_free(c);
    lim__channel_unref(ch);
    assert_int_equal(lim__channel_close(w->all, lim__str("a")), LIM_OK);
    assert_int_equal(lim__channel_close(w->all, lim__str("a")), LIM_E_NOTFOUND);
}

static void test_a_publish_that_nobody_wants_is_accepted_unless_mandatory(void **state) /* proves CH5 */
{
    (void)state;
    from_everywhere(nobody_is_there);
}

static void hold_fills_up(world *w, int from)
{
    consumer *c = consumer_open(w, 0, "a", .window = 2, .backlog = 1, .policy = LIM_HOLD_BACK);
    expect_verdict(publish_at(w, from, "a", "1"), LIM_ACCEPT, 1, 1, 0, 0);
    expect_verdict(publish_at(w, from, "a", "2"), LIM_ACCEPT, 1, 1, 0, 0);
    lim_admission deferred = publish_at(w, from, "a", "3");
    expect_verdict(deferred, LIM_DEFER, 1, 0, 1, 0);
    assert_int_equal(deferred.why, LIM_WHY_SUBSCRIPTION_FULL);
    assert_int_equal(deferred.limit, 2);
    assert_int_equal(deferred.current, 2);
    lim_admission rejected = publish_at(w, from, "a", "4");
    expect_verdict(rejected, LIM_REJECT, 1, 0, 0, 0);
    assert_int_equal(rejected.why, LIM_WHY_SUBSCRIPTION_FULL);
    assert_int_equal(rejected.limit, 3);
    assert_int_equal(rejected.current, 3);
    assert_true(rejected.retry_after_ms > 0);
    world_turns(w);
    assert_string_equal(c->got, "1 2 ");
    consumer_ack(c);
    assert_string_equal(c->got, "1 2 3 ");
    expect_verdict(publish_at(w, from, "a", "5"), LIM_ACCEPT, 1, 1, 0, 0);
    world_turns(w);
    consumer_ack(c);
    assert_string_equal(c->got, "1 2 3 5 ");
    assert_int_equal(atomic_load(&c->sub->places), 0); /* C3 */
    assert_int_equal(c->dropped_told, 0);
    consumer_free(c);
}

static void test_hold_defers_beyond_the_window_and_rejects_beyond_the_backlog(void **state) /* proves CH5 PR1 */
{
    (void)state;
    from_everywhere(hold_fills_up);
}

static void oldest_goes(world *w, int from)
{
    consumer *c = consumer_open(w, 0, "a", .window = 1, .backlog = 2, .policy = LIM_DROP_OLDEST);
    expect_verdict(publish_at(w, from, "a", "1"), LIM_ACCEPT, 1, 1, 0, 0);
    world_turns(w);
    expect_verdict(publish_at(w, from, "a", "2"), LIM_ACCEPT, 1, 0, 1, 0);
    expect_verdict(publish_at(w, from, "a", "3"), LIM_ACCEPT, 1, 0, 1, 0);
    expect_verdict(publish_at(w, from, "a", "4"), LIM_ACCEPT, 1, 0, 1, 1);
    expect_verdict(publish_at(w, from, "a", "5"), LIM_ACCEPT, 1, 0, 1, 1);
    world_turns(w);
    assert_int_equal(c->dropped_told, 1);
    assert_int_equal(consumer_info(c).dropped, 2);
    assert_int_equal(consumer_info(c).backlog, 2);
    for (int i = 0; i < 3; i++)
        consumer_ack(c);
    assert_string_equal(c->got, "1 4 5 ");
    consumer_free(c);
}

static void newest_goes(world *w, int from)
{
    consumer *c = consumer_open(w, 0, "a", .window = 1, .backlog = 1, .policy = LIM_DROP_NEWEST);
    expect_verdict(publish_at(w, from, "a", "1"), LIM_ACCEPT, 1, 1, 0, 0);
    world_turns(w);
    expect_verdict(publish_at(w, from, "a", "2"), LIM_ACCEPT, 1, 0, 1, 0);
    expect_verdict(publish_at(w, from, "a", "3"), LIM_ACCEPT, 1, 0, 0, 1);
    world_turns(w);
    assert_int_equal(c->dropped_told, 1);
    consumer_ack(c);
    consumer_ack(c);
    assert_string_equal(c->got, "1 2 ");
    expect_verdict(publish_at(w, from, "a", "4"), LIM_ACCEPT, 1, 1, 0, 0);
    world_turns(w);
    assert_string_equal(c->got, "1 2 4 ");
    consumer_free(c);
}

static void without_backlog(world *w, int from)
{
    consumer *c = consumer_open(w, 0, "a", .window = 1, .policy = LIM_DROP_OLDEST);
    for (uint32_t i = 1; i <= 3; i++) {
        expect_verdict(publish_at(w, from, "a", "x"), LIM_ACCEPT, 1, 1, 0, 0);
        world_turns(w);
        expect_verdict(publish_at(w, from, "a", "y"), LIM_ACCEPT, 1, 0, 0, 1);
        expect_verdict(publish_at(w, from, "a", "y"), LIM_ACCEPT, 1, 0, 0, 1);
        world_turns(w);
        assert_int_equal(c->dropped_total, i * 2 - 1 + (from == 0 ? 0 : 1)); /* told at once, or with the next bell */
        assert_int_equal(c->dropped_told, i);
        consumer_ack(c);
    }
    assert_string_equal(c->got, "x x x ");
    consumer_free(c);
}

static void test_drops_are_counted_and_never_change_the_verdict(void **state) /* proves CH5 CH7 */
{
    (void)state;
    from_everywhere(oldest_goes);
    from_everywhere(newest_goes);
    from_everywhere(without_backlog);
}

static void too_slow_ends(world *w, int from)
{
    consumer *c = consumer_open(w, 0, "a", .window = 1, .backlog = 1, .policy = LIM_CLOSE_SUB);
    consumer *d = consumer_open(w, 0, "a", .window = 9, .policy = LIM_DROP_NEWEST);
    expect_verdict(publish_at(w, from, "a", "1"), LIM_ACCEPT, 2, 2, 0, 0);
    world_turns(w);
    expect_verdict(publish_at(w, from, "a", "2"), LIM_ACCEPT, 2, 1, 1, 0);
    assert_int_equal(c->ended_told, 0);
    expect_verdict(publish_at(w, from, "a", "3"), LIM_ACCEPT, 2, 1, 0, 2);
    if (from != 0)
        assert_int_equal(c->ended_told, 0); /* in its own turn */
    expect_verdict(publish_at(w, from, "a", "4"), LIM_ACCEPT, 1, 1, 0, 0);
    world_turns(w);
    assert_int_equal(c->ended_told, 1);
    assert_int_equal(c->ended, LIM_E_FULL);
    assert_int_equal(consumer_info(c).dropped, 2);
    consumer_ack(c);
    world_turns(w);
    assert_string_equal(c->got, "1 ");
    assert_string_equal(d->got, "1 2 3 4 ");
    assert_int_equal(c->ended_told, 1);
    consumer_free(c);
    consumer_free(d);
}

static void test_policy_close_ends_the_subscription_and_tells_it(void **state) /* proves CH7 */
{
    (void)state;
    from_everywhere(too_slow_ends);
}

static void one_is_full(world *w, int from)
{
    consumer *roomy = consumer_open(w, 0, "a", .window = 5, .policy = LIM_HOLD_BACK);
    consumer *full = consumer_open(w, 1, "a", .window = 1, .backlog = 1, .policy = LIM_HOLD_BACK);
    consumer *other = consumer_open(w, 0, "a", .window = 5, .policy = LIM_DROP_OLDEST);
    expect_verdict(publish_at(w, from, "a", "1"), LIM_ACCEPT, 3, 3, 0, 0);
    world_turns(w);
    expect_verdict(publish_at(w, from, "a", "2"), LIM_DEFER, 3, 2, 1, 0);
    for (int i = 0; i < 10; i++)
        expect_verdict(publish_at(w, from, "a", "no"), LIM_REJECT, 3, 0, 0, 0);
    world_turns(w);
    assert_string_equal(roomy->got, "1 2 ");
    assert_string_equal(other->got, "1 2 ");
    assert_int_equal(atomic_load(&roomy->sub->places), 2);
    assert_int_equal(atomic_load(&full->sub->places), 2);
    consumer_ack(full);
    expect_verdict(publish_at(w, from, "a", "3"), LIM_DEFER, 3, 2, 1, 0);
    world_turns(w);
    consumer_ack(full);
    consumer_ack(full);
    assert_string_equal(full->got, "1 2 3 ");
    consumer_free(roomy);
    consumer_free(full);
    consumer_free(other);
}

static void test_a_reject_gives_the_places_back_and_nobody_got_the_message(void **state) /* proves CH5 */
{
    (void)state;
    from_everywhere(one_is_full);
}

static void not_ready(world *w, int from)
{
    consumer *c = consumer_open(w, 0, "a", .window = 9, .policy = LIM_HOLD_BACK);
    c->busy = true;
    lim_admission a = publish_at(w, from, "a", "1"); /* far away nobody knows that it is not ready */
    expect_verdict(a, from == 0 ? LIM_DEFER : LIM_ACCEPT, 1, from != 0, from == 0, 0);
    publish_at(w, from, "a", "2");
    world_turns(w);
    assert_string_equal(c->got, "");
    assert_int_equal(consumer_info(c).backlog, 2);
    c->busy = false;
    publish_at(w, from, "a", "3"); /* must not pass those that wait */
    consumer_resume(c);
    world_turns(w);
    assert_string_equal(c->got, "1 2 3 ");
    consumer_free(c);
}

static void test_what_the_owner_cannot_take_now_waits_in_order(void **state) /* proves CH4 */
{
    (void)state;
    from_everywhere(not_ready);
}

static void slow_and_fast(world *w, int from)
{
    consumer *slow = consumer_open(w, 0, "a", .window = 1, .backlog = 3, .policy = LIM_DROP_OLDEST);
    consumer *fast = consumer_open(w, 1, "a", .window = 1000, .policy = LIM_HOLD_BACK);
    for (int i = 0; i < 500; i++)
        assert_int_equal(publish_at(w, from, "a", "m").verdict, LIM_ACCEPT);
    world_turns(w);
    assert_int_equal(fast->seq, 500);
    assert_true(slow->seq <= 4);
    assert_int_equal(consumer_info(slow).dropped, 496);
    consumer_free(slow);
    consumer_free(fast);
}

static void test_a_slow_subscriber_slows_neither_publisher_nor_others(void **state) /* proves CH8 */
{
    (void)state;
    from_everywhere(slow_and_fast);
}

static void refuse(world *w, const char *pattern, lim__sub_config config, lim_err err)
{
    consumer *c = consumer_try(w, 0, pattern, config);
    assert_int_equal(c->opened, err);
    consumer_free(c);
}

static void test_what_cannot_be_is_refused_at_once(void **state)
{
    (void)state;
    world w;
    world_open(&w, 1);
    lim__sub_config good = { .window = 1, .policy = LIM_DROP_OLDEST }, hold = { .window = 1, .policy = LIM_HOLD_BACK };
    refuse(&w, "a..b", good, LIM_E_INVALID);
    refuse(&w, "a", (lim__sub_config){ .window = 0, .policy = LIM_DROP_OLDEST }, LIM_E_MISUSE);
    refuse(&w, "a", (lim__sub_config){ .window = 1 }, LIM_E_MISUSE);
    refuse(&w, "a", (lim__sub_config){ .window = 1, .backlog = LIM_UNLIMITED, .policy = LIM_DROP_OLDEST },
           LIM_E_TOOBIG);
    refuse(&w, "a.*", hold, LIM_E_MISUSE);
    lim__channel *ch, *again, *bad = NULL;
    lim_channel_opts no = { .size = sizeof no, .allow_hold = false };
    assert_int_equal(lim__channel_open(w.all, lim__str("quick"), &no, &ch), LIM_OK);
    assert_int_equal(lim__channel_open(w.all, lim__str("quick"), NULL, &again), LIM_OK);
    assert_ptr_equal(ch, again);
    assert_int_equal(lim__channel_open(w.all, lim__str("a.*"), NULL, &bad), LIM_E_INVALID);
    assert_null(bad);
    refuse(&w, "quick", hold, LIM_E_MISUSE);
    lim__channels_limit(w.all, 2, 2, false);
    refuse(&w, "other", hold, LIM_E_MISUSE);
    consumer *c = consumer_open(&w, 0, "b", .window = 1, .policy = LIM_DROP_OLDEST);
    refuse(&w, "c", good, LIM_E_FULL);
    consumer *d = consumer_open(&w, 0, "b", .window = 1, .policy = LIM_DROP_OLDEST);
    refuse(&w, "b", good, LIM_E_FULL);
    assert_int_equal(lim__channel_open(w.all, lim__str("c"), NULL, &bad), LIM_E_FULL);
    consumer_free(c);
    consumer_free(d);
    lim__channel_unref(ch);
    lim__channel_unref(again);
    assert_int_equal(lim__channel_close(w.all, lim__str("quick")), LIM_OK);
    expect_nothing_left(&w);
    world_close(&w);
}

static void test_a_channel_of_subscriptions_goes_with_the_last(void **state)
{
    (void)state;
    world w;
    uint64_t channels, subscriptions, kept;
    world_open(&w, 2);
    consumer *c = consumer_open(&w, 0, "a", .window = 1, .policy = LIM_DROP_OLDEST);
    consumer *d = consumer_open(&w, 1, "a", .window = 1, .policy = LIM_DROP_OLDEST);
    consumer_free(c);
    lim__channels_count(w.all, &channels, &subscriptions, &kept);
    assert_int_equal(channels, 1);
    assert_int_equal(subscriptions, 1);
    consumer_free(d);
    expect_nothing_left(&w);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_publish_that_nobody_wants_is_accepted_unless_mandatory),
        cmocka_unit_test(test_hold_defers_beyond_the_window_and_rejects_beyond_the_backlog),
        cmocka_unit_test(test_drops_are_counted_and_never_change_the_verdict),
        cmocka_unit_test(test_policy_close_ends_the_subscription_and_tells_it),
        cmocka_unit_test(test_a_reject_gives_the_places_back_and_nobody_got_the_message),
        cmocka_unit_test(test_what_the_owner_cannot_take_now_waits_in_order),
        cmocka_unit_test(test_a_slow_subscriber_slows_neither_publisher_nor_others),
        cmocka_unit_test(test_what_cannot_be_is_refused_at_once),
        cmocka_unit_test(test_a_channel_of_subscriptions_goes_with_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
