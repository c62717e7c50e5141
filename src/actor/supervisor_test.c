/* SPDX-License-Identifier: Apache-2.0
 * supervisor_test.c - which children start again, how often, and what happens when it is too often. */
#include "actor/test_world.h"

#define MS 1000000ull

typedef struct kid {
    world *w;
    lim_pid pid;
    uint32_t starts, signals_before_start, ends;
    lim_reason end_reason;
    bool trap;
    uint32_t exits_seen;
    lim_err registered;
} kid;

/* A child's state is a pointer to its kid. A message's tag is the reason it ends with. */
static void kid_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    kid *k = *(kid **)state;
    k->signals_before_start += lim_self(self).id != k->pid.id; /* on_start has not been called for this life yet */
    if (signal->kind == LIM_SIGNAL_MESSAGE)
        lim_exit(self, (lim_reason)signal->tag);
    if (signal->kind == LIM_SIGNAL_EXIT)
        k->exits_seen++;
}

static void kid_on_end(void *state, lim_reason reason)
{
    kid *k = *(kid **)state;
    k->ends++;
    k->end_reason = reason;
}

static void kid_on_start(void *ctx, lim_pid pid, uint32_t starts)
{
    kid *k = ctx;
    k->pid = pid;
    k->starts++;
    assert_int_equal(starts, k->starts);
    assert_non_null(lim__sched_current());
    k->registered = lim_register(k->w->rt, "kid", pid); /* a restart keeps its identity through its name */
}

static lim_err kid_add(world *w, lim_pid supervisor, kid *k, lim_restart restart)
{
    k->w = w;
    lim_child_spec spec = { .size = sizeof spec,
                            .spawn = { .size = sizeof spec.spawn,
                                       .on_signal = kid_on_signal,
                                       .on_end = kid_on_end,
                                       .state_bytes = sizeof k,
                                       .init = &k,
                                       .init_bytes = sizeof k,
                                       .trap_exit = k->trap },
                            .restart = restart,
                            .on_start = kid_on_start,
                            .ctx = k };
    return lim_supervisor_add(w->rt, supervisor, &spec);
}

static void end_kid(world *w, kid *k, lim_reason reason)
{
    assert_int_equal(lim_runtime_send(w->rt, k->pid, reason, lim__bytes(NULL, 0)), LIM_OK);
    settle(w);
}

static lim_pid supervisor_new(world *w, uint32_t restarts_max, uint32_t period_ms)
{
    lim_pid pid;
    lim_supervisor_opts o = { .size = sizeof o, .restarts_max = restarts_max, .period_ms = period_ms };
    assert_int_equal(lim_supervisor_open(w->rt, &o, &pid), LIM_OK);
    return pid;
}

static void test_one_for_one_restarts_who_should_be_restarted(void **state) /* R14, proves RT7 */
{
    (void)state;
    world *w = world_open(2);
    lim_pid sup = supervisor_new(w, 100, 5000);
    kid permanent = { 0 }, transient = { 0 }, temporary = { 0 };
    assert_int_equal(kid_add(w, sup, &permanent, LIM_PERMANENT), LIM_OK);
    assert_int_equal(kid_add(w, sup, &transient, LIM_TRANSIENT), LIM_OK);
    assert_int_equal(kid_add(w, sup, &temporary, LIM_TEMPORARY), LIM_OK);
    settle(w);
    assert_int_equal(permanent.starts + transient.starts + temporary.starts, 3);
    assert_int_equal(lim__pid_scheduler(permanent.pid), lim__pid_scheduler(sup));
    end_kid(w, &permanent, LIM_NORMAL);
    end_kid(w, &permanent, LIM_FAULT);
    assert_int_equal(permanent.starts, 3);
    end_kid(w, &transient, LIM_FAULT);
    assert_int_equal(transient.starts, 2);
    end_kid(w, &transient, LIM_NORMAL);
    assert_int_equal(transient.starts, 2);
    end_kid(w, &temporary, LIM_FAULT);
    assert_int_equal(temporary.starts, 1);
    assert_int_equal(lim_whereis(w->rt, "kid").id, permanent.pid.id);
    assert_int_equal(transient.registered, LIM_E_EXISTS);
    assert_int_equal(permanent.signals_before_start + transient.signals_before_start, 0);
    assert_true(lim_alive(w->rt, sup));
    lim_census c;
    lim_runtime_census(w->rt, &c);
    assert_int_equal(c.processes, 2);
    assert_int_equal(c.links, 1);
    world_close(w);
}

static void test_a_name_is_free_again_when_its_owner_is_restarted(void **state)
{
    (void)state;
    world *w = world_open(1);
    lim_pid sup = supervisor_new(w, 100, 5000);
    kid k = { 0 };
    assert_int_equal(kid_add(w, sup, &k, LIM_PERMANENT), LIM_OK);
    settle(w);
    for (uint32_t i = 0; i < 10; i++) {
        end_kid(w, &k, LIM_FAULT);
        assert_int_equal(lim_whereis(w->rt, "kid").id, k.pid.id);
        assert_int_equal(k.starts, i + 2);
    }
    world_close(w);
}

