/* SPDX-License-Identifier: Apache-2.0
 * bus_test.c - the embedded bus on real threads: asks, crashes, tasks, conversations, routing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "bus/bus.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })

static uint32_t schedulers = 1;

static int open_bus(void **state)
{
    lim_bus *bus = NULL;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = schedulers), &bus), LIM_OK);
    *state = bus;
    return 0;
}

static int close_bus(void **state)
{
    lim_bus_close(*state);
    return 0;
}

static void assert_payload(const lim_outcome *o, const char *text)
{
    assert_int_equal(o->how, LIM_HOW_REPLY);
    assert_int_equal(o->payload.len, strlen(text));
    assert_memory_equal(o->payload.ptr, text, strlen(text));
}

/* ---- handlers ---- */

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static lim_done on_silence(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d, (void)ctx;
    return LIM_DONE;
}

static lim_done on_failure(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_fail(bus, d, "no can do") == LIM_OK ? LIM_DONE : LIM_FAIL;
}

typedef struct held { /* what a handler that holds its requests has in hand */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    int count;
    lim_conv conv[16];
    lim_participant self[16];
    uint64_t lease[16];
} held;
#define HELD_INIT                                                                                                      \
    {                                                                                                                  \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER                                           \
    }

static lim_done on_hold(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    held *h = ctx;
    (void)bus;
    pthread_mutex_lock(&h->mutex);
    h->conv[h->count] = d->conv;
    h->self[h->count] = d->self;
    h->lease[h->count++] = d->lease;
    pthread_cond_broadcast(&h->cond);
    pthread_mutex_unlock(&h->mutex);
    return LIM_HOLD;
}

static void wait_held(held *h, int count)
{
    pthread_mutex_lock(&h->mutex);
    while (h->count < count)
        pthread_cond_wait(&h->cond, &h->mutex);
    pthread_mutex_unlock(&h->mutex);
}

typedef struct got { /* an outcome that a callback got */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    int count;
    lim_how how;
    lim_reason reason;
    lim_why why;
    uint32_t losses, excluded;
    char participant[64], text[256];
} got;
#define GOT_INIT                                                                                                       \
    {                                                                                                                  \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER                                           \
    }

static void on_outcome(void *ctx, const lim_outcome *o)
{
    got *g = ctx;
    pthread_mutex_lock(&g->mutex);
    g->count++;
    g->how = o->how;
    g->reason = o->reason;
    g->why = o->why;
    g->losses = o->losses;
    g->excluded = o->excluded_count;
    snprintf(g->participant, sizeof g->participant, "%.*s", (int)o->participant.len, (const char *)o->participant.ptr);
    snprintf(g->text, sizeof g->text, "%.*s", (int)o->payload.len, (const char *)o->payload.ptr);
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->mutex);
}

static void wait_got(got *g)
{
    pthread_mutex_lock(&g->mutex);
    while (g->count == 0)
        pthread_cond_wait(&g->cond, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
    assert_int_equal(g->count, 1);
}

static lim_participant serve(lim_bus *bus, const char *group, const char *identity, uint32_t capacity,
                             lim_done (*on)(lim_bus *, const lim_delivery *, void *), void *ctx)
{
    lim_participant p = { 0 };
    assert_int_equal(lim_serve(bus, group,
                               OPTS(lim_serve_opts, .identity = identity, .capacity = capacity,
                                    .handler = { .on_message = on, .ctx = ctx }),
                               &p),
                     LIM_OK);
    return p;
}

static lim_participant work(lim_bus *bus, const char *queue, const char *identity, uint32_t capacity,
                            lim_done (*on)(lim_bus *, const lim_delivery *, void *), void *ctx)
{
    lim_participant p = { 0 };
    assert_int_equal(lim_work(bus, queue,
                              OPTS(lim_serve_opts, .identity = identity, .capacity = capacity,
                                   .handler = { .on_message = on, .ctx = ctx }),
                              &p),
                     LIM_OK);
    return p;
}

/* ---- asks ---- */

static void test_an_ask_is_answered(void **state) /* proves CV3 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    serve(bus, "echo", "e1", 4, on_echo, NULL);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(lim_ask(bus, "echo", BYTES("hello"), OPTS(lim_ask_opts, .timeout_ms = 5000), &o), LIM_OK);
        assert_payload(&o, "hello");
        assert_int_equal(o.handed_over, LIM_HANDED_YES);
        assert_memory_equal(o.participant.ptr, "e1", 2);
        lim_outcome_fini(&o);
    }
}

static void test_a_group_with_nobody_in_it_refuses_at_once(void **state) /* proves CV3 */
{
    lim_outcome o;
    assert_int_equal(lim_ask(*state, "nobody", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER), &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REFUSED);
    assert_int_equal(o.why, LIM_WHY_NO_PARTICIPANT);
    assert_int_equal(o.handed_over, LIM_HANDED_NO);
    lim_outcome_fini(&o);
}

static void test_names_that_no_connection_could_carry_are_refused(void **state)
{
    lim_bus *bus = *state;
    lim_outcome o;
    lim_admission a;
    lim_participant p;
    assert_int_equal(lim_ask(bus, "x", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 1000, .type = "\xff"), &o),
                     LIM_E_INVALID);
    assert_int_equal(lim_dispatch(bus, "x", BYTES("x"), OPTS(lim_dispatch_opts, .timeout_ms = 1000, .type = "\xc3"),
                                  NULL, NULL, &a, NULL),
                     LIM_E_INVALID);
    assert_int_equal(
        lim_serve(bus, "x",
                  OPTS(lim_serve_opts, .identity = "\xff", .capacity = 1, .handler = { .on_message = on_echo }), &p),
        LIM_E_INVALID);
    assert_int_equal(lim_ask(bus, "two words", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 1000), &o), LIM_E_INVALID);
}

