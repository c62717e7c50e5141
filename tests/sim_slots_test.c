/* SPDX-License-Identifier: Apache-2.0
 * sim_slots_test.c - router slots in simulated worlds: one in front of a group, one in front of a channel, on a bus
 * with a store. By seed there are deployments, rollbacks, ramps, shadows, promotions, stops and removals; some
 * functions crash, loop, choose nobody or everybody. Meanwhile messages are published by the host and by processes,
 * asks are asked, workers die, the channel's control process dies, and the whole program is killed and started again.
 *
 * The auditor looks after every turn of every task. Its rules:
 *   S1  an ask ends once, and so does a request for a change (CV3).
 *   S2  who answers an ask was chosen by a version that was live, tried out or next by on_fault while it was under way.
 *   S3  a publish does what its rule says: the live version, or the ramp's for the messages it takes; after a fault
 *       what on_fault says. It is exact: nobody can change the rule meanwhile.
 *   S4  a publish is one call of the live version, the trial's or, after a fault of the trial's, both; what was counted
 *       adds up.
 *   S5  nobody gets what a publish did not choose it for; where the program lived on, everybody gets what it did.
 *   S6  at rest nothing is unfinished, and what is live after a restart is what was.
 *   S7  when the storm is over the census is what it was.
 *
 * LIM_SEEDS worlds from LIM_SEED on. */
#include "bus/durable_world.h"
#include "bus/channel_slot.h"
#include "bus/group.h"
#include "bus/participant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state_of.h"

enum { SEATS = 3, CHANGES_MAX = 400, ASKS_MAX = 3000, MESSAGES_MAX = 4000, STEPS = 120 };
enum { CRASHES = SEATS, LOOPS, LISTS, NOBODY, CODES };
#define MS 1000000ull

typedef struct ask {
    uint64_t begun_ns;
    uint32_t ends;
    bool change; /* of a slot */
} ask;

static durable_world w;
static struct {
    lim__rng rng;
    ask asks[ASKS_MAX + CHANGES_MAX];
    uint32_t ask_count, open, replies;
    uint8_t got[MESSAGES_MAX], wanted[MESSAGES_MAX]; /* by which subscriptions; bits */
    bool sure[MESSAGES_MAX];                         /* whoever chose lives on */
    uint32_t published, decided;
    uint64_t eligible_ns[SEATS], any_ns; /* when who answers was chosen by such a version the last time */
    char hashes[2][CODES][LIM__HASH_TEXT];
    uint8_t raw[2][CODES][LIM__HASH_SIZE];
    lim_pid workers[SEATS];
    lim_sub subs[SEATS];
    uint64_t seed, entry; /* of the group's history, the last one seen */
    const char *broken;
} a;

static const char *const codes[2][CODES] = {
    { "for i = 1, #c do if c[i].id == 'a' then return c[i] end end return nil",
      "for i = 1, #c do if c[i].id == 'b' then return c[i] end end return nil",
      "for i = 1, #c do if c[i].id == 'c' then return c[i] end end return nil", "error('no')", "while true do end",
      "return { c[1] }", "return nil" },
    { "return c[1]", "return c[2]", "return c[3]", "error('no')", "while true do end", "return { c[1], c[3] }",
      "return nil" },
};

static uint64_t pick(uint64_t below)
{
    return lim__rng_below(&a.rng, below);
}

static void rule(bool holds, const char *what)
{
    if (!holds && a.broken == NULL)
        a.broken = what;
}

static uint32_t code_of(uint32_t which, const lim__artifact *artifact)
{
    uint32_t i = 0;
    while (i < CODES && (artifact == NULL || memcmp(a.raw[which][i], artifact->hash, LIM__HASH_SIZE) != 0))
        i++;
    return i;
}

/* ---- the auditor ---- */

static group *the_group(void)
{
    group *g = lim__state_of(w.bus->rt, lim__group_find(w.bus, lim__str("g")));
    return g != NULL && g->slot.live != NULL ? g : NULL;
}

