/* SPDX-License-Identifier: Apache-2.0
 * slot_test.c - router slots: swaps, the breaker, shadows and ramps, seen from an owner that is the test. The clock is
 * the simulator's: it stands still unless a test moves it. */
#include "bus/group_world.h"
#include "bus/slot.h"

enum { CANDIDATES = 4 };
static const char *const names[CANDIDATES] = { "a", "b", "c", "d" };

typedef struct owner {
    world *w;
    lim__slot slot;
    lim__candidate all[CANDIDATES];
    const lim__candidate *view[CANDIDATES];
    uint32_t done, faults, changes;
    lim__route_how how;
    uint64_t id;
} owner;

static void on_done(void *o, void *call, lim__version *v, const lim__route_result *r)
{
    owner *me = o;
    (void)call, (void)v;
    me->done++;
    me->how = r->how;
    me->id = r->id;
}

static lim_bytes name_of(void *o, uint64_t candidate)
{
    (void)o;
    return candidate >= 1 && candidate <= CANDIDATES ? lim__str(names[candidate - 1]) : lim__bytes(NULL, 0);
}

static void nothing(void *o)
{
    (void)o;
}

static void count_change(void *o)
{
    ((owner *)o)->changes++;
}

static int open_slot(void **state)
{
    static owner o;
    o = (owner){ 0 };
    void *w;
    assert_int_equal(open_world(&w), 0);
    o.w = w;
    const lim__slot_opts opts = { .bus = o.w->bus,
                                  .kind = "group",
                                  .name = lim__str("g"),
                                  .owner = &o,
                                  .on_done = on_done,
                                  .name_of = name_of,
                                  .on_ready = nothing,
                                  .on_change = count_change };
    assert_int_equal(lim__slot_init(&o.slot, &opts), LIM_OK);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        o.all[i] =
            (lim__candidate){ .id = i + 1, .stamp = 1, .slot = i, .max_in_flight = 1, .name = lim__str(names[i]) };
        o.view[i] = &o.all[i];
    }
    *state = &o;
    return 0;
}

static int close_slot(void **state)
{
    owner *o = *state;
    void *w = o->w;
    lim__slot_fini(&o->slot);
    return close_world(&w);
}

static lim_err try_deploy(owner *o, const char *code, const lim_deploy_opts *opts, const char *if_version,
                          lim_diag *diag)
{
    lim__slot_terms terms;
    lim__artifact *a;
    assert_int_equal(lim__slot_terms_of(opts, &terms, NULL), LIM_OK);
    assert_int_equal(lim__artifact_new(LIM__ENGINE_LUA, lim__str(code), "f.lua", 0, &a), LIM_OK);
    lim_err err = lim__slot_deploy(&o->slot, a, &terms, if_version, diag, NULL);
    lim__artifact_unref(a);
    return err;
}

static void deploy(owner *o, const char *code, lim_deploy_opts opts)
{
    lim_diag diag = { 0 };
    if (try_deploy(o, code, &opts, "", &diag) != LIM_OK)
        fail_msg("%s", diag.text);
}
#define WITH(...) ((lim_deploy_opts){ __VA_ARGS__ })
#define FIRST     "return function(m, c) return c[1] end"
#undef SECOND
#define SECOND   "return function(m, c) return c[2] end"
#define NOBODY   "return function() return nil end"
#define BAD      "return function() error('no') end"
#define LOOPS    "return function() while true do end end"
#define LONG_ONE "return function(m, c) local n = 0 for i = 1, 100000 do n = n + i end return c[3] end"

static lim__route_how call_key(owner *o, const char *json, uint64_t key, uint64_t *chosen)
{
    const lim__route_msg msg = { .payload = lim__str(json) };
    lim__route_result r = { 0 };
    lim__version *by;
    lim__route_how how =
        lim__slot_call(&o->slot, &msg, o->view, CANDIDATES, key, (void *)(uintptr_t)(key + 1), &r, &by);
    lim__slot_tidy(&o->slot);
    if (chosen != NULL)
        *chosen = how == LIM__ROUTE_DECIDED ? r.id : 0;
    return how;
}

