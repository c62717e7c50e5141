/* SPDX-License-Identifier: Apache-2.0
 * session_talk.c - conversations with more than one exchange over a connection: a stream for each.
 *
 *   (OPEN) --conversation spawned--> OPENING --done--> OPEN --closed, or its process died--> CLOSED, stream free
 *                                       `-- refused --> OPENED with a code, stream free
 *
 * A client need not wait for OPENED: what it sends before is kept and goes to the conversation once that has its
 * participant, or it would be taken for a message to nobody. A conversation is told to push what its participants say.
 * Answers to SEND are merged into runs until the end of the turn; what the session itself refuses passes through the
 * conversation, too, so that the answers are in order. Its answers (`done`) tell SEND and JOIN apart by their `ref`. */
#include "server/session.h"

#include <stdio.h>

#define REF_JOIN ((uint64_t)1 << 32) /* in the ref of a letter: the low half is the corr of a JOIN, else of a SEND */

/* ---- letters to the conversation ---- */

static void forward(talk_stream *t, void *letter)
{
    (void)!lim__send_reserved(t->base.session->self, t->conv, letter); /* gone: its `closed` is on its way */
}

static void forward_pending(talk_stream *t)
{
    for (uint32_t i = 0; i < t->pending_count; i++)
        forward(t, t->pending[i]);
    t->pending_count = 0;
}

static void drop_pending(talk_stream *t, lim__sched *sched)
{
    for (uint32_t i = 0; i < t->pending_count; i++)
        lim__letter_free(sched, t->pending[i]);
    t->pending_count = 0;
}

/* False: there is no room for another one. Takes the letter only if true. */
static bool pass(talk_stream *t, void *letter)
{
    if (t->state == TALK_OPEN) {
        forward(t, letter);
        return true;
    }
    if (t->pending_count == LIM__PENDING_MAX)
        return false;
    t->pending[t->pending_count++] = letter;
    return true;
}

static void *command(talk_stream *t, const lim__letter_type *type)
{
    session *s = t->base.session;
    lim__command *m = lim__letter_new(s->porter->sched, type, sizeof *m);
    if (m != NULL)
        *m = (lim__command){ 0, lim_self(s->self) };
    return m;
}

/* ---- the end of a stream ---- */

void lim__session_talk_end(talk_stream *t)
{
    drop_pending(t, t->base.session->porter->sched);
}

static void forget(session *s, talk_stream *t)
{
    drop_pending(t, s->porter->sched);
    lim__list_remove(&t->node);
    lim__map_remove(&s->peers, t->conv.id);
    lim__session_stream_drop(s, &t->base, sizeof *t);
}

/* Asks inside that have not ended with it. */
static void end_calls(session *s, const talk_stream *t)
{
    lim__session_conv_gone(s, t->conv, 0);
}

/* Why not, if it was because of the phase; else "". */
static const char *phases_text(char *text, size_t size, uint8_t phase, uint8_t wanted)
{
    text[0] = '\0';
    if (phase != 0)
        snprintf(text, size, "a conversation that is %s cannot become %s", lim_phase_text((lim_phase)phase),
                 lim_phase_text((lim_phase)wanted));
    return text;
}

static void say_run(session *s, talk_stream *t)
{
    const lim_admission *a = &t->sent;
    char text[120];
    if (t->sent_count > 0)
        LIM__SAY(s, sent, .stream = t->base.id, .first_corr = t->sent_first, .count = t->sent_count,
                 .verdict = (uint8_t)a->verdict, .why = (uint8_t)a->why, .phase = a->phase, .wanted = a->wanted,
                 .matched = a->matched, .delivered = a->delivered, .dropped = a->dropped, .limit = a->limit,
                 .current = a->current, .retry_after_ms = a->retry_after_ms,
                 .detail = lim__str(phases_text(text, sizeof text, a->phase, a->wanted)));
    t->sent_count = 0;
    lim__list_remove(&t->node);
}

static void say_closed(session *s, talk_stream *t, lim_phase phase, lim_reason reason)
{
    say_run(s, t);
    end_calls(s, t);
    if (t->state == TALK_OPENING)
        LIM__SAY(s, opened, .stream = t->base.id, .code = LIM_E_CLOSED, .detail = lim__str(lim_reason_text(reason)));
    else
        LIM__SAY(s, closed, .stream = t->base.id, .phase = (uint8_t)phase, .reason = (uint32_t)reason,
                 .detail = lim__str(phase == LIM_PHASE_ENDED ? NULL : lim_reason_text(reason)));
    forget(s, t);
}

