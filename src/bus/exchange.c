/* SPDX-License-Identifier: Apache-2.0
 * exchange.c - the conversation behind every ask and every task: a process that acts out exchange_step.c.
 *
 * It is linked to its owner (asks) and to the participant that has the request, before the request is sent. It traps
 * exits, so a death is one event among others. The group watches it: whatever it holds there is given back when it
 * ends, however it ends.
 *
 * What is in hand is described by the letter in which the group assigned it (`current`: participant, lease, identity,
 * router); letters of those that lost it are kept in `trouble`, which exists only once something went wrong. */
#include "bus/exchange.h"
#include "base/base.h"
#include "bus/bus.h"
#include "bus/conv.h"
#include "bus/letters.h"
#include <stdio.h>

enum { GONE_MAX = LIM__EXCLUDED_MAX, SHUN_MAX = 4, OFFER_MS = 1000 };
enum { TAG_DEADLINE = 1, TAG_OFFER };

typedef struct waiter {
    struct waiter *next;
    lim_pid who;
    uint64_t ref;
} waiter;

typedef struct trouble { /* what only exchanges know that did not go well */
    struct {
        lim__assigned *was;
        bool suspended; /* it may come back with the result */
    } gone[GONE_MAX];
    uint32_t gone_count;
    lim_pid shun[SHUN_MAX];
    uint32_t shun_count;
    uint64_t crashed_ns, crashed_wall_us, rerouted_ns;
} trouble;

typedef struct exchange {
    lim_bus *bus;
    lim__conv_node node;
    lim__open *open;
    lim__ex_state state;
    lim__assigned *current;
    lim_pid group;
    trouble *trouble;
    waiter *waiters;
    uint64_t deadline_timer, offer_timer;
    lim_reason last_reason;
    uint16_t attempts, losses;
    bool admitted, taken; /* told the dispatcher; acknowledged by the current participant */
    bool was_taken;       /* acknowledged by anybody */
} exchange;

/* What the event at hand carries, for the effects. */
typedef struct occasion {
    lim_process *self;
    lim__answer *answer;   /* ANSWERED*, SILENT */
    lim__holding *holding; /* HOLDING */
    lim__refused *refused; /* REFUSED */
    uint64_t at_ns;        /* LEFT, LOST: when it was observed */
    lim_pid speaker;       /* who answered or came back */
    uint64_t lease;
} occasion;

static lim_bytes group_name(const lim__open *o)
{
    return lim__bytes(o->text, o->group_len);
}
static lim_bytes type_name(const lim__open *o)
{
    return lim__bytes(o->text + o->group_len, o->type_len);
}
static bool is_task(const exchange *x)
{
    return x->open->kind == LIM__KIND_TASK;
}

static trouble *trouble_of(exchange *x, lim_process *self)
{
    if (x->trouble == NULL) {
        x->trouble = lim__alloc(lim__proc_sched(self), sizeof *x->trouble);
        if (x->trouble != NULL)
            memset(x->trouble, 0, sizeof *x->trouble);
    }
    return x->trouble;
}

/* ---- outcome ---- */

static size_t excluded_bytes(const exchange *x)
{
    size_t bytes = 0;
    for (uint32_t i = 0; x->trouble != NULL && i < x->trouble->gone_count; i++)
        bytes += 1u + x->trouble->gone[i].was->identity_len;
    return bytes;
}

static lim__outcome_letter *outcome_new(exchange *x, lim_process *self, lim__assigned *by, lim_bytes detail)
{
    size_t names = excluded_bytes(x);
    size_t text = (by != NULL ? (size_t)by->identity_len + by->router_len : 0) + detail.len + names;
    lim__outcome_letter *o = lim__letter_new(lim__proc_sched(self), &lim__type_outcome, sizeof *o + text);
    if (o == NULL)
        return NULL;
    *o = (lim__outcome_letter){
        .ref = x->open->ref, .conv = lim_self(self), .attempts = x->attempts, .losses = x->losses
    };
    char *at = o->text;
    if (by != NULL) {
        o->participant_len = by->identity_len;
        o->router_len = by->router_len;
        memcpy(at, by->text, (size_t)by->identity_len + by->router_len);
        at += (size_t)by->identity_len + by->router_len;
    }
    o->detail_len = (uint16_t)detail.len;
    if (detail.len > 0)
        memcpy(at, detail.ptr, detail.len);
    at += detail.len;
    o->excluded_bytes = (uint16_t)names;
    for (uint32_t i = 0; x->trouble != NULL && i < x->trouble->gone_count; i++, o->excluded_count++)
        at += lim__name_put(at, lim__bytes(x->trouble->gone[i].was->text, x->trouble->gone[i].was->identity_len));
    o->elapsed_ns = lim_now_ns(self) - x->open->opened_ns;
    if (x->trouble != NULL) {
        o->crashed_ns = x->trouble->crashed_ns;
        o->crashed_wall_us = x->trouble->crashed_wall_us;
        o->rerouted_ns = x->trouble->rerouted_ns;
    }
    return o;
}

