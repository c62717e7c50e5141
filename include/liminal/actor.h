/* SPDX-License-Identifier: Apache-2.0
 * actor.h - the runtime alone: processes, links, monitors, timers, supervisors.
 *
 * A process is a mailbox, a handler and some bytes of state. It runs on the scheduler it was born on, one signal at a
 * time, and never moves. Everything it hears of is a signal: messages, the death of those it is linked to or watches,
 * timers, answers. What one sender sends to one receiver arrives in the order it was sent, signals included, so an
 * answer followed by its sender's death is always seen as an answer first.
 *
 *      host thread --lim_runtime_send--> inbox of a scheduler --> mailbox --> on_signal(self, signal, state)
 *      process     --lim_send---------'  (pointer push when both are on one scheduler)
 *
 * A handler must not block, unless its process was spawned `blocking`; it may do anything with the `self` it was given,
 * and only until it returns. Processes take turns: a slice is what is in the mailbox when it begins, at most 64 signals
 * and 64 KiB sent, so a handler that sends much in one call should do so in steps.
 *
 * Rules of death are Erlang's: LIM_NORMAL is ignored by those who do not trap, any other reason ends them with the same
 * reason, LIM_KILL cannot be trapped and is seen by others as LIM_KILLED; who traps gets a LIM_SIGNAL_EXIT.
 *
 * Contracts: A anywhere. B blocks, so never inside a handler. P only with the `self` of the handler that runs. */
#ifndef LIMINAL_ACTOR_H
#define LIMINAL_ACTOR_H

#include <liminal/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lim_runtime lim_runtime;       /* OBJECT, one owner */
typedef struct lim_process lim_process;       /* VIEW: the process that a handler runs as */
typedef struct lim_pid { uint64_t id; } lim_pid; /* VALUE: node 8 | scheduler 6 | slot 24 | generation 26; 0 is nobody */

/* Why a process ended. Numbers from LIM_REASON_USER on are the embedder's. */
#define LIM_REASON_MAP(X)                                                                                              \
    X(NORMAL, "normal")             /* it had finished */                                                              \
    X(KILL, "kill")                 /* asked to end without a word; never seen by others */                            \
    X(KILLED, "killed")             /* what others see of it */                                                        \
    X(NOPROC, "noproc")             /* there was no such process when it was linked, watched or asked */               \
    X(NOCONNECTION, "noconnection") /* its node was lost */                                                            \
    X(SHUTDOWN, "shutdown")         /* its supervisor stopped it */                                                    \
    X(FAULT, "fault")               /* its handler gave up */                                                          \
    X(TIMEOUT, "timeout")           /* only in answers to requests */                                                  \
    X(LEFT, "left")                 /* it said goodbye */                                                              \
    X(LOST, "connection_lost")      /* the connection it stood for was closed or reset without a goodbye */            \
    X(SILENT, "silent")             /* the connection it stood for stopped answering */                                \
    X(PROTOCOL, "protocol_error")   /* the peer it stood for sent rubbish */                                           \
    X(REPLACED, "replaced")         /* a newer registration took its place */                                          \
    X(DRAINED, "drained")           /* the bus is closing */
typedef enum lim_reason {
    LIM_REASON_NONE = 0,
#define X(name, text) LIM_##name,
    LIM_REASON_MAP(X)
#undef X
    LIM_REASON_USER = 1000
} lim_reason;
LIM_API const char *lim_reason_text(lim_reason reason); /* A: "connection_lost"; "user" for the embedder's */

typedef enum lim_signal_kind {
    LIM_SIGNAL_MESSAGE = 1, /* from, tag, ref (0 or a request to answer), body */
    LIM_SIGNAL_EXIT,        /* from, reason, at_ns: somebody linked ended (only when trapping) */
    LIM_SIGNAL_DOWN,        /* from, ref = monitor, reason, at_ns */
    LIM_SIGNAL_TIMER,       /* ref = timer, tag */
    LIM_SIGNAL_RESPONSE     /* ref = request, reason (LIM_NORMAL: answered, body; else why not) */
} lim_signal_kind;

