/* SPDX-License-Identifier: Apache-2.0
 * sim_test.c - the simulated world itself: bytes arrive whole and in order under every seed, a seed has one history,
 * and machines die the way machines die. */
#include "sim/sim_os.h"
#include "base/base.h"
#include "base/map.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { PORT = 4000, SEEDS = 200 };
static const uint64_t MS = 1000000u, SECOND = 1000000000u;

/* A program with one socket (and a listener, if it serves): sends `to_send` bytes of a known stream, receives the
 * other's, and remembers how it ended. */
struct talker {
    lim__sim *sim;
    lim__os *os;
    lim__poller *poller;
    lim__sim_task *task;
    int listener, fd;
    uint64_t sent, to_send, received;
    uint64_t shut_at; /* shutdown_write after so many bytes sent; 0: never */
    uint64_t paused_until;
    uint32_t idle_ms, user_timeout_ms;
    long end; /* 1: none yet; 0: end of file; negative: error */
    enum { TALK_LISTEN = 1, TALK_CONNECT, TALK_ON, TALK_OVER } state;
};

static uint8_t byte_at(uint64_t position)
{
    return (uint8_t)(position * 31 + position / 251);
}

static void talker_watch(struct talker *t, int fd, uint32_t interest)
{
    assert_int_equal(t->os->poller_set(t->os, t->poller, fd, interest, t), 0);
}

static void talker_over(struct talker *t, long end)
{
    t->end = end;
    t->state = TALK_OVER;
    lim__sim_note(t->sim, "over %ld after %llu", end, (unsigned long long)t->received);
    talker_watch(t, t->fd, 0);
    t->os->close(t->os, t->fd);
}

static void talker_recv(struct talker *t)
{
    uint8_t buf[700];
    long n = t->os->recv(t->os, t->fd, buf, sizeof buf);
    if (n == -EAGAIN)
        return;
    for (long i = 0; i < n; i++)
        assert_int_equal(buf[i], byte_at(t->received++));
    if (n == 0 && t->sent < t->to_send)
        t->end = 0; /* the other's half is over, ours is not */
    else if (n <= 0)
        talker_over(t, n);
}

static void talker_send(struct talker *t)
{
    uint8_t buf[900];
    uint64_t left = t->to_send - t->sent;
    size_t n = left < sizeof buf ? (size_t)left : sizeof buf;
    for (size_t i = 0; i < n; i++)
        buf[i] = byte_at(t->sent + i);
    long taken = n > 0 ? t->os->send(t->os, t->fd, buf, n) : 0;
    if (taken > 0)
        t->sent += (uint64_t)taken;
    else if (taken < 0 && taken != -EAGAIN)
        talker_over(t, taken);
    if (t->state == TALK_ON && t->shut_at && t->sent >= t->shut_at) {
        t->os->shutdown_write(t->os, t->fd);
        t->shut_at = 0;
    }
    if (t->state == TALK_ON && t->end == 0 && t->sent == t->to_send)
        talker_over(t, 0);
}

static uint32_t talker_wants(const struct talker *t)
{
    bool deaf = t->paused_until > 0 || t->end == 0;
    return (deaf ? 0u : LIM__IO_READ) | (t->sent < t->to_send || t->shut_at ? LIM__IO_WRITE : 0u);
}

static void talker_ready(struct talker *t, uint32_t ready)
{
    if (t->state == TALK_LISTEN) {
        char peer[32];
        t->fd = t->os->accept(t->os, t->listener, peer, sizeof peer);
        if (t->fd < 0)
            return;
        assert_int_equal(strncmp(peer, "10.0.0.", 7), 0);
        t->os->set_liveness(t->os, t->fd, t->idle_ms, t->user_timeout_ms);
        talker_watch(t, t->listener, 0);
        t->state = TALK_ON;
    } else if (t->state == TALK_CONNECT) {
        int err = t->os->connect_result(t->os, t->fd);
        if (err == -EINPROGRESS)
            return;
        t->state = TALK_ON;
        if (err != 0)
            talker_over(t, err);
    } else if (t->state == TALK_ON && (ready & LIM__IO_READ)) {
        talker_recv(t);
    }
    if (t->state == TALK_ON && (ready & LIM__IO_WRITE))
        talker_send(t);
}

