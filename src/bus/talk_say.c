/* SPDX-License-Identifier: Apache-2.0
 * talk_say.c - what is said in a talk: by the opener, by participants, from outside; and what everybody hears of.
 *
 *   tell  opener --------> one, or all, or the inbox when nobody takes part
 *   say   participant ---> the opener (inbox, or pushed), one other, or all others and the opener
 *   signal, events ------> all participants, and the opener
 *
 * Nothing is dropped silently: what the opener sends is answered with an admission; what a participant says and is not
 * kept comes back to it as the event `refused` with the reason. The inbox holds inbox_max messages and signals; events
 * of membership have room of their own, because nobody could be told that one was refused. */
#include "bus/talk.h"
#include "base/base.h"

enum { RETRY_MS = 100 };

/* ---- the opener hears ---- */

static bool is_message(lim_event event)
{
    return event == LIM_EVENT_NONE || event == LIM_EVENT_SIGNAL;
}

static lim_why push(talk *t, lim_process *self, const heard *h)
{
    lim__message *m = lim__letter_new(lim__proc_sched(self), &lim__type_message, sizeof *m + h->text.len);
    if (m == NULL)
        return LIM_WHY_MEMORY;
    *m = (lim__message){ .conv = lim__state_pid(t),
                         .from = h->from,
                         .seq = ++t->told,
                         .payload = lim__msg_ref(h->payload),
                         .event = (uint8_t)h->event,
                         .text_len = (uint8_t)h->text.len };
    if (h->text.len > 0)
        memcpy(m->text, h->text.ptr, h->text.len);
    (void)!lim__talk_post(t, self, t->owner, m);
    return LIM_WHY_NONE;
}

static lim_why into_inbox(talk *t, lim_process *self, const heard *h)
{
    bool message = is_message(h->event);
    if (message && t->buffered >= lim__talk_terms(t)->inbox_max)
        return LIM_WHY_INBOX_FULL;
    rare *r = message ? t->rare : lim__talk_rare(t, self);
    note *n = lim__alloc(lim__proc_sched(self), sizeof *n + h->text.len);
    if (n == NULL || (!message && r == NULL)) {
        if (n != NULL)
            lim__free(lim__proc_sched(self), n, sizeof *n + h->text.len);
        return LIM_WHY_MEMORY;
    }
    *n = (note){ .from = h->from,
                 .payload = lim__msg_ref(h->payload),
                 .event = (uint8_t)h->event,
                 .text_len = (uint8_t)h->text.len };
    if (h->text.len > 0)
        memcpy(n->text, h->text.ptr, h->text.len);
    lim__list_push(&t->inbox, &n->node);
    if (t->kept)
        lim__keep_heard(t, n);
    if (message)
        t->buffered++;
    else
        r->events++;
    return LIM_WHY_NONE;
}

lim_why lim__talk_hear(talk *t, lim_process *self, const heard *h)
{
    LIM_ASSERT(h->text.len <= 255);
    lim_why why = t->push ? push(t, self, h) : lim__talk_give(t, self, h) ? LIM_WHY_NONE : into_inbox(t, self, h);
    if (why == LIM_WHY_NONE && is_message(h->event))
        t->received++;
    return why;
}

void lim__talk_push(talk *t, lim_process *self)
{
    t->push = true;
    for (note *n; (n = lim__talk_take(t)) != NULL;) { /* who attached to it gets what came before */
        heard h = { n->from, n->payload, (lim_event)n->event, lim__bytes(n->text, n->text_len) };
        (void)push(t, self, &h); /* no memory: as when it comes while one is attached */
        lim__talk_note_free(lim__proc_sched(self), n);
    }
}

note *lim__talk_take(talk *t)
{
    lim__list *first = lim__list_pop(&t->inbox);
    if (first == NULL)
        return NULL;
    note *n = LIM_CONTAINER(first, note, node);
    if (t->kept)
        lim__keep_taken(t);
    if (is_message((lim_event)n->event))
        t->buffered--;
    else
        t->rare->events--;
    return n;
}

void lim__talk_note_free(lim__sched *s, note *n)
{
    lim__msg_unref(n->payload);
    lim__free(s, n, sizeof *n + n->text_len);
}

/* ---- participants hear ---- */

