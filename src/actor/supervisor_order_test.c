/* SPDX-License-Identifier: Apache-2.0
 * supervisor_order_test.c - in which order children start and stop, who goes along with whom, and who decides when a
 * supervisor gives up.
 *
 * Every kid writes into one journal: "+a" when it is started, "-a" when it has ended. */
#include "actor/test_world.h"

#define MS 1000000ull
enum { TELL_READY = 0xfe11 };

typedef struct family {
    world *w;
    lim_pid sup;
    char journal[4096];
} family;

typedef struct kid {
    family *f;
    char name;
    lim_pid pid;
    uint32_t starts;
    lim_reason end_reason;
    bool stubborn; /* sees LIM_SHUTDOWN and stays */
    bool polite;   /* sees LIM_SHUTDOWN and goes */
    uint32_t ready_ms, shutdown_ms;
    lim_err ready_err;
} kid;

static void note(family *f, char what, char who)
{
    size_t n = strlen(f->journal);
    assert_true(n + 3 < sizeof f->journal);
    f->journal[n] = what;
    f->journal[n + 1] = who;
}

/* A message's tag is the reason that the kid ends with. */
static void kid_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    kid *k = *(kid **)state;
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->tag == TELL_READY)
        k->ready_err = lim_ready(self);
    else if (signal->kind == LIM_SIGNAL_MESSAGE || (signal->kind == LIM_SIGNAL_EXIT && k->polite))
        lim_exit(self, signal->kind == LIM_SIGNAL_MESSAGE ? (lim_reason)signal->tag : signal->reason);
}

static void kid_on_end(void *state, lim_reason reason)
{
    kid *k = *(kid **)state;
    k->end_reason = reason;
    note(k->f, '-', k->name);
}

static void kid_on_start(void *ctx, lim_pid pid, uint32_t starts)
{
    kid *k = ctx;
    k->pid = pid;
    k->starts = starts;
    note(k->f, '+', k->name);
}

static lim_child_spec kid_spec(kid **k, lim_restart restart)
{
    return (lim_child_spec){ .size = sizeof(lim_child_spec),
                             .spawn = { .size = sizeof(lim_spawn_opts),
                                        .on_signal = kid_on_signal,
                                        .on_end = kid_on_end,
                                        .state_bytes = sizeof *k,
                                        .init = k,
                                        .init_bytes = sizeof *k,
                                        .trap_exit = (*k)->stubborn || (*k)->polite },
                             .restart = restart,
                             .on_start = kid_on_start,
                             .ctx = *k,
                             .ready_ms = (*k)->ready_ms,
                             .shutdown_ms = (*k)->shutdown_ms };
}

static void kid_add(family *f, kid *k, char name, lim_restart restart)
{
    k->f = f;
    k->name = name;
    lim_child_spec spec = kid_spec(&k, restart);
    assert_int_equal(lim_supervisor_add(f->w->rt, f->sup, &spec), LIM_OK);
    settle(f->w);
}

static family *family_new(lim_strategy strategy, uint32_t restarts_max)
{
    family *f = calloc(1, sizeof *f);
    f->w = world_open(2);
    lim_supervisor_opts o = { .size = sizeof o, .restarts_max = restarts_max, .strategy = strategy };
    assert_int_equal(lim_supervisor_open(f->w->rt, &o, &f->sup), LIM_OK);
    return f;
}

static void family_free(family *f)
{
    world_close(f->w);
    free(f);
}

static void tell(family *f, const kid *k, uint32_t tag)
{
    assert_int_equal(lim_runtime_send(f->w->rt, k->pid, tag, lim__bytes(NULL, 0)), LIM_OK);
    settle(f->w);
}

static void assert_journal(family *f, const char *expected)
{
    assert_string_equal(f->journal, expected);
    memset(f->journal, 0, sizeof f->journal);
}

static void end_sup(family *f)
{
    assert_int_equal(lim_runtime_exit(f->w->rt, f->sup, LIM_SHUTDOWN), LIM_OK);
    settle(f->w);
}

