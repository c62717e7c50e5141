/* SPDX-License-Identifier: Apache-2.0
 * threads_test.c - the same rules with real threads: nothing lost, nothing left, no data race (run under tsan).
 *
 * Tests wait by yielding until a condition holds; a lost wake-up shows as the test's timeout. What runs on other
 * threads uses LIM_ASSERT: cmocka's assertions belong to the thread of the test. */
#include "actor/test_world.h"

#ifdef __SANITIZE_THREAD__
enum { SCALE = 1 };
#else
enum { SCALE = 10 };
#endif

static lim_runtime *open_threads(uint32_t schedulers, uint32_t spin_us)
{
    lim_runtime *rt;
    lim__runtime_opts o = { .scheduler_count = schedulers, .threads = true, .spin_us = spin_us };
    assert_int_equal(lim__runtime_open(&o, &rt), LIM_OK);
    return rt;
}

static void wait_until_empty(lim_runtime *rt)
{
    lim_census c;
    do {
        lim__thread_yield();
        lim_runtime_census(rt, &c);
    } while (c.processes + c.links + c.monitors + c.timers + c.messages + c.letter_bytes != 0);
}

/* ---- ping-pong: every hop wakes a sleeper ---- */
typedef struct hopper {
    _Atomic uint64_t *hops;
} hopper;

static void hopper_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    _Atomic uint64_t *hops = ((hopper *)state)->hops;
    lim_pid to = signal->from.id ? signal->from : *(const lim_pid *)signal->body.ptr;
    if (signal->tag == 0) {
        lim_exit(self, LIM_NORMAL);
        if (signal->from.id)
            return;
    }
    atomic_fetch_add(hops, 1);
    lim_err err = lim_send(self, to, signal->tag ? signal->tag - 1 : 0, lim__bytes(NULL, 0));
    LIM_ASSERT(err == LIM_OK || err == LIM_E_GONE); /* of several balls the first to land ends the game */
}

static void ping_pong(uint32_t spin_us, uint32_t count)
{
    lim_runtime *rt = open_threads(2, spin_us);
    _Atomic uint64_t hops = 0;
    hopper h = { &hops };
    lim_pid pids[2];
    for (uint32_t i = 0; i < 2; i++) {
        lim_spawn_opts o = { .size = sizeof o,
                             .on_signal = hopper_on_signal,
                             .state_bytes = sizeof h,
                             .init = &h,
                             .init_bytes = sizeof h,
                             .place = true,
                             .scheduler = i };
        assert_int_equal(lim_runtime_spawn(rt, &o, &pids[i]), LIM_OK);
    }
    assert_int_equal(lim_runtime_send(rt, pids[0], count, lim__bytes(&pids[1], sizeof pids[1])), LIM_OK);
    while (atomic_load(&hops) < count)
        lim__thread_yield();
    lim_runtime_close(rt);
}

static void test_no_wake_is_lost_in_a_ping_pong_across_schedulers(void **state) /* R11 */
{
    (void)state;
    ping_pong(0, 20000 * SCALE);
    ping_pong(50, 20000 * SCALE);
}

static void test_a_runtime_can_be_closed_at_any_moment(void **state)
{
    (void)state;
    for (int i = 0; i < 30 * SCALE; i++) {
        lim_runtime *rt = open_threads(2, i % 2 ? 50 : 0);
        _Atomic uint64_t hops = 0;
        hopper h = { &hops };
        lim_spawn_opts o = { .size = sizeof o,
                             .on_signal = hopper_on_signal,
                             .state_bytes = sizeof h,
                             .init = &h,
                             .init_bytes = sizeof h,
                             .place = true };
        lim_pid a, b;
        assert_int_equal(lim_runtime_spawn(rt, &o, &a), LIM_OK);
        o.scheduler = 1;
        assert_int_equal(lim_runtime_spawn(rt, &o, &b), LIM_OK);
        for (int n = 0; n < i % 5; n++)
            assert_int_equal(lim_runtime_send(rt, a, 1000, lim__bytes(&b, sizeof b)), LIM_OK);
        lim_runtime_close(rt);
    }
}

/* ---- storm: host threads and processes do everything to each other ---- */
enum { ACTORS = 32, HOSTS = 8 };

typedef struct storm {
    lim_runtime *rt;
    _Atomic uint64_t pids[ACTORS];
    _Atomic uint64_t ends, births, signals;
    _Atomic bool over;
} storm;

typedef struct actor {
    storm *st;
    uint64_t seed;
    uint32_t index;
} actor;

