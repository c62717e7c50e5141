/* SPDX-License-Identifier: Apache-2.0
 * frame.h - the codec: payload bytes to structs of views, structs to bytes. Generated from frame_map.h.
 *
 *      0      1       2          6          10
 *      | type | flags | stream   | length   | payload, `length` bytes          all integers big-endian
 *
 * Per frame `x`:   lim__f_x                     struct; names, texts and payload are views into the input
 *                  bool lim__get_x(&frame, &f)  false: malformed (see lim__wire_malformed)
 *                  lim_err lim__put_x(out, &f)  appends the whole frame, header included: one reserve, then writes
 *
 * Decoding checks lengths once. A frame has a least size: that of its fixed fields plus the length bytes of the
 * variable ones. What the payload has beyond it is `slack`, and only variable fields may spend it:
 *
 *   W1  bytes left == slack + least size of the fields still to come.
 *
 * So a fixed field needs no check, a variable one needs one, and a frame ends well exactly when slack is 0. Lengths on
 * the wire are only ever compared with slack; nothing is allocated.
 *
 * put: INVALID (a name that is not UTF-8, headers that are no packed block of UTF-8), TOOBIG (a name over 255 bytes,
 * a frame over 4 GiB), NOMEM (also marks out->failed). After an error nothing was appended. A lim__names must come from
 * a decoder or from the builder below. Fields absent from the wire (flag not set) decode as empty; put sets those flags
 * by itself, from whether the field is empty; all other flags are the caller's. Any thread: nothing here has state. */
#ifndef LIM__FRAME_H
#define LIM__FRAME_H

#include "base/base.h"
#include "base/buf.h"
#include "wire/frame_map.h"
#include <liminal/liminal.h>

#define LIM__HEADER_SIZE 10u

/* Flags of frames (the header's `flags`). */
#define LIM__FLAG_HEADERS   0x01u /* PUBLISH, DELIVER, ASK, REQUEST, DISPATCH: set by put */
#define LIM__FLAG_CHANNEL   0x02u /* DELIVER: names its channel (the pattern is not the channel); set by put */
#define LIM__FLAG_MANDATORY 0x04u /* PUBLISH: reject if nobody is subscribed */
#define LIM__FLAG_OPTIONS   0x08u /* ASK, DISPATCH, OPEN, JOIN: what is wanted beside the usual; set by put */
#define LIM__FLAG_READS     0x02u /* SUBSCRIBED: it reads a log */
#define LIM__FLAG_WAIT      0x02u /* ASK: wait for a participant to appear */
#define LIM__FLAG_TAKEN     0x02u /* REQUEST: answer TAKEN when you begin, and wait for SETTLED after REPLY */
#define LIM__FLAG_NO_REPLY  0x04u /* REQUEST: nobody waits for a reply */
#define LIM__FLAG_OUTCOME   0x02u /* DISPATCH: send OUTCOME when the task has ended */

#define LIM__NO_TIMEOUT UINT32_MAX /* timeout_ms, remaining_ms */

typedef enum lim__frame_type {
#define F(id, NAME, name, sender, scope) LIM__##NAME = id,
    LIM__FRAME_MAP(F)
#undef F
#define F(id, NAME) LIM__##NAME = id,
    LIM__FRAME_OLD_MAP(F)
#undef F
} lim__frame_type;

/* The closed sets of pick fields. Verdict, why, policy, on_crash, how, handed_over, event and phase carry the numbers of
 * lim_verdict, lim_why, lim_policy, lim_crash, lim_how, lim_handed, lim_event and lim_phase (liminal.h). */
enum { LIM__REPLY_REPLY = 1, LIM__REPLY_FAILED, LIM__REPLY_NOTHING /* done: frees the place, answers nobody */ };
enum { LIM__SERVE_GROUP = 1, LIM__SERVE_QUEUE };
enum { LIM__REVOKED_CANCELLED = 1, LIM__REVOKED_TIMED_OUT, LIM__REVOKED_TAKEN_BY_ANOTHER, LIM__REVOKED_ENDED };

