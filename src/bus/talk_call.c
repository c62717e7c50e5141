/* SPDX-License-Identifier: Apache-2.0
 * talk_call.c - what waits in a talk: asks and receives, in the order they began, each ended exactly once.
 *
 *   ask      answered by its lease --> reply, failed          receive   something is heard --> reply (event: which)
 *            deadline --> timeout                                       deadline --> timeout, withdrawn: it can swallow
 *            its participant is gone --> crashed                            nothing that comes later
 *            (policy next: it waits for another one)                    the talk failed, the inbox is empty --> crashed
 *            closed, cancelled with the talk                            closed, cancelled with the talk
 *
 * An answer that nobody waits for (any more) is dropped and counted. Whoever is asked and need not answer any more is
 * told to stop. */
#include "bus/talk.h"
#include "base/base.h"
#include <stdio.h>

typedef struct ending {
    lim_how how;
    lim_why why;
    lim__msg *payload;
    lim_bytes detail, who;
    const past *by; /* CRASHED: whose death it was; NULL: nobody's */
    lim_pid from;
    uint8_t event;
} ending;

/* ---- outcome ---- */

/* Of the asks' own losses the newest, which are the newest that came through the group: oldest first. */
static uint32_t excluded(const talk *t, const call *c, const past *out[LIM__EXCLUDED_MAX])
{
    uint32_t n = 0, losses = c->losses < LIM__EXCLUDED_MAX ? c->losses : LIM__EXCLUDED_MAX;
    for (uint32_t i = t->rare != NULL ? t->rare->past_count : 0; i > 0 && n < losses; i--)
        if (t->rare->past[i - 1].assigned != NULL)
            out[losses - ++n] = &t->rare->past[i - 1];
    if (n < losses)
        memmove(out, out + (losses - n), n * sizeof *out);
    return n;
}

static lim_handed handed(const call *c, lim_how how)
{
    if (how == LIM_HOW_REPLY || how == LIM_HOW_FAILED)
        return LIM_HANDED_YES;
    return c->lease == 0 || how == LIM_HOW_REFUSED ? LIM_HANDED_NO : LIM_HANDED_UNKNOWN;
}

static void blame(lim__outcome_letter *o, const past *by)
{
    if (by == NULL)
        return;
    o->reason = by->reason;
    o->crashed_ns = by->at_ns;
    o->crashed_wall_us = by->wall_us;
}

static size_t put_gone(char *at, const past *p)
{
    return lim__gone_put(at, &(lim_excluded){ .identity = lim__bytes(p->assigned->text, p->assigned->identity_len),
                                              .observed_wall_us = p->wall_us,
                                              .rerouted_wall_us = p->rerouted_wall_us });
}

