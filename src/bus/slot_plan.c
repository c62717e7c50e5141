/* SPDX-License-Identifier: Apache-2.0
 * slot_plan.c - a change of a slot in two steps: a plan, in which whatever can fail has not failed; and carrying it
 * out, which cannot. Between the two it is stored, by those who have a store.
 *
 *      deploy, rollback, promote, stop --plan--> compiled, held --apply--> one assignment, a line of history
 *                                                         `-----discard--> as it was */
#include "bus/slot_inside.h"
#include "base/base.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- terms ---- */

static bool text_fits(lim_diag *diag, const char *what, const char *text, char *to, size_t size)
{
    to[0] = '\0';
    if (text == NULL)
        return true;
    if (strlen(text) < size && lim__text_ok(lim__str(text))) {
        memcpy(to, text, strlen(text) + 1);
        return true;
    }
    lim__diag_set(diag, 0, 0, "%s is not UTF-8, or longer than %zu bytes", what, size - 1);
    return false;
}

static bool number_fits(lim_diag *diag, const char *what, uint32_t *n, uint32_t otherwise, uint32_t max)
{
    if (*n == 0)
        *n = otherwise;
    if (*n <= max)
        return true;
    lim__diag_set(diag, 0, 0, "%s is %u; at most %u", what, *n, max);
    return false;
}

static bool trial_fits(lim_diag *diag, const lim__slot_terms *t)
{
    bool ramp = t->trial == LIM_TRIAL_RAMP;
    if (t->trial > LIM_TRIAL_RAMP)
        lim__diag_set(diag, 0, 0, "there is no such trial");
    else if (ramp && (t->ramp == 0 || t->ramp > LIM__SLOT_RAMP_WHOLE))
        lim__diag_set(diag, 0, 0, "a ramp is a share of 0.01 %% to 100 %% of the messages");
    else if (!ramp && (t->ramp != 0 || t->ramp_key[0] != '\0' || t->ramp_where[0] != '\0'))
        lim__diag_set(diag, 0, 0, "a share, a ramp_key or a ramp_where is for a ramp only");
    else
        return true;
    return false;
}

lim_err lim__slot_terms_of(const lim_deploy_opts *o, lim__slot_terms *out, lim_diag *diag)
{
    lim__slot_terms t = { .limits = { .cpu_ns = o->cpu_us_max * 1000ull,
                                      .wall_ns = o->wall_ms_max * 1000000ull,
                                      .unfinished_max = o->unfinished_max,
                                      .memory_max = o->memory_bytes_max,
                                      .log_bytes_per_s = o->log_bytes_max },
                          .on_fault = o->on_fault != 0 ? o->on_fault : LIM_ON_FAULT_REJECT,
                          .break_faults = o->breaker_faults,
                          .break_ms = o->breaker_ms,
                          .keep = o->keep,
                          .trial = o->trial,
                          .ramp = o->ramp };
    if (t.trial == LIM_TRIAL_RAMP && t.ramp == 0 && o->ramp_where != NULL)
        t.ramp = LIM__SLOT_RAMP_WHOLE;
    bool good = text_fits(diag, "by", o->by, t.by, sizeof t.by) &&
                text_fits(diag, "ramp_key", o->ramp_key, t.ramp_key, sizeof t.ramp_key) &&
                text_fits(diag, "ramp_where", o->ramp_where, t.ramp_where, sizeof t.ramp_where) &&
                (t.break_faults == LIM_UNLIMITED || number_fits(diag, "the breaker's number of faults", &t.break_faults,
                                                                LIM__SLOT_BREAK_FAULTS, LIM__SLOT_BREAK_FAULTS_MAX)) &&
                number_fits(diag, "the breaker's window in milliseconds", &t.break_ms, LIM__SLOT_BREAK_MS, 86400000) &&
                number_fits(diag, "keep", &t.keep, LIM__SLOT_KEEP, LIM__SLOT_KEEP_MAX) && trial_fits(diag, &t);
    if (good && t.on_fault > LIM_ON_FAULT_LEAST_LOADED) {
        lim__diag_set(diag, 0, 0, "there is no such on_fault");
        good = false;
    }
    if (!good)
        return LIM_E_INVALID;
    *out = t;
    return LIM_OK;
}

