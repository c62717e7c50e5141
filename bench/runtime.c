/* SPDX-License-Identifier: Apache-2.0
 * runtime.c - what the actor runtime costs: sends, spawns, deaths, memory.
 *
 * Everything on one scheduler is measured in the calling thread (lim__sched_turn), so that no wake-up is in it; what
 * crosses schedulers is measured with two threads. Each value is the best of many short rounds: the machine's noise
 * only ever adds. Names end in their unit of work; ns are per that unit. */
#include "actor/actor.h"
#include "base/base.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static lim__os *os;

static uint64_t now(void)
{
    return os->now_ns(os);
}

static void result(const char *name, double value, const char *unit)
{
    printf("RESULT %s %.1f %s\n", name, value, unit);
    fflush(stdout);
}

static void must(lim_err err)
{
    if (err != LIM_OK) {
        fprintf(stderr, "bench: %s\n", lim_err_text(err));
        exit(1);
    }
}

static lim_runtime *open_here(uint32_t schedulers)
{
    lim_runtime *rt;
    must(lim__runtime_open(&(lim__runtime_opts){ .os = os, .scheduler_count = schedulers }, &rt));
    return rt;
}

static lim_pid spawn(lim_runtime *rt, uint32_t scheduler, lim_on_signal *on_signal, const void *init, size_t bytes)
{
    lim_spawn_opts o = { .size = sizeof o,
                         .on_signal = on_signal,
                         .state_bytes = bytes,
                         .init = init,
                         .init_bytes = bytes,
                         .mailbox_max = 1 << 20,
                         .place = true,
                         .scheduler = scheduler };
    lim_pid pid;
    must(lim_runtime_spawn(rt, &o, &pid));
    return pid;
}

static void drive(lim_runtime *rt)
{
    lim__sched *s = lim__sched_at(rt, 0);
    while (lim__sched_turn(s, 0))
        ;
}

/* ---- round trip on one scheduler ---- */
typedef struct ping {
    uint64_t left;
} ping;

static void on_ping(lim_process *self, const lim_signal *signal, void *state)
{
    ping *p = state;
    if (p->left == 0)
        return;
    p->left--;
    must(lim_send(self, signal->from.id ? signal->from : *(const lim_pid *)signal->body.ptr, 1, signal->body));
}

static double round_trip(uint64_t count)
{
    lim_runtime *rt = open_here(1);
    ping p = { count };
    lim_pid a = spawn(rt, 0, on_ping, &p, sizeof p), b = spawn(rt, 0, on_ping, &p, sizeof p);
    must(lim_runtime_send(rt, a, 1, lim__bytes(&b, sizeof b)));
    uint64_t t0 = now();
    drive(rt);
    double ns = (double)(now() - t0) / (double)count;
    lim_runtime_close(rt);
    return ns;
}

/* ---- one-way stream ---- */
typedef struct stream {
    lim_pid to;
    uint64_t left, batch;
} stream;

static void on_nothing(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)signal, (void)state;
}

/* Asks for more after every batch, so that the stream does not run into its mailbox's limit. */
static void on_streamed(lim_process *self, const lim_signal *signal, void *state)
{
    stream *s = state;
    if (++s->left % s->batch == 0)
        must(lim_send(self, signal->from, 1, lim__bytes(NULL, 0)));
}

static void on_stream(lim_process *self, const lim_signal *signal, void *state)
{
    static const char body[128];
    (void)signal;
    stream *s = state;
    for (uint64_t i = 0; i < s->batch && s->left > 0; i++, s->left--)
        must(lim_send(self, s->to, 1, lim__bytes(body, sizeof body)));
}

static double one_way(uint64_t count)
{
    lim_runtime *rt = open_here(1);
    stream s = { .batch = 256 };
    s.to = spawn(rt, 0, on_streamed, &s, sizeof s);
    s.left = count;
    lim_pid a = spawn(rt, 0, on_stream, &s, sizeof s);
    must(lim_runtime_send(rt, a, 1, lim__bytes(NULL, 0)));
    uint64_t t0 = now();
    drive(rt);
    double ns = (double)(now() - t0) / (double)count;
    lim_runtime_close(rt);
    return ns;
}

/* ---- spawn, exit, watcher told ---- */
static void on_first(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal, (void)state;
    lim_exit(self, LIM_NORMAL);
}

static void spawn_one(lim_process *self)
{
    uint64_t monitor;
    lim_pid pid;
    lim_spawn_opts o = {
        .size = sizeof o, .on_signal = on_first, .state_bytes = 32, .monitor = true, .monitor_out = &monitor
    };
    must(lim_spawn(self, &o, &pid));
    must(lim_send(self, pid, 1, lim__bytes(NULL, 0)));
}

static void on_down(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal;
    ping *p = state;
    if (p->left-- > 0)
        spawn_one(self);
    else
        lim_exit(self, LIM_NORMAL);
}

static double spawn_exit_down(uint64_t count)
{
    lim_runtime *rt = open_here(1);
    ping p = { count };
    lim_pid a = spawn(rt, 0, on_down, &p, sizeof p);
    must(lim_runtime_send(rt, a, 1, lim__bytes(NULL, 0)));
    uint64_t t0 = now();
    drive(rt);
    double ns = (double)(now() - t0) / (double)count;
    lim_runtime_close(rt);
    return ns;
}

