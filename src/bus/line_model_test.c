/* SPDX-License-Identifier: Apache-2.0
 * line_model_test.c - a line against a model that knows the same rules and no data structure: an array of tasks that is
 * searched from end to end for every answer. Random operations, thousands of seeds; after each of them everything that
 * a caller can ask is compared, and lim__line_check is called. LIM_SEED=n replays one. */
#include "bus/line_world.h"
#include "base/rng.h"

#include <stdio.h>

enum { ITEMS = 24, KEYS = 5, TYPES = 4, ORDERS = 4, STEPS = 160, SEEDS = 3000 };

static const char *const key_names[KEYS] = { "", "ant", "bee", "cat", "dog" };
static const char *const type_names[TYPES] = { "", "mail", "scan", "copy" };
static const char *const order_names[ORDERS] = { "", "o1", "o2", "o3" };
__extension__ typedef __int128 wide;

typedef struct model_key {
    uint64_t service, turn;
    uint32_t weight;
    bool own;
    lim__line_limit limit;
    wide missing; /* tokens that are not there, in 1 / period_ns */
} model_key;

typedef struct model_item {
    lim__item real;
    unsigned key, type, order_key, state; /* lim__item_state; LIMITED is never stored */
    uint64_t order, due_ns;
    bool was_out, blocks; /* blocks: it is delayed, and its lane waits for it */
} model_item;

typedef struct model {
    lim__line line;
    lim__rng rng;
    uint64_t now_ns, time, turns, orders, ids;
    lim__lane_policy policy;
    lim__line_limit line_limit, key_limit;
    wide line_missing;
    model_key keys[KEYS];
    model_item items[ITEMS];
    unsigned types; /* that are served */
} model;

static unsigned roll(model *m, unsigned n)
{
    return (unsigned)lim__rng_below(&m->rng, n);
}

/* ---- rules ---- */

static bool waits(const model_item *i)
{
    return i->state != LIM__ITEM_NONE && i->state != LIM__ITEM_OUT && i->state != LIM__ITEM_DELAYED;
}

static bool older(const model_item *a, const model_item *b)
{
    return a->was_out != b->was_out ? a->was_out : a->order < b->order;
}

static unsigned count(const model *m, unsigned key, unsigned state) /* key KEYS: all */
{
    unsigned n = 0;
    for (unsigned i = 0; i < ITEMS; i++)
        n += (key == KEYS || m->items[i].key == key) && m->items[i].state == state;
    return n;
}

static const lim__line_limit *key_limit(const model *m, unsigned key)
{
    return m->keys[key].own ? &m->keys[key].limit : &m->key_limit;
}

static bool over(const lim__line_limit *limit, wide missing, unsigned out)
{
    wide all = (wide)limit->rate_max * limit->period_ns;
    return (limit->in_flight_max != 0 && out >= limit->in_flight_max) ||
           (limit->rate_max != 0 && all - missing < (wide)limit->period_ns);
}

static bool key_limited(const model *m, unsigned key)
{
    return over(key_limit(m, key), m->keys[key].missing, count(m, key, LIM__ITEM_OUT));
}

static unsigned shown(const model *m, const model_item *i)
{
    return i->state == LIM__ITEM_READY && key_limited(m, i->key) ? LIM__ITEM_LIMITED : i->state;
}

static model_item *lane_head(model *m, unsigned order_key) /* the one that the others wait for */
{
    model_item *head = NULL;
    for (unsigned n = 0; n < ITEMS && order_key != 0; n++) {
        model_item *i = &m->items[n];
        if (i->order_key != order_key || i->state == LIM__ITEM_NONE)
            continue;
        if (i->state == LIM__ITEM_OUT || i->state == LIM__ITEM_PARKED)
            return i;
        if ((waits(i) || i->blocks) && (head == NULL || older(i, head)))
            head = i;
    }
    return head;
}

