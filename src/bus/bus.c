/* SPDX-License-Identifier: Apache-2.0
 * bus.c - opening, draining and closing a bus; its log; counting.
 *
 * A bus is a runtime with some processes of its own: an agent per scheduler, and the participant behind the $sys
 * groups, all under one supervisor's eye. `closing` is 0 while open, 1 while draining (no new work), 2 while ending. */
#include "bus/bus.h"
#include "base/base.h"
#include "bus/agent.h"
#include "bus/letters.h"
#include "bus/box.h"
#include "bus/durable.h"
#include "bus/ended.h"
#include "bus/held.h"
#include "bus/history.h"
#include "bus/log_inside.h"
#include "bus/reader.h"
#include "bus/saga.h"
#include "bus/schedule.h"
#include "bus/talk_over.h"
#include "bus/slot.h"
#include "route/native.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAYLOAD_MAX = 1 << 20, PAYLOAD_LIMIT = 1 << 28 };

static void bus_free(lim_bus *bus)
{
    lim__channels_close(bus->channels);
    lim__schedules_free(bus->schedules); /* fires on their way know their logs */
    lim__logs_free(bus->logs);
    lim__groups_free(bus->groups);
    lim__artifacts_free(bus->artifacts);
    lim__ended_free(bus->ended);
    lim__histories_free(bus->histories);
    lim__boxes_free(bus->boxes);
    lim__held_free(bus->held);
    lim__sagas_free(bus->sagas);
    lim__slot_rows_free(bus->slot_rows);
    lim__over_free(bus->over);
    lim__aliases_free(bus->aliases);
    lim__readers_free(bus->readers);
    bus->readers = NULL; /* commits that end with the store ask for it */
    lim__kept_free(bus->kept);
    lim__durable_free(bus);
    lim__native_close(bus->native);
    free(bus->system);
    free(bus);
}

static lim_err open_parts(lim_bus *bus)
{
    lim_err err = lim__channels_open(bus->rt, &bus->channels);
    bus->groups = lim__groups_new(bus->os->random(bus->os));
    bus->artifacts = lim__artifacts_new();
    bus->ended = lim__ended_new();
    bus->histories = lim__histories_new(bus->os->random(bus->os));
    bus->boxes = lim__boxes_new(bus->os->random(bus->os));
    bus->held = lim__held_new(bus->os->random(bus->os));
    bus->system = lim__system_new();
    bus->schedules = lim__schedules_new(bus->os->random(bus->os));
    bus->sagas = lim__sagas_new();
    bus->slot_rows = lim__slot_rows_new(bus->os->random(bus->os));
    bus->aliases = lim__aliases_new(bus->os->random(bus->os));
    bus->over = lim__over_new();
    bus->readers = lim__readers_new(bus->os->random(bus->os));
    bus->kept = lim__kept_new(bus->os->random(bus->os));
    if (err == LIM_OK && (bus->groups == NULL || bus->artifacts == NULL || bus->ended == NULL ||
                          bus->histories == NULL || bus->boxes == NULL || bus->held == NULL || bus->system == NULL ||
                          bus->schedules == NULL || bus->sagas == NULL || bus->aliases == NULL || bus->over == NULL ||
                          bus->readers == NULL || bus->kept == NULL || bus->slot_rows == NULL))
        err = LIM_E_NOMEM;
    for (uint32_t i = 0; i < LIM_COUNT(bus->convs); i++)
        lim__list_init(&bus->convs[i]);
    for (uint32_t i = 0; err == LIM_OK && i < lim__sched_count(bus->rt); i++)
        err = lim__agent_open(bus, i, &bus->agents[i]);
    return err == LIM_OK ? lim__system_open(bus) : err;
}

/* A handler of the host's that kept its scheduler: everybody on it had to wait. */
static void log_overrun(void *ctx, const lim_overrun *o)
{
    if (o->output_bytes > 0)
        lim__bus_log(ctx, "event=overrun process=%s pid=%" PRIx64 " output_bytes=%" PRIu64, o->name, o->pid.id,
                     o->output_bytes);
    else
        lim__bus_log(ctx, "event=overrun process=%s pid=%" PRIx64 " took_us=%" PRIu64, o->name, o->pid.id,
                     o->took_ns / 1000);
}

static lim_err open_native(lim_bus *bus)
{
    lim_diag unread = { 0 }, *diag = bus->opts.diag != NULL ? bus->opts.diag : &unread;
    const lim__native_opts opts = { .rt = bus->rt, .helper = bus->opts.native_helper };
    lim_err err = lim__native_open(&opts, diag, &bus->native);
    if (err != LIM_OK)
        lim__bus_log(bus, "event=native_engine refused=\"%s\"", diag->text);
    return err;
}

static lim_err open_data(lim_bus *bus, bool threads)
{
    lim_diag unread;
    lim_diag *diag = bus->opts.diag != NULL ? bus->opts.diag : &unread;
    lim_err err = lim__durable_open(bus, threads, diag);
    return err == LIM_OK ? lim__durable_restore(bus, diag) : err;
}

static bool node_ok(const char *node)
{
    return node == NULL || (node[0] != '\0' && strlen(node) <= 255 && lim__text_ok(lim__str(node)));
}

