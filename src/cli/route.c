/* SPDX-License-Identifier: Apache-2.0
 * route.c - router slots: what is in them, what happened, what functions printed; rolling back and ending trials. */
#include "cli/admin.h"
#include "cli/routed.h"

#include <stdio.h>
#include <stdlib.h>

enum { LOOK_US = 500000 };

static bool ask_route(struct cli *cli, const char *op, uint64_t after, lim__doc *doc)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, op);
    lim__json_str(&j, cli->opts->channel ? "channel" : "group", cli_word(cli, 0));
    if (after > 0)
        lim__json_u64(&j, "after", after);
    return cli_request_end(cli, &j, "$sys.routes", cli_word(cli, 0), doc);
}

/* The rows of a list: as a table, or a line of JSON each. */
static void print_rows(struct cli *cli, lim__val list, const char *const *columns)
{
    size_t count = 0;
    lim__val *rows = calloc(lim__val_count(list) + 1, sizeof *rows);
    lim__iter it = lim__iter_begin(list);
    while (rows && lim__iter_next(&it))
        rows[count++] = it.val;
    if (rows && !cli->opts->json)
        cli_value_table(cli, columns, rows, count);
    for (size_t i = 0; cli->opts->json && i < count; i++)
        cli_value_json(cli, rows[i]);
    free(rows);
}

/* ---- show ---- */

static void trial_lines(struct cli *cli, lim__val t)
{
    bool shadow = strcmp(lim__val_str(t, "kind", ""), "shadow") == 0;
    lim__buf *out = &cli->out;
    if (t.kind != LIM__OBJECT)
        return;
    if (!shadow) {
        const char *key = lim__val_str(t, "key", NULL), *where = lim__val_str(t, "where", NULL);
        lim__buf_format(out, "%s decides about %g %% of the messages%s%s%s%s\n", lim__val_str(t, "id", "?"),
                        lim__val_f64(t, "percent", 0), where ? " where " : "", where ? where : "",
                        key ? ", chosen by " : "", key ? key : "");
        return;
    }
    lim__buf_format(out, "%s is asked beside it: agreed %llu, differed %llu, its faults %llu (the live one's %llu)\n",
                    lim__val_str(t, "id", "?"), (unsigned long long)lim__val_u64(t, "agreed", 0),
                    (unsigned long long)lim__val_u64(t, "differed", 0),
                    (unsigned long long)lim__val_u64(t, "shadow_faults", 0),
                    (unsigned long long)lim__val_u64(t, "live_faults", 0));
    lim__iter it = lim__iter_begin(lim__val_get(t, "differences"));
    while (lim__iter_next(&it))
        lim__buf_format(out, "  live: %s  shadow: %s  message: %s\n", lim__val_str(it.val, "live", "?"),
                        lim__val_str(it.val, "shadow", "?"), lim__val_str(it.val, "message", ""));
}

static void show_once(struct cli *cli, lim__doc *doc)
{
    static const char *const columns[] = { "id",     "state",  "name",   "calls", "faults", "in_flight",
                                           "p50_ns", "p99_ns", "age_ms", "by",    NULL };
    if (!ask_route(cli, "show", 0, doc))
        return;
    lim__val v = lim__doc_root(doc);
    cli_block(cli);
    if (cli->opts->json) {
        cli_value_json(cli, v);
        return;
    }
    lim__buf_format(&cli->out, "%s %s: %s is live\n", lim__val_str(v, "kind", "group"), lim__val_str(v, "name", "?"),
                    lim__val_str(v, "live", "?"));
    if (*lim__val_str(v, "last_fault", ""))
        lim__buf_format(&cli->out, "last fault: %s\n", lim__val_str(v, "last_fault", ""));
    trial_lines(cli, lim__val_get(v, "trial"));
    print_rows(cli, lim__val_get(v, "versions"), columns);
}

int cli_run_route_show(struct cli *cli)
{
    return cli_repeat(cli, show_once);
}

/* ---- history ---- */

static void history_once(struct cli *cli, lim__doc *doc)
{
    static const char *const columns[] = { "n", "age_ms", "kind", "version", "previous", "by", "detail", NULL };
    if (!ask_route(cli, "history", 0, doc))
        return;
    cli_block(cli);
    print_rows(cli, lim__val_get(lim__doc_root(doc), "history"), columns);
}

int cli_run_route_history(struct cli *cli)
{
    return cli_repeat(cli, history_once);
}

/* ---- logs ---- */

