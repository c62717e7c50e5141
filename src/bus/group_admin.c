/* SPDX-License-Identifier: Apache-2.0
 * group_admin.c - what operators ask of one queue and change in it: the operations that $sys.queues, $sys.tasks,
 * $sys.dead and $sys.workers pass on as they came. One JSON object in, one out; {"error": {"code", "message"}} is a
 * refusal.
 *
 * Changes take effect at once and are told as events. A change that is refused changes nothing, also not in part. */
#include "bus/group.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAGE_MAX = 1000 };

typedef struct request {
    group *g;
    lim__val root;
    lim__json *j; /* the answer: an object that is open */
    bool refused;
} request;

__attribute__((format(printf, 3, 4))) static void refuse(request *r, lim_err err, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lim__json_open(r->j, "error", '{');
    lim__json_str(r->j, "code", lim_err_name(err));
    lim__json_str(r->j, "message", text);
    lim__json_close(r->j);
    r->refused = true;
}

static lim_bytes queue_name(const group *g)
{
    return lim__bytes(g->name, g->name_len);
}

/* ---- configuration ---- */

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
            refuse(r, err, "%s", diag.text);
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
        refuse(r, LIM_E_INVALID, "on_failing_head: write wait, skip or park");
        return false;
    }
    if (s == NULL) {
        refuse(r, LIM_E_INVALID, "%.*s is no setting of a queue, or not of this kind", (int)key.len,
               (const char *)key.ptr);
        return false;
    }
    if (!lim__val_as_u64(v, &n) || n < s->min || n > s->max) {
        refuse(r, LIM_E_INVALID, "%s: write a whole number from %" PRIu64 " to %" PRIu64, s->name, s->min, s->max);
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
        refuse(r, LIM_E_INVALID, "backoff_min_ms (%u) is more than backoff_max_ms (%u)", c->policy.backoff_min_ms,
               c->policy.backoff_max_ms);
    return !r->refused;
}

static void config_json(const group *g, lim__json *j)
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

static void queue_configure(request *r)
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
        refuse(r, LIM_E_INVALID, "a rate wants a period of at most 31 days");
        return;
    }
    lim__line_policy(&g->line, next.lane);
    g->config = next;
    g->configured = true;
    lim__group_config_changed(g);
    LIM__EVENT(g->bus, g->self, "configure", { "queue", queue_name(g) });
    config_json(g, r->j);
}

