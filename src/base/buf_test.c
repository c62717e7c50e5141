/* SPDX-License-Identifier: Apache-2.0
 * buf_test.c - the buffer as a queue of bytes, and what the JSON writer writes. */
#include "base/base.h"
#include "base/buf.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void assert_text(const lim__buf *b, const char *expected)
{
    if (!lim__bytes_eq(lim__buf_bytes(b), lim__str(expected)))
        fail_msg("got %.*s, expected %s", (int)lim__buf_len(b), (const char *)b->ptr + b->start, expected);
}

static void test_bytes_come_out_in_the_order_they_went_in(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    lim__rng r = lim__rng_seeded(3);
    uint64_t in = 0, out = 0;
    for (int i = 0; i < 20000; i++) {
        uint8_t chunk[97];
        size_t n = lim__rng_below(&r, sizeof chunk + 1);
        for (size_t k = 0; k < n; k++)
            chunk[k] = (uint8_t)in++;
        lim__buf_add(&b, chunk, n);
        n = lim__rng_below(&r, lim__buf_len(&b) + 1);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(b.ptr[b.start + k], (uint8_t)out++);
        lim__buf_consume(&b, n);
        assert_int_equal(lim__buf_len(&b), in - out);
    }
    assert_true(b.cap < 65536);
    assert_false(b.failed);
    lim__buf_fini(&b);
}

static void test_an_empty_large_buffer_gives_its_memory_back(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    assert_non_null(lim__buf_reserve(&b, 100000));
    b.end += 100000;
    lim__buf_consume(&b, 99999);
    assert_non_null(b.ptr);
    lim__buf_consume(&b, 1);
    assert_null(b.ptr);
    lim__buf_text(&b, "again");
    assert_text(&b, "again");
    lim__buf_fini(&b);
}

static void test_a_failed_reserve_keeps_the_content(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    lim__buf_text(&b, "kept");
    assert_null(lim__buf_reserve(&b, SIZE_MAX - 1));
    assert_true(b.failed);
    assert_text(&b, "kept");
    lim__buf_fini(&b);
}

static void test_format_writes_short_and_long_texts(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    lim__buf_format(&b, "%d-%s", 42, "x");
    assert_text(&b, "42-x");
    char *big = malloc(1001);
    assert_non_null(big);
    memset(big, 'y', 1000);
    big[1000] = 0;
    lim__buf_format(&b, "%s", big);
    assert_int_equal(lim__buf_len(&b), 1004);
    assert_int_equal(b.ptr[1003], 'y');
    free(big);
    lim__buf_fini(&b);
}

static void test_json_nests_and_separates(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "name", "orders");
    lim__json_str(&j, "none", NULL);
    lim__json_open(&j, "list", '[');
    lim__json_u64(&j, NULL, UINT64_MAX);
    lim__json_i64(&j, NULL, INT64_MIN);
    lim__json_open(&j, NULL, '{');
    lim__json_close(&j);
    lim__json_open(&j, NULL, '[');
    lim__json_close(&j);
    lim__json_close(&j);
    lim__json_bool(&j, "yes", true);
    lim__json_bool(&j, "no", false);
    lim__json_raw(&j, "raw", lim__str("{\"a\":1}"));
    lim__json_close(&j);
    assert_text(&b, "{\"name\":\"orders\",\"none\":null,\"list\":[18446744073709551615,-9223372036854775808,{},[]],"
                    "\"yes\":true,\"no\":false,\"raw\":{\"a\":1}}");
    lim__buf_fini(&b);
}

static void test_json_escapes_and_repairs_text(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "a\"b\\c\n\r\t\b\f\x01\x1f\x7f", "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0001\\u001f\x7f\"" },
        { "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80", "\"gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80\"" },
        { "\xC3", "\"\xEF\xBF\xBD\"" },                                                 /* cut short */
        { "\xC0\xAF", "\"\xEF\xBF\xBD\xEF\xBF\xBD\"" },                                 /* overlong */
        { "\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"" },                 /* surrogate */
        { "\xF4\x90\x80\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"" }, /* above U+10FFFF */
        { "x\xE2\x82y", "\"x\xEF\xBF\xBD\xEF\xBF\xBDy\"" },
    };
    for (size_t i = 0; i < LIM_COUNT(cases); i++) {
        lim__buf b = { 0 };
        lim__json j = lim__json_begin(&b);
        lim__json_str(&j, NULL, cases[i].in);
        assert_text(&b, cases[i].out);
        lim__buf_fini(&b);
    }
}

static void test_json_numbers_read_back_the_same(void **state)
{
    (void)state;
    static const double cases[] = { 0.0, 0.1, 1e300, -2.5e-7, 1.0 / 3.0, 42.0, 9007199254740993.0 };
    for (size_t i = 0; i < LIM_COUNT(cases); i++) {
        lim__buf b = { 0 };
        lim__json j = lim__json_begin(&b);
        lim__json_f64(&j, NULL, cases[i]);
        lim__buf_add(&b, "", 1);
        assert_true(strtod((char *)b.ptr, NULL) == cases[i]);
        lim__buf_fini(&b);
    }
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '[');
    lim__json_f64(&j, NULL, (double)NAN);
    lim__json_f64(&j, NULL, 0.1);
    lim__json_close(&j);
    assert_text(&b, "[null,0.1]");
    lim__buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_come_out_in_the_order_they_went_in),
        cmocka_unit_test(test_an_empty_large_buffer_gives_its_memory_back),
        cmocka_unit_test(test_a_failed_reserve_keeps_the_content),
        cmocka_unit_test(test_format_writes_short_and_long_texts),
        cmocka_unit_test(test_json_nests_and_separates),
        cmocka_unit_test(test_json_escapes_and_repairs_text),
        cmocka_unit_test(test_json_numbers_read_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