static uint64_t roll(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void actor_on_end(void *state, lim_reason reason)
{
    (void)reason;
    atomic_fetch_add(&((actor *)state)->st->ends, 1);
}

static void actor_on_signal(lim_process *self, const lim_signal *signal, void *state);

static lim_spawn_opts actor_opts(const actor *init)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .on_signal = actor_on_signal,
                             .on_end = actor_on_end,
                             .state_bytes = sizeof *init,
                             .init = init,
                             .init_bytes = sizeof *init,
                             .mailbox_max = 64,
                             .trap_exit = init->seed % 2,
                             .blocking = init->seed % 7 == 0,
                             .place = true,
                             .scheduler = init->index % lim__sched_count(init->st->rt) };
}

static void respawn(lim_process *self, actor *a, uint64_t dice)
{
    actor init = { a->st, dice, (uint32_t)(dice % ACTORS) };
    lim_spawn_opts o = actor_opts(&init);
    uint64_t monitor;
    lim_pid pid;
    o.link = dice % 3 == 0;
    o.monitor = dice % 5 < 2;
    o.monitor_out = &monitor;
    if (lim_spawn(self, &o, &pid) != LIM_OK)
        return;
    atomic_fetch_add(&a->st->births, 1);
    lim_exit_process(self, (lim_pid){ atomic_exchange(&a->st->pids[init.index], pid.id) }, LIM_KILL);
}

static void actor_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    actor *a = state;
    atomic_fetch_add_explicit(&a->st->signals, 1, memory_order_relaxed);
    if (signal->kind != LIM_SIGNAL_MESSAGE || atomic_load(&a->st->over))
        return;
    uint64_t ref, dice = roll(&a->seed);
    lim_pid to = { atomic_load(&a->st->pids[roll(&a->seed) % ACTORS]) };
    lim_err err = LIM_OK;
    switch (dice % 12) {
    case 0:
    case 1:
        err = lim_link(self, to);
        break;
    case 2:
        lim_unlink(self, to);
        break;
    case 3:
        err = lim_monitor(self, to, &ref);
        break;
    case 4:
        err = lim_monitor(self, to, &ref);
        lim_demonitor(self, ref);
        break;
    case 5:
        err = lim_timer_start(self, dice % 100000, 1, &ref);
        break;
    case 6:
        if (to.id != lim_self(self).id) /* that would be refused */
            err = lim_request(self, to, 1, lim__str("q"), 1 + (int64_t)(dice % 3), &ref);
        break;
    case 7:
        respawn(self, a, dice);
        break;
    case 8:
        lim_exit(self, dice % 2 ? LIM_NORMAL : LIM_FAULT);
        break;
    default:
        err = lim_send(self, to, 1, lim__bytes(a, sizeof *a));
    }
    if (signal->ref && lim_respond(self, signal, lim__str("a")) == LIM_E_NOMEM)
        err = LIM_E_NOMEM;
    LIM_ASSERT(err == LIM_OK || err == LIM_E_GONE || err == LIM_E_FULL);
}

static void *host_main(void *arg)
{
    actor *h = arg;
    for (int i = 0; i < 5000 * SCALE; i++) {
        uint64_t dice = roll(&h->seed);
        _Atomic uint64_t *place = &h->st->pids[dice % ACTORS];
        lim_pid to = { atomic_load(place) };
        lim_err err = lim_runtime_send(h->st->rt, to, 1, lim__bytes(&i, sizeof i));
        if (err == LIM_E_GONE) {
            actor init = { h->st, dice, (uint32_t)(dice % ACTORS) };
            lim_spawn_opts o = actor_opts(&init);
            lim_pid pid;
            err = lim_runtime_spawn(h->st->rt, &o, &pid);
            LIM_ASSERT(err == LIM_OK);
            atomic_fetch_add(&h->st->births, 1);
            lim_runtime_exit(h->st->rt, (lim_pid){ atomic_exchange(place, pid.id) }, LIM_KILL);
        }
        if (dice % 64 == 0)
            err = lim_register(h->st->rt, "somebody", to);
        LIM_ASSERT(err != LIM_E_NOMEM && err != LIM_E_MISUSE);
    }
    return NULL;
}

