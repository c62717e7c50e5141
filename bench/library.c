/* SPDX-License-Identifier: Apache-2.0
 * library.c - asks over loopback TCP by the client libraries themselves: ours, and NATS' own (libnats), each as a
 * program would use it. bench/run.sh starts the servers and pairs the numbers.
 *
 *   bench-library [--peer libnats] PORT callbacks WINDOW COUNT [TAG]   every answer's callback asks again
 *   bench-library [--peer libnats] PORT threads WINDOW COUNT [TAG]     as many threads: each waits, and asks again
 *   bench-library PORT loop WINDOW COUNT [TAG]                         callbacks in the program's own loop, no threads
 *   bench-library --peer libnats has                                   exit code 0: it was there when this was built
 *
 * The asker is this process, with one connection; the responder a forked one, with another. Both use the library, and
 * it is used as is best for it: libnats' asynchronous asks are publishes with a reply subject that are sent as soon as
 * possible (gathering them gives a third of the rate), its threads call natsConnection_Request. A responder's callback
 * answers at once. TAG: of the results' names, instead of the way's.
 *
 * With $SERVER_PID, the server's CPU time per ask is told too. Exit code 2: usage, or built without libnats. */
#include "peer.h"

#include "base/base.h"

#include <liminal/client.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef BENCH_LIBNATS
#include <nats/nats.h>
#endif

enum { LIFE_S = 60, TIMEOUT_MS = 20000, THREADS_MAX = 256 };
static const char request_text[] = "0123456789abcdef", group[] = "library";
static lim_bytes payload(void)
{
    return (lim_bytes){ request_text, BENCH_PAYLOAD };
}

/* How many asks are to be made, and were. */
typedef struct work {
    uint64_t count;
    _Atomic uint64_t begun, done;
    sem_t over;
} work;

static bool begin_one(work *w)
{
    return atomic_fetch_add(&w->begun, 1) < w->count;
}

static void one_done(work *w)
{
    if (atomic_fetch_add(&w->done, 1) + 1 == w->count)
        sem_post(&w->over);
}

static void await_all(work *w)
{
    while (sem_wait(&w->over) != 0)
        continue;
}

/* ---- the forked responder ---- */

static int ready_fd;

static void say_ready(void)
{
    if (write(ready_fd, "r", 1) != 1)
        _exit(1);
}

static pid_t responder(void (*serve)(uint16_t port), uint16_t port)
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
        alarm(LIFE_S);
        ready_fd = ends[1];
        serve(port);
        for (;;)
            pause();
    }
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1)
        bench_die("the responder did not get ready");
    close(ends[0]);
    return pid;
}

/* ---- threads: the same for every library ---- */

typedef struct caller {
    work *work;
    void *connection;
    void (*ask)(void *connection); /* and waits for the answer */
} caller;

static void *call(void *arg)
{
    const caller *c = arg;
    while (begin_one(c->work)) {
        c->ask(c->connection);
        one_done(c->work);
    }
    return NULL;
}

static void call_by_threads(work *w, uint32_t window, void *connection, void (*ask)(void *connection))
{
    pthread_t threads[THREADS_MAX];
    caller c = { w, connection, ask };
    for (uint32_t i = 0; i < window; i++)
        if (pthread_create(&threads[i], NULL, call, &c) != 0)
            bench_die("no thread");
    for (uint32_t i = 0; i < window; i++)
        pthread_join(threads[i], NULL);
}

/* ---- ours ---- */

static lim_client *open_client(uint16_t port, bool own_loop)
{
    char server[32];
    lim_diag diag = { 0 };
    lim_client *c;
    snprintf(server, sizeof server, "127.0.0.1:%u", port);
    lim_client_opts opts = { .size = sizeof opts, .server = server, .name = "bench-library", .own_loop = own_loop };
    if (lim_client_open(&opts, &diag, &c) != LIM_OK)
        bench_die("%s", diag.text);
    return c;
}

