/* SPDX-License-Identifier: Apache-2.0
 * sched_test.c - the order of a turn, sockets, flushes, budgets, idleness, the host's own loop. */
#include "actor/test_world.h"

#define MS 1000000ull

/* ---- sockets ---- */
typedef struct socketeer {
    puppet *p; /* first, as the puppet's state */
    lim__watch watch[2];
    lim__flush flush;
    uint32_t ready[2], flushed;
    struct socketeer *victim;
    int act; /* what on_ready does besides counting */
    lim_process *self;
} socketeer;
enum { ACT_NOTHING, ACT_CLEAR_OTHER, ACT_EXIT, ACT_EXIT_VICTIM, ACT_NARROW, ACT_SEND_MUCH };

static socketeer *socketeer_of(lim_process *p)
{
    return *(socketeer **)lim__proc_state(p);
}

static void on_ready(lim_process *owner, lim__watch *watch, uint32_t ready)
{
    socketeer *s = socketeer_of(owner);
    assert_ptr_equal(lim__sched_current(), lim__proc_sched(owner));
    assert_true(ready != 0 && (ready & ~watch->interest) == 0);
    s->ready[watch - s->watch]++;
    if (s->act == ACT_CLEAR_OTHER)
        assert_int_equal(lim__watch_set(owner, &s->watch[watch == s->watch], 0, 0), 0);
    if (s->act == ACT_NARROW)
        assert_int_equal(lim__watch_set(owner, &s->watch[1], s->watch[1].fd, LIM__IO_WRITE), 0);
    for (int i = 0; s->act == ACT_SEND_MUCH && i < LIM__INTAKE_MAX; i++)
        assert_int_equal(lim_send(owner, lim_self(owner), 3, lim__bytes(NULL, 0)), LIM_OK);
    if (s->act == ACT_EXIT)
        lim_exit(owner, LIM_LOST);
    if (s->act == ACT_EXIT_VICTIM && s->victim) {
        lim_exit(s->victim->self, LIM_REPLACED);
        s->victim = NULL;
    }
}

static void on_flush(lim_process *owner, lim__flush *flush)
{
    socketeer *s = socketeer_of(owner);
    s->flushed++;
    if (s->act == ACT_EXIT)
        lim_exit(owner, LIM_LOST);
    if (s->act == ACT_NARROW && s->flushed < 3)
        lim__flush_queue(owner, flush); /* more to write: next turn */
}

static void socketeer_signal(lim_process *self, const lim_signal *signal, void *state)
{
    socketeer *s = *(socketeer **)state;
    (void)signal;
    s->self = self;
    s->p->count++;
    if (signal->tag == 1)
        for (int i = 0; i < 2; i++) {
            s->watch[i].on_ready = on_ready;
            assert_int_equal(
                lim__watch_set(self, &s->watch[i], (int)s->p->log[0].tag + i, LIM__IO_READ | LIM__IO_WRITE), 0);
        }
    if (signal->tag == 2) {
        s->flush.run = on_flush;
        lim__flush_queue(self, &s->flush);
        lim__flush_queue(self, &s->flush); /* once per turn, however often it is asked for */
        if (s->victim)
            lim_exit(s->victim->self, LIM_REPLACED);
    }
}

static void socketeer_end(void *state, lim_reason reason)
{
    socketeer *s = *(socketeer **)state;
    s->p->ends++;
    s->p->end_reason = reason;
    assert_null(s->watch[0].prev); /* removed before the descriptors are closed here */
    assert_null(s->watch[1].prev);
}

static socketeer *socketeer_new(world *w, uint32_t first_fd)
{
    socketeer *s = calloc(1, sizeof *s);
    s->p = calloc(1, sizeof *s->p);
    s->p->log[0].tag = first_fd;
    lim_spawn_opts o = { .size = sizeof o,
                         .on_signal = socketeer_signal,
                         .on_end = socketeer_end,
                         .state_bytes = sizeof s,
                         .init = &s,
                         .init_bytes = sizeof s };
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &s->p->pid), LIM_OK);
    assert_int_equal(lim_runtime_send(w->rt, s->p->pid, 1, lim__bytes(NULL, 0)), LIM_OK);
    settle(w);
    assert_non_null(world_poller(w, 0)->ctx[first_fd]);
    return s;
}

