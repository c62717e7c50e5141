/* SPDX-License-Identifier: Apache-2.0
 * talk_test.c - what an earlier system was seen to get wrong in conversations, and that it is not wrong here.
 *
 *   the defect                                      the test whose name says that it is absent
 *   a timed-out receive swallows the next reply     test_a_receive_that_timed_out_swallows_nothing
 *   a buffered reply is lost once it failed         test_what_arrived_before_the_failure_is_delivered_after
 *   a buffered reply counts as received twice       test_what_is_received_is_counted_once
 *   "inbox empty" and "waits" are two steps         test_many_threads_receive_and_lose_or_double_nothing
 *   replies go to receives by order only            test_answers_out_of_order_reach_those_who_asked
 *   callers of a dead conversation wait for ever    test_a_killed_conversation_ends_everything_in_order
 *   commands behind a close are never answered      test_commands_behind_a_close_are_answered
 *   only the first participant gets messages        test_everybody_gets_what_is_sent_to_all
 *   what silent ones get vanishes, or is echoed     test_silent_ones_neither_echo_nor_end_a_receive
 *   the first dead one leaves later ones unlinked   test_a_dead_participant_is_a_crash_and_no_obstacle
 *   crash policy "next" only records                test_policy_next_moves_asks_and_names_those_it_lost (talk_policy)
 *   crash policy "compensate" only records          test_policy_compensate_leaves_a_task_that_says_all (talk_policy)
 *   one that crashes kills its participants         test_participants_survive_their_conversation
 *   a stale command and a restart lock up           test_a_killed_conversation_ends_everything_in_order
 *   the time of an ask covers only its waiting      test_the_deadline_of_an_ask_is_kept_wherever_it_is
 *   a conversation's own time is never enforced     test_a_conversation_ends_at_its_deadline
 *   one real participant at most                    talk_member_test: membership
 *   participants and processes leak                 test_close_gives_everything_back; cycles_test: a million of them
 *   a failed one can never be closed                test_a_failed_one_can_be_closed_and_is_gone
 *   dropping all handles stops nothing              test_the_end_of_its_owner_is_its_end
 *   operators cannot list conversations             talk_member_test: attributes; the phases here
 *   its log grows without bound                     history_test: the newest entries are kept
 *   a normal exit counts as a crash                 test_a_normal_end_is_leaving_and_not_a_crash (talk_member)
 *   calls hang after shutdown                       test_closing_the_bus_ends_whatever_waits
 *   no streams, dispatch, compensation of many      stream_test, ask_test, saga_test
 *   an illegal transition says nothing useful       test_an_illegal_transition_names_both_phases
 *   nothing is known of one that has ended          test_the_state_of_an_ended_one_can_be_asked_for */
#include "bus/talk_world.h"
#include "bus/conv.h"
#include "bus/ended.h"
#include "bus/history.h"

/* ---- receives ---- */

