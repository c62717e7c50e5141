/* SPDX-License-Identifier: Apache-2.0
 * group_claim.c - what conversations want of a group, from the first wish to the end of the conversation.
 *
 * A claim is made by the first `want` of a conversation and ends with it: its monitor is the one place where all that
 * the conversation holds here is given back, however it ends. In between it waits, is leased, rests and wants again.
 * A task's claim has an item in the line, and the item lives as long as the claim: while a task is out, or between two
 * wishes, its order key is taken and its fairness key's place is used. So there is no counter that could leak.
 * An ask's claim is less: it ends with its lease, and the next wish makes another one, at the front.
 *
 * A lease that its member may come back for is *old*: it keeps the member's place while the task is offered to others.
 *
 * Invariants (group_check, with those of group_place.c):
 *
 *   K1  a claim is in g->watched under its monitor, from want to end; a task's also in g->claims.
 *   K2  claim->lease.id != 0 exactly in state LEASED; old leases have a member each, and are in that one's list.
 *   K3  a task's item is OUT exactly in states LEASED and RESTING. One that rests and could not be taken out, because
 *       another of its order key was, is not in the line (NONE).
 *   K4  g->unique holds exactly the living tasks with a unique key that came first. */
#include "bus/group.h"
#include "base/base.h"
#include "bus/agent.h"
#include <stdlib.h>

/* ---- leases ---- */

static void lease_worked(group *g, const lease *l)
{
    member *m = l->member;
    uint64_t took_us = (lim_now_ns(g->self) - l->since_ns) / 1000;
    uint32_t us = took_us > UINT32_MAX ? UINT32_MAX : (uint32_t)took_us;
    m->view.latency_us = m->completed++ == 0 ? us : (uint32_t)(((uint64_t)m->view.latency_us * 7 + us) / 8);
    m->seen_ns = lim_now_ns(g->self);
}

static void lease_end(group *g, lease *l, bool worked)
{
    member *m = l->member;
    if (worked)
        lease_worked(g, l);
    m->view.in_flight--;
    m->view.stamp = ++g->stamp;
    g->leased_count--;
    lim__list_remove(&l->node);
    l->id = 0;
    if (m->pid.id == 0 && lim__list_empty(&m->leases))
        lim__member_free(g, m);
}

static void old_end(group *g, lease **at)
{
    lease *l = *at;
    *at = l->next;
    lease_end(g, l, l->member->pid.id != 0); /* else it is away, and others do it */
    lim__free(lim__proc_sched(g->self), l, sizeof *l);
}

/* The current lease becomes an old one: its member keeps its place until it comes back, or its conversation has done
 * with it. For want of memory it is over; and if its member is back and has not spoken for it. */
static void suspend(group *g, claim *c)
{
    if (c->lease.id == 0)
        return;
    if (c->lease.member->settled && !c->lease.spoken) {
        lease_end(g, &c->lease, false);
        return;
    }
    lease *l = lim__alloc(lim__proc_sched(g->self), sizeof *l);
    if (l == NULL) {
        lease_end(g, &c->lease, false);
        return;
    }
    *l = c->lease;
    l->next = c->old;
    c->old = l;
    lim__list_init(&l->node);
    lim__list_push(&c->lease.member->leases, &l->node);
    lim__list_remove(&c->lease.node);
    c->lease.id = 0;
}

void lim__leases_unspoken(group *g, member *m)
{
    for (lim__list *node = m->leases.next, *next; node != &m->leases; node = next) {
        lease *l = LIM_CONTAINER(node, lease, node), **at = &l->claim->old;
        next = node->next;
        while (*at != NULL && *at != l)
            at = &(*at)->next;
        if (l->spoken || *at == NULL)
            continue; /* a current one is its conversation's: it waits for the same grace */
        *at = l->next;
        lease_end(g, l, false);
        lim__free(lim__proc_sched(g->self), l, sizeof *l);
    }
}

/* It waits for one member, or not any more: functions see how many do. */
static void buffer(group *g, claim *c, member *m)
{
    member *was = c->state == CLAIM_HELD ? c->member : NULL;
    if (was != NULL) {
        was->view.buffer_depth--;
        was->view.stamp = ++g->stamp;
    }
    if (m != NULL) {
        m->view.buffer_depth++;
        m->view.stamp = ++g->stamp;
    }
    c->member = m;
}