static void settle_lane(model *m, unsigned order_key)
{
    model_item *head = lane_head(m, order_key);
    if (head == NULL)
        return;
    for (unsigned n = 0; n < ITEMS; n++) {
        model_item *i = &m->items[n];
        if (i->order_key != order_key || i == head)
            continue;
        i->blocks = false;
        if (waits(i))
            i->state = LIM__ITEM_BEHIND;
    }
    if (head->state == LIM__ITEM_BEHIND)
        head->state = LIM__ITEM_READY;
}

/* Into a state; what follows for its key and its lane. */
static void become(model *m, model_item *i, unsigned state)
{
    unsigned others = 0;
    for (unsigned n = 0; n < ITEMS; n++)
        others += m->items[n].key == i->key && waits(&m->items[n]);
    bool enters = others == 0;
    i->state = state;
    i->blocks = false;
    if (enters && waits(i)) {
        m->keys[i->key].service = m->time + (1u << 20) / m->keys[i->key].weight;
        m->keys[i->key].turn = ++m->turns;
    }
    settle_lane(m, i->order_key);
}

static void elapse(wide *missing, const lim__line_limit *limit, uint64_t ns)
{
    *missing -= (wide)ns * limit->rate_max;
    if (*missing < 0)
        *missing = 0;
}

static void take_token(wide *missing, const lim__line_limit *limit)
{
    wide all = (wide)limit->rate_max * limit->period_ns;
    if (limit->rate_max != 0)
        *missing = *missing + limit->period_ns > all ? all : *missing + (wide)limit->period_ns;
}

static void change_limit(wide *missing, const lim__line_limit *was, const lim__line_limit *is)
{
    if (was->rate_max == is->rate_max && was->period_ns == is->period_ns)
        return;
    wide ns = was->rate_max != 0 ? *missing / was->rate_max : 0, used = 0;
    if (was->rate_max != 0)
        used = (ns * was->rate_max << 20) / was->period_ns;
    ns = is->rate_max != 0 ? used * is->period_ns / is->rate_max >> 20 : 0;
    *missing = (ns < (wide)is->period_ns ? ns : (wide)is->period_ns) * is->rate_max;
}

static model_item *model_next(model *m)
{
    model_item *best = NULL;
    if (over(&m->line_limit, m->line_missing, count(m, KEYS, LIM__ITEM_OUT)))
        return NULL;
    for (unsigned n = 0; n < ITEMS; n++) {
        model_item *i = &m->items[n];
        const model_key *k = &m->keys[i->key];
        if (shown(m, i) != LIM__ITEM_READY || !(m->types >> i->type & 1))
            continue;
        const model_key *b = best != NULL ? &m->keys[best->key] : NULL;
        if (best == NULL || i->real.priority > best->real.priority ||
            (i->real.priority == best->real.priority &&
             (k == b ? older(i, best) : k->service < b->service || (k->service == b->service && k->turn < b->turn))))
            best = i;
    }
    return best;
}

/* ---- operations on both ---- */

static void do_add(model *m, model_item *i, bool fail)
{
    unsigned weights[] = { 0, 1, 1, 2, 3, 7, 1000 };
    *i = (model_item){ .key = roll(m, KEYS), .type = roll(m, TYPES), .order_key = roll(m, ORDERS) };
    if (roll(m, 3) == 0)
        i->order_key = 0;
    uint64_t due_ns = roll(m, 5) == 0 ? m->now_ns + roll(m, 2000) : 0;
    i->real = (lim__item){ .id = ++m->ids,
                           .type = lim__str(type_names[i->type]),
                           .key = lim__str(key_names[i->key]),
                           .order_key = lim__str(order_names[i->order_key]),
                           .due_ns = due_ns,
                           .weight = weights[roll(m, LIM_COUNT(weights))],
                           .priority = (uint8_t)(roll(m, 2) * 4 + roll(m, 2)) };
    if (fail)
        fail_at(1 + roll(m, 6));
    uint32_t weight = i->real.weight;
    lim_err err = lim__line_add(&m->line, &i->real, m->now_ns);
    fail_reached();
    if (err != LIM_OK) {
        assert_int_equal(err, LIM_E_NOMEM);
        assert_int_equal(i->real.state, LIM__ITEM_NONE);
        return;
    }
    m->keys[i->key].weight = weight != 0 ? weight : 1;
    i->order = ++m->orders;
    i->due_ns = due_ns;
    become(m, i, due_ns > m->now_ns ? LIM__ITEM_DELAYED : LIM__ITEM_READY);
    if (i->order_key != 0 && lane_head(m, i->order_key) != i && waits(i))
        i->state = LIM__ITEM_BEHIND;
}

