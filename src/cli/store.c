/* SPDX-License-Identifier: Apache-2.0
 * store.c - liminal store: a store is checked, dumped and copied without a server, because the time to do that is when
 * the server does not start. This is the one file of the command that includes the store's (docs/adr/0008).
 *
 *   check    everything is read, the index included (lim__store_check)
 *   dump     the second reader, which shares nothing with what recovers the log: where the two differ, one is wrong
 *   backup   DIR TO: a copy of a store that nobody has open; TO alone: the server is asked for one while it runs
 *   restore  a copy is checked, and becomes the store of an empty directory */
#include "cli/admin.h"
#include "base/base64.h"
#include "store/reader.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { FLUSH_BYTES = 64 << 10 };

/* ---- what goes wrong ---- */

static int code_of(int err)
{
    return err == -ENOENT ? CLI_NOT_FOUND : err == -EAGAIN || err == -EEXIST ? CLI_REJECTED : CLI_FAILED;
}

static int refused(struct cli *cli, int err, const char *text)
{
    cli_note("liminal: %s: %s", cli->command->name, text);
    cli->told = true;
    cli->code = cli_worse(cli->code, code_of(err));
    return cli->code;
}

int cli_run_store_info(struct cli *cli)
{
    return cli_do(cli, "$sys.store", "info", NULL, NULL, cli_value_show);
}

/* ---- check ---- */

typedef struct findings {
    struct cli *cli;
    uint64_t count;
} findings;

static void on_finding(void *ctx, const char *line)
{
    findings *f = ctx;
    f->count++;
    if (f->cli->opts->json) {
        lim__json j = lim__json_begin(&f->cli->out);
        lim__json_open(&j, NULL, '{');
        lim__json_str(&j, "finding", line);
        lim__json_close(&j);
        lim__buf_text(&f->cli->out, "\n");
    } else {
        lim__buf_format(&f->cli->out, "%s\n", line);
    }
}

/* 0: it is in order. Else what was found is printed, and the fault is told. */
static int check(struct cli *cli, const char *dir)
{
    findings f = { .cli = cli };
    lim__store_error error = { "" };
    int err = lim__store_check(lim__os_linux(), dir, on_finding, &f, &error);
    cli_flush(cli);
    if (err == -EBADMSG && f.count > 0)
        cli_fault(cli, CLI_FAILED, dir, error.text, "the server opens it all the same, and serves what is good");
    else if (err != 0)
        refused(cli, err, error.text);
    return err;
}

int cli_run_store_check(struct cli *cli)
{
    if (check(cli, cli_word(cli, 0)) == 0)
        lim__buf_text(&cli->out, cli->opts->json ? "{\"findings\":0}\n" : "in order\n");
    return cli->code;
}

/* ---- dump ---- */

typedef struct dump {
    struct cli *cli;
    bool by_stream, by_table;
    uint64_t stream;
    uint32_t table;
    bool odd;
} dump;

static bool dump_words(dump *d)
{
    const char *why = NULL, *word;
    for (int i = 1; (word = cli_word(d->cli, i)) != NULL; i++) {
        char *end = NULL;
        if (strncmp(word, "stream=", 7) == 0 && word[7] >= '0' && word[7] <= '9') {
            d->by_stream = true;
            d->stream = strtoull(word + 7, &end, 10);
        } else if (strncmp(word, "table=", 6) == 0 && word[6] >= '0' && word[6] <= '9') {
            d->by_table = true;
            d->table = (uint32_t)strtoul(word + 6, &end, 10);
        }
        if (!end || *end || d->table >= LIM__TABLES_MAX)
            why = word;
    }
    if (why)
        cli_fault(d->cli, CLI_USAGE, why, "it is neither stream=NUMBER nor table=NUMBER",
                  "see liminal help store dump");
    return !why;
}

static void on_odd(void *ctx, const char *line)
{
    dump *d = ctx;
    cli_note("liminal: store dump: %s", line);
    d->odd = true;
}

/* Bytes as a word: what is not a plain character as \xNN. */
static void escaped(lim__buf *out, lim_bytes bytes)
{
    const uint8_t *b = bytes.ptr;
    for (size_t i = 0; i < bytes.len; i++) {
        bool plain = b[i] > ' ' && b[i] < 127 && b[i] != '\\';
        lim__buf_format(out, plain ? "%c" : "\\x%02x", b[i]);
    }
}

static void text_or_base64(lim__json *j, const char *key, const char *key_base64, lim_bytes bytes)
{
    lim__buf text = { 0 };
    bool is_text = cli_utf8(bytes);
    if (!is_text)
        lim__base64_write(&text, bytes);
    lim__json_bytes(j, is_text ? key : key_base64, is_text ? bytes : lim__buf_bytes(&text));
    lim__buf_fini(&text);
}

static bool flushed(struct cli *cli)
{
    lim__buf_text(&cli->out, "\n");
    if (lim__buf_len(&cli->out) >= FLUSH_BYTES)
        cli_flush(cli);
    return !cli->ended;
}

static bool json_record(struct cli *cli, const lim__reader_record *r)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    lim__json_u64(&j, "stream", r->stream);
    lim__json_u64(&j, "seq", r->seq);
    if (r->lost) {
        lim__json_bool(&j, "lost", true);
    } else {
        lim__json_u64(&j, "wall_us", r->wall_ns / 1000);
        if (r->key.len > 0)
            text_or_base64(&j, "key", "key_base64", r->key);
        cli_json_payload(&j, r->data);
    }
    lim__json_close(&j);
    return flushed(cli);
}

