/* SPDX-License-Identifier: Apache-2.0
 * pub.c - publish one message, or each line of standard input.
 *
 * Lines are pipelined: as many as UNANSWERED_MAX are on their way, then standard input waits. Receipts come back in the
 * order of the lines: of an ephemeral channel when it was offered, of a durable one when it is stored. */
#include "cli/cli.h"
#include "data/data.h"

#include <stdio.h>

enum { UNANSWERED_MAX = 4096 };

typedef struct publishing {
    struct cli *cli;
    cli_lines lines;
    lim_bytes held; /* a line that found too much waiting to be written; lines are paused meanwhile */
    bool from_lines, all_sent, holding;
    uint64_t unanswered;
    uint64_t last; /* of --expect-last */
    lim__doc *doc; /* of --idempotency-field: */
    lim__buf key;  /* of the line at hand */
} publishing;

static void say_reject(struct cli *cli, const lim_admission *a)
{
    char why[96], todo[96];
    int n = snprintf(why, sizeof why, "rejected: %s", lim_why_text(a->why));
    if (a->limit > 0 && n > 0)
        snprintf(why + n, sizeof why - (size_t)n, " (limit %u, now %u)", (unsigned)a->limit, (unsigned)a->current);
    if (a->why == LIM_WHY_NONE)
        snprintf(why, sizeof why, "nobody knows whether it is stored");
    if (a->why == LIM_WHY_NONE)
        snprintf(todo, sizeof todo, "publish it again with the same --idempotency-key");
    else if (a->why == LIM_WHY_BAD_NAME)
        snprintf(todo, sizeof todo, "use letters, digits, - and _, in parts joined by dots");
    else if (a->why == LIM_WHY_BAD_REQUEST)
        snprintf(todo, sizeof todo, "keys, --expires, --delay and --expect-last need a durable channel");
    else if (a->why == LIM_WHY_EXPECTED)
        snprintf(todo, sizeof todo, "look at what came meanwhile, then publish with the new --expect-last");
    else if (a->retry_after_ms > 0)
        snprintf(todo, sizeof todo, "try again after %u ms", (unsigned)a->retry_after_ms);
    else
        snprintf(todo, sizeof todo,
                 a->why == LIM_WHY_NO_SUBSCRIBER ? "somebody must subscribe first" : "it was not kept");
    cli_fault(cli, CLI_REJECTED, cli_word(cli, 0), why, todo);
}

static void say_json(lim__buf *out, const lim_receipt *r)
{
    const lim_admission *a = &r->admission;
    lim__json j = lim__json_begin(out);
    lim__json_open(&j, NULL, '{');
    cli_admission_json(&j, a);
    lim__json_u64(&j, "matched", a->matched);
    lim__json_u64(&j, "delivered", a->delivered);
    lim__json_u64(&j, "deferred", a->deferred);
    lim__json_u64(&j, "dropped", a->dropped);
    lim__json_u64(&j, "limit", a->limit);
    lim__json_u64(&j, "current", a->current);
    lim__json_u64(&j, "retry_after_ms", a->retry_after_ms);
    lim__json_u64(&j, "seq", r->seq);
    lim__json_str(&j, "class", r->durability != LIM_CLASS_NONE ? lim_class_text(r->durability) : NULL);
    lim__json_bool(&j, "duplicate", r->duplicate);
    lim__json_u64(&j, "at_us", r->at_wall_us);
    lim__json_bool(&j, "delayed", r->delayed);
    if (r->delayed)
        lim__json_u64(&j, "due_us", r->due_wall_us);
    lim__json_close(&j);
    lim__buf_text(out, "\n");
}

static void say_stored(lim__buf *out, const lim_receipt *r)
{
    if (r->seq > 0)
        lim__buf_format(out, "stored: %llu", (unsigned long long)r->seq);
    else
        lim__buf_text(out, "stored: for later, it has no number yet");
    lim__buf_format(out, " (%s)%s\n", lim_class_text(r->durability),
                    r->duplicate ? ", a duplicate: this is the first one's receipt" : "");
}

static void say_receipt(publishing *p, const lim_receipt *r)
{
    const lim_admission *a = &r->admission;
    lim__buf *out = &p->cli->out;
    if (p->cli->opts->json) {
        say_json(out, r);
        return;
    }
    if (a->verdict == LIM_REJECT) {
        say_reject(p->cli, a);
        return;
    }
    if (r->durability != LIM_CLASS_MEMORY) {
        say_stored(out, r);
        return;
    }
    lim__buf_format(out, "%s: ", cli_verdict_text(a->verdict));
    if (a->verdict == LIM_DEFER)
        lim__buf_text(out, lim_why_text(a->why));
    else
        lim__buf_format(out, "%u subscriber%s", (unsigned)a->matched, a->matched == 1 ? "" : "s");
    if (a->limit > 0)
        lim__buf_format(out, ", limit %u, now %u", (unsigned)a->limit, (unsigned)a->current);
    lim__buf_text(out, "\n");
}

static void end_if_done(publishing *p)
{
    if (p->all_sent && p->unanswered == 0)
        cli_end(p->cli, CLI_DONE);
}

