/* SPDX-License-Identifier: Apache-2.0
 * calendar_text.c - reads rules: RRULE as RFC 5545 writes it, and cron's five fields. What cannot be is refused with
 * what to write instead.
 *
 * HOURLY and MINUTELY become DAILY with more times a day, so there is one kind of search. COUNT becomes an end. */
#include "base/near.h"
#include "bus/calendar_inside.h"
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 512, DAY = 86400, COUNT_MAX = 1000, INTERVAL_MAX = 1000 };

typedef struct range { /* numbers that a part may list */
    int least, most;
    bool back; /* also negative, from the end */
} range;

static int read_number(const char **at, int most) /* -1: none, or too large */
{
    int n = 0;
    const char *from = *at;
    for (; **at >= '0' && **at <= '9'; ++*at)
        if ((n = n * 10 + (**at - '0')) > most)
            return -1;
    return *at == from ? -1 : n;
}

static lim_err refuse(lim_diag *diag, const char *part, const char *value, const char *expected)
{
    lim__diag_set(diag, 0, 0, "%s=%.60s: expected %s", part, value, expected);
    return LIM_E_INVALID;
}

/* ---- RRULE ---- */

typedef enum sub_daily { NOT_SUB_DAILY = 1, BY_HOURS, BY_MINUTES } sub_daily;
typedef struct rrule { /* what a rule says, on the way to what it means */
    lim__calendar *c;
    sub_daily sub;
    bool has_hours, has_minutes, has_seconds, has_until, until_is_local;
    uint32_t count;
    int64_t until; /* local, or not */
    lim_diag *diag;
} rrule;

/* A list of numbers; each goes to `put`. */
static lim_err each_number(rrule *r, const char *part, const char *value, range allowed,
                           void (*put)(rrule *r, const char *part, int n))
{
    char expected[80];
    snprintf(expected, sizeof expected, "numbers from %d to %d%s, with commas between them", allowed.least,
             allowed.most, allowed.back ? " or negative ones" : "");
    const char *at = value;
    for (;; at++) {
        bool minus = allowed.back && *at == '-';
        at += minus || (allowed.back && *at == '+');
        int n = read_number(&at, allowed.most);
        if (n < allowed.least || (*at != ',' && *at != '\0'))
            return refuse(r->diag, part, value, expected);
        put(r, part, minus ? -n : n);
        if (*at == '\0')
            return LIM_OK;
    }
}

static void put_number(rrule *r, const char *part, int n)
{
    lim__calendar *c = r->c;
    if (strcmp(part, "BYMONTH") == 0)
        c->months |= 1u << n;
    else if (strcmp(part, "BYWEEKNO") == 0)
        lim__positions_add(&c->weeks, n);
    else if (strcmp(part, "BYYEARDAY") == 0)
        lim__positions_add(&c->yeardays, n);
    else if (strcmp(part, "BYMONTHDAY") == 0)
        lim__positions_add(&c->monthdays, n);
    else if (strcmp(part, "BYHOUR") == 0)
        c->hours |= 1u << n;
    else if (strcmp(part, "BYMINUTE") == 0)
        c->minutes |= UINT64_C(1) << n;
    else if (strcmp(part, "BYSECOND") == 0)
        c->seconds |= UINT64_C(1) << n;
    else if (c->setpos_count < LIM__SETPOS_MAX)
        c->setpos[c->setpos_count++] = (int16_t)n;
    c->has_weeks |= strcmp(part, "BYWEEKNO") == 0;
    c->has_yeardays |= strcmp(part, "BYYEARDAY") == 0;
    c->has_monthdays |= strcmp(part, "BYMONTHDAY") == 0;
    r->has_hours |= strcmp(part, "BYHOUR") == 0;
    r->has_minutes |= strcmp(part, "BYMINUTE") == 0;
    r->has_seconds |= strcmp(part, "BYSECOND") == 0;
}

static int weekday_named(const char *at) /* two letters; -1: none */
{
    static const char names[] = "SUMOTUWETHFRSA";
    for (int i = 0; i < 7; i++)
        if (at[0] == names[2 * i] && at[1] == names[2 * i + 1])
            return i;
    return -1;
}

