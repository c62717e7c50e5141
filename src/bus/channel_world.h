/* SPDX-License-Identifier: Apache-2.0
 * channel_world.h - a small world for the tests of channels: schedulers driven by turns, and consumers that write down what
 * they see. Included by channel_*_test.c only.
 *
 * An actor is a process that runs whatever function it is sent, so a test can do anything on any scheduler:
 *      world w; world_open(&w, 2);
 *      consumer *c = consumer_open(&w, 1, "a.*", .window = 1, .policy = LIM_DROP_OLDEST);
 *      lim_admission adm = publish_at(&w, 0, "a.b", "hello");      0, 1: from that scheduler; HOST: from no scheduler */
#ifndef LIM__CHANNEL_WORLD_H
#define LIM__CHANNEL_WORLD_H

#include "bus/channel_inside.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { HOST = -1, ACTORS_MAX = 4 };

typedef struct world {
    lim_runtime *rt;
    lim__channels *all;
    lim_pid actors[ACTORS_MAX]; /* one per scheduler, publishes */
    uint32_t count;
} world;

typedef void act(lim_process *self, void *ctx);
typedef struct errand {
    act *run;
    void *ctx;
    bool *done;
} errand;

static inline void actor_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    errand e;
    if (lim__sub_on_signal(self, signal) || signal->body.len != sizeof e)
        return;
    memcpy(&e, signal->body.ptr, sizeof e);
    e.run(self, e.ctx);
    *e.done = true;
}

static inline void world_turns(world *w)
{
    for (bool work = true; work;) {
        work = false;
        for (uint32_t i = 0; i < w->count; i++)
            work |= lim__sched_turn(lim__sched_at(w->rt, i), 0);
    }
}

static inline void world_run(world *w, lim_pid pid, act *run, void *ctx)
{
    bool done = false;
    errand e = { run, ctx, &done };
    assert_int_equal(lim_runtime_send(w->rt, pid, 0, lim__bytes(&e, sizeof e)), LIM_OK);
    for (int i = 0; i < 100 && !done; i++)
        lim__sched_turn(lim__sched_at(w->rt, lim__pid_scheduler(pid)), 0);
    assert_true(done);
}

static inline lim_pid world_actor(world *w, uint32_t scheduler, void (*on_end)(void *, lim_reason), void *init)
{
    lim_pid pid;
    lim_spawn_opts spawn = {
        .size = sizeof spawn,
        .name = "actor",
        .on_signal = actor_on_signal,
        .on_end = on_end,
        .state_bytes = sizeof(void *),
        .init = &init,
        .init_bytes = sizeof(void *),
        .place = true,
        .scheduler = scheduler,
    };
    assert_int_equal(lim_runtime_spawn(w->rt, &spawn, &pid), LIM_OK);
    return pid;
}

static inline void world_open(world *w, uint32_t schedulers)
{
    *w = (world){ .count = schedulers };
    lim__runtime_opts opts = { .scheduler_count = schedulers, .threads = false };
    assert_int_equal(lim__runtime_open(&opts, &w->rt), LIM_OK);
    assert_int_equal(lim__channels_open(w->rt, &w->all), LIM_OK);
    for (uint32_t i = 0; i < schedulers; i++)
        w->actors[i] = world_actor(w, i, NULL, NULL);
}

static inline void world_close(world *w)
{
    world_turns(w);
    lim__channels_check(w->all);
    lim_runtime_close(w->rt);
    lim__channels_close(w->all);
}

/* ---- consumers ---- */

typedef struct consumer {
    world *w;
    lim_pid pid;
    lim__sub *sub; /* NULL: closed */
    lim_err opened;
    lim__sub_config config;
    bool busy;      /* not ready to write */
    bool ack_all;   /* acknowledges in the turn after each delivery */
    char got[4096]; /* payloads, each followed by a space */
    char from[256]; /* the channel of the last one */
    uint64_t seq;
    uint32_t dropped_told;
    uint64_t dropped_total;
    lim_err ended;
    uint32_t ended_told;
    bool close_on_end;
} consumer;