static void test_an_ask_may_wait_for_a_participant(void **state)
{
    lim_bus *bus = *state;
    got g = GOT_INIT;
    assert_int_equal(lim_ask_async(bus, "later", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 60000, .wait = true),
                                   on_outcome, &g, NULL),
                     LIM_OK);
    serve(bus, "later", NULL, 1, on_echo, NULL);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_REPLY);
}

static void test_an_ask_without_a_reply_is_remembered_for_a_while(void **state) /* proves CV1 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    char request[64], text[512];
    assert_int_equal(lim_ask(bus, "forgotten", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 5000), &o), LIM_OK);
    int len = snprintf(request, sizeof request, "{\"op\":\"show\",\"id\":\"%llx\"}", (unsigned long long)o.conv.id);
    lim_outcome_fini(&o);
    for (int i = 0; i < 1000; i++) { /* it ends a moment after its outcome */
        assert_int_equal(lim_ask(bus, "$sys.conversations", (lim_bytes){ request, (size_t)len },
                                 OPTS(lim_ask_opts, .timeout_ms = 5000), &o),
                         LIM_OK);
        snprintf(text, sizeof text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
        lim_outcome_fini(&o);
        if (strstr(text, "\"outcome\"") != NULL)
            break;
    }
    assert_non_null(strstr(text, "\"outcome\":\"refused\""));
}

static void test_silence_ends_at_the_deadline_and_never_echoes(void **state) /* proves CV9 CV11 */
{
    lim_outcome o;
    serve(*state, "mute", NULL, 1, on_silence, NULL);
    for (int i = 0; i < 3; i++) { /* its one place is free again each time */
        assert_int_equal(lim_ask(*state, "mute", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 20), &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_TIMEOUT);
        lim_outcome_fini(&o);
    }
}

static void test_a_participant_may_say_that_it_could_not(void **state)
{
    lim_outcome o;
    serve(*state, "fails", NULL, 1, on_failure, NULL);
    assert_int_equal(lim_ask(*state, "fails", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 5000), &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_FAILED);
    assert_memory_equal(o.detail.ptr, "no can do", 9);
    lim_outcome_fini(&o);
}

static void test_an_ask_ends_crashed_when_its_participant_dies(void **state) /* proves CV2 CV6 */
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g = GOT_INIT;
    lim_participant p = serve(bus, "dies", "mortal", 4, on_hold, &h);
    assert_int_equal(
        lim_ask_async(bus, "dies", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER), on_outcome, &g, NULL),
        LIM_OK);
    wait_held(&h, 1);
    lim_runtime_exit(bus->rt, (lim_pid){ p.id }, LIM_KILL);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_CRASHED);
    assert_int_equal(g.reason, LIM_KILLED);
    assert_string_equal(g.participant, "mortal");
}

static void test_an_ask_moves_to_the_next_and_names_those_it_lost(void **state) /* proves CV7 */
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g = GOT_INIT;
    lim_participant p = serve(bus, "next", "first", 4, on_hold, &h);
    assert_int_equal(lim_ask_async(bus, "next", BYTES("x"),
                                   OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER, .on_crash = LIM_CRASH_NEXT),
                                   on_outcome, &g, NULL),
                     LIM_OK);
    wait_held(&h, 1);
    serve(bus, "next", "second", 4, on_echo, NULL);
    lim_runtime_exit(bus->rt, (lim_pid){ p.id }, LIM_KILL);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_int_equal(g.losses, 1);
    assert_int_equal(g.excluded, 1);
    assert_string_equal(g.participant, "second");
}

