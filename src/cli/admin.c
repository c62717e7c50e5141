/* SPDX-License-Identifier: Apache-2.0
 * admin.c - ls, show and the rest of administration: JSON asks of the system groups, answered as tables or as they are.
 *
 * One table says for each noun which group answers, under which key the list comes, and which columns people see first.
 * What the server does not say is shown as `-`; what it says beyond the columns is in `show` and --json. */
#include "cli/cli.h"
#include "data/data.h"

#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 5000 };

typedef struct noun {
    const char *name, *group, *key, *id; /* id: what `show` and `rm` name one by */
    const char *columns[14];             /* NULL-terminated */
} noun;
static const noun nouns[] = {
    { "channel",
      "$sys.channels",
      "channels",
      "name",
      { "name", "subscriptions", "published", "delivered", "deferred", "dropped", "rejected", "opened" } },
    { "group",
      "$sys.groups",
      "groups",
      "name",
      { "name", "members", "capacity", "in_flight", "queued", "held", "dispatched", "lost", "refused", "router",
        "why" } },
    { "queue",
      "$sys.groups",
      "groups",
      "name",
      { "name", "members", "capacity", "in_flight", "queued", "held", "dispatched", "lost", "refused", "router",
        "why" } },
    { "worker",
      "$sys.workers",
      "workers",
      "name",
      { "group", "identity", "kind", "capacity", "in_flight", "completed", "tags", "types", "eligible", "why",
        "tasks" } },
    { "conversation",
      "$sys.conversations",
      "conversations",
      "name",
      { "id", "kind", "phase", "group", "type", "participant", "attempts", "losses", "age_ms", "remaining_ms" } },
    { "artifact",
      "$sys.artifacts",
      "artifacts",
      "hash",
      { "short", "engine", "name", "bytes", "loaded_ms_ago", "used_by" } },
};

static const noun *noun_of(const struct cli *cli)
{
    for (size_t i = 0; i < LIM_COUNT(nouns); i++) {
        if (strcmp(nouns[i].name, cli->args.words[0]) == 0)
            return &nouns[i];
    }
    lim__panic(__FILE__, __LINE__, "a command of a noun that is not in the table");
}

/* ---- asking ---- */

typedef struct sys_ask {
    struct cli *cli;
    const char *what;
    lim__doc *doc;
    bool ended, good;
} sys_ask;

