/* SPDX-License-Identifier: Apache-2.0
 * liminal.h - one process, one bus: all an embedder needs. (types.h tells the three kinds of thing and the contracts.)
 *
 *   bus            one running instance
 *   channel        a named stream of messages; publish is answered with a verdict
 *   group          a named set of participants that can serve the same requests, a router slot in front
 *   queue          a group with a list of tasks in front: same name, same slot
 *   conversation   a supervised process linked to everyone in one exchange: nobody waits for someone who is dead
 *
 * Every exchange ends, exactly once, in a lim_outcome. Callbacks run on the bus's threads with no lock held; they must
 * not block (contract B calls answer LIM_E_MISUSE there) and may call everything marked A. */
#ifndef LIMINAL_LIMINAL_H
#define LIMINAL_LIMINAL_H

#include <liminal/types.h>
#include <liminal/actor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lim_bus lim_bus;                             /* OBJECT, one owner */
typedef struct lim_channel { uint64_t id; } lim_channel;    /* VALUES */
typedef struct lim_sub { uint64_t id; } lim_sub;
typedef struct lim_conv { uint64_t id; } lim_conv;          /* also a task: a task is a conversation */
typedef struct lim_participant { uint64_t id; } lim_participant;
typedef struct lim_hash { uint8_t b[32]; } lim_hash;        /* SHA-256 of an artifact's bytes */

/* ---- verdicts: the answer to an offer ---- */
typedef enum lim_verdict {
    LIM_ACCEPT = 1, /* being handled now */
    LIM_DEFER,      /* kept: slow down, do not send it again */
    LIM_REJECT      /* not kept: send it again, after retry_after_ms */
} lim_verdict;

/* Why a verdict, or a refusal, is what it is. */
#define LIM_WHY_MAP(X)                                                                                                 \
    X(NO_SUBSCRIBER, "no_subscriber")                                                                                  \
    X(SUBSCRIPTION_FULL, "subscription_full")                                                                          \
    X(NO_PARTICIPANT, "no_participant")                                                                                \
    X(PARTICIPANT_FULL, "participant_full")                                                                            \
    X(ROUTING_FAULT, "routing_fault")                                                                                  \
    X(QUEUE_FULL, "queue_full")                                                                                        \
    X(TOO_BIG, "too_big")                                                                                              \
    X(BAD_NAME, "bad_name")                                                                                            \
    X(UNKNOWN_CHANNEL, "unknown_channel")                                                                              \
    X(SCHEMA, "schema")                                                                                                \
    X(CLOSING, "closing")                                                                                              \
    X(BACKLOG_FULL, "backlog_full")                                                                                    \
    X(MEMORY, "memory")                                                                                                \
    X(ROUTER_CHOSE_NONE, "router_chose_none")                                                                          \
    X(WORKERS_FULL, "workers_full")                                                                                    \
    X(KILLS_WORKERS, "kills_workers")                                                                                  \
    X(BAD_REQUEST, "bad_request")                                                                                      \
    X(PAUSED, "paused")                                                                                                \
    X(ATTEMPTS, "attempts")       /* failed as often as its queue allows */                                            \
    X(START_TO_CLOSE, "start_to_close") /* one attempt took longer than allowed */                                     \
    X(DUPLICATE, "duplicate")     /* another one with its unique key is there */                                       \
    X(REPLACED, "replaced")       /* by a newer one with its unique key */                                             \
    X(HOP_LIMIT, "hop_limit")     /* too many conversations deep: a loop */                                            \
    X(INBOX_FULL, "inbox_full")   /* of a conversation: nobody receives what is said in it */                          \
    X(QUORUM, "quorum")           /* fewer than asked for answered, and no more will */                                \
    X(PURGED, "purged")                                                                                                \
    X(DISK_FULL, "disk_full")     /* limit, current: bytes of the store, in MiB */                                     \
    X(DISK_FAULT, "disk_fault")   /* it could not be stored */                                                         \
    X(CHANNEL_FULL, "channel_full") /* at a limit of its channel, whose overflow policy is to reject */                \
    X(KEYS_FULL, "keys_full")     /* as many idempotency keys as its window holds */                                   \
    X(EXPECTED, "expected")       /* the channel's last sequence is not the one the publisher expected */
typedef enum lim_why {
    LIM_WHY_NONE = 0,
#define X(name, text) LIM_WHY_##name,
    LIM_WHY_MAP(X)
#undef X
} lim_why;
LIM_API const char *lim_why_text(lim_why why); /* A: "no_participant"; "" for NONE */

typedef struct lim_admission {
    lim_verdict verdict;
    lim_why why;             /* DEFER, REJECT */
    uint32_t matched;        /* publish: subscriptions that matched */
    uint32_t delivered;      /* of these: within their window */
    uint32_t deferred;       /* into their backlog */
    uint32_t dropped;        /* messages (this one or older ones) that a policy dropped to make room */
    uint32_t limit, current; /* the limit that decided, and its use; 0 if none did */
    uint32_t retry_after_ms; /* REJECT */
    uint8_t phase, wanted;   /* lim_phase: a conversation in `phase` cannot become `wanted`; 0: that was not why */
} lim_admission;

/* ---- outcomes: how an exchange ended ---- */
#define LIM_HOW_MAP(X)                                                                                                 \
    X(REPLY, "reply")         /* the participant answered: payload */                                                  \
    X(FAILED, "failed")       /* it answered that it could not: detail */                                              \
    X(REFUSED, "refused")     /* handed to nobody: why */                                                              \
    X(CRASHED, "crashed")     /* it died with the request in hand, or everybody did: participant, reason */            \
    X(TIMEOUT, "timeout")                                                                                              \
    X(CANCELLED, "cancelled")                                                                                          \
    X(CLOSED, "closed")       /* the conversation or the bus was closed meanwhile */                                   \
    X(LOST, "lost")           /* the connection to the bus broke: nobody knows */
typedef enum lim_how {
    LIM_HOW_NONE = 0,
#define X(name, text) LIM_HOW_##name,
    LIM_HOW_MAP(X)
#undef X
} lim_how;
LIM_API const char *lim_how_text(lim_how how); /* A */
typedef enum lim_handed { LIM_HANDED_NO = 1, LIM_HANDED_YES, LIM_HANDED_UNKNOWN } lim_handed;
LIM_API const char *lim_handed_text(lim_handed handed); /* A: "no", "yes", "unknown" */

