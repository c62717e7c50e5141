/* SPDX-License-Identifier: Apache-2.0
 * conversation.c - what a conversation costs, a durable one beside the syncs of the disk it is on, too: open + ask +
 * close inside one scheduler, the same through a group's router, the bytes of an idle one, and an ask from a host
 * thread beside a plain two-futex ping-pong.
 *
 * Inside a scheduler means that owner, conversation and participant live on it and nobody sleeps: the loop is driven
 * by hand, so what is measured is the work and not the waking. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bus/bus.h"
#include "bus/letters.h"
#include "bus/participant.h"

enum { ASKS = 300000, IDLE = 100000, HOST_ASKS = 20000, DURABLE = 500 };

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
    fprintf(stderr, "bench-conversation: %s failed\n", what);
    exit(1);
}

typedef struct asker {
    lim_bus *bus;
    lim_pid participant; /* {0}: through the group */
    uint64_t left;
    lim__msg *payload;
    _Atomic uint64_t *done_ns;
} asker;

static void ask_once(lim_process *self, asker *a)
{
    lim__sched *s = lim__proc_sched(self);
    lim_pid conv;
    lim_bytes group = a->participant.id != 0 ? lim__bytes("", 0) : lim__str("echo");
    lim__open *o = lim__open_new(s, LIM__KIND_ASK, group, lim__bytes("", 0), lim__msg_ref(a->payload));
    o->owner = lim_self(self);
    o->ref = 1;
    o->opened_ns = lim_now_ns(self);
    o->deadline_ns = o->opened_ns + 5000000000u;
    o->participant = a->participant;
    must(lim__conv_spawn(a->bus, self, o, &conv) == LIM_OK, "spawn");
}

static void on_asker(lim_process *self, const lim_signal *signal, void *state)
{
    asker *a = state;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (signal->type == &lim__type_outcome) {
        must(((const lim__outcome_letter *)signal->body.ptr)->how == LIM_HOW_REPLY, "ask");
        if (--a->left == 0) {
            atomic_store(a->done_ns, now_ns());
            return;
        }
    }
    ask_once(self, a);
}

static void on_idler(lim_process *self, const lim_signal *signal, void *state)
{
    for (int i = 0; signal->kind == LIM_SIGNAL_MESSAGE && signal->type == NULL && i < IDLE / 100; i++)
        ask_once(self, state);
}

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static lim_done on_hold(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d, (void)ctx;
    return LIM_HOLD;
}

static void turns(lim_bus *bus, const _Atomic uint64_t *until, uint64_t max)
{
    for (uint64_t i = 0; (until == NULL || *until == 0) && i < max; i++)
        lim__sched_turn(lim__sched_at(bus->rt, 0), 0);
}

static lim_pid owner(lim_bus *bus, lim_on_signal *on_signal, const asker *init)
{
    lim_pid pid = { 0 };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = on_signal,
                            .state_bytes = sizeof *init,
                            .init = init,
                            .init_bytes = sizeof *init,
                            .trap_exit = true };
    must(lim_runtime_spawn(bus->rt, &opts, &pid) == LIM_OK, "spawn");
    return pid;
}

static void asks(lim_bus *bus, const char *name, lim_pid participant)
{
    _Atomic uint64_t done = 0;
    asker init = { .bus = bus,
                   .participant = participant,
                   .left = ASKS,
                   .done_ns = &done,
                   .payload = lim__msg_new(lim__str("0123456789abcdef")) };
    lim_pid pid = owner(bus, on_asker, &init);
    must(lim_runtime_send(bus->rt, pid, 0, lim__bytes("", 0)) == LIM_OK, "send");
    uint64_t start = now_ns();
    turns(bus, &done, UINT64_MAX);
    printf("RESULT %s %.1f ns\n", name, (double)(done - start) / ASKS);
    lim_runtime_exit(bus->rt, pid, LIM_KILL);
    turns(bus, NULL, 10);
    lim__msg_unref(init.payload);
}

static long rss_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        (void)sscanf(line, "VmRSS: %ld", &kib);
    if (f != NULL)
        fclose(f);
    return kib;
}

static void idle(lim_bus *bus, lim_pid silent)
{
    asker init = { .bus = bus, .participant = silent, .payload = lim__msg_new(lim__str("0123456789abcdef")) };
    lim_pid pid = owner(bus, on_idler, &init);
    long before = rss_kib();
    for (int i = 0; i < 100; i++) {
        must(lim_runtime_send(bus->rt, pid, 0, lim__bytes("", 0)) == LIM_OK, "send");
        turns(bus, NULL, 50);
    }
    lim_bus_census census;
    lim_bus_census_take(bus, &census);
    printf("RESULT conversation.memory_idle %.0f B\n",
           (double)(rss_kib() - before) * 1024 / (double)census.conversations);
    lim__msg_unref(init.payload);
}

