/* SPDX-License-Identifier: Apache-2.0
 * slot_durable_test.c - router slots on a bus that is killed: what was answered is live again, and so is what was
 * before it; what could not be stored has not happened. */
#include "bus/durable_world.h"
#include "bus/channel_slot.h"
#include "bus/letters.h"
#include "bus/participant.h"
#include "bus/slot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static durable_world w;
static char reply[1 << 15], who[64], hash[LIM__HASH_TEXT];
static uint32_t replies;

static void on_answer(void *ctx, const lim_outcome *o)
{
    (void)ctx;
    lim_bytes text = o->how == LIM_HOW_REPLY ? o->payload : o->detail;
    snprintf(reply, sizeof reply, "%.*s", (int)text.len, text.len > 0 ? (const char *)text.ptr : "");
    snprintf(who, sizeof who, "%.*s", (int)o->participant.len,
             o->participant.len > 0 ? (const char *)o->participant.ptr : "");
    replies++;
}

static bool is_answered(void *ctx)
{
    return replies >= *(uint32_t *)ctx;
}

static void ask_begin(const char *group, const char *json)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .wait = true };
    assert_int_equal(lim_ask_async(w.bus, group, lim__str(json), &opts, on_answer, NULL, NULL), LIM_OK);
}

static const char *ask(const char *group, const char *json)
{
    uint32_t wanted = replies + 1;
    ask_begin(group, json);
    durable_until(&w, is_answered, &wanted);
    return reply;
}

static void expect(const char *json, const char *part)
{
    if (strstr(ask("$sys.routes", json), part) == NULL)
        fail_msg("%s\n  answered %s\n  and not  %s", json, reply, part);
}

#define ASK_ONE(format, ...)                                                                                           \
    do {                                                                                                               \
        char request_[400];                                                                                            \
        snprintf(request_, sizeof request_, format, __VA_ARGS__);                                                      \
        ask("$sys.routes", request_);                                                                                  \
    } while (0)

/* The code's hash is in `hash`. */
static void load(const char *code)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", "load");
    lim__json_str(&j, "name", "f.lua");
    lim__json_str(&j, "code", code);
    lim__json_close(&j);
    lim__buf_add(&b, "", 1);
    ask("$sys.artifacts", (const char *)b.ptr + b.start);
    lim__buf_fini(&b);
    const char *at = strstr(reply, "\"hash\":\"");
    if (at == NULL)
        fail_msg("%s", reply);
    snprintf(hash, sizeof hash, "%.64s", at + 8);
}

static void deploy(const char *code, const char *more)
{
    load(code);
    ASK_ONE("{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"%s\"%s}", hash, more);
    if (strstr(reply, "\"version\"") == NULL)
        fail_msg("%s", reply);
}

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static lim_pid group_of(const char *name)
{
    return lim__group_find(w.bus, lim__str(name));
}

static void serve(const char *identity)
{
    lim_pid group, p;
    const lim_handler handler = { .on_message = on_echo };
    assert_int_equal(lim__group_get(w.bus, NULL, lim__str("g"), &group), LIM_OK);
    assert_int_equal(lim__participant_spawn(w.bus, &handler, LIM__MEMBER_SERVE, group, &p), LIM_OK);
    lim__join *j = lim__join_new(NULL, p, LIM__MEMBER_SERVE, lim__str(identity), 9, NULL, NULL);
    j->reply_to = p;
    assert_int_equal(lim__post_reserved(w.bus->rt, group, j), LIM_OK);
    durable_settle(&w, 1000000);
}

static void answered_by(const char *identity)
{
    ask("g", "{}");
    assert_string_equal(who, identity);
}

static void again(uint64_t seed)
{
    if (seed & 1)
        durable_kill(&w);
    else
        durable_power_off(&w);
    durable_start(&w);
    durable_settle(&w, 1000000);
    assert_true(group_of("g").id != 0); /* it is there before anybody asks for it */
    serve("a");
    serve("b");
}

/* `versions` without what is of this run only. */
static void versions(char *out, size_t size)
{
    size_t used = 0;
    ask("$sys.routes", "{\"op\":\"show\",\"group\":\"g\"}");
    for (const char *at = reply; (at = strstr(at, "\"id\":\"")) != NULL; at += 6) {
        const char *state = strstr(at, "\"state\":\""), *by = strstr(at, "\"by\":\""), *cpu = strstr(at, "\"cpu_us\":");
        if (state == NULL || by == NULL || cpu == NULL)
            continue;
        used += (size_t)snprintf(out + used, size - used, "%.22s %.17s %.12s %.16s;", at, state, by, cpu);
    }
}

