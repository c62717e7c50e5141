/* SPDX-License-Identifier: Apache-2.0
 * durable_tcp.c - servers that keep what is published, over loopback TCP, by raw clients; all on one disk.
 *
 *   bench-durable_tcp [--peer redis|jetstream] PORT publish WINDOW COUNT [TAG]  so many unanswered at a time
 *                                              PORT fill COUNT                  for the two below; no result
 *                                              PORT replay COUNT [TAG]          what was filled, from the first on
 *   bench-durable_tcp PORT live COUNT          what is published reaches a subscriber, beside replays and without
 *   bench-durable_tcp PORT ask COUNT           a durable ask, and its answer
 *   bench-durable_tcp start LIMINALD DIR COUNT how long it takes to start after a kill, with so much in DIR
 *
 * Messages have 128 bytes. With one unanswered at a time, and for asks, the disk alone is measured in turns with the
 * server, in $BENCH_DISK (a directory): `syncs` is the median in such writes. With more at a time `to_floor` is our
 * rate in that of the least that a server can do there (durable_floor.c), measured right behind it. Latencies of `live`
 * are from the moment of sending until the message has been read by its subscriber. TAG is appended to the names. */
#include "peer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SIZE = 128,
    TURNS = 50,
    WINDOW_MAX = 65536,
    RAW_COUNT = 20,
    LIVE_PER_S = 1000,
    LIVE_SLICES = 8,
    LIVE_SLICE_MS = 500,
    FILL_S = 60,
    LIFE_S = 300
};
static const char log_name[] = "bench", replay_name[] = "replay", live_name[] = "live", group_name[] = "bench.ask";

static const bench_peer *peer = &bench_liminal;
static uint16_t port;
static char tag[64];

