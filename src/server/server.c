/* SPDX-License-Identifier: Apache-2.0
 * server.c - the listening socket, and a porter on every scheduler.
 *
 *   listening socket --accept--> porter 0 --this scheduler has room--> session here
 *                                   `-- hand{fd} --> porter n ------> session there
 *
 * Connections stay together on the first scheduler that is not busy: an exchange between two connections of one
 * scheduler never crosses threads. A porter is also what its sessions share: the buffer they read into, and idle output
 * buffers.
 *
 * Draining: the first porter closes the listening socket; each looks every few milliseconds whether anybody in the
 * whole server still waits for something, and if not, or when the bound has passed, has its sessions say goodbye. */
#include "server/session.h"

#include "bus/durable.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MS ((uint64_t)1000000)
enum {
    ACCEPTS_MAX = 64,
    PAUSE_MS = 50,
    LOOK_MS = 5,
    BUSY_PERMILLE = 600,
    NAMES_BYTES = 64 * 1024,
    PING_DEFAULT_MS = 2000
};
enum { TAG_ACCEPT = 1, TAG_LOOK };

typedef struct hand { /* a connection on its way to another scheduler */
    lim__os *os;
    int fd; /* -1: taken */
    char peer[56];
} hand;
typedef struct start {
    int listener; /* -1: not this one's */
} start;

static void drop_hand(void *body)
{
    hand *h = body;
    if (h->fd >= 0)
        h->os->close(h->os, h->fd);
}
static const lim__letter_type type_hand = { "hand", drop_hand }, type_start = { "start", NULL },
                              type_drain = { "drain", NULL };
const lim__letter_type lim__type_goodbye = { "goodbye", NULL };

/* ---- accepting ---- */

static uint32_t place(porter *p)
{
    lim__server *server = p->server;
    uint32_t best = 0, least = UINT32_MAX;
    if (server->opts.spread)
        return p->next++ % server->count;
    for (uint32_t i = 0; i < server->count; i++) {
        uint32_t busy = lim__sched_busy_permille(server->porters[i].sched);
        if (busy <= BUSY_PERMILLE)
            return i;
        if (busy < least) {
            least = busy;
            best = i;
        }
    }
    return best;
}

static void take_in(porter *p, int fd, const char *peer)
{
    uint32_t to = place(p);
    if (to == p->index) {
        lim__session_open(p, fd, peer);
        return;
    }
    hand *h = lim__letter_new(p->sched, &type_hand, sizeof *h);
    if (h == NULL) {
        p->os->close(p->os, fd);
        return;
    }
    *h = (hand){ .os = p->os, .fd = fd };
    snprintf(h->peer, sizeof h->peer, "%s", peer);
    (void)!lim__send_reserved(p->self, p->server->porters[to].pid, h);
}

/* No descriptor, or no memory for one: those who knock wait in the kernel's queue. */
static void pause_accepting(porter *p, int error)
{
    uint64_t timer;
    if (!p->pausing)
        lim__bus_log(p->bus, "event=accept_paused error=%d detail=\"no descriptor or memory for another connection\"",
                     -error);
    p->pausing = true;
    if (lim_timer_start(p->self, PAUSE_MS * MS, TAG_ACCEPT, &timer) == LIM_OK)
        (void)lim__watch_set(p->self, &p->watch, p->listener, 0);
}

static void on_knock(lim_process *owner, lim__watch *watch, uint32_t ready)
{
    porter *p = LIM_CONTAINER(watch, porter, watch);
    char peer[56] = "";
    (void)owner, (void)ready;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = p->os->accept(p->os, p->listener, peer, sizeof peer);
        if (fd < 0) {
            if (fd != -EAGAIN)
                pause_accepting(p, fd);
            return;
        }
        p->pausing = false;
        take_in(p, fd, peer);
    }
}

static void listen_on(porter *p)
{
    if (p->listener < 0)
        return;
    p->watch.on_ready = on_knock;
    if (lim__watch_set(p->self, &p->watch, p->listener, LIM__IO_READ) != 0)
        pause_accepting(p, -ENOMEM);
}

