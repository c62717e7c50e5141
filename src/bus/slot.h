/* SPDX-License-Identifier: Apache-2.0
 * slot.h - a router slot: which version of a routing function decides, which ones did before, and what is tried out.
 *
 *      versions   live | before | ... | the oldest that is kept          trial: shadow or ramp
 *                  ^ swap = one assignment                                 |
 *      a message --+--- ramp: a share of the messages, chosen by hash -----+
 *                  `--- shadow: asked as well, compared, never heard ------'
 *
 *   slot.c       versions: made, swapped, closed when nobody needs them; the breaker
 *   slot_plan.c  deploy, rollback, promote, stop: what is to change, and that it does
 *   slot_run.c   calls: who decides about this message; shadows; what is unfinished
 *   slot_book.c  what happened: history, what functions printed
 *   slot_show.c  what people see of it
 *   slot_change.c  one change after the other: planned, stored, carried out, answered
 *   slot_keep.c  what survives a restart; slot_restore.c takes it from there again
 *
 * A slot belongs to one owner (a group's process; a channel's router, under its lock) and has no lock of its own. One
 * version is one artifact with one set of limits; deploying it again makes the same one live again.
 *
 * Invariants (lim__slot_check):
 *   V1  live is the first of `versions` and has a router.
 *   V2  a version with unfinished calls has its router: it is closed only when the last of them has ended.
 *   V3  nothing is closed or freed inside a call or a resume of this slot (lim__slot_tidy does it afterwards): so what
 *       these answer stays valid until the owner's next call.
 *   V4  one version per artifact is kept; others of the same bytes are only draining. */
#ifndef LIM__SLOT_H
#define LIM__SLOT_H

#include "base/list.h"
#include "bus/bus.h"
#include "bus/durable.h"
#include "route/predicate.h"
#include "route/route.h"

enum {
    LIM__SLOT_KEEP = 8,
    LIM__SLOT_KEEP_MAX = 64,
    LIM__SLOT_DRAINING_MAX = 16,  /* versions of before that still have unfinished calls */
    LIM__SLOT_HISTORY_MAX = 128,  /* entries */
    LIM__SLOT_LOG_LINES = 512,    /* of what functions printed, */
    LIM__SLOT_LOG_BYTES = 64 << 10,
    LIM__SLOT_LINE_MAX = 1024,
    LIM__SLOT_DIFFS = 16,         /* of the shadow's different decisions, the last ones */
    LIM__SLOT_COMPARES = 64,      /* that wait for one of the two answers */
    LIM__SLOT_BREAK_FAULTS = 10,
    LIM__SLOT_BREAK_FAULTS_MAX = 10000,
    LIM__SLOT_BREAK_MS = 10000,
    LIM__SLOT_CODE_KEY = LIM__HASH_SIZE + 1, /* hash, engine */
    LIM__SLOT_RAMP_WHOLE = 10000  /* a ramp is counted in hundredths of a percent */
};

typedef struct lim__slot lim__slot;
typedef struct lim__version lim__version;

/* How a version is to run: lim_deploy_opts with the defaults filled in, and nothing borrowed. */
typedef struct lim__slot_terms {
    lim__route_limits limits;
    lim_on_fault on_fault;
    uint32_t break_faults, break_ms; /* break_faults LIM_UNLIMITED: never */
    uint32_t keep;
    lim_trial trial;
    uint32_t ramp;
    char by[64], ramp_key[128], ramp_where[1024];
} lim__slot_terms;
/* INVALID, and diag names the option, its value and its bounds. */
lim_err lim__slot_terms_of(const lim_deploy_opts *o, lim__slot_terms *out, lim_diag *diag);

