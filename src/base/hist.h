/* SPDX-License-Identifier: Apache-2.0
 * hist.h - a log-linear histogram of u64 values: under 8 KiB, no allocation, constant time to record, error at most
 * 1/32.
 *
 * Values below 32 have a bucket each; above, every power of two is cut into 16 equal buckets, and a percentile answers
 * the middle of its bucket, but never less or more than what was seen. One writer; zeroed memory is an empty
 * histogram. */
#ifndef LIM__HIST_H
#define LIM__HIST_H

#include <stdint.h>

enum {
    LIM__HIST_SUB_BITS = 4,
    LIM__HIST_BUCKETS = (64 - LIM__HIST_SUB_BITS + 1) << LIM__HIST_SUB_BITS,
};

typedef struct lim__hist {
    uint64_t count, sum, min, max; /* min is meaningless while count is 0; sum wraps */
    uint64_t buckets[LIM__HIST_BUCKETS];
} lim__hist;

void lim__hist_record(lim__hist *h, uint64_t value);
void lim__hist_record_n(lim__hist *h, uint64_t value, uint64_t n);
void lim__hist_merge(lim__hist *into, const lim__hist *from);
void lim__hist_reset(lim__hist *h);
/* The value that `percentile` (0..100) of the recorded values do not exceed; 0 when nothing was recorded. */
uint64_t lim__hist_percentile(const lim__hist *h, double percentile);
double lim__hist_mean(const lim__hist *h); /* 0 when nothing was recorded */

#endif
