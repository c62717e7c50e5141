/* SPDX-License-Identifier: Apache-2.0
 * schedule_test.c - schedules in simulated time: what fires when, and what does not. */
#include "bus/plan_world.h"
#include "bus/schedule_inside.h"

#define SYS "$sys.schedules"

/* The instants for which something fired, as the default payload tells them. */
static void expect_fired(uint32_t from, const char *const *at)
{
    for (uint32_t i = from; *at != NULL; i++, at++) {
        if (i >= w.count)
            fail_msg("%s did not fire", *at);
        if (strstr(w.seen[i].text, *at) == NULL)
            fail_msg("%s fired, and not %s", w.seen[i].text, *at);
    }
}
#define FIRED(from, ...) expect_fired(from, (const char *const[]){ __VA_ARGS__, NULL })

static void test_an_instant_fires_one_task_once(void **state) /* proves GR16 */
{
    (void)state;
    helper worker = { .where = "reports", .always = ACT_REPLY };
    helper_join(&worker, true);
    expect_answer(
        SYS, "{\"op\":\"add\",\"name\":\"x\",\"queue\":\"reports\",\"type\":\"daily\",\"at\":\"2026-03-28T13:00\"}",
        "\"next\":\"2026-03-28T13:00:00Z\"");
    run(59 * MINUTE + 50 * SECOND);
    assert_int_equal(w.count, 0);
    run(DAY);
    assert_int_equal(w.count, 1);
    assert_string_equal(w.seen[0].text, "{\"schedule\":\"x\",\"at\":\"2026-03-28T13:00:00Z\",\"fire\":1}");
    assert_string_equal(w.seen[0].type, "daily");
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"x\"}", "\"state\":\"done\"");
    expect_text("\"verdict\":\"accept\"");
    expect_text("\"how\":\"reply\"");
    expect_text("\"fires\":1");
    expect_text("\"running\":false");
}

static void test_an_interval_fires_on_a_channel_on_its_grid(void **state) /* proves GR16 */
{
    (void)state;
    static char ticks[] = "ticks";
    subscribe(ticks);
    ask(SYS, "{\"op\":\"add\",\"name\":\"t\",\"channel\":\"ticks\",\"payload\":\"tick\",\"every_ms\":90000,"
             "\"start\":\"2026-03-28T12:05:00Z\"}");
    expect_text("\"rule\":\"every 90 s\"");
    run(HOUR - 2 * SECOND);
    assert_int_equal(w.count, 37);
    assert_string_equal(w.seen[0].text, "tick");
    for (uint32_t i = 1; i < w.count; i++)
        assert_in_range(w.seen[i].wall_ns - w.seen[i - 1].wall_ns, 90 * SECOND - SECOND / 10,
                        90 * SECOND + SECOND / 10);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"t\"}", "\"last_verdict\":\"accept\"");
}

static void test_half_past_two_in_berlin_is_once_a_day_on_both_change_days(void **state) /* proves GR16 */
{
    (void)state;
    static char ch[] = "ch";
    subscribe(ch);
    ask(SYS, "{\"op\":\"add\",\"name\":\"r\",\"channel\":\"ch\",\"zone\":\"Europe/Berlin\","
             "\"rrule\":\"FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0\"}");
    expect_text("\"upcoming\":[\"2026-03-29T03:30:00+02:00\",\"2026-03-30T02:30:00+02:00\"");
    run(3 * DAY);
    FIRED(0, "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00");
    ask(SYS, "{\"op\":\"rm\",\"name\":\"r\"}");
    set_clock("2026-10-24T12:00:00Z");
    ask(SYS, "{\"op\":\"add\",\"name\":\"c\",\"channel\":\"ch\",\"zone\":\"Europe/Berlin\",\"cron\":\"30 2 * * *\"}");
    run(2 * DAY);
    FIRED(3, "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00");
    assert_int_equal(w.count, 5);
    for (uint32_t i = 0; i < w.count; i++)
        assert_true(w.seen[i].wall_ns / SECOND % 60 <= 1); /* in time */
}

