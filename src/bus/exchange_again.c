/* SPDX-License-Identifier: Apache-2.0
 * exchange_again.c - an exchange after a restart: the same task under another pid.
 *
 *   relive: its row   open: what it was opened with   revived: its group knows it again, and says what its policy is
 *
 * It is heard by nobody before it has all three. Whoever had it then has until the end of the grace to come back with
 * it (by token, identity and session: its group vouches for it); nobody else is offered it before. So does one that
 * another one waits for since its connection was lost. When the grace is over, or who had it leaves, that is a lost
 * delivery like any other. */
#include "base/base.h"
#include "base/map.h"
#include "bus/exchange_inside.h"

/* Who had it before the restart does not come back, or not with it. */
static void not_returning(exchange *x, lim_process *self, bool may_come)
{
    trouble *t = lim__ex_trouble(x, self);
    if (t != NULL)
        t->last_reason = LIM_LOST;
    lim__ex_happens(x, may_come && is_task(x) ? LIM__EX_LOST : LIM__EX_LEFT, &(occasion){ .self = self });
}

void lim__ex_vacated(exchange *x, lim_process *self, uint64_t lease)
{
    const old_lease *old = lim__ex_old(x, lease);
    if (x->current != NULL && x->current->lease == lease && x->current->participant.id == 0)
        not_returning(x, self, false);
    else if (old != NULL && old->is == OLD_SUSPENDED)
        lim__ex_drop_old(x, self, lease);
}

/* ---- the three letters ---- */

void lim__ex_relive(exchange *x, lim_process *self, const lim_signal *signal)
{
    if (!lim__ex_make_durable(x, self)) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    keep *k = x->extra->keep;
    k->relive = lim__letter_keep(self, signal);
    k->id = k->relive->id;
    k->pause = PAUSE_REVIVED;
}

void lim__ex_relived(exchange *x, lim_process *self)
{
    keep *k = x->extra->keep;
    lim__relive *r = k->relive;
    uint64_t now_ns = lim_now_ns(self), deadline = x->open->deadline_ns;
    k->relive = NULL;
    k->order = r->order;
    k->seen_until_wall_ns = r->seen_until_wall_ns;
    k->hash = lim__hash_bytes(lim__bytes(r->row, r->len), 0) | 1;
    k->stored = x->admitted = true;
    bool good = lim__ex_read(x, self, lim__bytes(r->row, r->len));
    lim__letter_free(lim__proc_sched(self), r);
    if (!good ||
        (deadline != UINT64_MAX && lim__deadline_set(self, deadline > now_ns ? deadline - now_ns : 0) != LIM_OK)) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    x->state = x->current != NULL ? LIM__EX_HELD : LIM__EX_PLACING;
    x->taken = x->current != NULL;
    if (x->open->group_len > 0) {
        x->group = lim__group_find(x->bus, group_name(x->open));
        return;
    }
    k->pause = PAUSE_NONE; /* of one participant, who is gone */
    not_returning(x, self, false);
}

static bool any_lease(const exchange *x)
{
    bool any = x->current != NULL;
    for (uint32_t i = 0; troubled(x) != NULL && i < troubled(x)->old_count; i++)
        any |= troubled(x)->old[i].is == OLD_SUSPENDED;
    return any;
}

void lim__ex_revived(exchange *x, lim_process *self, const lim__revived *r)
{
    keep *k = x->extra->keep;
    k->pause = PAUSE_NONE;
    lim__ex_trace(x, self, r->policy.trace);
    lim__ex_policy_is(x, &r->policy);
    if (!any_lease(x))
        return;
    k->grace = true;
    if (lim_timer_start(self, r->grace_ns, LIM__EX_TAG_KEEP, &k->timer) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

void lim__ex_grace_over(exchange *x, lim_process *self, uint64_t timer)
{
    keep *k = x->keeping ? x->extra->keep : NULL;
    if (k == NULL || !k->grace || timer != k->timer)
        return;
    k->grace = false;
    k->timer = 0;
    if (x->current != NULL && x->current->participant.id == 0)
        not_returning(x, self, true);
    else if (x->state == LIM__EX_PLACING)
        lim__ex_want(x, self, true, 0);
}