/* ---- strategies ---- */
static void test_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order(void **state) /* R14, proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_ONE_FOR_ALL, 100);
    kid a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
    kid_add(f, &a, 'a', LIM_PERMANENT);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    kid_add(f, &c, 'c', LIM_TRANSIENT);
    kid_add(f, &d, 'd', LIM_TEMPORARY);
    assert_journal(f, "+a+b+c+d");
    tell(f, &b, LIM_FAULT);
    assert_journal(f, "-b-d-c-a+a+b+c"); /* who is temporary does not come again */
    assert_int_equal(c.end_reason, LIM_SHUTDOWN);
    tell(f, &c, LIM_NORMAL); /* had finished: nobody minds */
    assert_journal(f, "-c");
    tell(f, &a, LIM_NORMAL);
    assert_journal(f, "-a-b+a+b");
    end_sup(f);
    assert_journal(f, "-b-a");
    assert_nothing_left(f->w, 0);
    family_free(f);
}

static void test_rest_for_one_takes_along_only_who_came_later(void **state) /* R14, proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_REST_FOR_ONE, 100);
    kid a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
    kid_add(f, &a, 'a', LIM_PERMANENT);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    kid_add(f, &c, 'c', LIM_PERMANENT);
    kid_add(f, &d, 'd', LIM_PERMANENT);
    assert_journal(f, "+a+b+c+d");
    tell(f, &b, LIM_FAULT);
    assert_journal(f, "-b-d-c+b+c+d");
    tell(f, &d, LIM_FAULT);
    assert_journal(f, "-d+d");
    tell(f, &a, LIM_FAULT);
    assert_journal(f, "-a-d-c-b+a+b+c+d");
    end_sup(f);
    assert_journal(f, "-d-c-b-a");
    assert_nothing_left(f->w, 0);
    family_free(f);
}

static void test_an_elder_that_ends_while_the_younger_stop_takes_more_along(void **state) /* proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_REST_FOR_ONE, 100);
    kid a = { 0 }, b = { 0 }, c = { 0 }, d = { .stubborn = true, .shutdown_ms = 100 };
    kid_add(f, &a, 'a', LIM_PERMANENT);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    kid_add(f, &c, 'c', LIM_PERMANENT);
    kid_add(f, &d, 'd', LIM_PERMANENT);
    tell(f, &c, LIM_FAULT);
    assert_journal(f, "+a+b+c+d-c"); /* d takes its time */
    tell(f, &a, LIM_FAULT);
    assert_journal(f, "-a");
    advance(f->w, 100 * MS);
    assert_journal(f, "-d-b+a+b+c+d");
    assert_int_equal(d.end_reason, LIM_KILLED);
    family_free(f);
}

static void test_dynamic_children_do_not_wait_for_each_other(void **state) /* R14, proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_DYNAMIC, LIM_UNLIMITED);
    kid a = { .ready_ms = LIM_UNLIMITED }, b = { .stubborn = true, .shutdown_ms = 100 };
    kid c = { .stubborn = true, .shutdown_ms = 100 };
    kid_add(f, &a, 'a', LIM_PERMANENT);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    kid_add(f, &c, 'c', LIM_TEMPORARY);
    assert_journal(f, "+a+b+c");
    tell(f, &a, LIM_FAULT);
    assert_journal(f, "-a+a");
    end_sup(f);
    assert_journal(f, "-a");
    advance(f->w, 100 * MS); /* both at once */
    assert_int_equal(strlen(f->journal), 4);
    assert_nothing_left(f->w, 0);
    family_free(f);
}

