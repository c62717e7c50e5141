/* SPDX-License-Identifier: Apache-2.0
 * slot_model_test.c - a slot under everything at once, by seed: deployments, rollbacks, ramps, shadows, promotions,
 * stops and the breaker, while calls go on; an auditor checks each call against what was live and tried out at that
 * instant, and in the end that nothing was counted twice or lost. */
#include "bus/group_world.h"
#include "bus/slot.h"

enum { CANDIDATES = 4, CODES = 5, BAD_CODE = 4, STEPS = 1500 };

typedef struct auditor {
    world *w;
    lim__slot slot;
    lim__candidate all[CANDIDATES];
    const lim__candidate *view[CANDIDATES];
    uint64_t calls, decided, faults, trips;
} auditor;

static const char *const codes[CODES] = { "return function(m, c) return c[1] end",
                                          "return function(m, c) return c[2] end",
                                          "return function(m, c) return c[3] end",
                                          "return function(m, c) return c[4] end",
                                          "return function() error('no') end" };

static void on_done(void *o, void *call, lim__version *v, const lim__route_result *r)
{
    (void)o, (void)call, (void)v, (void)r;
    fail_msg("nothing here is put aside");
}

static void nothing(void *o)
{
    (void)o;
}

static lim__artifact *artifact(uint32_t code)
{
    lim__artifact *a;
    assert_int_equal(lim__artifact_new(LIM__ENGINE_LUA, lim__str(codes[code]), "f.lua", 0, &a), LIM_OK);
    return a;
}

static void open_slot(auditor *o, world *w)
{
    *o = (auditor){ .w = w };
    const lim__slot_opts opts = {
        .bus = w->bus, .kind = "group", .name = lim__str("g"), .owner = o, .on_done = on_done, .on_ready = nothing
    };
    assert_int_equal(lim__slot_init(&o->slot, &opts), LIM_OK);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        o->all[i] = (lim__candidate){ .id = i + 1, .stamp = 1, .slot = i, .max_in_flight = 1, .name = lim__str("x") };
        o->view[i] = &o->all[i];
    }
}

/* ---- what is done ---- */

static void deploy(auditor *o, lim__rng *rng)
{
    static const char *const where[] = { NULL, "n > 5", "not n == 3", "n in [1, 2]" };
    lim_deploy_opts opts = { .breaker_faults = 3, .keep = 1 + (uint32_t)lim__rng_below(rng, 4) };
    uint32_t code = (uint32_t)lim__rng_below(rng, CODES);
    lim__version *live = o->slot.live, *trial = o->slot.trial;
    lim__slot_terms terms;
    lim_diag diag = { 0 };
    opts.trial = (lim_trial)lim__rng_below(rng, 3);
    if (opts.trial == LIM_TRIAL_RAMP) {
        opts.ramp_where = where[lim__rng_below(rng, LIM_COUNT(where))];
        opts.ramp = opts.ramp_where != NULL ? 0 : 5000;
        opts.ramp_key = lim__rng_below(rng, 2) == 0 ? "user" : NULL;
    }
    assert_int_equal(lim__slot_terms_of(&opts, &terms, NULL), LIM_OK);
    lim__artifact *a = artifact(code);
    lim_err err = lim__slot_deploy(&o->slot, a, &terms, "", &diag, NULL);
    if (err == LIM_OK && opts.trial == LIM_TRIAL_NONE)
        assert_memory_equal(o->slot.live->artifact->hash, a->hash, LIM__HASH_SIZE);
    else
        assert_ptr_equal(o->slot.live, live); /* a trial, or a refusal, changes nothing of what is live */
    if (err == LIM_E_EXISTS)
        assert_ptr_equal(o->slot.trial, trial);
    else
        assert_int_equal(err, LIM_OK);
    lim__artifact_unref(a);
}

static void end_trial(auditor *o, bool promote)
{
    lim__version *trial = o->slot.trial, *live = o->slot.live;
    lim_err err = promote ? lim__slot_promote(&o->slot, "me", NULL, NULL) : lim__slot_stop(&o->slot, "me", NULL);
    assert_int_equal(err, trial != NULL ? LIM_OK : LIM_E_NOTFOUND);
    assert_null(o->slot.trial);
    assert_ptr_equal(o->slot.live, promote && trial != NULL ? trial : live);
}

static void rollback(auditor *o)
{
    lim__version *before = o->slot.live;
    if (lim__slot_rollback(&o->slot, "", "me", NULL, NULL) == LIM_OK) {
        assert_ptr_not_equal(o->slot.live, before);
        assert_false(o->slot.live->tripped);
    } else {
        assert_ptr_equal(o->slot.live, before);
    }
}

