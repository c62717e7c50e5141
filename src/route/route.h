/* SPDX-License-Identifier: Apache-2.0
 * route.h - routing functions: which of these candidates gets this message?
 *
 * A router is one version (an artifact, compiled) on one scheduler for one slot. Its owner, a group's process, asks it
 * with a message and the candidates and gets an answer at once or, when a Lua function needs more than a slice of
 * time, later from lim__router_resume, which the owner calls in its next turns:
 *
 *      owner --call--> runs up to one slice --> decided, none, crashed, timed_out, not_started
 *                            `--> pending --resume (a slice of the oldest)--> ... --> on_done(call_ctx, result)
 *
 * Nothing a function does harms anyone else: it sees only a whitelist, its memory is limited, it is put aside after a
 * slice without its help, and at its limit it is dropped. All calls on one router come from its scheduler. */
#ifndef LIM__ROUTE_H
#define LIM__ROUTE_H

#include "actor/actor.h"
#include "artifact/artifact.h"
#include "base/hist.h"
#include "data/data.h"

/* ---- what a function decides about ---- */
typedef struct lim__candidate { /* owned by the group; a persistent object per worker */
    uint64_t id;                /* the worker's pid; never reused, never 0 */
    uint64_t stamp;             /* changed by the owner whenever a number below changes; never 0 */
    uint32_t slot;              /* small dense index; may be used again, together with another id */
    uint32_t in_flight, max_in_flight, buffer_depth, latency_us;
    lim_bytes name, node; /* identity, and where it runs; they and tags and types never change for one id */
    const lim_bytes *tags, *types;
    uint32_t tag_count, type_count;
} lim__candidate;

typedef struct lim__route_msg {
    lim_bytes payload, headers; /* headers packed as in data.h; needed only until the call returns, unless keep is set */
    lim__msg *keep;             /* what payload and headers are part of: referenced instead of copied when the call is
                                 * put aside; NULL: they are copied then */
} lim__route_msg;

typedef enum lim__route_how {
    LIM__ROUTE_DECIDED = 1, /* index, id */
    LIM__ROUTE_NONE,        /* nobody shall have it */
    LIM__ROUTE_CRASHED,     /* text, line: it raised an error, hit its memory limit, or answered nonsense */
    LIM__ROUTE_TIMED_OUT,   /* text, after_ns: it used up its time */
    LIM__ROUTE_NOT_STARTED, /* text: which limit, its value, its configuration key */
    LIM__ROUTE_PENDING      /* only as the answer of lim__router_call; the result is not written */
} lim__route_how;
const char *lim__route_how_text(lim__route_how how); /* "decided"; static */

typedef struct lim__route_result {
    lim__route_how how;
    uint32_t index;       /* DECIDED: into the array given to lim__router_call */
    uint64_t id;          /* DECIDED: that candidate's id (it may have ended since, when the call was pending) */
    uint64_t after_ns;    /* TIMED_OUT: processor time, or time since the call when that was the limit */
    int line;             /* CRASHED: in the source; 0: not known */
    const uint32_t *set;  /* DECIDED, with opts.sets: all that were chosen, in order, `index` the first; a VIEW as text is.
                           * NULL: only index */
    uint32_t set_count;
    const char *text;     /* VIEW, never NULL: until the next call of a function of this router */
    const uint8_t *hash;  /* of the version: CRASHED, TIMED_OUT; 32 bytes */
} lim__route_result;

/* ---- a router ---- */
typedef struct lim__route_limits { /* 0: the default */
    uint64_t cpu_ns;         /* routing.cpu_us_max: of one call; 20 ms */
    uint64_t wall_ns;        /* routing.wall_ms_max: from call to answer; 5 s */
    uint64_t slice_ns;       /* routing.slice_us: how long one call may keep its scheduler; 200 us */
    uint32_t unfinished_max; /* routing.unfinished_max: calls put aside; 4. At most LIM__ROUTE_UNFINISHED_CAP */
    uint32_t memory_max;     /* routing.memory_bytes_max: bytes of the Lua state beside candidates; 1 MiB; 64 KiB to 8 MiB */
    uint32_t log_bytes_per_s; /* routing.log_bytes_max: what one version may print in a second; 8192 */
} lim__route_limits;
enum { LIM__ROUTE_UNFINISHED_CAP = 64, LIM__ROUTE_SOURCE_MAX = 256 * 1024, LIM__ROUTE_TEXT_MAX = 64 * 1024,
       LIM__ROUTE_LINE_MAX = 1024 };

/* A routing function of the embedding program: lim_route_decide, and its context. */
struct lim_route_message;
struct lim_candidate;
typedef struct lim__host {
    int64_t (*decide)(void *ctx, const struct lim_route_message *msg, const struct lim_candidate *candidates, uint32_t n);
    void *ctx;
    bool isolated; /* each call on a thread of the pool for blocking work; without a scheduler: in the call */
} lim__host;

