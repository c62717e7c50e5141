/* SPDX-License-Identifier: Apache-2.0
 * talk.c - the conversation with more than one exchange: participants join, messages go both ways, asks and receives
 * wait side by side.
 *
 * Every participant is linked before anything is forwarded to it. What the owner waits for is a `call`: an ask, matched
 * with its answer by the lease it was sent under (never by order), or a receive, served first come first served from
 * the inbox. A call ends exactly once, with an outcome letter.
 *
 * Invariants:
 *   T1  a call is in `calls` until its outcome is sent, and not a moment longer.
 *   T2  inbox not empty implies that no receive is waiting.
 *   T3  a dead participant stays in the list (its end can be asked for) and is never sent anything. */
#include "base/base.h"
#include "bus/conv.h"
#include <stdio.h>

enum { TAG_CALL = 1, TAG_WHOLE, INBOX_MAX = 1024, PARTIES_MAX = 256 };

typedef struct party {
    lim__list node;
    lim_pid pid;
    lim__assigned *assigned; /* came through the group; NULL: joined */
    bool alive;
    lim_reason reason;
    uint64_t at_ns;
} party;

typedef struct call {
    lim__list node;
    uint64_t ref, lease; /* lease 0: a receive */
    uint64_t timer, started_ns, deadline_ns;
    lim_pid to, from;  /* from: who asked */
    lim__msg *payload; /* asks: kept to be sent to another one */
} call;

typedef struct note { /* a message in the inbox */
    lim__list node;
    lim_pid from;
    lim__msg *payload;
} note;

typedef struct watch { /* somebody wants to know of a participant's end */
    lim__list node;
    lim__notify what;
} watch;

typedef struct talk {
    lim_bus *bus;
    lim__conv_node node;
    lim__open *open;
    lim_phase phase;
    lim_pid group;
    lim__list parties, calls, inbox, watches;
    uint32_t alive, dead, buffered;
    uint64_t next_lease, sent, received, whole_timer;
    lim_reason last_reason;
    bool push, opened; /* forward messages to the owner as they come; the opener was answered */
} talk;

/* ---- telling the owner ---- */

