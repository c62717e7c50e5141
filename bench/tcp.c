/* SPDX-License-Identifier: Apache-2.0
 * tcp.c - a server over loopback TCP, by raw clients. bench/run.sh starts the servers and pairs the numbers.
 *
 *   bench-tcp [--peer nats] PORT pubsub SIZE COUNT NSUBS      publisher -> subscribers, as fast as it goes
 *   bench-tcp [--peer nats] PORT ask WINDOW COUNT CONNS [TAG] WINDOW outstanding on each of CONNS connections
 *   bench-tcp [--peer nats] PORT rate REQ_PER_S SECONDS       open loop: latency from the intended time of sending
 *   bench-tcp PORT crash ITER                                 the responder dies with the request in hand
 *   bench-tcp [--peer nats] PORT slow [COUNT]                 two subscribers, one does not read: the other's rate
 *   bench-tcp [--peer nats] PORT idle CONNS SECONDS           wake-ups of the server while its clients are idle
 *
 * With $SERVER_PID, the server's CPU time per message is told too. Exit code 2: usage, or the peer cannot do it.
 *
 * Publisher and asker are this process; subscribers or the responder are a forked one, which dies with us. Everybody
 * here and the server share the machine's processors, so rates are those of the whole; ratios to a peer are what
 * counts. Nothing runs longer than LIFE_S. */
#include "peer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    LIFE_S = 60,
    STALL_MS = 3000,
    CONNS_MAX = 1024,
    BACKLOG = 1 << 26,
    STUCK_BACKLOG = 64,
    SLOW_PAIRS = 3,
    SLOW_PER_S = 300000 /* far below what a server here can do, far above what a stuck socket's buffers hold */
};

static const bench_peer *peer = &bench_liminal;
static uint16_t port;

/* ---- the forked process ---- */

/* What it tells its parent; in memory that both see. */
typedef struct shared {
    uint64_t at_ns;     /* the moment in question */
    uint64_t delivered; /* by all subscribers */
    uint64_t dropped;
} shared;

static shared *share(void)
{
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        bench_die("no shared memory: %s", strerror(errno));
    return s;
}

/* Answers 0 in the child, which calls `ready` when the parent may go on. */
static pid_t fork_ready(int pipe_of[2])
{
    if (pipe(pipe_of) != 0)
        bench_die("pipe: %s", strerror(errno));
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        alarm(LIFE_S);
        return 0;
    }
    char byte;
    close(pipe_of[1]);
    if (read(pipe_of[0], &byte, 1) != 1)
        bench_die("the other process did not get ready");
    close(pipe_of[0]);
    return pid;
}

static void ready(int pipe_of[2])
{
    if (write(pipe_of[1], "r", 1) != 1)
        _exit(1);
    close(pipe_of[1]);
}

static void join(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_die("the other process failed");
}

static int watch(bench_conn **conns, uint32_t count)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < count; i++) {
        struct epoll_event e = { .events = EPOLLIN, .data = { .u32 = i } };
        if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, conns[i]->fd, &e) != 0)
            bench_die("epoll: %s", strerror(errno));
    }
    return ep;
}

/* ---- publish -> subscribe ---- */

typedef struct fan_spec {
    const char *channel;
    size_t size;
    uint64_t count;
    uint32_t readers, stuck; /* subscribers that read, and that do not */
    double per_s;            /* 0: as fast as it goes */
} fan_spec;

typedef struct fan {
    double ns;     /* from the first publish until the last reader had the last message */
    double cpu_ns; /* of the server, until it had nothing to do any more */
    uint64_t delivered, lost, deferred, dropped;
} fan;

static void read_all(bench_conn **conns, uint32_t count, uint64_t expected, shared *told)
{
    int ep = watch(conns, count), n;
    struct epoll_event events[64];
    while (told->delivered < expected && (n = epoll_wait(ep, events, 64, STALL_MS)) != 0) {
        for (int i = 0; i < n; i++) {
            bench_conn *c = conns[events[i].data.u32];
            uint64_t before = c->delivered;
            bench_read(c, MSG_DONTWAIT);
            bench_flush(c);
            told->delivered += c->delivered - before;
        }
        told->at_ns = bench_now_ns();
    }
}

