/* SPDX-License-Identifier: Apache-2.0
 * channel.c - what a publish costs: to nobody, to one and to a hundred subscribers on the publisher's scheduler, to one
 * on another scheduler (its turn included), and from a publish to the embedder's handler.
 *
 * Schedulers are driven by hand, so that the work is measured and not the waking. The subscriber's `deliver` only
 * counts; it acknowledges every 256 messages, which is included. Each number is the best of several batches. */
#include "bus/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUND = 256, ROUNDS = 400, BATCHES = 15 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench-channel: %s failed\n", what);
    exit(1);
}

typedef struct bench {
    lim_runtime *rt;
    lim__channels *all;
    lim_bus bus; /* nothing but its channels */
} bench;

typedef struct subscriber {
    lim__sub *sub;
    uint64_t seen;
} subscriber;

typedef struct crew { /* a process with subscriptions, which can also publish */
    bench *b;
    lim_pid pid;
    subscriber subs[100];
    uint32_t count;
    const char *name;
    lim_policy policy;
    lim__channel *ch; /* publishes a round there */
    uint64_t took_ns;
} crew;

static void on_deliver(void *ctx, lim__sub *sub, uint64_t seq, lim_bytes channel, lim_bytes headers, lim_bytes payload,
                       lim__msg *msg)
{
    (void)sub, (void)seq, (void)channel, (void)headers, (void)payload, (void)msg;
    ((subscriber *)ctx)->seen++;
}

static void on_ended(void *ctx, lim__sub *sub, lim_err why)
{
    (void)ctx, (void)sub, (void)why;
}

static const lim__sub_ops ops = { .deliver = on_deliver, .ended = on_ended };

static void crew_open(lim_process *self, crew *c)
{
    for (uint32_t i = 0; i < c->count; i++) {
        lim__sub_config config = { .pattern = lim__str(c->name),
                                   .window = 2 * ROUND,
                                   .backlog = ROUND,
                                   .policy = c->policy,
                                   .ops = &ops,
                                   .ctx = &c->subs[i] };
        must(lim__sub_open(c->b->all, self, &config, NULL, &c->subs[i].sub) == LIM_OK, "subscribe");
    }
}

static void crew_ack(lim_process *self, crew *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        lim__sub_ack(self, c->subs[i].sub, c->subs[i].seen);
}

static void crew_publish(lim_process *self, crew *c)
{
    static const char payload[64] = "sixty-three bytes and a NUL, which nobody copies if all is well";
    lim_admission adm;
    uint64_t began = now_ns();
    for (int i = 0; i < ROUND; i++) {
        lim_err err =
            lim__publish(c->b->all, self, c->ch, lim__bytes(payload, sizeof payload), lim__bytes(NULL, 0), false, &adm);
        must(err == LIM_OK && adm.verdict == LIM_ACCEPT, "publish");
    }
    crew_ack(self, c);
    c->took_ns += now_ns() - began;
}

static void crew_signal(lim_process *self, const lim_signal *signal, void *state)
{
    crew *c = *(crew **)state;
    if (lim__sub_on_signal(self, signal))
        crew_ack(self, c);
    else if (signal->tag == 1)
        crew_open(self, c);
    else
        crew_publish(self, c);
}

static void crew_end(void *state, lim_reason reason)
{
    crew *c = *(crew **)state;
    (void)reason;
    for (uint32_t i = 0; i < c->count; i++)
        lim__sub_close(NULL, c->subs[i].sub);
}

static void turns(bench *b)
{
    for (bool work = true; work;) {
        work = false;
        for (uint32_t i = 0; i < lim__sched_count(b->rt); i++)
            work |= lim__sched_turn(lim__sched_at(b->rt, i), 0);
    }
}

static void tell(crew *c, uint32_t tag)
{
    must(lim_runtime_send(c->b->rt, c->pid, tag, lim__bytes("", 0)) == LIM_OK, "send");
    turns(c->b);
}

static void crew_start(bench *b, crew *c, uint32_t scheduler)
{
    c->b = b;
    lim_spawn_opts spawn = {
        .size = sizeof spawn,
        .on_signal = crew_signal,
        .on_end = crew_end,
        .state_bytes = sizeof c,
        .init = &c,
        .init_bytes = sizeof c,
        .place = true,
        .scheduler = scheduler,
    };
    must(lim_runtime_spawn(b->rt, &spawn, &c->pid) == LIM_OK, "spawn");
    tell(c, 1);
}

