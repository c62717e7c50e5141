/* SPDX-License-Identifier: Apache-2.0
 * sim_store_test.c - the store on simulated disks: random steps, sudden ends, failing calls, full disks and rot,
 * against the model of store_model.h.
 *
 *   life:  open (may be made to fail) --> compare --> random batches, turns, reads --> close, kill, or power loss
 *          a world is a few lives of one directory; while one lasts and between two of them bits may flip
 *
 * A bit flips only where the model can say what may come of it: not twice in one file, and behind the last batch of a
 * log that was not closed there is nothing that says whether it was torn.
 *
 * LIM_SEEDS worlds from LIM_SEED on; the history of a single one is printed. */
#include "store_model.h"

/* ---- lives ---- */

static void on_event(void *ctx, const char *kind, const char *text)
{
    world *w = ctx;
    if (is_dead())
        return;
    lim__sim_note(w->sim, "event %s: %s", kind, text);
    w->sealed += strcmp(kind, "segment_sealed") == 0;
    w->log_broken = w->log_broken || strcmp(kind, "log_broken") == 0;
    if (strcmp(kind, "quarantined") == 0)
        rule(w->rotten || w->faulty || w->armed, "something is quarantined that nobody has damaged");
}

static void turn(world *w, uint32_t most)
{
    while (most-- > 0 && lim__store_turn(w->store, NULL) && !is_dead())
        continue;
}

/* Opens it, if need be after a failure that was ordered. False: the program was killed while it opened. */
static bool open_store(world *w)
{
    lim__store_error error = { "" };
    for (int tries = 0; tries < 4; tries++) {
        w->os = lim__sim_host(w->sim, "disk");
        w->opts.os = w->os;
        int err = lim__store_open(&w->opts, &error, &w->store);
        if (err == 0)
            return true;
        w->store = NULL;
        lim__sim_note(w->sim, "open: %d, %s", err, error.text);
        w->power_lost = true; /* its last sync may have been what failed: then it took what was in a cache with it */
        if (is_dead())
            return false;
        if (!rule(w->armed || w->faulty || w->tight, "opening fails"))
            return false;
        lim__sim_disk_fail_at_call(w->os, 0, 0);
        if (tries == 1 && w->faulty) { /* somebody sees to the disk */
            lim__sim_disk d = lim__sim_disk_get(w->os);
            d.read_error_permille = d.write_error_permille = d.sync_error_permille = 0;
            lim__sim_disk_set(w->os, &d);
        }
    }
    rule(false, "opening fails again and again");
    return false;
}

static void flip_while_running(world *w);

static void live(world *w, uint32_t steps)
{
    while (steps-- > 0 && !is_dead() && !w->broken) {
        uint32_t room = OPEN_MAX - w->step_count, most = (uint32_t)pick(6);
        for (uint32_t i = 0; i < most && i < room; i++) {
            step t = draw_step(w);
            submit(w, &t);
        }
        turn(w, (uint32_t)pick(8));
        if (w->rots && pick(20) == 0)
            flip_while_running(w);
        if (pick(6) == 0)
            lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + pick(400) * MS);
        bool full = true; /* everything answered: what is known is known for good, unless it is not synced */
        for (uint32_t i = 0; i < w->step_count; i++)
            full = full && (w->steps[i]->status == DISK || w->steps[i]->status == NOTHING);
        if (is_dead() || !full)
            continue;
        if (pick(3) == 0)
            compare(w);
        w->base = w->now;
        forget_steps(w);
    }
}

/* What is still open is settled as far as it can be: room for more steps. */
static void drain(world *w)
{
    step last = { .count = 0, .small = true, .sync = LIM__SYNC_ALWAYS };
    if (w->step_count < OPEN_MAX)
        submit(w, &last);
    turn(w, 200);
}

/* ---- ends ---- */

typedef enum end { CLOSE = 1, KILL, POWER } end;

static bool end_life(world *w, end how)
{
    bool was_dead = is_dead();
    w->power_lost = how == POWER;
    if (how == POWER) /* also of a machine whose program was just killed: what it had not synced goes, too */
        lim__sim_power_off(w->sim, w->os);
    else if (how == KILL)
        lim__sim_kill_host(w->sim, w->os);
    lim__store_close(w->store);
    w->store = NULL;
    return how == CLOSE && !was_dead && !is_dead();
}

typedef struct names {
    char list[64][40];
    uint32_t count;
} names;

static void add_name(void *ctx, const char *name)
{
    names *n = ctx;
    if (n->count < LIM_COUNT(n->list))
        snprintf(n->list[n->count++], sizeof n->list[0], "%s", name);
}