/* ---- starting and stopping ---- */
static void test_the_next_child_starts_when_the_one_before_is_ready(void **state) /* proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_ONE_FOR_ALL, 100);
    kid a = { .ready_ms = LIM_UNLIMITED }, b = { .ready_ms = 50 }, c = { 0 };
    kid_add(f, &a, 'a', LIM_PERMANENT);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    kid_add(f, &c, 'c', LIM_PERMANENT);
    assert_journal(f, "+a");
    advance(f->w, 3600000 * MS);
    assert_journal(f, "");
    tell(f, &a, TELL_READY);
    assert_journal(f, "+b");
    tell(f, &b, TELL_READY);
    assert_journal(f, "+c");
    tell(f, &c, LIM_FAULT);
    assert_journal(f, "-c-b-a+a");
    tell(f, &a, TELL_READY);
    advance(f->w, 49 * MS);
    assert_journal(f, "+b");
    advance(f->w, MS); /* not ready in time: an end like any other */
    assert_journal(f, "-b-a+a");
    assert_int_equal(b.end_reason, LIM_KILLED);
    tell(f, &a, TELL_READY);
    tell(f, &b, TELL_READY);
    tell(f, &b, TELL_READY); /* twice is once */
    assert_journal(f, "+b+c");
    end_sup(f);
    assert_nothing_left(f->w, 0);
    family_free(f);
}

static void test_a_child_on_another_scheduler_is_waited_for_too(void **state) /* proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_ONE_FOR_ONE, 100);
    kid a = { .f = f, .name = 'a', .ready_ms = 100 }, b = { 0 };
    kid *ka = &a;
    lim_child_spec spec = kid_spec(&ka, LIM_PERMANENT);
    spec.spawn.place = true;
    spec.spawn.scheduler = 1 - lim__pid_scheduler(f->sup);
    assert_int_equal(lim_supervisor_add(f->w->rt, f->sup, &spec), LIM_OK);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    assert_journal(f, "+a");
    assert_int_not_equal(lim__pid_scheduler(a.pid), lim__pid_scheduler(f->sup));
    tell(f, &a, TELL_READY);
    assert_journal(f, "+b");
    assert_int_equal(lim__pid_scheduler(b.pid), lim__pid_scheduler(f->sup));
    tell(f, &a, LIM_FAULT);
    assert_journal(f, "-a+a");
    end_sup(f);
    assert_journal(f, "-b-a");
    assert_nothing_left(f->w, 0);
    spec.spawn.scheduler = 7;
    assert_int_equal(lim_supervisor_add(f->w->rt, f->sup, &spec), LIM_E_INVALID);
    family_free(f);
}

static void test_children_stop_in_reverse_and_a_stuck_one_is_killed_after_its_time(void **state) /* R16, proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_ONE_FOR_ONE, 1);
    kid a = { .polite = true }, b = { .stubborn = true, .shutdown_ms = 200 }, c = { .stubborn = true }, d = { 0 };
    kid_add(f, &a, 'a', LIM_PERMANENT);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    kid_add(f, &c, 'c', LIM_PERMANENT);
    kid_add(f, &d, 'd', LIM_PERMANENT);
    end_sup(f);
    assert_journal(f, "+a+b+c+d-d");
    advance(f->w, 4999 * MS);
    assert_journal(f, "");
    assert_true(lim_alive(f->w->rt, f->sup));
    advance(f->w, MS);
    assert_journal(f, "-c");
    advance(f->w, 199 * MS);
    assert_journal(f, "");
    advance(f->w, MS);
    assert_journal(f, "-b-a");
    assert_int_equal(a.end_reason, LIM_SHUTDOWN);
    assert_int_equal(b.end_reason, LIM_KILLED);
    assert_false(lim_alive(f->w->rt, f->sup));
    assert_nothing_left(f->w, 0);
    family_free(f);
}

static void test_one_child_can_be_stopped_and_is_forgotten(void **state) /* proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_ONE_FOR_ONE, 1);
    kid a = { 0 }, b = { .stubborn = true, .shutdown_ms = 100 };
    kid_add(f, &a, 'a', LIM_PERMANENT);
    kid_add(f, &b, 'b', LIM_PERMANENT);
    assert_int_equal(lim_supervisor_stop(f->w->rt, f->sup, b.pid), LIM_OK);
    settle(f->w);
    tell(f, &a, LIM_FAULT); /* started again while the other takes its time */
    assert_journal(f, "+a+b-a+a");
    advance(f->w, 100 * MS);
    assert_journal(f, "-b");
    assert_int_equal(lim_supervisor_stop(f->w->rt, f->sup, b.pid), LIM_OK); /* nobody's: ignored */
    settle(f->w);
    end_sup(f);
    assert_journal(f, "-a");
    assert_int_equal(lim_supervisor_stop(f->w->rt, f->sup, a.pid), LIM_E_GONE);
    assert_nothing_left(f->w, 0);
    family_free(f);
}