/* ---- a frame as it came ---- */
typedef struct lim__frame { /* VIEW into the input */
    uint8_t type, flags;
    uint32_t stream, len;
    const uint8_t *payload;
} lim__frame;

/* ---- lists of names ---- copy the view, then call next until false */
typedef struct lim__names {
    const uint8_t *ptr;
    uint32_t len; /* bytes, without the count */
    uint16_t count;
} lim__names;
bool lim__names_next(lim__names *rest, lim_bytes *name);
/* Building: add each to an empty buffer, then view it; the buffer must outlive the put. INVALID, TOOBIG, NOMEM. */
lim_err lim__names_add(lim__buf *b, lim_bytes name);
lim__names lim__names_view(const lim__buf *b);

/* ---- lists of those who died ---- likewise; of each also how long ago that was seen, and how long it took until the next
 * one had its request, in microseconds (0: nobody has) */
typedef struct lim__lost {
    const uint8_t *ptr;
    uint32_t len;
    uint16_t count;
} lim__lost;
typedef struct lim__lost_one {
    lim_bytes name;
    uint64_t ago_us, rerouted_us;
} lim__lost_one;
bool lim__lost_next(lim__lost *rest, lim__lost_one *one);
lim_err lim__lost_add(lim__buf *b, lim__lost *list, const lim__lost_one *one); /* list: zeroed, then what is in the buffer */

/* ---- UTF-8 ---- */
bool lim__utf8_check(const uint8_t *p, size_t n);
/* The longest prefix of at most max bytes that is valid UTF-8. */
lim_bytes lim__utf8_clip(lim_bytes text, size_t max);
/* ASCII, the usual case, is seen in a few overlapping loads; only other text is looked at character by character. */
static inline bool lim__utf8_ok(const uint8_t *p, size_t n)
{
    uint64_t seen = 0, word = 0;
    uint32_t first, last;
    if (n >= 8) {
        for (size_t i = 0; i + 8 <= n; i += 8) {
            memcpy(&word, p + i, 8);
            seen |= word;
        }
        memcpy(&word, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        seen = first | last;
    } else if (n > 0) {
        seen = p[0] | p[n / 2] | p[n - 1];
    }
    return ((seen | word) & 0x8080808080808080u) == 0 || lim__utf8_check(p, n);
}

/* ---- integers ---- */
static inline uint16_t lim__load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}
static inline uint32_t lim__load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
static inline uint64_t lim__load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}
static inline uint8_t *lim__store16(uint8_t *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
    return p + 2;
}
static inline uint8_t *lim__store32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
    return p + 4;
}
static inline uint8_t *lim__store64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
    return p + 8;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "load and store swap bytes");

/* ---- the kinds: C type and least size ---- */
typedef uint8_t lim__c_u8;
typedef uint16_t lim__c_u16;
typedef uint32_t lim__c_u32;
typedef uint64_t lim__c_u64;
typedef uint8_t lim__c_pick;
typedef uint8_t lim__c_pick0;
typedef lim_bytes lim__c_name;
typedef lim_bytes lim__c_text;
typedef lim__names lim__c_names;
typedef lim__lost lim__c_lost;
typedef struct lim__id16 {
    uint8_t bytes[16];
} lim__c_id16;
typedef lim_bytes lim__c_rest;
typedef lim_bytes lim__c_opt_name;
typedef lim_bytes lim__c_opt_headers; /* packed (data.h): lim__packed_next, lim__packed_add */
typedef lim_bytes lim__c_blob;
typedef lim_bytes lim__c_opt_string; /* absent: ptr NULL */

enum {
    LIM__LEAST_u8 = 1, LIM__LEAST_u16 = 2, LIM__LEAST_u32 = 4, LIM__LEAST_u64 = 8, LIM__LEAST_pick = 1,
    LIM__LEAST_pick0 = 1, LIM__LEAST_name = 1, LIM__LEAST_text = 2, LIM__LEAST_names = 2, LIM__LEAST_lost = 2,
    LIM__LEAST_id16 = 16,
    LIM__LEAST_rest = 0, LIM__LEAST_opt_name = 0, LIM__LEAST_opt_headers = 0, LIM__LEAST_blob = 4,
    LIM__LEAST_opt_string = 1
};

