/* SPDX-License-Identifier: Apache-2.0
 * exchange_outcome.c - how an exchange ends, and everybody who hears of it: its owner, those who wait for it, the
 * conversation it reports to, its queue (dead letters, idempotency), whoever undoes it, and what is remembered. */
#include "base/base.h"
#include "base/buf.h"
#include "bus/exchange_inside.h"
#include "data/outcome.h"
#include <stdio.h>

/* ---- the verdict ---- */

void lim__ex_admit(exchange *x, lim_process *self, lim_pid as, const lim_admission *admission)
{
    if (x->admitted || !task_like(x))
        return;
    x->admitted = true;
    if (!is_task(x))
        return;
    lim__admitted *a = lim__letter_new(lim__proc_sched(self), &lim__type_admitted, sizeof *a);
    if (a == NULL)
        return;
    *a = (lim__admitted){ x->open->ref, as, *admission };
    lim__ex_send(x, self, x->open->owner, a);
}

/* ---- making the letter ---- */

static size_t excluded_bytes(const exchange *x)
{
    size_t bytes = 0;
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count; i++)
        if (troubled(x)->old[i].lost)
            bytes += LIM__GONE_BYTES + troubled(x)->old[i].was->identity_len;
    return bytes;
}

lim_excluded lim__ex_excluded(const old_lease *old)
{
    uint64_t at_us = old->lost_wall_us;
    return (lim_excluded){ identity_of(old->was), at_us, old->rerouted_us != 0 ? at_us + old->rerouted_us : 0 };
}