static void on_talker(lim_process *self, const lim_signal *signal, void *state)
{
    asker *a = state;
    for (int i = 0; signal->kind == LIM_SIGNAL_MESSAGE && signal->type == NULL && i < IDLE / 100; i++) {
        lim_pid conv;
        lim__open *o = lim__open_new(lim__proc_sched(self), LIM__KIND_TALK, lim__str(""), lim__str(""), NULL);
        o->owner = lim_self(self);
        o->opened_ns = lim_now_ns(self);
        o->participant = a->participant;
        must(lim__conv_spawn(a->bus, self, o, &conv) == LIM_OK, "spawn");
    }
}

/* Conversations that wait for somebody to say something; with a participant, or without. */
static void idle_talks(lim_bus *bus, const char *name, lim_pid with)
{
    asker init = { .bus = bus, .participant = with };
    lim_bus_census before, after;
    lim_pid pid = owner(bus, on_talker, &init);
    lim_bus_census_take(bus, &before);
    long kib = rss_kib();
    for (int i = 0; i < 100; i++) {
        must(lim_runtime_send(bus->rt, pid, 0, lim__bytes("", 0)) == LIM_OK, "send");
        turns(bus, NULL, 50);
    }
    lim_bus_census_take(bus, &after);
    printf("RESULT %s %.0f B\n", name,
           (double)(rss_kib() - kib) * 1024 / (double)(after.conversations - before.conversations));
}

static lim_pid participant(lim_bus *bus, lim_done (*on)(lim_bus *, const lim_delivery *, void *))
{
    lim_pid pid = { 0 };
    lim_handler handler = { .on_message = on };
    must(lim__participant_spawn(bus, &handler, LIM__MEMBER_SERVE, (lim_pid){ 0 }, &pid) == LIM_OK, "spawn");
    return pid;
}

static void join_echo(lim_bus *bus, lim_pid pid)
{
    lim_pid group = { 0 };
    must(lim__group_get(bus, NULL, lim__str("echo"), &group) == LIM_OK, "group");
    lim__join *j = lim__join_new(NULL, pid, LIM__MEMBER_SERVE, lim__str("e"), 64, NULL, NULL);
    j->reply_to = bus->agents[0];
    must(lim__post(bus->rt, group, j) == LIM_OK, "join");
    turns(bus, NULL, 10);
}

/* ---- from a host thread ---- */

typedef struct pong {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    int ball;
} pong;