static void eligible(group *g, lim__version *v, bool more)
{
    uint64_t now = lim__sim_now(w.sim);
    uint32_t code = code_of(0, v->artifact);
    if (code < SEATS)
        a.eligible_ns[code] = now;
    else if (code == CODES || (code < NOBODY && v->terms.on_fault == LIM_ON_FAULT_LEAST_LOADED))
        a.any_ns = now;
    lim__version *other = more && v->terms.on_fault == LIM_ON_FAULT_PREVIOUS ? lim__slot_other(&g->slot, v) : NULL;
    if (other != NULL)
        eligible(g, other, false);
}

/* After every turn of every task. */
static bool look(void *unused)
{
    (void)unused;
    group *g = the_group();
    if (g != NULL) {
        lim__slot *s = &g->slot;
        eligible(g, s->live, true);
        if (s->trial != NULL && !s->trial->shadow)
            eligible(g, s->trial, true);
        const lim__slot_entry *e =
            lim__list_empty(&s->history) ? NULL : LIM_CONTAINER(s->history.prev, lim__slot_entry, node);
        if (e != NULL && e->n != a.entry && strcmp(e->kind, "breaker") == 0)
            a.any_ns = lim__sim_now(w.sim); /* what was begun and tripped in one turn was never seen */
        a.entry = e != NULL ? e->n : 0;
        lim__slot_check(s);
    }
    return a.broken != NULL;
}

static void run_for(uint64_t ns)
{
    if (lim__sim_run(w.sim, lim__sim_now(w.sim) + ns, look, NULL))
        fail_msg("seed %llu: %s", (unsigned long long)a.seed, a.broken);
}

static lim__chan_slot *the_slot(void)
{
    return lim__smap_get(&w.bus->channels->slots, lim__str("c"));
}

/* ---- publishes ---- */

/* What that version does with a message to everybody of SEATS: bits, 0: nobody, -1: a fault. */
static int does(uint32_t code)
{
    return code < SEATS ? 1 << code : code == CODES ? 7 /* everybody */ : code == LISTS ? 5 : code == NOBODY ? 0 : -1;
}

static int decided_by(const lim__chan_rule *r, lim__chan_role role)
{
    int first = does(code_of(1, r->codes[role].artifact));
    lim_on_fault policy = r->on_fault[role == LIM__CHAN_TRIAL];
    if (first != -1 || policy == LIM_ON_FAULT_REJECT)
        return first;
    if (policy == LIM_ON_FAULT_LEAST_LOADED)
        return -2; /* any one */
    if (role == LIM__CHAN_TRIAL)
        return does(code_of(1, r->codes[LIM__CHAN_LIVE].artifact));
    return r->codes[LIM__CHAN_BEFORE].artifact != NULL ? does(code_of(1, r->codes[LIM__CHAN_BEFORE].artifact)) : -1;
}

/* Who has to decide about the n-th message: bits of roles. */
static uint32_t roles_for(const lim__chan_rule *r, uint32_t n)
{
    if (r->codes[LIM__CHAN_TRIAL].artifact == NULL || r->shadow)
        return 1u << LIM__CHAN_LIVE;
    if (r->where != NULL && n % 3 != 0) /* the only predicate there is */
        return 1u << LIM__CHAN_LIVE;
    return r->ramp.share == LIM__SLOT_RAMP_WHOLE ? 1u << LIM__CHAN_TRIAL : 1u << LIM__CHAN_LIVE | 1u << LIM__CHAN_TRIAL;
}

static bool fits(int decided, const lim_admission *out)
{
    if (decided == -1)
        return out->verdict == LIM_REJECT && out->why == LIM_WHY_ROUTING_FAULT;
    return out->verdict == LIM_ACCEPT &&
           out->matched == (decided == -2 ? 1u : (uint32_t)__builtin_popcount((unsigned)decided));
}

