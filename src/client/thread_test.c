/* SPDX-License-Identifier: Apache-2.0
 * thread_test.c - the client with its own threads, against a small server over real loopback sockets.
 *
 * The server lives on one thread and answers at once: publishes are accepted and delivered to every subscription of the
 * connection; the group "echo" replies, "never" does not, "work" goes to the connection's registration; a publish to
 * "break" drops the connection. In a conversation it says everything back, but rejects "no" and keeps silent on
 * "never"; participant 9 may join once, 10 is not answered. */
#include "client/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <cmocka.h>

#define TEXT(s) lim__bytes((s), sizeof(s) - 1)
enum { PEERS = 16 };

/* ---- the server ---- */

typedef struct peer {
    int fd; /* -1: none */
    lim__wire wire;
    lim__buf in, out;
    uint32_t sub, reg; /* streams; 0: none */
    uint64_t seq, conv;
    bool drop, joined;
} peer;

typedef struct host {
    lim__os *os;
    lim__poller *poller;
    int listener;
    uint16_t port;
    lim__thread thread;
    peer peers[PEERS];
    _Atomic uint64_t taken, pongs, acks, connections, byes;
    _Atomic bool stop, ping;
    lim__mutex mutex; /* for who waits for a count to change */
    lim__cond changed;
} host;

static void count(host *h, _Atomic uint64_t *what, uint64_t n)
{
    pthread_mutex_lock(&h->mutex);
    *what += n;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
}

static void await_count(host *h, _Atomic uint64_t *what, uint64_t at_least)
{
    pthread_mutex_lock(&h->mutex);
    while (*what < at_least)
        lim__cond_wait_until(&h->changed, &h->mutex, UINT64_MAX);
    pthread_mutex_unlock(&h->mutex);
}

static void must(lim_err err)
{
    LIM_ASSERT(err == LIM_OK); /* cmocka's assertions are for the test's own thread */
}

static void on_publish(peer *p, const lim__frame *frame)
{
    lim__f_publish f;
    LIM_ASSERT(lim__get_publish(frame, &f));
    if (lim__bytes_eq(f.channel, TEXT("break")))
        p->drop = true;
    if (p->sub)
        must(lim__put_deliver(
            &p->out,
            &(lim__f_deliver){ .stream = p->sub, .seq = ++p->seq, .channel = f.channel, .payload = f.payload }));
    must(lim__put_published(&p->out, &(lim__f_published){ .first_corr = f.corr, .count = 1, .verdict = LIM_ACCEPT }));
}

static void outcome(peer *p, uint64_t corr, lim_bytes payload)
{
    must(lim__put_outcome(&p->out, &(lim__f_outcome){ .corr = corr,
                                                      .how = LIM_HOW_REPLY,
                                                      .payload = payload,
                                                      .handed_over = LIM_HANDED_YES,
                                                      .verdict = LIM_ACCEPT }));
}

static void on_ask(peer *p, const lim__frame *frame)
{
    lim__f_ask f;
    LIM_ASSERT(lim__get_ask(frame, &f));
    if (lim__bytes_eq(f.group, TEXT("work")) && p->reg)
        must(lim__put_request(&p->out, &(lim__f_request){ .stream = p->reg,
                                                          .flags = LIM__FLAG_TAKEN,
                                                          .conversation = f.corr,
                                                          .lease = f.corr,
                                                          .attempt = 1,
                                                          .remaining_ms = f.timeout_ms,
                                                          .payload = f.payload }));
    else if (!lim__bytes_eq(f.group, TEXT("never")))
        outcome(p, f.corr, f.payload);
}

static void on_reply(peer *p, const lim__frame *frame)
{
    lim__f_reply f;
    LIM_ASSERT(lim__get_reply(frame, &f));
    must(lim__put_settled(
        &p->out,
        &(lim__f_settled){ .stream = f.stream, .conversation = f.conversation, .lease = f.lease, .accepted = 1 }));
    outcome(p, f.conversation, f.payload);
}

static void on_dispatch(peer *p, const lim__frame *frame)
{
    lim__f_dispatch f;
    LIM_ASSERT(lim__get_dispatch(frame, &f));
    must(lim__put_dispatched(&p->out, &(lim__f_dispatched){ .corr = f.corr, .verdict = LIM_ACCEPT, .task = 90 }));
    if (f.flags & LIM__FLAG_OUTCOME)
        outcome(p, f.corr, f.payload);
}

static void on_send(peer *p, const lim__frame *frame)
{
    lim__f_send f;
    LIM_ASSERT(lim__get_send(frame, &f));
    if (lim__bytes_eq(f.payload, TEXT("never")))
        return;
    if (lim__bytes_eq(f.payload, TEXT("no"))) {
        must(lim__put_sent(&p->out, &(lim__f_sent){ .stream = f.stream,
                                                    .first_corr = f.corr,
                                                    .count = 1,
                                                    .verdict = LIM_REJECT,
                                                    .why = LIM_WHY_PARTICIPANT_FULL }));
        return;
    }
    must(lim__put_sent(&p->out, &(lim__f_sent){ .stream = f.stream, .first_corr = f.corr, .count = 1, .verdict = 1 }));
    must(lim__put_message(&p->out,
                          &(lim__f_message){ .stream = f.stream, .from = 9, .seq = ++p->conv, .payload = f.payload }));
}

