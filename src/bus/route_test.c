/* SPDX-License-Identifier: Apache-2.0
 * route_test.c - router slots as a program sees them: deploying under load, rolling back, trials, the breaker, on a bus
 * with real threads; and that conversations choose by them, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "bus/bus.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })
#define ASK_OPTS        OPTS(lim_ask_opts, .timeout_ms = 20000)

static int open_bus(void **state)
{
    lim_bus *bus = NULL;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2), &bus), LIM_OK);
    *state = bus;
    return 0;
}

static int close_bus(void **state)
{
    lim_bus_close(*state);
    return 0;
}

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static lim_done on_hold(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d;
    atomic_fetch_add((_Atomic int *)ctx, 1);
    return LIM_HOLD;
}

static lim_participant serve(lim_bus *bus, const char *group, const char *identity,
                             lim_done (*handler)(lim_bus *, const lim_delivery *, void *), void *ctx)
{
    lim_participant p;
    const lim_serve_opts *opts =
        OPTS(lim_serve_opts, .identity = identity, .capacity = 1000, .handler = { .on_message = handler, .ctx = ctx });
    assert_int_equal(lim_serve(bus, group, opts, &p), LIM_OK);
    return p;
}

static lim_hash load(lim_bus *bus, const char *code)
{
    lim_hash hash;
    lim_diag diag = { 0 };
    if (lim_artifact_load(bus, LIM_LUA, (lim_bytes){ code, strlen(code) }, "f.lua", &diag, &hash) != LIM_OK)
        fail_msg("%s", diag.text);
    return hash;
}

static void deploy(lim_bus *bus, const char *group, lim_hash hash)
{
    assert_int_equal(lim_deploy(bus, group, &hash, OPTS(lim_deploy_opts, .by = "test"), NULL, NULL), LIM_OK);
}

/* Who answers. */
static void answered_by(lim_bus *bus, const char *group, const char *who)
{
    lim_outcome o;
    assert_int_equal(lim_ask(bus, group, BYTES("{}"), ASK_OPTS, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    assert_int_equal(o.participant.len, strlen(who));
    assert_memory_equal(o.participant.ptr, who, strlen(who));
    lim_outcome_fini(&o);
}

static void expect(lim_bus *bus, const char *request, const char *wanted)
{
    lim_outcome o;
    assert_int_equal(lim_sys(bus, "$sys.routes", request, 20000, &o), LIM_OK);
    char text[16384];
    snprintf(text, sizeof text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
    if (o.how != LIM_HOW_REPLY || strstr(text, wanted) == NULL)
        fail_msg("%s answered %s, without %s", request, text, wanted);
    lim_outcome_fini(&o);
}

#define FIRST  "return function(m, c) return c[1] end"
#define SECOND "return function(m, c) return c[2] end"
#define LONG   "return function(m, c) local n = 0 for i = 1, 20000 do n = n + i end return c[2] end"

/* ---- tests ---- */

typedef struct load_state {
    lim_bus *bus;
    _Atomic int under_way, good, bad;
    _Atomic bool stop;
} load_state;

static void again(load_state *l);

static void on_outcome(void *ctx, const lim_outcome *o)
{
    load_state *l = ctx;
    atomic_fetch_add(o->how == LIM_HOW_REPLY ? &l->good : &l->bad, 1);
    if (o->how != LIM_HOW_REPLY)
        fprintf(stderr, "%s: %.*s\n", lim_how_text(o->how), (int)o->detail.len, (const char *)o->detail.ptr);
    if (!atomic_load(&l->stop))
        again(l);
    atomic_fetch_sub(&l->under_way, 1);
}

static void again(load_state *l)
{
    atomic_fetch_add(&l->under_way, 1);
    lim_err err =
        lim_ask_async(l->bus, "g", BYTES("{\"n\":1}"), OPTS(lim_ask_opts, .timeout_ms = 60000), on_outcome, l, NULL);
    if (err == LIM_OK)
        return;
    if (err != LIM_E_CLOSED || !atomic_load(&l->stop)) /* the test is over */
        atomic_fetch_add(&l->bad, 1);
    atomic_fetch_sub(&l->under_way, 1);
}

static void test_ten_thousand_swaps_under_load_fail_nobody(void **state) /* proves RF7 */
{
    lim_bus *bus = *state;
    load_state l = { .bus = bus };
    lim_hash versions[] = { load(bus, FIRST), load(bus, SECOND), load(bus, LONG) };
    serve(bus, "g", "one", on_echo, NULL);
    serve(bus, "g", "two", on_echo, NULL);
    for (int i = 0; i < 4; i++) /* as many as may be unfinished at once */
        again(&l);
    for (int i = 0; i < 10000; i++) /* a busy machine may keep the thread waiting in the middle of a decision */
        assert_int_equal(lim_deploy(bus, "g", &versions[i % 3],
                                    OPTS(lim_deploy_opts, .cpu_us_max = 30000000, .wall_ms_max = 60000), NULL, NULL),
                         LIM_OK);
    atomic_store(&l.stop, true);
    assert_int_equal(lim_bus_drain(bus, 60000), LIM_OK);
    while (atomic_load(&l.under_way) > 0) /* the last callbacks are on their way out */
        ;
    assert_int_equal(l.bad, 0);
    assert_true(l.good > 100);
}

static void test_a_program_rolls_back_and_tries_out(void **state) /* proves RF15 */
{
    lim_bus *bus = *state;
    lim_diag diag = { 0 };
    lim_hash first = load(bus, FIRST), second = load(bus, SECOND), previous;
    serve(bus, "g", "one", on_echo, NULL);
    serve(bus, "g", "two", on_echo, NULL);
    deploy(bus, "g", first);
    answered_by(bus, "g", "one");
    assert_int_equal(lim_deploy(bus, "g", &second, OPTS(lim_deploy_opts, .if_version = &second), &diag, &previous),
                     LIM_E_EXISTS);
    assert_int_equal(lim_deploy(bus, "g", &second, OPTS(lim_deploy_opts, .if_version = &first), &diag, &previous),
                     LIM_OK);
    assert_memory_equal(previous.b, first.b, sizeof first.b);
    answered_by(bus, "g", "two");
    assert_int_equal(lim_rollback(bus, "g", NULL, "ann", &diag, &previous), LIM_OK);
    assert_memory_equal(previous.b, second.b, sizeof first.b);
    answered_by(bus, "g", "one");
    assert_int_equal(lim_deploy(bus, "g", &second, OPTS(lim_deploy_opts, .trial = LIM_TRIAL_SHADOW), &diag, NULL),
                     LIM_OK);
    answered_by(bus, "g", "one");
    expect(bus, "{\"op\":\"show\",\"group\":\"g\"}", "\"differed\":1");
    assert_int_equal(lim_trial_stop(bus, "g", "ann", &diag), LIM_OK);
    assert_int_equal(lim_trial_promote(bus, "g", "ann", &diag, NULL), LIM_E_NOTFOUND);
    assert_int_equal(
        lim_deploy(bus, "g", &second, OPTS(lim_deploy_opts, .trial = LIM_TRIAL_RAMP, .ramp = 1), &diag, NULL), LIM_OK);
    assert_int_equal(lim_trial_promote(bus, "g", "ann", &diag, &previous), LIM_OK);
    answered_by(bus, "g", "two");
    assert_int_equal(lim_rollback(bus, "g", &first, NULL, &diag, NULL), LIM_OK);
    answered_by(bus, "g", "one");
    assert_int_equal(lim_rollback(bus, "nobody", NULL, NULL, &diag, NULL), LIM_E_NOTFOUND);
    expect(bus, "{\"op\":\"history\",\"group\":\"g\"}", "\"kind\":\"promote\"");
    expect(bus, "{\"op\":\"history\",\"group\":\"g\",\"after\":2,\"max\":1}", "\"n\":3");
}

static void on_end(void *ctx)
{
    (void)ctx;
}

static lim_done on_event(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus;
    if (memmem(d->payload.ptr, d->payload.len, "\"fault\"", 7) == NULL)
        atomic_fetch_add((_Atomic int *)ctx, 1);
    return LIM_DONE;
}

static void test_the_breaker_is_an_event(void **state) /* proves RF11 */
{
    lim_bus *bus = *state;
    static _Atomic int events;
    lim_sub sub;
    lim_hash good = load(bus, SECOND), bad = load(bus, "return function() error('broken') end");
    atomic_store(&events, 0);
    assert_int_equal(lim_subscribe(bus, "$sys.events.breaker",
                                   OPTS(lim_sub_opts, .policy = LIM_DROP_OLDEST,
                                        .handler = { .on_message = on_event, .on_end = on_end, .ctx = &events }),
                                   &sub),
                     LIM_OK);
    serve(bus, "g", "one", on_echo, NULL);
    serve(bus, "g", "two", on_echo, NULL);
    deploy(bus, "g", good);
    assert_int_equal(lim_deploy(bus, "g", &bad,
                                OPTS(lim_deploy_opts, .breaker_faults = 3, .on_fault = LIM_ON_FAULT_PREVIOUS), NULL,
                                NULL),
                     LIM_OK);
    for (int i = 0; i < 10; i++)
        answered_by(bus, "g", "two");
    expect(bus, "{\"op\":\"show\",\"group\":\"g\"}", "\"crashed\":3");
    expect(bus, "{\"op\":\"history\",\"group\":\"g\"}", "broken");
    while (atomic_load(&events) < 1)
        ;
    assert_int_equal(lim_unsubscribe(bus, sub), LIM_OK);
}

/* The replacement of one that died is chosen by the same function, which does not see the dead one any more. */
static void test_policy_next_asks_the_function_without_the_dead(void **state) /* proves CV5 */
{
    lim_bus *bus = *state;
    static _Atomic int held;
    static load_state l;
    lim_participant first = serve(bus, "g", "a", on_hold, &held);
    serve(bus, "g", "b", on_echo, NULL);
    serve(bus, "g", "c", on_echo, NULL);
    atomic_store(&held, 0);
    l = (load_state){ .bus = bus, .stop = true };
    deploy(bus, "g",
           load(bus, "return function(m, c) print(#c, c[1].name or c[1].id) if #c == 3 then return c[1] end "
                     "return c[2] end"));
    atomic_fetch_add(&l.under_way, 1);
    assert_int_equal(lim_ask_async(bus, "g", BYTES("{}"),
                                   OPTS(lim_ask_opts, .timeout_ms = 20000, .on_crash = LIM_CRASH_NEXT), on_outcome, &l,
                                   NULL),
                     LIM_OK);
    while (atomic_load(&held) < 1)
        ;
    assert_int_equal(lim_leave(bus, first), LIM_OK);
    while (atomic_load(&l.under_way) > 0)
        ;
    assert_int_equal(l.good, 1);
    expect(bus, "{\"op\":\"logs\",\"group\":\"g\"}", "\"line\":\"3");
    expect(bus, "{\"op\":\"logs\",\"group\":\"g\",\"after\":1}", "\"line\":\"2");
}

static int64_t by_name(void *ctx, const lim_route_message *m, const lim_candidate *c, uint32_t n)
{
    const char *name = ctx;
    if (m->payload.len > 2) /* slower than a slice */
        for (volatile uint32_t i = 0; i < 3000000; i = i + 1)
            continue;
    for (uint32_t i = 0; i < n; i++) /* all of them are where the bus is, which was not told where that is */
        if (c[i].node.len == 5 && memcmp(c[i].node.ptr, "local", 5) == 0 && c[i].name.len == strlen(name) &&
            memcmp(c[i].name.ptr, name, c[i].name.len) == 0)
            return i;
    return m->payload.len == 0 ? LIM_ROUTE_NOBODY : 17;
}

static void test_functions_of_the_program_are_versions_like_others(void **state) /* proves RF16 */
{
    lim_bus *bus = *state;
    static char two[] = "two", nobody[] = "nobody";
    lim_hash hash, same, wrong;
    lim_outcome o;
    serve(bus, "g", "one", on_echo, NULL);
    serve(bus, "g", "two", on_echo, NULL);
    assert_int_equal(lim_route_host_load(bus, BYTES("by_name 1"), "by_name", by_name, two, NULL, &hash), LIM_OK);
    assert_int_equal(lim_route_host_load(bus, BYTES("by_name 1"), "by_name", by_name, nobody, NULL, &same), LIM_OK);
    assert_memory_equal(hash.b, same.b, sizeof hash.b); /* the first one stays */
    deploy(bus, "g", load(bus, FIRST));
    deploy(bus, "g", hash);
    answered_by(bus, "g", "two");
    assert_int_equal(lim_ask(bus, "g", BYTES("{ }"), ASK_OPTS, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    lim_outcome_fini(&o);
    expect(bus, "{\"op\":\"show\",\"group\":\"g\"}", "\"overruns\":1");
    expect(bus, "{\"op\":\"logs\",\"group\":\"g\"}", "by_name kept its scheduler");
    assert_int_equal(lim_route_host_load(bus, BYTES("by_name 2"), "wrong", by_name, nobody, NULL, &wrong), LIM_OK);
    deploy(bus, "g", wrong);
    assert_int_equal(lim_ask(bus, "g", BYTES("{}"), ASK_OPTS, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REFUSED);
    assert_non_null(memmem(o.detail.ptr, o.detail.len, "17", 2));
    lim_outcome_fini(&o);
    assert_int_equal(lim_rollback(bus, "g", &hash, NULL, NULL, NULL), LIM_OK);
    answered_by(bus, "g", "two");
    assert_int_equal(lim_route_host_load(bus, BYTES(""), "x", by_name, NULL, NULL, &hash), LIM_E_MISUSE);
}

static void test_requests_that_make_no_sense_are_refused(void **state)
{
    lim_bus *bus = *state;
    lim_hash hash = load(bus, FIRST);
    const char *const wrong[][2] = {
        { "{\"op\":\"show\",\"group\":\"nobody\"}", "NOTFOUND" },
        { "{\"op\":\"show\"}", "group" },
        { "{\"op\":\"rollback\",\"group\":\"g\",\"version\":\"ffff\"}", "no version ffff" },
        { "{\"op\":\"stop\",\"group\":\"g\"}", "tried out" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"trial\":\"dark\"}", "shadow, ramp" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"percent\":0}", "percent" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"percent\":10}", "ramp only" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"trial\":\"ramp\"}", "share" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"cpu_us\":-1}", "cpu_us" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"keep\":65}", "keep is 65; at most 64" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"memory_bytes\":7}", "routing.memory_bytes_max" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"log_bytes\":2000000000}", "routing.log_bytes_max" },
        { "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"@\",\"shadow\":true}", "shadow" },
        { "{\"op\":\"logs\",\"group\":\"g\",\"max\":0}", "max" },
    };
    deploy(bus, "g", hash);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char request[256], *at;
        snprintf(request, sizeof request, "%s", wrong[i][0]);
        if ((at = strchr(request, '@')) != NULL) {
            char rest[128];
            snprintf(rest, sizeof rest, "%s", at + 1);
            snprintf(at, sizeof request - (size_t)(at - request), "%02x%02x%02x%02x%s", hash.b[0], hash.b[1], hash.b[2],
                     hash.b[3], rest);
        }
        expect(bus, request, "\"error\"");
        expect(bus, request, wrong[i][1]);
    }
    expect(bus, "{\"op\":\"history\",\"group\":\"g\"}", "\"entries\":1,");
    expect(bus, "{\"op\":\"ls\"}", "\"name\":\"g\"");
}

#define T(test) cmocka_unit_test_setup_teardown(test, open_bus, close_bus)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_ten_thousand_swaps_under_load_fail_nobody),
        T(test_a_program_rolls_back_and_tries_out),
        T(test_the_breaker_is_an_event),
        T(test_policy_next_asks_the_function_without_the_dead),
        T(test_functions_of_the_program_are_versions_like_others),
        T(test_requests_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
