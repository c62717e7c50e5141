/* SPDX-License-Identifier: Apache-2.0
 * group_member.c - who is in a group, who has left, who comes back, who shall get nothing new.
 *
 *   join --> member, watched before it can be chosen --down, no leases--> gone
 *                      | down, leases left
 *                      v
 *                    away --the same identity and session joins--> member again, its leases intact
 *                      `---- last lease taken by others ---------> gone
 *
 * A draining member keeps what it has and gets nothing new, until it is told to go on, or leaves. */
#include "bus/group.h"
#include "base/base.h"
#include <stdio.h>
#include <stdlib.h>

enum { USED_MAX = 1 << 30, MEMBERS_ASKED_MAX = 1024 };
#define NO_SLOT UINT32_MAX

static lim_bytes identity(const member *m)
{
    return m->view.name;
}

void lim__member_free(group *g, member *m)
{
    lim__sched *s = lim__sched_current();
    lim__list_remove(&m->node);
    LIM_ASSERT(lim__list_empty(&m->parked));
    if (m->view.slot != NO_SLOT)
        g->slots[m->view.slot / 64] &= ~(1ull << m->view.slot % 64);
    g->member_count--;
    if (m->join != NULL)
        lim__letter_free(s, m->join);
    lim__pulse_unref(m->pulse);
    lim__free(s, m->names, m->name_count * sizeof *m->names + 1);
    lim__free(s, m, sizeof *m);
}

void lim__group_joined(group *g, const lim__join *j, lim_err err, lim_bytes name)
{
    lim__joined *r = lim__letter_new(lim__proc_sched(g->self), &lim__type_joined, sizeof *r + name.len);
    if (r == NULL)
        return;
    *r = (lim__joined){ .ref = j->ref, .err = err, .identity_len = (uint8_t)name.len };
    if (name.len > 0)
        memcpy(r->identity, name.ptr, name.len);
    (void)!lim__send_reserved(g->self, j->reply_to, r);
}

static void evict(group *g, lim_pid pid, lim_reason reason)
{
    lim__evict *e = lim__letter_new(lim__proc_sched(g->self), &lim__type_evict, sizeof *e);
    if (e == NULL)
        return;
    e->reason = reason;
    (void)!lim__send_reserved(g->self, pid, e);
}

member *lim__member_named(group *g, lim_bytes name)
{
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (lim__bytes_eq(identity(m), name))
            return m;
    }
    return NULL;
}

static bool same_session(const member *m, const lim__join *j)
{
    static const uint8_t none[16];
    return memcmp(m->join->session, j->session, 16) == 0 && memcmp(j->session, none, 16) != 0;
}

static lim_err scratch_grow(group *g)
{
    if (g->member_count < g->candidate_cap)
        return LIM_OK;
    uint32_t cap = g->candidate_cap == 0 ? 64 : g->candidate_cap * 2;
    uint64_t *slots = realloc(g->slots, cap / 64 * sizeof *slots);
    if (slots == NULL)
        return LIM_E_NOMEM;
    g->slots = slots;
    memset(slots + g->candidate_cap / 64, 0, (cap - g->candidate_cap) / 64 * sizeof *slots);
    const lim__candidate **c = realloc(g->candidates, cap * sizeof *c);
    if (c == NULL)
        return LIM_E_NOMEM;
    g->candidates = c;
    member **m = realloc(g->candidate_members, cap * sizeof *m);
    if (m == NULL)
        return LIM_E_NOMEM;
    g->candidate_members = m;
    g->candidate_cap = cap;
    return LIM_OK;
}

/* Slots are a small dense index for routing engines: no two members have the same. */
static uint32_t slot_take(group *g)
{
    for (uint32_t i = 0; i < g->candidate_cap / 64; i++)
        if (g->slots[i] != UINT64_MAX) {
            uint32_t bit = (uint32_t)__builtin_ctzll(~g->slots[i]);
            g->slots[i] |= 1ull << bit;
            return i * 64 + bit;
        }
    LIM_ASSERT(!"fewer slots than members");
    return NO_SLOT;
}

/* Those that say none are where their bus is. */
static lim_bytes node_of(const group *g, const lim__join *j, const char *at)
{
    return j->node_len > 0 ? lim__bytes(at, j->node_len) : lim__str(g->bus->node);
}