/* ---- what is asked, and audited ---- */

/* Who has to be asked, by the plain reading of the trial's terms; NULL: the share decides. */
static lim__version *due(const auditor *o, uint32_t n)
{
    const lim__version *t = o->slot.trial;
    if (t == NULL || t->shadow)
        return o->slot.live;
    const char *where = t->terms.ramp_where;
    bool match = where[0] == '\0' || (strcmp(where, "n > 5") == 0 && n > 5) ||
                 (strcmp(where, "not n == 3") == 0 && n != 3) ||
                 (strcmp(where, "n in [1, 2]") == 0 && (n == 1 || n == 2));
    if (!match)
        return o->slot.live;
    return t->terms.ramp == LIM__SLOT_RAMP_WHOLE ? o->slot.trial : NULL;
}

static void call(auditor *o, lim__rng *rng)
{
    char json[64];
    uint32_t n = (uint32_t)lim__rng_below(rng, 10);
    lim__version *live = o->slot.live, *trial = o->slot.trial, *wanted = due(o, n), *by = NULL;
    lim__route_result r = { 0 };
    snprintf(json, sizeof json, "{\"n\":%u,\"user\":%u}", n, n * 7);
    const lim__route_msg msg = { .payload = lim__str(json) };
    uint8_t hash[LIM__HASH_SIZE];
    lim__artifact *bad = artifact(BAD_CODE);
    lim__route_how how = lim__slot_call(&o->slot, &msg, o->view, CANDIDATES, n, o, &r, &by);
    if (wanted != NULL ? by != wanted : by != live && by != trial)
        fail_msg("asked the wrong one: %s", by->id);
    memcpy(hash, by->artifact->hash, sizeof hash);
    for (uint32_t i = 0; i < BAD_CODE && how == LIM__ROUTE_DECIDED && by->artifact->engine == LIM__ENGINE_LUA; i++) {
        lim__artifact *a = artifact(i);
        assert_int_equal(memcmp(hash, a->hash, sizeof hash) == 0, r.id == i + 1); /* it decided as its code says */
        lim__artifact_unref(a);
    }
    assert_int_equal(how == LIM__ROUTE_CRASHED, memcmp(hash, bad->hash, sizeof hash) == 0);
    lim__artifact_unref(bad);
    o->calls++;
    o->decided += how == LIM__ROUTE_DECIDED;
    o->faults += how == LIM__ROUTE_CRASHED;
    lim__slot_tidy(&o->slot);
    lim__slot_check(&o->slot);
}

static uint64_t tripped(const lim__slot *s)
{
    uint64_t n = 0;
    LIM__LIST_EACH(node, &s->history)
        n += strcmp(LIM_CONTAINER(node, lim__slot_entry, node)->kind, "breaker") == 0;
    return n;
}

static void run(world *w, uint64_t seed)
{
    static auditor o;
    lim__rng rng = lim__rng_seeded(seed);
    lim__router_stats t;
    uint64_t entries = 0;
    open_slot(&o, w);
    for (uint32_t i = 0; i < STEPS; i++) {
        uint64_t what = lim__rng_below(&rng, 20);
        if (what == 0)
            deploy(&o, &rng);
        else if (what == 1)
            end_trial(&o, lim__rng_below(&rng, 2) == 0);
        else if (what == 2)
            rollback(&o);
        else
            call(&o, &rng);
        assert_true(o.slot.next_entry >= entries); /* the history only grows */
        entries = o.slot.next_entry;
        lim__slot_tally(o.slot.live, &t);
        assert_int_equal(t.calls, t.decided + t.none + lim__slot_faults(&t));
        assert_int_equal(lim__slot_pending(&o.slot), 0);
    }
    assert_int_equal(o.calls, o.decided + o.faults);
    assert_true(o.faults == 0 || o.faults >= tripped(&o.slot) * 3);
    lim__slot_fini(&o.slot);
}

static void test_every_call_is_answered_by_who_was_live_or_tried_out_then(void **state) /* proves RF7 RF8 RF11 */
{
    const char *seeds = getenv("LIM_SEEDS");
    uint64_t count = seeds != NULL ? strtoull(seeds, NULL, 10) : 20;
    for (uint64_t seed = 1; seed <= (count < 40 ? count : 40); seed++)
        run(*state, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_call_is_answered_by_who_was_live_or_tried_out_then, open_world,
                                        close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
