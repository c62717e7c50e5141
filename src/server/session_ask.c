/* SPDX-License-Identifier: Apache-2.0
 * session_ask.c - asks, tasks and awaits over a connection: a conversation for each, and a call that waits for its end.
 *
 *   ASK       conversation linked with the session -- partial... - outcome ----> PARTIAL..., OUTCOME
 *   DISPATCH  conversation of its own, watched ---- admitted ----> DISPATCHED -- outcome --> OUTCOME, if asked for
 *   AWAIT     somebody's conversation, watched ----------------- outcome ----> OUTCOME; gone: what is remembered of it
 *
 * Parts of an answer come as the asker grants: those that were sent to it and not granted anew are `under_way`, never
 * more than its window, which is what bounds the bytes that wait here for a slow asker.
 *
 * A call ends exactly once: by the outcome letter, or by the end of its conversation without one (which is a fault of
 * ours, or an operator's doing). */
#include "server/session.h"

#include "bus/durable.h"

/* ---- calls ---- */

bool lim__session_corr_free(session *s, uint64_t corr)
{
    if (lim__map_get(&s->calls, corr) == NULL)
        return true;
    lim__session_fault(s, LIM_E_PROTOCOL, "corr %llu is in use", (unsigned long long)corr);
    return false;
}

call *lim__session_call_new(session *s, uint64_t corr, call_kind kind)
{
    call *c = lim__alloc(s->porter->sched, sizeof *c);
    if (c == NULL)
        return NULL;
    *c = (call){ .corr = corr, .kind = kind, .wants_outcome = true };
    if (lim__map_put(&s->calls, corr, c) != LIM_OK) {
        lim__free(s->porter->sched, c, sizeof *c);
        return NULL;
    }
    lim__session_busy_look(s);
    return c;
}

/* It is in the table no more. */
static void call_free(session *s, call *c)
{
    if (c->monitor != 0)
        lim_demonitor(s->self, c->monitor);
    s->call_bytes -= c->bytes;
    lim__free(s->porter->sched, c, sizeof *c);
    lim__session_busy_look(s);
}

static void call_weighs(session *s, call *c, size_t bytes)
{
    c->bytes = (uint32_t)bytes;
    s->call_bytes += bytes;
}

void lim__session_call_drop(session *s, call *c)
{
    lim__map_remove(&s->calls, c->corr);
    call_free(s, c);
}

/* ---- OUTCOME ---- */

static uint16_t clip16(uint32_t n)
{
    return n > UINT16_MAX ? UINT16_MAX : (uint16_t)n;
}

static void put_outcome(session *s, lim__f_outcome *f)
{
    lim_err err = lim__put_outcome(lim__session_out(s), f);
    if (LIM_LIKELY(err == LIM_OK || err == LIM_E_NOMEM))
        return;
    f->participant = f->router = lim__bytes(NULL, 0); /* names given by an embedder need not be UTF-8 */
    f->excluded = (lim__lost){ 0 };
    err = lim__put_outcome(lim__session_out(s), f);
    (void)LIM_NEVER(err != LIM_OK && err != LIM_E_NOMEM);
}

void lim__session_refuse(session *s, uint64_t corr, const refusal *r)
{
    lim__f_outcome f = { .corr = corr,
                         .how = (uint8_t)r->how,
                         .handed_over = LIM_HANDED_NO,
                         .verdict = LIM_ACCEPT,
                         .why = (uint8_t)r->why,
                         .limit = r->limit,
                         .current = r->current,
                         .participant = lim__str(r->how == LIM_HOW_CLOSED ? "opener" : NULL), /* its own stream */
                         .detail = lim__str(r->detail) };
    if (r->how == LIM_HOW_REFUSED)
        f.verdict = LIM_REJECT;
    put_outcome(s, &f);
}

static uint64_t since_us(uint64_t then_ns, uint64_t now_ns)
{
    if (then_ns == 0)
        return 0;
    return now_ns > then_ns + 1000 ? (now_ns - then_ns) / 1000 : 1; /* 0 would say: there was none */
}

static uint64_t since_wall_us(uint64_t then_us, uint64_t now_us)
{
    if (then_us == 0)
        return 0;
    return now_us > then_us ? now_us - then_us : 1;
}

