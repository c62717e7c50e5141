/* SPDX-License-Identifier: Apache-2.0
 * mailbox.c - how anything reaches a process.
 *
 * A mailbox is a singly linked FIFO that only its scheduler touches. What other threads send goes through the
 * scheduler's inbox: a stack, pushed with one CAS (a whole outbox at a time), taken whole with one exchange, reversed
 * and dealt out in order.
 *
 *      same scheduler    place_take: room?  ------------------------------------> mailbox
 *      other scheduler   place_take: slot->remote += 1, room? --> outbox --CAS--> inbox --deal--> mailbox
 *      host thread       place_take: slot->remote += 1, room? ------------CAS--> inbox --deal--> mailbox
 *
 * Invariants:
 *   M1  a letter is in exactly one place.
 *   M2  what one sender pushed first is dealt first: outboxes and the inbox keep order, and a host thread pushes onto
 *       one inbox directly.
 *   M3  slot->local is the number of COUNTED letters in the mailbox; slot->remote the number of RESERVED letters on
 *       their way. A reservation ends exactly once: dealt (it becomes COUNTED), dead on arrival, or given back.
 *   M4  messages are counted against mailbox_max, signals never: a full mailbox can still be told to die.
 *   M5  after a push, `sleeping` is read; before a sleep, `sleeping` is set and then the inbox read, both sequentially
 *       consistent: one of the two sees the other, so no wake is lost.
 *
 * The limit is exact for each sender alone. The owner's own sends read `remote` without a fence, so while schedulers
 * race for the last place of one mailbox it may hold one message more per racing scheduler, never fewer. */
#include "actor/internal.h"

/* ---- places ---- */
static inline lim_err place_near(lim__sched *s, lim_pid to, lim__place *out)
{
    lim__slot *slot = lim__slot_of(s, to);
    if (LIM_UNLIKELY(!slot || !to.id || atomic_load_explicit(&slot->pid, memory_order_acquire) != to.id))
        return LIM_E_GONE;
    lim_process *p = slot->u.process;
    if (LIM_UNLIKELY(lim__ending(p)))
        return LIM_E_GONE;
    uint64_t used = (uint64_t)atomic_load_explicit(&slot->local, memory_order_relaxed) +
                    atomic_load_explicit(&slot->remote, memory_order_relaxed);
    if (LIM_UNLIKELY(used >= atomic_load_explicit(&slot->mailbox_max, memory_order_relaxed)))
        return LIM_E_FULL;
    *out = (lim__place){ .near = p, .slot = slot };
    return LIM_OK;
}

static lim_err place_far(lim__sched *target, lim_pid to, lim__place *out)
{
    lim__slot *slot = target ? lim__slot_of(target, to) : NULL;
    if (!slot || !to.id || atomic_load_explicit(&slot->pid, memory_order_acquire) != to.id)
        return LIM_E_GONE;
    /* acquire: pairs with the release in unreserve: who sees `remote` shrink sees `local` grown. The pid is read
     * again because the place is only worth something if it was reserved while the process lived. */
    uint64_t used = atomic_fetch_add_explicit(&slot->remote, 1, memory_order_acq_rel);
    *out = (lim__place){ .slot = slot, .sched = target };
    if (atomic_load_explicit(&slot->pid, memory_order_acquire) != to.id) {
        lim__place_give_back(out);
        return LIM_E_GONE;
    }
    used += atomic_load_explicit(&slot->local, memory_order_relaxed);
    if (used >= atomic_load_explicit(&slot->mailbox_max, memory_order_relaxed)) {
        lim__place_give_back(out);
        return LIM_E_FULL;
    }
    return LIM_OK;
}

lim_err lim__place_take(lim_runtime *rt, lim__sched *s, lim_pid to, lim__place *out)
{
    return s && lim__pid_is_near(to, s->index) ? place_near(s, to, out) : place_far(lim__sched_of(rt, to), to, out);
}