static lim_handed handed(const exchange *x)
{
    if (x->was_taken)
        return LIM_HANDED_YES;
    bool tried = x->losses > 0 || (x->trouble != NULL && x->trouble->gone_count > 0);
    return x->current != NULL || tried ? LIM_HANDED_UNKNOWN : LIM_HANDED_NO;
}

static void fill_answer(lim__outcome_letter *o, lim__answer *a, exchange *x)
{
    o->handed_over = LIM_HANDED_YES;
    if (a->how == LIM__ANSWER_REPLY) {
        o->how = LIM_HOW_REPLY;
        o->payload = lim__msg_ref(a->payload);
    } else {
        o->how = LIM_HOW_FAILED;
        o->attempts = ++x->attempts;
    }
}

static void fill_outcome(exchange *x, uint32_t todo, const occasion *now, lim__outcome_letter *o)
{
    o->handed_over = handed(x);
    if (todo & LIM__EX_DO_OUT_ANSWER) {
        fill_answer(o, now->answer, x);
    } else if (todo & LIM__EX_DO_OUT_REFUSED) {
        o->how = x->losses > 0 ? LIM_HOW_CRASHED : LIM_HOW_REFUSED;
        o->reason = x->last_reason;
        o->why = now->refused->why;
        o->limit = now->refused->limit;
        o->current = now->refused->current;
        o->retry_after_ms = now->refused->retry_after_ms;
    } else if (todo & LIM__EX_DO_OUT_CRASHED) {
        o->how = LIM_HOW_CRASHED;
        o->reason = x->last_reason;
    } else if (todo & LIM__EX_DO_OUT_KILLER) {
        o->how = LIM_HOW_CRASHED;
        o->reason = x->last_reason;
        o->why = LIM_WHY_KILLS_WORKERS;
    } else if (todo & LIM__EX_DO_OUT_TIMEOUT) {
        o->how = LIM_HOW_TIMEOUT;
    } else {
        LIM_ASSERT(todo & LIM__EX_DO_OUT_CANCELLED);
        o->how = LIM_HOW_CANCELLED;
    }
}

static lim_bytes outcome_detail(uint32_t todo, const occasion *now)
{
    if (todo & LIM__EX_DO_OUT_ANSWER)
        return lim__bytes(now->answer->detail, now->answer->detail_len);
    if (todo & LIM__EX_DO_OUT_REFUSED)
        return lim__bytes(now->refused->detail, now->refused->detail_len);
    return lim__bytes(NULL, 0);
}

static void tell(lim_process *self, const lim__outcome_letter *o, size_t bytes, lim_pid who, uint64_t ref)
{
    lim__outcome_letter *copy = lim__letter_new(lim__proc_sched(self), &lim__type_outcome, bytes);
    if (copy == NULL)
        return; /* the waiter's link to this process tells it */
    memcpy(copy, o, bytes);
    copy->ref = ref;
    copy->payload = lim__msg_ref(o->payload);
    (void)!lim__send_reserved(self, who, copy);
}

/* Who answered: for an answer under a suspended lease, the one that had it. */
static lim__assigned *speaker(exchange *x, const occasion *now)
{
    if (x->current != NULL && (now->answer == NULL || x->current->lease == now->lease))
        return x->current;
    trouble *t = x->trouble;
    for (uint32_t i = 0; t != NULL && now->answer != NULL && i < t->gone_count; i++)
        if (t->gone[i].was->lease == now->lease)
            return t->gone[i].was;
    return t != NULL && t->gone_count > 0 ? t->gone[t->gone_count - 1].was : NULL;
}

