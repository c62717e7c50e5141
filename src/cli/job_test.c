/* SPDX-License-Identifier: Apache-2.0
 * job_test.c - children of --exec in the loop, without a connection. */
#include "cli/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct run {
    struct cli cli;
    cli_job job;
    int status, ends;
    lim__buf notes; /* each followed by | */
    size_t longest; /* what reply held at most */
    bool paused;
} run;

static void on_end(cli_job *job, int status)
{
    run *r = LIM_CONTAINER(job, run, job);
    r->status = status;
    r->ends++;
    r->cli.ended = true;
}

static void on_note(cli_job *job, lim_bytes note)
{
    run *r = LIM_CONTAINER(job, run, job);
    lim__buf_add(&r->notes, note.ptr, note.len);
    lim__buf_text(&r->notes, "|");
}

static void on_output(cli_job *job)
{
    run *r = LIM_CONTAINER(job, run, job);
    size_t len = lim__buf_len(&job->reply);
    r->longest = len > r->longest ? len : r->longest;
    if (r->paused)
        cli_job_pause(job, true);
    else
        lim__buf_consume(&job->reply, len);
}

typedef enum hear { HEAR_NOTHING = 0, HEAR_NOTES, HEAR_OUTPUT } hear;

static run *start_hearing(const char *command, lim_bytes input, hear what)
{
    run *r = calloc(1, sizeof *r);
    assert_non_null(r);
    lim__list_init(&r->cli.sources);
    r->cli.opts = &r->cli.args.opts;
    r->job.on_end = on_end;
    r->job.on_note = what == HEAR_NOTES ? on_note : NULL;
    r->job.on_output = what == HEAR_OUTPUT ? on_output : NULL;
    assert_int_equal(cli_job_start(&r->job, &r->cli, command, NULL, input), 0);
    return r;
}

static run *start(const char *command, lim_bytes input)
{
    return start_hearing(command, input, HEAR_NOTHING);
}

static run *ended(const char *command, lim_bytes input)
{
    run *r = start(command, input);
    while (!r->cli.ended)
        cli_turn(&r->cli);
    assert_int_equal(r->ends, 1);
    assert_true(lim__list_empty(&r->cli.sources));
    return r;
}

static void done(run *r)
{
    cli_job_fini(&r->job);
    lim__buf_fini(&r->notes);
    free(r);
}

static void until_over(run *r)
{
    while (!r->cli.ended)
        cli_turn(&r->cli);
}

static bool said(const lim__buf *b, const char *text)
{
    return lim__bytes_eq(lim__buf_bytes(b), lim__str(text));
}

static void test_the_payload_comes_on_stdin_and_the_reply_is_stdout(void **state)
{
    (void)state;
    run *r = ended("tr a-z A-Z", lim__str("hello"));
    assert_int_equal(cli_job_exit(r->status), 0);
    assert_true(said(&r->job.reply, "HELLO"));
    done(r);
}

static void test_more_than_a_pipe_holds_goes_through_both_ways(void **state)
{
    size_t len = 4 << 20;
    char *big = malloc(len);
    (void)state;
    assert_non_null(big);
    memset(big, 'x', len);
    run *r = ended("cat", lim__bytes(big, len));
    assert_int_equal(lim__buf_len(&r->job.reply), len);
    assert_memory_equal(lim__buf_bytes(&r->job.reply).ptr, big, len);
    done(r);
    free(big);
}

static void test_a_child_that_does_not_read_its_input_still_answers(void **state)
{
    static const char big[1 << 20];
    (void)state;
    run *r = ended("exec 0<&-; echo done", lim__bytes(big, sizeof big));
    assert_true(said(&r->job.reply, "done\n"));
    done(r);
}

static void test_a_failure_has_an_exit_code_and_the_beginning_of_stderr(void **state)
{
    (void)state;
    run *r = ended("head -c 200000 /dev/zero | tr '\\0' e >&2; exit 3", lim__str(""));
    assert_int_equal(cli_job_exit(r->status), 3);
    assert_int_equal(lim__buf_len(&r->job.complaint), CLI_COMPLAINT_MAX);
    done(r);
}

static void test_a_command_that_does_not_exist_is_127(void **state)
{
    (void)state;
    run *r = ended("no-such-command-anywhere", lim__str(""));
    assert_int_equal(cli_job_exit(r->status), 127);
    assert_true(lim__buf_len(&r->job.complaint) > 0);
    done(r);
}

static void test_a_child_that_ignores_signals_is_killed_all_the_same(void **state)
{
    (void)state;
    run *r = start("trap '' TERM INT HUP; echo ready; while :; do :; done", lim__str(""));
    while (lim__buf_len(&r->job.reply) == 0)
        cli_turn(&r->cli);
    cli_job_kill(&r->job);
    while (!r->cli.ended)
        cli_turn(&r->cli);
    assert_int_equal(cli_job_exit(r->status), 128 + SIGKILL);
    done(r);
}

