/* SPDX-License-Identifier: Apache-2.0
 * talk.h - the inside of a talk, for the files talk*.c.
 *
 *   talk.c         its life: open, phases, deadline, close, failure, end
 *   talk_party.c   who takes part: join, leave, death, the group, notifiers
 *   talk_say.c     messages and events: to participants, to the opener, the inbox
 *   talk_call.c    what waits: asks and receives, and how each ends
 *   talk_show.c    what others may see of it
 *   talk_keep.c    durable ones: what is stored of it, and what waits for that
 *   talk_hold.c    durable ones: what its participants have not taken yet
 *   talk_back.c    durable ones: made again, and their participants waited for */
#ifndef LIM__TALK_H
#define LIM__TALK_H

#include "bus/conv.h"
#include "bus/durable.h"
#include "bus/history.h"

enum {
    LIM__PARTIES_MAX = 256, /* living at once */
    LIM__PAST_MAX = 256,    /* remembered of those that are gone, for notifiers and names */
    LIM__EVENTS_MAX = 1024, /* not yet received; nobody may join beyond */
    LIM__HELD_MAX = 1024,   /* said to one participant of a durable one, and not taken yet */
    LIM__HELD_BYTES_MAX = 16 << 20 /* likewise, to all of them */
};
enum { LIM__TALK_TAG_WHOLE = LIM__TAG_DEADLINE, LIM__TALK_TAG_CALL = 1, LIM__TALK_TAG_STORE, LIM__TALK_TAG_GRACE,
       LIM__TALK_TAG_SWEEP };

typedef struct party { /* takes part: linked */
    lim_pid pid;
    lim__assigned *assigned; /* came through the group; NULL: joined */
    bool required;
    uint32_t held; /* durable: how many messages it has not taken yet */
} party;

typedef struct past { /* took part */
    lim_pid pid;
    lim__assigned *assigned;
    lim_reason reason;
    bool crashed; /* else left */
    uint64_t at_ns, wall_us;
    uint64_t rerouted_wall_us; /* when the group had sent the next one; 0: it has not, or need not */
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
    struct keep *keep;    /* durable ones */
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
    uint64_t next_lease, told, sent, received, asked, answered; /* told: messages and events pushed to the owner */
    uint32_t buffered;    /* messages and signals in the inbox */
    uint32_t waiting;     /* receives among the calls */
    uint16_t alive, room; /* of parties */
    uint8_t phase, how, why; /* lim_phase; lim_how it ends; lim_why of a failure without a death */
    bool push : 1, opened : 1, wanting : 1; /* tells the owner as it comes; the opener was answered; the group looks */
    bool kept : 1; /* durable: rare->keep is there */
} talk;
_Static_assert(sizeof(talk) == 168 && offsetof(talk, node) == LIM__CONV_NODE_AT,
               "what an idle talk takes: docs/internals/memory.md");
/* The group it looks in, once it does; kept where a talk that does has said nothing. */
static inline lim_pid *lim__talk_group(const talk *t) { return &t->open->participant; }

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
bool lim__talk_relink(talk *t, lim_process *self, const party *as); /* takes its assignment. False: no memory */
void lim__talk_lost(talk *t, lim_process *self, const party *was, const past *gone); /* takes the assignment of `was` */
void lim__talk_past_add(talk *t, lim_process *self, const past *p);                  /* likewise */
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
void lim__talk_revoke(talk *t, lim_process *self, lim_pid to, uint64_t lease, lim__revoke_why why);
void lim__talk_tell(talk *t, lim_process *self, lim_pid from, const lim__tell *m);
void lim__talk_say(talk *t, lim_process *self, const lim__say *m);
void lim__talk_signal(talk *t, lim_process *self, const lim__signal_in *m);
void lim__talk_push(talk *t, lim_process *self); /* from now on the owner is told what comes, and what had come */
lim_err lim__talk_message_to(talk *t, lim_process *self, lim_pid to, lim_pid from, lim__msg *payload);
lim__request *lim__talk_request_new(const talk *t, lim_process *self, lim__msg *payload, lim_bytes text); /* QUIET */
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
call *lim__talk_call_new(talk *t, lim_process *self, const call *as); /* waits from now on; NULL: no memory */
void lim__talk_calls_resend(talk *t, lim_process *self, lim_pid was, lim_pid now); /* under the same leases */
void lim__talk_calls_disown(talk *t, lim_process *self); /* the owner is gone: receives end, asks are answered into the inbox */

/* ---- talk_undo.c ---- */
void lim__talk_undo(talk *t, lim_process *self); /* LIM_CRASH_COMPENSATE: has a task undo it */