void lim__claim_lease(group *g, claim *c, member *m)
{
    LIM_ASSERT(lim__member_has_place(m) && c->lease.id == 0);
    lim__list_remove(&c->node);
    buffer(g, c, NULL);
    if (c->is_task)
        lim__line_out(&g->line, &lim__claim_task(c)->item, lim_now_ns(g->self));
    else
        g->ask_count--;
    c->state = CLAIM_LEASED;
    c->unheard = false;
    /* Of an ask no other number is needed for the only one, unless it is to be known after a restart. */
    c->lease.id = c->is_task || c->kept ? lim__wait_ref(g->bus) : c->monitor;
    c->lease.member = m;
    c->lease.claim = c;
    c->lease.since_ns = lim_now_ns(g->self);
    c->lease.spoken = true;
    lim__list_push(&m->leases, &c->lease.node);
    m->view.in_flight++;
    m->view.stamp = ++g->stamp;
    g->leased_count++;
    m->given = (uint32_t)++g->dispatched;
    lim__letter_free(lim__proc_sched(g->self), c->want);
    c->want = NULL;
}

/* ---- waiting ---- */

/* Asks by their order: from the end, because most are the newest. */
static void insert(lim__list *line, claim *c)
{
    lim__list *after = line->prev;
    if (after != line && LIM_CONTAINER(line->next, claim, node)->order > c->order)
        after = line; /* back to the front: it was in line before */
    while (after != line && LIM_CONTAINER(after, claim, node)->order > c->order)
        after = after->prev;
    lim__list_push_front(after, &c->node);
}

void lim__claim_wait(group *g, claim *c)
{
    lim__list_remove(&c->node);
    buffer(g, c, NULL);
    c->state = CLAIM_WAITING;
    if (!c->is_task)
        insert(&g->asks, c);
    else if (lim__claim_task(c)->item.state == LIM__ITEM_HELD)
        lim__line_unhold(&g->line, &lim__claim_task(c)->item);
}

void lim__claim_hold(group *g, claim *c, member *m)
{
    LIM_ASSERT(c->is_task && c->state == CLAIM_WAITING);
    lim__line_hold(&g->line, &lim__claim_task(c)->item);
    buffer(g, c, m);
    c->state = CLAIM_HELD;
    lim__list_push(m != NULL ? &m->parked : &g->undecided, &c->node);
}

void lim__claim_routing(group *g, claim *c)
{
    if (c->is_task && lim__claim_task(c)->item.state == LIM__ITEM_READY)
        lim__line_hold(&g->line, &lim__claim_task(c)->item);
    lim__list_remove(&c->node);
    c->state = CLAIM_ROUTING;
    lim__list_push(&g->routing, &c->node);
}

uint32_t lim__group_queued(const group *g)
{
    return lim__line_count(&g->line, LIM__ITEM_NONE) - lim__line_count(&g->line, LIM__ITEM_OUT);
}

/* ---- answers ---- */

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
                         .retry_after_ms = limit != 0 ? LIM__GROUP_RETRY_MS : 0,
                         .detail_len = (uint16_t)len };
    memcpy(r->detail, detail, len);
    (void)!lim__send_reserved(g->self, conv, r);
}

static void send_queued(group *g, const claim *c)
{
    lim__queued *q = lim__letter_new(lim__proc_sched(g->self), &lim__type_queued, sizeof *q);
    if (q == NULL)
        return;
    uint32_t waiting = lim__group_queued(g);
    *q = (lim__queued){
        .admission = { .verdict = LIM_ACCEPT, .limit = g->config.limit, .current = waiting },
        .policy = lim__group_policy(g),
        .remember_ns = g->config.remember_ns,
    };
    if (waiting > g->config.high_water) {
        q->admission.verdict = LIM_DEFER;
        q->admission.why = LIM_WHY_QUEUE_FULL;
    } else if (g->paused) {
        q->admission.verdict = LIM_DEFER;
        q->admission.why = LIM_WHY_PAUSED;
    }
    (void)!lim__send_reserved(g->self, c->conv, q);
}