static void on_join(peer *p, const lim__frame *frame)
{
    lim__f_join f;
    LIM_ASSERT(lim__get_join(frame, &f));
    if (f.participant != 9)
        return;
    must(lim__put_joined(
        &p->out, &(lim__f_joined){ .stream = f.stream, .corr = f.corr, .code = p->joined ? LIM_E_EXISTS : LIM_OK }));
    p->joined = true;
}

static void on_await(peer *p, const lim__frame *frame)
{
    lim__f_await f;
    LIM_ASSERT(lim__get_await(frame, &f));
    if (f.task == 405)
        must(lim__put_outcome(&p->out, &(lim__f_outcome){ .corr = f.corr,
                                                          .how = LIM_HOW_REFUSED,
                                                          .why = LIM_WHY_NO_PARTICIPANT,
                                                          .verdict = LIM_REJECT,
                                                          .handed_over = LIM_HANDED_NO }));
    else if (f.task != 404)
        outcome(p, f.corr, TEXT("awaited"));
}

static void on_hello(peer *p)
{
    must(lim__put_welcome(&p->out, &(lim__f_welcome){ .frame_max = LIM__LENGTH_MAX, .session = { { 1 } } }));
}

static void serve_frame(host *h, peer *p, const lim__frame *frame)
{
    lim__f_askin askin;
    switch (frame->type) {
    case LIM__HELLO:
        on_hello(p);
        break;
    case LIM__PUBLISH:
        on_publish(p, frame);
        break;
    case LIM__SUBSCRIBE:
        p->sub = frame->stream;
        must(lim__put_subscribed(&p->out, &(lim__f_subscribed){ .stream = p->sub }));
        break;
    case LIM__UNSUBSCRIBE:
        p->sub = 0;
        must(lim__put_ended(&p->out, &(lim__f_ended){ .stream = frame->stream }));
        break;
    case LIM__SERVE:
        if (p->reg) {
            must(lim__put_left(&p->out, &(lim__f_left){ .stream = frame->stream, .code = LIM_E_EXISTS }));
            break;
        }
        p->reg = frame->stream;
        must(lim__put_served(&p->out, &(lim__f_served){ .stream = p->reg, .identity = TEXT("w1") }));
        break;
    case LIM__LEAVE:
        p->reg = 0;
        must(lim__put_left(&p->out, &(lim__f_left){ .stream = frame->stream }));
        break;
    case LIM__ASK:
        on_ask(p, frame);
        break;
    case LIM__TAKEN:
        count(h, &h->taken, 1);
        break;
    case LIM__ACK:
        count(h, &h->acks, 1);
        break;
    case LIM__REPLY:
        on_reply(p, frame);
        break;
    case LIM__DISPATCH:
        on_dispatch(p, frame);
        break;
    case LIM__AWAIT:
        on_await(p, frame);
        break;
    case LIM__JOIN:
        on_join(p, frame);
        break;
    case LIM__OPEN:
        must(lim__put_opened(&p->out, &(lim__f_opened){ .stream = frame->stream, .conversation = 50 }));
        break;
    case LIM__SEND:
        on_send(p, frame);
        break;
    case LIM__ASKIN:
        LIM_ASSERT(lim__get_askin(frame, &askin));
        outcome(p, askin.corr, askin.payload);
        break;
    case LIM__CLOSE:
        must(lim__put_closed(&p->out, &(lim__f_closed){ .stream = frame->stream, .phase = LIM_PHASE_ENDED }));
        break;
    default:
        break;
    }
}

static void drop_peer(host *h, peer *p)
{
    h->os->poller_set(h->os, h->poller, p->fd, 0, p);
    h->os->close(h->os, p->fd);
    lim__buf_fini(&p->in);
    lim__buf_fini(&p->out);
    p->fd = -1;
}

static void accept_peer(host *h)
{
    char name[64];
    int fd = h->os->accept(h->os, h->listener, name, sizeof name);
    if (fd < 0)
        return;
    peer *p = h->peers;
    while (p->fd >= 0)
        p++;
    LIM_ASSERT(p < h->peers + PEERS);
    *p = (peer){ .fd = fd };
    lim__wire_init(&p->wire, LIM__WIRE_SERVER, &p->out, NULL);
    lim__wire_open(&p->wire);
    h->os->poller_set(h->os, h->poller, fd, LIM__IO_READ, p);
    count(h, &h->connections, 1);
}

