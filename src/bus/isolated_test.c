/* SPDX-License-Identifier: Apache-2.0
 * isolated_test.c - functions of the program that run on threads of their own: what they may do there, and what becomes
 * of those that do not come back. On a bus with real threads; nothing is timed, a gate holds whoever shall be late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "bus/bus.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })
#define ASK_OPTS        OPTS(lim_ask_opts, .timeout_ms = 60000)
enum { THREADS = 3 };

static lim_bus *bus;
static struct {
    _Atomic bool open;         /* who comes to a gate that is closed waits */
    _Atomic uint32_t in, out;  /* calls of `gated` that began, and that returned */
    _Atomic uint32_t messages; /* on the channel `told` */
    lim_channel told;
} gate;

static lim_done on_echo(lim_bus *b, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(b, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static lim_done on_told(lim_bus *b, const lim_delivery *d, void *ctx)
{
    (void)b, (void)d, (void)ctx;
    atomic_fetch_add(&gate.messages, 1);
    return LIM_DONE;
}

static void serve(const char *group, const char *identity, const char *const *tags)
{
    lim_participant p;
    const lim_serve_opts *opts = OPTS(lim_serve_opts, .identity = identity, .capacity = 1000, .tags = tags,
                                      .handler = { .on_message = on_echo });
    assert_int_equal(lim_serve(bus, group, opts, &p), LIM_OK);
}

static int open_bus(void **state)
{
    static const char *const tags[] = { "eu", "gpu", NULL };
    (void)state;
    memset(&gate, 0, sizeof gate);
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2, .blocking_max = THREADS), &bus), LIM_OK);
    serve("g", "one", NULL);
    serve("g", "two", tags);
    serve("oracle", "pythia", NULL);
    assert_int_equal(lim_channel_open(bus, "told", NULL, &gate.told), LIM_OK);
    return 0;
}

static int close_bus(void **state)
{
    (void)state;
    atomic_store(&gate.open, true);
    lim_bus_close(bus);
    return 0;
}

static lim_hash deploy_with(const char *identity, lim_route_decide *decide, const lim_deploy_opts *opts)
{
    lim_hash hash;
    lim_diag diag = { 0 };
    assert_int_equal(lim_route_host_load(bus, (lim_bytes){ identity, strlen(identity) }, identity, decide, &gate,
                                         OPTS(lim_route_host_opts, .isolated = true), &hash),
                     LIM_OK);
    if (lim_deploy(bus, "g", &hash, opts, &diag, NULL) != LIM_OK)
        fail_msg("%s", diag.text);
    return hash;
}
#define deploy(identity, decide, ...) deploy_with(identity, decide, OPTS(lim_deploy_opts, __VA_ARGS__))

static char *ask(lim_how expected)
{
    static char text[512];
    lim_outcome o;
    assert_int_equal(lim_ask(bus, "g", BYTES("{\"n\":1}"), ASK_OPTS, &o), LIM_OK);
    lim_bytes said = expected == LIM_HOW_REPLY ? o.participant : o.detail;
    snprintf(text, sizeof text, "%.*s", (int)said.len, (const char *)said.ptr);
    if (o.how != expected)
        fail_msg("%s: %s", lim_how_text(o.how), text);
    lim_outcome_fini(&o);
    return text;
}

static void expect(const char *op, const char *says)
{
    char request[80];
    lim_outcome o;
    int len = snprintf(request, sizeof request, "{\"op\":\"%s\",\"group\":\"g\"}", op);
    assert_int_equal(lim_ask(bus, "$sys.routes", (lim_bytes){ request, (size_t)len }, ASK_OPTS, &o), LIM_OK);
    if (memmem(o.payload.ptr, o.payload.len, says, strlen(says)) == NULL)
        fail_msg("%s: no %s in %.*s", op, says, (int)o.payload.len, (const char *)o.payload.ptr);
    lim_outcome_fini(&o);
}

/* ---- what it may do ---- */

static int64_t tagged(void *ctx, const lim_route_message *m, const lim_candidate *c, uint32_t n)
{
    (void)ctx;
    if (m->payload.len != 7 || memcmp(m->payload.ptr, "{\"n\":1}", 7) != 0)
        return 99;
    for (uint32_t i = 0; i < n; i++)
        if (c[i].tag_count == 2 && c[i].tags[1].len == 3 && memcmp(c[i].tags[1].ptr, "gpu", 3) == 0)
            return i;
    return LIM_ROUTE_NOBODY;
}