static lim__outcome_letter *outcome_copy(group *g, const lim__outcome_letter *o)
{
    size_t bytes = lim__outcome_bytes(o);
    lim__outcome_letter *copy = lim__letter_new(lim__proc_sched(g->self), &lim__type_outcome, bytes);
    if (copy == NULL)
        return NULL;
    memcpy(copy, o, bytes);
    copy->payload = lim__msg_ref(o->payload);
    return copy;
}

static void send_stands_for(group *g, lim_pid to, lim_pid other, bool durable, const lim__outcome_letter *outcome)
{
    lim__stands_for *s = lim__letter_new(lim__proc_sched(g->self), &lim__type_stands_for, sizeof *s);
    if (s != NULL)
        *s = (lim__stands_for){ .task = other, .durable = durable };
    if (s != NULL && outcome != NULL && (s->outcome = outcome_copy(g, outcome)) == NULL) {
        lim__letter_free(lim__proc_sched(g->self), s);
        s = NULL;
    }
    if (s == NULL)
        lim__group_refuse(g, to, LIM_WHY_MEMORY, 0, 0, "out of memory");
    else
        (void)!lim__send_reserved(g->self, to, s);
}

/* ---- idempotency keys ---- */

static bool task_lives(const group *g, lim_pid id)
{
    return lim__map_get(&g->claims, lim__alias_pid(g->bus, id.id).id) != NULL;
}

static void once_free(group *g, once *o)
{
    g->once_bytes -= o->key_len + LIM__GROUP_REMEMBER_ROW;
    lim__list_remove(&o->node);
    lim__smap_remove(&g->once, lim__bytes(o->key, o->key_len));
    if (o->outcome != NULL)
        lim__letter_free(lim__sched_current(), o->outcome);
    lim__free(lim__sched_current(), o, sizeof *o + o->key_len);
}

/* And its row. */
static void once_forget(group *g, once *o)
{
    if (o->durable)
        lim__group_sweep(g, LIM__TABLE_SEEN, lim__bytes(o->key, o->key_len));
    once_free(g, o);
}

void lim__group_expire(group *g)
{
    uint64_t now_ns = lim_now_ns(g->self);
    LIM__LIST_EACH_SAFE(node, tmp, &g->onces) {
        once *o = LIM_CONTAINER(node, once, node);
        if (o->until_ns > now_ns)
            return;
        if (o->outcome != NULL || !task_lives(g, o->task))
            once_forget(g, o);
    }
}

void lim__group_forget_once(group *g, lim_bytes key)
{
    once *o = key.len > 0 ? lim__smap_get(&g->once, key) : NULL;
    if (o != NULL)
        once_free(g, o); /* who comes instead writes a row of the same key */
}

static once *once_new(group *g, lim_bytes key, lim_pid conv)
{
    once *o = lim__alloc(lim__proc_sched(g->self), sizeof *o + key.len);
    if (o == NULL)
        return NULL;
    *o = (once){ .task = conv, .until_ns = lim_now_ns(g->self) + g->config.remember_ns, .key_len = (uint8_t)key.len };
    memcpy(o->key, key.ptr, key.len);
    if (lim__smap_put(&g->once, lim__bytes(o->key, o->key_len), o) != LIM_OK) {
        lim__free(lim__proc_sched(g->self), o, sizeof *o + key.len);
        return NULL;
    }
    lim__list_init(&o->node);
    lim__list_push(&g->onces, &o->node);
    g->once_bytes += key.len + LIM__GROUP_REMEMBER_ROW;
    return o;
}

bool lim__group_once_restore(group *g, lim_bytes key, uint64_t id, uint64_t until_wall_ns)
{
    uint64_t now_wall = g->bus->os->wall_ns(g->bus->os);
    once *o = lim__smap_get(&g->once, key) == NULL ? once_new(g, key, (lim_pid){ id }) : NULL;
    if (o == NULL)
        return false;
    o->durable = true;
    o->until_ns = lim_now_ns(g->self) + (until_wall_ns > now_wall ? until_wall_ns - now_wall : 0);
    o->outcome = lim__ended_outcome(g->bus, lim__proc_sched(g->self), o->task, 0);
    return true;
}