void lim__session_talk_closed(session *s, const lim__closed *c)
{
    talk_stream *t = lim__map_get(&s->peers, c->conv.id);
    if (t != NULL && t->base.kind == STREAM_TALK)
        say_closed(s, t, c->phase, c->reason);
}

void lim__session_talk_gone(session *s, talk_stream *t, lim_reason reason)
{
    say_closed(s, t, LIM_PHASE_BROKEN, reason);
}

/* ---- OPEN ---- */

static const char *objection(const session *s, const lim__f_open *f, const lim__terms *terms, lim_err *code)
{
    *code = LIM_E_CLOSED;
    if (lim__session_draining(s))
        return "the server is closing";
    if (lim__terms_or_default(terms)->durable && s->porter->bus->durable == NULL) {
        *code = LIM_E_MISUSE;
        return "this server keeps nothing on disk; start it with a data directory (liminald --data DIR)";
    }
    *code = LIM_E_INVALID;
    if (lim__terms_or_default(terms)->attach.id != 0 && (f->group.len > 0 || f->participant != 0))
        return "what is attached to is there already; leave out group and participant";
    if (f->group.len > 0 && f->participant != 0)
        return "a conversation begins with a group or with a participant, not with both";
    if (f->group.len > 0 && !lim__channel_name_ok(f->group))
        return "a group's name is segments of A-Z a-z 0-9 _ - joined by dots";
    if (lim__terms_or_default(terms)->hops > LIM_HOPS_MAX)
        return "too many conversations deep; is somebody asking itself?";
    *code = LIM_E_MISUSE;
    if (f->on_crash == LIM_CRASH_COMPENSATE && lim__terms_or_default(terms)->compensate.len == 0)
        return "on_crash 3 needs the option compensate";
    return f->timeout_ms == 0 ? "timeout_ms is 0" : NULL;
}

/* It becomes the owner of one that is there, and is told what had come. */
static lim_err attach(session *s, lim_conv conv, talk_stream *t)
{
    t->conv = lim__alias_pid(s->porter->bus, conv.id);
    if (lim__conv_kind_of(s->porter->bus, t->conv) != LIM__KIND_TALK)
        return LIM_E_GONE;
    if (lim__map_get(&s->peers, t->conv.id) != NULL)
        return LIM_E_EXISTS;
    void *word = command(t, &lim__type_attach), *push = command(t, &lim__type_push);
    lim_err err = word == NULL || push == NULL ? LIM_E_NOMEM : lim__map_put(&s->peers, t->conv.id, &t->base);
    if (err == LIM_OK) {
        t->attached = true;
        forward(t, word);
        forward(t, push);
        return LIM_OK;
    }
    if (word != NULL)
        lim__letter_free(s->porter->sched, word);
    if (push != NULL)
        lim__letter_free(s->porter->sched, push);
    return err;
}

static lim_err begin(session *s, const lim__f_open *f, lim__terms *terms, talk_stream *t)
{
    if (lim__terms_or_default(terms)->attach.id != 0)
        return attach(s, terms->attach, t);
    lim__sched *sched = s->porter->sched;
    lim__msg *nothing = lim__msg_new(lim__bytes(NULL, 0)); /* what the group's router is shown */
    lim__open *open =
        nothing == NULL ? NULL : lim__open_new(sched, LIM__KIND_TALK, f->group, lim__bytes(NULL, 0), nothing);
    if (open == NULL) {
        lim__msg_unref(nothing);
        return LIM_E_NOMEM;
    }
    open->owner = lim_self(s->self);
    open->terms = lim__terms_ref(terms);
    open->opened_ns = lim_now_ns(s->self);
    open->deadline_ns = lim__session_deadline(s, f->timeout_ms);
    open->on_crash = (lim_crash)f->on_crash;
    open->participant = (lim_pid){ f->participant };
    lim_err err = lim__conv_spawn(s->porter->bus, s->self, open, &t->conv);
    if (err != LIM_OK)
        return err;
    void *push = command(t, &lim__type_push);
    err = push == NULL ? LIM_E_NOMEM : lim__map_put(&s->peers, t->conv.id, &t->base);
    if (err != LIM_OK) {
        if (push != NULL)
            lim__letter_free(sched, push);
        lim_unlink(s->self, t->conv);
        lim_exit_process(s->self, t->conv, LIM_KILL);
        return err;
    }
    forward(t, push);
    return LIM_OK;
}

