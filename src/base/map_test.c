/* SPDX-License-Identifier: Apache-2.0
 * map_test.c - both maps against a plain array as a model, over many seeds. */
#include "base/base.h"
#include "base/map.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { KEYS = 300 };

static void check_map(const lim__map *m, void *const *model)
{
    size_t count = 0, seen = 0, pos = 0;
    for (uint64_t k = 0; k < KEYS; k++) {
        assert_ptr_equal(lim__map_get(m, k * 7919), model[k]);
        count += model[k] != NULL;
    }
    uint64_t key;
    void *value;
    while (lim__map_next(m, &pos, &key, &value)) {
        assert_ptr_equal(value, model[key / 7919]);
        seen++;
    }
    assert_int_equal(count, m->count);
    assert_int_equal(seen, count);
    assert_true(m->count * 4 <= m->cap * 3);
}

static void test_a_map_does_what_an_array_would(void **state)
{
    (void)state;
    static int things[KEYS];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        lim__rng r = lim__rng_seeded(seed);
        lim__map m;
        void *model[KEYS] = { 0 };
        lim__map_init(&m, seed);
        assert_null(lim__map_get(&m, 5));
        assert_null(lim__map_remove(&m, 5));
        for (int i = 0; i < 2000; i++) {
            uint64_t k = lim__rng_below(&r, KEYS);
            if (lim__rng_chance(&r, 550)) {
                model[k] = &things[lim__rng_below(&r, KEYS)];
                assert_int_equal(lim__map_put(&m, k * 7919, model[k]), LIM_OK);
            } else {
                assert_ptr_equal(lim__map_remove(&m, k * 7919), model[k]);
                model[k] = NULL;
            }
            if (i % 50 == 0)
                check_map(&m, model);
        }
        lim__map_clear(&m);
        assert_int_equal(m.count, 0);
        assert_null(lim__map_get(&m, 7919));
        lim__map_fini(&m);
    }
}

static void test_a_bytes_map_does_what_an_array_would(void **state)
{
    (void)state;
    static char names[KEYS][16];
    for (int i = 0; i < KEYS; i++)
        snprintf(names[i], sizeof names[i], "key %d", i);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        lim__rng r = lim__rng_seeded(seed);
        lim__smap m;
        bool model[KEYS] = { 0 };
        lim__smap_init(&m, seed);
        assert_null(lim__smap_get(&m, lim__str("nothing")));
        for (int i = 0; i < 2000; i++) {
            uint64_t k = lim__rng_below(&r, KEYS);
            if (lim__rng_chance(&r, 550)) {
                assert_int_equal(lim__smap_put(&m, lim__str(names[k]), names[k]), LIM_OK);
                model[k] = true;
            } else {
                assert_ptr_equal(lim__smap_remove(&m, lim__str(names[k])), model[k] ? names[k] : NULL);
                model[k] = false;
            }
        }
        size_t pos = 0, count = 0;
        lim_bytes key;
        void *value;
        while (lim__smap_next(&m, &pos, &key, &value)) {
            assert_ptr_equal(key.ptr, value);
            count++;
        }
        for (int i = 0; i < KEYS; i++) {
            assert_ptr_equal(lim__smap_get(&m, lim__str(names[i])), model[i] ? names[i] : NULL);
            count -= model[i];
        }
        assert_int_equal(count, 0);
        lim__smap_clear(&m);
        assert_null(lim__smap_get(&m, lim__str(names[0])));
        lim__smap_fini(&m);
    }
}

static void test_replacing_forgets_the_old_borrowed_key(void **state)
{
    (void)state;
    lim__smap m;
    lim__smap_init(&m, 9);
    char first[] = "orders", second[] = "orders";
    assert_int_equal(lim__smap_put(&m, lim__str(first), first), LIM_OK);
    assert_int_equal(lim__smap_put(&m, lim__str(second), second), LIM_OK);
    memset(first, 'x', sizeof first - 1);
    assert_ptr_equal(lim__smap_get(&m, lim__str("orders")), second);
    assert_int_equal(m.count, 1);
    lim__smap_fini(&m);
}

static void test_the_seed_changes_the_order(void **state)
{
    (void)state;
    static int thing;
    uint64_t order[2][64];
    for (int s = 0; s < 2; s++) {
        lim__map m;
        lim__map_init(&m, 100 + (uint64_t)s);
        for (uint64_t k = 0; k < 64; k++)
            assert_int_equal(lim__map_put(&m, k, &thing), LIM_OK);
        size_t pos = 0, n = 0;
        void *value;
        while (lim__map_next(&m, &pos, &order[s][n], &value) && ++n < 64)
            ;
        lim__map_fini(&m);
    }
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
    assert_int_not_equal(lim__hash_bytes(lim__str("a"), 1), lim__hash_bytes(lim__str("a"), 2));
    assert_int_equal(lim__hash_bytes(lim__str("a"), 1), lim__hash_bytes(lim__str("a"), 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_map_does_what_an_array_would),
        cmocka_unit_test(test_a_bytes_map_does_what_an_array_would),
        cmocka_unit_test(test_replacing_forgets_the_old_borrowed_key),
        cmocka_unit_test(test_the_seed_changes_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
