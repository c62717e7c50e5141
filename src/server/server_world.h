/* SPDX-License-Identifier: Apache-2.0
 * server_world.h - a bus with a server and raw clients on simulated machines, for the tests of the server. Included by
 * *_test.c only.
 *
 *      EVERY_WORLD (w) {                                          // 1 and 2 schedulers, several seeds
 *          client *a = client_new(w, "a");                        // connected, WELCOME taken
 *          PUT(a, ask, .corr = 1, .timeout_ms = 1000, ...);
 *          lim__f_outcome f;
 *          TAKE(a, outcome, OUTCOME, &f);                         // lets the world run until it comes
 *      }
 *
 * A client is a task of its machine: it reads all it can, keeps every frame, and writes what was put. When a world is
 * closed all clients go, and the bus must be as it was before they came. */
#ifndef LIM__SERVER_WORLD_H
#define LIM__SERVER_WORLD_H

#include "bus/durable.h"
#include "server/session.h"
#include "sim/sim_os.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define SECOND ((uint64_t)1000000000)
enum { CLIENTS_MAX = 16, SEEDS = 25, PORT = 4777 };

typedef struct world world;
typedef struct taken { /* a frame that came */
    struct taken *next;
    lim__frame frame;
    uint8_t payload[];
} taken;

typedef struct client {
    world *w;
    lim__os *os;
    lim__sim_task *task;
    lim__poller *poller;
    int fd;
    lim__wire wire;
    lim__buf out, in;
    taken *first, **last, *seen; /* frames not yet taken; those that were */
    lim__c_id16 session;
    long end;      /* 1: open; 0: the server ended; negative errno */
    uint64_t served; /* a participant it has registered, for tests that want to know */
    bool deaf;     /* does not read */
    bool raw;      /* bytes are kept in `in`, not parsed */
    uint64_t pings;
} client;

struct world {
    lim__sim *sim;
    lim__os *os;
    lim_bus *bus;
    lim__server *server;
    uint32_t schedulers, run;
    uint64_t seed;
    bool keeps; /* it has a data directory; before world_open */
    client *clients[CLIENTS_MAX];
    uint32_t client_count;
    lim_bus_census before;
    char log[64 * 1024];
};

/* ---- time ---- */

static inline void run_for(world *w, uint64_t ns)
{
    (void)lim__sim_run(w->sim, lim__sim_now(w->sim) + ns, NULL, NULL);
}
static inline bool run_until(world *w, bool (*done)(void *ctx), void *ctx)
{
    return lim__sim_run(w->sim, lim__sim_now(w->sim) + 60 * SECOND, done, ctx);
}

/* ---- the server's side ---- */

static inline bool scheduler_turn(void *ctx)
{
    return lim__sched_turn(ctx, 0);
}
static inline uint64_t scheduler_due(void *ctx)
{
    return lim__sched_next_due_ns(ctx);
}
static inline void world_log(void *ctx, const char *line)
{
    world *w = ctx;
    size_t len = strlen(w->log);
    snprintf(w->log + len, sizeof w->log - len, "%s\n", line);
}

static inline bool store_turn(void *ctx)
{
    return lim__durable_turn(((world *)ctx)->bus);
}
static inline uint64_t store_due(void *ctx)
{
    return lim__durable_next_due_ns(((world *)ctx)->bus);
}
static inline void store_poke(void *ctx)
{
    lim__sim_task_poke(ctx);
}
static inline void world_store(world *w)
{
    lim__sim_task *task = lim__sim_task_add(w->sim, w->os, "store", store_turn, store_due, w);
    lim__durable_on_poke(w->bus, store_poke, task);
}

static inline void world_open(world *w)
{
    w->sim = lim__sim_open(w->seed);
    w->os = lim__sim_host(w->sim, "server");
    lim__runtime_opts runtime = { .os = w->os, .scheduler_count = w->schedulers };
    lim_bus_opts bus = { .size = sizeof bus, .scheduler_count = w->schedulers, .on_log = world_log, .log_ctx = w };
    bus.data_dir = w->keeps ? "data" : NULL;
    bus.data_segment_bytes = 1 << 20;
    assert_int_equal(lim__bus_open(&bus, &runtime, &w->bus), LIM_OK);
    if (w->keeps)
        world_store(w);
    for (uint32_t i = 0; i < w->schedulers; i++)
        lim__sim_task_add(w->sim, w->os, "scheduler", scheduler_turn, scheduler_due, lim__sched_at(w->bus->rt, i));
    lim__server_opts opts = { .host = "0.0.0.0", .port = PORT, .spread = w->schedulers > 1 };
    lim_diag diag;
    assert_int_equal(lim__server_open(w->bus, &opts, &diag, &w->server), LIM_OK);
    run_for(w, SECOND / 10);
    lim_bus_census_take(w->bus, &w->before);
}

