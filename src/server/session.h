/* SPDX-License-Identifier: Apache-2.0
 * session.h - the inside of the server: what a scheduler keeps for its sessions, a session, and what it has opened.
 *
 *      lim__server --- porter (one per scheduler: a process, and what its sessions share)
 *                        `-- session (a process per connection)
 *                              |-- stream: a subscription, a registration with its proxy process, or a talk
 *                              `-- call: an ask, a task, an await, whose outcome is still to come
 *
 * Everything here belongs to one scheduler: sessions write into each other's output buffers (a publish of one is a
 * delivery of another) with plain stores. */
#ifndef LIM__SESSION_H
#define LIM__SESSION_H

#include "base/base.h"
#include "base/list.h"
#include "base/map.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/log.h"
#include "bus/reader.h"
#include "server/server.h"
#include "wire/wire.h"

#include <stdatomic.h>

enum {
    LIM__READ_BYTES = 256 * 1024,           /* one recv, one batch of frames */
    LIM__OUT_FULL = 64 * 1024 * 1024,       /* a client that lets this pile up is cut off */
    LIM__OUT_PAUSE = 8 * 1024 * 1024,       /* more than this unwritten: its requests are not read */
    LIM__OUT_RESUME = 4 * 1024 * 1024,      /* less than this: they are again */
    LIM__OUT_DELIVER = 1024 * 1024,         /* more than this unwritten: its messages stay in their backlogs */
    LIM__SPARES_MAX = 64,                   /* idle buffers that a scheduler keeps */
    LIM__SPARE_BYTES_MAX = 2 * 1024 * 1024, /* a larger one is freed */
    LIM__CALLS_MAX = 65536,                 /* pending calls of one session... */
    LIM__CALL_BYTES_MAX = 256 * 1024 * 1024, /* ...and the payloads of its pending asks */
    LIM__PENDING_MAX = 64,                  /* letters to a talk that is not open yet */
    LIM__DIRECT_MAX = 1024,                 /* requests in one participant's hands beside those its group counts */
    LIM__PUBLISH_SLOTS = 256,               /* channels that a publisher is remembered to use; a power of two */
};

typedef struct porter porter;
typedef struct session session;

struct porter {
    /* set once */
    lim__server *server;
    lim_bus *bus;
    lim__os *os;
    lim__sched *sched;
    lim_pid pid;
    uint32_t index;
    /* written by its scheduler, read by any thread */
    _Atomic uint32_t session_count, busy_count; /* busy: somebody waits for something there */
    _Atomic uint32_t forced;
    /* its scheduler only */
    lim_process *self;
    lim__list sessions;
    uint8_t *reading; /* LIM__READ_BYTES: every session reads into it */
    lim__buf spares[LIM__SPARES_MAX];
    uint32_t spare_count;
    uint64_t drain_timer;
    /* the first porter's: the listening socket */
    lim__watch watch;
    int listener; /* -1: closed */
    uint32_t next; /* spread: who is next */
    bool pausing; /* no descriptor was free: said so, and waits */
};

struct lim__server {
    lim_bus *bus;
    lim__os *os;
    lim__server_opts opts;
    uint16_t port;
    uint64_t birth; /* random: the first half of its sessions' tokens */
    uint32_t count;
    porter *porters; /* `count` */
    _Atomic uint32_t draining;
    _Atomic uint64_t bound_ns; /* when draining ends by force */
};

/* ---- streams ---- */
typedef enum stream_kind { STREAM_SUB = 1, STREAM_REG, STREAM_TALK, STREAM_READ } stream_kind;
typedef struct stream {
    session *session;
    uint32_t id;
    stream_kind kind;
} stream;

typedef struct sub_stream {
    stream base;
    lim__sub *sub;
    uint64_t delivered; /* the last sequence number */
    uint8_t policy;
    bool wild; /* its messages say which channel they are from */
} sub_stream;

