/* SPDX-License-Identifier: Apache-2.0
 * near.h - the name that was probably meant when an unknown one was given. Takes no memory. */
#ifndef LIM__NEAR_H
#define LIM__NEAR_H

#include <liminal/types.h>

enum { LIM__NEAR_MAX = 63 }; /* bytes of a name; nothing is near to a longer one */

/* Letters to insert, delete, change or swap with their neighbour, at the least; SIZE_MAX: a name is too long. */
size_t lim__name_distance(lim_bytes a, lim_bytes b);

typedef struct lim__near { /* .word is set, the rest zero */
    lim_bytes word, best;  /* best: of those offered; empty while nothing is near. A VIEW of what was offered */
    size_t distance;
} lim__near;
/* The beginning of a name is near to it, however much is missing; else at most half of the shorter one may differ. */
void lim__near_offer(lim__near *n, lim_bytes name);

#endif
