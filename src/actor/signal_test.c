/* SPDX-License-Identifier: Apache-2.0
 * signal_test.c - links, monitors and exits: what is seen, exactly once, on one scheduler and across two. */
#include "actor/test_world.h"

/* `far`: with both puppets on one scheduler (0), and on two (1). */
static void test_a_trapping_process_sees_normal_and_abnormal_exits(void **state) /* R01, proves RT5 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        lim_reason reasons[] = { LIM_NORMAL, LIM_FAULT, LIM_REASON_USER };
        puppet *a = puppet_new(w, 0, true);
        for (uint32_t i = 0; i < LIM_COUNT(reasons); i++) {
            puppet *b = puppet_new(w, far, false);
            act(w, a, do_link, b);
            settle(w);
            act(w, b, do_exit, REASON(reasons[i]));
            settle(w);
            assert_int_equal(a->count, i + 1);
            assert_signal(a, i, LIM_SIGNAL_EXIT, reasons[i]);
            assert_int_equal(a->log[i].from.id, b->pid.id);
            assert_int_equal(a->log[i].at_ns, w->now_ns);
            assert_int_equal(b->ends, 1);
            free(b);
        }
        assert_nothing_left(w, 1);
        world_close(w);
        free(a);
    }
}

static void test_who_does_not_trap_survives_normal_and_dies_of_the_rest(void **state) /* R02, proves RT5 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false), *c = puppet_new(w, far, false);
        act(w, a, do_link, b);
        act(w, a, do_link, c);
        settle(w);
        act(w, b, do_exit, REASON(LIM_NORMAL));
        settle(w);
        assert_int_equal(a->ends, 0);
        act(w, c, do_exit, REASON(LIM_FAULT));
        settle(w);
        assert_int_equal(a->ends, 1);
        assert_int_equal(a->end_reason, LIM_FAULT);
        assert_int_equal(a->count, 0);
        assert_nothing_left(w, 0);
        world_close(w);
        free(a), free(b), free(c);
    }
}

static void do_kill(lim_process *self, puppet *p, void *other)
{
    (void)p;
    lim_exit_process(self, ((puppet *)other)->pid, LIM_KILL);
}

static void do_trap(lim_process *self, puppet *p, void *on)
{
    (void)p;
    lim_trap_exit(self, on != NULL);
}

static void test_trapping_can_be_switched_on_and_off(void **state) /* proves RT5 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false), *c = puppet_new(w, far, false);
        act(w, a, do_link, b);
        act(w, a, do_link, c);
        settle(w);
        act(w, a, do_trap, w);
        act(w, b, do_exit, REASON(LIM_FAULT));
        settle(w);
        assert_signal(a, 0, LIM_SIGNAL_EXIT, LIM_FAULT);
        assert_int_equal(a->ends, 0);
        lim_runtime_exit(w->rt, a->pid, LIM_LEFT); /* obeyed by what is so when its turn comes, ... */
        act(w, a, do_trap, NULL);                  /* ... and this comes after it */
        settle(w);
        assert_signal(a, 1, LIM_SIGNAL_EXIT, LIM_LEFT);
        act(w, c, do_exit, REASON(LIM_PROTOCOL));
        settle(w);
        assert_int_equal(a->count, 2);
        assert_int_equal(a->end_reason, LIM_PROTOCOL);
        assert_nothing_left(w, 0);
        world_close(w);
        free(a), free(b), free(c);
    }
}

static void test_kill_cannot_be_trapped_and_is_seen_as_killed(void **state) /* R03, proves RT5 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = puppet_new(w, far, true), *c = puppet_new(w, 0, false);
        act(w, a, do_link, b);
        settle(w);
        act(w, c, do_kill, b);
        settle(w);
        assert_int_equal(b->count, 0);
        assert_int_equal(b->end_reason, LIM_KILLED);
        assert_int_equal(a->count, 1);
        assert_signal(a, 0, LIM_SIGNAL_EXIT, LIM_KILLED);
        assert_nothing_left(w, 2);
        world_close(w);
        free(a), free(b), free(c);
    }
}

/* Unlinks in the same handler in which something else happened first. */
static void do_link_and_unlink(lim_process *self, puppet *p, void *other)
{
    do_link(self, p, other);
    do_unlink(self, p, other);
}