static lim_err member_names(const group *g, member *m, lim__sched *s, lim_bytes name)
{
    const lim__join *j = m->join;
    const char *at = j->text + j->identity_len;
    m->name_count = (uint32_t)j->type_count + j->tag_count;
    m->names = lim__alloc(s, m->name_count * sizeof *m->names + 1);
    if (m->names == NULL)
        return LIM_E_NOMEM;
    for (uint32_t i = 0; i < m->name_count; i++)
        m->names[i] = lim__name_get(&at);
    m->view.name = name;
    m->view.node = node_of(g, j, at);
    m->view.types = m->names;
    m->view.type_count = j->type_count;
    m->view.tags = m->names + j->type_count;
    m->view.tag_count = j->tag_count;
    return LIM_OK;
}

static void member_attach(group *g, member *m, lim__join *j)
{
    m->pid = j->participant;
    m->view.id = j->participant.id;
    m->view.max_in_flight = j->capacity;
    m->view.stamp = ++g->stamp;
    m->joined_ns = m->seen_ns = lim_now_ns(g->self);
    lim__pulse_unref(m->pulse);
    m->pulse = lim__pulse_ref(j->pulse);
    m->draining = false;
    *(j->kind == LIM__MEMBER_WORK ? &g->work_count : &g->serve_count) += 1;
}

static void count_out(group *g, const member *m)
{
    *(m->join->kind == LIM__MEMBER_WORK ? &g->work_count : &g->serve_count) -= 1;
}

static lim_err member_new(group *g, lim__join *j, uint64_t monitor, member **out)
{
    lim__sched *s = lim__proc_sched(g->self);
    member *m = lim__alloc(s, sizeof *m);
    if (m == NULL)
        return LIM_E_NOMEM;
    *m = (member){ .watched = { true }, .join = j, .monitor = monitor };
    m->view.slot = NO_SLOT;
    lim__list_init(&m->node);
    lim__list_init(&m->leases);
    lim__list_init(&m->parked);
    g->member_count++;
    lim_err err = scratch_grow(g);
    if (err == LIM_OK)
        err = member_names(g, m, s, lim__bytes(j->text, j->identity_len));
    if (err == LIM_OK && monitor != 0)
        err = lim__map_put(&g->watched, monitor, m);
    if (err != LIM_OK) {
        m->join = NULL;
        lim__member_free(g, m);
        return err;
    }
    m->view.slot = slot_take(g);
    lim__list_push(&g->members, &m->node);
    member_attach(g, m, j);
    *out = m;
    return LIM_OK;
}

/* Of one that was made again after a restart: what it says now. For want of memory it stays what it was. */
static lim_err member_said(group *g, member *m, lim__join *j)
{
    lim__sched *s = lim__proc_sched(g->self);
    lim__join *before = m->join;
    lim_bytes *names = m->names, name = m->view.name;
    uint32_t count = m->name_count;
    m->join = j;
    lim_err err = member_names(g, m, s, lim__bytes(j->text, j->identity_len));
    if (err != LIM_OK) {
        m->join = before;
        m->names = names;
        m->name_count = count;
        m->view.name = name;
        lim__letter_free(s, j);
        return LIM_OK;
    }
    lim__letter_free(s, before);
    lim__free(s, names, count * sizeof *names + 1);
    return LIM_OK;
}

/* The same worker again, over another connection: its leases stay its own. */
static lim_err member_again(group *g, member *m, lim__join *j, uint64_t monitor)
{
    lim_err err = lim__map_put(&g->watched, monitor, m);
    if (err != LIM_OK)
        return err;
    if (m->pid.id != 0) {
        lim__map_remove(&g->watched, m->monitor);
        lim_demonitor(g->self, m->monitor);
        evict(g, m->pid, LIM_REPLACED);
        count_out(g, m);
        m->view.in_flight -= m->elsewhere; /* that was the word of the one before */
        m->elsewhere = 0;
        lim__group_unpark(g, m, true);
    }
    m->monitor = monitor;
    if (m->join->capacity == 0) /* made again after a restart: it has not said more than who it is */
        return member_said(g, m, j);
    lim__letter_free(lim__proc_sched(g->self), j); /* what it said the first time still holds, but for its capacity */
    return LIM_OK;
}

