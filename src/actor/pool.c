/* SPDX-License-Identifier: Apache-2.0
 * pool.c - where letters, processes and their like get their memory: size classes, a magazine per scheduler.
 *
 * Blocks come from malloc one by one and are kept by class. Taking and giving on a scheduler is a list operation on
 * its own magazine. A block may be given back on another scheduler than it was taken from; a stream of messages in one
 * direction therefore fills one magazine and empties another, and the depot evens that out half a magazine at a time:
 *
 *      scheduler 0                 depot (mutex)              scheduler 1
 *      magazine, empty <--batch--  [128] [128] ...  <--batch-- magazine, over 256
 *
 * What the depot does not want goes back to malloc, so that memory after a storm is bounded. Host threads have no
 * magazine: they malloc and free the same class sizes.
 *
 * Under the address sanitizer every block is malloc'd and freed, so that it sees every use after free. */
#include "actor/internal.h"
#include <stdlib.h>

enum { BATCHES_MAX = 64 }; /* per class in the depot */

static const uint16_t large_bytes[] = { 792, 1048, 1560, 2072, 3096, 4120, 6168, 8216, 12312, 16408 };
static_assert(LIM__CLASS_SMALL_MAX + 1 + LIM_COUNT(large_bytes) == LIM__CLASS_COUNT, "every class has a size");

_Atomic uint64_t lim__alloc_countdown;

void lim__alloc_fail_at(uint64_t n)
{
    atomic_store(&lim__alloc_countdown, n);
}

/* True for the one allocation that the test wants to fail. */
static bool chosen_to_fail(void)
{
    uint64_t n = atomic_load(&lim__alloc_countdown);
    while (n != 0)
        if (atomic_compare_exchange_weak(&lim__alloc_countdown, &n, n - 1))
            return n == 1;
    return false;
}

uint32_t lim__class_large(size_t bytes)
{
    for (uint32_t i = 0; i < LIM_COUNT(large_bytes); i++)
        if (bytes <= large_bytes[i])
            return LIM__CLASS_SMALL_MAX + 1 + i;
    return LIM__CLASS_HUGE;
}

size_t lim__class_bytes(uint32_t klass)
{
    LIM_ASSERT(klass < LIM__CLASS_COUNT);
    return klass <= LIM__CLASS_SMALL_MAX ? 16 * klass + 24 : large_bytes[klass - LIM__CLASS_SMALL_MAX - 1];
}

void *lim__host_alloc(uint32_t klass, size_t bytes)
{
    if (chosen_to_fail())
        return NULL;
    return malloc(klass == LIM__CLASS_HUGE ? bytes : lim__class_bytes(klass));
}

void lim__block_release(void *block)
{
    free(block);
}

static bool refill_from_depot(lim__sched *s, uint32_t klass)
{
    lim__depot *d = &s->rt->depot;
    if (atomic_load_explicit(&d->batch_count[klass], memory_order_relaxed) == 0)
        return false;
    pthread_mutex_lock(&d->lock);
    lim__block *batch = d->batches[klass];
    if (batch) {
        d->batches[klass] = batch->batch_next;
        atomic_fetch_sub_explicit(&d->batch_count[klass], 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&d->lock);
    lim__magazine *m = &s->magazines[klass];
    for (; batch; batch = batch->next)
        m->blocks[m->count++] = batch;
    return m->count > 0;
}

void *lim__block_refill(lim__sched *s, uint32_t klass)
{
    lim__magazine *m = &s->magazines[klass];
    LIM_ASSERT(m->count == 0);
    if (!refill_from_depot(s, klass))
        return malloc(lim__class_bytes(klass));
    return m->blocks[--m->count];
}

static void free_chain(lim__block *b)
{
    while (b) {
        lim__block *next = b->next;
        free(b);
        b = next;
    }
}

/* The lowest `count` of a magazine, which have lain there longest, as a chain. */
static lim__block *take_lowest(lim__magazine *m, uint32_t count)
{
    lim__block *chain = NULL;
    for (uint32_t i = 0; i < count; i++) {
        lim__block *b = m->blocks[i];
        b->next = chain;
        chain = b;
    }
    m->count -= count;
    memmove(m->blocks, m->blocks + count, m->count * sizeof m->blocks[0]);
    return chain;
}

/* Hands half of the magazine to the depot. */
void lim__block_spill(lim__sched *s, uint32_t klass)
{
    lim__depot *d = &s->rt->depot;
    lim__block *batch = take_lowest(&s->magazines[klass], s->magazines[klass].count / 2);
    pthread_mutex_lock(&d->lock);
    bool wanted = atomic_load_explicit(&d->batch_count[klass], memory_order_relaxed) < BATCHES_MAX;
    if (wanted) {
        batch->batch_next = d->batches[klass];
        d->batches[klass] = batch;
        atomic_fetch_add_explicit(&d->batch_count[klass], 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&d->lock);
    if (!wanted)
        free_chain(batch);
}

lim_err lim__depot_init(lim__depot *d)
{
    pthread_mutex_init(&d->lock, NULL);
    return lim__depot_restock(d) ? LIM_OK : LIM_E_NOMEM; /* the caller calls fini */
}

bool lim__depot_restock(lim__depot *d)
{
    bool full = true;
    pthread_mutex_lock(&d->lock);
    while (full && atomic_load_explicit(&d->spare_count, memory_order_relaxed) < LIM__SPARE_LETTERS) {
        lim__block *b = lim__block_take(NULL, lim__class_of(sizeof(lim__letter)), 0);
        full = b != NULL;
        if (full) {
            b->next = d->spare;
            d->spare = b;
            atomic_fetch_add_explicit(&d->spare_count, 1, memory_order_relaxed);
        }
    }
    pthread_mutex_unlock(&d->lock);
    return full;
}

void lim__depot_fini(lim__depot *d)
{
    for (uint32_t klass = 0; klass < LIM__CLASS_COUNT; klass++)
        for (lim__block *b = d->batches[klass], *next; b; b = next) {
            next = b->batch_next;
            free_chain(b);
        }
    free_chain(d->spare);
    pthread_mutex_destroy(&d->lock);
}

void lim__pool_fini(lim__sched *s)
{
    for (uint32_t klass = 0; klass < LIM__CLASS_COUNT; klass++)
        free_chain(take_lowest(&s->magazines[klass], s->magazines[klass].count));
}

void *lim__alloc(lim__sched *s, size_t bytes)
{
    return lim__block_take(s, lim__class_of(bytes), bytes);
}

void lim__free(lim__sched *s, void *block, size_t bytes)
{
    if (block)
        lim__block_give(s, block, lim__class_of(bytes));
}
