/* SPDX-License-Identifier: Apache-2.0
 * durable_tcp_test.c - durable channels and steps with real threads, sockets and a real disk: the verbs that wait, in
 * the program and over the loopback interface; and what is there when the bus is opened again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <liminal/client.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "bus/bus.h"
#include "server/server.h"

enum { MESSAGES = 300 };

typedef struct stage {
    char dir[64];
    lim_bus *bus;
    lim__server *server;
    lim_client *client;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* under the mutex */
    uint32_t told, done, late;
    uint64_t last; /* the newest number that was told */
    bool in_order;
    /* of a subscription */
    lim_sub sub;
    uint64_t seqs[MESSAGES];
    char texts[MESSAGES][16];
    uint32_t count, taken;
    lim_delivery request; /* of a task */
    bool requested;
} stage;

#define AWAIT(s, condition)                                                                                            \
    do {                                                                                                               \
        pthread_mutex_lock(&(s)->mutex);                                                                               \
        while (!(condition))                                                                                           \
            pthread_cond_wait(&(s)->changed, &(s)->mutex);                                                             \
        pthread_mutex_unlock(&(s)->mutex);                                                                             \
    } while (0)

static void begin(stage *s)
{
    char address[32];
    lim_diag diag = { 0 };
    lim_bus_opts bus = { .size = sizeof bus, .scheduler_count = 2, .data_dir = s->dir, .data_segment_bytes = 1 << 20 };
    lim__server_opts server = { .host = "127.0.0.1", .spread = true };
    assert_int_equal(lim_bus_open(&bus, &s->bus), LIM_OK);
    assert_int_equal(lim__server_open(s->bus, &server, &diag, &s->server), LIM_OK);
    snprintf(address, sizeof address, "127.0.0.1:%u", lim__server_port(s->server));
    lim_client_opts opts = { .size = sizeof opts, .server = address, .name = "test" };
    assert_int_equal(lim_client_open(&opts, &diag, &s->client), LIM_OK);
}

static void end(stage *s)
{
    lim_client_close(s->client);
    lim_bus_close(s->bus);
    lim__server_close(s->server);
}

