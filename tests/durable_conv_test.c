/* SPDX-License-Identifier: Apache-2.0
 * durable_conv_test.c - durable conversations over TCP, with real threads and a real disk: the owner's connection ends,
 * the server ends and is opened again on the same directory, and the conversation goes on with whoever attaches to it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <liminal/client.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "bus/bus.h"
#include "server/server.h"

typedef struct stage {
    char dir[64];
    lim_bus *bus;
    lim__server *server;
    lim_client *owner, *worker;
    _Atomic uint32_t asked;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool ready;
    uint16_t port; /* 0: any */
} stage;

static lim_client *connect_to(const stage *s, const char *name)
{
    char address[32];
    lim_client *c;
    lim_diag diag = { 0 };
    snprintf(address, sizeof address, "127.0.0.1:%u", lim__server_port(s->server));
    lim_client_opts opts = { .size = sizeof opts, .server = address, .name = name };
    if (lim_client_open(&opts, &diag, &c) != LIM_OK)
        fail_msg("%s", diag.text);
    return c;
}

static void server_open(stage *s)
{
    lim_diag diag = { 0 };
    lim_bus_opts bus = { .size = sizeof bus, .scheduler_count = 2, .data_dir = s->dir, .diag = &diag };
    bus.data_segment_bytes = 1 << 20;
    lim__server_opts server = { .host = "127.0.0.1", .port = s->port, .spread = true };
    if (lim_bus_open(&bus, &s->bus) != LIM_OK)
        fail_msg("%s", diag.text);
    assert_int_equal(lim__server_open(s->bus, &server, &diag, &s->server), LIM_OK);
    s->port = lim__server_port(s->server);
}

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    stage *s = ctx;
    char reply[64];
    if (d->event != LIM_EVENT_NONE || !d->wants_reply)
        return LIM_DONE;
    atomic_fetch_add(&s->asked, 1);
    if (d->payload.len > 3 && memcmp(d->payload.ptr, "say", 3) == 0)
        assert_int_equal(lim_client_say(c, d, d->payload), LIM_OK);
    snprintf(reply, sizeof reply, "re %.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    (void)!lim_client_reply(c, d, lim__str(reply));
    return LIM_DONE;
}

static void on_ready(void *ctx, const char *identity)
{
    stage *s = ctx;
    (void)identity;
    pthread_mutex_lock(&s->mutex);
    s->ready = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

static void await_worker(stage *s)
{
    pthread_mutex_lock(&s->mutex);
    while (!s->ready)
        pthread_cond_wait(&s->changed, &s->mutex);
    pthread_mutex_unlock(&s->mutex);
}

static void worker_open(stage *s)
{
    lim_participant reg;
    lim_client_serve_opts opts = { .size = sizeof opts,
                                   .identity = "w1",
                                   .capacity = 16,
                                   .handler = { .on_message = on_request, .ctx = s },
                                   .on_ready = on_ready };
    s->ready = false;
    s->worker = connect_to(s, "worker");
    assert_int_equal(lim_client_serve(s->worker, "g", &opts, NULL, &reg), LIM_OK);
    await_worker(s);
}

static void stage_open(stage *s)
{
    *s = (stage){ .dir = "/tmp/lim-conv-XXXXXX",
                  .mutex = PTHREAD_MUTEX_INITIALIZER,
                  .changed = PTHREAD_COND_INITIALIZER };
    assert_non_null(mkdtemp(s->dir));
    server_open(s);
    s->owner = connect_to(s, "owner");
    worker_open(s);
}

/* As a server that is stopped and started again: nothing of it is told to end first. The worker comes back by itself.
 */
static void again(stage *s)
{
    pthread_mutex_lock(&s->mutex);
    s->ready = false;
    pthread_mutex_unlock(&s->mutex);
    lim_bus_close(s->bus);
    lim__server_close(s->server);
    lim_client_close(s->owner);
    server_open(s);
    s->owner = connect_to(s, "owner");
    await_worker(s);
}

static void stage_close(stage *s)
{
    char command[100];
    lim_client_close(s->owner);
    lim_client_close(s->worker);
    lim_bus_close(s->bus);
    lim__server_close(s->server);
    snprintf(command, sizeof command, "rm -rf %s", s->dir);
    assert_int_equal(system(command), 0);
}

static void expect_reply(stage *s, lim_conv conv, const char *request, const char *reply)
{
    lim_outcome o;
    assert_int_equal(lim_client_conv_ask(s->owner, conv, (lim_participant){ 0 }, lim__str(request), 20000, &o), LIM_OK);
    if (o.how != LIM_HOW_REPLY)
        fail_msg("%s: %s %.*s", request, lim_how_text(o.how), (int)o.detail.len, (const char *)o.detail.ptr);
    assert_int_equal(o.payload.len, strlen(reply));
    assert_memory_equal(o.payload.ptr, reply, o.payload.len);
    lim_outcome_fini(&o);
}

static lim_err attach(stage *s, lim_conv id, lim_conv *out)
{
    lim_client_conv_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .attach = id };
    return lim_client_conv_open(s->owner, &opts, NULL, out);
}

