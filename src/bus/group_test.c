/* SPDX-License-Identifier: Apache-2.0
 * group_test.c - who gets what and when, letter by letter: workers and askers are puppets, the bus is simulated. */
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
#include "bus/letters.h"
#include "bus/participant.h"
#include "sim/sim_os.h"

#define SECOND 1000000000ull
enum { SEEN_MAX = 2048 };

typedef struct seen { /* a request that a puppet was handed, or an outcome that it was told */
    lim_pid conv;
    uint64_t lease;
    lim_how how;
    lim_why why;
    lim_handed handed;
} seen;

typedef struct puppet {
    struct puppet *next; /* of the world's */
    lim_pid pid;
    seen requests[SEEN_MAX], outcomes[SEEN_MAX];
    uint32_t request_count, outcome_count, revoked, accepted, refused;
    lim_reason ended;
} puppet;

typedef struct world {
    lim__sim *sim;
    lim__os *os;
    lim_bus *bus;
    puppet *puppets;
} world;

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    puppet *p = *(puppet **)state;
    const void *body = signal->body.ptr;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (signal->type == &lim__type_request) {
        const lim__request *r = body;
        assert_true(p->request_count < SEEN_MAX);
        p->requests[p->request_count++] = (seen){ .conv = r->conv, .lease = r->lease };
    } else if (signal->type == &lim__type_outcome) {
        const lim__outcome_letter *o = body;
        p->outcomes[p->outcome_count++] =
            (seen){ .conv = o->conv, .how = o->how, .why = o->why, .handed = o->handed_over };
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

static void settle(world *w)
{
    lim__sim_run(w->sim, lim__sim_now(w->sim) + SECOND / 2, NULL, NULL);
}

static int open_world(void **state)
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

static int close_world(void **state)
{
    world *w = *state;
    lim_bus_close(w->bus); /* with unfinished calls in some */
    lim__sim_close(w->sim);
    for (puppet *p; (p = w->puppets) != NULL; free(p))
        w->puppets = p->next;
    return 0;
}

static puppet *puppet_new(world *w)
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
    w->puppets = p;
    return p;
}

/* A worker of `queue`, or the same one again over another connection. */
static puppet *worker(world *w, const char *queue, const char *name, uint32_t capacity, const char *type)
{
    puppet *p = puppet_new(w);
    lim_pid group;
    const char *types[] = { type, NULL };
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &group), LIM_OK);
    lim__join *j =
        lim__join_new(NULL, p->pid, LIM__MEMBER_WORK, lim__str(name), capacity, type != NULL ? types : NULL, NULL);
    j->reply_to = p->pid;
    memset(j->session, 's', sizeof j->session);
    assert_int_equal(lim__post_reserved(w->bus->rt, group, j), LIM_OK);
    settle(w);
    return p;
}

static lim_pid begin(world *w, puppet *owner, lim__conv_kind kind, const char *group, const char *type,
                     const char *payload)
{
    lim_pid conv;
    lim__open *open = lim__open_new(NULL, kind, lim__str(group), lim__str(type), lim__msg_new(lim__str(payload)));
    open->owner = owner->pid;
    open->ref = 1;
    open->opened_ns = lim__sim_now(w->sim);
    open->flags = LIM__OPEN_REPORT;
    open->on_crash = LIM_CRASH_NEXT;
    open->losses_max = 16;
    assert_int_equal(lim__conv_spawn_at(w->bus, kind, owner->pid, &conv), LIM_OK);
    assert_int_equal(lim__post(w->bus->rt, conv, open), LIM_OK);
    return conv;
}

static lim_pid task(world *w, puppet *owner, const char *queue, const char *type, const char *payload)
{
    return begin(w, owner, LIM__KIND_TASK, queue, type, payload);
}

static void take(world *w, const seen *r)
{
    lim__taken *t = lim__letter_new(NULL, &lim__type_taken, sizeof *t);
    t->lease = r->lease;
    (void)!lim__post_reserved(w->bus->rt, r->conv, t);
    settle(w);
}