#define FIRST  "return function(m, c) return c[1] end"
#define SECOND "return function(m, c) return c[2] end"
#define BAD    "return function() error('no') end"

static void test_slots_are_as_they_were_answered_after_a_kill(void **state) /* proves RF15 */
{
    static char before[4096], after[4096], history[1 << 15];
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        durable_open(&w, seed);
        serve("a");
        serve("b");
        deploy(FIRST, ",\"by\":\"ann\"");
        deploy(SECOND, ",\"by\":\"bob\",\"cpu_us\":7000,\"log_bytes\":99");
        answered_by("b");
        deploy(BAD, ",\"trial\":\"ramp\",\"percent\":12.5,\"ramp_key\":\"user.id\",\"ramp_where\":\"$size > 9000\"");
        versions(before, sizeof before);
        strcpy(history, ask("$sys.routes", "{\"op\":\"history\",\"group\":\"g\"}"));
        *strstr(history, "\"age_ms\"") = '\0';
        again(seed);
        versions(after, sizeof after);
        assert_string_equal(after, before);
        expect("{\"op\":\"show\",\"group\":\"g\"}", "\"log_bytes\":99,");
        expect("{\"op\":\"show\",\"group\":\"g\"}", "\"percent\":12.5,\"key\":\"user.id\",\"where\":\"$size > 9000\"");
        ask("$sys.routes", "{\"op\":\"history\",\"group\":\"g\"}");
        assert_memory_equal(reply, history, strlen(history));
        answered_by("b");
        expect("{\"op\":\"stop\",\"group\":\"g\"}", "\"version\"");
        expect("{\"op\":\"rollback\",\"group\":\"g\",\"by\":\"cy\"}", "\"version\"");
        again(seed + 1);
        answered_by("a");
        expect("{\"op\":\"history\",\"group\":\"g\"}", "\"entries\":5,");
        ask("$sys.groups", "{\"op\":\"rm\",\"name\":\"g\"}"); /* refused: two are in it */
        assert_non_null(strstr(reply, "error"));
        durable_close(&w);
    }
}

static void test_code_that_no_slot_keeps_is_forgotten(void **state) /* proves RF7 RF15 */
{
    (void)state;
    char code[96];
    durable_open(&w, 3);
    for (int i = 0; i < 12; i++) {
        snprintf(code, sizeof code, "-- %d\n%s", i, FIRST);
        deploy(code, ",\"keep\":3");
    }
    load("-- never deployed\n" FIRST);
    durable_kill(&w);
    durable_start(&w);
    ask("$sys.artifacts", "{\"op\":\"ls\"}");
    uint32_t n = 0;
    for (const char *at = reply; (at = strstr(at, "\"short\"")) != NULL; at++)
        n++;
    assert_int_equal(n, 3);
    ask("$sys.groups", "{\"op\":\"rm\",\"name\":\"g\"}");
    durable_kill(&w);
    durable_start(&w);
    assert_int_equal(group_of("g").id, 0);
    ask("$sys.artifacts", "{\"op\":\"ls\"}");
    assert_null(strstr(reply, "\"short\""));
    durable_close(&w);
}

static void test_what_the_breaker_did_is_kept(void **state) /* proves RF11 RF15 */
{
    (void)state;
    durable_open(&w, 5);
    serve("a");
    serve("b");
    deploy(SECOND, "");
    deploy(BAD, ",\"breaker_faults\":2");
    ask("g", "{}");
    ask("g", "{}");
    answered_by("b");
    durable_settle(&w, 1000000000);
    again(1);
    answered_by("b");
    expect("{\"op\":\"history\",\"group\":\"g\"}", "\"kind\":\"breaker\"");
    expect("{\"op\":\"show\",\"group\":\"g\"}", "\"tripped\":true");
    durable_close(&w);
}

static bool forget_code(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)value;
    lim__batch_delete(ctx, LIM__TABLE_ARTIFACTS, key);
    return true;
}

static void freed(void *ctx, lim__batch *batch, const lim__committed *what)
{
    assert_int_equal(what->how, LIM__COMMITTED);
    *(bool *)ctx = true;
    lim__batch_free(batch);
}

static bool is_true(void *ctx)
{
    return *(bool *)ctx;
}

