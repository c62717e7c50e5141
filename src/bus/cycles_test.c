/* SPDX-License-Identifier: Apache-2.0
 * cycles_test.c - a million conversations, one after the other: opened, asked in, closed; and nothing of them is left.
 *
 *      driver --open--> talk --request--> participant
 *             --ask---> done             --answer--> talk --outcome--> driver --close--> closed, and the next one */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdatomic.h>

#include "base/base.h"
#include "bus/bus.h"
#include "bus/letters.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CYCLES = 50000 };
#else
enum { CYCLES = 1000000 };
#endif

typedef struct driver { /* a process that owns one conversation at a time */
    lim_bus *bus;
    lim_participant participant;
    lim__msg *request;
    _Atomic uint32_t *closed;
    uint32_t replies, want;
} driver;

static void open_next(driver *d, lim_process *self)
{
    lim_pid conv;
    lim__open *o = lim__open_new(lim__proc_sched(self), LIM__KIND_TALK, lim__str(""), lim__str(""), NULL);
    assert_non_null(o);
    o->owner = lim_self(self);
    o->opened_ns = lim_now_ns(self);
    o->participant = (lim_pid){ d->participant.id };
    assert_int_equal(lim__conv_spawn(d->bus, self, o, &conv), LIM_OK);
}

static void ask(driver *d, lim_process *self, lim_pid conv)
{
    lim__ask *a = lim__letter_new(lim__proc_sched(self), &lim__type_ask, sizeof *a);
    assert_non_null(a);
    *a = (lim__ask){ .ref = 1, .deadline_ns = UINT64_MAX, .payload = lim__msg_ref(d->request) };
    assert_int_equal(lim__send(self, conv, a), LIM_OK);
}

static void close_it(lim_process *self, lim_pid conv)
{
    lim__command *c = lim__letter_new(lim__proc_sched(self), &lim__type_close, sizeof *c);
    assert_non_null(c);
    *c = (lim__command){ 1, lim_self(self) };
    assert_int_equal(lim__send(self, conv, c), LIM_OK);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    driver *d = state;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (signal->type == NULL) {
        open_next(d, self);
    } else if (signal->type == &lim__type_done) {
        const lim__done *done = signal->body.ptr;
        assert_int_equal(done->err, LIM_OK);
        ask(d, self, done->conv);
    } else if (signal->type == &lim__type_outcome) {
        const lim__outcome_letter *o = signal->body.ptr;
        assert_int_equal(o->how, LIM_HOW_REPLY);
        d->replies++;
        close_it(self, o->conv);
    } else if (signal->type == &lim__type_closed) {
        assert_int_equal(((const lim__closed *)signal->body.ptr)->phase, LIM_PHASE_ENDED);
        uint32_t closed = atomic_fetch_add(d->closed, 1) + 1;
        assert_int_equal(d->replies, closed);
        if (closed < d->want)
            open_next(d, self);
    }
}

static lim_done on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    if (!d->wants_reply)
        return LIM_DONE;
    return lim_reply(bus, d, lim__str("pong")) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void drive(lim_bus *bus, lim_participant participant, uint32_t cycles)
{
    static _Atomic uint32_t closed;
    lim_pid pid;
    driver init = { .bus = bus,
                    .participant = participant,
                    .request = lim__msg_new(lim__str("ping")),
                    .closed = &closed,
                    .want = cycles };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = on_signal,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init,
                            .trap_exit = true };
    atomic_store(&closed, 0);
    assert_int_equal(lim_runtime_spawn(bus->rt, &opts, &pid), LIM_OK);
    assert_int_equal(lim_runtime_send(bus->rt, pid, 1, lim__str("go")), LIM_OK);
    while (atomic_load(&closed) < cycles)
        sched_yield();
    lim_runtime_exit(bus->rt, pid, LIM_KILL);
    while (lim_alive(bus->rt, pid))
        sched_yield();
    lim__msg_unref(init.request);
}

static bool same(const lim_bus_census *a, const lim_bus_census *b)
{
    return a->conversations == b->conversations && a->participants == b->participants &&
           a->runtime.processes == b->runtime.processes && a->runtime.links == b->runtime.links &&
           a->runtime.monitors == b->runtime.monitors && a->runtime.timers == b->runtime.timers &&
           a->runtime.messages == b->runtime.messages && a->runtime.letter_bytes == b->runtime.letter_bytes;
}

static void test_a_million_conversations_leave_nothing_behind(void **state) /* proves CV14 RT12 */
{
    (void)state;
    lim_bus *bus;
    lim_participant p;
    lim_bus_census before, after;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim_serve_opts serve = { .size = sizeof serve, .capacity = 1, .handler = { .on_message = on_message } };
    assert_int_equal(lim_bus_open(&opts, &bus), LIM_OK);
    assert_int_equal(lim_serve(bus, "pongs", &serve, &p), LIM_OK);
    drive(bus, p, 1); /* what is made once, for the first of them */
    do
        lim_bus_census_take(bus, &before);
    while (before.conversations > 0 || before.runtime.messages > 0);
    drive(bus, p, CYCLES);
    do
        lim_bus_census_take(bus, &after);
    while (!same(&before, &after));
    lim_bus_close(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_a_million_conversations_leave_nothing_behind) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
