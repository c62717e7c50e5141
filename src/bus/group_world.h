/* SPDX-License-Identifier: Apache-2.0
 * group_world.h - a simulated bus whose workers and askers are puppets that speak letter by letter; for tests of groups. */
#ifndef LIM__GROUP_WORLD_H
#define LIM__GROUP_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "bus/bus.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/participant.h"
#include "data/options.h"
#include "sim/sim_os.h"

#define SECOND 1000000000ull
enum { SEEN_MAX = 2048 };

typedef struct seen { /* a request that a puppet was handed, or an outcome that it was told */
    lim_pid conv;
    uint64_t lease;
    lim_how how;
    lim_why why;
    lim_handed handed;
    char payload[24], detail[80]; /* what it says, cut */
    uint32_t excluded;
    uint64_t crashed_wall_us, rerouted_ns;
    char past[16];        /* the first of the excluded */
    lim_excluded gone[4]; /* the first four, without their names */
} seen;

typedef struct puppet {
    struct puppet *next; /* of the world's */
    lim_bus *bus;
    lim_pid pid;
    seen requests[SEEN_MAX], outcomes[SEEN_MAX];
    uint32_t request_count, outcome_count, revoked, accepted, refused;
    lim_admission admission; /* the last that it was told */
    lim_pid admitted;        /* and of which task */
    char *json;              /* what was shown to it last; malloc'd */
    lim_reason ended;
    bool takes; /* acknowledges what it is handed */
} puppet;

typedef struct world {
    lim__sim *sim;
    lim__os *os;
    lim_bus *bus;
    puppet *puppets;
} world;

static void keep(char *at, size_t size, lim_bytes text)
{
    snprintf(at, size, "%.*s", (int)text.len, text.len > 0 ? (const char *)text.ptr : "");
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    puppet *p = *(puppet **)state;
    const void *body = signal->body.ptr;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (signal->type == &lim__type_request) {
        const lim__request *r = body;
        assert_true(p->request_count < SEEN_MAX);
        seen *s = &p->requests[p->request_count++];
        *s = (seen){ .conv = r->conv, .lease = r->lease };
        keep(s->payload, sizeof s->payload, lim__msg_bytes(r->payload));
        lim__taken *t = p->takes ? lim__letter_new(lim__proc_sched(self), &lim__type_taken, sizeof *t) : NULL;
        if (t != NULL) {
            t->lease = r->lease;
            assert_int_equal(lim__send_reserved(self, lim__alias_pid(p->bus, r->conv.id), t), LIM_OK);
        }
    } else if (signal->type == &lim__type_outcome) {
        const lim__outcome_letter *o = body;
        lim_excluded excluded[LIM__EXCLUDED_MAX];
        lim_outcome view;
        lim__outcome_view(o, excluded, &view);
        seen *s = &p->outcomes[p->outcome_count++];
        *s = (seen){ .conv = o->conv, .how = o->how, .why = o->why, .handed = o->handed_over };
        s->excluded = view.excluded_count;
        s->crashed_wall_us = view.crashed_wall_us;
        s->rerouted_ns = view.rerouted_ns;
        if (view.excluded_count > 0)
            keep(s->past, sizeof s->past, view.excluded[0].identity);
        for (uint32_t i = 0; i < view.excluded_count && i < LIM_COUNT(s->gone); i++)
            s->gone[i] = (lim_excluded){ .observed_wall_us = excluded[i].observed_wall_us,
                                         .rerouted_wall_us = excluded[i].rerouted_wall_us };
        keep(s->payload, sizeof s->payload, view.payload);
        keep(s->detail, sizeof s->detail, view.detail);
    } else if (signal->type == &lim__type_admitted) {
        p->admission = ((const lim__admitted *)body)->admission;
        p->admitted = ((const lim__admitted *)body)->conv;
    } else if (signal->type == &lim__type_shown) {
        const lim__shown *s = body;
        free(p->json);
        p->json = strndup(s->json, s->len);
    } else if (signal->type == &lim__type_revoke) {
        p->revoked++;
    } else if (signal->type == &lim__type_settled) {
        *(((const lim__settled *)body)->accepted ? &p->accepted : &p->refused) += 1;
    } else if (signal->type == &lim__type_evict) {
        lim_exit(self, ((const lim__evict *)body)->reason);
    }
}

