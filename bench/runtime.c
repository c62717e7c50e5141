/* SPDX-License-Identifier: Apache-2.0
 * runtime.c - what the actor runtime costs: sends, spawns, deaths, memory, crossing from scheduler to scheduler.
 *
 *      bench-runtime [one|two [WHAT]]     on one scheduler, or across two; only what has WHAT in its name
 *
 * bench/erlang/runtime.erl does the same work under the same names, so what is written here holds for both:
 *
 *   one   The work is turned in the calling thread (lim__sched_turn), so that no wake-up is in it.
 *   two   Two scheduler threads; `apart` puts callers on one and the server on the other, so that everything crosses;
 *         `free` leaves one half of the callers beside the server (Erlang: leaves all to its balancer).
 *   best  A mean is the best of many short rounds: the machine's noise only ever adds.
 *   p50.. A distribution is taken over the single round trips of the round with the best mean, each with one reading of
 *         the clock in it (runtime_clock). On a machine with other work to do the two schedulers share one processor
 * now and then, and a crossing is then a switch of threads: that is no property of theirs. single    One message under
 * way, both schedulers awake: each looks for the other's with nothing else to do. busy      The same, while eight other
 * processes on each scheduler send themselves a message, and another, and another: a message waits for their slices.
 * p50.. as above. pipelined 256 round trips under way; the time per round trip. limit     What the machine allows,
 * without any runtime: two threads and one word that both write (line), one word for each direction (lines), and one
 * word for each direction through which a block of 64 bytes is handed over by compare-and-swap and exchange, as any
 * lock-free inbox must (handover). How long a cache line takes from one processor to the other depends on where the two
 * are just then, so single_to_limit is the median of many ratios, each of neighbours in time.
 *
 * Memory is what the kernel counts (resident pages), taken first, while the allocator has nothing to give again. */
#include "actor/actor.h"
#include "base/base.h"
#include "base/hist.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CALLERS = 64, BATCH = 256, BUSY = 8, SPIN_US = 50 /* as liminald */ };

static lim__os *os;
static lim__hist hist;  /* of a round: written by one process, read when it has posted */
static lim__hist best;  /* of the best round */
static sem_t finished;  /* posted by the process whose work ends a round */
static uint64_t end_ns; /* written before that post */

static uint64_t now(void)
{
    return os->now_ns(os);
}

static void result(const char *name, double value, const char *unit)
{
    printf("RESULT %s %.1f %s\n", name, value, unit);
    fflush(stdout);
}

static void percentiles(const char *name)
{
    static const struct {
        const char *suffix;
        double at;
    } points[] = { { "p50", 50 }, { "p99", 99 }, { "p99.9", 99.9 } };
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        printf("RESULT %s.%s %.1f ns\n", name, points[i].suffix, (double)lim__hist_percentile(&best, points[i].at));
    fflush(stdout);
}

static void must(lim_err err)
{
    if (err != LIM_OK) {
        fprintf(stderr, "bench: %s\n", lim_err_text(err));
        exit(1);
    }
}

static lim_bytes nothing(void)
{
    return lim__bytes(NULL, 0);
}

/* GONE: the runtime is closing, the round is over. */
static void tell(lim_process *self, lim_pid to)
{
    lim_err err = lim_send(self, to, 1, nothing());
    if (err != LIM_E_GONE)
        must(err);
}

static lim_runtime *open_here(void)
{
    lim_runtime *rt;
    must(lim__runtime_open(&(lim__runtime_opts){ .os = os, .scheduler_count = 1 }, &rt));
    return rt;
}

static lim_runtime *open_two(void)
{
    lim_runtime *rt;
    must(lim__runtime_open(&(lim__runtime_opts){ .os = os, .scheduler_count = 2, .threads = true, .spin_us = SPIN_US },
                           &rt));
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

/* Starts the round by a message to `first` and drives it to its end; ns per `count`. */
static double driven(lim_runtime *rt, lim_pid first, lim_bytes body, uint64_t count)
{
    must(lim_runtime_send(rt, first, 1, body));
    uint64_t t0 = now();
    drive(rt);
    double ns = (double)(now() - t0) / (double)count;
    lim_runtime_close(rt);
    return ns;
}

static void finish(void)
{
    end_ns = now();
    sem_post(&finished);
}

static double awaited(lim_runtime *rt, uint64_t t0, uint64_t count)
{
    while (sem_wait(&finished) != 0)
        ;
    double ns = (double)(end_ns - t0) / (double)count;
    lim_runtime_close(rt);
    return ns;
}

static double clock_cost(uint64_t count)
{
    uint64_t t0 = now(), sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += now();
    return sum ? (double)(now() - t0) / (double)count : 0;
}

/* ---- memory ---- */
static double resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    if (!f || fscanf(f, "%*u %lu", &pages) != 1)
        must(LIM_E_IO);
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void on_nothing(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)signal, (void)state;
}

