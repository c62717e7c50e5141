/* SPDX-License-Identifier: Apache-2.0
 * signal.c - monitors, and what each kind of letter does when its turn in the mailbox has come. Links: link.c.
 *
 * A monitor is a block at the watcher, found by its number, and a block at the target that becomes the DOWN. lim_
 * demonitor forgets the number, so a DOWN on its way is swallowed; the watcher's block travels as DEMONITOR to free
 * the target's.
 *
 * Invariants:
 *   S4  a monitor's number is in the table exactly as long as its DOWN, or its answer, has not been seen. */
#include "actor/internal.h"

/* ---- monitors ---- */
lim_err lim__monitor_reserve(lim_process *watcher, lim_pid target, lim__ref_kind kind, lim__monitor_pair *pair)
{
    lim__sched *s = watcher->sched;
    lim__monitor *m = lim__letter_block(s, sizeof *m);
    lim__watcher *w = lim__letter_block(s, LIM__SHORT_LETTER);
    uint64_t ref = 0;
    *pair = (lim__monitor_pair){ m, w };
    if (!m || !w || !lim__process_rare(watcher) || lim__refs_take(s, kind, m, &ref) != LIM_OK) {
        lim__monitor_cancel(s, pair);
        return LIM_E_NOMEM;
    }
    m->letter.ref = ref;
    m->letter.to = target;
    m->letter.from = watcher->pid;
    m->far = w;
    w->letter.kind = LIM__MONITOR;
    w->letter.ref = ref;
    w->letter.to = target;
    w->letter.from = watcher->pid;
    return LIM_OK;
}

void lim__monitor_cancel(lim__sched *s, lim__monitor_pair *pair)
{
    if (pair->near && pair->near->letter.ref)
        lim__refs_give(s, pair->near->letter.ref);
    if (pair->near)
        lim__block_give(s, pair->near, pair->near->letter.klass);
    if (pair->far)
        lim__block_give(s, pair->far, pair->far->letter.klass);
    *pair = (lim__monitor_pair){ 0 };
}

static void monitor_insert(lim_process *watcher, lim__monitor *m)
{
    lim__node_insert(&watcher->rare->monitors, &m->node);
    lim__bump(&watcher->sched->counters.monitors, 1);
}

void lim__monitor_commit_child(lim_process *watcher, lim_process *child, const lim__monitor_pair *pair)
{
    monitor_insert(watcher, pair->near);
    lim__node_insert(&child->watchers, &pair->far->node);
}

void lim__monitor_commit(lim_process *watcher, const lim__monitor_pair *pair)
{
    lim__sched *s = watcher->sched;
    lim_process *target = lim__near_process(s, pair->near->letter.to);
    monitor_insert(watcher, pair->near);
    if (target)
        lim__node_insert(&target->watchers, &pair->far->node);
    else
        lim__route(s, &pair->far->letter); /* nobody there: it comes back as DOWN noproc */
}

void lim__monitor_end(lim_process *watcher, lim__monitor *m, bool target_dead)
{
    lim__sched *s = watcher->sched;
    lim__node_remove(&m->node);
    lim__bump(&s->counters.monitors, (uint64_t)-1);
    lim__refs_give(s, m->letter.ref);
    if (m->timer)
        lim__timer_stop(s, m->timer);
    if (!target_dead && !lim__is_near(s, m->letter.to)) {
        m->letter.kind = LIM__DEMONITOR;
        m->letter.ref = (uint64_t)(uintptr_t)m->far;
        lim__route(s, &m->letter);
        return;
    }
    lim_process *target = target_dead ? NULL : lim__near_process(s, m->letter.to);
    if (target) {
        lim__node_remove(&m->far->node);
        lim__block_give(s, m->far, m->far->letter.klass);
    }
    lim__block_give(s, m, m->letter.klass);
}

/* The target's block becomes the DOWN that it was kept for. */
static void watcher_send_down(lim__sched *s, lim__watcher *w, lim_reason reason)
{
    lim__letter *l = &w->letter;
    lim_pid watcher = l->from;
    l->from = l->to;
    l->to = watcher;
    l->kind = LIM__DOWN;
    l->reason = reason;
    l->at_ns = s->now_ns;
    lim__route(s, l);
}

lim_err lim_monitor(lim_process *self, lim_pid other, uint64_t *monitor_out)
{
    if (lim__is_away(self))
        return lim__away_monitor(self, other, monitor_out);
    lim__monitor_pair pair;
    lim_err err = lim__monitor_reserve(self, other, LIM__REF_MONITOR, &pair);
    if (err != LIM_OK)
        return err;
    *monitor_out = pair.near->letter.ref;
    lim__monitor_commit(self, &pair);
    return LIM_OK;
}

