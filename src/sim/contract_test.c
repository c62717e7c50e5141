/* SPDX-License-Identifier: Apache-2.0
 * contract_test.c - one list of tests for both os tables: what the simulated TCP does, the kernel's does too.
 *
 * Each test gets two programs and may wait until a descriptor is ready; on the kernel that is a wait, in the simulator
 * the clock is moved until it is so. */
#include "sim/sim_os.h"
#include "base/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static const int64_t LONG_NS = 20000000000; /* reached only by a failing test */

struct side {
    lim__os *os;
    lim__poller *poller;
    int fd;
};
struct world {
    lim__sim *sim; /* NULL: the kernel */
    struct side server, client;
    int listener;
    uint16_t port;
};

/* What became ready, 0 if nothing did. */
static uint32_t wait_ready(struct world *w, struct side *s, int fd, uint32_t interest)
{
    lim__io_event ev = { 0 };
    assert_int_equal(s->os->poller_set(s->os, s->poller, fd, interest, w), 0);
    int n = s->os->poller_wait(s->os, s->poller, &ev, 1, w->sim ? 0 : LONG_NS);
    for (int64_t waited = 0; w->sim && n == 0 && waited < LONG_NS; waited += 100000) {
        lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 100000);
        n = s->os->poller_wait(s->os, s->poller, &ev, 1, 0);
    }
    assert_int_equal(s->os->poller_set(s->os, s->poller, fd, 0, NULL), 0);
    return n == 1 ? ev.ready : 0;
}

/* Readable it may be all the time, with bytes or an end; a reset adds the other bit. */
static void wait_hung_up(struct world *w, struct side *s)
{
    while (wait_ready(w, s, s->fd, LIM__IO_READ) == LIM__IO_READ) {
        if (w->sim)
            lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 100000);
    }
}

static bool ready_now(struct side *s, uint32_t interest)
{
    lim__io_event ev;
    assert_int_equal(s->os->poller_set(s->os, s->poller, s->fd, interest, s), 0);
    int n = s->os->poller_wait(s->os, s->poller, &ev, 1, 0);
    assert_int_equal(s->os->poller_set(s->os, s->poller, s->fd, 0, NULL), 0);
    return n == 1;
}

static void close_side(struct side *s)
{
    s->os->close(s->os, s->fd);
    s->fd = -1;
}

static long send_text(struct side *s, const char *text)
{
    size_t len = strlen(text), sent = 0;
    while (sent < len) {
        long n = s->os->send(s->os, s->fd, text + sent, len - sent);
        if (n < 0)
            return n;
        sent += (size_t)n;
    }
    return (long)len;
}

/* Reads until n bytes are there, or an end. */
static long recv_bytes(struct world *w, struct side *s, char *buf, size_t n)
{
    size_t have = 0;
    while (have < n) {
        long got = s->os->recv(s->os, s->fd, buf + have, n - have);
        if (got == -EAGAIN && wait_ready(w, s, s->fd, LIM__IO_READ))
            continue;
        if (got <= 0)
            return have ? (long)have : got;
        have += (size_t)got;
    }
    return (long)have;
}

static int start_world(struct world *w, lim__os *server, lim__os *client, const char *address)
{
    w->server.os = server;
    w->client.os = client;
    w->server.poller = server->poller_open(server);
    w->client.poller = client->poller_open(client);
    w->listener = server->listen(server, "0.0.0.0", 0, &w->port);
    w->client.fd = client->connect(client, address, w->port);
    return w->listener >= 0 && w->client.fd >= 0 ? 0 : -1;
}

static int accept_world(struct world *w)
{
    char peer[64];
    if (!(wait_ready(w, &w->client, w->client.fd, LIM__IO_WRITE) & LIM__IO_WRITE) ||
        w->client.os->connect_result(w->client.os, w->client.fd) != 0 ||
        !wait_ready(w, &w->server, w->listener, LIM__IO_READ))
        return -1;
    w->server.fd = w->server.os->accept(w->server.os, w->listener, peer, sizeof peer);
    return w->server.fd >= 0 ? 0 : -1;
}

static int kernel_world(void **state)
{
    static struct world w;
    w = (struct world){ 0 };
    *state = &w;
    lim__os *os = lim__os_linux();
    return start_world(&w, os, os, "127.0.0.1") == 0 ? accept_world(&w) : -1;
}