static lim__outcome_letter *outcome_new(exchange *x, lim_process *self, const given *by, lim_bytes detail)
{
    size_t names = excluded_bytes(x);
    size_t text = (by != NULL ? (size_t)by->identity_len + by->router_len : 0) + detail.len + names;
    lim__outcome_letter *o = lim__letter_new(lim__proc_sched(self), &lim__type_outcome, sizeof *o + text);
    if (o == NULL)
        return NULL;
    *o = (lim__outcome_letter){
        .ref = x->open->ref, .conv = lim__ex_id(x, self), .attempts = x->attempts, .losses = x->losses
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
    const trouble *t = troubled(x);
    for (uint32_t i = 0; t != NULL && i < t->old_count; i++)
        if (t->old[i].lost) {
            lim_excluded gone = lim__ex_excluded(&t->old[i]);
            at += lim__gone_put(at, &gone);
            o->excluded_count++;
        }
    o->elapsed_ns = lim_now_ns(self) - x->open->opened_ns;
    if (t != NULL) {
        o->crashed_ns = t->crashed_ns;
        o->crashed_wall_us = t->crashed_wall_us;
        o->rerouted_ns = t->rerouted_ns;
    }
    return o;
}

/* Unknown: it was sent, and whether anybody read it is not known: of a participant behind a connection that does not
 * acknowledge asks, and of a host thread that takes its requests when it likes. */
static lim_handed handed(const exchange *x)
{
    if (x->was_taken)
        return LIM_HANDED_YES;
    bool tried = x->losses > 0 || x->attempts > 0 ||
                 (troubled(x) != NULL && troubled(x)->old_count + troubled(x)->shun_count > 0);
    return x->current != NULL || tried ? LIM_HANDED_UNKNOWN : LIM_HANDED_NO;
}

static lim_why why_failed(const occasion *now, lim_why otherwise)
{
    return now->attempts_max > 1 ? LIM_WHY_ATTEMPTS : otherwise;
}

static void fill_answer(lim__outcome_letter *o, const occasion *now, const exchange *x)
{
    o->handed_over = LIM_HANDED_YES;
    if (now->answer->how == LIM__ANSWER_REPLY) {
        o->how = LIM_HOW_REPLY;
        o->payload = lim__msg_ref(now->answer->payload);
    } else {
        o->how = LIM_HOW_FAILED;
        o->why = is_task(x) ? why_failed(now, LIM_WHY_NONE) : LIM_WHY_NONE;
    }
}

static void fill_refused(lim__outcome_letter *o, const lim__refused *refused, const exchange *x)
{
    o->how = x->losses > 0 ? LIM_HOW_CRASHED : LIM_HOW_REFUSED;
    o->why = refused->why;
    o->limit = refused->limit;
    o->current = refused->current;
    o->retry_after_ms = refused->retry_after_ms;
}

static void fill_outcome(const exchange *x, uint32_t todo, const occasion *now, lim__outcome_letter *o)
{
    lim_reason reason = troubled(x) != NULL ? troubled(x)->last_reason : LIM_REASON_NONE;
    o->handed_over = handed(x);
    if (todo & LIM__EX_DO_OUT_ANSWER) {
        fill_answer(o, now, x);
    } else if (todo & LIM__EX_DO_OUT_REFUSED) {
        fill_refused(o, now->refused, x);
    } else if (todo & (LIM__EX_DO_OUT_CRASHED | LIM__EX_DO_OUT_KILLER)) {
        o->how = LIM_HOW_CRASHED;
        o->why = todo & LIM__EX_DO_OUT_KILLER ? LIM_WHY_KILLS_WORKERS : LIM_WHY_NONE;
    } else if (todo & (LIM__EX_DO_OUT_SLOW | LIM__EX_DO_OUT_OVERRUN)) {
        o->how = LIM_HOW_FAILED;
        o->why = todo & LIM__EX_DO_OUT_SLOW ? why_failed(now, LIM_WHY_START_TO_CLOSE) : LIM_WHY_NONE;
    } else if (todo & LIM__EX_DO_OUT_TIMEOUT) {
        o->how = LIM_HOW_TIMEOUT;
    } else {
        LIM_ASSERT(todo & LIM__EX_DO_OUT_CANCELLED);
        o->how = LIM_HOW_CANCELLED;
    }
    if (o->how == LIM_HOW_CRASHED)
        o->reason = reason;
}

static lim_bytes outcome_detail(uint32_t todo, const occasion *now)
{
    if (todo & LIM__EX_DO_OUT_ANSWER)
        return lim__bytes(now->answer->detail, now->answer->detail_len);
    if (todo & LIM__EX_DO_OUT_REFUSED)
        return lim__bytes(now->refused->detail, now->refused->detail_len);
    if (todo & LIM__EX_DO_OUT_SLOW)
        return lim__str("the attempt took longer than start_to_close_ms");
    if (todo & LIM__EX_DO_OUT_OVERRUN)
        return lim__str("it sent more parts of its answer than it was granted");
    return lim__bytes(NULL, 0);
}

/* Who answered: for an answer under an old lease, the one that had it. */
static const given *speaker(const exchange *x, const occasion *now)
{
    const trouble *t = troubled(x);
    const old_lease *old = now->answer != NULL ? lim__ex_old(x, now->lease) : NULL;
    if (old != NULL)
        return old->was;
    if (x->current != NULL)
        return x->current;
    return t != NULL && t->old_count > 0 ? t->old[t->old_count - 1].was : NULL;
}

static lim__outcome_letter *copy_of(lim_process *self, const lim__outcome_letter *o, uint64_t ref)
{
    lim__outcome_letter *copy = lim__letter_new(lim__proc_sched(self), &lim__type_outcome, lim__outcome_bytes(o));
    if (copy == NULL)
        return NULL;
    memcpy(copy, o, lim__outcome_bytes(o));
    copy->ref = ref;
    copy->payload = lim__msg_ref(o->payload);
    return copy;
}

/* ---- telling ---- */

static void tell(exchange *x, lim_process *self, const lim__outcome_letter *o, lim_pid who, uint64_t ref)
{
    lim__outcome_letter *copy = copy_of(self, o, ref);
    if (copy != NULL) /* else the waiter's monitor on this process tells it */
        lim__ex_send(x, self, who, copy);
}

static void tell_waiters(exchange *x, lim_process *self, const lim__outcome_letter *o)
{
    for (lim__waiter *w = x->extra != NULL ? x->extra->waiters : NULL, *next; w != NULL; w = next) {
        next = w->next;
        tell(x, self, o, w->who, w->ref);
        lim__free(lim__proc_sched(self), w, sizeof *w);
    }
    if (x->extra != NULL)
        x->extra->waiters = NULL;
}

static void outcome_json(const lim__outcome_letter *o, lim__buf *out)
{
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    lim_outcome view;
    lim__outcome_view(o, excluded, &view);
    lim__json j = lim__json_begin(out);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "conversation", o->conv.id);
    lim__json_str(&j, "how", lim_how_text(view.how));
    lim__json_str(&j, "why", lim_why_text(view.why));
    lim__json_str(&j, "reason", view.how == LIM_HOW_CRASHED ? lim_reason_text(view.reason) : "");
    lim__json_str(&j, "handed_over", lim_handed_text(view.handed_over));
    lim__json_bytes(&j, "participant", view.participant);
    lim__json_bytes(&j, "detail", view.detail);
    lim__json_u64(&j, "attempts", view.attempts);
    lim__json_u64(&j, "losses", view.losses);
    lim__outcome_past_json(&j, view.excluded, view.excluded_count);
    lim__json_u64(&j, "elapsed_us", view.elapsed_ns / 1000);
    lim__json_close(&j);
}

