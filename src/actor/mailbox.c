/* SPDX-License-Identifier: Apache-2.0
 * mailbox.c - how anything reaches a process.
 *
 * A mailbox is a singly linked FIFO that only its scheduler touches. What other threads send goes through the
 * scheduler's inbox: a stack, pushed with one CAS (a whole outbox at a time), taken whole with one exchange, reversed
 * and dealt out in order.
 *
 *      same scheduler    place_take: room?  ----------------------------------> mailbox
 *      other scheduler   place_take: a far place, room? --> outbox --CAS--> inbox --deal--> mailbox
 *      host thread       place_take: a far place, room? ------------CAS--> inbox --deal--> mailbox
 *
 * What costs time between two processors is a cache line that has to move, so as few as possible do: the line of the
 * inbox, and those of the letters. Far places are granted by the dozen: `far` counts, in one word, how many were ever
 * taken and how many may be taken without asking. Only when the grant is used up does a sender look at the owner's
 * counts. Whatever was granted and not taken counts as used for the owner's own sends; when that makes the mailbox look
 * full they revoke it and look again, so nobody is refused because of it.
 *
 * Invariants:
 *   M1  a letter is in exactly one place.
 *   M2  what one sender pushed first is dealt first: outboxes and the inbox keep order, and a host thread pushes onto
 *       one inbox directly.
 *   M3  inner->local is the number of COUNTED letters in the mailbox; taken - inner->ended the number of RESERVED
 * letters in it or on their way to it. A far place ends exactly once: its letter leaves the mailbox, is dead on
 * arrival, or never was sent (then it is given back to the grant). granted >= taken. M4  messages are counted against
 * mailbox_max, signals never: a full mailbox can still be told to die. M5  after a push, `sleeping` is read; before a
 * sleep, `sleeping` is set and then the inbox read, both sequentially consistent: one of the two sees the other, so no
 * wake is lost.
 *
 * The limit is exact for each sender alone. Owner and others read each other's counts without a fence, and a grant is
 * at most a quarter of what is free: so while schedulers race for the last place of one mailbox it may hold one message
 * more per racing scheduler, never fewer. */
#include "actor/internal.h"

/* ---- places ---- */
void lim__grant_revoke(lim__slot *slot)
{
    uint64_t far = atomic_load_explicit(&slot->far, memory_order_relaxed);
    while (lim__far_granted(far) != lim__far_taken(far)) {
        uint64_t none = far >> 32 << 32 | lim__far_taken(far);
        if (atomic_compare_exchange_weak_explicit(&slot->far, &far, none, memory_order_relaxed, memory_order_relaxed))
            return;
    }
}

/* With the unspent part of the grant it would be. */
static __attribute__((noinline)) bool is_full(lim__slot *slot, const lim__inner *inner, uint32_t max)
{
    lim__grant_revoke(slot);
    return lim__places_used(slot, inner) >= max;
}

/* The way of most messages: one look at the chunk has to do. */
static inline lim_err place_near(lim__sched *s, lim_pid to, lim__place *out)
{
    uint32_t index = lim__pid_slot(to);
    lim__chunk *chunk = lim__chunk_of(s, index);
    if (LIM_UNLIKELY(!chunk))
        return LIM_E_GONE;
    lim__inner *inner = &chunk->inners[index % LIM__CHUNK_SLOTS];
    lim_process *p = atomic_load_explicit(&inner->process, memory_order_acquire);
    if (LIM_UNLIKELY(!p || p->pid.id != to.id || lim__ending(p)))
        return LIM_E_GONE;
    lim__slot *slot = &chunk->slots[index % LIM__CHUNK_SLOTS];
    uint32_t granted = lim__far_granted(atomic_load_explicit(&slot->far, memory_order_relaxed));
    uint32_t max = atomic_load_explicit(&slot->mailbox_max, memory_order_relaxed);
    uint64_t used = (uint64_t)atomic_load_explicit(&inner->local, memory_order_relaxed) +
                    (granted - atomic_load_explicit(&inner->ended, memory_order_relaxed));
    if (LIM_UNLIKELY(used >= max) && is_full(slot, inner, max))
        return LIM_E_FULL;
    *out = (lim__place){ .near = p, .slot = slot, .inner = inner };
    return LIM_OK;
}

/* How many places may be taken now; 0: none is free. */
static uint32_t grant(const lim__slot *slot, const lim__inner *inner)
{
    uint32_t used = lim__places_used(slot, inner);
    uint32_t max = atomic_load_explicit(&slot->mailbox_max, memory_order_relaxed);
    if (used >= max)
        return 0;
    uint32_t share = (max - used) / 4;
    return share < 1 ? 1 : share < LIM__GRANT_MAX ? share : LIM__GRANT_MAX;
}

