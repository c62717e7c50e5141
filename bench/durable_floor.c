/* SPDX-License-Identifier: Apache-2.0
 * durable_floor.c - the least that a server can do which answers when a message is on the disk: what can be had at all.
 *
 *      client --TCP--> thread: recv, copy --buffer--> thread: pwrite, fdatasync, send how many
 *
 * Two threads, because one that waits for the disk must not keep connections waiting; two buffers, so that one fills
 * while the other is on its way. There is no channel, no number, no checksum, no index, nothing can be read back, and
 * nothing can go wrong. Its client is that of all others (durable_tcp.c): a table of functions for a protocol of {u32
 * length, payload} one way and {u32 how many} the other. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 4096, FILE_BYTES = 32 << 20, BUFFER = 8 << 20, READ = 256 << 10, HEAD = 4 };

/* ---- the client's table ---- */

static void greet(bench_conn *c)
{
    (void)c;
}

static void create(bench_conn *c, const char *channel)
{
    (void)c, (void)channel;
}

static void put_publish(lim__buf *out, const char *channel, size_t size)
{
    uint32_t length = (uint32_t)size;
    (void)channel;
    lim__buf_add(out, &length, HEAD);
    uint8_t *p = lim__buf_reserve(out, size);
    if (p == NULL)
        bench_die("out of memory");
    memset(p, 'x', size);
    out->end += size;
}

static void number(uint8_t *batch, size_t stride, size_t count, uint64_t first)
{
    (void)batch, (void)stride, (void)count, (void)first;
}

static const uint8_t *take(bench_conn *c, const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= HEAD; p += HEAD) {
        uint32_t count;
        memcpy(&count, p, HEAD);
        c->answered += count;
    }
    return p;
}

const bench_peer bench_floor = { .name = "bare",
                                 .greet = greet,
                                 .put_publish = put_publish,
                                 .number = number,
                                 .take = take,
                                 .class = "disk",
                                 .create = create };

/* ---- the server ---- */

typedef struct buffer {
    uint8_t *bytes; /* BUFFER, aligned */
    size_t len;
    uint32_t count;
} buffer;

typedef struct server {
    int sock, file;
    off_t at;
    pthread_mutex_t lock;
    pthread_cond_t filled;
    buffer *filling, *writing; /* filling: under the lock */
    buffer two[2];
} server;

static void commit(server *s, buffer *b)
{
    size_t total = (b->len + BLOCK - 1) / BLOCK * BLOCK;
    if (s->at + (off_t)total > FILE_BYTES)
        s->at = 0;
    if (pwrite(s->file, b->bytes, total, s->at) != (ssize_t)total || fdatasync(s->file) != 0 ||
        send(s->sock, &b->count, HEAD, MSG_NOSIGNAL) != HEAD)
        _exit(1);
    s->at += (off_t)total;
    b->len = b->count = 0;
}

static void *disk(void *arg)
{
    server *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (s->filling->count == 0)
            pthread_cond_wait(&s->filled, &s->lock);
        buffer *b = s->filling;
        s->filling = s->writing;
        s->writing = b;
        pthread_mutex_unlock(&s->lock);
        commit(s, b);
    }
    return NULL;
}

/* The whole ones among these bytes; answers where the rest begins. */
static size_t keep(server *s, const uint8_t *bytes, size_t len)
{
    size_t pos = 0;
    uint32_t length;
    pthread_mutex_lock(&s->lock);
    buffer *b = s->filling;
    bool first = b->count == 0;
    for (; len - pos >= HEAD; pos += HEAD + length, b->count++) {
        memcpy(&length, bytes + pos, HEAD);
        if (len - pos - HEAD < length)
            break;
        if (b->len + HEAD + length > BUFFER)
            _exit(1);
        memcpy(b->bytes + b->len, bytes + pos, HEAD + length);
        b->len += HEAD + length;
    }
    first = first && b->count > 0;
    pthread_mutex_unlock(&s->lock);
    if (first)
        pthread_cond_signal(&s->filled);
    return pos;
}

static _Noreturn void serve(server *s)
{
    static uint8_t in[READ];
    pthread_t thread;
    size_t have = 0;
    if (pthread_create(&thread, NULL, disk, s) != 0)
        _exit(1);
    for (;;) {
        ssize_t n = recv(s->sock, in + have, READ - have, 0);
        if (n <= 0)
            _exit(0); /* the client is done */
        have += (size_t)n;
        size_t done = keep(s, in, have);
        memmove(in, in + done, have - done);
        have -= done;
    }
}

static char path[4200];

static void open_file(server *s, const char *dir)
{
    snprintf(path, sizeof path, "%.4000s/bench-floor-XXXXXX", dir);
    int named = mkstemp(path);
    if (named < 0 || (s->file = open(path, O_RDWR | O_DIRECT)) < 0)
        bench_die("no file in %s past the page cache: %s", dir, strerror(errno));
    close(named);
    for (int i = 0; i < 2; i++) {
        void *bytes;
        if (posix_memalign(&bytes, BLOCK, BUFFER) != 0)
            bench_die("out of memory");
        memset(bytes, 0, BUFFER);
        s->two[i].bytes = bytes;
    }
    for (off_t at = 0; at < FILE_BYTES; at += BUFFER)
        if (pwrite(s->file, s->two[0].bytes, BUFFER, at) != BUFFER)
            bench_die("%s cannot be written: %s", path, strerror(errno));
    if (fsync(s->file) != 0)
        bench_die("%s cannot be synced: %s", path, strerror(errno));
}

static int listen_somewhere(uint16_t *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) != 0 || listen(fd, 1) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        bench_die("nothing can be listened on: %s", strerror(errno));
    *port = ntohs(at.sin_port);
    return fd;
}

pid_t bench_floor_start(const char *dir, uint16_t *port)
{
    server s = { .lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER };
    int one = 1, listener = listen_somewhere(port);
    open_file(&s, dir);
    s.filling = &s.two[0];
    s.writing = &s.two[1];
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        s.sock = accept(listener, NULL, NULL);
        (void)setsockopt(s.sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        serve(&s);
    }
    close(listener);
    close(s.file);
    free(s.two[0].bytes);
    free(s.two[1].bytes);
    return pid;
}

void bench_floor_stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    unlink(path);
}
