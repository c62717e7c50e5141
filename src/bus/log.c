/* SPDX-License-Identifier: Apache-2.0
 * log.c - one durable channel: who waits for its messages, and what happens when more are stored.
 *
 *      store's thread:  committed --> tail, last --> a letter to each seat that awaits --> live subscriptions
 *
 * log_inside.h has the invariants. */
#include "bus/log_inside.h"

#include <stdlib.h>

static void push_nothing(void *body)
{
    (void)body;
}
const lim__letter_type lim__type_log_push = { "log_push", push_nothing };

/* ---- memory ---- */

void lim__log_opts_fini(lim__log_opts *opts)
{
    if (opts->dead_letter != NULL)
        lim__name_unref(opts->dead_letter);
    opts->dead_letter = NULL;
}

static void keys_fini(lim__log *log)
{
    lim_bytes text;
    void *key;
    for (size_t pos = 0; lim__smap_next(&log->keys, &pos, &text, &key);)
        free(key);
    lim__smap_fini(&log->keys);
}

lim__log *lim__log_new(lim_bus *bus, lim_bytes name, uint64_t stream)
{
    lim__log *log = calloc(1, sizeof *log);
    if (log == NULL)
        return NULL;
    log->name = lim__name_new(name);
    if (log->name == NULL) {
        free(log);
        return NULL;
    }
    log->bus = bus;
    log->stream = stream;
    log->state = LIM__LOG_CREATING;
    log->first = 1;
    log->deferred_last = &log->deferred;
    log->due_ns = log->delayed_ns = log->expiring_ns = UINT64_MAX;
    atomic_init(&log->refs, 1);
    pthread_mutex_init(&log->lock, NULL);
    lim__list_init(&log->seats);
    lim__list_init(&log->waiting);
    lim__smap_init(&log->keys, bus->os->random(bus->os));
    return log;
}

lim__log *lim__log_ref(lim__log *log)
{
    if (log != NULL)
        atomic_fetch_add_explicit(&log->refs, 1, memory_order_relaxed);
    return log;
}

