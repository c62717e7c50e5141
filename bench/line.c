/* SPDX-License-Identifier: Apache-2.0
 * line.c - what one task costs a queue's waiting line, and whether that depends on how many wait.
 *
 * One step is next, out, done and add: a task goes out and is done, another one comes. `small` has 100 tasks of one
 * key; `large` a million of 10,000 keys, added with their keys in random order and lying in memory in another random
 * order, so that neither is a help to the cache; a new task has a random key. Both do the same things to the same
 * structures, in turns, and each number is the best of several rounds. The ratio is what GR15 is about. */
#include "bus/line.h"
#include "base/base.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 60, BATCHES = 100, BATCH = 200, SMALL = 100, LARGE = 1000000, KEYS = 10000 };

typedef struct world {
    lim__line line;
    lim__item *items;
    uint32_t count, keys, types;
    uint32_t weights;
    lim__rng rng;
    double best_ns;
} world;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What the next tasks are like: made before the clock starts, near in memory as a message that was just read is. */
typedef struct wish {
    char key[24], type[24];
    uint32_t weight;
} wish;

static void make_wish(world *w, wish *like)
{
    snprintf(like->key, sizeof like->key, "tenant-%u", (unsigned)lim__rng_below(&w->rng, w->keys));
    snprintf(like->type, sizeof like->type, "type-%u", (unsigned)lim__rng_below(&w->rng, w->types));
    like->weight = 1 + (uint32_t)lim__rng_below(&w->rng, w->weights);
}

static void add(world *w, lim__item *i, uint64_t id, const wish *like)
{
    *i = (lim__item){ .id = id,
                      .type = lim__str(like->type),
                      .key = lim__str(like->key),
                      .weight = like->weight,
                      .priority = LIM__PRIORITY_DEFAULT };
    if (lim__line_add(&w->line, i, 1) != LIM_OK)
        abort();
}

static world *fill(uint32_t count, uint32_t keys, uint32_t types, uint32_t weights)
{
    world *w = calloc(1, sizeof *w);
    uint32_t *order = calloc(count, sizeof *order);
    w->items = calloc(count, sizeof *w->items);
    if (order == NULL || w->items == NULL)
        abort();
    w->count = count;
    w->keys = keys;
    w->types = types;
    w->weights = weights;
    w->rng = lim__rng_seeded(count);
    w->best_ns = 1e9;
    lim__line_init(&w->line, 1);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = (uint32_t)lim__rng_below(&w->rng, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    for (uint32_t i = 0; i < count; i++) {
        wish like;
        make_wish(w, &like);
        add(w, &w->items[order[i]], i, &like);
    }
    free(order);
    return w;
}

static bool any(void *ctx, lim_bytes type)
{
    (void)ctx;
    (void)type;
    return true;
}

static uint64_t steps(world *w, const wish *wishes)
{
    uint64_t start = now_ns();
    for (uint32_t i = 0; i < BATCH; i++) {
        lim__line_begin(&w->line);
        lim__item *item = lim__line_next(&w->line, 1, any, NULL);
        if (item == NULL)
            abort();
        lim__line_out(&w->line, item, 1);
        lim__line_done(&w->line, item, 1);
        add(w, item, i, &wishes[i]);
    }
    return now_ns() - start;
}

static void round_of(world *w)
{
    static wish wishes[BATCH];
    uint64_t total_ns = 0;
    for (uint32_t b = 0; b < BATCHES; b++) {
        for (uint32_t i = 0; i < BATCH; i++)
            make_wish(w, &wishes[i]);
        total_ns += steps(w, wishes);
    }
    double ns = (double)total_ns / (BATCHES * BATCH);
    w->best_ns = ns < w->best_ns ? ns : w->best_ns;
}

static void drop(world *w)
{
    lim__line_fini(&w->line);
    free(w->items);
    free(w);
}

/* Both in turns, so that a change of the machine's mood meets both. */
static double compare(const char *name, uint32_t types, uint32_t weights)
{
    world *small = fill(SMALL, 1, types, weights), *large = fill(LARGE, KEYS, types, weights);
    for (int round = 0; round < ROUNDS; round++) {
        round_of(small);
        round_of(large);
    }
    double ratio = large->best_ns / small->best_ns;
    printf("RESULT line.%s.small %.1f ns\n", name, small->best_ns);
    printf("RESULT line.%s.large %.1f ns\n", name, large->best_ns);
    printf("RESULT line.%s.ratio %.2f x\n", name, ratio);
    drop(small);
    drop(large);
    return ratio;
}

int main(void)
{
    compare("step", 1, 1);
    compare("step_5_types", 5, 1);
    compare("step_10_weights", 1, 10);
    return 0;
}
