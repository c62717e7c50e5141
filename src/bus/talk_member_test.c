/* SPDX-License-Identifier: Apache-2.0
 * talk_member_test.c - who takes part in a talk, what they say to each other, and how it is found from outside. */
#include "bus/talk_world.h"

/* ---- membership: everybody sees one order ---- */

static void test_membership_signals_and_words_to_all_come_in_one_order(void **state) /* proves CV12 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 3, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    send_all(bus, c, "one");
    assert_int_equal(lim_conv_join(bus, c, g[2].id), LIM_OK);
    guest_says_to(&g[2], c, LIM_EVERYBODY, "two");
    assert_receives(bus, c, g, "reply:joined b");
    assert_receives(bus, c, g, "reply:joined c");
    assert_receives(bus, c, g, "reply c two");
    assert_int_equal(lim_conv_signal(bus, c, "pause", lim__str("3h")), LIM_OK);
    assert_receives(bus, c, g, "reply:signal:pause - 3h");
    assert_int_equal(lim_conv_leave(bus, c, g[0].id), LIM_OK);
    wait_heard(&g[1], 6);
    guest_dies(&g[1]);
    assert_receives(bus, c, g, "reply:left a");
    assert_receives(bus, c, g, "reply:crashed:killed b");
    send_all(bus, c, "only you");
    assert_heard(&g[2], "joined a", "joined b", "signal:pause - 3h", "left a", "crashed:killed b", "told - only you");
    assert_heard(&g[0], "joined b", "told - one", "joined c", "told c two", "signal:pause - 3h");
    assert_heard(&g[1], "joined a", "told - one", "joined c", "told c two", "signal:pause - 3h", "left a");
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_one_that_left_hears_nothing_more_and_may_come_back(void **state) /* proves CV12 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 2, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    assert_int_equal(lim_conv_leave(bus, c, g[1].id), LIM_OK);
    assert_int_equal(lim_conv_leave(bus, c, g[1].id), LIM_E_NOTFOUND);
    send_all(bus, c, "to one");
    guest_says(&g[1], c, "may I?"); /* it takes no part: told so, and nobody hears it */
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    send_all(bus, c, "to both");
    assert_heard(&g[1], "joined a", "joined a", "told - to both");
    assert_heard(&g[0], "joined b", "left b", "told - to one", "joined b", "told - to both");
    assert_receives(bus, c, g, "reply:joined b");
    assert_receives(bus, c, g, "reply:left b");
    assert_receives(bus, c, g, "reply:joined b");
    assert_int_equal(talk_info(bus, c).buffered, 0);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_a_normal_end_is_leaving_and_not_a_crash(void **state) /* proves CV12 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 3, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    wait_heard(&g[1], 1);
    assert_int_equal(lim_leave(bus, g[1].id), LIM_OK);
    assert_receives(bus, c, g, "reply:joined b");
    assert_receives(bus, c, g, "reply:left b");
    assert_heard(&g[0], "joined b", "left b");
    talk_close(bus, c);
    guests_go(bus, g);
}

static lim_done hears_nothing(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d, (void)ctx;
    return LIM_DONE;
}

static void test_only_the_living_count_against_the_limit(void **state) /* proves CV12 CV5 */
{
    lim_bus *bus = *state;
    static lim_participant many[258];
    lim_conv c = talk_open(bus, ALL);
    for (uint32_t i = 0; i < LIM_COUNT(many); i++)
        assert_int_equal(
            lim_participant_open(bus, OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = hears_nothing }),
                                 &many[i]),
            LIM_OK);
    for (uint32_t i = 0; i < 256; i++)
        assert_int_equal(lim_conv_join(bus, c, many[i]), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, many[256]), LIM_E_FULL);
    assert_int_equal(lim_conv_leave(bus, c, many[7]), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, many[256]), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, many[257]), LIM_E_FULL);
    lim_conv_info info = talk_info(bus, c);
    assert_true(info.alive == 256 && info.dead == 1);
    talk_close(bus, c);
    for (uint32_t i = 0; i < LIM_COUNT(many); i++)
        assert_int_equal(lim_leave(bus, many[i]), LIM_OK);
}

