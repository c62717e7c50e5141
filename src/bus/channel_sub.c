/* SPDX-License-Identifier: Apache-2.0
 * channel_sub.c - a subscription: what it may still take, what it keeps, how its owner hears of it.
 *
 *      publisher, same scheduler, backlog empty, window and `ready` allow      --deliver--> owner's buffers
 *      any other publisher --keep--> ring (under the subscription's lock) --bell--> owner --pump--> deliver
 *
 * The ring is the one place where messages wait, for the window, for `ready`, or for the owner's turn, whoever
 * published them; and nothing passes it while it holds something. So all that is published to a subscription one after
 * the other, by whichever threads, is delivered in that order, and the memory that a slow owner costs is bounded by the
 * ring.
 *
 * A bell is a letter that says "look". It carries no message, so one is enough however much was kept, and its place
 * needs no limit. The owner clears `belled` before it looks, and who keeps a message sets it after: none is overlooked.
 */
#include "bus/channel_inside.h"

#include <stdlib.h>

enum {
    LIMIT_MAX = 1 << 30,
    RING_IDLE_MAX = 64, /* an empty ring larger than this is given back */
    BATCH_MAX = 32,     /* messages of an own_turn subscription per bell, so that its owner's slice stays short */
    BATCH_NS_MAX = 50000,
};

typedef struct bell_body {
    lim__sub *sub; /* counted */
} bell_body;

static void bell_drop(void *body)
{
    lim__sub_unref(((bell_body *)body)->sub);
}

static const lim__letter_type bell_type = { "channel_bell", bell_drop };

/* ---- making one ---- */

static void sub_free(lim__retired *retired)
{
    lim__sub *sub = LIM_CONTAINER(retired, lim__sub, retired);
    LIM_ASSERT(!sub->listed && LIM__RELAXED(sub->queued) == 0);
    free(sub->ring);
    lim__name_unref(sub->pattern);
    lim__name_unref(sub->owner_name);
    pthread_mutex_destroy(&sub->lock);
    free(sub);
}

static lim_err config_check(const lim__sub_config *config, lim_diag *diag)
{
    if (!lim__channel_pattern_ok(config->pattern)) {
        lim__diag_set(diag, 0, 0, "not a channel name or pattern");
        return LIM_E_INVALID;
    }
    if (config->window == 0 || config->policy < LIM_HOLD_BACK || config->policy > LIM_CLOSE_SUB) {
        lim__diag_set(diag, 0, 0, "window or policy was forgotten");
        return LIM_E_MISUSE;
    }
    if (config->window > LIMIT_MAX || config->backlog > LIMIT_MAX) {
        lim__diag_set(diag, 0, 0, "window and backlog are at most %d messages", LIMIT_MAX);
        return LIM_E_TOOBIG;
    }
    if (config->policy == LIM_HOLD_BACK && lim__pattern_is_wild(config->pattern)) {
        lim__diag_set(diag, 0, 0, "policy hold needs the name of one channel, which allows it");
        return LIM_E_MISUSE;
    }
    return LIM_OK;
}

lim_err lim__sub_new(lim__channels *all, const lim__sub_config *config, lim_diag *diag, lim__sub **out)
{
    LIM_ASSERT(config->ops && config->ops->deliver && config->ops->ended);
    lim_err err = config_check(config, diag);
    if (err != LIM_OK)
        return err;
    lim__sub *sub = aligned_alloc(64, sizeof *sub);
    lim__name *pattern = lim__name_new(config->pattern), *owner_name = lim__name_new(config->owner_name);
    if (!sub || !pattern || !owner_name) {
        free(sub);
        lim__name_unref(pattern);
        lim__name_unref(owner_name);
        return LIM_E_NOMEM;
    }
    memset(sub, 0, sizeof *sub);
    sub->all = all;
    sub->ops = config->ops;
    sub->ctx = config->ctx;
    sub->pattern = pattern;
    sub->owner_name = owner_name;
    sub->window = config->window;
    sub->limit = config->window + config->backlog;
    sub->policy = config->policy;
    sub->own_turn = config->own_turn;
    sub->wild = lim__pattern_is_wild(config->pattern);
    atomic_init(&sub->state, LIM__SUB_OPEN);
    atomic_init(&sub->refs, 1);
    pthread_mutex_init(&sub->lock, NULL);
    lim__list_init(&sub->in_all);
    lim__list_init(&sub->in_wild);
    *out = sub;
    return LIM_OK;
}

