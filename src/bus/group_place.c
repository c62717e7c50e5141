/* SPDX-License-Identifier: Apache-2.0
 * group_place.c - who gets what: routing decisions, and the one wake path.
 *
 *   waiting --> try: are there candidates? is one free? --> router --> lease: `assigned`
 *                |  no candidates            -> asks: refused (or wait); tasks: their type waits in the line
 *                |  all full                 -> wait (asks: at most LIM__GROUP_BACKLOG_MAX)
 *                |  router: nobody           -> asks: refused; tasks: `undecided`, tried again when anything changes
 *                |  router: one who is full  -> asks: refused; tasks: parked with that one until it has a place
 *                |  router: crashed, too slow-> the slot's on-fault rule
 *                `  router: not finished     -> `routing`, resumed slice by slice
 *
 * A native function decides about several together, which is cheaper by far: asks wait for a resume letter behind what
 * has come in this turn, tasks are as many as the line has. All of them are decided by how the candidates were before
 * any was placed, at most as many as there are free places; one whose choice was taken by another of them meanwhile is
 * decided again, on its own. When as many are under way as may be, and none is known to take long, all others wait
 * until these are answered: a helper that has no processor just now is no reason to refuse anybody.
 *
 * Invariants (group_check):
 *   G1  a claim is where its state says: group.h has the picture.
 *   G2  view.in_flight of a member is the number of its leases, and what it says it does for others.
 *   G3  in_flight never exceeds capacity by a decision made here.
 *   G4  when a signal has been dealt with, no task is READY that a free candidate could have, unless the queue is
 * paused, a resume letter is on its way, or the slot is busy, whose answers bring one.
 *   G5  view.buffer_depth of a member is how many claims are parked for it. */
#include "bus/group.h"
#include "base/base.h"
#include <stdio.h>

/* One turn's worth of tasks. */
#ifdef LIM_HOSTILE
enum { TRIES_MAX = 2 };
#else
enum { TRIES_MAX = 256 };
#endif

typedef enum placing { PLACED = 1, PENDING, NOBODY, ALL_FULL, CHOSE_NONE, CHOSE_FULL, FAULT } placing;

/* Of the group nobody else will do. */
static bool only_one(const lim__want *w)
{
    return w->kind != LIM__KIND_TASK && w->only.id != 0;
}

static bool shuns(const lim__want *w, const member *m)
{
    for (uint32_t i = 0; i < w->shun_count; i++)
        if (w->shun[i].id == m->pid.id)
            return true;
    return false;
}

static uint32_t candidates(group *g, const lim__want *w, bool *any_free)
{
    uint32_t n = 0;
    bool tasks = w->kind == LIM__KIND_TASK;
    *any_free = false;
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (!lim__member_serves(m, tasks, lim__want_type(w)) || shuns(w, m) || (only_one(w) && w->only.id != m->pid.id))
            continue;
        LIM_ASSERT(n < g->candidate_cap);
        g->candidates[n] = &m->view;
        g->candidate_members[n++] = m;
        *any_free |= lim__member_has_place(m);
    }
    return n;
}

static void send_assigned(group *g, claim *c, const char *router)
{
    const member *m = c->lease.member;
    size_t router_len = strlen(router);
    lim__sched *s = lim__proc_sched(g->self);
    lim__assigned *a = lim__letter_new(s, &lim__type_assigned, sizeof *a + m->view.name.len + router_len);
    if (a == NULL) {
        lim_exit_process(g->self, c->conv, LIM_KILL); /* it must not wait for ever: its owner is told by the link */
        return;
    }
    *a = (lim__assigned){ .participant = m->pid,
                          .lease = c->lease.id,
                          .policy = lim__group_policy(g),
                          .remember_ns = g->config.remember_ns,
                          .wish = c->wish,
                          .member_kind = (uint8_t)m->join->kind,
                          .identity_len = (uint8_t)m->view.name.len,
                          .router_len = (uint8_t)router_len };
    memcpy(a->session, m->join->session, sizeof a->session);
    memcpy(a->text, m->view.name.ptr, m->view.name.len);
    memcpy(a->text + m->view.name.len, router, router_len);
    (void)!lim__send_reserved(g->self, c->conv, a);
}

/* ---- later ---- */

void lim__group_retry_later(group *g)
{
    if (g->retry_timer == 0)
        (void)!lim_timer_start(g->self, LIM__GROUP_RETRY_MS * 1000000ull, LIM__GROUP_TAG_RETRY, &g->retry_timer);
}

/* For want of memory a little after that. */
void lim__group_go_on(group *g)
{
    if (g->resuming)
        return;
    void *again = lim__letter_new(lim__proc_sched(g->self), &lim__type_resume, 0);
    g->resuming = again != NULL && lim__send_reserved(g->self, lim_self(g->self), again) == LIM_OK;
    if (!g->resuming)
        lim__group_retry_later(g);
}

