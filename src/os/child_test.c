/* SPDX-License-Identifier: Apache-2.0
 * child_test.c - commands: what they see, how they end, and that none of them outlives its killing. */
#include "os/os.h"
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static const int64_t LONG_NS = 20000000000; /* reached only by a failing test */

static lim__os *os;
static lim__poller *poller;

static void wait_readable(int fd)
{
    lim__io_event ev;
    assert_int_equal(os->poller_set(os, poller, fd, LIM__IO_READ, &ev), 0);
    assert_int_equal(os->poller_wait(os, poller, &ev, 1, LONG_NS), 1);
    assert_int_equal(os->poller_set(os, poller, fd, 0, NULL), 0);
}

/* Reads until the end, or until a line is whole. */
static void read_text(int fd, char *text, size_t size, bool one_line)
{
    size_t len = 0;
    for (;;) {
        long n = os->recv(os, fd, text + len, size - 1 - len);
        if (n == -EAGAIN) {
            wait_readable(fd);
            continue;
        }
        assert_true(n >= 0);
        len += (size_t)n;
        text[len] = 0;
        if (n == 0 || (one_line && text[len - 1] == '\n'))
            return;
    }
}

static int end_of(lim__child *c)
{
    int status = 0;
    wait_readable(c->pidfd);
    assert_int_equal(lim__child_reap(c, &status), 1);
    assert_int_equal(c->pid, -1);
    assert_int_equal(lim__child_reap(c, &status), -ECHILD);
    lim__child_kill(c);
    lim__child_fini(c);
    assert_int_equal(c->pidfd, -1);
    return status;
}

static void start(lim__child *c, const char *command)
{
    assert_int_equal(lim__child_start(c, command, NULL), 0);
    assert_true(c->pid > 0 && c->pidfd > 2 && c->in > 2 && c->out > 2 && c->err > 2);
}

static void test_a_command_reads_writes_and_ends_with_its_status(void **state)
{
    (void)state;
    lim__child c;
    char text[64];
    start(&c, "cat; echo bad >&2; exit 7");
    assert_int_equal(os->send(os, c.in, "ping", 4), 4);
    os->close(os, c.in);
    c.in = -1;
    read_text(c.out, text, sizeof text, false);
    assert_string_equal(text, "ping");
    read_text(c.err, text, sizeof text, false);
    assert_string_equal(text, "bad\n");
    int status = end_of(&c);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

static void test_a_command_that_cannot_run_exits_127(void **state)
{
    (void)state;
    lim__child c;
    start(&c, "exec /nonexistent/program 2>/dev/null");
    int status = end_of(&c);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 127);
}

static void test_a_command_sees_only_its_three_descriptors(void **state)
{
    (void)state;
    lim__child c;
    char text[256];
    int leaky = open("/dev/null", O_RDONLY); /* on purpose without close-on-exec */
    int leaky_high = fcntl(leaky, F_DUPFD, 200);
    assert_true(leaky >= 0 && leaky_high >= 200);
    start(&c, "for f in /proc/self/fd/*; do [ -e \"$f\" ] && echo ${f##*/}; done");
    read_text(c.out, text, sizeof text, false);
    close(leaky);
    close(leaky_high);
    assert_int_equal(strncmp(text, "0\n1\n2\n", 6), 0);
    for (const char *line = text + 6; *line; line = strchr(line, '\n') + 1)
        assert_true(atoi(line) >= 3 && atoi(line) <= 10); /* the shell's own look at the folder */
    assert_null(strstr(text, "200"));
    end_of(&c);
}

static void test_a_command_that_ignores_sigterm_dies_with_its_whole_group(void **state)
{
    (void)state;
    lim__child c;
    char text[64];
    int status;
    /* A shell gives what it starts in the background an empty input: the pipe is kept as 9 before that. */
    start(&c, "trap '' TERM; exec 9<&0; (echo up; exec cat <&9 >/dev/null 2>&1) & wait");
    read_text(c.out, text, sizeof text, true);
    assert_string_equal(text, "up\n");
    assert_int_equal(kill(-c.pid, SIGTERM), 0);
    assert_int_equal(lim__child_reap(&c, &status), 0);
    lim__child_kill(&c);
    char rest[8];
    /* The grandchild holds the pipe's reading end: writing fails only when it is gone. */
    wait_readable(c.pidfd);
    long n;
    while ((n = os->send(os, c.in, "x", 1)) == 1)
        ;
    if (n == -EAGAIN) {
        lim__io_event ev;
        assert_int_equal(os->poller_set(os, poller, c.in, LIM__IO_WRITE, &ev), 0);
        assert_int_equal(os->poller_wait(os, poller, &ev, 1, LONG_NS), 1);
        assert_int_equal(os->poller_set(os, poller, c.in, 0, NULL), 0);
        n = os->send(os, c.in, "x", 1);
    }
    assert_int_equal(n, -EPIPE);
    read_text(c.out, rest, sizeof rest, false);
    status = end_of(&c);
    assert_true(WIFSIGNALED(status));
}

