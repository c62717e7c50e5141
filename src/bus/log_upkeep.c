/* SPDX-License-Identifier: Apache-2.0
 * log_upkeep.c - what a channel forgets, and what it appends later: one look and at most two batches at a time.
 *
 *      keeper --> reading thread: look --+--small--> erase expired and replaced, trim, forget keys
 *                                        `--plain--> append what was delayed, or goes to the dead letters
 *                                                        |
 *      keeper <------- the next time, when both are answered, on the store's thread
 *
 * A step is bounded (the constants below); if there is more, the next one follows at once. What only forgets is small:
 * it is done also when the disk is full, which is how a full disk heals. What appends is a batch of its own, and so is
 * tried again a second later if there is no room for it.
 *
 * A message for later is a row; its record and the end of the row are one step, so it is appended once. */
#include "bus/log_inside.h"

#include <errno.h>
#include <stdlib.h>

enum {
    WINDOW_STEP = 512,
    EXPIRING_STEP = 512,
    DELAYED_STEP = 128,
    DELAYED_BYTES = 1 << 20,
    STALE_STEP = 512,
    LOOK_STEP = 4096, /* records that are looked at */
    RETRY_MS = 1000,
};

typedef struct upkeep {
    lim__job job;
    lim__log *log;
    lim__store *store;
    lim__batch *small, *plain;
    bool small_used, plain_used;
    uint64_t now_ns;
    _Atomic uint32_t waiting;
    _Atomic bool failed;
    bool more;
    /* what the batches do, for when they are stored */
    size_t window_bytes;
    uint32_t window_rows, plain_count;
    uint64_t window_size;
    lim__buf later_keys; /* of delayed messages that become records: u32 append, idempotency key */
    size_t stale_bytes, plain_bytes;
    uint64_t trim_to;
    bool trim_plain;                  /* it stands in the plain one */
    uint64_t delayed_ns, expiring_ns; /* of the next ones */
    /* as it was at the beginning */
    lim__log_opts opts; /* dead_letter counted */
    uint64_t window_excess;
    lim__stream_info info;
} upkeep;

/* ---- the window ---- */

/* Oldest first; copied, because reading their rows is not for under a lock. */
static void due_keys(upkeep *u, lim__buf *keys)
{
    lim__log *log = u->log;
    uint64_t when;
    lim_bytes key;
    uint32_t n = 0;
    lim__lock(&log->lock);
    uint64_t keys_left = log->window_count, bytes_left = log->window_size, excess = 0;
    for (size_t pos = 0; lim__window_at(log, &pos, &when, &key) && n < WINDOW_STEP; n++) {
        bool over =
            log->opts.window_forgets && (keys_left > log->opts.window_keys || bytes_left > log->opts.window_bytes);
        if (when + lim__window_ns(&log->opts) > u->now_ns && !over)
            break;
        excess += over;
        keys_left--;
        bytes_left -= key.len + LIM__WINDOW_ROW < bytes_left ? key.len + LIM__WINDOW_ROW : bytes_left;
        lim__pack_bytes(keys, key);
        u->window_bytes = pos;
    }
    lim__unlock(&log->lock);
    u->window_excess = excess;
    u->more |= n == WINDOW_STEP;
    if (keys->failed)
        u->window_bytes = 0;
}

/* Its row says when it was touched last: if that was since, it stands in the queue again, and stays. */
static void forget_key(upkeep *u, lim_bytes key, bool forced)
{
    uint8_t at[8 + LIM__LOG_KEY_MAX];
    void *value = NULL;
    size_t len = 0;
    uint32_t tries = 0;
    int err;
    lim_bytes row = lim__log_row_key(at, u->log->stream, key);
    do
        err = lim__store_get(u->store, LIM__TABLE_RECEIPTS, row, &value, &len);
    while (lim__read_again(u->log->bus, err, &tries));
    lim__log_receipt r = { 0 };
    bool there = err == 0, readable = there && lim__log_receipt_read(lim__bytes(value, len), &r);
    free(value);
    if (!there || (readable && !forced && r.touched_ns + lim__window_ns(&u->opts) > u->now_ns))
        return;
    lim__batch_delete(u->small, LIM__TABLE_RECEIPTS, row);
    u->small_used = true;
    u->window_rows++;
    u->window_size += key.len + LIM__WINDOW_ROW;
}

