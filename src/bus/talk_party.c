/* SPDX-License-Identifier: Apache-2.0
 * talk_party.c - who takes part in a talk: joining, leaving, dying, and those who want to know.
 *
 *   join, assigned --> linked --> told who is there --> everybody else is told: JOINED
 *   leave ----------> told that it is over for it, its place given back --> everybody else: LEFT
 *   exit -----------> past, its notifiers told ---------------------------> everybody else: LEFT or CRASHED
 *                                                                            |
 *               NEXT, and the group had sent it: the group looks for another one, its asks wait
 *               required, or the last one:       the talk fails, everything that waits ends `crashed`
 *               else:                            the asks in its hands end `crashed`
 *
 * Living ones are in an array in the order in which they came; the newest LIM__PAST_MAX of the others are remembered,
 * for notifiers that are registered late and for the names in outcomes. One that left may come back. */
#include "bus/talk.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdio.h>

party *lim__talk_party(talk *t, lim_pid pid)
{
    for (uint32_t i = 0; i < t->alive; i++)
        if (t->parties[i].pid.id == pid.id)
            return &t->parties[i];
    lim_pid now = t->kept && pid.id != 0 ? lim__back_now(t, pid) : pid;
    return now.id != pid.id ? lim__talk_party(t, now) : NULL;
}

const past *lim__talk_past(const talk *t, lim_pid pid)
{
    for (uint32_t i = t->rare != NULL ? t->rare->past_count : 0; i > 0; i--)
        if (pid.id == 0 || t->rare->past[i - 1].pid.id == pid.id)
            return &t->rare->past[i - 1];
    return NULL;
}

lim_bytes lim__talk_name(talk *t, lim_pid pid, char text[24])
{
    const party *p = lim__talk_party(t, pid);
    const past *was = p == NULL ? lim__talk_past(t, pid) : NULL;
    const lim__assigned *a = p != NULL ? p->assigned : was != NULL ? was->assigned : NULL;
    if (a != NULL)
        return lim__bytes(a->text, a->identity_len);
    return lim__bytes(text, (size_t)snprintf(text, 24, "%" PRIx64, pid.id));
}

/* ---- the past ---- */

static void past_free(lim__sched *s, const past *p)
{
    if (p->assigned != NULL)
        lim__letter_free(s, p->assigned);
}

/* Room for one more, at past[past_count]. */
static bool past_room(rare *r, lim__sched *s)
{
    uint32_t n = r->past_count;
    if (n == LIM__PAST_MAX) {
        past_free(s, &r->past[0]);
        memmove(r->past, r->past + 1, --r->past_count * sizeof *r->past);
        return true;
    }
    if ((n & (n - 1)) != 0) /* the room is the next power of two */
        return true;
    past *wider = lim__alloc(s, (n == 0 ? 1 : 2 * n) * sizeof *wider);
    if (wider == NULL)
        return false;
    if (n > 0) {
        memcpy(wider, r->past, n * sizeof *wider);
        lim__free(s, r->past, n * sizeof *wider);
    }
    r->past = wider;
    return true;
}

/* How much past_room has made. */
static size_t past_bytes(const rare *r)
{
    uint32_t room = 1;
    while (room < r->past_count)
        room *= 2;
    return r->past == NULL ? 0 : room * sizeof *r->past;
}

/* It takes its assignment with it. */
void lim__talk_past_add(talk *t, lim_process *self, const past *p)
{
    rare *r = lim__talk_rare(t, self);
    if (r != NULL && past_room(r, lim__proc_sched(self)))
        r->past[r->past_count++] = *p;
    else
        past_free(lim__proc_sched(self), p);
}

/* ---- notifiers ---- */

static void tell_watches(talk *t, lim_process *self, lim_pid who, lim_reason reason, uint64_t at_ns)
{
    if (t->rare == NULL)
        return;
    LIM__LIST_EACH_SAFE(n, tmp, &t->rare->watches) {
        watch *w = LIM_CONTAINER(n, watch, node);
        if (who.id != 0 && w->what.participant.id != who.id)
            continue;
        lim__exited *e = lim__letter_new(lim__proc_sched(self), &lim__type_exited, sizeof *e);
        if (e != NULL) {
            *e = (lim__exited){ w->what.ref, w->what.participant, reason, at_ns };
            (void)!lim__talk_post(t, self, w->what.owner, e);
        }
        lim__list_remove(&w->node);
        lim__free(lim__proc_sched(self), w, sizeof *w);
    }
}

