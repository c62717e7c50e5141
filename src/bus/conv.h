/* SPDX-License-Identifier: Apache-2.0
 * conv.h - what exchanges (exchange.c) and talks (talk.c) have in common: being listed, shown and spawned. */
#ifndef LIM__CONV_H
#define LIM__CONV_H

#include "bus/bus.h"
#include "bus/letters.h"

typedef struct lim__conv_facts { /* what one is found by; VIEWS */
    const lim__open *open; /* NULL: not told yet what it is for */
    lim_phase phase;
} lim__conv_facts;
typedef struct lim__conv_kindred { /* what exchanges and talks each have their own of */
    void (*json)(const void *state, lim__json *j, const char *key);
    lim__conv_facts (*facts)(const void *state);
} lim__conv_kindred;
extern const lim__conv_kindred lim__as_exchange, lim__as_talk, lim__as_gather;
typedef struct lim__conv_node { /* the second thing in the state of each, behind its bus */
    lim__list node; /* in bus->convs of its scheduler */
} lim__conv_node;
enum { LIM__CONV_NODE_AT = sizeof(void *) };
static inline const void *lim__conv_state(const lim__conv_node *node)
{
    return (const char *)node - LIM__CONV_NODE_AT;
}
/* What it is, by the mark of its process. */
const lim__conv_kindred *lim__conv_as(lim_bus *bus, const lim__conv_node *node);

void lim__conv_enter(lim_bus *bus, lim_process *self, lim__conv_node *node);
/* Does it have all of these: pairs of (u8 length, key) (u8 length, value)? Keys: kind, phase, group, type, name, else an
 * attribute. Empty: yes. */
bool lim__conv_matches(lim_bus *bus, const lim__conv_node *node, lim_bytes where);
/* In on_end, whether it had entered or not. */
void lim__conv_leave(lim_bus *bus, lim__conv_node *node);
/* A durable one is not waited for when the bus is drained: it goes on when that is opened again. On its scheduler. */
void lim__conv_apart(lim_bus *bus, bool apart);
/* One from before a restart, on the scheduler of its first life if there is one. Its first letter is still to be posted. */
lim_err lim__conv_spawn_again(lim_bus *bus, lim__conv_kind kind, uint64_t id, lim_pid *out);
/* A 64-bit id as people see it: hexadecimal text. */
void lim__json_id(lim__json *j, const char *key, uint64_t id);
/* Sends `json` as the answer to a show letter; takes the buffer's contents. */
void lim__shown_send(lim_process *self, const lim__show *show, lim__buf *json);
/* For one that has nothing to send, join or receive: tells whoever tried. Other letters are passed by. */
void lim__conv_not_a_talk(lim_process *self, const lim_signal *signal);

/* Those who wait for an outcome that they did not ask for themselves; a list, NULL: nobody. */
typedef struct lim__waiter {
    struct lim__waiter *next;
    lim_pid who;
    uint64_t ref;
} lim__waiter;
void lim__waiter_add(lim__waiter **list, lim_process *self, const lim__command *await); /* no memory: not added */
void lim__waiter_remove(lim__waiter **list, lim_process *self, const lim__command *unawait);
void lim__waiters_free(lim__waiter *list, lim__sched *s);

/* open: what its first letter will be, if that is known: then there is room for it in the process itself. */
lim_spawn_opts lim__exchange_spawn(lim_bus *const *bus, bool link, const lim__open *open);
lim_spawn_opts lim__gather_spawn(lim_bus *const *bus, bool link);
lim_spawn_opts lim__talk_spawn(lim_bus *const *bus, bool link);

/* ---- the phases of a conversation, as a pure step ----
 *
 *   (new) -open-> CREATED --send, receive, ask--> ACTIVE --close--> COMPLETING --all told--> ENDED
 *                    |                              |                   |
 *                    `--- deadline, nobody left ----+-------------------+--> BROKEN
 *
 * ENDED and BROKEN are final. */
typedef enum lim__phase_event {
    LIM__PHASE_USE = 1, LIM__PHASE_CLOSE, LIM__PHASE_TOLD, LIM__PHASE_DEADLINE, LIM__PHASE_NOBODY_LEFT
} lim__phase_event;
/* False: not allowed in this phase; nothing changes. */
bool lim__phase_step(lim_phase *phase, lim__phase_event event);

#endif