/* The clocks of two machines differ: the wire says how long ago, and how long it took. */
static void put_excluded(lim__os *os, const lim__outcome_letter *o, lim__buf *room, lim__lost *list)
{
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    uint64_t now_us = os->wall_ns(os) / 1000;
    lim_outcome view;
    lim__outcome_view(o, excluded, &view);
    for (uint32_t i = 0; i < view.excluded_count; i++) {
        const lim_excluded *x = &excluded[i];
        const lim__lost_one one = { .name = x->identity,
                                    .ago_us = since_wall_us(x->observed_wall_us, now_us),
                                    .rerouted_us = since_wall_us(x->observed_wall_us, x->rerouted_wall_us) };
        (void)!lim__lost_add(room, list, x->rerouted_wall_us != 0 ? &one : &(lim__lost_one){ one.name, one.ago_us, 0 });
    }
}

static void say_outcome(session *s, uint64_t corr, const lim__outcome_letter *o)
{
    const char *at = o->text;
    lim__os *os = s->porter->os;
    lim__f_outcome f = { .corr = corr,
                         .how = (uint8_t)o->how,
                         .handed_over = (uint8_t)o->handed_over,
                         .verdict = o->how == LIM_HOW_REFUSED ? LIM_REJECT : LIM_ACCEPT,
                         .why = (uint8_t)o->why,
                         .reason = (uint32_t)o->reason,
                         .conversation = o->conv.id,
                         .compensation = o->compensation.id,
                         .rerouted_us = o->rerouted_ns / 1000,
                         .limit = o->limit,
                         .current = o->current,
                         .retry_after_ms = o->retry_after_ms,
                         .attempts = clip16(o->attempts),
                         .losses = clip16(o->losses) };
    if (o->crashed_ns != 0)
        f.crashed_us = since_us(o->crashed_ns, os->now_ns(os));
    if (o->payload != NULL)
        f.payload = lim__msg_bytes(o->payload);
    f.participant = lim__bytes(at, o->participant_len);
    at += o->participant_len;
    f.router = lim__bytes(at, o->router_len);
    at += o->router_len;
    f.detail = lim__bytes(at, o->detail_len);
    lim__buf excluded = { 0 };
    if (o->excluded_count > 0)
        put_excluded(os, o, &excluded, &f.excluded);
    put_outcome(s, &f);
    lim__buf_fini(&excluded);
}

void lim__session_outcome(session *s, lim_pid from, const lim__outcome_letter *o)
{
    call *c = lim__map_get(&s->calls, o->ref);
    if (c == NULL || c->conv.id != from.id)
        return; /* it was cancelled here meanwhile; its number may serve another one by now */
    say_outcome(s, c->corr, o);
    lim__session_call_drop(s, c);
}

/* ---- parts of an answer ---- */

void lim__session_partial(session *s, const lim__partial *p)
{
    call *c = lim__map_get(&s->calls, p->ref);
    if (c == NULL || c->kind != CALL_ASK)
        return;
    lim__f_partial f = { .corr = c->corr,
                         .conversation = p->conv.id,
                         .seq = p->seq,
                         .how = (uint8_t)p->how,
                         .participant = lim__bytes(p->text, p->participant_len),
                         .detail = lim__bytes(p->text + p->participant_len, p->detail_len) };
    if (p->payload != NULL)
        f.payload = lim__msg_bytes(p->payload);
    c->under_way += c->window > 0;
    if (LIM__MUTATION("part_twice") && p->seq == 3)
        (void)!lim__put_partial(lim__session_out(s), &f);
    if (lim__put_partial(lim__session_out(s), &f) != LIM_E_INVALID)
        return;
    f.participant = lim__bytes(NULL, 0); /* a name given by an embedder need not be UTF-8 */
    (void)!lim__put_partial(lim__session_out(s), &f);
}