typedef struct lim_signal { /* VIEW */
    lim_signal_kind kind;
    uint32_t tag;
    lim_pid from; /* {0}: a host thread */
    uint64_t ref;
    lim_reason reason;
    uint64_t at_ns;                       /* EXIT, DOWN: monotonic instant at which the death was observed */
    lim_bytes body;                       /* 16-aligned, whatever the sender's was */
    const struct lim__letter_type *type;  /* private to liminal; NULL for everything sent through this header */
} lim_signal;

/* ---- runtime ---- */
/* A handler took longer than it may, or sent more than 4 MiB (each message with a header of 64 bytes) in one call. The
 * clock is not read after each signal but after a few, and at once where signals take long: so `suspects` processes
 * shared the time, and it was this one if there is only one. Each is told of. */
typedef struct lim_overrun { /* VIEW */
    const char *name; /* of the spawn options */
    lim_pid pid;      /* it may have ended since */
    uint64_t took_ns;
    uint32_t suspects;
    uint64_t output_bytes; /* what it sent, if that was too much; 0: it took too long */
} lim_overrun;
typedef struct lim_runtime_opts {
    size_t size;
    uint32_t scheduler_count; /* 1..63 threads, each with an event loop */
    bool own_loop;            /* no threads: the caller watches lim_runtime_fd and calls lim_runtime_turn; needs
                               * scheduler_count 1 */
    uint32_t blocking_max;    /* threads for blocking processes, started when such are spawned. 0: 4 */
    uint32_t overrun_ms;      /* what a handler that is not blocking may take before it is counted. 0: 10 */
    void (*on_overrun)(void *ctx, const lim_overrun *overrun); /* on the scheduler, not as a process; must not block.
                               * NULL: only counted */
    void *ctx;
    uint32_t spin_us;         /* how long a scheduler that has just worked looks for more before it sleeps: answers come
                               * sooner, at the price of a processor. One scheduler of the program at a time does so.
                               * 0: it sleeps at once; 1000 at most, else INVALID. Not with own_loop */
} lim_runtime_opts;
LIM_API lim_err lim_runtime_open(const lim_runtime_opts *opts, lim_runtime **out); /* B */
/* Waits until the blocking handlers that run have returned, ends every process with LIM_KILLED, joins the threads, frees
 * everything. No handler runs afterwards. */
LIM_API_VOID void lim_runtime_close(lim_runtime *rt); /* B */
LIM_API int lim_runtime_fd(lim_runtime *rt);          /* A: becomes readable when a turn has work; own_loop only */
/* At most how long the host may wait for that before it calls lim_runtime_turn: until the next timer; -1: no limit. */
LIM_API int64_t lim_runtime_wait_ms(lim_runtime *rt); /* A: own_loop only, on the thread that turns it */
/* One turn of the loop; waits at most max_wait_ms (0: not at all, -1: until there is work). */
LIM_API lim_err lim_runtime_turn(lim_runtime *rt, int max_wait_ms); /* B: own_loop only */

