/* SPDX-License-Identifier: Apache-2.0
 * group_durable_test.c - durable queues and asks over kills, power losses and disk faults. */
#include "bus/durable_world.h"
#include "bus/ended.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_durable_task_is_two_commits),
        cmocka_unit_test(test_a_worker_that_comes_back_after_a_kill_keeps_its_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
