/* SPDX-License-Identifier: Apache-2.0
 * sim_world.h - what sim_os.c (world, tasks, pollers, events), sim_net.c (TCP) and sim_disk.c (files) share. Nobody else
 * includes it. */
#ifndef LIM__SIM_WORLD_H
#define LIM__SIM_WORLD_H

#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"
#include "sim/sim_os.h"

typedef struct lim__sim_machine lim__sim_machine;
typedef struct lim__sim_process lim__sim_process;
typedef struct lim__sim_end lim__sim_end;
typedef struct lim__sim_drive lim__sim_drive;
typedef struct lim__sim_handle lim__sim_handle;

enum lim__sim_power { LIM__SIM_ON = 1, LIM__SIM_OFF };
struct lim__sim_machine {
    char name[32], address[16];
    uint32_t index;
    enum lim__sim_power power;
    uint64_t cut;              /* one bit per machine that cannot be reached */
    uint16_t port_next;        /* for listen(0) and connect */
    lim__sim_process *process; /* the running one, or the last */
    lim__sim_drive *drive;
};

enum lim__sim_life { LIM__SIM_RUNNING = 1, LIM__SIM_FROZEN, LIM__SIM_DEAD };
struct lim__sim_process {
    lim__os os; /* what the program sees */
    lim__sim *sim;
    lim__sim_machine *machine;
    enum lim__sim_life life;
    uint32_t number; /* how many programs the world had before */
    uint64_t kill_at_call;
    lim__rng rng;
    lim__sim_end **fds; /* by descriptor; NULL: free */
    int fd_count;
    lim__sim_handle *handles; /* of files */
    int handle_count;
    lim__list all; /* in sim->processes */
};

/* One end of a connection, or a listener; see the picture in sim_net.c. */
enum lim__sim_end_state {
    LIM__SIM_LISTENING = 1,
    LIM__SIM_CONNECTING,
    LIM__SIM_OPEN,
    LIM__SIM_BROKEN,
    LIM__SIM_GONE,
};
enum lim__sim_flow { LIM__SIM_FLOWS = 1, LIM__SIM_ENDED };
enum lim__sim_stall { LIM__SIM_NO_STALL = 1, LIM__SIM_NO_PATH, LIM__SIM_NO_WINDOW };
struct lim__sim_end {
    lim__sim *sim;
    enum lim__sim_end_state state;
    lim__sim_machine *machine;
    lim__sim_process *process; /* NULL while in an accept queue, and when gone */
    int fd;                    /* -1 likewise */
    uint16_t port;
    uint32_t events; /* in sim->events that name this end */
    lim__list all;   /* in sim->ends */

    /* a connection */
    lim__sim_end *peer;    /* NULL: none yet */
    lim__sim_machine *far; /* where it leads, NULL: to nowhere */
    uint16_t far_port;
    enum lim__sim_flow rx, tx; /* ENDED: the peer's end was received, ours was sent */
    lim__buf ring;             /* received, unread */
    size_t ring_max;
    lim__list inbound; /* segments on their way here: the peer's send buffer */
    size_t inbound_bytes, inbound_max;
    enum lim__sim_stall stall; /* why the first of them is not delivered though its time has come */
    int error;                 /* BROKEN: what to report */
    enum lim__sim_flow report; /* ENDED: it was reported */
    uint32_t idle_ms, user_timeout_ms;
    uint64_t dead_at;             /* when the kernel gives up, if nothing is heard until then */
    uint64_t syn_since, syn_wait; /* CONNECTING */
    uint64_t sent, received;      /* bytes, over all */

    /* a listener, and who waits in it */
    lim__list waiting;
    uint32_t waiting_count;
    lim__list queued; /* in the listener's `waiting` */
};

enum lim__sim_event_kind { LIM__SIM_SCRIPT = 1, LIM__SIM_SYN, LIM__SIM_ARRIVAL, LIM__SIM_GIVE_UP };
typedef struct lim__sim_event {
    uint64_t at, seq; /* the order */
    enum lim__sim_event_kind kind;
    lim__sim_end *end;
    void (*fn)(lim__sim *sim, void *ctx);
    void *ctx;
} lim__sim_event;

struct lim__sim {
    uint64_t seed, now, hash, steps, seq;
    lim__rng choices, chance, script; /* of tasks, of the network, of the test */
    lim__sim_net net;
    lim__sim_machine machines[LIM__SIM_MACHINES_MAX];
    uint32_t machine_count, process_count;
    lim__list processes, ends, tasks, pollers;
    lim__sim_event *events; /* binary heap */
    size_t event_count, event_cap;
    lim__sim_task *running;
    FILE *trace;
};

void *lim__sim_alloc(size_t bytes); /* zeroed, never NULL */
lim__sim_process *lim__sim_process_of(const lim__os *os);
void lim__sim_event_push(lim__sim *sim, lim__sim_event event);
bool lim__sim_watched(const lim__sim_process *process, int fd); /* by any poller */

/* sim_net.c */
void lim__sim_net_table(lim__os *os); /* fills in the TCP half */
void lim__sim_net_event(lim__sim *sim, const lim__sim_event *event);
uint32_t lim__sim_end_ready(const lim__sim_end *end); /* LIM__IO_* */
void lim__sim_net_drop_process(lim__sim_process *process, bool tell_peers);
void lim__sim_net_resume(lim__sim *sim, const lim__sim_machine *a, const lim__sim_machine *b); /* if they can reach */
void lim__sim_net_fini(lim__sim *sim);

/* sim_disk.c */
void lim__sim_disk_table(lim__os *os); /* fills in the files */
lim__sim_drive *lim__sim_drive_new(uint64_t seed);
void lim__sim_drive_free(lim__sim_drive *drive);
void lim__sim_drive_drop_process(lim__sim_process *process); /* closes its handles */
void lim__sim_drive_power_off(lim__sim *sim, lim__sim_machine *machine);

#endif
