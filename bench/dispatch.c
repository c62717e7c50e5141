/* SPDX-License-Identifier: Apache-2.0
 * dispatch.c - work given to a queue and done by a worker: liminald beside beanstalkd and gearmand.
 *
 *   bench-dispatch [--peer beanstalkd|gearmand] PORT one COUNT [TAG]         one task after the other
 *                                                    pipe WINDOW COUNT [TAG] so many under way
 *                                                    crash ITERATIONS [TAG]  a worker dies with the task in hand, by
 * SIGSEGV bench-dispatch port                                                      prints a port that is free now
 *
 * A worker is a process of its own, and answers each task with its payload. What is timed is from the dispatch until
 * the result is back. beanstalkd has no results: in `one` the worker puts them into a second tube, where the client
 * waits for them; in `pipe` there are none, a worker reserves and deletes what a producer puts, timed until the last is
 * deleted. crash is timed from the worker's death until another worker has the task in hand. gearmand is asked in the
 * foreground, because only that gives a result.
 *
 * With --durable before PORT the tasks are durable: liminald needs a data directory, and beanstalkd a binlog that it
 * syncs at each write (-f 0).
 *
 * Clients are as small as the protocols allow: raw sockets, one read for many answers. TAG is appended to the names. */
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAYLOAD = 16, WINDOW_MAX = 1000, NAME_MAX_ = 64 };
static const char payload[PAYLOAD + 1] = "0123456789abcdef";

static uint16_t port;
static bool durable;
static char tag[NAME_MAX_];

/* What processes tell each other: when a worker died. */
typedef struct shared {
    volatile uint64_t died_ns, had_ns;
    volatile bool has, go; /* liminal: the victim has the task; everybody is in place */
} shared;

static shared *share(void)
{
    void *p = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        bench_die("no shared memory");
    return p;
}

/* ---- a raw connection, read by lines or by bytes ---- */

typedef struct raw {
    int fd;
    size_t start, end;
    uint8_t bytes[1 << 17];
} raw;