static lim_err by_day(rrule *r, const char *value)
{
    for (const char *at = value;; at++) {
        bool minus = *at == '-', number = minus || *at == '+' || (*at >= '0' && *at <= '9');
        at += *at == '-' || *at == '+';
        int n = number ? read_number(&at, 53) : 0, day = weekday_named(at);
        if (n < (number ? 1 : 0) || day < 0 || (at[2] != ',' && at[2] != '\0'))
            return refuse(r->diag, "BYDAY", value,
                          "MO TU WE TH FR SA SU, each perhaps with a number as in 1MO or -1FR");
        if (number)
            lim__positions_add(&r->c->nth[day], minus ? -n : n);
        else
            r->c->weekdays |= (uint8_t)(1u << day);
        r->c->has_nth |= number;
        r->c->has_weekdays = true;
        at += 2;
        if (*at == '\0')
            return LIM_OK;
    }
}

static lim_err freq(rrule *r, const char *value)
{
    static const struct {
        const char *name;
        lim__freq freq;
        sub_daily sub;
    } all[] = { { "YEARLY", LIM__YEARLY, NOT_SUB_DAILY }, { "MONTHLY", LIM__MONTHLY, NOT_SUB_DAILY },
                { "WEEKLY", LIM__WEEKLY, NOT_SUB_DAILY }, { "DAILY", LIM__DAILY, NOT_SUB_DAILY },
                { "HOURLY", LIM__DAILY, BY_HOURS },       { "MINUTELY", LIM__DAILY, BY_MINUTES } };
    for (size_t i = 0; i < LIM_COUNT(all); i++)
        if (strcmp(value, all[i].name) == 0) {
            r->c->freq = all[i].freq;
            r->sub = all[i].sub;
            return LIM_OK;
        }
    if (strcmp(value, "SECONDLY") == 0)
        return refuse(r->diag, "FREQ", value, "MINUTELY at most; use an interval, every_ms, instead");
    return refuse(r->diag, "FREQ", value, "YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY or MINUTELY");
}

static int two(const char *at)
{
    return (at[0] - '0') * 10 + (at[1] - '0');
}

/* 20261231, 20261231T235959 (in the zone) or 20261231T235959Z. A day counts to its end. */
static lim_err until(rrule *r, const char *value)
{
    size_t len = strlen(value), digits = strspn(value, "0123456789");
    bool time = len >= 15 && value[8] == 'T' && strspn(value + 9, "0123456789") == 6;
    bool ok = digits == 8 && (len == 8 || (time && (len == 15 || (len == 16 && value[15] == 'Z'))));
    if (!ok)
        return refuse(r->diag, "UNTIL", value, "20261231, 20261231T235959 or 20261231T235959Z");
    lim__date d = { .year = two(value) * 100 + two(value + 2),
                    .month = (uint8_t)two(value + 4),
                    .day = (uint8_t)two(value + 6),
                    .hour = (uint8_t)(time ? two(value + 9) : 23),
                    .minute = (uint8_t)(time ? two(value + 11) : 59),
                    .second = (uint8_t)(time ? two(value + 13) : 59) };
    r->until = d.month >= 1 && d.month <= 12 ? lim__date_local(&d) : 0;
    lim__date same = lim__date_of(r->until);
    if (same.month != d.month || same.day != d.day || same.hour != d.hour)
        return refuse(r->diag, "UNTIL", value, "a day that there is, as 20261231");
    r->has_until = true;
    r->until_is_local = len != 16;
    return LIM_OK;
}

static lim_err one_number(rrule *r, const char *part, const char *value, int most, uint32_t *out)
{
    char expected[40];
    const char *at = value;
    int n = read_number(&at, most);
    if (n >= 1 && *at == '\0') {
        *out = (uint32_t)n;
        return LIM_OK;
    }
    snprintf(expected, sizeof expected, "a number from 1 to %d", most);
    return refuse(r->diag, part, value, expected);
}