static void test_after_unlink_no_exit_comes(void **state) /* R04, proves RT4 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = puppet_new(w, far, true), *c = puppet_new(w, far, true);
        act(w, a, do_link, b);
        act(w, a, do_link_and_unlink, c);
        settle(w);
        act(w, a, do_unlink, b);
        settle(w);
        act(w, b, do_exit, REASON(LIM_FAULT));
        act(w, c, do_exit, REASON(LIM_FAULT));
        settle(w);
        assert_int_equal(a->count, 0);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b), free(c);
    }
}

static void test_an_exit_already_in_the_mailbox_is_swallowed_by_unlink(void **state) /* R04, proves RT4 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = puppet_new(w, far, true);
        act(w, a, do_link, b);
        settle(w);
        act(w, a, do_unlink, b); /* waits in the mailbox of a while b dies */
        act(w, b, do_exit, REASON(LIM_FAULT));
        if (far) {
            (void)step(w, 1);
            (void)step(w, 0);
        }
        settle(w);
        assert_int_equal(b->ends, 1);
        assert_int_equal(a->count, 0);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void test_linking_a_dead_process_is_told_as_noproc(void **state) /* R05, proves RT4 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = puppet_new(w, far, false), *c = puppet_new(w, 0, false);
        puppet nobody = { .pid = { lim__pid_make(9, 4711, 3) } }, zero = { .pid = { 0 } };
        act(w, b, do_exit, REASON(LIM_NORMAL));
        settle(w);
        act(w, a, do_link, b);
        act(w, a, do_link, &nobody);
        act(w, a, do_link, &zero);
        act(w, a, do_link_and_unlink, b);
        act(w, c, do_link, b);
        settle(w);
        /* b, nobody and zero; the second link to b was either the first one still, or taken back in its handler */
        assert_true(a->count == 2 || a->count == 3);
        assert_int_equal(c->end_reason, LIM_NOPROC);
        for (uint32_t i = 0; i < a->count; i++)
            assert_signal(a, i, LIM_SIGNAL_EXIT, LIM_NOPROC);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b), free(c);
    }
}

