/* SPDX-License-Identifier: Apache-2.0
 * slot.c - versions of a routing function: deployed, rolled back, tried out, taken off by the breaker.
 *
 *                 .--deploy--.                                   .--rollback, breaker (of another one)--.
 *                 v          |                                   v                                      |
 *      (artifact) --------> ACTIVE --another is deployed--> DRAINING --last call ended--> RETIRED ------'
 *          |                   ^                                                            |
 *          `--> SHADOW, RAMP --'promote                                  more than `keep`: forgotten
 *
 * A deployment is one assignment (RF7): whoever asks afterwards asks the new version; calls in flight end on theirs,
 * whose compiled state stays until then. */
#include "bus/slot.h"
#include "base/base.h"
#include <stdio.h>
#include <stdlib.h>

static const char fallback_name[] = "least_loaded";

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
    else if (!ramp && (t->ramp != 0 || t->ramp_key[0] != '\0'))
        lim__diag_set(diag, 0, 0, "a share or a ramp_key is for a ramp only");
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
    bool good = text_fits(diag, "by", o->by, t.by, sizeof t.by) &&
                text_fits(diag, "ramp_key", o->ramp_key, t.ramp_key, sizeof t.ramp_key) &&
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

static bool same_limits(const lim__route_limits *a, const lim__route_limits *b)
{
    return a->cpu_ns == b->cpu_ns && a->wall_ns == b->wall_ns && a->slice_ns == b->slice_ns &&
           a->unfinished_max == b->unfinished_max && a->memory_max == b->memory_max &&
           a->log_bytes_per_s == b->log_bytes_per_s;
}

/* ---- versions ---- */

lim__version *lim__slot_version_new(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms)
{
    lim__version *v = calloc(1, sizeof *v);
    if (v == NULL)
        return NULL;
    v->slot = s;
    v->artifact = lim__artifact_ref(a);
    v->terms = *terms;
    lim__list_init(&v->node);
    if (a->engine == LIM__ENGINE_BUILTIN)
        snprintf(v->id, sizeof v->id, "%.*s", (int)(a->bytes.len < 39 ? a->bytes.len : 39), (const char *)a->bytes.ptr);
    else
        snprintf(v->id, sizeof v->id, "%s", a->id);
    return v;
}

static void add_stats(lim__router_stats *to, const lim__router_stats *from)
{
    to->calls += from->calls;
    to->decided += from->decided;
    to->none += from->none;
    to->crashed += from->crashed;
    to->timed_out += from->timed_out;
    to->not_started += from->not_started;
    to->slices += from->slices;
    to->log_dropped += from->log_dropped;
    to->overruns += from->overruns;
    to->unfinished += from->unfinished;
    to->memory_bytes += from->memory_bytes;
    lim__hist_merge(&to->time_ns, &from->time_ns);
}

void lim__slot_tally(const lim__version *v, lim__router_stats *out)
{
    *out = (lim__router_stats){ 0 };
    if (v->past != NULL)
        *out = *v->past;
    if (v->router != NULL) {
        lim__router_stats now;
        lim__router_stats_get(v->router, &now);
        add_stats(out, &now);
    }
}

uint64_t lim__slot_faults(const lim__router_stats *t)
{
    return t->crashed + t->timed_out + t->not_started;
}

/* For want of memory its numbers begin at 0 again. */
static void keep_stats(lim__version *v)
{
    lim__router_stats now;
    if (v->past == NULL)
        v->past = calloc(1, sizeof *v->past);
    if (v->past == NULL)
        return;
    lim__router_stats_get(v->router, &now);
    now.unfinished = 0;
    now.memory_bytes = 0;
    add_stats(v->past, &now);
}

static void close_router(lim__version *v)
{
    if (v->router == NULL)
        return;
    keep_stats(v);
    lim__router_abandon(v->router);
    lim__router_unref(v->router);
    v->router = NULL;
}

void lim__slot_version_free(lim__version *v)
{
    if (v == NULL)
        return;
    lim__list_remove(&v->node);
    if (v->router != NULL) {
        lim__router_abandon(v->router);
        lim__router_unref(v->router);
    }
    lim__artifact_unref(v->artifact);
    free(v->past);
    free(v->fault_ns);
    free(v);
}