static bool talker_turn(void *ctx)
{
    struct talker *t = ctx;
    lim__io_event ev[4];
    if (t->paused_until <= t->os->now_ns(t->os))
        t->paused_until = 0;
    if (t->state == TALK_ON)
        talker_watch(t, t->fd, talker_wants(t));
    int n = t->os->poller_wait(t->os, t->poller, ev, 4, -1);
    for (int i = 0; i < n && t->state != TALK_OVER; i++)
        talker_ready(t, ev[i].ready);
    return false;
}

static uint64_t talker_due(void *ctx)
{
    const struct talker *t = ctx;
    return t->paused_until ? t->paused_until : LIM__SIM_NEVER;
}

static void talker_open(struct talker *t, lim__sim *sim, const char *name, const char *connect_to)
{
    t->sim = sim;
    t->os = lim__sim_host(sim, name);
    t->poller = t->os->poller_open(t->os);
    t->end = 1;
    t->listener = t->fd = -1;
    if (connect_to) {
        t->fd = t->os->connect(t->os, connect_to, PORT);
        assert_true(t->fd >= 0);
        t->os->set_liveness(t->os, t->fd, t->idle_ms, t->user_timeout_ms);
        t->state = TALK_CONNECT;
        talker_watch(t, t->fd, LIM__IO_WRITE);
    } else {
        uint16_t port;
        t->listener = t->os->listen(t->os, "0.0.0.0", PORT, &port);
        assert_true(t->listener >= 0);
        assert_int_equal(port, PORT);
        t->state = TALK_LISTEN;
        talker_watch(t, t->listener, LIM__IO_READ);
    }
    t->task = lim__sim_task_add(sim, t->os, "talker", talker_turn, talker_due, t);
}

static bool both_received(void *ctx)
{
    const struct talker *t = ctx;
    return t[0].received == t[1].to_send && t[1].received == t[0].to_send;
}

static bool both_over(void *ctx)
{
    const struct talker *t = ctx;
    return t[0].state == TALK_OVER && t[1].state == TALK_OVER;
}

static bool first_over(void *ctx)
{
    return ((const struct talker *)ctx)->state == TALK_OVER;
}

/* t[0] serves, t[1] connects. */
static lim__sim *meet(struct talker t[2], uint64_t seed)
{
    lim__sim *sim = lim__sim_open(seed);
    talker_open(&t[0], sim, "server", NULL);
    talker_open(&t[1], sim, "client", "server");
    return sim;
}

static bool are_talking(void *ctx)
{
    const struct talker *t = ctx;
    return t[0].state == TALK_ON && t[1].state == TALK_ON;
}

static uint64_t one_exchange(uint64_t seed)
{
    struct talker t[2] = { { .to_send = 20000 }, { .to_send = 30000, .shut_at = 30000 } };
    lim__sim *sim = meet(t, seed);
    assert_true(lim__sim_run(sim, 600 * SECOND, both_received, t));
    while (lim__sim_step(sim))
        ;
    assert_int_equal(t[0].end, 0);
    assert_int_equal(t[1].end, 0);
    uint64_t hash = lim__sim_hash(sim);
    lim__sim_close(sim);
    return hash;
}

static void test_bytes_arrive_whole_and_in_order_under_every_seed(void **state) /* proves RT13, as far as it is ours */
{
    (void)state;
    uint64_t before = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t hash = one_exchange(seed);
        assert_int_equal(hash, one_exchange(seed));
        assert_int_not_equal(hash, before);
        before = hash;
    }
}

static bool has_sent_much(void *ctx)
{
    const struct talker *t = ctx;
    return t[0].sent >= 3000;
}

static void test_a_killed_program_s_bytes_arrive_and_then_an_end(void **state)
{
    (void)state;
    unsigned ends = 0, resets = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct talker t[2] = { { .to_send = 100000 }, { .to_send = seed % 2 ? 50000 : 0 } };
        lim__sim *sim = meet(t, seed);
        assert_true(lim__sim_run(sim, 600 * SECOND, has_sent_much, t));
        lim__sim_kill_host(sim, t[0].os);
        assert_false(lim__sim_host_alive(t[0].os));
        assert_true(lim__sim_run(sim, lim__sim_now(sim) + 60 * SECOND, first_over, &t[1]));
        assert_true(t[1].end == 0 || t[1].end == -ECONNRESET || t[1].end == -EPIPE);
        if (t[1].end == 0)
            assert_int_equal(t[1].received, t[0].sent);
        else
            assert_true(t[1].received <= t[0].sent);
        ends += t[1].end == 0;
        resets += t[1].end != 0;
        lim__sim_close(sim);
    }
    assert_true(ends > SEEDS / 4);
    assert_true(resets > SEEDS / 20);
}