static uint64_t chosen_by_key(owner *o, const char *json, uint64_t key)
{
    uint64_t id;
    (void)call_key(o, json, key, &id);
    return id;
}

static uint64_t chosen(owner *o, const char *json)
{
    return chosen_by_key(o, json, 7);
}

static void resume(owner *o)
{
    for (uint32_t i = 0; i < 100000 && lim__slot_pending(&o->slot) > 0; i++)
        lim__slot_resume(&o->slot);
    assert_int_equal(lim__slot_pending(&o->slot), 0);
}

static void pass(owner *o, uint64_t ns)
{
    lim__sim_run(o->w->sim, lim__sim_now(o->w->sim) + ns, NULL, NULL);
}

static uint32_t version_count(const owner *o)
{
    uint32_t n = 0;
    LIM__LIST_EACH(node, &o->slot.versions)
        n++;
    return n;
}

static const lim__slot_entry *last_entry(const owner *o)
{
    return LIM_CONTAINER(o->slot.history.prev, lim__slot_entry, node);
}

static lim__router_stats tally(const lim__version *v)
{
    lim__router_stats t;
    lim__slot_tally(v, &t);
    return t;
}

/* ---- versions ---- */

static void test_a_call_in_flight_ends_on_the_version_it_began_with(void **state) /* proves RF7 */
{
    owner *o = *state;
    deploy(o, LONG_ONE, WITH(0));
    assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_PENDING);
    lim__version *old = o->slot.live;
    deploy(o, FIRST, WITH(0));
    assert_int_equal(chosen(o, "{}"), 1);
    assert_non_null(old->router);
    resume(o);
    assert_int_equal(o->done, 1);
    assert_int_equal(o->id, 3);
    assert_null(old->router); /* with its last call its compiled state goes */
    assert_int_equal(tally(old).decided, 1);
}

static void test_the_same_bytes_are_one_version(void **state) /* proves RF5 */
{
    owner *o = *state;
    for (int i = 0; i < 20; i++) {
        deploy(o, FIRST, WITH(0));
        assert_int_equal(chosen(o, "{}"), 1);
        deploy(o, SECOND, WITH(.cpu_us_max = 1000u * (1u + (unsigned)i % 3)));
        assert_int_equal(chosen(o, "{}"), 2);
    }
    assert_int_equal(version_count(o), 3); /* and the strategy it began with */
    assert_int_equal(tally(o->slot.live).calls, 20);
    assert_int_equal(tally(lim__slot_other(&o->slot, o->slot.live)).calls, 20);
}

static void test_ten_thousand_swaps_leave_memory_as_it_was(void **state) /* proves RF7 */
{
    owner *o = *state;
    lim_census before, after;
    char code[128];
    uint32_t pending = 0, decided = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        if (i % 4 == 3)
            snprintf(code, sizeof code, "local k = %u return function(m, c) return c[1 + k %% 4] end", i % 40);
        deploy(o, i % 4 == 0 ? FIRST : i % 4 == 1 ? LONG_ONE : i % 4 == 2 ? SECOND : code, WITH(0));
        for (uint32_t n = 0; n < 2; n++) {
            lim__route_how how = call_key(o, "{}", i, NULL);
            pending += how == LIM__ROUTE_PENDING;
            decided += how == LIM__ROUTE_DECIDED;
        }
        lim__slot_resume(&o->slot);
        if (i % 4 == 0) /* what is unfinished has a limit of its own: what waits longer is not begun */
            resume(o);
        if (i == 1000)
            lim_runtime_census(o->w->bus->rt, &before);
    }
    resume(o);
    lim_runtime_census(o->w->bus->rt, &after);
    assert_int_equal(pending + decided, 20000); /* none failed */
    assert_int_equal(o->done, pending);
    assert_true(pending > 1000);
    assert_int_equal(o->how, LIM__ROUTE_DECIDED);
    assert_true(version_count(o) <= LIM__SLOT_KEEP);
    assert_true(o->slot.history_count <= LIM__SLOT_HISTORY_MAX);
    assert_int_equal(o->slot.next_entry, 10000);
    assert_true(after.letter_bytes <= before.letter_bytes);
}

