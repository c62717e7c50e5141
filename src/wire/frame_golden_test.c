/* SPDX-License-Identifier: Apache-2.0
 * frame_golden_test.c - the bytes of frame_goldens.h, both ways; and docs/protocol.md shows these and no others,
 * and lists the fields as the codec has them (UPDATE=1 rewrites both blocks). */
#include "wire/frame.h"
#include "wire/frame_goldens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define B(literal)                                                                                                     \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }
#define NAMES(n, literal)                                                                                              \
    {                                                                                                                  \
        (const uint8_t *)(literal), sizeof(literal) - 1, n                                                             \
    }

static void from_hex(lim__buf *out, const char *hex)
{
    for (char digits[3] = { 0 }; *hex; hex++) {
        if (*hex == ' ' || *hex == '|')
            continue;
        digits[0] = hex[0];
        digits[1] = *++hex;
        uint8_t byte = (uint8_t)strtoul(digits, NULL, 16);
        lim__buf_add(out, &byte, 1);
    }
}

static void expect_bytes(lim__buf *out, const char *hex, const char *what)
{
    lim__buf want = { 0 };
    from_hex(&want, hex);
    if (!lim__bytes_eq(lim__buf_bytes(&want), lim__buf_bytes(out)))
        print_error("%s\n", what);
    assert_int_equal(lim__buf_len(&want), lim__buf_len(out));
    assert_memory_equal(want.ptr, out->ptr, out->end);
    lim__buf_fini(&want);
}

static lim__frame frame_of(const lim__buf *b)
{
    const uint8_t *p = b->ptr + b->start;
    lim__frame frame = { p[0], p[1], lim__load32(p + 2), lim__load32(p + 6), p + LIM__HEADER_SIZE };
    assert_int_equal(lim__buf_len(b), LIM__HEADER_SIZE + frame.len);
    return frame;
}

