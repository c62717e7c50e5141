/* SPDX-License-Identifier: Apache-2.0
 * log_open.c - durable channels come, change and go: each time one commit, and the effects after it.
 *
 *      open ------> CREATING, can be published to: what is published expects the row that is on its way before it
 *      configure -> the new row; then the new options
 *      delete ----> one batch: the channel's row, its stream, its cursors, and a note that rows are left of it
 *                   (receipts, messages for later), which are forgotten a few at a time, also after a restart
 *
 * Changes are made under `changing`, one at a time; it is held while a batch is handed over, never while one waits. */
#include "bus/log_inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- options ---- */

static lim_err check_opts(const lim_channel_opts *o, lim_diag *diag)
{
    if (o->age_ms_max < 0 || o->window_ms < 0 || o->overflow > LIM_OVERFLOW_DEAD_LETTER || o->sync > LIM_SYNC_NEVER) {
        lim__diag_set(diag, 0, 0, "a time is negative, or an option is none of those that there are");
        return LIM_E_INVALID;
    }
    bool dead = o->overflow == LIM_OVERFLOW_DEAD_LETTER, named = o->dead_letter != NULL && o->dead_letter[0] != '\0';
    if (dead != named) {
        lim__diag_set(diag, 0, 0, "overflow dead_letter needs the name of a durable channel, and nothing else does");
        return LIM_E_INVALID;
    }
    if (named && (!lim__channel_name_ok(lim__str(o->dead_letter)) || o->dead_letter[0] == '$')) {
        lim__diag_set(diag, 0, 0, "%s is no name for a channel", o->dead_letter);
        return LIM_E_INVALID;
    }
    return LIM_OK;
}

lim_err lim__log_opts_of(const lim_channel_opts *o, lim__log_opts *out, lim_diag *diag)
{
    lim_err err = check_opts(o, diag);
    if (err != LIM_OK)
        return err;
    *out = (lim__log_opts){ .age_ns = (uint64_t)o->age_ms_max * 1000000,
                            .bytes_max = o->bytes_max,
                            .count_max = o->count_max,
                            .window_ns = (o->window_ms > 0 ? (uint64_t)o->window_ms : LIM__WINDOW_MS) * 1000000,
                            .window_keys = o->window_keys > 0 ? o->window_keys : LIM__WINDOW_KEYS,
                            .overflow = o->overflow != 0 ? o->overflow : LIM_OVERFLOW_DROP_OLDEST,
                            .sync = o->sync,
                            .latest = o->latest_per_key,
                            .window_bytes = o->window_bytes > 0 ? o->window_bytes : LIM__WINDOW_BYTES,
                            .window_slides = o->window_slides,
                            .window_forgets = o->window_forgets };
    if (out->overflow == LIM_OVERFLOW_DEAD_LETTER)
        out->dead_letter = lim__name_new(lim__str(o->dead_letter));
    return out->overflow == LIM_OVERFLOW_DEAD_LETTER && out->dead_letter == NULL ? LIM_E_NOMEM : LIM_OK;
}

void lim__log_opts_get(lim__log *log, lim_channel_opts *out, char dead_letter[256])
{
    lim__lock(&log->lock);
    const lim__log_opts *o = &log->opts;
    *out = (lim_channel_opts){ .size = sizeof *out,
                               .durable = true,
                               .age_ms_max = (int64_t)(o->age_ns / 1000000),
                               .bytes_max = o->bytes_max,
                               .count_max = o->count_max,
                               .latest_per_key = o->latest,
                               .overflow = o->overflow,
                               .sync = o->sync,
                               .window_ms = (int64_t)(o->window_ns / 1000000),
                               .window_keys = o->window_keys,
                               .window_bytes = o->window_bytes,
                               .window_slides = o->window_slides,
                               .window_forgets = o->window_forgets };
    if (o->dead_letter != NULL) {
        snprintf(dead_letter, 256, "%s", o->dead_letter->text);
        out->dead_letter = dead_letter;
    }
    lim__unlock(&log->lock);
}

