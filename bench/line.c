/* SPDX-License-Identifier: Apache-2.0
 * line.c - what one task costs a queue's waiting line, and whether that depends on how many wait.
 *
 * One step is next, out, done and add: a task goes out and is done, another one comes. `small` has 100 tasks of one
 * key, `large` a million of 10,000 keys. Both do the same things to the same structures, in turns, and each number is
 * the best of many short rounds. The ratio is what GR15 is about. What is left of it is memory: everything of `small`
 * is in the nearest cache, of `large` a task that was not looked at for a while, and the key of one that comes, are
 * not.
 *
 *   step           keys come in turn; a task lies in memory beside the one that came before it
 *   random_keys    each new task has a random key: what is known of it is far, and nobody knew in time to fetch it
 *   scattered      ... and each task lies anywhere: the worst there is
 *   ten_weights    scattered, keys with weights 1 to 10
 *   five_types     scattered, each key has tasks of five types: next looks at each type, and re-sorts its keys */
#include "bus/line.h"
#include "base/base.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 60, BATCHES = 100, BATCH = 200, SMALL = 100, LARGE = 1000000, KEYS = 10000 };

typedef struct load {
    const char *name;
    uint32_t types, weights;
    bool random_keys, scattered;
} load;

/* What the next tasks are like: made before the clock starts, near in memory as a message that was just read is. */
typedef struct wish {
    char key[24], type[24];
    uint32_t weight;
} wish;

typedef struct world {
    const load *load;
    lim__line line;
    lim__item *items;
    uint32_t keys, turn;
    lim__rng rng;
    double best_ns;
} world;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void make_wish(world *w, wish *out)
{
    uint32_t key = w->load->random_keys ? (uint32_t)lim__rng_below(&w->rng, w->keys) : w->turn++ % w->keys;
    snprintf(out->key, sizeof out->key, "tenant-%u", key);
    snprintf(out->type, sizeof out->type, "type-%u", (unsigned)lim__rng_below(&w->rng, w->load->types));
    out->weight = 1 + key % w->load->weights;
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

static world *fill(const load *how, uint32_t count, uint32_t keys)
{
    world *w = calloc(1, sizeof *w);
    uint32_t *order = calloc(count, sizeof *order);
    if (w == NULL || order == NULL || (w->items = calloc(count, sizeof *w->items)) == NULL)
        abort();
    w->load = how;
    w->keys = keys;
    w->rng = lim__rng_seeded(count);
    w->best_ns = 1e9;
    lim__line_init(&w->line, 1);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = how->scattered ? (uint32_t)lim__rng_below(&w->rng, i + 1) : i;
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
static void compare(const load *how)
{
    world *small = fill(how, SMALL, 1), *large = fill(how, LARGE, KEYS);
    for (int round = 0; round < ROUNDS; round++) {
        round_of(small);
        round_of(large);
    }
    printf("RESULT line.%s.small %.1f ns\n", how->name, small->best_ns);
    printf("RESULT line.%s.large %.1f ns\n", how->name, large->best_ns);
    printf("RESULT line.%s.ratio %.2f ratio\n", how->name, large->best_ns / small->best_ns);
    drop(small);
    drop(large);
}

int main(void)
{
    static const load loads[] = {
        { .name = "step", .types = 1, .weights = 1 },
        { .name = "random_keys", .types = 1, .weights = 1, .random_keys = true },
        { .name = "scattered", .types = 1, .weights = 1, .random_keys = true, .scattered = true },
        { .name = "ten_weights", .types = 1, .weights = 10, .random_keys = true, .scattered = true },
        { .name = "five_types", .types = 5, .weights = 1, .random_keys = true, .scattered = true },
    };
    for (size_t i = 0; i < LIM_COUNT(loads); i++)
        compare(&loads[i]);
    return 0;
}
