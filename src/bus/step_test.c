/* SPDX-License-Identifier: Apache-2.0
 * step_test.c - consume, transform, produce: what is acknowledged and what is published are one step (XO2, DU4). */
#include "bus/log_world.h"

enum { IN = 200, HELD_MAX = 64 };

typedef struct pipe_world {
    log_world w;
    lim_channel in, out, other;
    lim_sub sub;
    uint64_t held[HELD_MAX];
    char texts[HELD_MAX][16];
    uint32_t held_count, done, refused, redelivered;
    lim_err last;
    bool running;
} pipe_world;

static lim_done on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    pipe_world *p = ctx;
    (void)bus;
    if (!p->running || p->held_count == HELD_MAX)
        return LIM_FAIL;
    p->held[p->held_count] = d->seq;
    snprintf(p->texts[p->held_count++], 16, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    return LIM_HOLD;
}

static void begin(pipe_world *p)
{
    lim_channel_opts opts = log_world_opts();
    lim_sub_opts sub = { .size = sizeof sub,
                         .window = 16,
                         .handler = { .on_message = on_message, .ctx = p },
                         .read = { .from = LIM_FROM_ALL, .cursor = "pipe" } };
    lim_bus *bus = p->w.d.bus;
    assert_int_equal(lim_channel_open(bus, "in", &opts, &p->in), LIM_OK);
    assert_int_equal(lim_channel_open(bus, "out", &opts, &p->out), LIM_OK);
    assert_int_equal(lim_channel_open(bus, "other", &opts, &p->other), LIM_OK);
    p->held_count = 0;
    p->running = true;
    assert_int_equal(lim_subscribe(bus, "in", &sub, &p->sub), LIM_OK);
}

static void world_open(pipe_world *p, uint64_t seed)
{
    *p = (pipe_world){ .running = false };
    durable_open(&p->w.d, seed);
    begin(p);
}

static void publish_all(pipe_world *p, uint32_t count)
{
    p->w.channel = p->in;
    for (uint32_t i = 0; i < count; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", (unsigned)i);
        assert_int_equal(log_world_offer(&p->w, text, (lim_publish_opts){ 0 }), LIM_OK);
    }
    log_world_wait(&p->w);
}

static void on_done(void *ctx, lim_err err, const char *detail)
{
    pipe_world *p = ctx;
    (void)detail;
    if (!p->running)
        return;
    p->last = err;
    p->done += err == LIM_OK;
    p->refused += err != LIM_OK;
}

static void transform(pipe_world *p, uint32_t i)
{
    lim_step *step;
    assert_int_equal(lim_step_new(p->w.d.bus, &step), LIM_OK);
    assert_int_equal(lim_step_publish(step, "out", lim__str(p->texts[i]), NULL), LIM_OK);
    assert_int_equal(lim_step_publish(step, "other", lim__str(p->texts[i]), NULL), LIM_OK);
    assert_int_equal(lim_step_ack(step, p->sub, p->held[i]), LIM_OK);
    assert_int_equal(lim_step_commit(step, on_done, p), LIM_OK);
}

static void transform_all(pipe_world *p)
{
    for (uint32_t i = 0; i < p->held_count; i++)
        transform(p, i);
    p->held_count = 0;
}

/* Each message of "in" is there at most once; how many are. */
static uint32_t audit(pipe_world *p, const char *channel)
{
    uint8_t seen[IN] = { 0 };
    uint32_t n = log_world_look(&p->w, channel);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = (uint32_t)strtoul(p->w.texts[i], NULL, 10);
        assert_true(number < IN);
        assert_int_equal(seen[number]++, 0);
    }
    return n;
}

static pipe_world p;