static void queue_limit(request *r)
{
    group *g = r->g;
    lim_bytes key = lim__val_bytes(r->root, "key", lim__bytes(NULL, 0));
    uint64_t now_ns = lim_now_ns(g->self);
    lim__line_limit limit = { .in_flight_max = (uint32_t)lim__val_u64(r->root, "in_flight_max", 0),
                              .rate_max = (uint32_t)lim__val_u64(r->root, "rate", 0),
                              .period_ns = lim__val_u64(r->root, "rate_period_ms", 1000) * 1000000 };
    if (key.len == 0 || key.len > 255) {
        refuse(r, LIM_E_INVALID, "key: which fairness key? 1 to 255 bytes");
    } else if (lim__val_bool(r->root, "clear", false)) {
        lim__json_bool(r->j, "cleared", lim__line_limit_clear(&g->line, key, now_ns));
        g->configured = true;
        lim__group_config_changed(g);
    } else {
        lim_err err = lim__line_limit_set(&g->line, key, &limit, now_ns);
        if (err != LIM_OK) {
            refuse(r, err, "the limit of a key: %s", lim_err_text(err));
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

/* ---- queue ---- */

static void queue_show(request *r)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__group_json(r->g, LIM__SHOW_FULL, &j);
    lim__json_raw(r->j, "queue", lim__buf_bytes(&b));
    lim__buf_fini(&b);
    config_json(r->g, r->j);
}

static void queue_why(request *r)
{
    lim__group_reason why;
    lim__group_why(r->g, &why);
    lim__json_bytes(r->j, "queue", queue_name(r->g));
    lim__json_u64(r->j, "waiting", lim__group_queued(r->g));
    lim__json_u64(r->j, "in_flight", lim__line_count(&r->g->line, LIM__ITEM_OUT));
    lim__json_str(r->j, "why", why.key);
    lim__json_str(r->j, "text", why.text);
}

static void state_of(request *r)
{
    lim__json_bytes(r->j, "queue", queue_name(r->g));
    lim__json_bool(r->j, "paused", r->g->paused);
    lim__json_bool(r->j, "draining", r->g->draining);
    lim__json_u64(r->j, "waiting", lim__group_queued(r->g));
    lim__json_u64(r->j, "in_flight", lim__line_count(&r->g->line, LIM__ITEM_OUT));
}

static void queue_pause(request *r)
{
    if (!r->g->paused)
        LIM__EVENT(r->g->bus, r->g->self, "pause", { "queue", queue_name(r->g) });
    r->g->paused = r->g->configured = true;
    lim__group_config_changed(r->g);
    state_of(r);
}

static void queue_resume(request *r)
{
    if (r->g->paused || r->g->draining)
        LIM__EVENT(r->g->bus, r->g->self, "resume", { "queue", queue_name(r->g) });
    r->g->paused = r->g->draining = false;
    lim__group_config_changed(r->g);
    lim__group_unpark(r->g, NULL, true);
    lim__group_dispatch(r->g);
    state_of(r);
}

static void queue_drain(request *r)
{
    if (!r->g->draining)
        LIM__EVENT(r->g->bus, r->g->self, "drain", { "queue", queue_name(r->g) });
    r->g->draining = r->g->configured = true;
    lim__group_config_changed(r->g);
    state_of(r);
}

/* Those that wait now, not those that somebody works on: some in each turn, and nobody is handed any meanwhile. */
static void queue_purge(request *r)
{
    group *g = r->g;
    uint32_t waiting = lim__group_queued(g);
    if (waiting > 0) {
        g->purge_upto = g->line.items.last;
        lim__group_purge_go_on(g);
    }
    LIM__EVENT(g->bus, g->self, "purge", { "queue", queue_name(g) });
    lim__json_u64(r->j, "purged", waiting);
}

static uint32_t page_of(const request *r)
{
    uint64_t max = lim__val_u64(r->root, "max", 100);
    return max == 0 || max > PAGE_MAX ? PAGE_MAX : (uint32_t)max;
}

static void key_json(const lim__line_key *k, lim__json *j)
{
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "key", k->key);
    lim__json_u64(j, "weight", k->weight);
    lim__json_u64(j, "ready", k->count[LIM__ITEM_READY]);
    lim__json_u64(j, "limited", k->count[LIM__ITEM_LIMITED]);
    lim__json_u64(j, "delayed", k->count[LIM__ITEM_DELAYED]);
    lim__json_u64(j, "behind", k->count[LIM__ITEM_BEHIND] + k->count[LIM__ITEM_PARKED]);
    lim__json_u64(j, "held", k->count[LIM__ITEM_HELD]);
    lim__json_u64(j, "in_flight", k->count[LIM__ITEM_OUT]);
    lim__json_u64(j, "in_flight_max", k->limit.in_flight_max);
    lim__json_u64(j, "rate", k->limit.rate_max);
    lim__json_u64(j, "rate_period_ms", k->limit.period_ns / 1000000);
    lim__json_bool(j, "own_limit", k->own_limit);
    lim__json_u64(j, "cursor", k->no);
    lim__json_close(j);
}

static void queue_keys(request *r)
{
    uint32_t max = page_of(r);
    lim__line_key *page = calloc(max, sizeof *page);
    if (page == NULL) {
        refuse(r, LIM_E_NOMEM, "out of memory");
        return;
    }
    uint32_t n = lim__line_keys(&r->g->line, lim__val_u64(r->root, "after", 0), page, max, lim_now_ns(r->g->self));
    lim__json_open(r->j, "keys", '[');
    for (uint32_t i = 0; i < n; i++)
        key_json(&page[i], r->j);
    lim__json_close(r->j);
    free(page);
}

static void queue_unpark(request *r)
{
    lim_bytes key = lim__val_bytes(r->root, "order_key", lim__bytes(NULL, 0));
    bool was = lim__line_unpark(&r->g->line, key, lim_now_ns(r->g->self));
    if (!was) {
        refuse(r, LIM_E_NOTFOUND, "no parked tasks with order key %.*s", (int)(key.len < 100 ? key.len : 100),
               (const char *)key.ptr);
        return;
    }
    lim__group_dispatch(r->g);
    state_of(r);
}

/* ---- tasks ---- */

static const char *item_state_text(lim__item_state s)
{
    switch (s) {
    case LIM__ITEM_DELAYED:
        return "delayed";
    case LIM__ITEM_READY:
        return "ready";
    case LIM__ITEM_LIMITED:
        return "limited";
    case LIM__ITEM_BEHIND:
        return "behind";
    case LIM__ITEM_PARKED:
        return "parked";
    case LIM__ITEM_HELD:
        return "held";
    case LIM__ITEM_OUT:
        return "running";
    case LIM__ITEM_NONE:
    case LIM__ITEM_STATES:
        return "";
    }
    return "";
}

static void task_json(group *g, lim__item *i, lim__json *j)
{
    const task *t = LIM_CONTAINER(i, task, item);
    uint64_t now_ns = lim_now_ns(g->self);
    lim__json_open(j, NULL, '{');
    lim__json_id(j, "id", i->id);
    lim__json_bytes(j, "queue", queue_name(g));
    lim__json_str(j, "state", item_state_text(lim__line_state(&g->line, i)));
    lim__json_bytes(j, "type", i->type);
    lim__json_u64(j, "priority", i->priority);
    lim__json_bytes(j, "key", i->key);
    lim__json_bytes(j, "order_key", i->order_key);
    lim__json_u64(j, "attempts", t->attempts);
    lim__json_u64(j, "losses", t->losses);
    lim__json_bool(j, "durable", t->durable);
    lim__json_bytes(j, "worker", t->claim.lease.id != 0 ? t->claim.lease.member->view.name : lim__bytes("", 0));
    lim__json_u64(j, "age_ms", (now_ns - t->claim.since_ns) / 1000000);
    if (i->state == LIM__ITEM_DELAYED)
        lim__json_u64(j, "due_in_ms", i->due_ns > now_ns ? (i->due_ns - now_ns) / 1000000 : 0);
    lim__json_u64(j, "cursor", i->no);
    lim__json_close(j);
}

static void task_ls(request *r)
{
    uint32_t max = page_of(r);
    lim__item **page = calloc(max, sizeof *page);
    if (page == NULL) {
        refuse(r, LIM_E_NOMEM, "out of memory");
        return;
    }
    uint32_t n = lim__line_items(&r->g->line, lim__val_u64(r->root, "after", 0), page, max);
    lim__json_open(r->j, "tasks", '[');
    for (uint32_t i = 0; i < n; i++)
        task_json(r->g, page[i], r->j);
    lim__json_close(r->j);
    free(page);
}

static bool id_in(request *r, uint64_t *out)
{
    lim_bytes text = lim__val_bytes(r->root, "id", lim__bytes(NULL, 0));
    char digits[20] = "";
    char *end = digits;
    if (text.len > 0 && text.len < sizeof digits) {
        memcpy(digits, text.ptr, text.len);
        *out = strtoull(digits, &end, 16);
    }
    if (end != digits && *end == '\0' && *out != 0)
        return true;
    refuse(r, LIM_E_INVALID, "id: write the task's id, as `task ls` shows it");
    return false;
}

/* A delayed one goes now. */
static void task_retry(request *r)
{
    group *g = r->g;
    uint64_t id = 0, now_ns = lim_now_ns(g->self);
    if (!id_in(r, &id))
        return;
    claim *c = lim__map_get(&g->claims, lim__alias_pid(g->bus, id).id);
    if (c == NULL || !c->is_task) {
        refuse(r, LIM_E_NOTFOUND, "no task %" PRIx64 " waits in this queue; `dead replay` is for those that ended", id);
        return;
    }
    lim__item *i = &lim__claim_task(c)->item;
    if (i->state == LIM__ITEM_DELAYED) /* else there is nothing to wait for */
        lim__line_hurry(&g->line, i, now_ns);
    lim__json_open(r->j, "tasks", '[');
    task_json(g, i, r->j);
    lim__json_close(r->j);
    lim__group_dispatch(g);
}

/* ---- dead letters ---- */

static void dead_ls(request *r)
{
    uint32_t max = page_of(r), n = 0;
    uint64_t skip = lim__val_u64(r->root, "after", 0), at = 0;
    lim__json_open(r->j, "dead", '[');
    LIM__LIST_EACH(node, &r->g->dead) {
        if (at++ < skip)
            continue;
        if (n++ == max)
            break;
        lim__dead_json(LIM_CONTAINER(node, dead, node), r->g->name, false, r->j);
    }
    lim__json_close(r->j);
    lim__json_u64(r->j, "count", r->g->dead_count);
    lim__json_u64(r->j, "limit", r->g->config.dead_max);
    lim__json_u64(r->j, "dropped", r->g->dead_dropped);
}

static dead *dead_in(request *r)
{
    uint64_t id = 0;
    if (!id_in(r, &id))
        return NULL;
    dead *d = lim__group_dead_find(r->g, id);
    if (d == NULL)
        refuse(r, LIM_E_NOTFOUND, "no dead letter %" PRIx64 " in this queue", id);
    return d;
}

static void dead_show(request *r)
{
    const dead *d = dead_in(r);
    if (d == NULL)
        return;
    lim__json_open(r->j, "dead", '[');
    lim__dead_json(d, r->g->name, true, r->j);
    lim__json_close(r->j);
}

static void replay_one(request *r, dead *d)
{
    lim_pid fresh;
    uint64_t was = d->letter->conv.id;
    if (d->replayed.id != 0 || lim__group_dead_replay(r->g, d, &fresh) != LIM_OK)
        return;
    lim__json_open(r->j, NULL, '{');
    lim__json_id(r->j, "id", was);
    lim__json_id(r->j, "task", fresh.id);
    lim__json_close(r->j);
}

static void dead_replay(request *r)
{
    bool all = lim__val_bool(r->root, "all", false);
    dead *one = all ? NULL : dead_in(r);
    if (!all && one == NULL)
        return;
    lim__json_open(r->j, "replayed", '[');
    if (one != NULL)
        replay_one(r, one);
    uint32_t n = 0, left = 0;
    LIM__LIST_EACH(node, &r->g->dead) {
        dead *d = LIM_CONTAINER(node, dead, node);
        if (!all || d->replayed.id != 0)
            continue;
        if (n < LIM__GROUP_PURGE_MAX)
            replay_one(r, d);
        else
            left++;
        n++;
    }
    lim__json_close(r->j);
    lim__json_u64(r->j, "left", left); /* some in each turn */
    r->g->replaying = left > 0;
    if (left > 0)
        lim__group_go_on(r->g);
}

static void dead_drop(request *r)
{
    uint64_t dropped = 0;
    if (!lim__val_bool(r->root, "all", false)) {
        dead *d = dead_in(r);
        if (d == NULL)
            return;
        lim__group_dead_drop(r->g, d);
        dropped = 1;
    } else {
        dropped = r->g->dead_count;
        while (!lim__list_empty(&r->g->dead))
            lim__group_dead_drop(r->g, LIM_CONTAINER(r->g->dead.next, dead, node));
    }
    r->g->urgent = true;
    lim__json_u64(r->j, "dropped", dropped);
}

/* ---- workers ---- */

static void worker_drain_as(request *r, bool on)
{
    lim_bytes name = lim__val_bytes(r->root, "identity", lim__bytes(NULL, 0));
    member *m = lim__member_named(r->g, name);
    if (m == NULL) {
        refuse(r, LIM_E_NOTFOUND, "nobody is called %.*s here", (int)(name.len < 100 ? name.len : 100),
               (const char *)name.ptr);
        return;
    }
    lim__member_drain(r->g, m, on);
    lim__json_bytes(r->j, "identity", m->view.name);
    lim__json_bool(r->j, "draining", m->draining);
    lim__json_u64(r->j, "in_flight", m->view.in_flight);
}

static void worker_drain(request *r)
{
    worker_drain_as(r, true);
}

static void worker_resume(request *r)
{
    worker_drain_as(r, false);
}

static const struct {
    const char *op;
    void (*run)(request *r);
} ops[] = {
    { "queue.show", queue_show },     { "queue.why", queue_why },       { "queue.configure", queue_configure },
    { "queue.limit", queue_limit },   { "queue.pause", queue_pause },   { "queue.resume", queue_resume },
    { "queue.drain", queue_drain },   { "queue.purge", queue_purge },   { "queue.keys", queue_keys },
    { "queue.unpark", queue_unpark }, { "task.ls", task_ls },           { "task.retry", task_retry },
    { "dead.ls", dead_ls },           { "dead.show", dead_show },       { "dead.replay", dead_replay },
    { "dead.drop", dead_drop },       { "worker.drain", worker_drain }, { "worker.resume", worker_resume },
};

static void run(request *r, lim_bytes op)
{
    for (size_t i = 0; i < LIM_COUNT(ops); i++)
        if (lim__bytes_eq(op, lim__str(ops[i].op))) {
            ops[i].run(r);
            return;
        }
    refuse(r, LIM_E_INVALID, "unknown op %.*s", (int)(op.len < 60 ? op.len : 60), (const char *)op.ptr);
}

void lim__group_admin(group *g, const lim__admin *a)
{
    lim__buf buf = { 0 };
    lim__json j = lim__json_begin(&buf);
    lim__doc *doc = lim__doc_new();
    request r = { .g = g, .j = &j };
    lim__json_open(&j, NULL, '{');
    lim_err err = doc != NULL ? lim__doc_parse(doc, lim__bytes(a->json, a->len), NULL) : LIM_E_NOMEM;
    if (err != LIM_OK) {
        refuse(&r, err, "the request: %s", lim_err_text(err));
    } else {
        r.root = lim__doc_root(doc);
        run(&r, lim__val_bytes(r.root, "op", lim__bytes(NULL, 0)));
    }
    lim__json_close(&j);
    lim__doc_free(doc);
    lim__group_dispatch(g); /* a limit may have been lifted, or time may pass differently: GR8 */
    lim__group_answer(g, a, &buf);
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
