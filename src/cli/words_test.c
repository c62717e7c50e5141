/* SPDX-License-Identifier: Apache-2.0
 * words_test.c - durations, numbers, sizes, ids, UTF-8. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int64_t us_of(const char *text)
{
    int64_t us = -1;
    const char *why = NULL;
    assert_true(cli_duration(text, &us, &why));
    return us;
}

static const char *refused(const char *text)
{
    int64_t us = -1;
    const char *why = NULL;
    assert_false(cli_duration(text, &us, &why));
    assert_non_null(why);
    return why;
}

static void test_durations_are_a_number_and_a_unit(void **state) /* proves SV5 */
{
    (void)state;
    assert_int_equal(us_of("250ms"), 250000);
    assert_int_equal(us_of("2s"), 2000000);
    assert_int_equal(us_of("5m"), 300000000);
    assert_int_equal(us_of("1h"), 3600000000);
    assert_int_equal(us_of("20us"), 20);
    assert_int_equal(us_of("2562047788h"), INT64_C(2562047788) * 3600000000);
    assert_true(us_of("forever") == LIM_FOREVER);
}

static void test_a_bare_number_is_refused_with_the_reason(void **state) /* proves SV5 */
{
    (void)state;
    assert_non_null(strstr(refused("5"), "bare number"));
    assert_non_null(strstr(refused("5x"), "unit"));
    assert_non_null(strstr(refused("0s"), "zero"));
    const char *const others[] = {
        "", "s", "-5s", " 5s", "5 s", "1.5s", "99999999999999999999s", "2562047789h", "5sec"
    };
    for (size_t i = 0; i < LIM_COUNT(others); i++)
        refused(others[i]);
}

static void test_a_number_of_zero_or_with_anything_around_it_is_refused(void **state)
{
    const char *const bad[] = { "", "0", "-1", "+1", "1x", " 1", "4294967295", "4294967296" };
    const char *why;
    uint32_t n = 0;
    (void)state;
    assert_true(cli_number("4294967294", &n, &why));
    assert_int_equal(n, 4294967294);
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_false(cli_number(bad[i], &n, &why));
}

static void test_sizes_take_binary_units_only(void **state)
{
    const char *const bad[] = { "", "0", "4GiB", "1kb", "4096MiB", "KiB" };
    const char *why;
    uint32_t n = 0;
    (void)state;
    assert_true(cli_size("65536", &n, &why) && n == 65536);
    assert_true(cli_size("64KiB", &n, &why) && n == 65536);
    assert_true(cli_size("8MiB", &n, &why) && n == 8 << 20);
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_false(cli_size(bad[i], &n, &why));
}

static void test_utf8_is_told_from_what_only_looks_like_it(void **state)
{
    const char *const good[] = { "", "plain", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF" };
    const char *const bad[] = {
        "\xC3", "\x80", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF"
    };
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(good); i++)
        assert_true(cli_utf8(lim__str(good[i])));
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_false(cli_utf8(lim__str(bad[i])));
}

static void test_an_id_is_one_to_sixteen_hexadecimal_digits_and_not_zero(void **state)
{
    static const char *const bad[] = { "", "0", "-1", "12x", " 12", "0x12", "AB", "11112222333344445" };
    uint64_t id;
    (void)state;
    assert_true(cli_id("400000002a", &id) && id == 0x400000002a);
    assert_true(cli_id("ffffffffffffffff", &id) && id == UINT64_MAX);
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_false(cli_id(bad[i], &id));
}

static void test_trimming_takes_white_space_from_both_ends(void **state)
{
    (void)state;
    assert_true(lim__bytes_eq(cli_trim(lim__str(" \n a b\t\n")), lim__str("a b")));
    assert_int_equal(cli_trim(lim__str(" \n ")).len, 0);
    assert_int_equal(cli_trim(lim__bytes(NULL, 0)).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations_are_a_number_and_a_unit),
        cmocka_unit_test(test_a_bare_number_is_refused_with_the_reason),
        cmocka_unit_test(test_a_number_of_zero_or_with_anything_around_it_is_refused),
        cmocka_unit_test(test_sizes_take_binary_units_only),
        cmocka_unit_test(test_utf8_is_told_from_what_only_looks_like_it),
        cmocka_unit_test(test_an_id_is_one_to_sixteen_hexadecimal_digits_and_not_zero),
        cmocka_unit_test(test_trimming_takes_white_space_from_both_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