static void test_a_dead_program_s_calls_change_nothing_and_a_new_one_takes_its_place(void **state)
{
    (void)state;
    struct talker t[2] = { { .to_send = 10 }, { .to_send = 10 } };
    lim__sim *sim = meet(t, 7);
    assert_true(lim__sim_run(sim, 600 * SECOND, both_received, t));
    lim__sim_kill_host(sim, t[0].os);
    lim__sim_kill_host(sim, t[0].os);
    uint64_t hash = lim__sim_hash(sim);
    char buf[4];
    lim__io_event ev;
    assert_int_equal(t[0].os->recv(t[0].os, t[0].fd, buf, 4), -EBADF);
    assert_int_equal(t[0].os->send(t[0].os, t[0].fd, buf, 4), -EBADF);
    assert_int_equal(t[0].os->listen(t[0].os, "0.0.0.0", 0, NULL), -EBADF);
    assert_int_equal(t[0].os->poller_wait(t[0].os, t[0].poller, &ev, 1, -1), 0);
    t[0].os->close(t[0].os, t[0].fd);
    t[0].os->poller_close(t[0].os, t[0].poller);
    assert_int_equal(hash, lim__sim_hash(sim));
    lim__os *old = t[0].os;
    assert_true(lim__sim_run(sim, lim__sim_now(sim) + SECOND, first_over, &t[1]));
    struct talker again[2] = { { .to_send = 77 }, { .to_send = 88 } };
    talker_open(&again[0], sim, "server", NULL);
    assert_ptr_not_equal(again[0].os, old);
    talker_open(&again[1], sim, "client", lim__sim_host_address(old));
    assert_true(lim__sim_run(sim, lim__sim_now(sim) + 60 * SECOND, both_received, again));
    lim__sim_close(sim);
}

static void test_a_kill_can_come_at_any_call(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 100; n++) {
        struct talker t[2] = { { .to_send = 5000 }, { .to_send = 5000 } };
        lim__sim *sim = meet(t, n % 5);
        lim__sim_kill_host_at_call(sim, t[0].os, n);
        lim__sim_run(sim, 60 * SECOND, first_over, &t[1]);
        if (!lim__sim_host_alive(t[0].os))
            assert_int_equal(t[1].state, TALK_OVER);
        else
            assert_true(both_received(t));
        lim__sim_close(sim);
    }
}

static void test_a_cut_connection_times_out_if_it_asked_to(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct talker t[2] = { { .to_send = 100, .idle_ms = 2000, .user_timeout_ms = 6000 },
                               { .to_send = 100, .idle_ms = 2000, .user_timeout_ms = 6000 } };
        lim__sim *sim = meet(t, seed);
        assert_true(lim__sim_run(sim, 600 * SECOND, both_received, t));
        lim__sim_cut(sim, t[0].os, t[1].os);
        uint64_t since = lim__sim_now(sim);
        assert_true(lim__sim_run(sim, since + 100 * SECOND, both_over, t));
        assert_int_equal(t[0].end, -ETIMEDOUT);
        assert_int_equal(t[1].end, -ETIMEDOUT);
        assert_in_range(lim__sim_now(sim) - since, 6 * SECOND, 9 * SECOND);
        lim__sim_close(sim);
    }
}

static void test_a_cut_connection_without_detectors_waits_and_goes_on_when_healed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct talker t[2] = { { .to_send = 40000 }, { .to_send = 40000 } };
        lim__sim *sim = meet(t, seed);
        assert_true(lim__sim_run(sim, 600 * SECOND, has_sent_much, t));
        lim__sim_cut(sim, t[0].os, t[1].os);
        lim__sim_run(sim, lim__sim_now(sim) + 3600 * SECOND, NULL, NULL);
        assert_false(both_received(t));
        assert_int_equal(t[0].end, 1);
        lim__sim_heal(sim, t[0].os, t[1].os);
        assert_true(lim__sim_run(sim, lim__sim_now(sim) + 60 * SECOND, both_received, t));
        lim__sim_close(sim);
    }
}

static void test_a_short_cut_is_survived(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct talker t[2] = { { .to_send = 40000, .idle_ms = 2000, .user_timeout_ms = 6000 },
                               { .to_send = 40000, .idle_ms = 2000, .user_timeout_ms = 6000 } };
        lim__sim *sim = meet(t, seed);
        assert_true(lim__sim_run(sim, 600 * SECOND, has_sent_much, t));
        lim__sim_cut(sim, t[0].os, t[1].os);
        lim__sim_run(sim, lim__sim_now(sim) + 5 * SECOND, NULL, NULL);
        lim__sim_heal(sim, t[0].os, t[1].os);
        assert_true(lim__sim_run(sim, lim__sim_now(sim) + 60 * SECOND, both_received, t));
        lim__sim_close(sim);
    }
}

