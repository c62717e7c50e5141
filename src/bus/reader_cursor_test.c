/* SPDX-License-Identifier: Apache-2.0
 * reader_cursor_test.c - a cursor against a plain model of it: which numbers are done, and what its row says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/rng.h"
#include "bus/reader_cursor.h"

enum { NUMBERS = 400 };
typedef enum fate { UNSEEN = 0, PENDING, DONE } fate;

typedef struct model {
    lim__cursor c;
    lim__list flights; /* of the one member */
    fate fates[NUMBERS];
    lim__rng rng;
} model;

static struct lim__read_member *somebody(model *m)
{
    return (struct lim__read_member *)(void *)m; /* never looked into */
}

static lim__pend *any_pending(model *m)
{
    uint64_t n = lim__rng_below(&m->rng, m->c.nodes);
    LIM__LIST_EACH(node, &m->c.order)
        if (n-- == 0)
            return LIM_CONTAINER(node, lim__pend, in_order);
    return NULL;
}

static void add(model *m)
{
    uint64_t seq = m->c.next + lim__rng_below(&m->rng, 3), due = lim__rng_below(&m->rng, 2) ? UINT64_MAX : seq;
    if (seq >= NUMBERS)
        return;
    for (uint64_t i = m->c.next; i < seq; i++)
        m->fates[i] = DONE; /* forgotten */
    lim__msg *msg = lim__msg_new(lim__str("m"));
    assert_non_null(lim__cursor_add(&m->c, seq, 0, msg, somebody(m), &m->flights, due));
    m->fates[seq] = PENDING;
}

static void add_row(model *m)
{
    uint64_t seq = m->c.next + lim__rng_below(&m->rng, 3), due = lim__rng_below(&m->rng, 2) ? UINT64_MAX : seq;
    uint32_t count = 1 + (uint32_t)lim__rng_below(&m->rng, 9);
    if (seq + count > NUMBERS)
        return;
    for (uint64_t i = m->c.next; i < seq; i++)
        m->fates[i] = DONE;
    assert_true(lim__cursor_add_row(&m->c, seq, count, somebody(m), &m->flights, due));
    for (uint32_t i = 0; i < count; i++)
        m->fates[seq + i] = PENDING;
}

static void change_row(model *m, lim__pend *p)
{
    uint64_t dice = lim__rng_below(&m->rng, 8), first = p->seq, last = p->seq + p->count - 1;
    uint64_t seq = first + lim__rng_below(&m->rng, p->count);
    if (dice == 0) {
        lim__cursor_done(&m->c, p);
        seq = last;
    } else if (dice < 4) {
        assert_int_equal(lim__cursor_done_upto(&m->c, p, seq), seq + 1 - first);
    } else if (dice < 6) {
        lim__cursor_again(&m->c, p);
        return;
    } else {
        lim__pend *one = lim__cursor_take(&m->c, seq);
        assert_true(one != NULL && !one->row && one->seq == seq && one == lim__cursor_find(&m->c, seq));
        return;
    }
    for (uint64_t i = first; i <= seq; i++)
        m->fates[i] = DONE;
}

static void change(model *m, lim__pend *p)
{
    uint64_t dice = lim__rng_below(&m->rng, 6);
    if (dice < 2) {
        m->fates[p->seq] = DONE;
        lim__cursor_done(&m->c, p);
    } else if (dice == 2) {
        lim__cursor_again(&m->c, p);
    } else if (dice == 3) {
        lim__cursor_later(&m->c, p, lim__rng_below(&m->rng, 1000));
    } else if (p->state == LIM__PEND_READY && p->msg == NULL) {
        lim__cursor_give(&m->c, p, lim__msg_new(lim__str("m")));
    } else if (p->state == LIM__PEND_READY) {
        lim__cursor_deliver(&m->c, p, somebody(m), &m->flights, lim__rng_below(&m->rng, 1000));
    } else if (p->state == LIM__PEND_FLIGHT) {
        lim__cursor_hold(&m->c, p, LIM__PEND_STEP);
        lim__cursor_resume(&m->c, p, 7);
    }
}

