/* SPDX-License-Identifier: Apache-2.0
 * group_place.c - who gets what: waiting lines, routing decisions, leases.
 *
 *   want --> try: are there candidates? is one free? --> router --> lease: `assigned`
 *             |  no candidates            -> asks: refused (or wait); tasks: `unserved` until somebody joins
 *             |  all full                 -> wait in line (asks: at most LIM__GROUP_BACKLOG_MAX)
 *             |  router: nobody           -> asks: refused; tasks: `undecided`, tried again when anything changes
 *             |  router: one who is full  -> asks: refused; tasks: parked with that one until it has a place
 *             |  router: crashed, too slow-> the slot's on-fault rule
 *             `  router: not finished     -> `routing`, resumed slice by slice
 *
 * Invariants (group_check):
 *   G1  a claim is in exactly one list, the one its state says.
 *   G2  view.in_flight of a member is the number of its leases, and what it says it does for others.
 *   G3  in_flight never exceeds capacity by a decision made here.
 *   G4  when a signal has been dealt with, there is no waiting claim in line that a free candidate could have. */
#include "bus/group.h"
#include "base/base.h"
#include <stdio.h>

/* One look along the line of tasks: how many are tried, how many are passed by (from the front; going on). */
#ifdef LIM_HOSTILE
enum { TRIES_MAX = 2, LOOKS_MAX = 3, LOOKS_ON_MAX = 3, BLOCKED_MAX = 1, RETRY_MS = 100 };
#else
enum { TRIES_MAX = 256, LOOKS_MAX = 1024, LOOKS_ON_MAX = 32768, BLOCKED_MAX = 16, RETRY_MS = 100 };
#endif

typedef enum placing { PLACED = 1, PENDING, NOBODY, ALL_FULL, CHOSE_NONE, CHOSE_FULL, FAULT } placing;

static lim_bytes want_type(const lim__want *w)
{
    return lim__bytes(w->type, w->type_len);
}

static bool serves(const member *m, const lim__want *w)
{
    if (m->pid.id == 0 || (m->join->kind == LIM__MEMBER_WORK) != (w->kind == LIM__KIND_TASK))
        return false;
    for (uint32_t i = 0; i < w->shun_count; i++)
        if (w->shun[i].id == m->pid.id)
            return false;
    if (m->view.type_count == 0)
        return true;
    for (uint32_t i = 0; i < m->view.type_count; i++)
        if (lim__bytes_eq(m->view.types[i], want_type(w)))
            return true;
    return false;
}

static bool has_place(const member *m)
{
    if (LIM__MUTATION("overbook") && m->view.in_flight == m->view.max_in_flight)
        return true;
    return m->view.in_flight < m->view.max_in_flight;
}

static uint32_t candidates(group *g, const lim__want *w, bool *any_free)
{
    uint32_t n = 0;
    *any_free = false;
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (!serves(m, w))
            continue;
        LIM_ASSERT(n < g->candidate_cap);
        g->candidates[n] = &m->view;
        g->candidate_members[n++] = m;
        *any_free |= has_place(m);
    }
    return n;
}

/* ---- answers ---- */

static void send_assigned(group *g, claim *c, const char *router)
{
    const member *m = c->member;
    size_t router_len = strlen(router);
    lim__sched *s = lim__proc_sched(g->self);
    lim__assigned *a = lim__letter_new(s, &lim__type_assigned, sizeof *a + m->view.name.len + router_len);
    if (a == NULL) {
        lim_exit_process(g->self, c->conv, LIM_KILL); /* it must not wait for ever: its owner is told by the link */
        return;
    }
    *a = (lim__assigned){ .participant = m->pid,
                          .lease = c->lease,
                          .identity_len = (uint8_t)m->view.name.len,
                          .router_len = (uint8_t)router_len };
    memcpy(a->text, m->view.name.ptr, m->view.name.len);
    memcpy(a->text + m->view.name.len, router, router_len);
    (void)!lim__send_reserved(g->self, c->conv, a);
}

void lim__group_refuse(group *g, lim_pid conv, lim_why why, uint32_t limit, uint32_t current, const char *detail)
{
    size_t len = strlen(detail);
    lim__refused *r = lim__letter_new(lim__proc_sched(g->self), &lim__type_refused, sizeof *r + len);
    g->refused++;
    if (r == NULL) {
        lim_exit_process(g->self, conv, LIM_KILL);
        return;
    }
    *r = (lim__refused){ .why = why,
                         .limit = limit,
                         .current = current,
                         .retry_after_ms = limit != 0 ? RETRY_MS : 0,
                         .detail_len = (uint16_t)len };
    memcpy(r->detail, detail, len);
    (void)!lim__send_reserved(g->self, conv, r);
}

