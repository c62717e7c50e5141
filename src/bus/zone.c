/* SPDX-License-Identifier: Apache-2.0
 * zone.c - a time zone: a row of changes of the offset, and a rule for the time after the last of them.
 *
 *      first offset | at[0] offset[0] | at[1] offset[1] | ... | at[count-1] | the rule of the footer, for ever
 *
 * A local time is looked up by trying the offsets of a day before and a day after: whichever leads to an instant that
 * has that very offset is right. Both may be (the clock is set back), or neither (it is set forward).
 *
 * Invariant Z1: `at` ascends. */
#include "bus/zone.h"
#include "actor/actor.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { DAY = 86400, FILE_MAX = 1 << 20, NAME_MAX_BYTES = 64, HEADER = 44, OFFSET_MAX = 26 * 3600 };

typedef enum when_kind { WHEN_WEEKDAY = 1, WHEN_YEARDAY, WHEN_YEARDAY_NO_LEAP } when_kind;
typedef struct when { /* when in a year the clock is changed, in the local time before */
    when_kind kind;
    int32_t month, week, day; /* WEEKDAY: the week-th `day` of the month, 5: the last. Else day alone */
    int32_t time;
} when;

struct lim__zone {
    char name[NAME_MAX_BYTES + 1];
    int32_t first;
    uint32_t count;
    int64_t *at;
    int32_t *offset;
    bool has_rule, has_summer;
    int32_t standard, summer;
    when begin, end; /* of summer */
};

/* ---- dates ---- */