/* ---- decoding the kinds ---- */
typedef struct lim__in {
    const uint8_t *p;
    int64_t slack;
    uint8_t flags;
} lim__in;

static inline bool lim__in_u8(lim__in *in, uint8_t *v, uint8_t arg)
{
    (void)arg;
    *v = *in->p++;
    return true;
}
static inline bool lim__in_u16(lim__in *in, uint16_t *v, uint8_t arg)
{
    (void)arg;
    *v = lim__load16(in->p);
    in->p += 2;
    return true;
}
static inline bool lim__in_u32(lim__in *in, uint32_t *v, uint8_t arg)
{
    (void)arg;
    *v = lim__load32(in->p);
    in->p += 4;
    return true;
}
static inline bool lim__in_u64(lim__in *in, uint64_t *v, uint8_t arg)
{
    (void)arg;
    *v = lim__load64(in->p);
    in->p += 8;
    return true;
}
static inline bool lim__in_pick(lim__in *in, uint8_t *v, uint8_t arg)
{
    *v = *in->p++;
    return *v >= 1 && *v <= arg;
}
static inline bool lim__in_pick0(lim__in *in, uint8_t *v, uint8_t arg)
{
    *v = *in->p++;
    return *v <= arg;
}
static inline bool lim__in_bytes(lim__in *in, lim_bytes *v, uint32_t n)
{
    if (LIM_UNLIKELY((in->slack -= n) < 0))
        return false;
    *v = (lim_bytes){ in->p, n };
    in->p += n;
    return true;
}
static inline bool lim__in_name(lim__in *in, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    uint8_t n = *in->p++;
    return lim__in_bytes(in, v, n) && lim__utf8_ok((const uint8_t *)v->ptr, n);
}
static inline bool lim__in_text(lim__in *in, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    uint16_t n = lim__load16(in->p);
    in->p += 2;
    return lim__in_bytes(in, v, n) && lim__utf8_ok((const uint8_t *)v->ptr, n);
}
bool lim__in_names(lim__in *in, lim__names *v, uint8_t arg);
bool lim__in_lost(lim__in *in, lim__lost *v, uint8_t arg);
bool lim__in_headers(lim__in *in, lim_bytes *v); /* its two count bytes are already out of the slack */
static inline bool lim__in_id16(lim__in *in, lim__c_id16 *v, uint8_t arg)
{
    (void)arg;
    memcpy(v->bytes, in->p, 16);
    in->p += 16;
    return true;
}
static inline bool lim__in_rest(lim__in *in, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    *v = (lim_bytes){ in->p, (size_t)in->slack };
    in->slack = 0;
    return true;
}
static inline bool lim__in_opt_name(lim__in *in, lim_bytes *v, uint8_t arg)
{
    *v = (lim_bytes){ NULL, 0 };
    if (!(in->flags & arg))
        return true;
    return (in->slack -= 1) >= 0 && lim__in_name(in, v, arg);
}
static inline bool lim__in_opt_headers(lim__in *in, lim_bytes *v, uint8_t arg)
{
    *v = (lim_bytes){ NULL, 0 };
    if (LIM_LIKELY(!(in->flags & arg)))
        return true;
    return (in->slack -= 2) >= 0 && lim__in_headers(in, v);
}
bool lim__in_blob(lim__in *in, lim_bytes *v, uint8_t arg);
bool lim__in_opt_string(lim__in *in, lim_bytes *v, uint8_t arg);

/* ---- encoding the kinds: first all sizes (which is all that can fail), then all bytes ---- */
typedef struct lim__plan {
    size_t size;
    lim_bytes text; /* the frame's text, cut; copying the whole struct instead would stall on what was just stored */
    uint8_t flags;
    lim_err err;
} lim__plan;

