/* SPDX-License-Identifier: Apache-2.0
 * talk.h - the inside of a talk, for the files talk*.c.
 *
 *   talk.c         its life: open, phases, deadline, close, failure, end
 *   talk_party.c   who takes part: join, leave, death, the group, notifiers
 *   talk_say.c     messages and events: to participants, to the opener, the inbox
 *   talk_call.c    what waits: asks and receives, and how each ends
 *   talk_show.c    what others may see of it */
#ifndef LIM__TALK_H
#define LIM__TALK_H

#include "bus/conv.h"
#include "bus/history.h"

enum {
    LIM__PARTIES_MAX = 256, /* living at once */
    LIM__PAST_MAX = 256,    /* remembered of those that are gone, for notifiers and names */
    LIM__EVENTS_MAX = 1024  /* not yet received; nobody may join beyond */
};
enum { LIM__TALK_TAG_CALL = 1, LIM__TALK_TAG_WHOLE };

typedef struct party { /* takes part: linked */
    lim_pid pid;
    lim__assigned *assigned; /* came through the group; NULL: joined */
    bool required;
} party;

typedef struct past { /* took part */
    lim_pid pid;
    lim__assigned *assigned;
    lim_reason reason;
    bool crashed; /* else left */
    uint64_t at_ns, wall_us;
} past;

typedef struct call {
    lim__list node;
    uint64_t ref, lease; /* lease 0: a receive */
    uint64_t timer, started_ns, deadline_ns;
    lim_pid to, from;    /* to: {0}: whoever comes next; from: who asked */
    lim__msg *payload;   /* asks: kept to be sent to another one */
    uint32_t losses;     /* participants that died with it in hand */
} call;

typedef struct note { /* in the inbox */
    lim__list node;
    lim_pid from;
    lim__msg *payload; /* NULL: an event without */
    uint8_t event, text_len;
    char text[];
} note;

typedef struct watch { /* somebody wants to know of a participant's end */
    lim__list node;
    lim__notify what;
} watch;

typedef struct rare { /* what most talks never need */
    past *past;           /* oldest first; room for LIM__PAST_MAX once there is one */
    uint32_t past_count;
    uint32_t events;      /* of the inbox */
    lim__list watches;
    lim__history *history;
    uint64_t refused, unasked; /* sayings not kept; answers nobody waited for */
    lim_pid compensation;
} rare;

typedef struct talk { /* its process only */
    lim_bus *bus;
    lim__conv_node node;
    lim__open *open;      /* what it was opened with beside the usual; NULL: not told yet */
    lim_pid owner;
    uint64_t opened_ns, deadline_ns;
    rare *rare;           /* NULL: nothing of it yet */
    party *parties;       /* in the order they came */
    lim__list calls;      /* in the order they began */
    lim__list inbox;
    lim_pid group;
    uint64_t next_lease, told, sent, received, asked, answered; /* told: messages and events pushed to the owner */
    uint32_t buffered;    /* messages and signals in the inbox */
    uint32_t waiting;     /* receives among the calls */
    uint16_t alive, room; /* of parties */
    uint8_t phase, how, why; /* lim_phase; lim_how it ends; lim_why of a failure without a death */
    bool push : 1, opened : 1, wanting : 1; /* tells the owner as it comes; the opener was answered; the group looks */
} talk;

/* ---- talk.c ---- */
lim_err lim__talk_step(talk *t, lim_process *self, lim__phase_event event); /* CLOSED: not in this phase */
void lim__talk_opened(talk *t, lim_process *self, lim_err err);             /* answers the opener, once */
/* It cannot go on: whoever waits is told, whoever takes part is let go. why: if nobody's death is the reason. */
void lim__talk_fail(talk *t, lim_process *self, lim_why why);
void lim__talk_check(const talk *t); /* asserts all invariants */
rare *lim__talk_rare(talk *t, lim_process *self); /* NULL: no memory */
/* An answer to whoever sent a letter with this ref. `as` has err and what else there is to say. */
void lim__talk_done(talk *t, lim_process *self, lim_pid to, uint64_t ref, const lim__done *as);
void lim__talk_note(talk *t, lim_process *self, const char *kind, lim_pid who, lim_bytes detail, uint64_t bytes,
                    uint32_t code); /* into the history, if there is one */