static void test_what_a_child_leaves_running_neither_delays_its_end_nor_survives_it(void **state)
{
    (void)state;
    run *r = start("tail -f /dev/null & echo over", lim__str(""));
    int watch = dup(r->job.child.out); /* ends only when nobody can write to it any more */
    while (!r->cli.ended)
        cli_turn(&r->cli);
    assert_int_equal(cli_job_exit(r->status), 0);
    assert_true(said(&r->job.reply, "over\n"));
    struct pollfd fd = { .fd = watch, .events = POLLIN };
    assert_int_equal(poll(&fd, 1, 10000), 1);
    char none;
    assert_int_equal(read(watch, &none, 1), 0);
    close(watch);
    done(r);
}

static void test_endless_output_is_stopped_at_its_limit(void **state)
{
    (void)state;
    run *r = ended("exec cat /dev/zero", lim__str(""));
    assert_true(r->job.overflowed);
    assert_int_equal(cli_job_exit(r->status), 128 + SIGKILL);
    done(r);
}

static void test_a_job_that_is_dropped_takes_its_child_with_it(void **state)
{
    (void)state;
    run *r = start("trap '' TERM; while :; do :; done", lim__str(""));
    int pid = r->job.child.pid, status = 0;
    cli_job_fini(&r->job);
    assert_true(lim__list_empty(&r->cli.sources));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(cli_job_exit(status), 128 + SIGKILL);
    assert_int_equal(r->ends, 0);
    free(r);
}

static void test_lines_that_begin_with_progress_are_notes_and_no_complaint(void **state)
{
    (void)state;
    run *r =
        start_hearing("printf 'progress: one\\nbad\\nprogr' >&2; printf 'ess:two\\nworse progress: x\\nprogress:' >&2",
                      lim__str(""), HEAR_NOTES);
    until_over(r);
    assert_true(said(&r->notes, "one|two||"));
    assert_true(said(&r->job.complaint, "bad\nworse progress: x\n"));
    done(r);
}

static void test_a_line_without_end_is_a_complaint_all_the_same(void **state)
{
    (void)state;
    run *r = start_hearing("head -c 100000 /dev/zero | tr '\\0' e >&2", lim__str(""), HEAR_NOTES);
    until_over(r);
    assert_int_equal(lim__buf_len(&r->job.complaint), CLI_COMPLAINT_MAX);
    assert_int_equal(lim__buf_len(&r->job.said), 0);
    done(r);
}

static void test_output_that_is_taken_as_it_comes_has_no_limit(void **state)
{
    (void)state;
    run *r = start_hearing("head -c 40000000 /dev/zero", lim__str(""), HEAR_OUTPUT);
    until_over(r);
    assert_false(r->job.overflowed);
    assert_int_equal(cli_job_exit(r->status), 0);
    assert_true(r->longest < 1 << 20);
    done(r);
}

static void test_a_child_whose_output_is_not_read_waits(void **state)
{
    (void)state;
    run *r = start_hearing("head -c 1000000 /dev/zero", lim__str(""), HEAR_OUTPUT);
    r->paused = true;
    while (r->longest == 0)
        cli_turn(&r->cli);
    r->cli.alarm_ns = cli_now_ns() + 1; /* there is nothing else to wake up for */
    r->cli.on_alarm = free;
    r->cli.state = NULL;
    cli_turn(&r->cli);
    assert_int_equal(r->ends, 0);
    assert_true(r->longest < 1000000);
    r->paused = false;
    lim__buf_consume(&r->job.reply, lim__buf_len(&r->job.reply));
    cli_job_pause(&r->job, false);
    until_over(r);
    assert_int_equal(cli_job_exit(r->status), 0);
    done(r);
}

static void test_a_signal_reaches_the_child_and_what_it_has_started(void **state)
{
    (void)state;
    run *r = start("trap 'echo stopped; exit 0' USR1; echo ready; while :; do :; done", lim__str(""));
    while (lim__buf_len(&r->job.reply) == 0)
        cli_turn(&r->cli);
    cli_job_signal(&r->job, SIGUSR1);
    until_over(r);
    assert_true(said(&r->job.reply, "ready\nstopped\n"));
    cli_job_signal(&r->job, SIGUSR1); /* ended: nobody gets it */
    done(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_payload_comes_on_stdin_and_the_reply_is_stdout),
        cmocka_unit_test(test_more_than_a_pipe_holds_goes_through_both_ways),
        cmocka_unit_test(test_a_child_that_does_not_read_its_input_still_answers),
        cmocka_unit_test(test_a_failure_has_an_exit_code_and_the_beginning_of_stderr),
        cmocka_unit_test(test_a_command_that_does_not_exist_is_127),
        cmocka_unit_test(test_a_child_that_ignores_signals_is_killed_all_the_same),
        cmocka_unit_test(test_what_a_child_leaves_running_neither_delays_its_end_nor_survives_it),
        cmocka_unit_test(test_endless_output_is_stopped_at_its_limit),
        cmocka_unit_test(test_a_job_that_is_dropped_takes_its_child_with_it),
        cmocka_unit_test(test_lines_that_begin_with_progress_are_notes_and_no_complaint),
        cmocka_unit_test(test_a_line_without_end_is_a_complaint_all_the_same),
        cmocka_unit_test(test_output_that_is_taken_as_it_comes_has_no_limit),
        cmocka_unit_test(test_a_child_whose_output_is_not_read_waits),
        cmocka_unit_test(test_a_signal_reaches_the_child_and_what_it_has_started),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
