/* SPDX-License-Identifier: Apache-2.0
 * exchange_inside.h - the inside of an exchange, shared by exchange.c (what it hears), exchange_hand.c (leases, and who
 * has it), exchange_outcome.c (how it ends), exchange_keep.c (what is stored of it, and when), exchange_row.c (how) and
 * exchange_show.c (what people see). */
#ifndef LIM__EXCHANGE_INSIDE_H
#define LIM__EXCHANGE_INSIDE_H

#include "bus/bus.h"
#include "bus/conv.h"
#include "bus/durable.h"
#include "bus/exchange.h"
#include "bus/history.h"
#include "bus/letters.h"

enum {
    LIM__EX_OLD_MAX = LIM__EXCLUDED_MAX,
    LIM__EX_SHUN_MAX = 4,
    LIM__EX_OFFER_MS = 1000,     /* to acknowledge */
    LIM__EX_UNTAKEN_MAX = 10,    /* so often handed over in vain counts as a lost delivery */
    LIM__EX_AGAIN_MS = 100,      /* until it is tried again to store something */
    LIM__EX_CREDIT_MAX = 1 << 20,
    LIM__EX_SIGNALS_MAX = 16     /* kept for whoever gets it */
};
enum {
    LIM__EX_TAG_DEADLINE = LIM__TAG_DEADLINE,
    LIM__EX_TAG_OFFER = 1,
    LIM__EX_TAG_SLOW,
    LIM__EX_TAG_PROGRESS,
    LIM__EX_TAG_KEEP
};

/* Who was given it, under which lease: what the group said in `assigned`, in the least room. Of a task the policy is behind
 * the text, of a durable exchange what its connection is known by behind that. */
typedef struct known {
    uint8_t session[16], member_kind;
} known;
typedef struct given {
    lim_pid participant; /* {0}: it was there before the server was started anew */
    uint64_t lease;
    uint8_t identity_len, router_len;
    bool judged, kept;   /* the policy is there; `known` is */
    char text[];         /* identity, router */
} given;

typedef enum old_is {
    OLD_PAST = 1,  /* a name for the list of those it was tried with */
    OLD_SUSPENDED, /* it may come back with the result */
    OLD_STUCK      /* revoked; it keeps its place until it is done or gone, and we are linked to it */
} old_is;
typedef struct old_lease {
    given *was;
    uint64_t taken_ns; /* when it began; 0: never said */
    uint64_t lost_wall_us, rerouted_us; /* lost: observed when; after how long another one had it, 0: none yet */
    uint64_t lost_ns;
    old_is is;
    bool lost;         /* it died with it in hand, or was found to be stuck */
} old_lease;
typedef struct trouble { /* what only exchanges know that did not go well */
    old_lease old[LIM__EX_OLD_MAX];
    uint32_t old_count;
    lim_pid shun[LIM__EX_SHUN_MAX];
    uint32_t shun_count;
    lim_reason last_reason;
    uint64_t crashed_ns, crashed_wall_us, rerouted_ns;
} trouble;

typedef struct kept_signal {
    struct kept_signal *next;
    lim__signal_in *letter;
} kept_signal;
typedef struct extra { /* what most exchanges do without */
    trouble *trouble;
    lim__waiter *waiters;
    uint64_t slow_timer, progress_timer, taken_ns;
    uint32_t granted, parts;  /* of an answer in parts: still allowed, passed on */
    lim__history *history;    /* NULL: not traced */
    lim_pid follows, followed; /* another task stands for this one: its id; its process */
    void *claimed;            /* an answer, or `holding`, of somebody who says to have the current lease under another pid:
                               * heard when the one who has it is found dead */
    const lim__letter_type *claim; /* which of the two, */
    lim_pid claim_from;       /* and who said it */
    kept_signal *signals;
    uint32_t signal_count;
    lim__progress *note;      /* the newest */
    struct keep *keep;        /* exchange_keep.c */
} extra;

