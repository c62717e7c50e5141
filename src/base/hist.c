/* SPDX-License-Identifier: Apache-2.0
 * hist.c - bucket arithmetic of the log-linear histogram.
 *
 * With 16 parts per power of two (SUB = 4 bits) a value v whose highest bit is b > 4 falls into part (v >> (b-4)) & 15
 * of power b. Values below 16 are their own bucket, and so are 16..31 because their parts are one wide. Error: a
 * bucket [lo, lo+w) has w <= lo/16; answering its upper edge is at most 1/16 too high; the middle halves that, so
 * percentiles answer the middle, within 1/32 = 3.1 %. */
#include "base/hist.h"
#include "base/base.h"

enum { SUB = LIM__HIST_SUB_BITS, PARTS = 1 << SUB };

static unsigned bucket_of(uint64_t value)
{
    if (value < PARTS)
        return (unsigned)value;
    unsigned high = 63u - (unsigned)__builtin_clzll(value);
    unsigned shift = high - SUB;
    return ((shift + 1) << SUB) + (unsigned)((value >> shift) & (PARTS - 1));
}

static uint64_t middle_of(unsigned bucket)
{
    if (bucket < PARTS)
        return bucket;
    unsigned shift = (bucket >> SUB) - 1;
    uint64_t low = ((uint64_t)PARTS + (bucket & (PARTS - 1))) << shift;
    return low + (((uint64_t)1 << shift) >> 1);
}

void lim__hist_record_n(lim__hist *h, uint64_t value, uint64_t n)
{
    if (n == 0)
        return;
    unsigned b = bucket_of(value);
    LIM_ASSERT(b < LIM__HIST_BUCKETS);
    h->buckets[b] += n;
    h->min = h->count == 0 || value < h->min ? value : h->min;
    h->max = value > h->max ? value : h->max;
    h->count += n;
    h->sum += value * n;
}

void lim__hist_record(lim__hist *h, uint64_t value)
{
    lim__hist_record_n(h, value, 1);
}

void lim__hist_merge(lim__hist *into, const lim__hist *from)
{
    if (from->count == 0)
        return;
    into->min = into->count == 0 || from->min < into->min ? from->min : into->min;
    into->max = from->max > into->max ? from->max : into->max;
    into->count += from->count;
    into->sum += from->sum;
    for (unsigned i = 0; i < LIM__HIST_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

void lim__hist_reset(lim__hist *h)
{
    memset(h, 0, sizeof *h);
}

uint64_t lim__hist_percentile(const lim__hist *h, double percentile)
{
    if (h->count == 0)
        return 0;
    double exact = percentile / 100.0 * (double)h->count;
    uint64_t rank = exact <= 1.0 ? 1 : (uint64_t)exact + ((double)(uint64_t)exact < exact);
    if (rank >= h->count)
        return h->max;
    uint64_t seen = 0;
    for (unsigned i = 0; i < LIM__HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank) {
            uint64_t value = middle_of(i);
            return value > h->max ? h->max : value < h->min ? h->min : value;
        }
    }
    return h->max;
}

double lim__hist_mean(const lim__hist *h)
{
    return h->count ? (double)h->sum / (double)h->count : 0.0;
}