void lim__session_grant(session *s, const lim__frame *frame)
{
    lim__f_grant f;
    if (!lim__get_grant(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    call *c = lim__map_get(&s->calls, f.corr);
    if (c == NULL || c->window == 0 || f.parts == 0)
        return; /* its outcome is on its way, or it needs no grants */
    if (f.parts > c->under_way) {
        lim__session_fault(s, LIM_E_PROTOCOL, "GRANT of %u parts to ask %llu, which has %u under way", f.parts,
                           (unsigned long long)f.corr, c->under_way);
        return;
    }
    c->under_way -= f.parts;
    lim__grant *g = lim__letter_new(s->porter->sched, &lim__type_grant, sizeof *g);
    if (g == NULL) { /* the stream would stand still for ever */
        lim__session_fault(s, LIM_E_NOMEM, "out of memory");
        return;
    }
    *g = (lim__grant){ f.parts };
    (void)!lim__send_reserved(s->self, c->conv, g);
}

/* ---- conversations that end without a word ---- */

/* What is remembered of an ended task, as the call's outcome. */
static bool say_remembered(session *s, const call *c)
{
    lim__sched *sched = s->porter->sched;
    lim__outcome_letter *o = lim__ended_outcome(s->porter->bus, sched, c->conv, c->corr);
    if (o == NULL)
        return false;
    say_outcome(s, c->corr, o);
    lim__letter_free(sched, o);
    return true;
}

static void say_died(session *s, const call *c)
{
    lim__f_outcome f = { .corr = c->corr,
                         .how = LIM_HOW_CRASHED,
                         .handed_over = LIM_HANDED_UNKNOWN,
                         .verdict = LIM_ACCEPT,
                         .reason = LIM_KILLED,
                         .conversation = c->conv.id,
                         .crashed_us = 1,
                         .participant = lim__str("conversation"),
                         .detail = lim__str("the conversation itself ended") };
    put_outcome(s, &f);
}

static void call_died(session *s, call *c)
{
    switch (c->kind) {
    case CALL_ASK:
    case CALL_ASKIN:
        say_died(s, c);
        break;
    case CALL_DISPATCH:
        LIM__SAY(s, dispatched, .corr = c->corr, .verdict = LIM_REJECT, .why = LIM_WHY_MEMORY, .retry_after_ms = 100,
                 .detail = lim__str("the task ended before it was queued"));
        break;
    case CALL_TASK:
        if (!say_remembered(s, c))
            say_died(s, c);
        break;
    case CALL_AWAIT:
        if (!say_remembered(s, c))
            lim__session_refuse(s, c->corr,
                                &(refusal){ LIM_HOW_REFUSED, LIM_WHY_NO_PARTICIPANT, 0, 0, "no such task" });
        break;
    }
    lim__session_call_drop(s, c);
}

static call *call_of(session *s, lim_pid conv, uint64_t monitor)
{
    size_t pos = 0;
    uint64_t key;
    void *value;
    while (lim__map_next(&s->calls, &pos, &key, &value)) {
        call *c = value;
        if (c->conv.id == conv.id && c->monitor == monitor)
            return c;
    }
    return NULL;
}

void lim__session_conv_gone(session *s, lim_pid conv, uint64_t monitor)
{
    for (call *c; (c = call_of(s, conv, monitor)) != NULL;)
        call_died(s, c);
}

/* ---- ASK ---- */

typedef struct request { /* what ASK and DISPATCH have in common */
    lim__conv_kind kind;
    uint64_t corr;
    uint32_t timeout_ms;
    lim_bytes group, type, headers, options, payload;
    lim__terms *terms; /* the options, read; owned until the conversation's first letter has them */
    lim_diag diag;     /* what is wrong with them */
} request;

static refusal no_memory(void)
{
    return (refusal){ LIM_HOW_REFUSED, LIM_WHY_MEMORY, 0, 0, "out of memory" };
}

static refusal judge_options(const lim_bus *bus, request *r)
{
    lim_err err = lim__terms_parse(r->options, &r->diag, &r->terms);
    if (err == LIM_E_NOMEM)
        return no_memory();
    if (err != LIM_OK)
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0, r->diag.text };
    const lim__terms *terms = lim__terms_or_default(r->terms);
    uint32_t hops = terms->hops;
    if (terms->durable && bus->durable == NULL) {
        (void)!lim__durable_missing(&r->diag);
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0, r->diag.text };
    }
    if (terms->durable && (terms->window > 0 || terms->gather))
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0,
                          "an ask in parts, or of everybody, is not durable" };
    if (hops > LIM_HOPS_MAX)
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_HOP_LIMIT, LIM_HOPS_MAX, hops,
                          "too many conversations deep; is somebody asking itself?" };
    return (refusal){ .how = LIM_HOW_REFUSED };
}