static void test_only_so_many_versions_are_kept(void **state) /* proves RF7 RF15 */
{
    owner *o = *state;
    char code[96];
    lim_diag diag;
    for (int i = 0; i < 12; i++) {
        snprintf(code, sizeof code, "-- %d\n%s", i, FIRST);
        deploy(o, code, WITH(.keep = 3));
    }
    assert_int_equal(version_count(o), 3);
    assert_int_equal(lim__slot_rollback(&o->slot, "least_loaded", "", &diag, NULL), LIM_E_NOTFOUND);
    assert_int_equal(lim__slot_rollback(&o->slot, "", "me", &diag, NULL), LIM_OK);
    assert_string_equal(last_entry(o)->kind, "rollback");
    assert_string_equal(last_entry(o)->by, "me");
}

static void test_a_rollback_goes_to_any_version_that_is_kept(void **state) /* proves RF15 */
{
    owner *o = *state;
    char first[LIM__HASH_TEXT];
    lim_diag diag = { 0 };
    lim_hash previous;
    deploy(o, FIRST, WITH(0));
    lim__hash_text(o->slot.live->artifact->hash, first);
    deploy(o, SECOND, WITH(0));
    deploy(o, NOBODY, WITH(0));
    assert_int_equal(lim__slot_rollback(&o->slot, "", "", &diag, &previous), LIM_OK);
    assert_int_equal(chosen(o, "{}"), 2);
    first[12] = '\0';
    assert_int_equal(lim__slot_rollback(&o->slot, first, "", &diag, &previous), LIM_OK);
    assert_int_equal(chosen(o, "{}"), 1);
    assert_int_equal(lim__slot_rollback(&o->slot, "least_loaded", "", &diag, &previous), LIM_OK);
    assert_int_equal(lim__slot_rollback(&o->slot, "ffffffff", "", &diag, &previous), LIM_E_NOTFOUND);
    assert_non_null(strstr(diag.text, "ffffffff"));
    assert_string_equal(o->slot.live->id, "least_loaded");
}

static void test_a_bad_deployment_changes_nothing(void **state) /* proves RF6 */
{
    owner *o = *state;
    lim_diag diag = { 0 };
    deploy(o, FIRST, WITH(0));
    uint64_t entries = o->slot.next_entry;
    assert_int_equal(try_deploy(o, "return function(", &WITH(0), "", &diag), LIM_E_CODE);
    assert_int_equal(diag.line, 1);
    assert_int_equal(try_deploy(o, SECOND, &WITH(.memory_bytes_max = 1), "", &diag), LIM_E_INVALID);
    assert_int_equal(try_deploy(o, SECOND, &WITH(.trial = LIM_TRIAL_SHADOW, .memory_bytes_max = 1), "", &diag),
                     LIM_E_INVALID);
    assert_int_equal(try_deploy(o, SECOND, &WITH(0), "ffffffff", &diag), LIM_E_EXISTS);
    assert_non_null(strstr(diag.text, o->slot.live->id));
    assert_int_equal(chosen(o, "{}"), 1);
    assert_int_equal(o->slot.next_entry, entries);
    assert_int_equal(try_deploy(o, SECOND, &WITH(0), o->slot.live->id, &diag), LIM_OK);
}