int64_t lim__date_days(int32_t year, uint32_t month, uint32_t day)
{
    /* Years that begin in March: the day that comes and goes is their last. */
    int64_t y = (int64_t)year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t month_from_march = (month + 9) % 12;
    int64_t of_year = (153 * month_from_march + 2) / 5 + (int64_t)day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

int64_t lim__date_local(const lim__date *d)
{
    return lim__date_days(d->year, d->month, d->day) * DAY + d->hour * 3600 + d->minute * 60 + d->second;
}

lim__date lim__date_of(int64_t local)
{
    int64_t days = floor_div(local, DAY), second = local - days * DAY;
    int64_t z = days + 719468, era = floor_div(z, 146097), of_era = z - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t from_march = (5 * of_year + 2) / 153;
    lim__date d = { .day = (uint8_t)(of_year - (153 * from_march + 2) / 5 + 1),
                    .month = (uint8_t)(from_march < 10 ? from_march + 3 : from_march - 9),
                    .hour = (uint8_t)(second / 3600),
                    .minute = (uint8_t)(second / 60 % 60),
                    .second = (uint8_t)(second % 60) };
    d.year = (int32_t)(year + era * 400 + (d.month <= 2));
    return d;
}

static bool is_leap(int32_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* ---- the footer: a rule as POSIX writes it, "CET-1CEST,M3.5.0,M10.5.0/3" ---- */

typedef struct reader {
    const char *at, *end;
    bool bad;
} reader;

static bool next_is(reader *r, char c)
{
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static int32_t read_number(reader *r, int32_t max)
{
    int32_t n = 0;
    const char *from = r->at;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9' && n <= max; r->at++)
        n = n * 10 + (*r->at - '0');
    if (r->at == from || n > max)
        r->bad = true;
    return n;
}

static int32_t read_time(reader *r) /* [+-]hh[:mm[:ss]], in seconds */
{
    bool minus = next_is(r, '-');
    if (!minus)
        (void)next_is(r, '+');
    int32_t seconds = read_number(r, 167) * 3600;
    if (next_is(r, ':'))
        seconds += read_number(r, 59) * 60;
    if (next_is(r, ':'))
        seconds += read_number(r, 59);
    return minus ? -seconds : seconds;
}

static void skip_name(reader *r) /* letters, or anything in <> */
{
    const char *from = r->at;
    if (next_is(r, '<')) {
        while (r->at < r->end && *r->at != '>')
            r->at++;
        r->bad |= !next_is(r, '>');
        return;
    }
    while (r->at < r->end && ((*r->at | 32) >= 'a' && (*r->at | 32) <= 'z'))
        r->at++;
    r->bad |= r->at == from;
}

static when read_when(reader *r)
{
    when w = { .kind = WHEN_YEARDAY, .time = 2 * 3600 };
    if (!next_is(r, ','))
        r->bad = true;
    if (next_is(r, 'M')) {
        w.kind = WHEN_WEEKDAY;
        w.month = read_number(r, 12);
        r->bad |= !next_is(r, '.');
        w.week = read_number(r, 5);
        r->bad |= !next_is(r, '.') || w.month == 0 || w.week == 0;
        w.day = read_number(r, 6);
    } else {
        if (next_is(r, 'J'))
            w.kind = WHEN_YEARDAY_NO_LEAP;
        w.day = read_number(r, 365);
    }
    if (next_is(r, '/'))
        w.time = read_time(r);
    return w;
}

static bool read_rule(lim__zone *z, lim_bytes text)
{
    reader r = { text.ptr, (const char *)text.ptr + text.len, false };
    if (text.len == 0)
        return true;
    skip_name(&r);
    z->standard = -read_time(&r); /* they count westward */
    z->has_rule = true;
    if (r.at < r.end) {
        skip_name(&r);
        z->has_summer = true;
        z->summer = r.at < r.end && *r.at != ',' ? -read_time(&r) : z->standard + 3600;
        z->begin = read_when(&r);
        z->end = read_when(&r);
    }
    return !r.bad && r.at == r.end;
}

static int64_t when_local(const when *w, int32_t year)
{
    int64_t day;
    if (w->kind == WHEN_WEEKDAY) {
        int64_t first = lim__date_days(year, (uint32_t)w->month, 1);
        int64_t next =
            w->month == 12 ? lim__date_days(year + 1, 1, 1) : lim__date_days(year, (uint32_t)w->month + 1, 1);
        int64_t weekday = ((first + 4) % 7 + 7) % 7; /* 1970 began with a Thursday; Sunday is 0 */
        day = first + (w->day - weekday + 7) % 7 + (w->week - 1) * 7;
        if (day >= next)
            day -= 7;
    } else {
        day = lim__date_days(year, 1, 1) + w->day;
        if (w->kind == WHEN_YEARDAY_NO_LEAP) /* counts from 1, and never a February 29 */
            day -= w->day >= 60 && is_leap(year) ? 0 : 1;
    }
    return day * DAY + w->time;
}

static int32_t rule_offset(const lim__zone *z, int64_t utc)
{
    if (!z->has_summer)
        return z->standard;
    int32_t year = lim__date_of(utc + z->standard).year;
    int64_t begin = when_local(&z->begin, year) - z->standard, end = when_local(&z->end, year) - z->summer;
    bool summer = begin < end ? utc >= begin && utc < end : utc >= begin || utc < end;
    return summer ? z->summer : z->standard;
}

/* ---- the file ---- */

static int64_t big_endian(const uint8_t *p, int bytes)
{
    uint64_t n = p[0] & 0x80 ? UINT64_MAX : 0;
    for (int i = 0; i < bytes; i++)
        n = n << 8 | p[i];
    return (int64_t)n;
}

typedef struct counts { /* of one block, in the order of its header */
    uint32_t utc, standard, leaps, changes, types, chars;
} counts;

static bool read_header(const uint8_t *p, const uint8_t *end, counts *c)
{
    uint32_t *const all[] = { &c->utc, &c->standard, &c->leaps, &c->changes, &c->types, &c->chars };
    if (end - p < HEADER || memcmp(p, "TZif", 4) != 0)
        return false;
    for (size_t i = 0; i < LIM_COUNT(all); i++) {
        *all[i] = (uint32_t)big_endian(p + 20 + 4 * i, 4);
        if (*all[i] > FILE_MAX)
            return false;
    }
    return c->types > 0 && c->types <= 256;
}

static size_t block_bytes(const counts *c, size_t time)
{
    return (size_t)c->changes * (time + 1) + (size_t)c->types * 6 + c->chars + (size_t)c->leaps * (time + 4) +
           c->standard + c->utc;
}

static bool read_changes(lim__zone *z, const uint8_t *p, const counts *c)
{
    const uint8_t *kinds = p + (size_t)c->changes * 8, *types = kinds + c->changes;
    z->first = (int32_t)big_endian(types, 4);
    for (uint32_t i = 0; i < c->changes; i++) {
        if (kinds[i] >= c->types)
            return false;
        z->at[i] = big_endian(p + (size_t)i * 8, 8);
        z->offset[i] = (int32_t)big_endian(types + (size_t)kinds[i] * 6, 4);
        if ((i > 0 && z->at[i] <= z->at[i - 1]) || abs(z->offset[i]) > OFFSET_MAX)
            return false;
    }
    z->count = c->changes;
    return true;
}

static lim_err broken(lim_bytes name, lim_diag *diag, lim__zone *z)
{
    lim__diag_set(diag, 0, 0, "the zone data of %.*s cannot be read", (int)name.len, (const char *)name.ptr);
    lim__zone_free(z);
    return LIM_E_INVALID;
}

static lim__zone *zone_new(lim_bytes name, uint32_t changes)
{
    lim__zone *z = calloc(1, sizeof *z);
    if (z == NULL)
        return NULL;
    z->at = calloc(changes + 1, sizeof *z->at);
    z->offset = calloc(changes + 1, sizeof *z->offset);
    if (z->at == NULL || z->offset == NULL) {
        lim__zone_free(z);
        return NULL;
    }
    memcpy(z->name, name.ptr, name.len);
    return z;
}

lim_err lim__zone_parse(lim_bytes file, lim_bytes name, lim_diag *diag, lim__zone **out)
{
    const uint8_t *p = file.ptr, *end = p + file.len;
    counts c;
    LIM_ASSERT(name.len <= NAME_MAX_BYTES);
    if (!read_header(p, end, &c) || p[4] < '2') /* the first block is for readers of 32 bits */
        return broken(name, diag, NULL);
    size_t skip = HEADER + block_bytes(&c, 4);
    if ((size_t)(end - p) < skip || !read_header(p += skip, end, &c) ||
        (size_t)(end - p) < HEADER + block_bytes(&c, 8) + 2)
        return broken(name, diag, NULL);
    lim__zone *z = zone_new(name, c.changes);
    if (z == NULL)
        return LIM_E_NOMEM;
    if (!read_changes(z, p + HEADER, &c))
        return broken(name, diag, z);
    p += HEADER + block_bytes(&c, 8) + 1; /* the footer stands between two line ends */
    const uint8_t *stop = memchr(p, '\n', (size_t)(end - p));
    if (p[-1] != '\n' || stop == NULL || !read_rule(z, lim__bytes(p, (size_t)(stop - p))))
        return broken(name, diag, z);
    *out = z;
    return LIM_OK;
}

/* A path below the zone data that stays there. */
static bool name_ok(lim_bytes name)
{
    const char *p = name.ptr;
    if (name.len == 0 || name.len > NAME_MAX_BYTES || p[0] == '/')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        bool letter = ((p[i] | 32) >= 'a' && (p[i] | 32) <= 'z') || (p[i] >= '0' && p[i] <= '9');
        if (!letter && (p[i] == '\0' || strchr("_+-/", p[i]) == NULL))
            return false;
    }
    return true;
}

lim_err lim__zone_open(lim_bytes name, lim_diag *diag, lim__zone **out)
{
    char path[32 + NAME_MAX_BYTES];
    void *file = NULL;
    size_t len = 0;
    if (lim__bytes_eq(name, lim__str("UTC"))) { /* needs no file */
        *out = zone_new(name, 0);
        return *out != NULL ? LIM_OK : LIM_E_NOMEM;
    }
    int err = -1;
    if (name_ok(name)) {
        snprintf(path, sizeof path, "/usr/share/zoneinfo/%.*s", (int)name.len, (const char *)name.ptr);
        err = lim__file_read(path, FILE_MAX, &file, &len);
    }
    if (err != 0) {
        lim__diag_set(diag, 0, 0,
                      "there is no time zone %.*s on this machine; give a name such as Europe/Berlin, as in "
                      "/usr/share/zoneinfo (package tzdata)",
                      name.len < 64 ? (int)name.len : 64, (const char *)name.ptr);
        return LIM_E_INVALID;
    }
    lim_err parsed = lim__zone_parse(lim__bytes(file, len), name, diag, out);
    free(file);
    return parsed;
}

void lim__zone_free(lim__zone *z)
{
    if (z == NULL)
        return;
    free(z->at);
    free(z->offset);
    free(z);
}

lim_bytes lim__zone_name(const lim__zone *z)
{
    return lim__str(z->name);
}

/* ---- looking up ---- */

int32_t lim__zone_offset(const lim__zone *z, int64_t utc)
{
    uint32_t low = 0, high = z->count; /* changes before `low` have happened, those from `high` on have not */
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (z->at[mid] <= utc)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == z->count && z->has_rule)
        return rule_offset(z, utc);
    return low == 0 ? z->first : z->offset[low - 1];
}

int lim__zone_instants(const lim__zone *z, int64_t local, int64_t out[2])
{
    int32_t before = lim__zone_offset(z, local - DAY), after = lim__zone_offset(z, local + DAY);
    int found = 0;
    if (lim__zone_offset(z, local - before) == before)
        out[found++] = local - before;
    if (after != before && lim__zone_offset(z, local - after) == after)
        out[found++] = local - after;
    if (found == 0)
        out[0] = local - before;
    if (found == 2 && out[0] > out[1]) {
        int64_t first = out[1];
        out[1] = out[0];
        out[0] = first;
    }
    return found;
}

/* ---- instants as text ---- */

static uint32_t digits(reader *r, int count)
{
    uint32_t n = 0;
    for (int i = 0; i < count; i++, r->at++) {
        if (r->at == r->end || *r->at < '0' || *r->at > '9') {
            r->bad = true;
            return 0;
        }
        n = n * 10 + (uint32_t)(*r->at - '0');
    }
    return n;
}

static void expect(reader *r, char c)
{
    r->bad |= !next_is(r, c);
}

static lim__date read_date(reader *r)
{
    lim__date d = { .year = (int32_t)digits(r, 4) };
    expect(r, '-');
    d.month = (uint8_t)digits(r, 2);
    expect(r, '-');
    d.day = (uint8_t)digits(r, 2);
    if (!next_is(r, ' '))
        expect(r, 'T');
    d.hour = (uint8_t)digits(r, 2);
    expect(r, ':');
    d.minute = (uint8_t)digits(r, 2);
    if (next_is(r, ':'))
        d.second = (uint8_t)digits(r, 2);
    return d;
}

static uint64_t read_fraction(reader *r) /* in ns */
{
    uint64_t ns = 0, unit = 100000000;
    const char *from = r->at;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++, unit /= 10)
        ns += unit * (uint64_t)(*r->at - '0');
    r->bad |= r->at == from;
    return ns;
}

