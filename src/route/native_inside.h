/* SPDX-License-Identifier: Apache-2.0
 * native_inside.h - one native router, shared by the files native_*.c.
 *
 *   native.c        calls: start, wait, finish; the engine's table      native_ring.c   requests: records, messages
 *   native_place.c  helpers: born, promoted, condemned, ended           native_pool.c   zygote, what was only checked
 *   native_time.c   limits, and who looks after them */
#ifndef LIM__ROUTE_NATIVE_INSIDE_H
#define LIM__ROUTE_NATIVE_INSIDE_H

#include "base/list.h"
#include "route/engine.h"
#include "route/native.h"
#include "route/native_ring.h"

enum {
    LIM__NATIVE_TEXT = 256,
    LIM__NATIVE_LIFE_S = 60,    /* of processor time: a helper's, after which the kernel ends it */
    LIM__NATIVE_CLASSES = 12,   /* of blocks in strings: 64 << class bytes */
    LIM__NATIVE_MOVES_MAX = 2,  /* helpers that may die over a call before it started */
    LIM__NATIVE_FAILURES_MAX = 3,
    LIM__NATIVE_OWN_BYTES = 40 << 20, /* of address space, beside the function's: to parse the largest message */
    LIM__NATIVE_NOBODY = 2      /* in place of a place */
};
#define LIM__NATIVE_LOAD_NS 1000000000u /* from the fork to the first call, at most; and of processor time, beside ... */
#define LIM__NATIVE_FORK_NS 20000000u   /* ... the limit of a call, what forking and the loader take */

/*  IDLE --call--> QUEUED --answered, killed, ...--> DONE --told--> IDLE      DONE only if its caller did not wait
 *                 |    `--its helper died, the bus waits to hear how--> DYING --> DONE
 *                 `--abandoned--> DROPPED --answered--> IDLE */
typedef enum lim__native_phase {
    NATIVE__IDLE = 1,
    NATIVE__QUEUED,
    NATIVE__DYING,
    NATIVE__DONE,
    NATIVE__DROPPED
} lim__native_phase;

typedef struct lim__native_call {
    lim__native_phase phase;
    uint32_t count;           /* candidates */
    const uint64_t *ids;      /* theirs, in messages: as long as it is in the row */
    uint32_t moves;           /* helpers that died before they began with it */
    uint32_t messages_end;    /* where its part of messages ends */
    uint64_t begun_ns;
    void *call_ctx;
    lim__route_result result; /* DONE */
    char *text;               /* LIM__NATIVE_TEXT bytes of the ring's texts: what a fault says */
    struct lim__native_call *next_idle;
    lim__list link;           /* in done */
} lim__native_call;

/*  EMPTY --spawn--> LOADING --says so--> READY --condemn--> DYING --ended--> EMPTY      LOADING can be condemned, too */
typedef enum lim__place_phase { PLACE__EMPTY = 1, PLACE__LOADING, PLACE__READY, PLACE__DYING } lim__place_phase;

typedef enum lim__doom { DOOM__DIED = 1, DOOM__CPU, DOOM__WALL, DOOM__NONSENSE, DOOM__LOAD, DOOM__RETIRED } lim__doom;

typedef struct lim__native_place {
    lim__place_phase phase;
    lim__ring_answers *answers;
    int life, pidfd, pid;      /* -1: none (yet) */
    uint64_t born_ns;
    lim__doom doom;            /* DYING */
    lim__native_call *culprit; /* DYING: whose end waits for how the helper ended */
    struct lim__ring *ring;
    lim__watch watch;          /* of life */
} lim__native_place;

typedef struct lim__native_view {
    uint64_t id, stamp; /* 0: never shown */
    uint32_t block, class; /* in strings; class LIM__NATIVE_CLASSES: none */
} lim__native_view;

typedef struct lim__ring {
    lim__router *router; /* NULL: parked */
    uint8_t hash[LIM__HASH_SIZE]; /* of its code */
    uint32_t memory_max;          /* of its helpers */
    struct lim__native *native;
    lim__ring_requests *requests;
    int requests_fd, code_fd, event;
    /* the row of calls */
    lim__native_call *calls; /* unfinished_max of them */
    lim__native_call *idle;  /* first of a list */
    char *texts;
    uint32_t head, tail;     /* serials: oldest that is not answered, next */
    uint8_t row[LIM__RING_CALLS]; /* serial % 64 -> calls */
    lim__list done;
    uint32_t done_count, pending_count, bell; /* pending: QUEUED, DYING or DONE */
    bool batching, notified;
    /* messages: a ring of bytes */
    uint32_t first, last; /* used: from first to last, around the end if last < first; empty when the row is */
    /* candidates */
    lim__native_view *views;
    uint32_t view_count, strings_used, shapes;
    uint32_t free_blocks[LIM__NATIVE_CLASSES]; /* offset + 1 of a list through the blocks; 0: none */
    /* helpers */
    lim__native_place place[2];
    uint32_t current; /* index; LIM__NATIVE_NOBODY */
    uint32_t failures; /* helpers that ended before they were ready, in a row */
    uint64_t failed_ns;
    char failure[LIM__NATIVE_TEXT];
    /* time: of the call at the head */
    uint32_t front; /* serial of the call that was the oldest when it was handed over */
    uint32_t seen;  /* its serial */
    uint64_t seen_ns, seen_cpu_ns;
    uint32_t asked_about; /* lim__ring_head_used_ns: serial of the head then, and its helper's time */
    uint64_t asked_cpu_ns;
    uint64_t idle_cpu_ns; /* of the current helper when nothing was left to do */
    uint32_t idle_looks;  /* since then */
    /* keeper */
    lim__list link;      /* in the keeper's routers; on its own: there is no keeper */
    lim__watch event_watch;
    uint64_t timer;
} lim__ring;