static bool on_record(void *ctx, const lim__reader_record *r)
{
    struct cli *cli = ((dump *)ctx)->cli;
    if (cli->opts->json)
        return json_record(cli, r);
    lim__buf_format(&cli->out, "stream %llu %llu", (unsigned long long)r->stream, (unsigned long long)r->seq);
    if (r->lost) {
        lim__buf_text(&cli->out, " lost");
        return flushed(cli);
    }
    lim__buf_format(&cli->out, " at %llu.%06llu ", (unsigned long long)(r->wall_ns / 1000000000),
                    (unsigned long long)(r->wall_ns / 1000 % 1000000));
    if (r->key.len > 0) {
        lim__buf_text(&cli->out, "key ");
        escaped(&cli->out, r->key);
        lim__buf_text(&cli->out, " ");
    }
    escaped(&cli->out, r->data);
    return flushed(cli);
}

static bool json_row(struct cli *cli, uint8_t table, lim_bytes key, lim_bytes value)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    lim__json_u64(&j, "table", table);
    text_or_base64(&j, "key", "key_base64", key);
    text_or_base64(&j, "value", "value_base64", value);
    lim__json_close(&j);
    return flushed(cli);
}

static bool on_row(void *ctx, uint8_t table, lim_bytes key, lim_bytes value)
{
    dump *d = ctx;
    if (d->by_table && d->table != table)
        return true;
    if (d->cli->opts->json)
        return json_row(d->cli, table, key, value);
    lim__buf_format(&d->cli->out, "table %u ", table);
    escaped(&d->cli->out, key);
    lim__buf_text(&d->cli->out, " = ");
    escaped(&d->cli->out, value);
    return flushed(d->cli);
}

/* Nobody may write meanwhile. A handle that is locked; -ENOENT: a copy that nobody has opened yet; -EAGAIN. */
static int lock(lim__os *os, const char *dir)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/lock", dir);
    int file = strlen(dir) < 4000 ? os->file_open(os, path, 0) : -ENAMETOOLONG;
    int err = file < 0 ? file : os->file_lock(os, file);
    if (file >= 0 && err != 0)
        os->file_close(os, file);
    return err ? err : file;
}

static void dump_all(dump *d, const char *dir)
{
    lim__reader *r = NULL;
    static const uint64_t nothing = UINT64_MAX; /* a stream that there is not */
    bool records = d->by_stream || !d->by_table, rows = d->by_table || !d->by_stream;
    const uint64_t *only = d->by_stream ? &d->stream : records ? NULL : &nothing;
    int err = lim__reader_open(lim__os_linux(), dir, only, on_odd, d, &r);
    if (err == 0 && records)
        err = lim__reader_records(r, on_record, d);
    if (err == 0 && rows && !d->cli->ended)
        err = lim__reader_rows(r, on_row, d);
    lim__reader_close(r);
    cli_flush(d->cli);
    if (err == -ENOTSUP)
        refused(d->cli, err, "a newer version of liminal wrote this: use that one");
    else if (err != 0)
        cli_fault(d->cli, code_of(err), dir, err == -ENOENT ? "there is no store" : strerror(-err),
                  "name the directory that liminald has as its data");
    else if (d->odd)
        cli_fault(d->cli, CLI_FAILED, dir, "not everything is as it should be", "liminal store check says more");
}

int cli_run_store_dump(struct cli *cli)
{
    dump d = { .cli = cli };
    const char *dir = cli_word(cli, 0);
    lim__os *os = lim__os_linux();
    if (!dump_words(&d))
        return cli->code;
    int file = lock(os, dir);
    if (file == -EAGAIN) {
        cli_fault(cli, CLI_REJECTED, dir, "it is in use by another program", "stop that one, or dump a copy");
        return cli->code;
    }
    dump_all(&d, dir);
    if (file >= 0)
        os->file_close(os, file);
    return cli->code;
}

/* ---- copies ---- */

static void copied(struct cli *cli, const char *to)
{
    if (!cli->opts->json) {
        lim__buf_format(&cli->out, "copied to %s\n", to);
        return;
    }
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "to", to);
    lim__json_close(&j);
    lim__buf_text(&cli->out, "\n");
}

static int copy(struct cli *cli, const char *from, const char *to)
{
    lim__store_error error = { "" };
    int err = lim__store_copy(lim__os_linux(), from, to, &error);
    if (err != 0)
        return refused(cli, err, error.text);
    copied(cli, to);
    return cli->code;
}

static void show_copied(struct cli *cli, lim__val reply)
{
    (void)reply; /* that there is one says it */
    copied(cli, cli_word(cli, 0));
}

/* The server's own thread copies, as long as it takes: no limit unless somebody sets one. */
static int ask_for_copy(struct cli *cli, const char *to)
{
    if (*to != '/') {
        cli_fault(cli, CLI_USAGE, to, "the server makes the copy, and may be in another directory",
                  "write the path from / on");
        return cli->code;
    }
    if (cli->args.opts.timeout_us == 0)
        cli->args.opts.timeout_us = LIM_FOREVER;
    return cli_do(cli, "$sys.store", "backup", "to", to, show_copied);
}

int cli_run_store_backup(struct cli *cli)
{
    const char *first = cli_word(cli, 0), *second = cli_word(cli, 1);
    return second ? copy(cli, first, second) : ask_for_copy(cli, first);
}

int cli_run_store_restore(struct cli *cli)
{
    const char *from = cli_word(cli, 0);
    return check(cli, from) == 0 ? copy(cli, from, cli_word(cli, 1)) : cli->code;
}
