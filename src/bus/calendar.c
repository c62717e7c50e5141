/* SPDX-License-Identifier: Apache-2.0
 * calendar.c - the next instant of a rule.
 *
 * A rule repeats in periods (years, months, weeks, days), of which every interval-th counts. In each, the days that are
 * what the rule wants, crossed with the same times on each of them, are the local times; BYSETPOS picks some by number,
 * which is arithmetic, because every day has equally many times. A zone makes instants of local times:
 *
 *      after --offset--> a local time that is early enough --period by period--> local times --zone--> instants > after
 *
 * Local times ascend, their instants do not where the clock is changed: so the search goes on until no later local time
 * can be earlier than the best instant found.
 *
 * Days are tested one by one and never enumerated into memory: the work is bounded by the days of the horizon. */
#include "bus/calendar_inside.h"
#include <stdlib.h>

enum { DAY = 86400, SECOND_NS = 1000000000 };

/* ---- days ---- */

typedef struct day_facts {
    lim__date date;
    int64_t day;         /* since 1970 */
    int64_t year_begins; /* likewise */
    uint32_t month_days, year_days;
    uint32_t weekday; /* 0: Sunday */
} day_facts;

static uint32_t weekday_of(int64_t day)
{
    return (uint32_t)(((day + 4) % 7 + 7) % 7);
}

static int64_t month_begins(int32_t year, uint32_t month) /* 13: the next year's first */
{
    return month > 12 ? lim__date_days(year + 1, month - 12, 1) : lim__date_days(year, month, 1);
}

static day_facts facts_of(int64_t day)
{
    day_facts f = { .date = lim__date_of(day * DAY), .day = day, .weekday = weekday_of(day) };
    f.year_begins = lim__date_days(f.date.year, 1, 1);
    f.year_days = (uint32_t)(lim__date_days(f.date.year + 1, 1, 1) - f.year_begins);
    f.month_days = (uint32_t)(month_begins(f.date.year, f.date.month + 1u) - month_begins(f.date.year, f.date.month));
    return f;
}

/* Week 1 of a year is the first with at least four of its days. */
static int64_t week_one(const lim__calendar *c, int32_t year)
{
    int64_t first = lim__date_days(year, 1, 1);
    uint32_t into = (weekday_of(first) + 7 - c->week_start) % 7;
    return into <= 3 ? first - into : first + 7 - into;
}

static bool week_wanted(const lim__calendar *c, const day_facts *f)
{
    int32_t year = f->date.year;
    if (f->day < week_one(c, year))
        year--;
    else if (f->day >= week_one(c, year + 1))
        year++;
    int64_t first = week_one(c, year);
    uint32_t count = (uint32_t)((week_one(c, year + 1) - first) / 7);
    return lim__positions_have(&c->weeks, (uint32_t)((f->day - first) / 7) + 1, count);
}

static bool weekday_wanted(const lim__calendar *c, const day_facts *f)
{
    if (c->weekdays >> f->weekday & 1)
        return true;
    if (!c->has_nth)
        return false;
    bool of_month = c->freq == LIM__MONTHLY || c->months != 0;
    uint32_t into = of_month ? f->date.day - 1u : (uint32_t)(f->day - f->year_begins);
    uint32_t days = of_month ? f->month_days : f->year_days;
    uint32_t before = into / 7, after = (days - 1 - into) / 7;
    return lim__positions_have(&c->nth[f->weekday], before + 1, before + after + 1);
}

static bool day_wanted(const lim__calendar *c, int64_t day)
{
    day_facts f = facts_of(day);
    if (c->months != 0 && !(c->months >> f.date.month & 1))
        return false;
    bool monthday = !c->has_monthdays || lim__positions_have(&c->monthdays, f.date.day, f.month_days);
    bool weekday = !c->has_weekdays || weekday_wanted(c, &f);
    if (c->either)
        return monthday || weekday;
    return monthday && weekday && (!c->has_weeks || week_wanted(c, &f)) &&
           (!c->has_yeardays || lim__positions_have(&c->yeardays, (uint32_t)(f.day - f.year_begins) + 1, f.year_days));
}

