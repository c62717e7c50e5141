/* SPDX-License-Identifier: Apache-2.0
 * reader_threads_test.c - readers on real threads and a real disk: publishers, handlers, acknowledgements from
 * elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bus/durable.h"
#include <liminal/liminal.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { PUBLISHERS = 2, EACH = 400, ALL = PUBLISHERS * EACH, SHARED = 2 };

typedef struct gate { /* counts up to something */
    pthread_mutex_t lock;
    pthread_cond_t more;
    uint32_t count;
} gate;

static void gate_bump(gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->count++;
    pthread_cond_signal(&g->more);
    pthread_mutex_unlock(&g->lock);
}

static void gate_await(gate *g, uint32_t count)
{
    pthread_mutex_lock(&g->lock);
    while (g->count < count)
        pthread_cond_wait(&g->more, &g->lock);
    pthread_mutex_unlock(&g->lock);
}
#define GATE                                                                                                           \
    {                                                                                                                  \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0                                                         \
    }

typedef struct member {
    lim_bus *bus;
    lim_sub sub;
    pthread_mutex_t lock;
    uint64_t held[ALL * 2];
    uint32_t count, taken;
} member;

static lim_bus *bus;
static lim_channel channel;
static gate in_order = GATE, held = GATE, stored = GATE, ended = GATE;
static _Atomic uint64_t next_seq;
static _Atomic bool gone[ALL + 2]; /* by number; 1 is the message that stored the channel */
static member members[SHARED];

static void *publish(void *ctx)
{
    lim_admission a;
    (void)ctx;
    for (int i = 0; i < EACH; i++)
        assert_int_equal(lim_publish(bus, channel, (lim_bytes){ "text", 4 }, NULL, &a), LIM_OK);
    return NULL;
}

static lim_done on_all(lim_bus *b, const lim_delivery *d, void *ctx)
{
    (void)b, (void)ctx;
    assert_int_equal(d->seq, atomic_fetch_add(&next_seq, 1));
    gate_bump(&in_order);
    return LIM_DONE;
}

static lim_done on_held(lim_bus *b, const lim_delivery *d, void *ctx)
{
    member *m = ctx;
    (void)b;
    assert_false(gone[d->seq]);
    pthread_mutex_lock(&m->lock);
    m->held[m->count++] = d->seq;
    pthread_mutex_unlock(&m->lock);
    gate_bump(&held);
    return LIM_HOLD;
}

static void on_end(void *ctx)
{
    (void)ctx;
    gate_bump(&ended);
}

static void on_done(void *ctx, lim_err err, const char *detail)
{
    (void)detail;
    assert_int_equal(err, LIM_OK);
    atomic_store((_Atomic bool *)ctx, true);
    gate_bump(&stored);
}

static void *acknowledge(void *ctx)
{
    (void)ctx;
    for (uint32_t n = 0; n < ALL; n++) {
        gate_await(&held, n + 1);
        for (int i = 0; i < SHARED; i++) {
            member *m = &members[i];
            pthread_mutex_lock(&m->lock);
            uint64_t seq = m->taken < m->count ? m->held[m->taken++] : 0;
            pthread_mutex_unlock(&m->lock);
            if (seq == 0)
                continue;
            assert_int_equal(lim_ack(bus, m->sub, seq, on_done, &gone[seq]), LIM_OK);
            break;
        }
    }
    return NULL;
}

static void open_bus(const char *dir)
{
    lim_diag diag;
    const lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 2, .data_dir = dir, .diag = &diag };
    assert_int_equal(lim_bus_open(&opts, &bus), LIM_OK);
    const lim_channel_opts durable = { .size = sizeof durable, .durable = true };
    assert_int_equal(lim_channel_open(bus, "log", &durable, &channel), LIM_OK);
    lim_receipt r; /* the channel is stored: numbers begin behind this one */
    assert_int_equal(lim_publish_wait(bus, channel, (lim_bytes){ "first", 5 }, NULL, &r), LIM_OK);
    next_seq = r.seq + 1;
}

static void subscribe(member *m, bool shared)
{
    lim_sub_opts opts = { .size = sizeof opts,
                          .window = 50,
                          .handler = { shared ? on_held : on_all, on_end, m, NULL, NULL },
                          .read = { .from = LIM_FROM_NEW, .cursor = shared ? "c" : NULL, .shared = shared } };
    lim_sub sub;
    assert_int_equal(lim_subscribe(bus, "log", &opts, &sub), LIM_OK);
    if (shared)
        m->sub = sub;
}

static void test_readers_publishers_and_acknowledgements_on_many_threads(void **state) /* proves DU5 DU6 */
{
    char dir[] = "/tmp/liminal-readers-XXXXXX", command[64];
    pthread_t threads[PUBLISHERS], acks;
    (void)state;
    assert_non_null(mkdtemp(dir));
    open_bus(dir);
    for (int i = 0; i < SHARED; i++) {
        members[i] = (member){ .bus = bus, .lock = PTHREAD_MUTEX_INITIALIZER };
        subscribe(&members[i], true);
    }
    subscribe(NULL, false);
    assert_int_equal(pthread_create(&acks, NULL, acknowledge, NULL), 0);
    for (int i = 0; i < PUBLISHERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, publish, NULL), 0);
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(acks, NULL);
    gate_await(&in_order, ALL);
    gate_await(&stored, ALL);
    assert_int_equal(lim_unsubscribe(bus, members[0].sub), LIM_OK);
    gate_await(&ended, 1);
    lim_bus_close(bus);
    assert_int_equal(ended.count, SHARED + 1);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

/* ---- who reads ---- */

typedef struct looking {
    lim__job job; /* first */
    char thread[16];
    gate done;
} looking;

static void look(lim__job *job, lim__store *store)
{
    looking *l = (looking *)job;
    assert_non_null(store);
    pthread_getname_np(pthread_self(), l->thread, sizeof l->thread);
    gate_bump(&l->done);
}

static void expect_thread(bool patient, const char *name)
{
    static looking l;
    l = (looking){ .job = { .run = look, .patient = patient }, .done = GATE };
    lim__durable_read(bus, &l.job);
    gate_await(&l.done, 1);
    assert_string_equal(l.thread, name);
}

static void test_long_work_gives_way_while_somebody_is_served(void **state)
{
    char dir[] = "/tmp/liminal-readers-XXXXXX", command[64];
    (void)state;
    assert_non_null(mkdtemp(dir));
    open_bus(dir);
    atomic_store(&bus->lively_ns, 0);
    expect_thread(true, "lim-read");
    lim__bus_lively(bus, bus->os->now_ns(bus->os) + 3600000000000u); /* however slow this machine is */
    expect_thread(true, "lim-replay");
    expect_thread(false, "lim-read");
    lim__bus_lively(bus, 1);
    expect_thread(true, "lim-read");
    lim_bus_close(bus);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers_publishers_and_acknowledgements_on_many_threads),
        cmocka_unit_test(test_long_work_gives_way_while_somebody_is_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
