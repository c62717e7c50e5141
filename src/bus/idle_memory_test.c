/* SPDX-License-Identifier: Apache-2.0
 * idle_memory_test.c - what a conversation takes while it waits, in bytes of the allocator, everything counted:
 * process, slot, links, deadline, what it was opened with. docs/internals/memory.md says what each part takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>

#include "bus/bus.h"
#include "bus/letters.h"
#include "bus/participant.h"

enum { BATCH = 100, BATCHES = 320, IDLE_BYTES_MAX = 512 };

typedef struct opener {
    lim_bus *bus;
    lim__conv_kind kind;
    lim_pid with; /* {0}: nobody */
    lim__msg *payload;
} opener;

static void open_one(lim_process *self, const opener *o)
{
    lim_pid conv;
    lim__open *open =
        lim__open_new(lim__proc_sched(self), o->kind, lim__str(""), lim__str(""), lim__msg_ref(o->payload));
    assert_non_null(open);
    open->owner = lim_self(self);
    open->ref = 1;
    open->opened_ns = lim_now_ns(self);
    open->deadline_ns = o->kind == LIM__KIND_ASK ? open->opened_ns + 3600000000000u : UINT64_MAX;
    open->participant = o->with;
    assert_int_equal(lim__conv_spawn(o->bus, self, open, &conv), LIM_OK);
}

static void on_opener(lim_process *self, const lim_signal *signal, void *state)
{
    for (int i = 0; signal->kind == LIM_SIGNAL_MESSAGE && signal->type == NULL && i < BATCH; i++)
        open_one(self, state);
}

static lim_done on_hold(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d, (void)ctx;
    return LIM_HOLD;
}

static void turns(lim_bus *bus, uint32_t n)
{
    while (n-- > 0)
        lim__sched_turn(lim__sched_at(bus->rt, 0), 0);
}

static lim_bus *bus_open(lim_pid *keeper)
{
    lim_bus *bus = NULL;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim__runtime_opts runtime = { .os = lim__os_linux(), .scheduler_count = 1 };
    lim_handler handler = { .on_message = on_hold };
    assert_int_equal(lim__bus_open(&opts, &runtime, &bus), LIM_OK);
    turns(bus, 20);
    assert_int_equal(lim__participant_spawn(bus, &handler, LIM__MEMBER_SERVE, (lim_pid){ 0 }, keeper), LIM_OK);
    return bus;
}

static size_t in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* Bytes of each of so many. */
static size_t cost(lim_bus *bus, const opener *how)
{
    lim_pid pid = { 0 };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = on_opener,
                            .state_bytes = sizeof *how,
                            .init = how,
                            .init_bytes = sizeof *how,
                            .trap_exit = true };
    assert_int_equal(lim_runtime_spawn(bus->rt, &opts, &pid), LIM_OK);
    lim_bus_census before, after;
    lim_bus_census_take(bus, &before);
    size_t used = in_use();
    for (uint32_t i = 0; i < BATCHES; i++) {
        assert_int_equal(lim_runtime_send(bus->rt, pid, 0, lim__bytes("", 0)), LIM_OK);
        turns(bus, 50);
    }
    used = in_use() - used;
    lim_bus_census_take(bus, &after);
    assert_int_equal(after.conversations - before.conversations, BATCH * BATCHES);
    return used / (BATCH * BATCHES);
}

static void idle(opener how, bool with)
{
    lim_pid keeper = { 0 };
    if (in_use() == 0)
        skip(); /* a sanitizer's allocator, which counts otherwise */
    how.bus = bus_open(&keeper);
    how.payload = how.kind == LIM__KIND_ASK ? lim__msg_new(lim__str("0123456789abcdef")) : NULL;
    if (with)
        how.with = keeper;
    size_t bytes = cost(how.bus, &how);
    print_message("%zu bytes each\n", bytes);
    assert_in_range(bytes, 1, IDLE_BYTES_MAX);
    lim__msg_unref(how.payload);
    lim_bus_close(how.bus);
}

static void test_an_ask_with_a_deadline_that_waits_takes_512_bytes_at_most(void **state)
{
    (void)state;
    idle((opener){ .kind = LIM__KIND_ASK }, true);
}

static void test_an_open_conversation_takes_512_bytes_at_most(void **state)
{
    (void)state;
    idle((opener){ .kind = LIM__KIND_TALK }, false);
}

static void test_an_open_conversation_with_a_participant_takes_512_bytes_at_most(void **state)
{
    (void)state;
    idle((opener){ .kind = LIM__KIND_TALK }, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_ask_with_a_deadline_that_waits_takes_512_bytes_at_most),
        cmocka_unit_test(test_an_open_conversation_takes_512_bytes_at_most),
        cmocka_unit_test(test_an_open_conversation_with_a_participant_takes_512_bytes_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
