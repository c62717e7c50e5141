/* SPDX-License-Identifier: Apache-2.0
 * over_tcp_test.c - the verbs of client.h that wait, and what only real threads and sockets show: a server and its
 * clients in one process, over the loopback interface, with the schedulers' and the clients' own threads.
 *
 *      asker (client) <==TCP==> server, bus with two schedulers <==TCP==> worker (client)
 *
 * Nothing sleeps: who waits for something waits on a condition that a callback signals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <liminal/client.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "bus/bus.h"
#include "server/server.h"

#define TEXT(s) lim__bytes((s), sizeof(s) - 1)
enum { PARTS = 2000, WINDOW = 16 };

typedef struct stage {
    lim_bus *bus;
    lim__server *server;
    lim_client *asker, *worker;
    lim_participant registration, number; /* of the worker: its own, and the server's */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* under the mutex */
    uint32_t parts, ends, full, requests, events, revoked, credits;
    uint32_t sent; /* parts of the answer at hand */
    uint64_t call;
    bool in_order, after_end, holds;
    lim_how how;
    lim_event event;
    char type[32], payload[32];
    lim_delivery at_hand; /* its views are over */
} stage;

static void changed(stage *s)
{
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

#define AWAIT(s, condition)                                                                                            \
    do {                                                                                                               \
        pthread_mutex_lock(&(s)->mutex);                                                                               \
        while (!(condition))                                                                                           \
            pthread_cond_wait(&(s)->changed, &(s)->mutex);                                                             \
        pthread_mutex_unlock(&(s)->mutex);                                                                             \
    } while (0)

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

static void stage_open(stage *s)
{
    lim_bus_opts bus = { .size = sizeof bus, .scheduler_count = 2 };
    lim__server_opts server = { .host = "127.0.0.1", .spread = true };
    lim_diag diag;
    *s = (stage){ .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .in_order = true };
    assert_int_equal(lim_bus_open(&bus, &s->bus), LIM_OK);
    assert_int_equal(lim__server_open(s->bus, &server, &diag, &s->server), LIM_OK);
    s->asker = connect_to(s, "asker");
    s->worker = connect_to(s, "worker");
}

static void stage_close(stage *s)
{
    lim_client_close(s->asker);
    lim_client_close(s->worker);
    lim_bus_close(s->bus);
    lim__server_close(s->server);
}

/* ---- an answer in parts ---- */

/* As many parts as there is credit for, from whatever thread has brought it; the last one is followed by the reply. */
static void send_parts(stage *s, lim_conv conv, uint64_t lease)
{
    char text[16];
    pthread_mutex_lock(&s->mutex);
    for (lim_err err = LIM_OK; err == LIM_OK && s->sent < PARTS;) {
        int n = snprintf(text, sizeof text, "%u", s->sent + 1);
        err = lim_client_part_to(s->worker, s->registration, conv, lease, lim__bytes(text, (size_t)n));
        s->sent += err == LIM_OK;
        s->full += err == LIM_E_FULL;
        LIM_ASSERT(err == LIM_OK || err == LIM_E_FULL || err == LIM_E_GONE);
        if (s->sent == PARTS)
            LIM_ASSERT(lim_client_reply_to(s->worker, s->registration, conv, lease, TEXT("end")) == LIM_OK);
    }
    changed(s);
}

static lim_done on_stream(lim_client *c, const lim_delivery *d, void *ctx)
{
    stage *s = ctx;
    (void)c;
    pthread_mutex_lock(&s->mutex);
    s->registration = d->self;
    s->sent = 0;
    s->at_hand = *d;
    changed(s);
    send_parts(s, d->conv, d->lease);
    return LIM_HOLD;
}
static void on_credit(void *ctx, lim_conv conv, uint64_t lease, uint32_t credit)
{
    stage *s = ctx;
    pthread_mutex_lock(&s->mutex);
    s->credits += credit;
    changed(s);
    send_parts(s, conv, lease);
}
static void on_revoked(void *ctx, lim_conv conv, uint64_t lease, const char *why)
{
    stage *s = ctx;
    (void)conv, (void)lease, (void)why;
    pthread_mutex_lock(&s->mutex);
    s->revoked++;
    changed(s);
}
static void on_end(void *ctx, lim_err why, const char *detail)
{
    (void)ctx, (void)why, (void)detail;
}

static lim_done on_part(void *ctx, const lim_part_view *part)
{
    stage *s = ctx;
    unsigned number = 0;
    char text[16];
    snprintf(text, sizeof text, "%.*s", (int)part->payload.len, (const char *)part->payload.ptr);
    LIM_ASSERT(sscanf(text, "%u", &number) == 1);
    pthread_mutex_lock(&s->mutex);
    s->after_end |= s->ends > 0;
    s->parts++;
    s->in_order &= part->seq == s->parts && number == s->parts;
    lim_done says = s->holds ? LIM_HOLD : LIM_DONE;
    changed(s);
    return says;
}
static void on_outcome(void *ctx, const lim_outcome *o)
{
    stage *s = ctx;
    pthread_mutex_lock(&s->mutex);
    s->how = o->how;
    s->ends++;
    changed(s);
}

static void serve(stage *s, const char *group, lim_done (*on_message)(lim_client *, const lim_delivery *, void *))
{
    lim_client_serve_opts opts = { .size = sizeof opts,
                                   .capacity = 4,
                                   .handler = { on_message, on_end, s },
                                   .on_revoked = on_revoked,
                                   .on_credit = on_credit };
    assert_int_equal(lim_client_serve(s->worker, group, &opts, NULL, &s->registration), LIM_OK);
    assert_int_equal(lim_client_participant_id(s->worker, s->registration, &s->number), LIM_OK);
}

static void ask_stream(stage *s)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .window = WINDOW };
    s->parts = s->ends = s->full = s->revoked = s->credits = 0;
    assert_int_equal(lim_client_ask_stream(s->asker, "tokens", TEXT("go"), &opts, on_part, on_outcome, s, &s->call),
                     LIM_OK);
}