static void test_when_nobody_is_left_the_outcome_names_everybody(void **state) /* proves CV7 */
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g = GOT_INIT;
    lim_participant a = serve(bus, "allgone", "a", 1, on_hold, &h);
    lim_participant b = serve(bus, "allgone", "b", 1, on_hold, &h);
    assert_int_equal(lim_ask_async(bus, "allgone", BYTES("x"),
                                   OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER, .on_crash = LIM_CRASH_NEXT),
                                   on_outcome, &g, NULL),
                     LIM_OK);
    wait_held(&h, 1);
    lim_runtime_exit(bus->rt, (lim_pid){ h.self[0].id }, LIM_KILL);
    wait_held(&h, 2);
    lim_runtime_exit(bus->rt, (lim_pid){ h.self[0].id == a.id ? b.id : a.id }, LIM_KILL);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_CRASHED);
    assert_int_equal(g.why, LIM_WHY_NO_PARTICIPANT);
    assert_int_equal(g.excluded, 2);
}

static void test_capacity_is_a_limit_and_the_rest_waits(void **state) /* proves GR2 */
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g[5];
    serve(bus, "narrow", NULL, 2, on_hold, &h);
    for (int i = 0; i < 5; i++) {
        g[i] = (got)GOT_INIT;
        assert_int_equal(lim_ask_async(bus, "narrow", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER),
                                       on_outcome, &g[i], NULL),
                         LIM_OK);
    }
    for (int i = 0; i < 5; i++) {
        wait_held(&h, i + 1);
        pthread_mutex_lock(&h.mutex);
        assert_true(h.count <= i + 2);
        pthread_mutex_unlock(&h.mutex);
        assert_int_equal(lim_reply_to(bus, h.self[i], h.conv[i], h.lease[i], BYTES("ok")), LIM_OK);
    }
    for (int i = 0; i < 5; i++)
        wait_got(&g[i]);
}

static void
test_cancel_ends_an_ask_and_keeps_the_place_until_the_participant_is_done(void **state) /* proves CV19 GR2 */
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g = GOT_INIT, g2 = GOT_INIT;
    lim_conv conv;
    serve(bus, "cancelled", NULL, 1, on_hold, &h);
    assert_int_equal(lim_ask_async(bus, "cancelled", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER),
                                   on_outcome, &g, &conv),
                     LIM_OK);
    wait_held(&h, 1);
    assert_int_equal(lim_conv_cancel(bus, conv), LIM_OK);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_CANCELLED);
    assert_int_equal(lim_ask_async(bus, "cancelled", BYTES("y"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER),
                                   on_outcome, &g2, NULL),
                     LIM_OK);
    assert_int_equal(h.count, 1);
    assert_int_equal(lim_reply_to(bus, h.self[0], h.conv[0], h.lease[0], BYTES("late")), LIM_OK);
    wait_held(&h, 2);
    assert_int_equal(lim_reply_to(bus, h.self[1], h.conv[1], h.lease[1], BYTES("ok")), LIM_OK);
    wait_got(&g2);
    assert_int_equal(g2.how, LIM_HOW_REPLY);
}

static void test_closing_the_bus_ends_what_waits(void **state) /* proves CV3 */
{
    (void)state;
    lim_bus *bus;
    held h = HELD_INIT;
    got g = GOT_INIT;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = schedulers), &bus), LIM_OK);
    serve(bus, "held", NULL, 1, on_hold, &h);
    assert_int_equal(
        lim_ask_async(bus, "held", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER), on_outcome, &g, NULL),
        LIM_OK);
    wait_held(&h, 1);
    lim_bus_close(bus);
    assert_int_equal(g.count, 1);
    assert_true(g.how == LIM_HOW_CLOSED || g.how == LIM_HOW_CRASHED);
}

/* ---- tasks ---- */

static void test_a_task_is_dispatched_and_its_result_kept(void **state) /* proves GR4 GR13 */
{
    lim_bus *bus = *state;
    got g = GOT_INIT;
    lim_admission a;
    lim_conv task;
    lim_outcome o;
    assert_int_equal(lim_dispatch(bus, "jobs", BYTES("{\"n\":1}"), OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER),
                                  on_outcome, &g, &a, &task),
                     LIM_OK);
    assert_int_equal(a.verdict, LIM_ACCEPT);
    work(bus, "jobs", "w1", 1, on_echo, NULL);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_string_equal(g.text, "{\"n\":1}");
    assert_int_equal(lim_task_await(bus, task, 1000, &o), LIM_OK);
    assert_payload(&o, "{\"n\":1}");
    lim_outcome_fini(&o);
    assert_int_equal(lim_task_await(bus, (lim_conv){ 12345 }, 1000, &o), LIM_E_GONE);
}

static void test_a_task_goes_to_the_next_worker_when_its_worker_dies(void **state) /* proves GR5 */
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g = GOT_INIT;
    lim_admission a;
    lim_participant p = work(bus, "moves", "w1", 1, on_hold, &h);
    assert_int_equal(lim_dispatch(bus, "moves", BYTES("t"), OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER),
                                  on_outcome, &g, &a, NULL),
                     LIM_OK);
    wait_held(&h, 1);
    work(bus, "moves", "w2", 1, on_echo, NULL);
    lim_runtime_exit(bus->rt, (lim_pid){ p.id }, LIM_KILL);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_int_equal(g.losses, 1);
    assert_string_equal(g.participant, "w2");
}

