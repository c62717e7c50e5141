/* SPDX-License-Identifier: Apache-2.0
 * client.h - the connection library from the inside: one struct, and who may touch which part of it.
 *
 *      any thread            I/O thread (own_loop: lim_client_process)              handler thread (own_loop: inline)
 *      publish, ask, ... --> out --flush--> socket --read--> frames --+--> calls' callbacks
 *                             ^                                       `--> queue --> on_message, on_ready, on_end
 *                             `------------------ ACK, REPLY ------------------------'
 *
 * Everything that is shared lies under one mutex, a leaf: it is never held in a callback, in recv or in send. With
 * own_loop there is one thread, and taking the mutex is skipped. Each file owns a part:
 *
 *      link.c     connecting, reading, writing, dialling again; the only caller of the os table
 *      client.c   open, close, the two threads, blocking
 *      step.c     steps of several frames
 *      publish.c  publishes in flight          call.c   asks, dispatches, awaits in flight, parts of their answers
 *      conv.c     conversations: their life    talk.c   their verbs         outside.c  those of others: signal, find
 *      route.c    routing functions of the server: load, deploy, roll back
 *      handler.c  the queue to the handlers    order.c  what is established again after a reconnect:
 *      sub.c      subscriptions                reg.c    registrations       work.c     their requests
 *
 * Invariants (lim__client_check):
 *   C1  every call in flight is in `calls` and on `call_list`, in the order it was made; it ends exactly once.
 *   C2  nothing but the handshake is put into `out` before the link is UP; what is said earlier waits in `held`.
 *   C3  a standing order that is ASKED or LIVE is in `streams`, and the link is UP; a WANTED or ENDED one is not.
 *   C4  when the link is not UP and not new, no call is in flight. */
#ifndef LIM__CLIENT_H
#define LIM__CLIENT_H

#include <liminal/client.h>
#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "base/newest.h"
#include "data/data.h"
#include "data/outcome.h"
#include "os/os.h"
#include "wire/wire.h"

enum {
    LIM__OUTPUT_MAX = 8 * 1024 * 1024, /* bytes waiting to be written: then FULL */
    LIM__CALLS_MAX = 1 << 20,          /* calls in flight of each kind: then FULL */
    LIM__WINDOW_DEFAULT = 1024,
    LIM__BACKLOG_DEFAULT = 65536,
    LIM__PARTS_DEFAULT = 64, /* under way at once, as lim__options_ask says */
    LIM__INBOX_BYTES_MAX = 8 * 1024 * 1024, /* of a conversation, not yet received */
    LIM__MESSAGES_MAX = 65536 /* of conversations, for one registration, not yet handled */
};

/* ---- the link (link.c) ----
 *
 *                 .---------------------- due -----------------------.
 *                 v                                                  |
 *   (open) --> DIALLING --reached--> CONNECTING --welcomed--> UP     |
 *                 |                      |                  |  |     |
 *                 `----- broke, due -----+------ broke -----'  |     |
 *                                        |                     |     |
 *                                        v                     |     |
 *                                     WAITING -----------------|-----'
 *                                        |                     |
 *                                      close                 close
 *                                        v                     v
 *       banned, or close before UP --> ENDED <--broke, due-- LEAVING --written--> LINGERING --broke, due--> ENDED
 *
 * `banned` is a break after which dialling again would not help or is not wanted. */
