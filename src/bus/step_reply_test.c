/* SPDX-License-Identifier: Apache-2.0
 * step_reply_test.c - a task's result and what was made of it are one step: lim_step_reply, on a bus with real threads
 * and a real disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })
enum { TASKS = 20 };

static struct {
    lim_bus *bus;
    char dir[32];
    _Atomic uint32_t stored, refused;
    _Atomic int last;   /* error of a step */
    lim_delivery first; /* its views are over */
} w;

static void on_step(void *ctx, lim_err err, const char *detail)
{
    (void)ctx, (void)detail;
    atomic_store(&w.last, (int)err);
    atomic_fetch_add(err == LIM_OK ? &w.stored : &w.refused, 1);
}

static lim_err answer(lim_bus *bus, const lim_delivery *d, lim_bytes result)
{
    lim_step *step;
    lim_err err = lim_step_new(bus, &step);
    if (err != LIM_OK)
        return err;
    err = lim_step_publish(step, "out", result, NULL);
    if (err == LIM_OK)
        err = lim_step_reply(step, d, result);
    if (err == LIM_OK)
        return lim_step_commit(step, on_step, NULL);
    lim_step_free(step);
    return err;
}

static lim_done on_task(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    if (w.first.lease == 0)
        w.first = *d;
    return answer(bus, d, d->payload) == LIM_OK ? LIM_HOLD : LIM_FAIL;
}

static void sys(const char *group, const char *request, const char *says)
{
    lim_outcome o;
    assert_int_equal(lim_sys(w.bus, group, request, 60000, &o), LIM_OK);
    if (o.how != LIM_HOW_REPLY || memmem(o.payload.ptr, o.payload.len, says, strlen(says)) == NULL)
        fail_msg("%s: no %s in %.*s", request, says, (int)o.payload.len, (const char *)o.payload.ptr);
    lim_outcome_fini(&o);
}

static int open_world(void **state)
{
    lim_channel out;
    lim_participant p;
    lim_diag diag = { 0 };
    (void)state;
    memset(&w, 0, sizeof w);
    snprintf(w.dir, sizeof w.dir, "step-reply-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    const lim_bus_opts *opts = OPTS(lim_bus_opts, .scheduler_count = 2, .data_dir = w.dir, .diag = &diag);
    if (lim_bus_open(opts, &w.bus) != LIM_OK)
        fail_msg("%s", diag.text);
    assert_int_equal(lim_channel_open(w.bus, "out", OPTS(lim_channel_opts, .durable = true), &out), LIM_OK);
    sys("$sys.queues", "{\"op\":\"configure\",\"queue\":\"q\",\"durable\":true}", "\"durable\":true");
    assert_int_equal(
        lim_work(w.bus, "q",
                 OPTS(lim_serve_opts, .identity = "worker", .capacity = 4, .handler = { .on_message = on_task }), &p),
        LIM_OK);
    return 0;
}

static int close_world(void **state)
{
    char command[64];
    (void)state;
    lim_bus_close(w.bus);
    snprintf(command, sizeof command, "rm -rf %s", w.dir);
    return system(command) == 0 ? 0 : -1;
}

static lim_conv dispatch(const char *payload)
{
    lim_admission out;
    lim_conv task;
    assert_int_equal(lim_dispatch(w.bus, "q", (lim_bytes){ payload, strlen(payload) },
                                  OPTS(lim_dispatch_opts, .timeout_ms = 60000), NULL, NULL, &out, &task),
                     LIM_OK);
    assert_int_not_equal(out.verdict, LIM_REJECT);
    return task;
}

static void test_a_result_and_what_was_made_of_it_are_one_step(void **state) /* proves XO2, DU4 */
{
    lim_conv tasks[TASKS];
    char text[16];
    (void)state;
    for (int i = 0; i < TASKS; i++) {
        snprintf(text, sizeof text, "{\"n\":%d}", i);
        tasks[i] = dispatch(text);
    }
    for (int i = 0; i < TASKS; i++) {
        lim_outcome o;
        int len = snprintf(text, sizeof text, "{\"n\":%d}", i);
        assert_int_equal(lim_task_await(w.bus, tasks[i], 60000, &o), LIM_OK);
        assert_int_equal(o.how, LIM_HOW_REPLY);
        assert_int_equal(o.payload.len, len);
        assert_memory_equal(o.payload.ptr, text, (size_t)len);
        lim_outcome_fini(&o);
    }
    while (atomic_load(&w.stored) + atomic_load(&w.refused) < TASKS)
        sched_yield();
    assert_int_equal(atomic_load(&w.stored), TASKS);
    sys("$sys.channels", "{\"op\":\"show\",\"name\":\"out\"}", "\"count\":20");
}

static void test_a_result_that_nobody_waits_for_changes_nothing(void **state)
{
    lim_outcome o;
    lim_step *step;
    (void)state;
    lim_conv task = dispatch("{}");
    assert_int_equal(lim_task_await(w.bus, task, 60000, &o), LIM_OK);
    lim_outcome_fini(&o);
    while (atomic_load(&w.stored) < 1)
        sched_yield();
    assert_int_equal(answer(w.bus, &w.first, BYTES("{\"again\":1}")), LIM_OK); /* it was answered already */
    while (atomic_load(&w.refused) < 1)
        sched_yield();
    assert_int_equal(atomic_load(&w.last), LIM_E_GONE);
    sys("$sys.channels", "{\"op\":\"show\",\"name\":\"out\"}", "\"count\":1");
    assert_int_equal(lim_step_new(w.bus, &step), LIM_OK);
    assert_int_equal(lim_step_reply(step, &(lim_delivery){ .conv = task }, BYTES("{}")), LIM_E_MISUSE); /* no request */
    assert_int_equal(lim_step_reply(NULL, &w.first, BYTES("{}")), LIM_E_MISUSE);
    lim_step_free(step);
}

#define T(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_result_and_what_was_made_of_it_are_one_step),
        T(test_a_result_that_nobody_waits_for_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