typedef struct lim_excluded { /* VIEW: one that died, or was found to be stuck, with the request in hand */
    lim_bytes identity;
    uint64_t observed_wall_us; /* when that was seen: wall clock, microseconds since 1970; 0: not known any more */
    uint64_t rerouted_wall_us; /* when the next one had acknowledged it; 0: nobody has */
} lim_excluded;
typedef struct lim_outcome { /* OBJECT in memory you give: end it with lim_outcome_fini. In callbacks: a VIEW */
    lim_how how;
    lim_handed handed_over;
    lim_why why;               /* REFUSED; CRASHED: NO_PARTICIPANT when everybody was tried, KILLS_WORKERS */
    lim_reason reason;         /* CRASHED: why the participant ended */
    lim_conv conv;             /* the conversation, or task; may be gone */
    lim_bytes payload;         /* REPLY */
    lim_bytes detail;          /* text for people */
    lim_bytes participant;     /* identity of who answered, or died last; CLOSED: by whom: opener, bus or client */
    uint32_t excluded_count;   /* past whom it was rerouted: those that died with it in hand, oldest first */
    const lim_excluded *excluded;
    lim_bytes router;          /* version that chose: short hash, or the name of a built-in strategy */
    uint32_t attempts, losses; /* handler failures, and deliveries lost to a death */
    uint32_t limit, current, retry_after_ms; /* REFUSED by a limit */
    uint64_t elapsed_ns;       /* from the offer to the end */
    uint64_t crashed_wall_us;  /* of the last death (LOST: when the connection was seen to be broken): wall clock,
                                * microseconds since 1970; 0: none */
    uint64_t rerouted_ns;      /* from that death to the next participant's acknowledgement; 0: none */
    lim_conv compensation;     /* the task that undoes it (LIM_CRASH_COMPENSATE); {0}: none */
    lim_participant from;      /* of lim_conv_receive: who said it, or whom the event is about */
    uint8_t event;             /* of lim_conv_receive: lim_event; 0: a message */
    void *owned;               /* private */
} lim_outcome;
LIM_API_VOID void lim_outcome_fini(lim_outcome *outcome); /* A: safe on zeroed memory */
/* Called exactly once. The view ends when it returns. */
typedef void lim_on_outcome(void *ctx, const lim_outcome *outcome);

/* What happened in a conversation, beside messages. Everybody in it hears of these in one order. */
typedef enum lim_event {
    LIM_EVENT_NONE = 0,
    LIM_EVENT_JOINED,
    LIM_EVENT_LEFT,    /* by lim_conv_leave or of its own accord */
    LIM_EVENT_CRASHED, /* detail, or the delivery's type: the reason */
    LIM_EVENT_SIGNAL,  /* lim_conv_signal: detail, or the delivery's type: its name */
    LIM_EVENT_REFUSED  /* to a participant: what it said was not kept. type: why (lim_why_text), from: by whom ({0}: the
                        * opener), payload: what it had said */
} lim_event;
LIM_API const char *lim_event_text(lim_event event); /* A: "joined"; "" for NONE */

/* Tells how something that was asked for ended: exactly once. detail: why, for people; "" if OK. */
typedef void lim_on_done(void *ctx, lim_err err, const char *detail);

/* ---- durability ---- */
/* What "kept" means, from weak to strong. Stable numbers: they are sent and stored. */
#define LIM_CLASS_MAP(X)                                                                                               \
    X(MEMORY, "memory") /* gone when the bus ends */                                                                   \
    X(OS, "os")         /* survives the end of the process, not of the machine */                                      \
    X(DISK, "disk")     /* on stable storage: survives the loss of power */
typedef enum lim_class {
    LIM_CLASS_NONE = 0,
#define X(name, text) LIM_CLASS_##name,
    LIM_CLASS_MAP(X)
#undef X
} lim_class;
LIM_API const char *lim_class_text(lim_class durability); /* A: "disk" */
typedef enum lim_sync { /* when what is written is also on stable storage */
    LIM_SYNC_ALWAYS = 1, /* before it is answered: class DISK */
    LIM_SYNC_INTERVAL,   /* soon after: class OS */
    LIM_SYNC_NEVER       /* when the system likes: class OS */
} lim_sync;

/* ---- bus ---- */
typedef struct lim_bus_opts {
    size_t size;
    uint32_t scheduler_count;    /* 1..63 threads that run processes and connections */
    uint32_t spin_us;            /* a scheduler polls this long before it sleeps; 0: never */
    uint32_t payload_bytes_max;  /* 0: 1 MiB; larger payloads are refused (TOO_BIG) */
    void (*on_log)(void *ctx, const char *line); /* one event a line, logfmt; NULL: nowhere. Any thread of the bus */
    void *log_ctx;
    /* Where durable channels, queues, conversations and deployments are kept. NULL: nothing is, and asking for something
     * durable is refused (MISUSE). Made if it is not there; locked against a second bus (EXISTS). */
    const char *data_dir;
    uint64_t data_bytes_max;     /* of its log; 0: what the disk has */
    uint64_t data_segment_bytes; /* 0: 64 MiB */
    lim_sync sync;               /* when a channel does not say otherwise; 0: LIM_SYNC_ALWAYS */
    uint32_t sync_interval_ms;   /* of LIM_SYNC_INTERVAL; 0: 1000 */
    lim_diag *diag;              /* gets what is wrong when opening fails; may be NULL */
    bool native_engine;          /* takes native routing functions (native.h). They run in processes of liminal-helper, under
                                  * a system call filter; DENIED: this machine has none, NOTFOUND: no such program */
    const char *native_helper;   /* its path; NULL: beside the running program, else where it was installed */
    uint32_t blocking_max;       /* threads for what may take long (isolated routing functions, loading native ones), started
                                  * when needed. 0: 4; at most 64 */
    const char *node;            /* what routing functions see as the place of participants that say none; at most 255 bytes;
                                  * NULL: "local" */
} lim_bus_opts;
LIM_API lim_err lim_bus_open(const lim_bus_opts *opts, lim_bus **out); /* B */
/* Refuses new work and waits until what runs has ended; TIMEOUT: something is still running. */
LIM_API lim_err lim_bus_drain(lim_bus *bus, int64_t timeout_ms); /* B */
/* Ends everything (outcome: closed), joins the threads, frees. No callback runs afterwards. */
LIM_API_VOID void lim_bus_close(lim_bus *bus); /* B */

/* ---- handlers: code + state + goodbye ---- */
typedef struct lim_msg lim_msg; /* OBJECT, shared, immutable */
LIM_API lim_msg *lim_msg_ref(lim_msg *msg);         /* A */
LIM_API_VOID void lim_msg_unref(lim_msg *msg);      /* A */
LIM_API lim_bytes lim_msg_payload(const lim_msg *msg); /* A */