static void test_options_out_of_range_are_named(void **state)
{
    lim__slot_terms terms;
    lim_diag diag;
    const struct {
        lim_deploy_opts opts;
        const char *says;
    } wrong[] = {
        { { .keep = 65 }, "keep" },
        { { .breaker_faults = 10001 }, "faults" },
        { { .breaker_ms = 86400001 }, "window" },
        { { .trial = LIM_TRIAL_RAMP }, "share" },
        { { .trial = LIM_TRIAL_RAMP, .ramp = 10001 }, "share" },
        { { .trial = LIM_TRIAL_SHADOW, .ramp = 1 }, "ramp" },
        { { .ramp_where = "true" }, "ramp_where" },
        { { .on_fault = (lim_on_fault)9 }, "on_fault" },
        { { .by = "0123456789012345678901234567890123456789012345678901234567890123" }, "by" },
        { { .by = "\xff" }, "UTF-8" },
    };
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(wrong); i++) {
        assert_int_equal(lim__slot_terms_of(&wrong[i].opts, &terms, &diag), LIM_E_INVALID);
        if (strstr(diag.text, wrong[i].says) == NULL)
            fail_msg("%s is not named: %s", wrong[i].says, diag.text);
    }
}

/* ---- faults ---- */

static void test_the_breaker_puts_the_last_good_version_back(void **state) /* proves RF11 */
{
    owner *o = *state;
    deploy(o, FIRST, WITH(0));
    deploy(o, BAD, WITH(0));
    for (int i = 0; i < 9; i++)
        assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_CRASHED);
    const lim__version *bad = o->slot.live;
    assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_CRASHED);
    assert_int_equal(chosen(o, "{}"), 1);
    assert_true(bad->tripped);
    assert_string_equal(last_entry(o)->kind, "breaker");
    assert_string_equal(last_entry(o)->previous, bad->id);
    assert_non_null(strstr(last_entry(o)->detail, "10 faults"));
    assert_non_null(strstr(last_entry(o)->detail, "no"));
    deploy(o, SECOND, WITH(0)); /* the version before it is the good one, not the one that was taken off */
    assert_int_equal(lim__slot_rollback(&o->slot, "", "", NULL, NULL), LIM_OK);
    assert_int_equal(chosen(o, "{}"), 1);
    assert_int_equal(lim__slot_rollback(&o->slot, bad->id, "", NULL, NULL), LIM_OK); /* unless somebody says so */
    assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_CRASHED);
}

static void test_faults_that_are_far_apart_do_not_trip_it(void **state) /* proves RF11 */
{
    owner *o = *state;
    deploy(o, BAD, WITH(.breaker_faults = 3, .breaker_ms = 1000));
    for (int i = 0; i < 30; i++) {
        assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_CRASHED);
        pass(o, 600000000); /* two of them within any second */
    }
    assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_CRASHED);
    pass(o, 300000000);
    assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_CRASHED);
    assert_string_equal(o->slot.live->id, "least_loaded");
}

static void test_what_was_not_started_is_no_fault_of_the_code(void **state) /* proves RF10 RF11 */
{
    owner *o = *state;
    uint32_t refused = 0;
    deploy(o, LONG_ONE, WITH(.unfinished_max = 1, .breaker_faults = 2));
    for (int i = 0; i < 20; i++)
        refused += call_key(o, "{}", (uint64_t)i, NULL) == LIM__ROUTE_NOT_STARTED;
    assert_int_equal(refused, 19);
    resume(o);
    assert_string_equal(last_entry(o)->kind, "deploy");
    assert_int_equal(tally(o->slot.live).not_started, 19);
}

static void test_a_breaker_that_is_off_never_trips(void **state)
{
    owner *o = *state;
    deploy(o, BAD, WITH(.breaker_faults = LIM_UNLIMITED));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_CRASHED);
    assert_int_equal(tally(o->slot.live).crashed, 1000);
}

static void test_a_loop_that_is_unfinished_when_the_breaker_trips_ends_as_it_would(void **state) /* proves RF7 RF11 */
{
    owner *o = *state;
    deploy(o, "return function(m) if m.loop then while true do end end error('no') end", WITH(.breaker_faults = 2));
    assert_int_equal(call_key(o, "{\"loop\":true}", 1, NULL), LIM__ROUTE_PENDING);
    (void)call_key(o, "{}", 2, NULL);
    (void)call_key(o, "{}", 3, NULL);
    assert_string_equal(o->slot.live->id, "least_loaded");
    resume(o);
    assert_int_equal(o->done, 1);
    assert_int_equal(o->how, LIM__ROUTE_TIMED_OUT);
}