static void *pong_run(void *arg)
{
    pong *p = arg;
    pthread_mutex_lock(&p->mutex);
    for (int i = 0; i < HOST_ASKS; i++) {
        while (p->ball != 1)
            pthread_cond_wait(&p->cond, &p->mutex);
        p->ball = 0;
        pthread_cond_signal(&p->cond);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void percentiles(const char *name, uint64_t *ns, size_t n)
{
    qsort(ns, n, sizeof *ns, by_value);
    printf("RESULT %s.p50 %.2f us\n", name, (double)ns[n / 2] / 1000);
    printf("RESULT %s.p99 %.2f us\n", name, (double)ns[n * 99 / 100] / 1000);
}

static void limit_pingpong(uint64_t *ns)
{
    pong p = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
    pthread_t thread;
    must(pthread_create(&thread, NULL, pong_run, &p) == 0, "thread");
    pthread_mutex_lock(&p.mutex);
    for (int i = 0; i < HOST_ASKS; i++) {
        uint64_t t = now_ns();
        p.ball = 1;
        pthread_cond_signal(&p.cond);
        while (p.ball != 0)
            pthread_cond_wait(&p.cond, &p.mutex);
        ns[i] = now_ns() - t;
    }
    pthread_mutex_unlock(&p.mutex);
    pthread_join(thread, NULL);
    percentiles("limit.futex_pingpong", ns, HOST_ASKS);
}

static void from_host(uint64_t *ns)
{
    lim_bus *bus = NULL;
    lim_participant echo;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim_serve_opts serve = { .size = sizeof serve, .capacity = 64, .handler = { .on_message = on_echo } };
    lim_ask_opts ask = { .size = sizeof ask, .timeout_ms = 5000 };
    must(lim_bus_open(&opts, &bus) == LIM_OK && lim_serve(bus, "echo", &serve, &echo) == LIM_OK, "open");
    for (int i = 0; i < HOST_ASKS; i++) {
        lim_outcome o;
        uint64_t t = now_ns();
        must(lim_ask(bus, "echo", lim__str("0123456789abcdef"), &ask, &o) == LIM_OK && o.how == LIM_HOW_REPLY, "ask");
        ns[i] = now_ns() - t;
        lim_outcome_fini(&o);
    }
    percentiles("conversation.ask_from_host_thread", ns, HOST_ASKS);
    lim_bus_close(bus);
}

/* Asker and conversation on one scheduler, the participant on another one: four crossings an ask, nothing else to do.
 */
static void crossing(void)
{
    lim_bus *bus = NULL;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 2, .spin_us = 50 };
    must(lim_bus_open(&opts, &bus) == LIM_OK, "open");
    lim_pid echo = participant(bus, on_echo);
    for (int i = 0; lim__pid_scheduler(echo) != 1 && i < 100; i++)
        echo = participant(bus, on_echo); /* they are put on schedulers in turn */
    must(lim__pid_scheduler(echo) == 1, "placing");
    _Atomic uint64_t done = 0;
    asker init = { .bus = bus,
                   .participant = echo,
                   .left = HOST_ASKS,
                   .done_ns = &done,
                   .payload = lim__msg_new(lim__str("0123456789abcdef")) };
    lim_pid pid = { 0 };
    lim_spawn_opts spawn = { .size = sizeof spawn,
                             .on_signal = on_asker,
                             .state_bytes = sizeof init,
                             .init = &init,
                             .init_bytes = sizeof init,
                             .trap_exit = true,
                             .place = true };
    must(lim_runtime_spawn(bus->rt, &spawn, &pid) == LIM_OK, "spawn");
    uint64_t start = now_ns();
    must(lim_runtime_send(bus->rt, pid, 0, lim__bytes("", 0)) == LIM_OK, "send");
    while (atomic_load(&done) == 0)
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    printf("RESULT conversation.open_ask_close_crossing %.1f ns\n", (double)(atomic_load(&done) - start) / HOST_ASKS);
    lim_bus_close(bus);
    lim__msg_unref(init.payload);
}

/* One sync into a file that is there already, as a commit is: what the disk itself takes. */
static void sync_alone(const char *dir, uint64_t *ns)
{
    char path[80];
    static char block[4096];
    snprintf(path, sizeof path, "%s/alone", dir);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    must(fd >= 0, "a file");
    for (int i = 0; i < DURABLE; i++)
        must(pwrite(fd, block, sizeof block, (off_t)i * 4096) == sizeof block, "write");
    must(fsync(fd) == 0, "sync");
    for (int i = 0; i < DURABLE; i++) {
        uint64_t start = now_ns();
        must(pwrite(fd, block, sizeof block, (off_t)i * 4096) == sizeof block && fdatasync(fd) == 0, "sync");
        ns[i] = now_ns() - start;
    }
    close(fd);
    percentiles("conversation.fdatasync_alone", ns, DURABLE);
}

/* A durable conversation, opened, asked and closed by a host thread: four commits, of which the close is not awaited.
 */
static void durable(uint64_t *ns)
{
    char dir[] = "/tmp/lim-bench-XXXXXX", command[64];
    lim_bus *bus = NULL;
    lim_outcome o;
    must(mkdtemp(dir) != NULL, "a directory");
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1, .data_dir = dir };
    must(lim_bus_open(&opts, &bus) == LIM_OK, "open");
    lim_participant echo;
    lim_serve_opts serve = { .size = sizeof serve, .capacity = LIM_UNLIMITED, .handler = { .on_message = on_echo } };
    must(lim_serve(bus, "echo", &serve, &echo) == LIM_OK, "serve");
    lim_conv_opts how = { .size = sizeof how, .group = "echo", .timeout_ms = LIM_FOREVER, .durable = true };
    for (int i = 0; i < DURABLE; i++) {
        lim_conv conv;
        uint64_t start = now_ns();
        must(lim_conv_open(bus, &how, &conv) == LIM_OK, "open");
        must(lim_conv_ask(bus, conv, (lim_participant){ 0 }, lim__str("x"), 10000, &o) == LIM_OK, "ask");
        must(o.how == LIM_HOW_REPLY && lim_conv_close(bus, conv) == LIM_OK, "close");
        ns[i] = now_ns() - start;
        lim_outcome_fini(&o);
    }
    percentiles("conversation.durable", ns, DURABLE);
    lim_bus_close(bus);
    sync_alone(dir, ns);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    must(system(command) == 0, "cleaning up");
}

int main(void)
{
    static uint64_t ns[HOST_ASKS];
    lim_bus *bus = NULL;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim__runtime_opts runtime = { .os = lim__os_linux(), .scheduler_count = 1 };
    must(lim__bus_open(&opts, &runtime, &bus) == LIM_OK, "open");
    turns(bus, NULL, 20);
    lim_pid echo = participant(bus, on_echo);
    asks(bus, "conversation.open_ask_close", echo);
    join_echo(bus, echo);
    asks(bus, "conversation.open_ask_close_through_group", (lim_pid){ 0 });
    idle(bus, participant(bus, on_hold));
    idle_talks(bus, "conversation.memory_idle_talk", (lim_pid){ 0 });
    idle_talks(bus, "conversation.memory_idle_talk_of_two", echo);
    lim_bus_close(bus);
    crossing();
    limit_pingpong(ns);
    from_host(ns);
    durable(ns);
    return 0;
}
