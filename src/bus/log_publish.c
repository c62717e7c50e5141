/* SPDX-License-Identifier: Apache-2.0
 * log_publish.c - a message on its way into a durable channel, and its receipt.
 *
 *      publish --limits--> REJECT at once
 *          |
 *          `--batch{ expect no receipt of this key; record; receipt }--> store --+-- COMMITTED: everybody, then ACCEPT
 *                                                                                +-- CONFLICT: the receipt of the first
 *                                                                                `-- FULL, FAILED: REJECT, nothing is
 * kept
 *
 * Whether a key was seen is decided by the store, in the order of the log: a duplicate that arrives while the first one
 * is on its way stands behind it, and so is told its receipt when that exists. Record and receipt are one step: a
 * receipt without its message, or a key that is taken by nothing, cannot be (XO1, PR2).
 *
 * A window that is full does not know by itself whether a key is in it: such a publish is sent with an expectation that
 * cannot hold behind the first one. It writes nothing, and the conflict tells which of the two it was. */
#include "bus/log_inside.h"

#include <stdlib.h>

typedef enum course { COURSE_NOW = 1, COURSE_LATER, COURSE_LOOK } course; /* LOOK: the window is full */

typedef struct publication { /* until it is answered */
    lim__log *log;
    lim__on_logged *on_logged;
    void *ctx;
    uint64_t bytes, due_ns, erased, trimmed;
    course course;
    lim__sync sync;
    bool keyed;
    uint8_t key_index, last_index, row_index; /* of its expectations; NOT_EXPECTED */
    lim__log_receipt found;
    lim_bytes key; /* keyed: behind the struct */
} publication;
enum { NOT_EXPECTED = 255 };

/* ---- refusing ---- */

static void refuse(lim_admission *out, lim_why why, uint64_t limit, uint64_t current)
{
    *out = (lim_admission){ .verdict = LIM_REJECT,
                            .why = why,
                            .limit = limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX,
                            .current = current < UINT32_MAX ? (uint32_t)current : UINT32_MAX,
                            .retry_after_ms = LIM__RETRY_FULL_MS };
}

/* Bytes are told in KiB: a limit of a channel may be larger than 32 bits. */
static bool has_room(const lim__log *log, uint64_t bytes, lim_admission *out)
{
    const lim__log_opts *o = &log->opts;
    uint64_t count = log->count + log->flying, sum = log->bytes + log->flying_bytes;
    if (o->overflow != LIM_OVERFLOW_REJECT)
        return true;
    if (o->count_max > 0 && count >= o->count_max)
        refuse(out, LIM_WHY_CHANNEL_FULL, o->count_max, count);
    else if (o->bytes_max > 0 && sum + bytes > o->bytes_max)
        refuse(out, LIM_WHY_CHANNEL_FULL, (o->bytes_max + 1023) / 1024, (sum + 1023) / 1024);
    return out->verdict == LIM_ACCEPT;
}

/* ---- what becomes of it ---- */

static void end(publication *p, const lim_receipt *r, const char *detail)
{
    if (p->on_logged != NULL)
        p->on_logged(p->ctx, r, detail);
    lim__log_unref(p->log);
    free(p);
}

static void landed(publication *p)
{
    lim__log *log = p->log;
    lim__lock(&log->lock);
    log->flying--;
    log->flying_bytes -= p->bytes;
    log->flying_keys -= p->keyed;
    log->flying_key_bytes -= p->keyed ? p->key.len + LIM__WINDOW_ROW : 0;
    lim__unlock(&log->lock);
}

static void forget_batch(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what;
    lim__batch_free(batch);
}

/* A duplicate starts the time of its key anew. If it cannot be stored the key is forgotten as if it had not come. */
static void touch(publication *p, lim_bytes found, uint64_t now_ns)
{
    lim__log *log = p->log;
    lim__batch *b = lim__batch_new();
    uint8_t row[8 + LIM__LOG_KEY_MAX], value[LIM__RECEIPT_BYTES];
    if (b == NULL || found.len != sizeof value || p->found.touched_ns + log->opts.window_ns / 16 >= now_ns) {
        lim__batch_free(b);
        return;
    }
    lim_bytes key = lim__log_row_key(row, log->stream, p->key);
    memcpy(value, found.ptr, sizeof value);
    (void)lim__log_receipt_write(value, now_ns, p->found.due_ns);
    lim__batch_expect(b, LIM__TABLE_RECEIPTS, key, found);
    lim__batch_put(b, LIM__TABLE_RECEIPTS, key, lim__bytes(value, sizeof value));
    lim__batch_sync(b, LIM__SYNC_NEVER);
    if (lim__durable_submit(log->bus, b, forget_batch, NULL) != LIM_OK)
        return;
    lim__lock(&log->lock);
    lim__window_add(log, p->key, now_ns);
    lim__unlock(&log->lock);
}

