/* SPDX-License-Identifier: Apache-2.0
 * client.h - the verbs of liminal.h over a connection to liminald.
 *
 * Two ways to run it, chosen at open:
 *
 *   own_loop false   the library has two threads. One does the I/O and answers the server's liveness questions,
 *                    whatever your handlers do; on it run all callbacks that are given to a call (outcomes, parts,
 *                    admissions, ...), on_state, on_revoked and on_credit. The other runs handlers: on_message, on_ready
 *                    and on_end, one at a time, in the order things came. Contract B calls may be used from any thread
 *                    but these two.
 *   own_loop true    no thread: watch lim_client_fd for reading, call lim_client_process when it is readable and at
 *                    the latest after lim_client_timeout_ms. Callbacks run inside lim_client_process. All calls from
 *                    one thread. Contract B calls answer LIM_E_MISUSE; each has a twin, _async, that does not wait.
 *
 * When the connection breaks, pending asks (in parts and of many, too) and conversations end `lost` and the client dials
 * again (50 ms doubling to 2 s, with jitter), subscribes and registers again, says which tasks it still has in hand, and
 * sends results again that were not settled.
 * Until then what is offered (publish, ask, dispatch, ...) is answered UNREACHABLE at once: nothing was sent. Only what
 * is offered before the first connection waits for it. CLOSED: the client has ended.
 * After lim_client_close returned, no callback runs. */
#ifndef LIMINAL_CLIENT_H
#define LIMINAL_CLIENT_H

#include <liminal/liminal.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lim_client lim_client; /* OBJECT, one owner */

typedef enum lim_link_state {
    LIM_LINK_CONNECTING = 1, LIM_LINK_UP, LIM_LINK_DOWN /* dialling again */, LIM_LINK_ENDED /* will not dial again */
} lim_link_state;

typedef struct lim_client_opts {
    size_t size;
    const char *server;        /* "host:port", numeric or localhost; NULL: $LIMINAL_SERVER, else 127.0.0.1:4777 */
    const char *name;          /* for the server's lists; NULL: "client" */
    bool own_loop;
    bool no_reconnect;         /* the first break ends it */
    uint32_t liveness_ms;      /* own_loop: how often process is called at least; 0: the server will not probe */
    int64_t connect_timeout_ms; /* 0: 5000 */
    void (*on_state)(void *ctx, lim_link_state state, const char *detail); /* NULL: not told */
    void *ctx;
    const char *node;          /* where this runs, for routing functions: at most 255 bytes; NULL: the server's node */
    struct lim__os *os;        /* private: NULL */
} lim_client_opts;
/* own_loop false: returns when connected (B): UNREACHABLE, PROTOCOL, DENIED; diag says what, why and what to do. It dials
 * once: a refusal is told at once, silence after connect_timeout_ms. own_loop true: starts to connect and returns. */
LIM_API lim_err lim_client_open(const lim_client_opts *opts, lim_diag *diag, lim_client **out); /* B */
/* Says goodbye, waits for the I/O thread, ends every pending call `closed`. NULL is a no-op. Not inside callbacks. */
LIM_API_VOID void lim_client_close(lim_client *c); /* B */
LIM_API int lim_client_fd(lim_client *c);          /* A */
LIM_API int lim_client_timeout_ms(lim_client *c);  /* A: -1: nothing is due */
/* Reads, calls back, writes. GONE: ended and will not dial again. */
LIM_API lim_err lim_client_process(lim_client *c); /* A: own_loop only */
LIM_API lim_link_state lim_client_state(lim_client *c); /* A */
/* Waits until everything sent so far was answered (asks and dispatches excepted). */
LIM_API lim_err lim_client_flush(lim_client *c, int64_t timeout_ms); /* B */

/* ---- channels ---- */
typedef void lim_on_admission(void *ctx, lim_err err, const lim_admission *admission); /* err: CLOSED when the connection
                                                                                        * broke first: unknown */
/* Queued and sent with the loop's next write; many in flight at once. on_admission may be NULL. FULL: more than 8 MiB
 * wait to be written. */
