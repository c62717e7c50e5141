/* SPDX-License-Identifier: Apache-2.0
 * letters.h - what owners, conversations, participants and groups say to each other.
 *
 *      owner ----open, ask, send, receive, close...----> conversation ----request, revoke, settled----> participant
 *      (session, <---admitted, outcome, message-------- (exchange or     <---taken, answer, say------- (handler, or a
 *       agent)                                           talk)                                          proxy)
 *                                                         |      ^
 *                                    want, release (DOWN) |      | assigned, refused, queued
 *                                                         v      |
 *      participant ----join----> group <---deploy, show---- system groups
 *                  <---joined---
 *
 * A letter owns what its pointers refer to (one reference each); text lives in its tail. `ref` is the asker's own
 * number and comes back unchanged. Links and monitors carry the rest: a participant's death reaches the conversation
 * as an EXIT, a conversation's death reaches its owner and participants as an EXIT and the group as a DOWN. */
#ifndef LIM__LETTERS_H
#define LIM__LETTERS_H

#include <liminal/liminal.h>
#include "actor/actor.h"
#include "bus/pulse.h"
#include "bus/terms.h"
#include "data/data.h"

typedef enum lim__conv_kind {
    LIM__KIND_ASK = 1, LIM__KIND_TASK, LIM__KIND_TALK, LIM__KIND_GATHER /* one ask of everybody in a group */
} lim__conv_kind;
const char *lim__conv_kind_text(lim__conv_kind kind);

/* What a living process is as a conversation; 0: none. Any thread. */
#define lim__conv_kind_of(bus, pid) ((lim__conv_kind)lim__pid_marked((bus)->rt, (pid)))

/* ---- owner -> conversation ---- (ask, tell, receive, join: whoever sends it is answered) */
enum {
    LIM__OPEN_WAIT = 1,
    LIM__OPEN_REPORT = 2, /* tasks: tell the owner admission and outcome */
    LIM__OPEN_MARKED = 4  /* lim__open_mark */
};
typedef struct lim__open { /* the first letter of every conversation; it keeps what it says */
    lim_pid owner;
    uint64_t ref;
    uint64_t deadline_ns;   /* monotonic; UINT64_MAX: none */
    uint64_t opened_ns;
    lim_pid participant;    /* instead of a group; or this one of the group, in its turn; or {0} */
    lim__msg *payload;      /* TALK: NULL */
    lim__terms *terms;      /* NULL: nothing special */
    uint16_t losses_max;
    lim__conv_kind kind : 8;
    lim_crash on_crash : 8;
    uint8_t flags, group_len, type_len;
    char text[];            /* group, type, mark */
} lim__open;
static inline size_t lim__open_bytes(const lim__open *o)
{
    size_t mark = o->flags & LIM__OPEN_MARKED ? sizeof(uint64_t) : 0;
    return offsetof(lim__open, text) + o->group_len + o->type_len + mark;
}
/* TASK: if it is durable, its first commit has this row in the table of schedules; 0: none. */
uint64_t lim__open_mark(const lim__open *o);
void lim__open_set_mark(lim__open *o, uint64_t mark); /* of one from lim__open_new, once */
typedef struct lim__ask { uint64_t ref; lim_pid to; uint64_t deadline_ns; lim__msg *payload; } lim__ask;
typedef struct lim__tell { /* refused: answered in its turn and sent to nobody; payload NULL */
    uint64_t ref;
    lim_pid to;
    lim__msg *payload;
    lim_err refused;
} lim__tell;
typedef struct lim__receive { uint64_t ref, deadline_ns; } lim__receive;
typedef struct lim__join_conv { uint64_t ref; lim_pid participant; bool required; } lim__join_conv; /* leave_conv, too */
typedef struct lim__grant { uint32_t parts; } lim__grant; /* so many more parts of an answer may come */
/* From anybody who knows the id; nobody is answered. */
typedef struct lim__signal_in { lim__msg *payload; uint8_t name_len; char name[]; } lim__signal_in;
typedef struct lim__notify { uint64_t ref; lim_pid owner, participant; } lim__notify;
/* close, cancel, inspect, await, unawait, push, attach; sound: answered with a `sound` when it is stored that there is such
 * a task */
typedef struct lim__command { uint64_t ref; lim_pid from; } lim__command;