static int64_t asks_and_tells(void *ctx, const lim_route_message *m, const lim_candidate *c, uint32_t n)
{
    lim_outcome o;
    lim_admission out;
    (void)ctx, (void)m, (void)c;
    if (lim_publish(bus, gate.told, BYTES("{}"), NULL, &out) != LIM_OK || out.verdict != LIM_ACCEPT)
        return LIM_ROUTE_NOBODY;
    if (lim_ask(bus, "oracle", BYTES("1"), ASK_OPTS, &o) != LIM_OK || o.how != LIM_HOW_REPLY)
        return LIM_ROUTE_NOBODY;
    int64_t index = *(const char *)o.payload.ptr - '0';
    lim_outcome_fini(&o);
    return index < n ? index : LIM_ROUTE_NOBODY;
}

static void test_an_isolated_function_sees_what_others_see(void **state) /* proves RF16 */
{
    (void)state;
    deploy("tagged", tagged, .by = "test");
    for (int i = 0; i < 20; i++)
        assert_string_equal(ask(LIM_HOW_REPLY), "two");
    expect("show", "\"calls\":20");
}

static void test_an_isolated_function_may_publish_and_ask(void **state) /* proves RF16 */
{
    lim_sub sub;
    (void)state;
    assert_int_equal(lim_subscribe(bus, "told",
                                   OPTS(lim_sub_opts, .window = 100, .backlog = 100, .policy = LIM_DROP_OLDEST,
                                        .handler = { .on_message = on_told }),
                                   &sub),
                     LIM_OK);
    deploy("asks", asks_and_tells, .by = "test");
    for (int i = 0; i < 10; i++)
        assert_string_equal(ask(LIM_HOW_REPLY), "two");
    while (atomic_load(&gate.messages) < 10)
        sched_yield();
}

/* ---- what does not come back ---- */

static int64_t gated(void *ctx, const lim_route_message *m, const lim_candidate *c, uint32_t n)
{
    (void)ctx, (void)m;
    atomic_fetch_add(&gate.in, 1);
    while (!atomic_load(&gate.open))
        sched_yield();
    bool whole = n == 2 && c[0].name.len == 3 && memcmp(c[0].name.ptr, "one", 3) == 0; /* it is still there */
    atomic_fetch_add(&gate.out, 1);
    return whole ? 0 : 99;
}

static void test_one_that_does_not_come_back_is_abandoned(void **state) /* proves RF16 */
{
    (void)state;
    deploy("gated", gated, .wall_ms_max = 20, .breaker_faults = LIM_UNLIMITED);
    for (uint32_t i = 1; i < THREADS; i++) { /* one thread is left to others */
        assert_non_null(strstr(ask(LIM_HOW_REFUSED), "abandoned"));
        assert_int_equal(atomic_load(&gate.in), i);
    }
    assert_non_null(strstr(ask(LIM_HOW_REFUSED), "2 of 3 threads are held by functions that nobody waits for any more "
                                                 "(blocking_max)"));
    assert_int_equal(atomic_load(&gate.in), THREADS - 1);
    expect("show", "\"timed_out\":2");
    expect("show", "\"not_started\":1");
    expect("logs", "abandoned");
    atomic_store(&gate.open, true); /* they return at last: nobody hears of it, and their threads are free */
    while (atomic_load(&gate.out) < THREADS - 1)
        sched_yield();
    deploy("tagged", tagged, .by = "test");
    for (bool answered = false; !answered;) { /* what a thread has left is counted a moment later */
        lim_outcome o;
        assert_int_equal(lim_ask(bus, "g", BYTES("{\"n\":1}"), ASK_OPTS, &o), LIM_OK);
        answered = o.how == LIM_HOW_REPLY;
        if (answered)
            assert_memory_equal(o.participant.ptr, "two", 3);
        lim_outcome_fini(&o);
    }
}

typedef struct counted {
    _Atomic uint32_t abandoned, no_thread, others, all;
} counted;