lim__request *lim__talk_request_new(const talk *t, lim_process *self, lim__msg *payload, lim_bytes text)
{
    lim__request *r = lim__letter_new(lim__proc_sched(self), &lim__type_request, sizeof *r + text.len);
    if (r == NULL)
        return NULL;
    *r = (lim__request){ .conv = { lim__talk_id(t) }, /* the same after a restart */
                         .deadline_ns = t->deadline_ns,
                         .payload = lim__msg_ref(payload),
                         .attempt = 1,
                         .hops = lim__talk_terms(t)->hops,
                         .flags = LIM__REQUEST_QUIET,
                         .type_len = (uint8_t)text.len };
    if (text.len > 0)
        memcpy(r->type, text.ptr, text.len);
    return r;
}

lim_err lim__talk_request(talk *t, lim_process *self, lim_pid to, const call *c)
{
    lim__request *r = lim__talk_request_new(t, self, c->payload, lim__bytes(NULL, 0));
    if (r == NULL)
        return LIM_E_NOMEM;
    r->lease = c->lease;
    r->flags = 0;
    r->losses = (uint16_t)c->losses;
    r->deadline_ns = c->deadline_ns < r->deadline_ns ? c->deadline_ns : r->deadline_ns;
    return t->kept ? lim__keep_post(t, self, to, r) : lim__send(self, to, r);
}

lim_err lim__talk_message_to(talk *t, lim_process *self, lim_pid to, lim_pid from, lim__msg *payload)
{
    if (t->kept)
        return lim__hold_say(t, self, to, &(heard){ .from = from, .payload = payload });
    lim__request *r = lim__talk_request_new(t, self, payload, lim__bytes(NULL, 0));
    if (r == NULL)
        return LIM_E_NOMEM;
    r->from = from;
    return lim__send(self, to, r);
}

/* One that misses an event would see another order than the others: without memory for it the talk ends, which
 * everybody hears of over their links. */