typedef struct exchange {
    lim_bus *bus;
    lim__conv_node node;
    lim__open *open;          /* a copy of its first letter; its payload is let go when nobody can need it any more */
    given *current;           /* NULL: nobody has it */
    lim_pid group;
    struct extra *extra;
    uint64_t offer_timer;
    uint32_t payload_len;
    uint16_t attempts, losses;
    bool admitted : 1, taken : 1; /* told the dispatcher; acknowledged by the current participant */
    bool was_taken : 1;       /* acknowledged by anybody */
    bool durable : 1;         /* each step is stored before anybody hears of it */
    bool keeping : 1;         /* extra->keep is there: signals may have to wait */
    bool roomy : 1, room_taken : 1; /* LIM__EX_ROOM bytes are behind it, and what it was opened with; by a `given` */
    uint8_t state;            /* lim__ex_state; 0: has not heard of anything yet */
    uint8_t wish;             /* the newest of the group; an answer to one before is not for it */
    uint8_t untaken;          /* handed over in vain since it was last acknowledged */
} exchange;
enum { LIM__EX_ROOM = 40 };   /* for a lease of an ask, whose participant's name is not long */
_Static_assert(sizeof(exchange) == 80 && offsetof(given, text) == 20 && offsetof(exchange, node) == LIM__CONV_NODE_AT,
               "what an idle exchange takes: docs/internals/memory.md");
static inline trouble *troubled(const exchange *x)
{
    return x->extra != NULL ? x->extra->trouble : NULL;
}

/* What the event at hand carries, for the effects. */
typedef struct occasion {
    lim_process *self;
    lim__answer *answer;      /* ANSWERED*, FAILED*, SILENT; STUCK_DONE, or NULL */
    lim__holding *holding;    /* HOLDING */
    const lim__refused *refused;  /* REFUSED, UNHANDED */
    const lim__part *part;    /* PART */
    const lim__outcome_letter *followed; /* FOLLOWED */
    uint64_t at_ns;           /* LEFT, LOST: when it was observed */
    lim_pid speaker;          /* who answered or came back */
    uint64_t lease;           /* which one the event is about; 0: the current one */
    uint32_t attempts_max;    /* filled in: what the queue said to it; and the pause that is due after this failure */
    uint64_t pause_ns;
} occasion;

static inline lim_bytes group_name(const lim__open *o)
{
    return lim__bytes(o->text, o->group_len);
}
static inline lim_bytes type_name(const lim__open *o)
{
    return lim__bytes(o->text + o->group_len, o->type_len);
}
static inline bool is_task(const exchange *x)
{
    return x->open->kind == LIM__KIND_TASK;
}
/* What the bus promises of a task it promises of a durable ask. */
static inline bool task_like(const exchange *x)
{
    return is_task(x) || x->durable;
}
static inline lim_bytes identity_of(const given *a)
{
    return a != NULL ? lim__bytes(a->text, a->identity_len) : lim__bytes(NULL, 0);
}

/* exchange.c */
void lim__ex_happens(exchange *x, lim__ex_event e, occasion *now);
extra *lim__ex_extra(exchange *x, lim_process *self); /* NULL: no memory */
void lim__ex_trace(exchange *x, lim_process *self, bool wanted);