static void test_a_version_that_cannot_be_made_again_is_passed_over(void **state) /* proves RF15 */
{
    (void)state;
    bool done = false;
    durable_open(&w, 6);
    deploy("-- the good one\n" FIRST, "");
    char good[LIM__HASH_TEXT];
    memcpy(good, hash, sizeof good);
    deploy(SECOND, "");
    lim__batch *b = lim__batch_new(); /* somebody damages the store */
    uint8_t first = 0, bytes[32];
    for (int i = 0; i < 32; i++) {
        unsigned x;
        sscanf(hash + (size_t)i * 2, "%2x", &x);
        bytes[i] = (uint8_t)x;
    }
    assert_int_equal(lim__store_scan(lim__durable_store(w.bus), LIM__TABLE_ARTIFACTS, lim__bytes(bytes, 32),
                                     lim__bytes(&first, 0), forget_code, b),
                     0);
    assert_int_equal(lim__durable_submit(w.bus, b, freed, &done), LIM_OK);
    durable_until(&w, is_true, &done);
    again(1);
    answered_by("a");
    good[16] = '\0';
    expect("{\"op\":\"show\",\"group\":\"g\"}", good);
    expect("{\"op\":\"history\",\"group\":\"g\"}", "\"kind\":\"restore\"");
    durable_close(&w);
}

static void test_many_at_once_are_carried_out_one_after_the_other(void **state) /* proves RF15 */
{
    (void)state;
    char request[200], two[2][LIM__HASH_TEXT];
    durable_open(&w, 7);
    serve("a");
    serve("b");
    load(FIRST);
    memcpy(two[0], hash, sizeof hash);
    load(SECOND);
    memcpy(two[1], hash, sizeof hash);
    uint32_t wanted = replies + 51;
    for (int i = 0; i < 51; i++) {
        snprintf(request, sizeof request, "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"%s\"}", two[i % 2]);
        ask_begin("$sys.routes", request);
    }
    durable_until(&w, is_answered, &wanted);
    answered_by("a");
    expect("{\"op\":\"history\",\"group\":\"g\"}", "\"entries\":51,");
    again(2);
    answered_by("a");
    expect("{\"op\":\"history\",\"group\":\"g\"}", "\"entries\":51,");
    durable_close(&w);
}

static void test_what_could_not_be_stored_has_not_happened(void **state) /* proves RF15 */
{
    (void)state;
    durable_open(&w, 8);
    serve("a");
    serve("b");
    deploy(FIRST, "");
    load(SECOND);
    lim__sim_disk good = lim__sim_disk_get(w.os), bad = good;
    bad.write_error_permille = 1000;
    bad.sync_error_permille = 1000;
    lim__sim_disk_set(w.os, &bad);
    ASK_ONE("{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"%s\"}", hash);
    assert_non_null(strstr(reply, "nothing has changed"));
    answered_by("a");
    expect("{\"op\":\"history\",\"group\":\"g\"}", "\"entries\":1,");
    lim__sim_disk_set(w.os, &good);
    again(1);
    answered_by("a");
    deploy(SECOND, "");
    answered_by("b");
    durable_close(&w);
}

/* Killed at any moment: what was answered is so; what was not is so, or is not, but nothing between. */
static void test_killed_at_any_moment_a_slot_is_whole(void **state) /* proves RF15 */
{
    (void)state;
    for (uint64_t n = 1; n <= 24; n++) {
        durable_open(&w, 100 + n);
        deploy(FIRST, "");
        load(SECOND);
        char request[200];
        snprintf(request, sizeof request, "{\"op\":\"deploy\",\"group\":\"g\",\"hash\":\"%s\"}", hash);
        uint32_t wanted = replies + 1;
        ask_begin("$sys.routes", request);
        for (uint64_t i = 0; i < n; i++)
            lim__sim_run(w.sim, lim__sim_now(w.sim) + 20000 * n, NULL, NULL);
        bool answered = is_answered(&wanted);
        again(n);
        ask("g", "{}");
        assert_true(strcmp(who, "a") == 0 || strcmp(who, "b") == 0);
        assert_true(!answered || strcmp(who, "b") == 0);
        replies += 10; /* a late answer of the run before is not taken for one of this */
        durable_close(&w);
    }
}

/* ---- a control process that dies while a change is being stored ---- */

static void no_poke(void *unused)
{
    (void)unused;
}

static void store_rests(void)
{
    lim__durable_on_poke(w.bus, no_poke, NULL);
    lim__sim_task_remove(w.sim, w.tasks[DURABLE_SCHEDULERS]);
    w.tasks[DURABLE_SCHEDULERS] = NULL;
}

static void store_goes_on(void)
{
    w.tasks[DURABLE_SCHEDULERS] = lim__sim_task_add(w.sim, w.os, "store", durable_store_turn, durable_store_due, &w);
    lim__durable_on_poke(w.bus, durable_poke, &w);
}

