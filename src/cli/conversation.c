/* SPDX-License-Identifier: Apache-2.0
 * conversation.c - one conversation: what it is, what happened in it, signals, cancel.
 *
 * --follow: no entry of the history is missed and none comes twice, because it subscribes first, then reads what there
 * was, and drops by their numbers the entries that came both ways:
 *
 *   subscribe $sys.history.<id> --ready--> history {after: 0} --printed up to n--> entries n+1 ... of the subscription
 *                 `--entries that came meanwhile: kept----------------^
 *
 * It ends with the conversation: when a history that is asked for is no longer a living one's. That is asked when an
 * entry speaks of an end, and every few seconds, as a conversation may be killed before it can say so. */
#include "cli/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LOOK_US = 2000000, LOOK_SOON_US = 20000 }; /* how often --follow asks whether it still lives */

typedef struct following {
    struct cli *cli;
    char id[24], channel[48];
    lim__buf kept;   /* entries that came before the history was read: one JSON object a line */
    uint64_t last;   /* the number of the newest that was printed */
    int64_t look_us; /* until it is asked whether it still lives */
    bool subscribed, reading;
    lim__doc *doc, *entry;
} following;

/* ---- which one ---- */

static bool is_id(const char *word)
{
    uint64_t id;
    return cli_id(word, &id);
}

/* "id", or "name" for what does not look like one; @NAME is a name in any case. */
static void which(lim__json *j, const char *word)
{
    if (*word != '@' && is_id(word))
        lim__json_str(j, "id", word);
    else
        lim__json_str(j, "name", word + (*word == '@'));
}

/* Its id, looked up by its name if need be. False: told. */
static bool id_of(struct cli *cli, const char *word, lim__doc *doc, char *out, size_t size)
{
    lim__buf b = { 0 };
    if (*word != '@' && is_id(word)) {
        snprintf(out, size, "%s", word);
        return true;
    }
    lim__json j = cli_request(&b, "find");
    which(&j, word);
    if (!cli_request_end(cli, &j, "$sys.conversations", word, doc))
        return false;
    snprintf(out, size, "%s", lim__val_str(lim__doc_root(doc), "id", ""));
    return true;
}

/* ---- entries ---- */

static void time_text(uint64_t at_us, char *out, size_t size)
{
    time_t at = (time_t)(at_us / 1000000);
    struct tm tm;
    char seconds[32];
    gmtime_r(&at, &tm);
    strftime(seconds, sizeof seconds, "%H:%M:%S", &tm);
    snprintf(out, size, "%s.%06u", seconds, (unsigned)(at_us % 1000000));
}

/* "  3  13:04:05.123456  asked     worker-1  12 bytes  detail" */
static void print_entry(struct cli *cli, lim__val e)
{
    char at[64];
    uint64_t bytes = lim__val_u64(e, "bytes", 0);
    const char *who = lim__val_str(e, "who", ""), *detail = lim__val_str(e, "detail", "");
    if (cli->opts->json) {
        cli_value_json(cli, e);
        return;
    }
    time_text(lim__val_u64(e, "at_us", 0), at, sizeof at);
    lim__buf_format(&cli->out, "%5llu  %s  %-10s", (unsigned long long)lim__val_u64(e, "n", 0), at,
                    lim__val_str(e, "kind", ""));
    if (*who)
        lim__buf_format(&cli->out, "  %s", who);
    if (bytes > 0)
        lim__buf_format(&cli->out, "  %llu bytes", (unsigned long long)bytes);
    if (*detail)
        lim__buf_format(&cli->out, "  %s", detail);
    lim__buf_text(&cli->out, "\n");
}

/* In the order of their numbers; what was printed before is dropped. */
static void take_entry(following *f, lim__val e)
{
    uint64_t n = lim__val_u64(e, "n", 0);
    if (n <= f->last)
        return;
    if (n > f->last + 1)
        cli_note("liminal: %s: %llu entries were forgotten before they could be read", f->id,
                 (unsigned long long)(n - f->last - 1));
    f->last = n;
    print_entry(f->cli, e);
    const char *kind = lim__val_str(e, "kind", "");
    bool all = strcmp(kind, "outcome") == 0 || (strcmp(kind, "ended") == 0 && !*lim__val_str(e, "who", ""));
    if (!all) /* one ask in a conversation ends, too */
        return;
    f->look_us = LOOK_SOON_US;
    f->cli->due = true;
}

/* must: that none is kept is told. */
static bool history(struct cli *cli, const char *id, uint64_t after, bool must, lim__doc *doc)
{
    lim__buf b = { 0 };
    lim__json j = cli_request(&b, "history");
    lim__json_str(&j, "id", id);
    lim__json_u64(&j, "after", after);
    lim__json_close(&j);
    bool good = must ? cli_sys(cli, "$sys.conversations", id, lim__buf_bytes(&b), doc)
                     : cli_sys_maybe(cli, "$sys.conversations", id, lim__buf_bytes(&b), doc);
    lim__buf_fini(&b);
    return good;
}

/* ---- show ---- */

/* With its history, if there is one. */
static void show_json(struct cli *cli, lim__val v, lim__val past)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_open(&j, NULL, '{');
    cli_json_members(&j, v);
    lim__json_val(&j, "history", past);
    lim__json_close(&j);
    lim__buf_text(&cli->out, "\n");
}

