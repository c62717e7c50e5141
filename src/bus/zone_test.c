/* SPDX-License-Identifier: Apache-2.0
 * zone_test.c - zones against the C library's reading of the same files, and what happens where the clock is changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "actor/actor.h"
#include "base/base.h"
#include "base/rng.h"
#include "bus/zone.h"

static lim__zone *zone(const char *name)
{
    lim__zone *z = NULL;
    lim_diag diag = { 0 };
    if (lim__zone_open(lim__str(name), &diag, &z) != LIM_OK)
        fail_msg("%s: %s", name, diag.text);
    return z;
}

static int64_t local(int year, int month, int day, int hour, int minute)
{
    lim__date d = { year, (uint8_t)month, (uint8_t)day, (uint8_t)hour, (uint8_t)minute, 0 };
    return lim__date_local(&d);
}

static void test_dates_go_both_ways(void **state)
{
    (void)state;
    for (int64_t day = -800000; day < 800000; day += 13) {
        lim__date d = lim__date_of(day * 86400 + 3723);
        assert_int_equal(d.hour * 10000 + d.minute * 100 + d.second, 10203);
        assert_int_equal(lim__date_local(&d), day * 86400 + 3723);
        assert_int_equal(lim__date_days(d.year, d.month, d.day), day);
    }
    assert_int_equal(lim__date_days(1970, 1, 1), 0);
    assert_int_equal(lim__date_days(2026, 3, 29), 20541);
}

static void test_offsets_are_those_of_the_c_library(void **state) /* proves GR16 */
{
    static const char *const names[] = { "Europe/Berlin", "America/New_York",    "America/Sao_Paulo", "Asia/Kolkata",
                                         "Europe/Dublin", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia",
                                         "Asia/Gaza",     "Antarctica/Troll",    "Pacific/Chatham",   "America/Nuuk",
                                         "Africa/Cairo",  "America/Santiago",    "Etc/GMT+5",         "Asia/Tehran" };
    (void)state;
    lim__rng rng = lim__rng_seeded(16);
    for (size_t i = 0; i < LIM_COUNT(names); i++) {
        lim__zone *z = zone(names[i]);
        assert_int_equal(setenv("TZ", names[i], 1), 0);
        tzset();
        for (int n = 0; n < 20000; n++) { /* 1902 .. 2097 */
            time_t t = (time_t)lim__rng_range(&rng, 0, UINT64_C(6150000000)) - INT64_C(2145916800);
            struct tm tm;
            assert_non_null(localtime_r(&t, &tm));
            if (lim__zone_offset(z, t) != tm.tm_gmtoff)
                fail_msg("%s at %lld: %d, not %ld", names[i], (long long)t, lim__zone_offset(z, t), tm.tm_gmtoff);
        }
        lim__zone_free(z);
    }
    unsetenv("TZ");
    tzset();
}

static void test_a_repeated_hour_has_two_instants_and_a_gap_none(void **state) /* proves GR16 */
{
    (void)state;
    lim__zone *z = zone("Europe/Berlin");
    int64_t out[2];
    assert_int_equal(lim__zone_instants(z, local(2026, 3, 28, 2, 30), out), 1);
    assert_int_equal(out[0], local(2026, 3, 28, 1, 30));
    assert_int_equal(lim__zone_instants(z, local(2026, 3, 29, 2, 30), out), 0); /* the gap: as if it were winter */
    assert_int_equal(out[0], local(2026, 3, 29, 1, 30));
    assert_int_equal(lim__zone_instants(z, local(2026, 10, 25, 2, 30), out), 2);
    assert_int_equal(out[0], local(2026, 10, 25, 0, 30));
    assert_int_equal(out[1], local(2026, 10, 25, 1, 30));
    assert_int_equal(lim__zone_instants(z, local(2080, 3, 31, 2, 30), out), 0); /* by the rule, long after the file */
    lim__zone_free(z);
    z = zone("Pacific/Apia"); /* had no December 30 in 2011 */
    assert_int_equal(lim__zone_instants(z, local(2011, 12, 30, 12, 0), out), 0);
    assert_int_equal(out[0], local(2011, 12, 30, 22, 0));
    lim__zone_free(z);
}

static void test_every_local_time_that_an_instant_has_leads_back_to_it(void **state) /* proves GR16 */
{
    (void)state;
    lim__rng rng = lim__rng_seeded(5);
    lim__zone *z = zone("Australia/Lord_Howe"); /* changes by half an hour */
    for (int n = 0; n < 50000; n++) {
        int64_t utc = (int64_t)lim__rng_below(&rng, UINT64_C(4000000000)), out[2] = { -1, -1 };
        int count = lim__zone_instants(z, utc + lim__zone_offset(z, utc), out);
        assert_true(count >= 1);
        assert_true(out[0] == utc || (count == 2 && out[1] == utc));
    }
    lim__zone_free(z);
}

