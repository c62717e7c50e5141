/* SPDX-License-Identifier: Apache-2.0
 * stranger_test.c - calls that aim at something else: at what is no conversation, at somebody else's, at one that has
 * ended, at a bus that is closing. Each has an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/letters.h"
#include "bus/participant.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })

static int open_bus(void **state)
{
    return lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2), (lim_bus **)state) == LIM_OK ? 0 : -1;
}

static int close_bus(void **state)
{
    lim_bus_close(*state);
    return 0;
}

static lim_done on_hold(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d, (void)ctx;
    return LIM_HOLD;
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    (void)o;
    atomic_fetch_add((_Atomic int *)ctx, 1);
}

static void on_exit_note(void *ctx, lim_participant p, lim_reason reason, uint64_t at_ns)
{
    (void)p, (void)reason, (void)at_ns;
    atomic_fetch_add((_Atomic int *)ctx, 1);
}

static lim_participant serve(lim_bus *bus, const char *group, uint32_t capacity, bool pulled)
{
    lim_participant p = { 0 };
    assert_int_equal(
        lim_serve(bus, group,
                  OPTS(lim_serve_opts, .capacity = capacity, .handler = { .on_message = pulled ? NULL : on_hold }), &p),
        LIM_OK);
    return p;
}

static void every_call_answers(lim_bus *bus, lim_conv c, lim_err talk_says, bool is_conv)
{
    lim_outcome o = { 0 };
    lim_admission a;
    lim_conv_info info;
    _Atomic int told = 0;
    assert_int_equal(lim_conv_send(bus, c, (lim_participant){ 0 }, BYTES("x"), &a), talk_says);
    assert_int_equal(lim_conv_join(bus, c, (lim_participant){ 1 }), talk_says);
    lim_err err = lim_conv_receive(bus, c, LIM_FOREVER, &o);
    assert_true(err == talk_says || (err == LIM_OK && o.how == LIM_HOW_CRASHED));
    lim_outcome_fini(&o);
    assert_true(lim_conv_ask(bus, c, (lim_participant){ 0 }, BYTES("x"), LIM_FOREVER, &o) == talk_says);
    assert_int_equal(lim_conv_notify(bus, c, (lim_participant){ 1 }, on_exit_note, &told), LIM_E_GONE);
    assert_int_equal(lim_conv_inspect(bus, c, &info), is_conv ? LIM_OK : LIM_E_GONE);
    if (is_conv)
        return;
    assert_int_equal(lim_task_await(bus, c, LIM_FOREVER, &o), LIM_E_GONE);
    assert_int_equal(lim_conv_cancel(bus, c), LIM_E_GONE);
    assert_int_equal(lim_conv_close(bus, c), LIM_E_GONE);
}

static void test_what_is_no_conversation_is_gone(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    lim_participant p = serve(bus, "g", 1, false);
    every_call_answers(bus, (lim_conv){ p.id }, LIM_E_GONE, false);
    every_call_answers(bus, (lim_conv){ lim__group_find(bus, BYTES("g")).id }, LIM_E_GONE, false);
    every_call_answers(bus, (lim_conv){ bus->agents[0].id }, LIM_E_GONE, false);
    every_call_answers(bus, (lim_conv){ bus->supervisor.id }, LIM_E_GONE, false);
    every_call_answers(bus, (lim_conv){ 0 }, LIM_E_GONE, false);
    every_call_answers(bus, (lim_conv){ UINT64_MAX }, LIM_E_GONE, false);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
}

static void test_an_ask_is_no_talk(void **state)
{
    lim_bus *bus = *state;
    _Atomic int ended = 0;
    lim_conv c;
    serve(bus, "g", 1, false);
    assert_int_equal(
        lim_ask_async(bus, "g", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER), on_outcome, &ended, &c),
        LIM_OK);
    every_call_answers(bus, c, LIM_E_INVALID, true);
    assert_int_equal(lim_conv_cancel(bus, c), LIM_OK);
    while (atomic_load(&ended) == 0)
        sched_yield();
}

/* ---- somebody else's conversation ---- */

typedef struct stranger { /* a process that owns a talk, as a connection's session does */
    _Atomic int letters;
    _Atomic uint64_t conv;
    lim_bus *bus;
    lim__conv_kind kind;
} stranger;

