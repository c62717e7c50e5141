/* SPDX-License-Identifier: Apache-2.0
 * phase_test.c - every (phase, event) pair of a conversation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bus/conv.h"

enum {
    NO = 0,
    C = LIM_PHASE_CREATED,
    A = LIM_PHASE_ACTIVE,
    P = LIM_PHASE_COMPLETING,
    E = LIM_PHASE_ENDED,
    B = LIM_PHASE_BROKEN
};

/* Rows: from. Columns: use, close, told, deadline, nobody left. 0: refused, and the phase stays. */
static const int table[6][5] = {
    [C] = { A, P, NO, B, B },     [A] = { A, P, NO, B, B },   [P] = { NO, NO, E, B, B },
    [E] = { NO, NO, NO, NO, NO }, [B] = { NO, B, B, NO, NO },
};

static void test_every_phase_takes_what_it_takes_and_refuses_the_rest(void **state) /* proves CV1 */
{
    (void)state;
    for (int from = C; from <= B; from++) {
        for (int event = LIM__PHASE_USE; event <= LIM__PHASE_NOBODY_LEFT; event++) {
            lim_phase phase = (lim_phase)from;
            int to = table[from][event - LIM__PHASE_USE];
            assert_int_equal(lim__phase_step(&phase, (lim__phase_event)event), to != NO);
            assert_int_equal(phase, to != NO ? to : from);
        }
    }
}

static void test_closed_and_failed_are_final(void **state) /* proves CV1 */
{
    (void)state;
    for (int event = LIM__PHASE_USE; event <= LIM__PHASE_NOBODY_LEFT; event++) {
        lim_phase ended = LIM_PHASE_ENDED, broken = LIM_PHASE_BROKEN;
        lim__phase_step(&ended, (lim__phase_event)event);
        lim__phase_step(&broken, (lim__phase_event)event);
        assert_int_equal(ended, LIM_PHASE_ENDED);
        assert_int_equal(broken, LIM_PHASE_BROKEN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_phase_takes_what_it_takes_and_refuses_the_rest),
        cmocka_unit_test(test_closed_and_failed_are_final),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
