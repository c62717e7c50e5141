/* SPDX-License-Identifier: Apache-2.0
 * fake.h - for the tests of this folder: an os table with a clock that stands still and a server at the other end.
 *
 * The server speaks through the real session of wire.h and answers CONNECT and HELLO; everything else a client says is
 * kept, in order, until the test takes it. What the test puts into server(f) is what the client reads. */
#ifndef LIM__FAKE_H
#define LIM__FAKE_H

#include "client/client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { FAKE_CONNS = 256, FAKE_SAID = 4096 };
#define FAKE_MS ((uint64_t)1000000)

typedef struct fake_conn {
    lim__buf to_server, to_client;
    lim__wire wire;
    bool client_closed, client_shut, server_closed;
    lim__c_id16 session_said; /* in HELLO */
} fake_conn;

typedef struct fake {
    lim__os os; /* first */
    uint64_t now, chance;
    fake_conn conns[FAKE_CONNS];
    int conn_count;
    int refuse;        /* errno that dialling ends with; 0: connects; -1: never answers */
    bool mute;         /* the server does not answer CONNECT */
    size_t read_max;   /* bytes one recv gives at most; 0: all */
    size_t write_room; /* bytes that may still be sent; SIZE_MAX: any */
    uint8_t session;
    lim__frame said[FAKE_SAID];
    size_t said_first, said_count;
} fake;

struct lim__poller {
    int fd;
    uint32_t interest;
    void *ctx;
};

static inline uint64_t fake_now(lim__os *os)
{
    return ((fake *)os)->now;
}
static inline uint64_t fake_wall(lim__os *os)
{
    return ((fake *)os)->now + 1000000 * FAKE_MS;
}
static inline uint64_t fake_random(lim__os *os)
{
    return ((fake *)os)->chance += 0x9E3779B97F4A7C15u;
}
static inline lim__poller *fake_poller_open(lim__os *os)
{
    (void)os;
    lim__poller *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->fd = -1;
    return p;
}
static inline void fake_poller_close(lim__os *os, lim__poller *p)
{
    (void)os;
    free(p);
}
static inline int fake_poller_set(lim__os *os, lim__poller *p, int fd, uint32_t interest, void *ctx)
{
    (void)os;
    assert_true(p->fd == -1 || p->fd == fd);
    *p = (lim__poller){ interest ? fd : -1, interest, ctx };
    return 0;
}
static inline fake_conn *fake_conn_of(lim__os *os, int fd)
{
    fake *f = (fake *)os;
    assert_in_range(fd, 0, f->conn_count - 1);
    assert_false(f->conns[fd].client_closed);
    return &f->conns[fd];
}
static inline int fake_poller_wait(lim__os *os, lim__poller *p, lim__io_event *ev, int max, int64_t timeout_ns)
{
    fake *f = (fake *)os;
    (void)max, (void)timeout_ns;
    if (p->fd < 0)
        return 0;
    fake_conn *conn = fake_conn_of(os, p->fd);
    uint32_t ready = lim__buf_len(&conn->to_client) > 0 || conn->server_closed ? LIM__IO_READ : 0;
    ready |= f->refuse != -1 && f->write_room > 0 ? LIM__IO_WRITE : 0u;
    *ev = (lim__io_event){ p->ctx, ready & p->interest };
    return ev->ready != 0;
}
static inline void fake_poller_wake(lim__os *os, lim__poller *p)
{
    (void)os, (void)p;
}
static inline int fake_poller_fd(lim__os *os, lim__poller *p)
{
    (void)os;
    return p->fd + 1000;
}
static inline int fake_connect(lim__os *os, const char *host, uint16_t port)
{
    fake *f = (fake *)os;
    (void)host, (void)port;
    assert_true(f->conn_count < FAKE_CONNS);
    fake_conn *conn = &f->conns[f->conn_count];
    *conn = (fake_conn){ 0 };
    lim__wire_init(&conn->wire, LIM__WIRE_SERVER, &conn->to_client, NULL);
    lim__wire_open(&conn->wire);
    return f->conn_count++;
}
static inline int fake_connect_result(lim__os *os, int fd)
{
    fake_conn_of(os, fd);
    return ((fake *)os)->refuse > 0 ? -((fake *)os)->refuse : 0;
}
static inline long fake_recv(lim__os *os, int fd, void *buf, size_t len)
{
    fake *f = (fake *)os;
    fake_conn *conn = fake_conn_of(os, fd);
    size_t n = lim__buf_len(&conn->to_client);
    if (n == 0)
        return conn->server_closed ? 0 : -EAGAIN;
    n = n < len ? n : len;
    n = f->read_max && n > f->read_max ? f->read_max : n;
    memcpy(buf, lim__buf_bytes(&conn->to_client).ptr, n);
    lim__buf_consume(&conn->to_client, n);
    return (long)n;
}
static inline long fake_send(lim__os *os, int fd, const void *buf, size_t len)
{
    fake *f = (fake *)os;
    fake_conn *conn = fake_conn_of(os, fd);
    assert_false(conn->client_shut);
    if (conn->server_closed)
        return -ECONNRESET;
    if (f->write_room == 0)
        return -EAGAIN;
    len = len < f->write_room ? len : f->write_room;
    f->write_room -= f->write_room == SIZE_MAX ? 0 : len;
    lim__buf_add(&conn->to_server, buf, len);
    return (long)len;
}
static inline void fake_shutdown_write(lim__os *os, int fd)
{
    fake_conn_of(os, fd)->client_shut = true;
}
static inline void fake_close(lim__os *os, int fd)
{
    fake_conn_of(os, fd)->client_closed = true;
}
static inline void fake_set_liveness(lim__os *os, int fd, uint32_t idle_ms, uint32_t user_timeout_ms)
{
    fake_conn_of(os, fd);
    assert_int_equal(idle_ms, 2000);
    assert_int_equal(user_timeout_ms, 6000);
}

