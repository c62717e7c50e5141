/* SPDX-License-Identifier: Apache-2.0
 * channel_api_test.c - channels as the embedder sees them, in one thread. */
#include "bus/bus.h"
#include "bus/channel_world.h"

typedef struct fan { /* an embedder's subscriber */
    lim_sub sub;
    lim_done answer;
    char got[512];
    char channel[64];
    uint64_t seq;
    uint32_t ends;
    lim_bus *bus;
    lim_channel republish; /* publishes there from inside on_message */
    bool leave;            /* unsubscribes from inside on_message */
} fan;

static lim_done fan_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    fan *f = ctx;
    lim_admission adm;
    assert_int_equal(f->ends, 0);
    assert_int_equal(d->seq, f->seq + 1);
    assert_true(d->remaining_ms == LIM_FOREVER && d->msg != NULL);
    f->seq = d->seq;
    size_t len = strlen(f->got);
    snprintf(f->got + len, sizeof f->got - len, "%.*s ", (int)d->payload.len, (const char *)d->payload.ptr);
    snprintf(f->channel, sizeof f->channel, "%.*s", (int)d->channel.len, (const char *)d->channel.ptr);
    if (f->republish.id)
        assert_int_equal(lim_publish(bus, f->republish, d->payload, NULL, &adm), LIM_OK);
    if (f->leave)
        assert_int_equal(lim_unsubscribe(bus, f->sub), LIM_OK);
    return f->answer;
}

static void fan_end(void *ctx)
{
    ((fan *)ctx)->ends++;
}

typedef struct house { /* a bus that is nothing but its channels */
    world w;
    lim_bus bus;
} house;

static void house_open(house *h, uint32_t schedulers)
{
    *h = (house){ 0 };
    world_open(&h->w, schedulers);
    h->bus.rt = h->w.rt;
    h->bus.channels = h->w.all;
    h->bus.opts.payload_bytes_max = 1000;
}

static void house_close(house *h)
{
    uint64_t channels, subscriptions, kept;
    world_turns(&h->w);
    lim__channels_count(h->w.all, &channels, &subscriptions, &kept);
    assert_int_equal(channels + subscriptions + kept, 0);
    world_close(&h->w);
}

static lim_channel open_channel(house *h, const char *name)
{
    lim_channel ch;
    assert_int_equal(lim_channel_open(&h->bus, name, NULL, &ch), LIM_OK);
    return ch;
}

static void subscribe(house *h, fan *f, const char *pattern, uint32_t window, uint32_t backlog, lim_policy policy)
{
    lim_sub_opts opts = {
        .size = sizeof opts,
        .window = window,
        .backlog = backlog,
        .policy = policy,
        .handler = { fan_message, fan_end, f },
    };
    f->answer = f->answer ? f->answer : LIM_DONE;
    assert_int_equal(lim_subscribe(&h->bus, pattern, &opts, &f->sub), LIM_OK);
}

static lim_admission publish(house *h, lim_channel ch, const char *text)
{
    lim_admission adm;
    assert_int_equal(lim_publish(&h->bus, ch, lim__str(text), NULL, &adm), LIM_OK);
    return adm;
}

static void test_what_was_subscribed_before_gets_what_is_published_after(void **state) /* proves CH13 */
{
    (void)state;
    house h;
    house_open(&h, 2);
    lim_channel a = open_channel(&h, "a"), b = open_channel(&h, "b");
    fan all = { 0 }, one = { 0 };
    subscribe(&h, &all, "*", 0, 0, 0);
    subscribe(&h, &one, "a", 0, 0, LIM_HOLD_BACK);
    assert_int_equal(publish(&h, a, "1").matched, 2); /* neither process has ever run */
    assert_int_equal(publish(&h, b, "2").matched, 1);
    world_turns(&h.w);
    assert_string_equal(all.got, "1 2 ");
    assert_string_equal(all.channel, "b");
    assert_string_equal(one.got, "1 ");
    lim_sub_info info;
    assert_int_equal(lim_sub_inspect(&h.bus, all.sub, &info), LIM_OK);
    assert_int_equal(info.delivered, 2);
    assert_int_equal(info.in_flight, 0);
    assert_int_equal(info.window, 1024);
    assert_int_equal(info.backlog_max, 65536);
    assert_int_equal(lim_unsubscribe(&h.bus, all.sub), LIM_OK);
    assert_int_equal(lim_channel_close(&h.bus, a), LIM_OK);
    assert_int_equal(lim_channel_close(&h.bus, b), LIM_OK);
    world_turns(&h.w);
    assert_int_equal(all.ends, 1);
    assert_int_equal(one.ends, 1);
    house_close(&h);
}