static void do_out(model *m, model_item *i)
{
    const model_item *head = lane_head(m, i->order_key);
    if (head != NULL && head != i && head->state == LIM__ITEM_OUT)
        return;
    lim__line_out(&m->line, &i->real, m->now_ns);
    if (head != NULL && head->state == LIM__ITEM_PARKED)
        m->items[head - m->items].state = LIM__ITEM_BEHIND;
    model_key *k = &m->keys[i->key];
    become(m, i, LIM__ITEM_OUT);
    if (k->service > m->time)
        m->time = k->service;
    k->service = m->time + (1u << 20) / k->weight;
    k->turn = ++m->turns;
    take_token(&m->line_missing, &m->line_limit);
    take_token(&k->missing, key_limit(m, i->key));
}

static void do_again(model *m, model_item *i)
{
    uint64_t due_ns = roll(m, 3) == 0 ? 0 : m->now_ns + roll(m, 3) * 300;
    lim__line_again(&m->line, &i->real, m->now_ns, due_ns);
    i->was_out = true;
    i->due_ns = due_ns;
    bool lane = i->order_key != 0, later = due_ns > m->now_ns;
    if (due_ns != 0 && lane && m->policy == LIM__LANE_PARK) {
        become(m, i, LIM__ITEM_PARKED);
    } else if (later) {
        i->blocks = lane && m->policy == LIM__LANE_WAIT;
        i->state = LIM__ITEM_DELAYED;
        settle_lane(m, i->order_key);
    } else {
        become(m, i, LIM__ITEM_READY);
    }
}

static void come_due(model *m, model_item *i)
{
    if (!i->was_out)
        i->order = ++m->orders;
    become(m, i, LIM__ITEM_READY);
    settle_lane(m, i->order_key);
}

static void do_hurry(model *m, model_item *i)
{
    lim__line_hurry(&m->line, &i->real, m->now_ns);
    come_due(m, i);
}

static void do_remove(model *m, model_item *i)
{
    if (i->state == LIM__ITEM_OUT)
        lim__line_done(&m->line, &i->real, m->now_ns);
    else
        lim__line_remove(&m->line, &i->real, m->now_ns);
    assert_int_equal(i->real.state, LIM__ITEM_NONE);
    become(m, i, LIM__ITEM_NONE);
}

static void do_hold(model *m, model_item *i)
{
    if (i->state == LIM__ITEM_HELD) {
        lim__line_unhold(&m->line, &i->real);
        i->state = LIM__ITEM_READY;
    } else if (i->state == LIM__ITEM_READY) {
        lim__line_hold(&m->line, &i->real);
        i->state = LIM__ITEM_HELD;
    }
}

static void do_unhold_all(model *m)
{
    lim__line_unhold_all(&m->line);
    for (unsigned n = 0; n < ITEMS; n++)
        if (m->items[n].state == LIM__ITEM_HELD)
            m->items[n].state = LIM__ITEM_READY;
}

static void do_unpark(model *m)
{
    unsigned order_key = roll(m, ORDERS);
    model_item *head = lane_head(m, order_key);
    bool parked = head != NULL && head->state == LIM__ITEM_PARKED;
    assert_int_equal(lim__line_unpark(&m->line, lim__str(order_names[order_key]), m->now_ns), parked);
    if (!parked)
        return;
    head->blocks = head->due_ns > m->now_ns;
    head->state = head->blocks ? LIM__ITEM_DELAYED : LIM__ITEM_READY;
    settle_lane(m, order_key);
}