static bool flip(world *w, const char *name, uint64_t bit)
{
    char path[64];
    if (strstr(w->flipped, name) || strlen(w->flipped) + strlen(name) + 2 > sizeof w->flipped)
        return false;
    strcat(strcat(w->flipped, name), " ");
    snprintf(path, sizeof path, "store/%s", name);
    w->rotten = true;
    return lim__sim_disk_flip(w->os, path, bit) == 0;
}

static void flip_a_bit(world *w)
{
    names n = { .count = 0 };
    char path[64];
    size_t size;
    void *bytes;
    w->os = lim__sim_host(w->sim, "disk");
    if (w->os->dir_list(w->os, "store", add_name, &n) != 0 || n.count == 0)
        return;
    const char *name = n.list[pick(n.count)];
    snprintf(path, sizeof path, "store/%s", name);
    if (lim__sim_disk_read(w->os, path, &bytes, &size) != 0)
        return;
    size_t used = size; /* most of a segment is nothing: flips there say little */
    while (used > 1 && ((uint8_t *)bytes)[used - 1] == 0)
        used--;
    free(bytes);
    if (size > 0)
        flip(w, name, pick(8) + 8 * pick(pick(10) ? used : size));
}

/* While it runs: in a segment to which nothing is added any more, so that a sudden end leaves no doubt. */
static void flip_while_running(world *w)
{
    names n = { .count = 0 };
    const char *newest = "";
    if (w->os->dir_list(w->os, "store", add_name, &n) != 0)
        return;
    for (uint32_t i = 0; i < n.count; i++)
        newest = strstr(n.list[i], ".seg") && strcmp(n.list[i], newest) > 0 ? n.list[i] : newest;
    for (uint32_t i = 0; i < n.count; i++) {
        unsigned long long id = strtoull(n.list[i], NULL, 16);
        if (strstr(n.list[i], ".seg") && id + 4 < strtoull(newest, NULL, 16) && pick(2)) {
            flip(w, n.list[i], 8 * (4096 + pick(SEGMENT - 4096)) + pick(8));
            return;
        }
    }
}

/* ---- worlds ---- */

static void order_failure(world *w, uint64_t within)
{
    w->armed = w->ever_failed = true;
    lim__sim_disk_fail_at_call(w->os, 1 + pick(within), pick(3) ? 0 : pick(2) ? EIO : ENOSPC);
}

static void draw_manners(world *w)
{
    lim__sim_disk d = lim__sim_disk_get(w->os);
    w->tight = pick(5) == 0;
    w->faulty = !w->tight && pick(5) == 0;
    w->rots = !w->faulty && pick(4) == 0;
    if (w->tight && pick(2))
        w->opts.bytes_max = (6 + pick(6)) * SEGMENT;
    else if (w->tight)
        d.capacity = (6 + pick(6)) * SEGMENT;
    if (w->faulty) {
        d.write_error_permille = (uint32_t)pick(40);
        d.sync_error_permille = (uint32_t)pick(40);
        w->read_errors = pick(3) ? 0 : (uint32_t)pick(20);
    }
    if (pick(4) == 0)
        d.keep_nothing = true;
    lim__sim_disk_set(w->os, &d);
}

static void set_read_errors(world *w, uint32_t permille)
{
    lim__sim_disk d = lim__sim_disk_get(w->os);
    d.read_error_permille = permille;
    lim__sim_disk_set(w->os, &d);
}

static void one_life(world *w, end how)
{
    w->lives++;
    lim__sim_disk_fail_at_call(w->os, 0, 0);
    set_read_errors(w, 0);
    w->armed = false;
    if (pick(4) == 0)
        order_failure(w, 60);
    lim__reader *second = w->armed || w->faulty ? NULL : second_open(w);
    bool open = open_store(w);
    if (!open && !w->broken) { /* killed: the next one opens it undisturbed */
        w->armed = false;
        open = open_store(w);
    }
    if (open && !w->broken) {
        find_out(w, w->power_lost);
        second_compare(w, second);
    }
    lim__reader_close(second);
    if (!open || w->broken)
        return;
    w->log_broken = false;
    set_read_errors(w, w->read_errors);
    if (pick(2))
        order_failure(w, 400);
    live(w, 5 + (uint32_t)pick(30));
    if (!is_dead() && !w->broken && how == CLOSE)
        drain(w);
}

static void print_world(const world *w, uint64_t seed)
{
    printf("seed %llu: %s (lives %u, refused %u, unknown %u, quarantined %u, sealed %u%s%s%s)\n",
           (unsigned long long)seed, w->broken ? w->broken : "well", w->lives, w->refused, w->unknown, w->quarantined,
           w->sealed, w->tight ? ", tight" : "", w->faulty ? ", faulty" : "", w->rotten ? ", rotten" : "");
}

