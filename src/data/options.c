/* SPDX-License-Identifier: Apache-2.0
 * options.c - options of the C interfaces as a packed block. What is written here, bus/terms.c reads. */
#include "data/options.h"
#include "base/base.h"
#include "data/data.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static lim_err put(lim__buf *block, const char *key, lim_bytes text, lim_diag *diag)
{
    lim_err err = lim__packed_add(block, lim__str(key), text);
    if (err != LIM_OK)
        lim__diag_set(diag, 0, 0, "option %s: %s", key, lim_err_text(err));
    return err;
}

static lim_err put_str(lim__buf *block, const char *key, const char *text, lim_diag *diag)
{
    return text == NULL ? LIM_OK : put(block, key, lim__str(text), diag);
}

static lim_err put_u64(lim__buf *block, const char *key, uint64_t n, lim_diag *diag)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRIu64, n);
    return put(block, key, lim__bytes(text, (size_t)len), diag);
}

/* 0 is the default, and says nothing. */
static lim_err put_some(lim__buf *block, const char *key, uint64_t n, lim_diag *diag)
{
    return n == 0 ? LIM_OK : put_u64(block, key, n, diag);
}

static lim_err put_id(lim__buf *block, const char *key, uint64_t id, lim_diag *diag)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRIx64, id);
    return id == 0 ? LIM_OK : put(block, key, lim__bytes(text, (size_t)len), diag);
}

static lim_err put_ms(lim__buf *block, const char *key, int64_t ms, lim_diag *diag)
{
    if (ms < 0) {
        lim__diag_set(diag, 0, 0, "option %s is negative; give milliseconds from now", key);
        return LIM_E_INVALID;
    }
    return put_some(block, key, (uint64_t)ms, diag);
}

lim_err lim__options_delay(int64_t delay_ms, uint64_t at_wall_us, uint64_t now_wall_us, int64_t *out, lim_diag *diag)
{
    *out = delay_ms;
    if (at_wall_us == 0)
        return LIM_OK;
    if (delay_ms != 0) {
        lim__diag_set(diag, 0, 0, "delay_ms and at_wall_us: give one of them");
        return LIM_E_INVALID;
    }
    uint64_t left_us = at_wall_us > now_wall_us ? at_wall_us - now_wall_us : 0;
    *out = (int64_t)((left_us + 999) / 1000);
    return LIM_OK;
}

static lim_err put_cause(lim__buf *block, const lim_cause *cause, bool trace, lim_diag *diag)
{
    lim_err err = put_id(block, "parent", cause->conv.id, diag);
    if (err == LIM_OK && cause->conv.id != 0)
        err = put_u64(block, "hops", cause->hops + 1u, diag);
    if (err == LIM_OK && cause->traceparent[0] != '\0')
        err = put(block, "traceparent", lim__bytes(cause->traceparent, strnlen(cause->traceparent, 55)), diag);
    if (err == LIM_OK && trace)
        err = put_u64(block, "trace", 1, diag);
    return err;
}

static lim_err put_durable(lim__buf *block, bool durable, lim_diag *diag)
{
    return durable ? put_u64(block, "durable", 1, diag) : LIM_OK;
}

lim_err lim__options_ask(lim__buf *block, const lim_ask_opts *o, bool stream, bool all, lim_diag *diag)
{
    lim_err err = put_cause(block, &o->cause, o->trace, diag);
    if (err == LIM_OK)
        err = put_str(block, "compensate", o->compensate, diag);
    if (err == LIM_OK && stream)
        err = put_u64(block, "window", o->window != 0 ? o->window : 64, diag);
    if (err == LIM_OK && all)
        err = put_u64(block, "quorum", o->quorum, diag);
    if (err == LIM_OK && o->durable && (stream || all)) {
        lim__diag_set(diag, 0, 0, "durable is for asks with one answer; leave it out of streams and asks of everybody");
        return LIM_E_INVALID;
    }
    return err == LIM_OK ? put_durable(block, o->durable, diag) : err;
}

static const char *unique_text(lim_unique unique)
{
    switch (unique) {
    case LIM_UNIQUE_REJECT:
        return "reject";
    case LIM_UNIQUE_REPLACE:
        return "replace";
    case LIM_UNIQUE_JOIN:
        return "join";
    }
    return "?";
}

static lim_err put_priority(lim__buf *block, uint32_t priority, lim_diag *diag)
{
    if (priority > LIM_PRIORITY(9)) {
        lim__diag_set(diag, 0, 0, "priority is over 9; write LIM_PRIORITY(0) to LIM_PRIORITY(9)");
        return LIM_E_INVALID;
    }
    return priority == 0 ? LIM_OK : put_u64(block, "priority", priority - 1, diag);
}

lim_err lim__options_dispatch(lim__buf *block, const lim_dispatch_opts *o, uint64_t now_wall_us, lim_diag *diag)
{
    int64_t delay_ms;
    lim_err err = lim__options_delay(o->delay_ms, o->at_wall_us, now_wall_us, &delay_ms, diag);
    const struct {
        const char *key, *text;
    } texts[] = { { "key", o->key },
                  { "order_key", o->order_key },
                  { "unique_key", o->unique_key },
                  { "idempotency_key", o->idempotency_key },
                  { "on_duplicate", o->on_duplicate != 0 ? unique_text(o->on_duplicate) : NULL } };
    const struct {
        const char *key;
        int64_t ms;
    } times[] = { { "delay_ms", delay_ms },
                  { "start_to_close_ms", o->start_to_close_ms },
                  { "progress_ms", o->progress_ms } };
    if (err == LIM_OK)
        err = put_cause(block, &o->cause, o->trace, diag);
    if (err == LIM_OK)
        err = put_priority(block, o->priority, diag);
    for (size_t i = 0; i < LIM_COUNT(texts) && err == LIM_OK; i++)
        err = put_str(block, texts[i].key, texts[i].text, diag);
    if (err == LIM_OK)
        err = put_some(block, "weight", o->weight, diag);
    for (size_t i = 0; i < LIM_COUNT(times) && err == LIM_OK; i++)
        err = put_ms(block, times[i].key, times[i].ms, diag);
    if (err == LIM_OK)
        err = put_durable(block, o->durable, diag);
    return err == LIM_OK ? put_id(block, "report_to", o->report_to.id, diag) : err;
}