static void test_while_paused_nothing_fires_and_nothing_is_missed(void **state) /* proves GR16 */
{
    (void)state;
    static char ch[] = "ch";
    subscribe(ch);
    ask(SYS, "{\"op\":\"add\",\"name\":\"h\",\"channel\":\"ch\",\"cron\":\"0 * * * *\",\"paused\":true}");
    expect_text("\"state\":\"paused\"");
    run(5 * HOUR);
    assert_int_equal(w.count, 0);
    expect_answer(SYS, "{\"op\":\"resume\",\"name\":\"h\"}", "\"next\":\"2026-03-28T18:00:00Z\"");
    run(2 * HOUR);
    FIRED(0, "18:00:00Z", "19:00:00Z");
    expect_answer(SYS, "{\"op\":\"pause\",\"name\":\"h\"}", "\"state\":\"paused\"");
    run(5 * HOUR);
    assert_int_equal(w.count, 2);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"h\"}", "\"missed\":0");
}

static void test_an_instant_that_came_while_it_was_paused_is_over(void **state) /* proves GR16 */
{
    (void)state;
    ask(SYS, "{\"op\":\"add\",\"name\":\"x\",\"channel\":\"c\",\"at\":\"2026-03-28T13:00\",\"paused\":true}");
    run(2 * HOUR);
    expect_answer(SYS, "{\"op\":\"resume\",\"name\":\"x\"}", "\"state\":\"done\"");
    expect_text("\"fires\":0");
}

static void test_with_overlap_skip_nothing_fires_while_the_last_task_runs(void **state) /* proves GR16 */
{
    (void)state;
    helper worker = { .where = "q", .always = ACT_HOLD };
    helper_join(&worker, true);
    ask(SYS, "{\"op\":\"add\",\"name\":\"s\",\"queue\":\"q\",\"every_ms\":60000,\"overlap\":\"skip\"}");
    run(10 * MINUTE + 30 * SECOND);
    assert_int_equal(w.count, 1);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"s\"}", "\"overlapped\":9");
    expect_text("\"running\":true");
    assert_int_equal(lim_reply_to(w.bus, w.seen[0].self, w.seen[0].conv, w.seen[0].lease, lim__str("done")), LIM_OK);
    run(MINUTE);
    assert_int_equal(w.count, 2);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"s\"}", "\"fires\":2");
}

static void jump_with(const char *policy, uint32_t fires, uint32_t missed, const char *first)
{
    char request[300], part[40];
    uint32_t before = w.count;
    snprintf(request, sizeof request, "{\"op\":\"add\",\"name\":\"%s\",\"channel\":\"ch\",\"cron\":\"0 * * * *\",%s}",
             first, policy);
    ask(SYS, request);
    set_clock("2026-03-29T15:30:00Z"); /* 27 are jumped over: 13 .. 24, 1 .. 15 */
    snprintf(request, sizeof request, "{\"op\":\"show\",\"name\":\"%s\"}", first);
    ask(SYS, request); /* a wake */
    run(SECOND);
    ask(SYS, request);
    snprintf(part, sizeof part, "\"fires\":%u,", fires);
    expect_text(part);
    snprintf(part, sizeof part, "\"missed\":%u,", missed);
    expect_text(part);
    expect_text("\"next\":\"2026-03-29T16:00:00Z\"");
    assert_int_equal(w.count, before + fires);
    ask(SYS, "{\"op\":\"ls\"}");
    snprintf(request, sizeof request, "{\"op\":\"rm\",\"name\":\"%s\"}", first);
    ask(SYS, request);
    set_clock("2026-03-28T12:10:00Z");
}

