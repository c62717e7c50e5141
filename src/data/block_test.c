/* SPDX-License-Identifier: Apache-2.0
 * block_test.c - messages in a row: what is put in comes out, and nothing is read behind the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "data/block.h"
#include "data/data.h"

static const lim_bytes nothing = { NULL, 0 };

static bool is(lim_bytes bytes, const char *text)
{
    return lim__bytes_eq(bytes, lim__str(text));
}

static void test_what_is_put_in_comes_out(void **state)
{
    lim__buf headers = { 0 };
    lim_bytes h, p, text;
    (void)state;
    assert_int_equal(lim__packed_add(&headers, lim__str("a"), lim__str("1")), LIM_OK);
    lim__block *b = lim__block_new(100);
    assert_non_null(b);
    assert_true(lim__block_add(b, nothing, nothing, lim__str("plain")));
    assert_true(lim__block_add(b, nothing, lim__buf_bytes(&headers), nothing));
    assert_true(lim__block_add(b, lim__str("k"), nothing, lim__str("keyed")));
    assert_true(lim__block_add(b, lim__str("k2"), lim__buf_bytes(&headers), lim__str("both")));
    assert_int_equal(b->count, 4);
    lim_bytes rest = lim__bytes(b->bytes, b->len);
    assert_true(lim__block_next(&rest, &h, &p) && h.len == 0 && is(p, "plain"));
    assert_true(lim__block_next(&rest, &h, &p) && lim__bytes_eq(h, lim__buf_bytes(&headers)) && p.len == 0);
    assert_true(lim__block_next(&rest, &h, &p) && is(p, "keyed") && lim__packed_valid(h));
    assert_true(lim__packed_get(h, lim__str("$key"), &text) && is(text, "k"));
    assert_true(lim__block_next(&rest, &h, &p) && is(p, "both") && lim__packed_valid(h));
    assert_true(lim__packed_get(h, lim__str("$key"), &text) && is(text, "k2"));
    assert_true(lim__packed_get(h, lim__str("a"), &text) && is(text, "1"));
    assert_false(lim__block_next(&rest, &h, &p));
    assert_int_equal(rest.len, 0);
    lim__block_unref(b);
    lim__buf_fini(&headers);
}

static void test_what_does_not_fit_changes_nothing(void **state)
{
    static char long_headers[UINT16_MAX] = { 0, 0 };
    (void)state;
    lim__block *b = lim__block_new(LIM__BLOCK_HEAD + 4);
    assert_non_null(b);
    assert_false(lim__block_add(b, nothing, nothing, lim__str("12345")));
    assert_true(lim__block_add(b, nothing, nothing, lim__str("1234")));
    assert_false(lim__block_add(b, nothing, nothing, nothing));
    assert_int_equal(b->len, b->cap);
    lim__block_unref(b);
    b = lim__block_new(1 << 20);
    assert_non_null(b);
    assert_false(lim__block_add(b, lim__str("k"), lim__bytes(long_headers, sizeof long_headers), nothing));
    assert_int_equal(b->count, 0);
    lim__block_unref(b);
}

static void test_bytes_that_are_cut_are_not_read(void **state)
{
    lim_bytes h, p;
    (void)state;
    lim__block *b = lim__block_new(100);
    assert_non_null(b);
    assert_true(lim__block_add(b, lim__str("k"), nothing, lim__str("payload")));
    for (uint32_t len = 0; len < b->len; len++) {
        uint8_t *copy = malloc(len + 1); /* so that a look behind the end is seen */
        assert_non_null(copy);
        memcpy(copy, b->bytes, len);
        lim_bytes rest = lim__bytes(copy, len);
        assert_false(lim__block_next(&rest, &h, &p));
        assert_int_equal(rest.len, len);
        free(copy);
    }
    lim__block_unref(lim__block_ref(b));
    lim__block_unref(b);
    lim__block_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_put_in_comes_out),
        cmocka_unit_test(test_what_does_not_fit_changes_nothing),
        cmocka_unit_test(test_bytes_that_are_cut_are_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
