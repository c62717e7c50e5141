/* SPDX-License-Identifier: Apache-2.0
 * saga.c - steps one after the other, each with what undoes it; and schedules: both are plans that the server keeps.
 *
 * `saga run` hands over a file as it is and waits for the end of the saga, which does not depend on who waits for it.
 */
#include "cli/admin.h"
#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- saga run ---- */

/* {"op":"run", and what the file has}. False: told. */
static bool plan_request(struct cli *cli, lim__buf *b, const char *path, lim__doc *doc)
{
    void *data = NULL;
    size_t len = 0;
    lim_diag diag = { 0 };
    int err = lim__file_read(path, CLI_INPUT_MAX, &data, &len);
    if (err != 0) {
        cli_fault(cli, err == -ENOENT ? CLI_NOT_FOUND : CLI_FAILED, path, strerror(-err), "name a file of JSON, or -");
        return false;
    }
    lim_err parsed = lim__doc_parse(doc, lim__bytes(data, len), &diag);
    free(data);
    lim__val plan = lim__doc_root(doc);
    if (parsed != LIM_OK || plan.kind != LIM__OBJECT) {
        cli_fault(cli, CLI_USAGE, path, *diag.text ? diag.text : "not an object of JSON", "see man liminal, SAGAS");
        return false;
    }
    lim__json j = cli_request(b, "run");
    cli_json_members(&j, plan);
    lim__json_close(&j);
    return true;
}

/* "  debit          reply" */
static void step_line(struct cli *cli, const char *mark, lim__val v)
{
    const char *why = lim__val_str(v, "why", ""), *detail = lim__val_str(v, "detail", "");
    lim__buf_format(&cli->out, "%s%-20s %s", mark, lim__val_str(v, "name", "?"), lim__val_str(v, "how", "?"));
    if (*why)
        lim__buf_format(&cli->out, " (%s)", why);
    if (*detail)
        lim__buf_format(&cli->out, ": %s", detail);
    lim__buf_text(&cli->out, "\n");
}

static void saga_result(struct cli *cli, lim__val v)
{
    const char *outcome = lim__val_str(v, "outcome", "?"), *id = lim__val_str(v, "saga", "?");
    bool done = strcmp(outcome, "done") == 0, stuck = strcmp(outcome, "stuck") == 0;
    if (cli->opts->json) {
        cli_value_json(cli, v);
    } else {
        lim__buf_format(&cli->out, "%s: %s\n", id, outcome);
        lim__iter it = lim__iter_begin(lim__val_get(v, "steps"));
        while (lim__iter_next(&it))
            step_line(cli, "  ", it.val);
        it = lim__iter_begin(lim__val_get(v, "compensations"));
        while (lim__iter_next(&it))
            step_line(cli, "  undo ", it.val);
    }
    cli_flush(cli); /* before what follows on standard error */
    if (stuck)
        cli_fault(cli, CLI_FAILED, id, "a step did not succeed, and neither did what undoes one",
                  "see liminal dead ls, then undo it by hand");
    else if (!done)
        cli_fault(cli, CLI_FAILED, id, "a step did not succeed", "everything that had been done was undone");
}

int cli_run_saga_run(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__doc *doc = lim__doc_new();
    if (cli->opts->timeout_us == 0)
        cli->args.opts.timeout_us = LIM_FOREVER; /* the plan's own */
    bool good = doc && plan_request(cli, &b, cli_word(cli, 0), doc) &&
                cli_sys(cli, "$sys.sagas", cli_word(cli, 0), lim__buf_bytes(&b), doc);
    if (good)
        saga_result(cli, lim__doc_root(doc));
    else if (cli->code == CLI_TIMEOUT || cli->code == CLI_CANCELLED)
        cli_note("liminal: %s: the saga goes on; see liminal saga ls", cli_word(cli, 0));
    cli_finish(cli);
    cli_flush(cli);
    lim__buf_fini(&b);
    lim__doc_free(doc);
    return cli->code;
}

int cli_run_saga_cancel(struct cli *cli)
{
    return cli_do(cli, "$sys.sagas", "cancel", "id", cli_word(cli, 0), NULL);
}

/* ---- schedules ---- */

static bool in_list(const char *const *list, const char *word, size_t len)
{
    for (; *list; list++) {
        if (strlen(*list) == len && memcmp(*list, word, len) == 0)
            return true;
    }
    return false;
}