static void test_a_receive_that_timed_out_swallows_nothing(void **state) /* proves CV9 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    guest *g = guests_come(bus, 1, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(lim_conv_receive(bus, c, 1, &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_TIMEOUT);
        lim_outcome_fini(&o);
    }
    assert_int_equal(talk_info(bus, c).pending, 0); /* withdrawn */
    guest_says(&g[0], c, "late, but here");
    assert_receives(bus, c, g, "reply a late, but here");
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_what_arrived_before_the_failure_is_delivered_after(void **state) /* proves CV6 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    guest *g = guests_come(bus, 1, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    guest_says(&g[0], c, "one");
    guest_says(&g[0], c, "two");
    while (talk_info(bus, c).buffered < 2)
        sched_yield();
    guest_dies(&g[0]);
    while (talk_info(bus, c).phase != LIM_PHASE_BROKEN)
        sched_yield();
    assert_receives(bus, c, g, "reply a one");
    assert_receives(bus, c, g, "reply a two");
    for (int i = 0; i < 2; i++) { /* then, and from then on, how it ended */
        assert_int_equal(lim_conv_receive(bus, c, SOON, &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_CRASHED);
        assert_int_equal(o.reason, LIM_KILLED);
        assert_true(o.crashed_wall_us > 0 && o.participant.len > 0);
        lim_outcome_fini(&o);
    }
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_what_is_received_is_counted_once(void **state)
{
    lim_bus *bus = *state;
    asking r;
    guest *g = guests_come(bus, 1, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    guest_says(&g[0], c, "buffered");
    assert_receives(bus, c, g, "reply a buffered");
    asking_start(&r, bus, c, NULL, "");
    wait_pending(bus, c, 1);
    guest_says(&g[0], c, "awaited");
    asking_end(&r, LIM_HOW_REPLY);
    lim_outcome_fini(&r.outcome);
    assert_int_equal(talk_info(bus, c).received, 2);
    talk_close(bus, c);
    guests_go(bus, g);
}

enum { READERS = 4, WORDS = 400 };

typedef struct reader {
    lim_bus *bus;
    lim_conv conv;
    _Atomic uint32_t *seen; /* how often each word was received */
    pthread_t thread;
} reader;

static void *read_words(void *arg)
{
    reader *r = arg;
    for (;;) {
        lim_outcome o;
        if (lim_conv_receive(r->bus, r->conv, SOON, &o) != LIM_OK)
            return NULL; /* it has been closed */
        char text[16];
        snprintf(text, sizeof text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
        bool over = o.how != LIM_HOW_REPLY;
        lim_outcome_fini(&o);
        if (over)
            return NULL;
        atomic_fetch_add(&r->seen[atoi(text)], 1);
    }
}

static void test_many_threads_receive_and_lose_or_double_nothing(void **state)
{
    lim_bus *bus = *state;
    static _Atomic uint32_t seen[WORDS];
    reader readers[READERS];
    lim_admission a;
    lim_conv c = talk_open(bus, ALL);
    for (int i = 0; i < WORDS; i++)
        atomic_store(&seen[i], 0);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (reader){ .bus = bus, .conv = c, .seen = seen };
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_words, &readers[i]), 0);
    }
    for (int i = 0; i < WORDS; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        assert_int_equal(lim_conv_send(bus, c, ALL, lim__str(text), &a), LIM_OK);
        assert_int_equal(a.verdict, LIM_ACCEPT);
    }
    while (talk_info(bus, c).buffered > 0)
        sched_yield();
    assert_int_equal(lim_conv_close(bus, c), LIM_OK);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i].thread, NULL);
    for (int i = 0; i < WORDS; i++)
        assert_int_equal(atomic_load(&seen[i]), 1);
}

/* ---- asks ---- */