static void test_after_unsubscribe_nothing_is_delivered_and_on_end_runs_once(void **state) /* proves CH13 */
{
    (void)state;
    house h;
    house_open(&h, 2);
    lim_channel a = open_channel(&h, "a");
    fan f = { 0 }, inside = { .leave = true };
    lim_sub_info info;
    subscribe(&h, &f, "a", 0, 0, 0);
    subscribe(&h, &inside, "a", 0, 0, 0);
    for (int i = 0; i < 5; i++)
        publish(&h, a, "x");
    assert_int_equal(lim_unsubscribe(&h.bus, f.sub), LIM_OK);
    assert_int_equal(lim_unsubscribe(&h.bus, f.sub), LIM_E_GONE);
    assert_int_equal(lim_complete(&h.bus, f.sub, 1), LIM_E_GONE);
    assert_int_equal(lim_sub_inspect(&h.bus, f.sub, &info), LIM_E_GONE);
    assert_int_equal(publish(&h, a, "x").matched, 1);
    world_turns(&h.w);
    assert_string_equal(f.got, "");
    assert_int_equal(f.ends, 1);
    assert_string_equal(inside.got, "x ");
    assert_int_equal(inside.ends, 1);
    fan next = { 0 }; /* the same place, another id */
    subscribe(&h, &next, "a", 0, 0, 0);
    assert_int_equal(lim_unsubscribe(&h.bus, f.sub), LIM_E_GONE);
    assert_int_equal(lim_unsubscribe(&h.bus, next.sub), LIM_OK);
    assert_int_equal(lim_channel_close(&h.bus, a), LIM_OK);
    house_close(&h);
}

static void test_held_messages_keep_the_window_until_completed(void **state) /* proves CH7 PR3 */
{
    (void)state;
    house h;
    house_open(&h, 1);
    lim_channel a = open_channel(&h, "a");
    fan f = { .answer = LIM_HOLD };
    lim_sub_info info;
    subscribe(&h, &f, "a", 2, 2, LIM_HOLD_BACK);
    assert_int_equal(publish(&h, a, "1").verdict, LIM_ACCEPT);
    assert_int_equal(publish(&h, a, "2").verdict, LIM_ACCEPT);
    world_turns(&h.w);
    assert_int_equal(publish(&h, a, "3").verdict, LIM_DEFER);
    assert_int_equal(publish(&h, a, "4").verdict, LIM_DEFER);
    assert_int_equal(publish(&h, a, "5").verdict, LIM_REJECT);
    world_turns(&h.w);
    assert_string_equal(f.got, "1 2 ");
    assert_int_equal(lim_complete(&h.bus, f.sub, 0), LIM_E_INVALID);
    assert_int_equal(lim_complete(&h.bus, f.sub, 3), LIM_E_INVALID);
    assert_int_equal(lim_complete(&h.bus, f.sub, 1), LIM_OK);
    world_turns(&h.w);
    assert_string_equal(f.got, "1 2 3 ");
    f.answer = LIM_DONE; /* done at once, while 2 and 3 are still held */
    assert_int_equal(lim_complete(&h.bus, f.sub, 2), LIM_OK);
    assert_int_equal(lim_complete(&h.bus, f.sub, 1), LIM_OK);
    world_turns(&h.w);
    assert_string_equal(f.got, "1 2 3 4 ");
    assert_int_equal(lim_sub_inspect(&h.bus, f.sub, &info), LIM_OK);
    assert_int_equal(info.in_flight, 1);
    for (int i = 0; i < 40; i++) {
        f.answer = i % 3 ? LIM_DONE : LIM_HOLD;
        publish(&h, a, "x");
        world_turns(&h.w);
        assert_int_equal(lim_complete(&h.bus, f.sub, f.seq), LIM_OK);
    }
    world_turns(&h.w);
    assert_int_equal(lim_sub_inspect(&h.bus, f.sub, &info), LIM_OK);
    assert_int_equal(info.in_flight, 0);
    assert_int_equal(info.delivered, 44);
    assert_int_equal(lim_channel_close(&h.bus, a), LIM_OK);
    world_turns(&h.w);
    assert_int_equal(f.ends, 1);
    house_close(&h);
}

