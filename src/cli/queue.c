/* SPDX-License-Identifier: Apache-2.0
 * queue.c - what is done to queues, their tasks, dead letters and workers: rules, limits, pause, drain, purge, replay.
 */
#include "cli/admin.h"

#include <stdio.h>
#include <stdlib.h>

enum { DRAIN_LOOK_US = 100000 };

static const char *verb(const struct cli *cli)
{
    return cli->args.words[1];
}

/* ---- why ---- */

static void why_line(struct cli *cli, lim__val v)
{
    unsigned long long waiting = lim__val_u64(v, "waiting", 0), running = lim__val_u64(v, "in_flight", 0);
    const char *why = lim__val_str(v, "why", ""), *text = lim__val_str(v, "text", "");
    lim__buf_format(&cli->out, "%s: ", lim__val_str(v, "queue", cli_word(cli, 0)));
    if (waiting == 0 && !*why)
        lim__buf_format(&cli->out, "nothing waits, %llu running\n", running);
    else if (waiting == 0)
        lim__buf_format(&cli->out, "%s - %s\n", why, text);
    else
        lim__buf_format(&cli->out, "%llu task%s wait%s: %s%s%s\n", waiting, waiting == 1 ? "" : "s",
                        waiting == 1 ? "s" : "", why, *why ? " - " : "", text);
}

static bool ask_why(struct cli *cli, lim__doc *doc)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, "why");
    lim__json_str(&j, "queue", cli_word(cli, 0));
    return cli_request_end(cli, &j, "$sys.queues", cli_word(cli, 0), doc);
}

static void why_once(struct cli *cli, lim__doc *doc)
{
    if (!ask_why(cli, doc))
        return;
    cli_block(cli);
    if (cli->opts->json)
        cli_value_json(cli, lim__doc_root(doc));
    else
        why_line(cli, lim__doc_root(doc));
}

int cli_run_queue_why(struct cli *cli)
{
    return cli_repeat(cli, why_once);
}

/* ---- settings ---- */

static int configure(struct cli *cli, lim__json *j, int from)
{
    for (int i = from; cli_word(cli, i); i++) {
        if (cli_setting(cli, j, cli_word(cli, i)))
            continue;
        lim__buf_fini(j->buf);
        return cli->code;
    }
    return cli_once(cli, j, "$sys.queues", cli_word(cli, 0), cli_value_show);
}

int cli_run_queue_configure(struct cli *cli)
{
    lim__buf b = { 0 };
    if (!cli->opts->durable && !cli_word(cli, 1) && strcmp(verb(cli), "configure") == 0) {
        cli_fault(cli, CLI_USAGE, "queue configure", "no setting is given", "write NAME=VALUE, or --durable");
        return CLI_USAGE;
    }
    lim__json j = cli_request(&b, "configure");
    lim__json_str(&j, "queue", cli_word(cli, 0));
    if (cli->opts->durable)
        lim__json_bool(&j, "durable", true);
    return configure(cli, &j, 1);
}

int cli_run_queue_limit(struct cli *cli)
{
    lim__buf b = { 0 };
    if (!cli->opts->clear == !cli_word(cli, 2)) {
        cli_fault(cli, CLI_USAGE, "queue limit", cli->opts->clear ? "a limit and --clear" : "no limit is given",
                  "write in_flight_max=N, rate=N rate_period=D, or --clear");
        return CLI_USAGE;
    }
    lim__json j = cli_request(&b, "limit");
    lim__json_str(&j, "queue", cli_word(cli, 0));
    lim__json_str(&j, "key", cli_word(cli, 1));
    if (cli->opts->clear)
        lim__json_bool(&j, "clear", true);
    return configure(cli, &j, 2);
}

/* ---- pause, resume, drain, unpark, purge ---- */

static void state_line(struct cli *cli, lim__val v)
{
    bool paused = lim__val_bool(v, "paused", false), draining = lim__val_bool(v, "draining", false);
    if (cli->opts->json) {
        cli_value_json(cli, v);
        return;
    }
    lim__buf_format(&cli->out, "%s: %s%s%s, %llu waiting, %llu running\n", lim__val_str(v, "queue", cli_word(cli, 0)),
                    paused ? "paused" : "", paused && draining ? " and " : "",
                    draining ? "draining"
                    : paused ? ""
                             : "open",
                    (unsigned long long)lim__val_u64(v, "waiting", 0),
                    (unsigned long long)lim__val_u64(v, "in_flight", 0));
}

