/* SPDX-License-Identifier: Apache-2.0
 * lua_fields_test.c - what is read in one walk is what the document says, and nothing that is no JSON is taken. */
#include "route/lua_fields.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static lim__doc *doc;
static lim__lua_fields fields;

static void assert_same_value(const char *json, lim__val v, const struct lim__lua_field *f)
{
    bool same = f->kind == v.kind;
    if (same && v.kind == LIM__BOOL)
        same = f->truth == v.truth;
    else if (same && v.kind == LIM__INT)
        same = f->i == v.i;
    else if (same && v.kind == LIM__DOUBLE)
        same = lim__lua_field_double(f) == v.d;
    else if (same && v.kind == LIM__TEXT)
        same = f->len == v.text.len && memcmp(json + f->at, v.text.ptr, f->len) == 0;
    if (!same)
        fail_msg("another value: kind %d", (int)v.kind);
}

/* True: it was taken, and each of its members is the document's. */
static bool taken_here(const char *json, size_t len)
{
    lim_bytes all = { json, len };
    if (!lim__lua_fields_read(&fields, all))
        return false;
    if (lim__doc_parse(doc, all, NULL) != LIM_OK)
        fail_msg("taken, and no JSON: %.*s", (int)len, json);
    lim__val root = lim__doc_root(doc);
    assert_int_equal(root.kind, LIM__OBJECT);
    assert_int_equal(lim__val_count(root), fields.count);
    lim__iter it = lim__iter_begin(root);
    while (lim__iter_next(&it)) {
        const struct lim__lua_field *f = lim__lua_fields_get(&fields, all, it.key);
        assert_non_null(f);
        assert_same_value(json, lim__val_get_bytes(root, it.key), f);
    }
    assert_null(lim__lua_fields_get(&fields, all, lim__str("no such key")));
    return true;
}

/* In a block of its own size, so that a sanitizer sees what looks beyond it. */
static bool taken(const char *json, size_t len)
{
    char *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, json, len);
    bool answer = taken_here(copy, len);
    free(copy);
    return answer;
}

static void test_plain_objects_are_read_without_a_document(void **state)
{
    (void)state;
    static const char *const plain[] = {
        "{}",
        " { } \n",
        "{\"a\":1}",
        "{\"priority\":7,\"sku\":48213,\"amount\":129.95}",
        "{\"a\":-0,\"b\":0,\"c\":-1.5,\"d\":999999999999999999,\"e\":0.1,\"f\":123456789012.345}",
        "{\"a\":true,\"b\":false,\"c\":null,\"d\":\"\",\"e\":\"a text of more than eight bytes\",\"\":1}",
        "{\"a\":{\"b\":[1,{\"c\":[]}]},\"d\":[ ],\"e\":[1, 2 ,\t3]}",
        "{\"a\":1,\"a\":\"2\",\"b\":3,\"a\":4}",
        "{\"del\":\"\x7f\"}",
    };
    for (size_t i = 0; i < LIM_COUNT(plain); i++) {
        if (!taken(plain[i], strlen(plain[i])))
            fail_msg("not taken: %s", plain[i]);
    }
}

static void test_everything_else_is_left_to_the_document(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "{",
        "}",
        "[]",
        "1",
        "null",
        "\"a\"",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1}x",
        "{\"a\":1}}",
        "{'a':1}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e5}",
        "{\"a\":1E5}",
        "{\"a\":1.5e1}",
        "{\"a\":-0.0}",
        "{\"a\":12345678901234567890}",
        "{\"a\":9999999999999999.5}",
        "{\"a\":0.12345678901234567}",
        "{\"a\":tru}",
        "{\"a\":truex}",
        "{\"a\":nul",
        "{\"a\":\"b}",
        "{\"a\":\"\\n\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\xc3\xbc\"}",
        "{\"a\":\"\xff\"}",
        "{\"\xc3\xbc\":1}",
        "\xef\xbb\xbf{}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":{\"b\":1,}}",
        "{\"a\":{1:2}}",
        "{\"a\":[[[[[[[[[[1]]]]]]]]]]}",
        "{\"a\":[}",
        "{\"a\":{]}",
    };
    for (size_t i = 0; i < LIM_COUNT(others); i++) {
        if (taken(others[i], strlen(others[i])))
            fail_msg("taken: %s", others[i]);
    }
    assert_false(lim__lua_fields_read(&fields, (lim_bytes){ "{\"a\":1}\0", 8 }));
    assert_false(lim__lua_fields_read(&fields, (lim_bytes){ "{\"a\0\":1}", 8 }));
}

/* ---- by chance ---- */

static lim__rng rng;
static uint64_t chance(uint64_t n)
{
    return lim__rng_range(&rng, 0, n - 1);
}

static size_t put_value(char *out, size_t room, int levels)
{
    static const char *const scalars[] = { "0",
                                           "-7",
                                           "12.50",
                                           "true",
                                           "false",
                                           "null",
                                           "\"\"",
                                           "\"abcdefghijk\"",
                                           "1e3",
                                           "\"\\u0041\"",
                                           "99999999999999999999",
                                           "-0.001",
                                           "3.0" };
    uint64_t kind = chance(levels > 0 ? 15 : LIM_COUNT(scalars));
    if (kind < LIM_COUNT(scalars))
        return (size_t)snprintf(out, room, "%s", scalars[kind]);
    char inner[300];
    size_t n = put_value(inner, sizeof inner, levels - 1);
    if (n >= sizeof inner)
        return room;
    return (size_t)snprintf(out, room, kind == 13 ? "[%s, 1]" : "{\"k\": %s}", inner);
}

static size_t put_object(char *out, size_t room)
{
    size_t n = 1, count = chance(6);
    out[0] = '{';
    for (size_t i = 0; i < count && n + 320 < room; i++) {
        n += (size_t)snprintf(out + n, room - n, "%s\"key%d\" :", i > 0 ? "," : "", (int)chance(4));
        n += put_value(out + n, room - n, 3);
    }
    out[n++] = '}';
    return n;
}

static void test_texts_by_chance_read_as_their_documents(void **state)
{
    (void)state;
    static const char bytes[] = "{}[]:,\"\\ 019.-+eEtfn\n\x01\x80k";
    size_t good = 0, broken = 0;
    rng = lim__rng_seeded(11);
    for (int round = 0; round < 60000; round++) {
        char json[2048];
        size_t len = put_object(json, sizeof json);
        good += taken(json, len);
        for (uint64_t k = 1 + chance(3); k > 0; k--)
            json[chance(len)] = bytes[chance(sizeof bytes - 1)];
        broken += taken(json, len);
    }
    assert_true(good > 10000 && broken > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_objects_are_read_without_a_document),
        cmocka_unit_test(test_everything_else_is_left_to_the_document),
        cmocka_unit_test(test_texts_by_chance_read_as_their_documents),
    };
    doc = lim__doc_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lim__doc_free(doc);
    return failed;
}
