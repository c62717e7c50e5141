/* SPDX-License-Identifier: Apache-2.0
 * newest.h - the newest number of each of many, of those that were heard of lately: what comes twice is known by it.
 *
 * Two maps, each of LIM__NEWEST_MAX keys at most: when one is full, the older one is forgotten and the other grows old.
 * So a key is remembered until that many others have been heard of since, and the memory is bounded. Single owner. */
#ifndef LIM__NEWEST_H
#define LIM__NEWEST_H

#include "base/map.h"

enum { LIM__NEWEST_MAX = 4096 };
typedef struct lim__newest {
    lim__map young, old; /* key -> the number, as a pointer */
} lim__newest;

void lim__newest_init(lim__newest *n, uint64_t seed);
void lim__newest_fini(lim__newest *n);
void lim__newest_clear(lim__newest *n);
bool lim__newest_has(const lim__newest *n, uint64_t key, uint64_t number); /* that, or a newer one; changes nothing */
/* Is `number` (not 0) newer than all of `key` before it? Then it is the newest from now on. Without memory for a key it
 * counts as newer. */
bool lim__newest_is(lim__newest *n, uint64_t key, uint64_t number);

#endif
