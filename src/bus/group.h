/* SPDX-License-Identifier: Apache-2.0
 * group.h - the inside of a group, shared by
 *
 *   group.c        its process and its name; signals
 *   group_member.c who works here: joining, leaving, coming back, draining
 *   group_claim.c  what asks and tasks want: waiting, leases, unique and idempotency keys
 *   group_place.c  who gets what: routing decisions, the one wake path
 *   group_slot.c   its router slot (slot.h): deploy, unfinished calls
 *   group_dead.c   tasks that ended without a result
 *   group_store.c  what of this is also on disk, and after a restart here again
 *   group_admin.c  what operators ask and change; group_config.c a queue's rules; group_show.c what they see
 *
 * Everything here belongs to one process and changes one signal at a time. */
#ifndef LIM__GROUP_H
#define LIM__GROUP_H

#include "base/list.h"
#include "base/map.h"
#include "bus/bus.h"
#include "bus/conv.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/line.h"
#include "bus/slot.h"

enum {
    LIM__GROUP_BACKLOG_MAX = 1024,    /* asks held while everybody is full */
    LIM__GROUP_MEMBERS_MAX = 65536,
    LIM__GROUP_QUEUE_MAX = 1000000,   /* defaults of the configuration: tasks */
    LIM__GROUP_HIGH_WATER = 100000,
    LIM__GROUP_DEAD_MAX = 10000,
    LIM__GROUP_REMEMBER_MAX = 100000, /* idempotency keys */
    LIM__GROUP_REMEMBER_BYTES = 64 << 20,
    LIM__GROUP_REMEMBER_ROW = 33,     /* of each, beside itself */
    LIM__GROUP_PRESSURE_MS = 5000,    /* so long after the disk would not take a task that is the reason on show */
    LIM__GROUP_PURGE_MAX = 256        /* tasks that one turn purges, dead letters that one replays */
};
#define LIM__GROUP_GRACE_NS    (10ull * 1000000000)
#define LIM__GROUP_REMEMBER_NS (600ull * 1000000000)

typedef struct group group;
typedef struct member member;
typedef struct claim claim;

/* Whoever the group watches: the process of a member, or a conversation that wants something. */
typedef struct watched {
    bool is_member;
} watched;

struct member {
    watched watched;
    lim__list node;        /* in group->members, in order of registration */
    lim_pid pid;           /* {0}: away; its leases are suspended until it comes back or others take them */
    uint64_t monitor;
    lim__candidate view;   /* what routing functions see; view.in_flight is the length of `leases`, and `elsewhere` */
    lim__join *join;       /* the letter it came with: names live in its text */
    lim_bytes *names;      /* tags, then types */
    uint32_t name_count;
    lim__list leases;
    lim__list parked;      /* claims that the router meant for this one while it was full */
    lim__pulse *pulse;     /* of the connection it is, or was, behind; NULL: none */
    uint64_t joined_ns, seen_ns, completed; /* seen: when it last gave a place back, or came */
    uint32_t elsewhere;    /* places that it says are taken by work from elsewhere */
    uint32_t given;        /* what g->dispatched was when it was given work last, as far as it fits */
    bool draining;         /* gets nothing new */
    uint64_t back_ns;      /* when it came back last; 0: it was never away, or has had its time to say what it has in hand */
    bool settled;          /* it came back and has had that time */
};

typedef struct lease { /* one place of one member */
    lim__list node;        /* in member->leases */
    uint64_t id;           /* 0: none */
    member *member;
    claim *claim;
    struct lease *next;    /* of claim->old */
    uint64_t since_ns : 63;
    uint64_t spoken : 1;   /* its worker has it as far as is known: it was given here, or said so since it came back */
} lease;

/*   want --> WAITING --router--> LEASED --release--> RESTING --want again--> WAITING
 *               ^ |  `--not finished--> ROUTING        `--its conversation ends--> (gone)
 *               | `--nobody, or one that is full--> HELD
 *               `----- anything changed --------------'                                       */
typedef enum claim_state {
    CLAIM_WAITING = 1, /* asks: in g->asks; tasks: in the line */
    CLAIM_HELD,        /* put aside: in g->undecided, or in a member's parked */
    CLAIM_ROUTING,     /* in g->routing, until an unfinished call ends */
    CLAIM_LEASED,      /* `lease` is its current one */
    CLAIM_RESTING      /* it has no current lease and asks for none: the next word is its conversation's */
} claim_state;
struct claim { /* a task: from its first wish until it ends; an ask: one wish and its lease */
    watched watched;
    bool is_task : 1;
    bool kept : 1;          /* an ask that is durable: its lease has a number of its own, and it is in g->claims */
    bool unheard : 1;   /* those who could take it were given it, and did not acknowledge */
    uint8_t wish;       /* the newest */
    bool fell_back : 1; /* another version decides about it, after a fault: there is no third */
    bool together : 1;  /* others may be placed while it is being decided: native functions */
    claim_state state : 4;
    uint32_t asked;     /* what g->dispatched was when the router was asked about it last, as far as it fits */
    lim__list node;
    lim_pid conv;
    uint64_t monitor;
    lim__want *want;    /* until it is placed */
    member *member;     /* HELD in its parked; or NULL */
    lease lease, *old;  /* old: suspended ones of those that may come back */
    int64_t order;      /* of asks: place in line; those that were in line before go to the front */
    uint64_t since_ns;
};
typedef struct task { /* a claim with a place in the line, that lasts as long as the conversation */
    claim claim;
    lim__item item;
    lim__terms *terms;
    uint16_t attempts, losses;
    bool durable;
    lim_bytes unique;   /* its key in g->unique while it is there; a view of terms */
} task;

