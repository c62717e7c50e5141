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

static void on_change(void *owner)
{
    group *g = owner;
    lim__slot_change_noticed(&g->change);
}

/* ---- changes ---- */

static lim_err may(void *owner, const lim__deploy *d, lim_diag *diag)
{
    group *g = owner;
    if (d->what == LIM__DEPLOY && d->artifact->engine == LIM__ENGINE_BUILTIN &&
        lim__bytes_eq(d->artifact->bytes, lim__str("everybody"))) {
        lim__diag_set(diag, 0, 0, "everybody is for channels: of a group one is chosen");
        return LIM_E_MISUSE;
    }
    if (d->what != LIM__DEPLOY_REMOVE || (lim__list_empty(&g->members) && g->watched.count == 0))
        return LIM_OK;
    lim__diag_set(diag, 0, 0, "%u members and %u tasks are in it; end them first", g->member_count,
                  lim__group_queued(g));
    return LIM_E_MISUSE;
}

/* Whoever waits because of what the router said is asked about again. */
static void done(void *owner, int what)
{
    group *g = owner;
    if (what == LIM__DEPLOY_REMOVE)
        lim__group_forget(g);
    lim__group_unpark(g, NULL, true);
    LIM__LIST_EACH(node, &g->members)
        lim__group_unpark(g, LIM_CONTAINER(node, member, node), true);
    lim__group_dispatch(g);
}

static const lim__slot_change_ops change_ops = { .may = may, .done = done };

void lim__group_deploy(group *g, const lim_signal *signal)
{
    lim__slot_change_begin(&g->change, signal);
}

void lim__group_kept(group *g, const lim__slot_stored *k)
{
    lim__slot_change_stored(&g->change, k, lim__group_on_signal, g);
}

/* ---- beginning and end ---- */

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
    bool kept = g->bus->durable != NULL && g->name[0] != '$';
    lim__slot_change_init(&g->change, &g->slot, &change_ops, g, kept);
    if (kept && lim__slot_restore(&g->slot))
        lim__slot_change_keep(&g->change);
    return LIM_OK;
}

void lim__group_slot_fini(group *g)
{
    lim__slot_change_fini(&g->change);
    lim__slot_fini(&g->slot);
}

void lim__group_resume(group *g)
{
    lim__slot_resume(&g->slot);
    g->resuming = false;
    if (lim__slot_runnable(&g->slot)) /* looked at now: a call that failed may have begun another one */
        lim__group_go_on_slowly(g);
}

const char *lim__group_router_name(const group *g)
{
    return g->slot.live->id;
}