static _Noreturn void subscribers(const fan_spec *spec, int pipe_of[2], shared *told)
{
    bench_conn *conns[CONNS_MAX];
    for (uint32_t i = 0; i < spec->readers + spec->stuck; i++) {
        bool stuck = i >= spec->readers;
        conns[i] = bench_connect(peer, port, i);
        peer->subscribe(conns[i], spec->channel, spec->size, BENCH_WINDOW, stuck ? STUCK_BACKLOG : BACKLOG);
    }
    ready(pipe_of);
    read_all(conns, spec->readers, spec->count * spec->readers, told);
    for (uint32_t i = 0; i < spec->readers; i++)
        told->dropped += conns[i]->dropped;
    _exit(0);
}

/* Writes all of it, reading what the server answers meanwhile: it may stop reading us if we do not. */
static void write_batch(bench_conn *c, const uint8_t *p, size_t left)
{
    while (left > 0) {
        ssize_t n = send(c->fd, p, left, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            bench_die("publishing: %s", strerror(errno));
        if (n < 0)
            (void)poll(&(struct pollfd){ c->fd, POLLIN | POLLOUT, 0 }, 1, STALL_MS);
        p += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
        bench_read(c, MSG_DONTWAIT);
    }
}

/* Waits until message number `sent` is due. */
static void pace(bench_conn *c, const fan_spec *spec, uint64_t start, uint64_t sent)
{
    uint64_t due = spec->per_s > 0 ? start + (uint64_t)((double)sent / spec->per_s * 1e9) : 0;
    for (uint64_t now; (now = bench_now_ns()) < due;) {
        struct timespec wait = { 0, due - now < 100000000 ? (long)(due - now) : 100000000 };
        if (ppoll(&(struct pollfd){ c->fd, POLLIN, 0 }, 1, &wait, NULL) > 0)
            bench_read(c, MSG_DONTWAIT);
    }
}

static void publish_all(bench_conn *c, const fan_spec *spec)
{
    uint64_t start = bench_now_ns();
    lim__buf batch = { 0 };
    peer->put_publish(&batch, spec->channel, spec->size);
    size_t stride = batch.end, per = stride < BENCH_WRITE ? BENCH_WRITE / stride : 1;
    while (batch.end < per * stride)
        peer->put_publish(&batch, spec->channel, spec->size);
    for (uint64_t sent = 0; sent < spec->count;) {
        size_t n = spec->count - sent < per ? (size_t)(spec->count - sent) : per;
        pace(c, spec, start, sent);
        peer->number(batch.ptr, stride, n, sent);
        write_batch(c, batch.ptr, n * stride);
        sent += n;
    }
    lim__buf_fini(&batch);
}

static fan fan_out(const fan_spec *spec)
{
    int pipe_of[2];
    shared *told = share();
    pid_t pid = fork_ready(pipe_of);
    if (pid == 0)
        subscribers(spec, pipe_of, told);
    bench_conn *c = bench_connect(peer, port, 0);
    uint64_t cpu = bench_server_cpu_ns(), start = bench_now_ns();
    publish_all(c, spec);
    peer->settle(c, spec->count);
    join(pid);
    fan f = { .ns = (double)(told->at_ns - start),
              .cpu_ns = (double)(bench_server_cpu_ns() - cpu),
              .delivered = told->delivered,
              .lost = spec->count * spec->readers - told->delivered,
              .deferred = c->deferred,
              .dropped = told->dropped };
    bench_close(c);
    munmap(told, sizeof *told);
    return f;
}

static void say_fan(const fan *f, const char *name)
{
    bench_result((double)f->delivered / f->ns * 1e9, "deliv/s", "%s", name);
    bench_result(f->cpu_ns / (double)f->delivered, "ns/deliv", "%s.server_cpu", name);
    if (f->lost > 0 || f->dropped > 0)
        bench_result((double)f->lost, "msgs", "%s.LOST", name);
    if (peer->tells_waiting)
        bench_result(100.0 * (double)f->deferred / (double)f->delivered, "%", "%s.waited", name);
}

static void pubsub(size_t size, uint64_t count, uint32_t readers)
{
    char name[64];
    fan f = fan_out(&(fan_spec){ .channel = "bench", .size = size, .count = count, .readers = readers });
    snprintf(name, sizeof name, "tcp.pubsub.1x%u.%zuB", readers, size);
    say_fan(&f, name);
}

/* What one of the readers got per second. */
static double reader_rate(const fan_spec *spec, uint64_t *lost)
{
    fan f = fan_out(spec);
    *lost += f.lost;
    return (double)f.delivered / spec->readers / f.ns * 1e9;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* A reader beside another reader, and beside one that does not read: what is left of its rate, the median of several
 * pairs. At a rate that the server can bear nothing may be missing; flat out, being stuck may cost the server more or
 * less than reading does. */
static double kept(const fan_spec *spec, const char *name, uint64_t *lost)
{
    double both[SLOW_PAIRS], stuck[SLOW_PAIRS], ratio[SLOW_PAIRS];
    for (int i = 0; i < SLOW_PAIRS; i++) {
        fan_spec s = *spec;
        s.readers = 2, s.stuck = 0;
        both[i] = reader_rate(&s, lost);
        s.readers = 1, s.stuck = 1;
        stuck[i] = reader_rate(&s, lost);
        ratio[i] = stuck[i] / both[i];
    }
    qsort(both, SLOW_PAIRS, sizeof *both, by_size);
    qsort(stuck, SLOW_PAIRS, sizeof *stuck, by_size);
    qsort(ratio, SLOW_PAIRS, sizeof *ratio, by_size);
    bench_result(both[SLOW_PAIRS / 2], "deliv/s", "tcp.slow.%s.beside_a_reader", name);
    bench_result(stuck[SLOW_PAIRS / 2], "deliv/s", "tcp.slow.%s.beside_a_stuck_one", name);
    return ratio[SLOW_PAIRS / 2];
}

static void slow(uint64_t count)
{
    uint64_t lost = 0;
    fan_spec spec = { .channel = "bench.slow", .size = 128, .count = count, .readers = 1, .per_s = SLOW_PER_S };
    bench_result(kept(&spec, "paced", &lost), "x", "tcp.slow.paced.kept");
    spec.per_s = 0;
    spec.count *= 4;
    bench_result(kept(&spec, "flat_out", &lost), "x", "tcp.slow.flat_out.kept");
    if (lost > 0)
        bench_result((double)lost, "msgs", "tcp.slow.LOST");
}

/* ---- asking ---- */

static _Noreturn void respond(const char *group, int pipe_of[2])
{
    bench_conn *c = bench_connect(peer, port, 0);
    peer->serve(c, group);
    ready(pipe_of);
    for (;;) {
        bench_read(c, 0);
        bench_flush(c);
    }
}

static pid_t responder(const char *group)
{
    int pipe_of[2];
    pid_t pid = fork_ready(pipe_of);
    if (pid == 0)
        respond(group, pipe_of);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void *room(size_t bytes)
{
    void *p = malloc(bytes);
    if (p == NULL)
        bench_die("out of memory");
    memset(p, 0, bytes); /* no page is touched for the first time while we measure */
    return p;
}

typedef struct asker {
    bench_conn **conns;
    uint32_t conn_count, window;
    uint64_t (*sent_ns)[BENCH_SLOTS_MAX]; /* per connection and slot */
    uint64_t *latency_ns, done, count;
} asker;

/* Every answer is the next request. */
static void ask_again(asker *a, uint32_t index)
{
    bench_conn *c = a->conns[index];
    if (a->conn_count == 1)
        bench_read(c, 0);
    else
        bench_read(c, MSG_DONTWAIT);
    uint64_t now = bench_now_ns(), *sent_ns = a->sent_ns[index];
    for (uint32_t i = 0; i < c->done_count && a->done < a->count; i++) {
        uint32_t slot = c->done[i];
        a->latency_ns[a->done++] = now - sent_ns[slot];
        sent_ns[slot] = now;
        peer->put_ask(c, slot);
    }
    c->done_count = 0;
    bench_flush(c);
}

static void ask_all(asker *a)
{
    struct epoll_event events[64] = { 0 };
    int ep = a->conn_count > 1 ? watch(a->conns, a->conn_count) : -1, n = 1;
    for (uint32_t i = 0; i < a->conn_count; i++) {
        for (uint32_t slot = 0; slot < a->window; slot++) {
            a->sent_ns[i][slot] = bench_now_ns();
            peer->put_ask(a->conns[i], slot);
        }
        bench_flush(a->conns[i]);
    }
    while (a->done < a->count) {
        if (ep >= 0 && (n = epoll_wait(ep, events, 64, STALL_MS)) <= 0)
            bench_die("no reply for %d ms", STALL_MS);
        for (int i = 0; i < n; i++)
            ask_again(a, events[i].data.u32);
    }
}

static void ask(uint32_t window, uint64_t count, uint32_t conn_count, const char *tag)
{
    char name[64];
    if (window == 0 || window > BENCH_SLOTS_MAX || conn_count == 0 || conn_count > CONNS_MAX)
        bench_die("1 to %d outstanding on 1 to %d connections", BENCH_SLOTS_MAX, CONNS_MAX);
    pid_t pid = responder("svc");
    bench_conn *conns[CONNS_MAX];
    asker a = { conns, conn_count, window, room(conn_count * sizeof *a.sent_ns), room(count * 8), 0, count };
    for (uint32_t i = 0; i < conn_count; i++) {
        conns[i] = bench_connect(peer, port, i);
        peer->prepare_asking(conns[i], "svc");
    }
    uint64_t cpu = bench_server_cpu_ns(), start = bench_now_ns();
    ask_all(&a);
    double ns = (double)(bench_now_ns() - start), cpu_ns = (double)(bench_server_cpu_ns() - cpu);
    end(pid);
    int n = snprintf(name, sizeof name, "tcp.ask.w%u.c%u", window, conn_count);
    snprintf(name + n, sizeof name - (size_t)n, "%s%.16s", tag != NULL ? "." : "", tag != NULL ? tag : "");
    bench_result((double)count / ns * 1e9, "req/s", "%s.rate", name);
    bench_result(cpu_ns / (double)count, "ns/req", "%s.server_cpu", name);
    bench_percentiles(a.latency_ns, count, name);
    for (uint32_t i = 0; i < conn_count; i++)
        bench_close(conns[i]);
    free(a.sent_ns);
    free(a.latency_ns);
}

/* ---- open loop ---- */

/* Asks whatever is due, up to a batch; answers how many were sent in all. */
static uint64_t ask_due(bench_conn *c, uint64_t sent, uint64_t due, uint64_t done)
{
    while (sent < due && sent - done < BENCH_SLOTS_MAX)
        peer->put_ask(c, (uint32_t)(sent++ % BENCH_SLOTS_MAX));
    bench_flush(c);
    return sent;
}

static void await_until(bench_conn *c, uint64_t until_ns)
{
    uint64_t now = bench_now_ns(), left = until_ns > now ? until_ns - now : 0;
    struct timespec wait = { (time_t)(left / 1000000000), (long)(left % 1000000000) };
    if (ppoll(&(struct pollfd){ c->fd, POLLIN, 0 }, 1, &wait, NULL) > 0)
        bench_read(c, MSG_DONTWAIT);
}

static void rate(double per_s, double seconds)
{
    char name[64];
    uint64_t count = (uint64_t)(per_s * seconds), sent = 0, done = 0;
    if (count == 0)
        bench_die("a rate and a time above 0");
    uint64_t *latency_ns = room(count * 8), slot_of[BENCH_SLOTS_MAX];
    pid_t pid = responder("svc");
    bench_conn *c = bench_connect(peer, port, 0);
    peer->prepare_asking(c, "svc");
    double step = 1e9 / per_s;
    uint64_t cpu = bench_server_cpu_ns(), start = bench_now_ns();
    while (done < count) {
        uint64_t due = (uint64_t)((double)(bench_now_ns() - start) / step) + 1, before = sent;
        sent = ask_due(c, sent, due < count ? due : count, done);
        for (uint64_t i = before; i < sent; i++)
            slot_of[i % BENCH_SLOTS_MAX] = i;
        await_until(c,
                    start + (sent < count ? (uint64_t)((double)sent * step) : (uint64_t)(count * step) + 1000000000));
        uint64_t now = bench_now_ns();
        for (uint32_t i = 0; i < c->done_count && done < count; i++)
            latency_ns[done++] = now - (start + (uint64_t)((double)slot_of[c->done[i]] * step));
        c->done_count = 0;
        if (now - start > (uint64_t)(seconds * 2e9) + STALL_MS * 1000000ull)
            bench_die("only %llu of %llu replies came", (unsigned long long)done, (unsigned long long)count);
    }
    double cpu_ns = (double)(bench_server_cpu_ns() - cpu);
    end(pid);
    snprintf(name, sizeof name, "tcp.rate.%.0f", per_s);
    bench_result(cpu_ns / (double)count, "ns/req", "%s.server_cpu", name);
    bench_percentiles(latency_ns, count, name);
    bench_close(c);
    free(latency_ns);
}

/* ---- a responder dies ---- */

/* Serves until a request has come, then dies of SIGKILL with it in hand. */
static _Noreturn void victim(int pipe_of[2], shared *told)
{
    bench_conn *c = bench_connect(peer, port, 0);
    c->deaf = true;
    peer->serve(c, "crash");
    ready(pipe_of);
    while (c->requests == 0)
        bench_read(c, 0);
    told->at_ns = bench_now_ns();
    kill(getpid(), SIGKILL);
    _exit(1);
}

static uint64_t crash_once(bench_conn *c, uint32_t slot, shared *told)
{
    int pipe_of[2];
    pid_t pid = fork_ready(pipe_of);
    if (pid == 0) {
        close(c->fd);
        victim(pipe_of, told);
    }
    peer->put_ask(c, slot);
    bench_flush(c);
    while (c->done_count == 0)
        bench_read(c, 0);
    uint64_t ns = bench_now_ns() - told->at_ns;
    if (c->crashed_count != 1 || c->done[0] != slot)
        bench_die("the ask did not end as crashed");
    c->done_count = c->crashed_count = 0;
    waitpid(pid, NULL, 0);
    return ns;
}

static void crash(uint32_t iterations)
{
    if (iterations == 0)
        bench_die("at least one iteration");
    uint64_t *latency_ns = room(iterations * 8);
    shared *told = share();
    bench_conn *c = bench_connect(peer, port, 0);
    peer->prepare_asking(c, "crash");
    for (uint32_t i = 0; i < iterations; i++)
        latency_ns[i] = crash_once(c, i % BENCH_SLOTS_MAX, told);
    bench_percentiles(latency_ns, iterations, "tcp.crash_to_told");
    bench_close(c);
    free(latency_ns);
}

/* ---- nothing happens ---- */

static void idle(uint32_t conn_count, uint32_t seconds)
{
    if (getenv("SERVER_PID") == NULL || conn_count > CONNS_MAX || seconds > LIFE_S / 2)
        bench_die("idle needs $SERVER_PID, at most %d connections and %d seconds", CONNS_MAX, LIFE_S / 2);
    bench_conn *conns[CONNS_MAX];
    for (uint32_t i = 0; i < conn_count; i++) {
        conns[i] = bench_connect(peer, port, i);
        if (i % 2 == 0)
            peer->subscribe(conns[i], "bench.idle", 128, BENCH_WINDOW, STUCK_BACKLOG);
    }
    (void)poll(NULL, 0, 500); /* what connecting set off has come to rest */
    uint64_t wakes = bench_server_wakes(), cpu = bench_server_cpu_ns();
    (void)poll(NULL, 0, (int)seconds * 1000);
    bench_result((double)(bench_server_wakes() - wakes), "wakes", "tcp.idle.c%u.%us", conn_count, seconds);
    bench_result((double)(bench_server_cpu_ns() - cpu) / 1e3 / seconds, "us/s", "tcp.idle.c%u.server_cpu", conn_count);
    for (uint32_t i = 0; i < conn_count; i++)
        bench_close(conns[i]);
}

/* ---- usage ---- */

static int usage(void)
{
    fputs("usage: bench-tcp [--peer nats] PORT pubsub SIZE COUNT NSUBS | ask WINDOW COUNT CONNS [TAG] |\n"
          "       rate REQ_PER_S SECONDS | crash ITER | slow [COUNT] | idle CONNS SECONDS\n",
          stderr);
    return 2;
}

static uint32_t number(const char *text)
{
    char *rest;
    unsigned long long n = strtoull(text, &rest, 10);
    if (*text < '0' || *text > '9' || *rest != '\0' || n > UINT32_MAX)
        bench_die("%s is not a number", text);
    return (uint32_t)n;
}

static int run(int argc, char **argv)
{
    const char *what = argc > 0 ? argv[0] : "";
    if (strcmp(what, "pubsub") == 0 && argc == 4)
        pubsub(number(argv[1]), number(argv[2]), number(argv[3]));
    else if (strcmp(what, "ask") == 0 && (argc == 4 || argc == 5))
        ask(number(argv[1]), number(argv[2]), number(argv[3]), argc == 5 ? argv[4] : NULL);
    else if (strcmp(what, "rate") == 0 && argc == 3)
        rate(number(argv[1]), strtod(argv[2], NULL));
    else if (strcmp(what, "crash") == 0 && argc == 2 && peer->tells_crashes)
        crash(number(argv[1]));
    else if (strcmp(what, "slow") == 0 && argc <= 2)
        slow(argc == 2 ? number(argv[1]) : 100000);
    else if (strcmp(what, "idle") == 0 && argc == 3)
        idle(number(argv[1]), number(argv[2]));
    else
        return usage();
    return 0;
}

int main(int argc, char **argv)
{
    int at = 1;
    alarm(LIFE_S);
    if (argc > 2 && strcmp(argv[1], "--peer") == 0) {
        if (strcmp(argv[2], "nats") != 0)
            return usage();
        peer = &bench_nats;
        at = 3;
    }
    if (argc <= at)
        return usage();
    port = (uint16_t)number(argv[at]);
    return run(argc - at - 1, argv + at + 1);
}