typedef struct once { /* an idempotency key, and what became of its task */
    lim__list node;                /* in g->onces, oldest first */
    lim_pid task;                  /* its id */
    lim__outcome_letter *outcome;  /* NULL: it has not ended */
    bool durable;                  /* there is a row of it */
    uint64_t until_ns;
    uint8_t key_len;
    char key[];
} once;

typedef struct dead { /* a task that ended without a result */
    lim__list node;      /* in g->dead, oldest first */
    lim__dead *letter;
    lim_pid replayed;    /* as this task, which is not admitted yet; or {0} */
} dead;

typedef struct config { /* of a queue; what was never said is the default */
    lim__policy policy;
    uint32_t high_water, limit, dead_max, remember_max, remember_bytes;
    bool durable, remember_forgets;
    uint64_t remember_ns, grace_ns;
    lim__line_limit line, key;
    lim__lane_policy lane;
} config;
typedef struct answering { /* an operator who is told when it is stored */
    lim__list node;
    uint64_t ref, to_ref;
    lim_pid reply_to;
    lim__buf json;
} answering;

struct group {
    lim_bus *bus;
    lim_process *self; /* during a signal */
    char name[256];
    uint8_t name_len;
    bool retired; /* no longer found by name */
    bool configured, paused, draining;
    bool row;          /* of its configuration, on disk */
    bool urgent;       /* rows of `sweep` are gone before the operator is answered */
    bool changed;      /* what is configured is not what is on disk */
    uint64_t next_ref;
    lim__list answers; /* of changes whose commit is under way */
    lim__batch *sweep; /* rows that nobody needs any more: deleted with others, a moment later; or NULL */
    uint32_t swept;
    uint64_t sweep_timer, purge_upto; /* purge_upto: the item up to which all that waits is being purged; 0: none */
    uint64_t refused_ns; /* when a task could not be stored; 0: never */
    bool replaying;    /* all dead letters, some a turn */
    config config;
    lim__list members;
    uint32_t member_count, serve_count, work_count;
    lim__map watched; /* monitor -> member or claim */
    lim__map claims;  /* conversation -> claim of a task */
    lim__line line;   /* of the tasks */
    lim__list asks, undecided, routing;
    uint32_t ask_count, leased_count; /* asks that wait; leases */
    lim__smap unique; /* unique key -> task */
    lim__smap once;   /* idempotency key -> once */
    lim__list onces, dead;
    uint64_t once_bytes;
    uint32_t dead_count;
    uint64_t dead_dropped;
    int64_t front, back;
    uint64_t stamp, *slots; /* slots: one bit each, as many as there are places for candidates */
    lim__slot slot;
    lim__slot_change change;
    bool resuming; /* a resume letter is on its way */
    bool together; /* it has come: asks that wait are decided now */
    bool more;     /* there was more to hand out than one turn may take */
    const lim__candidate **candidates; /* scratch */
    member **candidate_members;
    uint32_t candidate_cap;
    uint64_t dispatched, lost, refused, completed, retry_timer, idle_timer, line_timer, line_due_ns;
};
enum {
    LIM__GROUP_TAG_RETRY = 1,
    LIM__GROUP_TAG_IDLE,
    LIM__GROUP_TAG_LINE,
    LIM__GROUP_TAG_SLICE,
    LIM__GROUP_TAG_SWEEP,
    LIM__GROUP_TAG_BACK
};
enum { LIM__GROUP_RETRY_MS = 100 };

/* As people know it; of an ask that was made again after a restart its process. */
static inline lim_pid lim__claim_id(const claim *c)
{
    return c->is_task ? (lim_pid){ ((const task *)(const void *)c)->item.id } : c->conv;
}
lim__policy lim__group_policy(const group *g); /* of its tasks, from now on */
_Static_assert(sizeof(claim) <= 136 && sizeof(task) <= 304, "what waits takes what it took");
static inline task *lim__claim_task(claim *c)
{
    LIM_ASSERT(c->is_task);
    return (task *)(void *)c;
}
/* Tasks that wait, however: all in the line but those that are out. */
uint32_t lim__group_queued(const group *g);

