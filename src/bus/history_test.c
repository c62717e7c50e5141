/* SPDX-License-Identifier: Apache-2.0
 * history_test.c - histories are bounded, survive their conversations for a while, and can be followed without a gap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/agent.h"
#include "bus/history.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })

enum { WRITE = 1, END };

typedef struct writer { /* a process with a history, that writes what it is told to */
    lim_bus *bus;
    lim__history *history;
    uint64_t written;
} writer;

static void writer_signal(lim_process *self, const lim_signal *signal, void *state)
{
    writer *w = state;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (w->history == NULL)
        w->history = lim__history_new(w->bus, self);
    assert_non_null(w->history);
    if (signal->tag == END) {
        lim_exit(self, LIM_NORMAL);
        return;
    }
    uint32_t left;
    memcpy(&left, signal->body.ptr, sizeof left);
    char who[32];
    int len = snprintf(who, sizeof who, "w\"%" PRIu64, ++w->written);
    lim__history_add(w->history, self,
                     &(lim__history_note){ .kind = "said",
                                           .who = { who, (size_t)len },
                                           .detail = { "d", 1 },
                                           .bytes = 10 * w->written,
                                           .code = (uint32_t)w->written });
    if (--left > 0)
        assert_int_equal(lim_send(self, lim_self(self), WRITE, (lim_bytes){ &left, sizeof left }), LIM_OK);
}

static void writer_end(void *state, lim_reason reason)
{
    (void)reason;
    lim__history_end(((writer *)state)->history);
}

static lim_conv writer_open(lim_bus *bus)
{
    lim_pid pid;
    writer init = { .bus = bus };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = writer_signal,
                            .on_end = writer_end,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init };
    assert_int_equal(lim_runtime_spawn(bus->rt, &opts, &pid), LIM_OK);
    return (lim_conv){ pid.id };
}

static void writer_write(lim_bus *bus, lim_conv c, uint32_t count)
{
    assert_int_equal(lim_runtime_send(bus->rt, (lim_pid){ c.id }, WRITE, (lim_bytes){ &count, sizeof count }), LIM_OK);
}

static void writer_close(lim_bus *bus, lim_conv c)
{
    assert_int_equal(lim_runtime_send(bus->rt, (lim_pid){ c.id }, END, (lim_bytes){ "", 0 }), LIM_OK);
    while (lim_alive(bus->rt, (lim_pid){ c.id }))
        sched_yield();
}

typedef struct seen { /* what a reader was shown */
    uint64_t count, first, last;
} seen;

static void on_entry(void *ctx, const lim_history_entry *e)
{
    seen *s = ctx;
    char who[32];
    int len = snprintf(who, sizeof who, "w\"%" PRIu64, e->n);
    assert_true(s->count == 0 || e->n == s->last + 1);
    assert_int_equal(e->bytes, 10 * e->n);
    assert_true(e->at_wall_us > 0);
    assert_int_equal(e->who.len, len);
    assert_memory_equal(e->who.ptr, who, (size_t)len);
    assert_memory_equal(e->kind.ptr, "said", 4);
    s->first = s->count++ == 0 ? e->n : s->first;
    s->last = e->n;
}

static uint64_t written(lim_bus *bus, lim_conv c, uint64_t after, seen *s)
{
    uint64_t entries = 0;
    *s = (seen){ 0 };
    lim_err err = lim_conv_history(bus, c, after, on_entry, s, &entries);
    assert_true(err == LIM_OK || err == LIM_E_NOTFOUND);
    return entries;
}

static lim_bus *open_bus(uint32_t schedulers)
{
    lim_bus *bus = NULL;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = schedulers), &bus), LIM_OK);
    return bus;
}

static void test_the_newest_entries_are_kept_and_all_are_counted(void **state) /* proves CV17 */
{
    (void)state;
    seen s;
    lim_bus *bus = open_bus(1);
    lim_conv c = writer_open(bus);
    writer_write(bus, c, 5);
    while (written(bus, c, 0, &s) < 5)
        sched_yield();
    assert_true(s.count == 5 && s.first == 1);
    writer_write(bus, c, 2 * LIM__HISTORY_MAX);
    while (written(bus, c, 0, &s) < 2 * LIM__HISTORY_MAX + 5)
        sched_yield();
    assert_true(s.count == LIM__HISTORY_MAX && s.last == 2 * LIM__HISTORY_MAX + 5);
    assert_int_equal(written(bus, c, s.last - 3, &s), 2 * LIM__HISTORY_MAX + 5);
    assert_int_equal(s.count, 3);
    lim_bus_close(bus);
}

