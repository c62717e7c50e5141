/* SPDX-License-Identifier: Apache-2.0
 * lua_fields.c - the members of a short, plain JSON object, found in one walk over its text.
 *
 * Most messages that are routed are short, and most functions look at one or two of their fields. Then making a
 * document (data/json.cc) costs more than all the rest of the call. This reads what is simple and says so; at the first
 * thing that is not, it gives up and the document is made: a text with an escape or with anything but ASCII, a number
 * with an exponent or more digits than are exact, more members, bytes or levels than there is room for, and every
 * fault.
 *
 * So it never decides that something is no JSON, and what it takes reads exactly as the document would: lua_fields_test
 * compares the two. The text's last character has to be a brace, and `end` is where that stands: nothing but a text
 * goes beyond a brace, so that only those look how far they may. */
#include "route/lua_fields.h"

enum { LEVELS_MAX = 8, DIGITS_MAX = 18, EXACT_DIGITS_MAX = 15, WORD = 8 };

/* Each takes the place where a value, or something of one, begins, and answers where it ends; NULL: not plain. */

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const char *skip_space(const char *p)
{
    while (is_space(*p))
        p++;
    return p;
}

/* In each byte of `x` that is `c`, the highest bit; above the lowest such byte there may be others. */
static uint64_t bytes_equal(uint64_t x, char c)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t y = x ^ (ones * (unsigned char)c);
    return (y - ones) & ~y & high;
}