static const char *keys_full(lim__log *log, lim_receipt *r)
{
    lim__lock(&log->lock);
    bool keys = log->window_count + log->flying_keys >= log->opts.window_keys;
    if (keys)
        refuse(&r->admission, LIM_WHY_KEYS_FULL, log->opts.window_keys, log->window_count);
    else
        refuse(&r->admission, LIM_WHY_KEYS_FULL, log->opts.window_bytes, log->window_size);
    lim__unlock(&log->lock);
    return keys ? "as many idempotency keys are remembered as the window holds"
                : "the idempotency keys that are remembered fill the window's bytes";
}

static const char *conflict(publication *p, const lim__committed *what, lim_receipt *r)
{
    lim__log *log = p->log;
    if (what->conflict == p->row_index) {
        refuse(&r->admission, LIM_WHY_UNKNOWN_CHANNEL, 0, 0);
        return "the channel could not be stored";
    }
    if (what->conflict == p->last_index && p->last_index != NOT_EXPECTED) {
        uint64_t last = 0;
        memcpy(&last, what->found.ptr, what->found.len < 8 ? what->found.len : 8);
        refuse(&r->admission, LIM_WHY_EXPECTED, 0, last);
        r->admission.retry_after_ms = 0;
        return "the channel's last number is another one";
    }
    if (what->conflict != p->key_index || !lim__log_receipt_read(what->found, &p->found)) {
        return keys_full(log, r);
    }
    r->duplicate = true;
    r->seq = p->found.seq;
    r->at_wall_us = p->found.wall_ns / 1000;
    r->delayed = r->seq == 0;
    r->due_wall_us = r->delayed ? p->found.due_ns / 1000 : 0;
    r->durability = (lim_class)what->class;
    lim__lock(&log->lock);
    bool slides = log->opts.window_slides;
    lim__unlock(&log->lock);
    if (slides)
        touch(p, what->found, log->bus->os->wall_ns(log->bus->os));
    return "";
}

const char *lim__log_not_stored(const lim__committed *what, lim_receipt *r)
{
    lim_admission *a = &r->admission;
    switch (what->how) {
    case LIM__COMMIT_FULL:
        refuse(a, LIM_WHY_DISK_FULL, what->limit >> 20, what->current >> 20);
        return "the disk has no room";
    case LIM__COMMIT_FAILED:
        refuse(a, LIM_WHY_DISK_FAULT, 0, 0);
        return "the disk failed; it is not stored";
    case LIM__COMMIT_CLOSED:
        refuse(a, LIM_WHY_CLOSING, 0, 0);
        return "the bus is closing";
    case LIM__COMMIT_UNKNOWN:
        refuse(a, LIM_WHY_NONE, 0, 0);
        return "the disk failed in the middle: nobody knows whether it is stored; an idempotency key makes it safe to "
               "publish again";
    case LIM__COMMITTED:
    case LIM__COMMIT_CONFLICT:
        break;
    }
    (void)LIM_NEVER(true);
    return "";
}

/* The message is in the log, or a row says when it is to be. */
static void stored(publication *p, lim__batch *batch, const lim__committed *what, lim_receipt *r)
{
    lim__log *log = p->log;
    r->durability = (lim_class)what->class;
    r->at_wall_us = what->first_ns / 1000;
    if (p->course == COURSE_NOW) {
        lim__log_stored s = { .erased = p->erased, .trimmed = p->trimmed };
        lim__log_stored_read(batch, 0, what, &s);
        r->seq = s.logged.seq;
        lim__log_land(log, &s, &r->admission);
        lim__msg_unref(s.logged.msg);
        return;
    }
    r->delayed = true;
    r->due_wall_us = p->due_ns / 1000;
    lim__lock(&log->lock);
    if (p->keyed) {
        lim__window_add(log, p->key, what->first_ns);
        log->window_count++;
        log->window_size += p->key.len + LIM__WINDOW_ROW;
    }
    if (p->due_ns < log->delayed_ns)
        log->delayed_ns = p->due_ns;
    lim__unlock(&log->lock);
    lim__log_want(log, p->due_ns);
}