static uint64_t *numbers(size_t count)
{
    uint64_t *p = calloc(count, sizeof *p);
    if (p == NULL)
        bench_die("out of memory");
    return p;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts. */
static double percentile_us(uint64_t *ns, size_t count, size_t of_hundred)
{
    qsort(ns, count, sizeof *ns, by_value);
    return (double)ns[count * of_hundred / 100] / 1e3;
}

/* ---- publishing ---- */

typedef struct flow {
    bench_conn *c;
    uint64_t sent, told;  /* over its life; answers come in order */
    uint64_t *sent_ns;    /* WINDOW_MAX of them */
    uint64_t deadline_ns; /* nothing is begun after this; 0: never */
} flow;

static void flow_open(flow *f, const char *log)
{
    *f = (flow){ .c = bench_connect(peer, port, 0), .sent_ns = numbers(WINDOW_MAX) };
    peer->create(f->c, log);
    peer->put_publish(&f->c->request, log, SIZE);
}

static void flow_close(flow *f)
{
    bench_close(f->c);
    free(f->sent_ns);
}

static void offer(flow *f, uint64_t count, uint64_t now_ns)
{
    lim_bytes one = lim__buf_bytes(&f->c->request);
    for (uint64_t i = 0; i < count; i++, f->sent++) {
        f->sent_ns[f->sent % WINDOW_MAX] = now_ns;
        lim__buf_add(&f->c->out, one.ptr, one.len);
        peer->number(f->c->out.ptr + f->c->out.end - one.len, one.len, 1, f->sent + 1);
    }
    bench_flush(f->c);
}

/* `ns` (may be NULL) gets what each one took. Answers how many were published. */
static uint64_t pump(flow *f, uint32_t window, uint64_t count, uint64_t *ns)
{
    uint64_t begin = f->sent, now_ns = bench_now_ns();
    for (;;) {
        uint64_t flying = f->sent - f->told, left = count - (f->sent - begin);
        if (f->deadline_ns != 0 && now_ns > f->deadline_ns)
            left = 0;
        if (flying == 0 && left == 0)
            return f->sent - begin;
        offer(f, left < window - flying ? left : window - flying, now_ns);
        bench_read(f->c, 0);
        now_ns = bench_now_ns();
        for (; f->told < f->c->answered; f->told++)
            if (ns != NULL)
                *ns++ = now_ns - f->sent_ns[f->told % WINDOW_MAX];
    }
}

/* What one write takes, in the turns between those of a server; nothing without $BENCH_DISK. */
typedef struct raw {
    bench_disk disk;
    bool there;
    uint64_t ns[TURNS * RAW_COUNT];
    size_t count;
} raw;

static raw *raw_open(void)
{
    static raw r;
    r.there = getenv("BENCH_DISK") != NULL;
    if (r.there)
        bench_disk_open(&r.disk, getenv("BENCH_DISK"));
    return &r;
}

static void raw_turn(raw *r)
{
    for (int i = 0; r->there && i < RAW_COUNT; i++) {
        uint64_t then = bench_now_ns();
        bench_disk_write(&r->disk);
        r->ns[r->count++] = bench_now_ns() - then;
    }
}

static void raw_close(raw *r, const char *name, double p50_us)
{
    if (!r->there)
        return;
    double one = percentile_us(r->ns, r->count, 50);
    bench_result(one, "us", "%s.fdatasync.p50", name);
    bench_result(p50_us / one, "syncs", "%s.syncs", name);
    bench_disk_close(&r->disk);
}

/* The same of a server that does nothing else, right behind it: what can be had here, now. */
static void beside_floor(const char *name, uint32_t window, uint64_t count, double rate)
{
    const bench_peer *ours = peer;
    uint16_t our_port = port;
    flow f;
    pid_t pid = bench_floor_start(getenv("BENCH_DISK"), &port);
    peer = &bench_floor;
    flow_open(&f, log_name);
    uint64_t then = bench_now_ns();
    (void)pump(&f, window, count, NULL);
    double floor = (double)count / (double)(bench_now_ns() - then) * 1e9;
    flow_close(&f);
    bench_floor_stop(pid);
    peer = ours;
    port = our_port;
    bench_result(floor, "msg/s", "%s.floor.rate", name);
    bench_result(rate / floor, "x", "%s.to_floor", name);
}

static void publish(uint32_t window, uint64_t count)
{
    flow f;
    raw *disk = window == 1 ? raw_open() : NULL;
    char name[96];
    uint64_t turns = window == 1 ? TURNS : 1, each = count / turns, took_ns = 0, *ns = numbers(count);
    flow_open(&f, log_name);
    uint64_t cpu_ns = bench_server_cpu_ns();
    for (uint64_t turn = 0; turn < turns; turn++) {
        uint64_t then = bench_now_ns();
        (void)pump(&f, window, each, ns + turn * each);
        took_ns += bench_now_ns() - then;
        if (disk != NULL)
            raw_turn(disk);
    }
    cpu_ns = bench_server_cpu_ns() - cpu_ns;
    snprintf(name, sizeof name, "durable.tcp.w%u%s", window, tag);
    double rate = (double)(each * turns) / (double)took_ns * 1e9;
    bench_result(rate, "msg/s", "%s.rate", name);
    if (cpu_ns > 0)
        bench_result((double)cpu_ns / (double)(each * turns), "ns/msg", "%s.server_cpu", name);
    bench_percentiles(ns, each * turns, name);
    if (disk != NULL)
        raw_close(disk, name, (double)ns[each * turns / 2] / 1e3);
    else if (peer == &bench_liminal && getenv("BENCH_DISK") != NULL)
        beside_floor(name, window, count, rate);
    free(ns);
    flow_close(&f);
}

/* ---- reading from the first on ---- */

static void fill(uint64_t count)
{
    flow f;
    flow_open(&f, replay_name);
    (void)pump(&f, 4000, count, NULL);
    flow_close(&f);
}

static void replay(uint64_t count)
{
    char name[96];
    bench_conn *c = bench_connect(peer, port, 0);
    uint64_t cpu_ns = bench_server_cpu_ns(), then = bench_now_ns();
    peer->replay(c, replay_name, SIZE);
    while (c->delivered < count) {
        bench_flush(c);
        bench_read(c, 0);
    }
    uint64_t took_ns = bench_now_ns() - then;
    cpu_ns = bench_server_cpu_ns() - cpu_ns;
    snprintf(name, sizeof name, "durable.replay%s", tag);
    bench_result((double)count / (double)took_ns * 1e9, "msg/s", "%s.rate", name);
    if (cpu_ns > 0)
        bench_result((double)cpu_ns / (double)count, "ns/msg", "%s.server_cpu", name);
    bench_close(c);
}

/* ---- a forked process ---- */

/* Answers 0 in the child, which writes a byte to *ready when the parent may go on. */
static pid_t child(int *ready)
{
    int ends[2];
    char byte;
    if (pipe(ends) != 0)
        bench_die("pipe: %s", strerror(errno));
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(ends[0]);
        *ready = ends[1];
        return 0;
    }
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1)
        bench_die("the other process did not get ready");
    close(ends[0]);
    return pid;
}

static void say_ready(int to)
{
    if (write(to, "r", 1) != 1)
        _exit(1);
}

static void stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- live, beside a replay ---- */