/* A slice of a call that takes long comes in the next turn, once: whatever else is to be done in this one goes before,
 * and an exchange that takes six steps does not wait for six slices. */
void lim__group_go_on_slowly(group *g)
{
    uint64_t timer;
    if (g->resuming)
        return;
    g->resuming = lim_timer_start(g->self, 0, LIM__GROUP_TAG_SLICE, &timer) == LIM_OK;
    if (!g->resuming)
        lim__group_retry_later(g);
}

/* The line changes by time alone, too: delays end, rates give tokens. */
static void watch_line(group *g)
{
    uint64_t due = lim__line_due(&g->line), now = lim_now_ns(g->self);
    if (g->line_timer != 0 && g->line_due_ns <= due)
        return; /* it comes early enough, and looks again */
    if (g->line_timer != 0)
        lim_timer_cancel(g->self, g->line_timer);
    g->line_timer = 0;
    g->line_due_ns = due;
    if (due != LIM__LINE_NEVER &&
        lim_timer_start(g->self, due > now ? due - now : 0, LIM__GROUP_TAG_LINE, &g->line_timer) != LIM_OK)
        lim__group_retry_later(g);
}

/* ---- deciding ---- */

/* `router`: the version that answered. */
static placing decide(group *g, claim *c, const lim__route_result *r, const char *router, uint32_t n)
{
    member *m = NULL;
    switch (r->how) {
    case LIM__ROUTE_DECIDED:
        LIM_ASSERT(r->index < n);
        m = g->candidate_members[r->index];
        if (!lim__member_has_place(m)) {
            c->member = m;
            return CHOSE_FULL;
        }
        if (c->is_task && lim__claim_task(c)->item.state == LIM__ITEM_HELD)
            lim__line_unhold(&g->line, &lim__claim_task(c)->item);
        lim__claim_lease(g, c, m);
        send_assigned(g, c, router);
        return PLACED;
    case LIM__ROUTE_NONE:
        return CHOSE_NONE;
    case LIM__ROUTE_CRASHED:
    case LIM__ROUTE_TIMED_OUT:
    case LIM__ROUTE_NOT_STARTED:
        return FAULT;
    case LIM__ROUTE_PENDING:
        lim__claim_routing(g, c);
        if (g->slot.batch == NULL) /* else whoever began it sees to that */
            lim__group_go_on_slowly(g);
        return PENDING;
    }
    return FAULT;
}

static lim__route_msg message_of(const claim *c)
{
    lim__route_msg msg = { .keep = c->want->payload };
    if (msg.keep != NULL) { /* a conversation that is only opened has nothing to say yet */
        msg.payload = lim__msg_bytes(msg.keep);
        msg.headers = lim__msg_headers(msg.keep);
    }
    return msg;
}

static void *call_of(const claim *c)
{
    return (void *)(uintptr_t)c->monitor;
}

/* `v` failed to decide. */
static placing after_fault(group *g, claim *c, const lim__version *v, uint32_t n)
{
    lim__route_msg msg = message_of(c);
    lim__route_result r = { 0 };
    lim__version *by;
    if (c->fell_back || !lim__slot_call_other(&g->slot, v, &msg, g->candidates, n, call_of(c), &r, &r.how, &by))
        return FAULT;
    c->fell_back = true;
    return decide(g, c, &r, by != NULL ? by->id : "least_loaded", n);
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
    c->asked = (uint32_t)g->dispatched;
    if (only_one(c->want)) /* there is nothing to choose */
        return decide(g, c, &(lim__route_result){ .how = LIM__ROUTE_DECIDED }, lim__group_router_name(g), n);
    lim__route_msg msg = message_of(c);
    lim__route_result r = { 0 };
    lim__version *by;
    r.how = lim__slot_call(&g->slot, &msg, g->candidates, n, c->conv.id, call_of(c), &r, &by);
    placing p = decide(g, c, &r, by->id, n);
    return p == FAULT ? after_fault(g, c, by, n) : p;
}

/* What becomes of a task that was not placed. False: nobody of its type can be next in this pass. */
static bool task_not_placed(group *g, claim *c, placing p)
{
    lim__want *w = c->want;
    switch (p) {
    case CHOSE_FULL:
        lim__claim_hold(g, c, c->member);
        return true;
    case CHOSE_NONE:
        lim__claim_hold(g, c, NULL);
        return true;
    case FAULT:
        lim__claim_hold(g, c, NULL);
        lim__group_retry_later(g);
        return true;
    case NOBODY:
        if (w->shun_count == 0)
            return false;
        c->unheard = true;
        w->shun_count = 0; /* those that did not take it are all there are: they get another chance */
        lim__claim_hold(g, c, NULL);
        lim__group_retry_later(g);
        return true;
    case ALL_FULL:
        if (w->shun_count == 0)
            return false;
        lim__claim_hold(g, c, NULL); /* others of its type may have whom it shuns */
        return true;
    case PLACED:
    case PENDING:
        return true;
    }
    return true;
}

