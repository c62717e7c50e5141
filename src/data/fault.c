/* SPDX-License-Identifier: Apache-2.0
 * fault.c - where and why a text is not JSON.
 *
 * simdjson finds that a text is wrong in a fraction of the time that it takes to say where. So the place is looked for
 * only after it said no, by this plain scanner: one function per production, the first that is not satisfied names
 * what it found and what could have stood there. It recurses at most LIM__JSON_DEPTH_MAX deep. */
#include "data/data.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct scan {
    const uint8_t *p, *start, *end;
    unsigned depth;
    const uint8_t *at; /* of the fault */
    char why[160];
} scan;

static bool fault(scan *s, const uint8_t *at, const char *why)
{
    s->at = at;
    snprintf(s->why, sizeof s->why, "%s", why);
    return false;
}

/* "expected X, found Y" at the current place. */
static bool expected(scan *s, const char *what)
{
    char why[160];
    if (s->p == s->end)
        snprintf(why, sizeof why, "expected %s, but the text ends here", what);
    else if (*s->p > 0x20 && *s->p < 0x7F)
        snprintf(why, sizeof why, "expected %s, found '%c'", what, *s->p);
    else
        snprintf(why, sizeof why, "expected %s, found byte 0x%02x", what, *s->p);
    return fault(s, s->p, why);
}

static bool is(const scan *s, char c)
{
    return s->p < s->end && *s->p == (uint8_t)c;
}

static bool is_digit(const scan *s)
{
    return s->p < s->end && *s->p >= '0' && *s->p <= '9';
}

static void blanks(scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

static bool hex4(scan *s, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, s->p++) {
        unsigned c = s->p < s->end ? *s->p : 0, low = c | 0x20;
        if (c >= '0' && c <= '9')
            *out = *out << 4 | (c - '0');
        else if (low >= 'a' && low <= 'f')
            *out = *out << 4 | (low - 'a' + 10);
        else
            return expected(s, "four hex digits after \\u");
    }
    return true;
}

static bool unicode_escape(scan *s, const uint8_t *from)
{
    unsigned high, low;
    if (!hex4(s, &high))
        return false;
    if (high >= 0xDC00 && high <= 0xDFFF)
        return fault(s, from, "second half of a surrogate pair without the first");
    if (high < 0xD800 || high > 0xDBFF)
        return true;
    if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
        return fault(s, from, "first half of a surrogate pair without the second");
    s->p += 2;
    if (!hex4(s, &low))
        return false;
    return (low >= 0xDC00 && low <= 0xDFFF) || fault(s, from, "first half of a surrogate pair without the second");
}

static bool escape(scan *s)
{
    const uint8_t *from = s->p++;
    if (s->p == s->end || strchr("\"\\/bfnrtu", *s->p) == NULL || *s->p == 0)
        return expected(s, "one of \" \\ / b f n r t u after a backslash");
    return *s->p++ != 'u' || unicode_escape(s, from);
}

/* Length of the UTF-8 sequence at p: 0 if it is none. */
static size_t utf8_len(const uint8_t *p, const uint8_t *end)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = *p < 0x80 ? 1 : *p < 0xC0 ? 0 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : *p < 0xF8 ? 4 : 0;
    if (n <= 1)
        return n;
    uint32_t code = *p & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((size_t)(end - p) <= i || (p[i] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3F);
    }
    return code < least[n] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF) ? 0 : n;
}

static bool text(scan *s)
{
    const uint8_t *from = s->p++;
    while (s->p < s->end && *s->p != '"') {
        if (*s->p < 0x20)
            return fault(s, s->p, "a control character in a text must be escaped");
        if (*s->p == '\\') {
            if (!escape(s))
                return false;
            continue;
        }
        size_t n = utf8_len(s->p, s->end);
        if (n == 0)
            return fault(s, s->p, "not UTF-8");
        s->p += n;
    }
    if (s->p == s->end)
        return fault(s, from, "this text has no closing quote");
    s->p++;
    return true;
}

static bool digits(scan *s, const char *what)
{
    if (!is_digit(s))
        return expected(s, what);
    while (is_digit(s))
        s->p++;
    return true;
}

