/* SPDX-License-Identifier: Apache-2.0
 * channel_order_test.c - who is in which table when, what is read in which order, and what closing leaves readable. */
#include "base/rng.h"
#include "bus/channel_world.h"

void lim__alloc_fail_at(uint64_t n); /* the runtime's: the n-th block from now is refused, once */

static void expect_nothing_left(world *w)
{
    uint64_t channels, subscriptions, kept;
    lim__channels_count(w->all, &channels, &subscriptions, &kept);
    assert_int_equal(channels, 0);
    assert_int_equal(subscriptions, 0);
    assert_int_equal(kept, 0);
}

#define ROOMY .window = 1000, .policy = LIM_DROP_NEWEST

/* ---- names, patterns, entries ---- */

static void test_patterns_reach_channels_of_before_and_after(void **state) /* proves CH1 CH13 */
{
    (void)state;
    world w;
    world_open(&w, 2);
    consumer *exact = consumer_open(&w, 0, "orders.eu", ROOMY);
    consumer *star = consumer_open(&w, 1, "orders.*", ROOMY);
    consumer *rest = consumer_open(&w, 0, "orders.>", ROOMY);
    assert_int_equal(publish_at(&w, 0, "orders.eu", "1").matched, 3);
    assert_int_equal(publish_at(&w, HOST, "orders.us", "2").matched, 2);
    assert_int_equal(publish_at(&w, 1, "orders.us.ny", "3").matched, 1);
    assert_int_equal(publish_at(&w, 1, "orders", "4").matched, 0);
    world_turns(&w);
    lim__channels_check(w.all);
    assert_string_equal(exact->got, "1 ");
    assert_string_equal(star->got, "1 2 ");
    assert_string_equal(rest->got, "1 2 3 ");
    assert_string_equal(rest->from, "orders.us.ny");
    assert_string_equal(star->from, "orders.us");
    consumer_free(rest);
    assert_int_equal(publish_at(&w, 0, "orders.eu", "5").matched, 2);
    consumer_free(star);
    assert_int_equal(publish_at(&w, 0, "orders.eu", "6").matched, 1);
    consumer_free(exact);
    expect_nothing_left(&w);
    world_close(&w);
}

static void test_a_message_kept_for_a_pattern_remembers_its_channel(void **state)
{
    (void)state;
    world w;
    world_open(&w, 1);
    consumer *c = consumer_open(&w, 0, ">", .window = 1, .backlog = 9, .policy = LIM_DROP_NEWEST);
    publish_at(&w, 0, "a", "1");
    publish_at(&w, 0, "b.c", "2"); /* whose entry is gone when it is delivered */
    assert_string_equal(c->from, "a");
    consumer_ack(c);
    assert_string_equal(c->from, "b.c");
    consumer_free(c);
    expect_nothing_left(&w);
    world_close(&w);
}

static void test_a_publisher_finds_later_subscriptions_through_what_it_holds(void **state) /* proves CH13 */
{
    (void)state;
    world w;
    world_open(&w, 2);
    consumer *first = consumer_open(&w, 0, "a", ROOMY);
    publication p = { .w = &w, .text = "x", .ch = lim__channel_find(w.all, lim__str("a")) };
    assert_non_null(p.ch);
    consumer_free(first);
    world_run(&w, w.actors[1], publication_run, &p);
    assert_int_equal(p.out.matched, 0);
    consumer *later = consumer_open(&w, 0, "a", ROOMY);
    consumer *star = consumer_open(&w, 1, "*", ROOMY);
    world_run(&w, w.actors[1], publication_run, &p);
    assert_int_equal(p.out.matched, 2);
    world_turns(&w);
    assert_string_equal(later->got, "x ");
    assert_string_equal(star->got, "x ");
    consumer_free(later);
    consumer_free(star);
    lim__channel_unref(p.ch);
    expect_nothing_left(&w);
    world_close(&w);
}