static void outcome(talk *t, lim_process *self, const call *c, const ending *e)
{
    const past *gone[LIM__EXCLUDED_MAX];
    uint32_t count = excluded(t, c, gone);
    size_t names = 0;
    for (uint32_t i = 0; i < count; i++)
        names += LIM__GONE_BYTES + gone[i]->assigned->identity_len;
    lim__outcome_letter *o =
        lim__letter_new(lim__proc_sched(self), &lim__type_outcome, sizeof *o + e->who.len + e->detail.len + names);
    if (o == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    *o = (lim__outcome_letter){ .ref = c->ref,
                                .conv = lim__state_pid(t),
                                .how = e->how,
                                .handed_over = handed(c, e->how),
                                .why = e->why,
                                .losses = c->losses,
                                .attempts = c->lease != 0 && e->how == LIM_HOW_FAILED,
                                .elapsed_ns = lim_now_ns(self) - c->started_ns,
                                .payload = lim__msg_ref(e->payload),
                                .compensation = t->rare != NULL ? t->rare->compensation : (lim_pid){ 0 },
                                .from = e->from,
                                .event = e->event,
                                .participant_len = (uint8_t)e->who.len,
                                .excluded_count = (uint8_t)count,
                                .detail_len = (uint16_t)e->detail.len,
                                .excluded_bytes = (uint16_t)names };
    blame(o, e->by);
    char *at = o->text;
    if (e->who.len > 0)
        memcpy(at, e->who.ptr, e->who.len);
    at += e->who.len;
    if (e->detail.len > 0)
        memcpy(at, e->detail.ptr, e->detail.len);
    at += e->detail.len;
    for (uint32_t i = 0; i < count; i++)
        at += put_gone(at, gone[i]);
    (void)!lim__talk_post(t, self, c->from, o);
}

/* How it ends for who waits in a talk that failed, or for a participant that is past. */
static ending crashed(talk *t, lim_pid of, char text[24])
{
    const past *by = lim__talk_past(t, of);
    return (ending){ .how = LIM_HOW_CRASHED,
                     .why = (lim_why)t->why,
                     .by = by,
                     .who = by != NULL ? lim__talk_name(t, by->pid, text) : lim__bytes(NULL, 0) };
}

/* ---- calls ---- */

static void call_free(talk *t, lim__sched *s, call *c)
{
    t->waiting -= c->lease == 0;
    lim__list_remove(&c->node);
    lim__msg_unref(c->payload);
    lim__free(s, c, sizeof *c);
}

static void call_end(talk *t, lim_process *self, call *c, const ending *e)
{
    bool answered = e->how == LIM_HOW_REPLY || e->how == LIM_HOW_FAILED;
    if (c->timer != 0)
        lim_timer_cancel(self, c->timer);
    if (c->lease != 0 && !answered && lim__talk_party(t, c->to) != NULL)
        lim__talk_revoke(t, self, c->to, c->lease,
                         e->how == LIM_HOW_TIMEOUT ? LIM__REVOKE_TIMEOUT : LIM__REVOKE_CANCELLED);
    if (c->lease != 0)
        lim__talk_note(t, self, answered ? "answered" : "ended", c->to, lim__str(lim_how_text(e->how)),
                       e->payload != NULL ? lim__msg_bytes(e->payload).len : 0, 0);
    if (t->kept && c->lease != 0)
        lim__keep_call_gone(t, c);
    if (c->from.id != 0)
        outcome(t, self, c, e);
    call_free(t, lim__proc_sched(self), c);
}

/* A call as it is before it waits: what has no lease was handed to nobody. */
static call call_now(lim_process *self, uint64_t ref, lim_pid from, uint64_t deadline_ns)
{
    return (call){ .ref = ref, .from = from, .deadline_ns = deadline_ns, .started_ns = lim_now_ns(self) };
}

call *lim__talk_call_new(talk *t, lim_process *self, const call *as)
{
    call *c = lim__alloc(lim__proc_sched(self), sizeof *c);
    if (c == NULL)
        return NULL;
    *c = *as;
    uint64_t left = c->deadline_ns > c->started_ns ? c->deadline_ns - c->started_ns : 0;
    if (c->deadline_ns != UINT64_MAX && lim_timer_start(self, left, LIM__TALK_TAG_CALL, &c->timer) != LIM_OK) {
        lim__free(lim__proc_sched(self), c, sizeof *c);
        return NULL;
    }
    lim__list_push(&t->calls, &c->node);
    t->waiting += c->lease == 0;
    return c;
}

void lim__talk_calls_free(talk *t, lim__sched *s)
{
    while (!lim__list_empty(&t->calls))
        call_free(t, s, LIM_CONTAINER(t->calls.next, call, node));
}

void lim__talk_late(talk *t, lim_process *self, uint64_t timer)
{
    LIM__LIST_EACH(n, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (c->timer == timer) {
            c->timer = 0;
            call_end(t, self, c, &(ending){ .how = LIM_HOW_TIMEOUT });
            return;
        }
    }
}

/* Nobody else closes one: what anybody may do is to cancel it. */
static ending closed(void)
{
    return (ending){ .how = LIM_HOW_CLOSED, .who = lim__str("opener") };
}

void lim__talk_calls_end(talk *t, lim_process *self, lim_how how)
{
    char text[24];
    ending e = how == LIM_HOW_CRASHED  ? crashed(t, (lim_pid){ 0 }, text)
               : how == LIM_HOW_CLOSED ? closed()
                                       : (ending){ .how = how };
    while (!lim__list_empty(&t->calls))
        call_end(t, self, LIM_CONTAINER(t->calls.next, call, node), &e);
}

/* ---- asks ---- */

/* Sends the ask to c->to. That one's death is told by its exit. */
static void ask_party(talk *t, lim_process *self, call *c)
{
    lim_err err = lim__talk_request(t, self, c->to, c);
    if (err != LIM_E_FULL && err != LIM_E_NOMEM)
        return;
    ending e = { .how = LIM_HOW_REFUSED,
                 .why = err == LIM_E_FULL ? LIM_WHY_PARTICIPANT_FULL : LIM_WHY_MEMORY,
                 .detail = lim__str(err == LIM_E_FULL ? "the participant's mailbox is full" : "out of memory") };
    call_end(t, self, c, &e);
}

/* Of asks that cannot be made, and receives that will get nothing. */
static void cannot(talk *t, lim_process *self, const call *c, lim_pid to)
{
    char text[24], words[96];
    ending e = { .how = LIM_HOW_REFUSED, .why = LIM_WHY_NO_PARTICIPANT };
    if (t->phase == LIM_PHASE_BROKEN || lim__talk_past(t, to) != NULL)
        e = crashed(t, t->phase == LIM_PHASE_BROKEN ? (lim_pid){ 0 } : to, text);
    if (t->phase == LIM_PHASE_BROKEN)
        e.detail =
            lim__bytes(words, (size_t)snprintf(words, sizeof words, "a conversation that is %s cannot become %s",
                                               lim_phase_text(LIM_PHASE_BROKEN), lim_phase_text(LIM_PHASE_ACTIVE)));
    outcome(t, self, c, &e);
}

static void no_memory(talk *t, lim_process *self, const call *c)
{
    outcome(t, self, c,
            &(ending){ .how = LIM_HOW_REFUSED, .why = LIM_WHY_MEMORY, .detail = lim__str("out of memory") });
}

/* Whom it is for: {0}: whoever the group finds. False: nobody. */
static bool addressee(talk *t, lim_pid to, lim_pid *out)
{
    const party *p = to.id != 0 ? lim__talk_party(t, to) : t->alive > 0 ? &t->parties[0] : NULL;
    *out = p != NULL ? p->pid : (lim_pid){ 0 };
    if (p == NULL && t->kept && lim__back_waits(t, to)) {
        *out = lim__back_now(t, to);
        return true;
    }
    return p != NULL || (to.id == 0 && t->wanting);
}

void lim__talk_ask(talk *t, lim_process *self, lim_pid from, const lim__ask *m)
{
    call now = call_now(self, m->ref, from, m->deadline_ns);
    lim_pid to;
    if (!addressee(t, m->to, &to) || lim__talk_step(t, self, LIM__PHASE_USE) != LIM_OK) {
        lim__talk_note(t, self, "refused", (lim_pid){ 0 }, lim__str(lim_why_text(LIM_WHY_NO_PARTICIPANT)),
                       lim__msg_bytes(m->payload).len, 0);
        cannot(t, self, &now, m->to);
        return;
    }
    call waits = now;
    waits.lease = ++t->next_lease;
    waits.to = to;
    call *c = lim__talk_call_new(t, self, &waits);
    if (c == NULL) {
        no_memory(t, self, &now);
        return;
    }
    c->payload = lim__talk_traced(t, m->payload);
    t->asked++;
    t->sent++;
    lim__talk_note(t, self, "asked", to, lim__bytes("", 0), lim__msg_bytes(m->payload).len, 0);
    if (t->kept)
        lim__keep_call(t, c);
    if (to.id != 0)
        ask_party(t, self, c);
}

/* Whoever asked is gone, and the talk is not: it will be received. */
static void answer_into_inbox(talk *t, lim_process *self, call *c, const ending *e)
{
    heard h = { .from = e->from, .payload = e->payload };
    if (e->how == LIM_HOW_REPLY && lim__talk_hear(t, self, &h) != LIM_WHY_NONE && lim__talk_rare(t, self) != NULL)
        t->rare->refused++;
    call_end(t, self, c, e);
}

void lim__talk_answer(talk *t, lim_process *self, const lim__answer *a)
{
    char text[24];
    LIM__LIST_EACH(n, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (c->lease == 0 || c->lease != a->lease || c->to.id != a->from.id)
            continue;
        if (a->how == LIM__ANSWER_NOTHING)
            return; /* silence: the deadline ends it */
        t->received++;
        t->answered++;
        ending e = { .how = a->how == LIM__ANSWER_REPLY ? LIM_HOW_REPLY : LIM_HOW_FAILED,
                     .payload = a->payload,
                     .detail = lim__bytes(a->detail, a->detail_len),
                     .who = lim__talk_name(t, a->from, text),
                     .from = a->from };
        if (c->from.id == 0)
            answer_into_inbox(t, self, c, &e);
        else
            call_end(t, self, c, &e);
        return;
    }
    if (a->lease != 0 && a->how != LIM__ANSWER_NOTHING && lim__talk_rare(t, self) != NULL)
        t->rare->unasked++; /* nobody asked, or no longer */
}

static bool in_hand_of(talk *t, const call *c, lim_pid of)
{
    if (c->lease == 0 || of.id != 0)
        return c->lease != 0 && c->to.id == of.id;
    return lim__talk_party(t, c->to) == NULL && !(t->kept && c->to.id != 0 && lim__back_waits(t, c->to));
}

void lim__talk_calls_crash(talk *t, lim_process *self, lim_pid of)
{
    char text[24];
    LIM__LIST_EACH_SAFE(n, tmp, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (!in_hand_of(t, c, of) || LIM__MUTATION("talk_crash_untold"))
            continue;
        ending e = crashed(t, c->to, text);
        call_end(t, self, c, &e);
    }
}

void lim__talk_calls_lose(talk *t, lim_process *self, lim_pid of)
{
    char text[24];
    LIM__LIST_EACH_SAFE(n, tmp, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (!in_hand_of(t, c, of))
            continue;
        if (++c->losses < LIM__EXCLUDED_MAX) {
            if (t->kept)
                lim__keep_call(t, c);
            continue;
        }
        ending e = crashed(t, of, text); /* it kills whoever gets it */
        call_end(t, self, c, &e);
    }
}

void lim__talk_calls_revoke(talk *t, lim_process *self, lim_pid of)
{
    LIM__LIST_EACH(n, &t->calls) {
        const call *c = LIM_CONTAINER(n, call, node);
        if (in_hand_of(t, c, of))
            lim__talk_revoke(t, self, of, c->lease, LIM__REVOKE_CANCELLED);
    }
}

void lim__talk_calls_move(talk *t, lim_process *self, lim_pid to)
{
    LIM__LIST_EACH_SAFE(n, tmp, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (!in_hand_of(t, c, (lim_pid){ 0 }))
            continue;
        if (t->kept)
            lim__keep_call_gone(t, c);
        c->to = to;
        c->lease = ++t->next_lease;
        if (t->kept)
            lim__keep_call(t, c);
        ask_party(t, self, c);
    }
}

void lim__talk_calls_resend(talk *t, lim_process *self, lim_pid was, lim_pid now)
{
    LIM__LIST_EACH_SAFE(n, tmp, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (c->lease == 0 || c->to.id != was.id)
            continue;
        c->to = now;
        lim__keep_call(t, c);
        ask_party(t, self, c);
    }
}

void lim__talk_calls_disown(talk *t, lim_process *self)
{
    LIM__LIST_EACH_SAFE(n, tmp, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (c->from.id != t->owner.id)
            continue;
        c->from = (lim_pid){ 0 };
        if (c->lease == 0)
            call_end(t, self, c, &(ending){ .how = LIM_HOW_CLOSED, .who = lim__str("opener") });
        else
            lim__keep_call(t, c);
    }
}

/* ---- receives ---- */

static ending reply_of(talk *t, const heard *h, char text[24])
{
    return (ending){ .how = LIM_HOW_REPLY,
                     .payload = h->payload,
                     .detail = h->text,
                     .who = h->from.id != 0 ? lim__talk_name(t, h->from, text) : lim__bytes(NULL, 0),
                     .from = h->from,
                     .event = (uint8_t)h->event };
}

bool lim__talk_give(talk *t, lim_process *self, const heard *h)
{
    char text[24];
    ending e = reply_of(t, h, text);
    if (t->waiting == 0)
        return false;
    LIM__LIST_EACH(n, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (c->lease != 0)
            continue;
        call_end(t, self, c, &e);
        return true;
    }
    return false;
}

void lim__talk_receive(talk *t, lim_process *self, lim_pid from, const lim__receive *m)
{
    call now = call_now(self, m->ref, from, m->deadline_ns);
    char text[24];
    note *n = lim__talk_take(t); /* readable in every phase: a failure must not eat what had arrived */
    lim_err err = lim__talk_step(t, self, LIM__PHASE_USE);
    if (n != NULL) {
        ending e =
            reply_of(t, &(heard){ n->from, n->payload, (lim_event)n->event, lim__bytes(n->text, n->text_len) }, text);
        outcome(t, self, &now, &e);
        lim__talk_note_free(lim__proc_sched(self), n);
    } else if (err != LIM_OK) {
        cannot(t, self, &now, (lim_pid){ 0 });
    } else if (lim__talk_call_new(t, self, &now) == NULL) {
        no_memory(t, self, &now);
    }
}