typedef enum lim__link {
    LIM__LINK_DIALLING = 1, /* TCP is connecting */
    LIM__LINK_CONNECTING,   /* CONNECT and HELLO are being answered */
    LIM__LINK_UP,
    LIM__LINK_WAITING,      /* until it dials again */
    LIM__LINK_LEAVING,      /* DISCONNECT is behind everything that was queued */
    LIM__LINK_LINGERING,    /* all of it is written: closing before the server did could take it back (RST) */
    LIM__LINK_ENDED
} lim__link;
typedef enum lim__link_event {
    LIM__LINK_REACHED = 1,
    LIM__LINK_WELCOMED,
    LIM__LINK_BROKE,
    LIM__LINK_BANNED,
    LIM__LINK_DUE,     /* the time this state may take is over */
    LIM__LINK_WRITTEN, /* nothing is left to write */
    LIM__LINK_CLOSE    /* lim_client_close */
} lim__link_event;
typedef enum lim__link_act {
    LIM__DO_NOTHING = 1,
    LIM__DO_DIAL,
    LIM__DO_SHAKE,   /* begin the handshake */
    LIM__DO_RESUME,  /* subscribe and register again, then what was held */
    LIM__DO_WAIT,    /* drop the connection; what was in flight is over; wait, then dial */
    LIM__DO_GOODBYE, /* say DISCONNECT */
    LIM__DO_SHUT,    /* nothing more is written */
    LIM__DO_END      /* drop the connection; everything is over */
} lim__link_act;
typedef struct lim__link_move {
    lim__link next;
    lim__link_act act;
} lim__link_move;
lim__link_move lim__link_step(lim__link link, lim__link_event event);
/* Pure: how long to wait before the attempt-th dial (0: the first after a break): 50 ms doubling to 2 s, +-20 %. */
uint64_t lim__link_backoff_ns(uint32_t attempt, uint64_t random);

/* ---- calls in flight (call.c) ----
 *   PLAIN: an ask or await, OUTCOME ends it     OFFERED --DISPATCHED--> TASK (if its outcome is wanted) --OUTCOME-->
 *   PARTED: an ask with parts (PARTIAL) before its OUTCOME     SIGNAL --SIGNALLED-->     FIND --FOUND--> */
typedef enum lim__call_state {
    LIM__CALL_PLAIN = 1,
    LIM__CALL_OFFERED,
    LIM__CALL_TASK,
    LIM__CALL_PARTED,
    LIM__CALL_SIGNAL, /* also CONFIRM, of the subscription `task`, until CONFIRMED */
    LIM__CALL_FIND
} lim__call_state;
typedef struct lim__call {
    lim__list node; /* call_list */
    uint64_t corr;
    lim__call_state state;
    union {
        lim_on_dispatched *on_dispatched; /* OFFERED */
        lim_on_part *on_part;             /* PARTED */
        lim_on_done *on_done;             /* SIGNAL */
        lim_on_conv *on_conv;             /* FIND */
    };
    lim_on_outcome *on_outcome;       /* NULL: not wanted */
    void *ctx;
    lim_conv task;
    uint32_t window; /* PARTED: parts under way at once; 0: without credit */
    uint32_t held, owed; /* of these: LIM_HOLD; done and not granted anew yet */
    uint64_t at_ns;  /* when it was made */
    uint64_t offset; /* where its frame begins in the bytes of this connection: below `written` it has left */
} lim__call;

/* ---- publishes in flight (publish.c): rings of runs; those without a callback share one ---- */
typedef struct lim__pub_run {
    lim_on_admission *on_admission;
    void *ctx;
    lim_on_receipt *on_receipt;
    void *receipt_ctx;
    uint64_t first; /* the first of them is the how manieth publish of this client, from 0 on */
    uint32_t count;
} lim__pub_run;
typedef struct lim__pub_ring {
    lim__pub_run *runs;
    size_t cap, first, count; /* of runs; cap is 0 or a power of two */
} lim__pub_ring;
typedef struct lim__pubs {
    lim__pub_ring fresh, late; /* late: overtaken by an answer, so they are of durable channels */
    uint32_t next_corr;        /* of the next publish */
    uint32_t pending;          /* in both */
    uint64_t offered;          /* ever */
    uint64_t answered;         /* all before this one are */
} lim__pubs;

/* ---- standing orders: what the client establishes again after each reconnect ----
 *
 *   WANTED --link up--> ASKED --SUBSCRIBED, SERVED--> LIVE      any --ENDED, LEFT, own call, close--> ENDED
 *      ^                  |                             |
 *      `---- link broke --+-----------------------------'                                                       */