static void on_end(void *state, lim_reason reason)
{
    (*(puppet **)state)->ended = reason;
}

static bool sched_turn(void *ctx)
{
    return lim__sched_turn(ctx, -1);
}

static uint64_t sched_due(void *ctx)
{
    return lim__sched_next_due_ns(ctx);
}

static inline void settle(world *w)
{
    lim__sim_run(w->sim, lim__sim_now(w->sim) + SECOND / 2, NULL, NULL);
}

static inline int open_world(void **state)
{
    static world w;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    w = (world){ .sim = lim__sim_open(7) };
    w.os = lim__sim_host(w.sim, "host");
    lim__runtime_opts runtime = { .os = w.os, .scheduler_count = 1, .threads = false };
    assert_int_equal(lim__bus_open(&opts, &runtime, &w.bus), LIM_OK);
    lim__sim_task_add(w.sim, w.os, "sched", sched_turn, sched_due, lim__sched_at(w.bus->rt, 0));
    settle(&w);
    *state = &w;
    return 0;
}

static inline int close_world(void **state)
{
    world *w = *state;
    lim_bus_close(w->bus); /* with unfinished calls in some */
    lim__sim_close(w->sim);
    for (puppet *p; (p = w->puppets) != NULL; free(p)) {
        w->puppets = p->next;
        free(p->json);
    }
    return 0;
}

static inline puppet *puppet_new(world *w)
{
    puppet *p = calloc(1, sizeof *p);
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof p,
                            .init = &p,
                            .init_bytes = sizeof p,
                            .mailbox_max = 4096,
                            .trap_exit = true };
    assert_int_equal(lim_runtime_spawn(w->bus->rt, &opts, &p->pid), LIM_OK);
    p->next = w->puppets;
    p->bus = w->bus;
    w->puppets = p;
    return p;
}

/* A worker of `queue`, or the same one again over another connection. */
static inline void worker_is(world *w, puppet *p, const char *queue, const char *name, uint32_t capacity,
                             const char *type)
{
    lim_pid group;
    const char *types[] = { type, NULL };
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &group), LIM_OK);
    lim__join *j =
        lim__join_new(NULL, p->pid, LIM__MEMBER_WORK, lim__str(name), capacity, type != NULL ? types : NULL, NULL);
    j->reply_to = p->pid;
    memset(j->session, 's', sizeof j->session);
    assert_int_equal(lim__post_reserved(w->bus->rt, group, j), LIM_OK);
    settle(w);
}

static inline puppet *worker(world *w, const char *queue, const char *name, uint32_t capacity, const char *type)
{
    puppet *p = puppet_new(w);
    worker_is(w, p, queue, name, capacity, type);
    return p;
}

static inline lim_pid begin_with(world *w, puppet *owner, lim__conv_kind kind, const char *group, const char *type,
                          const char *payload, lim__terms *terms)
{
    lim_pid conv;
    lim__open *open = lim__open_new(NULL, kind, lim__str(group), lim__str(type), lim__msg_new(lim__str(payload)));
    open->owner = owner->pid;
    open->ref = 1;
    open->opened_ns = lim__sim_now(w->sim);
    open->flags = LIM__OPEN_REPORT;
    open->on_crash = LIM_CRASH_NEXT;
    open->losses_max = 16;
    open->terms = terms;
    assert_int_equal(lim__conv_spawn_at(w->bus, kind, owner->pid, &conv), LIM_OK);
    assert_int_equal(lim__post(w->bus->rt, conv, open), LIM_OK);
    return conv;
}

static inline lim_pid begin(world *w, puppet *owner, lim__conv_kind kind, const char *group, const char *type,
                            const char *payload)
{
    return begin_with(w, owner, kind, group, type, payload, NULL);
}

static inline lim_pid task(world *w, puppet *owner, const char *queue, const char *type, const char *payload)
{
    return begin(w, owner, LIM__KIND_TASK, queue, type, payload);
}