struct lim__version {
    lim__list node;            /* in slot->versions, newest activation first; or a list of its own: the trial */
    lim__slot *slot;
    lim__artifact *artifact;
    lim__router *router;       /* NULL: retired, nothing is compiled */
    lim__slot_terms terms;
    lim__pred *where;          /* of a ramp: terms.ramp_where; NULL: any message */
    char id[LIM__HASH_SHORT + 23]; /* short hash, or the name of the strategy */
    uint64_t deployed_wall_ns;
    lim__router_stats *past;   /* of the routers it had before; NULL: none */
    uint64_t *fault_ns;        /* the breaker's: a ring of the last break_faults instants; NULL: none yet */
    uint32_t fault_at, fault_count, fault_max; /* fault_max: what the ring has room for */
    bool tripped;              /* the breaker took it off; only an operator brings it back */
    bool shadow;               /* its router is a shadow's: it has a counter of its own, and nobody waits for it */
    bool leaving;              /* not kept: goes with its last unfinished call */
    bool held;                 /* a plan is about it: it stays as it is */
};

/* A change that is prepared (what can fail has not failed) and is carried out, or not, later: when it is stored. */
typedef enum lim__slot_act { LIM__SLOT_LIVE = 1, LIM__SLOT_TRY, LIM__SLOT_SHARE, LIM__SLOT_END } lim__slot_act;
typedef struct lim__slot_plan {
    lim__slot_act act;
    const char *kind;          /* of the history's entry; static */
    lim__version *v;
    lim__router *fresh;        /* of a shadow that goes live */
    lim__pred *where;          /* of a ramp */
    lim__slot_terms terms;
    lim_hash previous;         /* what was live */
    char by[64], detail[200];
} lim__slot_plan;

/* Does this message meet the trial? Chance plays no part: `key` is hashed, or what the message has at `by`, with `seed`. */
typedef struct lim__ramp {
    uint64_t seed;        /* the beginning of the version's hash */
    uint32_t share;       /* of LIM__SLOT_RAMP_WHOLE */
    const char *by;       /* a field; "": `key` */
    const lim__pred *where; /* NULL: any message */
} lim__ramp;
typedef struct lim__ramp_reader { /* reads messages for it; zeroed at first */
    lim__doc *doc;
    lim__buf scratch;
    lim__pred_reader reader;
} lim__ramp_reader;

typedef struct lim__slot_compare { /* a decision and its shadow's, until both are there */
    lim__list node;
    uint64_t id;               /* the shadow's call context */
    void *live_ctx;            /* the live call's, while it is not finished */
    struct lim__slot_answer {
        lim__route_how how;    /* PENDING: not there yet */
        uint64_t candidate;
        char name[64], text[96];
    } live, shadow;
    lim__msg *msg;
    char about[160];           /* the message's beginning, when there is no `msg` to look at later */
} lim__slot_compare;

typedef struct lim__slot_diff {
    uint64_t wall_ns;
    char live[112], shadow[112], about[160];
} lim__slot_diff;

typedef struct lim__slot_entry { /* of the history; text: version, previous, by, detail, each with its NUL */
    lim__list node;
    uint64_t n, wall_ns;
    char kind[16];
    char version[40], previous[40], by[64], detail[200];
} lim__slot_entry;

typedef struct lim__slot_line { /* that a function printed */
    lim__list node;
    uint64_t n, wall_ns;
    char version[56];
    uint32_t len;
    char text[];
} lim__slot_line;

typedef struct lim__slot_opts {
    lim_bus *bus;
    const char *kind;          /* "group", "channel": what it stands in front of, for events and lists */
    lim_bytes name;            /* VIEW, as long as the slot */
    const char *first;         /* the strategy that decides before anything is deployed; NULL: least_loaded */
    void *owner;
    /* An unfinished call of the owner's has ended. Inside lim__slot_resume. */
    void (*on_done)(void *owner, void *call_ctx, lim__version *v, const lim__route_result *result);
    /* The candidate's name, for people; VIEW until the next call. NULL: they are told apart by id. */
    lim_bytes (*name_of)(void *owner, uint64_t candidate);
    /* There is something to resume, or to tidy: the owner calls lim__slot_resume in a turn of its own. */
    void (*on_ready)(void *owner);
    /* Versions, trial or history are others now. NULL: nobody keeps them. */
    void (*on_change)(void *owner);
} lim__slot_opts;

