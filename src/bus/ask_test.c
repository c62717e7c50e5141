/* SPDX-License-Identifier: Apache-2.0
 * ask_test.c - what asks and tasks carry with them, and leave behind: depth, time and trace of where they come from,
 * compensation, histories, signals, reports; and what is known of a crash. */
#include "bus/exchange_world.h"
#include "bus/exchange.h"
#include "bus/history.h"
#include <stdlib.h>

#define ASK(...)  OPTS(lim_ask_opts, .timeout_ms = 60000, __VA_ARGS__)
#define TASK(...) OPTS(lim_dispatch_opts, .timeout_ms = 60000, __VA_ARGS__)

static const char trace_text[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/* ---- where it comes from ---- */

static void test_a_child_inherits_depth_time_and_trace(void **state) /* proves CV16 */
{
    lim_bus *bus = *state;
    worker w = WORKER("hr");
    got parent = GOT;
    lim_outcome o;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    lim_participant p = serve(bus, "g", &w, "w");
    memcpy(opts.cause.traceparent, trace_text, sizeof trace_text);
    assert_int_equal(lim_ask_async(bus, "g", BYTES("parent"), &opts, on_outcome, &parent, NULL), LIM_OK);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(w.seen[0].hops, 0);
    assert_string_equal(w.seen[0].cause.traceparent, trace_text);
    assert_int_equal(w.seen[0].cause.conv.id, w.seen[0].conv.id);
    opts = (lim_ask_opts){ .size = sizeof opts, .timeout_ms = LIM_FOREVER, .cause = w.seen[0].cause };
    assert_int_equal(lim_ask(bus, "g", BYTES("child"), &opts, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    lim_outcome_fini(&o);
    assert_int_equal(w.seen[1].hops, 1);
    assert_string_equal(w.seen[1].cause.traceparent, trace_text);
    assert_true(w.seen[1].remaining_ms <= w.seen[0].remaining_ms); /* though it said for ever */
    assert_true(w.seen[1].remaining_ms > 0);
    assert_int_equal(lim_reply_to(bus, p, w.seen[0].conv, w.seen[0].lease, BYTES("done")), LIM_OK);
    got_wait(&parent, &parent.count, 1);
}

static void test_a_loop_of_agents_ends_at_the_hop_limit(void **state) /* proves CV16 */
{
    lim_bus *bus = *state;
    worker w = WORKER("r");
    lim_outcome o;
    lim_admission a;
    lim_conv t;
    serve(bus, "g", &w, "w");
    lim_ask_opts deep = { .size = sizeof deep,
                          .timeout_ms = 60000,
                          .cause = { .conv = { 1 }, .hops = LIM_HOPS_MAX - 1 } };
    assert_int_equal(lim_ask(bus, "g", BYTES("x"), &deep, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    lim_outcome_fini(&o);
    deep.cause.hops = LIM_HOPS_MAX;
    assert_int_equal(lim_ask(bus, "g", BYTES("x"), &deep, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REFUSED);
    assert_int_equal(o.why, LIM_WHY_HOP_LIMIT);
    assert_int_equal(o.handed_over, LIM_HANDED_NO);
    lim_outcome_fini(&o);
    assert_int_equal(lim_dispatch(bus, "q", BYTES("x"), TASK(.cause = deep.cause), NULL, NULL, &a, &t), LIM_OK);
    assert_int_equal(a.verdict, LIM_REJECT);
    assert_int_equal(a.why, LIM_WHY_HOP_LIMIT);
    assert_int_equal(w.count, 1);
}

/* ---- crashes ---- */

static void test_a_crash_is_known_to_have_been_handed_over(void **state) /* proves CV3 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got pushed = GOT, pulled = GOT, unread = GOT;
    lim_participant p = serve(bus, "g", &w, "w"), q;
    lim_taken t = { 0 };
    assert_int_equal(lim_ask_async(bus, "g", BYTES("x"), ASK(0), on_outcome, &pushed, NULL), LIM_OK);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    got_wait(&pushed, &pushed.count, 1);
    assert_int_equal(pushed.how, LIM_HOW_CRASHED);
    assert_int_equal(pushed.handed_over, LIM_HANDED_YES);
    assert_int_equal(lim_serve(bus, "h", OPTS(lim_serve_opts, .capacity = 2), &q), LIM_OK);
    assert_int_equal(lim_ask_async(bus, "h", BYTES("x"), ASK(0), on_outcome, &pulled, NULL), LIM_OK);
    assert_int_equal(lim_take(bus, q, 60000, &t), LIM_OK);
    lim_taken_fini(&t);
    lim_conv c;
    lim_conv_info info;
    assert_int_equal(lim_ask_async(bus, "h", BYTES("x"), ASK(0), on_outcome, &unread, &c), LIM_OK);
    do
        assert_int_equal(lim_conv_inspect(bus, c, &info), LIM_OK);
    while (info.phase != LIM_PHASE_ACTIVE); /* somebody has it */
    assert_int_equal(lim_leave(bus, q), LIM_OK);
    got_wait(&pulled, &pulled.count, 1);
    got_wait(&unread, &unread.count, 1);
    assert_int_equal(pulled.handed_over, LIM_HANDED_YES);
    assert_int_equal(unread.handed_over, LIM_HANDED_UNKNOWN); /* it lay in the box; that is as much as is known */
}

static void test_a_crash_is_compensated_by_a_task(void **state) /* proves CV8 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h"), undoes = WORKER("r");
    got g = GOT;
    lim_outcome o;
    lim_participant p = serve(bus, "pay", &w, "till-1");
    assert_int_equal(lim_ask_async(bus, "pay", BYTES("12 EUR"),
                                   ASK(.type = "charge", .on_crash = LIM_CRASH_COMPENSATE, .compensate = "undo"),
                                   on_outcome, &g, NULL),
                     LIM_OK);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_CRASHED);
    assert_int_not_equal(g.compensation.id, 0);
    work(bus, "undo", &undoes, "undoer");
    assert_int_equal(lim_task_await(bus, g.compensation, 60000, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    char story[1024], id[32];
    copy_text(story, sizeof story, o.payload);
    lim_outcome_fini(&o);
    snprintf(id, sizeof id, "\"conversation\":\"%llx\"", (unsigned long long)g.conv.id);
    assert_non_null(strstr(story, id));
    assert_non_null(strstr(story, "\"group\":\"pay\",\"type\":\"charge\",\"participant\":\"till-1\""));
    assert_non_null(strstr(story, "\"reason\":\"left\""));
    assert_non_null(strstr(story, "\"handed_over\":\"yes\",\"parts\":0,\"request\":\"MTIgRVVS\"")); /* 12 EUR */
    assert_int_equal(undoes.seen[0].hops, 1);
    assert_int_equal(undoes.seen[0].remaining_ms, LIM_FOREVER);
}

static void test_a_compensation_that_its_queue_refuses_is_a_dead_letter(void **state) /* proves CV8 GR9 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    char json[2048];
    lim_participant p = serve(bus, "pay", &w, "till-1");
    admin(bus, "undo", "{\"op\":\"queue.drain\"}", NULL, 0);
    assert_int_equal(lim_ask_async(bus, "pay", BYTES("x"), ASK(.on_crash = LIM_CRASH_COMPENSATE, .compensate = "undo"),
                                   on_outcome, &g, NULL),
                     LIM_OK);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    got_wait(&g, &g.count, 1);
    while (lim_alive(bus->rt, (lim_pid){ g.compensation.id }))
        sched_yield();
    admin(bus, "undo", "{\"op\":\"dead.ls\"}", json, sizeof json);
    assert_non_null(strstr(json, "\"count\":1"));
    assert_non_null(strstr(json, "\"why\":\"closing\""));
}

static void test_a_policy_needs_its_queue_and_a_queue_its_policy(void **state)
{
    lim_bus *bus = *state;
    lim_outcome o;
    assert_int_equal(lim_ask(bus, "g", BYTES("x"), ASK(.on_crash = LIM_CRASH_COMPENSATE), &o), LIM_E_MISUSE);
    assert_int_equal(lim_ask(bus, "g", BYTES("x"), ASK(.compensate = "undo"), &o), LIM_E_MISUSE);
    assert_int_equal(lim_ask(bus, "g", BYTES("x"), ASK(.on_crash = LIM_CRASH_COMPENSATE, .compensate = "$x"), &o),
                     LIM_E_INVALID);
}

/* ---- histories ---- */

typedef struct story {
    uint32_t codes[64];
    size_t count;
    char words[512];
} story;

static uint64_t number_after(const char *json, const char *key)
{
    const char *at = strstr(json, key);
    return at != NULL ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void on_entry(void *ctx, const lim_history_entry *e)
{
    story *s = ctx;
    size_t len = strlen(s->words);
    snprintf(s->words + len, sizeof s->words - len, "%.*s ", (int)e->kind.len, (const char *)e->kind.ptr);
}

/* Its history, as it is shown; and the codes in it. */
static void story_of(lim_bus *bus, lim_conv conv, story *s)
{
    uint64_t entries;
    lim__buf json = { 0 };
    lim__json j = lim__json_begin(&json);
    *s = (story){ 0 };
    assert_int_equal(lim_conv_history(bus, conv, 0, on_entry, s, &entries), LIM_OK);
    while (lim_alive(bus->rt, (lim_pid){ conv.id }))
        sched_yield();
    lim__json_open(&j, NULL, '{');
    assert_true(lim__history_ended_json(bus, (lim_pid){ conv.id }, 0, &j));
    lim__json_close(&j);
    lim__buf_add(&json, "", 1);
    for (const char *at = (const char *)json.ptr + json.start; (at = strstr(at, "\"code\":")) != NULL; at++) {
        uint32_t code = (uint32_t)number_after(at, "\"code\":");
        if (code != 0)
            s->codes[s->count++] = code;
    }
    lim__buf_fini(&json);
}

static void test_a_history_leads_to_the_same_end_without_a_bus(void **state) /* proves CV1 CV17 */
{
    lim_bus *bus = *state;
    worker w = WORKER("fhr");
    got g = GOT;
    lim_admission a;
    lim_conv t;
    story s;
    admin(bus, "q", "{\"op\":\"queue.configure\",\"attempts_max\":3,\"backoff_min_ms\":1}", NULL, 0);
    lim_participant p = work(bus, "q", &w, "w");
    assert_int_equal(lim_dispatch(bus, "q", BYTES("x"), TASK(.trace = true), on_outcome, &g, &a, &t), LIM_OK);
    worker_wait(&w, &w.count, 2);
    assert_int_equal(lim_leave(bus, p), LIM_OK);
    work(bus, "q", &w, "w2");
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    story_of(bus, t, &s);
    assert_string_equal(s.words,
                        "opened assigned taken failed assigned taken crashed assigned taken answered outcome ");
    assert_int_equal(lim__ex_replay(s.codes, s.count), LIM__EX_ENDED);
    assert_int_equal(lim__ex_replay(s.codes, s.count - 1), LIM__EX_HELD); /* one before the answer */
    assert_int_equal(lim__ex_replay(s.codes, 3), LIM__EX_PLACING);        /* after the first failure */
}

static void test_a_queue_with_trace_on_keeps_histories_of_all_its_tasks(void **state) /* proves CV1 */
{
    lim_bus *bus = *state;
    worker w = WORKER("r");
    got g = GOT;
    lim_admission a;
    lim_conv t;
    story s;
    uint64_t entries;
    work(bus, "q", &w, "w");
    assert_int_equal(lim_dispatch(bus, "q", BYTES("x"), TASK(0), on_outcome, &g, &a, &t), LIM_OK);
    got_wait(&g, &g.count, 1);
    assert_int_equal(lim_conv_history(bus, t, 0, on_entry, &s, &entries), LIM_E_NOTFOUND);
    admin(bus, "q", "{\"op\":\"queue.configure\",\"trace\":true}", NULL, 0);
    assert_int_equal(lim_dispatch(bus, "q", BYTES("x"), TASK(0), on_outcome, &g, &a, &t), LIM_OK);
    got_wait(&g, &g.count, 2);
    story_of(bus, t, &s);
    assert_string_equal(s.words, "opened assigned taken answered outcome ");
    assert_int_equal(lim__ex_replay(s.codes, s.count), LIM__EX_ENDED);
}

/* ---- from outside ---- */

static void test_a_signal_reaches_whoever_works_on_the_task(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    lim_admission a;
    lim_conv t;
    assert_int_equal(lim_dispatch(bus, "q", BYTES("x"), TASK(0), on_outcome, &g, &a, &t), LIM_OK);
    assert_int_equal(lim_conv_signal(bus, t, "early", BYTES("1")), LIM_OK); /* nobody works on it yet */
    lim_participant p = work(bus, "q", &w, "w");
    worker_wait(&w, &w.count, 2);
    assert_int_equal(lim_conv_signal(bus, t, "late", BYTES("2")), LIM_OK);
    worker_wait(&w, &w.count, 3);
    assert_int_equal(w.seen[0].event, LIM_EVENT_NONE);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(w.seen[i].event, LIM_EVENT_SIGNAL);
        assert_string_equal(w.seen[i].type, i == 1 ? "early" : "late");
        assert_string_equal(w.seen[i].text, i == 1 ? "1" : "2");
        assert_int_equal(w.seen[i].conv.id, t.id);
    }
    assert_int_equal(lim_reply_to(bus, p, t, w.seen[0].lease, BYTES("y")), LIM_OK);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
}

static void test_the_outcome_is_reported_to_a_conversation(void **state) /* proves GR13 */
{
    lim_bus *bus = *state;
    worker w = WORKER("rf");
    lim_conv talk;
    lim_outcome o;
    lim_admission a;
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .timeout_ms = LIM_FOREVER), &talk), LIM_OK);
    work(bus, "q", &w, "w");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lim_dispatch(bus, "q", BYTES("job"), TASK(.report_to = talk), NULL, NULL, &a, NULL), LIM_OK);
        assert_int_equal(lim_conv_receive(bus, talk, 60000, &o), LIM_OK);
        char text[512];
        copy_text(text, sizeof text, o.payload);
        if (i == 0)
            assert_string_equal(text, "job");
        else
            assert_non_null(strstr(text, "\"how\":\"failed\""));
        lim_outcome_fini(&o);
    }
    assert_int_equal(lim_conv_close(bus, talk), LIM_OK);
}