/* The monitor or request of that number if it is p's; NULL: over. */
static lim__monitor *monitor_of(lim__sched *s, lim_process *p, uint64_t ref, lim__ref_kind *kind)
{
    lim__monitor *m = lim__refs_find(s, ref, kind);
    if (!m || (*kind != LIM__REF_MONITOR && *kind != LIM__REF_REQUEST) || m->letter.from.id != p->pid.id)
        return NULL;
    return m;
}

void lim_demonitor(lim_process *self, uint64_t monitor)
{
    if (lim__is_away(self)) {
        lim__away_demonitor(self, monitor);
        return;
    }
    lim__ref_kind kind;
    lim__monitor *m = monitor_of(self->sched, self, monitor, &kind);
    if (m && kind == LIM__REF_MONITOR)
        lim__monitor_end(self, m, false);
}

/* ---- exits sent by hand ---- */
lim_err lim_exit_process(lim_process *self, lim_pid target, lim_reason reason)
{
    if (lim__is_away(self))
        return lim__away_exit_process(self, target, reason);
    lim__sched *s = self->sched;
    lim__letter *l = lim__exit_letter(s->rt, s);
    if (LIM_UNLIKELY(!l))
        return LIM_E_NOMEM;
    l->to = target;
    l->from = self->pid;
    l->reason = reason == LIM_REASON_NONE ? LIM_NORMAL : reason;
    l->at_ns = s->now_ns;
    lim__route(s, l);
    return LIM_OK;
}

lim_err lim_runtime_exit(lim_runtime *rt, lim_pid target, lim_reason reason)
{
    lim__sched *s = lim__sched_current();
    if (s && s->rt != rt)
        s = NULL;
    lim__sched *home = lim__sched_of(rt, target);
    if (!home)
        return LIM_OK; /* nobody can be there */
    lim__letter *l = lim__exit_letter(rt, s);
    if (!l)
        return LIM_E_NOMEM;
    l->to = target;
    l->reason = reason == LIM_REASON_NONE ? LIM_NORMAL : reason;
    l->at_ns = rt->os->now_ns(rt->os);
    if (s) {
        lim__route(s, l);
        return LIM_OK;
    }
    lim__inbox_push(home, l, l);
    lim__sched_wake(NULL, home);
    return LIM_OK;
}

/* ---- taking ---- */
static void uncount_message(lim__sched *s, const lim__letter *l)
{
    lim__bump(&s->counters.messages, (uint64_t)-1);
    lim__bump(&s->counters.letter_bytes, (uint64_t)0 - (sizeof *l + l->len));
}

void lim__message_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    uncount_message(s, l);
    lim_signal signal = { .kind = LIM_SIGNAL_MESSAGE,
                          .tag = l->tag,
                          .from = l->from,
                          .ref = l->ref,
                          .body = { l + 1, l->len },
                          .type = l->type };
    s->letter = l;
    lim__signal_show(p, &signal);
    if (LIM_LIKELY(s->letter != NULL)) { /* not kept */
        s->letter = NULL;
        lim__letter_drop(s, l);
    }
}

static void exit_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    bool linked = lim__link_is_exit(l), counts = !linked || lim__link_exit_counts(s, p, l);
    lim_signal signal = {
        .kind = LIM_SIGNAL_EXIT, .from = l->from, .reason = (lim_reason)l->reason, .at_ns = l->at_ns
    };
    lim__block_give(s, l, l->klass);
    if (!counts)
        return;
    if (!linked && signal.reason == LIM_KILL) {
        lim__process_end(p, LIM_KILLED);
    } else if (p->trap) {
        lim__signal_show(p, &signal);
        if (LIM__MUTATION("double_exit") && !lim__ending(p))
            lim__signal_show(p, &signal);
    } else if (signal.reason != LIM_NORMAL) {
        lim__process_end(p, signal.reason);
    }
}

static void down_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    lim__ref_kind kind;
    lim__monitor *m = monitor_of(s, p, l->ref, &kind);
    if (m && kind == LIM__REF_REQUEST) {
        lim__request_answer(s, p, l);
        return;
    }
    lim_signal signal = {
        .kind = LIM_SIGNAL_DOWN, .from = l->from, .ref = l->ref, .reason = (lim_reason)l->reason, .at_ns = l->at_ns
    };
    lim__block_give(s, l, l->klass);
    if (!m)
        return;
    lim__monitor_end(p, m, true);
    lim__signal_show(p, &signal);
}

static void timer_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    lim_signal signal = { .kind = LIM_SIGNAL_TIMER, .tag = l->reason, .ref = l->ref };
    lim__refs_give(s, l->ref);
    lim__timer_discard(s, (lim__timer *)l);
    lim__signal_show(p, &signal);
}