static lim_err far_take(lim__slot *slot, const lim__inner *inner)
{
    uint64_t far = atomic_load_explicit(&slot->far, memory_order_relaxed), next;
    do {
        uint32_t granted = lim__far_granted(far);
        if (LIM_UNLIKELY(granted == lim__far_taken(far))) {
            uint32_t more = grant(slot, inner);
            if (more == 0)
                return LIM_E_FULL;
            granted += more;
        }
        next = (uint64_t)(lim__far_taken(far) + 1) << 32 | granted;
    } while (
        !atomic_compare_exchange_weak_explicit(&slot->far, &far, next, memory_order_acq_rel, memory_order_relaxed));
    return LIM_OK;
}

/* The pid is read again because the place is only worth something if it was taken while the process lived. */
static lim_err place_far(lim__sched *target, lim_pid to, lim__place *out)
{
    uint32_t index = lim__pid_slot(to);
    lim__chunk *chunk = target && to.id ? lim__chunk_of(target, index) : NULL;
    if (LIM_UNLIKELY(!chunk))
        return LIM_E_GONE;
    lim__slot *slot = &chunk->slots[index % LIM__CHUNK_SLOTS];
    if (atomic_load_explicit(&slot->pid, memory_order_acquire) != to.id)
        return LIM_E_GONE;
    lim_err err = far_take(slot, &chunk->inners[index % LIM__CHUNK_SLOTS]);
    *out = (lim__place){ .slot = slot, .sched = target };
    if (LIM_LIKELY(atomic_load_explicit(&slot->pid, memory_order_acquire) == to.id))
        return err;
    if (err == LIM_OK)
        lim__place_give_back(out);
    lim__grant_revoke(slot); /* it may have been granted by the measure of another mailbox */
    return LIM_E_GONE;
}

lim_err lim__place_take(lim_runtime *rt, lim__sched *s, lim_pid to, lim__place *out)
{
    return s && lim__pid_is_near(to, s->index) ? place_near(s, to, out) : place_far(lim__sched_of(rt, to), to, out);
}

void lim__place_give_back(lim__place *place)
{
    if (!place->near)
        atomic_fetch_sub_explicit(&place->slot->far, 1ull << 32, memory_order_release);
}

/* ---- to other schedulers ---- */
void lim__sched_wake(lim__sched *s, lim__sched *target)
{
    if (atomic_load(&target->sleeping) == 0 || atomic_exchange(&target->sleeping, 0) == 0)
        return;
    if (LIM__MUTATION("lost_wake") && atomic_fetch_add(&target->spared_wakes, 1) % 64 == 63)
        return;
    LIM__COUNT(s, target->rt, wakes, 1);
    target->os->poller_wake(target->os, target->poller);
}

void lim__inbox_push(lim__sched *target, lim__letter *newest, lim__letter *oldest)
{
    lim__letter *head = atomic_load_explicit(&target->inbox, memory_order_relaxed);
    do
        oldest->next = head;
    while (!atomic_compare_exchange_weak(&target->inbox, &head, newest)); /* M5; release: pairs with inbox_deal */
}

/* Who knows when it died needs that place. */
static inline bool points_back(const lim__letter *l)
{
    return l->kind != LIM__EXIT && l->kind != LIM__DOWN;
}

static inline void point_back(lim__outbox *o, lim__letter *l)
{
    const lim__letter **recent = &o->recent[o->count % LIM__LETTERS_AHEAD];
    l->earlier = o->count++ < LIM__LETTERS_AHEAD ? NULL : *recent;
    *recent = l;
}

static void outbox_push(lim__sched *s, lim__sched *target, lim__letter *l)
{
    lim__outbox *o = &s->outbox[target->index];
    if (points_back(l))
        point_back(o, l);
    l->next = o->newest;
    if (!o->newest)
        o->oldest = l;
    o->newest = l;
    s->outbox_mask |= 1ull << target->index;
    s->quiet_slices = 0;
}

static void outbox_flush(lim__sched *s, uint32_t i)
{
    lim__outbox *o = &s->outbox[i];
    lim__sched *target = s->rt->scheds[i];
    s->outbox_mask &= ~(1ull << i);
    lim__inbox_push(target, o->newest, o->oldest);
    o->newest = o->oldest = NULL;
    o->count = 0;
    lim__sched_wake(s, target);
}

