/* SPDX-License-Identifier: Apache-2.0
 * sim_hang_test.c - tries to make an ask hang. 100,000 conversations in simulated buses of three schedulers, while any
 * party to any of them is killed at any instant.
 *
 *      the script, turn by turn: ask (one, all, in parts, by number), dispatch, cancel
 *                                kill a participant, a conversation in any state, or both in one turn; begin a new one
 *
 * Whoever asks is the test itself, through the agents, as a host program's thread would. Participants reply, fail, say
 * nothing, hold their answer and give it later or never, send parts, or die of it. Rules:
 *
 *   H1  every ask and every admitted task ends exactly once, and nothing comes after its end.
 *   H2  when the storm is over all that is left ends by itself: by a death or at its deadline, which everything has.
 *   H3  parts come before the outcome, in order, 1, 2, 3 ...
 *   H4  afterwards the census of the bus is what it was.
 *   H5  a history that was kept leads by itself, without the bus, to where its exchange was: its end, and how that was
 *       told; or, of a conversation that was killed, to a state on the way.
 *
 * LIM_SEEDS worlds from LIM_SEED on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "bus/api.h"
#include "bus/exchange.h"
#include "bus/history.h"
#include "bus/participant.h"
#include "sim/sim_os.h"

#define SECOND 1000000000ull
enum { SCHEDULERS = 3, PARTICIPANTS = 9, EXCHANGES = 1000, GROUPS = 2, HELD_MAX = 64, UNDER_WAY = 60 };

typedef struct world world;
typedef struct held { /* a request that a participant keeps */
    lim_participant self;
    lim_conv conv;
    uint64_t lease;
} held;

typedef struct peer { /* a participant, one after the other in the same place */
    world *w;
    lim_pid pid;
    bool works, alive;
    uint32_t held_count;
    held held[HELD_MAX];
} peer;

typedef struct exchange { /* as whoever began it sees it */
    world *w;
    lim_conv conv;
    lim__wait wait; /* of a task */
    lim_how how;
    uint32_t parts, ends;
    bool traced, killed;
} exchange;

struct world {
    lim__sim *sim;
    lim__os *os;
    lim_bus *bus;
    lim__rng *rng;
    peer peers[PARTICIPANTS];
    exchange exchanges[EXCHANGES];
    uint32_t begun, ended, kills, tasks, replayed, how[16];
};

static uint32_t below(world *w, uint32_t n)
{
    return (uint32_t)lim__rng_below(w->rng, n);
}

/* ---- participants ---- */

static void answer_held(peer *p)
{
    world *w = p->w;
    if (p->held_count == 0)
        return;
    uint32_t at = below(w, p->held_count);
    held h = p->held[at];
    p->held[at] = p->held[--p->held_count];
    if (below(w, 4) == 0)
        (void)!lim_fail_to(w->bus, h.self, h.conv, h.lease, "it would not");
    else
        (void)!lim_reply_to(w->bus, h.self, h.conv, h.lease, lim__str("later"));
}

static lim_done on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    peer *p = ctx;
    world *w = p->w;
    if (d->event != LIM_EVENT_NONE || !d->wants_reply)
        return LIM_DONE;
    for (uint32_t n = d->credit > 0 ? below(w, 4) : 0; n > 0; n--)
        (void)!lim_part(bus, d, lim__str("part"));
    switch (below(w, 8)) {
    case 0:
        (void)!lim_fail(bus, d, "no");
        return LIM_DONE;
    case 1:
        return LIM_DONE;
    case 2:
    case 3:
        if (p->held_count == HELD_MAX)
            return LIM_FAIL;
        p->held[p->held_count++] = (held){ d->self, d->conv, d->lease };
        return LIM_HOLD;
    case 4:
        lim_runtime_exit(w->bus->rt, p->pid, LIM_KILL); /* it dies of it, with the request in hand */
        return LIM_HOLD;
    default:
        (void)!lim_reply(bus, d, lim__str("done"));
        return LIM_DONE;
    }
}

static void on_end(void *ctx)
{
    ((peer *)ctx)->alive = false;
}

