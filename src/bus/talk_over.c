/* SPDX-License-Identifier: Apache-2.0
 * talk_over.c - the ended ones, oldest first, and a process that drops what is too old. What is dropped here and not in
 * the store, because memory was short or the store was closed, is dropped after the next start.
 *
 * The process has a timer only while there is something to drop, and lets what ended within a minute of each other go
 * together: a bus on which nothing ends is never woken. */
#include "bus/talk_over.h"
#include "bus/durable.h"
#include "bus/talk.h"
#include "base/base.h"
#include <stdlib.h>

typedef struct ended {
    lim__list node;
    uint64_t id, stream, wall_ns;
} ended;

struct lim__over {
    lim__mutex lock;
    lim__list list;
    lim_pid sweeper; /* {0}: none yet */
    bool awake;      /* it has a timer, or a letter on its way */
};

enum { TAG_SWEEP = 'O', GATHER_MS = 60000 };
#define MS UINT64_C(1000000)
static const lim__letter_type type_over = { "over", NULL };

lim__over *lim__over_new(void)
{
    lim__over *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->lock = (lim__mutex)LIM__MUTEX_INIT;
    lim__list_init(&all->list);
    return all;
}

void lim__over_free(lim__over *all)
{
    if (all == NULL)
        return;
    for (lim__list *n; (n = lim__list_pop(&all->list)) != NULL;)
        free(LIM_CONTAINER(n, ended, node));
    free(all);
}

static void done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what;
    lim__batch_free(batch);
}

static void drop_rows(lim_bus *bus, const ended *e)
{
    uint8_t key[18];
    lim__batch *batch = lim__batch_new();
    if (batch == NULL)
        return;
    lim__batch_small(batch);
    lim__batch_delete(batch, LIM__TABLE_TALKS, lim__keep_key(e->id, 'o', 0, key));
    lim__batch_delete(batch, LIM__TABLE_TALKS, lim__keep_key(e->id, 's', 0, key));
    lim__batch_drop(batch, e->stream);
    (void)!lim__durable_submit(bus, batch, done, NULL);
}

static ended *pop_due(lim__over *all, uint64_t wall_ns)
{
    ended *e = NULL;
    pthread_mutex_lock(&all->lock);
    if (!lim__list_empty(&all->list)) {
        e = LIM_CONTAINER(all->list.next, ended, node);
        if (e->wall_ns + LIM__OVER_MS * UINT64_C(1000000) > wall_ns)
            e = NULL;
        else
            lim__list_remove(&e->node);
    }
    pthread_mutex_unlock(&all->lock);
    return e;
}

/* Under the lock. Most come in their order. */
static void insert(lim__over *all, ended *e)
{
    lim__list *after = all->list.prev;
    while (after != &all->list && LIM_CONTAINER(after, ended, node)->wall_ns > e->wall_ns)
        after = after->prev;
    lim__list_push_front(after, &e->node);
}

/* Who is to be told that there is something to drop, later; {0}: it knows. */
static lim_pid whom_to_wake(lim__over *all)
{
    pthread_mutex_lock(&all->lock);
    lim_pid who = all->awake || lim__list_empty(&all->list) ? (lim_pid){ 0 } : all->sweeper;
    all->awake |= who.id != 0;
    pthread_mutex_unlock(&all->lock);
    return who;
}

static void wake(lim_bus *bus)
{
    lim_pid who = whom_to_wake(bus->over);
    void *letter = who.id != 0 ? lim__letter_new(NULL, &type_over, 1) : NULL;
    if (letter != NULL)
        (void)!lim__post_reserved(bus->rt, who, letter);
}

void lim__over_ended(lim_bus *bus, uint64_t id, uint64_t stream, uint64_t ended_wall_ns)
{
    ended *e = malloc(sizeof *e);
    if (e == NULL)
        return;
    *e = (ended){ .id = id, .stream = stream, .wall_ns = ended_wall_ns };
    pthread_mutex_lock(&bus->over->lock);
    insert(bus->over, e);
    pthread_mutex_unlock(&bus->over->lock);
    wake(bus);
}

/* ---- the process ---- */

static void sweep(lim_bus *bus)
{
    for (ended *e; (e = pop_due(bus->over, bus->os->wall_ns(bus->os))) != NULL;) {
        drop_rows(bus, e);
        free(e);
    }
}

/* In how many ns there is something to drop; UINT64_MAX: there is nothing, and it sleeps until it is woken. */
static uint64_t wait_of(lim_bus *bus)
{
    lim__over *all = bus->over;
    uint64_t now = bus->os->wall_ns(bus->os), wait = UINT64_MAX;
    pthread_mutex_lock(&all->lock);
    all->awake = !lim__list_empty(&all->list);
    if (all->awake) {
        uint64_t due = LIM_CONTAINER(all->list.next, ended, node)->wall_ns + LIM__OVER_MS * MS;
        wait = (due > now ? due - now : 0) + GATHER_MS * MS;
    }
    pthread_mutex_unlock(&all->lock);
    return wait;
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    lim_bus *bus = *(lim_bus **)state;
    uint64_t timer;
    if (signal->kind == LIM_SIGNAL_EXIT)
        return;
    sweep(bus);
    uint64_t wait = wait_of(bus);
    if (wait != UINT64_MAX && lim_timer_start(self, wait, TAG_SWEEP, &timer) != LIM_OK)
        lim_exit(self, LIM_FAULT); /* what is left goes after the next start */
}

lim_err lim__over_start(lim_bus *bus)
{
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "talks-over",
                            .on_signal = on_signal,
                            .state_bytes = sizeof bus,
                            .init = &bus,
                            .init_bytes = sizeof bus };
    lim_pid pid;
    lim_err err = lim_runtime_spawn(bus->rt, &opts, &pid);
    if (err != LIM_OK)
        return err;
    pthread_mutex_lock(&bus->over->lock);
    bus->over->sweeper = pid;
    pthread_mutex_unlock(&bus->over->lock);
    wake(bus);
    return LIM_OK;
}