static void send_outcome(exchange *x, uint32_t todo, occasion *now)
{
    lim_process *self = now->self;
    lim_bytes detail = outcome_detail(todo, now);
    lim__outcome_letter *o = outcome_new(x, self, speaker(x, now), detail);
    if (o == NULL) {
        lim_exit(self, LIM_FAULT); /* the owner is linked: it still learns that this ended */
        return;
    }
    fill_outcome(x, todo, now, o);
    if (x->bus->ear.on_outcome != NULL)
        x->bus->ear.on_outcome(x->bus->ear.ctx, lim_self(self).id);
    size_t bytes = sizeof *o + o->participant_len + o->router_len + o->detail_len + o->excluded_bytes;
    for (waiter *w = x->waiters, *next; w != NULL; w = next) {
        next = w->next;
        tell(self, o, bytes, w->who, w->ref);
        lim__free(lim__proc_sched(self), w, sizeof *w);
    }
    x->waiters = NULL;
    lim__ended_add(x->bus, lim__proc_sched(self), x->open->kind,
                   o->how == LIM_HOW_REPLY ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN, now->answer != NULL ? now->lease : 0,
                   o, bytes);
    if (!is_task(x) || (x->open->flags & LIM__OPEN_REPORT))
        (void)!lim__send_reserved(self, x->open->owner, o);
    else
        lim__letter_free(lim__proc_sched(self), o);
}

/* ---- effects ---- */

static void admit(exchange *x, lim_process *self, const lim_admission *admission)
{
    if (!is_task(x) || x->admitted)
        return;
    x->admitted = true;
    lim__admitted *a = lim__letter_new(lim__proc_sched(self), &lim__type_admitted, sizeof *a);
    if (a == NULL)
        return;
    *a = (lim__admitted){ x->open->ref, lim_self(self), *admission };
    (void)!lim__send_reserved(self, x->open->owner, a);
}

static void refuse_here(exchange *x, lim_process *self, lim_why why);
static void release(exchange *x, lim_process *self, uint64_t lease);

static void want(exchange *x, lim_process *self, bool again)
{
    lim_err err = LIM_OK;
    x->group = lim__group_find(x->bus, group_name(x->open));
    if (x->group.id == 0 && (is_task(x) || (x->open->flags & LIM__OPEN_WAIT)))
        err = lim__group_get(x->bus, self, group_name(x->open), &x->group);
    if (err != LIM_OK || x->group.id == 0) {
        refuse_here(x, self,
                    err == LIM_OK          ? LIM_WHY_NO_PARTICIPANT
                    : err == LIM_E_INVALID ? LIM_WHY_BAD_NAME
                                           : LIM_WHY_MEMORY);
        return;
    }
    lim_bytes type = type_name(x->open);
    lim__want *w = lim__letter_new(lim__proc_sched(self), &lim__type_want, sizeof *w + type.len);
    if (w == NULL) {
        refuse_here(x, self, LIM_WHY_MEMORY);
        return;
    }
    *w = (lim__want){ .conv = lim_self(self),
                      .kind = x->open->kind,
                      .wait = x->open->flags & LIM__OPEN_WAIT,
                      .again = again,
                      .payload = lim__msg_ref(x->open->payload),
                      .type_len = (uint8_t)type.len };
    if (x->trouble != NULL) {
        w->shun_count = (uint8_t)x->trouble->shun_count;
        memcpy(w->shun, x->trouble->shun, sizeof w->shun);
    }
    if (type.len > 0)
        memcpy(w->type, type.ptr, type.len);
    lim_err sent = lim__send(self, x->group, w);
    if (sent != LIM_OK)
        refuse_here(x, self, sent == LIM_E_FULL ? LIM_WHY_QUEUE_FULL : LIM_WHY_NO_PARTICIPANT);
}