/* Into the conversation that wants to hear of it, as a signal named `outcome`: a reply as it is, all else as JSON. */
static void report(exchange *x, lim_process *self, const lim__outcome_letter *o)
{
    static const char name[] = "outcome";
    lim_conv to = lim__terms_or_default(x->open->terms)->report_to;
    lim_pid there = lim__alias_pid(x->bus, to.id);
    if (to.id == 0 || lim__conv_kind_of(x->bus, there) == 0)
        return;
    lim__signal_in *in = lim__letter_new(lim__proc_sched(self), &lim__type_signal_in, sizeof *in + sizeof name);
    if (in == NULL)
        return;
    *in = (lim__signal_in){ .payload = lim__msg_ref(o->payload), .name_len = sizeof name - 1 };
    memcpy(in->name, name, sizeof name - 1);
    lim__buf json = { 0 };
    if (in->payload == NULL) {
        outcome_json(o, &json);
        in->payload = json.failed ? NULL : lim__msg_new(lim__buf_bytes(&json));
        lim__buf_fini(&json);
    }
    if (in->payload != NULL)
        lim__ex_send(x, self, there, in);
    else
        lim__letter_free(lim__proc_sched(self), in);
}

/* ---- the queue ---- */

/* Somebody meant it to end like this: nothing was lost. */
static bool deliberate(const lim__outcome_letter *o)
{
    return o->how == LIM_HOW_REPLY || o->how == LIM_HOW_CANCELLED || o->why == LIM_WHY_REPLACED ||
           o->why == LIM_WHY_PURGED;
}

/* No wait has the number 0: it is the bus's own, to undo something, or a dead letter that was sent again. */
static bool nobody_hears(const exchange *x)
{
    return x->open->ref == 0;
}