LIM_API lim_err lim_client_publish_async(lim_client *c, const char *channel, lim_bytes payload,
                                         const lim_publish_opts *opts, lim_on_admission *on_admission, void *ctx); /* A */
LIM_API lim_err lim_client_publish(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                                   lim_admission *out); /* B */
/* Waits for the receipt. Asynchronously: opts.on_receipt of lim_client_publish_async, exactly once: a REJECT with why NONE
 * says that the connection broke first; nobody knows (an idempotency key makes it safe to publish again). */
LIM_API lim_err lim_client_publish_wait(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                                        lim_receipt *out); /* B */
typedef struct lim_client_handler {
    lim_done (*on_message)(lim_client *c, const lim_delivery *d, void *ctx);
    void (*on_end)(void *ctx, lim_err why, const char *detail); /* exactly once; LIM_OK: by your own call */
    void *ctx;
} lim_client_handler;
typedef struct lim_client_sub_opts {
    size_t size;
    uint32_t window, backlog; /* as in lim_sub_opts */
    lim_policy policy;
    lim_client_handler handler;
    void (*on_ready)(void *ctx); /* the server has it (each time, after a reconnect too); NULL: not told */
    lim_read_opts read;          /* of durable channels. After a reconnect it goes on behind what was delivered (without a
                                  * cursor), or with what was not acknowledged (with one) */
} lim_client_sub_opts;
/* out->id is the client's own number. Without own_loop returns when the server has it (B), else at once. d->seq counts on
 * over reconnects: what was delivered before is not delivered again. d->msg is NULL with own_loop: nothing was copied. */
LIM_API lim_err lim_client_subscribe(lim_client *c, const char *pattern, const lim_client_sub_opts *opts, lim_diag *diag,
                                     lim_sub *out); /* A in own_loop, else B */
LIM_API lim_err lim_client_unsubscribe(lim_client *c, lim_sub sub);               /* A */
LIM_API lim_err lim_client_complete(lim_client *c, lim_sub sub, uint64_t seq);    /* A: after LIM_HOLD */
/* As lim_ack, lim_nack, lim_fetch. on_done: CLOSED when the connection broke first: it may be delivered again. */
LIM_API lim_err lim_client_ack(lim_client *c, lim_sub sub, uint64_t seq, lim_on_done *on_done, void *ctx); /* A */
LIM_API lim_err lim_client_nack(lim_client *c, lim_sub sub, uint64_t seq, int64_t delay_ms);               /* A */
LIM_API lim_err lim_client_fetch(lim_client *c, lim_sub sub, uint32_t count, int64_t ends_ms);             /* A */

/* ---- steps ---- as lim_step of liminal.h; CLOSED: the connection broke first, and nobody knows */
typedef struct lim_client_step lim_client_step; /* OBJECT, one owner, until it is committed */
LIM_API lim_err lim_client_step_new(lim_client *c, lim_client_step **out); /* A */
LIM_API_VOID void lim_client_step_free(lim_client_step *step);             /* A */
LIM_API lim_err lim_client_step_publish(lim_client_step *step, const char *channel, lim_bytes payload,
                                        const lim_publish_opts *opts);                                     /* A */
LIM_API lim_err lim_client_step_ack(lim_client_step *step, lim_sub sub, uint64_t seq);                     /* A */
LIM_API lim_err lim_client_step_reply(lim_client_step *step, const lim_delivery *d, lim_bytes payload);    /* A */
LIM_API lim_err lim_client_step_commit(lim_client_step *step, lim_on_done *on_done, void *ctx);            /* A */
LIM_API lim_err lim_client_step_commit_wait(lim_client_step *step);                                        /* B */

/* ---- ask ---- opts as in liminal.h */
LIM_API lim_err lim_client_ask_async(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts,
                                     lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out); /* A */
LIM_API lim_err lim_client_cancel(lim_client *c, uint64_t call); /* A: its outcome still comes, exactly once */
LIM_API lim_err lim_client_ask(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts,
                               lim_outcome *out); /* B */
/* As lim_ask_stream: after LIM_OK on_outcome runs exactly once, after the last on_part. */
LIM_API lim_err lim_client_ask_stream(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts,
                                      lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out); /* A */