static void test_linking_twice_is_linking_once(void **state) /* proves RT4 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = puppet_new(w, far, true);
        act(w, a, do_link, b);
        act(w, a, do_link, b);
        act(w, b, do_link, a);
        act(w, a, do_link, a);
        settle(w);
        act(w, b, do_exit, REASON(LIM_FAULT));
        settle(w);
        assert_int_equal(a->count, 1);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void test_linking_each_other_at_the_same_time_is_one_link(void **state) /* proves RT4 */
{
    (void)state;
    for (uint32_t unlinker = 0; unlinker < 3; unlinker++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, true), *b = puppet_new(w, 1, true);
        act(w, a, do_link, b);
        act(w, b, do_link, a);
        settle(w);
        if (unlinker == 1)
            act(w, a, do_unlink, b);
        if (unlinker == 2) { /* both at once: the two UNLINKs of each pair cross */
            act(w, a, do_unlink, b);
            act(w, b, do_unlink, a);
        }
        settle(w);
        act(w, b, do_exit, REASON(LIM_FAULT));
        settle(w);
        assert_int_equal(a->count, unlinker == 0 ? 1 : 0);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static puppet_act *random_act(world *w)
{
    static puppet_act *const acts[] = { do_link,  do_link,    do_unlink,   do_link_and_unlink,
                                        do_hello, do_monitor, do_demonitor };
    return acts[world_random(&w->os) % LIM_COUNT(acts)];
}

/* After any history of linking and unlinking from both sides, one more link and a death give one exit. */
static void one_race(uint64_t seed)
{
    world *w = world_open(2);
    w->seed = seed;
    puppet *p[2] = { puppet_new(w, 0, true), puppet_new(w, 1, true) };
    for (int i = 0; i < 12; i++) {
        uint64_t who = world_random(&w->os) % 2;
        puppet_act *a = random_act(w);
        act(w, p[who], a, p[1 - who]);
        for (uint64_t n = world_random(&w->os) % 4; n > 0; n--)
            (void)step(w, (uint32_t)(world_random(&w->os) % 2));
    }
    uint64_t first = world_random(&w->os) % 2;
    settle_randomly(w);
    act(w, p[0], do_link, p[1]); /* whatever was before, they are linked once now */
    if (seed % 3 == 0)
        act(w, p[1], do_link, p[0]);
    act(w, p[first], do_exit, REASON(LIM_FAULT));
    settle_randomly(w);
    puppet *left = p[1 - first];
    uint32_t exits = 0;
    for (uint32_t i = 0; i < left->count; i++)
        exits += left->log[i].kind == LIM_SIGNAL_EXIT;
    if (left->ends == 0) {
        assert_int_equal(exits, 1);
        act(w, left, do_exit, REASON(LIM_NORMAL));
        settle(w);
    }
    assert_nothing_left(w, 0);
    world_close(w);
    free(p[0]), free(p[1]);
}

static void test_each_link_gives_exactly_one_exit_whatever_races(void **state) /* R06, proves RT4 RT12 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20000; seed++)
        one_race(seed);
}

/* ---- one world, many links and deaths: 100,000 races without opening a world for each ---- */
static void test_a_hundred_thousand_links_race_with_deaths(void **state) /* R06, proves RT4 RT12 */
{
    (void)state;
    world *w = world_open(2);
    puppet *a = puppet_new(w, 0, true);
    uint32_t made = 0;
    while (made < 100000) {
        puppet *b[8];
        for (uint32_t i = 0; i < 8; i++) {
            b[i] = puppet_new(w, (uint32_t)(world_random(&w->os) % 2), false);
            uint64_t order = world_random(&w->os) % 3;
            if (order == 0)
                act(w, b[i], do_exit, REASON(LIM_FAULT));
            if (order == 2)
                act(w, b[i], do_link, a);
            act(w, a, do_link, b[i]);
            if (order != 0)
                act(w, b[i], do_exit, REASON(LIM_FAULT));
            if (world_random(&w->os) % 2)
                (void)step(w, (uint32_t)(world_random(&w->os) % 2));
        }
        settle_randomly(w);
        made += 8;
        assert_int_equal(a->count, made);
        for (uint32_t i = 0; i < 8; i++)
            free(b[i]);
    }
    assert_nothing_left(w, 1);
    world_close(w);
    free(a);
}

/* ---- monitors ---- */
static void test_two_monitors_give_two_downs_and_demonitor_leaves_none(void **state) /* R08, proves RT6 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false);
        act(w, a, do_monitor, b);
        act(w, a, do_monitor, b);
        act(w, a, do_monitor, b);
        act(w, a, do_demonitor, NULL);
        act(w, a, do_demonitor, NULL); /* over: ignored */
        settle(w);
        act(w, b, do_exit, REASON(LIM_LOST));
        settle(w);
        assert_int_equal(a->count, 2);
        assert_signal(a, 0, LIM_SIGNAL_DOWN, LIM_LOST);
        assert_signal(a, 1, LIM_SIGNAL_DOWN, LIM_LOST);
        assert_true(a->log[0].ref != a->log[1].ref);
        assert_int_equal(a->log[0].at_ns, w->now_ns);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void test_demonitor_swallows_a_down_that_waits_in_the_mailbox(void **state) /* R08, proves RT6 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false);
        act(w, a, do_monitor, b);
        settle(w);
        act(w, b, do_exit, REASON(LIM_FAULT));
        (void)step(w, far);
        act(w, a, do_demonitor, NULL); /* behind the DOWN in time, before it in the handler's eyes if far */
        settle(w);
        assert_true(a->count <= 1);
        act(w, a, do_demonitor, NULL);
        settle(w);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

static void do_monitor_kill_demonitor(lim_process *self, puppet *p, void *other)
{
    lim_process *victim = lim__local_process(lim__proc_sched(self), ((puppet *)other)->pid);
    do_monitor(self, p, other);
    lim_exit(victim, LIM_FAULT);
    do_monitor(self, p, other); /* dying, not dead yet */
    lim_demonitor(self, p->ref);
}

static void test_a_monitor_of_somebody_dying_in_the_same_handler_is_told_once(void **state) /* R09, proves RT6 */
{
    (void)state;
    world *w = world_open(1);
    puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, 0, false);
    act(w, a, do_monitor_kill_demonitor, b);
    settle(w);
    assert_int_equal(a->count, 1);
    assert_signal(a, 0, LIM_SIGNAL_DOWN, LIM_FAULT);
    assert_nothing_left(w, 1);
    world_close(w);
    free(a), free(b);
}

