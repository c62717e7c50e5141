/* SPDX-License-Identifier: Apache-2.0
 * group_durable_test.c - durable queues and asks over kills, power losses and disk faults. */
#include "bus/durable_world.h"
#include "bus/ended.h"
#include "bus/exchange.h"
#include "bus/group_world.h"
#include <inttypes.h>

static durable_world machine;
static world both; /* the same machine, as group_world.h has it */

static world *up(void)
{
    both.sim = machine.sim;
    both.os = machine.os;
    both.bus = machine.bus;
    settle(&both);
    return &both;
}

static world *begin_world(uint64_t seed)
{
    both = (world){ 0 };
    durable_open(&machine, seed);
    return up();
}

static world *again(bool power)
{
    if (power)
        durable_power_off(&machine);
    else
        durable_kill(&machine);
    durable_start(&machine);
    return up();
}

static void end_world(void)
{
    durable_close(&machine);
    for (puppet *p; (p = both.puppets) != NULL; free(p)) {
        both.puppets = p->next;
        free(p->json);
    }
}

static uint64_t commits(void)
{
    lim__store_info info;
    lim__store_info_get(lim__durable_store(machine.bus), &info);
    return info.batches;
}

static void configure(world *w, const char *json)
{
    puppet *p = puppet_new(w);
    const char *answer_json = admin(w, p, "q", json);
    if (strstr(answer_json, "error") != NULL)
        fail_msg("%s", answer_json);
}

static void durable_queue(world *w)
{
    configure(w, "{\"op\":\"queue.configure\",\"queue\":\"q\",\"durable\":true}");
}

static uint32_t rows(lim__table table);
static bool count_row(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    ++*(uint32_t *)ctx;
    return true;
}
static uint32_t rows(lim__table table)
{
    uint32_t n = 0;
    assert_int_equal(lim__store_scan(lim__durable_store(machine.bus), (uint8_t)table, lim__bytes(NULL, 0),
                                     lim__bytes(NULL, 0), count_row, &n),
                     0);
    return n;
}

static void test_a_durable_task_is_two_commits(void **state) /* proves DU1 GR6 */
{
    (void)state;
    world *w = begin_world(1);
    durable_queue(w);
    puppet *worker_a = good(w, "a", 1), *owner = puppet_new(w);
    uint64_t before = commits();
    lim_pid t = task(w, owner, "q", "", "p");
    settle(w);
    assert_int_equal(worker_a->request_count, 1);
    assert_int_equal(owner->admission.verdict, LIM_ACCEPT);
    assert_int_equal(commits() - before, 1);
    assert_int_equal(rows(LIM__TABLE_TASKS), 2);
    answer(w, worker_a, &worker_a->requests[0]);
    assert_int_equal(owner->outcome_count, 1);
    assert_int_equal(worker_a->accepted, 1);
    assert_int_equal(commits() - before, 2);
    assert_int_equal(rows(LIM__TABLE_TASKS), 0);
    assert_int_equal(rows(LIM__TABLE_OUTCOMES), 1);
    (void)t;
    end_world();
}

static void test_a_worker_that_comes_back_after_a_kill_keeps_its_task(void **state) /* proves GR6 DU2 */
{
    (void)state;
    for (int power = 0; power < 2; power++) {
        world *w = begin_world(2);
        durable_queue(w);
        puppet *a = good(w, "a", 1), *owner = puppet_new(w);
        lim_pid t = task(w, owner, "q", "", "p");
        settle(w);
        seen had = a->requests[0];
        w = again(power);
        assert_int_equal(rows(LIM__TABLE_TASKS), 2);
        puppet *other = good(w, "b", 1);
        assert_int_equal(other->request_count, 0); /* offered to nobody before the grace is over */
        puppet *back = good(w, "a", 1);
        hold(w, back, &had);
        assert_int_equal(back->revoked, 0);
        puppet *waiter = puppet_new(w);
        lim__command *c = lim__letter_new(NULL, &lim__type_await, sizeof *c);
        *c = (lim__command){ 9, waiter->pid };
        assert_int_equal(lim__post_reserved(w->bus->rt, lim__alias_pid(w->bus, t.id), c), LIM_OK);
        answer(w, back, &had);
        assert_int_equal(back->accepted, 1);
        assert_int_equal(waiter->outcome_count, 1);
        assert_int_equal(waiter->outcomes[0].conv.id, t.id);
        assert_int_equal(other->request_count, 0);
        assert_int_equal(rows(LIM__TABLE_TASKS), 0);
        w = again(power);
        lim__outcome_letter *o = lim__ended_outcome(w->bus, NULL, t, 0);
        assert_non_null(o);
        assert_int_equal(o->how, LIM_HOW_REPLY);
        lim__letter_free(NULL, o);
        end_world();
    }
}