static void test_a_name_that_is_no_zone_is_refused_with_words(void **state)
{
    static const char *const bad[] = { "",       "Europe/Berlni",  "../../../etc/passwd", "/etc/passwd", "zone.tab",
                                       "Europe", "Europe/Berlin ", "posixrules/../UTC",   "europe/\x01" };
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        lim__zone *z = NULL;
        lim_diag diag = { 0 };
        assert_int_equal(lim__zone_open(lim__str(bad[i]), &diag, &z), LIM_E_INVALID);
        assert_null(z);
        assert_true(strlen(diag.text) > 20);
    }
}

static void test_a_broken_file_is_refused_whatever_is_broken(void **state)
{
    (void)state;
    void *file;
    size_t len;
    lim__rng rng = lim__rng_seeded(8);
    assert_int_equal(lim__file_read("/usr/share/zoneinfo/Europe/Berlin", 1 << 20, &file, &len), 0);
    for (size_t cut = 0; cut < len; cut++) {
        lim__zone *z = NULL;
        uint8_t *copy = malloc(cut + 1); /* so that a sanitizer sees the first byte too far */
        memcpy(copy, file, cut);
        assert_int_equal(lim__zone_parse(lim__bytes(copy, cut), lim__str("x"), NULL, &z), LIM_E_INVALID);
        free(copy);
    }
    for (int n = 0; n < 20000; n++) { /* whatever comes of it, it is no crash */
        lim__zone *z = NULL;
        int64_t out[2];
        size_t at = (size_t)lim__rng_below(&rng, len);
        uint8_t was = ((uint8_t *)file)[at];
        ((uint8_t *)file)[at] = (uint8_t)lim__rng_next(&rng);
        if (lim__zone_parse(lim__bytes(file, len), lim__str("x"), NULL, &z) == LIM_OK)
            (void)lim__zone_instants(z, (int64_t)lim__rng_below(&rng, UINT64_C(5000000000)), out);
        lim__zone_free(z);
        ((uint8_t *)file)[at] = was;
    }
    free(file);
}

static uint64_t instant(const char *text, const lim__zone *z)
{
    uint64_t ns = 0;
    lim_diag diag = { 0 };
    if (lim__instant_parse(lim__str(text), z, &diag, &ns) != LIM_OK)
        fail_msg("%s", diag.text);
    return ns;
}

static void test_instants_are_read_and_written_as_rfc_3339(void **state)
{
    static const char *const bad[] = { "",
                                       "2026",
                                       "2026-02-30T00:00:00",
                                       "2026-01-01T24:00",
                                       "2026-01-01T00:00:00Q",
                                       "2026-01-01T00:00:00.",
                                       "2026-01-01T00:00:00+0200",
                                       "1969-01-01T00:00:00Z",
                                       "9999-01-01T00:00:00Z",
                                       "tomorrow" };
    (void)state;
    char text[LIM__INSTANT_TEXT];
    lim__zone *berlin = zone("Europe/Berlin"), *utc = zone("UTC");
    uint64_t ns = instant("2026-03-29T01:30:00Z", berlin);
    assert_int_equal(ns, UINT64_C(1774747800000000000));
    assert_int_equal(instant("2026-03-29T02:30", berlin), ns);
    assert_int_equal(instant("2026-03-29 03:30:00+02:00", utc), ns);
    assert_int_equal(instant("2026-03-28T18:30:00.25-07:00", utc), ns + 250000000);
    lim__instant_text(ns, berlin, text);
    assert_string_equal(text, "2026-03-29T03:30:00+02:00");
    lim__instant_text(ns + 250999999, utc, text);
    assert_string_equal(text, "2026-03-29T01:30:00.250Z");
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        lim_diag diag = { 0 };
        if (lim__instant_parse(lim__str(bad[i]), utc, &diag, &ns) != LIM_E_INVALID)
            fail_msg("took '%s'", bad[i]);
        assert_non_null(strstr(diag.text, "write 20"));
    }
    lim__zone_free(berlin);
    lim__zone_free(utc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dates_go_both_ways),
        cmocka_unit_test(test_offsets_are_those_of_the_c_library),
        cmocka_unit_test(test_a_repeated_hour_has_two_instants_and_a_gap_none),
        cmocka_unit_test(test_every_local_time_that_an_instant_has_leads_back_to_it),
        cmocka_unit_test(test_a_name_that_is_no_zone_is_refused_with_words),
        cmocka_unit_test(test_a_broken_file_is_refused_whatever_is_broken),
        cmocka_unit_test(test_instants_are_read_and_written_as_rfc_3339),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
