/* SPDX-License-Identifier: Apache-2.0
 * durable_test.c - commits of processes on a simulated disk: answered once, in order, and there after a kill. */
#include "bus/durable_world.h"
#include "bus/letters.h"

#include <stdlib.h>
#include <string.h>

enum { COMMITS = 200 };

typedef struct writer {
    durable_world *w;
    uint64_t answered; /* letters so far; each must carry the next number */
    lim__commit_how last;
    char found[16];
    uint32_t replays, stashed_in_order;
    bool busy;
    lim__stash stash;
} writer;

static lim_err put(writer *p, lim_process *self, const char *key, const char *value, bool only_if_absent, uint64_t ref)
{
    lim__batch *b = lim__batch_new();
    assert_non_null(b);
    if (only_if_absent)
        lim__batch_expect(b, LIM__TABLE_SAGAS, lim__str(key), lim__bytes(NULL, 0));
    lim__batch_put(b, LIM__TABLE_SAGAS, lim__str(key), lim__str(value));
    return lim__durable_commit(self, p->w->bus, b, ref);
}

static void on_stored(writer *p, const lim__stored *s)
{
    assert_int_equal(s->ref, p->answered + 1);
    p->answered++;
    p->last = s->how;
    snprintf(p->found, sizeof p->found, "%.*s", (int)s->found_len, (const char *)s->found_bytes);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    writer *p = *(writer **)state;
    char key[16];
    if (signal->type == &lim__type_stored) {
        on_stored(p, signal->body.ptr);
        return;
    }
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    for (uint64_t i = 1; i <= COMMITS; i++) {
        snprintf(key, sizeof key, "k%llu", (unsigned long long)i);
        assert_int_equal(put(p, self, key, "v", false, i), LIM_OK);
    }
    assert_int_equal(put(p, self, "k1", "other", true, COMMITS + 1), LIM_OK);
}

static lim_pid spawn(writer *p, lim_on_signal *handler)
{
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = handler,
                            .state_bytes = sizeof p,
                            .init = &p,
                            .init_bytes = sizeof p,
                            .mailbox_max = 4 };
    lim_pid pid;
    assert_int_equal(lim_runtime_spawn(p->w->bus->rt, &opts, &pid), LIM_OK);
    return pid;
}

static void go(writer *p, lim_pid pid)
{
    lim__command *c = lim__letter_new(NULL, &lim__type_push, sizeof *c);
    *c = (lim__command){ 0 };
    assert_int_equal(lim__post_reserved(p->w->bus->rt, pid, c), LIM_OK);
}

static bool all_answered(void *ctx)
{
    return ((writer *)ctx)->answered == COMMITS + 1;
}

static bool count_rows(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key;
    assert_int_equal(value.len, 1); /* never "other" */
    ++*(uint32_t *)ctx;
    return true;
}

static void test_commits_are_answered_once_and_in_order_and_survive_a_kill(void **state) /* proves DU1 */
{
    (void)state;
    static durable_world w;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        durable_open(&w, seed);
        writer p = { .w = &w };
        go(&p, spawn(&p, on_signal));
        durable_until(&w, all_answered, &p);
        assert_int_equal(p.last, LIM__COMMIT_CONFLICT);
        assert_string_equal(p.found, "v");
        if (seed & 1)
            durable_kill(&w);
        else
            durable_power_off(&w);
        durable_start(&w);
        uint32_t rows = 0;
        assert_int_equal(lim__store_scan(lim__durable_store(w.bus), LIM__TABLE_SAGAS, lim__bytes(NULL, 0),
                                         lim__bytes(NULL, 0), count_rows, &rows),
                         0);
        assert_int_equal(rows, COMMITS);
        durable_close(&w);
    }
}

static void test_a_bus_without_a_directory_keeps_nothing_and_says_so(void **state)
{
    (void)state;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    lim_bus *bus;
    lim_diag diag;
    assert_int_equal(lim_bus_open(&opts, &bus), LIM_OK);
    assert_int_equal(lim__durable_class(bus), LIM__CLASS_MEMORY);
    assert_int_equal(lim__durable_submit(bus, lim__batch_new(), NULL, NULL), LIM_E_MISUSE);
    assert_int_equal(lim__durable_missing(&diag), LIM_E_MISUSE);
    assert_non_null(strstr(diag.text, "--data"));
    lim_bus_close(bus);
}

