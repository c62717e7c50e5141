/* SPDX-License-Identifier: Apache-2.0
 * channel_slot_test.c - functions in front of channels, as a program sees them: on a bus with real threads, published
 * to from threads of the host and from processes on every scheduler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/channel_slot.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })
#define BY_N            "return function(m, c) return c[m.n] end"
#define FIRST           "return function(m, c) return c[1] end"
#define SECOND          "return function(m, c) return c[2] end"
#define NOBODY          "return function() return nil end"
#define BAD             "return function() error('no') end"
#define LOOPS           "return function() while true do end end"
#define ROOMY                                                                                                          \
    "return function(m, c) local b for i = 1, #c do if not b or c[i].available > b.available then b = c[i] end end "   \
    "return b end"

enum { SUBS = 3 };

typedef struct sink {
    lim_sub sub;
    _Atomic uint64_t got;
    bool hold;
} sink;

static lim_bus *bus;
static sink sinks[SUBS];

static lim_done on_got(lim_bus *b, const lim_delivery *d, void *ctx)
{
    sink *s = ctx;
    (void)b, (void)d;
    atomic_fetch_add(&s->got, 1);
    return s->hold ? LIM_HOLD : LIM_DONE;
}

static void subscribe(uint32_t i, const char *pattern, uint32_t window)
{
    const lim_sub_opts *opts = OPTS(lim_sub_opts, .window = window, .policy = LIM_DROP_NEWEST,
                                    .handler = { .on_message = on_got, .ctx = &sinks[i] });
    assert_int_equal(lim_subscribe(bus, pattern, opts, &sinks[i].sub), LIM_OK);
}

static int open_bus(void **state)
{
    (void)state;
    memset(sinks, 0, sizeof sinks);
    return lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2), &bus) != LIM_OK;
}

static int close_bus(void **state)
{
    (void)state;
    lim_bus_close(bus);
    return 0;
}

static lim_hash load(const char *code)
{
    lim_hash hash;
    lim_diag diag = { 0 };
    if (lim_artifact_load(bus, LIM_LUA, (lim_bytes){ code, strlen(code) }, "f.lua", &diag, &hash) != LIM_OK)
        fail_msg("%s", diag.text);
    return hash;
}

static void deploy_with(const char *code, const lim_deploy_opts *opts)
{
    lim_diag diag = { 0 };
    lim_hash hash = load(code);
    if (lim_channel_deploy(bus, "jobs.a", &hash, opts, &diag, NULL) != LIM_OK)
        fail_msg("%s", diag.text);
}
#define deploy(code, ...) deploy_with(code, OPTS(lim_deploy_opts, __VA_ARGS__))

static lim_admission publish(const char *json, bool mandatory)
{
    static lim_channel ch;
    lim_admission out;
    assert_int_equal(lim_channel_open(bus, "jobs.a", NULL, &ch), LIM_OK);
    const lim_publish_opts *opts = OPTS(lim_publish_opts, .mandatory = mandatory);
    assert_int_equal(lim_publish(bus, ch, (lim_bytes){ json, strlen(json) }, opts, &out), LIM_OK);
    return out;
}

static void await_got(uint32_t i, uint64_t n)
{
    while (atomic_load(&sinks[i].got) < n)
        sched_yield();
}

static char *ask(const char *request)
{
    static char text[1 << 16];
    lim_outcome out;
    assert_int_equal(lim_ask(bus, "$sys.routes", (lim_bytes){ request, strlen(request) },
                             OPTS(lim_ask_opts, .timeout_ms = 20000), &out),
                     LIM_OK);
    snprintf(text, sizeof text, "%.*s", (int)out.payload.len, (const char *)out.payload.ptr);
    lim_outcome_fini(&out);
    return text;
}

static void expect(const char *request, const char *says)
{
    const char *text = ask(request);
    if (strstr(text, says) == NULL)
        fail_msg("%s: no %s in %s", request, says, text);
}

#define SHOW "{\"op\":\"show\",\"channel\":\"jobs.a\"}"

static void test_one_subscription_gets_it_and_the_function_says_which(void **state)
{
    (void)state;
    subscribe(0, "jobs.a", 100);
    subscribe(1, "jobs.a", 100);
    subscribe(2, "jobs.*", 100); /* a pattern stands among them */
    assert_int_equal(publish("{}", false).matched, 3);
    deploy(BY_N);
    for (uint32_t round = 0; round < 10; round++)
        for (uint32_t n = 1; n <= 3; n++) {
            char json[16];
            snprintf(json, sizeof json, "{\"n\":%u}", n);
            lim_admission a = publish(json, true);
            assert_int_equal(a.verdict, LIM_ACCEPT);
            assert_int_equal(a.matched, 1);
        }
    for (uint32_t i = 0; i < SUBS; i++) {
        await_got(i, 11);
        assert_int_equal(atomic_load(&sinks[i].got), 11);
    }
    expect(SHOW, "\"calls\":30,\"decided\":30,");
    expect(SHOW, "\"kind\":\"channel\"");
    expect("{\"op\":\"ls\"}", "\"name\":\"jobs.a\"");
}

