/* SPDX-License-Identifier: Apache-2.0
 * ask.c - one request, one outcome: of one participant, of a stream of parts, of everybody, or of the first of them.
 * ^C cancels it and still prints how it ended. */
#include "cli/cli.h"

#include <stdlib.h>

enum { TIMEOUT_US = 5000000, CANCEL_GRACE_MS = 500 };

typedef struct asking {
    struct cli *cli;
    uint64_t call;
    bool first; /* --any: `reply` is the first one's, from `who` */
    lim__buf reply, who;
} asking;

/* ---- printing ---- */

static void print_json(struct cli *cli, const lim_outcome *outcome)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    cli_outcome_json(&j, outcome, false);
    cli_json_id(&j, "conversation", outcome->conv.id);
    cli_json_id(&j, "compensation", outcome->compensation.id);
    lim__json_close(&j);
    lim__buf_text(&cli->out, "\n");
}

static void print_payload(struct cli *cli, lim_bytes payload)
{
    lim__buf_add(&cli->out, payload.ptr, payload.len);
    if (payload.len == 0 || ((const char *)payload.ptr)[payload.len - 1] != '\n')
        lim__buf_text(&cli->out, "\n");
}

/* A part of a stream, or the answer of one of many. */
static void print_part(struct cli *cli, const lim_part_view *part)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    lim__json_u64(&j, "part", part->seq);
    lim__json_bytes(&j, "participant", part->participant);
    if (cli->opts->all)
        lim__json_str(&j, "outcome", lim_how_text(part->how));
    if (part->how == LIM_HOW_REPLY)
        cli_json_payload(&j, part->payload);
    else
        lim__json_bytes(&j, "detail", part->detail);
    lim__json_close(&j);
    lim__buf_text(&cli->out, "\n");
}

/* "worker-1: its reply"; who did not reply is told on standard error. */
static void print_answer(struct cli *cli, const lim_part_view *part)
{
    int len = (int)part->participant.len;
    const char *who = part->participant.ptr;
    if (part->how != LIM_HOW_REPLY) {
        cli_note("liminal: %.*s: %s%s%.*s", len, who, lim_how_text(part->how), part->detail.len > 0 ? ": " : "",
                 (int)part->detail.len, part->detail.len > 0 ? (const char *)part->detail.ptr : "");
        return;
    }
    lim__buf_format(&cli->out, "%.*s: ", len, who);
    print_payload(cli, part->payload);
}

/* ---- the answers ---- */

static lim_done on_part(void *ctx, const lim_part_view *part)
{
    asking *a = ctx;
    const cli_opts *o = a->cli->opts;
    if (a->cli->link == CLI_LINK_CLOSING)
        return LIM_DONE;
    if (o->any && part->how == LIM_HOW_REPLY && !a->first) {
        a->first = true;
        lim__buf_add(&a->reply, part->payload.ptr, part->payload.len);
        lim__buf_add(&a->who, part->participant.ptr, part->participant.len);
    } else if (!o->any && o->json) {
        print_part(a->cli, part);
    } else if (o->all) {
        print_answer(a->cli, part);
    } else if (!o->any) {
        print_payload(a->cli, part->payload);
    }
    return LIM_DONE;
}

/* Of a stream the parts have been printed, and of many the answers: a reply without a payload adds nothing. */
static void print_outcome(asking *a, const lim_outcome *o)
{
    const cli_opts *opts = a->cli->opts;
    if (opts->json)
        print_json(a->cli, o);
    else if (o->how == LIM_HOW_REPLY && !opts->all && (o->payload.len > 0 || !opts->stream))
        print_payload(a->cli, o->payload);
    if (!opts->json)
        cli_outcome_rerouted(o);
    if (o->how != LIM_HOW_REPLY)
        cli_outcome_fault(a->cli, "", o);
}

static void on_outcome(void *ctx, const lim_outcome *outcome)
{
    asking *a = ctx;
    lim_outcome seen = *outcome;
    if (a->cli->link == CLI_LINK_CLOSING)
        return;
    if (a->first && outcome->how == LIM_HOW_REPLY) {
        seen.payload = lim__buf_bytes(&a->reply);
        seen.participant = lim__buf_bytes(&a->who);
    }
    print_outcome(a, &seen);
    cli_end(a->cli, cli_outcome_code(outcome));
}

static void on_alarm(void *state)
{
    asking *a = state;
    cli_end(a->cli, CLI_CANCELLED);
}

static void on_interrupt(void *state)
{
    asking *a = state;
    if (lim_client_cancel(a->cli->client, a->call) != LIM_OK)
        cli_end(a->cli, CLI_CANCELLED);
    a->cli->alarm_ns = cli_now_ns() + CANCEL_GRACE_MS * UINT64_C(1000000);
}

/* ---- the question ---- */