static void test_a_task_that_kills_its_workers_does_not_kill_them_all(void **state) /* proves GR5 */
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g = GOT_INIT, g2 = GOT_INIT;
    lim_admission a;
    assert_int_equal(lim_dispatch(bus, "killer", BYTES("bad"),
                                  OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER, .losses_max = 3), on_outcome, &g,
                                  &a, NULL),
                     LIM_OK);
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "w%d", i);
        lim_participant p = work(bus, "killer", name, 1, on_hold, &h);
        wait_held(&h, i + 1);
        lim_runtime_exit(bus->rt, (lim_pid){ p.id }, LIM_KILL);
    }
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_CRASHED);
    assert_int_equal(g.why, LIM_WHY_KILLS_WORKERS);
    assert_int_equal(g.losses, 3);
    assert_int_equal(g.excluded, 3);
    work(bus, "killer", "good", 1, on_echo, NULL); /* the queue lives on */
    assert_int_equal(lim_dispatch(bus, "killer", BYTES("fine"), OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER),
                                  on_outcome, &g2, &a, NULL),
                     LIM_OK);
    wait_got(&g2);
    assert_int_equal(g2.how, LIM_HOW_REPLY);
}

static void test_an_identity_is_taken_once(void **state) /* proves GR1 */
{
    lim_participant p;
    work(*state, "names", "same", 1, on_echo, NULL);
    assert_int_equal(
        lim_work(*state, "names",
                 OPTS(lim_serve_opts, .identity = "same", .capacity = 1, .handler = { .on_message = on_echo }), &p),
        LIM_E_EXISTS);
}

static void test_a_worker_may_pull(void **state) /* proves GR1 */
{
    lim_bus *bus = *state;
    got g = GOT_INIT;
    lim_admission a;
    lim_taken r = { 0 };
    lim_participant p = work(bus, "pulled", "puller", 1, NULL, NULL);
    assert_int_equal(lim_take(bus, p, 0, &r), LIM_E_TIMEOUT);
    struct pollfd watch = { .events = POLLIN };
    assert_int_equal(lim_take_fd(bus, p, &watch.fd), LIM_OK);
    assert_int_equal(poll(&watch, 1, 0), 0);
    assert_int_equal(lim_dispatch(bus, "pulled", BYTES("take me"), OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER),
                                  on_outcome, &g, &a, NULL),
                     LIM_OK);
    assert_int_equal(poll(&watch, 1, 60000), 1);
    assert_int_equal(lim_take(bus, p, 0, &r), LIM_OK);
    assert_int_equal(poll(&watch, 1, 0), 0);
    assert_int_equal(r.delivery.payload.len, 7);
    assert_int_equal(lim_reply_to(bus, p, r.delivery.conv, r.delivery.lease, BYTES("took it")), LIM_OK);
    lim_taken_fini(&r);
    wait_got(&g);
    assert_string_equal(g.text, "took it");
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    assert_int_equal(lim_take(bus, p, LIM_FOREVER, &r), LIM_E_GONE);
    assert_int_equal(lim_take_fd(bus, p, &watch.fd), LIM_E_GONE);
}

static void test_one_queue_name_in_two_namespaces_is_two_queues(void **state) /* proves GR1 */
{
    lim_bus *bus = *state;
    got g = GOT_INIT;
    lim_admission a;
    lim_taken r = { 0 };
    lim_participant p[2];
    lim_outcome o;
    lim_serve_opts work = { .size = sizeof work, .capacity = 1, .ns = "tenant-a" };
    assert_int_equal(lim_work(bus, "jobs", &work, &p[0]), LIM_OK);
    work.ns = "tenant-b";
    assert_int_equal(lim_work(bus, "jobs", &work, &p[1]), LIM_OK);
    lim_dispatch_opts task = { .size = sizeof task, .timeout_ms = LIM_FOREVER, .ns = "tenant-b" };
    assert_int_equal(lim_dispatch(bus, "jobs", BYTES("for b"), &task, on_outcome, &g, &a, NULL), LIM_OK);
    assert_int_equal(lim_take(bus, p[1], 60000, &r), LIM_OK);
    assert_int_equal(lim_take(bus, p[0], 0, &(lim_taken){ 0 }), LIM_E_TIMEOUT);
    assert_int_equal(lim_reply_to(bus, p[1], r.delivery.conv, r.delivery.lease, BYTES("b did it")), LIM_OK);
    lim_taken_fini(&r);
    wait_got(&g);
    assert_string_equal(g.text, "b did it");
    assert_int_equal(lim_sys(bus, "$sys.queues", "{\"op\":\"ls\",\"namespace\":\"tenant-a\"}", 60000, &o), LIM_OK);
    assert_non_null(memmem(o.payload.ptr, o.payload.len, "aion.dispatch.tenant-a.jobs", 27)); /* as engines write it */
    assert_null(memmem(o.payload.ptr, o.payload.len, "tenant-b", 8));
    lim_outcome_fini(&o);
    work.ns = "a.b";
    assert_int_equal(lim_work(bus, "jobs", &work, &p[0]), LIM_E_INVALID);
    lim_ask_opts ask = { .size = sizeof ask, .timeout_ms = 60000, .ns = "tenant-c" };
    assert_int_equal(lim_ask(bus, "jobs", BYTES("x"), &ask, &o), LIM_OK);
    assert_int_equal(o.why, LIM_WHY_NO_PARTICIPANT);
    lim_outcome_fini(&o);
    ask.ns = "tenant-b";
    assert_int_equal(lim_ask(bus, "a.b", BYTES("x"), &ask, &o), LIM_E_INVALID);
}