typedef struct lim_delivery { /* VIEW */
    lim_bytes payload;
    lim_bytes channel;         /* of a subscription's message: the channel's name */
    lim_bytes type;            /* of a request: its activity type, or empty */
    uint64_t seq;              /* of a subscription's message: 1, 2, ... per subscription */
    lim_conv conv;             /* of a request: the conversation or task */
    uint64_t lease;            /* of a request: which hand-over; what lim_reply_to and friends need */
    lim_participant from;      /* of a conversation's message: who said it, {0}: the opener; whom an event is about */
    lim_event event;           /* not NONE: not a message, something happened in the conversation `conv` */
    lim_participant self;      /* of a request: the participant it was handed to */
    int64_t remaining_ms;      /* of a request: time left; LIM_FOREVER: no deadline */
    uint32_t attempt, losses;
    uint32_t hops;             /* of a request: how many conversations deep it was asked */
    uint32_t credit;           /* of a request whose asker takes parts: how many it takes now; 0: it takes none */
    bool wants_reply;
    lim_msg *msg;              /* lim_msg_ref it to keep the payload */
    lim_bytes headers;         /* of a subscription's message: packed as on the wire; see lim_header */
} lim_delivery;
/* The text of a header of a delivery or stored message; false: it has none of that name. */
LIM_API bool lim_header(lim_bytes headers, const char *name, lim_bytes *out); /* A */
typedef enum lim_done {
    LIM_DONE = 1, /* finished with it. A request without lim_reply: serve: silence; work: an empty result */
    LIM_HOLD,     /* lim_complete, lim_reply_to or lim_fail_to follows */
    LIM_FAIL      /* requests: as lim_fail with no text */
} lim_done;
typedef struct lim_handler {
    lim_done (*on_message)(lim_bus *bus, const lim_delivery *d, void *ctx); /* one at a time, in order */
    void (*on_end)(void *ctx); /* exactly once, after the last on_message; NULL: nothing to do */
    void *ctx;
    /* After LIM_HOLD: stop, nobody waits for this answer any more. It counts as in hand until it is answered all the same
     * (lim_fail_to, when the work has really stopped). why: cancelled, timeout, taken, ended. NULL: not told */
    void (*on_cancel)(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, const char *why, void *ctx);
    /* After LIM_HOLD: so many more parts may be sent. NULL: not told */
    void (*on_credit)(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, uint32_t credit, void *ctx);
} lim_handler;

/* Where something comes from: what a conversation that is opened while another one is served inherits of it. */
typedef struct lim_cause {
    lim_conv conv;           /* {0}: no parent */
    uint32_t hops;           /* of the parent; a child has one more, and more than LIM_HOPS_MAX are refused */
    int64_t remaining_ms;    /* a child never has more time than this; 0: as LIM_FOREVER */
    char traceparent[56];    /* W3C trace context, "" none: goes into the child's messages as header traceparent */
} lim_cause;
enum { LIM_HOPS_MAX = 64 };
LIM_API_VOID void lim_cause_of(const lim_delivery *d, lim_cause *out); /* A */

/* ---- channels ----
 * Names: segments of [A-Za-z0-9_-] joined by dots, at most 255 bytes; names that begin with $ are the system's.
 * A channel that somebody merely subscribes to exists as long as its subscriptions; opened ones until closed. */
typedef enum lim_overflow { /* what happens to a publish that a durable channel has no room for */
    LIM_OVERFLOW_DROP_OLDEST = 1, /* the oldest messages go */
    LIM_OVERFLOW_REJECT,          /* REJECT{channel_full} */
    LIM_OVERFLOW_DEAD_LETTER      /* the oldest go to the channel `dead_letter` */
} lim_overflow;
typedef struct lim_channel_opts {
    size_t size;
    bool allow_hold; /* subscriptions with policy `hold` may make publishes REJECT; durable channels have none */
    /* What follows is of durable channels. A limit of 0 is none. */
    bool durable;           /* decided once: opening it again the other way is refused (EXISTS) */
    int64_t age_ms_max;     /* messages older than this are forgotten */
    uint64_t bytes_max;     /* of keys, headers and payloads */
    uint64_t count_max;
    bool latest_per_key;    /* a message replaces the older one with its key */
    lim_overflow overflow;  /* at bytes_max or count_max; 0: DROP_OLDEST */
    const char *dead_letter; /* a durable channel, of OVERFLOW_DEAD_LETTER; NULL: none */
    lim_sync sync;          /* 0: the bus's */
    int64_t window_ms;      /* how long idempotency keys are remembered; 0: 10 minutes */
    uint32_t window_keys;   /* how many at most; 0: 1,000,000 */
    uint64_t window_bytes;  /* of what is kept of them, the key and 41 bytes each; 0: 64 MiB */
    bool window_slides;     /* a duplicate starts its key's time anew */
    bool window_forgets;    /* at either bound the oldest key is forgotten; else new ones are refused (keys_full) */
} lim_channel_opts;
LIM_API lim_err lim_channel_open(lim_bus *bus, const char *name, const lim_channel_opts *opts, lim_channel *out); /* A */
/* Tells the subscribers; what they have buffered stays readable. */
LIM_API lim_err lim_channel_close(lim_bus *bus, lim_channel channel); /* A */

typedef enum lim_policy { /* what happens to a message that finds window and backlog full */
    LIM_HOLD_BACK = 1,    /* the publish is rejected: needs a channel, by its name, that allows it */
    LIM_DROP_OLDEST,
    LIM_DROP_NEWEST,
    LIM_CLOSE_SUB         /* the subscription ends */
} lim_policy;
typedef enum lim_from { LIM_FROM_NEW = 1, LIM_FROM_ALL, LIM_FROM_SEQ, LIM_FROM_TIME } lim_from;
/* Of subscriptions that read the log of a durable channel, by its name (else MISUSE): `backlog` is not looked at, a delivery's
 * seq is the channel's, and the handler's LIM_FAIL is a negative acknowledgement (again after 100 ms, then twice as long each
 * time, at most 30 s). What is delivered again has the header $deliveries; $damaged names a record before that went bad. */
typedef struct lim_read_opts {
    lim_from from;           /* 0: LIM_FROM_NEW. A cursor that is there goes on where it was */
    uint64_t start;          /* FROM_SEQ: that number; FROM_TIME: microseconds since 1970 */
    const char *cursor;      /* its name: what was acknowledged survives the subscription and the bus. NULL: none */
    bool shared;             /* several subscriptions of one cursor: each message goes to one of them */
    bool standby;            /* several, of which one is active, and the next takes its place at once when it ends */
    int64_t ack_ms;          /* not acknowledged for so long: delivered again; 0: 30 s, without a cursor never; LIM_FOREVER */
    uint32_t deliveries_max; /* of one message, then it goes to `dead_letter`; 0: no limit */
    const char *dead_letter; /* a durable channel; NULL: it is given up, with an event */
    bool last_per_key;       /* begin with the newest message of every key, then what is new */
} lim_read_opts;
typedef struct lim_sub_opts {
    size_t size;
    uint32_t window;      /* messages delivered and not yet done; 0: 1024. Of readers of a log: at most 16384 */
    uint32_t backlog;     /* messages kept beyond the window; 0: 65536. LIM_UNLIMITED is refused: memory is bounded */
    lim_policy policy;    /* 0: LIM_DROP_OLDEST; of a durable channel, by its name: it reads the log, and nothing is dropped */
    lim_handler handler;
    lim_read_opts read;
} lim_sub_opts;
/* `pattern` may use * for one segment and a last > for the rest (a first * or > leaves out the names that begin with $).
 * When this answered, every publish offered afterwards, anywhere, reaches it. on_message runs on one of the bus's
 * threads, never inside a publish. FULL: too many subscriptions or channels. MISUSE: also policy hold with a pattern, or
 * on a channel that does not allow it. GONE: policy close, and it had to be used before this answered. On an error the
 * handler was not taken: its on_end is not called. */