static raw *dial(void)
{
    int one = 1;
    raw *r = calloc(1, sizeof *r);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    if (r == NULL || (r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
        connect(r->fd, (struct sockaddr *)&to, sizeof to) != 0)
        bench_die("cannot connect to port %u: %s", port, strerror(errno));
    (void)setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return r;
}

static void hang_up(raw *r)
{
    close(r->fd);
    free(r);
}

static void put(const raw *r, const void *bytes, size_t len)
{
    for (const uint8_t *p = bytes; len > 0;) {
        ssize_t n = send(r->fd, p, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            bench_die("the server takes nothing any more: %s", strerror(errno));
        p += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

static void fill(raw *r)
{
    memmove(r->bytes, r->bytes + r->start, r->end - r->start);
    r->end -= r->start;
    r->start = 0;
    ssize_t n = recv(r->fd, r->bytes + r->end, sizeof r->bytes - r->end, 0);
    if (n <= 0)
        bench_die("the server closed a connection");
    r->end += (size_t)n;
}

static const uint8_t *take(raw *r, size_t len)
{
    while (r->end - r->start < len)
        fill(r);
    r->start += len;
    return r->bytes + r->start - len;
}

/* ---- children ---- */

static pid_t child(void)
{
    pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot fork");
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void say_ready(int to)
{
    if (write(to, "r", 1) != 1)
        _exit(1);
}

/* Starts one and waits until it says that it is ready. */
static pid_t start(void (*work)(int ready, void *ctx), void *ctx)
{
    int ends[2];
    char c;
    if (pipe(ends) != 0)
        bench_die("no pipe");
    pid_t pid = child();
    if (pid == 0) {
        close(ends[0]);
        work(ends[1], ctx);
        _exit(0);
    }
    close(ends[1]);
    if (read(ends[0], &c, 1) != 1)
        bench_die("a worker did not start");
    close(ends[0]);
    return pid;
}

static void stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static _Noreturn void die_now(shared *told)
{
    signal(SIGSEGV, SIG_DFL);
    told->died_ns = bench_now_ns();
    raise(SIGSEGV);
    _exit(1);
}

/* ---- liminal ---- */

static void lim_worker(int ready, void *ctx)
{
    (void)ctx;
    bench_conn *c = bench_connect(&bench_liminal, port, 0);
    bench_liminal_work(c, "bench.tasks", UINT16_MAX);
    say_ready(ready);
    for (;;) {
        bench_read(c, 0);
        bench_flush(c);
    }
}

static void lim_tasks(uint32_t window, uint64_t count, uint64_t *ns)
{
    pid_t pid = start(lim_worker, NULL);
    bench_conn *c = bench_connect(&bench_liminal, port, 0);
    uint64_t sent_ns[WINDOW_MAX], done = 0, sent = 0;
    c->kept = durable;
    bench_liminal_prepare_tasks(c, "bench.tasks");
    for (; sent < window && sent < count; sent++) {
        sent_ns[sent] = bench_now_ns();
        bench_liminal.put_ask(c, (uint32_t)sent);
    }
    bench_flush(c);
    while (done < count) {
        bench_read(c, 0);
        uint64_t now = bench_now_ns();
        for (uint32_t i = 0; i < c->done_count && done < count; i++) {
            uint32_t slot = c->done[i];
            ns[done++] = now - sent_ns[slot];
            if (sent == count)
                continue;
            sent++;
            sent_ns[slot] = now;
            bench_liminal.put_ask(c, slot);
        }
        c->done_count = 0;
        bench_flush(c);
    }
    bench_close(c);
    stop(pid);
}

static void lim_victim(int ready, void *ctx)
{
    bench_conn *c = bench_connect(&bench_liminal, port, 0);
    c->deaf = true;
    bench_liminal_work(c, "bench.crash", 1);
    say_ready(ready);
    while (c->requests == 0)
        bench_read(c, 0);
    bench_liminal_acknowledge(c);
    bench_flush(c);
    shared *told = ctx;
    told->has = true;
    while (!told->go)
        continue;
    die_now(told);
}

/* The survivor comes when the victim has the task, so that there is no choice. */
static uint64_t lim_dies(shared *told)
{
    bench_conn *asker = bench_connect(&bench_liminal, port, 0), *next = bench_connect(&bench_liminal, port, 1);
    told->has = told->go = false;
    pid_t pid = start(lim_victim, told);
    bench_liminal_prepare_tasks(asker, "bench.crash");
    next->deaf = true;
    bench_liminal.put_ask(asker, 0);
    bench_flush(asker);
    while (!told->has)
        continue;
    bench_liminal_work(next, "bench.crash", 1);
    told->go = true;
    while (next->requests == 0)
        bench_read(next, 0);
    uint64_t had_ns = bench_now_ns();
    waitpid(pid, NULL, 0);
    bench_liminal_answer(next);
    bench_flush(next);
    while (asker->done_count == 0)
        bench_read(asker, 0);
    bench_close(asker);
    bench_close(next);
    return had_ns - told->died_ns;
}

/* ---- beanstalkd: text, one line per answer ---- */

static char *line(raw *r)
{
    for (;;) {
        uint8_t *nl = memchr(r->bytes + r->start, '\n', r->end - r->start);
        if (nl != NULL) {
            char *text = (char *)r->bytes + r->start;
            *nl = 0;
            r->start = (size_t)(nl - r->bytes) + 1;
            return text;
        }
        fill(r);
    }
}

static void expect(raw *r, const char *word)
{
    const char *text = line(r);
    if (strncmp(text, word, strlen(word)) != 0)
        bench_die("beanstalkd said %s instead of %s", text, word);
}

static size_t bs_put(char *at)
{
    return (size_t)sprintf(at, "put 0 0 60 %d\r\n%s\r\n", PAYLOAD, payload);
}

static unsigned long bs_reserved(raw *r)
{
    const char *text = line(r);
    if (strncmp(text, "RESERVED ", 9) != 0)
        bench_die("beanstalkd said %s instead of RESERVED", text);
    unsigned long id = strtoul(text + 9, NULL, 10);
    (void)take(r, PAYLOAD + 2);
    return id;
}

static void bs_delete(raw *r, unsigned long id)
{
    char text[64];
    put(r, text, (size_t)sprintf(text, "delete %lu\r\n", id));
    expect(r, "DELETED");
}

static void bs_tubes(raw *r, const char *use, const char *watch)
{
    char text[128];
    put(r, text, (size_t)sprintf(text, "use %s\r\nwatch %s\r\nignore default\r\n", use, watch));
    expect(r, "USING");
    expect(r, "WATCHING");
    expect(r, "WATCHING");
}

static void bs_answerer(int ready, void *ctx)
{
    char text[128];
    size_t len = bs_put(text);
    raw *r = dial();
    (void)ctx;
    bs_tubes(r, "results", "tasks");
    say_ready(ready);
    for (;;) {
        put(r, "reserve\r\n", 9);
        unsigned long id = bs_reserved(r);
        put(r, text, len); /* the result first: what it does after is not waited for */
        expect(r, "INSERTED");
        bs_delete(r, id);
    }
}

static void bs_one(uint64_t count, uint64_t *ns)
{
    pid_t pid = start(bs_answerer, NULL);
    raw *r = dial();
    char text[128], both[160];
    size_t len = bs_put(text);
    bs_tubes(r, "tasks", "results");
    memcpy(both, text, len);
    memcpy(both + len, "reserve\r\n", 9);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t then = bench_now_ns();
        put(r, both, len + 9);
        expect(r, "INSERTED");
        unsigned long id = bs_reserved(r);
        ns[i] = bench_now_ns() - then;
        bs_delete(r, id);
    }
    hang_up(r);
    stop(pid);
}

typedef struct bs_share {
    uint32_t window;
    uint64_t count;
} bs_share;

static void bs_worker(int ready, void *ctx)
{
    const bs_share *s = ctx;
    raw *r = dial();
    char *out = malloc(64 * (size_t)s->window);
    say_ready(ready);
    for (uint64_t done = 0; out != NULL && done < s->count; done += s->window) {
        size_t len = 0;
        for (uint32_t i = 0; i < s->window; i++, len += 9)
            memcpy(out + len, "reserve\r\n", 9);
        put(r, out, len);
        len = 0;
        for (uint32_t i = 0; i < s->window; i++)
            len += (size_t)sprintf(out + len, "delete %lu\r\n", bs_reserved(r));
        put(r, out, len);
        for (uint32_t i = 0; i < s->window; i++)
            expect(r, "DELETED");
    }
}

static void bs_pipe(uint32_t window, uint64_t count)
{
    bs_share s = { window, count / window * window };
    pid_t pid = start(bs_worker, &s);
    raw *r = dial();
    char *out = malloc(128 * (size_t)window);
    size_t len = 0;
    for (uint32_t i = 0; out != NULL && i < window; i++)
        len += bs_put(out + len);
    for (uint64_t sent = 0; sent < s.count; sent += window) {
        put(r, out, len);
        for (uint32_t i = 0; i < window; i++)
            expect(r, "INSERTED");
    }
    waitpid(pid, NULL, 0);
    free(out);
    hang_up(r);
}

static void bs_victim(int ready, void *ctx)
{
    raw *r = dial();
    put(r, "reserve\r\n", 9);
    say_ready(ready);
    (void)bs_reserved(r);
    die_now(ctx);
}

static uint64_t bs_crash(shared *told)
{
    char text[128];
    told->died_ns = 0;
    pid_t pid = start(bs_victim, told);
    raw *r = dial();
    (void)usleep(1000); /* its reserve is in the server */
    put(r, text, bs_put(text));
    expect(r, "INSERTED");
    put(r, "reserve\r\n", 9);
    unsigned long id = bs_reserved(r);
    uint64_t had_ns = bench_now_ns();
    bs_delete(r, id);
    waitpid(pid, NULL, 0);
    hang_up(r);
    return told->died_ns == 0 ? 0 : had_ns - told->died_ns;
}

/* ---- gearmand: packets of 12 bytes and more ---- */

enum {
    GM_CAN_DO = 1,
    GM_SLEEP = 4,
    GM_WAKE = 6,
    GM_SUBMIT = 7,
    GM_CREATED = 8,
    GM_GRAB = 9,
    GM_NONE = 10,
    GM_ASSIGN = 11,
    GM_COMPLETE = 13
};

static void gm_put(const raw *r, uint32_t type, const void *body, size_t len)
{
    uint8_t packet[512] = { 0, 'R', 'E', 'Q' };
    lim__store32(packet + 4, type);
    lim__store32(packet + 8, (uint32_t)len);
    if (len > 0)
        memcpy(packet + 12, body, len);
    put(r, packet, 12 + len);
}

static uint32_t gm_take(raw *r, const uint8_t **body, size_t *len)
{
    const uint8_t *head = take(r, 12);
    uint32_t type = lim__load32(head + 4);
    *len = lim__load32(head + 8);
    *body = take(r, *len);
    return type;
}

/* The handle of the next job, once there is one. */
static void gm_next(raw *r, char *handle, size_t size)
{
    const uint8_t *body;
    size_t len;
    for (;;) {
        gm_put(r, GM_GRAB, NULL, 0);
        uint32_t type = gm_take(r, &body, &len);
        while (type == GM_WAKE)
            type = gm_take(r, &body, &len);
        if (type == GM_ASSIGN) {
            snprintf(handle, size, "%s", (const char *)body);
            return;
        }
        if (type != GM_NONE)
            bench_die("gearmand sent packet %u to a worker", type);
        gm_put(r, GM_SLEEP, NULL, 0);
        (void)gm_take(r, &body, &len);
    }
}

static void gm_done(raw *r, const char *handle)
{
    char body[256];
    size_t len = strlen(handle) + 1;
    memcpy(body, handle, len);
    memcpy(body + len, payload, PAYLOAD);
    gm_put(r, GM_COMPLETE, body, len + PAYLOAD);
}

static void gm_worker(int ready, void *ctx)
{
    char handle[128];
    raw *r = dial();
    gm_put(r, GM_CAN_DO, ctx, strlen(ctx));
    say_ready(ready);
    for (;;) {
        gm_next(r, handle, sizeof handle);
        gm_done(r, handle);
    }
}

static void gm_submit(const raw *r, const char *function)
{
    char body[128];
    size_t len = strlen(function) + 1;
    memcpy(body, function, len);
    body[len] = 0; /* no unique id */
    memcpy(body + len + 1, payload, PAYLOAD);
    gm_put(r, GM_SUBMIT, body, len + 1 + PAYLOAD);
}

static void gm_await(raw *r)
{
    const uint8_t *body;
    size_t len;
    uint32_t type;
    while ((type = gm_take(r, &body, &len)) != GM_COMPLETE)
        if (type != GM_CREATED)
            bench_die("gearmand sent packet %u to a client", type);
}

static void gm_run(uint32_t window, uint64_t count, uint64_t *ns)
{
    pid_t pid = start(gm_worker, (void *)(uintptr_t) "echo");
    raw *r = dial();
    uint64_t *sent_ns = calloc(count, sizeof *sent_ns), sent = 0;
    if (sent_ns == NULL)
        bench_die("out of memory");
    for (uint64_t done = 0; done < count; done++) { /* one worker: results come in the order of the jobs */
        for (; sent < count && sent < done + window; sent++) {
            sent_ns[sent] = bench_now_ns();
            gm_submit(r, "echo");
        }
        gm_await(r);
        ns[done] = bench_now_ns() - sent_ns[done];
    }
    free(sent_ns);
    hang_up(r);
    stop(pid);
}

static void gm_victim(int ready, void *ctx)
{
    char handle[128];
    raw *r = dial();
    gm_put(r, GM_CAN_DO, "crash", 5);
    say_ready(ready);
    gm_next(r, handle, sizeof handle);
    die_now(ctx);
}

static void gm_survivor(int ready, void *ctx)
{
    char handle[128];
    shared *told = ctx;
    raw *r = dial();
    say_ready(ready);
    while (told->died_ns == 0)
        continue; /* a core is free: it can do the job from the moment the other is gone */
    gm_put(r, GM_CAN_DO, "crash", 5);
    gm_next(r, handle, sizeof handle);
    told->had_ns = bench_now_ns();
    gm_done(r, handle);
    (void)usleep(20000);
}

static uint64_t gm_crash(shared *told)
{
    told->died_ns = told->had_ns = 0;
    pid_t pid = start(gm_victim, told), next = start(gm_survivor, told);
    raw *r = dial();
    gm_submit(r, "crash");
    gm_await(r);
    waitpid(pid, NULL, 0);
    stop(next);
    hang_up(r);
    return told->had_ns - told->died_ns;
}

/* ---- workloads ---- */

typedef enum who { LIMINAL, BEANSTALKD, GEARMAND } who;

static void say(const char *what, uint64_t count, uint64_t took_ns, uint64_t cpu_ns, uint64_t *ns)
{
    char name[160];
    snprintf(name, sizeof name, "%s.dispatch.%s%s", durable ? "durable" : "tcp", what, tag);
    bench_result((double)count / (double)took_ns * 1e9, "task/s", "%s.rate", name);
    if (cpu_ns > 0)
        bench_result((double)cpu_ns / (double)count, "ns/task", "%s.server_cpu", name);
    if (ns != NULL)
        bench_percentiles(ns, count, name);
}

static void work(who server, uint32_t window, uint64_t count)
{
    char what[32];
    if (window == 0 || window > WINDOW_MAX || count < window)
        bench_die("1 to %d under way, and at least as many tasks", WINDOW_MAX);
    uint64_t *ns = calloc(count, sizeof *ns), cpu = bench_server_cpu_ns(), then = bench_now_ns();
    bool timed = server != BEANSTALKD || window == 1;
    if (ns == NULL)
        bench_die("out of memory");
    if (server == LIMINAL)
        lim_tasks(window, count, ns);
    else if (server == GEARMAND)
        gm_run(window, count, ns);
    else if (window == 1)
        bs_one(count, ns);
    else
        bs_pipe(window, count);
    uint64_t took = bench_now_ns() - then;
    snprintf(what, sizeof what, window == 1 ? "one" : "pipe%u", window);
    say(what, count, took, bench_server_cpu_ns() - cpu, timed ? ns : NULL);
    free(ns);
}

static void crash(who server, uint64_t count)
{
    shared *told = share();
    uint64_t *ns = calloc(count, sizeof *ns), n = 0;
    char name[96];
    if (ns == NULL)
        bench_die("out of memory");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t took = server == LIMINAL ? lim_dies(told) : server == BEANSTALKD ? bs_crash(told) : gm_crash(told);
        if (took != 0)
            ns[n++] = took;
    }
    if (n < count / 2)
        bench_die("only %llu of %llu tasks went to the one that dies first", (unsigned long long)n,
                  (unsigned long long)count);
    snprintf(name, sizeof name, "tcp.dispatch.crash_to_next%s", tag);
    bench_percentiles(ns, n, name);
    free(ns);
}

/* Prints a word if somebody listens there. */
static int is_up(const char *text)
{
    port = (uint16_t)atoi(text);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        return 1;
    puts("up");
    return 0;
}

static int usage(void)
{
    fputs("usage: bench-dispatch [--peer beanstalkd|gearmand] [--durable] PORT one COUNT [TAG] | pipe WINDOW COUNT "
          "[TAG] |\n"
          "       crash ITERATIONS [TAG]; or bench-dispatch port | up PORT\n",
          stderr);
    return 2;
}

static int free_port(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) != 0 || getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        return 1;
    printf("%u\n", ntohs(at.sin_port));
    return 0;
}

int main(int argc, char **argv)
{
    who server = LIMINAL;
    if (argc == 2 && strcmp(argv[1], "port") == 0)
        return free_port();
    if (argc == 3 && strcmp(argv[1], "up") == 0)
        return is_up(argv[2]);
    if (argc > 2 && strcmp(argv[1], "--peer") == 0) {
        server = strcmp(argv[2], "gearmand") == 0 ? GEARMAND : BEANSTALKD;
        argc -= 2;
        argv += 2;
    }
    if (argc > 1 && strcmp(argv[1], "--durable") == 0) {
        durable = true;
        bench_class = "disk";
        argc--;
        argv++;
    }
    if (argc < 4)
        return usage();
    port = (uint16_t)atoi(argv[1]);
    int next = strcmp(argv[2], "pipe") == 0 ? 5 : 4;
    if (argc > next)
        snprintf(tag, sizeof tag, ".%.40s", argv[next]);
    if (strcmp(argv[2], "one") == 0)
        work(server, 1, strtoull(argv[3], NULL, 10));
    else if (strcmp(argv[2], "pipe") == 0 && argc > 4)
        work(server, (uint32_t)atoi(argv[3]), strtoull(argv[4], NULL, 10));
    else if (strcmp(argv[2], "crash") == 0)
        crash(server, strtoull(argv[3], NULL, 10));
    else
        return usage();
    return 0;
}
