/* SPDX-License-Identifier: Apache-2.0
 * log_api.c - durable channels for the embedder: publishing with options, receipts, the newest message of a key.
 *
 * A receipt exists on the store's thread, where no code of the host's may run: it is carried to an agent by a letter
 * that was reserved when the message was handed over, so that it cannot get lost. Receipts of one thread come in the
 * order in which they were made: one agent, one order. */
#include "bus/agent.h"
#include "bus/log_inside.h"
#include "data/options.h"

#include <errno.h>
#include <stdlib.h>

/* ---- receipts ---- */

typedef struct receipt_errand {
    lim__errand errand; /* first */
    lim_on_receipt *on_receipt;
    void *ctx;
    lim_bus *bus;
    lim_pid agent;
    lim_receipt receipt;
} receipt_errand;

static void run_receipt(lim__errand *e)
{
    receipt_errand *r = (receipt_errand *)(void *)e;
    r->on_receipt(r->ctx, &r->receipt);
}

static void on_logged(void *ctx, const lim_receipt *receipt, const char *detail)
{
    receipt_errand *r = ctx;
    (void)detail;
    r->receipt = *receipt;
    (void)!lim__post_reserved(r->bus->rt, r->agent, r);
}

static receipt_errand *errand_new(lim_bus *bus, const lim_publish_opts *opts)
{
    receipt_errand *r = lim__letter_new(lim__sched_here(bus->channels), &lim__type_errand, sizeof *r);
    if (r != NULL)
        *r = (receipt_errand){ .errand = { run_receipt },
                               .on_receipt = opts->on_receipt,
                               .ctx = opts->ctx,
                               .bus = bus,
                               .agent = lim__agent_for(bus, (lim_pid){ 0 }) };
    return r;
}

void lim__receipt_refused(lim_bus *bus, const lim_publish_opts *opts, const lim_admission *admission)
{
    receipt_errand *r = opts != NULL && opts->on_receipt != NULL ? errand_new(bus, opts) : NULL;
    if (r != NULL)
        on_logged(r, &(lim_receipt){ .admission = *admission }, "");
}

/* ---- publishing ---- */

bool lim__publish_opts_durable(const lim_publish_opts *o)
{
    return o != NULL && (o->idempotency_key != NULL || o->expires_ms != 0 || o->delay_ms != 0 || o->at_wall_us != 0 ||
                         o->expect_last || o->on_receipt != NULL);
}

static lim_err message_of(const lim_bus *bus, lim_bytes payload, const lim_publish_opts *o, lim__log_message *m)
{
    *m = (lim__log_message){ .payload = payload };
    if (o == NULL)
        return LIM_OK;
    uint64_t now_us = o->at_wall_us != 0 ? bus->os->wall_ns(bus->os) / 1000 : 0;
    if (o->expires_ms < 0 || o->delay_ms < 0 ||
        lim__options_delay(o->delay_ms, o->at_wall_us, now_us, &m->delay_ms, NULL) != LIM_OK)
        return LIM_E_MISUSE;
    m->key = o->key != NULL ? lim__str(o->key) : lim__bytes(NULL, 0);
    m->idempotency_key = o->idempotency_key != NULL ? lim__str(o->idempotency_key) : lim__bytes(NULL, 0);
    m->expires_ms = o->expires_ms;
    m->mandatory = o->mandatory;
    m->expect_last = o->expect_last;
    m->last = o->last;
    return m->key.len > LIM__LOG_KEY_MAX || m->idempotency_key.len > LIM__LOG_KEY_MAX ? LIM_E_INVALID : LIM_OK;
}

lim_err lim__log_message_of(lim_bytes payload, const lim_publish_opts *opts, lim__log_message *out)
{
    return message_of(NULL, payload, opts, out); /* of a step: without instants */
}

lim_err lim__publish_logged(lim__log *log, lim_bytes payload, const lim_publish_opts *opts, lim_admission *out)
{
    lim__log_message m;
    lim_err err = message_of(log->bus, payload, opts, &m);
    bool told = opts != NULL && opts->on_receipt != NULL;
    receipt_errand *r = err == LIM_OK && told ? errand_new(log->bus, opts) : NULL;
    if (err == LIM_OK && told && r == NULL)
        err = LIM_E_NOMEM;
    if (err != LIM_OK)
        return err;
    err = lim__log_publish(log, &m, r != NULL ? on_logged : NULL, r, out);
    if (err != LIM_OK)
        lim__letter_free(lim__sched_here(log->bus->channels), r);
    return err == LIM_E_CLOSED ? LIM_E_GONE : err;
}

typedef struct waiter {
    lim__mutex mutex;
    lim__cond cond;
    bool over;
    lim_receipt receipt;
} waiter;

