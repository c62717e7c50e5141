/* SPDX-License-Identifier: Apache-2.0
 * socket.c - TCP for the Linux table.
 *
 * Addresses are numeric or "localhost" (127.0.0.1): resolving a name may block for seconds, so it is not done here.
 * Every descriptor is born non-blocking and close-on-exec, so that no child process can inherit a connection.
 *
 * recv and send also work on pipes (the ends of a lim__child). That costs nothing on the hot path: the kernel says
 * ENOTSOCK and only then is read or write tried, the latter with SIGPIPE held back. */
#include "os/linux.h"
#include "base/base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
};

static int parse(const char *host, uint16_t port, union address *out, socklen_t *len)
{
    if (!host)
        return -EINVAL;
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, host, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(port);
        *len = sizeof out->v4;
        return 0;
    }
    char bare[INET6_ADDRSTRLEN + 2];
    size_t n = strlen(host);
    if (n >= 2 && n < sizeof bare && host[0] == '[' && host[n - 1] == ']') {
        memcpy(bare, host + 1, n - 2);
        bare[n - 2] = 0;
        host = bare;
    }
    if (inet_pton(AF_INET6, host, &out->v6.sin6_addr) != 1)
        return -EINVAL;
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    *len = sizeof out->v6;
    return 0;
}

static void print_address(const union address *a, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (!text || size == 0)
        return;
    if (a->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host);
        snprintf(text, size, "[%s]:%u", host, ntohs(a->v6.sin6_port));
    } else {
        inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host);
        snprintf(text, size, "%s:%u", host, ntohs(a->v4.sin_port));
    }
}

static void set_int(int fd, int level, int name, int value)
{
    int failed = setsockopt(fd, level, name, &value, sizeof value);
    (void)failed; /* on a socket that has failed already; the next recv or send will say so */
}

static int close_with(int fd, int err)
{
    close(fd);
    return err;
}

int lim__linux_listen(lim__os *os, const char *host, uint16_t port, uint16_t *port_out)
{
    (void)os;
    union address a;
    socklen_t len;
    int err = parse(host, port, &a, &len);
    if (err != 0)
        return err;
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    len = a.any.sa_family == AF_INET ? sizeof a.v4 : sizeof a.v6;
    if (bind(fd, &a.any, len) != 0 || listen(fd, SOMAXCONN) != 0)
        return close_with(fd, -errno);
    len = sizeof a;
    if (getsockname(fd, &a.any, &len) != 0)
        return close_with(fd, -errno);
    if (port_out)
        *port_out = ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
    return fd;
}

int lim__linux_accept(lim__os *os, int listener, char *peer, size_t peer_size)
{
    (void)os;
    union address a;
    for (;;) {
        socklen_t len = sizeof a;
        memset(&a, 0, sizeof a);
        int fd = accept4(listener, &a.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
            print_address(&a, peer, peer_size);
            return fd;
        }
        /* These are about one connection that died in the queue: the next may be well. */
        if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)
            return -errno;
    }
}

int lim__linux_connect(lim__os *os, const char *host, uint16_t port)
{
    (void)os;
    union address a;
    socklen_t len;
    int err = parse(host, port, &a, &len);
    if (err != 0)
        return err;
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (connect(fd, &a.any, len) != 0 && errno != EINPROGRESS && errno != EINTR)
        return close_with(fd, -errno);
    return fd;
}

/* A connection to a local port that nobody listens on can meet itself, when the kernel gives it that same port as its
 * own. Someone who keeps trying to reach a dead server gets there in the end, and would talk to himself. */
static bool connected_to_itself(int fd, const union address *peer, socklen_t peer_len)
{
    union address self;
    socklen_t len = sizeof self;
    memset(&self, 0, sizeof self);
    if (getsockname(fd, &self.any, &len) != 0 || len != peer_len)
        return false;
    return memcmp(&self, peer, len) == 0;
}

int lim__linux_connect_result(lim__os *os, int fd)
{
    (void)os;
    int err = 0;
    socklen_t len = sizeof err;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        return -errno;
    if (err != 0)
        return -err;
    union address peer;
    len = sizeof peer;
    memset(&peer, 0, sizeof peer);
    if (getpeername(fd, &peer.any, &len) != 0)
        return errno == ENOTCONN ? -EINPROGRESS : -errno;
    return connected_to_itself(fd, &peer, len) ? -ECONNREFUSED : 0;
}

static long read_pipe(int fd, void *buf, size_t len)
{
    ssize_t n;
    do
        n = read(fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

long lim__linux_recv(lim__os *os, int fd, void *buf, size_t len)
{
    (void)os;
    ssize_t n;
    do
        n = recv(fd, buf, len, 0);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    return errno == ENOTSOCK ? read_pipe(fd, buf, len) : -errno;
}

/* A write to a pipe has no MSG_NOSIGNAL: the signal is blocked and, if this write raised it, taken away again. */
static long write_pipe(int fd, const void *buf, size_t len)
{
    sigset_t pipe_only, before, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    ssize_t n;
    do
        n = write(fd, buf, len);
    while (n < 0 && errno == EINTR);
    long result = n < 0 ? -errno : n;
    if (result == -EPIPE && !sigismember(&pending, SIGPIPE)) {
        const struct timespec at_once = { 0 };
        while (sigtimedwait(&pipe_only, NULL, &at_once) < 0 && errno == EINTR)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

long lim__linux_send(lim__os *os, int fd, const void *buf, size_t len)
{
    (void)os;
    ssize_t n;
    do
        n = send(fd, buf, len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    return errno == ENOTSOCK ? write_pipe(fd, buf, len) : -errno;
}

void lim__linux_shutdown_write(lim__os *os, int fd)
{
    (void)os;
    int failed = shutdown(fd, SHUT_WR);
    (void)failed; /* ENOTCONN: the peer was faster */
}

void lim__linux_close(lim__os *os, int fd)
{
    (void)os;
    if (fd >= 0)
        close(fd);
}

/* Three unanswered probes end a silent connection, and so does data that stays unacknowledged for user_timeout_ms,
 * which also bounds the probing. The kernel counts probes in whole seconds. */
void lim__linux_set_liveness(lim__os *os, int fd, uint32_t idle_ms, uint32_t user_timeout_ms)
{
    (void)os;
    int idle_s = idle_ms == 0 ? 1 : (int)((idle_ms - 1) / 1000 + 1);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, idle_s);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms > INT32_MAX ? INT32_MAX : (int)user_timeout_ms);
}