static void socketeer_free(socketeer *s)
{
    free(s->p);
    free(s);
}

static void tell(world *w, socketeer *s, uint32_t tag)
{
    assert_int_equal(lim_runtime_send(w->rt, s->p->pid, tag, lim__bytes(NULL, 0)), LIM_OK);
}

static void make_ready(world *w, socketeer *s, int which)
{
    lim__poller *p = world_poller(w, 0);
    p->ready[p->ready_count++] = (lim__io_event){ .ctx = &s->watch[which], .ready = LIM__IO_READ | LIM__IO_WRITE };
}

static void test_a_watch_cleared_in_the_same_batch_does_not_fire(void **state)
{
    (void)state;
    world *w = world_open(1);
    socketeer *s = socketeer_new(w, 10);
    s->act = ACT_CLEAR_OTHER;
    make_ready(w, s, 0);
    make_ready(w, s, 1);
    settle(w);
    assert_int_equal(s->ready[0] + s->ready[1], 1);
    assert_null(world_poller(w, 0)->ctx[11]);
    world_close(w);
    assert_int_equal(s->p->ends, 1);
    socketeer_free(s);
}

static void test_a_watch_is_told_only_what_it_still_wants(void **state)
{
    (void)state;
    world *w = world_open(1);
    socketeer *s = socketeer_new(w, 10);
    s->act = ACT_NARROW;
    make_ready(w, s, 0);
    make_ready(w, s, 1);
    settle(w);
    assert_int_equal(s->ready[1], 1);
    assert_int_equal(s->watch[1].interest, LIM__IO_WRITE);
    world_close(w);
    socketeer_free(s);
}

static void test_a_watch_callback_may_end_its_process_or_another(void **state)
{
    (void)state;
    for (int act = ACT_EXIT; act <= ACT_EXIT_VICTIM; act++) {
        world *w = world_open(1);
        socketeer *a = socketeer_new(w, 10), *b = socketeer_new(w, 20);
        a->act = act;
        a->victim = b;
        make_ready(w, a, 0);
        make_ready(w, b, 0);
        make_ready(w, a, 1);
        tell(w, b, 3); /* the victim is in the run queue */
        settle(w);
        assert_int_equal(a->p->ends, act == ACT_EXIT);
        assert_int_equal(b->p->ends, act == ACT_EXIT_VICTIM);
        assert_int_equal(a->ready[1], act == ACT_EXIT ? 0 : 1);
        assert_int_equal(b->ready[0], act == ACT_EXIT ? 1 : 0);
        assert_int_equal(b->p->count, act == ACT_EXIT ? 2 : 1);
        assert_nothing_left(w, 1);
        world_close(w);
        socketeer_free(a), socketeer_free(b);
    }
}

/* And what is left of the batch is still struck when its watch goes. */
static void test_what_many_letters_came_of_is_acted_on_before_more_is_read(void **state)
{
    (void)state;
    world *w = world_open(1);
    socketeer *a = socketeer_new(w, 10), *b = socketeer_new(w, 20);
    a->act = ACT_SEND_MUCH;
    make_ready(w, a, 0);
    make_ready(w, a, 1);
    make_ready(w, b, 0);
    assert_true(step(w, 0)); /* it does not sleep on events */
    assert_int_equal(a->ready[0] + a->ready[1] + b->ready[0], 1);
    if (LIM__TURN_SIGNALS_MAX > LIM__INTAKE_MAX + 1)
        assert_int_equal(a->p->count, 1 + LIM__INTAKE_MAX);
    a->act = ACT_EXIT;
    settle(w);
    assert_int_equal(a->ready[0] + a->ready[1], 2);
    assert_int_equal(a->p->ends, 1);
    assert_int_equal(b->ready[0], 1);
    world_close(w);
    socketeer_free(a), socketeer_free(b);
}