void lim__group_outcome(group *g, const lim_signal *signal)
{
    const lim__outcome_letter *o = signal->body.ptr;
    const claim *c = lim__map_get(&g->claims, signal->from.id);
    if (c == NULL || !c->is_task || ((const task *)(const void *)c)->terms == NULL)
        return;
    once *key = lim__smap_get(&g->once, ((const task *)(const void *)c)->terms->idempotency_key);
    if (key == NULL || key->task.id != o->conv.id || key->outcome != NULL)
        return;
    key->outcome = lim__letter_keep(g->self, signal);
}

/* ---- a new task ---- */

/* Is it one that is there already? True: it was answered. */
static bool is_known(group *g, const lim__want *w)
{
    const lim__terms *terms = w->terms;
    if (terms == NULL)
        return false;
    lim__group_expire(g);
    const once *o = terms->idempotency_key.len > 0 ? lim__smap_get(&g->once, terms->idempotency_key) : NULL;
    if (o != NULL) {
        send_stands_for(g, w->conv, o->task, o->durable, o->outcome);
        return true;
    }
    task *other = terms->unique_key.len > 0 ? lim__smap_get(&g->unique, terms->unique_key) : NULL;
    if (other == NULL)
        return false;
    bool waits = other->claim.state != CLAIM_LEASED && other->claim.state != CLAIM_RESTING;
    if (terms->on_duplicate == LIM_UNIQUE_REPLACE && waits) {
        lim__group_refuse(g, other->claim.conv, LIM_WHY_REPLACED, 0, 0, "a newer task with its unique key came");
        lim__claim_end(g, &other->claim, true);
        return false;
    }
    if (terms->on_duplicate == LIM_UNIQUE_REJECT)
        lim__group_refuse(g, w->conv, LIM_WHY_DUPLICATE, 0, 0, "a task with this unique key waits or runs already");
    else
        send_stands_for(g, w->conv, lim__claim_id(&other->claim), other->durable, NULL);
    return true;
}

static bool once_full(const group *g, size_t key_len)
{
    return g->once.count >= g->config.remember_max ||
           g->once_bytes + key_len + LIM__GROUP_REMEMBER_ROW > g->config.remember_bytes;
}

/* Is there a place for its idempotency key? If not, it is refused; or the oldest keys go. */
static bool key_fits(group *g, const lim__want *w)
{
    size_t len = w->terms != NULL ? w->terms->idempotency_key.len : 0;
    if (len == 0)
        return true;
    while (once_full(g, len) && g->config.remember_forgets && !lim__list_empty(&g->onces))
        once_forget(g, LIM_CONTAINER(g->onces.next, once, node));
    if (!once_full(g, len))
        return true;
    if (g->once.count >= g->config.remember_max)
        lim__group_refuse(g, w->conv, LIM_WHY_KEYS_FULL, g->config.remember_max, (uint32_t)g->once.count,
                          "the queue remembers as many idempotency keys as it may");
    else
        lim__group_refuse(g, w->conv, LIM_WHY_KEYS_FULL, g->config.remember_bytes, (uint32_t)g->once_bytes,
                          "the idempotency keys that the queue remembers are as many bytes as they may be");
    return false;
}

static bool admits(group *g, const lim__want *w)
{
    uint32_t waiting = lim__group_queued(g);
    if (g->draining) {
        lim__group_refuse(g, w->conv, LIM_WHY_CLOSING, 0, 0, "the queue is draining: it takes nothing new");
    } else if (waiting >= g->config.limit) {
        lim__group_refuse(g, w->conv, LIM_WHY_QUEUE_FULL, g->config.limit, waiting, "the queue is at its limit");
    } else if (is_known(g, w)) {
        return false;
    } else {
        return key_fits(g, w);
    }
    return false;
}

static lim_err line_up(group *g, task *t, const lim__want *w, uint64_t delay_ns)
{
    const lim__terms *terms = lim__terms_or_default(t->terms);
    uint64_t now_ns = lim_now_ns(g->self);
    t->item = (lim__item){ .id = w->id.id,
                           .type = lim__want_type(w),
                           .key = terms->key,
                           .order_key = terms->order_key,
                           .weight = terms->weight,
                           .priority = terms->priority,
                           .due_ns = w->due_ns != 0  ? w->due_ns
                                     : delay_ns != 0 ? now_ns + delay_ns
                                                     : 0 };
    return lim__line_add(&g->line, &t->item, now_ns);
}

