/* SPDX-License-Identifier: Apache-2.0
 * contract_test.c - one list of tests for both os tables: what the simulated TCP and disk do, the kernel's do too.
 *
 * Each test gets two programs and may wait until a descriptor is ready; on the kernel that is a wait, in the simulator
 * the clock is moved until it is so. */
#include "sim/sim_os.h"
#include "base/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
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

/* ---- files ---- */

struct disk {
    lim__sim *sim; /* NULL: the kernel */
    lim__os *os;
    char dir[160], path[200]; /* path: what `at` wrote last */
};

static const char *at(struct disk *d, const char *name)
{
    snprintf(d->path, sizeof d->path, "%s/%s", d->dir, name);
    return d->path;
}

static int kernel_disk(void **state)
{
    static struct disk d;
    const char *parent = getenv("TMPDIR");
    d = (struct disk){ .os = lim__os_linux() };
    *state = &d;
    snprintf(d.dir, sizeof d.dir, "%s/lim-contract-XXXXXX", parent && *parent ? parent : "/tmp");
    return mkdtemp(d.dir) ? 0 : -1;
}

static int sim_disk(void **state)
{
    static struct disk d;
    static uint64_t seed;
    d = (struct disk){ .sim = lim__sim_open(++seed) };
    d.os = lim__sim_host(d.sim, "machine");
    snprintf(d.dir, sizeof d.dir, "/data");
    *state = &d;
    return d.os->dir_create(d.os, d.dir);
}

static void remove_entry(void *ctx, const char *name)
{
    struct disk *d = ctx;
    if (d->os->file_remove(d->os, at(d, name)) != 0)
        rmdir(d->path);
}

static int end_disk(void **state)
{
    struct disk *d = *state;
    int err = d->os->dir_list(d->os, d->dir, remove_entry, d);
    if (!d->sim)
        err = err ? err : rmdir(d->dir);
    lim__sim_close(d->sim);
    return err;
}

static int open_file(struct disk *d, const char *name, uint32_t flags)
{
    return d->os->file_open(d->os, at(d, name), flags);
}

static int make_file(struct disk *d, const char *name)
{
    int file = open_file(d, name, LIM__FILE_WRITE | LIM__FILE_CREATE);
    assert_true(file >= 0);
    return file;
}

static void put_text(struct disk *d, int file, const char *text, uint64_t offset)
{
    for (size_t len = strlen(text), done = 0; done < len;) {
        long n = d->os->file_write(d->os, file, text + done, len - done, offset + done);
        assert_true(n > 0);
        done += (size_t)n;
    }
}

static void assert_text(struct disk *d, int file, const char *text, uint64_t offset)
{
    char buf[64] = "";
    assert_int_equal(d->os->file_read(d->os, file, buf, strlen(text), offset), strlen(text));
    assert_memory_equal(buf, text, strlen(text));
}

static void test_bytes_are_read_where_they_were_written(void **state)
{
    struct disk *d = *state;
    char buf[64];
    int file = make_file(d, "file");
    assert_int_equal(d->os->file_size(d->os, file), 0);
    assert_int_equal(d->os->file_read(d->os, file, buf, sizeof buf, 0), 0);
    put_text(d, file, "hello", 10000);
    assert_int_equal(d->os->file_size(d->os, file), 10005);
    assert_int_equal(d->os->file_read(d->os, file, buf, sizeof buf, 9995), 10);
    assert_memory_equal(buf, "\0\0\0\0\0hello", 10);
    put_text(d, file, "HE", 10000);
    assert_text(d, file, "HEllo", 10000);
    assert_int_equal(d->os->file_read(d->os, file, buf, sizeof buf, 10005), 0);
    assert_int_equal(d->os->file_read(d->os, file, buf, sizeof buf, 1 << 30), 0);
    assert_int_equal(d->os->file_write(d->os, file, buf, 0, 50000), 0);
    assert_int_equal(d->os->file_sync(d->os, file), 0);
    assert_int_equal(d->os->file_size(d->os, file), 10005);
    d->os->file_close(d->os, file);
    file = open_file(d, "file", 0);
    assert_text(d, file, "HEllo", 10000);
    d->os->file_close(d->os, file);
}