/* ---- periods: [first, end) in days ---- */

typedef struct period {
    int64_t number; /* since the one of the start */
    int64_t first, end;
} period;

static period period_at(const lim__calendar *c, int64_t number)
{
    lim__date s = lim__date_of(c->start);
    int64_t day = lim__date_days(s.year, s.month, s.day), months = s.month - 1 + number;
    int32_t year = (int32_t)(s.year + months / 12);
    uint32_t month = (uint32_t)(months % 12) + 1;
    int64_t week = day - (weekday_of(day) + 7 - c->week_start) % 7;
    switch (c->freq) {
    case LIM__YEARLY:
        year = (int32_t)(s.year + number);
        return (period){ number, lim__date_days(year, 1, 1), lim__date_days(year + 1, 1, 1) };
    case LIM__MONTHLY:
        return (period){ number, month_begins(year, month), month_begins(year, month + 1) };
    case LIM__WEEKLY:
        return (period){ number, week + number * 7, week + number * 7 + 7 };
    case LIM__DAILY:
        return (period){ number, day + number, day + number + 1 };
    }
    LIM_ASSERT(!"no such frequency");
    return (period){ 0 };
}

/* The number of the period that a day is in; the day is not before the first. */
static int64_t period_number(const lim__calendar *c, int64_t day)
{
    lim__date s = lim__date_of(c->start), d = lim__date_of(day * DAY);
    int64_t first = period_at(c, 0).first;
    switch (c->freq) {
    case LIM__YEARLY:
        return d.year - s.year;
    case LIM__MONTHLY:
        return (int64_t)(d.year - s.year) * 12 + d.month - s.month;
    case LIM__WEEKLY:
        return (day - first) / 7;
    case LIM__DAILY:
        return day - first;
    }
    return 0;
}

/* ---- times of a day ---- */

static int lowest(uint64_t bits, int from) /* the first bit from there on; 64: none */
{
    bits = from < 64 ? bits >> from << from : 0;
    return bits != 0 ? __builtin_ctzll(bits) : 64;
}

/* The first time of the day (seconds) that is not before `second`; DAY: none. */
static int32_t time_from(const lim__calendar *c, int32_t second)
{
    for (int h = lowest(c->hours, second / 3600); h < 24; h = lowest(c->hours, h + 1)) {
        int32_t rest = second - h * 3600 > 0 ? second - h * 3600 : 0;
        for (int m = lowest(c->minutes, rest / 60); m < 60; m = lowest(c->minutes, m + 1)) {
            int32_t in = rest - m * 60 > 0 ? rest - m * 60 : 0;
            int s = lowest(c->seconds, in);
            if (s < 60)
                return h * 3600 + m * 60 + s;
        }
    }
    return DAY;
}

static int nth_bit(uint64_t bits, uint32_t n)
{
    while (n-- > 0)
        bits &= bits - 1;
    LIM_ASSERT(bits != 0);
    return __builtin_ctzll(bits);
}

static int32_t time_at(const lim__calendar *c, uint32_t n)
{
    uint32_t seconds = (uint32_t)__builtin_popcountll(c->seconds), minutes = (uint32_t)__builtin_popcountll(c->minutes);
    return nth_bit(c->hours, n / seconds / minutes) * 3600 + nth_bit(c->minutes, n / seconds % minutes) * 60 +
           nth_bit(c->seconds, n % seconds);
}

/* ---- the first of a period that is not before `local`; INT64_MAX: none ---- */