static double idle_bytes(uint64_t count)
{
    lim_runtime *rt = open_here();
    uint64_t state[4] = { 0 };
    drive(rt);
    double before = resident_bytes();
    for (size_t i = 0; i < count; i++)
        (void)spawn(rt, 0, on_nothing, state, sizeof state);
    drive(rt);
    double bytes = (resident_bytes() - before) / (double)count;
    lim_runtime_close(rt);
    return bytes;
}

/* ---- round trip ---- */
typedef struct ping {
    lim_pid peer;
    uint64_t left, sent_ns;
    bool timed, host_waits;
} ping;

static void on_echo(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    tell(self, signal->from);
}

static void on_ping(lim_process *self, const lim_signal *signal, void *state)
{
    ping *p = state;
    if (p->timed && signal->from.id)
        lim__hist_record(&hist, now() - p->sent_ns);
    if (p->left-- == 0) {
        if (p->host_waits)
            finish();
        return;
    }
    if (p->timed)
        p->sent_ns = now();
    tell(self, p->peer);
}

static double round_trip_here(uint64_t count, bool timed)
{
    lim_runtime *rt = open_here();
    ping p = { .peer = spawn(rt, 0, on_echo, NULL, 0), .left = count, .timed = timed };
    return driven(rt, spawn(rt, 0, on_ping, &p, sizeof p), nothing(), count);
}

static double round_trip(uint64_t count)
{
    return round_trip_here(count, false);
}

static double round_trip_timed(uint64_t count)
{
    return round_trip_here(count, true);
}

/* ---- one-way stream ---- the receiver asks for more after every batch */
typedef struct stream {
    lim_pid to;
    uint64_t left;
} stream;

static void on_streamed(lim_process *self, const lim_signal *signal, void *state)
{
    stream *s = state;
    if (++s->left % BATCH == 0)
        tell(self, signal->from);
}

static void on_stream(lim_process *self, const lim_signal *signal, void *state)
{
    static const char body[128];
    (void)signal;
    stream *s = state;
    for (uint64_t i = 0; i < BATCH && s->left > 0; i++, s->left--)
        must(lim_send(self, s->to, 1, lim__bytes(body, sizeof body)));
}

static double one_way(uint64_t count)
{
    lim_runtime *rt = open_here();
    stream s = { 0 };
    s.to = spawn(rt, 0, on_streamed, &s, sizeof s);
    s.left = count;
    return driven(rt, spawn(rt, 0, on_stream, &s, sizeof s), nothing(), count);
}

/* ---- spawn, exit, watcher told ---- */
static void on_first(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal, (void)state;
    lim_exit(self, LIM_NORMAL);
}

/* A process runs when it is told something: the message that it ends on is in the price. */
static void on_down(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal;
    uint64_t *left = state, monitor;
    if ((*left)-- == 0) {
        lim_exit(self, LIM_NORMAL);
        return;
    }
    lim_pid pid;
    lim_spawn_opts o = {
        .size = sizeof o, .on_signal = on_first, .state_bytes = 32, .monitor = true, .monitor_out = &monitor
    };
    must(lim_spawn(self, &o, &pid));
    tell(self, pid);
}

static double spawn_exit_down(uint64_t count)
{
    lim_runtime *rt = open_here();
    return driven(rt, spawn(rt, 0, on_down, &count, sizeof count), nothing(), count);
}

/* How much more is resident after `count` lives than after the first 10,000 of them. */
static double lives(uint64_t count)
{
    lim_runtime *rt = open_here();
    uint64_t warm = 10000, rest = count - warm;
    must(lim_runtime_send(rt, spawn(rt, 0, on_down, &warm, sizeof warm), 1, nothing()));
    drive(rt);
    double before = resident_bytes();
    must(lim_runtime_send(rt, spawn(rt, 0, on_down, &rest, sizeof rest), 1, nothing()));
    drive(rt);
    double grown = resident_bytes() - before;
    lim_runtime_close(rt);
    return grown / 1024;
}

