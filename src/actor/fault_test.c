/* SPDX-License-Identifier: Apache-2.0
 * fault_test.c - every allocation fails once: calls answer NOMEM, leave nothing half-done, and nothing leaks.
 *
 * One scenario makes every call that allocates, near and far. It is run with the first allocation failing, then the
 * second, ... until a run needs fewer. What answered OK must then have happened exactly once, what answered NOMEM not
 * at all, and the census must return to nothing. Then each public operation alone, near, far and to the dead, with
 * every malloc of the program failing in turn, those of hash maps included (under a sanitizer, which owns malloc, only
 * the runtime's own). */
#include "actor/test_world.h"

/* ---- every malloc of the program ---- */
#if defined(__GLIBC__) && !LIM__POOL_BYPASS && !defined(__SANITIZE_THREAD__)
#define OWNS_MALLOC 1
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef OWNS_MALLOC
#endif
#endif
#endif
#ifdef OWNS_MALLOC
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
static _Atomic uint64_t malloc_countdown;

static bool malloc_fails(void)
{
    uint64_t n = atomic_load(&malloc_countdown);
    return n != 0 && atomic_fetch_sub(&malloc_countdown, 1) == 1;
}
void *malloc(size_t bytes)
{
    return malloc_fails() ? NULL : __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes)
{
    return malloc_fails() ? NULL : __libc_calloc(count, bytes);
}
void *realloc(void *block, size_t bytes)
{
    return malloc_fails() ? NULL : __libc_realloc(block, bytes);
}

static void fail_at(uint64_t n)
{
    lim__alloc_fail_at(UINT64_MAX); /* no block comes from a magazine */
    atomic_store(&malloc_countdown, n);
}
static bool fail_reached(void) /* and disarms */
{
    bool reached = atomic_exchange(&malloc_countdown, 0) == 0;
    lim__alloc_fail_at(0);
    return reached;
}
#else
static void fail_at(uint64_t n)
{
    lim__alloc_fail_at(n);
}
static bool fail_reached(void)
{
    bool reached = atomic_load(&lim__alloc_countdown) == 0;
    lim__alloc_fail_at(0);
    return reached;
}
#endif

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

/* ---- each operation alone ---- */
typedef struct scene scene;
typedef lim_err op(lim_process *self, scene *sc, lim_pid to);
struct scene {
    world *w;
    puppet *self, *near, *far, *dead;
    lim_pid sup, child;
    op *op;
    lim_pid to;
    uint64_t n;
    bool through; /* memory fails until all has settled, not only during the call */
    lim_err err;
    bool reached;
};

static void on_brief(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->ref)
        (void)!lim_respond(self, signal, signal->body);
}

static lim_spawn_opts brief(lim_pid to)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .on_signal = on_brief,
                             .state_bytes = 600,
                             .place = true,
                             .scheduler = lim__pid_scheduler(to) };
}

static lim_err op_send(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc;
    return lim_send(self, to, 1, lim__str("m"));
}
static lim_err op_send_long(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc;
    static const char body[30000];
    return lim_send(self, to, 1, lim__bytes(body, sizeof body));
}
static lim_err op_runtime_send(lim_process *self, scene *sc, lim_pid to)
{
    (void)self;
    return lim_runtime_send(sc->w->rt, to, 1, lim__str("m"));
}
static lim_err op_link(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc;
    return lim_link(self, to);
}
static lim_err op_monitor(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc;
    uint64_t ref;
    return lim_monitor(self, to, &ref);
}
static lim_err op_request(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc;
    uint64_t ref;
    return lim_request(self, to, 1, lim__str("q"), 5, &ref);
}
static lim_err op_exit(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc;
    return lim_exit_process(self, to, LIM_FAULT);
}
static lim_err op_runtime_exit(lim_process *self, scene *sc, lim_pid to)
{
    (void)self;
    return lim_runtime_exit(sc->w->rt, to, LIM_FAULT);
}
static lim_err op_timer(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc, (void)to;
    uint64_t ref;
    return lim_timer_start(self, 1, 0, &ref);
}
static lim_err op_register(lim_process *self, scene *sc, lim_pid to)
{
    (void)self;
    lim_err err = lim_register(sc->w->rt, "name", to);
    assert_int_equal(lim_whereis(sc->w->rt, "name").id, err == LIM_OK ? to.id : 0);
    return err;
}
static lim_err op_spawn(lim_process *self, scene *sc, lim_pid to)
{
    uint64_t ref;
    lim_spawn_opts o = brief(to);
    o.link = o.monitor = true;
    o.monitor_out = &ref;
    return lim_spawn(self, &o, &sc->child);
}
static lim_err op_runtime_spawn(lim_process *self, scene *sc, lim_pid to)
{
    (void)self;
    lim_spawn_opts o = brief(to);
    return lim_runtime_spawn(sc->w->rt, &o, &sc->child);
}
static lim_err op_supervisor_open(lim_process *self, scene *sc, lim_pid to)
{
    (void)self, (void)to;
    lim_supervisor_opts o = { .size = sizeof o, .restarts_max = 100 };
    return lim_supervisor_open(sc->w->rt, &o, &sc->child);
}
static lim_err op_supervisor_add(lim_process *self, scene *sc, lim_pid to)
{
    (void)self;
    lim_child_spec spec = { .size = sizeof spec, .spawn = brief(to), .restart = LIM_PERMANENT, .ready_ms = 10 };
    return lim_supervisor_add(sc->w->rt, sc->sup, &spec);
}
static lim_err op_supervisor_nest(lim_process *self, scene *sc, lim_pid to)
{
    (void)self, (void)to;
    lim_supervisor_opts o = { .size = sizeof o };
    lim_child_spec spec = {
        .size = sizeof spec, .spawn = { .size = sizeof spec.spawn }, .restart = LIM_TEMPORARY, .supervisor = &o
    };
    return lim_supervisor_add(sc->w->rt, sc->sup, &spec);
}
static lim_err op_supervisor_stop(lim_process *self, scene *sc, lim_pid to)
{
    (void)self;
    return lim_supervisor_stop(sc->w->rt, sc->sup, to);
}
static lim_err op_ready(lim_process *self, scene *sc, lim_pid to)
{
    (void)sc, (void)to;
    lim_err err = lim_ready(self);
    return err == LIM_E_INVALID ? LIM_OK : err; /* it is nobody's child */
}