static void test_on_fault_says_who_decides_instead(void **state) /* proves RF11 */
{
    owner *o = *state;
    const lim__route_msg msg = { .payload = lim__str("{}") };
    const lim_on_fault rules[] = { LIM_ON_FAULT_REJECT, LIM_ON_FAULT_PREVIOUS, LIM_ON_FAULT_LEAST_LOADED };
    for (int i = 0; i < 3; i++)
        o->all[i].in_flight = 1; /* so least_loaded chooses the last one */
    for (size_t i = 0; i < LIM_COUNT(rules); i++) {
        lim__route_result r = { 0 };
        lim__route_how how = 0;
        lim__version *by, *other = NULL;
        deploy(o, SECOND, WITH(0));
        deploy(o, BAD, WITH(.on_fault = rules[i]));
        (void)lim__slot_call(&o->slot, &msg, o->view, CANDIDATES, 1, NULL, &r, &by);
        bool asked = lim__slot_call_other(&o->slot, by, &msg, o->view, CANDIDATES, NULL, &r, &how, &other);
        assert_int_equal(asked, rules[i] != LIM_ON_FAULT_REJECT);
        if (!asked)
            continue;
        assert_int_equal(how, LIM__ROUTE_DECIDED);
        assert_int_equal(r.id, rules[i] == LIM_ON_FAULT_PREVIOUS ? 2 : 4);
        assert_int_equal(other != NULL, rules[i] == LIM_ON_FAULT_PREVIOUS);
    }
}

/* ---- trials ---- */

static void test_a_shadow_is_compared_and_decides_nothing(void **state) /* proves RF8 */
{
    owner *o = *state;
    char json[40];
    deploy(o, FIRST, WITH(0));
    deploy(o,
           "return function(m, c) if m.n % 10 == 9 then error('nine') end if m.n % 2 == 0 then return c[1] end "
           "return c[2] end",
           WITH(.trial = LIM_TRIAL_SHADOW));
    for (int n = 0; n < 100; n++) {
        snprintf(json, sizeof json, "{\"n\":%d}", n);
        assert_int_equal(chosen(o, json), 1);
    }
    assert_int_equal(o->slot.agreed, 50);
    assert_int_equal(o->slot.differed, 40);
    assert_int_equal(o->slot.shadow_faults, 10);
    assert_int_equal(o->slot.live_faults, 0);
    const lim__slot_diff *d = &o->slot.diffs[(o->slot.diff_count - 1) % LIM__SLOT_DIFFS];
    assert_string_equal(d->live, "a");
    assert_non_null(strstr(d->shadow, "nine"));
    assert_string_equal(d->about, "{\"n\":99}");
    assert_string_equal(last_entry(o)->kind, "shadow"); /* its faults trip nothing */
    assert_int_equal(try_deploy(o, SECOND, &WITH(.trial = LIM_TRIAL_SHADOW), "", NULL), LIM_E_EXISTS);
    assert_int_equal(lim__slot_stop(&o->slot, "me", NULL), LIM_OK);
    assert_int_equal(lim__slot_stop(&o->slot, "me", NULL), LIM_E_NOTFOUND);
    assert_null(o->slot.trial);
    assert_int_equal(version_count(o), 2);
}