/* ---- clients ---- */

static inline void client_keep(client *c, const lim__frame *frame)
{
    taken *t = malloc(sizeof *t + frame->len);
    assert_non_null(t);
    t->next = NULL;
    t->frame = *frame;
    if (frame->len > 0)
        memcpy(t->payload, frame->payload, frame->len);
    t->frame.payload = t->payload;
    *c->last = t;
    c->last = &t->next;
}

static inline void client_parse(client *c)
{
    lim__span in = { c->in.ptr + c->in.start, c->in.ptr + c->in.end };
    lim__frame frame;
    lim__wire_got got;
    while ((got = lim__wire_next(&c->wire, &in, &frame)) == LIM__WIRE_FRAME)
        client_keep(c, &frame);
    c->in.start = (size_t)(in.p - c->in.ptr);
    if (got == LIM__WIRE_END)
        c->in.start = c->in.end;
}

static inline void client_read(client *c)
{
    for (;;) {
        uint8_t *to = lim__buf_reserve(&c->in, 4096);
        long n = c->os->recv(c->os, c->fd, to, 4096);
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            c->end = n;
            c->os->poller_set(c->os, c->poller, c->fd, 0, NULL);
            return;
        }
        c->in.end += (size_t)n;
        if (!c->raw)
            client_parse(c);
    }
}

static inline void client_write(client *c)
{
    while (lim__buf_len(&c->out) > 0) {
        long n = c->os->send(c->os, c->fd, c->out.ptr + c->out.start, lim__buf_len(&c->out));
        if (n <= 0)
            return;
        c->out.start += (size_t)n;
    }
}

static inline bool client_turn(void *ctx)
{
    client *c = ctx;
    lim__io_event ev[4];
    (void)c->os->poller_wait(c->os, c->poller, ev, 4, 0);
    if (c->end != 1)
        return false;
    if (c->wire.state == LIM__WIRE_START) {
        int err = c->os->connect_result(c->os, c->fd);
        if (err == -EINPROGRESS)
            return false;
        assert_int_equal(err, 0);
        size_t before = c->out.end;
        lim__wire_open(&c->wire);
        if (c->raw)
            c->out.end = before; /* it says what it wants */
    }
    if (!c->deaf)
        client_read(c);
    if (c->end == 1)
        client_write(c);
    if (c->end == 1) {
        bool wants = lim__buf_len(&c->out) > 0;
        c->os->poller_set(c->os, c->poller, c->fd, (c->deaf ? 0u : LIM__IO_READ) | (wants ? LIM__IO_WRITE : 0u), c);
    }
    return false;
}

static inline bool client_is_open(void *ctx)
{
    client *c = ctx;
    return c->wire.state != LIM__WIRE_START || c->end != 1;
}

/* Connected, nothing said. */
static inline client *client_dial(world *w, const char *machine, const lim__wire_opts *opts)
{
    client *c = calloc(1, sizeof *c);
    assert_non_null(c);
    assert_true(w->client_count < CLIENTS_MAX);
    w->clients[w->client_count++] = c;
    c->w = w;
    c->os = lim__sim_host(w->sim, machine);
    c->last = &c->first;
    c->end = 1;
    c->raw = opts == NULL;
    lim__wire_init(&c->wire, LIM__WIRE_CLIENT, &c->out, opts);
    c->poller = c->os->poller_open(c->os);
    c->fd = c->os->connect(c->os, lim__sim_host_address(w->os), PORT);
    assert_true(c->fd >= 0);
    c->os->poller_set(c->os, c->poller, c->fd, LIM__IO_READ | LIM__IO_WRITE, c);
    c->task = lim__sim_task_add(w->sim, c->os, machine, client_turn, NULL, c);
    return c;
}