typedef enum lim__order_kind { LIM__SUB = 1, LIM__REG } lim__order_kind;
typedef enum lim__order_state {
    LIM__ORDER_WANTED = 1,
    LIM__ORDER_ASKED,
    LIM__ORDER_LIVE,
    LIM__ORDER_ENDED /* not found by its id any more; its end is in the queue, the last there that names it */
} lim__order_state;

typedef enum lim__item_kind { LIM__ITEM_MESSAGE = 1, LIM__ITEM_REQUEST, LIM__ITEM_READY, LIM__ITEM_END } lim__item_kind;
typedef struct lim__order lim__order;
typedef struct lim__item { /* one thing for a handler to do (handler.c) */
    lim__list node;
    lim__item_kind kind;
    lim__order *order;
    lim__msg *msg; /* MESSAGE, REQUEST: owned by the item; NULL: no payload was copied */
} lim__item;

typedef struct lim__waiter lim__waiter;
struct lim__order {
    lim__order_kind kind;
    lim__order_state state;
    lim__list node;  /* orders: in the order they were made */
    uint64_t id;     /* the client's own number */
    uint32_t stream; /* ASKED, LIVE */
    lim_client_handler handler;
    lim__waiter *waiter; /* the blocking call that made it; until the first answer */
    lim__item ready, end; /* reserved: what must be told finds room always */
    lim_err why;         /* ENDED */
    char detail[160];
};

typedef struct lim__sub {
    lim__order order; /* first */
    lim__list dirty;  /* to be acknowledged */
    char *pattern;
    uint32_t window, backlog, in_hand; /* in_hand: delivered, handler not run yet */
    lim_policy policy;
    void (*on_ready)(void *ctx);
    /* Numbers as the handlers see them: `base` + the server's, which begin again at 1 with each connection. */
    uint64_t base, seq, handled, completed; /* seq: delivered; handled: the handler ran; completed: lim_client_complete */
    uint64_t done, acked;                   /* done: finished with up to here; acked: and told the server */
    uint64_t *held;                     /* LIM_HOLD and not yet complete, ascending */
    size_t held_count, held_cap;
    /* One that reads a log: its numbers are the channel's, `base` is 0. */
    bool reads, pull;
    bool strict;         /* something was refused: from then on each message is acknowledged by itself */
    bool live_once;
    char *cursor, *dead_letter; /* NULL: none; of: */
    lim_read_opts read;
    uint64_t resume;     /* without a cursor: where it goes on after a break; 0: as at first */
    uint32_t connection; /* how often it was asked for */
    uint64_t retry_ns;   /* the cursor is taken, maybe still by the connection that broke: asks again then; 0: does not */
} lim__sub;

typedef struct lim__reg {
    lim__order order; /* first */
    uint8_t serve_kind; /* LIM__SERVE_* */
    char *group;
    char ns[256]; /* "": none */
    char identity[256]; /* the server's choice once LIVE, if it was empty */
    uint32_t capacity, live; /* live: requests of this connection not answered yet */
    uint32_t messages;       /* likewise, of conversations: they count against no capacity */
    uint64_t participant;    /* the server's number; 0 unless LIVE */
    uint32_t used;           /* places used elsewhere, as reported last */
    bool pulled;             /* no on_message: */
    lim__list waiting;       /* QUEUED requests, until they are taken */
    lim__list takers;        /* who waits for one; not both are non-empty */
    lim__buf types, tags;    /* packed */
    void (*on_ready)(void *ctx, const char *identity);
    void (*on_revoked)(void *ctx, lim_conv conv, uint64_t lease, const char *why);
    void (*on_credit)(void *ctx, lim_conv conv, uint64_t lease, uint32_t credit);
    lim__list requests; /* in hand, and results not settled, oldest first */
    lim__newest heard;  /* durable conversation -> the newest message of it that came */
} lim__reg;

