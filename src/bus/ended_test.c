/* SPDX-License-Identifier: Apache-2.0
 * ended_test.c - the line that every ended conversation leaves: the newest are known, and no reader sees half of one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "bus/ended.h"

enum { LOOKS = 2000, READERS = 2 };

/* Everything in the line of number n follows from n. */
static lim__ended_summary line_of(uint64_t n)
{
    return (lim__ended_summary){ .conv = { n },
                                 .kind = (lim__conv_kind)(LIM__KIND_ASK + n % 3),
                                 .phase = n % 2 == 0 ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN,
                                 .how = (lim_how)(LIM_HOW_REPLY + n % 7),
                                 .why = (lim_why)(n % 20),
                                 .reason = n % 5 == 0 ? (lim_reason)(LIM_REASON_USER + (int)(n % 1000)) : LIM_KILLED,
                                 .ended_ns = n * 1000003,
                                 .elapsed_ns = n * 7919 };
}

static bool known(lim_bus *bus, uint64_t n)
{
    lim__ended_summary got, want = line_of(n);
    if (!lim__ended_summary_of(bus, (lim_pid){ n }, &got))
        return false;
    assert_true(got.conv.id == n && got.kind == want.kind && got.phase == want.phase && got.how == want.how);
    assert_true(got.why == want.why && got.reason == want.reason);
    assert_true(got.ended_ns == want.ended_ns && got.elapsed_ns == want.elapsed_ns);
    return true;
}

typedef struct writer {
    lim_bus *bus;
    _Atomic uint64_t *written;
} writer;

static void writer_signal(lim_process *self, const lim_signal *signal, void *state)
{
    writer *w = state;
    uint64_t upto, n = atomic_load(w->written);
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    memcpy(&upto, signal->body.ptr, sizeof upto);
    for (uint32_t i = 0; i < 64 && n < upto; i++) {
        lim__ended_summary one = line_of(++n);
        lim__ended_note(w->bus, lim__proc_sched(self), &one);
        atomic_store(w->written, n);
    }
    if (n < upto)
        assert_int_equal(lim_send(self, lim_self(self), 0, (lim_bytes){ &upto, sizeof upto }), LIM_OK);
}

static lim_bus *open_writer(_Atomic uint64_t *written, lim_pid *pid)
{
    lim_bus *bus;
    lim_bus_opts o = { .size = sizeof o, .scheduler_count = 1 };
    assert_int_equal(lim_bus_open(&o, &bus), LIM_OK);
    writer init = { bus, written };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = writer_signal,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init };
    assert_int_equal(lim_runtime_spawn(bus->rt, &opts, pid), LIM_OK);
    return bus;
}

static void write_upto(lim_bus *bus, lim_pid pid, uint64_t upto)
{
    assert_int_equal(lim_runtime_send(bus->rt, pid, 0, (lim_bytes){ &upto, sizeof upto }), LIM_OK);
}

static void test_the_newest_are_known_and_the_others_forgotten(void **state) /* proves CV1 */
{
    (void)state;
    _Atomic uint64_t written = 0;
    lim_pid pid;
    lim_bus *bus = open_writer(&written, &pid);
    uint64_t total = LIM__ENDED_MAX + 1000;
    write_upto(bus, pid, total);
    while (atomic_load(&written) < total)
        sched_yield();
    for (uint64_t n = 1; n <= total; n++)
        assert_int_equal(known(bus, n), n > total - LIM__ENDED_MAX);
    assert_false(known(bus, total + 1));
    assert_false(known(bus, 0));
    lim_bus_close(bus);
}

typedef struct eye {
    lim_bus *bus;
    _Atomic uint64_t *written;
    uint64_t seen;
    pthread_t thread;
} eye;

static void *look(void *arg)
{
    eye *e = arg;
    for (int i = 0; i < LOOKS; i++) {
        uint64_t n = atomic_load(e->written);
        e->seen += known(e->bus, n);                                            /* just written */
        e->seen += n > LIM__ENDED_MAX && known(e->bus, n - LIM__ENDED_MAX + 1); /* just being overwritten */
    }
    return NULL;
}

static void test_a_reader_sees_whole_lines_while_they_are_written(void **state) /* proves CV1 */
{
    (void)state;
    _Atomic uint64_t written = 0;
    lim_pid pid;
    eye eyes[READERS];
    lim_bus *bus = open_writer(&written, &pid);
    write_upto(bus, pid, UINT64_MAX); /* until the bus is closed */
    while (atomic_load(&written) < 2 * LIM__ENDED_MAX)
        sched_yield();
    for (int i = 0; i < READERS; i++) {
        eyes[i] = (eye){ .bus = bus, .written = &written };
        assert_int_equal(pthread_create(&eyes[i].thread, NULL, look, &eyes[i]), 0);
    }
    uint64_t seen = 0;
    for (int i = 0; i < READERS; i++) {
        pthread_join(eyes[i].thread, NULL);
        seen += eyes[i].seen;
    }
    assert_true(seen > 0);
    lim_bus_close(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_are_known_and_the_others_forgotten),
        cmocka_unit_test(test_a_reader_sees_whole_lines_while_they_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
