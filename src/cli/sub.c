/* SPDX-License-Identifier: Apache-2.0
 * sub.c - print what is published; `events` is the same for the system's own channel.
 *
 * When the connection breaks the command ends, because messages would be missed without a word; --reconnect accepts
 * that. What is printed counts as done, so a reader that is slow fills the window, then the backlog, and then the
 * policy decides. */
#include "cli/cli.h"

typedef struct subscribing {
    struct cli *cli;
    const char *pattern;
    bool raw; /* payloads are JSON already */
    uint32_t left;
} subscribing;

static void print(subscribing *s, const lim_delivery *d)
{
    lim__buf *out = &s->cli->out;
    if (s->raw || !s->cli->opts->json) {
        lim__buf_add(out, d->payload.ptr, d->payload.len);
    } else {
        lim__json j = lim__json_begin(out);
        lim__json_open(&j, NULL, '{');
        lim__json_bytes(&j, "channel", d->channel);
        lim__json_u64(&j, "seq", d->seq);
        cli_json_payload(&j, d->payload);
        lim__json_u64(&j, "bytes", d->payload.len);
        lim__json_close(&j);
    }
    lim__buf_text(out, "\n");
}

static lim_done on_message(lim_client *client, const lim_delivery *d, void *ctx)
{
    subscribing *s = ctx;
    (void)client;
    if (cli_over(s->cli))
        return LIM_DONE;
    print(s, d);
    if (s->left > 0 && --s->left == 0)
        cli_end(s->cli, CLI_DONE);
    return LIM_DONE;
}

static void on_end(void *ctx, lim_err why, const char *detail)
{
    subscribing *s = ctx;
    if (cli_over(s->cli))
        return;
    lim_diag diag = { 0 };
    lim__diag_set(&diag, 0, 0, "%s", detail ? detail : "");
    if (why == LIM_OK || why == LIM_E_CLOSED)
        cli_fault(s->cli, CLI_CANCELLED, s->pattern, *diag.text ? diag.text : "the subscription was closed",
                  "subscribe again, read faster, or choose another --policy");
    else
        cli_err(s->cli, s->pattern, why, &diag);
    cli_end(s->cli, CLI_DONE);
}

static void on_ready(void *ctx)
{
    subscribing *s = ctx;
    cli_note("subscribed to %s", s->pattern);
}

static void on_interrupt(void *state)
{
    subscribing *s = state;
    cli_end(s->cli, CLI_DONE);
}

static int subscribe(struct cli *cli, const char *pattern, bool raw)
{
    subscribing s = { .cli = cli, .pattern = pattern, .raw = raw, .left = cli->opts->max };
    const lim_client_sub_opts opts = { .size = sizeof opts,
                                       .window = cli->opts->window,
                                       .backlog = cli->opts->backlog,
                                       .policy = (lim_policy)cli->opts->policy,
                                       .handler = { .on_message = on_message, .on_end = on_end, .ctx = &s },
                                       .on_ready = on_ready };
    lim_diag diag = { 0 };
    lim_sub sub = { 0 };
    if (!cli_connect(cli, cli->opts->reconnect))
        return cli->code;
    cli->state = &s;
    cli->on_interrupt = on_interrupt;
    lim_err err = lim_client_subscribe(cli->client, pattern, &opts, &diag, &sub);
    if (err != LIM_OK) {
        cli_err(cli, pattern, err, &diag);
        cli_end(cli, CLI_DONE);
    }
    return cli_run(cli);
}

int cli_run_sub(struct cli *cli)
{
    return subscribe(cli, cli_word(cli, 0), false);
}

int cli_run_events(struct cli *cli)
{
    return subscribe(cli, "$sys.events.>", true);
}