/* Of the parts for which on_part said LIM_HOLD, so many are done with, and as many more may come. INVALID: more than are
 * held; GONE: it has ended. */
LIM_API lim_err lim_client_grant(lim_client *c, uint64_t call, uint32_t parts); /* A */
/* As lim_ask_all. */
LIM_API lim_err lim_client_ask_all(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts,
                                   lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out); /* A */

/* ---- serve and work ---- */
typedef struct lim_client_serve_opts {
    size_t size;
    const char *identity;
    uint32_t capacity;
    const char *const *types, *const *tags;
    const char *ns;              /* as in lim_serve_opts */
    lim_client_handler handler;  /* d->self.id is the registration */
    void (*on_ready)(void *ctx, const char *identity); /* registered (each time); NULL: not told */
    /* Stop: the result will be refused. lease 0: the conversation has ended, or the participant takes no part in it any
     * more; nothing said in it reaches anybody. */
    void (*on_revoked)(void *ctx, lim_conv conv, uint64_t lease, const char *why);
    /* So many more parts of the answer may be sent (lim_client_part). NULL: not told */
    void (*on_credit)(void *ctx, lim_conv conv, uint64_t lease, uint32_t credit);
} lim_client_serve_opts;
/* out->id is the client's own number, for the calls below; conversations and asks want the server's
 * (lim_client_participant_id). Without handler.on_message requests wait for lim_client_take. */
LIM_API lim_err lim_client_serve(lim_client *c, const char *group, const lim_client_serve_opts *opts, lim_diag *diag,
                                 lim_participant *out); /* A in own_loop, else B */
LIM_API lim_err lim_client_work(lim_client *c, const char *queue, const lim_client_serve_opts *opts, lim_diag *diag,
                                lim_participant *out);  /* A in own_loop, else B */
LIM_API lim_err lim_client_leave(lim_client *c, lim_participant p);                              /* A */
/* The server's number of a registration, for lim_client_conv_join and the `participant` of options, here or in any other
 * program. It is another one after each reconnect: ask in on_ready. UNREACHABLE: not registered now; GONE: ended. */
LIM_API lim_err lim_client_participant_id(lim_client *c, lim_participant registration, lim_participant *out); /* A */
/* As lim_report_used; said again by itself after a reconnect. */
LIM_API lim_err lim_client_report_used(lim_client *c, lim_participant registration, uint32_t used); /* A */
/* The next request of a registration without on_message; answer it with lim_client_reply_to or lim_client_fail_to
 * (delivery.self, .conv, .lease), unless wants_reply is false. TIMEOUT: none came; GONE: the registration has ended;
 * MISUSE: it has on_message. With own_loop nothing is waited for: timeout_ms must be 0. End it with lim_taken_fini. */
LIM_API lim_err lim_client_take(lim_client *c, lim_participant registration, int64_t timeout_ms, lim_taken *out); /* B */
/* Into the conversation that `d` is of: its opener gets a message. UNREACHABLE: nothing was sent. If the conversation has
 * ended, or the participant takes no part in it any more (after a reconnect it is another one), on_revoked says so. */
LIM_API lim_err lim_client_say(lim_client *c, const lim_delivery *d, lim_bytes payload);         /* A */
/* The same to one other participant (d->from of a message), or to all others and the opener (LIM_EVERYBODY). */
LIM_API lim_err lim_client_say_to(lim_client *c, const lim_delivery *d, lim_participant to, lim_bytes payload); /* A */
/* One part of an answer whose asker takes parts (d->credit > 0). FULL: no credit now, on_credit tells when; GONE: nobody
 * waits any more; MISUSE: the asker takes none. */
LIM_API lim_err lim_client_part(lim_client *c, const lim_delivery *d, lim_bytes payload);        /* A */
LIM_API lim_err lim_client_part_to(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease,
                                   lim_bytes payload);                                           /* A */
/* Of a task in hand: it is being worked on. The note (at most 200 bytes, else TOOBIG; NULL: none) is shown. UNREACHABLE:
 * the connection is away, and so is its progress clock. GONE: revoked, or answered. */
LIM_API lim_err lim_client_progress(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease,
                                    const char *note);                                           /* A */