/* ---- processes ---- */
typedef void lim_on_signal(lim_process *self, const lim_signal *signal, void *state);
typedef struct lim_spawn_opts {
    size_t size;
    const char *name;         /* for logs and lists; static storage; NULL: "process" */
    lim_on_signal *on_signal;
    void (*on_end)(void *state, lim_reason reason); /* exactly once, on the process's scheduler; NULL: nothing to do */
    size_t state_bytes;       /* state that lives and dies with the process: at most 64 KiB, zeroed */
    const void *init;         /* copied into the state, init_bytes of it; NULL: nothing */
    size_t init_bytes;
    uint32_t mailbox_max;     /* messages; signals are not counted. 0: 1024 */
    bool trap_exit;           /* from before its first signal */
    bool blocking;            /* on_signal may block: it runs on a thread of the pool, one signal at a time, in order.
                               * All of this header may be used there; P calls but lim_send cost a trip to the
                               * scheduler. Nothing ends it before on_signal returns; on_end stays on the scheduler */
    bool link;                /* lim_spawn only: linked to its parent before it first runs */
    bool monitor;             /* lim_spawn only: watched by its parent; the monitor goes to *monitor_out */
    uint64_t *monitor_out;
    bool place;               /* true: born on `scheduler`; false: lim_spawn: on the parent's; else on the least busy */
    uint32_t scheduler;
} lim_spawn_opts;
LIM_API lim_err lim_spawn(lim_process *self, const lim_spawn_opts *opts, lim_pid *out);       /* P */
LIM_API lim_err lim_runtime_spawn(lim_runtime *rt, const lim_spawn_opts *opts, lim_pid *out); /* A */

LIM_API lim_pid lim_self(const lim_process *self);                 /* P */
LIM_API lim_runtime *lim_process_runtime(const lim_process *self); /* P */
LIM_API uint64_t lim_now_ns(const lim_process *self);              /* P: the time at the start of this turn, monotonic */
LIM_API_VOID void lim_trap_exit(lim_process *self, bool trap);     /* P */
/* Ends the caller when its handler returns; no further signal reaches it. */
LIM_API_VOID void lim_exit(lim_process *self, lim_reason reason); /* P */
/* Sends an exit signal, in order with the caller's other sends: like every signal it acts when its turn in the target's
 * mailbox comes, LIM_KILL too. It always finds room there. A dead target is no error. NOMEM: no memory, and the letters
 * that the runtime keeps for such times (64) are all under way; nothing was sent. Exits of links and monitors and those
 * of supervisors have their memory since the link was made, and cannot fail. */
LIM_API_VOID lim_err lim_exit_process(lim_process *self, lim_pid target, lim_reason reason); /* P */
LIM_API_VOID lim_err lim_runtime_exit(lim_runtime *rt, lim_pid target, lim_reason reason);   /* A */
LIM_API bool lim_alive(lim_runtime *rt, lim_pid pid); /* A: a hint: it may end right after */

/* ---- messages ----
 * The body is copied. GONE: no such process (told at once). FULL: its mailbox has no place; nothing was sent. */
LIM_API lim_err lim_send(lim_process *self, lim_pid to, uint32_t tag, lim_bytes body);       /* P */
LIM_API lim_err lim_runtime_send(lim_runtime *rt, lim_pid to, uint32_t tag, lim_bytes body); /* A */

/* A request is answered exactly once with LIM_SIGNAL_RESPONSE: by lim_respond, by the callee's death, by its timeout.
 * Room for the answer is reserved here. A late answer is dropped. MISUSE: to oneself, or without a time. */
LIM_API lim_err lim_request(lim_process *self, lim_pid to, uint32_t tag, lim_bytes body, int64_t timeout_ms,
                            uint64_t *ref_out); /* P */
LIM_API lim_err lim_respond(lim_process *self, const lim_signal *request, lim_bytes body); /* P: GONE when too late */

/* ---- links and monitors ----
 * link returns at once; "linked" or an exit with LIM_NOPROC follows, exactly one exit per link, whatever races.
 * Linking twice is linking once. After unlink returned, no exit from that link arrives. */
LIM_API lim_err lim_link(lim_process *self, lim_pid other);                            /* P */
LIM_API_VOID void lim_unlink(lim_process *self, lim_pid other);                        /* P */
LIM_API lim_err lim_monitor(lim_process *self, lim_pid other, uint64_t *monitor_out);  /* P: one DOWN per monitor */
LIM_API_VOID void lim_demonitor(lim_process *self, uint64_t monitor);                  /* P: and no DOWN is left behind */