static lim_err task_enter(group *g, task *t, const lim__want *w)
{
    const lim__terms *terms = lim__terms_or_default(w->terms);
    t->terms = lim__terms_ref(w->terms);
    t->attempts = w->attempts;
    t->losses = w->losses;
    lim_err err = line_up(g, t, w, terms->delay_ns);
    if (err != LIM_OK)
        return err;
    bool first = terms->unique_key.len > 0 && lim__smap_get(&g->unique, terms->unique_key) == NULL;
    if (first && lim__smap_put(&g->unique, terms->unique_key, t) != LIM_OK)
        return LIM_E_NOMEM;
    t->unique = first ? terms->unique_key : lim__bytes(NULL, 0);
    t->durable = lim__group_durable(g) || terms->durable;
    if (terms->idempotency_key.len == 0 || lim__smap_get(&g->once, terms->idempotency_key) != NULL)
        return LIM_OK;
    once *o = once_new(g, terms->idempotency_key, w->id);
    if (o != NULL)
        o->durable = t->durable;
    return o != NULL ? LIM_OK : LIM_E_NOMEM;
}

static void claim_free(claim *c)
{
    lim__sched *s = lim__sched_current();
    if (c->want != NULL)
        lim__letter_free(s, c->want);
    if (c->is_task)
        lim__terms_unref(lim__claim_task(c)->terms);
    lim__free(s, c, c->is_task ? sizeof(task) : sizeof(claim));
}

static lim_err claim_new(group *g, lim__want *w, claim **out)
{
    bool is_task = w->kind == LIM__KIND_TASK;
    size_t bytes = is_task ? sizeof(task) : sizeof(claim);
    claim *c = lim__alloc(lim__proc_sched(g->self), bytes);
    if (c == NULL)
        return LIM_E_NOMEM;
    memset(c, 0, bytes);
    *c = (claim){ .conv = w->conv,
                  .state = CLAIM_WAITING,
                  .is_task = is_task,
                  .kept = w->kept && !is_task,
                  .wish = w->wish,
                  .since_ns = lim_now_ns(g->self) };
    lim__list_init(&c->node);
    lim__list_init(&c->lease.node);
    lim_err err = lim_monitor(g->self, w->conv, &c->monitor);
    if (err == LIM_OK)
        err = lim__map_put(&g->watched, c->monitor, c);
    if (err == LIM_OK && (is_task || c->kept))
        err = lim__map_put(&g->claims, w->conv.id, c);
    if (err == LIM_OK && is_task)
        err = task_enter(g, lim__claim_task(c), w);
    if (err == LIM_OK) {
        c->want = w;
        *out = c;
        return LIM_OK;
    }
    if (is_task && lim__claim_task(c)->terms != NULL) {
        const once *o = lim__smap_get(&g->once, lim__claim_task(c)->terms->idempotency_key);
        if (o != NULL && o->task.id == w->id.id)
            once_free(g, (once *)(uintptr_t)o);
    }
    c->node.next = c->node.prev = &c->node;
    lim__claim_end(g, c, c->monitor != 0);
    return err;
}

/* ---- wanting ---- */

static void want_new(group *g, lim__want *w)
{
    claim *c = NULL;
    if (w->kind == LIM__KIND_TASK && !w->again && !admits(g, w)) {
        lim__letter_free(lim__proc_sched(g->self), w);
        return;
    }
    if (claim_new(g, w, &c) != LIM_OK) {
        lim__group_refuse(g, w->conv, LIM_WHY_MEMORY, 0, 0, "out of memory");
        lim__letter_free(lim__proc_sched(g->self), w);
        return;
    }
    if (!c->is_task) {
        c->order = w->again ? --g->front : ++g->back;
        g->ask_count++;
        lim__claim_wait(g, c);
    }
    uint64_t monitor = c->monitor;
    bool again = w->again;
    lim__group_dispatch(g);
    c = lim__map_get(&g->watched, monitor); /* it may have been refused meanwhile */
    if (c != NULL && (c->is_task || c->kept) && !again && c->state != CLAIM_LEASED)
        send_queued(g, c);
}