LIM_API lim_err lim_subscribe(lim_bus *bus, const char *pattern, const lim_sub_opts *opts, lim_sub *out); /* A */
/* Nothing is delivered afterwards: no call of on_message begins once this returned; one that had begun may still be
 * running on another thread. on_end comes after it, once. GONE: it has ended before. */
LIM_API lim_err lim_unsubscribe(lim_bus *bus, lim_sub sub); /* A */
LIM_API lim_err lim_complete(lim_bus *bus, lim_sub sub, uint64_t seq); /* A: after LIM_HOLD: done up to and including seq */
/* Of one that reads the log, after LIM_HOLD: this message alone is done; or it is not, and is delivered again after delay_ms
 * (0: at once). With a cursor on_done runs once it is stored (exactly once after LIM_OK, unless the bus closes first; may be
 * NULL); err IO: it could not be. lim_complete acknowledges everything up to seq. NOTFOUND: it was not waited for. */
LIM_API lim_err lim_ack(lim_bus *bus, lim_sub sub, uint64_t seq, lim_on_done *on_done, void *ctx); /* A */
LIM_API lim_err lim_nack(lim_bus *bus, lim_sub sub, uint64_t seq, int64_t delay_ms);              /* A */
/* Pull instead of push: a subscription opened with window LIM_PULL delivers only what was asked for. ends_ms: those that have
 * not come by then are not wanted any more. */
#define LIM_PULL (UINT32_MAX - 1)
LIM_API lim_err lim_fetch(lim_bus *bus, lim_sub sub, uint32_t count, int64_t ends_ms); /* A */
/* The newest message of a key of a durable channel; NOTFOUND. End it with lim_stored_fini. */
typedef struct lim_stored_message { /* OBJECT in memory you give */
    uint64_t seq, at_wall_us;
    lim_bytes key, payload, headers; /* headers packed as on the wire */
    void *owned;
} lim_stored_message;
LIM_API lim_err lim_channel_get(lim_bus *bus, const char *channel, const char *key, lim_stored_message *out); /* B */
LIM_API_VOID void lim_stored_fini(lim_stored_message *message); /* A: safe on zeroed memory */

/* ---- steps: several changes, all or nothing ---- consume, transform, produce */
typedef struct lim_step lim_step; /* OBJECT, one owner, until it is committed */
LIM_API lim_err lim_step_new(lim_bus *bus, lim_step **out); /* A */
LIM_API_VOID void lim_step_free(lim_step *step);            /* A: one that was not committed */
/* A message for a durable channel. opts as of lim_publish, without on_receipt and delay_ms. */
typedef struct lim_publish_opts lim_publish_opts;
LIM_API lim_err lim_step_publish(lim_step *step, const char *channel, lim_bytes payload, const lim_publish_opts *opts); /* A */
LIM_API lim_err lim_step_ack(lim_step *step, lim_sub sub, uint64_t seq); /* A: of a subscription with a cursor */
LIM_API lim_err lim_step_reply(lim_step *step, const lim_delivery *d, lim_bytes payload); /* A: of a durable queue's task */
/* on_done runs exactly once after LIM_OK: all of it is stored, or nothing (GONE: a message or task was not this one's to
 * acknowledge any more; EXISTS: an idempotency key was seen before; FULL, IO). Takes the step, whatever it answers. */
LIM_API lim_err lim_step_commit(lim_step *step, lim_on_done *on_done, void *ctx); /* A */
LIM_API lim_err lim_step_commit_wait(lim_step *step);                             /* B: what on_done would be told */

typedef struct lim_sub_info {
    uint64_t delivered, dropped;
    uint32_t in_flight, window, backlog, backlog_max;
} lim_sub_info;
LIM_API lim_err lim_sub_inspect(lim_bus *bus, lim_sub sub, lim_sub_info *out); /* A */

/* What became of a message of a durable channel. */
typedef struct lim_receipt { /* VIEW in callbacks */
    lim_admission admission; /* ACCEPT: stored. REJECT: it is not, and nobody will see it */
    uint64_t seq;            /* its number in the channel; 0: not stored, or `delayed` */
    lim_class durability;    /* what stored means here */
    bool duplicate;          /* its idempotency key was seen before: this is the receipt of the first */
    uint64_t at_wall_us;     /* when it was stored */
    bool delayed;            /* it is stored for later (delay_ms), and gets its number then: what is published meanwhile comes
                              * before it. A duplicate that comes when it is due has the number */
    uint64_t due_wall_us;    /* delayed: when */
} lim_receipt;
typedef void lim_on_receipt(void *ctx, const lim_receipt *receipt);
typedef struct lim_publish_opts {
    size_t size;
    bool mandatory; /* REJECT{no_subscriber} when nobody matches */
    /* What follows is of durable channels; on others it is refused (MISUSE), but for `key`. */
    const char *key;              /* of the message: for latest_per_key; subscribers see it as header $key. NULL: none */
    const char *idempotency_key;  /* at most 255 bytes. NULL: none */
    int64_t expires_ms;           /* it is forgotten, and delivered to nobody, after this; 0: never */
    int64_t delay_ms;             /* not before; it gets its number then; 0: now */
    uint64_t at_wall_us;          /* instead of delay_ms: an instant, microseconds since 1970; past: now. 0: none */
    bool expect_last;             /* only if the channel's last number is `last` (REJECT{expected}) */
    uint64_t last;
    lim_on_receipt *on_receipt;   /* runs exactly once after LIM_OK, unless the bus closes first. NULL: nobody is told */
    void *ctx;
} lim_publish_opts;
/* Copies the payload. INVALID: bad name; TOOBIG; else the admission is the answer. opts may be NULL. On a durable channel
 * ACCEPT says that it was handed to the store: the receipt says that it is kept. */
LIM_API lim_err lim_publish(lim_bus *bus, lim_channel channel, lim_bytes payload, const lim_publish_opts *opts,
                            lim_admission *out); /* A */
/* Waits for the receipt. On an ephemeral channel: class MEMORY, seq 0. */
LIM_API lim_err lim_publish_wait(lim_bus *bus, lim_channel channel, lim_bytes payload, const lim_publish_opts *opts,
                                 lim_receipt *out); /* B */

/* ---- participants and groups ---- */
typedef struct lim_serve_opts {
    size_t size;
    const char *identity;        /* unique in the group; NULL: participant-<n> or worker-<n> */
    uint32_t capacity;           /* requests in hand at once, at most; LIM_UNLIMITED is allowed for serve */
    const char *const *types;    /* NULL-terminated; NULL: every type */
    const char *const *tags;     /* NULL-terminated; NULL: none */
    lim_handler handler;         /* on_message NULL: pulled with lim_take, not pushed */
    lim_participant participant; /* not {0}: this one, opened by whomever, enters; `handler` is not looked at */
    const char *ns;              /* namespace: the same name in two of them is two groups. NULL: none. See lim_workflow_name */
} lim_serve_opts;
/* serve: answers the group's asks. work: executes the queue's tasks. EXISTS: the identity is taken. */
LIM_API lim_err lim_serve(lim_bus *bus, const char *group, const lim_serve_opts *opts, lim_participant *out); /* B */
LIM_API lim_err lim_work(lim_bus *bus, const char *queue, const lim_serve_opts *opts, lim_participant *out);  /* B */
/* A participant in no group, for conversations opened with it. Only handler, identity and capacity are read. */
LIM_API lim_err lim_participant_open(lim_bus *bus, const lim_serve_opts *opts, lim_participant *out); /* A */
/* Ends any of the three with reason LIM_LEFT: its tasks move on at once. */
LIM_API lim_err lim_leave(lim_bus *bus, lim_participant participant); /* A */
/* Of its capacity, `used` places are taken by work from elsewhere: they count as in flight until told otherwise. */
LIM_API lim_err lim_report_used(lim_bus *bus, lim_participant participant, uint32_t used); /* A */

