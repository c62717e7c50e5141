/* SPDX-License-Identifier: Apache-2.0
 * fault_test.c - every allocation fails once: calls answer NOMEM, leave nothing half-done, and nothing leaks.
 *
 * One scenario makes every call that allocates, near and far. It is run with the first allocation failing, then the
 * second, ... until a run needs fewer. What answered OK must then have happened exactly once, what answered NOMEM not
 * at all, and the census must return to nothing. */
#include "actor/test_world.h"

typedef struct outcome {
    puppet *near, *far, *dead, *children[2];
    uint32_t exits_due, downs_due, timers_due, responses_due, messages_due, failures;
} outcome;

static bool ok(outcome *o, lim_err err)
{
    assert_true(err == LIM_OK || err == LIM_E_NOMEM);
    o->failures += err != LIM_OK;
    return err == LIM_OK;
}

static void call_all(lim_process *self, outcome *o, lim_pid to)
{
    uint64_t ref;
    o->exits_due += ok(o, lim_link(self, to));
    o->downs_due += ok(o, lim_monitor(self, to, &ref));
    if (ok(o, lim_monitor(self, to, &ref)))
        lim_demonitor(self, ref);
    o->timers_due += ok(o, lim_timer_start(self, 1, 0, &ref));
    if (ok(o, lim_timer_start(self, 1, 0, &ref)))
        assert_true(lim_timer_cancel(self, ref));
    if (!lim_alive(lim_process_runtime(self), to))
        return;
    o->responses_due += ok(o, lim_request(self, to, 1, lim__str("q"), 1, &ref));
    o->messages_due += ok(o, lim_send(self, to, 2, lim__str("m")));
    void *letter = lim__letter_new(lim__proc_sched(self), NULL, 600);
    if (ok(o, letter ? LIM_OK : LIM_E_NOMEM))
        assert_int_equal(lim__send(self, to, letter), LIM_OK);
}

static void do_everything(lim_process *self, puppet *p, void *arg)
{
    (void)p;
    outcome *o = arg;
    call_all(self, o, o->near->pid);
    call_all(self, o, o->far->pid);
    call_all(self, o, o->dead->pid);
    for (uint32_t far = 0; far < 2; far++) {
        puppet *child = o->children[far] = calloc(1, sizeof *child);
        uint64_t monitor;
        lim_spawn_opts s = puppet_opts(&child);
        s.link = s.monitor = true;
        s.monitor_out = &monitor;
        s.place = true;
        s.scheduler = far;
        if (ok(o, lim_spawn(self, &s, &child->pid))) {
            o->exits_due++;
            o->downs_due++;
            lim_exit_process(self, child->pid, LIM_KILL); /* may not fail */
        }
    }
}

static uint32_t seen(const puppet *p, lim_signal_kind kind)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->count; i++)
        n += p->log[i].kind == kind;
    return n;
}

/* Returns false when the run needed fewer than n allocations. */
static bool run_failing(uint64_t n)
{
    world *w = world_open(2);
    outcome o = { 0 };
    puppet *a = puppet_new(w, 0, true);
    o.near = puppet_new(w, 0, true);
    o.far = puppet_new(w, 1, true);
    o.dead = puppet_new(w, 1, false);
    act(w, o.dead, do_exit, REASON(LIM_NORMAL));
    settle(w);
    act(w, a, do_everything, &o);
    lim__alloc_fail_at(n);
    settle(w);
    bool reached = atomic_load(&lim__alloc_countdown) == 0;
    lim__alloc_fail_at(0);
    advance(w, 2000000); /* timers, and the requests' deadline */
    act(w, o.near, do_exit, REASON(LIM_FAULT));
    act(w, o.far, do_exit, REASON(LIM_FAULT));
    settle(w);
    assert_true(a->count < LOG_MAX);
    assert_int_equal(seen(a, LIM_SIGNAL_EXIT), o.exits_due);
    assert_int_equal(seen(a, LIM_SIGNAL_DOWN), o.downs_due);
    assert_int_equal(seen(a, LIM_SIGNAL_TIMER), o.timers_due);
    assert_int_equal(seen(a, LIM_SIGNAL_RESPONSE), o.responses_due);
    assert_int_equal(o.failures, reached && o.failures ? 1 : 0);
    assert_nothing_left(w, 1);
    world_close(w);
    free(o.children[0]), free(o.children[1]), free(o.near), free(o.far), free(o.dead), free(a);
    return reached;
}

static void test_any_allocation_may_fail_and_nothing_is_half_done(void **state) /* proves RT12 */
{
    (void)state;
    uint64_t n = 1;
    while (run_failing(n))
        n++;
    assert_in_range(n, 30, 1000); /* the scenario does allocate */
}

static void test_a_runtime_that_cannot_be_opened_leaves_nothing(void **state)
{
    (void)state;
    world *w = world_open(1);
    uint64_t n = 1;
    for (;; n++) {
        lim_runtime *rt = NULL;
        lim__runtime_opts opts = { .os = &w->os, .scheduler_count = 3 };
        lim__alloc_fail_at(n);
        lim_err err = lim__runtime_open(&opts, &rt);
        bool reached = atomic_load(&lim__alloc_countdown) == 0;
        lim__alloc_fail_at(0);
        assert_int_equal(err, reached ? LIM_E_NOMEM : LIM_OK);
        if (!reached) {
            lim_runtime_close(rt);
            break;
        }
        assert_null(rt);
    }
    assert_true(n > 3);
    world_close(w);
}

static void test_host_calls_survive_a_failing_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 5; n++) {
        world *w = world_open(1);
        puppet *a = puppet_new(w, 0, false), *b = calloc(1, sizeof *b);
        lim_supervisor_opts so = { .size = sizeof so };
        lim_spawn_opts o = puppet_opts(&b);
        lim_pid sup = { 0 };
        lim__alloc_fail_at(n);
        lim_err sent = lim_runtime_send(w->rt, a->pid, 1, lim__str("x"));
        lim_err spawned = lim_runtime_spawn(w->rt, &o, &b->pid);
        lim_err opened = lim_supervisor_open(w->rt, &so, &sup);
        lim_runtime_exit(w->rt, a->pid, LIM_KILL); /* may not fail */
        lim__alloc_fail_at(0);
        assert_int_equal((sent != LIM_OK) + (spawned != LIM_OK) + (opened != LIM_OK), 1);
        settle(w);
        assert_int_equal(a->ends, 1);
        assert_nothing_left(w, (uint64_t)(spawned == LIM_OK) + (opened == LIM_OK));
        world_close(w);
        free(a), free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_allocation_may_fail_and_nothing_is_half_done),
        cmocka_unit_test(test_a_runtime_that_cannot_be_opened_leaves_nothing),
        cmocka_unit_test(test_host_calls_survive_a_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