static void flush_peer(host *h, peer *p)
{
    while (p->fd >= 0 && lim__buf_len(&p->out) > 0) {
        lim_bytes out = lim__buf_bytes(&p->out);
        long n = h->os->send(h->os, p->fd, out.ptr, out.len);
        if (n > 0) {
            lim__buf_consume(&p->out, (size_t)n);
        } else {
            if (n != -EAGAIN)
                drop_peer(h, p);
            break;
        }
    }
    if (p->fd >= 0)
        h->os->poller_set(h->os, h->poller, p->fd, LIM__IO_READ | (lim__buf_len(&p->out) > 0 ? LIM__IO_WRITE : 0u), p);
}

static void read_peer(host *h, peer *p)
{
    uint8_t *room = lim__buf_reserve(&p->in, 65536);
    LIM_ASSERT(room != NULL);
    long n = h->os->recv(h->os, p->fd, room, 65536);
    if (n == -EAGAIN)
        return;
    if (n > 0)
        p->in.end += (size_t)n;
    lim_bytes all = lim__buf_bytes(&p->in);
    lim__span in = { (const uint8_t *)all.ptr, (const uint8_t *)all.ptr + all.len };
    lim__frame frame;
    lim__wire_got got = LIM__WIRE_MORE;
    uint64_t pongs = p->wire.pongs;
    while (n > 0 && !p->drop && (got = lim__wire_next(&p->wire, &in, &frame)) == LIM__WIRE_FRAME)
        serve_frame(h, p, &frame);
    if (p->wire.pongs > pongs)
        count(h, &h->pongs, p->wire.pongs - pongs);
    lim__buf_consume(&p->in, (size_t)(in.p - (const uint8_t *)all.ptr));
    if (got == LIM__WIRE_END) {
        LIM_ASSERT(p->wire.code == LIM_OK); /* a client never breaks the protocol */
        count(h, &h->byes, 1);
    }
    if (n <= 0 || p->drop || got == LIM__WIRE_END)
        drop_peer(h, p);
    else
        flush_peer(h, p);
}

static void *host_main(void *arg)
{
    host *h = arg;
    lim__io_event ev[PEERS];
    while (!h->stop) {
        int n = h->os->poller_wait(h->os, h->poller, ev, PEERS, -1);
        for (int i = 0; i < n; i++) {
            peer *p = ev[i].ctx;
            if (p == NULL)
                accept_peer(h);
            else if (ev[i].ready & LIM__IO_READ)
                read_peer(h, p);
            else
                flush_peer(h, p);
        }
        for (peer *p = h->peers; p < h->peers + PEERS && h->ping; p++) {
            if (p->fd >= 0)
                lim__wire_ping(&p->wire);
            if (p->fd >= 0)
                flush_peer(h, p);
        }
        h->ping = false;
    }
    return NULL;
}

static host *host_start(void)
{
    host *h = calloc(1, sizeof *h);
    assert_non_null(h);
    h->os = lim__os_linux();
    h->poller = h->os->poller_open(h->os);
    pthread_mutex_init(&h->mutex, NULL);
    lim__cond_init(&h->changed);
    for (int i = 0; i < PEERS; i++)
        h->peers[i].fd = -1;
    h->listener = h->os->listen(h->os, "127.0.0.1", 0, &h->port);
    assert_true(h->listener >= 0);
    assert_int_equal(h->os->poller_set(h->os, h->poller, h->listener, LIM__IO_READ, NULL), 0);
    assert_int_equal(lim__thread_start(&h->thread, "host", host_main, h), 0);
    return h;
}

static void host_stop(host *h)
{
    h->stop = true;
    h->os->poller_wake(h->os, h->poller);
    lim__thread_join(h->thread);
    for (peer *p = h->peers; p < h->peers + PEERS; p++) {
        if (p->fd >= 0)
            drop_peer(h, p);
    }
    h->os->close(h->os, h->listener);
    h->os->poller_close(h->os, h->poller);
    free(h);
}

/* Why it broke, for whoever reads a failed test. */
static void note_break(void *ctx, lim_link_state state, const char *detail)
{
    (void)ctx;
    if (state == LIM_LINK_DOWN)
        fprintf(stderr, "(down: %s)\n", detail);
}

static lim_client *connect_to(host *h)
{
    char server[32];
    lim_client *c;
    lim_diag diag = { 0 };
    snprintf(server, sizeof server, "127.0.0.1:%u", h->port);
    lim_client_opts opts = { .size = sizeof opts, .server = server, .name = "test", .on_state = note_break, .ctx = h };
    if (lim_client_open(&opts, &diag, &c) != LIM_OK)
        fail_msg("%s", diag.text);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    assert_int_equal(lim_client_fd(c), -1);
    assert_int_equal(lim_client_process(c), LIM_E_MISUSE);
    return c;
}

/* ---- what handlers note ---- */

typedef struct notes {
    _Atomic uint64_t messages, ends, ready, revoked, outcomes, admissions, misuses, oks;
    _Atomic bool hold; /* the handler waits here */
    host *h;
    lim_client *c;
} notes;