/* ---- conversation -> owner ---- */
typedef struct lim__outcome_letter { /* text: participant, router, detail, then excluded_count x lim__gone_put */
    uint64_t ref;
    lim_pid conv;
    lim_how how;
    lim_handed handed_over;
    lim_why why;
    lim_reason reason;
    uint32_t attempts, losses, limit, current, retry_after_ms;
    uint64_t elapsed_ns, crashed_wall_us, crashed_ns, rerouted_ns;
    lim__msg *payload;
    lim_pid compensation, from; /* from: of a receive */
    uint8_t event;
    uint8_t participant_len, router_len, excluded_count;
    uint16_t detail_len, excluded_bytes;
    char text[];
} lim__outcome_letter;
/* One of the excluded as it lies there: u8 length, identity, u64 observed, u64 rerouted. Answers its size. */
#define LIM__GONE_BYTES 17u /* and its identity */
size_t lim__gone_put(char *at, const lim_excluded *gone);
/* Fills a view of the letter; excluded (LIM__EXCLUDED_MAX places) holds the names. */
#define LIM__EXCLUDED_MAX 16
size_t lim__outcome_bytes(const lim__outcome_letter *letter); /* of the letter, without its payload */
void lim__outcome_view(const lim__outcome_letter *letter, lim_excluded *excluded, lim_outcome *out);
typedef struct lim__admitted { uint64_t ref; lim_pid conv; lim_admission admission; } lim__admitted;
typedef struct lim__message { /* text: the reason, or name, of an event */
    lim_pid conv, from;
    uint64_t seq;
    lim__msg *payload;
    uint8_t event, text_len;
    char text[];
} lim__message;
typedef struct lim__partial { /* a part of an answer, or what one of many answered. text: participant, detail */
    uint64_t ref;
    lim_pid conv;
    uint32_t seq;
    lim_how how;
    lim__msg *payload;
    uint8_t participant_len;
    uint16_t detail_len;
    char text[];
} lim__partial;
/* join, send, inspect, a talk was opened */
typedef struct lim__done { /* phase, wanted: CLOSED because a conversation in `phase` cannot become `wanted` */
    uint64_t ref;
    lim_pid conv;
    lim_err err;
    uint8_t phase, wanted;
    lim_conv_info info;
    lim_admission admission; /* of a send: complete if err is OK or FULL */
} lim__done;
typedef struct lim__exited { uint64_t ref; lim_pid participant; lim_reason reason; uint64_t at_ns; } lim__exited;
typedef struct lim__closed { lim_pid conv; lim_phase phase; lim_reason reason; } lim__closed; /* a talk has ended */

/* ---- conversation -> participant ---- */
/* Both: a message of a durable talk. `lease` is its number, which grows; `taken` with it is for all up to it. It may come
 * again under that number, and is not to be given to anybody then. */
enum { LIM__REQUEST_ACK = 1 /* wants `taken` */, LIM__REQUEST_QUIET = 2 /* wants no answer */ };
typedef struct lim__request {
    lim_pid conv;
    uint64_t lease;
    uint64_t deadline_ns;
    lim__msg *payload;
    lim_pid from;          /* an event: whom it is about; a message: who said it, {0}: the opener */
    lim_pid asker;         /* of an ask: who owns it; {0}: nobody here, or it is no ask */
    uint32_t credit;       /* parts that the asker takes now; 0: none at all */
    uint16_t attempt, losses, hops;
    uint8_t event;         /* lim_event; not NONE: QUIET, nothing is asked */
    uint8_t flags, type_len;
    char type[];
} lim__request;
static inline bool lim__request_numbered(const lim__request *r)
{
    const uint8_t both = LIM__REQUEST_ACK | LIM__REQUEST_QUIET;
    return (r->flags & both) == both;
}
typedef struct lim__credit { lim_pid conv; uint64_t lease; uint32_t parts; } lim__credit;
typedef enum lim__revoke_why {
    LIM__REVOKE_CANCELLED = 1, LIM__REVOKE_TIMEOUT, LIM__REVOKE_TAKEN, LIM__REVOKE_ENDED
} lim__revoke_why;
typedef struct lim__revoke { lim_pid conv; uint64_t lease; lim__revoke_why why; } lim__revoke;
typedef struct lim__settled { /* kept: of an ask that is durable; of others only tasks' answers are settled */
    lim_pid conv;
    uint64_t lease;
    bool accepted, kept;
} lim__settled;