void lim__talk_event_to(talk *t, lim_process *self, lim_pid to, const heard *h)
{
    lim__msg *nothing = h->payload == NULL ? lim__msg_new(lim__bytes(NULL, 0)) : NULL;
    lim__msg *payload = h->payload != NULL ? h->payload : nothing;
    lim__request *r = payload == NULL ? NULL : lim__talk_request_new(t, self, payload, h->text);
    lim__msg_unref(nothing);
    if (r == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    r->from = h->from;
    r->event = (uint8_t)h->event;
    (void)!lim__talk_post(t, self, to, r); /* gone: its exit is on its way */
}

void lim__talk_event(talk *t, lim_process *self, const heard *h, bool opener)
{
    uint32_t count = LIM__MUTATION("talk_event_missed") && t->alive > 2 ? t->alive - 1u : t->alive;
    for (uint32_t i = 0; i < count; i++)
        if (t->parties[i].pid.id != h->from.id)
            lim__talk_event_to(t, self, t->parties[i].pid, h);
    if (opener && lim__talk_hear(t, self, h) == LIM_WHY_MEMORY)
        lim_exit(self, LIM_FAULT);
}

void lim__talk_revoke(talk *t, lim_process *self, lim_pid to, uint64_t lease, lim__revoke_why why)
{
    lim__revoke *r = lim__letter_new(lim__proc_sched(self), &lim__type_revoke, sizeof *r);
    if (r == NULL)
        return;
    *r = (lim__revoke){ { lim__talk_id(t) }, lease, why };
    (void)!lim__talk_post(t, self, to, r);
}

/* In a history: who said it, and to whom: "all", a name, or nobody: the opener. */
static void note_words(talk *t, lim_process *self, const char *kind, lim_pid who, lim_pid to, const lim__msg *payload)
{
    if (t->rare == NULL || t->rare->history == NULL)
        return;
    char text[24];
    lim_bytes name = to.id == LIM_EVERYBODY.id ? lim__str("all")
                     : to.id != 0              ? lim__talk_name(t, to, text)
                                               : lim__bytes("", 0);
    lim__talk_note(t, self, kind, who, name, lim__msg_bytes(payload).len, 0);
}

/* ---- the opener says ---- */

lim__msg *lim__talk_traced(const talk *t, lim__msg *payload)
{
    lim_bytes trace = lim__talk_terms(t)->traceparent;
    lim__buf block = { 0 };
    lim__msg *with = NULL;
    if (trace.len > 0 && lim__packed_add(&block, lim__str("traceparent"), trace) == LIM_OK)
        with = lim__msg_new_with(lim__msg_bytes(payload), lim__buf_bytes(&block));
    lim__buf_fini(&block);
    return with != NULL ? with : lim__msg_ref(payload);
}

static lim_why why_of(lim_err err)
{
    return err == LIM_OK        ? LIM_WHY_NONE
           : err == LIM_E_FULL  ? LIM_WHY_PARTICIPANT_FULL
           : err == LIM_E_NOMEM ? LIM_WHY_MEMORY
                                : LIM_WHY_NO_PARTICIPANT;
}

static void count(lim_admission *a, lim_err err)
{
    a->matched++;
    a->delivered += err == LIM_OK;
    a->dropped += err != LIM_OK;
    a->why = a->delivered > 0 ? LIM_WHY_NONE : why_of(err);
}

/* And to those that are awaited. */
static void hold_for(talk *t, lim_process *self, bool all, lim_pid to, lim__msg *payload, lim_admission *a)
{
    LIM__LIST_EACH(n, &lim__talk_keep(t)->away) {
        lim_pid pid = LIM_CONTAINER(n, away, node)->pid;
        if (all || pid.id == to.id)
            count(a, lim__talk_message_to(t, self, pid, (lim_pid){ 0 }, payload));
    }
}

/* To those it is meant for; a full mailbox is counted, and if nobody has it, it is refused. */
static lim_admission to_participants(talk *t, lim_process *self, lim_pid to, lim__msg *payload)
{
    lim_admission a = { .why = LIM_WHY_NO_PARTICIPANT };
    bool all = to.id == 0 || to.id == LIM_EVERYBODY.id;
    if (t->kept)
        to = lim__back_now(t, to);
    for (uint32_t i = 0; i < t->alive; i++) {
        if (!all && t->parties[i].pid.id != to.id)
            continue;
        count(&a, lim__talk_message_to(t, self, t->parties[i].pid, (lim_pid){ 0 }, payload));
    }
    if (t->kept)
        hold_for(t, self, all, to, payload, &a);
    a.verdict = a.delivered > 0 ? LIM_ACCEPT : LIM_REJECT;
    return a;
}

static lim_admission to_inbox(talk *t, lim_process *self, lim__msg *payload)
{
    lim_admission a = { .matched = 1, .why = lim__talk_hear(t, self, &(heard){ .payload = payload }) };
    a.delivered = a.why == LIM_WHY_NONE;
    a.verdict = a.why == LIM_WHY_NONE ? LIM_ACCEPT : LIM_REJECT;
    if (a.why == LIM_WHY_INBOX_FULL) {
        a.limit = lim__talk_terms(t)->inbox_max;
        a.current = t->buffered;
    }
    return a;
}

/* *whom: for the history; {0}: into the buffer. */
static lim_admission told(talk *t, lim_process *self, const lim__tell *m, lim_pid *whom)
{
    bool all = m->to.id == 0 || m->to.id == LIM_EVERYBODY.id;
    bool waits = t->wanting || (t->kept && lim__back_waits(t, (lim_pid){ 0 }));
    bool buffer = all && t->alive == 0 && !waits && lim__talk_past(t, (lim_pid){ 0 }) == NULL;
    *whom = (lim_pid){ buffer ? 0 : all ? LIM_EVERYBODY.id : m->to.id };
    if (lim__talk_step(t, self, LIM__PHASE_USE) != LIM_OK)
        return (lim_admission){
            .verdict = LIM_REJECT, .why = LIM_WHY_CLOSING, .phase = t->phase, .wanted = LIM_PHASE_ACTIVE
        };
    lim__msg *payload = lim__talk_traced(t, m->payload);
    lim_admission a = buffer ? to_inbox(t, self, payload) : to_participants(t, self, m->to, payload);
    lim__msg_unref(payload);
    if (a.verdict == LIM_REJECT)
        a.retry_after_ms = RETRY_MS;
    return a;
}

void lim__talk_tell(talk *t, lim_process *self, lim_pid from, const lim__tell *m)
{
    if (m->refused != LIM_OK) { /* answered in its turn, and sent to nobody */
        lim__talk_done(t, self, from, m->ref, &(lim__done){ .err = m->refused });
        return;
    }
    lim_pid whom;
    lim_admission a = told(t, self, m, &whom);
    lim_err err = a.verdict == LIM_ACCEPT                                            ? LIM_OK
                  : a.phase != 0                                                     ? LIM_E_CLOSED
                  : a.why == LIM_WHY_INBOX_FULL || a.why == LIM_WHY_PARTICIPANT_FULL ? LIM_E_FULL
                  : a.why == LIM_WHY_MEMORY                                          ? LIM_E_NOMEM
                                                                                     : LIM_E_NOTFOUND;
    t->sent += err == LIM_OK;
    if (err == LIM_OK)
        note_words(t, self, "sent", (lim_pid){ 0 }, whom, m->payload);
    else
        lim__talk_note(t, self, "refused", (lim_pid){ 0 }, lim__str(lim_why_text(a.why)),
                       lim__msg_bytes(m->payload).len, 0);
    lim__talk_done(t, self, from, m->ref, &(lim__done){ .err = err, .admission = a });
}

/* ---- participants say ---- */

static void not_kept(talk *t, lim_process *self, const lim__say *m, lim_pid by, lim_why why)
{
    if (lim__talk_rare(t, self) != NULL)
        t->rare->refused++;
    lim__talk_note(t, self, "refused", m->from, lim__str(lim_why_text(why)), lim__msg_bytes(m->payload).len, 0);
    lim__talk_event_to(
        t, self, m->from,
        &(heard){ .from = by, .payload = m->payload, .event = LIM_EVENT_REFUSED, .text = lim__str(lim_why_text(why)) });
}

static void say_to_one(talk *t, lim_process *self, const lim__say *m, lim_pid to)
{
    bool waits = t->kept && lim__back_waits(t, to);
    lim_err err =
        lim__talk_party(t, to) == NULL && !waits ? LIM_E_GONE : lim__talk_message_to(t, self, to, m->from, m->payload);
    if (err != LIM_OK && err != LIM_E_GONE)
        not_kept(t, self, m, to, why_of(err));
    else if (err == LIM_E_GONE && m->to.id == to.id) /* of all others those that are gone were none of them */
        not_kept(t, self, m, to, LIM_WHY_NO_PARTICIPANT);
}

/* Into a talk speaks who takes part in it; anybody else is told that this one has nothing to do with it. */
void lim__talk_say(talk *t, lim_process *self, const lim__say *m)
{
    bool all = m->to.id == LIM_EVERYBODY.id;
    if (lim__talk_party(t, m->from) == NULL) {
        lim__talk_revoke(t, self, m->from, 0, LIM__REVOKE_ENDED);
        return;
    }
    note_words(t, self, "said", m->from, m->to, m->payload);
    for (uint32_t i = 0; all && i < t->alive; i++)
        if (t->parties[i].pid.id != m->from.id)
            say_to_one(t, self, m, t->parties[i].pid);
    if (all && t->kept)
        LIM__LIST_EACH(n, &lim__talk_keep(t)->away)
            say_to_one(t, self, m, LIM_CONTAINER(n, away, node)->pid);
    if (!all && m->to.id != 0) {
        say_to_one(t, self, m, t->kept ? lim__back_now(t, m->to) : m->to);
        return;
    }
    lim_why why = lim__talk_hear(t, self, &(heard){ .from = m->from, .payload = m->payload });
    if (why != LIM_WHY_NONE)
        not_kept(t, self, m, (lim_pid){ 0 }, why);
}

/* ---- from outside ---- */

/* As a message: who is away, or dies with it on the way, gets it when it is back. Why somebody does not. */
static lim_why signal_to_all(talk *t, lim_process *self, const heard *h)
{
    lim_err worst = LIM_OK;
    for (uint32_t i = 0; i < t->alive; i++) {
        lim_err err = lim__hold_say(t, self, t->parties[i].pid, h);
        worst = err != LIM_OK ? err : worst;
    }
    LIM__LIST_EACH(n, &lim__talk_keep(t)->away) {
        lim_err err = lim__hold_say(t, self, LIM_CONTAINER(n, away, node)->pid, h);
        worst = err != LIM_OK ? err : worst;
    }
    return why_of(worst);
}

void lim__talk_signal(talk *t, lim_process *self, const lim__signal_in *m)
{
    heard h = { .payload = m->payload, .event = LIM_EVENT_SIGNAL, .text = lim__bytes(m->name, m->name_len) };
    if (lim__talk_step(t, self, LIM__PHASE_USE) != LIM_OK)
        return;
    lim__talk_note(t, self, "signal", (lim_pid){ 0 }, h.text, lim__msg_bytes(m->payload).len, 0);
    lim_why why = LIM_WHY_NONE;
    if (t->kept)
        why = signal_to_all(t, self, &h);
    else
        lim__talk_event(t, self, &h, false);
    if (why == LIM_WHY_NONE)
        why = lim__talk_hear(t, self, &h);
    else
        (void)lim__talk_hear(t, self, &h);
    if (why == LIM_WHY_NONE)
        return;
    if (lim__talk_rare(t, self) != NULL) /* who sent it is long gone: it is counted, and an event for operators */
        t->rare->refused++;
    LIM__EVENT(t->bus, self, "signal_refused", { "signal", h.text }, { "why", lim__str(lim_why_text(why)) });
}
