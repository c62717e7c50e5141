/* SPDX-License-Identifier: Apache-2.0
 * outcome_test.c - outcomes that outlive what they were read from, and their words. */
#include "data/outcome.h"
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_a_copied_outcome_outlives_its_source(void **state)
{
    (void)state;
    char payload[] = "reply", detail[] = "why not", who[] = "w3", router[] = "least_loaded", a[] = "w1", b[] = "w2";
    lim_excluded excluded[] = { { lim__str(a), 10, 20 }, { lim__str(b), 30, 0 } };
    lim_outcome view = { .how = LIM_HOW_CRASHED,
                         .handed_over = LIM_HANDED_YES,
                         .conv = { 7 },
                         .payload = lim__str(payload),
                         .detail = lim__str(detail),
                         .participant = lim__str(who),
                         .router = lim__str(router),
                         .excluded_count = 2,
                         .excluded = excluded,
                         .losses = 2 };
    lim_outcome owned;
    assert_int_equal(lim__outcome_copy(&view, &owned), LIM_OK);
    payload[0] = detail[0] = who[0] = router[0] = a[0] = b[0] = 'X';
    excluded[0] = excluded[1] = (lim_excluded){ 0 };
    assert_true(lim__bytes_eq(owned.payload, lim__str("reply")));
    assert_true(lim__bytes_eq(owned.detail, lim__str("why not")));
    assert_true(lim__bytes_eq(owned.participant, lim__str("w3")));
    assert_true(lim__bytes_eq(owned.router, lim__str("least_loaded")));
    assert_int_equal(owned.excluded_count, 2);
    assert_true(lim__bytes_eq(owned.excluded[0].identity, lim__str("w1")));
    assert_true(lim__bytes_eq(owned.excluded[1].identity, lim__str("w2")));
    assert_int_equal(owned.excluded[0].rerouted_wall_us, 20);
    assert_int_equal(owned.excluded[1].observed_wall_us, 30);
    assert_int_equal(owned.how, LIM_HOW_CRASHED);
    assert_int_equal(owned.conv.id, 7);
    assert_int_equal(owned.losses, 2);
    lim_outcome_fini(&owned);
    assert_null(owned.owned);
}

static void test_fini_is_safe_on_nothing_and_twice(void **state)
{
    (void)state;
    lim_outcome view = { .how = LIM_HOW_TIMEOUT }, owned = { 0 };
    lim_outcome_fini(NULL);
    lim_outcome_fini(&owned);
    assert_int_equal(lim__outcome_copy(&view, &owned), LIM_OK);
    assert_non_null(owned.owned);
    assert_null(owned.excluded);
    lim_outcome_fini(&owned);
    lim_outcome_fini(&owned);
}

typedef struct block { /* somebody's, behind the common beginning */
    lim__taken_owned base;
    int *freed;
} block;

static void count_free(lim__taken_owned *owned)
{
    ++*((block *)owned)->freed;
}

static void test_what_was_taken_is_given_back_once_by_who_made_it(void **state)
{
    (void)state;
    int freed = 0;
    block b = { { count_free }, &freed };
    lim_taken taken = { .delivery = { .lease = 3 }, .owned = &b };
    lim_taken_fini(&taken);
    lim_taken_fini(&taken);
    lim_taken_fini(NULL);
    assert_int_equal(freed, 1);
    assert_int_equal(taken.delivery.lease, 0);
}

static void test_every_number_has_a_word(void **state)
{
    (void)state;
    assert_string_equal(lim_how_text(LIM_HOW_CRASHED), "crashed");
    assert_string_equal(lim_how_text(LIM_HOW_NONE), "");
    assert_string_equal(lim_why_text(LIM_WHY_NO_PARTICIPANT), "no_participant");
    assert_string_equal(lim_why_text(LIM_WHY_NONE), "");
    assert_string_equal(lim_handed_text(LIM_HANDED_YES), "yes");
    assert_string_equal(lim_phase_text(LIM_PHASE_BROKEN), "failed");
    assert_string_equal(lim_phase_text(LIM_PHASE_NONE), "");
    assert_string_equal(lim_why_text((lim_why)200), "unknown");
    assert_string_equal(lim_how_text((lim_how)200), "unknown");
    assert_string_equal(lim_handed_text((lim_handed)0), "unknown");
    assert_string_equal(lim_phase_text((lim_phase)200), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_copied_outcome_outlives_its_source),
        cmocka_unit_test(test_fini_is_safe_on_nothing_and_twice),
        cmocka_unit_test(test_what_was_taken_is_given_back_once_by_who_made_it),
        cmocka_unit_test(test_every_number_has_a_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
