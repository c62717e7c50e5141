/* SPDX-License-Identifier: Apache-2.0
 * linux.c - the table over Linux: clock, chance and readiness; TCP is in socket.c, files are in file.c.
 *
 * A poller is one epoll instance with one eventfd in it. The eventfd is registered edge-triggered and never read: each
 * write is a new edge, so a wake costs its reader no system call. Interest is remembered in an array indexed by
 * descriptor, which tells ADD from MOD from DEL, and resolves an event to its ctx when the event is handed out: one
 * that was queued before a removal finds nothing and is dropped.
 *
 * Random numbers are drawn from the kernel 256 bytes at a time, per thread; a fork makes every buffer stale, so that
 * parent and child never hand out the same number. */
#include "os/linux.h"
#include "base/base.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, RANDOM_WORDS = 32, SLOTS_MIN = 64 };

struct slot {
    void *ctx;
    uint32_t interest; /* 0: not registered */
};

struct lim__poller {
    int epoll, wakeup;
    struct slot *slots; /* by descriptor; the loop's thread only */
    int slot_count;
    struct epoll_event events[EVENTS_MAX];
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    int failed = clock_gettime(clock, &t);
    LIM_ASSERT(!failed);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(lim__os *os)
{
    (void)os;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t wall_ns(lim__os *os)
{
    (void)os;
    return clock_ns(CLOCK_REALTIME);
}

/* ---- chance ---- */

static _Atomic uint32_t fork_count;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void on_fork(void)
{
    atomic_fetch_add_explicit(&fork_count, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
    int failed = pthread_atfork(NULL, NULL, on_fork);
    LIM_ASSERT(!failed);
}

static void random_fill(void *buf, size_t len)
{
    size_t have = 0;
    while (have < len) {
        ssize_t n = getrandom((char *)buf + have, len - have, 0);
        LIM_ASSERT(n > 0 || errno == EINTR);
        have += n > 0 ? (size_t)n : 0;
    }
}

static uint64_t random_u64(lim__os *os)
{
    static _Thread_local uint64_t words[RANDOM_WORDS];
    static _Thread_local uint32_t left, drawn_at;
    (void)os;
    uint32_t forks = atomic_load_explicit(&fork_count, memory_order_relaxed);
    if (left == 0 || drawn_at != forks) {
        pthread_once(&fork_once, watch_forks);
        random_fill(words, sizeof words);
        left = RANDOM_WORDS;
        drawn_at = forks;
    }
    uint64_t word = words[--left];
    words[left] = 0; /* what was handed out may have become a token: keep no copy */
    return word;
}

/* ---- readiness ---- */

static void poller_close(lim__os *os, lim__poller *p)
{
    (void)os;
    if (!p)
        return;
    if (p->wakeup >= 0)
        close(p->wakeup);
    if (p->epoll >= 0)
        close(p->epoll);
    free(p->slots);
    free(p);
}

static lim__poller *poller_open(lim__os *os)
{
    lim__poller *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.fd = -1 };
    if (p->epoll < 0 || p->wakeup < 0 || epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wakeup, &ev) != 0) {
        poller_close(os, p);
        return NULL;
    }
    return p;
}

static int slots_cover(lim__poller *p, int fd)
{
    if (fd < p->slot_count)
        return 0;
    int count = p->slot_count ? p->slot_count : SLOTS_MIN;
    while (count <= fd)
        count *= 2;
    struct slot *slots = realloc(p->slots, (size_t)count * sizeof *slots);
    if (!slots)
        return -ENOMEM;
    memset(slots + p->slot_count, 0, (size_t)(count - p->slot_count) * sizeof *slots);
    p->slots = slots;
    p->slot_count = count;
    return 0;
}

/* Adds or changes. The kernel forgets a descriptor that was closed without removal, so a remembered number may be a
 * new socket: the other operation is then the right one. */
static int epoll_put(lim__poller *p, int fd, uint32_t interest, bool known)
{
    struct epoll_event ev = { .events =
                                  (interest & LIM__IO_READ ? EPOLLIN : 0u) | (interest & LIM__IO_WRITE ? EPOLLOUT : 0u),
                              .data.fd = fd };
    int op = known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(p->epoll, op, fd, &ev) == 0)
        return 0;
    if (errno != (known ? ENOENT : EEXIST))
        return -errno;
    return epoll_ctl(p->epoll, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &ev) == 0 ? 0 : -errno;
}

static void epoll_drop(lim__poller *p, int fd)
{
    struct epoll_event unused = { 0 };
    int failed = epoll_ctl(p->epoll, EPOLL_CTL_DEL, fd, &unused);
    (void)failed; /* ENOENT or EBADF: closed before it was removed; gone is what was wanted */
    p->slots[fd] = (struct slot){ 0 };
}

