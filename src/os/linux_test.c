/* SPDX-License-Identifier: Apache-2.0
 * linux_test.c - the table over the real kernel: clock, readiness, TCP on the loopback. */
#include "os/os.h"
#include "base/base.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { MS = 1000000 };
static const int64_t LONG_NS = 20000000000; /* reached only by a failing test */

/* A listener, a client and the server's end, all in one poller. */
struct pair {
    lim__os *os;
    lim__poller *p;
    int listener, client, server;
    uint16_t port;
};

static bool wait_for(struct pair *t, int fd, uint32_t interest)
{
    lim__io_event ev;
    assert_int_equal(t->os->poller_set(t->os, t->p, fd, interest, t), 0);
    int n = t->os->poller_wait(t->os, t->p, &ev, 1, LONG_NS);
    assert_int_equal(t->os->poller_set(t->os, t->p, fd, 0, NULL), 0);
    return n == 1 && ev.ctx == t && (ev.ready & interest);
}

static void pair_open(struct pair *t, const char *host)
{
    char peer[64];
    t->os = lim__os_linux();
    t->p = t->os->poller_open(t->os);
    assert_non_null(t->p);
    t->listener = t->os->listen(t->os, host, 0, &t->port);
    assert_true(t->listener >= 0);
    assert_true(t->port > 0);
    assert_int_equal(t->os->accept(t->os, t->listener, peer, sizeof peer), -EAGAIN);
    t->client = t->os->connect(t->os, host, t->port);
    assert_true(t->client >= 0);
    assert_true(wait_for(t, t->client, LIM__IO_WRITE));
    assert_int_equal(t->os->connect_result(t->os, t->client), 0);
    assert_true(wait_for(t, t->listener, LIM__IO_READ));
    t->server = t->os->accept(t->os, t->listener, peer, sizeof peer);
    assert_true(t->server >= 0);
    assert_non_null(strrchr(peer, ':'));
}

static void pair_close(struct pair *t)
{
    t->os->close(t->os, t->client);
    t->os->close(t->os, t->server);
    t->os->close(t->os, t->listener);
    t->os->poller_close(t->os, t->p);
}

static void echo_over(const char *host)
{
    struct pair t;
    char buf[16];
    pair_open(&t, host);
    assert_int_equal(t.os->recv(t.os, t.server, buf, sizeof buf), -EAGAIN);
    assert_int_equal(t.os->send(t.os, t.client, "hello", 5), 5);
    assert_true(wait_for(&t, t.server, LIM__IO_READ));
    assert_int_equal(t.os->recv(t.os, t.server, buf, sizeof buf), 5);
    assert_int_equal(t.os->send(t.os, t.server, buf, 5), 5);
    assert_true(wait_for(&t, t.client, LIM__IO_READ));
    memset(buf, 0, sizeof buf);
    assert_int_equal(t.os->recv(t.os, t.client, buf, sizeof buf), 5);
    assert_string_equal(buf, "hello");
    t.os->shutdown_write(t.os, t.client);
    assert_true(wait_for(&t, t.server, LIM__IO_READ));
    assert_int_equal(t.os->recv(t.os, t.server, buf, sizeof buf), 0);
    pair_close(&t);
}

static void test_bytes_go_there_and_back_and_an_end_is_seen(void **state)
{
    (void)state;
    echo_over("127.0.0.1");
    echo_over("localhost");
}

static void test_ipv6_works_where_the_machine_has_it(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    int fd = os->listen(os, "::1", 0, NULL);
    if (fd < 0)
        skip();
    os->close(os, fd);
    echo_over("::1");
    echo_over("[::1]");
}

static void test_names_are_not_resolved(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    assert_int_equal(os->connect(os, "example.org", 1), -EINVAL);
    assert_int_equal(os->listen(os, "[::1", 0, NULL), -EINVAL);
    assert_int_equal(os->listen(os, NULL, 0, NULL), -EINVAL);
}

static void test_a_connection_to_nobody_is_refused(void **state)
{
    (void)state;
    struct pair t;
    pair_open(&t, "127.0.0.1");
    t.os->close(t.os, t.listener);
    t.listener = -1;
    int fd = t.os->connect(t.os, "127.0.0.1", t.port);
    if (fd >= 0) {
        assert_true(wait_for(&t, fd, LIM__IO_WRITE));
        assert_int_equal(t.os->connect_result(t.os, fd), -ECONNREFUSED);
        t.os->close(t.os, fd);
    } else {
        assert_int_equal(fd, -ECONNREFUSED);
    }
    pair_close(&t);
}