/* ---- supervisors of supervisors ---- */
typedef struct branch {
    family *f;
    lim_pid pid;
    uint32_t starts;
    kid kids[2];
} branch;

static void branch_on_start(void *ctx, lim_pid pid, uint32_t starts)
{
    branch *b = ctx;
    b->pid = pid;
    b->starts = starts;
    for (uint32_t i = 0; i < 2; i++) {
        kid *k = &b->kids[i];
        k->f = b->f;
        k->name = (char)('x' + i);
        lim_child_spec spec = kid_spec(&k, LIM_PERMANENT);
        assert_int_equal(lim_supervisor_add(b->f->w->rt, pid, &spec), LIM_OK);
    }
}

static void test_a_supervisor_that_gives_up_is_its_supervisors_business(void **state) /* proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_REST_FOR_ONE, 1);
    family other = { 0 }; /* keeps the journal of who comes after the branch: its order with the leaves is nobody's */
    branch b = { .f = f };
    kid after = { .f = &other, .name = 'z' }, *z = &after;
    lim_supervisor_opts sub = {
        .size = sizeof sub, .name = "branch", .restarts_max = 2, .period_ms = LIM_UNLIMITED, .strategy = LIM_ONE_FOR_ALL
    };
    lim_child_spec spec = { .size = sizeof spec,
                            .spawn = { .size = sizeof spec.spawn },
                            .restart = LIM_PERMANENT,
                            .on_start = branch_on_start,
                            .ctx = &b,
                            .supervisor = &sub };
    assert_int_equal(lim_supervisor_add(f->w->rt, f->sup, &spec), LIM_OK);
    sub = (lim_supervisor_opts){ 0 }; /* it was copied */
    spec = kid_spec(&z, LIM_PERMANENT);
    assert_int_equal(lim_supervisor_add(f->w->rt, f->sup, &spec), LIM_OK);
    settle(f->w);
    assert_journal(f, "+x+y");
    assert_journal(&other, "+z");
    tell(f, &b.kids[0], LIM_FAULT);
    assert_journal(f, "-x-y+x+y");
    advance(f->w, 3600000 * MS); /* its window never slides: two in its life */
    tell(f, &b.kids[1], LIM_FAULT);
    assert_journal(f, "-y-x+x+y");
    assert_int_equal(b.starts, 1);
    tell(f, &b.kids[0], LIM_FAULT); /* one too many: the branch is grown anew, and what came after it */
    assert_journal(f, "-x-y+x+y");
    assert_journal(&other, "-z+z");
    assert_int_equal(b.starts, 2);
    for (int i = 0; i < 3; i++)
        tell(f, &b.kids[0], LIM_FAULT);
    assert_int_equal(b.starts, 2); /* twice in five seconds is too much for the root */
    assert_false(lim_alive(f->w->rt, f->sup));
    assert_nothing_left(f->w, 0);
    family_free(f);
}