static inline bool consumer_ready(void *ctx)
{
    return !((consumer *)ctx)->busy;
}
static inline void consumer_deliver(void *ctx, lim__sub *sub, uint64_t seq, lim_bytes channel, lim_bytes headers,
                             lim_bytes payload, lim__msg *msg)
{
    consumer *c = ctx;
    (void)headers;
    assert_ptr_equal(lim__sched_current(), lim__sched_at(c->w->rt, lim__pid_scheduler(c->pid)));
    assert_true(seq == c->seq + 1); /* no gaps, none twice */
    assert_true(c->sub == NULL || c->sub == sub);
    c->seq = seq;
    if (msg)
        assert_true(lim__bytes_eq(lim__msg_bytes(msg), payload));
    snprintf(c->from, sizeof c->from, "%.*s", (int)channel.len, (const char *)channel.ptr);
    size_t len = strlen(c->got);
    if (len + payload.len + 2 < sizeof c->got)
        snprintf(c->got + len, sizeof c->got - len, "%.*s ", (int)payload.len, (const char *)payload.ptr);
}
static inline void consumer_dropped(void *ctx, lim__sub *sub, uint64_t total)
{
    consumer *c = ctx;
    (void)sub;
    c->dropped_told++;
    c->dropped_total = total;
}
static inline void consumer_do_close(lim_process *self, void *ctx)
{
    consumer *c = ctx;
    lim__sub_close(self, c->sub);
    c->sub = NULL;
}
static inline void consumer_ended(void *ctx, lim__sub *sub, lim_err why)
{
    consumer *c = ctx;
    assert_ptr_equal(sub, c->sub);
    c->ended = why;
    c->ended_told++;
    if (c->close_on_end)
        consumer_do_close(NULL, c);
}
static const lim__sub_ops consumer_ops = { consumer_ready, consumer_deliver, consumer_dropped, consumer_ended };

static inline void consumer_do_open(lim_process *self, void *ctx)
{
    consumer *c = ctx;
    c->opened = lim__sub_open(c->w->all, self, &c->config, NULL, &c->sub);
}
static inline void consumer_on_end(void *state, lim_reason reason)
{
    consumer *c = *(consumer **)state;
    (void)reason;
    consumer_do_close(NULL, c);
}
static inline void consumer_do_ack(lim_process *self, void *ctx)
{
    consumer *c = ctx;
    lim__sub_ack(self, c->sub, c->seq);
}
static inline void consumer_do_pump(lim_process *self, void *ctx)
{
    consumer *c = ctx;
    lim__sub_pump(self, c->sub);
}

static inline consumer *consumer_try(world *w, uint32_t scheduler, const char *pattern, lim__sub_config config)
{
    consumer *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->w = w;
    c->config = config;
    c->config.pattern = lim__str(pattern);
    c->config.ops = &consumer_ops;
    c->config.ctx = c;
    c->config.owner_name = lim__str("consumer");
    c->pid = world_actor(w, scheduler, consumer_on_end, c);
    world_run(w, c->pid, consumer_do_open, c);
    return c;
}
#define consumer_open(w, scheduler, pattern, ...)                                                                      \
    consumer_expect(consumer_try(w, scheduler, pattern, (lim__sub_config){ __VA_ARGS__ }))
static inline consumer *consumer_expect(consumer *c)
{
    assert_int_equal(c->opened, LIM_OK);
    return c;
}
static inline void consumer_ack(consumer *c) /* all it has seen */
{
    world_run(c->w, c->pid, consumer_do_ack, c);
}
static inline void consumer_resume(consumer *c)
{
    c->busy = false;
    world_run(c->w, c->pid, consumer_do_pump, c);
}
static inline void consumer_close(consumer *c)
{
    if (c->sub)
        world_run(c->w, c->pid, consumer_do_close, c);
}
static inline void consumer_free(consumer *c) /* ends its process */
{
    lim_runtime_exit(c->w->rt, c->pid, LIM_KILL);
    world_turns(c->w);
    assert_null(c->sub);
    free(c);
}
static inline lim_sub_info consumer_info(const consumer *c)
{
    lim_sub_info info;
    lim__sub_info(c->sub, &info);
    return info;
}

/* ---- publishing ---- */

typedef struct publication {
    world *w;
    const char *name, *text;
    bool mandatory;
    lim__channel *ch; /* NULL: looked up */
    lim_err err;
    lim_admission out;
} publication;

static inline void publication_run(lim_process *self, void *ctx)
{
    publication *p = ctx;
    lim__channel *ch = p->ch ? p->ch : lim__channel_find(p->w->all, lim__str(p->name));
    p->err = lim__publish(p->w->all, self, ch, lim__str(p->text), lim__bytes(NULL, 0), p->mandatory, &p->out);
    if (!p->ch)
        lim__channel_unref(ch);
}

static inline publication publish_full(world *w, int from, const char *name, const char *text, bool mandatory)
{
    publication p = { .w = w, .name = name, .text = text, .mandatory = mandatory };
    if (from == HOST)
        publication_run(NULL, &p);
    else
        world_run(w, w->actors[from], publication_run, &p);
    return p;
}
static inline lim_admission publish_at(world *w, int from, const char *name, const char *text)
{
    publication p = publish_full(w, from, name, text, false);
    assert_int_equal(p.err, LIM_OK);
    return p.out;
}

#endif
