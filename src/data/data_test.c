/* SPDX-License-Identifier: Apache-2.0
 * data_test.c - messages, packed headers, and JSON with its edges. */
#include "data/data.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define TEXT(lit) ((lim_bytes){ (lit), sizeof(lit) - 1 })

static lim__doc *doc;

static int setup(void **state)
{
    (void)state;
    doc = lim__doc_new();
    return doc == NULL;
}

static int teardown(void **state)
{
    (void)state;
    lim__doc_free(doc);
    return 0;
}

static lim__val parsed_bytes(lim_bytes json)
{
    lim_diag diag = { 0 };
    lim_err err = lim__doc_parse(doc, json, &diag);
    if (err != LIM_OK)
        fail_msg("%s: %s", lim_err_name(err), diag.text);
    return lim__doc_root(doc);
}

static lim__val parsed(const char *json)
{
    return parsed_bytes(lim__str(json));
}

static void assert_text(lim__val v, const char *expected)
{
    assert_int_equal(v.kind, LIM__TEXT);
    assert_int_equal(v.text.len, strlen(expected));
    assert_memory_equal(v.text.ptr, expected, v.text.len);
}

/* ---- messages ---- */

static void test_a_message_keeps_its_payload_and_headers(void **state)
{
    (void)state;
    lim__msg *m = lim__msg_new_with(TEXT("hello"), TEXT("head"));
    assert_non_null(m);
    assert_true(lim__bytes_eq(lim__msg_bytes(m), TEXT("hello")));
    assert_true(lim__bytes_eq(lim__msg_headers(m), TEXT("head")));
    assert_true(lim__msg_cost(m) >= 9);
    assert_ptr_equal(lim__msg_ref(m), m);
    lim__msg_unref(m);
    assert_true(lim__bytes_eq(lim__msg_bytes(m), TEXT("hello")));
    lim__msg_unref(m);
    lim__msg_unref(NULL);
    assert_null(lim__msg_ref(NULL));
}

static void test_a_message_may_be_empty(void **state)
{
    (void)state;
    lim__msg *m = lim__msg_new((lim_bytes){ NULL, 0 });
    assert_int_equal(lim__msg_bytes(m).len, 0);
    assert_int_equal(lim__msg_headers(m).len, 0);
    lim__msg_unref(m);
}

static void *ref_and_unref(void *arg)
{
    for (int i = 0; i < 20000; i++)
        lim__msg_unref(lim__msg_ref(arg));
    lim__msg_unref(arg);
    return NULL;
}

static void test_a_message_is_counted_by_several_threads(void **state)
{
    (void)state;
    lim__msg *m = lim__msg_new(TEXT("shared"));
    pthread_t threads[4];
    for (size_t i = 0; i < LIM_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ref_and_unref, lim__msg_ref(m)), 0);
    for (size_t i = 0; i < LIM_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    assert_true(lim__bytes_eq(lim__msg_bytes(m), TEXT("shared")));
    lim__msg_unref(m);
}

/* ---- packed headers ---- */

static void test_packed_headers_are_found_in_order_and_the_last_of_several_counts(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    assert_int_equal(lim__packed_add(&b, TEXT("tenant"), TEXT("a")), LIM_OK);
    assert_int_equal(lim__packed_add(&b, TEXT("trace"), TEXT("")), LIM_OK);
    assert_int_equal(lim__packed_add(&b, TEXT("tenant"), TEXT("b")), LIM_OK);
    lim_bytes block = lim__buf_bytes(&b), key, text;
    assert_true(lim__packed_valid(block));
    assert_memory_equal(block.ptr, "\0\3\6tenant\0\1a\5trace\0\0", 19);
    assert_true(lim__packed_get(block, TEXT("tenant"), &text) && lim__bytes_eq(text, TEXT("b")));
    assert_true(lim__packed_get(block, TEXT("trace"), &text) && text.len == 0);
    assert_false(lim__packed_get(block, TEXT("absent"), &text));
    size_t pos = 0, n = 0;
    while (lim__packed_next(block, &pos, &key, &text))
        n++;
    assert_int_equal(n, 3);
    lim__buf_fini(&b);
}