static void test_answers_out_of_order_reach_those_who_asked(void **state) /* proves CV10 */
{
    lim_bus *bus = *state;
    enum { ASKS = 5 };
    asking asks[ASKS];
    guest *g = guests_come(bus, 1, HOLDS);
    lim_conv c = talk_open(bus, g[0].id);
    for (uint32_t i = 0; i < ASKS; i++) {
        char text[8];
        snprintf(text, sizeof text, "q%u", i);
        asking_start(&asks[i], bus, c, &g[0], text);
        wait_heard(&g[0], i + 1);
    }
    for (uint32_t i = ASKS; i-- > 0;) { /* the last one first; it says which it is */
        lim_delivery d = standing(&g[0], i);
        assert_int_equal(lim_reply_to(bus, d.self, d.conv, d.lease, lim__str(g[0].heard[i])), LIM_OK);
    }
    for (uint32_t i = 0; i < ASKS; i++) {
        char want[32];
        snprintf(want, sizeof want, "asked - q%u", i);
        asking_end(&asks[i], LIM_HOW_REPLY);
        assert_memory_equal(asks[i].outcome.payload.ptr, want, strlen(want));
        assert_int_equal(asks[i].outcome.from.id, g[0].id.id);
        lim_outcome_fini(&asks[i].outcome);
    }
    lim_delivery d = standing(&g[0], 0); /* once more, to nobody: dropped and counted */
    assert_int_equal(lim_reply_to(bus, d.self, d.conv, d.lease, lim__str("again")), LIM_OK);
    char show[64];
    snprintf(show, sizeof show, "{\"op\":\"show\",\"id\":\"%llx\"}", (unsigned long long)c.id);
    assert_int_equal(talk_info(bus, c).received, ASKS);
    assert_shown(bus, show, "\"unasked\":1");
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_the_deadline_of_an_ask_is_kept_wherever_it_is(void **state) /* proves CV9 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    guest *g = guests_come(bus, 2, HOLDS);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    atomic_store(&g[1].manner, KEEPS_SILENT);
    for (int i = 0; i < 2; i++) { /* in hand; and done without a word */
        uint64_t start_ns = bus->os->now_ns(bus->os);
        assert_int_equal(lim_conv_ask(bus, c, g[i].id, lim__str("x"), 5, &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_TIMEOUT);
        assert_true(bus->os->now_ns(bus->os) - start_ns >= 5000000);
        lim_outcome_fini(&o);
    }
    wait_heard(&g[0], 2);
    lim_delivery d = standing(&g[0], 1); /* too late: it answers no other ask */
    atomic_store(&g[0].manner, ECHOES);
    assert_int_equal(lim_reply_to(bus, d.self, d.conv, d.lease, lim__str("late")), LIM_OK);
    assert_int_equal(lim_conv_ask(bus, c, g[0].id, lim__str("next"), SOON, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    assert_memory_equal(o.payload.ptr, "next", 4);
    lim_outcome_fini(&o);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_the_asks_of_the_dead_end_crashed_and_name_it(void **state) /* proves CV6 */
{
    lim_bus *bus = *state;
    asking mine, other;
    char id[24];
    guest *g = guests_come(bus, 2, HOLDS);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    asking_start(&mine, bus, c, &g[1], "to b");
    asking_start(&other, bus, c, &g[0], "to a");
    wait_heard(&g[0], 2);
    wait_heard(&g[1], 2);
    guest_dies(&g[1]);
    asking_end(&mine, LIM_HOW_CRASHED);
    snprintf(id, sizeof id, "%llx", (unsigned long long)g[1].id.id);
    assert_int_equal(mine.outcome.participant.len, strlen(id));
    assert_memory_equal(mine.outcome.participant.ptr, id, strlen(id));
    assert_int_equal(mine.outcome.reason, LIM_KILLED);
    assert_true(mine.outcome.crashed_wall_us > 0);
    lim_outcome_fini(&mine.outcome);
    lim_delivery d = standing(&g[0], 1); /* the other one's ask goes on */
    assert_int_equal(lim_reply_to(bus, d.self, d.conv, d.lease, lim__str("fine")), LIM_OK);
    asking_end(&other, LIM_HOW_REPLY);
    lim_outcome_fini(&other.outcome);
    lim_outcome o; /* whoever asks the dead is told who that was */
    assert_int_equal(lim_conv_ask(bus, c, g[1].id, lim__str("still there?"), SOON, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_CRASHED);
    assert_memory_equal(o.participant.ptr, id, strlen(id));
    lim_outcome_fini(&o);
    talk_close(bus, c);
    guests_go(bus, g);
}

/* ---- participants ---- */

static void test_everybody_gets_what_is_sent_to_all(void **state) /* proves CV12 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 3, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, g[2].id), LIM_OK);
    send_all(bus, c, "you all");
    for (uint32_t i = 0; i < 3; i++) {
        wait_heard(&g[i], 3);
        assert_string_equal(g[i].heard[2], "told - you all");
    }
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_silent_ones_neither_echo_nor_end_a_receive(void **state) /* proves CV11 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    guest *g = guests_come(bus, 1, KEEPS_SILENT);
    lim_conv c = talk_open(bus, g[0].id);
    send_all(bus, c, "hello?");
    assert_heard(&g[0], "told - hello?");
    assert_int_equal(lim_conv_receive(bus, c, 5, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_TIMEOUT);
    lim_outcome_fini(&o);
    assert_true(talk_info(bus, c).received == 0 && talk_info(bus, c).sent == 1);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_a_dead_participant_is_a_crash_and_no_obstacle(void **state) /* proves CV2 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    guest *g = guests_come(bus, 3, ECHOES);
    guest_dies(&g[0]);
    lim_conv c = talk_open(bus, ALL);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, g[0].id), LIM_OK); /* joins, and is seen to have died */
    assert_int_equal(lim_conv_join(bus, c, g[2].id), LIM_OK);
    assert_receives(bus, c, g, "reply:joined b");
    assert_receives(bus, c, g, "reply:joined a");
    bool crashed_first = false; /* the order of its end and c's joining is the order in which the talk heard of them */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lim_conv_receive(bus, c, SOON, &o), LIM_OK);
        assert_true(o.event == LIM_EVENT_JOINED || o.event == LIM_EVENT_CRASHED);
        crashed_first |= i == 0 && o.event == LIM_EVENT_CRASHED;
        lim_outcome_fini(&o);
    }
    guest_dies(&g[2]); /* the later one is linked all the same */
    assert_receives(bus, c, g, "reply:crashed:killed c");
    wait_heard(&g[1], 4);
    assert_string_equal(g[1].heard[crashed_first ? 1 : 2], "crashed:noproc a");
    talk_close(bus, c);
    guests_go(bus, g);
}

/* ---- the conversation itself ends ---- */

static void test_a_killed_conversation_ends_everything_in_order(void **state) /* proves CV18 CV3 */
{
    lim_bus *bus = *state;
    static const lim_reason reasons[] = { LIM_KILL, LIM_FAULT };
    for (uint32_t r = 0; r < LIM_COUNT(reasons); r++) {
        enum { WAITING = 6 };
        asking waits[WAITING], elsewhere;
        guest *g = guests_come(bus, 1, HOLDS);
        lim_conv c = talk_open(bus, g[0].id), other = talk_open(bus, g[0].id);
        asking_start(&elsewhere, bus, other, &g[0], "elsewhere");
        wait_heard(&g[0], 1);
        for (uint32_t i = 0; i < WAITING; i++) {
            asking_start(&waits[i], bus, c, i % 2 == 0 ? &g[0] : NULL, "x");
            wait_pending(bus, c, i + 1);
        }
        lim_runtime_exit(bus->rt, (lim_pid){ c.id }, reasons[r]);
        for (uint32_t i = 0; i < WAITING; i++) {
            asking_end(&waits[i], LIM_HOW_CRASHED);
            assert_memory_equal(waits[i].outcome.participant.ptr, "conversation", 12);
            lim_outcome_fini(&waits[i].outcome);
        }
        talk_gone(bus, c);
        wait_stopped(&g[0], WAITING / 2); /* its participant is told, of each ask in hand */
        lim_conv_info info;               /* what is remembered of it, a moment after a kill */
        while (lim_conv_inspect(bus, c, &info) != LIM_OK)
            sched_yield();
        assert_int_equal(info.phase, LIM_PHASE_BROKEN);
        lim_admission a;
        assert_int_equal(lim_conv_send(bus, c, ALL, lim__str("x"), &a), LIM_E_GONE);
        lim_delivery d = standing(&g[0], 0); /* no other conversation notices */
        assert_int_equal(lim_reply_to(bus, d.self, d.conv, d.lease, lim__str("here")), LIM_OK);
        asking_end(&elsewhere, LIM_HOW_REPLY);
        lim_outcome_fini(&elsewhere.outcome);
        assert_int_equal(atomic_load(&g[0].stopped), WAITING / 2);
        talk_close(bus, other);
        guests_go(bus, g);
    }
}

typedef struct ended_ask {
    _Atomic uint32_t ends;
    lim_how how;
    char participant[24];
} ended_ask;

static void on_ask_end(void *ctx, const lim_outcome *o)
{
    ended_ask *e = ctx;
    e->how = o->how;
    snprintf(e->participant, sizeof e->participant, "%.*s", (int)o->participant.len, (const char *)o->participant.ptr);
    atomic_fetch_add(&e->ends, 1);
}

static void test_a_killed_exchange_ends_its_ask_and_tells_its_participant(void **state) /* proves CV18 */
{
    lim_bus *bus = *state;
    static ended_ask ends[2];
    lim_conv asks[2];
    guest *g = guests_come(bus, 1, HOLDS);
    lim_ask_opts o = { .size = sizeof o, .participant = g[0].id, .timeout_ms = LIM_FOREVER };
    memset(ends, 0, sizeof ends);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(lim_ask_async(bus, NULL, lim__str("x"), &o, on_ask_end, &ends[i], &asks[i]), LIM_OK);
        wait_heard(&g[0], i + 1);
    }
    lim_runtime_exit(bus->rt, (lim_pid){ asks[0].id }, LIM_KILL);
    while (atomic_load(&ends[0].ends) == 0)
        sched_yield();
    assert_int_equal(ends[0].how, LIM_HOW_CRASHED);
    assert_string_equal(ends[0].participant, "conversation");
    wait_stopped(&g[0], 1);
    lim_delivery d = standing(&g[0], 1); /* the other one did not notice */
    assert_int_equal(lim_reply_to(bus, d.self, d.conv, d.lease, lim__str("here")), LIM_OK);
    while (atomic_load(&ends[1].ends) == 0)
        sched_yield();
    assert_int_equal(ends[1].how, LIM_HOW_REPLY);
    guests_go(bus, g);
    assert_true(atomic_load(&ends[0].ends) == 1 && atomic_load(&ends[1].ends) == 1);
}