/* ---- participant -> conversation ---- */
typedef enum lim__answer_how { LIM__ANSWER_REPLY = 1, LIM__ANSWER_FAILED, LIM__ANSWER_NOTHING } lim__answer_how;
typedef struct lim__answer {
    uint64_t lease;
    lim_pid from;
    lim__answer_how how;
    lim__msg *payload; /* REPLY */
    uint16_t detail_len;
    char detail[];
} lim__answer;
typedef struct lim__taken { uint64_t lease; } lim__taken;
typedef struct lim__holding { uint64_t lease; lim_pid participant; } lim__holding;
/* to: {0} the opener, LIM_EVERYBODY, or one of those in it. */
typedef struct lim__say { lim_pid from, to; lim__msg *payload; } lim__say;
typedef struct lim__part { uint64_t lease; lim_pid from; lim__msg *payload; } lim__part;
typedef struct lim__progress { uint64_t lease; lim_pid from; uint8_t note_len; char note[]; } lim__progress;

/* ---- participant -> group -> participant ---- */
typedef enum lim__member_kind { LIM__MEMBER_SERVE = 1, LIM__MEMBER_WORK } lim__member_kind;
typedef struct lim__join { /* text: identity, then types and tags as (u8 length, name), then node */
    lim_pid participant;
    lim_pid reply_to;
    uint64_t ref;
    lim__member_kind kind;
    uint32_t capacity;
    uint8_t session[16];
    lim__pulse *pulse;     /* of its connection, a reference; NULL: it is of this program */
    uint16_t type_count, tag_count, text_len;
    uint8_t identity_len, node_len; /* node_len 0: the bus's node */
    char text[];
} lim__join;
typedef struct lim__joined { uint64_t ref; lim_err err; uint8_t identity_len; char identity[]; } lim__joined;
typedef struct lim__report { lim_pid participant; uint32_t used; } lim__report; /* host -> participant -> group */
typedef struct lim__evict { lim_reason reason; } lim__evict; /* group -> participant: end with this reason */

/* ---- conversation -> group -> conversation ---- */
/* What a queue says of its tasks, as of the last word from it. */
typedef struct lim__policy {
    uint32_t attempts_max, losses_max;     /* losses_max 0: nothing said */
    uint32_t backoff_min_ms, backoff_max_ms, backoff_factor_percent, backoff_jitter_percent;
    uint64_t start_to_close_ns, progress_ns; /* 0: none */
    bool trace, durable;                     /* durable: its tasks are */
} lim__policy;
typedef struct lim__want {
    lim_pid conv;
    lim__conv_kind kind;
    bool wait;
    bool again;            /* a task that was queued before: no new admission, goes to the front */
    bool kept;             /* it is durable by its own wish */
    uint8_t wish;          /* its number: `assigned` is the answer to one of them */
    union {
        lim_pid only;      /* asks: nobody else will do; {0}: the router chooses */
        lim_pid id;        /* tasks: as people know it */
    };
    uint16_t attempts, losses; /* for people */
    uint64_t due_ns;       /* again: not before; 0: now */
    lim__terms *terms;
    lim__msg *payload;
    uint8_t shun_count, shun_room, type_len; /* room: what the text is behind */
    lim_pid shun[];        /* participants that shall not have it: they did not acknowledge it, or took part before */
} lim__want;               /* text: type */
static inline char *lim__want_text(lim__want *w)
{
    return (char *)(w->shun + w->shun_room);
}
static inline lim_bytes lim__want_type(const lim__want *w)
{
    return (lim_bytes){ w->shun + w->shun_room, w->type_len };
}
typedef struct lim__assigned { /* text: identity, router */
    lim_pid participant;
    uint64_t lease;
    lim__policy policy;
    uint64_t remember_ns;  /* its idempotency key, from now on */
    uint8_t session[16];   /* of the participant's connection */
    uint8_t wish, member_kind, identity_len, router_len;
    char text[];
} lim__assigned;
typedef struct lim__refused {
    lim_why why;
    uint32_t limit, current, retry_after_ms;
    uint16_t detail_len;
    char detail[];
} lim__refused;
typedef struct lim__queued { lim_admission admission; lim__policy policy; uint64_t remember_ns; } lim__queued;
/* Another task stands for it: JOIN of a unique key, or an idempotency key that was seen before. */
typedef struct lim__stands_for {
    lim_pid task;
    lim__outcome_letter *outcome; /* a copy, owned (lim__letter_free): how it ended; NULL: it lives, and can be awaited */
    bool durable;                 /* it is perhaps not stored yet: `sound` it before anybody is told of it */
} lim__stands_for;
/* A task with an idempotency key also sends a copy of its `outcome` letter to its queue, which remembers it. */
/* A task that ended without a result, for the queue's dead letters. text: type, detail. */
typedef struct lim__dead {
    lim_pid conv;
    lim_how how;
    lim_why why;
    lim_reason reason;
    uint32_t attempts, losses;
    uint64_t at_wall_us;
    lim__terms *terms;
    lim__msg *payload;
    bool durable;          /* there is a row of it */
    uint8_t type_len;
    uint16_t detail_len;
    char text[];
} lim__dead;
/* Who serves it now, and this type: for those who ask everybody. */
typedef struct lim__members { lim_pid reply_to; uint64_t ref; uint8_t type_len; char type[]; } lim__members;
typedef struct lim__member_list { /* text: count x (u8 length, identity, 16 bytes of its session), in the order of `who` */
    uint64_t ref;
    uint32_t count;
    lim_pid *who;          /* owned: lim__alloc of count places and one byte */
    char text[];
} lim__member_list;
/* lease 0: whatever the sender still waits for. unheard: its worker never said that it has it */
typedef struct lim__release { uint64_t lease; bool unheard, never; } lim__release; /* never: it was not admitted after all */
/* Is that participant the one who has, or had, this lease of mine? By the group's books: token, identity and session. */
typedef struct lim__vouch { uint64_t lease; lim_pid who; } lim__vouch;
typedef struct lim__vouched { uint64_t lease; lim_pid who; bool yes; } lim__vouched;
/* Who had this lease came back without it, or will not come back: group -> conversation. */
typedef struct lim__vacated { uint64_t lease; } lim__vacated;

