/* SPDX-License-Identifier: Apache-2.0
 * builtin.c - the strategies that need no code.
 *
 *   least_loaded      the largest free share; ties by chance. The default
 *   round_robin       one after the other
 *   power_of_two      the less loaded of two chosen by chance (Mitzenmacher 2001): close to least_loaded, but never a
 * herd hash:FIELD        the same value goes to the same candidate, and when one joins or leaves only its share moves:
 * the highest of hash(value, name) wins (rendezvous hashing, Thaler and Ravishankar 1998) affinity:FIELD    candidates
 * with a tag equal to the value; else, or when they are full, all of them: least loaded
 *
 *
 *   everybody         all of them: what a channel does without a function. Only in front of channels
 *
 * FIELD is a path into a JSON payload (a.b[2]) or $header.NAME; a message without it is routed as by least_loaded. All
 * of them answer somebody whenever there is somebody: a full candidate is chosen only when all are full, and what that
 * means (waiting in its buffer, or nobody) is the owner's decision. hash thereby spills over to the next in rank while
 * its first choice is full. */
#include "route/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/map.h"

typedef struct strategy {
    uint64_t last_id;    /* round_robin: whom it chose last */
    uint32_t last_index; /* and where that one stood */
    lim_bytes field;     /* VIEW of the artifact: after the colon */
    lim__doc *doc;       /* of the message at hand; strategies with a field */
    lim__buf value;      /* likewise: its text, if the value is not one itself */
} strategy;

enum { FIELD_MAX = 200 };

static lim_err strategy_open(lim__router *r, lim_diag *diag)
{
    (void)diag;
    r->state = calloc(1, sizeof(strategy));
    return r->state != NULL ? LIM_OK : LIM_E_NOMEM;
}

static lim_err field_open(lim__router *r, lim_diag *diag)
{
    lim_bytes name = r->artifact->bytes;
    const char *colon = memchr(name.ptr, ':', name.len);
    size_t before = (size_t)(colon - (const char *)name.ptr) + 1;
    lim_bytes field = { colon + 1, name.len - before };
    if (field.len == 0 || field.len > FIELD_MAX || !lim__text_ok(field)) {
        lim__diag_set(diag, 0, 0,
                      "%.*s: name a field of the message after the colon, as in %.*suser.id or %.*s$header.key",
                      (int)(before - 1), (const char *)name.ptr, (int)before, (const char *)name.ptr, (int)before,
                      (const char *)name.ptr);
        return LIM_E_CODE;
    }
    strategy *s = calloc(1, sizeof *s);
    if (s == NULL || (s->doc = lim__doc_new()) == NULL) {
        free(s);
        return LIM_E_NOMEM;
    }
    s->field = field;
    r->state = s;
    return LIM_OK;
}

static void strategy_close(lim__router *r)
{
    strategy *s = r->state;
    lim__doc_free(s->doc);
    lim__buf_fini(&s->value);
    free(s);
}

static uint32_t none_pending(const lim__router *r)
{
    (void)r;
    return 0;
}

static uint32_t nothing_to_do(lim__router *r)
{
    (void)r;
    return 0;
}

static uint64_t no_memory(const lim__router *r)
{
    (void)r;
    return 0;
}

static lim__route_how decided(lim__router *r, const lim__candidate *c, uint32_t index, lim__route_result *result)
{
    *result = (lim__route_result){
        .how = LIM__ROUTE_DECIDED, .index = index, .id = c->id, .text = "", .hash = r->artifact->hash
    };
    return LIM__ROUTE_DECIDED;
}

static uint64_t room(const lim__candidate *c)
{
    return c->in_flight < c->max_in_flight ? c->max_in_flight - c->in_flight : 0;
}

