/* SPDX-License-Identifier: Apache-2.0
 * agent.c - the owner of conversations on behalf of those who are not processes. See agent.h.
 *
 * Invariant A1: a wait is in the agent's books from `expect` until on_letter answered true; nobody frees it before. */
#include "bus/agent.h"
#include "base/base.h"
#include "base/map.h"
#include "bus/channel_inside.h"
#include "bus/conv.h"
#include "bus/history.h"
#include <stdatomic.h>
#include <stdlib.h>

typedef struct expect {
    lim__wait *wait;
    bool link;
    void *letter; /* for w->conv, or NULL */
} expect;
static void never_taken(void *body)
{
    lim__wait *w = ((expect *)body)->wait;
    lim__letter_free(lim__sched_current(), ((expect *)body)->letter);
    if (w != NULL) /* the agent ended before it read this */
        w->on_letter(w, LIM__WAIT_CLOSING, NULL);
}
const lim__letter_type lim__type_errand = { "errand", NULL };
static const lim__letter_type type_expect = { "expect", never_taken }, type_forget = { "forget", NULL };

typedef struct owned { /* a conversation with waits on it */
    lim_pid conv;
    bool linked;
    lim__list waits;
} owned;

typedef struct agent {
    lim_bus *bus;
    lim__map waits;   /* ref -> lim__wait */
    lim__map convs;   /* pid -> owned */
    lim__list others; /* waits on no conversation */
    bool ready;
} agent;

/* The link stays: a talk lives on until its owner closes it or ends. */
static void release(agent *a, lim_pid conv)
{
    owned *o = lim__map_get(&a->convs, conv.id);
    if (o == NULL || !lim__list_empty(&o->waits))
        return;
    lim__map_remove(&a->convs, conv.id);
    lim__free(lim__sched_current(), o, sizeof *o);
}

static void finish(agent *a, lim_process *self, lim__wait *w, lim__wait_end end, const lim_signal *signal)
{
    lim_pid conv = w->conv;
    uint64_t monitor = w->monitor;
    lim__list *before = w->node.prev;
    lim__list_remove(&w->node); /* on_letter may free it */
    lim__map_remove(&a->waits, w->ref);
    if (w->on_letter(w, end, signal)) {
        if (monitor != 0)
            lim_demonitor(self, monitor);
        release(a, conv);
        return;
    }
    lim__list_push_front(before, &w->node);
    if (lim__map_put(&a->waits, w->ref, w) != LIM_OK) /* it had a place a moment ago, and maps do not shrink */
        LIM_ASSERT(!"a map lost a place");
}

static void on_expect(agent *a, lim_process *self, expect *e)
{
    lim__wait *w = e->wait;
    e->wait = NULL;
    lim__list_init(&w->node);
    if (lim__map_put(&a->waits, w->ref, w) != LIM_OK) {
        w->on_letter(w, LIM__WAIT_DIED, NULL);
        return;
    }
    if (w->conv.id == 0) {
        lim__list_push(&a->others, &w->node);
        return;
    }
    owned *o = lim__map_get(&a->convs, w->conv.id);
    if (o == NULL && (o = lim__alloc(lim__proc_sched(self), sizeof *o)) != NULL) {
        *o = (owned){ .conv = w->conv };
        lim__list_init(&o->waits);
        if (lim__map_put(&a->convs, w->conv.id, o) != LIM_OK) {
            lim__free(lim__proc_sched(self), o, sizeof *o);
            o = NULL;
        }
    }
    if (o == NULL || (e->link ? lim_link(self, w->conv) : lim_monitor(self, w->conv, &w->monitor)) != LIM_OK) {
        finish(a, self, w, LIM__WAIT_DIED, NULL);
        return;
    }
    lim__list_push(&o->waits, &w->node);
    if (e->letter == NULL)
        return;
    (void)!lim__send_reserved(self, w->conv, e->letter); /* gone: the monitor says so */
    e->letter = NULL;
}

static void end_all(agent *a, lim_process *self, lim__list *waits, lim__wait_end end)
{
    for (lim__list *n; (n = lim__list_pop(waits)) != NULL;) {
        lim__wait *w = LIM_CONTAINER(n, lim__wait, node);
        lim__map_remove(&a->waits, w->ref);
        if (self != NULL && w->monitor != 0)
            lim_demonitor(self, w->monitor);
        w->on_letter(w, end, NULL);
    }
}

