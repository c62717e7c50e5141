/* SPDX-License-Identifier: Apache-2.0
 * artifact_test.c - the same bytes are kept once and are found by their hash. */
#include "artifact/artifact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define TEXT(lit) ((lim_bytes){ (lit), sizeof(lit) - 1 })

static lim__artifact *put(lim__artifacts *s, const char *text, uint64_t now, bool *fresh)
{
    lim__artifact *a = NULL;
    assert_int_equal(lim__artifacts_put(s, LIM__ENGINE_LUA, lim__str(text), text, now, fresh, &a), LIM_OK);
    return a;
}

static void test_the_hash_is_sha256_of_the_bytes(void **state)
{
    (void)state;
    uint8_t hash[LIM__HASH_SIZE];
    char text[LIM__HASH_TEXT], id[LIM__HASH_SHORT];
    assert_int_equal(lim__sha256(TEXT("abc"), hash), LIM_OK);
    lim__hash_text(hash, text);
    lim__hash_short_text(hash, id);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(id, "ba7816bf8f01cfea");
    assert_int_equal(lim__sha256((lim_bytes){ NULL, 0 }, hash), LIM_OK);
    lim__hash_text(hash, text);
    assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void test_the_same_bytes_are_the_same_artifact(void **state) /* proves RF5 */
{
    (void)state;
    lim__artifacts *s = lim__artifacts_new();
    bool fresh = false;
    lim__artifact *a = put(s, "return 1", 5, &fresh);
    assert_true(fresh);
    lim__artifact *b = put(s, "return 1", 9, &fresh);
    assert_false(fresh);
    assert_ptr_equal(a, b);
    assert_int_equal(a->loaded_at_ns, 5);
    assert_string_equal(a->name, "return 1");
    assert_true(lim__bytes_eq(a->bytes, TEXT("return 1")));
    assert_int_equal(lim__artifacts_count(s), 1);
    lim__artifacts_free(s); /* references held elsewhere keep it */
    assert_int_equal(strlen(a->id), 16);
    lim__artifact_unref(a);
    lim__artifact_unref(b);
}

static void test_the_same_bytes_under_two_engines_are_two_artifacts_and_the_newer_is_found(void **state)
{
    (void)state;
    lim__artifacts *s = lim__artifacts_new();
    lim__artifact *lua = NULL, *builtin = NULL, *found = NULL;
    assert_int_equal(lim__artifacts_put(s, LIM__ENGINE_LUA, TEXT("x"), NULL, 1, NULL, &lua), LIM_OK);
    assert_int_equal(lim__artifacts_put(s, LIM__ENGINE_BUILTIN, TEXT("x"), NULL, 2, NULL, &builtin), LIM_OK);
    assert_ptr_not_equal(lua, builtin);
    assert_string_equal(lua->id, builtin->id);
    assert_int_equal(lim__artifacts_get(s, lim__str(lua->id), &found), LIM_OK);
    assert_ptr_equal(found, builtin);
    assert_string_equal(lua->name, "");
    lim__artifact_unref(found);
    lim__artifact_unref(lua);
    lim__artifact_unref(builtin);
    lim__artifacts_free(s);
}

static void test_an_artifact_is_found_by_a_prefix_that_fits_only_it(void **state)
{
    (void)state;
    lim__artifacts *s = lim__artifacts_new();
    lim__artifact *all[600], *found;
    char text[LIM__HASH_TEXT];
    for (int i = 0; i < 600; i++) {
        char source[32];
        snprintf(source, sizeof source, "return %d", i);
        all[i] = put(s, source, (uint64_t)i, NULL);
    }
    for (int i = 0; i < 600; i++) {
        lim__hash_text(all[i]->hash, text);
        for (size_t digits = 16; digits <= 64; digits += 3) {
            assert_int_equal(lim__artifacts_get(s, lim__bytes(text, digits), &found), LIM_OK);
            assert_ptr_equal(found, all[i]);
            lim__artifact_unref(found);
        }
        for (size_t c = 0; c < 64; c++)
            text[c] = (char)(text[c] >= 'a' ? text[c] - 32 : text[c]);
        assert_int_equal(lim__artifacts_get(s, lim__str(text), &found), LIM_OK);
        lim__artifact_unref(found);
    }
    int ambiguous = 0;
    for (int i = 0; i < 600; i++) {
        lim_err err = lim__artifacts_get(s, lim__bytes(all[i]->id, 4), &found);
        assert_true(err == LIM_OK || err == LIM_E_EXISTS);
        ambiguous += err == LIM_E_EXISTS;
        if (err == LIM_OK)
            lim__artifact_unref(found);
    }
    assert_true(ambiguous >= 2); /* 600 hashes in 65536 prefixes: two share one, for these sources */
    for (int i = 0; i < 600; i++)
        lim__artifact_unref(all[i]);
    lim__artifacts_free(s);
}

static void test_what_is_no_hash_is_refused(void **state)
{
    (void)state;
    lim__artifacts *s = lim__artifacts_new();
    lim__artifact *a = put(s, "x", 0, NULL), *found;
    static const char *const bad[] = { "",     "abc",
                                       "abcg", "abcd ",
                                       "0x12", "00000000000000000000000000000000000000000000000000000000000000000" };
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_int_equal(lim__artifacts_get(s, lim__str(bad[i]), &found), LIM_E_INVALID);
    assert_int_equal(lim__artifacts_get(s, TEXT("0000"), &found), LIM_E_NOTFOUND);
    assert_int_equal(lim__artifacts_get(s, TEXT("ffffffff"), &found), LIM_E_NOTFOUND);
    assert_int_equal(lim__artifact_new(LIM__ENGINE_LUA, TEXT(""), NULL, 0, &found), LIM_E_INVALID);
    lim__artifact_unref(a);
    lim__artifacts_free(s);
}

static void test_the_list_is_in_the_order_things_were_put_and_forgetting_takes_out(void **state)
{
    (void)state;
    lim__artifacts *s = lim__artifacts_new();
    lim__artifact *a = put(s, "a", 1, NULL), *b = put(s, "b", 2, NULL), *c = put(s, "c", 3, NULL), *out[3];
    assert_int_equal(lim__artifacts_list(s, out, 2), 3);
    assert_ptr_equal(out[0], a);
    assert_ptr_equal(out[1], b);
    lim__artifact_unref(out[0]);
    lim__artifact_unref(out[1]);
    assert_true(lim__artifacts_forget(s, b));
    assert_false(lim__artifacts_forget(s, b));
    assert_int_equal(lim__artifacts_list(s, out, 3), 2);
    assert_ptr_equal(out[1], c);
    lim__artifact_unref(out[0]);
    lim__artifact_unref(out[1]);
    assert_true(lim__bytes_eq(b->bytes, TEXT("b")));
    lim__artifact_unref(a);
    lim__artifact_unref(b);
    lim__artifact_unref(c);
    lim__artifacts_free(s);
}

static void *put_and_get(void *arg)
{
    lim__artifacts *s = arg;
    for (int i = 0; i < 2000; i++) {
        char source[32];
        lim__artifact *a = NULL, *found = NULL;
        snprintf(source, sizeof source, "return %d", i % 50);
        lim_err err = lim__artifacts_put(s, LIM__ENGINE_LUA, lim__str(source), source, 1, NULL, &a);
        LIM_ASSERT(err == LIM_OK);
        err = lim__artifacts_get(s, lim__str(a->id), &found);
        LIM_ASSERT(err == LIM_OK && found == a);
        lim__artifact_unref(found);
        lim__artifact_unref(a);
    }
    return NULL;
}

static void test_threads_that_put_the_same_bytes_share_them(void **state)
{
    (void)state;
    lim__artifacts *s = lim__artifacts_new();
    pthread_t threads[4];
    for (size_t i = 0; i < LIM_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_and_get, s), 0);
    for (size_t i = 0; i < LIM_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(lim__artifacts_count(s), 50);
    lim__artifacts_free(s);
}

static void test_engines_have_names(void **state)
{
    (void)state;
    assert_string_equal(lim__engine_text(LIM__ENGINE_LUA), "lua");
    assert_string_equal(lim__engine_text((lim__engine)77), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_hash_is_sha256_of_the_bytes),
        cmocka_unit_test(test_the_same_bytes_are_the_same_artifact),
        cmocka_unit_test(test_the_same_bytes_under_two_engines_are_two_artifacts_and_the_newer_is_found),
        cmocka_unit_test(test_an_artifact_is_found_by_a_prefix_that_fits_only_it),
        cmocka_unit_test(test_what_is_no_hash_is_refused),
        cmocka_unit_test(test_the_list_is_in_the_order_things_were_put_and_forgetting_takes_out),
        cmocka_unit_test(test_threads_that_put_the_same_bytes_share_them),
        cmocka_unit_test(test_engines_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