static void test_monitoring_the_dead_gives_down_at_once(void **state) /* R09, proves RT6 */
{
    (void)state;
    for (uint32_t far = 0; far < 2; far++) {
        world *w = world_open(2);
        puppet *a = puppet_new(w, 0, false), *b = puppet_new(w, far, false);
        puppet nobody = { .pid = { lim__pid_make(63, 1, 1) } };
        act(w, b, do_exit, REASON(LIM_NORMAL));
        settle(w);
        act(w, a, do_monitor, b);
        act(w, a, do_monitor, &nobody);
        settle(w);
        assert_int_equal(a->count, 2);
        assert_signal(a, 0, LIM_SIGNAL_DOWN, LIM_NOPROC);
        assert_signal(a, 1, LIM_SIGNAL_DOWN, LIM_NOPROC);
        assert_nothing_left(w, 1);
        world_close(w);
        free(a), free(b);
    }
}

/* ---- reply, then exit ---- */
static void do_reply_and_exit(lim_process *self, puppet *p, void *other)
{
    do_hello(self, p, other);
    lim_exit(self, LIM_FAULT);
}

static void one_reply_then_exit(uint64_t seed)
{
    world *w = world_open(1 + (uint32_t)(seed % 2));
    w->seed = seed;
    puppet *asker = puppet_new(w, 0, seed % 4 < 2), *worker = puppet_new(w, (uint32_t)(seed % 2), false);
    puppet *noise = puppet_new(w, 0, false);
    act(w, asker, do_link, worker);
    act(w, asker, do_monitor, worker);
    settle_randomly(w);
    for (uint64_t n = world_random(&w->os) % 4; n > 0; n--)
        act(w, noise, do_hello, asker);
    act(w, worker, do_reply_and_exit, asker);
    for (uint64_t n = world_random(&w->os) % 4; n > 0; n--) {
        act(w, noise, do_hello, asker);
        (void)step(w, (uint32_t)(world_random(&w->os) % w->schedulers));
    }
    settle_randomly(w);
    bool replied = false, told = false;
    for (uint32_t i = 0; i < asker->count; i++) {
        bool from_worker = asker->log[i].from.id == worker->pid.id;
        if (from_worker && asker->log[i].kind == LIM_SIGNAL_MESSAGE) {
            assert_false(told);
            replied = true;
        } else if (from_worker) {
            told = true;
        }
    }
    assert_true(replied); /* also by an asker that then died of the exit */
    assert_int_equal(asker->ends, seed % 4 < 2 ? 0 : 1);
    world_close(w);
    free(asker), free(worker), free(noise);
}

static void test_a_reply_followed_by_its_senders_exit_is_always_seen_first(void **state) /* proves RT2 RT3 */
{
    (void)state;
    for (uint64_t seed = 0; seed < 10000; seed++)
        one_reply_then_exit(seed);
}

/* ---- cascades ---- */
enum { MANY = 100000 };

typedef struct crowd {
    lim_pid *pids;
    uint32_t count, ended;
} crowd;

static void crowd_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (signal->tag == 0)
        lim_exit(self, LIM_FAULT);
    else
        for (uint32_t i = 0; i < signal->body.len / sizeof(lim_pid); i++)
            assert_int_equal(lim_link(self, ((const lim_pid *)signal->body.ptr)[i]), LIM_OK);
}