lim_err lim__options_open(lim__buf *block, const lim_conv_opts *o, lim_diag *diag)
{
    if (o->attach.id != 0)
        return put_id(block, "attach", o->attach.id, diag);
    lim_err err = put_cause(block, &o->cause, o->trace, diag);
    if (err == LIM_OK)
        err = put_str(block, "compensate", o->compensate, diag);
    if (err == LIM_OK)
        err = put_str(block, "name", o->name, diag);
    for (size_t i = 0; err == LIM_OK && o->attributes != NULL && o->attributes[i] != NULL; i++)
        err = put_str(block, "attr", o->attributes[i], diag);
    if (err == LIM_OK)
        err = put_durable(block, o->durable, diag);
    return err == LIM_OK ? put_some(block, "inbox_max", o->inbox_max, diag) : err;
}

lim_err lim__options_publish(lim__buf *block, const lim_publish_opts *o, uint64_t now_wall_us, lim_diag *diag)
{
    int64_t delay_ms;
    lim_err err = lim__options_delay(o->delay_ms, o->at_wall_us, now_wall_us, &delay_ms, diag);
    if (err == LIM_OK)
        err = put_str(block, "key", o->key, diag);
    if (err == LIM_OK)
        err = put_str(block, "idempotency_key", o->idempotency_key, diag);
    if (err == LIM_OK)
        err = put_ms(block, "expires_ms", o->expires_ms, diag);
    if (err == LIM_OK)
        err = put_ms(block, "delay_ms", delay_ms, diag);
    return err == LIM_OK && o->expect_last ? put_u64(block, "expect_last", o->last, diag) : err;
}

lim_err lim__options_join(lim__buf *block, bool required)
{
    return required ? put_u64(block, "required", 1, NULL) : LIM_OK;
}

static lim_err put_from(lim__buf *block, const lim_read_opts *o, lim_diag *diag)
{
    char text[40];
    switch (o->from) {
    case LIM_FROM_NEW:
        return put_str(block, "from", "new", diag);
    case LIM_FROM_ALL:
        return put_str(block, "from", "all", diag);
    case LIM_FROM_SEQ:
    case LIM_FROM_TIME:
        snprintf(text, sizeof text, "%s:%" PRIu64, o->from == LIM_FROM_SEQ ? "seq" : "time", o->start);
        return put_str(block, "from", text, diag);
    }
    return LIM_OK;
}

lim_err lim__options_subscribe(lim__buf *block, const lim_read_opts *o, bool pull, lim_diag *diag)
{
    const struct {
        const char *key;
        bool set;
    } flags[] = {
        { "shared", o->shared }, { "standby", o->standby }, { "last_per_key", o->last_per_key }, { "pull", pull }
    };
    lim_err err = put_from(block, o, diag);
    if (err == LIM_OK)
        err = put_str(block, "cursor", o->cursor, diag);
    if (err == LIM_OK)
        err = put_ms(block, "ack_ms", o->ack_ms, diag);
    if (err == LIM_OK)
        err = put_some(block, "deliveries_max", o->deliveries_max, diag);
    if (err == LIM_OK)
        err = put_str(block, "dead_letter", o->dead_letter, diag);
    for (size_t i = 0; i < LIM_COUNT(flags) && err == LIM_OK; i++)
        err = flags[i].set ? put_u64(block, flags[i].key, 1, diag) : LIM_OK;
    return err;
}

/* ---- what a child inherits ---- */

void lim_cause_of(const lim_delivery *d, lim_cause *out)
{
    lim_bytes trace;
    *out = (lim_cause){ .conv = d->conv, .hops = d->hops, .remaining_ms = d->remaining_ms };
    if (d->conv.id == 0 || d->event != LIM_EVENT_NONE)
        out->remaining_ms = 0; /* nobody waits for an answer to it */
    else if (out->remaining_ms == 0)
        out->remaining_ms = 1; /* its time is up, and 0 would be no limit */
    if (d->msg != NULL &&
        lim__packed_get(lim__msg_headers((const lim__msg *)d->msg), lim__str("traceparent"), &trace) &&
        trace.len < sizeof out->traceparent)
        memcpy(out->traceparent, trace.ptr, trace.len);
}

int64_t lim__options_timeout(int64_t timeout_ms, const lim_cause *cause)
{
    return cause->remaining_ms > 0 && cause->remaining_ms < timeout_ms ? cause->remaining_ms : timeout_ms;
}

const char *lim__in_namespace(const char *ns, const char *name, char room[256])
{
    static const char before[] = "aion.dispatch.";
    if (ns == NULL || ns[0] == '\0' || name == NULL)
        return name;
    if (name[0] == '\0' || strchr(ns, '.') != NULL || strchr(name, '.') != NULL ||
        sizeof before + strlen(ns) + strlen(name) + 1 > 256)
        return NULL;
    snprintf(room, 256, "%s%s.%s", before, ns, name);
    return room;
}