static void apply_locked(lim__log *log, lim__log_opts *opts)
{
    bool keys = opts->latest && !log->opts.latest;
    lim__log_opts_fini(&log->opts);
    log->opts = *opts;
    *opts = (lim__log_opts){ 0 };
    if (keys)
        log->keys_known = false, log->keys_from = 0;
}

/* ---- a change on its way ---- */

typedef enum change_kind { CHANGE_CREATE = 1, CHANGE_OPTIONS, CHANGE_DELETE } change_kind;
typedef struct lim__log_change {
    struct lim__log_change *next; /* deferred */
    lim__batch *batch;            /* likewise */
    lim__job job;                 /* DELETE: to find what goes with it */
    change_kind kind;
    lim__log *log;
    lim__log_opts opts;
    lim__log_changed done;
} change;

static change *change_new(change_kind kind, lim__log *log, const lim__log_changed *done)
{
    change *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    *c = (change){ .kind = kind, .log = lim__log_ref(log) };
    if (done != NULL)
        c->done = *done;
    return c;
}

static void change_end(change *c, lim_err err, const char *detail)
{
    if (c->kind == CHANGE_DELETE && err != LIM_OK) {
        lim__lock(&c->log->lock);
        c->log->deleting = false;
        lim__unlock(&c->log->lock);
    }
    if (c->done.run != NULL)
        c->done.run(c->done.ctx, err, detail);
    lim__log_opts_fini(&c->opts);
    lim__log_unref(c->log);
    free(c);
}

lim_err lim__committed_err(const lim__committed *what, const char **detail)
{
    switch (what->how) {
    case LIM__COMMITTED:
        *detail = "";
        return LIM_OK;
    case LIM__COMMIT_CONFLICT:
        *detail = "it was changed meanwhile";
        return LIM_E_EXISTS;
    case LIM__COMMIT_FULL:
        *detail = "the disk has no room";
        return LIM_E_FULL;
    case LIM__COMMIT_FAILED:
        *detail = "the disk failed; nothing is changed";
        return LIM_E_IO;
    case LIM__COMMIT_CLOSED:
        *detail = "the bus is closing";
        return LIM_E_CLOSED;
    case LIM__COMMIT_UNKNOWN:
        break;
    }
    *detail = "the disk failed in the middle: nobody knows whether it is stored";
    return LIM_E_IO;
}

/* It is not, or no longer: nobody finds it, and who has it is refused. */
static void gone(lim__log *log)
{
    lim__lock(&log->lock);
    log->state = LIM__LOG_GONE;
    lim__unlock(&log->lock);
    lim__channel_detach_log(log);
    lim__log_tell(log, LIM_E_GONE);
    lim__log_forget(log);
}

static void on_changed(void *ctx, lim__batch *batch, const lim__committed *what);

/* What was wanted while it was being made. */
static void go_on_with_deferred(lim__log *log, lim_err err, const char *detail)
{
    lim__lock(&log->lock);
    change *c = log->deferred;
    log->deferred = NULL;
    log->deferred_last = &log->deferred;
    lim__unlock(&log->lock);
    for (change *next; c != NULL; c = next) {
        lim__batch *b = c->batch;
        next = c->next;
        c->batch = NULL;
        lim_err now = err;
        if (err == LIM_OK)
            now = lim__durable_submit(log->bus, b, on_changed, c);
        else
            lim__batch_free(b);
        if (now != LIM_OK)
            change_end(c, now, detail);
    }
}

/* Its effects, once it is stored. */
static void changed(change *c, lim__log *log)
{
    lim__lock(&log->lock);
    if (c->kind == CHANGE_CREATE) {
        log->state = LIM__LOG_OPEN;
        lim__buf_fini(&log->row);
    } else {
        apply_locked(log, &c->opts);
    }
    lim__unlock(&log->lock);
    lim__log_want(log, 0);
}