lim_err lim__name_fault(lim_bytes name); /* TOOBIG, INVALID, or OK */
static inline void lim__plan_name(lim__plan *plan, const lim_bytes *v, uint8_t arg)
{
    (void)arg;
    if (LIM_UNLIKELY(v->len > 255 || !lim__utf8_ok((const uint8_t *)v->ptr, v->len)))
        plan->err = lim__name_fault(*v);
    plan->size += v->len;
}
static inline void lim__plan_text(lim__plan *plan, const lim_bytes *v, uint8_t arg)
{
    (void)arg;
    plan->text = *v;
    if (LIM_UNLIKELY(v->len > UINT16_MAX || !lim__utf8_ok((const uint8_t *)v->ptr, v->len)))
        plan->text = lim__utf8_clip(*v, UINT16_MAX);
    plan->size += plan->text.len;
}
static inline void lim__plan_pick(lim__plan *plan, const uint8_t *v, uint8_t arg)
{
    if (LIM_NEVER(*v == 0 || *v > arg))
        plan->err = LIM_E_INVALID;
}
static inline void lim__plan_pick0(lim__plan *plan, const uint8_t *v, uint8_t arg)
{
    if (LIM_NEVER(*v > arg))
        plan->err = LIM_E_INVALID;
}
static inline void lim__plan_names(lim__plan *plan, const lim__names *v, uint8_t arg)
{
    (void)arg;
    plan->size += v->len;
}
static inline void lim__plan_lost(lim__plan *plan, const lim__lost *v, uint8_t arg)
{
    (void)arg;
    plan->size += v->len;
}
static inline void lim__plan_rest(lim__plan *plan, const lim_bytes *v, uint8_t arg)
{
    (void)arg;
    plan->size += v->len;
}
static inline void lim__plan_blob(lim__plan *plan, const lim_bytes *v, uint8_t arg)
{
    (void)arg;
    plan->size += v->len;
}
static inline void lim__plan_opt_string(lim__plan *plan, const lim_bytes *v, uint8_t arg)
{
    if (v->ptr == NULL)
        return;
    lim__plan_text(plan, v, arg);
    plan->size += 4;
}
static inline void lim__plan_opt_name(lim__plan *plan, const lim_bytes *v, uint8_t arg)
{
    plan->flags &= (uint8_t)~arg;
    if (v->len == 0)
        return;
    plan->flags |= arg;
    plan->size += 1;
    lim__plan_name(plan, v, arg);
}
lim_err lim__headers_fault(lim_bytes block); /* INVALID, or OK */
static inline void lim__plan_opt_headers(lim__plan *plan, const lim_bytes *v, uint8_t arg)
{
    plan->flags &= (uint8_t)~arg;
    if (LIM_LIKELY(v->len == 0))
        return;
    lim_err err = lim__headers_fault(*v);
    if (err != LIM_OK)
        plan->err = err;
    plan->flags |= arg;
    plan->size += v->len;
}
#define LIM__PLAN_NOTHING(kind, type)                                                                                  \
    static inline void lim__plan_##kind(lim__plan *plan, const type *v, uint8_t arg)                                   \
    {                                                                                                                  \
        (void)plan, (void)v, (void)arg;                                                                                \
    }
LIM__PLAN_NOTHING(u8, uint8_t)
LIM__PLAN_NOTHING(u16, uint16_t)
LIM__PLAN_NOTHING(u32, uint32_t)
LIM__PLAN_NOTHING(u64, uint64_t)
LIM__PLAN_NOTHING(id16, lim__c_id16)

