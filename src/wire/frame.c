/* SPDX-License-Identifier: Apache-2.0
 * frame.c - the codec's colder half: UTF-8, lists, names of things, the text dump.
 *
 * Lists are decoded by walking them once over their encoded bytes; the view keeps those bytes, so iterating later
 * cannot fail and building is appending. The walk spends the frame's slack (frame.h, W1) as it goes, which is all the
 * bounds checking there is: a count that lies runs out of slack, it never sizes anything. */
#include "wire/frame.h"
#include "data/data.h"

#include <assert.h>
#include <liminal/actor.h>

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

static bool skip_key(lim__in *in)
{
    lim_bytes key;
    return --in->slack >= 0 && lim__in_name(in, &key, 0) && key.len > 0;
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

bool lim__in_lost(lim__in *in, lim__lost *v, uint8_t arg)
{
    (void)arg;
    v->count = lim__load16(in->p);
    v->ptr = in->p += 2;
    for (uint16_t i = 0; i < v->count; i++) {
        if (!skip_name(in) || (in->slack -= 16) < 0)
            return false;
        in->p += 16;
    }
    v->len = (uint32_t)(in->p - v->ptr);
    return true;
}

/* The view is the packed block itself, count in front; a list of none is no block, so that absent has one form. */
bool lim__in_headers(lim__in *in, lim_bytes *v)
{
    const uint8_t *block = in->p;
    uint16_t count = lim__load16(block);
    in->p += 2;
    for (uint16_t i = 0; i < count; i++) {
        if (!skip_key(in) || !skip_text(in))
            return false;
    }
    if (count > 0)
        *v = lim__bytes(block, (size_t)(in->p - block));
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

bool lim__names_next(lim__names *rest, lim_bytes *name)
{
    if (rest->count == 0)
        return false;
    uint32_t size = 1u + rest->ptr[0];
    LIM_CHECK(size <= rest->len);
    *name = lim__bytes(rest->ptr + 1, size - 1);
    rest->ptr += size;
    rest->len -= size;
    rest->count--;
    return true;
}

bool lim__lost_next(lim__lost *rest, lim__lost_one *one)
{
    if (rest->count == 0)
        return false;
    uint32_t len = rest->ptr[0], size = 1 + len + 16;
    LIM_CHECK(size <= rest->len);
    const uint8_t *numbers = rest->ptr + 1 + len;
    *one = (lim__lost_one){ lim__bytes(rest->ptr + 1, len), lim__load64(numbers), lim__load64(numbers + 8) };
    rest->ptr += size;
    rest->len -= size;
    rest->count--;
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

lim_err lim__lost_add(lim__buf *b, lim__lost *list, const lim__lost_one *one)
{
    lim_err err = lim__name_fault(one->name);
    if (err != LIM_OK)
        return err;
    size_t size = 1 + one->name.len + 16;
    uint8_t *p = lim__buf_reserve(b, size);
    if (p == NULL)
        return LIM_E_NOMEM;
    lim__store64(lim__store64(lim__out_name(p, &one->name), one->ago_us), one->rerouted_us);
    b->end += size;
    lim_bytes all = lim__buf_bytes(b);
    *list = (lim__lost){ (const uint8_t *)all.ptr, (uint32_t)all.len, (uint16_t)(list->count + 1) };
    return LIM_OK;
}

/* The count is found by walking: builders are cold, and a buffer needs no companion. */
lim__names lim__names_view(const lim__buf *b)
{
    lim_bytes all = lim__buf_bytes(b);
    lim__names v = { (const uint8_t *)all.ptr, (uint32_t)all.len, 0 };
    for (uint32_t at = 0; at < v.len; v.count++)
        at += 1u + v.ptr[at];
    return v;
}

/* Decoding is the judge: what this accepts is what a peer will. */
lim_err lim__headers_fault(lim_bytes block)
{
    lim__in in = { (const uint8_t *)block.ptr, (int64_t)block.len - 2, 0 };
    lim_bytes seen = { NULL, 0 };
    return in.slack >= 0 && lim__in_headers(&in, &seen) && in.slack == 0 ? LIM_OK : LIM_E_INVALID;
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

/* What the wire carries as a number is the public enum's number, for ever. */
static_assert(LIM_ACCEPT == 1 && LIM_DEFER == 2 && LIM_REJECT == 3, "verdict");
static_assert(LIM_HOLD_BACK == 1 && LIM_DROP_OLDEST == 2 && LIM_DROP_NEWEST == 3 && LIM_CLOSE_SUB == 4, "policy");
static_assert(LIM_CRASH_FAIL == 1 && LIM_CRASH_NEXT == 2 && LIM_CRASH_COMPENSATE == 3, "on_crash");
static_assert(LIM_HOW_REPLY == 1 && LIM_HOW_FAILED == 2 && LIM_HOW_REFUSED == 3 && LIM_HOW_CRASHED == 4 &&
                  LIM_HOW_TIMEOUT == 5 && LIM_HOW_CANCELLED == 6 && LIM_HOW_CLOSED == 7 && LIM_HOW_LOST == 8,
              "how");
static_assert(LIM_HANDED_NO == 1 && LIM_HANDED_YES == 2 && LIM_HANDED_UNKNOWN == 3, "handed_over");
static_assert(LIM_EVENT_JOINED == 1 && LIM_EVENT_LEFT == 2 && LIM_EVENT_CRASHED == 3 && LIM_EVENT_SIGNAL == 4 &&
                  LIM_EVENT_REFUSED == 5,
              "event");
static_assert(LIM_PHASE_ENDED == 4 && LIM_PHASE_BROKEN == 5, "phase");
static_assert(LIM_WHY_NO_SUBSCRIBER == 1 && LIM_WHY_QUEUE_FULL == 6 && LIM_WHY_BACKLOG_FULL == 12 &&
                  LIM_WHY_WORKERS_FULL == 15 && LIM_WHY_BAD_REQUEST == 17 && LIM_WHY_DUPLICATE == 21 &&
                  LIM_WHY_QUORUM == 25 && LIM_WHY_PURGED == 26,
              "why");
static_assert(LIM_E_NOMEM == 1 && LIM_E_TOOBIG == 8 && LIM_E_PROTOCOL == 15 && LIM_E_DENIED == 16, "code");
static_assert(LIM_NORMAL == 1 && LIM_LOST == 10 && LIM_DRAINED == 14, "reason");

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
static void dump_lost(lim__buf *out, const lim__lost *v)
{
    lim__lost rest = *v;
    lim__lost_one one;
    lim__buf_text(out, "[");
    for (const char *comma = ""; lim__lost_next(&rest, &one); comma = ",") {
        lim__buf_text(out, comma);
        dump_name(out, &one.name);
        lim__buf_format(out, "-%llu+%llu", (unsigned long long)one.ago_us, (unsigned long long)one.rerouted_us);
    }
    lim__buf_text(out, "]");
}
static void dump_opt_headers(lim__buf *out, const lim_bytes *v)
{
    lim_bytes key, value;
    size_t pos = 0;
    lim__buf_text(out, "{");
    for (const char *comma = ""; lim__packed_next(*v, &pos, &key, &value); comma = ",") {
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