static void test_the_epoch_tells_that_nobody_may_have_become_somebody(void **state) /* proves CH13 */
{
    (void)state;
    world w;
    world_open(&w, 1);
    uint64_t before = lim__channels_epoch(w.all);
    assert_null(lim__channel_find(w.all, lim__str("a")));
    assert_null(lim__channel_find(w.all, lim__str("a..b")));
    assert_int_equal(lim__channels_epoch(w.all), before);
    consumer *c = consumer_open(&w, 0, "a", ROOMY);
    uint64_t exact = lim__channels_epoch(w.all);
    assert_int_not_equal(exact, before);
    consumer *star = consumer_open(&w, 0, "b.*", ROOMY);
    assert_int_not_equal(lim__channels_epoch(w.all), exact);
    consumer_free(c);
    consumer_free(star);
    world_close(&w);
}

static void test_subscribe_answered_means_every_scheduler_publishes_to_it(void **state) /* proves CH13 */
{
    (void)state;
    world w;
    world_open(&w, 2);
    consumer *crowd[40];
    for (uint32_t i = 0; i < LIM_COUNT(crowd); i++) { /* tables grow under the publishers */
        crowd[i] = consumer_open(&w, i % 2, i % 5 ? "a" : "*", ROOMY);
        for (int from = HOST; from <= 1; from++)
            assert_int_equal(publish_at(&w, from, "a", "x").matched, i + 1);
        lim__channels_check(w.all);
    }
    for (uint32_t i = 0; i < LIM_COUNT(crowd); i++) { /* and get holes, and shrink */
        uint32_t left = (uint32_t)LIM_COUNT(crowd) - i - 1, victim = i * 7 % LIM_COUNT(crowd);
        consumer_close(crowd[victim]);
        world_turns(&w);
        size_t had = strlen(crowd[victim]->got);
        for (int from = HOST; from <= 1; from++)
            assert_int_equal(publish_at(&w, from, "a", "y").matched, left);
        world_turns(&w);
        lim__channels_check(w.all);
        assert_int_equal(strlen(crowd[victim]->got), had);
    }
    for (uint32_t i = 0; i < LIM_COUNT(crowd); i++)
        consumer_free(crowd[i]);
    expect_nothing_left(&w);
    world_close(&w);
}

static void test_after_close_nothing_is_delivered_that_was_on_its_way(void **state) /* proves CH13 */
{
    (void)state;
    world w;
    world_open(&w, 2);
    consumer *c = consumer_open(&w, 0, "a", .window = 2, .backlog = 9, .policy = LIM_DROP_NEWEST);
    publish_at(&w, 0, "a", "1");
    for (int i = 0; i < 5; i++)
        publish_at(&w, 1, "a", "no"); /* a bell is on its way from scheduler 1 */
    consumer_do_close(NULL, c);
    world_turns(&w);
    assert_string_equal(c->got, "1 ");
    consumer_free(c);
    expect_nothing_left(&w);
    world_close(&w);
}

/* ---- closing channels ---- */

static void test_a_closed_channel_leaves_its_buffered_messages_readable(void **state) /* proves CH10 */
{
    (void)state;
    world w;
    world_open(&w, 2);
    consumer *c = consumer_open(&w, 0, "a", .window = 1, .backlog = 9, .policy = LIM_DROP_NEWEST);
    consumer *idle = consumer_open(&w, 1, "a", ROOMY);
    consumer *star = consumer_open(&w, 1, "*", ROOMY);
    idle->close_on_end = true;
    publication p = { .w = &w, .text = "no", .ch = lim__channel_find(w.all, lim__str("a")) };
    for (int i = 0; i < 3; i++)
        publish_at(&w, 1, "a", "m");
    world_turns(&w);
    assert_int_equal(lim__channel_close(w.all, lim__str("a")), LIM_OK);
    world_run(&w, w.actors[0], publication_run, &p);
    assert_int_equal(p.err, LIM_E_CLOSED);
    world_turns(&w);
    assert_int_equal(idle->ended_told, 1);
    assert_int_equal(idle->ended, LIM_E_CLOSED);
    assert_int_equal(c->ended_told, 0);
    for (int i = 0; i < 2; i++)
        consumer_ack(c);
    world_turns(&w);
    assert_string_equal(c->got, "m m m ");
    assert_int_equal(c->ended_told, 1);
    assert_int_equal(c->ended, LIM_E_CLOSED);

    consumer *again = consumer_open(&w, 0, "a", ROOMY); /* another channel of that name */
    assert_int_equal(publish_at(&w, 0, "a", "n").matched, 2);
    world_turns(&w);
    lim__channels_check(w.all);
    assert_string_equal(c->got, "m m m ");
    assert_string_equal(again->got, "n ");
    assert_string_equal(star->got, "m m m n ");
    assert_int_equal(star->ended_told, 0);
    lim__channel_unref(p.ch);
    consumer_free(c);
    consumer_free(idle);
    consumer_free(star);
    consumer_free(again);
    expect_nothing_left(&w);
    world_close(&w);
}