static void test_a_task_may_be_due_at_an_instant_and_a_timeout_has_a_limit(void **state) /* proves GR12 */
{
    lim_bus *bus = *state;
    lim_admission a;
    lim_taken r = { 0 };
    struct timespec now;
    lim_participant p = work(bus, "due", "w", 1, NULL, NULL);
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    lim_dispatch_opts late = { .size = sizeof late, .timeout_ms = LIM_FOREVER, .at_wall_us = now_us + 3600000000 };
    assert_int_equal(lim_dispatch(bus, "due", BYTES("in an hour"), &late, NULL, NULL, &a, NULL), LIM_OK);
    assert_int_equal(lim_take(bus, p, 0, &r), LIM_E_TIMEOUT);
    lim_outcome o;
    assert_int_equal(lim_sys(bus, "$sys.queues", "{\"op\":\"why\",\"queue\":\"due\"}", 60000, &o), LIM_OK);
    assert_non_null(memmem(o.payload.ptr, o.payload.len, "not due before 3", 16)); /* 3600 s, or a moment less */
    lim_outcome_fini(&o);
    late.at_wall_us = now_us - 1;
    assert_int_equal(lim_dispatch(bus, "due", BYTES("now"), &late, NULL, NULL, &a, NULL), LIM_OK);
    assert_int_equal(lim_take(bus, p, 60000, &r), LIM_OK);
    assert_memory_equal(r.delivery.payload.ptr, "now", 3);
    assert_int_equal(lim_reply_to(bus, p, r.delivery.conv, r.delivery.lease, BYTES("")), LIM_OK);
    lim_taken_fini(&r);
    late.delay_ms = 1;
    assert_int_equal(lim_dispatch(bus, "due", BYTES("both"), &late, NULL, NULL, &a, NULL), LIM_E_INVALID);
    lim_dispatch_opts endless = { .size = sizeof endless, .timeout_ms = LIM_TIMEOUT_MS_MAX + 1 };
    assert_int_equal(lim_dispatch(bus, "due", BYTES("x"), &endless, NULL, NULL, &a, NULL), LIM_E_MISUSE);
    endless.timeout_ms = LIM_TIMEOUT_MS_MAX;
    assert_int_equal(lim_dispatch(bus, "due", BYTES("x"), &endless, NULL, NULL, &a, NULL), LIM_OK);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    assert_int_equal(lim_sys(bus, "$sys.queues", "{\"op\":\"purge\",\"queue\":\"due\"}", 60000, &o), LIM_OK);
    lim_outcome_fini(&o);
}

static void test_places_used_elsewhere_count(void **state) /* proves GR1 GR2 */
{
    lim_bus *bus = *state;
    got g[2] = { GOT_INIT, GOT_INIT };
    held h = HELD_INIT;
    lim_participant busy = serve(bus, "elsewhere", "busy", 2, on_hold, &h);
    lim_outcome o;
    assert_int_equal(lim_report_used(bus, busy, 2), LIM_OK);
    lim_participant idle = serve(bus, "elsewhere", "free", 1, on_echo, NULL);
    for (int i = 0; i < 5; i++) { /* never the busy one, although it has the larger capacity */
        assert_int_equal(lim_ask(bus, "elsewhere", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 60000), &o), LIM_OK);
        assert_int_equal(o.participant.len, 4);
        assert_memory_equal(o.participant.ptr, "free", 4);
        lim_outcome_fini(&o);
    }
    assert_int_equal(lim_report_used(bus, idle, 1), LIM_OK);
    assert_int_equal(lim_report_used(bus, busy, 0), LIM_OK);
    for (int i = 0; i < 2; i++) /* now all goes to the other one */
        assert_int_equal(lim_ask_async(bus, "elsewhere", BYTES("x"),
                                       OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER, .on_crash = LIM_CRASH_NEXT),
                                       on_outcome, &g[i], NULL),
                         LIM_OK);
    wait_held(&h, 2);
    assert_int_equal(lim_reply_to(bus, h.self[0], h.conv[0], h.lease[0], BYTES("y")), LIM_OK);
    assert_int_equal(lim_report_used(bus, idle, 0), LIM_OK);
    assert_int_equal(lim_leave(bus, busy), LIM_OK); /* what else it holds goes on to the other one */
    for (int i = 0; i < 2; i++)
        wait_got(&g[i]);
}