static void publish_in(lim_bus *bus)
{
    char json[48];
    lim_channel ch;
    lim_admission out = { 0 };
    lim__router_stats live, trial, live_after, trial_after;
    if (a.published == MESSAGES_MAX)
        return;
    uint32_t n = a.published++;
    lim__chan_slot *slot = the_slot();
    lim__chan_rule *r = slot != NULL ? atomic_load(&slot->rule) : NULL;
    snprintf(json, sizeof json, "{\"n\":%u,\"m\":%u,\"user\":%u}", n, n % 3, n % 17);
    assert_int_equal(lim_channel_open(bus, "c", NULL, &ch), LIM_OK);
    if (r != NULL) {
        lim__chan_counts_sum(r, LIM__CHAN_LIVE, &live);
        lim__chan_counts_sum(r, LIM__CHAN_TRIAL, &trial);
    }
    a.wanted[n] = 7;
    a.sure[n] = true;
    lim_publish_opts opts = { .size = sizeof opts };
    if (lim_publish(bus, ch, lim__str(json), &opts, &out) != LIM_OK) {
        a.sure[n] = false;
        return;
    }
    if (r == NULL) {
        rule(out.verdict == LIM_ACCEPT && out.matched == SEATS, "S3: without a function everybody gets it");
        return;
    }
    uint32_t roles = roles_for(r, n);
    lim__chan_counts_sum(r, LIM__CHAN_LIVE, &live_after);
    lim__chan_counts_sum(r, LIM__CHAN_TRIAL, &trial_after);
    uint64_t by_live = live_after.calls - live.calls, by_trial = trial_after.calls - trial.calls;
    lim__chan_role role = !r->shadow && by_trial > 0 ? LIM__CHAN_TRIAL : LIM__CHAN_LIVE;
    bool both = role == LIM__CHAN_TRIAL && does(code_of(1, r->codes[LIM__CHAN_TRIAL].artifact)) == -1 &&
                r->on_fault[1] == LIM_ON_FAULT_PREVIOUS;
    rule((roles >> role & 1) != 0, "S3: the ramp took what is not its own, or did not");
    rule(by_live == (role == LIM__CHAN_LIVE || both), "S4: the live version's calls");
    rule(by_trial == (r->shadow || role == LIM__CHAN_TRIAL), "S4: the trial's calls");
    rule(live_after.calls == live_after.decided + live_after.none + lim__slot_faults(&live_after), "S4: live's sum");
    rule(trial_after.calls == trial_after.decided + trial_after.none + lim__slot_faults(&trial_after),
         "S4: the trial's sum");
    int decided = decided_by(r, role);
    rule(fits(decided, &out), "S3: another decision than its version's");
    a.wanted[n] = decided == -1 ? 0 : decided == -2 ? 7 : (uint8_t)decided;
    a.sure[n] = decided != -2;
    a.decided++;
}

static lim_done on_got(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    unsigned n = MESSAGES_MAX;
    char text[48];
    uint32_t seat = (uint32_t)(uintptr_t)ctx;
    (void)bus;
    snprintf(text, sizeof text, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    rule(sscanf(text, "{\"n\":%u", &n) == 1 && n < a.published, "S5: what nobody published");
    rule(n >= MESSAGES_MAX || (a.got[n] >> seat & 1) == 0, "S5: twice");
    rule(n >= MESSAGES_MAX || (a.wanted[n] >> seat & 1) != 0, "S5: somebody who was not chosen");
    a.got[n % MESSAGES_MAX] |= (uint8_t)(1u << seat);
    return LIM_DONE;
}

static lim_done on_relay(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)d, (void)ctx;
    publish_in(bus); /* on whatever scheduler this is */
    return LIM_DONE;
}

/* ---- asks and changes ---- */