static void on_done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    publication *p = ctx;
    lim_receipt r = { .admission = { .verdict = LIM_ACCEPT } };
    const char *detail = "";
    landed(p);
    if (what->how == LIM__COMMITTED)
        stored(p, batch, what, &r);
    else if (what->how == LIM__COMMIT_CONFLICT)
        detail = conflict(p, what, &r);
    else
        detail = lim__log_not_stored(what, &r);
    lim__batch_free(batch);
    end(p, &r, detail);
}

/* ---- the batch ---- */

static void add_record(lim__log *log, lim__batch *b, const lim__log_message *m, uint64_t expires_ns)
{
    uint8_t head[LIM__LOG_RECORD_HEAD + 1 + LIM__LOG_KEY_MAX];
    lim_bytes parts[3] = { { head, lim__log_record_head(head, m, expires_ns) }, m->headers, m->payload };
    lim__batch_append(b, log->stream, m->key, parts, 3);
}

/* So that it is found when its time is over, wherever it stands then. */
static void add_expiring(lim__log *log, lim__batch *b, uint64_t expires_ns)
{
    uint8_t at[24], version = 1;
    uint64_t number = atomic_fetch_add_explicit(&log->bus->logs->next_number, 1, memory_order_relaxed);
    lim__batch_put_seq(b, LIM__TABLE_EXPIRING, lim__log_due_key(at, log->stream, expires_ns, number),
                       lim__bytes(&version, 1), lim__batch_appends(b) - 1);
}

/* due_ns: it is for later, and has no record yet; 0: the newest append is its record. */
static void add_receipt(lim__log *log, lim__batch *b, const lim__log_message *m, uint64_t due_ns, uint64_t wall_ns)
{
    uint8_t row[8 + LIM__LOG_KEY_MAX], value[LIM__RECEIPT_BYTES] = { 0 };
    lim_bytes key = lim__log_row_key(row, log->stream, m->idempotency_key);
    lim_bytes begun = lim__log_receipt_write(value, 0, due_ns);
    if (due_ns == 0) {
        lim__batch_put_seq(b, LIM__TABLE_RECEIPTS, key, begun, lim__batch_appends(b) - 1);
        return;
    }
    for (int i = 0; i < 8; i++)
        value[LIM__RECEIPT_BYTES - 8 + i] = (uint8_t)(wall_ns >> (8 * i));
    lim__batch_put(b, LIM__TABLE_RECEIPTS, key, lim__bytes(value, sizeof value));
}

static void add_delayed(lim__log *log, lim__batch *b, const lim__log_message *m, uint64_t due_ns, uint64_t expires_ns)
{
    uint8_t at[24], head[LIM__LOG_RECORD_HEAD + 1 + LIM__LOG_KEY_MAX];
    uint64_t number = atomic_fetch_add_explicit(&log->bus->logs->next_number, 1, memory_order_relaxed);
    lim__log_message plain = *m; /* its receipt is there already */
    plain.idempotency_key = lim__bytes(NULL, 0);
    lim__buf value = { 0 };
    lim__pack_u8(&value, 1);
    lim__pack_bytes(&value, m->key);
    lim__pack_bytes(&value, m->idempotency_key);
    lim__buf_add(&value, head, lim__log_record_head(head, &plain, expires_ns));
    lim__buf_add(&value, m->headers.ptr, m->headers.len);
    lim__buf_add(&value, m->payload.ptr, m->payload.len);
    if (!value.failed)
        lim__batch_put(b, LIM__TABLE_DELAYED, lim__log_due_key(at, log->stream, due_ns, number),
                       lim__buf_bytes(&value));
    else
        lim__batch_append(b, log->stream, lim__bytes("", UINT16_MAX), NULL, 0); /* it is refused as a whole */
    lim__buf_fini(&value);
}

static void expect_no_receipt(lim__log *log, lim__batch *b, lim_bytes key)
{
    uint8_t row[8 + LIM__LOG_KEY_MAX];
    lim__batch_expect(b, LIM__TABLE_RECEIPTS, lim__log_row_key(row, log->stream, key), lim__bytes(NULL, 0));
}

/* The row of the format is there, and it is longer than this. */
static void expect_the_impossible(lim__batch *b)
{
    lim__batch_expect(b, LIM__TABLE_META, lim__str("format"), lim__bytes("", 0));
}