static void on_router_ready(void *version)
{
    const lim__slot *s = ((const lim__version *)version)->slot;
    s->o.on_ready(s->o.owner);
}

static lim_err open_router(lim__slot *s, lim__version *v, lim__artifact *a, lim_diag *diag, lim__router **out)
{
    lim_bus *bus = s->o.bus;
    lim__router_opts opts = { .sched = s->self != NULL ? lim__proc_sched(s->self) : NULL,
                              .os = bus->os,
                              .artifact = a,
                              .counter = v != NULL && v->shadow ? &s->shadow_counter : &s->counter,
                              .seed = bus->os->random(bus->os),
                              .instruction_ns = lim__bus_instruction_ns(bus),
                              .on_done = lim__slot_done,
                              .on_log = v != NULL ? lim__slot_log : NULL,
                              .on_ready = v != NULL ? on_router_ready : NULL,
                              .native = bus->native,
                              .host = lim__slot_host(bus, a),
                              .ctx = v };
    if (v != NULL)
        opts.limits = v->terms.limits;
    return lim__router_open(&opts, diag, out);
}

lim_err lim__slot_open_router(lim__slot *s, lim__version *v, lim_diag *diag)
{
    return v->router != NULL ? LIM_OK : open_router(s, v, v->artifact, diag, &v->router);
}

lim__router *lim__slot_fallback(lim__slot *s)
{
    lim__artifact *a = NULL;
    if (s->fallback != NULL)
        return s->fallback;
    if (lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(fallback_name), fallback_name, 0, &a) == LIM_OK)
        (void)!open_router(s, NULL, a, NULL, &s->fallback);
    lim__artifact_unref(a);
    return s->fallback;
}

static bool same_artifact(const lim__artifact *a, const lim__artifact *b)
{
    return a->engine == b->engine && memcmp(a->hash, b->hash, sizeof a->hash) == 0;
}

static lim__version *kept_of(lim__slot *s, const lim__artifact *a)
{
    LIM__LIST_EACH(node, &s->versions) {
        lim__version *v = LIM_CONTAINER(node, lim__version, node);
        if (!v->leaving && same_artifact(v->artifact, a))
            return v;
    }
    return NULL;
}

static bool is_named(const lim__version *v, const char *hash)
{
    char hex[LIM__HASH_TEXT];
    size_t len = strlen(hash);
    lim__hash_text(v->artifact->hash, hex);
    if (strcmp(hash, v->id) == 0)
        return true;
    if (len < LIM__HASH_PREFIX_MIN || len >= sizeof hex)
        return false;
    for (size_t i = 0; i < len; i++)
        if (hex[i] != (hash[i] >= 'A' && hash[i] <= 'F' ? hash[i] - 'A' + 'a' : hash[i]))
            return false;
    return true;
}

lim__version *lim__slot_find(lim__slot *s, const char *hash)
{
    LIM__LIST_EACH(node, &s->versions) {
        lim__version *v = LIM_CONTAINER(node, lim__version, node);
        if (!v->leaving && is_named(v, hash))
            return v;
    }
    return NULL;
}

/* The newest one behind `behind` that may decide again; compiled. */
static lim__version *good_behind(lim__slot *s, const lim__version *behind)
{
    for (lim__list *n = behind->node.next; n != &s->versions; n = n->next) {
        lim__version *v = LIM_CONTAINER(n, lim__version, node);
        if (!v->leaving && !v->tripped && lim__slot_open_router(s, v, NULL) == LIM_OK)
            return v;
    }
    return NULL;
}

lim__version *lim__slot_other(lim__slot *s, const lim__version *v)
{
    return v != s->live ? s->live : good_behind(s, v);
}

/* ---- tidying ---- */

/* The one that an on_fault rule would ask next stays compiled. */
static bool is_needed(const lim__slot *s, const lim__version *v)
{
    if (v == s->live || v == s->trial || v->held)
        return true;
    if (v->router != NULL && lim__router_pending(v->router) > 0)
        return true; /* V2 */
    if (v->leaving || v->tripped || s->live->terms.on_fault != LIM_ON_FAULT_PREVIOUS)
        return false;
    for (lim__list *n = s->live->node.next; n != &v->node; n = n->next) {
        const lim__version *between = LIM_CONTAINER(n, lim__version, node);
        if (!between->leaving && !between->tripped)
            return false;
    }
    return true;
}