static bool count_entry(void *ctx, const char *kind)
{
    return strstr(ctx, kind) != NULL;
}

static void add_kind(void *ctx, const lim_history_entry *e)
{
    char *all = ctx;
    size_t used = strlen(all);
    snprintf(all + used, 4000 - used, "%.*s ", (int)e->kind.len, (const char *)e->kind.ptr);
}

static void test_a_durable_conversation_outlives_its_owner_and_its_server(void **state) /* proves CV15 */
{
    (void)state;
    static stage s;
    lim_conv conv, found, mine;
    lim_outcome o;
    stage_open(&s);
    lim_client_conv_opts opts = {
        .size = sizeof opts, .group = "g", .timeout_ms = LIM_FOREVER, .name = "order-17", .durable = true
    };
    assert_int_equal(lim_client_conv_open(s.owner, &opts, NULL, &conv), LIM_OK);
    expect_reply(&s, conv, "one", "re one");
    lim_client *second = connect_to(&s, "second"), *first = s.owner;
    s.owner = second;
    assert_int_equal(lim_client_conv_find(second, "order-17", &found), LIM_OK);
    assert_int_equal(attach(&s, found, &mine), LIM_E_EXISTS); /* its owner lives */
    lim_client_close(first);
    lim_err err;
    while ((err = attach(&s, found, &mine)) == LIM_E_EXISTS) /* until the server has seen that it is gone */
        continue;
    assert_int_equal(err, LIM_OK);
    expect_reply(&s, mine, "two", "re two");
    expect_reply(&s, mine, "say hello", "re say hello");
    assert_int_equal(lim_client_conv_receive(s.owner, mine, 20000, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    assert_memory_equal(o.payload.ptr, "say hello", 9);
    lim_outcome_fini(&o);
    again(&s);
    lim_conv after;
    assert_int_equal(lim_client_conv_find(s.owner, "order-17", &after), LIM_OK);
    assert_true(after.id == found.id); /* the id that it had */
    assert_int_equal(attach(&s, after, &mine), LIM_OK);
    expect_reply(&s, mine, "three", "re three"); /* as soon as w1 has been found */
    char kinds[4000] = "";
    uint64_t entries;
    assert_int_equal(lim_client_history(s.owner, after, 0, add_kind, kinds, &entries), LIM_OK);
    assert_true(count_entry(kinds, "opened") && count_entry(kinds, "restored") && count_entry(kinds, "rejoined"));
    assert_int_equal(lim_client_conv_close(s.owner, mine), LIM_OK);
    while (lim_client_conv_find(s.owner, "order-17", &after) == LIM_OK)
        continue;
    stage_close(&s);
}

static void test_what_is_not_durable_cannot_be_attached_to(void **state)
{
    (void)state;
    static stage s;
    lim_conv conv, found, mine;
    stage_open(&s);
    lim_client_conv_opts opts = { .size = sizeof opts, .group = "g", .timeout_ms = LIM_FOREVER, .name = "brief" };
    assert_int_equal(lim_client_conv_open(s.owner, &opts, NULL, &conv), LIM_OK);
    lim_client *first = s.owner;
    s.owner = connect_to(&s, "second");
    assert_int_equal(lim_client_conv_find(s.owner, "brief", &found), LIM_OK);
    assert_int_equal(attach(&s, found, &mine), LIM_E_INVALID);
    assert_int_equal(attach(&s, (lim_conv){ 12345 }, &mine), LIM_E_GONE);
    lim_client *second = s.owner;
    s.owner = first;
    expect_reply(&s, conv, "one", "re one"); /* the first one's still */
    lim_client_close(second);
    stage_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_durable_conversation_outlives_its_owner_and_its_server),
        cmocka_unit_test(test_what_is_not_durable_cannot_be_attached_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
