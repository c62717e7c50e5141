/* SPDX-License-Identifier: Apache-2.0
 * examples_test.c - the routing functions of examples/ do what their first lines say. */
#include "route/test_router.h"

static char source[16 * 1024];

/* NULL: the sources are not at hand. */
static lim__router *example(const char *name)
{
    char path[512];
    const char *root = getenv("LIM_SOURCE");
    if (root == NULL)
        return NULL;
    snprintf(path, sizeof path, "%s/examples/%s", root, name);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("there is no %s", path);
    source[fread(source, 1, sizeof source - 1, f)] = 0;
    fclose(f);
    return lua(source);
}

static void set(uint32_t i, uint32_t in_flight, uint32_t max, uint32_t depth, const lim_bytes *tags, uint32_t tag_count)
{
    lim__candidate *c = &w.workers[i];
    c->in_flight = in_flight;
    c->max_in_flight = max;
    c->buffer_depth = depth;
    c->tags = tags;
    c->tag_count = tag_count;
    c->id += 100; /* tags never change for one id */
    c->stamp++;
}

static void fill(uint32_t i, bool full)
{
    w.workers[i].in_flight = full ? w.workers[i].max_in_flight : 0;
    w.workers[i].stamp++;
}

static void test_capacity_takes_whoever_has_most_room(void **state)
{
    (void)state;
    lim__router *r = example("capacity.lua");
    if (r == NULL)
        skip();
    assert_decided(call(r, "{}"), 0); /* worker i has i of 10 in flight */
    set(5, 90, 102, 0, NULL, 0);
    assert_decided(call(r, "{}"), 5);
    set(6, 88, 100, 0, NULL, 0); /* equal room; 5 answers sooner */
    assert_decided(call(r, "{}"), 5);
    w.workers[6].latency_us = 1;
    w.workers[6].stamp++;
    assert_decided(call(r, "{}"), 6);
    lim__router_unref(r);
}

static uint32_t session(lim__router *r, int i, const char *region)
{
    char json[80];
    snprintf(json, sizeof json, "{\"session\":\"s-%d\",\"region\":\"%s\"}", i, region);
    lim__route_result result = call(r, json);
    if (result.how != LIM__ROUTE_DECIDED)
        fail_msg("%s", result.text);
    return result.index;
}

static void test_sticky_keeps_a_session_with_its_worker_among_those_with_the_tag(void **state)
{
    (void)state;
    enum { SESSIONS = 200 };
    lim__router *r = example("sticky.lua");
    uint32_t at[SESSIONS], used[WORKERS] = { 0 };
    if (r == NULL)
        skip();
    for (uint32_t i = 0; i < WORKERS; i++)
        fill(i, false);
    for (int i = 0; i < SESSIONS; i++) {
        at[i] = session(r, i, "eu");
        assert_int_equal(at[i] % 2, 1); /* tagged eu are 1, 3, 5, 7 */
        used[at[i]]++;
        assert_int_equal(session(r, i, "eu"), at[i]);
    }
    for (uint32_t i = 1; i < WORKERS; i += 2)
        assert_in_range(used[i], SESSIONS / 8, SESSIONS / 2);
    fill(3, true);
    for (int i = 0; i < SESSIONS; i++) {
        if (at[i] == 3)
            assert_int_not_equal(session(r, i, "eu"), 3);
        else
            assert_int_equal(session(r, i, "eu"), at[i]); /* only those move that have to */
    }
    fill(3, false);
    for (int i = 0; i < SESSIONS; i++)
        assert_int_equal(session(r, i, "eu"), at[i]);
    uint32_t elsewhere = 0;
    for (int i = 0; i < SESSIONS; i++)
        elsewhere += session(r, i, "mars") % 2 == 0; /* nobody has that tag: all of them may have it */
    assert_in_range(elsewhere, SESSIONS / 4, SESSIONS * 3 / 4);
    for (uint32_t i = 0; i < WORKERS; i++)
        fill(i, true);
    assert_int_equal(call(r, "{\"session\":\"s\",\"region\":\"eu\"}").how, LIM__ROUTE_NONE);
    lim__router_unref(r);
}