static inline fake *fake_new(void)
{
    fake *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->os = (lim__os){ .now_ns = fake_now, .wall_ns = fake_wall, .random = fake_random,
                       .poller_open = fake_poller_open, .poller_close = fake_poller_close,
                       .poller_set = fake_poller_set, .poller_wait = fake_poller_wait,
                       .poller_wake = fake_poller_wake, .poller_fd = fake_poller_fd, .connect = fake_connect,
                       .connect_result = fake_connect_result, .recv = fake_recv, .send = fake_send,
                       .shutdown_write = fake_shutdown_write, .close = fake_close,
                       .set_liveness = fake_set_liveness };
    f->now = 1000 * FAKE_MS;
    f->write_room = SIZE_MAX;
    f->session = 0xa0;
    return f;
}

/* ---- the server ---- */

static inline fake_conn *fake_last(fake *f)
{
    assert_true(f->conn_count > 0);
    return &f->conns[f->conn_count - 1];
}
static inline lim__buf *server(fake *f) /* what the client reads next */
{
    return &fake_last(f)->to_client;
}
static inline void fake_keep(fake *f, const lim__frame *frame)
{
    assert_true(f->said_first + f->said_count < FAKE_SAID);
    uint8_t *copy = malloc(frame->len + 1);
    assert_non_null(copy);
    if (frame->len > 0)
        memcpy(copy, frame->payload, frame->len);
    f->said[f->said_first + f->said_count++] =
        (lim__frame){ frame->type, frame->flags, frame->stream, frame->len, copy };
}
static inline void fake_listen(fake *f, fake_conn *conn)
{
    lim_bytes all = lim__buf_bytes(&conn->to_server);
    lim__span in = { (const uint8_t *)all.ptr, (const uint8_t *)all.ptr + all.len };
    lim__frame frame;
    if (f->mute || all.len == 0 || conn->wire.state >= LIM__WIRE_CLOSING)
        return;
    while (lim__wire_next(&conn->wire, &in, &frame) == LIM__WIRE_FRAME) {
        lim__f_hello hello = { 0 };
        if (frame.type != LIM__HELLO) {
            fake_keep(f, &frame);
            continue;
        }
        assert_true(lim__get_hello(&frame, &hello));
        conn->session_said = hello.session;
        lim__f_welcome welcome = { .frame_max = LIM__LENGTH_MAX, .session = { { f->session } } };
        assert_int_equal(lim__put_welcome(&conn->to_client, &welcome), LIM_OK);
    }
    lim__buf_consume(&conn->to_server, (size_t)(in.p - (const uint8_t *)all.ptr));
}
/* The next frame that a client said, which must be of this type. Valid until the end of the test. */
static inline lim__frame *take(fake *f, uint8_t type)
{
    assert_true(f->said_count > 0);
    lim__frame *frame = &f->said[f->said_first++];
    f->said_count--;
    if (frame->type != type)
        fail_msg("the client said %s, expected %s", lim__frame_name(frame->type), lim__frame_name(type));
    return frame;
}
static inline void silent(const fake *f)
{
    if (f->said_count > 0)
        fail_msg("the client said %s", lim__frame_name(f->said[f->said_first].type));
}
static inline void server_breaks(fake *f)
{
    fake_last(f)->server_closed = true;
}