static lim_err open_stream(session *s, const lim__f_open *f, lim__terms *terms)
{
    talk_stream *t = lim__alloc(s->porter->sched, sizeof *t);
    if (t == NULL)
        return LIM_E_NOMEM;
    *t = (talk_stream){ .state = TALK_OPENING };
    lim__list_init(&t->node);
    lim_err err = lim__session_stream_add(s, &t->base, STREAM_TALK, f->stream);
    if (err == LIM_OK)
        err = begin(s, f, terms, t);
    if (err != LIM_OK)
        lim__session_stream_drop(s, &t->base, sizeof *t);
    return err;
}

void lim__session_talk_open(session *s, const lim__frame *frame)
{
    lim__f_open f;
    if (!lim__get_open(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (!lim__session_stream_free(s, frame))
        return;
    lim__terms *terms = NULL;
    lim_diag diag = { 0 };
    lim_err err = lim__terms_parse(f.options, &diag, &terms);
    const char *why = err == LIM_E_INVALID ? diag.text : err == LIM_OK ? objection(s, &f, terms, &err) : NULL;
    if (why == NULL && err != LIM_E_NOMEM)
        err = open_stream(s, &f, terms);
    lim__terms_unref(terms);
    if (err != LIM_OK)
        LIM__SAY(s, opened, .stream = f.stream, .code = (uint16_t)err,
                 .detail = lim__str(why != NULL ? why : lim_err_text(err)));
}

static const char *refusal_text(lim_err err, bool attached)
{
    if (attached)
        return err == LIM_E_EXISTS ? "its owner lives" : err == LIM_E_INVALID ? "it is not durable" : lim_err_text(err);
    return err == LIM_E_NOTFOUND ? "nobody serves that group"
           : err == LIM_E_EXISTS ? "a living conversation has that name"
                                 : lim_err_text(err);
}

/* As people know it. */
static uint64_t conv_id(const session *s, const talk_stream *t)
{
    return t->attached ? lim__alias_of(s->porter->bus, t->conv) : t->conv.id;
}

static void opened(session *s, talk_stream *t, lim_err err)
{
    if (err == LIM_OK) {
        t->state = TALK_OPEN;
        LIM__SAY(s, opened, .stream = t->base.id, .conversation = conv_id(s, t));
        forward_pending(t);
        return;
    }
    say_run(s, t);
    LIM__SAY(s, opened, .stream = t->base.id, .code = (uint16_t)err,
             .detail = lim__str(refusal_text(err, t->attached)));
    end_calls(s, t);
    if (t->attached) { /* somebody else's */
        forget(s, t);
        return;
    }
    void *m = command(t, &lim__type_close);
    lim_unlink(s->self, t->conv);
    if (m != NULL)
        forward(t, m);
    else
        lim_exit_process(s->self, t->conv, LIM_KILL);
    forget(s, t);
}

/* ---- SEND ---- */

static bool same(const lim_admission *a, const lim_admission *b)
{
    return a->verdict == b->verdict && a->why == b->why && a->phase == b->phase && a->wanted == b->wanted &&
           a->matched == b->matched && a->delivered == b->delivered && a->dropped == b->dropped &&
           a->limit == b->limit && a->current == b->current && a->retry_after_ms == b->retry_after_ms;
}

static void answer_sent(session *s, talk_stream *t, uint32_t corr, lim_admission a)
{
    if (t->sent_count > 0 && corr == t->sent_first + t->sent_count && same(&a, &t->sent)) {
        t->sent_count++;
        return;
    }
    say_run(s, t);
    t->sent_first = corr;
    t->sent_count = 1;
    t->sent = a;
    lim__list_push(&s->answering, &t->node);
    lim__flush_queue(s->self, &s->flush); /* writes the run */
}

void lim__session_talk_runs_end(session *s)
{
    for (lim__list *n; (n = lim__list_pop(&s->answering)) != NULL;)
        say_run(s, LIM_CONTAINER(n, talk_stream, node));
}

static lim_why why_not(lim_err err)
{
    if (err == LIM_E_GONE || err == LIM_E_NOTFOUND)
        return LIM_WHY_NO_PARTICIPANT;
    if (err == LIM_E_FULL)
        return LIM_WHY_PARTICIPANT_FULL;
    if (err == LIM_E_NOMEM)
        return LIM_WHY_MEMORY;
    if (err == LIM_E_TOOBIG)
        return LIM_WHY_TOO_BIG;
    return err == LIM_E_CLOSED ? LIM_WHY_CLOSING : LIM_WHY_BAD_REQUEST;
}

/* The conversation's own word, if it has one. */
static lim_admission admission_of(const lim__done *d)
{
    if (d->admission.verdict != 0)
        return d->admission;
    lim_admission a = { .verdict = LIM_ACCEPT, .matched = 1, .delivered = 1 };
    if (d->err != LIM_OK)
        a = (lim_admission){ .verdict = LIM_REJECT, .why = why_not(d->err), .phase = d->phase, .wanted = d->wanted };
    return a;
}

static void say_joined(session *s, const talk_stream *t, uint32_t corr, lim_err err, const char *detail)
{
    if (err != LIM_OK && (detail == NULL || detail[0] == '\0'))
        detail = lim_err_text(err);
    LIM__SAY(s, joined, .stream = t->base.id, .corr = corr, .code = (uint16_t)err, .detail = lim__str(detail));
}

void lim__session_talk_done(session *s, const lim__done *d)
{
    talk_stream *t = lim__map_get(&s->peers, d->conv.id);
    char text[120];
    if (t == NULL || t->base.kind != STREAM_TALK)
        return;
    if (t->state == TALK_OPENING) /* nothing else has been sent to it yet */
        opened(s, t, d->err);
    else if (d->ref & REF_JOIN)
        say_joined(s, t, (uint32_t)d->ref, d->err, phases_text(text, sizeof text, d->phase, d->wanted));
    else
        answer_sent(s, t, (uint32_t)d->ref, admission_of(d));
}

void lim__session_talk_send(session *s, const lim__frame *frame)
{
    lim__f_send f;
    if (!lim__get_send(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    talk_stream *t = (talk_stream *)lim__session_stream(s, frame, STREAM_TALK);
    if (t == NULL)
        return;
    bool big = f.payload.len > s->porter->bus->opts.payload_bytes_max;
    lim__msg *msg = big ? NULL : lim__msg_new(f.payload);
    lim__tell *m = lim__letter_new(s->porter->sched, &lim__type_tell, sizeof *m);
    if (m == NULL) {
        lim__msg_unref(msg);
        lim__session_fault(s, LIM_E_NOMEM, "out of memory");
        return;
    }
    *m = (lim__tell){ f.corr, { f.to }, msg, msg != NULL ? LIM_OK : big ? LIM_E_TOOBIG : LIM_E_NOMEM };
    if (pass(t, m))
        return;
    lim__letter_free(s->porter->sched, m);
    lim__session_fault(s, LIM_E_FULL, "more than %d frames for stream %u before it is open", LIM__PENDING_MAX,
                       f.stream);
}

void lim__session_talk_message(session *s, const lim__message *m)
{
    talk_stream *t = lim__map_get(&s->peers, m->conv.id);
    if (t == NULL || t->base.kind != STREAM_TALK)
        return;
    lim__f_message f = { .stream = t->base.id,
                         .from = m->from.id,
                         .seq = m->seq,
                         .event = m->event,
                         .note = lim__bytes(m->text, m->text_len) };
    if (m->payload != NULL)
        f.payload = lim__msg_bytes(m->payload);
    (void)!lim__put_message(lim__session_out(s), &f);
}

/* ---- JOIN, DEPART ---- */

/* `type`: of a lim__join_conv. */
static void pass_member(session *s, talk_stream *t, const lim__letter_type *type, const lim__join_conv *as)
{
    lim__join_conv *m = lim__letter_new(s->porter->sched, type, sizeof *m);
    if (m != NULL) {
        *m = *as;
        if (pass(t, m))
            return;
        lim__letter_free(s->porter->sched, m);
    }
    say_joined(s, t, (uint32_t)as->ref, LIM_E_NOMEM, NULL);
}

void lim__session_talk_join(session *s, const lim__frame *frame)
{
    lim__f_join f;
    if (!lim__get_join(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    talk_stream *t = (talk_stream *)lim__session_stream(s, frame, STREAM_TALK);
    if (t == NULL)
        return;
    lim__terms *terms;
    lim_diag diag = { 0 };
    lim_err err = f.participant == 0 ? LIM_E_INVALID : lim__terms_parse(f.options, &diag, &terms);
    if (err != LIM_OK) {
        say_joined(s, t, f.corr, err, diag.text);
        return;
    }
    bool required = lim__terms_or_default(terms)->required;
    lim__terms_unref(terms);
    pass_member(s, t, &lim__type_join_conv, &(lim__join_conv){ REF_JOIN | f.corr, { f.participant }, required });
}

void lim__session_talk_depart(session *s, const lim__frame *frame)
{
    lim__f_depart f;
    if (!lim__get_depart(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    talk_stream *t = (talk_stream *)lim__session_stream(s, frame, STREAM_TALK);
    if (t != NULL)
        pass_member(s, t, &lim__type_leave_conv, &(lim__join_conv){ REF_JOIN | f.corr, { f.participant }, false });
}

/* ---- ASKIN ---- */

static lim__ask *ask_letter(session *s, const lim__f_askin *f)
{
    lim__msg *msg = lim__msg_new(f->payload);
    lim__ask *m = msg == NULL ? NULL : lim__letter_new(s->porter->sched, &lim__type_ask, sizeof *m);
    if (m == NULL) {
        lim__msg_unref(msg);
        return NULL;
    }
    *m = (lim__ask){ f->corr, { f->to }, lim__session_deadline(s, f->timeout_ms), msg };
    return m;
}

void lim__session_talk_ask(session *s, const lim__frame *frame)
{
    lim__f_askin f;
    refusal no = { LIM_HOW_REFUSED, LIM_WHY_NONE, 0, 0, NULL };
    if (!lim__get_askin(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (!lim__session_corr_free(s, f.corr))
        return;
    talk_stream *t = (talk_stream *)lim__session_stream(s, frame, STREAM_TALK);
    uint32_t payload_max = s->porter->bus->opts.payload_bytes_max;
    if (t == NULL)
        no = (refusal){ LIM_HOW_CLOSED, LIM_WHY_NONE, 0, 0, "the conversation has ended" };
    else if (f.payload.len > payload_max)
        no = (refusal){ LIM_HOW_REFUSED, LIM_WHY_TOO_BIG, payload_max, 0, "the payload is over the size limit" };
    else if (f.timeout_ms == 0)
        no = (refusal){ LIM_HOW_REFUSED, LIM_WHY_BAD_REQUEST, 0, 0, "timeout_ms is 0" };
    else if (s->calls.count >= LIM__CALLS_MAX)
        no = (refusal){ LIM_HOW_REFUSED, LIM_WHY_BACKLOG_FULL, LIM__CALLS_MAX, LIM__CALLS_MAX,
                        "too many calls of this connection are pending" };
    if (no.detail != NULL) {
        lim__session_refuse(s, f.corr, &no);
        return;
    }
    lim__ask *m = ask_letter(s, &f);
    call *c = m == NULL ? NULL : lim__session_call_new(s, f.corr, CALL_ASKIN);
    if (c != NULL) {
        c->conv = t->conv;
        if (pass(t, m))
            return;
        lim__session_call_drop(s, c);
    }
    if (m != NULL)
        lim__letter_free(s->porter->sched, m);
    lim__session_refuse(s, f.corr, &(refusal){ LIM_HOW_REFUSED, LIM_WHY_MEMORY, 0, 0, "no room for another one" });
}

/* ---- CLOSE ---- */

void lim__session_talk_close(session *s, const lim__frame *frame)
{
    lim__f_close f;
    if (!lim__get_close(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    talk_stream *t = (talk_stream *)lim__session_stream(s, frame, STREAM_TALK);
    if (t == NULL)
        return;
    void *m = command(t, &lim__type_close);
    if (m != NULL && pass(t, m))
        return;
    if (m != NULL)
        lim__letter_free(s->porter->sched, m);
    lim_exit_process(s->self, t->conv, LIM_KILL); /* its end is told, in another word */
}