static void test_every_golden_frame_is_written_and_read_as_documented(void **state) /* proves WI1 WI2 */
{
    (void)state;
#define X(name, what, hex, ...)                                                                                        \
    {                                                                                                                  \
        const lim__f_##name sample = { __VA_ARGS__ };                                                                  \
        lim__f_##name read = { 0 };                                                                                    \
        lim__buf out = { 0 }, again = { 0 };                                                                           \
        assert_int_equal(lim__put_##name(&out, &sample), LIM_OK);                                                      \
        expect_bytes(&out, hex, #name ": " what);                                                                      \
        lim__frame frame = frame_of(&out);                                                                             \
        assert_true(lim__get_##name(&frame, &read));                                                                   \
        assert_int_equal(lim__put_##name(&again, &read), LIM_OK);                                                      \
        expect_bytes(&again, hex, #name " again: " what);                                                              \
        lim__buf_fini(&out);                                                                                           \
        lim__buf_fini(&again);                                                                                         \
    }
    LIM__GOLDEN_MAP(X)
#undef X
}

static void test_every_frame_has_a_golden_example(void **state)
{
    (void)state;
    bool seen[256] = { false };
#define X(name, what, hex, ...) seen[strtoul((const char[]){ (hex)[0], (hex)[1], 0 }, NULL, 16)] = true;
    LIM__GOLDEN_MAP(X)
#undef X
#define F(id, NAME, name, sender, scope) assert_true(seen[id]);
    LIM__FRAME_MAP(F)
#undef F
}

/* The fact sheet's own examples, apart from ours: what any version 1.0 peer sends and expects. */
static void test_the_handshake_is_byte_identical_to_version_1(void **state) /* proves WI1 */
{
    (void)state;
    lim__buf out = { 0 };
    assert_int_equal(lim__put_connect(&out, &(lim__f_connect){ .min_major = 1, .max_major = 1 }), LIM_OK);
    expect_bytes(&out, "01000000000000 00000c 0001 0000 0001 0000 00000000", "CONNECT");
    out.end = 0;
    assert_int_equal(lim__put_connect_ack(&out, &(lim__f_connect_ack){ .major = 1 }), LIM_OK);
    expect_bytes(&out, "02 00 00000000 00000008 0001 0000 00000000", "CONNECT_ACK");
    out.end = 0;
    assert_int_equal(lim__put_ping(&out, &(lim__f_ping){ 0 }), LIM_OK);
    assert_int_equal(lim__put_pong(&out, &(lim__f_pong){ 0 }), LIM_OK);
    assert_int_equal(lim__put_disconnect(&out, &(lim__f_disconnect){ 0 }), LIM_OK);
    expect_bytes(&out, "13000000000000000000 14000000000000000000 04000000000000000000", "PING PONG DISCONNECT");
    lim__buf_fini(&out);
}

/* ---- the document: two of its blocks are written here ---- */

/* Found from this file's own path, which the build gives relative to where tests run. */
static FILE *open_document(const char *mode)
{
    static const char here[] = "src/wire/frame_golden_test.c";
    char path[1024];
    size_t root = strlen(__FILE__) - (sizeof here - 1);
    snprintf(path, sizeof path, "%.*sdocs/protocol.md", (int)root, __FILE__);
    return fopen(path, mode);
}

/* Not when run from somewhere else than the build directory. */
static void need_document(void)
{
    FILE *file = open_document("r");
    if (file == NULL)
        skip();
    fclose(file);
}

static void read_document(lim__buf *into)
{
    char chunk[4096];
    FILE *file = open_document("r");
    assert_non_null(file);
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) > 0;)
        lim__buf_add(into, chunk, n);
    lim__buf_add(into, "", 1);
    fclose(file);
}

static void write_document(const char *before, size_t before_len, const lim__buf *block, const char *after)
{
    FILE *file = open_document("w");
    assert_non_null(file);
    fwrite(before, 1, before_len, file);
    fwrite(block->ptr, 1, block->end, file);
    fputs(after, file);
    fclose(file);
}

/* Between the marks the document must say `want`; UPDATE=1 makes it so. */
static void expect_block(const char *begin_mark, const char *end_mark, const lim__buf *want)
{
    lim__buf document = { 0 };
    read_document(&document);
    const char *text = (const char *)document.ptr, *begin = strstr(text, begin_mark), *end = strstr(text, end_mark);
    assert_true(begin && end && begin < end);
    begin += strlen(begin_mark);
    if (getenv("UPDATE")) {
        write_document(text, (size_t)(begin - text), want, end);
    } else {
        assert_int_equal(end - begin, want->end);
        assert_memory_equal(begin, want->ptr, want->end);
    }
    lim__buf_fini(&document);
}

static void add_example(lim__buf *to, const char *what, const char *hex)
{
    lim__buf bytes = { 0 };
    from_hex(&bytes, hex);
    lim__buf_format(to, "%s%s%s\n    %s\n", lim__frame_name(bytes.ptr[0]), what[0] ? ": " : "", what, hex);
    lim__buf_fini(&bytes);
}

static void test_the_document_shows_the_golden_bytes(void **state) /* proves WI2 */
{
    (void)state;
    need_document();
    lim__buf want = { 0 };
    lim__buf_text(&want, "```text\n");
#define X(name, what, hex, ...) add_example(&want, what, hex);
    LIM__GOLDEN_MAP(X)
#undef X
    lim__buf_text(&want, "```\n");
    expect_block("<!-- examples: written by frame_golden_test -->\n", "<!-- end of examples -->\n", &want);
    lim__buf_fini(&want);
}

static void add_field(lim__buf *to, const char *kind, const char *field, unsigned arg)
{
    lim__buf_text(to, to->ptr[to->end - 1] == ' ' ? "" : ", ");
    if (strcmp(kind, "pick") == 0 || strcmp(kind, "pick0") == 0)
        lim__buf_format(to, "u8 %s (%d-%u)", field, kind[4] ? 0 : 1, arg);
    else if (strncmp(kind, "opt_", 4) == 0 && arg)
        lim__buf_format(to, "[%02x: %s %s]", arg, kind + 4, strcmp(field, kind + 4) ? field : "");
    else
        lim__buf_format(to, "%s %s", kind, field);
    if (to->ptr[to->end - 2] == ' ' && to->ptr[to->end - 1] == ']') {
        to->end -= 2;
        lim__buf_text(to, "]");
    }
}

static void test_the_document_lists_every_frame_and_field(void **state) /* proves WI2 */
{
    (void)state;
    need_document();
    lim__buf want = { 0 };
    lim__buf_text(&want, "| type | name | from | stream | fields |\n|---|---|---|---|---|\n");
#define FIELD(kind, field, arg) add_field(&want, #kind, #field, arg);
#define F(id, NAME, name, sender, scope)                                                                               \
    lim__buf_format(&want, "| %02x | %s | %s | %s | ", (unsigned)id, #NAME,                                            \
                    LIM__SENDER_##sender == LIM__SENDER_BOTH     ? "both"                                              \
                    : LIM__SENDER_##sender == LIM__SENDER_CLIENT ? "C"                                                 \
                                                                 : "S",                                                \
                    LIM__SCOPE_##scope ? "n" : "0");                                                                   \
    LIM__FIELDS_##name(FIELD);                                                                                         \
    lim__buf_text(&want, want.ptr[want.end - 1] == ' ' ? "- |\n" : " |\n");
    LIM__FRAME_MAP(F)
#undef F
    expect_block("<!-- frames: written by frame_golden_test -->\n", "<!-- end of frames -->\n", &want);
    lim__buf_fini(&want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_golden_frame_is_written_and_read_as_documented),
        cmocka_unit_test(test_every_frame_has_a_golden_example),
        cmocka_unit_test(test_the_handshake_is_byte_identical_to_version_1),
        cmocka_unit_test(test_the_document_shows_the_golden_bytes),
        cmocka_unit_test(test_the_document_lists_every_frame_and_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