static void is_first_before_channel(bool first)
{
    const lim__chan_slot *slot = lim__smap_get(&w.bus->channels->slots, lim__str("c"));
    lim_bytes bytes = atomic_load(&slot->rule)->codes[LIM__CHAN_LIVE].artifact->bytes;
    assert_int_equal(lim__bytes_eq(bytes, lim__str(FIRST)), first);
}

/* FIRST is live. Another change is asked for, one waits behind it, and the process dies `deaths` times meanwhile. */
static void kill_in_the_middle(uint32_t deaths, bool disk_fails)
{
    char request[200];
    load(FIRST);
    ASK_ONE("{\"op\":\"deploy\",\"channel\":\"c\",\"hash\":\"%s\"}", hash);
    load(SECOND);
    lim__sim_disk good = lim__sim_disk_get(w.os), bad = good;
    bad.write_error_permille = bad.sync_error_permille = disk_fails ? 1000 : 0;
    uint32_t wanted = replies + 2;
    store_rests();
    snprintf(request, sizeof request, "{\"op\":\"deploy\",\"channel\":\"c\",\"hash\":\"%s\"}", hash);
    ask_begin("$sys.routes", request);
    durable_settle(&w, 1000000);
    ask_begin("$sys.routes", "{\"op\":\"rollback\",\"channel\":\"c\",\"by\":\"waited\"}");
    durable_settle(&w, 1000000);
    for (uint32_t i = 0; i < deaths; i++) {
        lim_pid control = lim__chan_slot_find(w.bus, lim__str("c"));
        assert_int_equal(lim_runtime_exit(w.bus->rt, control, LIM_KILL), LIM_OK);
        durable_settle(&w, 12000000 * (i % 2)); /* it may not even have begun */
        assert_true(i % 2 == 0 || lim__chan_slot_find(w.bus, lim__str("c")).id != control.id);
    }
    durable_settle(&w, 50000000); /* it looks, and looks again */
    assert_int_equal(replies, wanted - 2);
    is_first_before_channel(true);
    lim__sim_disk_set(w.os, &bad);
    store_goes_on();
    durable_until(&w, is_answered, &wanted);
    lim__sim_disk_set(w.os, &good);
}

static void test_a_change_whose_control_is_killed_while_it_is_stored_is_carried_out_once(void **state) /* proves RF15 */
{
    (void)state;
    for (uint32_t deaths = 1; deaths <= 5; deaths++) {
        durable_open(&w, 200 + deaths);
        kill_in_the_middle(deaths, false);
        is_first_before_channel(true); /* deployed, and rolled back */
        expect("{\"op\":\"history\",\"channel\":\"c\"}", "\"entries\":3,");
        expect("{\"op\":\"history\",\"channel\":\"c\"}", "\"by\":\"waited\"");
        ASK_ONE("{\"op\":\"deploy\",\"channel\":\"c\",\"hash\":\"%s\"}", hash);
        is_first_before_channel(false);
        durable_kill(&w);
        durable_start(&w);
        is_first_before_channel(false);
        expect("{\"op\":\"history\",\"channel\":\"c\"}", "\"entries\":4,");
        durable_close(&w);
    }
}

static void
test_a_change_whose_control_is_killed_and_that_cannot_be_stored_has_not_happened(void **state) /* proves RF15 */
{
    (void)state;
    for (uint32_t deaths = 1; deaths <= 3; deaths++) {
        durable_open(&w, 300 + deaths);
        kill_in_the_middle(deaths, true);
        is_first_before_channel(true);
        expect("{\"op\":\"history\",\"channel\":\"c\"}", "\"entries\":1,");
        durable_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_are_as_they_were_answered_after_a_kill),
        cmocka_unit_test(test_code_that_no_slot_keeps_is_forgotten),
        cmocka_unit_test(test_what_the_breaker_did_is_kept),
        cmocka_unit_test(test_a_version_that_cannot_be_made_again_is_passed_over),
        cmocka_unit_test(test_many_at_once_are_carried_out_one_after_the_other),
        cmocka_unit_test(test_what_could_not_be_stored_has_not_happened),
        cmocka_unit_test(test_a_change_whose_control_is_killed_while_it_is_stored_is_carried_out_once),
        cmocka_unit_test(test_a_change_whose_control_is_killed_and_that_cannot_be_stored_has_not_happened),
        cmocka_unit_test(test_killed_at_any_moment_a_slot_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