/* Likewise an ask: it waits, or it is refused and gone. */
static void ask_not_placed(group *g, claim *c, placing p)
{
    lim_why why = LIM_WHY_NO_PARTICIPANT;
    const char *detail = "";
    uint32_t limit = 0;
    if (p == NOBODY && only_one(c->want)) {
        detail = "it does not serve this group any more";
    } else if (p == NOBODY && !c->want->wait) {
        detail = g->serve_count == 0 ? "nobody serves this group" : "nobody in this group serves this type";
    } else if (p == CHOSE_NONE) {
        detail = "the router chose none";
    } else if (p == CHOSE_FULL) {
        detail = "the router chose one that is full";
    } else if (p == FAULT) {
        why = LIM_WHY_ROUTING_FAULT;
        detail = g->slot.last_fault;
    } else if (g->ask_count > LIM__GROUP_BACKLOG_MAX) {
        why = LIM_WHY_BACKLOG_FULL;
        limit = LIM__GROUP_BACKLOG_MAX;
        detail = "everybody in the group is full, and so is its backlog";
    } else {
        return;
    }
    lim__group_refuse(g, c->conv, why, limit, limit != 0 ? g->ask_count - 1 : 0, detail);
    lim__claim_end(g, c, true);
}

static void not_placed(group *g, claim *c, placing p)
{
    if (!c->is_task)
        ask_not_placed(g, c, p);
    else
        (void)task_not_placed(g, c, p);
}

/* ---- the one wake path ---- */

static bool any_place(const group *g, bool tasks)
{
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (m->pid.id != 0 && !m->draining && (m->join->kind == LIM__MEMBER_WORK) == tasks && lim__member_has_place(m))
            return true;
    }
    return false;
}

/* How many may be decided together; 0: one by one. */
static uint32_t batch_of(const group *g, bool tasks)
{
    uint32_t room = lim__slot_batch_room(&g->slot), places = 0;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (places >= room)
            break;
        if (m->pid.id == 0 || m->draining || (m->join->kind == LIM__MEMBER_WORK) != tasks || !lim__member_has_place(m))
            continue;
        uint32_t free = m->view.max_in_flight - m->view.in_flight;
        places += free < room ? free : room;
    }
    places = places < room ? places : room;
    return places > 1 ? places : 0;
}

static void end_batch(group *g)
{
    lim__slot_batch_end(&g->slot);
    if (lim__slot_runnable(&g->slot))
        lim__group_go_on_slowly(g);
}

/* Asks: first come, first served; their backlog is short. Those of a type that nobody has a place for are passed by. */
static void dispatch_asks(group *g)
{
    uint32_t batch = g->asks.next->next != &g->asks ? batch_of(g, false) : 0, left = batch;
    if (batch > 0)
        lim__slot_batch_begin(&g->slot);
    LIM__LIST_EACH_SAFE(node, tmp, &g->asks) {
        claim *c = LIM_CONTAINER(node, claim, node);
        if (batch > 0 && left-- == 0) {
            lim__group_go_on(g);
            break;
        }
        if (batch == 0 && lim__slot_busy(&g->slot))
            break; /* since this pass began */
        c->together = batch > 0 || lim__slot_batch_room(&g->slot) > 0;
        placing p = try_place(g, c);
        if (p == PLACED || p == PENDING)
            continue;
        if (p == ALL_FULL && !any_place(g, false) && g->ask_count <= LIM__GROUP_BACKLOG_MAX)
            break; /* nobody behind it can do better */
        ask_not_placed(g, c, p);
    }
    if (batch > 0)
        end_batch(g);
}

static bool can_have(void *ctx, lim_bytes type)
{
    const group *g = ctx;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        if (lim__member_serves(m, true, type) && lim__member_has_place(m))
            return true;
    }
    return false;
}

static claim *claim_of(lim__item *i)
{
    return &LIM_CONTAINER(i, task, item)->claim;
}

/* Back in line: as many of those that the router meant for one who was full as that one has places now. */
static bool unpark_ready(group *g)
{
    bool any = false;
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (lim__list_empty(&m->parked) || m->pid.id == 0 || !lim__member_has_place(m))
            continue;
        for (uint32_t n = m->view.max_in_flight - m->view.in_flight; n > 0 && !lim__list_empty(&m->parked); n--)
            lim__claim_wait(g, LIM_CONTAINER(m->parked.next, claim, node));
        any = true;
    }
    return any;
}

