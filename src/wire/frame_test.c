/* SPDX-License-Identifier: Apache-2.0
 * frame_test.c - the codec against random values, every cut, every lie. What is compared and filled in is generated
 * from the same table as the codec; what the bytes must be is frame_golden_test.c's business. */
#include "wire/frame.h"
#include "base/rng.h"
#include "data/data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { ROUNDS = 200 };

/* ---- random values, by kind; their memory lives until the round ends ---- */
typedef struct maker {
    lim__rng rng;
    void *owned[64];
    int owned_count;
} maker;

static uint8_t *own(maker *m, size_t n)
{
    assert_true(m->owned_count < (int)LIM_COUNT(m->owned));
    uint8_t *p = malloc(n ? n : 1);
    assert_non_null(p);
    m->owned[m->owned_count++] = p;
    return p;
}

static void forget(maker *m)
{
    while (m->owned_count > 0)
        free(m->owned[--m->owned_count]);
}

static lim_bytes make_utf8(maker *m, size_t max)
{
    static const char *const pieces[] = { "a", "Z", "/", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\x8a", "." };
    uint8_t *p = own(m, max);
    size_t n = 0, want = lim__rng_below(&m->rng, max + 1);
    for (;;) {
        const char *piece = pieces[lim__rng_below(&m->rng, LIM_COUNT(pieces))];
        if (n + strlen(piece) > want)
            return lim__bytes(p, n);
        memcpy(p + n, piece, strlen(piece));
        n += strlen(piece);
    }
}

static void make_u8(maker *m, uint8_t *v, uint8_t arg)
{
    (void)arg;
    *v = (uint8_t)lim__rng_next(&m->rng);
}
static void make_u16(maker *m, uint16_t *v, uint8_t arg)
{
    (void)arg;
    *v = (uint16_t)lim__rng_next(&m->rng);
}
static void make_u32(maker *m, uint32_t *v, uint8_t arg)
{
    (void)arg;
    *v = (uint32_t)lim__rng_next(&m->rng);
}
static void make_u64(maker *m, uint64_t *v, uint8_t arg)
{
    (void)arg;
    *v = lim__rng_next(&m->rng);
}
static void make_pick(maker *m, uint8_t *v, uint8_t arg)
{
    *v = (uint8_t)lim__rng_range(&m->rng, 1, arg);
}
static void make_pick0(maker *m, uint8_t *v, uint8_t arg)
{
    *v = (uint8_t)lim__rng_range(&m->rng, 0, arg);
}
static void make_name(maker *m, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    *v = make_utf8(m, lim__rng_chance(&m->rng, 100) ? 255 : 20);
}
static void make_text(maker *m, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    *v = make_utf8(m, lim__rng_chance(&m->rng, 20) ? UINT16_MAX : 60);
}
static void make_opt_name(maker *m, lim_bytes *v, uint8_t arg)
{
    make_name(m, v, arg);
}
static void make_rest(maker *m, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    size_t n = lim__rng_below(&m->rng, 300);
    uint8_t *p = own(m, n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)lim__rng_next(&m->rng);
    *v = lim__bytes(p, n);
}
static void make_blob(maker *m, lim_bytes *v, uint8_t arg)
{
    make_rest(m, v, arg);
}
static void make_opt_string(maker *m, lim_bytes *v, uint8_t arg)
{
    *v = lim__rng_chance(&m->rng, 500) ? (lim_bytes){ NULL, 0 } : make_utf8(m, 100);
    (void)arg;
}
static void make_id16(maker *m, lim__c_id16 *v, uint8_t arg)
{
    (void)arg;
    for (size_t i = 0; i < sizeof v->bytes; i++)
        v->bytes[i] = (uint8_t)lim__rng_next(&m->rng);
}
/* Copies what was built to memory that the round owns. */
static const uint8_t *keep(maker *m, lim__buf *b)
{
    uint8_t *p = own(m, b->end);
    if (b->end > 0)
        memcpy(p, b->ptr, b->end);
    lim__buf_fini(b);
    return p;
}
static void make_names(maker *m, lim__names *v, uint8_t arg)
{
    (void)arg;
    lim__buf b = { 0 };
    size_t count = lim__rng_below(&m->rng, 5);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(lim__names_add(&b, make_utf8(m, 30)), LIM_OK);
    *v = lim__names_view(&b);
    assert_int_equal(v->count, count);
    v->ptr = keep(m, &b);
}
static void make_lost(maker *m, lim__lost *v, uint8_t arg)
{
    (void)arg;
    lim__buf b = { 0 };
    size_t count = lim__rng_below(&m->rng, 5);
    *v = (lim__lost){ 0 };
    for (size_t i = 0; i < count; i++) {
        const lim__lost_one one = { make_utf8(m, 30), lim__rng_next(&m->rng), lim__rng_next(&m->rng) };
        assert_int_equal(lim__lost_add(&b, v, &one), LIM_OK);
    }
    assert_int_equal(v->count, count);
    v->ptr = keep(m, &b);
}
static void make_opt_headers(maker *m, lim_bytes *v, uint8_t arg)
{
    (void)arg;
    lim__buf b = { 0 };
    size_t count = lim__rng_below(&m->rng, 5);
    for (size_t i = 0; i < count; i++) {
        lim_bytes key = make_utf8(m, 30);
        assert_int_equal(lim__packed_add(&b, key.len ? key : lim__str("k"), make_utf8(m, 400)), LIM_OK);
    }
    size_t len = b.end;
    *v = lim__bytes(keep(m, &b), len);
}

/* ---- equality, by kind ---- */
#define SAME_NUMBER(kind, type)                                                                                        \
    static bool same_##kind(const type *a, const type *b)                                                              \
    {                                                                                                                  \
        return *a == *b;                                                                                               \
    }
SAME_NUMBER(u8, uint8_t)
SAME_NUMBER(u16, uint16_t)
SAME_NUMBER(u32, uint32_t)
SAME_NUMBER(u64, uint64_t)
SAME_NUMBER(pick, uint8_t)
SAME_NUMBER(pick0, uint8_t)
#define SAME_BYTES(kind)                                                                                               \
    static bool same_##kind(const lim_bytes *a, const lim_bytes *b)                                                    \
    {                                                                                                                  \
        return lim__bytes_eq(*a, *b);                                                                                  \
    }
SAME_BYTES(name)
SAME_BYTES(text)
SAME_BYTES(opt_name)
SAME_BYTES(opt_headers)
SAME_BYTES(rest)
SAME_BYTES(blob)
static bool same_opt_string(const lim_bytes *a, const lim_bytes *b)
{
    return (a->ptr == NULL) == (b->ptr == NULL) && lim__bytes_eq(*a, *b);
}
static bool same_id16(const lim__c_id16 *a, const lim__c_id16 *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}
static bool same_names(const lim__names *a, const lim__names *b)
{
    return a->count == b->count && lim__bytes_eq(lim__bytes(a->ptr, a->len), lim__bytes(b->ptr, b->len));
}
static bool same_lost(const lim__lost *a, const lim__lost *b)
{
    return a->count == b->count && lim__bytes_eq(lim__bytes(a->ptr, a->len), lim__bytes(b->ptr, b->len));
}

static lim__frame frame_of(const lim__buf *b)
{
    const uint8_t *p = b->ptr + b->start;
    lim__frame frame = { p[0], p[1], lim__load32(p + 2), lim__load32(p + 6), p + LIM__HEADER_SIZE };
    assert_int_equal(lim__buf_len(b), LIM__HEADER_SIZE + frame.len);
    return frame;
}

/* ---- per frame: make, compare, and decode a copy of exactly `len` bytes on the heap, so that ASan sees the edge ----
 */
#define MAKE(kind, field, arg) make_##kind(m, &f->field, arg);
#define SAME(kind, field, arg) &&same_##kind(&a->field, &b->field)
#define F(id, NAME, name, sender, scope)                                                                               \
    static void make_frame_##name(maker *m, lim__f_##name *f)                                                          \
    {                                                                                                                  \
        *f = (lim__f_##name){ .stream = LIM__SCOPE_##scope ? 1 + (uint32_t)lim__rng_below(&m->rng, 1000) : 0 };        \
        LIM__FIELDS_##name(MAKE)                                                                                       \
    }                                                                                                                  \
    static bool same_frame_##name(const lim__f_##name *a, const lim__f_##name *b)                                      \
    {                                                                                                                  \
        return a->stream == b->stream LIM__FIELDS_##name(SAME);                                                        \
    }                                                                                                                  \
    static bool decodes_##name(const lim__frame *frame, uint32_t len)                                                  \
    {                                                                                                                  \
        uint8_t *copy = malloc(len ? len : 1);                                                                         \
        memcpy(copy, frame->payload, len);                                                                             \
        lim__frame cut = { frame->type, frame->flags, frame->stream, len, copy };                                      \
        lim__f_##name f = { 0 };                                                                                       \
        bool ok = lim__get_##name(&cut, &f);                                                                           \
        free(copy);                                                                                                    \
        return ok;                                                                                                     \
    }
LIM__FRAME_MAP(F)
#undef F

static void test_every_frame_survives_a_round_trip(void **state) /* proves WI2 */
{
    (void)state;
    maker m = { .rng = lim__rng_seeded(1) };
    lim__buf out = { 0 };
    for (int round = 0; round < ROUNDS; round++) {
#define F(id, NAME, name, sender, scope)                                                                               \
    {                                                                                                                  \
        lim__f_##name f, g = { 0 };                                                                                    \
        make_frame_##name(&m, &f);                                                                                     \
        out.start = out.end = 0;                                                                                       \
        assert_int_equal(lim__put_##name(&out, &f), LIM_OK);                                                           \
        lim__frame frame = frame_of(&out);                                                                             \
        assert_int_equal(frame.type, LIM__##NAME);                                                                     \
        assert_true(lim__get_##name(&frame, &g));                                                                      \
        assert_true(same_frame_##name(&f, &g));                                                                        \
        forget(&m);                                                                                                    \
    }
        LIM__FRAME_MAP(F)
#undef F
    }
    lim__buf_fini(&out);
}

/* How many bytes at the end may be missing without harm: those of `rest`. */
#define REST_OF(kind, field, arg) +rest_##kind(&f.field)
#define REST_NONE(kind, type)                                                                                          \
    static size_t rest_##kind(const type *v)                                                                           \
    {                                                                                                                  \
        (void)v;                                                                                                       \
        return 0;                                                                                                      \
    }
REST_NONE(u8, uint8_t)
REST_NONE(u16, uint16_t)
REST_NONE(u32, uint32_t)
REST_NONE(u64, uint64_t)
REST_NONE(pick, uint8_t)
REST_NONE(pick0, uint8_t)
REST_NONE(name, lim_bytes)
REST_NONE(text, lim_bytes)
REST_NONE(opt_name, lim_bytes)
REST_NONE(blob, lim_bytes)
REST_NONE(opt_string, lim_bytes)
REST_NONE(id16, lim__c_id16)
REST_NONE(names, lim__names)
REST_NONE(lost, lim__lost)
REST_NONE(opt_headers, lim_bytes)
static size_t rest_rest(const lim_bytes *v)
{
    return v->len;
}

static void test_every_truncation_and_every_leftover_is_malformed(void **state) /* proves WI4 */
{
    (void)state;
    maker m = { .rng = lim__rng_seeded(2) };
    lim__buf out = { 0 };
    for (int round = 0; round < 20; round++) {
#define F(id, NAME, name, sender, scope)                                                                               \
    {                                                                                                                  \
        lim__f_##name f;                                                                                               \
        make_frame_##name(&m, &f);                                                                                     \
        out.start = out.end = 0;                                                                                       \
        assert_int_equal(lim__put_##name(&out, &f), LIM_OK);                                                           \
        lim__buf_add(&out, "", 1);                                                                                     \
        out.end--;                                                                                                     \
        lim__frame frame = frame_of(&out);                                                                             \
        size_t rest = 0 LIM__FIELDS_##name(REST_OF);                                                                   \
        bool open_ended = (0 LIM__FIELDS_##name(IS_REST)) > 0;                                                         \
        for (uint32_t len = 0; len <= frame.len; len += len > 400 && len + 900 < frame.len ? 97 : 1)                   \
            assert_int_equal(decodes_##name(&frame, len), len + rest >= frame.len);                                    \
        assert_int_equal(decodes_##name(&frame, frame.len + 1), open_ended);                                           \
        forget(&m);                                                                                                    \
    }
#define IS_REST(kind, field, arg) +IS_REST_##kind
#define IS_REST_u8                0
#define IS_REST_u16               0
#define IS_REST_u32               0
#define IS_REST_u64               0
#define IS_REST_pick              0
#define IS_REST_pick0             0
#define IS_REST_name              0
#define IS_REST_text              0
#define IS_REST_names             0
#define IS_REST_lost              0
#define IS_REST_id16              0
#define IS_REST_rest              1
#define IS_REST_opt_name          0
#define IS_REST_opt_headers       0
#define IS_REST_blob              0
#define IS_REST_opt_string        0
        LIM__FRAME_MAP(F)
#undef F
    }
    lim__buf_fini(&out);
}

/* Whatever the bytes, decoding says yes or no and the views it gives stay inside the payload (the dump reads them). */
static void test_random_payloads_are_read_or_refused_and_never_overrun(void **state) /* proves WI4 */
{
    (void)state;
    lim__rng rng = lim__rng_seeded(3);
    lim__buf out = { 0 };
    for (int round = 0; round < 40000; round++) {
        size_t len = lim__rng_below(&rng, 200);
        uint8_t *payload = malloc(len + 1);
        for (size_t i = 0; i < len; i++) /* mostly small numbers: lengths that nearly fit */
            payload[i] = (uint8_t)(lim__rng_chance(&rng, 800) ? lim__rng_below(&rng, 5) : lim__rng_next(&rng));
        lim__frame frame = { (uint8_t)lim__rng_below(&rng, 0x80), (uint8_t)lim__rng_next(&rng), 1, (uint32_t)len,
                             payload };
        out.start = out.end = 0;
        lim__frame_dump(&frame, &out);
        free(payload);
    }
    lim__buf_fini(&out);
}

static void test_flipping_any_byte_of_any_frame_is_survived(void **state) /* proves WI4 */
{
    (void)state;
    maker m = { .rng = lim__rng_seeded(4) };
    lim__buf out = { 0 }, dump = { 0 };
    for (int round = 0; round < 20; round++) {
#define F(id, NAME, name, sender, scope)                                                                               \
    {                                                                                                                  \
        lim__f_##name f;                                                                                               \
        make_frame_##name(&m, &f);                                                                                     \
        out.start = out.end = 0;                                                                                       \
        assert_int_equal(lim__put_##name(&out, &f), LIM_OK);                                                           \
        for (uint32_t i = LIM__HEADER_SIZE; i<out.end; i += out.end> 500 ? 61 : 1) {                                   \
            out.ptr[i] ^= (uint8_t)(1 + lim__rng_below(&m.rng, 255));                                                  \
            lim__frame frame = frame_of(&out);                                                                         \
            dump.start = dump.end = 0;                                                                                 \
            lim__frame_dump(&frame, &dump);                                                                            \
        }                                                                                                              \
        forget(&m);                                                                                                    \
    }
        LIM__FRAME_MAP(F)
#undef F
    }
    lim__buf_fini(&out);
    lim__buf_fini(&dump);
}

static void expect_malformed(uint8_t type, uint8_t flags, const char *bytes, size_t len)
{
    lim__buf dump = { 0 };
    lim__frame frame = { type, flags, 1, (uint32_t)len, (const uint8_t *)bytes };
    lim__frame_dump(&frame, &dump);
    lim__buf_add(&dump, "", 1);
    if (strstr((const char *)dump.ptr, "malformed") == NULL)
        fail_msg("taken for well formed: %s", dump.ptr);
    lim__buf_fini(&dump);
}
#define EXPECT_MALFORMED(type, flags, literal) expect_malformed(type, flags, literal, sizeof(literal) - 1)

static void test_lengths_and_counts_that_lie_are_malformed(void **state) /* proves WI4 */
{
    (void)state;
    EXPECT_MALFORMED(LIM__PUBLISH, 0, "\0\0\0\1\7orders");                    /* a name one longer than the frame */
    EXPECT_MALFORMED(LIM__PUBLISH, 0, "\0\0\0\1\377");                        /* a name and nothing */
    EXPECT_MALFORMED(LIM__PUBLISH, 1, "\0\0\0\1\1a");                         /* flag says headers, none */
    EXPECT_MALFORMED(LIM__PUBLISH, 1, "\0\0\0\1\1a\377\377");                 /* 65535 headers in no bytes */
    EXPECT_MALFORMED(LIM__PUBLISH, 1, "\0\0\0\1\1a\0\1\1k\377\377v");         /* a value of 65535 bytes */
    EXPECT_MALFORMED(LIM__PUBLISH, 1, "\0\0\0\1\1a\0\1\0\0\1v");              /* an empty key */
    EXPECT_MALFORMED(LIM__DELIVER, 2, "\0\0\0\0\0\0\0\1");                    /* flag says channel, none */
    EXPECT_MALFORMED(LIM__SERVE, 0, "\1\0\0\0\1\0\1g\0\377\377\1a\0\0");      /* 65535 types */
    EXPECT_MALFORMED(LIM__CONNECT, 0, "\0\1\0\0\0\2\0\0\377\377\377\377tok"); /* a token of 4 GiB */
    EXPECT_MALFORMED(LIM__CONNECT_ERROR, 0, "\0\7\1\0\0\0\4abc");             /* a message one too long */
    EXPECT_MALFORMED(LIM__CONNECT_ERROR, 0, "\0\7\1\0\0\0");                  /* half a length */
    EXPECT_MALFORMED(LIM__CONNECT_ERROR, 0, "\0\7\2");                        /* a tag that is neither 0 nor 1 */
    EXPECT_MALFORMED(LIM__PING, 0, "x");                                      /* leftovers */
    EXPECT_MALFORMED(LIM__SUBSCRIBE, 0, "\0\0\0\1\0\0\0\1\5\1a");             /* policy 5 */
    EXPECT_MALFORMED(LIM__DROPPED, 0, "\0\0\0\0\0\0\0\1\0");                  /* policy forgotten */
    EXPECT_MALFORMED(LIM__PUBLISH, 0, "\0\0\0\1\2\xc3(");                     /* not UTF-8 */
    EXPECT_MALFORMED(LIM__FAULT, 0, "\0\1\0\3\xed\xa0\x80");                  /* a surrogate */
}

static void test_utf8_is_judged_strictly(void **state)
{
    (void)state;
    static const char *const good[] = { "",
                                        "a",
                                        "abcdefgh",
                                        "abcdefghi",
                                        "\x7f",
                                        "\xc2\x80",
                                        "\xdf\xbf",
                                        "\xe0\xa0\x80",
                                        "\xed\x9f\xbf",
                                        "\xee\x80\x80",
                                        "\xef\xbf\xbf",
                                        "\xf0\x90\x80\x80",
                                        "\xf4\x8f\xbf\xbf",
                                        "long enough for words \xe2\x82\xac and more" };
    static const char *const bad[] = { "\x80",
                                       "\xbf",
                                       "\xc0\x80",
                                       "\xc1\xbf",
                                       "\xc2",
                                       "\xe0\x9f\xbf",
                                       "\xe2\x82",
                                       "\xed\xa0\x80",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xff",
                                       "abcdefgh\xe2\x82",
                                       "abcdefg\x80",
                                       "\xc2(",
                                       "\xf0\x9f\x8c(" };
    for (size_t i = 0; i < LIM_COUNT(good); i++)
        assert_true(lim__utf8_ok((const uint8_t *)good[i], strlen(good[i])));
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_false(lim__utf8_ok((const uint8_t *)bad[i], strlen(bad[i])));
    assert_int_equal(lim__utf8_clip(lim__str("ab\xe2\x82\xac"), 4).len, 2);
    assert_int_equal(lim__utf8_clip(lim__str("ab\xe2\x82\xac"), 5).len, 5);
    assert_int_equal(lim__utf8_clip(lim__str("ab\xff"
                                             "cd"),
                                    5)
                         .len,
                     2);
}

static void test_every_code_point_has_one_encoding(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        uint8_t p[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (size_t i = n; i-- > 1;)
            p[i] = (uint8_t)(0x80 | ((c >> (6 * (n - 1 - i))) & 0x3f));
        p[0] = (uint8_t)(n == 1 ? c : (0xf00u >> n & 0xffu & ~(0xffu >> n)) | c >> (6 * (n - 1)));
        if (lim__utf8_ok(p, n) != (c < 0xd800 || c > 0xdfff))
            fail_msg("U+%04X", c);
    }
}

static void test_put_refuses_bad_names_and_leaves_nothing_behind(void **state)
{
    (void)state;
    char long_name[256];
    memset(long_name, 'n', sizeof long_name);
    lim__buf out = { 0 };
    lim__f_publish f = { .corr = 1, .channel = lim__str("\xff") };
    assert_int_equal(lim__put_publish(&out, &f), LIM_E_INVALID);
    f.channel = lim__bytes(long_name, 256);
    assert_int_equal(lim__put_publish(&out, &f), LIM_E_TOOBIG);
    f.payload = lim__bytes(long_name, UINT32_MAX);
    f.channel = lim__str("c");
    assert_int_equal(lim__put_publish(&out, &f), LIM_E_TOOBIG);
    assert_int_equal(lim__buf_len(&out), 0);
    assert_false(out.failed);
    static const lim_bytes headers[] = { { "\0", 1 },           { "\0\1\1k\0\1\xff", 7 }, { "\0\1\0\0\1v", 6 },
                                         { "\0\1\1k\0\2v", 7 }, { "\0\1\1k\0\0v", 7 },    { "\0\2\1k\0\1v", 7 } };
    for (size_t i = 0; i < LIM_COUNT(headers); i++) {
        f = (lim__f_publish){ .corr = 1, .channel = lim__str("c"), .headers = headers[i] };
        assert_int_equal(lim__put_publish(&out, &f), LIM_E_INVALID);
    }
    assert_int_equal(lim__buf_len(&out), 0);
    f = (lim__f_publish){ .corr = 1, .channel = lim__bytes(long_name, 255) };
    assert_int_equal(lim__put_publish(&out, &f), LIM_OK);
    lim__buf_fini(&out);
    assert_int_equal(lim__names_add(&out, lim__bytes(long_name, 256)), LIM_E_TOOBIG);
    assert_int_equal(lim__names_add(&out, lim__str("\xff")), LIM_E_INVALID);
    assert_int_equal(lim__buf_len(&out), 0);
}

static void test_put_cuts_text_for_people_to_what_can_be_sent(void **state)
{
    (void)state;
    lim__buf out = { 0 };
    lim__f_left f = { .stream = 1,
                      .detail = lim__str("good\xff"
                                         "bad") },
                g = { 0 };
    assert_int_equal(lim__put_left(&out, &f), LIM_OK);
    lim__frame frame = frame_of(&out);
    assert_true(lim__get_left(&frame, &g));
    assert_int_equal(g.detail.len, 4);
    out.start = out.end = 0;
    uint8_t *huge = malloc(70000);
    memset(huge, 'x', 70000);
    f.detail = lim__bytes(huge, 70000);
    assert_int_equal(lim__put_left(&out, &f), LIM_OK);
    frame = frame_of(&out);
    assert_true(lim__get_left(&frame, &g));
    assert_int_equal(g.detail.len, UINT16_MAX);
    free(huge);
    lim__buf_fini(&out);
}

static void test_put_sets_the_flags_of_optional_fields_by_itself(void **state)
{
    (void)state;
    lim__buf out = { 0 }, list = { 0 };
    lim__f_deliver f = { .stream = 1, .flags = LIM__FLAG_HEADERS | LIM__FLAG_CHANNEL | 0x80 };
    assert_int_equal(lim__put_deliver(&out, &f), LIM_OK);
    assert_int_equal(frame_of(&out).flags, 0x80);
    out.start = out.end = 0;
    assert_int_equal(lim__packed_add(&list, lim__str("k"), lim__str("v")), LIM_OK);
    f = (lim__f_deliver){ .stream = 1, .headers = lim__buf_bytes(&list), .channel = lim__str("c") };
    assert_int_equal(lim__put_deliver(&out, &f), LIM_OK);
    assert_int_equal(frame_of(&out).flags, LIM__FLAG_HEADERS | LIM__FLAG_CHANNEL);
    lim__buf_fini(&out);
    lim__buf_fini(&list);
}

static void test_the_dump_is_one_readable_line(void **state)
{
    (void)state;
    lim__buf out = { 0 }, list = { 0 }, dump = { 0 };
    assert_int_equal(lim__packed_add(&list, lim__str("k"), lim__str("v\n")), LIM_OK);
    lim__f_publish f = {
        .corr = 7, .channel = lim__str("orders"), .headers = lim__buf_bytes(&list), .payload = lim__str("hi")
    };
    assert_int_equal(lim__put_publish(&out, &f), LIM_OK);
    lim__frame frame = frame_of(&out);
    lim__frame_dump(&frame, &dump);
    lim__buf_add(&dump, "", 1);
    assert_string_equal(
        (const char *)dump.ptr,
        "PUBLISH stream=0 flags=01 corr=7 channel=\"orders\" headers={\"k\":\"v\\x0a\"} options={} payload=2");
    assert_string_equal(lim__frame_name(0xfe), "unknown");
    lim__buf_fini(&out);
    lim__buf_fini(&list);
    lim__buf_fini(&dump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_frame_survives_a_round_trip),
        cmocka_unit_test(test_every_truncation_and_every_leftover_is_malformed),
        cmocka_unit_test(test_random_payloads_are_read_or_refused_and_never_overrun),
        cmocka_unit_test(test_flipping_any_byte_of_any_frame_is_survived),
        cmocka_unit_test(test_lengths_and_counts_that_lie_are_malformed),
        cmocka_unit_test(test_utf8_is_judged_strictly),
        cmocka_unit_test(test_every_code_point_has_one_encoding),
        cmocka_unit_test(test_put_refuses_bad_names_and_leaves_nothing_behind),
        cmocka_unit_test(test_put_cuts_text_for_people_to_what_can_be_sent),
        cmocka_unit_test(test_put_sets_the_flags_of_optional_fields_by_itself),
        cmocka_unit_test(test_the_dump_is_one_readable_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
