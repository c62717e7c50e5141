/* SPDX-License-Identifier: Apache-2.0
 * channel_publish.c - one message to all who want it, and one verdict for who sent it.
 *
 *      table of the channel
 *        |
 *        |  1. hold: a place in each, or REJECT and every place given back: nobody got it
 *        |  2. each: deliver past an empty backlog when its owner is at hand (no copy, no lock)
 *        |           else keep it in the backlog (one copy for all), or what its policy says
 *        v
 *      REJECT nobody got it | DEFER a hold subscription keeps it beyond its window | ACCEPT
 *
 * Step 1 is skipped when the table has no hold subscription. A subscription that ends between the steps simply does not
 * count; one that appears after step 0 (the count was read) is for the next message.
 *
 * With a function in front of the channel (channel_slot.h) there is a step before these: it names some subscriptions,
 * and the others are not there for this message.
 *
 * On a scheduler a publish is covered by the scheduler's turn, on a host thread by `host_lock`: see channel_inside.h.
 */
#include "bus/channel_inside.h"
#include "bus/channel_slot.h"

/* ---- host threads ---- */

static _Thread_local lim__channels *entered; /* whose host_lock this thread holds */

void lim__host_enter(lim__channels *all, lim__host_turn *turn)
{
    *turn = (lim__host_turn){ .before = entered };
    if (entered == all)
        return; /* a routing function publishes while its own message is being published */
    turn->locked = all;
    lim__lock(&all->host_lock);
    entered = all;
}

void lim__host_leave(const lim__host_turn *turn)
{
    if (turn->locked == NULL)
        return;
    entered = turn->before;
    lim__unlock(&turn->locked->host_lock);
}

bool lim__host_inside(void)
{
    return entered != NULL;
}

typedef struct offer {
    lim__channel *ch;
    lim_process *self;
    lim__sched *sched; /* NULL: a host thread */
    lim__tally *tally;
    lim__sub_table *table;
    uint32_t count;         /* places of the table that existed when the publish began; or how many were chosen */
    const uint32_t *chosen; /* of a channel with a function in front of it: places; NULL: all of them */
    lim_bytes payload, headers;
    lim__msg *msg; /* made when the first one keeps it */
} offer;

static lim__sub *offer_sub(const offer *o, uint32_t i)
{
    uint32_t place = LIM_UNLIKELY(o->chosen != NULL) ? o->chosen[i] : i;
    lim__sub *sub = atomic_load_explicit(&o->table->subs[place], memory_order_relaxed);
    /* acquire: pairs with the stores of `state` under the subscription's lock */
    bool open = sub && atomic_load_explicit(&sub->state, memory_order_acquire) == LIM__SUB_OPEN;
    return open ? sub : NULL;
}

static bool is_near(const offer *o, const lim__sub *sub)
{
    return sub->sched == o->sched && !sub->own_turn;
}

/* Nothing waits there that must go first. */
static bool is_idle(const lim__sub *sub)
{
    /* acquire: pairs with the release of who emptied the backlog */
    return atomic_load_explicit(&sub->queued, memory_order_acquire) == 0;
}

static lim__msg *offer_msg(offer *o)
{
    if (!o->msg)
        o->msg = lim__msg_new_with(o->payload, o->headers);
    return o->msg;
}

/* ---- step 1 ---- */

static bool place_take(lim__sub *sub, uint32_t *current)
{
    uint32_t before = atomic_fetch_add_explicit(&sub->places, 1, memory_order_relaxed);
    *current = before;
    if (LIM_LIKELY(before < sub->limit))
        return true;
    atomic_fetch_sub_explicit(&sub->places, 1, memory_order_relaxed);
    return false;
}

static void places_give_back(offer *o, uint32_t end)
{
    for (uint32_t i = 0; i < end; i++) {
        lim__sub *sub = offer_sub(o, i);
        if (sub && sub->policy == LIM_HOLD_BACK) /* open now, so it was open when its place was taken */
            atomic_fetch_sub_explicit(&sub->places, 1, memory_order_relaxed);
    }
}

static void reject_full(const offer *o, const lim__sub *sub, uint32_t current, lim_admission *out)
{
    *out = (lim_admission){
        .verdict = LIM_REJECT,
        .why = LIM_WHY_SUBSCRIPTION_FULL,
        .limit = sub->limit,
        .current = current < sub->limit ? current : sub->limit,
        .retry_after_ms = LIM__RETRY_AFTER_MS,
    };
    for (uint32_t i = 0; i < o->count; i++)
        out->matched += offer_sub(o, i) != NULL;
}

