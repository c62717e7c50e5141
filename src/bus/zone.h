/* SPDX-License-Identifier: Apache-2.0
 * zone.h - time zones: what local time it is at an instant, and which instant a local time is.
 *
 * Read from the system's zone data (TZif files, RFC 8536, with their rules for the time after the last change on file).
 * Here and not in libc, whose zone is one per program and not safe across threads. */
#ifndef LIM__ZONE_H
#define LIM__ZONE_H

#include <liminal/types.h>

typedef struct lim__zone lim__zone; /* OBJECT, immutable; one owner */

/* "UTC", or a name such as "Europe/Berlin", read from the machine's /usr/share/zoneinfo (a simulated one's, too): a file
 * of some kilobytes. INVALID: no such zone, or a broken file; NOMEM. diag says so. */
lim_err lim__zone_open(lim_bytes name, lim_diag *diag, lim__zone **out);
/* From the bytes of a TZif file. */
lim_err lim__zone_parse(lim_bytes file, lim_bytes name, lim_diag *diag, lim__zone **out);
void lim__zone_free(lim__zone *z); /* NULL is a no-op */
lim_bytes lim__zone_name(const lim__zone *z);

/* Seconds east of UTC at an instant (seconds since 1970). */
int32_t lim__zone_offset(const lim__zone *z, int64_t utc);
/* The instants with that local time (seconds since 1970 as if it were UTC), in order: 1; 2 where the clock is set back; 0 where
 * it is set forward, then out[0] is the instant by the offset before the change. */
int lim__zone_instants(const lim__zone *z, int64_t local, int64_t out[2]);

/* ---- dates: proleptic Gregorian ---- */
typedef struct lim__date { int32_t year; uint8_t month, day, hour, minute, second; } lim__date;
int64_t lim__date_days(int32_t year, uint32_t month, uint32_t day); /* since 1970-01-01; day may be any number */
int64_t lim__date_local(const lim__date *d);                        /* seconds since 1970 as if it were UTC */
lim__date lim__date_of(int64_t local);
/* "2026-03-29T02:30[:00[.123]]" with Z, an offset, or in the zone; INVALID: diag says what is expected. */
lim_err lim__instant_parse(lim_bytes text, const lim__zone *z, lim_diag *diag, uint64_t *wall_ns);
/* RFC 3339 in the zone; milliseconds only when there are some. */
enum { LIM__INSTANT_TEXT = 48 };
void lim__instant_text(uint64_t wall_ns, const lim__zone *z, char out[LIM__INSTANT_TEXT]);

#endif
