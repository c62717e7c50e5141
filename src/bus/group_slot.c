/* SPDX-License-Identifier: Apache-2.0
 * group_slot.c - a group's router slot: who chooses among its members. slot.h has the versions; here is what a group
 * does when they change, and when a call of theirs is unfinished. */
#include "bus/group.h"
#include "base/base.h"

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

lim_err lim__group_slot_init(group *g)
{
    const lim__slot_opts opts = { .bus = g->bus,
                                  .kind = "group",
                                  .name = lim__bytes(g->name, g->name_len),
                                  .owner = g,
                                  .on_done = lim__group_route_done,
                                  .name_of = name_of,
                                  .on_ready = on_ready };
    return lim__slot_init(&g->slot, &opts);
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

lim_err lim__group_deploy(group *g, const lim__deploy *d, lim_diag *diag, bool *had, lim_hash *previous)
{
    lim__slot_terms terms;
    lim_err err = LIM_E_MISUSE;
    *had = g->slot.deployed;
    switch (d->what) {
    case LIM__DEPLOY:
        err = lim__slot_terms_of(&d->opts, &terms, diag);
        if (err == LIM_OK)
            err = lim__slot_deploy(&g->slot, d->artifact, &terms, d->version, diag, previous);
        break;
    case LIM__DEPLOY_ROLLBACK:
        err = lim__slot_rollback(&g->slot, d->version, d->by, diag, previous);
        break;
    case LIM__DEPLOY_PROMOTE:
        err = lim__slot_promote(&g->slot, d->by, diag, previous);
        break;
    case LIM__DEPLOY_STOP:
        err = lim__slot_stop(&g->slot, d->by, diag);
        *had = false; /* the live one stays */
        break;
    case LIM__DEPLOY_REMOVE:
        break;
    }
    if (err == LIM_OK)
        decide_again(g);
    return err;
}
