/* SPDX-License-Identifier: Apache-2.0
 * sys.c - one JSON ask of a system group, and what is said when it is refused. */
#include "cli/cli.h"
#include "data/data.h"

#include <stdio.h>

enum { TIMEOUT_MS = 5000 };

typedef struct sys_ask {
    struct cli *cli;
    const char *what;
    lim__doc *doc;
    bool ended, good;
    bool maybe; /* it need not be there */
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

void cli_tell_error(struct cli *cli, const char *about, int code, const char *text, int line, int column)
{
    char what[300];
    const char *message = without_place(text, about);
    if (line > 0)
        snprintf(what, sizeof what, column > 0 ? "%s:%d:%d" : "%s:%d", about, line, column);
    else
        snprintf(what, sizeof what, "%s", about);
    if (strstr(message, "; ")) {
        cli_note("liminal: %s: %s", what, message);
        cli->told = true;
        cli->code = cli_worse(cli->code, code);
        return;
    }
    cli_fault(cli, code, what, message,
              code == CLI_FAILED      ? "mend it and deploy again, nothing has changed"
              : code == CLI_NOT_FOUND ? "ls shows what there is"
                                      : "see liminal help");
}

/* {"code","message","line","column"} as one line; a message with a place is code that somebody wrote. */
static void tell_error(sys_ask *ask, lim__val error)
{
    cli_tell_error(ask->cli, ask->what, code_named(lim__val_str(error, "code", "")),
                   lim__val_str(error, "message", "no reason was given"), (int)lim__val_i64(error, "line", 0),
                   (int)lim__val_i64(error, "column", 0));
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
    bool missing = code_named(lim__val_str(error, "code", "")) == CLI_NOT_FOUND;
    if (!ask->good && !(ask->maybe && missing))
        tell_error(ask, error);
}

static bool ask_sys(struct cli *cli, const char *group, const char *what, lim_bytes request, lim__doc *doc, bool maybe)
{
    sys_ask ask = { .cli = cli, .what = what, .doc = doc, .maybe = maybe };
    int64_t us = cli->opts->timeout_us;
    const lim_ask_opts opts = { .size = sizeof opts,
                                .timeout_ms = us == 0             ? TIMEOUT_MS
                                              : us == LIM_FOREVER ? LIM_FOREVER
                                                                  : (us + 999) / 1000 };
    if (!doc) {
        cli_fault(cli, CLI_FAILED, what, "no memory", "free some");
        return false;
    }
    if (!cli->client && !cli_connect(cli, false))
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

bool cli_sys(struct cli *cli, const char *group, const char *what, lim_bytes request, lim__doc *doc)
{
    return ask_sys(cli, group, what, request, doc, false);
}

bool cli_sys_maybe(struct cli *cli, const char *group, const char *what, lim_bytes request, lim__doc *doc)
{
    return ask_sys(cli, group, what, request, doc, true);
}

int cli_finish(struct cli *cli)
{
    cli_end(cli, CLI_DONE);
    return cli->client ? cli_run(cli) : cli->code;
}