static void on_changed(void *ctx, lim__batch *batch, const lim__committed *what)
{
    change *c = ctx;
    lim__log *log = c->log;
    const char *detail;
    lim_err err = lim__committed_err(what, &detail);
    lim__batch_free(batch);
    if (c->kind == CHANGE_OPTIONS) {
        lim__lock(&log->lock);
        log->changes--;
        lim__unlock(&log->lock);
    }
    if (c->kind == CHANGE_CREATE ? err != LIM_OK : c->kind == CHANGE_DELETE && err == LIM_OK)
        gone(log);
    else if (err == LIM_OK)
        changed(c, log);
    if (c->kind == CHANGE_CREATE)
        go_on_with_deferred(log, err, detail);
    if (c->kind == CHANGE_DELETE && err == LIM_OK)
        lim__leavings_sweep(log->bus, log->stream);
    change_end(c, err, detail);
}

/* False: it is OPEN. */
static bool deferred(change *c, lim__batch *b)
{
    lim__log *log = c->log;
    lim__lock(&log->lock);
    bool waits = log->state == LIM__LOG_CREATING;
    log->changes++;
    if (waits) {
        c->batch = b;
        *log->deferred_last = c;
        log->deferred_last = &c->next;
    }
    lim__unlock(&log->lock);
    return waits;
}

static lim_err submit(change *c, lim__batch *b, bool small)
{
    if (b != NULL && small)
        lim__batch_small(b);
    lim_err err = lim__durable_submit(c->log->bus, b, on_changed, c);
    if (err != LIM_OK) {
        c->done.run = NULL;
        change_end(c, err, "");
    }
    return err;
}

/* ---- opening ---- */

static lim_err create_locked(lim_bus *bus, lim_bytes name, lim__log_opts *opts, const lim__log_changed *done,
                             lim__log **out, lim_diag *diag)
{
    lim__batch *b = lim__batch_new();
    lim__log *log = b != NULL ? lim__log_new(bus, name, lim__durable_stream(bus, b)) : NULL;
    change *c = log != NULL ? change_new(CHANGE_CREATE, log, done) : NULL;
    lim_err err = c != NULL ? LIM_OK : LIM_E_NOMEM;
    if (err == LIM_OK) {
        log->opts = *opts;
        *opts = (lim__log_opts){ 0 };
        log->keys_known = true; /* there are none */
        lim__log_row_write(&log->row, log->stream, &log->opts);
        err = log->row.failed ? LIM_E_NOMEM : lim__channel_attach_log(log, diag);
    }
    if (err == LIM_OK && (err = lim__log_register(log)) != LIM_OK)
        lim__channel_detach_log(log);
    if (err == LIM_OK) {
        lim__batch_expect(b, LIM__TABLE_CHANNELS, name, lim__bytes(NULL, 0));
        lim__batch_put(b, LIM__TABLE_CHANNELS, name, lim__buf_bytes(&log->row));
        *out = lim__log_ref(log);
        err = submit(c, b, false);
        if (err != LIM_OK) {
            gone(log);
            lim__log_unref(log);
        }
    } else {
        lim__batch_free(b);
        if (c != NULL) {
            c->done.run = NULL;
            change_end(c, err, "");
        }
    }
    lim__log_unref(log);
    return err;
}

static bool same_name(const lim__name *a, const lim__name *b)
{
    return a == NULL || b == NULL ? a == b : lim__bytes_eq(lim__name_bytes(a), lim__name_bytes(b));
}

static bool same_opts(const lim__log_opts *a, const lim__log_opts *b)
{
    return a->age_ns == b->age_ns && a->bytes_max == b->bytes_max && a->count_max == b->count_max &&
           a->window_ns == b->window_ns && a->window_keys == b->window_keys && a->window_bytes == b->window_bytes &&
           a->overflow == b->overflow && a->sync == b->sync && a->latest == b->latest &&
           a->window_slides == b->window_slides && a->window_forgets == b->window_forgets &&
           same_name(a->dead_letter, b->dead_letter);
}

