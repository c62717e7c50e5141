/* SPDX-License-Identifier: Apache-2.0
 * exchange.h - the state machine of one request looking for one answer, without a bus: what exchange.c acts out. */
#ifndef LIM__EXCHANGE_H
#define LIM__EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum lim__ex_state {
    LIM__EX_PLACING = 1, /* waiting for a participant */
    LIM__EX_OFFERED,     /* handed to one that shall acknowledge (tasks) */
    LIM__EX_HELD,        /* in the hands of one */
    LIM__EX_MUTE,        /* the one who had it is done and said nothing: only a deadline or its death will end this */
    LIM__EX_DRAINING,    /* the asker has its outcome; the participant still works and keeps its place */
    LIM__EX_ENDED
} lim__ex_state;

typedef enum lim__ex_event {
    LIM__EX_ASSIGNED = 1, /* the group chose a participant */
    LIM__EX_REFUSED,      /* the group will not */
    LIM__EX_TAKEN,        /* acknowledged by the current participant */
    LIM__EX_ANSWERED,     /* by the current participant */
    LIM__EX_ANSWERED_OLD, /* by one whose lease is suspended */
    LIM__EX_SILENT,       /* the current participant is done and has nothing to say */
    LIM__EX_LEFT,         /* the current participant ended; it will not come back */
    LIM__EX_LOST,         /* the current participant's connection ended; it may come back */
    LIM__EX_HOLDING,      /* one whose lease is suspended came back */
    LIM__EX_UNTAKEN,      /* the acknowledgement did not come in time */
    LIM__EX_DEADLINE,
    LIM__EX_CANCEL,
    LIM__EX_OWNER_GONE
} lim__ex_event;

typedef struct lim__ex_facts {
    bool task;          /* else an ask */
    bool next;          /* crash policy: another participant */
    bool group;         /* there are others to go to */
    bool last_loss;     /* one more lost delivery is one too many */
} lim__ex_facts;

/* What the caller does, in this order. */
enum {
    LIM__EX_DO_HAND = 1 << 0,         /* link the participant, send it the request */
    LIM__EX_DO_OFFER_TIMER = 1 << 1,  /* expect its acknowledgement */
    LIM__EX_DO_KEEP_LEASE = 1 << 2,   /* the current lease becomes suspended */
    LIM__EX_DO_DROP_LEASE = 1 << 3,   /* the current lease is over: tell the group */
    LIM__EX_DO_SHUN = 1 << 4,         /* do not offer it to this participant again */
    LIM__EX_DO_REVOKE = 1 << 5,       /* tell the current participant to stop */
    LIM__EX_DO_REVOKE_OLD = 1 << 6,   /* suspended leases are over */
    LIM__EX_DO_RESUME = 1 << 7,       /* the suspended lease that spoke becomes the current one */
    LIM__EX_DO_UNWANT = 1 << 8,       /* the group need not look any more */
    LIM__EX_DO_LOSS = 1 << 9,         /* count a lost delivery */
    LIM__EX_DO_WANT = 1 << 10,        /* ask the group for a participant */
    LIM__EX_DO_SETTLE = 1 << 11,      /* tell who answered that its answer counts */
    LIM__EX_DO_SETTLE_NOT = 1 << 12,  /* tell who answered that it does not */
    LIM__EX_DO_OUT_ANSWER = 1 << 13,  /* outcome: what the participant said */
    LIM__EX_DO_OUT_REFUSED = 1 << 14, /* outcome: refused, or crashed{no_participant} if it had been handed over */
    LIM__EX_DO_OUT_CRASHED = 1 << 15,
    LIM__EX_DO_OUT_KILLER = 1 << 16,  /* outcome: crashed{kills_workers} */
    LIM__EX_DO_OUT_TIMEOUT = 1 << 17,
    LIM__EX_DO_OUT_CANCELLED = 1 << 18,
    LIM__EX_DO_END = 1 << 19
};
#define LIM__EX_OUTCOMES                                                                                               \
    (LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_OUT_REFUSED | LIM__EX_DO_OUT_CRASHED | LIM__EX_DO_OUT_KILLER |                 \
     LIM__EX_DO_OUT_TIMEOUT | LIM__EX_DO_OUT_CANCELLED)

/* Moves *state and answers what to do; does nothing itself. */
uint32_t lim__ex_step(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *facts);

#endif
