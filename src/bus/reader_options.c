/* SPDX-License-Identifier: Apache-2.0
 * reader_options.c - how a subscription wants to read, as it was sent: one name, one place that checks. */
#include "base/base.h"
#include "bus/reader.h"
#include "data/data.h"

static bool number(lim_bytes text, uint64_t *out)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t digit = (uint8_t)(((const uint8_t *)text.ptr)[i] - '0');
        if (digit > 9 || n > (UINT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return text.len > 0;
}

static bool begins(lim_bytes text, const char *with, lim_bytes *rest)
{
    size_t len = strlen(with);
    if (text.len < len || memcmp(text.ptr, with, len) != 0)
        return false;
    *rest = lim__bytes((const char *)text.ptr + len, text.len - len);
    return true;
}

lim_err lim__read_from(lim_bytes text, lim_read_opts *out)
{
    lim_bytes rest;
    if (lim__bytes_eq(text, lim__str("all")))
        out->from = LIM_FROM_ALL;
    else if (lim__bytes_eq(text, lim__str("new")))
        out->from = LIM_FROM_NEW;
    else if (begins(text, "seq:", &rest) && number(rest, &out->start))
        out->from = LIM_FROM_SEQ;
    else if (begins(text, "time:", &rest) && number(rest, &out->start))
        out->from = LIM_FROM_TIME;
    else
        return LIM_E_INVALID;
    return LIM_OK;
}

static bool copied(lim_bytes text, char *to, size_t size, const char **at)
{
    if (text.len == 0 || text.len >= size || memchr(text.ptr, 0, text.len) != NULL)
        return false;
    memcpy(to, text.ptr, text.len);
    to[text.len] = '\0';
    *at = to;
    return true;
}

static bool flag(lim_bytes text, bool *out)
{
    *out = lim__bytes_eq(text, lim__str("1"));
    return *out;
}

static bool take(lim__read_options *o, lim_bytes key, lim_bytes text)
{
    uint64_t n = 0;
    if (lim__bytes_eq(key, lim__str("from")))
        return lim__read_from(text, &o->read) == LIM_OK;
    if (lim__bytes_eq(key, lim__str("cursor")))
        return copied(text, o->cursor, sizeof o->cursor, &o->read.cursor);
    if (lim__bytes_eq(key, lim__str("dead_letter")))
        return copied(text, o->dead_letter, sizeof o->dead_letter, &o->read.dead_letter);
    if (lim__bytes_eq(key, lim__str("shared")))
        return flag(text, &o->read.shared);
    if (lim__bytes_eq(key, lim__str("standby")))
        return flag(text, &o->read.standby);
    if (lim__bytes_eq(key, lim__str("last_per_key")))
        return flag(text, &o->read.last_per_key);
    if (lim__bytes_eq(key, lim__str("pull")))
        return flag(text, &o->pull);
    if (lim__bytes_eq(key, lim__str("ack_ms")) && number(text, &n) && n > 0) {
        o->read.ack_ms = n > INT64_MAX ? LIM_FOREVER : (int64_t)n;
        return true;
    }
    if (lim__bytes_eq(key, lim__str("deliveries_max")) && number(text, &n) && n > 0 && n <= UINT32_MAX) {
        o->read.deliveries_max = (uint32_t)n;
        return true;
    }
    return false;
}

lim_err lim__read_options_parse(lim_bytes block, lim_diag *diag, lim__read_options *out)
{
    lim_bytes key, text;
    size_t pos = 0;
    *out = (lim__read_options){ .pull = false };
    if (block.len > 0 && !lim__packed_valid(block)) {
        lim__diag_set(diag, 0, 0, "the options are no block of headers");
        return LIM_E_INVALID;
    }
    while (lim__packed_next(block, &pos, &key, &text)) {
        if (take(out, key, text))
            continue;
        lim__diag_set(diag, 0, 0,
                      "option %.*s=%.*s; it is one of: from (all, new, seq:N, time:MICROSECONDS), cursor, shared=1, "
                      "standby=1, ack_ms, deliveries_max, dead_letter, last_per_key=1, pull=1",
                      (int)(key.len < 40 ? key.len : 40), (const char *)key.ptr, (int)(text.len < 40 ? text.len : 40),
                      (const char *)text.ptr);
        return LIM_E_INVALID;
    }
    return LIM_OK;
}
