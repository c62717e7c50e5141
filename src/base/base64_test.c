/* SPDX-License-Identifier: Apache-2.0
 * base64_test.c - the examples of RFC 4648, all lengths there and back, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/base64.h"

static void test_the_examples_of_rfc_4648(void **state)
{
    static const char *const pairs[][2] = { { "", "" },
                                            { "f", "Zg==" },
                                            { "fo", "Zm8=" },
                                            { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" },
                                            { "fooba", "Zm9vYmE=" },
                                            { "foobar", "Zm9vYmFy" } };
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(pairs); i++) {
        lim__buf there = { 0 }, back = { 0 };
        lim__base64_write(&there, lim__str(pairs[i][0]));
        assert_true(lim__bytes_eq(lim__buf_bytes(&there), lim__str(pairs[i][1])));
        assert_true(lim__base64_read(&back, lim__buf_bytes(&there)));
        assert_true(lim__bytes_eq(lim__buf_bytes(&back), lim__str(pairs[i][0])));
        lim__buf_fini(&there);
        lim__buf_fini(&back);
    }
}

static void test_every_byte_comes_back(void **state)
{
    (void)state;
    uint8_t all[256];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (uint8_t)(i * 37);
    for (size_t len = 0; len <= sizeof all; len++) {
        lim__buf there = { 0 }, back = { 0 };
        lim__base64_write(&there, lim__bytes(all, len));
        assert_int_equal(lim__buf_len(&there), (len + 2) / 3 * 4);
        assert_true(lim__base64_read(&back, lim__buf_bytes(&there)));
        assert_true(lim__bytes_eq(lim__buf_bytes(&back), lim__bytes(all, len)));
        lim__buf_fini(&there);
        lim__buf_fini(&back);
    }
}

static void test_what_is_no_base64_is_told(void **state)
{
    static const char *const bad[] = {
        "Z", "Zg", "Zg=", "Zg===", "Z===", "====", "Zm9v!A==", "=g==", "Zm=v", "Zm9v Zg="
    };
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        lim__buf out = { 0 };
        if (lim__base64_read(&out, lim__str(bad[i])))
            fail_msg("took %s", bad[i]);
        lim__buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_examples_of_rfc_4648),
        cmocka_unit_test(test_every_byte_comes_back),
        cmocka_unit_test(test_what_is_no_base64_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
