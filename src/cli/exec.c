/* SPDX-License-Identifier: Apache-2.0
 * exec.c - `serve` and `work`: a command answers requests, as many at once as the capacity says.
 *
 *   handed over --> RUNNING --ended--> (RESTING: parts are left, and no credit) --> ANSWERING --taken--> (freed)
 *                      `--revoked--> REVOKED: its child is killed; --ended--> ANSWERING: nobody wants the result, but
 *                                    the server wants to hear that the place is free again
 *
 * With --stream each line of output is a part, if the asker takes parts; while it takes no more, the output is not
 * read, so the command waits, too. Of a task the lines "progress: NOTE" on standard error are its progress. A signal to
 * the conversation whose name is that of a signal of the system (usr1, hup, term ...) is passed on to the command.
 *
 * The end of the program is the end of its children: they are killed, then the group is left, so that what was in hand
 * moves on at once and never runs beside a survivor. With --max, requests beyond the last one are held unanswered until
 * then and move on, too. */
#include "cli/job.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { SERVE_CAPACITY = 16, WORK_CAPACITY = 1, RETRY_NS = 5000000, NOTE_BYTES = 200 };

typedef struct serving {
    struct cli *cli;
    const char *name;
    bool work;
    lim__list requests;
    char identity[256];
    uint32_t taken, finished;
    lim_participant self;
    cli_job probe; /* is the command there at all? */
} serving;

typedef struct request {
    lim__list node;
    cli_job job;
    serving *serving;
    enum { RUNNING = 1, REVOKED, RESTING, ANSWERING } state;
    bool unwanted; /* was REVOKED */
    bool parts;    /* the asker takes them */
    bool too_big;  /* one of them was, for the server */
    uint32_t credit;
    lim_participant self;
    lim_conv conv;
    uint64_t lease, started_ns;
    int status;
} request;

static void request_free(request *r)
{
    lim__list_remove(&r->node);
    cli_job_fini(&r->job);
    free(r);
}

/* ---- the answer ---- */

static void say_finished(const request *r)
{
    serving *s = r->serving;
    lim__buf *out = &s->cli->out;
    uint64_t ms = (cli_now_ns() - r->started_ns) / 1000000;
    if (!s->cli->opts->json) {
        lim__buf_format(out, CLI_ID_FORMAT " exit %d, %llu ms\n", (unsigned long long)r->conv.id,
                        cli_job_exit(r->status), (unsigned long long)ms);
        return;
    }
    lim__json j = lim__json_begin(out);
    lim__json_open(&j, NULL, '{');
    cli_json_id(&j, "conversation", r->conv.id);
    lim__json_u64(&j, "ms", ms);
    lim__json_i64(&j, "exit", cli_job_exit(r->status));
    lim__json_close(&j);
    lim__buf_text(out, "\n");
}

/* What its standard error said, or, when that was nothing, how it ended. */
static void reason(const request *r, char *out, size_t size)
{
    int code = cli_job_exit(r->status);
    lim_bytes said = cli_trim(lim__buf_bytes(&r->job.complaint));
    const char *missing = code == 127 ? "the command does not exist: " : code == 126 ? "the command cannot run: " : "";
    if (r->unwanted)
        snprintf(out, size, "revoked");
    else if (r->too_big)
        snprintf(out, size, "a line is longer than a message may be");
    else if (r->job.overflowed)
        snprintf(out, size, "the reply is over %d bytes", CLI_REPLY_MAX);
    else if (said.len > 0)
        snprintf(out, size, "%s%.*s", missing, (int)said.len, (const char *)said.ptr);
    else if (WIFSIGNALED(r->status))
        snprintf(out, size, "killed by signal %d (%s)", WTERMSIG(r->status), strsignal(WTERMSIG(r->status)));
    else
        snprintf(out, size, "%sexit code %d", missing, code);
}

static lim_err send_answer(request *r)
{
    lim_client *c = r->serving->cli->client;
    char why[CLI_COMPLAINT_MAX + 64];
    lim_bytes reply = lim__buf_bytes(&r->job.reply);
    if (r->status == 0 && !r->job.overflowed && !r->too_big && !r->unwanted) {
        lim_err err = lim_client_reply_to(c, r->self, r->conv, r->lease, reply);
        if (err != LIM_E_TOOBIG)
            return err;
        snprintf(why, sizeof why, "the reply has %zu bytes, which is over the limit", reply.len);
    } else {
        reason(r, why, sizeof why);
    }
    return lim_client_fail_to(c, r->self, r->conv, r->lease, why);
}