void lim__talk_notify(talk *t, lim_process *self, const lim__notify *m)
{
    rare *r = lim__talk_rare(t, self);
    watch *w = r == NULL ? NULL : lim__alloc(lim__proc_sched(self), sizeof *w);
    if (w == NULL)
        return; /* it is told when the talk ends */
    w->what = *m;
    lim__list_push(&r->watches, &w->node);
    const past *was = lim__talk_party(t, m->participant) == NULL ? lim__talk_past(t, m->participant) : NULL;
    if (was != NULL)
        tell_watches(t, self, was->pid, was->reason, was->at_ns);
}

/* ---- coming ---- */

static bool party_room(talk *t, lim__sched *s)
{
    if (t->alive < t->room)
        return true;
    uint32_t room = t->room == 0 ? 1 : 2u * t->room;
    party *wider = lim__alloc(s, room * sizeof *wider);
    if (wider == NULL)
        return false;
    if (t->room > 0) {
        memcpy(wider, t->parties, t->alive * sizeof *wider);
        lim__free(s, t->parties, t->room * sizeof *wider);
    }
    t->parties = wider;
    t->room = (uint16_t)room;
    return true;
}

static lim_err may_enter(talk *t, lim_pid pid)
{
    if (pid.id == 0 || pid.id == lim__state_pid(t).id || pid.id == t->owner.id)
        return LIM_E_INVALID;
    if (lim__talk_party(t, pid) != NULL)
        return LIM_E_EXISTS;
    return t->alive >= LIM__PARTIES_MAX || (t->rare != NULL && t->rare->events >= LIM__EVENTS_MAX) ? LIM_E_FULL
                                                                                                   : LIM_OK;
}

lim_err lim__talk_enter(talk *t, lim_process *self, const party *as, bool opening)
{
    lim_err err = may_enter(t, as->pid);
    if (err == LIM_OK && !party_room(t, lim__proc_sched(self)))
        err = LIM_E_NOMEM;
    if (err == LIM_OK)
        err = lim_link(self, as->pid); /* a dead one is a crash a moment later: not an error of who opened */
    if (err != LIM_OK)
        return err;
    for (uint32_t i = 0; i < t->alive; i++)
        lim__talk_event_to(t, self, as->pid, &(heard){ .from = t->parties[i].pid, .event = LIM_EVENT_JOINED });
    t->parties[t->alive++] = *as;
    lim__talk_note(t, self, as->assigned != NULL ? "assigned" : "joined", as->pid,
                   lim__str(as->required ? "required" : ""), 0, 0);
    lim__talk_event(t, self, &(heard){ .from = as->pid, .event = LIM_EVENT_JOINED }, !opening);
    return LIM_OK;
}

/* As it was before a restart: nobody is told that it joined. */
bool lim__talk_relink(talk *t, lim_process *self, const party *as)
{
    if (!party_room(t, lim__proc_sched(self)))
        return false;
    t->parties[t->alive++] = *as;
    return lim_link(self, as->pid) == LIM_OK;
}

void lim__talk_join(talk *t, lim_process *self, lim_pid from, const lim__join_conv *m)
{
    lim_err err = lim__talk_step(t, self, LIM__PHASE_USE);
    if (err == LIM_OK)
        err = lim__talk_enter(t, self, &(party){ .pid = m->participant, .required = m->required }, false);
    lim__talk_done(t, self, from, m->ref, &(lim__done){ .err = err });
}

/* ---- the group ---- */

/* lease 0: whatever it still looks for. */
static void release(talk *t, lim_process *self, uint64_t lease)
{
    lim__release *r = lim__letter_new(lim__proc_sched(self), &lim__type_release, sizeof *r);
    if (r == NULL)
        return; /* the group takes it back when this process ends */
    *r = (lim__release){ .lease = lease };
    (void)!lim__send_reserved(self, *lim__talk_group(t), r);
}

/* Those that the group had sent and that are gone, the newest: it shall not send one of them again. */
static uint32_t shunned(const talk *t, lim_pid *out)
{
    uint32_t n = 0;
    for (uint32_t i = t->rare != NULL ? t->rare->past_count : 0; i > 0 && n < UINT8_MAX; i--) {
        if (t->rare->past[i - 1].assigned == NULL)
            continue;
        if (out != NULL)
            out[n] = t->rare->past[i - 1].pid;
        n++;
    }
    return n;
}

