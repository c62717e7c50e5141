/* SPDX-License-Identifier: Apache-2.0
 * args_test.c - flags, words, which command they name, and what is said when they name none. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { WORDS_MAX = 128 };

/* Parses a line cut at its spaces; the words live until the next call. */
static bool parse(cli_args *a, const char *line)
{
    static char text[4096];
    static char *argv[WORDS_MAX];
    static char name[] = "liminal";
    int argc = 1;
    argv[0] = name;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word && argc < WORDS_MAX; word = strtok(NULL, " "))
        argv[argc++] = word;
    return cli_args_parse(a, argc, argv);
}

static const cli_command *found(cli_args *a, const char *line)
{
    assert_true(parse(a, line));
    const cli_command *command = cli_command_find(a);
    assert_non_null(command);
    return command;
}

/* What the line is refused with, by the parser or the table of commands. */
static const char *problem(const char *line)
{
    static cli_args a;
    if (parse(&a, line))
        assert_null(cli_command_find(&a));
    assert_string_not_equal(a.problem, "");
    return a.problem;
}

static void test_json_and_server_stand_before_or_after_the_verb(void **state) /* proves SV5 */
{
    const char *const lines[] = { "--json --server h:1 ask g hello", "ask g hello --json --server=h:1",
                                  "ask --server h:1 g --json hello" };
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(lines); i++) {
        cli_args a;
        assert_string_equal(found(&a, lines[i])->name, "ask");
        assert_true(a.opts.json);
        assert_string_equal(a.opts.server, "h:1");
        assert_int_equal(a.word_count, 3);
        assert_string_equal(a.words[2], "hello");
    }
}

static void test_each_kind_of_flag_lands_in_its_field(void **state)
{
    cli_args a;
    (void)state;
    found(&a, "work q --exec cat --capacity 4 --type a --type b --tag big --identity w --no-reconnect --max 7");
    assert_string_equal(a.opts.exec, "cat");
    assert_int_equal(a.opts.capacity, 4);
    assert_int_equal(a.opts.types.count, 2);
    assert_string_equal(a.opts.types.items[1], "b");
    assert_null(a.opts.types.items[2]);
    assert_string_equal(a.opts.tags.items[0], "big");
    assert_int_equal(a.opts.max, 7);
    assert_true(a.opts.no_reconnect);
    found(&a, "sub c --policy close");
    assert_int_equal(a.opts.policy, LIM_CLOSE_SUB);
    found(&a, "deploy g f.lua --cpu 500us --memory 64KiB --log-bytes 1KiB --on-fault previous");
    assert_int_equal(a.opts.cpu_us, 500);
    assert_int_equal(a.opts.memory_bytes, 65536);
    assert_int_equal(a.opts.log_bytes, 1024);
    assert_int_equal(a.opts.on_fault, LIM_ON_FAULT_PREVIOUS);
}

static void test_two_dashes_end_the_flags_and_one_dash_is_a_word(void **state)
{
    cli_args a;
    (void)state;
    found(&a, "pub c -- --json");
    assert_false(a.opts.json);
    assert_string_equal(a.words[2], "--json");
    found(&a, "pub c -");
    assert_string_equal(a.words[2], "-");
}

static void test_a_noun_and_its_verb_are_one_command(void **state)
{
    cli_args a;
    (void)state;
    assert_string_equal(found(&a, "worker show w --json")->name, "worker show");
    assert_string_equal(found(&a, "channel create c --allow-hold")->name, "channel create");
    assert_string_equal(found(&a, "queue ls")->name, "queue ls");
}

static void test_an_unknown_name_is_answered_with_the_nearest_known_one(void **state) /* proves SV6 */
{
    (void)state;
    assert_string_equal(problem("dispach q"), "dispach: unknown command; did you mean dispatch?");
    assert_string_equal(problem("xyzzy"), "xyzzy: unknown command; liminal alone lists them");
    assert_string_equal(problem("chanel ls"), "chanel: unknown command; did you mean channel?");
    assert_string_equal(problem("worker shwo w"), "worker shwo: unknown verb; did you mean worker show?");
    assert_string_equal(problem("worker xyzzy"), "worker xyzzy: unknown verb; write one of ls, show, drain, resume");
    assert_string_equal(problem("worker"), "worker: its verb is missing; write one of ls, show, drain, resume");
    assert_string_equal(problem("ask g --timout 2s"), "--timout: unknown flag; did you mean --timeout?");
    assert_non_null(strstr(problem("ask g -5"), "write -- before it"));
}

