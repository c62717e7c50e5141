/* SPDX-License-Identifier: Apache-2.0
 * saga_inside.h - the book of sagas, as saga.c (the service and its ops), saga_read.c (a run request), saga_run.c (the
 * process of one saga), saga_keep.c (rows) and saga_show.c (JSON) share it. Nobody else includes it.
 *
 * All of it lives on one scheduler: the service is always started on its supervisor's, and sagas on the service's. */
#ifndef LIM__SAGA_INSIDE_H
#define LIM__SAGA_INSIDE_H

#include "base/list.h"
#include "bus/letters.h"
#include "bus/saga.h"
#include "bus/system.h"
#include "data/data.h"

enum { LIM__SAGA_DEATHS_MAX = 5, LIM__SAGA_SHOWN_MAX = 65536 /* bytes of one payload in an answer */ };

typedef struct lim__saga_work { /* one step, or one compensation */
    lim_bytes group, type;      /* in the saga's text; group empty: there is none */
    lim__msg *payload;          /* of a compensation NULL: the usual one */
    uint64_t timeout_ns;
    bool task;
    /* while it is under way */
    lim_pid conv;
    uint64_t begun_ns, deadline_ns;
    /* how it ended; NONE: it has not */
    lim_how how;
    lim_handed handed;
    lim_why why;
    lim__msg *reply;
    uint64_t elapsed_ns;
    char detail[160], participant[64]; /* cut */
    bool stored;                /* durable: its end is in a row */
} lim__saga_work;

typedef struct lim__saga_one { /* a step */
    lim_bytes name;
    lim__saga_work step, undo;
} lim__saga_one;

typedef struct lim__saga {
    lim__list node;           /* in the book's running or ended */
    uint64_t id;
    lim_bytes name;
    char *text;               /* where all names are */
    lim__asker asker;         /* conv {0}: nobody waits */
    lim__terms *terms;        /* of its children */
    uint64_t begun_ns, deadline_ns, ended_ns;
    size_t bytes;
    bool cancelled;
    bool durable;
    lim__buf request;         /* durable: what its first row says; empty once that is stored */
    lim__saga_plan plan;
    lim_pid process;
    uint64_t monitor;
    uint32_t deaths;
    lim__saga_one *ones;      /* plan.count of them */
} lim__saga;

struct lim__sagas {
    lim__list running, ended; /* oldest first */
    uint64_t running_count, ended_count, next_id;
    size_t ended_bytes;
    lim_pid owner;            /* the service whose monitors these are */
    lim__rows rows;           /* read at start-up, and not yet taken in */
};

/* What a run request says; NULL: refused already. */
lim__saga *lim__saga_read(lim__system *s);
void lim__saga_free(lim__saga *saga); /* NULL is a no-op */

/* Starts, or starts again, the process that runs it, as the service's child. */
lim_err lim__saga_start(lim__system *s, lim__saga *saga);
/* Ends it where it is: what was under way failed, what was not undone never will be. */
void lim__saga_give_up(lim__saga *saga, uint64_t now_ns);

static inline lim__saga_work *lim__saga_current(lim__saga *saga) /* NULL: it has ended */
{
    lim__saga_one *one = saga->plan.state == LIM__SAGA_ENDED ? NULL : &saga->ones[saga->plan.at];
    return one == NULL ? NULL : saga->plan.state == LIM__SAGA_UNDO ? &one->undo : &one->step;
}

/* ---- saga_keep.c: those that are durable ----
 * Everything that is not stored yet, as one step. NULL: no memory. */
lim__batch *lim__saga_batch(lim_bus *bus, const lim__saga *saga, uint64_t now_ns);
void lim__saga_stored(lim__saga *saga);                   /* that batch is */
void lim__saga_unstore(lim_bus *bus, const lim__saga *saga); /* its rows go */
/* Takes what was stored into the book: each that runs is started. */
void lim__sagas_take_rows(lim__system *s);
void lim__saga_remember(lim_bus *bus, lim__saga *saga);   /* saga.c: among those that ended */

const char *lim__saga_state_text(const lim__saga *saga);
/* "payload": text, or "payload_base64"; the keys begin with `key`. */
void lim__saga_bytes_json(lim__json *j, const char *key, lim_bytes bytes);
void lim__saga_line_json(const lim__saga *saga, uint64_t now_ns, lim__json *j, const char *key, bool details);
void lim__saga_answer_json(const lim__saga *saga, lim__json *j); /* of `run` */

#endif
