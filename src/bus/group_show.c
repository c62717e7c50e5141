/* SPDX-License-Identifier: Apache-2.0
 * group_show.c - what people see of a group: numbers beside their limits, and why nothing moves. */
#include "bus/group.h"
#include "base/base.h"

const char *lim__group_why(const group *g)
{
    bool waiting = g->task_count + g->ask_count > 0;
    if (!waiting)
        return "";
    if (g->task_count > 0 ? g->work_count == 0 : g->serve_count == 0)
        return "no_workers";
    if (!lim__list_empty(&g->undecided))
        return "router_chose_none";
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (m->pid.id != 0 && m->view.in_flight < m->view.max_in_flight)
            return "no_matching_type";
    }
    return "workers_full";
}

static void names(lim__json *j, const char *key, const lim_bytes *list, uint32_t count)
{
    lim__json_open(j, key, '[');
    for (uint32_t i = 0; i < count; i++)
        lim__json_bytes(j, NULL, list[i]);
    lim__json_close(j);
}

static const char *member_why(const member *m)
{
    if (m->pid.id == 0)
        return "away";
    return m->view.in_flight >= m->view.max_in_flight ? "full" : "";
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
    names(j, "tags", m->view.tags, m->view.tag_count);
    names(j, "types", m->view.types, m->view.type_count);
    lim__json_open(j, "tasks", '[');
    LIM__LIST_EACH(node, &m->claims)
        lim__json_id(j, NULL, LIM_CONTAINER(node, claim, node)->conv.id);
    lim__json_close(j);
    lim__json_u64(j, "completed", m->completed);
    lim__json_u64(j, "latency_us", m->view.latency_us);
    lim__json_u64(j, "joined_ms_ago", (now_ns - m->joined_ns) / 1000000);
    lim__json_bool(j, "eligible", member_why(m)[0] == '\0');
    lim__json_str(j, "why", member_why(m));
    lim__json_close(j);
}

static void versions_json(const group *g, lim__json *j)
{
    lim__router_stats now;
    lim__router_stats_get(g->router, &now);
    lim__json_open(j, "versions", '[');
    for (uint32_t i = 0; i < g->version_count; i++) {
        const version *v = &g->versions[i];
        lim__json_open(j, NULL, '{');
        lim__json_str(j, "id", v->id);
        lim__json_str(j, "name", v->name);
        lim__json_str(j, "engine", lim__engine_text(v->engine));
        lim__json_str(j, "state", i == 0 ? "active" : i <= g->draining_count ? "draining" : "retired");
        lim__json_u64(j, "deployed_wall_us", v->deployed_wall_ns / 1000);
        lim__json_u64(j, "calls", i == 0 ? now.calls : v->calls);
        lim__json_u64(j, "decided", i == 0 ? now.decided : v->decided);
        lim__json_u64(j, "faults", i == 0 ? now.crashed + now.timed_out + now.not_started : v->faults);
        lim__json_close(j);
    }
    lim__json_close(j);
}

static void members_json(const group *g, lim__json *j)
{
    LIM__LIST_EACH(node, &g->members)
        member_json(g, LIM_CONTAINER(node, member, node), j);
}

void lim__group_json(const group *g, lim__show_what what, lim__json *j)
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
    lim__json_u64(j, "queued", g->task_count);
    lim__json_u64(j, "queue_max", LIM__GROUP_QUEUE_MAX);
    lim__json_u64(j, "held", g->ask_count);
    lim__json_u64(j, "backlog_max", LIM__GROUP_BACKLOG_MAX);
    lim__json_str(j, "router", lim__group_router_name(g));
    lim__json_str(j, "why", lim__group_why(g));
    lim__json_u64(j, "dispatched", g->dispatched);
    lim__json_u64(j, "lost", g->lost);
    lim__json_u64(j, "refused", g->refused);
    if (what == LIM__SHOW_FULL) {
        lim__json_str(j, "last_fault", g->last_fault);
        versions_json(g, j);
        lim__json_open(j, "participants", '[');
        members_json(g, j);
        lim__json_close(j);
    }
    lim__json_close(j);
}
