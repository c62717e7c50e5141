/* SPDX-License-Identifier: Apache-2.0
 * sim_restart_test.c - a server that is killed and started again a hundred times under load: everybody heals.
 *
 *      server (bus, 2 schedulers) <--simulated TCP--> 2 servers of "echo", 2 workers of "jobs", 2 that ask and dispatch
 *
 * What the server knew is gone with it (nothing is durable here), so whoever waited for it is told `lost`; but no
 * program needs to be started again, none ends, and after each start everybody does its work over a connection, a
 * registration of its own, until the next kill comes: at any instant, also before anybody is back. Rules:
 *
 *   R1  every ask and every dispatched task ends exactly once, in words.
 *   R2  after each start something is answered and some task is done again.
 *   R3  no client ever ends, and none is registered more often than the server was started. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <liminal/client.h>
#include <stdio.h>
#include <stdlib.h>

#include "bus/bus.h"
#include "server/server.h"
#include "sim/sim_os.h"

enum { SCHEDULERS = 2, PORT = 4777, STARTS = 100, PROGRAMS = 6, CALLS = 16384, SEEDS = 3 };
#define SECOND 1000000000ull

typedef enum role { SERVER = 1, WORKER, ASKER } role;
typedef struct world world;
typedef struct program {
    world *w;
    role role;
    char name[16];
    lim__os *os;
    lim_client *client;
    uint64_t next_ns;
    uint32_t ready, ends;
} program;
typedef struct call {
    world *w;
    uint32_t ends;
    bool is_task;
} call;

struct world {
    lim__sim *sim;
    lim__os *os; /* of the server that runs now */
    lim_bus *bus;
    lim__server *server;
    lim__sim_task *tasks[SCHEDULERS];
    program programs[PROGRAMS];
    call calls[CALLS];
    uint32_t call_count, starts, answered, done, lost; /* answered, done: since the last start */
    bool asks;
};

/* ---- the server ---- */

static bool sched_turn(void *ctx)
{
    return lim__sched_turn(ctx, -1);
}
static uint64_t sched_due(void *ctx)
{
    return lim__sched_next_due_ns(ctx);
}

static void server_start(world *w)
{
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = SCHEDULERS };
    lim__server_opts server = { .port = PORT, .spread = true };
    lim_diag diag;
    w->os = lim__sim_host(w->sim, "server");
    lim__runtime_opts runtime = { .os = w->os, .scheduler_count = SCHEDULERS };
    assert_int_equal(lim__bus_open(&opts, &runtime, &w->bus), LIM_OK);
    for (uint32_t i = 0; i < SCHEDULERS; i++)
        w->tasks[i] = lim__sim_task_add(w->sim, w->os, i == 0 ? "sched-0" : "sched-1", sched_turn, sched_due,
                                        lim__sched_at(w->bus->rt, i));
    server.host = lim__sim_host_address(w->os);
    assert_int_equal(lim__server_open(w->bus, &server, &diag, &w->server), LIM_OK);
    w->starts++;
    w->answered = w->done = 0;
}

/* SIGKILL; then what is left of it in this process's memory is torn down, which nobody outside can see. */
static void server_kill(world *w)
{
    lim__sim_kill_host(w->sim, w->os);
    for (uint32_t i = 0; i < SCHEDULERS; i++)
        lim__sim_task_remove(w->sim, w->tasks[i]);
    lim_bus_close(w->bus);
    lim__server_close(w->server);
}

/* ---- the programs ---- */

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    program *p = ctx;
    (void)p;
    return lim_client_reply(c, d, d->payload) == LIM_OK ? LIM_DONE : LIM_HOLD;
}
static void on_end(void *ctx, lim_err why, const char *detail)
{
    program *p = ctx;
    (void)why, (void)detail;
    p->ends++;
}
static void on_ready(void *ctx, const char *identity)
{
    program *p = ctx;
    (void)identity;
    p->ready++;
}
static void on_state(void *ctx, lim_link_state state, const char *detail)
{
    const program *p = ctx;
    (void)detail;
    assert_true(state != LIM_LINK_ENDED || !p->w->asks); /* R3 */
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    call *c = ctx;
    assert_int_equal(++c->ends, 1); /* R1 */
    c->w->lost += o->how == LIM_HOW_LOST;
    if (o->how == LIM_HOW_REPLY && c->is_task)
        c->w->done++;
    else if (o->how == LIM_HOW_REPLY)
        c->w->answered++;
}

static void call_something(program *p)
{
    world *w = p->w;
    assert_true(w->call_count < CALLS);
    call *c = &w->calls[w->call_count++];
    *c = (call){ .w = w, .is_task = lim__rng_below(lim__sim_rng(w->sim), 2) };
    lim_ask_opts ask = { .size = sizeof ask, .timeout_ms = 60000, .wait = true, .on_crash = LIM_CRASH_NEXT };
    lim_dispatch_opts dispatch = { .size = sizeof dispatch, .timeout_ms = 60000 };
    lim_err err = c->is_task
                      ? lim_client_dispatch_async(p->client, "jobs", lim__str("x"), &dispatch, NULL, on_outcome, c)
                      : lim_client_ask_async(p->client, "echo", lim__str("x"), &ask, on_outcome, c, NULL);
    c->ends += err != LIM_OK; /* UNREACHABLE: nothing was sent */
}

