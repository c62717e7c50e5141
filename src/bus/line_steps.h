/* SPDX-License-Identifier: Apache-2.0
 * line_steps.h - a line, its tasks and the steps that the tests of its rules are made of. */
#ifndef LIM__LINE_STEPS_H
#define LIM__LINE_STEPS_H

#include "bus/line_world.h"

enum { MANY = 4000 };
#define SECOND 1000000000ull

typedef struct world {
    lim__line line;
    lim__item items[MANY];
    uint32_t used;
    uint64_t now_ns;
    char order[MANY + 1]; /* who went out: the first letter of its key */
    uint32_t outs;
} world;

static inline int begin(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    lim__line_init(&w->line, 7);
    w->now_ns = SECOND;
    *state = w;
    return 0;
}

static inline int end(void **state)
{
    world *w = *state;
    lim__line_check(&w->line);
    lim__line_fini(&w->line);
    lim__line_fini(&w->line);
    free(w);
    return 0;
}

/* ---- steps ---- */

#define ITEM(...)   (&(lim__item){ .state = LIM__ITEM_NONE, __VA_ARGS__ })
#define KEY(text)   .key = { text, sizeof(text) - 1 }
#define TYPE(text)  .type = { text, sizeof(text) - 1 }
#define ORDER(text) .order_key = { text, sizeof(text) - 1 }

static inline lim__item *add(world *w, const lim__item *like)
{
    LIM_ASSERT(w->used < MANY);
    lim__item *i = &w->items[w->used++];
    *i = *like;
    i->id = w->used;
    assert_int_equal(lim__line_add(&w->line, i, w->now_ns), LIM_OK);
    return i;
}

static inline void add_many(world *w, const lim__item *like, uint32_t n)
{
    while (n-- > 0)
        add(w, like);
}

static inline bool any(void *ctx, lim_bytes type)
{
    (void)ctx;
    (void)type;
    return true;
}

static inline lim__item *next(world *w)
{
    lim__line_begin(&w->line);
    return lim__line_next(&w->line, w->now_ns, any, NULL);
}

static inline lim__item *out(world *w)
{
    lim__item *i = next(w);
    if (i == NULL)
        return NULL;
    if (w->outs < MANY)
        w->order[w->outs++] = i->key.len > 0 ? *(const char *)i->key.ptr : '-';
    lim__line_out(&w->line, i, w->now_ns);
    return i;
}

static inline bool serve(world *w)
{
    lim__item *i = out(w);
    if (i != NULL)
        lim__line_done(&w->line, i, w->now_ns);
    return i != NULL;
}

static inline uint32_t served_of(const world *w, char key, uint32_t from, uint32_t to)
{
    uint32_t n = 0;
    for (uint32_t i = from; i < to; i++)
        n += w->order[i] == key;
    return n;
}

static inline void later(world *w, uint64_t ns)
{
    w->now_ns += ns;
    while (lim__line_wake(&w->line, w->now_ns))
        continue;
}

static inline void limit(world *w, const char *key, lim__line_limit limit)
{
    assert_int_equal(lim__line_limit_set(&w->line, lim__str(key), &limit, w->now_ns), LIM_OK);
}
#define LIMIT(...) ((lim__line_limit){ __VA_ARGS__ })

static inline void drain(world *w)
{
    while (serve(w))
        continue;
}

#endif