void lim__outboxes_push(lim__sched *s)
{
    while (s->outbox_mask)
        outbox_flush(s, (uint32_t)__builtin_ctzll(s->outbox_mask));
}

void lim__outboxes_push_awake(lim__sched *s)
{
    for (uint64_t mask = s->outbox_mask; mask; mask &= mask - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(mask);
        if (atomic_load_explicit(&s->rt->scheds[i]->sleeping, memory_order_relaxed) == 0)
            outbox_flush(s, i);
    }
}

static void send_far(lim__sched *s, lim__sched *target, lim__letter *l)
{
    if (s) {
        outbox_push(s, target, l);
        return;
    }
    lim__inbox_push(target, l, l);
    lim__sched_wake(NULL, target);
}

/* ---- messages ---- */
static inline void push_near(lim__sched *s, const lim__place *place, lim__letter *l)
{
    lim__bump32(&place->inner->local, 1);
    l->flags = LIM__COUNTED;
    lim__count_message(s->rt, s, l);
    lim__mailbox_push(place->near, l);
}

void lim__place_use(lim__sched *s, lim__place *place, lim__letter *l)
{
    if (place->near) {
        push_near(s, place, l);
        return;
    }
    l->flags = LIM__RESERVED;
    lim__count_message(place->sched->rt, s, l);
    send_far(s, place->sched, l);
}

/* The scheduler whose turn the caller is in, if it belongs to rt: its sends keep their order with its other sends. */
static lim__sched *here(const lim_runtime *rt)
{
    lim__sched *s = lim__sched_current();
    return s && s->rt == rt ? s : NULL;
}

static inline lim__letter *write_letter(lim__sched *s, lim_pid from, lim_pid to, uint32_t tag, lim_bytes body)
{
    lim__letter *l = lim__letter_make(s, body.len);
    if (LIM_UNLIKELY(!l))
        return NULL;
    l->to = to;
    l->from = from;
    l->tag = tag;
    if (body.len)
        memcpy(l + 1, body.ptr, body.len);
    return l;
}

static __attribute__((noinline)) lim_err no_letter(size_t len)
{
    return len > LIM__BODY_BYTES_MAX ? LIM_E_TOOBIG : LIM_E_NOMEM;
}

/* Not inlined: it would burden the short way with registers to save. */
static __attribute__((noinline)) lim_err send_bytes(lim_runtime *rt, lim__sched *s, lim_pid from, lim_pid to,
                                                    uint32_t tag, lim_bytes body)
{
    lim__place place;
    lim_err err = lim__place_take(rt, s, to, &place);
    if (LIM_UNLIKELY(err != LIM_OK))
        return err;
    lim__letter *l = write_letter(s, from, to, tag, body);
    if (LIM_UNLIKELY(!l)) {
        lim__place_give_back(&place);
        return no_letter(body.len);
    }
    lim__place_use(s, &place, l);
    return LIM_OK;
}

/* The way of most messages, to the same scheduler, is written out here. */
lim_err lim_send(lim_process *self, lim_pid to, uint32_t tag, lim_bytes body)
{
    lim__sched *s = self->sched;
    if (LIM_UNLIKELY(!lim__pid_is_near(to, s->index) || self->blocking))
        return send_bytes(s->rt, lim__is_away(self) ? NULL : s, self->pid, to, tag, body);
    lim__place place;
    lim_err err = place_near(s, to, &place);
    if (LIM_UNLIKELY(err != LIM_OK))
        return err;
    lim__letter *l = write_letter(s, self->pid, to, tag, body);
    if (LIM_UNLIKELY(!l))
        return no_letter(body.len);
    push_near(s, &place, l);
    return LIM_OK;
}

/* A host thread is seen while it pushes and wakes: what it pushed may be answered, and the answer be the reason to
 * close the runtime, before it has touched the scheduler for the last time. */
static lim__sched *enter(lim_runtime *rt)
{
    lim__sched *s = here(rt);
    if (!s)
        atomic_fetch_add_explicit(&rt->hosting, 1, memory_order_relaxed);
    return s;
}

static lim_err leave(lim_runtime *rt, const lim__sched *s, lim_err err)
{
    if (!s)
        atomic_fetch_sub_explicit(&rt->hosting, 1, memory_order_release); /* pairs with lim_runtime_close */
    return err;
}

lim_err lim_runtime_send(lim_runtime *rt, lim_pid to, uint32_t tag, lim_bytes body)
{
    lim__sched *s = enter(rt);
    return leave(rt, s, send_bytes(rt, s, (lim_pid){ 0 }, to, tag, body));
}