static void test_many_parts_cross_in_order_within_the_window(void **state) /* proves CV13 PR3 */
{
    (void)state;
    stage s;
    stage_open(&s);
    serve(&s, "tokens", on_stream);
    ask_stream(&s);
    AWAIT(&s, s.ends == 1);
    assert_int_equal(s.parts, PARTS);
    assert_true(s.in_order);
    assert_int_equal(s.how, LIM_HOW_REPLY);
    assert_true(s.full > 0); /* it was held back */
    assert_in_range(s.credits, PARTS - WINDOW, PARTS);

    s.holds = true; /* nobody is done with any: exactly a window comes */
    ask_stream(&s);
    AWAIT(&s, s.parts == WINDOW && s.sent == WINDOW && s.full > 0);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t before = s.parts;
        assert_int_equal(lim_client_grant(s.asker, s.call, WINDOW / 4), LIM_OK);
        AWAIT(&s, s.parts == before + WINDOW / 4);
    }
    assert_int_equal(s.parts, 2 * WINDOW);
    assert_int_equal(lim_client_cancel(s.asker, s.call), LIM_OK);
    AWAIT(&s, s.ends == 1 && s.revoked == 1); /* the participant is told */
    assert_int_equal(s.how, LIM_HOW_CANCELLED);
    assert_false(s.after_end);
    assert_int_equal(lim_client_part_to(s.worker, s.registration, s.at_hand.conv, s.at_hand.lease, TEXT("late")),
                     LIM_E_GONE);
    stage_close(&s);
}

static void test_a_connection_that_ends_takes_its_answers_in_parts_with_it(void **state) /* proves CV3 CV4 */
{
    (void)state;
    stage s;
    stage_open(&s);
    serve(&s, "tokens", on_stream);
    s.holds = true;
    ask_stream(&s);
    AWAIT(&s, s.parts == WINDOW);
    lim_client_close(s.worker);
    AWAIT(&s, s.ends == 1);
    assert_int_equal(s.how, LIM_HOW_CRASHED);
    s.worker = connect_to(&s, "worker");
    serve(&s, "tokens", on_stream);
    ask_stream(&s);
    AWAIT(&s, s.parts == WINDOW);
    lim_client_close(s.asker); /* ends it for itself, and revokes it there */
    assert_int_equal(s.ends, 1);
    assert_int_equal(s.how, LIM_HOW_CLOSED);
    AWAIT(&s, s.revoked == 1);
    s.asker = connect_to(&s, "asker");
    stage_close(&s);
}