static lim_done on_message(lim_client *c, const lim_delivery *d, void *ctx)
{
    notes *n = ctx;
    (void)c;
    LIM_ASSERT(d->msg != NULL && d->payload.len > 0);
    count(n->h, &n->messages, 1);
    return LIM_DONE;
}
static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    notes *n = ctx;
    lim_outcome out;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 1000 };
    n->misuses += lim_client_ask(c, "echo", TEXT("x"), &opts, &out) == LIM_E_MISUSE;
    count(n->h, &n->messages, 1);
    pthread_mutex_lock(&n->h->mutex);
    while (n->hold)
        lim__cond_wait_until(&n->h->changed, &n->h->mutex, UINT64_MAX);
    pthread_mutex_unlock(&n->h->mutex);
    n->oks += lim_client_reply(c, d, d->payload) == LIM_OK;
    return LIM_DONE;
}
static void on_end(void *ctx, lim_err why, const char *detail)
{
    notes *n = ctx;
    (void)why, (void)detail;
    count(n->h, &n->ends, 1);
}
static void on_sub_ready(void *ctx)
{
    notes *n = ctx;
    count(n->h, &n->ready, 1);
}
static void on_reg_ready(void *ctx, const char *identity)
{
    notes *n = ctx;
    LIM_ASSERT(strcmp(identity, "w1") == 0);
    count(n->h, &n->ready, 1);
}
static void on_admission(void *ctx, lim_err err, const lim_admission *a)
{
    notes *n = ctx;
    (void)a;
    n->oks += err == LIM_OK;
    n->misuses += lim_client_flush(n->c, 1) == LIM_E_MISUSE;
    count(n->h, &n->admissions, 1);
}
static void on_outcome(void *ctx, const lim_outcome *o)
{
    notes *n = ctx;
    LIM_ASSERT(o->how == LIM_HOW_REPLY || o->how == LIM_HOW_LOST || o->how == LIM_HOW_CLOSED);
    n->oks += o->how == LIM_HOW_REPLY;
    count(n->h, &n->outcomes, 1);
}

static lim_participant work(lim_client *c, notes *n)
{
    lim_participant p;
    lim_client_serve_opts opts = {
        .size = sizeof opts, .capacity = 100000, .handler = { on_request, on_end, n }, .on_ready = on_reg_ready
    };
    assert_int_equal(lim_client_work(c, "work", &opts, NULL, &p), LIM_OK);
    return p;
}

static lim_sub subscribe(lim_client *c, notes *n)
{
    lim_sub sub;
    lim_client_sub_opts opts = {
        .size = sizeof opts, .window = 1 << 20, .handler = { on_message, on_end, n }, .on_ready = on_sub_ready
    };
    assert_int_equal(lim_client_subscribe(c, ">", &opts, NULL, &sub), LIM_OK);
    return sub;
}

static void ask_ok(lim_client *c, const char *group)
{
    lim_outcome out;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    assert_int_equal(lim_client_ask(c, group, TEXT("question"), &opts, &out), LIM_OK);
    assert_int_equal(out.how, LIM_HOW_REPLY);
    assert_true(lim__bytes_eq(out.payload, TEXT("question")));
    lim_outcome_fini(&out);
}

/* ---- tests ---- */

static void test_blocking_verbs_return_what_the_server_says(void **state)
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c };
    lim_admission a;
    lim_outcome out;
    lim_conv task = { 0 };
    lim_dispatch_opts opts = { .size = sizeof opts, .timeout_ms = 1000 };
    lim_sub sub = subscribe(c, &n);
    assert_int_equal(lim_client_publish(c, "a", TEXT("x"), NULL, &a), LIM_OK);
    assert_int_equal(a.verdict, LIM_ACCEPT);
    await_count(h, &n.messages, 1);
    await_count(h, &h->acks, 1);
    ask_ok(c, "echo");
    assert_int_equal(lim_client_sys(c, "$sys.groups", "{}", 1000, &out), LIM_OK);
    assert_true(lim__bytes_eq(out.payload, TEXT("{}")));
    lim_outcome_fini(&out);
    assert_int_equal(lim_client_dispatch(c, "q", TEXT("x"), &opts, &a, &task), LIM_OK);
    assert_int_equal(task.id, 90);
    assert_int_equal(lim_client_await(c, task, 10000, &out), LIM_OK);
    assert_true(lim__bytes_eq(out.payload, TEXT("awaited")));
    lim_outcome_fini(&out);
    assert_int_equal(lim_client_await(c, (lim_conv){ 404 }, 1, &out), LIM_E_TIMEOUT);
    assert_int_equal(lim_client_await(c, (lim_conv){ 405 }, 10000, &out), LIM_E_GONE); /* as the bus says it */
    assert_int_equal(lim_client_unsubscribe(c, sub), LIM_OK);
    await_count(h, &n.ends, 1);
    assert_int_equal(n.ready, 1);
    lim_client_close(c);
    await_count(h, &h->byes, 1);
    assert_int_equal(n.ends, 1);
    host_stop(h);
}