static void test_a_descriptor_that_cannot_be_watched_is_an_error(void **state)
{
    (void)state;
    world *w = world_open(1);
    socketeer *s = socketeer_new(w, 10);
    lim__watch odd = { .on_ready = on_ready };
    lim__sched *outer = lim__sched_enter(lim__sched_at(w->rt, 0));
    assert_int_equal(lim__watch_set(s->self, &odd, 1000, LIM__IO_READ), -EBADF);
    assert_int_equal(lim__watch_set(s->self, &odd, 1000, 0), 0);
    assert_int_equal(lim__watch_set(s->self, &s->watch[0], 12, LIM__IO_READ), 0); /* another descriptor */
    assert_null(world_poller(w, 0)->ctx[10]);
    assert_non_null(world_poller(w, 0)->ctx[12]);
    lim__sched_leave(outer);
    world_close(w);
    socketeer_free(s);
}

/* ---- flushes ---- */
static void test_a_flush_runs_once_at_the_end_of_the_turn(void **state)
{
    (void)state;
    world *w = world_open(1);
    socketeer *s = socketeer_new(w, 10);
    tell(w, s, 2);
    tell(w, s, 2);
    (void)step(w, 0);
    assert_int_equal(s->flushed, 1);
    s->act = ACT_NARROW; /* asks for more: one per turn */
    tell(w, s, 2);
    assert_true(step(w, 0));
    assert_int_equal(s->flushed, 2);
    assert_false(step(w, 0));
    assert_int_equal(s->flushed, 3);
    s->act = ACT_EXIT;
    tell(w, s, 2);
    settle(w);
    assert_int_equal(s->p->end_reason, LIM_LOST);
    assert_nothing_left(w, 0);
    world_close(w);
    socketeer_free(s);
}

static void test_a_flush_of_a_process_that_ended_does_not_run(void **state)
{
    (void)state;
    world *w = world_open(1);
    socketeer *a = socketeer_new(w, 10), *b = socketeer_new(w, 20), *c = socketeer_new(w, 30);
    tell(w, b, 2);
    tell(w, c, 2);
    a->victim = b;
    tell(w, a, 2);
    settle(w);
    assert_int_equal(b->p->ends, 1);
    assert_int_equal(b->flushed, 0);
    assert_int_equal(a->flushed + c->flushed, 2);
    world_close(w);
    socketeer_free(a), socketeer_free(b), socketeer_free(c);
}

/* ---- the turn ---- */
static void do_forward_inbox(lim_process *self, puppet *p, void *other)
{
    do_hello(self, p, other);
}

static void test_one_turn_carries_a_message_from_inbox_to_the_other_schedulers_inbox(void **state)
{
    (void)state;
    world *w = world_open(2);
    puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, 1, false);
    settle(w);
    act(w, a, do_forward_inbox, b);
    assert_true(world_poller(w, 0)->woken);
    (void)step(w, 0);
    assert_true(world_poller(w, 1)->woken); /* a sleeping scheduler is woken, once */
    assert_int_equal(b->count, 0);
    (void)step(w, 1);
    assert_int_equal(b->count, 1);
    world_close(w);
    free(a), free(b);
}

static void spinner_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal;
    ++**(uint64_t **)state;
    assert_int_equal(lim_send(self, lim_self(self), 0, lim__bytes(NULL, 0)), LIM_OK);
}

static void test_busy_processes_share_and_a_ping_waits_one_slice_each(void **state) /* R10, proves RT10 */
{
    (void)state;
    enum { SPINNERS = 8 };
    world *w = world_open(1);
    uint64_t runs[SPINNERS] = { 0 };
    for (uint32_t i = 0; i < SPINNERS; i++) {
        uint64_t *counter = &runs[i];
        lim_spawn_opts o = { .size = sizeof o,
                             .on_signal = spinner_on_signal,
                             .state_bytes = sizeof counter,
                             .init = &counter,
                             .init_bytes = sizeof counter };
        lim_pid pid;
        assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_OK);
        assert_int_equal(lim_runtime_send(w->rt, pid, 0, lim__bytes(NULL, 0)), LIM_OK);
    }
    for (int i = 0; i < 100; i++)
        assert_true(step(w, 0));
    for (uint32_t i = 1; i < SPINNERS; i++)
        assert_true(runs[i] + LIM__SLICE_SIGNALS_MAX >= runs[0] && runs[0] + LIM__SLICE_SIGNALS_MAX >= runs[i]);
    puppet *ping = puppet_new(w, 0, false);
    uint64_t before = runs[0];
    act(w, ping, do_hello, ping);
    while (ping->count == 0)
        (void)step(w, 0);
    /* dealt at the start of a turn, and then at most two slices of everybody before the hello is read */
    assert_true(runs[0] - before <= LIM__TURN_SIGNALS_MAX / SPINNERS + 2 * LIM__SLICE_SIGNALS_MAX);
    world_close(w);
    free(ping);
}