static void turn(lim_client *c)
{
    struct pollfd p = { lim_client_fd(c), POLLIN, 0 };
    (void)poll(&p, 1, lim_client_timeout_ms(c));
    if (lim_client_process(c) != LIM_OK)
        bench_die("liminald is gone");
}

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_client_reply(c, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void on_ready(void *ctx, const char *identity)
{
    (void)ctx, (void)identity;
    say_ready();
}

static void serve_with(lim_client *c)
{
    lim_participant self;
    lim_diag diag = { 0 };
    lim_client_serve_opts opts = {
        .size = sizeof opts, .capacity = LIM_UNLIMITED, .handler = { .on_message = on_request }, .on_ready = on_ready
    };
    if (lim_client_serve(c, group, &opts, &diag, &self) != LIM_OK)
        bench_die("%s", diag.text);
}

static void liminal_serve(uint16_t port)
{
    serve_with(open_client(port, false));
}

static void liminal_serve_in_loop(uint16_t port)
{
    lim_client *c = open_client(port, true);
    serve_with(c);
    for (;;)
        turn(c);
}

typedef struct asker {
    work *work;
    lim_client *client;
} asker;

static void on_answer(void *ctx, const lim_outcome *o);

static void ask_one(asker *a)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = TIMEOUT_MS };
    if (!begin_one(a->work))
        return;
    lim_err err = lim_client_ask_async(a->client, group, payload(), &opts, on_answer, a, NULL);
    if (err != LIM_OK)
        bench_die("cannot ask: %s", lim_err_text(err));
}

static void on_answer(void *ctx, const lim_outcome *o)
{
    asker *a = ctx;
    if (o->how == LIM_HOW_CLOSED)
        return;
    if (o->how != LIM_HOW_REPLY || o->payload.len != BENCH_PAYLOAD)
        bench_die("an ask ended otherwise than it should: how %d: %.*s", (int)o->how, (int)o->detail.len,
                  (const char *)o->detail.ptr);
    ask_one(a);
    one_done(a->work);
}

static void *liminal_open(uint16_t port)
{
    return open_client(port, false);
}

static void *liminal_open_loop(uint16_t port)
{
    lim_client *c = open_client(port, true);
    while (lim_client_state(c) != LIM_LINK_UP)
        turn(c);
    return c;
}

static void liminal_callbacks(void *connection, work *w, uint32_t window)
{
    asker a = { w, connection };
    for (uint32_t i = 0; i < window; i++)
        ask_one(&a);
    await_all(w);
}

static void liminal_loop(void *connection, work *w, uint32_t window)
{
    asker a = { w, connection };
    for (uint32_t i = 0; i < window; i++)
        ask_one(&a);
    while (atomic_load(&w->done) < w->count)
        turn(connection);
}

static void liminal_ask(void *connection)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = TIMEOUT_MS };
    lim_outcome o = { 0 };
    lim_err err = lim_client_ask(connection, group, payload(), &opts, &o);
    if (err != LIM_OK || o.how != LIM_HOW_REPLY)
        bench_die("an ask ended otherwise than it should: %s, how %d", lim_err_text(err), (int)o.how);
    lim_outcome_fini(&o);
}

static void liminal_threads(void *connection, work *w, uint32_t window)
{
    call_by_threads(w, window, connection, liminal_ask);
}

/* ---- NATS' own ---- */

#ifdef BENCH_LIBNATS
static void must(natsStatus status)
{
    if (status != NATS_OK)
        bench_die("libnats: %s", natsStatus_GetText(status));
}

static natsConnection *open_nats(uint16_t port)
{
    char url[64];
    natsOptions *opts;
    natsConnection *nc;
    snprintf(url, sizeof url, "nats://127.0.0.1:%u", port);
    must(natsOptions_Create(&opts));
    must(natsOptions_SetURL(opts, url));
    must(natsOptions_SetSendAsap(opts, true));
    must(natsConnection_Connect(&nc, opts));
    natsOptions_Destroy(opts);
    return nc;
}

static void on_nats_request(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    (void)sub, (void)closure;
    must(natsConnection_Publish(nc, natsMsg_GetReply(msg), natsMsg_GetData(msg), natsMsg_GetDataLength(msg)));
    natsMsg_Destroy(msg);
}

static void nats_serve(uint16_t port)
{
    natsSubscription *sub;
    natsConnection *nc = open_nats(port);
    must(natsConnection_Subscribe(&sub, nc, group, on_nats_request, NULL));
    must(natsConnection_Flush(nc));
    say_ready();
}

typedef struct nats_asker {
    work *work;
    natsConnection *nc;
    natsInbox *inbox;
} nats_asker;

static void nats_ask_one(nats_asker *a)
{
    if (begin_one(a->work))
        must(natsConnection_PublishRequest(a->nc, group, a->inbox, request_text, BENCH_PAYLOAD));
}