static inline void client_cut(client *c) /* closes without a word */
{
    lim__sim_task_remove(c->w->sim, c->task);
    c->task = NULL;
    if (c->fd >= 0 && lim__sim_host_alive(c->os)) {
        c->os->poller_set(c->os, c->poller, c->fd, 0, NULL);
        c->os->close(c->os, c->fd);
    }
    c->fd = -1;
    c->end = 0;
}

static inline void taken_free(taken *t)
{
    for (taken *next; t != NULL; t = next) {
        next = t->next;
        free(t);
    }
}

static inline void client_free(client *c)
{
    if (c->task != NULL)
        client_cut(c);
    taken_free(c->first);
    taken_free(c->seen);
    lim__buf_fini(&c->out);
    lim__buf_fini(&c->in);
    free(c);
}

static inline void client_poke(client *c)
{
    if (c->task != NULL)
        lim__sim_task_poke(c->task);
}

static inline taken **client_find(client *c, uint8_t type)
{
    taken **at = &c->first;
    while (*at != NULL && (*at)->frame.type != type)
        at = &(*at)->next;
    return at;
}

typedef struct wanted {
    client *c;
    uint8_t type;
} wanted;
static inline bool has_come(void *ctx)
{
    wanted *x = ctx;
    return *client_find(x->c, x->type) != NULL || x->c->end != 1;
}

/* What a failed test is told. */
static inline void world_tell(world *w)
{
    fprintf(stderr, "seed %llu, %u schedulers, at %llu ns\n", (unsigned long long)w->seed, w->schedulers,
            (unsigned long long)lim__sim_now(w->sim));
    for (uint32_t i = 0; i < w->schedulers; i++)
        LIM__LIST_EACH(node, &w->server->porters[i].sessions) {
            const session *s = LIM_CONTAINER(node, session, node);
            fprintf(stderr, "%.*s: out %zu kept %zu calls %zu held %llu%s%s%s%s%s\n", (int)s->client.len,
                    (const char *)s->client.ptr, lim__buf_len(&s->out), lim__buf_len(&s->kept), s->calls.count,
                    (unsigned long long)s->held, s->writable ? "" : " waits to write", s->paused ? " paused" : "",
                    s->starved ? " starved" : "", s->broken ? " broken" : "", s->over ? " over" : "");
        }
}

/* The next frame of that type; others stay. NULL: it does not come. */
static inline const lim__frame *client_take(client *c, uint8_t type)
{
    wanted x = { c, type };
    (void)run_until(c->w, has_come, &x);
    taken **at = client_find(c, type), *t = *at;
    if (t == NULL)
        return NULL;
    *at = t->next;
    if (t->next == NULL)
        c->last = at;
    t->next = c->seen;
    c->seen = t;
    return &t->frame;
}

static inline bool client_has(client *c, uint8_t type) /* now */
{
    return *client_find(c, type) != NULL;
}