static void test_what_is_acknowledged_is_published_once_whenever_it_dies(void **state) /* proves XO2, DU4 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        world_open(&p, seed);
        publish_all(&p, IN);
        for (uint32_t life = 0; life < 400 && audit(&p, "out") < IN; life++) {
            for (uint32_t i = 0; i < 1 + (seed + life) % 4; i++) {
                durable_settle(&p.w.d, 3000000);
                transform_all(&p);
            }
            if (life % 2 == 0)
                lim__sim_disk_fail_at_call(p.w.d.os, 1 + (seed * 7 + life) % 9, 0);
            durable_settle(&p.w.d, (seed * 131 + life * 17) % 2000000);
            lim__sim_disk_fail_at_call(p.w.d.os, 0, 0);
            p.running = false;
            if (life & 2)
                durable_kill(&p.w.d);
            else
                durable_power_off(&p.w.d);
            durable_start(&p.w.d);
            assert_int_equal(audit(&p, "out"), audit(&p, "other"));
            begin(&p);
        }
        assert_int_equal(audit(&p, "out"), IN);
        durable_settle(&p.w.d, 1000000000);
        assert_int_equal(p.held_count, 0); /* nothing comes again */
        durable_close(&p.w.d);
    }
}

static void test_a_step_that_cannot_be_changes_nothing(void **state)
{
    lim_step *step;
    lim_publish_opts keyed = { .size = sizeof keyed, .idempotency_key = "k" };
    (void)state;
    world_open(&p, 50);
    publish_all(&p, 2);
    durable_settle(&p.w.d, 1000000000);
    assert_int_equal(p.held_count, 2);
    for (int i = 0; i < 2; i++) { /* the second has a key that was seen */
        assert_int_equal(lim_step_new(p.w.d.bus, &step), LIM_OK);
        assert_int_equal(lim_step_publish(step, "out", lim__str("0"), &keyed), LIM_OK);
        assert_int_equal(lim_step_ack(step, p.sub, p.held[i]), LIM_OK);
        assert_int_equal(lim_step_commit(step, on_done, &p), LIM_OK);
        durable_settle(&p.w.d, 1000000000);
    }
    assert_int_equal(p.done, 1);
    assert_int_equal(p.last, LIM_E_EXISTS);
    assert_int_equal(lim_step_new(p.w.d.bus, &step), LIM_OK); /* the first is not this one's any more */
    assert_int_equal(lim_step_publish(step, "out", lim__str("1"), NULL), LIM_OK);
    assert_int_equal(lim_step_ack(step, p.sub, p.held[0]), LIM_OK);
    assert_int_equal(lim_step_commit(step, on_done, &p), LIM_OK);
    durable_settle(&p.w.d, 1000000000);
    assert_int_equal(p.last, LIM_E_GONE);
    assert_int_equal(audit(&p, "out"), 1);
    assert_int_equal(lim_step_new(p.w.d.bus, &step), LIM_OK); /* the second is, still */
    assert_int_equal(lim_step_ack(step, p.sub, p.held[1]), LIM_OK);
    assert_int_equal(lim_step_commit(step, on_done, &p), LIM_OK);
    durable_settle(&p.w.d, 1000000000);
    assert_int_equal(p.last, LIM_OK);
    durable_close(&p.w.d);
}

static void test_a_step_is_of_durable_channels(void **state)
{
    lim_channel_opts plain = { .size = sizeof plain };
    lim_channel live;
    lim_step *step;
    (void)state;
    world_open(&p, 51);
    assert_int_equal(lim_channel_open(p.w.d.bus, "live", &plain, &live), LIM_OK);
    assert_int_equal(lim_step_new(p.w.d.bus, &step), LIM_OK);
    assert_int_equal(lim_step_publish(step, "live", lim__str("x"), NULL), LIM_E_MISUSE);
    assert_int_equal(lim_step_publish(step, "nowhere", lim__str("x"), NULL), LIM_E_NOTFOUND);
    assert_int_equal(lim_step_commit(step, on_done, &p), LIM_E_INVALID); /* it is empty */
    assert_int_equal(lim_step_new(p.w.d.bus, &step), LIM_OK);
    lim_step_free(step);
    durable_close(&p.w.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_acknowledged_is_published_once_whenever_it_dies),
        cmocka_unit_test(test_a_step_that_cannot_be_changes_nothing),
        cmocka_unit_test(test_a_step_is_of_durable_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
