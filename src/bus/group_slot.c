/* SPDX-License-Identifier: Apache-2.0
 * group_slot.c - a group's router slot: who chooses among its members. slot.h has the versions; here is what a group
 * does when they change, and when a call of theirs is unfinished. */
#include "bus/group.h"
#include "base/base.h"
#include <stdio.h>

static lim_bytes name_of(void *owner, uint64_t candidate)
{
    const group *g = owner;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (m->view.id == candidate)
            return m->view.name;
    }
    return lim__bytes(NULL, 0);
}

static void on_ready(void *owner)
{
    lim__group_go_on(owner);
}

static bool is_kept(const group *g)
{
    return g->bus->durable != NULL && g->name[0] != '$';
}

/* What changed by itself (the breaker), or could not be made again as it was: stored as it is now, nobody waits for it.
 */
static void keep_as_it_is(group *g)
{
    g->slot_dirty = g->keeping;
    if (g->keeping || !is_kept(g))
        return;
    g->has_plan = false;
    g->keeping = lim__slot_keep(&g->slot, NULL, false, lim_self(g->self), ++g->keep_ref) == LIM_OK;
    if (!g->keeping)
        lim__bus_log(g->bus, "event=slot_not_stored group=%s", g->name);
}

static void on_change(void *owner)
{
    group *g = owner;
    if (!g->applying)
        keep_as_it_is(g);
}

lim_err lim__group_slot_init(group *g)
{
    const lim__slot_opts opts = { .bus = g->bus,
                                  .kind = "group",
                                  .name = lim__bytes(g->name, g->name_len),
                                  .owner = g,
                                  .on_done = lim__group_route_done,
                                  .name_of = name_of,
                                  .on_ready = on_ready,
                                  .on_change = on_change };
    lim_err err = lim__slot_init(&g->slot, &opts);
    if (err != LIM_OK)
        return err;
    lim__stash_init(&g->deploys);
    if (is_kept(g) && lim__slot_restore(&g->slot))
        keep_as_it_is(g);
    return LIM_OK;
}

void lim__group_slot_fini(group *g)
{
    lim__slot_discard(&g->slot, &g->plan);
    if (g->deploys.last != NULL)
        lim__stash_fini(&g->deploys, NULL);
    lim__slot_fini(&g->slot);
}

void lim__group_resume(group *g)
{
    lim__slot_resume(&g->slot);
    g->resuming = false;
    if (lim__slot_runnable(&g->slot)) /* looked at now: a call that failed may have begun another one */
        lim__group_go_on(g);
}

const char *lim__group_router_name(const group *g)
{
    return g->slot.live->id;
}

/* Whoever waits because of what the router said is asked about again. */
static void decide_again(group *g)
{
    lim__group_unpark(g, NULL, true);
    LIM__LIST_EACH(node, &g->members)
        lim__group_unpark(g, LIM_CONTAINER(node, member, node), true);
    lim__group_dispatch(g);
}

static void answer(group *g, lim_pid to, uint64_t ref, lim_err err, const lim_diag *diag, const lim_hash *previous)
{
    lim__slot_answer(g->self, &g->slot, to, &(lim__deployed){ .ref = ref, .err = err, .diag = *diag }, previous);
}

static lim_err plan(group *g, const lim__deploy *d, lim_diag *diag)
{
    lim__slot_terms terms;
    lim_err err;
    switch (d->what) {
    case LIM__DEPLOY:
        err = lim__slot_terms_of(&d->opts, &terms, diag);
        return err != LIM_OK ? err : lim__slot_plan_deploy(&g->slot, d->artifact, &terms, d->version, diag, &g->plan);
    case LIM__DEPLOY_ROLLBACK:
        return lim__slot_plan_rollback(&g->slot, d->version, d->by, diag, &g->plan);
    case LIM__DEPLOY_PROMOTE:
        return lim__slot_plan_promote(&g->slot, d->by, diag, &g->plan);
    case LIM__DEPLOY_STOP:
        return lim__slot_plan_stop(&g->slot, d->by, diag, &g->plan);
    case LIM__DEPLOY_REMOVE:
        break;
    }
    if (lim__list_empty(&g->members) && g->watched.count == 0)
        return LIM_OK;
    lim__diag_set(diag, 0, 0, "%u members and %u tasks are in it; end them first", g->member_count,
                  lim__group_queued(g));
    return LIM_E_MISUSE;
}

/* It is stored, or there is no store. */
static void carry_out(group *g, lim__deploy_what what, lim_pid to, uint64_t ref)
{
    lim_diag none = { 0 };
    lim_hash previous = g->plan.previous;
    bool had = g->slot.deployed && what != LIM__DEPLOY_STOP && what != LIM__DEPLOY_REMOVE;
    if (what == LIM__DEPLOY_REMOVE) {
        lim__group_forget(g);
    } else {
        g->applying = true;
        lim__slot_apply(&g->slot, &g->plan);
        g->applying = false;
    }
    answer(g, to, ref, LIM_OK, &none, had ? &previous : NULL);
    decide_again(g);
}

void lim__group_deploy(group *g, const lim_signal *signal)
{
    const lim__deploy *d = signal->body.ptr;
    lim_diag diag = { 0 };
    lim_err err = LIM_OK;
    if (g->keeping) {
        err = lim__stash_put(&g->deploys, g->self, signal);
        if (err != LIM_OK)
            answer(g, d->reply_to, d->ref, err, &diag, NULL);
        return;
    }
    err = plan(g, d, &diag);
    if (err == LIM_OK && is_kept(g)) {
        err = lim__slot_keep(&g->slot, g->plan.v != NULL ? &g->plan : NULL, d->what == LIM__DEPLOY_REMOVE,
                             lim_self(g->self), ++g->keep_ref);
        g->keeping = g->has_plan = err == LIM_OK;
        g->planned = d->what;
        g->planned_by = d->reply_to;
        g->planned_ref = d->ref;
    } else if (err == LIM_OK) {
        carry_out(g, d->what, d->reply_to, d->ref);
    }
    if (err != LIM_OK) {
        lim__slot_discard(&g->slot, &g->plan);
        answer(g, d->reply_to, d->ref, err, &diag, NULL);
    }
}

void lim__group_kept(group *g, const lim__slot_stored *k)
{
    lim_diag diag = { 0 };
    bool planned = g->has_plan;
    if (!g->keeping || k->ref != g->keep_ref)
        return;
    g->keeping = g->has_plan = false;
    lim__slot_kept(&g->slot, k->err == LIM_OK);
    if (k->err == LIM_OK && planned) {
        carry_out(g, g->planned, g->planned_by, g->planned_ref);
    } else if (planned) {
        lim__slot_discard(&g->slot, &g->plan);
        lim__diag_set(&diag, 0, 0, "it was not stored, and nothing has changed: %s",
                      k->err == LIM_E_FULL ? "the store is full" : "the disk failed");
        answer(g, g->planned_by, g->planned_ref, k->err, &diag, NULL);
    } else if (k->err != LIM_OK) {
        lim__bus_log(g->bus, "event=slot_not_stored group=%s", g->name); /* the next change stores this one, too */
    }
    if (g->slot_dirty)
        keep_as_it_is(g);
    while (!g->keeping && lim__stash_replay(&g->deploys, g->self, lim__group_on_signal, g))
        continue;
}