static void answer(world *w, puppet *p, const seen *r)
{
    (void)!lim__post_reserved(w->bus->rt, r->conv,
                              lim__answer_new(NULL, p->pid, r->lease, LIM__ANSWER_REPLY, lim__msg_new(lim__str("done")),
                                              lim__bytes(NULL, 0)));
    settle(w);
}

static void hold(world *w, puppet *p, const seen *r)
{
    lim__holding *h = lim__letter_new(NULL, &lim__type_holding, sizeof *h);
    *h = (lim__holding){ r->lease, p->pid };
    (void)!lim__post_reserved(w->bus->rt, r->conv, h);
    settle(w);
}

static void lose(world *w, puppet *p, lim_reason reason)
{
    lim__evict *e = lim__letter_new(NULL, &lim__type_evict, sizeof *e);
    e->reason = reason;
    (void)!lim__post_reserved(w->bus->rt, p->pid, e);
    settle(w);
}

static void deploy_slow(world *w, puppet *owner, const char *queue, const char *code, lim_on_fault on_fault,
                        uint32_t cpu_us)
{
    lim_pid group;
    lim__deploy *d = lim__letter_new(NULL, &lim__type_deploy, sizeof *d);
    *d = (lim__deploy){ .reply_to = owner->pid,
                        .opts = { .size = sizeof d->opts, .on_fault = on_fault, .cpu_us_max = cpu_us } };
    assert_int_equal(lim__artifact_new(LIM__ENGINE_LUA, lim__str(code), "test.lua", 0, &d->artifact), LIM_OK);
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &group), LIM_OK);
    assert_int_equal(lim__post_reserved(w->bus->rt, group, d), LIM_OK);
}

static void deploy(world *w, puppet *owner, const char *queue, const char *code, lim_on_fault on_fault)
{
    deploy_slow(w, owner, queue, code, on_fault, 0);
}

/* ---- tests ---- */

static void test_a_worker_that_comes_back_gets_what_waited_for_it(void **state) /* proves GR6 GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = worker(w, "q", "w", 2, NULL), *again;
    task(w, boss, "q", NULL, "one");
    settle(w);
    assert_int_equal(first->request_count, 1);
    take(w, &first->requests[0]);
    lose(w, first, LIM_LOST);
    task(w, boss, "q", NULL, "two"); /* nobody is there */
    settle(w);
    again = worker(w, "q", "w", 2, NULL);
    hold(w, again, &first->requests[0]);
    assert_true(again->request_count >= 1);
    answer(w, again, &first->requests[0]);
    for (uint32_t i = 0; i < again->request_count; i++)
        answer(w, again, &again->requests[i]);
    assert_int_equal(boss->outcome_count, 2);
}

static void test_a_worker_that_takes_over_from_itself_keeps_its_leases(void **state) /* proves GR1 GR6 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = worker(w, "q", "w", 1, NULL);
    task(w, boss, "q", NULL, "one");
    settle(w);
    take(w, &first->requests[0]);
    puppet *again = worker(w, "q", "w", 1, NULL); /* its old connection was never found dead */
    assert_int_equal(first->ended, LIM_REPLACED);
    hold(w, again, &first->requests[0]);
    assert_int_equal(again->revoked, 0);
    assert_int_equal(again->request_count, 0);
    answer(w, again, &first->requests[0]);
    assert_int_equal(again->accepted, 1);
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_REPLY);
}