/* ---- idle memory ---- */
static double idle_bytes(uint64_t count)
{
    lim_runtime *rt = open_here(1);
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    uint64_t state[4] = { 0 };
    for (size_t i = 0; i < count; i++)
        (void)spawn(rt, 0, on_nothing, state, sizeof state);
    drive(rt);
    double bytes = (double)(mallinfo2().uordblks + mallinfo2().hblkhd - before) / (double)count;
    lim_runtime_close(rt);
    return bytes;
}

/* ---- link cascade ---- */
static void on_link(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->body.len)
        must(lim_link(self, *(const lim_pid *)signal->body.ptr));
    else
        lim_exit(self, LIM_FAULT);
}

static double cascade(uint64_t count)
{
    lim_runtime *rt = open_here(1);
    lim_pid first = spawn(rt, 0, on_link, NULL, 0), last = first;
    for (size_t i = 1; i < count; i++) {
        lim_pid next = spawn(rt, 0, on_link, NULL, 0);
        must(lim_runtime_send(rt, next, 1, lim__bytes(&last, sizeof last)));
        last = next;
    }
    drive(rt);
    must(lim_runtime_send(rt, first, 1, lim__bytes(NULL, 0)));
    uint64_t t0 = now();
    drive(rt);
    double ns = (double)(now() - t0) / (double)count;
    if (lim_alive(rt, last))
        must(LIM_E_INVALID);
    lim_runtime_close(rt);
    return ns;
}

/* ---- across schedulers ---- */
static _Atomic uint64_t finished_ns;

typedef struct far_ping {
    uint64_t left;
} far_ping;

static void on_far_ping(lim_process *self, const lim_signal *signal, void *state)
{
    far_ping *p = state;
    if (signal->from.id == 0) { /* the host: body is {peer, outstanding} */
        const uint64_t *start = signal->body.ptr;
        for (uint64_t i = 0; i < start[1]; i++)
            must(lim_send(self, (lim_pid){ start[0] }, 1, lim__bytes(NULL, 0)));
        return;
    }
    if (p->left == 0)
        return;
    if (--p->left == 0)
        atomic_store(&finished_ns, now());
    must(lim_send(self, signal->from, 1, lim__bytes(NULL, 0)));
}

static double cross_round_trip(uint64_t count, uint64_t outstanding, uint32_t spin_us)
{
    lim_runtime *rt;
    must(lim__runtime_open(&(lim__runtime_opts){ .os = os, .scheduler_count = 2, .threads = true, .spin_us = spin_us },
                           &rt));
    far_ping p = { count }, echo = { UINT64_MAX };
    lim_pid a = spawn(rt, 0, on_far_ping, &p, sizeof p), b = spawn(rt, 1, on_far_ping, &echo, sizeof echo);
    uint64_t start[2] = { b.id, outstanding };
    atomic_store(&finished_ns, 0);
    uint64_t t0 = now();
    must(lim_runtime_send(rt, a, 1, lim__bytes(start, sizeof start)));
    while (!atomic_load(&finished_ns)) {
        lim__cond never;
        lim__mutex m = LIM__MUTEX_INIT;
        lim__cond_init(&never);
        pthread_mutex_lock(&m);
        (void)lim__cond_wait_until(&never, &m, now() + 2000000);
        pthread_mutex_unlock(&m);
    }
    double ns = (double)(atomic_load(&finished_ns) - t0) / (double)count;
    lim_runtime_close(rt);
    return ns;
}

static double cross_256(uint64_t count)
{
    return cross_round_trip(count, 256, 0);
}

static double cross_16_spin(uint64_t count)
{
    return cross_round_trip(count, 16, 50);
}

static double cross_1_spin(uint64_t count)
{
    return cross_round_trip(count, 1, 50);
}

static double cross_1_sleeping(uint64_t count)
{
    return cross_round_trip(count, 1, 0);
}

static void best(const char *name, int rounds, double (*measure)(uint64_t), uint64_t count, const char *unit)
{
    double least = measure(count);
    for (int i = 1; i < rounds; i++) {
        double value = measure(count);
        if (value < least)
            least = value;
    }
    result(name, least, unit);
}

int main(void)
{
    os = lim__os_linux();
    best("runtime_round_trip_same", 300, round_trip, 30000, "ns");
    best("runtime_one_way_128", 300, one_way, 30000, "ns");
    best("runtime_spawn_exit_down", 300, spawn_exit_down, 10000, "ns");
    best("runtime_idle_process", 1, idle_bytes, 100000, "bytes");
    best("runtime_cascade_per_link", 50, cascade, 20000, "ns");
    best("runtime_cross_round_trip_256_outstanding", 30, cross_256, 100000, "ns");
    best("runtime_cross_round_trip_16_outstanding_spin", 30, cross_16_spin, 30000, "ns");
    best("runtime_cross_round_trip_1_spin", 30, cross_1_spin, 3000, "ns");
    best("runtime_cross_round_trip_1_sleeping", 30, cross_1_sleeping, 1000, "ns");
    return 0;
}
