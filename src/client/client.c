/* SPDX-License-Identifier: Apache-2.0
 * client.c - opening and closing, the two threads, and waiting.
 *
 * Without own_loop there are two threads beside the callers'. The I/O thread runs the turns of link.c: it alone reads
 * and writes, so nothing a handler does can delay a PONG or a TAKEN. The handler thread runs handlers, one at a time,
 * in the order their messages came. With own_loop there is no thread: lim_client_process is a turn, handlers run
 * inside.
 *
 *   runs on             own_loop false                          own_loop true
 *   on_message, on_end, on_ready      handler thread            lim_client_process, lim_client_close
 *   outcomes, parts, admissions, ...  I/O thread                    likewise
 *   on_state, on_revoked, on_credit   I/O thread                    likewise
 *
 * A blocking call is the asynchronous one with a callback that wakes the caller. Closing is three acts: `closing`
 * refuses new work and lets the I/O side say goodbye; the end of the link ends everything in flight; then the threads
 * are joined, those still blocked are waited for, and the memory goes. */
#include "client/client.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { PORT_DEFAULT = 4777, CONNECT_TIMEOUT_MS = 5000, LIVENESS_MS = 4000, CLOSE_TURNS_MAX = 64 };
enum { QUICK_NS = 20000, HELD_BACK_MAX = 16 * 1024 };
#define POKE_NS        ((uint64_t)1000000000)
#define SERVER_DEFAULT "127.0.0.1:4777"
#define HINT           "; start one with liminald, or name it with --server or LIMINAL_SERVER"

static _Thread_local const lim_client *running; /* the client whose thread this is */

void lim__client_lock(lim_client *c)
{
    if (!c->own_loop)
        pthread_mutex_lock(&c->mutex);
}

void lim__client_unlock(lim_client *c)
{
    if (c->own_loop)
        return;
    bool wake = c->wake, handler_wake = c->handler_wake;
    c->wake = c->handler_wake = false;
    pthread_mutex_unlock(&c->mutex);
    if (wake)
        c->os->poller_wake(c->os, c->poller);
    if (handler_wake) /* it would only wait for the mutex before */
        pthread_cond_signal(&c->handler_cond);
}

void lim__client_unlock_now(lim_client *c)
{
    lim__link_write_through(c);
    lim__client_unlock(c);
}

/* A handler has answered, others are next, and this one and the one before took next to no time: a write for each would
 * cost more than they did. If the next one takes long after all, the I/O thread writes, which looks soon. */
static bool may_hold_back(lim_client *c)
{
    uint64_t now = c->os->now_ns(c->os), before = c->answered_ns;
    c->answered_ns = now;
    return c->patrols && c->wake && running == c && now - before < QUICK_NS && !lim__list_empty(&c->queue) &&
           lim__buf_len(&c->out) < HELD_BACK_MAX;
}

void lim__client_unlock_soon(lim_client *c)
{
    if (!c->own_loop && may_hold_back(c)) {
        c->wake = false;
        c->sleeping = c->patrol_wanted = true;
        lim__client_unlock(c);
        return;
    }
    lim__client_unlock_now(c);
}

bool lim__client_inside(const lim_client *c)
{
    return c->own_loop ? c->in_process : running == c;
}

void lim__client_check(const lim_client *c)
{
#ifdef LIM_DEBUG
    size_t calls = 0;
    LIM__LIST_EACH(node, &c->call_list) {
        const lim__call *call = LIM_CONTAINER(node, lim__call, node);
        LIM_CHECK(calls++ >= 64 || lim__map_get(&c->calls, call->corr) == call); /* C1; a sample: it runs every turn */
    }
    LIM_CHECK(calls == c->calls.count);                                                          /* C1 */
    LIM_CHECK(c->link != LIM__LINK_CONNECTING || c->pubs.pending == 0 || c->session_count == 0); /* C2 */
    LIM__LIST_EACH(node, &c->orders) {
        const lim__order *order = LIM_CONTAINER(node, lim__order, node);
        bool at_server = order->state == LIM__ORDER_ASKED || order->state == LIM__ORDER_LIVE;
        LIM_CHECK(at_server == (order->stream != 0 && lim__map_get(&c->streams, order->stream) == order)); /* C3 */
        LIM_CHECK(!at_server || c->link == LIM__LINK_UP || c->link == LIM__LINK_LEAVING ||
                  c->link == LIM__LINK_LINGERING); /* C3 */
    }
    bool may_have_calls = c->link != LIM__LINK_WAITING && c->link != LIM__LINK_ENDED;
    LIM_CHECK(may_have_calls || (c->calls.count == 0 && c->pubs.pending == 0)); /* C4 */
#else
    (void)c;
#endif
}