LIM_API lim_err lim_client_reply(lim_client *c, const lim_delivery *d, lim_bytes payload);       /* A */
LIM_API lim_err lim_client_fail(lim_client *c, const lim_delivery *d, const char *why);          /* A */
LIM_API lim_err lim_client_reply_to(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease,
                                    lim_bytes payload);                                          /* A */
LIM_API lim_err lim_client_fail_to(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease,
                                   const char *why);                                             /* A */

/* ---- tasks ---- */
typedef void lim_on_dispatched(void *ctx, lim_err err, const lim_admission *admission, lim_conv task);
/* on_outcome runs exactly once if the task was accepted or deferred; NULL: nobody waits for the result. Without
 * on_dispatched it runs exactly once in any case. */
LIM_API lim_err lim_client_dispatch_async(lim_client *c, const char *queue, lim_bytes task, const lim_dispatch_opts *opts,
                                          lim_on_dispatched *on_dispatched, lim_on_outcome *on_outcome, void *ctx); /* A */
LIM_API lim_err lim_client_dispatch(lim_client *c, const char *queue, lim_bytes task, const lim_dispatch_opts *opts,
                                    lim_admission *out, lim_conv *task_out);                     /* B */
/* TIMEOUT: it goes on. GONE: no such task, or it ended too long ago. */
LIM_API lim_err lim_client_await(lim_client *c, lim_conv task, int64_t timeout_ms, lim_outcome *out); /* B */
/* Waits until it ends, or lim_client_cancel(call), which ends the waiting (`cancelled`), not the task. Of a task that
 * nobody knows the outcome is refused{no_participant} with conv {0}. */
LIM_API lim_err lim_client_await_async(lim_client *c, lim_conv task, lim_on_outcome *on_outcome, void *ctx,
                                       uint64_t *call_out);                                      /* A */

/* ---- conversations ----
 * Those that this client opened: what participants say is pushed to it and waits here (at most 8 MiB; then the
 * conversation ends: inbox_max is for conversations inside the server). */
typedef lim_conv_opts lim_client_conv_opts; /* as in liminal.h */
/* lim_on_done and this: run exactly once after LIM_OK. detail: why, for people; "" if OK. */
typedef void lim_on_conv(void *ctx, lim_err err, lim_conv conv, const char *detail);
/* EXISTS: a living conversation has that name. */
LIM_API lim_err lim_client_conv_open(lim_client *c, const lim_client_conv_opts *opts, lim_diag *diag, lim_conv *out); /* B */
LIM_API lim_err lim_client_conv_open_async(lim_client *c, const lim_client_conv_opts *opts, lim_on_conv *on_open,
                                           void *ctx);                                                               /* A */
/* EXISTS: it takes part already. GONE: no such conversation; CLOSED: it ended first. A participant that does not live
 * joins and is seen to have died. */
LIM_API lim_err lim_client_conv_join(lim_client *c, lim_conv conv, lim_participant participant);                     /* B */
/* As join; when it is gone the conversation fails, whoever else is there. */
LIM_API lim_err lim_client_conv_join_required(lim_client *c, lim_conv conv, lim_participant participant);            /* B */
LIM_API lim_err lim_client_conv_join_async(lim_client *c, lim_conv conv, lim_participant participant, bool required,
                                           lim_on_done *on_done, void *ctx);                                         /* A */
/* Takes a participant out: its pending asks end `crashed` with reason `left`. NOTFOUND: it takes no part. */
LIM_API lim_err lim_client_conv_leave(lim_client *c, lim_conv conv, lim_participant participant);                    /* B */
LIM_API lim_err lim_client_conv_leave_async(lim_client *c, lim_conv conv, lim_participant participant,
                                            lim_on_done *on_done, void *ctx);                                        /* A */
/* on_admission (may be NULL) runs exactly once after LIM_OK: ACCEPT or REJECT with why; err CLOSED: the conversation or
 * the connection ended first, unknown. GONE: it is over. */
LIM_API lim_err lim_client_conv_send(lim_client *c, lim_conv conv, lim_participant to, lim_bytes payload,
                                     lim_on_admission *on_admission, void *ctx);                                     /* A */
