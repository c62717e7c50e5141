/* SPDX-License-Identifier: Apache-2.0
 * exchange.h - the state machine of one request looking for one answer, without a bus: what exchange.c acts out. */
#ifndef LIM__EXCHANGE_H
#define LIM__EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <liminal/types.h>
#include "store/store.h"

typedef enum lim__ex_state {
    LIM__EX_PLACING = 1, /* waiting for a participant */
    LIM__EX_OFFERED,     /* handed to one that shall acknowledge (tasks) */
    LIM__EX_HELD,        /* in the hands of one */
    LIM__EX_MUTE,        /* the one who had it is done and said nothing: only a deadline or its death will end this */
    LIM__EX_DRAINING,    /* the asker has its outcome; who still works on it keeps its place */
    LIM__EX_FOLLOWING,   /* another task stands for it: its outcome is the answer */
    LIM__EX_ENDED
} lim__ex_state;

/* "Current": the participant that has it. "Suspended": one that had it when its connection ended. "Stuck": one that was told
 * to stop, and has not said that it did. */
typedef enum lim__ex_event {
    LIM__EX_ASSIGNED = 1, /* the group chose a participant */
    LIM__EX_REFUSED,      /* the group will not */
    LIM__EX_STANDS,       /* another task stands for this one */
    LIM__EX_FOLLOWED,     /* that task's outcome */
    LIM__EX_TAKEN,        /* acknowledged by the current participant */
    LIM__EX_ANSWERED,     /* by the current participant */
    LIM__EX_FAILED,       /* the current participant says that it could not */
    LIM__EX_ANSWERED_OLD, /* by a suspended one */
    LIM__EX_FAILED_OLD,   /* the suspended one says that it could not */
    LIM__EX_SILENT,       /* the current participant is done and has nothing to say */
    LIM__EX_LEFT,         /* the current participant ended; it will not come back */
    LIM__EX_LOST,         /* the current participant's connection ended; it may come back */
    LIM__EX_HOLDING,      /* a suspended one came back */
    LIM__EX_UNTAKEN,      /* the acknowledgement did not come in time */
    LIM__EX_UNHANDED,     /* the current participant's mailbox was full: it has never seen it */
    LIM__EX_SLOW,         /* this attempt takes longer than allowed */
    LIM__EX_STALLED,      /* the current participant has not said for too long that it gets on */
    LIM__EX_PROGRESS,     /* it has */
    LIM__EX_PART,         /* it sent a part of its answer */
    LIM__EX_OVERRUN,      /* it sent one more than it was granted */
    LIM__EX_STUCK_DONE,   /* a stuck one is done, or gone */
    LIM__EX_DEADLINE,
    LIM__EX_CANCEL,
    LIM__EX_OWNER_GONE,
    LIM__EX_EVENTS
} lim__ex_event;

typedef struct lim__ex_facts {
    bool task;      /* else an ask */
    bool next;      /* crash policy: another participant, and it is not too late for that */
    bool group;     /* there are others to go to */
    bool last_loss; /* one more lost delivery is one too many */
    bool retry;     /* one more failed attempt is not the last */
    bool report;    /* somebody waits for what happens to it */
    bool weary;     /* one more hand-over in vain counts as a lost delivery */
    bool others;    /* beside the one that the event is about, somebody stuck keeps a place */
} lim__ex_facts;