/* > 0: `a` is less loaded than `b`: a larger share of it is free; if equal, fewer wait in its buffer. */
static int less_loaded(const lim__candidate *a, const lim__candidate *b)
{
    uint64_t free_a = room(a) * (b->max_in_flight ? b->max_in_flight : 1);
    uint64_t free_b = room(b) * (a->max_in_flight ? a->max_in_flight : 1);
    if (free_a != free_b)
        return free_a > free_b ? 1 : -1;
    return (a->buffer_depth < b->buffer_depth) - (a->buffer_depth > b->buffer_depth);
}

static lim__route_how least_loaded(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                   uint32_t n, void *call_ctx, lim__route_result *result)
{
    (void)msg, (void)call_ctx;
    uint32_t best = 0, ties = 1;
    for (uint32_t i = 1; i < n; i++) {
        int c = less_loaded(candidates[i], candidates[best]);
        if (c > 0)
            ties = 1;
        if (c > 0 || (c == 0 && lim__rng_below(&r->rng, ++ties) == 0))
            best = i;
    }
    return decided(r, candidates[best], best, result);
}

/* Where the turn is: behind the last one, or where it stood if it has left. */
static uint32_t turn(const strategy *s, const lim__candidate *const *candidates, uint32_t n)
{
    for (uint32_t i = 0; i < n && s->last_id != 0; i++) {
        if (candidates[i]->id == s->last_id)
            return (i + 1) % n;
    }
    return s->last_index % n;
}

static lim__route_how round_robin(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                  uint32_t n, void *call_ctx, lim__route_result *result)
{
    (void)msg, (void)call_ctx;
    strategy *s = r->state;
    uint32_t first = turn(s, candidates, n), chosen = first;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (first + i) % n;
        if (room(candidates[at]) > 0) {
            chosen = at;
            break;
        }
    }
    s->last_id = candidates[chosen]->id;
    s->last_index = chosen;
    return decided(r, candidates[chosen], chosen, result);
}

static lim__route_how power_of_two(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                   uint32_t n, void *call_ctx, lim__route_result *result)
{
    uint32_t a = (uint32_t)lim__rng_below(&r->rng, n), b = n > 1 ? (uint32_t)lim__rng_below(&r->rng, n - 1) : 0;
    if (n > 1 && b >= a)
        b++;
    uint32_t best = less_loaded(candidates[b], candidates[a]) > 0 ? b : a;
    if (room(candidates[best]) == 0) /* both are full, others may not be */
        return least_loaded(r, msg, candidates, n, call_ctx, result);
    return decided(r, candidates[best], best, result);
}

/* Whoever has room for one only is never asked to run it (group_slot.c). */
static lim__route_how everybody(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                uint32_t n, void *call_ctx, lim__route_result *result)
{
    if (!r->sets)
        return least_loaded(r, msg, candidates, n, call_ctx, result);
    if (!lim__router_set_begin(r, n)) {
        *result =
            (lim__route_result){ .how = LIM__ROUTE_NOT_STARTED, .text = "out of memory", .hash = r->artifact->hash };
        return LIM__ROUTE_NOT_STARTED;
    }
    for (uint32_t i = 0; i < n; i++)
        lim__router_set_mark(r, i);
    return lim__router_set_end(r, n, result);
}

/* ---- by a field ---- */

bool lim__route_field(lim__doc *doc, lim__buf *scratch, const lim__route_msg *msg, lim_bytes field, lim_bytes *out)
{
    static const char header[] = "$header.";
    const char *name = field.ptr;
    size_t prefix = sizeof header - 1;
    if (field.len > prefix && memcmp(name, header, prefix) == 0)
        return lim__packed_get(msg->headers, (lim_bytes){ name + prefix, field.len - prefix }, out);
    if (lim__doc_parse(doc, msg->payload, NULL) != LIM_OK)
        return false;
    lim__val v = lim__val_path_bytes(lim__doc_root(doc), field);
    if (v.kind == LIM__TEXT) {
        *out = v.text;
        return true;
    }
    if (v.kind == LIM__ABSENT || v.kind == LIM__NULL)
        return false;
    scratch->start = scratch->end = 0;
    lim__json j = lim__json_begin(scratch);
    lim__json_val(&j, NULL, v);
    *out = lim__buf_bytes(scratch);
    return !scratch->failed;
}

