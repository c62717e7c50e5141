/* SPDX-License-Identifier: Apache-2.0
 * channel_local.h - what the two kinds of local subscription have in common: live ones (channel_api.c), and those that read a
 * log (reader_local.c). One space of ids: whoever has a lim_sub need not know which it is. */
#ifndef LIM__CHANNEL_LOCAL_H
#define LIM__CHANNEL_LOCAL_H

#include "bus/channel_inside.h"

typedef enum lim__local_kind { LIM__LOCAL_LIVE = 1, LIM__LOCAL_READS } lim__local_kind;
typedef struct lim__local { /* first in both */
    lim__local_kind kind;
    uint64_t id;
    _Atomic uint32_t refs; /* the process's, and whoever looked it up */
} lim__local;

/* Reserves an id that leads to it; 0: no memory. */
uint64_t lim__local_enter(lim__channels *all, lim__local *l);
bool lim__local_forget(lim__channels *all, lim__local *l); /* true for the one caller who takes the id back */
lim__local *lim__local_of(lim__channels *all, lim_sub sub); /* with a reference; NULL: gone */

void lim__local_unref(lim__local *l);

/* ---- reader_local.c ---- each as the public call of channel_api.c, for one that reads; they take the reference */
lim_err lim__reads_subscribe(lim_bus *bus, const char *channel, const lim_sub_opts *opts, lim_sub *out);
lim_err lim__reads_unsubscribe(lim__local *l);
lim_err lim__reads_complete(lim__local *l, uint64_t seq);
lim_err lim__reads_inspect(lim__local *l, lim_sub_info *out);
void lim__reads_unref(lim__local *l);

#endif
