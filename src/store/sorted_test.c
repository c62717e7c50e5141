/* SPDX-License-Identifier: Apache-2.0
 * sorted_test.c - the sorted map against a table that is looked through from end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "store/sorted.h"

enum { KEYS = 300 };
struct table {       /* by number of the key */
    int value[KEYS]; /* 0: absent; -1: gone */
};

static lim_bytes key_of(uint32_t i, char text[16])
{
    int n = snprintf(text, 16, "%.*s%u", (int)(i % 5), "kkkkk", i * 7 % KEYS);
    return lim__bytes(text, (size_t)n);
}

static lim_bytes value_of(const int *value)
{
    return *value < 0 ? lim__bytes(NULL, 0) : lim__bytes(value, sizeof *value);
}

/* The entry that a search should find: the number of its key, or -1. */
static int expected(const struct table *t, lim_bytes key, lim__seek where)
{
    int best = -1;
    char text[16], best_text[16];
    bool forward = where == LIM__SEEK_GE || where == LIM__SEEK_GT;
    for (uint32_t i = 0; i < KEYS; i++) {
        lim_bytes k = key_of(i, text);
        int order = lim__key_cmp(k, key);
        bool fits = t->value[i] != 0 && ((order == 0 && (where == LIM__SEEK_GE || where == LIM__SEEK_LE)) ||
                                         (forward ? order > 0 : order < 0));
        if (!fits)
            continue;
        int against = best < 0 ? 0 : lim__key_cmp(k, key_of((uint32_t)best, best_text));
        if (best < 0 || (forward ? against < 0 : against > 0))
            best = (int)i;
    }
    return best;
}

static void compare(const lim__sorted *m, const struct table *t)
{
    size_t count = 0;
    char text[16], other[16];
    for (uint32_t i = 0; i < KEYS; i++) {
        lim_bytes key = key_of(i, text);
        lim__entry *e = lim__sorted_get(m, key);
        count += t->value[i] != 0;
        assert_int_equal(e != NULL, t->value[i] != 0);
        if (e) {
            assert_int_equal(e->gone, t->value[i] < 0);
            assert_true(lim__bytes_eq(lim__entry_value(e), value_of(&t->value[i])));
        }
        for (int where = LIM__SEEK_GE; where <= (int)LIM__SEEK_LT; where++) {
            int best = expected(t, key, (lim__seek)where);
            e = lim__sorted_seek(m, key, (lim__seek)where);
            assert_int_equal(e != NULL, best >= 0);
            if (e)
                assert_true(lim__bytes_eq(lim__entry_key(e), key_of((uint32_t)best, other)));
        }
    }
    assert_int_equal(m->count, count);
}

static void fill(lim__sorted *m, struct table *t, lim__rng *rng, int steps)
{
    char text[16];
    for (int step = 0; step < steps; step++) {
        uint32_t i = (uint32_t)lim__rng_below(rng, KEYS);
        lim_bytes key = key_of(i, text);
        if (lim__rng_below(rng, 3) == 0) {
            lim__sorted_remove(m, key);
            t->value[i] = 0;
        } else {
            t->value[i] = lim__rng_below(rng, 4) == 0 ? -1 : step + 1;
            assert_int_equal(lim__sorted_put(m, key, value_of(&t->value[i])), 0);
        }
    }
}

static void test_it_does_what_a_table_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        lim__rng rng = lim__rng_seeded(seed);
        struct table t = { 0 };
        lim__sorted m;
        lim__sorted_init(&m);
        for (int round = 0; round < 6; round++) {
            fill(&m, &t, &rng, 150);
            compare(&m, &t);
        }
        lim__sorted_fini(&m);
        assert_int_equal(m.count, 0);
        assert_int_equal(m.bytes, 0);
    }
}

static void test_joining_replaces_and_can_forget_what_is_gone(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        lim__rng rng = lim__rng_seeded(seed);
        struct table below = { 0 }, above = { 0 };
        lim__sorted m, from;
        bool forget = seed % 2 == 0;
        lim__sorted_init(&m), lim__sorted_init(&from);
        fill(&m, &below, &rng, 200);
        fill(&from, &above, &rng, 200);
        for (int i = 0; i < KEYS; i++) {
            if (above.value[i] != 0)
                below.value[i] = above.value[i] < 0 && forget ? 0 : above.value[i];
        }
        lim__sorted_join(&m, &from, forget);
        assert_int_equal(from.count, 0);
        compare(&m, &below);
        lim__sorted_fini(&m);
        assert_int_equal(m.bytes, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_does_what_a_table_does),
        cmocka_unit_test(test_joining_replaces_and_can_forget_what_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