/* From behind the opening quote to the closing one. */
static const char *text_end(const char *p, const char *end)
{
    const uint64_t spaces = 0x2020202020202020u, high = 0x8080808080808080u;
    for (; end - p >= WORD; p += WORD) {
        uint64_t x;
        memcpy(&x, p, sizeof x);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        x = __builtin_bswap64(x);
#endif
        uint64_t stops = bytes_equal(x, '"') | bytes_equal(x, '\\') | ((x - spaces) & ~x & high) | (x & high);
        if (stops == 0)
            continue;
        p += __builtin_ctzll(stops) / 8;
        return *p == '"' ? p : NULL;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80)
        p++;
    return p < end && *p == '"' ? p : NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits before and behind the point make one whole number that a double holds exactly, and so is the power of ten: the
 * quotient is the double that is nearest to what was written. */
static const char *read_number(const char *p, struct lim__lua_field *f)
{
    bool negative = *p == '-';
    const char *first = p + negative, *end;
    int64_t sum = 0;
    for (end = first; is_digit(*end) && end - first < DIGITS_MAX; end++)
        sum = sum * 10 + (*end - '0');
    if (end == first || is_digit(*end) || (*first == '0' && end - first > 1))
        return NULL;
    if (*end != '.') {
        f->kind = LIM__INT;
        f->i = negative ? -sum : sum;
        return *end == 'e' || *end == 'E' ? NULL : end;
    }
    const char *point = end++;
    if (point - first > EXACT_DIGITS_MAX)
        return NULL;
    while (is_digit(*end) && end - first <= EXACT_DIGITS_MAX + 1)
        sum = sum * 10 + (*end++ - '0');
    if (end - first > EXACT_DIGITS_MAX + 1 || end == point + 1 || *end == 'e' || *end == 'E' || sum == 0)
        return NULL;
    f->kind = LIM__DOUBLE;
    f->i = negative ? -sum : sum;
    f->len = (uint16_t)(end - point - 1);
    return end;
}

static const char *read_word(const char *p, const char *end, const char *word, ptrdiff_t len)
{
    return end - p >= len && memcmp(p, word, (size_t)len) == 0 ? p + len : NULL;
}

/* The text that is read: [begin, end], end being its last brace. */
typedef struct span {
    const char *begin, *end;
} span;

static const char *read_value(const span *s, const char *p, struct lim__lua_field *f, int levels);

/* Behind the bracket at p that closes something; the last one closes the whole object. */
static const char *behind(const span *s, const char *p)
{
    return p == s->end ? NULL : p + 1;
}

/* The items of an array or object, from behind its bracket. Nothing of them is kept. */
static const char *skip_items(const span *s, const char *p, char close, int levels)
{
    struct lim__lua_field ignored;
    p = skip_space(p);
    if (*p == close)
        return behind(s, p);
    while (levels > 0) {
        if (close == '}') {
            if (*p != '"' || (p = text_end(p + 1, s->end)) == NULL)
                return NULL;
            p = skip_space(p + 1);
            if (*p++ != ':')
                return NULL;
            p = skip_space(p);
        }
        if ((p = read_value(s, p, &ignored, levels - 1)) == NULL)
            return NULL;
        p = skip_space(p);
        if (*p == close)
            return behind(s, p);
        if (*p++ != ',')
            return NULL;
        p = skip_space(p);
    }
    return NULL;
}

static const char *read_text(const span *s, const char *p, struct lim__lua_field *f)
{
    const char *close = text_end(p + 1, s->end);
    if (close == NULL)
        return NULL;
    f->kind = LIM__TEXT;
    f->at = (uint16_t)(p + 1 - s->begin);
    f->len = (uint16_t)(close - p - 1);
    return close + 1;
}

static const char *read_value(const span *s, const char *p, struct lim__lua_field *f, int levels)
{
    switch (*p) {
    case '"':
        return read_text(s, p, f);
    case '{':
        f->kind = LIM__OBJECT;
        return skip_items(s, p + 1, '}', levels);
    case '[':
        f->kind = LIM__ARRAY;
        return skip_items(s, p + 1, ']', levels);
    case 't':
        f->kind = LIM__BOOL;
        f->truth = true;
        return read_word(p, s->end, "true", 4);
    case 'f':
        f->kind = LIM__BOOL;
        f->truth = false;
        return read_word(p, s->end, "false", 5);
    case 'n':
        f->kind = LIM__NULL;
        return read_word(p, s->end, "null", 4);
    default:
        return read_number(p, f);
    }
}

/* One member: the key, and behind it the value. */
static const char *read_member(lim__lua_fields *fields, const span *s, const char *p)
{
    struct lim__lua_field *f = &fields->items[fields->count];
    if (*p != '"' || fields->count == FIELDS__COUNT_MAX)
        return NULL;
    const char *close = text_end(p + 1, s->end);
    if (close == NULL)
        return NULL;
    f->key = (uint16_t)(p + 1 - s->begin);
    f->key_len = (uint16_t)(close - p - 1);
    p = skip_space(close + 1);
    if (*p != ':')
        return NULL;
    fields->count++;
    return read_value(s, skip_space(p + 1), f, LEVELS_MAX);
}

static bool read_object(lim__lua_fields *fields, const span *s, const char *p)
{
    if (*p != '{')
        return false;
    p = skip_space(p + 1);
    if (*p == '}')
        return p == s->end;
    for (;;) {
        p = read_member(fields, s, p);
        if (p == NULL)
            return false;
        p = skip_space(p);
        if (*p == '}')
            return p == s->end;
        if (*p != ',')
            return false;
        p = skip_space(p + 1);
    }
}

bool lim__lua_fields_read(lim__lua_fields *fields, lim_bytes json)
{
    fields->count = 0;
    if (json.len < 2 || json.len > FIELDS__BYTES_MAX)
        return false;
    span s = { json.ptr, (const char *)json.ptr + json.len - 1 };
    while (s.end > s.begin && is_space(*s.end))
        s.end--;
    return *s.end == '}' && read_object(fields, &s, skip_space(s.begin));
}

double lim__lua_field_double(const struct lim__lua_field *f)
{
    static const double tens[] = { 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15 };
    LIM_ASSERT(f->kind == LIM__DOUBLE && f->len < LIM_COUNT(tens));
    return (double)f->i / tens[f->len];
}

const struct lim__lua_field *lim__lua_fields_get(const lim__lua_fields *fields, lim_bytes json, lim_bytes key)
{
    for (uint32_t i = fields->count; i-- > 0;) {
        const struct lim__lua_field *f = &fields->items[i];
        if (f->key_len == key.len && memcmp((const char *)json.ptr + f->key, key.ptr, key.len) == 0)
            return f;
    }
    return NULL;
}