static inline uint8_t *lim__out_u8(uint8_t *p, const uint8_t *v)
{
    *p = *v;
    return p + 1;
}
static inline uint8_t *lim__out_u16(uint8_t *p, const uint16_t *v)
{
    return lim__store16(p, *v);
}
static inline uint8_t *lim__out_u32(uint8_t *p, const uint32_t *v)
{
    return lim__store32(p, *v);
}
static inline uint8_t *lim__out_u64(uint8_t *p, const uint64_t *v)
{
    return lim__store64(p, *v);
}
static inline uint8_t *lim__out_pick(uint8_t *p, const uint8_t *v)
{
    return lim__out_u8(p, v);
}
static inline uint8_t *lim__out_pick0(uint8_t *p, const uint8_t *v)
{
    return lim__out_u8(p, v);
}
static inline uint8_t *lim__out_rest(uint8_t *p, const lim_bytes *v)
{
    if (v->len > 0)
        memcpy(p, v->ptr, v->len);
    return p + v->len;
}
static inline uint8_t *lim__out_name(uint8_t *p, const lim_bytes *v)
{
    *p = (uint8_t)v->len;
    return lim__out_rest(p + 1, v);
}
static inline uint8_t *lim__out_text(uint8_t *p, const lim_bytes *planned)
{
    return lim__out_rest(lim__store16(p, (uint16_t)planned->len), planned);
}
static inline uint8_t *lim__out_names(uint8_t *p, const lim__names *v)
{
    return lim__out_rest(lim__store16(p, v->count), &(lim_bytes){ v->ptr, v->len });
}
static inline uint8_t *lim__out_lost(uint8_t *p, const lim__lost *v)
{
    return lim__out_rest(lim__store16(p, v->count), &(lim_bytes){ v->ptr, v->len });
}
static inline uint8_t *lim__out_id16(uint8_t *p, const lim__c_id16 *v)
{
    memcpy(p, v->bytes, 16);
    return p + 16;
}
static inline uint8_t *lim__out_opt_name(uint8_t *p, const lim_bytes *v)
{
    return v->len == 0 ? p : lim__out_name(p, v);
}
static inline uint8_t *lim__out_opt_headers(uint8_t *p, const lim_bytes *v)
{
    return lim__out_rest(p, v);
}
static inline uint8_t *lim__out_blob(uint8_t *p, const lim_bytes *v)
{
    return lim__out_rest(lim__store32(p, (uint32_t)v->len), v);
}
static inline uint8_t *lim__out_opt_string(uint8_t *p, const lim_bytes *planned)
{
    *p++ = planned->ptr != NULL;
    return planned->ptr == NULL ? p : lim__out_blob(p, planned);
}

static inline uint8_t *lim__out_begin(lim__buf *out, size_t n)
{
    return LIM_LIKELY(out->cap - out->end >= n && !out->failed) ? out->ptr + out->end : lim__buf_reserve(out, n);
}
static inline uint8_t *lim__out_header(uint8_t *p, uint8_t type, uint8_t flags, uint32_t stream, uint32_t len)
{
    p[0] = type;
    p[1] = flags;
    lim__store32(p + 2, stream);
    return lim__store32(p + 6, len);
}

/* ---- and now all frames ---- */
/* Where put takes a field from: the frame, or the plan. */
#define LIM__FROM_u8(field)           &f->field
#define LIM__FROM_u16(field)          &f->field
#define LIM__FROM_u32(field)          &f->field
#define LIM__FROM_u64(field)          &f->field
#define LIM__FROM_pick(field)         &f->field
#define LIM__FROM_pick0(field)        &f->field
#define LIM__FROM_name(field)         &f->field
#define LIM__FROM_text(field)         &plan.text
#define LIM__FROM_names(field)        &f->field
#define LIM__FROM_lost(field)         &f->field
#define LIM__FROM_id16(field)         &f->field
#define LIM__FROM_rest(field)         &f->field
#define LIM__FROM_opt_name(field)     &f->field
#define LIM__FROM_opt_headers(field)  &f->field
#define LIM__FROM_blob(field)         &f->field
#define LIM__FROM_opt_string(field)   &plan.text
enum {
    LIM__TEXTS_u8 = 0, LIM__TEXTS_u16 = 0, LIM__TEXTS_u32 = 0, LIM__TEXTS_u64 = 0, LIM__TEXTS_pick = 0,
    LIM__TEXTS_pick0 = 0, LIM__TEXTS_name = 0, LIM__TEXTS_text = 1, LIM__TEXTS_names = 0, LIM__TEXTS_lost = 0,
    LIM__TEXTS_id16 = 0,
    LIM__TEXTS_rest = 0, LIM__TEXTS_opt_name = 0, LIM__TEXTS_opt_headers = 0, LIM__TEXTS_blob = 0,
    LIM__TEXTS_opt_string = 1
};
#define LIM__MEMBER(kind, field, arg) lim__c_##kind field;
#define LIM__LEAST(kind, field, arg)  +(int)LIM__LEAST_##kind
#define LIM__GET(kind, field, arg)    && lim__in_##kind(&in, &f->field, arg)
#define LIM__PLAN(kind, field, arg)   lim__plan_##kind(&plan, &f->field, arg);
#define LIM__PUT(kind, field, arg)    p = lim__out_##kind(p, LIM__FROM_##kind(field));
#define LIM__TEXTS(kind, field, arg)  +(int)LIM__TEXTS_##kind
#define LIM__SCOPE_CONTROL            false
#define LIM__SCOPE_STREAM             true