static void test_opening_says_why_not(void **state)
{
    struct disk *d = *state;
    assert_int_equal(open_file(d, "file", LIM__FILE_WRITE), -ENOENT);
    assert_int_equal(open_file(d, "no/file", LIM__FILE_WRITE | LIM__FILE_CREATE), -ENOENT);
    int file = open_file(d, "file", LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_EXCLUSIVE);
    assert_true(file >= 0);
    put_text(d, file, "kept", 0);
    d->os->file_close(d->os, file);
    assert_int_equal(open_file(d, "file", LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_EXCLUSIVE), -EEXIST);
    assert_int_equal(open_file(d, "file/below", LIM__FILE_WRITE | LIM__FILE_CREATE), -ENOTDIR);
    assert_int_equal(d->os->file_open(d->os, d->dir, 0), -EISDIR);
    assert_int_equal(d->os->file_open(d->os, d->dir, LIM__FILE_WRITE), -EISDIR);
    assert_int_equal(d->os->file_open(d->os, "", 0), -ENOENT);
    file = open_file(d, "file", LIM__FILE_CREATE);
    assert_text(d, file, "kept", 0);
    assert_int_equal(d->os->file_write(d->os, file, "x", 1, 0), -EBADF);
    assert_int_equal(d->os->file_truncate(d->os, file, 0), -EINVAL);
    d->os->file_close(d->os, file);
}

static void test_a_closed_handle_is_ebadf(void **state)
{
    struct disk *d = *state;
    char byte;
    int file = make_file(d, "file");
    d->os->file_close(d->os, file);
    d->os->file_close(d->os, -1);
    assert_int_equal(d->os->file_read(d->os, file, &byte, 1, 0), -EBADF);
    assert_int_equal(d->os->file_write(d->os, file, "x", 1, 0), -EBADF);
    assert_int_equal(d->os->file_sync(d->os, file), -EBADF);
    assert_int_equal(d->os->file_size(d->os, file), -EBADF);
    assert_int_equal(d->os->file_truncate(d->os, file, 1), -EBADF);
    assert_int_equal(d->os->file_lock(d->os, file), -EBADF);
}

static void test_what_was_cut_off_is_zeros_when_it_is_there_again(void **state)
{
    struct disk *d = *state;
    char buf[8];
    int file = make_file(d, "file");
    put_text(d, file, "0123456789", 8190);
    assert_int_equal(d->os->file_truncate(d->os, file, 8192), 0);
    assert_int_equal(d->os->file_size(d->os, file), 8192);
    assert_int_equal(d->os->file_truncate(d->os, file, 8196), 0);
    assert_int_equal(d->os->file_read(d->os, file, buf, sizeof buf, 8190), 6);
    assert_memory_equal(buf, "01\0\0\0\0", 6);
    assert_int_equal(d->os->file_truncate(d->os, file, 0), 0);
    put_text(d, file, "x", 8190);
    assert_int_equal(d->os->file_read(d->os, file, buf, sizeof buf, 8188), 3);
    assert_memory_equal(buf, "\0\0x", 3);
    d->os->file_close(d->os, file);
}

static void test_a_rename_replaces_and_leaves_open_files_alone(void **state)
{
    struct disk *d = *state;
    char from[sizeof d->path];
    int old = make_file(d, "name"), new = make_file(d, "name.new");
    put_text(d, old, "old", 0);
    put_text(d, new, "new", 0);
    snprintf(from, sizeof from, "%s", at(d, "name.new"));
    assert_int_equal(d->os->file_rename(d->os, from, at(d, "name")), 0);
    assert_int_equal(d->os->file_rename(d->os, from, at(d, "name")), -ENOENT);
    assert_int_equal(d->os->file_rename(d->os, d->path, d->path), 0);
    snprintf(from, sizeof from, "%s", d->path);
    assert_int_equal(d->os->dir_create(d->os, at(d, "dir")), 0);
    assert_int_equal(d->os->file_rename(d->os, from, d->path), -EISDIR);
    assert_text(d, old, "old", 0);
    put_text(d, old, "gone", 0);
    d->os->file_close(d->os, old);
    old = open_file(d, "name", 0);
    assert_text(d, old, "new", 0);
    put_text(d, new, "same", 0);
    assert_text(d, old, "same", 0);
    d->os->file_close(d->os, old);
    d->os->file_close(d->os, new);
}