/* ---- blocking ---- */

uint64_t lim__client_deadline_ns(const lim_client *c, int64_t timeout_ms)
{
    uint64_t now = c->os->now_ns(c->os);
    if (timeout_ms >= INT64_MAX / 2000000)
        return UINT64_MAX;
    return now + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000u;
}

lim_err lim__client_block_enter(lim_client *c, lim__waiter *w)
{
    if (c->own_loop || lim__client_inside(c))
        return LIM_E_MISUSE;
    *w = (lim__waiter){ .c = c };
    lim__list_init(&w->node);
    lim__cond_init(&w->cond);
    lim__client_lock(c);
    c->blocked++;
    return LIM_OK;
}

/* Waiting on a condition releases the mutex without the wake that a put asked for. */
static void wake_now(lim_client *c)
{
    lim__link_write_through(c);
    if (c->wake || c->handler_wake) {
        lim__client_unlock(c);
        lim__client_lock(c);
    }
}

/* The I/O thread may have slept through what was written for it: it must look whether the server is alive. */
static void poke(lim_client *c)
{
    c->wake = true;
    lim__client_unlock(c);
    lim__client_lock(c);
}

void lim__client_block_room(lim_client *c)
{
    wake_now(c);
    while (lim__link_may_put(c) == LIM_E_FULL)
        lim__cond_wait_until(&c->room, &c->mutex, UINT64_MAX);
}

bool lim__client_block_wait(lim_client *c, lim__waiter *w, uint64_t deadline_ns)
{
    uint64_t soon = c->os->now_ns(c->os) + POKE_NS;
    wake_now(c);
    while (!w->done && lim__cond_wait_until(&w->cond, &c->mutex, deadline_ns < soon ? deadline_ns : soon))
        ;
    if (!w->done && soon < deadline_ns)
        poke(c);
    while (!w->done && lim__cond_wait_until(&w->cond, &c->mutex, deadline_ns))
        ;
    return w->done;
}

void lim__client_block_leave(lim_client *c, lim__waiter *w)
{
    pthread_cond_destroy(&w->cond);
    c->blocked--;
    if (c->blocked == 0)
        pthread_cond_broadcast(&c->idle);
    lim__client_unlock(c);
}

void lim__client_waiter_done_locked(lim__waiter *w, lim_err err)
{
    w->err = err;
    w->done = true;
    pthread_cond_signal(&w->cond); /* under the mutex: the waiter's stack is there until it is released */
}

void lim__client_waiter_on_admission(void *ctx, lim_err err, const lim_admission *admission)
{
    lim__waiter *w = ctx;
    lim_client *c = w->c;
    lim__client_lock(c);
    if (admission)
        w->admission = *admission;
    lim__client_waiter_done_locked(w, err);
    lim__client_unlock(c);
}

void lim__client_waiter_on_outcome(void *ctx, const lim_outcome *outcome)
{
    lim__waiter *w = ctx;
    lim_client *c = w->c;
    lim_outcome copy = { 0 };
    lim_err err = lim__outcome_copy(outcome, &copy);
    lim__client_lock(c);
    w->outcome = copy;
    lim__client_waiter_done_locked(w, err);
    lim__client_unlock(c);
}

void lim__client_waiter_on_dispatched(void *ctx, lim_err err, const lim_admission *admission, lim_conv task)
{
    lim__waiter *w = ctx;
    lim_client *c = w->c;
    lim__client_lock(c);
    if (admission)
        w->admission = *admission;
    w->conv = task;
    lim__client_waiter_done_locked(w, err);
    lim__client_unlock(c);
}