static int busy_places(lim_bus *bus)
{
    lim_outcome o;
    char text[4096];
    int n = 0;
    assert_int_equal(lim_sys(bus, "$sys.workers", "{\"op\":\"ls\"}", 60000, &o), LIM_OK);
    copy_text(text, sizeof text, o.payload);
    lim_outcome_fini(&o);
    for (const char *at = text; (at = strstr(at, "\"in_flight\":1")) != NULL; at++)
        n++;
    return n;
}

static void test_places_taken_elsewhere_count_in_every_group_one_is_in(void **state) /* proves GR1 */
{
    lim_bus *bus = *state;
    worker w = WORKER("r");
    got g = GOT;
    lim_admission a;
    lim_conv t;
    lim_participant p = work(bus, "a", &w, "w"), same;
    assert_int_equal(lim_work(bus, "b", OPTS(lim_serve_opts, .capacity = 1, .participant = p), &same), LIM_OK);
    assert_int_equal(same.id, p.id);
    assert_int_equal(lim_report_used(bus, p, 1), LIM_OK);
    while (busy_places(bus) != 2) /* it is told to each group in turn */
        continue;
    for (int i = 0; i < 2; i++)
        assert_int_equal(lim_dispatch(bus, i == 0 ? "a" : "b", BYTES("x"), OPTS(lim_dispatch_opts, .timeout_ms = 50),
                                      on_outcome, &g, &a, &t),
                         LIM_OK);
    got_wait(&g, &g.count, 2);
    assert_int_equal(g.how, LIM_HOW_TIMEOUT);
    assert_int_equal(w.count, 0);
    assert_int_equal(lim_report_used(bus, p, 0), LIM_OK);
    assert_int_equal(lim_dispatch(bus, "b", BYTES("x"), TASK(0), on_outcome, &g, &a, &t), LIM_OK);
    got_wait(&g, &g.count, 3);
    assert_int_equal(g.how, LIM_HOW_REPLY);
}