static void on_outcome(void *ctx, const lim_outcome *o)
{
    ask *k = ctx;
    rule(++k->ends == 1, "S1: it ended twice");
    a.open--;
    if (k->change || o->how != LIM_HOW_REPLY)
        return;
    look(NULL); /* one turn of a scheduler is many of its processes' */
    uint32_t who = o->participant.len == 1 ? (uint32_t)(((const char *)o->participant.ptr)[0] - 'a') : SEATS;
    rule(who < SEATS, "S2: nobody answered");
    rule(who >= SEATS || a.eligible_ns[who] >= k->begun_ns || a.any_ns >= k->begun_ns,
         "S2: chosen by none of the versions of that time");
    a.replies++;
}

static void ask_begin(const char *whom, const char *json, int64_t timeout_ms, bool change)
{
    if (a.ask_count == LIM_COUNT(a.asks))
        return;
    ask *k = &a.asks[a.ask_count++];
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = timeout_ms, .wait = pick(2) };
    *k = (ask){ .begun_ns = lim__sim_now(w.sim), .change = change };
    a.open++;
    look(NULL);
    assert_int_equal(lim_ask_async(w.bus, whom, lim__str(json), &opts, on_outcome, k, NULL), LIM_OK);
}

static void change(void)
{
    static const char *const faults[] = { "reject", "previous", "least_loaded" };
    static const char *const verbs[] = { "rollback", "promote", "promote", "stop" };
    char json[512], trial[160] = "";
    uint32_t which = (uint32_t)pick(2), kind = (uint32_t)pick(12);
    const char *at = which == 0 ? "group\":\"g" : "channel\":\"c";
    if (kind < 4) {
        snprintf(json, sizeof json, "{\"op\":\"%s\",\"%s\"}", verbs[kind], at);
    } else if (kind == 4 && which == 1 && pick(4) == 0) {
        snprintf(json, sizeof json, "{\"op\":\"rm\",\"%s\"}", at);
    } else {
        uint32_t code = pick(3) != 0 ? (uint32_t)pick(SEATS) : (uint32_t)pick(CODES);
        if (pick(4) == 0)
            snprintf(trial, sizeof trial, ",\"trial\":\"shadow\"");
        else if (pick(3) == 0)
            snprintf(trial, sizeof trial, ",\"trial\":\"ramp\",\"percent\":%s%s%s", pick(2) ? "100" : "37.5",
                     pick(2) ? ",\"ramp_where\":\"m == 0\"" : "", pick(2) ? ",\"ramp_key\":\"user\"" : "");
        snprintf(json, sizeof json,
                 "{\"op\":\"deploy\",\"%s\",\"hash\":\"%s\",\"on_fault\":\"%s\",\"keep\":%u,\"cpu_us\":2000,"
                 "\"breaker_faults\":%u%s}",
                 at, a.hashes[which][code], faults[pick(3)], 1 + (uint32_t)pick(4), (uint32_t)pick(6), trial);
    }
    ask_begin("$sys.routes", json, LIM_FOREVER, true);
}

/* ---- the world ---- */

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void serve(uint32_t i)
{
    const lim_handler handler = { .on_message = on_echo };
    lim_pid to;
    assert_int_equal(lim__group_get(w.bus, NULL, lim__str("g"), &to), LIM_OK);
    assert_int_equal(lim__participant_spawn(w.bus, &handler, LIM__MEMBER_SERVE, to, &a.workers[i]), LIM_OK);
    const char name[] = { (char)('a' + i), 0 };
    lim__join *j = lim__join_new(NULL, a.workers[i], LIM__MEMBER_SERVE, lim__str(name), 9, NULL, NULL);
    j->reply_to = a.workers[i];
    assert_int_equal(lim__post_reserved(w.bus->rt, to, j), LIM_OK);
}

static char loaded[256];
static void on_loaded(void *ctx, const lim_outcome *o)
{
    snprintf(loaded, sizeof loaded, "%.*s", (int)o->payload.len, (const char *)o->payload.ptr);
    *(bool *)ctx = true;
}

static bool is_true(void *ctx)
{
    return *(bool *)ctx;
}

