/* SPDX-License-Identifier: Apache-2.0
 * pipe.c - consume, transform, produce: what a command makes of each message of one channel goes to another.
 *
 *   message --stdin--> command --stdout--> step { publish to OUT, acknowledge in IN } --stored--> next
 *                         `--exit != 0--> not acknowledged: it comes again, later each time
 *
 * The result and the acknowledgement are one step: however often this program, the server or the machine dies, OUT has
 * one result of each message. The command itself may run again. One at a time and in order, unless --capacity says
 * more. */
#include "cli/job.h"

#include <stdio.h>
#include <stdlib.h>

enum { AGAIN_MS = 1000 }; /* after a step that could not be stored */

typedef struct piping {
    struct cli *cli;
    const char *in, *out;
    lim_sub sub;
    lim__list works;
    uint32_t done;
} piping;

typedef struct work {
    cli_job job;
    lim__list node;
    piping *p;
    uint64_t seq;
} work;

static void work_free(work *w)
{
    lim__list_remove(&w->node);
    cli_job_fini(&w->job);
    free(w);
}

static void say(piping *p, uint64_t seq, const char *what)
{
    lim__buf *out = &p->cli->out;
    if (!p->cli->opts->json) {
        lim__buf_format(out, "%llu %s\n", (unsigned long long)seq, what);
        return;
    }
    lim__json j = lim__json_begin(out);
    lim__json_open(&j, NULL, '{');
    lim__json_u64(&j, "seq", seq);
    lim__json_str(&j, "state", what);
    lim__json_close(&j);
    lim__buf_text(out, "\n");
}

static void again(work *w, int64_t delay_ms)
{
    piping *p = w->p;
    lim_err err = lim_client_nack(p->cli->client, p->sub, w->seq, delay_ms);
    (void)err; /* the connection is away: it comes again in any case */
    work_free(w);
}

static void on_step(void *ctx, lim_err err, const char *detail)
{
    work *w = ctx;
    piping *p = w->p;
    if (cli_over(p->cli)) {
        work_free(w);
        return;
    }
    if (err != LIM_OK) {
        cli_note("liminal: pipe: message %llu: %s; it comes again", (unsigned long long)w->seq,
                 detail[0] != '\0' ? detail : lim_err_text(err));
        again(w, AGAIN_MS);
        return;
    }
    say(p, w->seq, "done");
    work_free(w);
    if (++p->done == p->cli->opts->max)
        cli_end(p->cli, CLI_DONE);
}

/* Its output without the last end of line; none at all: only acknowledged. */
static lim_err commit(work *w)
{
    piping *p = w->p;
    lim_client_step *step;
    lim_bytes result = lim__buf_bytes(&w->job.reply);
    if (result.len > 0 && ((const char *)result.ptr)[result.len - 1] == '\n')
        result.len--;
    lim_err err = lim_client_step_new(p->cli->client, &step);
    if (err != LIM_OK)
        return err;
    const lim_publish_opts opts = { .size = sizeof opts, .key = p->cli->opts->key };
    if (result.len > 0)
        err = lim_client_step_publish(step, p->out, result, &opts);
    if (err == LIM_OK)
        err = lim_client_step_ack(step, p->sub, w->seq);
    if (err == LIM_OK)
        return lim_client_step_commit(step, on_step, w);
    lim_client_step_free(step);
    return err;
}

static void on_child_end(cli_job *job, int status)
{
    work *w = LIM_CONTAINER(job, work, job);
    if (cli_over(w->p->cli)) {
        work_free(w);
        return;
    }
    if (cli_job_exit(status) != 0 || job->overflowed) {
        lim_bytes said = cli_trim(lim__buf_bytes(&job->complaint));
        cli_note("liminal: pipe: message %llu: exit %d%s%.*s; it comes again", (unsigned long long)w->seq,
                 cli_job_exit(status), said.len > 0 ? ": " : "", (int)said.len,
                 said.len > 0 ? (const char *)said.ptr : "");
        again(w, AGAIN_MS);
        return;
    }
    lim_err err = commit(w);
    if (err != LIM_OK) { /* the connection is away */
        cli_note("liminal: pipe: message %llu: %s; it comes again", (unsigned long long)w->seq, lim_err_text(err));
        again(w, AGAIN_MS);
    }
}

static lim_done on_message(lim_client *client, const lim_delivery *d, void *ctx)
{
    piping *p = ctx;
    char seq[48];
    const char *env[] = { seq, NULL };
    (void)client;
    work *w = cli_over(p->cli) ? NULL : calloc(1, sizeof *w);
    if (w == NULL)
        return LIM_FAIL;
    snprintf(seq, sizeof seq, "LIMINAL_SEQ=%llu", (unsigned long long)d->seq);
    *w = (work){ .p = p, .seq = d->seq, .job = { .on_end = on_child_end } };
    lim__list_push(&p->works, &w->node);
    if (cli_job_start(&w->job, p->cli, p->cli->opts->exec, env, d->payload) == 0)
        return LIM_HOLD;
    work_free(w);
    cli_fault(p->cli, CLI_FAILED, p->cli->opts->exec, "it could not be started", "look at the limits of this machine");
    cli_end(p->cli, CLI_FAILED);
    return LIM_FAIL;
}

static void on_end(void *ctx, lim_err why, const char *detail)
{
    piping *p = ctx;
    lim_diag diag = { 0 };
    if (cli_over(p->cli))
        return;
    lim__diag_set(&diag, 0, 0, "%s", detail ? detail : "");
    cli_err(p->cli, p->in, why == LIM_OK ? LIM_E_CLOSED : why, &diag);
    cli_end(p->cli, CLI_DONE);
}

static void on_ready(void *ctx)
{
    piping *p = ctx;
    cli_note("from %s to %s", p->in, p->out);
}

static void on_interrupt(void *state)
{
    cli_end(((piping *)state)->cli, CLI_DONE);
}

static bool begin(piping *p)
{
    const cli_opts *o = p->cli->opts;
    const lim_client_sub_opts opts = { .size = sizeof opts,
                                       .window = o->capacity ? o->capacity : 1,
                                       .handler = { .on_message = on_message, .on_end = on_end, .ctx = p },
                                       .on_ready = on_ready,
                                       .read = { .from = LIM_FROM_ALL, .cursor = o->cursor, .ack_ms = LIM_FOREVER } };
    lim_diag diag = { 0 };
    lim_err err = lim_client_subscribe(p->cli->client, p->in, &opts, &diag, &p->sub);
    if (err != LIM_OK)
        cli_err(p->cli, p->in, err, &diag);
    return err == LIM_OK;
}

int cli_run_pipe(struct cli *cli)
{
    piping p = { .cli = cli, .in = cli_word(cli, 0), .out = cli_word(cli, 1) };
    lim__list_init(&p.works);
    if (!cli->opts->exec || !cli->opts->cursor) {
        cli_fault(cli, CLI_USAGE, "pipe", cli->opts->exec ? "--cursor is missing" : "--exec is missing",
                  "write liminal pipe IN OUT --cursor NAME --exec CMD");
        return cli->code;
    }
    if (!cli_connect(cli, true))
        return cli->code;
    cli->state = &p;
    cli->on_interrupt = on_interrupt;
    if (!begin(&p))
        cli_end(cli, CLI_DONE);
    int code = cli_run(cli);
    while (!lim__list_empty(&p.works))
        work_free(LIM_CONTAINER(p.works.next, work, node));
    return code;
}