typedef struct lim_taken { /* OBJECT in memory you give: end it with lim_taken_fini after the answer */
    lim_delivery delivery;   /* for lim_reply_to, lim_fail_to: delivery.self, .conv, .lease */
    void *owned;             /* private */
} lim_taken;
/* The next request of a participant without on_message. It counts as in hand from here on. TIMEOUT: none came; GONE: the
 * participant has ended. */
LIM_API lim_err lim_take(lim_bus *bus, lim_participant participant, int64_t timeout_ms, lim_taken *out); /* B */
LIM_API_VOID void lim_taken_fini(lim_taken *taken); /* A: safe on zeroed memory */
/* A descriptor for a poll of one's own: readable while lim_take would not wait, because a request is there or the participant
 * has ended. It belongs to the participant: never read, written or closed, and not looked at after GONE. */
LIM_API lim_err lim_take_fd(lim_bus *bus, lim_participant participant, int *out); /* A */

/* Inside on_message for the delivery at hand. Exactly the first answer counts; GONE: nobody waits any more. */
LIM_API lim_err lim_reply(lim_bus *bus, const lim_delivery *d, lim_bytes payload);  /* A */
LIM_API lim_err lim_fail(lim_bus *bus, const lim_delivery *d, const char *why);     /* A */
/* One part of an answer whose asker takes parts; the reply, or fail, comes after the last. FULL: no credit now (on_credit
 * tells when); GONE: nobody waits any more; MISUSE: the asker takes no parts. */
LIM_API lim_err lim_part(lim_bus *bus, const lim_delivery *d, lim_bytes payload);   /* A */
LIM_API lim_err lim_part_to(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, lim_bytes payload); /* A */
/* Of a task: it is being worked on. Starts its progress_ms anew; the note (at most 200 bytes, NULL: none) is shown. */
LIM_API lim_err lim_progress(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, const char *note); /* A */
/* After LIM_HOLD, from anywhere. */
LIM_API lim_err lim_reply_to(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, lim_bytes payload); /* A */
LIM_API lim_err lim_fail_to(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, const char *why);    /* A */

/* ---- ask: one request, one outcome ---- */
typedef enum lim_crash {
    LIM_CRASH_FAIL = 1, /* the ask ends `crashed` */
    LIM_CRASH_NEXT,     /* it moves to another participant of the group; it may then have run twice. Not once a part of an
                         * answer has come: then as FAIL */
    LIM_CRASH_COMPENSATE /* the ask ends `crashed`, and a task that says what had happened goes to `compensate` */
} lim_crash;
typedef struct lim_ask_opts {
    size_t size;
    int64_t timeout_ms;          /* > 0; LIM_FOREVER */
    lim_crash on_crash;          /* 0: LIM_CRASH_FAIL */
    const char *type;            /* NULL: none */
    lim_participant participant; /* instead of a group: pass group NULL */
    bool wait;                   /* an empty group: wait for a participant until the timeout instead of refusing */
    const char *compensate;      /* COMPENSATE: a queue. The task's payload: docs/protocol.md, "Compensation" */
    lim_cause cause;             /* zeroed: none */
    bool trace;                  /* keep its history: lim_conv_history, `liminal conversation show` */
    uint32_t window;             /* lim_ask_stream: parts under way at once; 0: 64 */
    uint32_t quorum;             /* lim_ask_all: replies that are enough; 0: everybody's */
    bool durable;                /* survives the bus: its id can be awaited after a restart. lim_ask, lim_ask_async only */
    const char *ns;              /* namespace of the group; NULL: none */
} lim_ask_opts;
LIM_API lim_err lim_ask(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts,
                        lim_outcome *out); /* B */
/* After LIM_OK, on_outcome runs exactly once. *conv_out (may be NULL) is for lim_conv_cancel. */
LIM_API lim_err lim_ask_async(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts,
                              lim_on_outcome *on_outcome, void *ctx, lim_conv *conv_out); /* A */

/* A part of an answer, or the answer of one of many. VIEW */
typedef struct lim_part_view {
    lim_conv conv;
    uint32_t seq;              /* 1, 2, ... */
    lim_how how;               /* REPLY; lim_ask_all: how this one's ask ended */
    lim_bytes participant, payload, detail;
} lim_part_view;
/* DONE: may be followed by one more; HOLD: lim_conv_grant says when; FAIL: cancels the ask. */
typedef lim_done lim_on_part(void *ctx, const lim_part_view *part);
/* One request, many parts of an answer, one outcome. After LIM_OK on_outcome runs exactly once, after the last on_part.
 * lim_conv_cancel reaches the participant. */
LIM_API lim_err lim_ask_stream(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts,
                               lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, lim_conv *conv_out); /* A */
LIM_API lim_err lim_conv_grant(lim_bus *bus, lim_conv conv, uint32_t parts); /* A: after LIM_HOLD of lim_on_part */
/* Asks everybody who serves the group now (at most 1024, the type's) at once. on_part runs for each, as it ends. Ends as
 * soon as `quorum` replied: the others are cancelled; refused{quorum} when that can no longer be; timeout. The outcome's
 * attempts: how many were asked; losses: how many of them did not reply. With quorum 1: whoever is first. */
LIM_API lim_err lim_ask_all(lim_bus *bus, const char *group, lim_bytes request, const lim_ask_opts *opts,
                            lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, lim_conv *conv_out); /* A */

/* ---- conversations with more than one exchange ---- */
#define LIM_PHASE_MAP(X)                                                                                               \
    X(CREATED, "created") X(ACTIVE, "active") X(COMPLETING, "completing") X(ENDED, "closed") X(BROKEN, "failed")
