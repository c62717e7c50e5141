/* SPDX-License-Identifier: Apache-2.0
 * process_test.c - birth, death and identity: options, slots, stale ids, what on_end may rely on. */
#include "actor/test_world.h"
#include <malloc.h>

static void test_a_spawn_with_forgotten_or_wrong_options_is_refused(void **state)
{
    (void)state;
    world *w = world_open(1);
    puppet *p = calloc(1, sizeof *p);
    lim_pid pid = { 77 };
    lim_spawn_opts good = puppet_opts(&p), o = good;
    assert_int_equal(lim_runtime_spawn(w->rt, NULL, &pid), LIM_E_MISUSE);
    o.size = 3;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_E_MISUSE);
    o = good;
    o.on_signal = NULL;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_E_MISUSE);
    o = good;
    o.link = true; /* to whom? */
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_E_MISUSE);
    o = good;
    o.init_bytes = o.state_bytes + 1;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_E_INVALID);
    o = good;
    o.state_bytes = LIM__STATE_BYTES_MAX + 1;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_E_TOOBIG);
    o = good;
    o.place = true;
    o.scheduler = 1;
    assert_int_equal(lim_runtime_spawn(w->rt, &o, &pid), LIM_E_INVALID);
    assert_int_equal(pid.id, 77);
    assert_nothing_left(w, 0);
    world_close(w);
    free(p);
}

static void do_spawn_linked_and_watched(lim_process *self, puppet *p, void *arg)
{
    puppet **child = arg;
    lim_spawn_opts o = puppet_opts(child);
    o.link = true;
    o.monitor = true;
    o.monitor_out = &p->ref;
    o.place = true;
    o.scheduler = (*child)->count; /* where the test wants it */
    (*child)->count = 0;
    p->err = lim_spawn(self, &o, &(*child)->pid);
}

static void test_links_and_monitors_are_set_before_a_child_first_runs(void **state) /* proves RT8 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = calloc(1, sizeof *b);
        b->count = far;
        act(w, a, do_spawn_linked_and_watched, &b);
        settle(w);
        assert_int_equal(a->err, LIM_OK);
        assert_int_equal(lim__pid_scheduler(b->pid), far);
        act(w, b, do_exit, REASON(LIM_FAULT));
        settle(w);
        assert_int_equal(a->count, 2);
        assert_signal(a, 0, LIM_SIGNAL_EXIT, LIM_FAULT);
        assert_signal(a, 1, LIM_SIGNAL_DOWN, LIM_FAULT);
        assert_int_equal(a->log[1].ref, a->ref);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void do_spawn_watched_elsewhere_and_demonitor(lim_process *self, puppet *p, void *arg)
{
    do_spawn_linked_and_watched(self, p, arg);
    lim_unlink(self, (*(puppet **)arg)->pid);
    lim_demonitor(self, p->ref);
}

static void test_a_child_can_be_let_go_in_the_handler_that_spawned_it(void **state)
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = calloc(1, sizeof *b);
        b->count = far;
        act(w, a, do_spawn_watched_elsewhere_and_demonitor, &b);
        settle(w);
        act(w, b, do_exit, REASON(LIM_FAULT));
        settle(w);
        assert_int_equal(a->count, 0);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void test_a_stale_id_is_never_somebody_else(void **state) /* proves RT1 */
{
    (void)state;
    world *w = world_open(2);
    puppet *first = puppet_new(w, 1, false), *asker = puppet_new(w, 0, true);
    lim_pid stale = first->pid;
    act(w, first, do_exit, REASON(LIM_NORMAL));
    settle(w);
    puppet *others[LIM__CHUNK_SLOTS];
    bool reused = false;
    for (uint32_t i = 0; i < LIM__CHUNK_SLOTS; i++) { /* slots are reused first in, first out: all others first */
        others[i] = puppet_new(w, 1, false);
        assert_true(others[i]->pid.id != stale.id);
        bool same_slot = lim__pid_slot(others[i]->pid) == lim__pid_slot(stale);
        assert_true(!same_slot || i == LIM__CHUNK_SLOTS - 1);
        reused |= same_slot;
    }
    assert_true(reused);
    assert_false(lim_alive(w->rt, stale));
    assert_int_equal(lim_runtime_send(w->rt, stale, 1, lim__str("x")), LIM_E_GONE);
    lim_runtime_exit(w->rt, stale, LIM_KILL);
    act(w, asker, do_link, first);
    act(w, asker, do_monitor, first);
    act(w, asker, do_hello, first);
    settle(w);
    assert_int_equal(asker->err, LIM_E_GONE);
    assert_signal(asker, 0, LIM_SIGNAL_EXIT, LIM_NOPROC);
    assert_signal(asker, 1, LIM_SIGNAL_DOWN, LIM_NOPROC);
    for (uint32_t i = 0; i < LIM__CHUNK_SLOTS; i++) {
        assert_int_equal(others[i]->ends, 0);
        assert_int_equal(others[i]->count, 0);
    }
    world_close(w);
    for (uint32_t i = 0; i < LIM__CHUNK_SLOTS; i++)
        free(others[i]);
    free(first), free(asker);
}