void lim__sub_own(lim__sub *sub, lim_pid owner)
{
    sub->owner = owner;
    sub->sched = lim__sched_at(sub->all->rt, lim__pid_scheduler(owner));
}

lim_err lim__sub_open(lim__channels *all, lim_process *owner, const lim__sub_config *config, lim_diag *diag,
                      lim__sub **out)
{
    lim__sub *sub = NULL;
    lim_err err = lim__sub_new(all, config, diag, &sub);
    if (err != LIM_OK)
        return err;
    lim__sub_own(sub, lim_self(owner));
    err = lim__sub_enter(sub, diag);
    if (err != LIM_OK) {
        lim__sub_unref(sub);
        return err;
    }
    *out = sub;
    return LIM_OK;
}

void lim__sub_ref(lim__sub *sub)
{
    /* relaxed: the caller's own reference, or the lock it holds, makes the subscription visible to it */
    atomic_fetch_add_explicit(&sub->refs, 1, memory_order_relaxed);
}

void lim__sub_unref(lim__sub *sub)
{
    /* acq_rel: whoever retires it comes after everybody's last write */
    if (atomic_fetch_sub_explicit(&sub->refs, 1, memory_order_acq_rel) == 1)
        lim__retire(sub->all, &sub->retired, sub_free); /* a publisher may have found it in a table just now */
}

/* ---- ring ---- under the subscription's lock */

static lim__kept *ring_at(lim__sub *sub, uint32_t i)
{
    return &sub->ring[(sub->ring_head + i) & (sub->ring_cap - 1)];
}

static bool ring_reserve(lim__sub *sub)
{
    uint32_t queued = LIM__RELAXED(sub->queued);
    if (queued < sub->ring_cap)
        return true;
    uint32_t cap = sub->ring_cap ? sub->ring_cap * 2 : LIM__RING_MIN;
    lim__kept *ring = malloc(cap * sizeof *ring);
    if (!ring)
        return false;
    for (uint32_t i = 0; i < queued; i++)
        ring[i] = *ring_at(sub, i);
    free(sub->ring);
    sub->ring = ring;
    sub->ring_cap = cap;
    sub->ring_head = 0;
    return true;
}

/* There is room. Takes the reference to msg, and one more to the name if it must be remembered. */
static void ring_push(lim__sub *sub, lim__msg *msg, lim__name *channel)
{
    uint32_t queued = LIM__RELAXED(sub->queued);
    LIM_ASSERT(queued < sub->ring_cap && queued < sub->limit);
    *ring_at(sub, queued) = (lim__kept){ msg, sub->wild ? lim__name_ref(channel) : NULL };
    /* release: pairs with the acquire in is_idle, so that who sees an empty backlog comes after what emptied it */
    atomic_store_explicit(&sub->queued, queued + 1, memory_order_release);
}

static lim__kept ring_pop(lim__sub *sub)
{
    uint32_t queued = LIM__RELAXED(sub->queued);
    LIM_ASSERT(queued > 0);
    lim__kept kept = *ring_at(sub, 0);
    sub->ring_head = (sub->ring_head + 1) & (sub->ring_cap - 1);
    atomic_store_explicit(&sub->queued, queued - 1, memory_order_release);
    return kept;
}

static void ring_trim(lim__sub *sub)
{
    if (LIM__RELAXED(sub->queued) > 0 || sub->ring_cap <= RING_IDLE_MAX)
        return;
    free(sub->ring);
    sub->ring = NULL;
    sub->ring_cap = sub->ring_head = 0;
}

static void kept_unref(lim__kept kept)
{
    lim__msg_unref(kept.msg);
    lim__name_unref(kept.channel);
}

static void ring_clear(lim__sub *sub)
{
    while (LIM__RELAXED(sub->queued) > 0)
        kept_unref(ring_pop(sub));
    ring_trim(sub);
}

/* ---- keeping a message ---- any thread */

static void count_drops_locked(lim__sub *sub, uint32_t n)
{
    LIM__ADD_OWN(sub->dropped, n);
    if (LIM__RELAXED(sub->episode))
        return;
    atomic_store_explicit(&sub->episode, 1, memory_order_relaxed);
    sub->tell_dropped = sub->ops->dropped != NULL;
}

