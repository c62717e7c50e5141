/* SPDX-License-Identifier: Apache-2.0
 * base_test.c - errors have words, lists and histograms keep their promises, the generator is the same everywhere. */
#include "base/base.h"
#include "base/hist.h"
#include "base/list.h"
#include "base/rng.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void test_the_library_knows_its_version(void **state)
{
    (void)state;
    assert_string_equal(lim_version(), LIM_VERSION);
}

static void test_every_error_has_a_name_and_a_text(void **state)
{
    (void)state;
    assert_string_equal(lim_err_name(LIM_OK), "OK");
    assert_string_equal(lim_err_name(LIM_E_GONE), "GONE");
    assert_string_equal(lim_err_text(LIM_E_TIMEOUT), "timed out");
    for (int e = LIM_OK; e <= LIM_E_DENIED; e++) {
        assert_string_not_equal(lim_err_name((lim_err)e), "UNKNOWN");
        assert_string_not_equal(lim_err_text((lim_err)e), "unknown error");
    }
    assert_string_equal(lim_err_name((lim_err)9999), "UNKNOWN");
}

static void test_a_failed_assertion_aborts(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(2);
        signal(SIGABRT, SIG_DFL);
        LIM_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_a_never_is_counted(void **state)
{
    (void)state;
    uint64_t before = lim__never_count();
    assert_true(lim__never("here", 1, "a test says so"));
    assert_int_equal(lim__never_count(), before + 1);
}

static void test_a_diag_is_optional_and_cut_to_its_size(void **state)
{
    (void)state;
    lim__diag_set(NULL, 1, 2, "nobody reads this");
    lim_diag d;
    lim__diag_set(&d, 3, 4, "%0500d", 7);
    assert_int_equal(d.line, 3);
    assert_int_equal(d.column, 4);
    assert_int_equal(strlen(d.text), sizeof d.text - 1);
}

static void test_a_list_is_a_queue(void **state)
{
    (void)state;
    lim__list head, node[3];
    lim__list_init(&head);
    assert_null(lim__list_pop(&head));
    lim__list_push(&head, &node[1]);
    lim__list_push(&head, &node[2]);
    lim__list_push_front(&head, &node[0]);
    lim__list_remove(&node[1]);
    lim__list_remove(&node[1]);
    assert_ptr_equal(lim__list_pop(&head), &node[0]);
    assert_ptr_equal(lim__list_pop(&head), &node[2]);
    assert_true(lim__list_empty(&head));
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_percentiles_are_within_three_percent(void **state)
{
    (void)state;
    enum { N = 20000 };
    static uint64_t values[N];
    static lim__hist h, half, whole;
    lim__rng r = lim__rng_seeded(11);
    for (int i = 0; i < N; i++) {
        values[i] = lim__rng_next(&r) >> lim__rng_below(&r, 64);
        lim__hist_record(i % 2 ? &half : &whole, values[i]);
        lim__hist_record(&h, values[i]);
    }
    lim__hist_merge(&whole, &half);
    assert_memory_equal(&whole, &h, sizeof h);
    qsort(values, N, sizeof values[0], compare_u64);
    static const double percentiles[] = { 0, 1, 10, 50, 90, 99, 99.9, 100 };
    for (size_t i = 0; i < LIM_COUNT(percentiles); i++) {
        size_t rank = (size_t)(percentiles[i] / 100.0 * N + 0.999999);
        double exact = (double)values[rank ? rank - 1 : 0], got = (double)lim__hist_percentile(&h, percentiles[i]);
        assert_true(got >= exact * (1 - 1.0 / 32) && got <= exact * (1 + 1.0 / 32));
    }
    assert_int_equal(lim__hist_percentile(&h, 100), values[N - 1]);
    lim__hist_reset(&h);
    assert_int_equal(lim__hist_percentile(&h, 50), 0);
}

static void test_the_extremes_have_buckets(void **state)
{
    (void)state;
    static lim__hist h;
    lim__hist_record(&h, 0);
    lim__hist_record_n(&h, UINT64_MAX, 3);
    assert_int_equal(h.count, 4);
    assert_int_equal(lim__hist_percentile(&h, 25), 0);
    assert_int_equal(lim__hist_percentile(&h, 100), UINT64_MAX);
    static lim__hist small;
    for (uint64_t v = 0; v < 32; v++)
        lim__hist_record(&small, v);
    assert_int_equal(lim__hist_percentile(&small, 50), 15);
    assert_true(lim__hist_mean(&small) > 15.4 && lim__hist_mean(&small) < 15.6);
}

static void test_the_generator_is_seeded_and_unbiased_enough(void **state)
{
    (void)state;
    uint64_t sm = 0;
    assert_int_equal(lim__splitmix64(&sm), 0xE220A8397B1DCDAFu); /* the published first output for seed 0 */
    lim__rng a = lim__rng_seeded(1), b = lim__rng_seeded(1), c = lim__rng_seeded(2);
    assert_int_equal(lim__rng_next(&a), lim__rng_next(&b));
    assert_int_not_equal(lim__rng_next(&a), lim__rng_next(&c));
    unsigned counts[6] = { 0 };
    for (int i = 0; i < 60000; i++)
        counts[lim__rng_below(&a, 6)]++;
    for (int i = 0; i < 6; i++)
        assert_in_range(counts[i], 9500, 10500);
    for (int i = 0; i < 1000; i++)
        assert_in_range(lim__rng_range(&a, 10, 12), 10, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_library_knows_its_version),
        cmocka_unit_test(test_every_error_has_a_name_and_a_text),
        cmocka_unit_test(test_a_failed_assertion_aborts),
        cmocka_unit_test(test_a_never_is_counted),
        cmocka_unit_test(test_a_diag_is_optional_and_cut_to_its_size),
        cmocka_unit_test(test_a_list_is_a_queue),
        cmocka_unit_test(test_percentiles_are_within_three_percent),
        cmocka_unit_test(test_the_extremes_have_buckets),
        cmocka_unit_test(test_the_generator_is_seeded_and_unbiased_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
