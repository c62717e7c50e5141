/* SPDX-License-Identifier: Apache-2.0
 * store_test.c - liminal store, as people meet it: real stores, the program, its output and exit codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "store/store.h"

typedef struct world {
    char top[64], dir[80], output[16384];
    lim__store *store;
} world;

static void open_store(world *w)
{
    lim__store_error error;
    lim__store_opts opts = {
        .os = lim__os_linux(), .dir = w->dir, .segment_bytes = 128 << 10, .index_map_bytes = 1 << 28
    };
    assert_int_equal(lim__store_open(&opts, &error, &w->store), 0);
}

static void on_done(void *ctx, lim__batch *b, const lim__committed *what)
{
    assert_int_equal(what->how, LIM__COMMITTED);
    ++*(int *)ctx;
    lim__batch_free(b);
}

static void commit(world *w, lim__batch *b)
{
    int done = 0;
    assert_int_equal(lim__store_submit(w->store, b, on_done, &done), 0);
    while (lim__store_turn(w->store, NULL))
        continue;
    assert_int_equal(done, 1);
}

/* Three records of stream 7, one of 8, a row in each of two tables; closed again. */
static int set_up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    snprintf(w->top, sizeof w->top, "/tmp/liminal-store-cli-XXXXXX");
    assert_non_null(mkdtemp(w->top));
    snprintf(w->dir, sizeof w->dir, "%s/store", w->top);
    open_store(w);
    lim__batch *b = lim__batch_new();
    lim__batch_append(b, 7, lim__str(""), &(lim_bytes){ "one", 3 }, 1);
    lim__batch_append(b, 7, lim__str("a key"), &(lim_bytes){ "two \"words\"", 11 }, 1);
    lim__batch_append(b, 8, lim__str(""), &(lim_bytes){ "\xff\x00", 2 }, 1);
    lim__batch_put(b, 3, lim__str("row"), lim__str("value"));
    commit(w, b);
    b = lim__batch_new();
    lim__batch_append(b, 7, lim__str(""), &(lim_bytes){ "three", 5 }, 1);
    lim__batch_put(b, 4, lim__bytes("\x01\x02", 2), lim__str("another"));
    lim__batch_trim(b, 7, 2);
    commit(w, b);
    lim__store_close(w->store);
    w->store = NULL;
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world *w = *state;
    char command[128];
    lim__store_close(w->store);
    snprintf(command, sizeof command, "rm -rf %s", w->top);
    int code = system(command);
    free(w);
    return code;
}