void lim__client_waiter_on_done(void *ctx, lim_err err, const char *detail)
{
    lim__client_waiter_on_conv(ctx, err, (lim_conv){ 0 }, detail);
}

void lim__client_waiter_on_conv(void *ctx, lim_err err, lim_conv conv, const char *detail)
{
    lim__waiter *w = ctx;
    lim_client *c = w->c;
    lim__client_lock(c);
    w->conv = conv;
    lim__diag_set(&w->diag, 0, 0, "%s", detail);
    lim__client_waiter_done_locked(w, err);
    lim__client_unlock(c);
}

lim_err lim_client_flush(lim_client *c, int64_t timeout_ms)
{
    lim__waiter w;
    lim_err err = timeout_ms <= 0 ? LIM_E_MISUSE : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    uint64_t deadline = lim__client_deadline_ns(c, timeout_ms), breaks = c->breaks;
    uint64_t publishes = c->pubs.offered, sends = c->sends_offered, bytes = lim__link_offset(c);
    wake_now(c);
    while (err == LIM_OK) {
        bool written = !(bytes & LIM__OFFSET_HELD) && c->written >= bytes;
        if (c->breaks != breaks || c->link == LIM__LINK_ENDED)
            err = LIM_E_CLOSED;
        else if (written && c->pubs.answered >= publishes && c->sends_answered >= sends)
            break;
        else if (!lim__cond_wait_until(&c->progress, &c->mutex, deadline))
            err = LIM_E_TIMEOUT;
        if (bytes & LIM__OFFSET_HELD && c->link == LIM__LINK_UP)
            bytes = lim__link_offset(c); /* what was held is on its way: a little more than was asked for */
    }
    lim__client_block_leave(c, &w);
    return err;
}

/* ---- opening ---- */

/* "host:port", "[v6]:port" or "host". */
static lim_err parse_server(lim_client *c, const char *server, lim_diag *diag)
{
    const char *host = server, *end = strchr(server, ']'), *colon = strrchr(server, ':');
    unsigned long port = PORT_DEFAULT;
    if (server[0] == '[' && end) {
        host = server + 1;
        colon = end[1] == ':' ? end + 1 : NULL;
    } else {
        end = colon ? colon : server + strlen(server);
    }
    char *rest = NULL;
    if (colon)
        port = strtoul(colon + 1, &rest, 10);
    bool port_ok = !colon || (colon[1] >= '0' && colon[1] <= '9' && *rest == '\0' && port >= 1 && port <= 65535);
    size_t len = (size_t)(end - host);
    if (len == 0 || len >= sizeof c->host || strlen(server) >= sizeof c->server || !port_ok) {
        lim__diag_set(diag, 0, 0, "the server's address '%.100s' is not host:port; an example: " SERVER_DEFAULT,
                      server);
        return LIM_E_INVALID;
    }
    memcpy(c->host, host, len);
    c->port = (uint16_t)port;
    snprintf(c->server, sizeof c->server, "%s", server);
    return LIM_OK;
}

static lim_err take_opts(lim_client *c, const lim_client_opts *opts, lim_diag *diag)
{
    const char *name = opts->name ? opts->name : "client", *server = opts->server;
    if (!server)
        server = getenv("LIMINAL_SERVER");
    if (opts->size < sizeof *opts || opts->connect_timeout_ms < 0) {
        lim__diag_set(diag, 0, 0, "lim_client_opts: size was forgotten, or connect_timeout_ms is negative");
        return LIM_E_MISUSE;
    }
    if (strlen(name) >= sizeof c->name || name[0] == '\0' || !lim__utf8_ok((const uint8_t *)name, strlen(name))) {
        lim__diag_set(diag, 0, 0, "a client's name is 1 to 255 bytes of UTF-8");
        return LIM_E_INVALID;
    }
    const char *node = opts->node ? opts->node : "";
    if (strlen(node) >= sizeof c->node || !lim__utf8_ok((const uint8_t *)node, strlen(node))) {
        lim__diag_set(diag, 0, 0, "a client's node is at most 255 bytes of UTF-8");
        return LIM_E_INVALID;
    }
    c->os = opts->os ? opts->os : lim__os_linux();
    c->own_loop = opts->own_loop;
    c->no_reconnect = opts->no_reconnect;
    c->liveness_ms = opts->liveness_ms || opts->own_loop ? opts->liveness_ms : LIVENESS_MS;
    c->connect_timeout_ns =
        (uint64_t)(opts->connect_timeout_ms ? opts->connect_timeout_ms : CONNECT_TIMEOUT_MS) * 1000000u;
    c->on_state = opts->on_state;
    c->ctx = opts->ctx;
    snprintf(c->name, sizeof c->name, "%s", name);
    snprintf(c->node, sizeof c->node, "%s", node);
    return parse_server(c, server && server[0] ? server : SERVER_DEFAULT, diag);
}