static int64_t first_of(const lim__calendar *c, const period *p, int64_t local)
{
    for (int64_t day = p->first * DAY > local - DAY ? p->first : local / DAY; day < p->end; day++) {
        if (!day_wanted(c, day))
            continue;
        int32_t time = time_from(c, local > day * DAY ? (int32_t)(local - day * DAY) : 0);
        if (time < DAY)
            return day * DAY + time;
    }
    return INT64_MAX;
}

static int64_t nth_day(const lim__calendar *c, const period *p, int64_t n)
{
    for (int64_t day = p->first; day < p->end; day++)
        if (day_wanted(c, day) && n-- == 0)
            return day;
    return INT64_MAX;
}

static int64_t first_by_position(const lim__calendar *c, const period *p, int64_t local)
{
    int64_t days = 0, best = INT64_MAX;
    for (int64_t day = p->first; day < p->end; day++)
        days += day_wanted(c, day);
    int64_t count = days * c->times;
    for (uint32_t i = 0; i < c->setpos_count; i++) {
        int64_t n = c->setpos[i] > 0 ? c->setpos[i] - 1 : count + c->setpos[i];
        if (n < 0 || n >= count)
            continue;
        int64_t at = nth_day(c, p, n / c->times) * DAY + time_at(c, (uint32_t)(n % c->times));
        if (at >= local && at < best)
            best = at;
    }
    return best;
}

int64_t lim__calendar_local(const lim__calendar *c, int64_t local)
{
    if (local < c->start)
        local = c->start;
    int64_t last = local + (int64_t)LIM__HORIZON_YEARS * 366 * DAY;
    int64_t number = period_number(c, local / DAY);
    number += (c->interval - number % c->interval) % c->interval;
    for (;; number += c->interval) {
        period p = period_at(c, number);
        if (p.first * DAY > last)
            return INT64_MAX;
        int64_t found = c->setpos_count > 0 ? first_by_position(c, &p, local) : first_of(c, &p, local);
        if (found != INT64_MAX)
            return found;
    }
}

/* ---- instants ---- */

/* The first instant of a local time that is not before `from`; INT64_MAX: none. */
static int64_t instant_of(const lim__calendar *c, int64_t local, int64_t from)
{
    int64_t at[2];
    int count = lim__zone_instants(c->zone, local, at);
    if (!c->every_occurrence)
        return at[0] >= from ? at[0] : INT64_MAX;
    for (int i = 0; i < count; i++)
        if (at[i] >= from)
            return at[i];
    return INT64_MAX;
}

typedef struct offsets {
    int32_t least, most;
} offsets;

static offsets offsets_near(const lim__zone *z, int64_t utc)
{
    offsets o = { INT32_MAX, INT32_MIN };
    for (int64_t t = utc - DAY; t <= utc + DAY; t += DAY) {
        int32_t here = lim__zone_offset(z, t);
        o.least = here < o.least ? here : o.least;
        o.most = here > o.most ? here : o.most;
    }
    return o;
}

uint64_t lim__calendar_next(const lim__calendar *c, uint64_t after_ns)
{
    int64_t from = (int64_t)(after_ns / SECOND_NS) + 1, best = INT64_MAX;
    if (from < c->start_utc)
        from = c->start_utc;
    offsets near = offsets_near(c->zone, from);
    for (int64_t local = lim__calendar_local(c, from + near.least); local != INT64_MAX;
         local = lim__calendar_local(c, local + 1)) {
        near = offsets_near(c->zone, local);
        bool beyond = local - from > (int64_t)LIM__HORIZON_YEARS * 366 * DAY; /* as what is always in the gap */
        if (beyond || (best != INT64_MAX && local - near.most > best))
            break;
        int64_t at = instant_of(c, local, from);
        best = at < best ? at : best;
        if (best != INT64_MAX && near.least == near.most)
            break;
    }
    return best <= c->until_utc && best != INT64_MAX ? (uint64_t)best * SECOND_NS : UINT64_MAX;
}

void lim__calendar_free(lim__calendar *c)
{
    free(c);
}