/* Why it cannot even begin; WHY_NONE: it can, and r->terms are there. */
static refusal judge(const session *s, request *r)
{
    uint32_t payload_max = s->porter->bus->opts.payload_bytes_max;
    if (lim__session_draining(s))
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_CLOSING, 0, 0, "the server is closing" };
    if (r->payload.len > payload_max)
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_TOO_BIG, payload_max, 0, "the payload is over the size limit" };
    if (r->timeout_ms == 0)
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0, "timeout_ms is 0" };
    if (r->group.len > 0 && !lim__channel_name_ok(r->group))
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_NAME, 0, 0,
                          "a name is segments of A-Z a-z 0-9 _ - joined by dots" };
    if (s->call_bytes + r->payload.len > LIM__CALL_BYTES_MAX)
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_MEMORY, LIM__CALL_BYTES_MAX, (uint32_t)s->call_bytes,
                          "too many bytes of this connection's asks are pending" };
    if (s->calls.count >= LIM__CALLS_MAX)
        return (refusal){ LIM_HOW_REFUSED, LIM_WHY_BACKLOG_FULL, LIM__CALLS_MAX, (uint32_t)s->calls.count,
                          "too many calls of this connection are pending" };
    return judge_options(s->porter->bus, r);
}

/* Takes r->terms. */
static lim__open *open_letter(session *s, request *r)
{
    lim__msg *msg = lim__msg_new_with(r->payload, r->headers);
    lim__open *open = msg == NULL ? NULL : lim__open_new(s->porter->sched, r->kind, r->group, r->type, msg);
    if (open == NULL) {
        lim__msg_unref(msg);
        return NULL;
    }
    open->owner = lim_self(s->self);
    open->ref = r->corr;
    open->terms = r->terms;
    r->terms = NULL;
    open->opened_ns = lim_now_ns(s->self);
    open->deadline_ns = lim__session_deadline(s, r->timeout_ms);
    return open;
}

static refusal judge_ask(const session *s, const lim__f_ask *f, request *r)
{
    refusal no = judge(s, r);
    const lim__terms *terms = lim__terms_or_default(r->terms);
    r->kind = terms->gather ? LIM__KIND_GATHER : LIM__KIND_ASK;
    if (no.why == LIM_WHY_NONE && (f->group.len > 0) == (f->participant != 0))
        no = (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0, "an ask names a group or a participant" };
    else if (no.why == LIM_WHY_NONE && terms->gather && f->participant != 0)
        no = (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0, "an ask with a quorum names a group" };
    else if (no.why == LIM_WHY_NONE && f->on_crash == LIM_CRASH_COMPENSATE && terms->compensate.len == 0)
        no = (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0, "on_crash 3 needs the option compensate" };
    return no;
}

/* Its conversation; false: no memory. */
static bool ask(session *s, const lim__f_ask *f, request *r, call *c)
{
    const lim__terms *terms = lim__terms_or_default(r->terms);
    c->window = terms->gather ? 0 : terms->window;
    lim__open *open = open_letter(s, r);
    if (open == NULL)
        return false;
    open->on_crash = (lim_crash)f->on_crash;
    open->participant = (lim_pid){ f->participant };
    open->flags = f->flags & LIM__FLAG_WAIT ? LIM__OPEN_WAIT : 0;
    if (lim__conv_spawn(s->porter->bus, s->self, open, &c->conv) != LIM_OK)
        return false;
    call_weighs(s, c, f->payload.len);
    lim__session_watch_closely(s);
    return true;
}