struct lim__slot {
    lim__slot_opts o;
    lim_process *self;         /* the owner's, for events; NULL: it is none */
    lim__list versions;
    lim__version *live, *trial;
    lim__router *fallback;     /* least_loaded, the strategy of last resort */
    bool deployed;             /* something was deployed: it is not only the strategy it began with */
    bool untidy;               /* something is to be closed or forgotten */
    uint32_t busy;             /* V3: so deep inside calls and resumes */
    lim__version *batch;       /* whose calls go over together now; NULL: none */
    uint64_t counter, shadow_counter;
    lim__ramp_reader reader;
    char last_fault[200];
    /* the shadow's comparison */
    lim__list compares;
    uint32_t compare_count;
    uint64_t next_compare, agreed, differed, live_faults, shadow_faults, skipped;
    lim__slot_diff *diffs;     /* LIM__SLOT_DIFFS; NULL: none yet */
    uint64_t diff_count, trial_wall_ns;
    /* book */
    lim__list history, lines;
    uint32_t history_count, line_count, line_bytes;
    uint64_t next_entry, next_line, lines_dropped;
    /* code that its stored row names; before: while a commit is under way */
    uint8_t (*named)[LIM__SLOT_CODE_KEY], (*named_before)[LIM__SLOT_CODE_KEY];
    uint32_t named_count, named_before_count;
    struct lim__slot_receipt *receipt; /* of the commit that is under way, or was the last; NULL: there was none */
};

/* ---- slot.c, slot_plan.c ---- */
lim_err lim__slot_init(lim__slot *s, const lim__slot_opts *opts); /* with least_loaded; on failure all is freed again */
void lim__slot_fini(lim__slot *s);                                /* zeroed memory is fine */
/* Calls in flight end on the version they began with; whatever is decided from here on is decided by the new one, or as
 * terms->trial says. `if_version`: the beginning of the hash that must be live, or ""; else EXISTS. A bad one changes
 * nothing. previous (may be NULL): the artifact that was live. */
lim_err lim__slot_deploy(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, const char *if_version,
                         lim_diag *diag, lim_hash *previous);
/* To a version that is kept: the beginning of its hash (or a strategy's name), or "": the last good one. NOTFOUND. */
lim_err lim__slot_rollback(lim__slot *s, const char *to, const char *by, lim_diag *diag, lim_hash *previous);
lim_err lim__slot_promote(lim__slot *s, const char *by, lim_diag *diag, lim_hash *previous); /* NOTFOUND: no trial */
lim_err lim__slot_stop(lim__slot *s, const char *by, lim_diag *diag);                        /* NOTFOUND: no trial */
/* The same in two steps: a plan, to be applied or discarded; one at a time. */
lim_err lim__slot_plan_deploy(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, const char *if_version,
                              lim_diag *diag, lim__slot_plan *p);
lim_err lim__slot_plan_rollback(lim__slot *s, const char *to, const char *by, lim_diag *diag, lim__slot_plan *p);
lim_err lim__slot_plan_promote(lim__slot *s, const char *by, lim_diag *diag, lim__slot_plan *p);
lim_err lim__slot_plan_stop(lim__slot *s, const char *by, lim_diag *diag, lim__slot_plan *p);
void lim__slot_apply(lim__slot *s, lim__slot_plan *p);
void lim__slot_discard(lim__slot *s, lim__slot_plan *p); /* zeroed: nothing to do */
lim__version *lim__slot_find(lim__slot *s, const char *hash); /* among those that are kept; NULL */
/* A version that crashed or took too long: counted by the breaker, which may put another one in its place. */
void lim__slot_fault(lim__slot *s, lim__version *v, const lim__route_result *r);
void lim__slot_tidy(lim__slot *s); /* closes what has no more calls, forgets what is not kept; unless the slot is busy */
/* private to slot*.c */
lim_err lim__slot_open_router(lim__slot *s, lim__version *v, lim_diag *diag);
lim__router *lim__slot_fallback(lim__slot *s);                           /* NULL: no memory */
bool lim__ramp_takes(const lim__ramp *ramp, lim__ramp_reader *r, const lim__route_msg *msg, uint64_t key);
void lim__ramp_reader_fini(lim__ramp_reader *r);
/* A difference between live and shadow, for people: what both said, about which message. */
void lim__slot_diff_add(lim__slot *s, const char *live, const char *shadow, lim_bytes about);
/* Who is asked instead when `v` failed; compiled. NULL: nobody. */
lim__version *lim__slot_other(lim__slot *s, const lim__version *v);
lim__version *lim__slot_version_new(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms); /* NULL: no memory */
void lim__slot_version_free(lim__version *v);
void lim__slot_tally(const lim__version *v, lim__router_stats *out); /* of all the routers it had */
uint64_t lim__slot_faults(const lim__router_stats *t);
void lim__slot_check(const lim__slot *s);

