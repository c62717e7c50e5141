/* SPDX-License-Identifier: Apache-2.0
 * exchange_inside.h - the inside of an exchange, shared by exchange.c (what it hears), exchange_hand.c (leases, and who
 * has it), exchange_outcome.c (how it ends) and exchange_show.c (what people see). */
#ifndef LIM__EXCHANGE_INSIDE_H
#define LIM__EXCHANGE_INSIDE_H

#include "bus/bus.h"
#include "bus/conv.h"
#include "bus/exchange.h"
#include "bus/history.h"
#include "bus/letters.h"

enum {
    LIM__EX_OLD_MAX = LIM__EXCLUDED_MAX,
    LIM__EX_SHUN_MAX = 4,
    LIM__EX_OFFER_MS = 1000,     /* to acknowledge */
    LIM__EX_CREDIT_MAX = 1 << 20,
    LIM__EX_SIGNALS_MAX = 16     /* kept for whoever gets it */
};
enum { LIM__EX_TAG_DEADLINE = 1, LIM__EX_TAG_OFFER, LIM__EX_TAG_SLOW, LIM__EX_TAG_PROGRESS };

/* Who was given it, under which lease: what the group said in `assigned`, in the least room. The policy is behind the text;
 * NULL: of an ask. */
typedef struct given {
    lim_pid participant;
    uint64_t lease;
    const lim__policy *policy;
    uint8_t identity_len, router_len;
    char text[]; /* identity, router */
} given;

typedef enum old_is {
    OLD_PAST = 1,  /* a name for the list of those it was tried with */
    OLD_SUSPENDED, /* it may come back with the result */
    OLD_STUCK      /* revoked; it keeps its place until it is done or gone, and we are linked to it */
} old_is;
typedef struct old_lease {
    given *was;
    uint64_t taken_ns; /* when it began; 0: never said */
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
    lim__waiter *waiters;
    uint64_t slow_timer, progress_timer, taken_ns;
    uint32_t granted, parts;  /* of an answer in parts: still allowed, passed on */
    lim__history *history;    /* NULL: not traced */
    lim_pid follows;          /* another task stands for this one */
    void *claimed;            /* an answer, or `holding`, of somebody who says to have the current lease under another pid:
                               * heard when the one who has it is found dead */
    bool claimed_is_answer;
    kept_signal *signals;
    uint32_t signal_count;
    lim__progress *note;      /* the newest */
} extra;

typedef struct exchange {
    lim_bus *bus;
    lim__conv_node node;
    lim__open *open;          /* a copy of its first letter; its payload is let go when nobody can need it any more */
    given *current;           /* NULL: nobody has it */
    lim_pid group;
    struct trouble *trouble;
    struct extra *extra;
    uint64_t offer_timer;
    lim__ex_state state;
    uint32_t payload_len;
    uint16_t attempts, losses;
    bool admitted, taken;     /* told the dispatcher; acknowledged by the current participant */
    bool was_taken;           /* acknowledged by anybody */
} exchange;

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
void lim__ex_given_free(lim__sched *s, given *g); /* NULL is a no-op */
const lim__policy *lim__ex_policy(const given *g); /* never NULL */
trouble *lim__ex_trouble(exchange *x, lim_process *self); /* NULL: no memory */
old_lease *lim__ex_old(const exchange *x, uint64_t lease); /* suspended or stuck; NULL: none of ours */
uint32_t lim__ex_stuck(const exchange *x);
bool lim__ex_crowded(const exchange *x); /* no room for one more that may come back */
void lim__ex_want(exchange *x, lim_process *self, bool again, uint64_t due_ns);
uint64_t lim__ex_pause_ns(const exchange *x, const lim__policy *policy, uint32_t attempts); /* after so many failures */
bool lim__ex_hand(exchange *x, lim_process *self); /* false: its mailbox is full */
void lim__ex_start(exchange *x, lim_process *self);
void lim__ex_progress(exchange *x, lim_process *self);
void lim__ex_stop_timers(exchange *x, lim_process *self, lim__ex_state before);
void lim__ex_release(exchange *x, lim_process *self, uint64_t lease);
void lim__ex_revoke(lim_process *self, lim_pid to, uint64_t lease, lim__revoke_why why);
void lim__ex_retire(exchange *x, lim_process *self, old_is is, bool lost); /* the current one */
void lim__ex_drop_old(exchange *x, lim_process *self, uint64_t lease);
void lim__ex_revoke_old(exchange *x, lim_process *self);
void lim__ex_resume(exchange *x, occasion *now);
void lim__ex_count_loss(exchange *x, const occasion *now);
void lim__ex_shun(exchange *x, lim_process *self);
void lim__ex_settle(exchange *x, const occasion *now, bool accepted);
void lim__ex_signal(exchange *x, lim_process *self, const lim_signal *signal);
void lim__ex_credit(exchange *x, lim_process *self, uint32_t parts);

/* exchange_outcome.c */
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
extern const lim__conv_kindred lim__as_exchange;

#endif