static bool program_turn(void *ctx)
{
    program *p = ctx;
    uint64_t now = lim__sim_now(p->w->sim);
    if (p->role == ASKER && p->w->asks && now >= p->next_ns) {
        p->next_ns = now + 1 + lim__rng_below(lim__sim_rng(p->w->sim), SECOND / 8);
        call_something(p);
    }
    assert_int_equal(lim_client_process(p->client), LIM_OK); /* R3 */
    return lim_client_timeout_ms(p->client) == 0;
}

static uint64_t program_due(void *ctx)
{
    program *p = ctx;
    int ms = lim_client_timeout_ms(p->client);
    uint64_t due = ms < 0 ? UINT64_MAX : lim__sim_now(p->w->sim) + (uint64_t)ms * 1000000;
    return p->role == ASKER && p->w->asks && p->next_ns < due ? p->next_ns : due;
}

static void program_start(world *w, program *p, role as, int number)
{
    static const char *const names[] = { "", "server", "worker", "asker" };
    char server[32];
    *p = (program){ .w = w, .role = as };
    snprintf(p->name, sizeof p->name, "%s-%d", names[as], number);
    snprintf(server, sizeof server, "%s:%d", lim__sim_host_address(w->os), PORT);
    p->os = lim__sim_host(w->sim, p->name);
    lim_client_opts opts = { .size = sizeof opts,
                             .server = server,
                             .name = p->name,
                             .own_loop = true,
                             .liveness_ms = 1000,
                             .os = p->os,
                             .on_state = on_state,
                             .ctx = p };
    lim_client_serve_opts serve = { .size = sizeof serve,
                                    .identity = p->name,
                                    .capacity = 4,
                                    .handler = { on_request, on_end, p },
                                    .on_ready = on_ready };
    lim_participant who;
    assert_int_equal(lim_client_open(&opts, NULL, &p->client), LIM_OK);
    if (as == SERVER)
        assert_int_equal(lim_client_serve(p->client, "echo", &serve, NULL, &who), LIM_OK);
    else if (as == WORKER)
        assert_int_equal(lim_client_work(p->client, "jobs", &serve, NULL, &who), LIM_OK);
    lim__sim_task_add(w->sim, p->os, p->name, program_turn, program_due, p);
}

/* ---- the story ---- */

static bool has_healed(void *ctx)
{
    const world *w = ctx;
    return w->answered > 2 && w->done > 2;
}

static bool all_ended(void *ctx)
{
    const world *w = ctx;
    for (uint32_t i = 0; i < w->call_count; i++)
        if (w->calls[i].ends == 0)
            return false;
    return true;
}

static void story(uint64_t seed)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->sim = lim__sim_open(seed);
    w->asks = true;
    server_start(w);
    for (int i = 0; i < PROGRAMS; i++)
        program_start(w, &w->programs[i], i < 2 ? SERVER : i < 4 ? WORKER : ASKER, i % 2);
    for (uint32_t i = 0; i < STARTS; i++) {
        bool at_once = lim__rng_below(lim__sim_rng(w->sim), 4) == 0; /* perhaps before anybody is back */
        uint64_t now = lim__sim_now(w->sim);
        if (!at_once && !lim__sim_run(w->sim, now + 60 * SECOND, has_healed, w))
            fail_msg("seed %llu: after start %u nobody did anything for a minute", (unsigned long long)seed,
                     i); /* R2 */
        lim__sim_run(w->sim, lim__sim_now(w->sim) + lim__rng_below(lim__sim_rng(w->sim), SECOND), NULL, NULL);
        server_kill(w);
        lim__sim_run(w->sim, lim__sim_now(w->sim) + lim__rng_below(lim__sim_rng(w->sim), SECOND), NULL, NULL);
        server_start(w);
    }
    assert_true(lim__sim_run(w->sim, lim__sim_now(w->sim) + 60 * SECOND, has_healed, w));
    w->asks = false;
    assert_true(lim__sim_run(w->sim, lim__sim_now(w->sim) + 120 * SECOND, all_ended, w)); /* R1 */
    assert_true(w->lost > 0);
    for (int i = 0; i < PROGRAMS; i++) {
        assert_int_equal(w->programs[i].ends, 0);       /* R3 */
        assert_true(w->programs[i].ready <= w->starts); /* R3 */
        lim__sim_kill_host(w->sim, w->programs[i].os);
        lim_client_close(w->programs[i].client);
    }
    server_kill(w);
    lim__sim_close(w->sim);
    free(w);
}

static void test_everybody_heals_when_the_server_is_restarted_a_hundred_times(void **state) /* proves WI6 CV3 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        story(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everybody_heals_when_the_server_is_restarted_a_hundred_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
