/* SPDX-License-Identifier: Apache-2.0
 * exchange_step_test.c - every path of the exchange's state machine up to a length, against its invariants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "bus/exchange.h"

enum { DEPTH = 11, ATTEMPTS_MAX = 2, LOSSES_MAX = 3 };

typedef struct world { /* what the caller would know, kept beside the machine */
    lim__ex_state state;
    uint32_t outcomes, losses, attempts, suspended, stuck;
    bool owner_gone, in_hand, wanted, admitted; /* in_hand: the current one works on it */
} world;

/* Which events can happen at all: the caller maps letters to events by the leases it knows. */
static bool possible(const world *w, const lim__ex_facts *f, lim__ex_event e)
{
    switch (e) {
    case LIM__EX_ASSIGNED:
    case LIM__EX_REFUSED:
        return w->state == LIM__EX_PLACING && w->wanted;
    case LIM__EX_STANDS:
        return f->task && w->state == LIM__EX_PLACING && !w->admitted;
    case LIM__EX_FOLLOWED:
        return w->state == LIM__EX_FOLLOWING;
    case LIM__EX_TAKEN:
    case LIM__EX_ANSWERED:
    case LIM__EX_FAILED:
    case LIM__EX_SILENT:
    case LIM__EX_LEFT:
    case LIM__EX_LOST:
        return w->in_hand;
    case LIM__EX_PART:
    case LIM__EX_OVERRUN:
        return w->in_hand && !f->task;
    case LIM__EX_PROGRESS:
        return w->in_hand && f->task;
    case LIM__EX_UNTAKEN:
        return w->state == LIM__EX_OFFERED;
    case LIM__EX_UNHANDED: /* right after it was assigned */
        return w->in_hand && (w->state == LIM__EX_OFFERED || (!f->task && w->state == LIM__EX_HELD));
    case LIM__EX_SLOW:
        return f->task && (w->state == LIM__EX_HELD || w->state == LIM__EX_MUTE);
    case LIM__EX_STALLED:
        return f->task && w->state == LIM__EX_HELD;
    case LIM__EX_ANSWERED_OLD:
    case LIM__EX_FAILED_OLD:
    case LIM__EX_HOLDING:
        return w->suspended > 0;
    case LIM__EX_STUCK_DONE:
        return w->stuck > 0;
    case LIM__EX_DEADLINE:
    case LIM__EX_CANCEL:
        return true;
    case LIM__EX_OWNER_GONE:
        return !w->owner_gone;
    case LIM__EX_EVENTS:
        break;
    }
    return false;
}

static bool about_current(lim__ex_event e)
{
    return e == LIM__EX_TAKEN || e == LIM__EX_ANSWERED || e == LIM__EX_FAILED || e == LIM__EX_SILENT ||
           e == LIM__EX_LEFT || e == LIM__EX_LOST || e == LIM__EX_UNHANDED;
}

static lim__ex_facts facts_of(const world *w, const lim__ex_facts *base, lim__ex_event e)
{
    lim__ex_facts f = *base;
    f.last_loss = w->losses + 1 >= LOSSES_MAX;
    f.retry = f.task && w->attempts + 1 < ATTEMPTS_MAX;
    f.weary = base->weary && w->losses + w->attempts > 0; /* from some time on */
    f.others = (w->in_hand && w->state == LIM__EX_DRAINING && !about_current(e)) ||
               w->stuck > (e == LIM__EX_STUCK_DONE ? 1u : 0u);
    return f;
}