static void test_a_flag_is_refused_where_it_means_nothing(void **state) /* proves SV6 */
{
    (void)state;
    assert_string_equal(problem("pub c x --exec cat"), "--exec: pub does not take this flag; see liminal help pub");
    assert_string_equal(problem("ask g --timeout 5"), "--timeout 5: a bare number could be seconds or milliseconds; "
                                                      "write 250ms, 2s or 5m");
    assert_string_equal(problem("ask g --timeout"), "--timeout: its value is missing; write --timeout D");
    assert_string_equal(problem("ask g --json=yes"), "--json yes: it takes no value; leave it out");
    assert_non_null(strstr(problem("sub c --policy drop"), "hold, drop-oldest, drop-newest, close"));
}

static void test_words_are_counted(void **state) /* proves SV6 */
{
    (void)state;
    assert_string_equal(problem("pub"), "pub: something is missing; write liminal pub CHANNEL [PAYLOAD|-]");
    assert_string_equal(problem("pub c two words"),
                        "words: one word too many; write liminal pub CHANNEL [PAYLOAD|-], text with spaces in quotes");
    char line[200] = "pub";
    for (int i = 0; i < CLI_WORDS_MAX; i++)
        strcat(line, " x");
    assert_non_null(strstr(problem(line), "too many words"));
}

static void test_a_list_of_tags_has_a_limit(void **state)
{
    char line[1024] = "work q";
    (void)state;
    for (int i = 0; i < 33; i++)
        strcat(line, " --tag t");
    assert_string_equal(problem(line), "--tag t: 32 of them are the limit; leave some out");
}

static void test_help_needs_no_words(void **state)
{
    cli_args a;
    (void)state;
    assert_string_equal(found(&a, "pub --help")->name, "pub");
    assert_string_equal(found(&a, "pub -h")->name, "pub");
}

static void test_every_flag_a_command_names_exists(void **state)
{
    size_t count, flag_count;
    const cli_command *commands = cli_commands(&count);
    const cli_flag *flags = cli_flags(&flag_count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        char names[256];
        snprintf(names, sizeof names, "%s", commands[i].flags);
        for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) {
            size_t k = 0;
            while (k < flag_count && strcmp(cli_flag_listed(&flags[k]), name) != 0)
                k++;
            assert_true(k < flag_count);
            assert_true(cli_command_takes(&commands[i], &flags[k]));
        }
    }
}

static void test_the_overview_shows_every_command_with_an_example(void **state) /* proves SV5 */
{
    size_t count;
    const cli_command *commands = cli_commands(&count);
    lim__buf out = { 0 };
    (void)state;
    assert_int_equal(cli_help_all(&out), CLI_DONE);
    lim__buf_add(&out, "", 1);
    for (size_t i = 0; i < count; i++) {
        if (!strchr(commands[i].name, ' '))
            assert_non_null(strstr((char *)out.ptr, commands[i].example));
    }
    assert_non_null(strstr((char *)out.ptr, "channel ls|show|create|close"));
    lim__buf_fini(&out);
}

static void test_the_worse_of_two_exit_codes_counts(void **state)
{
    (void)state;
    assert_int_equal(cli_worse(CLI_DONE, CLI_FAILED), CLI_FAILED);
    assert_int_equal(cli_worse(CLI_CRASHED, CLI_REJECTED), CLI_CRASHED);
    assert_int_equal(cli_worse(CLI_UNREACHABLE, CLI_CRASHED), CLI_UNREACHABLE);
    assert_int_equal(cli_worse(CLI_DONE, CLI_DONE), CLI_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_and_server_stand_before_or_after_the_verb),
        cmocka_unit_test(test_each_kind_of_flag_lands_in_its_field),
        cmocka_unit_test(test_two_dashes_end_the_flags_and_one_dash_is_a_word),
        cmocka_unit_test(test_a_noun_and_its_verb_are_one_command),
        cmocka_unit_test(test_an_unknown_name_is_answered_with_the_nearest_known_one),
        cmocka_unit_test(test_a_flag_is_refused_where_it_means_nothing),
        cmocka_unit_test(test_words_are_counted),
        cmocka_unit_test(test_a_list_of_tags_has_a_limit),
        cmocka_unit_test(test_help_needs_no_words),
        cmocka_unit_test(test_every_flag_a_command_names_exists),
        cmocka_unit_test(test_the_overview_shows_every_command_with_an_example),
        cmocka_unit_test(test_the_worse_of_two_exit_codes_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
