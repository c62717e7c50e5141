/* SPDX-License-Identifier: Apache-2.0
 * sub.c - print what is published; `events` is the same for the system's own channel.
 *
 * When the connection breaks the command ends, because messages would be missed without a word; --reconnect accepts
 * that. What is printed counts as done, so a reader that is slow fills the window, then the backlog, and then the
 * policy decides.
 *
 * With a cursor (--durable) nothing is missed: the command dials again by itself, and acknowledges what has been
 * written to standard output, after it was written. The last of --max is waited for: when the command has ended, the
 * next one goes on behind it. With --ack none it looks and moves nothing: all of it comes again. */
#include "cli/cli.h"
#include "data/data.h"

#include <stdio.h>

enum { UNMOVED_MAX = 1 << 20 }; /* messages that may be looked at without an acknowledgement */

typedef struct subscribing {
    struct cli *cli;
    const char *pattern;
    bool raw;                /* payloads are JSON already */
    bool held, acknowledges; /* with a cursor; what is printed is done */
    uint32_t left;
    lim_sub sub;
    uint64_t printed, newest; /* the last one, the highest number, that was printed and not acknowledged; 0: none */
    bool last_one;            /* the one that was printed last is the last of all */
} subscribing;

static void print_headers(lim__json *j, lim_bytes headers)
{
    lim_bytes key, text;
    char name[256];
    lim__json_open(j, "headers", '{');
    for (size_t pos = 0; lim__packed_next(headers, &pos, &key, &text);) {
        snprintf(name, sizeof name, "%.*s", (int)key.len, (const char *)key.ptr);
        lim__json_bytes(j, name, text);
    }
    lim__json_close(j);
}

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
        if (d->headers.len > 0)
            print_headers(&j, d->headers);
        lim__json_close(&j);
    }
    lim__buf_text(out, "\n");
}

/* ---- acknowledging ---- */

static void on_acknowledged(void *ctx, lim_err err, const char *detail)
{
    subscribing *s = ctx;
    lim_diag diag = { 0 };
    if (s->cli->link == CLI_LINK_CLOSING)
        return;
    lim__diag_set(&diag, 0, 0, "%s", detail);
    if (err != LIM_OK)
        cli_err(s->cli, "the last acknowledgement", err, &diag);
    cli_end(s->cli, CLI_DONE);
}

/* All is written. */
static void on_written(void *state)
{
    subscribing *s = state;
    uint64_t newest = s->newest, last = s->printed;
    if (newest == 0 || s->cli->out_gone)
        return;
    s->newest = s->printed = 0;
    lim_err err = LIM_OK;
    if (s->last_one && last > 1) /* the others first, so that the answer to the last is one to all */
        (void)!lim_client_complete(s->cli->client, s->sub, last - 1);
    if (s->last_one)
        err = lim_client_ack(s->cli->client, s->sub, last, on_acknowledged, s);
    if (!s->last_one || newest > last)
        (void)!lim_client_complete(s->cli->client, s->sub, newest); /* the connection is away: they come again */
    if (s->last_one && err != LIM_OK)
        cli_end(s->cli, CLI_DONE); /* likewise: not this one's to acknowledge any more */
}

static lim_done on_message(lim_client *client, const lim_delivery *d, void *ctx)
{
    subscribing *s = ctx;
    (void)client;
    if (cli_over(s->cli) || s->last_one)
        return s->held ? LIM_HOLD : LIM_DONE;
    print(s, d);
    s->last_one = s->left > 0 && --s->left == 0;
    if (s->acknowledges) {
        s->printed = d->seq;
        s->newest = d->seq > s->newest ? d->seq : s->newest;
        return LIM_HOLD;
    }
    if (s->last_one)
        cli_end(s->cli, CLI_DONE);
    return s->held ? LIM_HOLD : LIM_DONE;
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
    if (s->held &&
        (s->left > 0 || !s->acknowledges)) /* no more than are wanted: what is delivered and not acknowledged counts */
        (void)!lim_client_fetch(s->cli->client, s->sub, s->left > 0 ? s->left : UNMOVED_MAX, LIM_FOREVER);
}

static void on_interrupt(void *state)
{
    subscribing *s = state;
    cli_flush(s->cli); /* and so acknowledges what was printed */
    cli_end(s->cli, CLI_DONE);
}

static bool read_opts(struct cli *cli, lim_read_opts *read)
{
    const cli_opts *o = cli->opts;
    int64_t ms = o->ack_wait_us == LIM_FOREVER ? LIM_FOREVER : (o->ack_wait_us + 999) / 1000;
    *read = (lim_read_opts){ .cursor = o->cursor,
                             .shared = o->shared,
                             .standby = o->standby,
                             .ack_ms = ms,
                             .deliveries_max = o->deliveries_max,
                             .dead_letter = o->dead_letter,
                             .last_per_key = o->last };
    if (o->cursor && o->ack == CLI_ACK_NONE && o->ack_wait_us == 0)
        read->ack_ms = LIM_FOREVER; /* it is not given again before this one leaves */
    return cli_from(cli, o->from, &read->from, &read->start);
}

static int subscribe(struct cli *cli, const char *pattern, bool raw)
{
    subscribing s = { .cli = cli, .pattern = pattern, .raw = raw, .left = cli->opts->max };
    lim_client_sub_opts opts = { .size = sizeof opts,
                                 .window = cli->opts->window,
                                 .backlog = cli->opts->backlog,
                                 .policy = (lim_policy)cli->opts->policy,
                                 .handler = { .on_message = on_message, .on_end = on_end, .ctx = &s },
                                 .on_ready = on_ready };
    lim_diag diag = { 0 };
    if (!read_opts(cli, &opts.read))
        return cli->code;
    s.held = opts.read.cursor != NULL;
    s.acknowledges = s.held && cli->opts->ack != CLI_ACK_NONE;
    if (s.held && (s.left > 0 || !s.acknowledges))
        opts.window = LIM_PULL;
    if (!cli_connect(cli, cli->opts->reconnect || s.held))
        return cli->code;
    cli->state = &s;
    cli->on_interrupt = on_interrupt;
    cli->on_written = s.acknowledges ? on_written : NULL;
    lim_err err = lim_client_subscribe(cli->client, pattern, &opts, &diag, &s.sub);
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
