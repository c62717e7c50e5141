/* SPDX-License-Identifier: Apache-2.0
 * child.c - a command run for somebody, who never outlives us and never sees our descriptors.
 *
 *   parent                                   child (only async-signal-safe calls: other threads may hold any lock)
 *   pipes, argv, environment
 *   block all signals
 *   fork ----------------------------------> own process group; SIGKILL when the parent's thread dies;
 *   setpgid as well: whoever is first          was the parent dead already? then end
 *   restore signals                          0 1 2 onto the pipes, close the rest
 *   wait until `armed` is closed <---------- (closed with the rest)
 *   close the child's ends                   default handlers, nothing blocked
 *   pidfd                                    exec sh -c; 127 if that fails
 *
 * The wait is there because the death signal follows the thread: a thread that ended before the child had asked for
 * the signal would leave it running, and getppid names the whole program and cannot tell.
 *
 * posix_spawn would be cheaper but cannot ask for the parent-death signal. That signal reaches the command itself;
 * what the command has forked gets an end of file on its standard input, and lim__child_kill reaches the whole group.
 * Signals are blocked across the fork because a handler of the host must not run in the child. */
#include "os/os.h"
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct plan { /* everything the child needs, made before the fork */
    int std[3];
    int armed[2]; /* the child's closing of [1] says that it will die with us */
    pid_t parent;
    char *const *argv;
    char **env;
};

static bool same_name(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && (b[n] == '=' || b[n] == 0);
}

static bool overridden(const char *entry, const char *const *extra)
{
    for (; extra && *extra; extra++) {
        if (same_name(*extra, entry))
            return true;
    }
    return false;
}

/* Ours with `extra` in front of it; the strings are borrowed, the array is the caller's to free. */
static char **merged_env(const char *const *extra)
{
    size_t count = 1, n = 0;
    for (char **e = environ; e && *e; e++)
        count++;
    for (const char *const *e = extra; e && *e; e++)
        count++;
    char **env = calloc(count, sizeof *env);
    if (!env)
        return NULL;
    for (const char *const *e = extra; e && *e; e++)
        memcpy(&env[n++], e, sizeof *env); /* execve takes char *const *, and changes nothing */
    for (char **e = environ; e && *e; e++) {
        if (!overridden(*e, extra))
            env[n++] = *e;
    }
    return env;
}

static void close_if_open(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A pipe whose ends are above 2, so that no dup2 in the child can hit one: the host may run with 0 to 2 closed. */
static int high_pipe(int ends[2])
{
    int low[2];
    if (pipe2(low, O_CLOEXEC) != 0)
        return -errno;
    int err = 0;
    for (int i = 0; i < 2; i++) {
        ends[i] = low[i] > 2 ? low[i] : fcntl(low[i], F_DUPFD_CLOEXEC, 3);
        if (ends[i] < 0)
            err = -errno;
    }
    for (int i = 0; i < 2; i++) {
        if (ends[i] != low[i])
            close(low[i]);
        if (err != 0)
            close_if_open(&ends[i]);
    }
    return err;
}

static void close_from_3(void)
{
    if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
        return;
    struct rlimit limit;
    int end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1 << 20 ? (int)limit.rlim_cur : 1 << 20;
    for (int fd = 3; fd < end; fd++)
        close(fd);
}

static void default_signals(void)
{
    struct sigaction def = { .sa_handler = SIG_DFL };
    for (int s = 1; s < NSIG; s++)
        sigaction(s, &def, NULL); /* refused for SIGKILL and SIGSTOP, which have no other */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_child(const struct plan *plan)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan->parent)
        _exit(127); /* it died before the line above could notice */
    for (int i = 0; i < 3; i++) {
        if (dup2(plan->std[i], i) < 0)
            _exit(127);
    }
    close_from_3();
    default_signals();
    execve("/bin/sh", plan->argv, plan->env);
    _exit(127);
}

static pid_t fork_child(struct plan *plan)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        run_child(plan);
    int err = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return err;
    setpgid(pid, pid); /* EACCES: it has already run exec, and so has already done this itself */
    close_if_open(&plan->armed[1]);
    char none;
    while (read(plan->armed[0], &none, 1) < 0 && errno == EINTR)
        ;
    return pid;
}

static int nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? 0 : -errno;
}

static void kill_and_wait(pid_t pid)
{
    kill(-pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Forks and completes *c, whose three descriptors are open. */
static int launch(lim__child *c, struct plan *plan)
{
    int err = 0;
    const int ours[3] = { c->in, c->out, c->err };
    for (int i = 0; i < 3 && err == 0; i++)
        err = nonblocking(ours[i]);
    if (err != 0)
        return err;
    pid_t pid = fork_child(plan);
    if (pid < 0)
        return pid;
    c->pidfd = pidfd_open(pid, 0);
    if (c->pidfd < 0) {
        err = -errno;
        kill_and_wait(pid);
        return err;
    }
    c->pid = pid;
    return 0;
}

/* Our ends go to *c, the child's to the plan. */
static int open_pipes(lim__child *c, struct plan *plan)
{
    int *ours[3] = { &c->in, &c->out, &c->err };
    for (int i = 0; i < 3; i++) {
        int ends[2] = { -1, -1 };
        int err = high_pipe(ends);
        if (err != 0)
            return err;
        bool child_reads = i == 0;
        plan->std[i] = ends[child_reads ? 0 : 1];
        *ours[i] = ends[child_reads ? 1 : 0];
    }
    return high_pipe(plan->armed);
}

int lim__child_start(lim__child *c, const char *command, const char *const *env)
{
    char sh[] = "sh", dash_c[] = "-c";
    char *text = strdup(command);
    char *argv[] = { sh, dash_c, text, NULL };
    struct plan plan = {
        .std = { -1, -1, -1 },
        .armed = { -1, -1 },
        .parent = getpid(),
        .argv = argv,
        .env = merged_env(env),
    };
    *c = (lim__child){ .pid = -1, .pidfd = -1, .in = -1, .out = -1, .err = -1 };
    int err = text && plan.env ? open_pipes(c, &plan) : -ENOMEM;
    if (err == 0)
        err = launch(c, &plan);
    for (int i = 0; i < 3; i++)
        close_if_open(&plan.std[i]);
    close_if_open(&plan.armed[0]);
    close_if_open(&plan.armed[1]);
    if (err != 0)
        lim__child_fini(c);
    free(plan.env);
    free(text);
    return err;
}

void lim__child_kill(lim__child *c)
{
    if (c->pid > 0)
        kill(-c->pid, SIGKILL);
}

int lim__child_reap(lim__child *c, int *status)
{
    if (c->pid <= 0)
        return -ECHILD;
    pid_t pid;
    do
        pid = waitpid(c->pid, status, WNOHANG);
    while (pid < 0 && errno == EINTR);
    if (pid < 0)
        return -errno;
    if (pid > 0)
        c->pid = -1; /* the number may soon be somebody else's */
    return pid > 0 ? 1 : 0;
}

void lim__child_fini(lim__child *c)
{
    close_if_open(&c->in);
    close_if_open(&c->out);
    close_if_open(&c->err);
    close_if_open(&c->pidfd);
}
