/* SPDX-License-Identifier: Apache-2.0
 * options.h - what an ask, a dispatch or an opened conversation may want beside the usual, as a packed block of headers.
 *
 * The same block is in the frames ASK, DISPATCH, OPEN and JOIN, and is what the bus reads (bus/terms.h), whoever calls:
 * one list of names, one place that checks. Absent means default, so the usual case has no block at all. Numbers are
 * decimal, ids hexadecimal.
 *
 *   all         parent (id), hops, traceparent, trace (1)
 *   ask         compensate (queue), window (takes parts), quorum (asks everybody; 0: all must reply)
 *   dispatch    priority 0..9, key, weight, order_key, unique_key, on_duplicate (reject replace join), idempotency_key,
 *               delay_ms, start_to_close_ms, progress_ms, report_to (id)
 *   open        compensate, name, attr (key=value; several), inbox_max, attach (id)
 *   join        required (1)
 *   publish     key, idempotency_key, expires_ms, delay_ms, expect_last
 *   subscribe   from (all, seq:N, time:MICROSECONDS), cursor, shared (1), standby (1), ack_ms, deliveries_max, dead_letter,
 *               last_per_key (1), pull (1)
 *   ask, dispatch, open also: durable (1) */
#ifndef LIM__OPTIONS_H
#define LIM__OPTIONS_H

#include <liminal/liminal.h>
#include "base/buf.h"

/* now_wall_us: by which instants become delays.
 * Append what differs from the default to `block` (packed headers; stays empty if nothing does). INVALID, TOOBIG, NOMEM:
 * diag says which option and why. `stream`, `all`: it is lim_ask_stream, lim_ask_all. */
lim_err lim__options_ask(lim__buf *block, const lim_ask_opts *o, bool stream, bool all, lim_diag *diag);
lim_err lim__options_dispatch(lim__buf *block, const lim_dispatch_opts *o, uint64_t now_wall_us, lim_diag *diag);
lim_err lim__options_open(lim__buf *block, const lim_conv_opts *o, lim_diag *diag);
lim_err lim__options_publish(lim__buf *block, const lim_publish_opts *o, uint64_t now_wall_us, lim_diag *diag);
lim_err lim__options_join(lim__buf *block, bool required);
lim_err lim__options_subscribe(lim__buf *block, const lim_read_opts *o, bool pull, lim_diag *diag);
/* The group or queue NAME of a namespace is the group aion.dispatch.NAMESPACE.NAME; without one (NULL, "") it is NAME itself.
 * The answer is `name`, or in `room`; NULL: a part is empty or has a dot, or it is over 255 bytes. */
const char *lim__in_namespace(const char *ns, const char *name, char room[256]);
/* When something is wanted after delay_ms or, as an instant, at at_wall_us: the delay from now on. INVALID: both. */
lim_err lim__options_delay(int64_t delay_ms, uint64_t at_wall_us, uint64_t now_wall_us, int64_t *out, lim_diag *diag);
/* timeout_ms, but never more than the cause has left. */
int64_t lim__options_timeout(int64_t timeout_ms, const lim_cause *cause);

#endif