/* After `drain`: until nothing waits or runs. */
static void await_empty(struct cli *cli, lim__doc *doc)
{
    while (!cli->ended && ask_why(cli, doc)) {
        lim__val v = lim__doc_root(doc);
        if (lim__val_u64(v, "waiting", 0) + lim__val_u64(v, "in_flight", 0) == 0 || !cli_pause(cli, DRAIN_LOOK_US))
            break;
    }
}

static void change_state(struct cli *cli, lim__doc *doc)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, verb(cli));
    lim__json_str(&j, "queue", cli_word(cli, 0));
    if (!cli_request_end(cli, &j, "$sys.queues", cli_word(cli, 0), doc))
        return;
    state_line(cli, lim__doc_root(doc));
    if (cli->opts->wait)
        await_empty(cli, doc);
}

int cli_run_queue_state(struct cli *cli)
{
    return cli_repeat(cli, change_state);
}

int cli_run_queue_unpark(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, "unpark");
    lim__json_str(&j, "queue", cli_word(cli, 0));
    lim__json_str(&j, "order_key", cli_word(cli, 1));
    return cli_once(cli, &j, "$sys.queues", cli_word(cli, 1), state_line);
}

/* {"purged":12}, {"dropped":1} */
static void count_line(struct cli *cli, lim__val v)
{
    lim__iter it = lim__iter_begin(v);
    uint64_t n;
    if (cli->opts->json)
        cli_value_json(cli, v);
    while (!cli->opts->json && lim__iter_next(&it)) {
        if (lim__val_as_u64(it.val, &n))
            lim__buf_format(&cli->out, "%.*s %llu\n", (int)it.key.len, (const char *)it.key.ptr, (unsigned long long)n);
    }
}

int cli_run_queue_purge(struct cli *cli)
{
    return cli_do(cli, "$sys.queues", "purge", "queue", cli_word(cli, 0), count_line);
}

/* ---- tasks ---- */

int cli_run_task_cancel(struct cli *cli)
{
    return cli_do(cli, "$sys.tasks", "cancel", "id", cli_word(cli, 0), NULL);
}

int cli_run_task_retry(struct cli *cli)
{
    return cli_do(cli, "$sys.tasks", "retry", "id", cli_word(cli, 0), NULL);
}

/* ---- dead letters ---- */

static void replayed_lines(struct cli *cli, lim__val v)
{
    lim__iter it = lim__iter_begin(lim__val_get(v, "replayed"));
    if (cli->opts->json)
        cli_value_json(cli, v);
    while (!cli->opts->json && lim__iter_next(&it))
        lim__buf_format(&cli->out, "%s: task %s\n", lim__val_str(it.val, "id", "?"), lim__val_str(it.val, "task", "?"));
    uint64_t left = lim__val_u64(v, "left", 0);
    if (!cli->opts->json && left > 0)
        lim__buf_format(&cli->out, "%llu more follow by themselves\n", (unsigned long long)left);
}

/* replay, drop: one by its id, or with --all those of a queue. */
int cli_run_dead(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, verb(cli));
    lim__json_str(&j, cli->opts->all ? "queue" : "id", cli_word(cli, 0));
    if (cli->opts->all)
        lim__json_bool(&j, "all", true);
    return cli_once(cli, &j, "$sys.dead", cli_word(cli, 0),
                    strcmp(verb(cli), "drop") == 0 ? count_line : replayed_lines);
}

/* ---- workers ---- */

static void worker_lines(struct cli *cli, lim__val v)
{
    lim__iter it = lim__iter_begin(lim__val_get(v, "workers"));
    if (cli->opts->json)
        cli_value_json(cli, v);
    while (!cli->opts->json && lim__iter_next(&it))
        lim__buf_format(&cli->out, "%s: %s, %llu in hand\n", lim__val_str(it.val, "identity", "?"),
                        lim__val_bool(it.val, "draining", false) ? "draining" : "takes work",
                        (unsigned long long)lim__val_u64(it.val, "in_flight", 0));
}

int cli_run_worker_drain(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, verb(cli));
    lim__json_str(&j, "identity", cli_word(cli, 0));
    if (cli_word(cli, 1))
        lim__json_str(&j, "queue", cli_word(cli, 1));
    return cli_once(cli, &j, "$sys.workers", cli_word(cli, 0), worker_lines);
}