static void begin_peer(world *w, peer *p)
{
    static const char *const groups[GROUPS] = { "a", "b" };
    lim_handler handler = { .on_message = on_message, .on_end = on_end, .ctx = p };
    char name[16];
    lim_pid group;
    lim_bytes where = lim__str(groups[(p - w->peers) % GROUPS]);
    p->works = (p - w->peers) % 3 == 2;
    p->held_count = 0;
    lim__member_kind kind = p->works ? LIM__MEMBER_WORK : LIM__MEMBER_SERVE;
    snprintf(name, sizeof name, "p%u", (unsigned)(p - w->peers));
    assert_int_equal(lim__group_get(w->bus, NULL, where, &group), LIM_OK);
    assert_int_equal(lim__participant_spawn(w->bus, &handler, kind, below(w, 2) == 0 ? group : (lim_pid){ 0 }, &p->pid),
                     LIM_OK);
    p->alive = true;
    lim__join *j = lim__join_new(NULL, p->pid, kind, lim__str(name), 1 + below(w, 4), NULL, NULL);
    j->reply_to = p->pid;
    (void)!lim__post_reserved(w->bus->rt, group, j);
}

/* ---- exchanges ---- */

static void ends(exchange *x, lim_how how)
{
    assert_int_equal(x->ends, 0); /* H1 */
    x->ends++;
    x->how = how;
    x->w->ended++;
    x->w->how[how]++;
    assert_true(how >= LIM_HOW_REPLY && how <= LIM_HOW_LOST);
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    ends(ctx, o->how);
}

/* What a task's owner hears: that it waits, then how it ended; or at once that it is not taken. */
static bool on_task_letter(lim__wait *w, lim__wait_end end, const lim_signal *signal)
{
    exchange *x = LIM_CONTAINER(w, exchange, wait);
    bool letter = end == LIM__WAIT_LETTER;
    if (letter && signal->type == &lim__type_admitted) {
        const lim__admitted *a = signal->body.ptr;
        if (a->admission.verdict == LIM_REJECT)
            ends(x, LIM_HOW_REFUSED);
        return a->admission.verdict == LIM_REJECT;
    }
    ends(x, letter ? ((const lim__outcome_letter *)signal->body.ptr)->how : LIM_HOW_CRASHED);
    return true;
}

static lim_done on_part(void *ctx, const lim_part_view *part)
{
    exchange *x = ctx;
    assert_int_equal(x->ends, 0);              /* H1 */
    assert_int_equal(part->seq, x->parts + 1); /* H3 */
    x->parts++;
    return LIM_DONE;
}

static void dispatch(world *w, exchange *x, const char *queue)
{
    lim__open *open;
    lim_pid task;
    w->tasks++;
    assert_int_equal(lim__api_letter(LIM__KIND_TASK, queue, NULL, lim__str("hello"), &open), LIM_OK);
    open->deadline_ns = lim__api_deadline(w->bus, 1 + below(w, 3000));
    open->losses_max = below(w, 4);
    open->flags = LIM__OPEN_REPORT;
    x->wait = (lim__wait){ .ref = lim__wait_ref(w->bus), .on_letter = on_task_letter };
    lim_pid agent = lim__agent_for(w->bus, lim__group_find(w->bus, lim__str(queue)));
    assert_int_equal(lim__api_begin(w->bus, agent, open, &x->wait, &task), LIM_OK);
    x->conv = (lim_conv){ task.id };
}