static void test_nobody_is_accepted_unless_mandatory(void **state)
{
    (void)state;
    subscribe(0, "jobs.a", 100);
    deploy(NOBODY);
    lim_admission a = publish("{}", false);
    assert_int_equal(a.verdict, LIM_ACCEPT);
    assert_int_equal(a.matched, 0);
    a = publish("{}", true);
    assert_int_equal(a.verdict, LIM_REJECT);
    assert_int_equal(a.why, LIM_WHY_ROUTER_CHOSE_NONE);
    expect(SHOW, "\"none\":2,");
}

static void test_what_a_subscription_has_in_hand_is_seen(void **state)
{
    (void)state;
    sinks[0].hold = sinks[1].hold = true;
    subscribe(0, "jobs.a", 2);
    subscribe(1, "jobs.a", 4);
    deploy(ROOMY);
    for (uint32_t i = 1; i <= 6; i++) {
        publish("{}", false);
        while (atomic_load(&sinks[0].got) + atomic_load(&sinks[1].got) < i)
            sched_yield();
    }
    assert_int_equal(atomic_load(&sinks[0].got), 2);
    assert_int_equal(atomic_load(&sinks[1].got), 4);
}

static void test_a_fault_goes_by_the_rule(void **state)
{
    (void)state;
    subscribe(0, "jobs.a", 100);
    subscribe(1, "jobs.a", 100);
    deploy(BAD, .breaker_faults = LIM_UNLIMITED);
    lim_admission a = publish("{}", false);
    assert_int_equal(a.verdict, LIM_REJECT);
    assert_int_equal(a.why, LIM_WHY_ROUTING_FAULT);
    deploy(SECOND);
    deploy(LOOPS, .breaker_faults = LIM_UNLIMITED, .on_fault = LIM_ON_FAULT_PREVIOUS); /* longer than a slice */
    assert_int_equal(publish("{}", false).matched, 1);
    await_got(1, 1);
    deploy(BAD, .breaker_faults = LIM_UNLIMITED, .on_fault = LIM_ON_FAULT_LEAST_LOADED);
    assert_int_equal(publish("{}", false).matched, 1);
    expect(SHOW, "\"timed_out\":1,");
    expect(SHOW, "\"last_fault\":\"crashed");
}