typedef struct proxy proxy;
typedef enum reg_state { REG_JOINING = 1, REG_SERVED, REG_LEAVING } reg_state;
typedef struct reg_stream {
    stream base;
    lim_pid pid;   /* the proxy */
    proxy *proxy;  /* its state; NULL: it has ended */
    uint64_t ref;  /* of its join letter */
    reg_state state;
    lim__member_kind kind;
    lim_pid group; /* which it joined */
    uint8_t identity_len;
    char identity[255];
} reg_stream;

/* The participant that stands for a registration: what is sent to it becomes frames. */
struct proxy {
    session *session; /* NULL: has ended, or let go of it, and so will this */
    lim_pid owner;    /* that session's process */
    reg_stream *reg;
    lim__member_kind kind;
    uint32_t capacity;
    lim__map held;      /* hash of (conversation, lease) -> room for parts (session_serve.c): in the client's hands */
    lim__map unsettled; /* monitor -> unsettled_reply: answered to a conversation on another scheduler */
};

typedef enum talk_state { TALK_OPENING = 1, TALK_OPEN } talk_state;
typedef struct talk_stream {
    stream base;
    lim_pid conv;
    talk_state state;
    bool attached; /* it was there before */
    void *pending[LIM__PENDING_MAX]; /* letters that the client sent before it knew that the talk is open */
    uint32_t pending_count;
    uint32_t sent_first, sent_count; /* the run of SENT answers that is not written yet */
    lim_admission sent;              /* what they all are */
    lim__list node; /* in session->answering while sent_count > 0 */
} talk_stream;

/* ---- calls ---- */
typedef enum call_kind { CALL_ASK = 1, CALL_DISPATCH /* no verdict yet */, CALL_TASK, CALL_AWAIT, CALL_ASKIN } call_kind;
typedef struct call {
    uint64_t corr;
    lim_pid conv;
    uint64_t monitor; /* on `conv`, if the session is not linked with it; else 0 */
    call_kind kind;
    bool wants_outcome;
    uint32_t bytes; /* of an ask's payload, kept until it ends */
    uint32_t window, under_way; /* of an ask that takes parts: how many may be under way, and are */
} call;

/* ---- publishing ---- */
typedef struct known_channel {
    lim__channel *ch; /* a reference; NULL: nobody knew it at `epoch`, or the name is bad */
    uint64_t epoch;
    bool refused; /* not a name for clients to publish to */
    uint8_t len;
    char name[];
} known_channel;
typedef struct publish_run { /* answers that will be one PUBLISHED */
    uint32_t first, count; /* count 0: none */
    lim_admission answer;
    const char *detail;
} publish_run;

struct session {
    porter *porter;
    lim_process *self;
    lim__list node; /* in porter->sessions */
    int fd;
    lim__watch watch;
    lim__flush flush, more; /* more is queued: frames that were read wait in `kept` */
    lim__wire wire;
    lim__buf words; /* what the wire says by itself, until it has its place in `out` */
    lim__buf out;
    lim__buf kept;  /* the frame that is incomplete */
    publish_run run;
    const uint8_t *read_end; /* of what is being decoded */
    struct lim__logged_state *logged; /* publishes to durable channels (session_log.c); NULL: there were none */
    known_channel *last, **known;
    lim__map streams; /* id -> stream */
    stream *recent;   /* the one that a frame was for last, or NULL */
    lim__map peers;   /* pid of a proxy or a talk -> stream */
    lim__map calls;   /* corr -> call */
    lim__list answering;
    uint64_t written;    /* bytes that the socket has taken */
    uint64_t held;       /* requests in the hands of its registrations */
    uint64_t call_bytes; /* payloads of its pending asks */
    uint64_t next_ref;
    uint32_t steps;      /* under way */
    uint64_t ping_timer, hello_timer;
    uint64_t asked_ns;   /* since when a PING is unanswered; 0: none is */
    uint32_t liveness_ms;
    char peer[56];
    lim_bytes client; /* its name; malloc'd, and behind it: */
    lim_bytes place;  /* where it says to be */
    lim__pulse *pulse; /* NULL: it has registered nobody yet */
    uint8_t token[16];
    bool over;      /* lim_exit was called: nothing may be done any more */
    bool busy;      /* counted in porter->busy_count */
    bool heard;     /* since the last look of the ping timer */
    bool tight;     /* the kernel watches it closely */
    bool writable;  /* false: waits until the socket takes more */
    bool broken;    /* the socket takes nothing any more: what it has received is still read */
    bool paused;    /* is not read */
    bool starved;   /* a subscription has messages that found no room */
};

