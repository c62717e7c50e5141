/* SPDX-License-Identifier: Apache-2.0
 * newest_test.c - what was heard is known, and the memory for that is bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/newest.h"

static void test_what_was_heard_is_not_newer_and_what_follows_is(void **state)
{
    (void)state;
    lim__newest n;
    lim__newest_init(&n, 7);
    for (uint64_t key = 1; key <= 100; key++) {
        assert_true(lim__newest_is(&n, key, 5));
        assert_false(lim__newest_is(&n, key, 5));
        assert_false(lim__newest_is(&n, key, 3));
        assert_true(lim__newest_has(&n, key, 3) && lim__newest_has(&n, key, 5) && !lim__newest_has(&n, key, 6));
        assert_true(lim__newest_is(&n, key, 9));
        assert_false(lim__newest_is(&n, key, 5));
    }
    lim__newest_fini(&n);
}

static void test_one_is_remembered_until_many_others_were_heard_of(void **state)
{
    (void)state;
    lim__newest n;
    lim__newest_init(&n, 7);
    assert_true(lim__newest_is(&n, 1, 5));
    for (uint64_t key = 2; key <= LIM__NEWEST_MAX + 10; key++) {
        assert_true(lim__newest_is(&n, key, 1));
        assert_true(n.young.count <= LIM__NEWEST_MAX && n.old.count <= LIM__NEWEST_MAX);
    }
    assert_false(lim__newest_is(&n, 1, 5)); /* old, and young again by this */
    for (uint64_t key = 100000; key < 100000 + 4 * LIM__NEWEST_MAX; key++) {
        assert_true(lim__newest_is(&n, key, 1));
        if (key % 1000 == 0)
            assert_false(lim__newest_is(&n, 1, 5)); /* it is heard of now and then */
    }
    for (uint64_t key = 200000; key < 200000 + 2 * LIM__NEWEST_MAX; key++)
        assert_true(lim__newest_is(&n, key, 1));
    assert_true(n.young.count <= LIM__NEWEST_MAX && n.old.count <= LIM__NEWEST_MAX);
    assert_true(lim__newest_is(&n, 1, 5)); /* forgotten */
    lim__newest_fini(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_heard_is_not_newer_and_what_follows_is),
        cmocka_unit_test(test_one_is_remembered_until_many_others_were_heard_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