/* ---- steps ---- */

typedef struct step_told {
    uint32_t done, refused;
    lim__commit_how how;
    lim_err err;
} step_told;

static void on_step_done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    step_told *t = ctx;
    t->done++;
    t->how = what->how;
    lim__batch_free(batch);
}

static void on_step_refused(void *ctx, lim__batch *batch, lim_err err)
{
    step_told *t = ctx;
    t->refused++;
    t->err = err;
    lim__batch_free(batch);
}

/* A result together with a row of somebody else's, that must not be there yet. */
static step_told reply_in_step(world *w, puppet *p, const seen *r)
{
    static step_told t;
    t = (step_told){ 0 };
    lim__batch *b = lim__batch_new();
    lim__batch_expect(b, LIM__TABLE_SAGAS, lim__str("mine"), lim__bytes(NULL, 0));
    lim__batch_put(b, LIM__TABLE_SAGAS, lim__str("mine"), lim__str("v"));
    lim__step_reply s = { .task = r->conv.id,
                          .lease = r->lease,
                          .from = p->pid.id,
                          .payload = lim__str("in a step"),
                          .on_done = on_step_done,
                          .refused = on_step_refused,
                          .ctx = &t };
    assert_int_equal(lim__exchange_step_reply(w->bus, b, &s), LIM_OK);
    settle(w);
    return t;
}

static void test_a_result_in_a_step_counts_with_all_of_it_or_not_at_all(void **state) /* proves XO2 DU4 */
{
    (void)state;
    world *w = begin_world(3);
    durable_queue(w);
    puppet *a = good(w, "a", 2), *stranger = puppet_new(w), *owner = puppet_new(w);
    task(w, owner, "q", "", "one");
    task(w, owner, "q", "", "two");
    settle(w);
    step_told t = reply_in_step(w, stranger, &a->requests[0]);
    assert_true(t.refused == 1 && t.err == LIM_E_GONE && t.done == 0);
    assert_int_equal(rows(LIM__TABLE_SAGAS), 0);
    t = reply_in_step(w, a, &a->requests[0]);
    assert_true(t.done == 1 && t.how == LIM__COMMITTED && t.refused == 0);
    assert_int_equal(rows(LIM__TABLE_SAGAS), 1);
    assert_int_equal(rows(LIM__TABLE_OUTCOMES), 1);
    assert_int_equal(owner->outcome_count, 1);
    assert_string_equal(owner->outcomes[0].payload, "in a step");
    t = reply_in_step(w, a, &a->requests[1]); /* the row is there already */
    assert_true(t.done == 1 && t.how == LIM__COMMIT_CONFLICT);
    assert_int_equal(owner->outcome_count, 1);
    assert_int_equal(rows(LIM__TABLE_TASKS), 2);
    answer(w, a, &a->requests[1]); /* it is still its own */
    assert_int_equal(owner->outcome_count, 2);
    assert_int_equal(rows(LIM__TABLE_TASKS), 0);
    end_world();
}

/* ---- what a queue knows ---- */

static lim_pid dispatch_with(world *w, puppet *owner, const char *payload, const lim_dispatch_opts *o)
{
    owner->admitted = (lim_pid){ 0 };
    (void)task_with(w, owner, "q", payload, o);
    return owner->admitted;
}

static void test_a_replayed_dispatch_gets_the_recorded_outcome_after_a_restart(void **state) /* proves GR13 XO1 */
{
    (void)state;
    world *w = begin_world(4);
    durable_queue(w);
    puppet *a = good(w, "a", 1), *owner = puppet_new(w);
    lim_pid first = dispatch_with(w, owner, "one", TASK(.idempotency_key = "k"));
    lim_pid while_it_runs = dispatch_with(w, owner, "one", TASK(.idempotency_key = "k"));
    assert_int_equal(while_it_runs.id, first.id);
    answer(w, a, &a->requests[0]);
    assert_int_equal(owner->outcome_count, 2);
    for (int power = 0; power < 2; power++) {
        w = again(power);
        puppet *b = good(w, "b", 1), *then = puppet_new(w);
        lim_pid once_more = dispatch_with(w, then, "one", TASK(.idempotency_key = "k"));
        assert_int_equal(once_more.id, first.id);
        assert_int_equal(b->request_count, 0); /* it touches no worker */
        assert_int_equal(then->outcome_count, 1);
        assert_int_equal(then->outcomes[0].how, LIM_HOW_REPLY);
        assert_string_equal(then->outcomes[0].payload, "done");
    }
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 601 * SECOND, NULL, NULL); /* its window is over */
    puppet *late = puppet_new(w);
    assert_int_not_equal(dispatch_with(w, late, "one", TASK(.idempotency_key = "k")).id, first.id);
    end_world();
}

