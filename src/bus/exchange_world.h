/* SPDX-License-Identifier: Apache-2.0
 * exchange_world.h - what the tests of exchanges share: a bus, workers that do as they are told, outcomes that are waited
 * for. Included by *_test.c only. */
#ifndef LIM__EXCHANGE_WORLD_H
#define LIM__EXCHANGE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "bus/agent.h"
#include "bus/bus.h"
#include "bus/letters.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })

static uint32_t schedulers = 1;

static int open_bus(void **state)
{
    return lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = schedulers), (lim_bus **)state) == LIM_OK ? 0 : -1;
}

static int close_bus(void **state)
{
    lim_bus_close(*state);
    return 0;
}

/* ---- a worker ---- */

typedef struct seen { /* a delivery, as it was seen */
    lim_conv conv;
    lim_participant self;
    uint64_t lease;
    uint32_t attempt, losses, hops, credit;
    int64_t remaining_ms;
    lim_event event;
    char type[32], text[64];
    lim_cause cause;
} seen;

enum { SEEN_MAX = 64 };
typedef struct worker {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    const char *script; /* per delivery, the last letter again: r reply, f fail, h hold, s say nothing */
    int count, cancelled, credited;
    seen seen[SEEN_MAX];
    char why[32];       /* of the last on_cancel */
    uint32_t credit;    /* sum of on_credit */
} worker;
#define WORKER(text)                                                                                                       \
    {                                                                                                                      \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .script = (text)                             \
    }

static inline void copy_text(char *to, size_t size, lim_bytes from)
{
    snprintf(to, size, "%.*s", (int)from.len, from.len > 0 ? (const char *)from.ptr : "");
}

static inline lim_done on_request(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    worker *w = ctx;
    pthread_mutex_lock(&w->mutex);
    size_t len = strlen(w->script);
    char act = w->script[(size_t)w->count < len ? (size_t)w->count : len - 1];
    assert_true(w->count < SEEN_MAX);
    seen *s = &w->seen[w->count++];
    *s = (seen){ .conv = d->conv,
                 .self = d->self,
                 .lease = d->lease,
                 .attempt = d->attempt,
                 .losses = d->losses,
                 .hops = d->hops,
                 .credit = d->credit,
                 .remaining_ms = d->remaining_ms,
                 .event = d->event };
    copy_text(s->type, sizeof s->type, d->type);
    copy_text(s->text, sizeof s->text, d->payload);
    lim_cause_of(d, &s->cause);
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->mutex);
    if (d->event != LIM_EVENT_NONE || act == 's')
        return LIM_DONE;
    if (act == 'h')
        return LIM_HOLD;
    if (act == 'f')
        return lim_fail(bus, d, "it could not") == LIM_OK ? LIM_DONE : LIM_FAIL;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static inline void on_worker_cancel(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, const char *why,
                                    void *ctx)
{
    worker *w = ctx;
    (void)bus, (void)self, (void)conv, (void)lease;
    pthread_mutex_lock(&w->mutex);
    w->cancelled++;
    copy_text(w->why, sizeof w->why, (lim_bytes){ why, strlen(why) });
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->mutex);
}

static inline void on_worker_credit(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, uint32_t credit,
                                    void *ctx)
{
    worker *w = ctx;
    (void)bus, (void)self, (void)conv, (void)lease;
    pthread_mutex_lock(&w->mutex);
    w->credited++;
    w->credit += credit;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->mutex);
}

