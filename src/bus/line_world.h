/* SPDX-License-Identifier: Apache-2.0
 * line_world.h - what the tests of a line share: memory that fails on demand, and is back at its baseline. */
#ifndef LIM__LINE_WORLD_H
#define LIM__LINE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "bus/line_inside.h"

/* ---- memory: the n-th allocation from now fails (not under a sanitizer, which owns malloc) ---- */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define OWNS_MALLOC 1
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef OWNS_MALLOC
#endif
#endif
#endif

static uint64_t malloc_countdown;
#ifdef OWNS_MALLOC
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static bool malloc_fails(void)
{
    return malloc_countdown != 0 && --malloc_countdown == 0;
}
void *malloc(size_t bytes)
{
    return malloc_fails() ? NULL : __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes)
{
    return malloc_fails() ? NULL : __libc_calloc(count, bytes);
}
void *realloc(void *block, size_t bytes)
{
    return malloc_fails() ? NULL : __libc_realloc(block, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes)
{
    return malloc_fails() ? NULL : __libc_memalign(alignment, bytes);
}
#endif

static inline void fail_at(uint64_t n)
{
#ifdef OWNS_MALLOC
    malloc_countdown = n;
#else
    (void)n;
#endif
}
static inline bool fail_reached(void) /* and disarms */
{
#ifdef OWNS_MALLOC
    bool reached = malloc_countdown == 0;
#else
    bool reached = false;
#endif
    malloc_countdown = 0;
    return reached;
}

/* All memory that the line took is back. */
static inline void assert_baseline(const lim__line *l)
{
    lim__line_check(l);
    assert_null(l->types.slots);
    assert_null(l->keys.slots);
    assert_null(l->lanes.slots);
    assert_null(l->cells.slots);
    assert_null(l->open);
    assert_null(l->items.pages);
    assert_null(l->flows.pages);
}

/* ---- seeds ---- */
static uint64_t current_seed;

static inline int tell_seed(void **state) /* a teardown: cmocka calls it after a failure, too */
{
    (void)state;
    if (current_seed != 0)
        printf("last seed: LIM_SEED=%llu\n", (unsigned long long)current_seed);
    return 0;
}

#endif
