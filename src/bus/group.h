/* SPDX-License-Identifier: Apache-2.0
 * group.h - the inside of a group, shared by group.c (who works here), group_place.c (who gets what) and
 * group_show.c (what people see). */
#ifndef LIM__GROUP_H
#define LIM__GROUP_H

#include "base/list.h"
#include "base/map.h"
#include "bus/bus.h"
#include "bus/conv.h"
#include "bus/letters.h"
#include "route/route.h"

enum {
    LIM__GROUP_BACKLOG_MAX = 1024,    /* asks held while everybody is full */
    LIM__GROUP_QUEUE_MAX = 1000000,   /* tasks */
    LIM__GROUP_HIGH_WATER = 100000,   /* tasks: Defer above */
    LIM__GROUP_VERSIONS_KEPT = 8,
    LIM__GROUP_MEMBERS_MAX = 65536
};

typedef struct group group;
typedef struct member member;

/* Whoever the group watches: the process of a member, or a conversation that wants something. */
typedef struct watched {
    bool is_member;
} watched;

struct member {
    watched watched;
    lim__list node;        /* in group->members, in order of registration */
    lim_pid pid;           /* {0}: away; its leases are suspended until it comes back or others take them */
    uint64_t monitor;
    lim__candidate view;   /* what routing functions see; view.in_flight is the length of `claims`, and `elsewhere` */
    lim__join *join;       /* the letter it came with: names live in its text */
    lim_bytes *names;      /* tags, then types */
    uint32_t name_count;
    lim__list claims;      /* leases */
    lim__list parked;      /* tasks that the router meant for this one while it was full */
    uint64_t joined_ns, completed;
    uint32_t elsewhere;    /* places that it says are taken by work from elsewhere */
};

typedef enum claim_state { CLAIM_WAITING = 1, CLAIM_ROUTING, CLAIM_LEASED } claim_state;
typedef struct claim { /* one conversation's wish for one participant, and then its lease */
    watched watched;
    lim__list node; /* asks, tasks, undecided, unserved, a member's parked or claims; ROUTING: routing */
    claim_state state;
    bool fell_back; /* the version before decides about it: there is no other after that one */
    uint64_t lease; /* the monitor on the conversation: unique, never reused */
    int64_t order;  /* place in line; those that were in line before go to the front */
    lim_pid conv;
    lim__want *want; /* until it is placed */
    member *member;
    uint64_t since_ns;
} claim;

typedef struct version { /* one deployment, for people */
    char id[LIM__HASH_SHORT + 16]; /* short hash, or the name of the strategy */
    char name[64];
    lim__engine engine;
    uint64_t deployed_wall_ns, calls, decided, faults;
} version;

struct group {
    lim_bus *bus;
    lim_process *self; /* during a signal */
    char name[256];
    uint8_t name_len;
    bool deployed, retired; /* has a router of its own; no longer found by name */
    lim__list members;
    uint32_t member_count, serve_count, work_count;
    lim__map watched; /* monitor -> member or claim */
    lim__list asks, tasks, undecided, unserved, routing;
    uint32_t ask_count, task_count, leased_count; /* asks: waiting; tasks: waiting, parked and undecided ones too */
    int64_t front, back;
    uint64_t stamp, *slots; /* slots: one bit each, as many as there are places for candidates */
    lim__router *router, *previous, *fallback;
    lim__router *draining[LIM__GROUP_VERSIONS_KEPT];
    uint32_t draining_count;
    bool resuming; /* a resume letter is on its way */
    bool left;     /* a member is gone: whoever waits only for that one is told */
    bool scanning, rescan; /* a look along the line goes on in a later turn; from its start once more after that */
    int64_t scan_after;    /* the order of the last one that was looked at */
    lim_on_fault on_fault;
    lim_deploy_opts limits;
    version versions[LIM__GROUP_VERSIONS_KEPT]; /* [0] is active */
    uint32_t version_count;
    const lim__candidate **candidates; /* scratch */
    member **candidate_members;
    uint32_t candidate_cap;
    uint64_t counter, dispatched, lost, refused, retry_timer, idle_timer;
    char last_fault[160];
};

/* group_place.c */
void lim__group_want(group *g, const lim_signal *signal);
void lim__group_refuse(group *g, lim_pid conv, lim_why why, uint32_t limit, uint32_t current, const char *detail);
void lim__group_dispatch(group *g);      /* capacity appeared, or a version was deployed: the one wake path */
void lim__group_unpark(group *g, member *m, bool all); /* back in line: the first, or all, of m's. m NULL: the undecided, and
                                                              * with `all` those that nobody served */
void lim__group_unclaim(group *g, claim *c, bool demonitor);
void lim__group_resume(group *g);        /* unfinished calls, and the rest of a long line */
void lim__group_route_done(void *ctx, void *call_ctx, const lim__route_result *result);
lim_err lim__group_deploy(group *g, const lim__deploy *d, lim_diag *diag, bool *had, lim_hash *previous);
lim_err lim__group_router_init(group *g);
void lim__group_router_fini(group *g);
const char *lim__group_router_name(const group *g);
/* Why nothing is being handed out, the first that applies; "" if nothing waits. */
const char *lim__group_why(const group *g);
/* group.c */
void lim__member_free(group *g, member *m);
/* group_show.c */
void lim__group_json(const group *g, lim__show_what what, lim__json *j);

#endif
