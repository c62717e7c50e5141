/* SPDX-License-Identifier: Apache-2.0
 * table_test.c - what tables look like. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const char *const columns[] = { "name", "n", "why" };

/* Prints rows of three cells, NULL-terminated; the text lives until the next call. */
static const char *printed(const char *const *cells)
{
    static lim__buf out;
    cli_table t;
    lim__buf_fini(&out);
    cli_table_begin(&t, columns, LIM_COUNT(columns));
    for (; *cells; cells++)
        cli_table_cell(&t, lim__str(*cells));
    cli_table_print(&t, &out);
    cli_table_fini(&t);
    lim__buf_add(&out, "", 1);
    return (const char *)out.ptr;
}

static void test_columns_are_as_wide_as_their_widest_cell_and_numbers_stand_to_the_right(void **state)
{
    const char *const cells[] = { "orders.new", "1200", "", "a", "7", "workers_full", NULL };
    (void)state;
    assert_string_equal(printed(cells), "NAME           N  WHY\n"
                                        "orders.new  1200  -\n"
                                        "a              7  workers_full\n");
}

static void test_a_table_without_rows_is_its_header(void **state)
{
    const char *const none[] = { NULL };
    (void)state;
    assert_string_equal(printed(none), "NAME  N  WHY\n");
}

static void test_width_is_counted_in_characters_and_control_characters_are_shown(void **state)
{
    const char *const cells[] = { "\xC3\xA4\xC3\xB6", "1", "x", "abc", "2", "a\033[1mb\n", NULL };
    (void)state;
    assert_string_equal(printed(cells), "NAME  N  WHY\n"
                                        "\xC3\xA4\xC3\xB6    1  x\n"
                                        "abc   2  a?[1mb?\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_are_as_wide_as_their_widest_cell_and_numbers_stand_to_the_right),
        cmocka_unit_test(test_a_table_without_rows_is_its_header),
        cmocka_unit_test(test_width_is_counted_in_characters_and_control_characters_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
