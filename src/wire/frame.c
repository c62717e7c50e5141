/* SPDX-License-Identifier: Apache-2.0
 * frame.c - the codec's colder half: UTF-8, lists, names of things, the text dump.
 *
 * Lists are decoded by walking them once over their encoded bytes; the view keeps those bytes, so iterating later
 * cannot fail and building is appending. The walk spends the frame's slack (frame.h, W1) as it goes, which is all the
 * bounds checking there is: a count that lies runs out of slack, it never sizes anything. */
#include "wire/frame.h"

#include <stdio.h>

/* ---- UTF-8 ---- */

/* Length of the character that begins at p, 0 if there is none: overlong forms, surrogates and numbers beyond
 * U+10FFFF are no characters. The second byte's range is what rules them out. */
static size_t char_len(const uint8_t *p, size_t n)
{
    uint8_t low = 0x80, high = 0xbf, c = p[0];
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len <= 1 || len > n)
        return len > n ? 0 : len;
    switch (c) {
    case 0xe0:
        low = 0xa0;
        break;
    case 0xed:
        high = 0x9f;
        break;
    case 0xf0:
        low = 0x90;
        break;
    case 0xf4:
        high = 0x8f;
        break;
    default:
        break;
    }
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

static size_t valid_prefix(const uint8_t *p, size_t n)
{
    size_t i = 0, len;
    while (i < n && (len = char_len(p + i, n - i)) > 0)
        i += len;
    return i;
}

bool lim__utf8_check(const uint8_t *p, size_t n)
{
    return valid_prefix(p, n) == n;
}

lim_bytes lim__utf8_clip(lim_bytes text, size_t max)
{
    size_t n = text.len < max ? text.len : max;
    return lim__bytes(text.ptr, n == 0 ? 0 : valid_prefix((const uint8_t *)text.ptr, n));
}

/* ---- lists: decoding ---- */

static bool skip_name(lim__in *in)
{
    lim_bytes name;
    return --in->slack >= 0 && lim__in_name(in, &name, 0);
}

static bool skip_text(lim__in *in)
{
    lim_bytes text;
    return (in->slack -= 2) >= 0 && lim__in_text(in, &text, 0);
}

bool lim__in_names(lim__in *in, lim__names *v, uint8_t arg)
{
    (void)arg;
    v->count = lim__load16(in->p);
    v->ptr = in->p += 2;
    for (uint16_t i = 0; i < v->count; i++) {
        if (!skip_name(in))
            return false;
    }
    v->len = (uint32_t)(in->p - v->ptr);
    return true;
}

bool lim__in_headers(lim__in *in, lim__headers *v)
{
    v->count = lim__load16(in->p);
    v->ptr = in->p += 2;
    for (uint16_t i = 0; i < v->count; i++) {
        if (!skip_name(in) || !skip_text(in))
            return false;
    }
    v->len = (uint32_t)(in->p - v->ptr);
    return true;
}

bool lim__in_blob(lim__in *in, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    uint32_t n = lim__load32(in->p);
    in->p += 4;
    return lim__in_bytes(in, v, n);
}

bool lim__in_opt_string(lim__in *in, lim_bytes *v, uint8_t arg)
{
    uint8_t tag = *in->p++;
    *v = (lim_bytes){ NULL, 0 };
    if (tag == 0)
        return true;
    return tag == 1 && (in->slack -= 4) >= 0 && lim__in_blob(in, v, arg) &&
           lim__utf8_ok((const uint8_t *)v->ptr, v->len);
}

/* ---- lists: iterating what was decoded or built ---- */

static lim_bytes take(const uint8_t **ptr, uint32_t *left, uint32_t length_bytes)
{
    const uint8_t *p = *ptr;
    uint32_t n = length_bytes == 1 ? p[0] : lim__load16(p);
    LIM_CHECK(length_bytes + n <= *left);
    *ptr += length_bytes + n;
    *left -= length_bytes + n;
    return lim__bytes(p + length_bytes, n);
}