/* ---- requests (work.c) ----
 *
 *   QUEUED --handler begins--> RUNNING --LIM_HOLD--> HELD <--lim_client_take-- QUEUED (pulled)
 *                                 |                   |
 *                                 +---- answered -----+--> RESULT (TAKEN was sent) --SETTLED--> OVER
 *                                 `-----------------------------------------------------------> OVER
 *
 * Beside it the lease:  OURS --link broke--> SUSPENDED (a task) or GONE (an ask)     OURS --REVOKED--> REVOKED
 *                       SUSPENDED --registered again--> OURS
 * A message of a durable conversation is OURS whatever becomes of the link: it does not come again. */
typedef enum lim__request_state {
    LIM__REQUEST_QUEUED = 1,
    LIM__REQUEST_RUNNING,
    LIM__REQUEST_HELD,
    LIM__REQUEST_RESULT, /* kept until the server has it for certain */
    LIM__REQUEST_OVER    /* not found any more */
} lim__request_state;
typedef enum lim__lease {
    LIM__LEASE_OURS = 1,
    LIM__LEASE_SUSPENDED,
    LIM__LEASE_REVOKED, /* the server wants to hear that we are done, the result will be refused */
    LIM__LEASE_GONE     /* nobody wants to hear */
} lim__lease;
typedef struct lim__request {
    lim__item item;  /* first; in the handler queue, or in reg->waiting, while QUEUED */
    lim__list node;  /* reg->requests, unless OVER */
    struct lim__request *same_conv; /* chain of the map of requests */
    lim__reg *reg;
    uint64_t conv, lease_id, session, deadline_ns; /* deadline: UINT64_MAX: none */
    uint64_t about, from; /* an event: the lease it names, whom it is about; a message: who said it */
    bool parts;           /* its asker takes some: */
    uint32_t credit;      /* now */
    lim__request_state state;
    lim__lease lease;
    uint32_t refs; /* the table's, the queue's or handler's */
    uint8_t flags; /* LIM__FLAG_* of REQUEST */
    bool numbered; /* a message of a durable conversation: the server was told that it is here */
    uint16_t attempt, losses, hops;
    uint8_t event;
    uint8_t how; /* RESULT: what was answered */
    lim__msg *result;
    uint8_t type_len;
    char type[];
} lim__request;

/* ---- conversations (conv.c, talk.c) ---- */
typedef enum lim__conv_state {
    LIM__CONV_OPENING = 1,
    LIM__CONV_OPEN,
    LIM__CONV_OVER,   /* ended; what has come can still be received */
    LIM__CONV_CLOSING /* by this client: not found any more; answers to what was sent are still to come */
} lim__conv_state;
typedef struct lim__send_note { /* a SEND whose answer somebody wants to hear */
    lim__list node;
    uint32_t corr;
    lim_on_admission *on_admission;
    void *ctx;
} lim__send_note;
typedef struct lim__join_note { /* a JOIN or DEPART */
    lim__list node;
    uint32_t corr;
    lim_on_done *on_done;
    void *ctx;
} lim__join_note;
typedef struct lim__letter { /* a message or event, or how a receive ends */
    lim__list node; /* inbox */
    uint64_t from;
    uint8_t event, note_len;
    size_t len;
    uint8_t bytes[]; /* payload, note */
} lim__letter;
typedef struct lim__receive {
    lim__list node; /* conv->receives; or receives_done, with its outcome: */
    struct lim__conv *conv; /* waits there; NULL: is done */
    uint64_t id, deadline_ns; /* of the conversation; UINT64_MAX: none, or somebody else looks at it */
    lim_on_outcome *on_outcome;
    void *ctx;
    lim__letter *letter; /* a reply; NULL: */
    lim_how how;
    lim_reason reason;
    char detail[160];
} lim__receive;
typedef struct lim__conv {
    lim__conv_state state;
    lim__list node; /* convs */
    uint64_t id;    /* the server's; 0 while OPENING */
    uint32_t stream, next_corr, unsent; /* unsent: SENDs not answered */
    uint32_t unjoined; /* OPEN, JOINs and DEPARTs not answered */
    bool at_server;    /* `stream` is in use */
    lim__list sends;   /* of these, those with a callback, by corr */
    lim__list joins;   /* notes, by corr */
    uint32_t next_join;
    lim__list inbox;   /* letters: received, not yet asked for */
    size_t inbox_bytes;
    lim__list receives; /* oldest first; not both are non-empty */
    lim_on_conv *on_open; /* OPENING */
    void *open_ctx;
    lim_how over_how;  /* OVER: how receives end */
    lim_reason over_reason;
    char detail[160];
} lim__conv;