static void test_answers_that_come_later_are_compared_too(void **state) /* proves RF8 */
{
    owner *o = *state;
    deploy(o, LONG_ONE, WITH(0));
    deploy(o, "return function(m, c) local n = 0 for i = 1, m.n do n = n + i end return c[m.c] end",
           WITH(.trial = LIM_TRIAL_SHADOW));
    assert_int_equal(call_key(o, "{\"n\":1,\"c\":3}", 1, NULL), LIM__ROUTE_PENDING);      /* the live one is later */
    assert_int_equal(call_key(o, "{\"n\":200000,\"c\":3}", 2, NULL), LIM__ROUTE_PENDING); /* the shadow is */
    assert_int_equal(call_key(o, "{\"n\":100,\"c\":1}", 3, NULL), LIM__ROUTE_PENDING);
    assert_int_equal(o->slot.compare_count, 3);
    resume(o);
    assert_int_equal(o->done, 3);
    assert_int_equal(o->slot.compare_count, 0);
    assert_int_equal(o->slot.agreed, 2);
    assert_int_equal(o->slot.differed, 1);
}

static void test_a_shadow_that_loops_costs_the_live_one_nothing(void **state) /* proves RF9 */
{
    owner *o = *state;
    deploy(o, FIRST, WITH(0));
    deploy(o, LOOPS, WITH(.trial = LIM_TRIAL_SHADOW));
    for (int i = 0; i < 200; i++) {
        assert_int_equal(chosen(o, "{}"), 1);
        lim__slot_resume(&o->slot);
    }
    assert_int_equal(lim__slot_promote(&o->slot, "", NULL, NULL), LIM_OK); /* with unfinished calls of the shadow's */
    assert_int_equal(o->slot.compare_count, 0);
    assert_int_equal(lim__slot_pending(&o->slot), 0);
    assert_int_equal(call_key(o, "{}", 1, NULL), LIM__ROUTE_PENDING);
    resume(o);
    assert_int_equal(o->how, LIM__ROUTE_TIMED_OUT);
    assert_int_equal(o->done, 1); /* what the shadow did not finish is nobody's */
}

static void test_a_promoted_shadow_counts_with_the_slot(void **state) /* proves RF12 */
{
    owner *o = *state;
    deploy(o, "return function(m, c) counter() return c[1] end", WITH(0));
    deploy(o, "return function(m, c) local n = counter() return c[1 + n % 4] end", WITH(.trial = LIM_TRIAL_SHADOW));
    for (int i = 0; i < 10; i++)
        assert_int_equal(chosen(o, "{}"), 1);
    uint64_t counted = o->slot.counter;
    assert_int_equal(counted, 10);
    assert_int_equal(lim__slot_promote(&o->slot, "", NULL, NULL), LIM_OK);
    (void)chosen(o, "{}");
    assert_int_equal(o->slot.counter, counted + 1);
    assert_int_equal(tally(o->slot.live).calls, 1); /* what it said in the shadow decided nothing */
}

static uint32_t ramped(owner *o, uint32_t share, bool by_key[1000])
{
    char json[64];
    uint32_t n = 0;
    deploy(o, SECOND, WITH(.trial = LIM_TRIAL_RAMP, .ramp = share, .ramp_key = "user.id"));
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(json, sizeof json, "{\"user\":{\"id\":%u},\"other\":%u}", i, share);
        uint64_t id = chosen(o, json);
        assert_true(id == 1 || id == 2);
        assert_true(id == 2 || !by_key[i]); /* a share that grows takes nobody's new version away */
        by_key[i] = id == 2;
        n += id == 2;
    }
    return n;
}

static void test_a_ramp_sends_one_value_to_one_version(void **state) /* proves RF8 */
{
    owner *o = *state;
    bool by_key[1000] = { false }, again[1000];
    deploy(o, FIRST, WITH(0));
    uint32_t tenth = ramped(o, 1000, by_key);
    assert_true(tenth > 60 && tenth < 140);
    memcpy(again, by_key, sizeof again);
    assert_int_equal(ramped(o, 1000, again), tenth);
    assert_memory_equal(again, by_key, sizeof again);
    uint32_t half = ramped(o, 5000, by_key);
    assert_true(half > 440 && half < 560);
    assert_int_equal(ramped(o, 10000, by_key), 1000);
    assert_int_equal(chosen(o, "{\"user\":{}}"), 1); /* without the key: as everybody before */
    assert_int_equal(chosen(o, "not json"), 1);
    assert_int_equal(lim__slot_promote(&o->slot, "me", NULL, NULL), LIM_OK);
    assert_int_equal(chosen(o, "{\"user\":{}}"), 2);
    assert_string_equal(last_entry(o)->kind, "promote");
    assert_int_equal(o->slot.next_entry, 1 + 4 + 1);
}

