/* SPDX-License-Identifier: Apache-2.0
 * plan_world.h - what the tests of schedules and sagas share: a simulated bus whose wall clock can be set, workers that do
 * as they are told, asks of the $sys groups, memory that fails on demand. Included by *_test.c only. */
#ifndef LIM__PLAN_WORLD_H
#define LIM__PLAN_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "bus/bus.h"
#include "bus/participant.h"
#include "bus/zone.h"
#include "data/data.h"
#include "sim/sim_os.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define SECOND          UINT64_C(1000000000)
#define MINUTE          (60 * SECOND)
#define HOUR            (60 * MINUTE)
#define DAY             (24 * HOUR)

/* ---- memory: the n-th allocation from now fails (not under a sanitizer, which owns malloc) ---- */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define OWNS_MALLOC 1
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef OWNS_MALLOC
#endif
#endif
#endif

static uint64_t malloc_countdown;
#ifdef OWNS_MALLOC
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
static bool malloc_fails(void)
{
    return malloc_countdown != 0 && --malloc_countdown == 0;
}
void *malloc(size_t bytes)
{
    return malloc_fails() ? NULL : __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes)
{
    return malloc_fails() ? NULL : __libc_calloc(count, bytes);
}
void *realloc(void *block, size_t bytes)
{
    return malloc_fails() ? NULL : __libc_realloc(block, bytes);
}
#endif

/* ---- the world ---- */

enum { SEEN_MAX = 4096 };
typedef struct seen { /* something that was delivered */
    uint64_t wall_ns;
    lim_conv conv;
    lim_participant self;
    uint64_t lease;
    uint32_t hops;
    char where[24], type[24], text[200];
} seen;

typedef struct world {
    lim__sim *sim;
    lim__os *os;
    lim_bus *bus;
    seen seen[SEEN_MAX];
    uint32_t count;
    char answer[1 << 16];
    lim_how how;
} world;

static world w;
static int64_t skew; /* of the wall clock */
static uint64_t (*true_wall)(lim__os *os);

static inline uint64_t skewed_wall(lim__os *os)
{
    return true_wall(os) + (uint64_t)skew;
}

static inline uint64_t wall(void)
{
    return w.os->wall_ns(w.os);
}

static inline void set_clock(const char *text)
{
    lim__zone *utc;
    uint64_t ns;
    assert_int_equal(lim__zone_open(lim__str("UTC"), NULL, &utc), LIM_OK);
    assert_int_equal(lim__instant_parse(lim__str(text), utc, NULL, &ns), LIM_OK);
    lim__zone_free(utc);
    skew += (int64_t)(ns - wall());
}

static inline void run(uint64_t ns)
{
    lim__sim_run(w.sim, lim__sim_now(w.sim) + ns, NULL, NULL);
}

static bool sched_turn(void *ctx)
{
    return lim__sched_turn(ctx, -1);
}

static uint64_t sched_due(void *ctx)
{
    return lim__sched_next_due_ns(ctx);
}

static inline int open_world_seeded(uint64_t seed)
{
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    memset(&w, 0, sizeof w);
    skew = 0;
    w.sim = lim__sim_open(seed);
    w.os = lim__sim_host(w.sim, "host");
    true_wall = w.os->wall_ns;
    w.os->wall_ns = skewed_wall;
    lim__runtime_opts runtime = { .os = w.os, .scheduler_count = 1, .threads = false };
    assert_int_equal(lim__bus_open(&opts, &runtime, &w.bus), LIM_OK);
    lim__sim_task_add(w.sim, w.os, "sched", sched_turn, sched_due, lim__sched_at(w.bus->rt, 0));
    set_clock("2026-03-28T12:00:00Z");
    run(SECOND);
    return 0;
}

static inline int open_world(void **state)
{
    (void)state;
    return open_world_seeded(7);
}

static inline int close_world(void **state)
{
    (void)state;
    malloc_countdown = 0;
    lim_bus_close(w.bus);
    lim__sim_close(w.sim);
    return 0;
}

/* ---- asking ---- */

static bool answered(void *ctx)
{
    (void)ctx;
    return w.how != LIM_HOW_NONE;
}

static void on_answer(void *ctx, const lim_outcome *o)
{
    (void)ctx;
    lim_bytes text = o->how == LIM_HOW_REPLY ? o->payload : o->detail;
    snprintf(w.answer, sizeof w.answer, "%.*s", (int)text.len, text.len > 0 ? (const char *)text.ptr : "");
    w.how = o->how;
}

