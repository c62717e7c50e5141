/* SPDX-License-Identifier: Apache-2.0
 * exchange_hand.c - who has the request: asking the group, handing over, and what becomes of leases.
 *
 * What is in hand is described by what the group said when it assigned it (`current`: participant, lease, identity,
 * router, policy). The same of those that had it before is kept in `trouble`, which exists only once something went
 * wrong: suspended ones may come back with the result, stuck ones were told to stop and keep their place until they
 * have, the others are names.
 *
 * Invariants:
 *   X1  we are linked to the current participant and to every stuck one, and to nobody else but our owner.
 *   X2  a lease is known to the group until `release` was sent for it, once. */
#include "base/base.h"
#include "bus/exchange_inside.h"

trouble *lim__ex_trouble(exchange *x, lim_process *self)
{
    extra *e = lim__ex_extra(x, self);
    if (e != NULL && e->trouble == NULL) {
        e->trouble = lim__alloc(lim__proc_sched(self), sizeof *e->trouble);
        if (e->trouble != NULL)
            memset(e->trouble, 0, sizeof *e->trouble);
    }
    return troubled(x);
}

/* ---- who was given it ---- */

static size_t given_text(const given *g)
{
    return offsetof(given, text) + g->identity_len + g->router_len;
}

static size_t given_bytes(size_t text, bool policy, bool kept)
{
    return policy ? (text + 7) / 8 * 8 + sizeof(lim__policy) + (kept ? sizeof(known) : 0) : text;
}

static lim__policy *policy_in(const given *g)
{
    return (lim__policy *)(void *)((char *)(uintptr_t)g + given_bytes(given_text(g), true, false) -
                                   sizeof(lim__policy));
}

static void policy_is(given *g, const lim__policy *policy)
{
    if (g != NULL && g->judged)
        *policy_in(g) = *policy;
}

/* The first one is behind the exchange itself, if it is small. */
static given *given_room(exchange *x, lim_process *self, size_t bytes)
{
    if (!x->roomy || x->room_taken || bytes > LIM__EX_ROOM)
        return lim__alloc(lim__proc_sched(self), bytes);
    x->room_taken = true;
    return (given *)(void *)(x + 1);
}

given *lim__ex_given(exchange *x, lim_process *self, const lim__assigned *a)
{
    size_t text = offsetof(given, text) + a->identity_len + a->router_len;
    given *g = given_room(x, self, given_bytes(text, task_like(x), x->durable));
    if (g == NULL)
        return NULL;
    g->participant = a->participant;
    g->lease = a->lease;
    g->identity_len = a->identity_len;
    g->router_len = a->router_len;
    g->kept = x->durable;
    g->judged = task_like(x);
    memcpy(g->text, a->text, text - offsetof(given, text));
    policy_is(g, &a->policy);
    if (x->durable) {
        known k = { .member_kind = a->member_kind };
        memcpy(k.session, a->session, sizeof k.session);
        memcpy(lim__ex_known(g), &k, sizeof k);
    }
    return g;
}

known *lim__ex_known(const given *g)
{
    return g->kept ? (known *)(void *)((char *)(uintptr_t)g + given_bytes(given_text(g), true, false)) : NULL;
}

void lim__ex_given_free(exchange *x, lim__sched *s, given *g)
{
    if (g != NULL && g == (given *)(void *)(x + 1))
        x->room_taken = false;
    else if (g != NULL)
        lim__free(s, g, given_bytes(given_text(g), g->judged, g->kept));
}

void lim__ex_policy_is(exchange *x, const lim__policy *policy)
{
    policy_is(x->current, policy);
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count; i++)
        policy_is(troubled(x)->old[i].was, policy);
}

const lim__policy *lim__ex_policy(const given *g)
{
    static const lim__policy none = { .attempts_max = 1 };
    return g != NULL && g->judged ? policy_in(g) : &none;
}

/* ---- asking the group ---- */

static void refuse_here(exchange *x, lim_process *self, lim_why why)
{
    lim__refused refused = { .why = why, .retry_after_ms = 100 };
    lim__ex_happens(x, LIM__EX_REFUSED, &(occasion){ .self = self, .refused = &refused });
}