static int code_named(const char *name)
{
#define X(err, text)                                                                                                   \
    if (strcmp(name, #err) == 0)                                                                                       \
        return cli_err_code(LIM_E_##err);
    LIM_ERR_MAP(X)
#undef X
    return CLI_FAILED;
}

/* Without "f.lua: " or "f.lua:7: " in front, which is said already. */
static const char *without_place(const char *message, const char *what)
{
    size_t len = strlen(what);
    if (strncmp(message, what, len) != 0 || message[len] != ':')
        return message;
    const char *rest = message + len + 1 + strspn(message + len + 1, "0123456789:");
    return *rest == ' ' ? rest + 1 : message;
}

/* {"code","message","line","column"} as one line; a message with a place is code that somebody wrote. */
static void tell_error(sys_ask *ask, lim__val error)
{
    char what[300];
    int line = (int)lim__val_i64(error, "line", 0), column = (int)lim__val_i64(error, "column", 0);
    int code = code_named(lim__val_str(error, "code", ""));
    const char *message = without_place(lim__val_str(error, "message", "no reason was given"), ask->what);
    if (line > 0)
        snprintf(what, sizeof what, column > 0 ? "%s:%d:%d" : "%s:%d", ask->what, line, column);
    else
        snprintf(what, sizeof what, "%s", ask->what);
    if (strstr(message, "; ")) {
        cli_note("liminal: %s: %s", what, message);
        ask->cli->told = true;
        ask->cli->code = cli_worse(ask->cli->code, code);
        return;
    }
    cli_fault(ask->cli, code, what, message,
              code == CLI_FAILED      ? "mend it and deploy again, nothing has changed"
              : code == CLI_NOT_FOUND ? "ls shows what there is"
                                      : "see liminal help");
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    sys_ask *ask = ctx;
    if (ask->cli->link == CLI_LINK_CLOSING)
        return;
    ask->ended = true;
    if (o->how != LIM_HOW_REPLY) {
        if (o->how != LIM_HOW_LOST) /* the link's own fault is what is told */
            cli_outcome_fault(ask->cli, "", o);
        return;
    }
    lim_diag diag = { 0 };
    if (lim__doc_parse(ask->doc, o->payload, &diag) != LIM_OK) {
        cli_fault(ask->cli, CLI_FAILED, ask->what, "the server's answer is not JSON",
                  "see that both are of one version");
        return;
    }
    lim__val error = lim__val_get(lim__doc_root(ask->doc), "error");
    ask->good = error.kind != LIM__OBJECT;
    if (!ask->good)
        tell_error(ask, error);
}

bool cli_sys(struct cli *cli, const char *group, const char *what, lim_bytes request, lim__doc *doc)
{
    sys_ask ask = { .cli = cli, .what = what, .doc = doc };
    int64_t us = cli->opts->timeout_us;
    const lim_ask_opts opts = { .size = sizeof opts,
                                .timeout_ms = us == 0             ? TIMEOUT_MS
                                              : us == LIM_FOREVER ? LIM_FOREVER
                                                                  : (us + 999) / 1000 };
    if (!doc || (!cli->client && !cli_connect(cli, false)))
        return false;
    lim_err err = lim_client_ask_async(cli->client, group, request, &opts, on_outcome, &ask, NULL);
    if (err != LIM_OK)
        cli_err(cli, what, err, NULL);
    while (err == LIM_OK && !ask.ended && !cli->ended)
        cli_turn(cli);
    if (err == LIM_OK && !ask.ended)
        cli_finish(cli); /* before `ask` is gone */
    return ask.good;
}

int cli_finish(struct cli *cli)
{
    cli_end(cli, CLI_DONE);
    return cli->client ? cli_run(cli) : cli->code;
}

/* {"op":OP,KEY:NAME}; key NULL: without. */
static void request_text(lim__buf *b, const char *op, const char *key, const char *name)
{
    lim__json j = lim__json_begin(b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", op);
    if (key)
        lim__json_str(&j, key, name);
    lim__json_close(&j);
}

/* ---- showing ---- */

/* As a cell: text as it is, lists and sets joined by commas, nothing for what is absent. */
static void cell_text(lim__buf *b, lim__val v)
{
    if (v.kind == LIM__ABSENT || v.kind == LIM__NULL) {
        return;
    } else if (v.kind == LIM__TEXT) {
        lim__buf_add(b, v.text.ptr, v.text.len);
    } else if (v.kind == LIM__BOOL) {
        lim__buf_text(b, v.truth ? "yes" : "no");
    } else if (v.kind == LIM__ARRAY || v.kind == LIM__OBJECT) {
        lim__iter it = lim__iter_begin(v);
        while (lim__iter_next(&it)) {
            lim__buf_text(b, it.index ? "," : "");
            if (v.kind == LIM__OBJECT)
                lim__buf_add(b, it.key.ptr, it.key.len);
            else
                cell_text(b, it.val);
        }
    } else {
        lim__json j = lim__json_begin(b);
        lim__json_val(&j, NULL, v);
    }
}

static bool any_has(lim__val list, const char *key)
{
    lim__iter it = lim__iter_begin(list);
    while (lim__iter_next(&it)) {
        if (lim__val_present(lim__val_get(it.val, key)))
            return true;
    }
    return lim__val_count(list) == 0;
}

typedef struct row {
    const noun *noun;
    lim__val val;
} row;

/* By the first column, then the second, as bytes: the server lists in no order. */
static int by_name(const void *a, const void *b)
{
    const row *rows[2] = { a, b };
    const lim_bytes none = { "", 0 };
    for (int c = 0; c < 2; c++) {
        lim_bytes x = lim__val_bytes(rows[0]->val, rows[0]->noun->columns[c], none);
        lim_bytes y = lim__val_bytes(rows[1]->val, rows[1]->noun->columns[c], none);
        int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
        if (order != 0 || x.len != y.len)
            return order != 0 ? order : (x.len > y.len) - (x.len < y.len);
    }
    return 0;
}

/* The list's objects in order, malloc'd. */
static row *sorted(const noun *n, lim__val list, size_t *count)
{
    row *rows = calloc(lim__val_count(list) + 1, sizeof *rows);
    lim__iter it = lim__iter_begin(list);
    *count = 0;
    while (rows && lim__iter_next(&it))
        rows[(*count)++] = (row){ n, it.val };
    if (rows)
        qsort(rows, *count, sizeof *rows, by_name);
    return rows;
}

/* A column that no row has is left out. */
static void print_table(struct cli *cli, const noun *n, lim__val list, const row *rows, size_t row_count)
{
    const char *columns[LIM_COUNT(n->columns)];
    size_t count = 0;
    cli_table table;
    for (size_t i = 0; n->columns[i]; i++) {
        if (any_has(list, n->columns[i]))
            columns[count++] = n->columns[i];
    }
    if (count == 0)
        return;
    cli_table_begin(&table, columns, count);
    for (size_t i = 0; i < row_count * count; i++) {
        lim__buf text = { 0 };
        cell_text(&text, lim__val_get(rows[i / count].val, columns[i % count]));
        cli_table_cell(&table, lim__buf_bytes(&text));
        lim__buf_fini(&text);
    }
    cli_table_print(&table, &cli->out);
    cli_table_fini(&table);
}

static void print_json(struct cli *cli, lim__val v)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_val(&j, NULL, v);
    lim__buf_text(&cli->out, "\n");
}

static size_t widest_key(lim__val object)
{
    size_t width = 0;
    lim__iter it = lim__iter_begin(object);
    while (lim__iter_next(&it))
        width = it.key.len > width ? it.key.len : width;
    return width;
}

static bool has_objects(lim__val v)
{
    return v.kind == LIM__ARRAY && lim__val_at(v, 0).kind == LIM__OBJECT;
}

static void print_members(struct cli *cli, lim__val object, int indent);

/* What stands under its key: an object's members, a list's objects as one line of JSON each. */
static void print_below(struct cli *cli, lim__val v, int indent)
{
    lim__buf_text(&cli->out, "\n");
    if (v.kind == LIM__OBJECT) {
        print_members(cli, v, indent);
        return;
    }
    lim__iter it = lim__iter_begin(v);
    while (lim__iter_next(&it)) {
        lim__buf_format(&cli->out, "%*s", indent, "");
        print_json(cli, it.val);
    }
}

/* One line a member: key and value, aligned. */
static void print_members(struct cli *cli, lim__val object, int indent)
{
    int width = (int)widest_key(object);
    lim__iter it = lim__iter_begin(object);
    while (lim__iter_next(&it)) {
        lim__buf_format(&cli->out, "%*s%.*s", indent, "", (int)it.key.len, (const char *)it.key.ptr);
        if ((it.val.kind == LIM__OBJECT && lim__val_count(it.val) > 0) || has_objects(it.val)) {
            print_below(cli, it.val, indent + 2);
            continue;
        }
        lim__buf_format(&cli->out, "%*s  ", width - (int)it.key.len, "");
        size_t before = lim__buf_len(&cli->out);
        cell_text(&cli->out, it.val);
        lim__buf_text(&cli->out, lim__buf_len(&cli->out) == before ? "-\n" : "\n");
    }
}

static void print_one(struct cli *cli, lim__val v)
{
    if (cli->opts->json)
        print_json(cli, v);
    else
        print_members(cli, v, 0);
}

/* ---- the commands ---- */

/* Asks once; `show` gets the reply if it was good. */
static int once(struct cli *cli, const char *group, const char *what, lim__buf *request,
                void (*show)(struct cli *, lim__val))
{
    lim__doc *doc = lim__doc_new();
    if (!doc)
        cli_fault(cli, CLI_FAILED, what, "no memory", "free some");
    if (cli_sys(cli, group, what, lim__buf_bytes(request), doc))
        show(cli, lim__doc_root(doc));
    int code = cli_finish(cli);
    cli_flush(cli);
    lim__doc_free(doc);
    lim__buf_fini(request);
    return code;
}

static void show_list(struct cli *cli, lim__val reply)
{
    const noun *n = noun_of(cli);
    size_t count;
    lim__val list = lim__val_get(reply, n->key);
    row *rows = sorted(n, list, &count);
    if (!rows)
        cli_fault(cli, CLI_FAILED, cli->command->name, "no memory", "free some");
    else if (!cli->opts->json)
        print_table(cli, n, list, rows, count);
    for (size_t i = 0; cli->opts->json && i < count; i++)
        print_json(cli, rows[i].val);
    free(rows);
}

int cli_run_list(struct cli *cli)
{
    lim__buf request = { 0 };
    request_text(&request, "ls", NULL, NULL);
    return once(cli, noun_of(cli)->group, cli->command->name, &request, show_list);
}

int cli_run_show(struct cli *cli)
{
    lim__buf request = { 0 };
    request_text(&request, "show", noun_of(cli)->id, cli_word(cli, 0));
    return once(cli, noun_of(cli)->group, cli_word(cli, 0), &request, print_one);
}

/* What has been done is said by the exit code; --json shows the server's answer. */
static void show_done(struct cli *cli, lim__val reply)
{
    if (cli->opts->json)
        print_json(cli, reply);
}

int cli_run_remove(struct cli *cli)
{
    lim__buf request = { 0 };
    request_text(&request, "rm", noun_of(cli)->id, cli_word(cli, 0));
    return once(cli, noun_of(cli)->group, cli_word(cli, 0), &request, show_done);
}

int cli_run_channel_create(struct cli *cli)
{
    lim__buf request = { 0 };
    lim__json j = lim__json_begin(&request);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", "create");
    lim__json_str(&j, "name", cli_word(cli, 0));
    lim__json_bool(&j, "allow_hold", cli->opts->allow_hold);
    lim__json_close(&j);
    return once(cli, "$sys.channels", cli_word(cli, 0), &request, show_done);
}

int cli_run_channel_close(struct cli *cli)
{
    lim__buf request = { 0 };
    request_text(&request, "close", "name", cli_word(cli, 0));
    return once(cli, "$sys.channels", cli_word(cli, 0), &request, show_done);
}

int cli_run_conversation_cancel(struct cli *cli)
{
    lim__buf request = { 0 };
    request_text(&request, "cancel", "name", cli_word(cli, 0));
    return once(cli, "$sys.conversations", cli_word(cli, 0), &request, show_done);
}

int cli_run_info(struct cli *cli)
{
    lim__buf request = { 0 };
    request_text(&request, "info", NULL, NULL);
    return once(cli, "$sys.info", "info", &request, print_one);
}

int cli_run_version(struct cli *cli)
{
    lim__buf_format(&cli->out, cli->opts->json ? "{\"version\":\"%s\"}\n" : "liminal %s\n", LIM_VERSION);
    return CLI_DONE;
}
