/* SPDX-License-Identifier: Apache-2.0
 * saga_durable_test.c - sagas on a bus that is killed again and again: each ends, its steps in their order, none of
 * those that had ended once more. */
#include "bus/durable_ask.h"
#include "bus/letters.h"
#include "bus/participant.h"
#include "bus/saga.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define SYS    "$sys.sagas"
enum { RUNS_MAX = 1000 };

static durable_world w;
static uint64_t dice;
static char runs[RUNS_MAX][32]; /* what workers were given, over all lives */
static uint32_t run_count, life_began;
static const char *fails; /* the payload that fails; NULL: none */

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

static lim_done on_task(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    if (d->event != LIM_EVENT_NONE)
        return LIM_DONE;
    assert_true(run_count < RUNS_MAX);
    char *text = runs[run_count++];
    snprintf(text, sizeof runs[0], "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    if (strcmp(text, "hold") == 0)
        return LIM_HOLD;
    if (fails != NULL && strcmp(text, fails) == 0)
        return LIM_FAIL;
    (void)!lim_reply(bus, d, lim__str(text));
    return LIM_DONE;
}

static void worker(const char *queue, lim__member_kind kind)
{
    lim_pid group, pid;
    lim_handler handler = { .on_message = on_task };
    assert_int_equal(lim__group_get(w.bus, NULL, lim__str(queue), &group), LIM_OK);
    assert_int_equal(lim__participant_spawn(w.bus, &handler, kind, group, &pid), LIM_OK);
    lim__join *j = lim__join_new(NULL, pid, kind, lim__str("w"), 16, NULL, NULL);
    assert_non_null(j);
    j->reply_to = pid;
    assert_int_equal(lim__post_reserved(w.bus->rt, group, j), LIM_OK);
}

static void workers(void)
{
    worker("q", LIM__MEMBER_WORK);
    worker("undo", LIM__MEMBER_WORK);
    worker("g", LIM__MEMBER_SERVE);
    life_began = run_count;
}

static void begin(uint64_t seed)
{
    durable_open(&w, seed);
    dice = seed;
    run_count = 0;
    fails = NULL;
    workers();
}

static void die(void)
{
    if (pick(2) != 0)
        durable_kill(&w);
    else
        durable_power_off(&w);
    durable_settle(&w, pick(3) * SECOND);
    durable_start(&w);
    workers();
}

static bool ended(void *ctx)
{
    (void)ctx;
    return lim__sagas_running(w.bus->sagas) == 0;
}

/* Within one life every one once, over all lives in order, and one twice only if a kill was between. */
static void in_order(void)
{
    for (uint32_t i = 1; i < run_count; i++) {
        bool undo = runs[i][0] == 'u', undid = runs[i - 1][0] == 'u';
        if (undo == undid)
            assert_true(undo ? strcmp(runs[i], runs[i - 1]) <= 0 : strcmp(runs[i], runs[i - 1]) >= 0);
        else
            assert_true(undo);
    }
    for (uint32_t i = life_began + 1; i < run_count; i++)
        assert_string_not_equal(runs[i], runs[i - 1]);
}

static const char saga[] = "{\"op\":\"run\",\"name\":\"s\",\"durable\":true,\"steps\":["
                           "{\"dispatch\":\"q\",\"payload\":\"d1\",\"compensate\":\"undo\",\"compensation\":\"u1\"},"
                           "{\"dispatch\":\"q\",\"payload\":\"d2\",\"compensate\":\"undo\",\"compensation\":\"u2\"},"
                           "{\"dispatch\":\"q\",\"payload\":\"d3\",\"compensate\":\"undo\",\"compensation\":\"u3\"},"
                           "{\"dispatch\":\"q\",\"payload\":\"d4\",\"compensate\":\"undo\",\"compensation\":\"u4\"}]}";

static void test_a_durable_saga_goes_on_where_it_was(void **state) /* proves DU4 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        begin(seed);
        fails = seed % 3 == 0 ? "d4" : NULL;
        ask_begin(saga);
        durable_until(&w, is_answered, NULL); /* how long one takes */
        assert_non_null(strstr(answer, fails != NULL ? "\"outcome\":\"compensated\"" : "\"outcome\":\"done\""));
        ask_begin(saga);
        uint32_t before = run_count;
        for (uint32_t kills = 0; kills < 6; kills++) {
            durable_settle(&w, pick(8) * 1000000 + pick(1000) * 1000);
            die();
        }
        ask("{\"op\":\"ls\"}");
        durable_until(&w, ended, NULL);
        if (run_count > before) { /* it had been stored */
            ask("{\"op\":\"show\",\"id\":\"2\"}");
            assert_non_null(strstr(answer, fails != NULL ? "\"state\":\"compensated\"" : "\"state\":\"done\""));
            assert_non_null(strstr(answer, "\"payload\":\"d3\""));
            memmove(runs, runs + before, sizeof runs[0] * (run_count - before));
            run_count -= before;
            life_began = life_began > before ? life_began - before : 0;
            in_order();
        }
        durable_kill(&w); /* what ended is known after that, too */
        durable_start(&w);
        ask("{\"op\":\"ls\",\"ended\":true}");
        assert_non_null(strstr(answer, fails != NULL ? "\"state\":\"compensated\"" : "\"state\":\"done\""));
        durable_close(&w);
    }
}

