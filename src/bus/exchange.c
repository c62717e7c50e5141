/* SPDX-License-Identifier: Apache-2.0
 * exchange.c - the conversation behind every ask and every task: a process that acts out exchange_step.c.
 *
 * It is linked to its owner (asks) and to the participant that has the request, before the request is sent. It traps
 * exits, so a death is one event among others. The group watches it: whatever it holds there is given back when it
 * ends, however it ends.
 *
 *      letters, exits, timers --> exchange.c: which event is it? --> lim__ex_step --> what to do --> act()
 *                                                                                     |  exchange_hand.c: leases
 *                                                                                     `  exchange_outcome.c: the end
 *
 * Who may speak: an answer, a part, progress and the acknowledgement count only from the participant that has the
 * lease. A worker that reconnected has another pid. For a suspended lease its token proves who it is; who claims the
 * lease of one that still seems to be there is heard when that one has been found dead, and not before.
 *
 * What an idle exchange takes is kept small: all that few of them need is in `trouble` and `extra`, made on demand. */
#include "bus/exchange_inside.h"
#include "base/base.h"
#include <stdatomic.h>
#include <stdio.h>

extra *lim__ex_extra(exchange *x, lim_process *self)
{
    if (x->extra == NULL) {
        x->extra = lim__alloc(lim__proc_sched(self), sizeof *x->extra);
        if (x->extra != NULL)
            *x->extra = (extra){ 0 };
    }
    return x->extra;
}

/* ---- history ---- */

void lim__ex_trace(exchange *x, lim_process *self, bool wanted)
{
    extra *e = wanted ? lim__ex_extra(x, self) : NULL;
    if (e == NULL || e->history != NULL)
        return;
    e->history = lim__history_new(x->bus, self);
    lim__history_add(
        e->history, self,
        &(lim__history_note){
            .kind = "opened", .who = group_name(x->open), .detail = type_name(x->open), .bytes = x->payload_len });
}

static void trace(const exchange *x, lim__ex_event e, const lim__ex_facts *f, const occasion *now)
{
    lim__history *h = x->extra != NULL ? x->extra->history : NULL;
    if (h == NULL)
        return;
    const old_lease *old = now->lease != 0 ? lim__ex_old(x, now->lease) : NULL;
    lim__history_note note = { .kind = lim__ex_event_text(e),
                               .who = identity_of(old != NULL ? old->was : x->current),
                               .code = lim__ex_code(e, f) };
    if (now->answer != NULL) {
        note.detail = lim__bytes(now->answer->detail, now->answer->detail_len);
        note.bytes = now->answer->payload != NULL ? lim__msg_bytes(now->answer->payload).len : 0;
    } else if (now->part != NULL) {
        note.bytes = lim__msg_bytes(now->part->payload).len;
    } else if (now->refused != NULL) {
        note.detail = lim__str(lim_why_text(now->refused->why));
    } else if ((e == LIM__EX_LOST || e == LIM__EX_LEFT) && troubled(x) != NULL) {
        note.detail = lim__str(lim_reason_text(troubled(x)->last_reason));
    } else if (e == LIM__EX_PROGRESS && x->extra->note != NULL) {
        note.detail = lim__bytes(x->extra->note->note, x->extra->note->note_len);
    }
    lim__history_add(h, now->self, &note);
}

/* ---- effects ---- */

static void finish(exchange *x, lim_process *self)
{
    if (x->keeping) { /* once all of it is told */
        x->extra->keep->ending = true;
        return;
    }
    /* Unlinked first: those who only had to do with a normal end need not hear of it. */
    if (!is_task(x))
        lim_unlink(self, x->open->owner);
    if (x->current != NULL)
        lim_unlink(self, x->current->participant);
    lim_exit(self, LIM_NORMAL);
}