static bool ask_group(talk *t, lim_process *self)
{
    uint32_t shun = shunned(t, NULL);
    size_t size = sizeof(lim__want) + shun * sizeof(lim_pid);
    *lim__talk_group(t) = lim__group_find(t->bus, lim__bytes(t->open->text, t->open->group_len));
    lim__want *w = lim__talk_group(t)->id == 0 ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_want, size);
    if (w == NULL)
        return false;
    *w = (lim__want){ .conv = lim__state_pid(t),
                      .kind = LIM__KIND_TALK,
                      .terms = lim__terms_ref(t->open->terms),
                      .payload = lim__msg_ref(t->open->payload),
                      .shun_count = (uint8_t)shun,
                      .shun_room = (uint8_t)shun };
    (void)shunned(t, w->shun);
    return lim__send(self, *lim__talk_group(t), w) == LIM_OK;
}

void lim__talk_want(talk *t, lim_process *self)
{
    t->wanting = true;
    if (!ask_group(t, self))
        lim__talk_refused(t, self, &(lim__refused){ .why = LIM_WHY_NO_PARTICIPANT });
}

void lim__talk_refused(talk *t, lim_process *self, const lim__refused *r)
{
    if (!t->wanting)
        return;
    t->wanting = false;
    lim__talk_note(t, self, "refused", (lim_pid){ 0 }, lim__str(lim_why_text(r->why)), 0, 0);
    lim__talk_opened(t, self, r->why == LIM_WHY_BACKLOG_FULL ? LIM_E_FULL : LIM_E_NOTFOUND);
    if (t->alive == 0) {
        lim__talk_fail(t, self, r->why);
        return;
    }
    t->why = (uint8_t)r->why; /* of these asks; the talk goes on */
    lim__talk_calls_crash(t, self, (lim_pid){ 0 });
    t->why = LIM_WHY_NONE;
}

static void trace_if(talk *t, lim_process *self, bool wanted)
{
    if (wanted && lim__talk_rare(t, self) != NULL && t->rare->history == NULL)
        t->rare->history = lim__history_new(t->bus, self);
}

/* The group has sent another one for those that it had sent before. */
static void rerouted(talk *t)
{
    uint64_t now_us = t->bus->os->wall_ns(t->bus->os) / 1000;
    for (uint32_t i = 0; t->rare != NULL && i < t->rare->past_count; i++)
        if (t->rare->past[i].assigned != NULL && t->rare->past[i].rerouted_wall_us == 0)
            t->rare->past[i].rerouted_wall_us = now_us;
}

void lim__talk_assigned(talk *t, lim_process *self, const lim_signal *signal)
{
    lim__assigned *a = lim__letter_keep(self, signal);
    lim_pid who = a->participant;
    *lim__talk_group(t) = signal->from; /* not always the one that was asked: a retired group passes on */
    trace_if(t, self, a->policy.trace);
    lim_err err = t->wanting ? lim__talk_enter(t, self, &(party){ .pid = who, .assigned = a }, !t->opened)
                             : LIM_E_CLOSED; /* it broke meanwhile */
    if (err != LIM_OK) {
        release(t, self, a->lease);
        lim__letter_free(lim__proc_sched(self), a);
    }
    if (err == LIM_E_CLOSED)
        return;
    t->wanting = false;
    lim__talk_opened(t, self, err);
    if (err == LIM_OK || err == LIM_E_EXISTS)
        rerouted(t);
    if (err == LIM_OK || err == LIM_E_EXISTS) /* it joined by itself, too: as good as another one */
        lim__talk_calls_move(t, self, who);
    else if (t->alive == 0)
        lim__talk_fail(t, self, LIM_WHY_MEMORY);
    else
        lim__talk_calls_crash(t, self, (lim_pid){ 0 });
}

/* ---- going ---- */

static party take_out(talk *t, party *p)
{
    party was = *p;
    uint32_t at = (uint32_t)(p - t->parties);
    memmove(p, p + 1, (--t->alive - at) * sizeof *p);
    return was;
}