static void test_a_ramp_without_a_key_goes_message_by_message(void **state) /* proves RF8 */
{
    owner *o = *state;
    uint32_t n = 0, again = 0;
    deploy(o, FIRST, WITH(0));
    deploy(o, SECOND, WITH(.trial = LIM_TRIAL_RAMP, .ramp = 2500));
    for (uint32_t pass_no = 0; pass_no < 2; pass_no++)
        for (uint64_t key = 0; key < 4000; key++) {
            uint64_t id;
            (void)call_key(o, "{}", key, &id);
            *(pass_no == 0 ? &n : &again) += id == 2;
        }
    assert_true(n > 880 && n < 1120);
    assert_int_equal(n, again); /* the same messages meet the same version */
    lim_err err = lim__slot_stop(&o->slot, "", NULL);
    assert_int_equal(err, LIM_OK);
    for (uint64_t key = 0; key < 100; key++) {
        uint64_t id;
        (void)call_key(o, "{}", key, &id);
        assert_int_equal(id, 1);
    }
}

static void test_a_ramp_by_predicate_meets_the_messages_that_match(void **state) /* proves RF1 RF8 */
{
    owner *o = *state;
    lim_diag diag = { 0 };
    uint32_t gold = 0;
    deploy(o, FIRST, WITH(.by = "ann"));
    assert_int_equal(try_deploy(o, SECOND, &WITH(.trial = LIM_TRIAL_RAMP, .ramp_where = "tier = 1"), "", &diag),
                     LIM_E_INVALID);
    assert_non_null(strstr(diag.text, "line 1, column 6: expected =="));
    deploy(o, SECOND, WITH(.trial = LIM_TRIAL_RAMP, .ramp_where = "tier == \"gold\" and $size < 100"));
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(chosen_by_key(o, "{\"tier\":\"gold\"}", i), 2);
        assert_int_equal(chosen_by_key(o, "{\"tier\":\"silver\"}", i), 1);
        assert_int_equal(chosen_by_key(o, "no json", i), 1);
    }
    deploy(o, SECOND, WITH(.trial = LIM_TRIAL_RAMP, .ramp = 5000, .ramp_where = "not tier == \"silver\""));
    for (uint64_t i = 0; i < 1000; i++) {
        gold += chosen_by_key(o, "{}", i) == 2;
        assert_int_equal(chosen_by_key(o, "{\"tier\":\"silver\"}", i), 1);
    }
    assert_in_range(gold, 400, 600);
    assert_int_equal(lim__slot_promote(&o->slot, "ann", &diag, NULL), LIM_OK);
    assert_int_equal(chosen_by_key(o, "{\"tier\":\"silver\"}", 1), 2);
}

static void test_a_ramp_that_fails_is_stopped_by_the_breaker(void **state) /* proves RF11 */
{
    owner *o = *state;
    uint32_t faults = 0;
    deploy(o, FIRST, WITH(0));
    deploy(o, BAD, WITH(.trial = LIM_TRIAL_RAMP, .ramp = 5000, .breaker_faults = 5));
    for (uint64_t key = 0; key < 100; key++) {
        uint64_t id;
        faults += call_key(o, "{}", key, &id) == LIM__ROUTE_CRASHED;
    }
    assert_int_equal(faults, 5);
    assert_null(o->slot.trial);
    assert_string_equal(last_entry(o)->kind, "breaker");
    assert_int_equal(chosen(o, "{}"), 1);
}

/* ---- the book ---- */