static void test_a_conversation_is_a_conversation(void **state)
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    lim_conv conv;
    lim_outcome out;
    lim_client_conv_opts opts = { .size = sizeof opts, .group = "g", .timeout_ms = LIM_FOREVER };
    assert_int_equal(lim_client_conv_open(c, &opts, NULL, &conv), LIM_OK);
    assert_int_equal(conv.id, 50);
    assert_int_equal(lim_client_conv_receive(c, conv, 1, &out), LIM_OK);
    assert_int_equal(out.how, LIM_HOW_TIMEOUT);
    lim_outcome_fini(&out);
    for (int i = 0; i < 3; i++)
        assert_int_equal(lim_client_conv_send(c, conv, (lim_participant){ 0 }, TEXT("hi"), NULL, NULL), LIM_OK);
    assert_int_equal(lim_client_flush(c, 60000), LIM_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lim_client_conv_receive(c, conv, 60000, &out), LIM_OK);
        assert_true(lim__bytes_eq(out.payload, TEXT("hi")));
        lim_outcome_fini(&out);
    }
    assert_int_equal(lim_client_conv_ask(c, conv, (lim_participant){ 9 }, TEXT("now?"), 1000, &out), LIM_OK);
    assert_true(lim__bytes_eq(out.payload, TEXT("now?")));
    lim_outcome_fini(&out);
    assert_int_equal(lim_client_conv_send(c, conv, (lim_participant){ 0 }, TEXT("last"), NULL, NULL), LIM_OK);
    assert_int_equal(lim_client_publish(c, "break", TEXT("x"), NULL, NULL), LIM_E_CLOSED);
    /* What had come stays readable; then the end is told. */
    do {
        assert_int_equal(lim_client_conv_receive(c, conv, 60000, &out), LIM_OK);
        lim_outcome_fini(&out);
        assert_int_equal(lim_client_conv_receive(c, conv, 60000, &out), LIM_OK);
    } while (out.how == LIM_HOW_REPLY);
    assert_int_equal(out.how, LIM_HOW_LOST);
    lim_outcome_fini(&out);
    assert_int_equal(lim_client_conv_send(c, conv, (lim_participant){ 0 }, TEXT("x"), NULL, NULL), LIM_E_GONE);
    assert_int_equal(lim_client_conv_close(c, conv), LIM_OK);
    assert_int_equal(lim_client_conv_close(c, conv), LIM_E_GONE);
    lim_client_close(c);
    host_stop(h);
}

typedef struct caller {
    lim__thread thread;
    lim_client *c;
    notes *n;
    int rounds;
} caller;

typedef struct verdicts {
    host *h;
    _Atomic uint64_t accepted, rejected, unknown;
} verdicts;

static void on_verdict(void *ctx, lim_err err, const lim_admission *a)
{
    verdicts *v = ctx;
    LIM_ASSERT((err == LIM_OK) == (a != NULL));
    LIM_ASSERT(err != LIM_OK || a->verdict == LIM_ACCEPT || a->why == LIM_WHY_PARTICIPANT_FULL);
    count(v->h, err != LIM_OK ? &v->unknown : a->verdict == LIM_ACCEPT ? &v->accepted : &v->rejected, 1);
}

static lim_conv open_conv(lim_client *c)
{
    lim_conv conv;
    lim_client_conv_opts opts = { .size = sizeof opts, .group = "g", .timeout_ms = LIM_FOREVER };
    assert_int_equal(lim_client_conv_open(c, &opts, NULL, &conv), LIM_OK);
    return conv;
}

static void send_some(lim_client *c, lim_conv conv, verdicts *v)
{
    static const char *const words[] = { "hi", "no", "never", "hi", "no" };
    for (size_t i = 0; i < LIM_COUNT(words); i++)
        assert_int_equal(
            lim_client_conv_send(c, conv, (lim_participant){ 0 }, lim__str(words[i]), i == 3 ? NULL : on_verdict, v),
            LIM_OK);
}

static void test_what_became_of_a_message_is_told_once(void **state)
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    verdicts v = { .h = h };
    lim_participant to_all = { 0 };
    lim_conv conv = open_conv(c);
    send_some(c, conv, &v);
    assert_int_equal(lim_client_conv_close(c, conv), LIM_OK); /* what was sent before is answered all the same */
    await_count(h, &v.unknown, 1);
    assert_int_equal(v.accepted, 1);
    assert_int_equal(v.rejected, 2);
    assert_int_equal(lim_client_conv_send(c, conv, to_all, TEXT("x"), on_verdict, &v), LIM_E_GONE);
    conv = open_conv(c);
    send_some(c, conv, &v);
    assert_int_equal(lim_client_publish(c, "break", TEXT("x"), NULL, NULL), LIM_E_CLOSED);
    await_count(h, &v.unknown, 2); /* or more: answers may be lost with the connection */
    while (v.accepted + v.rejected + v.unknown < 8)
        lim__thread_yield();
    assert_int_equal(lim_client_conv_close(c, conv), LIM_OK);
    await_count(h, &h->connections, 2);
    while (lim_client_state(c) != LIM_LINK_UP)
        lim__thread_yield();
    send_some(c, open_conv(c), &v);
    lim_client_close(c); /* the rest ends with it */
    assert_int_equal(v.accepted + v.rejected + v.unknown, 12);
    host_stop(h);
}

