/* SPDX-License-Identifier: Apache-2.0
 * calendar.h - rules of recurring wall clock times: RFC 5545 (RRULE) and five-field cron, in a time zone.
 *
 * Pure: no clock, no file, no lock. A rule is a set of local times; zone.h makes instants of them.
 *
 *   parts   FREQ=YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY|MINUTELY, INTERVAL 1..1000, COUNT 1..1000 or UNTIL, BYMONTH, BYWEEKNO
 *           (yearly), BYYEARDAY (yearly), BYMONTHDAY (not weekly), BYDAY (with a number: monthly, yearly), BYHOUR,
 *           BYMINUTE, BYSECOND, BYSETPOS, WKST. What is not said of day and time comes from the start. HOURLY and MINUTELY
 *           with INTERVAL that divides a day's hours or an hour's minutes. SECONDLY and the others: an interval (every_ms)
 *           says it better, and the refusal says so.
 *   cron    minute hour day month weekday: * , - and steps; names of months and days; @hourly @daily @weekly @monthly
 *           @yearly. Day and weekday both given: either (as cron has it).
 *
 * Clock changes. A local time that occurs twice fires the first time only, one that does not occur (the gap in spring)
 * fires as if the clock had not been changed, so 02:30 in Berlin becomes 03:30: once a day is once a day. But rules of
 * elapsed time, HOURLY and MINUTELY and cron with * or a step from * as its hour, fire at each occurrence: twice in the
 * repeated hour, never in the gap.
 *
 * A search looks at most 100 years ahead; a rule that has nothing there, as February 30, has no next. Bounded: a search
 * takes some milliseconds at the very worst, whatever the rule. */
#ifndef LIM__CALENDAR_H
#define LIM__CALENDAR_H

#include "bus/zone.h"

typedef struct lim__calendar lim__calendar; /* OBJECT, immutable; one owner */

/* `start_ns`: an instant, DTSTART; nothing fires before it. The zone is borrowed: it must live as long. INVALID: diag says
 * what is wrong with the rule and what to write; NOMEM. */
lim_err lim__calendar_rrule(lim_bytes rule, const lim__zone *zone, uint64_t start_ns, lim_diag *diag, lim__calendar **out);
lim_err lim__calendar_cron(lim_bytes rule, const lim__zone *zone, uint64_t start_ns, lim_diag *diag, lim__calendar **out);
void lim__calendar_free(lim__calendar *c); /* NULL is a no-op */

/* The first instant after `after_ns` (wall clock, ns since 1970, UTC); UINT64_MAX: there is none. */
uint64_t lim__calendar_next(const lim__calendar *c, uint64_t after_ns);

#endif
