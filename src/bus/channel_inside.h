/* SPDX-License-Identifier: Apache-2.0
 * channel_inside.h - what the files channel_*.c share: names, tables of subscriptions, subscriptions, ids.
 *
 *      lim__channels                       registry: name -> channel, patterns, every subscription
 *        |-- lim__channel "orders.eu"      one name; counters; one atomic pointer to its table
 *        |     `-- table { s1, NULL, s2 }  who gets its messages, those who asked for "orders.*" included
 *        `-- lim__sub s2 "orders.*"        window, backlog (a ring of messages), owner process
 *
 * Who may do what:
 *   publishers   read a channel's table without a lock: on a scheduler they are covered by the scheduler's turns, host
 *                threads hold `host_lock` while they publish. What is taken out of a table is freed only when every
 *                scheduler has ended the turn it was in and `host_lock` was free once (retire, reclaim).
 *   registry     changes names, patterns and tables under `lock`.
 *   any thread   appends to a subscription's backlog under the subscription's own `lock`, a leaf.
 *   the owner    delivers: it alone moves a subscription's messages out of the backlog or past it.
 *
 * Order of locks: host_lock -> lock -> a subscription's lock (reclaiming under `lock` only tries host_lock). No callback
 * runs under any of them. A publish on a scheduler takes a lock only for subscriptions it cannot deliver to at once.
 *
 * Invariants (lim__sub_check, lim__channels_check):
 *   C1  a live subscription stands exactly once in the table of every open channel its pattern matches.
 *   C2  queued <= limit, and in_flight <= window.
 *   C3  hold: places >= in_flight + queued, equal when no publish is under way. A message that got a place is kept.
 *   C4  a message bypasses the backlog only when the backlog is empty: so what is published first is delivered first.
 *   C5  belled is true while a bell is on its way to the owner: at most one per subscription, however much was appended. */
#ifndef LIM__CHANNEL_INSIDE_H
#define LIM__CHANNEL_INSIDE_H

#include "base/base.h"
#include "base/list.h"
#include "base/map.h"
#include "bus/channel.h"
#include "bus/log.h"

#include <stdatomic.h>

enum {
    LIM__NAME_MAX = 255,
    LIM__CHANNELS_MAX = 100000,
    LIM__SUBS_MAX = 1000000,
    LIM__RETRY_AFTER_MS = 50, /* what a rejected publisher is told to wait: a few turns of a busy consumer */
#ifdef LIM_HOSTILE
    LIM__RING_MIN = 1,
    LIM__TABLE_MIN = 1,
    LIM__ID_CHUNK = 4,
#else
    LIM__RING_MIN = 8,
    LIM__TABLE_MIN = 4,
    LIM__ID_CHUNK = 1024,
#endif
    LIM__ID_CHUNKS_MAX = LIM__SUBS_MAX / LIM__ID_CHUNK + 1,
};

/* ---- names: counted, so that a message in a backlog can say where it came from after the channel has gone ---- */
typedef struct lim__name {
    _Atomic uint32_t refs;
    uint32_t len;
    char text[];
} lim__name;
lim__name *lim__name_new(lim_bytes text); /* one reference; NULL: no memory */
lim__name *lim__name_ref(lim__name *name);
void lim__name_unref(lim__name *name); /* NULL is a no-op */
static inline lim_bytes lim__name_bytes(const lim__name *name)
{
    return (lim_bytes){ name->text, name->len };
}
bool lim__pattern_is_wild(lim_bytes pattern);