static void test_participants_survive_their_conversation(void **state) /* proves CV18 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    guest *g = guests_come(bus, 2, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    lim_runtime_exit(bus->rt, (lim_pid){ c.id }, LIM_KILL);
    talk_gone(bus, c);
    lim_conv next = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, next, g[1].id), LIM_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lim_conv_ask(bus, next, g[i].id, lim__str("well?"), SOON, &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        lim_outcome_fini(&o);
    }
    talk_close(bus, next);
    guests_go(bus, g);
}

static void test_commands_behind_a_close_are_answered(void **state) /* proves CV14 CV3 */
{
    lim_bus *bus = *state;
    enum { WAITING = 8 };
    for (int round = 0; round < 50; round++) {
        asking waits[WAITING];
        guest *g = guests_come(bus, 1, HOLDS);
        lim_conv c = talk_open(bus, g[0].id);
        for (int i = 0; i < WAITING / 2; i++)
            asking_start(&waits[i], bus, c, i % 2 == 0 ? &g[0] : NULL, "before");
        assert_int_equal(lim_conv_close(bus, c), LIM_OK);
        for (int i = WAITING / 2; i < WAITING; i++)
            asking_start(&waits[i], bus, c, i % 2 == 0 ? &g[0] : NULL, "behind");
        for (int i = 0; i < WAITING; i++) { /* whichever was first: nobody waits for ever */
            pthread_join(waits[i].thread, NULL);
            assert_true(waits[i].err == LIM_E_GONE ||
                        (waits[i].err == LIM_OK &&
                         (waits[i].outcome.how == LIM_HOW_CLOSED || waits[i].outcome.how == LIM_HOW_CRASHED)));
            lim_outcome_fini(&waits[i].outcome);
        }
        talk_gone(bus, c);
        guests_go(bus, g);
    }
}