/* exchange_hand.c */
/* Of a task: with its policy. NULL: no memory. */
given *lim__ex_given(exchange *x, lim_process *self, const lim__assigned *a);
void lim__ex_given_free(exchange *x, lim__sched *s, given *g); /* NULL is a no-op */
const lim__policy *lim__ex_policy(const given *g); /* never NULL */
void lim__ex_policy_is(exchange *x, const lim__policy *policy); /* as its queue says after a restart */
trouble *lim__ex_trouble(exchange *x, lim_process *self); /* NULL: no memory */
old_lease *lim__ex_old(const exchange *x, uint64_t lease); /* suspended or stuck; NULL: none of ours */
uint32_t lim__ex_stuck(const exchange *x);
bool lim__ex_crowded(const exchange *x); /* no room for one more that may come back */
void lim__ex_want(exchange *x, lim_process *self, bool again, uint64_t due_ns);
void lim__ex_end_grace(exchange *x, lim_process *self);
void lim__ex_want_sent(exchange *x, lim_process *self, lim_err sent);
uint64_t lim__ex_pause_ns(const exchange *x, const lim__policy *policy, uint32_t attempts); /* after so many failures */
bool lim__ex_hand(exchange *x, lim_process *self); /* false: its mailbox is full */
void lim__ex_start(exchange *x, lim_process *self);
void lim__ex_progress(exchange *x, lim_process *self);
void lim__ex_stop_timers(exchange *x, lim_process *self, lim__ex_state before);
void lim__ex_release(exchange *x, lim_process *self, uint64_t lease);
void lim__ex_revoke(exchange *x, lim_process *self, lim_pid to, uint64_t lease, lim__revoke_why why);
known *lim__ex_known(const given *g); /* NULL: not kept */
void lim__ex_offer_timer(exchange *x, lim_process *self);
void lim__ex_pass_signals(exchange *x, lim_process *self);
void lim__ex_occupy(exchange *x, lim_process *self, lim_pid who); /* the vacant current lease has its participant again */
void lim__ex_retire(exchange *x, lim_process *self, old_is is, bool lost); /* the current one */
void lim__ex_drop_old(exchange *x, lim_process *self, uint64_t lease);
void lim__ex_revoke_old(exchange *x, lim_process *self);
void lim__ex_resume(exchange *x, occasion *now);
void lim__ex_count_loss(exchange *x, const occasion *now);
void lim__ex_shun(exchange *x, lim_process *self);
void lim__ex_settle(exchange *x, const occasion *now, bool accepted);
void lim__ex_signal(exchange *x, lim_process *self, const lim_signal *signal);
void lim__ex_credit(exchange *x, lim_process *self, uint32_t parts);

/* exchange_keep.c */
/* What it waits for before it hears anything else. */
typedef enum pause_for {
    PAUSE_NONE = 0,
    PAUSE_STORED,  /* its commit */
    PAUSE_AGAIN,   /* the disk would not: a moment, and once more */
    PAUSE_VOUCHED, /* the group's word on who speaks */
    PAUSE_REVIVED, /* that its group knows it again */
    PAUSE_SOUND,   /* that the task it follows is stored */
    PAUSE_STEP,    /* that a result is stored with other things */
    PAUSE_CLOSED   /* the bus ends: nothing more */
} pause_for;
typedef struct later later;
typedef struct keep {
    lim_pid id;              /* as everybody knows it; of one that was made again after a restart another than its pid */
    pause_for pause;
    bool stored, ending;     /* there are rows of it; it ends once all is told */
    bool doubt;              /* there may be: nobody can be told that it was refused */
    bool grace;              /* nobody is offered it before the timer */
    uint64_t hash;           /* of the row that is stored */
    uint64_t order;          /* of admission */
    uint64_t due_wall_ns, seen_until_wall_ns;
    uint64_t ref, timer;     /* of the commit under way; of AGAIN, and of the grace */
    lim__stash stash;
    later *first, **last;    /* what is told when it is stored */
    lim__buf end, dead;      /* rows of its outcome and of its dead letter; empty: none */
    uint64_t end_until_wall_ns;
    lim_signal signal;       /* PAUSE_VOUCHED: what will be heard again, */
    void *letter;
    lim_pid vouched;         /* and who may say so; {0}: nobody */
    uint64_t vouched_lease;
    lim__relive *relive;     /* until its `open` has come */
    bool put_end;            /* the rows of its end were stored with other things: nothing is left to commit */
} keep;
keep *lim__ex_keep(exchange *x, lim_process *self);          /* NULL: no memory */
bool lim__ex_make_durable(exchange *x, lim_process *self);   /* false: no memory, or this bus keeps nothing */
void lim__ex_keep_free(exchange *x, lim_process *self);
lim_pid lim__ex_id(const exchange *x, const lim_process *self);
/* Says it, when what led to it is stored. */
void lim__ex_send(exchange *x, lim_process *self, lim_pid to, void *letter);
void lim__ex_later_want(exchange *x, lim_process *self, void *letter);
void lim__ex_later_hand(exchange *x, lim_process *self, lim_pid to, void *letter);
void lim__ex_later_ended(exchange *x, lim_process *self, lim__outcome_letter *copy, uint64_t lease); /* takes it */
void lim__ex_pause_signal(exchange *x, lim_process *self, const lim_signal *signal, pause_for what);
void lim__ex_kept_signal(exchange *x, lim_process *self, const lim_signal *signal);
bool lim__ex_vouched(const exchange *x, lim_pid who, uint64_t lease);
void lim__ex_store(exchange *x, lim_process *self); /* and then tells, and goes on */
void lim__ex_put_end(const exchange *x, lim__batch *b);
/* exchange.c: as if nothing had to wait */
void lim__ex_hear(exchange *x, lim_process *self, const lim_signal *signal);
void lim__ex_hear_again(lim_process *self, const lim_signal *signal, void *state);