static void test_packed_headers_refuse_what_does_not_fit(void **state)
{
    (void)state;
    static char big[70000];
    lim__buf b = { 0 };
    assert_int_equal(lim__packed_add(&b, TEXT(""), TEXT("x")), LIM_E_INVALID);
    assert_int_equal(lim__packed_add(&b, lim__bytes(big, 256), TEXT("x")), LIM_E_TOOBIG);
    assert_int_equal(lim__packed_add(&b, TEXT("x"), lim__bytes(big, 65536)), LIM_E_TOOBIG);
    assert_int_equal(lim__buf_len(&b), 0);
    assert_int_equal(lim__packed_add(&b, TEXT("x"), lim__bytes(big, 65535)), LIM_OK);
    assert_true(lim__packed_valid(lim__buf_bytes(&b)));
    lim__buf_fini(&b);
}

static void test_every_prefix_of_a_packed_block_is_refused_and_read_within_bounds(void **state)
{
    (void)state;
    static const char whole[] = "\0\2\1a\0\2xy\3bcd\0\0";
    size_t len = sizeof whole - 1;
    assert_true(lim__packed_valid(lim__bytes(whole, len)));
    for (size_t n = 1; n < len; n++) {
        char *part = malloc(n); /* exactly sized: the sanitizer sees a read behind it */
        memcpy(part, whole, n);
        lim_bytes text;
        assert_false(lim__packed_valid(lim__bytes(part, n)));
        (void)lim__packed_get(lim__bytes(part, n), TEXT("bcd"), &text);
        free(part);
    }
    assert_false(lim__packed_valid(TEXT("\0\1\0\0\0")));
    assert_false(lim__packed_valid(TEXT("\0\1\1a\0\0junk")));
    assert_true(lim__packed_valid(TEXT("\0\0")));
}

/* ---- JSON that is fine ---- */

static void test_every_kind_of_value_is_told_apart(void **state)
{
    (void)state;
    lim__val v = parsed("{\"n\":null,\"t\":true,\"f\":false,\"i\":-7,\"u\":18446744073709551615,\"d\":1.5,"
                        "\"s\":\"x\",\"a\":[1,2],\"o\":{}}");
    assert_int_equal(v.kind, LIM__OBJECT);
    assert_int_equal(lim__val_count(v), 9);
    assert_int_equal(lim__val_get(v, "n").kind, LIM__NULL);
    assert_true(lim__val_get(v, "t").truth);
    assert_int_equal(lim__val_get(v, "f").kind, LIM__BOOL);
    assert_false(lim__val_get(v, "f").truth);
    assert_int_equal(lim__val_get(v, "i").i, -7);
    assert_int_equal(lim__val_get(v, "u").kind, LIM__UINT);
    assert_true(lim__val_get(v, "u").u == UINT64_MAX);
    assert_true(lim__val_get(v, "d").d == 1.5);
    assert_text(lim__val_get(v, "s"), "x");
    assert_int_equal(lim__val_count(lim__val_get(v, "a")), 2);
    assert_int_equal(lim__val_count(lim__val_get(v, "o")), 0);
    assert_int_equal(lim__val_get(v, "missing").kind, LIM__ABSENT);
    assert_false(lim__val_present(lim__val_get(lim__val_get(v, "missing"), "deeper")));
    assert_int_equal(lim__val_get(lim__val_get(v, "s"), "x").kind, LIM__ABSENT);
    assert_string_equal(lim__kind_text(LIM__TEXT), "text");
}

static void test_a_document_may_be_a_single_value(void **state)
{
    (void)state;
    assert_int_equal(parsed(" 42 ").i, 42);
    assert_text(parsed("\"x\""), "x");
    assert_int_equal(parsed("null").kind, LIM__NULL);
    assert_int_equal(parsed("true").kind, LIM__BOOL);
}

static void test_paths_reach_members_and_elements(void **state)
{
    (void)state;
    lim__val v = parsed("{\"order\":{\"lines\":[{\"sku\":7},{\"sku\":8}],\"amount\":12},\"\":3}");
    assert_int_equal(lim__val_path(v, "order.amount").i, 12);
    assert_int_equal(lim__val_path(v, "order.lines[1].sku").i, 8);
    assert_int_equal(lim__val_path(v, "order.lines[2].sku").kind, LIM__ABSENT);
    assert_int_equal(lim__val_path(v, "order.lines[x]").kind, LIM__ABSENT);
    assert_int_equal(lim__val_path(v, "order.lines[").kind, LIM__ABSENT);
    assert_int_equal(lim__val_path(v, "order.lines[99999999999999999999]").kind, LIM__ABSENT);
    assert_int_equal(lim__val_path(v, "order.amount.x").kind, LIM__ABSENT);
    assert_int_equal(lim__val_path(v, "").kind, LIM__OBJECT);
    assert_int_equal(lim__val_at(lim__val_path(v, "order.lines"), 0).kind, LIM__OBJECT);
    assert_int_equal(lim__val_at(v, 0).kind, LIM__ABSENT);
}