static lim_err reopen_locked(lim__log *log, lim__log_opts *opts, bool may_change, const lim__log_changed *done,
                             lim_diag *diag)
{
    lim__lock(&log->lock);
    bool damaged = log->state == LIM__LOG_DAMAGED, deleting = log->deleting;
    bool same = log->changes == 0 && same_opts(&log->opts, opts);
    lim__unlock(&log->lock);
    if (damaged) {
        lim__diag_set(diag, 0, 0, "the row of channel %s cannot be read; delete it, or restore a copy",
                      log->name->text);
        return LIM_E_IO;
    }
    if (deleting) {
        lim__diag_set(diag, 0, 0, "channel %s is being deleted; try again", log->name->text);
        return LIM_E_EXISTS;
    }
    if (same) {
        if (done != NULL && done->run != NULL)
            done->run(done->ctx, LIM_OK, "");
        return LIM_OK;
    }
    if (!may_change) {
        lim__diag_set(diag, 0, 0, "channel %s is there with other options; configure changes them", log->name->text);
        return LIM_E_EXISTS;
    }
    change *c = change_new(CHANGE_OPTIONS, log, done);
    lim__batch *b = c != NULL ? lim__batch_new() : NULL;
    lim__buf row = { 0 };
    lim__log_row_write(&row, log->stream, opts);
    if (b == NULL || row.failed) {
        lim__batch_free(b);
        lim__buf_fini(&row);
        if (c != NULL) {
            c->done.run = NULL;
            change_end(c, LIM_E_NOMEM, "");
        }
        return LIM_E_NOMEM;
    }
    c->opts = *opts;
    *opts = (lim__log_opts){ 0 };
    lim__batch_put(b, LIM__TABLE_CHANNELS, lim__name_bytes(log->name), lim__buf_bytes(&row));
    lim__buf_fini(&row);
    lim__batch_small(b);
    if (deferred(c, b))
        return LIM_OK;
    lim_err err = submit(c, b, true);
    if (err != LIM_OK) {
        lim__lock(&log->lock);
        log->changes--;
        lim__unlock(&log->lock);
    }
    return err;
}

lim_err lim__log_open(lim_bus *bus, lim_bytes name, const lim_channel_opts *opts, bool may_change,
                      const lim__log_changed *done, lim__log **out, lim_diag *diag)
{
    lim__log_opts o = { 0 };
    if (bus->logs == NULL)
        return lim__durable_missing(diag);
    lim_err err = lim__log_opts_of(opts, &o, diag);
    if (err != LIM_OK)
        return err;
    lim__lock(&bus->logs->changing);
    lim__log *log = lim__log_by_name(bus, name);
    if (log == NULL) {
        err = create_locked(bus, name, &o, done, out, diag);
    } else if ((err = reopen_locked(log, &o, may_change, done, diag)) == LIM_OK) {
        *out = log;
        log = NULL;
    }
    lim__unlock(&bus->logs->changing);
    lim__log_unref(log);
    lim__log_opts_fini(&o);
    return err;
}

/* ---- deleting ---- */

typedef struct cursors {
    lim__batch *batch;
} cursors;

static bool delete_cursor(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)value;
    lim__batch_delete(((cursors *)ctx)->batch, LIM__TABLE_CURSORS, key);
    return true;
}

lim_bytes lim__leavings_key(uint8_t *at, uint64_t stream)
{
    memcpy(at, "gone", 4);
    return lim__bytes(at, 4 + lim__key_u64(at + 4, stream));
}

static void run_delete(lim__job *job, lim__store *store)
{
    change *c = LIM_CONTAINER(job, change, job);
    uint8_t prefix[8], left[12], version = 1;
    lim__log *log = c->log;
    lim__batch *b = store != NULL ? lim__batch_new() : NULL;
    cursors all = { b };
    uint32_t tries = 0;
    int err = -ENOMEM;
    if (b != NULL && log->stream != 0) {
        lim_bytes mine = lim__log_row_key(prefix, log->stream, lim__bytes(NULL, 0));
        do
            err = lim__store_scan(store, LIM__TABLE_CURSORS, mine, lim__bytes(NULL, 0), delete_cursor, &all);
        while (lim__read_again(log->bus, err, &tries));
        lim__batch_drop(b, log->stream);
        lim__batch_put(b, LIM__TABLE_META, lim__leavings_key(left, log->stream), lim__bytes(&version, 1));
    } else if (b != NULL) { /* nobody knows what its stream was */
        err = 0;
    }
    if (b == NULL || err != 0) {
        lim__batch_free(b);
        change_end(c, store == NULL ? LIM_E_CLOSED : b == NULL ? LIM_E_NOMEM : LIM_E_IO, "it could not be looked at");
        return;
    }
    lim__batch_delete(b, LIM__TABLE_CHANNELS, lim__name_bytes(log->name));
    lim__batch_small(b);
    lim__log_changed done = c->done;
    lim_err submitted = submit(c, b, true);
    if (submitted != LIM_OK && done.run != NULL)
        done.run(done.ctx, submitted, "");
}