static void send_queued(group *g, const claim *c)
{
    lim__queued *q = lim__letter_new(lim__proc_sched(g->self), &lim__type_queued, sizeof *q);
    if (q == NULL)
        return;
    q->admission = (lim_admission){ .verdict = LIM_ACCEPT, .limit = LIM__GROUP_QUEUE_MAX, .current = g->task_count };
    if (g->task_count > LIM__GROUP_HIGH_WATER) {
        q->admission.verdict = LIM_DEFER;
        q->admission.why = LIM_WHY_QUEUE_FULL;
    }
    (void)!lim__send_reserved(g->self, c->conv, q);
}

/* ---- lines ---- */

static bool is_task(const claim *c)
{
    return c->want != NULL && c->want->kind == LIM__KIND_TASK;
}

/* Into a line by its order: from the end, because most are the newest. */
static void insert(lim__list *line, claim *c)
{
    lim__list *after = line->prev;
    if (after != line && LIM_CONTAINER(line->next, claim, node)->order > c->order)
        after = line; /* back to the front: it was in line before */
    while (after != line && LIM_CONTAINER(after, claim, node)->order > c->order)
        after = after->prev;
    lim__list_push_front(after, &c->node);
}

static void wait_in(group *g, claim *c, lim__list *line)
{
    c->state = CLAIM_WAITING;
    insert(line != NULL ? line : is_task(c) ? &g->tasks : &g->asks, c);
}

static void move_to(group *g, claim *c, lim__list *line)
{
    lim__list_remove(&c->node);
    wait_in(g, c, line);
}

static void count_waiting(group *g, const claim *c, int by)
{
    uint32_t *count = is_task(c) ? &g->task_count : &g->ask_count;
    *count = (uint32_t)((int64_t)*count + by);
}

/* ---- later ---- */

static void retry_later(group *g)
{
    if (g->retry_timer == 0)
        (void)!lim_timer_start(g->self, RETRY_MS * 1000000ull, 1, &g->retry_timer);
}

/* In a later turn of its own. For want of memory a little after that. */
static void go_on(group *g)
{
    if (g->resuming)
        return;
    void *again = lim__letter_new(lim__proc_sched(g->self), &lim__type_resume, 0);
    g->resuming = again != NULL && lim__send_reserved(g->self, lim_self(g->self), again) == LIM_OK;
    if (!g->resuming)
        retry_later(g);
}

/* ---- deciding ---- */

static void lease(group *g, claim *c, member *m)
{
    LIM_ASSERT(has_place(m));
    lim__list_remove(&c->node);
    count_waiting(g, c, -1);
    c->state = CLAIM_LEASED;
    c->member = m;
    c->since_ns = lim_now_ns(g->self);
    lim__list_push(&m->claims, &c->node);
    m->view.in_flight++;
    m->view.stamp = ++g->stamp;
    g->leased_count++;
    g->dispatched++;
    lim__letter_free(lim__proc_sched(g->self), c->want);
    c->want = NULL;
    send_assigned(g, c, lim__group_router_name(g));
}

static void note_fault(group *g, const lim__route_result *r)
{
    snprintf(g->last_fault, sizeof g->last_fault, "%s%s%.*s", lim__route_how_text(r->how), r->line != 0 ? " " : ": ",
             120, r->text);
    g->versions[0].faults++;
    LIM__EVENT(g->bus, g->self, "routing_fault", { "group", lim__bytes(g->name, g->name_len) },
               { "version", lim__str(g->versions[0].id) }, { "fault", lim__str(g->last_fault) });
}

static placing decide(group *g, claim *c, const lim__route_result *r, member *const *members, uint32_t n)
{
    member *m = NULL;
    switch (r->how) {
    case LIM__ROUTE_DECIDED:
        LIM_ASSERT(r->index < n);
        m = members[r->index];
        if (!has_place(m)) {
            c->member = m;
            return CHOSE_FULL;
        }
        lease(g, c, m);
        return PLACED;
    case LIM__ROUTE_NONE:
        return CHOSE_NONE;
    case LIM__ROUTE_CRASHED:
    case LIM__ROUTE_TIMED_OUT:
    case LIM__ROUTE_NOT_STARTED:
        note_fault(g, r);
        return FAULT;
    case LIM__ROUTE_PENDING:
        return PENDING;
    }
    return FAULT;
}

