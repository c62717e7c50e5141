/* SPDX-License-Identifier: Apache-2.0
 * admin.c - ls, show and the rest of administration: JSON asks of the system groups, answered as tables or as they are.
 *
 * One table says for each noun which group answers, under which key the list comes, and which columns people see first.
 * What the server does not say is shown as `-`; what it says beyond the columns is in `show` and --json. With --watch
 * it is asked again and again: a terminal is drawn anew, anything else gets one block after the other. */
#include "cli/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAGE = 1000, PAGES_DEFAULT = 100 /* rows, without --max */, INTERVAL_US = 2000000 };

static const cli_noun nouns[] = {
    { .name = "channel",
      .group = "$sys.channels",
      .list = "channels",
      .id = "name",
      .columns = { "name", "durable", "subscriptions", "published", "delivered", "deferred", "dropped", "rejected",
                   "opened" } },
    { .name = "cursor",
      .group = "$sys.cursors",
      .list = "cursors",
      .id = "cursor",
      .filter = "channel",
      .columns = { "channel", "cursor", "position", "last", "lag", "pending", "redelivered", "dead", "damaged",
                   "members", "mode" } },
    { .name = "group",
      .group = "$sys.groups",
      .list = "groups",
      .id = "name",
      .columns = { "name", "members", "capacity", "in_flight", "queued", "held", "dispatched", "lost", "refused",
                   "router", "why" } },
    { .name = "queue",
      .group = "$sys.queues",
      .list = "queues",
      .id = "queue",
      .columns = { "name", "workers", "capacity", "in_flight", "queued", "paused", "draining", "dead", "dispatched",
                   "lost", "refused", "router", "why" } },
    { .name = "queue keys",
      .group = "$sys.queues",
      .list = "keys",
      .id = "queue",
      .filter = "queue",
      .paged = true,
      .columns = { "key", "weight", "ready", "in_flight", "limited", "delayed", "behind", "held", "in_flight_max",
                   "rate", "rate_period_ms", "own_limit" } },
    { .name = "task",
      .group = "$sys.tasks",
      .list = "tasks",
      .id = "id",
      .filter = "queue",
      .paged = true,
      .columns = { "id", "state", "type", "priority", "key", "order_key", "attempts", "losses", "worker", "age_ms",
                   "due_in_ms" } },
    { .name = "dead",
      .group = "$sys.dead",
      .list = "dead",
      .id = "id",
      .filter = "queue",
      .paged = true,
      .max = 1000,
      .columns = { "queue", "id", "type", "how", "why", "reason", "attempts", "losses", "bytes", "detail" } },
    { .name = "worker",
      .group = "$sys.workers",
      .list = "workers",
      .id = "identity",
      .filter = "queue",
      .columns = { "group", "identity", "kind", "capacity", "in_flight", "completed", "last_seen_ms_ago", "eligible",
                   "why", "node", "tags", "types", "tasks" } },
    { .name = "conversation",
      .group = "$sys.conversations",
      .list = "conversations",
      .id = "id",
      .max = 1000,
      .columns = { "id", "name", "kind", "phase", "group", "type", "participant", "attempts", "losses", "age_ms",
                   "remaining_ms" } },
    { .name = "saga",
      .group = "$sys.sagas",
      .list = "sagas",
      .id = "id",
      .columns = { "id", "name", "state", "step", "steps", "age_ms" } },
    { .name = "schedule",
      .group = "$sys.schedules",
      .list = "schedules",
      .id = "name",
      .columns = { "name", "state", "to", "target", "rule", "zone", "next", "fires", "last_verdict" } },
    { .name = "route",
      .group = "$sys.routes",
      .list = "routes",
      .id = "group",
      .columns = { "name", "kind", "live", "file", "engine", "trial", "calls", "faults", "p99_ns", "age_ms", "by" } },
    { .name = "artifact",
      .group = "$sys.artifacts",
      .list = "artifacts",
      .id = "hash",
      .columns = { "short", "engine", "name", "bytes", "loaded_ms_ago", "used_by" } },
};

const cli_noun *cli_noun_of(const struct cli *cli)
{
    for (size_t i = 0; i < LIM_COUNT(nouns); i++) {
        if (strcmp(nouns[i].name, cli->command->name) == 0)
            return &nouns[i];
    }
    for (size_t i = 0; i < LIM_COUNT(nouns); i++) {
        if (strcmp(nouns[i].name, cli->args.words[0]) == 0)
            return &nouns[i];
    }
    lim__panic(__FILE__, __LINE__, "a command of a noun that is not in the table");
}

/* ---- asking, once or again and again ---- */

