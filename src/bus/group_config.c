/* SPDX-License-Identifier: Apache-2.0
 * group_config.c - the rules of one queue: one table of settings, which are set by name, shown, stored as a row and
 * read again. What was never said is the default, and is not stored.
 *
 * A change that is refused changes nothing, also not in part. */
#include "bus/group_admin.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void lim__group_config_init(group *g)
{
    g->config = (config){
        .policy = { .attempts_max = 1,
                    .backoff_min_ms = 100,
                    .backoff_max_ms = 60000,
                    .backoff_factor_percent = 200,
                    .backoff_jitter_percent = 10 },
        .high_water = LIM__GROUP_HIGH_WATER,
        .limit = LIM__GROUP_QUEUE_MAX,
        .dead_max = LIM__GROUP_DEAD_MAX,
        .remember_max = LIM__GROUP_REMEMBER_MAX,
        .remember_bytes = LIM__GROUP_REMEMBER_BYTES,
        .remember_ns = LIM__GROUP_REMEMBER_NS,
        .grace_ns = LIM__GROUP_GRACE_NS,
        .lane = LIM__LANE_WAIT,
    };
}

/* A number of the configuration: where it is in struct config, and what it may be. */
typedef struct setting {
    const char *name;
    size_t at;
    bool is_ms; /* kept as 64-bit ns; else 32 bits */
    uint64_t min, max;
} setting;
#define MS_MAX (31ull * 86400 * 1000)
static const setting settings[] = {
    { "attempts_max", offsetof(config, policy.attempts_max), false, 1, UINT16_MAX },
    { "losses_max", offsetof(config, policy.losses_max), false, 0, 16 },
    { "backoff_min_ms", offsetof(config, policy.backoff_min_ms), false, 0, MS_MAX },
    { "backoff_max_ms", offsetof(config, policy.backoff_max_ms), false, 0, MS_MAX },
    { "backoff_factor_percent", offsetof(config, policy.backoff_factor_percent), false, 100, 10000 },
    { "backoff_jitter_percent", offsetof(config, policy.backoff_jitter_percent), false, 0, 100 },
    { "start_to_close_ms", offsetof(config, policy.start_to_close_ns), true, 0, MS_MAX },
    { "progress_ms", offsetof(config, policy.progress_ns), true, 0, MS_MAX },
    { "high_water", offsetof(config, high_water), false, 1, UINT32_MAX },
    { "limit", offsetof(config, limit), false, 1, LIM__GROUP_QUEUE_MAX },
    { "dead_max", offsetof(config, dead_max), false, 0, 1000000 },
    { "remember_max", offsetof(config, remember_max), false, 1, 10000000 },
    { "remember_bytes", offsetof(config, remember_bytes), false, 1024, UINT32_MAX },
    { "remember_ms", offsetof(config, remember_ns), true, 1, MS_MAX },
    { "reconnect_grace_ms", offsetof(config, grace_ns), true, 0, MS_MAX },
    { "in_flight_max", offsetof(config, line.in_flight_max), false, 0, UINT32_MAX },
    { "rate", offsetof(config, line.rate_max), false, 0, LIM__LINE_RATE_MAX },
    { "rate_period_ms", offsetof(config, line.period_ns), true, 0, MS_MAX },
    { "key_in_flight_max", offsetof(config, key.in_flight_max), false, 0, UINT32_MAX },
    { "key_rate", offsetof(config, key.rate_max), false, 0, LIM__LINE_RATE_MAX },
    { "key_rate_period_ms", offsetof(config, key.period_ns), true, 0, MS_MAX },
};

static const char *const lanes[] = { "", "wait", "skip", "park" };

static uint64_t setting_get(const config *c, const setting *s)
{
    const char *at = (const char *)c + s->at;
    return s->is_ms ? *(const uint64_t *)(const void *)at / 1000000 : *(const uint32_t *)(const void *)at;
}

static void setting_put(config *c, const setting *s, uint64_t n)
{
    char *at = (char *)c + s->at;
    if (s->is_ms)
        *(uint64_t *)(void *)at = n * 1000000;
    else
        *(uint32_t *)(void *)at = (uint32_t)n;
}

static const setting *setting_named(lim_bytes name)
{
    for (size_t i = 0; i < LIM_COUNT(settings); i++)
        if (lim__bytes_eq(name, lim__str(settings[i].name)))
            return &settings[i];
    return NULL;
}