typedef enum lim_phase {
    LIM_PHASE_NONE = 0,
#define X(name, text) LIM_PHASE_##name,
    LIM_PHASE_MAP(X)
#undef X
} lim_phase;
LIM_API const char *lim_phase_text(lim_phase phase); /* A */
typedef struct lim_conv_opts {
    size_t size;
    const char *group;           /* one participant chosen through the group's router; or */
    lim_participant participant; /* this one; neither: a buffer that others may join */
    int64_t timeout_ms;          /* of the whole conversation, > 0; LIM_FOREVER */
    lim_crash on_crash;          /* 0: LIM_CRASH_FAIL */
    const char *compensate;      /* COMPENSATE: a queue; the history is kept, and told to it */
    const char *name;            /* found by it (lim_conv_find) as long as it lives; EXISTS: taken. NULL: none */
    const char *const *attributes; /* "key=value", NULL-terminated, at most 32: `conversation ls --where key=value` */
    lim_cause cause;             /* zeroed: none */
    bool trace;                  /* keep its history */
    uint32_t inbox_max;          /* messages not yet received; more are refused (inbox_full). 0: 1024 */
    bool durable;                /* every step of it is stored; it goes on after a restart, and after its owner */
    lim_conv attach;             /* not {0}: no new one; this durable one, whose owner is gone, gets the caller as its owner.
                                  * Nothing else is looked at. GONE; EXISTS: its owner lives; INVALID: it is not durable */
} lim_conv_opts;
typedef struct lim_conv_info {
    lim_phase phase;
    uint32_t alive, dead;        /* participants */
    uint32_t pending, buffered;  /* receives and asks waiting; messages not yet received */
    uint64_t sent, received;
    int64_t remaining_ms;        /* LIM_FOREVER: no deadline */
} lim_conv_info;
LIM_API lim_err lim_conv_open(lim_bus *bus, const lim_conv_opts *opts, lim_conv *out);                        /* B */
LIM_API lim_err lim_conv_join(lim_bus *bus, lim_conv conv, lim_participant participant);                      /* B */
/* As join; when it is gone the conversation fails, whoever else is there. */
LIM_API lim_err lim_conv_join_required(lim_bus *bus, lim_conv conv, lim_participant participant);             /* B */
/* Takes a participant out: its pending asks end `crashed` with reason `left`. NOTFOUND: it takes no part. */
LIM_API lim_err lim_conv_leave(lim_bus *bus, lim_conv conv, lim_participant participant);                     /* B */
/* The living conversation of that name. */
LIM_API lim_err lim_conv_find(lim_bus *bus, const char *name, lim_conv *out);                                 /* A */
/* To one participant, or to all of them ({0}); without any, into the conversation's own buffer. */
LIM_API lim_err lim_conv_send(lim_bus *bus, lim_conv conv, lim_participant to, lim_bytes payload, lim_admission *out); /* B */
/* The next message that a participant sent on its own account, or that is in the buffer, or that somebody joined, left or
 * crashed: how = LIM_HOW_REPLY, event, from. */
LIM_API lim_err lim_conv_receive(lim_bus *bus, lim_conv conv, int64_t timeout_ms, lim_outcome *out);          /* B */
LIM_API lim_err lim_conv_ask(lim_bus *bus, lim_conv conv, lim_participant to, lim_bytes request, int64_t timeout_ms,
                             lim_outcome *out); /* B */
/* A participant's message into the conversation it was asked or sent something in. */
LIM_API lim_err lim_conv_say(lim_bus *bus, const lim_delivery *d, lim_bytes payload); /* A */
/* The same to one other participant, or to all others and the opener (LIM_EVERYBODY). */
#define LIM_EVERYBODY ((lim_participant){ UINT64_MAX })
LIM_API lim_err lim_conv_say_to(lim_bus *bus, const lim_delivery *d, lim_participant to, lim_bytes payload); /* A */
/* From outside, to whoever works on it: participants get a delivery with event SIGNAL. `name` as a channel's segment.
 * GONE: it has ended. */
LIM_API lim_err lim_conv_signal(lim_bus *bus, lim_conv conv, const char *name, lim_bytes payload); /* A */
LIM_API lim_err lim_conv_close(lim_bus *bus, lim_conv conv);  /* A: pending receives and asks end `closed` */
LIM_API lim_err lim_conv_cancel(lim_bus *bus, lim_conv conv); /* A: any conversation or task by id: ends `cancelled` */
LIM_API lim_err lim_conv_inspect(lim_bus *bus, lim_conv conv, lim_conv_info *out); /* B */
/* What happened in it, from entry `after` on (0: all), oldest first, for one with `trace`, or whose group has it on, also
 * a while after its end. entries: how many there were (those past the newest 512 are forgotten). NOTFOUND: no history. */
typedef struct lim_history_entry { /* VIEW */
    uint64_t n, at_wall_us;
    lim_bytes kind;        /* opened, assigned, joined, left, sent, asked, said, part, answered, crashed, phase, signal ... */
    lim_bytes who, detail; /* identity or id; text */
    uint64_t bytes;        /* of a message */
} lim_history_entry;
typedef void lim_on_history(void *ctx, const lim_history_entry *entry);
LIM_API lim_err lim_conv_history(lim_bus *bus, lim_conv conv, uint64_t after, lim_on_history *each, void *ctx,
                                 uint64_t *entries); /* B */
/* Runs exactly once with the monotonic instant (ns) at which the participant's end was observed, also when it has ended
 * before; LIM_REASON_NONE: the conversation ended first, the participant did not. */
typedef void lim_on_exit(void *ctx, lim_participant participant, lim_reason reason, uint64_t at_ns);
LIM_API lim_err lim_conv_notify(lim_bus *bus, lim_conv conv, lim_participant participant, lim_on_exit *on_exit,
                                void *ctx); /* A */

/* ---- tasks ---- */
typedef enum lim_unique { /* a task with that unique key waits or runs already: */
    LIM_UNIQUE_REJECT = 1, /* REJECT{duplicate} */
    LIM_UNIQUE_REPLACE,    /* the one that waits ends refused{replaced}; one that runs: as JOIN */
    LIM_UNIQUE_JOIN        /* the other's task and outcome are the answer */
} lim_unique;
#define LIM_PRIORITY(n) ((n) + 1) /* 0 .. 9; 9 goes first */
typedef struct lim_dispatch_opts {
    size_t size;
    const char *type;        /* NULL: none */
    int64_t timeout_ms;      /* schedule-to-close: from the dispatch to the result, > 0; LIM_FOREVER */
    uint32_t losses_max;     /* deliveries lost before the task ends crashed{kills_workers}; 0: the queue's, else 5 */
    uint32_t priority;       /* LIM_PRIORITY(n); 0: of 4 */
    const char *key;         /* fairness key: keys share the queue by weight, and have limits; NULL: none */
    uint32_t weight;         /* of its key, 1..1000; 0: 1 */
    const char *order_key;   /* tasks with one order key run one at a time, in order; NULL: none */
    const char *unique_key;  /* NULL: none */
    lim_unique on_duplicate; /* 0: LIM_UNIQUE_REJECT */
    /* The same dispatch again: the recorded task and outcome are the answer, and no worker is touched. Remembered for the
     * queue's window (default 10 minutes, 100,000 keys). NULL: none */
    const char *idempotency_key;
    int64_t delay_ms;        /* not before; 0: now */
    int64_t start_to_close_ms; /* one attempt; then it counts as failed. 0: the queue's, else none */
    int64_t progress_ms;     /* without lim_progress for so long its worker counts as stuck. 0: the queue's, else none */
    lim_conv report_to;      /* a conversation that gets the outcome as a message, too; {0}: none */
    lim_cause cause;         /* zeroed: none */
    bool trace;              /* keep its history */
    bool durable;            /* also on a queue that is not; stored before it is answered */
    const char *ns;          /* namespace of the queue; NULL: none */
    uint64_t at_wall_us;     /* instead of delay_ms: not before this instant, microseconds since 1970; past: now. 0: none */
} lim_dispatch_opts;
/* The queue's verdict: ACCEPT, DEFER above its high-water mark, REJECT at its limit. on_outcome (may be NULL) runs
 * exactly once unless rejected. */