/* Those of the task that is dispatched stand in an object of their own. */
static bool is_option(const char *word)
{
    static const char *const all[] = {
        "priority", "key",       "weight", "order_key", "unique_key",  "on_duplicate",      "delay",   "start_to_close",
        "progress", "report_to", "trace",  "delay_ms",  "progress_ms", "start_to_close_ms", "durable", NULL
    };
    return in_list(all, word, strcspn(word, "="));
}

/* Texts, even if they look like numbers or durations. */
static bool is_text(const char *word)
{
    static const char *const all[] = { "queue",      "channel",      "type",      "at",  "rrule",   "cron",
                                       "start",      "zone",         "catch_up",  "key", "overlap", "order_key",
                                       "unique_key", "on_duplicate", "report_to", NULL };
    return in_list(all, word, strcspn(word, "="));
}

static bool one_word(struct cli *cli, lim__json *j, const char *word)
{
    char name[80];
    const char *value = strchr(word, '=');
    if (!is_text(word) || !value || value[1] == 0)
        return cli_setting(cli, j, word);
    snprintf(name, sizeof name, "%.*s", (int)(value - word), word);
    lim__json_str(j, name, value + 1);
    return true;
}

static bool is_payload(const char *word)
{
    return strncmp(word, "payload=", 8) == 0;
}

/* "payload=-" is standard input. */
static bool payload_word(struct cli *cli, lim__json *j, const char *text)
{
    lim__buf keep = { 0 };
    lim_bytes payload = strcmp(text, "-") == 0 ? cli_input(cli, &keep) : lim__str(text);
    cli_json_payload(j, payload);
    lim__buf_fini(&keep);
    return !cli->told;
}

static bool schedule_words(struct cli *cli, lim__json *j)
{
    bool good = true, options = false;
    for (int i = 1; good && cli_word(cli, i); i++) {
        const char *word = cli_word(cli, i);
        if (is_payload(word))
            good = payload_word(cli, j, word + 8);
        else if (is_option(word))
            options = true;
        else
            good = one_word(cli, j, word);
    }
    if (options)
        lim__json_open(j, "options", '{');
    for (int i = 1; good && options && cli_word(cli, i); i++) {
        if (is_option(cli_word(cli, i)))
            good = one_word(cli, j, cli_word(cli, i));
    }
    if (options)
        lim__json_close(j);
    return good;
}

static void schedule_show(struct cli *cli, lim__val v)
{
    lim__val line = lim__val_get(v, "schedule");
    if (cli->opts->json)
        cli_value_json(cli, v);
    else if (strcmp(cli->args.words[1], "rm") == 0)
        lim__buf_format(&cli->out, "%s: removed\n", cli_word(cli, 0));
    else
        lim__buf_format(&cli->out, "%s: %s, next %s\n", lim__val_str(line, "name", cli_word(cli, 0)),
                        lim__val_str(line, "state", "?"), lim__val_str(line, "next", "never"));
}

int cli_run_schedule_add(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, "add");
    lim__json_str(&j, "name", cli_word(cli, 0));
    if (schedule_words(cli, &j))
        return cli_once(cli, &j, "$sys.schedules", cli_word(cli, 0), schedule_show);
    lim__buf_fini(&b);
    return cli->code;
}

/* pause, resume, rm */
int cli_run_schedule_change(struct cli *cli)
{
    return cli_do(cli, "$sys.schedules", cli->args.words[1], "name", cli_word(cli, 0), schedule_show);
}

static void fired(struct cli *cli, lim__val v)
{
    lim__val fire = lim__val_get(v, "fire");
    if (cli->opts->json)
        cli_value_json(cli, v);
    else
        lim__buf_format(&cli->out, "%s: %s %s\n", cli_word(cli, 0), lim__val_str(fire, "verdict", "?"),
                        lim__val_str(fire, "task", ""));
    if (strcmp(lim__val_str(fire, "verdict", ""), "reject") == 0)
        cli_fault(cli, CLI_REJECTED, cli_word(cli, 0), lim__val_str(fire, "why", "rejected"), "see liminal queue why");
}

int cli_run_schedule_fire(struct cli *cli)
{
    return cli_do(cli, "$sys.schedules", "fire", "name", cli_word(cli, 0), fired);
}
