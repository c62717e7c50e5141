/* SPDX-License-Identifier: Apache-2.0
 * link.c - links: who dies with whom, told exactly once, without an allocation when it happens, in 56 bytes.
 *
 * A link between two processes of one scheduler is one block with a place in the list of each. When one of them dies
 * the block becomes the EXIT for the other: of both sides only one can ever be told. The letter lies under the link:
 *
 *   byte   0        8        16       24       32           40       48      56
 *   link   | second: in b's  | a      | b      |     |bytes | first: in a's  |      bytes: kind, flags, class, link
 *   EXIT   | next   | at     | to     | from   | why |bytes | its place in the list of who gets it
 *
 * It stays in the survivor's list until it is taken, so that an unlink finds it there and mutes it. A dying first side
 * has the other one moved to `first`.
 *
 * A link that goes to another scheduler is a pair of ends, one such block at each process (a: its owner), allocated
 * together by lim_link. The far end travels to its process as the LINK letter. Each end knows the address of the other
 * as a cookie that comes back in EXIT and UNLINK, and only the end's owner follows it.
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
 * already waits in the mailbox, or its sender is just being buried.
 *
 * Finding a link by its peer: the list of whoever has few is searched. Who has many has a map, in which are only those
 * links that could not be found from the other side: a hub of a million conversations has an empty one.
 *
 * Invariants:
 *   S1  a link is LINKED or MUTED in the list of each that may still hear of it; an end that is UNLINKING is in no
 * list. S2  a process holds at most one near link to a peer, and of far ones two that are LINKED: its own and the
 * peer's. S3  a LINKED end at a living process means exactly one EXIT or UNLINK will still come for it, or it will send
 * one. S5  of a process with a map: in it are its far LINKED ends, and near links whose EXIT waits; a near link to
 * another one with a map is in at least one of the two. */
#include "actor/internal.h"

/* ---- finding a link by peer ---- */
static uint64_t index_key(lim_pid other, bool mine)
{
    return (other.id << 1 | other.id >> 63) ^ mine; /* the node's top bit is never set (nodes are below 128) */
}

static lim__map *index_of(const lim_process *p)
{
    return p->rare ? p->rare->link_index : NULL;
}

static void index_drop(lim_process *p)
{
    if (LIM_LIKELY(!index_of(p)))
        return;
    lim__map_fini(p->rare->link_index);
    lim__free(p->sched, p->rare->link_index, sizeof *p->rare->link_index);
    p->rare->link_index = NULL;
}

/* Near ones are all `mine`: there is at most one between two processes. */
static bool is_mine(const lim__link *k)
{
    return k->link & (LIM__LINK_NEAR | LIM__LINK_MINE);
}

static void index_add(lim_process *p, lim__node *n)
{
    lim__link *k = lim__link_of(n);
    if (index_of(p) && lim__map_put(index_of(p), index_key(lim__link_other(n), is_mine(k)), n) != LIM_OK)
        index_drop(p); /* no memory: scan until the next attempt */
}

static void index_remove(lim_process *p, const lim__node *n)
{
    if (LIM_LIKELY(!p || !index_of(p)))
        return;
    uint64_t key = index_key(lim__link_other(n), is_mine(lim__link_of(n)));
    if (lim__map_get(index_of(p), key) == n)
        lim__map_remove(index_of(p), key);
}

/* Whose other side cannot be asked, or would have to be searched, too. */
static bool is_indexed(const lim_process *p, const lim__node *n)
{
    const lim__link *k = lim__link_of(n);
    if ((k->link & (LIM__LINK_NEAR | LIM__LINK_POSTED)) != LIM__LINK_NEAR)
        return true;
    const lim_process *peer = lim__process_of(p->sched, lim__link_other(n));
    return !peer || index_of(peer);
}

static void index_build(lim_process *p)
{
    lim__rare *rare = lim__process_rare(p);
    if (!rare)
        return;
    rare->link_index = lim__alloc(p->sched, sizeof *rare->link_index);
    if (!rare->link_index)
        return;
    lim__map_init(rare->link_index, p->pid.id);
    for (lim__node *n = p->links; n && rare->link_index; n = n->next)
        if (lim__link_phase_of(lim__link_of(n)) == LIM__LINKED && is_indexed(p, n))
            index_add(p, n);
}

