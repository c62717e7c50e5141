/* SPDX-License-Identifier: Apache-2.0
 * blocking_test.c - handlers that may block delay nobody; handlers that may not and do are found out.
 *
 * With real threads: handlers wait for each other, so a scheduler that was delayed would never get on. What runs on
 * other threads uses LIM_ASSERT: cmocka's assertions belong to the thread of the test. */
#include "actor/test_world.h"

#define MS 1000000ull

static lim_runtime *open_runtime(uint32_t schedulers, bool own_loop, uint32_t blocking_max)
{
    lim_runtime *rt;
    lim_runtime_opts o = {
        .size = sizeof o, .scheduler_count = schedulers, .own_loop = own_loop, .blocking_max = blocking_max
    };
    assert_int_equal(lim_runtime_open(&o, &rt), LIM_OK);
    return rt;
}

typedef struct shared {
    _Atomic uint32_t inside, seen, done, ends, on_scheduler;
    _Atomic bool open;
    lim_pid other;
    uint64_t refs[4];
    uint32_t kinds[8];
} shared;

static void on_end(void *state, lim_reason reason)
{
    shared *sh = *(shared **)state;
    (void)reason;
    LIM_ASSERT(lim__sched_current());
    atomic_fetch_add(&sh->ends, 1);
}

static lim_pid spawn(lim_runtime *rt, lim_on_signal *on_signal, shared **sh, bool blocking, uint32_t scheduler)
{
    lim_spawn_opts o = { .size = sizeof o,
                         .name = "blocker",
                         .on_signal = on_signal,
                         .on_end = on_end,
                         .state_bytes = sizeof sh,
                         .init = sh,
                         .init_bytes = sizeof sh,
                         .blocking = blocking,
                         .trap_exit = true,
                         .place = true,
                         .scheduler = scheduler,
                         .mailbox_max = 1 << 20 };
    lim_pid pid;
    assert_int_equal(lim_runtime_spawn(rt, &o, &pid), LIM_OK);
    return pid;
}

static void tell(lim_runtime *rt, lim_pid to, uint32_t tag)
{
    assert_int_equal(lim_runtime_send(rt, to, tag, lim__bytes(&tag, sizeof tag)), LIM_OK);
}

static void wait_for(_Atomic uint32_t *n, uint32_t value)
{
    while (atomic_load(n) < value)
        lim__thread_yield();
}

static uint64_t blocked(lim_runtime *rt)
{
    lim_census c;
    lim_runtime_census(rt, &c);
    return c.blocked;
}

/* ---- nobody is delayed ---- */
static void wait_until_open(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    (void)self, (void)signal;
    LIM_ASSERT(!lim__sched_current());
    atomic_fetch_add(&sh->inside, 1);
    while (!atomic_load(&sh->open))
        lim__thread_yield();
    atomic_fetch_add(&sh->done, 1);
}

static void open_at_the_end(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    if (signal->tag > 0)
        LIM_ASSERT(lim_send(self, lim_self(self), signal->tag - 1, lim__bytes(NULL, 0)) == LIM_OK);
    else
        atomic_store(&sh->open, true);
}

static void test_a_blocking_handler_does_not_delay_its_scheduler(void **state) /* proves RT11 */
{
    (void)state;
    lim_runtime *rt = open_runtime(1, false, 2);
    shared sh = { 0 }, *init = &sh;
    lim_pid a = spawn(rt, wait_until_open, &init, true, 0), b = spawn(rt, wait_until_open, &init, true, 0);
    lim_pid c = spawn(rt, wait_until_open, &init, true, 0), runner = spawn(rt, open_at_the_end, &init, false, 0);
    tell(rt, a, 1), tell(rt, b, 1), tell(rt, c, 1);
    wait_for(&sh.inside, 2); /* the third waits for a thread */
    assert_int_equal(blocked(rt), 3);
    tell(rt, runner, 100000); /* all on the one scheduler, while the two block */
    wait_for(&sh.done, 3);
    lim_runtime_close(rt);
    assert_int_equal(atomic_load(&sh.ends), 4);
}

/* ---- order ---- */
enum { SENDERS = 3, NUMBERS = 2000 };