/* ---- pings from other threads while eight are busy ---- */
enum { BUSY = 8, PINGS = 1000, PING_EVERY = 997 };
typedef struct crowd {
    world *w;
    lim_pid pinged;
    uint64_t handled, sent_at, waits[PINGS];
    uint32_t count;
} crowd;

static void busy_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    crowd *c = *(crowd **)state;
    (void)signal;
    assert_int_equal(lim_send(self, lim_self(self), 0, lim__bytes(NULL, 0)), LIM_OK);
    if (++c->handled % PING_EVERY != 0 || c->sent_at != 0)
        return;
    c->sent_at = c->handled;
    lim__sched *here = lim__sched_enter(NULL); /* in the middle of a turn another thread sends */
    assert_int_equal(lim_runtime_send(c->w->rt, c->pinged, 0, lim__bytes(NULL, 0)), LIM_OK);
    lim__sched_leave(here);
}

static void pinged_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    crowd *c = *(crowd **)state;
    (void)self, (void)signal;
    if (c->count < PINGS)
        c->waits[c->count++] = c->handled - c->sent_at;
    c->sent_at = 0;
}

static lim_pid join_crowd(crowd *c, lim_on_signal *on_signal, uint32_t letters)
{
    lim_spawn_opts o = {
        .size = sizeof o, .on_signal = on_signal, .state_bytes = sizeof c, .init = &c, .init_bytes = sizeof c
    };
    lim_pid pid;
    assert_int_equal(lim_runtime_spawn(c->w->rt, &o, &pid), LIM_OK);
    for (uint32_t i = 0; i < letters; i++)
        assert_int_equal(lim_runtime_send(c->w->rt, pid, 0, lim__bytes(NULL, 0)), LIM_OK);
    return pid;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_the_p99_of_a_ping_is_under_queue_length_times_slice(void **state) /* R10, proves RT10 */
{
    (void)state;
    crowd *c = calloc(1, sizeof *c);
    c->w = world_open(1);
    c->pinged = join_crowd(c, pinged_on_signal, 0);
    for (uint32_t i = 0; i < BUSY; i++)
        (void)join_crowd(c, busy_on_signal, 1000); /* each could fill many slices */
    while (c->count < PINGS)
        (void)step(c->w, 0);
    qsort(c->waits, PINGS, sizeof c->waits[0], by_size);
    uint64_t look_around = LIM__LOOKS_PER_PUSH * LIM__SIGNALS_PER_LOOK; /* until the turn ends for what came in */
    assert_true(c->waits[PINGS * 99 / 100] <= BUSY * LIM__SLICE_SIGNALS_MAX + look_around);
    assert_true(c->waits[PINGS - 1] <= (BUSY + 1) * LIM__SLICE_SIGNALS_MAX + look_around);
    world_close(c->w);
    free(c);
}

/* ---- the same while eight send floods ---- each call is more than a slice may send */
enum { FLOOD_LETTERS = 40, FLOOD_BYTES = 2048, FLOOD_PINGS = 200, PING_EVERY_CALL = 7 };
static_assert(FLOOD_LETTERS * FLOOD_BYTES > LIM__SLICE_OUTPUT_MAX, "a flood is more than a slice may send");
typedef struct flooder {
    crowd *c;
    lim_pid sink;
} flooder;

static void sink_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)signal, (void)state;
}

static void flood_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    static const char body[FLOOD_BYTES];
    const flooder *f = state;
    crowd *c = f->c;
    (void)signal;
    assert_int_equal(lim_send(self, lim_self(self), 0, lim__bytes(NULL, 0)), LIM_OK);
    for (uint32_t i = 0; i < FLOOD_LETTERS; i++)
        assert_int_equal(lim_send(self, f->sink, 0, lim__bytes(body, sizeof body)), LIM_OK);
    if (++c->handled % PING_EVERY_CALL != 0 || c->sent_at != 0)
        return;
    c->sent_at = c->handled;
    lim__sched *here = lim__sched_enter(NULL);
    assert_int_equal(lim_runtime_send(c->w->rt, c->pinged, 0, lim__bytes(NULL, 0)), LIM_OK);
    lim__sched_leave(here);
}