static void on_nats_answer(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    nats_asker *a = closure;
    (void)nc, (void)sub;
    if (natsMsg_GetDataLength(msg) != BENCH_PAYLOAD)
        bench_die("nats-server: an ask was not answered");
    natsMsg_Destroy(msg);
    nats_ask_one(a);
    one_done(a->work);
}

static void *nats_open(uint16_t port)
{
    return open_nats(port);
}

static void nats_callbacks(void *connection, work *w, uint32_t window)
{
    natsSubscription *sub;
    nats_asker a = { .work = w, .nc = connection };
    must(natsInbox_Create(&a.inbox));
    must(natsConnection_Subscribe(&sub, a.nc, a.inbox, on_nats_answer, &a));
    for (uint32_t i = 0; i < window; i++)
        nats_ask_one(&a);
    await_all(w);
    natsSubscription_Destroy(sub);
    natsInbox_Destroy(a.inbox);
}

static void nats_ask(void *connection)
{
    natsMsg *msg;
    must(natsConnection_Request(&msg, connection, group, request_text, BENCH_PAYLOAD, TIMEOUT_MS));
    natsMsg_Destroy(msg);
}

static void nats_threads(void *connection, work *w, uint32_t window)
{
    call_by_threads(w, window, connection, nats_ask);
}
#endif

/* ---- one run ---- */

typedef struct way {
    const char *peer, *name;
    void (*serve)(uint16_t port);
    void *(*open)(uint16_t port);
    void (*run)(void *connection, work *w, uint32_t window);
} way;

static const way ways[] = {
    { "", "callbacks", liminal_serve, liminal_open, liminal_callbacks },
    { "", "threads", liminal_serve, liminal_open, liminal_threads },
    { "", "loop", liminal_serve_in_loop, liminal_open_loop, liminal_loop },
#ifdef BENCH_LIBNATS
    { "libnats", "callbacks", nats_serve, nats_open, nats_callbacks },
    { "libnats", "threads", nats_serve, nats_open, nats_threads },
#endif
};

static uint64_t own_cpu_ns(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static void measure(const way *how, uint16_t port, uint32_t window, uint64_t count, const char *tag)
{
    char name[64];
    pid_t pid = responder(how->serve, port);
    void *connection = how->open(port);
    work w = { .count = count };
    sem_init(&w.over, 0, 0);
    uint64_t cpu = bench_server_cpu_ns(), own = own_cpu_ns(RUSAGE_SELF), start = bench_now_ns();
    how->run(connection, &w, window);
    double ns = (double)(bench_now_ns() - start), cpu_ns = (double)(bench_server_cpu_ns() - cpu);
    double own_ns = (double)(own_cpu_ns(RUSAGE_SELF) - own);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    snprintf(name, sizeof name, "tcp.library.w%u.%.16s", window, tag);
    bench_result((double)count / ns * 1e9, "req/s", "%s.rate", name);
    bench_result(own_ns / (double)count, "ns/req", "%s.asker_cpu", name);
    bench_result((double)own_cpu_ns(RUSAGE_CHILDREN) / (double)count, "ns/req", "%s.responder_cpu", name);
    bench_result(cpu_ns / (double)count, "ns/req", "%s.server_cpu", name);
    fflush(stdout);
    _exit(0); /* libraries have threads that still use what is on our stack */
}

int main(int argc, char **argv)
{
    int at = 1;
    const char *peer = "";
    alarm(LIFE_S);
    if (argc > 2 && strcmp(argv[1], "--peer") == 0) {
        peer = argv[2];
        at = 3;
    }
    bool asks = argc == at + 1 && strcmp(argv[at], "has") == 0;
    for (size_t i = 0; i < LIM_COUNT(ways) && (asks || argc == at + 4 || argc == at + 5); i++) {
        if (strcmp(ways[i].peer, peer) != 0 || (!asks && strcmp(ways[i].name, argv[at + 1]) != 0))
            continue;
        if (asks)
            return 0;
        unsigned long window = strtoul(argv[at + 2], NULL, 10), count = strtoul(argv[at + 3], NULL, 10);
        if (window == 0 || window > THREADS_MAX || count < window)
            bench_die("1 to %d outstanding, and as many asks", THREADS_MAX);
        measure(&ways[i], (uint16_t)strtoul(argv[at], NULL, 10), (uint32_t)window, count,
                argv[argc == at + 5 ? at + 4 : at + 1]);
    }
    if (!asks)
        fputs("usage: bench-library [--peer libnats] PORT callbacks|threads|loop WINDOW COUNT [TAG]\n", stderr);
    return 2;
}