lim__json cli_request(lim__buf *b, const char *op)
{
    lim__json j = lim__json_begin(b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", op);
    return j;
}

bool cli_request_end(struct cli *cli, lim__json *j, const char *group, const char *what, lim__doc *doc)
{
    lim__json_close(j);
    bool good = cli_sys(cli, group, what, lim__buf_bytes(j->buf), doc);
    lim__buf_fini(j->buf);
    return good;
}

void cli_block(struct cli *cli)
{
    bool first = !cli->printed;
    cli->printed = true;
    if (!cli->opts->watch || cli->opts->json)
        return;
    if (isatty(STDOUT_FILENO))
        lim__buf_text(&cli->out, "\033[H\033[2J");
    else if (!first)
        lim__buf_text(&cli->out, "\n");
}

static void on_due(void *state)
{
    ((struct cli *)state)->due = true;
}

static void on_interrupt(void *state)
{
    cli_end(state, CLI_DONE);
}

bool cli_pause(struct cli *cli, int64_t us)
{
    cli->due = false;
    cli->on_alarm = on_due;
    cli->alarm_ns = cli_now_ns() + (uint64_t)us * 1000;
    while (!cli->due && !cli->ended)
        cli_turn(cli);
    return cli->due && !cli->ended;
}

int cli_repeat(struct cli *cli, void (*once)(struct cli *cli, lim__doc *doc))
{
    int64_t interval_us = cli->opts->interval_us ? cli->opts->interval_us : INTERVAL_US;
    lim__doc *doc = lim__doc_new();
    cli->state = cli;
    if (cli->opts->watch || cli->opts->follow)
        cli->on_interrupt = on_interrupt;
    once(cli, doc);
    while (cli->opts->watch && !cli->opts->follow && cli->code == CLI_DONE && cli_pause(cli, interval_us))
        once(cli, doc);
    cli_finish(cli);
    cli_flush(cli);
    lim__doc_free(doc);
    return cli->code;
}

/* ---- settings ---- */

bool cli_setting(struct cli *cli, lim__json *j, const char *word)
{
    char name[80];
    const char *value = strchr(word, '='), *why;
    size_t len = value ? (size_t)(value - word) : 0;
    int64_t us;
    if (len == 0 || len > 60 || value[1] == 0) {
        cli_fault(cli, CLI_USAGE, word, "not a setting", "write NAME=VALUE, as in the example of --help");
        return false;
    }
    snprintf(name, sizeof name, "%.*s", (int)len, word);
    value++;
    char *end;
    uint64_t n = strtoull(value, &end, 10);
    if (*end == 0 && *value != '-') {
        lim__json_u64(j, name, n);
    } else if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0) {
        lim__json_bool(j, name, *value == 't');
    } else if (cli_duration(value, &us, &why) && us != LIM_FOREVER) {
        snprintf(name + len, sizeof name - len, "_ms");
        lim__json_i64(j, name, (us + 999) / 1000);
    } else {
        lim__json_str(j, name, value);
    }
    return true;
}

void cli_json_members(lim__json *j, lim__val object)
{
    lim__iter it = lim__iter_begin(object);
    while (lim__iter_next(&it)) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)it.key.len, (const char *)it.key.ptr);
        lim__json_val(j, key, it.val);
    }
}

/* ---- ls ---- */

/* By the first column, then the second, as bytes: the server lists in no order. */
static int by_name(const void *a, const void *b, void *ctx)
{
    const lim__val *rows[2] = { a, b };
    const cli_noun *n = ctx;
    const lim_bytes none = { "", 0 };
    for (int c = 0; c < 2; c++) {
        lim_bytes x = lim__val_bytes(*rows[0], n->columns[c], none), y = lim__val_bytes(*rows[1], n->columns[c], none);
        int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
        if (order != 0 || x.len != y.len)
            return order != 0 ? order : (x.len > y.len) - (x.len < y.len);
    }
    return 0;
}

static bool where_given(struct cli *cli, lim__json *j)
{
    const cli_list *where = &cli->opts->where;
    if (where->count > 0)
        lim__json_open(j, "where", '{');
    for (size_t i = 0; i < where->count; i++) {
        char key[256];
        size_t len = strcspn(where->items[i], "=");
        if (len == 0 || len >= sizeof key || where->items[i][len] == 0) {
            cli_fault(cli, CLI_USAGE, "--where", where->items[i], "write KEY=VALUE, as in --where kind=ask");
            return false;
        }
        snprintf(key, sizeof key, "%.*s", (int)len, where->items[i]);
        lim__json_str(j, key, where->items[i] + len + 1);
    }
    if (where->count > 0)
        lim__json_close(j);
    return true;
}

/* Asks for the rows behind `after`, at most `max`. */
static bool ask_page(struct cli *cli, const cli_noun *n, uint64_t after, uint32_t max, lim__doc *doc)
{
    const char *filter = n->filter ? cli_word(cli, 0) : NULL;
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, cli->args.words[1]); /* ls, keys */
    if (filter)
        lim__json_str(&j, n->filter, filter);
    else if (cli->opts->namespace)
        lim__json_str(&j, "namespace", cli->opts->namespace);
    if (n->paged && after > 0)
        lim__json_u64(&j, "after", after);
    if (max > 0)
        lim__json_u64(&j, "max", max);
    if (cli->opts->all)
        lim__json_bool(&j, "ended", true);
    if (where_given(cli, &j))
        return cli_request_end(cli, &j, n->group, filter ? filter : cli->command->name, doc);
    lim__buf_fini(&b);
    return false;
}

