/* SPDX-License-Identifier: Apache-2.0
 * calendar_inside.h - a rule as it is searched (calendar.c), made from text by calendar_text.c. Nobody else includes it. */
#ifndef LIM__CALENDAR_INSIDE_H
#define LIM__CALENDAR_INSIDE_H

#include "base/base.h"
#include "bus/calendar.h"

enum { LIM__SETPOS_MAX = 32, LIM__TIMES_MAX = 1440 /* a day */, LIM__HORIZON_YEARS = 100 };

typedef enum lim__freq { LIM__YEARLY = 1, LIM__MONTHLY, LIM__WEEKLY, LIM__DAILY } lim__freq;

/* Numbers 1..n from the front and -1..-n from the end, a bit each; bit 0 is not used. */
typedef struct lim__positions { uint64_t front[6], back[6]; } lim__positions;

struct lim__calendar {
    const lim__zone *zone;
    int64_t start;       /* local */
    int64_t start_utc;   /* seconds, rounded up */
    int64_t until_utc;   /* inclusive; INT64_MAX: none */
    lim__freq freq;
    uint32_t interval;
    bool every_occurrence; /* of a repeated local time, and none in a gap */
    bool either;           /* cron: weekday or day of the month */
    /* what a day must be; has_x: asked for */
    uint32_t months;       /* bits 1..12; 0: all */
    bool has_weeks, has_yeardays, has_monthdays, has_weekdays;
    lim__positions weeks, yeardays, monthdays;
    uint8_t weekdays;      /* bit 0: Sunday; every one of them */
    lim__positions nth[7]; /* or the n-th of the month or year */
    bool has_nth;
    uint8_t week_start;    /* 0: Sunday */
    /* times of a day */
    uint32_t hours;
    uint64_t minutes, seconds;
    uint32_t times;        /* how many these are */
    int16_t setpos[LIM__SETPOS_MAX];
    uint32_t setpos_count;
};

static inline void lim__positions_add(lim__positions *p, int n)
{
    uint64_t *bits = n > 0 ? p->front : p->back;
    unsigned at = (unsigned)(n > 0 ? n : -n);
    bits[at / 64] |= UINT64_C(1) << at % 64;
}

/* Of `count`, is the one at `n` (from 1) among them? */
static inline bool lim__positions_have(const lim__positions *p, uint32_t n, uint32_t count)
{
    uint32_t back = count - n + 1;
    return (p->front[n / 64] >> n % 64 & 1) || (p->back[back / 64] >> back % 64 & 1);
}

/* The first local time of the rule that is not before `local`, nor before its start; INT64_MAX: none before the horizon. */
int64_t lim__calendar_local(const lim__calendar *c, int64_t local);

#endif