/* ---- blocking (client.c): lies on the caller's stack, under the client's mutex ---- */
struct lim__waiter {
    lim__list node; /* takers of a registration */
    lim_client *c;
    lim__cond cond;
    bool done;
    lim_err err;
    lim_admission admission;
    lim_receipt receipt;
    lim_conv conv;
    lim_outcome outcome;
    lim_taken taken;
    lim_diag diag;
};

struct lim_client {
    /* set once, before the first turn */
    lim__os *os;
    lim__poller *poller;
    bool own_loop, no_reconnect;
    uint16_t port;
    char host[128], server[160], name[256], node[256];
    uint32_t liveness_ms;
    uint64_t connect_timeout_ns;
    void (*on_state)(void *ctx, lim_link_state state, const char *detail);
    void *ctx;

    /* under the mutex */
    lim__mutex mutex;
    lim__link link;          /* changed by the I/O side only */
    lim_link_state told;     /* what on_state heard last */
    bool was_up;
    bool closing;            /* lim_client_close was called: for the I/O side to see */
    bool sleeping;           /* the I/O thread waits, or is about to: who puts something wakes it */
    bool wake;               /* to be done when the mutex is released */
    lim__buf out, held;      /* frames; held: while the link is new */
    uint64_t written;        /* bytes that this connection's transport has taken */
    size_t sending_len;      /* bytes in `sending` */
    uint64_t session_count;  /* how often it was UP */
    uint64_t breaks;         /* how often it was not, afterwards */
    uint32_t frame_max;      /* largest frame the server takes */
    uint32_t next_stream;
    uint64_t next_id, next_corr;
    lim__pubs pubs;
    lim__map calls;          /* corr -> call */
    lim__list call_list, call_free;
    uint32_t call_free_count;
    uint64_t sends_offered, sends_answered; /* of conversations */
    lim__map streams;        /* stream -> order, of this connection */
    lim__map ids;            /* id -> order */
    lim__list orders;
    lim__list dirty;         /* subscriptions with something to acknowledge */
    uint64_t retry_ns;       /* when one of them is to be asked for again; UINT64_MAX */
    lim__map requests;       /* conv -> request, chained */
    lim__map conv_streams, conv_ids; /* -> conv */
    lim__list convs;
    lim__list receives_done; /* for the I/O side to tell */
    uint32_t receiving;      /* receives that wait */
    uint64_t receive_due_ns; /* none of them is late before; UINT64_MAX */
    lim__list queue;         /* for the handlers */
    bool handler_sleeps, handler_wake, handler_stop; /* wake: to be done when the mutex is released */
    lim__cond handler_cond;
    bool patrol_wanted;      /* answers may be held back (lim__client_unlock_soon) while the I/O thread... */
    bool patrols;            /* ...sleeps for PATROL_NS at most, and then looks what there is to write */
    uint64_t answered_ns;    /* when a handler answered last */
    uint32_t blocked;        /* threads in blocking calls */
    lim__cond room, progress, idle; /* room in `out`; something was answered or the link changed; nobody blocked */