bool lim__slot_same_limits(const lim__route_limits *a, const lim__route_limits *b)
{
    return a->cpu_ns == b->cpu_ns && a->wall_ns == b->wall_ns && a->slice_ns == b->slice_ns &&
           a->unfinished_max == b->unfinished_max && a->memory_max == b->memory_max &&
           a->log_bytes_per_s == b->log_bytes_per_s;
}
/* ---- plans: what is to change, ready, but not done ---- */

static void hold(lim__slot_plan *p, lim__version *v)
{
    p->v = v;
    v->held = true;
}

static void plan_begin(const lim__slot *s, lim__slot_plan *p, lim__slot_act act, const char *kind, const char *by)
{
    *p = (lim__slot_plan){ .act = act, .kind = kind };
    snprintf(p->by, sizeof p->by, "%s", by);
    memcpy(p->previous.b, s->live->artifact->hash, sizeof p->previous.b);
}

static lim_err plan_live(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, lim_diag *diag,
                         lim__slot_plan *p)
{
    lim__version *old = lim__slot_kept_of(s, a), *v = old;
    lim_err err = LIM_OK;
    if (old != NULL && lim__slot_same_limits(&old->terms.limits, &terms->limits))
        err = lim__slot_open_router(s, v, diag);
    else
        err = lim__slot_make(s, a, terms, diag, &v);
    if (err != LIM_OK)
        return err;
    plan_begin(s, p, LIM__SLOT_LIVE, "deploy", terms->by);
    p->terms = *terms;
    hold(p, v);
    snprintf(p->detail, sizeof p->detail, "%s", a->name);
    return LIM_OK;
}

static void share_text(uint32_t ramp, char out[static 16])
{
    if (ramp % 100 == 0)
        snprintf(out, 16, "%u %%", ramp / 100);
    else
        snprintf(out, 16, "%u.%02u %%", ramp / 100, ramp % 100);
}

static void trial_text(const lim__slot_terms *t, char *to, size_t size)
{
    char share[16] = "";
    if (t->trial == LIM_TRIAL_RAMP)
        share_text(t->ramp, share);
    snprintf(to, size, "%s%s%.90s%s%.80s", share, t->ramp_key[0] != '\0' ? " by " : "", t->ramp_key,
             t->ramp_where[0] != '\0' ? " where " : "", t->ramp_where);
}

static lim_err where_of(const lim__slot_terms *t, lim_diag *diag, lim__pred **out)
{
    lim_diag why = { 0 };
    lim_err err = t->ramp_where[0] != '\0' ? lim__pred_new(lim__str(t->ramp_where), &why, out) : LIM_OK;
    if (err != LIM_OK)
        lim__diag_set(diag, why.line, why.column, "ramp_where, %s", why.text[0] != '\0' ? why.text : lim_err_text(err));
    return err;
}

static lim_err plan_trial(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, lim_diag *diag,
                          lim__slot_plan *p)
{
    lim__version *v = s->trial;
    bool shadow = terms->trial == LIM_TRIAL_SHADOW;
    bool same = v != NULL && lim__slot_same(v->artifact, a) && !shadow && !v->shadow &&
                lim__slot_same_limits(&v->terms.limits, &terms->limits); /* another share of the same one */
    if (v != NULL && !same) {
        lim__diag_set(diag, 0, 0, "%s is being tried out; promote or stop it first", v->id);
        return LIM_E_EXISTS;
    }
    lim__pred *where = NULL;
    lim_err err = where_of(terms, diag, &where);
    if (err == LIM_OK && !same)
        err = lim__slot_make(s, a, terms, diag, &v);
    if (err != LIM_OK) {
        lim__pred_free(where);
        return err;
    }
    plan_begin(s, p, same ? LIM__SLOT_SHARE : LIM__SLOT_TRY, shadow ? "shadow" : "ramp", terms->by);
    p->terms = *terms;
    p->where = where;
    hold(p, v);
    trial_text(terms, p->detail, sizeof p->detail);
    return LIM_OK;
}