/* ---- after a restart: whoever reads the store -> group, exchange ---- */
typedef struct lim__row { /* of the group's own: its configuration, a dead letter, an idempotency key */
    uint8_t table;
    uint32_t key_len, len;
    uint8_t bytes[];       /* key, value */
} lim__row;
typedef struct lim__revive_lease {
    uint64_t lease;
    bool current;
    uint8_t kind, session[16];
    lim_bytes identity;
} lim__revive_lease;
/* A claim of before. text: type, then for each lease, packed as rows are: u64 lease, u8 current, u8 kind of member, its
 * session (16 bytes), its identity. */
typedef struct lim__revive {
    lim_pid conv, id;
    lim__conv_kind kind;
    uint16_t attempts, losses;
    uint64_t due_ns, since_ns;
    lim__terms *terms;
    lim__msg *payload;
    uint8_t lease_count, type_len;
    uint32_t leases_len;
    char text[];
} lim__revive;
typedef struct lim__revived { lim__policy policy; uint64_t grace_ns; } lim__revived; /* group -> exchange */
/* The first letter of an exchange of before; its `open` comes next. */
typedef struct lim__relive { lim_pid id; uint64_t order, seen_until_wall_ns; uint32_t len; uint8_t row[]; } lim__relive;

/* ---- system groups -> group or agent: render yourself, or your conversations ---- */
typedef enum lim__show_what {
    LIM__SHOW_LINE = 1, LIM__SHOW_FULL, LIM__SHOW_MEMBERS, LIM__SHOW_HISTORY, /* of `only`, after entry `after` */
    LIM__SHOW_ROUTE_LINE, LIM__SHOW_ROUTE, /* a group's slot: */
    LIM__SHOW_ROUTE_HISTORY, LIM__SHOW_ROUTE_LOG /* `max` entries after entry `after` */
} lim__show_what;
typedef struct lim__show { /* agents: `only` is one conversation, or {0}: up to `max` of those that match `where` */
    lim_pid reply_to;
    uint64_t ref;
    lim_pid only;
    uint64_t after;
    uint32_t max;
    lim__show_what what;
    uint16_t where_len;
    char where[];          /* as lim__conv_matches has it; empty: all */
} lim__show;
/* A request of $sys.queues, $sys.tasks, $sys.dead or $sys.workers that a group answers itself: JSON in, `shown` JSON out. */
typedef struct lim__admin { lim_pid reply_to; uint64_t ref; uint32_t len; char json[]; } lim__admin;
typedef struct lim__shown { uint64_t ref; uint32_t len; char json[]; } lim__shown;
typedef enum lim__deploy_what {
    LIM__DEPLOY = 0,
    LIM__DEPLOY_ROLLBACK, /* to `version`, or the last good one */
    LIM__DEPLOY_PROMOTE, LIM__DEPLOY_STOP, /* what is tried out */
    LIM__DEPLOY_REMOVE /* forget the slot and, when nobody is in it, the group */
} lim__deploy_what;
typedef struct lim__deploy {
    lim_pid reply_to;
    uint64_t ref;
    lim__deploy_what what;
    struct lim__artifact *artifact;
    lim_deploy_opts opts; /* its texts are the ones below: lim__deploy_texts */
    char version[68];     /* the beginning of a hash: what must be live, or shall be; "": any */
    char by[64], ramp_key[128], ramp_where[1024];
} lim__deploy;
/* Copies what opts borrows. TOOBIG: one of its texts is too long. */
lim_err lim__deploy_texts(lim__deploy *d, const lim_deploy_opts *opts);
typedef struct lim__deployed {
    uint64_t ref;
    lim_err err;
    bool had_previous;
    lim_hash previous;
    char version[40]; /* that is live now */
    lim_diag diag;
} lim__deployed;