static void on_waited(void *ctx, const lim_receipt *receipt, const char *detail)
{
    waiter *w = ctx;
    (void)detail;
    pthread_mutex_lock(&w->mutex);
    w->receipt = *receipt;
    w->over = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mutex);
}

static lim_err publish_and_wait(lim__log *log, const lim__log_message *m, lim_receipt *out)
{
    waiter w = { .mutex = LIM__MUTEX_INIT };
    lim__cond_init(&w.cond);
    lim_err err = lim__log_publish(log, m, on_waited, &w, NULL);
    pthread_mutex_lock(&w.mutex);
    while (err == LIM_OK && !w.over) /* the store answers everything, also when it closes */
        (void)lim__cond_wait_until(&w.cond, &w.mutex, UINT64_MAX);
    pthread_mutex_unlock(&w.mutex);
    pthread_cond_destroy(&w.cond);
    if (err == LIM_OK)
        *out = w.receipt;
    return err == LIM_E_CLOSED ? LIM_E_GONE : err;
}

lim_err lim_publish_wait(lim_bus *bus, lim_channel channel, lim_bytes payload, const lim_publish_opts *opts,
                         lim_receipt *out)
{
    if (bus == NULL || out == NULL || !lim__may_block() || (opts != NULL && opts->size != sizeof *opts) ||
        (opts != NULL && opts->on_receipt != NULL) || (payload.len > 0 && payload.ptr == NULL))
        return LIM_E_MISUSE;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim__log *log = lim__log_of_handle(bus, channel);
    if (log == NULL) {
        lim_receipt r = { .durability = LIM_CLASS_MEMORY };
        lim_err err = lim_publish(bus, channel, payload, opts, &r.admission);
        if (err == LIM_OK)
            *out = r;
        return err;
    }
    lim__log_message m;
    lim_err err = message_of(bus, payload, opts, &m);
    if (err == LIM_OK)
        err = publish_and_wait(log, &m, out);
    lim__log_unref(log);
    return err;
}

/* ---- the newest message of a key ---- */

typedef struct found {
    lim_stored_message message;
    uint64_t expires_ns;
    bool ok;
} found;

static bool each_found(void *ctx, const lim__record *r)
{
    found *f = ctx;
    lim__log_record record;
    if (!lim__log_record_read(r->data, &record))
        return false;
    size_t len = r->key.len + record.headers.len + record.payload.len;
    uint8_t *at = malloc(len + 1);
    if (at == NULL)
        return false;
    f->ok = true;
    f->expires_ns = record.expires_wall_ns;
    f->message = (lim_stored_message){ .seq = r->seq, .at_wall_us = r->wall_ns / 1000, .owned = at };
    lim_bytes *parts[] = { &f->message.key, &f->message.headers, &f->message.payload };
    const lim_bytes from[] = { r->key, record.headers, record.payload };
    for (size_t i = 0; i < LIM_COUNT(parts); i++) {
        if (from[i].len > 0)
            memcpy(at, from[i].ptr, from[i].len);
        *parts[i] = lim__bytes(at, from[i].len);
        at += from[i].len;
    }
    return false;
}

lim_err lim__log_get(lim__log *log, lim__store *store, lim_bytes key, lim_stored_message *out)
{
    found f = { 0 };
    uint32_t tries = 0;
    int err;
    if (key.len == 0 || key.len > LIM__LOG_KEY_MAX)
        return LIM_E_INVALID;
    do
        err = lim__store_last(store, log->stream, key, each_found, &f);
    while (lim__read_again(log->bus, err, &tries));
    if (err == -ENOENT)
        return LIM_E_NOTFOUND;
    if (err != 0 || !f.ok)
        return err == 0 ? LIM_E_NOMEM : LIM_E_IO;
    if (f.expires_ns != 0 && f.expires_ns <= log->bus->os->wall_ns(log->bus->os)) {
        lim_stored_fini(&f.message);
        return LIM_E_NOTFOUND;
    }
    *out = f.message;
    return LIM_OK;
}

lim_err lim_channel_get(lim_bus *bus, const char *channel, const char *key, lim_stored_message *out)
{
    lim__log *log;
    if (bus == NULL || channel == NULL || key == NULL || out == NULL || !lim__may_block())
        return LIM_E_MISUSE;
    lim_err err = lim__log_find(bus, lim__str(channel), &log);
    if (err != LIM_OK)
        return err;
    err = lim__log_get(log, lim__durable_store(bus), lim__str(key), out);
    lim__log_unref(log);
    return err;
}

void lim_stored_fini(lim_stored_message *message)
{
    if (message == NULL)
        return;
    free(message->owned);
    *message = (lim_stored_message){ 0 };
}
