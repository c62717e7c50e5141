/* SPDX-License-Identifier: Apache-2.0
 * talk_world.h - what the tests of talks share: a bus, participants that write down what they hear, words to compare. */
#ifndef LIM__TALK_WORLD_H
#define LIM__TALK_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/agent.h"
#include "bus/bus.h"
#include "bus/letters.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define ALL             ((lim_participant){ 0 })
enum { SOON = 60000, HEARD_MAX = 64, GUESTS_MAX = 8, WORDS_MAX = 80 };

static uint32_t schedulers = 1;

static inline int open_bus(void **state)
{
    lim_bus *bus = NULL;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = schedulers), &bus), LIM_OK);
    *state = bus;
    return 0;
}

static inline int close_bus(void **state)
{
    lim_bus_close(*state);
    return 0;
}

/* ---- guests: participants that write down what they hear ---- */

typedef enum manner { /* what a guest does with a request */
    ECHOES = 1, HOLDS, KEEPS_SILENT
} manner;

typedef struct guest {
    lim_bus *bus;
    lim_participant id;
    char name;               /* 'a', 'b', ... */
    struct guest *all;       /* of its table, to name the others */
    _Atomic int manner;
    _Atomic uint32_t count, ends, stopped; /* stopped: requests in hand that nobody waits for any more */
    char heard[HEARD_MAX][WORDS_MAX];
    lim_conv conv[HEARD_MAX];
    uint64_t lease[HEARD_MAX];
    lim_cause cause;         /* of the last one */
} guest;

/* Who it is, in a table of guests: its letter; the opener: '-'. */
static inline char guest_of(const guest *all, lim_participant who)
{
    for (int i = 0; all != NULL && i < GUESTS_MAX; i++)
        if (all[i].id.id == who.id && who.id != 0)
            return all[i].name;
    return who.id == 0 ? '-' : '?';
}

static inline lim_done guest_hears(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    guest *g = ctx;
    uint32_t at = atomic_load(&g->count);
    assert_true(at < HEARD_MAX && bus == g->bus);
    snprintf(g->heard[at], WORDS_MAX, "%s%s%.*s %c%s%.*s",
             d->event != LIM_EVENT_NONE ? lim_event_text(d->event) : d->wants_reply ? "asked" : "told",
             d->type.len > 0 ? ":" : "", (int)d->type.len, (const char *)d->type.ptr, guest_of(g->all, d->from),
             d->payload.len > 0 ? " " : "", (int)d->payload.len, (const char *)d->payload.ptr);
    g->conv[at] = d->conv;
    g->lease[at] = d->lease;
    lim_cause_of(d, &g->cause);
    atomic_store(&g->count, at + 1);
    if (!d->wants_reply || atomic_load(&g->manner) == KEEPS_SILENT)
        return LIM_DONE;
    if (atomic_load(&g->manner) == HOLDS)
        return LIM_HOLD;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static inline void guest_ended(void *ctx)
{
    atomic_fetch_add(&((guest *)ctx)->ends, 1);
}

static inline void guest_stops(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, const char *why,
                               void *ctx)
{
    (void)bus, (void)self, (void)conv, (void)lease, (void)why;
    atomic_fetch_add(&((guest *)ctx)->stopped, 1);
}

static inline void wait_stopped(guest *g, uint32_t count)
{
    while (atomic_load(&g->stopped) < count)
        sched_yield();
}

static inline void guest_come(lim_bus *bus, guest *g, char name, guest *all, manner how)
{
    memset(g, 0, sizeof *g);
    g->bus = bus;
    g->name = name;
    g->all = all;
    atomic_store(&g->manner, (int)how);
    lim_handler h = { .on_message = guest_hears, .on_end = guest_ended, .on_cancel = guest_stops, .ctx = g };
    assert_int_equal(lim_participant_open(bus, OPTS(lim_serve_opts, .capacity = 9, .handler = h), &g->id), LIM_OK);
}

/* `count` of them: a, b, c ... */
static inline guest *guests_come(lim_bus *bus, int count, manner how)
{
    guest *all = calloc(GUESTS_MAX, sizeof *all);
    for (int i = 0; i < count; i++)
        guest_come(bus, &all[i], (char)('a' + i), all, how);
    return all;
}

/* Before their memory goes: nobody calls them any more. */
static inline void guests_go(lim_bus *bus, guest *all)
{
    for (int i = 0; i < GUESTS_MAX; i++) {
        if (all[i].id.id == 0)
            continue;
        lim_runtime_exit(bus->rt, (lim_pid){ all[i].id.id }, LIM_KILL);
        while (atomic_load(&all[i].ends) == 0)
            sched_yield();
    }
    free(all);
}

static inline void guest_dies(guest *g)
{
    lim_runtime_exit(g->bus->rt, (lim_pid){ g->id.id }, LIM_KILL);
    while (atomic_load(&g->ends) == 0)
        sched_yield();
}

static inline void wait_heard(guest *g, uint32_t count)
{
    while (atomic_load(&g->count) < count)
        sched_yield();
}

/* It has heard exactly these. */
#define assert_heard(g, ...)                                                                                           \
    do {                                                                                                               \
        static const char *const want_[] = { __VA_ARGS__ };                                                            \
        wait_heard((g), LIM_COUNT(want_));                                                                             \
        for (uint32_t i_ = 0; i_ < LIM_COUNT(want_); i_++)                                                             \
            assert_string_equal((g)->heard[i_], want_[i_]);                                                            \
        assert_int_equal(atomic_load(&(g)->count), LIM_COUNT(want_));                                                  \
    } while (0)

/* A delivery to stand on: as if it answered what it heard at `at`. */
static inline lim_delivery standing(const guest *g, uint32_t at)
{
    return (lim_delivery){ .self = g->id, .conv = g->conv[at], .lease = g->lease[at] };
}

static inline void guest_says(guest *g, lim_conv conv, const char *text)
{
    lim_delivery d = { .self = g->id, .conv = conv };
    assert_int_equal(lim_conv_say(g->bus, &d, lim__str(text)), LIM_OK);
}

static inline void guest_says_to(guest *g, lim_conv conv, lim_participant to, const char *text)
{
    lim_delivery d = { .self = g->id, .conv = conv };
    assert_int_equal(lim_conv_say_to(g->bus, &d, to, lim__str(text)), LIM_OK);
}

/* ---- the opener ---- */

static inline lim_conv talk_open(lim_bus *bus, lim_participant with)
{
    lim_conv c;
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .participant = with, .timeout_ms = LIM_FOREVER), &c), LIM_OK);
    return c;
}

