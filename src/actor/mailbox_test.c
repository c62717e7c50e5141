/* SPDX-License-Identifier: Apache-2.0
 * mailbox_test.c - limits, reservations, order, and who frees a letter. */
#include "actor/test_world.h"

static puppet *small_box(world *w, uint32_t scheduler, uint32_t max)
{
    puppet *p = calloc(1, sizeof *p);
    lim_spawn_opts o = puppet_opts(&p);
    o.place = true;
    o.scheduler = scheduler;
    o.mailbox_max = max;
    o.trap_exit = true;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &p->pid), LIM_OK);
    return p;
}

static uint32_t places_taken(world *w, const puppet *p)
{
    lim__sched *home = lim__sched_at(w->rt, lim__pid_scheduler(p->pid));
    return lim__places_used(lim__slot_of(home, p->pid), lim__inner_of(home, p->pid));
}

static void do_fill(lim_process *self, puppet *p, void *other)
{
    for (uint32_t i = 0; i < 5; i++)
        do_hello(self, p, other);
}

static void test_a_full_mailbox_says_so_and_still_takes_an_exit(void **state) /* R13, proves RT3 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = small_box(w, far, 4);
        act(w, b, do_link, a);
        settle(w);
        act(w, a, do_fill, b);
        (void)step(w, 0);
        assert_int_equal(a->err, LIM_E_FULL);
        assert_int_equal(places_taken(w, b), far ? 4 : 0);
        if (far) { /* not handled yet: the host is refused too, and the exit still finds room */
            assert_int_equal(lim_runtime_send(w->rt, b->pid, 1, lim__str("x")), LIM_E_FULL);
            act(w, a, do_exit, REASON(LIM_FAULT));
        }
        settle(w);
        assert_int_equal(b->count, far ? 5 : 4);
        if (far)
            assert_signal(b, 4, LIM_SIGNAL_EXIT, LIM_FAULT);
        assert_int_equal(places_taken(w, b), 0);
        assert_int_equal(lim_runtime_send(w->rt, b->pid, 1, lim__str("x")), LIM_OK);
        settle(w);
        world_close(w);
        free(a), free(b);
    }
}

static void do_fill_myself_and_die(lim_process *self, puppet *p, void *other)
{
    do_fill(self, p, p);
    lim_exit_process(self, ((puppet *)other)->pid, LIM_KILL);
}

static void test_places_reserved_at_a_process_that_dies_are_given_back(void **state) /* proves RT3 RT12 */
{
    (void)state;
    world *w = world_open(2);
    puppet *a = puppet_new(w, 0, false), *b = small_box(w, 1, 4);
    act(w, a, do_fill, b);
    (void)step(w, 0);
    lim_runtime_exit(w->rt, b->pid, LIM_KILL);
    act(w, a, do_fill_myself_and_die, b);
    settle(w);
    assert_int_equal(b->ends, 1);
    assert_int_equal(places_taken(w, b), 0);
    act(w, a, do_fill, b);
    settle(w);
    assert_int_equal(a->err, LIM_E_GONE);
    assert_int_equal(places_taken(w, b), 0);
    assert_nothing_left(w, 1);
    world_close(w);
    free(a), free(b);
}

/* Sends until it is refused; err is the last answer, ref how many went. */
static void do_send_until_full(lim_process *self, puppet *p, void *other)
{
    for (p->ref = 0; (p->err = lim_send(self, ((puppet *)other)->pid, 1, lim__str("x"))) == LIM_OK;)
        p->ref++;
}

static uint32_t host_sends_until_full(world *w, const puppet *to)
{
    uint32_t n = 0;
    while (lim_runtime_send(w->rt, to->pid, 1, lim__str("x")) == LIM_OK)
        n++;
    return n;
}

static void test_a_mailbox_takes_exactly_what_it_may_whoever_fills_it(void **state) /* proves RT3 */
{
    (void)state;
    for (uint32_t max = 1; max < 700; max = max * 2 + 1) {
        world *w = world_open(2);
        puppet *near = puppet_new(w, 1, false), *far = puppet_new(w, 0, false), *to = small_box(w, 1, max);
        for (uint32_t first = 0; first <= max && first < 40; first++) { /* so many from elsewhere, the rest from here */
            for (uint32_t i = 0; i < first; i++)
                assert_int_equal(lim_runtime_send(w->rt, to->pid, 1, lim__str("x")), LIM_OK);
            lim__inbox_deal(lim__sched_at(w->rt, 1));
            act(w, near, do_send_until_full, to);
            (void)step(w, 1);
            assert_int_equal(near->err, LIM_E_FULL);
            settle(w);
            assert_int_equal(places_taken(w, to), 0);
            assert_int_equal(host_sends_until_full(w, to), max);
            settle(w);
            act(w, far, do_send_until_full, to);
            (void)step(w, 0);
            assert_int_equal(far->ref, max);
            assert_int_equal(host_sends_until_full(w, to), 0);
            settle(w);
        }
        assert_nothing_left(w, 3);
        world_close(w);
        free(near), free(far), free(to);
    }
}

