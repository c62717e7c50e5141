/* SPDX-License-Identifier: Apache-2.0
 * main.c - the zygote: a small process that was executed, not forked, and forks helpers for a bus.
 *
 *      control --spawn + 5 descriptors--> fork --> helper: own group, dies with us, nothing open but what it needs
 *                                          `----> born + pidfd --life--> bus
 *      SIGCHLD --> waitpid --> ended --life--> bus
 *      life closed by the bus --> SIGKILL
 *      control closed, or the bus's process gone --> exit; the kernel then kills every helper (PR_SET_PDEATHSIG)
 *
 * Only code of ours runs here; it has one thread, so the death signal means this process. */
#include "helper/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN_MAX = 4096, FDS_MAX = LIM__ZYGOTE_FDS };
enum { AT_LIFE, AT_CODE, AT_REQUESTS, AT_ANSWERS, AT_EVENT }; /* of the descriptors in a spawn packet */

typedef struct child {
    int pid, life; /* pid 0: free */
} child;

helper self;
static child children[CHILDREN_MAX];
static int epoll_fd, signal_fd, zygote_pid;
static uint64_t base_bytes; /* of address space, before anything is mapped */

static bool send_word(int fd, lim__zygote_word word, int with)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec io = { &word, sizeof word };
    struct msghdr msg = { .msg_iov = &io, .msg_iovlen = 1 };
    if (with >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
        memcpy(CMSG_DATA(c), &with, sizeof with);
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof word;
}

/* ---- a helper's first steps ---- */

static _Noreturn void refuse(const char *what)
{
    char text[LIM__RING_TEXT];
    snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    cage_note(LIM__RING_SAYS, 0, text);
    cage_end();
}

/* From here on nothing is open but EVENT_FD and CODE_FD. */
static void keep_two(int event, int code)
{
    int high_event = fcntl(event, F_DUPFD, CODE_FD + 1), high_code = fcntl(code, F_DUPFD, CODE_FD + 1);
    if (dup2(high_event, EVENT_FD) < 0 || dup2(high_code, CODE_FD) < 0)
        refuse("cannot keep its descriptors");
    for (int fd = 0; fd < EVENT_FD; fd++)
        close(fd);
    if (close_range(CODE_FD + 1, ~0u, 0) != 0)
        for (int fd = CODE_FD + 1; fd < CHILDREN_MAX + 64; fd++)
            close(fd);
}

static void own_signals(void)
{
    struct sigaction plain = { .sa_handler = SIG_DFL };
    sigset_t none;
    for (int s = 1; s < NSIG; s++)
        (void)sigaction(s, &plain, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_helper(const lim__zygote_spawn *spawn, const int *fds)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != zygote_pid)
        _exit(1); /* it ended before the line above */
    own_signals();
    void *requests = mmap(NULL, sizeof(lim__ring_requests), PROT_READ, MAP_SHARED, fds[AT_REQUESTS], 0);
    void *answers = mmap(NULL, sizeof(lim__ring_answers), PROT_READ | PROT_WRITE, MAP_SHARED, fds[AT_ANSWERS], 0);
    if (requests == MAP_FAILED || answers == MAP_FAILED || spawn->place > 1)
        _exit(1);
    self.requests = requests;
    self.answers = answers;
    self.place = &self.requests->place[spawn->place];
    keep_two(fds[AT_EVENT], fds[AT_CODE]);
    prctl(PR_SET_DUMPABLE, 0);
    cage_limits(base_bytes + sizeof(lim__ring_requests) + sizeof(lim__ring_answers) + spawn->code_bytes +
                    spawn->memory_bytes,
                spawn->cpu_seconds);
    cage_enter();
    load_function();
    cage_close();
    serve_try();
    atomic_store(&self.answers->state, LIM__RING_READY);
    serve_wake_bus();
    serve();
}

/* ---- the zygote ---- */

static child *free_child(void)
{
    for (int i = 0; i < CHILDREN_MAX; i++) {
        if (children[i].pid == 0)
            return &children[i];
    }
    return NULL;
}

static void forget(child *c)
{
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->life, NULL);
    close(c->life);
    c->pid = 0;
}