static void outcome(talk *t, lim_process *self, const call *c, lim_how how, lim__msg *payload, lim_bytes detail,
                    lim_bytes who)
{
    lim__outcome_letter *o =
        lim__letter_new(lim__proc_sched(self), &lim__type_outcome, sizeof *o + detail.len + who.len);
    if (o == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    *o = (lim__outcome_letter){ .ref = c->ref,
                                .conv = lim_self(self),
                                .how = how,
                                .payload = lim__msg_ref(payload),
                                .handed_over = c->lease == 0 ? LIM_HANDED_NO : LIM_HANDED_UNKNOWN };
    if (how == LIM_HOW_REPLY || how == LIM_HOW_FAILED)
        o->handed_over = LIM_HANDED_YES;
    if (how == LIM_HOW_REFUSED)
        o->handed_over = LIM_HANDED_NO;
    if (how == LIM_HOW_CRASHED)
        o->reason = t->last_reason;
    o->participant_len = (uint8_t)who.len;
    o->detail_len = (uint16_t)detail.len;
    if (who.len > 0)
        memcpy(o->text, who.ptr, who.len);
    if (detail.len > 0)
        memcpy(o->text + who.len, detail.ptr, detail.len);
    o->elapsed_ns = lim_now_ns(self) - c->started_ns;
    (void)!lim__send_reserved(self, c->from, o);
}

static void call_free(lim_process *self, call *c)
{
    lim__sched *s = self != NULL ? lim__proc_sched(self) : lim__sched_current();
    if (self != NULL && c->timer != 0)
        lim_timer_cancel(self, c->timer);
    lim__list_remove(&c->node);
    lim__msg_unref(c->payload);
    lim__free(s, c, sizeof *c);
}

static void call_end(talk *t, lim_process *self, call *c, lim_how how, lim__msg *payload, lim_bytes detail)
{
    outcome(t, self, c, how, payload, detail, lim__bytes(NULL, 0));
    call_free(self, c);
}

static void end_calls(talk *t, lim_process *self, lim_how how, lim_pid only)
{
    LIM__LIST_EACH_SAFE(n, tmp, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (only.id == 0 || c->to.id == only.id)
            call_end(t, self, c, how, NULL, lim__bytes(NULL, 0));
    }
}

static void done(lim_process *self, lim_pid from, uint64_t ref, lim_err err)
{
    lim__done *d = lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = (lim__done){ .ref = ref, .conv = lim_self(self), .err = err };
    if (err == LIM_OK || err == LIM_E_FULL)
        d->admission = (lim_admission){ .verdict = err == LIM_OK ? LIM_ACCEPT : LIM_REJECT,
                                        .matched = 1,
                                        .delivered = err == LIM_OK,
                                        .why = err == LIM_OK ? LIM_WHY_NONE : LIM_WHY_PARTICIPANT_FULL,
                                        .retry_after_ms = err == LIM_OK ? 0 : 100 };
    (void)!lim__send_reserved(self, from, d);
}

static void opened_answer(talk *t, lim_process *self, lim_err err)
{
    if (t->opened)
        return;
    t->opened = true;
    done(self, t->open->owner, t->open->ref, err);
}

/* ---- participants ---- */

static party *party_find(talk *t, lim_pid pid)
{
    LIM__LIST_EACH(n, &t->parties) {
        party *p = LIM_CONTAINER(n, party, node);
        if (p->pid.id == pid.id)
            return p;
    }
    return NULL;
}

static party *party_alive(talk *t, lim_pid to)
{
    LIM__LIST_EACH(n, &t->parties) {
        party *p = LIM_CONTAINER(n, party, node);
        if (p->alive && (to.id == 0 || p->pid.id == to.id))
            return p;
    }
    return NULL;
}

static lim_err party_add(talk *t, lim_process *self, lim_pid pid, lim__assigned *assigned)
{
    if (party_find(t, pid) != NULL)
        return LIM_E_EXISTS;
    if (t->alive + t->dead >= PARTIES_MAX)
        return LIM_E_FULL;
    party *p = lim__alloc(lim__proc_sched(self), sizeof *p);
    if (p == NULL)
        return LIM_E_NOMEM;
    *p = (party){ .pid = pid, .assigned = assigned, .alive = true };
    lim_err err = lim_link(self, pid); /* a dead one is a crash a moment later: not an error of who opened */
    if (err != LIM_OK) {
        lim__free(lim__proc_sched(self), p, sizeof *p);
        return err;
    }
    lim__list_push(&t->parties, &p->node);
    t->alive++;
    return LIM_OK;
}

static lim_err request(lim_process *self, lim_pid to, uint64_t lease, uint64_t deadline_ns, lim__msg *payload)
{
    lim__request *r = lim__letter_new(lim__proc_sched(self), &lim__type_request, sizeof *r);
    if (r == NULL)
        return LIM_E_NOMEM;
    *r = (lim__request){ .conv = lim_self(self),
                         .lease = lease,
                         .deadline_ns = deadline_ns,
                         .payload = lim__msg_ref(payload),
                         .attempt = 1,
                         .flags = lease == 0 ? LIM__REQUEST_QUIET : 0 };
    return lim__send(self, to, r);
}

static void want(talk *t, lim_process *self)
{
    lim_bytes name = lim__bytes(t->open->text, t->open->group_len);
    t->group = lim__group_find(t->bus, name);
    lim__want *w = t->group.id == 0 ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_want, sizeof *w);
    if (w != NULL) {
        *w = (lim__want){ .conv = lim_self(self), .kind = LIM__KIND_TALK };
        w->payload = lim__msg_ref(t->open->payload);
        if (lim__send(self, t->group, w) == LIM_OK)
            return;
    }
    opened_answer(t, self, LIM_E_NOTFOUND);
    if (t->alive == 0) {
        lim__phase_step(&t->phase, LIM__PHASE_NOBODY_LEFT);
        end_calls(t, self, LIM_HOW_CRASHED, (lim_pid){ 0 });
    }
}

/* ---- messages ---- */