static void test_a_slot_whose_generation_would_wrap_is_retired(void **state) /* proves RT1 */
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false);
    uint32_t slot_index = lim__pid_slot(a->pid);
    act(w, a, do_exit, REASON(LIM_NORMAL));
    settle(w);
    lim__slot *slot = lim__slot_of(lim__sched_at(w->rt, 0), a->pid);
    slot->idle.generation = (1u << LIM__GENERATION_BITS) - 1;
    free(a);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < 4 * LIM__CHUNK_SLOTS; i++) {
        a = puppet_new(w, 0, false);
        seen += lim__pid_slot(a->pid) == slot_index;
        act(w, a, do_exit, REASON(LIM_NORMAL));
        settle(w);
        free(a);
    }
    assert_int_equal(seen, 1);
    assert_nothing_left(w, 0);
    world_close(w);
}

static void test_ids_of_nobody_are_gone(void **state) /* proves RT1 */
{
    (void)state;
    world *w = world_open(1);
    uint64_t ids[] = { 0, 1, lim__pid_make(0, 0, 2), lim__pid_make(5, 0, 1), 1ull << 56, UINT64_MAX };
    for (uint32_t i = 0; i < LIM_COUNT(ids); i++) {
        lim_pid pid = { ids[i] };
        assert_false(lim_alive(w->rt, pid));
        assert_int_equal(lim_runtime_send(w->rt, pid, 0, lim__str("x")), LIM_E_GONE);
        lim_runtime_exit(w->rt, pid, LIM_KILL);
    }
    world_close(w);
}

/* ---- the end ---- */
typedef struct last_words {
    lim_runtime *rt;
    lim_pid heir;
    uint32_t alive_in_on_end, ends;
    lim_err err;
    lim_pid self;
} last_words;

static void last_words_signal(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->kind == LIM_SIGNAL_MESSAGE) {
        lim_exit(self, LIM_FAULT);
        lim_exit(self, LIM_NORMAL); /* the first reason counts */
    }
}

static void last_words_end(void *state, lim_reason reason)
{
    last_words *l = *(last_words **)state;
    l->ends++;
    assert_int_equal(reason, LIM_FAULT);
    l->alive_in_on_end += lim_alive(l->rt, l->self);
    l->err = lim_runtime_send(l->rt, l->heir, 7, lim__str("farewell"));
}

static void do_link_pid(lim_process *self, puppet *p, void *pid)
{
    p->err = lim_link(self, *(lim_pid *)pid);
}

static void test_what_on_end_sends_arrives_before_the_exit(void **state) /* proves RT2 RT3 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *heir = puppet_new(w, far, true);
        last_words words = { .rt = w->rt, .heir = heir->pid }, *init = &words;
        lim_spawn_opts o = { .size = sizeof o,
                             .on_signal = last_words_signal,
                             .on_end = last_words_end,
                             .state_bytes = sizeof init,
                             .init = &init,
                             .init_bytes = sizeof init,
                             .place = true };
        assert_int_equal(lim_runtime_spawn(w->rt, &o, &words.self), LIM_OK);
        act(w, heir, do_link_pid, &words.self);
        settle(w);
        assert_int_equal(lim_runtime_send(w->rt, words.self, 1, lim__str("end")), LIM_OK);
        settle(w);
        assert_int_equal(words.ends, 1);
        assert_int_equal(words.alive_in_on_end, 0);
        assert_int_equal(words.err, LIM_OK);
        assert_int_equal(heir->count, 2);
        assert_signal(heir, 0, LIM_SIGNAL_MESSAGE, LIM_REASON_NONE);
        assert_string_equal(heir->text[0], "farewell");
        assert_signal(heir, 1, LIM_SIGNAL_EXIT, LIM_FAULT);
        assert_nothing_left(w, 1);
        world_close(w);
        free(heir);
    }
}

static void test_nothing_reaches_a_process_after_its_exit(void **state) /* proves RT5 */
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, 0, false);
    act(w, a, do_exit, REASON(LIM_LEFT));
    act(w, b, do_hello, a); /* dealt in the same turn: a is already gone when b runs */
    assert_int_equal(lim_runtime_send(w->rt, a->pid, 1, lim__str("x")), LIM_OK); /* in the inbox when it ends */
    settle(w);
    assert_int_equal(a->count, 0);
    assert_int_equal(a->end_reason, LIM_LEFT);
    assert_int_equal(b->err, LIM_E_GONE);
    assert_nothing_left(w, 1);
    world_close(w);
    free(a), free(b);
}

