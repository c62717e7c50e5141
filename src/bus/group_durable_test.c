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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_durable_task_is_two_commits),
        cmocka_unit_test(test_a_worker_that_comes_back_after_a_kill_keeps_its_task),
        cmocka_unit_test(test_a_result_in_a_step_counts_with_all_of_it_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