/* Everything up to the outcome: what it says is complete then. */
static void act_first(exchange *x, uint32_t todo, occasion *now)
{
    lim_process *self = now->self;
    if (todo & LIM__EX_DO_LOSS)
        lim__ex_count_loss(x, now);
    if (todo & LIM__EX_DO_ATTEMPT)
        x->attempts++;
    if ((todo & LIM__EX_DO_SETTLE) && task_like(x)) /* who answers an ask keeps nothing: the first answer counts */
        lim__ex_settle(x, now, true);
    if (todo & LIM__EX_DO_SETTLE_NOT)
        lim__ex_settle(x, now, false);
    if ((todo & LIM__EX_DO_REVOKE) && x->current != NULL)
        lim__ex_revoke(x, self, x->current->participant, x->current->lease,
                       todo & (LIM__EX_DO_OUT_TIMEOUT | LIM__EX_DO_STICK) ? LIM__REVOKE_TIMEOUT
                                                                          : LIM__REVOKE_CANCELLED);
    if (todo & LIM__EX_DO_SHUN)
        lim__ex_shun(x, self);
    if (todo & LIM__EX_DO_STICK)
        lim__ex_retire(x, self, OLD_STUCK, todo & LIM__EX_DO_LOSS);
    if ((todo & LIM__EX_DO_OUT_KILLER) && (todo & LIM__EX_DO_DROP_LEASE))
        lim__ex_retire(x, self, OLD_PAST, true); /* the list of those it was tried with is complete then */
    if (todo & LIM__EX_OUTCOMES)
        lim__ex_outcome(x, todo, now);
}

static void act_leases(exchange *x, uint32_t todo, occasion *now)
{
    lim_process *self = now->self;
    if (todo & (LIM__EX_DO_KEEP_LEASE | LIM__EX_DO_DROP_LEASE)) {
        if (x->state == LIM__EX_MUTE)
            lim__ex_release(x, self, x->current->lease); /* and it is still watched */
        else
            lim__ex_retire(x, self, todo & LIM__EX_DO_KEEP_LEASE ? OLD_SUSPENDED : OLD_PAST, todo & LIM__EX_DO_LOSS);
    }
    if (todo & LIM__EX_DO_DROP_OLD)
        lim__ex_drop_old(x, self, now->lease);
    if (todo & LIM__EX_DO_REVOKE_OLD)
        lim__ex_revoke_old(x, self);
    if (todo & LIM__EX_DO_RESUME)
        lim__ex_resume(x, now);
    if (todo & LIM__EX_DO_UNWANT)
        lim__ex_release(x, self, 0);
}

static void act(exchange *x, uint32_t todo, occasion *now)
{
    lim_process *self = now->self;
    act_first(x, todo, now);
    act_leases(x, todo, now);
    bool handed = !(todo & LIM__EX_DO_HAND) || lim__ex_hand(x, self);
    if ((todo & LIM__EX_DO_OFFER_TIMER) && handed && !x->durable) /* else it is handed over in a moment */
        lim__ex_offer_timer(x, self);
    if (todo & LIM__EX_DO_START)
        lim__ex_start(x, self);
    if (todo & LIM__EX_DO_PROGRESS)
        lim__ex_progress(x, self);
    if (todo & LIM__EX_DO_PART)
        lim__ex_part(x, now);
    if (todo & (LIM__EX_DO_WANT | LIM__EX_DO_LATER)) {
        uint64_t pause = todo & LIM__EX_DO_LATER ? now->pause_ns : 0;
        if (x->durable)
            x->extra->keep->due_wall_ns = pause != 0 ? x->bus->os->wall_ns(x->bus->os) + pause : 0;
        lim__ex_want(x, self, true, pause != 0 ? lim_now_ns(self) + pause : 0);
    }
    if (todo & LIM__EX_DO_END)
        finish(x, self);
    if (!handed)
        lim__ex_happens(x, LIM__EX_UNHANDED,
                        &(occasion){ .self = self, .refused = &(lim__refused){ .why = LIM_WHY_PARTICIPANT_FULL } });
}