static void test_system_groups_are_asked_in_one_call(void **state) /* proves SV5 */
{
    lim_bus *bus = *state;
    lim_outcome o;
    assert_int_equal(lim_sys(bus, "$sys.info", "{\"op\":\"info\"}", 60000, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    assert_int_equal(*(const char *)o.payload.ptr, '{');
    lim_outcome_fini(&o);
    assert_int_equal(lim_sys(bus, "mine", "{}", 60000, &o), LIM_E_MISUSE);
    assert_int_equal(lim_sys(bus, "$sys.info", NULL, 60000, &o), LIM_E_MISUSE);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
    const struct CMUnitTest tests[] = {
        T(test_a_child_inherits_depth_time_and_trace),
        T(test_a_loop_of_agents_ends_at_the_hop_limit),
        T(test_a_crash_is_known_to_have_been_handed_over),
        T(test_a_crash_is_compensated_by_a_task),
        T(test_a_compensation_that_its_queue_refuses_is_a_dead_letter),
        T(test_a_policy_needs_its_queue_and_a_queue_its_policy),
        T(test_a_history_leads_to_the_same_end_without_a_bus),
        T(test_a_queue_with_trace_on_keeps_histories_of_all_its_tasks),
        T(test_a_signal_reaches_whoever_works_on_the_task),
        T(test_the_outcome_is_reported_to_a_conversation),
        T(test_places_taken_elsewhere_count_in_every_group_one_is_in),
        T(test_system_groups_are_asked_in_one_call),
    };
    int failed = cmocka_run_group_tests_name("one scheduler", tests, NULL, NULL);
    schedulers = 2;
    return failed + cmocka_run_group_tests_name("two schedulers", tests, NULL, NULL);
}
