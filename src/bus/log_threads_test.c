/* SPDX-License-Identifier: Apache-2.0
 * log_threads_test.c - durable channels with real threads and a real disk: many publish while channels are subscribed
 * to, configured, purged, deleted and made again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bus/log_inside.h"

#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 3, EACH = 400 };

typedef struct publisher {
    pthread_t thread;
    lim_bus *bus;
    lim_channel channel;
    uint64_t last;
    uint32_t stored, refused, doubled;
    bool in_order, keyed;
} publisher;

static void *publish_all(void *arg)
{
    publisher *p = arg;
    char text[32];
    for (uint32_t i = 0; i < EACH; i++) {
        lim_receipt r;
        lim_publish_opts opts = { .size = sizeof opts };
        snprintf(text, sizeof text, "k%u", (unsigned)i);
        if (p->keyed)
            opts.idempotency_key = text; /* the same ones in every thread */
        lim_err err = lim_publish_wait(p->bus, p->channel, lim__str(text), &opts, &r);
        if (err != LIM_OK || r.admission.verdict != LIM_ACCEPT) {
            p->refused++;
            continue;
        }
        p->stored += !r.duplicate;
        p->doubled += r.duplicate;
        p->in_order &= r.duplicate || r.seq > p->last;
        p->last = r.duplicate ? p->last : r.seq;
    }
    return NULL;
}

static lim_done on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d;
    atomic_fetch_add((_Atomic uint32_t *)ctx, 1);
    return LIM_DONE;
}

static lim_bus *bus_in(const char *dir)
{
    lim_bus *bus;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 2, .data_dir = dir, .data_segment_bytes = 1 << 20 };
    assert_int_equal(lim_bus_open(&opts, &bus), LIM_OK);
    return bus;
}

static void remove_dir(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static lim_channel durable(lim_bus *bus, const char *name, uint64_t count_max)
{
    const lim_channel_opts opts = { .size = sizeof opts, .durable = true, .count_max = count_max };
    lim_channel ch;
    assert_int_equal(lim_channel_open(bus, name, &opts, &ch), LIM_OK);
    return ch;
}

static void start(publisher *p, uint32_t count, lim_bus *bus, lim_channel ch, bool keyed)
{
    for (uint32_t i = 0; i < count; i++) {
        p[i] = (publisher){ .bus = bus, .channel = ch, .keyed = keyed, .in_order = true };
        assert_int_equal(pthread_create(&p[i].thread, NULL, publish_all, &p[i]), 0);
    }
}

static void test_many_threads_publish_each_key_once(void **state) /* proves XO1 */
{
    char dir[] = "log-threads-XXXXXX";
    publisher p[THREADS];
    _Atomic uint32_t heard = 0;
    lim_sub sub;
    (void)state;
    assert_non_null(mkdtemp(dir));
    lim_bus *bus = bus_in(dir);
    lim_channel ch = durable(bus, "orders", 0);
    const lim_sub_opts live = { .size = sizeof live,
                                .policy = LIM_DROP_OLDEST,
                                .handler = { .on_message = on_message, .ctx = &heard } };
    start(p, THREADS, bus, ch, true);
    for (uint32_t i = 0; i < 30; i++) { /* while subscriptions come and go, and the limits change */
        assert_int_equal(lim_subscribe(bus, "*", &live, &sub), LIM_OK);
        (void)durable(bus, "orders", 100000 + i);
        assert_int_equal(lim_unsubscribe(bus, sub), LIM_OK);
    }
    uint32_t stored = 0, doubled = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(p[i].thread, NULL);
        assert_true(p[i].in_order);
        assert_int_equal(p[i].refused, 0);
        stored += p[i].stored;
        doubled += p[i].doubled;
    }
    assert_int_equal(stored, EACH);
    assert_int_equal(doubled, EACH * (THREADS - 1));
    lim_receipt r;
    assert_int_equal(lim_publish_wait(bus, ch, lim__str("last"), NULL, &r), LIM_OK);
    assert_int_equal(r.seq, EACH + 1);
    lim_bus_close(bus);
    remove_dir(dir);
}

static void on_deleted(void *ctx, lim_err err, const char *detail)
{
    (void)err, (void)detail;
    atomic_fetch_add((_Atomic uint32_t *)ctx, 1);
}

static void test_a_channel_is_deleted_under_its_publishers(void **state)
{
    char dir[] = "log-threads-XXXXXX";
    publisher p[THREADS];
    _Atomic uint32_t deleted = 0;
    (void)state;
    assert_non_null(mkdtemp(dir));
    lim_bus *bus = bus_in(dir);
    start(p, THREADS, bus, durable(bus, "orders", 0), false);
    lim__log *log;
    lim_receipt r;
    lim__log_changed done = { on_deleted, &deleted };
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(lim__log_find(bus, lim__str("orders"), &log), LIM_OK);
        assert_int_equal(lim__log_delete(log, &done), LIM_OK);
        while (atomic_load(&deleted) < i) /* what waits for the disk gives way */
            (void)!lim_publish_wait(bus, p[0].channel, lim__str("x"), NULL, &r);
        lim__log_unref(log);
        lim_channel again = durable(bus, "orders", 0);
        assert_int_equal(lim_publish_wait(bus, again, lim__str("first"), NULL, &r), LIM_OK);
        assert_int_equal(r.seq, 1); /* another stream */
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(p[i].thread, NULL);
        assert_true(p[i].in_order);
    }
    lim_bus_close(bus);
    bus = bus_in(dir);
    assert_int_equal(lim_publish_wait(bus, durable(bus, "orders", 0), lim__str("second"), NULL, &r), LIM_OK);
    assert_int_equal(r.seq, 2);
    lim_bus_close(bus);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads_publish_each_key_once),
        cmocka_unit_test(test_a_channel_is_deleted_under_its_publishers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