static void forget_keys(upkeep *u)
{
    lim__buf keys = { 0 };
    due_keys(u, &keys);
    lim__unpack at = lim__unpack_begin(lim__buf_bytes(&keys));
    for (uint64_t n = 0; u->window_bytes > 0 && !lim__unpack_end(&at) && !at.bad; n++)
        forget_key(u, lim__unpack_bytes(&at), n < u->window_excess);
    lim__buf_fini(&keys);
}

/* ---- rows that are due ---- */

typedef struct due_rows {
    upkeep *u;
    uint64_t next_ns; /* of the first that is not due; UINT64_MAX: none */
    uint32_t count, most;
    size_t bytes;
    bool (*take)(upkeep *u, lim_bytes key, lim_bytes value);
} due_rows;

static bool each_due(void *ctx, lim_bytes key, lim_bytes value)
{
    due_rows *d = ctx;
    if (key.len != 24)
        return true;
    uint64_t due = lim__key_get_u64((const uint8_t *)key.ptr + 8);
    bool room = d->count < d->most && (d->count == 0 || d->bytes + value.len <= DELAYED_BYTES);
    if (due > d->u->now_ns || !room) {
        d->next_ns = due;
        return false;
    }
    d->count++;
    d->bytes += value.len;
    return d->take(d->u, key, value);
}

static uint64_t take_due(upkeep *u, lim__table table, uint32_t most,
                         bool (*take)(upkeep *u, lim_bytes key, lim_bytes value))
{
    due_rows d = { .u = u, .next_ns = UINT64_MAX, .most = most, .take = take };
    uint8_t prefix[8];
    int err = lim__store_scan(u->store, (uint8_t)table, lim__log_row_key(prefix, u->log->stream, lim__bytes(NULL, 0)),
                              lim__bytes(NULL, 0), each_due, &d);
    if (err != 0) /* what was taken is right; the others are looked for again */
        d.next_ns = u->now_ns + RETRY_MS * 1000000ull;
    return d.next_ns;
}

static bool take_expired(upkeep *u, lim_bytes key, lim_bytes value)
{
    lim__unpack at = lim__unpack_begin(value);
    (void)lim__unpack_u8(&at);
    uint64_t seq = lim__unpack_u64(&at);
    if (!at.bad && seq > 0)
        lim__batch_erase(u->small, u->log->stream, seq);
    lim__batch_delete(u->small, LIM__TABLE_EXPIRING, key);
    u->small_used = true;
    return true;
}

static void append_later(upkeep *u, lim_bytes key, lim_bytes data, uint64_t expires_ns)
{
    uint8_t at[24], version = 1;
    lim__log *log = u->log;
    lim__batch_append(u->plain, log->stream, key, &data, 1);
    u->plain_count++;
    if (expires_ns == 0)
        return;
    uint64_t number = atomic_fetch_add_explicit(&log->bus->logs->next_number, 1, memory_order_relaxed);
    lim__batch_put_seq(u->plain, LIM__TABLE_EXPIRING, lim__log_due_key(at, log->stream, expires_ns, number),
                       lim__bytes(&version, 1), lim__batch_appends(u->plain) - 1);
}

static bool take_delayed(upkeep *u, lim_bytes key, lim_bytes value)
{
    lim__log_record r;
    lim__unpack at = lim__unpack_begin(value);
    bool known = lim__unpack_u8(&at) == 1;
    lim_bytes message_key = lim__unpack_bytes(&at), idempotency_key = lim__unpack_bytes(&at);
    lim_bytes data = { at.at, (size_t)(at.end - at.at) };
    known = known && !at.bad && lim__log_record_read(data, &r);
    lim__batch_delete(u->plain, LIM__TABLE_DELAYED, key);
    u->plain_used = true;
    if (!known || (r.expires_wall_ns != 0 && r.expires_wall_ns <= u->now_ns))
        return true;
    append_later(u, message_key, data, r.expires_wall_ns);
    if (idempotency_key.len > 0) {
        lim__pack_u32(&u->later_keys, lim__batch_appends(u->plain) - 1);
        lim__pack_bytes(&u->later_keys, idempotency_key);
    }
    return true;
}