static void test_a_required_one_s_end_is_the_end_of_all(void **state) /* proves CV6 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 3, HOLDS);
    asking asks[2];
    lim_outcome o;
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join_required(bus, c, g[1].id), LIM_OK);
    assert_int_equal(lim_conv_join(bus, c, g[2].id), LIM_OK);
    assert_receives(bus, c, g, "reply:joined b");
    asking_start(&asks[0], bus, c, &g[0], "first");
    asking_start(&asks[1], bus, c, NULL, "");
    wait_pending(bus, c, 1); /* the receive takes the other's joining */
    asking_end(&asks[1], LIM_HOW_REPLY);
    lim_outcome_fini(&asks[1].outcome);
    guest_dies(&g[1]);
    asking_end(&asks[0], LIM_HOW_CRASHED);
    assert_int_equal(asks[0].outcome.reason, LIM_KILLED);
    assert_true(asks[0].outcome.crashed_wall_us > 0);
    lim_outcome_fini(&asks[0].outcome);
    assert_int_equal(talk_info(bus, c).phase, LIM_PHASE_BROKEN);
    assert_int_equal(lim_conv_receive(bus, c, SOON, &o), LIM_OK);
    assert_true(o.how == LIM_HOW_CRASHED && o.reason == LIM_KILLED && o.participant.len > 0);
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_join(bus, c, g[2].id), LIM_E_CLOSED);
    wait_heard(&g[2], 3);
    assert_string_equal(g[2].heard[2], "crashed:killed b");
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_who_leaves_with_asks_in_hand_is_gone_with_reason_left(void **state) /* proves CV6 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 2, HOLDS);
    asking ask;
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    asking_start(&ask, bus, c, &g[1], "you?");
    wait_heard(&g[1], 2);
    assert_int_equal(lim_conv_leave(bus, c, g[1].id), LIM_OK);
    asking_end(&ask, LIM_HOW_CRASHED);
    assert_int_equal(ask.outcome.reason, LIM_LEFT);
    assert_int_equal(ask.outcome.handed_over, LIM_HANDED_UNKNOWN);
    lim_outcome_fini(&ask.outcome);
    assert_int_equal(talk_info(bus, c).phase, LIM_PHASE_ACTIVE); /* the other one is there */
    assert_int_equal(lim_conv_leave(bus, c, g[0].id), LIM_OK);
    assert_int_equal(talk_info(bus, c).phase, LIM_PHASE_BROKEN); /* and now nobody */
    talk_close(bus, c);
    guests_go(bus, g);
}

/* ---- words ---- */

static void test_a_participant_says_to_one_to_all_or_to_the_opener(void **state) /* proves CV12 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 3, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    guest_says(&g[0], c, "to the opener");
    guest_says_to(&g[0], c, g[1].id, "to b");
    guest_says_to(&g[0], c, LIM_EVERYBODY, "to all");
    guest_says_to(&g[0], c, g[2].id, "to a stranger");
    assert_heard(&g[1], "joined a", "told a to b", "told a to all");
    assert_heard(&g[0], "joined b", "refused:no_participant c to a stranger");
    assert_receives(bus, c, g, "reply:joined b");
    assert_receives(bus, c, g, "reply a to the opener");
    assert_receives(bus, c, g, "reply a to all");
    assert_int_equal(atomic_load(&g[2].count), 0);
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_a_full_inbox_is_told_to_who_speaks_and_nothing_is_lost(void **state) /* proves CV10 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 2, ECHOES);
    lim_conv c;
    assert_int_equal(
        lim_conv_open(bus, OPTS(lim_conv_opts, .participant = g[0].id, .timeout_ms = LIM_FOREVER, .inbox_max = 2), &c),
        LIM_OK);
    guest_says(&g[0], c, "one");
    guest_says(&g[0], c, "two");
    guest_says(&g[0], c, "three");
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK); /* events have room of their own */
    assert_heard(&g[0], "refused:inbox_full - three", "joined b");
    assert_receives(bus, c, g, "reply a one");
    guest_says(&g[0], c, "four");
    assert_receives(bus, c, g, "reply a two");
    assert_receives(bus, c, g, "reply:joined b");
    assert_receives(bus, c, g, "reply a four");
    char show[64];
    snprintf(show, sizeof show, "{\"op\":\"show\",\"id\":\"%llx\"}", (unsigned long long)c.id);
    assert_shown(bus, show, "\"refused\":1");
    talk_close(bus, c);
    guests_go(bus, g);
}

