/* SPDX-License-Identifier: Apache-2.0
 * peer.c - connections, clocks and results of bench-tcp: what is the same whichever server is measured. */
#include "peer.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void bench_die(const char *format, ...)
{
    va_list args;
    fputs("bench-tcp: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    _exit(1);
}

const char *bench_class = "";

void bench_result(double value, const char *unit, const char *format, ...)
{
    va_list args;
    fputs("RESULT ", stdout);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(" %.3f %s %s\n", value, unit, bench_class);
    fflush(stdout);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void bench_percentiles(uint64_t *ns, size_t count, const char *name)
{
    qsort(ns, count, sizeof *ns, by_value);
    bench_result((double)ns[count / 2] / 1e3, "us", "%s.p50", name);
    bench_result((double)ns[count * 99 / 100] / 1e3, "us", "%s.p99", name);
    if (count >= 10000)
        bench_result((double)ns[count * 999 / 1000] / 1e3, "us", "%s.p999", name);
}

/* ---- the server, from outside ---- */

/* Sums over the server's threads what `read` finds in the file `leaf` of each. */
static uint64_t over_threads(const char *leaf, uint64_t (*read)(FILE *f))
{
    char path[300];
    uint64_t sum = 0;
    const char *pid = getenv("SERVER_PID");
    if (pid == NULL)
        return 0;
    snprintf(path, sizeof path, "/proc/%.20s/task", pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        bench_die("no process %s ($SERVER_PID)", pid);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        snprintf(path, sizeof path, "/proc/%.20s/task/%.20s/%.20s", pid, e->d_name, leaf);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (f == NULL)
            continue;
        sum += read(f);
        fclose(f);
    }
    closedir(dir);
    return sum;
}

static uint64_t read_cpu(FILE *f)
{
    unsigned long long ns = 0;
    return fscanf(f, "%llu", &ns) == 1 ? ns : 0;
}

static uint64_t read_wakes(FILE *f)
{
    char line[256];
    unsigned long long count = 0;
    while (fgets(line, sizeof line, f) != NULL && sscanf(line, "voluntary_ctxt_switches: %llu", &count) != 1)
        continue;
    return count;
}

uint64_t bench_server_cpu_ns(void)
{
    return over_threads("schedstat", read_cpu);
}

uint64_t bench_server_wakes(void)
{
    return over_threads("status", read_wakes);
}

/* ---- connections ---- */

static int dial(uint16_t port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        bench_die("cannot connect to port %u: %s", port, strerror(errno));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

bench_conn *bench_connect(const bench_peer *peer, uint16_t port, uint32_t index)
{
    bench_conn *c = calloc(1, sizeof *c);
    uint8_t *in = malloc(BENCH_IN);
    if (c == NULL || in == NULL)
        bench_die("out of memory");
    c->peer = peer;
    c->fd = dial(port);
    c->index = index;
    c->in = in;
    peer->greet(c);
    return c;
}

void bench_close(bench_conn *c)
{
    close(c->fd);
    lim__buf_fini(&c->out);
    lim__buf_fini(&c->request);
    lim__buf_fini(&c->heard);
    free(c->in);
    free(c);
}

void bench_flush(bench_conn *c)
{
    while (lim__buf_len(&c->out) > 0) {
        lim_bytes bytes = lim__buf_bytes(&c->out);
        ssize_t n = send(c->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            bench_die("the %s server takes nothing any more: %s", c->peer->name, strerror(errno));
        lim__buf_consume(&c->out, n > 0 ? (size_t)n : 0);
    }
}

bool bench_read(bench_conn *c, int flags)
{
    ssize_t n = recv(c->fd, c->in + c->have, BENCH_IN - c->have, flags);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0)
        bench_die("the %s server closed a connection%s%s", c->peer->name, n < 0 ? ": " : "",
                  n < 0 ? strerror(errno) : "");
    const uint8_t *end = c->in + c->have + n, *rest = c->peer->take(c, c->in, end);
    c->have = (size_t)(end - rest);
    if (c->have == BENCH_IN)
        bench_die("a frame is larger than %d bytes", BENCH_IN);
    memmove(c->in, rest, c->have);
    return true;
}