static void add_expectations(publication *p, lim__batch *b, const lim__log_message *m, lim_bytes row)
{
    uint8_t n = 0;
    p->key_index = p->last_index = p->row_index = NOT_EXPECTED;
    if (row.len > 0) {
        lim__batch_expect(b, LIM__TABLE_CHANNELS, lim__name_bytes(p->log->name), row);
        p->row_index = n++;
    }
    if (p->keyed) {
        expect_no_receipt(p->log, b, m->idempotency_key);
        p->key_index = n++;
    }
    if (p->course == COURSE_LOOK)
        expect_the_impossible(b);
    else if (m->expect_last) {
        lim__batch_expect_last(b, p->log->stream, m->last);
        p->last_index = n;
    }
}

static void fill(publication *p, lim__batch *b, const lim__log_message *m)
{
    lim__log *log = p->log;
    uint64_t now = log->bus->os->wall_ns(log->bus->os);
    uint64_t expires = m->expires_ms > 0 ? now + (uint64_t)m->expires_ms * 1000000 : 0;
    if (p->course == COURSE_LATER) {
        p->due_ns = now + (uint64_t)m->delay_ms * 1000000;
        add_delayed(log, b, m, p->due_ns, expires);
    } else {
        add_record(log, b, m, expires);
        if (expires != 0)
            add_expiring(log, b, expires);
        if (p->erased != 0)
            lim__batch_erase(b, log->stream, p->erased);
        if (p->trimmed != 0)
            lim__batch_trim(b, log->stream, p->trimmed);
    }
    if (p->keyed)
        add_receipt(log, b, m, p->course == COURSE_NOW ? 0 : p->due_ns, now);
}

/* ---- publishing ---- */

/* What can be forgotten in the same step, when it is known without looking. */
static void plan_upkeep(publication *p, const lim__log *log, const lim__log_message *m)
{
    const lim__log_opts *o = &log->opts;
    bool whole = log->count == log->last + 1 - log->first; /* no holes */
    lim__log_key *k = o->latest && m->key.len > 0 ? lim__smap_get(&log->keys, m->key) : NULL;
    if (k != NULL)
        p->erased = k->seq;
    if (o->count_max > 0 && o->overflow == LIM_OVERFLOW_DROP_OLDEST && o->bytes_max == 0 && !o->latest && whole &&
        log->count >= o->count_max)
        p->trimmed = log->last + 2 - o->count_max;
}

lim__sync lim__log_sync_locked(const lim__log *log)
{
    lim_sync sync = log->opts.sync;
    return sync != 0 ? (lim__sync)sync : lim__durable_sync(log->bus);
}

/* Under the lock: may it go? ACCEPT: everything is reserved. */
static lim_err reserve_locked(publication *p, const lim__log_message *m, lim_admission *out, lim__buf *row)
{
    lim__log *log = p->log;
    if (log->state == LIM__LOG_GONE)
        return LIM_E_CLOSED;
    if (log->state == LIM__LOG_DAMAGED) {
        refuse(out, LIM_WHY_DISK_FAULT, 0, 0);
        return LIM_OK;
    }
    if (!has_room(log, p->bytes, out))
        return LIM_OK;
    p->course = m->delay_ms > 0 ? COURSE_LATER : COURSE_NOW;
    if (p->keyed && !log->opts.window_forgets && lim__window_full(log, p->key.len))
        p->course = COURSE_LOOK;
    if (p->course == COURSE_NOW)
        plan_upkeep(p, log, m);
    if (log->state == LIM__LOG_CREATING)
        lim__buf_add(row, lim__buf_bytes(&log->row).ptr, lim__buf_len(&log->row));
    if (row->failed)
        return LIM_E_NOMEM;
    p->sync = lim__log_sync_locked(log);
    log->flying++;
    log->flying_bytes += p->bytes;
    log->flying_keys += p->keyed;
    log->flying_key_bytes += p->keyed ? p->key.len + LIM__WINDOW_ROW : 0;
    return LIM_OK;
}

static bool anybody(lim__log *log)
{
    lim__lock(&log->lock);
    uint32_t seats = log->seat_count;
    lim__unlock(&log->lock);
    lim__channels *all = log->bus->channels;
    return seats > 0 || lim__channels_live(all, lim__name_bytes(log->name)) > 0;
}