static void *join_ten(void *arg)
{
    caller *me = arg;
    lim_err err = lim_client_conv_join(me->c, (lim_conv){ 50 }, (lim_participant){ 10 });
    LIM_ASSERT(err == LIM_E_CLOSED);
    return NULL;
}

static void test_a_participant_joins_a_conversation_once(void **state)
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    lim_participant nine = { 9 };
    caller other = { .c = c };
    lim_conv conv = open_conv(c);
    assert_int_equal(lim_client_conv_join(c, conv, nine), LIM_OK);
    assert_int_equal(lim_client_conv_join(c, conv, nine), LIM_E_EXISTS);
    assert_int_equal(lim_client_conv_join(c, conv, (lim_participant){ 0 }), LIM_E_INVALID);
    assert_int_equal(lim_client_conv_join(c, (lim_conv){ 51 }, nine), LIM_E_GONE);
    assert_int_equal(lim__thread_start(&other.thread, "joiner", join_ten, &other), 0);
    for (bool waits = false; !waits; lim__thread_yield()) {
        lim__client_lock(c);
        lim__conv *found = lim__map_get(&c->conv_ids, conv.id);
        waits = !lim__list_empty(&found->joins);
        lim__client_unlock(c);
    }
    assert_int_equal(lim_client_conv_close(c, conv), LIM_OK); /* releases who waits */
    lim__thread_join(other.thread);
    lim_client_close(c);
    host_stop(h);
}

static void *take_until_gone(void *arg)
{
    caller *me = arg;
    lim_participant p = { (uint64_t)me->rounds };
    lim_taken t;
    lim_err err;
    while ((err = lim_client_take(me->c, p, LIM_FOREVER, &t)) == LIM_OK) {
        LIM_ASSERT(lim_client_reply_to(me->c, p, t.delivery.conv, t.delivery.lease, t.delivery.payload) == LIM_OK);
        lim_taken_fini(&t);
        count(me->n->h, &me->n->messages, 1);
    }
    LIM_ASSERT(err == LIM_E_GONE);
    return NULL;
}

static void test_threads_pull_requests(void **state)
{
    (void)state;
    enum { THREADS = 3 };
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c };
    caller takers[THREADS];
    lim_participant p;
    lim_taken t;
    lim_client_serve_opts opts = { .size = sizeof opts, .capacity = 100, .handler = { NULL, on_end, &n } };
    assert_int_equal(lim_client_work(c, "work", &opts, NULL, &p), LIM_OK);
    assert_int_equal(lim_client_take(c, p, 1, &t), LIM_E_TIMEOUT);
    assert_int_equal(lim_client_take(c, p, -1, &t), LIM_E_MISUSE);
    assert_int_equal(lim_client_take(c, (lim_participant){ 99 }, 1, &t), LIM_E_GONE);
    for (int i = 0; i < THREADS; i++) {
        takers[i] = (caller){ .c = c, .n = &n, .rounds = (int)p.id };
        assert_int_equal(lim__thread_start(&takers[i].thread, "taker", take_until_gone, &takers[i]), 0);
    }
    for (int i = 0; i < 100; i++)
        ask_ok(c, "work");
    assert_int_equal(n.messages >= 97, 1); /* each may be about to count its last */
    assert_int_equal(lim_client_leave(c, p), LIM_OK);
    for (int i = 0; i < THREADS; i++)
        lim__thread_join(takers[i].thread);
    assert_int_equal(n.messages, 100);
    lim_client_close(c);
    assert_int_equal(n.ends, 1);
    host_stop(h);
}

static void test_a_slow_handler_delays_neither_taken_nor_pong(void **state) /* proves GR4 CV4 */
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c, .hold = true };
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    work(c, &n);
    for (int i = 0; i < 3; i++)
        assert_int_equal(lim_client_ask_async(c, "work", TEXT("x"), &opts, on_outcome, &n, NULL), LIM_OK);
    await_count(h, &n.messages, 1);
    await_count(h, &h->taken, 3); /* while the first handler is still at it */
    h->ping = true;
    h->os->poller_wake(h->os, h->poller);
    await_count(h, &h->pongs, 1);
    assert_int_equal(n.messages, 1);
    pthread_mutex_lock(&h->mutex);
    n.hold = false;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
    await_count(h, &n.outcomes, 3);
    lim_client_close(c);            /* the last handler may still be counting that its reply left */
    assert_int_equal(n.misuses, 3); /* blocking inside a handler */
    assert_int_equal(n.oks, 6);
    assert_int_equal(n.ends, 1);
    host_stop(h);
}

