/* SPDX-License-Identifier: Apache-2.0
 * native_test.c - native routing functions in a bus: deployed, asked, crashing, looping, with real helpers and threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bus/bus.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })

static uint32_t schedulers = 1;

static int open_bus(void **state)
{
    lim_bus *bus = NULL;
    lim_diag diag = { 0 };
    const lim_bus_opts *opts = OPTS(lim_bus_opts, .scheduler_count = schedulers, .native_engine = true, .diag = &diag);
    if (lim_bus_open(opts, &bus) != LIM_OK) {
        fprintf(stderr, "%s\n", diag.text);
        return -1;
    }
    *state = bus;
    return 0;
}

static int close_bus(void **state)
{
    lim_bus_close(*state);
    return 0;
}

static lim_err load(lim_bus *bus, const char *name, lim_diag *diag, lim_hash *hash)
{
    char folder[3500], path[4096];
    void *code = NULL;
    size_t len;
    assert_int_equal(lim__program_folder(folder, sizeof folder), 0);
    snprintf(path, sizeof path, "%s/tests/functions/function-%s.so", folder, name);
    assert_int_equal(lim__file_read(path, 4 << 20, &code, &len), 0);
    lim_err err = lim_artifact_load(bus, LIM_NATIVE, (lim_bytes){ code, len }, name, diag, hash);
    free(code);
    return err;
}

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void serve(lim_bus *bus, const char *group, const char *identity)
{
    lim_participant p;
    assert_int_equal(lim_serve(bus, group,
                               OPTS(lim_serve_opts, .identity = identity, .capacity = LIM_UNLIMITED,
                                    .handler = { .on_message = on_echo }),
                               &p),
                     LIM_OK);
}

static void deploy(lim_bus *bus, const char *group, const char *name, const lim_deploy_opts *opts)
{
    lim_hash hash;
    lim_diag diag = { 0 };
    if (load(bus, name, &diag, &hash) != LIM_OK || lim_deploy(bus, group, &hash, opts, &diag, NULL) != LIM_OK)
        fail_msg("%s", diag.text);
}

static void ask(lim_bus *bus, const char *group, const char *json, lim_how how, const char *who)
{
    lim_outcome o;
    lim_bytes request = { json, strlen(json) };
    assert_int_equal(lim_ask(bus, group, request, OPTS(lim_ask_opts, .timeout_ms = 60000), &o), LIM_OK);
    if (o.how != how)
        fail_msg("%s: %s %.*s; expected %s", json, lim_how_text(o.how), (int)o.detail.len,
                 o.detail.len > 0 ? (const char *)o.detail.ptr : "", lim_how_text(how));
    if (who != NULL)
        assert_memory_equal(o.participant.ptr, who, strlen(who));
    if (how == LIM_HOW_REFUSED)
        assert_int_equal(o.why, LIM_WHY_ROUTING_FAULT);
    lim_outcome_fini(&o);
}

static void test_a_native_function_decides(void **state) /* proves RF13 */
{
    lim_bus *bus = *state;
    serve(bus, "g", "a");
    serve(bus, "g", "b");
    deploy(bus, "g", "healthy", OPTS(lim_deploy_opts, .by = "test"));
    for (int i = 0; i < 50; i++) {
        ask(bus, "g", "{\"name\":\"a\"}", LIM_HOW_REPLY, "a");
        ask(bus, "g", "{\"name\":\"b\"}", LIM_HOW_REPLY, "b");
    }
}