static void test_a_removed_file_lives_until_it_is_closed(void **state)
{
    struct disk *d = *state;
    int file = make_file(d, "file");
    assert_int_equal(d->os->file_remove(d->os, at(d, "file")), 0);
    assert_int_equal(d->os->file_remove(d->os, at(d, "file")), -ENOENT);
    assert_int_equal(d->os->file_remove(d->os, d->dir), -EISDIR);
    assert_int_equal(open_file(d, "file", 0), -ENOENT);
    put_text(d, file, "still", 0);
    assert_text(d, file, "still", 0);
    assert_int_equal(d->os->file_sync(d->os, file), 0);
    d->os->file_close(d->os, file);
}

static void count_name(void *ctx, const char *name)
{
    assert_int_equal(strlen(name), 1);
    assert_in_range(name[0], 'a', 'e');
    ((int *)ctx)[name[0] - 'a']++;
}

static void test_a_directory_lists_what_is_in_it_once(void **state)
{
    struct disk *d = *state;
    int seen[5] = { 0 }, file;
    assert_int_equal(d->os->dir_create(d->os, at(d, "a")), 0);
    assert_int_equal(d->os->dir_create(d->os, at(d, "a")), 0);
    for (const char *name = "bcd"; *name; name++) {
        file = make_file(d, (char[]){ *name, 0 });
        d->os->file_close(d->os, file);
    }
    file = make_file(d, "a/hidden");
    d->os->file_close(d->os, file);
    assert_int_equal(d->os->file_remove(d->os, at(d, "c")), 0);
    assert_int_equal(d->os->dir_list(d->os, d->dir, count_name, seen), 0);
    assert_memory_equal(seen, ((int[]){ 1, 1, 0, 1, 0 }), sizeof seen);
    assert_int_equal(d->os->dir_list(d->os, at(d, "e"), count_name, seen), -ENOENT);
    assert_int_equal(d->os->dir_list(d->os, at(d, "b"), count_name, seen), -ENOTDIR);
    assert_int_equal(d->os->dir_create(d->os, at(d, "b")), -ENOTDIR);
    assert_int_equal(d->os->dir_create(d->os, at(d, "e/e")), -ENOENT);
    assert_int_equal(d->os->dir_sync(d->os, d->dir), 0);
    assert_int_equal(d->os->dir_sync(d->os, at(d, "e")), -ENOENT);
    assert_int_equal(d->os->dir_sync(d->os, at(d, "b")), -ENOTDIR);
    assert_int_equal(d->os->file_remove(d->os, at(d, "a/hidden")), 0);
}

static void test_a_lock_is_one_handles_until_it_is_closed(void **state)
{
    struct disk *d = *state;
    int mine = make_file(d, "file"), other = open_file(d, "file", 0), third = open_file(d, "file", 0);
    assert_int_equal(d->os->file_lock(d->os, mine), 0);
    assert_int_equal(d->os->file_lock(d->os, mine), 0);
    assert_int_equal(d->os->file_lock(d->os, other), -EAGAIN);
    d->os->file_close(d->os, third);
    assert_int_equal(d->os->file_lock(d->os, other), -EAGAIN);
    d->os->file_close(d->os, mine);
    assert_int_equal(d->os->file_lock(d->os, other), 0);
    d->os->file_close(d->os, other);
}