/* ---- link cascade ---- a chain; the first one fails */
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
    lim_runtime *rt = open_here();
    lim_pid first = spawn(rt, 0, on_link, NULL, 0), last = first;
    for (size_t i = 1; i < count; i++) {
        lim_pid next = spawn(rt, 0, on_link, NULL, 0);
        must(lim_runtime_send(rt, next, 1, lim__bytes(&last, sizeof last)));
        last = next;
    }
    drive(rt);
    must(lim_runtime_send(rt, first, 1, nothing()));
    uint64_t t0 = now();
    drive(rt);
    double ns = (double)(now() - t0) / (double)count;
    if (lim_alive(rt, last))
        must(LIM_E_GONE);
    lim_runtime_close(rt);
    return ns;
}

/* ---- across schedulers: round trips ---- */
typedef struct pipe_end {
    lim_pid peer;
    uint64_t left, outstanding;
} pipe_end;

static void on_pipe(lim_process *self, const lim_signal *signal, void *state)
{
    pipe_end *p = state;
    if (signal->from.id == 0) {
        for (uint64_t i = 0; i < p->outstanding; i++)
            tell(self, p->peer);
        return;
    }
    if (p->left == 0)
        return;
    if (--p->left == 0)
        finish();
    tell(self, p->peer);
}

static void on_busy(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal, (void)state;
    tell(self, lim_self(self));
}

static void make_busy(lim_runtime *rt)
{
    for (uint32_t i = 0; i < 2 * BUSY; i++)
        must(lim_runtime_send(rt, spawn(rt, i % 2, on_busy, NULL, 0), 1, nothing()));
}

static double pipelined(uint64_t count, bool busy)
{
    lim_runtime *rt = open_two();
    if (busy)
        make_busy(rt);
    pipe_end p = { .peer = spawn(rt, 1, on_echo, NULL, 0), .left = count, .outstanding = BATCH };
    lim_pid a = spawn(rt, 0, on_pipe, &p, sizeof p);
    uint64_t t0 = now();
    must(lim_runtime_send(rt, a, 1, nothing()));
    return awaited(rt, t0, count);
}

static double cross_pipelined(uint64_t count)
{
    return pipelined(count, false);
}

static double cross_busy_pipelined(uint64_t count)
{
    return pipelined(count, true);
}

static double cross(uint64_t count, bool timed, bool busy)
{
    lim_runtime *rt = open_two();
    if (busy)
        make_busy(rt);
    ping p = { .peer = spawn(rt, 1, on_echo, NULL, 0), .left = count, .timed = timed, .host_waits = true };
    lim_pid a = spawn(rt, 0, on_ping, &p, sizeof p);
    uint64_t t0 = now();
    must(lim_runtime_send(rt, a, 1, nothing()));
    return awaited(rt, t0, count);
}

static double cross_single(uint64_t count)
{
    return cross(count, false, false);
}

static double cross_single_timed(uint64_t count)
{
    return cross(count, true, false);
}

static double cross_busy_timed(uint64_t count)
{
    return cross(count, true, true);
}

/* ---- what two processors can do ---- */
typedef struct block {
    _Alignas(64) uint64_t words[8];
} block;
typedef struct words { /* each in a line of its own, and the next line empty: processors fetch them in pairs */
    _Alignas(128) _Atomic uint64_t there;
    _Alignas(128) _Atomic uint64_t back;
    _Alignas(128) _Atomic(block *) box[2][16]; /* the first of each */
    uint64_t left;
} words;

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void await(_Atomic uint64_t *word, uint64_t value)
{
    while (atomic_load_explicit(word, memory_order_acquire) != value)
        relax();
}

static void *answer_line(void *arg)
{
    words *w = arg;
    for (uint64_t i = 0; i < w->left; i++) {
        await(&w->there, 2 * i + 1);
        atomic_store_explicit(&w->there, 2 * i + 2, memory_order_release);
    }
    return NULL;
}

static void *answer_lines(void *arg)
{
    words *w = arg;
    for (uint64_t i = 1; i <= w->left; i++) {
        await(&w->there, i);
        atomic_store_explicit(&w->back, i, memory_order_release);
    }
    return NULL;
}

