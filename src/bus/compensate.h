/* SPDX-License-Identifier: Apache-2.0
 * compensate.h - a conversation that failed has somebody undo what it did. */
#ifndef LIM__COMPENSATE_H
#define LIM__COMPENSATE_H

#include "bus/bus.h"
#include "bus/letters.h"

/* Puts a task into the queue that the terms name, as a child of the calling conversation: `json` says what had happened
 * (docs/protocol.md, "Compensation"). The task lives on by itself, with its queue's attempts and dead letter; *task is its
 * id. INVALID: no queue is named, or it is too deep; NOMEM. `durable`: 0, or the id of a durable conversation: then so is the
 * task, and it is the same one when this is done again. */
lim_err lim__compensate(lim_bus *bus, lim_process *self, const lim__terms *terms, uint64_t durable, lim_bytes json,
                        lim_pid *task);

#endif
