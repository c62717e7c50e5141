/* SPDX-License-Identifier: Apache-2.0
 * route.c - a router: limits, references and counts around one engine.
 *
 *      lim__router_open --> engine.open --> [serving] --last reference, owners' or calls'--> engine.close, freed
 *
 * Invariants:
 *   R1  refs == references of owners + unfinished calls, so a call never outlives its version.
 *   R2  every call is counted once by how it ended; one that is PENDING is counted when it ends.
 *   R3  on_done runs once per PENDING call, unless it was abandoned. */
#include "route/engine.h"

#include <stdlib.h>

const char *lim__route_how_text(lim__route_how how)
{
    static const char *const texts[] = {
        "unknown", "decided", "none", "crashed", "timed_out", "not_started", "pending"
    };
    return (size_t)how < LIM_COUNT(texts) ? texts[how] : texts[0];
}

/* ---- opening ---- */

static bool take_limit64(uint64_t *limit, uint64_t otherwise, uint64_t max)
{
    if (*limit == 0)
        *limit = otherwise;
    return *limit <= max;
}

static bool take_limit32(uint32_t *limit, uint32_t otherwise, uint32_t min, uint32_t max)
{
    if (*limit == 0)
        *limit = otherwise;
    return *limit >= min && *limit <= max;
}

static lim_err take_limits(lim__route_limits *l, lim_diag *diag)
{
    const char *bad = NULL;
    if (!take_limit64(&l->cpu_ns, 20000000, 60000000000u))
        bad = "routing.cpu_us_max is over 60 s";
    else if (!take_limit64(&l->wall_ns, 5000000000u, INT64_MAX))
        bad = "routing.wall_ms_max is too large";
    else if (!take_limit64(&l->slice_ns, 200000, 100000000))
        bad = "routing.slice_us is over 100 ms";
    else if (!take_limit32(&l->unfinished_max, 4, 1, LIM__ROUTE_UNFINISHED_CAP))
        bad = "routing.unfinished_max is over 64";
    else if (!take_limit32(&l->log_bytes_per_s, 8192, 1, 1 << 30))
        bad = "routing.log_bytes_max is over 1 GiB";
    else if (!take_limit32(&l->memory_max, 1 << 20, 64 << 10, 8 << 20))
        bad = "routing.memory_bytes_max is not between 64 KiB and 8 MiB";
    if (bad != NULL)
        lim__diag_set(diag, 0, 0, "%s", bad);
    return bad != NULL ? LIM_E_INVALID : LIM_OK;
}

static const lim__engine_ops *find_engine(const lim__artifact *a, lim_diag *diag)
{
    if (a->engine == LIM__ENGINE_LUA)
        return &lim__engine_lua;
    if (a->engine == LIM__ENGINE_BUILTIN)
        return lim__engine_builtin(a->bytes, diag);
    if (a->engine == LIM__ENGINE_NATIVE)
        return &lim__engine_native;
    if (a->engine == LIM__ENGINE_HOST)
        return &lim__engine_host;
    lim__diag_set(diag, 0, 0, "the engine '%s' is not available", lim__engine_text(a->engine));
    return NULL;
}

/* What is unprintable, or would be taken for the end of the name in a message, becomes '_'. */
static void take_name(char *to, size_t size, const char *name)
{
    size_t n = 0;
    for (; name[n] != 0 && n + 1 < size; n++)
        to[n] = (char)(name[n] > 0x20 && name[n] < 0x7F && name[n] != ':' ? name[n] : '_');
    if (n == 0)
        to[n++] = '?';
    to[n] = 0;
}

static lim__router *router_new(const lim__router_opts *opts)
{
    lim__router *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->refs = 1;
    r->os = opts->os ? opts->os : lim__os_linux();
    r->artifact = lim__artifact_ref(opts->artifact);
    r->limits = opts->limits;
    r->rng = lim__rng_seeded(opts->seed);
    r->counter = opts->counter ? opts->counter : &r->own_counter;
    r->instruction_ns = opts->instruction_ns;
    r->on_done = opts->on_done;
    r->on_log = opts->on_log;
    r->on_ready = opts->on_ready;
    r->native = opts->native;
    r->sets = opts->sets;
    r->host = opts->host;
    r->ctx = opts->ctx;
    take_name(r->name, sizeof r->name, opts->name ? opts->name : opts->artifact->name);
    lim__hash_text(opts->artifact->hash, r->hash_text);
    return r;
}

static void router_free(lim__router *r)
{
    if (r->state != NULL)
        r->ops->close(r);
    lim__artifact_unref(r->artifact);
    free(r->set);
    free(r);
}

lim_err lim__router_open(const lim__router_opts *opts, lim_diag *diag, lim__router **out)
{
    if (opts->artifact == NULL)
        return LIM_E_MISUSE;
    const lim__engine_ops *ops = find_engine(opts->artifact, diag);
    if (ops == NULL)
        return LIM_E_CODE;
    lim__router *r = router_new(opts);
    if (r == NULL)
        return LIM_E_NOMEM;
    r->ops = ops;
    lim_err err = take_limits(&r->limits, diag);
    if (err == LIM_OK)
        err = ops->open(r, diag);
    if (err != LIM_OK) {
        router_free(r);
        return err;
    }
    *out = r;
    return LIM_OK;
}

lim_err lim__router_check(const lim__router_opts *opts, lim_diag *diag)
{
    lim__router *r = NULL;
    lim_err err = lim__router_open(opts, diag, &r);
    if (err == LIM_OK)
        r->only_checked = true;
    lim__router_unref(r);
    return err;
}