/* As lim_conv_receive: messages, and that somebody joined, left or crashed (outcome.event, from, detail). First come,
 * first served. */
LIM_API lim_err lim_client_conv_receive(lim_client *c, lim_conv conv, int64_t timeout_ms, lim_outcome *out);         /* B */
LIM_API lim_err lim_client_conv_receive_async(lim_client *c, lim_conv conv, int64_t timeout_ms,
                                              lim_on_outcome *on_outcome, void *ctx);                                /* A */
LIM_API lim_err lim_client_conv_ask(lim_client *c, lim_conv conv, lim_participant to, lim_bytes request,
                                    int64_t timeout_ms, lim_outcome *out);                                           /* B */
/* *call_out (may be NULL) is for lim_client_cancel. */
LIM_API lim_err lim_client_conv_ask_async(lim_client *c, lim_conv conv, lim_participant to, lim_bytes request,
                                          int64_t timeout_ms, lim_on_outcome *on_outcome, void *ctx,
                                          uint64_t *call_out);                                                       /* A */
LIM_API lim_err lim_client_conv_close(lim_client *c, lim_conv conv);                                                 /* A */

/* ---- conversations and tasks of anybody, from outside ---- */
/* The living conversation of that name; NOTFOUND. */
LIM_API lim_err lim_client_conv_find(lim_client *c, const char *name, lim_conv *out);                                /* B */
LIM_API lim_err lim_client_conv_find_async(lim_client *c, const char *name, lim_on_conv *on_found, void *ctx);       /* A */
/* To whoever works on it: a delivery with event SIGNAL and `name` as its type. GONE: it has ended. */
LIM_API lim_err lim_client_signal(lim_client *c, lim_conv conv, const char *name, lim_bytes payload);                /* B */
LIM_API lim_err lim_client_signal_async(lim_client *c, lim_conv conv, const char *name, lim_bytes payload,
                                        lim_on_done *on_done, void *ctx);                                            /* A */
/* As lim_conv_history. To follow it, first subscribe to $sys.history.<id, hexadecimal>, then ask, and drop the entries
 * whose number came before. From an event loop: ask $sys.conversations {"op":"history","id":...,"after":...}. */
LIM_API lim_err lim_client_history(lim_client *c, lim_conv conv, uint64_t after, lim_on_history *each, void *ctx,
                                   uint64_t *entries);                                                               /* B */

/* ---- routing functions of the server ---- as in liminal.h
 * The waiting ones give up 10 s after each request; the others end with on_routed, exactly once after LIM_OK. What the server
 * says is wrong is an err (as in liminal.h) and a diag. CLOSED: the connection broke first, and nobody knows. */
typedef struct lim_routed { /* VIEW */
    lim_err err;
    lim_diag diag;              /* err: why */
    lim_hash hash;              /* artifact_load: of the code */
    bool already;               /* artifact_load: it was loaded before */
    lim_hash previous;          /* others: what was live; zero: nothing was */
    char version[40];           /* short hash or name: artifact_load: of the code; others: of what is live now */
} lim_routed;
typedef void lim_on_routed(void *ctx, const lim_routed *r);
/* Code that is long goes over in pieces (up to 16 MiB) and is checked by its SHA-256. */
LIM_API lim_err lim_client_artifact_load(lim_client *c, lim_engine engine, lim_bytes code, const char *name, lim_diag *diag,
                                         lim_hash *out);                                                                /* B */
LIM_API lim_err lim_client_artifact_load_async(lim_client *c, lim_engine engine, lim_bytes code, const char *name,
                                               int64_t timeout_ms, lim_on_routed *on_routed, void *ctx);                /* A */
LIM_API lim_err lim_client_deploy(lim_client *c, const char *group, const lim_hash *artifact, const lim_deploy_opts *opts,
                                  lim_diag *diag, lim_hash *previous);                                                  /* B */
LIM_API lim_err lim_client_deploy_async(lim_client *c, const char *group, const lim_hash *artifact, const lim_deploy_opts *opts,
                                        int64_t timeout_ms, lim_on_routed *on_routed, void *ctx);                       /* A */