/* Deliberate bugs, for the auditor to find. */
static uint32_t mutate(exchange *x, uint32_t todo, const occasion *now)
{
    if (LIM__MUTATION("accept_twice") && (todo & LIM__EX_DO_SETTLE_NOT) && now->answer != NULL)
        todo = (todo & ~(uint32_t)LIM__EX_DO_SETTLE_NOT) | LIM__EX_DO_SETTLE;
    if (LIM__MUTATION("lost_outcome") && (todo & LIM__EX_DO_OUT_CRASHED))
        todo &= ~(uint32_t)LIM__EX_OUTCOMES;
    if (LIM__MUTATION("double_outcome") && (todo & LIM__EX_DO_OUT_TIMEOUT))
        lim__ex_outcome(x, todo, &(occasion){ .self = now->self });
    if (LIM__MUTATION("forget_lost_task") && (todo & LIM__EX_DO_WANT) && is_task(x))
        todo &= ~(uint32_t)LIM__EX_DO_WANT;
    return todo;
}

/* ---- events ---- */

/* What the queue said of its tasks, to the one that the event is about. */
static const lim__policy *policy_of(const exchange *x, const occasion *now)
{
    const old_lease *old = now->lease != 0 ? lim__ex_old(x, now->lease) : NULL;
    return lim__ex_policy(old != NULL ? old->was : x->current);
}

static uint32_t losses_max(const exchange *x, const lim__policy *p)
{
    uint32_t max = x->open->losses_max != 0 ? x->open->losses_max : p->losses_max != 0 ? p->losses_max : 5;
    if (!is_task(x) || max > LIM__EX_OLD_MAX) /* asks: as long as there are others */
        return LIM__EX_OLD_MAX;
    return max;
}

static lim__ex_facts facts_of(const exchange *x, lim__ex_event e, const lim__policy *p)
{
    bool task = task_like(x), crowded = lim__ex_crowded(x);
    bool moves = is_task(x) || !x->durable || x->open->on_crash == LIM_CRASH_NEXT; /* to another one of the group */
    uint32_t stuck = lim__ex_stuck(x) - (e == LIM__EX_STUCK_DONE ? 1 : 0);
    bool draining = x->state == LIM__EX_DRAINING && x->current != NULL && e == LIM__EX_STUCK_DONE;
    return (lim__ex_facts){ .task = task,
                            .next = x->open->on_crash == LIM_CRASH_NEXT && (x->extra == NULL || x->extra->parts == 0),
                            .group = x->open->participant.id == 0 && moves,
                            .last_loss = crowded || x->losses + 1u >= losses_max(x, p),
                            .retry = is_task(x) && !crowded && x->attempts + 1u < p->attempts_max,
                            .report = x->open->flags & LIM__OPEN_REPORT,
                            .weary = x->untaken + 1u >= LIM__EX_UNTAKEN_MAX,
                            .others = stuck > 0 || draining };
}

void lim__ex_happens(exchange *x, lim__ex_event e, occasion *now)
{
    const lim__policy *policy = policy_of(x, now);
    lim__ex_facts facts = facts_of(x, e, policy);
    lim__ex_state before = (lim__ex_state)x->state, state = before;
    uint32_t todo = mutate(x, lim__ex_step(&state, e, &facts), now);
    x->state = (uint8_t)state;
    if (todo != 0 || x->state != before)
        trace(x, e, &facts, now);
    now->attempts_max = policy->attempts_max; /* now: who it was said to may be forgotten on the way */
    if (todo & LIM__EX_DO_LATER)
        now->pause_ns = lim__ex_pause_ns(x, policy, x->attempts + 1u);
    lim__ex_stop_timers(x, now->self, before);
    act(x, todo, now);
}

static void simply(exchange *x, lim_process *self, lim__ex_event e)
{
    lim__ex_happens(x, e, &(occasion){ .self = self });
}

/* ---- opening ---- */