static int sim_world(void **state)
{
    static struct world w;
    static uint64_t seed;
    w = (struct world){ .sim = lim__sim_open(++seed) };
    *state = &w;
    lim__os *server = lim__sim_host(w.sim, "server");
    return start_world(&w, server, lim__sim_host(w.sim, "client"), "server") == 0 ? accept_world(&w) : -1;
}

static int end_world(void **state)
{
    struct world *w = *state;
    close_side(&w->client);
    close_side(&w->server);
    w->server.os->close(w->server.os, w->listener);
    w->server.os->poller_close(w->server.os, w->server.poller);
    w->client.os->poller_close(w->client.os, w->client.poller);
    lim__sim_close(w->sim);
    return 0;
}

static void test_bytes_go_both_ways(void **state)
{
    struct world *w = *state;
    char buf[16] = "";
    assert_int_equal(w->server.os->recv(w->server.os, w->server.fd, buf, 4), -EAGAIN);
    assert_true(ready_now(&w->server, LIM__IO_WRITE));
    assert_false(ready_now(&w->server, LIM__IO_READ));
    assert_int_equal(send_text(&w->client, "there"), 5);
    assert_int_equal(recv_bytes(w, &w->server, buf, 5), 5);
    assert_memory_equal(buf, "there", 5);
    assert_int_equal(send_text(&w->server, "back"), 4);
    assert_int_equal(recv_bytes(w, &w->client, buf, 4), 4);
    assert_memory_equal(buf, "back", 4);
}

static void test_a_clean_close_is_bytes_then_an_end_then_a_broken_pipe(void **state)
{
    struct world *w = *state;
    char buf[16];
    assert_int_equal(send_text(&w->server, "last"), 4);
    close_side(&w->server);
    assert_int_equal(recv_bytes(w, &w->client, buf, 4), 4);
    assert_int_equal(recv_bytes(w, &w->client, buf, 4), 0);
    assert_int_equal(recv_bytes(w, &w->client, buf, 4), 0);
    assert_int_equal(send_text(&w->client, "x"), 1); /* it could still be listening to us */
    wait_hung_up(w, &w->client);
    long n = send_text(&w->client, "y");
    assert_true(n == -EPIPE || n == -ECONNRESET);
    assert_int_equal(send_text(&w->client, "z"), -EPIPE);
}

static void test_closing_with_unread_bytes_resets(void **state)
{
    struct world *w = *state;
    char buf[16];
    assert_int_equal(send_text(&w->client, "unread"), 6);
    assert_true(wait_ready(w, &w->server, w->server.fd, LIM__IO_READ));
    close_side(&w->server);
    assert_int_equal(wait_ready(w, &w->client, w->client.fd, LIM__IO_READ), LIM__IO_READ | LIM__IO_WRITE);
    assert_int_equal(recv_bytes(w, &w->client, buf, 4), -ECONNRESET);
    assert_int_equal(recv_bytes(w, &w->client, buf, 4), 0);
    assert_int_equal(send_text(&w->client, "x"), -EPIPE);
}

static void test_received_bytes_survive_a_reset(void **state)
{
    struct world *w = *state;
    char buf[16];
    assert_int_equal(send_text(&w->server, "kept"), 4);
    assert_true(wait_ready(w, &w->client, w->client.fd, LIM__IO_READ));
    assert_int_equal(send_text(&w->client, "unread"), 6);
    assert_true(wait_ready(w, &w->server, w->server.fd, LIM__IO_READ));
    close_side(&w->server);
    wait_hung_up(w, &w->client);
    assert_in_range(recv_bytes(w, &w->client, buf, 4), 1, 4);
    assert_memory_equal(buf, "kept", 1);
}

static void test_half_a_close_leaves_the_other_half(void **state)
{
    struct world *w = *state;
    char buf[16];
    w->client.os->shutdown_write(w->client.os, w->client.fd);
    assert_int_equal(send_text(&w->client, "x"), -EPIPE);
    assert_int_equal(recv_bytes(w, &w->server, buf, 4), 0);
    assert_int_equal(send_text(&w->server, "yet"), 3);
    assert_int_equal(recv_bytes(w, &w->client, buf, 3), 3);
    w->server.os->shutdown_write(w->server.os, w->server.fd);
    assert_int_equal(recv_bytes(w, &w->client, buf, 3), 0);
    assert_int_equal(wait_ready(w, &w->client, w->client.fd, LIM__IO_READ), LIM__IO_READ | LIM__IO_WRITE);
    assert_int_equal(recv_bytes(w, &w->client, buf, 3), 0);
}