static void trim(lim__slot *s)
{
    uint32_t kept = 0;
    LIM__LIST_EACH(node, &s->versions) {
        lim__version *v = LIM_CONTAINER(node, lim__version, node);
        v->leaving = v->leaving || (v != s->live && !v->held && kept >= s->live->terms.keep);
        kept += !v->leaving;
    }
}

void lim__slot_tidy(lim__slot *s)
{
    if (s->busy > 0 || !s->untidy)
        return;
    s->untidy = false;
    trim(s);
    LIM__LIST_EACH_SAFE(node, tmp, &s->versions) {
        lim__version *v = LIM_CONTAINER(node, lim__version, node);
        if (is_needed(s, v))
            continue;
        close_router(v);
        if (v->leaving)
            lim__slot_version_free(v);
    }
    lim__slot_check(s);
}

static void untidy(lim__slot *s)
{
    s->untidy = true;
    if (s->busy > 0)
        s->o.on_ready(s->o.owner);
    else
        lim__slot_tidy(s);
}

static void changed(lim__slot *s)
{
    if (s->o.on_change != NULL)
        s->o.on_change(s->o.owner);
}

/* ---- swapping ---- */

static void swap(lim__slot *s, lim__version *v)
{
    lim__list_remove(&v->node);
    lim__list_push_front(&s->versions, &v->node);
    free(v->fault_ns);
    v->fault_ns = NULL;
    v->fault_count = v->fault_at = 0;
    v->tripped = v->leaving = false;
    v->deployed_wall_ns = s->o.bus->os->wall_ns(s->o.bus->os);
    s->live = v; /* the swap: whatever is decided from here on is decided by the new one */
    s->deployed = true;
}

static uint32_t draining(const lim__slot *s)
{
    uint32_t n = 0;
    LIM__LIST_EACH(node, &s->versions) {
        const lim__version *v = LIM_CONTAINER(node, lim__version, node);
        n += v != s->live && v->router != NULL && lim__router_pending(v->router) > 0;
    }
    return n;
}

/* A version that is compiled and stands in no list. */
static lim_err make(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, lim_diag *diag, lim__version **out)
{
    if (draining(s) >= LIM__SLOT_DRAINING_MAX) {
        lim__diag_set(diag, 0, 0, "%u earlier versions still have unfinished calls; deploy again when they have ended",
                      draining(s));
        return LIM_E_FULL;
    }
    lim__version *v = lim__slot_version_new(s, a, terms);
    if (v == NULL)
        return LIM_E_NOMEM;
    v->shadow = terms->trial == LIM_TRIAL_SHADOW;
    lim_err err = lim__slot_open_router(s, v, diag);
    if (err != LIM_OK)
        lim__slot_version_free(v);
    else
        *out = v;
    return err;
}

/* Only one version of the same bytes is kept (V4): the new one goes on counting where the old one stopped. */
static void take_over(lim__version *old, lim__version *v)
{
    if (old == NULL || old == v)
        return;
    if (v->past == NULL && (v->past = malloc(sizeof *v->past)) != NULL) {
        lim__slot_tally(old, v->past);
        v->past->unfinished = 0;
        v->past->memory_bytes = 0;
    }
    old->leaving = true;
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
    lim__version *old = kept_of(s, a), *v = old;
    lim_err err = LIM_OK;
    if (old != NULL && same_limits(&old->terms.limits, &terms->limits))
        err = lim__slot_open_router(s, v, diag);
    else
        err = make(s, a, terms, diag, &v);
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
    snprintf(to, size, "%s%s%s", share, t->ramp_key[0] != '\0' ? " by " : "", t->ramp_key);
}