static world *world_open(uint64_t seed, bool loud)
{
    world *w = calloc(1, sizeof *w);
    the = w;
    w->sim = lim__sim_open(seed);
    if (loud)
        lim__sim_trace(w->sim, stdout);
    w->os = lim__sim_host(w->sim, "disk");
    w->opts = (lim__store_opts){ .dir = "store",
                                 .segment_bytes = SEGMENT,
                                 .interval_ns = 50 * MS,
                                 .batch_bytes_max = 32 << 10,
                                 .index_in_memory = true,
                                 .on_event = on_event,
                                 .ctx = w };
    for (uint32_t s = 0; s < STREAMS; s++)
        w->base.next[s] = 1;
    w->now = w->base;
    return w;
}

static void world_close(world *w)
{
    if (w->store)
        lim__store_close(w->store);
    forget_steps(w);
    lim__sim_close(w->sim);
    free(w);
}

static bool run_world(uint64_t seed, bool loud)
{
    world *w = world_open(seed, loud);
    draw_manners(w);
    uint64_t lives = 2 + pick(6);
    for (uint64_t i = 0; i < lives && !w->broken; i++) {
        end how = (end)(1 + pick(3));
        one_life(w, how);
        bool closed = w->store && end_life(w, how);
        if (closed && !w->broken && w->rots && pick(2) == 0)
            flip_a_bit(w);
    }
    if (w->broken || loud)
        print_world(w, seed);
    bool well = !w->broken;
    world_close(w);
    return well;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* proves DU2 DU3 DU4 */
static void test_random_lives_on_bad_disks_lose_nothing_and_invent_nothing(void **state)
{
    (void)state;
    uint64_t first = number_from("LIM_SEED", 1), count = number_from("LIM_SEEDS", 150);
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (!run_world(seed, getenv("LIM_SEED") != NULL && count == 1))
            fail_msg("seed %llu", (unsigned long long)seed);
    }
}

/* ---- every call fails once ---- */

/* One life in which the n-th call on the disk fails (err > 0) or is the program's last; then another one, undisturbed.
 */
static bool sweep_one(uint64_t seed, uint64_t n, int err, end how, uint64_t *calls)
{
    world *w = world_open(seed, false);
    lim__sim_disk d = lim__sim_disk_get(w->os);
    d.short_write_permille = 0;
    lim__sim_disk_set(w->os, &d);
    w->armed = w->ever_failed = true;
    lim__sim_disk_fail_at_call(w->os, n, err);
    if (open_store(w)) {
        live(w, 14);
        if (!is_dead())
            end_life(w, how == POWER ? CLOSE : how);
        else
            end_life(w, how);
    } else if (how == POWER) {
        lim__sim_power_off(w->sim, w->os);
        w->power_lost = true;
    }
    *calls = lim__sim_disk_calls(w->os);
    w->armed = false;
    lim__sim_disk_fail_at_call(w->os, 0, 0);
    lim__reader *second = w->broken ? NULL : second_open(w);
    if (!w->broken && open_store(w)) {
        find_out(w, w->power_lost);
        second_compare(w, second);
        live(w, 2);
        drain(w);
        end_life(w, CLOSE);
    }
    lim__reader_close(second);
    bool well = !w->broken;
    if (!well) {
        printf("call %llu fails with %d: ", (unsigned long long)n, err);
        print_world(w, seed);
    }
    world_close(w);
    return well;
}

/* proves DU3 (any call fails, or is the last) */
static void test_every_call_may_fail_or_be_the_last(void **state)
{
    static const struct {
        int err;
        end how;
    } ways[] = { { EIO, CLOSE }, { ENOSPC, CLOSE }, { 0, KILL }, { 0, POWER } };
    (void)state;
    for (uint64_t seed = 1; seed <= number_from("LIM_SEEDS", 150) / 75 + 1; seed++) {
        for (size_t way = 0; way < LIM_COUNT(ways); way++) {
            uint64_t calls = 1;
            for (uint64_t n = 1; n <= calls && n < 1500; n++) {
                if (!sweep_one(seed, n, ways[way].err, ways[way].how, &calls))
                    fail_msg("seed %llu, call %llu, error %d", (unsigned long long)seed, (unsigned long long)n,
                             ways[way].err);
            }
        }
    }
}

/* ---- a full disk ---- */

static status one_step(world *w, op_kind kind, uint32_t stream, uint64_t seq, uint32_t len, bool small)
{
    step t = { .count = 1, .small = small, .sync = LIM__SYNC_ALWAYS };
    t.ops[0] = (op){ .kind = kind, .stream = stream, .seq = seq, .len = len, .content = 1 + (uint32_t)pick(1 << 20) };
    submit(w, &t);
    step *submitted = w->steps[w->step_count - 1];
    turn(w, 50);
    status s = submitted->status;
    w->base = w->now;
    forget_steps(w);
    return s;
}