static void join_flooder(crowd *c)
{
    lim_spawn_opts o = { .size = sizeof o, .on_signal = sink_on_signal, .mailbox_max = 1 << 20 };
    flooder f = { .c = c };
    lim_pid pid;
    assert_int_equal(lim_runtime_spawn(c->w->rt, &o, &f.sink), LIM_OK);
    o = (lim_spawn_opts){
        .size = sizeof o, .on_signal = flood_on_signal, .state_bytes = sizeof f, .init = &f, .init_bytes = sizeof f
    };
    assert_int_equal(lim_runtime_spawn(c->w->rt, &o, &pid), LIM_OK);
    for (uint32_t i = 0; i < 50; i++) /* without a bound on output: so many calls in its slice */
        assert_int_equal(lim_runtime_send(c->w->rt, pid, 0, lim__bytes(NULL, 0)), LIM_OK);
}

static void test_who_floods_yields_after_each_call(void **state) /* R10, proves RT10 */
{
    (void)state;
    crowd *c = calloc(1, sizeof *c);
    c->w = world_open(1);
    c->pinged = join_crowd(c, pinged_on_signal, 0);
    for (uint32_t i = 0; i < BUSY; i++)
        join_flooder(c);
    while (c->count < FLOOD_PINGS)
        (void)step(c->w, 0);
    qsort(c->waits, FLOOD_PINGS, sizeof c->waits[0], by_size);
    /* in calls: those until the turn ends for what came in, then one of each */
    assert_true(c->waits[FLOOD_PINGS - 1] <= BUSY + LIM__LOOKS_PER_PUSH + 1);
    world_close(c->w);
    free(c);
}

static void do_send_too_much(lim_process *self, puppet *p, void *sink)
{
    static const char body[1 << 20];
    for (int i = 0; i < 5; i++)
        p->err = lim_send(self, *(lim_pid *)sink, 0, lim__bytes(body, sizeof body));
}

static void note_overrun(void *ctx, const lim_overrun *o)
{
    *(lim_overrun *)ctx = *o;
}

static void test_a_handler_that_sends_too_much_is_an_overrun(void **state) /* proves RT10 RT11 */
{
    (void)state;
    world *w = world_open(1);
    lim_runtime_close(w->rt);
    lim_overrun told = { 0 };
    lim__runtime_opts opts = { .os = &w->os, .scheduler_count = 1, .on_overrun = note_overrun, .ctx = &told };
    assert_int_equal(lim__runtime_open(&opts, &w->rt), LIM_OK);
    puppet *a = puppet_new(w, 0, false), *before = puppet_new(w, 0, false), *sink = puppet_new(w, 0, false);
    act(w, before, do_hello, sink);
    act(w, a, do_send_too_much, &sink->pid);
    settle(w);
    assert_int_equal(a->err, LIM_OK);
    assert_int_equal(told.pid.id, a->pid.id);
    assert_string_equal(told.name, "puppet");
    assert_int_equal(told.suspects, 1);
    assert_true(told.output_bytes > LIM__CALL_OUTPUT_MAX);
    lim_census c;
    lim_runtime_census(w->rt, &c);
    assert_int_equal(c.overruns, 1);
    world_close(w);
    free(a), free(before), free(sink);
}

static void do_slowly(lim_process *self, puppet *p, void *arg)
{
    p->count++;
    assert_true(lim_now_ns(self) <= ((world *)arg)->now_ns); /* the turn's start, not this moment */
    ((world *)arg)->now_ns += 50000;
}

static void test_a_turn_is_bounded_in_time_and_not_only_in_signals(void **state) /* proves RT10 */
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    for (int i = 0; i < 200; i++)
        act(w, a, do_slowly, w);
    uint32_t before = 0, turns = 0;
    while (step(w, 0)) {
        assert_true(a->count - before <= 32);
        before = a->count;
        turns++;
    }
    assert_int_equal(a->count, 200);
    assert_true(turns >= 200 / 32);
    world_close(w);
    free(a);
}