static void crowd_on_end(void *state, lim_reason reason)
{
    assert_int_equal(reason, LIM_FAULT);
    (*(crowd **)state)->ended++;
}

static crowd *crowd_new(world *w, uint32_t schedulers)
{
    crowd *c = calloc(1, sizeof *c);
    c->pids = calloc(MANY, sizeof *c->pids);
    lim_spawn_opts o = { .size = sizeof o,
                         .on_signal = crowd_on_signal,
                         .on_end = crowd_on_end,
                         .state_bytes = sizeof c,
                         .init = &c,
                         .init_bytes = sizeof c,
                         .place = true };
    for (c->count = 0; c->count < MANY; c->count++) {
        o.scheduler = c->count % schedulers;
        assert_int_equal(lim_runtime_spawn(w->rt, &o, &c->pids[c->count]), LIM_OK);
    }
    return c;
}

static void cascade(uint32_t schedulers, bool hub)
{
    world *w = world_open(schedulers);
    crowd *c = crowd_new(w, schedulers);
    for (uint32_t i = 1; i < MANY; i++) {
        lim_pid to = hub ? c->pids[0] : c->pids[i - 1];
        assert_int_equal(lim_runtime_send(w->rt, c->pids[i], 1, lim__bytes(&to, sizeof to)), LIM_OK);
    }
    settle(w);
    lim_census census;
    lim_runtime_census(w->rt, &census);
    assert_int_equal(census.links, MANY - 1);
    assert_int_equal(lim_runtime_send(w->rt, c->pids[hub ? 0 : MANY / 2], 0, lim__bytes(NULL, 0)), LIM_OK);
    settle(w);
    assert_int_equal(c->ended, MANY);
    assert_nothing_left(w, 0);
    world_close(w);
    free(c->pids);
    free(c);
}

static void test_a_chain_of_100000_links_dies_without_recursion(void **state) /* R07, proves RT5 */
{
    (void)state;
    cascade(1, false);
    cascade(2, false);
}

static void test_a_hub_of_100000_links_dies_without_being_quadratic(void **state) /* R07, proves RT5 */
{
    (void)state;
    cascade(1, true);
    cascade(2, true);
}

static void test_a_hub_that_links_and_unlinks_100000_itself_is_not_quadratic(void **state) /* proves RT5 */
{
    (void)state;
    world *w = world_open(2);
    crowd *c = crowd_new(w, 2);
    lim_bytes all = { c->pids + 1, (MANY - 1) * sizeof *c->pids };
    assert_int_equal(lim_runtime_send(w->rt, c->pids[0], 1, all), LIM_OK);
    assert_int_equal(lim_runtime_send(w->rt, c->pids[0], 1, all), LIM_OK); /* linking twice is linking once */
    settle(w);
    assert_int_equal(lim_runtime_send(w->rt, c->pids[MANY - 1], 0, lim__bytes(NULL, 0)), LIM_OK);
    settle(w);
    assert_int_equal(c->ended, MANY);
    assert_nothing_left(w, 0);
    world_close(w);
    free(c->pids);
    free(c);
}

/* ---- a crowd in which everybody has many links: they are found through maps on both sides ---- */
enum { FRIENDS = 48, NEAR_FRIENDS = 40 };
typedef struct circle {
    world *w;
    puppet *p[FRIENDS];
    bool linked[FRIENDS][FRIENDS];
    uint32_t exits[FRIENDS]; /* that each must have seen */
} circle;

static void circle_unlink(circle *c, uint32_t i, uint32_t j)
{
    act(c->w, c->p[i], do_unlink, c->p[j]);
    c->linked[i][j] = c->linked[j][i] = false;
}

static void circle_link(circle *c, uint32_t i, uint32_t j)
{
    act(c->w, c->p[i], do_link, c->p[j]);
    c->linked[i][j] = c->linked[j][i] = true;
}