/* Its exit code; what it says on both streams is in w->output. */
__attribute__((format(printf, 2, 3))) static int run(world *w, const char *format, ...)
{
    char arguments[400], command[600];
    va_list args;
    va_start(args, format);
    vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    snprintf(command, sizeof command, "cd %s && \"$LIMINAL\" %s 2>&1", w->top, arguments);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(w->output, 1, sizeof w->output - 1, f);
    w->output[n] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool says(world *w, const char *text)
{
    return strstr(w->output, text) != NULL;
}

static void spoil(world *w, const char *dir, const char *bytes)
{
    char path[200];
    static char content[1 << 20];
    snprintf(path, sizeof path, "%s/%s/0000000000000001.seg", w->top, dir);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    size_t n = fread(content, 1, sizeof content, f);
    const char *at = memmem(content, n, bytes, strlen(bytes));
    assert_non_null(at);
    fseek(f, at - content, SEEK_SET);
    fputc('X', f);
    fclose(f);
}

/* proves DU7 */
static void test_a_store_in_order_is_said_to_be_and_a_damaged_one_ends_with_1(void **state)
{
    world *w = *state;
    assert_int_equal(run(w, "store check store"), 0);
    assert_string_equal(w->output, "in order\n");
    spoil(w, "store", "one");
    assert_int_equal(run(w, "store check store"), 1);
    assert_true(says(w, "segment 0000000000000001") && says(w, "damaged"));
    assert_int_equal(run(w, "store check store --json"), 1);
    assert_true(says(w, "{\"finding\":\""));
    assert_int_equal(run(w, "store check nothing"), 7);
    assert_int_equal(run(w, "store check"), 2);
}

static void test_a_dump_is_every_record_and_row_once(void **state)
{
    world *w = *state;
    assert_int_equal(run(w, "store dump store --json | sed 's/\"wall_us\":[0-9]*/\"wall_us\":0/'"), 0);
    assert_string_equal(w->output,
                        "{\"stream\":7,\"seq\":2,\"wall_us\":0,\"key\":\"a key\",\"payload\":\"two \\\"words\\\"\"}\n"
                        "{\"stream\":7,\"seq\":3,\"wall_us\":0,\"payload\":\"three\"}\n"
                        "{\"stream\":8,\"seq\":1,\"wall_us\":0,\"payload_base64\":\"/wA=\"}\n"
                        "{\"table\":3,\"key\":\"row\",\"value\":\"value\"}\n"
                        "{\"table\":4,\"key\":\"\\u0001\\u0002\",\"value\":\"another\"}\n");
    assert_int_equal(run(w, "store dump store stream=8"), 0);
    assert_true(says(w, "stream 8 1 at ") && says(w, " \\xff\\x00\n"));
    assert_false(says(w, "stream 7") || says(w, "table"));
    assert_int_equal(run(w, "store dump store table=4"), 0);
    assert_string_equal(w->output, "table 4 \\x01\\x02 = another\n");
    assert_int_equal(run(w, "store dump store table=99"), 2);
    assert_int_equal(run(w, "store dump store strem=1"), 2);
    assert_int_equal(run(w, "store dump nothing"), 7);
}

static void test_a_dump_of_a_damaged_store_says_what_is_lost_and_has_the_rest(void **state)
{
    world *w = *state;
    spoil(w, "store", "three");
    assert_int_equal(run(w, "store dump store"), 1);
    assert_true(says(w, "stream 7 3 lost\n") && says(w, "stream 7 2 at ") && says(w, "table 4"));
}

static void test_what_a_server_has_open_is_refused(void **state)
{
    world *w = *state;
    open_store(w);
    assert_int_equal(run(w, "store check store"), 6);
    assert_int_equal(run(w, "store dump store"), 6);
    assert_int_equal(run(w, "store backup store copy"), 6);
}

/* proves DU7 */
static void test_a_copy_is_restored_into_an_empty_directory_only(void **state)
{
    world *w = *state;
    assert_int_equal(run(w, "store backup store copy"), 0);
    assert_string_equal(w->output, "copied to copy\n");
    assert_int_equal(run(w, "store backup store copy"), 6);
    assert_true(says(w, "it is not empty"));
    assert_int_equal(run(w, "store restore copy again"), 0);
    assert_int_equal(run(w, "store restore copy again"), 6);
    assert_int_equal(run(w, "store dump again stream=7"), 0);
    assert_true(says(w, "stream 7 2 at ") && says(w, "three"));
    spoil(w, "copy", "three");
    assert_int_equal(run(w, "store restore copy third"), 1);
    assert_int_equal(run(w, "store dump third"), 7);
    snprintf(w->dir, sizeof w->dir, "%.60s/again", w->top);
    open_store(w);
    lim__stream_info info;
    assert_int_equal(lim__store_stream(w->store, 7, &info), 0);
    assert_int_equal(info.next, 4);
}

static void test_a_server_is_asked_with_a_whole_path(void **state)
{
    world *w = *state;
    assert_int_equal(run(w, "store backup copy"), 2);
    assert_true(says(w, "from / on"));
    assert_int_equal(run(w, "store backup /tmp/nowhere --server 127.0.0.1:1"), 3);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EACH(test_a_store_in_order_is_said_to_be_and_a_damaged_one_ends_with_1),
        EACH(test_a_dump_is_every_record_and_row_once),
        EACH(test_a_dump_of_a_damaged_store_says_what_is_lost_and_has_the_rest),
        EACH(test_what_a_server_has_open_is_refused),
        EACH(test_a_copy_is_restored_into_an_empty_directory_only),
        EACH(test_a_server_is_asked_with_a_whole_path),
    };
    if (!getenv("LIMINAL"))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