static void compare(const model *m, const lim__cursor *c)
{
    uint64_t floor = c->next - 1;
    lim__cursor_check(c);
    for (uint64_t seq = c->next - 1; seq >= 1; seq--) {
        assert_int_equal(lim__cursor_find(c, seq) != NULL, m->fates[seq] == PENDING);
        if (m->fates[seq] == PENDING)
            floor = seq - 1;
    }
    assert_int_equal(lim__cursor_floor(c), floor);
    const lim__pend *ready = lim__cursor_first_ready(c);
    LIM__LIST_EACH(node, &c->order) {
        const lim__pend *p = LIM_CONTAINER(node, lim__pend, in_order);
        if (p->state == LIM__PEND_READY) {
            assert_ptr_equal(ready, p); /* the first of them in order is the first of the heap */
            return;
        }
    }
    assert_null(ready);
}

static void through_its_row(const model *m)
{
    lim__buf row = { 0 };
    lim__cursor read;
    lim__cursor_pack(&m->c, &row, NULL);
    lim__cursor_init(&read, 9, 1 << 20);
    assert_int_equal(lim__cursor_unpack(&read, lim__buf_bytes(&row)), LIM_OK);
    assert_int_equal(read.next, m->c.next);
    compare(m, &read);
    LIM__LIST_EACH(node, &m->c.order) {
        const lim__pend *p = LIM_CONTAINER(node, lim__pend, in_order);
        assert_int_equal(lim__cursor_find(&read, p->seq)->deliveries, p->deliveries);
        assert_int_equal(lim__cursor_find(&read, p->seq)->count, p->count);
    }
    lim__cursor_fini(&read);
    for (size_t cut = 0; cut < lim__buf_len(&row) && cut < 40;
         cut++) { /* a row that was cut is refused or shorter, no more */
        lim__cursor_init(&read, 9, 1 << 20);
        (void)!lim__cursor_unpack(&read, lim__bytes(lim__buf_bytes(&row).ptr, cut));
        lim__cursor_check(&read);
        lim__cursor_fini(&read);
    }
    lim__buf_fini(&row);
}

static void test_a_cursor_knows_what_is_done_and_so_does_its_row(void **state) /* proves DU6 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        static model m;
        m = (model){ .rng = lim__rng_seeded(seed) };
        lim__cursor_init(&m.c, seed, seed % 3 == 0 ? 200 : 1 << 20); /* now and then messages are let go */
        lim__list_init(&m.flights);
        for (int i = 0; i < 300; i++) {
            lim__pend *p = m.c.nodes > 0 && lim__rng_below(&m.rng, 3) > 0 ? any_pending(&m) : NULL;
            if (p != NULL && p->row)
                change_row(&m, p);
            else if (p != NULL)
                change(&m, p);
            else if (lim__rng_below(&m.rng, 3) == 0)
                add_row(&m);
            else
                add(&m);
            compare(&m, &m.c);
        }
        through_its_row(&m);
        lim__cursor_fini(&m.c);
    }
}

static void test_what_is_due_first_comes_first(void **state)
{
    (void)state;
    static model m;
    m = (model){ .rng = lim__rng_seeded(1) };
    lim__cursor_init(&m.c, 1, 1 << 20);
    lim__list_init(&m.flights);
    for (uint64_t seq = 1; seq <= 50; seq++)
        assert_non_null(lim__cursor_add(&m.c, seq, 0, lim__msg_new(lim__str("m")), somebody(&m), &m.flights,
                                        lim__rng_below(&m.rng, 1000)));
    uint64_t last = 0;
    for (lim__pend *p; (p = lim__cursor_first_due(&m.c)) != NULL;) {
        assert_true(p->due_ns >= last);
        last = p->due_ns;
        lim__cursor_done(&m.c, p);
    }
    assert_int_equal(lim__cursor_floor(&m.c), 50);
    assert_int_equal(m.c.kept_bytes, 0);
    lim__cursor_fini(&m.c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cursor_knows_what_is_done_and_so_does_its_row),
        cmocka_unit_test(test_what_is_due_first_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