static lim__line_limit some_limit(model *m)
{
    lim__line_limit limit = { 0 };
    if (roll(m, 2) == 0)
        limit.in_flight_max = 1 + roll(m, 3);
    if (roll(m, 2) == 0) {
        limit.rate_max = 1 + roll(m, 4);
        limit.period_ns = 1 + roll(m, 3000);
    }
    return limit;
}

static void do_limit(model *m)
{
    lim__line_limit limit = some_limit(m), was;
    unsigned key = roll(m, KEYS);
    switch (roll(m, 5)) {
    case 0:
        change_limit(&m->line_missing, &m->line_limit, &limit);
        m->line_limit = limit;
        assert_int_equal(lim__line_limit_line(&m->line, &limit, m->now_ns), LIM_OK);
        return;
    case 1:
        was = m->key_limit;
        for (unsigned k = 0; k < KEYS; k++)
            if (!m->keys[k].own)
                change_limit(&m->keys[k].missing, &was, &limit);
        m->key_limit = limit;
        assert_int_equal(lim__line_limit_keys(&m->line, &limit, m->now_ns), LIM_OK);
        return;
    case 2:
        assert_int_equal(lim__line_limit_clear(&m->line, lim__str(key_names[key]), m->now_ns), m->keys[key].own);
        change_limit(&m->keys[key].missing, key_limit(m, key), &m->key_limit);
        m->keys[key].own = false;
        return;
    default:
        change_limit(&m->keys[key].missing, key_limit(m, key), &limit);
        m->keys[key].limit = limit;
        m->keys[key].own = true;
        assert_int_equal(lim__line_limit_set(&m->line, lim__str(key_names[key]), &limit, m->now_ns), LIM_OK);
    }
}

static model_item *first_due(model *m)
{
    model_item *first = NULL;
    for (unsigned n = 0; n < ITEMS; n++) {
        model_item *i = &m->items[n];
        if (i->state == LIM__ITEM_DELAYED && i->due_ns <= m->now_ns &&
            (first == NULL || i->due_ns < first->due_ns || (i->due_ns == first->due_ns && i->order < first->order)))
            first = i;
    }
    return first;
}

static void do_wait(model *m, uint64_t ns)
{
    m->now_ns += ns;
    for (model_item *i; (i = first_due(m)) != NULL;)
        come_due(m, i);
    elapse(&m->line_missing, &m->line_limit, ns);
    for (unsigned k = 0; k < KEYS; k++)
        elapse(&m->keys[k].missing, key_limit(m, k), ns);
    while (lim__line_wake(&m->line, m->now_ns))
        continue;
}

/* ---- comparison ---- */

static bool served(void *ctx, lim_bytes type)
{
    const model *m = ctx;
    for (unsigned t = 0; t < TYPES; t++)
        if (lim__bytes_eq(type, lim__str(type_names[t])))
            return m->types >> t & 1;
    fail();
    return false;
}

static void compare_why(model *m, model_item *i)
{
    static const lim__line_how how[LIM__ITEM_STATES] = {
        [LIM__ITEM_NONE] = LIM__LINE_EMPTY,     [LIM__ITEM_DELAYED] = LIM__LINE_DELAYED,
        [LIM__ITEM_READY] = LIM__LINE_READY,    [LIM__ITEM_LIMITED] = LIM__LINE_KEY_LIMIT,
        [LIM__ITEM_BEHIND] = LIM__LINE_ORDERED, [LIM__ITEM_PARKED] = LIM__LINE_PARKED,
        [LIM__ITEM_HELD] = LIM__LINE_HELD,      [LIM__ITEM_OUT] = LIM__LINE_OUT,
    };
    lim__line_why why = lim__line_why_item(&m->line, &i->real, m->now_ns);
    if (why.how == LIM__LINE_QUEUE_LIMIT) {
        assert_true(over(&m->line_limit, m->line_missing, count(m, KEYS, LIM__ITEM_OUT)));
        assert_int_equal(shown(m, i), LIM__ITEM_READY);
        return;
    }
    assert_int_equal(why.how, how[shown(m, i)]);
    if (why.how == LIM__LINE_ORDERED)
        assert_ptr_equal(why.before, &lane_head(m, i->order_key)->real);
    if (why.how == LIM__LINE_DELAYED)
        assert_int_equal(why.until_ns, i->due_ns);
}