static void test_a_tree_stops_from_its_leaves(void **state) /* R16, proves RT7 */
{
    (void)state;
    family *f = family_new(LIM_ONE_FOR_ONE, 1);
    branch b = { .f = f, .kids = { [1] = { .stubborn = true, .shutdown_ms = 60000 } } };
    kid first = { 0 };
    kid_add(f, &first, 'a', LIM_PERMANENT);
    lim_supervisor_opts sub = { .size = sizeof sub };
    lim_child_spec spec = { .size = sizeof spec,
                            .spawn = { .size = sizeof spec.spawn },
                            .restart = LIM_PERMANENT,
                            .on_start = branch_on_start,
                            .ctx = &b,
                            .supervisor = &sub };
    assert_int_equal(lim_supervisor_add(f->w->rt, f->sup, &spec), LIM_OK);
    settle(f->w);
    end_sup(f);
    advance(f->w, 59999 * MS); /* a supervisor is not hurried */
    assert_journal(f, "+a+x+y");
    advance(f->w, MS);
    assert_journal(f, "-y-x-a");
    assert_nothing_left(f->w, 0);
    family_free(f);
}

/* ---- memory ---- */
/* The n-th allocation fails while a whole group is stopped and started again: it still comes to the same end. */
static void test_a_group_restart_survives_any_failing_allocation(void **state) /* proves RT7 RT12 */
{
    (void)state;
    bool reached = true;
    uint64_t n = 1;
    for (; reached; n++) {
        family *f = family_new(n % 2 ? LIM_ONE_FOR_ALL : LIM_REST_FOR_ONE, LIM_UNLIMITED);
        kid a = { .ready_ms = 60000 }, b = { .stubborn = true, .shutdown_ms = 100 }, c = { .polite = true };
        kid_add(f, &a, 'a', LIM_PERMANENT);
        kid_add(f, &b, 'b', LIM_PERMANENT);
        kid_add(f, &c, 'c', LIM_PERMANENT);
        tell(f, &a, TELL_READY);
        assert_int_equal(lim_runtime_send(f->w->rt, a.pid, LIM_FAULT, lim__bytes(NULL, 0)), LIM_OK);
        uint32_t before = a.starts;
        lim__alloc_fail_at(n);
        settle(f->w);
        advance(f->w, 300 * MS);
        for (int i = 0; i < 4 && c.starts < 2; i++) { /* a may have been killed again for want of a timer */
            (void)!lim_runtime_send(f->w->rt, a.pid, TELL_READY, lim__bytes(NULL, 0));
            advance(f->w, 300 * MS);
        }
        reached = atomic_load(&lim__alloc_countdown) == 0;
        lim__alloc_fail_at(0);
        assert_true(a.starts > before);
        assert_true(lim_alive(f->w->rt, a.pid) && lim_alive(f->w->rt, b.pid) && lim_alive(f->w->rt, c.pid));
        end_sup(f);
        advance(f->w, 100 * MS);
        assert_nothing_left(f->w, 0);
        family_free(f);
    }
    assert_in_range(n, 8, 200);
}

static void test_ready_is_for_children(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *p = puppet_new(w, 0, false), *q = puppet_new(w, 0, false);
    act(w, p, do_link, q);
    act(w, p, do_ready, NULL);
    settle(w);
    assert_int_equal(p->err, LIM_E_INVALID);
    world_close(w);
    free(p), free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order),
        cmocka_unit_test(test_rest_for_one_takes_along_only_who_came_later),
        cmocka_unit_test(test_an_elder_that_ends_while_the_younger_stop_takes_more_along),
        cmocka_unit_test(test_dynamic_children_do_not_wait_for_each_other),
        cmocka_unit_test(test_the_next_child_starts_when_the_one_before_is_ready),
        cmocka_unit_test(test_a_child_on_another_scheduler_is_waited_for_too),
        cmocka_unit_test(test_children_stop_in_reverse_and_a_stuck_one_is_killed_after_its_time),
        cmocka_unit_test(test_one_child_can_be_stopped_and_is_forgotten),
        cmocka_unit_test(test_a_supervisor_that_gives_up_is_its_supervisors_business),
        cmocka_unit_test(test_a_tree_stops_from_its_leaves),
        cmocka_unit_test(test_a_group_restart_survives_any_failing_allocation),
        cmocka_unit_test(test_ready_is_for_children),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