static void stranger_signal(lim_process *self, const lim_signal *signal, void *state)
{
    stranger *s = *(stranger **)state;
    lim_pid conv;
    if (signal->kind == LIM_SIGNAL_EXIT)
        return;
    if (signal->type != NULL) {
        atomic_fetch_add(&s->letters, 1);
        return;
    }
    lim__open *open = lim__open_new(NULL, s->kind, s->kind == LIM__KIND_TALK ? BYTES("") : BYTES("never"), BYTES(""),
                                    lim__msg_new(BYTES("x")));
    open->owner = lim_self(self);
    open->opened_ns = lim_now_ns(self);
    open->flags = LIM__OPEN_WAIT;
    assert_int_equal(lim__conv_spawn(s->bus, self, open, &conv), LIM_OK);
    atomic_store(&s->conv, conv.id);
}

static lim_pid stranger_open(lim_bus *bus, stranger *s, lim__conv_kind kind, lim_conv *out)
{
    lim_pid pid;
    *s = (stranger){ .bus = bus, .kind = kind };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = stranger_signal,
                            .state_bytes = sizeof s,
                            .init = &s,
                            .init_bytes = sizeof s,
                            .trap_exit = true,
                            .place = true,
                            .scheduler = 1 };
    assert_int_equal(lim_runtime_spawn(bus->rt, &opts, &pid), LIM_OK);
    assert_int_equal(lim_runtime_send(bus->rt, pid, 1, BYTES("go")), LIM_OK);
    while (atomic_load(&s->conv) == 0)
        sched_yield();
    *out = (lim_conv){ atomic_load(&s->conv) };
    return pid;
}

static void test_somebody_elses_talk_answers_who_asked(void **state)
{
    lim_bus *bus = *state;
    static stranger s;
    lim_conv c;
    lim_admission a;
    lim_outcome o;
    stranger_open(bus, &s, LIM__KIND_TALK, &c);
    assert_int_equal(lim_conv_send(bus, c, (lim_participant){ 0 }, BYTES("mine"), &a), LIM_OK);
    assert_int_equal(lim_conv_receive(bus, c, LIM_FOREVER, &o), LIM_OK);
    assert_int_equal(o.payload.len, 4);
    lim_outcome_fini(&o);
    assert_int_equal(atomic_load(&s.letters), 1); /* that it was opened, and nothing of ours */
    assert_int_equal(lim_conv_close(bus, c), LIM_OK);
}

typedef struct awaiter {
    lim_bus *bus;
    lim_conv conv;
    lim_err err;
} awaiter;

static void *await_forever(void *ctx)
{
    awaiter *w = ctx;
    lim_outcome o = { 0 };
    w->err = lim_task_await(w->bus, w->conv, LIM_FOREVER, &o);
    lim_outcome_fini(&o);
    return NULL;
}

static void test_an_await_ends_when_the_task_is_killed(void **state) /* proves CV18 */
{
    lim_bus *bus = *state;
    static stranger s;
    awaiter w = { .bus = bus };
    pthread_t thread;
    lim_conv_info info;
    stranger_open(bus, &s, LIM__KIND_TASK, &w.conv);
    assert_int_equal(pthread_create(&thread, NULL, await_forever, &w), 0);
    assert_int_equal(lim_conv_inspect(bus, w.conv, &info), LIM_OK);
    assert_int_equal(lim_runtime_exit(bus->rt, (lim_pid){ w.conv.id }, LIM_KILL), LIM_OK);
    pthread_join(thread, NULL);
    assert_int_equal(w.err, LIM_E_GONE);
}

static void test_a_thousand_short_looks_at_a_task_leave_nothing_behind(void **state) /* proves PR5 */
{
    lim_bus *bus = *state;
    lim_admission a;
    lim_conv t;
    lim_bus_census before, after;
    lim_outcome o;
    assert_int_equal(lim_dispatch(bus, "looked-at", BYTES("x"), OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER),
                                  NULL, NULL, &a, &t),
                     LIM_OK);
    lim_bus_census_take(bus, &before);
    for (int i = 0; i < 50; i++)
        assert_int_equal(lim_task_await(bus, t, 1, &o), LIM_E_TIMEOUT);
    lim_conv_info info;
    assert_int_equal(lim_conv_inspect(bus, t, &info), LIM_OK);
    lim_bus_census_take(bus, &after);
    assert_true(after.runtime.monitors <= before.runtime.monitors + 1);
    assert_int_equal(lim_conv_cancel(bus, t), LIM_OK);
}

/* ---- who pulls ---- */

