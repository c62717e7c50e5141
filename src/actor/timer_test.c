/* SPDX-License-Identifier: Apache-2.0
 * timer_test.c - timers fire once, in order, never early; cancel tells the truth. Requests are answered once. */
#include "actor/test_world.h"

#define MS 1000000ull

typedef struct timer_order {
    uint64_t delay_ns, ref;
    uint32_t tag;
    bool cancelled;
} timer_order;

static void do_start(lim_process *self, puppet *p, void *arg)
{
    timer_order *o = arg;
    p->err = lim_timer_start(self, o->delay_ns, o->tag, &o->ref);
}

static void do_cancel(lim_process *self, puppet *p, void *arg)
{
    (void)p;
    timer_order *o = arg;
    o->cancelled = lim_timer_cancel(self, o->ref);
}

static void test_timers_fire_once_in_order_and_never_early(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    timer_order o[] = { { .delay_ns = 30 * MS, .tag = 3 },
                        { .delay_ns = 10 * MS, .tag = 1 },
                        { .delay_ns = 30 * MS, .tag = 4 },
                        { .delay_ns = 20 * MS, .tag = 2 },
                        { .delay_ns = UINT64_MAX, .tag = 9 } };
    for (uint32_t i = 0; i < LIM_COUNT(o); i++)
        act(w, a, do_start, &o[i]);
    settle(w);
    uint64_t start = w->now_ns;
    assert_int_equal(lim__sched_next_due_ns(lim__sched_at(w->rt, 0)), start + 10 * MS);
    advance(w, 10 * MS - 1);
    assert_int_equal(a->count, 0);
    advance(w, 1);
    assert_int_equal(a->count, 1);
    advance(w, 40 * MS);
    assert_int_equal(a->count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_signal(a, i, LIM_SIGNAL_TIMER, LIM_REASON_NONE);
        assert_int_equal(a->log[i].tag, i + 1);
    }
    assert_int_equal(a->log[0].ref, o[1].ref);
    act(w, a, do_cancel, &o[4]);
    settle(w);
    assert_true(o[4].cancelled);
    assert_nothing_left(w, 1);
    world_close(w);
    free(a);
}

/* ---- the deadline of a process ---- */
static void do_deadline(lim_process *self, puppet *p, void *arg)
{
    p->err = lim__deadline_set(self, ((timer_order *)arg)->delay_ns);
}

static void test_a_deadline_is_shown_once_in_its_turn_among_timers(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    timer_order before = { .delay_ns = 10 * MS, .tag = 1 }, far = { .delay_ns = 90 * MS };
    timer_order due = { .delay_ns = 20 * MS }, after = { .delay_ns = 20 * MS, .tag = 2 };
    act(w, a, do_start, &before);
    act(w, a, do_deadline, &far);
    act(w, a, do_deadline, &due); /* it moves */
    act(w, a, do_start, &after);
    settle(w);
    lim_census census;
    lim_runtime_census(w->rt, &census);
    assert_int_equal(census.timers, 3);
    advance(w, 20 * MS - 1);
    assert_int_equal(a->count, 1);
    advance(w, 1);
    assert_int_equal(a->count, 3);
    assert_signal(a, 1, LIM_SIGNAL_TIMER, LIM_REASON_NONE);
    assert_int_equal(a->log[1].tag, LIM__TAG_DEADLINE);
    assert_int_equal(a->log[1].ref, 0);
    assert_int_equal(a->log[2].tag, 2);
    advance(w, 100 * MS);
    assert_int_equal(a->count, 3);
    assert_nothing_left(w, 1);
    world_close(w);
    free(a);
}

static void test_who_ends_takes_its_deadline_along_whenever_it_ends(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *p[64];
    for (uint32_t i = 0; i < LIM_COUNT(p); i++) {
        timer_order o = { .delay_ns = (1 + world_random(&w->os) % 8) * MS };
        p[i] = puppet_new(w, 0, true);
        act(w, p[i], do_deadline, &o);
        settle(w);
    }
    for (uint32_t i = 0; i < LIM_COUNT(p); i++) {
        if (i % 8 == 0)
            w->now_ns += MS; /* some are due when they are told to end: that came first, or is dropped with the rest */
        act(w, p[i], do_exit, REASON(LIM_NORMAL));
        (void)step(w, 0);
    }
    settle(w);
    for (uint32_t i = 0; i < LIM_COUNT(p); i++)
        assert_true(p[i]->ends == 1 && p[i]->count <= 1);
    assert_nothing_left(w, 0);
    world_close(w);
    for (uint32_t i = 0; i < LIM_COUNT(p); i++)
        free(p[i]);
}

