/* SPDX-License-Identifier: Apache-2.0
 * schedule_durable_test.c - schedules on a bus that is killed: what was answered is still so, and what fires does so
 * once. */
#include "bus/durable_ask.h"
#include "bus/letters.h"
#include "bus/participant.h"
#include "bus/schedule_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define SYS    "$sys.schedules"
enum { FIRES_MAX = 4096 };

static durable_world w;
static uint32_t numbers[FIRES_MAX], number_count; /* of the fires that were seen, over all lives */
static char instants[FIRES_MAX][40];

static uint64_t dice;

static uint64_t pick(uint64_t n)
{
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return (dice >> 33) % n;
}

static void ask_begin(const char *json)
{
    durable_ask_begin(&w, SYS, json);
}

static const char *ask(const char *json)
{
    ask_begin(json);
    durable_until(&w, is_answered, NULL);
    return answer;
}

static void expect(const char *json, const char *part)
{
    if (strstr(ask(json), part) == NULL)
        fail_msg("%s\n  answered %s\n  and not  %s", json, answer, part);
}

static lim_done on_tick(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)ctx;
    char text[200];
    snprintf(text, sizeof text, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    const char *at = strstr(text, "\"at\":\""), *fire = strstr(text, "\"fire\":");
    assert_true(at != NULL && fire != NULL && number_count < FIRES_MAX);
    snprintf(instants[number_count], sizeof instants[0], "%.20s", at + 6);
    numbers[number_count++] = (uint32_t)atoi(fire + 7);
    return LIM_DONE;
}

static void listen(void)
{
    lim_sub sub;
    lim_sub_opts opts = { .size = sizeof opts, .handler = { .on_message = on_tick } };
    assert_int_equal(lim_subscribe(w.bus, "ticks", &opts, &sub), LIM_OK);
}

static void kill_it(uint64_t seed)
{
    if (seed & 1)
        durable_kill(&w);
    else
        durable_power_off(&w);
}

static void test_schedules_are_as_they_were_answered_after_a_kill(void **state) /* proves GR16 */
{
    (void)state;
    static char before[4][1 << 14];
    const char *const names[] = { "a", "b", "c", "d" };
    for (uint64_t seed = 1; seed <= 6; seed++) {
        durable_open(&w, seed);
        expect(
            "{\"op\":\"add\",\"name\":\"a\",\"channel\":\"ticks\",\"cron\":\"30 2 * * *\",\"zone\":\"Europe/Berlin\","
            "\"payload\":{\"x\":1}}",
            "\"durability\":\"disk\"");
        ask("{\"op\":\"add\",\"name\":\"b\",\"queue\":\"q\",\"every_ms\":3600000,\"paused\":true,\"options\":{"
            "\"priority\":9}}");
        ask("{\"op\":\"add\",\"name\":\"c\",\"channel\":\"ticks\",\"at\":\"2099-01-01T00:00:00Z\"}");
        ask("{\"op\":\"add\",\"name\":\"d\",\"channel\":\"ticks\",\"rrule\":\"FREQ=DAILY\",\"catch_up\":\"skip\"}");
        ask("{\"op\":\"pause\",\"name\":\"a\"}");
        ask("{\"op\":\"resume\",\"name\":\"a\"}");
        ask("{\"op\":\"pause\",\"name\":\"d\"}");
        ask("{\"op\":\"fire\",\"name\":\"d\"}");
        ask("{\"op\":\"add\",\"name\":\"a\",\"replace\":true,\"channel\":\"ticks\",\"every_ms\":86400000}");
        ask("{\"op\":\"rm\",\"name\":\"c\"}");
        for (int i = 0; i < 4; i++) {
            char request[60];
            snprintf(request, sizeof request, "{\"op\":\"show\",\"name\":\"%s\"}", names[i]);
            strcpy(before[i], ask(request));
        }
        kill_it(seed);
        durable_start(&w);
        for (int i = 0; i < 4; i++) {
            char request[60], *last;
            snprintf(request, sizeof request, "{\"op\":\"show\",\"name\":\"%s\"}", names[i]);
            ask(request);
            if ((last = strstr(before[i], "\"last")) != NULL) /* its verdict came after the row */
                *last = '\0';
            assert_non_null(strstr(before[i], i == 2 ? "NOTFOUND" : "\"name\":"));
            if (strncmp(answer, before[i], strlen(before[i])) != 0)
                fail_msg("was %s\nis  %s", before[i], answer);
        }
        expect("{\"op\":\"rm\",\"name\":\"d\"}", "\"fires\":1");
        durable_close(&w);
    }
}