/* Whoever publishes it once more gets its number from now on: if its key is still remembered. */
static void number_receipts(upkeep *u)
{
    uint8_t at[8 + LIM__LOG_KEY_MAX], value[LIM__RECEIPT_BYTES];
    lim__unpack keys = lim__unpack_begin(lim__buf_bytes(&u->later_keys));
    while (!u->later_keys.failed && keys.at < keys.end) {
        uint32_t append = lim__unpack_u32(&keys);
        lim_bytes row = lim__log_row_key(at, u->log->stream, lim__unpack_bytes(&keys));
        void *found = NULL;
        size_t len = 0;
        lim__log_receipt r;
        if (lim__store_get(u->store, LIM__TABLE_RECEIPTS, row, &found, &len) == 0 &&
            lim__log_receipt_read(lim__bytes(found, len), &r) && r.seq == 0 && !LIM__MUTATION("delayed_numberless"))
            lim__batch_put_seq(u->plain, LIM__TABLE_RECEIPTS, row,
                               lim__log_receipt_write(value, r.touched_ns, r.due_ns), append);
        free(found);
    }
    lim__buf_fini(&u->later_keys);
}

/* ---- what is too old, or too much ---- */

typedef struct trimming {
    upkeep *u;
    uint64_t count, bytes; /* still to go */
    uint64_t next;         /* behind the last one that goes */
    uint32_t seen;
    lim__log *dead; /* where they go; NULL: nowhere */
} trimming;

static bool each_trimmed(void *ctx, const lim__record *r)
{
    trimming *t = ctx;
    uint64_t bytes = r->key.len + r->data.len;
    if (t->count == 0 && t->bytes == 0)
        return false;
    t->count -= t->count > 0;
    t->bytes -= t->bytes > bytes ? bytes : t->bytes;
    t->next = r->seq + 1;
    t->seen++;
    if (t->dead == NULL)
        return t->seen < LOOK_STEP;
    lim__batch_append(t->u->plain, t->dead->stream, r->key, &r->data, 1);
    t->u->plain_used = true;
    t->u->plain_bytes += bytes;
    return t->seen < DELAYED_STEP && t->u->plain_bytes < DELAYED_BYTES;
}

static void excess(const upkeep *u, trimming *t)
{
    const lim__log_opts *o = &u->opts;
    const lim__stream_info *info = &u->info;
    if (o->count_max > 0 && info->count > o->count_max)
        t->count = info->count - o->count_max;
    if (o->bytes_max > 0 && info->bytes > o->bytes_max) {
        uint64_t slack =
            o->bytes_max / 64 < (1u << 20) ? o->bytes_max / 64 : 1u << 20; /* so that not each message trims */
        t->bytes = info->bytes - o->bytes_max + slack;
    }
}

static lim__log *dead_letters(upkeep *u)
{
    lim__log *dead = NULL;
    if (u->opts.overflow != LIM_OVERFLOW_DEAD_LETTER)
        return NULL;
    if (lim__log_find(u->log->bus, lim__name_bytes(u->opts.dead_letter), &dead) != LIM_OK)
        return NULL;
    lim__lock(&dead->lock);
    bool open = dead->state == LIM__LOG_OPEN;
    lim__unlock(&dead->lock);
    if (dead != u->log && open)
        return dead;
    lim__log_unref(dead);
    return NULL;
}

static void trim_excess(upkeep *u)
{
    trimming t = { .u = u, .next = u->info.first };
    excess(u, &t);
    if ((t.count == 0 && t.bytes == 0) || u->opts.overflow == LIM_OVERFLOW_REJECT)
        return;
    t.dead = dead_letters(u);
    if (u->opts.overflow == LIM_OVERFLOW_DEAD_LETTER && t.dead == NULL) {
        lim__bus_log(u->log->bus, "event=no_dead_letters channel=%s dead_letter=%s", u->log->name->text,
                     u->opts.dead_letter->text);
        atomic_store(&u->failed, true); /* nothing is lost: it is looked for again */
        return;
    }
    uint64_t bad = 0;
    int err = lim__store_read(u->store, u->log->stream, u->info.first, 0, each_trimmed, &t, &bad);
    if (err == -EBADMSG && bad >= t.next) /* it goes with the others */
        t.next = bad + 1;
    u->trim_to = t.next > u->trim_to ? t.next : u->trim_to;
    u->trim_plain = t.dead != NULL;
    u->more = true; /* until there is no excess */
    lim__log_unref(t.dead);
}