static block *box_take(_Atomic(block *) *box)
{
    const block *seen;
    while ((seen = atomic_load_explicit(box, memory_order_relaxed)) == NULL)
        relax();
    __builtin_prefetch(seen);
    return atomic_exchange(box, NULL);
}

static void box_give(_Atomic(block *) *box, block *b)
{
    block *head = atomic_load_explicit(box, memory_order_relaxed);
    for (size_t i = 0; i < 8; i++)
        b->words[i]++;
    while (!atomic_compare_exchange_weak(box, &head, b))
        ;
}

static void *answer_handover(void *arg)
{
    words *w = arg;
    for (uint64_t i = 0; i < w->left; i++)
        box_give(&w->box[1][0], box_take(&w->box[0][0]));
    return NULL;
}

static double with_thread(words *w, void *(*answer)(void *), void (*ask)(words *), uint64_t count)
{
    lim__thread thread;
    w->left = count;
    if (lim__thread_start(&thread, "limit", answer, w) != 0)
        must(LIM_E_NOMEM);
    uint64_t t0 = now();
    ask(w);
    double ns = (double)(now() - t0) / (double)count;
    lim__thread_join(thread);
    return ns;
}

static void ask_line(words *w)
{
    for (uint64_t i = 0; i < w->left; i++) {
        atomic_store_explicit(&w->there, 2 * i + 1, memory_order_release);
        await(&w->there, 2 * i + 2);
    }
}

static void ask_lines(words *w)
{
    for (uint64_t i = 1; i <= w->left; i++) {
        atomic_store_explicit(&w->there, i, memory_order_release);
        await(&w->back, i);
    }
}

static void ask_handover(words *w)
{
    static block only;
    block *b = &only;
    for (uint64_t i = 0; i < w->left; i++) {
        box_give(&w->box[0][0], b);
        b = box_take(&w->box[1][0]);
    }
}

static double limit_line(uint64_t count)
{
    words w = { .left = 0 };
    return with_thread(&w, answer_line, ask_line, count);
}

static double limit_lines(uint64_t count)
{
    words w = { .left = 0 };
    return with_thread(&w, answer_lines, ask_lines, count);
}

static double limit_handover(uint64_t count)
{
    words w = { .left = 0 };
    return with_thread(&w, answer_handover, ask_handover, count);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double single_to_limit(uint64_t count)
{
    double ratios[41];
    for (size_t i = 0; i < 41; i++) {
        double limit = limit_handover(10 * count); /* a thread's start is in it */
        ratios[i] = cross_single(count) / limit;
    }
    qsort(ratios, 41, sizeof ratios[0], by_size);
    return ratios[20];
}

/* ---- across schedulers: 64 callers, one server ---- */
typedef struct caller {
    lim_pid server;
    uint64_t left;
} caller;
static _Atomic uint32_t calling;

static bool more_calls(caller *c)
{
    if (c->left-- > 0)
        return true;
    if (atomic_fetch_sub(&calling, 1) == 1)
        finish();
    return false;
}

static void on_caller(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal;
    caller *c = state;
    if (more_calls(c))
        tell(self, c->server);
}

static void on_requester(lim_process *self, const lim_signal *signal, void *state)
{
    caller *c = state;
    uint64_t ref;
    if (signal->kind == LIM_SIGNAL_RESPONSE && signal->reason != LIM_NORMAL)
        must(LIM_E_GONE);
    if (more_calls(c))
        must(lim_request(self, c->server, 1, nothing(), 5000, &ref));
}

static void on_server(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->ref)
        must(lim_respond(self, signal, nothing()));
    else
        tell(self, signal->from);
}

/* beside: how many of the callers live on the server's scheduler */
static double calls(uint64_t count, lim_on_signal *on_signal, uint32_t beside)
{
    lim_runtime *rt = open_two();
    caller c = { spawn(rt, 1, on_server, NULL, 0), count / CALLERS };
    lim_pid callers[CALLERS];
    for (uint32_t i = 0; i < CALLERS; i++)
        callers[i] = spawn(rt, i < beside, on_signal, &c, sizeof c);
    atomic_store(&calling, CALLERS);
    uint64_t t0 = now();
    for (uint32_t i = 0; i < CALLERS; i++)
        must(lim_runtime_send(rt, callers[i], 1, nothing()));
    return awaited(rt, t0, count);
}