/* Waits until *count is at least n. */
static inline void worker_wait(worker *w, const int *count, int n)
{
    pthread_mutex_lock(&w->mutex);
    while (*count < n)
        pthread_cond_wait(&w->cond, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
}

#define HANDLER(w)                                                                                                         \
    {                                                                                                                      \
        .on_message = on_request, .ctx = (w), .on_cancel = on_worker_cancel, .on_credit = on_worker_credit                 \
    }

static inline lim_participant work(lim_bus *bus, const char *queue, worker *w, const char *identity)
{
    lim_participant p = { 0 };
    assert_int_equal(
        lim_work(bus, queue, OPTS(lim_serve_opts, .capacity = 1, .identity = identity, .handler = HANDLER(w)), &p), LIM_OK);
    return p;
}

static inline lim_participant serve(lim_bus *bus, const char *group, worker *w, const char *identity)
{
    lim_participant p = { 0 };
    assert_int_equal(lim_serve(bus, group,
                               OPTS(lim_serve_opts, .capacity = LIM_UNLIMITED, .identity = identity, .handler = HANDLER(w)),
                               &p),
                     LIM_OK);
    return p;
}

/* ---- an outcome, and the parts before it ---- */

typedef struct got {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    int parts, count;
    bool hold; /* the parts */
    lim_how how;
    lim_why why;
    lim_reason reason;
    lim_handed handed_over;
    uint32_t attempts, losses, excluded;
    lim_conv conv, compensation;
    char participant[64], text[64], detail[128];
    struct {
        uint32_t seq;
        lim_how how;
        char participant[32], text[32];
    } part[SEEN_MAX];
} got;
#define GOT                                                                                                                \
    {                                                                                                                      \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER                                               \
    }

static inline void note_outcome(got *g, const lim_outcome *o)
{
    g->how = o->how;
    g->why = o->why;
    g->reason = o->reason;
    g->handed_over = o->handed_over;
    g->attempts = o->attempts;
    g->losses = o->losses;
    g->excluded = o->excluded_count;
    g->conv = o->conv;
    g->compensation = o->compensation;
    copy_text(g->participant, sizeof g->participant, o->participant);
    copy_text(g->text, sizeof g->text, o->payload);
    copy_text(g->detail, sizeof g->detail, o->detail);
}

static inline void on_outcome(void *ctx, const lim_outcome *o)
{
    got *g = ctx;
    pthread_mutex_lock(&g->mutex);
    g->count++;
    note_outcome(g, o);
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->mutex);
}

static inline lim_done on_part(void *ctx, const lim_part_view *p)
{
    got *g = ctx;
    pthread_mutex_lock(&g->mutex);
    assert_int_equal(g->count, 0); /* never after the outcome */
    if (g->parts < SEEN_MAX) {
        g->part[g->parts].seq = p->seq;
        g->part[g->parts].how = p->how;
        copy_text(g->part[g->parts].participant, sizeof g->part[0].participant, p->participant);
        copy_text(g->part[g->parts].text, sizeof g->part[0].text, p->payload.len > 0 ? p->payload : p->detail);
    }
    g->parts++;
    bool hold = g->hold;
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->mutex);
    return hold ? LIM_HOLD : LIM_DONE;
}

static inline void got_wait(got *g, const int *count, int n)
{
    pthread_mutex_lock(&g->mutex);
    while (*count < n)
        pthread_cond_wait(&g->cond, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
}

/* ---- the queue's own words ---- */

/* What the group answers to a request of $sys.queues; into `out` (NULL: not wanted), cut there. */
static inline void admin(lim_bus *bus, const char *group, const char *json, char *out, size_t size)
{
    lim__blocker b;
    lim_pid to;
    size_t len = strlen(json);
    assert_int_equal(lim__group_get(bus, NULL, (lim_bytes){ group, strlen(group) }, &to), LIM_OK);
    lim_pid agent = lim__agent_for(bus, to);
    lim__blocker_init(&b, bus, to);
    lim__admin *a = lim__letter_new(NULL, &lim__type_admin, sizeof *a + len);
    assert_non_null(a);
    *a = (lim__admin){ agent, b.wait.ref, (uint32_t)len };
    memcpy(a->json, json, len);
    assert_int_equal(lim__agent_expect(bus, agent, &b.wait, true), LIM_OK);
    assert_int_equal(lim__post_reserved(bus->rt, to, a), LIM_OK);
    lim__blocker_wait(&b, agent, UINT64_MAX);
    assert_ptr_equal(b.type, &lim__type_shown);
    const lim__shown *s = b.body;
    char text[4096];
    copy_text(text, sizeof text, (lim_bytes){ s->json, s->len });
    assert_null(strstr(text, "\"error\""));
    if (out != NULL)
        copy_text(out, size, (lim_bytes){ s->json, s->len });
    lim__blocker_fini(&b);
}

#endif
