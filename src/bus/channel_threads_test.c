/* SPDX-License-Identifier: Apache-2.0
 * channel_threads_test.c - two schedulers and host threads at once: publishing, coming and going, closing.
 *
 * What is checked is what must hold in every interleaving: a publisher's messages are seen in its order, what a `hold`
 * subscription was promised it gets, nothing comes after the end, and nothing is left. Most of all it is for the thread
 * sanitizer. */
#include "bus/bus.h"
#include "bus/channel_inside.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { PUBLISHERS = 3, MESSAGES = 4000, CHURNS = 200 };

typedef struct house {
    lim_bus bus;
    lim_channel channel;
    _Atomic uint32_t running;
    _Atomic uint32_t churning; /* while it is not 0 publishers go on beyond MESSAGES */
    _Atomic uint64_t promised; /* accepted or deferred while the steady subscription was there */
} house;

typedef struct note { /* a message */
    uint32_t publisher, number;
} note;

typedef struct reader {
    lim_sub sub;
    uint32_t next[PUBLISHERS + 4];
    bool complete;  /* no number may be missing */
    bool hold_some; /* answers LIM_HOLD now and then */
    _Atomic uint32_t stopped;
    _Atomic uint64_t seen;
    _Atomic uint32_t ends;
} reader;

static void house_open(house *h, uint32_t schedulers)
{
    memset(h, 0, sizeof *h);
    lim__runtime_opts opts = { .scheduler_count = schedulers, .threads = true };
    assert_int_equal(lim__runtime_open(&opts, &h->bus.rt), LIM_OK);
    assert_int_equal(lim__channels_open(h->bus.rt, &h->bus.channels), LIM_OK);
    h->bus.opts.payload_bytes_max = 1000;
    assert_int_equal(lim_channel_open(&h->bus, "a.b", NULL, &h->channel), LIM_OK);
}

static void house_close(house *h)
{
    lim__channels_check(h->bus.channels);
    lim_runtime_close(h->bus.rt);
    lim__channels_close(h->bus.channels);
}

static lim_done reader_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    reader *r = ctx;
    note n;
    LIM_ASSERT(d->payload.len == sizeof n && atomic_load(&r->stopped) < 2 && atomic_load(&r->ends) == 0);
    memcpy(&n, d->payload.ptr, sizeof n);
    LIM_ASSERT(r->complete ? n.number == r->next[n.publisher] : n.number >= r->next[n.publisher]);
    r->next[n.publisher] = n.number + 1;
    atomic_fetch_add(&r->seen, 1);
    if (!r->hold_some || d->seq % 5)
        return LIM_DONE;
    if (d->seq % 2) /* before the message is held: it must still count */
        LIM_ASSERT(lim_complete(bus, r->sub, d->seq) == LIM_OK);
    return d->seq % 2 ? LIM_HOLD : LIM_DONE;
}

static void reader_end(void *ctx)
{
    atomic_fetch_add(&((reader *)ctx)->ends, 1);
}

/* False: policy close was quicker than the answer, and nobody hears of it (on_end is not called then). */
static bool reader_open(house *h, reader *r, const char *pattern, uint32_t window, uint32_t backlog, lim_policy policy)
{
    lim_sub_opts opts = {
        .size = sizeof opts,
        .window = window,
        .backlog = backlog,
        .policy = policy,
        .handler = { reader_message, reader_end, r },
    };
    lim_sub sub;
    lim_err err = lim_subscribe(&h->bus, pattern, &opts, &sub);
    LIM_ASSERT(err == LIM_OK || (err == LIM_E_GONE && policy == LIM_CLOSE_SUB));
    if (err == LIM_OK)
        r->sub = sub;
    return err == LIM_OK;
}

static void reader_close(house *h, reader *r)
{
    LIM_ASSERT(lim_unsubscribe(&h->bus, r->sub) == LIM_OK);
    while (atomic_load(&r->ends) == 0)
        lim__thread_yield();
    LIM_ASSERT(atomic_load(&r->ends) == 1);
}

/* ---- publishers: host threads, and processes that publish as themselves ---- */

typedef struct publisher {
    house *h;
    uint32_t index, sent;
    lim__channel *ch; /* processes */
} publisher;

static void publisher_account(publisher *p, const lim_admission *adm)
{
    if (adm->verdict == LIM_REJECT) {
        lim__thread_yield();
        return;
    }
    p->sent++;
    atomic_fetch_add(&p->h->promised, 1);
}

static bool publisher_goes_on(const publisher *p)
{
    return p->sent < MESSAGES || atomic_load(&p->h->churning) > 0;
}

static void *publisher_thread(void *arg)
{
    publisher *p = arg;
    while (publisher_goes_on(p)) {
        note n = { p->index, p->sent };
        lim_admission adm;
        LIM_ASSERT(lim_publish(&p->h->bus, p->h->channel, lim__bytes(&n, sizeof n), NULL, &adm) == LIM_OK);
        publisher_account(p, &adm);
    }
    atomic_fetch_sub(&p->h->running, 1);
    return NULL;
}

