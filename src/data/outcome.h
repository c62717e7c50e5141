/* SPDX-License-Identifier: Apache-2.0
 * outcome.h - making an outcome somebody's own. (Its words and lim_outcome_fini are public: <liminal/liminal.h>.) */
#ifndef LIM__OUTCOME_H
#define LIM__OUTCOME_H

#include <liminal/liminal.h>

/* Copies everything `view` points to into one block that belongs to *owned (whose former content is not looked at).
 * NOMEM: *owned is not written. */
lim_err lim__outcome_copy(const lim_outcome *view, lim_outcome *owned);

#endif