static lim_err week_start(rrule *r, const char *value)
{
    int day = strlen(value) == 2 ? weekday_named(value) : -1;
    if (day < 0)
        return refuse(r->diag, "WKST", value, "one of MO TU WE TH FR SA SU");
    r->c->week_start = (uint8_t)day;
    return LIM_OK;
}

static const struct {
    const char *name;
    range numbers; /* most 0: it is no list of numbers */
} parts[] = {
    { "FREQ", { 0, 0, false } },       { "INTERVAL", { 0, 0, false } },  { "COUNT", { 0, 0, false } },
    { "UNTIL", { 0, 0, false } },      { "BYDAY", { 0, 0, false } },     { "WKST", { 0, 0, false } },
    { "BYMONTH", { 1, 12, false } },   { "BYWEEKNO", { 1, 53, true } },  { "BYYEARDAY", { 1, 366, true } },
    { "BYMONTHDAY", { 1, 31, true } }, { "BYHOUR", { 0, 23, false } },   { "BYMINUTE", { 0, 59, false } },
    { "BYSECOND", { 0, 59, false } },  { "BYSETPOS", { 1, 366, true } },
};

static lim_err unknown_part(rrule *r, const char *name)
{
    lim__near near = { .word = lim__str(name) };
    for (size_t i = 0; i < LIM_COUNT(parts); i++)
        lim__near_offer(&near, lim__str(parts[i].name));
    lim__diag_set(r->diag, 0, 0,
                  near.best.len > 0 ? "the part %.40s is unknown; did you mean %.*s?"
                                    : "the part %.40s is unknown%.*s; a rule is like FREQ=DAILY;BYHOUR=2;BYMINUTE=30",
                  name, (int)near.best.len, near.best.len > 0 ? (const char *)near.best.ptr : "");
    return LIM_E_INVALID;
}

static lim_err part(rrule *r, const char *name, const char *value, uint32_t *seen)
{
    size_t i = 0;
    while (i < LIM_COUNT(parts) && strcmp(name, parts[i].name) != 0)
        i++;
    if (i == LIM_COUNT(parts))
        return unknown_part(r, name);
    if (*seen >> i & 1)
        return refuse(r->diag, name, value, "each part only once");
    *seen |= 1u << i;
    if (parts[i].numbers.most > 0)
        return each_number(r, parts[i].name, value, parts[i].numbers, put_number);
    switch (i) {
    case 0:
        return freq(r, value);
    case 1:
        return one_number(r, name, value, INTERVAL_MAX, &r->c->interval);
    case 2:
        return one_number(r, name, value, COUNT_MAX, &r->count);
    case 3:
        return until(r, value);
    case 4:
        return by_day(r, value);
    default:
        return week_start(r, value);
    }
}

static lim_err all_parts(rrule *r, char *text)
{
    uint32_t seen = 0;
    lim_err err = LIM_OK;
    for (char *at = text, *next; err == LIM_OK && at != NULL; at = next) {
        next = strchr(at, ';');
        if (next != NULL)
            *next++ = '\0';
        char *value = strchr(at, '=');
        if (value == NULL)
            return unknown_part(r, at);
        *value++ = '\0';
        err = part(r, at, value, &seen);
    }
    return err;
}

static lim_err not_with(rrule *r, const char *what, const char *instead)
{
    lim__diag_set(r->diag, 0, 0, "%s; %s", what, instead);
    return LIM_E_INVALID;
}