static void leave(serving *s)
{
    while (!lim__list_empty(&s->requests))
        request_free(LIM_CONTAINER(s->requests.next, request, node));
    lim_err err = lim_client_leave(s->cli->client, s->self);
    (void)err; /* GONE: it has been left already */
    cli_end(s->cli, CLI_DONE);
}

/* A client that has too much to write keeps the request here; the alarm tries again. */
static void answer(request *r)
{
    serving *s = r->serving;
    r->state = ANSWERING;
    if (send_answer(r) == LIM_E_FULL) {
        s->cli->alarm_ns = cli_now_ns() + RETRY_NS;
        return;
    }
    say_finished(r);
    request_free(r);
    s->finished++;
    if (s->finished == s->cli->opts->max)
        leave(s);
}

/* ---- parts ---- */

/* One line of its output. False: not now; on_credit, or the alarm, will say when. */
static bool send_part(request *r, lim_bytes line)
{
    serving *s = r->serving;
    lim_err err = r->credit > 0 ? lim_client_part_to(s->cli->client, r->self, r->conv, r->lease, line) : LIM_E_FULL;
    if (err == LIM_E_FULL && r->credit > 0) /* there is too much to be written */
        s->cli->alarm_ns = cli_now_ns() + RETRY_NS;
    if (err == LIM_E_FULL)
        return false;
    if (err == LIM_E_TOOBIG) {
        r->too_big = true;
        cli_job_kill(&r->job);
    }
    r->credit -= err == LIM_OK; /* else nobody waits any more: it is revoked soon */
    return true;
}

/* Its complete lines, at its end also the rest. True: there is nothing left. */
static bool send_parts(request *r, bool all)
{
    for (lim_bytes out = lim__buf_bytes(&r->job.reply); out.len > 0; out = lim__buf_bytes(&r->job.reply)) {
        const char *end = memchr(out.ptr, '\n', out.len);
        size_t len = end ? (size_t)(end - (const char *)out.ptr) : out.len;
        if (!end && !all)
            break;
        if (!send_part(r, lim__bytes(out.ptr, len))) {
            cli_job_pause(&r->job, true);
            return false;
        }
        lim__buf_consume(&r->job.reply, len + (end != NULL));
    }
    cli_job_pause(&r->job, false);
    return true;
}

static void on_output(cli_job *job)
{
    request *r = LIM_CONTAINER(job, request, job);
    if (r->state == RUNNING)
        send_parts(r, false);
}

static void go_on(request *r)
{
    if (r->state == RUNNING && r->parts)
        send_parts(r, false);
    else if (r->state == ANSWERING || (r->state == RESTING && send_parts(r, true)))
        answer(r);
}

static void on_alarm(void *state)
{
    serving *s = state;
    LIM__LIST_EACH_SAFE(node, next, &s->requests) {
        go_on(LIM_CONTAINER(node, request, node));
        if (s->cli->ended || s->cli->alarm_ns != 0) /* left: the list is gone; or still too much to write */
            return;
    }
}

static request *request_of(serving *s, lim_conv conv, uint64_t lease)
{
    LIM__LIST_EACH(node, &s->requests) {
        request *r = LIM_CONTAINER(node, request, node);
        if (r->conv.id == conv.id && (r->lease == lease || lease == 0))
            return r;
    }
    return NULL;
}

static void on_credit(void *ctx, lim_conv conv, uint64_t lease, uint32_t credit)
{
    request *r = request_of(ctx, conv, lease);
    if (r == NULL)
        return;
    r->credit += credit;
    if (r->state != ANSWERING)
        go_on(r);
}

static void on_child_end(cli_job *job, int status)
{
    request *r = LIM_CONTAINER(job, request, job);
    r->status = status;
    r->unwanted = r->state == REVOKED;
    if (r->parts && !r->unwanted && !r->too_big && !send_parts(r, true))
        r->state = RESTING;
    else
        answer(r);
}

/* Nobody wants the result any more. */
static void give_up(request *r)
{
    if (r->state == RUNNING) {
        r->state = REVOKED;
        cli_job_kill(&r->job);
    } else if (r->state == RESTING) {
        r->unwanted = true;
        answer(r);
    }
}

/* ---- progress and signals ---- */