/* One wait of a process that ended: the others have their own word of it. */
static void on_down(agent *a, lim_process *self, const lim_signal *signal)
{
    owned *o = lim__map_get(&a->convs, signal->from.id);
    if (o == NULL)
        return;
    LIM__LIST_EACH(n, &o->waits) {
        lim__wait *w = LIM_CONTAINER(n, lim__wait, node);
        if (w->monitor != signal->ref)
            continue;
        w->monitor = 0;
        finish(a, self, w, LIM__WAIT_DIED, NULL);
        return;
    }
}

/* What only the bus itself sends to owners: what a peer may have sent in a participant's name is not for us. */
static bool for_owners(const lim__letter_type *type)
{
    return type == &lim__type_outcome || type == &lim__type_admitted || type == &lim__type_done ||
           type == &lim__type_exited || type == &lim__type_joined || type == &lim__type_deployed ||
           type == &lim__type_shown || type == &lim__type_partial || type == &type_forget;
}

static void on_exit_signal(agent *a, lim_process *self, const lim_signal *signal)
{
    owned *o = lim__map_get(&a->convs, signal->from.id);
    bool closing = atomic_load(&a->bus->closing) == 2;
    if (o == NULL)
        return;
    end_all(a, self, &o->waits, closing ? LIM__WAIT_CLOSING : LIM__WAIT_DIED);
    release(a, signal->from);
}

static void show_convs(agent *a, lim_process *self, const lim__show *show)
{
    if (show->what == LIM__SHOW_HISTORY) {
        lim__history_show(a->bus, self, show);
        return;
    }
    lim__buf buf = { 0 };
    lim__json j = lim__json_begin(&buf);
    uint32_t n = 0;
    LIM__LIST_EACH(node, &a->bus->convs[lim__sched_index(lim__proc_sched(self))]) {
        const lim__conv_node *c = LIM_CONTAINER(node, lim__conv_node, node);
        if ((show->only.id != 0 && lim__state_pid(lim__conv_state(c)).id != show->only.id) ||
            !lim__conv_matches(a->bus, c, lim__bytes(show->where, show->where_len)))
            continue;
        if (n++ == show->max)
            break;
        lim__conv_as(a->bus, c)->json(lim__conv_state(c), &j, NULL);
    }
    lim__shown_send(self, show, &buf);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    agent *a = state;
    if (!a->ready) {
        lim__map_init(&a->waits, a->bus->os->random(a->bus->os));
        lim__map_init(&a->convs, a->bus->os->random(a->bus->os));
        lim__list_init(&a->others);
        a->ready = true;
    }
    if (signal->kind == LIM_SIGNAL_EXIT) {
        on_exit_signal(a, self, signal);
        return;
    }
    if (signal->kind == LIM_SIGNAL_DOWN) {
        on_down(a, self, signal);
        return;
    }
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type == NULL)
        return;
    if (signal->type == &type_expect) {
        on_expect(a, self, (expect *)(uintptr_t)signal->body.ptr);
    } else if (signal->type == &lim__type_errand) {
        lim__errand *e = (lim__errand *)(uintptr_t)signal->body.ptr;
        e->run(e);
    } else if (signal->type == &lim__type_show) {
        show_convs(a, self, signal->body.ptr);
    } else if (for_owners(signal->type)) {
        uint64_t ref; /* the first field of every letter to an owner */
        memcpy(&ref, signal->body.ptr, sizeof ref);
        lim__wait *w = lim__map_get(&a->waits, ref);
        if (w != NULL)
            finish(a, self, w, signal->type == &type_forget ? LIM__WAIT_FORGOTTEN : LIM__WAIT_LETTER, signal);
    }
}

static void on_end(void *state, lim_reason reason)
{
    agent *a = state;
    size_t pos = 0;
    uint64_t key;
    void *value;
    (void)reason;
    if (!a->ready)
        return;
    while (lim__map_next(&a->convs, &pos, &key, &value)) {
        owned *o = value;
        end_all(a, NULL, &o->waits, LIM__WAIT_CLOSING);
        lim__free(lim__sched_current(), o, sizeof *o);
    }
    end_all(a, NULL, &a->others, LIM__WAIT_CLOSING);
    lim__map_fini(&a->convs);
    lim__map_fini(&a->waits);
}