static lim_err plan_trial(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, lim_diag *diag,
                          lim__slot_plan *p)
{
    lim__version *v = s->trial;
    bool shadow = terms->trial == LIM_TRIAL_SHADOW;
    bool same = v != NULL && same_artifact(v->artifact, a) && !shadow && !v->shadow &&
                same_limits(&v->terms.limits, &terms->limits); /* another share of the same one */
    if (v != NULL && !same) {
        lim__diag_set(diag, 0, 0, "%s is being tried out; promote or stop it first", v->id);
        return LIM_E_EXISTS;
    }
    lim_err err = same ? LIM_OK : make(s, a, terms, diag, &v);
    if (err != LIM_OK)
        return err;
    plan_begin(s, p, same ? LIM__SLOT_SHARE : LIM__SLOT_TRY, shadow ? "shadow" : "ramp", terms->by);
    p->terms = *terms;
    hold(p, v);
    trial_text(terms, p->detail, sizeof p->detail);
    return LIM_OK;
}

lim_err lim__slot_plan_deploy(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, const char *if_version,
                              lim_diag *diag, lim__slot_plan *p)
{
    if (if_version[0] != '\0' && !is_named(s->live, if_version)) {
        lim__diag_set(diag, 0, 0, "%s is live, not %.64s; nothing has changed", s->live->id, if_version);
        return LIM_E_EXISTS;
    }
    return terms->trial != LIM_TRIAL_NONE ? plan_trial(s, a, terms, diag, p) : plan_live(s, a, terms, diag, p);
}

lim_err lim__slot_plan_rollback(lim__slot *s, const char *to, const char *by, lim_diag *diag, lim__slot_plan *p)
{
    lim__version *v = to[0] != '\0' ? lim__slot_find(s, to) : good_behind(s, s->live);
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
        lim_err err = open_router(s, v, v->artifact, diag, &fresh);
        v->shadow = true;
        if (err != LIM_OK)
            return err;
    }
    plan_begin(s, p, LIM__SLOT_LIVE, "promote", by);
    p->terms = v->terms;
    p->terms.trial = LIM_TRIAL_NONE;
    p->terms.ramp = 0;
    p->terms.ramp_key[0] = '\0';
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

static void end_trial(lim__slot *s)
{
    lim__version *v = s->trial;
    s->trial = NULL;
    if (v->shadow) {
        lim__slot_compares_drop(s);
        lim__router_abandon(v->router);
    }
    v->leaving = true;
    lim__list_push(&s->versions, &v->node);
    untidy(s);
}

/* ---- plans are carried out, or not ---- */

static bool is_listed(const lim__version *v)
{
    return v->node.next != &v->node;
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
    take_over(kept_of(s, v->artifact), v);
    v->terms = p->terms;
    swap(s, v);
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
        begin_trial(s, v);
        break;
    case LIM__SLOT_SHARE: /* unless the breaker has ended it meanwhile */
        if (s->trial == v)
            v->terms = p->terms;
        break;
    case LIM__SLOT_END:
        if (s->trial == v)
            end_trial(s);
        break;
    }
    *p = (lim__slot_plan){ 0 };
    untidy(s);
    changed(s);
}

void lim__slot_discard(lim__slot *s, lim__slot_plan *p)
{
    if (p->v == NULL)
        return;
    p->v->held = false;
    lim__router_unref(p->fresh);
    if (p->v != s->trial && !is_listed(p->v))
        lim__slot_version_free(p->v);
    *p = (lim__slot_plan){ 0 };
    untidy(s);
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

/* ---- the breaker ---- */

static lim__version *last_resort(lim__slot *s)
{
    static const lim__slot_terms terms = {
        .on_fault = LIM_ON_FAULT_REJECT, .break_faults = LIM_UNLIMITED, .break_ms = 1, .keep = LIM__SLOT_KEEP
    };
    lim__artifact *a = NULL;
    lim__version *v = NULL;
    if (lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(fallback_name), fallback_name, 0, &a) == LIM_OK &&
        make(s, a, &terms, NULL, &v) == LIM_OK)
        take_over(kept_of(s, a), v);
    lim__artifact_unref(a);
    return v;
}