static void bury(exchange *x, lim_process *self, const lim__outcome_letter *o)
{
    bool begun = x->admitted || nobody_hears(x); /* else its dispatcher has the verdict, and no id to look for */
    bool other_does_it = x->extra != NULL && x->extra->follows.id != 0; /* it only stopped waiting for that one */
    if (!is_task(x) || x->group.id == 0 || !begun || other_does_it || deliberate(o))
        return;
    lim_bytes type = type_name(x->open),
              detail = lim__bytes(o->text + o->participant_len + o->router_len, o->detail_len);
    lim__dead *d = lim__letter_new(lim__proc_sched(self), &lim__type_dead, sizeof *d + type.len + detail.len);
    if (d == NULL)
        return;
    *d = (lim__dead){ .conv = lim__ex_id(x, self),
                      .at_wall_us = x->bus->os->wall_ns(x->bus->os) / 1000,
                      .durable = x->durable,
                      .how = o->how,
                      .why = o->why,
                      .reason = o->reason,
                      .attempts = o->attempts,
                      .losses = o->losses,
                      .terms = lim__terms_ref(x->open->terms),
                      .payload = lim__msg_ref(x->open->payload),
                      .type_len = (uint8_t)type.len,
                      .detail_len = (uint16_t)detail.len };
    if (type.len > 0)
        memcpy(d->text, type.ptr, type.len);
    if (detail.len > 0)
        memcpy(d->text + type.len, detail.ptr, detail.len);
    if (x->durable)
        lim__ex_dead_row(d, &x->extra->keep->dead);
    lim__ex_send(x, self, x->group, d);
}

/* Who dispatches it again hears the same; so the queue is told before anybody else. */
static void remember(exchange *x, lim_process *self, const lim__outcome_letter *o)
{
    if (is_task(x) && x->group.id != 0 && lim__terms_or_default(x->open->terms)->idempotency_key.len > 0)
        tell(x, self, o, x->group, 0);
}

/* A task that the queue will not have: the dispatcher hears the verdict, and nothing was begun. One that the bus itself
 * dispatched must not get lost. */
static void reject(exchange *x, const occasion *now)
{
    const lim__refused *r = now->refused;
    if (nobody_hears(x)) {
        lim__outcome_letter *o = outcome_new(x, now->self, NULL, outcome_detail(LIM__EX_DO_OUT_REFUSED, now));
        if (o != NULL) {
            fill_outcome(x, LIM__EX_DO_OUT_REFUSED, now, o);
            if (x->group.id == 0)
                (void)!lim__group_get(x->bus, now->self, group_name(x->open), &x->group);
            bury(x, now->self, o);
            lim__letter_free(lim__proc_sched(now->self), o);
        }
    }
    lim__ex_admit(x, now->self, lim__ex_id(x, now->self),
                  &(lim_admission){ .verdict = LIM_REJECT,
                                    .why = r->why,
                                    .limit = r->limit,
                                    .current = r->current,
                                    .retry_after_ms = r->retry_after_ms });
}

/* ---- the outcome ---- */

static void trace_end(const exchange *x, lim_process *self, const lim__outcome_letter *o)
{
    if (x->extra == NULL || x->extra->history == NULL)
        return;
    char detail[96];
    int len =
        snprintf(detail, sizeof detail, "%s%s%s", lim_how_text(o->how), o->why != 0 ? " " : "", lim_why_text(o->why));
    lim__history_add(x->extra->history, self,
                     &(lim__history_note){ .kind = "outcome",
                                           .who = lim__bytes(o->text, o->participant_len),
                                           .detail = lim__bytes(detail, (size_t)len),
                                           .bytes = o->payload != NULL ? lim__msg_bytes(o->payload).len : 0 });
}

/* It is remembered; of one that is durable on disk, too, and not before that is done. */
static void ended(exchange *x, const occasion *now, const lim__outcome_letter *o)
{
    lim_process *self = now->self;
    uint64_t lease = now->answer != NULL ? now->lease : 0;
    if (!x->durable) {
        lim__ended_add(x->bus, lim__proc_sched(self), x->open->kind,
                       o->how == LIM_HOW_REPLY ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN, lease, o, lim__outcome_bytes(o));
        return;
    }
    if (x->extra->keep->stored)
        lim__ex_end_row(x, self, o, lease, &x->extra->keep->end);
    lim__outcome_letter *copy = copy_of(self, o, 0);
    if (copy != NULL)
        lim__ex_later_ended(x, self, copy, lease);
}