static void publisher_signal(lim_process *self, const lim_signal *signal, void *state)
{
    publisher *p = *(publisher **)state;
    (void)signal;
    for (int i = 0; i < 50 && publisher_goes_on(p); i++) {
        note n = { p->index, p->sent };
        lim_admission adm;
        LIM_ASSERT(lim__publish(p->h->bus.channels, self, p->ch, lim__bytes(&n, sizeof n), lim__bytes(NULL, 0), false,
                                &adm) == LIM_OK);
        publisher_account(p, &adm);
    }
    if (publisher_goes_on(p))
        LIM_ASSERT(lim_send(self, lim_self(self), 0, lim__bytes("", 0)) == LIM_OK);
    else
        atomic_fetch_sub(&p->h->running, 1);
}

static void publisher_process(publisher *p, uint32_t scheduler)
{
    lim_pid pid;
    lim_spawn_opts spawn = {
        .size = sizeof spawn,
        .on_signal = publisher_signal,
        .state_bytes = sizeof p,
        .init = &p,
        .init_bytes = sizeof p,
        .place = true,
        .scheduler = scheduler,
    };
    p->ch = lim__channel_find(p->h->bus.channels, lim__str("a.b"));
    LIM_ASSERT(p->ch);
    LIM_ASSERT(lim_runtime_spawn(p->h->bus.rt, &spawn, &pid) == LIM_OK);
    LIM_ASSERT(lim_runtime_send(p->h->bus.rt, pid, 0, lim__bytes("", 0)) == LIM_OK);
}

/* A direct subscription (not own_turn) in a process, so that the path past the backlog meets all others. */
typedef struct direct {
    house *h;
    lim__sub *sub;
    uint32_t next[PUBLISHERS + 4];
    _Atomic uint64_t seen;
    _Atomic uint32_t open;
    uint64_t seq;
} direct;

static void direct_deliver(void *ctx, lim__sub *sub, uint64_t seq, lim_bytes channel, lim_bytes headers,
                           lim_bytes payload, lim__msg *msg)
{
    direct *d = ctx;
    note n;
    (void)sub, (void)channel, (void)headers, (void)msg;
    memcpy(&n, payload.ptr, sizeof n);
    LIM_ASSERT(seq == d->seq + 1 && n.number == d->next[n.publisher]);
    d->next[n.publisher] = n.number + 1;
    d->seq = seq;
    atomic_fetch_add(&d->seen, 1);
}

static void direct_ended(void *ctx, lim__sub *sub, lim_err why)
{
    (void)ctx, (void)sub, (void)why;
}

static const lim__sub_ops direct_ops = { .deliver = direct_deliver, .ended = direct_ended };

static void direct_signal(lim_process *self, const lim_signal *signal, void *state)
{
    direct *d = *(direct **)state;
    if (lim__sub_on_signal(self, signal))
        return;
    if (!d->sub) {
        lim__sub_config config = { .pattern = lim__str("a.b"),
                                   .window = 500,
                                   .backlog = 200,
                                   .policy = LIM_HOLD_BACK,
                                   .ops = &direct_ops,
                                   .ctx = d };
        LIM_ASSERT(lim__sub_open(d->h->bus.channels, self, &config, NULL, &d->sub) == LIM_OK);
        atomic_store(&d->open, 1);
    }
    lim__sub_ack(self, d->sub, d->seq);
    if (signal->tag != 1) /* keeps acknowledging */
        LIM_ASSERT(lim_send(self, lim_self(self), 0, lim__bytes("", 0)) == LIM_OK);
}

static void direct_on_end(void *state, lim_reason reason)
{
    direct *d = *(direct **)state;
    (void)reason;
    lim__sub_close(NULL, d->sub);
}

static void direct_open(direct *d, house *h, uint32_t scheduler)
{
    lim_pid pid;
    d->h = h;
    lim_spawn_opts spawn = {
        .size = sizeof spawn,
        .on_signal = direct_signal,
        .on_end = direct_on_end,
        .state_bytes = sizeof d,
        .init = &d,
        .init_bytes = sizeof d,
        .place = true,
        .scheduler = scheduler,
    };
    LIM_ASSERT(lim_runtime_spawn(h->bus.rt, &spawn, &pid) == LIM_OK);
    LIM_ASSERT(lim_runtime_send(h->bus.rt, pid, 0, lim__bytes("", 0)) == LIM_OK);
    while (!atomic_load(&d->open))
        lim__thread_yield();
}

/* ---- tests ---- */