static void compare_first(model *m)
{
    static const unsigned ranks[] = { LIM__ITEM_READY,  LIM__ITEM_HELD,   LIM__ITEM_LIMITED,
                                      LIM__ITEM_BEHIND, LIM__ITEM_PARKED, LIM__ITEM_DELAYED };
    unsigned expected = LIM__ITEM_NONE;
    for (unsigned r = LIM_COUNT(ranks); r-- > 0;)
        for (unsigned n = 0; n < ITEMS; n++)
            if (shown(m, &m->items[n]) == ranks[r])
                expected = ranks[r];
    lim__line_why why = lim__line_why_first(&m->line, m->now_ns);
    if (expected == LIM__ITEM_NONE)
        assert_int_equal(why.how, LIM__LINE_EMPTY);
    else
        assert_int_equal(lim__line_state(&m->line, why.item), expected);
}

static void compare_lists(model *m)
{
    uint64_t after = 0, last_id = 0;
    uint32_t seen = 0, page = 1 + roll(m, 7), n;
    lim__item *items[8];
    while ((n = lim__line_items(&m->line, after, items, page)) > 0) {
        for (uint32_t i = 0; i < n; i++, seen++) {
            assert_true(items[i]->id > last_id);
            last_id = items[i]->id;
        }
        after = items[n - 1]->no;
    }
    assert_int_equal(seen, lim__line_count(&m->line, LIM__ITEM_NONE));
    lim__line_key keys[8];
    for (after = 0; (n = lim__line_keys(&m->line, after, keys, page, m->now_ns)) > 0; after = keys[n - 1].no)
        for (uint32_t i = 0; i < n; i++) {
            seen -= keys[i].count[LIM__ITEM_NONE];
            unsigned k = 0;
            while (!lim__bytes_eq(keys[i].key, lim__str(key_names[k])))
                k++;
            assert_int_equal(keys[i].own_limit, m->keys[k].own);
            assert_int_equal(keys[i].count[LIM__ITEM_OUT], count(m, k, LIM__ITEM_OUT));
            assert_int_equal(keys[i].count[LIM__ITEM_LIMITED], key_limited(m, k) ? count(m, k, LIM__ITEM_READY) : 0);
        }
    assert_int_equal(seen, 0);
}

/* Nothing changes by time alone before lim__line_due. */
static void compare_due(model *m)
{
    uint64_t due = lim__line_due(&m->line);
    uint64_t before_ns = due == LIM__LINE_NEVER ? 1000000000 : due - 1 - m->now_ns;
    assert_true(due > m->now_ns);
    for (unsigned n = 0; n < ITEMS; n++) {
        const model_item *i = &m->items[n];
        assert_true(i->state != LIM__ITEM_DELAYED || i->due_ns >= due);
        if (shown(m, i) != LIM__ITEM_LIMITED)
            continue;
        const lim__line_limit *limit = key_limit(m, i->key);
        wide missing = m->keys[i->key].missing;
        elapse(&missing, limit, before_ns);
        assert_true(over(limit, missing, count(m, i->key, LIM__ITEM_OUT)));
    }
}

