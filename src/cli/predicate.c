/* SPDX-License-Identifier: Apache-2.0
 * predicate.c - `predicate test`: would this predicate take that message, and why; without a server. */
#include "cli/cli.h"
#include "data/data.h"
#include <liminal/liminal.h>

#include <stdlib.h>

enum { WHY_COLUMN = 44 };

static void step_line(void *ctx, const lim_predicate_step *step)
{
    lim__buf *out = ctx;
    size_t from = lim__buf_len(out);
    lim__buf_format(out, "%s%*s%s", step->verdict ? "  yes " : "  no  ", (int)step->depth * 2, "", step->text);
    size_t used = lim__buf_len(out) - from;
    if (step->why[0])
        lim__buf_format(out, "%*s  %s", used < WHY_COLUMN ? (int)(WHY_COLUMN - used) : 0, "", step->why);
    lim__buf_text(out, "\n");
}

static void step_json(void *ctx, const lim_predicate_step *step)
{
    lim__json *j = ctx;
    lim__json_open(j, NULL, '{');
    lim__json_u64(j, "depth", step->depth);
    lim__json_bool(j, "verdict", step->verdict);
    lim__json_str(j, "text", step->text);
    lim__json_str(j, "why", step->why);
    lim__json_close(j);
}

static bool tell(struct cli *cli, lim_predicate *p, const lim_route_message *message)
{
    bool match = lim_predicate_match(p, message);
    if (!cli->opts->json) {
        lim__buf_text(&cli->out, match ? "match\n" : "no match\n");
        (void)!lim_predicate_explain(p, message, step_line, &cli->out);
        return match;
    }
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    lim__json_bool(&j, "match", match);
    lim__json_open(&j, "steps", '[');
    (void)!lim_predicate_explain(p, message, step_json, &j);
    lim__json_close(&j);
    lim__json_close(&j);
    lim__buf_text(&cli->out, "\n");
    return match;
}

static bool take_headers(struct cli *cli, lim__buf *headers)
{
    const cli_list *list = &cli->opts->headers;
    for (size_t i = 0; i < list->count; i++) {
        const char *equals = strchr(list->items[i], '=');
        size_t len = equals ? (size_t)(equals - list->items[i]) : 0;
        if (len > 0 && lim__packed_add(headers, lim__bytes(list->items[i], len), lim__str(equals + 1)) == LIM_OK)
            continue;
        cli_fault(cli, CLI_USAGE, list->items[i], "not a header", "write --header NAME=TEXT");
        return false;
    }
    if (cli->opts->key && lim__packed_add(headers, lim__str("$key"), lim__str(cli->opts->key)) != LIM_OK) {
        cli_fault(cli, CLI_USAGE, cli->opts->key, "too long for a key", "write --key TEXT");
        return false;
    }
    return true;
}

static lim_predicate *compile(struct cli *cli, const char *text)
{
    lim_predicate *p = NULL;
    lim_diag diag = { 0 };
    lim_err err = lim_predicate_compile(lim__str(text), &diag, &p);
    if (err != LIM_OK)
        cli_fault(cli, CLI_USAGE, text, diag.text[0] ? diag.text : lim_err_text(err),
                  "write a predicate, as in 'tier == \"gold\" and amount > 100'");
    return p;
}

int cli_run_predicate_test(struct cli *cli)
{
    const char *message = cli->opts->message ? cli->opts->message : "{}";
    lim__buf headers = { 0 }, keep = { 0 };
    lim_predicate *p = compile(cli, cli_word(cli, 0));
    if (p && take_headers(cli, &headers)) {
        lim_bytes payload = strcmp(message, "-") == 0 ? cli_input(cli, &keep) : lim__str(message);
        const lim_route_message m = { .payload = payload, .headers = lim__buf_bytes(&headers) };
        if (!cli->told)
            cli->code = tell(cli, p, &m) ? CLI_DONE : CLI_REJECTED;
    }
    lim_predicate_free(p);
    lim__buf_fini(&headers);
    lim__buf_fini(&keep);
    cli_flush(cli);
    return cli->code;
}