/* Would that be an answer of the current one? False: it is heard again when it is known whose it is. */
bool lim__ex_answerable(exchange *x, lim_process *self, const lim_signal *signal, lim_pid from, uint64_t lease, bool *out);

/* exchange_reply.c */
bool lim__ex_step_reply(exchange *x, lim_process *self, const lim_signal *signal); /* false: it is something else */
void lim__ex_stepped(exchange *x, lim_process *self, bool done);

/* exchange_follow.c */
void lim__ex_stands(exchange *x, lim_process *self, const lim_signal *signal);
void lim__ex_followed(exchange *x, lim_process *self, lim_pid from, const lim__outcome_letter *o);
void lim__ex_followed_is_gone(exchange *x, lim_process *self, const lim_signal *signal);
void lim__ex_sound(exchange *x, lim_process *self, const lim_signal *signal);

/* exchange_again.c */
void lim__ex_relive(exchange *x, lim_process *self, const lim_signal *signal);
void lim__ex_relived(exchange *x, lim_process *self); /* and its `open` has come */
void lim__ex_revived(exchange *x, lim_process *self, const lim__revived *r);
void lim__ex_vacated(exchange *x, lim_process *self, uint64_t lease);
void lim__ex_grace_over(exchange *x, lim_process *self, uint64_t timer);

/* exchange_row.c */
bool lim__ex_lives(const exchange *x); /* there are rows of it */
void lim__ex_row(const exchange *x, lim_process *self, lim__buf *out);
void lim__ex_const_row(const exchange *x, lim_process *self, lim__buf *out);
void lim__ex_end_row(const exchange *x, lim_process *self, const lim__outcome_letter *o, uint64_t lease, lim__buf *out);
void lim__ex_dead_row(const lim__dead *d, lim__buf *out);
bool lim__ex_row_revive(lim_bytes row, lim__revive *r, uint64_t *due_wall_ns, lim__buf *leases);
lim__open *lim__ex_row_open(lim_bus *bus, lim_bytes row, lim__relive *relive);
bool lim__ex_read(exchange *x, lim_process *self, lim_bytes row); /* the other way; false: no memory, or damaged */

/* exchange_outcome.c */
size_t lim__outcome_bytes(const lim__outcome_letter *o);
lim__outcome_letter *lim__ex_answer_outcome(exchange *x, occasion *now); /* as if it ended with this answer. NULL: no memory */
lim_excluded lim__ex_excluded(const old_lease *old); /* VIEW, of one that is lost */
void lim__ex_admit(exchange *x, lim_process *self, lim_pid as, const lim_admission *admission);
void lim__ex_outcome(exchange *x, uint32_t todo, occasion *now);
void lim__ex_part(exchange *x, const occasion *now);
void lim__ex_follow(exchange *x, lim_process *self, lim_pid task);
lim__outcome_letter *lim__ex_vanished(exchange *x, lim_process *self); /* of the task it follows; NULL: no memory */

/* exchange_undo.c: if that is its policy, and it crashed; o->compensation is then the task */
void lim__ex_undo(const exchange *x, lim_process *self, lim__outcome_letter *o);

/* exchange_show.c */
lim_phase lim__ex_phase(const exchange *x);
void lim__ex_inspect(exchange *x, lim_process *self, const lim_signal *signal);

#endif
