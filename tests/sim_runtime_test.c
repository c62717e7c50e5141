/* SPDX-License-Identifier: Apache-2.0
 * sim_runtime_test.c - the runtime alone in simulated worlds: random programs on two or three schedulers whose turns
 * are ordered by the seed, against a small model of what may and what must happen.
 *
 *      host: spawns, sends, kills                    actors: each message is an order drawn from the seed: send, link,
 *        |                                           unlink, monitor, demonitor, timers, requests, spawn, exit, kill
 *        `--> schedulers 0..2, turned by lim__sim       |
 *                                                       `--> each signal seen is checked and becomes a line of history
 *
 * The rules:
 *   M1  of what one sender sent to one receiver, each is seen at most once, in order; all of it if the receiver lives
 *       on (RT2, RT3). Exits sent by hand are numbered like messages.
 *   M2  nothing of a sender is seen after the exit or down that told of its end (RT3).
 *   M3  an exit of a link is seen once per link, never after unlink, and surely if the link held (RT4). Who links whom
 * is chosen so that the model knows: only the actor with the lower number links and unlinks. M4  one DOWN per monitor
 * that was not taken back, none for one that was (RT6). M5  a timer is never early, fires once or was cancelled, and
 * never both (R18). M6  a request is answered once (RT9). M7  a process id is given out once (RT1). M8  when nothing is
 * left to do nothing waits in an inbox; when all have gone the census is zero (RT12). M9  the same seed gives the same
 * history (RT13).
 *
 * In every fourth world memory is short: now and then an allocation fails, and what was refused must not have happened.
 *
 * LIM_SEEDS worlds from LIM_SEED on; with LIM_SEED the history is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actor/internal.h"
#include "sim/sim_os.h"

enum { ACTORS_MAX = 96, FIRST = 12, REFS = 8, STEPS = 500, LIVES = 1100, SCHEDULERS_MAX = 3, PIDS_MAX = 16384 };
enum { ORDER = 1, NUMBERED, QUESTION };
#define MS 1000000ull

typedef enum ref_kind { NONE = 0, MONITOR, TIMER, REQUEST } ref_kind;
typedef struct ref { /* something that an actor waits for, or took back */
    ref_kind kind;
    uint64_t number, due_ns;
    uint32_t other, seen;
    bool taken_back;
} ref;

typedef struct actor {
    uint32_t index;
    lim_pid pid;
    bool born, ended, traps;
    uint32_t life_refs;
    ref refs[REFS];
    uint32_t sent[ACTORS_MAX + 1]; /* to each receiver, by this one; receivers by index, ACTORS_MAX: nobody */
    uint32_t seen[ACTORS_MAX + 1]; /* from each sender; ACTORS_MAX: the host */
    bool told_of_end[ACTORS_MAX];  /* by an exit or a down */
    bool linked[ACTORS_MAX];       /* by this one, and not unlinked since */
    uint32_t link_calls[ACTORS_MAX], link_exits[ACTORS_MAX];
} actor;

typedef struct world {
    lim__sim *sim;
    lim__os *os;
    lim_runtime *rt;
    uint32_t schedulers, count, steps;
    actor actors[ACTORS_MAX];
    uint32_t host_sent[ACTORS_MAX];
    uint64_t pids[PIDS_MAX]; /* open addressing */
    uint32_t lives;
    bool over, poor; /* poor: allocations fail */
    const char *broken;
} world;

static world *the; /* one at a time */

static uint64_t pick(uint64_t below)
{
    return lim__rng_below(lim__sim_rng(the->sim), below);
}

static void rule(bool holds, const char *what)
{
    if (!holds && !the->broken) {
        the->broken = what;
        lim__sim_note(the->sim, "BROKEN %s", what);
    }
}

static void pid_is_new(lim_pid pid)
{
    size_t at = (size_t)(pid.id * 0x9e3779b97f4a7c15ull >> 50);
    while (the->pids[at] && the->pids[at] != pid.id)
        at = (at + 1) % PIDS_MAX;
    rule(!the->pids[at], "M7: a process id was given out twice");
    the->pids[at] = pid.id;
}

static actor *by_pid(lim_pid pid)
{
    for (uint32_t i = 0; pid.id && i < the->count; i++)
        if (the->actors[i].pid.id == pid.id)
            return &the->actors[i];
    return NULL;
}