/* store -> who owns a slot: what became of the row that it committed. */
typedef struct lim__slot_stored { uint64_t ref; lim_err err; } lim__slot_stored;

/* The types, one for each struct above that travels: lim__open -> lim__type_open. */
#define LIM__LETTER_MAP(X)                                                                                             \
    X(open) X(ask) X(tell) X(receive) X(join_conv) X(notify) X(close) X(cancel) X(inspect) X(await) X(push) X(show)    \
    X(outcome) X(admitted) X(message) X(done) X(exited) X(closed) X(request) X(revoke) X(settled) X(answer) X(taken)   \
    X(holding) X(say) X(join) X(joined) X(evict) X(want) X(assigned) X(refused) X(queued) X(release) X(shown)          \
    X(deploy) X(deployed) X(resume) X(report) X(unawait) X(leave_conv) X(grant) X(signal_in) X(partial) X(credit)       \
    X(part) X(progress) X(stands_for) X(dead) X(members) X(member_list) X(admin) X(vouch) X(vouched) X(vacated) X(row)   \
    X(revive) X(revived) X(relive) X(sound) X(attach) X(slot_stored)
#define X(name) extern const lim__letter_type lim__type_##name;
LIM__LETTER_MAP(X)
#undef X

/* ---- names inside letters ---- */
size_t lim__name_put(char *at, lim_bytes name);               /* u8 length + bytes; returns the bytes written */
lim_bytes lim__name_get(const char **at);

/* ---- groups as everybody finds them ---- */
struct lim_bus;
/* The group's process; {0}: nobody made it. create: makes it, on self's scheduler or any (self NULL). */
lim_pid lim__group_find(struct lim_bus *bus, lim_bytes name);
lim_err lim__group_get(struct lim_bus *bus, lim_process *self, lim_bytes name, lim_pid *out);

/* Spawns a conversation as `self`'s child (linked) and gives it its first letter, which is taken in every outcome. */
lim_err lim__conv_spawn(struct lim_bus *bus, lim_process *self, lim__open *open, lim_pid *out);
/* From a host thread, on the scheduler of `owner`, which links it by itself; its first letter is still to be posted. */
lim_err lim__conv_spawn_at(struct lim_bus *bus, lim__conv_kind kind, lim_pid owner, lim_pid *out);
/* A new `open` letter with its text; deadline, flags etc. are filled in by the caller. NULL: no memory. */
lim__open *lim__open_new(lim__sched *s, lim__conv_kind kind, lim_bytes group, lim_bytes type, lim__msg *payload);

/* Its traceparent, if it has one and its message has none, becomes a header of the message. */
void lim__open_carry_trace(lim__open *open);

/* ---- ended tasks and conversations (ended.c): bounded, any thread ---- */
typedef struct lim__ended_info { lim_phase phase; lim__conv_kind kind; uint64_t accepted_lease; } lim__ended_info;
void lim__ended_add(struct lim_bus *bus, lim__sched *s, lim__conv_kind kind, lim_phase phase, uint64_t accepted_lease,
                    const lim__outcome_letter *outcome, size_t bytes);
bool lim__ended_find(struct lim_bus *bus, lim_pid conv, lim__ended_info *out);
/* A copy of its outcome letter with this ref; NULL: unknown. */
lim__outcome_letter *lim__ended_outcome(struct lim_bus *bus, lim__sched *s, lim_pid conv, uint64_t ref);

#endif