static void test_what_was_jumped_over_is_caught_up_with_as_the_policy_says(void **state) /* proves GR16 */
{
    (void)state;
    static char ch[] = "ch";
    subscribe(ch);
    jump_with("\"catch_up\":\"one\"", 1, 26, "one");
    FIRED(0, "2026-03-29T15:00:00Z");
    jump_with("\"catch_up\":\"skip\"", 0, 27, "skip");
    jump_with("\"catch_up\":\"all\"", 27, 0, "all");
    FIRED(1, "2026-03-28T13:00:00Z", "2026-03-28T14:00:00Z");
    FIRED(27, "2026-03-29T15:00:00Z");
    jump_with("\"catch_up\":\"all\",\"catch_up_max\":5", 5, 22, "five");
    FIRED(28, "2026-03-28T13:00:00Z");
    jump_with("\"catch_up\":\"skip\",\"grace_ms\":3600000", 1, 26, "late");
    FIRED(33, "2026-03-29T15:00:00Z");
}

static void test_a_jump_over_years_takes_no_time_and_no_more_fires(void **state) /* proves GR16 */
{
    (void)state;
    static char ch[] = "ch";
    subscribe(ch);
    ask(SYS, "{\"op\":\"add\",\"name\":\"m\",\"channel\":\"ch\",\"cron\":\"* * * * *\"}");
    ask(SYS, "{\"op\":\"add\",\"name\":\"s\",\"channel\":\"ch\",\"every_ms\":1000}");
    uint32_t before = w.count;
    set_clock("2036-03-28T12:00:00.5Z");
    ask(SYS, "{\"op\":\"ls\"}");
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"m\"}", "\"next\":\"2036-03-28T12:01:00Z\"");
    assert_in_range(w.count, before + 2, before + 3);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"s\"}", "\"missed\":3156"); /* all seconds of ten years */
}

static void test_a_clock_that_is_set_back_fires_nothing_twice_unless_by_much(void **state) /* proves GR16 */
{
    (void)state;
    static char ch[] = "ch";
    subscribe(ch);
    ask(SYS, "{\"op\":\"add\",\"name\":\"h\",\"channel\":\"ch\",\"cron\":\"0 * * * *\"}");
    run(HOUR + MINUTE); /* 13:01 */
    FIRED(0, "13:00:00Z");
    set_clock("2026-03-28T12:30:00Z");
    run(HOUR); /* 13:30 */
    assert_int_equal(w.count, 1);
    run(HOUR);
    FIRED(1, "14:00:00Z");
    set_clock("2026-03-28T12:30:00Z"); /* two hours: the new time counts */
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"h\"}", "\"name\":\"h\"");
    run(HOUR);
    FIRED(2, "13:00:00Z");
    ask(SYS, "{\"op\":\"rm\",\"name\":\"h\"}");
    ask(SYS, "{\"op\":\"add\",\"name\":\"e\",\"channel\":\"ch\",\"every_ms\":600000}");
    run(11 * MINUTE);
    uint32_t before = w.count;
    set_clock("2026-03-28T13:00:00Z"); /* intervals go on at once, whatever the hour is */
    run(HOUR);
    assert_in_range(w.count - before, 5, 6);
}

static void test_fire_is_answered_with_the_verdict_also_when_paused(void **state) /* proves GR16 */
{
    (void)state;
    ask("$sys.queues", "{\"op\":\"configure\",\"queue\":\"q\",\"limit\":2}");
    ask(SYS, "{\"op\":\"add\",\"name\":\"n\",\"queue\":\"q\",\"cron\":\"30 2 * * "
             "*\",\"zone\":\"Europe/Berlin\",\"paused\":true,"
             "\"payload\":{\"a\":1},\"options\":{\"priority\":9,\"key\":\"k\",\"trace\":true}}");
    expect_text("\"options\":{\"priority\":9,\"key\":\"k\",\"trace\":true}");
    expect_answer(SYS, "{\"op\":\"fire\",\"name\":\"n\"}", "\"manual\":true");
    expect_text("\"task\":\"");
    expect_text("\"verdict\":\"");
    ask(SYS, "{\"op\":\"fire\",\"name\":\"n\"}");
    expect_answer(SYS, "{\"op\":\"fire\",\"name\":\"n\"}", "\"verdict\":\"reject\",\"why\":\"queue_full\"");
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"n\"}", "\"rejected\":1");
    expect_text("\"state\":\"paused\"");
    expect_text("\"fires\":3");
    helper worker = { .where = "q", .always = ACT_REPLY };
    helper_join(&worker, true);
    run(SECOND);
    assert_int_equal(w.count, 2);
    assert_string_equal(w.seen[0].text, "{\"a\":1}");
    ask(SYS, "{\"op\":\"add\",\"name\":\"c\",\"channel\":\"nobody\",\"every_ms\":60000}");
    expect_answer(SYS, "{\"op\":\"fire\",\"name\":\"c\"}", "\"verdict\":\"accept\"");
}

