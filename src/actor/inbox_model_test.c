/* SPDX-License-Identifier: Apache-2.0
 * inbox_model_test.c - every interleaving of push, take-all and sleep: no wake is lost, and each sender keeps its
 * order.
 *
 * The three operations of the inbox (lim__inbox_push and lim__sched_wake in mailbox.c; sleep_until and lim__inbox_deal
 * in sched.c and mailbox.c) are written down once more as little machines of one atomic step each, in the order of the
 * code. The explorer runs them in every order that there is, remembering states it has been in:
 *
 *      pusher                                 owner
 *      1 head = inbox          relaxed        1 sleeping = 1                seq_cst
 *      2 CAS inbox head -> me  seq_cst        2 empty = inbox == NULL       seq_cst
 *        (failed: head is new, again 2)       3 wait: passes when woken (eventfd: a wake is kept until a wait takes
 * it); 3 sleeping == 0? done   seq_cst           not empty: only looks, and takes a wake along 4 exchange(sleeping, 0)
 * == 0? done     4 sleeping = 0                relaxed: may become visible later 5 wake 5 inbox == NULL? back to 1
 * relaxed 6 exchange(inbox, NULL)       acquire 7 deal what was taken, oldest first; back to 1, or (busy) to 5, with or
 * without a poll that takes a wake along
 *
 * The relaxed store of 4 goes into a store buffer that is emptied at any later time, at the latest by the owner's next
 * sequentially consistent operation, as x86 does it and C11 allows; nobody reads a value that was never written.
 *
 * What must hold: when nobody can move, every pusher is done and everything was dealt (no lost wake-up); what one
 * pusher pushed is dealt in its order, each exactly once. That the explorer sees, it shows on variants that are wrong.
 */
#include "actor/test_world.h"
#include "base/map.h"

enum { PUSHERS_MAX = 3, LETTERS_MAX = 4, STATES_MAX = 1 << 22 };

typedef enum variant {
    AS_WRITTEN = 1,
    LOOKS_BEFORE_IT_SAYS, /* the owner reads the inbox before it says that it sleeps */
    SLEEPS_UNSEEN,        /* the owner waits without having looked */
    DEALS_AS_TAKEN,       /* the stack is not turned over */
} variant;

typedef struct pusher {
    uint8_t pc, head, done; /* done: letters pushed; head: what it read */
} pusher;

typedef struct state { /* no padding: hashed as bytes. Letters are numbered from 1; 0 is NULL */
    pusher pushers[PUSHERS_MAX];
    uint8_t pc, empty, sleeping, buffered; /* owner; buffered: its `sleeping = 0` is not visible yet */
    uint8_t inbox, woken, dealt, wrong;
    uint8_t next[PUSHERS_MAX * LETTERS_MAX + 1];
    uint8_t dealt_of[PUSHERS_MAX];
} state;

typedef struct explorer {
    variant v;
    uint8_t pushers, letters;
    state *seen;
    uint8_t *used;
    state *stack;
    uint32_t count, depth;
    bool lost, disordered;
} explorer;

static uint8_t letter_of(const explorer *x, uint8_t p, uint8_t n)
{
    return (uint8_t)(1 + p * x->letters + n);
}

/* ---- pusher: one step; false: it cannot move ---- */
static bool push_step(const explorer *x, state *s, uint8_t i)
{
    pusher *p = &s->pushers[i];
    if (p->done == x->letters)
        return false;
    uint8_t me = letter_of(x, i, p->done);
    switch (p->pc) {
    case 0:
        p->head = s->inbox;
        p->pc = 1;
        break;
    case 1:
        if (s->inbox != p->head) {
            p->head = s->inbox;
            break;
        }
        s->next[me] = p->head;
        s->inbox = me;
        p->pc = 2;
        break;
    case 2:
        p->pc = s->sleeping == 0 ? 5 : 3;
        break;
    case 3:
        p->pc = s->sleeping == 0 ? 5 : 4;
        s->sleeping = 0;
        break;
    case 4:
        s->woken = 1;
        p->pc = 5;
        break;
    default:
        p->done++;
        p->head = 0;
        p->pc = 0;
    }
    return true;
}

/* ---- owner ---- */
static void drain_buffer(state *s)
{
    if (s->buffered)
        s->sleeping = 0;
    s->buffered = 0;
}

static void deal(const explorer *x, state *s)
{
    uint8_t fifo[PUSHERS_MAX * LETTERS_MAX], n = 0;
    for (uint8_t l = s->empty; l != 0; l = s->next[l])
        fifo[n++] = l;
    for (uint8_t k = 0; k < n; k++) {
        uint8_t l = x->v == DEALS_AS_TAKEN ? fifo[k] : fifo[n - 1 - k], from = (uint8_t)((l - 1) / x->letters);
        if (l != letter_of(x, from, s->dealt_of[from]))
            s->wrong = 1;
        s->dealt_of[from]++;
        s->dealt++;
    }
    s->empty = 0;
}

