/* SPDX-License-Identifier: Apache-2.0
 * log_lot.c - many messages of one publisher on their way into a durable channel as one step.
 *
 *      begin --add, add ...--> publish --one batch--> store --+-- COMMITTED: a block for the tail, one receipt for all
 *                                                             `-- anything else: the same refusal for all
 *
 * What costs something per message otherwise (a batch, its place in queues, locks, a message in memory, an answer) is
 * paid once. So only plain messages come here: what needs rows or an expectation, and channels that refuse what is
 * beyond a limit, go one by one (log_publish.c).
 *
 * Invariants:
 *   B1  a lot that was taken is answered once.
 *   B2  everything that landing needs was there before it was handed over: the block is made first. */
#include "bus/log_inside.h"

#include <stdlib.h>

/* While one is being synced the next is decoded: a window of a thousand should be more than one. */
enum { LOT_BYTES_MAX = 128 << 10 };

typedef struct shipment { /* a lot, until it is answered */
    lim__log *log;        /* the lot's reference */
    lim__on_logged *on_logged;
    void *ctx;
    lim__log_block *block;
    uint32_t count;
    uint64_t bytes, trimmed;
} shipment;

/* It must fit into a segment, and should not be half of one. */
static size_t bytes_max(const lim_bus *bus)
{
    uint64_t segment = bus->opts.data_segment_bytes;
    return segment != 0 && segment / 4 < LOT_BYTES_MAX ? (size_t)(segment / 4) : LOT_BYTES_MAX;
}

static bool takes_lots(lim__log *log)
{
    lim__lock(&log->lock);
    const lim__log_opts *o = &log->opts;
    bool limited = o->overflow == LIM_OVERFLOW_REJECT && (o->count_max > 0 || o->bytes_max > 0);
    bool takes = log->state == LIM__LOG_OPEN && !limited;
    lim__unlock(&log->lock);
    return takes;
}

bool lim__log_lot_begin(lim__log *log, size_t bytes, lim__log_lot *out)
{
    *out = (lim__log_lot){ .bytes_max = bytes_max(log->bus) };
    if (!takes_lots(log) || (out->batch = lim__batch_new()) == NULL)
        return false;
    lim__batch_reserve(out->batch, bytes < out->bytes_max ? bytes : out->bytes_max);
    out->log = lim__log_ref(log);
    return true;
}

bool lim__log_lot_add(lim__log_lot *lot, lim_bytes headers, lim_bytes payload)
{
    uint8_t head[LIM__LOG_RECORD_HEAD];
    lim__log_message m = { .headers = headers };
    size_t bytes = LIM__LOG_RECORD_HEAD + headers.len + payload.len;
    if (lot->count > 0 && lim__batch_bytes(lot->batch) + bytes > lot->bytes_max)
        return false;
    lim_bytes parts[3] = { { head, lim__log_record_head(head, &m, 0) }, headers, payload };
    lim__batch_append(lot->batch, lot->log->stream, lim__bytes(NULL, 0), parts, 3);
    lot->bytes += bytes;
    lot->count++;
    return true;
}

void lim__log_lot_drop(lim__log_lot *lot)
{
    lim__batch_free(lot->batch);
    lim__log_unref(lot->log);
    *lot = (lim__log_lot){ 0 };
}

/* ---- what becomes of it ---- */

static void landed(shipment *p)
{
    lim__log *log = p->log;
    lim__lock(&log->lock);
    log->flying -= p->count;
    log->flying_bytes -= p->bytes;
    lim__unlock(&log->lock);
}

static void shipment_free(shipment *p)
{
    lim__log_block_unref(p->block);
    lim__log_unref(p->log);
    free(p);
}

static void on_done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    shipment *p = ctx;
    lim_receipt r = { .admission = { .verdict = LIM_ACCEPT } };
    const char *detail = "";
    landed(p);
    if (what->how == LIM__COMMITTED) {
        lim__log_block_stored(p->block, batch, what->first_ns);
        r.durability = (lim_class)what->class;
        r.at_wall_us = what->first_ns / 1000;
        r.seq = p->block->first;
        lim__log_land_block(p->log, p->block, p->bytes, p->trimmed, &r.admission);
    } else {
        detail = lim__log_not_stored(what, &r);
        lim__batch_free(batch);
    }
    p->on_logged(p->ctx, &r, detail);
    shipment_free(p);
}

/* ---- publishing ---- */

/* What can be forgotten in the same step, when it is known without looking: as for a single one. */
static uint64_t to_trim(const lim__log *log, uint32_t count)
{
    const lim__log_opts *o = &log->opts;
    bool whole = log->count == log->last + 1 - log->first;
    if (o->overflow != LIM_OVERFLOW_DROP_OLDEST || o->count_max == 0 || o->bytes_max > 0 || o->latest || !whole ||
        log->count + count <= o->count_max)
        return 0;
    return log->last + 1 + count - o->count_max;
}

static lim_err reserve(shipment *p, lim__batch *batch)
{
    lim__log *log = p->log;
    lim__lock(&log->lock);
    bool gone = log->state != LIM__LOG_OPEN;
    if (!gone) {
        p->trimmed = to_trim(log, p->count);
        lim__batch_sync(batch, lim__log_sync_locked(log));
        log->flying += p->count;
        log->flying_bytes += p->bytes;
    }
    lim__unlock(&log->lock);
    if (!gone && p->trimmed != 0)
        lim__batch_trim(batch, log->stream, p->trimmed);
    lim__batch_fit(batch); /* it will be kept */
    return gone ? LIM_E_CLOSED : LIM_OK;
}

lim_err lim__log_lot_publish(lim__log_lot *lot, lim__on_logged *on_logged, void *ctx)
{
    shipment *p = malloc(sizeof *p);
    lim__log_block *block = p != NULL ? lim__log_block_new() : NULL;
    lim_bus *bus = lot->log->bus;
    LIM_ASSERT(lot->count > 0);
    if (block == NULL) {
        free(p);
        lim__log_lot_drop(lot);
        return LIM_E_NOMEM;
    }
    *p = (shipment){ lot->log, on_logged, ctx, block, lot->count, lot->bytes, 0 };
    lim__batch *batch = lot->batch;
    *lot = (lim__log_lot){ 0 };
    lim_err err = reserve(p, batch);
    if (err != LIM_OK) {
        lim__batch_free(batch);
    } else if ((err = lim__durable_submit(bus, batch, on_done, p)) != LIM_OK) {
        landed(p);
    }
    if (err != LIM_OK)
        shipment_free(p);
    return err;
}