static void test_direct_and_cached_handles_see_the_same_file(void **state)
{
    struct disk *d = *state;
    char *block = aligned_alloc(LIM__FILE_BLOCK, 2 * LIM__FILE_BLOCK);
    assert_non_null(block);
    int cached = make_file(d, "file"), direct = open_file(d, "file", LIM__FILE_WRITE | LIM__FILE_DIRECT);
    memset(block, 'd', 2 * LIM__FILE_BLOCK);
    for (size_t done = 0; done < 2 * LIM__FILE_BLOCK;) {
        long n = d->os->file_write(d->os, direct, block + done, 2 * LIM__FILE_BLOCK - done, done);
        assert_true(n > 0 && n % LIM__FILE_BLOCK == 0);
        done += (size_t)n;
    }
    assert_text(d, cached, "dd", 2 * LIM__FILE_BLOCK - 2);
    put_text(d, cached, "cached", LIM__FILE_BLOCK - 3);
    assert_int_equal(d->os->file_truncate(d->os, cached, 2 * LIM__FILE_BLOCK - 1), 0);
    assert_int_equal(d->os->file_read(d->os, direct, block, 2 * LIM__FILE_BLOCK, 0), 2 * LIM__FILE_BLOCK - 1);
    assert_memory_equal(block + LIM__FILE_BLOCK - 4, "dcachedd", 8);
    assert_int_equal(d->os->file_sync(d->os, direct), 0);
    d->os->file_close(d->os, direct);
    d->os->file_close(d->os, cached);
    free(block);
}

static void test_free_space_is_asked_by_path(void **state)
{
    struct disk *d = *state;
    assert_true(d->os->disk_free(d->os, d->dir) > 0);
    assert_int_equal(d->os->disk_free(d->os, at(d, "none")), -ENOENT);
}

#define LIST(world)                                                                                                    \
    CASE(test_bytes_go_both_ways, world), CASE(test_a_clean_close_is_bytes_then_an_end_then_a_broken_pipe, world),     \
        CASE(test_closing_with_unread_bytes_resets, world), CASE(test_received_bytes_survive_a_reset, world),          \
        CASE(test_half_a_close_leaves_the_other_half, world),                                                          \
        CASE(test_a_full_connection_refuses_until_it_is_read, world),                                                  \
        CASE(test_a_reader_that_never_reads_is_given_up, world), CASE(test_nobody_there_is_refused, world),            \
        CASE(test_closing_a_listener_resets_who_waits_in_it, world)
#define CASE(test, world) cmocka_unit_test_setup_teardown(test, world, end_world)
#define FILES(disk)                                                                                                    \
    FILE_CASE(test_bytes_are_read_where_they_were_written, disk), FILE_CASE(test_opening_says_why_not, disk),          \
        FILE_CASE(test_a_closed_handle_is_ebadf, disk),                                                                \
        FILE_CASE(test_what_was_cut_off_is_zeros_when_it_is_there_again, disk),                                        \
        FILE_CASE(test_a_rename_replaces_and_leaves_open_files_alone, disk),                                           \
        FILE_CASE(test_a_removed_file_lives_until_it_is_closed, disk),                                                 \
        FILE_CASE(test_a_directory_lists_what_is_in_it_once, disk),                                                    \
        FILE_CASE(test_a_lock_is_one_handles_until_it_is_closed, disk),                                                \
        FILE_CASE(test_direct_and_cached_handles_see_the_same_file, disk),                                             \
        FILE_CASE(test_free_space_is_asked_by_path, disk)
#define FILE_CASE(test, disk) cmocka_unit_test_setup_teardown(test, disk, end_disk)

int main(void)
{
    const struct CMUnitTest kernel[] = { LIST(kernel_world), FILES(kernel_disk) },
                            simulated[] = { LIST(sim_world), FILES(sim_disk) };
    int failed = cmocka_run_group_tests(kernel, NULL, NULL);
    for (int seeds = 0; seeds < 30; seeds++)
        failed += cmocka_run_group_tests(simulated, NULL, NULL);
    return failed;
}