static ref *ref_of(actor *a, ref_kind kind, uint64_t number)
{
    for (uint32_t i = 0; i < REFS; i++)
        if (a->refs[i].kind == kind && a->refs[i].number == number)
            return &a->refs[i];
    return NULL;
}

static ref *ref_free(actor *a)
{
    for (uint32_t i = 0; i < REFS; i++)
        if (a->refs[i].kind == NONE || a->refs[i].seen || a->refs[i].taken_back)
            return &a->refs[i];
    return NULL;
}

/* ---- what is seen ---- */
static void number_seen(actor *a, uint32_t sender, uint32_t number)
{
    rule(number == a->seen[sender] + 1, "M1: a message is missing, doubled or out of order");
    rule(sender == ACTORS_MAX || !a->told_of_end[sender], "M2: a message was seen after its sender's end");
    a->seen[sender] = number;
}

/* The reason of an exit sent by hand; who dies of it passes it on, so it says from whom to whom it was sent. */
static lim_reason by_hand(const actor *from, const actor *to, uint32_t number)
{
    return (lim_reason)(LIM_REASON_USER + (((from->index << 7) | to->index) << 16) + number);
}

static void exit_seen(actor *a, const lim_signal *s)
{
    actor *from = by_pid(s->from);
    if (!from)
        return;
    if (s->reason > LIM_REASON_USER &&
        (s->reason - LIM_REASON_USER) >> 16 == (by_hand(from, a, 0) - LIM_REASON_USER) >> 16) {
        number_seen(a, from->index, (uint32_t)(s->reason - LIM_REASON_USER) & 0xffff);
        return;
    }
    uint32_t i = from->index;
    rule(++a->link_exits[i] <= a->link_calls[i] + from->link_calls[a->index], "M3: more exits than links");
    rule(a->linked[i] || from->link_calls[a->index], "M3: an exit after unlink");
    rule(s->reason == LIM_NOPROC || !a->told_of_end[i] || a->linked[i], "M3: an end was told twice");
    a->linked[i] = false;
    a->told_of_end[i] = true;
}

static void ref_seen(actor *a, ref_kind kind, const lim_signal *s, uint64_t now)
{
    ref *r = ref_of(a, kind, s->ref);
    rule(r != NULL, "M4-M6: an answer that nobody waits for");
    if (!r)
        return;
    rule(!r->taken_back, "M4-M5: seen after it was taken back");
    rule(++r->seen == 1, "M4-M6: seen twice");
    rule(kind != TIMER || now >= r->due_ns, "M5: a timer fired early");
    if (kind == MONITOR)
        a->told_of_end[r->other] = true;
}

/* ---- what is done ---- */
static void on_signal(lim_process *self, const lim_signal *signal, void *state);

static void on_end(void *state, lim_reason reason)
{
    actor *a = *(actor **)state;
    lim__sim_note(the->sim, "%u ends %s", a->index, lim_reason_text(reason));
    rule(!a->ended, "P2: ended twice");
    a->ended = true;
}

/* True: it was done. No memory is an answer only where memory is short. */
static bool done(lim_err err)
{
    rule(err == LIM_OK || err == LIM_E_GONE || (err == LIM_E_NOMEM && the->poor), "an operation failed");
    return err == LIM_OK;
}

static actor *actor_new(lim_process *self, uint32_t scheduler)
{
    if (the->count == ACTORS_MAX)
        return NULL;
    actor *a = &the->actors[the->count];
    *a = (actor){ .index = the->count, .traps = pick(4) != 0 };
    lim_spawn_opts o = { .size = sizeof o,
                         .on_signal = on_signal,
                         .on_end = on_end,
                         .state_bytes = sizeof a,
                         .init = &a,
                         .init_bytes = sizeof a,
                         .mailbox_max = 1 << 20,
                         .trap_exit = a->traps,
                         .place = true,
                         .scheduler = scheduler };
    if (!done(self ? lim_spawn(self, &o, &a->pid) : lim_runtime_spawn(the->rt, &o, &a->pid)))
        return NULL;
    pid_is_new(a->pid);
    a->born = true;
    the->count++;
    return a;
}

/* A life of one message, so that slots are used again. */
static void on_brief(lim_process *self, const lim_signal *signal, void *state)
{
    (void)signal, (void)state;
    lim_exit(self, LIM_NORMAL);
}