lim__router *lim__router_ref(lim__router *r)
{
    LIM_ASSERT(r->refs > 0);
    r->refs++;
    return r;
}

void lim__router_unref(lim__router *r)
{
    if (r == NULL)
        return;
    LIM_ASSERT(r->refs > 0);
    if (--r->refs == 0)
        router_free(r);
}

void lim__router_adopt(lim__router *r, void *ctx, uint64_t *counter)
{
    LIM_ASSERT(r->ops->pending(r) == 0);
    r->ctx = ctx;
    r->counter = counter;
}

/* ---- sets: room for the indices, and behind them a byte for each candidate ---- */

static uint8_t *marks(lim__router *r)
{
    return (uint8_t *)(r->set + r->set_cap);
}

bool lim__router_set_begin(lim__router *r, uint32_t n)
{
    if (n > r->set_cap) {
        uint32_t *room = malloc(n * (sizeof *room + 1));
        if (room == NULL)
            return false;
        free(r->set);
        r->set = room;
        r->set_cap = n;
    }
    memset(marks(r), 0, n);
    return true;
}

void lim__router_set_mark(lim__router *r, uint32_t index)
{
    LIM_ASSERT(index < r->set_cap);
    marks(r)[index] = 1;
}

lim__route_how lim__router_set_end(lim__router *r, uint32_t n, lim__route_result *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        if (marks(r)[i])
            r->set[count++] = i;
    *out = (lim__route_result){ .how = count > 0 ? LIM__ROUTE_DECIDED : LIM__ROUTE_NONE,
                                .index = count > 0 ? r->set[0] : 0,
                                .set = r->set,
                                .set_count = count,
                                .text = "",
                                .hash = r->artifact->hash };
    return out->how;
}

/* ---- calling ---- */

void lim__router_count(lim__router *r, const lim__route_result *result)
{
    switch (result->how) {
    case LIM__ROUTE_DECIDED:
        r->stats.decided++;
        return;
    case LIM__ROUTE_NONE:
        r->stats.none++;
        return;
    case LIM__ROUTE_CRASHED:
        r->stats.crashed++;
        return;
    case LIM__ROUTE_TIMED_OUT:
        r->stats.timed_out++;
        return;
    case LIM__ROUTE_NOT_STARTED:
        r->stats.not_started++;
        return;
    case LIM__ROUTE_PENDING:
        break;
    }
    (void)LIM_NEVER(result->how == LIM__ROUTE_PENDING);
}

lim__route_how lim__router_call(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                uint32_t n, void *call_ctx, lim__route_result *result)
{
    lim__route_how how = LIM__ROUTE_NONE;
    r->stats.calls++;
    if (n == 0)
        *result = (lim__route_result){ .how = how, .text = "", .hash = r->artifact->hash };
    else
        how = r->ops->call(r, msg, candidates, n, call_ctx, result);
    if (how != LIM__ROUTE_PENDING)
        lim__router_count(r, result);
    return how;
}

uint32_t lim__router_resume(lim__router *r)
{
    lim__router_ref(r); /* on_done may give up the owner's */
    uint32_t left = r->ops->resume(r);
    lim__router_unref(r);
    return left;
}

uint32_t lim__router_pending(const lim__router *r)
{
    return r->ops->pending(r);
}

uint32_t lim__router_runnable(const lim__router *r)
{
    return r->ops->runnable != NULL ? r->ops->runnable(r) : r->ops->pending(r);
}

void lim__router_batch(lim__router *r, bool on)
{
    if (r->ops->batch != NULL)
        r->ops->batch(r, on);
}

uint32_t lim__router_batch_room(const lim__router *r)
{
    return r->ops->batch_room != NULL ? r->ops->batch_room(r) : 0;
}

void lim__router_batch_wait(lim__router *r)
{
    if (r->ops->batch_wait != NULL)
        r->ops->batch_wait(r);
}

bool lim__router_busy(lim__router *r)
{
    return r->ops->busy != NULL && r->ops->busy(r);
}

uint32_t lim__router_abandon(lim__router *r)
{
    uint32_t dropped = r->ops->abandon(r);
    LIM_ASSERT(r->refs > dropped); /* R1: the caller's own is left */
    r->refs -= dropped;
    return dropped;
}

void lim__router_stats_get(const lim__router *r, lim__router_stats *out)
{
    *out = r->stats;
    out->unfinished = r->ops->pending(r);
    out->memory_bytes = r->ops->memory(r);
}

/* By seconds as the owner's clock counts them: what does not fit into one is dropped as a whole line. */
void lim__router_log(lim__router *r, const char *line, size_t len)
{
    enum { SECOND_NS = 1000000000 };
    LIM_ASSERT(len <= LIM__ROUTE_LINE_MAX);
    uint64_t now = r->os->now_ns(r->os);
    if (now - r->log_since_ns >= SECOND_NS || r->log_since_ns == 0) {
        r->log_since_ns = now;
        r->log_bytes = 0;
    }
    if (len + 1 > r->limits.log_bytes_per_s - r->log_bytes && !LIM__MUTATION("log_without_end")) {
        r->stats.log_dropped++;
        return;
    }
    r->log_bytes += (uint32_t)len + 1; /* its newline */
    if (r->on_log != NULL)
        r->on_log(r->ctx, line, len);
}

lim__artifact *lim__router_artifact(const lim__router *r)
{
    return r->artifact;
}

const char *lim__router_hash_text(const lim__router *r)
{
    return r->hash_text;
}