bool lim__names_next(lim__names *rest, lim_bytes *name)
{
    if (rest->count == 0)
        return false;
    rest->count--;
    *name = take(&rest->ptr, &rest->len, 1);
    return true;
}

bool lim__headers_next(lim__headers *rest, lim_bytes *key, lim_bytes *value)
{
    if (rest->count == 0)
        return false;
    rest->count--;
    *key = take(&rest->ptr, &rest->len, 1);
    *value = take(&rest->ptr, &rest->len, 2);
    return true;
}

/* ---- lists: building ---- */

lim_err lim__name_fault(lim_bytes name)
{
    if (name.len > 255)
        return LIM_E_TOOBIG;
    return lim__utf8_ok((const uint8_t *)name.ptr, name.len) ? LIM_OK : LIM_E_INVALID;
}

lim_err lim__names_add(lim__buf *b, lim_bytes name)
{
    lim_err err = lim__name_fault(name);
    if (err != LIM_OK)
        return err;
    uint8_t *p = lim__buf_reserve(b, 1 + name.len);
    if (p == NULL)
        return LIM_E_NOMEM;
    lim__out_name(p, &name);
    b->end += 1 + name.len;
    return LIM_OK;
}

lim_err lim__headers_add(lim__buf *b, lim_bytes key, lim_bytes value)
{
    lim_err err = lim__name_fault(key);
    if (err == LIM_OK && value.len > UINT16_MAX)
        err = LIM_E_TOOBIG;
    if (err == LIM_OK && !lim__utf8_ok((const uint8_t *)value.ptr, value.len))
        err = LIM_E_INVALID;
    if (err != LIM_OK)
        return err;
    uint8_t *p = lim__buf_reserve(b, 3 + key.len + value.len);
    if (p == NULL)
        return LIM_E_NOMEM;
    lim__out_text(lim__out_name(p, &key), &value);
    b->end += 3 + key.len + value.len;
    return LIM_OK;
}

/* The count is found by walking: builders are cold, and a buffer needs no companion. */
lim__names lim__names_view(const lim__buf *b)
{
    lim_bytes all = lim__buf_bytes(b);
    lim__names v = { (const uint8_t *)all.ptr, (uint32_t)all.len, 0 };
    const uint8_t *p = v.ptr;
    for (uint32_t left = v.len; left > 0; v.count++)
        (void)take(&p, &left, 1);
    return v;
}

lim__headers lim__headers_view(const lim__buf *b)
{
    lim_bytes all = lim__buf_bytes(b);
    lim__headers v = { (const uint8_t *)all.ptr, (uint32_t)all.len, 0 };
    const uint8_t *p = v.ptr;
    for (uint32_t left = v.len; left > 0; v.count++) {
        (void)take(&p, &left, 1);
        (void)take(&p, &left, 2);
    }
    return v;
}

/* ---- names of things ---- */

const lim__frame_info lim__frame_infos[256] = {
#define F(id, NAME, name, sender, scope) [id] = { #NAME, LIM__SENDER_##sender, LIM__SCOPE_##scope },
    LIM__FRAME_MAP(F)
#undef F
#define F(id, NAME) [id] = { #NAME, LIM__SENDER_NONE, false },
        LIM__FRAME_OLD_MAP(F)
#undef F
};

const char *lim__frame_name(uint8_t type)
{
    return lim__frame_infos[type].name ? lim__frame_infos[type].name : "unknown";
}

const char *lim__why_text(uint8_t why)
{
    static const char *const texts[] = {
#define X(NAME, text) text,
        LIM__WHY_MAP(X)
#undef X
    };
    return why < LIM_COUNT(texts) ? texts[why] : "unknown";
}

/* ---- the dump ---- */