static void test_what_stands_for_a_fire_is_what_runs(void **state) /* proves GR16 */
{
    (void)state;
    helper worker = { .where = "q", .always = ACT_HOLD };
    helper_join(&worker, true);
    ask(SYS, "{\"op\":\"add\",\"name\":\"u\",\"queue\":\"q\",\"every_ms\":60000,"
             "\"options\":{\"unique_key\":\"k\",\"on_duplicate\":\"join\"}}");
    run(3 * MINUTE + SECOND);
    assert_int_equal(w.count, 1);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"u\"}", "\"fires\":3");
    expect_text("\"running\":true");
    char task[40];
    snprintf(task, sizeof task, "\"task\":\"%llx\"", (unsigned long long)w.seen[0].conv.id);
    expect_text(task);
    assert_int_equal(lim_reply_to(w.bus, w.seen[0].self, w.seen[0].conv, w.seen[0].lease, lim__str("done")), LIM_OK);
    run(SECOND);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"u\"}", "\"how\":\"reply\"");
}

static void test_a_name_is_taken_once_and_replaced_on_purpose(void **state) /* proves GR16 */
{
    (void)state;
    ask(SYS, "{\"op\":\"add\",\"name\":\"a\",\"channel\":\"c\",\"every_ms\":60000}");
    expect_answer(SYS, "{\"op\":\"add\",\"name\":\"a\",\"channel\":\"c\",\"every_ms\":60000}", "\"code\":\"EXISTS\"");
    expect_text("replace");
    expect_answer(SYS, "{\"op\":\"add\",\"name\":\"a\",\"queue\":\"d\",\"every_ms\":7200000,\"replace\":true}",
                  "\"every 2 h\"");
    ask(SYS, "{\"op\":\"add\",\"name\":\"c\",\"channel\":\"c\",\"every_ms\":60000}");
    ask(SYS, "{\"op\":\"add\",\"name\":\"b\",\"channel\":\"c\",\"every_ms\":60000}");
    ask(SYS, "{\"op\":\"ls\",\"max\":2}");
    expect_text("\"name\":\"a\"");
    expect_text("\"name\":\"b\"");
    expect_text("\"more\":true");
    assert_null(strstr(w.answer, "\"name\":\"c\""));
    expect_answer(SYS, "{\"op\":\"ls\",\"after\":\"b\"}", "{\"schedules\":[{\"name\":\"c\"");
    expect_text("\"more\":false");
    expect_answer(SYS, "{\"op\":\"rm\",\"name\":\"b\"}", "\"name\":\"b\"");
    expect_answer(SYS, "{\"op\":\"rm\",\"name\":\"b\"}", "\"code\":\"NOTFOUND\"");
    expect_answer(SYS, "{\"op\":\"fire\",\"name\":\"b\"}", "schedule ls");
}

