/* SPDX-License-Identifier: Apache-2.0
 * buf.c - the growable buffer, and JSON written into it.
 *
 * Room is made by sliding the content to the front when at least half of the memory lies consumed, else by doubling:
 * every byte is moved a constant number of times on average. */
#include "base/buf.h"
#include "base/base.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAP_MIN = 256, KEEP_MAX = 64 * 1024 };

void lim__buf_fini(lim__buf *b)
{
    free(b->ptr);
    *b = (lim__buf){ 0 };
}

static void slide(lim__buf *b)
{
    size_t len = lim__buf_len(b);
    if (len > 0 && b->start > 0)
        memmove(b->ptr, b->ptr + b->start, len);
    b->start = 0;
    b->end = len;
}

static bool grow(lim__buf *b, size_t need)
{
    size_t cap = b->cap ? b->cap : CAP_MIN;
    while (cap < need) {
        if (cap > SIZE_MAX / 2)
            return false;
        cap *= 2;
    }
    uint8_t *ptr = realloc(b->ptr, cap);
    if (!ptr)
        return false;
    b->ptr = ptr;
    b->cap = cap;
    return true;
}

uint8_t *lim__buf_reserve(lim__buf *b, size_t n)
{
    if (b->ptr && b->cap - b->end >= n)
        return b->ptr + b->end;
    size_t len = lim__buf_len(b);
    if (n > SIZE_MAX - len) {
        b->failed = true;
        return NULL;
    }
    slide(b);
    /* Sliding alone is enough only if it frees half, or a nearly full buffer would be moved at every append. */
    bool half_free = b->ptr && len + n <= b->cap && len <= b->cap / 2;
    if (!half_free && !grow(b, len + n + (b->cap - len >= n && b->ptr ? b->cap / 2 : 0))) {
        b->failed = true;
        return NULL;
    }
    return b->ptr + b->end;
}

void lim__buf_add(lim__buf *b, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    uint8_t *to = lim__buf_reserve(b, n);
    if (!to)
        return;
    memcpy(to, bytes, n);
    b->end += n;
}

void lim__buf_text(lim__buf *b, const char *text)
{
    lim__buf_add(b, text, strlen(text));
}

void lim__buf_format(lim__buf *b, const char *format, ...)
{
    char small[256];
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, format, args);
    LIM_ASSERT(n >= 0);
    if ((size_t)n < sizeof small) {
        lim__buf_add(b, small, (size_t)n);
    } else {
        uint8_t *to = lim__buf_reserve(b, (size_t)n + 1); /* vsnprintf ends with a NUL that is not content */
        if (to) {
            vsnprintf((char *)to, (size_t)n + 1, format, again);
            b->end += (size_t)n;
        }
    }
    va_end(again);
    va_end(args);
}

void lim__buf_consume(lim__buf *b, size_t n)
{
    LIM_ASSERT(n <= lim__buf_len(b));
    b->start += n;
    if (b->start < b->end)
        return;
    b->start = b->end = 0;
    if (b->cap > KEEP_MAX) {
        free(b->ptr);
        b->ptr = NULL;
        b->cap = 0;
    }
}

/* ---- JSON ---- */

lim__json lim__json_begin(lim__buf *buf)
{
    return (lim__json){ .buf = buf };
}

static void quoted(lim__buf *b, lim_bytes text);

/* What stands before an item: a comma if it is not the first, its key if its container is an object. */
static void before_item(lim__json *j, const char *key)
{
    uint64_t bit = (uint64_t)1 << j->depth;
    if (j->has_item & bit)
        lim__buf_add(j->buf, ",", 1);
    j->has_item |= bit;
    LIM_ASSERT((key != NULL) == (j->depth > 0 && j->kind[j->depth] == '{'));
    if (key) {
        quoted(j->buf, lim__str(key));
        lim__buf_add(j->buf, ":", 1);
    }
}