static void receive_or_keep(talk *t, lim_process *self, lim_pid from, lim__msg *payload)
{
    t->received++;
    if (t->push) {
        lim__message *m = lim__letter_new(lim__proc_sched(self), &lim__type_message, sizeof *m);
        if (m != NULL) {
            *m = (lim__message){
                .conv = lim_self(self), .from = from, .seq = t->received, .payload = lim__msg_ref(payload)
            };
            (void)!lim__send_reserved(self, t->open->owner, m);
        }
        return;
    }
    LIM__LIST_EACH(n, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (c->lease == 0) {
            call_end(t, self, c, LIM_HOW_REPLY, payload, lim__bytes(NULL, 0));
            return;
        }
    }
    note *m = t->buffered < INBOX_MAX ? lim__alloc(lim__proc_sched(self), sizeof *m) : NULL;
    if (m == NULL) {
        t->received--;
        return;
    }
    *m = (note){ .from = from, .payload = lim__msg_ref(payload) };
    lim__list_push(&t->inbox, &m->node);
    t->buffered++;
}

/* Into a conversation speaks who takes part in it; anybody else is told that this one has nothing to do with it. */
static void on_say(talk *t, lim_process *self, const lim__say *m)
{
    if (party_find(t, m->from) != NULL) {
        receive_or_keep(t, self, m->from, m->payload);
        return;
    }
    lim__revoke *r = lim__letter_new(lim__proc_sched(self), &lim__type_revoke, sizeof *r);
    if (r == NULL)
        return;
    *r = (lim__revoke){ lim_self(self), 0, LIM__REVOKE_ENDED };
    (void)!lim__send_reserved(self, m->from, r);
}

static lim_err tell_all(talk *t, lim_process *self, lim_pid to, lim__msg *payload)
{
    lim_err err = to.id != 0 ? LIM_E_GONE : LIM_OK;
    if (t->alive + t->dead == 0) {
        if (t->buffered >= INBOX_MAX)
            return LIM_E_FULL;
        receive_or_keep(t, self, lim_self(self), payload);
        return LIM_OK;
    }
    LIM__LIST_EACH(n, &t->parties) {
        party *p = LIM_CONTAINER(n, party, node);
        if (p->alive && (to.id == 0 || p->pid.id == to.id))
            err = request(self, p->pid, 0, UINT64_MAX, payload);
    }
    return t->alive == 0 ? LIM_E_GONE : err;
}

static void on_tell(talk *t, lim_process *self, lim_pid from, lim__tell *m)
{
    lim_err err = m->refused;
    if (err == LIM_OK)
        err = lim__phase_step(&t->phase, LIM__PHASE_USE) ? tell_all(t, self, m->to, m->payload) : LIM_E_CLOSED;
    if (err == LIM_OK)
        t->sent++;
    done(self, from, m->ref, err);
}

static call *call_new(talk *t, lim_process *self, const call *as, uint64_t lease, uint64_t deadline_ns)
{
    call *c = lim__alloc(lim__proc_sched(self), sizeof *c);
    if (c == NULL)
        return NULL;
    *c = (call){
        .ref = as->ref, .from = as->from, .lease = lease, .deadline_ns = deadline_ns, .started_ns = as->started_ns
    };
    uint64_t now_ns = c->started_ns;
    if (deadline_ns != UINT64_MAX &&
        lim_timer_start(self, deadline_ns > now_ns ? deadline_ns - now_ns : 0, TAG_CALL, &c->timer) != LIM_OK) {
        lim__free(lim__proc_sched(self), c, sizeof *c);
        return NULL;
    }
    lim__list_push(&t->calls, &c->node);
    return c;
}

/* Sends the ask to c->to. That one's death is told by its exit. */
static void ask_party(talk *t, lim_process *self, call *c)
{
    lim_err err = request(self, c->to, c->lease, c->deadline_ns, c->payload);
    if (err == LIM_E_FULL)
        call_end(t, self, c, LIM_HOW_REFUSED, NULL, lim__str("the participant's mailbox is full"));
    else if (err == LIM_E_NOMEM)
        call_end(t, self, c, LIM_HOW_REFUSED, NULL, lim__str("out of memory"));
}