void lim__ex_end_grace(exchange *x, lim_process *self)
{
    keep *k = x->keeping ? x->extra->keep : NULL;
    if (k == NULL || !k->grace)
        return;
    k->grace = false;
    lim_timer_cancel(self, k->timer);
    k->timer = 0;
}

void lim__ex_want(exchange *x, lim_process *self, bool again, uint64_t due_ns)
{
    lim__ex_end_grace(x, self); /* it asks now, and not once more then */
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
    uint32_t shun = troubled(x) != NULL ? troubled(x)->shun_count : 0;
    lim__want *w =
        lim__letter_new(lim__proc_sched(self), &lim__type_want, sizeof *w + shun * sizeof *w->shun + type.len);
    if (w == NULL) {
        refuse_here(x, self, LIM_WHY_MEMORY);
        return;
    }
    *w = (lim__want){ .conv = lim_self(self),
                      .wish = ++x->wish,
                      .kept = lim__terms_or_default(x->open->terms)->durable,
                      .kind = x->open->kind,
                      .only = is_task(x) ? lim__ex_id(x, self) : x->open->participant, /* of a task its id */
                      .wait = x->open->flags & LIM__OPEN_WAIT,
                      .again = again,
                      .attempts = x->attempts,
                      .losses = x->losses,
                      .due_ns = due_ns,
                      .terms = lim__terms_ref(x->open->terms),
                      .payload = lim__msg_ref(x->open->payload),
                      .shun_count = (uint8_t)shun,
                      .shun_room = (uint8_t)shun,
                      .type_len = (uint8_t)type.len };
    if (shun > 0)
        memcpy(w->shun, troubled(x)->shun, shun * sizeof *w->shun);
    if (type.len > 0)
        memcpy(lim__want_text(w), type.ptr, type.len);
    if (x->durable) /* behind what gives back the lease before */
        lim__ex_later_want(x, self, w);
    else
        lim__ex_want_sent(x, self, lim__send(self, x->group, w));
}

void lim__ex_want_sent(exchange *x, lim_process *self, lim_err sent)
{
    if (sent != LIM_OK)
        refuse_here(x, self, sent == LIM_E_FULL ? LIM_WHY_QUEUE_FULL : LIM_WHY_NO_PARTICIPANT);
}

uint64_t lim__ex_pause_ns(const exchange *x, const lim__policy *p, uint32_t attempts)
{
    uint64_t ms = p->backoff_min_ms, max = p->backoff_max_ms > ms ? p->backoff_max_ms : ms;
    for (uint32_t i = 1; i < attempts && ms < max && p->backoff_factor_percent > 100; i++) {
        uint64_t longer = ms * p->backoff_factor_percent / 100;
        ms = longer > max ? max : longer > ms ? longer : ms + 1;
    }
    uint64_t ns = ms * 1000000, span = ns / 100 * (p->backoff_jitter_percent < 100 ? p->backoff_jitter_percent : 100);
    return span == 0 ? ns : ns - span + x->bus->os->random(x->bus->os) % (2 * span + 1);
}

void lim__ex_shun(exchange *x, lim_process *self)
{
    trouble *t = lim__ex_trouble(x, self);
    lim_pid who = x->current != NULL ? x->current->participant : (lim_pid){ 0 };
    for (uint32_t i = 0; t != NULL && i < t->shun_count; i++)
        if (t->shun[i].id == who.id)
            return;
    if (t == NULL || who.id == 0)
        return;
    if (t->shun_count == LIM__EX_SHUN_MAX)
        memmove(t->shun, t->shun + 1, --t->shun_count * sizeof t->shun[0]); /* the one of longest ago */
    t->shun[t->shun_count++] = who;
}

/* ---- handing over ---- */