static void test_a_participant_may_be_registered_by_somebody_else(void **state) /* proves GR1 */
{
    lim_bus *bus = *state;
    lim_participant p, same;
    lim_outcome o;
    assert_int_equal(
        lim_participant_open(bus, OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_echo }), &p),
        LIM_OK);
    assert_int_equal(
        lim_serve(bus, "given", OPTS(lim_serve_opts, .identity = "chosen", .capacity = 1, .participant = p), &same),
        LIM_OK);
    assert_int_equal(same.id, p.id);
    assert_int_equal(lim_ask(bus, "given", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 60000), &o), LIM_OK);
    assert_payload(&o, "x");
    assert_memory_equal(o.participant.ptr, "chosen", 6);
    lim_outcome_fini(&o);
}

/* ---- routing ---- */

static void test_a_deployed_function_decides(void **state) /* proves RF7 RF12 */
{
    lim_bus *bus = *state;
    lim_hash hash, previous;
    lim_diag diag;
    lim_outcome o;
    const char *big[] = { "big", NULL };
    lim_participant p;
    assert_int_equal(lim_serve(bus, "routed",
                               OPTS(lim_serve_opts, .identity = "b", .capacity = 9, .tags = big,
                                    .handler = { .on_message = on_echo }),
                               &p),
                     LIM_OK);
    serve(bus, "routed", "s", 9, on_echo, NULL);
    static const char code[] = "return function(msg, cs)\n"
                               "  for i = 1, #cs do\n"
                               "    if (cs[i].tags.big or false) == (msg.size > 10) then return cs[i] end\n"
                               "  end\n"
                               "end\n";
    assert_int_equal(lim_artifact_load(bus, LIM_LUA, BYTES(code), "size.lua", &diag, &hash), LIM_OK);
    assert_int_equal(
        lim_deploy(bus, "routed", &hash, OPTS(lim_deploy_opts, .on_fault = LIM_ON_FAULT_REJECT), &diag, &previous),
        LIM_OK);
    for (int i = 0; i < 20; i++) {
        lim_bytes m = i % 2 ? BYTES("{\"size\":50}") : BYTES("{\"size\":5}");
        assert_int_equal(lim_ask(bus, "routed", m, OPTS(lim_ask_opts, .timeout_ms = 5000), &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        assert_memory_equal(o.participant.ptr, i % 2 ? "b" : "s", 1);
        lim_outcome_fini(&o);
    }
    assert_int_equal(lim_ask(bus, "routed", BYTES("{}"), OPTS(lim_ask_opts, .timeout_ms = 5000), &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REFUSED); /* comparing nil with a number raises */
    assert_int_equal(o.why, LIM_WHY_ROUTING_FAULT);
    lim_outcome_fini(&o);
}

static void test_a_function_that_loops_for_ever_hurts_nobody_else(void **state) /* proves RF9 */
{
    lim_bus *bus = *state;
    lim_hash hash;
    lim_diag diag;
    lim_outcome o;
    got g = GOT_INIT;
    serve(bus, "loops", NULL, 9, on_echo, NULL);
    serve(bus, "healthy", NULL, 9, on_echo, NULL);
    static const char code[] = "return function(msg, cs) while true do end end";
    assert_int_equal(lim_artifact_load(bus, LIM_LUA, BYTES(code), NULL, &diag, &hash), LIM_OK);
    assert_int_equal(lim_deploy(bus, "loops", &hash, OPTS(lim_deploy_opts, .cpu_us_max = 30000), &diag, NULL), LIM_OK);
    assert_int_equal(
        lim_ask_async(bus, "loops", BYTES("{}"), OPTS(lim_ask_opts, .timeout_ms = 60000), on_outcome, &g, NULL),
        LIM_OK);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(lim_ask(bus, "healthy", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 60000), &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        lim_outcome_fini(&o);
    }
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_REFUSED);
    assert_int_equal(g.why, LIM_WHY_ROUTING_FAULT);
}

static void test_code_that_does_not_compile_changes_nothing(void **state) /* proves RF6 */
{
    lim_hash hash;
    lim_diag diag = { 0 };
    static const char code[] = "return function(msg, cs)\n  return cs[1\nend\n";
    assert_int_equal(lim_artifact_load(*state, LIM_LUA, BYTES(code), "bad.lua", &diag, &hash), LIM_E_CODE);
    assert_int_equal(diag.line, 3);
}

/* ---- conversations ---- */

static void test_a_conversation_without_participants_is_a_buffer(void **state) /* proves CV11 */
{
    lim_bus *bus = *state;
    lim_conv c;
    lim_admission a;
    lim_outcome o;
    lim_conv_info info;
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .timeout_ms = LIM_FOREVER), &c), LIM_OK);
    assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    assert_int_equal(info.phase, LIM_PHASE_CREATED);
    assert_int_equal(lim_conv_send(bus, c, (lim_participant){ 0 }, BYTES("one"), &a), LIM_OK);
    assert_int_equal(lim_conv_send(bus, c, (lim_participant){ 0 }, BYTES("two"), &a), LIM_OK);
    assert_int_equal(lim_conv_receive(bus, c, 5000, &o), LIM_OK);
    assert_payload(&o, "one");
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_receive(bus, c, 5000, &o), LIM_OK);
    assert_payload(&o, "two");
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_receive(bus, c, 10, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_TIMEOUT);
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_send(bus, c, (lim_participant){ 0 }, BYTES("three"), &a), LIM_OK);
    assert_int_equal(lim_conv_receive(bus, c, 5000, &o), LIM_OK); /* the timed-out receive swallowed nothing: CV9 */
    assert_payload(&o, "three");
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_close(bus, c), LIM_OK);
    while (lim_alive(bus->rt, (lim_pid){ c.id }))
        continue;
    assert_int_equal(lim_conv_send(bus, c, (lim_participant){ 0 }, BYTES("x"), &a), LIM_E_GONE);
}