static publication *publication_new(lim__log *log, const lim__log_message *m, lim__on_logged *on_logged, void *ctx)
{
    size_t keep = m->idempotency_key.len;
    publication *p = malloc(sizeof *p + keep);
    if (p == NULL)
        return NULL;
    *p = (publication){ .log = lim__log_ref(log), .on_logged = on_logged, .ctx = ctx, .keyed = keep > 0 };
    p->bytes = LIM__LOG_RECORD_HEAD + m->key.len + m->headers.len + m->payload.len + (keep > 0 ? 1 + keep : 0);
    p->key = lim__bytes(p + 1, keep);
    if (keep > 0)
        memcpy(p + 1, m->idempotency_key.ptr, keep);
    return p;
}

static lim_err hand_over(publication *p, const lim__log_message *m, lim_bytes row)
{
    lim__log *log = p->log;
    lim__batch *b = lim__batch_new();
    if (b != NULL) {
        add_expectations(p, b, m, row);
        if (p->course != COURSE_LOOK)
            fill(p, b, m);
        lim__batch_sync(b, p->sync);
    }
    lim_err err = lim__durable_submit(log->bus, b, on_done, p);
    if (err != LIM_OK)
        landed(p);
    return err;
}

lim_err lim__log_publish(lim__log *log, const lim__log_message *m, lim__on_logged *on_logged, void *ctx,
                         lim_admission *out)
{
    lim_admission unused;
    lim_receipt r = { .admission = { .verdict = LIM_ACCEPT } };
    if (m->key.len > LIM__LOG_KEY_MAX || m->idempotency_key.len > LIM__LOG_KEY_MAX || m->headers.len > UINT16_MAX)
        return LIM_E_INVALID;
    out = out != NULL ? out : &unused;
    publication *p = publication_new(log, m, on_logged, ctx);
    if (p == NULL)
        return LIM_E_NOMEM;
    lim__buf row = { 0 };
    lim_err err = LIM_OK;
    if (m->mandatory && !anybody(log))
        refuse(&r.admission, LIM_WHY_NO_SUBSCRIBER, 0, 0);
    if (r.admission.verdict == LIM_ACCEPT) {
        lim__lock(&log->lock);
        err = reserve_locked(p, m, &r.admission, &row);
        lim__unlock(&log->lock);
    }
    *out = r.admission;
    if (err == LIM_OK && r.admission.verdict == LIM_REJECT)
        end(p, &r, "");
    else if (err == LIM_OK)
        err = hand_over(p, m, lim__buf_bytes(&row));
    lim__buf_fini(&row);
    if (err != LIM_OK) {
        p->on_logged = NULL;
        end(p, &r, "");
    }
    return err;
}

lim_err lim__log_append(lim__log *log, lim__batch *batch, const lim__log_message *m, uint32_t *expects)
{
    uint32_t n = 0;
    if (m->key.len > LIM__LOG_KEY_MAX || m->idempotency_key.len > LIM__LOG_KEY_MAX || m->headers.len > UINT16_MAX ||
        m->delay_ms > 0)
        return LIM_E_INVALID;
    lim__lock(&log->lock);
    bool open = log->state == LIM__LOG_OPEN || log->state == LIM__LOG_CREATING;
    lim_admission room = { .verdict = LIM_ACCEPT };
    bool fits = open && has_room(log, m->payload.len + m->headers.len + m->key.len + LIM__LOG_RECORD_HEAD, &room);
    bool keys_full =
        m->idempotency_key.len > 0 && !log->opts.window_forgets && lim__window_full(log, m->idempotency_key.len);
    lim__unlock(&log->lock);
    if (!open || !fits || keys_full)
        return open ? LIM_E_FULL : LIM_E_GONE;
    uint64_t now = log->bus->os->wall_ns(log->bus->os);
    uint64_t expires = m->expires_ms > 0 ? now + (uint64_t)m->expires_ms * 1000000 : 0;
    if (m->idempotency_key.len > 0) {
        expect_no_receipt(log, batch, m->idempotency_key);
        n++;
    }
    if (m->expect_last) {
        lim__batch_expect_last(batch, log->stream, m->last);
        n++;
    }
    add_record(log, batch, m, expires);
    if (expires != 0)
        add_expiring(log, batch, expires);
    if (m->idempotency_key.len > 0)
        add_receipt(log, batch, m, 0, now);
    if (expects != NULL)
        *expects += n;
    return LIM_OK;
}