static void storm_on(uint32_t schedulers, uint32_t spin_us)
{
    storm *st = calloc(1, sizeof *st);
    st->rt = open_threads(schedulers, spin_us);
    actor hosts[HOSTS];
    lim__thread threads[HOSTS];
    for (uint32_t i = 0; i < HOSTS; i++) {
        hosts[i] = (actor){ st, 1000 + i, i };
        assert_int_equal(lim__thread_start(&threads[i], "host", host_main, &hosts[i]), 0);
    }
    for (uint32_t i = 0; i < HOSTS; i++)
        lim__thread_join(threads[i]);
    atomic_store(&st->over, true);
    while (atomic_load(&st->births) != atomic_load(&st->ends)) { /* a handler under way may still give birth */
        for (uint32_t i = 0; i < ACTORS; i++)
            lim_runtime_exit(st->rt, (lim_pid){ atomic_load(&st->pids[i]) }, LIM_KILL);
        lim__thread_yield();
    }
    wait_until_empty(st->rt);
    assert_int_equal(atomic_load(&st->births), atomic_load(&st->ends));
    assert_int_equal(lim_whereis(st->rt, "somebody").id, 0);
    lim_runtime_close(st->rt);
    free(st);
}

static void test_a_storm_from_eight_threads_on_two_schedulers_leaves_nothing(void **state) /* proves RT12 */
{
    (void)state;
    storm_on(2, 0);
    storm_on(2, 50);
}

static void test_a_storm_on_one_scheduler_and_on_four_leaves_nothing(void **state) /* proves RT12 */
{
    (void)state;
    storm_on(1, 0);
    storm_on(4, 0);
}

/* ---- places: eight threads and the owner fill one mailbox ---- */
enum { PLACES = 500 };
typedef struct filler {
    lim_runtime *rt;
    lim_pid to;
    _Atomic bool *go;
    uint32_t sent;
} filler;

static void *filler_main(void *arg)
{
    filler *f = arg;
    while (!atomic_load(f->go))
        lim__thread_yield();
    while (lim_runtime_send(f->rt, f->to, 1, lim__bytes(NULL, 0)) == LIM_OK)
        f->sent++;
    return NULL;
}

static void counter_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)signal;
    ++**(uint32_t **)state;
}

/* All are at the limit at once: what they were told is what arrives, and no place is left over or missing. */
static void fill(lim_runtime *rt, lim__sched *s, lim_pid to, const uint32_t *seen)
{
    filler hosts[HOSTS + 1];
    lim__thread threads[HOSTS];
    _Atomic bool go = false;
    uint32_t sent = 0, before = *seen;
    for (uint32_t i = 0; i <= HOSTS; i++) {
        hosts[i] = (filler){ .rt = rt, .to = to, .go = &go };
        if (i < HOSTS)
            assert_int_equal(lim__thread_start(&threads[i], "host", filler_main, &hosts[i]), 0);
    }
    atomic_store(&go, true);
    lim__sched *outer = lim__sched_enter(s); /* the last one sends as the owner */
    (void)filler_main(&hosts[HOSTS]);
    lim__sched_leave(outer);
    for (uint32_t i = 0; i < HOSTS; i++)
        lim__thread_join(threads[i]);
    for (uint32_t i = 0; i <= HOSTS; i++)
        sent += hosts[i].sent;
    assert_in_range(sent, PLACES, PLACES + HOSTS);
    while (lim__sched_turn(s, 0))
        ;
    assert_int_equal(*seen - before, sent);
    assert_int_equal(lim__places_used(lim__slot_of(s, to), lim__inner_of(s, to)), 0);
}

static void test_a_mailbox_that_many_fill_at_once_keeps_its_limit(void **state) /* proves RT3 */
{
    (void)state;
    lim_runtime *rt;
    assert_int_equal(lim__runtime_open(&(lim__runtime_opts){ .scheduler_count = 1 }, &rt), LIM_OK);
    uint32_t seen = 0, *init = &seen;
    lim_spawn_opts o = { .size = sizeof o,
                         .on_signal = counter_on_signal,
                         .state_bytes = sizeof init,
                         .init = &init,
                         .init_bytes = sizeof init,
                         .mailbox_max = PLACES };
    lim_pid to;
    assert_int_equal(lim_runtime_spawn(rt, &o, &to), LIM_OK);
    for (int i = 0; i < 20 * SCALE; i++)
        fill(rt, lim__sched_at(rt, 0), to, &seen);
    lim_runtime_close(rt);
}

/* ---- quiet: what was retired is not freed under a reader ---- */
typedef struct shared {
    _Atomic(uint32_t *) current;
    _Atomic uint64_t reads;
} shared;

static void reader_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    shared *sh = *(shared **)state;
    (void)signal;
    for (int i = 0; i < 16; i++) {
        const uint32_t *seen = atomic_load(&sh->current);
        LIM_ASSERT(*seen == 0xfeedface);
    }
    atomic_fetch_add(&sh->reads, 1);
    lim_err err = lim_send(self, lim_self(self), 0, lim__bytes(NULL, 0));
    LIM_ASSERT(err == LIM_OK);
}

static uint32_t *snapshot(void)
{
    uint32_t *s = malloc(sizeof *s);
    *s = 0xfeedface;
    return s;
}