static bool configure_one(request *r, config *c, lim_bytes key, lim__val v)
{
    const setting *s = setting_named(key);
    uint64_t n;
    if (lim__bytes_eq(key, lim__str("op")) || lim__bytes_eq(key, lim__str("queue")))
        return true;
    if (lim__bytes_eq(key, lim__str("trace")) && v.kind == LIM__BOOL) {
        c->policy.trace = v.truth;
        return true;
    }
    if (lim__bytes_eq(key, lim__str("remember_forgets")) && v.kind == LIM__BOOL) {
        c->remember_forgets = v.truth;
        return true;
    }
    if (lim__bytes_eq(key, lim__str("durable")) && v.kind == LIM__BOOL) {
        lim_diag diag;
        if (v.truth && r->g->bus->durable == NULL) {
            lim_err err = lim__durable_missing(&diag);
            lim__admin_refuse(r, err, "%s", diag.text);
            return false;
        }
        c->durable = v.truth;
        return true;
    }
    if (lim__bytes_eq(key, lim__str("on_failing_head")) && v.kind == LIM__TEXT) {
        for (uint32_t i = 1; i < LIM_COUNT(lanes); i++)
            if (lim__bytes_eq(v.text, lim__str(lanes[i]))) {
                c->lane = (lim__lane_policy)i;
                return true;
            }
        lim__admin_refuse(r, LIM_E_INVALID, "on_failing_head: write wait, skip or park");
        return false;
    }
    if (s == NULL) {
        lim__admin_refuse(r, LIM_E_INVALID, "%.*s is no setting of a queue, or not of this kind", (int)key.len,
                          (const char *)key.ptr);
        return false;
    }
    if (!lim__val_as_u64(v, &n) || n < s->min || n > s->max) {
        lim__admin_refuse(r, LIM_E_INVALID, "%s: write a whole number from %" PRIu64 " to %" PRIu64, s->name, s->min,
                          s->max);
        return false;
    }
    setting_put(c, s, n);
    return true;
}

static bool config_fits(request *r, config *c)
{
    if (c->line.rate_max != 0 && c->line.period_ns == 0)
        c->line.period_ns = 1000000000;
    if (c->key.rate_max != 0 && c->key.period_ns == 0)
        c->key.period_ns = 1000000000;
    if (c->policy.backoff_min_ms > c->policy.backoff_max_ms)
        lim__admin_refuse(r, LIM_E_INVALID, "backoff_min_ms (%u) is more than backoff_max_ms (%u)",
                          c->policy.backoff_min_ms, c->policy.backoff_max_ms);
    return !r->refused;
}

void lim__admin_config_json(const group *g, lim__json *j)
{
    lim__json_open(j, "config", '{');
    for (size_t i = 0; i < LIM_COUNT(settings); i++)
        lim__json_u64(j, settings[i].name, setting_get(&g->config, &settings[i]));
    lim__json_str(j, "on_failing_head", lanes[g->config.lane]);
    lim__json_bool(j, "remember_forgets", g->config.remember_forgets);
    lim__json_bool(j, "trace", g->config.policy.trace);
    lim__json_bool(j, "durable", g->config.durable);
    lim__json_close(j);
}

void lim__admin_configure(request *r)
{
    group *g = r->g;
    config next = g->config;
    uint64_t now_ns = lim_now_ns(g->self);
    lim__iter it = lim__iter_begin(r->root);
    while (lim__iter_next(&it))
        if (!configure_one(r, &next, it.key, it.val))
            return;
    if (!config_fits(r, &next))
        return;
    if (lim__line_limit_line(&g->line, &next.line, now_ns) != LIM_OK ||
        lim__line_limit_keys(&g->line, &next.key, now_ns) != LIM_OK) {
        (void)!lim__line_limit_line(&g->line, &g->config.line, now_ns);
        lim__admin_refuse(r, LIM_E_INVALID, "a rate wants a period of at most 31 days");
        return;
    }
    lim__line_policy(&g->line, next.lane);
    g->config = next;
    g->configured = true;
    lim__group_config_changed(g);
    LIM__EVENT(g->bus, g->self, "configure", { "queue", lim__admin_queue(g) });
    lim__admin_config_json(g, r->j);
}

void lim__admin_limit(request *r)
{
    group *g = r->g;
    lim_bytes key = lim__val_bytes(r->root, "key", lim__bytes(NULL, 0));
    uint64_t now_ns = lim_now_ns(g->self);
    lim__line_limit limit = { .in_flight_max = (uint32_t)lim__val_u64(r->root, "in_flight_max", 0),
                              .rate_max = (uint32_t)lim__val_u64(r->root, "rate", 0),
                              .period_ns = lim__val_u64(r->root, "rate_period_ms", 1000) * 1000000 };
    if (key.len == 0 || key.len > 255) {
        lim__admin_refuse(r, LIM_E_INVALID, "key: which fairness key? 1 to 255 bytes");
    } else if (lim__val_bool(r->root, "clear", false)) {
        lim__json_bool(r->j, "cleared", lim__line_limit_clear(&g->line, key, now_ns));
        g->configured = true;
        lim__group_config_changed(g);
    } else {
        lim_err err = lim__line_limit_set(&g->line, key, &limit, now_ns);
        if (err != LIM_OK) {
            lim__admin_refuse(r, err, "the limit of a key: %s", lim_err_text(err));
            return;
        }
        g->configured = true;
        lim__group_config_changed(g);
        lim__json_bytes(r->j, "key", key);
        lim__json_u64(r->j, "in_flight_max", limit.in_flight_max);
        lim__json_u64(r->j, "rate", limit.rate_max);
        lim__json_u64(r->j, "rate_period_ms", limit.period_ns / 1000000);
    }
}