/* What RFC 5545 rules out, or leaves without a meaning. */
static lim_err fits(rrule *r)
{
    const lim__calendar *c = r->c;
    if (c->freq == 0)
        return not_with(r, "the rule has no FREQ", "a rule is like FREQ=DAILY;BYHOUR=2;BYMINUTE=30");
    if (c->freq != LIM__YEARLY && (c->has_weeks || c->has_yeardays))
        return not_with(r, "BYWEEKNO and BYYEARDAY need FREQ=YEARLY", "use BYMONTH, BYMONTHDAY or BYDAY");
    if (c->freq == LIM__WEEKLY && c->has_monthdays)
        return not_with(r, "BYMONTHDAY does not go with FREQ=WEEKLY", "use FREQ=MONTHLY, or FREQ=DAILY with BYDAY");
    if (c->has_nth && (c->freq > LIM__MONTHLY || c->has_weeks))
        return not_with(r, "BYDAY with a number needs FREQ=MONTHLY or YEARLY, without BYWEEKNO",
                        "leave out the number, or change FREQ");
    if (r->count > 0 && r->has_until)
        return not_with(r, "COUNT and UNTIL are both given", "give one of them");
    if (c->setpos_count > 0 && r->sub != NOT_SUB_DAILY)
        return not_with(r, "BYSETPOS does not go with FREQ=HOURLY or MINUTELY", "say BYHOUR and BYMINUTE");
    if ((r->sub == BY_HOURS && 24 % c->interval != 0) || (r->sub == BY_MINUTES && 60 % c->interval != 0))
        return not_with(r,
                        "this INTERVAL does not divide a day's hours (HOURLY) or an hour's minutes (MINUTELY) evenly",
                        "use an interval, every_ms, which need not");
    return LIM_OK;
}

/* What is not said comes from the start. */
static void fill_day(lim__calendar *c, const lim__date *start, uint32_t weekday)
{
    bool any = c->has_weeks || c->has_yeardays || c->has_monthdays || c->has_weekdays;
    if (any || c->freq == LIM__DAILY) {
        if (c->freq != LIM__YEARLY || !c->has_weeks || c->has_yeardays || c->has_monthdays || c->has_weekdays)
            return;
        c->weekdays = (uint8_t)(1u << weekday); /* a week alone: that day of it */
        c->has_weekdays = true;
    } else if (c->freq == LIM__WEEKLY) {
        c->weekdays = (uint8_t)(1u << weekday);
        c->has_weekdays = true;
    } else {
        lim__positions_add(&c->monthdays, start->day);
        c->has_monthdays = true;
        if (c->freq == LIM__YEARLY && c->months == 0)
            c->months = 1u << start->month;
    }
}

static uint64_t every(uint32_t from, uint32_t step, uint32_t end)
{
    uint64_t bits = 0;
    for (uint32_t n = from % step; n < end; n += step)
        bits |= UINT64_C(1) << n;
    return bits;
}

static void fill_times(rrule *r, const lim__date *start)
{
    lim__calendar *c = r->c;
    uint32_t hours = (uint32_t)every(start->hour, r->sub == BY_HOURS ? c->interval : 1, 24);
    uint64_t minutes = every(start->minute, r->sub == BY_MINUTES ? c->interval : 1, 60);
    if (r->sub == NOT_SUB_DAILY)
        hours = 1u << start->hour;
    if (r->sub != BY_MINUTES)
        minutes = UINT64_C(1) << start->minute;
    c->hours = !r->has_hours ? hours : r->sub == BY_HOURS ? c->hours & hours : c->hours;
    c->minutes = !r->has_minutes ? minutes : r->sub == BY_MINUTES ? c->minutes & minutes : c->minutes;
    if (!r->has_seconds)
        c->seconds = UINT64_C(1) << start->second;
    c->every_occurrence = r->sub != NOT_SUB_DAILY;
    if (r->sub != NOT_SUB_DAILY)
        c->interval = 1;
}

static lim_err count_times(lim__calendar *c, lim_diag *diag)
{
    c->times =
        (uint32_t)(__builtin_popcount(c->hours) * __builtin_popcountll(c->minutes) * __builtin_popcountll(c->seconds));
    if (c->times <= LIM__TIMES_MAX)
        return LIM_OK;
    lim__diag_set(diag, 0, 0, "the rule fires %u times a day, more than %d; use an interval, every_ms", c->times,
                  LIM__TIMES_MAX);
    return LIM_E_INVALID;
}

/* COUNT, as an end. Counts local times. */
static void set_end(rrule *r)
{
    lim__calendar *c = r->c;
    int64_t at[2];
    if (r->has_until && !r->until_is_local) {
        c->until_utc = r->until;
    } else if (r->has_until) {
        int found = lim__zone_instants(c->zone, r->until, at);
        c->until_utc = at[found == 2 ? 1 : 0];
    } else if (r->count > 0) {
        int64_t local = c->start - 1, limit = c->start + (int64_t)2 * LIM__HORIZON_YEARS * 366 * DAY;
        for (uint32_t i = 0; i < r->count && local < limit; i++)
            local = lim__calendar_local(c, local + 1);
        if (local >= limit) /* further than anybody looks */
            return;
        int found = lim__zone_instants(c->zone, local, at);
        c->until_utc = at[found == 2 && c->every_occurrence ? 1 : 0];
    }
}