/* ---- ids of public values: generation 32 | index + 1 32; a slot holds a pointer ---- */
typedef struct lim__id_slot {
    _Atomic(void *) object;
    uint32_t generation; /* under the lock of the registry, like `next` */
    uint32_t next;       /* while free: index + 1 of the next free slot */
} lim__id_slot;
typedef struct lim__ids {
    _Atomic(lim__id_slot *) chunks[LIM__ID_CHUNKS_MAX]; /* any thread; entries are set once */
    /* under the lock of the registry; free slots are taken first in, first out */
    uint32_t cap, free_first, free_last;
} lim__ids;
uint64_t lim__ids_take(lim__ids *ids); /* reserves; 0: no memory, or all taken */
void lim__ids_set(lim__ids *ids, uint64_t id, void *object);
void lim__ids_give(lim__ids *ids, uint64_t id); /* a slot whose generation is used up is never given out again */
/* Whoever is in that slot, or NULL: the caller compares the object's own id. */
void *lim__ids_get(const lim__ids *ids, uint64_t id);
void lim__ids_fini(lim__ids *ids);

/* ---- what is freed later ---- */
typedef struct lim__retired {
    struct lim__retired *next;
    void (*free)(struct lim__retired *self);
} lim__retired;

/* ---- tables: grow at the end, holes where somebody left; replaced when full or mostly holes ---- */
typedef struct lim__sub_table {
    lim__retired retired;
    uint32_t cap;
    uint32_t holes;          /* registry */
    _Atomic uint32_t count;  /* release: the places below it are filled */
    _Atomic uint32_t holds;  /* subscriptions with policy hold among them */
    _Atomic(lim__sub *) subs[];
} lim__sub_table;

/* One line of counters per scheduler and one for host threads (under host_lock): one writer each, summed by readers. */
typedef struct lim__tally {
    _Alignas(64) _Atomic uint64_t published, matched, delivered, deferred, dropped, rejected;
} lim__tally;

struct lim__channel {
    /* set once */
    lim__retired retired;
    lim__channels *all;
    lim__name *name;
    lim__tally *tallies; /* sched_count + 1 */
    /* any thread */
    _Atomic(lim__sub_table *) table; /* never NULL */
    _Atomic(lim__log *) log;     /* durable: set once, counted; NULL: ephemeral */
    _Atomic(struct lim__chan_slot *) slot; /* a function chooses one subscription (channel_slot.h); NULL: all get it */
    _Atomic uint32_t closed;     /* 1: no longer in the registry; publishing answers CLOSED */
    /* registry */
    uint64_t id; /* of its lim_channel; 0: none. Written before the id is known to anybody */
    uint32_t refs;      /* publishers', subscriptions' by exact name, and one while it is explicit */
    uint32_t live;      /* subscriptions in the table */
    bool explicit_open; /* opened, not merely subscribed to */
    bool allow_hold;
};

/* ---- subscriptions ----
 *   OPEN --channel closed--> DRAINING --backlog empty--> ENDED
 *   OPEN --policy close-------------------------------> ENDED        (`ended` is told on the way into ENDED)
 *   any  --lim__sub_close, lim__sub_detach-------------> CLOSED      */
typedef enum lim__sub_state {
    LIM__SUB_OPEN = 1,
    LIM__SUB_DRAINING, /* takes no new messages */
    LIM__SUB_ENDED,    /* its owner has been, or is being, told */
    LIM__SUB_CLOSED,   /* its owner has left: nothing is delivered any more */
} lim__sub_state;

typedef struct lim__kept { /* a message in a backlog */
    lim__msg *msg;
    lim__name *channel; /* NULL: the pattern is the channel's name */
} lim__kept;