/* ---- order ---- */

typedef struct hub { /* publishers that number their messages, consumers that check the numbers */
    lim__rng rng;
    uint32_t sent[3], kept[3];
} hub;

static void hub_publish(world *w, hub *h, int from, const char *name)
{
    char text[16];
    snprintf(text, sizeof text, "%c%u", "hab"[from + 1], (unsigned)h -> sent[from + 1]);
    if (publish_at(w, from, name, text).verdict != LIM_REJECT)
        h->kept[from + 1]++, h->sent[from + 1]++;
}

/* Each publisher's numbers ascend in `got`; without drops they are complete. */
static void hub_check(const consumer *c, const hub *h, bool complete)
{
    uint32_t next[3] = { 0 };
    for (const char *at = c->got; *at; at = strchr(at, ' ') + 1) {
        uint32_t who = *at == 'h' ? 0 : *at == 'a' ? 1 : 2, number = (uint32_t)strtoul(at + 1, NULL, 10);
        assert_true(complete ? number == next[who] : number >= next[who]);
        next[who] = number + 1;
    }
    for (uint32_t i = 0; i < 3 && complete; i++)
        assert_int_equal(next[i], h->kept[i]);
}

static void hub_disturb(world *w, hub *h, consumer *c)
{
    switch (lim__rng_below(&h->rng, 5)) {
    case 0:
        c->busy = true;
        break;
    case 1:
        consumer_resume(c);
        break;
    case 2:
    case 3:
        consumer_ack(c);
        break;
    default:
        lim__sched_turn(lim__sched_at(w->rt, (uint32_t)lim__rng_below(&h->rng, w->count)), 0);
    }
    lim__sub_check(c->sub);
}