static void test_a_grant_does_not_outlive_its_mailbox(void **state) /* proves RT1 RT3 */
{
    (void)state;
    world *w = world_open(1);
    puppet *big = small_box(w, 0, 1000), *others[LIM__CHUNK_SLOTS];
    lim__slot *slot = lim__slot_of(lim__sched_at(w->rt, 0), big->pid);
    assert_int_equal(lim_runtime_send(w->rt, big->pid, 1, lim__str("x")), LIM_OK);
    assert_true(lim__far_granted(atomic_load(&slot->far)) > lim__far_taken(atomic_load(&slot->far)));
    lim_runtime_exit(w->rt, big->pid, LIM_KILL);
    settle(w);
    for (uint32_t i = 0; i < LIM__CHUNK_SLOTS; i++) { /* each slot has another tenant */
        others[i] = small_box(w, 0, 1);
        assert_int_equal(host_sends_until_full(w, others[i]), 1);
    }
    settle(w);
    assert_nothing_left(w, LIM__CHUNK_SLOTS);
    world_close(w);
    for (uint32_t i = 0; i < LIM__CHUNK_SLOTS; i++)
        free(others[i]);
    free(big);
}

static void do_count_to_eight(lim_process *self, puppet *p, void *other)
{
    for (uint32_t i = 0; i < 8; i++)
        p->err = lim_send(self, ((puppet *)other)->pid, i, lim__str("n"));
}

static void test_each_sender_is_seen_in_its_order(void **state) /* proves RT2 */
{
    (void)state;
    for (uint64_t seed = 1; seed < 200; seed++) {
        world *w = world_open(2);
        w->seed = seed;
        puppet *near = puppet_new(w, 0, false), *far = puppet_new(w, 1, false), *to = puppet_new(w, 0, false);
        act(w, near, do_count_to_eight, to);
        act(w, far, do_count_to_eight, to);
        for (uint32_t i = 0; i < 8; i++) {
            assert_int_equal(lim_runtime_send(w->rt, to->pid, i, lim__str("h")), LIM_OK);
            if (world_random(&w->os) % 3 == 0)
                (void)step(w, (uint32_t)(world_random(&w->os) % 2));
        }
        settle_randomly(w);
        assert_int_equal(to->count, 24);
        uint32_t next[3] = { 0 };
        for (uint32_t i = 0; i < 24; i++) {
            uint64_t from = to->log[i].from.id;
            uint32_t who = from == near->pid.id ? 0 : from == far->pid.id ? 1 : 2;
            assert_int_equal(to->log[i].tag, next[who]++);
        }
        assert_nothing_left(w, 3);
        world_close(w);
        free(near), free(far), free(to);
    }
}

/* ---- bodies ---- */
static void do_send_sizes(lim_process *self, puppet *p, void *other)
{
    static char body[70000];
    for (size_t n = 0; n < sizeof body; n = n * 3 + 1)
        p->err = lim_send(self, ((puppet *)other)->pid, (uint32_t)n, lim__bytes(body, n));
}

static void test_bodies_of_every_size_arrive(void **state)
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false);
        act(w, a, do_send_sizes, b);
        settle(w);
        assert_int_equal(a->err, LIM_OK);
        assert_true(b->count > 9);
        for (uint32_t i = 0; i < b->count; i++) {
            assert_int_equal(b->log[i].body.len, b->log[i].tag);
            assert_int_equal((uintptr_t)b->log[i].body.ptr % 16, 0);
        }
        lim_bytes too_big = { "x", (size_t)LIM__BODY_BYTES_MAX + 1 };
        assert_int_equal(lim_runtime_send(w->rt, b->pid, 0, too_big), LIM_E_TOOBIG);
        assert_nothing_left(w, 2);
        world_close(w);
        free(a), free(b);
    }
}

static void test_the_pool_gives_blocks_of_every_size(void **state)
{
    (void)state;
    world *w = world_open(1);
    lim__sched *s = lim__sched_at(w->rt, 0);
    for (int round = 0; round < 2; round++) {
        void *blocks[600];
        for (uint32_t i = 0; i < 600; i++) {
            size_t n = (size_t)i * 47;
            blocks[i] = lim__alloc(i % 2 ? s : NULL, n);
            assert_non_null(blocks[i]);
            memset(blocks[i], 0x5a, n);
        }
        for (uint32_t i = 0; i < 600; i++)
            lim__free(i % 3 ? s : NULL, blocks[i], (size_t)i * 47);
        lim__free(s, NULL, 8);
    }
    for (size_t n = 1; n < 20000; n++) {
        uint32_t klass = lim__class_of(n);
        assert_true(klass == LIM__CLASS_HUGE || lim__class_bytes(klass) >= n);
        assert_true(klass == LIM__CLASS_HUGE || klass == 0 || lim__class_bytes(klass - 1) < n);
    }
    world_close(w);
}

