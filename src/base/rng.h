/* SPDX-License-Identifier: Apache-2.0
 * rng.h - a small seeded generator (xoshiro256**, state spread from the seed by splitmix64), for the simulator, tests,
 * routing functions and jitter. Same seed, same numbers, on every machine. Not for secrets: os->random is. */
#ifndef LIM__RNG_H
#define LIM__RNG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lim__rng {
    uint64_t s[4];
} lim__rng;

/* One step of splitmix64: advances *state, returns 64 mixed bits. */
static inline uint64_t lim__splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static inline lim__rng lim__rng_seeded(uint64_t seed)
{
    lim__rng r;
    for (int i = 0; i < 4; i++)
        r.s[i] = lim__splitmix64(&seed);
    return r;
}
static inline uint64_t lim__rng_next(lim__rng *r)
{
    uint64_t x = r->s[1] * 5, result = ((x << 7) | (x >> 57)) * 9, t = r->s[1] << 17;
    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = (r->s[3] << 45) | (r->s[3] >> 19);
    return result;
}
/* Uniform in 0..n-1 without bias; n > 0. */
static inline uint64_t lim__rng_below(lim__rng *r, uint64_t n)
{
    uint64_t skip = (0 - n) % n; /* 2^64 mod n: the numbers that would make the first ones likelier */
    uint64_t x;
    do
        x = lim__rng_next(r);
    while (x < skip);
    return x % n;
}
/* Uniform in low..high, both included. */
static inline uint64_t lim__rng_range(lim__rng *r, uint64_t low, uint64_t high)
{
    uint64_t span = high - low + 1;
    return low + (span ? lim__rng_below(r, span) : lim__rng_next(r));
}
/* True `permille` times out of a thousand. */
static inline bool lim__rng_chance(lim__rng *r, uint32_t permille)
{
    return lim__rng_below(r, 1000) < permille;
}

#endif
