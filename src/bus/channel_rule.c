/* SPDX-License-Identifier: Apache-2.0
 * channel_rule.c - rules of channels' slots: made and compiled for every seat before anybody goes by them.
 *
 * A router knows no thread, so the control compiles those of all schedulers; each seat takes its own, tells it whose
 * counter it counts with, and closes the ones it had. What seats never took is closed with the rule. What a function
 * prints while it is compiled is dropped here: the slot compiles it once more for itself, and keeps those lines. */
#include "base/base.h"
#include "bus/channel_slot.h"
#include <stdio.h>
#include <stdlib.h>

static void take_code(lim__chan_code *code, lim__chan_part part, lim__artifact *last)
{
    code->artifact = part.v != NULL ? part.v->artifact : last;
    if (part.terms != NULL)
        code->limits = part.terms->limits;
    if (code->artifact != NULL)
        lim__artifact_ref(code->artifact);
}

static lim_err take_ramp(lim__chan_rule *r, lim__chan_part trial, lim_diag *diag)
{
    const lim__slot_terms *t = trial.terms;
    if (trial.v == NULL)
        return LIM_OK;
    r->shadow = t->trial == LIM_TRIAL_SHADOW;
    snprintf(r->ramp_key, sizeof r->ramp_key, "%s", t->ramp_key);
    r->ramp = (lim__ramp){ .share = t->ramp, .by = r->ramp_key };
    memcpy(&r->ramp.seed, trial.v->artifact->hash, sizeof r->ramp.seed);
    lim_err err = t->ramp_where[0] != '\0' ? lim__pred_new(lim__str(t->ramp_where), diag, &r->where) : LIM_OK;
    r->ramp.where = r->where;
    return err;
}

static lim_err compile(lim__chan_slot *slot, const lim__chan_code *code, lim_diag *diag, lim__router **out)
{
    lim_bus *bus = slot->bus;
    if (code->artifact == NULL)
        return LIM_OK;
    const lim__router_opts opts = { .os = bus->os,
                                    .artifact = code->artifact,
                                    .seed = bus->os->random(bus->os),
                                    .instruction_ns = lim__bus_instruction_ns(bus),
                                    .limits = code->limits,
                                    .on_log = lim__chan_on_log,
                                    .sets = true,
                                    .host = lim__slot_host(bus, code->artifact) };
    return lim__router_open(&opts, diag, out);
}

/* Who is asked after a fault may be missing: then nobody is. */
static lim_err compile_all(lim__chan_slot *slot, lim__chan_rule *r, lim_diag *diag)
{
    lim_err err = LIM_OK;
    for (uint32_t i = 0; i < r->seat_count && err == LIM_OK; i++) {
        lim__router **routers = r->made[i].routers;
        err = compile(slot, &r->codes[LIM__CHAN_LIVE], diag, &routers[LIM__CHAN_LIVE]);
        if (err == LIM_OK)
            err = compile(slot, &r->codes[LIM__CHAN_TRIAL], diag, &routers[LIM__CHAN_TRIAL]);
        if (err != LIM_OK)
            break;
        (void)!compile(slot, &r->codes[LIM__CHAN_BEFORE], NULL, &routers[LIM__CHAN_BEFORE]);
        (void)!compile(slot, &r->codes[LIM__CHAN_LAST], NULL, &routers[LIM__CHAN_LAST]);
    }
    return err;
}

static void take_codes(lim__chan_rule *r, lim__chan_part live, lim__chan_part trial, lim__chan_part before,
                       lim__artifact *last)
{
    const lim__chan_part none = { NULL, NULL };
    r->on_fault[LIM__CHAN_LIVE] = live.terms->on_fault;
    r->on_fault[LIM__CHAN_TRIAL] = trial.v != NULL ? trial.terms->on_fault : LIM_ON_FAULT_REJECT;
    bool wants_last = r->on_fault[LIM__CHAN_LIVE] == LIM_ON_FAULT_LEAST_LOADED ||
                      r->on_fault[LIM__CHAN_TRIAL] == LIM_ON_FAULT_LEAST_LOADED;
    take_code(&r->codes[LIM__CHAN_LIVE], live, NULL);
    take_code(&r->codes[LIM__CHAN_TRIAL], trial, NULL);
    take_code(&r->codes[LIM__CHAN_BEFORE], live.terms->on_fault == LIM_ON_FAULT_PREVIOUS ? before : none, NULL);
    take_code(&r->codes[LIM__CHAN_LAST], none, wants_last ? last : NULL);
}

lim_err lim__chan_rule_new(lim__chan_slot *slot, uint64_t generation, lim__chan_part live, lim__chan_part trial,
                           lim__chan_part before, lim__artifact *last, lim_diag *diag, lim__chan_rule **out)
{
    uint32_t seats = slot->all->sched_count + 1;
    size_t bytes = sizeof(lim__chan_rule) + seats * sizeof(struct lim__chan_tally);
    lim__chan_rule *r = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (r == NULL)
        return LIM_E_NOMEM;
    memset(r, 0, bytes);
    r->generation = generation;
    r->seat_count = seats;
    r->made = calloc(seats, sizeof *r->made);
    take_codes(r, live, trial, before, last);
    lim_err err = r->made != NULL ? take_ramp(r, trial, diag) : LIM_E_NOMEM;
    if (err == LIM_OK)
        err = compile_all(slot, r, diag);
    if (err != LIM_OK)
        lim__chan_rule_free(&r->retired);
    else
        *out = r;
    return err;
}

void lim__chan_rule_free(lim__retired *retired)
{
    lim__chan_rule *r = LIM_CONTAINER(retired, lim__chan_rule, retired);
    for (int role = 0; role < LIM__CHAN_ROLES; role++) {
        for (uint32_t i = 0; r->made != NULL && i < r->seat_count; i++)
            lim__router_unref(r->made[i].routers[role]);
        lim__artifact_unref(r->codes[role].artifact);
    }
    lim__pred_free(r->where);
    free(r->made);
    free(r);
}

void lim__chan_counts_sum(const lim__chan_rule *rule, lim__chan_role role, lim__router_stats *out)
{
    *out = (lim__router_stats){ 0 };
    for (uint32_t i = 0; i < rule->seat_count; i++) {
        const lim__chan_counts *t = &rule->tallies[i].of[role];
        out->calls += LIM__RELAXED(t->calls);
        out->decided += LIM__RELAXED(t->decided);
        out->none += LIM__RELAXED(t->none);
        out->crashed += LIM__RELAXED(t->crashed);
        out->timed_out += LIM__RELAXED(t->timed_out);
        out->not_started += LIM__RELAXED(t->not_started);
    }
}