static uint64_t number_of(const char *key)
{
    const char *at = strstr(answer, key);
    assert_non_null(at);
    return strtoull(at + strlen(key), NULL, 10);
}

/* A second's interval, killed at random instants, away for up to half a minute. */
static void lives_of(const char *policy, uint64_t seed, uint32_t kills)
{
    char request[300];
    durable_open(&w, seed);
    dice = seed;
    number_count = 0;
    listen();
    snprintf(request, sizeof request,
             "{\"op\":\"add\",\"name\":\"t\",\"channel\":\"ticks\",\"every_ms\":1000,\"grace_ms\":2000,%s}", policy);
    ask(request);
    for (uint32_t i = 0; i < kills; i++) {
        durable_settle(&w, pick(5000) * 1000000);
        kill_it(pick(2));
        durable_settle(&w, pick(30) * SECOND);
        durable_start(&w);
        listen();
    }
    durable_settle(&w, 5 * SECOND);
    ask("{\"op\":\"show\",\"name\":\"t\"}");
}

static void no_doubles(void)
{
    for (uint32_t i = 1; i < number_count; i++) {
        assert_true(numbers[i] > numbers[i - 1]);
        assert_true(strcmp(instants[i], instants[i - 1]) > 0);
    }
}

static void test_no_instant_fires_twice_and_none_is_skipped_but_by_its_policy(void **state) /* proves GR16 */
{
    (void)state;
    enum { KILLS = 12 };
    for (uint64_t seed = 1; seed <= 20; seed++) {
        lives_of("\"catch_up\":\"all\",\"catch_up_max\":1000", seed, KILLS);
        no_doubles();
        assert_int_equal(number_of("\"missed\":"), 0);
        assert_true(number_of("\"fires\":") >= number_count);
        assert_true(number_of("\"fires\":") - number_count <= KILLS); /* at most the one at each kill was not seen */
        durable_close(&w);
        lives_of("\"catch_up\":\"skip\"", seed, KILLS);
        no_doubles();
        uint64_t skipped = number_of("\"missed\":"), fired = number_of("\"fires\":");
        assert_true(skipped > 0 && fired - number_count <= KILLS);
        durable_close(&w);
        lives_of("\"catch_up\":\"one\"", seed, KILLS);
        no_doubles();
        assert_true(number_of("\"missed\":") > 0 && number_of("\"fires\":") - number_count <= KILLS);
        durable_close(&w);
    }
}

/* ---- into what is durable ---- */

/* The numbers of the fires in the channel "log", or the tasks of the queue "work", in the order of the log. */
static void read_log(void)
{
    lim_sub sub;
    lim_sub_opts opts = { .size = sizeof opts, .window = 512, .handler = { .on_message = on_tick } };
    opts.read.from = LIM_FROM_ALL;
    number_count = 0;
    assert_int_equal(lim_subscribe(w.bus, "log", &opts, &sub), LIM_OK);
    durable_settle(&w, SECOND);
    assert_int_equal(lim_unsubscribe(w.bus, sub), LIM_OK);
}

