/* SPDX-License-Identifier: Apache-2.0
 * calendar_test.c - rules: RFC 5545's own examples, libical as a second opinion, cron against a minute by minute
 * search, and the days on which the clock is changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <libical/ical.h>
#include <stdio.h>
#include <stdlib.h>

#include "actor/actor.h"
#include "base/base.h"
#include "base/rng.h"
#include "bus/calendar.h"

static lim__zone *zone(const char *name)
{
    lim__zone *z = NULL;
    assert_int_equal(lim__zone_open(lim__str(name), NULL, &z), LIM_OK);
    return z;
}

static uint64_t instant(const char *text, const lim__zone *z)
{
    uint64_t ns = 0;
    assert_int_equal(lim__instant_parse(lim__str(text), z, NULL, &ns), LIM_OK);
    return ns;
}

static lim__calendar *rule(const char *text, const lim__zone *z, const char *start)
{
    lim__calendar *c = NULL;
    lim_diag diag = { 0 };
    bool cron = strchr(text, '=') == NULL;
    lim_err err = (cron ? lim__calendar_cron : lim__calendar_rrule)(lim__str(text), z, instant(start, z), &diag, &c);
    if (err != LIM_OK)
        fail_msg("%s: %s", text, diag.text);
    return c;
}

/* The first instants of a rule, as "2026-03-29T03:30:00+02:00 ..."; "." when there are no more. */
static void expect(const char *text, const char *zone_name, const char *start, const char *expected)
{
    lim__zone *z = zone(zone_name);
    lim__calendar *c = rule(text, z, start);
    char got[2000] = "";
    size_t used = 0, want = strlen(expected);
    uint64_t at = 0;
    while (used < want && at != UINT64_MAX) {
        char one[LIM__INSTANT_TEXT] = ".";
        at = lim__calendar_next(c, at);
        if (at != UINT64_MAX)
            lim__instant_text(at, z, one);
        used += (size_t)snprintf(got + used, sizeof got - used, "%s%s", used > 0 ? " " : "", one);
    }
    if (strcmp(got, expected) != 0)
        fail_msg("%s from %s:\n%s\nand not\n%s", text, start, got, expected);
    lim__calendar_free(c);
    lim__zone_free(z);
}