LIM_API lim_err lim_dispatch(lim_bus *bus, const char *queue, lim_bytes task, const lim_dispatch_opts *opts,
                             lim_on_outcome *on_outcome, void *ctx, lim_admission *out, lim_conv *task_out); /* B */
/* Queues are configured, paused, drained and looked into by asks of `$sys.queues`, `$sys.tasks`, `$sys.dead` and
 * `$sys.workers` (JSON; docs/protocol.md, "System groups"), from C with this: how REPLY, payload JSON; or FAILED. */
LIM_API lim_err lim_sys(lim_bus *bus, const char *group, const char *request_json, int64_t timeout_ms,
                        lim_outcome *out); /* B */
/* The name of a queue, a signal conversation or a history as workflow engines write it: "aion.<kind>.<namespace>.<id>",
 * kind dispatch, signal or history. The queue `id` of the namespace `ns` (options of lim_work, lim_dispatch and friends) is
 * the queue of that name, kind dispatch. INVALID (diag says which part): empty, has a dot, or breaks the rules of names. */
LIM_API lim_err lim_workflow_name(const char *kind, const char *ns, const char *id, char out[256], lim_diag *diag); /* A */
LIM_API lim_err lim_task_await(lim_bus *bus, lim_conv task, int64_t timeout_ms, lim_outcome *out); /* B */

/* ---- routing: load, deploy while running ---- */
/* builtin: the text least_loaded, round_robin, power_of_two, hash:FIELD, affinity:FIELD or, for channels, everybody.
 * native: a shared object that includes native.h; the bus has it turned on, or answers MISUSE. */
typedef enum lim_engine { LIM_BUILTIN = 1, LIM_LUA, LIM_NATIVE, LIM_HOST } lim_engine;
typedef enum lim_on_fault {
    LIM_ON_FAULT_REJECT = 1, /* refused{routing_fault} */
    LIM_ON_FAULT_PREVIOUS,   /* the version before decides */
    LIM_ON_FAULT_LEAST_LOADED
} lim_on_fault;
typedef enum lim_trial {
    LIM_TRIAL_NONE = 0,
    LIM_TRIAL_SHADOW, /* it is asked about everything, and its answers are compared with the live version's; decides nothing */
    LIM_TRIAL_RAMP    /* it decides about a share of the messages, chosen by hash: the same ones at every try */
} lim_trial;
typedef struct lim_deploy_opts {
    size_t size;
    uint32_t cpu_us_max;        /* per call; 0: 20000 */
    uint32_t wall_ms_max;       /* per call; 0: 5000 */
    uint32_t memory_bytes_max;  /* per version; 0: 1 MiB; at most 8 MiB */
    uint32_t unfinished_max;    /* calls at once; 0: 4 */
    lim_on_fault on_fault;      /* 0: LIM_ON_FAULT_REJECT for asks; tasks stay queued and are tried again */
    uint32_t breaker_faults;    /* so many crashes and timeouts within breaker_ms put the last good version back. 0: 10;
                                 * LIM_UNLIMITED: never; at most 10000 */
    uint32_t breaker_ms;        /* 0: 10000; at most a day */
    uint32_t keep;              /* versions of the slot that can be rolled back to; 0: 8; at most 64 */
    lim_trial trial;            /* 0: it is live at once */
    uint32_t ramp;              /* LIM_TRIAL_RAMP: share of the messages in hundredths of a percent, 1..10000 */
    const char *ramp_key;       /* LIM_TRIAL_RAMP: a field of the message, or $header.NAME: messages with one value meet one
                                 * version, those without it the live one. NULL: message by message */
    const char *ramp_where;     /* LIM_TRIAL_RAMP: a predicate (lim_predicate_compile), at most 1023 bytes: only messages that
                                 * match it meet the new version, the share that `ramp` says, or with `ramp` 0 all. NULL: any */
    const lim_hash *if_version; /* EXISTS unless this one is live now; NULL: whichever is */
    const char *by;             /* who deploys, for people; at most 63 bytes. NULL: nobody says */
    uint32_t log_bytes_max;     /* that a version may print in a second on each scheduler; lines beyond it are dropped and
                                 * counted. 0: 8192; at most 1 GiB */
    const char *if_named;       /* as if_version, by the beginning of its hash or a strategy's name; NULL: whichever is */
} lim_deploy_opts;
/* Compiles and checks; a bad one changes nothing (CODE, diag: line, column, text). The same bytes load once. `name` is
 * for people (a file name); NULL: none. */
LIM_API lim_err lim_artifact_load(lim_bus *bus, lim_engine engine, lim_bytes code, const char *name, lim_diag *diag,
                                  lim_hash *out); /* B */
/* One swap: calls in flight end on the version they started with; a call that starts after this answered uses the new
 * one. *previous (may be NULL) is zero if there was none. The group is made if nobody serves it yet. */
LIM_API lim_err lim_deploy(lim_bus *bus, const char *group, const lim_hash *artifact, const lim_deploy_opts *opts,
                           lim_diag *diag, lim_hash *previous); /* B */
/* Makes a version that is kept live again; `to` NULL: the last good one before. NOTFOUND: there is none. `by` may be NULL. */
LIM_API lim_err lim_rollback(lim_bus *bus, const char *group, const lim_hash *to, const char *by, lim_diag *diag,
                             lim_hash *previous); /* B */
/* Ends a trial: what is tried out goes live, or goes. NOTFOUND: nothing is being tried out. */
LIM_API lim_err lim_trial_promote(lim_bus *bus, const char *group, const char *by, lim_diag *diag,
                                  lim_hash *previous);                                                /* B */
LIM_API lim_err lim_trial_stop(lim_bus *bus, const char *group, const char *by, lim_diag *diag);      /* B */

/* A function in front of a channel: it chooses the subscriptions that get a message: one, some (in Lua a list of candidates),
 * all (true; LIM_ROUTE_EVERYBODY), or nobody (Accept with matched 0; Reject{router_chose_none} with mandatory). Candidates are
 * the matching subscriptions: max_in_flight is the window, buffer_depth the backlog. A publish does not wait: what is not
 * decided within a slice (200 us) is a fault, and a fault is Reject{routing_fault} unless on_fault says otherwise. It is
 * compiled for every scheduler before anything is changed. MISUSE: native and isolated functions. Functions of the program
 * may run on any thread that publishes, several at once; functions of contract B are refused there (MISUSE). */
