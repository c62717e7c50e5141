/* SPDX-License-Identifier: Apache-2.0
 * log_world.h - a durable channel in a simulated machine, for tests: publishing, receipts, and what the log has. */
#ifndef LIM__LOG_WORLD_H
#define LIM__LOG_WORLD_H

#include "bus/durable_world.h"
#include "bus/log_inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOG_RECEIPTS_MAX = 4096, LOG_TEXT_MAX = 64 };

typedef struct log_world {
    durable_world d;
    lim_channel channel;
    lim_receipt receipts[LOG_RECEIPTS_MAX]; /* in the order in which they came */
    uint32_t offered, told;
    /* what a look at the log found */
    uint64_t seqs[LOG_RECEIPTS_MAX];
    char texts[LOG_RECEIPTS_MAX][LOG_TEXT_MAX], keys[LOG_RECEIPTS_MAX][LOG_TEXT_MAX];
    uint32_t found;
} log_world;

static inline void log_world_on_receipt(void *ctx, const lim_receipt *receipt)
{
    log_world *w = ctx;
    assert_true(w->told < LOG_RECEIPTS_MAX);
    w->receipts[w->told++] = *receipt;
}

static inline lim_channel_opts log_world_opts(void)
{
    return (lim_channel_opts){ .size = sizeof(lim_channel_opts), .durable = true };
}

static inline void log_world_channel(log_world *w, const char *name, const lim_channel_opts *opts)
{
    assert_int_equal(lim_channel_open(w->d.bus, name, opts, &w->channel), LIM_OK);
}

static inline void log_world_open(log_world *w, uint64_t seed, const lim_channel_opts *opts)
{
    lim_channel_opts plain = log_world_opts();
    *w = (log_world){ 0 };
    durable_open(&w->d, seed);
    log_world_channel(w, "orders", opts != NULL ? opts : &plain);
}

static inline lim_err log_world_offer(log_world *w, const char *text, lim_publish_opts opts)
{
    lim_admission a;
    opts.size = sizeof opts;
    opts.on_receipt = log_world_on_receipt;
    opts.ctx = w;
    lim_err err = lim_publish(w->d.bus, w->channel, lim__str(text), &opts, &a);
    w->offered += err == LIM_OK;
    return err;
}

static inline bool log_world_all_told(void *ctx)
{
    log_world *w = ctx;
    return w->told == w->offered;
}

static inline void log_world_wait(log_world *w)
{
    durable_until(&w->d, log_world_all_told, w);
}

/* Publishes and waits: the receipt. */
static inline lim_receipt log_world_publish(log_world *w, const char *text, lim_publish_opts opts)
{
    assert_int_equal(log_world_offer(w, text, opts), LIM_OK);
    log_world_wait(w);
    return w->receipts[w->told - 1];
}

static inline bool log_world_each(void *ctx, const lim__record *r)
{
    log_world *w = ctx;
    lim__log_record m;
    assert_true(w->found < LOG_RECEIPTS_MAX);
    assert_true(lim__log_record_read(r->data, &m));
    w->seqs[w->found] = r->seq;
    snprintf(w->texts[w->found], LOG_TEXT_MAX, "%.*s", (int)m.payload.len, (const char *)m.payload.ptr);
    snprintf(w->keys[w->found], LOG_TEXT_MAX, "%.*s", (int)r->key.len, (const char *)r->key.ptr);
    w->found++;
    return true;
}

/* What is in the log, according to the store. */
static inline uint32_t log_world_look(log_world *w, const char *name)
{
    lim__log *log;
    uint64_t bad = 0;
    w->found = 0;
    assert_int_equal(lim__log_find(w->d.bus, lim__str(name), &log), LIM_OK);
    assert_int_equal(lim__store_read(lim__durable_store(w->d.bus), log->stream, 1, 0, log_world_each, w, &bad), 0);
    lim__log_check(log);
    lim__log_unref(log);
    return w->found;
}

/* After durable_kill or durable_power_off: the channel is there again. */
static inline void log_world_start(log_world *w)
{
    durable_start(&w->d);
    log_world_channel(w, "orders", NULL);
}

static inline void log_world_close(log_world *w)
{
    durable_close(&w->d);
}

#endif