/* ---- talk_keep.c ---- see there */
typedef struct away { /* a participant from before a restart that has not come back yet */
    lim__list node;
    lim_pid pid;
    lim__assigned *assigned; /* NULL: it cannot come back */
    bool required;
    uint32_t held;       /* as of a party */
} away;
typedef struct held { /* said to one that has not taken it yet */
    lim__list node;
    uint64_t n;      /* counted over all participants */
    lim_pid to, from;
    lim__msg *payload;
    uint8_t event, text_len;
    char text[];
} held;
typedef struct renamed { /* who came back has another id now */
    lim__list node;
    lim_pid was, now;
} renamed;
typedef struct keep {
    uint64_t id;            /* as people know it: of its first life */
    uint64_t stream;        /* of its history; 0: its first batch makes it */
    uint64_t opened_wall_ns, ref;
    uint64_t inbox_first, inbox_next, held_next, noted; /* numbers of rows; entries of the history so far */
    bool fresh;             /* nothing of it is stored yet, */
    bool vain;              /* nor will be: it could not be opened */
    bool storing, replaying, ending, ended;
    bool sweep, sweeping;   /* `late` is worth a commit of its own; the timer for that runs */
    lim__buf ops;           /* what has changed beside the state: u8 what, key, value */
    lim__buf late;          /* likewise, but it can wait for the next commit */
    lim__buf state;         /* as it is stored */
    lim__list outbox;       /* letters that wait for the commit */
    lim__stash stash;       /* signals that do */
    lim__list held;         /* in the order of their numbers */
    uint64_t held_bytes;
    /* after a restart */
    lim__list away, renamed;
    uint64_t grace_ns, pause_ns; /* until when those that are away are waited for; 0: not at all */
} keep;
static inline keep *lim__talk_keep(const talk *t) { return t->rare->keep; } /* of one that is kept */
uint64_t lim__talk_id(const talk *t);
lim_err lim__keep_begin(talk *t, lim_process *self); /* MISUSE: the bus keeps nothing; NOMEM */
lim_err lim__keep_post(talk *t, lim_process *self, lim_pid to, void *letter);
void lim__keep_call(talk *t, const call *c);
void lim__keep_call_gone(talk *t, const call *c);
void lim__keep_heard(talk *t, const note *n); /* into the inbox */
void lim__keep_taken(talk *t);                /* the oldest out of it */
void lim__keep_noted(talk *t, const lim__history_note *note);
void lim__keep_held(talk *t, const held *h);
void lim__keep_held_gone(talk *t, const held *h);
void lim__keep_held_taken(talk *t, const held *h); /* likewise, some time */
void lim__keep_end(talk *t, lim_process *self);     /* instead of lim_exit: once that is stored */
void lim__keep_settle(talk *t, lim_process *self);  /* after a signal: commits what it changed */
/* True: it was the end of a commit, or waits for one. */
bool lim__keep_signal(talk *t, lim_process *self, const lim_signal *signal, lim_on_signal *handler);
void lim__keep_free(talk *t, lim_reason reason, lim__sched *s); /* in on_end: brings it back unless it had ended */
void lim__keep_owner_gone(talk *t, lim_process *self);
void lim__keep_attach(talk *t, lim_process *self, const lim__command *m);
lim_bytes lim__keep_key(uint64_t id, char what, uint64_t n, uint8_t key[18]);
lim__buf lim__keep_state(const talk *t, lim_process *self);
uint64_t lim__keep_to_wall(const talk *t, uint64_t at_ns); /* 0: never */
/* What is sent to others: at once, or, of a durable one, when what it is a consequence of is stored. */
static inline lim_err lim__talk_post(talk *t, lim_process *self, lim_pid to, void *letter)
{
    return t->kept ? lim__keep_post(t, self, to, letter) : lim__send_reserved(self, to, letter);
}

/* ---- talk_hold.c ---- */
held *lim__hold_new(lim__sched *s, lim_pid to, const heard *what); /* without a number; NULL: no memory */
void lim__hold_free(lim__sched *s, held *h);
lim_err lim__hold_say(talk *t, lim_process *self, lim_pid to, const heard *what); /* GONE, FULL, NOMEM */
void lim__hold_taken(talk *t, lim_process *self, lim_pid by, uint64_t number);    /* all up to it */
void lim__hold_resend(talk *t, lim_process *self, lim_pid was, lim_pid now);      /* under the same numbers */
void lim__hold_drop(talk *t, lim_process *self, lim_pid who);                     /* {0}: what anybody has not taken */
void lim__hold_restored(talk *t, lim_process *self);                              /* once all rows are read */
void lim__hold_check(const talk *t);

/* ---- talk_back.c ---- */
extern const lim__letter_type lim__type_talk_rows;
void lim__back_rows(talk *t, lim_process *self, const lim_signal *signal);
bool lim__back_gone(talk *t, lim_process *self, const party *was); /* true: it is waited for */
void lim__back_members(talk *t, lim_process *self, const lim__member_list *m);
void lim__back_look(talk *t, lim_process *self);                   /* its timer */
bool lim__back_waits(const talk *t, lim_pid pid);                  /* {0}: anybody */
away *lim__back_away(const talk *t, lim_pid pid);                  /* likewise; NULL: it is not away */
lim_pid lim__back_now(const talk *t, lim_pid pid);                 /* its id now; pid itself */
void lim__back_bring(lim_bus *bus, uint64_t id);                   /* a process of a durable talk died */
lim_err lim__talks_restore(lim_bus *bus, lim_diag *diag);

/* ---- talk_show.c ---- */
lim_conv_info lim__talk_info(const talk *t, uint64_t now_ns);

#endif