/* ---- timers ---- monotonic; granularity of the loop's turn, never early. They die with their process. */
LIM_API lim_err lim_timer_start(lim_process *self, uint64_t delay_ns, uint32_t tag, uint64_t *timer_out); /* P */
LIM_API_VOID bool lim_timer_cancel(lim_process *self, uint64_t timer); /* P: true: it will not fire; false: it has fired */

/* ---- names ---- at most 255 bytes; a name goes when its process ends */
LIM_API lim_err lim_register(lim_runtime *rt, const char *name, lim_pid pid); /* A: EXISTS, GONE, TOOBIG */
LIM_API lim_pid lim_whereis(lim_runtime *rt, const char *name);               /* A: {0}: nobody */

/* ---- supervisors ----
 * A supervisor starts its children in the order they were added and stops them in the reverse order, one at a time. */
typedef enum lim_strategy { /* what is started again when a child ends that shall be */
    LIM_ONE_FOR_ONE = 1,    /* that child */
    LIM_ONE_FOR_ALL,        /* all of them: the others are stopped first, youngest first */
    LIM_REST_FOR_ONE,       /* it and those added after it */
    LIM_DYNAMIC             /* that child; nobody waits for anybody, and all are stopped at once. For many alike */
} lim_strategy;
typedef enum lim_restart {
    LIM_PERMANENT = 1, /* always started again */
    LIM_TRANSIENT,     /* only after an abnormal end: not NORMAL, SHUTDOWN or DRAINED */
    LIM_TEMPORARY      /* never */
} lim_restart;
typedef struct lim_supervisor_opts {
    size_t size;
    const char *name;
    uint32_t restarts_max; /* in `period_ms`; one more and the supervisor ends with LIM_SHUTDOWN. 0: 1 */
    uint32_t period_ms;    /* 0: 5000; LIM_UNLIMITED: as long as the supervisor lives */
    lim_strategy strategy; /* 0: LIM_ONE_FOR_ONE */
} lim_supervisor_opts;
typedef struct lim_child_spec {
    size_t size;
    lim_spawn_opts spawn;  /* `init` is copied; link and monitor are the supervisor's. Not placed: on its scheduler */
    lim_restart restart;
    void (*on_start)(void *ctx, lim_pid pid, uint32_t starts); /* on the supervisor's scheduler, before its first signal */
    void *ctx;
    uint32_t ready_ms;     /* 0: it is up once it was started; else it says lim_ready within this time (LIM_UNLIMITED:
                            * whenever) or is killed, which counts as an end; who was added later waits for it */
    uint32_t shutdown_ms;  /* between LIM_SHUTDOWN and LIM_KILL. 0: 5000, for a supervisor LIM_UNLIMITED */
    const lim_supervisor_opts *supervisor; /* copied. The child is a supervisor: of `spawn` only size, place and
                            * scheduler are used; add its children in on_start, each time. NULL: no */
} lim_child_spec;
LIM_API lim_err lim_supervisor_open(lim_runtime *rt, const lim_supervisor_opts *opts, lim_pid *out); /* A */
LIM_API lim_err lim_supervisor_add(lim_runtime *rt, lim_pid supervisor, const lim_child_spec *spec); /* A: starts it */
LIM_API lim_err lim_supervisor_stop(lim_runtime *rt, lim_pid supervisor, lim_pid child); /* A: stops and forgets it */
LIM_API lim_err lim_ready(lim_process *self); /* P: to its supervisor: it is up. INVALID: it has none */

/* ---- census ---- a sum over all schedulers, exact when nothing runs */
typedef struct lim_census {
    uint64_t processes, links, monitors, timers, messages, letter_bytes;
    uint64_t turns, wakes, overruns; /* since the runtime was opened */
    uint64_t blocked;                /* blocking handlers running or waiting for a thread */
} lim_census;
LIM_API_VOID void lim_runtime_census(lim_runtime *rt, lim_census *out); /* A */

#ifdef __cplusplus
}
#endif
#endif
