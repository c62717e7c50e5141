/* SPDX-License-Identifier: Apache-2.0
 * signal.c - links, monitors, and what each kind of letter does when its turn in the mailbox has come.
 *
 * A link is a pair of ends, one block at each process, allocated together by lim_link. Each end starts with a letter
 * header, so that it can become the EXIT it promises: dying allocates nothing. On one scheduler both ends are changed
 * directly; across schedulers the far end travels to its process as the LINK letter. Each end knows the address of the
 * other as a cookie that comes back in EXIT and UNLINK, and only the end's owner follows it.
 *
 *      lim_link   --LINK (block b)--> b in other's list        no such process: b comes back as EXIT noproc
 *      death      own end a --EXIT(cookie b)--> b freed, reason obeyed or shown
 *      lim_unlink LINKED -> UNLINKING: a travels --UNLINK(cookie b)--> b freed (if LINKED) --UNLINKED--> a freed
 *                 an EXIT(cookie a) that meets a in UNLINKING is swallowed
 *                 two UNLINKs that cross: each block goes home as UNLINKED, nobody frees the other's
 *
 * Why a cookie is always alive when it is followed (all letters between two schedulers keep their order): an end is
 * freed by EXIT, after which the dead peer sends nothing; or by UNLINK, after which the peer sends nothing but the
 * UNLINKED was behind everything else; or by UNLINKED, ditto. Letters for a dead process are not followed at all.
 *
 * If both sides link at the same time there are two pairs. The first EXIT taken mutes the twin (its own EXIT is
 * certain to come), so one exit is seen per link. The same phase serves lim_unlink on one scheduler when the EXIT
 * already waits in the mailbox.
 *
 * A monitor is a block at the watcher, found by its number, and a block at the target that becomes the DOWN. lim_
 * demonitor forgets the number, so a DOWN on its way is swallowed; the watcher's block travels as DEMONITOR to free
 * the target's.
 *
 * Invariants:
 *   S1  an end is LINKED or MUTED in its owner's list, or UNLINKING in no list.
 *   S2  a process holds at most two LINKED ends of one peer: one it made and one the peer made.
 *   S3  a LINKED end at a living process means exactly one EXIT or UNLINK will still come for it, or it will send one.
 *   S4  a monitor's number is in the table exactly as long as its DOWN, or its answer, has not been seen. */
#include "actor/internal.h"

/* ---- finding a link by peer ---- */
static uint64_t index_key(lim_pid other, bool mine)
{
    return (other.id << 1 | other.id >> 63) ^ mine; /* the node's top bit is never set (nodes are below 128) */
}

static void index_drop(lim_process *p)
{
    if (!p->link_index)
        return;
    lim__map_fini(p->link_index);
    lim__free(p->sched, p->link_index, sizeof *p->link_index);
    p->link_index = NULL;
}

static void index_add(lim_process *p, lim__link_end *e)
{
    if (lim__map_put(p->link_index, index_key(e->other, e->mine), e) != LIM_OK)
        index_drop(p); /* no memory: scan until the next attempt */
}

static void index_build(lim_process *p)
{
    p->link_index = lim__alloc(p->sched, sizeof *p->link_index);
    if (!p->link_index)
        return;
    lim__map_init(p->link_index, p->pid.id);
    for (lim__node *n = p->links; n && p->link_index; n = n->next) {
        lim__link_end *e = LIM_CONTAINER(n, lim__link_end, node);
        if (e->phase == LIM__LINKED)
            index_add(p, e);
    }
}

static void index_remove(lim_process *p, lim__link_end *e)
{
    if (!p->link_index)
        return;
    uint64_t key = index_key(e->other, e->mine);
    if (lim__map_get(p->link_index, key) == e)
        lim__map_remove(p->link_index, key);
}

static lim__link_end *find_end(lim_process *p, lim_pid other, bool mine)
{
    if (p->link_index)
        return lim__map_get(p->link_index, index_key(other, mine));
    for (lim__node *n = p->links; n; n = n->next) {
        lim__link_end *e = LIM_CONTAINER(n, lim__link_end, node);
        if (e->other.id == other.id && e->mine == mine && e->phase == LIM__LINKED)
            return e;
    }
    return NULL;
}

/* ---- ends ---- */
static void end_attach(lim_process *p, lim__link_end *e)
{
    e->phase = LIM__LINKED;
    lim__node_insert(&p->links, &e->node);
    p->link_count++;
    if (p->link_index)
        index_add(p, e);
    else if (p->link_count >= LIM__LINKS_SCANNED_MAX && (p->link_count & (p->link_count - 1)) == 0)
        index_build(p); /* after a failure: tried again at the next power of two */
}