static placing run(group *g, lim__router *router, claim *c, uint32_t n)
{
    lim__route_msg msg = { .keep = c->want->payload };
    if (msg.keep != NULL) { /* a conversation that is only opened has nothing to say yet */
        msg.payload = lim__msg_bytes(msg.keep);
        msg.headers = lim__msg_headers(msg.keep);
    }
    lim__route_result result = { 0 };
    void *call = (void *)(uintptr_t)c->lease;
    lim__route_how how = lim__router_call(router, &msg, g->candidates, n, call, &result);
    if (how != LIM__ROUTE_PENDING)
        return decide(g, c, &result, g->candidate_members, n);
    c->state = CLAIM_ROUTING;
    lim__list_remove(&c->node);
    lim__list_push(&g->routing, &c->node);
    go_on(g);
    return PENDING;
}

static placing after_fault(group *g, claim *c, uint32_t n)
{
    lim__router *other = g->on_fault == LIM_ON_FAULT_PREVIOUS       ? g->previous
                         : g->on_fault == LIM_ON_FAULT_LEAST_LOADED ? g->fallback
                                                                    : NULL;
    if (other == NULL || other == g->router || c->fell_back)
        return FAULT;
    c->fell_back = true;
    return run(g, other, c, n);
}

static placing try_place(group *g, claim *c)
{
    bool any_free;
    uint32_t n = candidates(g, c->want, &any_free);
    if (n == 0)
        return NOBODY;
    if (!any_free)
        return ALL_FULL;
    c->fell_back = false;
    placing p = run(g, g->router, c, n);
    return p == FAULT ? after_fault(g, c, n) : p;
}

/* What becomes of a claim that was not placed. False: it is gone. */
static bool not_placed(group *g, claim *c, placing p)
{
    if (is_task(c)) {
        if (p == CHOSE_FULL)
            move_to(g, c, &c->member->parked);
        else if (p == CHOSE_NONE)
            move_to(g, c, &g->undecided);
        else if (p == NOBODY)
            move_to(g, c, &g->unserved); /* else it stays where it is: in line */
        if (p == NOBODY && c->want->shun_count > 0) {
            c->want->shun_count = 0; /* those that did not take it are all there are: they get another chance */
            retry_later(g);
        }
        if (p == FAULT)
            retry_later(g);
        return true;
    }
    lim_why why = LIM_WHY_NONE;
    const char *detail = "";
    uint32_t limit = 0;
    if (p == NOBODY && !c->want->wait) {
        why = LIM_WHY_NO_PARTICIPANT;
        detail = g->serve_count == 0 ? "nobody serves this group" : "nobody in this group serves this type";
    } else if (p == CHOSE_NONE) {
        why = LIM_WHY_NO_PARTICIPANT;
        detail = "the router chose none";
    } else if (p == CHOSE_FULL) {
        why = LIM_WHY_NO_PARTICIPANT;
        detail = "the router chose one that is full";
    } else if (p == FAULT) {
        why = LIM_WHY_ROUTING_FAULT;
        detail = g->last_fault;
    } else if (g->ask_count > LIM__GROUP_BACKLOG_MAX) {
        why = LIM_WHY_BACKLOG_FULL;
        limit = LIM__GROUP_BACKLOG_MAX;
        detail = "everybody in the group is full, and so is its backlog";
    }
    if (why == LIM_WHY_NONE)
        return true;
    lim__group_refuse(g, c->conv, why, limit, limit != 0 ? g->ask_count - 1 : 0, detail);
    lim__group_unclaim(g, c, true);
    return false;
}

/* ---- the one wake path ---- */

/* Types that nobody has a place for, as seen in one look along a line. */
typedef struct blocked {
    const claim *first[BLOCKED_MAX];
    uint32_t count;
} blocked;

static bool is_blocked(const blocked *b, const claim *c)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (lim__bytes_eq(want_type(b->first[i]->want), want_type(c->want)))
            return true;
    return false;
}

static void block(blocked *b, const claim *c)
{
    if (c->want->shun_count == 0 && b->count < BLOCKED_MAX) /* others of its type may have what it shuns */
        b->first[b->count++] = c;
}