static void test_what_cannot_be_scheduled_is_refused_with_words(void **state) /* proves GR16 */
{
    static const struct {
        const char *fields, *says;
    } bad[] = {
        { "\"channel\":\"c\"", "say when" },
        { "\"every_ms\":60000", "say where to" },
        { "\"channel\":\"c\",\"queue\":\"q\",\"every_ms\":60000", "say where to" },
        { "\"channel\":\"$sys.x\",\"every_ms\":60000", "no name of a channel" },
        { "\"queue\":\"a b\",\"every_ms\":60000", "no name of a queue" },
        { "\"channel\":\"c\",\"every_ms\":60000,\"type\":\"t\"", "for tasks" },
        { "\"channel\":\"c\",\"every_ms\":60000,\"cron\":\"* * * * *\"", "in one way" },
        { "\"channel\":\"c\",\"every_ms\":999", "from 1000" },
        { "\"channel\":\"c\",\"every_ms\":\"1h\"", "no number" },
        { "\"channel\":\"c\",\"at\":\"2026-03-28T11:00\"", "past" },
        { "\"channel\":\"c\",\"at\":\"2026-03-28T13:00\",\"start\":\"2026-03-28T13:00\"", "one instant" },
        { "\"channel\":\"c\",\"at\":\"noon\"", "is no instant" },
        { "\"channel\":\"c\",\"cron\":\"* * * *\"", "five fields" },
        { "\"channel\":\"c\",\"rrule\":\"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30\"", "never fires" },
        { "\"channel\":\"c\",\"rrule\":\"FREQ=DAILY;UNTIL=20260101\"", "never fires" },
        { "\"channel\":\"c\",\"every_ms\":60000,\"zone\":\"Europe/Berlni\"", "no time zone" },
        { "\"channel\":\"c\",\"every_ms\":60000,\"catch_up\":\"some\"", "one, skip, all" },
        { "\"queue\":\"q\",\"every_ms\":60000,\"overlap\":\"maybe\"", "allow, skip" },
        { "\"channel\":\"c\",\"every_ms\":60000,\"grace_ms\":0", "from 1000" },
        { "\"queue\":\"q\",\"every_ms\":60000,\"options\":{\"idempotency_key\":\"x\"}", "leave it out" },
        { "\"queue\":\"q\",\"every_ms\":60000,\"options\":{\"priroity\":1}", "unknown" },
        { "\"queue\":\"q\",\"every_ms\":60000,\"options\":{\"priority\":10}", "0 to 9" },
        { "\"queue\":\"q\",\"every_ms\":60000,\"options\":[]", "no object" },
        { "\"queue\":\"q\",\"every_ms\":60000,\"payload_base64\":\"!\"", "base64" },
        { "\"queue\":\"q\",\"every_ms\":60000,\"paylod\":\"x\"", "did you mean" },
    };
    char request[400];
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        snprintf(request, sizeof request, "{\"op\":\"add\",\"name\":\"x\",%s}", bad[i].fields);
        expect_answer(SYS, request, bad[i].says);
        expect_text("\"error\"");
    }
    expect_answer(SYS, "{\"op\":\"add\",\"name\":\"$x\",\"channel\":\"c\",\"every_ms\":60000}", "for a schedule");
    expect_answer(SYS, "{\"op\":\"ls\"}", "{\"schedules\":[],\"more\":false}");
    static char big[80000];
    int used =
        snprintf(big, sizeof big, "{\"op\":\"add\",\"name\":\"x\",\"channel\":\"c\",\"every_ms\":60000,\"payload\":\"");
    memset(big + used, 'x', 70000);
    memcpy(big + used + 70000, "\"}", 3);
    expect_answer(SYS, big, "keep it elsewhere");
}

static void test_schedules_outlive_the_process_that_reads_them(void **state) /* proves GR16 */
{
    (void)state;
    helper worker = { .where = "q", .always = ACT_HOLD };
    helper_join(&worker, true);
    ask(SYS, "{\"op\":\"add\",\"name\":\"s\",\"queue\":\"q\",\"every_ms\":600000,\"overlap\":\"skip\"}");
    run(11 * MINUTE);
    assert_int_equal(w.count, 1);
    lim_pid was = w.bus->schedules->owner;
    lim_runtime_exit(w.bus->rt, was, LIM_KILL);
    run(10 * MINUTE);
    assert_true(w.bus->schedules->owner.id != was.id);
    expect_answer(SYS, "{\"op\":\"show\",\"name\":\"s\"}", "\"overlapped\":1"); /* it knows that the task still runs */
    assert_int_equal(lim_reply_to(w.bus, w.seen[0].self, w.seen[0].conv, w.seen[0].lease, lim__str("done")), LIM_OK);
    run(10 * MINUTE);
    assert_int_equal(w.count, 2);
}

