/* SPDX-License-Identifier: Apache-2.0
 * slot_change.c - a change of a slot from its request to its answer: one at a time, whoever owns the slot.
 *
 *      deploy --> plan --> prepare --> (no store) ---------------------> apply --> done, answered
 *        |          |         |                                            ^
 *        |          `---------`--> refused: nothing has changed            |
 *        |                    `--> row --> `slot_stored` --good------------'
 *        `-- meanwhile others wait              `--bad--> discarded, answered with the fault
 *
 * What changes by itself (the breaker, a version that could not be made again) is stored as it is then; nobody waits
 * for it. Whatever can fail comes before the row: after it nothing does.
 *
 * Invariants:
 *   G1  at most one commit is under way, and `keeping` says so; what else comes is in `waiting`, in its order.
 *   G2  whoever asked gets one answer. */
#include "bus/slot.h"
#include "base/base.h"
#include "bus/letters.h"
#include <stdio.h>

void lim__slot_change_init(lim__slot_change *ch, lim__slot *s, const lim__slot_change_ops *ops, void *owner, bool kept)
{
    *ch = (lim__slot_change){ .s = s, .ops = ops, .owner = owner, .kept = kept };
    lim__stash_init(&ch->waiting);
}

void lim__slot_change_fini(lim__slot_change *ch)
{
    if (ch->s == NULL)
        return;
    lim__slot_discard(ch->s, &ch->plan);
    lim__stash_fini(&ch->waiting, NULL);
    *ch = (lim__slot_change){ 0 };
}

static void not_stored(const lim__slot_change *ch)
{
    const lim__slot *s = ch->s;
    lim__bus_log(s->o.bus, "event=slot_not_stored %s=%.*s", s->o.kind, (int)s->o.name.len,
                 (const char *)s->o.name.ptr); /* the next change stores this one, too */
}

void lim__slot_change_keep(lim__slot_change *ch)
{
    ch->dirty = ch->keeping || ch->s->self == NULL;
    if (ch->dirty || !ch->kept)
        return;
    ch->has_plan = false;
    ch->keeping = lim__slot_keep(ch->s, NULL, false, lim_self(ch->s->self), ++ch->ref) == LIM_OK;
    if (!ch->keeping)
        not_stored(ch);
}

void lim__slot_change_noticed(lim__slot_change *ch)
{
    if (!ch->applying)
        lim__slot_change_keep(ch);
}

/* ---- one change ---- */

static void answer(lim__slot_change *ch, lim_pid to, uint64_t ref, lim_err err, const lim_diag *diag,
                   const lim_hash *previous)
{
    lim__slot_answer(ch->s->self, ch->s, to, &(lim__deployed){ .ref = ref, .err = err, .diag = *diag }, previous);
}

static lim_err plan(lim__slot_change *ch, const lim__deploy *d, lim_diag *diag)
{
    lim__slot_terms terms;
    lim_err err;
    switch (d->what) {
    case LIM__DEPLOY:
        err = lim__slot_terms_of(&d->opts, &terms, diag);
        return err != LIM_OK ? err : lim__slot_plan_deploy(ch->s, d->artifact, &terms, d->version, diag, &ch->plan);
    case LIM__DEPLOY_ROLLBACK:
        return lim__slot_plan_rollback(ch->s, d->version, d->by, diag, &ch->plan);
    case LIM__DEPLOY_PROMOTE:
        return lim__slot_plan_promote(ch->s, d->by, diag, &ch->plan);
    case LIM__DEPLOY_STOP:
        return lim__slot_plan_stop(ch->s, d->by, diag, &ch->plan);
    case LIM__DEPLOY_REMOVE:
        break;
    }
    return LIM_OK;
}