static _Noreturn void replay_again_and_again(uint64_t count, int ready)
{
    for (bool first = true;; first = false) {
        bench_conn *c = bench_connect(peer, port, 1);
        peer->replay(c, replay_name, SIZE);
        while (c->delivered < count) {
            bench_read(c, 0);
            bench_flush(c);
            if (first)
                say_ready(ready);
            first = false;
        }
        bench_close(c);
    }
}

typedef struct live {
    flow f;
    bench_conn *reader;
    uint64_t seen, *beside, *alone; /* what each took: LIVE_SLICES / 2 slices of LIVE_PER_S * LIVE_SLICE_MS / 1000 */
} live;

/* One slice, in its own time; `ns` gets what each message took. */
static void live_slice(live *l, uint64_t *ns, uint64_t count)
{
    uint64_t sent = 0, got = 0, begin = bench_now_ns(), every = 1000000000u / LIVE_PER_S, *at = numbers(count);
    struct pollfd fds[2] = { { .fd = l->reader->fd, .events = POLLIN }, { .fd = l->f.c->fd, .events = POLLIN } };
    while (got < count) {
        uint64_t now = bench_now_ns(), due = begin + sent * every;
        if (sent < count && now >= due) {
            at[sent++] = now;
            offer(&l->f, 1, now);
            continue;
        }
        struct timespec wait = { .tv_sec = sent < count ? 0 : 1, .tv_nsec = sent < count ? (long)(due - now) : 0 };
        if (ppoll(fds, 2, &wait, NULL) <= 0)
            continue;
        if (fds[1].revents != 0)
            bench_read(l->f.c, MSG_DONTWAIT);
        if (fds[0].revents != 0)
            bench_read(l->reader, MSG_DONTWAIT);
        now = bench_now_ns();
        for (; l->seen < l->reader->delivered; l->seen++)
            ns[got] = now - at[got], got++;
        bench_flush(l->reader);
    }
    free(at);
}

static void measure_live(uint64_t count)
{
    live l = { 0 };
    size_t each = (size_t)LIVE_PER_S * LIVE_SLICE_MS / 1000, all = each * (LIVE_SLICES / 2);
    l.alone = numbers(all);
    l.beside = numbers(all);
    flow_open(&l.f, live_name);
    l.reader = bench_connect(peer, port, 2);
    bench_liminal_read_on(l.reader, live_name, SIZE);
    for (size_t i = 0; i < LIVE_SLICES / 2; i++) {
        int ready;
        live_slice(&l, l.alone + i * each, each);
        pid_t pid = child(&ready);
        if (pid == 0)
            replay_again_and_again(count, ready);
        live_slice(&l, l.beside + i * each, each);
        stop(pid);
    }
    double alone = percentile_us(l.alone, all, 99), beside = percentile_us(l.beside, all, 99);
    bench_result(percentile_us(l.alone, all, 50), "us", "durable.live.p50");
    bench_result(alone, "us", "durable.live.p99");
    bench_result(percentile_us(l.beside, all, 50), "us", "durable.live.beside_replay.p50");
    bench_result(beside, "us", "durable.live.beside_replay.p99");
    bench_result(beside / alone, "times", "durable.live.beside_replay.slower");
    flow_close(&l.f);
    bench_close(l.reader);
    free(l.alone);
    free(l.beside);
}

/* ---- asks ---- */

static _Noreturn void answer_all(int ready)
{
    bench_conn *c = bench_connect(peer, port, 1);
    peer->serve(c, group_name);
    say_ready(ready);
    for (;;) {
        bench_read(c, 0);
        bench_flush(c);
    }
}

static void ask(bench_conn *c, uint64_t count, uint64_t *ns)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t then = bench_now_ns();
        peer->put_ask(c, 0);
        for (c->done_count = 0; c->done_count == 0;) {
            bench_flush(c);
            bench_read(c, 0);
        }
        ns[i] = bench_now_ns() - then;
    }
    c->done_count = 0;
}

static void measure_asks(uint64_t count)
{
    int ready;
    pid_t pid = child(&ready);
    if (pid == 0)
        answer_all(ready);
    raw *disk = raw_open();
    uint64_t each = count / TURNS, took_ns = 0, *ns = numbers(count);
    bench_conn *c = bench_connect(peer, port, 0), *observer = bench_connect(peer, port, 2);
    c->kept = true;
    peer->prepare_asking(c, group_name);
    uint64_t batches = bench_liminal_batches(observer);
    for (uint64_t turn = 0; turn < TURNS; turn++) {
        uint64_t then = bench_now_ns();
        ask(c, each, ns + turn * each);
        took_ns += bench_now_ns() - then;
        raw_turn(disk);
    }
    batches = bench_liminal_batches(observer) - batches;
    stop(pid);
    bench_result((double)(each * TURNS) / (double)took_ns * 1e9, "ask/s", "durable.ask.rate");
    bench_percentiles(ns, each * TURNS, "durable.ask");
    bench_result((double)batches / (double)(each * TURNS), "commits", "durable.ask.commits");
    raw_close(disk, "durable.ask", (double)ns[each * TURNS / 2] / 1e3);
    bench_close(c);
    bench_close(observer);
    free(ns);
}

