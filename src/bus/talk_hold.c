/* SPDX-License-Identifier: Apache-2.0
 * talk_hold.c - what a durable talk has said to its participants, until they have it.
 *
 *   said --stored--> sent, as number n --taken: all up to n--> forgotten
 *                      |  the talk is made again; its participant comes back
 *                      `--> sent again, as number n: who has it says so once more, and gives it to nobody twice
 *
 * One row for each message and participant, in the order of n. That it was taken is no step: the row goes with the next
 * commit, or a while later with one of its own; if neither comes, it is sent again in vain. Whoever does not take what
 * is sent to it, or is away, has room for LIM__HELD_MAX messages, and all in one talk for LIM__HELD_BYTES_MAX bytes;
 * what is said beyond that is refused. What is held for one that leaves or has crashed, and at the end of the talk,
 * goes with it.
 *
 * Invariant H1 (lim__hold_check): `held` of a participant is how many are held for it; the list is in the order of n.
 */
#include "bus/talk.h"
#include "base/base.h"

/* Of who takes part, or is waited for; NULL: neither. */
static uint32_t *count_of(const talk *t, lim_pid who)
{
    party *p = lim__talk_party((talk *)(uintptr_t)t, who);
    away *a = p == NULL ? lim__back_away(t, who) : NULL;
    return p != NULL ? &p->held : a != NULL ? &a->held : NULL;
}

void lim__hold_check(const talk *t)
{
    uint64_t last = 0, all = 0, counted = 0;
    LIM__LIST_EACH(n, &lim__talk_keep(t)->held) {
        const held *h = LIM_CONTAINER(n, held, node);
        LIM_ASSERT(h->n > last && h->n <= lim__talk_keep(t)->held_next);
        last = h->n;
        all++;
    }
    for (uint32_t i = 0; i < t->alive; i++)
        counted += t->parties[i].held;
    LIM__LIST_EACH(n, &lim__talk_keep(t)->away)
        counted += LIM_CONTAINER(n, away, node)->held;
    LIM_ASSERT(all == counted);
}

static size_t bytes_of(const held *h)
{
    return sizeof *h + h->text_len;
}

static void let_go(talk *t, lim__sched *s, held *h)
{
    uint32_t *count = count_of(t, h->to);
    if (count != NULL && *count > 0)
        --*count;
    lim__talk_keep(t)->held_bytes -= lim__msg_bytes(h->payload).len;
    lim__list_remove(&h->node);
    lim__msg_unref(h->payload);
    lim__free(s, h, bytes_of(h));
}

static lim_err send(talk *t, lim_process *self, const held *h)
{
    lim__request *r = lim__talk_request_new(t, self, h->payload, lim__bytes(h->text, h->text_len));
    if (r == NULL)
        return LIM_E_NOMEM;
    r->lease = h->n;
    r->from = h->from;
    r->event = h->event;
    r->flags |= LIM__REQUEST_ACK;
    return lim__keep_post(t, self, h->to, r);
}

/* How it is put into the list, by a reading and a saying alike. */
held *lim__hold_new(lim__sched *s, lim_pid to, const heard *what)
{
    held *h = lim__alloc(s, sizeof *h + what->text.len);
    if (h == NULL)
        return NULL;
    *h = (held){ .to = to,
                 .from = what->from,
                 .payload = lim__msg_ref(what->payload),
                 .event = (uint8_t)what->event,
                 .text_len = (uint8_t)what->text.len };
    if (what->text.len > 0)
        memcpy(h->text, what->text.ptr, what->text.len);
    return h;
}

void lim__hold_free(lim__sched *s, held *h)
{
    lim__msg_unref(h->payload);
    lim__free(s, h, bytes_of(h));
}

lim_err lim__hold_say(talk *t, lim_process *self, lim_pid to, const heard *what)
{
    keep *k = lim__talk_keep(t);
    const party *p = lim__talk_party(t, to);
    uint32_t *count = count_of(t, to);
    size_t len = lim__msg_bytes(what->payload).len;
    if (count == NULL)
        return LIM_E_GONE;
    if (*count >= LIM__HELD_MAX || k->held_bytes + len > LIM__HELD_BYTES_MAX)
        return LIM_E_FULL;
    held *h = lim__hold_new(lim__proc_sched(self), p != NULL ? p->pid : to, what);
    if (h == NULL)
        return LIM_E_NOMEM;
    h->n = ++k->held_next;
    lim_err err = p != NULL ? send(t, self, h) : LIM_OK; /* else it is sent when it comes back */
    if (err != LIM_OK) {
        lim__hold_free(lim__proc_sched(self), h);
        return err;
    }
    lim__list_push(&k->held, &h->node);
    k->held_bytes += len;
    ++*count;
    lim__keep_held(t, h);
    return LIM_OK;
}

void lim__hold_taken(talk *t, lim_process *self, lim_pid by, uint64_t number)
{
    LIM__LIST_EACH_SAFE(n, tmp, &lim__talk_keep(t)->held) {
        held *h = LIM_CONTAINER(n, held, node);
        if (h->n > number)
            return;
        if (h->to.id != by.id)
            continue;
        lim__keep_held_taken(t, h);
        let_go(t, lim__proc_sched(self), h);
    }
}

void lim__hold_resend(talk *t, lim_process *self, lim_pid was, lim_pid now)
{
    LIM__LIST_EACH(n, &lim__talk_keep(t)->held) {
        held *h = LIM_CONTAINER(n, held, node);
        if (h->to.id != was.id)
            continue;
        h->to = now; /* in its row it has the old name, which is known by `renamed` */
        if (send(t, self, h) != LIM_OK)
            lim_exit(self, LIM_FAULT); /* one that misses one must not get the next */
    }
}

void lim__hold_drop(talk *t, lim_process *self, lim_pid who)
{
    LIM__LIST_EACH_SAFE(n, tmp, &lim__talk_keep(t)->held) {
        held *h = LIM_CONTAINER(n, held, node);
        if (who.id != 0 && h->to.id != who.id)
            continue;
        lim__keep_held_gone(t, h);
        let_go(t, lim__proc_sched(self), h);
    }
}

void lim__hold_restored(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    k->held_bytes = 0;
    LIM__LIST_EACH_SAFE(n, tmp, &k->held) {
        held *h = LIM_CONTAINER(n, held, node);
        h->to = lim__back_now(t, h->to);
        k->held_bytes += lim__msg_bytes(h->payload).len;
        uint32_t *count = count_of(t, h->to);
        if (count != NULL) {
            ++*count;
            continue;
        }
        lim__keep_held_gone(t, h); /* of one that takes no part any more */
        let_go(t, lim__proc_sched(self), h);
    }
}