/* It is stored, or there is no store. */
static void carry_out(lim__slot_change *ch)
{
    lim_diag none = { 0 };
    lim_hash previous = ch->plan.previous;
    lim__deploy_what what = ch->what;
    bool had = ch->s->deployed && what != LIM__DEPLOY_STOP && what != LIM__DEPLOY_REMOVE;
    if (what != LIM__DEPLOY_REMOVE) {
        ch->applying = true;
        if (ch->ops->before != NULL)
            ch->ops->before(ch->owner);
        lim__slot_apply(ch->s, &ch->plan);
        if (ch->ops->installed != NULL)
            ch->ops->installed(ch->owner);
        ch->applying = false;
    } else {
        ch->ops->done(ch->owner, what); /* whoever is told finds nothing of it any more */
    }
    answer(ch, ch->by, ch->by_ref, LIM_OK, &none, had ? &previous : NULL);
    if (what != LIM__DEPLOY_REMOVE)
        ch->ops->done(ch->owner, what);
}

static void refuse(lim__slot_change *ch, lim_err err, const lim_diag *diag)
{
    lim__slot_discard(ch->s, &ch->plan);
    if (ch->ops->discard != NULL)
        ch->ops->discard(ch->owner);
    answer(ch, ch->by, ch->by_ref, err, diag, NULL);
}

void lim__slot_change_begin(lim__slot_change *ch, const lim_signal *signal)
{
    const lim__deploy *d = signal->body.ptr;
    lim_diag diag = { 0 };
    if (ch->keeping) {
        lim_err full = lim__stash_put(&ch->waiting, ch->s->self, signal);
        if (full != LIM_OK)
            answer(ch, d->reply_to, d->ref, full, &diag, NULL);
        return;
    }
    ch->what = d->what;
    ch->by = d->reply_to;
    ch->by_ref = d->ref;
    lim_err err = ch->ops->may(ch->owner, d, &diag);
    if (err == LIM_OK)
        err = plan(ch, d, &diag);
    if (err == LIM_OK && ch->ops->prepare != NULL && d->what != LIM__DEPLOY_REMOVE)
        err = ch->ops->prepare(ch->owner, &ch->plan, &diag);
    if (err == LIM_OK && ch->kept) {
        err = lim__slot_keep(ch->s, ch->plan.v != NULL ? &ch->plan : NULL, d->what == LIM__DEPLOY_REMOVE,
                             lim_self(ch->s->self), ++ch->ref);
        ch->keeping = ch->has_plan = err == LIM_OK;
    } else if (err == LIM_OK) {
        carry_out(ch);
    }
    if (err != LIM_OK)
        refuse(ch, err, &diag);
}

static void stored(lim__slot_change *ch, lim_err err)
{
    lim_diag diag = { 0 };
    bool planned = ch->has_plan;
    ch->keeping = ch->has_plan = false;
    lim__slot_kept(ch->s, err == LIM_OK);
    if (err == LIM_OK && planned) {
        carry_out(ch);
    } else if (planned) {
        lim__diag_set(&diag, 0, 0, "it was not stored, and nothing has changed: %s",
                      err == LIM_E_FULL ? "the store is full" : "the disk failed");
        refuse(ch, err, &diag);
    } else if (err != LIM_OK) {
        not_stored(ch);
    }
}

static void go_on(lim__slot_change *ch, lim_on_signal *on_signal, void *state)
{
    if (ch->dirty)
        lim__slot_change_keep(ch);
    while (!ch->keeping && lim__stash_replay(&ch->waiting, ch->s->self, on_signal, state))
        continue;
}

void lim__slot_change_stored(lim__slot_change *ch, const lim__slot_stored *k, lim_on_signal *on_signal, void *state)
{
    if (!ch->keeping || k->ref != ch->ref)
        return;
    stored(ch, k->err);
    go_on(ch, on_signal, state);
}

bool lim__slot_change_again(lim__slot_change *ch, lim_on_signal *on_signal, void *state)
{
    lim_err err;
    if (ch->keeping) { /* the letter went to the process that died; what it said is kept */
        if (!lim__slot_keep_outcome(ch->s, &err))
            return false;
        stored(ch, err);
    }
    go_on(ch, on_signal, state);
    return true;
}