static lim__letter *readdress(void *body, lim_pid from, lim_pid to)
{
    lim__letter *l = (lim__letter *)body - 1;
    l->to = to;
    l->from = from;
    l->kind = LIM__MESSAGE;
    l->flags = 0;
    l->earlier = NULL;
    l->ref = 0;
    l->tag = 0;
    l->reason = 0;
    return l;
}

static lim_err send_letter(lim_runtime *rt, lim__sched *s, lim_pid from, lim_pid to, void *body)
{
    lim__letter *l = readdress(body, from, to);
    lim__place place;
    lim_err err = lim__place_take(rt, s, to, &place);
    if (err != LIM_OK)
        lim__letter_drop(s, l);
    else
        lim__place_use(s, &place, l);
    return err;
}

/* Never counted: its room was reserved when it was asked for. */
static lim_err send_uncounted(lim_runtime *rt, lim__sched *s, lim_pid from, lim_pid to, void *body)
{
    lim__letter *l = readdress(body, from, to);
    if (!lim_alive(rt, to)) {
        lim__letter_drop(s, l);
        return LIM_E_GONE;
    }
    lim__count_message(rt, s, l);
    lim__sched *target = lim__sched_of(rt, to);
    if (target == s)
        lim__deal(s, l);
    else
        send_far(s, target, l);
    return LIM_OK;
}

lim_err lim__send(lim_process *self, lim_pid to, void *body)
{
    return send_letter(self->sched->rt, self->sched, self->pid, to, body);
}

lim_err lim__post(lim_runtime *rt, lim_pid to, void *body)
{
    lim__sched *s = enter(rt);
    return leave(rt, s, send_letter(rt, s, (lim_pid){ 0 }, to, body));
}

lim_err lim__send_reserved(lim_process *self, lim_pid to, void *body)
{
    return send_uncounted(self->sched->rt, self->sched, self->pid, to, body);
}

lim_err lim__post_reserved(lim_runtime *rt, lim_pid to, void *body)
{
    lim__sched *s = enter(rt);
    return leave(rt, s, send_uncounted(rt, s, (lim_pid){ 0 }, to, body));
}

/* ---- dealing ---- */
static void mailbox_push_front(lim_process *p, lim__letter *l)
{
    l->next = p->head;
    p->head = l;
    if (!l->next)
        p->tail = &l->next;
    if (p->phase == LIM__IDLE)
        lim__run_push(p->sched, p);
}

void lim__deal(lim__sched *s, lim__letter *l)
{
    lim_process *p = lim__process_of(s, l->to);
    if (LIM_UNLIKELY(!p)) {
        if (l->flags & LIM__RESERVED)
            lim__bump32(&lim__inner_of(s, l->to)->ended, 1);
        lim__signal_undeliverable(s, l);
    } else if (LIM__MUTATION("exit_overtakes_reply") && l->kind == LIM__EXIT) {
        mailbox_push_front(p, l);
    } else {
        lim__mailbox_push(p, l);
    }
}

void lim__route(lim__sched *s, lim__letter *l)
{
    lim__sched *target = lim__sched_of(s->rt, l->to);
    if (target == s)
        lim__deal(s, l);
    else if (target)
        outbox_push(s, target, l);
    else
        lim__signal_undeliverable(s, l);
}

static void fetch_ahead(const lim__letter *l)
{
    __builtin_prefetch(l);
    __builtin_prefetch((const char *)(l + 1) - 1);
}

/* The first thing that a reader does: while the letter's lines move here, there is other work to do. */
bool lim__inbox_glance(const lim__sched *s)
{
    const lim__letter *newest = atomic_load_explicit(&s->inbox, memory_order_relaxed);
    if (newest)
        fetch_ahead(newest);
    return newest != NULL;
}

void lim__inbox_deal(lim__sched *s)
{
    if (!lim__inbox_glance(s))
        return;
    /* acquire: pairs with inbox_push */
    lim__letter *stack = atomic_exchange_explicit(&s->inbox, NULL, memory_order_acquire), *fifo = NULL;
    if (stack && stack->next)
        lim__spin_end(s); /* this takes longer than an answer */
    while (stack) {
        lim__letter *next = stack->next;
        if (points_back(stack) && stack->earlier)
            fetch_ahead(stack->earlier);
        stack->next = fifo;
        fifo = stack;
        stack = next;
    }
    while (fifo) {
        lim__letter *l = fifo;
        fifo = l->next;
        lim__deal(s, l);
    }
}
