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
#include "bus/slot_inside.h"
#include "base/base.h"
#include <stdio.h>
#include <stdlib.h>

static const char fallback_name[] = "least_loaded";

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
    lim__pred_free(v->where);
    free(v->past);
    free(v->fault_ns);
    free(v);
}

static void on_router_ready(void *version)
{
    const lim__slot *s = ((const lim__version *)version)->slot;
    s->o.on_ready(s->o.owner);
}

lim_err lim__slot_router_open(lim__slot *s, lim__version *v, lim__artifact *a, lim_diag *diag, lim__router **out)
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
    return v->router != NULL ? LIM_OK : lim__slot_router_open(s, v, v->artifact, diag, &v->router);
}

lim__router *lim__slot_fallback(lim__slot *s)
{
    lim__artifact *a = NULL;
    if (s->fallback != NULL)
        return s->fallback;
    if (lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(fallback_name), fallback_name, 0, &a) == LIM_OK)
        (void)!lim__slot_router_open(s, NULL, a, NULL, &s->fallback);
    lim__artifact_unref(a);
    return s->fallback;
}

bool lim__slot_same(const lim__artifact *a, const lim__artifact *b)
{
    return a->engine == b->engine && memcmp(a->hash, b->hash, sizeof a->hash) == 0;
}

lim__version *lim__slot_kept_of(lim__slot *s, const lim__artifact *a)
{
    LIM__LIST_EACH(node, &s->versions) {
        lim__version *v = LIM_CONTAINER(node, lim__version, node);
        if (!v->leaving && lim__slot_same(v->artifact, a))
            return v;
    }
    return NULL;
}

bool lim__slot_is_named(const lim__version *v, const char *hash)
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
        if (!v->leaving && lim__slot_is_named(v, hash))
            return v;
    }
    return NULL;
}

/* The newest one behind `behind` that may decide again; compiled. */
lim__version *lim__slot_good_behind(lim__slot *s, const lim__version *behind)
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
    return v != s->live ? s->live : lim__slot_good_behind(s, v);
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

void lim__slot_untidy(lim__slot *s)
{
    s->untidy = true;
    if (s->busy > 0)
        s->o.on_ready(s->o.owner);
    else
        lim__slot_tidy(s);
}

void lim__slot_changed(lim__slot *s)
{
    if (s->o.on_change != NULL)
        s->o.on_change(s->o.owner);
}

/* ---- swapping ---- */

void lim__slot_swap(lim__slot *s, lim__version *v)
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
lim_err lim__slot_make(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, lim_diag *diag, lim__version **out)
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
void lim__slot_take_over(lim__version *old, lim__version *v)
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

/* ---- the breaker ---- */

/* What decides when nothing is deployed, or nothing good is left. */
static const char *first_name(const lim__slot *s)
{
    return s->o.first != NULL ? s->o.first : fallback_name;
}

static lim__version *last_resort(lim__slot *s)
{
    static const lim__slot_terms terms = {
        .on_fault = LIM_ON_FAULT_REJECT, .break_faults = LIM_UNLIMITED, .break_ms = 1, .keep = LIM__SLOT_KEEP
    };
    lim__artifact *a = NULL;
    lim__version *v = NULL;
    if (lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(first_name(s)), first_name(s), 0, &a) == LIM_OK &&
        lim__slot_make(s, a, &terms, NULL, &v) == LIM_OK)
        lim__slot_take_over(lim__slot_kept_of(s, a), v);
    lim__artifact_unref(a);
    return v;
}

static void trip(lim__slot *s, lim__version *v)
{
    lim__version *good = s->live;
    v->tripped = true;
    if (v == s->live && (good = lim__slot_good_behind(s, v)) == NULL && (good = last_resort(s)) == NULL)
        return; /* for want of memory it stays, and the next fault tries again */
    uint32_t keep = v->terms.keep;
    if (v == s->trial)
        lim__slot_end_trial(s);
    else
        lim__slot_swap(s, good);
    if (good->terms.keep < keep)
        good->terms.keep = keep;
    lim__slot_note(s, "breaker", good->id, v->id, "", "%u faults within %u ms; the last: %s", v->terms.break_faults,
                   v->terms.break_ms, s->last_fault);
    lim__slot_untidy(s);
    lim__slot_changed(s);
}

/* A trial's terms may change while it goes on: then it is counted anew. */
static bool ring_of(lim__version *v, uint32_t max)
{
    if (v->fault_ns != NULL && v->fault_max == max)
        return true;
    free(v->fault_ns);
    v->fault_ns = malloc(max * sizeof *v->fault_ns);
    v->fault_count = v->fault_at = 0;
    v->fault_max = max;
    return v->fault_ns != NULL;
}

static bool too_many(lim__version *v, uint64_t now_ns)
{
    uint32_t max = v->terms.break_faults;
    if (!ring_of(v, max))
        return false;
    uint32_t at = v->fault_at;
    v->fault_at = (at + 1) % max;
    v->fault_ns[at] = now_ns;
    v->fault_count += v->fault_count < max;
    return v->fault_count == max && !LIM__MUTATION("breaker_asleep") &&
           now_ns - v->fault_ns[v->fault_at] <= v->terms.break_ms * 1000000ull;
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
        err = lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(first_name(s)), first_name(s), 0, &a);
    if (err == LIM_OK)
        err = lim__slot_make(s, a, &terms, NULL, &s->live);
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
    lim__ramp_reader_fini(&s->reader);
    free(s->diffs);
    free(s->named);
    free(s->named_before);
    lim__slot_receipt_fini(s);
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
            LIM_CHECK(v->leaving || w->leaving || !lim__slot_same(v->artifact, w->artifact)); /* V4 */
            (void)w;
        }
        LIM_CHECK(v->slot == s);
        (void)v;
    }
    (void)s;
}