static void show_once(struct cli *cli, lim__doc *doc)
{
    char id[24];
    lim__buf b = { 0 };
    if (!id_of(cli, cli_word(cli, 0), doc, id, sizeof id))
        return;
    lim__json j = cli_request(&b, "show");
    lim__json_str(&j, "id", id);
    if (!cli_request_end(cli, &j, "$sys.conversations", id, doc))
        return;
    lim__val v = lim__doc_root(doc);
    lim__doc *past = lim__doc_new();
    bool traced = history(cli, id, 0, false, past);
    cli_block(cli);
    if (cli->opts->json && traced)
        show_json(cli, v, lim__val_get(lim__doc_root(past), "history"));
    else
        cli_value_show(cli, v);
    lim__iter it = lim__iter_begin(lim__val_get(lim__doc_root(past), "history"));
    while (traced && !cli->opts->json && lim__iter_next(&it))
        print_entry(cli, it.val);
    lim__doc_free(past);
}

/* ---- follow ---- */

static lim_done on_entry(lim_client *client, const lim_delivery *d, void *ctx)
{
    following *f = ctx;
    (void)client;
    if (cli_over(f->cli))
        return LIM_DONE;
    if (f->reading) {
        lim__buf_add(&f->kept, d->payload.ptr, d->payload.len);
        lim__buf_text(&f->kept, "\n");
    } else if (lim__doc_parse(f->entry, d->payload, NULL) == LIM_OK) {
        take_entry(f, lim__doc_root(f->entry));
    }
    return LIM_DONE;
}

static void take_kept(following *f)
{
    for (lim_bytes all = lim__buf_bytes(&f->kept); all.len > 0; all = lim__buf_bytes(&f->kept)) {
        const char *end = memchr(all.ptr, '\n', all.len);
        size_t len = (size_t)(end - (const char *)all.ptr);
        if (lim__doc_parse(f->entry, lim__bytes(all.ptr, len), NULL) == LIM_OK)
            take_entry(f, lim__doc_root(f->entry));
        lim__buf_consume(&f->kept, len + 1);
    }
}

/* Reads what there is behind the last one printed. False: it is over. */
static bool read_history(following *f)
{
    f->reading = true;
    if (!history(f->cli, f->id, f->last, f->last == 0, f->doc))
        return false;
    f->reading = false;
    lim__val reply = lim__doc_root(f->doc);
    lim__iter it = lim__iter_begin(lim__val_get(reply, "history"));
    while (lim__iter_next(&it))
        take_entry(f, it.val);
    take_kept(f);
    return lim__val_bool(reply, "living", false);
}

static void on_ready(void *ctx)
{
    ((following *)ctx)->subscribed = true;
}

static void on_end(void *ctx, lim_err why, const char *detail)
{
    following *f = ctx;
    lim_diag diag = { 0 };
    if (cli_over(f->cli))
        return;
    lim__diag_set(&diag, 0, 0, "%s", detail ? detail : "");
    cli_err(f->cli, f->channel, why, &diag);
    cli_end(f->cli, CLI_DONE);
}

static void follow(struct cli *cli, lim__doc *doc)
{
    following f = { .cli = cli, .doc = doc, .entry = lim__doc_new(), .reading = true, .look_us = LOOK_US };
    lim_diag diag = { 0 };
    lim_sub sub;
    const lim_client_sub_opts opts = { .size = sizeof opts,
                                       .handler = { .on_message = on_entry, .on_end = on_end, .ctx = &f },
                                       .on_ready = on_ready };
    if (!id_of(cli, cli_word(cli, 0), doc, f.id, sizeof f.id) || (!cli->client && !cli_connect(cli, false)))
        return;
    snprintf(f.channel, sizeof f.channel, "$sys.history.%s", f.id);
    lim_err err = lim_client_subscribe(cli->client, f.channel, &opts, &diag, &sub);
    if (err != LIM_OK)
        cli_err(cli, f.channel, err, &diag);
    while (err == LIM_OK && !f.subscribed && !cli->ended)
        cli_turn(cli);
    while (err == LIM_OK && !cli->ended && read_history(&f) && cli_pause(cli, f.look_us))
        f.look_us = f.look_us * 2 < LOOK_US ? f.look_us * 2 : LOOK_US;
    cli_finish(cli); /* before `f` is gone */
    lim__buf_fini(&f.kept);
    lim__doc_free(f.entry);
}

int cli_run_conversation_show(struct cli *cli)
{
    return cli_repeat(cli, cli->opts->follow ? follow : show_once);
}

/* ---- signal, cancel ---- */

int cli_run_conversation_cancel(struct cli *cli)
{
    char id[24];
    lim__doc *doc = lim__doc_new();
    bool good = id_of(cli, cli_word(cli, 0), doc, id, sizeof id);
    lim__doc_free(doc);
    return good ? cli_do(cli, "$sys.conversations", "cancel", "id", id, NULL) : cli_finish(cli);
}

int cli_run_conversation_signal(struct cli *cli)
{
    lim__buf b = { 0 }, keep = { 0 };
    lim_bytes payload = cli_payload(cli, 2, &keep);
    lim__json j = cli_request(&b, "signal");
    which(&j, cli_word(cli, 0));
    lim__json_str(&j, "signal", cli_word(cli, 1));
    cli_json_payload(&j, payload);
    int code = cli->told ? cli->code : cli_once(cli, &j, "$sys.conversations", cli_word(cli, 0), NULL);
    lim__buf_fini(&b);
    lim__buf_fini(&keep);
    return code;
}