/* ---- slot_run.c ---- */
/* Asks the version whose turn it is, and the shadow. `key`: what a ramp without ramp_key hashes; the same message keeps
 * its version. result->text is a VIEW until the next call. *by: who was asked. */
lim__route_how lim__slot_call(lim__slot *s, const lim__route_msg *msg, const lim__candidate *const *candidates,
                              uint32_t n, uint64_t key, void *call_ctx, lim__route_result *result, lim__version **by);
/* After a fault of `v`, as its on_fault says: asks the one before it, or the built-in strategy. False: nobody is asked.
 * *by may be NULL then: the built-in strategy has decided. */
bool lim__slot_call_other(lim__slot *s, const lim__version *v, const lim__route_msg *msg,
                          const lim__candidate *const *candidates, uint32_t n, void *call_ctx,
                          lim__route_result *result, lim__route_how *how, lim__version **by);
/* How many calls may be decided together; 0: one by one (built-in strategies, Lua, while something is tried out). Between
 * begin and end calls are PENDING; end waits at most a slice, and tells those that are answered. */
uint32_t lim__slot_batch_room(const lim__slot *s);
bool lim__slot_busy(const lim__slot *s); /* lim__router_busy of the version that is live */
void lim__slot_batch_begin(lim__slot *s);
void lim__slot_batch_end(lim__slot *s);
void lim__slot_resume(lim__slot *s);   /* a slice for every version with unfinished calls */
bool lim__slot_runnable(const lim__slot *s);
uint32_t lim__slot_pending(const lim__slot *s);
void lim__slot_done(void *version, void *call_ctx, const lim__route_result *result); /* the routers' on_done */
void lim__slot_compares_drop(lim__slot *s);

/* ---- slot_book.c ---- */
void lim__slot_note(lim__slot *s, const char *kind, const char *version, const char *previous, const char *by,
                    const char *format, ...) __attribute__((format(printf, 6, 7)));
void lim__slot_remember(lim__slot *s, const lim__slot_entry *entry); /* a copy; of what happened before a restart */
void lim__slot_log(void *version, const char *line, size_t len); /* the routers' on_log */
void lim__slot_book_fini(lim__slot *s);

/* ---- slot_show.c ---- */
void lim__slot_line_json(lim__slot *s, lim__json *j); /* one object, a line of a list */
void lim__slot_json(lim__slot *s, lim__json *j);      /* one object, everything but history and lines */
void lim__slot_versions_json(const lim__slot *s, const char *key, lim__json *j);
void lim__slot_history_json(const lim__slot *s, uint64_t after, uint32_t max, lim__json *j);
void lim__slot_lines_json(const lim__slot *s, uint64_t after, uint32_t max, lim__json *j);

/* Tells whoever asked for a change what became of it, and which version is live now; {0}: nobody did. previous: the one
 * before, or NULL. */
struct lim__deployed;
void lim__slot_answer(lim_process *self, const lim__slot *s, lim_pid to, const struct lim__deployed *what,
                      const lim_hash *previous);