static void test_an_idle_scheduler_sleeps_without_limit(void **state) /* R12, proves RT10 */
{
    (void)state;
    world *w = world_open(1);
    puppet *p[50];
    for (uint32_t i = 0; i < 50; i++) {
        p[i] = puppet_new(w, 0, true);
        act(w, p[i], do_link, p[0]);
        act(w, p[i], do_monitor, p[0]);
    }
    settle(w);
    lim__sched *s = lim__sched_at(w->rt, 0);
    uint64_t blocked = world_poller(w, 0)->blocked;
    assert_false(lim__sched_turn(s, -1));
    assert_int_equal(world_poller(w, 0)->last_timeout_ns, -1);
    assert_int_equal(world_poller(w, 0)->blocked, blocked + 1);
    assert_int_equal(lim__sched_next_due_ns(s), UINT64_MAX);
    world_close(w);
    for (uint32_t i = 0; i < 50; i++)
        free(p[i]);
}

static void do_sleep(lim_process *self, puppet *p, void *arg)
{
    (void)arg;
    p->err = lim_timer_start(self, 7 * MS, 0, &p->ref);
}

static void test_a_scheduler_sleeps_exactly_until_its_next_timer(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    act(w, a, do_sleep, NULL);
    settle(w);
    lim__sched *s = lim__sched_at(w->rt, 0);
    w->now_ns += 2 * MS;
    (void)lim__sched_turn(s, -1);
    assert_int_equal(world_poller(w, 0)->last_timeout_ns, 5 * MS);
    (void)lim__sched_turn(s, 3 * MS);
    assert_int_equal(world_poller(w, 0)->last_timeout_ns, 3 * MS);
    w->now_ns += 50 * MS;
    (void)lim__sched_turn(s, -1);
    assert_int_equal(world_poller(w, 0)->last_timeout_ns, 0);
    assert_int_equal(a->count, 1);
    world_close(w);
    free(a);
}

/* ---- quiet ---- */
typedef struct quiet {
    lim_runtime *rt;
    lim__quiet_stamp stamp;
    bool at_once, after;
} quiet;

static void do_stamp(lim_process *self, puppet *p, void *arg)
{
    (void)self, (void)p;
    quiet *q = arg;
    lim__quiet_stamp_take(q->rt, &q->stamp);
    q->at_once = lim__quiet_since(q->rt, &q->stamp);
}

static void test_quiet_is_when_every_turn_that_was_under_way_has_ended(void **state)
{
    (void)state;
    world *w = world_open(2);
    puppet *a = puppet_new(w, 0, false);
    quiet q = { .rt = w->rt };
    act(w, a, do_stamp, &q);
    (void)step(w, 0);
    assert_false(q.at_once); /* inside a turn: that turn may hold what it loaded */
    assert_true(lim__quiet_since(w->rt, &q.stamp));
    lim__quiet_stamp_take(w->rt, &q.stamp); /* nobody is in a turn */
    assert_true(lim__quiet_since(w->rt, &q.stamp));
    world_close(w);
    free(a);
}

/* ---- as whom ---- */
static void do_look(lim_process *self, puppet *p, void *other)
{
    lim__sched *s = lim__proc_sched(self);
    lim_process *found = lim__local_process(s, ((puppet *)other)->pid);
    p->err = found ? LIM_OK : LIM_E_GONE;
    if (found) {
        assert_int_equal(lim_self(found).id, ((puppet *)other)->pid.id);
        lim_exit(found, LIM_LEFT);
        assert_null(lim__local_process(s, ((puppet *)other)->pid));
    }
}

static void test_a_process_is_local_only_on_its_scheduler_and_while_it_lives(void **state)
{
    (void)state;
    world *w = world_open(2);
    puppet *a = puppet_new(w, 0, false), *near = puppet_new(w, 0, false), *far = puppet_new(w, 1, false);
    act(w, a, do_look, far);
    settle(w);
    assert_int_equal(a->err, LIM_E_GONE);
    act(w, a, do_look, near);
    settle(w);
    assert_int_equal(a->err, LIM_OK);
    assert_int_equal(near->end_reason, LIM_LEFT);
    act(w, a, do_look, near);
    settle(w);
    assert_int_equal(a->err, LIM_E_GONE);
    world_close(w);
    free(a), free(near), free(far);
}