struct lim__sub {
    /* set once, before it is in a table */
    lim__retired retired;
    lim__channels *all;
    const lim__sub_ops *ops;
    void *ctx;
    lim__sched *sched; /* the owner's */
    lim_pid owner;
    lim__name *pattern, *owner_name;
    uint64_t id;
    uint32_t window, limit; /* limit: window + backlog */
    lim_policy policy;
    bool own_turn, wild;
    /* written by the owner's scheduler, read by all */
    _Alignas(64) _Atomic uint32_t in_flight;
    _Atomic uint64_t delivered; /* also the last sequence number */
    uint64_t acked;             /* owner only */
    /* any thread */
    _Alignas(64) _Atomic uint32_t state; /* lim__sub_state; written under `lock` */
    _Atomic uint32_t queued;             /* messages in the ring; written under `lock` */
    _Atomic uint32_t places;             /* hold only: in flight, queued, or promised by a publish under way */
    _Atomic uint32_t episode;            /* 1: has dropped since its backlog was empty last; written under `lock` */
    _Atomic uint64_t dropped;            /* written under `lock` */
    _Atomic uint32_t refs;               /* the owner's, and the bell's */
    /* under `lock` */
    _Alignas(64) lim__mutex lock;
    lim__kept *ring; /* ring_cap (a power of two) places, the oldest message at ring_head */
    uint32_t ring_cap, ring_head;
    bool belled, tell_dropped;
    lim_err why;
    /* registry */
    lim__list in_all, in_wild;
    lim__channel *channel; /* exact: counted; NULL once left */
    uint32_t slot;         /* exact: its index in the channel's table */
    bool listed;
};

struct lim__channels {
    lim_runtime *rt;
    uint32_t sched_count;
    _Atomic uint64_t epoch; /* changes when a name that had nobody may have somebody */
    _Alignas(64) lim__mutex host_lock;
    _Alignas(64) lim__mutex lock;
    lim__mutex slots_lock; /* before `lock` */
    /* under `lock` */
    lim__smap names, slots;     /* slots: name -> lim__chan_slot; changed under slots_lock, too */
    lim__list wild, subs;
    uint64_t sub_count, next_sub;
    uint32_t channels_max, subs_max;
    bool allow_hold; /* of channels that nobody opened with options */
    lim__ids channel_ids, local_ids;
    lim__retired *fresh, *aging; /* retired after the stamp was taken; before */
    lim__quiet_stamp stamp;
};

static inline void lim__lock(lim__mutex *m)
{
    int err = pthread_mutex_lock(m);
    LIM_ASSERT(err == 0);
}
static inline void lim__unlock(lim__mutex *m)
{
    int err = pthread_mutex_unlock(m);
    LIM_ASSERT(err == 0);
}
/* The scheduler of this bus whose turn it is on the calling thread; NULL: a host thread, or another bus's scheduler. */
static inline lim__sched *lim__sched_here(const lim__channels *all)
{
    lim__sched *s = lim__sched_current();
    return s && lim__sched_runtime(s) == all->rt ? s : NULL;
}
/* For counters with one writer. */
#define LIM__ADD_OWN(counter, n)                                                                                       \
    atomic_store_explicit(&(counter), atomic_load_explicit(&(counter), memory_order_relaxed) + (n), memory_order_relaxed)
#define LIM__RELAXED(counter) atomic_load_explicit(&(counter), memory_order_relaxed)

/* ---- registry (channel.c) ---- */
void lim__retire(lim__channels *all, lim__retired *what, void (*free)(lim__retired *)); /* takes `lock` */
lim_err lim__channel_open_locked(lim__channels *all, lim_bytes name, const lim_channel_opts *opts, lim__channel **out);
void lim__channel_close_locked(lim__channel *ch); /* and ends its subscriptions */
/* Puts a subscription into every table it belongs to. FULL, NOMEM, MISUSE, GONE (closed meanwhile): nothing changed. */
lim_err lim__sub_enter(lim__sub *sub, lim_diag *diag);
void lim__sub_leave(lim__sub *sub); /* idempotent: out of every table; any thread */
void lim__channels_check(lim__channels *all);