static void begin(world *w)
{
    exchange *x = &w->exchanges[w->begun++];
    *x = (exchange){ .w = w, .traced = below(w, 4) == 0 };
    const char *group = below(w, 2) == 0 ? "a" : "b";
    lim_ask_opts o = { .size = sizeof o,
                       .timeout_ms = 1 + below(w, 3000),
                       .on_crash = below(w, 2) == 0 ? LIM_CRASH_FAIL : LIM_CRASH_NEXT,
                       .wait = below(w, 4) == 0,
                       .trace = x->traced };
    lim_err err = LIM_OK;
    switch (below(w, 7)) {
    case 0: {
        const peer *p = &w->peers[below(w, PARTICIPANTS)]; /* perhaps dead */
        o.participant = (lim_participant){ p->pid.id };
        err = lim_ask_async(w->bus, NULL, lim__str("hello"), &o, on_outcome, x, &x->conv);
        break;
    }
    case 1:
        o.window = 1 + below(w, 3);
        err = lim_ask_stream(w->bus, group, lim__str("hello"), &o, on_part, on_outcome, x, &x->conv);
        break;
    case 2:
        o.quorum = below(w, 4);
        o.on_crash = LIM_CRASH_FAIL;
        o.wait = false;
        err = lim_ask_all(w->bus, group, lim__str("hello"), &o, on_part, on_outcome, x, &x->conv);
        break;
    case 3:
        o.on_crash = LIM_CRASH_COMPENSATE;
        o.compensate = "undo";
        err = lim_ask_async(w->bus, group, lim__str("hello"), &o, on_outcome, x, &x->conv);
        break;
    case 4:
        x->traced = false;
        dispatch(w, x, group);
        break;
    default:
        err = lim_ask_async(w->bus, group, lim__str("hello"), &o, on_outcome, x, &x->conv);
        break;
    }
    assert_int_equal(err, LIM_OK);
}

/* Somebody dies: a participant, a conversation, or a conversation and its participant in one turn. */
static void kill_somebody(world *w)
{
    peer *p = &w->peers[below(w, PARTICIPANTS)];
    exchange *x = &w->exchanges[below(w, w->begun)];
    uint32_t who = below(w, 4);
    w->kills++;
    if (who != 0 && p->alive)
        lim_runtime_exit(w->bus->rt, p->pid, below(w, 2) == 0 ? LIM_KILL : below(w, 2) == 0 ? LIM_FAULT : LIM_LEFT);
    if (who <= 1 && x->conv.id != 0 && x->ends == 0) {
        x->killed = true;
        lim_runtime_exit(w->bus->rt, (lim_pid){ x->conv.id }, LIM_KILL);
    }
}

static void script(world *w)
{
    uint32_t what = below(w, 100);
    if (what < 70 && w->begun < EXCHANGES && w->begun - w->ended < UNDER_WAY)
        begin(w);
    else if (what < 76 && w->begun > 0)
        kill_somebody(w);
    else if (what < 80 && w->begun > 0)
        (void)!lim_conv_cancel(w->bus, w->exchanges[below(w, w->begun)].conv);
    else if (what < 90)
        answer_held(&w->peers[below(w, PARTICIPANTS)]);
    for (uint32_t i = 0; i < PARTICIPANTS; i++)
        if (!w->peers[i].alive && below(w, 20) == 0)
            begin_peer(w, &w->peers[i]);
}

/* ---- worlds ---- */

static bool sched_turn(void *ctx)
{
    return lim__sched_turn(ctx, -1);
}

static uint64_t sched_due(void *ctx)
{
    return lim__sched_next_due_ns(ctx);
}

static void settle(world *w, uint64_t ns)
{
    lim__sim_run(w->sim, lim__sim_now(w->sim) + ns, NULL, NULL);
}

static void open_world(world *w, uint64_t seed)
{
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = SCHEDULERS };
    memset(w, 0, sizeof *w);
    w->sim = lim__sim_open(seed);
    w->rng = lim__sim_rng(w->sim);
    w->os = lim__sim_host(w->sim, "host");
    lim__runtime_opts runtime = { .os = w->os, .scheduler_count = SCHEDULERS, .threads = false };
    assert_int_equal(lim__bus_open(&opts, &runtime, &w->bus), LIM_OK);
    for (uint32_t i = 0; i < SCHEDULERS; i++)
        lim__sim_task_add(w->sim, w->os, "sched", sched_turn, sched_due, lim__sched_at(w->bus->rt, i));
    settle(w, SECOND);
}