static void end_locked(lim__sub *sub, lim__sub_state to, lim_err why)
{
    sub->why = why;
    if (to == LIM__SUB_ENDED) {
        count_drops_locked(sub, LIM__RELAXED(sub->queued));
        ring_clear(sub);
    }
    atomic_store_explicit(&sub->state, to, memory_order_release);
}

static lim__keep overflow_locked(lim__sub *sub, lim__msg *msg, lim__name *channel)
{
    count_drops_locked(sub, 1);
    if (sub->policy == LIM_CLOSE_SUB)
        end_locked(sub, LIM__SUB_ENDED, LIM_E_FULL);
    if (!msg || sub->policy != LIM_DROP_OLDEST || LIM__RELAXED(sub->queued) == 0) /* no backlog: it is the oldest */
        return LIM__KEEP_DROPPED;
    kept_unref(ring_pop(sub));
    ring_push(sub, lim__msg_ref(msg), channel);
    return LIM__KEEP_FOR_OLDEST;
}

static lim__keep keep_locked(lim__sub *sub, lim__msg *msg, lim__name *channel, lim__near near, uint32_t used)
{
    bool hold = sub->policy == LIM_HOLD_BACK;
    if (LIM__RELAXED(sub->state) != LIM__SUB_OPEN)
        return LIM__KEEP_GONE;
    if (!hold && used >= sub->limit)
        return overflow_locked(sub, msg, channel);
    if (!msg || !ring_reserve(sub)) {
        count_drops_locked(sub, 1);
        if (hold)
            atomic_fetch_sub_explicit(&sub->places, 1, memory_order_relaxed);
        return LIM__KEEP_DROPPED;
    }
    ring_push(sub, lim__msg_ref(msg), channel);
    return near != LIM__NEAR_BUSY && used < sub->window ? LIM__KEEP_IN_WINDOW : LIM__KEEP_BACKLOG;
}

lim__keep_result lim__sub_keep(lim__sub *sub, lim__msg *msg, lim__name *channel, lim__near near)
{
    lim__keep_result r;
    lim__lock(&sub->lock);
    uint64_t dropped = LIM__RELAXED(sub->dropped);
    r.current = LIM__RELAXED(sub->in_flight) + LIM__RELAXED(sub->queued);
    r.how = keep_locked(sub, msg, channel, near, r.current);
    r.dropped = (uint32_t)(LIM__RELAXED(sub->dropped) - dropped);
    /* An owner at hand pumps when it acknowledges or gets ready, which is what the message waits for. */
    bool waits = near != LIM__FAR && !sub->own_turn && LIM__RELAXED(sub->state) == LIM__SUB_OPEN;
    r.bell = r.how != LIM__KEEP_GONE && !waits && lim__sub_want_bell_locked(sub);
    r.tell = sub->tell_dropped;
    lim__unlock(&sub->lock);
    return r;
}

/* ---- bells ---- */

bool lim__sub_want_bell_locked(lim__sub *sub)
{
    if (sub->belled || LIM__RELAXED(sub->state) == LIM__SUB_CLOSED)
        return false;
    sub->belled = true;
    lim__sub_ref(sub); /* the owner still has its own: it gives that up only after CLOSED */
    return true;
}

/* Without memory for a letter the owner finds out when it next acknowledges, pumps, or is rung for. */
static void bell_lost(lim__sub *sub)
{
    lim__lock(&sub->lock);
    sub->belled = false;
    lim__unlock(&sub->lock);
    lim__sub_unref(sub);
}

void lim__sub_send_bell(lim__sub *sub, lim_process *self)
{
    bell_body *b = lim__letter_new(self ? lim__proc_sched(self) : lim__sched_here(sub->all), &bell_type, sizeof *b);
    if (!b) {
        bell_lost(sub);
        return;
    }
    b->sub = sub;
    /* GONE: the owner is ending and closes the subscription in its on_end; the letter gave its reference back. */
    lim_err err = self ? lim__send_reserved(self, sub->owner, b) : lim__post_reserved(sub->all->rt, sub->owner, b);
    (void)err;
}

void lim__sub_ring(lim__sub *sub, lim_process *self)
{
    lim__lock(&sub->lock);
    bool bell = lim__sub_want_bell_locked(sub);
    lim__unlock(&sub->lock);
    if (bell)
        lim__sub_send_bell(sub, self);
}

/* ---- delivering ---- owner's scheduler */

static void episode_end_locked(lim__sub *sub)
{
    if (LIM__RELAXED(sub->queued) == 0 && !sub->tell_dropped)
        atomic_store_explicit(&sub->episode, 0, memory_order_relaxed);
}