static void test_a_full_buffer_refuses_with_its_limit(void **state)
{
    lim_bus *bus = *state;
    lim_admission a;
    lim_conv c;
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .timeout_ms = LIM_FOREVER, .inbox_max = 3), &c), LIM_OK);
    for (int i = 0; i < 3; i++)
        send_all(bus, c, "kept");
    assert_int_equal(lim_conv_send(bus, c, ALL, lim__str("not kept"), &a), LIM_OK);
    assert_true(a.verdict == LIM_REJECT && a.why == LIM_WHY_INBOX_FULL && a.limit == 3 && a.current == 3);
    assert_true(a.retry_after_ms > 0 && a.delivered == 0);
    for (int i = 0; i < 3; i++)
        assert_receives(bus, c, NULL, "reply - kept");
    send_all(bus, c, "kept, too");
    assert_receives(bus, c, NULL, "reply - kept, too");
    talk_close(bus, c);
}

static void test_a_send_is_answered_with_how_many_have_it(void **state)
{
    lim_bus *bus = *state;
    lim_admission a;
    guest *g = guests_come(bus, 3, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    assert_int_equal(lim_conv_send(bus, c, ALL, lim__str("x"), &a), LIM_OK);
    assert_true(a.verdict == LIM_ACCEPT && a.matched == 2 && a.delivered == 2);
    assert_int_equal(lim_conv_send(bus, c, g[1].id, lim__str("x"), &a), LIM_OK);
    assert_true(a.verdict == LIM_ACCEPT && a.matched == 1 && a.delivered == 1);
    assert_int_equal(lim_conv_send(bus, c, g[2].id, lim__str("x"), &a), LIM_OK);
    assert_true(a.verdict == LIM_REJECT && a.why == LIM_WHY_NO_PARTICIPANT && a.delivered == 0);
    talk_close(bus, c);
    guests_go(bus, g);
}

/* ---- names, attributes, signals ---- */

static lim_err open_named(lim_bus *bus, const char *name, int64_t timeout_ms, lim_conv *out)
{
    return lim_conv_open(bus, OPTS(lim_conv_opts, .name = name, .timeout_ms = timeout_ms), out);
}

static void test_a_name_is_one_conversation_s_as_long_as_it_lives_however_it_ends(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    lim_conv c, again, found;
    for (int round = 0; round < 4; round++) {
        assert_int_equal(lim_conv_find(bus, "room-1", &found), LIM_E_NOTFOUND);
        assert_int_equal(open_named(bus, "room-1", round == 3 ? 5 : LIM_FOREVER, &c), LIM_OK);
        if (round < 3) {
            assert_int_equal(open_named(bus, "room-1", LIM_FOREVER, &again), LIM_E_EXISTS);
            assert_int_equal(lim_conv_find(bus, "room-1", &found), LIM_OK);
            assert_int_equal(found.id, c.id);
        }
        if (round == 0)
            assert_int_equal(lim_conv_close(bus, c), LIM_OK);
        else if (round == 1)
            assert_int_equal(lim_conv_cancel(bus, c), LIM_OK);
        else if (round == 2)
            lim_runtime_exit(bus->rt, (lim_pid){ c.id }, LIM_KILL);
        while (lim_conv_find(bus, "room-1", &found) == LIM_OK) /* round 3: its deadline */
            sched_yield();
        talk_gone(bus, c);
    }
}

static void test_conversations_are_found_by_their_attributes(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    static const char *const attributes[] = { "floor=3", "owner=ada", NULL };
    lim_conv c;
    char id[32];
    assert_int_equal(
        lim_conv_open(bus, OPTS(lim_conv_opts, .name = "room-1", .attributes = attributes, .timeout_ms = LIM_FOREVER),
                      &c),
        LIM_OK);
    snprintf(id, sizeof id, "\"id\":\"%llx\"", (unsigned long long)c.id);
    assert_shown(bus, "{\"op\":\"ls\",\"where\":{\"floor\":\"3\",\"owner\":\"ada\"}}", id);
    assert_shown(bus, "{\"op\":\"ls\",\"where\":{\"name\":\"room-1\"}}", "\"floor\":\"3\"");
    assert_shown(bus, "{\"op\":\"ls\",\"where\":{\"floor\":\"4\"}}", "\"conversations\":[]");
    talk_close(bus, c);
}

static void test_a_signal_reaches_everybody_who_works_on_it(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    guest *g = guests_come(bus, 2, ECHOES);
    lim_conv c = talk_open(bus, g[0].id);
    assert_int_equal(lim_conv_join(bus, c, g[1].id), LIM_OK);
    assert_receives(bus, c, g, "reply:joined b");
    assert_int_equal(lim_conv_signal(bus, c, "a.b", lim__str("")), LIM_E_INVALID);
    assert_int_equal(lim_conv_signal(bus, c, "", lim__str("")), LIM_E_INVALID);
    assert_int_equal(lim_conv_signal(bus, c, "$x", lim__str("")), LIM_E_INVALID);
    assert_int_equal(lim_conv_signal(bus, c, "stop", lim__str("now")), LIM_OK);
    assert_heard(&g[0], "joined b", "signal:stop - now");
    assert_heard(&g[1], "joined a", "signal:stop - now");
    assert_receives(bus, c, g, "reply:signal:stop - now");
    talk_close(bus, c);
    assert_int_equal(lim_conv_signal(bus, c, "stop", lim__str("now")), LIM_E_GONE);
    guests_go(bus, g);
}

static void test_names_are_as_workflow_engines_write_them(void **state)
{
    char name[256], big[256];
    lim_diag diag;
    (void)state;
    assert_int_equal(lim_workflow_name("dispatch", "default", "email-queue", name, &diag), LIM_OK);
    assert_string_equal(name, "aion.dispatch.default.email-queue");
    assert_int_equal(lim_workflow_name("signal", "prod", "wf-123", name, &diag), LIM_OK);
    assert_string_equal(name, "aion.signal.prod.wf-123");
    assert_int_equal(lim_workflow_name("history", "prod", "wf-123", name, NULL), LIM_OK);
    assert_string_equal(name, "aion.history.prod.wf-123");
    static const char *const bad[][4] = {
        { "dispatch", "bad.ns", "q", "namespace 'bad.ns' has a dot" },
        { "dispatch", "", "", "namespace '' is empty" },
        { "dispatch", "ns", "", "task_queue '' is empty" },
        { "signal", "ns", "a.b", "workflow_id 'a.b' has a dot" },
        { "history", "ns", "a b", "workflow_id 'a b' has something else" },
        { "order", "ns", "id", "kind 'order' is not" },
    };
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        assert_int_equal(lim_workflow_name(bad[i][0], bad[i][1], bad[i][2], name, &diag), LIM_E_INVALID);
        assert_memory_equal(diag.text, bad[i][3], strlen(bad[i][3]));
    }
    memset(big, 'x', sizeof big - 1);
    big[238] = '\0';
    assert_int_equal(lim_workflow_name("signal", "prod", big, name, &diag), LIM_OK);
    big[238] = 'x';
    big[243] = '\0';
    assert_int_equal(lim_workflow_name("signal", "prod", big, name, &diag), LIM_E_INVALID);
    assert_memory_equal(diag.text, "workflow_id", 11);
}