static void stage_open(stage *s)
{
    *s = (stage){ .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .in_order = true };
    snprintf(s->dir, sizeof s->dir, "durable-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    begin(s);
}

static void stage_close(stage *s)
{
    char command[128];
    end(s);
    snprintf(command, sizeof command, "rm -rf '%s'", s->dir);
    assert_int_equal(system(command), 0);
}

static lim_channel channel(stage *s, const char *name)
{
    const lim_channel_opts opts = { .size = sizeof opts, .durable = true };
    lim_channel ch;
    assert_int_equal(lim_channel_open(s->bus, name, &opts, &ch), LIM_OK);
    return ch;
}

static stage s;

static void test_a_receipt_can_be_waited_for_and_survives(void **state) /* proves DU1, PR1 */
{
    lim_receipt r;
    (void)state;
    stage_open(&s);
    lim_channel ch = channel(&s, "orders");
    const lim_publish_opts keyed = { .size = sizeof keyed, .key = "a", .idempotency_key = "k" };
    assert_int_equal(lim_publish_wait(s.bus, ch, lim__str("one"), NULL, &r), LIM_OK);
    assert_int_equal(r.seq, 1);
    assert_string_equal(lim_class_text(r.durability), "disk");
    assert_int_equal(lim_client_publish_wait(s.client, "orders", lim__str("two"), &keyed, &r), LIM_OK);
    assert_int_equal(r.seq, 2);
    assert_false(r.duplicate);
    end(&s);
    begin(&s);
    ch = channel(&s, "orders");
    assert_int_equal(lim_publish_wait(s.bus, ch, lim__str("two"), &keyed, &r), LIM_OK);
    assert_int_equal(r.seq, 2);
    assert_true(r.duplicate);
    lim_stored_message m = { 0 };
    assert_int_equal(lim_channel_get(s.bus, "orders", "a", &m), LIM_OK);
    assert_int_equal(m.seq, 2);
    lim_stored_fini(&m);
    const lim_publish_opts later = { .size = sizeof later, .delay_ms = 600000 };
    assert_int_equal(lim_client_publish_wait(s.client, "orders", lim__str("later"), &later, &r), LIM_OK);
    assert_true(r.admission.verdict == LIM_ACCEPT && r.delayed && r.seq == 0);
    assert_in_range(r.due_wall_us - r.at_wall_us, 599000000, 600000000);
    assert_int_equal(lim_client_publish_wait(s.client, "ephemeral", lim__str("x"), NULL, &r), LIM_OK);
    assert_false(r.delayed);
    assert_string_equal(lim_class_text(r.durability), "memory");
    assert_int_equal(lim_client_publish_wait(s.client, "ephemeral", lim__str("x"), &keyed, &r), LIM_OK);
    assert_int_equal(r.admission.why, LIM_WHY_BAD_REQUEST);
    stage_close(&s);
}

/* ---- answers that overtake each other ---- */

static void on_receipt(void *ctx, const lim_receipt *r)
{
    stage *t = ctx;
    pthread_mutex_lock(&t->mutex);
    t->told++;
    t->in_order &= r->seq == t->last + 1 && r->durability == LIM_CLASS_DISK;
    t->last = r->seq;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}

static void on_admission(void *ctx, lim_err err, const lim_admission *a)
{
    stage *t = ctx;
    pthread_mutex_lock(&t->mutex);
    t->late += err != LIM_OK || a->verdict != LIM_ACCEPT;
    t->done++;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}

static void test_answers_of_both_kinds_of_channel_find_their_publishes(void **state) /* proves PR1 */
{
    (void)state;
    stage_open(&s);
    (void)channel(&s, "orders");
    const lim_publish_opts opts = { .size = sizeof opts, .on_receipt = on_receipt, .ctx = &s };
    for (uint32_t i = 0; i < MESSAGES; i++) {
        bool durable = i % 3 != 0, told = i % 5 != 0; /* some without a callback */
        assert_int_equal(lim_client_publish_async(s.client, durable ? "orders" : "live", lim__str("x"),
                                                  durable ? &opts : NULL, told ? on_admission : NULL, &s),
                         LIM_OK);
    }
    AWAIT(&s, s.told == MESSAGES * 2 / 3 && s.done == MESSAGES * 4 / 5);
    assert_true(s.in_order);
    assert_int_equal(s.late, 0);
    assert_int_equal(lim_client_flush(s.client, 10000), LIM_OK);
    stage_close(&s);
}

/* ---- steps ---- */

static lim_done on_message(lim_client *c, const lim_delivery *d, void *ctx)
{
    stage *t = ctx;
    (void)c;
    pthread_mutex_lock(&t->mutex);
    t->seqs[t->count] = d->seq;
    snprintf(t->texts[t->count++], 16, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
    return LIM_HOLD;
}

static void read_in(stage *t)
{
    lim_client_sub_opts opts = { .size = sizeof opts,
                                 .window = 8,
                                 .handler = { .on_message = on_message, .ctx = t },
                                 .read = { .from = LIM_FROM_ALL, .cursor = "c" } };
    lim_diag diag;
    t->count = t->taken = 0;
    assert_int_equal(lim_client_subscribe(t->client, "in", &opts, &diag, &t->sub), LIM_OK);
}

static void on_step(void *ctx, lim_err err, const char *detail)
{
    stage *t = ctx;
    (void)detail;
    pthread_mutex_lock(&t->mutex);
    t->done += err == LIM_OK;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}

static void test_a_client_transforms_each_message_in_one_step(void **state) /* proves XO2 */
{
    lim_client_step *step;
    lim_receipt r;
    (void)state;
    stage_open(&s);
    lim_channel in = channel(&s, "in"), out = channel(&s, "out");
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(lim_publish_wait(s.bus, in, lim__str("x"), NULL, &r), LIM_OK);
    read_in(&s);
    for (uint32_t i = 0; i < 20; i++) {
        AWAIT(&s, s.count > i);
        assert_int_equal(lim_client_step_new(s.client, &step), LIM_OK);
        assert_int_equal(lim_client_step_publish(step, "out", lim__str(s.texts[i]), NULL), LIM_OK);
        assert_int_equal(lim_client_step_ack(step, s.sub, s.seqs[i]), LIM_OK);
        if (i & 1)
            assert_int_equal(lim_client_step_commit_wait(step), LIM_OK);
        else
            assert_int_equal(lim_client_step_commit(step, on_step, &s), LIM_OK);
    }
    AWAIT(&s, s.done == 10);
    assert_int_equal(lim_publish_wait(s.bus, out, lim__str("last"), NULL, &r), LIM_OK);
    assert_int_equal(r.seq, 21);
    assert_int_equal(lim_client_step_new(s.client, &step), LIM_OK); /* it is not in hand any more */
    assert_int_equal(lim_client_step_ack(step, s.sub, s.seqs[0]), LIM_OK);
    assert_int_equal(lim_client_step_commit_wait(step), LIM_E_NOTFOUND);
    assert_int_equal(lim_client_step_new(s.client, &step), LIM_OK);
    lim_client_step_free(step);
    lim_step *mine;
    assert_int_equal(lim_step_new(s.bus, &mine), LIM_OK);
    assert_int_equal(lim_step_publish(mine, "out", lim__str("more"), NULL), LIM_OK);
    assert_int_equal(lim_step_commit_wait(mine), LIM_OK);
    stage_close(&s);
}

static lim_done on_task(lim_client *c, const lim_delivery *d, void *ctx)
{
    stage *t = ctx;
    (void)c;
    pthread_mutex_lock(&t->mutex);
    t->request = *d;
    t->requested = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
    return LIM_HOLD;
}

static void test_a_result_and_a_message_are_one_step(void **state) /* proves XO2 */
{
    lim_client_step *step;
    lim_participant worker;
    lim_admission a;
    lim_conv task;
    lim_outcome o = { 0 };
    lim_receipt r;
    lim_diag diag;
    (void)state;
    stage_open(&s);
    lim_channel out = channel(&s, "out");
    lim_client_serve_opts serve = { .size = sizeof serve,
                                    .capacity = 1,
                                    .handler = { .on_message = on_task, .ctx = &s } };
    assert_int_equal(lim_client_work(s.client, "thumbs", &serve, &diag, &worker), LIM_OK);
    const lim_dispatch_opts dispatch = { .size = sizeof dispatch, .timeout_ms = LIM_FOREVER, .durable = true };
    assert_int_equal(lim_client_dispatch(s.client, "thumbs", lim__str("p"), &dispatch, &a, &task), LIM_OK);
    for (int i = 0; i < 2; i++) { /* the second: the place is free again */
        AWAIT(&s, s.requested);
        s.requested = false;
        assert_int_equal(lim_client_step_new(s.client, &step), LIM_OK);
        assert_int_equal(lim_client_step_publish(step, "out", lim__str("made"), NULL), LIM_OK);
        assert_int_equal(lim_client_step_reply(step, &s.request, lim__str("done")), LIM_OK);
        assert_int_equal(lim_client_step_commit_wait(step), LIM_OK);
        assert_int_equal(lim_client_await(s.client, task, 10000, &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        assert_true(lim__bytes_eq(o.payload, lim__str("done")));
        lim_outcome_fini(&o);
        if (i == 0)
            assert_int_equal(lim_client_dispatch(s.client, "thumbs", lim__str("q"), &dispatch, &a, &task), LIM_OK);
    }
    assert_int_equal(lim_publish_wait(s.bus, out, lim__str("last"), NULL, &r), LIM_OK);
    assert_int_equal(r.seq, 3);
    stage_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_receipt_can_be_waited_for_and_survives),
        cmocka_unit_test(test_answers_of_both_kinds_of_channel_find_their_publishes),
        cmocka_unit_test(test_a_client_transforms_each_message_in_one_step),
        cmocka_unit_test(test_a_result_and_a_message_are_one_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