static void on_ask(talk *t, lim_process *self, lim_pid from, lim__ask *m)
{
    call now = { .ref = m->ref, .from = from, .started_ns = lim_now_ns(self) }; /* no lease: it was handed to nobody */
    party *p = party_alive(t, m->to);
    lim_how how = t->phase == LIM_PHASE_BROKEN || (p == NULL && t->dead > 0) ? LIM_HOW_CRASHED : LIM_HOW_REFUSED;
    call *c = NULL;
    if (p != NULL && lim__phase_step(&t->phase, LIM__PHASE_USE))
        c = call_new(t, self, &now, ++t->next_lease, m->deadline_ns);
    if (c == NULL) {
        outcome(t, self, &now, how, NULL, lim__bytes(NULL, 0), lim__bytes(NULL, 0));
        return;
    }
    c->to = p->pid;
    c->payload = lim__msg_ref(m->payload);
    t->sent++;
    ask_party(t, self, c);
}

static void on_receive(talk *t, lim_process *self, lim_pid from, const lim__receive *m)
{
    call now = { .ref = m->ref, .from = from, .started_ns = lim_now_ns(self) };
    if (!lim__list_empty(&t->inbox)) { /* readable in every phase: a failure must not eat what had arrived */
        note *first = LIM_CONTAINER(lim__list_pop(&t->inbox), note, node);
        lim__phase_step(&t->phase, LIM__PHASE_USE);
        t->buffered--;
        outcome(t, self, &now, LIM_HOW_REPLY, first->payload, lim__bytes(NULL, 0), lim__bytes(NULL, 0));
        lim__msg_unref(first->payload);
        lim__free(lim__proc_sched(self), first, sizeof *first);
        return;
    }
    bool open = lim__phase_step(&t->phase, LIM__PHASE_USE);
    if (!open || call_new(t, self, &now, 0, m->deadline_ns) == NULL)
        outcome(t, self, &now, t->phase == LIM_PHASE_BROKEN ? LIM_HOW_CRASHED : LIM_HOW_CLOSED, NULL,
                lim__bytes(NULL, 0), lim__bytes(NULL, 0));
}

static void on_answer(talk *t, lim_process *self, lim__answer *a)
{
    LIM__LIST_EACH(n, &t->calls) {
        call *c = LIM_CONTAINER(n, call, node);
        if (c->lease == 0 || c->lease != a->lease)
            continue;
        if (a->how == LIM__ANSWER_NOTHING)
            return; /* silence: the deadline ends it */
        t->received++;
        call_end(t, self, c, a->how == LIM__ANSWER_REPLY ? LIM_HOW_REPLY : LIM_HOW_FAILED, a->payload,
                 lim__bytes(a->detail, a->detail_len));
        return;
    } /* nobody asked, or no longer: dropped */
}

/* ---- ends ---- */

static void tell_watches(talk *t, lim_process *self, lim_pid who, lim_reason reason, uint64_t at_ns)
{
    LIM__LIST_EACH_SAFE(n, tmp, &t->watches) {
        watch *w = LIM_CONTAINER(n, watch, node);
        if (who.id != 0 && w->what.participant.id != who.id)
            continue;
        lim__exited *e = lim__letter_new(lim__proc_sched(self), &lim__type_exited, sizeof *e);
        if (e != NULL) {
            *e = (lim__exited){ w->what.ref, w->what.participant, reason, at_ns };
            (void)!lim__send_reserved(self, w->what.owner, e);
        }
        lim__list_remove(&w->node);
        lim__free(lim__proc_sched(self), w, sizeof *w);
    }
}

static void on_notify(talk *t, lim_process *self, const lim__notify *m)
{
    party *p = party_find(t, m->participant);
    watch *w = lim__alloc(lim__proc_sched(self), sizeof *w);
    if (w == NULL)
        return;
    w->what = *m;
    lim__list_push(&t->watches, &w->node);
    if (p != NULL && !p->alive)
        tell_watches(t, self, p->pid, p->reason, p->at_ns);
}

static void end(talk *t, lim_process *self, lim_reason reason)
{
    lim__closed *c = lim__letter_new(lim__proc_sched(self), &lim__type_closed, sizeof *c);
    tell_watches(t, self, (lim_pid){ 0 }, LIM_REASON_NONE, 0);
    LIM__LIST_EACH(n, &t->parties) {
        party *p = LIM_CONTAINER(n, party, node);
        if (!p->alive)
            continue;
        lim__revoke *r = lim__letter_new(lim__proc_sched(self), &lim__type_revoke, sizeof *r);
        if (r != NULL) {
            *r = (lim__revoke){ lim_self(self), 0, LIM__REVOKE_ENDED };
            (void)!lim__send_reserved(self, p->pid, r);
        }
        lim_unlink(self, p->pid);
    }
    lim_unlink(self, t->open->owner);
    if (c != NULL) {
        *c = (lim__closed){ lim_self(self), t->phase, reason };
        (void)!lim__send_reserved(self, t->open->owner, c);
    }
    lim_exit(self, LIM_NORMAL);
}