static void test_a_handler_may_publish_and_order_is_kept(void **state) /* proves CH4 */
{
    (void)state;
    house h;
    house_open(&h, 2);
    lim_channel a = open_channel(&h, "a"), b = open_channel(&h, "b");
    fan relay = { .republish = b }, end = { 0 }, self = { 0 };
    subscribe(&h, &relay, "a", 0, 0, 0);
    subscribe(&h, &end, "b", 0, 0, 0);
    consumer *near = consumer_open(&h.w, 0, "b", .window = 999, .policy = LIM_DROP_OLDEST);
    consumer *far = consumer_open(&h.w, 1, "b", .window = 999, .policy = LIM_DROP_OLDEST);
    publish(&h, a, "1");
    publish(&h, a, "2");
    world_turns(&h.w);
    publish(&h, a, "3");
    publish(&h, b, "x");
    world_turns(&h.w);
    assert_string_equal(relay.got, "1 2 3 ");
    assert_string_equal(end.got, "1 2 x 3 ");
    assert_string_equal(near->got, "1 2 x 3 ");
    assert_string_equal(far->got, "1 2 x 3 ");
    self.republish = open_channel(&h, "self"); /* its own channel: goes on until it leaves */
    subscribe(&h, &self, "self", 0, 0, 0);
    publish(&h, self.republish, "o");
    for (int i = 0; i < 5; i++)
        for (uint32_t s = 0; s < 2; s++)
            lim__sched_turn(lim__sched_at(h.w.rt, s), 0);
    assert_true(self.seq > 1);
    assert_int_equal(lim_channel_close(&h.bus, self.republish), LIM_OK);
    self.republish = a;
    world_turns(&h.w);
    assert_int_equal(self.ends, 1);
    consumer_free(near);
    consumer_free(far);
    assert_int_equal(lim_channel_close(&h.bus, a), LIM_OK);
    assert_int_equal(lim_channel_close(&h.bus, b), LIM_OK);
    house_close(&h);
}

static void test_a_closed_channel_is_gone_but_its_buffered_messages_come(void **state) /* proves CH10 */
{
    (void)state;
    house h;
    house_open(&h, 2);
    lim_channel a = open_channel(&h, "a");
    fan f = { 0 };
    lim_admission adm;
    subscribe(&h, &f, "a", 1, 9, 0);
    for (int i = 0; i < 4; i++)
        publish(&h, a, "x");
    assert_int_equal(lim_channel_close(&h.bus, a), LIM_OK);
    assert_int_equal(lim_channel_close(&h.bus, a), LIM_E_GONE);
    assert_int_equal(lim_publish(&h.bus, a, lim__str("y"), NULL, &adm), LIM_E_GONE);
    lim_channel again = open_channel(&h, "a");
    assert_int_not_equal(again.id, a.id);
    assert_int_equal(lim_publish(&h.bus, a, lim__str("y"), NULL, &adm), LIM_E_GONE);
    assert_int_equal(publish(&h, again, "z").matched, 0);
    world_turns(&h.w);
    assert_string_equal(f.got, "x x x x ");
    assert_int_equal(f.ends, 1);
    assert_int_equal(lim_channel_close(&h.bus, again), LIM_OK);
    house_close(&h);
}