/* ---- everybody ---- */

static lim_done on_vote(void *ctx, const lim_part_view *part)
{
    stage *s = ctx;
    pthread_mutex_lock(&s->mutex);
    s->after_end |= s->ends > 0;
    s->parts += part->how == LIM_HOW_REPLY;
    changed(s);
    return LIM_DONE;
}

static lim_done on_poll(lim_client *c, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_client_reply(c, d, TEXT("aye")) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void test_everybody_is_asked(void **state)
{
    (void)state;
    stage s;
    lim_participant more[7];
    lim_client_serve_opts opts = { .size = sizeof opts, .capacity = 4, .handler = { on_poll, on_end, &s } };
    lim_ask_opts all = { .size = sizeof all, .timeout_ms = LIM_FOREVER }, first = all;
    first.quorum = 1;
    stage_open(&s);
    for (size_t i = 0; i < LIM_COUNT(more); i++)
        assert_int_equal(lim_client_serve(s.worker, "voters", &opts, NULL, &more[i]), LIM_OK);
    assert_int_equal(lim_client_ask_all(s.asker, "voters", TEXT("?"), &all, on_vote, on_outcome, &s, NULL), LIM_OK);
    AWAIT(&s, s.ends == 1);
    assert_int_equal(s.parts, LIM_COUNT(more));
    assert_int_equal(s.how, LIM_HOW_REPLY);
    s.ends = s.parts = 0;
    assert_int_equal(lim_client_ask_all(s.asker, "voters", TEXT("?"), &first, on_vote, on_outcome, &s, NULL), LIM_OK);
    AWAIT(&s, s.ends == 1);
    assert_int_equal(s.parts, 1); /* whoever was first */
    assert_false(s.after_end);
    stage_close(&s);
}

/* ---- conversations ---- */

static lim_done on_talk(lim_client *c, const lim_delivery *d, void *ctx)
{
    stage *s = ctx;
    lim_done done = LIM_DONE;
    pthread_mutex_lock(&s->mutex);
    s->at_hand = *d;
    s->event = d->event;
    s->events += d->event != LIM_EVENT_NONE;
    s->requests += d->event == LIM_EVENT_NONE;
    snprintf(s->type, sizeof s->type, "%.*s", (int)d->type.len, (const char *)d->type.ptr);
    snprintf(s->payload, sizeof s->payload, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    if (d->wants_reply && lim_client_reply(c, d, TEXT("yes")) != LIM_OK)
        done = LIM_FAIL;
    changed(s);
    return done;
}

static void receive(stage *s, lim_conv conv, lim_event event, const char *payload)
{
    lim_outcome out;
    assert_int_equal(lim_client_conv_receive(s->asker, conv, 60000, &out), LIM_OK);
    assert_int_equal(out.how, LIM_HOW_REPLY);
    assert_int_equal(out.event, event);
    assert_true(lim__bytes_eq(out.payload, lim__str(payload)));
    if (event == LIM_EVENT_NONE || event == LIM_EVENT_JOINED || event == LIM_EVENT_LEFT)
        assert_int_equal(out.from.id, s->number.id);
    lim_outcome_fini(&out);
}

typedef struct told {
    uint64_t count, last;
    bool opened, joined, left;
} told;

static void on_entry(void *ctx, const lim_history_entry *e)
{
    told *t = ctx;
    assert_true(e->n > t->last);
    t->last = e->n;
    t->count++;
    t->opened |= lim__bytes_eq(e->kind, TEXT("opened"));
    t->joined |= lim__bytes_eq(e->kind, TEXT("joined"));
    t->left |= lim__bytes_eq(e->kind, TEXT("left"));
}

static void test_a_conversation_is_led_by_waiting_verbs(void **state) /* proves CV12 CV17 CV19 */
{
    (void)state;
    static const char *const attributes[] = { "floor=3", NULL };
    stage s;
    lim_conv conv, found;
    lim_outcome out;
    lim_diag diag = { 0 };
    lim_client_conv_opts opts = {
        .size = sizeof opts, .timeout_ms = LIM_FOREVER, .name = "room-1", .attributes = attributes, .trace = true
    };
    stage_open(&s);
    serve(&s, "experts", on_talk);
    assert_int_equal(lim_client_conv_find(s.worker, "room-1", &found), LIM_E_NOTFOUND);
    assert_int_equal(lim_client_conv_open(s.asker, &opts, &diag, &conv), LIM_OK);
    assert_int_equal(lim_client_conv_find(s.worker, "room-1", &found), LIM_OK);
    assert_int_equal(found.id, conv.id);
    assert_int_equal(lim_client_conv_open(s.worker, &opts, &diag, &found), LIM_E_EXISTS);
    assert_string_equal(diag.text, "a living conversation has that name");
    assert_int_equal(lim_client_conv_leave(s.asker, conv, s.number), LIM_E_NOTFOUND);
    assert_int_equal(lim_client_conv_join(s.asker, conv, s.number), LIM_OK);
    assert_int_equal(lim_client_conv_join(s.asker, conv, s.number), LIM_E_EXISTS);
    receive(&s, conv, LIM_EVENT_JOINED, "");
    assert_int_equal(lim_client_conv_ask(s.asker, conv, s.number, TEXT("there?"), 60000, &out), LIM_OK);
    assert_true(lim__bytes_eq(out.payload, TEXT("yes")));
    lim_outcome_fini(&out);
    assert_int_equal(lim_client_say_to(s.worker, &s.at_hand, LIM_EVERYBODY, TEXT("hear!")), LIM_OK);
    receive(&s, conv, LIM_EVENT_NONE, "hear!");
    assert_int_equal(lim_client_signal(s.worker, conv, "pause", TEXT("1h")), LIM_OK);
    AWAIT(&s, s.events == 1);
    assert_int_equal(s.event, LIM_EVENT_SIGNAL);
    assert_string_equal(s.type, "pause");
    assert_string_equal(s.payload, "1h");
    receive(&s, conv, LIM_EVENT_SIGNAL, "1h");
    assert_int_equal(lim_client_signal(s.worker, conv, "a.b", TEXT("")), LIM_E_INVALID);
    assert_int_equal(lim_client_conv_leave(s.asker, conv, s.number), LIM_OK);
    receive(&s, conv, LIM_EVENT_LEFT, "");
    lim_client_close(s.asker);
    s.asker = connect_to(&s, "asker");
    stage_close(&s);
}

static void test_a_history_is_read_while_it_lives_and_afterwards(void **state) /* proves CV17 */
{
    (void)state;
    stage s;
    lim_conv conv, plain;
    uint64_t entries = 0, all;
    told t = { 0 }, later = { 0 };
    lim_client_conv_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .trace = true };
    stage_open(&s);
    serve(&s, "experts", on_talk);
    assert_int_equal(lim_client_conv_open(s.asker, &opts, NULL, &conv), LIM_OK);
    opts.trace = false;
    assert_int_equal(lim_client_conv_open(s.asker, &opts, NULL, &plain), LIM_OK);
    assert_int_equal(lim_client_conv_join_required(s.asker, conv, s.number), LIM_OK);
    assert_int_equal(lim_client_history(s.worker, conv, 0, on_entry, &t, &entries), LIM_OK);
    assert_true(t.opened && t.joined && !t.left);
    assert_int_equal(t.count, entries);
    assert_int_equal(lim_client_history(s.worker, plain, 0, on_entry, &t, &all), LIM_E_NOTFOUND);
    assert_int_equal(lim_client_conv_leave(s.asker, conv, s.number), LIM_OK); /* required: it fails, and so it ends */
    lim_outcome out = { .how = LIM_HOW_REPLY };
    while (out.how == LIM_HOW_REPLY) {
        lim_outcome_fini(&out);
        assert_int_equal(lim_client_conv_receive(s.asker, conv, 60000, &out), LIM_OK);
    }
    assert_int_equal(out.how, LIM_HOW_CRASHED);
    lim_outcome_fini(&out);
    assert_int_equal(lim_client_history(s.worker, conv, t.last, on_entry, &later, &all), LIM_OK);
    assert_true(later.left && !later.opened);
    assert_int_equal(t.count + later.count, all);
    assert_int_equal(lim_client_signal(s.worker, conv, "pause", TEXT("")), LIM_E_GONE);
    stage_close(&s);
}

/* ---- tasks ---- */

static lim_done on_task(lim_client *c, const lim_delivery *d, void *ctx)
{
    stage *s = ctx;
    LIM_ASSERT(d->event != LIM_EVENT_NONE || lim_client_progress(c, d->self, d->conv, d->lease, "begun") == LIM_OK);
    pthread_mutex_lock(&s->mutex);
    s->requests += d->event == LIM_EVENT_NONE;
    s->events += d->event != LIM_EVENT_NONE;
    s->at_hand = d->event == LIM_EVENT_NONE ? *d : s->at_hand;
    snprintf(s->type, sizeof s->type, "%.*s", (int)d->type.len, (const char *)d->type.ptr);
    changed(s);
    return LIM_HOLD;
}

static bool shows(const stage *s, lim_conv task, const char *what)
{
    char request[96];
    lim_outcome out;
    snprintf(request, sizeof request, "{\"op\":\"show\",\"id\":\"%" PRIx64 "\"}", task.id);
    assert_int_equal(lim_client_sys(s->asker, "$sys.tasks", request, 60000, &out), LIM_OK);
    bool is_there = memmem(out.payload.ptr, out.payload.len, what, strlen(what)) != NULL;
    lim_outcome_fini(&out);
    return is_there;
}

static void test_a_task_is_worked_on_signalled_and_awaited(void **state) /* proves GR7 GR13 CV19 */
{
    (void)state;
    stage s;
    lim_conv task, same;
    lim_admission admission;
    lim_outcome out;
    lim_client_serve_opts work = { .size = sizeof work, .capacity = 1, .handler = { on_task, on_end, &s } };
    lim_dispatch_opts opts = {
        .size = sizeof opts, .timeout_ms = LIM_FOREVER, .idempotency_key = "o-17", .progress_ms = 60000
    };
    stage_open(&s);
    assert_int_equal(lim_client_work(s.worker, "jobs", &work, NULL, &s.registration), LIM_OK);
    assert_int_equal(lim_client_dispatch(s.asker, "jobs", TEXT("x"), &opts, &admission, &task), LIM_OK);
    AWAIT(&s, s.requests == 1);
    assert_int_equal(lim_client_dispatch(s.asker, "jobs", TEXT("x"), &opts, &admission, &same), LIM_OK);
    assert_int_equal(same.id, task.id);
    while (!shows(&s, task, "begun")) /* it comes over another connection than the question */
        ;
    assert_int_equal(lim_client_signal(s.asker, task, "hurry", TEXT("")), LIM_OK);
    AWAIT(&s, s.events == 1);
    assert_string_equal(s.type, "hurry");
    assert_int_equal(lim_client_await(s.asker, task, 1, &out), LIM_E_TIMEOUT);
    assert_int_equal(lim_client_await_async(s.asker, task, on_outcome, &s, NULL), LIM_OK);
    assert_int_equal(lim_client_reply_to(s.worker, s.registration, s.at_hand.conv, s.at_hand.lease, TEXT("done")),
                     LIM_OK);
    assert_int_equal(lim_client_await(s.asker, task, 60000, &out), LIM_OK);
    assert_true(lim__bytes_eq(out.payload, TEXT("done")));
    lim_outcome_fini(&out);
    AWAIT(&s, s.ends == 1);
    assert_int_equal(s.requests, 1); /* the one that was sent twice was done once */
    stage_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_parts_cross_in_order_within_the_window),
        cmocka_unit_test(test_a_connection_that_ends_takes_its_answers_in_parts_with_it),
        cmocka_unit_test(test_everybody_is_asked),
        cmocka_unit_test(test_a_conversation_is_led_by_waiting_verbs),
        cmocka_unit_test(test_a_history_is_read_while_it_lives_and_afterwards),
        cmocka_unit_test(test_a_task_is_worked_on_signalled_and_awaited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
