/* SPDX-License-Identifier: Apache-2.0
 * outcome.c - how an exchange ended: as an exit code, as a line for people, as JSON. */
#include "cli/cli.h"
#include "data/data.h"
#include "data/outcome.h"

#include <stdio.h>

#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).ptr

int cli_outcome_code(const lim_outcome *outcome)
{
    switch (outcome->how) {
    case LIM_HOW_REPLY:
        return CLI_DONE;
    case LIM_HOW_NONE:
    case LIM_HOW_FAILED:
        return CLI_FAILED;
    case LIM_HOW_REFUSED:
        return CLI_REJECTED;
    case LIM_HOW_CRASHED:
        return CLI_CRASHED;
    case LIM_HOW_TIMEOUT:
        return CLI_TIMEOUT;
    case LIM_HOW_CANCELLED:
    case LIM_HOW_CLOSED:
        return CLI_CANCELLED;
    case LIM_HOW_LOST:
        return CLI_UNREACHABLE;
    }
    return CLI_FAILED;
}

/* "; what the other side said", or nothing. */
static void add_detail(lim__buf *b, const lim_outcome *o)
{
    lim_bytes text = cli_trim(o->detail);
    if (text.len > 0)
        lim__buf_format(b, ": %.*s", TEXT(text));
}

/* "one (after 1.2 ms), two": past whom it went, and how long it took each time until the next one had it. */
static void add_past(lim__buf *b, const lim_outcome *o)
{
    for (uint32_t i = 0; i < o->excluded_count; i++) {
        const lim_excluded *x = &o->excluded[i];
        lim__buf_format(b, "%s%.*s", i > 0 ? ", " : "", TEXT(x->identity));
        if (x->rerouted_wall_us > x->observed_wall_us)
            lim__buf_format(b, " (after %.3g ms)", (double)(x->rerouted_wall_us - x->observed_wall_us) / 1000);
    }
}

static void crashed_why(lim__buf *b, const lim_outcome *o)
{
    if (o->why == LIM_WHY_KILLS_WORKERS) {
        lim__buf_format(b, "%u workers died with it in hand, the last was ", (unsigned)o->losses);
        lim__buf_format(b, "%.*s (%s)", TEXT(o->participant), lim_reason_text(o->reason));
    } else if (o->participant.len > 0) {
        lim__buf_format(b, "%.*s died (%s) with the request in hand", TEXT(o->participant), lim_reason_text(o->reason));
    } else {
        lim__buf_text(b, "everybody who could answer died");
    }
    if (o->excluded_count > 1 && o->why != LIM_WHY_KILLS_WORKERS)
        lim__buf_format(b, ", %u participants in all", (unsigned)o->excluded_count);
    if (o->excluded_count > 1) {
        lim__buf_text(b, ": ");
        add_past(b, o);
    }
}

static void why_text(lim__buf *b, const lim_outcome *o)
{
    switch (o->how) {
    case LIM_HOW_FAILED:
        lim__buf_format(b, "%.*s could not do it", TEXT(o->participant));
        break;
    case LIM_HOW_REFUSED:
        lim__buf_text(b, lim_why_text(o->why));
        if (o->limit > 0)
            lim__buf_format(b, " (limit %u, now %u)", (unsigned)o->limit, (unsigned)o->current);
        break;
    case LIM_HOW_CRASHED:
        crashed_why(b, o);
        break;
    case LIM_HOW_TIMEOUT:
        lim__buf_format(b, "no reply after %.3g s", (double)o->elapsed_ns / 1e9);
        break;
    case LIM_HOW_CLOSED:
        lim__buf_text(b, "the conversation was closed");
        if (o->participant.len > 0)
            lim__buf_format(b, " by its %.*s", TEXT(o->participant));
        break;
    case LIM_HOW_LOST:
        lim__buf_text(b, "the connection to the server broke, what became of it is unknown");
        return;
    case LIM_HOW_CANCELLED:
        lim__buf_text(b, "before there was a reply");
        break;
    case LIM_HOW_NONE:
    case LIM_HOW_REPLY:
        break;
    }
    add_detail(b, o);
}

static const char *refused_todo(const lim_outcome *o, char *room, size_t size)
{
    if (o->why == LIM_WHY_NO_PARTICIPANT)
        return "start one with liminal serve or work, or wait for one with --wait";
    if (o->why == LIM_WHY_ROUTING_FAULT)
        return "see liminal group show, then deploy a better function";
    if (o->why == LIM_WHY_ROUTER_CHOSE_NONE)
        return "see what the group's function wants: liminal group show";
    if (o->why == LIM_WHY_TOO_BIG)
        return "send less at once";
    if (o->why == LIM_WHY_ATTEMPTS || o->why == LIM_WHY_START_TO_CLOSE)
        return "it is among the dead letters: liminal dead ls";
    if (o->why == LIM_WHY_DUPLICATE)
        return "it is there already; --on-duplicate join waits for that one";
    if (o->why == LIM_WHY_REPLACED)
        return "a newer one with its unique key is in its place";
    if (o->why == LIM_WHY_HOP_LIMIT)
        return "conversations open each other in a circle; see their parents with liminal conversation show";
    if (o->why == LIM_WHY_QUORUM)
        return "too few replied; see who is there with liminal worker ls";
    if (o->why == LIM_WHY_PURGED)
        return "somebody emptied the queue; dispatch it again if it is still wanted";
    if (o->why == LIM_WHY_BAD_NAME)
        return "write letters, digits, _ and - in segments joined by dots";
    if (o->retry_after_ms == 0)
        return "try again later";
    snprintf(room, size, "try again after %u ms", (unsigned)o->retry_after_ms);
    return room;
}