static void test_of_repeated_keys_the_last_one_counts(void **state)
{
    (void)state;
    lim__val v = parsed("{\"a\":1,\"b\":2,\"a\":3}");
    lim__member m[3];
    assert_int_equal(lim__val_get(v, "a").i, 3);
    assert_int_equal(lim__val_count(v), 3);
    assert_int_equal(lim__val_members_sorted(v, m, 3), 2);
    assert_int_equal(m[0].val.i, 3);
    assert_int_equal(m[1].val.i, 2);
}

static void test_iteration_is_in_document_order_and_sorting_in_key_order(void **state)
{
    (void)state;
    lim__val v = parsed("{\"b\":1,\"\":2,\"ab\":3,\"a\":4,\"\\u00e4\":5}");
    static const char *const written[] = { "b", "", "ab", "a", "\xc3\xa4" };
    static const char *const sorted[] = { "", "a", "ab", "b", "\xc3\xa4" };
    lim__iter it = lim__iter_begin(v);
    size_t n = 0;
    while (lim__iter_next(&it)) {
        assert_true(lim__bytes_eq(it.key, lim__str(written[n])));
        assert_int_equal(it.index, n);
        assert_int_equal(it.val.i, n + 1);
        n++;
    }
    assert_int_equal(n, 5);
    lim__member m[5];
    assert_int_equal(lim__val_members_sorted(v, m, 4), 5); /* not enough room: only counted */
    assert_int_equal(lim__val_members_sorted(v, m, 5), 5);
    for (n = 0; n < 5; n++)
        assert_true(lim__bytes_eq(m[n].key, lim__str(sorted[n])));
    it = lim__iter_begin(parsed("[10,[20],30]"));
    for (n = 0; lim__iter_next(&it); n++)
        assert_int_equal(it.val.kind, n == 1 ? LIM__ARRAY : LIM__INT);
    assert_int_equal(n, 3);
    it = lim__iter_begin(parsed("[]"));
    assert_false(lim__iter_next(&it));
    it = lim__iter_begin(parsed("7"));
    assert_false(lim__iter_next(&it));
}

static void test_defaults_stand_in_for_what_is_missing_or_of_another_kind(void **state)
{
    (void)state;
    lim__val v = parsed("{\"s\":\"text\",\"z\":\"a\\u0000b\",\"n\":5,\"neg\":-5,\"d\":2.0,\"f\":2.5,\"b\":true}");
    assert_string_equal(lim__val_str(v, "s", "?"), "text");
    assert_string_equal(lim__val_str(v, "n", "?"), "?");
    assert_string_equal(lim__val_str(v, "z", "?"), "?");
    assert_null(lim__val_str(v, "no", NULL));
    assert_int_equal(lim__val_bytes(v, "z", TEXT("")).len, 3);
    assert_int_equal(lim__val_u64(v, "n", 9), 5);
    assert_int_equal(lim__val_u64(v, "neg", 9), 9);
    assert_int_equal(lim__val_u64(v, "d", 9), 2);
    assert_int_equal(lim__val_u64(v, "f", 9), 9);
    assert_int_equal(lim__val_i64(v, "neg", 9), -5);
    assert_int_equal(lim__val_i64(v, "s", 9), 9);
    assert_true(lim__val_f64(v, "n", 9) == 5.0);
    assert_true(lim__val_bool(v, "b", false));
    assert_true(lim__val_bool(v, "n", true));
    assert_true(lim__val_bool((lim__val){ 0 }, "b", true));
}

static void test_numbers_keep_all_their_bits(void **state)
{
    (void)state;
    int64_t i;
    uint64_t u;
    assert_true(parsed("9223372036854775807").i == INT64_MAX);
    assert_true(parsed("-9223372036854775808").i == INT64_MIN);
    assert_true(parsed("9223372036854775808").u == (uint64_t)INT64_MAX + 1);
    assert_true(parsed("18446744073709551615").u == UINT64_MAX);
    assert_int_equal(parsed("-0").i, 0);
    assert_true(parsed("5e-324").d > 0);
    assert_true(parsed("1.7976931348623157e308").d > 1e308);
    assert_false(lim__val_as_i64(parsed("18446744073709551615"), &i));
    assert_false(lim__val_as_i64(parsed("1e300"), &i));
    assert_false(lim__val_as_u64(parsed("18446744073709551616.0"), &u));
    assert_true(lim__val_as_i64(parsed("1e3"), &i) && i == 1000);
}

