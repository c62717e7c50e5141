/* SPDX-License-Identifier: Apache-2.0
 * crc32c_test.c - against the numbers that everybody has, and the two ways against each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/rng.h"

static void test_the_known_values(void **state)
{
    (void)state;
    uint8_t bytes[48];
    static uint32_t (*const ways[])(uint32_t, const void *, size_t) = { lim__crc32c, lim__crc32c_table };
    for (int way = 0; way < 2; way++) {
        assert_int_equal(ways[way](0, "", 0), 0);
        assert_int_equal(ways[way](0, "123456789", 9), 0xE3069283u);
        memset(bytes, 0, 32); /* these four: RFC 3720, B.4 */
        assert_int_equal(ways[way](0, bytes, 32), 0x8A9136AAu);
        memset(bytes, 0xff, 32);
        assert_int_equal(ways[way](0, bytes, 32), 0x62A8AB43u);
        for (int i = 0; i < 32; i++)
            bytes[i] = (uint8_t)i;
        assert_int_equal(ways[way](0, bytes, 32), 0x46DD794Eu);
        for (int i = 0; i < 32; i++)
            bytes[i] = (uint8_t)(31 - i);
        assert_int_equal(ways[way](0, bytes, 32), 0x113FDB5Cu);
    }
}

static void test_both_ways_agree_at_every_length_and_alignment(void **state)
{
    (void)state;
    enum { SIZE = 20000 };
    uint8_t *bytes = malloc(SIZE);
    assert_non_null(bytes);
    lim__rng rng = lim__rng_seeded(1);
    for (int i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)lim__rng_next(&rng);
    for (size_t len = 0; len < 1200; len++)
        assert_int_equal(lim__crc32c((uint32_t)len, bytes + len % 9, len),
                         lim__crc32c_table((uint32_t)len, bytes + len % 9, len));
    for (int i = 0; i < 300; i++) {
        size_t from = (size_t)lim__rng_below(&rng, 64), len = (size_t)lim__rng_below(&rng, SIZE - 64);
        assert_int_equal(lim__crc32c(7, bytes + from, len), lim__crc32c_table(7, bytes + from, len));
    }
    free(bytes);
}

static void test_a_checksum_can_be_continued(void **state)
{
    (void)state;
    static uint8_t bytes[9000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    uint32_t whole = lim__crc32c(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut += 613)
        assert_int_equal(lim__crc32c(lim__crc32c(0, bytes, cut), bytes + cut, sizeof bytes - cut), whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_known_values),
        cmocka_unit_test(test_both_ways_agree_at_every_length_and_alignment),
        cmocka_unit_test(test_a_checksum_can_be_continued),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