/* ---- as a row ---- */

static void pack_key_limits(const group *g, lim__buf *out)
{
    lim__line_key page[64];
    uint64_t after = 0, now_ns = lim_now_ns(g->self);
    uint32_t count = 0;
    lim__buf keys = { 0 };
    for (uint32_t n; (n = lim__line_keys(&g->line, after, page, LIM_COUNT(page), now_ns)) > 0;) {
        after = page[n - 1].no;
        for (uint32_t i = 0; i < n; i++) {
            if (!page[i].own_limit)
                continue;
            lim__pack_bytes(&keys, page[i].key);
            lim__pack_u32(&keys, page[i].limit.in_flight_max);
            lim__pack_u32(&keys, page[i].limit.rate_max);
            lim__pack_u64(&keys, page[i].limit.period_ns);
            count++;
        }
    }
    lim__pack_u32(out, count);
    lim__buf_add(out, keys.ptr != NULL ? keys.ptr + keys.start : NULL, lim__buf_len(&keys));
    out->failed |= keys.failed;
    lim__buf_fini(&keys);
}

/* Settings by name, so that one that comes later, or goes, is no other format. */
void lim__group_config_pack(const group *g, lim__buf *out)
{
    lim__pack_u8(out, 1);
    lim__pack_u8(out, g->config.durable);
    lim__pack_u8(out, g->paused);
    lim__pack_u8(out, g->draining);
    lim__pack_u8(out, g->config.policy.trace);
    lim__pack_u8(out, g->config.remember_forgets);
    lim__pack_u8(out, (uint8_t)g->config.lane);
    lim__pack_u32(out, (uint32_t)LIM_COUNT(settings));
    for (size_t i = 0; i < LIM_COUNT(settings); i++) {
        lim__pack_bytes(out, lim__str(settings[i].name));
        lim__pack_u64(out, setting_get(&g->config, &settings[i]));
    }
    pack_key_limits(g, out);
}

static lim_err unpack_key_limits(group *g, lim__unpack *u)
{
    lim_err err = LIM_OK;
    for (uint32_t n = lim__unpack_u32(u); n > 0 && !u->bad && err == LIM_OK; n--) {
        lim_bytes key = lim__unpack_bytes(u);
        lim__line_limit limit = { .in_flight_max = lim__unpack_u32(u),
                                  .rate_max = lim__unpack_u32(u),
                                  .period_ns = lim__unpack_u64(u) };
        err = u->bad ? LIM_E_INVALID : lim__line_limit_set(&g->line, key, &limit, lim_now_ns(g->self));
    }
    return err;
}

lim_err lim__group_config_unpack(group *g, lim_bytes row)
{
    lim__unpack u = lim__unpack_begin(row);
    uint64_t now_ns = lim_now_ns(g->self);
    config next = g->config;
    if (lim__unpack_u8(&u) != 1)
        return LIM_E_INVALID;
    next.durable = lim__unpack_u8(&u) != 0;
    bool paused = lim__unpack_u8(&u) != 0, draining = lim__unpack_u8(&u) != 0;
    next.policy.trace = lim__unpack_u8(&u) != 0;
    next.remember_forgets = lim__unpack_u8(&u) != 0;
    next.lane = (lim__lane_policy)lim__unpack_u8(&u);
    for (uint32_t n = lim__unpack_u32(&u); n > 0 && !u.bad; n--) {
        lim_bytes name = lim__unpack_bytes(&u);
        uint64_t value = lim__unpack_u64(&u);
        const setting *s = setting_named(name);
        if (s != NULL && value >= s->min && value <= s->max)
            setting_put(&next, s, value);
    }
    if (u.bad || next.lane < LIM__LANE_WAIT || next.lane > LIM__LANE_PARK ||
        lim__line_limit_line(&g->line, &next.line, now_ns) != LIM_OK ||
        lim__line_limit_keys(&g->line, &next.key, now_ns) != LIM_OK)
        return LIM_E_INVALID;
    lim_err err = unpack_key_limits(g, &u);
    lim__line_policy(&g->line, next.lane);
    g->config = next;
    g->paused = paused;
    g->draining = draining;
    g->configured = g->row = true;
    return err == LIM_OK && !lim__unpack_end(&u) ? LIM_E_INVALID : err;
}