static void test_what_hold_promised_arrives_in_order_from_all_threads(void **state) /* proves CH4 CH5 CH13 */
{
    (void)state;
    static house h;
    static direct d[2];
    static reader steady = { .complete = true, .hold_some = true }, lossy = { 0 };
    house_open(&h, 2);
    memset(d, 0, sizeof d);
    for (uint32_t i = 0; i < 2; i++)
        direct_open(&d[i], &h, i);
    LIM_ASSERT(reader_open(&h, &steady, "a.b", 300, 400, LIM_HOLD_BACK));
    LIM_ASSERT(reader_open(&h, &lossy, "a.*", 2, 2, LIM_DROP_OLDEST));
    publisher p[PUBLISHERS + 2];
    lim__thread threads[PUBLISHERS];
    atomic_store(&h.running, PUBLISHERS + 2);
    for (uint32_t i = 0; i < PUBLISHERS + 2; i++) {
        p[i] = (publisher){ .h = &h, .index = i };
        if (i < PUBLISHERS)
            assert_int_equal(lim__thread_start(&threads[i], "publisher", publisher_thread, &p[i]), 0);
        else
            publisher_process(&p[i], i - PUBLISHERS);
    }
    for (uint32_t i = 0; i < PUBLISHERS; i++)
        lim__thread_join(threads[i]);
    while (atomic_load(&h.running) > 0)
        lim__thread_yield();
    uint64_t total = (uint64_t)MESSAGES * (PUBLISHERS + 2);
    assert_int_equal(atomic_load(&h.promised), total);
    while (atomic_load(&steady.seen) < total || atomic_load(&d[0].seen) < total || atomic_load(&d[1].seen) < total)
        lim__thread_yield();
    reader_close(&h, &steady);
    reader_close(&h, &lossy);
    assert_int_equal(atomic_load(&steady.seen), total);
    for (uint32_t i = PUBLISHERS; i < PUBLISHERS + 2; i++)
        lim__channel_unref(p[i].ch);
    house_close(&h);
    assert_int_equal(atomic_load(&d[0].seen), total);
}

typedef struct churn {
    house *h;
    uint32_t index;
} churn;

static void *churn_thread(void *arg)
{
    churn *c = arg;
    static const char *const patterns[] = { "a.b", "a.*", ">", "*.b" };
    for (uint32_t i = 0; i < CHURNS; i++) {
        reader *r = calloc(1, sizeof *r);
        LIM_ASSERT(r);
        if (!reader_open(c->h, r, patterns[(i + c->index) % 4], 1 + i % 7, i % 5 + 1, LIM_DROP_OLDEST + i % 3)) {
            free(r);
            continue;
        }
        while (i % 3 == 0 && atomic_load(&r->seen) == 0 && atomic_load(&r->ends) == 0 &&
               atomic_load(&c->h->running) > 0)
            lim__thread_yield();
        lim_err err = lim_unsubscribe(&c->h->bus, r->sub); /* GONE: policy close was quicker */
        LIM_ASSERT(err == LIM_OK || err == LIM_E_GONE);
        while (atomic_load(&r->ends) == 0)
            lim__thread_yield();
        free(r);
    }
    atomic_fetch_sub(&c->h->churning, 1);
    return NULL;
}

static void *closer_thread(void *arg)
{
    house *h = arg;
    for (uint32_t i = 0; i < CHURNS; i++) { /* a second channel comes and goes under the same patterns */
        lim_channel ch;
        lim_admission adm;
        note n = { PUBLISHERS + 2, i };
        LIM_ASSERT(lim_channel_open(&h->bus, "c.b", NULL, &ch) == LIM_OK);
        LIM_ASSERT(lim_publish(&h->bus, ch, lim__bytes(&n, sizeof n), NULL, &adm) == LIM_OK);
        LIM_ASSERT(lim_channel_close(&h->bus, ch) == LIM_OK);
        LIM_ASSERT(lim_publish(&h->bus, ch, lim__bytes(&n, sizeof n), NULL, &adm) == LIM_E_GONE);
    }
    return NULL;
}

static void test_subscriptions_come_and_go_under_load(void **state) /* proves CH13 */
{
    (void)state;
    static house h;
    house_open(&h, 2);
    publisher p[3] = { { .h = &h, .index = 0 }, { .h = &h, .index = 1 }, { .h = &h, .index = 2 } };
    churn c[2] = { { &h, 0 }, { &h, 1 } };
    lim__thread threads[4];
    atomic_store(&h.running, 3);
    atomic_store(&h.churning, 2);
    publisher_process(&p[0], 0);
    publisher_process(&p[1], 1);
    assert_int_equal(lim__thread_start(&threads[0], "publisher", publisher_thread, &p[2]), 0);
    assert_int_equal(lim__thread_start(&threads[1], "churn", churn_thread, &c[0]), 0);
    assert_int_equal(lim__thread_start(&threads[2], "churn", churn_thread, &c[1]), 0);
    assert_int_equal(lim__thread_start(&threads[3], "closer", closer_thread, &h), 0);
    for (size_t i = 0; i < LIM_COUNT(threads); i++)
        lim__thread_join(threads[i]);
    while (atomic_load(&h.running) > 0)
        lim__thread_yield();
    uint64_t channels, subscriptions, kept;
    lim__channels_count(h.bus.channels, &channels, &subscriptions, &kept);
    assert_int_equal(channels, 1);
    assert_int_equal(subscriptions, 0);
    assert_int_equal(kept, 0);
    lim__channel_unref(p[0].ch);
    lim__channel_unref(p[1].ch);
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_hold_promised_arrives_in_order_from_all_threads),
        cmocka_unit_test(test_subscriptions_come_and_go_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