static void test_nothing_wakes_a_bus_on_which_nothing_is_scheduled(void **state) /* proves GR16 */
{
    (void)state;
    run(MINUTE);
    uint64_t timers = census().runtime.timers, turns = census().runtime.turns;
    run(30 * DAY);
    assert_true(census().runtime.turns - turns <= 1);
    ask(SYS, "{\"op\":\"add\",\"name\":\"x\",\"channel\":\"c\",\"at\":\"2026-12-24T18:00\"}");
    assert_int_equal(census().runtime.timers, timers + 1);
    turns = census().runtime.turns;
    run(DAY);
    assert_in_range(census().runtime.turns - turns, 20, 60); /* at most an hour: a clock that jumps is noticed */
    ask(SYS, "{\"op\":\"rm\",\"name\":\"x\"}");
    assert_int_equal(census().runtime.timers, timers);
}

static void test_a_bus_that_is_closing_fires_nothing(void **state) /* proves GR16 */
{
    (void)state;
    static char ch[] = "ch";
    subscribe(ch);
    ask(SYS, "{\"op\":\"add\",\"name\":\"t\",\"channel\":\"ch\",\"every_ms\":1000}");
    run(3 * SECOND);
    uint32_t before = w.count;
    assert_true(before >= 2);
    atomic_store(&w.bus->closing, 1);
    run(10 * SECOND);
    assert_int_equal(w.count, before);
}

/* ---- the book ---- */

static lim_err apply_text(lim__schedules *book, lim__schedule_change_kind kind, const char *name, const char *json,
                          uint64_t at)
{
    lim_diag diag;
    return lim__schedules_apply(
        book,
        &(lim__schedule_change){
            .kind = kind, .name = lim__str(name), .json = lim__str(json), .wall_ns = at, .at_ns = at },
        &diag);
}

static lim_err add_at(lim__schedules *book, uint32_t number, uint64_t now, uint32_t in_seconds)
{
    char json[200], at[LIM__INSTANT_TEXT];
    lim__zone *utc = NULL;
    assert_int_equal(lim__zone_open(lim__str("UTC"), NULL, &utc), LIM_OK);
    lim__instant_text(now + in_seconds * SECOND, utc, at);
    snprintf(json, sizeof json, "{\"name\":\"n%u\",\"channel\":\"c\",\"at\":\"%s\"}", number, at);
    lim__zone_free(utc);
    return apply_text(book, LIM__SCHEDULE_PUT, "", json, now);
}

static void test_there_are_at_most_ten_thousand_and_done_ones_make_room(void **state) /* proves GR16 */
{
    (void)state;
    lim__schedules *book = lim__schedules_new(1);
    uint64_t now = UINT64_C(1800000000) * SECOND;
    for (uint32_t i = 0; i < LIM__SCHEDULES_MAX; i++)
        assert_int_equal(add_at(book, i, now, 10 + i % 100), LIM_OK);
    assert_int_equal(add_at(book, 99999, now, 10), LIM_E_FULL);
    assert_int_equal(lim__schedules_count(book), LIM__SCHEDULES_MAX);
    assert_int_equal(apply_text(book, LIM__SCHEDULE_FIRED, "n7", "", now + 20 * SECOND), LIM_OK);
    assert_int_equal(lim__schedule_named(book, lim__str("n7"))->state, LIM__SCHEDULE_DONE);
    assert_int_equal(add_at(book, 99999, now, 10), LIM_OK);
    assert_null(lim__schedule_named(book, lim__str("n7")));
    lim__schedules_check(book);
    lim__schedules_free(book);
}