static void dump_number(lim__buf *out, uint64_t v)
{
    lim__buf_format(out, "%llu", (unsigned long long)v);
}
static void dump_u8(lim__buf *out, const uint8_t *v)
{
    dump_number(out, *v);
}
static void dump_u16(lim__buf *out, const uint16_t *v)
{
    dump_number(out, *v);
}
static void dump_u32(lim__buf *out, const uint32_t *v)
{
    dump_number(out, *v);
}
static void dump_u64(lim__buf *out, const uint64_t *v)
{
    dump_number(out, *v);
}
static void dump_pick(lim__buf *out, const uint8_t *v)
{
    dump_number(out, *v);
}
static void dump_pick0(lim__buf *out, const uint8_t *v)
{
    dump_number(out, *v);
}
static void dump_name(lim__buf *out, const lim_bytes *v) /* quoted, control characters as \xNN: one line stays one */
{
    const uint8_t *p = (const uint8_t *)v->ptr;
    lim__buf_text(out, "\"");
    for (size_t i = 0; i < v->len; i++) {
        if (p[i] < 0x20 || p[i] == 0x7f || p[i] == '"' || p[i] == '\\')
            lim__buf_format(out, "\\x%02x", p[i]);
        else
            lim__buf_add(out, p + i, 1);
    }
    lim__buf_text(out, "\"");
}
static void dump_text(lim__buf *out, const lim_bytes *v)
{
    dump_name(out, v);
}
static void dump_opt_name(lim__buf *out, const lim_bytes *v)
{
    dump_name(out, v);
}
static void dump_opt_string(lim__buf *out, const lim_bytes *v)
{
    dump_name(out, v);
}
static void dump_rest(lim__buf *out, const lim_bytes *v) /* its size: payloads are not for logs */
{
    dump_number(out, v->len);
}
static void dump_blob(lim__buf *out, const lim_bytes *v) /* likewise: it is a secret */
{
    dump_number(out, v->len);
}
static void dump_id16(lim__buf *out, const lim__c_id16 *v)
{
    for (size_t i = 0; i < sizeof v->bytes; i++)
        lim__buf_format(out, "%02x", v->bytes[i]);
}
static void dump_names(lim__buf *out, const lim__names *v)
{
    lim__names rest = *v;
    lim_bytes name;
    lim__buf_text(out, "[");
    for (const char *comma = ""; lim__names_next(&rest, &name); comma = ",") {
        lim__buf_text(out, comma);
        dump_name(out, &name);
    }
    lim__buf_text(out, "]");
}
static void dump_opt_headers(lim__buf *out, const lim__headers *v)
{
    lim__headers rest = *v;
    lim_bytes key, value;
    lim__buf_text(out, "{");
    for (const char *comma = ""; lim__headers_next(&rest, &key, &value); comma = ",") {
        lim__buf_text(out, comma);
        dump_name(out, &key);
        lim__buf_text(out, ":");
        dump_name(out, &value);
    }
    lim__buf_text(out, "}");
}

#define DUMP(kind, field, arg)                                                                                         \
    lim__buf_text(out, " " #field "=");                                                                                \
    dump_##kind(out, &f.field);
#define F(id, NAME, name, sender, scope)                                                                               \
    static void dump_frame_##name(const lim__frame *frame, lim__buf *out)                                              \
    {                                                                                                                  \
        lim__f_##name f;                                                                                               \
        if (!lim__get_##name(frame, &f)) {                                                                             \
            lim__buf_text(out, " malformed");                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        LIM__FIELDS_##name(DUMP)                                                                                       \
    }
LIM__FRAME_MAP(F)
#undef F

void lim__frame_dump(const lim__frame *frame, lim__buf *out)
{
    static void (*const dumps[256])(const lim__frame *, lim__buf *) = {
#define F(id, NAME, name, sender, scope) [id] = dump_frame_##name,
        LIM__FRAME_MAP(F)
#undef F
    };
    lim__buf_format(out, "%s stream=%u flags=%02x", lim__frame_name(frame->type), frame->stream, frame->flags);
    if (dumps[frame->type])
        dumps[frame->type](frame, out);
    else
        lim__buf_format(out, " type=%02x length=%u", frame->type, frame->len);
}