/* The place of the link in the list of p, which is searched. */
static lim__node *scan(const lim_process *p, lim_pid other, bool mine)
{
    for (lim__node *n = p->links; n; n = n->next) {
        const lim__link *k = lim__link_of(n);
        if (lim__link_other(n).id == other.id && is_mine(k) == mine && lim__link_phase_of(k) == LIM__LINKED)
            return n;
    }
    return NULL;
}

static lim__node *other_place(lim__node *n)
{
    return lim__link_is_first(n) ? &lim__link_of(n)->second : &lim__link_of(n)->first;
}

/* p's place in a link that is LINKED; NULL: there is none. Whoever has few links is searched. */
static lim__node *find_link(const lim_process *p, lim_pid other, bool mine)
{
    if (LIM_LIKELY(!index_of(p)))
        return scan(p, other, mine);
    const lim_process *peer = mine ? lim__near_process(p->sched, other) : NULL;
    lim__node *n = peer && !index_of(peer) ? scan(peer, p->pid, true) : NULL;
    if (n)
        return other_place(n);
    n = lim__map_get(index_of(p), index_key(other, mine));
    if (n || !peer || !index_of(peer))
        return n;
    n = lim__map_get(index_of(peer), index_key(p->pid, true));
    return n ? other_place(n) : NULL;
}

/* ---- links ---- */
/* peer: that of a near one, if it lives. */
static void attach(lim_process *p, lim__node *n, const lim_process *peer)
{
    lim__node_insert(&p->links, n);
    p->link_count++;
    if (LIM_UNLIKELY(index_of(p) != NULL)) {
        if (!peer || index_of(peer))
            index_add(p, n);
    } else if (LIM_UNLIKELY(p->link_count >= LIM__LINKS_SCANNED_MAX && (p->link_count & (p->link_count - 1)) == 0)) {
        index_build(p); /* after a failure: tried again at the next power of two */
    }
}

static void detach(lim_process *p, lim__node *n)
{
    index_remove(p, n);
    lim__node_remove(n);
    p->link_count--;
    lim__bump(&p->sched->counters.link_ends, (uint64_t)-1);
    if (p->link_count == 0)
        index_drop(p);
}

static void set_phase(lim__link *k, lim__link_phase phase)
{
    k->link = (uint8_t)((k->link & ~LIM__LINK_PHASE) | phase);
}

static void mute(lim_process *p, lim__node *n)
{
    index_remove(p, n);
    set_phase(lim__link_of(n), LIM__MUTED);
}

static void link_free(lim__sched *s, lim__link *k)
{
    lim__block_give(s, k, k->klass);
}

/* From here on it is a letter. */
static void link_send(lim__sched *s, lim__link *k, lim__kind kind, lim_pid to, lim_pid from, uint64_t ref)
{
    lim__letter *l = &k->letter;
    l->kind = kind;
    l->to = to;
    l->from = from;
    l->ref = ref;
    lim__route(s, l);
}

static void far_send_exit(lim__sched *s, lim__link *k, const lim__link *cookie, lim_pid to, lim_pid from,
                          lim_reason reason)
{
    k->letter.reason = reason;
    k->letter.at_ns = s->now_ns;
    link_send(s, k, LIM__EXIT, to, from, (uint64_t)(uintptr_t)cookie);
}

/* The link that p dies of becomes the EXIT that it was kept for; it stays in the list of who gets it, as `first`. */
static void near_send_exit(lim_process *p, lim__node *n, lim_reason reason)
{
    lim__sched *s = p->sched;
    lim__link *k = lim__link_of(n);
    lim_pid other = lim__link_other(n);
    bool survivor_is_first = !lim__link_is_first(n);
    lim_process *survivor = lim__process_of(s, other);
    LIM_ASSERT(survivor);
    detach(p, n);
    if (!survivor_is_first) {
        index_remove(survivor, &k->second);
        lim__node_remove(&k->second);
        lim__node_insert(&survivor->links, &k->first);
    } else {
        k->link &= (uint8_t)~LIM__LINK_SUPERVISED;
    }
    k->link |= LIM__LINK_POSTED;
    lim__letter *l = &k->letter; /* not ref: there is `first` */
    l->kind = LIM__EXIT;
    l->to = other;
    l->from = p->pid;
    l->reason = reason;
    l->at_ns = s->now_ns;
    index_add(survivor, &k->first);
    lim__route(s, l);
}