typedef struct lim__router lim__router; /* OBJECT, shared by its owner and its unfinished calls; one scheduler */
typedef struct lim__router_opts {
    lim__sched *sched;           /* NULL: offline */
    lim__os *os;                 /* NULL: linux */
    lim__artifact *artifact;     /* referenced; its engine decides */
    const char *name;            /* how the source is called in messages; NULL: the artifact's name */
    uint64_t seed;               /* of math.random and of ties */
    uint64_t *counter;           /* the slot's counter, the owner's: kept over versions; NULL: the router's own */
    uint32_t instruction_ns;     /* 0: the clock is read. Else time passes with instructions (the simulator, where the
                                  * clock stands still within a turn, and replays): 1000 of them per look at the clock */
    lim__route_limits limits;
    /* How a call that was PENDING ended: exactly once each, inside lim__router_resume. May call and unref the router. */
    void (*on_done)(void *ctx, void *call_ctx, const lim__route_result *result);
    /* A line that the function printed, at most LIM__ROUTE_LINE_MAX bytes without a newline; a VIEW until it returns.
     * Runs inside lim__router_open, _call and _resume; must not call the router. Lines over log_bytes_per_s do not get
     * here: they are counted. NULL: nobody reads them. */
    void (*on_log)(void *ctx, const char *line, size_t len);
    /* Calls that waited for something outside have become runnable; on the router's scheduler, in some process's turn.
     * The owner calls lim__router_resume in a turn of its own. */
    void (*on_ready)(void *ctx);
    void *ctx;
    bool sets;                   /* several may be chosen: a Lua function may answer a list of candidates, or true for all,
                                  * and a host function LIM_ROUTE_EVERYBODY */
    lim__host host;              /* what a HOST artifact stands for; zeroed: it is not there (NOTFOUND) */
    struct lim__native *native;  /* native.h: what a NATIVE artifact needs; NULL: the engine is off (MISUSE) */
} lim__router_opts;
/* Compiles, runs the chunk in the sandbox within cpu_ns, checks that it answered a function. One reference.
 * CODE: diag says line, column if known, why, and the line itself; MISUSE, INVALID (a limit out of range), TOOBIG, NOMEM. */
lim_err lim__router_open(const lim__router_opts *opts, lim_diag *diag, lim__router **out);
/* Compiles and checks without keeping anything. */
lim_err lim__router_check(const lim__router_opts *opts, lim_diag *diag);
lim__router *lim__router_ref(lim__router *r);
/* Gives up a reference. Unfinished calls hold one each: a router whose owner left still wants lim__router_resume until
 * that answers 0; with the last call's end it is freed. NULL is a no-op. */
void lim__router_unref(lim__router *r);
/* n may be 0: answers NONE without running anything. Candidates and array may change after it returned. */
lim__route_how lim__router_call(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                                uint32_t n, void *call_ctx, lim__route_result *result);
/* One slice for the oldest unfinished call; it goes to the end of the row if it needs another. Answers how many are
 * unfinished: 0 means that nothing is left to resume, and, if the caller holds no reference, that `r` is gone. */
uint32_t lim__router_resume(lim__router *r);
uint32_t lim__router_pending(const lim__router *r);
/* Those of them that lim__router_resume would move on now; of Lua all, of others maybe none until something arrives. */
uint32_t lim__router_runnable(const lim__router *r);
/* From true to false, calls of an engine that runs elsewhere answer PENDING at once, and go there together, which is
 * cheaper for many: at most unfinished_max of them. Others are not changed by it. */
void lim__router_batch(lim__router *r, bool on);
/* How many calls may go over together now; 0: this engine gains nothing by it. */
uint32_t lim__router_batch_room(const lim__router *r);
/* As batch false, and waits at most a slice for the answers: lim__router_resume then has them. */
void lim__router_batch_wait(lim__router *r);
/* As many calls as may be are unfinished, and none of them has used up a slice, as far as is known: they wait for the
 * machine, or behind each other. Another call would not be started; it had better wait until one has ended. */
bool lim__router_busy(lim__router *r);
/* Drops the unfinished calls without a word; for an owner that ends. Answers how many; unref comes after. */
uint32_t lim__router_abandon(lim__router *r);
/* For a router that somebody else opened: what its callbacks get, and its counter, from now on. Nothing is unfinished. */
void lim__router_adopt(lim__router *r, void *ctx, uint64_t *counter);

typedef struct lim__router_stats {
    uint64_t calls, decided, none, crashed, timed_out, not_started;
    uint64_t slices;       /* beyond the first one of each call */
    uint64_t overruns;     /* host functions: calls that took longer than a slice */
    uint64_t log_dropped;  /* lines that were printed beyond log_bytes_per_s */
    uint32_t unfinished;
    uint64_t memory_bytes; /* of the Lua state now; 0 for built-ins */
    lim__hist time_ns;     /* processor time; every call that was put aside, one in 16 of the others */
} lim__router_stats;
void lim__router_stats_get(const lim__router *r, lim__router_stats *out);
lim__artifact *lim__router_artifact(const lim__router *r); /* VIEW: as long as the router */
const char *lim__router_hash_text(const lim__router *r);   /* 64 hex; VIEW */

/* The text of a message's field: a path into its JSON payload (a.b[2]), or $header.NAME. VIEW of `doc` (which it parses
 * into) or `scratch`. False: the message has none. */
bool lim__route_field(lim__doc *doc, lim__buf *scratch, const lim__route_msg *msg, lim_bytes field, lim_bytes *out);

#endif