/* ---- starting after a kill ---- */

typedef struct server {
    pid_t pid;
    double ready_ms;
} server;

static server start_server(const char *program, const char *dir)
{
    int out[2];
    char line[256];
    server s;
    uint64_t then = bench_now_ns();
    if (pipe(out) != 0 || (s.pid = fork()) < 0)
        bench_die("%s cannot be started: %s", program, strerror(errno));
    if (s.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        execl(program, program, "--listen", "127.0.0.1:0", "--log-level", "error", "--data", dir, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    const char *colon = f != NULL && fgets(line, sizeof line, f) != NULL ? strrchr(line, ':') : NULL;
    if (colon == NULL)
        bench_die("%s does not say where it listens", program);
    port = (uint16_t)atoi(colon + 1);
    fclose(f);
    bench_close(bench_connect(peer, port, 0)); /* it is ready when it has answered */
    s.ready_ms = (double)(bench_now_ns() - then) / 1e6;
    return s;
}

static void measure_start(const char *program, const char *dir, uint64_t count)
{
    flow f;
    server s = start_server(program, dir);
    bench_result(s.ready_ms, "ms", "durable.start.empty");
    uint64_t then = bench_now_ns();
    flow_open(&f, replay_name);
    f.deadline_ns = then + FILL_S * 1000000000ull;
    uint64_t kept = pump(&f, 4000, count, NULL);
    double took_s = (double)(bench_now_ns() - then) / 1e9;
    stop(s.pid);
    flow_close(&f);
    bench_result((double)kept, "messages", "durable.start.messages");
    bench_result((double)kept / took_s, "msg/s", "durable.start.fill_rate");
    s = start_server(program, dir);
    bench_result(s.ready_ms, "ms", "durable.start.ready_after_kill");
    then = bench_now_ns();
    bench_conn *c = bench_connect(peer, port, 0);
    peer->replay(c, replay_name, SIZE);
    while (c->delivered < kept) { /* they are all there */
        bench_flush(c);
        bench_read(c, 0);
    }
    bench_result((double)kept / (double)(bench_now_ns() - then) * 1e9, "msg/s", "durable.start.replay_rate");
    bench_close(c);
    stop(s.pid);
}

/* ---- main ---- */

static int usage(void)
{
    fputs("usage: bench-durable_tcp [--peer redis|jetstream] PORT publish WINDOW COUNT [TAG] | fill COUNT |\n"
          "       replay COUNT [TAG]; without --peer also live COUNT | ask COUNT;\n"
          "       bench-durable_tcp start LIMINALD DIR COUNT\n",
          stderr);
    return 2;
}

static uint64_t count_of(const char *text)
{
    uint64_t count = strtoull(text, NULL, 10);
    if (count < TURNS)
        bench_die("%s is no count from %d on", text, TURNS);
    return count;
}

static int run(int argc, char **argv)
{
    const char *what = argv[2];
    int next = strcmp(what, "publish") == 0 ? 5 : 4;
    if (argc < next)
        return usage();
    if (argc > next)
        snprintf(tag, sizeof tag, ".%.40s", argv[next]);
    uint64_t count = count_of(argv[next - 1]), window = strtoull(argv[3], NULL, 10);
    if (strcmp(what, "publish") == 0 && window >= 1 && window <= WINDOW_MAX)
        publish((uint32_t)window, count);
    else if (strcmp(what, "fill") == 0)
        fill(count);
    else if (strcmp(what, "replay") == 0)
        replay(count);
    else if (strcmp(what, "live") == 0 && peer == &bench_liminal)
        measure_live(count);
    else if (strcmp(what, "ask") == 0 && peer == &bench_liminal)
        measure_asks(count);
    else
        return usage();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--peer") == 0) {
        peer = strcmp(argv[2], "redis") == 0 ? &bench_redis : &bench_jetstream;
        argc -= 2;
        argv += 2;
    }
    if (argc < 4)
        return usage();
    alarm(LIFE_S);
    bench_class = peer->class;
    if (strcmp(argv[1], "start") == 0 && argc == 5) {
        measure_start(argv[2], argv[3], count_of(argv[4]));
        return 0;
    }
    port = (uint16_t)atoi(argv[1]);
    return run(argc, argv);
}