static model_item *compare_next(model *m)
{
    m->types = roll(m, 3) == 0 ? roll(m, 1u << TYPES) : ~0u;
    lim__line_begin(&m->line);
    lim__item *real = lim__line_next(&m->line, m->now_ns, served, m);
    model_item *expected = model_next(m);
    assert_ptr_equal(real, expected != NULL ? &expected->real : NULL);
    assert_ptr_equal(real, lim__line_next(&m->line, m->now_ns, served, m));
    return expected;
}

static void compare(model *m)
{
    lim__line_check(&m->line);
    unsigned counts[LIM__ITEM_STATES] = { 0 };
    for (unsigned n = 0; n < ITEMS; n++) {
        model_item *i = &m->items[n];
        counts[shown(m, i)]++;
        if (i->state == LIM__ITEM_NONE)
            continue;
        assert_int_equal(lim__line_state(&m->line, &i->real), shown(m, i));
        compare_why(m, i);
    }
    for (unsigned s = LIM__ITEM_DELAYED; s < LIM__ITEM_STATES; s++)
        assert_int_equal(lim__line_count(&m->line, s), counts[s]);
    compare_first(m);
    compare_lists(m);
    compare_due(m);
}

/* ---- the walk ---- */

static void step(model *m)
{
    model_item *i = &m->items[roll(m, ITEMS)], *next;
    unsigned what = roll(m, 100);
    if (what < 30) {
        next = compare_next(m);
        if (next != NULL)
            do_out(m, next);
    } else if (what < 55) {
        if (i->state == LIM__ITEM_NONE)
            do_add(m, i, roll(m, 10) == 0);
        else if (i->state == LIM__ITEM_OUT)
            roll(m, 2) == 0 ? do_remove(m, i) : do_again(m, i);
        else if (roll(m, 4) == 0)
            do_hold(m, i);
    } else if (what < 70) {
        do_wait(m, roll(m, 3) == 0 ? roll(m, 1000) : roll(m, 40));
    } else if (what < 75) {
        do_limit(m);
    } else if (what < 80) {
        do_unpark(m);
    } else if (what < 83) {
        do_unhold_all(m);
    } else if (what < 90 && i->state != LIM__ITEM_NONE) {
        do_remove(m, i);
    } else if (what < 92 && i->state == LIM__ITEM_DELAYED) {
        do_hurry(m, i);
    } else if (what < 94 && i->state != LIM__ITEM_NONE && i->state != LIM__ITEM_OUT) {
        do_out(m, i); /* a lease that is restored */
    }
}

static void finish(model *m)
{
    lim__line_limit none = { 0 };
    for (unsigned n = 0; n < ITEMS; n++)
        if (m->items[n].state != LIM__ITEM_NONE)
            do_remove(m, &m->items[n]);
    for (unsigned k = 0; k < KEYS; k++)
        (void)lim__line_limit_clear(&m->line, lim__str(key_names[k]), m->now_ns);
    assert_int_equal(lim__line_limit_keys(&m->line, &none, m->now_ns), LIM_OK);
    assert_baseline(&m->line);
    lim__line_fini(&m->line);
}

static void play(uint64_t seed)
{
    model m = { .rng = lim__rng_seeded(seed), .now_ns = 1000 };
    lim__line_init(&m.line, seed);
    m.policy = (lim__lane_policy)(1 + roll(&m, 3));
    lim__line_policy(&m.line, m.policy);
    for (unsigned k = 0; k < KEYS; k++)
        m.keys[k].weight = 1;
    for (unsigned n = 0; n < STEPS; n++) {
        step(&m);
        compare(&m);
    }
    finish(&m);
}

static void test_a_line_does_what_the_model_does(void **state) /* proves GR10, GR11 */
{
    (void)state;
    const char *one = getenv("LIM_SEED");
    for (uint64_t seed = 1; seed <= SEEDS && one == NULL; seed++) {
        current_seed = seed;
        play(seed);
    }
    if (one != NULL)
        play(strtoull(one, NULL, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_line_does_what_the_model_does, NULL, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