static void test_an_ask_that_was_under_way_has_failed_and_is_undone(void **state)
{
    (void)state;
    begin(5);
    ask_begin("{\"op\":\"run\",\"durable\":true,\"steps\":["
              "{\"dispatch\":\"q\",\"payload\":\"d1\",\"compensate\":\"undo\",\"compensation\":\"u1\"},"
              "{\"ask\":\"g\",\"payload\":\"hold\",\"timeout_ms\":600000}]}");
    durable_settle(&w, SECOND);
    assert_string_equal(runs[run_count - 1], "hold");
    die();
    ask("{\"op\":\"ls\"}");
    durable_until(&w, ended, NULL);
    ask("{\"op\":\"show\",\"id\":\"1\"}");
    assert_non_null(strstr(answer, "\"state\":\"compensated\""));
    assert_non_null(strstr(answer, "\"how\":\"crashed\""));
    assert_non_null(strstr(answer, "\"handed_over\":\"unknown\""));
    assert_string_equal(runs[run_count - 1], "u1");
    durable_close(&w);
}

static void test_a_task_that_was_under_way_is_waited_for_and_can_be_cancelled(void **state)
{
    (void)state;
    begin(5);
    ask_begin("{\"op\":\"run\",\"durable\":true,\"steps\":["
              "{\"dispatch\":\"q\",\"payload\":\"d1\",\"compensate\":\"undo\",\"compensation\":\"u1\"},"
              "{\"dispatch\":\"absent\",\"payload\":\"d2\",\"timeout_ms\":600000}]}");
    durable_settle(&w, SECOND); /* d2 waits for a worker */
    die();
    ask("{\"op\":\"show\",\"id\":\"1\"}");
    assert_non_null(strstr(answer, "\"state\":\"running\",\"step\":\"2\""));
    ask("{\"op\":\"cancel\",\"id\":\"1\"}");
    durable_until(&w, ended, NULL);
    ask("{\"op\":\"show\",\"id\":\"1\"}");
    assert_non_null(strstr(answer, "\"state\":\"compensated\""));
    assert_string_equal(runs[run_count - 1], "u1");
    durable_close(&w);
}

static void test_one_that_cannot_be_stored_is_refused_and_nothing_has_happened(void **state)
{
    (void)state;
    begin(3);
    ask("{\"op\":\"ls\"}");
    lim__sim_disk disk = lim__sim_disk_get(w.os), good = disk;
    disk.write_error_permille = 1000;
    lim__sim_disk_set(w.os, &disk);
    ask(saga);
    assert_non_null(strstr(answer, "\"why\":\"disk_fault\""));
    assert_int_equal(run_count, 0);
    lim__sim_disk_set(w.os, &good);
    durable_settle(&w, 5 * SECOND); /* the store looks after itself */
    ask(saga);
    assert_non_null(strstr(answer, "\"outcome\":\"done\""));
    durable_close(&w);
}

static void test_one_that_has_begun_waits_for_a_disk_that_fails(void **state)
{
    (void)state;
    begin(4);
    ask_begin(saga);
    durable_settle(&w, 100000);
    lim__sim_disk disk = lim__sim_disk_get(w.os), good = disk;
    durable_settle(&w, 3000000);
    bool begun = run_count > 0;
    disk.write_error_permille = 1000;
    lim__sim_disk_set(w.os, &disk);
    durable_settle(&w, 5 * SECOND);
    lim__sim_disk_set(w.os, &good);
    durable_until(&w, is_answered, NULL);
    assert_true(!begun || strstr(answer, "\"outcome\":\"done\"") != NULL);
    in_order();
    durable_close(&w);
}

static void test_without_a_store_a_durable_one_is_refused(void **state)
{
    (void)state;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim_bus *bus;
    lim_outcome o;
    char text[1000];
    assert_int_equal(lim_bus_open(&opts, &bus), LIM_OK);
    assert_int_equal(lim_sys(bus, SYS, saga, 5000, &o), LIM_OK);
    snprintf(text, sizeof text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
    assert_non_null(strstr(text, "MISUSE"));
    assert_non_null(strstr(text, "--data"));
    lim_outcome_fini(&o);
    lim_bus_close(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_durable_saga_goes_on_where_it_was),
        cmocka_unit_test(test_an_ask_that_was_under_way_has_failed_and_is_undone),
        cmocka_unit_test(test_a_task_that_was_under_way_is_waited_for_and_can_be_cancelled),
        cmocka_unit_test(test_one_that_cannot_be_stored_is_refused_and_nothing_has_happened),
        cmocka_unit_test(test_one_that_has_begun_waits_for_a_disk_that_fails),
        cmocka_unit_test(test_without_a_store_a_durable_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