static lim__calendar *calendar_new(const lim__zone *zone, uint64_t start_ns)
{
    lim__calendar *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->zone = zone;
    c->start_utc = (int64_t)(start_ns / 1000000000 + (start_ns % 1000000000 != 0));
    c->start = c->start_utc + lim__zone_offset(zone, c->start_utc);
    if (c->start < 0)
        c->start = 0;
    c->until_utc = INT64_MAX;
    c->interval = 1;
    c->week_start = 1;
    return c;
}

static lim_err copy_text(lim_bytes text, char out[TEXT_MAX], lim_diag *diag)
{
    if (text.len == 0 || text.len >= TEXT_MAX || memchr(text.ptr, '\0', text.len) != NULL) {
        lim__diag_set(diag, 0, 0, "a rule is a text of 1 to %d characters", TEXT_MAX - 1);
        return LIM_E_INVALID;
    }
    for (size_t i = 0; i < text.len; i++) {
        char ch = ((const char *)text.ptr)[i];
        out[i] = ch >= 'a' && ch <= 'z' ? (char)(ch - 32) : ch;
    }
    out[text.len] = '\0';
    return LIM_OK;
}

static lim_err finish(lim__calendar *c, lim_err err, lim__calendar **out)
{
    if (err == LIM_OK)
        *out = c;
    else
        lim__calendar_free(c);
    return err;
}

lim_err lim__calendar_rrule(lim_bytes rule, const lim__zone *zone, uint64_t start_ns, lim_diag *diag,
                            lim__calendar **out)
{
    char text[TEXT_MAX];
    lim_err err = copy_text(rule, text, diag);
    lim__calendar *c = err == LIM_OK ? calendar_new(zone, start_ns) : NULL;
    if (c == NULL)
        return err == LIM_OK ? LIM_E_NOMEM : err;
    rrule r = { .c = c, .sub = NOT_SUB_DAILY, .diag = diag };
    err = all_parts(&r, strncmp(text, "RRULE:", 6) == 0 ? text + 6 : text);
    if (err == LIM_OK)
        err = fits(&r);
    if (err == LIM_OK) {
        lim__date start = lim__date_of(c->start);
        fill_day(c, &start, (uint32_t)((c->start / DAY + 4) % 7));
        fill_times(&r, &start);
        err = count_times(c, diag);
    }
    if (err == LIM_OK)
        set_end(&r);
    return finish(c, err, out);
}

/* ---- cron ---- */

typedef struct field {
    const char *name;
    int least, most;
    const char *names; /* three letters each, or NULL */
} field;

static int name_or_number(const char **at, const field *f)
{
    for (int i = 0; f->names != NULL && i < (int)strlen(f->names) / 3; i++)
        if (strncmp(*at, f->names + (size_t)i * 3, 3) == 0) {
            *at += 3;
            return f->least + i;
        }
    return read_number(at, f->most);
}

/* One of what commas separate: *, n, n-m, each with /step. False: it is none. */
static bool cron_item(const char **at, const field *f, uint64_t *bits)
{
    int from = f->least, to = f->most, step = 1;
    bool all = **at == '*';
    if (all)
        ++*at;
    else if ((from = name_or_number(at, f)) < f->least)
        return false;
    bool span = !all && **at == '-';
    if (span)
        ++*at;
    if (!all)
        to = span ? name_or_number(at, f) : from;
    if (**at == '/') {
        ++*at;
        step = read_number(at, f->most);
        to = all || span ? to : f->most; /* 5/15: from 5 on */
    }
    if (step < 1 || to < from)
        return false;
    for (int n = from; n <= to; n += step)
        *bits |= UINT64_C(1) << n;
    return true;
}