static void test_a_queue_is_after_a_restart_what_it_was(void **state) /* proves DU2 GR9 GR10 */
{
    (void)state;
    world *w = begin_world(5);
    puppet *boss = puppet_new(w);
    configure(w, "{\"op\":\"queue.configure\",\"durable\":true,\"attempts_max\":2,\"backoff_min_ms\":0,"
                 "\"in_flight_max\":7,\"reconnect_grace_ms\":5000}");
    configure(w, "{\"op\":\"queue.limit\",\"key\":\"customer\",\"in_flight_max\":3}");
    puppet *a = good(w, "a", 1);
    task(w, boss, "q", "kind", "bad");
    settle(w);
    answer_failed(w, a, &a->requests[0], "no");
    answer_failed(w, a, &a->requests[1], "no");
    has(admin(w, boss, "q", "{\"op\":\"dead.ls\"}"), "\"count\":1");
    configure(w, "{\"op\":\"queue.pause\"}");
    w = again(true);
    boss = puppet_new(w);
    const char *json = admin(w, boss, "q", "{\"op\":\"queue.show\"}");
    has(json, "\"attempts_max\":2");
    has(json, "\"in_flight_max\":7");
    has(json, "\"reconnect_grace_ms\":5000");
    has(json, "\"paused\":true");
    has(json, "\"durable\":true,\"class\":\"disk\"");
    has(admin(w, boss, "q", "{\"op\":\"queue.limit\",\"key\":\"customer\",\"clear\":true}"), "\"cleared\":true");
    json = admin(w, boss, "q", "{\"op\":\"dead.ls\"}");
    has(json, "\"count\":1");
    has(json, "\"why\":\"attempts\"");
    has(json, "\"attempts\":2");
    has(admin(w, boss, "q", "{\"op\":\"queue.resume\"}"), "\"paused\":false");
    has(admin(w, boss, "q", "{\"op\":\"dead.replay\",\"all\":true}"), "\"left\":0");
    puppet *b = good(w, "b", 1);
    assert_int_equal(b->request_count, 1);
    assert_string_equal(b->requests[0].payload, "bad");
    answer(w, b, &b->requests[0]);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 2 * SECOND, NULL, NULL);
    assert_int_equal(rows(LIM__TABLE_DEAD), 0); /* swept up */
    w = again(false);
    boss = puppet_new(w);
    settle(w);
    has(admin(w, boss, "q", "{\"op\":\"queue.why\"}"), "\"waiting\":0");
    end_world();
}

static void fill_the_disk(void)
{
    lim__sim_disk d = lim__sim_disk_get(machine.os);
    d.capacity = 0;
    lim__sim_disk_set(machine.os, &d);
}

static void test_a_full_disk_refuses_tasks_and_completes_those_that_there_are(void **state) /* proves DU3 PR1 PR2 */
{
    (void)state;
    world *w = begin_world(6);
    durable_queue(w);
    static char big[100000];
    memset(big, 'x', sizeof big - 1);
    puppet *a = good(w, "a", 1), *owner = puppet_new(w);
    lim_pid first = task(w, owner, "q", "", "small");
    settle(w);
    assert_int_equal(owner->admission.verdict, LIM_ACCEPT);
    fill_the_disk();
    uint32_t accepted = 0;
    for (uint32_t i = 0; i < 200; i++) {
        (void)dispatch_with(w, owner, big, TASK(.idempotency_key = i > 150 ? "k" : NULL));
        if (owner->admission.verdict == LIM_REJECT)
            break;
        accepted++;
    }
    assert_int_equal(owner->admission.verdict, LIM_REJECT);
    assert_int_equal(owner->admission.why, LIM_WHY_DISK_FULL);
    assert_true(owner->admission.limit > 0 && owner->admission.retry_after_ms > 0);
    has(admin(w, puppet_new(w), "q", "{\"op\":\"queue.why\"}"), "\"pressure\"");
    answer(w, a, &a->requests[0]); /* out of the reserve */
    assert_int_equal(a->accepted, 1);
    lim__ended_info info;
    assert_true(lim__ended_find(w->bus, first, &info));
    lim__sim_disk d = lim__sim_disk_get(machine.os);
    d.capacity = 1ull << 40;
    lim__sim_disk_set(machine.os, &d);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 10 * SECOND, NULL, NULL);
    (void)dispatch_with(w, owner, "again", TASK(.idempotency_key = "k"));
    assert_int_equal(owner->admission.verdict, LIM_ACCEPT); /* by itself; and a key that was refused is free */
    end_world();
}

