/* SPDX-License-Identifier: Apache-2.0
 * exchange_step_test.c - every path of the exchange's state machine up to a length, against its invariants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bus/exchange.h"

enum { EVENTS = LIM__EX_OWNER_GONE, DEPTH = 7 };

typedef struct world { /* what the caller would know, kept beside the machine */
    lim__ex_state state;
    uint32_t outcomes, losses, suspended;
    bool owner_gone, in_hand, wanted;
} world;

/* Which events can happen at all: the caller maps letters to events by the leases it knows. */
static bool possible(const world *w, lim__ex_event e)
{
    switch (e) {
    case LIM__EX_ASSIGNED:
    case LIM__EX_REFUSED:
        return w->state == LIM__EX_PLACING && w->wanted;
    case LIM__EX_TAKEN:
    case LIM__EX_ANSWERED:
    case LIM__EX_SILENT:
    case LIM__EX_LEFT:
    case LIM__EX_LOST:
        return w->in_hand;
    case LIM__EX_UNTAKEN:
        return w->state == LIM__EX_OFFERED;
    case LIM__EX_ANSWERED_OLD:
    case LIM__EX_HOLDING:
        return w->suspended > 0;
    case LIM__EX_DEADLINE:
    case LIM__EX_CANCEL:
        return true;
    case LIM__EX_OWNER_GONE:
        return !w->owner_gone;
    }
    return false;
}

static uint64_t paths;

static void follow(world w, const lim__ex_facts *base, int depth)
{
    if (w.state == LIM__EX_ENDED) {
        paths++;
        if (w.owner_gone && !base->task)
            assert_true(w.outcomes <= 1); /* E1 */
        else
            assert_int_equal(w.outcomes, 1); /* E1 */
        return;
    }
    assert_true(w.outcomes == 0 || w.state == LIM__EX_DRAINING); /* E3: what follows an outcome only drains */
    if (depth == 0)
        return;
    for (lim__ex_event e = LIM__EX_ASSIGNED; e <= (lim__ex_event)EVENTS; e++) {
        world n = w;
        lim__ex_facts f = *base;
        if (!possible(&n, e))
            continue;
        f.last_loss = n.losses + 1 >= 3;
        uint32_t todo = lim__ex_step(&n.state, e, &f);
        n.outcomes += (todo & LIM__EX_OUTCOMES) != 0;
        assert_int_equal(todo & LIM__EX_OUTCOMES & ((todo & LIM__EX_OUTCOMES) - 1), 0); /* one kind at a time */
        if (w.outcomes > 0)
            assert_int_equal(todo & (LIM__EX_OUTCOMES | LIM__EX_DO_SETTLE), 0); /* E3 */
        if (todo & LIM__EX_DO_LOSS)
            n.losses++;
        if ((todo & (LIM__EX_DO_DROP_LEASE | LIM__EX_DO_KEEP_LEASE)) && n.state != LIM__EX_MUTE)
            n.in_hand = false;
        if (todo & LIM__EX_DO_KEEP_LEASE)
            n.suspended++;
        if (todo & LIM__EX_DO_REVOKE_OLD)
            n.suspended = 0;
        if (e == LIM__EX_ANSWERED || e == LIM__EX_LEFT || e == LIM__EX_LOST)
            n.in_hand = false;
        if (todo & LIM__EX_DO_RESUME) {
            assert_false(n.in_hand); /* E2 */
            n.suspended--;
            n.in_hand = true;
        }
        if (todo & LIM__EX_DO_HAND) {
            assert_false(n.in_hand); /* E2 */
            n.in_hand = true;
        }
        n.wanted = (n.wanted && !(todo & (LIM__EX_DO_HAND | LIM__EX_DO_UNWANT))) || (todo & LIM__EX_DO_WANT) != 0;
        if (e == LIM__EX_OWNER_GONE)
            n.owner_gone = true;
        assert_true(n.state != LIM__EX_PLACING || n.wanted); /* nobody waits for nothing */
        follow(n, base, depth - 1);
    }
}

static void every_path(bool task, bool next, bool group)
{
    lim__ex_facts facts = { .task = task, .next = next, .group = group };
    follow((world){ .state = LIM__EX_PLACING, .wanted = true }, &facts, DEPTH);
}

static void test_every_path_of_an_ask_has_one_outcome(void **state) /* proves CV3 */
{
    (void)state;
    every_path(false, false, true);
    every_path(false, true, true);
    every_path(false, false, false);
    assert_true(paths > 1000);
}

static void test_every_path_of_a_task_has_one_outcome(void **state) /* proves CV3 GR6 */
{
    (void)state;
    every_path(true, false, true);
    assert_true(paths > 1000);
}

static void test_a_draining_exchange_waits_for_its_participant(void **state) /* proves GR2 */
{
    (void)state;
    lim__ex_state s = LIM__EX_HELD;
    lim__ex_facts f = { .group = true };
    assert_true(lim__ex_step(&s, LIM__EX_DEADLINE, &f) & LIM__EX_DO_OUT_TIMEOUT);
    assert_int_equal(s, LIM__EX_DRAINING);
    assert_int_equal(lim__ex_step(&s, LIM__EX_CANCEL, &f), 0);
    assert_true(lim__ex_step(&s, LIM__EX_ANSWERED, &f) & LIM__EX_DO_SETTLE_NOT);
    assert_int_equal(s, LIM__EX_ENDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_path_of_an_ask_has_one_outcome),
        cmocka_unit_test(test_every_path_of_a_task_has_one_outcome),
        cmocka_unit_test(test_a_draining_exchange_waits_for_its_participant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