static inline lim_conv_info talk_info(lim_bus *bus, lim_conv c)
{
    lim_conv_info info;
    assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    return info;
}

static inline void talk_gone(lim_bus *bus, lim_conv c)
{
    while (lim_alive(bus->rt, (lim_pid){ c.id }))
        sched_yield();
}

static inline void talk_close(lim_bus *bus, lim_conv c)
{
    assert_int_equal(lim_conv_close(bus, c), LIM_OK);
    talk_gone(bus, c);
}

static inline void send_all(lim_bus *bus, lim_conv c, const char *text)
{
    lim_admission a;
    assert_int_equal(lim_conv_send(bus, c, ALL, lim__str(text), &a), LIM_OK);
    assert_int_equal(a.verdict, LIM_ACCEPT);
}

/* The next thing that is heard: "reply a text", "reply:joined a", "crashed: killed b" ... */
static inline void assert_receives(lim_bus *bus, lim_conv c, const guest *all, const char *want)
{
    lim_outcome o;
    char got[WORDS_MAX];
    assert_int_equal(lim_conv_receive(bus, c, SOON, &o), LIM_OK);
    snprintf(got, sizeof got, "%s%s%s%s%.*s %c%s%.*s", lim_how_text(o.how), o.event != 0 ? ":" : "",
             lim_event_text((lim_event)o.event), o.detail.len > 0 && o.how == LIM_HOW_REPLY ? ":" : "",
             o.how == LIM_HOW_REPLY ? (int)o.detail.len : 0, (const char *)o.detail.ptr, guest_of(all, o.from),
             o.payload.len > 0 ? " " : "", (int)o.payload.len, (const char *)o.payload.ptr);
    lim_outcome_fini(&o);
    assert_string_equal(got, want);
}

/* ---- asks that wait on threads of their own ---- */

typedef struct asking {
    lim_bus *bus;
    lim_conv conv;
    lim_participant to; /* {0}, receives true: a receive */
    bool receives;
    char text[32];
    int64_t timeout_ms;
    lim_err err;
    lim_outcome outcome;
    pthread_t thread;
} asking;

static inline void *asking_run(void *arg)
{
    asking *a = arg;
    a->err = a->receives ? lim_conv_receive(a->bus, a->conv, a->timeout_ms, &a->outcome)
                         : lim_conv_ask(a->bus, a->conv, a->to, lim__str(a->text), a->timeout_ms, &a->outcome);
    return NULL;
}

static inline void asking_start(asking *a, lim_bus *bus, lim_conv c, const guest *to, const char *text)
{
    *a = (asking){ .bus = bus, .conv = c, .receives = to == NULL, .timeout_ms = LIM_FOREVER };
    a->to = to != NULL ? to->id : ALL;
    snprintf(a->text, sizeof a->text, "%s", text);
    assert_int_equal(pthread_create(&a->thread, NULL, asking_run, a), 0);
}

static inline void asking_end(asking *a, lim_how how)
{
    pthread_join(a->thread, NULL);
    assert_int_equal(a->err, LIM_OK);
    assert_int_equal(a->outcome.how, how);
}

static inline void wait_pending(lim_bus *bus, lim_conv c, uint32_t pending)
{
    while (talk_info(bus, c).pending != pending)
        sched_yield();
}

static inline bool has(lim_bytes text, const char *part)
{
    return memmem(text.ptr, text.len, part, strlen(part)) != NULL;
}

/* What `$sys.conversations` says to it. */
static inline void assert_shown(lim_bus *bus, const char *request, const char *part)
{
    lim_outcome o;
    assert_int_equal(lim_ask(bus, "$sys.conversations", lim__str(request), OPTS(lim_ask_opts, .timeout_ms = SOON), &o),
                     LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    if (!has(o.payload, part))
        fail_msg("%s answered %.*s, without %s", request, (int)o.payload.len, (const char *)o.payload.ptr, part);
    lim_outcome_fini(&o);
}

/* The tests in a bus of one scheduler, then in one of two. */
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
#define RUN_BOTH(tests)                                                                                                \
    do {                                                                                                               \
        int failed_ = 0;                                                                                               \
        for (schedulers = 1; schedulers <= 2; schedulers++)                                                            \
            failed_ += cmocka_run_group_tests_name(schedulers == 1 ? "one scheduler" : "two schedulers", tests, NULL,  \
                                                   NULL);                                                              \
        return failed_;                                                                                                \
    } while (0)

#endif