static lim_done on_fire_task(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    uint64_t *tasks = ctx;
    char text[200];
    snprintf(text, sizeof text, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    const char *fire = strstr(text, "\"fire\":");
    assert_non_null(fire);
    uint64_t n = strtoull(fire + 7, NULL, 10);
    assert_true(n > 0 && n < FIRES_MAX);
    if (tasks[n] != 0 && tasks[n] != d->conv.id)
        fail_msg("fire %u is two tasks", (unsigned)n);
    tasks[n] = d->conv.id;
    return lim_reply(bus, d, lim__str("ok")) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void work_on(uint64_t *tasks)
{
    lim_pid queue, p;
    const lim_handler handler = { .on_message = on_fire_task, .ctx = tasks };
    assert_int_equal(lim__group_get(w.bus, NULL, lim__str("work"), &queue), LIM_OK);
    assert_int_equal(lim__participant_spawn(w.bus, &handler, LIM__MEMBER_WORK, queue, &p), LIM_OK);
    lim__join *j = lim__join_new(NULL, p, LIM__MEMBER_WORK, lim__str("w"), 8, NULL, NULL);
    j->reply_to = p;
    assert_int_equal(lim__post_reserved(w.bus->rt, queue, j), LIM_OK);
}

static void open_log(void)
{
    const lim_channel_opts opts = { .size = sizeof opts, .durable = true };
    lim_channel ch;
    assert_int_equal(lim_channel_open(w.bus, "log", &opts, &ch), LIM_OK);
}

/* Killed at random instants, between any two steps of a fire, too. */
static void die_often(uint64_t seed, uint32_t kills, uint64_t *tasks)
{
    for (uint32_t i = 0; i < kills; i++) {
        durable_settle(&w, pick(3) * SECOND + pick(4) * 250000000 + pick(2000) * 1000);
        if (pick(3) == 0) { /* just then */
            ask_begin("{\"op\":\"fire\",\"name\":\"t\"}");
            durable_settle(&w, pick(400) * 1000);
        }
        kill_it(pick(2) + (seed & 2));
        durable_start(&w);
        if (tasks != NULL)
            work_on(tasks);
    }
    durable_settle(&w, 5 * SECOND);
    ask("{\"op\":\"pause\",\"name\":\"t\"}");
    durable_settle(&w,
                   tasks != NULL ? 120 * SECOND : SECOND); /* what its worker died with is given again after a while */
    ask("{\"op\":\"show\",\"name\":\"t\"}");
    assert_int_equal(number_of("\"missed\":"), 0);
}

static void test_what_fires_into_a_durable_channel_is_neither_lost_nor_doubled(void **state) /* proves GR16 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        durable_open(&w, seed);
        dice = seed;
        open_log();
        ask("{\"op\":\"add\",\"name\":\"t\",\"channel\":\"log\",\"every_ms\":1000,\"catch_up\":\"all\"}");
        die_often(seed, 12, NULL);
        uint64_t fires = number_of("\"fires\":");
        read_log();
        if (number_count != fires)
            fail_msg("seed %u: %u fires, %u messages", (unsigned)seed, (unsigned)fires, number_count);
        for (uint32_t i = 0; i < number_count; i++)
            assert_int_equal(numbers[i], i + 1);
        durable_close(&w);
    }
}

static void test_what_fires_into_a_queue_is_one_task_whenever_it_is_killed(void **state) /* proves GR16 */
{
    (void)state;
    static uint64_t tasks[FIRES_MAX];
    for (uint64_t seed = 1; seed <= 40; seed++) {
        memset(tasks, 0, sizeof tasks);
        durable_open(&w, seed);
        dice = seed;
        work_on(tasks);
        ask("{\"op\":\"add\",\"name\":\"t\",\"queue\":\"work\",\"every_ms\":1000,\"catch_up\":\"all\"}");
        die_often(seed, 12, tasks);
        uint64_t fires = number_of("\"fires\":");
        assert_true(fires >= 12);
        for (uint64_t n = 1; n <= fires; n++)
            if (tasks[n] == 0)
                fail_msg("seed %u: fire %u of %u is no task", (unsigned)seed, (unsigned)n, (unsigned)fires);
        assert_int_equal(tasks[fires + 1], 0);
        durable_close(&w);
    }
}

static void test_a_process_that_dies_while_it_commits_records_stores_them_once(void **state) /* proves GR16 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        durable_open(&w, seed);
        dice = seed;
        open_log();
        ask("{\"op\":\"add\",\"name\":\"t\",\"channel\":\"log\",\"every_ms\":1000}");
        for (int i = 0; i < 5; i++) {
            ask_begin("{\"op\":\"fire\",\"name\":\"t\"}");
            durable_settle(&w, pick(300) * 1000);
            lim_runtime_exit(w.bus->rt, w.bus->schedules->owner, LIM_KILL);
            durable_until(&w, is_answered, NULL);
            durable_settle(&w, 2 * SECOND);
        }
        ask("{\"op\":\"show\",\"name\":\"t\"}");
        uint64_t fires = number_of("\"fires\":");
        read_log();
        assert_in_range(number_count, fires, fires + 1); /* one may have been due while it was read */
        for (uint32_t i = 0; i < number_count; i++)
            assert_int_equal(numbers[i], i + 1);
        durable_close(&w);
    }
}

/* fires + missed is the number of instants that passed, whatever the policy, and however often it died. */
static void test_every_instant_is_counted_once(void **state) /* proves GR16 */
{
    (void)state;
    const char *const policies[] = { "\"catch_up\":\"all\",\"catch_up_max\":3", "\"catch_up\":\"skip\"",
                                     "\"catch_up\":\"one\"" };
    for (uint64_t seed = 1; seed <= 15; seed++) {
        durable_world *world = &w;
        lives_of(policies[seed % 3], seed, 8);
        uint64_t all = number_of("\"fires\":") + number_of("\"missed\":");
        char start[40], next[40];
        snprintf(start, sizeof start, "%.20s", strstr(answer, "\"start\":\"") + 9);
        snprintf(next, sizeof next, "%.20s", strstr(answer, "\"next\":\"") + 8);
        int h1, m1, s1, h2, m2, s2;
        assert_int_equal(sscanf(start + 11, "%d:%d:%d", &h1, &m1, &s1), 3);
        assert_int_equal(sscanf(next + 11, "%d:%d:%d", &h2, &m2, &s2), 3);
        int64_t passed = ((h2 - h1) * 60 + (m2 - m1)) * 60 + (s2 - s1) - 1;
        passed += passed < 0 ? 86400 : 0;
        assert_int_equal(all, passed);
        durable_close(world);
    }
}