static void test_signals_are_as_new_in_the_command(void **state)
{
    (void)state;
    lim__child c;
    sigset_t set, before;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, &before), 0);
    void (*old)(int) = signal(SIGUSR2, SIG_IGN);
    char text[256];
    start(&c, "grep -E '^Sig(Blk|Ign)' /proc/self/status");
    read_text(c.out, text, sizeof text, false);
    assert_string_equal(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    end_of(&c);
    signal(SIGUSR2, old);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void test_extra_environment_is_added_and_overrides(void **state)
{
    (void)state;
    lim__child c;
    char text[64];
    static const char *const env[] = { "LIM_TEST_ONE=1", "HOME=/elsewhere", NULL };
    assert_int_equal(
        lim__child_start(&c, "echo $LIM_TEST_ONE $HOME; env | grep -c ^HOME=; [ -n \"$PATH\" ] && echo y", env), 0);
    read_text(c.out, text, sizeof text, false);
    assert_string_equal(text, "1 /elsewhere\n1\ny\n");
    end_of(&c);
}

static void *start_and_leave(void *arg)
{
    start(arg, "exec cat");
    return NULL;
}

static void test_a_command_dies_with_the_thread_that_started_it(void **state)
{
    (void)state;
    lim__child c;
    lim__thread t;
    assert_int_equal(lim__thread_start(&t, "starter", start_and_leave, &c), 0);
    lim__thread_join(t);
    int status = end_of(&c);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void test_a_command_dies_with_a_program_that_is_killed(void **state)
{
    (void)state;
    int ends[2];
    char c = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        lim__child child;
        close(ends[0]);
        int err = lim__child_start(&child, "exec cat", NULL);
        if (err == 0 && write(ends[1], &child.pid, sizeof child.pid) == sizeof child.pid)
            raise(SIGKILL);
        _exit(1);
    }
    close(ends[1]);
    int theirs = 0;
    assert_int_equal(read(ends[0], &theirs, sizeof theirs), sizeof theirs);
    assert_int_equal(read(ends[0], &c, 1), 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    close(ends[0]);
    assert_true(theirs > 0);
    char path[64], line[64] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", theirs);
    for (int i = 0; i < 100000; i++) { /* gone, or a zombie that some other parent will reap */
        FILE *f = fopen(path, "r");
        if (!f)
            return;
        bool zombie = fgets(line, sizeof line, f) && strstr(line, ") Z");
        fclose(f);
        if (zombie)
            return;
        lim__thread_yield();
    }
    fail_msg("the command outlived its program: %s", line);
}

static void test_a_pipe_whose_reader_left_is_an_error_not_a_signal(void **state)
{
    (void)state;
    lim__child c;
    char text[8];
    start(&c, "exec <&-; echo shut; exec >&-; exec sleep 1000");
    read_text(c.out, text, sizeof text, false);
    assert_int_equal(os->send(os, c.in, "x", 1), -EPIPE);
    lim__child_kill(&c);
    end_of(&c);
}

static int setup(void **state)
{
    (void)state;
    os = lim__os_linux();
    poller = os->poller_open(os);
    return poller ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    os->poller_close(os, poller);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_command_reads_writes_and_ends_with_its_status),
        cmocka_unit_test(test_a_command_that_cannot_run_exits_127),
        cmocka_unit_test(test_a_command_sees_only_its_three_descriptors),
        cmocka_unit_test(test_a_command_that_ignores_sigterm_dies_with_its_whole_group),
        cmocka_unit_test(test_signals_are_as_new_in_the_command),
        cmocka_unit_test(test_extra_environment_is_added_and_overrides),
        cmocka_unit_test(test_a_command_dies_with_the_thread_that_started_it),
        cmocka_unit_test(test_a_command_dies_with_a_program_that_is_killed),
        cmocka_unit_test(test_a_pipe_whose_reader_left_is_an_error_not_a_signal),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