static void on_note(cli_job *job, lim_bytes note)
{
    request *r = LIM_CONTAINER(job, request, job);
    char text[NOTE_BYTES + 1];
    snprintf(text, sizeof text, "%.*s", (int)(note.len < NOTE_BYTES ? note.len : NOTE_BYTES), (const char *)note.ptr);
    while (!cli_utf8(lim__str(text))) /* cut in a character */
        text[strlen(text) - 1] = 0;
    lim_err err = lim_client_progress(r->serving->cli->client, r->self, r->conv, r->lease, *text ? text : NULL);
    (void)err; /* revoked, or the connection is away: its worker counts as lost, not as stuck */
}

static int signal_named(lim_bytes name)
{
    static const struct {
        const char *name;
        int number;
    } all[] = { { "hup", SIGHUP },   { "int", SIGINT },   { "quit", SIGQUIT },
                { "term", SIGTERM }, { "usr1", SIGUSR1 }, { "usr2", SIGUSR2 } };
    for (size_t i = 0; i < LIM_COUNT(all); i++) {
        if (lim__bytes_eq(name, lim__str(all[i].name)))
            return all[i].number;
    }
    return 0;
}

static void say_signal(serving *s, const lim_delivery *d)
{
    lim__buf *out = &s->cli->out;
    if (!s->cli->opts->json) {
        lim__buf_format(out, CLI_ID_FORMAT " signal %.*s %.*s\n", (unsigned long long)d->conv.id, (int)d->type.len,
                        (const char *)d->type.ptr, (int)d->payload.len, (const char *)d->payload.ptr);
        return;
    }
    lim__json j = lim__json_begin(out);
    lim__json_open(&j, NULL, '{');
    cli_json_id(&j, "conversation", d->conv.id);
    lim__json_bytes(&j, "signal", d->type);
    cli_json_payload(&j, d->payload);
    lim__json_close(&j);
    lim__buf_text(out, "\n");
}

static void on_signal(serving *s, const lim_delivery *d)
{
    request *r = request_of(s, d->conv, 0);
    int number = signal_named(d->type);
    say_signal(s, d);
    if (r != NULL && r->state == RUNNING && number != 0)
        cli_job_signal(&r->job, number);
}

/* ---- the request ---- */

static int start(request *r, const lim_delivery *d)
{
    const serving *s = r->serving;
    cli_cause_words cause;
    char type[300], attempt[64], losses[64], identity[300];
    const char *const env[] = { cause.conversation, cause.hops, cause.until, cause.traceparent, type, attempt, losses,
                                identity,           NULL };
    cli_cause_env(d, &cause);
    snprintf(type, sizeof type, "LIMINAL_TYPE=%.*s", (int)d->type.len, (const char *)d->type.ptr);
    snprintf(attempt, sizeof attempt, "LIMINAL_ATTEMPT=%u", (unsigned)d->attempt);
    snprintf(losses, sizeof losses, "LIMINAL_LOSSES=%u", (unsigned)d->losses);
    snprintf(identity, sizeof identity, "LIMINAL_IDENTITY=%s", s->identity);
    return cli_job_start(&r->job, s->cli, s->cli->opts->exec, env, d->payload);
}

static request *request_new(serving *s, const lim_delivery *d)
{
    request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->serving = s;
    r->state = RUNNING;
    r->self = d->self;
    r->conv = d->conv;
    r->lease = d->lease;
    r->started_ns = cli_now_ns();
    r->job.on_end = on_child_end;
    r->job.on_note = s->work ? on_note : NULL;
    r->parts = s->cli->opts->stream && d->credit > 0;
    r->credit = d->credit;
    r->job.on_output = r->parts ? on_output : NULL;
    lim__list_push(&s->requests, &r->node);
    return r;
}

static lim_done on_message(lim_client *client, const lim_delivery *d, void *ctx)
{
    serving *s = ctx;
    uint32_t max = s->cli->opts->max;
    if (d->event == LIM_EVENT_SIGNAL)
        on_signal(s, d);
    if (d->event != LIM_EVENT_NONE)
        return LIM_DONE;
    if (cli_over(s->cli) || (max > 0 && s->taken == max))
        return LIM_HOLD;
    request *r = request_new(s, d);
    int err = r ? start(r, d) : -ENOMEM;
    s->taken++;
    if (err == 0)
        return LIM_HOLD;
    char why[120];
    snprintf(why, sizeof why, "cannot start the command: %s", strerror(-err));
    cli_note("liminal: %s: %s; free processes, descriptors or memory", s->cli->opts->exec, why);
    if (r)
        request_free(r);
    lim_err failed = lim_client_fail(client, d, why);
    (void)failed; /* GONE: nobody waits any more */
    return LIM_DONE;
}