/* The bus hears of it, or the helper does not live. */
static void announce(child *c)
{
    int pidfd = pidfd_open(c->pid, 0);
    struct epoll_event ev = { .events = EPOLLRDHUP, .data.ptr = c };
    bool told = pidfd >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->life, &ev) == 0 &&
                send_word(c->life, (lim__zygote_word){ .what = LIM__ZYGOTE_BORN, .pid = c->pid }, pidfd);
    if (!told)
        kill(c->pid, SIGKILL);
    if (pidfd >= 0)
        close(pidfd);
}

static void cannot(int life, const char *what)
{
    lim__zygote_word word = { .what = LIM__ZYGOTE_ENDED, .status = -1 };
    snprintf(word.text, sizeof word.text, "%s: %s", what, strerror(errno));
    (void)send_word(life, word, -1);
    close(life);
}

static void spawn_helper(const lim__zygote_spawn *spawn, const int *fds)
{
    child *c = free_child();
    errno = EAGAIN;
    pid_t pid = c != NULL ? fork() : -1;
    if (pid == 0)
        run_helper(spawn, fds);
    for (int i = AT_CODE; i < FDS_MAX; i++)
        close(fds[i]);
    if (pid < 0) {
        cannot(fds[AT_LIFE], "no helper process could be forked");
        return;
    }
    *c = (child){ pid, fds[AT_LIFE] };
    announce(c);
}

static void reap(void)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;
    (void)!read(signal_fd, &info, sizeof info);
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (int i = 0; i < CHILDREN_MAX; i++) {
            if (children[i].pid != pid)
                continue;
            (void)send_word(children[i].life,
                            (lim__zygote_word){ .what = LIM__ZYGOTE_ENDED, .pid = pid, .status = status }, -1);
            forget(&children[i]);
            break;
        }
    }
}

static void hear_control(void)
{
    lim__zygote_spawn spawn = { 0 };
    int fds[FDS_MAX];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control;
    struct iovec io = { &spawn, sizeof spawn };
    struct msghdr msg = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes
    };
    ssize_t n = recvmsg(LIM__ZYGOTE_CONTROL_FD, &msg, MSG_CMSG_CLOEXEC);
    if (n <= 0) {
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        _exit(0);
    }
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (n != (ssize_t)sizeof spawn || spawn.what != LIM__ZYGOTE_SPAWN || c == NULL || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len != CMSG_LEN(sizeof fds))
        _exit(1); /* not our bus */
    memcpy(fds, CMSG_DATA(c), sizeof fds);
    spawn_helper(&spawn, fds);
}

static uint64_t address_space(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL || fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void watch(int fd, void *what)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = what };
    if (fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
        _exit(1);
}

static void hello(void)
{
    lim__zygote_word word = { .what = LIM__ZYGOTE_HELLO, .pid = LIM__ZYGOTE_ABI };
    if (!cage_prepare(word.text, sizeof word.text))
        word.status = -1;
    base_bytes = address_space();
    if (!send_word(LIM__ZYGOTE_CONTROL_FD, word, -1) || word.status != 0)
        _exit(1);
}

int main(void)
{
    static int control, child_ended, parent; /* only their addresses matter */
    sigset_t mask;
    pid_t ppid = getppid();
    int parent_fd = pidfd_open(ppid, 0);
    if (getppid() != ppid)
        return 1;
    zygote_pid = getpid();
    hello();
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    watch(LIM__ZYGOTE_CONTROL_FD, &control);
    watch(signal_fd, &child_ended);
    watch(parent_fd, &parent);
    for (;;) {
        struct epoll_event ev;
        if (epoll_wait(epoll_fd, &ev, 1, -1) <= 0)
            continue;
        if (ev.data.ptr == &control) {
            hear_control();
        } else if (ev.data.ptr == &child_ended) {
            reap();
        } else if (ev.data.ptr == &parent) {
            _exit(0);
        } else {
            child *c = ev.data.ptr;
            if (c->pid != 0)
                kill(c->pid, SIGKILL);
            (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->life, NULL); /* it stays open, and ready, until it is reaped */
        }
    }
}
