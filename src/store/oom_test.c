/* SPDX-License-Identifier: Apache-2.0
 * oom_test.c - memory runs out: the n-th allocation fails, for each n, while a store is opened, written, read and
 * closed. Nothing aborts, what was answered is there afterwards, and what was refused is not.
 *
 * The allocator is the C library's behind a counter. Under a sanitizer, which brings its own, there is nothing to do.
 */
#include "store/test_world.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ || !defined __GLIBC__
#define COUNTED 0
#else
#define COUNTED 1
#endif

static _Thread_local long fails_in; /* allocations until one fails; 0: none does, or all do */
static _Thread_local bool for_good, all_fail;

#if COUNTED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static bool fails(void)
{
    bool now = fails_in > 0 && --fails_in == 0;
    all_fail = all_fail || (now && for_good);
    return now || all_fail;
}
void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    return fails() ? NULL : __libc_realloc(p, n);
}
#endif

typedef struct answers {
    uint64_t acked; /* the last number that was answered */
    uint32_t refused;
} answers;

static void on_answer(void *ctx, lim__batch *b, const lim__committed *what)
{
    answers *a = ctx;
    if (what->how == LIM__COMMITTED)
        a->acked = lim__batch_seq(b, 0);
    else
        a->refused++;
    lim__batch_free(b);
}

static void submit_one(world *w, answers *a, int i)
{
    static char large[5000];
    lim__batch *b = lim__batch_new();
    if (!b)
        return;
    lim_bytes data = lim__bytes(large, i % 4 ? 40 : sizeof large);
    lim__batch_expect(b, 1, lim__str("never"), lim__bytes(NULL, 0));
    lim__batch_append(b, 1, lim__str(i % 2 ? "" : "key"), &data, 1);
    if (lim__batch_appends(b) > 0)
        lim__batch_put_seq(b, 1, lim__str("last"), lim__str(""), 0);
    if (i % 5 == 4)
        lim__batch_trim(b, 1, (uint64_t)i / 2);
    if (lim__store_submit(w->store, b, on_answer, a) != 0)
        lim__batch_free(b);
}

/* One life. False: it did not even open. */
static bool live(world *w, answers *a, long n)
{
    lim__store_error error;
    uint64_t bad;
    uint32_t count = 0;
    fails_in = n;
    bool opened = lim__store_open(&w->opts, &error, &w->store) == 0;
    for (int i = 0; opened && i < 12; i++) {
        submit_one(w, a, i);
        for (int turns = 0; turns < 40 && lim__store_turn(w->store, NULL); turns++)
            continue;
        (void)lim__store_read(w->store, 1, 1, 0, count_one, &count, &bad);
    }
    if (opened)
        lim__store_close(w->store);
    w->store = NULL;
    return opened;
}

static void check_after(world *w, const answers *a)
{
    void *value;
    size_t len;
    uint64_t seq;
    lim__stream_info info;
    fails_in = 0;
    all_fail = false;
    open_store(w);
    assert_int_equal(lim__store_stream(w->store, 1, &info), 0);
    assert_int_equal(info.next, a->acked + 1);
    if (a->acked > 0) {
        assert_int_equal(lim__store_get(w->store, 1, lim__str("last"), &value, &len), 0);
        memcpy(&seq, value, sizeof seq);
        free(value);
        assert_int_equal(seq, a->acked);
    }
    assert_null(strstr(w->events, "quarantined"));
}

static bool sweep_one(long n, bool lmdb)
{
    answers a = { 0 };
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    snprintf(w->dir, sizeof w->dir, "%s/liminal-store-XXXXXX", quick_dir());
    assert_non_null(mkdtemp(w->dir));
    w->opts = (lim__store_opts){ .os = lim__os_linux(),
                                 .dir = w->dir,
                                 .segment_bytes = LIM__SEGMENT_BYTES_MIN,
                                 .index_map_bytes = 1 << 28,
                                 .index_in_memory = !lmdb,
                                 .on_event = on_event,
                                 .ctx = w };
    (void)live(w, &a, n);
    bool reached = fails_in == 0;
    check_after(w, &a);
    lim__store_close(w->store);
    remove_dir(w->dir);
    free(w);
    return reached;
}

static void sweep(bool lmdb, bool good)
{
    long n = 1;
    if (!COUNTED)
        skip();
    for_good = good;
    while (n < 4000 && sweep_one(n, lmdb))
        n++;
    assert_true(n > 100); /* there were some */
}

static void test_any_allocation_may_fail(void **state)
{
    (void)state;
    sweep(false, false);
}

static void test_any_allocation_may_fail_with_LMDB_below(void **state)
{
    (void)state;
    sweep(true, false);
}

static void test_memory_may_be_gone_for_good(void **state)
{
    (void)state;
    sweep(false, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_allocation_may_fail),
        cmocka_unit_test(test_any_allocation_may_fail_with_LMDB_below),
        cmocka_unit_test(test_memory_may_be_gone_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
