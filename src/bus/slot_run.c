/* SPDX-License-Identifier: Apache-2.0
 * slot_run.c - calls: who decides about this message, and what its shadow would have decided.
 *
 *      message --> ramp: does it match, is its hash within the share? --> trial or live --> decision
 *                                                            `--> shadow: the same message, compared when both are in
 *
 * Chance plays no part: a ramp hashes the message's key (or what the owner gives for it) with a seed that is the
 * version's own hash. So one value always meets the same version, here and after a restart, and a share that grows only
 * adds to those who meet the new one. */
#include "base/base.h"
#include "base/map.h"
#include "bus/slot.h"
#include <stdio.h>
#include <stdlib.h>

static bool is_fault(lim__route_how how)
{
    return how == LIM__ROUTE_CRASHED || how == LIM__ROUTE_TIMED_OUT || how == LIM__ROUTE_NOT_STARTED;
}

/* ---- ramps ---- */

bool lim__ramp_takes(const lim__ramp *ramp, lim__ramp_reader *r, const lim__route_msg *msg, uint64_t key)
{
    lim_bytes value;
    if (ramp->where != NULL && !LIM__MUTATION("ramp_for_all")) {
        lim__pred_reader_begin(&r->reader, msg->payload, msg->headers);
        if (!lim__pred_match(ramp->where, &r->reader))
            return false;
    }
    if (ramp->by[0] == '\0')
        return ramp->share == LIM__SLOT_RAMP_WHOLE ||
               lim__hash_u64(key, ramp->seed) % LIM__SLOT_RAMP_WHOLE < ramp->share;
    if (r->doc == NULL && (r->doc = lim__doc_new()) == NULL)
        return false;
    if (!lim__route_field(r->doc, &r->scratch, msg, lim__str(ramp->by), &value))
        return false; /* who has no key stays where everybody was */
    return lim__hash_bytes(value, ramp->seed) % LIM__SLOT_RAMP_WHOLE < ramp->share;
}

void lim__ramp_reader_fini(lim__ramp_reader *r)
{
    lim__doc_free(r->doc);
    lim__buf_fini(&r->scratch);
    lim__pred_reader_fini(&r->reader);
    *r = (lim__ramp_reader){ 0 };
}

static bool in_ramp(lim__slot *s, const lim__route_msg *msg, uint64_t key)
{
    const lim__version *v = s->trial;
    lim__ramp ramp = { .share = v->terms.ramp, .by = v->terms.ramp_key, .where = v->where };
    memcpy(&ramp.seed, v->artifact->hash, sizeof ramp.seed);
    return lim__ramp_takes(&ramp, &s->reader, msg, key);
}

/* ---- shadows ---- */

static void name_text(lim__slot *s, uint64_t candidate, char *to, size_t size)
{
    lim_bytes name = s->o.name_of != NULL ? s->o.name_of(s->o.owner, candidate) : lim__bytes(NULL, 0);
    if (name.len > 0)
        snprintf(to, size, "%.*s", (int)(name.len < size ? name.len : size - 1), (const char *)name.ptr);
    else
        snprintf(to, size, "%llx", (unsigned long long)candidate);
}

static struct lim__slot_answer answer_of(lim__slot *s, const lim__route_result *r, lim__route_how how)
{
    struct lim__slot_answer a = { .how = how };
    if (how == LIM__ROUTE_DECIDED) {
        a.candidate = r->id;
        name_text(s, r->id, a.name, sizeof a.name);
    } else if (is_fault(how)) {
        snprintf(a.text, sizeof a.text, "%.*s", (int)sizeof a.text - 1, r->text);
    }
    return a;
}

static void answer_text(const struct lim__slot_answer *a, char *to, size_t size)
{
    if (a->how == LIM__ROUTE_DECIDED)
        snprintf(to, size, "%s", a->name);
    else if (is_fault(a->how))
        snprintf(to, size, "%s: %.80s", lim__route_how_text(a->how), a->text);
    else
        snprintf(to, size, "none");
}

void lim__slot_diff_add(lim__slot *s, const char *live, const char *shadow, lim_bytes about)
{
    if (s->diffs == NULL && (s->diffs = calloc(LIM__SLOT_DIFFS, sizeof *s->diffs)) == NULL)
        return;
    lim__slot_diff *d = &s->diffs[s->diff_count++ % LIM__SLOT_DIFFS];
    *d = (lim__slot_diff){ .wall_ns = s->o.bus->os->wall_ns(s->o.bus->os) };
    snprintf(d->live, sizeof d->live, "%s", live);
    snprintf(d->shadow, sizeof d->shadow, "%s", shadow);
    if (about.len > 0)
        snprintf(d->about, sizeof d->about, "%.*s",
                 (int)(about.len < sizeof d->about ? about.len : sizeof d->about - 1), (const char *)about.ptr);
}