static bool date_ok(const lim__date *d)
{
    if (d->year < 1970 || d->month < 1 || d->month > 12 || d->day < 1 || d->hour > 23 || d->minute > 59 ||
        d->second > 59)
        return false;
    lim__date same = lim__date_of(lim__date_local(d)); /* there is no February 30 */
    return same.month == d->month && same.day == d->day;
}

lim_err lim__instant_parse(lim_bytes text, const lim__zone *z, lim_diag *diag, uint64_t *wall_ns)
{
    reader r = { text.ptr, (const char *)text.ptr + text.len, text.len == 0 };
    int64_t utc[2] = { 0, 0 };
    lim__date d = r.bad ? (lim__date){ 0 } : read_date(&r);
    uint64_t ns = !r.bad && next_is(&r, '.') ? read_fraction(&r) : 0;
    int64_t local = date_ok(&d) ? lim__date_local(&d) : -1;
    if (next_is(&r, 'Z')) {
        utc[0] = local;
    } else if (r.at < r.end && (*r.at == '+' || *r.at == '-')) {
        bool west = *r.at++ == '-';
        int64_t offset = digits(&r, 2) * 3600;
        expect(&r, ':');
        offset += digits(&r, 2) * 60;
        utc[0] = west ? local + offset : local - offset;
    } else {
        (void)lim__zone_instants(z, local, utc);
    }
    if (r.bad || r.at != r.end || local < 0 || utc[0] < 0 || utc[0] > INT64_C(9000000000)) {
        lim__diag_set(
            diag, 0, 0,
            "'%.*s' is no instant; write 2026-03-29T02:30:00, in the zone, or with Z or an offset such as +02:00",
            text.len < 60 ? (int)text.len : 60, text.len > 0 ? (const char *)text.ptr : "");
        return LIM_E_INVALID;
    }
    *wall_ns = (uint64_t)utc[0] * 1000000000 + ns;
    return LIM_OK;
}

void lim__instant_text(uint64_t wall_ns, const lim__zone *z, char out[LIM__INSTANT_TEXT])
{
    int64_t utc = (int64_t)(wall_ns / 1000000000);
    uint32_t ms = (uint32_t)(wall_ns / 1000000 % 1000);
    int32_t offset = lim__zone_offset(z, utc), minutes = abs(offset) / 60;
    lim__date d = lim__date_of(utc + offset);
    char fraction[8] = "", east[16] = "Z";
    if (ms != 0)
        snprintf(fraction, sizeof fraction, ".%03u", ms % 1000);
    if (offset != 0 || !lim__bytes_eq(lim__zone_name(z), lim__str("UTC")))
        snprintf(east, sizeof east, "%c%02d:%02d", offset < 0 ? '-' : '+', minutes / 60 % 100, minutes % 60);
    snprintf(out, LIM__INSTANT_TEXT, "%04d-%02u-%02uT%02u:%02u:%02u%s%s", (int)(d.year % 10000), d.month % 100u,
             d.day % 100u, d.hour % 100u, d.minute % 100u, d.second % 100u, fraction, east);
}