/* One that had a lease wants another one. What it had is over (it was released), or old. */
static void want_again(group *g, claim *c, lim__want *w)
{
    uint64_t now_ns = lim_now_ns(g->self);
    if (c->state != CLAIM_LEASED && c->state != CLAIM_RESTING) {
        (void)LIM_NEVER("it waits already");
        lim__letter_free(lim__proc_sched(g->self), w);
        return;
    }
    task *t = lim__claim_task(c);
    suspend(g, c);
    c->want = w;
    c->wish = w->wish;
    t->attempts = w->attempts;
    t->losses = w->losses;
    if (t->item.state == LIM__ITEM_OUT) {
        lim__line_again(&g->line, &t->item, now_ns, w->due_ns);
    } else if (t->item.state == LIM__ITEM_NONE) {
        if (line_up(g, t, w, 0) != LIM_OK) {
            lim__group_refuse(g, c->conv, LIM_WHY_MEMORY, 0, 0, "out of memory");
            lim__claim_end(g, c, true);
            return;
        }
    }
    lim__claim_wait(g, c);
    lim__group_dispatch(g);
}

void lim__group_want(group *g, const lim_signal *signal)
{
    lim__want *w = lim__letter_keep(g->self, signal);
    claim *c = w->again && w->kind == LIM__KIND_TASK ? lim__map_get(&g->claims, w->conv.id) : NULL;
    if (c != NULL)
        want_again(g, c, w);
    else
        want_new(g, w);
}

/* ---- releasing ---- */

/* It has a lease again that nobody here gave it now (its worker came back), and wants no other. */
static void rest(group *g, claim *c)
{
    lim__item *i = &lim__claim_task(c)->item;
    lim__line_why why = lim__line_why_item(&g->line, i, lim_now_ns(g->self));
    lim__list_remove(&c->node);
    buffer(g, c, NULL);
    if (why.how == LIM__LINE_ORDERED && why.before->state == LIM__ITEM_OUT)
        lim__line_remove(&g->line, i, lim_now_ns(g->self));
    else
        lim__line_out(&g->line, i, lim_now_ns(g->self));
    lim__letter_free(lim__proc_sched(g->self), c->want);
    c->want = NULL;
    c->state = CLAIM_RESTING;
}

static claim *ask_of(lim__list *line, lim_pid conv)
{
    LIM__LIST_EACH(node, line)
        if (LIM_CONTAINER(node, claim, node)->conv.id == conv.id)
            return LIM_CONTAINER(node, claim, node);
    return NULL;
}

/* Its lease, or its wish, is over, and with it its claim. */
static void release_ask(group *g, lim_pid conv, uint64_t id)
{
    watched *w = id != 0 ? lim__map_get(&g->watched, id) : NULL;
    claim *c = w != NULL && !w->is_member ? (claim *)(void *)w : NULL;
    if (id == 0 && (c = ask_of(&g->asks, conv)) == NULL)
        c = ask_of(&g->routing, conv);
    if (c != NULL && !c->is_task && c->conv.id == conv.id)
        lim__claim_end(g, c, true);
}

/* It could not be stored: its keys are free again. */
static void never_admitted(group *g, claim *c)
{
    const lim__terms *terms = c->is_task ? ((const task *)(const void *)c)->terms : NULL;
    g->refused_ns = lim_now_ns(g->self);
    once *o = terms != NULL ? lim__smap_get(&g->once, terms->idempotency_key) : NULL;
    if (o != NULL && o->task.id == lim__claim_id(c).id)
        once_free(g, o);
    lim__claim_end(g, c, true);
}