static void end_detach(lim_process *p, lim__link_end *e)
{
    index_remove(p, e);
    lim__node_remove(&e->node);
    p->link_count--;
    lim__bump(&p->sched->counters.link_ends, (uint64_t)-1);
    if (p->link_count == 0)
        index_drop(p);
}

static void end_mute(lim_process *p, lim__link_end *e)
{
    index_remove(p, e);
    e->phase = LIM__MUTED;
}

static void end_free(lim__sched *s, lim__link_end *e)
{
    lim__block_give(s, e, e->letter.klass);
}

/* The end becomes the EXIT that it was kept for. */
static void end_send_exit(lim__sched *s, lim__link_end *e, lim_pid from, lim_reason reason)
{
    lim__letter *l = &e->letter;
    l->kind = LIM__EXIT;
    l->to = e->other;
    l->from = from;
    l->ref = (uint64_t)(uintptr_t)e->peer;
    l->reason = reason;
    l->at_ns = s->now_ns;
    lim__route(s, l);
}

lim_err lim__link_reserve(lim__sched *s, lim__link_pair *pair)
{
    pair->near = lim__letter_block(s, sizeof *pair->near);
    pair->far = lim__letter_block(s, sizeof *pair->far);
    if (LIM_LIKELY(pair->near && pair->far))
        return LIM_OK;
    lim__link_cancel(s, pair);
    return LIM_E_NOMEM;
}

void lim__link_cancel(lim__sched *s, lim__link_pair *pair)
{
    if (pair->near)
        end_free(s, pair->near);
    if (pair->far)
        end_free(s, pair->far);
    *pair = (lim__link_pair){ 0 };
}

static void pair_up(lim__sched *s, const lim__link_pair *pair, lim_pid near, lim_pid far)
{
    lim__link_end *a = pair->near, *b = pair->far;
    a->other = far;
    a->peer = b;
    a->mine = true;
    b->other = near;
    b->peer = a;
    b->letter.kind = LIM__LINK;
    b->letter.from = near;
    b->letter.to = far;
    lim__bump(&s->counters.link_ends, 2); /* both counted by who made them */
}

void lim__link_commit(lim_process *parent, lim_process *child, const lim__link_pair *pair)
{
    pair_up(parent->sched, pair, parent->pid, child->pid);
    end_attach(parent, pair->near);
    end_attach(child, pair->far);
}

/* Not on another scheduler: the peer can be looked at directly, or can never exist. */
static bool is_near(const lim__sched *s, lim_pid other)
{
    lim__sched *target = lim__sched_of(s->rt, other);
    return target == s || !target;
}

static lim_process *near_process(const lim__sched *s, lim_pid other)
{
    return lim__sched_of(s->rt, other) == s ? lim__process_of(s, other) : NULL;
}

lim_err lim_link(lim_process *self, lim_pid other)
{
    if (lim__is_away(self))
        return lim__away_link(self, other);
    lim__sched *s = self->sched;
    if (other.id == self->pid.id || find_end(self, other, true) || find_end(self, other, false))
        return LIM_OK;
    lim__link_pair pair;
    if (lim__link_reserve(s, &pair) != LIM_OK)
        return LIM_E_NOMEM;
    lim_process *peer = near_process(s, other);
    if (peer) {
        lim__link_commit(self, peer, &pair);
        return LIM_OK;
    }
    pair_up(s, &pair, self->pid, other);
    end_attach(self, pair.near);
    lim__route(s, &pair.far->letter); /* nobody there: lim__signal_undeliverable makes it an EXIT noproc */
    return LIM_OK;
}

static void unlink_end(lim_process *p, lim__link_end *e)
{
    lim__sched *s = p->sched;
    if (!is_near(s, e->other)) {
        end_detach(p, e);
        e->phase = LIM__UNLINKING;
        lim__letter *l = &e->letter;
        l->kind = LIM__UNLINK;
        l->to = e->other;
        l->from = p->pid;
        l->ref = (uint64_t)(uintptr_t)e->peer;
        lim__route(s, l);
        return;
    }
    lim_process *peer = near_process(s, e->other);
    if (!peer) { /* its EXIT is in the mailbox, or about to be */
        end_mute(p, e);
        return;
    }
    end_detach(peer, e->peer);
    end_free(s, e->peer);
    end_detach(p, e);
    end_free(s, e);
}

void lim_unlink(lim_process *self, lim_pid other)
{
    if (lim__is_away(self)) {
        lim__away_unlink(self, other);
        return;
    }
    if (LIM__MUTATION("drop_unlink"))
        return;
    for (int mine = 0; mine < 2; mine++) {
        lim__link_end *e = find_end(self, other, mine);
        if (e)
            unlink_end(self, e);
    }
}