/* A task with options; returns when it is in its queue, or in somebody's hands. */
static inline lim_pid task_with(world *w, puppet *owner, const char *queue, const char *payload,
                                const lim_dispatch_opts *o)
{
    lim__buf block = { 0 };
    lim__terms *terms = NULL;
    assert_int_equal(lim__options_dispatch(&block, o, 0, NULL), LIM_OK);
    assert_int_equal(lim__terms_parse(lim__buf_bytes(&block), NULL, &terms), LIM_OK);
    lim__buf_fini(&block);
    lim_pid conv = begin_with(w, owner, LIM__KIND_TASK, queue, o->type != NULL ? o->type : "", payload, terms);
    settle(w);
    return conv;
}

static inline void take(world *w, const seen *r)
{
    lim__taken *t = lim__letter_new(NULL, &lim__type_taken, sizeof *t);
    t->lease = r->lease;
    (void)!lim__post_reserved(w->bus->rt, lim__alias_pid(w->bus, r->conv.id), t);
    settle(w);
}

static inline void answer_failed(world *w, puppet *p, const seen *r, const char *why)
{
    (void)!lim__post_reserved(w->bus->rt, lim__alias_pid(w->bus, r->conv.id),
                              lim__answer_new(NULL, p->pid, r->lease, LIM__ANSWER_FAILED, NULL, lim__str(why)));
    settle(w);
}

static inline void answer(world *w, puppet *p, const seen *r)
{
    (void)!lim__post_reserved(w->bus->rt, lim__alias_pid(w->bus, r->conv.id),
                              lim__answer_new(NULL, p->pid, r->lease, LIM__ANSWER_REPLY, lim__msg_new(lim__str("done")),
                                              lim__bytes(NULL, 0)));
    settle(w);
}

static inline void hold(world *w, puppet *p, const seen *r)
{
    lim__holding *h = lim__letter_new(NULL, &lim__type_holding, sizeof *h);
    *h = (lim__holding){ r->lease, p->pid };
    (void)!lim__post_reserved(w->bus->rt, lim__alias_pid(w->bus, r->conv.id), h);
    settle(w);
}

static inline void lose(world *w, puppet *p, lim_reason reason)
{
    lim__evict *e = lim__letter_new(NULL, &lim__type_evict, sizeof *e);
    e->reason = reason;
    (void)!lim__post_reserved(w->bus->rt, p->pid, e);
    settle(w);
}

/* Asks the queue something, as the system groups do; the answer is asker->json. */
static inline const char *admin(world *w, puppet *asker, const char *queue, const char *json)
{
    lim_pid group;
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &group), LIM_OK);
    lim__admin *a = lim__letter_new(NULL, &lim__type_admin, sizeof *a + strlen(json));
    *a = (lim__admin){ .reply_to = asker->pid, .ref = 1, .len = (uint32_t)strlen(json) };
    memcpy(a->json, json, strlen(json));
    free(asker->json);
    asker->json = NULL;
    assert_int_equal(lim__post_reserved(w->bus->rt, group, a), LIM_OK);
    settle(w);
    assert_non_null(asker->json);
    return asker->json;
}

/* Likewise: everybody in it. */
static inline const char *members(world *w, puppet *asker, const char *queue)
{
    lim_pid group;
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &group), LIM_OK);
    lim__show *s = lim__letter_new(NULL, &lim__type_show, sizeof *s);
    *s = (lim__show){ .reply_to = asker->pid, .ref = 1, .what = LIM__SHOW_MEMBERS };
    free(asker->json);
    asker->json = NULL;
    assert_int_equal(lim__post_reserved(w->bus->rt, group, s), LIM_OK);
    settle(w);
    assert_non_null(asker->json);
    return asker->json;
}

static inline void has(const char *json, const char *what)
{
    if (strstr(json, what) == NULL)
        fail_msg("no %s in %s", what, json != NULL ? json : "nothing");
}

static inline puppet *good(world *w, const char *name, uint32_t capacity)
{
    puppet *p = puppet_new(w);
    p->takes = true;
    worker_is(w, p, "q", name, capacity, NULL);
    return p;
}

#define TASK(...)                                                                                                      \
    &(lim_dispatch_opts)                                                                                               \
    {                                                                                                                  \
        .size = sizeof(lim_dispatch_opts), .timeout_ms = LIM_FOREVER, __VA_ARGS__                                      \
    }

#endif