typedef struct lim__keeper { /* a keeper's state */
    lim__list rings;
} lim__keeper;

struct lim__native {
    lim_runtime *rt;
    lim__os *os;
    char helper[4096];
    lim__native_script *script;
    void *script_ctx;
    lim_pid keepers[64];
    lim__mutex mutex; /* guards all below: a leaf */
    int control, pid;
    lim__ring *parked[4]; /* newest first */
};

/* ---- native_ring.c ---- */
/* Writes the request with serial `tail`. False: *why says which limit. */
bool lim__ring_write(lim__ring *g, lim__native_call *c, const lim__route_msg *msg,
                     const lim__candidate *const *candidates, uint32_t n, const char **why);
void lim__ring_release(lim__ring *g, const lim__native_call *c); /* the oldest: its part of messages */

/* ---- native_place.c ---- */
void lim__place_spawn(lim__ring *g, uint32_t place); /* EMPTY; failure is noted, and the place stays empty */
void lim__place_hear(lim__ring *g, uint32_t place); /* what the zygote says on its life */
void lim__place_look(lim__ring *g, uint32_t place); /* what it says itself: ready, last words, death */
/* `text`: of NONSENSE and LOAD. */
void lim__place_condemn(lim__ring *g, uint32_t place, lim__doom doom, uint64_t after_ns, const char *text);
void lim__place_close(lim__ring *g, uint32_t place);
void lim__ring_promote(lim__ring *g); /* somebody becomes current, if anybody can */
void lim__ring_fill_places(lim__ring *g);
void lim__ring_watch_places(lim__ring *g, bool on);
bool lim__ring_has_helper(const lim__ring *g); /* one that is there, or on its way */

/* ---- native.c ---- */
/* Answers of the current helper that are there. False: *text says what is impossible about them. */
bool lim__ring_collect(lim__ring *g, const char **text);
lim__native_call *lim__ring_pop(lim__ring *g); /* the oldest leaves the row */
void lim__ring_idle(lim__ring *g, lim__native_call *c); /* may be used for another */
void lim__ring_end_call(lim__ring *g, lim__native_call *c, const lim__route_result *result); /* DONE, or IDLE if DROPPED */
void lim__ring_fault(lim__ring *g, lim__native_call *c, lim__route_how how, uint64_t after_ns, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void lim__ring_free(lim__ring *g); /* NULL is a no-op */
void lim__ring_pump(lim__ring *g); /* all that can be known now: answers, deaths, limits; tells the owner */
static inline lim__native_call *lim__ring_at(lim__ring *g, uint32_t serial)
{
    return &g->calls[g->row[serial % LIM__RING_CALLS]];
}
static inline uint32_t lim__ring_waiting(const lim__ring *g)
{
    return g->tail - g->head;
}

/* ---- native_time.c ---- */
void lim__ring_observe(lim__ring *g); /* the head is seen to run */
uint64_t lim__ring_head_used_ns(lim__ring *g); /* of processor time, since this was asked about it first: not less */
void lim__ring_limits(lim__ring *g);                     /* condemns what is over one */
void lim__ring_arm(lim__ring *g);                        /* the keeper's timer, for the next of them */
bool lim__ring_may_be_kept(const lim__ring *g);           /* this thread is a scheduler that has a keeper */
void lim__ring_join_keeper(lim__ring *g);
void lim__ring_leave_keeper(lim__ring *g);
lim_process *lim__ring_keeper(lim__ring *g);             /* NULL: none, or it is ending */
lim_err lim__keepers_open(lim__native *n);

/* ---- native_pool.c ---- */
/* Asks the zygote, which is started again if it has ended. 0 or -errno. Any thread. */
int lim__native_spawn(lim__native *n, const lim__zygote_spawn *spawn, const int fds[LIM__ZYGOTE_FDS]);
void lim__native_park(lim__native *n, lim__ring *g); /* which has no router and no keeper any more */
lim__ring *lim__native_take_parked(lim__native *n, const lim__router *r); /* NULL: there is none for it */

#endif
