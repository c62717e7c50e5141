/* SPDX-License-Identifier: Apache-2.0
 * outcome.h - making an outcome, or a request that was taken, somebody's own. (Words and lim_*_fini are public:
 * <liminal/liminal.h>.) */
#ifndef LIM__OUTCOME_H
#define LIM__OUTCOME_H

#include "base/buf.h"
#include <liminal/liminal.h>

/* Copies everything `view` points to into one block that belongs to *owned (whose former content is not looked at).
 * NOMEM: *owned is not written. */
lim_err lim__outcome_copy(const lim_outcome *view, lim_outcome *owned);

/* "rerouted_past": past whom it went, and when, of each; null: not known any more, or nobody has taken it since. */
void lim__outcome_past_json(lim__json *j, const lim_excluded *excluded, uint32_t count);

/* What lim_taken.owned points to begins with this: the bus keeps a letter there, the client a message of its own, and
 * one lim_taken_fini ends both. */
typedef struct lim__taken_owned {
    void (*free)(struct lim__taken_owned *owned);
} lim__taken_owned;

#endif