/* Plays what the caller does, and checks what it may do. */
static void play(world *n, const world *before, lim__ex_event e, uint32_t todo)
{
    bool speaks_old = e == LIM__EX_ANSWERED_OLD || e == LIM__EX_FAILED_OLD;
    n->outcomes += (todo & LIM__EX_OUTCOMES) != 0;
    assert_int_equal(todo & LIM__EX_OUTCOMES & ((todo & LIM__EX_OUTCOMES) - 1), 0); /* one kind at a time */
    if (before->outcomes > 0)
        assert_int_equal(todo & (LIM__EX_OUTCOMES | LIM__EX_DO_SETTLE | LIM__EX_DO_PART), 0); /* E3, E6 */
    if (todo & LIM__EX_DO_PART)
        assert_int_equal(before->state, LIM__EX_HELD); /* E6 */
    n->losses += (todo & LIM__EX_DO_LOSS) != 0;
    n->attempts += (todo & LIM__EX_DO_ATTEMPT) != 0;
    if (todo & LIM__EX_DO_STICK) {
        assert_true(before->in_hand);
        assert_true(todo & LIM__EX_DO_REVOKE);
        n->stuck++;
        n->in_hand = false;
    }
    if (todo & LIM__EX_DO_KEEP_LEASE)
        n->suspended++;
    if ((todo & (LIM__EX_DO_DROP_LEASE | LIM__EX_DO_KEEP_LEASE)) || e == LIM__EX_ANSWERED || e == LIM__EX_FAILED ||
        e == LIM__EX_LEFT || e == LIM__EX_LOST)
        n->in_hand = n->state == LIM__EX_MUTE; /* done, and still watched */
    if (todo & LIM__EX_DO_DROP_OLD) {
        assert_true(e == LIM__EX_STUCK_DONE || speaks_old);
        *(e == LIM__EX_STUCK_DONE ? &n->stuck : &n->suspended) -= 1;
    }
    if (todo & LIM__EX_DO_REVOKE_OLD)
        n->suspended = 0;
    if (todo & (LIM__EX_DO_RESUME | LIM__EX_DO_HAND)) {
        assert_false(n->in_hand); /* E2 */
        n->suspended -= (todo & LIM__EX_DO_RESUME) != 0;
        n->in_hand = true;
    }
    if (todo & (LIM__EX_DO_WANT | LIM__EX_DO_LATER)) {
        assert_false(n->wanted);
        assert_true(n->state == LIM__EX_PLACING);
        n->wanted = true;
    }
    if (todo & (LIM__EX_DO_HAND | LIM__EX_DO_UNWANT))
        n->wanted = false;
    n->admitted |= (todo & LIM__EX_DO_HAND) != 0;
    n->owner_gone |= e == LIM__EX_OWNER_GONE;
}

static uint64_t paths;
static uint32_t codes[DEPTH];

static void follow(const world *w, const lim__ex_facts *base, int depth)
{
    assert_true(w->attempts <= (base->task ? ATTEMPTS_MAX : 1)); /* E5 */
    assert_int_equal(lim__ex_replay(codes, (size_t)(DEPTH - depth)), w->state);
    if (w->state == LIM__EX_ENDED) {
        paths++;
        assert_true(w->stuck == 0 && w->suspended == 0); /* E4: nobody works on it */
        if (w->owner_gone || (base->task && !base->report))
            assert_true(w->outcomes <= 1); /* E1 */
        else
            assert_int_equal(w->outcomes, 1); /* E1 */
        return;
    }
    if (w->state == LIM__EX_DRAINING)
        assert_true((w->outcomes == 1 || w->owner_gone) && (w->in_hand || w->stuck > 0)); /* E4 */
    else
        assert_int_equal(w->outcomes, 0);                  /* E3: what follows an outcome only drains */
    assert_true(w->state != LIM__EX_PLACING || w->wanted); /* nobody waits for nothing */
    if (depth == 0)
        return;
    for (lim__ex_event e = LIM__EX_ASSIGNED; e < LIM__EX_EVENTS; e++) {
        if (!possible(w, base, e))
            continue;
        world n = *w;
        lim__ex_facts f = facts_of(w, base, e);
        uint32_t todo = lim__ex_step(&n.state, e, &f);
        codes[DEPTH - depth] = lim__ex_code(e, &f);
        play(&n, w, e, todo);
        if (memcmp(&n, w, sizeof n) != 0) /* else there is nothing new behind it */
            follow(&n, base, depth - 1);
    }
}

static void every_path(lim__ex_facts facts)
{
    world begin;
    memset(&begin, 0, sizeof begin);
    begin.state = LIM__EX_PLACING;
    begin.wanted = true;
    paths = 0;
    follow(&begin, &facts, DEPTH);
}

static void test_every_path_of_an_ask_has_one_outcome(void **state) /* proves CV3 */
{
    (void)state;
    every_path((lim__ex_facts){ .group = true });
    assert_true(paths > 10);
    every_path((lim__ex_facts){ .group = true, .next = true });
    assert_true(paths > 100);
    every_path((lim__ex_facts){ 0 });
    assert_true(paths > 10);
}

