/* SPDX-License-Identifier: Apache-2.0
 * state_of.h - the state of a process of a simulated bus, for auditors that look between two turns. In a file of its own:
 * the runtime's inside and a slot's have names in common. */
#ifndef LIM__STATE_OF_H
#define LIM__STATE_OF_H

#include "liminal/actor.h"

void *lim__state_of(lim_runtime *rt, lim_pid pid); /* NULL: it is gone */

#endif
