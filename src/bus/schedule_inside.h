/* SPDX-License-Identifier: Apache-2.0
 * schedule_inside.h - the book of schedules, as schedule_book.c (changes), schedule_show.c (lists), schedule_keep.c
 * (rows) and schedule.c (the process that fires) share it. Nobody else includes it.
 *
 * Invariants (lim__schedules_check):
 *   T1  the heap holds the ACTIVE schedules and no others, the one with the earliest `due_ns` first.
 *   T2  an ACTIVE one has a `due_ns`; it is later than every instant that was dealt with.
 *   T3  `bytes` is the sum over all; names are unique.
 *   T4  with a store, a fire of a task whose verdict is not known is `pending`, and in its schedule's row. */
#ifndef LIM__SCHEDULE_INSIDE_H
#define LIM__SCHEDULE_INSIDE_H

#include "base/list.h"
#include "base/map.h"
#include "bus/calendar.h"
#include "bus/letters.h"
#include "bus/schedule.h"
#include "bus/system.h"

enum { LIM__SCHEDULE_STEPS_MAX = 1000 /* instants looked at one by one; more that were missed are jumped over */ };

typedef enum lim__schedule_kind {
    LIM__SCHEDULE_AT = 1, LIM__SCHEDULE_EVERY, LIM__SCHEDULE_RRULE, LIM__SCHEDULE_CRON
} lim__schedule_kind;
typedef enum lim__schedule_state { LIM__SCHEDULE_ACTIVE = 1, LIM__SCHEDULE_PAUSED, LIM__SCHEDULE_DONE } lim__schedule_state;
typedef enum lim__catch_up { LIM__CATCH_ONE = 1, LIM__CATCH_SKIP, LIM__CATCH_ALL } lim__catch_up;

typedef struct lim__fire { /* what became of the last one; not in any row */
    uint64_t at_ns, fired_ns; /* wall clock; at: the instant it was for. 0: there was none */
    lim_admission admission;  /* verdict 0: not known yet */
    lim_err err;              /* not OK: it could not even be offered */
    lim_pid task;
    uint64_t ref;             /* in letters about it */
    uint64_t monitor;         /* of the task, by the process; 0: it has ended */
    lim_how how;              /* once it ended */
    uint64_t mark;            /* of the task, with a store */
    bool manual;
} lim__fire;

/* A fire of a task, from the row that says so to its verdict. The task's first commit has a row of its own, the mark: so after
 * a restart it is known which of them became tasks; the others are fired then. */
typedef struct lim__pending_fire {
    lim__list node;
    uint64_t mark, ref;      /* ref 0: not fired yet */
    uint64_t at_ns, number;
    bool manual;
    bool restored;           /* from the row: to be fired again, once */
    bool settled, leaving;   /* its verdict is known; the batch under way takes it out of the row */
} lim__pending_fire;

typedef struct lim__schedule_now { /* what changes, as the row has it */
    lim__schedule_state state;
    uint32_t caught_up;
    uint64_t due_ns, fires, rejected, overlapped, missed;
} lim__schedule_now;

typedef struct lim__schedule {
    uint64_t id;              /* never used again */
    /* the definition */
    lim_bytes name, target, type, rule; /* in `text` */
    char *text;
    size_t text_bytes;
    bool to_queue, skip_overlap;
    lim__msg *payload;        /* NULL: the default one */
    lim__terms *terms;
    char *options;            /* JSON, or NULL */
    uint64_t timeout_ns;      /* 0: none */
    lim__schedule_kind kind;
    uint64_t start_ns, every_ns;
    const lim__zone *zone;    /* the book's */
    lim__calendar *calendar;  /* RRULE, CRON */
    lim__catch_up catch_up;
    uint32_t catch_up_max;
    uint64_t grace_ns;
    size_t bytes;
    lim_class durability;     /* of its rows */
    /* what changes */
    lim__schedule_state state;
    uint64_t due_ns;          /* ACTIVE: the first instant not dealt with. EVERY counts on from here */
    uint32_t heap_at;         /* place in the heap */
    uint32_t caught_up;       /* of LIM__CATCH_ALL: in a row */
    uint64_t fires, rejected, overlapped, missed;
    lim__fire last;
    /* with a store */
    bool touched, planned;    /* it changed since its row was written; a fire of it waits for that */
    bool leaving;             /* it is removed, or replaced, as soon as that is stored: it fires no more */
    lim__list pending;
    lim__list touched_node;
    lim__schedule_now before; /* touched: as the row still has it */
} lim__schedule;

