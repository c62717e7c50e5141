/* SPDX-License-Identifier: Apache-2.0
 * words.c - what the words of a command line mean: durations, numbers, sizes.
 *
 * A duration without a unit is refused rather than guessed: 5 has been seconds in one tool and milliseconds in the next
 * often enough. Nothing here allocates or prints. */
#include "cli/cli.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Digits only, no sign; the rest of the text is at *end. */
static bool digits(const char *text, uint64_t max, uint64_t *out, const char **end)
{
    uint64_t n = 0;
    const char *p = text;
    for (; isdigit((unsigned char)*p); p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    *end = p;
    return p != text;
}

static int64_t unit_us(const char *unit)
{
    static const struct {
        const char *name;
        int64_t us;
    } units[] = { { "us", 1 },
                  { "ms", 1000 },
                  { "s", 1000000 },
                  { "m", 60 * INT64_C(1000000) },
                  { "h", 3600 * INT64_C(1000000) },
                  { "d", 86400 * INT64_C(1000000) } };
    for (size_t i = 0; i < LIM_COUNT(units); i++) {
        if (strcmp(unit, units[i].name) == 0)
            return units[i].us;
    }
    return 0;
}

bool cli_duration(const char *text, int64_t *us, const char **why)
{
    if (strcmp(text, "forever") == 0) {
        *us = LIM_FOREVER;
        return true;
    }
    uint64_t n;
    const char *unit;
    if (!digits(text, INT64_MAX, &n, &unit)) {
        *why = "not a duration; write 250ms, 2s, 5m or forever";
        return false;
    }
    if (*unit == 0) {
        *why = "a bare number could be seconds or milliseconds; write 250ms, 2s or 5m";
        return false;
    }
    int64_t one = unit_us(unit);
    bool fits = one > 0 && n <= (uint64_t)(INT64_MAX / one);
    *us = fits ? (int64_t)n * one : 0;
    if (*us > 0)
        return true;
    *why = n == 0    ? "zero leaves no time at all; write 250ms, 2s, 5m or forever"
           : one > 0 ? "more than there is; write forever"
                     : "not a unit of time; write us, ms, s, m, h or d";
    return false;
}

bool cli_number(const char *text, uint32_t *out, const char **why)
{
    uint64_t n;
    const char *end;
    *why = "not a whole number from 1 to 4294967294; write one, without unit or sign";
    if (!digits(text, LIM_UNLIMITED - 1, &n, &end) || *end || n == 0)
        return false;
    *out = (uint32_t)n;
    return true;
}

bool cli_size(const char *text, uint32_t *out, const char **why)
{
    uint64_t n;
    const char *unit;
    *why = "not a size; write bytes, or 64KiB, 1MiB (below 4 GiB)";
    if (!digits(text, UINT32_MAX, &n, &unit))
        return false;
    if (strcmp(unit, "KiB") == 0)
        n <<= 10;
    else if (strcmp(unit, "MiB") == 0)
        n <<= 20;
    else if (*unit && strcmp(unit, "B") != 0)
        return false;
    if (n == 0 || n > UINT32_MAX)
        return false;
    *out = (uint32_t)n;
    return true;
}

bool cli_bytes(const char *text, uint64_t *out, const char **why)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    uint64_t n;
    const char *unit;
    *why = "not a size; write bytes, or 64KiB, 1MiB, 10GiB, 2TiB";
    if (!digits(text, UINT64_MAX >> 1, &n, &unit) || n == 0)
        return false;
    for (size_t i = 0; i < LIM_COUNT(units); i++) {
        if (*unit && strcmp(unit, units[i]) != 0)
            continue;
        *out = n << (*unit ? 10 * i : 0);
        return *out >> (*unit ? 10 * i : 0) == n && *out <= UINT64_MAX >> 1;
    }
    return false;
}

bool cli_seq(const char *text, uint64_t *out)
{
    const char *rest;
    return digits(text, UINT64_MAX - 1, out, &rest) && *rest == 0;
}

/* Bytes of the UTF-8 character at p, 0 if it is none: shortest form, no surrogates, up to U+10FFFF. */
static size_t character(const uint8_t *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    size_t len = p[0] >= 0xC2 && p[0] <= 0xDF ? 2 : (p[0] & 0xF0) == 0xE0 ? 3 : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4 : 0;
    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    bool bad = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
               (p[0] == 0xF4 && p[1] > 0x8F);
    return bad ? 0 : len;
}

/* "Z", "+01:00": seconds east of Greenwich. */
static bool zone(const char *text, long *east)
{
    unsigned hours, minutes;
    char sign, end;
    *east = 0;
    if (strcmp(text, "Z") == 0)
        return true;
    if (sscanf(text, "%c%2u:%2u%c", &sign, &hours, &minutes, &end) != 3 || (sign != '+' && sign != '-') || hours > 14 ||
        minutes > 59)
        return false;
    *east = (long)(hours * 3600 + minutes * 60) * (sign == '-' ? -1 : 1);
    return true;
}

bool cli_time(const char *text, int64_t *us)
{
    static const char *const formats[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M",
                                           "%Y-%m-%d %H:%M" };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct tm tm = { .tm_isdst = -1 };
        long east;
        const char *rest = strptime(text, formats[i], &tm);
        if (!rest || (*rest && !zone(rest, &east)))
            continue;
        time_t at = *rest ? timegm(&tm) - east : mktime(&tm);
        *us = (int64_t)at * 1000000;
        return at >= 0;
    }
    return false;
}

bool cli_utf8(lim_bytes text)
{
    const uint8_t *p = text.ptr;
    for (size_t at = 0, len; at < text.len; at += len) {
        len = character(p + at, text.len - at);
        if (len == 0)
            return false;
    }
    return true;
}

bool cli_id(const char *text, uint64_t *out)
{
    size_t len = strspn(text, "0123456789abcdef");
    *out = len > 0 && len <= 16 && text[len] == 0 ? strtoull(text, NULL, 16) : 0;
    return *out != 0;
}

lim_bytes cli_trim(lim_bytes text)
{
    const char *p = text.ptr;
    size_t from = 0, to = text.len;
    while (from < to && isspace((unsigned char)p[from]))
        from++;
    while (to > from && isspace((unsigned char)p[to - 1]))
        to--;
    return lim__bytes(p + from, to - from);
}