void lim__session_ask(session *s, const lim__frame *frame)
{
    lim__f_ask f;
    if (!lim__get_ask(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (!lim__session_corr_free(s, f.corr))
        return;
    request r = { .corr = f.corr,
                  .timeout_ms = f.timeout_ms,
                  .group = f.group,
                  .type = f.type,
                  .headers = f.headers,
                  .options = f.options,
                  .payload = f.payload };
    refusal no = judge_ask(s, &f, &r);
    call *c = no.why == LIM_WHY_NONE ? lim__session_call_new(s, f.corr, CALL_ASK) : NULL;
    if (c != NULL && ask(s, &f, &r, c))
        return;
    if (c != NULL)
        lim__session_call_drop(s, c);
    if (no.why == LIM_WHY_NONE)
        no = no_memory();
    lim__terms_unref(r.terms);
    lim__session_refuse(s, f.corr, &no);
}

static void send_command(session *s, lim_pid to, const lim__letter_type *type, uint64_t ref)
{
    lim__command *m = lim__letter_new(s->porter->sched, type, sizeof *m);
    if (m == NULL)
        return;
    *m = (lim__command){ ref, lim_self(s->self) };
    (void)!lim__send_reserved(s->self, to, m);
}

void lim__session_cancel(session *s, const lim__frame *frame)
{
    lim__f_cancel f;
    if (!lim__get_cancel(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    call *c = lim__map_get(&s->calls, f.corr);
    if (c == NULL)
        return;                                           /* its outcome is on its way */
    if (c->kind == CALL_AWAIT || c->kind == CALL_ASKIN) { /* the task, or the talk, goes on */
        if (c->kind == CALL_AWAIT)
            send_command(s, c->conv, &lim__type_unawait, c->corr);
        lim__session_refuse(s, c->corr, &(refusal){ LIM_HOW_CANCELLED, LIM_WHY_NONE, 0, 0, NULL });
        lim__session_call_drop(s, c);
    } else {
        send_command(s, c->conv, &lim__type_cancel, 0);
    }
}

/* ---- DISPATCH ---- */

static void say_rejected(session *s, uint64_t corr, const refusal *no)
{
    LIM__SAY(s, dispatched, .corr = corr, .verdict = LIM_REJECT, .why = (uint8_t)no->why, .limit = no->limit,
             .current = no->current, .retry_after_ms = no->why == LIM_WHY_MEMORY ? 100 : 0,
             .detail = lim__str(no->detail));
}

static bool dispatch(session *s, const lim__f_dispatch *f, request *r, call *c)
{
    lim__open *open = open_letter(s, r);
    if (open == NULL)
        return false;
    c->wants_outcome = f->flags & LIM__FLAG_OUTCOME;
    open->on_crash = LIM_CRASH_NEXT;
    open->losses_max = f->losses_max;
    open->flags = c->wants_outcome ? LIM__OPEN_REPORT : 0;
    if (lim__conv_spawn(s->porter->bus, s->self, open, &c->conv) != LIM_OK)
        return false;
    if (lim_monitor(s->self, c->conv, &c->monitor) == LIM_OK)
        return true;
    lim_exit_process(s->self, c->conv, LIM_KILL);
    return false;
}

void lim__session_dispatch(session *s, const lim__frame *frame)
{
    lim__f_dispatch f;
    if (!lim__get_dispatch(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (!lim__session_corr_free(s, f.corr))
        return;
    request r = { .kind = LIM__KIND_TASK,
                  .corr = f.corr,
                  .timeout_ms = f.timeout_ms,
                  .group = f.queue,
                  .type = f.type,
                  .headers = f.headers,
                  .options = f.options,
                  .payload = f.payload };
    refusal no = judge(s, &r);
    if (no.why == LIM_WHY_NONE && (f.queue.len == 0 || ((const char *)f.queue.ptr)[0] == '$'))
        no = (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_NAME, 0, 0, "a task needs a queue that is not the system's" };
    call *c = no.why == LIM_WHY_NONE ? lim__session_call_new(s, f.corr, CALL_DISPATCH) : NULL;
    if (c != NULL && dispatch(s, &f, &r, c))
        return;
    if (c != NULL)
        lim__session_call_drop(s, c);
    if (no.why == LIM_WHY_NONE)
        no = no_memory();
    lim__terms_unref(r.terms);
    say_rejected(s, f.corr, &no);
}

void lim__session_admitted(session *s, const lim__admitted *a)
{
    call *c = lim__map_get(&s->calls, a->ref);
    const lim_admission *v = &a->admission;
    if (c == NULL || c->kind != CALL_DISPATCH)
        return;
    LIM__SAY(s, dispatched, .corr = c->corr, .verdict = (uint8_t)v->verdict, .why = (uint8_t)v->why,
             .task = v->verdict == LIM_REJECT ? 0 : a->conv.id, .limit = v->limit, .current = v->current,
             .retry_after_ms = v->retry_after_ms);
    c->kind = CALL_TASK;
    if (v->verdict == LIM_REJECT || !c->wants_outcome)
        lim__session_call_drop(s, c);
}

/* ---- AWAIT ---- */

void lim__session_await(session *s, const lim__frame *frame)
{
    lim__f_await f;
    if (!lim__get_await(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (!lim__session_corr_free(s, f.corr))
        return;
    call *c = s->calls.count < LIM__CALLS_MAX ? lim__session_call_new(s, f.corr, CALL_AWAIT) : NULL;
    if (c == NULL) {
        refusal no = no_memory();
        lim__session_refuse(s, f.corr, &no);
        return;
    }
    c->conv = lim__alias_pid(s->porter->bus, f.task);
    /* Watched first: if it ends before the letter arrives, or has ended, that is told, and what is remembered counts.
     */
    bool is_one = lim__conv_kind_of(s->porter->bus, c->conv) != 0; /* and not some other process */
    if (!is_one || lim_monitor(s->self, c->conv, &c->monitor) != LIM_OK)
        call_died(s, c);
    else
        send_command(s, c->conv, &lim__type_await, f.corr);
}
