/* SPDX-License-Identifier: Apache-2.0
 * terms.h - what a conversation was opened with beside the usual: a counted, immutable reading of the packed options of
 * data/options.h. Shared by the conversation, its place in a queue, and what is remembered of it. NULL: nothing special. */
#ifndef LIM__TERMS_H
#define LIM__TERMS_H

#include <liminal/liminal.h>
#include "base/base.h"

enum { LIM__ATTRIBUTES_MAX = 32, LIM__TERMS_KEY_MAX = 255 };

typedef struct lim__terms {
    _Atomic uint32_t refs;
    uint16_t hops;
    uint8_t priority;      /* 0..9 */
    bool trace, gather, required, durable;
    lim_unique on_duplicate;
    uint32_t weight, window, quorum, inbox_max;
    uint64_t delay_ns, start_to_close_ns, progress_ns; /* 0: none said */
    lim_conv parent, report_to, attach;
    lim_bytes traceparent, compensate, key, order_key, unique_key, idempotency_key, name; /* ptr NULL: none. VIEWS of `block` */
    lim_bytes block;       /* the packed options, copied: `attr` is read from there */
    char bytes[];
} lim__terms;

/* An empty block is NULL, LIM_OK. INVALID: an option that is unknown, malformed or out of its range; diag says which, why
 * and what to write. One reference. Any thread. */
lim_err lim__terms_parse(lim_bytes block, lim_diag *diag, lim__terms **out);
lim__terms *lim__terms_ref(lim__terms *t); /* NULL stays NULL */
void lim__terms_unref(lim__terms *t);      /* NULL is a no-op */
/* The terms, or those of whoever said nothing. Never NULL. */
const lim__terms *lim__terms_or_default(const lim__terms *t);
/* The value of the attribute `key`; false: not there. */
bool lim__terms_attribute(const lim__terms *t, lim_bytes key, lim_bytes *value);

#endif