static void stop_listening(porter *p)
{
    if (p->listener < 0)
        return;
    (void)lim__watch_set(p->self, &p->watch, p->listener, 0);
    p->os->close(p->os, p->listener);
    p->listener = -1;
}

/* ---- draining ---- */

static uint32_t busy_sessions(const lim__server *server)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < server->count; i++)
        n += atomic_load_explicit(&server->porters[i].busy_count, memory_order_relaxed);
    return n;
}

static void say_goodbye(porter *p)
{
    LIM__LIST_EACH(node, &p->sessions) {
        session *s = LIM_CONTAINER(node, session, node);
        int *g = lim__letter_new(p->sched, &lim__type_goodbye, sizeof *g);
        if (g != NULL)
            (void)!lim__send_reserved(p->self, lim_self(s->self), g);
    }
}

static void look(porter *p)
{
    lim__server *server = p->server;
    bool late = lim_now_ns(p->self) >= atomic_load_explicit(&server->bound_ns, memory_order_relaxed);
    uint32_t busy = busy_sessions(server);
    if (busy == 0 || late) {
        if (busy > 0)
            atomic_store_explicit(&p->forced, 1, memory_order_relaxed);
        say_goodbye(p);
    }
    if (!lim__list_empty(&p->sessions))
        (void)!lim_timer_start(p->self, LOOK_MS * MS, TAG_LOOK, &p->drain_timer);
}

static void on_drain(porter *p)
{
    stop_listening(p);
    if (p->drain_timer == 0)
        look(p);
}

/* ---- the porter's process ---- */

static void on_start(porter *p, lim_process *self, const start *letter)
{
    p->self = self;
    p->listener = letter->listener;
    listen_on(p);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    porter *p = *(porter **)state;
    if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == TAG_ACCEPT) {
        listen_on(p);
    } else if (signal->kind == LIM_SIGNAL_TIMER) {
        p->drain_timer = 0;
        look(p);
    } else if (signal->kind != LIM_SIGNAL_MESSAGE) {
        return;
    } else if (signal->type == &type_start) {
        on_start(p, self, signal->body.ptr);
    } else if (signal->type == &type_drain) {
        on_drain(p);
    } else if (signal->type == &type_hand) {
        hand *h = (hand *)(uintptr_t)signal->body.ptr;
        int fd = h->fd;
        h->fd = -1;
        lim__session_open(p, fd, h->peer);
    }
}

static void on_end(void *state, lim_reason reason)
{
    porter *p = *(porter **)state;
    (void)reason;
    if (p->listener >= 0)
        p->os->close(p->os, p->listener);
    p->listener = -1;
}

static lim_err porter_open(lim__server *server, uint32_t index)
{
    porter *p = &server->porters[index];
    p->server = server;
    p->bus = server->bus;
    p->os = server->os;
    p->index = index;
    p->listener = -1;
    p->sched = lim__sched_at(server->bus->rt, index);
    lim__list_init(&p->sessions);
    p->reading = malloc(LIM__READ_BYTES);
    if (p->reading == NULL)
        return LIM_E_NOMEM;
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "porter",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof p,
                            .init = &p,
                            .init_bytes = sizeof p,
                            .mailbox_max = 1u << 20,
                            .trap_exit = true,
                            .place = true,
                            .scheduler = index };
    return lim_runtime_spawn(server->bus->rt, &opts, &p->pid);
}

/* ---- the server ---- */

static lim_err start_porters(lim__server *server, int listener)
{
    for (uint32_t i = 0; i < server->count; i++) { /* the listening one last: the others must know who they are */
        porter *p = &server->porters[server->count - 1 - i];
        start *letter = lim__letter_new(NULL, &type_start, sizeof *letter);
        if (letter == NULL)
            return LIM_E_NOMEM;
        letter->listener = p->index == 0 ? listener : -1;
        (void)!lim__post_reserved(server->bus->rt, p->pid, letter);
    }
    return LIM_OK;
}