static void init_maps(lim_client *c)
{
    lim__map *maps[] = { &c->calls, &c->streams, &c->ids, &c->requests, &c->conv_streams, &c->conv_ids };
    lim__list *lists[] = {
        &c->call_list, &c->call_free, &c->orders, &c->dirty, &c->convs, &c->queue, &c->receives_done
    };
    for (size_t i = 0; i < LIM_COUNT(maps); i++)
        lim__map_init(maps[i], c->os->random(c->os));
    for (size_t i = 0; i < LIM_COUNT(lists); i++)
        lim__list_init(lists[i]);
}

static void init(lim_client *c)
{
    init_maps(c);
    pthread_mutex_init(&c->mutex, NULL);
    lim__cond_init(&c->handler_cond);
    lim__cond_init(&c->room);
    lim__cond_init(&c->progress);
    lim__cond_init(&c->idle);
    c->link = LIM__LINK_DIALLING;
    c->told = LIM_LINK_CONNECTING;
    c->fd = -1;
    c->due_ns = c->receive_due_ns = c->retry_ns = UINT64_MAX;
    c->frame_max = LIM__LENGTH_MAX;
    c->next_stream = 1;
    c->next_id = c->next_corr = 1;
    c->pubs.next_corr = 1;
    c->wire.need = LIM__HEADER_SIZE;
}