lim_err lim__agent_open(lim_bus *bus, uint32_t scheduler, lim_pid *out)
{
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "agent",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof(agent),
                            .init = &bus,
                            .init_bytes = sizeof bus,
                            .mailbox_max = LIM_UNLIMITED - 1,
                            .trap_exit = true,
                            .place = true,
                            .scheduler = scheduler };
    return lim_runtime_spawn(bus->rt, &opts, out);
}

lim_pid lim__agent_for(lim_bus *bus, lim_pid near)
{
    lim__sched *s = lim__sched_current();
    if (s != NULL && lim__sched_runtime(s) == bus->rt)
        return bus->agents[lim__sched_index(s)];
    return bus->agents[near.id != 0 ? lim__pid_scheduler(near) : 0];
}

static lim_err hand_over(lim_bus *bus, lim_pid to, lim__wait *w, bool link, void *letter)
{
    expect *e = lim__letter_new(NULL, &type_expect, sizeof *e);
    if (e == NULL) {
        lim__letter_free(NULL, letter);
        return LIM_E_NOMEM;
    }
    *e = (expect){ w, link, letter };
    (void)!lim__post_reserved(bus->rt, to, e); /* gone: the letter's end is the wait's */
    return LIM_OK;
}

lim_err lim__agent_expect(lim_bus *bus, lim_pid to, lim__wait *w, bool link)
{
    return hand_over(bus, to, w, link, NULL);
}

lim_err lim__agent_ask(lim_bus *bus, lim_pid to, lim__wait *w, void *letter)
{
    return hand_over(bus, to, w, false, letter);
}

void lim__agent_forget(lim_bus *bus, lim_pid to, uint64_t ref)
{
    uint64_t *f = lim__letter_new(NULL, &type_forget, sizeof *f);
    if (f == NULL)
        return;
    *f = ref;
    (void)!lim__post_reserved(bus->rt, to, f);
}

uint64_t lim__wait_ref(lim_bus *bus)
{
    return atomic_fetch_add_explicit(&bus->next_ref, 1, memory_order_relaxed) + 1;
}

/* ---- blocking ---- */

static bool blocker_letter(lim__wait *w, lim__wait_end end, const lim_signal *signal)
{
    lim__blocker *b = LIM_CONTAINER(w, lim__blocker, wait);
    pthread_mutex_lock(&b->mutex);
    b->end = end;
    if (end == LIM__WAIT_LETTER) {
        b->type = signal->type;
        b->len = signal->body.len;
        b->body = malloc(b->len);
        if (b->body != NULL) {
            memcpy(b->body, signal->body.ptr, b->len);
            if (b->type == &lim__type_outcome) /* the only owner's letter that refers to something */
                lim__msg_ref(((lim__outcome_letter *)b->body)->payload);
        } else {
            b->err = LIM_E_NOMEM;
        }
    }
    b->over = true;
    pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->mutex);
    return true;
}

void lim__blocker_init(lim__blocker *b, lim_bus *bus, lim_pid conv)
{
    *b = (lim__blocker){ .wait = { .conv = conv, .ref = lim__wait_ref(bus), .on_letter = blocker_letter },
                         .bus = bus,
                         .mutex = LIM__MUTEX_INIT };
    lim__cond_init(&b->cond);
}

bool lim__blocker_wait(lim__blocker *b, lim_pid to, uint64_t deadline_ns)
{
    bool in_time = true;
    pthread_mutex_lock(&b->mutex);
    while (!b->over)
        if (!lim__cond_wait_until(&b->cond, &b->mutex, in_time ? deadline_ns : UINT64_MAX) && in_time && !b->over) {
            in_time = false; /* the wait is on our stack: only the agent can say that it has let go of it */
            lim__agent_forget(b->bus, to, b->wait.ref);
        }
    in_time = b->end != LIM__WAIT_FORGOTTEN;
    pthread_mutex_unlock(&b->mutex);
    return in_time;
}

void lim__blocker_fini(lim__blocker *b)
{
    if (b->body != NULL && b->type != NULL && b->type->drop != NULL)
        b->type->drop(b->body);
    free(b->body);
    pthread_cond_destroy(&b->cond);
    pthread_mutex_destroy(&b->mutex);
}

bool lim__may_block(void)
{
    return lim__sched_current() == NULL && !lim__host_inside();
}
