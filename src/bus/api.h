/* SPDX-License-Identifier: Apache-2.0
 * api.h - what api.c, api_ask.c and api_conv.c share: from a public call to a letter, and from a letter to what the
 * caller is told. */
#ifndef LIM__API_H
#define LIM__API_H

#include "bus/agent.h"
#include "bus/bus.h"
#include "bus/letters.h"

static inline lim_pid pid_of(uint64_t id)
{
    return (lim_pid){ id };
}

bool lim__api_closing(lim_bus *bus);
uint64_t lim__api_deadline(lim_bus *bus, int64_t timeout_ms); /* monotonic ns; UINT64_MAX: none */
bool lim__api_timeout_ok(int64_t timeout_ms);
/* A first letter that owns a copy of the payload. */
lim_err lim__api_letter(lim__conv_kind kind, const char *group, const char *type, lim_bytes payload, lim__open **out);
/* Makes the conversation, registers the wait with its owner, gives it its first letter (taken in every outcome). After
 * LIM_OK the wait may be over, and gone, at any moment. */
lim_err lim__api_begin(lim_bus *bus, lim_pid agent, lim__open *open, lim__wait *w, lim_pid *conv_out);
/* Has the agent send a letter to a conversation, and waits for what comes back under its ref, its first field. After
 * LIM_OK the blocker is the caller's to end. Takes the letter in every outcome. */
lim_err lim__api_call(lim_bus *bus, lim__blocker *b, lim_conv conv, void *letter, uint64_t deadline_ns);
/* The same with a lim__command of that type. */
lim_err lim__api_command(lim_bus *bus, lim__blocker *b, const lim__letter_type *type, lim_conv conv, uint64_t deadline_ns);
/* How a wait that got no outcome letter ended. */
lim_outcome lim__api_no_letter(lim__wait_end end, lim_pid conv);
/* The outcome of a blocker whose wait is over, as the caller's own. */
lim_err lim__api_outcome(lim__blocker *b, lim_outcome *out);

#endif