/* One that was there before the restart, and may come back: its leases are its own until others take them. */
member *lim__member_away(group *g, lim__member_kind kind, const uint8_t *session, lim_bytes identity_text)
{
    lim__sched *s = lim__proc_sched(g->self);
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (m->join->kind == kind && memcmp(m->join->session, session, 16) == 0 &&
            lim__bytes_eq(lim__bytes(m->join->text, m->join->identity_len), identity_text))
            return m;
    }
    lim__join *j = lim__letter_new(s, &lim__type_join, sizeof *j + identity_text.len);
    member *m = NULL;
    if (j == NULL)
        return NULL;
    *j = (lim__join){ .kind = kind,
                      .text_len = (uint16_t)identity_text.len,
                      .identity_len = (uint8_t)identity_text.len };
    memcpy(j->session, session, sizeof j->session);
    if (identity_text.len > 0)
        memcpy(j->text, identity_text.ptr, identity_text.len);
    if (member_new(g, j, 0, &m) != LIM_OK) {
        lim__letter_free(s, j);
        return NULL;
    }
    count_out(g, m);
    return m;
}

/* ---- coming back ----
 * A worker that comes back says at once which of its tasks it has in hand. One that was on its way to it when it went
 * away, or when the server died, it never had: nobody will ever answer it, and its place must not be kept for that. */

static void member_back(group *g, member *m)
{
    uint64_t timer;
    LIM__LIST_EACH(node, &m->leases)
        LIM_CONTAINER(node, lease, node)->spoken = false;
    m->back_ns = lim_now_ns(g->self);
    m->settled = false;
    if (lim_timer_start(g->self, g->config.grace_ns, LIM__GROUP_TAG_BACK, &timer) != LIM_OK)
        m->back_ns = 0; /* its places are kept until others take the tasks */
}

void lim__group_back_over(group *g)
{
    uint64_t now_ns = lim_now_ns(g->self);
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (m->pid.id == 0 || m->back_ns == 0 || now_ns - m->back_ns < g->config.grace_ns)
            continue;
        m->back_ns = 0;
        m->settled = true;
        lim__leases_unspoken(g, m);
    }
    lim__group_unpark(g, NULL, true);
    lim__group_dispatch(g);
}

void lim__group_join(group *g, const lim_signal *signal)
{
    lim__join *j = lim__letter_keep(g->self, signal);
    member *m = lim__member_named(g, lim__bytes(j->text, j->identity_len));
    bool again = m != NULL && same_session(m, j) && m->join->kind == j->kind;
    lim_bytes name = lim__bytes(j->text, j->identity_len);
    uint64_t monitor = 0;
    lim_err err = m != NULL && m->pid.id != 0 && !again       ? LIM_E_EXISTS
                  : g->member_count >= LIM__GROUP_MEMBERS_MAX ? LIM_E_FULL
                                                              : lim_monitor(g->self, j->participant, &monitor);
    if (err == LIM_OK && again) { /* its watch is armed before it can be chosen */
        lim__join head = *j;
        head.pulse = lim__pulse_ref(j->pulse); /* the letter may be gone in a moment */
        err = member_again(g, m, j, monitor);
        if (err == LIM_OK) {
            head.kind = m->join->kind;
            member_attach(g, m, &head);
            lim__pulse_unref(head.pulse);
            member_back(g, m);
            lim__group_joined(g, &head, LIM_OK, identity(m));
            lim__group_unpark(g, NULL, !LIM__MUTATION("return_unseen"));
            lim__group_dispatch(g);
            return;
        }
        lim__pulse_unref(head.pulse);
    } else if (err == LIM_OK) {
        if (m != NULL) /* one of that name is away with a task: it keeps its lease, not its name */
            m->view.name = lim__bytes("(away)", 6);
        err = member_new(g, j, monitor, &m);
    }
    lim__group_joined(g, j, err, name);
    if (err != LIM_OK) {
        if (monitor != 0)
            lim_demonitor(g->self, monitor);
        lim__letter_free(lim__proc_sched(g->self), j);
        return;
    }
    if (g->name[0] != '$') /* the bus itself comes and goes without a word */
        LIM__EVENT(g->bus, g->self, "join", { "group", lim__bytes(g->name, g->name_len) }, { "participant", name },
                   { "kind", lim__str(j->kind == LIM__MEMBER_WORK ? "work" : "serve") });
    lim__group_unpark(g, NULL, true);
    lim__group_dispatch(g);
}

