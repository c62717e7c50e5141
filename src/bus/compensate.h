/* SPDX-License-Identifier: Apache-2.0
 * compensate.h - a conversation that failed has somebody undo what it did. */
#ifndef LIM__COMPENSATE_H
#define LIM__COMPENSATE_H

#include "bus/bus.h"
#include "bus/letters.h"

/* Puts a task into the queue that the terms name, as a child of the calling conversation: `json` says what had happened
 * (docs/protocol.md, "Compensation"). The task lives on by itself, with its queue's attempts and dead letter; *task is its
 * id. INVALID: no queue is named, or it is too deep; NOMEM. */
lim_err lim__compensate(lim_bus *bus, lim_process *self, const lim__terms *terms, lim_bytes json, lim_pid *task);

#endif
