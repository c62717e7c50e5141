/* SPDX-License-Identifier: Apache-2.0
 * job.c - feeds a child, listens to it, and notices its end; never waits for it.
 *
 *   input --in--> child --out--> reply
 *                   |`----err--> complaint
 *                   `----pidfd-> end: kill what is left of its group, take what the pipes still hold, reap, on_end
 *
 * The child's end decides, not the end of its output: what it left running in the background may hold the pipes open
 * for ever. The group is killed before the child is reaped, as until then nobody else can get its number. A child may
 * close its input early, ignore signals, write without end: each costs a step of the loop and nothing more. */
#include "cli/job.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

enum { READ_BYTES = 64 * 1024, LINE_MAX_BYTES = 4096 };

static void close_pipe(cli_source *source, int *fd)
{
    lim__os *os = lim__os_linux();
    cli_unwatch(source);
    if (*fd >= 0)
        os->close(os, *fd);
    *fd = -1;
}

static void on_writable(cli_source *source, short ready)
{
    cli_job *job = LIM_CONTAINER(source, cli_job, in);
    lim__os *os = lim__os_linux();
    lim_bytes rest = lim__buf_bytes(&job->input);
    long n = rest.len > 0 ? os->send(os, job->child.in, rest.ptr, rest.len) : 0;
    (void)ready;
    if (n == -EAGAIN || n == -EINTR)
        return;
    if (n > 0)
        lim__buf_consume(&job->input, (size_t)n);
    if (n < 0 || lim__buf_len(&job->input) == 0) /* it does not want to read more: its own decision */
        close_pipe(&job->in, &job->child.in);
}

/* One read. False: nothing there yet, or nothing any more; then it is closed. */
static bool read_reply(cli_job *job)
{
    lim__os *os = lim__os_linux();
    uint8_t *room = lim__buf_reserve(&job->reply, READ_BYTES);
    long n = room ? os->recv(os, job->child.out, room, READ_BYTES) : -ENOMEM;
    if (n == -EAGAIN || n == -EINTR)
        return false;
    if (n > 0)
        job->reply.end += (size_t)n;
    else
        close_pipe(&job->out, &job->child.out);
    if (n > 0 && job->on_output)
        job->on_output(job);
    if (lim__buf_len(&job->reply) <= CLI_REPLY_MAX && !job->reply.failed)
        return n > 0;
    job->overflowed = true;
    lim__child_kill(&job->child); /* before the pipe breaks under it: it ends by our hand, not by its own fault */
    close_pipe(&job->out, &job->child.out);
    return false;
}

static void complain(cli_job *job, lim_bytes text)
{
    size_t left = CLI_COMPLAINT_MAX - lim__buf_len(&job->complaint);
    lim__buf_add(&job->complaint, text.ptr, text.len < left ? text.len : left);
}

/* Its complete lines are notes or complaints; one that is very long is a complaint, complete or not. */
static void take_lines(cli_job *job, bool all)
{
    static const char mark[] = "progress:";
    const size_t mark_len = sizeof mark - 1;
    for (lim_bytes said = lim__buf_bytes(&job->said); said.len > 0; said = lim__buf_bytes(&job->said)) {
        const char *end = memchr(said.ptr, '\n', said.len);
        if (!end && !all && said.len < LINE_MAX_BYTES)
            return;
        lim_bytes line = lim__bytes(said.ptr, end ? (size_t)(end - (const char *)said.ptr) + 1 : said.len);
        if (line.len >= mark_len && memcmp(line.ptr, mark, mark_len) == 0)
            job->on_note(job, cli_trim(lim__bytes((const char *)line.ptr + mark_len, line.len - mark_len)));
        else
            complain(job, line);
        lim__buf_consume(&job->said, line.len);
    }
}

static bool read_complaint(cli_job *job)
{
    lim__os *os = lim__os_linux();
    uint8_t room[4096];
    long n = os->recv(os, job->child.err, room, sizeof room);
    if (n == -EAGAIN || n == -EINTR)
        return false;
    if (n <= 0) {
        close_pipe(&job->err, &job->child.err);
        return false;
    }
    if (!job->on_note) {
        complain(job, lim__bytes(room, (size_t)n));
        return true;
    }
    lim__buf_add(&job->said, room, (size_t)n);
    take_lines(job, false);
    return true;
}

static void on_reply(cli_source *source, short ready)
{
    (void)ready;
    read_reply(LIM_CONTAINER(source, cli_job, out));
}

static void on_complaint(cli_source *source, short ready)
{
    (void)ready;
    read_complaint(LIM_CONTAINER(source, cli_job, err));
}

static void close_all(cli_job *job)
{
    close_pipe(&job->in, &job->child.in);
    close_pipe(&job->out, &job->child.out);
    close_pipe(&job->err, &job->child.err);
    close_pipe(&job->end, &job->child.pidfd);
}

static void on_ended(cli_source *source, short ready)
{
    cli_job *job = LIM_CONTAINER(source, cli_job, end);
    int status = 0;
    (void)ready;
    lim__child_kill(&job->child);
    while (job->child.out >= 0 && read_reply(job))
        ;
    for (int i = 0; i < 64 && job->child.err >= 0 && read_complaint(job); i++)
        ;
    if (lim__child_reap(&job->child, &status) == 0)
        return; /* not yet: poll says so again */
    take_lines(job, true);
    close_all(job);
    job->on_end(job, status);
}

static void watch(cli_job *job, cli_source *source, int fd, short events, void (*on_ready)(cli_source *, short))
{
    *source = (cli_source){ .fd = fd, .events = events, .on_ready = on_ready };
    cli_watch(job->cli, source);
}

int cli_job_start(cli_job *job, struct cli *cli, const char *command, const char *const *env, lim_bytes input)
{
    lim__buf_add(&job->input, input.ptr, input.len);
    int err = job->input.failed ? -ENOMEM : lim__child_start(&job->child, command, env);
    if (err != 0) {
        job->child = (lim__child){ .pid = -1, .pidfd = -1, .in = -1, .out = -1, .err = -1 };
        return err;
    }
    job->cli = cli;
    watch(job, &job->in, job->child.in, POLLOUT, on_writable);
    watch(job, &job->out, job->child.out, POLLIN, on_reply);
    watch(job, &job->err, job->child.err, POLLIN, on_complaint);
    watch(job, &job->end, job->child.pidfd, POLLIN, on_ended);
    return 0;
}

void cli_job_pause(cli_job *job, bool pause)
{
    if (pause)
        cli_unwatch(&job->out);
    else if (job->child.out >= 0)
        cli_watch(job->cli, &job->out);
}

void cli_job_signal(cli_job *job, int number)
{
    if (job->child.pid > 0 && job->child.pidfd >= 0)
        kill(-job->child.pid, number);
}

void cli_job_kill(cli_job *job)
{
    lim__child_kill(&job->child);
}

void cli_job_fini(cli_job *job)
{
    if (job->cli) {
        lim__child_kill(&job->child);
        close_all(job);
    }
    lim__buf_fini(&job->input);
    lim__buf_fini(&job->reply);
    lim__buf_fini(&job->complaint);
    lim__buf_fini(&job->said);
}

int cli_job_exit(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