lim_err lim__bus_open(const lim_bus_opts *opts, const lim__runtime_opts *runtime, lim_bus **out)
{
    if (opts == NULL || opts->size < sizeof *opts || opts->scheduler_count == 0 || opts->scheduler_count > 63 ||
        opts->payload_bytes_max > PAYLOAD_LIMIT || !node_ok(opts->node))
        return LIM_E_MISUSE;
    lim_bus *bus = calloc(1, sizeof *bus);
    if (bus == NULL)
        return LIM_E_NOMEM;
    bus->opts = *opts;
    snprintf(bus->node, sizeof bus->node, "%s", opts->node != NULL ? opts->node : "local");
    bus->opts.node = bus->node;
    if (bus->opts.payload_bytes_max == 0)
        bus->opts.payload_bytes_max = PAYLOAD_MAX;
    lim__runtime_opts watched = *runtime;
    watched.on_overrun = log_overrun;
    watched.ctx = bus;
    lim_err err = lim__runtime_open(&watched, &bus->rt);
    if (err != LIM_OK) {
        free(bus);
        return err;
    }
    bus->os = lim__runtime_os(bus->rt);
    bus->opened_ns = bus->os->now_ns(bus->os);
    bus->opened_wall_ns = bus->os->wall_ns(bus->os);
    err = open_parts(bus);
    if (err == LIM_OK && runtime->threads)
        err = lim__system_await(bus);
    if (err == LIM_OK && opts->native_engine)
        err = open_native(bus);
    if (err == LIM_OK && opts->data_dir != NULL)
        err = open_data(bus, runtime->threads);
    if (err != LIM_OK) {
        atomic_store(&bus->closing, 2);
        lim__durable_stop(bus);
        lim_runtime_close(bus->rt);
        bus_free(bus);
        return err;
    }
    *out = bus;
    return LIM_OK;
}

lim_err lim_bus_open(const lim_bus_opts *opts, lim_bus **out)
{
    if (!lim__may_block() || opts == NULL || opts->size < sizeof *opts)
        return LIM_E_MISUSE;
    lim__runtime_opts runtime = { .os = lim__os_linux(),
                                  .scheduler_count = opts->scheduler_count,
                                  .threads = true,
                                  .spin_us = opts->spin_us,
                                  .blocking_max = opts->blocking_max };
    return lim__bus_open(opts, &runtime, out);
}

static uint64_t conversations(lim_bus *bus)
{
    uint64_t n = atomic_load(&bus->conv_hosted);
    for (uint32_t i = 0; i < lim__sched_count(bus->rt); i++)
        n += atomic_load(&bus->conv_count[i]); /* after `closing` was set: who is not in them yet will see that */
    return n;
}

/* Once `closing` is set: whoever is not seen here will see that. In this order: one that enters is counted before it is
 * no longer entering. */
static bool drained(lim_bus *bus)
{
    return atomic_load(&bus->conv_entering) == 0 && conversations(bus) == 0;
}

lim_err lim_bus_drain(lim_bus *bus, int64_t timeout_ms)
{
    if (!lim__may_block() || timeout_ms < 0)
        return LIM_E_MISUSE;
    lim__mutex mutex = LIM__MUTEX_INIT;
    lim__cond cond;
    lim__cond_init(&cond);
    uint64_t start = bus->os->now_ns(bus->os), pause = 1000000;
    bool ever = (uint64_t)timeout_ms > (UINT64_MAX - start) / 1000000; /* as good as LIM_FOREVER */
    uint64_t end = ever ? UINT64_MAX : start + (uint64_t)timeout_ms * 1000000;
    atomic_store(&bus->closing, 1);
    pthread_mutex_lock(&mutex);
    bool done = drained(bus);
    while (!done && bus->os->now_ns(bus->os) < end) {
        (void)lim__cond_wait_until(&cond, &mutex, bus->os->now_ns(bus->os) + pause);
        done = drained(bus);
    }
    pthread_mutex_unlock(&mutex);
    pthread_cond_destroy(&cond);
    return done ? LIM_OK : LIM_E_TIMEOUT;
}

void lim_bus_close(lim_bus *bus)
{
    if (bus == NULL)
        return;
    LIM_ASSERT(lim__may_block());
    atomic_store(&bus->closing, 2);
    lim__durable_stop(bus);
    lim_runtime_close(bus->rt); /* agents tell who still waits: closed */
    bus_free(bus);
}

void lim__bus_log(lim_bus *bus, const char *format, ...)
{
    char line[512];
    va_list args;
    if (bus->opts.on_log == NULL)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    bus->opts.on_log(bus->opts.log_ctx, line);
}

void lim_bus_census_take(lim_bus *bus, lim_bus_census *out)
{
    *out = (lim_bus_census){ 0 };
    lim_runtime_census(bus->rt, &out->runtime);
    lim__channels_count(bus->channels, &out->channels, &out->subscriptions, &out->messages_kept);
    out->groups = lim__groups_list(bus, lim__bytes(NULL, 0), NULL, 0);
    out->conversations = conversations(bus);
    out->artifacts = lim__artifacts_count(bus->artifacts);
}

lim_msg *lim_msg_ref(lim_msg *msg)
{
    return (lim_msg *)lim__msg_ref((lim__msg *)msg);
}

void lim_msg_unref(lim_msg *msg)
{
    lim__msg_unref((lim__msg *)msg);
}

lim_bytes lim_msg_payload(const lim_msg *msg)
{
    return lim__msg_bytes((const lim__msg *)msg);
}