static void test_any_order_of_changes_leaves_the_book_in_order(void **state) /* proves GR16 */
{
    (void)state;
    lim__rng rng = lim__rng_seeded(10);
    lim__schedules *book = lim__schedules_new(1);
    uint64_t now = UINT64_C(1800000000) * SECOND;
    for (int i = 0; i < 20000; i++, now += lim__rng_below(&rng, 3 * SECOND)) {
        char name[16];
        uint32_t number = (uint32_t)lim__rng_below(&rng, 300);
        uint64_t what = lim__rng_below(&rng, 10);
        snprintf(name, sizeof name, "n%u", number);
        if (what < 4) {
            lim_err err = add_at(book, number, now, 1 + (uint32_t)lim__rng_below(&rng, 500));
            assert_true(err == LIM_OK || err == LIM_E_EXISTS);
        } else if (what < 8 && book->heap_count > 0) {
            lim__schedule *s = book->heap[0];
            uint64_t due = s->due_ns;
            assert_int_equal(
                lim__schedules_apply(
                    book, &(lim__schedule_change){ .kind = LIM__SCHEDULE_FIRED, .name = s->name, .at_ns = due }, NULL),
                LIM_OK);
            assert_true(book->heap_count == 0 || book->heap[0]->due_ns >= due);
        } else {
            lim__schedule_change_kind kinds[] = { LIM__SCHEDULE_PAUSE, LIM__SCHEDULE_RESUME, LIM__SCHEDULE_RM };
            (void)apply_text(book, kinds[lim__rng_below(&rng, 3)], name, "", now);
        }
        if (i % 50 == 0)
            lim__schedules_check(book);
    }
    lim__schedules_free(book);
}

static void test_the_same_rows_make_the_same_book(void **state) /* proves GR16 */
{
    (void)state;
    uint64_t now = UINT64_C(1800000000) * SECOND;
    char texts[2][4096];
    for (int i = 0; i < 2; i++) { /* what a store would do after a restart */
        lim__schedules *book = lim__schedules_new((uint64_t)i);
        lim__buf b = { 0 };
        lim__json j = lim__json_begin(&b);
        assert_int_equal(apply_text(book, LIM__SCHEDULE_PUT, "",
                                    "{\"name\":\"a\",\"queue\":\"q\",\"every_ms\":5000,\"options\":{\"key\":\"k\"}}",
                                    now),
                         LIM_OK);
        assert_int_equal(apply_text(book, LIM__SCHEDULE_PUT, "",
                                    "{\"name\":\"b\",\"channel\":\"c\",\"cron\":\"@daily\",\"zone\":\"Asia/Tokyo\"}",
                                    now),
                         LIM_OK);
        assert_int_equal(apply_text(book, LIM__SCHEDULE_FIRED, "a", "", now + 15 * SECOND), LIM_OK);
        assert_int_equal(apply_text(book, LIM__SCHEDULE_PAUSE, "b", "", now + 16 * SECOND), LIM_OK);
        lim__schedule_line_json(lim__schedule_named(book, lim__str("a")), &j, NULL, true);
        lim__schedule_line_json(lim__schedule_named(book, lim__str("b")), &j, NULL, true);
        snprintf(texts[i], sizeof texts[i], "%.*s", (int)lim__buf_len(&b), (const char *)b.ptr + b.start);
        lim__buf_fini(&b);
        lim__schedules_free(book);
    }
    assert_string_equal(texts[0], texts[1]);
    assert_non_null(strstr(texts[0], "\"every 5 s\""));
}

/* ---- memory ---- */

static void test_memory_that_runs_out_refuses_and_breaks_nothing(void **state)
{
    static const char request[] = "{\"name\":\"a\",\"queue\":\"q\",\"rrule\":\"FREQ=DAILY\",\"zone\":\"Europe/Berlin\","
                                  "\"payload\":{\"x\":1},\"options\":{\"key\":\"k\"}}";
    (void)state;
    bool done = false;
    for (uint64_t n = 1; !done && n < 200; n++) {
        lim__schedules *book = lim__schedules_new(1);
        malloc_countdown = n;
        lim_err err = apply_text(book, LIM__SCHEDULE_PUT, "", request, UINT64_C(1800000000) * SECOND);
        done = malloc_countdown != 0 || err == LIM_OK;
        malloc_countdown = 0;
        assert_true(err == LIM_OK || err == LIM_E_NOMEM || err == LIM_E_INVALID); /* a zone that cannot be read */
        assert_int_equal(lim__schedules_count(book), err == LIM_OK);
        lim__schedules_check(book);
        lim__schedules_free(book);
    }
    assert_true(done);
}