static void trip(lim__slot *s, lim__version *v)
{
    lim__version *good = s->live;
    v->tripped = true;
    if (v == s->live && (good = good_behind(s, v)) == NULL && (good = last_resort(s)) == NULL)
        return; /* for want of memory it stays, and the next fault tries again */
    uint32_t keep = v->terms.keep;
    if (v == s->trial)
        end_trial(s);
    else
        swap(s, good);
    if (good->terms.keep < keep)
        good->terms.keep = keep;
    lim__slot_note(s, "breaker", good->id, v->id, "", "%u faults within %u ms; the last: %s", v->terms.break_faults,
                   v->terms.break_ms, s->last_fault);
    untidy(s);
    changed(s);
}

static bool too_many(lim__version *v, uint64_t now_ns)
{
    uint32_t max = v->terms.break_faults;
    if (v->fault_ns == NULL && (v->fault_ns = malloc(max * sizeof *v->fault_ns)) == NULL)
        return false;
    uint32_t at = v->fault_at;
    v->fault_at = (at + 1) % max;
    v->fault_ns[at] = now_ns;
    v->fault_count += v->fault_count < max;
    return v->fault_count == max && now_ns - v->fault_ns[v->fault_at] <= v->terms.break_ms * 1000000ull;
}

void lim__slot_fault(lim__slot *s, lim__version *v, const lim__route_result *r)
{
    lim__os *os = s->o.bus->os;
    LIM_ASSERT(s->busy > 0); /* V3: `v` stays */
    snprintf(s->last_fault, sizeof s->last_fault, "%s%s%.*s", lim__route_how_text(r->how), r->line != 0 ? " " : ": ",
             160, r->text);
    LIM__EVENT(s->o.bus, s->self, "routing_fault", { s->o.kind, s->o.name }, { "version", lim__str(v->id) },
               { "fault", lim__str(s->last_fault) });
    if (r->how == LIM__ROUTE_NOT_STARTED || (v != s->live && v != s->trial) || v->terms.break_faults == LIM_UNLIMITED)
        return; /* what was not begun for want of room is no fault of its code */
    if (too_many(v, os->now_ns(os)))
        trip(s, v);
}

/* ---- beginning and end ---- */

lim_err lim__slot_init(lim__slot *s, const lim__slot_opts *opts)
{
    lim__slot_terms terms;
    lim__artifact *a = NULL;
    lim_process *self = s->self;
    *s = (lim__slot){ .o = *opts, .self = self };
    lim__list_init(&s->versions);
    lim__list_init(&s->compares);
    lim__list_init(&s->history);
    lim__list_init(&s->lines);
    lim_err err = lim__slot_terms_of(&(lim_deploy_opts){ .breaker_faults = LIM_UNLIMITED }, &terms, NULL);
    if (err == LIM_OK)
        err = lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(fallback_name), fallback_name, 0, &a);
    if (err == LIM_OK)
        err = make(s, a, &terms, NULL, &s->live);
    if (err == LIM_OK) {
        s->live->deployed_wall_ns = opts->bus->os->wall_ns(opts->bus->os);
        lim__list_push(&s->versions, &s->live->node);
    }
    lim__artifact_unref(a);
    return err;
}

void lim__slot_fini(lim__slot *s)
{
    if (s->versions.next == NULL)
        return;
    lim__slot_compares_drop(s);
    while (!lim__list_empty(&s->versions))
        lim__slot_version_free(LIM_CONTAINER(s->versions.next, lim__version, node));
    lim__slot_version_free(s->trial);
    lim__router_unref(s->fallback);
    lim__doc_free(s->doc);
    lim__buf_fini(&s->scratch);
    free(s->diffs);
    free(s->named);
    free(s->named_before);
    lim__slot_book_fini(s);
    *s = (lim__slot){ 0 };
}

void lim__slot_check(const lim__slot *s)
{
    LIM_CHECK(s->versions.next == &s->live->node && s->live->router != NULL && !s->live->leaving); /* V1 */
    LIM__LIST_EACH(node, &s->versions) {
        const lim__version *v = LIM_CONTAINER(node, lim__version, node);
        for (lim__list *n = node->next; n != &s->versions; n = n->next) {
            const lim__version *w = LIM_CONTAINER(n, lim__version, node);
            LIM_CHECK(v->leaving || w->leaving || !same_artifact(v->artifact, w->artifact)); /* V4 */
            (void)w;
        }
        LIM_CHECK(v->slot == s);
        (void)v;
    }
    (void)s;
}