static void hand(exchange *x, lim_process *self)
{
    lim_bytes type = type_name(x->open);
    x->taken = false;
    /* Linked before the request leaves: from here on its death is an event of ours. A dead one answers `noproc`. */
    lim__request *r = NULL;
    if (lim_link(self, x->current->participant) == LIM_OK)
        r = lim__letter_new(lim__proc_sched(self), &lim__type_request, sizeof *r + type.len);
    if (r == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    *r = (lim__request){ .conv = lim_self(self),
                         .lease = x->current->lease,
                         .deadline_ns = x->open->deadline_ns,
                         .payload = lim__msg_ref(x->open->payload),
                         .attempt = (uint16_t)(x->attempts + 1),
                         .losses = x->losses,
                         .type_len = (uint8_t)type.len,
                         .flags = is_task(x) ? LIM__REQUEST_ACK : 0 };
    if (type.len > 0)
        memcpy(r->type, type.ptr, type.len);
    if (lim__send(self, x->current->participant, r) != LIM_E_FULL)
        return;
    lim_unlink(self, x->current->participant); /* it was handed to nobody */
    release(x, self, x->current->lease);
    lim__letter_free(lim__proc_sched(self), x->current);
    x->current = NULL;
    refuse_here(x, self, LIM_WHY_PARTICIPANT_FULL);
}

static void send_revoke(lim_process *self, lim_pid to, uint64_t lease, lim__revoke_why why)
{
    lim__revoke *r = lim__letter_new(lim__proc_sched(self), &lim__type_revoke, sizeof *r);
    if (r == NULL)
        return;
    *r = (lim__revoke){ lim_self(self), lease, why };
    (void)!lim__send_reserved(self, to, r);
}

static void release(exchange *x, lim_process *self, uint64_t lease)
{
    if (x->group.id == 0)
        return;
    lim__release *r = lim__letter_new(lim__proc_sched(self), &lim__type_release, sizeof *r);
    if (r == NULL)
        return; /* the group gives it back when this process ends */
    *r = (lim__release){ lease };
    (void)!lim__send_reserved(self, x->group, r);
}

/* The current lease leaves our hands: into `gone`, suspended or not. */
static void retire_current(exchange *x, occasion *now, bool suspended)
{
    if (x->current == NULL)
        return;
    lim_unlink(now->self, x->current->participant);
    trouble *t = trouble_of(x, now->self);
    for (uint32_t i = 0; suspended && t != NULL && t->gone_count == GONE_MAX && i < GONE_MAX; i++)
        if (!t->gone[i].suspended) { /* a name of the past makes room for one that may come back */
            lim__letter_free(lim__proc_sched(now->self), t->gone[i].was);
            t->gone[i] = t->gone[--t->gone_count];
        }
    if (t == NULL || t->gone_count == GONE_MAX) {
        release(x, now->self, x->current->lease);
        lim__letter_free(lim__proc_sched(now->self), x->current);
    } else {
        if (!suspended)
            release(x, now->self, x->current->lease);
        t->gone[t->gone_count].was = x->current;
        t->gone[t->gone_count++].suspended = suspended;
    }
    x->current = NULL;
}

static void count_loss(exchange *x, occasion *now)
{
    x->losses++;
    trouble *t = trouble_of(x, now->self);
    if (t == NULL)
        return;
    t->crashed_ns = now->at_ns != 0 ? now->at_ns : lim_now_ns(now->self);
    t->crashed_wall_us = x->bus->os->wall_ns(x->bus->os) / 1000;
    t->rerouted_ns = 0;
}

static void revoke_old(exchange *x, lim_process *self)
{
    trouble *t = x->trouble;
    if (t == NULL)
        return;
    for (uint32_t i = 0; i < t->gone_count; i++)
        if (t->gone[i].suspended) {
            t->gone[i].suspended = false;
            send_revoke(self, t->gone[i].was->participant, t->gone[i].was->lease, LIM__REVOKE_TAKEN);
            release(x, self, t->gone[i].was->lease);
        }
    if (t->crashed_ns != 0 && t->rerouted_ns == 0)
        t->rerouted_ns = lim_now_ns(self) - t->crashed_ns;
}

/* One that was away has come back, under a new pid. */
static void resume(exchange *x, occasion *now)
{
    trouble *t = x->trouble;
    LIM_ASSERT(t != NULL && x->current == NULL);
    for (uint32_t i = 0; i < t->gone_count; i++)
        if (t->gone[i].was->lease == now->lease) {
            x->current = t->gone[i].was;
            t->gone[i] = t->gone[--t->gone_count];
            break;
        }
    LIM_ASSERT(x->current != NULL);
    x->current->participant = now->speaker;
    x->taken = x->was_taken = true;
    if (t->crashed_ns != 0)
        t->rerouted_ns = lim_now_ns(now->self) - t->crashed_ns;
    if (lim_link(now->self, now->speaker) != LIM_OK)
        lim_exit(now->self, LIM_FAULT);
}

static void settle(exchange *x, occasion *now, bool accepted)
{
    lim_process *self = now->self;
    if (x->bus->ear.on_settled != NULL && is_task(x) && now->answer != NULL)
        x->bus->ear.on_settled(x->bus->ear.ctx, lim_self(self).id, now->lease, accepted);
    if (!accepted && now->holding != NULL) {
        send_revoke(self, now->speaker, now->lease, LIM__REVOKE_TAKEN);
        return;
    }
    lim__settled *s = lim__letter_new(lim__proc_sched(self), &lim__type_settled, sizeof *s);
    if (s == NULL)
        return;
    *s = (lim__settled){ lim_self(self), now->lease, accepted };
    (void)!lim__send_reserved(self, now->speaker, s);
}

static void finish(exchange *x, lim_process *self)
{
    /* Unlinked first: those who only had to do with a normal end need not hear of it. */
    if (!is_task(x))
        lim_unlink(self, x->open->owner);
    if (x->current != NULL)
        lim_unlink(self, x->current->participant);
    lim_exit(self, LIM_NORMAL);
}

static void act(exchange *x, uint32_t todo, occasion *now)
{
    lim_process *self = now->self;
    if (todo & LIM__EX_DO_LOSS)
        count_loss(x, now);
    if ((todo & LIM__EX_DO_SETTLE) && is_task(x)) /* who answers an ask keeps nothing: the first answer counts */
        settle(x, now, true);
    if (todo & LIM__EX_DO_SETTLE_NOT)
        settle(x, now, false);
    if ((todo & LIM__EX_DO_REVOKE) && x->current != NULL)
        send_revoke(self, x->current->participant, x->current->lease,
                    todo & LIM__EX_DO_OUT_TIMEOUT ? LIM__REVOKE_TIMEOUT : LIM__REVOKE_CANCELLED);
    if (todo & LIM__EX_DO_SHUN) {
        trouble *t = trouble_of(x, self);
        if (t != NULL && x->current != NULL)
            t->shun[t->shun_count++ % SHUN_MAX] = x->current->participant;
        if (t != NULL && t->shun_count > SHUN_MAX)
            t->shun_count = SHUN_MAX;
    }
    if (todo & LIM__EX_DO_OUT_KILLER)
        retire_current(x, now, false); /* the list of those it was tried with is complete then */
    if (todo & LIM__EX_OUTCOMES)
        send_outcome(x, todo, now);
    if (todo & (LIM__EX_DO_KEEP_LEASE | LIM__EX_DO_DROP_LEASE)) {
        if (x->state == LIM__EX_MUTE)
            release(x, self, x->current->lease);
        else
            retire_current(x, now, todo & LIM__EX_DO_KEEP_LEASE);
    }
    if (todo & LIM__EX_DO_REVOKE_OLD)
        revoke_old(x, self);
    if (todo & LIM__EX_DO_RESUME)
        resume(x, now);
    if (todo & LIM__EX_DO_UNWANT)
        release(x, self, 0);
    if (todo & LIM__EX_DO_HAND)
        hand(x, self);
    if ((todo & LIM__EX_DO_OFFER_TIMER) &&
        lim_timer_start(self, OFFER_MS * 1000000ull, TAG_OFFER, &x->offer_timer) != LIM_OK)
        lim_exit(self, LIM_FAULT);
    if (todo & LIM__EX_DO_WANT)
        want(x, self, true);
    if (todo & LIM__EX_DO_END)
        finish(x, self);
}

/* Deliberate bugs, for the auditor to find. */
static uint32_t mutate(exchange *x, uint32_t todo, const occasion *now)
{
    if (LIM__MUTATION("accept_twice") && (todo & LIM__EX_DO_SETTLE_NOT) && now->answer != NULL)
        todo = (todo & ~(uint32_t)LIM__EX_DO_SETTLE_NOT) | LIM__EX_DO_SETTLE;
    if (LIM__MUTATION("lost_outcome") && (todo & LIM__EX_DO_OUT_CRASHED))
        todo &= ~(uint32_t)LIM__EX_OUTCOMES;
    if (LIM__MUTATION("double_outcome") && (todo & LIM__EX_DO_OUT_TIMEOUT))
        send_outcome(x, todo, &(occasion){ .self = now->self });
    if (LIM__MUTATION("forget_lost_task") && (todo & LIM__EX_DO_WANT) && is_task(x))
        todo &= ~(uint32_t)LIM__EX_DO_WANT;
    return todo;
}

static void event(exchange *x, lim__ex_event e, occasion *now)
{
    lim__ex_facts facts = { .task = is_task(x),
                            .next = x->open->on_crash == LIM_CRASH_NEXT,
                            .group = x->open->participant.id == 0,
                            .last_loss = x->losses + 1u >= x->open->losses_max };
    lim__ex_state before = x->state;
    uint32_t todo = mutate(x, lim__ex_step(&x->state, e, &facts), now);
    if (before == LIM__EX_OFFERED && x->state != LIM__EX_OFFERED && x->offer_timer != 0) {
        lim_timer_cancel(now->self, x->offer_timer);
        x->offer_timer = 0;
    }
    act(x, todo, now);
}

static void refuse_here(exchange *x, lim_process *self, lim_why why)
{
    lim__refused refused = { .why = why };
    occasion now = { .self = self, .refused = &refused };
    if (is_task(x) && !x->admitted) {
        admit(x, self, &(lim_admission){ .verdict = LIM_REJECT, .why = why, .retry_after_ms = 100 });
        x->state = LIM__EX_ENDED;
        finish(x, self);
        return;
    }
    x->state = LIM__EX_PLACING;
    event(x, LIM__EX_REFUSED, &now);
}

/* ---- signals ---- */

static void opened(exchange *x, lim_process *self, const lim_signal *signal)
{
    x->open = lim__letter_keep(self, signal);
    if (x->open->losses_max == 0 || x->open->losses_max > GONE_MAX)
        x->open->losses_max = x->open->losses_max == 0 ? 5 : GONE_MAX;
    if (!is_task(x) && x->open->on_crash == LIM_CRASH_NEXT) /* as long as there are others */
        x->open->losses_max = GONE_MAX;
    uint64_t now_ns = lim_now_ns(self), deadline = x->open->deadline_ns;
    if (deadline != UINT64_MAX &&
        lim_timer_start(self, deadline > now_ns ? deadline - now_ns : 0, TAG_DEADLINE, &x->deadline_timer) != LIM_OK) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    if (x->open->participant.id == 0) {
        want(x, self, false);
        return;
    }
    char name[24];
    int len = snprintf(name, sizeof name, "%llx", (unsigned long long)x->open->participant.id);
    x->current = lim__letter_new(lim__proc_sched(self), &lim__type_assigned, sizeof *x->current + (size_t)len);
    if (x->current == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    *x->current = (lim__assigned){ .participant = x->open->participant, .lease = 1, .identity_len = (uint8_t)len };
    memcpy(x->current->text, name, (size_t)len);
    event(x, LIM__EX_ASSIGNED, &(occasion){ .self = self });
}

static void assigned(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__assigned *a = signal->body.ptr;
    if (x->state != LIM__EX_PLACING) {
        release(x, self, a->lease); /* it came back before the group had heard: give the place back */
        return;
    }
    LIM_ASSERT(x->current == NULL);
    x->current = lim__letter_keep(self, signal);
    x->group = signal->from; /* not always the one that was asked: a retired group passes on */
    admit(x, self, &(lim_admission){ .verdict = LIM_ACCEPT });
    event(x, LIM__EX_ASSIGNED, &(occasion){ .self = self });
}

/* Which lease is it: the current one, a suspended one, or none of ours? */
static lim__ex_event lease_event(exchange *x, uint64_t lease, lim__ex_event current, lim__ex_event old)
{
    if (x->current != NULL && x->current->lease == lease)
        return current;
    for (uint32_t i = 0; x->trouble != NULL && i < x->trouble->gone_count; i++)
        if (x->trouble->gone[i].was->lease == lease && x->trouble->gone[i].suspended)
            return old;
    return 0;
}

static void answered(exchange *x, lim_process *self, const lim_signal *signal)
{
    lim__answer *a = (lim__answer *)(uintptr_t)signal->body.ptr;
    occasion now = { .self = self, .answer = a, .speaker = a->from, .lease = a->lease };
    lim__ex_event e = lease_event(x, a->lease, LIM__EX_ANSWERED, LIM__EX_ANSWERED_OLD);
    if (e == LIM__EX_ANSWERED && a->how == LIM__ANSWER_NOTHING)
        e = LIM__EX_SILENT;
    if (e == 0 || (e == LIM__EX_ANSWERED_OLD && a->how == LIM__ANSWER_NOTHING))
        settle(x, &now, false);
    else
        event(x, e, &now);
}

static void holding(exchange *x, lim_process *self, const lim_signal *signal)
{
    lim__holding *h = (lim__holding *)(uintptr_t)signal->body.ptr;
    occasion now = { .self = self, .holding = h, .speaker = h->participant, .lease = h->lease };
    if (is_task(x) && x->current != NULL && x->current->lease == h->lease &&
        x->current->participant.id != h->participant.id) { /* it is back before its old connection was found dead */
        x->last_reason = LIM_REPLACED;
        event(x, LIM__EX_LOST, &(occasion){ .self = self });
    }
    if (lease_event(x, h->lease, LIM__EX_HOLDING, LIM__EX_HOLDING) == LIM__EX_HOLDING &&
        !(x->current != NULL && x->current->lease == h->lease))
        event(x, LIM__EX_HOLDING, &now);
    else
        settle(x, &now, false);
}

static void await(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__command *c = signal->body.ptr;
    waiter *w = lim__alloc(lim__proc_sched(self), sizeof *w);
    if (w == NULL)
        return;
    *w = (waiter){ x->waiters, c->from, c->ref };
    x->waiters = w;
}

static void unawait(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__command *c = signal->body.ptr;
    for (waiter **at = &x->waiters; *at != NULL; at = &(*at)->next)
        if ((*at)->ref == c->ref && (*at)->who.id == c->from.id) {
            waiter *w = *at;
            *at = w->next;
            lim__free(lim__proc_sched(self), w, sizeof *w);
            return;
        }
}

static lim_phase phase(const exchange *x)
{
    switch (x->state) {
    case LIM__EX_PLACING:
        return LIM_PHASE_CREATED;
    case LIM__EX_OFFERED:
    case LIM__EX_HELD:
    case LIM__EX_MUTE:
        return LIM_PHASE_ACTIVE;
    case LIM__EX_DRAINING:
        return LIM_PHASE_COMPLETING;
    case LIM__EX_ENDED:
        return LIM_PHASE_ENDED;
    }
    return LIM_PHASE_NONE;
}

static int64_t remaining_ms(const exchange *x, lim_process *self)
{
    uint64_t now_ns = lim_now_ns(self);
    if (x->open->deadline_ns == UINT64_MAX)
        return LIM_FOREVER;
    return x->open->deadline_ns > now_ns ? (int64_t)((x->open->deadline_ns - now_ns) / 1000000) : 0;
}

static void inspect(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__command *c = signal->body.ptr;
    lim__done *d = lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = (lim__done){ .ref = c->ref, .conv = lim_self(self), .err = LIM_OK };
    d->info = (lim_conv_info){ .phase = phase(x),
                               .alive = x->current != NULL,
                               .dead = x->losses,
                               .pending = 1,
                               .remaining_ms = remaining_ms(x, self) };
    (void)!lim__send_reserved(self, c->from, d);
}

/* An exchange has nothing to send, join or receive; whoever tries is told so. */
static void not_a_talk(lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    bool asks = t == &lim__type_ask || t == &lim__type_tell || t == &lim__type_receive || t == &lim__type_join_conv;
    lim__done *d = !asks ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = (lim__done){ .conv = lim_self(self), .err = LIM_E_INVALID };
    memcpy(&d->ref, signal->body.ptr, sizeof d->ref); /* the first field of each of them */
    (void)!lim__send_reserved(self, signal->from, d);
}

static void exchange_json(const void *state, lim__json *j, const char *key)
{
    const exchange *x = state;
    uint64_t now_ns = x->bus->os->now_ns(x->bus->os);
    if (x->open == NULL)
        return; /* born, not yet told what for */
    lim__json_open(j, key, '{');
    lim__json_id(j, "id", x->node.pid.id);
    lim__json_str(j, "kind", lim__conv_kind_text(x->open->kind));
    lim__json_str(j, "phase", lim_phase_text(phase(x)));
    lim__json_bytes(j, "group", group_name(x->open));
    lim__json_bytes(j, "type", type_name(x->open));
    lim__json_bytes(j, "participant",
                    x->current != NULL ? lim__bytes(x->current->text, x->current->identity_len) : lim__bytes(NULL, 0));
    lim__json_u64(j, "bytes", lim__msg_bytes(x->open->payload).len);
    lim__json_u64(j, "age_ms", (now_ns - x->open->opened_ns) / 1000000);
    if (x->open->deadline_ns != UINT64_MAX)
        lim__json_u64(j, "remaining_ms", x->open->deadline_ns > now_ns ? (x->open->deadline_ns - now_ns) / 1000000 : 0);
    lim__json_bool(j, "acknowledged", x->taken);
    lim__json_u64(j, "attempts", x->attempts);
    lim__json_u64(j, "losses", x->losses);
    lim__json_open(j, "excluded", '[');
    for (uint32_t i = 0; x->trouble != NULL && i < x->trouble->gone_count; i++)
        lim__json_bytes(j, NULL, lim__bytes(x->trouble->gone[i].was->text, x->trouble->gone[i].was->identity_len));
    lim__json_close(j);
    lim__json_close(j);
}

static lim__conv_facts exchange_facts(const void *state)
{
    const exchange *x = state;
    return (lim__conv_facts){ x->open, x->open != NULL ? phase(x) : LIM_PHASE_NONE };
}

static const lim__conv_kindred as_exchange = { exchange_json, exchange_facts };

static void on_message(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    if (t == &lim__type_open) {
        opened(x, self, signal);
    } else if (x->open == NULL) {
        return; /* killed before it was told what for */
    } else if (t == &lim__type_answer) {
        answered(x, self, signal);
    } else if (t == &lim__type_assigned) {
        assigned(x, self, signal);
    } else if (t == &lim__type_taken) {
        if (x->current != NULL && x->current->lease == ((const lim__taken *)signal->body.ptr)->lease) {
            x->taken = x->was_taken = true;
            event(x, LIM__EX_TAKEN, &(occasion){ .self = self });
        }
    } else if (t == &lim__type_queued) {
        x->group = signal->from;
        admit(x, self, &((const lim__queued *)signal->body.ptr)->admission);
    } else if (t == &lim__type_refused) {
        lim__refused *r = (lim__refused *)(uintptr_t)signal->body.ptr;
        if (is_task(x) && !x->admitted) {
            admit(x, self,
                  &(lim_admission){ .verdict = LIM_REJECT,
                                    .why = r->why,
                                    .limit = r->limit,
                                    .current = r->current,
                                    .retry_after_ms = r->retry_after_ms });
            x->state = LIM__EX_ENDED;
            finish(x, self);
        } else if (x->state == LIM__EX_PLACING) {
            event(x, LIM__EX_REFUSED, &(occasion){ .self = self, .refused = r });
        }
    } else if (t == &lim__type_holding) {
        holding(x, self, signal);
    } else if (t == &lim__type_cancel || t == &lim__type_close) {
        event(x, LIM__EX_CANCEL, &(occasion){ .self = self });
    } else if (t == &lim__type_await) {
        await(x, self, signal);
    } else if (t == &lim__type_unawait) {
        unawait(x, self, signal);
    } else if (t == &lim__type_inspect) {
        inspect(x, self, signal);
    } else {
        not_a_talk(self, signal);
    }
}

/* Replaced: the same worker over another connection; its leases stay its own. */
static bool may_return(lim_reason reason)
{
    return reason == LIM_LOST || reason == LIM_SILENT || reason == LIM_REPLACED;
}

static void on_exit_signal(exchange *x, lim_process *self, const lim_signal *signal)
{
    occasion now = { .self = self, .at_ns = signal->at_ns };
    if (x->open == NULL) {
        lim_exit(self, LIM_SHUTDOWN);
    } else if (x->current != NULL && signal->from.id == x->current->participant.id) {
        x->last_reason = signal->reason;
        event(x, may_return(signal->reason) ? LIM__EX_LOST : LIM__EX_LEFT, &now);
    } else if (signal->from.id == x->open->owner.id) {
        event(x, LIM__EX_OWNER_GONE, &now);
    }
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    exchange *x = state;
    if (x->state == 0) {
        lim__conv_enter(x->bus, self, &x->node, x, &as_exchange);
        x->state = LIM__EX_PLACING;
    }
    switch (signal->kind) {
    case LIM_SIGNAL_MESSAGE:
        if (signal->type != NULL)
            on_message(x, self, signal);
        return;
    case LIM_SIGNAL_EXIT:
        on_exit_signal(x, self, signal);
        return;
    case LIM_SIGNAL_TIMER:
        if (signal->tag == TAG_OFFER && signal->ref != x->offer_timer)
            return; /* of an earlier offer */
        if (signal->tag == TAG_OFFER)
            x->offer_timer = 0;
        event(x, signal->tag == TAG_OFFER ? LIM__EX_UNTAKEN : LIM__EX_DEADLINE, &(occasion){ .self = self });
        return;
    case LIM_SIGNAL_DOWN:
    case LIM_SIGNAL_RESPONSE:
        return;
    }
}

static void on_end(void *state, lim_reason reason)
{
    exchange *x = state;
    lim__sched *s = lim__sched_current();
    (void)reason;
    lim__conv_leave(&x->node);
    if (x->open != NULL)
        lim__letter_free(s, x->open);
    if (x->current != NULL)
        lim__letter_free(s, x->current);
    for (uint32_t i = 0; x->trouble != NULL && i < x->trouble->gone_count; i++)
        lim__letter_free(s, x->trouble->gone[i].was);
    if (x->trouble != NULL)
        lim__free(s, x->trouble, sizeof *x->trouble);
    for (waiter *w = x->waiters, *next; w != NULL; w = next) {
        next = w->next;
        lim__free(s, w, sizeof *w);
    }
}

lim_spawn_opts lim__exchange_spawn(lim_bus *const *bus, bool link)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "exchange",
                             .on_signal = on_signal,
                             .on_end = on_end,
                             .state_bytes = sizeof(exchange),
                             .init = bus,
                             .init_bytes = sizeof *bus,
                             .mailbox_max = 64,
                             .trap_exit = true,
                             .link = link };
}