static void fill_up(world *w)
{
    uint32_t most = 200;
    while (one_step(w, APPEND, 0, 0, 3000 + (uint32_t)pick(9000), false) == DISK && most-- > 0)
        continue;
    assert_true(most > 0); /* it was refused some time */
}

static bool heals(world *w)
{
    for (int i = 0; i < 60; i++) {
        lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 100 * MS);
        turn(w, 100);
        if (one_step(w, APPEND, 1, 0, 3000, false) == DISK)
            return true;
    }
    return false;
}

static void run_full(uint64_t seed)
{
    world *w = world_open(seed, getenv("LOUD") != NULL);
    lim__sim_disk d = lim__sim_disk_get(w->os);
    bool limit = pick(2), more_disk = !limit && pick(2);
    w->tight = true;
    d.capacity = limit ? d.capacity : (7 + pick(4)) * SEGMENT;
    w->opts.bytes_max = limit ? (7 + pick(4)) * SEGMENT : 0;
    lim__sim_disk_set(w->os, &d);
    assert_true(open_store(w));
    fill_up(w);
    lim__store_info info;
    lim__store_info_get(w->store, &info);
    assert_true(info.full);
    for (int i = 0; i < 8; i++) { /* acknowledgements, cursors */
        assert_int_equal(one_step(w, PUT, 0, 0, 0, true), DISK);
        compare(w);
    }
    if (more_disk) {
        d.capacity *= 2;
        lim__sim_disk_set(w->os, &d);
    } else {
        assert_int_equal(one_step(w, TRIM, 0, w->now.next[0] - 3, 0, true), DISK);
    }
    assert_true(heals(w));
    fill_up(w);
    compare(w);
    end_life(w, pick(2) ? CLOSE : POWER);
    assert_true(open_store(w)); /* full as it is */
    find_out(w, w->power_lost);
    assert_int_equal(one_step(w, PUT, 0, 0, 0, true), DISK);
    assert_null(w->broken);
    end_life(w, CLOSE);
    world_close(w);
}

static void test_a_full_disk_refuses_what_adds_takes_what_forgets_and_heals(void **state)
{
    (void)state;
    uint64_t count = number_from("LIM_SEEDS", 150);
    for (uint64_t seed = 1; seed <= count; seed++)
        run_full(seed);
}

/* ---- a disk that takes nothing for a while ---- */

static void set_write_errors(world *w, uint32_t permille)
{
    lim__sim_disk d = lim__sim_disk_get(w->os);
    d.write_error_permille = permille;
    lim__sim_disk_set(w->os, &d);
}

static void run_broken(uint64_t seed)
{
    world *w = world_open(seed, false);
    w->faulty = true;
    assert_true(open_store(w));
    for (int i = 0; i < 20; i++)
        assert_int_equal(one_step(w, APPEND, 0, 0, 2000, false), DISK);
    turn(w, (uint32_t)pick(40));
    bool in_doubt = false;
    set_write_errors(w, 1000);
    for (int i = 0; i < 5; i++) {
        step t = draw_step(w);
        t.sync = LIM__SYNC_ALWAYS;
        submit(w, &t);
        turn(w, 5);
        status s = w->steps[w->step_count - 1]->status;
        assert_true(s == UNKNOWN || s == NOTHING); /* the first is in doubt, the others are not even tried */
        assert_true(!in_doubt || s == NOTHING);
        in_doubt = in_doubt || s == UNKNOWN;
        compare(w); /* and nobody sees any of it */
    }
    bool in_time = pick(2);
    set_write_errors(w, 0);
    if (in_time) {
        lim__sim_advance_to(w->sim, lim__sim_now(w->sim) + 1000 * MS);
        turn(w, 100);
        w->base = w->now;
        forget_steps(w); /* what was in doubt is not any more */
        assert_int_equal(one_step(w, APPEND, 0, 0, 2000, false), DISK);
    }
    end_life(w, (end)(1 + pick(3)));
    assert_true(open_store(w));
    find_out(w, w->power_lost);
    assert_int_equal(one_step(w, APPEND, 0, 0, 2000, false), DISK);
    compare(w);
    assert_null(w->broken);
    end_life(w, CLOSE);
    world_close(w);
}

static void test_a_disk_that_takes_nothing_loses_nothing_and_the_log_goes_on_when_it_can(void **state)
{
    (void)state;
    uint64_t count = number_from("LIM_SEEDS", 150);
    for (uint64_t seed = 1; seed <= count; seed++)
        run_broken(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_disk_refuses_what_adds_takes_what_forgets_and_heals),
        cmocka_unit_test(test_a_disk_that_takes_nothing_loses_nothing_and_the_log_goes_on_when_it_can),
        cmocka_unit_test(test_every_call_may_fail_or_be_the_last),
        cmocka_unit_test(test_random_lives_on_bad_disks_lose_nothing_and_invent_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