static bool own_step(const explorer *x, state *s)
{
    bool early = x->v == LOOKS_BEFORE_IT_SAYS;
    switch (s->pc) {
    case 0:
        drain_buffer(s);
        if (early)
            s->empty = s->inbox == 0;
        else
            s->sleeping = 1;
        s->pc = 1;
        break;
    case 1:
        drain_buffer(s);
        if (early)
            s->sleeping = 1;
        else
            s->empty = s->inbox == 0 || x->v == SLEEPS_UNSEEN;
        s->pc = 2;
        break;
    case 2:
        if (s->empty && !s->woken)
            return false; /* sleeps */
        s->woken = 0;
        s->empty = 0;
        s->pc = 3;
        break;
    case 3:
        s->buffered = 1;
        s->pc = 4;
        break;
    case 4:
        s->pc = s->inbox == 0 ? 0 : 5;
        break;
    case 5:
        s->empty = s->inbox; /* the exchange; `empty` holds what was taken until it is dealt */
        s->inbox = 0;
        drain_buffer(s);
        s->pc = 6;
        break;
    case 6:
        deal(x, s);
        s->pc = 7;
        break;
    default: /* a turn that left work begins the next one without sleeping: also explored */
        s->pc = 0;
    }
    return true;
}

/* ---- all interleavings ---- */
static void visit(explorer *x, const state *s)
{
    uint64_t at = lim__hash_bytes(lim__bytes(s, sizeof *s), 1) % STATES_MAX;
    while (x->used[at]) {
        if (memcmp(&x->seen[at], s, sizeof *s) == 0)
            return;
        at = (at + 1) % STATES_MAX;
    }
    assert_true(++x->count < STATES_MAX / 4 * 3);
    x->used[at] = 1;
    x->seen[at] = *s;
    x->stack[x->depth++] = *s;
}

static void expand(explorer *x, const state *s)
{
    bool moved = false;
    state t = *s;
    for (uint8_t i = 0; i < x->pushers; i++, t = *s)
        if (push_step(x, &t, i)) {
            visit(x, &t);
            moved = true;
        }
    if (own_step(x, &t)) {
        visit(x, &t);
        moved = true;
    }
    t = *s;
    if (s->pc == 7) {
        t.pc = 4; /* busy: straight to the next look at the inbox */
        visit(x, &t);
        t.woken = 0; /* the same with a poll, or a spin that polled and then went to sleep: a wake is taken along */
        visit(x, &t);
        t.pc = 0;
        visit(x, &t);
        t = *s;
    }
    if (s->buffered) {
        drain_buffer(&t);
        visit(x, &t);
        moved = true;
    }
    if (!moved && s->dealt != x->pushers * x->letters)
        x->lost = true;
    if (s->wrong)
        x->disordered = true;
}

static explorer explore(variant v, uint8_t pushers, uint8_t letters)
{
    explorer x = { .v = v, .pushers = pushers, .letters = letters };
    x.seen = malloc(STATES_MAX * sizeof *x.seen);
    x.used = calloc(STATES_MAX, 1);
    x.stack = malloc(STATES_MAX * sizeof *x.stack);
    assert_true(x.seen && x.used && x.stack);
    state start = { 0 };
    visit(&x, &start);
    while (x.depth > 0) {
        state s = x.stack[--x.depth];
        expand(&x, &s);
    }
    free(x.seen), free(x.used), free(x.stack);
    return x;
}

static void test_no_interleaving_loses_a_wake_or_an_order(void **unused) /* R11, proves RT2 */
{
    (void)unused;
    static const struct {
        uint8_t pushers, letters;
    } sizes[] = { { 1, 1 }, { 1, 4 }, { 2, 1 }, { 2, 2 }, { 2, 3 }, { 3, 1 } };
    for (size_t i = 0; i < LIM_COUNT(sizes); i++) {
        explorer x = explore(AS_WRITTEN, sizes[i].pushers, sizes[i].letters);
        assert_false(x.lost);
        assert_false(x.disordered);
        assert_true(x.count > 20);
    }
}

static void test_the_explorer_finds_what_is_wrong(void **unused)
{
    (void)unused;
    assert_true(explore(LOOKS_BEFORE_IT_SAYS, 1, 1).lost);
    assert_true(explore(SLEEPS_UNSEEN, 1, 1).lost);
    assert_true(explore(DEALS_AS_TAKEN, 1, 2).disordered);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_interleaving_loses_a_wake_or_an_order),
        cmocka_unit_test(test_the_explorer_finds_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