/* ---- session.c ---- */
void lim__session_open(porter *p, int fd, const char *peer); /* takes fd in every outcome */
extern const lim__letter_type lim__type_goodbye;             /* porter -> session: say goodbye and end */
static inline bool lim__session_draining(const session *s) /* or the bus is: its drain says so, too */
{
    return atomic_load_explicit(&s->porter->bus->closing, memory_order_relaxed) != 0;
}
void lim__session_fault(session *s, lim_err code, const char *format, ...) __attribute__((format(printf, 3, 4)));
void lim__session_malformed(session *s, const lim__frame *frame);
void lim__session_busy_look(session *s); /* after calls or requests came or went */
void lim__session_room(session *s);      /* takes a spare buffer for output */
void lim__session_watch_closely(session *s);
stream *lim__session_stream(session *s, const lim__frame *frame, stream_kind kind); /* NULL: ignore the frame */
bool lim__session_stream_free(session *s, const lim__frame *frame);                /* false: faulted */
/* Into the table; NOMEM. */
lim_err lim__session_stream_add(session *s, stream *st, stream_kind kind, uint32_t id);
void lim__session_stream_drop(session *s, stream *st, size_t bytes); /* and frees it */
uint64_t lim__session_deadline(const session *s, uint32_t timeout_ms);

/* Before anything is put into `out` of a session. */
static inline lim__buf *lim__session_out(session *s)
{
    if (LIM_UNLIKELY(s->out.ptr == NULL))
        lim__session_room(s);
    lim__flush_queue(s->self, &s->flush);
    return &s->out;
}
/* What could not be put for want of memory has marked `out`: the flush ends the session. */
#define LIM__SAY(s, name, ...) ((void)!lim__put_##name(lim__session_out(s), &(lim__f_##name){ __VA_ARGS__ }))

/* ---- session_channel.c ---- */
void lim__session_publish(session *s, const lim__frame *frame);
bool lim__session_headers_ok(lim_bytes headers); /* none begins with $: those are the system's */
void lim__session_run_end(session *s); /* writes the open run of answers */
void lim__session_subscribe(session *s, const lim__frame *frame);
void lim__session_ack(session *s, const lim__frame *frame);
void lim__session_unsubscribe(session *s, const lim__frame *frame);
void lim__session_pump(session *s); /* there is room again */
void lim__session_sub_end(sub_stream *st); /* in on_end */
void lim__session_known_free(session *s);

/* ---- session_step.c ---- */
void lim__session_step(session *s, const lim__frame *frame);
bool lim__session_stepped(session *s, const lim_signal *signal); /* true: it was for it */

/* ---- session_log.c ---- */
/* CLOSED: the channel was deleted, and nothing was answered. */
lim_err lim__session_publish_logged(session *s, lim__log *log, const lim__f_publish *f);
void lim__session_lot_end(session *s); /* hands over what was gathered; only if s->logged */
bool lim__session_logged(session *s, lim_process *self, const lim_signal *signal); /* true: it was for it */
bool lim__session_logged_full(const session *s); /* it is not to be read until some are answered */
void lim__session_logged_end(session *s);        /* in on_end */