static void test_its_crashes_are_refusals_and_hurt_nobody_else(void **state) /* proves RF9 */
{
    static const char *const bad[] = { "null", "loop", "exit", "fork", "stranger_id", "wild_answers_loop" };
    lim_bus *bus = *state;
    serve(bus, "bad", "a");
    serve(bus, "good", "b");
    deploy(bus, "bad", "hostile", OPTS(lim_deploy_opts, .on_fault = LIM_ON_FAULT_REJECT));
    deploy(bus, "good", "healthy", OPTS(lim_deploy_opts, .by = "test"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[64];
        snprintf(json, sizeof json, "{\"do\":\"%s\"}", bad[i]);
        ask(bus, "bad", json, LIM_HOW_REFUSED, NULL);
        ask(bus, "good", "{\"name\":\"b\"}", LIM_HOW_REPLY, "b");
        ask(bus, "bad", "{\"answer\":0}", LIM_HOW_REPLY, "a");
    }
}

typedef struct tally {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int ended, replies, refused;
    char detail[200]; /* of the first that was refused */
} tally;

static void on_outcome(void *ctx, const lim_outcome *o)
{
    tally *t = ctx;
    pthread_mutex_lock(&t->mutex);
    t->ended++;
    t->replies += o->how == LIM_HOW_REPLY;
    t->refused += o->how == LIM_HOW_REFUSED;
    if (o->how == LIM_HOW_REFUSED && t->refused == 1)
        snprintf(t->detail, sizeof t->detail, "%.*s", (int)(o->detail.len < 199 ? o->detail.len : 199),
                 o->detail.len > 0 ? (const char *)o->detail.ptr : "");
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}

/* Every one ends once, whatever those before it did to the helper; some are refused because too many are unfinished. */
static void test_many_asks_at_once_all_end(void **state)
{
    enum { ASKS = 400 };
    static const char *const requests[] = { "{\"answer\":0}", "{\"do\":\"null\"}", "{\"answer\":0}",
                                            "{\"answer\":4294967295}", "{\"do\":\"exit\"}" };
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    lim_bus *bus = *state;
    serve(bus, "bad", "a");
    deploy(bus, "bad", "hostile", OPTS(lim_deploy_opts, .unfinished_max = 64));
    for (int i = 0; i < ASKS; i++) {
        const char *json = i % 50 == 49 ? "{\"do\":\"loop\"}" : requests[i % 5];
        assert_int_equal(lim_ask_async(bus, "bad", (lim_bytes){ json, strlen(json) },
                                       OPTS(lim_ask_opts, .timeout_ms = 60000), on_outcome, &t, NULL),
                         LIM_OK);
    }
    pthread_mutex_lock(&t.mutex);
    while (t.ended < ASKS)
        pthread_cond_wait(&t.changed, &t.mutex);
    pthread_mutex_unlock(&t.mutex);
    assert_int_equal(t.replies + t.refused, ASKS);
    assert_true(t.replies > 0 && t.refused > 0);
    ask(bus, "bad", "{\"answer\":0}", LIM_HOW_REPLY, "a");
}

static void test_versions_are_swapped_while_calls_run(void **state)
{
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    lim_bus *bus = *state;
    int asks = 0;
    serve(bus, "g", "a");
    for (int i = 0; i < 40; i++) {
        deploy(bus, "g", i % 2 != 0 ? "healthy" : "quick", OPTS(lim_deploy_opts, .unfinished_max = 64));
        for (int k = 0; k < 5; k++, asks++)
            assert_int_equal(lim_ask_async(bus, "g", BYTES("{\"name\":\"a\"}"), OPTS(lim_ask_opts, .timeout_ms = 60000),
                                           on_outcome, &t, NULL),
                             LIM_OK);
    }
    pthread_mutex_lock(&t.mutex);
    while (t.ended < asks)
        pthread_cond_wait(&t.changed, &t.mutex);
    pthread_mutex_unlock(&t.mutex);
    if (t.replies != asks)
        fail_msg("%d of %d were refused: %s", t.refused, asks, t.detail);
}

static void serve_few(lim_bus *bus, const char *group, const char *identity, uint32_t capacity)
{
    lim_participant p;
    assert_int_equal(lim_serve(bus, group,
                               OPTS(lim_serve_opts, .identity = identity, .capacity = capacity,
                                    .handler = { .on_message = on_echo }),
                               &p),
                     LIM_OK);
}

/* All of them see `few` with room when they are asked together; it has three places. */
static void test_what_is_decided_together_is_placed_where_there_is_room(void **state) /* proves GR6 */
{
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    lim_bus *bus = *state;
    enum { ASKS = 1000 }; /* as many as a group lets wait while its helper has no processor */
    serve_few(bus, "g", "few", 3);
    serve_few(bus, "g", "many", 100000);
    deploy(bus, "g", "quick", OPTS(lim_deploy_opts, .unfinished_max = 64));
    for (int k = 0; k < ASKS; k++)
        assert_int_equal(
            lim_ask_async(bus, "g", BYTES("{}"), OPTS(lim_ask_opts, .timeout_ms = 60000), on_outcome, &t, NULL),
            LIM_OK);
    pthread_mutex_lock(&t.mutex);
    while (t.ended < ASKS)
        pthread_cond_wait(&t.changed, &t.mutex);
    pthread_mutex_unlock(&t.mutex);
    if (t.replies != ASKS)
        fail_msg("%d of %d were refused: %s", t.refused, ASKS, t.detail);
}

static void test_tasks_of_one_line_are_decided_together(void **state)
{
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    lim_bus *bus = *state;
    lim_admission out;
    lim_participant p;
    enum { TASKS = 1000 };
    deploy(bus, "q", "quick", OPTS(lim_deploy_opts, .unfinished_max = 64));
    for (int k = 0; k < TASKS; k++)
        assert_int_equal(lim_dispatch(bus, "q", BYTES("{}"), OPTS(lim_dispatch_opts, .timeout_ms = 60000), on_outcome,
                                      &t, &out, NULL),
                         LIM_OK);
    for (int k = 0; k < 2; k++) /* who comes finds all of them waiting */
        assert_int_equal(lim_work(bus, "q",
                                  OPTS(lim_serve_opts, .identity = k == 0 ? "few" : "many",
                                       .capacity = k == 0 ? 3 : 100, .handler = { .on_message = on_echo }),
                                  &p),
                         LIM_OK);
    pthread_mutex_lock(&t.mutex);
    while (t.ended < TASKS)
        pthread_cond_wait(&t.changed, &t.mutex);
    pthread_mutex_unlock(&t.mutex);
    assert_int_equal(t.replies, TASKS);
}

static void test_a_bus_closes_while_a_function_loops(void **state)
{
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    lim_bus *bus = *state;
    serve(bus, "bad", "a");
    deploy(bus, "bad", "hostile", OPTS(lim_deploy_opts, .cpu_us_max = 5000000));
    for (int i = 0; i < 3; i++)
        assert_int_equal(lim_ask_async(bus, "bad", BYTES("{\"do\":\"loop\"}"), OPTS(lim_ask_opts, .timeout_ms = 60000),
                                       on_outcome, &t, NULL),
                         LIM_OK);
    lim_bus_close(bus);
    assert_int_equal(t.ended, 3);
    assert_int_equal(open_bus(state), 0);
}

/* The processes that our zygote has forked; answers how many. */
static int helpers(int *pids, int max)
{
    char path[64], list[4096];
    int n = 0, children[16], found = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    for (int level = 0; level < 2; level++) {
        FILE *f = fopen(path, "r");
        size_t len = f != NULL ? fread(list, 1, sizeof list - 1, f) : 0;
        if (f != NULL)
            fclose(f);
        list[len] = 0;
        n = 0;
        for (char *at = list, *next; (found = (int)strtol(at, &next, 10)) > 0 && next != at; at = next)
            if (n < (level == 0 ? 16 : max))
                (level == 0 ? children : pids)[n++] = found;
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", n > 0 ? children[0] : 0, n > 0 ? children[0] : 0);
    }
    return n;
}

static bool alive(const int *pids, int n, int pid)
{
    for (int i = 0; i < n; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

/* It answers its call, and goes on working: nobody asks it again, and it ends all the same. */
static void test_a_helper_that_works_with_nothing_to_do_is_ended(void **state)
{
    lim_bus *bus = *state;
    lim_outcome o;
    int before[8], now[8];
    serve(bus, "bad", "a");
    deploy(bus, "bad", "hostile", OPTS(lim_deploy_opts, .by = "test"));
    ask(bus, "bad", "{\"answer\":0}", LIM_HOW_REPLY, "a");
    if (access("/proc/self/task", F_OK) != 0 || helpers(before, 8) == 0)
        skip(); /* this system does not tell who is whose child */
    int n = helpers(before, 8);
    while (n != 2) { /* one that is asked, one that stands by; the one that the object was tried out with is ending */
        lim__thread_yield();
        n = helpers(before, 8);
    }
    int left = n;
    assert_int_equal(
        lim_ask(bus, "bad", BYTES("{\"do\":\"answer_then_work\"}"), OPTS(lim_ask_opts, .timeout_ms = 60000), &o),
        LIM_OK);
    lim_outcome_fini(&o);
    while (left == n) {
        int all = helpers(now, 8);
        left = 0;
        for (int i = 0; i < n; i++)
            left += alive(now, all, before[i]);
        lim__thread_yield();
    }
    ask(bus, "bad", "{\"answer\":0}", LIM_HOW_REPLY, "a");
}

static void test_a_bad_object_changes_nothing(void **state)
{
    lim_hash hash;
    lim_diag diag = { 0 };
    assert_int_equal(load(*state, "no-symbol", &diag, &hash), LIM_E_CODE);
    assert_non_null(strstr(diag.text, "LIM_NATIVE_ROUTER"));
}

static void test_a_bus_without_the_engine_refuses_by_name_of_the_setting(void **state)
{
    lim_bus *bus = NULL;
    lim_hash hash;
    lim_diag diag = { 0 };
    (void)state;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 1), &bus), LIM_OK);
    assert_int_equal(load(bus, "healthy", &diag, &hash), LIM_E_MISUSE);
    assert_non_null(strstr(diag.text, "routing.native: true"));
    lim_bus_close(bus);
}