/* ---- a message that is heard before its sender has come back ---- */

typedef struct caller {
    lim_runtime *rt;
    lim_pid to;
    _Atomic bool heard;
} caller;

static void tell(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)signal;
    atomic_store(&(*(caller **)state)->heard, true);
}

static void *call_once(void *arg)
{
    caller *c = arg;
    (void)!lim_runtime_send(c->rt, c->to, 1, lim__bytes(NULL, 0));
    return NULL;
}

static void test_what_a_message_caused_may_close_the_runtime_while_its_sender_still_wakes(void **state)
{
    (void)state;
    for (int i = 0; i < 100 * SCALE; i++) {
        caller c = { .rt = open_threads(1, 0) }, *init = &c;
        lim_spawn_opts o = {
            .size = sizeof o, .on_signal = tell, .state_bytes = sizeof init, .init = &init, .init_bytes = sizeof init
        };
        lim__thread thread;
        assert_int_equal(lim_runtime_spawn(c.rt, &o, &c.to), LIM_OK);
        assert_int_equal(lim__thread_start(&thread, "caller", call_once, &c), 0);
        while (!atomic_load(&c.heard))
            lim__thread_yield();
        lim_runtime_close(c.rt);
        lim__thread_join(thread);
    }
}

static void test_a_retired_snapshot_is_free_when_everybody_has_been_quiet(void **state)
{
    (void)state;
    lim_runtime *rt = open_threads(2, 0);
    shared sh, *init = &sh;
    atomic_init(&sh.current, snapshot());
    atomic_init(&sh.reads, 0);
    for (uint32_t i = 0; i < 2; i++) {
        lim_spawn_opts o = { .size = sizeof o,
                             .on_signal = reader_on_signal,
                             .state_bytes = sizeof init,
                             .init = &init,
                             .init_bytes = sizeof init,
                             .place = true,
                             .scheduler = i };
        lim_pid pid;
        assert_int_equal(lim_runtime_spawn(rt, &o, &pid), LIM_OK);
        assert_int_equal(lim_runtime_send(rt, pid, 0, lim__bytes(NULL, 0)), LIM_OK);
    }
    for (int i = 0; i < 50 * SCALE; i++) {
        uint32_t *old = atomic_exchange(&sh.current, snapshot());
        lim__quiet_stamp stamp;
        lim__quiet_stamp_take(rt, &stamp);
        while (!lim__quiet_since(rt, &stamp))
            lim__thread_yield();
        *old = 0;
        free(old);
    }
    lim_runtime_close(rt);
    free(atomic_load(&sh.current));
}

/* ---- public opening ---- */
static void test_the_public_runtime_runs_on_threads(void **state)
{
    (void)state;
    lim_runtime *rt;
    assert_int_equal(lim_runtime_open(&(lim_runtime_opts){ .size = 1 }, &rt), LIM_E_MISUSE);
    lim_runtime_opts o = { .size = sizeof o, .scheduler_count = 2, .spin_us = 1001 };
    assert_int_equal(lim_runtime_open(&o, &rt), LIM_E_INVALID);
    o.spin_us = 50;
    assert_int_equal(lim_runtime_open(&o, &rt), LIM_OK);
    assert_int_equal(lim_runtime_fd(rt), -1);
    assert_int_equal(lim_runtime_turn(rt, 0), LIM_E_MISUSE);
    world w = { .rt = rt, .schedulers = 2 };
    puppet *a = puppet_new(&w, 0, false), *b = puppet_new(&w, 1, false);
    act(&w, b, do_monitor, a);
    act(&w, a, do_exit, REASON(LIM_FAULT));
    act(&w, b, do_exit, REASON(LIM_NORMAL));
    wait_until_empty(rt);
    lim_runtime_close(rt);
    lim_runtime_close(NULL);
    assert_int_equal(a->ends + b->ends, 2);
    free(a), free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_wake_is_lost_in_a_ping_pong_across_schedulers),
        cmocka_unit_test(test_a_runtime_can_be_closed_at_any_moment),
        cmocka_unit_test(test_a_storm_from_eight_threads_on_two_schedulers_leaves_nothing),
        cmocka_unit_test(test_a_storm_on_one_scheduler_and_on_four_leaves_nothing),
        cmocka_unit_test(test_a_mailbox_that_many_fill_at_once_keeps_its_limit),
        cmocka_unit_test(test_what_a_message_caused_may_close_the_runtime_while_its_sender_still_wakes),
        cmocka_unit_test(test_a_retired_snapshot_is_free_when_everybody_has_been_quiet),
        cmocka_unit_test(test_the_public_runtime_runs_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