void lim__json_open(lim__json *j, const char *key, char bracket)
{
    LIM_ASSERT(bracket == '{' || bracket == '[');
    LIM_ASSERT(j->depth < 63);
    before_item(j, key);
    j->depth++;
    j->kind[j->depth] = (uint8_t)bracket;
    j->has_item &= ~((uint64_t)1 << j->depth);
    lim__buf_add(j->buf, &bracket, 1);
}

void lim__json_close(lim__json *j)
{
    LIM_ASSERT(j->depth > 0);
    lim__buf_add(j->buf, j->kind[j->depth] == '{' ? "}" : "]", 1);
    j->depth--;
}

/* Length of the UTF-8 sequence at p, 0 if it is not one (overlong, surrogate, above U+10FFFF, cut short). */
static size_t utf8_len(const uint8_t *p, size_t left)
{
    uint8_t c = p[0], low = 0x80, high = 0xBF;
    size_t n = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (n <= 1 || n > left)
        return n <= 1 ? n : 0;
    if (c == 0xE0)
        low = 0xA0; /* below: overlong */
    else if (c == 0xED)
        high = 0x9F; /* above: surrogates */
    else if (c == 0xF0)
        low = 0x90;
    else if (c == 0xF4)
        high = 0x8F;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    return n;
}

bool lim__text_ok(lim_bytes text)
{
    const uint8_t *p = text.ptr;
    for (size_t i = 0, n; i < text.len; i += n)
        if ((n = utf8_len(p + i, text.len - i)) == 0)
            return false;
    return true;
}

static void escaped(lim__buf *b, uint8_t c)
{
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: the character, its letter */
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if ((uint8_t)shorts[i] == c) {
            char pair[2] = { '\\', shorts[i + 1] };
            lim__buf_add(b, pair, 2);
            return;
        }
    }
    lim__buf_format(b, "\\u%04x", c);
}

static bool plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static void quoted(lim__buf *b, lim_bytes text)
{
    const uint8_t *p = text.ptr;
    lim__buf_add(b, "\"", 1);
    for (size_t i = 0; i < text.len;) {
        size_t from = i;
        while (i < text.len && plain(p[i]))
            i++;
        lim__buf_add(b, p + from, i - from);
        if (i == text.len)
            break;
        size_t n = utf8_len(p + i, text.len - i);
        if (n == 1)
            escaped(b, p[i]);
        else if (n > 1)
            lim__buf_add(b, p + i, n);
        else
            lim__buf_add(b, "\xEF\xBF\xBD", 3);
        i += n > 0 ? n : 1;
    }
    lim__buf_add(b, "\"", 1);
}

void lim__json_bytes(lim__json *j, const char *key, lim_bytes text)
{
    before_item(j, key);
    quoted(j->buf, text);
}

void lim__json_str(lim__json *j, const char *key, const char *text)
{
    before_item(j, key);
    if (text)
        quoted(j->buf, lim__str(text));
    else
        lim__buf_text(j->buf, "null");
}

void lim__json_u64(lim__json *j, const char *key, uint64_t n)
{
    before_item(j, key);
    lim__buf_format(j->buf, "%llu", (unsigned long long)n);
}

void lim__json_i64(lim__json *j, const char *key, int64_t n)
{
    before_item(j, key);
    lim__buf_format(j->buf, "%lld", (long long)n);
}

/* The shortest of the three precisions that reads back as the same number. */
void lim__json_f64(lim__json *j, const char *key, double n)
{
    before_item(j, key);
    if (!isfinite(n)) { /* JSON has no word for them */
        lim__buf_text(j->buf, "null");
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, n);
        if (strtod(text, NULL) == n)
            break;
    }
    char *comma = strchr(text, ','); /* a host may have set a locale */
    if (comma)
        *comma = '.';
    lim__buf_text(j->buf, text);
}

void lim__json_bool(lim__json *j, const char *key, bool b)
{
    before_item(j, key);
    lim__buf_text(j->buf, b ? "true" : "false");
}

void lim__json_raw(lim__json *j, const char *key, lim_bytes json)
{
    before_item(j, key);
    lim__buf_add(j->buf, json.ptr, json.len);
}