static void test_a_full_connection_refuses_until_it_is_read(void **state)
{
    struct world *w = *state;
    size_t size = 1 << 16, sent = 0, got = 0;
    char *block = calloc(1, size);
    assert_non_null(block);
    for (int stuck = 0; stuck < 50;) { /* what is on its way makes room once more when it arrives */
        long n = w->client.os->send(w->client.os, w->client.fd, block, size);
        assert_true(n > 0 || n == -EAGAIN);
        sent += n > 0 ? (size_t)n : 0;
        stuck = n > 0 ? 0 : stuck + 1;
        if (w->sim)
            lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 50000000);
    }
    assert_false(ready_now(&w->client, LIM__IO_WRITE));
    while (got < sent) {
        long n = recv_bytes(w, &w->server, block, sent - got < size ? sent - got : size);
        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_int_equal(wait_ready(w, &w->client, w->client.fd, LIM__IO_WRITE), LIM__IO_WRITE);
    free(block);
}

static void test_a_reader_that_never_reads_is_given_up(void **state)
{
    struct world *w = *state;
    static char block[1 << 16];
    w->client.os->set_liveness(w->client.os, w->client.fd, 1000, 300);
    for (int stuck = 0; stuck < 50;) {
        long n = w->client.os->send(w->client.os, w->client.fd, block, sizeof block);
        stuck = n > 0 ? 0 : stuck + 1;
        if (w->sim && n > 0)
            lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 5000000);
    }
    assert_int_equal(wait_ready(w, &w->client, w->client.fd, LIM__IO_READ), LIM__IO_READ | LIM__IO_WRITE);
    assert_int_equal(recv_bytes(w, &w->client, block, 1), -ETIMEDOUT);
}

static void test_nobody_there_is_refused(void **state)
{
    struct world *w = *state;
    struct side *c = &w->client;
    w->server.os->close(w->server.os, w->listener);
    w->listener = -1;
    int fd = c->os->connect(c->os, w->sim ? "server" : "127.0.0.1", w->port);
    if (fd >= 0) {
        assert_true(wait_ready(w, c, fd, LIM__IO_WRITE));
        assert_int_equal(c->os->connect_result(c->os, fd), -ECONNREFUSED);
        c->os->close(c->os, fd);
    } else {
        assert_int_equal(fd, -ECONNREFUSED);
    }
}

static void test_closing_a_listener_resets_who_waits_in_it(void **state)
{
    struct world *w = *state;
    struct side late = w->client;
    char buf[4];
    late.fd = late.os->connect(late.os, w->sim ? "server" : "127.0.0.1", w->port);
    assert_true(late.fd >= 0);
    assert_int_equal(wait_ready(w, &late, late.fd, LIM__IO_WRITE), LIM__IO_WRITE);
    assert_int_equal(late.os->connect_result(late.os, late.fd), 0);
    assert_true(wait_ready(w, &w->server, w->listener, LIM__IO_READ));
    w->server.os->close(w->server.os, w->listener);
    w->listener = -1;
    assert_true(wait_ready(w, &late, late.fd, LIM__IO_READ));
    assert_int_equal(recv_bytes(w, &late, buf, 1), -ECONNRESET);
    close_side(&late);
}

#define LIST(world)                                                                                                    \
    CASE(test_bytes_go_both_ways, world), CASE(test_a_clean_close_is_bytes_then_an_end_then_a_broken_pipe, world),     \
        CASE(test_closing_with_unread_bytes_resets, world), CASE(test_received_bytes_survive_a_reset, world),          \
        CASE(test_half_a_close_leaves_the_other_half, world),                                                          \
        CASE(test_a_full_connection_refuses_until_it_is_read, world),                                                  \
        CASE(test_a_reader_that_never_reads_is_given_up, world), CASE(test_nobody_there_is_refused, world),            \
        CASE(test_closing_a_listener_resets_who_waits_in_it, world)
#define CASE(test, world) cmocka_unit_test_setup_teardown(test, world, end_world)

int main(void)
{
    const struct CMUnitTest kernel[] = { LIST(kernel_world) }, simulated[] = { LIST(sim_world) };
    int failed = cmocka_run_group_tests(kernel, NULL, NULL);
    for (int seeds = 0; seeds < 30; seeds++)
        failed += cmocka_run_group_tests(simulated, NULL, NULL);
    return failed;
}