LIM_API lim_err lim_channel_deploy(lim_bus *bus, const char *channel, const lim_hash *artifact, const lim_deploy_opts *opts,
                                   lim_diag *diag, lim_hash *previous); /* B */
LIM_API lim_err lim_channel_rollback(lim_bus *bus, const char *channel, const lim_hash *to, const char *by, lim_diag *diag,
                                     lim_hash *previous); /* B */
LIM_API lim_err lim_channel_promote(lim_bus *bus, const char *channel, const char *by, lim_diag *diag,
                                    lim_hash *previous);                                           /* B: as lim_trial_promote */
LIM_API lim_err lim_channel_stop(lim_bus *bus, const char *channel, const char *by, lim_diag *diag); /* B: as lim_trial_stop */
/* Every subscription gets everything again; versions and history are gone. NOTFOUND: nothing is deployed. */
LIM_API lim_err lim_channel_undeploy(lim_bus *bus, const char *channel, lim_diag *diag); /* B */

/* ---- routing functions of the program itself, and without a bus ---- */
typedef struct lim_candidate { /* VIEW: a worker as a routing function sees it */
    uint64_t id;                   /* never reused; lim_route_call: 0: its place in the array + 1 */
    uint32_t in_flight, max_in_flight, buffer_depth, latency_us;
    lim_bytes name, node;          /* node: lim_bus_opts.node, or what its client said */
    const lim_bytes *tags, *types;
    uint32_t tag_count, type_count;
} lim_candidate;
typedef struct lim_route_message { /* VIEW */
    lim_bytes payload, headers;    /* headers packed as on the wire: lim_header */
} lim_route_message;
/* Answers the place of one of the candidates, or LIM_ROUTE_NOBODY. */
typedef int64_t lim_route_decide(void *ctx, const lim_route_message *message, const lim_candidate *candidates,
                                 uint32_t count);
#define LIM_ROUTE_NOBODY    INT64_C(-1)
#define LIM_ROUTE_EVERYBODY INT64_C(-2) /* in front of a channel: every subscription */
typedef struct lim_route_host_opts {
    size_t size;
    bool isolated; /* each call runs on a thread of the pool (lim_bus_opts.blocking_max), where it may block and call anything
                    * of the bus. One that is not back after wall_ms_max is abandoned: its call is timed_out, its answer is
                    * dropped, what it was given stays until it returns, and closing the bus waits for that. When all but
                    * one of the threads are lost that way, calls are not_started. Not for channels (MISUSE) */
} lim_route_host_opts;
/* A C function as a version like any other (lim_deploy); `identity` is what is hashed: change it with the function. Unless
 * isolated it runs on schedulers, maybe on several at once; nobody can stop it. In any case its crash is the program's. It is
 * watched: calls that take longer than a slice (200 us) are counted and logged. It may do what a handler may; in front of a
 * channel a message published to that same channel is rejected (routing_fault). An identity that is loaded already keeps its
 * first function. After a restart a slot whose live version it was goes on with the one before until it is deployed again.
 * ctx outlives the bus. opts NULL: not isolated. */
LIM_API lim_err lim_route_host_load(lim_bus *bus, lim_bytes identity, const char *name, lim_route_decide *decide, void *ctx,
                                    const lim_route_host_opts *opts, lim_hash *out); /* A */
typedef enum lim_route_how {
    LIM_ROUTE_DECIDED = 1, /* index, id */
    LIM_ROUTE_NONE,        /* nobody shall have it */
    LIM_ROUTE_CRASHED,     /* text, line if known */
    LIM_ROUTE_TIMED_OUT,   /* text, after_ns */
    LIM_ROUTE_NOT_STARTED  /* text: which limit */
} lim_route_how;
LIM_API const char *lim_route_how_text(lim_route_how how); /* A: "decided" */
typedef struct lim_decision {
    lim_route_how how;
    uint32_t index;
    uint64_t id, after_ns, took_ns; /* took_ns: from the call to the decision */
    int line;
    lim_hash version;
    char text[512];
} lim_decision;
typedef struct lim_route lim_route; /* OBJECT: a version by itself; one thread at a time */
typedef struct lim_route_opts {
    size_t size;
    uint32_t cpu_us_max, memory_bytes_max; /* 0: as in lim_deploy_opts */
    uint64_t seed;                         /* of random in the function */
    const char *native_helper;             /* LIM_NATIVE: as in lim_bus_opts */
    void (*on_print)(void *ctx, const char *line, size_t len); /* what the function prints; NULL: dropped */
    void *ctx;
} lim_route_opts;
/* Compiles and checks as lim_artifact_load does. opts NULL: the defaults. */
LIM_API lim_err lim_route_open(lim_engine engine, lim_bytes code, const char *name, const lim_route_opts *opts,
                               lim_diag *diag, lim_route **out); /* B */
/* Runs it exactly as a bus would, with its limits and slices, but to its end. Without candidates: NONE, and nothing is run. */
LIM_API lim_err lim_route_call(lim_route *version, const lim_route_message *message, const lim_candidate *candidates,
                               uint32_t count, int64_t timeout_ms, lim_decision *out); /* B */
LIM_API_VOID void lim_route_close(lim_route *version); /* B: NULL is a no-op */

/* ---- predicates: is this message one of those? ----
 *      tier == "gold" and not (items[0].price > 100.0 or $header.region in ["eu", "us"])
 * The language: docs/routing.md, "Predicates". What a message lacks makes a test false; `not` is plain negation. */
#define LIM_PREDICATE_BYTES_MAX 16384
typedef struct lim_predicate lim_predicate; /* OBJECT: one thread at a time */
/* INVALID: diag has line, column (in bytes, from 1) and what was expected; TOOBIG: diag names the limit; NOMEM. */
LIM_API lim_err lim_predicate_compile(lim_bytes text, lim_diag *diag, lim_predicate **out); /* A */
/* Allocates nothing, but for the memory to read a payload that is longer, or less plain, than all before. */
LIM_API bool lim_predicate_match(lim_predicate *predicate, const lim_route_message *message); /* A */
typedef struct lim_predicate_step { /* VIEW */
    uint32_t depth;                 /* of the tree; the whole is 0 */
    bool verdict;
    const char *text, *why;         /* why: of a test of a field, what the message has there; else "" */
} lim_predicate_step;
/* Asks every part, also what would not be asked: on_step once for each, the whole before its parts. Answers the verdict. */
LIM_API bool lim_predicate_explain(lim_predicate *predicate, const lim_route_message *message,
                                   void (*on_step)(void *ctx, const lim_predicate_step *step), void *ctx); /* A */
LIM_API_VOID void lim_predicate_free(lim_predicate *predicate); /* A: NULL is a no-op */

/* ---- counts, for tests and operators: equal before and after any amount of finished work ---- */
typedef struct lim_bus_census {
    lim_census runtime;
    uint64_t channels, subscriptions, groups, participants, conversations, tasks_queued, artifacts, messages_kept;
} lim_bus_census;
LIM_API_VOID void lim_bus_census_take(lim_bus *bus, lim_bus_census *out); /* A */

#ifdef __cplusplus
}
#endif
#endif