static void test_holding_may_arrive_before_the_old_connection_ends(void **state) /* proves GR6 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *first = worker(w, "q", "w", 1, NULL), *again = puppet_new(w);
    task(w, boss, "q", NULL, "one");
    settle(w);
    take(w, &first->requests[0]);
    hold(w, again, &first->requests[0]);
    lose(w, first, LIM_LOST);
    assert_int_equal(again->revoked, 0);
    answer(w, again, &first->requests[0]);
    assert_int_equal(again->accepted, 1);
    assert_int_equal(boss->outcome_count, 1);
}

static void test_all_that_is_parked_for_one_gets_its_places(void **state) /* proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, NULL), *b = worker(w, "q", "b", 1, NULL);
    /* what says `shy` wants `a` only as long as that one is busy */
    deploy(w, boss, "q",
           "return function(msg, c) if msg.shy and c[1].in_flight == 0 then return c[2] end return c[1] end",
           LIM_ON_FAULT_REJECT);
    task(w, boss, "q", NULL, "{\"shy\":false}");
    task(w, boss, "q", NULL, "{\"shy\":true}");
    task(w, boss, "q", NULL, "{\"shy\":false}");
    settle(w);
    assert_int_equal(a->request_count, 1);
    assert_int_equal(b->request_count, 0);
    take(w, &a->requests[0]);
    answer(w, a, &a->requests[0]);
    assert_int_equal(b->request_count, 1);
    assert_int_equal(a->request_count, 2);
}

static void test_the_ninth_that_the_router_chose_nobody_for_gets_its_turn(void **state) /* proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 2, NULL);
    deploy(w, boss, "q", "return function(msg, c) if not msg.never and c[1].in_flight == 0 then return c[1] end end",
           LIM_ON_FAULT_REJECT);
    task(w, boss, "q", NULL, "{\"never\":false}");
    for (int i = 0; i < 12; i++)
        task(w, boss, "q", NULL, "{\"never\":true}");
    task(w, boss, "q", NULL, "{\"never\":false}");
    settle(w);
    assert_int_equal(a->request_count, 1);
    take(w, &a->requests[0]);
    answer(w, a, &a->requests[0]);
    assert_int_equal(a->request_count, 2);
}

static void test_a_long_row_of_one_type_does_not_hide_the_others(void **state) /* proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, "a"), *b = worker(w, "q", "b", 1, "b");
    task(w, boss, "q", "b", "x");
    for (int i = 0; i < 1500; i++)
        task(w, boss, "q", "a", "x");
    task(w, boss, "q", "b", "y");
    settle(w);
    assert_int_equal(a->request_count, 1);
    assert_int_equal(b->request_count, 1);
    take(w, &a->requests[0]);
    take(w, &b->requests[0]);
    answer(w, b, &b->requests[0]);
    assert_int_equal(b->request_count, 2);
}

static void test_one_without_a_type_does_not_hide_the_typed(void **state) /* proves GR8 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *any = worker(w, "q", "any", 1, NULL), *b = worker(w, "q", "b", 1, "b");
    task(w, boss, "q", NULL, "x");
    task(w, boss, "q", "b", "x");
    task(w, boss, "q", NULL, "y"); /* only `any` can have it */
    task(w, boss, "q", "b", "y");
    settle(w);
    assert_int_equal(any->request_count + b->request_count, 2);
    take(w, &any->requests[0]);
    take(w, &b->requests[0]);
    answer(w, b, &b->requests[0]);
    assert_int_equal(b->request_count, 2);
}