static void load(uint32_t which, uint32_t code)
{
    char json[300];
    bool done = false;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .wait = true };
    snprintf(json, sizeof json, "{\"op\":\"load\",\"name\":\"f\",\"code\":\"-- %u %u\\nreturn function(m, c) %s end\"}",
             which, code, codes[which][code]);
    assert_int_equal(lim_ask_async(w.bus, "$sys.artifacts", lim__str(json), &opts, on_loaded, &done, NULL), LIM_OK);
    durable_until(&w, is_true, &done);
    const char *at = strstr(loaded, "\"hash\":\"");
    assert_non_null(at);
    snprintf(a.hashes[which][code], LIM__HASH_TEXT, "%.64s", at + 8);
    snprintf(json, sizeof json, "-- %u %u\nreturn function(m, c) %s end", which, code, codes[which][code]);
    assert_int_equal(lim__sha256(lim__str(json), a.raw[which][code]), LIM_OK);
}

static void populate(void)
{
    for (uint32_t i = 0; i < SEATS; i++) {
        lim_sub_opts opts = { .size = sizeof opts,
                              .window = 10000,
                              .policy = LIM_DROP_NEWEST,
                              .handler = { .on_message = on_got, .ctx = (void *)(uintptr_t)i } };
        assert_int_equal(lim_subscribe(w.bus, "c", &opts, &a.subs[i]), LIM_OK);
        serve(i);
    }
    for (uint32_t i = 0; i < 2; i++) {
        lim_sub relay;
        lim_sub_opts opts = {
            .size = sizeof opts, .window = 10000, .policy = LIM_DROP_NEWEST, .handler = { .on_message = on_relay }
        };
        assert_int_equal(lim_subscribe(w.bus, "in", &opts, &relay), LIM_OK);
    }
    for (uint32_t i = 0; i < 2 * CODES; i++)
        load(i / CODES, i % CODES);
    run_for(20 * MS);
}

static void relay(void)
{
    lim_channel ch;
    lim_publish_opts opts = { .size = sizeof opts };
    lim_admission out;
    assert_int_equal(lim_channel_open(w.bus, "in", NULL, &ch), LIM_OK);
    assert_int_equal(lim_publish(w.bus, ch, lim__str("now"), &opts, &out), LIM_OK);
}

static bool is_over(void *unused)
{
    return look(unused) || a.open == 0;
}

static void come_to_rest(void)
{
    lim__sim_run(w.sim, lim__sim_now(w.sim) + 30000 * MS, is_over, NULL);
    run_for(1000 * MS);
    rule(a.open == 0, "S1: something never ended");
    group *g = the_group();
    rule(g == NULL || lim__slot_pending(&g->slot) == 0, "S6: unfinished calls at rest");
    for (uint32_t n = 0; n < a.published; n++)
        rule(!a.sure[n] || a.got[n] == a.wanted[n], "S5: somebody who was chosen did not get it");
    look(NULL);
}

static uint32_t now_live(uint32_t which, bool trial)
{
    const lim__chan_slot *slot = the_slot();
    const lim__chan_rule *r = slot != NULL ? atomic_load(&slot->rule) : NULL;
    const group *g = the_group();
    if (which == 1)
        return r != NULL ? code_of(1, r->codes[trial ? LIM__CHAN_TRIAL : LIM__CHAN_LIVE].artifact) : CODES;
    const lim__version *v = g == NULL ? NULL : trial ? g->slot.trial : g->slot.live;
    return v != NULL ? code_of(0, v->artifact) : CODES;
}

static void again(bool calm)
{
    uint32_t before[4], i;
    if (calm)
        come_to_rest();
    for (i = 0; i < 4; i++)
        before[i] = now_live(i / 2, i % 2);
    pick(2) ? durable_kill(&w) : durable_power_off(&w);
    rule(a.open == 0, "S1: the bus was closed, and something did not end");
    for (uint32_t n = 0; n < a.published; n++)
        a.sure[n] = false;
    durable_start(&w);
    lim__sim_run(w.sim, lim__sim_now(w.sim) + 20 * MS, NULL, NULL);
    for (i = 0; i < 4; i++)
        rule(!calm || before[i] == now_live(i / 2, i % 2), "S6: after a restart another one is live");
    populate();
}

