/* SPDX-License-Identifier: Apache-2.0
 * sim_idle_test.c - a whole bus with nothing to do: a server with a thousand connections, a hundred thousand processes,
 * and not one turn in a minute.
 *
 * Turns are counted, and so are wake-ups: a scheduler that wakes takes a turn, and there is no other way to use a
 * processor. The other ends of the connections say HELLO, read the answer, and are sockets that nobody looks at. */
#include "server/server_world.h"

enum { CONNECTIONS = 1000, PROCESSES = 100000 };

static void send_all(world *w, lim__os *there, int fd, lim__buf *out)
{
    while (lim__buf_len(out) > 0) {
        long n = there->send(there, fd, out->ptr + out->start, lim__buf_len(out));
        assert_true(n > 0 || n == -EAGAIN);
        if (n > 0)
            out->start += (size_t)n;
        else
            run_for(w, SECOND / 100);
    }
}

/* Reads until the first frame has come, which is WELCOME; what the handshake answers meanwhile is sent. */
static void await_welcome(world *w, lim__os *there, int fd, lim__wire *wire, lim__buf *out)
{
    uint8_t bytes[4096];
    size_t len = 0;
    lim__frame frame;
    lim__wire_got got;
    do {
        long n;
        while ((n = there->recv(there, fd, bytes + len, sizeof bytes - len)) == -EAGAIN)
            run_for(w, SECOND / 100);
        assert_true(n > 0);
        len += (size_t)n;
        lim__span in = { bytes, bytes + len };
        got = lim__wire_next(wire, &in, &frame);
        len = (size_t)(in.end - in.p);
        memmove(bytes, in.p, len);
        send_all(w, there, fd, out);
    } while (got == LIM__WIRE_MORE);
    assert_int_equal(got, LIM__WIRE_FRAME);
}

static void say_hello(world *w, lim__os *there)
{
    lim__buf out = { 0 };
    lim__wire wire;
    lim__wire_opts opts = { .hello = { .client = lim__str("idle") } };
    int fd = there->connect(there, lim__sim_host_address(w->os), PORT), err;
    assert_true(fd >= 0);
    while ((err = there->connect_result(there, fd)) == -EINPROGRESS)
        run_for(w, SECOND / 100);
    assert_int_equal(err, 0);
    lim__wire_init(&wire, LIM__WIRE_CLIENT, &out, &opts);
    lim__wire_open(&wire);
    send_all(w, there, fd, &out);
    await_welcome(w, there, fd, &wire, &out);
    lim__buf_fini(&out);
}

static void on_nothing(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)signal, (void)state;
}

static void spawn_many(world *w)
{
    lim_spawn_opts o = { .size = sizeof o, .on_signal = on_nothing, .state_bytes = 32 };
    lim_pid pid;
    for (uint32_t i = 0; i < PROCESSES; i++)
        assert_int_equal(lim_runtime_spawn(w->bus->rt, &o, &pid), LIM_OK);
}

static void test_an_idle_bus_of_1000_connections_and_100000_processes_never_wakes(void **state) /* R12, proves RT10 */
{
    (void)state;
    for (uint32_t schedulers = 1; schedulers <= 2; schedulers++) {
        world *w = calloc(1, sizeof *w);
        assert_non_null(w);
        w->seed = w->schedulers = schedulers;
        world_open(w);
        lim__os *there = lim__sim_host(w->sim, "there");
        for (uint32_t i = 0; i < CONNECTIONS; i++)
            say_hello(w, there);
        spawn_many(w);
        run_for(w, 10 * SECOND);
        lim_bus_census before, after;
        lim_bus_census_take(w->bus, &before);
        assert_true(before.runtime.processes >= CONNECTIONS + PROCESSES);
        run_for(w, 60 * SECOND);
        lim_bus_census_take(w->bus, &after);
        assert_int_equal(after.runtime.processes, before.runtime.processes);
        assert_int_equal(after.runtime.turns, before.runtime.turns);
        assert_int_equal(after.runtime.wakes, before.runtime.wakes);
        lim__sim_kill_host(w->sim, there);
        run_for(w, 10 * SECOND);
        lim_bus_census_take(w->bus, &after); /* so they were connections */
        assert_true(after.runtime.processes <= before.runtime.processes - CONNECTIONS);
        lim_bus_close(w->bus);
        lim__server_close(w->server);
        lim__sim_close(w->sim);
        free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_bus_of_1000_connections_and_100000_processes_never_wakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