static bool any_place(const group *g)
{
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (m->pid.id != 0 && has_place(m))
            return true;
    }
    return false;
}

/* Tries those in line that come after `order`. False: it was too much for one turn; *order is how far it went. */
static bool dispatch_line(group *g, lim__list *line, uint32_t tries_max, uint32_t looks_max, int64_t *order)
{
    int64_t after = *order;
    uint32_t tried = 0, looked = 0;
    blocked types = { .count = 0 };
    LIM__LIST_EACH_SAFE(node, tmp, line) {
        claim *c = LIM_CONTAINER(node, claim, node);
        if (c->order <= after)
            continue;
        if (tried == tries_max || ++looked > looks_max)
            return false;
        *order = c->order;
        if (is_blocked(&types, c))
            continue;
        tried++;
        placing p = try_place(g, c);
        if (p == PLACED || p == PENDING || !not_placed(g, c, p) || p != ALL_FULL)
            continue;
        if (types.count == 0 && !g->left && !any_place(g))
            return true; /* nobody behind it can do better */
        block(&types, c);
    }
    return true;
}

static void back_in_line(group *g, lim__list *from, uint32_t max)
{
    for (uint32_t n = 0; !lim__list_empty(from) && n < max; n++) {
        claim *c = LIM_CONTAINER(lim__list_pop(from), claim, node);
        c->member = NULL;
        wait_in(g, c, &g->tasks);
    }
}

/* Back in line: as many of those that the router meant for one who was full as that one has places now. */
static bool unpark_ready(group *g)
{
    bool any = false;
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (lim__list_empty(&m->parked) || m->pid.id == 0 || !has_place(m))
            continue;
        back_in_line(g, &m->parked, m->view.max_in_flight - m->view.in_flight);
        any = true;
    }
    return any;
}

void lim__group_dispatch(group *g)
{
    int64_t order = INT64_MIN;
    dispatch_line(g, &g->asks, UINT32_MAX, UINT32_MAX, &order); /* their backlog is short */
    do {
        order = INT64_MIN;
        if (dispatch_line(g, &g->tasks, TRIES_MAX, LOOKS_MAX, &order))
            continue;
        if (g->scanning) {
            g->rescan = true;
        } else {
            g->scanning = true;
            g->scan_after = order;
            go_on(g);
        }
    } while (unpark_ready(g)); /* ends: places do not appear meanwhile, so fewer are parked with those that have one */
    g->left = false;
}

/* The rest of a line that was too long for one turn. What changed behind our back is looked at a little later. */
static void scan_on(group *g)
{
    g->scanning = !dispatch_line(g, &g->tasks, TRIES_MAX, LOOKS_ON_MAX, &g->scan_after);
    if (g->scanning || !g->rescan)
        return;
    g->rescan = false;
    retry_later(g);
}

void lim__group_unpark(group *g, member *m, bool all)
{
    back_in_line(g, m != NULL ? &m->parked : &g->undecided, all ? UINT32_MAX : 8);
    if (m == NULL && all)
        back_in_line(g, &g->unserved, UINT32_MAX);
    else if (m == NULL && !lim__list_empty(&g->undecided))
        retry_later(g); /* the others' turn comes too, though perhaps nothing else will change */
}

void lim__group_want(group *g, const lim_signal *signal)
{
    lim__sched *s = lim__proc_sched(g->self);
    lim__want *w = lim__letter_keep(g->self, signal);
    if (w->kind == LIM__KIND_TASK && !w->again && g->task_count >= LIM__GROUP_QUEUE_MAX) {
        lim__group_refuse(g, w->conv, LIM_WHY_QUEUE_FULL, LIM__GROUP_QUEUE_MAX, g->task_count,
                          "the queue is at its limit");
        lim__letter_free(s, w);
        return;
    }
    claim *c = lim__alloc(s, sizeof *c);
    if (c != NULL)
        *c = (claim){ .conv = w->conv, .want = w, .state = CLAIM_WAITING, .since_ns = lim_now_ns(g->self) };
    if (c == NULL || lim_monitor(g->self, w->conv, &c->lease) != LIM_OK ||
        lim__map_put(&g->watched, c->lease, c) != LIM_OK) {
        lim__group_refuse(g, w->conv, LIM_WHY_MEMORY, 0, 0, "out of memory");
        if (c != NULL && c->lease != 0)
            lim_demonitor(g->self, c->lease);
        if (c != NULL)
            lim__free(s, c, sizeof *c);
        lim__letter_free(s, w);
        return;
    }
    c->order = w->again ? --g->front : ++g->back;
    bool task = is_task(c), again = w->again;
    wait_in(g, c, NULL);
    count_waiting(g, c, 1);
    placing p = try_place(g, c); /* those in line before it cannot have what it could have: G4 */
    if (p == PLACED)
        return;
    if (p != PENDING && !not_placed(g, c, p))
        return;
    if (task && !again)
        send_queued(g, c);
}