void lim__place_give_back(lim__place *place)
{
    if (!place->near)
        atomic_fetch_sub_explicit(&place->slot->remote, 1, memory_order_release);
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

static void outbox_push(lim__sched *s, lim__sched *target, lim__letter *l)
{
    lim__outbox *o = &s->outbox[target->index];
    l->next = o->newest;
    if (!o->newest)
        o->oldest = l;
    o->newest = l;
    s->outbox_mask |= 1ull << target->index;
}

void lim__outboxes_push(lim__sched *s)
{
    while (s->outbox_mask) {
        uint32_t i = (uint32_t)__builtin_ctzll(s->outbox_mask);
        s->outbox_mask &= s->outbox_mask - 1;
        lim__outbox *o = &s->outbox[i];
        lim__sched *target = s->rt->scheds[i];
        lim__inbox_push(target, o->newest, o->oldest);
        *o = (lim__outbox){ 0 };
        lim__sched_wake(s, target);
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
static inline void count_message(lim_runtime *rt, lim__sched *s, const lim__letter *l)
{
    LIM__COUNT(s, rt, messages, 1);
    LIM__COUNT(s, rt, letter_bytes, sizeof *l + l->len);
}

static inline void push_near(lim__sched *s, const lim__place *place, lim__letter *l)
{
    uint32_t n = atomic_load_explicit(&place->slot->local, memory_order_relaxed);
    atomic_store_explicit(&place->slot->local, n + 1, memory_order_relaxed);
    l->flags = LIM__COUNTED;
    count_message(s->rt, s, l);
    lim__mailbox_push(place->near, l);
}

void lim__place_use(lim__sched *s, lim__place *place, lim__letter *l)
{
    if (place->near) {
        push_near(s, place, l);
        return;
    }
    l->flags = LIM__RESERVED;
    count_message(place->sched->rt, s, l);
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

lim_err lim_runtime_send(lim_runtime *rt, lim_pid to, uint32_t tag, lim_bytes body)
{
    return send_bytes(rt, here(rt), (lim_pid){ 0 }, to, tag, body);
}

static lim__letter *readdress(void *body, lim_pid from, lim_pid to)
{
    lim__letter *l = (lim__letter *)body - 1;
    l->to = to;
    l->from = from;
    l->kind = LIM__MESSAGE;
    l->flags = 0;
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
    count_message(rt, s, l);
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
    return send_letter(rt, here(rt), (lim_pid){ 0 }, to, body);
}

lim_err lim__send_reserved(lim_process *self, lim_pid to, void *body)
{
    return send_uncounted(self->sched->rt, self->sched, self->pid, to, body);
}

lim_err lim__post_reserved(lim_runtime *rt, lim_pid to, void *body)
{
    return send_uncounted(rt, here(rt), (lim_pid){ 0 }, to, body);
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
    if (LIM_UNLIKELY(!p))
        lim__signal_undeliverable(s, l);
    else if (LIM__MUTATION("exit_overtakes_reply") && l->kind == LIM__EXIT)
        mailbox_push_front(p, l);
    else
        lim__mailbox_push(p, l);
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

/* Ends n reservations of one slot at once; `local` has already grown by those that reached the mailbox. */
static void unreserve(lim__slot *slot, uint32_t n)
{
    if (n)
        atomic_fetch_sub_explicit(&slot->remote, n, memory_order_release); /* pairs with place_far */
}

static void deal_reserved(lim__sched *s, lim__letter *l, lim__slot *slot)
{
    l->flags = 0;
    if (atomic_load_explicit(&slot->pid, memory_order_acquire) == l->to.id) {
        uint32_t n = atomic_load_explicit(&slot->local, memory_order_relaxed);
        atomic_store_explicit(&slot->local, n + 1, memory_order_relaxed);
        l->flags = LIM__COUNTED;
    }
    lim__deal(s, l);
}

void lim__inbox_deal(lim__sched *s)
{
    if (!atomic_load_explicit(&s->inbox, memory_order_relaxed))
        return;
    /* acquire: pairs with inbox_push */
    lim__letter *stack = atomic_exchange_explicit(&s->inbox, NULL, memory_order_acquire), *fifo = NULL;
    while (stack) {
        lim__letter *next = stack->next;
        stack->next = fifo;
        fifo = stack;
        stack = next;
    }
    lim__slot *run = NULL; /* of letters to the same process: one decrement for all */
    uint32_t run_length = 0;
    while (fifo) {
        lim__letter *l = fifo;
        fifo = l->next;
        if (!(l->flags & LIM__RESERVED)) {
            lim__deal(s, l);
            continue;
        }
        lim__slot *slot = lim__slot_of(s, l->to);
        if (slot != run) {
            unreserve(run, run_length);
            run = slot;
            run_length = 0;
        }
        run_length++;
        deal_reserved(s, l, slot);
    }
    unreserve(run, run_length);
}