    /* I/O side only */
    lim__wire wire; /* its `out` is ours: touched under the mutex */
    lim__c_id16 session;
    int fd; /* -1: none */
    uint32_t interest;
    bool blocked_write, in_process;
    uint32_t attempt;
    uint64_t due_ns;   /* end of the time this state may take; UINT64_MAX: no end */
    uint64_t up_at_ns;
    uint64_t quiet_ns, ping_at_ns; /* something is expected and nothing came since; a PING is unanswered since; 0: no */
    lim__buf sending;  /* being written */
    uint8_t *in;
    size_t in_len, in_cap;
    lim_err end_err;   /* of the last break */
    char end_text[400];
    lim__thread io, handler;
};

/* ---- client.c ---- */
void lim__client_lock(lim_client *c);
void lim__client_unlock(lim_client *c); /* and wakes the I/O thread if something was put while it slept */
void lim__client_unlock_now(lim_client *c); /* likewise, but writes what was put itself if that saves the waking */
/* After an answer. Likewise, unless handlers are so quick that the next answers can go with it. */
void lim__client_unlock_soon(lim_client *c);
void lim__client_check(const lim_client *c); /* locked */
/* LIM_OK, locked and counted: the caller may wait. Else MISUSE or INVALID, not locked. */
lim_err lim__client_block_enter(lim_client *c, lim__waiter *w);
void lim__client_block_room(lim_client *c); /* waits until async calls would not answer FULL */
/* Waits until w->done or deadline_ns; false: not done. */
bool lim__client_block_wait(lim_client *c, lim__waiter *w, uint64_t deadline_ns);
void lim__client_block_leave(lim_client *c, lim__waiter *w); /* unlocks */
void lim__client_waiter_done_locked(lim__waiter *w, lim_err err);
/* Callbacks that wake a waiter (ctx); called without the mutex. */
void lim__client_waiter_on_admission(void *ctx, lim_err err, const lim_admission *admission);
void lim__client_waiter_on_outcome(void *ctx, const lim_outcome *outcome);
void lim__client_waiter_on_dispatched(void *ctx, lim_err err, const lim_admission *admission, lim_conv task);
void lim__client_waiter_on_done(void *ctx, lim_err err, const char *detail);
void lim__client_waiter_on_conv(void *ctx, lim_err err, lim_conv conv, const char *detail);
uint64_t lim__client_deadline_ns(const lim_client *c, int64_t timeout_ms); /* UINT64_MAX: none */
bool lim__client_inside(const lim_client *c); /* the caller runs in a callback of this client */

/* ---- link.c: locked; I/O side ---- */
void lim__link_start(lim_client *c);
void lim__link_turn(lim_client *c, bool may_wait); /* reads, calls back, writes; waits only if nothing is to do */
uint64_t lim__link_due_ns(const lim_client *c);    /* UINT64_MAX: nothing is due; 0: now */
/* Any thread, locked. LIM_OK: a call may be put now. UNREACHABLE, CLOSED, FULL. */
lim_err lim__link_may_put(lim_client *c);
lim__buf *lim__link_out(lim_client *c); /* where frames go now */
uint64_t lim__link_offset(lim_client *c); /* where the next one will begin */
#define LIM__OFFSET_HELD ((uint64_t)1 << 63) /* in an offset: relative to the beginning of `held` */
/* After every put: undoes it and answers TOOBIG if the server would not take the frame; else counts it, and wakes.
 * `before` is the length of `out` before the put. */