lim_err lim__link_reserve(lim__sched *s, bool both_here, lim__link_pair *pair)
{
    pair->near = lim__letter_block(s, LIM__LINK_BYTES);
    pair->far = both_here ? NULL : lim__letter_block(s, LIM__LINK_BYTES);
    if (LIM_LIKELY(pair->near && (both_here || pair->far)))
        return LIM_OK;
    lim__link_cancel(s, pair);
    return LIM_E_NOMEM;
}

void lim__link_cancel(lim__sched *s, lim__link_pair *pair)
{
    if (pair->near)
        link_free(s, pair->near);
    if (pair->far)
        link_free(s, pair->far);
    *pair = (lim__link_pair){ 0 };
}

static void link_near(lim_process *parent, lim_process *child, lim__link *k, bool supervised)
{
    k->a = parent->pid;
    k->b = child->pid;
    k->link = (uint8_t)(LIM__LINKED | LIM__LINK_NEAR | (supervised ? LIM__LINK_SUPERVISED : 0));
    lim__bump(&parent->sched->counters.link_ends, 2);
    attach(parent, &k->first, child);
    attach(child, &k->second, parent);
}

static void attach_far(lim_process *p, lim__link *k, lim_pid other, lim__link *peer)
{
    k->a = p->pid;
    k->b = other;
    k->peer = peer;
    attach(p, &k->first, NULL);
}

void lim__link_commit(lim_process *parent, lim_process *child, const lim__link_pair *pair, bool supervised)
{
    if (LIM_LIKELY(!pair->far)) {
        link_near(parent, child, pair->near, supervised);
        return;
    }
    lim__bump(&parent->sched->counters.link_ends, 2); /* both counted by who made them */
    pair->near->link = LIM__LINKED | LIM__LINK_MINE;
    pair->far->link = (uint8_t)(LIM__LINKED | (supervised ? LIM__LINK_SUPERVISED : 0));
    attach_far(parent, pair->near, child->pid, pair->far);
    attach_far(child, pair->far, parent->pid, pair->near);
}

static void link_far(lim_process *self, lim_pid other, const lim__link_pair *pair)
{
    lim__sched *s = self->sched;
    lim__bump(&s->counters.link_ends, 2);
    pair->near->link = LIM__LINKED | LIM__LINK_MINE;
    pair->far->link = LIM__LINKED;
    attach_far(self, pair->near, other, pair->far);
    /* nobody there: lim__signal_undeliverable makes it an EXIT noproc */
    link_send(s, pair->far, LIM__LINK, other, self->pid, (uint64_t)(uintptr_t)pair->near);
}

/* It is dead, or was never there: that is told as by any other link. */
static void link_dead(lim_process *self, lim_pid other, lim__link *k)
{
    lim__sched *s = self->sched;
    k->a = self->pid;
    k->link = LIM__LINKED | LIM__LINK_NEAR | LIM__LINK_POSTED;
    lim__letter *l = &k->letter;
    l->kind = LIM__EXIT;
    l->to = self->pid;
    l->from = other;
    l->reason = LIM_NOPROC;
    l->at_ns = s->now_ns;
    lim__bump(&s->counters.link_ends, 1);
    attach(self, &k->first, NULL);
    lim__route(s, l);
}

lim_err lim_link(lim_process *self, lim_pid other)
{
    if (lim__is_away(self))
        return lim__away_link(self, other);
    lim__sched *s = self->sched;
    bool near = lim__is_near(s, other);
    if (other.id == self->pid.id || find_link(self, other, true) || (!near && find_link(self, other, false)))
        return LIM_OK;
    lim__link_pair pair;
    if (lim__link_reserve(s, near, &pair) != LIM_OK)
        return LIM_E_NOMEM;
    lim_process *peer = lim__near_process(s, other);
    if (peer)
        link_near(self, peer, pair.near, false);
    else if (near)
        link_dead(self, other, pair.near);
    else
        link_far(self, other, &pair);
    return LIM_OK;
}

static void unlink_far(lim_process *p, lim__node *n)
{
    lim__link *k = lim__link_of(n);
    lim_pid other = k->b;
    uint64_t cookie = (uint64_t)(uintptr_t)k->peer;
    detach(p, n);
    set_phase(k, LIM__UNLINKING);
    link_send(p->sched, k, LIM__UNLINK, other, p->pid, cookie);
}