/* A trace goes into the message, so that whoever gets it can go on with it. */
void lim__open_carry_trace(lim__open *open)
{
    lim_bytes there, trace = lim__terms_or_default(open->terms)->traceparent;
    lim_bytes had = lim__msg_headers(open->payload);
    lim__buf headers = { 0 };
    if (trace.len == 0 || lim__packed_get(had, lim__str("traceparent"), &there))
        return;
    lim__buf_add(&headers, had.ptr, had.len);
    lim__msg *with = NULL;
    if (!headers.failed && lim__packed_add(&headers, lim__str("traceparent"), trace) == LIM_OK)
        with = lim__msg_new_with(lim__msg_bytes(open->payload), lim__buf_bytes(&headers));
    lim__buf_fini(&headers);
    if (with == NULL)
        return; /* without memory it goes without */
    lim__msg_unref(open->payload);
    open->payload = with;
}

static lim__request *request_new(const exchange *x, lim_process *self, lim_bytes type)
{
    lim__request *r = lim__letter_new(lim__proc_sched(self), &lim__type_request, sizeof *r + type.len);
    if (r == NULL)
        return NULL;
    *r = (lim__request){ .conv = lim__ex_id(x, self),
                         .lease = x->current->lease,
                         .deadline_ns = x->open->deadline_ns,
                         .asker = x->open->owner,
                         .attempt = (uint16_t)(x->attempts + 1),
                         .losses = x->losses,
                         .hops = lim__terms_or_default(x->open->terms)->hops,
                         .type_len = (uint8_t)type.len };
    if (type.len > 0)
        memcpy(r->type, type.ptr, type.len);
    return r;
}

/* Signals go to whoever has it, as an event in the conversation; nothing is answered. */
static void pass_signal(exchange *x, lim_process *self, const lim__signal_in *in)
{
    lim__request *r = request_new(x, self, lim__bytes(in->name, in->name_len));
    if (r == NULL)
        return;
    r->event = LIM_EVENT_SIGNAL;
    r->flags = LIM__REQUEST_QUIET;
    r->payload = lim__msg_ref(in->payload);
    lim__history_add(x->extra != NULL ? x->extra->history : NULL, self,
                     &(lim__history_note){ .kind = "signal",
                                           .who = identity_of(x->current),
                                           .detail = lim__bytes(in->name, in->name_len),
                                           .bytes = lim__msg_bytes(in->payload).len });
    lim__ex_send(x, self, x->current->participant, r);
}

void lim__ex_signal(exchange *x, lim_process *self, const lim_signal *signal)
{
    if (x->current != NULL && (x->state == LIM__EX_OFFERED || x->state == LIM__EX_HELD)) {
        pass_signal(x, self, signal->body.ptr);
        return;
    }
    extra *e = x->state == LIM__EX_PLACING ? lim__ex_extra(x, self) : NULL;
    kept_signal *k =
        e == NULL || e->signal_count == LIM__EX_SIGNALS_MAX ? NULL : lim__alloc(lim__proc_sched(self), sizeof *k);
    if (k == NULL)
        return;
    *k = (kept_signal){ NULL, lim__letter_keep(self, signal) };
    kept_signal **at = &e->signals;
    while (*at != NULL)
        at = &(*at)->next;
    *at = k;
    e->signal_count++;
}

void lim__ex_pass_signals(exchange *x, lim_process *self)
{
    lim__sched *s = lim__proc_sched(self);
    while (x->extra != NULL && x->extra->signals != NULL) {
        kept_signal *k = x->extra->signals;
        x->extra->signals = k->next;
        pass_signal(x, self, k->letter);
        lim__letter_free(s, k->letter);
        lim__free(s, k, sizeof *k);
    }
    if (x->extra != NULL)
        x->extra->signal_count = 0;
}

/* Somebody has it again. */
static void rerouted(trouble *t, uint64_t now_ns)
{
    if (t->crashed_ns != 0 && t->rerouted_ns == 0)
        t->rerouted_ns = now_ns - t->crashed_ns;
    for (uint32_t i = 0; i < t->old_count; i++)
        if (t->old[i].lost_ns != 0 && t->old[i].rerouted_us == 0)
            t->old[i].rerouted_us = (now_ns - t->old[i].lost_ns) / 1000 + 1;
}