static void test_the_breaker_puts_the_last_good_one_back(void **state)
{
    (void)state;
    subscribe(0, "jobs.a", 100);
    subscribe(1, "jobs.a", 100);
    deploy(SECOND);
    deploy(BAD, .breaker_faults = 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(publish("{}", false).verdict, LIM_REJECT);
    while (publish("{}", false).verdict == LIM_REJECT)
        sched_yield(); /* its control has to hear of it */
    await_got(1, 1);
    expect("{\"op\":\"history\",\"channel\":\"jobs.a\"}", "\"kind\":\"breaker\"");
    expect(SHOW, "\"tripped\":true");
}

static void test_what_is_tried_out_beside_nothing_leaves_everybody_where_they_were(void **state) /* proves RF11 */
{
    (void)state;
    lim_diag diag = { 0 };
    lim_hash all;
    for (uint32_t i = 0; i < SUBS; i++)
        subscribe(i, "jobs.a", 100);
    deploy(FIRST, .trial = LIM_TRIAL_SHADOW);
    assert_int_equal(publish("{}", true).matched, 3);
    assert_int_equal(lim_channel_stop(bus, "jobs.a", "ann", &diag), LIM_OK);
    deploy(FIRST, .trial = LIM_TRIAL_RAMP, .ramp_where = "n == 1");
    assert_int_equal(publish("{\"n\":1}", true).matched, 1);
    assert_int_equal(publish("{\"n\":2}", true).matched, 3);
    assert_int_equal(lim_channel_stop(bus, "jobs.a", "ann", &diag), LIM_OK);
    assert_int_equal(publish("{\"n\":1}", true).matched, 3);
    deploy(BAD, .breaker_faults = 1);
    while (publish("{}", false).verdict == LIM_REJECT)
        sched_yield(); /* its control has to hear of it */
    assert_int_equal(publish("{}", true).matched, 3);
    expect(SHOW, "\"live\":\"everybody\"");
    assert_int_equal(lim_artifact_load(bus, LIM_BUILTIN, BYTES("everybody"), NULL, &diag, &all), LIM_OK);
    assert_int_equal(lim_channel_deploy(bus, "jobs.a", &all, OPTS(lim_deploy_opts), &diag, NULL), LIM_OK);
    assert_int_equal(publish("{}", true).matched, 3);
    assert_int_equal(lim_deploy(bus, "g", &all, OPTS(lim_deploy_opts), &diag, NULL), LIM_E_MISUSE);
    assert_non_null(strstr(diag.text, "for channels"));
}

static void test_versions_go_back_and_the_slot_goes_away(void **state)
{
    (void)state;
    lim_diag diag = { 0 };
    lim_hash first = load(FIRST), before;
    subscribe(0, "jobs.a", 100);
    subscribe(1, "jobs.a", 100);
    deploy(FIRST);
    deploy(SECOND, .by = "ann");
    publish("{}", false);
    await_got(1, 1);
    assert_int_equal(lim_channel_rollback(bus, "jobs.a", NULL, "bob", &diag, &before), LIM_OK);
    publish("{}", false);
    await_got(0, 1);
    expect("{\"op\":\"history\",\"channel\":\"jobs.a\"}", "\"by\":\"bob\"");
    assert_int_equal(lim_channel_undeploy(bus, "jobs.a", &diag), LIM_OK);
    assert_int_equal(publish("{}", false).matched, 2);
    assert_int_equal(lim_channel_undeploy(bus, "jobs.a", &diag), LIM_E_NOTFOUND);
    expect(SHOW, "NOTFOUND");
    assert_int_equal(lim_channel_deploy(bus, "jobs.a", &first, OPTS(lim_deploy_opts), &diag, NULL), LIM_OK);
    assert_int_equal(publish("{}", false).matched, 1);
    await_got(0, 3);
}

static void test_what_a_channel_cannot_have_is_refused(void **state)
{
    (void)state;
    lim_diag diag = { 0 };
    lim_hash hash = load(FIRST);
    assert_int_equal(lim_channel_deploy(bus, "jobs.a", &hash,
                                        OPTS(lim_deploy_opts, .trial = LIM_TRIAL_RAMP, .ramp_where = "n ="), &diag,
                                        NULL),
                     LIM_E_INVALID);
    assert_non_null(strstr(diag.text, "line 1, column 3"));
    assert_int_equal(lim_channel_deploy(bus, "jobs.*", &hash, OPTS(lim_deploy_opts), &diag, NULL), LIM_E_INVALID);
    assert_int_equal(lim_channel_deploy(bus, "$sys.events", &hash, OPTS(lim_deploy_opts), &diag, NULL), LIM_E_INVALID);
    assert_int_equal(lim_channel_rollback(bus, "none", NULL, NULL, &diag, NULL), LIM_E_NOTFOUND);
    expect("{\"op\":\"deploy\",\"channel\":\"a.>\",\"hash\":\"00000000\"}", "no name for a channel");
    assert_int_equal(publish("{}", false).verdict, LIM_ACCEPT);
}

static int64_t last_one(void *ctx, const lim_route_message *message, const lim_candidate *all, uint32_t count)
{
    (void)message;
    atomic_fetch_add((_Atomic uint64_t *)ctx, 1);
    return all[count - 1].max_in_flight == 100 ? count - 1 : LIM_ROUTE_NOBODY;
}

static void test_a_function_of_the_program_and_strategies_choose_too(void **state)
{
    (void)state;
    static _Atomic uint64_t calls;
    lim_diag diag = { 0 };
    lim_hash hash, turns;
    subscribe(0, "jobs.a", 100);
    subscribe(1, "jobs.a", 100);
    assert_int_equal(lim_route_host_load(bus, BYTES("last 1"), "last", last_one, &calls, NULL, &hash), LIM_OK);
    assert_int_equal(lim_channel_deploy(bus, "jobs.a", &hash, OPTS(lim_deploy_opts), &diag, NULL), LIM_OK);
    for (uint32_t i = 0; i < 5; i++)
        publish("{}", true);
    await_got(1, 5);
    assert_int_equal(atomic_load(&calls), 5);
    assert_int_equal(lim_artifact_load(bus, LIM_BUILTIN, BYTES("round_robin"), NULL, &diag, &turns), LIM_OK);
    assert_int_equal(lim_channel_deploy(bus, "jobs.a", &turns, OPTS(lim_deploy_opts), &diag, &hash), LIM_OK);
    for (uint32_t i = 0; i < 10; i++)
        publish("{}", true);
    await_got(0, 5);
    await_got(1, 10);
}

/* On whatever thread publishes: here one of the program's, in the middle of its publish. */
static int64_t meddler(void *ctx, const lim_route_message *message, const lim_candidate *all, uint32_t count)
{
    lim_outcome o;
    lim_admission out = { 0 };
    lim_channel own;
    const lim_channel *other = ctx;
    bool good = lim_publish(bus, *other, message->payload, NULL, &out) == LIM_OK && out.verdict == LIM_ACCEPT;
    good = good &&
           lim_ask(bus, "$sys.info", message->payload, OPTS(lim_ask_opts, .timeout_ms = 20000), &o) == LIM_E_MISUSE;
    good = good && lim_channel_open(bus, "jobs.a", NULL, &own) == LIM_OK &&
           lim_publish(bus, own, message->payload, NULL, &out) == LIM_OK;
    (void)all;
    return good && out.verdict == LIM_REJECT && out.why == LIM_WHY_ROUTING_FAULT ? count - 1 : LIM_ROUTE_NOBODY;
}

static void test_a_function_that_publishes_on_a_thread_of_the_program_does_not_wait_for_itself(void **state)
{
    (void)state;
    static lim_channel other;
    lim_diag diag = { 0 };
    lim_hash hash;
    subscribe(0, "jobs.a", 100);
    subscribe(1, "other.b", 100);
    assert_int_equal(lim_channel_open(bus, "other.b", NULL, &other), LIM_OK);
    assert_int_equal(lim_route_host_load(bus, BYTES("meddler"), "meddler", meddler, &other, NULL, &hash), LIM_OK);
    assert_int_equal(lim_channel_deploy(bus, "jobs.a", &hash, OPTS(lim_deploy_opts), &diag, NULL), LIM_OK);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(publish("{}", true).verdict, LIM_ACCEPT);
    await_got(0, 5);
    await_got(1, 5);
}

/* ---- several ---- */

static void test_a_list_is_everybody_in_it_once(void **state) /* proves RF12 */
{
    (void)state;
    static const struct {
        const char *code;
        uint32_t matched;
        lim_verdict verdict;
    } all[] = {
        { "return function(m, c) return { c[1], c[3], c[1] } end", 2, LIM_ACCEPT },
        { "return function(m, c) return { c[3].id, c[2] } end", 2, LIM_ACCEPT },
        { "return function(m, c) return c end", 3, LIM_ACCEPT },
        { "return function(m, c) return true end", 3, LIM_ACCEPT },
        { "return function(m, c) return {} end", 0, LIM_ACCEPT },
        { "return function(m, c) return false end", 0, LIM_REJECT },
        { "return function(m, c) return { c[1], {} } end", 0, LIM_REJECT },
        { "return function(m, c) return { c[1], 7 } end", 0, LIM_REJECT },
        { "return function(m, c) local r = {} for i = 1, #c do if i ~= m.n then r[#r + 1] = c[i] end end return r end",
          2, LIM_ACCEPT },
    };
    for (uint32_t i = 0; i < SUBS; i++)
        subscribe(i, "jobs.a", 100);
    for (size_t i = 0; i < LIM_COUNT(all); i++) {
        deploy(all[i].code, .breaker_faults = LIM_UNLIMITED);
        lim_admission a = publish("{\"n\":2}", false);
        if (a.verdict != all[i].verdict || a.matched != all[i].matched)
            fail_msg("%s: verdict %d, matched %u", all[i].code, a.verdict, a.matched);
    }
    expect(SHOW, "nor a list of some");
    await_got(0, 4);
    await_got(1, 3);
    await_got(2, 5);
}

static int64_t everybody(void *ctx, const lim_route_message *message, const lim_candidate *all, uint32_t count)
{
    (void)ctx, (void)message, (void)all, (void)count;
    return LIM_ROUTE_EVERYBODY;
}

static void test_more_than_a_few_are_chosen_by_a_function_of_the_program(void **state)
{
    (void)state;
    static lim_sub many[100];
    lim_diag diag = { 0 };
    lim_hash hash;
    for (uint32_t i = 0; i < LIM_COUNT(many); i++)
        assert_int_equal(lim_subscribe(bus, "jobs.a",
                                       OPTS(lim_sub_opts, .policy = LIM_DROP_NEWEST,
                                            .handler = { .on_message = on_got, .ctx = &sinks[0] }),
                                       &many[i]),
                         LIM_OK);
    assert_int_equal(lim_route_host_load(bus, BYTES("everybody"), "all", everybody, NULL, NULL, &hash), LIM_OK);
    assert_int_equal(lim_channel_deploy(bus, "jobs.a", &hash, OPTS(lim_deploy_opts), &diag, NULL), LIM_OK);
    assert_int_equal(publish("{}", true).matched, 100);
    await_got(0, 100);
}

/* ---- trials ---- */

static void test_a_ramp_decides_about_its_messages_and_is_promoted(void **state) /* proves RF8 */
{
    (void)state;
    lim_diag diag = { 0 };
    uint32_t second = 0;
    subscribe(0, "jobs.a", 1000);
    subscribe(1, "jobs.a", 1000);
    deploy(FIRST);
    deploy(SECOND, .trial = LIM_TRIAL_RAMP, .ramp_where = "tier == \"gold\"");
    for (uint32_t i = 0; i < 10; i++) {
        publish("{\"tier\":\"gold\"}", true);
        publish("{\"tier\":\"silver\"}", true);
    }
    await_got(0, 10);
    await_got(1, 10);
    expect(SHOW, "\"where\":\"tier == \\\"gold\\\"\"");
    deploy(SECOND, .trial = LIM_TRIAL_RAMP, .ramp = 5000, .ramp_key = "user"); /* another share of the same one */
    for (uint32_t i = 0; i < 200; i++) {
        char json[32];
        snprintf(json, sizeof json, "{\"user\":%u}", i / 2);
        uint64_t before = atomic_load(&sinks[1].got);
        publish(json, true);
        while (atomic_load(&sinks[0].got) + atomic_load(&sinks[1].got) < 21 + i)
            sched_yield();
        bool met = atomic_load(&sinks[1].got) > before;
        if (i % 2 == 1)
            assert_int_equal(met, second & 1); /* one user always meets one version */
        second = second * 2 + met;
    }
    assert_in_range(atomic_load(&sinks[1].got), 10 + 60, 10 + 140);
    expect(SHOW, "\"state\":\"ramp\"");
    assert_int_equal(lim_channel_promote(bus, "jobs.a", "ann", &diag, NULL), LIM_OK);
    uint64_t got = atomic_load(&sinks[1].got);
    publish("{\"user\":1}", true);
    await_got(1, got + 1);
    assert_int_equal(lim_channel_stop(bus, "jobs.a", "ann", &diag), LIM_E_NOTFOUND);
}

static void test_a_shadow_is_compared_and_decides_nothing(void **state) /* proves RF8 */
{
    (void)state;
    lim_diag diag = { 0 };
    subscribe(0, "jobs.a", 100);
    subscribe(1, "jobs.a", 100);
    deploy(FIRST);
    deploy("return function(m, c) if m.n == 3 then error('three') end return m.n == 2 and c or c[1] end",
           .trial = LIM_TRIAL_SHADOW);
    for (uint32_t i = 0; i < 2; i++)
        publish("{\"n\":1}", true);
    publish("{\"n\":2}", true);
    publish("{\"n\":3}", true);
    await_got(0, 4);
    assert_int_equal(atomic_load(&sinks[1].got), 0);
    expect(SHOW, "\"agreed\":2,\"differed\":1,\"live_faults\":0,\"shadow_faults\":1");
    while (strstr(ask(SHOW), "three") == NULL) /* its control has to hear of it */
        sched_yield();
    expect(SHOW, "\"message\":\"{\\\"n\\\":2}\"");
    expect(SHOW, "\"calls\":4,\"decided\":3,\"none\":0,\"faults\":1,");
    assert_int_equal(lim_channel_stop(bus, "jobs.a", "ann", &diag), LIM_OK);
    publish("{\"n\":2}", true);
    await_got(0, 5);
    expect("{\"op\":\"history\",\"channel\":\"jobs.a\"}", "\"kind\":\"trial_stop\"");
}

static void
test_a_ramp_that_fails_is_ended_by_the_breaker_and_meanwhile_the_live_one_decides(void **state) /* proves RF11 */
{
    (void)state;
    subscribe(0, "jobs.a", 1000);
    deploy(FIRST);
    deploy(BAD, .trial = LIM_TRIAL_RAMP, .ramp_where = "true", .breaker_faults = 3, .on_fault = LIM_ON_FAULT_PREVIOUS);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(publish("{}", true).verdict, LIM_ACCEPT);
    while (strstr(ask(SHOW), "\"trial\":{") != NULL)
        sched_yield();
    expect("{\"op\":\"history\",\"channel\":\"jobs.a\"}", "\"kind\":\"breaker\"");
    publish("{}", true);
    await_got(0, 4);
    expect(SHOW, "\"calls\":4,\"decided\":4,");
}

/* ---- before a swap, and after a death ---- */

static void test_it_is_compiled_for_every_scheduler_before_anything_is_changed(void **state) /* proves RF6 */
{
    (void)state;
    lim_diag diag = { 0 };
    lim_hash first, bad = { 0 };
    subscribe(0, "jobs.a", 100);
    deploy(FIRST);
    const lim__chan_slot *slot = lim__smap_get(&bus->channels->slots, lim__str("jobs.a"));
    const lim__chan_rule *rule = atomic_load(&slot->rule);
    for (uint32_t i = 0; i <= bus->channels->sched_count; i++)
        assert_non_null(rule->made[i].routers[LIM__CHAN_LIVE]);
    publish("{}", true); /* a thread of the program takes the last seat's */
    assert_null(rule->made[bus->channels->sched_count].routers[LIM__CHAN_LIVE]);
    assert_int_equal(lim_artifact_load(bus, LIM_LUA, BYTES("return function(\n"), "f.lua", &diag, &bad), LIM_E_CODE);
    first = load("local t = {} for i = 1, 20000 do t[i] = i end return function(m, c) return c[1] end");
    assert_int_not_equal(
        lim_channel_deploy(bus, "jobs.a", &first, OPTS(lim_deploy_opts, .memory_bytes_max = 64 << 10), &diag, NULL),
        LIM_OK);
    assert_ptr_equal(atomic_load(&slot->rule), rule);
    publish("{}", true);
    await_got(0, 2);
}

static void test_a_control_that_is_killed_goes_on_where_it_was(void **state)
{
    (void)state;
    lim_diag diag = { 0 };
    subscribe(0, "jobs.a", 1000);
    subscribe(1, "jobs.a", 1000);
    deploy(FIRST, .by = "ann");
    deploy(SECOND, .by = "bob");
    for (uint32_t i = 1; i <= 20; i++) {
        lim_pid before = lim__chan_slot_find(bus, lim__str("jobs.a"));
        lim_runtime_exit(bus->rt, before, LIM_KILL);
        assert_int_equal(publish("{}", true).matched, 1);
        await_got(1, i);
        while (lim__chan_slot_find(bus, lim__str("jobs.a")).id == before.id)
            sched_yield();
    }
    expect(SHOW, "\"calls\":20,\"decided\":20,");
    expect("{\"op\":\"history\",\"channel\":\"jobs.a\"}", "\"by\":\"ann\"");
    assert_int_equal(lim_channel_rollback(bus, "jobs.a", NULL, "cy", &diag, NULL), LIM_OK);
    publish("{}", true);
    await_got(0, 1);
}

static void test_what_it_prints_is_in_the_log(void **state)
{
    (void)state;
    subscribe(0, "jobs.a", 100);
    deploy("return function(m, c) print('n ' .. m.n) return c[1] end");
    publish("{\"n\":7}", true);
    expect("{\"op\":\"logs\",\"channel\":\"jobs.a\"}", "n 7");
}

/* ---- under load ---- */

static _Atomic uint64_t accepted;
static _Atomic bool stop;

static void *publisher(void *arg)
{
    lim_channel ch;
    lim_admission out;
    (void)arg;
    assert_int_equal(lim_channel_open(bus, "jobs.a", NULL, &ch), LIM_OK);
    while (!atomic_load(&stop)) {
        if (lim_publish(bus, ch, BYTES("{\"n\":1}"), OPTS(lim_publish_opts), &out) != LIM_OK || out.matched != 1)
            return arg;
        atomic_fetch_add(&accepted, 1);
    }
    return NULL;
}

/* Runs on a scheduler: publishes what it is told. */
static lim_done on_relay(lim_bus *b, const lim_delivery *d, void *ctx)
{
    lim_channel ch;
    lim_admission out;
    (void)ctx;
    if (lim_channel_open(b, "jobs.a", NULL, &ch) == LIM_OK &&
        lim_publish(b, ch, d->payload, OPTS(lim_publish_opts), &out) == LIM_OK && out.matched == 1)
        atomic_fetch_add(&accepted, 1);
    else
        atomic_store(&stop, true);
    return LIM_DONE;
}

static void test_swaps_under_load_lose_no_publish(void **state) /* proves RF7 */
{
    (void)state;
    lim_hash hash[2] = { load(FIRST), load(SECOND) };
    lim_sub relays[2];
    lim_channel in;
    lim_admission out;
    pthread_t threads[2];
    atomic_store(&accepted, 0);
    atomic_store(&stop, false);
    subscribe(0, "jobs.a", 1000);
    subscribe(1, "jobs.a", 1000);
    deploy(FIRST);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(
            lim_subscribe(bus, "in",
                          OPTS(lim_sub_opts, .policy = LIM_DROP_NEWEST, .handler = { .on_message = on_relay }),
                          &relays[i]),
            LIM_OK);
    assert_int_equal(lim_channel_open(bus, "in", NULL, &in), LIM_OK);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, publisher, bus), 0);
    for (uint32_t i = 0; i < 300; i++) {
        assert_int_equal(lim_publish(bus, in, BYTES("{\"n\":1}"), OPTS(lim_publish_opts), &out), LIM_OK);
        assert_int_equal(lim_channel_deploy(bus, "jobs.a", &hash[i % 2], OPTS(lim_deploy_opts), NULL, NULL), LIM_OK);
    }
    assert_false(atomic_load(&stop)); /* a relay met a publish that was not routed */
    while (atomic_load(&accepted) < 1000)
        sched_yield();
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < 2; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