#ifdef LIM_DEBUG
static void test_a_deadline_without_memory_is_shown_when_there_is_some(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    timer_order o = { .delay_ns = MS };
    act(w, a, do_deadline, &o);
    settle(w);
    for (uint32_t i = 0; i < 5; i++) {
        lim__alloc_fail_at(1);
        advance(w, MS);
        assert_int_equal(a->count, 0);
    }
    lim__alloc_fail_at(0);
    advance(w, MS);
    assert_int_equal(a->count, 1);
    assert_nothing_left(w, 1);
    world_close(w);
    free(a);
}
#endif

static void do_busy(lim_process *self, puppet *p, void *arg)
{
    world *w = arg;
    timer_order o = { .delay_ns = 5 * MS };
    w->now_ns += 3 * MS; /* the handler takes its time before it starts the timer */
    do_start(self, p, &o);
}

static void test_the_delay_counts_from_the_call_not_from_the_turn(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    act(w, a, do_busy, w);
    settle(w);
    advance(w, 5 * MS - 1);
    assert_int_equal(a->count, 0);
    advance(w, 1);
    assert_int_equal(a->count, 1);
    world_close(w);
    free(a);
}

static void test_a_cancelled_timer_is_never_seen_and_a_seen_one_cannot_be_cancelled(void **state) /* R18 */
{
    (void)state;
    for (uint64_t seed = 1; seed < 2000; seed++) {
        world *w = world_open(1);
        w->seed = seed;
        puppet *a = puppet_new(w, 0, false), *other = puppet_new(w, 0, false);
        timer_order o = { .delay_ns = 2 * MS };
        act(w, a, do_start, &o);
        (void)step(w, 0);
        if (seed % 3 == 0)
            w->now_ns += 2 * MS; /* the letter is in the mailbox when cancel is read: the cancel came first */
        act(w, a, do_cancel, &o);
        if (seed % 3 == 1) {
            w->now_ns += 2 * MS;
            (void)step(w, 0);
        }
        advance(w, 10 * MS);
        assert_int_equal(a->count, o.cancelled ? 0 : 1);
        act(w, a, do_cancel, &o);
        settle(w);
        assert_false(o.cancelled);
        act(w, other, do_cancel, &o); /* not its timer */
        settle(w);
        assert_false(o.cancelled);
        assert_nothing_left(w, 2);
        world_close(w);
        free(a), free(other);
    }
}

static void do_start_and_wait(lim_process *self, puppet *p, void *arg)
{
    do_start(self, p, arg);
}

static void test_timers_die_with_their_process(void **state) /* proves RT12 */
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    timer_order now = { .delay_ns = 0 }, later = { .delay_ns = 5 * MS };
    act(w, a, do_start_and_wait, &later);
    act(w, a, do_start_and_wait, &now); /* fires into the mailbox while the exit is before it */
    act(w, a, do_exit, REASON(LIM_NORMAL));
    settle(w);
    advance(w, 10 * MS);
    assert_int_equal(a->count, 0);
    assert_int_equal(a->ends, 1);
    assert_nothing_left(w, 0);
    world_close(w);
    free(a);
}

static void test_ten_thousand_timers_in_random_order_keep_the_heap(void **state)
{
    (void)state;
    enum { N = 10000 };
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    timer_order *o = calloc(N, sizeof *o);
    for (uint32_t round = 0; round < N; round += 1000) {
        for (uint32_t i = round; i < round + 1000; i++) {
            o[i].delay_ns = world_random(&w->os) % (1000 * MS);
            act(w, a, do_start, &o[i]);
        }
        settle(w);
        lim__sched_check(lim__sched_at(w->rt, 0));
    }
    uint32_t cancelled = 0;
    for (uint32_t i = 0; i < N; i += 3) {
        act(w, a, do_cancel, &o[i]);
        settle(w);
        cancelled += o[i].cancelled;
    }
    for (int i = 0; i < 1001; i++)
        advance(w, MS);
    assert_int_equal(a->count + cancelled, N);
    assert_nothing_left(w, 1);
    world_close(w);
    free(o);
    free(a);
}