static void keep_diff(lim__slot *s, const lim__slot_compare *c)
{
    char live[sizeof s->diffs->live], shadow[sizeof s->diffs->shadow];
    answer_text(&c->live, live, sizeof live);
    answer_text(&c->shadow, shadow, sizeof shadow);
    lim__slot_diff_add(s, live, shadow, c->msg != NULL ? lim__msg_bytes(c->msg) : lim__str(c->about));
}

static void compare(lim__slot *s, const lim__slot_compare *c)
{
    bool live_fault = is_fault(c->live.how), shadow_fault = is_fault(c->shadow.how);
    s->live_faults += live_fault;
    s->shadow_faults += shadow_fault;
    if (live_fault && shadow_fault)
        return; /* nobody decided anything: there is nothing to compare */
    if (c->live.how == c->shadow.how && c->live.candidate == c->shadow.candidate) {
        s->agreed++;
        return;
    }
    s->differed += !live_fault && !shadow_fault;
    keep_diff(s, c);
}

static void compare_free(lim__slot *s, lim__slot_compare *c)
{
    lim__list_remove(&c->node);
    lim__msg_unref(c->msg);
    free(c);
    s->compare_count--;
}

void lim__slot_compares_drop(lim__slot *s)
{
    while (!lim__list_empty(&s->compares))
        compare_free(s, LIM_CONTAINER(s->compares.next, lim__slot_compare, node));
}

static void compare_later(lim__slot *s, const lim__slot_compare *c, const lim__route_msg *msg)
{
    lim__slot_compare *kept = s->compare_count < LIM__SLOT_COMPARES ? malloc(sizeof *kept) : NULL;
    if (kept == NULL) {
        s->skipped++;
        return;
    }
    *kept = *c;
    if (msg->keep != NULL)
        kept->msg = lim__msg_ref(msg->keep);
    lim__list_push(&s->compares, &kept->node);
    s->compare_count++;
}

static void ask_shadow(lim__slot *s, const lim__route_msg *msg, const lim__candidate *const *candidates, uint32_t n,
                       void *live_ctx, lim__route_how live_how, const lim__route_result *live)
{
    lim__route_result r = { 0 };
    uint64_t id = ++s->next_compare;
    lim__route_how how = lim__router_call(s->trial->router, msg, candidates, n, (void *)(uintptr_t)id, &r);
    if (how == LIM__ROUTE_DECIDED && live_how == LIM__ROUTE_DECIDED && r.id == live->id) {
        s->agreed++; /* as nearly always: nothing is copied */
        return;
    }
    lim__slot_compare c = { .id = id, .live_ctx = live_how == LIM__ROUTE_PENDING ? live_ctx : NULL };
    snprintf(c.about, sizeof c.about, "%.*s", (int)(msg->payload.len < sizeof c.about ? msg->payload.len : 159),
             msg->payload.len > 0 ? (const char *)msg->payload.ptr : "");
    c.live = answer_of(s, live, live_how);
    c.shadow = answer_of(s, &r, how);
    if (how == LIM__ROUTE_PENDING || live_how == LIM__ROUTE_PENDING)
        compare_later(s, &c, msg);
    else
        compare(s, &c);
    if (how == LIM__ROUTE_PENDING)
        s->o.on_ready(s->o.owner);
}

/* One of the two answers has come: of the shadow's call `id`, or of the live one with this context. */
static void answer_came(lim__slot *s, uint64_t id, void *live_ctx, const lim__route_result *r)
{
    LIM__LIST_EACH(node, &s->compares) {
        lim__slot_compare *c = LIM_CONTAINER(node, lim__slot_compare, node);
        bool live = id == 0 && c->live.how == LIM__ROUTE_PENDING && c->live_ctx == live_ctx;
        if (!live && (id == 0 || c->id != id))
            continue;
        *(live ? &c->live : &c->shadow) = answer_of(s, r, r->how);
        if (c->live.how == LIM__ROUTE_PENDING || c->shadow.how == LIM__ROUTE_PENDING)
            return;
        compare(s, c);
        compare_free(s, c);
        return;
    }
}

/* ---- calls ---- */

static lim__route_how ask(lim__slot *s, lim__version *v, const lim__route_msg *msg,
                          const lim__candidate *const *candidates, uint32_t n, void *call_ctx,
                          lim__route_result *result)
{
    lim__route_how how = lim__router_call(v->router, msg, candidates, n, call_ctx, result);
    if (is_fault(how))
        lim__slot_fault(s, v, result);
    return how;
}

