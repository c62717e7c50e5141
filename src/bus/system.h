/* SPDX-License-Identifier: Apache-2.0
 * system.h - the inside of the $sys groups, shared by system.c (the processes and the table of what they know),
 * system_answer.c (answers, and gathering them from others) and the ops: system_bus.c, system_route.c, system_queue.c,
 * system_conv.c; schedule*.c and saga*.c, which have books and processes of their own. */
#ifndef LIM__SYSTEM_H
#define LIM__SYSTEM_H

#include "base/base.h"
#include "base/list.h"
#include "bus/bus.h"
#include "bus/conv.h"
#include "bus/durable.h"
#include "bus/letters.h"

enum {
    LIM__SYS_GATHER_MS = 1000, /* whoever has not said its part by then is left out */
    LIM__SYS_LS_MAX = 1000,    /* items that one group or agent lists, unless the request says otherwise */
    LIM__SYS_LS_MOST = 100000
};

typedef enum lim__service {
    LIM__SYS_INFO = 1, LIM__SYS_CHANNELS, LIM__SYS_GROUPS, LIM__SYS_QUEUES, LIM__SYS_TASKS, LIM__SYS_DEAD, LIM__SYS_WORKERS,
    LIM__SYS_CONVERSATIONS, LIM__SYS_ARTIFACTS, LIM__SYS_SCHEDULES, LIM__SYS_SAGAS, LIM__SYS_STORE, LIM__SYS_ROUTES,
    LIM__SYS_CURSORS
} lim__service;

typedef struct lim__asker { /* whom an answer goes to */
    lim_pid conv;
    uint64_t lease;
} lim__asker;

typedef enum lim__gather_how {
    LIM__GATHER_JOIN = 1, /* parts are pieces of the list, as text */
    LIM__GATHER_PICK,     /* parts are objects: their member `what` is a piece of the list */
    LIM__GATHER_EACH,     /* every part that is no refusal is an item of the list; none at all: refused */
    LIM__GATHER_MATCH,    /* parts are pieces of a list: the answer is the item whose identity is `what` */
    LIM__GATHER_FIRST,    /* the answer is the first part that is no refusal, */
    LIM__GATHER_PICK_FIRST /* or the first item of its member `what` */
} lim__gather_how;

typedef struct lim__system lim__system;
typedef struct lim__gather { /* an answer that is being put together */
    lim__list node;
    uint64_t ref, timer;
    lim__asker asker;
    lim__gather_how how;
    uint32_t waiting, got;
    char what[256];
    bool channel;            /* what: a channel's name */
    lim_pid conv;            /* which it is about, for `none`, */
    uint64_t after;          /* and from where on */
    char code[16], why[320]; /* of the refusal that says most; "": none came */
    /* Answers when nobody had it, and nobody said more than that; NULL: refused. */
    void (*none)(lim__system *s, struct lim__gather *g);
    lim__buf body;
} lim__gather;

struct lim__system { /* one process */
    lim_bus *bus;
    lim__service service;
    lim_process *self;   /* during a signal */
    lim__doc *doc, *part;
    const lim__request *request; /* the one at hand, */
    lim__val root;       /* and what it says */
    lim__list gathers;
    lim__list uploads;   /* of $sys.artifacts (upload.c); zeroed: none yet */
    uint64_t next_ref, next_upload;
    lim__asker asker;    /* whom answer and refuse speak to now */
    bool busy, replaying; /* busy: a commit is under way, and everything but its end waits in */
    lim__stash stash;
};

/* One op of one group: `fields` are the names that a request may have beside "op", separated by spaces. */
typedef struct lim__sys_op {
    lim__service service;
    const char *name, *fields;
    void (*run)(lim__system *s);
} lim__sys_op;

/* ---- answering: each request once ---- */
void lim__sys_answer(lim__system *s, lim__buf *json); /* takes the buffer's contents */
void lim__sys_refuse(lim__system *s, lim_err err, const char *format, ...) __attribute__((format(printf, 3, 4)));
void lim__sys_refuse_diag(lim__system *s, lim_err err, const lim_diag *diag);
void lim__sys_answer_id(lim__system *s, lim_pid conv); /* {"id":"4d"}: it has been done */

