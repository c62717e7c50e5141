/* SPDX-License-Identifier: Apache-2.0
 * channel.c - channels: create, configure, close, delete; what a durable one has: get, peek, purge. */
#include "cli/admin.h"

#include <stdio.h>

enum { PEEK_DEFAULT = 100 };

static void put_ms(lim__json *j, const char *key, int64_t us)
{
    if (us == LIM_FOREVER)
        lim__json_u64(j, key, 0); /* no limit */
    else if (us > 0)
        lim__json_i64(j, key, (us + 999) / 1000);
}

static void put_choice(lim__json *j, const char *key, int choice, const char *const *words)
{
    if (choice > 0)
        lim__json_str(j, key, words[choice - 1]);
}

/* What was given; the server knows the defaults. */
static void put_retention(lim__json *j, const cli_opts *o)
{
    static const char *const overflows[] = { "drop_oldest", "reject", "dead_letter" };
    static const char *const syncs[] = { "always", "interval", "never" };
    put_ms(j, "retain_age_ms", o->retain_age_us);
    put_ms(j, "window_ms", o->window_us);
    put_choice(j, "overflow", o->overflow, overflows);
    put_choice(j, "sync", o->sync, syncs);
    if (o->retain_bytes > 0)
        lim__json_u64(j, "retain_bytes", o->retain_bytes);
    if (o->retain_count > 0)
        lim__json_u64(j, "retain_count", o->retain_count);
    if (o->window_keys > 0)
        lim__json_u64(j, "window_keys", o->window_keys);
    if (o->retain_latest)
        lim__json_bool(j, "retain_latest", true);
    if (o->window_bytes > 0)
        lim__json_u64(j, "window_bytes", o->window_bytes);
    if (o->window_slides)
        lim__json_bool(j, "window_slides", true);
    if (o->window_forgets)
        lim__json_bool(j, "window_forgets", true);
    if (o->dead_letter)
        lim__json_str(j, "dead_letter", o->dead_letter);
}

static lim__json about(struct cli *cli, lim__buf *b, const char *op)
{
    lim__json j = cli_request(b, op);
    lim__json_str(&j, "name", cli_word(cli, 0));
    return j;
}

static int ask(struct cli *cli, lim__json *j, void (*show)(struct cli *cli, lim__val reply))
{
    return cli_once(cli, j, "$sys.channels", cli_word(cli, 0), show);
}

int cli_run_channel_create(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, "create");
    if (cli->opts->allow_hold)
        lim__json_bool(&j, "allow_hold", true);
    if (cli->opts->durable)
        lim__json_bool(&j, "durable", true);
    put_retention(&j, cli->opts);
    return ask(cli, &j, NULL);
}

int cli_run_channel_configure(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, "configure");
    put_retention(&j, cli->opts);
    return ask(cli, &j, NULL);
}

int cli_run_channel_close(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, "close");
    return ask(cli, &j, NULL);
}

int cli_run_channel_delete(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, "delete");
    return ask(cli, &j, NULL);
}

/* A number that a flag gives; false: told. */
static bool put_seq(struct cli *cli, lim__json *j, const char *key, const char *flag, const char *text)
{
    uint64_t n;
    if (!text)
        return true;
    if (!cli_seq(text, &n)) {
        cli_fault(cli, CLI_USAGE, flag, "not a number of a message", "write the number that sub and peek show");
        return false;
    }
    lim__json_u64(j, key, n);
    return true;
}

int cli_run_channel_purge(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, "purge");
    if (put_seq(cli, &j, "before", "--before", cli->opts->before))
        return ask(cli, &j, NULL);
    lim__buf_fini(&b);
    return cli->code;
}

/* ---- messages ---- */

/* For people the payload, as `sub` prints it. */
static void say_message(struct cli *cli, lim__val m)
{
    if (cli->opts->json) {
        cli_value_json(cli, m);
        return;
    }
    lim_bytes text = lim__val_bytes(m, "payload", lim__val_bytes(m, "payload_base64", lim__bytes("", 0)));
    lim__buf_add(&cli->out, text.ptr, text.len);
    lim__buf_text(&cli->out, "\n");
}

int cli_run_channel_get(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, "get");
    lim__json_str(&j, "key", cli_word(cli, 1));
    return ask(cli, &j, say_message);
}

/* Prints a page; where the next one begins, 0: there is none. */
static uint64_t print_page(struct cli *cli, lim__val reply, uint32_t *left)
{
    lim__iter it = lim__iter_begin(lim__val_get(reply, "messages"));
    uint32_t count = 0;
    for (; lim__iter_next(&it); count++)
        say_message(cli, it.val);
    *left -= count < *left ? count : *left;
    return count > 0 ? lim__val_u64(reply, "next", 0) : 0;
}

int cli_run_channel_peek(struct cli *cli)
{
    uint64_t from = 1;
    uint32_t left = cli->opts->max ? cli->opts->max : PEEK_DEFAULT;
    const char *text = cli->opts->from;
    if (text && strcmp(text, "all") != 0 && !cli_seq(text, &from)) {
        cli_fault(cli, CLI_USAGE, "--from", "not a number of a message", "write a number, or all");
        return cli->code;
    }
    lim__doc *doc = lim__doc_new();
    while (left > 0 && from > 0) {
        lim__buf b = { 0 };
        lim__json j = about(cli, &b, "peek");
        lim__json_u64(&j, "from", from);
        lim__json_u64(&j, "max", left < 1000 ? left : 1000);
        if (!cli_request_end(cli, &j, "$sys.channels", cli_word(cli, 0), doc))
            break;
        from = print_page(cli, lim__doc_root(doc), &left);
        cli_flush(cli);
    }
    cli_finish(cli);
    cli_flush(cli);
    lim__doc_free(doc);
    return cli->code;
}
