/* SPDX-License-Identifier: Apache-2.0
 * participant.h - the process around a local handler. */
#ifndef LIM__PARTICIPANT_H
#define LIM__PARTICIPANT_H

#include "bus/bus.h"
#include "bus/letters.h"

/* Spawns it on the scheduler of `group`, which it is going to enter ({0}: none, anywhere). handler->on_message NULL:
 * requests wait for lim_take. */
lim_err lim__participant_spawn(lim_bus *bus, const lim_handler *handler, lim__member_kind kind, lim_pid group, lim_pid *out);

/* A `join` letter; lists may be NULL. NULL: no memory, or a name too long. */
lim__join *lim__join_new(lim__sched *s, lim_pid who, lim__member_kind kind, lim_bytes identity, uint32_t capacity,
                         const char *const *types, const char *const *tags);
/* It was registered in that group, too; any thread. */
void lim__participant_entered(lim_bus *bus, lim_pid who, lim_pid group);

/* ---- what it says (participant_say.c) ---- */
enum { LIM__NOTE_MAX = 200 };
/* Whether the delivery that its handler has at hand was answered; NULL: it has another one, or none. On its scheduler. */
bool *lim__participant_at_hand(lim_process *process, lim_conv conv, uint64_t lease);
/* In its name, from any thread. */
lim_err lim__participant_answer(lim_bus *bus, lim_participant who, lim_conv conv, uint64_t lease, lim__answer_how how,
                                lim_bytes payload, lim_bytes detail);
/* Passes on what another thread said in its name. False: it is another letter. */
bool lim__participant_relay(lim_process *self, const lim_signal *signal);
lim__answer *lim__answer_new(lim__sched *s, lim_pid from, uint64_t lease, lim__answer_how how, lim__msg *payload,
                             lim_bytes detail);

/* A step answered it: it is not in hand any more. Any thread. */
void lim__participant_let_go(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease);

#endif
