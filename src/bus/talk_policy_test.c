/* SPDX-License-Identifier: Apache-2.0
 * talk_policy_test.c - what a talk does when a participant dies, as its opener wants it; and what it inherits. */
#include "bus/talk_world.h"

/* ---- crash policies ---- */

static lim_participant serve(lim_bus *bus, const char *group, const char *identity, guest *g)
{
    lim_participant p;
    lim_handler h = { .on_message = guest_hears, .on_end = guest_ended, .ctx = g };
    g->bus = bus;
    assert_int_equal(lim_serve(bus, group, OPTS(lim_serve_opts, .identity = identity, .capacity = 9, .handler = h), &p),
                     LIM_OK);
    g->id = p;
    return p;
}

static void test_policy_next_moves_asks_and_names_those_it_lost(void **state) /* proves CV7 */
{
    lim_bus *bus = *state;
    lim_conv c;
    asking ask;
    static const char *const names[] = { "one", "two", "three" };
    guest *g = calloc(GUESTS_MAX, sizeof *g);
    for (int i = 0; i < 3; i++)
        atomic_store(&g[i].manner, HOLDS);
    serve(bus, "solvers", names[0], &g[0]);
    assert_int_equal(
        lim_conv_open(bus, OPTS(lim_conv_opts, .group = "solvers", .on_crash = LIM_CRASH_NEXT, .timeout_ms = SOON), &c),
        LIM_OK);
    asking_start(&ask, bus, c, &g[0], "solve");
    wait_heard(&g[0], 1);
    for (int i = 1; i < 3; i++) {
        serve(bus, "solvers", names[i], &g[i]);
        guest_dies(&g[i - 1]);
        wait_heard(&g[i], 1); /* the same ask, in the same conversation */
        assert_int_equal(g[i].conv[0].id, c.id);
    }
    lim_delivery d = standing(&g[2], 0);
    assert_int_equal(lim_reply_to(bus, d.self, d.conv, d.lease, lim__str("42")), LIM_OK);
    asking_end(&ask, LIM_HOW_REPLY);
    assert_int_equal(ask.outcome.losses, 2);
    assert_int_equal(ask.outcome.excluded_count, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_memory_equal(ask.outcome.excluded[i].identity.ptr, names[i], strlen(names[i]));
    assert_memory_equal(ask.outcome.participant.ptr, "three", 5);
    lim_outcome_fini(&ask.outcome);
    asking_start(&ask, bus, c, &g[2], "solve");
    wait_heard(&g[2], 2);
    guest_dies(&g[2]); /* and nobody is left */
    asking_end(&ask, LIM_HOW_CRASHED);
    assert_int_equal(ask.outcome.why, LIM_WHY_NO_PARTICIPANT);
    assert_memory_equal(ask.outcome.participant.ptr, "three", 5);
    lim_outcome_fini(&ask.outcome);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_when_no_next_one_is_left_the_others_go_on_and_the_ask_is_told(void **state) /* proves CV7 */
{
    lim_bus *bus = *state;
    lim_conv c;
    lim_outcome o;
    asking ask;
    guest *g = guests_come(bus, 1, ECHOES);
    atomic_store(&g[1].manner, HOLDS);
    serve(bus, "solvers", "one", &g[1]);
    assert_int_equal(
        lim_conv_open(bus, OPTS(lim_conv_opts, .group = "solvers", .on_crash = LIM_CRASH_NEXT, .timeout_ms = SOON), &c),
        LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, g[0].id), LIM_OK);
    asking_start(&ask, bus, c, &g[1], "solve");
    wait_heard(&g[1], 2);
    guest_dies(&g[1]);
    asking_end(&ask, LIM_HOW_CRASHED);
    assert_int_equal(ask.outcome.why, LIM_WHY_NO_PARTICIPANT);
    assert_int_equal(ask.outcome.excluded_count, 1);
    assert_memory_equal(ask.outcome.excluded[0].identity.ptr, "one", 3);
    lim_outcome_fini(&ask.outcome);
    assert_int_equal(lim_conv_ask(bus, c, g[0].id, lim__str("and you?"), SOON, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    assert_int_equal(o.why, LIM_WHY_NONE);
    lim_outcome_fini(&o);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_the_next_one_is_none_of_those_that_took_part_before(void **state) /* proves CV7 */
{
    lim_bus *bus = *state;
    lim_conv c;
    asking ask;
    guest *g = calloc(GUESTS_MAX, sizeof *g);
    for (int i = 0; i < 2; i++)
        atomic_store(&g[i].manner, HOLDS);
    serve(bus, "solvers", "one", &g[0]);
    assert_int_equal(
        lim_conv_open(bus, OPTS(lim_conv_opts, .group = "solvers", .on_crash = LIM_CRASH_NEXT, .timeout_ms = SOON), &c),
        LIM_OK);
    asking_start(&ask, bus, c, &g[0], "solve");
    wait_heard(&g[0], 1);
    serve(bus, "solvers", "two", &g[1]);
    assert_int_equal(lim_conv_leave(bus, c, g[0].id), LIM_OK); /* it still serves the group, and is idle */
    wait_heard(&g[1], 1);
    assert_int_equal(g[1].conv[0].id, c.id);
    assert_int_equal(lim_conv_leave(bus, c, g[1].id), LIM_OK); /* both are there, and neither shall have it again */
    asking_end(&ask, LIM_HOW_CRASHED);
    assert_int_equal(ask.outcome.why, LIM_WHY_NO_PARTICIPANT);
    assert_int_equal(ask.outcome.excluded_count, 2);
    const lim_excluded *past = ask.outcome.excluded;
    assert_true(past[0].observed_wall_us > 0 && past[0].rerouted_wall_us >= past[0].observed_wall_us);
    assert_int_equal(past[1].rerouted_wall_us, 0);
    lim_outcome_fini(&ask.outcome);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_policy_compensate_leaves_a_task_that_says_all(void **state) /* proves CV8 */
{
    lim_bus *bus = *state;
    for (int traced = 0; traced < 2; traced++) {
        lim_conv c;
        asking ask;
        lim_outcome o;
        lim_taken taken;
        lim_participant undoer;
        guest *g = guests_come(bus, 1, ECHOES);
        assert_int_equal(lim_work(bus, "undo", OPTS(lim_serve_opts, .capacity = 1), &undoer), LIM_OK);
        assert_int_equal(
            lim_conv_open(bus,
                          OPTS(lim_conv_opts, .participant = g[0].id, .timeout_ms = LIM_FOREVER,
                               .on_crash = LIM_CRASH_COMPENSATE, .compensate = "undo", .trace = traced != 0),
                          &c),
            LIM_OK);
        assert_int_equal(lim_conv_ask(bus, c, g[0].id, lim__str("book it"), SOON, &o), LIM_OK);
        lim_outcome_fini(&o);
        atomic_store(&g[0].manner, HOLDS);
        asking_start(&ask, bus, c, &g[0], "pay it");
        wait_heard(&g[0], 2);
        guest_dies(&g[0]);
        asking_end(&ask, LIM_HOW_CRASHED);
        assert_true(ask.outcome.compensation.id != 0); /* a link to it */
        assert_int_equal(lim_take(bus, undoer, SOON, &taken), LIM_OK);
        assert_int_equal(taken.delivery.conv.id, ask.outcome.compensation.id);
        lim_bytes says = taken.delivery.payload;
        assert_true(has(says, "\"asked\":2") && has(says, "\"answered\":1") && has(says, "\"pending\":1"));
        assert_true(has(says, "\"reason\":\"killed\"") && has(says, "\"kind\":\"talk\""));
        assert_true(has(says, "\"kind\":\"asked\"") && has(says, "\"kind\":\"answered\"")); /* traced or not */
        assert_int_equal(lim_reply_to(bus, undoer, taken.delivery.conv, taken.delivery.lease, lim__str("undone")),
                         LIM_OK);
        assert_int_equal(lim_task_await(bus, ask.outcome.compensation, SOON, &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        lim_outcome_fini(&o);
        lim_taken_fini(&taken);
        lim_outcome_fini(&ask.outcome);
        assert_int_equal(talk_info(bus, c).phase, LIM_PHASE_BROKEN);
        assert_int_equal(lim_leave(bus, undoer), LIM_OK);
        talk_close(bus, c);
        guests_go(bus, g);
    }
}

/* ---- origin ---- */

static void test_a_child_inherits_and_cannot_go_too_deep(void **state) /* proves CV16 */
{
    lim_bus *bus = *state;
    static const char trace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    lim_conv c, child;
    char parent[48];
    guest *g = guests_come(bus, 1, ECHOES);
    lim_conv_opts o = { .size = sizeof o, .participant = g[0].id, .timeout_ms = LIM_FOREVER };
    o.cause = (lim_cause){ .conv = { 0xabc }, .hops = 3, .remaining_ms = 30000 };
    memcpy(o.cause.traceparent, trace, sizeof trace);
    assert_int_equal(lim_conv_open(bus, &o, &c), LIM_OK);
    lim_conv_info info = talk_info(bus, c);
    assert_true(info.remaining_ms <= 30000); /* never later than its parent's */
    send_all(bus, c, "deep");
    assert_heard(&g[0], "told - deep");
    assert_string_equal(g[0].cause.traceparent, trace);
    assert_int_equal(g[0].cause.hops, 4);
    assert_int_equal(g[0].cause.conv.id, c.id);
    assert_true(g[0].cause.remaining_ms <= 30000);
    snprintf(parent, sizeof parent, "\"parent\":\"abc\",\"hops\":4");
    assert_shown(bus, "{\"op\":\"ls\"}", parent);
    o.cause = g[0].cause; /* who serves it opens another one */
    assert_int_equal(lim_conv_open(bus, &o, &child), LIM_OK);
    snprintf(parent, sizeof parent, "\"parent\":\"%llx\",\"hops\":5", (unsigned long long)c.id);
    assert_shown(bus, "{\"op\":\"ls\"}", parent);
    assert_true(talk_info(bus, child).remaining_ms <= g[0].cause.remaining_ms); /* a clock that runs is no matter */
    talk_close(bus, child);
    o.cause.hops = LIM_HOPS_MAX;
    assert_int_equal(lim_conv_open(bus, &o, &child), LIM_E_INVALID);
    o.cause.hops = LIM_HOPS_MAX - 1;
    assert_int_equal(lim_conv_open(bus, &o, &child), LIM_OK);
    talk_close(bus, child);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_what_came_without_a_trace_begins_none(void **state) /* proves CV16 */
{
    (void)state;
    lim_delivery d = { .conv = { 7 }, .hops = 2, .remaining_ms = 900 };
    lim_cause cause;
    lim_cause_of(&d, &cause);
    assert_true(cause.conv.id == 7 && cause.hops == 2 && cause.remaining_ms == 900 && cause.traceparent[0] == '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_policy_next_moves_asks_and_names_those_it_lost),
        T(test_when_no_next_one_is_left_the_others_go_on_and_the_ask_is_told),
        T(test_the_next_one_is_none_of_those_that_took_part_before),
        T(test_policy_compensate_leaves_a_task_that_says_all),
        T(test_a_child_inherits_and_cannot_go_too_deep),
        T(test_what_came_without_a_trace_begins_none),
    };
    RUN_BOTH(tests);
}
