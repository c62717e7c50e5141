/* SPDX-License-Identifier: Apache-2.0
 * helper.c - what the native engine asks of Linux: memory that two processes share, waking each other through it,
 * descriptors that travel, and a program to be started that has nothing of ours.
 *
 * The program is started by posix_spawn, which does not copy the page tables of a large host; it forks the helpers. No
 * death signal is asked for: that would follow the thread that happened to start it. It ends when its control socket
 * does, which is closed with us whatever happens. */
#include "os/os.h"
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* Linux 5.1 */
#endif

/* ---- memory ---- */

int lim__memory_open(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int err = ftruncate(fd, (off_t)bytes) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0 ? 0 : -errno;
    if (err != 0)
        close(fd);
    return err != 0 ? err : fd;
}

int lim__memory_sealed(const char *name, const void *bytes, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int err = 0;
    for (size_t at = 0; at < len && err == 0;) {
        ssize_t n = write(fd, (const char *)bytes + at, len - at);
        if (n > 0)
            at += (size_t)n;
        else if (n == 0 || errno != EINTR)
            err = n == 0 ? -EIO : -errno;
    }
    if (err == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        err = -errno;
    if (err != 0)
        close(fd);
    return err != 0 ? err : fd;
}

int lim__memory_seal_writers(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0 ? 0 : -errno;
}

void *lim__memory_map(int fd, size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at != MAP_FAILED ? at : NULL;
}

void lim__memory_unmap(void *at, size_t bytes)
{
    int failed = munmap(at, bytes);
    LIM_ASSERT(!failed);
}

/* ---- waking ---- */

void lim__futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void lim__futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec t = { .tv_sec = (time_t)(timeout_ns / 1000000000), .tv_nsec = (long)(timeout_ns % 1000000000) };
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0); /* EAGAIN, EINTR, ETIMEDOUT: the caller looks */
}

int lim__event_open(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd >= 0 ? fd : -errno;
}

void lim__event_clear(int event)
{
    uint64_t count;
    ssize_t n = read(event, &count, sizeof count);
    (void)n; /* EAGAIN: it was clear */
}

bool lim__readable(int fd, int64_t timeout_ns)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    struct timespec t = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    return ppoll(&p, 1, &t, NULL) > 0;
}

/* ---- packets and the descriptors in them ---- */

int lim__pair_open(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0 ? 0 : -errno;
}

enum { PACKET_FDS = 8 };

int lim__packet_send(int fd, const void *packet, size_t len, const int *fds, int fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PACKET_FDS * sizeof(int))];
    } control = { 0 };
    struct iovec io = { (void *)(uintptr_t)packet, len };
    struct msghdr msg = { .msg_iov = &io, .msg_iovlen = 1 };
    LIM_ASSERT(fd_count <= PACKET_FDS);
    if (fd_count > 0) {
        size_t bytes = (size_t)fd_count * sizeof *fds;
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(bytes) };
        memcpy(CMSG_DATA(c), fds, bytes);
    }
    ssize_t n;
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
}

/* Keeps the first descriptor, closes the others. */
static int take_descriptor(struct msghdr *msg)
{
    int kept = -1, fd;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t n = c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof fd : 0;
        for (size_t i = 0; i < n; i++) {
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (kept < 0)
                kept = fd;
            else
                close(fd);
        }
    }
    return kept;
}

long lim__packet_recv(int fd, void *packet, size_t len, int *fd_out)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PACKET_FDS * sizeof(int))];
    } control;
    struct iovec io = { packet, len };
    struct msghdr msg = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes
    };
    ssize_t n;
    *fd_out = -1;
    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *fd_out = take_descriptor(&msg);
    return n;
}

/* ---- processes ---- */

void lim__pidfd_kill(int pidfd)
{
    (void)!pidfd_send_signal(pidfd, SIGKILL, NULL, 0); /* ESRCH: it has ended */
}

uint64_t lim__process_cpu_ns(int pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t lim__thread_cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t lim__process_memory(int pid)
{
    char path[32], text[128];
    unsigned long all = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return sscanf(text, "%lu %lu", &all, &resident) == 2 ? (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static int spawn_with(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, const char *path, int control)
{
    char *const argv[] = { (char *)(uintptr_t)path, NULL }, *const env[] = { NULL };
    sigset_t all, none;
    pid_t pid;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(attr, &all);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setpgroup(attr, 0);
    posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    int err = 0;
    for (int fd = 0; fd < 3 && err == 0; fd++)
        err = posix_spawn_file_actions_addopen(files, fd, "/dev/null", O_RDWR, 0);
    if (err == 0)
        err = posix_spawn_file_actions_adddup2(files, control, 3);
    if (err == 0)
        err = posix_spawn_file_actions_addclosefrom_np(files, 4);
    if (err == 0)
        err = posix_spawn(&pid, path, files, attr, argv, env);
    return err != 0 ? -err : pid;
}

/* `control` is above 3 then, so that the opening of 0 to 2 and the move to 3 hit nothing, and clear its close-on-exec.
 */
int lim__program_start(const char *path, int control)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int high = fcntl(control, F_DUPFD_CLOEXEC, 4);
    if (high < 0)
        return -errno;
    int pid = -ENOMEM;
    if (posix_spawn_file_actions_init(&files) == 0) {
        if (posix_spawnattr_init(&attr) == 0) {
            pid = spawn_with(&files, &attr, path, high);
            posix_spawnattr_destroy(&attr);
        }
        posix_spawn_file_actions_destroy(&files);
    }
    close(high);
    return pid;
}

void lim__program_reap(int pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ; /* ECHILD: the host waits for every child; then it has done so */
}

const char *lim__signal_text(int signal)
{
    const char *name = sigabbrev_np(signal);
    return name != NULL ? name : "?";
}

void lim__status_text(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(out, size, "ended by signal %d (%s)", WTERMSIG(status), lim__signal_text(WTERMSIG(status)));
    else
        snprintf(out, size, "ended with exit code %d", WEXITSTATUS(status));
}

int lim__program_folder(char *out, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", out, size);
    if (n <= 0 || (size_t)n >= size)
        return n < 0 ? -errno : -ENAMETOOLONG;
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (slash == NULL)
        return -ENOENT;
    *slash = 0;
    return 0;
}

bool lim__file_executable(const char *path)
{
    return access(path, X_OK) == 0;
}