static void send_lines(void *state);

static void on_receipt(void *ctx, const lim_receipt *r)
{
    publishing *p = ctx;
    p->unanswered--;
    if (p->cli->link == CLI_LINK_CLOSING)
        return;
    if (r->admission.verdict == LIM_REJECT && r->admission.why == LIM_WHY_NONE && p->cli->link != CLI_LINK_UP) {
        cli_end(p->cli, CLI_UNREACHABLE); /* the link's own fault is what is told */
        return;
    }
    say_receipt(p, r);
    if (r->admission.verdict == LIM_REJECT)
        p->cli->code = cli_worse(p->cli->code, CLI_REJECTED);
    if (p->from_lines && (p->holding || p->unanswered == UNANSWERED_MAX / 2))
        send_lines(p);
    end_if_done(p);
}

/* The key of a message: given, or one of its fields. False: told. */
static bool key_of(publishing *p, lim_bytes payload, const char **key)
{
    const cli_opts *o = p->cli->opts;
    *key = o->idempotency_key;
    if (!o->idempotency_field)
        return true;
    p->key.start = p->key.end = 0;
    lim__val v = { 0 };
    if (lim__doc_parse(p->doc, payload, NULL) == LIM_OK)
        v = lim__val_path(lim__doc_root(p->doc), o->idempotency_field);
    lim__json j = lim__json_begin(&p->key);
    if (v.kind == LIM__TEXT)
        lim__buf_add(&p->key, v.text.ptr, v.text.len);
    else if (lim__val_present(v) && v.kind != LIM__NULL)
        lim__json_val(&j, NULL, v);
    size_t len = lim__buf_len(&p->key);
    lim__buf_add(&p->key, "", 1);
    *key = (const char *)lim__buf_bytes(&p->key).ptr;
    if (len > 0 && len <= 255 && !p->key.failed)
        return true;
    cli_fault(p->cli, CLI_USAGE, o->idempotency_field, "a message has no such field, or one over 255 bytes",
              "give each message its own, or leave --idempotency-field out");
    cli_end(p->cli, CLI_USAGE);
    return false;
}

static int64_t ms_of(int64_t us)
{
    return us == LIM_FOREVER ? 0 : (us + 999) / 1000;
}

/* False: too much waits to be written, an answer must come first. Other refusals are told and count as offered. */
static bool offer(publishing *p, lim_bytes payload)
{
    const cli_opts *o = p->cli->opts;
    lim_publish_opts opts = { .size = sizeof opts,
                              .mandatory = o->mandatory,
                              .key = o->key,
                              .expires_ms = ms_of(o->expires_us),
                              .delay_ms = ms_of(o->delay_us),
                              .expect_last = o->expect_last != NULL,
                              .last = p->last,
                              .on_receipt = on_receipt,
                              .ctx = p };
    if (!key_of(p, payload, &opts.idempotency_key))
        return true;
    lim_err err = lim_client_publish_async(p->cli->client, cli_word(p->cli, 0), payload, &opts, NULL, NULL);
    if (err == LIM_OK)
        p->unanswered++;
    else if (err == LIM_E_FULL && p->unanswered > 0)
        return false;
    else
        cli_err(p->cli, cli_word(p->cli, 0), err, NULL);
    if (err != LIM_OK && err != LIM_E_TOOBIG)
        cli_end(p->cli, CLI_DONE);
    return true;
}

/* The held line, or the next one. */
static bool next_line(publishing *p, lim_bytes *line)
{
    *line = p->held;
    return p->holding || cli_lines_next(&p->lines, line);
}

static void send_lines(void *state)
{
    publishing *p = state;
    lim_bytes line;
    bool more = true;
    while (more && !p->cli->ended && p->unanswered < UNANSWERED_MAX && next_line(p, &line)) {
        more = offer(p, line);
        p->holding = !more;
        p->held = line;
    }
    more = more && p->unanswered < UNANSWERED_MAX;
    p->all_sent = more && p->lines.at_end;
    cli_lines_pause(&p->lines, !more);
    end_if_done(p);
}

int cli_run_pub(struct cli *cli)
{
    publishing p = { .cli = cli };
    const char *text = cli_word(cli, 1);
    p.from_lines = text && strcmp(text, "-") == 0;
    if (cli->opts->expect_last && !cli_seq(cli->opts->expect_last, &p.last)) {
        cli_fault(cli, CLI_USAGE, "--expect-last", "not a number of a message", "write the last one's, or 0 for none");
        return cli->code;
    }
    p.doc = cli->opts->idempotency_field ? lim__doc_new() : NULL;
    if (!cli_connect(cli, false)) {
        lim__doc_free(p.doc);
        return cli->code;
    }
    cli->state = &p;
    if (p.from_lines) {
        cli_lines_open(&p.lines, cli, send_lines);
    } else {
        p.all_sent = true;
        offer(&p, lim__str(text ? text : ""));
        end_if_done(&p);
    }
    int code = cli_run(cli);
    if (p.from_lines)
        cli_lines_close(&p.lines);
    lim__doc_free(p.doc);
    lim__buf_fini(&p.key);
    return code;
}