static void close_talk(talk *t, lim_process *self, lim_how how)
{
    lim__phase_step(&t->phase, LIM__PHASE_CLOSE);
    opened_answer(t, self, LIM_E_CLOSED);
    end_calls(t, self, how, (lim_pid){ 0 });
    lim__phase_step(&t->phase, LIM__PHASE_TOLD);
    end(t, self, LIM_NORMAL);
}

/* The place that the group had given us with somebody. */
static void release(talk *t, lim_process *self, const lim__assigned *a)
{
    lim__release *r = a == NULL ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_release, sizeof *r);
    if (r == NULL)
        return; /* the group takes it back when this process ends */
    *r = (lim__release){ a->lease };
    (void)!lim__send_reserved(self, t->group, r);
}

static void nobody_left(talk *t, lim_process *self)
{
    lim__phase_step(&t->phase, LIM__PHASE_NOBODY_LEFT);
    end_calls(t, self, LIM_HOW_CRASHED, (lim_pid){ 0 });
}

static void participant_gone(talk *t, lim_process *self, const lim_signal *signal, party *p)
{
    p->alive = false;
    p->reason = signal->reason;
    p->at_ns = signal->at_ns;
    t->last_reason = signal->reason;
    t->alive--;
    t->dead++;
    tell_watches(t, self, p->pid, p->reason, p->at_ns);
    release(t, self, p->assigned);
    if (t->open->on_crash == LIM_CRASH_NEXT && t->open->group_len > 0 && t->alive == 0) {
        want(t, self); /* asks in its hands go to the next one, under the same deadline */
        return;
    }
    end_calls(t, self, LIM_HOW_CRASHED, p->pid);
    if (t->alive == 0)
        nobody_left(t, self);
}

static void on_assigned(talk *t, lim_process *self, const lim_signal *signal)
{
    lim__assigned *a = lim__letter_keep(self, signal);
    lim_err err = party_add(t, self, a->participant, a);
    t->group = signal->from; /* not always the one that was asked: a retired group passes on */
    opened_answer(t, self, err);
    if (err != LIM_OK) {
        release(t, self, a);
        lim__letter_free(lim__proc_sched(self), a);
        if (t->alive == 0)
            nobody_left(t, self);
        return;
    }
    LIM__LIST_EACH_SAFE(n, tmp, &t->calls) { /* asks that outlived their participant */
        call *c = LIM_CONTAINER(n, call, node);
        party *had = c->lease != 0 ? party_find(t, c->to) : NULL;
        if (had == NULL || had->alive)
            continue;
        c->to = a->participant;
        c->lease = ++t->next_lease;
        ask_party(t, self, c);
    }
}

static void on_refused(talk *t, lim_process *self, const lim__refused *r)
{
    opened_answer(t, self, r->why == LIM_WHY_BACKLOG_FULL ? LIM_E_FULL : LIM_E_NOTFOUND);
    if (t->alive == 0)
        nobody_left(t, self);
}

/* ---- showing ---- */

static lim_conv_info info(const talk *t, uint64_t now_ns)
{
    lim_conv_info i = { .phase = t->phase,
                        .alive = t->alive,
                        .dead = t->dead,
                        .buffered = t->buffered,
                        .sent = t->sent,
                        .received = t->received,
                        .remaining_ms = LIM_FOREVER };
    LIM__LIST_EACH(n, &t->calls)
        i.pending++;
    if (t->open->deadline_ns != UINT64_MAX)
        i.remaining_ms = t->open->deadline_ns > now_ns ? (int64_t)((t->open->deadline_ns - now_ns) / 1000000) : 0;
    return i;
}