lim_err lim__log_delete(lim__log *log, const lim__log_changed *done)
{
    change *c = change_new(CHANGE_DELETE, log, done);
    if (c == NULL)
        return LIM_E_NOMEM;
    lim__lock(&log->bus->logs->changing); /* what is changed before it is stored before it */
    lim__lock(&log->lock);
    bool first = !log->deleting && log->state != LIM__LOG_GONE;
    log->deleting = true;
    lim__unlock(&log->lock);
    lim__unlock(&log->bus->logs->changing);
    if (!first) {
        lim__log_unref(c->log);
        free(c);
        return LIM_E_GONE;
    }
    c->job.run = run_delete;
    lim__durable_read(log->bus, &c->job);
    return LIM_OK;
}

/* ---- at the start ---- */

typedef struct restoring {
    lim_bus *bus;
    lim_err err;
} restoring;

static bool restore_row(void *ctx, lim_bytes name, lim_bytes value)
{
    restoring *r = ctx;
    uint64_t stream = 0;
    lim__log_opts opts = { 0 };
    if (!lim__channel_name_ok(name)) {
        lim__bus_log(r->bus, "event=channel_damaged detail=\"a row of no name is passed over\"");
        return true;
    }
    lim_err err = lim__log_row_read(value, &stream, &opts);
    if (err == LIM_E_NOMEM) {
        r->err = err;
        return false;
    }
    if (err != LIM_OK)
        stream = 0;
    lim__log *log = lim__log_new(r->bus, name, stream);
    if (log == NULL) {
        lim__log_opts_fini(&opts);
        r->err = LIM_E_NOMEM;
        return false;
    }
    log->opts = opts;
    log->state = err == LIM_OK ? LIM__LOG_OPEN : LIM__LOG_DAMAGED;
    r->err = lim__log_register(log);
    lim__log_unref(log);
    return r->err == LIM_OK;
}

static void damaged(lim__log *log, const char *why)
{
    log->state = LIM__LOG_DAMAGED;
    lim__bus_log(log->bus, "event=channel_damaged channel=%s detail=\"%s; publishing to it is refused\"",
                 log->name->text, why);
    LIM__EVENT(log->bus, NULL, "channel.damaged", { "channel", lim__name_bytes(log->name) },
               { "detail", lim__str(why) });
}

typedef struct seen_keys { /* of one channel, to be put in order of time */
    lim__log *log;
    lim__buf all, order; /* entries as in a window; {u64 when, u64 offset} */
} seen_keys;

static bool restore_key(void *ctx, lim_bytes key, lim_bytes value)
{
    seen_keys *s = ctx;
    lim__log_receipt r;
    if (key.len <= 8 || key.len > 8 + LIM__LOG_KEY_MAX || !lim__log_receipt_read(value, &r))
        return true;
    uint64_t entry[2] = { r.touched_ns, lim__buf_len(&s->all) };
    uint8_t len = (uint8_t)(key.len - 8);
    lim__buf_add(&s->order, entry, sizeof entry);
    lim__buf_add(&s->all, &len, 1);
    lim__buf_add(&s->all, (const uint8_t *)key.ptr + 8, len);
    return !s->all.failed && !s->order.failed;
}

static int by_time(const void *left, const void *right)
{
    const uint64_t *a = left, *b = right;
    return a[0] != b[0] ? (a[0] < b[0] ? -1 : 1) : a[1] < b[1] ? -1 : a[1] > b[1];
}