/* What there is to do when one is not a participant any more. Takes its assignment. */
static void after(talk *t, lim_process *self, const party *was, past gone)
{
    heard h = { .from = gone.pid, .event = gone.crashed ? LIM_EVENT_CRASHED : LIM_EVENT_LEFT };
    h.text = lim__str(gone.crashed ? lim_reason_text(gone.reason) : "");
    bool next = t->open->on_crash == LIM_CRASH_NEXT && was->assigned != NULL;
    bool waits = t->wanting || (t->kept && lim__back_waits(t, (lim_pid){ 0 }));
    bool fails = was->required || (t->alive == 0 && !next && !waits);
    if (t->kept)
        lim__hold_drop(t, self, was->pid);
    if (was->assigned != NULL)
        release(t, self, was->assigned->lease);
    gone.assigned = was->assigned;
    lim__talk_past_add(t, self, &gone);
    lim__talk_note(t, self, gone.crashed ? "crashed" : "left", gone.pid, lim__str(lim_reason_text(gone.reason)), 0, 0);
    tell_watches(t, self, gone.pid, gone.reason, gone.at_ns);
    /* That it failed is how every receive ends from now on, after what had arrived before: no need for an event, too.
     */
    lim__talk_event(t, self, &h, !fails || t->push);
    if (fails) {
        lim__talk_fail(t, self, LIM_WHY_NONE);
    } else if (next) {
        lim__talk_calls_lose(t, self, gone.pid); /* they wait for the next one */
        if (!t->wanting)
            lim__talk_want(t, self);
    } else {
        lim__talk_calls_crash(t, self, gone.pid);
    }
}

void lim__talk_lost(talk *t, lim_process *self, const party *was, const past *gone)
{
    after(t, self, was, *gone);
}

void lim__talk_gone(talk *t, lim_process *self, const lim_signal *signal)
{
    party *p = lim__talk_party(t, signal->from);
    if (p == NULL)
        return;
    party was = take_out(t, p);
    if (t->kept && lim__back_gone(t, self, &was))
        return;
    after(t, self, &was,
          (past){ .pid = was.pid,
                  .reason = signal->reason,
                  .crashed = signal->reason != LIM_NORMAL && signal->reason != LIM_LEFT,
                  .at_ns = signal->at_ns,
                  .wall_us = t->bus->os->wall_ns(t->bus->os) / 1000 });
}

void lim__talk_leave(talk *t, lim_process *self, lim_pid from, const lim__join_conv *m)
{
    party *p = lim__talk_party(t, m->participant);
    lim__talk_done(t, self, from, m->ref, &(lim__done){ .err = p != NULL ? LIM_OK : LIM_E_NOTFOUND });
    if (p == NULL)
        return;
    lim_unlink(self, p->pid);
    lim__talk_calls_revoke(t, self, p->pid);
    lim__talk_revoke(t, self, p->pid, 0, LIM__REVOKE_ENDED);
    party was = take_out(t, p);
    after(t, self, &was,
          (past){ .pid = was.pid,
                  .reason = LIM_LEFT,
                  .at_ns = lim_now_ns(self),
                  .wall_us = t->bus->os->wall_ns(t->bus->os) / 1000 });
}

void lim__talk_let_go(talk *t, lim_process *self)
{
    if (t->wanting)
        release(t, self, 0);
    t->wanting = false;
    if (t->kept)
        lim__hold_drop(t, self, (lim_pid){ 0 });
    while (t->alive > 0) {
        party was = take_out(t, &t->parties[0]);
        lim__talk_revoke(t, self, was.pid, 0, LIM__REVOKE_ENDED);
        lim_unlink(self, was.pid);
        if (was.assigned == NULL)
            continue;
        release(t, self, was.assigned->lease);
        lim__letter_free(lim__proc_sched(self), was.assigned);
    }
    tell_watches(t, self, (lim_pid){ 0 }, LIM_REASON_NONE, 0); /* nobody is watched any more */
}

void lim__talk_parties_free(talk *t, lim__sched *s)
{
    for (uint32_t i = 0; i < t->alive; i++)
        if (t->parties[i].assigned != NULL)
            lim__letter_free(s, t->parties[i].assigned);
    if (t->room > 0)
        lim__free(s, t->parties, t->room * sizeof *t->parties);
    rare *r = t->rare;
    if (r == NULL)
        return;
    for (uint32_t i = 0; i < r->past_count; i++)
        past_free(s, &r->past[i]);
    if (r->past != NULL)
        lim__free(s, r->past, past_bytes(r));
    for (lim__list *n; (n = lim__list_pop(&r->watches)) != NULL;)
        lim__free(s, LIM_CONTAINER(n, watch, node), sizeof(watch));
    lim__free(s, r, sizeof *r);
}