lim_err lim__slot_plan_deploy(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, const char *if_version,
                              lim_diag *diag, lim__slot_plan *p)
{
    if (if_version[0] != '\0' && !lim__slot_is_named(s->live, if_version)) {
        lim__diag_set(diag, 0, 0, "%s is live, not %.64s; nothing has changed", s->live->id, if_version);
        return LIM_E_EXISTS;
    }
    return terms->trial != LIM_TRIAL_NONE ? plan_trial(s, a, terms, diag, p) : plan_live(s, a, terms, diag, p);
}

lim_err lim__slot_plan_rollback(lim__slot *s, const char *to, const char *by, lim_diag *diag, lim__slot_plan *p)
{
    lim__version *v = to[0] != '\0' ? lim__slot_find(s, to) : lim__slot_good_behind(s, s->live);
    if (v == NULL) {
        lim__diag_set(diag, 0, 0, to[0] != '\0' ? "no version %s is kept here" : "there is no version before%s", to);
        return LIM_E_NOTFOUND;
    }
    lim_err err = lim__slot_open_router(s, v, diag);
    if (err != LIM_OK)
        return err;
    plan_begin(s, p, LIM__SLOT_LIVE, "rollback", by);
    p->terms = v->terms;
    hold(p, v);
    snprintf(p->detail, sizeof p->detail, "%s", v->artifact->name);
    return LIM_OK;
}

/* ---- trials ---- */

static lim_err no_trial(lim_diag *diag)
{
    lim__diag_set(diag, 0, 0, "nothing is being tried out here");
    return LIM_E_NOTFOUND;
}

lim_err lim__slot_plan_promote(lim__slot *s, const char *by, lim_diag *diag, lim__slot_plan *p)
{
    lim__version *v = s->trial;
    lim__router *fresh = NULL;
    if (v == NULL)
        return no_trial(diag);
    if (v->shadow) { /* it counted for itself; from now on its counter is the slot's, so it is compiled anew */
        v->shadow = false;
        lim_err err = lim__slot_router_open(s, v, v->artifact, diag, &fresh);
        v->shadow = true;
        if (err != LIM_OK)
            return err;
    }
    plan_begin(s, p, LIM__SLOT_LIVE, "promote", by);
    p->terms = v->terms;
    p->terms.trial = LIM_TRIAL_NONE;
    p->terms.ramp = 0;
    p->terms.ramp_key[0] = p->terms.ramp_where[0] = '\0';
    p->fresh = fresh;
    hold(p, v);
    snprintf(p->detail, sizeof p->detail, "%s", v->artifact->name);
    return LIM_OK;
}

lim_err lim__slot_plan_stop(lim__slot *s, const char *by, lim_diag *diag, lim__slot_plan *p)
{
    if (s->trial == NULL)
        return no_trial(diag);
    plan_begin(s, p, LIM__SLOT_END, "trial_stop", by);
    hold(p, s->trial);
    snprintf(p->detail, sizeof p->detail, "%s", s->trial->shadow ? "shadow" : "ramp");
    return LIM_OK;
}

void lim__slot_end_trial(lim__slot *s)
{
    lim__version *v = s->trial;
    s->trial = NULL;
    if (v->shadow) {
        lim__slot_compares_drop(s);
        lim__router_abandon(v->router);
    }
    v->leaving = true;
    lim__list_push(&s->versions, &v->node);
    lim__slot_untidy(s);
}

/* ---- plans are carried out, or not ---- */

