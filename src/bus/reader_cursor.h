/* SPDX-License-Identifier: Apache-2.0
 * reader_cursor.h - what a reader knows of the messages of its log: which are done, which are in whose hands, which are to
 * be delivered again. Pure: no store, no letters, no clock of its own.
 *
 *      1 ......... floor      pending, in order of their numbers       next ......
 *      |--- all done ---|-- done but for those that are pending --|--- not looked at yet ---
 *
 *   (log) --lim__cursor_add--> FLIGHT --done--> gone
 *                                | ^
 *            nack, time is over, | | deliver
 *            its member has left v |
 *                    LATER ----> READY            STEP, DYING: in flight, but a commit decides (a step; a dead letter)
 *
 * Messages that were delivered in a row, and that nobody has said anything about one by one, are one thing: a lim__pend with
 * a count (a `row`), FLIGHT or READY, never with a message. Whoever wants one of them takes it out (lim__cursor_take).
 *
 * Invariants (lim__cursor_check):
 *   R1  every number below `next` is done or pending, never both; pending ones stand in `order` by number.
 *   R2  FLIGHT have a member, STEP unless it has left, the others have none; a member's list holds exactly those of it.
 *   R3  READY stand in the heap `ready` by number; LATER, and FLIGHT that has a time, in `due` by time; no other in any.
 *   R4  kept_bytes is the sum of the costs of the messages that pending ones refer to.
 *   R5  `count` is the number of pending messages, those in rows included; rows do not overlap, and are not in the map. */
#ifndef LIM__READER_CURSOR_H
#define LIM__READER_CURSOR_H

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "data/data.h"

typedef enum lim__pend_state {
    LIM__PEND_FLIGHT = 1, LIM__PEND_LATER, LIM__PEND_READY, LIM__PEND_STEP, LIM__PEND_DYING
} lim__pend_state;
typedef enum lim__dead_why { LIM__DEAD_NACK = 1, LIM__DEAD_TIMEOUT, LIM__DEAD_LOST } lim__dead_why; /* of its last delivery */

struct lim__read_member;
typedef struct lim__pend { /* a message, or a row of them, that was read and is not done */
    uint64_t seq, expires_wall_ns; /* seq: of a row, the first number */
    uint32_t count;             /* of messages: 1, or of a row what is left of it */
    bool row;
    lim__pend_state state;
    lim__dead_why why;
    uint32_t deliveries;        /* so far */
    uint32_t at;                /* index + 1 in its heap; 0: in none */
    uint64_t due_ns;            /* in `due` */
    lim__msg *msg;              /* a reference; NULL: let go, it is read again when it is wanted */
    struct lim__read_member *member;
    lim__list in_order, in_member;
} lim__pend;

typedef struct lim__pends { /* a heap */
    lim__pend **at;
    uint32_t count, cap;
} lim__pends;

typedef struct lim__cursor {
    uint64_t next;
    lim__map pending; /* seq -> lim__pend; those that are no rows */
    lim__list order;
    uint32_t count, nodes, rows; /* messages; lim__pends; those of them that are rows */
    lim__pends due, ready;
    uint64_t kept_bytes, kept_max;
} lim__cursor;

enum { LIM__PENDING_MAX = 16384 }; /* messages of one reader that are not done: so its row stays small */

void lim__cursor_init(lim__cursor *c, uint64_t seed, uint64_t kept_max);
void lim__cursor_fini(lim__cursor *c);
uint64_t lim__cursor_floor(const lim__cursor *c); /* everything up to here is done */
lim__pend *lim__cursor_find(const lim__cursor *c, uint64_t seq); /* maybe a row; NULL: done, or not looked at */
/* The same, alone: out of its row if it is in one. NULL also: no memory, nothing changed. */
lim__pend *lim__cursor_take(lim__cursor *c, uint64_t seq);
lim__pend *lim__cursor_take_of(lim__cursor *c, lim__pend *p, uint64_t seq); /* p: it, or its row */
/* The first that is pending with this number or a later one; NULL: none. */
lim__pend *lim__cursor_from(const lim__cursor *c, uint64_t seq);
/* The message with a number >= next goes to a member; what lies between was forgotten. Takes the reference. due_ns: when it is
 * taken for not acknowledged; UINT64_MAX: never. NULL: no memory, nothing changed, the reference is the caller's. */
lim__pend *lim__cursor_add(lim__cursor *c, uint64_t seq, uint64_t expires_wall_ns, lim__msg *msg,
                           struct lim__read_member *member, lim__list *members_list, uint64_t due_ns);
/* Likewise `count` messages, seq and those behind it, without any message that would be kept. False: no memory. */
bool lim__cursor_add_row(lim__cursor *c, uint64_t seq, uint32_t count, struct lim__read_member *member,
                         lim__list *members_list, uint64_t due_ns);
void lim__cursor_pass(lim__cursor *c, uint64_t next); /* all below it is done or pending */
void lim__cursor_done(lim__cursor *c, lim__pend *p);  /* frees it; all of a row */
/* What it has up to this number is done; answers how many messages that were. */
uint32_t lim__cursor_done_upto(lim__cursor *c, lim__pend *p, uint64_t seq);
void lim__cursor_drop(lim__cursor *c);                /* all pending, undone */

/* Arrows. The room they need was made by lim__cursor_add. */
void lim__cursor_again(lim__cursor *c, lim__pend *p); /* -> READY */
void lim__cursor_later(lim__cursor *c, lim__pend *p, uint64_t due_ns);
void lim__cursor_hold(lim__cursor *c, lim__pend *p, lim__pend_state state); /* -> STEP (stays its member's), DYING */
void lim__cursor_orphan(lim__pend *p); /* a STEP whose member leaves */
void lim__cursor_resume(lim__cursor *c, lim__pend *p, uint64_t due_ns); /* a STEP that has a member -> FLIGHT */
void lim__cursor_deliver(lim__cursor *c, lim__pend *p, struct lim__read_member *member, lim__list *members_list,
                         uint64_t due_ns);
lim__pend *lim__cursor_first_due(const lim__cursor *c);   /* NULL: none */
lim__pend *lim__cursor_first_ready(const lim__cursor *c);
void lim__cursor_give(lim__cursor *c, lim__pend *p, lim__msg *msg); /* a READY one that had been let go; takes the reference */

/* Its part of the row: next, then each that is pending with its deliveries. without(p): those that are done by this commit. */
void lim__cursor_pack(const lim__cursor *c, lim__buf *out, bool (*without)(const lim__pend *p));
/* Into an empty cursor: all pending are READY and absent. INVALID: not such a row; NOMEM. */
lim_err lim__cursor_unpack(lim__cursor *c, lim_bytes packed);
void lim__cursor_check(const lim__cursor *c);

#endif