/* Begins an ask of a $sys group, or any other. */
static inline lim_err ask_begin(const char *group, const char *json, lim_conv *conv)
{
    w.how = LIM_HOW_NONE;
    return lim_ask_async(w.bus, group, lim__str(json), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER), on_answer, NULL,
                         conv);
}

/* The answer's text. */
static inline const char *ask(const char *group, const char *json)
{
    assert_int_equal(ask_begin(group, json, NULL), LIM_OK);
    assert_true(lim__sim_run(w.sim, lim__sim_now(w.sim) + DAY, answered, NULL));
    return w.answer;
}

static inline void expect_answer(const char *group, const char *json, const char *part)
{
    const char *got = ask(group, json);
    if (strstr(got, part) == NULL)
        fail_msg("%s\n  answered %s\n  and not  %s", json, got, part);
}

static inline void expect_text(const char *part)
{
    if (strstr(w.answer, part) == NULL)
        fail_msg("%s\n  has no %s", w.answer, part);
}

/* ---- workers, participants, subscribers ---- */

typedef enum act { ACT_REPLY = 1, ACT_FAIL, ACT_HOLD, ACT_DIE, ACT_SAY_NOTHING } act;
typedef struct helper {
    const char *where;
    act (*decide)(struct helper *h, const seen *s); /* NULL: `always` */
    act always;
    lim_pid pid;
    const char *reply;
    void *ctx;
} helper;

static seen *note(const char *where, const lim_delivery *d)
{
    assert_true(w.count < SEEN_MAX);
    seen *s = &w.seen[w.count++];
    *s = (seen){ .wall_ns = wall(), .conv = d->conv, .self = d->self, .lease = d->lease, .hops = d->hops };
    snprintf(s->where, sizeof s->where, "%s", where);
    snprintf(s->type, sizeof s->type, "%.*s", (int)d->type.len, d->type.len > 0 ? (const char *)d->type.ptr : "");
    snprintf(s->text, sizeof s->text, "%.*s", (int)d->payload.len, d->payload.len > 0 ? (const char *)d->payload.ptr : "");
    return s;
}

static lim_done on_request(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    helper *h = ctx;
    if (d->event != LIM_EVENT_NONE)
        return LIM_DONE;
    const seen *s = note(h->where, d);
    switch (h->decide != NULL ? h->decide(h, s) : h->always) {
    case ACT_REPLY:
        (void)!lim_reply(bus, d, lim__str(h->reply != NULL ? h->reply : "ok"));
        return LIM_DONE;
    case ACT_FAIL:
        return LIM_FAIL;
    case ACT_DIE:
        (void)!lim_leave(bus, d->self); /* with it in hand */
        return LIM_HOLD;
    case ACT_HOLD:
    case ACT_SAY_NOTHING:
        break;
    }
    return LIM_HOLD;
}

static inline void helper_join(helper *h, bool queue)
{
    lim_pid group;
    lim_handler handler = { .on_message = on_request, .ctx = h };
    lim__member_kind kind = queue ? LIM__MEMBER_WORK : LIM__MEMBER_SERVE;
    assert_int_equal(lim__group_get(w.bus, NULL, lim__str(h->where), &group), LIM_OK);
    assert_int_equal(lim__participant_spawn(w.bus, &handler, kind, group, &h->pid), LIM_OK);
    char name[40];
    snprintf(name, sizeof name, "%s-%llx", h->where, (unsigned long long)h->pid.id);
    lim__join *j = lim__join_new(NULL, h->pid, kind, lim__str(name), 16, NULL, NULL);
    assert_non_null(j);
    j->reply_to = h->pid;
    assert_int_equal(lim__post_reserved(w.bus->rt, group, j), LIM_OK);
}

static lim_done on_publish(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus;
    note(ctx, d);
    return LIM_DONE;
}

static inline void subscribe(char *channel)
{
    lim_sub sub;
    assert_int_equal(lim_subscribe(w.bus, channel,
                                   OPTS(lim_sub_opts, .handler = { .on_message = on_publish, .ctx = channel }), &sub),
                     LIM_OK);
}

static inline lim_bus_census census(void)
{
    lim_bus_census c;
    lim_bus_census_take(w.bus, &c);
    return c;
}

#endif