/* ---- busy ---- */
static void do_work(lim_process *self, puppet *p, void *arg)
{
    (void)self, (void)p;
    ((world *)arg)->now_ns += 400 * MS;
}

static void test_busy_is_the_share_of_the_last_second(void **state)
{
    (void)state;
    world *w = world_open(1);
    lim__sched *s = lim__sched_at(w->rt, 0);
    puppet *a = puppet_new(w, 0, false);
    settle(w);
    for (int i = 0; i < 5; i++) {
        act(w, a, do_work, w);
        (void)lim__sched_turn(s, -1);
        w->now_ns += 600 * MS;
        (void)lim__sched_turn(s, -1);
    }
    assert_in_range(lim__sched_busy_permille(s), 300, 500);
    w->now_ns += 5000 * MS;
    assert_int_equal(lim__sched_busy_permille(s), 0);
    world_close(w);
    free(a);
}

/* ---- the host's own loop, on the real system ---- */
static void test_the_host_can_turn_the_runtime_in_its_own_loop(void **state)
{
    (void)state;
    lim_runtime *rt;
    lim_runtime_opts opts = { .size = sizeof opts, .scheduler_count = 2, .own_loop = true };
    assert_int_equal(lim_runtime_open(&opts, &rt), LIM_E_MISUSE);
    opts.scheduler_count = 0;
    assert_int_equal(lim_runtime_open(&opts, &rt), LIM_E_MISUSE);
    opts.scheduler_count = 1;
    assert_int_equal(lim_runtime_open(&opts, &rt), LIM_OK);
    assert_true(lim_runtime_fd(rt) >= 0);
    assert_int_equal(lim_runtime_wait_ms(rt), -1);
    world w = { .rt = rt, .schedulers = 1 };
    puppet *a = puppet_new(&w, 0, false);
    act(&w, a, do_sleep, NULL);
    act(&w, a, do_hello, a);
    while (a->count < 2) {
        assert_true(lim_runtime_wait_ms(rt) <= 8);
        assert_int_equal(lim_runtime_turn(rt, -1), LIM_OK);
    }
    assert_signal(a, 1, LIM_SIGNAL_TIMER, LIM_REASON_NONE);
    lim_runtime_close(rt);
    assert_int_equal(a->end_reason, LIM_KILLED);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_watch_cleared_in_the_same_batch_does_not_fire),
        cmocka_unit_test(test_a_watch_is_told_only_what_it_still_wants),
        cmocka_unit_test(test_a_watch_callback_may_end_its_process_or_another),
        cmocka_unit_test(test_what_many_letters_came_of_is_acted_on_before_more_is_read),
        cmocka_unit_test(test_a_descriptor_that_cannot_be_watched_is_an_error),
        cmocka_unit_test(test_a_flush_runs_once_at_the_end_of_the_turn),
        cmocka_unit_test(test_a_flush_of_a_process_that_ended_does_not_run),
        cmocka_unit_test(test_one_turn_carries_a_message_from_inbox_to_the_other_schedulers_inbox),
        cmocka_unit_test(test_busy_processes_share_and_a_ping_waits_one_slice_each),
        cmocka_unit_test(test_the_p99_of_a_ping_is_under_queue_length_times_slice),
        cmocka_unit_test(test_who_floods_yields_after_each_call),
        cmocka_unit_test(test_a_handler_that_sends_too_much_is_an_overrun),
        cmocka_unit_test(test_a_turn_is_bounded_in_time_and_not_only_in_signals),
        cmocka_unit_test(test_an_idle_scheduler_sleeps_without_limit),
        cmocka_unit_test(test_a_scheduler_sleeps_exactly_until_its_next_timer),
        cmocka_unit_test(test_quiet_is_when_every_turn_that_was_under_way_has_ended),
        cmocka_unit_test(test_a_process_is_local_only_on_its_scheduler_and_while_it_lives),
        cmocka_unit_test(test_busy_is_the_share_of_the_last_second),
        cmocka_unit_test(test_the_host_can_turn_the_runtime_in_its_own_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