static void test_what_functions_print_is_kept_within_bounds(void **state)
{
    owner *o = *state;
    lim__buf b = { 0 };
    deploy(o, "return function(m, c) print('line ' .. m.n) return c[1] end", WITH(0));
    for (int n = 1; n <= 2000; n++) {
        char json[32];
        snprintf(json, sizeof json, "{\"n\":%d}", n);
        (void)chosen(o, json);
        if (n % 50 == 0)
            pass(o, 1000000000ull);
    }
    assert_int_equal(o->slot.next_line, 2000);
    assert_int_equal(o->slot.line_count, LIM__SLOT_LOG_LINES);
    lim__json j = lim__json_begin(&b);
    lim__slot_lines_json(&o->slot, 1998, 10, &j);
    lim__buf_add(&b, "", 1);
    has((char *)b.ptr + b.start, "line 1999");
    has((char *)b.ptr + b.start, "line 2000");
    assert_null(strstr((char *)b.ptr + b.start, "line 1998"));
    lim__buf_fini(&b);
}

static void test_everything_that_changes_is_told_to_who_keeps_it(void **state)
{
    owner *o = *state;
    deploy(o, FIRST, WITH(.by = "ann"));
    deploy(o, SECOND, WITH(.trial = LIM_TRIAL_SHADOW));
    assert_int_equal(lim__slot_promote(&o->slot, "bob", NULL, NULL), LIM_OK);
    assert_int_equal(lim__slot_rollback(&o->slot, "", "cy", NULL, NULL), LIM_OK);
    assert_int_equal(o->changes, 4);
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__slot_history_json(&o->slot, 0, 100, &j);
    lim__buf_add(&b, "", 1);
    has((char *)b.ptr + b.start, "\"kind\":\"deploy\"");
    has((char *)b.ptr + b.start, "\"by\":\"ann\"");
    has((char *)b.ptr + b.start, "\"kind\":\"promote\"");
    has((char *)b.ptr + b.start, "\"by\":\"cy\"");
    lim__buf_fini(&b);
    lim__json k = lim__json_begin(&b);
    lim__slot_json(&o->slot, &k);
    lim__buf_add(&b, "", 1);
    has((char *)b.ptr + b.start, "\"state\":\"active\"");
    has((char *)b.ptr + b.start, "\"state\":\"retired\"");
    lim__buf_fini(&b);
}

#define T(test) cmocka_unit_test_setup_teardown(test, open_slot, close_slot)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_call_in_flight_ends_on_the_version_it_began_with),
        T(test_the_same_bytes_are_one_version),
        T(test_ten_thousand_swaps_leave_memory_as_it_was),
        T(test_only_so_many_versions_are_kept),
        T(test_a_rollback_goes_to_any_version_that_is_kept),
        T(test_a_bad_deployment_changes_nothing),
        T(test_options_out_of_range_are_named),
        T(test_the_breaker_puts_the_last_good_version_back),
        T(test_faults_that_are_far_apart_do_not_trip_it),
        T(test_what_was_not_started_is_no_fault_of_the_code),
        T(test_a_breaker_that_is_off_never_trips),
        T(test_a_loop_that_is_unfinished_when_the_breaker_trips_ends_as_it_would),
        T(test_on_fault_says_who_decides_instead),
        T(test_a_shadow_is_compared_and_decides_nothing),
        T(test_answers_that_come_later_are_compared_too),
        T(test_a_shadow_that_loops_costs_the_live_one_nothing),
        T(test_a_promoted_shadow_counts_with_the_slot),
        T(test_a_ramp_sends_one_value_to_one_version),
        T(test_a_ramp_without_a_key_goes_message_by_message),
        T(test_a_ramp_by_predicate_meets_the_messages_that_match),
        T(test_a_ramp_that_fails_is_stopped_by_the_breaker),
        T(test_what_functions_print_is_kept_within_bounds),
        T(test_everything_that_changes_is_told_to_who_keeps_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