/* What happens once the rows are on stable storage; without a store: at once. */
typedef enum lim__schedule_act { LIM__ACT_ANSWER = 1, LIM__ACT_PUT, LIM__ACT_RM, LIM__ACT_FIRE } lim__schedule_act;
typedef struct lim__schedule_effect {
    lim__list node;
    lim__schedule_act act;
    lim__schedule *s;
    lim__asker asker;         /* conv {0}: nobody */
    lim__buf json;            /* PUT: the request, */
    uint64_t wall_ns;         /* and what `now` is in it */
    uint64_t at_ns, number;   /* FIRE: for which instant, the how-manieth */
    bool manual;
    lim__msg *payload;        /* what it publishes, or dispatches */
    struct lim__log *log;     /* into a durable channel: its record is in the batch */
    lim_err logged;           /* whether that could be */
    lim__pending_fire *pending; /* a task, with a store; */
    bool old;                 /* from before a restart: the row has it */
} lim__schedule_effect;

typedef struct lim__fire_asker { /* of the op `fire`, until the verdict is known */
    lim__list node;
    lim__asker asker;
    uint64_t ref;
} lim__fire_asker;

struct lim__schedules {
    lim__smap by_name;
    lim__map by_id, by_task; /* by_task: conversations that are watched */
    lim__schedule **heap;
    uint32_t heap_count, heap_cap;
    uint64_t next_id;
    size_t bytes;
    lim__doc *doc;
    lim__list zones;
    /* the process's */
    lim_pid owner;           /* whose monitors and timer these are */
    uint64_t timer;
    uint64_t wall_ns, now_ns; /* as of the last look at the clocks; 0: never */
    lim__list askers;
    /* with a store */
    bool kept;                /* there is one, */
    lim_class durability;     /* and what it is worth */
    bool committing;          /* what is touched, and the effects, are of the batch under way */
    uint64_t hold_ns;         /* the last commit failed: nothing fires until then (monotonic) */
    uint64_t ref;             /* of the commit under way */
    uint64_t appended;        /* batches with records that are stored: the next one expects to be the next */
    bool appends;             /* the batch under way has records */
    size_t planned_bytes;     /* of records, for the next batch */
    lim__map marks;           /* at start-up: fires that became tasks */
    bool again;               /* fires of the life before are still to be done */
    lim__buf old_marks;       /* u64 each: rows to be deleted with the next batch */
    lim__list touched, effects;
    lim__rows rows;           /* read at start-up, and not yet taken in */
};

lim__schedule *lim__schedule_named(const lim__schedules *book, lim_bytes name); /* NULL: none */
/* The first instant of its rule after that one; UINT64_MAX: none. EVERY: from `due_ns` on. */
uint64_t lim__schedule_next(const lim__schedule *s, uint64_t after_ns);
/* The clock was set back: by much, or only intervals care. Not a row: a store is read with the clock that is. */
void lim__schedules_rewind(lim__schedules *book, uint64_t wall_ns, bool much);
void lim__schedules_check(const lim__schedules *book);
/* A PUT in two steps: everything that can go wrong, then what cannot. Between them nothing else may change. */
lim_err lim__schedule_prepare(lim__schedules *book, const lim__schedule_change *c, lim_diag *diag, lim__schedule **out);
void lim__schedule_enter(lim__schedules *book, lim__schedule *s); /* takes it */
void lim__schedule_drop(lim__schedule *s);                        /* one that did not enter */
/* Whom one that is prepared takes the place of: that of its name, or one that is done when all places are taken; NULL. */
lim__schedule *lim__schedule_gives_way(const lim__schedules *book, const lim__schedule *s);
void lim__schedule_set(lim__schedules *book, lim__schedule *s, const lim__schedule_now *now);

/* ---- schedule_keep.c: rows ---- */
void lim__schedule_touch(lim__schedules *book, lim__schedule *s); /* before it changes */
lim__pending_fire *lim__schedule_pend(lim__system *sys, lim__schedule *s, const lim__schedule_effect *e); /* NULL: no memory */
void lim__schedule_settled(lim__schedules *book, lim__schedule *s, uint64_t ref, bool now); /* now: its row is written anew */
void lim__pending_free(lim__pending_fire *p);
/* NULL: no memory. To be filled in, then handed to `then`. */
lim__schedule_effect *lim__schedule_effect_new(lim__system *sys, lim__schedule_act act, lim__schedule *s);
void lim__schedule_then(lim__system *sys, lim__schedule_effect *e);
/* Writes what was touched; the effects follow when it is there. */
void lim__schedules_commit(lim__system *sys);
void lim__schedules_stored(lim__system *sys, const lim__stored *what);
void lim__schedules_doubt(lim__system *sys); /* a process before this one had a commit under way */
void lim__schedules_take_rows(lim__system *sys);
void lim__schedule_effect_free(lim__schedule_effect *e); /* with what it holds */

/* ---- schedule.c ---- */
enum { LIM__SCHEDULE_WAKE_BYTES = 256 << 10 }; /* of records in one batch, about */
void lim__schedules_fire_again(lim__system *sys);
void lim__schedule_act_out(lim__system *sys, lim__schedule_effect *e);
void lim__schedule_answer(lim__system *sys, const lim__schedule *s, bool details);
void lim__schedule_line_json(const lim__schedule *s, lim__json *j, const char *key, bool details);
void lim__schedule_fire_json(const lim__schedule *s, const lim__fire *f, lim__json *j, const char *key);

#endif