static void trim_old(upkeep *u)
{
    uint64_t seq = 0;
    if (u->opts.age_ns == 0 || u->info.count == 0 || u->info.first_ns + u->opts.age_ns > u->now_ns)
        return;
    if (lim__store_seek(u->store, u->log->stream, u->now_ns - u->opts.age_ns + 1, &seq) == 0 && seq > u->info.first)
        u->trim_to = seq;
}

static void trim(upkeep *u)
{
    trim_old(u);
    if (u->trim_to == 0) /* the one at a time: `info` counts what was before */
        trim_excess(u);
    if (u->trim_to <= u->info.first)
        return;
    lim__batch_trim(u->trim_plain ? u->plain : u->small, u->log->stream, u->trim_to);
    u->small_used |= !u->trim_plain;
    u->plain_used |= u->trim_plain;
    u->more = true; /* how much is left is looked at afterwards */
}

/* ---- what a newer message of its key replaced ---- */

typedef struct keys_look {
    lim__log *log;
    uint64_t next;
    uint32_t seen;
} keys_look;

static bool each_key(void *ctx, const lim__record *r)
{
    keys_look *k = ctx;
    lim__log *log = k->log;
    k->next = r->seq + 1;
    lim__lock(&log->lock);
    if (r->key.len > 0)
        lim__log_key_seen(log, r->key, r->seq, (uint32_t)(r->key.len + r->data.len), 0);
    lim__unlock(&log->lock);
    return ++k->seen < LOOK_STEP;
}

static void learn_keys(upkeep *u)
{
    lim__log *log = u->log;
    lim__lock(&log->lock);
    bool wanted = log->opts.latest && !log->keys_known;
    keys_look k = { .log = log, .next = log->keys_from };
    lim__unlock(&log->lock);
    if (!wanted)
        return;
    uint64_t bad = 0;
    int err = lim__store_read(u->store, log->stream, k.next, 0, each_key, &k, &bad);
    if (err == -EBADMSG)
        k.next = bad + 1;
    lim__lock(&log->lock);
    log->keys_from = k.next;
    log->keys_known = err == 0 && k.seen < LOOK_STEP;
    u->more |= !log->keys_known;
    lim__unlock(&log->lock);
}

static void erase_stale(upkeep *u)
{
    lim__log *log = u->log;
    lim__lock(&log->lock);
    size_t n = lim__buf_len(&log->stale) / 8;
    u->more |= n > STALE_STEP;
    n = n < STALE_STEP ? n : STALE_STEP;
    for (size_t i = 0; i < n; i++) {
        uint64_t seq;
        memcpy(&seq, log->stale.ptr + log->stale.start + 8 * i, sizeof seq);
        lim__batch_erase(u->small, log->stream, seq);
    }
    u->stale_bytes = 8 * n;
    u->small_used |= n > 0;
    u->more |= n > 0;
    lim__unlock(&log->lock);
}

/* ---- the step ---- */

/* Once at a time: what is stored meanwhile is added to what the store said, if it was not in it. */
static bool refresh(upkeep *u)
{
    lim__log *log = u->log;
    if (lim__store_stream(u->store, log->stream, &u->info) != 0)
        return false;
    lim__lock(&log->lock);
    lim__stream_info *info = &u->info;
    if (info->next > log->last + 1) { /* on its way to us; as it will be */
        lim__unlock(&log->lock);
        u->more = true;
        return true;
    }
    uint64_t since = log->last + 1 - info->next;
    log->count = info->count + since;
    log->bytes = info->bytes + (info->count > 0 ? since * (info->bytes / info->count) : 0);
    log->first = info->count > 0 ? info->first : info->next;
    log->first_ns = info->count > 0 ? info->first_ns : u->now_ns;
    lim__unlock(&log->lock);
    return true;
}

static void finish(upkeep *u)
{
    lim__log *log = u->log;
    bool failed = atomic_load(&u->failed);
    uint64_t now = log->bus->os->wall_ns(log->bus->os);
    lim__lock(&log->lock);
    if (u->delayed_ns < log->delayed_ns)
        log->delayed_ns = u->delayed_ns;
    if (u->expiring_ns < log->expiring_ns)
        log->expiring_ns = u->expiring_ns;
    uint64_t due = lim__log_next_due(log, now);
    due = u->more && now < due ? now : due;
    if (failed && due < now + RETRY_MS * 1000000ull)
        due = now + RETRY_MS * 1000000ull;
    due = log->due_ns < due && !failed ? log->due_ns : due;
    log->due_ns = UINT64_MAX;
    log->busy = false;
    lim__unlock(&log->lock);
    if (due != UINT64_MAX)
        lim__log_want(log, due);
    lim__log_opts_fini(&u->opts);
    lim__log_unref(log);
    free(u);
}