/* It does not come back. Who waits for it though it is not linked to it, since it was away before, hears of that. */
static void vacate(group *g, const member *m)
{
    LIM__LIST_EACH(node, &m->leases) {
        const lease *l = LIM_CONTAINER(node, lease, node);
        lim__vacated *v = lim__letter_new(lim__proc_sched(g->self), &lim__type_vacated, sizeof *v);
        if (v == NULL)
            return; /* the grace ends, too */
        v->lease = l->id;
        (void)!lim__send_reserved(g->self, l->claim->conv, v);
    }
}

void lim__member_down(group *g, member *m, const lim_signal *signal)
{
    char leases[16];
    snprintf(leases, sizeof leases, "%u", m->view.in_flight);
    bool left = signal->reason == LIM_LEFT || (m->view.in_flight == 0 && signal->reason == LIM_DRAINED);
    LIM__EVENT(g->bus, g->self, left ? "leave" : "crash", { "group", lim__bytes(g->name, g->name_len) },
               { "participant", identity(m) }, { "reason", lim__str(lim_reason_text(signal->reason)) },
               { "leases", lim__str(leases) });
    lim__map_remove(&g->watched, m->monitor);
    m->pid = (lim_pid){ 0 };
    m->settled = false; /* what it has in hand now it may bring back */
    count_out(g, m);
    m->view.in_flight -= m->elsewhere;
    m->elsewhere = 0;
    g->lost += m->view.in_flight;
    lim__group_unpark(g, m, true);
    if (lim__list_empty(&m->leases))
        lim__member_free(g, m);
    else if (signal->reason != LIM_LOST && signal->reason != LIM_SILENT && signal->reason != LIM_REPLACED)
        vacate(g, m);
    lim__group_dispatch(g);
}

/* ---- questions ---- */

bool lim__member_serves(const member *m, bool tasks, lim_bytes type)
{
    if (m->pid.id == 0 || m->draining || (m->join->kind == LIM__MEMBER_WORK) != tasks)
        return false;
    if (m->view.type_count == 0)
        return true;
    for (uint32_t i = 0; i < m->view.type_count; i++)
        if (lim__bytes_eq(m->view.types[i], type))
            return true;
    return false;
}

bool lim__member_has_place(const member *m)
{
    if (LIM__MUTATION("overbook") && m->view.in_flight == m->view.max_in_flight)
        return true;
    return m->view.in_flight < m->view.max_in_flight;
}

void lim__member_drain(group *g, member *m, bool on)
{
    if (m->draining == on)
        return;
    m->draining = on;
    m->view.stamp = ++g->stamp;
    LIM__EVENT(g->bus, g->self, on ? "drain" : "resume", { "group", lim__bytes(g->name, g->name_len) },
               { "participant", identity(m) });
    lim__group_unpark(g, m, true);
    lim__group_dispatch(g);
}

void lim__group_report(group *g, const lim__report *r)
{
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (m->pid.id != r->participant.id)
            continue;
        uint32_t used = r->used < USED_MAX ? r->used : USED_MAX; /* a sum that wraps would look like places */
        m->view.in_flight += used - m->elsewhere;
        m->elsewhere = used;
        m->view.stamp = ++g->stamp;
        lim__group_unpark(g, m, true);
        lim__group_unpark(g, NULL, false);
        lim__group_dispatch(g);
        return;
    }
}

/* Those who can be asked now, of this type: for who asks everybody. */
void lim__group_members(group *g, const lim__members *ask)
{
    lim__sched *s = lim__proc_sched(g->self);
    lim_bytes type = lim__bytes(ask->type, ask->type_len);
    uint32_t count = 0;
    size_t text = 0;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (count < MEMBERS_ASKED_MAX && lim__member_serves(m, false, type)) {
            count++;
            text += 1 + identity(m).len + sizeof m->join->session;
        }
    }
    lim__member_list *list = lim__letter_new(s, &lim__type_member_list, sizeof *list + text);
    if (list == NULL)
        return;
    *list = (lim__member_list){ .ref = ask->ref, .count = count };
    list->who = lim__alloc(s, count * sizeof *list->who + 1);
    if (list->who == NULL) {
        list->count = 0;
        lim__letter_free(s, list);
        return;
    }
    char *at = list->text;
    uint32_t n = 0;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (n == count || !lim__member_serves(m, false, type))
            continue;
        list->who[n++] = m->pid;
        at += lim__name_put(at, identity(m));
        memcpy(at, m->join->session, sizeof m->join->session);
        at += sizeof m->join->session;
    }
    (void)!lim__send_reserved(g->self, ask->reply_to, list);
}