static double callers_apart(uint64_t count)
{
    return calls(count, on_caller, 0);
}

static double callers_free(uint64_t count)
{
    return calls(count, on_caller, CALLERS / 2);
}

static double requests_apart(uint64_t count)
{
    return calls(count, on_requester, 0);
}

static double requests_free(uint64_t count)
{
    return calls(count, on_requester, CALLERS / 2);
}

/* ---- what is measured, and how much of it ---- */
typedef enum told { NS = 1, RATE, BYTES, KIB, TIMES, PERCENTILES } told;

static const struct job {
    const char *name;
    const char *where; /* one or two schedulers */
    told as;
    double (*measure)(uint64_t);
    int rounds;
    uint64_t count;
} jobs[] = {
    { "runtime_idle_process", "one", BYTES, idle_bytes, 1, 100000 },
    { "runtime_clock", "one", NS, clock_cost, 20, 10000 },
    { "runtime_round_trip_same", "one", NS, round_trip, 200, 30000 },
    { "runtime_round_trip_same", "one", PERCENTILES, round_trip_timed, 20, 30000 },
    { "runtime_one_way_128", "one", NS, one_way, 200, 30000 },
    { "runtime_spawn_exit_down", "one", NS, spawn_exit_down, 200, 10000 },
    { "runtime_cascade_per_link", "one", NS, cascade, 30, 20000 },
    { "runtime_10M_lives_growth", "one", KIB, lives, 1, 10000000 },
    { "runtime_cross_pipelined", "two", NS, cross_pipelined, 100, 30000 },
    { "runtime_cross_single", "two", NS, cross_single, 40, 1000 },
    { "runtime_cross_single", "two", PERCENTILES, cross_single_timed, 10, 5000 },
    { "runtime_cross_busy", "two", PERCENTILES, cross_busy_timed, 10, 2000 },
    { "runtime_cross_busy_pipelined", "two", NS, cross_busy_pipelined, 20, 30000 },
    { "runtime_limit_line", "two", NS, limit_line, 40, 10000 },
    { "runtime_limit_lines", "two", NS, limit_lines, 40, 10000 },
    { "runtime_limit_handover", "two", NS, limit_handover, 40, 10000 },
    { "runtime_cross_single_to_limit", "two", TIMES, single_to_limit, 1, 1000 },
    { "runtime_callers_64_apart", "two", RATE, callers_apart, 40, 19200 },
    { "runtime_callers_64_free", "two", RATE, callers_free, 40, 19200 },
    { "runtime_requests_64_apart", "two", RATE, requests_apart, 40, 19200 },
    { "runtime_requests_64_free", "two", RATE, requests_free, 40, 19200 },
};

static double best_round(const struct job *j)
{
    double least = 0;
    for (int i = 0; i < j->rounds; i++) {
        lim__hist_reset(&hist);
        double value = j->measure(j->count);
        if (i > 0 && value >= least)
            continue;
        least = value;
        best = hist;
    }
    return least;
}

static void run(const struct job *j)
{
    double least = best_round(j);
    switch (j->as) {
    case NS:
        result(j->name, least, "ns");
        break;
    case RATE:
        result(j->name, 1e9 / least, "req/s");
        break;
    case BYTES:
        result(j->name, least, "bytes");
        break;
    case KIB:
        result(j->name, least, "KiB");
        break;
    case TIMES:
        printf("RESULT %s %.2f x\n", j->name, least);
        break;
    case PERCENTILES:
        percentiles(j->name);
        break;
    }
}

int main(int argc, char **argv)
{
    const char *where = argc > 1 ? argv[1] : "", *what = argc > 2 ? argv[2] : "";
    if (argc > 3 || (argc > 1 && strcmp(where, "one") != 0 && strcmp(where, "two") != 0)) {
        fprintf(stderr, "usage: bench-runtime [one|two [WHAT]]\n");
        return 2;
    }
    os = lim__os_linux();
    if (sem_init(&finished, 0, 0) != 0)
        return 1;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++)
        if ((argc == 1 || strcmp(jobs[i].where, where) == 0) && strstr(jobs[i].name, what))
            run(&jobs[i]);
    return 0;
}