static bool field_of(strategy *s, const lim__route_msg *msg, lim_bytes *out)
{
    return lim__route_field(s->doc, &s->value, msg, s->field, out);
}

static lim__route_how by_hash(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                              uint32_t n, void *call_ctx, lim__route_result *result)
{
    lim_bytes value;
    if (!field_of(r->state, msg, &value))
        return least_loaded(r, msg, candidates, n, call_ctx, result);
    uint64_t seed = lim__hash_bytes(value, 0), highest = 0;
    uint32_t best = n;
    for (uint32_t pass = 0; pass < 2 && best == n; pass++) /* the second one: all are full */
        for (uint32_t i = 0; i < n; i++) {
            uint64_t rank = lim__hash_bytes(candidates[i]->name, seed);
            if ((pass == 1 || room(candidates[i]) > 0) && (best == n || rank > highest)) {
                best = i;
                highest = rank;
            }
        }
    return decided(r, candidates[best], best, result);
}

static bool has_tag(const lim__candidate *c, lim_bytes tag)
{
    for (uint32_t i = 0; i < c->tag_count; i++)
        if (lim__bytes_eq(c->tags[i], tag))
            return true;
    return false;
}

static lim__route_how by_affinity(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                  uint32_t n, void *call_ctx, lim__route_result *result)
{
    lim_bytes value;
    uint32_t best = n, ties = 1;
    if (!field_of(r->state, msg, &value))
        return least_loaded(r, msg, candidates, n, call_ctx, result);
    for (uint32_t i = 0; i < n; i++) {
        if (room(candidates[i]) == 0 || !has_tag(candidates[i], value))
            continue;
        int c = best == n ? 1 : less_loaded(candidates[i], candidates[best]);
        if (c > 0)
            ties = 1;
        if (c > 0 || (c == 0 && lim__rng_below(&r->rng, ++ties) == 0))
            best = i;
    }
    if (best == n)
        return least_loaded(r, msg, candidates, n, call_ctx, result);
    return decided(r, candidates[best], best, result);
}

#define STRATEGY(opens, chooses)                                                                                       \
    {                                                                                                                  \
        .open = opens, .call = chooses, .resume = nothing_to_do, .abandon = nothing_to_do, .pending = none_pending,    \
        .memory = no_memory, .close = strategy_close                                                                   \
    }
static const struct {
    const char *name; /* with a colon: a field follows */
    lim__engine_ops ops;
} strategies[] = {
    { "least_loaded", STRATEGY(strategy_open, least_loaded) }, { "round_robin", STRATEGY(strategy_open, round_robin) },
    { "power_of_two", STRATEGY(strategy_open, power_of_two) }, { "hash:", STRATEGY(field_open, by_hash) },
    { "affinity:", STRATEGY(field_open, by_affinity) },        { "everybody", STRATEGY(strategy_open, everybody) },
};

const lim__engine_ops *lim__engine_builtin(lim_bytes name, lim_diag *diag)
{
    for (size_t i = 0; i < LIM_COUNT(strategies); i++) {
        size_t len = strlen(strategies[i].name);
        bool with_field = strategies[i].name[len - 1] == ':';
        if ((with_field ? name.len >= len : name.len == len) && memcmp(name.ptr, strategies[i].name, len) == 0)
            return &strategies[i].ops;
    }
    lim__diag_set(diag, 0, 0,
                  "no built-in strategy '%.*s': there are least_loaded, round_robin, power_of_two, hash:FIELD, "
                  "affinity:FIELD and, for channels, everybody",
                  (int)(name.len < 60 ? name.len : 60), (const char *)name.ptr);
    return NULL;
}