static void test_a_running_workflow_is_signalled_by_its_name(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    char name[256];
    lim_conv mine, found;
    assert_int_equal(lim_workflow_name("signal", "prod", "wf-123", name, NULL), LIM_OK);
    assert_int_equal(open_named(bus, name, LIM_FOREVER, &mine), LIM_OK); /* the engine, for its workflow */
    assert_int_equal(lim_conv_find(bus, name, &found), LIM_OK);          /* whoever wants to signal it */
    assert_int_equal(lim_conv_signal(bus, found, "approve", lim__str("{\"by\":\"ada\"}")), LIM_OK);
    assert_int_equal(lim_conv_signal(bus, found, "resume", lim__str("")), LIM_OK);
    assert_receives(bus, mine, NULL, "reply:signal:approve - {\"by\":\"ada\"}");
    assert_receives(bus, mine, NULL, "reply:signal:resume -");
    talk_close(bus, mine); /* it has terminated: told at once, not signalled into the void */
    assert_int_equal(lim_conv_find(bus, name, &found), LIM_E_NOTFOUND);
    assert_int_equal(lim_conv_signal(bus, mine, "approve", lim__str("")), LIM_E_GONE);
}

enum { STORY_MAX = 512 };

static void on_line(void *ctx, const lim_history_entry *e)
{
    char *all = ctx;
    size_t len = strlen(all);
    snprintf(all + len, STORY_MAX - len, "%.*s", (int)e->kind.len, (const char *)e->kind.ptr);
    len = strlen(all);
    if (e->detail.len > 0)
        snprintf(all + len, STORY_MAX - len, ":%.*s", (int)e->detail.len, (const char *)e->detail.ptr);
    len = strlen(all);
    if (e->bytes > 0)
        snprintf(all + len, STORY_MAX - len, "/%u", (unsigned)e->bytes);
    snprintf(all + strlen(all), STORY_MAX - strlen(all), " ");
}