static const lim_bytes canary[] = { { "canary", 6 } };

static void test_canary_gets_five_of_a_hundred_unless_it_is_full(void **state)
{
    (void)state;
    lim__router *r = example("canary.lua");
    if (r == NULL)
        skip();
    for (uint32_t i = 0; i < WORKERS; i++)
        set(i, 0, 10, 0, i == 6 ? canary : NULL, i == 6);
    for (int hundred = 0; hundred < 5; hundred++) {
        int count = 0;
        for (int i = 0; i < 100; i++)
            count += call(r, "{}").index == 6;
        assert_int_equal(count, 5);
    }
    lim__buf yes = { 0 }, no = { 0 };
    assert_int_equal(lim__packed_add(&yes, TEXT("canary"), TEXT("yes")), LIM_OK);
    assert_int_equal(lim__packed_add(&no, TEXT("canary"), TEXT("no")), LIM_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(call_with(r, TEXT("{}"), lim__buf_bytes(&yes)).index, 6);
        assert_int_not_equal(call_with(r, TEXT("{}"), lim__buf_bytes(&no)).index, 6);
    }
    fill(6, true);
    assert_int_not_equal(call_with(r, TEXT("{}"), lim__buf_bytes(&yes)).index, 6);
    fill(6, false);
    for (uint32_t i = 0; i < WORKERS; i++)
        fill(i, i != 6);
    assert_decided(call_with(r, TEXT("{}"), lim__buf_bytes(&no)), 6);
    lim__buf_fini(&yes);
    lim__buf_fini(&no);
    lim__router_unref(r);
}

static const lim_bytes small[] = { { "small", 5 } }, medium[] = { { "medium", 6 } }, large[] = { { "large", 5 } };

static void test_the_cheapest_model_that_will_do_and_a_dearer_one_when_it_is_saturated(void **state)
{
    (void)state;
    lim__router *r = example("cheapest-model.lua");
    if (r == NULL)
        skip();
    set(0, 0, 4, 0, large, 1);
    set(1, 0, 4, 0, medium, 1);
    set(2, 3, 4, 0, small, 1);
    set(3, 1, 4, 0, small, 1);
    for (uint32_t i = 4; i < WORKERS; i++)
        set(i, 0, 100, 0, NULL, 0); /* who runs none of the models is not asked */
    assert_decided(call(r, "{\"prompt\":\"hi\"}"), 3);
    assert_decided(call(r, "{\"model\":\"medium\"}"), 1);
    assert_decided(call(r, "{\"model\":\"large\"}"), 0);
    assert_int_equal(w.lines, 0);
    assert_decided(call(r, "{\"model\":\"huge\"}"), 3);
    assert_string_equal(w.line, "no such model:\thuge");
    fill(3, true);
    assert_decided(call(r, "{}"), 2);
    w.workers[2].buffer_depth = 5; /* a place is free, but more are before us than it has places */
    fill(2, false);
    assert_decided(call(r, "{}"), 1);
    w.workers[0].buffer_depth = 3;
    w.workers[1].buffer_depth = 2;
    w.workers[3].buffer_depth = 9;
    for (uint32_t i = 0; i < 4; i++)
        fill(i, true);
    assert_decided(call(r, "{}"), 1); /* all are full: the shortest line */
    assert_decided(call(r, "{\"model\":\"large\"}"), 0);
    lim__router_unref(r);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_capacity_takes_whoever_has_most_room),
        T(test_sticky_keeps_a_session_with_its_worker_among_those_with_the_tag),
        T(test_canary_gets_five_of_a_hundred_unless_it_is_full),
        T(test_the_cheapest_model_that_will_do_and_a_dearer_one_when_it_is_saturated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
