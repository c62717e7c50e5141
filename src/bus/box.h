/* SPDX-License-Identifier: Apache-2.0
 * box.h - requests that wait to be taken by a host thread. */
#ifndef LIM__BOX_H
#define LIM__BOX_H

#include "bus/letters.h"

typedef struct lim__box lim__box;     /* counted */
typedef struct lim__boxes lim__boxes; /* pid -> box of a living participant; any thread */

lim__boxes *lim__boxes_new(uint64_t seed);
void lim__boxes_free(lim__boxes *all);

lim__box *lim__box_new(void); /* one reference, the process's */
void lim__box_unref(lim__box *b);
lim_err lim__box_enter(lim__boxes *all, lim__box *b, lim_pid pid); /* it can be found from here on */
lim__box *lim__box_find(lim__boxes *all, lim_pid pid);             /* a reference; NULL: none */
void lim__box_close(lim__boxes *all, lim__box *b);                 /* the process ends: wakes all, gives up its reference */
bool lim__box_push(lim__box *b, lim__request *r);                  /* true: it took the letter; else it is full */
/* One that was not taken yet; `lease` 0: any of that conversation. NULL: there is none. The caller's to free. */
lim__request *lim__box_withdraw(lim__box *b, lim_pid conv, uint64_t lease);
/* Readable while it is not empty, or closed; it lives as long as the box. Negative errno. */
int lim__box_fd(lim__box *b, lim__os *os);
/* TIMEOUT at the deadline (monotonic ns), GONE once closed. */
lim_err lim__box_pop(lim__box *b, uint64_t deadline_ns, lim__request **out);

#endif