static void test_a_history_tells_also_what_was_refused(void **state) /* proves CV17 */
{
    lim_bus *bus = *state;
    lim_conv c;
    lim_admission a;
    lim_outcome o;
    uint64_t entries;
    char all[STORY_MAX] = "";
    guest *g = guests_come(bus, 1, ECHOES);
    assert_int_equal(
        lim_conv_open(bus, OPTS(lim_conv_opts, .timeout_ms = LIM_FOREVER, .inbox_max = 1, .trace = true), &c), LIM_OK);
    send_all(bus, c, "one");
    assert_int_equal(lim_conv_send(bus, c, ALL, lim__str("more"), &a), LIM_OK);
    assert_int_equal(a.why, LIM_WHY_INBOX_FULL);
    assert_int_equal(lim_conv_ask(bus, c, ALL, lim__str("anybody"), SOON, &o), LIM_OK);
    assert_int_equal(o.why, LIM_WHY_NO_PARTICIPANT);
    lim_outcome_fini(&o);
    assert_int_equal(lim_conv_join(bus, c, g[0].id), LIM_OK);
    assert_int_equal(lim_conv_ask(bus, c, ALL, lim__str("you"), SOON, &o), LIM_OK);
    lim_outcome_fini(&o);
    talk_close(bus, c);
    assert_int_equal(lim_conv_history(bus, c, 0, on_line, all, &entries), LIM_OK);
    assert_string_equal(all, "opened phase:active sent/3 refused:inbox_full/4 refused:no_participant/7 joined asked/3 "
                             "answered:reply/3 phase:completing phase:closed ended:normal ");
    guests_go(bus, g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_history_tells_also_what_was_refused),
        T(test_membership_signals_and_words_to_all_come_in_one_order),
        T(test_one_that_left_hears_nothing_more_and_may_come_back),
        T(test_a_normal_end_is_leaving_and_not_a_crash),
        T(test_only_the_living_count_against_the_limit),
        T(test_a_required_one_s_end_is_the_end_of_all),
        T(test_who_leaves_with_asks_in_hand_is_gone_with_reason_left),
        T(test_a_participant_says_to_one_to_all_or_to_the_opener),
        T(test_a_full_inbox_is_told_to_who_speaks_and_nothing_is_lost),
        T(test_a_full_buffer_refuses_with_its_limit),
        T(test_a_send_is_answered_with_how_many_have_it),
        T(test_a_name_is_one_conversation_s_as_long_as_it_lives_however_it_ends),
        T(test_conversations_are_found_by_their_attributes),
        T(test_a_signal_reaches_everybody_who_works_on_it),
        T(test_names_are_as_workflow_engines_write_them),
        T(test_a_running_workflow_is_signalled_by_its_name),
    };
    RUN_BOTH(tests);
}
