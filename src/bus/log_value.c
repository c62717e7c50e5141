/* SPDX-License-Identifier: Apache-2.0
 * log_value.c - how durable channels are written down: rows of channels and receipts, and records of their streams.
 *
 *      record    u8 version 1 | u8 flags | u16 headers | u64 expires wall ns | key? | headers, packed | payload
 *                flags 1: `key?` is there: u8 length, the idempotency key
 *      channel   u8 version 1 | u64 stream | options            receipt   u8 version 1 | u64 touched | u64 seq | u64
 * wall
 *
 * Little-endian. Reading is total: whatever is not of this form is refused, never guessed at. */
#include "bus/log_inside.h"

#include <stdlib.h>

enum { RECORD_VERSION = 1, RECORD_KEYED = 1, ROW_VERSION = 1, RECEIPT_VERSION = 1 };

static void put_le(uint8_t *at, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

/* ---- records ---- */

size_t lim__log_record_head(uint8_t *at, const lim__log_message *m, uint64_t expires_wall_ns)
{
    lim_bytes key = m->idempotency_key;
    LIM_ASSERT(key.len <= LIM__LOG_KEY_MAX && m->headers.len <= UINT16_MAX);
    at[0] = RECORD_VERSION;
    at[1] = key.len > 0 ? RECORD_KEYED : 0;
    put_le(at + 2, m->headers.len, 2);
    put_le(at + 4, expires_wall_ns, 8);
    if (key.len == 0)
        return LIM__LOG_RECORD_HEAD;
    at[LIM__LOG_RECORD_HEAD] = (uint8_t)key.len;
    memcpy(at + LIM__LOG_RECORD_HEAD + 1, key.ptr, key.len);
    return LIM__LOG_RECORD_HEAD + 1 + key.len;
}

static lim_bytes take(lim__unpack *u, size_t n)
{
    if ((size_t)(u->end - u->at) < n) {
        u->bad = true;
        u->at = u->end;
        n = 0;
    }
    lim_bytes out = { u->at, n };
    u->at += n;
    return out;
}

bool lim__log_record_read(lim_bytes data, lim__log_record *out)
{
    lim__unpack u = lim__unpack_begin(data);
    if (lim__unpack_u8(&u) != RECORD_VERSION)
        return false;
    uint8_t flags = lim__unpack_u8(&u);
    size_t headers = lim__unpack_u16(&u);
    *out = (lim__log_record){ .expires_wall_ns = lim__unpack_u64(&u) };
    if (flags & RECORD_KEYED)
        out->idempotency_key = take(&u, lim__unpack_u8(&u));
    out->headers = take(&u, headers);
    if (u.bad || (flags & ~RECORD_KEYED) != 0)
        return false;
    out->payload = lim__bytes(u.at, (size_t)(u.end - u.at));
    return true;
}

lim__msg *lim__log_msg(lim_bytes key, const lim__log_record *r)
{
    static const char name[] = "$key";
    if (key.len == 0)
        return lim__msg_new_with(r->payload, r->headers);
    const uint8_t *old = r->headers.ptr;
    uint32_t count = r->headers.len >= 2 ? (uint32_t)old[0] << 8 | old[1] : 0;
    size_t rest = r->headers.len >= 2 ? r->headers.len - 2 : 0, head = 2 + 1 + 4 + 2 + key.len;
    uint8_t small[768], *at = head + rest <= sizeof small ? small : malloc(head + rest);
    if (at == NULL)
        return NULL;
    at[0] = (uint8_t)((count + 1) >> 8);
    at[1] = (uint8_t)(count + 1);
    at[2] = 4;
    memcpy(at + 3, name, 4);
    at[7] = (uint8_t)(key.len >> 8);
    at[8] = (uint8_t)key.len;
    memcpy(at + 9, key.ptr, key.len);
    if (rest > 0)
        memcpy(at + head, old + 2, rest);
    lim__msg *msg = lim__msg_new_with(r->payload, lim__bytes(at, head + rest));
    if (at != small)
        free(at);
    return msg;
}

lim_err lim__headers_keyed(lim__buf *out, lim_bytes key, lim_bytes headers)
{
    lim_bytes name, text;
    lim_err err = key.len > 0 ? lim__packed_add(out, lim__str("$key"), key) : LIM_OK;
    for (size_t pos = 0; err == LIM_OK && lim__packed_next(headers, &pos, &name, &text);)
        err = lim__packed_add(out, name, text);
    return err;
}

bool lim__log_decode(const lim__record *r, lim__logged *out)
{
    lim__log_record record;
    if (!lim__log_record_read(r->data, &record))
        return false;
    *out = (lim__logged){ r->seq, r->wall_ns, record.expires_wall_ns, lim__log_msg(r->key, &record) };
    return out->msg != NULL;
}

/* ---- options of a publish ---- */

static bool number(lim_bytes text, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    if (text.len == 0 || text.len > 20)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)((const uint8_t *)text.ptr)[i] - '0';
        if (digit > 9 || n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return n <= max;
}

static bool set_option(lim__log_message *m, lim_bytes key, lim_bytes text)
{
    static const uint64_t ms_max = 365ull * 24 * 3600 * 1000 * 100;
    uint64_t n = 0;
    if (lim__bytes_eq(key, lim__str("key"))) {
        m->key = text;
        return text.len > 0 && text.len <= LIM__LOG_KEY_MAX;
    }
    if (lim__bytes_eq(key, lim__str("idempotency_key"))) {
        m->idempotency_key = text;
        return text.len > 0 && text.len <= LIM__LOG_KEY_MAX;
    }
    if (lim__bytes_eq(key, lim__str("expect_last"))) {
        m->expect_last = true;
        return number(text, UINT64_MAX - 1, &m->last);
    }
    bool expires = lim__bytes_eq(key, lim__str("expires_ms"));
    if (!expires && !lim__bytes_eq(key, lim__str("delay_ms")))
        return false;
    if (!number(text, ms_max, &n))
        return false;
    *(expires ? &m->expires_ms : &m->delay_ms) = (int64_t)n;
    return true;
}

bool lim__log_message_options(lim_bytes options, lim__log_message *m)
{
    lim_bytes key, text;
    if (options.len > 0 && !lim__packed_valid(options))
        return false;
    for (size_t pos = 0; lim__packed_next(options, &pos, &key, &text);)
        if (!set_option(m, key, text))
            return false;
    return true;
}

/* ---- receipts ---- */

lim_bytes lim__log_receipt_write(uint8_t *at, uint64_t touched_ns, uint64_t due_ns)
{
    at[0] = RECEIPT_VERSION;
    put_le(at + 1, touched_ns, 8);
    put_le(at + 9, due_ns, 8);
    return lim__bytes(at, LIM__RECEIPT_BYTES - 16);
}

bool lim__log_receipt_read(lim_bytes value, lim__log_receipt *out)
{
    lim__unpack u = lim__unpack_begin(value);
    if (lim__unpack_u8(&u) != RECEIPT_VERSION)
        return false;
    out->touched_ns = lim__unpack_u64(&u);
    out->due_ns = lim__unpack_u64(&u);
    out->seq = lim__unpack_u64(&u);
    out->wall_ns = lim__unpack_u64(&u);
    if (out->touched_ns < out->wall_ns)
        out->touched_ns = out->wall_ns;
    return lim__unpack_end(&u);
}

/* ---- rows ---- */

void lim__log_row_write(lim__buf *b, uint64_t stream, const lim__log_opts *o)
{
    lim__pack_u8(b, ROW_VERSION);
    lim__pack_u64(b, stream);
    lim__pack_u64(b, o->age_ns);
    lim__pack_u64(b, o->bytes_max);
    lim__pack_u64(b, o->count_max);
    lim__pack_u64(b, o->window_ns);
    lim__pack_u32(b, o->window_keys);
    lim__pack_u64(b, o->window_bytes);
    lim__pack_u8(b, (uint8_t)o->overflow);
    lim__pack_u8(b, (uint8_t)o->sync);
    lim__pack_u8(b, (uint8_t)(o->latest | o->window_slides << 1 | o->window_forgets << 2));
    lim__pack_bytes(b, o->dead_letter != NULL ? lim__name_bytes(o->dead_letter) : lim__bytes("", 0));
}

lim_err lim__log_row_read(lim_bytes value, uint64_t *stream, lim__log_opts *o)
{
    lim__unpack u = lim__unpack_begin(value);
    if (lim__unpack_u8(&u) != ROW_VERSION)
        return LIM_E_INVALID;
    *stream = lim__unpack_u64(&u);
    *o = (lim__log_opts){ .age_ns = lim__unpack_u64(&u) };
    o->bytes_max = lim__unpack_u64(&u);
    o->count_max = lim__unpack_u64(&u);
    o->window_ns = lim__unpack_u64(&u);
    o->window_keys = lim__unpack_u32(&u);
    o->window_bytes = lim__unpack_u64(&u);
    o->overflow = (lim_overflow)lim__unpack_u8(&u);
    o->sync = (lim_sync)lim__unpack_u8(&u);
    uint8_t flags = lim__unpack_u8(&u);
    lim_bytes dead = lim__unpack_bytes(&u);
    o->latest = flags & 1;
    o->window_slides = flags & 2;
    o->window_forgets = flags & 4;
    if (!lim__unpack_end(&u) || flags > 7 || *stream == 0 || o->window_ns == 0 || o->window_keys == 0 ||
        o->window_bytes == 0 || o->overflow < LIM_OVERFLOW_DROP_OLDEST || o->overflow > LIM_OVERFLOW_DEAD_LETTER ||
        o->sync > LIM_SYNC_NEVER || (dead.len > 0 && !lim__channel_name_ok(dead)))
        return LIM_E_INVALID;
    if (dead.len == 0)
        return LIM_OK;
    o->dead_letter = lim__name_new(dead);
    return o->dead_letter != NULL ? LIM_OK : LIM_E_NOMEM;
}

/* ---- keys ---- */

lim_bytes lim__log_row_key(uint8_t *at, uint64_t stream, lim_bytes rest)
{
    size_t len = lim__key_u64(at, stream);
    LIM_ASSERT(rest.len <= LIM__LOG_KEY_MAX);
    if (rest.len > 0)
        memcpy(at + len, rest.ptr, rest.len);
    return lim__bytes(at, len + rest.len);
}

lim_bytes lim__log_due_key(uint8_t *at, uint64_t stream, uint64_t due_ns, uint64_t number)
{
    size_t len = lim__key_u64(at, stream);
    len += lim__key_u64(at + len, due_ns);
    len += lim__key_u64(at + len, number);
    return lim__bytes(at, len);
}