static void test_every_path_of_a_task_has_one_outcome(void **state) /* proves CV3 GR6 GR9 */
{
    (void)state;
    every_path((lim__ex_facts){ .task = true, .group = true, .report = true });
    assert_true(paths > 1000);
    every_path((lim__ex_facts){ .task = true, .group = true });
    assert_true(paths > 1000);
    every_path((lim__ex_facts){ .task = true, .group = true, .weary = true });
    assert_true(paths > 1000);
}

static void test_a_task_that_nobody_acknowledges_is_not_handed_about_for_ever(void **state) /* proves GR4 GR5 */
{
    (void)state;
    lim__ex_state s = LIM__EX_OFFERED;
    lim__ex_facts f = { .task = true, .group = true };
    assert_int_equal(lim__ex_step(&s, LIM__EX_UNTAKEN, &f) & LIM__EX_DO_LOSS, 0);
    s = LIM__EX_OFFERED;
    f.weary = true;
    assert_true(lim__ex_step(&s, LIM__EX_UNTAKEN, &f) & LIM__EX_DO_LOSS);
    assert_int_equal(s, LIM__EX_PLACING);
    s = LIM__EX_OFFERED;
    f.last_loss = true;
    assert_true(lim__ex_step(&s, LIM__EX_UNTAKEN, &f) & LIM__EX_DO_OUT_KILLER);
    assert_int_equal(s, LIM__EX_ENDED);
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

static void test_a_stuck_worker_keeps_its_place_while_another_one_has_the_task(void **state) /* proves GR2 GR12 */
{
    (void)state;
    lim__ex_state s = LIM__EX_HELD;
    lim__ex_facts f = { .task = true, .group = true, .retry = true };
    uint32_t todo = lim__ex_step(&s, LIM__EX_SLOW, &f);
    assert_int_equal(s, LIM__EX_PLACING);
    assert_int_equal(todo,
                     LIM__EX_DO_ATTEMPT | LIM__EX_DO_REVOKE | LIM__EX_DO_SHUN | LIM__EX_DO_STICK | LIM__EX_DO_LATER);
    f.others = true;
    (void)lim__ex_step(&s, LIM__EX_ASSIGNED, &f);
    (void)lim__ex_step(&s, LIM__EX_TAKEN, &f);
    todo = lim__ex_step(&s, LIM__EX_ANSWERED, &f);
    assert_true(todo & LIM__EX_DO_OUT_ANSWER);
    assert_false(todo & LIM__EX_DO_END);
    assert_int_equal(s, LIM__EX_DRAINING);
    f.others = false;
    todo = lim__ex_step(&s, LIM__EX_STUCK_DONE, &f);
    assert_int_equal(todo, LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_DROP_OLD | LIM__EX_DO_END);
    assert_int_equal(s, LIM__EX_ENDED);
}

static void test_a_history_that_is_none_leads_nowhere(void **state)
{
    (void)state;
    lim__ex_facts f = { .task = true };
    uint32_t no_event[] = { 0 }, beyond[] = { LIM__EX_EVENTS }, facts[] = { 1u << 16 | LIM__EX_CANCEL };
    uint32_t good[] = { lim__ex_code(LIM__EX_ASSIGNED, &f), lim__ex_code(LIM__EX_TAKEN, &f) };
    assert_int_equal(lim__ex_replay(no_event, 1), 0);
    assert_int_equal(lim__ex_replay(beyond, 1), 0);
    assert_int_equal(lim__ex_replay(facts, 1), 0);
    assert_int_equal(lim__ex_replay(NULL, 0), LIM__EX_PLACING);
    assert_int_equal(lim__ex_replay(good, 2), LIM__EX_HELD);
    for (lim__ex_event e = LIM__EX_ASSIGNED; e < LIM__EX_EVENTS; e++)
        assert_true(strlen(lim__ex_event_text(e)) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_path_of_an_ask_has_one_outcome),
        cmocka_unit_test(test_every_path_of_a_task_has_one_outcome),
        cmocka_unit_test(test_a_task_that_nobody_acknowledges_is_not_handed_about_for_ever),
        cmocka_unit_test(test_a_draining_exchange_waits_for_its_participant),
        cmocka_unit_test(test_a_stuck_worker_keeps_its_place_while_another_one_has_the_task),
        cmocka_unit_test(test_a_history_that_is_none_leads_nowhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