static void test_a_version_with_unfinished_calls_may_be_replaced_and_the_bus_closed(void **state) /* proves RF7 RF9 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, NULL);
    for (int i = 0; i < 3; i++) {
        deploy_slow(w, boss, "q",
                    i % 2 ? "return function() while true do local x = 1 end end"
                          : "return function() while true do end end",
                    LIM_ON_FAULT_REJECT, 10000000);
        task(w, boss, "q", NULL, "{}");
        for (int t = 0; t < 3; t++)
            lim__sched_turn(lim__sched_at(w->bus->rt, 0), 0);
    }
    assert_int_equal(a->request_count, 0);
}

static void test_a_version_to_fall_back_on_that_fails_too_ends_the_matter(void **state) /* proves RF11 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *p = puppet_new(w);
    lim_pid group;
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str("q"), &group), LIM_OK);
    lim__join *j = lim__join_new(NULL, p->pid, LIM__MEMBER_SERVE, lim__str("p"), 1, NULL, NULL);
    j->reply_to = p->pid;
    assert_int_equal(lim__post_reserved(w->bus->rt, group, j), LIM_OK);
    deploy(w, boss, "q", "return function() while true do end end", LIM_ON_FAULT_REJECT);
    deploy(w, boss, "q", "return function() error('no') end", LIM_ON_FAULT_PREVIOUS);
    begin(w, boss, LIM__KIND_ASK, "q", NULL, "{}");
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 20 * SECOND, NULL, NULL);
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_REFUSED);
    assert_int_equal(boss->outcomes[0].why, LIM_WHY_ROUTING_FAULT);
    assert_int_equal(boss->outcomes[0].handed, LIM_HANDED_NO);
}

static void test_reported_places_cannot_wrap_around(void **state) /* proves GR2 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 2, NULL);
    lim_pid group = lim__group_find(w->bus, lim__str("q"));
    task(w, boss, "q", NULL, "x");
    settle(w);
    lim__report *r = lim__letter_new(NULL, &lim__type_report, sizeof *r);
    *r = (lim__report){ a->pid, UINT32_MAX };
    assert_int_equal(lim__post_reserved(w->bus->rt, group, r), LIM_OK);
    task(w, boss, "q", NULL, "y");
    settle(w);
    assert_int_equal(a->request_count, 1);
}

static void test_what_nobody_acknowledged_may_have_been_handed_over(void **state) /* proves CV3 GR4 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *a = worker(w, "q", "a", 1, NULL);
    lim_pid t = task(w, boss, "q", NULL, "x");
    settle(w);
    for (uint32_t had = 0; had < 18; had = a->request_count) /* offered again and again; the only one there is */
        lim__sim_run(w->sim, lim__sim_now(w->sim) + SECOND, NULL, NULL);
    lose(w, a, LIM_LEFT);
    lim__command *c = lim__letter_new(NULL, &lim__type_cancel, sizeof *c);
    *c = (lim__command){ 0 };
    assert_int_equal(lim__post_reserved(w->bus->rt, t, c), LIM_OK);
    settle(w);
    assert_int_equal(boss->outcome_count, 1);
    assert_int_equal(boss->outcomes[0].how, LIM_HOW_CANCELLED);
    assert_int_equal(boss->outcomes[0].handed, LIM_HANDED_UNKNOWN);
}

static void test_more_than_64_members_are_all_reached(void **state) /* proves GR3 */
{
    world *w = *state;
    puppet *boss = puppet_new(w), *all[80];
    char name[16];
    for (int i = 0; i < 80; i++) {
        snprintf(name, sizeof name, "w%d", i);
        all[i] = worker(w, "q", name, 1, NULL);
        if (i == 70) /* one with a small slot, one with a large one, and they come again */
            lose(w, all[3], LIM_LEFT), lose(w, all[68], LIM_LEFT);
    }
    deploy(w, boss, "q", "return function(m, c) for i = 1, #c do if c[i].in_flight == 0 then return c[i] end end end",
           LIM_ON_FAULT_REJECT);
    settle(w);
    for (int i = 0; i < 78; i++)
        task(w, boss, "q", NULL, "{}");
    settle(w);
    for (int i = 0; i < 80; i++) {
        assert_int_equal(all[i]->request_count, i == 3 || i == 68 ? 0 : 1);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(test_a_worker_that_comes_back_gets_what_waited_for_it),
        T(test_a_worker_that_takes_over_from_itself_keeps_its_leases),
        T(test_holding_may_arrive_before_the_old_connection_ends),
        T(test_all_that_is_parked_for_one_gets_its_places),
        T(test_the_ninth_that_the_router_chose_nobody_for_gets_its_turn),
        T(test_a_long_row_of_one_type_does_not_hide_the_others),
        T(test_one_without_a_type_does_not_hide_the_typed),
        T(test_a_version_with_unfinished_calls_may_be_replaced_and_the_bus_closed),
        T(test_a_version_to_fall_back_on_that_fails_too_ends_the_matter),
        T(test_reported_places_cannot_wrap_around),
        T(test_what_nobody_acknowledged_may_have_been_handed_over),
        T(test_more_than_64_members_are_all_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