static void test_a_full_socket_takes_part_then_nothing_and_says_when_there_is_room(void **state)
{
    (void)state;
    struct pair t;
    lim__io_event ev;
    pair_open(&t, "127.0.0.1");
    size_t size = 1 << 20, sent = 0, got = 0;
    char *block = calloc(1, size);
    assert_non_null(block);
    long n;
    while ((n = t.os->send(t.os, t.client, block, size)) > 0)
        sent += (size_t)n;
    assert_int_equal(n, -EAGAIN);
    assert_int_equal(t.os->poller_set(t.os, t.p, t.client, LIM__IO_WRITE, &t), 0);
    assert_int_equal(t.os->poller_wait(t.os, t.p, &ev, 1, 0), 0);
    while (got < sent && wait_for(&t, t.server, LIM__IO_READ)) {
        n = t.os->recv(t.os, t.server, block, size);
        assert_true(n > 0);
        got += (size_t)n;
        if (t.os->poller_wait(t.os, t.p, &ev, 1, 0) == 1)
            break;
    }
    assert_int_equal(t.os->poller_wait(t.os, t.p, &ev, 1, LONG_NS), 1);
    assert_int_equal(ev.ready, LIM__IO_WRITE);
    free(block);
    pair_close(&t);
}

static void test_sending_to_a_closed_peer_is_an_error_not_a_signal(void **state)
{
    (void)state;
    struct pair t;
    pair_open(&t, "127.0.0.1");
    t.os->close(t.os, t.server);
    t.server = -1;
    long n = t.os->send(t.os, t.client, "x", 1);
    if (n == 1) { /* the first one finds out */
        assert_true(wait_for(&t, t.client, LIM__IO_READ));
        while ((n = t.os->send(t.os, t.client, "x", 1)) == 1)
            ;
    }
    assert_true(n == -EPIPE || n == -ECONNRESET);
    pair_close(&t);
}

static void test_interest_can_be_changed_and_removed(void **state)
{
    (void)state;
    struct pair t;
    lim__io_event ev[4];
    int a, b;
    pair_open(&t, "127.0.0.1");
    assert_int_equal(t.os->poller_set(t.os, t.p, t.client, LIM__IO_READ, &a), 0);
    assert_int_equal(t.os->poller_wait(t.os, t.p, ev, 4, 0), 0);
    assert_int_equal(t.os->poller_set(t.os, t.p, t.client, LIM__IO_READ | LIM__IO_WRITE, &a), 0);
    assert_int_equal(t.os->poller_wait(t.os, t.p, ev, 4, 0), 1);
    assert_int_equal(ev[0].ready, LIM__IO_WRITE);
    assert_int_equal(t.os->poller_set(t.os, t.p, t.client, LIM__IO_READ | LIM__IO_WRITE, &b), 0);
    assert_int_equal(t.os->poller_wait(t.os, t.p, ev, 4, 0), 1);
    assert_ptr_equal(ev[0].ctx, &b);
    assert_int_equal(t.os->poller_set(t.os, t.p, t.client, 0, NULL), 0);
    assert_int_equal(t.os->poller_set(t.os, t.p, t.client, 0, NULL), 0);
    assert_int_equal(t.os->poller_wait(t.os, t.p, ev, 4, 0), 0);
    assert_int_equal(t.os->poller_set(t.os, t.p, -1, LIM__IO_READ, NULL), -EBADF);
    pair_close(&t);
}

static void test_a_number_that_was_closed_unremoved_can_be_watched_again(void **state)
{
    (void)state;
    struct pair t;
    lim__io_event ev;
    pair_open(&t, "127.0.0.1");
    assert_int_equal(t.os->poller_set(t.os, t.p, t.server, LIM__IO_READ, &t), 0);
    t.os->close(t.os, t.server);
    int again = dup(t.client); /* takes the lowest free number: the same one */
    assert_int_equal(again, t.server);
    assert_int_equal(t.os->poller_set(t.os, t.p, again, LIM__IO_READ, &t), 0);
    assert_int_equal(t.os->poller_wait(t.os, t.p, &ev, 1, LONG_NS), 1); /* the end of what was closed */
    pair_close(&t);
}