/* Those behind `after`; answers the number of the last one. */
static uint64_t print_log(struct cli *cli, lim__val list, uint64_t after)
{
    lim__iter it = lim__iter_begin(list);
    while (lim__iter_next(&it)) {
        uint64_t n = lim__val_u64(it.val, "n", 0);
        if (after > 0 && n > after + 1)
            cli_note("liminal: %s: %llu lines were forgotten before they could be read", cli_word(cli, 0),
                     (unsigned long long)(n - after - 1));
        after = n;
        if (cli->opts->json)
            cli_value_json(cli, it.val);
        else
            lim__buf_format(&cli->out, "%s: %s\n", lim__val_str(it.val, "version", "?"),
                            lim__val_str(it.val, "line", ""));
    }
    return after;
}

static void logs_once(struct cli *cli, lim__doc *doc)
{
    int64_t look_us = cli->opts->interval_us ? cli->opts->interval_us : LOOK_US;
    uint64_t after = 0;
    do {
        if (!ask_route(cli, "logs", after, doc))
            return;
        after = print_log(cli, lim__val_get(lim__doc_root(doc), "log"), after);
    } while (cli->opts->follow && cli_pause(cli, look_us));
}

int cli_run_route_logs(struct cli *cli)
{
    return cli_repeat(cli, logs_once);
}

/* ---- rollback, promote, stop, rm ---- */

static void now_lines(const cli_routed *w)
{
    struct cli *cli = w->cli;
    char hex[65];
    const char *previous = cli_hash_text(&w->r.previous, hex), *version = w->r.version;
    if (cli->opts->json) {
        lim__json j = lim__json_begin(&cli->out);
        lim__json_open(&j, NULL, '{');
        lim__json_str(&j, cli->opts->channel ? "channel" : "group", w->what);
        lim__json_str(&j, "version", version);
        lim__json_str(&j, "previous", previous);
        lim__json_close(&j);
        lim__buf_text(&cli->out, "\n");
        return;
    }
    lim__buf_format(&cli->out, "%s: %s routes", w->what, version);
    if (previous && strncmp(previous, version, strlen(version)) != 0)
        lim__buf_format(&cli->out, ", %.16s did before", previous);
    lim__buf_text(&cli->out, "\n");
}

int cli_run_rollback(struct cli *cli)
{
    cli_routed w = { .cli = cli, .what = cli_word(cli, 0) };
    const char *to = cli_word(cli, 1), *by = cli_by(cli);
    if (cli_routed_begin(&w) &&
        cli_routed_end(
            &w, cli->opts->channel
                    ? lim_client_channel_rollback_async(cli->client, w.what, to, by, w.timeout_ms, cli_on_routed, &w)
                    : lim_client_rollback_async(cli->client, w.what, to, by, w.timeout_ms, cli_on_routed, &w)))
        now_lines(&w);
    return cli_finish(cli);
}

static lim_err promote_async(cli_routed *w)
{
    lim_client *c = w->cli->client;
    const char *by = cli_by(w->cli);
    return w->cli->opts->channel ? lim_client_channel_promote_async(c, w->what, by, w->timeout_ms, cli_on_routed, w)
                                 : lim_client_trial_promote_async(c, w->what, by, w->timeout_ms, cli_on_routed, w);
}

static lim_err stop_async(cli_routed *w)
{
    lim_client *c = w->cli->client;
    const char *by = cli_by(w->cli);
    return w->cli->opts->channel ? lim_client_channel_stop_async(c, w->what, by, w->timeout_ms, cli_on_routed, w)
                                 : lim_client_trial_stop_async(c, w->what, by, w->timeout_ms, cli_on_routed, w);
}

/* promote, stop */
int cli_run_route_trial(struct cli *cli)
{
    bool promote = strcmp(cli->args.words[1], "promote") == 0;
    cli_routed w = { .cli = cli, .what = cli_word(cli, 0) };
    if (cli_routed_begin(&w) && cli_routed_end(&w, promote ? promote_async(&w) : stop_async(&w)))
        now_lines(&w);
    return cli_finish(cli);
}

int cli_run_route_rm(struct cli *cli)
{
    cli_routed w = { .cli = cli, .what = cli_word(cli, 0) };
    if (cli_routed_begin(&w) &&
        cli_routed_end(&w, lim_client_channel_undeploy_async(cli->client, w.what, w.timeout_ms, cli_on_routed, &w))) {
        lim__buf_format(&cli->out,
                        cli->opts->json ? "{\"channel\":\"%s\"}\n" : "%s: every subscription gets everything again\n",
                        w.what);
    }
    return cli_finish(cli);
}