/* Quick answers, but the last one is slow: until the others were heard of. */
static lim_done on_quick_then_slow(lim_client *c, const lim_delivery *d, void *ctx)
{
    enum { QUICK = 63 };
    notes *n = ctx;
    if (++n->messages % (QUICK + 1) == 0)
        await_count(n->h, &n->outcomes, n->messages - 1);
    LIM_ASSERT(lim_client_reply(c, d, d->payload) == LIM_OK);
    return LIM_DONE;
}

static void test_answers_do_not_wait_for_a_slow_handler_behind_them(void **state)
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c };
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    lim_client_serve_opts serve = { .size = sizeof serve,
                                    .capacity = 100,
                                    .handler = { on_quick_then_slow, on_end, &n } };
    lim_participant p;
    assert_int_equal(lim_client_work(c, "work", &serve, NULL, &p), LIM_OK);
    for (uint64_t round = 1; round <= 50; round++) {
        for (int i = 0; i < 64; i++)
            assert_int_equal(lim_client_ask_async(c, "work", TEXT("x"), &opts, on_outcome, &n, NULL), LIM_OK);
        await_count(h, &n.outcomes, 64 * round);
    }
    lim_client_close(c);
    assert_int_equal(n.messages, 64 * 50);
    assert_int_equal(n.ends, 1);
    host_stop(h);
}

static void *call_much(void *arg)
{
    caller *me = arg;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    for (int i = 0; i < me->rounds; i++) {
        lim_outcome out;
        LIM_ASSERT(lim_client_publish_async(me->c, "a", TEXT("m"), NULL, i % 2 ? on_admission : NULL, me->n) == LIM_OK);
        LIM_ASSERT(lim_client_ask_async(me->c, "work", TEXT("w"), &opts, on_outcome, me->n, NULL) == LIM_OK);
        if (i % 16 == 0) {
            LIM_ASSERT(lim_client_ask(me->c, "echo", TEXT("e"), &opts, &out) == LIM_OK && out.how == LIM_HOW_REPLY);
            lim_outcome_fini(&out);
        }
    }
    LIM_ASSERT(lim_client_flush(me->c, 60000) == LIM_OK);
    return NULL;
}

static void test_many_threads_share_one_client(void **state)
{
    (void)state;
    enum { THREADS = 4, ROUNDS = 400 };
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c }, reader = { .h = h, .c = c }, worker = { .h = h, .c = c };
    caller callers[THREADS];
    subscribe(c, &reader);
    work(c, &worker);
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (caller){ .c = c, .n = &n, .rounds = ROUNDS };
        assert_int_equal(lim__thread_start(&callers[i].thread, "caller", call_much, &callers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        lim__thread_join(callers[i].thread);
    await_count(h, &n.outcomes, THREADS * ROUNDS);
    assert_int_equal(n.admissions, THREADS * ROUNDS / 2);
    assert_int_equal(n.misuses, n.admissions); /* flush inside a callback */
    await_count(h, &reader.messages, THREADS * ROUNDS);
    assert_int_equal(worker.messages, THREADS * ROUNDS);
    lim_client_close(c);
    assert_int_equal(reader.ends + worker.ends, 2);
    host_stop(h);
}

static void test_breaks_under_use_end_everything_once_and_heal(void **state) /* proves CV3 WI6 */
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c }, reader = { .h = h, .c = c }, worker = { .h = h, .c = c };
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    uint64_t asks = 0, publishes = 0;
    subscribe(c, &reader);
    work(c, &worker);
    await_count(h, &reader.ready, 1); /* one that is not told before the break is not told at all */
    await_count(h, &worker.ready, 1);
    for (uint64_t round = 1; round <= 5; round++) {
        for (int i = 0; i < 50; i++) {
            asks += lim_client_ask_async(c, i % 2 ? "work" : "never", TEXT("x"), &opts, on_outcome, &n, NULL) == LIM_OK;
            publishes +=
                lim_client_publish_async(c, i == 49 ? "break" : "a", TEXT("x"), NULL, on_admission, &n) == LIM_OK;
        }
        await_count(h, &n.outcomes, asks);
        await_count(h, &n.admissions, publishes);
        await_count(h, &reader.ready, round + 1); /* it is there again */
        await_count(h, &worker.ready, round + 1);
    }
    assert_int_equal(h->connections, 6);
    assert_int_equal(n.outcomes, asks);
    assert_int_equal(n.admissions, publishes);
    ask_ok(c, "work");
    lim_client_close(c);
    assert_int_equal(n.outcomes, asks);
    assert_int_equal(reader.ends + worker.ends, 2);
    host_stop(h);
}

static void *ask_never(void *arg)
{
    caller *me = arg;
    lim_outcome out;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER };
    count(me->n->h, &me->n->messages, 1);
    lim_err err = lim_client_ask(me->c, "never", TEXT("x"), &opts, &out);
    LIM_ASSERT(err == LIM_OK && out.how == LIM_HOW_CLOSED);
    lim_outcome_fini(&out);
    count(me->n->h, &me->n->outcomes, 1);
    return NULL;
}