/* ---- subscription (channel_sub.c) ---- */
lim_err lim__sub_new(lim__channels *all, const lim__sub_config *config, lim_diag *diag, lim__sub **out);
void lim__sub_own(lim__sub *sub, lim_pid owner); /* before lim__sub_enter */
void lim__sub_ref(lim__sub *sub);
void lim__sub_unref(lim__sub *sub);
/* Any thread: nothing is kept or delivered any more, what was kept is gone. What lim__sub_close begins with. */
void lim__sub_detach(lim__sub *sub);
void lim__sub_end(lim__sub *sub, lim__sub_state to, lim_err why); /* any thread; the owner is told by a bell */
/* A bell: the letter that makes the owner look at the subscription. Only while it is not CLOSED, and one at a time.
 * self NULL: a host thread, or a handler without its process at hand. */
bool lim__sub_want_bell_locked(lim__sub *sub);
void lim__sub_send_bell(lim__sub *sub, lim_process *self);
void lim__sub_ring(lim__sub *sub, lim_process *self); /* both */
void lim__sub_return(lim__sub *sub, uint32_t n); /* owner's scheduler: n delivered messages are done */
void lim__sub_credit(lim_process *owner, lim__sub *sub, uint32_t n); /* the same, and delivers more */
void lim__sub_tell_dropped(lim__sub *sub); /* owner's scheduler: if there is something to tell */
void lim__sub_check(lim__sub *sub);

typedef enum lim__keep {
    LIM__KEEP_GONE = 1,  /* the subscription ended meanwhile */
    LIM__KEEP_IN_WINDOW, /* will be delivered as soon as its owner looks */
    LIM__KEEP_BACKLOG,
    LIM__KEEP_FOR_OLDEST, /* in the backlog, the oldest of which was dropped */
    LIM__KEEP_DROPPED,    /* by policy, or for want of memory (msg NULL) */
} lim__keep;
/* What the publisher knows of the owner: on another scheduler; here and not ready to write; here. */
typedef enum lim__near { LIM__FAR = 1, LIM__NEAR_BUSY, LIM__NEAR } lim__near;
typedef struct lim__keep_result {
    lim__keep how;
    uint32_t current; /* messages in flight and queued before this one */
    uint32_t dropped; /* this one, or older ones */
    bool bell;        /* the caller is to send one */
    bool tell;        /* the owner is to hear that messages were dropped */
} lim__keep_result;
/* Any thread. Policy hold: a place was reserved. */
lim__keep_result lim__sub_keep(lim__sub *sub, lim__msg *msg, lim__name *channel, lim__near near);
/* Owner's scheduler, backlog empty: delivers past it (C4). */
void lim__sub_deliver(lim__sub *sub, lim_bytes channel, lim_bytes headers, lim_bytes payload, lim__msg *msg);
/* Owner's scheduler: window and `ready` allow another one. */
static inline bool lim__sub_may_deliver(const lim__sub *sub)
{
    return LIM__RELAXED(sub->in_flight) < sub->window && (!sub->ops->ready || sub->ops->ready(sub->ctx));
}

/* ---- publish (channel_publish.c) ---- for who has seen to it that the entry and its table stay: on a scheduler, or
 * (sched NULL) under host_lock. self may be NULL in both. */
lim_err lim__publish_covered(lim__channels *all, lim_process *self, lim__sched *sched, lim__channel *ch, lim_bytes payload,
                             lim_bytes headers, bool mandatory, lim_admission *out);
/* Host threads, around the above. A routing function that publishes while its own message is being published holds the lock
 * already: it goes on without taking it again. */
typedef struct lim__host_turn {
    lim__channels *locked, *before; /* locked NULL: it was held */
} lim__host_turn;
void lim__host_enter(lim__channels *all, lim__host_turn *turn);
void lim__host_leave(const lim__host_turn *turn);
bool lim__host_inside(void); /* this thread holds such a lock: it must not wait for anybody */
/* A message that is stored already, under host_lock: `hold` is not asked. */
void lim__publish_stored(lim__channel *ch, lim__msg *msg, lim_admission *out);
/* True: nobody would get it, and `count` such messages have been counted; under host_lock, too. */
bool lim__publish_unheard(lim__channel *ch, uint32_t count);

#endif