#define PUT(c, name, ...)                                                                                              \
    do {                                                                                                               \
        assert_int_equal(lim__put_##name(&(c)->out, &(lim__f_##name){ __VA_ARGS__ }), LIM_OK);                         \
        client_poke(c);                                                                                                \
    } while (0)
#define TAKE(c, name, NAME, f)                                                                                         \
    do {                                                                                                               \
        const lim__frame *frame_ = client_take(c, LIM__##NAME);                                                        \
        if (frame_ == NULL) {                                                                                          \
            world_tell((c)->w);                                                                                        \
            fail_msg("no " #NAME " came; the end is %ld, wire: %s", (c)->end, (c)->wire.text);                         \
        }                                                                                                              \
        *(f) = (lim__f_##name){ 0 };                                                                                   \
        assert_true(lim__get_##name(frame_, f));                                                                       \
    } while (0)

static inline client *client_session(world *w, const char *machine, const lim__c_id16 *token, uint32_t liveness_ms)
{
    lim__wire_opts opts = { .hello = { .liveness_ms = liveness_ms, .client = lim__str(machine), .node = lim__str(machine) } };
    if (token != NULL)
        opts.hello.session = *token;
    client *c = client_dial(w, machine, &opts);
    lim__f_welcome f;
    TAKE(c, welcome, WELCOME, &f);
    c->session = f.session;
    return c;
}
static inline client *client_new(world *w, const char *machine)
{
    return client_session(w, machine, NULL, 0);
}

static inline void client_kill(client *c) /* SIGKILL of its program */
{
    lim__sim_kill_host(c->w->sim, c->os);
}

static inline bool ended(void *ctx)
{
    return ((client *)ctx)->end != 1;
}
static inline void expect_end(client *c)
{
    assert_true(run_until(c->w, ended, c));
}
/* FAULT with that code, then the end. */
static inline void expect_fault(client *c, lim_err code)
{
    expect_end(c);
    assert_int_equal(c->wire.code, code);
}

static inline bool is_text(lim_bytes bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.ptr, text, bytes.len) == 0;
}
#define assert_text(bytes, text)                                                                                       \
    do {                                                                                                               \
        lim_bytes seen_ = bytes;                                                                                       \
        if (!is_text(seen_, text))                                                                                     \
            fail_msg("expected \"%s\", saw \"%.*s\"", text, (int)seen_.len, (const char *)seen_.ptr);                  \
    } while (0)

/* ---- the end of a world ---- */

static inline bool nobody_is_left(void *ctx)
{
    return lim__server_sessions(((world *)ctx)->server) == 0;
}

/* Dead letters keep their queue. */
static inline void drop_dead(world *w)
{
    static const char all[] = "{\"op\":\"dead.drop\",\"all\":true}";
    lim_pid groups[64];
    size_t count = lim__groups_list(w->bus, lim__bytes(NULL, 0), groups, LIM_COUNT(groups));
    for (size_t i = 0; i < count && i < LIM_COUNT(groups); i++) {
        lim__admin *a = lim__letter_new(NULL, &lim__type_admin, sizeof *a + sizeof all);
        *a = (lim__admin){ .len = sizeof all - 1 };
        memcpy(a->json, all, sizeof all - 1);
        (void)!lim__post_reserved(w->bus->rt, groups[i], a);
    }
}

static inline void world_close(world *w)
{
    for (uint32_t i = 0; i < w->client_count; i++)
        client_free(w->clients[i]);
    w->client_count = 0;
    assert_true(run_until(w, nobody_is_left, w));
    run_for(w, 10 * SECOND); /* tasks that nobody took are dead by now */
    drop_dead(w);
    run_for(w, 10 * SECOND); /* groups that nobody needs go after a while */
    lim_bus_census after;
    lim_bus_census_take(w->bus, &after);
    if (!w->keeps) { /* cursors stay, and so do their processes */
        assert_int_equal(after.runtime.processes, w->before.runtime.processes);
        assert_int_equal(after.runtime.timers, w->before.runtime.timers);
        assert_int_equal(after.subscriptions, w->before.subscriptions);
    }
    assert_int_equal(after.runtime.links, w->before.runtime.links);
    assert_int_equal(after.runtime.monitors, w->before.runtime.monitors);
    assert_int_equal(after.conversations, w->before.conversations);
    assert_int_equal(after.groups, w->before.groups);
    lim_bus_close(w->bus);
    lim__server_close(w->server);
    lim__sim_close(w->sim);
}

static inline world *world_next(world *w, uint32_t seeds)
{
    if (w->run > 0)
        world_close(w);
    if (w->run == 2 * seeds) {
        free(w);
        return NULL;
    }
    uint32_t run = w->run;
    *w = (world){ .schedulers = 1 + run % 2, .seed = 1 + run / 2, .run = run + 1, .keeps = w->keeps };
    world_open(w);
    return w;
}
#define SOME_WORLDS(w, seeds)                                                                                          \
    for (world *w = world_next(calloc(1, sizeof(world)), seeds); w != NULL; w = world_next(w, seeds))
static inline world *world_that_keeps(void)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->keeps = true;
    return w;
}
#define KEEPING_WORLDS(w, seeds)                                                                                       \
    for (world *w = world_next(world_that_keeps(), seeds); w != NULL; w = world_next(w, seeds))
#define EVERY_WORLD(w) SOME_WORLDS (w, SEEDS)
#define FEW_WORLDS(w)  SOME_WORLDS (w, 3) /* for what takes long */

#endif