lim__outcome_letter *lim__ex_answer_outcome(exchange *x, occasion *now)
{
    lim__outcome_letter *o = outcome_new(x, now->self, speaker(x, now), outcome_detail(LIM__EX_DO_OUT_ANSWER, now));
    if (o != NULL)
        fill_outcome(x, LIM__EX_DO_OUT_ANSWER, now, o);
    return o;
}

void lim__ex_outcome(exchange *x, uint32_t todo, occasion *now)
{
    lim_process *self = now->self;
    if ((todo & LIM__EX_DO_OUT_REFUSED) && is_task(x) && !x->admitted) {
        reject(x, now);
        return;
    }
    bool followed = todo & LIM__EX_DO_OUT_FOLLOWED;
    lim__outcome_letter *o = followed ? copy_of(self, now->followed, x->open->ref)
                                      : outcome_new(x, self, speaker(x, now), outcome_detail(todo, now));
    if (o == NULL) {
        lim_exit(self, LIM_FAULT); /* the owner is linked: it still learns that this ended */
        return;
    }
    if (!followed)
        fill_outcome(x, todo, now, o);
    if (x->bus->ear.on_outcome != NULL && !x->durable)
        x->bus->ear.on_outcome(x->bus->ear.ctx, lim__ex_id(x, self).id);
    trace_end(x, self, o);
    if (!followed) { /* all this the other task has done for itself */
        lim__ex_undo(x, self, o);
        bury(x, self, o);
        remember(x, self, o);
        ended(x, now, o);
    }
    tell_waiters(x, self, o);
    report(x, self, o);
    if (!is_task(x) || (x->open->flags & LIM__OPEN_REPORT))
        lim__ex_send(x, self, x->open->owner, o);
    else
        lim__letter_free(lim__proc_sched(self), o);
}

void lim__ex_part(exchange *x, const occasion *now)
{
    lim_bytes who = identity_of(x->current);
    x->extra->granted--;
    x->extra->parts++;
    lim__partial *p = lim__letter_new(lim__proc_sched(now->self), &lim__type_partial, sizeof *p + who.len);
    if (p == NULL) {
        lim_exit(now->self, LIM_FAULT); /* a part that is missing must not look like one that never was */
        return;
    }
    *p = (lim__partial){ .ref = x->open->ref,
                         .conv = lim__ex_id(x, now->self),
                         .seq = x->extra->parts,
                         .how = LIM_HOW_REPLY,
                         .payload = lim__msg_ref(now->part->payload),
                         .participant_len = (uint8_t)who.len };
    if (who.len > 0)
        memcpy(p->text, who.ptr, who.len);
    lim__ex_send(x, now->self, x->open->owner, p);
}

/* ---- another task stands for this one ---- */

void lim__ex_follow(exchange *x, lim_process *self, lim_pid task)
{
    uint64_t monitor;
    extra *e = lim__ex_extra(x, self);
    lim__command *c = e == NULL ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_await, sizeof *c);
    lim_pid there = lim__alias_pid(x->bus, task.id);
    if (c == NULL || lim_monitor(self, there, &monitor) != LIM_OK) {
        lim__letter_free(lim__proc_sched(self), c);
        lim_exit(self, LIM_FAULT);
        return;
    }
    e->follows = task;
    e->followed = there;
    *c = (lim__command){ x->open->ref, lim_self(self) };
    (void)!lim__send_reserved(self, there, c); /* gone: the monitor says so */
}

lim__outcome_letter *lim__ex_vanished(exchange *x, lim_process *self)
{
    lim__outcome_letter *o = lim__ended_outcome(x->bus, lim__proc_sched(self), x->extra->follows, x->open->ref);
    if (o != NULL ||
        (o = outcome_new(x, self, NULL, lim__str("the task that stood for it ended without a word"))) == NULL)
        return o;
    o->conv = x->extra->follows;
    o->how = LIM_HOW_CRASHED;
    o->reason = LIM_KILLED;
    o->handed_over = LIM_HANDED_UNKNOWN;
    return o;
}
