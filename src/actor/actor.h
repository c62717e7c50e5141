/* SPDX-License-Identifier: Apache-2.0
 * actor.h - what the folders above the runtime see of it beside <liminal/actor.h>: letters, sockets, turns.
 *
 * A letter is a message that liminal's own processes send each other without copying: a block from the scheduler's
 * pool with a type. Whoever holds it owns it; sending gives it away in every outcome (a letter that cannot be
 * delivered is dropped through its type, so what it refers to is released). */
#ifndef LIM__ACTOR_H
#define LIM__ACTOR_H

#include <liminal/actor.h>
#include "os/os.h"

typedef struct lim__sched lim__sched;

/* ---- runtime over any os table (the simulator's too) ---- */
typedef struct lim__runtime_opts {
    lim__os *os;              /* NULL: linux */
    uint32_t scheduler_count;
    bool threads;             /* false: the caller drives lim__sched_turn for each scheduler */
    uint32_t spin_us;         /* how long a scheduler polls before it sleeps; 0: never. One process-wide token */
    uint32_t blocking_max;    /* as in lim_runtime_opts; no threads: blocking handlers run in the turn */
    uint32_t overrun_ms;
    void (*on_overrun)(void *ctx, const lim_overrun *overrun);
    void *ctx;
} lim__runtime_opts;
lim_err lim__runtime_open(const lim__runtime_opts *opts, lim_runtime **out);
lim__os *lim__runtime_os(const lim_runtime *rt);
uint32_t lim__sched_count(const lim_runtime *rt);
lim__sched *lim__sched_at(lim_runtime *rt, uint32_t index);
uint32_t lim__sched_index(const lim__sched *s);
lim_runtime *lim__sched_runtime(const lim__sched *s);
/* The scheduler whose turn the calling thread is in, NULL on a host thread. */
lim__sched *lim__sched_current(void);
/* Counts every finished turn; a scheduler at turn n holds nothing it loaded in a turn before n. While it sleeps or
 * has never run it holds nothing: `lim__sched_quiet_since` answers true if everything retired at or before the
 * moment `*stamp` was taken by lim__quiet_stamp can be freed. (Quiescent-state reclamation for snapshots.) */
typedef struct lim__quiet_stamp { uint64_t turns[64]; } lim__quiet_stamp;
void lim__quiet_stamp_take(lim_runtime *rt, lim__quiet_stamp *stamp);
bool lim__quiet_since(lim_runtime *rt, const lim__quiet_stamp *stamp);

/* One turn: wait (at most max_wait_ns; <0: no limit) -> inbox -> sockets -> timers -> processes -> outboxes -> flush.
 * Returns true if work is left for another turn at once. Simulator and own_loop call it; else the thread does. */
bool lim__sched_turn(lim__sched *s, int64_t max_wait_ns);
/* When the scheduler's next timer is due (UINT64_MAX: none); what the simulator advances its clock to. */
uint64_t lim__sched_next_due_ns(const lim__sched *s);
uint64_t lim__sched_now_ns(const lim__sched *s); /* the time at the start of its turn, monotonic; on its thread */
/* Share of the last second this scheduler was busy, 0..1000. */
uint32_t lim__sched_busy_permille(const lim__sched *s);

/* ---- memory: size-classed pool of the scheduler; s may be NULL (malloc). Blocks may be freed on another scheduler. */
void *lim__alloc(lim__sched *s, size_t bytes); /* uninitialised, 16-aligned; NULL: no memory */
void lim__free(lim__sched *s, void *block, size_t bytes);

/* ---- the pool for blocking handlers ---- */
uint32_t lim__blocking_thread_max(const lim_runtime *rt); /* threads that it has at most */
/* How many of them run something that nobody waits for any more: counted and uncounted by whoever gave it up. Any thread. */
_Atomic uint32_t *lim__blocking_lost(lim_runtime *rt);