#define T(test) cmocka_unit_test_setup_teardown(test, open_bus, close_bus)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_one_subscription_gets_it_and_the_function_says_which),
        T(test_nobody_is_accepted_unless_mandatory),
        T(test_what_a_subscription_has_in_hand_is_seen),
        T(test_a_fault_goes_by_the_rule),
        T(test_the_breaker_puts_the_last_good_one_back),
        T(test_what_is_tried_out_beside_nothing_leaves_everybody_where_they_were),
        T(test_versions_go_back_and_the_slot_goes_away),
        T(test_what_a_channel_cannot_have_is_refused),
        T(test_a_function_of_the_program_and_strategies_choose_too),
        T(test_a_function_that_publishes_on_a_thread_of_the_program_does_not_wait_for_itself),
        T(test_a_list_is_everybody_in_it_once),
        T(test_more_than_a_few_are_chosen_by_a_function_of_the_program),
        T(test_a_ramp_decides_about_its_messages_and_is_promoted),
        T(test_a_shadow_is_compared_and_decides_nothing),
        T(test_a_ramp_that_fails_is_ended_by_the_breaker_and_meanwhile_the_live_one_decides),
        T(test_it_is_compiled_for_every_scheduler_before_anything_is_changed),
        T(test_a_control_that_is_killed_goes_on_where_it_was),
        T(test_what_it_prints_is_in_the_log),
        T(test_swaps_under_load_lose_no_publish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
