/* SPDX-License-Identifier: Apache-2.0
 * bus.h - the bus as its neighbours (the server, the system groups, the simulator) see it beside <liminal/liminal.h>.
 *
 * Everything that waits for an exchange is an *owner*: a process that opened a conversation and is told how it ended by
 * an `outcome` letter (a connection's session in the server; an agent, one per scheduler, on behalf of host threads).
 * Everything that can be asked is a *participant*: a process that takes `request` letters (a local handler; a proxy of
 * a registration on a connection). letters.h lists what they say to each other. */
#ifndef LIM__BUS_H
#define LIM__BUS_H

#include <liminal/liminal.h>
#include "actor/actor.h"
#include "artifact/artifact.h"
#include "base/list.h"
#include "bus/channel.h"

typedef struct lim__groups lim__groups;
typedef struct lim__ended lim__ended;
typedef struct lim__histories lim__histories;

/* Hears what the bus promises about outcomes, for auditors; on the scheduler where it happens. */
typedef struct lim__ear {
    void *ctx;
    void (*on_settled)(void *ctx, uint64_t conversation, uint64_t lease, bool accepted); /* a result of a task */
    void (*on_outcome)(void *ctx, uint64_t conversation);                                /* of an ask or a task */
} lim__ear;

struct lim_bus {
    lim_runtime *rt;
    lim__os *os;
    lim__channels *channels;
    lim__groups *groups;       /* name -> group process; any thread */
    lim__artifacts *artifacts; /* any thread */
    struct lim__boxes *boxes;  /* of participants that are pulled; any thread */
    struct lim__held *held;    /* deliveries that are told things while they are in hand; any thread */
    struct lim__native *native; /* helper processes; NULL: the engine is off; any thread */
    lim__ended *ended;         /* summaries of ended conversations; any thread */
    lim__histories *histories; /* of conversations that are traced (history.c) */
    lim_pid agents[64];        /* one per scheduler: owners on behalf of host threads */
    lim_pid supervisor;        /* of the processes behind the $sys groups */
    void *system;              /* what each of those starts with */
    struct lim__schedules *schedules; /* the books of $sys.schedules and $sys.sagas: their processes' alone */
    struct lim__sagas *sagas;
    lim__list convs[64];       /* per scheduler, touched only there: every living conversation */
    lim__ear ear;              /* set before anything runs, or never */
    struct lim__slot_rows *slot_rows; /* what is stored of router slots (slot_keep.c); any thread */
    struct lim__durable *durable; /* the store; NULL: this bus keeps nothing (durable.h) */
    struct lim__logs *logs;       /* durable channels; NULL as long as `durable` is (log_inside.h) */
    struct lim__readers *readers; /* of logs (reader.h) */
    struct lim__kept *kept;    /* outcomes of durable tasks and asks; any thread */
    struct lim__over *over;    /* durable conversations that have ended; any thread */
    struct lim__aliases *aliases; /* conversations that were made again after a restart; any thread */
    lim_bus_opts opts;         /* with defaults filled in */
    char node[256];            /* what opts.node is, for as long as the bus is */
    _Atomic uint64_t conv_count[64]; /* each written by its scheduler only: conversations spawned by its processes, less those
                                      * that ended there */
    _Atomic uint64_t conv_hosted;    /* and those spawned by host threads, so far; the sum of all is how many there are */
    _Atomic uint32_t conv_entering; /* host threads that are about to spawn one, unless the bus is closing */
    uint64_t opened_ns, opened_wall_ns;
    _Atomic uint64_t next_order; /* of admission of durable tasks and asks */
    _Atomic uint64_t next_name, next_ref; /* participant-<n>; numbers of waits */
    _Atomic uint32_t closing;   /* 1: refuses new work */
    _Atomic uint64_t lively_ns; /* when somebody wanted something that he waits for */
};

/* Somebody is served just now: what can wait gives way (lim__job.patient). Any thread. */
static inline void lim__bus_lively(lim_bus *bus, uint64_t now_ns)
{
    if (atomic_load_explicit(&bus->lively_ns, memory_order_relaxed) != now_ns)
        atomic_store_explicit(&bus->lively_ns, now_ns, memory_order_relaxed);
}

/* As lim_bus_open over any os table; threads false: the caller drives the schedulers' turns (the simulator). */
lim_err lim__bus_open(const lim_bus_opts *opts, const lim__runtime_opts *runtime, lim_bus **out);

lim__groups *lim__groups_new(uint64_t seed);
void lim__groups_free(lim__groups *all);
/* All but the system's, whose names begin with `prefix`. Fills up to max; answers how many there are. Any thread. */
size_t lim__groups_list(lim_bus *bus, lim_bytes prefix, lim_pid *out, size_t max);

lim__ended *lim__ended_new(void);
void lim__ended_free(lim__ended *ended);

/* Spawns the process that answers the $sys groups; once per bus. */
lim_err lim__system_open(lim_bus *bus);
lim_err lim__system_await(lim_bus *bus);
void *lim__system_new(void);
/* Checks code as it will run, then keeps it; one reference. A bad one changes nothing. `fresh`: it was not there; may
 * be NULL. Any thread. */
lim_err lim__bus_load(lim_bus *bus, lim__engine engine, lim_bytes code, const char *name, lim_diag *diag, bool *fresh,
                      lim__artifact **out);
/* What the simulator's routers count instead of time, which stands still within a turn; 0: the clock is read. */
uint32_t lim__bus_instruction_ns(const lim_bus *bus);

/* An agent's spawn options (agent.c). */
lim_err lim__agent_open(lim_bus *bus, uint32_t scheduler, lim_pid *out);

/* A change that an operator wants to hear of (event.c). self: the process that it happened in; NULL: a host thread. */
typedef struct lim__event_field {
    const char *key;
    lim_bytes text;
} lim__event_field;
void lim__bus_event(lim_bus *bus, lim_process *self, const char *kind, const lim__event_field *fields, size_t count);
#define LIM__EVENT(bus, self, kind, ...)                                                                               \
    lim__bus_event(bus, self, kind, (const lim__event_field[]){ __VA_ARGS__ },                                         \
                   sizeof((const lim__event_field[]){ __VA_ARGS__ }) / sizeof(lim__event_field))

void lim__bus_log(lim_bus *bus, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