static inline const lim__terms *lim__talk_terms(const talk *t)
{
    return lim__terms_or_default(t->open->terms);
}

/* ---- talk_party.c ---- */
party *lim__talk_party(talk *t, lim_pid pid);      /* NULL: takes no part (any more) */
const past *lim__talk_past(const talk *t, lim_pid pid); /* {0}: the latest; NULL: none that is remembered */
lim_bytes lim__talk_name(talk *t, lim_pid pid, char text[24]); /* identity, or its id in `text` */
lim_err lim__talk_enter(talk *t, lim_process *self, const party *as, bool opening); /* EXISTS, FULL, NOMEM */
void lim__talk_join(talk *t, lim_process *self, lim_pid from, const lim__join_conv *m);
void lim__talk_leave(talk *t, lim_process *self, lim_pid from, const lim__join_conv *m);
void lim__talk_gone(talk *t, lim_process *self, const lim_signal *signal); /* an exit of somebody linked */
void lim__talk_want(talk *t, lim_process *self);
void lim__talk_assigned(talk *t, lim_process *self, const lim_signal *signal);
void lim__talk_refused(talk *t, lim_process *self, const lim__refused *r);
void lim__talk_notify(talk *t, lim_process *self, const lim__notify *m);
void lim__talk_let_go(talk *t, lim_process *self); /* of everybody, without a death: they are told */
void lim__talk_parties_free(talk *t, lim__sched *s);

/* ---- talk_say.c ---- */
typedef struct heard { /* what the opener is to hear of; VIEW */
    lim_pid from;
    lim__msg *payload; /* may be NULL for an event */
    lim_event event;
    lim_bytes text;
} heard;
lim_why lim__talk_hear(talk *t, lim_process *self, const heard *h); /* NONE: it has it, or will receive it */
/* Everybody hears of an event, except whom it is about. opener false: it knows. */
void lim__talk_event(talk *t, lim_process *self, const heard *h, bool opener);
void lim__talk_event_to(talk *t, lim_process *self, lim_pid to, const heard *h); /* one participant */
lim_err lim__talk_request(talk *t, lim_process *self, lim_pid to, const call *c); /* an ask, on its way */
void lim__talk_revoke(lim_process *self, lim_pid to, uint64_t lease, lim__revoke_why why);
void lim__talk_tell(talk *t, lim_process *self, lim_pid from, const lim__tell *m);
void lim__talk_say(talk *t, lim_process *self, const lim__say *m);
void lim__talk_signal(talk *t, lim_process *self, const lim__signal_in *m);
note *lim__talk_take(talk *t); /* out of the inbox; NULL: empty. The caller's */
void lim__talk_note_free(lim__sched *s, note *n);
lim__msg *lim__talk_traced(const talk *t, lim__msg *payload); /* one reference: with the trace context, if there is one */

/* ---- talk_call.c ---- */
void lim__talk_ask(talk *t, lim_process *self, lim_pid from, const lim__ask *m);
void lim__talk_receive(talk *t, lim_process *self, lim_pid from, const lim__receive *m);
void lim__talk_answer(talk *t, lim_process *self, const lim__answer *a);
void lim__talk_late(talk *t, lim_process *self, uint64_t timer); /* a call's deadline */
bool lim__talk_give(talk *t, lim_process *self, const heard *h); /* to the first receive; false: none waits */
void lim__talk_calls_end(talk *t, lim_process *self, lim_how how);
void lim__talk_calls_crash(talk *t, lim_process *self, lim_pid of); /* those in the hands of one that is past */
void lim__talk_calls_lose(talk *t, lim_process *self, lim_pid of);   /* those count a loss, and are in nobody's hands */
void lim__talk_calls_revoke(talk *t, lim_process *self, lim_pid of); /* it shall stop */
void lim__talk_calls_move(talk *t, lim_process *self, lim_pid to);  /* those in nobody's hands */
void lim__talk_calls_free(talk *t, lim__sched *s);

/* ---- talk_undo.c ---- */
void lim__talk_undo(talk *t, lim_process *self); /* LIM_CRASH_COMPENSATE: has a task undo it */

/* ---- talk_show.c ---- */
lim_conv_info lim__talk_info(const talk *t, uint64_t now_ns);
extern const lim__conv_kindred lim__talk_kindred;

#endif