static void test_more_restarts_than_the_window_allows_end_the_supervisor(void **state) /* R15, proves RT7 */
{
    (void)state;
    world *w = world_open(1);
    lim_pid sup = supervisor_new(w, 3, 5000);
    kid k = { 0 }, sister = { 0 }, trapping = { .trap = true };
    assert_int_equal(kid_add(w, sup, &sister, LIM_PERMANENT), LIM_OK);
    assert_int_equal(kid_add(w, sup, &trapping, LIM_PERMANENT), LIM_OK);
    assert_int_equal(kid_add(w, sup, &k, LIM_PERMANENT), LIM_OK);
    settle(w);
    puppet *watcher = puppet_new(w, 0, false);
    puppet target = { .pid = sup };
    act(w, watcher, do_monitor, &target);
    settle(w);
    for (int i = 0; i < 12; i++) { /* spread out: never four in five seconds */
        end_kid(w, &k, LIM_FAULT);
        advance(w, 1700 * MS);
    }
    assert_int_equal(k.starts, 13);
    advance(w, 5000 * MS);
    for (int i = 0; i < 3; i++)
        end_kid(w, &k, LIM_FAULT);
    assert_int_equal(watcher->count, 0);
    end_kid(w, &k, LIM_FAULT);
    assert_int_equal(trapping.ends, 0); /* has time to put things in order */
    assert_int_equal(sister.ends, 0);   /* and is older, so its turn comes later */
    advance(w, 5000 * MS);
    assert_signal(watcher, 0, LIM_SIGNAL_DOWN, LIM_SHUTDOWN);
    assert_int_equal(k.starts, 16);
    assert_int_equal(sister.end_reason, LIM_SHUTDOWN);
    assert_int_equal(trapping.exits_seen, 1);
    assert_int_equal(trapping.ends, 1);
    assert_nothing_left(w, 1);
    assert_int_equal(kid_add(w, sup, &k, LIM_PERMANENT), LIM_E_GONE);
    world_close(w);
    free(watcher);
}

static void test_the_default_is_one_restart_in_five_seconds(void **state) /* proves RT7 */
{
    (void)state;
    world *w = world_open(1);
    lim_pid sup = supervisor_new(w, 0, 0);
    kid k = { 0 };
    assert_int_equal(kid_add(w, sup, &k, LIM_PERMANENT), LIM_OK);
    settle(w);
    end_kid(w, &k, LIM_FAULT);
    advance(w, 5000 * MS);
    end_kid(w, &k, LIM_FAULT);
    assert_true(lim_alive(w->rt, sup));
    advance(w, 4999 * MS);
    end_kid(w, &k, LIM_FAULT);
    assert_false(lim_alive(w->rt, sup));
    assert_nothing_left(w, 0);
    world_close(w);
}

static void test_a_supervisor_that_is_told_to_end_takes_its_children_along(void **state) /* proves RT7 */
{
    (void)state;
    lim_reason reasons[] = { LIM_SHUTDOWN, LIM_DRAINED, LIM_KILL };
    for (uint32_t i = 0; i < LIM_COUNT(reasons); i++) {
        world *w = world_open(2);
        lim_pid sup = supervisor_new(w, LIM_UNLIMITED, 1);
        kid a = { 0 }, b = { 0 };
        assert_int_equal(kid_add(w, sup, &a, LIM_PERMANENT), LIM_OK);
        assert_int_equal(kid_add(w, sup, &b, LIM_TEMPORARY), LIM_OK);
        settle(w);
        for (int n = 0; n < 50; n++)
            end_kid(w, &a, LIM_FAULT);
        lim_runtime_exit(w->rt, sup, reasons[i]);
        settle(w);
        assert_int_equal(a.ends, 51);
        assert_int_equal(b.ends, 1);
        assert_int_equal(b.end_reason, reasons[i] == LIM_KILL ? LIM_KILLED : LIM_SHUTDOWN);
        assert_nothing_left(w, 0);
        world_close(w);
    }
}

static void test_a_forgotten_option_is_refused(void **state)
{
    (void)state;
    world *w = world_open(1);
    lim_pid pid;
    lim_supervisor_opts o = { .size = sizeof o, .restarts_max = 1000000 };
    assert_int_equal(lim_supervisor_open(w->rt, &o, &pid), LIM_E_INVALID);
    o.size = 1;
    assert_int_equal(lim_supervisor_open(w->rt, &o, &pid), LIM_E_MISUSE);
    lim_pid sup = supervisor_new(w, 1, 1);
    kid k = { 0 };
    assert_int_equal(kid_add(w, sup, &k, (lim_restart)0), LIM_E_MISUSE);
    assert_int_equal(lim_supervisor_add(w->rt, sup, NULL), LIM_E_MISUSE);
    world_close(w);
}

static void test_a_child_that_cannot_be_born_for_want_of_memory_is_tried_again(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 12; n++) {
        world *w = world_open(1);
        lim_pid sup = supervisor_new(w, LIM_UNLIMITED, 1);
        kid k = { 0 };
        assert_int_equal(kid_add(w, sup, &k, LIM_PERMANENT), LIM_OK);
        settle(w);
        assert_int_equal(lim_runtime_send(w->rt, k.pid, LIM_FAULT, lim__bytes(NULL, 0)), LIM_OK);
        lim__alloc_fail_at(n);
        settle(w);
        lim__alloc_fail_at(0);
        advance(w, 200 * MS);
        assert_int_equal(k.starts, 2);
        assert_true(lim_alive(w->rt, k.pid));
        world_close(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_for_one_restarts_who_should_be_restarted),
        cmocka_unit_test(test_a_name_is_free_again_when_its_owner_is_restarted),
        cmocka_unit_test(test_more_restarts_than_the_window_allows_end_the_supervisor),
        cmocka_unit_test(test_the_default_is_one_restart_in_five_seconds),
        cmocka_unit_test(test_a_supervisor_that_is_told_to_end_takes_its_children_along),
        cmocka_unit_test(test_a_forgotten_option_is_refused),
        cmocka_unit_test(test_a_child_that_cannot_be_born_for_want_of_memory_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