/* group_member.c */
void lim__group_join(group *g, const lim_signal *signal);
void lim__group_joined(group *g, const lim__join *j, lim_err err, lim_bytes name);
void lim__group_report(group *g, const lim__report *r);
void lim__group_members(group *g, const lim__members *m);
member *lim__member_away(group *g, lim__member_kind kind, const uint8_t *session, lim_bytes identity); /* as of before */
void lim__member_down(group *g, member *m, const lim_signal *signal);
void lim__member_free(group *g, member *m);
void lim__group_back_over(group *g);        /* ... or has not: what nobody else took is not in its hands */
void lim__leases_unspoken(group *g, member *m); /* gives up the suspended ones that it has not spoken for */
void lim__member_drain(group *g, member *m, bool on);
member *lim__member_named(group *g, lim_bytes identity);
bool lim__member_serves(const member *m, bool tasks, lim_bytes type); /* alive, not draining, of that kind and type */
bool lim__member_has_place(const member *m);

/* group_claim.c */
void lim__group_want(group *g, const lim_signal *signal);
void lim__group_release(group *g, const lim_signal *signal);
void lim__group_outcome(group *g, const lim_signal *signal); /* of a task with an idempotency key */
void lim__group_refuse(group *g, lim_pid conv, lim_why why, uint32_t limit, uint32_t current, const char *detail);
void lim__claim_wait(group *g, claim *c);                    /* HELD or ROUTING: back in line */
void lim__claim_hold(group *g, claim *c, member *m);         /* WAITING: put aside, for one, or NULL */
void lim__claim_routing(group *g, claim *c);
void lim__claim_lease(group *g, claim *c, member *m);
void lim__claim_end(group *g, claim *c, bool demonitor);     /* and its leases */
void lim__group_forget_once(group *g, lim_bytes key);
void lim__group_vouch(group *g, const lim_signal *signal);
void lim__group_revive(group *g, const lim_signal *signal);
bool lim__group_once_restore(group *g, lim_bytes key, uint64_t id, uint64_t until_wall_ns);
void lim__group_claims_fini(group *g);
void lim__group_expire(group *g);                            /* idempotency keys whose time is over */

/* group_place.c */
void lim__group_dispatch(group *g);      /* capacity appeared, work came, a limit was lifted: the one wake path (GR8) */
void lim__group_unpark(group *g, member *m, bool all); /* back in line: the first, or all, of m's. m NULL: the undecided */
void lim__group_retry_later(group *g);
void lim__group_go_on(group *g);         /* in a later turn of its own */
void lim__group_go_on_slowly(group *g); /* the same in the next turn */
void lim__group_route_done(void *group, void *call_ctx, lim__version *v, const lim__route_result *result);

/* group_slot.c */
lim_err lim__group_slot_init(group *g);
void lim__group_resume(group *g);        /* unfinished calls */
void lim__group_deploy(group *g, const lim_signal *signal);
void lim__group_kept(group *g, const lim__slot_stored *k);
void lim__group_slot_fini(group *g);
const char *lim__group_router_name(const group *g);
void lim__group_forget(group *g); /* group.c: it is removed: its name is free */
void lim__group_on_signal(lim_process *self, const lim_signal *signal, void *group); /* group.c */

/* group_dead.c */
void lim__group_dead_add(group *g, const lim_signal *signal);
dead *lim__group_dead_find(group *g, uint64_t conv);
lim_err lim__group_dead_replay(group *g, dead *d, lim_pid *out); /* as a new task; forgets the old one when that is admitted */
void lim__group_dead_admitted(group *g, const lim_signal *signal);
void lim__group_dead_drop(group *g, dead *d);    /* its row, too, a moment later */
void lim__group_dead_fini(group *g);
lim_err lim__group_dead_restore(group *g, uint64_t id, lim_bytes row);

/* group_store.c */
bool lim__group_durable(const group *g);         /* what is dispatched here is */
void lim__group_config_changed(group *g);        /* it is stored, before `answer` does */
void lim__group_config_gone(group *g);           /* and so is its row */
void lim__group_answer(group *g, const lim__admin *a, lim__buf *json); /* takes its contents; at once, or when it is stored */
void lim__group_stored(group *g, const lim__stored *s);
void lim__group_row(group *g, const lim__row *r);
void lim__group_sweep(group *g, lim__table table, lim_bytes key); /* key: of this queue */
void lim__group_sweep_now(group *g);
void lim__group_purge_go_on(group *g);
void lim__group_replay_go_on(group *g);
void lim__group_store_fini(group *g);
void lim__dead_json(const dead *d, const char *queue, bool full, lim__json *j);

/* group_config.c */
void lim__group_config_init(group *g);
/* The configuration as a row, and from one. */
void lim__group_config_pack(const group *g, lim__buf *out);
lim_err lim__group_config_unpack(group *g, lim_bytes row);
/* group_admin.c */
void lim__group_admin(group *g, const lim__admin *a);

/* group_show.c */
/* Why nothing is being handed out, the first that applies, as a sentence goes on ("thumbs: 3 tasks wait: ..."). `key`: the
 * word of GR14; "" if nothing waits. */
typedef struct lim__group_reason {
    const char *key;
    char text[240];
} lim__group_reason;
void lim__group_why(group *g, lim__group_reason *out);
void lim__group_json(group *g, lim__show_what what, lim__json *j);

#endif