static lim_err listen_at(lim__server *server, const lim__server_opts *o, lim_diag *diag, int *out)
{
    int fd = server->os->listen(server->os, o->host, o->port, &server->port);
    *out = fd;
    if (fd >= 0)
        return LIM_OK;
    if (fd == -EADDRINUSE)
        lim__diag_set(
            diag, 0, 0,
            "cannot listen on %s:%u: the port is in use; end the other server, or choose another port (0: any)",
            o->host, o->port);
    else if (fd == -EINVAL)
        lim__diag_set(diag, 0, 0, "cannot listen on %s:%u: not an address; give a numeric address or localhost",
                      o->host, o->port);
    else
        lim__diag_set(diag, 0, 0,
                      "cannot listen on %s:%u: %s; give an address of this machine and a port that is allowed", o->host,
                      o->port, strerror(-fd));
    return LIM_E_UNREACHABLE;
}

static void server_free(lim__server *server)
{
    for (uint32_t i = 0; server->porters != NULL && i < server->count; i++) {
        porter *p = &server->porters[i];
        while (p->spare_count > 0)
            lim__buf_fini(&p->spares[--p->spare_count]);
        free(p->reading);
    }
    free(server->porters);
    free(server);
}

/* Memory ran out among the porters. Those that live refer to `server` until the bus is closed, so it stays. */
static void give_up(lim__server *server, int listener)
{
    for (uint32_t i = 0; i < server->count; i++)
        if (server->porters[i].pid.id != 0)
            lim_runtime_exit(server->bus->rt, server->porters[i].pid, LIM_KILL);
    server->os->close(server->os, listener);
}

static lim__server *server_new(lim_bus *bus, const lim__server_opts *opts)
{
    lim__server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->bus = bus;
    server->os = bus->os;
    server->opts = *opts;
    server->opts.host = NULL; /* the caller's */
    server->birth = lim__durable_birth(bus);
    if (server->opts.ping_ms == 0)
        server->opts.ping_ms = PING_DEFAULT_MS;
    if (server->opts.frame_max == 0)
        server->opts.frame_max = bus->opts.payload_bytes_max + NAMES_BYTES;
    server->count = lim__sched_count(bus->rt);
    server->porters = calloc(server->count, sizeof *server->porters);
    if (server->porters == NULL) {
        free(server);
        return NULL;
    }
    return server;
}

lim_err lim__server_open(lim_bus *bus, const lim__server_opts *opts, lim_diag *diag, lim__server **out)
{
    int listener;
    lim__server *server = server_new(bus, opts);
    if (server == NULL)
        return LIM_E_NOMEM;
    lim_err err = listen_at(server, opts, diag, &listener);
    if (err != LIM_OK) {
        server_free(server);
        return err;
    }
    for (uint32_t i = 0; err == LIM_OK && i < server->count; i++)
        err = porter_open(server, i);
    if (err == LIM_OK)
        err = start_porters(server, listener);
    if (err != LIM_OK) {
        give_up(server, listener);
        return err;
    }
    *out = server;
    return LIM_OK;
}

uint16_t lim__server_port(const lim__server *server)
{
    return server->port;
}

void lim__server_drain(lim__server *server, uint32_t bound_ms)
{
    uint64_t now_ns = server->os->now_ns(server->os);
    atomic_store(&server->bound_ns, now_ns + bound_ms * MS);
    atomic_store(&server->draining, 1);
    atomic_store(&server->bus->closing, 1);
    for (uint32_t i = 0; i < server->count; i++) {
        int *letter = lim__letter_new(NULL, &type_drain, sizeof *letter);
        if (letter != NULL)
            (void)!lim__post_reserved(server->bus->rt, server->porters[i].pid, letter);
    }
}

uint32_t lim__server_sessions(const lim__server *server)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < server->count; i++)
        n += atomic_load_explicit(&server->porters[i].session_count, memory_order_relaxed);
    return n;
}

bool lim__server_drained(const lim__server *server)
{
    return atomic_load(&server->draining) != 0 && lim__server_sessions(server) == 0;
}

bool lim__server_forced(const lim__server *server)
{
    uint32_t forced = 0;
    for (uint32_t i = 0; i < server->count; i++)
        forced |= atomic_load_explicit(&server->porters[i].forced, memory_order_relaxed);
    return forced != 0;
}

void lim__server_close(lim__server *server)
{
    if (server != NULL)
        server_free(server);
}