static void take_in_order(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    (void)self;
    LIM_ASSERT(atomic_fetch_add(&sh->inside, 1) == 0); /* one signal at a time */
    uint32_t sender = signal->tag >> 24, number = signal->tag & 0xffffff;
    LIM_ASSERT(sh->kinds[sender] == number);
    sh->kinds[sender]++;
    atomic_fetch_add(&sh->seen, 1);
    atomic_fetch_sub(&sh->inside, 1);
}

static void send_numbers(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    uint32_t sender = signal->tag;
    for (uint32_t i = 0; i < NUMBERS; i++)
        LIM_ASSERT(lim_send(self, sh->other, sender << 24 | i, lim__str("body")) == LIM_OK);
    LIM_ASSERT(lim_exit_process(self, sh->other, LIM_KILL) == LIM_OK || sender != 0);
}

static void test_a_blocking_process_sees_one_signal_at_a_time_in_order(void **state) /* proves RT11 RT2 */
{
    (void)state;
    lim_runtime *rt = open_runtime(2, false, 4);
    shared sh = { 0 }, *init = &sh;
    sh.other = spawn(rt, take_in_order, &init, true, 0);
    lim_pid others[4];
    for (uint32_t i = 0; i < 4; i++)
        others[i] = spawn(rt, wait_until_open, &init, true, i % 2); /* more threads than it can use */
    atomic_store(&sh.open, true);
    for (uint32_t i = 0; i < NUMBERS; i++)
        tell(rt, sh.other, 2u << 24 | i);
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t n = 0; n < NUMBERS; n++)
            tell(rt, sh.other, i << 24 | n);
    wait_for(&sh.seen, SENDERS * NUMBERS);
    tell(rt, others[0], 1);
    lim_runtime_close(rt);
    assert_int_equal(atomic_load(&sh.ends), 5);
}

static void test_a_kill_waits_for_the_handler_and_for_its_place_in_the_order(void **state) /* proves RT3 RT11 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        lim_runtime *rt = open_runtime(2, false, 2);
        shared sh = { 0 }, *init = &sh;
        sh.other = spawn(rt, take_in_order, &init, true, 0);
        tell(rt, spawn(rt, send_numbers, &init, far != 0, far), 0);
        wait_for(&sh.ends, 1);
        assert_int_equal(atomic_load(&sh.seen), NUMBERS); /* a stream, then the kill */
        lim_runtime_close(rt);
    }
}

/* ---- all that a handler may do ---- */
static void on_helper(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->ref)
        LIM_ASSERT(lim_respond(self, signal, signal->body) == LIM_OK);
    else if (signal->kind == LIM_SIGNAL_MESSAGE)
        lim_exit(self, LIM_FAULT);
}

static void do_everything(lim_process *self, shared *sh)
{
    lim_spawn_opts o = {
        .size = sizeof o, .on_signal = on_helper, .link = true, .monitor = true, .monitor_out = &sh->refs[0]
    };
    uint64_t timer;
    LIM_ASSERT(lim_spawn(self, &o, &sh->other) == LIM_OK);
    LIM_ASSERT(lim_monitor(self, sh->other, &timer) == LIM_OK);
    lim_demonitor(self, timer);
    lim_unlink(self, sh->other);
    LIM_ASSERT(lim_link(self, sh->other) == LIM_OK);
    LIM_ASSERT(lim_timer_start(self, 3600000 * MS, 0, &timer) == LIM_OK && lim_timer_cancel(self, timer));
    LIM_ASSERT(!lim_timer_cancel(self, timer));
    LIM_ASSERT(lim_timer_start(self, 1, 7, &sh->refs[1]) == LIM_OK);
    LIM_ASSERT(lim_request(self, sh->other, 1, lim__str("?"), LIM_FOREVER, &sh->refs[2]) == LIM_OK);
    LIM_ASSERT(lim_request(self, lim_self(self), 1, lim__str("?"), 1, &timer) == LIM_E_MISUSE);
    LIM_ASSERT(lim_ready(self) == LIM_E_INVALID);
    LIM_ASSERT(lim_register(lim_process_runtime(self), "blocker", lim_self(self)) == LIM_OK);
    LIM_ASSERT(lim_now_ns(self) > 0);
    LIM_ASSERT(lim_send(self, lim_self(self), 2, lim__str("mine")) == LIM_OK);
    LIM_ASSERT(lim_send(self, sh->other, 3, lim__bytes(NULL, 0)) == LIM_OK);
}