bool lim__ex_hand(exchange *x, lim_process *self)
{
    x->taken = false;
    /* Linked before the request leaves: from here on its death is an event of ours. A dead one answers `noproc`. */
    lim__request *r =
        lim_link(self, x->current->participant) == LIM_OK ? request_new(x, self, type_name(x->open)) : NULL;
    if (r == NULL) {
        lim_exit(self, LIM_FAULT);
        return true;
    }
    bool again = task_like(x) || x->open->on_crash != LIM_CRASH_FAIL; /* somebody may need it once more */
    r->payload = again ? lim__msg_ref(x->open->payload) : x->open->payload;
    if (!again)
        x->open->payload = NULL;
    r->credit = x->extra != NULL && !is_task(x) ? x->extra->granted : 0;
    r->flags = task_like(x) ? LIM__REQUEST_ACK : 0;
    if (x->durable) {
        lim__ex_later_hand(x, self, x->current->participant, r);
        return true;
    }
    if (lim__send(self, x->current->participant, r) == LIM_E_FULL)
        return false;
    if (troubled(x) != NULL && !task_like(x)) /* nobody will say that he has it */
        rerouted(troubled(x), lim_now_ns(self));
    lim__ex_pass_signals(x, self); /* behind it */
    return true;
}

void lim__ex_credit(exchange *x, lim_process *self, uint32_t parts)
{
    extra *e = x->extra;
    if (e == NULL || is_task(x) || parts == 0)
        return;
    parts = parts < LIM__EX_CREDIT_MAX - e->granted ? parts : LIM__EX_CREDIT_MAX - e->granted;
    e->granted += parts;
    if (x->state != LIM__EX_HELD || parts == 0)
        return; /* whoever gets it next hears the sum */
    lim__credit *c = lim__letter_new(lim__proc_sched(self), &lim__type_credit, sizeof *c);
    if (c == NULL) {
        e->granted -= parts; /* it knows nothing of these */
        return;
    }
    *c = (lim__credit){ lim__ex_id(x, self), x->current->lease, parts };
    lim__ex_send(x, self, x->current->participant, c);
}

/* ---- time ---- */