static void test_a_document_is_reused_and_forgets_its_failures(void **state)
{
    (void)state;
    lim_diag diag;
    assert_int_equal(lim__doc_root(doc).kind, LIM__ABSENT);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(parsed("{\"a\":[1,2,3]}").kind, LIM__OBJECT);
        assert_int_equal(lim__doc_parse(doc, TEXT("{"), &diag), LIM_E_INVALID);
        assert_int_equal(lim__doc_root(doc).kind, LIM__ABSENT);
    }
    assert_int_equal(lim__doc_parse(doc, TEXT("{"), NULL), LIM_E_INVALID);
}

static void test_a_large_document_is_parsed_and_its_memory_given_back(void **state)
{
    (void)state;
    size_t n = 3 << 20;
    char *big = malloc(n);
    memset(big, ' ', n);
    big[0] = '[';
    big[n - 1] = ']';
    for (size_t i = 1; i + 3 < n; i += 2)
        memcpy(big + i, i == 1 ? "1 " : ",1", 2);
    big[n - 2] = ' ';
    assert_true(lim__val_count(parsed_bytes(lim__bytes(big, n))) > 1000000);
    free(big);
    assert_int_equal(parsed("[1]").kind, LIM__ARRAY);
}

static void test_a_value_is_written_back_as_it_was(void **state)
{
    (void)state;
    static const char json[] =
        "{\"a\":[1,-2,1.5,2.0,-0.0,1e+300,\"x\\n\",true,null,[],{}],\"b\":{\"c\":18446744073709551615}}";
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_val(&j, NULL, parsed(json));
    assert_int_equal(lim__buf_len(&b), sizeof json - 1);
    assert_memory_equal(lim__buf_bytes(&b).ptr, json, sizeof json - 1);
    lim__buf_fini(&b);
}

static char *nested(unsigned depth)
{
    char *text = calloc(1, 2 * depth + 2);
    memset(text, '[', depth);
    text[depth] = '1';
    memset(text + depth + 1, ']', depth);
    return text;
}

static void test_nesting_is_limited_and_the_limit_is_the_same_for_both_scanners(void **state)
{
    (void)state;
    for (unsigned depth = 1; depth < 300; depth++) {
        char *text = nested(depth);
        lim_diag diag = { 0 };
        bool ok = lim__doc_parse(doc, lim__str(text), &diag) == LIM_OK;
        assert_int_equal(ok, depth <= LIM__JSON_DEPTH_MAX);
        assert_int_equal(ok, !lim__json_fault(lim__str(text), &diag));
        if (!ok)
            assert_non_null(strstr(diag.text, "nested too deeply"));
        if (ok) {
            lim__buf b = { 0 };
            lim__json j = lim__json_begin(&b);
            lim__json_val(&j, NULL, lim__doc_root(doc));
            assert_int_equal(lim__buf_len(&b), 2 * depth + 1);
            lim__buf_fini(&b);
        }
        free(text);
    }
}

/* ---- JSON that is not ---- */

static const struct {
    const char *json;
    int line, column;
    const char *why;
} faults[] = {
    { "", 1, 1, "empty" },
    { "  \n ", 2, 2, "empty" },
    { "{", 1, 2, "member name" },
    { "{\"a\"}", 1, 5, "':'" },
    { "{\"a\":}", 1, 6, "a value" },
    { "{\"a\":1,}", 1, 8, "member after" },
    { "{a:1}", 1, 2, "member name in quotes, found 'a'" },
    { "{\"a\":1 \"b\":2}", 1, 8, "',' or '}'" },
    { "[1,\n 2,\n x]", 3, 2, "a value, found 'x'" },
    { "[1,]", 1, 4, "value after" },
    { "[1", 1, 3, "text ends here" },
    { "[1]]", 1, 4, "end of the text" },
    { "1 2", 1, 3, "end of the text" },
    { "'a'", 1, 1, "a value" },
    { "\"abc", 1, 1, "closing quote" },
    { "\"a\tb\"", 1, 3, "control character" },
    { "\"\\x\"", 1, 3, "after a backslash" },
    { "\"\\u12g4\"", 1, 6, "hex digits" },
    { "\"\\ud800\"", 1, 2, "surrogate" },
    { "\"\\udc00\"", 1, 2, "surrogate" },
    { "\"\\ud800\\u0041\"", 1, 2, "surrogate" },
    { "\"\xff\"", 1, 2, "not UTF-8" },
    { "\"\xc0\x80\"", 1, 2, "not UTF-8" },
    { "\"\xed\xa0\x80\"", 1, 2, "not UTF-8" },
    { "\"\xf4\x90\x80\x80\"", 1, 2, "not UTF-8" },
    { "\"\xe2\x82\"", 1, 2, "not UTF-8" },
    { "\xef\xbb\xbf{}", 1, 1, "byte order mark" },
    { "01", 1, 1, "start with 0" },
    { "-", 1, 2, "a digit" },
    { "1.", 1, 3, "after the point" },
    { ".5", 1, 1, "a value" },
    { "1e", 1, 3, "exponent" },
    { "+1", 1, 1, "a value" },
    { "18446744073709551616", 1, 1, "64 bits" },
    { "-9223372036854775809", 1, 1, "64 bits" },
    { "[1e400]", 1, 2, "too large" },
    { "NaN", 1, 1, "a value" },
    { "nul", 1, 1, "a value" },
    { "truex", 1, 5, "end of the text" },
    { "{\"a\":1}\xff", 1, 8, "0xff" },
    { "[1]//x", 1, 4, "end of the text" },
};