static void on_revoked(void *ctx, lim_conv conv, uint64_t lease, const char *why)
{
    request *r = lease != 0 ? request_of(ctx, conv, lease) : NULL;
    (void)why;
    if (r != NULL)
        give_up(r); /* ANSWERING: the client refuses its result by itself */
}

/* Whoever asked has been told that the participant is lost; tasks go on, the client will say that it has them. */
static void on_away(void *state)
{
    serving *s = state;
    LIM__LIST_EACH_SAFE(node, next, &s->requests) {
        if (s->work || s->cli->ended)
            return;
        give_up(LIM_CONTAINER(node, request, node));
    }
}

/* ---- the registration ---- */

static void on_ready(void *ctx, const char *identity)
{
    serving *s = ctx;
    snprintf(s->identity, sizeof s->identity, "%s", identity);
    cli_note("%s %s as %s", s->work ? "working on" : "serving", s->name, identity);
}

static void on_end(void *ctx, lim_err why, const char *detail)
{
    serving *s = ctx;
    if (cli_over(s->cli))
        return;
    lim_diag diag = { 0 };
    lim__diag_set(&diag, 0, 0, "%s", detail ? detail : "");
    if (why != LIM_OK)
        cli_err(s->cli, s->name, why, &diag);
    cli_end(s->cli, CLI_DONE);
}

static void on_interrupt(void *state)
{
    serving *s = state;
    if (!s->cli->ended)
        leave(s);
}

/* ---- is there such a command? ---- */

static void on_probed(cli_job *job, int status)
{
    serving *s = LIM_CONTAINER(job, serving, probe);
    if (status != 0)
        cli_note("liminal: warning: %s: sh finds no such command; requests will fail until there is one",
                 s->cli->opts->exec);
}

/* Only when the first word is one that the shell would take as it stands. */
static void probe(serving *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
    const char *command = s->cli->opts->exec;
    size_t len = strspn(command, plain);
    if (len == 0 || len > 200 || command[0] == '-' || (command[len] != 0 && command[len] != ' '))
        return;
    char line[256];
    snprintf(line, sizeof line, "command -v %.*s >/dev/null 2>&1", (int)len, command);
    s->probe.on_end = on_probed;
    int err = cli_job_start(&s->probe, s->cli, line, NULL, lim__bytes(NULL, 0));
    (void)err; /* then the first request says it */
}

static lim_err enter(serving *s, lim_diag *diag)
{
    const cli_opts *o = s->cli->opts;
    const lim_client_serve_opts opts = {
        .size = sizeof opts,
        .identity = o->identity,
        .capacity = o->capacity ? o->capacity
                    : s->work   ? WORK_CAPACITY
                                : SERVE_CAPACITY,
        .types = o->types.count ? o->types.items : NULL,
        .tags = o->tags.count ? o->tags.items : NULL,
        .handler = { .on_message = on_message, .on_end = on_end, .ctx = s },
        .on_ready = on_ready,
        .on_revoked = on_revoked,
        .on_credit = on_credit,
    };
    return s->work ? lim_client_work(s->cli->client, s->name, &opts, diag, &s->self)
                   : lim_client_serve(s->cli->client, s->name, &opts, diag, &s->self);
}

static int run(struct cli *cli, bool work)
{
    serving s = { .cli = cli, .name = cli_word(cli, 0), .work = work };
    lim_diag diag = { 0 };
    lim__list_init(&s.requests);
    if (!cli->opts->exec || !*cli->opts->exec) {
        cli_fault(cli, CLI_USAGE, "--exec", "nothing says what answers the requests", "write --exec 'CMD'");
        return CLI_USAGE;
    }
    cli->serves = true;
    if (!cli_connect(cli, !cli->opts->no_reconnect))
        return cli->code;
    cli->state = &s;
    cli->on_interrupt = on_interrupt;
    cli->on_alarm = on_alarm;
    cli->on_away = on_away;
    lim_err err = enter(&s, &diag);
    if (err != LIM_OK) {
        cli_err(cli, s.name, err, &diag);
        cli_end(cli, CLI_DONE);
    } else {
        probe(&s);
    }
    cli_run(cli);
    while (!lim__list_empty(&s.requests))
        request_free(LIM_CONTAINER(s.requests.next, request, node));
    cli_job_fini(&s.probe);
    return cli->code;
}

int cli_run_serve(struct cli *cli)
{
    return run(cli, false);
}

int cli_run_work(struct cli *cli)
{
    return run(cli, true);
}