void lim__group_unclaim(group *g, claim *c, bool demonitor)
{
    lim__sched *s = lim__proc_sched(g->self);
    member *m = c->state == CLAIM_LEASED ? c->member : NULL;
    lim__list_remove(&c->node);
    lim__map_remove(&g->watched, c->lease);
    if (demonitor)
        lim_demonitor(g->self, c->lease);
    if (m == NULL) {
        count_waiting(g, c, -1);
        lim__letter_free(s, c->want);
    } else {
        uint64_t took_us = (lim_now_ns(g->self) - c->since_ns) / 1000;
        uint32_t us = took_us > UINT32_MAX ? UINT32_MAX : (uint32_t)took_us;
        m->view.latency_us = m->completed++ == 0 ? us : (uint32_t)(((uint64_t)m->view.latency_us * 7 + us) / 8);
        m->view.in_flight--;
        m->view.stamp = ++g->stamp;
        g->leased_count--;
    }
    lim__free(s, c, sizeof *c);
    if (m == NULL)
        return;
    if (m->pid.id == 0 && lim__list_empty(&m->claims)) {
        lim__member_free(g, m);
    }
    lim__group_unpark(g, NULL, false);
}

/* ---- unfinished calls ---- */

void lim__group_route_done(void *ctx, void *call_ctx, const lim__route_result *result)
{
    group *g = ctx;
    watched *w = lim__map_get(&g->watched, (uint64_t)(uintptr_t)call_ctx);
    if (w == NULL || w->is_member)
        return; /* whoever wanted it has ended meanwhile */
    claim *c = (claim *)(void *)w;
    LIM_ASSERT(c->state == CLAIM_ROUTING);
    lim__list_remove(&c->node);
    wait_in(g, c, NULL);
    lim__route_result r = *result;
    bool any_free;
    uint32_t n = candidates(g, c->want, &any_free);
    if (r.how == LIM__ROUTE_DECIDED) { /* the candidates may be others by now */
        for (r.index = 0; r.index < n && g->candidates[r.index]->id != r.id; r.index++)
            continue;
        if (r.index == n) {
            retry_later(g);
            return;
        }
    }
    placing p = decide(g, c, &r, g->candidate_members, n);
    if (p == FAULT && n > 0)
        p = after_fault(g, c, n);
    if (p != PLACED && p != PENDING)
        not_placed(g, c, p);
}

static uint32_t unfinished(const group *g)
{
    uint32_t n = lim__router_pending(g->router) + (g->previous != NULL ? lim__router_pending(g->previous) : 0);
    for (uint32_t i = 0; i < g->draining_count; i++)
        n += lim__router_pending(g->draining[i]);
    return n;
}

void lim__group_resume(group *g)
{
    if (lim__router_pending(g->router) > 0)
        lim__router_resume(g->router);
    if (g->previous != NULL && lim__router_pending(g->previous) > 0)
        lim__router_resume(g->previous);
    for (uint32_t i = 0; i < g->draining_count;) {
        lim__router *r = g->draining[i];
        if (lim__router_resume(r) > 0) {
            i++;
        } else {
            g->draining[i] = g->draining[--g->draining_count];
            lim__router_unref(r);
        }
    }
    if (g->scanning)
        scan_on(g);
    g->resuming = false;
    if (g->scanning || unfinished(g) > 0) /* counted now: a call that failed may have begun another one */
        go_on(g);
}

/* ---- the slot ---- */

const char *lim__group_router_name(const group *g)
{
    return g->versions[0].id;
}

static lim_err router_open(group *g, lim__artifact *artifact, const lim_deploy_opts *o, lim_diag *diag,
                           lim__router **out)
{
    lim__router_opts opts = { .sched = lim__proc_sched(g->self),
                              .os = g->bus->os,
                              .artifact = artifact,
                              .counter = &g->counter,
                              .seed = g->bus->os->random(g->bus->os),
                              .instruction_ns = lim__bus_instruction_ns(g->bus),
                              .limits = { .cpu_ns = o->cpu_us_max * 1000ull,
                                          .wall_ns = o->wall_ms_max * 1000000ull,
                                          .unfinished_max = o->unfinished_max,
                                          .memory_max = o->memory_bytes_max },
                              .on_done = lim__group_route_done,
                              .ctx = g };
    return lim__router_open(&opts, diag, out);
}