static void test_what_is_not_json_is_refused_with_place_and_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(faults); i++) {
        lim_diag diag = { 0 };
        lim_err err = lim__doc_parse(doc, lim__str(faults[i].json), &diag);
        if (err != LIM_E_INVALID || diag.line != faults[i].line || diag.column != faults[i].column ||
            strstr(diag.text, faults[i].why) == NULL)
            fail_msg("%s -> %d at %d:%d: %s", faults[i].json, err, diag.line, diag.column, diag.text);
    }
}

static void test_a_nul_byte_is_not_the_end_of_the_text(void **state)
{
    (void)state;
    lim_diag diag = { 0 };
    assert_int_equal(lim__doc_parse(doc, lim__bytes("1\0002", 3), &diag), LIM_E_INVALID);
    assert_int_equal(diag.column, 2);
    assert_int_equal(lim__doc_parse(doc, lim__bytes("\0", 1), &diag), LIM_E_INVALID);
}

/* Both scanners must agree on every damaged text: else a diag would be missing, or a good text be called bad. */
static void test_both_scanners_agree_on_damaged_texts(void **state)
{
    (void)state;
    static const char good[] = "{\"id\":\"7f\\u00e4\\ud83d\\ude00\",\"n\":[-1,2.5e-3,0,18446744073709551615],"
                               "\"o\":{\"t\":true,\"f\":false,\"z\":null},\"\xc3\xa4\":\"\xf0\x9f\x98\x80\"}";
    uint64_t x = 88172645463325252u;
    for (int round = 0; round < 20000; round++) {
        char text[sizeof good];
        memcpy(text, good, sizeof good);
        size_t len = sizeof good - 1;
        for (int k = 0; k < 1 + round % 3; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            text[(x >> 8) % len] = (char)(round % 2 ? "{}[]\",:\\0123eE.-+tfn "[(x >> 40) % 21] : (char)(x >> 40));
        }
        lim_diag diag;
        bool bad = lim__doc_parse(doc, lim__bytes(text, len), NULL) != LIM_OK;
        if (bad != lim__json_fault(lim__bytes(text, len), &diag))
            fail_msg("disagreement (simdjson %s): %s", bad ? "refuses" : "takes", text);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_message_keeps_its_payload_and_headers),
        T(test_a_message_may_be_empty),
        T(test_a_message_is_counted_by_several_threads),
        T(test_packed_headers_are_found_in_order_and_the_last_of_several_counts),
        T(test_packed_headers_refuse_what_does_not_fit),
        T(test_every_prefix_of_a_packed_block_is_refused_and_read_within_bounds),
        T(test_every_kind_of_value_is_told_apart),
        T(test_a_document_may_be_a_single_value),
        T(test_paths_reach_members_and_elements),
        T(test_of_repeated_keys_the_last_one_counts),
        T(test_iteration_is_in_document_order_and_sorting_in_key_order),
        T(test_defaults_stand_in_for_what_is_missing_or_of_another_kind),
        T(test_numbers_keep_all_their_bits),
        T(test_a_document_is_reused_and_forgets_its_failures),
        T(test_a_large_document_is_parsed_and_its_memory_given_back),
        T(test_a_value_is_written_back_as_it_was),
        T(test_nesting_is_limited_and_the_limit_is_the_same_for_both_scanners),
        T(test_what_is_not_json_is_refused_with_place_and_reason),
        T(test_a_nul_byte_is_not_the_end_of_the_text),
        T(test_both_scanners_agree_on_damaged_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