void lim__log_unref(lim__log *log)
{
    if (log == NULL || atomic_fetch_sub_explicit(&log->refs, 1, memory_order_acq_rel) > 1)
        return;
    LIM_ASSERT(lim__list_empty(&log->seats));
    lim__tail_fini(log);
    keys_fini(log);
    lim__buf_fini(&log->row);
    lim__buf_fini(&log->window);
    lim__buf_fini(&log->stale);
    lim__log_opts_fini(&log->opts);
    lim__name_unref(log->name);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* ---- finding ---- */

lim_err lim__log_register(lim__log *log)
{
    lim__logs *all = log->bus->logs;
    lim__lock(&all->lock);
    lim_err err = lim__smap_put(&all->names, lim__name_bytes(log->name), log);
    if (err == LIM_OK && log->stream != 0 && (err = lim__map_put(&all->streams, log->stream, log)) != LIM_OK)
        lim__smap_remove(&all->names, lim__name_bytes(log->name));
    if (err == LIM_OK)
        lim__log_ref(log);
    lim__unlock(&all->lock);
    return err;
}

void lim__log_forget(lim__log *log)
{
    lim__logs *all = log->bus->logs;
    lim__lock(&all->lock);
    bool known = lim__smap_get(&all->names, lim__name_bytes(log->name)) == log;
    if (known)
        lim__smap_remove(&all->names, lim__name_bytes(log->name));
    if (log->stream != 0)
        lim__map_remove(&all->streams, log->stream);
    lim__unlock(&all->lock);
    if (known)
        lim__log_unref(log);
}

lim__log *lim__log_by_stream(lim_bus *bus, uint64_t stream)
{
    lim__logs *all = bus->logs;
    lim__lock(&all->lock);
    lim__log *log = lim__log_ref(lim__map_get(&all->streams, stream));
    lim__unlock(&all->lock);
    return log;
}

lim__log *lim__log_by_name(lim_bus *bus, lim_bytes name)
{
    lim__logs *all = bus->logs;
    if (all == NULL)
        return NULL;
    lim__lock(&all->lock);
    lim__log *log = lim__log_ref(lim__smap_get(&all->names, name));
    lim__unlock(&all->lock);
    return log;
}

lim_err lim__log_find(lim_bus *bus, lim_bytes channel, lim__log **out)
{
    lim__log *log = lim__log_by_name(bus, channel);
    if (log != NULL) {
        *out = log;
        return LIM_OK;
    }
    lim__channel *ch = lim__channel_find(bus->channels, channel);
    lim__channel_unref(ch);
    return ch != NULL ? LIM_E_MISUSE : LIM_E_NOTFOUND;
}

lim__log *lim__channel_log(lim__channel *ch)
{
    /* acquire: pairs with the release of who gave it its log */
    return ch != NULL ? atomic_load_explicit(&ch->log, memory_order_acquire) : NULL;
}

uint64_t lim__log_stream(const lim__log *log)
{
    return log->stream;
}

lim_bytes lim__log_name(const lim__log *log)
{
    return lim__name_bytes(log->name);
}

lim__class lim__log_class(const lim__log *log)
{
    lim__log *l = (lim__log *)(uintptr_t)log;
    lim__lock(&l->lock);
    lim_sync sync = l->opts.sync;
    lim__unlock(&l->lock);
    return sync == 0 ? lim__durable_class(log->bus) : sync == LIM_SYNC_ALWAYS ? LIM__CLASS_DISK : LIM__CLASS_OS;
}

void lim__log_span(lim__log *log, uint64_t *first, uint64_t *last)
{
    lim__lock(&log->lock);
    *first = log->first;
    *last = log->last;
    lim__unlock(&log->lock);
}

/* ---- seats ---- */

/* False: no memory, it still awaits. */
static bool seat_tell(lim__log *log, lim__log_seat *seat, lim_err why)
{
    lim__log_push *p = lim__letter_new(NULL, &lim__type_log_push, sizeof *p);
    if (p == NULL)
        return false;
    *p = (lim__log_push){ seat->ref, why };
    if (seat->awaits)
        lim__list_remove(&seat->waiting);
    seat->awaits = false;
    (void)!lim__post_reserved(log->bus->rt, seat->reader, p); /* dead: it leaves in its end */
    return true;
}

/* Under the lock: what is posted after a seat left would come too late. Posting takes no lock that is held over us. */
static void ring_locked(lim__log *log)
{
    if (!lim__list_empty(&log->waiting))
        lim__bus_lively(log->bus, log->bus->os->now_ns(log->bus->os));
    LIM__LIST_EACH_SAFE(node, next, &log->waiting) {
        if (!seat_tell(log, LIM_CONTAINER(node, lim__log_seat, waiting), LIM_OK))
            return; /* at the next commit */
    }
}

void lim__log_tell(lim__log *log, lim_err why)
{
    lim__lock(&log->lock);
    LIM__LIST_EACH_SAFE(node, next, &log->seats)
        (void)seat_tell(log, LIM_CONTAINER(node, lim__log_seat, node), why);
    lim__unlock(&log->lock);
}

lim_err lim__log_sit(lim__log *log, lim__log_seat *seat)
{
    lim__lock(&log->lock);
    bool open = log->state == LIM__LOG_OPEN || log->state == LIM__LOG_CREATING;
    if (open) {
        lim__list_push(&log->seats, &seat->node);
        lim__list_init(&seat->waiting);
        seat->seated = true;
        seat->awaits = false;
        log->seat_count++;
    }
    lim__unlock(&log->lock);
    return open ? LIM_OK : LIM_E_GONE;
}

static void unawait_locked(lim__log_seat *seat)
{
    if (seat->awaits)
        lim__list_remove(&seat->waiting);
    seat->awaits = false;
}

void lim__log_leave(lim__log *log, lim__log_seat *seat)
{
    lim__lock(&log->lock);
    if (seat->seated) {
        unawait_locked(seat);
        lim__list_remove(&seat->node);
        seat->seated = false;
        log->seat_count--;
    }
    lim__unlock(&log->lock);
}

bool lim__log_await(lim__log *log, lim__log_seat *seat, uint64_t seen)
{
    lim__lock(&log->lock);
    LIM_ASSERT(seat->seated);
    bool waits = log->last <= seen;
    if (waits && !seat->awaits) {
        lim__list_push(&log->waiting, &seat->waiting);
        seat->awaits = true;
    }
    lim__unlock(&log->lock);
    return waits;
}

/* ---- what was stored ---- */

static void stale_add(lim__log *log, uint64_t seq)
{
    lim__buf_add(&log->stale, &seq, sizeof seq);
    if (log->stale.failed) { /* looked for again, from the beginning */
        log->stale.failed = false;
        log->keys_known = false;
    }
}

/* What an older message of this key was is to be erased, unless that happened in the same step (`erased`). */
void lim__log_key_seen(lim__log *log, lim_bytes key, uint64_t seq, uint32_t bytes, uint64_t erased)
{
    lim__log_key *k = lim__smap_get(&log->keys, key);
    if (k == NULL) {
        k = malloc(sizeof *k + key.len);
        if (k == NULL) {
            log->keys_known = false;
            return;
        }
        *k = (lim__log_key){ seq, bytes, (uint8_t)key.len };
        memcpy(k->text, key.ptr, key.len);
        if (lim__smap_put(&log->keys, lim__bytes(k->text, k->len), k) != LIM_OK) {
            free(k);
            log->keys_known = false;
        }
        return;
    }
    if (k->seq > seq) { /* found by a look at the whole stream, which is behind */
        stale_add(log, seq);
        return;
    }
    if (k->seq != erased && k->seq != seq) {
        stale_add(log, k->seq);
    } else if (k->seq == erased) {
        log->count -= log->count > 0;
        log->bytes -= log->bytes > k->bytes ? k->bytes : log->bytes;
    }
    k->seq = seq;
    k->bytes = bytes;
}

static bool over_limits(const lim__log *log)
{
    const lim__log_opts *o = &log->opts;
    return (o->count_max > 0 && log->count > o->count_max) || (o->bytes_max > 0 && log->bytes > o->bytes_max) ||
           lim__buf_len(&log->stale) > 0 || (o->latest && !log->keys_known);
}

uint64_t lim__log_next_due(const lim__log *log, uint64_t now_ns)
{
    uint64_t due = lim__window_due(log);
    if (log->delayed_ns < due)
        due = log->delayed_ns;
    if (log->expiring_ns < due)
        due = log->expiring_ns;
    if (log->opts.age_ns > 0 && log->count > 0 && log->first_ns + log->opts.age_ns < due)
        due = log->first_ns + log->opts.age_ns;
    return over_limits(log) ? now_ns : due;
}

static void stored_locked(lim__log *log, const lim__log_stored *s)
{
    lim__tail_push(log, &s->logged);
    log->first = log->count == 0 ? s->logged.seq : log->first;
    log->first_ns = log->count == 0 ? s->logged.wall_ns : log->first_ns;
    log->count++;
    log->bytes += s->bytes;
    log->last = s->logged.seq;
    if (s->trimmed > log->first) {
        log->first = s->trimmed;
        log->count = log->last + 1 - log->first;
    }
    if (s->idempotency_key.len > 0) {
        lim__window_add(log, s->idempotency_key, s->logged.wall_ns);
        log->window_count++;
        log->window_size += s->idempotency_key.len + LIM__WINDOW_ROW;
    }
    if (log->opts.latest && s->key.len > 0)
        lim__log_key_seen(log, s->key, s->logged.seq, (uint32_t)s->bytes, s->erased);
    if (s->expiring_ns < log->expiring_ns)
        log->expiring_ns = s->expiring_ns;
    ring_locked(log);
}

/* Live subscriptions get it as from a host thread: whose lock also keeps the entry, whichever it is by now. */
static void deliver_live(lim__log *log, lim__msg *msg, lim_admission *out)
{
    lim__channels *all = log->bus->channels;
    lim__host_turn turn;
    lim__host_enter(all, &turn);
    lim__channel *ch = atomic_load_explicit(&log->ch, memory_order_acquire);
    if (ch != NULL)
        lim__publish_stored(ch, msg, out);
    lim__host_leave(&turn);
}

void lim__log_land(lim__log *log, lim__log_stored *s, lim_admission *out)
{
    lim__lock(&log->lock);
    uint64_t now = s->logged.wall_ns;
    stored_locked(log, s);
    uint64_t due = lim__log_next_due(log, now);
    uint32_t seats = log->seat_count;
    lim__unlock(&log->lock);
    *out = (lim_admission){ .verdict = LIM_ACCEPT };
    bool alive = s->logged.expires_wall_ns == 0 || s->logged.expires_wall_ns > now;
    if (s->logged.msg != NULL && alive)
        deliver_live(log, s->logged.msg, out);
    out->matched += seats;
    out->delivered += seats;
    if (due != UINT64_MAX)
        lim__log_want(log, due);
}

/* Those who do not read get messages: only for them these are made. */
static void deliver_block(lim__log *log, const lim__log_block *block, lim_admission *out)
{
    lim__channels *all = log->bus->channels;
    lim__log_view v;
    lim__lock(&all->host_lock);
    lim__channel *ch = atomic_load_explicit(&log->ch, memory_order_acquire);
    bool heard = ch != NULL && !lim__publish_unheard(ch, block->count);
    for (size_t pos = 0; heard && lim__log_block_next(block, &pos, &v);) {
        lim__msg *msg = lim__msg_new_with(v.payload, v.headers);
        if (msg == NULL)
            continue; /* as one whose headers could not be made: it is stored, and read by who reads */
        lim__publish_stored(ch, msg, out);
        lim__msg_unref(msg);
    }
    lim__unlock(&all->host_lock);
}

static void block_stored_locked(lim__log *log, lim__log_block *block, uint64_t bytes, uint64_t trimmed)
{
    lim__tail_push_block(log, block);
    log->first = log->count == 0 ? block->first : log->first;
    log->first_ns = log->count == 0 ? block->wall_ns : log->first_ns;
    log->count += block->count;
    log->bytes += bytes;
    log->last = block->first + block->count - 1;
    if (trimmed > log->first) {
        log->first = trimmed;
        log->count = log->last + 1 - log->first;
    }
    ring_locked(log);
}

void lim__log_land_block(lim__log *log, lim__log_block *block, uint64_t bytes, uint64_t trimmed, lim_admission *out)
{
    lim__lock(&log->lock);
    block_stored_locked(log, block, bytes, trimmed);
    uint64_t due = lim__log_next_due(log, block->wall_ns);
    uint32_t seats = log->seat_count;
    lim__unlock(&log->lock);
    *out = (lim_admission){ .verdict = LIM_ACCEPT };
    deliver_block(log, block, out);
    out->matched += seats;
    out->delivered += seats;
    if (due != UINT64_MAX)
        lim__log_want(log, due);
}

void lim__log_stored_read(lim__batch *batch, uint32_t i, const lim__committed *what, lim__log_stored *out)
{
    lim_bytes data = lim__batch_record(batch, i, &out->stream, &out->key);
    lim__log_record r;
    out->logged = (lim__logged){ .seq = lim__batch_seq(batch, i), .wall_ns = what->first_ns };
    out->bytes = out->key.len + data.len;
    out->expiring_ns = UINT64_MAX;
    if (!lim__log_record_read(data, &r))
        return;
    out->logged.expires_wall_ns = r.expires_wall_ns;
    out->logged.msg = lim__log_msg(out->key, &r);
    out->idempotency_key = r.idempotency_key;
    out->expiring_ns = r.expires_wall_ns != 0 ? r.expires_wall_ns : UINT64_MAX;
}

void lim__log_committed(lim_bus *bus, lim__batch *batch, const lim__committed *what)
{
    if (what->how != LIM__COMMITTED || bus->logs == NULL)
        return;
    for (uint32_t i = 0; i < lim__batch_appends(batch); i++) {
        lim__log_stored s = { 0 };
        lim_admission unused;
        lim__log_stored_read(batch, i, what, &s);
        lim__log *log = lim__log_by_stream(bus, s.stream);
        if (log != NULL)
            lim__log_land(log, &s, &unused);
        lim__log_unref(log);
        lim__msg_unref(s.logged.msg);
    }
}

void lim__log_check(lim__log *log)
{
    lim__lock(&log->lock);
    lim__tail_check(log);
    lim__unlock(&log->lock);
}