static void test_misuse_is_told_and_has_no_effect(void **state)
{
    (void)state;
    house h;
    house_open(&h, 1);
    lim_channel a = open_channel(&h, "a"), same = open_channel(&h, "a"), none = { 0 };
    fan f = { 0 };
    lim_sub sub = { 7 };
    lim_admission adm;
    lim_sub_opts good = { .size = sizeof good, .handler = { fan_message, fan_end, &f } }, bad = good;
    lim_channel_opts no_size = { 0 };
    lim_publish_opts mandatory = { .size = sizeof mandatory, .mandatory = true };
    char big[1001] = { 0 };
    assert_int_equal(same.id, a.id);
    assert_int_equal(lim_channel_open(&h.bus, "a..b", NULL, &none), LIM_E_INVALID);
    assert_int_equal(lim_channel_open(&h.bus, "$sys", NULL, &none), LIM_E_DENIED);
    assert_int_equal(lim_channel_open(&h.bus, "b", &no_size, &none), LIM_E_MISUSE);
    assert_int_equal(lim_subscribe(&h.bus, "a", NULL, &sub), LIM_E_MISUSE);
    bad.backlog = LIM_UNLIMITED;
    assert_int_equal(lim_subscribe(&h.bus, "a", &bad, &sub), LIM_E_MISUSE);
    bad = good, bad.handler.on_message = NULL;
    assert_int_equal(lim_subscribe(&h.bus, "a", &bad, &sub), LIM_E_MISUSE);
    assert_int_equal(lim_subscribe(&h.bus, "a.", &good, &sub), LIM_E_INVALID);
    lim__channels_limit(h.w.all, 0, 1, true);
    fan first = { 0 };
    subscribe(&h, &first, "a", 0, 0, 0);
    assert_int_equal(lim_subscribe(&h.bus, "a", &good, &sub), LIM_E_FULL);
    world_turns(&h.w);
    assert_int_equal(sub.id, 7);
    assert_int_equal(f.ends, 0); /* the handler was never taken */
    assert_int_equal(lim_unsubscribe(&h.bus, first.sub), LIM_OK);
    assert_int_equal(lim_publish(&h.bus, none, lim__str("x"), NULL, &adm), LIM_E_GONE);
    assert_int_equal(lim_publish(&h.bus, a, lim__bytes(big, sizeof big), NULL, &adm), LIM_E_TOOBIG);
    assert_int_equal(lim_publish(&h.bus, a, lim__str("x"), &mandatory, &adm), LIM_OK);
    assert_int_equal(adm.why, LIM_WHY_NO_SUBSCRIBER);
    atomic_store(&h.bus.closing, 1);
    assert_int_equal(publish(&h, a, "x").why, LIM_WHY_CLOSING);
    assert_int_equal(lim_subscribe(&h.bus, "a", &good, &sub), LIM_E_CLOSED);
    assert_int_equal(lim_channel_open(&h.bus, "b", NULL, &none), LIM_E_CLOSED);
    assert_int_equal(lim_channel_close(&h.bus, a), LIM_OK);
    house_close(&h);
}

static void test_closing_the_runtime_ends_every_subscription_once(void **state)
{
    (void)state;
    house h;
    house_open(&h, 2);
    lim_channel a = open_channel(&h, "a");
    fan f[10] = { 0 };
    for (size_t i = 0; i < LIM_COUNT(f); i++)
        subscribe(&h, &f[i], i % 2 ? "a" : ">", 1, 5, 0);
    publish(&h, a, "x");
    publish(&h, a, "x");
    lim_runtime_close(h.w.rt);
    for (size_t i = 0; i < LIM_COUNT(f); i++) {
        assert_int_equal(f[i].ends, 1);
        assert_int_equal(f[i].seq, 0);
    }
    lim__channels_close(h.w.all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_subscribed_before_gets_what_is_published_after),
        cmocka_unit_test(test_after_unsubscribe_nothing_is_delivered_and_on_end_runs_once),
        cmocka_unit_test(test_held_messages_keep_the_window_until_completed),
        cmocka_unit_test(test_a_handler_may_publish_and_order_is_kept),
        cmocka_unit_test(test_a_closed_channel_is_gone_but_its_buffered_messages_come),
        cmocka_unit_test(test_misuse_is_told_and_has_no_effect),
        cmocka_unit_test(test_closing_the_runtime_ends_every_subscription_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