static int poller_set(lim__os *os, lim__poller *p, int fd, uint32_t interest, void *ctx)
{
    (void)os;
    LIM_ASSERT((interest & ~(uint32_t)(LIM__IO_READ | LIM__IO_WRITE)) == 0);
    if (fd < 0)
        return -EBADF;
    uint32_t known = fd < p->slot_count ? p->slots[fd].interest : 0;
    if (interest == 0) {
        if (known)
            epoll_drop(p, fd);
        return 0;
    }
    int err = slots_cover(p, fd);
    if (err == 0) /* even if nothing changed: the number may be a new socket, which the kernel does not watch yet */
        err = epoll_put(p, fd, interest, known != 0);
    if (err == 0)
        p->slots[fd] = (struct slot){ ctx, interest };
    return err;
}

static int wait_ms(lim__poller *p, int max, int64_t timeout_ns)
{
    int64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return epoll_wait(p->epoll, p->events, max, timeout_ns < 0 ? -1 : ms > INT32_MAX ? INT32_MAX : (int)ms);
}

static int wait_ns(lim__poller *p, int max, int64_t timeout_ns)
{
    static _Atomic bool coarse; /* a kernel before 5.11 has milliseconds only: round up, never early */
    if (timeout_ns <= 0 || atomic_load_explicit(&coarse, memory_order_relaxed))
        return wait_ms(p, max, timeout_ns);
    struct timespec t = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    int n = epoll_pwait2(p->epoll, p->events, max, &t, NULL);
    if (n >= 0 || errno != ENOSYS)
        return n;
    atomic_store_explicit(&coarse, true, memory_order_relaxed);
    return wait_ms(p, max, timeout_ns);
}

static uint32_t ready_of(uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP))
        return LIM__IO_READ | LIM__IO_WRITE;
    return (events & EPOLLIN ? LIM__IO_READ : 0u) | (events & EPOLLOUT ? LIM__IO_WRITE : 0u);
}

static int poller_wait(lim__os *os, lim__poller *p, lim__io_event *ev, int max, int64_t timeout_ns)
{
    (void)os;
    LIM_ASSERT(max > 0);
    int n = wait_ns(p, max < EVENTS_MAX ? max : EVENTS_MAX, timeout_ns);
    LIM_ASSERT(n >= 0 || errno == EINTR);
    int count = 0;
    for (int i = 0; i < n; i++) {
        int fd = p->events[i].data.fd;
        if (fd >= 0 && fd < p->slot_count && p->slots[fd].interest != 0)
            ev[count++] = (lim__io_event){ p->slots[fd].ctx, ready_of(p->events[i].events) };
    }
    return count;
}

static void poller_wake(lim__os *os, lim__poller *p)
{
    (void)os;
    uint64_t one = 1;
    ssize_t n = write(p->wakeup, &one, sizeof one);
    LIM_ASSERT(n == sizeof one); /* the counter would need 2^64 wakes to be full */
}

static int poller_fd(lim__os *os, lim__poller *p)
{
    (void)os;
    return p->epoll;
}

lim__os *lim__os_linux(void)
{
    static lim__os table = {
        .now_ns = now_ns,
        .wall_ns = wall_ns,
        .random = random_u64,
        .poller_open = poller_open,
        .poller_close = poller_close,
        .poller_set = poller_set,
        .poller_wait = poller_wait,
        .poller_wake = poller_wake,
        .poller_fd = poller_fd,
        .listen = lim__linux_listen,
        .accept = lim__linux_accept,
        .connect = lim__linux_connect,
        .connect_result = lim__linux_connect_result,
        .recv = lim__linux_recv,
        .send = lim__linux_send,
        .shutdown_write = lim__linux_shutdown_write,
        .close = lim__linux_close,
        .set_liveness = lim__linux_set_liveness,
        .file_open = lim__linux_file_open,
        .file_close = lim__linux_file_close,
        .file_read = lim__linux_file_read,
        .file_write = lim__linux_file_write,
        .file_sync = lim__linux_file_sync,
        .file_size = lim__linux_file_size,
        .file_truncate = lim__linux_file_truncate,
        .file_lock = lim__linux_file_lock,
        .file_rename = lim__linux_file_rename,
        .file_remove = lim__linux_file_remove,
        .dir_create = lim__linux_dir_create,
        .dir_sync = lim__linux_dir_sync,
        .dir_list = lim__linux_dir_list,
        .disk_free = lim__linux_disk_free,
    };
    return &table;
}