static void on_counted(void *ctx, const lim_outcome *o)
{
    counted *n = ctx;
    bool abandoned = memmem(o->detail.ptr, o->detail.len, "abandoned", 9) != NULL;
    bool no_thread = memmem(o->detail.ptr, o->detail.len, "no thread was free", 18) != NULL;
    atomic_fetch_add(abandoned ? &n->abandoned : no_thread ? &n->no_thread : &n->others, 1);
    atomic_fetch_add(&n->all, 1);
}

static void test_one_that_finds_no_thread_is_not_started(void **state) /* proves RF16 */
{
    counted n = { 0 };
    (void)state;
    deploy("gated", gated, .wall_ms_max = 500, .unfinished_max = 8, .breaker_faults = LIM_UNLIMITED);
    for (int i = 0; i < 8; i++)
        assert_int_equal(lim_ask_async(bus, "g", BYTES("{}"), ASK_OPTS, on_counted, &n, NULL), LIM_OK);
    while (atomic_load(&n.all) < 8)
        sched_yield();
    assert_int_equal(atomic_load(&n.abandoned), THREADS);
    assert_int_equal(atomic_load(&n.no_thread), 8 - THREADS);
    assert_int_equal(atomic_load(&gate.in), THREADS);
}

static void test_a_call_ends_on_the_version_it_began_with(void **state)
{
    counted n = { 0 };
    (void)state;
    deploy("gated", gated, .wall_ms_max = 60000);
    assert_int_equal(lim_ask_async(bus, "g", BYTES("{}"), ASK_OPTS, on_counted, &n, NULL), LIM_OK);
    while (atomic_load(&gate.in) == 0)
        sched_yield();
    deploy("tagged", tagged, .by = "test");
    assert_string_equal(ask(LIM_HOW_REPLY), "two");
    expect("show", "draining");
    atomic_store(&gate.open, true);
    while (atomic_load(&n.all) == 0)
        sched_yield();
    assert_int_equal(atomic_load(&n.others), 1);
    expect("show", "retired");
}

static void test_nothing_is_left_of_many_calls(void **state)
{
    lim_bus_census before, after;
    (void)state;
    deploy("tagged", tagged, .by = "test");
    assert_string_equal(ask(LIM_HOW_REPLY), "two");
    do
        lim_bus_census_take(bus, &before);
    while (before.conversations > 0);
    for (int i = 0; i < 2000; i++)
        assert_string_equal(ask(LIM_HOW_REPLY), "two");
    do
        lim_bus_census_take(bus, &after);
    while (after.conversations > 0 || after.runtime.processes > before.runtime.processes ||
           after.runtime.timers > before.runtime.timers);
}

static int64_t slow(void *ctx, const lim_route_message *m, const lim_candidate *c, uint32_t n)
{
    (void)ctx, (void)m, (void)c, (void)n;
    atomic_fetch_add(&gate.in, 1);
    for (volatile uint32_t i = 0; i < 20000000; i = i + 1)
        continue;
    return 0;
}

static void test_closing_waits_for_what_runs(void **state)
{
    counted n = { 0 };
    (void)state;
    deploy("slow", slow, .wall_ms_max = 60000, .unfinished_max = 16);
    for (int i = 0; i < 12; i++)
        assert_int_equal(lim_ask_async(bus, "g", BYTES("{}"), ASK_OPTS, on_counted, &n, NULL), LIM_OK);
    while (atomic_load(&gate.in) == 0)
        sched_yield();
    lim_bus_close(bus);
    assert_int_equal(atomic_load(&n.all), 12);
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 1), &bus), LIM_OK);
}

static void test_channels_take_none(void **state)
{
    lim_diag diag = { 0 };
    (void)state;
    lim_hash hash = deploy("tagged", tagged, .by = "test");
    assert_int_equal(lim_channel_deploy(bus, "jobs", &hash, OPTS(lim_deploy_opts), &diag, NULL), LIM_E_MISUSE);
    assert_non_null(strstr(diag.text, "isolated"));
}

#define T(test) cmocka_unit_test_setup_teardown(test, open_bus, close_bus)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_an_isolated_function_sees_what_others_see),
        T(test_an_isolated_function_may_publish_and_ask),
        T(test_one_that_does_not_come_back_is_abandoned),
        T(test_one_that_finds_no_thread_is_not_started),
        T(test_a_call_ends_on_the_version_it_began_with),
        T(test_nothing_is_left_of_many_calls),
        T(test_closing_waits_for_what_runs),
        T(test_channels_take_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