/* Nanoseconds per publish: of the calls alone, or of everything that runs. */
static double measure(crew *publisher, bool everything)
{
    double best = 1e18;
    for (int i = 0; i < BATCHES; i++) {
        uint64_t began = now_ns();
        publisher->took_ns = 0;
        for (int j = 0; j < ROUNDS; j++)
            tell(publisher, 2);
        double ns = (double)(everything ? now_ns() - began : publisher->took_ns) / (ROUND * ROUNDS);
        best = ns < best ? ns : best;
    }
    return best;
}

static void crew_stop(crew *c)
{
    lim__channel_unref(c->ch);
    lim_runtime_exit(c->b->rt, c->pid, LIM_KILL);
    turns(c->b);
}

static void near(bench *b, const char *result, uint32_t subs, lim_policy policy)
{
    static crew c;
    c = (crew){ .count = subs, .name = "near", .policy = policy };
    crew_start(b, &c, 0);
    must(lim__channel_open(b->all, lim__str("near"), NULL, &c.ch) == LIM_OK, "open");
    double ns = measure(&c, false);
    printf("RESULT channel.%s %.1f ns\n", result, subs > 1 ? ns / subs : ns);
    must(lim__channel_close(b->all, lim__str("near")) == LIM_OK, "close");
    crew_stop(&c);
}

static void far(bench *b)
{
    static crew publisher, reader;
    publisher = (crew){ .count = 0 };
    reader = (crew){ .count = 1, .name = "far", .policy = LIM_DROP_OLDEST };
    crew_start(b, &publisher, 0);
    crew_start(b, &reader, 1);
    publisher.ch = lim__channel_find(b->all, lim__str("far"));
    printf("RESULT channel.publish_far_1x1 %.1f ns\n", measure(&publisher, true));
    must(reader.subs[0].seen == (uint64_t)ROUND * ROUNDS * BATCHES, "delivery");
    crew_stop(&publisher);
    crew_stop(&reader);
}

static lim_done on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d;
    ++*(uint64_t *)ctx;
    return LIM_DONE;
}

static void embedded(bench *b)
{
    uint64_t seen = 0;
    double best = 1e18;
    lim_channel ch;
    lim_sub sub;
    lim_admission adm;
    lim_sub_opts opts = { .size = sizeof opts, .handler = { .on_message = on_message, .ctx = &seen } };
    must(lim_channel_open(&b->bus, "local", NULL, &ch) == LIM_OK, "open");
    must(lim_subscribe(&b->bus, "local", &opts, &sub) == LIM_OK, "subscribe");
    for (int i = 0; i < BATCHES; i++) {
        uint64_t began = now_ns();
        for (int j = 0; j < ROUNDS; j++) {
            for (int k = 0; k < ROUND; k++)
                must(lim_publish(&b->bus, ch, lim__str("a payload"), NULL, &adm) == LIM_OK, "publish");
            turns(b);
        }
        double ns = (double)(now_ns() - began) / (ROUND * ROUNDS);
        best = ns < best ? ns : best;
    }
    must(seen == (uint64_t)ROUND * ROUNDS * BATCHES, "delivery");
    printf("RESULT channel.publish_to_handler %.1f ns\n", best);
    must(lim_unsubscribe(&b->bus, sub) == LIM_OK && lim_channel_close(&b->bus, ch) == LIM_OK, "close");
}

int main(void)
{
    bench b = { .bus.opts.payload_bytes_max = 1 << 20 };
    lim__runtime_opts opts = { .scheduler_count = 2, .threads = false };
    must(lim__runtime_open(&opts, &b.rt) == LIM_OK && lim__channels_open(b.rt, &b.all) == LIM_OK, "open");
    b.bus.rt = b.rt;
    b.bus.channels = b.all;
    near(&b, "publish_1x0", 0, LIM_DROP_OLDEST);
    near(&b, "publish_1x1", 1, LIM_DROP_OLDEST);
    near(&b, "publish_1x1_hold", 1, LIM_HOLD_BACK);
    near(&b, "publish_1x100_each", 100, LIM_DROP_OLDEST);
    far(&b);
    embedded(&b);
    turns(&b);
    lim_runtime_close(b.rt);
    lim__channels_close(b.all);
    return 0;
}