static void test_an_end_that_was_given_up_is_reset_when_the_silence_is_over(void **state)
{
    (void)state;
    struct talker t[2] = { { .to_send = 100 }, { .to_send = 100, .idle_ms = 2000, .user_timeout_ms = 6000 } };
    lim__sim *sim = meet(t, 3);
    assert_true(lim__sim_run(sim, 600 * SECOND, both_received, t));
    lim__sim_cut(sim, t[0].os, t[1].os);
    assert_true(lim__sim_run(sim, lim__sim_now(sim) + 10 * SECOND, first_over, &t[1]));
    lim__sim_heal(sim, t[0].os, t[1].os);
    t[0].to_send += 5;
    lim__sim_task_poke(t[0].task);
    assert_true(lim__sim_run(sim, lim__sim_now(sim) + 10 * SECOND, first_over, &t[0]));
    assert_int_equal(t[0].end, -ECONNRESET);
    lim__sim_close(sim);
}

static void test_power_loss_tells_nobody_until_the_machine_is_back(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct talker t[2] = { { .to_send = 100 }, { .to_send = 100, .idle_ms = seed % 2 ? 2000 : 0 } };
        lim__sim *sim = meet(t, seed);
        assert_true(lim__sim_run(sim, 600 * SECOND, both_received, t));
        lim__sim_power_off(sim, t[0].os);
        bool over = lim__sim_run(sim, lim__sim_now(sim) + 1000 * SECOND, first_over, &t[1]);
        assert_int_equal(over, seed % 2);
        if (!over) {
            t[1].to_send++;
            lim__sim_task_poke(t[1].task);
            assert_false(lim__sim_run(sim, lim__sim_now(sim) + 1000 * SECOND, first_over, &t[1]));
            lim__sim_host(sim, "server");
            assert_true(lim__sim_run(sim, lim__sim_now(sim) + SECOND, first_over, &t[1]));
        }
        assert_int_equal(t[1].end, over ? -ETIMEDOUT : -ECONNRESET);
        lim__sim_close(sim);
    }
}

static void test_a_reset_ends_both_sides(void **state)
{
    (void)state;
    struct talker t[2] = { { .to_send = 100000 }, { .to_send = 100000 } };
    lim__sim *sim = meet(t, 21);
    assert_true(lim__sim_run(sim, 600 * SECOND, has_sent_much, t));
    lim__sim_reset(sim, t[0].os, t[1].os);
    assert_true(lim__sim_run(sim, lim__sim_now(sim) + SECOND, both_over, t));
    assert_int_equal(t[0].end, -ECONNRESET);
    assert_int_equal(t[1].end, -ECONNRESET);
    lim__sim_close(sim);
}

static void test_nobody_listening_refuses_and_nobody_there_times_out(void **state)
{
    (void)state;
    lim__sim *sim = lim__sim_open(5);
    struct talker refused = { 0 }, lost = { 0 };
    lim__sim_host(sim, "server");
    talker_open(&refused, sim, "client", "server");
    assert_true(lim__sim_run(sim, 60 * SECOND, first_over, &refused));
    assert_int_equal(refused.end, -ECONNREFUSED);
    talker_open(&lost, sim, "client", "10.0.0.99");
    assert_true(lim__sim_run(sim, 600 * SECOND, first_over, &lost));
    assert_int_equal(lost.end, -ETIMEDOUT);
    lim__os *os = refused.os;
    assert_int_equal(os->connect(os, "example.org", 1), -EINVAL);
    lim__sim_close(sim);
}