static bool in_range(scan *s, const uint8_t *from, bool whole)
{
    char number[64];
    size_t n = (size_t)(s->p - from);
    if (whole) {
        if (n >= sizeof number)
            return fault(s, from, "this integer does not fit in 64 bits");
        memcpy(number, from, n);
        number[n] = 0;
        errno = 0;
        if (*from == '-')
            (void)strtoll(number, NULL, 10);
        else
            (void)strtoull(number, NULL, 10);
        return errno == 0 || fault(s, from, "this integer does not fit in 64 bits");
    }
    char *copy = malloc(n + 1);
    if (copy == NULL)
        return true;
    memcpy(copy, from, n);
    copy[n] = 0;
    double d = strtod(copy, NULL);
    free(copy);
    return !isinf(d) || fault(s, from, "this number is too large");
}

static bool number(scan *s)
{
    const uint8_t *from = s->p;
    bool whole = true;
    if (is(s, '-'))
        s->p++;
    if (is(s, '0')) {
        s->p++;
        if (is_digit(s))
            return fault(s, from, "a number may not start with 0");
    } else if (!digits(s, "a digit")) {
        return false;
    }
    if (is(s, '.')) {
        s->p++;
        whole = false;
        if (!digits(s, "a digit after the point"))
            return false;
    }
    if (is(s, 'e') || is(s, 'E')) {
        s->p++;
        whole = false;
        if (is(s, '+') || is(s, '-'))
            s->p++;
        if (!digits(s, "a digit in the exponent"))
            return false;
    }
    return in_range(s, from, whole);
}

static bool word(scan *s, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, text, n) != 0)
        return expected(s, "a value");
    s->p += n;
    return true;
}

static bool value(scan *s);

static bool member(scan *s)
{
    if (!is(s, '"'))
        return expected(s, "a member name in quotes");
    if (!text(s))
        return false;
    blanks(s);
    if (!is(s, ':'))
        return expected(s, "':' after a member name");
    s->p++;
    blanks(s);
    return value(s);
}

/* What stands between the brackets, at least one item. */
static bool items(scan *s, char close, bool (*item)(scan *))
{
    while (item(s)) {
        blanks(s);
        if (is(s, close))
            return true;
        if (!is(s, ','))
            return expected(s, close == ']' ? "',' or ']'" : "',' or '}'");
        s->p++;
        blanks(s);
        if (is(s, close))
            return expected(s, close == ']' ? "a value after ','" : "a member after ','");
    }
    return false;
}

static bool container(scan *s, char close, bool (*item)(scan *))
{
    const uint8_t *from = s->p++;
    blanks(s);
    if (!is(s, close)) { /* an empty one is no level, as for simdjson */
        if (++s->depth > LIM__JSON_DEPTH_MAX)
            return fault(s, from, "nested too deeply");
        if (!items(s, close, item))
            return false;
        s->depth--;
    }
    s->p++;
    return true;
}

static bool value(scan *s)
{
    switch (s->p < s->end ? *s->p : 0) {
    case '{':
        return container(s, '}', member);
    case '[':
        return container(s, ']', value);
    case '"':
        return text(s);
    case 't':
        return word(s, "true");
    case 'f':
        return word(s, "false");
    case 'n':
        return word(s, "null");
    default:
        return is(s, '-') || is_digit(s) ? number(s) : expected(s, "a value");
    }
}

static void place(const scan *s, int *line, int *column)
{
    *line = 1;
    *column = 1;
    for (const uint8_t *p = s->start; p < s->at; p++) {
        ++*column;
        if (*p == '\n') {
            ++*line;
            *column = 1;
        }
    }
}

bool lim__json_fault(lim_bytes json, lim_diag *diag)
{
    const uint8_t *start = json.len > 0 ? json.ptr : (const uint8_t *)"";
    scan s = { .p = start, .start = start, .end = start + json.len };
    blanks(&s);
    if (json.len >= 3 && memcmp(start, "\xEF\xBB\xBF", 3) == 0)
        fault(&s, start, "starts with a byte order mark");
    else if (s.p == s.end)
        fault(&s, s.p, "empty: there is no JSON value");
    else if (value(&s)) {
        blanks(&s);
        if (s.p == s.end)
            return false;
        expected(&s, "the end of the text");
    }
    int line, column;
    place(&s, &line, &column);
    lim__diag_set(diag, line, column, "line %d, column %d: %s", line, column, s.why);
    return true;
}