static void timer(lim_process *self, uint64_t delay_ns, uint32_t tag, uint64_t *timer_out)
{
    if (lim_timer_start(self, delay_ns, tag, timer_out) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

void lim__ex_offer_timer(exchange *x, lim_process *self)
{
    timer(self, LIM__EX_OFFER_MS * 1000000ull, LIM__EX_TAG_OFFER, &x->offer_timer);
}

static void stop(lim_process *self, uint64_t *timer_at)
{
    if (*timer_at != 0)
        lim_timer_cancel(self, *timer_at);
    *timer_at = 0;
}

static uint64_t progress_ns(const exchange *x)
{
    uint64_t said = lim__terms_or_default(x->open->terms)->progress_ns;
    return !is_task(x) ? 0 : said != 0 ? said : lim__ex_policy(x->current)->progress_ns;
}

void lim__ex_progress(exchange *x, lim_process *self)
{
    uint64_t ns = progress_ns(x);
    if (ns == 0)
        return;
    stop(self, &x->extra->progress_timer);
    timer(self, ns, LIM__EX_TAG_PROGRESS, &x->extra->progress_timer);
}

void lim__ex_start(exchange *x, lim_process *self)
{
    uint64_t said = lim__terms_or_default(x->open->terms)->start_to_close_ns, now = lim_now_ns(self);
    uint64_t limit = !is_task(x) ? 0 : said != 0 ? said : lim__ex_policy(x->current)->start_to_close_ns;
    if (limit == 0 && progress_ns(x) == 0)
        return;
    extra *e = lim__ex_extra(x, self);
    if (e == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    if (e->taken_ns == 0) /* else it came back: its time has begun before */
        e->taken_ns = now;
    stop(self, &e->slow_timer);
    if (limit != 0)
        timer(self, now - e->taken_ns < limit ? limit - (now - e->taken_ns) : 0, LIM__EX_TAG_SLOW, &e->slow_timer);
    lim__ex_progress(x, self);
}

void lim__ex_stop_timers(exchange *x, lim_process *self, lim__ex_state before)
{
    if (before == LIM__EX_OFFERED && x->state != LIM__EX_OFFERED)
        stop(self, &x->offer_timer);
    if (x->extra == NULL)
        return;
    if (x->state != LIM__EX_HELD)
        stop(self, &x->extra->progress_timer);
    if (x->state != LIM__EX_HELD && x->state != LIM__EX_MUTE)
        stop(self, &x->extra->slow_timer);
}

/* ---- leases ---- */

void lim__ex_revoke(exchange *x, lim_process *self, lim_pid to, uint64_t lease, lim__revoke_why why)
{
    lim__revoke *r = lim__letter_new(lim__proc_sched(self), &lim__type_revoke, sizeof *r);
    if (r == NULL)
        return;
    *r = (lim__revoke){ lim__ex_id(x, self), lease, why };
    lim__ex_send(x, self, to, r);
}

static void release(exchange *x, lim_process *self, uint64_t lease, bool unheard)
{
    if (x->group.id == 0)
        return;
    lim__release *r = lim__letter_new(lim__proc_sched(self), &lim__type_release, sizeof *r);
    if (r == NULL)
        return; /* the group gives it back when this process ends */
    *r = (lim__release){ lease, unheard, false };
    lim__ex_send(x, self, x->group, r);
}

void lim__ex_release(exchange *x, lim_process *self, uint64_t lease)
{
    release(x, self, lease, false);
}

old_lease *lim__ex_old(const exchange *x, uint64_t lease)
{
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count; i++)
        if (troubled(x)->old[i].was->lease == lease && troubled(x)->old[i].is != OLD_PAST)
            return &troubled(x)->old[i];
    return NULL;
}

static uint32_t count(const exchange *x, old_is is)
{
    uint32_t n = 0;
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count; i++)
        n += troubled(x)->old[i].is == is;
    return n;
}

uint32_t lim__ex_stuck(const exchange *x)
{
    return count(x, OLD_STUCK);
}

bool lim__ex_crowded(const exchange *x)
{
    return count(x, OLD_STUCK) + count(x, OLD_SUSPENDED) + 1 >= LIM__EX_OLD_MAX;
}

/* X1: one may have it twice, as a stuck one and again. */
static void unlink_unused(exchange *x, lim_process *self, lim_pid who)
{
    bool used = x->current != NULL && x->current->participant.id == who.id;
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count; i++)
        used |= troubled(x)->old[i].is == OLD_STUCK && troubled(x)->old[i].was->participant.id == who.id;
    if (!used)
        lim_unlink(self, who);
}

static void forget_at(exchange *x, lim_process *self, uint32_t at)
{
    trouble *t = troubled(x);
    lim__ex_given_free(x, lim__proc_sched(self), t->old[at].was);
    memmove(&t->old[at], &t->old[at + 1], (--t->old_count - at) * sizeof t->old[0]);
}

/* A name of the past makes room for one that is more. */
static void make_room(exchange *x, lim_process *self)
{
    const trouble *t = troubled(x);
    for (uint32_t i = 0; t->old_count == LIM__EX_OLD_MAX && i < t->old_count; i++)
        if (t->old[i].is == OLD_PAST)
            forget_at(x, self, i);
}

void lim__ex_retire(exchange *x, lim_process *self, old_is is, bool lost)
{
    given *was = x->current;
    if (was == NULL)
        return;
    x->current = NULL;
    trouble *t = is != OLD_PAST || lost ? lim__ex_trouble(x, self) : NULL;
    if (t != NULL)
        make_room(x, self);
    bool kept = t != NULL && t->old_count < LIM__EX_OLD_MAX;
    if (kept)
        t->old[t->old_count++] =
            (old_lease){ .was = was, .taken_ns = x->extra != NULL ? x->extra->taken_ns : 0, .is = is, .lost = lost };
    if (x->extra != NULL)
        x->extra->taken_ns = 0;
    if (kept && lost) {
        old_lease *o = &t->old[t->old_count - 1];
        o->lost_ns = t->crashed_ns;
        o->lost_wall_us = t->crashed_wall_us;
    }
    if (is == OLD_PAST || !kept) /* not kept though it should: no memory; its place is free a little early */
        release(x, self, was->lease, is_task(x) && !x->taken);
    unlink_unused(x, self, was->participant);
    if (!kept)
        lim__ex_given_free(x, lim__proc_sched(self), was);
}