static void blocks_and_acts(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    LIM_ASSERT(!lim__sched_current());
    atomic_fetch_add(&sh->seen, 1);
    sh->kinds[signal->kind]++;
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->tag == 1)
        do_everything(self, sh);
    else if (signal->kind == LIM_SIGNAL_MESSAGE)
        LIM_ASSERT(signal->body.len == 4 && memcmp(signal->body.ptr, "mine", 4) == 0);
    else if (signal->kind == LIM_SIGNAL_RESPONSE)
        LIM_ASSERT(signal->reason == LIM_NORMAL && signal->body.len == 1);
    if (atomic_load(&sh->seen) == 6) {
        LIM_ASSERT(lim_exit_process(self, lim_self(self), LIM_KILL) == LIM_OK); /* too late */
        lim_exit(self, LIM_SHUTDOWN);
        LIM_ASSERT(lim_send(self, lim_self(self), 9, lim__str("late")) != LIM_E_FULL);
    }
}

static void test_a_blocking_handler_may_do_all_that_a_handler_may(void **state) /* proves RT11 RT12 */
{
    (void)state;
    for (uint32_t schedulers = 1; schedulers < 3; schedulers++) {
        lim_runtime *rt = open_runtime(schedulers, false, 1);
        shared sh = { 0 }, *init = &sh;
        lim_pid pid = spawn(rt, blocks_and_acts, &init, true, schedulers - 1);
        tell(rt, pid, 1);
        wait_for(&sh.ends, 1);
        assert_int_equal(atomic_load(&sh.seen), 6);
        for (lim_signal_kind k = LIM_SIGNAL_EXIT; k <= LIM_SIGNAL_RESPONSE; k++)
            assert_int_equal(sh.kinds[k], 1);
        lim_census c;
        do /* the helper's letters may still be under way */
            lim_runtime_census(rt, &c);
        while (c.processes + c.links + c.monitors + c.timers + c.messages + c.letter_bytes > 0);
        assert_int_equal(c.blocked, 0);
        lim_runtime_close(rt);
    }
}

/* ---- closing ---- */
static void calls_home_for_ever(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    (void)signal;
    atomic_fetch_add(&sh->inside, 1);
    for (int i = 0; i < 200; i++) {
        uint64_t timer;
        LIM_ASSERT(lim_timer_start(self, 1, 0, &timer) == LIM_OK);
    }
    atomic_fetch_add(&sh->done, 1);
}

static void test_closing_waits_for_handlers_that_run_and_begins_no_other(void **state) /* proves RT11 */
{
    (void)state;
    for (uint32_t round = 0; round < 20; round++) {
        lim_runtime *rt = open_runtime(1 + round % 2, round % 4 == 0, 2);
        shared sh = { 0 }, *init = &sh;
        lim_pid pids[4];
        for (uint32_t i = 0; i < 4; i++) {
            pids[i] = spawn(rt, calls_home_for_ever, &init, true, 0);
            for (uint32_t n = 0; n < 5; n++)
                tell(rt, pids[i], n);
        }
        while (atomic_load(&sh.inside) < round % 3)
            if (round % 4 == 0)
                assert_int_equal(lim_runtime_turn(rt, 1), LIM_OK);
        lim_runtime_close(rt);
        assert_int_equal(atomic_load(&sh.inside), atomic_load(&sh.done));
        assert_int_equal(atomic_load(&sh.ends), 4);
    }
}

/* ---- without threads ---- */
static void notes_thread(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    (void)self, (void)signal;
    atomic_fetch_add(&sh->on_scheduler, lim__sched_current() != NULL);
}

static void test_under_the_simulator_a_blocking_handler_runs_in_the_turn(void **state) /* proves RT13 */
{
    (void)state;
    world *w = world_open(1);
    shared sh = { 0 }, *init = &sh;
    tell(w->rt, spawn(w->rt, notes_thread, &init, true, 0), 1);
    settle(w);
    assert_int_equal(atomic_load(&sh.on_scheduler), 1);
    world_close(w);
}