static void test_numbers_are_not_reused_while_somebody_could_hold_them(void **state)
{
    (void)state;
    world *w = world_open(1);
    lim__sched *s = lim__sched_at(w->rt, 0);
    uint64_t old = 0, ref;
    int object;
    assert_int_equal(lim__refs_take(s, LIM__REF_TIMER, &object, &old), LIM_OK);
    lim__refs_give(s, old);
    for (int i = 0; i < 1000; i++) {
        lim__ref_kind kind;
        assert_int_equal(lim__refs_take(s, LIM__REF_MONITOR, &object, &ref), LIM_OK);
        assert_true(ref != old);
        assert_null(lim__refs_find(s, old, &kind));
        assert_ptr_equal(lim__refs_find(s, ref, &kind), &object);
        lim__refs_give(s, ref);
    }
    lim__ref_kind kind;
    assert_null(lim__refs_find(s, 0, &kind));
    assert_null(lim__refs_find(s, UINT64_MAX, &kind));
    world_close(w);
}

/* ---- requests ---- */
typedef struct ask {
    lim_pid to;
    int64_t timeout_ms;
    uint64_t ref;
} ask;

static void do_ask(lim_process *self, puppet *p, void *arg)
{
    ask *q = arg;
    p->err = lim_request(self, q->to, 5, lim__str("question"), q->timeout_ms, &q->ref);
}

static void do_answer(lim_process *self, puppet *p, void *text)
{
    p->err = lim_respond(self, &p->log[p->count - 1], lim__str(text));
}

static void do_answer_twice_and_exit(lim_process *self, puppet *p, void *text)
{
    do_answer(self, p, text);
    do_answer(self, p, text);
    lim_exit(self, LIM_FAULT);
}

static void test_a_request_is_answered_once(void **state) /* proves RT9 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false);
        ask q = { .to = b->pid, .timeout_ms = 50 };
        act(w, a, do_ask, &q);
        settle(w);
        assert_int_equal(a->err, LIM_OK);
        assert_signal(b, 0, LIM_SIGNAL_MESSAGE, LIM_REASON_NONE);
        assert_int_equal(b->log[0].ref, q.ref);
        assert_int_equal(b->log[0].tag, 5);
        assert_string_equal(b->text[0], "question");
        act(w, b, do_answer_twice_and_exit, "answer");
        settle(w);
        advance(w, 100 * MS);
        assert_int_equal(a->count, 1);
        assert_signal(a, 0, LIM_SIGNAL_RESPONSE, LIM_NORMAL);
        assert_int_equal(a->log[0].ref, q.ref);
        assert_string_equal(a->text[0], "answer");
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void test_the_death_of_the_callee_fails_a_request_at_once(void **state) /* R17, proves RT9 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false);
        ask q = { .to = b->pid, .timeout_ms = 5000 };
        act(w, a, do_ask, &q);
        settle(w);
        act(w, b, do_exit, REASON(LIM_LOST));
        settle(w); /* no time passes */
        assert_int_equal(a->count, 1);
        assert_signal(a, 0, LIM_SIGNAL_RESPONSE, LIM_LOST);
        assert_int_equal(a->log[0].from.id, b->pid.id);
        act(w, a, do_ask, &q);
        settle(w);
        assert_int_equal(a->err, LIM_E_GONE);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void test_a_late_answer_is_dropped_and_never_meets_the_next_request(void **state) /* proves RT9 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false);
        ask first = { .to = b->pid, .timeout_ms = 10 }, second = { .to = b->pid, .timeout_ms = LIM_FOREVER };
        act(w, a, do_ask, &first);
        settle(w);
        advance(w, 10 * MS);
        assert_signal(a, 0, LIM_SIGNAL_RESPONSE, LIM_TIMEOUT);
        assert_int_equal(a->log[0].from.id, b->pid.id);
        act(w, b, do_answer, "late");
        settle(w);
        assert_int_equal(b->err, far ? LIM_OK : LIM_E_GONE);
        act(w, a, do_ask, &second);
        settle(w);
        assert_int_equal(a->count, 1);
        act(w, b, do_answer, "second");
        settle(w);
        assert_int_equal(a->count, 2);
        assert_string_equal(a->text[1], "second");
        assert_int_equal(a->log[1].ref, second.ref);
        assert_nothing_left(w, 2);
        world_close(w);
        free(a), free(b);
    }
}

static void test_answer_death_and_deadline_race_for_one_response(void **state) /* proves RT9 RT12 */
{
    (void)state;
    for (uint64_t seed = 1; seed < 5000; seed++) {
        world *w = world_open(2);
        w->seed = seed;
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, (uint32_t)(seed % 2), false);
        ask q = { .to = b->pid, .timeout_ms = 10 };
        act(w, a, do_ask, &q);
        settle_randomly(w);
        for (int i = 0; i < 6; i++)
            switch (world_random(&w->os) % 4) {
            case 0:
                w->now_ns += 4 * MS;
                break;
            case 1:
                if (b->ends == 0 && i < 5)
                    act(w, b, do_answer, "yes");
                break;
            case 2:
                if (i == 4)
                    act(w, b, do_exit, REASON(LIM_FAULT));
                break;
            default:
                (void)step(w, (uint32_t)(world_random(&w->os) % 2));
            }
        settle_randomly(w);
        advance(w, 20 * MS);
        assert_int_equal(a->count, 1);
        assert_signal(a, 0, LIM_SIGNAL_RESPONSE, a->log[0].reason);
        lim_census c;
        lim_runtime_census(w->rt, &c);
        assert_int_equal(c.monitors + c.timers + c.messages, 0);
        world_close(w);
        free(a), free(b);
    }
}