static void test_what_was_revoked_is_not_taken_any_more(void **state) /* proves GR2 PR5 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    lim_taken r = { 0 };
    lim_conv_info info;
    _Atomic int ended = 0;
    lim_participant p = serve(bus, "pulled", 1, true);
    for (int i = 0; i < 3; i++) { /* each has the one place there is */
        assert_int_equal(lim_ask(bus, "pulled", BYTES("late"), OPTS(lim_ask_opts, .timeout_ms = 20), &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_TIMEOUT);
        assert_int_equal(o.handed_over, LIM_HANDED_UNKNOWN);
        lim_outcome_fini(&o);
    }
    lim_conv c;
    assert_int_equal(lim_ask_async(bus, "pulled", BYTES("now"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER),
                                   on_outcome, &ended, &c),
                     LIM_OK);
    assert_int_equal(lim_take(bus, p, 60000, &r), LIM_OK);
    assert_int_equal(r.delivery.payload.len, 3);
    assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    assert_int_equal(lim_reply_to(bus, p, r.delivery.conv, r.delivery.lease, BYTES("y")), LIM_OK);
    lim_taken_fini(&r);
    while (atomic_load(&ended) == 0)
        sched_yield();
    assert_int_equal(lim_take(bus, p, INT64_MAX - 1, NULL), lim_leave(bus, p) == LIM_OK ? LIM_E_GONE : LIM_OK);
}

/* ---- closing ---- */

static void test_an_ask_ends_once_though_the_bus_is_closed_at_once(void **state) /* proves CV3 */
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        lim_bus *bus;
        _Atomic int ended = 0;
        assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2), &bus), LIM_OK);
        for (int k = 0; k < 20; k++)
            assert_int_equal(lim_ask_async(bus, "nobody", BYTES("x"),
                                           OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER, .wait = true), on_outcome,
                                           &ended, NULL),
                             LIM_OK);
        lim_bus_close(bus);
        assert_int_equal(atomic_load(&ended), 20);
    }
}

typedef struct asking {
    lim_bus *bus;
    _Atomic int asked, ended;
} asking;

static void *ask_until_closed(void *ctx)
{
    asking *a = ctx;
    while (lim_ask_async(a->bus, "nobody", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = LIM_FOREVER), on_outcome,
                         &a->ended, NULL) == LIM_OK)
        atomic_fetch_add(&a->asked, 1);
    return NULL;
}

static void test_a_drained_bus_has_missed_nobody(void **state) /* proves SV3 */
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        asking a = { 0 };
        pthread_t thread;
        lim_bus_census census;
        assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2), &a.bus), LIM_OK);
        assert_int_equal(pthread_create(&thread, NULL, ask_until_closed, &a), 0);
        while (atomic_load(&a.asked) < i % 7)
            sched_yield();
        assert_int_equal(lim_bus_drain(a.bus, 60000), LIM_OK);
        lim_bus_census_take(a.bus, &census);
        assert_int_equal(census.conversations, 0);
        pthread_join(thread, NULL);
        lim_bus_census_take(a.bus, &census); /* nobody slipped in behind its back */
        assert_int_equal(census.conversations, 0);
        lim_bus_close(a.bus);
        assert_int_equal(atomic_load(&a.ended), atomic_load(&a.asked));
    }
}

/* What a connection can send in its participants' names must not be taken for an answer. */
static void test_an_agent_takes_only_owners_letters(void **state) /* proves WI4 */
{
    lim_bus *bus = *state;
    lim_pid agent = bus->agents[0];
    for (uint64_t ref = 1; ref < 4096; ref++) {
        lim__taken *t = lim__letter_new(NULL, &lim__type_taken, sizeof *t);
        t->lease = ref;
        assert_int_equal(lim__post_reserved(bus->rt, agent, t), LIM_OK);
        if (ref % 64 == 0) {
            lim_outcome o;
            assert_int_equal(lim_ask(bus, "nobody", BYTES("x"), OPTS(lim_ask_opts, .timeout_ms = 60000), &o), LIM_OK);
            assert_int_equal(o.how, LIM_HOW_REFUSED);
            lim_outcome_fini(&o);
        }
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
    const struct CMUnitTest tests[] = {
        T(test_what_is_no_conversation_is_gone),
        T(test_an_ask_is_no_talk),
        T(test_somebody_elses_talk_answers_who_asked),
        T(test_an_await_ends_when_the_task_is_killed),
        T(test_a_thousand_short_looks_at_a_task_leave_nothing_behind),
        T(test_what_was_revoked_is_not_taken_any_more),
        T(test_an_agent_takes_only_owners_letters),
        cmocka_unit_test(test_an_ask_ends_once_though_the_bus_is_closed_at_once),
        cmocka_unit_test(test_a_drained_bus_has_missed_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
