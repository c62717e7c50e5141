/* SPDX-License-Identifier: Apache-2.0
 * history.h - what happened in a conversation, for people and for replays: kept only where `trace` is on.
 *
 * One entry per event, numbered from 1. The newest LIM__HISTORY_MAX are kept while the conversation lives, and for a while
 * after it ended. Every entry is also published as one JSON object on the channel $sys.history.<id>, so that whoever
 * subscribes first and then reads what there was, and drops numbers it has, sees each entry once: no gap, no duplicate.
 * One owner: the conversation's process; shown by the agent of its scheduler. */
#ifndef LIM__HISTORY_H
#define LIM__HISTORY_H

#include "bus/bus.h"
#include "bus/letters.h"

enum { LIM__HISTORY_MAX = 512, LIM__HISTORY_DETAIL_MAX = 255 /* longer texts are cut there */ };

/* `code`: what a step function needs to be replayed (exchanges: lim__ex_event and facts; talks: lim__phase_event), or 0. */
typedef struct lim__history_note {
    const char *kind;  /* static: opened, assigned, joined, left, sent, asked, said, part, answered, crashed, phase ... */
    lim_bytes who, detail;
    uint64_t bytes;
    uint32_t code;
} lim__history_note;

typedef struct lim__history lim__history;
/* NULL: no memory, and nothing is kept. */
lim__history *lim__history_new(lim_bus *bus, lim_process *self);
lim__history *lim__history_new_as(lim_bus *bus, lim_process *self, lim_pid conv); /* made again: the id it is known by */
/* An entry from before that, the oldest first; nobody is told. */
void lim__history_put_back(lim__history *h, lim_bytes kind, uint64_t at_us, const lim__history_note *note);
void lim__history_add(lim__history *h, lim_process *self, const lim__history_note *note); /* h NULL: nothing */
/* When the conversation ends: into what is remembered (bounded per scheduler); takes h. NULL is a no-op. On the
 * conversation's scheduler, also in its on_end. */
void lim__history_end(lim__history *h);
/* "entries": n, "history": [ {n, at_us, kind, who, detail, bytes, code} ... ] of those after `after`, into an open object. */
void lim__history_json(const lim__history *h, uint64_t after, lim__json *j);
/* The same of one that lives on the calling scheduler, found by its id; false: it has none. */
bool lim__history_living_json(lim_bus *bus, lim_pid conv, uint64_t after, lim__json *j);
/* The same of one that has ended; false: not remembered. Any thread. */
bool lim__history_ended_json(lim_bus *bus, lim_pid conv, uint64_t after, lim__json *j);
/* Answers a `show` of LIM__SHOW_HISTORY: {"id", "entries", "history", "living"}, or nothing at all: not known. As the agent
 * of the conversation's scheduler, or as anybody if it has ended. */
void lim__history_show(lim_bus *bus, lim_process *self, const lim__show *show);

/* All of a bus's: those that live, by scheduler, and those that have ended. */
lim__histories *lim__histories_new(uint64_t seed); /* NULL: no memory */
void lim__histories_free(lim__histories *all);     /* after the runtime has ended; NULL is a no-op */

#endif
