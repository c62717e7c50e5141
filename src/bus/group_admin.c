/* SPDX-License-Identifier: Apache-2.0
 * group_admin.c - what operators ask of one queue and change in it: the operations that $sys.queues, $sys.tasks,
 * $sys.dead and $sys.workers pass on as they came. One JSON object in, one out; {"error": {"code", "message"}} is a
 * refusal.
 *
 * Changes take effect at once and are told as events. A change that is refused changes nothing, also not in part. */
#include "bus/group_admin.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAGE_MAX = 1000 };

void lim__admin_refuse(request *r, lim_err err, const char *format, ...)
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

/* ---- queue ---- */

static void queue_show(request *r)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__group_json(r->g, LIM__SHOW_FULL, &j);
    lim__json_raw(r->j, "queue", lim__buf_bytes(&b));
    lim__buf_fini(&b);
    lim__admin_config_json(r->g, r->j);
}

static void queue_why(request *r)
{
    lim__group_reason why;
    lim__group_why(r->g, &why);
    lim__json_bytes(r->j, "queue", lim__admin_queue(r->g));
    lim__json_u64(r->j, "waiting", lim__group_queued(r->g));
    lim__json_u64(r->j, "in_flight", lim__line_count(&r->g->line, LIM__ITEM_OUT));
    lim__json_str(r->j, "why", why.key);
    lim__json_str(r->j, "text", why.text);
}

static void state_of(request *r)
{
    lim__json_bytes(r->j, "queue", lim__admin_queue(r->g));
    lim__json_bool(r->j, "paused", r->g->paused);
    lim__json_bool(r->j, "draining", r->g->draining);
    lim__json_u64(r->j, "waiting", lim__group_queued(r->g));
    lim__json_u64(r->j, "in_flight", lim__line_count(&r->g->line, LIM__ITEM_OUT));
}

static void queue_pause(request *r)
{
    if (!r->g->paused)
        LIM__EVENT(r->g->bus, r->g->self, "pause", { "queue", lim__admin_queue(r->g) });
    r->g->paused = r->g->configured = true;
    lim__group_config_changed(r->g);
    state_of(r);
}

static void queue_resume(request *r)
{
    if (r->g->paused || r->g->draining)
        LIM__EVENT(r->g->bus, r->g->self, "resume", { "queue", lim__admin_queue(r->g) });
    r->g->paused = r->g->draining = false;
    lim__group_config_changed(r->g);
    lim__group_unpark(r->g, NULL, true);
    lim__group_dispatch(r->g);
    state_of(r);
}

static void queue_drain(request *r)
{
    if (!r->g->draining)
        LIM__EVENT(r->g->bus, r->g->self, "drain", { "queue", lim__admin_queue(r->g) });
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
    LIM__EVENT(g->bus, g->self, "purge", { "queue", lim__admin_queue(g) });
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
        lim__admin_refuse(r, LIM_E_NOMEM, "out of memory");
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
        lim__admin_refuse(r, LIM_E_NOTFOUND, "no parked tasks with order key %.*s",
                          (int)(key.len < 100 ? key.len : 100), (const char *)key.ptr);
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
    lim__json_bytes(j, "queue", lim__admin_queue(g));
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
        lim__admin_refuse(r, LIM_E_NOMEM, "out of memory");
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
    lim__admin_refuse(r, LIM_E_INVALID, "id: write the task's id, as `task ls` shows it");
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
        lim__admin_refuse(r, LIM_E_NOTFOUND,
                          "no task %" PRIx64 " waits in this queue; `dead replay` is for those that ended", id);
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
        lim__admin_refuse(r, LIM_E_NOTFOUND, "no dead letter %" PRIx64 " in this queue", id);
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
        lim__admin_refuse(r, LIM_E_NOTFOUND, "nobody is called %.*s here", (int)(name.len < 100 ? name.len : 100),
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
    { "queue.show", queue_show },
    { "queue.why", queue_why },
    { "queue.configure", lim__admin_configure },
    { "queue.limit", lim__admin_limit },
    { "queue.pause", queue_pause },
    { "queue.resume", queue_resume },
    { "queue.drain", queue_drain },
    { "queue.purge", queue_purge },
    { "queue.keys", queue_keys },
    { "queue.unpark", queue_unpark },
    { "task.ls", task_ls },
    { "task.retry", task_retry },
    { "dead.ls", dead_ls },
    { "dead.show", dead_show },
    { "dead.replay", dead_replay },
    { "dead.drop", dead_drop },
    { "worker.drain", worker_drain },
    { "worker.resume", worker_resume },
};

static void run(request *r, lim_bytes op)
{
    for (size_t i = 0; i < LIM_COUNT(ops); i++)
        if (lim__bytes_eq(op, lim__str(ops[i].op))) {
            ops[i].run(r);
            return;
        }
    lim__admin_refuse(r, LIM_E_INVALID, "unknown op %.*s", (int)(op.len < 60 ? op.len : 60), (const char *)op.ptr);
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
        lim__admin_refuse(&r, err, "the request: %s", lim_err_text(err));
    } else {
        r.root = lim__doc_root(doc);
        run(&r, lim__val_bytes(r.root, "op", lim__bytes(NULL, 0)));
    }
    lim__json_close(&j);
    lim__doc_free(doc);
    lim__group_dispatch(g); /* a limit may have been lifted, or time may pass differently: GR8 */
    lim__group_answer(g, a, &buf);
}