lim__route_how lim__slot_call(lim__slot *s, const lim__route_msg *msg, const lim__candidate *const *candidates,
                              uint32_t n, uint64_t key, void *call_ctx, lim__route_result *result, lim__version **by)
{
    lim__version *v = s->live;
    s->busy++;
    if (LIM_UNLIKELY(s->trial != NULL) &&
        ((s->trial->terms.trial == LIM_TRIAL_RAMP && in_ramp(s, msg, key)) || LIM__MUTATION("shadow_heard")))
        v = s->trial;
    lim__route_how how = ask(s, v, msg, candidates, n, call_ctx, result);
    if (LIM_UNLIKELY(s->trial != NULL) && s->trial->shadow && n > 0)
        ask_shadow(s, msg, candidates, n, call_ctx, how, result);
    s->busy--;
    *by = v;
    return how;
}

bool lim__slot_call_other(lim__slot *s, const lim__version *v, const lim__route_msg *msg,
                          const lim__candidate *const *candidates, uint32_t n, void *call_ctx,
                          lim__route_result *result, lim__route_how *how, lim__version **by)
{
    lim__version *other = NULL;
    lim__router *last = NULL;
    if (v->terms.on_fault == LIM_ON_FAULT_PREVIOUS)
        other = lim__slot_other(s, v);
    else if (v->terms.on_fault == LIM_ON_FAULT_LEAST_LOADED)
        last = lim__slot_fallback(s);
    if (other == NULL && last == NULL)
        return false;
    s->busy++;
    if (other != NULL)
        *how = ask(s, other, msg, candidates, n, call_ctx, result);
    else
        *how = lim__router_call(last, msg, candidates, n, call_ctx, result);
    s->busy--;
    *by = other;
    return true;
}

uint32_t lim__slot_batch_room(const lim__slot *s)
{
    return s->trial == NULL ? lim__router_batch_room(s->live->router) : 0;
}

bool lim__slot_busy(const lim__slot *s)
{
    return lim__router_busy(s->live->router);
}

void lim__slot_batch_begin(lim__slot *s)
{
    LIM_ASSERT(s->batch == NULL);
    s->busy++; /* V3: it stays, whatever becomes live meanwhile */
    s->batch = s->live;
    lim__router_batch(s->batch->router, true);
}

void lim__slot_batch_end(lim__slot *s)
{
    lim__router_batch_wait(s->batch->router);
    s->batch = NULL;
    s->busy--;
    lim__slot_resume(s);
}

void lim__slot_done(void *version, void *call_ctx, const lim__route_result *result)
{
    lim__version *v = version;
    lim__slot *s = v->slot;
    if (v->shadow) {
        answer_came(s, (uint64_t)(uintptr_t)call_ctx, NULL, result);
        return;
    }
    if (is_fault(result->how))
        lim__slot_fault(s, v, result);
    if (!lim__list_empty(&s->compares))
        answer_came(s, 0, call_ctx, result);
    s->o.on_done(s->o.owner, call_ctx, v, result);
}

/* ---- what is unfinished ---- */

static bool is_runnable(const lim__version *v)
{
    return v->router != NULL && lim__router_runnable(v->router) > 0;
}

bool lim__slot_runnable(const lim__slot *s)
{
    LIM__LIST_EACH(node, &s->versions)
        if (is_runnable(LIM_CONTAINER(node, lim__version, node)))
            return true;
    return s->trial != NULL && is_runnable(s->trial);
}

uint32_t lim__slot_pending(const lim__slot *s)
{
    uint32_t n = s->trial != NULL ? lim__router_pending(s->trial->router) : 0;
    LIM__LIST_EACH(node, &s->versions) {
        const lim__version *v = LIM_CONTAINER(node, lim__version, node);
        n += v->router != NULL ? lim__router_pending(v->router) : 0;
    }
    return n;
}

void lim__slot_resume(lim__slot *s)
{
    lim__version *all[LIM__SLOT_KEEP_MAX + LIM__SLOT_DRAINING_MAX + 2];
    uint32_t n = 0;
    LIM__LIST_EACH(node, &s->versions) {
        if (n < LIM_COUNT(all) - 1)
            all[n++] = LIM_CONTAINER(node, lim__version, node);
    }
    if (s->trial != NULL)
        all[n++] = s->trial;
    s->busy++; /* V3: whoever is in `all` stays */
    for (uint32_t i = 0; i < n; i++)
        if (is_runnable(all[i]))
            lim__router_resume(all[i]->router);
    s->busy--;
    s->untidy = true; /* somebody's last call may have ended */
    lim__slot_tidy(s);
}