static void unlink_near(lim_process *p, lim__node *n)
{
    lim_process *peer = lim__process_of(p->sched, lim__link_other(n));
    lim__link *k = lim__link_of(n);
    if (!peer) { /* its EXIT is in the mailbox, or about to be */
        mute(p, n);
        return;
    }
    detach(peer, other_place(n));
    detach(p, n);
    link_free(p->sched, k);
}

void lim_unlink(lim_process *self, lim_pid other)
{
    if (lim__is_away(self)) {
        lim__away_unlink(self, other);
        return;
    }
    if (LIM__MUTATION("drop_unlink"))
        return;
    bool near = lim__is_near(self->sched, other);
    lim__node *n = find_link(self, other, true);
    if (n && near)
        unlink_near(self, n);
    if (near)
        return;
    if (n)
        unlink_far(self, n);
    n = find_link(self, other, false);
    if (n)
        unlink_far(self, n);
}

/* ---- letters ---- */
static bool far_exit_counts(lim__sched *s, lim_process *p, const lim__letter *l)
{
    lim__link *k = (lim__link *)(uintptr_t)l->ref;
    if (lim__link_phase_of(k) == LIM__UNLINKING)
        return false; /* UNLINKED is behind this EXIT and frees it */
    bool muted = lim__link_phase_of(k) == LIM__MUTED;
    lim__node *twin = find_link(p, l->from, !is_mine(k));
    if (!muted && twin)
        mute(p, twin);
    detach(p, &k->first);
    link_free(s, k);
    return !muted;
}

/* The letter is the link itself. */
static bool near_exit_counts(lim_process *p, lim__letter *l)
{
    lim__link *k = (lim__link *)l;
    detach(p, &k->first);
    return lim__link_phase_of(k) != LIM__MUTED;
}

bool lim__link_exit_counts(lim__sched *s, lim_process *p, lim__letter *l)
{
    return l->link & LIM__LINK_POSTED ? near_exit_counts(p, l) : far_exit_counts(s, p, l);
}

void lim__link_take(lim_process *p, lim__letter *l)
{
    attach_far(p, (lim__link *)l, l->from, (lim__link *)(uintptr_t)l->ref);
}

void lim__unlink_take(lim__sched *s, lim_process *p, lim__letter *l)
{
    lim__link *k = (lim__link *)(uintptr_t)l->ref;
    if (lim__link_phase_of(k) == LIM__LINKED) {
        detach(p, &k->first);
        link_free(s, k);
    } else {
        LIM_ASSERT(lim__link_phase_of(k) == LIM__UNLINKING); /* crossed; ours comes home by itself */
    }
    lim__signal_undeliverable(s, l); /* sends the block home */
}

void lim__link_nobody(lim__sched *s, lim__letter *l)
{
    lim_pid to = l->from, gone = l->to;
    lim__bump(&s->counters.link_ends, (uint64_t)-1);
    far_send_exit(s, (lim__link *)l, (lim__link *)(uintptr_t)l->ref, to, gone, LIM_NOPROC);
}

static void tell_near_link(lim__sched *s, lim_process *p, lim__node *n)
{
    lim__link *k = lim__link_of(n);
    if (lim__link_phase_of(k) != LIM__MUTED) {
        near_send_exit(p, n, (lim_reason)p->reason);
        return;
    }
    lim_process *survivor = lim__process_of(s, lim__link_other(n)); /* it wants to hear nothing of this */
    LIM_ASSERT(survivor);
    detach(survivor, other_place(n));
    detach(p, n);
    link_free(s, k);
}

static void tell_far_link(lim__sched *s, lim_process *p, lim__node *n)
{
    lim__link *k = lim__link_of(n);
    lim_pid other = k->b;
    const lim__link *cookie = k->peer;
    bool muted = lim__link_phase_of(k) == LIM__MUTED;
    detach(p, n);
    if (muted)
        link_free(s, k); /* the EXIT for it will find nobody here */
    else
        far_send_exit(s, k, cookie, other, p->pid, (lim_reason)p->reason);
}

void lim__links_tell_end(lim__sched *s, lim_process *p)
{
    index_drop(p); /* every link goes; no need to keep it in step */
    while (p->links) {
        if (lim__link_of(p->links)->link & LIM__LINK_NEAR)
            tell_near_link(s, p, p->links);
        else
            tell_far_link(s, p, p->links);
    }
}