/* LIM_OK with *rejected, or without: every hold subscription that is open has a place for it. NOMEM: none has. */
static lim_err reserve(offer *o, lim_admission *out, bool *rejected)
{
    bool keeps = false;
    for (uint32_t i = 0; i < o->count; i++) {
        lim__sub *sub = offer_sub(o, i);
        if (!sub || sub->policy != LIM_HOLD_BACK)
            continue;
        uint32_t current;
        if (!place_take(sub, &current)) {
            if (!LIM__MUTATION("places_kept"))
                places_give_back(o, i);
            reject_full(o, sub, current, out);
            *rejected = true;
            return LIM_OK;
        }
        keeps |= !(is_near(o, sub) && is_idle(sub) && lim__sub_may_deliver(sub));
    }
    if (keeps && !offer_msg(o)) { /* now, while nobody has got it yet */
        places_give_back(o, o->count);
        return LIM_E_NOMEM;
    }
    return LIM_OK;
}

/* ---- step 2 ---- */

static void defer(lim__sub *sub, uint32_t current, lim_admission *out)
{
    out->deferred++;
    if (sub->policy != LIM_HOLD_BACK || out->verdict == LIM_DEFER)
        return;
    out->verdict = LIM_DEFER;
    out->why = LIM_WHY_SUBSCRIPTION_FULL;
    out->limit = sub->window;
    out->current = current;
}

static void keep(offer *o, lim__sub *sub, lim__near near, lim_admission *out)
{
    lim__keep_result r = lim__sub_keep(sub, offer_msg(o), o->ch->name, near);
    out->matched += r.how != LIM__KEEP_GONE;
    out->delivered += r.how == LIM__KEEP_IN_WINDOW;
    out->dropped += r.dropped;
    if (r.how == LIM__KEEP_BACKLOG || r.how == LIM__KEEP_FOR_OLDEST)
        defer(sub, r.current, out);
    if (r.bell)
        lim__sub_send_bell(sub, o->self);
    else if (r.tell && near != LIM__FAR)
        lim__sub_tell_dropped(sub);
}

static inline void offer_to(offer *o, lim__sub *sub, lim_admission *out)
{
    if (!is_near(o, sub)) {
        keep(o, sub, LIM__FAR, out);
        return;
    }
    bool may = lim__sub_may_deliver(sub), first = is_idle(sub) || LIM__MUTATION("backlog_overtaken");
    if (LIM_UNLIKELY(!may || !first)) {
        keep(o, sub, may ? LIM__NEAR : LIM__NEAR_BUSY, out);
        return;
    }
    out->matched++;
    out->delivered++;
    lim__sub_deliver(sub, lim__name_bytes(o->ch->name), o->headers, o->payload, o->msg);
}

static void count(offer *o, const lim_admission *out)
{
    lim__tally *t = o->tally;
    if (LIM_UNLIKELY(out->verdict == LIM_REJECT)) {
        LIM__ADD_OWN(t->rejected, 1);
        return;
    }
    LIM__ADD_OWN(t->published, 1);
    LIM__ADD_OWN(t->matched, out->matched);
    LIM__ADD_OWN(t->delivered, out->delivered);
    if (LIM_UNLIKELY(out->deferred | out->dropped)) {
        LIM__ADD_OWN(t->deferred, out->deferred);
        LIM__ADD_OWN(t->dropped, out->dropped);
    }
}

static void nobody(bool mandatory, lim_admission *out)
{
    *out = (lim_admission){ .verdict = LIM_ACCEPT };
    if (mandatory)
        *out = (lim_admission){ .verdict = LIM_REJECT,
                                .why = LIM_WHY_NO_SUBSCRIBER,
                                .retry_after_ms = LIM__RETRY_AFTER_MS };
}

/* The function in front of the channel says who gets it. False: nobody does, and `out` says why. */
__attribute__((noinline, cold)) static bool routed(offer *o, lim__chan_slot *slot, bool mandatory,
                                                   lim__chan_choice *choice, lim_admission *out)
{
    const lim__route_msg msg = { .payload = o->payload, .headers = o->headers, .keep = o->msg };
    uint32_t seat = o->sched ? lim__sched_index(o->sched) : o->ch->all->sched_count;
    lim__chose chose = lim__channel_choose(slot, seat, o->table, o->count, &msg, choice);
    if (chose == LIM__CHOSE_SOME) {
        o->chosen = choice->places;
        o->count = choice->count;
    }
    if (chose == LIM__CHOSE_SOME || chose == LIM__CHOSE_ALL)
        return true;
    nobody(false, out);
    if (chose == LIM__CHOSE_FAULT || mandatory)
        *out = (lim_admission){ .verdict = LIM_REJECT,
                                .why = chose == LIM__CHOSE_FAULT ? LIM_WHY_ROUTING_FAULT : LIM_WHY_ROUTER_CHOSE_NONE,
                                .retry_after_ms = LIM__RETRY_AFTER_MS };
    return false;
}

static lim_err publish_to(offer *o, bool mandatory, lim_admission *out)
{
    nobody(false, out);
    bool rejected = false;
    if (atomic_load_explicit(&o->table->holds, memory_order_acquire) > 0) {
        lim_err err = reserve(o, out, &rejected);
        if (err != LIM_OK)
            return err;
    }
    for (uint32_t i = 0; i < o->count && !rejected; i++) {
        lim__sub *sub = offer_sub(o, i);
        if (sub)
            offer_to(o, sub, out);
    }
    if (LIM_UNLIKELY(mandatory && out->matched == 0 && !rejected))
        nobody(true, out);
    count(o, out);
    return LIM_OK;
}