/* ---- overruns ---- */
typedef struct clerk {
    uint32_t count;
    lim_overrun last;
    char names[256];
} clerk;

static void on_overrun(void *ctx, const lim_overrun *o)
{
    clerk *c = ctx;
    c->count++;
    c->last = *o;
    strcat(strcat(c->names, o->name), " ");
}

static void takes_time(lim_process *self, const lim_signal *signal, void *state)
{
    world *w = *(world **)state;
    (void)self;
    w->now_ns += signal->tag * MS;
}

static lim_pid spawn_slow(world *w, const char *name)
{
    lim_spawn_opts o = { .size = sizeof o,
                         .name = name,
                         .on_signal = takes_time,
                         .state_bytes = sizeof w,
                         .init = &w,
                         .init_bytes = sizeof w };
    lim_pid pid;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_OK);
    return pid;
}

static world *world_with_clerk(clerk *c, uint32_t overrun_ms)
{
    world *w = world_open(1);
    lim_runtime_close(w->rt);
    lim__runtime_opts o = {
        .os = &w->os, .scheduler_count = 1, .overrun_ms = overrun_ms, .on_overrun = on_overrun, .ctx = c
    };
    assert_int_equal(lim__runtime_open(&o, &w->rt), LIM_OK);
    return w;
}

static uint64_t overruns(world *w)
{
    lim_census c;
    lim_runtime_census(w->rt, &c);
    return c.overruns;
}

static void test_a_handler_that_overruns_is_counted_and_named(void **state) /* proves RT11 */
{
    (void)state;
    clerk c = { 0 };
    world *w = world_with_clerk(&c, 0);
    lim_pid slow = spawn_slow(w, "slow");
    tell(w->rt, slow, 10); /* may take 10 ms */
    settle(w);
    assert_int_equal(overruns(w), 0);
    tell(w->rt, slow, 11);
    settle(w);
    assert_int_equal(overruns(w), 1);
    assert_int_equal(c.count, 1);
    assert_string_equal(c.last.name, "slow");
    assert_int_equal(c.last.pid.id, slow.id);
    assert_int_equal(c.last.suspects, 1);
    assert_in_range(c.last.took_ns, 11 * MS, 12 * MS);
    w->now_ns += 60000 * MS; /* time that passes between turns is nobody's */
    tell(w->rt, slow, 1);
    settle(w);
    assert_int_equal(overruns(w), 1);
    world_close(w);
}

static void test_among_many_the_culprit_is_among_the_suspects_and_soon_alone(void **state) /* proves RT11 */
{
    (void)state;
    clerk c = { 0 };
    world *w = world_with_clerk(&c, 5);
    lim_pid quick = spawn_slow(w, "quick"), slow = spawn_slow(w, "slow");
    for (int i = 0; i < 3; i++)
        tell(w->rt, quick, 0);
    tell(w->rt, slow, 6);
    settle(w);
    assert_int_equal(overruns(w), 1);
    assert_non_null(strstr(c.names, "slow ")); /* between two looks both ran */
    assert_non_null(strstr(c.names, "quick "));
    assert_in_range(c.last.suspects, 2, 4);
    memset(c.names, 0, sizeof c.names);
    for (int i = 0; i < 3; i++)
        tell(w->rt, slow, 6);
    settle(w);
    assert_string_equal(c.names, "slow slow slow "); /* from then on the clock is read after each */
    assert_int_equal(c.last.suspects, 1);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_blocking_handler_does_not_delay_its_scheduler),
        cmocka_unit_test(test_a_blocking_process_sees_one_signal_at_a_time_in_order),
        cmocka_unit_test(test_a_kill_waits_for_the_handler_and_for_its_place_in_the_order),
        cmocka_unit_test(test_a_blocking_handler_may_do_all_that_a_handler_may),
        cmocka_unit_test(test_closing_waits_for_handlers_that_run_and_begins_no_other),
        cmocka_unit_test(test_under_the_simulator_a_blocking_handler_runs_in_the_turn),
        cmocka_unit_test(test_a_handler_that_overruns_is_counted_and_named),
        cmocka_unit_test(test_among_many_the_culprit_is_among_the_suspects_and_soon_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
