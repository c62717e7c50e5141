/* SPDX-License-Identifier: Apache-2.0
 * terms_test.c - what options.c writes is what terms.c reads, and what is wrong is named. */
#include "bus/terms.h"
#include "data/data.h"
#include "data/options.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static lim_bytes block_of(const lim__buf *b)
{
    return lim__bytes(b->ptr + b->start, lim__buf_len(b));
}

static void test_what_a_dispatch_says_is_what_the_queue_reads(void **state)
{
    lim_dispatch_opts o = { .size = sizeof o,
                            .timeout_ms = 1000,
                            .priority = LIM_PRIORITY(9),
                            .key = "tenant",
                            .weight = 3,
                            .order_key = "order",
                            .unique_key = "unique",
                            .on_duplicate = LIM_UNIQUE_JOIN,
                            .idempotency_key = "once",
                            .delay_ms = 5,
                            .start_to_close_ms = 6,
                            .progress_ms = 7,
                            .report_to = { 0xabc },
                            .cause = { .conv = { 0x12 }, .hops = 4 },
                            .trace = true };
    lim__buf block = { 0 };
    lim__terms *t = NULL;
    (void)state;
    assert_int_equal(lim__options_dispatch(&block, &o, 0, NULL), LIM_OK);
    assert_int_equal(lim__terms_parse(block_of(&block), NULL, &t), LIM_OK);
    assert_int_equal(t->priority, 9);
    assert_int_equal(t->weight, 3);
    assert_memory_equal(t->key.ptr, "tenant", 6);
    assert_memory_equal(t->order_key.ptr, "order", 5);
    assert_memory_equal(t->unique_key.ptr, "unique", 6);
    assert_memory_equal(t->idempotency_key.ptr, "once", 4);
    assert_int_equal(t->on_duplicate, LIM_UNIQUE_JOIN);
    assert_int_equal(t->delay_ns, 5000000);
    assert_int_equal(t->start_to_close_ns, 6000000);
    assert_int_equal(t->progress_ns, 7000000);
    assert_int_equal(t->report_to.id, 0xabc);
    assert_int_equal(t->parent.id, 0x12);
    assert_int_equal(t->hops, 5);
    assert_true(t->trace);
    assert_false(t->gather);
    lim__terms_unref(lim__terms_ref(t));
    lim__terms_unref(t);
    lim__buf_fini(&block);
}

static void test_the_usual_case_says_nothing(void **state)
{
    lim_dispatch_opts d = { .size = sizeof d, .timeout_ms = 1000 };
    lim_ask_opts a = { .size = sizeof a, .timeout_ms = 1000 };
    lim_conv_opts c = { .size = sizeof c, .timeout_ms = 1000 };
    lim__buf block = { 0 };
    lim__terms *t = NULL;
    (void)state;
    assert_int_equal(lim__options_dispatch(&block, &d, 0, NULL), LIM_OK);
    assert_int_equal(lim__options_ask(&block, &a, false, false, NULL), LIM_OK);
    assert_int_equal(lim__options_open(&block, &c, NULL), LIM_OK);
    assert_int_equal(lim__options_join(&block, false), LIM_OK);
    assert_int_equal(lim__buf_len(&block), 0);
    assert_int_equal(lim__terms_parse(block_of(&block), NULL, &t), LIM_OK);
    assert_null(t);
    assert_int_equal(lim__terms_or_default(t)->priority, 4);
    lim__buf_fini(&block);
}

static void test_attributes_are_found_by_their_key(void **state)
{
    lim_conv_opts c = { .size = sizeof c,
                        .name = "n",
                        .attributes = (const char *const[]){ "a=1", "ab=2", "c=", NULL } };
    lim__buf block = { 0 };
    lim__terms *t = NULL;
    lim_bytes value;
    (void)state;
    assert_int_equal(lim__options_open(&block, &c, NULL), LIM_OK);
    assert_int_equal(lim__terms_parse(block_of(&block), NULL, &t), LIM_OK);
    assert_true(lim__terms_attribute(t, lim__str("ab"), &value));
    assert_true(lim__bytes_eq(value, lim__str("2")));
    assert_true(lim__terms_attribute(t, lim__str("c"), &value));
    assert_int_equal(value.len, 0);
    assert_false(lim__terms_attribute(t, lim__str("b"), &value));
    assert_false(lim__terms_attribute(NULL, lim__str("b"), &value));
    lim__terms_unref(t);
    lim__buf_fini(&block);
}

static void refused(const char *key, const char *text, const char *says)
{
    lim__buf block = { 0 };
    lim__terms *t = NULL;
    lim_diag diag;
    assert_int_equal(lim__packed_add(&block, lim__str(key), lim__str(text)), LIM_OK);
    assert_int_equal(lim__terms_parse(block_of(&block), &diag, &t), LIM_E_INVALID);
    assert_null(t);
    assert_non_null(strstr(diag.text, says));
    lim__buf_fini(&block);
}

static void test_what_is_wrong_is_named(void **state)
{
    (void)state;
    refused("priorty", "1", "'priorty' is unknown");
    refused("priority", "10", "from 0 to 9");
    refused("priority", "-1", "from 0 to 9");
    refused("priority", "99999999999999999999", "from 0 to 9");
    refused("weight", "0", "from 1 to 1000");
    refused("parent", "xyz", "hexadecimal");
    refused("trace", "yes", "not 1");
    refused("on_duplicate", "maybe", "reject, replace or join");
    refused("compensate", "$sys.info", "name of a queue");
    refused("attr", "nothing", "key=value");
    refused("key", "", "1 to 255");
    refused("traceparent", "00-1", "55");
    lim__terms *t = NULL;
    lim_diag diag;
    assert_int_equal(lim__terms_parse(lim__bytes("\0\1\3", 3), &diag, &t), LIM_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_dispatch_says_is_what_the_queue_reads),
        cmocka_unit_test(test_the_usual_case_says_nothing),
        cmocka_unit_test(test_attributes_are_found_by_their_key),
        cmocka_unit_test(test_what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