__attribute__((noinline, cold)) static lim_err publish_routed(offer *o, lim__chan_slot *slot, bool mandatory,
                                                              lim_admission *out)
{
    lim__chan_choice choice = { .places = choice.few };
    lim_err err = LIM_OK;
    if (routed(o, slot, mandatory, &choice, out))
        err = publish_to(o, mandatory, out);
    else
        count(o, out);
    lim__chan_choice_fini(&choice);
    return err;
}

static lim_err publish(offer *o, bool mandatory, lim_admission *out)
{
    /* acquire: pairs with the release in table_replace, and in table_append */
    o->table = atomic_load_explicit(&o->ch->table, memory_order_acquire);
    o->count = atomic_load_explicit(&o->table->count, memory_order_acquire);
    /* acquire: pairs with the release of lim__channels_slot_set */
    lim__chan_slot *slot = atomic_load_explicit(&o->ch->slot, memory_order_acquire);
    return LIM_UNLIKELY(slot) ? publish_routed(o, slot, mandatory, out) : publish_to(o, mandatory, out);
}

lim_err lim__publish_covered(lim__channels *all, lim_process *self, lim__sched *sched, lim__channel *ch,
                             lim_bytes payload, lim_bytes headers, bool mandatory, lim_admission *out)
{
    LIM_CHECK(ch->all == all);
    /* acquire: who is told that it is closed comes after the close */
    if (LIM_UNLIKELY(atomic_load_explicit(&ch->closed, memory_order_acquire)))
        return LIM_E_CLOSED;
    offer o = { .ch = ch, .self = self, .sched = sched, .payload = payload, .headers = headers };
    o.tally = &ch->tallies[sched ? lim__sched_index(sched) : all->sched_count];
    lim_err err = publish(&o, mandatory, out);
    if (LIM_UNLIKELY(o.msg))
        lim__msg_unref(o.msg);
    return err;
}

void lim__publish_stored(lim__channel *ch, lim__msg *msg, lim_admission *out)
{
    offer o = { .ch = ch, .msg = msg, .payload = lim__msg_bytes(msg), .headers = lim__msg_headers(msg) };
    o.tally = &ch->tallies[ch->all->sched_count];
    /* acquire: as in publish */
    o.table = atomic_load_explicit(&ch->table, memory_order_acquire);
    o.count = atomic_load_explicit(&o.table->count, memory_order_acquire);
    /* acquire: as in publish */
    lim__chan_slot *slot = atomic_load_explicit(&ch->slot, memory_order_acquire);
    lim__chan_choice choice = { .places = choice.few };
    if (LIM_UNLIKELY(slot) && !routed(&o, slot, false, &choice, out))
        o.count = 0; /* it is stored, which is what was asked for */
    nobody(false, out);
    for (uint32_t i = 0; i < o.count; i++) {
        lim__sub *sub = offer_sub(&o, i);
        if (sub && sub->policy != LIM_HOLD_BACK) /* a durable channel allows none */
            offer_to(&o, sub, out);
    }
    out->verdict = LIM_ACCEPT;
    count(&o, out);
    lim__chan_choice_fini(&choice);
}

bool lim__publish_unheard(lim__channel *ch, uint32_t count)
{
    /* acquire: as in publish */
    lim__sub_table *table = atomic_load_explicit(&ch->table, memory_order_acquire);
    if (atomic_load_explicit(&table->count, memory_order_acquire) > 0 ||
        atomic_load_explicit(&ch->slot, memory_order_acquire) != NULL)
        return false;
    LIM__ADD_OWN(ch->tallies[ch->all->sched_count].published, count);
    return true;
}

/* Nobody waits for the receipt. */
static lim_err publish_logged(lim__log *log, lim_bytes payload, lim_bytes headers, bool mandatory, lim_admission *out)
{
    lim__log_message m = { .payload = payload, .headers = headers, .mandatory = mandatory };
    return lim__log_publish(log, &m, NULL, NULL, out);
}

lim_err lim__publish(lim__channels *all, lim_process *self, lim__channel *ch, lim_bytes payload, lim_bytes headers,
                     bool mandatory, lim_admission *out)
{
    if (LIM_UNLIKELY(!ch)) {
        nobody(mandatory, out);
        return LIM_OK;
    }
    lim__log *log = lim__channel_log(ch);
    if (LIM_UNLIKELY(log))
        return publish_logged(log, payload, headers, mandatory, out);
    lim__sched *sched = self ? lim__proc_sched(self) : lim__sched_here(all);
    lim__host_turn turn = { 0 };
    if (LIM_UNLIKELY(!sched))
        lim__host_enter(all, &turn);
    lim_err err = lim__publish_covered(all, self, sched, ch, payload, headers, mandatory, out);
    if (LIM_UNLIKELY(!sched))
        lim__host_leave(&turn);
    return err;
}