static void test_closing_kills_everybody_once_and_frees_what_was_under_way(void **state)
{
    (void)state;
    world *w = world_open(2);
    puppet *p[4];
    for (uint32_t i = 0; i < 4; i++)
        p[i] = puppet_new(w, i % 2, true);
    for (uint32_t i = 0; i < 4; i++) {
        act(w, p[i], do_link, p[(i + 1) % 4]);
        act(w, p[i], do_monitor, p[(i + 2) % 4]);
        act(w, p[i], do_link, p[(i + 3) % 4]);
        act(w, p[i], do_unlink, p[(i + 3) % 4]);
        act(w, p[i], do_hello, p[(i + 1) % 4]);
    }
    (void)step(w, 0); /* letters are in every place a letter can be in */
    world_close(w);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(p[i]->ends, 1);
        assert_int_equal(p[i]->end_reason, LIM_KILLED);
        free(p[i]);
    }
}

static void test_memory_stays_flat_over_many_lives(void **state) /* R19, proves RT12 */
{
    (void)state;
    world *w = world_open(2);
    puppet *p = calloc(1, sizeof *p);
    lim_spawn_opts o = puppet_opts(&p);
    o.place = true;
    size_t used[2] = { 0 };
    for (uint32_t i = 0; i < 200000; i++) {
        o.scheduler = i % 2;
        assert_int_equal(lim_runtime_spawn(w->rt, &o, &p->pid), LIM_OK);
        lim_runtime_exit(w->rt, p->pid, LIM_KILL);
        if (i % 64 == 63)
            settle(w);
        if (i == 10047 || i == 199999)
            used[i == 199999] = mallinfo2().uordblks;
    }
    settle(w);
    assert_int_equal(p->ends, 200000);
    assert_true(used[1] <= used[0] + 65536);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(lim__sched_at(w->rt, i)->chunk_count <= 1 + 128 / LIM__CHUNK_SLOTS);
    assert_nothing_left(w, 0);
    world_close(w);
    free(p);
}

/* ---- names ---- */
static void test_a_name_is_unique_and_goes_with_its_process(void **state)
{
    (void)state;
    world *w = world_open(2);
    puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, 1, false);
    char longest[257];
    memset(longest, 'n', sizeof longest - 1);
    longest[256] = 0;
    assert_int_equal(lim_register(w->rt, "one", a->pid), LIM_OK);
    assert_int_equal(lim_register(w->rt, "two", a->pid), LIM_OK);
    assert_int_equal(lim_register(w->rt, "one", b->pid), LIM_E_EXISTS);
    assert_int_equal(lim_register(w->rt, longest, b->pid), LIM_E_TOOBIG);
    assert_int_equal(lim_register(w->rt, longest + 1, b->pid), LIM_OK);
    assert_int_equal(lim_register(w->rt, "", b->pid), LIM_E_INVALID);
    assert_int_equal(lim_whereis(w->rt, "two").id, a->pid.id);
    assert_int_equal(lim_whereis(w->rt, "three").id, 0);
    act(w, a, do_exit, REASON(LIM_NORMAL));
    settle(w);
    assert_int_equal(lim_whereis(w->rt, "one").id, 0);
    assert_int_equal(lim_register(w->rt, "one", a->pid), LIM_E_GONE);
    assert_int_equal(lim_register(w->rt, "one", b->pid), LIM_OK);
    world_close(w);
    free(a), free(b);
}

static void test_processes_without_a_place_are_born_where_there_are_fewest(void **state)
{
    (void)state;
    world *w = world_open(3);
    puppet *p[9];
    for (uint32_t i = 0; i < 9; i++) {
        p[i] = calloc(1, sizeof **p);
        lim_spawn_opts o = puppet_opts(&p[i]);
        assert_int_equal(lim_runtime_spawn(w->rt, &o, &p[i]->pid), LIM_OK);
    }
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(lim__population(lim__sched_at(w->rt, i)), 3);
    world_close(w);
    for (uint32_t i = 0; i < 9; i++)
        free(p[i]);
}

static void test_every_reason_has_a_text(void **state)
{
    (void)state;
    assert_string_equal(lim_reason_text(LIM_LOST), "connection_lost");
    assert_string_equal(lim_reason_text(LIM_REASON_NONE), "none");
    assert_string_equal(lim_reason_text((lim_reason)1234), "user");
    assert_string_equal(lim_reason_text((lim_reason)999), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_spawn_with_forgotten_or_wrong_options_is_refused),
        cmocka_unit_test(test_links_and_monitors_are_set_before_a_child_first_runs),
        cmocka_unit_test(test_a_child_can_be_let_go_in_the_handler_that_spawned_it),
        cmocka_unit_test(test_a_stale_id_is_never_somebody_else),
        cmocka_unit_test(test_a_slot_whose_generation_would_wrap_is_retired),
        cmocka_unit_test(test_ids_of_nobody_are_gone),
        cmocka_unit_test(test_what_on_end_sends_arrives_before_the_exit),
        cmocka_unit_test(test_nothing_reaches_a_process_after_its_exit),
        cmocka_unit_test(test_closing_kills_everybody_once_and_frees_what_was_under_way),
        cmocka_unit_test(test_memory_stays_flat_over_many_lives),
        cmocka_unit_test(test_a_name_is_unique_and_goes_with_its_process),
        cmocka_unit_test(test_processes_without_a_place_are_born_where_there_are_fewest),
        cmocka_unit_test(test_every_reason_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