typedef struct heard { /* what a participant that talks back was told */
    _Atomic int count;
    lim_msg *kept;
} heard;

static lim_done on_talk(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    heard *h = ctx;
    assert_false(d->wants_reply);
    if (d->event != LIM_EVENT_NONE)
        return LIM_DONE;
    if (atomic_fetch_add(&h->count, 1) == 0)
        h->kept = lim_msg_ref(d->msg);
    return lim_conv_say(bus, d, BYTES("heard you")) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void test_what_is_sent_to_all_reaches_all_and_they_may_speak(void **state) /* proves CV10 CV12 */
{
    lim_bus *bus = *state;
    heard heard_a = { 0 }, heard_b = { 0 };
    lim_participant a, b;
    lim_conv c;
    lim_admission adm;
    lim_outcome o;
    lim_conv_info info;
    assert_int_equal(
        lim_participant_open(
            bus, OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_talk, .ctx = &heard_a }), &a),
        LIM_OK);
    assert_int_equal(
        lim_participant_open(
            bus, OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_talk, .ctx = &heard_b }), &b),
        LIM_OK);
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .participant = a, .timeout_ms = LIM_FOREVER), &c), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, b), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, b), LIM_E_EXISTS);
    assert_int_equal(lim_conv_receive(bus, c, 60000, &o), LIM_OK);
    assert_true(o.event == LIM_EVENT_JOINED && o.from.id == b.id);
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_send(bus, c, (lim_participant){ 0 }, BYTES("all of you"), &adm), LIM_OK);
    assert_int_equal(adm.verdict, LIM_ACCEPT);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lim_conv_receive(bus, c, 60000, &o), LIM_OK);
        assert_payload(&o, "heard you");
        lim_outcome_fini(&o);
    }
    assert_int_equal(atomic_load(&heard_a.count), 1);
    assert_int_equal(atomic_load(&heard_b.count), 1);
    assert_int_equal(lim_msg_payload(heard_a.kept).len, strlen("all of you"));
    assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    assert_int_equal(info.alive, 2);
    assert_int_equal(info.phase, LIM_PHASE_ACTIVE);
    lim_msg_unref(heard_a.kept);
    lim_msg_unref(heard_b.kept);
    assert_int_equal(lim_conv_close(bus, c), LIM_OK);
}

static void test_draining_waits_for_what_runs_and_takes_nothing_new(void **state)
{
    lim_bus *bus = *state;
    held h = HELD_INIT;
    got g = GOT_INIT;
    lim_outcome o;
    serve(bus, "drained", NULL, 1, on_hold, &h);
    assert_int_equal(
        lim_ask_async(bus, "drained", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER), on_outcome, &g, NULL),
        LIM_OK);
    wait_held(&h, 1);
    assert_int_equal(lim_bus_drain(bus, 5), LIM_E_TIMEOUT);
    assert_int_equal(lim_ask(bus, "drained", BYTES("y"), OPTS(lim_ask_opts, .timeout_ms = 1000), &o), LIM_E_CLOSED);
    assert_int_equal(lim_fail_to(bus, h.self[0], h.conv[0], h.lease[0], "closing down"), LIM_OK);
    assert_int_equal(lim_bus_drain(bus, LIM_FOREVER), LIM_OK);
    wait_got(&g);
    assert_int_equal(g.how, LIM_HOW_FAILED);
}

typedef struct exits {
    _Atomic int count;
    _Atomic uint64_t at_ns;
    _Atomic int reason;
} exits;

static void on_exit_seen(void *ctx, lim_participant participant, lim_reason reason, uint64_t at_ns)
{
    exits *e = ctx;
    (void)participant;
    atomic_store(&e->at_ns, at_ns);
    atomic_store(&e->reason, (int)reason);
    atomic_fetch_add(&e->count, 1);
}