static void test_a_history_is_readable_a_while_after_its_end(void **state) /* proves CV1 CV17 */
{
    (void)state;
    seen s;
    lim_bus *bus = open_bus(2);
    lim_conv c = writer_open(bus), none = writer_open(bus);
    uint64_t entries;
    assert_int_equal(lim_conv_history(bus, none, 0, on_entry, &s, &entries), LIM_E_NOTFOUND);
    writer_write(bus, c, 3);
    while (written(bus, c, 0, &s) < 3)
        sched_yield();
    writer_close(bus, c);
    assert_int_equal(written(bus, c, 1, &s), 3);
    assert_true(s.count == 2 && s.first == 2);
    lim_conv killed = writer_open(bus);
    writer_write(bus, killed, 1);
    lim_runtime_exit(bus->rt, (lim_pid){ killed.id }, LIM_KILL);
    while (lim_alive(bus->rt, (lim_pid){ killed.id }))
        sched_yield();
    assert_int_equal(written(bus, killed, 0, &s), 1);
    lim_bus_close(bus);
}

static void test_the_shelf_forgets_the_oldest(void **state) /* proves CV1 */
{
    (void)state;
    enum { MANY = 600 };
    static lim_conv all[MANY];
    seen s;
    uint32_t known = 0;
    lim_bus *bus = open_bus(1);
    for (int i = 0; i < MANY; i++) {
        all[i] = writer_open(bus);
        writer_write(bus, all[i], 1);
        writer_close(bus, all[i]);
    }
    for (int i = 0; i < MANY; i++) {
        bool is = written(bus, all[i], 0, &s) == 1;
        assert_true(is || known == 0);
        known += is;
    }
    assert_int_equal(known, 512);
    lim_bus_close(bus);
}

/* ---- following ---- */

typedef struct follower {
    lim_bus *bus;
    lim_conv conv;
    uint32_t total;
    _Atomic uint64_t live[4096]; /* how often entry n was published to us */
    uint8_t snapshot[4096];
    _Atomic uint64_t last;
    _Atomic bool over;
} follower;

static lim_done on_live(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    follower *f = ctx;
    lim__doc *doc = lim__doc_new();
    (void)bus;
    assert_int_equal(lim__doc_parse(doc, d->payload, NULL), LIM_OK);
    uint64_t n = lim__val_u64(lim__doc_root(doc), "n", 0);
    lim__doc_free(doc);
    assert_true(n > 0 && n <= f->total && n > atomic_load(&f->last));
    atomic_fetch_add(&f->live[n], 1);
    atomic_store(&f->last, n);
    return LIM_DONE;
}

static void on_over(void *ctx)
{
    atomic_store(&((follower *)ctx)->over, true);
}

static void on_snapshot(void *ctx, const lim_history_entry *e)
{
    ((follower *)ctx)->snapshot[e->n]++;
}

static void *follow(void *arg)
{
    follower *f = arg;
    char name[64];
    lim_sub sub;
    uint64_t upto = 0;
    snprintf(name, sizeof name, "$sys.history.%" PRIx64, f->conv.id);
    assert_int_equal(lim_subscribe(f->bus, name,
                                   OPTS(lim_sub_opts, .window = 4096, .backlog = 4096,
                                        .handler = { .on_message = on_live, .on_end = on_over, .ctx = f }),
                                   &sub),
                     LIM_OK);
    lim_err err = lim_conv_history(f->bus, f->conv, 0, on_snapshot, f, &upto);
    assert_true(err == LIM_OK || err == LIM_E_NOTFOUND);
    while (upto < f->total && atomic_load(&f->last) < f->total)
        sched_yield();
    for (uint64_t n = 1; n <= f->total; n++) { /* of what came twice one has the same number as the other */
        assert_int_equal(f->snapshot[n], n <= upto);
        assert_true(atomic_load(&f->live[n]) <= 1);
        assert_true(n <= upto || atomic_load(&f->live[n]) == 1);
    }
    assert_int_equal(lim_unsubscribe(f->bus, sub), LIM_OK);
    while (!atomic_load(&f->over))
        sched_yield();
    return NULL;
}

static void test_who_follows_first_and_reads_then_misses_nothing_and_sees_nothing_twice(void **state) /* proves CV17 */
{
    (void)state;
    enum { FOLLOWERS = 4, ENTRIES = 500 };
    lim_bus *bus = open_bus(2);
    for (int round = 0; round < 20; round++) {
        follower *all = calloc(FOLLOWERS, sizeof *all);
        pthread_t threads[FOLLOWERS];
        lim_conv c = writer_open(bus);
        for (int i = 0; i < FOLLOWERS; i++) {
            if (i == FOLLOWERS / 2)
                writer_write(bus, c, ENTRIES);
            all[i].bus = bus;
            all[i].conv = c;
            all[i].total = ENTRIES;
            assert_int_equal(pthread_create(&threads[i], NULL, follow, &all[i]), 0);
        }
        for (int i = 0; i < FOLLOWERS; i++)
            pthread_join(threads[i], NULL);
        writer_close(bus, c);
        free(all);
    }
    lim_bus_close(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_entries_are_kept_and_all_are_counted),
        cmocka_unit_test(test_a_history_is_readable_a_while_after_its_end),
        cmocka_unit_test(test_the_shelf_forgets_the_oldest),
        cmocka_unit_test(test_who_follows_first_and_reads_then_misses_nothing_and_sees_nothing_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