static void test_the_process_behind_them_dies_while_it_commits_and_nothing_is_lost(void **state) /* proves GR16 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        durable_open(&w, seed);
        dice = seed;
        number_count = 0;
        listen();
        ask("{\"op\":\"add\",\"name\":\"t\",\"channel\":\"ticks\",\"every_ms\":1000}");
        ask_begin("{\"op\":\"add\",\"name\":\"u\",\"queue\":\"q\",\"every_ms\":3600000}");
        durable_settle(&w, pick(300) * 1000);
        lim_runtime_exit(w.bus->rt, w.bus->schedules->owner, LIM_KILL);
        durable_until(&w, is_answered, NULL); /* the answer, or that its process died */
        durable_settle(&w, 10 * SECOND);
        expect("{\"op\":\"show\",\"name\":\"t\"}", "\"missed\":0");
        assert_int_equal(number_of("\"fires\":"), number_count);
        no_doubles();
        bool there = strstr(ask("{\"op\":\"show\",\"name\":\"u\"}"), "NOTFOUND") == NULL;
        kill_it(seed);
        durable_start(&w);
        assert_int_equal(strstr(ask("{\"op\":\"show\",\"name\":\"u\"}"), "NOTFOUND") == NULL, there);
        durable_close(&w);
    }
}

static void test_a_store_that_takes_nothing_changes_nothing_and_holds_fires_back(void **state) /* proves GR16 */
{
    (void)state;
    durable_open(&w, 9);
    number_count = 0;
    listen();
    ask("{\"op\":\"add\",\"name\":\"t\",\"channel\":\"ticks\",\"every_ms\":1000,\"catch_up\":\"all\"}");
    durable_settle(&w, 3 * SECOND + SECOND / 2);
    assert_int_equal(number_count, 3);
    lim__sim_disk disk = lim__sim_disk_get(w.os), good = disk;
    disk.write_error_permille = 1000;
    lim__sim_disk_set(w.os, &disk);
    expect("{\"op\":\"pause\",\"name\":\"t\"}", "nothing has changed");
    expect("{\"op\":\"rm\",\"name\":\"t\"}", "nothing has changed");
    expect("{\"op\":\"add\",\"name\":\"u\",\"queue\":\"q\",\"every_ms\":3600000}", "nothing has changed");
    expect("{\"op\":\"show\",\"name\":\"u\"}", "NOTFOUND");
    expect("{\"op\":\"show\",\"name\":\"t\"}", "\"state\":\"active\"");
    durable_settle(&w, 5 * SECOND);
    assert_int_equal(number_count, 3);
    lim__sim_disk_set(w.os, &good);
    durable_settle(&w, 5 * SECOND);
    expect("{\"op\":\"show\",\"name\":\"t\"}", "\"missed\":0");
    assert_in_range(number_count, 12, 15);
    no_doubles();
    durable_close(&w);
}

static void test_without_a_store_they_say_that_they_are_in_memory(void **state)
{
    (void)state;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim_outcome o;
    lim_bus *bus;
    assert_int_equal(lim_bus_open(&opts, &bus), LIM_OK);
    assert_int_equal(lim_sys(bus, SYS, "{\"op\":\"add\",\"name\":\"x\",\"queue\":\"q\",\"every_ms\":60000}", 5000, &o),
                     LIM_OK);
    char text[4000];
    snprintf(text, sizeof text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
    assert_non_null(strstr(text, "\"durability\":\"memory\""));
    lim_outcome_fini(&o);
    lim_bus_close(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules_are_as_they_were_answered_after_a_kill),
        cmocka_unit_test(test_no_instant_fires_twice_and_none_is_skipped_but_by_its_policy),
        cmocka_unit_test(test_what_fires_into_a_durable_channel_is_neither_lost_nor_doubled),
        cmocka_unit_test(test_what_fires_into_a_queue_is_one_task_whenever_it_is_killed),
        cmocka_unit_test(test_a_process_that_dies_while_it_commits_records_stores_them_once),
        cmocka_unit_test(test_every_instant_is_counted_once),
        cmocka_unit_test(test_the_process_behind_them_dies_while_it_commits_and_nothing_is_lost),
        cmocka_unit_test(test_a_store_that_takes_nothing_changes_nothing_and_holds_fires_back),
        cmocka_unit_test(test_without_a_store_they_say_that_they_are_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