/* Whoever unlinks it before it looks sees nothing of the exit. */
static void circle_die(circle *c, uint32_t i)
{
    act(c->w, c->p[i], do_exit, REASON(LIM_FAULT));
    for (uint32_t j = 0; j < FRIENDS; j++) {
        if (c->linked[i][j] && world_random(&c->w->os) % 8 == 0)
            act(c->w, c->p[j], do_unlink, c->p[i]);
        else
            c->exits[j] += c->linked[i][j];
        c->linked[i][j] = c->linked[j][i] = false;
    }
}

static void circle_replace(circle *c, uint32_t i)
{
    settle(c->w);
    assert_int_equal(c->p[i]->ends, 1);
    free(c->p[i]);
    c->p[i] = puppet_new(c->w, i < NEAR_FRIENDS ? 0 : 1, true);
    c->exits[i] = 0;
}

static void test_in_a_crowd_everybody_hears_of_exactly_those_it_is_linked_to(void **state) /* proves RT4 */
{
    (void)state;
    circle c = { .w = world_open(2) };
    for (uint32_t i = 0; i < FRIENDS; i++)
        c.p[i] = puppet_new(c.w, i < NEAR_FRIENDS ? 0 : 1, true);
    for (uint32_t n = 0; n < 40000; n++) {
        uint32_t i = (uint32_t)(world_random(&c.w->os) % FRIENDS), j = (uint32_t)(world_random(&c.w->os) % FRIENDS);
        uint64_t what = world_random(&c.w->os) % 64;
        if (i == j)
            continue;
        if (what == 0) {
            circle_die(&c, i);
            circle_replace(&c, i);
        } else if (what < 16) {
            circle_unlink(&c, i, j);
        } else {
            circle_link(&c, i, j);
        }
        settle(c.w);
        for (uint32_t k = 0; k < FRIENDS; k++)
            assert_int_equal(c.p[k]->count, c.exits[k]);
    }
    for (uint32_t i = 0; i < FRIENDS; i++)
        act(c.w, c.p[i], do_exit, REASON(LIM_NORMAL));
    settle(c.w);
    assert_nothing_left(c.w, 0);
    world_close(c.w);
    for (uint32_t i = 0; i < FRIENDS; i++)
        free(c.p[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_trapping_process_sees_normal_and_abnormal_exits),
        cmocka_unit_test(test_who_does_not_trap_survives_normal_and_dies_of_the_rest),
        cmocka_unit_test(test_trapping_can_be_switched_on_and_off),
        cmocka_unit_test(test_kill_cannot_be_trapped_and_is_seen_as_killed),
        cmocka_unit_test(test_after_unlink_no_exit_comes),
        cmocka_unit_test(test_an_exit_already_in_the_mailbox_is_swallowed_by_unlink),
        cmocka_unit_test(test_linking_a_dead_process_is_told_as_noproc),
        cmocka_unit_test(test_linking_twice_is_linking_once),
        cmocka_unit_test(test_linking_each_other_at_the_same_time_is_one_link),
        cmocka_unit_test(test_each_link_gives_exactly_one_exit_whatever_races),
        cmocka_unit_test(test_a_hundred_thousand_links_race_with_deaths),
        cmocka_unit_test(test_two_monitors_give_two_downs_and_demonitor_leaves_none),
        cmocka_unit_test(test_demonitor_swallows_a_down_that_waits_in_the_mailbox),
        cmocka_unit_test(test_a_monitor_of_somebody_dying_in_the_same_handler_is_told_once),
        cmocka_unit_test(test_monitoring_the_dead_gives_down_at_once),
        cmocka_unit_test(test_a_reply_followed_by_its_senders_exit_is_always_seen_first),
        cmocka_unit_test(test_a_chain_of_100000_links_dies_without_recursion),
        cmocka_unit_test(test_a_hub_of_100000_links_dies_without_being_quadratic),
        cmocka_unit_test(test_a_hub_that_links_and_unlinks_100000_itself_is_not_quadratic),
        cmocka_unit_test(test_in_a_crowd_everybody_hears_of_exactly_those_it_is_linked_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