#define F(id, NAME, name, sender, scope)                                                                               \
    typedef struct lim__f_##name {                                                                                     \
        uint32_t stream;                                                                                               \
        uint8_t flags;                                                                                                 \
        LIM__FIELDS_##name(LIM__MEMBER)                                                                                \
    } lim__f_##name;                                                                                                   \
    enum { LIM__LEAST_OF_##NAME = 0 LIM__FIELDS_##name(LIM__LEAST) };                                                  \
    static inline bool lim__get_##name(const lim__frame *frame, lim__f_##name *f)                                      \
    {                                                                                                                  \
        lim__in in = { frame->payload, (int64_t)frame->len - LIM__LEAST_OF_##NAME, frame->flags };                     \
        f->stream = frame->stream;                                                                                     \
        f->flags = frame->flags;                                                                                       \
        return in.slack >= 0 LIM__FIELDS_##name(LIM__GET) && in.slack == 0;                                            \
    }                                                                                                                  \
    static inline lim_err lim__put_##name(lim__buf *out, const lim__f_##name *f)                                       \
    {                                                                                                                  \
        LIM_ASSERT((f->stream != 0) == LIM__SCOPE_##scope);                                                            \
        _Static_assert((0 LIM__FIELDS_##name(LIM__TEXTS)) <= 1, "a plan has room for one text");                       \
        lim__plan plan = { LIM__LEAST_OF_##NAME, { NULL, 0 }, f->flags, LIM_OK };                                      \
        LIM__FIELDS_##name(LIM__PLAN)                                                                                  \
        if (LIM_UNLIKELY(plan.err != LIM_OK || plan.size > UINT32_MAX))                                                \
            return plan.err != LIM_OK ? plan.err : LIM_E_TOOBIG;                                                       \
        uint8_t *p = lim__out_begin(out, LIM__HEADER_SIZE + plan.size);                                                \
        if (LIM_UNLIKELY(p == NULL))                                                                                   \
            return LIM_E_NOMEM;                                                                                        \
        p = lim__out_header(p, id, plan.flags, f->stream, (uint32_t)plan.size);                                        \
        LIM__FIELDS_##name(LIM__PUT)                                                                                   \
        out->end += LIM__HEADER_SIZE + plan.size;                                                                      \
        LIM_CHECK(p == out->ptr + out->end);                                                                           \
        return LIM_OK;                                                                                                 \
    }
LIM__FRAME_MAP(F)
#undef F

/* ---- about types ---- */
typedef enum lim__frame_sender { LIM__SENDER_NONE, LIM__SENDER_CLIENT, LIM__SENDER_SERVER, LIM__SENDER_BOTH } lim__frame_sender;
typedef struct lim__frame_info {
    const char *name;         /* "PUBLISH"; NULL: unknown type */
    lim__frame_sender sender; /* NONE: unknown, or of version 1.0 only */
    bool stream;              /* true: needs a stream >= 1, false: needs stream 0 */
} lim__frame_info;
extern const lim__frame_info lim__frame_infos[256];
const char *lim__frame_name(uint8_t type); /* never NULL: "unknown" */

/* One line of text for logs and traces: "PUBLISH stream=0 flags=01 corr=7 channel="orders" payload=128". */
void lim__frame_dump(const lim__frame *frame, lim__buf *out);

#endif