static void one_done(upkeep *u)
{
    if (atomic_fetch_sub(&u->waiting, 1) == 1)
        finish(u);
}

/* The log forgot what the batch forgot. */
static void trimmed_locked(lim__log *log, uint64_t first)
{
    if (first > log->first)
        log->first = first;
}

void lim__log_trimmed(lim__log *log, uint64_t first)
{
    lim__lock(&log->lock);
    trimmed_locked(log, first);
    lim__unlock(&log->lock);
    lim__log_want(log, 0); /* how much is left is counted anew */
}

static void on_small(void *ctx, lim__batch *batch, const lim__committed *what)
{
    upkeep *u = ctx;
    lim__log *log = u->log;
    lim__lock(&log->lock);
    if (what->how == LIM__COMMITTED) {
        lim__window_drop(log, u->window_bytes);
        log->window_count -= u->window_rows < log->window_count ? u->window_rows : log->window_count;
        log->window_size -= u->window_size < log->window_size ? u->window_size : log->window_size;
        lim__buf_consume(&log->stale, u->stale_bytes);
        if (!u->trim_plain)
            trimmed_locked(log, u->trim_to);
    } else {
        atomic_store(&u->failed, true);
        log->expiring_ns = 0;
    }
    lim__unlock(&log->lock);
    lim__batch_free(batch);
    one_done(u);
}

static void on_plain(void *ctx, lim__batch *batch, const lim__committed *what)
{
    upkeep *u = ctx;
    lim__log *log = u->log;
    lim__log_committed(log->bus, batch, what);
    lim__lock(&log->lock);
    if (what->how != LIM__COMMITTED) {
        atomic_store(&u->failed, true);
        log->delayed_ns = 0;
    } else if (u->trim_plain) {
        trimmed_locked(log, u->trim_to);
    }
    lim__unlock(&log->lock);
    lim__batch_free(batch);
    one_done(u);
}

static void submit(upkeep *u, lim__batch *b, bool used, lim__on_committed *on_done)
{
    if (!used) {
        lim__batch_free(b);
        return;
    }
    atomic_fetch_add(&u->waiting, 1);
    lim_sync sync = u->opts.sync;
    lim__batch_sync(b, sync != 0 ? (lim__sync)sync : lim__durable_sync(u->log->bus));
    if (lim__durable_submit(u->log->bus, b, on_done, u) == LIM_OK)
        return;
    atomic_store(&u->failed, true);
    atomic_fetch_sub(&u->waiting, 1);
}

static void look(upkeep *u)
{
    forget_keys(u);
    u->expiring_ns = take_due(u, LIM__TABLE_EXPIRING, EXPIRING_STEP, take_expired);
    u->delayed_ns = take_due(u, LIM__TABLE_DELAYED, DELAYED_STEP, take_delayed);
    number_receipts(u);
    learn_keys(u);
    erase_stale(u);
    trim(u);
}

/* Keys of the window that need no row deleted are dropped with what does; alone, at once. */
static void drop_window_now(upkeep *u)
{
    if (u->small_used)
        return;
    lim__lock(&u->log->lock);
    lim__window_drop(u->log, u->window_bytes);
    lim__unlock(&u->log->lock);
}

static void begin(upkeep *u)
{
    lim__log *log = u->log;
    lim__lock(&log->lock);
    u->opts = log->opts;
    if (u->opts.dead_letter != NULL)
        lim__name_ref(u->opts.dead_letter);
    log->delayed_ns = log->expiring_ns = UINT64_MAX; /* whoever adds one from here on says when it is due */
    lim__unlock(&log->lock);
}