static void test_a_durable_ask_can_be_awaited_after_a_restart(void **state) /* proves DU1 CV15 */
{
    (void)state;
    world *w = begin_world(7);
    puppet *p = puppet_new(w), *owner = puppet_new(w);
    p->takes = true;
    lim_pid group;
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str("g"), &group), LIM_OK);
    lim__join *j = lim__join_new(NULL, p->pid, LIM__MEMBER_SERVE, lim__str("server"), 1, NULL, NULL);
    memset(j->session, 's', sizeof j->session);
    assert_int_equal(lim__post_reserved(w->bus->rt, group, j), LIM_OK);
    settle(w);
    lim__buf block = { 0 };
    lim__terms *terms = NULL;
    lim_ask_opts o = { .size = sizeof o, .timeout_ms = LIM_FOREVER, .durable = true };
    assert_int_equal(lim__options_ask(&block, &o, false, false, NULL), LIM_OK);
    assert_int_equal(lim__terms_parse(lim__buf_bytes(&block), NULL, &terms), LIM_OK);
    lim__buf_fini(&block);
    uint64_t before = commits();
    lim_pid ask = begin_with(w, owner, LIM__KIND_ASK, "g", "", "what?", terms);
    settle(w);
    assert_int_equal(p->request_count, 1);
    seen had = p->requests[0];
    w = again(false);
    puppet *back = puppet_new(w);
    back->takes = true;
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str("g"), &group), LIM_OK);
    j = lim__join_new(NULL, back->pid, LIM__MEMBER_SERVE, lim__str("server"), 1, NULL, NULL);
    memset(j->session, 's', sizeof j->session);
    assert_int_equal(lim__post_reserved(w->bus->rt, group, j), LIM_OK);
    settle(w);
    hold(w, back, &had);
    answer(w, back, &had);
    assert_int_equal(back->accepted, 1); /* its answer is settled like a task's */
    (void)before;
    w = again(true);
    lim__outcome_letter *out = lim__ended_outcome(w->bus, NULL, ask, 0);
    assert_non_null(out);
    assert_int_equal(out->how, LIM_HOW_REPLY);
    lim__letter_free(NULL, out);
    assert_int_equal(rows(LIM__TABLE_TASKS), 0);
    end_world();
}

static void test_a_worker_that_does_not_come_back_loses_its_task(void **state) /* proves GR5 GR6 */
{
    (void)state;
    world *w = begin_world(8);
    durable_queue(w);
    puppet *a = good(w, "a", 1), *owner = puppet_new(w);
    lim_pid t = task(w, owner, "q", "", "p");
    settle(w);
    seen had = a->requests[0];
    w = again(false);
    puppet *b = good(w, "b", 1), *stranger = puppet_new(w);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 9 * SECOND, NULL, NULL);
    hold(w, stranger, &had); /* the token alone is not enough */
    assert_int_equal(stranger->revoked, 1);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 2 * SECOND, NULL, NULL);
    assert_int_equal(b->request_count, 1);
    puppet *late = good(w, "a", 1);
    hold(w, late, &had);
    assert_int_equal(late->revoked, 1); /* b acknowledged it */
    answer(w, late, &had);
    assert_int_equal(late->refused, 1);
    answer(w, b, &b->requests[0]);
    assert_int_equal(b->accepted, 1);
    lim__outcome_letter *o = lim__ended_outcome(w->bus, NULL, t, 0);
    assert_non_null(o);
    assert_int_equal(o->losses, 1);
    assert_int_equal(o->attempts, 0);
    lim__letter_free(NULL, o);
    end_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_durable_task_is_two_commits),
        cmocka_unit_test(test_a_worker_that_comes_back_after_a_kill_keeps_its_task),
        cmocka_unit_test(test_a_replayed_dispatch_gets_the_recorded_outcome_after_a_restart),
        cmocka_unit_test(test_a_queue_is_after_a_restart_what_it_was),
        cmocka_unit_test(test_a_full_disk_refuses_tasks_and_completes_those_that_there_are),
        cmocka_unit_test(test_a_durable_ask_can_be_awaited_after_a_restart),
        cmocka_unit_test(test_a_worker_that_does_not_come_back_loses_its_task),
        cmocka_unit_test(test_a_result_in_a_step_counts_with_all_of_it_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
