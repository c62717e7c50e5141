/* SPDX-License-Identifier: Apache-2.0
 * group_show.c - what people see of a group: numbers beside their limits, and why nothing moves. */
#include "bus/group.h"
#include "base/base.h"
#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 3, 4))) static void because(lim__group_reason *out, const char *key, const char *format,
                                                          ...)
{
    va_list args;
    va_start(args, format);
    out->key = key;
    vsnprintf(out->text, sizeof out->text, format, args);
    va_end(args);
}

static void until(char *text, size_t size, uint64_t until_ns, uint64_t now_ns)
{
    if (until_ns == LIM__LINE_NEVER)
        snprintf(text, size, "when one of them is done");
    else
        snprintf(text, size, "in %.1f s", until_ns > now_ns ? (double)(until_ns - now_ns) / 1e9 : 0.0);
}

static void why_line(group *g, const lim__line_why *why, lim__group_reason *out)
{
    char when[48];
    uint64_t now_ns = lim_now_ns(g->self);
    until(when, sizeof when, why->until_ns, now_ns);
    const lim__item *i = why->item;
    int key_len = i == NULL ? 0 : (int)(i->key.len < 60 ? i->key.len : 60);
    int order_len = i == NULL ? 0 : (int)(i->order_key.len < 60 ? i->order_key.len : 60);
    switch (why->how) {
    case LIM__LINE_QUEUE_LIMIT:
        because(out, "limited", "the queue's own limit of %u is reached; the next one starts %s", why->limit, when);
        return;
    case LIM__LINE_KEY_LIMIT:
        because(out, "limited", "key %.*s is at its limit of %u; its next one starts %s", key_len,
                (const char *)i->key.ptr, why->limit, when);
        return;
    case LIM__LINE_ORDERED:
        because(out, "ordered_behind", "the next with order key %.*s waits for task %llx, which is before it",
                order_len, (const char *)i->order_key.ptr, (unsigned long long)why->before->id);
        return;
    case LIM__LINE_PARKED:
        because(out, "ordered_behind",
                "order key %.*s is parked: its first task failed. Start it again with: liminal queue unpark", order_len,
                (const char *)i->order_key.ptr);
        return;
    case LIM__LINE_DELAYED:
        because(out, "delayed", "the first is not due before %s", when + 3);
        return;
    case LIM__LINE_HELD:
        if (LIM_CONTAINER(why->item, task, item)->claim.unheard) {
            because(
                out, "workers_full",
                "those who could take it were handed it and did not acknowledge; it is handed out again in a moment");
            return;
        }
        because(out, "router_chose_none",
                "the routing function %s chose nobody for it; it is asked again when "
                "anything changes",
                lim__group_router_name(g));
        return;
    case LIM__LINE_EMPTY:
    case LIM__LINE_READY:
    case LIM__LINE_OUT:
        because(out, "", "the next one is on its way");
        return;
    }
}

/* For a task of this type: is there nobody at all, nobody of the type, or (if a place is all it wants) nobody with one?
 */
static bool why_members(group *g, const lim__item *i, bool wants_place, lim__group_reason *out)
{
    uint32_t able = 0, draining = 0;
    if (g->work_count == 0) {
        because(out, "no_workers", "nobody works on this queue; start one with: liminal work %s --exec CMD", g->name);
        return true;
    }
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        draining += m->pid.id != 0 && m->draining;
        if (!lim__member_serves(m, true, i->type))
            continue;
        if (!wants_place || lim__member_has_place(m))
            return false;
        able++;
    }
    if (able > 0)
        because(out, "workers_full", "all %u workers that can take it are full; more workers or capacity would help",
                able);
    else if (draining > 0)
        because(out, "no_workers", "its workers are draining: %u get nothing new", draining);
    else
        because(out, "no_matching_type", "no worker takes tasks of type \"%.*s\"",
                (int)(i->type.len < 60 ? i->type.len : 60), (const char *)i->type.ptr);
    return true;
}

void lim__group_why(group *g, lim__group_reason *out)
{
    *out = (lim__group_reason){ .key = "" };
    if (lim__group_queued(g) == 0) {
        if (g->ask_count > 0)
            because(out, g->serve_count == 0 ? "no_workers" : "workers_full", "%u asks wait: %s", g->ask_count,
                    g->serve_count == 0 ? "nobody serves this group" : "all who serve it are full");
        return;
    }
    if (g->paused) {
        because(out, "paused", "the queue is paused; go on with: liminal queue resume %s", g->name);
        return;
    }
    if (g->refused_ns != 0 && lim_now_ns(g->self) - g->refused_ns < LIM__GROUP_PRESSURE_MS * 1000000ull) {
        because(out, "pressure",
                "the disk takes no new tasks just now: it is full, or faulty; what is in hand goes on");
        return;
    }
    lim__line_why why = lim__line_why_first(&g->line, lim_now_ns(g->self));
    bool wants_place = why.how == LIM__LINE_READY || why.how == LIM__LINE_HELD;
    if (why.item != NULL && why.how != LIM__LINE_DELAYED && why_members(g, why.item, wants_place, out))
        return;
    why_line(g, &why, out);
}

static void names(lim__json *j, const char *key, const lim_bytes *list, uint32_t count)
{
    lim__json_open(j, key, '[');
    for (uint32_t i = 0; i < count; i++)
        lim__json_bytes(j, NULL, list[i]);
    lim__json_close(j);
}

/* Why it would not be given something now; "" if it would. */
static const char *member_why(const group *g, const member *m)
{
    if (m->pid.id == 0)
        return "away";
    if (m->draining)
        return "draining";
    if (g->paused && m->join->kind == LIM__MEMBER_WORK)
        return "paused";
    return m->view.in_flight >= m->view.max_in_flight ? "full" : "";
}