void lim__ex_drop_old(exchange *x, lim_process *self, uint64_t lease)
{
    old_lease *o = lim__ex_old(x, lease);
    if (o == NULL)
        return;
    lim_pid who = o->was->participant;
    bool linked = o->is == OLD_STUCK;
    lim__ex_release(x, self, lease);
    o->is = OLD_PAST;
    if (!o->lost)
        forget_at(x, self, (uint32_t)(o - troubled(x)->old));
    if (linked)
        unlink_unused(x, self, who);
}

void lim__ex_revoke_old(exchange *x, lim_process *self)
{
    trouble *t = troubled(x);
    if (t == NULL)
        return;
    for (uint32_t i = 0; i < t->old_count; i++)
        if (t->old[i].is == OLD_SUSPENDED) {
            t->old[i].is = OLD_PAST;
            lim__ex_revoke(x, self, t->old[i].was->participant, t->old[i].was->lease, LIM__REVOKE_TAKEN);
            lim__ex_release(x, self, t->old[i].was->lease);
        }
    rerouted(t, lim_now_ns(self));
}

/* One that was away has come back, under a new pid. */
void lim__ex_resume(exchange *x, occasion *now)
{
    trouble *t = troubled(x);
    old_lease *o = lim__ex_old(x, now->lease);
    LIM_ASSERT(o != NULL && o->is == OLD_SUSPENDED && x->current == NULL);
    lim__ex_end_grace(x, now->self);
    x->current = o->was;
    if (x->extra != NULL)
        x->extra->taken_ns = o->taken_ns;
    memmove(o, o + 1, (size_t)(&t->old[--t->old_count] - o) * sizeof *o);
    x->current->participant = now->speaker;
    x->taken = x->was_taken = true;
    t->rerouted_ns = 0;
    rerouted(t, lim_now_ns(now->self));
    if (lim_link(now->self, now->speaker) != LIM_OK)
        lim_exit(now->self, LIM_FAULT);
}

void lim__ex_occupy(exchange *x, lim_process *self, lim_pid who)
{
    x->current->participant = who;
    x->taken = x->was_taken = true;
    lim__ex_end_grace(x, self);
    if (lim_link(self, who) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

void lim__ex_count_loss(exchange *x, const occasion *now)
{
    x->losses++;
    trouble *t = lim__ex_trouble(x, now->self);
    if (t == NULL)
        return;
    t->crashed_ns = now->at_ns != 0 ? now->at_ns : lim_now_ns(now->self);
    t->crashed_wall_us = x->bus->os->wall_ns(x->bus->os) / 1000;
    t->rerouted_ns = 0;
}

void lim__ex_settle(exchange *x, const occasion *now, bool accepted)
{
    lim_process *self = now->self;
    if (now->answer == NULL && now->holding == NULL)
        return; /* it ended without a word */
    if (x->bus->ear.on_settled != NULL && is_task(x) && now->answer != NULL)
        x->bus->ear.on_settled(x->bus->ear.ctx, lim__ex_id(x, self).id, now->lease, accepted);
    if (!accepted && now->holding != NULL) {
        lim__ex_revoke(x, self, now->speaker, now->lease, LIM__REVOKE_TAKEN);
        return;
    }
    lim__settled *s = lim__letter_new(lim__proc_sched(self), &lim__type_settled, sizeof *s);
    if (s == NULL)
        return;
    *s = (lim__settled){ lim__ex_id(x, self), now->lease, accepted, !is_task(x) && x->durable };
    lim__ex_send(x, self, now->speaker, s);
}