/* ---- monitors ---- */
lim_err lim__monitor_reserve(lim_process *watcher, lim_pid target, lim__ref_kind kind, lim__monitor_pair *pair)
{
    lim__sched *s = watcher->sched;
    lim__monitor *m = lim__letter_block(s, sizeof *m);
    lim__watcher *w = lim__letter_block(s, sizeof *w);
    uint64_t ref = 0;
    *pair = (lim__monitor_pair){ m, w };
    if (!m || !w || lim__refs_take(s, kind, m, &ref) != LIM_OK) {
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
    lim__node_insert(&watcher->monitors, &m->node);
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
    lim_process *target = near_process(s, pair->near->letter.to);
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
    if (!target_dead && !is_near(s, m->letter.to)) {
        m->letter.kind = LIM__DEMONITOR;
        m->letter.ref = (uint64_t)(uintptr_t)m->far;
        lim__route(s, &m->letter);
        return;
    }
    lim_process *target = target_dead ? NULL : near_process(s, m->letter.to);
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

/* What the end of the link, if there is one, says about an EXIT: true if it is to be obeyed. */
static bool exit_counts(lim__sched *s, lim_process *p, const lim__letter *l)
{
    lim__link_end *e = (lim__link_end *)(uintptr_t)l->ref;
    if (!e)
        return true;
    if (e->phase == LIM__UNLINKING)
        return false; /* UNLINKED is behind this EXIT and frees it */
    bool muted = e->phase == LIM__MUTED;
    lim__link_end *twin = find_end(p, l->from, !e->mine);
    if (!muted && twin)
        end_mute(p, twin);
    end_detach(p, e);
    end_free(s, e);
    return !muted;
}

static void exit_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    bool counts = exit_counts(s, p, l), linked = l->ref != 0;
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
        if (LIM__MUTATION("double_exit"))
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
    lim_signal signal = { .kind = LIM_SIGNAL_TIMER, .tag = l->tag, .ref = l->ref };
    lim__refs_give(s, l->ref);
    lim__timer_discard(s, (lim__timer *)l);
    lim__signal_show(p, &signal);
}

static void link_take(lim_process *p, lim__letter *l)
{
    end_attach(p, (lim__link_end *)l);
}

static void unlink_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    lim__link_end *e = (lim__link_end *)(uintptr_t)l->ref;
    if (e->phase == LIM__LINKED) {
        end_detach(p, e);
        end_free(s, e);
    } else {
        LIM_ASSERT(e->phase == LIM__UNLINKING); /* crossed; ours comes home by itself */
    }
    lim__signal_undeliverable(s, l); /* sends the block home */
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
    case LIM__RESPONSE:
        uncount_message(s, l);
        lim__request_answer(s, p, l);
        break;
    case LIM__TIMEOUT:
        lim__request_answer(s, p, l);
        break;
    case LIM__LINK:
        link_take(p, l);
        break;
    case LIM__UNLINK:
        unlink_take(s, p, l);
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
        lim__bump(&s->counters.link_ends, (uint64_t)-1);
        end_send_exit(s, (lim__link_end *)l, gone, LIM_NOPROC);
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
    case LIM__VOID:
        lim__block_give(s, l, l->klass);
        break;
    case LIM__HOME: /* addressed to nobody, so that it is found here and costs other letters nothing */
        lim__job_home(s, l);
        break;
    }
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
        case LIM__VOID:
        case LIM__HOME:
            lim__signal_undeliverable(s, l);
            break;
        }
}

static void tell_links(lim__sched *s, lim_process *p)
{
    index_drop(p); /* every end goes; no need to keep it in step */
    while (p->links) {
        lim__link_end *e = LIM_CONTAINER(p->links, lim__link_end, node);
        bool muted = e->phase == LIM__MUTED;
        end_detach(p, e);
        if (muted)
            end_free(s, e); /* the EXIT for it will find nobody here */
        else
            end_send_exit(s, e, p->pid, (lim_reason)p->reason);
    }
}

void lim__signals_tell_end(lim__sched *s, lim_process *p)
{
    while (p->monitors) /* before the mailbox: a fired deadline of a request is in there */
        lim__monitor_end(p, LIM_CONTAINER(p->monitors, lim__monitor, node), false);
    drain_mailbox(s, p);
    tell_links(s, p);
    while (p->watchers) {
        lim__watcher *w = LIM_CONTAINER(p->watchers, lim__watcher, node);
        lim__node_remove(&w->node);
        watcher_send_down(s, w, (lim_reason)p->reason);
    }
}