static void live_briefly(void)
{
    lim_spawn_opts o = { .size = sizeof o, .on_signal = on_brief, .place = true };
    lim_pid pid;
    if (!done(lim_runtime_spawn(the->rt, &o, &pid)))
        return;
    pid_is_new(pid);
    if (!done(lim_runtime_send(the->rt, pid, 0, lim__bytes(NULL, 0))))
        (void)!lim_runtime_exit(the->rt, pid, LIM_KILL);
}

static void send_number(lim_process *self, actor *a, actor *to)
{
    uint32_t number = a->sent[to->index] + 1;
    if (pick(4) == 0) { /* an exit in the same order; who does not trap dies of it */
        if (lim_exit_process(self, to->pid, by_hand(a, to, number)) == LIM_OK)
            a->sent[to->index] = number;
        return;
    }
    if (done(lim_send(self, to->pid, NUMBERED, lim__bytes(&number, sizeof number))))
        a->sent[to->index] = number;
}

static void link_or_unlink(lim_process *self, actor *a, actor *b, bool link)
{
    if (a->index >= b->index) /* M3 */
        return;
    if (link && done(lim_link(self, b->pid))) {
        a->link_calls[b->index] += a->linked[b->index] ? 0 : 1;
        a->linked[b->index] = true;
    } else if (!link) {
        lim_unlink(self, b->pid);
        a->linked[b->index] = false;
    }
}

static void wait_for(lim_process *self, actor *a, actor *b, uint64_t dice)
{
    ref *r = ref_free(a);
    lim_err err = LIM_OK;
    if (!r)
        return;
    *r = (ref){ .other = b->index };
    if (dice == 0) {
        uint64_t delay = pick(20 * MS);
        r->due_ns = lim__sim_now(the->sim) + delay;
        err = lim_timer_start(self, delay, 0, &r->number);
        r->kind = TIMER;
    } else if (dice == 1) {
        err = lim_monitor(self, b->pid, &r->number);
        r->kind = MONITOR;
    } else if (a != b) {
        err = lim_request(self, b->pid, QUESTION, lim__bytes(NULL, 0), 1 + (int64_t)pick(20), &r->number);
        r->kind = REQUEST;
    }
    if (!done(err))
        r->kind = NONE;
}

static void take_back(lim_process *self, actor *a)
{
    ref *r = &a->refs[pick(REFS)];
    if (r->kind == MONITOR) {
        lim_demonitor(self, r->number);
        r->taken_back = !r->seen;
    } else if (r->kind == TIMER && !r->taken_back) {
        bool won = lim_timer_cancel(self, r->number);
        rule(won == !r->seen, "M5: cancel neither won nor lost");
        r->taken_back = won;
    }
}

static void act(lim_process *self, actor *a)
{
    actor *b = &the->actors[pick(the->count)];
    uint64_t dice = pick(64);
    if (dice < 20)
        send_number(self, a, b);
    else if (dice < 32)
        link_or_unlink(self, a, b, dice < 26);
    else if (dice < 50)
        wait_for(self, a, b, dice % 3);
    else if (dice < 56)
        take_back(self, a);
    else if (dice < 58)
        (void)actor_new(self, (uint32_t)pick(the->schedulers));
    else if (dice == 58)
        lim_exit(self, pick(2) ? LIM_NORMAL : LIM_FAULT);
    else if (dice == 59)
        (void)!lim_exit_process(self, b->pid, LIM_KILL);
}

static void on_signal(lim_process *self, const lim_signal *s, void *state)
{
    actor *a = *(actor **)state, *from = by_pid(s->from);
    uint32_t sender = from ? from->index : ACTORS_MAX, number = 0;
    if (s->body.len == sizeof number)
        memcpy(&number, s->body.ptr, sizeof number);
    lim__sim_note(the->sim, "%u sees %d of %u tag %u number %u %s", a->index, (int)s->kind, sender, s->tag, number,
                  lim_reason_text(s->reason));
    rule(!a->ended, "a signal after the end");
    switch (s->kind) {
    case LIM_SIGNAL_MESSAGE:
        if (s->tag == NUMBERED || s->tag == ORDER)
            number_seen(a, sender, number);
        if (s->tag == QUESTION && pick(3) != 0)
            (void)!lim_respond(self, s, lim__bytes(NULL, 0));
        if (!the->over)
            act(self, a);
        break;
    case LIM_SIGNAL_EXIT:
        exit_seen(a, s);
        break;
    case LIM_SIGNAL_DOWN:
        ref_seen(a, MONITOR, s, lim__sim_now(the->sim));
        break;
    case LIM_SIGNAL_TIMER:
        ref_seen(a, TIMER, s, lim_now_ns(self));
        break;
    case LIM_SIGNAL_RESPONSE:
        ref_seen(a, REQUEST, s, lim__sim_now(the->sim));
        break;
    }
}