static lim_err offer(asking *a, lim_bytes request, const lim_ask_opts *opts)
{
    lim_client *c = a->cli->client;
    const char *group = cli_word(a->cli, 0);
    const cli_opts *o = a->cli->opts;
    if (o->all || o->any)
        return lim_client_ask_all(c, group, request, opts, on_part, on_outcome, a, &a->call);
    if (o->stream)
        return lim_client_ask_stream(c, group, request, opts, on_part, on_outcome, a, &a->call);
    return lim_client_ask_async(c, group, request, opts, on_outcome, a, &a->call);
}

static void start(asking *a, lim_bytes request)
{
    const cli_opts *o = a->cli->opts;
    int64_t us = o->timeout_us ? o->timeout_us : TIMEOUT_US;
    const lim_ask_opts opts = { .size = sizeof opts,
                                .timeout_ms = us == LIM_FOREVER ? LIM_FOREVER : (us + 999) / 1000,
                                .on_crash = o->compensate ? LIM_CRASH_COMPENSATE
                                            : o->next     ? LIM_CRASH_NEXT
                                                          : LIM_CRASH_FAIL,
                                .type = o->types.items[0],
                                .wait = o->wait,
                                .compensate = o->compensate,
                                .cause = cli_cause(true),
                                .trace = o->trace,
                                .durable = o->durable,
                                .window = o->stream ? o->window : 0,
                                .quorum = o->any ? 1 : o->quorum };
    lim_err err = offer(a, request, &opts);
    if (err == LIM_OK)
        return;
    cli_err(a->cli, cli_word(a->cli, 0), err, NULL);
    cli_end(a->cli, CLI_DONE);
}

/* What is wrong with the flags together, or NULL. */
static const char *flags_problem(const cli_opts *o)
{
    if (o->types.count > 1)
        return "--type: a request has one type; give it once";
    if (o->all + o->any + o->stream > 1)
        return "--all, --any, --stream: an ask is one of them; choose";
    if (o->quorum && !o->all)
        return "--quorum: it counts the replies of many; write --all --quorum N";
    if (o->next && o->compensate)
        return "--next, --compensate: a crash has one consequence; choose";
    if ((o->all || o->any) && (o->next || o->compensate || o->wait))
        return "--all: whoever is there is asked once; leave out --next, --compensate and --wait";
    return NULL;
}

int cli_run_ask(struct cli *cli)
{
    asking a = { .cli = cli };
    lim__buf keep = { 0 };
    const char *problem = flags_problem(cli->opts);
    if (problem) {
        cli_note("liminal: %s", problem);
        return CLI_USAGE;
    }
    lim_bytes request = cli_payload(cli, 1, &keep);
    if (!cli->told && cli_connect(cli, false)) {
        cli->state = &a;
        cli->on_interrupt = on_interrupt;
        cli->on_alarm = on_alarm;
        start(&a, request);
        cli_run(cli);
    }
    lim__buf_fini(&keep);
    lim__buf_fini(&a.reply);
    lim__buf_fini(&a.who);
    return cli->code;
}

/* ---- task await ---- */

static void on_too_late(void *state)
{
    asking *a = state;
    cli_fault(a->cli, CLI_TIMEOUT, cli_word(a->cli, 0), "it has not ended yet", "it goes on; see liminal task show");
    cli_end(a->cli, CLI_TIMEOUT);
}

static void on_awaited(void *ctx, const lim_outcome *outcome)
{
    asking *a = ctx;
    bool unknown = outcome->how == LIM_HOW_REFUSED && outcome->why == LIM_WHY_NO_PARTICIPANT && outcome->conv.id == 0;
    if (unknown && a->cli->link != CLI_LINK_CLOSING) {
        cli_fault(a->cli, CLI_NOT_FOUND, cli_word(a->cli, 0), "no such task, or it ended too long ago",
                  "liminal task ls QUEUE lists those that wait or run");
        cli_end(a->cli, CLI_NOT_FOUND);
        return;
    }
    on_outcome(ctx, outcome);
}

static void on_stop(void *state)
{
    cli_end(((asking *)state)->cli, CLI_CANCELLED);
}

int cli_run_task_await(struct cli *cli)
{
    asking a = { .cli = cli };
    lim_conv task;
    int64_t us = cli->opts->timeout_us;
    if (!cli_id(cli_word(cli, 0), &task.id)) {
        cli_fault(cli, CLI_USAGE, cli_word(cli, 0), "no id of a task", "dispatch prints it, and task ls does");
        return CLI_USAGE;
    }
    if (!cli_connect(cli, false))
        return cli->code;
    cli->state = &a;
    cli->on_interrupt = on_stop;
    cli->on_alarm = on_too_late;
    cli->alarm_ns = us == 0 || us == LIM_FOREVER ? 0 : cli_now_ns() + (uint64_t)us * 1000;
    lim_err err = lim_client_await_async(cli->client, task, on_awaited, &a, &a.call);
    if (err != LIM_OK) {
        cli_err(cli, cli_word(cli, 0), err, NULL);
        cli_end(cli, CLI_DONE);
    }
    return cli_run(cli);
}