/* ---- letters ---- */
typedef struct lim__letter_type {
    const char *name;
    void (*drop)(void *body); /* releases what the body refers to; NULL: nothing */
} lim__letter_type;
/* Body of `bytes` bytes, uninitialised; NULL: no memory. s: lim__proc_sched(self), or NULL on a host thread. */
void *lim__letter_new(lim__sched *s, const lim__letter_type *type, size_t bytes);
void lim__letter_free(lim__sched *s, void *body);   /* runs drop, gives the block back */
void lim__letter_recycle(lim__sched *s, void *body); /* gives the block back without drop: its references moved on */
/* Both take the letter whatever they answer. GONE and FULL as in lim_send. */
lim_err lim__send(lim_process *self, lim_pid to, void *body);
lim_err lim__post(lim_runtime *rt, lim_pid to, void *body);
/* As lim__send, but never FULL: for answers and notices whose room was reserved when they were asked for. */
lim_err lim__send_reserved(lim_process *self, lim_pid to, void *body);
lim_err lim__post_reserved(lim_runtime *rt, lim_pid to, void *body);
/* Inside on_signal: keeps the letter beyond the handler; it is then the caller's to free or send on. */
void *lim__letter_keep(lim_process *self, const lim_signal *signal);

/* Inside on_signal: hands a letter that was kept (body; NULL: a signal without one) to `handler` as if it came now: it may
 * keep it again; else it is freed. For processes that must not listen for a while. */
void lim__letter_replay(lim_process *self, const lim_signal *signal, void *body, lim_on_signal *handler, void *state);

lim__sched *lim__proc_sched(const lim_process *self);
void *lim__proc_state(const lim_process *self);
size_t lim__proc_state_bytes(const lim_process *self);
lim_pid lim__state_pid(const void *state); /* whose state that is */
uint32_t lim__pid_scheduler(lim_pid pid);
/* What its spawner says that a process is, before it tells anybody its pid; 0: nothing. Any thread; 0 for the dead. */
void lim__pid_mark(lim_runtime *rt, lim_pid pid, uint8_t mark);
uint8_t lim__pid_marked(lim_runtime *rt, lim_pid pid);

/* ---- the deadline of a process ----
 * One at most: set again, it moves. When it is due the process is shown LIM_SIGNAL_TIMER with this tag and ref 0. It takes a
 * place in the heap of timers and nothing else, so its letter is made when it is due: without memory it is shown as soon as
 * there is some. Not for blocking ones. NOMEM: not set. */
enum { LIM__TAG_DEADLINE = INT32_MAX };
lim_err lim__deadline_set(lim_process *self, uint64_t delay_ns);

/* ---- a process's sockets ----
 * on_ready runs in the reading step of a turn, as the process `owner`: it may do what a handler may, lim_exit
 * included. A watch lives in the process's state; whoever closes the descriptor clears the watch first. A process that
 * ends has its watches removed (descriptors are closed by its on_end). */
typedef struct lim__watch {
    int fd;
    uint32_t interest;
    void (*on_ready)(lim_process *owner, struct lim__watch *watch, uint32_t ready);
    /* private */
    lim_process *owner;
    struct lim__watch *next, **prev;
} lim__watch;
int lim__watch_set(lim_process *self, lim__watch *w, int fd, uint32_t interest); /* 0 interest: removes; 0 or -errno */

/* ---- end of turn: one flush per dirty connection ---- */
typedef struct lim__flush {
    void (*run)(lim_process *owner, struct lim__flush *flush); /* as `owner`; may lim_exit */
    /* private */
    lim_process *owner;
    struct lim__flush *next, **prev;
} lim__flush;
void lim__flush_queue(lim_process *owner, lim__flush *f); /* idempotent within a turn; owner's scheduler only */

/* ---- running as another process of the same scheduler (a member's proxy writing to its connection) ----
 * The process if it lives on the calling scheduler, else NULL. Valid until the caller's handler returns. */
lim_process *lim__local_process(lim__sched *s, lim_pid pid);

#endif