void lim__group_release(group *g, const lim_signal *signal)
{
    const lim__release *r = signal->body.ptr;
    claim *c = lim__map_get(&g->claims, signal->from.id);
    if (r->never && c != NULL) {
        never_admitted(g, c);
    } else if (c == NULL) {
        release_ask(g, signal->from, r->lease);
    } else if (!c->is_task) {
        if (r->lease == 0 || c->lease.id == r->lease)
            lim__claim_end(g, c, true);
    } else if (r->lease == 0) {
        if (c->state != CLAIM_LEASED && c->state != CLAIM_RESTING)
            rest(g, c);
    } else if (c->lease.id == r->lease) {
        lease_end(g, &c->lease, !r->unheard);
        c->state = CLAIM_RESTING;
    } else {
        for (lease **at = &c->old; *at != NULL; at = &(*at)->next)
            if ((*at)->id == r->lease) {
                old_end(g, at);
                break;
            }
    }
    lim__group_unpark(g, NULL, false);
    lim__group_dispatch(g);
}

void lim__claim_end(group *g, claim *c, bool demonitor)
{
    bool waited = c->state != CLAIM_LEASED && c->state != CLAIM_RESTING;
    lim__list_remove(&c->node);
    buffer(g, c, NULL);
    if (c->lease.id != 0)
        lease_end(g, &c->lease, c->lease.member->pid.id != 0);
    while (c->old != NULL)
        old_end(g, &c->old);
    if (c->monitor != 0)
        lim__map_remove(&g->watched, c->monitor);
    if ((c->is_task || c->kept) && lim__map_get(&g->claims, c->conv.id) == c)
        lim__map_remove(&g->claims, c->conv.id);
    if (demonitor && c->monitor != 0)
        lim_demonitor(g->self, c->monitor);
    if (c->is_task) {
        task *t = lim__claim_task(c);
        if (t->item.state != LIM__ITEM_NONE)
            lim__line_remove(&g->line, &t->item, lim_now_ns(g->self));
        if (t->unique.len > 0)
            lim__smap_remove(&g->unique, t->unique);
        if (!waited)
            g->completed++;
    } else if (waited && c->want != NULL) {
        g->ask_count--;
    }
    claim_free(c);
    lim__group_unpark(g, NULL, false);
}

/* ---- who is it ---- */

static lease *lease_of(claim *c, uint64_t id)
{
    if (c->lease.id == id)
        return &c->lease;
    lease *l = c->old;
    while (l != NULL && l->id != id)
        l = l->next;
    return l;
}

void lim__group_vouch(group *g, const lim_signal *signal)
{
    const lim__vouch *v = signal->body.ptr;
    claim *c = lim__map_get(&g->claims, signal->from.id);
    lease *l = c != NULL ? lease_of(c, v->lease) : NULL;
    lim__vouched *answer = lim__letter_new(lim__proc_sched(g->self), &lim__type_vouched, sizeof *answer);
    if (answer == NULL) {
        lim_exit_process(g->self, signal->from, LIM_KILL); /* it hears nothing until it is answered */
        return;
    }
    bool is = l != NULL && v->who.id != 0 && l->member->pid.id == v->who.id;
    if (is)
        l->spoken = true;
    *answer = (lim__vouched){ v->lease, v->who, is };
    (void)!lim__send_reserved(g->self, signal->from, answer);
}

/* ---- again, after a restart ---- */

static void lease_again(group *g, claim *c, const lim__revive_lease *r)
{
    member *m = lim__member_away(g, (lim__member_kind)r->kind, r->session, r->identity);
    lease *l = m == NULL || r->current ? &c->lease : lim__alloc(lim__proc_sched(g->self), sizeof *l);
    if (m == NULL || l == NULL)
        return; /* its place is free a little early */
    *l = (lease){ .id = r->lease, .member = m, .claim = c, .since_ns = lim_now_ns(g->self) };
    if (r->current) {
        c->state = CLAIM_LEASED;
    } else {
        l->next = c->old;
        c->old = l;
    }
    lim__list_init(&l->node);
    lim__list_push(&m->leases, &l->node);
    m->view.in_flight++;
    m->view.stamp = ++g->stamp;
    g->leased_count++;
}

/* It failed, and waits for its next attempt: as then its order key waits with it. */
static bool tried(const lim__revive *r)
{
    return r->kind == LIM__KIND_TASK && r->attempts + r->losses > 0;
}

static void wait_again(group *g, claim *c, const lim__revive *r)
{
    lim__item *i = &lim__claim_task(c)->item;
    uint64_t now_ns = lim_now_ns(g->self);
    lim__line_why why = lim__line_why_item(&g->line, i, now_ns);
    if (why.how == LIM__LINE_ORDERED && why.before->state == LIM__ITEM_OUT)
        return;
    lim__line_out(&g->line, i, now_ns);
    lim__line_again(&g->line, i, now_ns, r->due_ns);
}