static void *wake_it(void *arg)
{
    lim__poller *p = arg;
    lim__os *os = lim__os_linux();
    os->poller_wake(os, p);
    return NULL;
}

static void test_a_wake_from_another_thread_ends_the_wait(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    lim__poller *p = os->poller_open(os);
    lim__io_event ev;
    assert_non_null(p);
    for (int i = 0; i < 200; i++) {
        lim__thread t;
        uint64_t before = os->now_ns(os);
        assert_int_equal(lim__thread_start(&t, "wake", wake_it, p), 0);
        assert_int_equal(os->poller_wait(os, p, &ev, 1, LONG_NS), 0);
        assert_true(os->now_ns(os) - before < (uint64_t)LONG_NS);
        lim__thread_join(t);
    }
    os->poller_close(os, p);
}

static void test_a_wake_before_the_wait_is_not_lost_and_counts_once(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    lim__poller *p = os->poller_open(os);
    lim__io_event ev;
    os->poller_wake(os, p);
    os->poller_wake(os, p);
    struct pollfd outside = { .fd = os->poller_fd(os, p), .events = POLLIN };
    assert_int_equal(poll(&outside, 1, 0), 1);
    uint64_t before = os->now_ns(os);
    assert_int_equal(os->poller_wait(os, p, &ev, 1, LONG_NS), 0);
    assert_true(os->now_ns(os) - before < (uint64_t)LONG_NS);
    before = os->now_ns(os);
    assert_int_equal(os->poller_wait(os, p, &ev, 1, 2 * MS), 0);
    assert_true(os->now_ns(os) - before >= 2 * MS);
    assert_int_equal(poll(&outside, 1, 0), 0);
    os->poller_close(os, p);
}

static void test_a_wait_of_microseconds_is_not_early_and_not_a_millisecond(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    lim__poller *p = os->poller_open(os);
    lim__io_event ev;
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 50; i++) {
        uint64_t before = os->now_ns(os);
        assert_int_equal(os->poller_wait(os, p, &ev, 1, 100000), 0);
        uint64_t took = os->now_ns(os) - before;
        assert_true(took >= 100000);
        best = took < best ? took : best;
    }
    assert_true(best < MS);
    os->poller_close(os, p);
}

static void test_clocks_run_and_chance_differs(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    uint64_t before = os->now_ns(os);
    assert_true(os->now_ns(os) >= before);
    assert_true(os->wall_ns(os) > 1700000000000000000u);
    uint64_t seen[200];
    for (size_t i = 0; i < LIM_COUNT(seen); i++) {
        seen[i] = os->random(os);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(seen[k], seen[i]);
    }
}

static void test_a_forked_program_draws_other_numbers(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    int ends[2];
    uint64_t theirs;
    os->random(os);
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uint64_t mine = os->random(os);
        _exit(write(ends[1], &mine, sizeof mine) == sizeof mine ? 0 : 1);
    }
    assert_int_equal(read(ends[0], &theirs, sizeof theirs), sizeof theirs);
    assert_int_not_equal(os->random(os), theirs);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_go_there_and_back_and_an_end_is_seen),
        cmocka_unit_test(test_ipv6_works_where_the_machine_has_it),
        cmocka_unit_test(test_names_are_not_resolved),
        cmocka_unit_test(test_a_connection_to_nobody_is_refused),
        cmocka_unit_test(test_a_full_socket_takes_part_then_nothing_and_says_when_there_is_room),
        cmocka_unit_test(test_sending_to_a_closed_peer_is_an_error_not_a_signal),
        cmocka_unit_test(test_interest_can_be_changed_and_removed),
        cmocka_unit_test(test_a_number_that_was_closed_unremoved_can_be_watched_again),
        cmocka_unit_test(test_a_wake_from_another_thread_ends_the_wait),
        cmocka_unit_test(test_a_wake_before_the_wait_is_not_lost_and_counts_once),
        cmocka_unit_test(test_a_wait_of_microseconds_is_not_early_and_not_a_millisecond),
        cmocka_unit_test(test_clocks_run_and_chance_differs),
        cmocka_unit_test(test_a_forked_program_draws_other_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