static void on_inspect(talk *t, lim_process *self, const lim__command *c)
{
    lim__done *d = lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = (lim__done){ .ref = c->ref, .conv = lim_self(self), .info = info(t, lim_now_ns(self)) };
    (void)!lim__send_reserved(self, c->from, d);
}

static void talk_json(const void *state, lim__json *j, const char *key)
{
    const talk *t = state;
    if (t->open == NULL)
        return;
    uint64_t now_ns = t->bus->os->now_ns(t->bus->os);
    lim_conv_info i = info(t, now_ns);
    lim__json_open(j, key, '{');
    lim__json_id(j, "id", t->node.pid.id);
    lim__json_str(j, "kind", lim__conv_kind_text(LIM__KIND_TALK));
    lim__json_str(j, "phase", lim_phase_text(t->phase));
    lim__json_bytes(j, "group", lim__bytes(t->open->text, t->open->group_len));
    lim__json_u64(j, "age_ms", (now_ns - t->open->opened_ns) / 1000000);
    lim__json_u64(j, "pending", i.pending);
    lim__json_u64(j, "buffered", i.buffered);
    lim__json_u64(j, "sent", i.sent);
    lim__json_u64(j, "received", i.received);
    lim__json_open(j, "participants", '[');
    LIM__LIST_EACH(n, &t->parties) {
        const party *p = LIM_CONTAINER(n, party, node);
        lim__json_open(j, NULL, '{');
        lim__json_id(j, "id", p->pid.id);
        lim__json_bytes(j, "identity",
                        p->assigned != NULL ? lim__bytes(p->assigned->text, p->assigned->identity_len)
                                            : lim__bytes(NULL, 0));
        lim__json_bool(j, "alive", p->alive);
        if (!p->alive)
            lim__json_str(j, "reason", lim_reason_text(p->reason));
        lim__json_close(j);
    }
    lim__json_close(j);
    lim__json_close(j);
}

static lim__conv_facts talk_facts(const void *state)
{
    const talk *t = state;
    return (lim__conv_facts){ t->open, t->phase };
}

static const lim__conv_kindred as_talk = { talk_json, talk_facts };

/* ---- signals ---- */

static void on_open(talk *t, lim_process *self, const lim_signal *signal)
{
    t->open = lim__letter_keep(self, signal);
    t->phase = LIM_PHASE_CREATED;
    lim_bytes name = lim__terms_or_default(t->open->terms)->name;
    char text[LIM__TERMS_KEY_MAX + 1];
    snprintf(text, sizeof text, "%.*s", (int)name.len, (const char *)name.ptr);
    lim_err taken = name.len == 0 ? LIM_OK : lim_register(t->bus->rt, text, lim_self(self));
    if (taken != LIM_OK) {
        opened_answer(t, self, taken);
        return;
    }
    uint64_t now_ns = lim_now_ns(self), deadline = t->open->deadline_ns;
    if (deadline != UINT64_MAX &&
        lim_timer_start(self, deadline > now_ns ? deadline - now_ns : 0, TAG_WHOLE, &t->whole_timer) != LIM_OK)
        lim_exit(self, LIM_FAULT);
    else if (t->open->participant.id != 0)
        opened_answer(t, self, party_add(t, self, t->open->participant, NULL));
    else if (t->open->group_len > 0)
        want(t, self);
    else
        opened_answer(t, self, LIM_OK);
}

static void on_message(talk *t, lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *type = signal->type;
    void *body = (void *)(uintptr_t)signal->body.ptr;
    if (type == &lim__type_open)
        on_open(t, self, signal);
    else if (t->open == NULL)
        return;
    else if (type == &lim__type_ask)
        on_ask(t, self, signal->from, body);
    else if (type == &lim__type_answer)
        on_answer(t, self, body);
    else if (type == &lim__type_tell)
        on_tell(t, self, signal->from, body);
    else if (type == &lim__type_receive)
        on_receive(t, self, signal->from, body);
    else if (type == &lim__type_say)
        on_say(t, self, body);
    else if (type == &lim__type_join_conv)
        done(self, signal->from, ((lim__join_conv *)body)->ref,
             lim__phase_step(&t->phase, LIM__PHASE_USE)
                 ? party_add(t, self, ((lim__join_conv *)body)->participant, NULL)
                 : LIM_E_CLOSED);
    else if (type == &lim__type_assigned)
        on_assigned(t, self, signal);
    else if (type == &lim__type_refused)
        on_refused(t, self, body);
    else if (type == &lim__type_close)
        close_talk(t, self, LIM_HOW_CLOSED);
    else if (type == &lim__type_cancel)
        close_talk(t, self, LIM_HOW_CANCELLED);
    else if (type == &lim__type_inspect)
        on_inspect(t, self, body);
    else if (type == &lim__type_notify)
        on_notify(t, self, body);
    else if (type == &lim__type_push)
        t->push = true;
}