/* What the caller does, in this order. */
enum {
    LIM__EX_DO_LOSS = 1 << 0,         /* count a lost delivery */
    LIM__EX_DO_ATTEMPT = 1 << 1,      /* count a failed attempt */
    LIM__EX_DO_SETTLE = 1 << 2,       /* tell who answered that its answer counts */
    LIM__EX_DO_SETTLE_NOT = 1 << 3,   /* tell who answered that it does not */
    LIM__EX_DO_REVOKE = 1 << 4,       /* tell the current participant to stop */
    LIM__EX_DO_SHUN = 1 << 5,         /* do not offer it to this participant again, while there are others */
    LIM__EX_DO_STICK = 1 << 6,        /* the current lease becomes a stuck one */
    LIM__EX_DO_OUT_ANSWER = 1 << 7,   /* outcome: what the participant said */
    LIM__EX_DO_OUT_REFUSED = 1 << 8,  /* outcome: refused, or crashed{no_participant} if it had been handed over */
    LIM__EX_DO_OUT_CRASHED = 1 << 9,
    LIM__EX_DO_OUT_KILLER = 1 << 10,  /* outcome: crashed{kills_workers} */
    LIM__EX_DO_OUT_SLOW = 1 << 11,    /* outcome: failed, the last attempt took too long */
    LIM__EX_DO_OUT_OVERRUN = 1 << 12, /* outcome: failed, it does not keep to what it was granted */
    LIM__EX_DO_OUT_FOLLOWED = 1 << 13,
    LIM__EX_DO_OUT_TIMEOUT = 1 << 14,
    LIM__EX_DO_OUT_CANCELLED = 1 << 15,
    LIM__EX_DO_KEEP_LEASE = 1 << 16,  /* the current lease becomes suspended */
    LIM__EX_DO_DROP_LEASE = 1 << 17,  /* the current lease is over: tell the group */
    LIM__EX_DO_DROP_OLD = 1 << 18,    /* so is the suspended or stuck one that the event is about */
    LIM__EX_DO_REVOKE_OLD = 1 << 19,  /* suspended leases are over */
    LIM__EX_DO_RESUME = 1 << 20,      /* the suspended lease that spoke becomes the current one */
    LIM__EX_DO_UNWANT = 1 << 21,      /* the group need not look any more */
    LIM__EX_DO_HAND = 1 << 22,        /* link the participant, send it the request */
    LIM__EX_DO_OFFER_TIMER = 1 << 23, /* expect its acknowledgement */
    LIM__EX_DO_START = 1 << 24,       /* its time begins */
    LIM__EX_DO_PROGRESS = 1 << 25,    /* its time to show progress begins anew */
    LIM__EX_DO_PART = 1 << 26,        /* pass the part on */
    LIM__EX_DO_WANT = 1 << 27,        /* ask the group for a participant */
    LIM__EX_DO_LATER = 1 << 28,       /* the same, after the pause that is due after a failure */
    LIM__EX_DO_FOLLOW = 1 << 29,      /* wait for the other task's outcome */
    LIM__EX_DO_END = 1 << 30
};
#define LIM__EX_OUTCOMES                                                                                               \
    (LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_OUT_REFUSED | LIM__EX_DO_OUT_CRASHED | LIM__EX_DO_OUT_KILLER |                 \
     LIM__EX_DO_OUT_SLOW | LIM__EX_DO_OUT_OVERRUN | LIM__EX_DO_OUT_FOLLOWED | LIM__EX_DO_OUT_TIMEOUT |                 \
     LIM__EX_DO_OUT_CANCELLED)

/* Moves *state and answers what to do; does nothing itself. */
uint32_t lim__ex_step(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *facts);

/* One step as a number, for histories; and where such a history leads to. 0: a number in it is no step. */
uint32_t lim__ex_code(lim__ex_event event, const lim__ex_facts *facts);
lim__ex_state lim__ex_replay(const uint32_t *codes, size_t count);
/* A word for people: "assigned"; static. */
const char *lim__ex_event_text(lim__ex_event event);

/* A participant on the exchange's own scheduler has taken an ask out of its mailbox: noted at once, without a letter. */
struct lim_process;
void lim__exchange_taken(struct lim_process *exchange, uint64_t lease);

/* ---- a worker's result as part of a step ----
 * The task's own process adds the rows of its end to somebody's batch and submits it: all of it is stored, or nothing. */
typedef struct lim__step_reply {
    uint64_t task, lease, from;  /* as the delivery said; from: the participant's pid */
    lim_bytes payload;           /* copied */
    /* Exactly one of them, after LIM_OK. on_done: as of lim__store_submit (the store's thread; owns the batch); what is told
     * there the task does by itself. refused: the batch was not submitted, and is yours again, or is gone (NULL); on any
     * scheduler: GONE, the lease is not that participant's any more; MISUSE, the task is not durable; NOMEM, TOOBIG, CLOSED. */
    lim__on_committed *on_done;
    void (*refused)(void *ctx, lim__batch *batch, lim_err err);
    void *ctx;
} lim__step_reply;
/* Takes the batch after LIM_OK only. One in a batch. Any thread. GONE, NOMEM, TOOBIG. */
struct lim_bus;
lim_err lim__exchange_step_reply(struct lim_bus *bus, lim__batch *batch, const lim__step_reply *r);

#endif