static void episode_end(lim__sub *sub)
{
    lim__lock(&sub->lock);
    episode_end_locked(sub);
    lim__unlock(&sub->lock);
}

void lim__sub_deliver(lim__sub *sub, lim_bytes channel, lim_bytes headers, lim_bytes payload, lim__msg *msg)
{
    uint64_t seq = LIM__RELAXED(sub->delivered) + 1;
    atomic_store_explicit(&sub->delivered, seq, memory_order_relaxed);
    LIM__ADD_OWN(sub->in_flight, 1);
    if (LIM_UNLIKELY(LIM__RELAXED(sub->episode)))
        episode_end(sub);
    sub->ops->deliver(sub->ctx, sub, seq, channel, headers, payload, msg);
}

/* The next message of the backlog, in flight from now on; false: there is none. */
static bool take_kept(lim__sub *sub, lim__kept *kept, uint64_t *seq)
{
    lim__lock(&sub->lock);
    bool any = LIM__RELAXED(sub->queued) > 0; /* CLOSED and ENDED have none */
    if (any) {
        LIM__ADD_OWN(sub->in_flight, 1); /* before it leaves the ring: the sum never looks smaller than it is */
        *kept = ring_pop(sub);
        ring_trim(sub);
        *seq = LIM__RELAXED(sub->delivered) + 1;
        atomic_store_explicit(&sub->delivered, *seq, memory_order_relaxed);
    }
    episode_end_locked(sub);
    lim__unlock(&sub->lock);
    return any;
}

static uint64_t clock_ns(const lim__sub *sub)
{
    lim__os *os = lim__runtime_os(sub->all->rt);
    return os->now_ns(os);
}

/* Looked at before each message but the first. Reading the clock costs as much as a small handler. */
static bool batch_over(const lim__sub *sub, uint32_t n, uint64_t began_ns)
{
    if (!sub->own_turn || n < BATCH_MAX / 8)
        return false;
    return n >= BATCH_MAX || (n % 4 == 0 && clock_ns(sub) - began_ns >= BATCH_NS_MAX);
}

static void pump(lim_process *owner, lim__sub *sub)
{
    lim__kept kept;
    uint64_t seq, began_ns = sub->own_turn ? clock_ns(sub) : 0;
    for (uint32_t n = 0;; n++) {
        /* acquire: pairs with the release in ring_push */
        if (atomic_load_explicit(&sub->queued, memory_order_acquire) == 0 || !lim__sub_may_deliver(sub))
            break;
        if (batch_over(sub, n, began_ns)) {
            lim__sub_ring(sub, owner);
            break;
        }
        if (!take_kept(sub, &kept, &seq))
            break;
        lim_bytes channel = lim__name_bytes(kept.channel ? kept.channel : sub->pattern);
        sub->ops->deliver(sub->ctx, sub, seq, channel, lim__msg_headers(kept.msg), lim__msg_bytes(kept.msg), kept.msg);
        kept_unref(kept);
    }
}

void lim__sub_pump(lim_process *owner, lim__sub *sub)
{
    if (!sub->own_turn)
        pump(owner, sub);
    bool drained = LIM__RELAXED(sub->state) == LIM__SUB_DRAINING && LIM__RELAXED(sub->queued) == 0;
    if (sub->own_turn || drained)
        lim__sub_ring(sub, owner); /* `ended` is told from there, never from inside an ack */
}

void lim__sub_return(lim__sub *sub, uint32_t n)
{
    uint32_t in_flight = LIM__RELAXED(sub->in_flight);
    LIM_ASSERT(n <= in_flight);
    atomic_store_explicit(&sub->in_flight, in_flight - n, memory_order_relaxed);
    if (sub->policy == LIM_HOLD_BACK)
        atomic_fetch_sub_explicit(&sub->places, n, memory_order_relaxed);
}

void lim__sub_credit(lim_process *owner, lim__sub *sub, uint32_t n)
{
    lim__sub_return(sub, n);
    if (atomic_load_explicit(&sub->queued, memory_order_acquire) > 0)
        lim__sub_pump(owner, sub);
}

void lim__sub_ack(lim_process *owner, lim__sub *sub, uint64_t upto_seq)
{
    uint64_t delivered = LIM__RELAXED(sub->delivered);
    if (upto_seq > delivered)
        upto_seq = delivered; /* nobody can be done with what it has not seen */
    if (upto_seq <= sub->acked)
        return;
    uint32_t n = (uint32_t)(upto_seq - sub->acked);
    sub->acked = upto_seq;
    lim__sub_credit(owner, sub, n);
}