static void run_op(lim_process *self, puppet *p, void *arg)
{
    scene *sc = arg;
    (void)p;
    fail_at(sc->n);
    sc->err = sc->op(self, sc, sc->to);
    if (!sc->through)
        sc->reached = fail_reached();
}

static uint32_t all_seen(const scene *sc)
{
    return sc->self->count + sc->near->count + sc->far->count;
}

static void end_all(scene *sc)
{
    lim_pid all[] = { sc->self->pid, sc->near->pid, sc->far->pid, sc->child, sc->sup };
    for (size_t i = 0; i < LIM_COUNT(all); i++)
        assert_int_equal(lim_runtime_exit(sc->w->rt, all[i], LIM_KILL), LIM_OK);
    settle(sc->w);
    advance(sc->w, 10000000000);
    assert_nothing_left(sc->w, 0);
}

/* False: the operation needed fewer than n allocations. */
static bool sweep_once(op *what, uint32_t whom, uint64_t n, bool through)
{
    scene sc = { .w = world_open(2), .op = what, .n = n, .through = through };
    sc.self = puppet_new(sc.w, 0, true);
    sc.near = puppet_new(sc.w, 0, true);
    sc.far = puppet_new(sc.w, 1, true);
    sc.dead = puppet_new(sc.w, 1, true);
    lim_supervisor_opts o = { .size = sizeof o, .restarts_max = LIM_UNLIMITED };
    assert_int_equal(lim_supervisor_open(sc.w->rt, &o, &sc.sup), LIM_OK);
    act(sc.w, sc.dead, do_exit, REASON(LIM_NORMAL));
    settle(sc.w);
    sc.to = whom == 0 ? sc.near->pid : whom == 1 ? sc.far->pid : sc.dead->pid;
    act(sc.w, sc.self, run_op, &sc);
    settle(sc.w);
    if (through) {
        advance(sc.w, 500000000);
        sc.reached = fail_reached();
    }
    assert_true(sc.err == LIM_OK || sc.err == LIM_E_NOMEM || (whom == 2 && sc.err == LIM_E_GONE));
    if (sc.err != LIM_OK)
        assert_int_equal(all_seen(&sc), 0);
    else if (!through)
        advance(sc.w, 500000000);
    end_all(&sc);
    world_close(sc.w);
    free(sc.self), free(sc.near), free(sc.far), free(sc.dead);
    return sc.reached;
}

static void test_every_operation_survives_every_failing_allocation(void **state) /* proves RT12 */
{
    (void)state;
    static op *const all[] = { op_send,           op_send_long,       op_runtime_send,   op_link,
                               op_monitor,        op_request,         op_exit,           op_runtime_exit,
                               op_timer,          op_register,        op_spawn,          op_runtime_spawn,
                               op_ready,          op_supervisor_open, op_supervisor_add, op_supervisor_nest,
                               op_supervisor_stop };
    uint32_t failed = 0;
    for (size_t i = 0; i < LIM_COUNT(all); i++)
        for (uint32_t whom = 0; whom < 3; whom++)
            for (uint32_t through = 0; through < 2; through++)
                for (uint64_t n = 1; sweep_once(all[i], whom, n, through); n++) {
                    failed++;
                    assert_true(n < 300);
                }
    assert_true(failed > 100);
}

static void
test_exits_sent_without_memory_are_refused_when_the_spare_letters_are_under_way(void **state) /* proves RT3 */
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, true);
    for (int round = 0; round < 2; round++) { /* the second time they are there again */
        for (uint32_t i = 0; i <= LIM__SPARE_LETTERS; i++) {
            lim__alloc_fail_at(1);
            lim_err err = lim_runtime_exit(w->rt, a->pid, LIM_FAULT);
            lim__alloc_fail_at(0);
            assert_int_equal(err, i < LIM__SPARE_LETTERS ? LIM_OK : LIM_E_NOMEM);
        }
        settle(w);
        assert_int_equal(a->count, (round + 1) * LIM__SPARE_LETTERS + round);
        assert_int_equal(lim_runtime_exit(w->rt, a->pid, LIM_FAULT), LIM_OK);
        settle(w);
    }
    world_close(w);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_allocation_may_fail_and_nothing_is_half_done),
        cmocka_unit_test(test_a_runtime_that_cannot_be_opened_leaves_nothing),
        cmocka_unit_test(test_host_calls_survive_a_failing_allocation),
        cmocka_unit_test(test_every_operation_survives_every_failing_allocation),
        cmocka_unit_test(test_exits_sent_without_memory_are_refused_when_the_spare_letters_are_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