static void test_a_thousand_blocks_of_a_class_move_to_another_scheduler_by_the_batch(void **state)
{
    (void)state;
    world *w = world_open(2);
    lim__sched *a = lim__sched_at(w->rt, 0), *b = lim__sched_at(w->rt, 1);
    for (int round = 0; round < 40; round++) {
        static void *blocks[1000];
        for (uint32_t i = 0; i < 1000; i++)
            assert_non_null(blocks[i] = lim__alloc(a, 100));
        for (uint32_t i = 0; i < 1000; i++)
            lim__free(b, blocks[i], 100);
        assert_true(b->magazines[lim__class_of(100)].count <= lim__magazine_max(lim__class_of(100)));
    }
    world_close(w);
}

/* ---- typed letters: their references are released exactly once, wherever they end ---- */
static uint32_t dropped;

static void on_drop(void *body)
{
    assert_int_equal(*(uint32_t *)body, 0xabcd);
    *(uint32_t *)body = 0;
    dropped++;
}
static const lim__letter_type counted = { .name = "counted", .drop = on_drop };

static void *letter(lim__sched *s)
{
    uint32_t *body = lim__letter_new(s, &counted, 24);
    assert_non_null(body);
    *body = 0xabcd;
    return body;
}

typedef struct keeper {
    puppet *p;
    void *kept;
} keeper;

static void keeper_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    keeper *k = state;
    assert_ptr_equal(signal->type, &counted);
    k->p->count++;
    if (k->p->count == 1) {
        k->kept = lim__letter_keep(self, signal);
        return;
    }
    if (k->p->count == 2) { /* references moved on: the block goes back without drop */
        void *body = lim__letter_keep(self, signal);
        lim__letter_recycle(lim__proc_sched(self), body);
        return;
    }
    if (k->p->count == 3)
        k->p->err = lim__send_reserved(self, lim_self(self), k->kept); /* travels on */
}

static void test_a_letter_is_dropped_exactly_once_wherever_it_ends(void **state)
{
    (void)state;
    dropped = 0;
    world *w = world_open(2);
    puppet *p = calloc(1, sizeof *p);
    keeper init = { .p = p };
    lim_spawn_opts o = { .size = sizeof o,
                         .on_signal = keeper_on_signal,
                         .state_bytes = sizeof init,
                         .init = &init,
                         .init_bytes = sizeof init,
                         .mailbox_max = 2,
                         .place = true,
                         .scheduler = 1 };
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &p->pid), LIM_OK);
    assert_int_equal(lim__post(w->rt, p->pid, letter(NULL)), LIM_OK); /* kept */
    settle(w);
    assert_int_equal(dropped, 0);
    assert_int_equal(lim__post(w->rt, p->pid, letter(NULL)), LIM_OK); /* recycled */
    settle(w);
    assert_int_equal(dropped, 0);
    assert_int_equal(lim__post(w->rt, p->pid, letter(NULL)), LIM_OK); /* handled; the kept one is sent on */
    settle(w);
    assert_int_equal(p->err, LIM_OK);
    assert_int_equal(p->count, 4);
    assert_int_equal(dropped, 2);
    assert_int_equal(lim__post(w->rt, p->pid, letter(NULL)), LIM_OK);
    assert_int_equal(lim__post(w->rt, p->pid, letter(NULL)), LIM_OK);
    assert_int_equal(lim__post(w->rt, p->pid, letter(NULL)), LIM_E_FULL); /* refused */
    assert_int_equal(dropped, 3);
    assert_int_equal(lim__post_reserved(w->rt, p->pid, letter(NULL)), LIM_OK); /* finds room anyway */
    lim_runtime_exit(w->rt, p->pid, LIM_KILL);
    assert_int_equal(lim__post_reserved(w->rt, p->pid, letter(NULL)), LIM_OK); /* dead on arrival */
    settle(w);
    assert_int_equal(p->count, 7);
    assert_int_equal(dropped, 7);
    assert_int_equal(lim__post(w->rt, p->pid, letter(NULL)), LIM_E_GONE);
    assert_int_equal(lim__post_reserved(w->rt, p->pid, letter(NULL)), LIM_E_GONE);
    lim__letter_free(NULL, letter(NULL));
    lim__letter_free(NULL, NULL);
    assert_int_equal(dropped, 10);
    assert_nothing_left(w, 0);
    world_close(w);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_mailbox_says_so_and_still_takes_an_exit),
        cmocka_unit_test(test_places_reserved_at_a_process_that_dies_are_given_back),
        cmocka_unit_test(test_a_mailbox_takes_exactly_what_it_may_whoever_fills_it),
        cmocka_unit_test(test_a_grant_does_not_outlive_its_mailbox),
        cmocka_unit_test(test_each_sender_is_seen_in_its_order),
        cmocka_unit_test(test_bodies_of_every_size_arrive),
        cmocka_unit_test(test_the_pool_gives_blocks_of_every_size),
        cmocka_unit_test(test_a_thousand_blocks_of_a_class_move_to_another_scheduler_by_the_batch),
        cmocka_unit_test(test_a_letter_is_dropped_exactly_once_wherever_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
