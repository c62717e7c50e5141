/* SPDX-License-Identifier: Apache-2.0
 * lines_test.c - lines from standard input, however they are cut. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct reading {
    struct cli cli;
    cli_lines lines;
    lim__buf seen; /* each line in brackets */
} reading;

static void on_more(void *state)
{
    reading *r = state;
    lim_bytes line;
    while (cli_lines_next(&r->lines, &line))
        lim__buf_format(&r->seen, "[%.*s]", (int)line.len, (const char *)line.ptr);
    r->cli.ended = r->lines.at_end;
}

/* Standard input becomes a pipe; its writing end. */
static int pipe_in(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    close(ends[0]);
    return ends[1];
}

static reading *open_reading(void)
{
    reading *r = calloc(1, sizeof *r);
    assert_non_null(r);
    lim__list_init(&r->cli.sources);
    r->cli.state = r;
    cli_lines_open(&r->lines, &r->cli, on_more);
    return r;
}

static void say(int to, const char *text)
{
    assert_int_equal(write(to, text, strlen(text)), strlen(text));
}

static void check(reading *r, const char *seen)
{
    assert_true(lim__bytes_eq(lim__buf_bytes(&r->seen), lim__str(seen)));
}

static void close_reading(reading *r)
{
    cli_lines_close(&r->lines);
    assert_true(lim__list_empty(&r->cli.sources));
    lim__buf_fini(&r->seen);
    free(r);
}

static void test_lines_come_whole_however_the_bytes_arrive(void **state)
{
    int to = pipe_in();
    reading *r = open_reading();
    (void)state;
    say(to, "a\nb");
    cli_turn(&r->cli);
    check(r, "[a]");
    say(to, "c");
    cli_turn(&r->cli);
    say(to, "d\n\n");
    cli_turn(&r->cli);
    check(r, "[a][bcd][]");
    close(to);
    cli_turn(&r->cli);
    assert_true(r->cli.ended);
    check(r, "[a][bcd][]");
    close_reading(r);
}

static void test_a_last_line_without_a_newline_counts(void **state)
{
    int to = pipe_in();
    reading *r = open_reading();
    (void)state;
    say(to, "a\nrest");
    close(to);
    while (!r->cli.ended)
        cli_turn(&r->cli);
    check(r, "[a][rest]");
    close_reading(r);
}

static void test_a_regular_file_and_no_input_at_all_are_read(void **state)
{
    FILE *file = tmpfile();
    (void)state;
    assert_non_null(file);
    fputs("one\ntwo\n", file);
    rewind(file);
    assert_int_equal(dup2(fileno(file), STDIN_FILENO), STDIN_FILENO);
    fclose(file);
    reading *r = open_reading();
    while (!r->cli.ended)
        cli_turn(&r->cli);
    check(r, "[one][two]");
    close_reading(r);
    close(pipe_in());
    r = open_reading();
    while (!r->cli.ended)
        cli_turn(&r->cli);
    check(r, "");
    close_reading(r);
}

static void test_a_line_over_the_limit_is_refused(void **state)
{
    FILE *file = tmpfile();
    char *big = calloc(1, CLI_LINE_MAX + 2);
    (void)state;
    assert_true(file && big);
    memset(big, 'x', CLI_LINE_MAX + 2);
    assert_int_equal(fwrite(big, 1, CLI_LINE_MAX + 2, file), CLI_LINE_MAX + 2);
    rewind(file);
    assert_int_equal(dup2(fileno(file), STDIN_FILENO), STDIN_FILENO);
    fclose(file);
    free(big);
    reading *r = open_reading();
    while (!r->cli.ended)
        cli_turn(&r->cli);
    check(r, "");
    assert_int_equal(r->cli.code, CLI_USAGE);
    close_reading(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_come_whole_however_the_bytes_arrive),
        cmocka_unit_test(test_a_last_line_without_a_newline_counts),
        cmocka_unit_test(test_a_regular_file_and_no_input_at_all_are_read),
        cmocka_unit_test(test_a_line_over_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