static bool is_listed(const lim__version *v)
{
    return v->node.next != &v->node;
}

static void take_where(lim__version *v, lim__slot_plan *p)
{
    lim__pred_free(v->where);
    v->where = p->where;
    p->where = NULL;
}

static void go_live(lim__slot *s, lim__slot_plan *p)
{
    lim__version *v = p->v;
    if (s->trial == v)
        s->trial = NULL;
    if (p->fresh != NULL) { /* out of the shadow */
        lim__slot_compares_drop(s);
        lim__router_abandon(v->router);
        lim__router_unref(v->router);
        v->router = p->fresh;
        v->shadow = false;
    }
    lim__slot_take_over(lim__slot_kept_of(s, v->artifact), v);
    v->terms = p->terms;
    take_where(v, p);
    lim__slot_swap(s, v);
}

static void begin_trial(lim__slot *s, lim__version *v)
{
    v->deployed_wall_ns = s->trial_wall_ns = s->o.bus->os->wall_ns(s->o.bus->os);
    s->agreed = s->differed = s->live_faults = s->shadow_faults = s->skipped = s->diff_count = s->shadow_counter = 0;
    s->trial = v;
    s->deployed = true;
}

void lim__slot_apply(lim__slot *s, lim__slot_plan *p)
{
    char before[sizeof s->live->id];
    lim__version *v = p->v;
    snprintf(before, sizeof before, "%s", s->live->id);
    v->held = false;
    lim__slot_note(s, p->kind, v->id, before, p->by, "%s", p->detail);
    switch (p->act) {
    case LIM__SLOT_LIVE:
        go_live(s, p);
        break;
    case LIM__SLOT_TRY:
        take_where(v, p);
        begin_trial(s, v);
        break;
    case LIM__SLOT_SHARE: /* unless the breaker has ended it meanwhile */
        if (s->trial != v)
            break;
        v->terms = p->terms;
        take_where(v, p);
        break;
    case LIM__SLOT_END:
        if (s->trial == v)
            lim__slot_end_trial(s);
        break;
    }
    lim__pred_free(p->where);
    *p = (lim__slot_plan){ 0 };
    lim__slot_untidy(s);
    lim__slot_changed(s);
}

void lim__slot_discard(lim__slot *s, lim__slot_plan *p)
{
    if (p->v == NULL)
        return;
    p->v->held = false;
    lim__router_unref(p->fresh);
    lim__pred_free(p->where);
    if (p->v != s->trial && !is_listed(p->v))
        lim__slot_version_free(p->v);
    *p = (lim__slot_plan){ 0 };
    lim__slot_untidy(s);
}

static lim_err at_once(lim__slot *s, lim_err err, lim__slot_plan *p, lim_hash *previous)
{
    if (err == LIM_OK && previous != NULL)
        *previous = p->previous;
    if (err == LIM_OK)
        lim__slot_apply(s, p);
    return err;
}

lim_err lim__slot_deploy(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, const char *if_version,
                         lim_diag *diag, lim_hash *previous)
{
    lim__slot_plan p;
    return at_once(s, lim__slot_plan_deploy(s, a, terms, if_version, diag, &p), &p, previous);
}

lim_err lim__slot_rollback(lim__slot *s, const char *to, const char *by, lim_diag *diag, lim_hash *previous)
{
    lim__slot_plan p;
    return at_once(s, lim__slot_plan_rollback(s, to, by, diag, &p), &p, previous);
}

lim_err lim__slot_promote(lim__slot *s, const char *by, lim_diag *diag, lim_hash *previous)
{
    lim__slot_plan p;
    return at_once(s, lim__slot_plan_promote(s, by, diag, &p), &p, previous);
}

lim_err lim__slot_stop(lim__slot *s, const char *by, lim_diag *diag)
{
    lim__slot_plan p;
    return at_once(s, lim__slot_plan_stop(s, by, diag, &p), &p, NULL);
}