static void test_a_bus_with_the_engine_and_no_helper_does_not_open(void **state)
{
    lim_bus *bus = NULL;
    lim_diag diag = { 0 };
    (void)state;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 1, .native_engine = true,
                                       .native_helper = "/nowhere/liminal-helper", .diag = &diag),
                                  &bus),
                     LIM_E_NOTFOUND);
    assert_non_null(strstr(diag.text, "/nowhere/liminal-helper"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_native_function_decides),
        T(test_its_crashes_are_refusals_and_hurt_nobody_else),
        T(test_many_asks_at_once_all_end),
        T(test_versions_are_swapped_while_calls_run),
        T(test_what_is_decided_together_is_placed_where_there_is_room),
        T(test_tasks_of_one_line_are_decided_together),
        T(test_a_bus_closes_while_a_function_loops),
        T(test_a_helper_that_works_with_nothing_to_do_is_ended),
        T(test_a_bad_object_changes_nothing),
        cmocka_unit_test(test_a_bus_without_the_engine_refuses_by_name_of_the_setting),
        cmocka_unit_test(test_a_bus_with_the_engine_and_no_helper_does_not_open),
    };
    int failed = cmocka_run_group_tests_name("native, one scheduler", tests, NULL, NULL);
    schedulers = 2;
    return failed + cmocka_run_group_tests_name("native, two schedulers", tests, NULL, NULL);
}
