/* SPDX-License-Identifier: Apache-2.0
 * frame_golden_test.c - the bytes of frame_goldens.h, both ways; and docs/protocol.md shows these and no others
 * (UPDATE=1 rewrites its examples). */
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

/* ---- the document ---- */

static const char BEGIN[] = "<!-- examples: written by frame_golden_test, UPDATE=1 -->\n";
static const char END[] = "<!-- end of examples -->\n";

/* Found from this file's own path, which the build gives relative to where tests run. */
static FILE *open_document(char *path, size_t size, const char *mode)
{
    static const char here[] = "src/wire/frame_golden_test.c";
    size_t root = strlen(__FILE__) - (sizeof here - 1);
    snprintf(path, size, "%.*sdocs/protocol.md", (int)root, __FILE__);
    return fopen(path, mode);
}

static void read_all(FILE *file, lim__buf *into)
{
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) > 0;)
        lim__buf_add(into, chunk, n);
    lim__buf_add(into, "", 1);
    fclose(file);
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
    char path[1024];
    FILE *file = open_document(path, sizeof path, "r");
    if (file == NULL)
        skip(); /* run from somewhere else than the build directory */
    lim__buf document = { 0 }, want = { 0 };
    read_all(file, &document);
    lim__buf_text(&want, "```text\n");
#define X(name, what, hex, ...) add_example(&want, what, hex);
    LIM__GOLDEN_MAP(X)
#undef X
    lim__buf_text(&want, "```\n");
    const char *text = (const char *)document.ptr, *begin = strstr(text, BEGIN), *end = strstr(text, END);
    assert_true(begin && end && begin < end);
    begin += sizeof BEGIN - 1;
    if (getenv("UPDATE")) {
        file = open_document(path, sizeof path, "w");
        assert_non_null(file);
        fwrite(text, 1, (size_t)(begin - text), file);
        fwrite(want.ptr, 1, want.end, file);
        fputs(end, file);
        fclose(file);
    } else {
        assert_int_equal(end - begin, want.end);
        assert_memory_equal(begin, want.ptr, want.end);
    }
    lim__buf_fini(&document);
    lim__buf_fini(&want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_golden_frame_is_written_and_read_as_documented),
        cmocka_unit_test(test_every_frame_has_a_golden_example),
        cmocka_unit_test(test_the_handshake_is_byte_identical_to_version_1),
        cmocka_unit_test(test_the_document_shows_the_golden_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