static void on_timer(talk *t, lim_process *self, const lim_signal *signal)
{
    if (signal->tag == TAG_WHOLE) {
        t->whole_timer = 0;
        lim__phase_step(&t->phase, LIM__PHASE_DEADLINE);
        opened_answer(t, self, LIM_E_TIMEOUT); /* one that broke before ends now, too: nobody may have closed it */
        end_calls(t, self, LIM_HOW_TIMEOUT, (lim_pid){ 0 });
        end(t, self, LIM_TIMEOUT);
        return;
    }
    LIM__LIST_EACH(n, &t->calls) { /* a receive that timed out is withdrawn: it can swallow nothing later */
        call *c = LIM_CONTAINER(n, call, node);
        if (c->timer == signal->ref) {
            c->timer = 0;
            call_end(t, self, c, LIM_HOW_TIMEOUT, NULL, lim__bytes(NULL, 0));
            return;
        }
    }
}

static void on_exit_signal(talk *t, lim_process *self, const lim_signal *signal)
{
    if (t->open == NULL || signal->from.id == t->open->owner.id) {
        if (t->open != NULL)
            end(t, self, signal->reason);
        else
            lim_exit(self, LIM_SHUTDOWN);
        return;
    }
    party *p = party_find(t, signal->from);
    if (p != NULL && p->alive)
        participant_gone(t, self, signal, p);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    talk *t = state;
    if (t->parties.next == NULL) {
        lim__list_init(&t->parties);
        lim__list_init(&t->calls);
        lim__list_init(&t->inbox);
        lim__list_init(&t->watches);
        lim__conv_enter(t->bus, self, &t->node, t, &as_talk);
    }
    switch (signal->kind) {
    case LIM_SIGNAL_MESSAGE:
        if (signal->type != NULL)
            on_message(t, self, signal);
        return;
    case LIM_SIGNAL_EXIT:
        on_exit_signal(t, self, signal);
        return;
    case LIM_SIGNAL_TIMER:
        on_timer(t, self, signal);
        return;
    case LIM_SIGNAL_DOWN:
    case LIM_SIGNAL_RESPONSE:
        return;
    }
}

static void on_end(void *state, lim_reason reason)
{
    talk *t = state;
    lim__sched *s = lim__sched_current();
    (void)reason;
    lim__conv_leave(&t->node);
    if (t->parties.next == NULL)
        return;
    for (lim__list *n; (n = lim__list_pop(&t->parties)) != NULL;) {
        party *p = LIM_CONTAINER(n, party, node);
        if (p->assigned != NULL)
            lim__letter_free(s, p->assigned);
        lim__free(s, p, sizeof *p);
    }
    while (!lim__list_empty(&t->calls))
        call_free(NULL, LIM_CONTAINER(t->calls.next, call, node));
    for (lim__list *n; (n = lim__list_pop(&t->inbox)) != NULL;) {
        note *m = LIM_CONTAINER(n, note, node);
        lim__msg_unref(m->payload);
        lim__free(s, m, sizeof *m);
    }
    for (lim__list *n; (n = lim__list_pop(&t->watches)) != NULL;)
        lim__free(s, LIM_CONTAINER(n, watch, node), sizeof(watch));
    if (t->open != NULL)
        lim__letter_free(s, t->open);
}

lim_spawn_opts lim__talk_spawn(lim_bus *const *bus, bool link)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "talk",
                             .on_signal = on_signal,
                             .on_end = on_end,
                             .state_bytes = sizeof(talk),
                             .init = bus,
                             .init_bytes = sizeof *bus,
                             .mailbox_max = 1024,
                             .trap_exit = true,
                             .link = link };
}