/* `to`: the beginning of a kept version's hash (4 digits at least), or a strategy's name; NULL: the last good one before. */
LIM_API lim_err lim_client_rollback(lim_client *c, const char *group, const char *to, const char *by, lim_diag *diag,
                                    lim_hash *previous);                                                                /* B */
LIM_API lim_err lim_client_rollback_async(lim_client *c, const char *group, const char *to, const char *by, int64_t timeout_ms,
                                          lim_on_routed *on_routed, void *ctx);                                         /* A */
LIM_API lim_err lim_client_trial_promote(lim_client *c, const char *group, const char *by, lim_diag *diag,
                                         lim_hash *previous);                                                           /* B */
LIM_API lim_err lim_client_trial_promote_async(lim_client *c, const char *group, const char *by, int64_t timeout_ms,
                                               lim_on_routed *on_routed, void *ctx);                                    /* A */
LIM_API lim_err lim_client_trial_stop(lim_client *c, const char *group, const char *by, lim_diag *diag);                /* B */
LIM_API lim_err lim_client_trial_stop_async(lim_client *c, const char *group, const char *by, int64_t timeout_ms,
                                            lim_on_routed *on_routed, void *ctx);                                       /* A */
LIM_API lim_err lim_client_channel_deploy(lim_client *c, const char *channel, const lim_hash *artifact,
                                          const lim_deploy_opts *opts, lim_diag *diag, lim_hash *previous);             /* B */
LIM_API lim_err lim_client_channel_deploy_async(lim_client *c, const char *channel, const lim_hash *artifact,
                                                const lim_deploy_opts *opts, int64_t timeout_ms, lim_on_routed *on_routed,
                                                void *ctx);                                                             /* A */
LIM_API lim_err lim_client_channel_rollback(lim_client *c, const char *channel, const char *to, const char *by, lim_diag *diag,
                                            lim_hash *previous);                                                        /* B */
LIM_API lim_err lim_client_channel_rollback_async(lim_client *c, const char *channel, const char *to, const char *by,
                                                  int64_t timeout_ms, lim_on_routed *on_routed, void *ctx);             /* A */
LIM_API lim_err lim_client_channel_promote(lim_client *c, const char *channel, const char *by, lim_diag *diag,
                                           lim_hash *previous);                                                         /* B */
LIM_API lim_err lim_client_channel_promote_async(lim_client *c, const char *channel, const char *by, int64_t timeout_ms,
                                                 lim_on_routed *on_routed, void *ctx);                                  /* A */
LIM_API lim_err lim_client_channel_stop(lim_client *c, const char *channel, const char *by, lim_diag *diag);            /* B */
LIM_API lim_err lim_client_channel_stop_async(lim_client *c, const char *channel, const char *by, int64_t timeout_ms,
                                              lim_on_routed *on_routed, void *ctx);                                     /* A */
LIM_API lim_err lim_client_channel_undeploy(lim_client *c, const char *channel, lim_diag *diag);                        /* B */
LIM_API lim_err lim_client_channel_undeploy_async(lim_client *c, const char *channel, int64_t timeout_ms,
                                                  lim_on_routed *on_routed, void *ctx);                                 /* A */
typedef struct lim_route_entry { /* VIEW: something that happened in a slot */
    uint64_t n, at_wall_us;
    const char *kind;                    /* deploy, rollback, breaker, shadow, ramp, promote, trial_stop, ... */
    const char *version, *previous, *by, *detail;
} lim_route_entry;
typedef void lim_on_route_history(void *ctx, const lim_route_entry *entry);
/* The slot's history from behind entry `after` on; *entries (may be NULL): how many there were. */
LIM_API lim_err lim_client_route_history(lim_client *c, const char *group, uint64_t after, lim_on_route_history *each,
                                         void *ctx, lim_diag *diag, uint64_t *entries);                                 /* B */

/* ---- administration: an ask of a $sys group, JSON in, JSON out ---- */
LIM_API lim_err lim_client_sys(lim_client *c, const char *group, const char *request_json, int64_t timeout_ms,
                               lim_outcome *out); /* B */

#ifdef __cplusplus
}
#endif
#endif