/* Heard of: over its connection anything at all; of this program's own, a result. */
static uint64_t seen_ns(const member *m)
{
    uint64_t heard_ns = m->pulse != NULL ? lim__pulse_heard_ns(m->pulse) : 0;
    return heard_ns > m->seen_ns ? heard_ns : m->seen_ns;
}

static uint64_t ms_ago(uint64_t now_ns, uint64_t then_ns)
{
    return now_ns > then_ns ? (now_ns - then_ns) / 1000000 : 0;
}

static void member_json(const group *g, const member *m, lim__json *j)
{
    uint64_t now_ns = g->bus->os->now_ns(g->bus->os);
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "group", lim__bytes(g->name, g->name_len));
    lim__json_bytes(j, "identity", m->view.name);
    lim__json_id(j, "participant", m->pid.id);
    lim__json_str(j, "kind", m->join->kind == LIM__MEMBER_WORK ? "work" : "serve");
    if (m->view.max_in_flight == LIM_UNLIMITED)
        lim__json_str(j, "capacity", "unlimited");
    else
        lim__json_u64(j, "capacity", m->view.max_in_flight);
    lim__json_u64(j, "in_flight", m->view.in_flight);
    lim__json_u64(j, "buffer", m->view.buffer_depth);
    lim__json_bytes(j, "node", m->view.node);
    names(j, "tags", m->view.tags, m->view.tag_count);
    names(j, "types", m->view.types, m->view.type_count);
    lim__json_open(j, "tasks", '[');
    LIM__LIST_EACH(node, &m->leases)
        lim__json_id(j, NULL, lim__claim_id(LIM_CONTAINER(node, lease, node)->claim).id);
    lim__json_close(j);
    lim__json_u64(j, "completed", m->completed);
    lim__json_u64(j, "latency_us", m->view.latency_us);
    lim__json_u64(j, "joined_ms_ago", ms_ago(now_ns, m->joined_ns));
    lim__json_u64(j, "last_seen_ms_ago", ms_ago(now_ns, seen_ns(m)));
    lim__json_bool(j, "draining", m->draining);
    lim__json_bool(j, "eligible", member_why(g, m)[0] == '\0');
    lim__json_str(j, "why", member_why(g, m));
    lim__json_close(j);
}

static void members_json(const group *g, lim__json *j)
{
    LIM__LIST_EACH(node, &g->members)
        member_json(g, LIM_CONTAINER(node, member, node), j);
}

void lim__group_json(group *g, lim__show_what what, lim__json *j)
{
    if (what == LIM__SHOW_MEMBERS) { /* a list without its brackets: the asker joins those of all groups */
        members_json(g, j);
        return;
    }
    uint64_t capacity = 0, in_flight = 0;
    bool unlimited = false;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        unlimited |= m->view.max_in_flight == LIM_UNLIMITED;
        capacity += m->pid.id != 0 ? m->view.max_in_flight : 0;
        in_flight += m->view.in_flight;
    }
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "name", lim__bytes(g->name, g->name_len));
    lim__json_u64(j, "members", g->serve_count + g->work_count);
    lim__json_u64(j, "workers", g->work_count);
    if (unlimited)
        lim__json_str(j, "capacity", "unlimited");
    else
        lim__json_u64(j, "capacity", capacity);
    lim__json_u64(j, "in_flight", in_flight);
    lim__json_u64(j, "queued", lim__group_queued(g));
    lim__json_u64(j, "queue_max", g->config.limit);
    lim__json_u64(j, "high_water", g->config.high_water);
    lim__json_bool(j, "paused", g->paused);
    lim__json_bool(j, "durable", lim__group_durable(g));
    lim__json_str(j, "class",
                  lim_class_text(lim__group_durable(g) ? (lim_class)lim__durable_class(g->bus) : LIM_CLASS_MEMORY));
    lim__json_bool(j, "draining", g->draining);
    lim__json_u64(j, "held", g->ask_count);
    lim__json_u64(j, "backlog_max", LIM__GROUP_BACKLOG_MAX);
    lim__json_str(j, "router", lim__group_router_name(g));
    lim__group_reason why;
    lim__group_why(g, &why);
    lim__json_str(j, "why", why.key);
    lim__json_str(j, "why_text", why.text);
    lim__json_u64(j, "dispatched", g->dispatched);
    lim__json_u64(j, "lost", g->lost);
    lim__json_u64(j, "refused", g->refused);
    lim__json_u64(j, "dead", g->dead_count);
    lim__json_u64(j, "dead_max", g->config.dead_max);
    lim__json_open(j, "window", '{');
    lim__json_u64(j, "ms", g->config.remember_ns / 1000000);
    lim__json_u64(j, "keys", g->once.count);
    lim__json_u64(j, "keys_max", g->config.remember_max);
    lim__json_u64(j, "bytes", g->once_bytes);
    lim__json_u64(j, "bytes_max", g->config.remember_bytes);
    lim__json_str(j, "at_max", g->config.remember_forgets ? "forget the oldest" : "refuse new keys");
    lim__json_close(j);
    if (what == LIM__SHOW_FULL) {
        static const char *const names_of[] = {
            "", "delayed", "ready", "limited", "behind", "parked", "held", "running"
        };
        lim__json_open(j, "tasks", '{');
        for (uint32_t i = LIM__ITEM_DELAYED; i < LIM__ITEM_STATES; i++)
            lim__json_u64(j, names_of[i], lim__line_count(&g->line, (lim__item_state)i));
        lim__json_close(j);
        lim__json_str(j, "last_fault", g->slot.last_fault);
        lim__slot_versions_json(&g->slot, "versions", j);
        lim__json_open(j, "participants", '[');
        members_json(g, j);
        lim__json_close(j);
    }
    lim__json_close(j);
}