static void test_a_frozen_program_s_kernel_keeps_its_connection_until_its_window_is_full(void **state)
{
    (void)state;
    struct talker t[2] = { { .to_send = 10 }, { .to_send = 10, .idle_ms = 2000, .user_timeout_ms = 6000 } };
    lim__sim *sim = meet(t, 8);
    assert_true(lim__sim_run(sim, 600 * SECOND, both_received, t));
    lim__sim_freeze_host(sim, t[0].os);
    lim__sim_run(sim, lim__sim_now(sim) + 100 * SECOND, NULL, NULL);
    assert_int_equal(t[1].end, 1);
    t[1].to_send += 10;
    lim__sim_task_poke(t[1].task);
    lim__sim_run(sim, lim__sim_now(sim) + 100 * SECOND, NULL, NULL);
    assert_int_equal(t[0].received, 10);
    lim__sim_thaw_host(sim, t[0].os);
    assert_true(lim__sim_run(sim, lim__sim_now(sim) + SECOND, both_received, t));
    lim__sim_freeze_host(sim, t[0].os);
    t[1].to_send += 10000000;
    lim__sim_task_poke(t[1].task);
    assert_true(lim__sim_run(sim, lim__sim_now(sim) + 100 * SECOND, first_over, &t[1]));
    assert_int_equal(t[1].end, -ETIMEDOUT);
    lim__sim_close(sim);
}

static void test_a_reader_that_pauses_stops_the_writer_and_loses_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct talker t[2] = { { .to_send = 0 }, { .to_send = 2000000 } };
        lim__sim *sim = meet(t, seed);
        assert_true(lim__sim_run(sim, 600 * SECOND, are_talking, t));
        t[0].paused_until = lim__sim_now(sim) + 10 * SECOND;
        lim__sim_run(sim, t[0].paused_until - SECOND, NULL, NULL);
        assert_true(t[1].sent < t[1].to_send);
        assert_true(lim__sim_run(sim, lim__sim_now(sim) + 3600 * SECOND, both_received, t));
        lim__sim_close(sim);
    }
}

/* ---- clock, tasks, scripts ---- */

struct sleeper {
    lim__os *os;
    lim__poller *poller;
    int64_t wait_ns;
    uint64_t asked_at, woke_at;
    unsigned turns;
};

static bool sleeper_turn(void *ctx)
{
    struct sleeper *s = ctx;
    lim__io_event ev;
    uint64_t now = s->os->now_ns(s->os);
    if (s->turns++ == 0)
        s->asked_at = now;
    else if (!s->woke_at)
        s->woke_at = now;
    assert_int_equal(s->os->poller_wait(s->os, s->poller, &ev, 1, s->woke_at ? -1 : s->wait_ns), 0);
    return false;
}

static void test_the_clock_jumps_to_the_end_of_a_wait(void **state)
{
    (void)state;
    lim__sim *sim = lim__sim_open(1);
    struct sleeper s = { .os = lim__sim_host(sim, "a"), .wait_ns = (int64_t)(3600 * SECOND) };
    s.poller = s.os->poller_open(s.os);
    lim__sim_task_add(sim, s.os, "sleeper", sleeper_turn, NULL, &s);
    while (lim__sim_step(sim))
        ;
    assert_int_equal(s.turns, 2);
    assert_in_range(s.woke_at - s.asked_at, 3600 * SECOND, 3600 * SECOND + MS);
    assert_true(lim__sim_steps(sim) < 10);
    assert_true(s.os->wall_ns(s.os) > 1700000000u * SECOND);
    lim__sim_close(sim);
}

static void wake_sleeper(lim__sim *sim, void *ctx)
{
    struct sleeper *s = ctx;
    lim__sim_note(sim, "script wakes");
    s->os->poller_wake(s->os, s->poller);
}

static void test_a_wake_ends_a_wait_early_and_once(void **state)
{
    (void)state;
    lim__sim *sim = lim__sim_open(1);
    struct sleeper s = { .os = lim__sim_host(sim, "a"), .wait_ns = (int64_t)(3600 * SECOND) };
    s.poller = s.os->poller_open(s.os);
    lim__sim_task_add(sim, s.os, "sleeper", sleeper_turn, NULL, &s);
    lim__sim_at(sim, lim__sim_now(sim) + 5 * SECOND, wake_sleeper, &s);
    while (lim__sim_step(sim))
        ;
    assert_in_range(s.woke_at - s.asked_at, 4 * SECOND, 6 * SECOND);
    assert_in_range(s.turns, 2, 3);
    lim__sim_close(sim);
}

struct script_log {
    char order[8];
    unsigned count;
};
static void script_a(lim__sim *sim, void *ctx)
{
    struct script_log *log = ctx;
    (void)sim;
    log->order[log->count++] = 'a';
}
static void script_b(lim__sim *sim, void *ctx)
{
    struct script_log *log = ctx;
    log->order[log->count++] = 'b';
    lim__sim_at(sim, 0, script_a, ctx); /* the past */
}

