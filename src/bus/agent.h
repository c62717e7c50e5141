/* SPDX-License-Identifier: Apache-2.0
 * agent.h - how a host thread (or a handler) waits for what processes say: one agent process per scheduler owns its
 * conversations and turns letters into calls.
 *
 * A `lim__wait` gets a number, is registered with an agent, and then something is asked in its name with that number as
 * `ref`. on_letter runs on the agent's scheduler with whatever carries it, or with NULL: the conversation died, the bus
 * is closing, or nobody wants to know any more; it answers true when the wait is over. A letter that comes later finds
 * no wait of that number and is dropped. */
#ifndef LIM__AGENT_H
#define LIM__AGENT_H

#include "base/list.h"
#include "bus/bus.h"
#include "bus/letters.h"

typedef enum lim__wait_end { LIM__WAIT_LETTER = 1, LIM__WAIT_DIED, LIM__WAIT_CLOSING, LIM__WAIT_FORGOTTEN } lim__wait_end;
typedef struct lim__wait {
    lim__list node;      /* in the agent's list for `conv` */
    uint64_t ref;        /* never 0, never reused: lim__wait_ref */
    lim_pid conv;        /* whose death ends the wait; {0}: nobody's */
    uint64_t monitor;    /* the agent's, on `conv`, unless it is linked */
    bool (*on_letter)(struct lim__wait *w, lim__wait_end end, const lim_signal *signal);
} lim__wait;

/* The agent on a scheduler: the calling thread's own, or that of `near` (a process), or the first. */
lim_pid lim__agent_for(lim_bus *bus, lim_pid near);
/* Hands the wait to the agent. link: it links the conversation, as its owner; else it watches it. NOMEM: not handed
 * over. LIM_OK: on_letter ends it, whatever happens, the end of the agent included. */
lim_err lim__agent_expect(lim_bus *bus, lim_pid agent, lim__wait *w, bool link);
/* Not linked; and once the wait is in the books, the agent sends `letter` to w->conv, which answers the agent. Takes the
 * letter in every outcome. */
lim_err lim__agent_ask(lim_bus *bus, lim_pid agent, lim__wait *w, void *letter);

/* Ends a wait before its letter came: on_letter(FORGOTTEN), unless it is over already. */
void lim__agent_forget(lim_bus *bus, lim_pid agent, uint64_t ref);
uint64_t lim__wait_ref(lim_bus *bus);

/* A letter to an agent that begins with this: it calls run, where the host's code may be called. Not if it ended before. */
typedef struct lim__errand {
    void (*run)(struct lim__errand *errand);
} lim__errand;
extern const lim__letter_type lim__type_errand;

/* ---- blocking: a wait on the caller's stack ---- */
typedef struct lim__blocker {
    lim__wait wait;
    lim_bus *bus;
    lim__mutex mutex;
    lim__cond cond;
    bool over;
    lim_err err;
    lim__wait_end end;
    const lim__letter_type *type;
    size_t len;
    void *body;        /* malloc'd copy of the letter's body; references moved into it; NULL: none came */
} lim__blocker;
void lim__blocker_init(lim__blocker *b, lim_bus *bus, lim_pid conv);
/* Waits; at the deadline (monotonic ns; UINT64_MAX: none) it has `agent` forget the wait, and answers false. */
bool lim__blocker_wait(lim__blocker *b, lim_pid agent, uint64_t deadline_ns);
void lim__blocker_fini(lim__blocker *b); /* releases the body through its type */
/* B calls are refused on the bus's own threads. */
bool lim__may_block(void);

#endif