static void test_closing_releases_those_who_wait(void **state)
{
    (void)state;
    enum { THREADS = 3 };
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c };
    caller callers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (caller){ .c = c, .n = &n };
        assert_int_equal(lim__thread_start(&callers[i].thread, "caller", ask_never, &callers[i]), 0);
    }
    for (;;) { /* until all of them wait inside */
        lim__client_lock(c);
        uint32_t blocked = c->blocked;
        size_t calls = c->calls.count;
        lim__client_unlock(c);
        if (blocked == THREADS && calls == THREADS)
            break;
        lim__thread_yield();
    }
    lim_client_close(c);
    for (int i = 0; i < THREADS; i++)
        lim__thread_join(callers[i].thread);
    assert_int_equal(n.outcomes, THREADS);
    host_stop(h);
}

static void test_closing_while_a_handler_runs_waits_for_it(void **state)
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c };
    subscribe(c, &n);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(lim_client_publish_async(c, "a", TEXT("m"), NULL, NULL, NULL), LIM_OK);
    await_count(h, &n.messages, 1);
    lim_client_close(c);
    uint64_t messages = n.messages;
    assert_int_equal(n.ends, 1);
    lim__thread_yield();
    assert_int_equal(n.messages, messages); /* no callback after the close */
    host_stop(h);
}

static void test_a_second_registration_that_is_refused_says_so(void **state)
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    notes n = { .h = h, .c = c };
    lim_participant p = work(c, &n), second;
    lim_diag diag = { 0 };
    lim_client_serve_opts opts = { .size = sizeof opts, .capacity = 1, .handler = { on_request, on_end, &n } };
    assert_int_equal(lim_client_work(c, "work", &opts, &diag, &second), LIM_E_EXISTS);
    assert_string_equal(diag.text, "already exists");
    assert_int_equal(n.ends, 0); /* the call failed: nothing else is told */
    assert_int_equal(lim_client_leave(c, p), LIM_OK);
    await_count(h, &n.ends, 1);
    lim_client_close(c);
    assert_int_equal(n.ends, 1);
    host_stop(h);
}

static void test_opening_without_a_server_says_what_to_do(void **state)
{
    (void)state;
    host *h = host_start();
    uint16_t port = h->port;
    host_stop(h); /* a port that nobody listens on now */
    char server[32], expected[240];
    lim_client *c;
    lim_diag diag = { 0 };
    snprintf(server, sizeof server, "127.0.0.1:%u", port);
    snprintf(expected, sizeof expected,
             "cannot reach the server at %s: connection refused; start one with liminald, or "
             "name it with --server or LIMINAL_SERVER",
             server);
    lim_client_opts opts = { .size = sizeof opts, .server = server };
    assert_int_equal(lim_client_open(&opts, &diag, &c), LIM_E_UNREACHABLE);
    assert_string_equal(diag.text, expected);
}

static void test_output_that_nobody_reads_makes_async_calls_full_and_blocking_ones_wait(void **state) /* proves PR5 */
{
    (void)state;
    host *h = host_start();
    lim_client *c = connect_to(h);
    size_t size = 500000;
    void *payload = calloc(1, size);
    for (int i = 0; i < 100; i++) {
        lim_err err = lim_client_publish_async(c, "a", lim__bytes(payload, size), NULL, NULL, NULL);
        assert_true(err == LIM_OK || err == LIM_E_FULL);
        if (err == LIM_E_FULL)
            assert_int_equal(lim_client_publish(c, "a", lim__bytes(payload, size), NULL, NULL), LIM_OK);
    }
    assert_int_equal(lim_client_flush(c, 60000), LIM_OK);
    free(payload);
    lim_client_close(c);
    host_stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocking_verbs_return_what_the_server_says),
        cmocka_unit_test(test_a_conversation_is_a_conversation),
        cmocka_unit_test(test_what_became_of_a_message_is_told_once),
        cmocka_unit_test(test_a_participant_joins_a_conversation_once),
        cmocka_unit_test(test_threads_pull_requests),
        cmocka_unit_test(test_a_slow_handler_delays_neither_taken_nor_pong),
        cmocka_unit_test(test_answers_do_not_wait_for_a_slow_handler_behind_them),
        cmocka_unit_test(test_many_threads_share_one_client),
        cmocka_unit_test(test_breaks_under_use_end_everything_once_and_heal),
        cmocka_unit_test(test_closing_releases_those_who_wait),
        cmocka_unit_test(test_closing_while_a_handler_runs_waits_for_it),
        cmocka_unit_test(test_a_second_registration_that_is_refused_says_so),
        cmocka_unit_test(test_opening_without_a_server_says_what_to_do),
        cmocka_unit_test(test_output_that_nobody_reads_makes_async_calls_full_and_blocking_ones_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