/* ---- the script ---- */
static void host_step(lim__sim *sim, void *ctx)
{
    (void)ctx;
    if (the->poor && pick(4) == 0)
        lim__alloc_fail_at(1 + pick(30));
    for (uint64_t n = 1 + pick(4); n > 0; n--) {
        actor *a = &the->actors[pick(the->count)];
        uint32_t number = the->host_sent[a->index] + 1;
        the->host_sent[a->index] += done(lim_runtime_send(the->rt, a->pid, ORDER, lim__bytes(&number, sizeof number)));
    }
    if (pick(64) == 0)
        (void)!lim_runtime_exit(the->rt, the->actors[pick(the->count)].pid, LIM_KILL);
    for (uint32_t n = 0; n < 3 && the->lives < LIVES; n++, the->lives++)
        live_briefly();
    if (pick(16) == 0)
        (void)actor_new(NULL, (uint32_t)pick(the->schedulers));
    if (++the->steps < STEPS)
        lim__sim_at(sim, lim__sim_now(sim) + pick(MS / 4), host_step, NULL);
}

static bool turn(void *ctx)
{
    return lim__sched_turn(ctx, -1);
}

static uint64_t due(void *ctx)
{
    return lim__sched_next_due_ns(ctx);
}

static void check_end_of_storm(void)
{
    for (uint32_t i = 0; i < the->schedulers; i++)
        rule(atomic_load(&lim__sched_at(the->rt, i)->inbox) == NULL, "M8: letters wait and nobody was woken");
    for (uint32_t i = 0; i < the->count; i++) {
        actor *a = &the->actors[i];
        if (a->ended)
            continue;
        rule(a->seen[ACTORS_MAX] == the->host_sent[i], "M1: the host's messages were lost");
        for (uint32_t k = 0; k < the->count; k++) {
            rule(a->seen[k] == the->actors[k].sent[i] || !a->traps, "M1: messages were lost");
            rule(!(a->linked[k] && the->actors[k].ended && a->traps), "M3: a link did not tell");
        }
        for (uint32_t k = 0; k < REFS; k++) {
            const ref *r = &a->refs[k];
            bool owed = r->kind == TIMER || r->kind == REQUEST || (r->kind == MONITOR && the->actors[r->other].ended);
            rule(!owed || r->seen || r->taken_back, "M4-M6: something was not told");
        }
    }
}

static void check_nothing_left(void)
{
    lim_census c;
    lim_runtime_census(the->rt, &c);
    rule(c.processes == 0, "M8: processes are left");
    rule(c.links == 0, "M8: links are left");
    rule(c.monitors == 0, "M8: monitors are left");
    rule(c.timers == 0, "M8: timers are left");
    rule(c.messages == 0 && c.letter_bytes == 0, "M8: messages are left");
}

static uint64_t world_run(uint64_t seed, FILE *trace)
{
    world *w = the = calloc(1, sizeof *w);
    assert_non_null(w);
    w->sim = lim__sim_open(seed);
    lim__sim_trace(w->sim, trace);
    w->os = lim__sim_host(w->sim, "here");
    w->schedulers = 2 + (uint32_t)pick(SCHEDULERS_MAX - 1);
    assert_int_equal(lim__runtime_open(&(lim__runtime_opts){ .os = w->os, .scheduler_count = w->schedulers }, &w->rt),
                     LIM_OK);
    for (uint32_t i = 0; i < w->schedulers; i++)
        lim__sim_task_add(w->sim, w->os, "sched", turn, due, lim__sched_at(w->rt, i));
    for (uint32_t i = 0; i < FIRST; i++)
        (void)actor_new(NULL, i % w->schedulers);
    w->poor = seed % 4 == 0;
    lim__sim_at(w->sim, lim__sim_now(w->sim) + MS, host_step, NULL);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 1000 * MS, NULL, NULL);
    w->over = true;
    lim__alloc_fail_at(0);
    check_end_of_storm();
    for (uint32_t i = 0; i < w->count; i++)
        (void)!lim_runtime_exit(w->rt, w->actors[i].pid, LIM_KILL);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 1000 * MS, NULL, NULL);
    if (!w->broken)
        check_nothing_left();
    uint64_t hash = lim__sim_hash(w->sim);
    const char *broken = w->broken;
    lim_runtime_close(w->rt);
    lim__sim_close(w->sim);
    free(w);
    if (broken)
        fail_msg("seed %llu: %s", (unsigned long long)seed, broken);
    return hash;
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* R04, R05, R06, R08, R09, R13, R17, R18; proves RT1 RT2 RT3 RT4 RT5 RT6 RT9 RT12 RT13 */
static void test_random_programs_keep_the_rules_of_the_model(void **state)
{
    (void)state;
    uint64_t first = from_env("LIM_SEED", 1), count = from_env("LIM_SEEDS", 200);
    FILE *trace = getenv("LIM_SEED") && count == 1 ? stdout : NULL;
    for (uint64_t seed = first; seed < first + count; seed++) {
        uint64_t hash = world_run(seed, trace);
        if (seed % 10 == first % 10 && hash != world_run(seed, NULL)) /* M9 */
            fail_msg("seed %llu: M9: its second run had another history", (unsigned long long)seed);
    }
}

