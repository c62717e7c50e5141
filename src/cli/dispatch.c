/* SPDX-License-Identifier: Apache-2.0
 * dispatch.c - give a queue one task, or one for each line of standard input; with --wait, gather the results.
 *
 *   line --> OFFERED --accepted, deferred--> ACCEPTED --outcome--> (printed, freed)     without --wait: freed at once
 *               |  ^
 *    rejected,  |  | after retry_after_ms, for a minute at most; then it is printed as refused
 *    too much   v  |
 *    to write  AGAIN
 *
 * At most UNANSWERED_MAX tasks are OFFERED or AGAIN; while that many are, or any is AGAIN, standard input waits.
 * Results are printed in the order in which the tasks end, so each names its line. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

enum { UNANSWERED_MAX = 1000, RETRY_MS_MIN = 5, RETRY_FOR_S = 60 };
#define MS UINT64_C(1000000)

typedef struct dispatching {
    struct cli *cli;
    const char *queue;
    cli_lines lines;
    lim__list again;
    bool from_lines, all_read;
    uint32_t unanswered, running; /* OFFERED or AGAIN; ACCEPTED and waited for */
    uint64_t line, failed;        /* read; ended otherwise than with a reply */
    lim_dispatch_opts opts;       /* of all of them */
} dispatching;

typedef struct task {
    lim__list node; /* in again */
    dispatching *d;
    enum { OFFERED = 1, AGAIN, ACCEPTED, ENDED /* before its verdict came */ } state;
    uint64_t line, due_ns, give_up_ns;
    lim_conv conv;
    size_t len;
    char payload[];
} task;

static void task_free(task *t)
{
    lim__list_remove(&t->node);
    free(t);
}

/* ---- printing ---- */

static lim__json begin(task *t)
{
    lim__json j = lim__json_begin(&t->d->cli->out);
    lim__json_open(&j, NULL, '{');
    cli_json_id(&j, "task", t->conv.id);
    return j;
}

static void finish(const task *t, lim__json *j)
{
    if (t->d->from_lines)
        lim__json_u64(j, "line", t->line);
    lim__json_close(j);
    lim__buf_text(&t->d->cli->out, "\n");
}

static void where(const task *t, char *out, size_t size)
{
    if (t->d->from_lines)
        snprintf(out, size, "line %llu: ", (unsigned long long)t->line);
    else
        out[0] = 0;
}

static void say_outcome(task *t, const lim_outcome *o)
{
    struct cli *cli = t->d->cli;
    char place[40];
    where(t, place, sizeof place);
    if (cli->opts->json) {
        lim__json j = begin(t);
        cli_outcome_json(&j, o, true);
        finish(t, &j);
    } else if (o->how == LIM_HOW_REPLY) {
        lim__buf_add(&cli->out, o->payload.ptr, o->payload.len);
        if (o->payload.len == 0 || ((const char *)o->payload.ptr)[o->payload.len - 1] != '\n')
            lim__buf_text(&cli->out, "\n");
        cli_outcome_rerouted(o);
    }
    if (o->how != LIM_HOW_REPLY && !(cli->opts->json && t->d->from_lines))
        cli_outcome_fault(cli, place, o);
    t->d->failed += o->how != LIM_HOW_REPLY;
    cli->code = cli_worse(cli->code, cli_outcome_code(o));
}

/* Accepted and not waited for, or rejected for good. */
static void say_verdict(task *t, const lim_admission *a)
{
    struct cli *cli = t->d->cli;
    if (cli->opts->json) {
        lim__json j = begin(t);
        cli_admission_json(&j, a);
        finish(t, &j);
        return;
    }
    lim__buf_format(&cli->out, "%s: task " CLI_ID_FORMAT, cli_verdict_text(a->verdict), (unsigned long long)t->conv.id);
    if (a->verdict == LIM_DEFER)
        lim__buf_format(&cli->out, " (%s, limit %u, now %u)", lim_why_text(a->why), (unsigned)a->limit,
                        (unsigned)a->current);
    lim__buf_text(&cli->out, "\n");
}

static void say_rejected(task *t, const lim_admission *a)
{
    const lim_outcome o = { .how = LIM_HOW_REFUSED,
                            .handed_over = LIM_HANDED_NO,
                            .why = a->why,
                            .limit = a->limit,
                            .current = a->current,
                            .retry_after_ms = a->retry_after_ms };
    if (t->d->cli->opts->wait || !t->d->cli->opts->json) {
        say_outcome(t, &o);
        return;
    }
    say_verdict(t, a);
    t->d->failed++;
    t->d->cli->code = cli_worse(t->d->cli->code, CLI_REJECTED);
}

static void say_lost(task *t)
{
    const lim_outcome o = { .how = LIM_HOW_LOST, .handed_over = LIM_HANDED_UNKNOWN };
    say_outcome(t, &o);
}

/* ---- the life of a task ---- */

static void read_more(void *state);