static lim__want *want_of(group *g, lim__revive *r)
{
    lim__want *w = lim__letter_new(lim__proc_sched(g->self), &lim__type_want, sizeof *w + r->type_len);
    if (w == NULL)
        return NULL;
    *w = (lim__want){ .conv = r->conv,
                      .only = r->kind == LIM__KIND_TASK ? r->id : (lim_pid){ 0 }, /* of a task its id */
                      .kind = r->kind,
                      .wait = true, /* nobody is here yet */
                      .again = true,
                      .kept = r->kind != LIM__KIND_TASK,
                      .attempts = r->attempts,
                      .losses = r->losses,
                      .due_ns = r->due_ns != 0 && !tried(r) ? r->due_ns
                                : r->kind == LIM__KIND_TASK ? 1
                                                            : 0,
                      .terms = r->terms,
                      .payload = r->payload,
                      .type_len = r->type_len };
    memcpy(lim__want_text(w), r->text, r->type_len);
    r->terms = NULL;
    r->payload = NULL;
    return w;
}

static void take_leases(group *g, claim *c, const lim__revive *r)
{
    lim__unpack u = lim__unpack_begin(lim__bytes(r->text + r->type_len, r->leases_len));
    if (r->lease_count == 0)
        return;
    if (c->is_task) {
        rest(g, c);
    } else { /* it has been placed */
        lim__letter_free(lim__proc_sched(g->self), c->want);
        c->want = NULL;
        c->state = CLAIM_RESTING;
    }
    for (uint32_t i = 0; i < r->lease_count; i++) {
        lim__revive_lease l = { .lease = lim__unpack_u64(&u),
                                .current = lim__unpack_u8(&u),
                                .kind = lim__unpack_u8(&u) };
        for (uint32_t b = 0; b < sizeof l.session; b++)
            l.session[b] = lim__unpack_u8(&u);
        l.identity = lim__unpack_bytes(&u);
        lease_again(g, c, &l);
    }
}

void lim__group_revive(group *g, const lim_signal *signal)
{
    lim__revive *r = (lim__revive *)(uintptr_t)signal->body.ptr;
    lim_pid conv = r->conv;
    lim__want *w = want_of(g, r);
    lim__revived *answer = lim__letter_new(lim__proc_sched(g->self), &lim__type_revived, sizeof *answer);
    claim *c = NULL;
    if (w == NULL || answer == NULL || claim_new(g, w, &c) != LIM_OK) {
        lim__letter_free(lim__proc_sched(g->self), w);
        lim__letter_free(lim__proc_sched(g->self), answer);
        lim_exit_process(g->self, conv, LIM_KILL); /* its rows are there for the next start */
        return;
    }
    c->since_ns = r->since_ns;
    if (!c->is_task && r->lease_count == 0) {
        c->order = ++g->back;
        g->ask_count++;
        lim__claim_wait(g, c);
    }
    if (r->lease_count == 0 && r->due_ns != 0 && tried(r))
        wait_again(g, c, r);
    take_leases(g, c, r);
    *answer = (lim__revived){ lim__group_policy(g), g->config.grace_ns };
    (void)!lim__send_reserved(g->self, conv, answer);
    lim__group_dispatch(g);
}

void lim__group_claims_fini(group *g)
{
    size_t pos = 0;
    uint64_t key;
    void *value;
    while (lim__map_next(&g->watched, &pos, &key, &value)) {
        claim *c = value;
        if (((watched *)value)->is_member)
            continue;
        for (lease *l = c->old, *next; l != NULL; l = next) {
            next = l->next;
            lim__free(lim__sched_current(), l, sizeof *l);
        }
        claim_free(c);
    }
    while (!lim__list_empty(&g->onces))
        once_free(g, LIM_CONTAINER(g->onces.next, once, node));
    lim__map_fini(&g->claims);
    lim__smap_fini(&g->unique);
    lim__smap_fini(&g->once);
    lim__line_fini(&g->line);
}