static void due_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    lim_signal signal = { .kind = LIM_SIGNAL_TIMER, .tag = LIM__TAG_DEADLINE };
    lim__block_give(s, l, l->klass);
    lim__signal_show(p, &signal);
}

static void demonitor_take(lim__sched *s, lim__letter *l)
{
    lim__watcher *w = (lim__watcher *)(uintptr_t)l->ref;
    lim__node_remove(&w->node);
    lim__block_give(s, w, w->letter.klass);
    lim__block_give(s, l, l->klass);
}

void lim__signal_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    switch ((lim__kind)l->kind) {
    case LIM__MESSAGE:
        lim__message_take(s, p, l);
        break;
    case LIM__EXIT:
        exit_take(s, p, l);
        break;
    case LIM__DOWN:
        down_take(s, p, l);
        break;
    case LIM__TIMER:
        timer_take(s, p, l);
        break;
    case LIM__DUE:
        due_take(s, p, l);
        break;
    case LIM__RESPONSE:
        uncount_message(s, l);
        lim__request_answer(s, p, l);
        break;
    case LIM__TIMEOUT:
        lim__request_answer(s, p, l);
        break;
    case LIM__LINK:
        lim__link_take(p, l);
        break;
    case LIM__UNLINK:
        lim__unlink_take(s, p, l);
        break;
    case LIM__MONITOR:
        lim__node_insert(&p->watchers, &((lim__watcher *)l)->node);
        break;
    case LIM__DEMONITOR:
        demonitor_take(s, l);
        break;
    case LIM__UNLINKED:
    case LIM__VOID:
        lim__block_give(s, l, l->klass);
        break;
    case LIM__HOME:
        (void)LIM_NEVER(true); /* has no address */
        break;
    }
}

/* ---- death ---- */
void lim__signal_undeliverable(lim__sched *s, lim__letter *l)
{
    lim_pid gone = l->to;
    switch ((lim__kind)l->kind) {
    case LIM__MESSAGE:
    case LIM__RESPONSE:
        uncount_message(s, l);
        lim__letter_drop(s, l);
        break;
    case LIM__LINK:
        lim__link_nobody(s, l);
        break;
    case LIM__UNLINK: /* goes home, whether or not there was something to unlink */
        l->kind = LIM__UNLINKED;
        l->to = l->from;
        l->from = gone;
        lim__route(s, l);
        break;
    case LIM__MONITOR:
        watcher_send_down(s, (lim__watcher *)l, LIM_NOPROC);
        break;
    case LIM__EXIT:
    case LIM__DOWN:
    case LIM__TIMER:
    case LIM__UNLINKED:
    case LIM__DEMONITOR:
    case LIM__TIMEOUT:
    case LIM__DUE:
    case LIM__VOID:
        lim__block_give(s, l, l->klass);
        break;
    case LIM__HOME: /* addressed to nobody, so that it is found here and costs other letters nothing */
        lim__job_home(s, l);
        break;
    }
}

/* Nobody will be shown it; what else it is, or has, goes with it. */
static void drop_signal(lim__sched *s, lim_process *p, lim__letter *l)
{
    if (l->kind == LIM__EXIT && (l->link & LIM__LINK_POSTED))
        (void)lim__link_exit_counts(s, p, l);
    if (l->kind == LIM__TIMER) {
        lim__refs_give(s, l->ref);
        lim__timer_discard(s, (lim__timer *)l);
        return;
    }
    lim__signal_undeliverable(s, l);
}

/* What the two ends say to each other is acted on, so that nobody waits for an answer; the rest is dropped. */
static void drain_mailbox(lim__sched *s, lim_process *p)
{
    lim__letter *l;
    while ((l = lim__mailbox_take(p)) != NULL)
        switch ((lim__kind)l->kind) {
        case LIM__LINK:
        case LIM__UNLINK:
        case LIM__UNLINKED:
        case LIM__MONITOR:
        case LIM__DEMONITOR:
            lim__signal_take(s, p, l);
            break;
        case LIM__MESSAGE:
        case LIM__EXIT:
        case LIM__DOWN:
        case LIM__TIMER:
        case LIM__RESPONSE:
        case LIM__TIMEOUT:
        case LIM__DUE:
        case LIM__VOID:
        case LIM__HOME:
            drop_signal(s, p, l);
            break;
        }
}

void lim__signals_tell_end(lim__sched *s, lim_process *p)
{
    while (p->rare && p->rare->monitors) /* before the mailbox: a fired deadline of a request is in there */
        lim__monitor_end(p, (lim__monitor *)p->rare->monitors, false);
    drain_mailbox(s, p);
    lim__links_tell_end(s, p);
    while (p->watchers) {
        lim__watcher *w = (lim__watcher *)p->watchers;
        lim__node_remove(&w->node);
        watcher_send_down(s, w, (lim_reason)p->reason);
    }
}