static void end_if_done(dispatching *d)
{
    if (d->all_read && d->unanswered == 0 && d->running == 0)
        cli_end(d->cli, CLI_DONE);
}

static void try_again(task *t, uint32_t after_ms)
{
    dispatching *d = t->d;
    t->state = AGAIN;
    t->due_ns = cli_now_ns() + (after_ms > RETRY_MS_MIN ? after_ms : RETRY_MS_MIN) * MS;
    lim__list_push(&d->again, &t->node);
    if (d->cli->alarm_ns == 0 || t->due_ns < d->cli->alarm_ns)
        d->cli->alarm_ns = t->due_ns;
}

static void on_outcome(void *ctx, const lim_outcome *outcome)
{
    task *t = ctx;
    dispatching *d = t->d;
    bool answered = t->state == ACCEPTED;
    if (d->cli->link != CLI_LINK_CLOSING) {
        t->conv = outcome->conv.id ? outcome->conv : t->conv;
        say_outcome(t, outcome);
    }
    t->state = ENDED;
    if (!answered)
        return; /* on_dispatched frees it */
    d->running--;
    task_free(t);
    end_if_done(d);
}

/* Its limits and faults stay as they are, however often it is sent. */
static bool hopeless(lim_why why)
{
    return why == LIM_WHY_TOO_BIG || why == LIM_WHY_BAD_NAME || why == LIM_WHY_SCHEMA || why == LIM_WHY_BAD_REQUEST ||
           why == LIM_WHY_UNKNOWN_CHANNEL || why == LIM_WHY_DUPLICATE || why == LIM_WHY_HOP_LIMIT ||
           why == LIM_WHY_CLOSING;
}

static void on_rejected(task *t, const lim_admission *a)
{
    dispatching *d = t->d;
    if (t->give_up_ns == 0)
        t->give_up_ns = cli_now_ns() + RETRY_FOR_S * 1000 * MS;
    if (d->from_lines && !hopeless(a->why) && cli_now_ns() < t->give_up_ns) {
        try_again(t, a->retry_after_ms);
        return;
    }
    say_rejected(t, a);
    d->unanswered--;
    task_free(t);
}

static void on_accepted(task *t, const lim_admission *a)
{
    dispatching *d = t->d;
    bool ended = t->state == ENDED;
    d->unanswered--;
    t->state = ACCEPTED;
    if (d->cli->opts->wait && !ended) {
        d->running++;
        return;
    }
    if (!d->cli->opts->wait)
        say_verdict(t, a);
    task_free(t);
}

static void on_dispatched(void *ctx, lim_err err, const lim_admission *admission, lim_conv conv)
{
    task *t = ctx;
    dispatching *d = t->d;
    if (d->cli->link == CLI_LINK_CLOSING) {
        task_free(t);
        return;
    }
    t->conv = conv;
    if (err == LIM_OK && admission->verdict == LIM_REJECT) {
        on_rejected(t, admission);
    } else if (err == LIM_OK) {
        on_accepted(t, admission);
    } else {
        if (err == LIM_E_CLOSED)
            say_lost(t);
        else
            cli_err(d->cli, d->queue, err, NULL);
        d->unanswered--;
        task_free(t);
    }
    if (d->from_lines && !d->all_read && d->unanswered == UNANSWERED_MAX / 2)
        read_more(d);
    end_if_done(d);
}

static void offer(task *t)
{
    dispatching *d = t->d;
    t->state = OFFERED;
    lim_err err = lim_client_dispatch_async(d->cli->client, d->queue, lim__bytes(t->payload, t->len), &d->opts,
                                            on_dispatched, d->cli->opts->wait ? on_outcome : NULL, t);
    if (err == LIM_OK)
        return;
    if (err == LIM_E_FULL && d->unanswered > 1) {
        try_again(t, 0);
        return;
    }
    cli_err(d->cli, d->queue, err, NULL);
    d->unanswered--;
    task_free(t);
    if (err != LIM_E_TOOBIG)
        cli_end(d->cli, CLI_DONE);
}

static void on_alarm(void *state)
{
    dispatching *d = state;
    uint64_t now = cli_now_ns(), next = 0;
    lim__list due;
    lim__list_init(&due);
    LIM__LIST_EACH_SAFE(node, tmp, &d->again) {
        task *t = LIM_CONTAINER(node, task, node);
        if (t->due_ns > now) {
            next = next == 0 || t->due_ns < next ? t->due_ns : next;
            continue;
        }
        lim__list_remove(node);
        lim__list_push(&due, node);
    }
    d->cli->alarm_ns = next;
    for (lim__list *node; (node = lim__list_pop(&due));)
        offer(LIM_CONTAINER(node, task, node));
    if (d->from_lines && lim__list_empty(&d->again))
        read_more(d);
}