/* ---- the client ---- */

static inline lim_client *fake_client(fake *f, const lim_client_opts *more)
{
    lim_client_opts opts = more ? *more : (lim_client_opts){ 0 };
    lim_client *c;
    opts.size = sizeof opts;
    opts.own_loop = true;
    opts.os = &f->os;
    assert_int_equal(lim_client_open(&opts, NULL, &c), LIM_OK);
    return c;
}
/* Both sides work until nothing moves any more. */
static inline void pump(fake *f, lim_client *c)
{
    for (int quiet = 0, i = 0; quiet < 2; i++) {
        assert_true(i < 100000);
        size_t before = f->said_count + f->said_first, in = f->conn_count > 0 ? lim__buf_len(server(f)) : 0;
        int conns = f->conn_count;
        lim_err err = lim_client_process(c);
        for (int k = 0; k < f->conn_count; k++)
            fake_listen(f, &f->conns[k]);
        size_t out = f->conn_count > 0 ? lim__buf_len(server(f)) : 0;
        bool moved = before != f->said_count + f->said_first || in != out || conns != f->conn_count;
        quiet = moved ? 0 : quiet + 1;
        if (err == LIM_E_GONE)
            return;
    }
}
static inline void later(fake *f, lim_client *c, uint64_t ms)
{
    f->now += ms * FAKE_MS;
    pump(f, c);
}
static inline lim_client *fake_up(fake *f, const lim_client_opts *more)
{
    lim_client *c = fake_client(f, more);
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    return c;
}
/* The connection breaks and is there again. */
static inline void reconnect(fake *f, lim_client *c)
{
    server_breaks(f);
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
    later(f, c, 3000);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
}
/* The end of every test: closes both. */
static inline void fake_end(fake *f, lim_client *c)
{
    lim_client_close(c);
    for (int i = 0; i < f->conn_count; i++) {
        assert_true(f->conns[i].client_closed);
        lim__buf_fini(&f->conns[i].to_server);
        lim__buf_fini(&f->conns[i].to_client);
    }
    for (size_t i = 0; i < f->said_first + f->said_count; i++)
        free((void *)(uintptr_t)f->said[i].payload);
    free(f);
}

#define TEXT(s)         lim__bytes((s), sizeof(s) - 1)
#define SAY(f, x, ...)  assert_int_equal(lim__put_##x(server(f), &(lim__f_##x){ __VA_ARGS__ }), LIM_OK)
#define HEAR(f, X, x, v)                                                                                               \
    lim__f_##x v = { 0 };                                                                                                 \
    assert_true(lim__get_##x(take(f, LIM__##X), &v))

#endif