/* ---- session_reader.c ---- */
bool lim__session_reads(session *s, const lim__f_subscribe *f); /* it is to read a log */
void lim__session_read_subscribe(session *s, const lim__f_subscribe *f);
void lim__session_read_unsubscribe(stream *st);
void lim__session_read_ack(stream *st, uint64_t upto_seq);
void lim__session_confirm(session *s, const lim__frame *frame);
bool lim__session_read_pump(stream *st);   /* false: it is over, and to be ended: */
void lim__session_read_finish(stream *st);
void lim__session_read_msgs(session *s, const lim_signal *signal);
void lim__session_read_row(session *s, const lim_signal *signal);
void lim__session_read_acked(session *s, const lim__read_acked *a);
void lim__session_read_over(session *s, const lim__read_over *o);
void lim__session_read_end(stream *st); /* in on_end; frees it */
bool lim__session_reading(session *s, uint32_t id, lim__reading *out); /* for steps; false: no such stream */

/* ---- session_ask.c ---- */
void lim__session_ask(session *s, const lim__frame *frame);
void lim__session_cancel(session *s, const lim__frame *frame);
void lim__session_dispatch(session *s, const lim__frame *frame);
void lim__session_await(session *s, const lim__frame *frame);
void lim__session_grant(session *s, const lim__frame *frame);
void lim__session_outcome(session *s, lim_pid from, const lim__outcome_letter *letter);
void lim__session_partial(session *s, const lim__partial *p);
void lim__session_admitted(session *s, const lim__admitted *a);
void lim__session_conv_gone(session *s, lim_pid conv, uint64_t monitor); /* it ended without an outcome */
call *lim__session_call_new(session *s, uint64_t corr, call_kind kind); /* NULL: no memory */
void lim__session_call_drop(session *s, call *c);
bool lim__session_corr_free(session *s, uint64_t corr); /* false: faulted */
typedef struct refusal {
    lim_how how;
    lim_why why;
    uint32_t limit, current;
    const char *detail;
} refusal;
void lim__session_refuse(session *s, uint64_t corr, const refusal *r); /* an OUTCOME of the server's own */

/* ---- session_serve.c ---- */
void lim__session_serve(session *s, const lim__frame *frame);
void lim__session_leave(session *s, const lim__frame *frame);
void lim__session_taken(session *s, const lim__frame *frame);
void lim__session_reply(session *s, const lim__frame *frame);
void lim__session_holding(session *s, const lim__frame *frame);
void lim__session_report(session *s, const lim__frame *frame);
void lim__session_say(session *s, const lim__frame *frame);
void lim__session_part(session *s, const lim__frame *frame);
void lim__session_progress(session *s, const lim__frame *frame);
void lim__session_joined(session *s, const lim__joined *j);
void lim__session_left(session *s, reg_stream *reg, lim_reason reason); /* its proxy has ended */
void lim__session_let_go(reg_stream *reg, lim_pid conv, uint64_t lease); /* a step answered it */
void lim__session_reg_end(reg_stream *reg);                            /* in on_end */

/* ---- session_talk.c ---- */
void lim__session_talk_open(session *s, const lim__frame *frame);
void lim__session_talk_send(session *s, const lim__frame *frame);
void lim__session_talk_ask(session *s, const lim__frame *frame);
void lim__session_talk_join(session *s, const lim__frame *frame);
void lim__session_talk_depart(session *s, const lim__frame *frame);
void lim__session_talk_close(session *s, const lim__frame *frame);
void lim__session_talk_done(session *s, const lim__done *d);
void lim__session_talk_message(session *s, const lim__message *m);
void lim__session_talk_closed(session *s, const lim__closed *c);
void lim__session_talk_gone(session *s, talk_stream *t, lim_reason reason); /* it died */
void lim__session_talk_runs_end(session *s); /* writes the open runs of SENT */
void lim__session_talk_end(talk_stream *t);  /* in on_end */

/* ---- session_outside.c ---- */
void lim__session_signal(session *s, const lim__frame *frame);
void lim__session_find(session *s, const lim__frame *frame);

/* ---- linger.c ---- */
/* Has `out` written by a process of its own, then closes fd. Takes both in every outcome. `until_end`: reads and throws
 * away what the peer still says, so that it can read our last words before it is cut off. */
void lim__linger(porter *p, lim_process *self, int fd, lim__buf *out, bool until_end);

#endif