static void take(dispatching *d, lim_bytes payload)
{
    task *t = malloc(sizeof *t + payload.len);
    if (!t) {
        cli_fault(d->cli, CLI_FAILED, d->queue, "no memory", "send fewer tasks at once");
        cli_end(d->cli, CLI_FAILED);
        return;
    }
    *t = (task){ .d = d, .line = d->line, .len = payload.len };
    memcpy(t->payload, payload.len ? payload.ptr : "", payload.len);
    lim__list_init(&t->node);
    d->unanswered++;
    offer(t);
}

static bool may_read(const dispatching *d)
{
    return d->unanswered < UNANSWERED_MAX && lim__list_empty(&d->again) && !d->cli->ended;
}

static void read_more(void *state)
{
    dispatching *d = state;
    lim_bytes line;
    bool more = true;
    while (may_read(d) && (more = cli_lines_next(&d->lines, &line))) {
        d->line++;
        if (cli_trim(line).len > 0)
            take(d, line);
    }
    d->all_read = !more && d->lines.at_end;
    cli_lines_pause(&d->lines, !may_read(d));
    end_if_done(d);
}

static void on_interrupt(void *state)
{
    dispatching *d = state;
    cli_note("liminal: dispatch: interrupted with %u tasks unanswered and %u running; see liminal queue show %s",
             (unsigned)d->unanswered, (unsigned)d->running, d->queue);
    cli_end(d->cli, CLI_CANCELLED);
}

static void start(dispatching *d, lim_bytes payload)
{
    struct cli *cli = d->cli;
    cli->state = d;
    cli->on_alarm = on_alarm;
    cli->on_interrupt = on_interrupt;
    if (d->from_lines) {
        cli_lines_open(&d->lines, cli, read_more);
        return;
    }
    d->all_read = true;
    take(d, payload);
    end_if_done(d);
}

static void fini(dispatching *d)
{
    for (lim__list *node; (node = lim__list_pop(&d->again));)
        free(LIM_CONTAINER(node, task, node));
    if (d->from_lines)
        cli_lines_close(&d->lines);
}

static int64_t ms(int64_t us, int64_t otherwise)
{
    return us == 0 || us == LIM_FOREVER ? otherwise : (us + 999) / 1000;
}

/* False: told. */
static bool options(dispatching *d)
{
    const cli_opts *o = d->cli->opts;
    int64_t at_us = 0;
    const char *problem =
        o->types.count > 1                    ? "--type: a task has one type; give it once"
        : o->idempotency_key && d->from_lines ? "--idempotency-key: it stands for one task; give the tasks one by one"
        : o->at && o->delay_us                ? "--at and --delay: both say when; choose"
        : o->at && !cli_time(o->at, &at_us)   ? "--at: not a time; write 2026-11-21T08:00Z, or without Z for local time"
        : o->weight > 1000                    ? "--weight: too much; write 1 to 1000"
        : o->weight && !o->key                ? "--weight: it is that of a key; write --key K --weight N"
        : o->on_duplicate && !o->unique_key   ? "--on-duplicate: it is about a unique key; write --unique-key K, too"
                                              : NULL;
    if (problem || (o->report_to && !cli_id(o->report_to, &d->opts.report_to.id))) {
        cli_note("liminal: %s",
                 problem ? problem : "--report-to: not the id of a conversation; conversation ls shows them");
        return false;
    }
    d->opts.size = sizeof d->opts;
    d->opts.type = o->types.items[0];
    d->opts.timeout_ms = ms(o->timeout_us, LIM_FOREVER);
    d->opts.priority = (uint32_t)o->priority;
    d->opts.key = o->key;
    d->opts.weight = o->weight;
    d->opts.order_key = o->order_key;
    d->opts.unique_key = o->unique_key;
    d->opts.on_duplicate = (lim_unique)o->on_duplicate;
    d->opts.idempotency_key = o->idempotency_key;
    d->opts.delay_ms = ms(o->delay_us, 0);
    d->opts.start_to_close_ms = ms(o->start_to_close_us, 0);
    d->opts.progress_ms = ms(o->progress_us, 0);
    d->opts.cause = cli_cause(o->wait); /* a task that nobody waits for has time of its own */
    d->opts.trace = o->trace;
    d->opts.durable = o->durable;
    if (o->at)
        d->opts.at_wall_us = at_us > 0 ? (uint64_t)at_us : 1;
    return true;
}

int cli_run_dispatch(struct cli *cli)
{
    dispatching d = { .cli = cli, .queue = cli_word(cli, 0) };
    const char *text = cli_word(cli, 1);
    d.from_lines = text && strcmp(text, "-") == 0;
    lim__list_init(&d.again);
    if (!options(&d))
        return CLI_USAGE;
    if (!cli_connect(cli, false))
        return cli->code;
    start(&d, lim__str(text ? text : ""));
    cli_run(cli);
    if (d.from_lines && cli->opts->json && d.failed > 0)
        cli_note("liminal: dispatch: %llu of %llu tasks ended without a reply; their lines say why",
                 (unsigned long long)d.failed, (unsigned long long)d.line);
    fini(&d);
    return cli->code;
}