static void test_scripts_run_in_order_of_time_then_of_call(void **state)
{
    (void)state;
    lim__sim *sim = lim__sim_open(1);
    struct script_log log = { 0 };
    uint64_t now = lim__sim_now(sim);
    lim__sim_at(sim, now + 20, script_a, &log);
    lim__sim_at(sim, now + 10, script_b, &log);
    lim__sim_at(sim, now + 20, script_b, &log);
    lim__sim_advance_to(sim, now + 15);
    assert_string_equal(log.order, "ba");
    assert_int_equal(lim__sim_now(sim), now + 15);
    lim__sim_advance_to(sim, now + 100);
    assert_string_equal(log.order, "baaba");
    assert_false(lim__sim_step(sim));
    lim__sim_close(sim);
}

struct counter {
    lim__sim *sim;
    lim__sim_task *task;
    unsigned turns, turns_max;
};
static bool counter_turn(void *ctx)
{
    struct counter *c = ctx;
    if (++c->turns == c->turns_max)
        lim__sim_task_remove(c->sim, c->task);
    return true;
}

static void test_busy_tasks_share_time_pass_it_and_can_leave(void **state)
{
    (void)state;
    lim__sim *sim = lim__sim_open(4);
    struct counter c[3] = { { .turns_max = 100000 }, { .turns_max = 50 }, { .turns_max = 100000 } };
    for (int i = 0; i < 3; i++) {
        c[i].sim = sim;
        c[i].task = lim__sim_task_add(sim, lim__sim_host(sim, "a"), "busy", counter_turn, NULL, &c[i]);
    }
    lim__sim_run(sim, lim__sim_now(sim) + 10 * MS, NULL, NULL);
    assert_int_equal(c[1].turns, 50);
    assert_true(c[0].turns > 10 && c[2].turns > 10);
    lim__sim_task_remove(sim, c[0].task);
    lim__sim_task_remove(sim, c[2].task);
    lim__sim_task_remove(sim, NULL);
    assert_false(lim__sim_step(sim));
    lim__sim_close(sim);
}

static void test_a_trace_prints_what_the_hash_saw(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    lim__sim *sim = lim__sim_open(4);
    lim__sim_trace(sim, out);
    lim__sim_note(sim, "hello %d", 7);
    lim__sim_trace(sim, NULL);
    fclose(out);
    assert_string_equal(text, "1.000000000 hello 7\n");
    assert_int_equal(lim__sim_hash(sim), lim__hash_bytes(lim__str("1.000000000 hello 7"), 4));
    assert_int_equal(lim__sim_seed(sim), 4);
    assert_ptr_equal(lim__sim_of(lim__sim_host(sim, "x")), sim);
    free(text);
    lim__sim_net net = lim__sim_net_get(sim);
    net.delay_max_ns = net.delay_min_ns;
    lim__sim_net_set(sim, &net);
    assert_int_not_equal(lim__rng_next(lim__sim_rng(sim)), lim__rng_next(lim__sim_rng(sim)));
    lim__sim_close(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_arrive_whole_and_in_order_under_every_seed),
        cmocka_unit_test(test_a_killed_program_s_bytes_arrive_and_then_an_end),
        cmocka_unit_test(test_a_dead_program_s_calls_change_nothing_and_a_new_one_takes_its_place),
        cmocka_unit_test(test_a_kill_can_come_at_any_call),
        cmocka_unit_test(test_a_cut_connection_times_out_if_it_asked_to),
        cmocka_unit_test(test_a_cut_connection_without_detectors_waits_and_goes_on_when_healed),
        cmocka_unit_test(test_a_short_cut_is_survived),
        cmocka_unit_test(test_an_end_that_was_given_up_is_reset_when_the_silence_is_over),
        cmocka_unit_test(test_power_loss_tells_nobody_until_the_machine_is_back),
        cmocka_unit_test(test_a_reset_ends_both_sides),
        cmocka_unit_test(test_nobody_listening_refuses_and_nobody_there_times_out),
        cmocka_unit_test(test_a_frozen_program_s_kernel_keeps_its_connection_until_its_window_is_full),
        cmocka_unit_test(test_a_reader_that_pauses_stops_the_writer_and_loses_nothing),
        cmocka_unit_test(test_the_clock_jumps_to_the_end_of_a_wait),
        cmocka_unit_test(test_a_wake_ends_a_wait_early_and_once),
        cmocka_unit_test(test_scripts_run_in_order_of_time_then_of_call),
        cmocka_unit_test(test_busy_tasks_share_time_pass_it_and_can_leave),
        cmocka_unit_test(test_a_trace_prints_what_the_hash_saw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
