/* SPDX-License-Identifier: Apache-2.0
 * pub.c - publish one message, or each line of standard input.
 *
 * Lines are pipelined: as many as UNANSWERED_MAX are on their way, then standard input waits. Verdicts come back in the
 * order of the lines. */
#include "cli/cli.h"

#include <stdio.h>

enum { UNANSWERED_MAX = 4096 };

typedef struct publishing {
    struct cli *cli;
    cli_lines lines;
    lim_bytes held; /* a line that found too much waiting to be written; lines are paused meanwhile */
    bool from_lines, all_sent, holding;
    uint64_t unanswered;
} publishing;

static void say_reject(struct cli *cli, const lim_admission *a)
{
    char why[96], todo[96];
    int n = snprintf(why, sizeof why, "rejected: %s", lim_why_text(a->why));
    if (a->limit > 0 && n > 0)
        snprintf(why + n, sizeof why - (size_t)n, " (limit %u, now %u)", (unsigned)a->limit, (unsigned)a->current);
    if (a->why == LIM_WHY_BAD_NAME)
        snprintf(todo, sizeof todo, "use letters, digits, - and _, in parts joined by dots");
    else if (a->retry_after_ms > 0)
        snprintf(todo, sizeof todo, "try again after %u ms", (unsigned)a->retry_after_ms);
    else
        snprintf(todo, sizeof todo,
                 a->why == LIM_WHY_NO_SUBSCRIBER ? "somebody must subscribe first" : "it was not kept");
    cli_fault(cli, CLI_REJECTED, cli_word(cli, 0), why, todo);
}

static void say_verdict(publishing *p, const lim_admission *a)
{
    lim__buf *out = &p->cli->out;
    if (p->cli->opts->json) {
        lim__json j = lim__json_begin(out);
        lim__json_open(&j, NULL, '{');
        cli_admission_json(&j, a);
        lim__json_u64(&j, "matched", a->matched);
        lim__json_u64(&j, "delivered", a->delivered);
        lim__json_u64(&j, "deferred", a->deferred);
        lim__json_u64(&j, "dropped", a->dropped);
        lim__json_u64(&j, "limit", a->limit);
        lim__json_u64(&j, "current", a->current);
        lim__json_u64(&j, "retry_after_ms", a->retry_after_ms);
        lim__json_close(&j);
        lim__buf_text(out, "\n");
        return;
    }
    if (a->verdict == LIM_REJECT) {
        say_reject(p->cli, a);
        return;
    }
    lim__buf_format(out, "%s: ", cli_verdict_text(a->verdict));
    if (a->verdict == LIM_DEFER)
        lim__buf_text(out, lim_why_text(a->why));
    else
        lim__buf_format(out, "%u subscriber%s", (unsigned)a->matched, a->matched == 1 ? "" : "s");
    if (a->limit > 0)
        lim__buf_format(out, ", limit %u, now %u", (unsigned)a->limit, (unsigned)a->current);
    lim__buf_text(out, "\n");
}

static void end_if_done(publishing *p)
{
    if (p->all_sent && p->unanswered == 0)
        cli_end(p->cli, CLI_DONE);
}

static void send_lines(void *state);

static void on_admission(void *ctx, lim_err err, const lim_admission *admission)
{
    publishing *p = ctx;
    p->unanswered--;
    if (p->cli->link == CLI_LINK_CLOSING)
        return;
    if (err == LIM_E_CLOSED) {
        cli_end(p->cli, CLI_UNREACHABLE); /* the link's own fault is what is told */
        return;
    }
    if (err != LIM_OK) {
        cli_err(p->cli, "publish", err, NULL);
    } else {
        say_verdict(p, admission);
        if (admission->verdict == LIM_REJECT)
            p->cli->code = cli_worse(p->cli->code, CLI_REJECTED);
    }
    if (p->from_lines && (p->holding || p->unanswered == UNANSWERED_MAX / 2))
        send_lines(p);
    end_if_done(p);
}

/* False: too much waits to be written, an answer must come first. Other refusals are told and count as offered. */
static bool offer(publishing *p, lim_bytes payload)
{
    const lim_publish_opts opts = { .size = sizeof opts, .mandatory = p->cli->opts->mandatory };
    lim_err err = lim_client_publish_async(p->cli->client, cli_word(p->cli, 0), payload, &opts, on_admission, p);
    if (err == LIM_OK)
        p->unanswered++;
    else if (err == LIM_E_FULL && p->unanswered > 0)
        return false;
    else
        cli_err(p->cli, cli_word(p->cli, 0), err, NULL);
    if (err != LIM_OK && err != LIM_E_TOOBIG)
        cli_end(p->cli, CLI_DONE);
    return true;
}

/* The held line, or the next one. */
static bool next_line(publishing *p, lim_bytes *line)
{
    *line = p->held;
    return p->holding || cli_lines_next(&p->lines, line);
}

static void send_lines(void *state)
{
    publishing *p = state;
    lim_bytes line;
    bool more = true;
    while (more && !p->cli->ended && p->unanswered < UNANSWERED_MAX && next_line(p, &line)) {
        more = offer(p, line);
        p->holding = !more;
        p->held = line;
    }
    more = more && p->unanswered < UNANSWERED_MAX;
    p->all_sent = more && p->lines.at_end;
    cli_lines_pause(&p->lines, !more);
    end_if_done(p);
}

int cli_run_pub(struct cli *cli)
{
    publishing p = { .cli = cli };
    const char *text = cli_word(cli, 1);
    p.from_lines = text && strcmp(text, "-") == 0;
    if (!cli_connect(cli, false))
        return cli->code;
    cli->state = &p;
    if (p.from_lines) {
        cli_lines_open(&p.lines, cli, send_lines);
    } else {
        p.all_sent = true;
        offer(&p, lim__str(text ? text : ""));
        end_if_done(&p);
    }
    int code = cli_run(cli);
    if (p.from_lines)
        cli_lines_close(&p.lines);
    return code;
}