/* Prints the rows; how many, and the cursor of the last. */
static size_t print_page(struct cli *cli, const cli_noun *n, lim__val list, uint64_t *cursor)
{
    size_t count = 0;
    lim__val *rows = calloc(lim__val_count(list) + 1, sizeof *rows);
    lim__iter it = lim__iter_begin(list);
    while (rows && lim__iter_next(&it))
        rows[count++] = it.val;
    if (!rows)
        cli_fault(cli, CLI_FAILED, cli->command->name, "no memory", "free some");
    else if (!n->paged || !cli_word(cli, 0))
        qsort_r(rows, count, sizeof *rows, by_name, (void *)(uintptr_t)n);
    if (rows && !cli->opts->json)
        cli_value_table(cli, n->columns, rows, count);
    for (size_t i = 0; cli->opts->json && i < count; i++)
        cli_value_json(cli, rows[i]);
    *cursor = count > 0 ? lim__val_u64(rows[count - 1], "cursor", 0) : 0;
    free(rows);
    return count;
}

static void list_paged(struct cli *cli, const cli_noun *n, lim__doc *doc)
{
    uint32_t left = cli->opts->max ? cli->opts->max : PAGES_DEFAULT;
    uint64_t after = 0;
    for (size_t got = 1; left > 0; left -= (uint32_t)got) {
        uint32_t max = left < PAGE ? left : PAGE;
        if (!ask_page(cli, n, after, max, doc))
            return;
        if (after == 0)
            cli_block(cli);
        uint64_t cursor;
        got = print_page(cli, n, lim__val_get(lim__doc_root(doc), n->list), &cursor);
        after = cursor > 0 ? cursor : after + got; /* dead letters are passed over by their number */
        if (got < max)
            return;
    }
    if (!cli->opts->max)
        cli_note("liminal: %s: these are the first %d; more with --max", cli->command->name, PAGES_DEFAULT);
}

static void list_once(struct cli *cli, lim__doc *doc)
{
    const cli_noun *n = cli_noun_of(cli);
    uint64_t cursor;
    if (n->paged && cli_word(cli, 0)) {
        list_paged(cli, n, doc);
        return;
    }
    if (!ask_page(cli, n, 0, cli->opts->max ? cli->opts->max : n->max, doc))
        return;
    lim__val reply = lim__doc_root(doc);
    cli_block(cli);
    size_t count = print_page(cli, n, lim__val_get(reply, n->list), &cursor);
    if (lim__val_bool(reply, "more", false) || (n->max > 0 && count >= (cli->opts->max ? cli->opts->max : n->max)))
        cli_note("liminal: %s: there may be more; see them with --max", cli->command->name);
    if (lim__val_bool(reply, "incomplete", false))
        cli_note("liminal: %s: somebody did not answer in time; the list is not complete", cli->command->name);
}

int cli_run_list(struct cli *cli)
{
    return cli_repeat(cli, list_once);
}

/* ---- show, and what is done once ---- */

static void show_once(struct cli *cli, lim__doc *doc)
{
    const cli_noun *n = cli_noun_of(cli);
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, "show");
    lim__json_str(&j, n->id, cli_word(cli, 0));
    if (!cli_request_end(cli, &j, n->group, cli_word(cli, 0), doc))
        return;
    lim__val v = lim__doc_root(doc), inner = lim__val_get(v, n->name);
    cli_block(cli);
    cli_value_show(cli, inner.kind == LIM__OBJECT && lim__val_count(v) == 1 ? inner : v);
}

int cli_run_show(struct cli *cli)
{
    return cli_repeat(cli, show_once);
}

int cli_once(struct cli *cli, lim__json *j, const char *group, const char *what,
             void (*show)(struct cli *cli, lim__val reply))
{
    lim__doc *doc = lim__doc_new();
    bool good = cli_request_end(cli, j, group, what, doc);
    if (good && show)
        show(cli, lim__doc_root(doc));
    else if (good && cli->opts->json)
        cli_value_json(cli, lim__doc_root(doc));
    cli_finish(cli);
    cli_flush(cli);
    lim__doc_free(doc);
    return cli->code;
}

int cli_do(struct cli *cli, const char *group, const char *op, const char *key, const char *word,
           void (*show)(struct cli *cli, lim__val reply))
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, op);
    if (key)
        lim__json_str(&j, key, word);
    return cli_once(cli, &j, group, word ? word : cli->command->name, show);
}

int cli_run_remove(struct cli *cli)
{
    const cli_noun *n = cli_noun_of(cli);
    return cli_do(cli, n->group, "rm", n->id, cli_word(cli, 0), NULL);
}

int cli_run_info(struct cli *cli)
{
    return cli_do(cli, "$sys.info", "info", NULL, NULL, cli_value_show);
}

int cli_run_version(struct cli *cli)
{
    lim__buf_format(&cli->out, cli->opts->json ? "{\"version\":\"%s\"}\n" : "liminal %s\n", LIM_VERSION);
    return CLI_DONE;
}