/* Stashes what comes while it is busy; a push makes it listen again. Numbers come in the refs of close letters. */
static void busy_signal(lim_process *self, const lim_signal *signal, void *state)
{
    writer *p = *(writer **)state;
    const lim__command *c = signal->body.ptr;
    if (signal->type == &lim__type_close && p->busy) {
        assert_int_equal(lim__stash_put(&p->stash, self, signal), LIM_OK);
    } else if (signal->type == &lim__type_close) {
        p->stashed_in_order += c->ref == ++p->replays;
        p->busy = p->replays == 2; /* once more in the middle of it */
    } else if (signal->type == &lim__type_push) {
        p->busy = false;
        while (!p->busy && lim__stash_replay(&p->stash, self, busy_signal, state))
            continue;
    }
}

static void test_what_waits_for_a_commit_is_heard_in_its_order(void **state)
{
    (void)state;
    static durable_world w;
    durable_open(&w, 3);
    writer p = { .w = &w, .busy = true };
    lim__stash_init(&p.stash);
    lim_pid pid = spawn(&p, busy_signal);
    for (uint64_t i = 1; i <= 3; i++) {
        lim__command *c = lim__letter_new(NULL, &lim__type_close, sizeof *c);
        *c = (lim__command){ .ref = i };
        assert_int_equal(lim__post_reserved(w.bus->rt, pid, c), LIM_OK);
    }
    go(&p, pid);
    durable_settle(&w, 1000000000);
    assert_int_equal(p.replays, 2);
    assert_int_equal(p.stash.count, 1);
    go(&p, pid);
    durable_settle(&w, 1000000000);
    assert_int_equal(p.stashed_in_order, 3);
    assert_int_equal(p.stash.count, 0);
    durable_close(&w);
}

static void test_an_id_of_a_former_life_means_the_living_one(void **state)
{
    (void)state;
    static durable_world w;
    durable_open(&w, 4);
    assert_int_equal(lim__alias_pid(w.bus, 77).id, 77);
    assert_int_equal(lim__alias_put(w.bus, 77, (lim_pid){ 99 }), LIM_OK);
    assert_int_equal(lim__alias_pid(w.bus, 77).id, 99);
    assert_int_equal(lim__alias_pid(w.bus, 78).id, 78);
    lim__alias_drop(w.bus, 77);
    assert_int_equal(lim__alias_pid(w.bus, 77).id, 77);
    durable_close(&w);
}

static void test_values_that_end_early_are_bad_and_read_as_zeros(void **state)
{
    (void)state;
    lim__buf b = { 0 };
    lim__pack_u8(&b, 1);
    lim__pack_u16(&b, 513);
    lim__pack_u32(&b, 70000);
    lim__pack_u64(&b, 1ull << 40);
    lim__pack_bytes(&b, lim__str("text"));
    for (size_t cut = 0; cut <= lim__buf_len(&b); cut++) {
        lim__unpack u = lim__unpack_begin(lim__bytes(lim__buf_bytes(&b).ptr, cut));
        bool whole = cut == lim__buf_len(&b);
        uint64_t sum = lim__unpack_u8(&u) + (uint64_t)lim__unpack_u16(&u) + lim__unpack_u32(&u);
        uint64_t wide = lim__unpack_u64(&u);
        lim_bytes text = lim__unpack_bytes(&u);
        assert_int_equal(lim__unpack_end(&u), whole);
        if (whole) {
            assert_int_equal(sum, 1 + 513 + 70000);
            assert_int_equal(wide, 1ull << 40);
            assert_memory_equal(text.ptr, "text", 4);
        }
    }
    lim__buf_fini(&b);
}

static void test_numbers_of_streams_are_never_given_twice(void **state)
{
    (void)state;
    static durable_world w;
    durable_open(&w, 5);
    lim__batch *b = lim__batch_new();
    uint64_t first = lim__durable_stream(w.bus, b), second = lim__durable_stream(w.bus, b);
    assert_true(second > first);
    lim__durable_stream_seen(w.bus, 900);
    lim__batch *c = lim__batch_new();
    assert_true(lim__durable_stream(w.bus, c) > 900);
    lim__batch_free(b);
    lim__batch_free(c);
    durable_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commits_are_answered_once_and_in_order_and_survive_a_kill),
        cmocka_unit_test(test_a_bus_without_a_directory_keeps_nothing_and_says_so),
        cmocka_unit_test(test_what_waits_for_a_commit_is_heard_in_its_order),
        cmocka_unit_test(test_an_id_of_a_former_life_means_the_living_one),
        cmocka_unit_test(test_values_that_end_early_are_bad_and_read_as_zeros),
        cmocka_unit_test(test_numbers_of_streams_are_never_given_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