/* ---- an idle runtime ---- */
enum { IDLE_PROCESSES = 100000, CONNECTIONS = 1000, PORT = 4777 };

typedef struct idler { /* a process with a connection */
    lim__watch watch;
    int fd;
} idler;

static void on_bytes(lim_process *owner, lim__watch *watch, uint32_t ready)
{
    (void)watch, (void)ready;
    lim_exit(owner, LIM_FAULT); /* nobody sends any */
}

static void on_idler(lim_process *self, const lim_signal *signal, void *state)
{
    idler *i = state;
    (void)signal;
    i->watch.on_ready = on_bytes;
    assert_int_equal(lim__watch_set(self, &i->watch, i->fd, LIM__IO_READ), 0);
}

static uint32_t dial(lim__os *server, lim__os *client, int *ends)
{
    uint32_t n = 0;
    int listener = server->listen(server, lim__sim_host_address(server), PORT, NULL);
    assert_true(listener >= 0);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        char peer[64];
        assert_true(client->connect(client, lim__sim_host_address(server), PORT) >= 0);
        lim__sim *sim = lim__sim_of(server);
        lim__sim_advance_to(sim, lim__sim_now(sim) + 1000 * MS);
        for (int fd; (fd = server->accept(server, listener, peer, sizeof peer)) >= 0;)
            ends[n++] = fd;
    }
    return n;
}

/* R12, proves RT10 */
static void test_an_idle_runtime_of_100000_processes_and_1000_connections_never_wakes(void **state)
{
    (void)state;
    lim__sim *sim = lim__sim_open(1);
    lim__os *here = lim__sim_host(sim, "here"), *there = lim__sim_host(sim, "there");
    lim_runtime *rt;
    static int ends[CONNECTIONS];
    assert_int_equal(dial(here, there, ends), CONNECTIONS);
    assert_int_equal(lim__runtime_open(&(lim__runtime_opts){ .os = here, .scheduler_count = 2 }, &rt), LIM_OK);
    for (uint32_t i = 0; i < 2; i++)
        lim__sim_task_add(sim, here, "sched", turn, due, lim__sched_at(rt, i));
    for (uint32_t i = 0; i < IDLE_PROCESSES; i++) {
        idler init = { .fd = i < CONNECTIONS ? ends[i] : -1 };
        lim_spawn_opts o = { .size = sizeof o,
                             .on_signal = on_idler,
                             .state_bytes = sizeof init,
                             .init = &init,
                             .init_bytes = sizeof init };
        lim_pid pid;
        assert_int_equal(lim_runtime_spawn(rt, &o, &pid), LIM_OK);
        if (init.fd >= 0)
            assert_int_equal(lim_runtime_send(rt, pid, 0, lim__bytes(NULL, 0)), LIM_OK);
    }
    lim__sim_run(sim, lim__sim_now(sim) + 1000 * MS, NULL, NULL);
    lim_census before, after;
    lim_runtime_census(rt, &before);
    lim__sim_run(sim, lim__sim_now(sim) + 60000 * MS, NULL, NULL);
    lim_runtime_census(rt, &after);
    assert_int_equal(after.processes, IDLE_PROCESSES);
    assert_int_equal(after.turns, before.turns);
    assert_int_equal(after.wakes, before.wakes);
    lim_runtime_close(rt);
    lim__sim_close(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs_keep_the_rules_of_the_model),
        cmocka_unit_test(test_an_idle_runtime_of_100000_processes_and_1000_connections_never_wakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