static void order_of(uint64_t seed, lim_policy policy, const char *pattern)
{
    world w;
    world_open(&w, 2);
    hub h = { .rng = lim__rng_seeded(seed) };
    uint32_t window = (uint32_t)lim__rng_range(&h.rng, 1, 5), backlog = (uint32_t)lim__rng_below(&h.rng, 6);
    consumer *c[2];
    for (uint32_t i = 0; i < 2; i++)
        c[i] = consumer_open(&w, i, pattern, .window = window, .backlog = backlog, .policy = policy);
    for (int i = 0; i < 400; i++) {
        if (lim__rng_chance(&h.rng, 600))
            hub_publish(&w, &h, (int)lim__rng_below(&h.rng, 3) - 1, "a");
        else
            hub_disturb(&w, &h, c[lim__rng_below(&h.rng, 2)]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        world_turns(&w);
        consumer_resume(c[i]);
        while (consumer_info(c[i]).in_flight > 0)
            consumer_ack(c[i]);
        hub_check(c[i], &h, policy == LIM_HOLD_BACK);
        assert_int_equal(consumer_info(c[i]).backlog, 0);
        assert_int_equal(atomic_load(&c[i]->sub->places), 0); /* C3 */
        assert_int_equal(consumer_info(c[i]).delivered + consumer_info(c[i]).dropped,
                         h.sent[0] + h.sent[1] + h.sent[2]);
    }
    consumer_free(c[0]);
    consumer_free(c[1]);
    expect_nothing_left(&w);
    world_close(&w);
}

static void test_each_publisher_is_read_in_its_order_whatever_happens(void **state) /* proves CH4 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        order_of(seed, LIM_HOLD_BACK, "a");
        order_of(seed, LIM_DROP_OLDEST, "a");
        order_of(seed, LIM_DROP_NEWEST, "*");
        order_of(seed, LIM_DROP_OLDEST, ">");
    }
}

/* ---- memory ---- */

static void test_a_bell_without_memory_is_made_up_for_by_the_next(void **state)
{
    (void)state;
    world w;
    world_open(&w, 2);
    consumer *c = consumer_open(&w, 0, "a", .window = 9, .policy = LIM_HOLD_BACK);
    lim__channel *ch = lim__channel_find(w.all, lim__str("a"));
    publication p = { .w = &w, .text = "1", .ch = ch };
    lim__alloc_fail_at(1); /* the letter of the bell: the only block that a publish takes from the pool */
    publication_run(NULL, &p);
    lim__alloc_fail_at(0);
    assert_int_equal(p.out.verdict, LIM_ACCEPT);
    world_turns(&w);
    assert_string_equal(c->got, "");
    assert_int_equal(publish_at(&w, HOST, "a", "2").verdict, LIM_ACCEPT);
    world_turns(&w);
    assert_string_equal(c->got, "1 2 ");
    lim__channel_unref(ch);
    consumer_free(c);
    expect_nothing_left(&w);
    world_close(&w);
}

/* ---- lists ---- */

static void test_lists_show_channels_by_name_with_their_numbers(void **state)
{
    (void)state;
    world w;
    world_open(&w, 2);
    lim__buf buf = { 0 };
    lim__json j = lim__json_begin(&buf);
    consumer *b = consumer_open(&w, 1, "b", .window = 1, .backlog = 2, .policy = LIM_DROP_OLDEST);
    consumer *star = consumer_open(&w, 0, "*", ROOMY);
    lim__channel *a;
    assert_int_equal(lim__channel_open(w.all, lim__str("a"), NULL, &a), LIM_OK);
    for (int from = HOST; from <= 1; from++)
        publish_at(&w, from, "b", "x");
    world_turns(&w);
    lim__channels_json(w.all, &j);
    lim__buf_add(&buf, "", 1);
    assert_string_equal(
        (char *)buf.ptr,
        "[{\"name\":\"a\",\"opened\":true,\"allow_hold\":true,\"durable\":false,\"subscriptions\":1,\"published\":0,"
        "\"matched\":0,\"delivered\":0,\"deferred\":0,\"dropped\":0,\"rejected\":0},"
        "{\"name\":\"b\",\"opened\":false,\"allow_hold\":true,\"durable\":false,\"subscriptions\":2,\"published\":3,"
        "\"matched\":6,\"delivered\":4,\"deferred\":2,\"dropped\":0,\"rejected\":0}]");
    buf.end = 0;
    j = lim__json_begin(&buf);
    assert_false(lim__channel_json(w.all, lim__str("c"), &j));
    assert_true(lim__channel_json(w.all, lim__str("b"), &j));
    lim__buf_add(&buf, "", 1);
    assert_non_null(strstr((char *)buf.ptr,
                           "\"subscribers\":[{\"id\":1,\"pattern\":\"b\",\"owner\":\"consumer\",\"scheduler\":1,"
                           "\"policy\":\"drop_oldest\",\"state\":\"open\",\"in_flight\":1,\"window\":1,\"backlog\":2,"
                           "\"backlog_max\":2,\"delivered\":1,\"dropped\":0},{\"id\":2,"));
    lim__buf_fini(&buf);
    lim__channel_unref(a);
    consumer_free(b);
    consumer_free(star);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns_reach_channels_of_before_and_after),
        cmocka_unit_test(test_a_message_kept_for_a_pattern_remembers_its_channel),
        cmocka_unit_test(test_a_publisher_finds_later_subscriptions_through_what_it_holds),
        cmocka_unit_test(test_the_epoch_tells_that_nobody_may_have_become_somebody),
        cmocka_unit_test(test_subscribe_answered_means_every_scheduler_publishes_to_it),
        cmocka_unit_test(test_after_close_nothing_is_delivered_that_was_on_its_way),
        cmocka_unit_test(test_a_closed_channel_leaves_its_buffered_messages_readable),
        cmocka_unit_test(test_each_publisher_is_read_in_its_order_whatever_happens),
        cmocka_unit_test(test_a_bell_without_memory_is_made_up_for_by_the_next),
        cmocka_unit_test(test_lists_show_channels_by_name_with_their_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