static void test_a_bus_without_memory_goes_on_firing_once_there_is_some(void **state)
{
    (void)state;
    helper worker = { .where = "q", .always = ACT_REPLY };
    helper_join(&worker, true);
    ask(SYS, "{\"op\":\"add\",\"name\":\"s\",\"queue\":\"q\",\"every_ms\":1000}");
    run(5 * SECOND);
    for (uint64_t n = 1; n <= 40; n++) { /* one fire each, with one allocation that fails somewhere */
        malloc_countdown = n;
        run(SECOND);
        malloc_countdown = 0;
    }
    uint32_t before = w.count;
    run(10 * SECOND);
    assert_in_range(w.count - before, 9, 11);
    lim__schedules_check(w.bus->schedules);
}

static void test_schedules_leave_nothing_behind(void **state) /* proves GR16 */
{
    (void)state;
    helper worker = { .where = "q", .always = ACT_REPLY };
    helper_join(&worker, true);
    run(SECOND);
    lim_bus_census before = census();
    for (int i = 0; i < 3; i++) {
        ask(SYS, "{\"op\":\"add\",\"name\":\"s\",\"queue\":\"q\",\"every_ms\":1000}");
        run(50 * SECOND);
        ask(SYS, "{\"op\":\"fire\",\"name\":\"s\"}");
        ask(SYS, "{\"op\":\"rm\",\"name\":\"s\"}");
        run(10 * SECOND);
    }
    lim_bus_census after = census();
    assert_int_equal(after.runtime.processes, before.runtime.processes);
    assert_int_equal(after.runtime.monitors, before.runtime.monitors);
    assert_int_equal(after.runtime.links, before.runtime.links);
    assert_int_equal(after.runtime.timers, before.runtime.timers);
    assert_int_equal(after.runtime.letter_bytes, before.runtime.letter_bytes);
    assert_int_equal(after.conversations, 0);
    assert_int_equal(w.bus->schedules->by_task.count, 0);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_an_instant_fires_one_task_once),
        IN_WORLD(test_an_interval_fires_on_a_channel_on_its_grid),
        IN_WORLD(test_half_past_two_in_berlin_is_once_a_day_on_both_change_days),
        IN_WORLD(test_while_paused_nothing_fires_and_nothing_is_missed),
        IN_WORLD(test_an_instant_that_came_while_it_was_paused_is_over),
        IN_WORLD(test_with_overlap_skip_nothing_fires_while_the_last_task_runs),
        IN_WORLD(test_what_was_jumped_over_is_caught_up_with_as_the_policy_says),
        IN_WORLD(test_a_jump_over_years_takes_no_time_and_no_more_fires),
        IN_WORLD(test_a_clock_that_is_set_back_fires_nothing_twice_unless_by_much),
        IN_WORLD(test_fire_is_answered_with_the_verdict_also_when_paused),
        IN_WORLD(test_what_stands_for_a_fire_is_what_runs),
        IN_WORLD(test_a_name_is_taken_once_and_replaced_on_purpose),
        IN_WORLD(test_what_cannot_be_scheduled_is_refused_with_words),
        IN_WORLD(test_schedules_outlive_the_process_that_reads_them),
        IN_WORLD(test_nothing_wakes_a_bus_on_which_nothing_is_scheduled),
        IN_WORLD(test_a_bus_that_is_closing_fires_nothing),
        cmocka_unit_test(test_there_are_at_most_ten_thousand_and_done_ones_make_room),
        cmocka_unit_test(test_any_order_of_changes_leaves_the_book_in_order),
        cmocka_unit_test(test_the_same_rows_make_the_same_book),
        cmocka_unit_test(test_memory_that_runs_out_refuses_and_breaks_nothing),
        IN_WORLD(test_a_bus_without_memory_goes_on_firing_once_there_is_some),
        IN_WORLD(test_schedules_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