static void do_ask_and_exit(lim_process *self, puppet *p, void *arg)
{
    do_ask(self, p, arg);
    lim_exit(self, LIM_NORMAL);
}

static void test_an_asker_that_dies_leaves_nothing_behind(void **state) /* proves RT12 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false), *c = puppet_new(w, 0, false);
        ask q = { .to = b->pid, .timeout_ms = 10 };
        act(w, a, do_ask_and_exit, &q);
        act(w, c, do_ask, &q);
        (void)step(w, 0);
        w->now_ns += 20 * MS; /* c's deadline fires into its mailbox in the turn that kills it */
        lim_runtime_exit(w->rt, c->pid, LIM_KILL);
        settle(w);
        act(w, b, do_answer, "nobody");
        settle(w);
        assert_int_equal(b->err, LIM_E_GONE);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b), free(c);
    }
}

static void test_a_request_to_oneself_or_without_a_deadline_is_refused(void **state) /* proves RT9 */
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    ask q = { .to = a->pid, .timeout_ms = 0 };
    act(w, a, do_ask, &q);
    settle(w);
    assert_int_equal(a->err, LIM_E_MISUSE);
    q.timeout_ms = 5;
    act(w, a, do_ask, &q); /* itself: it could not answer before its handler returns */
    settle(w);
    assert_int_equal(a->err, LIM_E_MISUSE);
    assert_nothing_left(w, 1);
    a->count = 1; /* log[0] is no request */
    act(w, a, do_answer, "x");
    settle(w);
    assert_int_equal(a->err, LIM_E_INVALID);
    world_close(w);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_fire_once_in_order_and_never_early),
        cmocka_unit_test(test_the_delay_counts_from_the_call_not_from_the_turn),
        cmocka_unit_test(test_a_deadline_is_shown_once_in_its_turn_among_timers),
        cmocka_unit_test(test_who_ends_takes_its_deadline_along_whenever_it_ends),
#ifdef LIM_DEBUG
        cmocka_unit_test(test_a_deadline_without_memory_is_shown_when_there_is_some),
#endif
        cmocka_unit_test(test_a_cancelled_timer_is_never_seen_and_a_seen_one_cannot_be_cancelled),
        cmocka_unit_test(test_timers_die_with_their_process),
        cmocka_unit_test(test_ten_thousand_timers_in_random_order_keep_the_heap),
        cmocka_unit_test(test_numbers_are_not_reused_while_somebody_could_hold_them),
        cmocka_unit_test(test_a_request_is_answered_once),
        cmocka_unit_test(test_the_death_of_the_callee_fails_a_request_at_once),
        cmocka_unit_test(test_a_late_answer_is_dropped_and_never_meets_the_next_request),
        cmocka_unit_test(test_answer_death_and_deadline_race_for_one_response),
        cmocka_unit_test(test_an_asker_that_dies_leaves_nothing_behind),
        cmocka_unit_test(test_a_request_to_oneself_or_without_a_deadline_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