static void test_a_conversation_ends_at_its_deadline(void **state) /* proves CV9 */
{
    lim_bus *bus = *state;
    lim_conv c;
    asking ask;
    guest *g = guests_come(bus, 1, HOLDS);
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .participant = g[0].id, .timeout_ms = 50), &c), LIM_OK);
    asking_start(&ask, bus, c, &g[0], "for ever");
    asking_end(&ask, LIM_HOW_TIMEOUT);
    lim_outcome_fini(&ask.outcome);
    talk_gone(bus, c);
    lim__ended_summary e;
    assert_true(lim__ended_summary_of(bus, (lim_pid){ c.id }, &e));
    assert_true(e.phase == LIM_PHASE_BROKEN && e.how == LIM_HOW_TIMEOUT && e.elapsed_ns >= 50000000);
    guests_go(bus, g);
}

static void test_a_failed_one_can_be_closed_and_is_gone(void **state) /* proves CV14 */
{
    lim_bus *bus = *state;
    lim_conv_info info;
    guest *g = guests_come(bus, 1, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    guest_dies(&g[0]);
    while (talk_info(bus, c).phase != LIM_PHASE_BROKEN)
        sched_yield();
    talk_close(bus, c);
    assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    assert_int_equal(info.phase, LIM_PHASE_BROKEN); /* closed, it stays failed */
    assert_int_equal(lim_conv_close(bus, c), LIM_E_GONE);
    guests_go(bus, g);
}

/* ---- phases ---- */

static void test_an_illegal_transition_names_both_phases(void **state) /* proves CV1 */
{
    lim_bus *bus = *state;
    lim_admission a;
    lim_outcome o;
    guest *g = guests_come(bus, 1, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    guest_dies(&g[0]);
    while (talk_info(bus, c).phase != LIM_PHASE_BROKEN)
        sched_yield();
    assert_int_equal(lim_conv_send(bus, c, ALL, lim__str("x"), &a), LIM_OK);
    assert_true(a.verdict == LIM_REJECT && a.phase == LIM_PHASE_BROKEN && a.wanted == LIM_PHASE_ACTIVE);
    assert_int_equal(lim_conv_ask(bus, c, ALL, lim__str("x"), SOON, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_CRASHED);
    assert_int_equal(o.handed_over, LIM_HANDED_NO);
    assert_true(has(o.detail, "failed") && has(o.detail, "active"));
    lim_outcome_fini(&o);
    assert_int_equal(talk_info(bus, c).phase, LIM_PHASE_BROKEN); /* asking changes nothing */
    assert_shown(bus, "{\"op\":\"ls\"}", "\"phase\":\"failed\"");
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_the_state_of_an_ended_one_can_be_asked_for(void **state) /* proves CV1 */
{
    lim_bus *bus = *state;
    lim_conv_info info;
    lim__ended_summary e;
    lim_outcome o;
    lim_participant p;
    lim_handler h = { .on_message = guest_hears, .on_end = guest_ended };
    guest g = { .bus = bus };
    h.ctx = &g;
    atomic_store(&g.manner, ECHOES);
    assert_int_equal(lim_serve(bus, "echo", OPTS(lim_serve_opts, .capacity = 1, .handler = h), &p), LIM_OK);
    assert_int_equal(lim_ask(bus, "echo", lim__str("x"), OPTS(lim_ask_opts, .timeout_ms = SOON), &o), LIM_OK);
    lim_conv ask = o.conv, talk = talk_open(bus, ALL);
    lim_outcome_fini(&o);
    talk_gone(bus, ask);
    assert_true(lim__ended_summary_of(bus, (lim_pid){ ask.id }, &e));
    assert_true(e.kind == LIM__KIND_ASK && e.how == LIM_HOW_REPLY && e.phase == LIM_PHASE_ENDED);
    assert_int_equal(lim_conv_inspect(bus, ask, &info), LIM_OK);
    assert_int_equal(info.phase, LIM_PHASE_ENDED);
    assert_int_equal(talk_info(bus, talk).phase, LIM_PHASE_CREATED); /* looking changes nothing */
    talk_close(bus, talk);
    assert_int_equal(talk_info(bus, talk).phase, LIM_PHASE_ENDED);
    char show[64];
    snprintf(show, sizeof show, "{\"op\":\"show\",\"id\":\"%llx\"}", (unsigned long long)talk.id);
    assert_shown(bus, show, "\"phase\":\"closed\"");
    snprintf(show, sizeof show, "{\"op\":\"show\",\"id\":\"%llx\"}", (unsigned long long)ask.id);
    assert_shown(bus, show, "\"outcome\":\"reply\"");
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    while (atomic_load(&g.ends) == 0)
        sched_yield();
}

static void on_phase(void *ctx, const lim_history_entry *e)
{
    char *all = ctx;
    if (e->kind.len == 5 && memcmp(e->kind.ptr, "phase", 5) == 0)
        snprintf(all + strlen(all), WORDS_MAX - strlen(all), "%.*s ", (int)e->detail.len, (const char *)e->detail.ptr);
}

static void test_phases_are_replayed_from_a_history_without_a_bus(void **state) /* proves CV1 CV17 */
{
    lim_bus *bus = *state;
    lim_conv c;
    uint64_t entries;
    char lived[WORDS_MAX] = "", replayed[WORDS_MAX] = "";
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .timeout_ms = LIM_FOREVER, .trace = true), &c), LIM_OK);
    send_all(bus, c, "x");
    assert_receives(bus, c, NULL, "reply - x");
    talk_close(bus, c);
    assert_int_equal(lim_conv_history(bus, c, 0, on_phase, lived, &entries), LIM_OK);
    assert_string_equal(lived, "active completing closed ");
    lim__buf body = { 0 };
    lim__json j = lim__json_begin(&body);
    lim__json_open(&j, NULL, '{');
    assert_true(lim__history_ended_json(bus, (lim_pid){ c.id }, 0, &j));
    lim__json_close(&j);
    lim__doc *doc = lim__doc_new();
    assert_int_equal(lim__doc_parse(doc, lim__buf_bytes(&body), NULL), LIM_OK);
    lim_phase phase = LIM_PHASE_CREATED;
    lim__iter it = lim__iter_begin(lim__val_get(lim__doc_root(doc), "history"));
    while (lim__iter_next(&it)) {
        if (strcmp(lim__val_str(it.val, "kind", ""), "phase") != 0)
            continue;
        assert_true(lim__phase_step(&phase, (lim__phase_event)lim__val_u64(it.val, "code", 0)));
        snprintf(replayed + strlen(replayed), WORDS_MAX - strlen(replayed), "%s ", lim_phase_text(phase));
    }
    assert_string_equal(replayed, lived);
    lim__doc_free(doc);
    lim__buf_fini(&body);
}

/* ---- nothing is left ---- */

static void open_ask_close(lim_bus *bus, guest *g, bool trace)
{
    lim_conv c;
    lim_outcome o;
    assert_int_equal(
        lim_conv_open(
            bus, OPTS(lim_conv_opts, .participant = g[0].id, .timeout_ms = SOON, .name = "again", .trace = trace), &c),
        LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    assert_int_equal(lim_conv_ask(bus, c, g[1].id, lim__str("x"), SOON, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    lim_outcome_fini(&o);
    talk_close(bus, c);
    atomic_store(&g[0].count, 0);
    atomic_store(&g[1].count, 0);
}

/* Counters of several schedulers are not read in one instant: what has just moved may be in both sums, or in neither. A
 * leak would be one in each of CYCLES. */
enum { CYCLES = 300, MOVING = 20 };
static bool no_more_than(const lim_bus_census *before, const lim_bus_census *after)
{
    const lim_census *was = &before->runtime, *is = &after->runtime;
    return after->conversations <= before->conversations && is->processes <= was->processes + MOVING &&
           is->links <= was->links + MOVING && is->monitors <= was->monitors + MOVING &&
           is->timers <= was->timers + MOVING && is->messages <= was->messages + MOVING;
}

static void test_close_gives_everything_back(void **state) /* proves CV14 */
{
    lim_bus *bus = *state;
    lim_bus_census before, after;
    guest *g = guests_come(bus, 2, ECHOES);
    open_ask_close(bus, g, true);
    do /* what ends, ends a moment after it was told */
        lim_bus_census_take(bus, &before);
    while (before.conversations > 0 || before.runtime.messages > 0);
    for (int i = 0; i < CYCLES; i++)
        open_ask_close(bus, g, i % 2 == 0);
    do
        lim_bus_census_take(bus, &after);
    while (!no_more_than(&before, &after));
    guests_go(bus, g);
}

typedef struct keeper { /* a process that owns a talk */
    lim_bus *bus;
    lim_pid participant;
    _Atomic uint64_t *conv;
} keeper;

static void keeper_signal(lim_process *self, const lim_signal *signal, void *state)
{
    keeper *k = state;
    lim_pid conv;
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type != NULL)
        return;
    lim__open *open = lim__open_new(NULL, LIM__KIND_TALK, lim__str(""), lim__str(""), NULL);
    open->owner = lim_self(self);
    open->opened_ns = lim_now_ns(self);
    open->participant = k->participant;
    assert_int_equal(lim__conv_spawn(k->bus, self, open, &conv), LIM_OK);
    atomic_store(k->conv, conv.id);
}

static void test_the_end_of_its_owner_is_its_end(void **state) /* proves CV14 */
{
    lim_bus *bus = *state;
    static _Atomic uint64_t conv;
    lim_pid pid;
    asking ask;
    guest *g = guests_come(bus, 1, HOLDS);
    atomic_store(&conv, 0);
    keeper init = { .bus = bus, .participant = { g[0].id.id }, .conv = &conv };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = keeper_signal,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init,
                            .trap_exit = true };
    assert_int_equal(lim_runtime_spawn(bus->rt, &opts, &pid), LIM_OK);
    assert_int_equal(lim_runtime_send(bus->rt, pid, 1, lim__str("go")), LIM_OK);
    while (atomic_load(&conv) == 0)
        sched_yield();
    lim_conv c = { atomic_load(&conv) };
    asking_start(&ask, bus, c, &g[0], "from another one"); /* not its owner's: answered, too */
    wait_heard(&g[0], 1);
    lim_runtime_exit(bus->rt, pid, LIM_KILL);
    asking_end(&ask, LIM_HOW_CLOSED);
    assert_int_equal(ask.outcome.participant.len, 6);
    assert_memory_equal(ask.outcome.participant.ptr, "opener", 6); /* by whom */
    lim_outcome_fini(&ask.outcome);
    talk_gone(bus, c);
    guests_go(bus, g);
}

typedef struct waiting { /* what a blocked call is inside, without its thread */
    lim__wait wait;
    uint32_t ends;
    bool closed;
} waiting;

static bool waiting_ends(lim__wait *w, lim__wait_end end, const lim_signal *signal)
{
    waiting *is = LIM_CONTAINER(w, waiting, wait);
    is->ends++;
    is->closed = end == LIM__WAIT_CLOSING || (end == LIM__WAIT_LETTER && signal->type == &lim__type_outcome &&
                                              ((const lim__outcome_letter *)signal->body.ptr)->how == LIM_HOW_CLOSED);
    return true;
}

static void wait_for_a_message(lim_bus *bus, lim_conv c, waiting *w)
{
    *w = (waiting){ .wait = { .conv = { c.id }, .ref = lim__wait_ref(bus), .on_letter = waiting_ends } };
    lim__receive *r = lim__letter_new(NULL, &lim__type_receive, sizeof *r);
    *r = (lim__receive){ w->wait.ref, UINT64_MAX };
    assert_int_equal(lim__agent_ask(bus, lim__agent_for(bus, w->wait.conv), &w->wait, r), LIM_OK);
}

static void test_closing_the_bus_ends_whatever_waits(void **state) /* proves CV3 */
{
    (void)state;
    lim_bus *bus;
    waiting waits[4];
    guest *g = calloc(GUESTS_MAX, sizeof *g);
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = schedulers), &bus), LIM_OK);
    guest_come(bus, &g[0], 'a', g, HOLDS);
    lim_conv c = talk_open(bus, g[0].id);
    for (uint32_t i = 0; i < LIM_COUNT(waits); i++) {
        wait_for_a_message(bus, c, &waits[i]);
        if (i % 2 == 0) /* the others are still on their way */
            wait_pending(bus, c, i + 1);
    }
    lim_bus_close(bus);
    for (uint32_t i = 0; i < LIM_COUNT(waits); i++)
        assert_true(waits[i].ends == 1 && waits[i].closed);
    assert_int_equal(atomic_load(&g[0].ends), 1);
    free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_receive_that_timed_out_swallows_nothing),
        T(test_what_arrived_before_the_failure_is_delivered_after),
        T(test_what_is_received_is_counted_once),
        T(test_many_threads_receive_and_lose_or_double_nothing),
        T(test_answers_out_of_order_reach_those_who_asked),
        T(test_the_deadline_of_an_ask_is_kept_wherever_it_is),
        T(test_the_asks_of_the_dead_end_crashed_and_name_it),
        T(test_everybody_gets_what_is_sent_to_all),
        T(test_silent_ones_neither_echo_nor_end_a_receive),
        T(test_a_dead_participant_is_a_crash_and_no_obstacle),
        T(test_a_killed_conversation_ends_everything_in_order),
        T(test_a_killed_exchange_ends_its_ask_and_tells_its_participant),
        T(test_participants_survive_their_conversation),
        T(test_commands_behind_a_close_are_answered),
        T(test_a_conversation_ends_at_its_deadline),
        T(test_a_failed_one_can_be_closed_and_is_gone),
        T(test_an_illegal_transition_names_both_phases),
        T(test_the_state_of_an_ended_one_can_be_asked_for),
        T(test_phases_are_replayed_from_a_history_without_a_bus),
        T(test_close_gives_everything_back),
        T(test_the_end_of_its_owner_is_its_end),
        T(test_closing_the_bus_ends_whatever_waits),
    };
    RUN_BOTH(tests);
}