static void test_exit_notifiers_fire_once_also_after_the_crash(void **state) /* proves CV5 CV6 */
{
    lim_bus *bus = *state;
    lim_conv c;
    lim_conv_info info = { 0 };
    lim_participant p;
    lim_outcome o;
    exits before = { 0 }, after = { 0 };
    assert_int_equal(
        lim_participant_open(bus, OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_echo }), &p),
        LIM_OK);
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .participant = p, .timeout_ms = LIM_FOREVER), &c), LIM_OK);
    assert_int_equal(lim_conv_ask(bus, c, p, BYTES("hi"), 5000, &o), LIM_OK);
    assert_payload(&o, "hi");
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_notify(bus, c, p, on_exit_seen, &before), LIM_OK);
    lim_runtime_exit(bus->rt, (lim_pid){ p.id }, LIM_KILL);
    while (atomic_load(&before.count) == 0)
        continue;
    assert_int_equal(lim_conv_notify(bus, c, p, on_exit_seen, &after), LIM_OK);
    while (atomic_load(&after.count) == 0)
        continue;
    assert_int_equal(atomic_load(&before.count), 1);
    assert_int_equal(atomic_load(&before.at_ns), atomic_load(&after.at_ns));
    assert_int_equal(atomic_load(&before.reason), LIM_KILLED);
    assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    assert_int_equal(info.phase, LIM_PHASE_BROKEN);
    assert_int_equal(lim_conv_receive(bus, c, 5000, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_CRASHED);
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_close(bus, c), LIM_OK);
}

/* ---- census ---- */

static void test_the_census_returns_to_where_it_was(void **state) /* proves CV14 RT12 */
{
    lim_bus *bus = *state;
    lim_bus_census before, after;
    lim_outcome o;
    serve(bus, "counted", NULL, 4, on_echo, NULL);
    lim_bus_census_take(bus, &before);
    for (int i = 0; i < 500; i++) {
        assert_int_equal(lim_ask(bus, "counted", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 5000), &o), LIM_OK);
        lim_outcome_fini(&o);
    }
    for (int i = 0; i < 100000; i++) { /* what ends, ends a moment after its outcome */
        lim_bus_census_take(bus, &after);
        if (after.conversations == before.conversations && after.runtime.processes == before.runtime.processes &&
            after.runtime.timers == before.runtime.timers)
            break;
    }
    assert_int_equal(after.conversations, before.conversations);
    assert_int_equal(after.runtime.processes, before.runtime.processes);
    assert_int_equal(after.runtime.timers, before.runtime.timers);
}

int main(void)
{
    int failed = 0;
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
    const struct CMUnitTest tests[] = {
        T(test_an_ask_is_answered),
        T(test_a_group_with_nobody_in_it_refuses_at_once),
        T(test_names_that_no_connection_could_carry_are_refused),
        T(test_an_ask_may_wait_for_a_participant),
        T(test_an_ask_without_a_reply_is_remembered_for_a_while),
        T(test_silence_ends_at_the_deadline_and_never_echoes),
        T(test_a_participant_may_say_that_it_could_not),
        T(test_an_ask_ends_crashed_when_its_participant_dies),
        T(test_an_ask_moves_to_the_next_and_names_those_it_lost),
        T(test_when_nobody_is_left_the_outcome_names_everybody),
        T(test_capacity_is_a_limit_and_the_rest_waits),
        T(test_cancel_ends_an_ask_and_keeps_the_place_until_the_participant_is_done),
        T(test_closing_the_bus_ends_what_waits),
        T(test_a_task_is_dispatched_and_its_result_kept),
        T(test_a_task_goes_to_the_next_worker_when_its_worker_dies),
        T(test_a_task_that_kills_its_workers_does_not_kill_them_all),
        T(test_an_identity_is_taken_once),
        T(test_a_worker_may_pull),
        T(test_one_queue_name_in_two_namespaces_is_two_queues),
        T(test_a_task_may_be_due_at_an_instant_and_a_timeout_has_a_limit),
        T(test_places_used_elsewhere_count),
        T(test_a_participant_may_be_registered_by_somebody_else),
        T(test_a_deployed_function_decides),
        T(test_a_function_that_loops_for_ever_hurts_nobody_else),
        T(test_code_that_does_not_compile_changes_nothing),
        T(test_a_conversation_without_participants_is_a_buffer),
        T(test_exit_notifiers_fire_once_also_after_the_crash),
        T(test_what_is_sent_to_all_reaches_all_and_they_may_speak),
        T(test_draining_waits_for_what_runs_and_takes_nothing_new),
        T(test_the_census_returns_to_where_it_was),
    };
    for (schedulers = 1; schedulers <= 2; schedulers++)
        failed += cmocka_run_group_tests_name(schedulers == 1 ? "one scheduler" : "two schedulers", tests, NULL, NULL);
    return failed;
}