/* ---- fields of the request; false: refused already ---- */
bool lim__sys_name(lim__system *s, const char *key, lim_bytes *out);
bool lim__sys_id(lim__system *s, const char *key, lim_pid *out);
bool lim__sys_max(lim__system *s, uint32_t *out);
bool lim__sys_given(const lim__system *s, const char *key);
bool lim__sys_artifact_of(lim__system *s, lim__artifact **out); /* of "hash"; one reference */

/* ---- gathering ---- */
/* `list`: the key of the list in the answer; `what`: see lim__gather. NULL: refused already. */
lim__gather *lim__gather_begin(lim__system *s, lim__gather_how how, const char *list, lim_bytes what);
void lim__gather_show(lim__system *s, lim__gather *g, lim_pid who, const lim__show *show, lim_bytes where);
/* The request as it came, its op with `subject` in front, to a group. */
void lim__gather_admin(lim__system *s, lim__gather *g, lim_pid group, const char *subject);
void lim__gather_groups(lim__system *s, lim__gather *g, lim__show_what what); /* shows of all, */
void lim__gather_admins(lim__system *s, lim__gather *g, const char *subject); /* or the request to all, */
void lim__gather_all(lim__system *s, lim__gather *g, lim_bytes json);         /* or this one */
void lim__gather_ready(lim__system *s, lim__gather *g);                       /* everybody has been asked */
void lim__gather_part(lim__system *s, uint64_t ref, lim_bytes json);
void lim__gather_timer(lim__system *s, uint64_t timer);
void lim__gather_end(lim__system *s, lim__gather *g);
void lim__gather_refuse(lim__system *s, lim__gather *g, lim_err err, const lim_diag *diag); /* and ends it */
lim__gather *lim__gather_find(lim__system *s, uint64_t ref); /* NULL: over */
void lim__gather_drop(lim__system *s);                       /* all, unanswered */

/* ---- rows (system_rows.c): read by whoever opens the bus, taken in by the process that they are for ---- */
typedef struct lim__rows { lim__buf *_Atomic read; } lim__rows;
/* All of a table, then wakes the process behind the $sys group. */
lim_err lim__rows_read(lim_bus *bus, lim__table table, const char *group, lim__rows *rows, lim_diag *diag);
lim__buf *lim__rows_take(lim__rows *rows); /* key, value, key, value ... (lim__unpack_bytes); NULL: not there, or taken */
void lim__rows_free(lim__buf *rows);       /* NULL is a no-op */

/* ---- the ops ---- */
#define LIM__SYS_RUN_MAP(X)                                                                                            \
    X(info) X(channel_ls) X(channel_show) X(channel_create) X(channel_configure) X(channel_close)\
    X(channel_delete) X(channel_purge) X(channel_get) X(channel_peek) X(group_ls) X(group_show)                 \
    X(group_deploy) X(group_rm) X(artifact_ls) X(artifact_show) X(artifact_load) X(artifact_rm) X(queue_ls)            \
    X(queue_show) X(queue_make) X(queue_op) X(task_ls) X(task_show) X(task_cancel) X(task_retry) X(dead_ls)            \
    X(dead_show) X(dead_op) X(worker_ls) X(worker_show) X(worker_op) X(conv_ls) X(conv_show) X(conv_cancel)            \
    X(conv_signal) X(conv_history) X(conv_find) X(schedule_add) X(schedule_ls) X(schedule_show)                       \
    X(schedule_pause) X(schedule_resume) X(schedule_rm) X(schedule_fire) X(saga_run) X(saga_ls) X(saga_show)           \
    X(saga_cancel) X(store_info) X(store_backup)                                                                  \
    X(route_ls) X(route_show) X(route_history) X(route_logs) X(route_command)  \
    X(cursor_ls) X(cursor_op) X(upload_begin) X(upload_chunk) X(upload_end) X(upload_drop)
#define X(name) void lim__sys_##name(lim__system *s);
LIM__SYS_RUN_MAP(X)
#undef X
void lim__sys_deployed(lim__system *s, const lim__deployed *d);
void lim__sys_store_on_signal(lim__system *s, const lim_signal *signal);
void lim__sys_artifacts_on_signal(lim__system *s, const lim_signal *signal);
void lim__sys_uploads_drop(lim__system *s);
void lim__sys_show_ended(lim__system *s, lim_pid conv);

#endif