/* True: there may be more of them. */
static bool dispatch_some(group *g, uint32_t *tries, uint64_t now, uint32_t batch)
{
    uint32_t max = batch > 0 && batch < TRIES_MAX - *tries ? *tries + batch : TRIES_MAX;
    lim__item *i;
    if (batch > 0)
        lim__slot_batch_begin(&g->slot);
    lim__line_begin(&g->line);
    while (*tries < max && (batch > 0 || !lim__slot_busy(&g->slot)) &&
           (i = lim__line_next(&g->line, now, can_have, g)) != NULL) {
        claim *c = claim_of(i);
        c->together = batch > 0 || lim__slot_batch_room(&g->slot) > 0;
        placing p = try_place(g, c);
        ++*tries;
        if (p != PLACED && p != PENDING && !task_not_placed(g, c, p))
            lim__line_block(&g->line, i);
    }
    if (batch > 0)
        end_batch(g);
    return *tries == max;
}

static void dispatch_tasks(group *g)
{
    uint64_t now = lim_now_ns(g->self);
    uint32_t tries = 0;
    g->more = lim__line_wake(&g->line, now);
    if (g->paused || g->purge_upto != 0 || !any_place(g, true) || lim__slot_busy(&g->slot))
        return;
    do {
        if (dispatch_some(g, &tries, now, lim__group_queued(g) > 1 ? batch_of(g, true) : 0)) {
            g->more = true;
            return;
        }
    } while (unpark_ready(g)); /* ends: places do not appear meanwhile, so fewer are parked with those that have one */
}

/* All but as many as may wait. */
static void refuse_latest(group *g)
{
    while (g->ask_count > LIM__GROUP_BACKLOG_MAX && !lim__list_empty(&g->asks)) {
        claim *c = LIM_CONTAINER(g->asks.prev, claim, node);
        lim__group_refuse(g, c->conv, LIM_WHY_BACKLOG_FULL, LIM__GROUP_BACKLOG_MAX, g->ask_count - 1,
                          "the router is busy, and the group's backlog is full");
        lim__claim_end(g, c, true);
    }
}

void lim__group_dispatch(group *g)
{
    if (!lim__list_empty(&g->asks)) {
        if (lim__slot_busy(&g->slot))
            refuse_latest(g);
        else if (!g->together && lim__slot_batch_room(&g->slot) > 1)
            lim__group_go_on(g); /* with those that come meanwhile */
        else
            dispatch_asks(g);
    }
    if (lim__group_queued(g) > 0)
        dispatch_tasks(g);
    if (g->more)
        lim__group_go_on(g);
    watch_line(g);
}

static void back(group *g, lim__list *from, uint32_t max)
{
    for (uint32_t n = 0; !lim__list_empty(from) && n < max; n++)
        lim__claim_wait(g, LIM_CONTAINER(from->next, claim, node));
}

void lim__group_unpark(group *g, member *m, bool all)
{
    back(g, m != NULL ? &m->parked : &g->undecided, all ? UINT32_MAX : 8);
    if (m == NULL && !all && !lim__list_empty(&g->undecided))
        lim__group_retry_later(g); /* the others' turn comes too, though perhaps nothing else will change */
}

/* ---- unfinished calls ---- */

/* It had a place when the router was asked about `c`: somebody else was given it meanwhile. */
static bool taken_since(const claim *c, const member *m)
{
    return !lim__member_has_place(m) && (int32_t)(m->given - c->asked) > 0;
}

void lim__group_route_done(void *owner, void *call_ctx, lim__version *v, const lim__route_result *result)
{
    group *g = owner;
    watched *w = lim__map_get(&g->watched, (uint64_t)(uintptr_t)call_ctx);
    if (w == NULL || w->is_member)
        return; /* whoever wanted it has ended meanwhile */
    claim *c = (claim *)(void *)w;
    if (c->state != CLAIM_ROUTING)
        return; /* or does not want it any more */
    lim__claim_wait(g, c);
    lim__route_result r = *result;
    bool any_free;
    uint32_t n = candidates(g, c->want, &any_free);
    if (r.how == LIM__ROUTE_DECIDED) { /* the candidates may be others by now */
        for (r.index = 0; r.index < n && g->candidates[r.index]->id != r.id; r.index++)
            continue;
        if (r.index == n) {
            lim__group_retry_later(g);
            return;
        }
    }
    if (c->is_task && (g->paused || lim__line_state(&g->line, &lim__claim_task(c)->item) != LIM__ITEM_READY))
        return; /* meanwhile the queue was paused, or its key came to its limit: it is decided again */
    bool again = c->together && r.how == LIM__ROUTE_DECIDED && taken_since(c, g->candidate_members[r.index]);
    placing p = again ? try_place(g, c) : decide(g, c, &r, v->id, n);
    if (p == FAULT && n > 0 && !again)
        p = after_fault(g, c, v, n);
    if (p != PLACED && p != PENDING)
        not_placed(g, c, p);
}