/* The end of every client, also of one that never began. */
static void destroy(lim_client *c)
{
    lim__client_pub_fini(c);
    lim__client_call_fini(c);
    lim__client_convs_fini(c);
    LIM_ASSERT(lim__list_empty(&c->orders) && lim__list_empty(&c->queue) && lim__list_empty(&c->receives_done));
    lim__map *maps[] = { &c->calls, &c->streams, &c->ids, &c->requests, &c->conv_streams, &c->conv_ids };
    for (size_t i = 0; i < LIM_COUNT(maps); i++)
        lim__map_fini(maps[i]);
    lim__buf_fini(&c->out);
    lim__buf_fini(&c->held);
    lim__buf_fini(&c->sending);
    free(c->in);
    if (c->poller)
        c->os->poller_close(c->os, c->poller);
    pthread_cond_destroy(&c->handler_cond);
    pthread_cond_destroy(&c->room);
    pthread_cond_destroy(&c->progress);
    pthread_cond_destroy(&c->idle);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

static void *io_main(void *client)
{
    lim_client *c = client;
    running = c;
    lim__client_lock(c);
    lim__link_start(c);
    while (c->link != LIM__LINK_ENDED)
        lim__link_turn(c, true);
    pthread_cond_broadcast(&c->progress);
    pthread_cond_broadcast(&c->room);
    lim__client_unlock(c);
    return NULL;
}

static void *handler_main(void *client)
{
    running = client;
    return lim__client_handler_main(client);
}

static void stop_handler(lim_client *c)
{
    lim__client_lock(c);
    c->handler_stop = true;
    pthread_cond_signal(&c->handler_cond);
    lim__client_unlock(c);
    lim__thread_join(c->handler);
}

static lim_err start_threads(lim_client *c)
{
    if (lim__thread_start(&c->handler, "lim-handler", handler_main, c) != 0)
        return LIM_E_NOMEM;
    if (lim__thread_start(&c->io, "lim-client", io_main, c) != 0) {
        stop_handler(c);
        return LIM_E_NOMEM;
    }
    return LIM_OK;
}

/* The link's first UP or its end; a first dial that fails is an end. */
static lim_err await_first(lim_client *c, lim_diag *diag)
{
    lim__client_lock(c);
    c->blocked++;
    while (c->session_count == 0 && c->link != LIM__LINK_ENDED)
        lim__cond_wait_until(&c->progress, &c->mutex, UINT64_MAX);
    c->blocked--;
    lim_err err = c->session_count > 0 ? LIM_OK : c->end_err;
    if (err != LIM_OK)
        lim__diag_set(diag, 0, 0, "%.*s%s", err == LIM_E_UNREACHABLE ? 165 : 239, c->end_text,
                      err == LIM_E_UNREACHABLE ? HINT : "");
    lim__client_unlock(c);
    return err == LIM_E_CLOSED || err == LIM_E_IO ? LIM_E_UNREACHABLE : err;
}

lim_err lim_client_open(const lim_client_opts *opts, lim_diag *diag, lim_client **out)
{
    if (!opts || !out)
        return LIM_E_INVALID;
    lim_client *c = calloc(1, sizeof *c);
    if (!c)
        return LIM_E_NOMEM;
    lim_err err = take_opts(c, opts, diag);
    if (err != LIM_OK) {
        free(c);
        return err;
    }
    init(c);
    c->poller = c->os->poller_open(c->os);
    err = !c->poller ? LIM_E_NOMEM : c->own_loop ? LIM_OK : start_threads(c);
    if (err != LIM_OK) {
        lim__diag_set(diag, 0, 0, "out of memory, threads or descriptors");
        destroy(c);
        return err;
    }
    if (c->own_loop)
        lim__link_start(c);
    else
        err = await_first(c, diag);
    if (err != LIM_OK) {
        lim_client_close(c);
        return err;
    }
    *out = c;
    return LIM_OK;
}

/* ---- closing ---- */

static void close_own_loop(lim_client *c)
{
    c->in_process = true;
    /* A simulated table has no time that passes while one waits. */
    bool may_wait = c->os == lim__os_linux();
    for (int i = 0; i < CLOSE_TURNS_MAX && c->link != LIM__LINK_ENDED; i++)
        lim__link_turn(c, may_wait);
    if (c->link != LIM__LINK_ENDED) {
        c->due_ns = 0;
        lim__link_turn(c, false);
    }
    lim__client_queue_run(c);
}

void lim_client_close(lim_client *c)
{
    if (!c)
        return;
    if (LIM_NEVER(lim__client_inside(c)))
        return;
    lim__client_lock(c);
    c->closing = true;
    c->wake = !c->own_loop;
    lim__client_unlock(c);
    if (c->own_loop) {
        close_own_loop(c);
    } else {
        lim__thread_join(c->io);
        stop_handler(c);
        lim__client_lock(c);
        while (c->blocked > 0)
            lim__cond_wait_until(&c->idle, &c->mutex, UINT64_MAX);
        lim__client_unlock(c);
    }
    LIM_ASSERT(c->link == LIM__LINK_ENDED);
    destroy(c);
}

/* ---- the caller's loop ---- */

int lim_client_fd(lim_client *c)
{
    return c->own_loop ? c->os->poller_fd(c->os, c->poller) : -1;
}

int lim_client_timeout_ms(lim_client *c)
{
    lim__client_lock(c);
    uint64_t due = lim__list_empty(&c->queue) ? lim__link_due_ns(c) : 0, now = c->os->now_ns(c->os);
    lim__client_unlock(c);
    if (due == UINT64_MAX)
        return -1;
    uint64_t ms = due > now ? (due - now + 999999) / 1000000 : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

lim_err lim_client_process(lim_client *c)
{
    if (!c->own_loop || c->in_process)
        return LIM_E_MISUSE;
    c->in_process = true;
    lim__client_queue_run(c);
    lim__link_turn(c, false);
    lim__client_queue_run(c);
    c->in_process = false;
    return c->link == LIM__LINK_ENDED ? LIM_E_GONE : LIM_OK;
}

lim_link_state lim_client_state(lim_client *c)
{
    lim__client_lock(c);
    lim_link_state state = lim__link_public(c);
    lim__client_unlock(c);
    return state;
}