static const char *todo_text(const lim_outcome *o, char *room, size_t size)
{
    bool may_have_run = o->handed_over != LIM_HANDED_NO;
    switch (o->how) {
    case LIM_HOW_CRASHED:
        return o->why == LIM_WHY_KILLS_WORKERS ? "see what this request does to a worker before sending it again"
                                               : "ask again if running it twice is harmless (--next does so by itself)";
    case LIM_HOW_REFUSED:
        return refused_todo(o, room, size);
    case LIM_HOW_TIMEOUT:
        return may_have_run ? "it may have run; give it more time with --timeout"
                            : "nobody had taken it; liminal group ls says why";
    case LIM_HOW_LOST:
        return "start liminald again, then see whether it was done";
    case LIM_HOW_NONE:
    case LIM_HOW_REPLY:
    case LIM_HOW_FAILED:
    case LIM_HOW_CANCELLED:
    case LIM_HOW_CLOSED:
        break;
    }
    return o->how == LIM_HOW_FAILED ? "the reason is the participant's own"
                                    : (may_have_run ? "it may have run" : "it did not run");
}

void cli_outcome_line(lim__buf *out, const char *where, const lim_outcome *outcome)
{
    char room[64];
    lim__buf_format(out, "%s%s: ", where, lim_how_text(outcome->how));
    why_text(out, outcome);
    lim__buf_format(out, "; %s", todo_text(outcome, room, sizeof room));
}

/* Of one that was answered all the same: a line beside the answer. */
void cli_outcome_rerouted(const lim_outcome *outcome)
{
    lim__buf line = { 0 };
    if (outcome->how != LIM_HOW_REPLY || outcome->excluded_count == 0)
        return;
    add_past(&line, outcome);
    lim_bytes text = lim__buf_bytes(&line);
    cli_note("liminal: rerouted past %.*s", TEXT(text));
    lim__buf_fini(&line);
}

void cli_outcome_fault(struct cli *cli, const char *where, const lim_outcome *outcome)
{
    lim__buf line = { 0 };
    cli_outcome_line(&line, where, outcome);
    lim_bytes text = lim__buf_bytes(&line);
    cli_note("liminal: %.*s", TEXT(text));
    cli->told = true;
    cli->code = cli_worse(cli->code, cli_outcome_code(outcome));
    lim__buf_fini(&line);
}

static void text_or_null(lim__json *j, const char *key, lim_bytes text)
{
    if (text.len > 0)
        lim__json_bytes(j, key, text);
    else
        lim__json_str(j, key, NULL);
}

/* Without line breaks, as the object must stay on one line: written back value by value if it has any. */
static void embedded(lim__json *j, lim_bytes payload)
{
    lim__doc *doc = lim__doc_new();
    if (!doc || lim__doc_parse(doc, payload, NULL) != LIM_OK)
        cli_json_payload(j, payload);
    else if (memchr(payload.ptr, '\n', payload.len) || memchr(payload.ptr, '\r', payload.len))
        lim__json_val(j, "payload", lim__doc_root(doc));
    else
        lim__json_raw(j, "payload", cli_trim(payload));
    lim__doc_free(doc);
}

static void payload_json(lim__json *j, const lim_outcome *o, bool embed)
{
    if (o->how != LIM_HOW_REPLY)
        lim__json_str(j, "payload", NULL);
    else if (embed)
        embedded(j, o->payload);
    else
        cli_json_payload(j, o->payload);
}

static const char *or_null(const char *text)
{
    return *text ? text : NULL;
}

void cli_outcome_json(lim__json *j, const lim_outcome *o, bool embed)
{
    lim__json_str(j, "outcome", lim_how_text(o->how));
    payload_json(j, o, embed);
    text_or_null(j, "participant", o->participant);
    lim__json_str(j, "reason", o->reason != LIM_REASON_NONE ? lim_reason_text(o->reason) : NULL);
    lim__json_str(j, "why", or_null(lim_why_text(o->why)));
    text_or_null(j, "detail", o->detail);
    lim__json_str(j, "handed_over", or_null(lim_handed_text(o->handed_over)));
    lim__json_u64(j, "attempts", o->attempts);
    lim__json_u64(j, "losses", o->losses);
    lim__json_open(j, "excluded", '[');
    for (uint32_t i = 0; i < o->excluded_count; i++)
        lim__json_bytes(j, NULL, o->excluded[i].identity);
    lim__json_close(j);
    lim__outcome_past_json(j, o->excluded, o->excluded_count);
    text_or_null(j, "router", o->router);
    lim__json_u64(j, "elapsed_us", (o->elapsed_ns + 999) / 1000);
    cli_json_us(j, "crashed_wall_us", o->crashed_wall_us * 1000);
    cli_json_us(j, "rerouted_us", o->rerouted_ns);
}

const char *cli_verdict_text(lim_verdict verdict)
{
    return verdict == LIM_ACCEPT ? "accepted" : verdict == LIM_DEFER ? "deferred" : "rejected";
}

void cli_admission_json(lim__json *j, const lim_admission *a)
{
    static const char *const words[] = { "", "accept", "defer", "reject" };
    lim__json_str(j, "verdict", words[a->verdict <= LIM_REJECT ? a->verdict : 0]);
    lim__json_str(j, "why", or_null(lim_why_text(a->why)));
}