lim_err lim__link_put_end(lim_client *c, lim__buf *out, size_t before, lim_err err);
#define F(name)                                                                                                        \
    static inline lim_err lim__say_##name(lim_client *c, const lim__f_##name *f)                                       \
    {                                                                                                                  \
        lim__buf *out = lim__link_out(c);                                                                              \
        size_t before = lim__buf_len(out);                                                                             \
        return lim__link_put_end(c, out, before, lim__put_##name(out, f));                                             \
    }
F(publish) F(subscribe) F(ack) F(unsubscribe) F(ask) F(cancel) F(serve) F(leave) F(taken) F(reply) F(holding)
F(dispatch) F(await) F(open) F(send) F(close) F(askin) F(join) F(say) F(report) F(grant) F(part) F(progress) F(depart)
F(signal) F(find) F(confirm) F(step)
#undef F
#define LIM__SAY(c, name, ...) lim__say_##name(c, &(lim__f_##name){ __VA_ARGS__ })
/* Locked, any thread, after puts: writes them here and now if the I/O thread sleeps, instead of waking it. */
void lim__link_write_through(lim_client *c);
lim_link_state lim__link_public(const lim_client *c);

/* ---- the frames, by owner: locked; I/O side; false: the frame makes no sense ---- */
bool lim__client_pub_answered(lim_client *c, const lim__frame *frame);
bool lim__client_pub_stored(lim_client *c, const lim__frame *frame);

/* ---- step.c, and what it needs of sub.c and work.c ---- */
bool lim__client_stepped(lim_client *c, const lim__frame *frame);
/* Under which stream a message, or a request, can be acknowledged now. GONE, MISUSE, NOTFOUND (not in hand), CLOSED. */
lim_err lim__client_sub_in_hand(lim_client *c, lim_sub sub, uint64_t seq, uint32_t *stream);
void lim__client_sub_let_go(lim_client *c, lim_sub sub, uint64_t seq); /* a step acknowledged it */
lim_err lim__client_request_in_hand(lim_client *c, uint64_t self, uint64_t conv, uint64_t lease, uint32_t *stream);
void lim__client_request_let_go(lim_client *c, uint64_t self, uint64_t conv, uint64_t lease);
void lim__client_pub_break(lim_client *c); /* all in flight end CLOSED; unlocks for the callbacks */
void lim__client_pub_fini(lim_client *c);

bool lim__client_call_outcome(lim_client *c, const lim__frame *frame);
bool lim__client_call_dispatched(lim_client *c, const lim__frame *frame);
bool lim__client_call_partial(lim_client *c, const lim__frame *frame);
bool lim__client_call_signalled(lim_client *c, const lim__frame *frame); /* outside.c; found, too */
bool lim__client_call_found(lim_client *c, const lim__frame *frame);
/* An answer with the low half of a call's number. False: nobody asked. */
bool lim__client_answered(lim_client *c, uint32_t corr, uint16_t code, lim_bytes detail);
void lim__client_call_over(lim_client *c, lim__call *call, lim_err err, lim_conv conv, lim_bytes detail); /* SIGNAL, FIND */
void lim__client_call_break(lim_client *c, lim_how how, const char *detail); /* likewise; how: LOST or CLOSED */
void lim__client_call_held(lim_client *c, uint64_t base); /* what was held now begins at `base` of this connection */
void lim__client_call_fini(lim_client *c);
/* Any thread, locked: a call with a fresh corr, in flight; NULL: no memory. Undo with lim__client_call_drop. */
lim__call *lim__client_call_new(lim_client *c, lim__call_state state, lim_on_outcome *on_outcome, void *ctx);
void lim__client_call_drop(lim_client *c, lim__call *call);
/* Any thread, locked. LIM_OK: one more may be made. */
lim_err lim__client_may_call(lim_client *c);
static inline bool lim__client_timeout_ok(int64_t timeout_ms)
{
    return timeout_ms > 0 && (timeout_ms <= LIM_TIMEOUT_MS_MAX || timeout_ms == LIM_FOREVER);
}
uint32_t lim__client_wire_timeout(int64_t timeout_ms);

/* ---- handler.c ---- */
void lim__client_queue_push(lim_client *c, lim__item *item); /* locked, any thread */
/* Runs what is in the queue. Locked; unlocks for each. */
void lim__client_queue_run(lim_client *c);
void *lim__client_handler_main(void *client); /* until handler_stop and the queue is empty */

/* ---- orders (order.c) ---- */
lim__order *lim__client_order_find(lim_client *c, uint64_t id, lim__order_kind kind); /* NULL: gone */
/* Takes it from the tables, tells its waiter (and frees it), or queues its end. Ended before: nothing happens. */
void lim__client_order_end(lim_client *c, lim__order *order, lim_err why, const char *detail, size_t detail_len);
void lim__client_order_free(lim__order *order);
lim_err lim__client_order_stream(lim_client *c, lim__order *order); /* a fresh stream number: WANTED -> ASKED */
/* Adds it, asks the server if it is there, and without own_loop waits for the answer. Takes the order over, also when
 * it fails. */
lim_err lim__client_order_place(lim_client *c, lim__order *order, lim__order_kind kind, const lim_client_handler *handler,
                                lim_diag *diag, uint64_t *id_out);
void lim__client_order_ready(lim_client *c, lim__order *order);     /* ASKED -> LIVE; on_ready follows */
void lim__client_orders_resume(lim_client *c);
void lim__client_orders_break(lim_client *c);
void lim__client_orders_end(lim_client *c, lim_err why, const char *detail);
lim_err lim__client_code_err(uint16_t code); /* a code of the wire as an error; never LIM_OK */

void lim__client_sub_ask(lim_client *c, lim__sub *sub);
void lim__client_sub_free(lim__sub *sub);
void lim__client_sub_run(lim_client *c, lim__sub *sub, lim__item *item); /* locked */
void lim__client_sub_acks(lim_client *c); /* tells the server all that is done */
bool lim__client_sub_frame(lim_client *c, const lim__frame *frame);
void lim__client_sub_retry(lim_client *c); /* asks again for those whose cursor was taken */

void lim__client_reg_ask(lim_client *c, lim__reg *reg);
void lim__client_reg_break(lim_client *c, lim__reg *reg);
void lim__client_regs_forgotten(lim_client *c); /* the server does not know this session's leases any more */
void lim__client_reg_over(lim_client *c, lim__reg *reg); /* ended: its requests are over */
void lim__client_reg_free(lim__reg *reg);
void lim__client_request_run(lim_client *c, lim__request *request);
void lim__client_request_skip(lim_client *c, lim__request *request); /* instead of running it */
bool lim__client_reg_frame(lim_client *c, const lim__frame *frame);

/* ---- work.c and reg.c ---- */
lim__reg *lim__client_reg_find(lim_client *c, lim_participant registration); /* locked; NULL: gone */

/* ---- conv.c: locked ---- */
bool lim__client_conv_frame(lim_client *c, const lim__frame *frame);
void lim__client_convs_break(lim_client *c, lim_how how, const char *detail);
void lim__client_convs_fini(lim_client *c);
void lim__client_receives_run(lim_client *c); /* I/O side: tells those that are done, or late; unlocks for each */
lim__conv *lim__client_conv_find(lim_client *c, lim_conv id); /* NULL: gone */
lim__conv *lim__client_conv_new(lim_client *c, lim_on_conv *on_open, void *ctx); /* OPENING; NULL: no memory */
void lim__client_conv_free(lim_client *c, lim__conv *conv); /* V1 */
void lim__client_conv_asked(lim_client *c, lim__conv *conv); /* OPEN, JOIN or DEPART was put */
/* The user closes it: what waits ends `closed`, and it is not found any more. */
void lim__client_conv_let_go(lim_client *c, lim__conv *conv);
lim_outcome lim__client_letter_outcome(uint64_t conv, const lim__letter *l);
lim_outcome lim__client_over_outcome(const lim__conv *conv);
lim__letter *lim__client_inbox_take(lim__conv *conv); /* the caller frees it; NULL: empty */
/* In line, or done at once: then the I/O side tells it. */
void lim__client_receive_add(lim_client *c, lim__conv *conv, lim__receive *r);
void lim__client_receive_withdraw(lim_client *c, lim__receive *r); /* one that waits; it is the caller's again */

#endif