static lim_err restore_window(lim__log *log, lim__store *store)
{
    seen_keys s = { .log = log };
    uint8_t prefix[8];
    uint32_t tries = 0;
    int err;
    do {
        s.all.end = s.all.start = s.order.end = s.order.start = 0;
        err = lim__store_scan(store, LIM__TABLE_RECEIPTS, lim__log_row_key(prefix, log->stream, lim__bytes(NULL, 0)),
                              lim__bytes(NULL, 0), restore_key, &s);
    } while (lim__read_again(log->bus, err, &tries));
    size_t count = lim__buf_len(&s.order) / 16;
    if (count > 0)
        qsort(s.order.ptr, count, 16, by_time);
    for (size_t i = 0; i < count; i++) {
        uint64_t entry[2];
        memcpy(entry, s.order.ptr + i * 16, sizeof entry);
        const uint8_t *at = s.all.ptr + entry[1];
        lim__window_add(log, lim__bytes(at + 1, at[0]), entry[0]);
        log->window_size += at[0] + LIM__WINDOW_ROW;
    }
    log->window_count = count;
    bool failed = s.all.failed || s.order.failed;
    lim__buf_fini(&s.all);
    lim__buf_fini(&s.order);
    return failed ? LIM_E_NOMEM : err == 0 ? LIM_OK : LIM_E_IO;
}

/* What is retained; everything else of it is found when it is due. */
static lim_err restore_log(lim__log *log, lim__store *store)
{
    lim__stream_info info;
    uint32_t tries = 0;
    int err;
    do
        err = lim__store_stream(store, log->stream, &info);
    while (lim__read_again(log->bus, err, &tries));
    if (err != 0) {
        damaged(log, "its stream cannot be looked at");
        return LIM_OK;
    }
    log->first = info.count > 0 ? info.first : info.next;
    log->last = info.next - 1;
    log->count = info.count;
    log->bytes = info.bytes;
    log->first_ns = info.first_ns;
    log->keys_known = !log->opts.latest || info.count == 0;
    log->delayed_ns = log->expiring_ns = 0; /* not known: looked for by the first upkeep */
    lim__durable_stream_seen(log->bus, log->stream);
    return restore_window(log, store);
}

static bool restore_leavings(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)value;
    if (key.len == 12)
        lim__leavings_sweep(ctx, lim__key_get_u64((const uint8_t *)key.ptr + 4));
    return true;
}

lim_err lim__logs_restore(lim_bus *bus, lim_diag *diag)
{
    lim__store *store = lim__durable_store(bus);
    bus->logs = lim__logs_new(bus);
    restoring r = { .bus = bus };
    lim_bytes all = { NULL, 0 }, name;
    if (bus->logs == NULL)
        return LIM_E_NOMEM;
    if (lim__store_scan(store, LIM__TABLE_CHANNELS, all, all, restore_row, &r) != 0)
        r.err = LIM_E_IO;
    void *found;
    for (size_t pos = 0; r.err == LIM_OK && lim__smap_next(&bus->logs->names, &pos, &name, &found);) {
        lim__log *log = found;
        if (log->state == LIM__LOG_DAMAGED)
            damaged(log, "its row cannot be read");
        else
            r.err = restore_log(log, store);
        if (r.err == LIM_OK)
            r.err = lim__channel_attach_log(log, diag);
    }
    if (r.err == LIM_OK)
        r.err = lim__keeper_open(bus);
    if (r.err == LIM_OK)
        (void)lim__store_scan(store, LIM__TABLE_META, lim__str("gone"), all, restore_leavings, bus);
    return r.err;
}

lim__logs *lim__logs_new(lim_bus *bus)
{
    lim__logs *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->bus = bus;
    atomic_init(&all->next_number, bus->os->random(bus->os));
    pthread_mutex_init(&all->lock, NULL);
    pthread_mutex_init(&all->changing, NULL);
    lim__smap_init(&all->names, bus->os->random(bus->os));
    lim__map_init(&all->streams, bus->os->random(bus->os));
    return all;
}

void lim__logs_free(lim__logs *all)
{
    lim_bytes name;
    void *log;
    if (all == NULL)
        return;
    for (size_t pos = 0; lim__smap_next(&all->names, &pos, &name, &log);)
        lim__log_unref(log);
    lim__smap_fini(&all->names);
    lim__map_fini(&all->streams);
    pthread_mutex_destroy(&all->lock);
    pthread_mutex_destroy(&all->changing);
    free(all);
}
