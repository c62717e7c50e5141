/* SPDX-License-Identifier: Apache-2.0
 * channel_name_test.c - which names are names, which patterns match them, and that ids are not used twice. */
#include "bus/channel_inside.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_names_are_segments_joined_by_dots(void **state) /* proves CH1 */
{
    (void)state;
    static const char *const good[] = { "a", "a.b", "A-z_09.x.y", "$sys.channels", "$a", "-", "_._" };
    static const char *const bad[] = { "",     ".",   "a.", ".a",   "a..b",   "a b",    "a/b",
                                       "*",    "a.*", ">",  "a.>",  "$",      "$.a",    "a$b",
                                       "a.$b", "$$a", "é",  "a\tb", "a.b.c.", "a\nb.c", "a,b" };
    for (size_t i = 0; i < LIM_COUNT(good); i++)
        assert_true(lim__channel_name_ok(lim__str(good[i])) && lim__channel_pattern_ok(lim__str(good[i])));
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_false(lim__channel_name_ok(lim__str(bad[i])));
    assert_false(lim__channel_name_ok(lim__bytes("a\0b", 3)));
}

static void test_a_name_has_at_most_255_bytes(void **state) /* proves CH1 */
{
    (void)state;
    char text[257];
    memset(text, 'a', sizeof text);
    assert_true(lim__channel_name_ok(lim__bytes(text, 255)));
    assert_true(lim__channel_pattern_ok(lim__bytes(text, 255)));
    assert_false(lim__channel_name_ok(lim__bytes(text, 256)));
    assert_false(lim__channel_pattern_ok(lim__bytes(text, 256)));
}

static void test_patterns_have_wildcards_as_whole_segments(void **state) /* proves CH1 */
{
    (void)state;
    static const char *const good[] = { "*", ">", "a.*", "*.a", "*.*", "a.>", "*.>", "a.*.b.>", "$sys.>", "$sys.*.x" };
    static const char *const bad[] = {
        "**", "a*", "*a", ">.a", "a.>.b", "a>", ">>", "*.", ".*", "$*", "$>", "", "a..>"
    };
    for (size_t i = 0; i < LIM_COUNT(good); i++)
        assert_true(lim__channel_pattern_ok(lim__str(good[i])));
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_false(lim__channel_pattern_ok(lim__str(bad[i])));
}

static void test_a_star_is_one_segment_and_an_arrow_is_the_rest(void **state) /* proves CH1 */
{
    (void)state;
    static const struct {
        const char *pattern, *name;
        bool matches;
    } table[] = {
        { "a", "a", true },           { "a", "b", false },          { "a", "a.b", false },
        { "a.b", "a", false },        { "a.b", "a.b", true },       { "ab", "a", false },
        { "a", "ab", false },         { "*", "a", true },           { "*", "abc", true },
        { "*", "a.b", false },        { "*.*", "a.b", true },       { "*.*", "a", false },
        { "*.*", "a.b.c", false },    { "a.*", "a.b", true },       { "a.*", "a", false },
        { "a.*", "b.a", false },      { "a.*", "a.b.c", false },    { "*.b", "a.b", true },
        { "*.b", "a.c", false },      { ">", "a", true },           { ">", "a.b.c", true },
        { "a.>", "a.b", true },       { "a.>", "a.b.c.d", true },   { "a.>", "a", false },
        { "a.>", "b.c", false },      { "a.>", "ab.c", false },     { "*.>", "a", false },
        { "*.>", "a.b", true },       { "a.*.c", "a.b.c", true },   { "a.*.c", "a.b.d", false },
        { "a.*.>", "a.b", false },    { "a.*.>", "a.b.c", true },   { ">", "$sys.a", false },
        { "*", "$sys", false },       { "*.a", "$sys.a", false },   { "$sys.>", "$sys.a", true },
        { "$sys.*", "$sys.a", true }, { "$sys.>", "sys.a", false }, { "$sys.*", "$sys", false },
        { "a.b", "a.bc", false },
    };
    for (size_t i = 0; i < LIM_COUNT(table); i++) {
        bool matches = lim__channel_matches(lim__str(table[i].pattern), lim__str(table[i].name));
        if (matches != table[i].matches)
            fail_msg("%s and %s", table[i].pattern, table[i].name);
    }
}

static void test_an_id_is_never_given_out_twice(void **state)
{
    (void)state;
    static lim__ids ids;
    static uint64_t seen[5000];
    int thing, other;
    for (size_t i = 0; i < LIM_COUNT(seen); i++) {
        seen[i] = lim__ids_take(&ids);
        assert_true(seen[i] != 0);
        lim__ids_set(&ids, seen[i], &thing);
        if (i % 3)
            lim__ids_give(&ids, seen[i]);
        for (size_t j = i > 40 ? i - 40 : 0; j < i; j++)
            assert_true(seen[j] != seen[i]);
    }
    assert_ptr_equal(lim__ids_get(&ids, seen[0]), &thing);
    uint64_t again = lim__ids_take(&ids);
    lim__ids_set(&ids, again, &other);
    assert_ptr_equal(lim__ids_get(&ids, again), &other);
    assert_null(lim__ids_get(&ids, 0));
    assert_null(lim__ids_get(&ids, UINT64_MAX));
    lim__ids_fini(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_segments_joined_by_dots),
        cmocka_unit_test(test_a_name_has_at_most_255_bytes),
        cmocka_unit_test(test_patterns_have_wildcards_as_whole_segments),
        cmocka_unit_test(test_a_star_is_one_segment_and_an_arrow_is_the_rest),
        cmocka_unit_test(test_an_id_is_never_given_out_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