/* H5. What everybody was asked in has one history more for each of them, and no steps of its own. */
static void audit_history(world *w, const exchange *x)
{
    uint32_t codes[LIM__HISTORY_MAX];
    size_t count = 0;
    char last[32] = "";
    lim__buf body = { 0 };
    lim__json j = lim__json_begin(&body);
    lim__json_open(&j, NULL, '{');
    bool kept = x->traced && lim__history_ended_json(w->bus, (lim_pid){ x->conv.id }, 0, &j);
    lim__json_close(&j);
    lim__doc *doc = lim__doc_new();
    assert_int_equal(lim__doc_parse(doc, lim__buf_bytes(&body), NULL), LIM_OK);
    lim__iter it = lim__iter_begin(lim__val_get(lim__doc_root(doc), "history"));
    while (kept && lim__iter_next(&it)) {
        uint32_t code = (uint32_t)lim__val_u64(it.val, "code", 0);
        if (code != 0)
            codes[count++] = code;
        if (strcmp(lim__val_str(it.val, "kind", ""), "outcome") == 0)
            snprintf(last, sizeof last, "%s", lim__val_str(it.val, "detail", ""));
    }
    if (count > 0) {
        lim__ex_state at = lim__ex_replay(codes, count);
        w->replayed++;
        assert_true(x->killed ? at != 0 : at == LIM__EX_ENDED || at == LIM__EX_DRAINING);
        assert_true(x->killed || strncmp(last, lim_how_text(x->how), strlen(lim_how_text(x->how))) == 0);
    }
    lim__doc_free(doc);
    lim__buf_fini(&body);
}

static lim_done on_undo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, lim__str("undone")) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

/* Somebody undoes what is to be undone, so that nothing is left. */
static void undo_all(world *w)
{
    static const lim_handler handler = { .on_message = on_undo };
    lim_pid group, pid;
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str("undo"), &group), LIM_OK);
    assert_int_equal(lim__participant_spawn(w->bus, &handler, LIM__MEMBER_WORK, group, &pid), LIM_OK);
    lim__join *j = lim__join_new(NULL, pid, LIM__MEMBER_WORK, lim__str("undoer"), 8, NULL, NULL);
    j->reply_to = pid;
    (void)!lim__post_reserved(w->bus->rt, group, j);
    settle(w, 10 * SECOND);
    lim_runtime_exit(w->bus->rt, pid, LIM_LEFT);
}

static void run_world(uint64_t seed)
{
    static world w;
    lim_bus_census before, after;
    open_world(&w, seed);
    lim_bus_census_take(w.bus, &before);
    for (uint32_t i = 0; i < PARTICIPANTS; i++) {
        w.peers[i].w = &w;
        begin_peer(&w, &w.peers[i]);
    }
    while (w.begun < EXCHANGES) {
        script(&w);
        for (uint32_t n = below(&w, 4); n > 0; n--)
            lim__sim_step(w.sim);
    }
    settle(&w, 10 * SECOND); /* longer than any deadline */
    for (uint32_t i = 0; i < w.begun; i++)
        if (w.exchanges[i].ends != 1)
            fail_msg("seed %llu: exchange %u, conversation %llx, ended %u times", (unsigned long long)seed, i,
                     (unsigned long long)w.exchanges[i].conv.id, w.exchanges[i].ends); /* H1, H2 */
    for (uint32_t i = 0; i < PARTICIPANTS; i++)
        if (w.peers[i].alive)
            lim_runtime_exit(w.bus->rt, w.peers[i].pid, LIM_KILL); /* with what they hold for ever */
    undo_all(&w);
    settle(&w, 10 * SECOND);
    for (uint32_t i = 0; i < w.begun; i++)
        audit_history(&w, &w.exchanges[i]);
    assert_true(w.tasks > 0 && w.replayed > 0);
    lim_bus_census_take(w.bus, &after);
    assert_int_equal(after.conversations, before.conversations); /* H4 */
    assert_int_equal(after.participants, before.participants);
    if (getenv("LIM_SEED") != NULL)
        for (int how = 1; how < 16; how++)
            if (w.how[how] > 0)
                printf("%s %u\n", lim_how_text((lim_how)how), w.how[how]);
    lim_bus_close(w.bus);
    lim__sim_close(w.sim);
}

static void test_nobody_can_make_an_ask_hang(void **state) /* proves CV1 CV3 CV13 CV18 */
{
    const char *seed = getenv("LIM_SEED"), *seeds = getenv("LIM_SEEDS");
    uint64_t first = seed != NULL ? strtoull(seed, NULL, 10) : 1;
    uint64_t count = seed != NULL ? 1 : seeds != NULL ? strtoull(seeds, NULL, 10) : 100; /* of EXCHANGES each */
    (void)state;
    for (uint64_t i = 0; i < count; i++)
        run_world(first + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_nobody_can_make_an_ask_hang) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