/* Instead of a group: as if one had chosen it. */
static void assign_directly(exchange *x, lim_process *self)
{
    union {
        lim__assigned said;
        char room[sizeof(lim__assigned) + 24];
    } a = { .said = { .participant = x->open->participant, .lease = 1 } };
    a.said.identity_len = (uint8_t)snprintf(a.room + offsetof(lim__assigned, text), 24, "%llx",
                                            (unsigned long long)x->open->participant.id);
    x->current = lim__ex_given(x, self, &a.said);
    if (x->current == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    simply(x, self, LIM__EX_ASSIGNED);
}

/* Where it was made for what it is opened with. */
static lim__open *open_room(exchange *x)
{
    return (lim__open *)(void *)((char *)(x + 1) + LIM__EX_ROOM);
}

/* A copy: a letter that is kept takes more room, and the pool wants it back. */
static bool keep_open(exchange *x, lim_process *self, const lim_signal *signal)
{
    lim__open *letter = (lim__open *)(uintptr_t)signal->body.ptr;
    size_t bytes = lim__open_bytes(letter);
    x->roomy = lim__proc_state_bytes(self) == sizeof *x + LIM__EX_ROOM + bytes;
    x->open = x->roomy ? open_room(x) : lim__alloc(lim__proc_sched(self), bytes);
    if (x->open == NULL) {
        lim_exit(self, LIM_FAULT);
        return false;
    }
    memcpy(x->open, letter, bytes);
    letter->payload = NULL; /* ours now */
    letter->terms = NULL;
    x->payload_len = (uint32_t)lim__msg_bytes(x->open->payload).len;
    return true;
}

static void opened(exchange *x, lim_process *self, const lim_signal *signal)
{
    if (!keep_open(x, self, signal))
        return;
    const lim__terms *terms = lim__terms_or_default(x->open->terms);
    uint64_t now_ns = lim_now_ns(self), deadline = x->open->deadline_ns;
    lim__ex_trace(x, self, terms->trace);
    if (terms->hops > LIM_HOPS_MAX) {
        lim__ex_happens(x, LIM__EX_REFUSED,
                        &(occasion){ .self = self,
                                     .refused = &(lim__refused){
                                         .why = LIM_WHY_HOP_LIMIT, .limit = LIM_HOPS_MAX, .current = terms->hops } });
        return;
    }
    lim__open_carry_trace(x->open);
    if (x->keeping && x->extra->keep->relive != NULL) {
        lim__ex_relived(x, self);
        return;
    }
    bool stream = terms->window > 0 && !is_task(x);
    if (stream && lim__ex_extra(x, self) != NULL)
        x->extra->granted = terms->window;
    if ((stream && x->extra == NULL) ||
        (deadline != UINT64_MAX && lim__deadline_set(self, deadline > now_ns ? deadline - now_ns : 0) != LIM_OK)) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    if (x->open->participant.id == 0 || x->open->group_len > 0)
        lim__ex_want(x, self, false, 0);
    else
        assign_directly(x, self);
}

/* ---- the group's words ---- */

/* The group's first word: from here on it is stored. */
static bool keep_from_now(exchange *x, lim_process *self, const lim__policy *policy, uint64_t remember_ns)
{
    bool durable = lim__terms_or_default(x->open->terms)->durable || (policy->durable && is_task(x));
    if (!durable || x->durable)
        return true;
    if (!lim__ex_make_durable(x, self)) {
        lim_exit(self, LIM_FAULT);
        return false;
    }
    keep *k = x->extra->keep;
    const lim__terms *terms = lim__terms_or_default(x->open->terms);
    uint64_t now_wall = x->bus->os->wall_ns(x->bus->os);
    k->order = atomic_fetch_add(&x->bus->next_order, 1);
    k->due_wall_ns = is_task(x) && terms->delay_ns != 0 ? now_wall + terms->delay_ns : 0;
    k->seen_until_wall_ns = is_task(x) && terms->idempotency_key.len > 0 ? now_wall + remember_ns : 0;
    return true;
}

static void assigned(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__assigned *a = signal->body.ptr;
    if (x->state != LIM__EX_PLACING || a->wish != x->wish) {
        lim__ex_release(x, self, a->lease); /* it came back before the group had heard: give the place back */
        return;
    }
    LIM_ASSERT(x->current == NULL);
    lim__ex_trace(x, self, a->policy.trace);
    if (!keep_from_now(x, self, &a->policy, a->remember_ns))
        return;
    x->current = lim__ex_given(x, self, a);
    if (x->current == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    x->group = signal->from; /* not always the one that was asked: a retired group passes on */
    lim__ex_admit(x, self, lim_self(self), &(lim_admission){ .verdict = LIM_ACCEPT });
    simply(x, self, LIM__EX_ASSIGNED);
}

static void queued(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__queued *q = signal->body.ptr;
    x->group = signal->from;
    if (!keep_from_now(x, self, &q->policy, q->remember_ns))
        return;
    lim__ex_trace(x, self, q->policy.trace);
    lim__ex_admit(x, self, lim_self(self), &q->admission);
}

/* ---- the participants' words ---- */

typedef enum whose {
    NOBODYS = 1,
    CURRENT,
    CLAIMED, /* the current one, somebody else says */
    VACANT,  /* the current one; who had it before the restart comes back under a new pid */
    SUSPENDED,
    STUCK
} whose;

static whose whose_lease(const exchange *x, uint64_t lease, lim_pid from)
{
    if (x->current != NULL && x->current->lease == lease)
        return x->current->participant.id == from.id ? CURRENT
               : x->current->participant.id == 0     ? VACANT
               : is_task(x)                          ? CLAIMED
                                                     : NOBODYS;
    const old_lease *old = lim__ex_old(x, lease);
    if (old == NULL)
        return NOBODYS;
    if (old->is == OLD_SUSPENDED)
        return SUSPENDED;
    return old->was->participant.id == from.id ? STUCK : NOBODYS;
}

/* The letter is heard once the current participant has been found dead. One at a time; but who said that it holds it
 * may have done it before that. */
static bool hear_later(exchange *x, lim_process *self, const lim_signal *signal)
{
    extra *e = lim__ex_extra(x, self);
    if (e == NULL || (e->claimed != NULL && (e->claim != &lim__type_holding || e->claim_from.id != signal->from.id ||
                                             signal->type != &lim__type_answer)))
        return false;
    lim__letter_free(lim__proc_sched(self), e->claimed);
    e->claim = signal->type;
    e->claim_from = signal->from;
    e->claimed = lim__letter_keep(self, signal);
    return true;
}

/* A lease of before the break: whose it is its group knows, by identity and session. True: it was asked, and the letter
 * is heard again with its word. */
static bool ask_who(exchange *x, lim_process *self, const lim_signal *signal, lim_pid who, uint64_t lease)
{
    lim__sched *s = lim__proc_sched(self);
    const keep *k = x->keeping ? x->extra->keep : NULL;
    if (k != NULL && k->vouched.id != 0 && k->vouched_lease == lease)
        return false; /* this is that letter */
    lim__vouch *v = lim__ex_keep(x, self) != NULL ? lim__letter_new(s, &lim__type_vouch, sizeof *v) : NULL;
    if (v == NULL)
        return false;
    *v = (lim__vouch){ lease, who };
    if (lim__send_reserved(self, x->group, v) != LIM_OK)
        return false;
    lim__ex_pause_signal(x, self, signal, PAUSE_VOUCHED);
    return true;
}

/* Whose it is, by all that can be known. False: that is not known yet. */
static bool judge(exchange *x, lim_process *self, const lim_signal *signal, lim_pid who, uint64_t lease, whose *out)
{
    *out = whose_lease(x, lease, who);
    if (*out != VACANT && *out != SUSPENDED)
        return true;
    if (ask_who(x, self, signal, who, lease))
        return false;
    if (!lim__ex_vouched(x, who, lease))
        *out = NOBODYS;
    else if (*out == VACANT)
        lim__ex_occupy(x, self, who);
    if (*out == VACANT)
        *out = CURRENT;
    return true;
}

bool lim__ex_answerable(exchange *x, lim_process *self, const lim_signal *signal, lim_pid from, uint64_t lease,
                        bool *out)
{
    whose it;
    if (!judge(x, self, signal, from, lease, &it))
        return false;
    *out = it == CURRENT && (x->state == LIM__EX_HELD || x->state == LIM__EX_OFFERED);
    return true;
}

static void answered(exchange *x, lim_process *self, lim__answer *a, const lim_signal *signal)
{
    occasion now = { .self = self, .answer = a, .speaker = a->from, .lease = a->lease };
    bool silent = a->how == LIM__ANSWER_NOTHING, failed = a->how == LIM__ANSWER_FAILED;
    whose it;
    if (!judge(x, self, signal, a->from, a->lease, &it))
        return;
    switch (it) {
    case VACANT:
    case CURRENT:
        lim__ex_happens(x, silent ? LIM__EX_SILENT : failed ? LIM__EX_FAILED : LIM__EX_ANSWERED, &now);
        return;
    case SUSPENDED:
        if (silent)
            break;
        lim__ex_happens(x, failed ? LIM__EX_FAILED_OLD : LIM__EX_ANSWERED_OLD, &now);
        return;
    case STUCK:
        now.answer = silent ? NULL : a;
        lim__ex_happens(x, LIM__EX_STUCK_DONE, &now);
        return;
    case CLAIMED:
        if (hear_later(x, self, signal))
            return;
        break;
    case NOBODYS:
        break;
    }
    lim__ex_settle(x, &now, false);
}

static void holding(exchange *x, lim_process *self, lim__holding *h, const lim_signal *signal)
{
    occasion now = { .self = self, .holding = h, .speaker = h->participant, .lease = h->lease };
    whose it;
    bool vacant = x->current != NULL && x->current->participant.id == 0;
    if (!judge(x, self, signal, h->participant, h->lease, &it))
        return;
    if (it == CURRENT && vacant && x->state == LIM__EX_HELD)
        lim__ex_start(x, self);
    else if (it == SUSPENDED || (it == CURRENT && vacant))
        lim__ex_happens(x, LIM__EX_HOLDING, &now);
    else if (it != CURRENT && !(it == CLAIMED && hear_later(x, self, signal)))
        lim__ex_settle(x, &now, false);
}

static void hear_claimed(exchange *x, lim_process *self)
{
    void *letter = x->extra != NULL ? x->extra->claimed : NULL;
    if (letter == NULL)
        return;
    lim_signal signal = {
        .kind = LIM_SIGNAL_MESSAGE, .from = x->extra->claim_from, .body = { letter, 1 }, .type = x->extra->claim
    };
    x->extra->claimed = NULL;
    lim__letter_replay(self, &signal, letter, lim__ex_hear_again, x);
}

static bool from_current(const exchange *x, lim_pid from, uint64_t lease)
{
    return whose_lease(x, lease, from) == CURRENT;
}

static void taken(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__taken *t = signal->body.ptr;
    lim_pid from = signal->from;
    if (from.id == 0 && x->current != NULL) /* a host thread of this very program took it out of the box */
        from = x->current->participant;
    if (!from_current(x, from, t->lease))
        return;
    x->taken = x->was_taken = true;
    x->untaken = 0;
    simply(x, self, LIM__EX_TAKEN);
}

void lim__exchange_taken(lim_process *exchange_process, uint64_t lease)
{
    exchange *x = lim__proc_state(exchange_process);
    if (x->open != NULL && x->current != NULL && x->current->lease == lease)
        x->taken = x->was_taken = true;
}

static void part(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__part *p = signal->body.ptr;
    if (!from_current(x, p->from, p->lease))
        return;
    bool granted = x->extra != NULL && x->extra->granted > 0;
    lim__ex_happens(x, granted ? LIM__EX_PART : LIM__EX_OVERRUN, &(occasion){ .self = self, .part = p });
}

static void progress(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__progress *p = signal->body.ptr;
    if (!from_current(x, p->from, p->lease) || x->state != LIM__EX_HELD)
        return;
    extra *e = lim__ex_extra(x, self);
    if (e != NULL) {
        lim__letter_free(lim__proc_sched(self), e->note);
        e->note = lim__letter_keep(self, signal);
    }
    simply(x, self, LIM__EX_PROGRESS);
}

/* ---- others' words ---- */

static void await(exchange *x, lim_process *self, const lim__command *c)
{
    extra *e = lim__ex_extra(x, self);
    if (e != NULL)
        lim__waiter_add(&e->waiters, self, c);
}

static void on_others_message(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    if (t == &lim__type_cancel || t == &lim__type_close)
        simply(x, self, LIM__EX_CANCEL);
    else if (t == &lim__type_grant && (signal->from.id == 0 || signal->from.id == x->open->owner.id))
        lim__ex_credit(x, self, ((const lim__grant *)signal->body.ptr)->parts);
    else if (t == &lim__type_signal_in)
        lim__ex_signal(x, self, signal);
    else if (t == &lim__type_await)
        await(x, self, signal->body.ptr);
    else if (t == &lim__type_unawait && x->extra != NULL)
        lim__waiter_remove(&x->extra->waiters, self, signal->body.ptr);
    else if (t == &lim__type_inspect)
        lim__ex_inspect(x, self, signal);
    else
        lim__conv_not_a_talk(self, signal);
}

static void on_message(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    void *body = (void *)(uintptr_t)signal->body.ptr;
    if (t == &lim__type_open)
        opened(x, self, signal);
    else if (t == &lim__type_relive)
        lim__ex_relive(x, self, signal);
    else if (x->open == NULL)
        return; /* killed before it was told what for */
    else if (t == &lim__type_answer)
        answered(x, self, body, signal);
    else if (t == &lim__type_assigned)
        assigned(x, self, signal);
    else if (t == &lim__type_taken)
        taken(x, self, signal);
    else if (t == &lim__type_queued)
        queued(x, self, signal);
    else if (t == &lim__type_refused && x->state == LIM__EX_PLACING)
        lim__ex_happens(x, LIM__EX_REFUSED, &(occasion){ .self = self, .refused = body });
    else if (t == &lim__type_stands_for)
        lim__ex_stands(x, self, signal);
    else if (t == &lim__type_outcome)
        lim__ex_followed(x, self, signal->from, body);
    else if (t == &lim__type_holding)
        holding(x, self, body, signal);
    else if (t == &lim__type_part)
        part(x, self, signal);
    else if (t == &lim__type_progress)
        progress(x, self, signal);
    else if (t == &lim__type_vacated)
        lim__ex_vacated(x, self, ((const lim__vacated *)body)->lease);
    else if (t == &lim__type_revived)
        lim__ex_revived(x, self, body);
    else if (t == &lim__type_sound)
        lim__ex_sound(x, self, signal);
    else if (!lim__ex_step_reply(x, self, signal))
        on_others_message(x, self, signal);
}

/* ---- ends and timers ---- */

/* Replaced: the same worker over another connection; its leases stay its own. */
static bool may_return(lim_reason reason)
{
    return reason == LIM_LOST || reason == LIM_SILENT || reason == LIM_REPLACED;
}

static void participant_gone(exchange *x, lim_process *self, const lim_signal *signal)
{
    lim_pid who = signal->from;
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count;) {
        const old_lease *o = &troubled(x)->old[i];
        if (o->is == OLD_STUCK && o->was->participant.id == who.id) {
            lim__ex_happens(x, LIM__EX_STUCK_DONE, &(occasion){ .self = self, .lease = o->was->lease });
            i = 0;
        } else {
            i++;
        }
    }
    if (x->current == NULL || x->current->participant.id != who.id)
        return;
    trouble *t = lim__ex_trouble(x, self);
    if (t != NULL)
        t->last_reason = signal->reason;
    lim__ex_happens(x, may_return(signal->reason) && (is_task(x) || !x->durable) ? LIM__EX_LOST : LIM__EX_LEFT,
                    &(occasion){ .self = self, .at_ns = signal->at_ns });
    hear_claimed(x, self);
}

static void on_exit_signal(exchange *x, lim_process *self, const lim_signal *signal)
{
    if (x->open == NULL)
        lim_exit(self, LIM_SHUTDOWN);
    else if (signal->from.id == x->open->owner.id)
        simply(x, self, LIM__EX_OWNER_GONE);
    else
        participant_gone(x, self, signal);
}

static void on_timer(exchange *x, lim_process *self, const lim_signal *signal)
{
    uint64_t none = 0;
    uint64_t *slow = x->extra != NULL ? &x->extra->slow_timer : &none;
    uint64_t *stalled = x->extra != NULL ? &x->extra->progress_timer : &none;
    if (signal->tag == LIM__EX_TAG_DEADLINE) {
        simply(x, self, LIM__EX_DEADLINE);
    } else if (signal->tag == LIM__EX_TAG_KEEP) {
        lim__ex_grace_over(x, self, signal->ref);
    } else if (signal->ref == x->offer_timer) {
        x->offer_timer = 0;
        x->untaken += x->untaken < UINT8_MAX;
        trouble *t = lim__ex_trouble(x, self);
        if (t != NULL)
            t->last_reason = LIM_SILENT;
        simply(x, self, LIM__EX_UNTAKEN);
    } else if (signal->ref == *slow) {
        *slow = 0;
        simply(x, self, LIM__EX_SLOW);
    } else if (signal->ref == *stalled) {
        *stalled = 0;
        trouble *t = lim__ex_trouble(x, self);
        if (t != NULL)
            t->last_reason = LIM_SILENT;
        simply(x, self, LIM__EX_STALLED);
    }
}

void lim__ex_hear(exchange *x, lim_process *self, const lim_signal *signal)
{
    switch (signal->kind) {
    case LIM_SIGNAL_MESSAGE:
        if (signal->type != NULL)
            on_message(x, self, signal);
        return;
    case LIM_SIGNAL_EXIT:
        on_exit_signal(x, self, signal);
        return;
    case LIM_SIGNAL_TIMER:
        on_timer(x, self, signal);
        return;
    case LIM_SIGNAL_DOWN:
        lim__ex_followed_is_gone(x, self, signal);
        return;
    case LIM_SIGNAL_RESPONSE:
        return;
    }
}

void lim__ex_hear_again(lim_process *self, const lim_signal *signal, void *state)
{
    lim__ex_hear(state, self, signal);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    exchange *x = state;
    if (x->state == 0) {
        lim__conv_enter(x->bus, self, &x->node);
        x->state = LIM__EX_PLACING;
    }
    if (LIM_UNLIKELY(x->keeping)) {
        lim__ex_kept_signal(x, self, signal);
        return;
    }
    lim__ex_hear(x, self, signal);
    if (LIM_UNLIKELY(x->keeping))
        lim__ex_store(x, self);
}

static void extra_free(extra *e, lim__sched *s)
{
    lim__waiters_free(e->waiters, s);
    for (kept_signal *k = e->signals, *next; k != NULL; k = next) {
        next = k->next;
        lim__letter_free(s, k->letter);
        lim__free(s, k, sizeof *k);
    }
    lim__letter_free(s, e->claimed);
    lim__letter_free(s, e->note);
    lim__free(s, e->trouble, sizeof *e->trouble);
    lim__history_end(e->history);
    lim__free(s, e, sizeof *e);
}

static void on_end(void *state, lim_reason reason)
{
    exchange *x = state;
    lim__sched *s = lim__sched_current();
    (void)reason;
    lim__conv_leave(x->bus, &x->node);
    if (x->keeping)
        lim__ex_keep_free(x, NULL);
    if (x->open != NULL) {
        lim__msg_unref(x->open->payload);
        lim__terms_unref(x->open->terms);
        if (!x->roomy)
            lim__free(s, x->open, lim__open_bytes(x->open));
    }
    lim__ex_given_free(x, s, x->current);
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count; i++)
        lim__ex_given_free(x, s, troubled(x)->old[i].was);
    if (x->extra != NULL)
        extra_free(x->extra, s);
}

lim_spawn_opts lim__exchange_spawn(lim_bus *const *bus, bool link, const lim__open *open)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "exchange",
                             .on_signal = on_signal,
                             .on_end = on_end,
                             .state_bytes =
                                 sizeof(exchange) + (open != NULL ? LIM__EX_ROOM + lim__open_bytes(open) : 0),
                             .init = bus,
                             .init_bytes = sizeof *bus,
                             .mailbox_max = 64,
                             .trap_exit = true,
                             .link = link };
}