static void version_push(group *g, const lim__artifact *a)
{
    if (g->version_count > 0) {
        lim__router_stats stats;
        lim__router_stats_get(g->router, &stats);
        g->versions[0].calls = stats.calls;
        g->versions[0].decided = stats.decided;
        g->versions[0].faults = stats.crashed + stats.timed_out + stats.not_started;
    }
    uint32_t keep = g->version_count < LIM__GROUP_VERSIONS_KEPT ? g->version_count : LIM__GROUP_VERSIONS_KEPT - 1;
    memmove(g->versions + 1, g->versions, keep * sizeof g->versions[0]);
    version *v = &g->versions[0];
    *v = (version){ .engine = a->engine, .deployed_wall_ns = g->bus->os->wall_ns(g->bus->os) };
    if (a->engine == LIM__ENGINE_BUILTIN)
        snprintf(v->id, sizeof v->id, "%.*s", (int)(a->bytes.len < 30 ? a->bytes.len : 30), (const char *)a->bytes.ptr);
    else
        snprintf(v->id, sizeof v->id, "%s", a->id);
    snprintf(v->name, sizeof v->name, "%s", a->name);
    g->version_count = keep + 1;
}

lim_err lim__group_router_init(group *g)
{
    static const char name[] = "least_loaded";
    lim__artifact *a = NULL;
    lim_err err = lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str(name), name, 0, &a);
    if (err != LIM_OK)
        return err;
    err = router_open(g, a, &(lim_deploy_opts){ 0 }, NULL, &g->fallback);
    if (err == LIM_OK) {
        g->router = lim__router_ref(g->fallback);
        version_push(g, a);
        g->on_fault = LIM_ON_FAULT_REJECT;
    }
    lim__artifact_unref(a);
    return err;
}

static void let_drain(group *g, lim__router *r)
{
    if (r == NULL)
        return;
    if (r != g->fallback && lim__router_pending(r) > 0)
        g->draining[g->draining_count++] = r;
    else
        lim__router_unref(r);
}

void lim__group_router_fini(group *g)
{
    lim__router *all[3] = { g->router, g->previous, g->fallback };
    for (uint32_t i = 0; i < g->draining_count; i++) {
        lim__router_abandon(g->draining[i]);
        lim__router_unref(g->draining[i]);
    }
    for (uint32_t i = 0; i < 3; i++)
        if (all[i] != NULL) {
            lim__router_abandon(all[i]);
            lim__router_unref(all[i]);
        }
}

lim_err lim__group_deploy(group *g, const lim__deploy *d, lim_diag *diag, bool *had, lim_hash *previous)
{
    lim__router *fresh = NULL;
    if (g->draining_count == LIM__GROUP_VERSIONS_KEPT) {
        lim__diag_set(diag, 0, 0, "%u earlier versions still have unfinished calls; deploy again when they have ended",
                      g->draining_count);
        return LIM_E_FULL;
    }
    lim_err err = router_open(g, d->artifact, &d->opts, diag, &fresh);
    if (err != LIM_OK)
        return err;
    *had = g->deployed;
    memcpy(previous->b, lim__router_artifact(g->router)->hash, sizeof previous->b);
    version_push(g, d->artifact);
    let_drain(g, g->previous);
    g->previous = g->router;
    g->router = fresh; /* the swap: whatever is decided from here on is decided by the new one */
    g->on_fault = d->opts.on_fault != 0 ? d->opts.on_fault : LIM_ON_FAULT_REJECT;
    g->deployed = true;
    LIM__EVENT(g->bus, g->self, "deploy", { "group", lim__bytes(g->name, g->name_len) },
               { "version", lim__str(g->versions[0].id) },
               { "previous", lim__str(g->version_count > 1 ? g->versions[1].id : "") });
    lim__group_unpark(g, NULL, true);
    LIM__LIST_EACH(node, &g->members)
        lim__group_unpark(g, LIM_CONTAINER(node, member, node), true);
    lim__group_dispatch(g);
    return LIM_OK;
}
