/* SPDX-License-Identifier: Apache-2.0
 * held.h - deliveries that are told things while they are in hand: how many parts of an answer may be sent, and that
 * nobody waits for the answer any more. Only those of streams, and of handlers that want to be told, are here. */
#ifndef LIM__HELD_H
#define LIM__HELD_H

#include <liminal/liminal.h>
#include "base/list.h"

typedef struct lim__held lim__held; /* all of a bus's; any thread */

lim__held *lim__held_new(uint64_t seed); /* NULL: no memory */
void lim__held_free(lim__held *all);     /* NULL is a no-op */

typedef struct lim__delivery_id { lim_participant self; lim_conv conv; uint64_t lease; } lim__delivery_id;

/* From the request until its answer, or the participant's end. `mine`: the participant's list, an initialised lim__list;
 * touched by any thread under the lock in here. stream: it may send `credit` parts. */
lim_err lim__held_add(lim__held *all, lim__list *mine, lim__delivery_id id, bool stream, uint32_t credit);
/* One part: OK, and the credit is used. FULL: none left; GONE: revoked; NOTFOUND: not here; MISUSE: no stream. */
lim_err lim__held_spend(lim__held *all, lim__delivery_id id);
bool lim__held_grant(lim__held *all, lim__delivery_id id, uint32_t credit); /* false: not here, or revoked */
bool lim__held_revoke(lim__held *all, lim__delivery_id id);                 /* true: it was here, and was not revoked before */
bool lim__held_is_stream(lim__held *all, lim__delivery_id id);
void lim__held_remove(lim__held *all, lim__delivery_id id);
/* The lease of one of mine in that conversation that was not revoked before: it is now. 0: there is none. */
uint64_t lim__held_revoke_in(lim__held *all, lim__list *mine, lim_conv conv);
void lim__held_remove_all(lim__held *all, lim__list *mine);

#endif
