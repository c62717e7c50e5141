/* SPDX-License-Identifier: Apache-2.0
 * ask.c - one request, one outcome. ^C cancels it and still prints how it ended. */
#include "cli/cli.h"

enum { TIMEOUT_US = 5000000, CANCEL_GRACE_MS = 500 };

typedef struct asking {
    struct cli *cli;
    uint64_t call;
} asking;

static void print_json(struct cli *cli, const lim_outcome *outcome)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    cli_outcome_json(&j, outcome, false);
    cli_json_id(&j, "conversation", outcome->conv.id);
    lim__json_close(&j);
    lim__buf_text(&cli->out, "\n");
}

static void print_reply(struct cli *cli, lim_bytes payload)
{
    lim__buf_add(&cli->out, payload.ptr, payload.len);
    if (payload.len == 0 || ((const char *)payload.ptr)[payload.len - 1] != '\n')
        lim__buf_text(&cli->out, "\n");
}

static void on_outcome(void *ctx, const lim_outcome *outcome)
{
    asking *a = ctx;
    if (a->cli->link == CLI_LINK_CLOSING)
        return;
    if (a->cli->opts->json)
        print_json(a->cli, outcome);
    else if (outcome->how == LIM_HOW_REPLY)
        print_reply(a->cli, outcome->payload);
    if (outcome->how != LIM_HOW_REPLY)
        cli_outcome_fault(a->cli, "", outcome);
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

static void start(asking *a, lim_bytes request)
{
    const cli_opts *o = a->cli->opts;
    int64_t us = o->timeout_us ? o->timeout_us : TIMEOUT_US;
    const lim_ask_opts opts = { .size = sizeof opts,
                                .timeout_ms = us == LIM_FOREVER ? LIM_FOREVER : (us + 999) / 1000,
                                .on_crash = o->next ? LIM_CRASH_NEXT : LIM_CRASH_FAIL,
                                .type = o->types.items[0],
                                .wait = o->wait };
    lim_err err = lim_client_ask_async(a->cli->client, cli_word(a->cli, 0), request, &opts, on_outcome, a, &a->call);
    if (err == LIM_OK)
        return;
    cli_err(a->cli, cli_word(a->cli, 0), err, NULL);
    cli_end(a->cli, CLI_DONE);
}

int cli_run_ask(struct cli *cli)
{
    asking a = { .cli = cli };
    lim__buf keep = { 0 };
    if (cli->opts->types.count > 1) {
        cli_fault(cli, CLI_USAGE, "--type", "a request has one type", "give it once");
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
    return cli->code;
}