static lim_err cron_field(const char *text, const field *f, uint64_t *bits, lim_diag *diag)
{
    const char *at = text;
    *bits = 0;
    while (cron_item(&at, f, bits) && *at == ',')
        at++;
    if (*at == '\0' && *bits != 0)
        return LIM_OK;
    lim__diag_set(diag, 0, 0,
                  "cron, %s: '%.40s' is not made of *, numbers from %d to %d%s, ranges and steps as in */15", f->name,
                  text, f->least, f->most, f->names != NULL ? " or names" : "");
    return LIM_E_INVALID;
}

static const struct {
    const char *name, *means;
} nicknames[] = { { "@HOURLY", "0 * * * *" },  { "@DAILY", "0 0 * * *" },   { "@MIDNIGHT", "0 0 * * *" },
                  { "@WEEKLY", "0 0 * * 0" },  { "@MONTHLY", "0 0 1 * *" }, { "@YEARLY", "0 0 1 1 *" },
                  { "@ANNUALLY", "0 0 1 1 *" } };

static lim_err cron_split(char *text, char *fields[5], lim_diag *diag)
{
    uint32_t count = 0;
    for (size_t i = 0; i < LIM_COUNT(nicknames); i++)
        if (strcmp(text, nicknames[i].name) == 0)
            snprintf(text, TEXT_MAX, "%s", nicknames[i].means);
    if (text[0] == '@') {
        lim__diag_set(diag, 0, 0, "cron knows @hourly @daily @weekly @monthly @yearly, not %.40s", text);
        return LIM_E_INVALID;
    }
    for (char *at = text; *at != '\0';) {
        at += strspn(at, " \t");
        size_t len = strcspn(at, " \t");
        if (len > 0 && count < 5)
            fields[count] = at;
        count += len > 0;
        at += len;
        if (*at != '\0')
            *at++ = '\0';
    }
    if (count == 5)
        return LIM_OK;
    lim__diag_set(diag, 0, 0,
                  "cron has five fields (minute hour day month weekday), not %u; for seconds or years use an rrule",
                  count);
    return LIM_E_INVALID;
}

static void cron_days(lim__calendar *c, uint64_t days, uint64_t weekdays, bool all_days, bool all_weekdays)
{
    for (int n = 1; n <= 31; n++)
        if (days >> n & 1)
            lim__positions_add(&c->monthdays, n);
    c->weekdays = (uint8_t)((weekdays | weekdays >> 7) & 127); /* 7 is Sunday, too */
    c->has_monthdays = c->has_weekdays = true;
    c->either = !all_days && !all_weekdays;
}

static lim_err cron_fields(lim__calendar *c, char *fields[5], lim_diag *diag)
{
    static const field all[5] = { { "minute", 0, 59, NULL },
                                  { "hour", 0, 23, NULL },
                                  { "day", 1, 31, NULL },
                                  { "month", 1, 12, "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC" },
                                  { "weekday", 0, 7, "SUNMONTUEWEDTHUFRISAT" } };
    uint64_t bits[5];
    for (int i = 0; i < 5; i++) {
        lim_err err = cron_field(fields[i], &all[i], &bits[i], diag);
        if (err != LIM_OK)
            return err;
    }
    c->freq = LIM__DAILY;
    c->seconds = 1;
    c->minutes = bits[0];
    c->hours = (uint32_t)bits[1];
    c->months = (uint32_t)bits[3];
    c->every_occurrence = fields[1][0] == '*';
    cron_days(c, bits[2], bits[4], fields[2][0] == '*', fields[4][0] == '*');
    return count_times(c, diag);
}

lim_err lim__calendar_cron(lim_bytes rule, const lim__zone *zone, uint64_t start_ns, lim_diag *diag,
                           lim__calendar **out)
{
    char text[TEXT_MAX], *fields[5];
    lim_err err = copy_text(rule, text, diag);
    if (err == LIM_OK)
        err = cron_split(text, fields, diag);
    lim__calendar *c = err == LIM_OK ? calendar_new(zone, start_ns) : NULL;
    if (c == NULL)
        return err == LIM_OK ? LIM_E_NOMEM : err;
    return finish(c, cron_fields(c, fields, diag), out);
}