static void run(lim__job *job, lim__store *store)
{
    upkeep *u = LIM_CONTAINER(job, upkeep, job);
    begin(u);
    u->now_ns = u->log->bus->os->wall_ns(u->log->bus->os);
    u->delayed_ns = u->expiring_ns = UINT64_MAX;
    u->store = store;
    u->small = lim__batch_new();
    u->plain = lim__batch_new();
    atomic_store(&u->waiting, 1);
    bool able = store != NULL && u->small != NULL && u->plain != NULL && refresh(u);
    if (able) {
        lim__batch_small(u->small);
        look(u);
        drop_window_now(u);
    } else {
        u->delayed_ns = u->expiring_ns = 0;
        atomic_store(&u->failed, true);
    }
    submit(u, u->small, able && u->small_used, on_small);
    submit(u, u->plain, able && u->plain_used, on_plain);
    one_done(u);
}

void lim__log_upkeep(lim__log *log)
{
    upkeep *u = calloc(1, sizeof *u);
    if (u == NULL) {
        lim__lock(&log->lock);
        log->busy = false;
        lim__unlock(&log->lock);
        lim__log_want(log, log->bus->os->wall_ns(log->bus->os) + RETRY_MS * 1000000ull);
        return;
    }
    u->log = lim__log_ref(log);
    u->job.run = run;
    lim__durable_read(log->bus, &u->job);
}

/* ---- trying again ---- */

/* -EAGAIN: the index is being made again by the store's thread; which without threads is us. */
bool lim__read_again(lim_bus *bus, int err, uint32_t *tries)
{
    if (err != -EAGAIN || ++*tries > 200)
        return false;
    if (bus->os == lim__os_linux()) {
        lim__mutex mutex = LIM__MUTEX_INIT;
        lim__cond cond;
        lim__cond_init(&cond);
        pthread_mutex_lock(&mutex);
        (void)lim__cond_wait_until(&cond, &mutex, bus->os->now_ns(bus->os) + 50000000);
        pthread_mutex_unlock(&mutex);
        pthread_cond_destroy(&cond);
    }
    return true;
}

/* ---- rows of a stream whose channel is gone ---- */

typedef struct sweep {
    lim__job job;
    lim_bus *bus;
    uint64_t stream;
    lim__batch *batch;
    uint32_t count;
    uint8_t table;
} sweep;

static bool sweep_row(void *ctx, lim_bytes key, lim_bytes value)
{
    sweep *s = ctx;
    (void)value;
    lim__batch_delete(s->batch, s->table, key);
    return ++s->count < STALE_STEP;
}

static void sweep_done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    sweep *s = ctx;
    lim__batch_free(batch);
    if (what->how == LIM__COMMITTED && s->count > 0)
        lim__durable_read(s->bus, &s->job); /* the next ones */
    else
        free(s); /* there are none; or the next start goes on with it */
}

static void sweep_run(lim__job *job, lim__store *store)
{
    static const uint8_t tables[] = { LIM__TABLE_RECEIPTS, LIM__TABLE_DELAYED, LIM__TABLE_EXPIRING,
                                      LIM__TABLE_CURSORS };
    sweep *s = LIM_CONTAINER(job, sweep, job);
    uint8_t prefix[8], left[12];
    int err = 0;
    s->batch = store != NULL ? lim__batch_new() : NULL;
    s->count = 0;
    if (s->batch == NULL) {
        free(s);
        return;
    }
    for (size_t i = 0; i < LIM_COUNT(tables) && s->count < STALE_STEP && err == 0; i++) {
        s->table = tables[i];
        err = lim__store_scan(store, s->table, lim__log_row_key(prefix, s->stream, lim__bytes(NULL, 0)),
                              lim__bytes(NULL, 0), sweep_row, s);
    }
    lim__batch_small(s->batch);
    lim__batch_drop(s->batch, s->stream); /* what was on its way when it was deleted */
    if (s->count == 0 && err == 0)
        lim__batch_delete(s->batch, LIM__TABLE_META, lim__leavings_key(left, s->stream));
    if (err != 0 || lim__durable_submit(s->bus, s->batch, sweep_done, s) != LIM_OK) {
        if (err != 0)
            lim__batch_free(s->batch);
        free(s);
    }
}

void lim__leavings_sweep(lim_bus *bus, uint64_t stream)
{
    sweep *s = stream != 0 ? calloc(1, sizeof *s) : NULL;
    if (s == NULL)
        return;
    *s = (sweep){ .bus = bus, .stream = stream };
    s->job.run = sweep_run;
    lim__durable_read(bus, &s->job);
}
