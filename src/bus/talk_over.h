/* SPDX-License-Identifier: Apache-2.0
 * talk_over.h - durable talks that have ended: their rows and histories stay for a while, then they go (talk_over.c). */
#ifndef LIM__TALK_OVER_H
#define LIM__TALK_OVER_H

#include "bus/bus.h"

enum { LIM__OVER_MS = 600000 /* how long what ended can be looked at */ };

typedef struct lim__over lim__over;
lim__over *lim__over_new(void);      /* NULL: no memory */
void lim__over_free(lim__over *all); /* NULL is a no-op */
lim_err lim__over_start(lim_bus *bus); /* once what has ended before is known: from now on what is too old goes */
/* One has ended, and that is stored: its rows go when its time is over, and up to a minute later. Any thread. */
void lim__over_ended(lim_bus *bus, uint64_t id, uint64_t stream, uint64_t ended_wall_ns);

#endif