static void harm(void)
{
    uint32_t what = (uint32_t)pick(40), i = (uint32_t)pick(SEATS);
    if (what < 2) {
        again(what == 0);
    } else if (what < 12) {
        (void)!lim_runtime_exit(w.bus->rt, a.workers[i], LIM_KILL);
        run_for(pick(3) * MS);
        serve(i);
    } else if (what < 25) {
        lim_pid control = lim__chan_slot_find(w.bus, lim__str("c"));
        if (control.id != 0)
            (void)!lim_runtime_exit(w.bus->rt, control, LIM_KILL);
    }
}

static void storm(void)
{
    for (uint32_t i = 0; i < STEPS; i++) {
        char json[48];
        for (uint64_t n = pick(5); n > 0; n--)
            publish_in(w.bus);
        for (uint64_t n = pick(3); n > 0; n--)
            relay();
        for (uint64_t n = pick(3); n > 0; n--) {
            snprintf(json, sizeof json, "{\"m\":%u,\"user\":%u}", (uint32_t)pick(3), (uint32_t)pick(17));
            ask_begin("g", json, 50 + (int64_t)pick(500), false);
        }
        for (uint64_t n = pick(5) == 0 ? pick(4) : pick(2); n > 0; n--)
            change();
        if (pick(4) == 0)
            harm();
        run_for(pick(3) == 0 ? pick(30 * MS) : pick(MS));
    }
}

static void same_census(const lim_bus_census *x, const lim_bus_census *y)
{
    rule(x->participants == y->participants && x->conversations == y->conversations, "S7: participants, conversations");
    rule(x->subscriptions == y->subscriptions && x->groups == y->groups, "S7: subscriptions, groups");
    rule(x->messages_kept == y->messages_kept, "S7: messages");
    rule(x->runtime.processes == y->runtime.processes && x->runtime.monitors == y->runtime.monitors,
         "S7: processes, monitors");
}

static void one_world(uint64_t seed)
{
    lim_bus_census before, after;
    memset(&a, 0, sizeof a);
    a.seed = seed;
    a.rng = lim__rng_seeded(seed);
    durable_open(&w, seed);
    populate();
    publish_in(w.bus);
    storm();
    again(true); /* what is there at the beginning of a run with these slots */
    come_to_rest();
    lim_bus_census_take(w.bus, &before);
    for (uint32_t i = 0; i < 20; i++) {
        publish_in(w.bus);
        relay();
        ask_begin("g", "{\"m\":1}", 200, false);
        run_for(pick(5 * MS));
    }
    come_to_rest();
    lim_bus_census_take(w.bus, &after);
    same_census(&before, &after);
    if (a.broken != NULL)
        fail_msg("seed %llu: %s", (unsigned long long)seed, a.broken);
    durable_close(&w);
}

static void test_slots_change_under_everything_and_every_call_was_decided_by_who_was_due(
    void **state) /* proves RF7 RF8 RF11 RF15 */
{
    const char *first = getenv("LIM_SEED"), *count = getenv("LIM_SEEDS");
    uint64_t from = first != NULL ? strtoull(first, NULL, 10) : 1, n = count != NULL ? strtoull(count, NULL, 10) : 100;
    uint64_t replies = 0, decided = 0;
    (void)state;
    if (first != NULL && count == NULL)
        n = 1;
    for (uint64_t seed = from; seed < from + n; seed++) {
        one_world(seed);
        replies += a.replies;
        decided += a.decided;
    }
    assert_true(n < 10 || (replies > n * 10 && decided > n * 10)); /* the worlds are not empty */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_change_under_everything_and_every_call_was_decided_by_who_was_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