static void test_the_examples_of_rfc_5545(void **state) /* proves GR16 */
{
    static const struct {
        const char *rule, *start, *expected; /* all start at 9 in the morning; days only */
    } examples[] = {
        { "FREQ=DAILY;COUNT=3", "1997-09-02", "0902 0903 0904 ." },
        { "FREQ=DAILY;UNTIL=19970904T000000Z", "1997-09-02", "0902 0903 ." },
        { "FREQ=DAILY;INTERVAL=10;COUNT=5", "1997-09-02", "0902 0912 0922 1002 1012 ." },
        { "FREQ=YEARLY;BYMONTH=1;BYDAY=SU,MO;COUNT=4", "1998-01-01", "0104 0105 0111 0112 ." },
        { "FREQ=WEEKLY;INTERVAL=2;WKST=SU", "1997-09-02", "0902 0916 0930 1014 1028 1111" },
        { "FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH", "1997-09-02",
          "0902 0904 0916 0918 0930 1002 1014 1016 ." },
        { "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO", "1997-08-05", "0805 0810 0819 0824 ." },
        { "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU", "1997-08-05", "0805 0817 0819 0831 ." },
        { "FREQ=MONTHLY;COUNT=10;BYDAY=1FR", "1997-09-05", "0905 1003 1107 1205 0102 0206 0306 0403 0501 0605 ." },
        { "FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU", "1997-09-07",
          "0907 0928 1102 1130 0104 0125 0301 0329 0503 0531 ." },
        { "FREQ=MONTHLY;COUNT=6;BYDAY=-2MO", "1997-09-22", "0922 1020 1117 1222 0119 0216 ." },
        { "FREQ=MONTHLY;BYMONTHDAY=-3", "1997-09-28", "0928 1029 1128 1229 0129 0226" },
        { "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1", "1997-09-30",
          "0930 1001 1031 1101 1130 1201 1231 0101 0131 0201 ." },
        { "FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12,13,14,15", "1997-09-10",
          "0910 0911 0912 0913 0914 0915 0310 0311 0312 0313 ." },
        { "FREQ=YEARLY;COUNT=10;BYMONTH=6,7", "1997-06-10", "0610 0710 0610 0710 0610 0710 0610 0710 0610 0710 ." },
        { "FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200", "1997-01-01",
          "0101 0410 0719 0101 0409 0718 0101 0410 0719 0101 ." },
        { "FREQ=YEARLY;BYDAY=20MO", "1997-05-19", "0519 0518 0517" },
        { "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "1997-05-12", "0512 0511 0517" },
        { "FREQ=YEARLY;BYMONTH=3;BYDAY=TH", "1997-03-13", "0313 0320 0327 0305 0312 0319 0326" },
        { "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "1997-09-02", "0213 0313 1113 0813 1013" },
        { "FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13", "1997-09-13", "0913 1011 1108 1213 0110 0207" },
        { "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8", "1996-11-05", "1105 1107 1102" },
        { "FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "1997-09-04", "0904 1007 1106 ." },
        { "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2", "1997-09-29", "0929 1030 1127 1230 0129 0226" },
        { "FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5", "2007-01-15", "0115 0130 0215 0315 0330 ." },
        { "FREQ=YEARLY", "2024-02-29", "0229 0229 0229" },
    };
    (void)state;
    lim__zone *z = zone("America/New_York");
    for (size_t i = 0; i < LIM_COUNT(examples); i++) {
        char start[40], got[200] = "";
        size_t used = 0, want = strlen(examples[i].expected);
        snprintf(start, sizeof start, "%sT09:00:00", examples[i].start);
        lim__calendar *c = rule(examples[i].rule, z, start);
        for (uint64_t at = 0; used < want && at != UINT64_MAX;) {
            char one[LIM__INSTANT_TEXT];
            at = lim__calendar_next(c, at);
            if (at != UINT64_MAX) {
                lim__instant_text(at, z, one);
                assert_memory_equal(one + 10, "T09:00:00-0", 11);
                used += (size_t)snprintf(got + used, sizeof got - used, "%s%.2s%.2s", used > 0 ? " " : "", one + 5,
                                         one + 8);
            } else {
                used += (size_t)snprintf(got + used, sizeof got - used, " .");
            }
        }
        if (strcmp(got, examples[i].expected) != 0)
            fail_msg("%s: %s", examples[i].rule, got);
        lim__calendar_free(c);
    }
    lim__zone_free(z);
}

static void test_times_of_a_day(void **state) /* proves GR16 */
{
    (void)state;
    expect("FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T170000Z", "UTC", "1997-09-02T09:00",
           "1997-09-02T09:00:00Z 1997-09-02T12:00:00Z 1997-09-02T15:00:00Z .");
    expect("FREQ=MINUTELY;INTERVAL=15;COUNT=3", "UTC", "1997-09-02T23:30",
           "1997-09-02T23:30:00Z 1997-09-02T23:45:00Z 1997-09-03T00:00:00Z .");
    expect("FREQ=DAILY;BYHOUR=9,16;BYMINUTE=0,30;BYSECOND=7", "UTC", "1997-09-02T09:10",
           "1997-09-02T09:30:07Z 1997-09-02T16:00:07Z 1997-09-02T16:30:07Z 1997-09-03T09:00:07Z");
    expect("freq=weekly;byday=mo,we;bysetpos=-1;byhour=8,20;byminute=0", "UTC", "2026-07-27T00:00",
           "2026-07-29T20:00:00Z 2026-08-05T20:00:00Z");
    expect("FREQ=DAILY;UNTIL=20260702", "Asia/Tokyo", "2026-07-01T23:00",
           "2026-07-01T23:00:00+09:00 2026-07-02T23:00:00+09:00 .");
}

static void test_once_a_day_is_once_a_day_when_the_clock_is_changed(void **state) /* proves GR16 */
{
    (void)state;
    expect("FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", "Europe/Berlin", "2026-03-28T00:00",
           "2026-03-28T02:30:00+01:00 2026-03-29T03:30:00+02:00 2026-03-30T02:30:00+02:00");
    expect("FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", "Europe/Berlin", "2026-10-24T12:00",
           "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00");
    expect("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00",
           "2026-03-28T02:30:00+01:00 2026-03-29T03:30:00+02:00 2026-03-30T02:30:00+02:00");
    expect("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00");
    /* two that the gap makes one; and the order is that of the instants */
    expect("FREQ=DAILY;BYHOUR=2,3;BYMINUTE=0,30", "Europe/Berlin", "2026-03-29T00:00",
           "2026-03-29T03:00:00+02:00 2026-03-29T03:30:00+02:00 2026-03-30T02:00:00+02:00 2026-03-30T02:30:00+02:00");
    expect("FREQ=DAILY;BYHOUR=2,3;BYMINUTE=10,30", "Europe/Berlin", "2026-10-25T00:00",
           "2026-10-25T02:10:00+02:00 2026-10-25T02:30:00+02:00 2026-10-25T03:10:00+01:00 2026-10-25T03:30:00+01:00");
}

static void test_every_hour_is_every_hour_when_the_clock_is_changed(void **state) /* proves GR16 */
{
    (void)state;
    const char *spring = "2026-03-29T01:30:00+01:00 2026-03-29T03:30:00+02:00 2026-03-29T04:30:00+02:00";
    const char *autumn = "2026-10-25T01:30:00+02:00 2026-10-25T02:30:00+02:00 2026-10-25T02:30:00+01:00 "
                         "2026-10-25T03:30:00+01:00";
    expect("FREQ=HOURLY", "Europe/Berlin", "2026-03-29T01:30", spring);
    expect("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", spring);
    expect("FREQ=HOURLY", "Europe/Berlin", "2026-10-25T01:30", autumn);
    expect("30 */1 * * *", "Europe/Berlin", "2026-10-25T01:00", autumn);
    expect("FREQ=MINUTELY;INTERVAL=30", "Australia/Lord_Howe", "2026-04-05T01:00",
           "2026-04-05T01:00:00+11:00 2026-04-05T01:30:00+11:00 2026-04-05T01:30:00+10:30 2026-04-05T02:00:00+10:30");
}

static void test_a_rule_that_is_always_in_the_gap_has_no_next(void **state)
{
    (void)state;
    expect("FREQ=HOURLY;BYMONTH=3;BYMONTHDAY=25,26,27,28,29,30,31;BYDAY=SU;BYHOUR=2", "Europe/Berlin",
           "2026-01-01T00:30", ".");
}

/* ---- a second opinion ---- */

typedef struct text {
    char at[300];
    size_t used;
} text;

static void say(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    t->used += (size_t)vsnprintf(t->at + t->used, sizeof t->at - t->used, format, args);
    va_end(args);
    assert_true(t->used < sizeof t->at);
}

static void some(lim__rng *rng, text *t, const char *name, int least, int most, bool back)
{
    int count = (int)lim__rng_range(rng, 1, 3);
    say(t, ";%s=", name);
    for (int i = 0, n = least; i < count; i++) { /* ascending: it is a matter of taste to sort for them */
        n = (int)lim__rng_range(rng, (uint64_t)n, (uint64_t)most);
        say(t, "%s%s%d", i > 0 ? "," : "", back && lim__rng_chance(rng, 300) ? "-" : "", n);
        if (n++ == most)
            break;
    }
}

static void some_days(lim__rng *rng, text *t, int numbers)
{
    static const char *const names[] = { "MO", "TU", "WE", "TH", "FR", "SA", "SU" };
    /* it takes the Sunday of another week, if that ends with it */
    int end = strstr(t->at, "WEEKLY") != NULL ? 6 : 7;
    say(t, ";BYDAY=");
    for (int i = (int)lim__rng_below(rng, (uint64_t)end), first = 1; i < end;
         i += 1 + (int)lim__rng_below(rng, 4), first = 0) {
        say(t, first ? "" : ",");
        if (numbers > 0)
            say(t, "%s%d", lim__rng_chance(rng, 500) ? "-" : "", (int)lim__rng_range(rng, 1, (uint64_t)numbers));
        say(t, "%s", names[i]);
    }
}

static void draw_rule(lim__rng *rng, text *t)
{
    static const char *const names[] = { "YEARLY", "MONTHLY", "WEEKLY", "DAILY" };
    uint32_t freq = (uint32_t)lim__rng_below(rng, 4);
    say(t, "FREQ=%s", names[freq]);
    if (lim__rng_chance(rng, 400))
        say(t, ";INTERVAL=%d", (int)lim__rng_range(rng, 1, 5));
    if (lim__rng_chance(rng, 300))
        some(rng, t, "BYMONTH", 1, 12, false);
    /* yearly, it takes the month from the start where the table of RFC 5545 says every month */
    bool months = freq != 0 || strstr(t->at, "BYMONTH") != NULL;
    if (freq != 2 && months && lim__rng_chance(rng, 300))
        some(rng, t, "BYMONTHDAY", 1, 28, freq != 3); /* daily, it does not know those from the end */
    else if (freq == 0 && lim__rng_chance(rng, 300))
        some(rng, t, "BYYEARDAY", 1, 365, true);
    else if (lim__rng_chance(rng, 400))
        some_days(rng, t, freq > 1 || lim__rng_chance(rng, 500) ? 0 : 4);
    if (lim__rng_chance(rng, 300))
        some(rng, t, "BYHOUR", 0, 23, false);
    if (lim__rng_chance(rng, 300))
        some(rng, t, "BYMINUTE", 0, 59, false);
    /* of weeks and days it takes more than one, and it counts days where RFC 5545 counts times */
    bool one_time = strstr(t->at, "BYHOUR") == NULL && strstr(t->at, "BYMINUTE") == NULL;
    if (freq < 2 && one_time && strstr(t->at, "BYDAY") != NULL && lim__rng_chance(rng, 300))
        say(t, ";BYSETPOS=%s%d", lim__rng_chance(rng, 500) ? "-" : "", (int)lim__rng_range(rng, 1, 2));
    if (freq == 2 && lim__rng_chance(rng, 300))
        say(t, ";WKST=SU");
}

static void compare(const char *says, const lim__zone *utc, int64_t start)
{
    struct icalrecurrencetype parsed = icalrecurrencetype_from_string(says);
    struct icaltimetype first = icaltime_from_timet_with_zone((time_t)start, 0, icaltimezone_get_utc_timezone());
    icalrecur_iterator *it = icalrecur_iterator_new(parsed, first);
    lim__calendar *c = NULL;
    lim_diag diag = { 0 };
    uint64_t at = 0;
    if (lim__calendar_rrule(lim__str(says), utc, (uint64_t)start * 1000000000, &diag, &c) != LIM_OK)
        fail_msg("%s: %s", says, diag.text);
    for (int i = 0; i < 12 && it != NULL && at != UINT64_MAX; i++) {
        struct icaltimetype theirs = icalrecur_iterator_next(it);
        at = lim__calendar_next(c, at);
        int64_t ours = at == UINT64_MAX ? -1 : (int64_t)(at / 1000000000);
        int64_t wanted = icaltime_is_null_time(theirs) ? -1 : (int64_t)icaltime_as_timet(theirs);
        if (ours != wanted && !(ours == -1 && wanted > start + INT64_C(100) * 365 * 86400))
            fail_msg("%s from %lld: %lld (%s), and not %lld, at %d", says, (long long)start, (long long)wanted,
                     icaltime_as_ical_string(theirs), (long long)ours, i);
    }
    if (it != NULL)
        icalrecur_iterator_free(it);
    lim__calendar_free(c);
}

static void test_libical_is_of_the_same_opinion(void **state) /* proves GR16 */
{
    (void)state;
    lim__rng rng = lim__rng_seeded(5545);
    lim__zone *utc = zone("UTC");
    icalerror_set_errors_are_fatal(0);
    for (int i = 0; i < 3000; i++) {
        text t = { .used = 0 };
        draw_rule(&rng, &t);
        /* days that every month has: about others, and what a start says then, opinions differ */
        lim__date start = { (int32_t)lim__rng_range(&rng, 2000, 2030), (uint8_t)lim__rng_range(&rng, 1, 12),
                            (uint8_t)lim__rng_range(&rng, 1, 28),      (uint8_t)lim__rng_below(&rng, 24),
                            (uint8_t)lim__rng_below(&rng, 60),         0 };
        compare(t.at, utc, lim__date_local(&start));
    }
    lim__zone_free(utc);
}

/* ---- cron, minute by minute ---- */

static bool cron_says(uint64_t minutes, uint64_t hours, uint64_t days, uint64_t weekdays, bool either, int64_t t)
{
    lim__date d = lim__date_of(t);
    uint64_t weekday = (uint64_t)((t / 86400 + 4) % 7);
    bool day = days >> d.day & 1, wd = weekdays >> weekday & 1;
    return (minutes >> d.minute & 1) && (hours >> d.hour & 1) && (either ? day || wd : day && wd);
}

static void test_cron_is_what_a_search_minute_by_minute_finds(void **state) /* proves GR16 */
{
    static const struct {
        const char *text;
        uint64_t minutes, hours, days, weekdays;
        bool either;
    } rules[] = {
        { "*/20 * * * *", 1u | 1u << 20 | UINT64_C(1) << 40, ~0u, ~0ull, 127, false },
        { "5,35 9-17/4 * * 1-5", 1u << 5 | UINT64_C(1) << 35, 1u << 9 | 1u << 13 | 1u << 17, ~0ull, 62, false },
        { "0 0 13 * FRI", 1, 1, 1u << 13, 32, true },
        { "0 0 13 * *", 1, 1, 1u << 13, 127, false },
        { "59 23 */10 * 0", UINT64_C(1) << 59, 1u << 23, 1u << 1 | 1u << 11 | 1u << 21 | 1u << 31, 1, false },
        { "7 6 * * 5-7", 1u << 7, 1u << 6, ~0ull, 97, false },
        { "10/25 4 1 * sun,7", 1u << 10 | UINT64_C(1) << 35, 1u << 4, 2, 1, true },
        { "@weekly", 1, 1, ~0ull, 1, false },
    };
    (void)state;
    lim__zone *utc = zone("UTC");
    for (size_t i = 0; i < LIM_COUNT(rules); i++) {
        lim__calendar *c = NULL;
        int64_t from = lim__date_days(2026, 1, 29) * 86400;
        uint64_t at = (uint64_t)from * 1000000000 - 1;
        assert_int_equal(lim__calendar_cron(lim__str(rules[i].text), utc, at, NULL, &c), LIM_OK);
        for (int64_t t = from; t < from + 60 * 86400; t += 60)
            if (cron_says(rules[i].minutes, rules[i].hours, rules[i].days, rules[i].weekdays, rules[i].either, t)) {
                at = lim__calendar_next(c, at);
                assert_int_equal(at, (uint64_t)t * 1000000000);
            }
        lim__calendar_free(c);
    }
    lim__zone_free(utc);
}

/* ---- refusals and bounds ---- */

static void test_what_cannot_be_is_refused_with_what_to_write(void **state)
{
    static const struct {
        const char *rule, *says;
    } bad[] = {
        { "FREQ=SECONDLY", "every_ms" },
        { "FREQ=HOURLY;INTERVAL=5", "every_ms" },
        { "FREQ=MINUTELY;INTERVAL=90", "every_ms" },
        { "FREQ=MINUTELY;BYSECOND=0,1", "every_ms" },
        { "FREQ=DALY", "YEARLY, MONTHLY" },
        { "BYHOUR=1", "no FREQ" },
        { "FREQ=DAILY;BYHUOR=1", "did you mean BYHOUR" },
        { "FREQ=DAILY;BYHOUR=24", "0 to 23" },
        { "FREQ=DAILY;BYHOUR=1,", "0 to 23" },
        { "FREQ=DAILY;BYHOUR=-1", "0 to 23" },
        { "FREQ=DAILY;BYHOUR=1;BYHOUR=2", "only once" },
        { "FREQ=DAILY;INTERVAL=0", "1 to 1000" },
        { "FREQ=DAILY;COUNT=1001", "1 to 1000" },
        { "FREQ=DAILY;COUNT=2;UNTIL=20270101", "one of them" },
        { "FREQ=DAILY;UNTIL=20270230", "a day that there is" },
        { "FREQ=DAILY;UNTIL=tomorrow", "20261231" },
        { "FREQ=WEEKLY;BYMONTHDAY=1", "MONTHLY" },
        { "FREQ=WEEKLY;BYDAY=1MO", "leave out the number" },
        { "FREQ=DAILY;BYWEEKNO=1", "YEARLY" },
        { "FREQ=MONTHLY;BYDAY=MON", "MO TU WE" },
        { "FREQ=MONTHLY;BYDAY=0MO", "MO TU WE" },
        { "FREQ=HOURLY;BYSETPOS=1", "BYHOUR" },
        { "FREQ=DAILY;WKST=X", "MO TU WE" },
        { "FREQ=DAILY;", "FREQ=DAILY;BYHOUR=2" },
        { "* * * *", "five fields" },
        { "0 * * * * *", "five fields" },
        { "60 * * * *", "0 to 59" },
        { "* * L * *", "day" },
        { "* * * * 1#2", "weekday" },
        { "*/0 * * * *", "minute" },
        { "9-5 * * * *", "minute" },
        { "@reboot", "@daily" },
        { "", "1 to 511" },
    };
    (void)state;
    lim__zone *utc = zone("UTC");
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        lim__calendar *c = NULL;
        lim_diag diag = { 0 };
        bool cron = strchr(bad[i].rule, '=') == NULL;
        lim_err err = (cron ? lim__calendar_cron : lim__calendar_rrule)(lim__str(bad[i].rule), utc, 0, &diag, &c);
        if (err != LIM_E_INVALID || strstr(diag.text, bad[i].says) == NULL)
            fail_msg("%s: %d, %s", bad[i].rule, (int)err, diag.text);
    }
    lim__zone_free(utc);
}

static void test_no_rule_takes_long_to_say_that_there_is_no_next(void **state)
{
    static const char *const never[] = {
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;COUNT=1000",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYMONTHDAY=31;BYMONTH=4;BYSETPOS=-1",
        "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6",
        "FREQ=HOURLY;INTERVAL=2;BYHOUR=1,3",
        "FREQ=WEEKLY;BYMONTH=2;BYDAY=MO;BYSETPOS=5",
        "* * 31 2,4,6 *",
    };
    (void)state;
    lim__os *os = lim__os_linux();
    lim__zone *z = zone("Europe/Berlin");
    for (size_t i = 0; i < LIM_COUNT(never); i++) {
        uint64_t begin = os->now_ns(os), took;
        lim__calendar *c = rule(never[i], z, "2026-01-01T00:00");
        assert_true(lim__calendar_next(c, 0) == UINT64_MAX);
        took = os->now_ns(os) - begin;
        printf("%s: %llu us\n", never[i], (unsigned long long)took / 1000);
        assert_true(took < UINT64_C(2000000000)); /* a few ms; this is for sanitizers on a busy machine */
        lim__calendar_free(c);
    }
    lim__zone_free(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_examples_of_rfc_5545),
        cmocka_unit_test(test_times_of_a_day),
        cmocka_unit_test(test_once_a_day_is_once_a_day_when_the_clock_is_changed),
        cmocka_unit_test(test_every_hour_is_every_hour_when_the_clock_is_changed),
        cmocka_unit_test(test_a_rule_that_is_always_in_the_gap_has_no_next),
        cmocka_unit_test(test_libical_is_of_the_same_opinion),
        cmocka_unit_test(test_cron_is_what_a_search_minute_by_minute_finds),
        cmocka_unit_test(test_what_cannot_be_is_refused_with_what_to_write),
        cmocka_unit_test(test_no_rule_takes_long_to_say_that_there_is_no_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