/* ---- telling the owner ---- */

void lim__sub_tell_dropped(lim__sub *sub)
{
    lim__lock(&sub->lock);
    bool tell = sub->tell_dropped && LIM__RELAXED(sub->state) != LIM__SUB_CLOSED;
    sub->tell_dropped = false;
    lim__unlock(&sub->lock);
    if (tell)
        sub->ops->dropped(sub->ctx, sub, LIM__RELAXED(sub->dropped));
}

/* True once: the owner is to hear that the subscription has ended. */
static bool end_is_due(lim__sub *sub, lim_err *why)
{
    lim__lock(&sub->lock);
    lim__sub_state state = LIM__RELAXED(sub->state);
    bool due = (state == LIM__SUB_DRAINING && LIM__RELAXED(sub->queued) == 0) ||
               (state == LIM__SUB_ENDED && sub->why != LIM_OK);
    *why = sub->why;
    if (due) {
        atomic_store_explicit(&sub->state, LIM__SUB_ENDED, memory_order_release);
        sub->why = LIM_OK; /* told */
    }
    lim__unlock(&sub->lock);
    return due;
}

bool lim__sub_on_signal(lim_process *owner, const lim_signal *signal)
{
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type != &bell_type)
        return false;
    lim__sub *sub = ((bell_body *)(uintptr_t)signal->body.ptr)->sub; /* counted by the bell: alive until we return */
    lim__lock(&sub->lock);
    sub->belled = false; /* before looking: who keeps something from here on rings again (C5) */
    bool closed = LIM__RELAXED(sub->state) == LIM__SUB_CLOSED;
    lim__unlock(&sub->lock);
    lim_err why = LIM_OK;
    if (closed)
        return true;
    lim__sub_tell_dropped(sub);
    pump(owner, sub);
    if (end_is_due(sub, &why))
        sub->ops->ended(sub->ctx, sub, why);
    return true;
}

/* ---- the end ---- */

void lim__sub_end(lim__sub *sub, lim__sub_state to, lim_err why)
{
    LIM_ASSERT(to == LIM__SUB_DRAINING || to == LIM__SUB_ENDED);
    lim__lock(&sub->lock);
    bool open = LIM__RELAXED(sub->state) == LIM__SUB_OPEN;
    if (open)
        end_locked(sub, to, why);
    bool bell = open && lim__sub_want_bell_locked(sub);
    lim__unlock(&sub->lock);
    if (bell)
        lim__sub_send_bell(sub, NULL);
}

void lim__sub_detach(lim__sub *sub)
{
    lim__lock(&sub->lock);
    atomic_store_explicit(&sub->state, LIM__SUB_CLOSED, memory_order_release);
    ring_clear(sub);
    lim__unlock(&sub->lock);
    lim__sub_leave(sub); /* after CLOSED: an enter under way sees one or the other */
}

void lim__sub_close(lim_process *owner, lim__sub *sub)
{
    (void)owner; /* whose scheduler this is */
    if (!sub)
        return;
    lim__sub_check(sub);
    lim__sub_detach(sub);
    lim__sub_unref(sub);
}

uint64_t lim__sub_id(const lim__sub *sub)
{
    return sub->id;
}

void lim__sub_info(const lim__sub *sub, lim_sub_info *out)
{
    *out = (lim_sub_info){
        .delivered = LIM__RELAXED(sub->delivered),
        .dropped = LIM__RELAXED(sub->dropped),
        .in_flight = LIM__RELAXED(sub->in_flight),
        .window = sub->window,
        .backlog = LIM__RELAXED(sub->queued),
        .backlog_max = sub->limit - sub->window,
    };
}

void lim__sub_check(lim__sub *sub)
{
    lim__lock(&sub->lock);
    uint32_t queued = LIM__RELAXED(sub->queued), in_flight = LIM__RELAXED(sub->in_flight);
    LIM_CHECK(queued <= sub->limit && queued <= sub->ring_cap); /* C2 */
    LIM_CHECK(in_flight <= sub->window);
    LIM_CHECK(LIM__RELAXED(sub->state) != LIM__SUB_ENDED || queued == 0);
    (void)queued;
    (void)in_flight;
    lim__unlock(&sub->lock);
}
