/* SPDX-License-Identifier: Apache-2.0
 * near_test.c - distances between names, and the nearest of several. */
#include "base/near.h"
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static size_t distance(const char *a, const char *b)
{
    return lim__name_distance(lim__str(a), lim__str(b));
}

static void test_every_edit_counts_one_and_so_do_neighbours_in_the_wrong_order(void **state)
{
    (void)state;
    assert_int_equal(distance("", ""), 0);
    assert_int_equal(distance("", "abc"), 3);
    assert_int_equal(distance("abc", ""), 3);
    assert_int_equal(distance("abc", "abc"), 0);
    assert_int_equal(distance("abc", "axc"), 1);
    assert_int_equal(distance("abc", "abxc"), 1);
    assert_int_equal(distance("abc", "acb"), 1);
    assert_int_equal(distance("ab", "ba"), 1);
    assert_int_equal(distance("kitten", "sitting"), 3);
}

static void test_a_name_that_is_too_long_is_far_from_everything(void **state)
{
    char name[LIM__NEAR_MAX + 2];
    (void)state;
    memset(name, 'x', sizeof name);
    assert_int_equal(lim__name_distance(lim__bytes(name, LIM__NEAR_MAX), lim__bytes(name, LIM__NEAR_MAX)), 0);
    assert_true(lim__name_distance(lim__bytes(name, LIM__NEAR_MAX + 1), lim__str("x")) == SIZE_MAX);
    lim__near n = { .word = lim__bytes(name, LIM__NEAR_MAX + 1) };
    lim__near_offer(&n, lim__bytes(name, LIM__NEAR_MAX + 1));
    assert_int_equal(n.best.len, 0);
}

static bool nearest_is(const char *word, const char *wanted)
{
    static const char *const names[] = { "pub", "sub", "dispatch", "deploy", "channel", "conversation" };
    lim__near n = { .word = lim__str(word) };
    for (size_t i = 0; i < LIM_COUNT(names); i++)
        lim__near_offer(&n, lim__str(names[i]));
    return lim__bytes_eq(n.best, lim__str(wanted));
}

static void test_the_nearest_name_is_the_one_with_the_fewest_edits(void **state) /* proves SV6 */
{
    (void)state;
    assert_true(nearest_is("dispach", "dispatch"));
    assert_true(nearest_is("delpoy", "deploy"));
    assert_true(nearest_is("chanels", "channel"));
    assert_true(nearest_is("conv", "conversation"));
    assert_true(nearest_is("sbu", "sub"));
    assert_true(nearest_is("xyzzy", ""));
    assert_true(nearest_is("", ""));
    assert_true(nearest_is("a-word-that-is-longer-than-any-name-could-ever-be-and-so-is-not-looked-at", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_edit_counts_one_and_so_do_neighbours_in_the_wrong_order),
        cmocka_unit_test(test_a_name_that_is_too_long_is_far_from_everything),
        cmocka_unit_test(test_the_nearest_name_is_the_one_with_the_fewest_edits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
