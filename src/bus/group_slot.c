/* SPDX-License-Identifier: Apache-2.0
 * group_slot.c - a group's router slot: which version decides, which ones still have unfinished calls, what was before.
 *
 * A deployment is one assignment (RF7): whoever asks afterwards asks the new version; calls in flight end on theirs. */
#include "bus/group.h"
#include "base/base.h"
#include <stdio.h>

static uint32_t unfinished(const group *g)
{
    uint32_t n = lim__router_pending(g->router) + (g->previous != NULL ? lim__router_pending(g->previous) : 0);
    for (uint32_t i = 0; i < g->draining_count; i++)
        n += lim__router_pending(g->draining_routers[i]);
    return n;
}

void lim__group_resume(group *g)
{
    if (lim__router_pending(g->router) > 0)
        lim__router_resume(g->router);
    if (g->previous != NULL && lim__router_pending(g->previous) > 0)
        lim__router_resume(g->previous);
    for (uint32_t i = 0; i < g->draining_count;) {
        lim__router *r = g->draining_routers[i];
        if (lim__router_resume(r) > 0) {
            i++;
        } else {
            g->draining_routers[i] = g->draining_routers[--g->draining_count];
            lim__router_unref(r);
        }
    }
    g->resuming = false;
    if (unfinished(g) > 0) /* counted now: a call that failed may have begun another one */
        lim__group_go_on(g);
}

const char *lim__group_router_name(const group *g)
{
    return g->versions[0].id;
}

static lim_err router_open(group *g, lim__artifact *artifact, const lim_deploy_opts *o, lim_diag *diag,
                           lim__router **out)
{
    lim__router_opts opts = { .sched = lim__proc_sched(g->self),
                              .os = g->bus->os,
                              .artifact = artifact,
                              .counter = &g->counter,
                              .seed = g->bus->os->random(g->bus->os),
                              .instruction_ns = lim__bus_instruction_ns(g->bus),
                              .limits = { .cpu_ns = o->cpu_us_max * 1000ull,
                                          .wall_ns = o->wall_ms_max * 1000000ull,
                                          .unfinished_max = o->unfinished_max,
                                          .memory_max = o->memory_bytes_max },
                              .on_done = lim__group_route_done,
                              .ctx = g };
    return lim__router_open(&opts, diag, out);
}

static void version_push(group *g, const lim__artifact *a)
{
    if (g->version_count > 0) {
        lim__router_stats stats;
        lim__router_stats_get(g->router, &stats);
        g->versions[0].calls = stats.calls;
        g->versions[0].decided = stats.decided;
        g->versions[0].faults = stats.crashed + stats.timed_out + stats.not_started;
    }
    uint32_t keep = g->version_count < LIM__GROUP_VERSIONS_KEPT ? g->version_count : LIM__GROUP_VERSIONS_KEPT - 1;
    memmove(g->versions + 1, g->versions, keep * sizeof g->versions[0]);
    version *v = &g->versions[0];
    *v = (version){ .engine = a->engine, .deployed_wall_ns = g->bus->os->wall_ns(g->bus->os) };
    if (a->engine == LIM__ENGINE_BUILTIN)
        snprintf(v->id, sizeof v->id, "%.*s", (int)(a->bytes.len < 30 ? a->bytes.len : 30), (const char *)a->bytes.ptr);
    else
        snprintf(v->id, sizeof v->id, "%s", a->id);
    snprintf(v->name, sizeof v->name, "%s", a->name);
    g->version_count = keep + 1;
}

lim_err lim__group_router_init(group *g)
{
    static const char name[] = "least_loaded";
    lim__artifact *a = NULL;
    lim_err err = lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(name), name, 0, &a);
    if (err != LIM_OK)
        return err;
    err = router_open(g, a, &(lim_deploy_opts){ 0 }, NULL, &g->fallback);
    if (err == LIM_OK) {
        g->router = lim__router_ref(g->fallback);
        version_push(g, a);
        g->on_fault = LIM_ON_FAULT_REJECT;
    }
    lim__artifact_unref(a);
    return err;
}

static void let_drain(group *g, lim__router *r)
{
    if (r == NULL)
        return;
    if (r != g->fallback && lim__router_pending(r) > 0)
        g->draining_routers[g->draining_count++] = r;
    else
        lim__router_unref(r);
}

void lim__group_router_fini(group *g)
{
    lim__router *all[3] = { g->router, g->previous, g->fallback };
    for (uint32_t i = 0; i < g->draining_count; i++) {
        lim__router_abandon(g->draining_routers[i]);
        lim__router_unref(g->draining_routers[i]);
    }
    for (uint32_t i = 0; i < 3; i++)
        if (all[i] != NULL) {
            lim__router_abandon(all[i]);
            lim__router_unref(all[i]);
        }
}

lim_err lim__group_deploy(group *g, const lim__deploy *d, lim_diag *diag, bool *had, lim_hash *previous)
{
    lim__router *fresh = NULL;
    if (g->draining_count == LIM__GROUP_VERSIONS_KEPT) {
        lim__diag_set(diag, 0, 0, "%u earlier versions still have unfinished calls; deploy again when they have ended",
                      g->draining_count);
        return LIM_E_FULL;
    }
    lim_err err = router_open(g, d->artifact, &d->opts, diag, &fresh);
    if (err != LIM_OK)
        return err;
    *had = g->deployed;
    memcpy(previous->b, lim__router_artifact(g->router)->hash, sizeof previous->b);
    version_push(g, d->artifact);
    let_drain(g, g->previous);
    g->previous = g->router;
    g->router = fresh; /* the swap: whatever is decided from here on is decided by the new one */
    g->on_fault = d->opts.on_fault != 0 ? d->opts.on_fault : LIM_ON_FAULT_REJECT;
    g->deployed = true;
    LIM__EVENT(g->bus, g->self, "deploy", { "group", lim__bytes(g->name, g->name_len) },
               { "version", lim__str(g->versions[0].id) },
               { "previous", lim__str(g->version_count > 1 ? g->versions[1].id : "") });
    lim__group_unpark(g, NULL, true);
    LIM__LIST_EACH(node, &g->members)
        lim__group_unpark(g, LIM_CONTAINER(node, member, node), true);
    lim__group_dispatch(g);
    return LIM_OK;
}