/* ---- slot_change.c: one change after the other, from the letter `deploy` to its answer ---- */
struct lim__deploy;
struct lim__slot_stored;
typedef struct lim__slot_change_ops {
    /* Is this possible here? On an error diag says why not. */
    lim_err (*may)(void *owner, const struct lim__deploy *d, lim_diag *diag);
    /* Makes ready what must not fail later; NULL: nothing. `discard` (may be NULL) takes it back. */
    lim_err (*prepare)(void *owner, const lim__slot_plan *p, lim_diag *diag);
    void (*discard)(void *owner);
    void (*before)(void *owner);    /* right before the plan is applied; NULL: nothing */
    void (*installed)(void *owner); /* right after it, before anybody is told; NULL: nothing */
    /* what: a lim__deploy_what. It is answered; but REMOVE: before that, and the owner forgets the slot now. */
    void (*done)(void *owner, int what);
} lim__slot_change_ops;
typedef struct lim__slot_change {
    lim__slot *s;
    const lim__slot_change_ops *ops;
    void *owner;
    lim__slot_plan plan;   /* what waits for its commit; zeroed: nothing, or something without a plan */
    int what;              /* lim__deploy_what: which, */
    lim_pid by;            /* and who is answered; {0}: nobody is */
    uint64_t by_ref, ref;  /* ref: of the commit */
    bool kept;             /* there is a store */
    bool has_plan;         /* the commit that is under way is the plan's */
    bool keeping, dirty;   /* a commit is under way; the slot has changed since */
    bool applying;         /* what changes now is stored already */
    lim__stash waiting;
} lim__slot_change;
void lim__slot_change_init(lim__slot_change *ch, lim__slot *s, const lim__slot_change_ops *ops, void *owner, bool kept);
void lim__slot_change_fini(lim__slot_change *ch); /* zeroed memory is fine */
void lim__slot_change_begin(lim__slot_change *ch, const lim_signal *signal); /* a letter `deploy` */
/* A letter `slot_stored`. Then come those that waited: on_signal(self, each, state). */
void lim__slot_change_stored(lim__slot_change *ch, const struct lim__slot_stored *k, lim_on_signal *on_signal, void *state);
void lim__slot_change_keep(lim__slot_change *ch);    /* stores the slot as it is; nobody waits */
void lim__slot_change_noticed(lim__slot_change *ch); /* for on_change: it has changed by itself, unless a plan did that */
/* The owner's process died and this is another one: goes on with what was under way. False: its commit is not through yet. */
bool lim__slot_change_again(lim__slot_change *ch, lim_on_signal *on_signal, void *state);

/* ---- slot_keep.c, slot_restore.c: buses with a store ---- */
/* Commits the slot as it will be once the plan is applied (NULL: as it is; forget: not at all). The owner gets one letter
 * `slot_stored` with this ref, and then calls lim__slot_kept; one commit at a time. On an error none comes. */
lim_err lim__slot_keep(lim__slot *s, const lim__slot_plan *p, bool forget, lim_pid owner, uint64_t ref);
void lim__slot_kept(lim__slot *s, bool stored);
/* The same as the letter says, for whoever cannot get it any more. False: the commit is under way. */
bool lim__slot_keep_outcome(const lim__slot *s, lim_err *out);
/* A slot that is new takes what was stored of it. True: it is not as its row says, and wants to be kept anew. */
bool lim__slot_restore(lim__slot *s);
/* Functions of the program, by the hash of their identity; the first one of a hash stays. Any thread. */
lim_err lim__slot_host_put(lim_bus *bus, const lim__artifact *a, lim__host fn);
lim__host lim__slot_host(lim_bus *bus, const lim__artifact *a); /* zeroed: not of this engine, or not loaded */
struct lim__slot_rows *lim__slot_rows_new(uint64_t seed);
void lim__slot_rows_free(struct lim__slot_rows *rows);
lim_err lim__slots_restore(lim_bus *bus, lim_diag *diag); /* part of lim__durable_restore, the first that makes groups */

#endif
