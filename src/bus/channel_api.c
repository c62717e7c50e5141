/* SPDX-License-Identifier: Apache-2.0
 * channel_api.c - channels for the embedder: the public verbs, and the process behind each local subscription.
 *
 * A channel's id leads to its entry without a lock or a count: entries are freed as late as tables are.
 *
 * A local subscription is a process with an own_turn subscription. User code runs in that process's turns, a batch of
 * messages per bell, never inside a publish. What it shares with other threads is a `local`:
 *
 *      IDLE <--on_message returned, or not yet called--> RUNNING        the process, one compare-and-swap per message
 *        |                                                  |
 *        `----------------- STOPPED <-----------------------'           lim_unsubscribe, the end of the process
 *
 * So after lim_unsubscribe returned no new call of on_message begins; one that had begun may still be running on
 * another thread (with lim_unsubscribe called from inside it, that very one). on_end comes after it.
 *
 * Credit: LIM_DONE returns one place of the window at once. LIM_HOLD remembers the sequence number; lim_complete says
 * up to which such messages are done. It leaves the number where the process looks and rings: completing costs no
 * letter of its own and cannot find a full mailbox. */
#include "bus/bus.h"
#include "bus/channel_inside.h"
#include "bus/channel_local.h"
#include "bus/log_inside.h"
#include "bus/reader.h"

#include <stdlib.h>

enum { WINDOW_DEFAULT = 1024, BACKLOG_DEFAULT = 65536 };

typedef enum local_state { LOCAL_IDLE = 1, LOCAL_RUNNING, LOCAL_STOPPED } local_state;

/* Decides who wins when the process is killed while lim_subscribe is still at work. */
typedef enum local_birth { LOCAL_UNBORN = 1, LOCAL_BORN, LOCAL_DEAD } local_birth;

typedef struct local { /* a local subscription */
    lim__local base;   /* first */
    /* set once */
    lim_bus *bus;
    lim__sub *sub;
    lim_handler handler;
    lim_pid pid;
    /* any thread */
    _Atomic uint32_t state; /* local_state */
    _Atomic uint64_t complete_upto;
    _Atomic uint32_t birth; /* local_birth: whether the handler is ours, and so on_end to be called */
    /* its process */
    uint64_t *held; /* held_cap (a power of two) sequence numbers, held_count of them from held_first, ascending */
    uint32_t held_first, held_count, held_cap;
} local;

/* ---- channels ---- */

static bool is_system(const char *name)
{
    return name[0] == '$';
}

static bool is_closing(lim_bus *bus)
{
    return atomic_load_explicit(&bus->closing, memory_order_acquire) != 0;
}

/* The id under which the embedder knows it; 0: no memory. */
static uint64_t channel_id_locked(lim__channel *ch)
{
    lim__ids *ids = &ch->all->channel_ids;
    if (ch->id)
        return ch->id;
    ch->id = lim__ids_take(ids);
    if (ch->id)
        lim__ids_set(ids, ch->id, ch);
    return ch->id;
}

lim_err lim_channel_open(lim_bus *bus, const char *name, const lim_channel_opts *opts, lim_channel *out)
{
    if (!bus || !name || !out || (opts && opts->size != sizeof *opts))
        return LIM_E_MISUSE;
    if (!lim__channel_name_ok(lim__str(name)))
        return LIM_E_INVALID;
    if (is_system(name))
        return LIM_E_DENIED;
    if (is_closing(bus))
        return LIM_E_CLOSED;
    lim__channels *all = bus->channels;
    lim__channel *ch;
    lim__log *log = NULL;
    lim_err err = opts && opts->durable ? lim__log_open(bus, lim__str(name), opts, true, NULL, &log, NULL) : LIM_OK;
    if (err != LIM_OK)
        return err;
    lim__log_unref(log);
    lim__lock(&all->lock);
    err = lim__channel_open_locked(all, lim__str(name), opts, &ch);
    uint64_t id = err == LIM_OK ? channel_id_locked(ch) : 0;
    lim__unlock(&all->lock);
    if (err != LIM_OK)
        return err;
    lim__channel_unref(ch); /* being open keeps it */
    if (!id)
        return LIM_E_NOMEM;
    *out = (lim_channel){ id };
    return LIM_OK;
}

/* Under the registry's lock, host_lock, or in a scheduler's turn. NULL: no longer open. */
static lim__channel *channel_of(lim__channels *all, lim_channel channel)
{
    lim__channel *ch = lim__ids_get(&all->channel_ids, channel.id);
    return ch && ch->id == channel.id ? ch : NULL;
}

lim_err lim_channel_close(lim_bus *bus, lim_channel channel)
{
    if (!bus)
        return LIM_E_MISUSE;
    lim__channels *all = bus->channels;
    lim__lock(&all->lock);
    lim__channel *ch = channel_of(all, channel);
    if (ch)
        lim__channel_close_locked(ch);
    lim__unlock(&all->lock);
    return ch ? LIM_OK : LIM_E_GONE;
}

lim__log *lim__log_of_handle(lim_bus *bus, lim_channel channel)
{
    lim__channels *all = bus->channels;
    lim__lock(&all->lock);
    lim__channel *ch = channel_of(all, channel);
    lim__log *log = ch ? lim__log_ref(LIM__RELAXED(ch->log)) : NULL;
    lim__unlock(&all->lock);
    return log;
}

static lim_err publish_closing(lim_bus *bus, const lim_publish_opts *opts, lim_admission *out)
{
    *out = (lim_admission){ .verdict = LIM_REJECT, .why = LIM_WHY_CLOSING, .retry_after_ms = LIM__RETRY_AFTER_MS };
    lim__receipt_refused(bus, opts, out);
    return LIM_OK;
}

static lim_err publish_durable(lim__log *log, lim_bytes payload, const lim_publish_opts *opts, lim_admission *out)
{
    lim_err err = lim__publish_logged(log, payload, opts, out);
    lim__log_unref(log);
    return err;
}

/* Of an ephemeral channel. The key goes into the headers; everything else is refused. */
static lim_err headers_of(const lim_publish_opts *opts, lim__buf *headers)
{
    if (!opts || (!opts->key && !lim__publish_opts_durable(opts)))
        return LIM_OK;
    if (lim__publish_opts_durable(opts) || strlen(opts->key) > LIM__LOG_KEY_MAX)
        return LIM_E_MISUSE;
    return lim__packed_add(headers, lim__str("$key"), lim__str(opts->key));
}

lim_err lim_publish(lim_bus *bus, lim_channel channel, lim_bytes payload, const lim_publish_opts *opts,
                    lim_admission *out)
{
    if (!bus || !out || (payload.len > 0 && !payload.ptr) || (opts && opts->size != sizeof *opts))
        return LIM_E_MISUSE;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    if (is_closing(bus))
        return publish_closing(bus, opts, out);
    lim__channels *all = bus->channels;
    lim__sched *here = lim__sched_here(all);
    lim__buf headers = { 0 };
    lim__host_turn turn = { 0 };
    if (!here)
        lim__host_enter(all, &turn);
    lim__channel *ch = channel_of(all, channel);
    lim__log *log = lim__log_ref(lim__channel_log(ch));
    bool mandatory = opts && opts->mandatory;
    lim_err err = ch ? LIM_OK : LIM_E_GONE;
    if (err == LIM_OK && !log && (err = headers_of(opts, &headers)) == LIM_OK)
        err = lim__publish_covered(all, NULL, here, ch, payload, lim__buf_bytes(&headers), mandatory, out);
    if (!here)
        lim__host_leave(&turn);
    lim__buf_fini(&headers);
    if (log)
        return publish_durable(log, payload, opts, out);
    return err == LIM_E_CLOSED ? LIM_E_GONE : err; /* closed between the look and the publish */
}

/* ---- local subscriptions: memory ---- */

static void local_unref(local *l)
{
    if (atomic_fetch_sub_explicit(&l->base.refs, 1, memory_order_acq_rel) > 1)
        return;
    lim__sub_close(NULL, l->sub);
    free(l->held);
    free(l);
}

void lim__local_unref(lim__local *l)
{
    if (l->kind == LIM__LOCAL_READS)
        lim__reads_unref(l);
    else
        local_unref((local *)(void *)l);
}

lim__local *lim__local_of(lim__channels *all, lim_sub sub)
{
    lim__lock(&all->lock);
    lim__local *l = lim__ids_get(&all->local_ids, sub.id);
    if (l && l->id == sub.id)
        atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    else
        l = NULL;
    lim__unlock(&all->lock);
    return l;
}

uint64_t lim__local_enter(lim__channels *all, lim__local *l)
{
    lim__lock(&all->lock);
    uint64_t id = l->id = lim__ids_take(&all->local_ids);
    if (id)
        lim__ids_set(&all->local_ids, id, l);
    lim__unlock(&all->lock);
    return id;
}

bool lim__local_forget(lim__channels *all, lim__local *l)
{
    lim__lock(&all->lock);
    bool known = l->id && lim__ids_get(&all->local_ids, l->id) == l;
    if (known)
        lim__ids_give(&all->local_ids, l->id);
    lim__unlock(&all->lock);
    return known;
}

static bool local_forget(local *l)
{
    return lim__local_forget(l->bus->channels, &l->base);
}

/* ---- local subscriptions: held messages ---- owner's turn */

static uint64_t *held_at(local *l, uint32_t i)
{
    return &l->held[(l->held_first + i) & (l->held_cap - 1)];
}

static bool held_reserve(local *l)
{
    if (l->held_count < l->held_cap)
        return true;
    uint32_t cap = l->held_cap ? l->held_cap * 2 : 16;
    uint64_t *held = malloc(cap * sizeof *held);
    if (!held)
        return false;
    for (uint32_t i = 0; i < l->held_count; i++)
        held[i] = *held_at(l, i);
    free(l->held);
    l->held = held;
    l->held_cap = cap;
    l->held_first = 0;
    return true;
}

static void held_add(local *l, uint64_t seq)
{
    *held_at(l, l->held_count) = seq; /* local_ready reserved it */
    l->held_count++;
}

static uint32_t held_take(local *l)
{
    uint64_t upto = atomic_load_explicit(&l->complete_upto, memory_order_acquire);
    uint32_t n = 0;
    for (; n < l->held_count && *held_at(l, n) <= upto; n++)
        ;
    l->held_first = n > 0 ? (l->held_first + n) & (l->held_cap - 1) : l->held_first;
    l->held_count -= n;
    return n;
}

/* ---- local subscriptions: the process ---- */

static bool step(_Atomic uint32_t *state, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(state, &from, to);
}

static bool local_ready(void *ctx)
{
    local *l = ctx;
    return atomic_load_explicit(&l->state, memory_order_acquire) == LOCAL_IDLE && held_reserve(l);
}

static void local_deliver(void *ctx, lim__sub *sub, uint64_t seq, lim_bytes channel, lim_bytes headers,
                          lim_bytes payload, lim__msg *msg)
{
    local *l = ctx;
    lim_delivery d = {
        .payload = payload,
        .headers = headers,
        .channel = channel,
        .seq = seq,
        .remaining_ms = LIM_FOREVER,
        .msg = (lim_msg *)(void *)msg,
    };
    if (!step(&l->state, LOCAL_IDLE, LOCAL_RUNNING))
        return; /* unsubscribed: it was never delivered */
    lim_done done = l->handler.on_message(l->bus, &d, l->handler.ctx);
    if (done == LIM_HOLD)
        held_add(l, seq);
    step(&l->state, LOCAL_RUNNING, LOCAL_IDLE);
    /* Not through a pump: we are in one, which goes on. */
    lim__sub_return(sub, done == LIM_HOLD ? held_take(l) : 1);
}

typedef struct local_init {
    local *l;
} local_init;

static void local_ended(void *ctx, lim__sub *sub, lim_err why)
{
    (void)sub, (void)why;
    local *l = ctx;
    local_forget(l);
    lim_runtime_exit(l->bus->rt, l->pid, LIM_SHUTDOWN);
}

static const lim__sub_ops local_ops = { .ready = local_ready, .deliver = local_deliver, .ended = local_ended };

static void local_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    local *l = ((local_init *)state)->l;
    lim__sub_on_signal(self, signal);
    uint32_t done = held_take(l); /* after the bell was taken down: who completes from here on rings again */
    if (done > 0)
        lim__sub_credit(self, l->sub, done);
}

static void local_on_end(void *state, lim_reason reason)
{
    (void)reason;
    local *l = ((local_init *)state)->l;
    local_forget(l);
    atomic_store(&l->state, LOCAL_STOPPED);
    lim__sub_detach(l->sub);
    bool born = atomic_exchange(&l->birth, LOCAL_DEAD) == LOCAL_BORN;
    if (l->handler.on_end && born)
        l->handler.on_end(l->handler.ctx);
    local_unref(l);
}

/* ---- local subscriptions: opening ---- */

static lim_err local_new(lim_bus *bus, const char *pattern, const lim_sub_opts *opts, local **out)
{
    local *l = calloc(1, sizeof *l);
    if (!l)
        return LIM_E_NOMEM;
    lim__sub_config config = {
        .pattern = lim__str(pattern),
        .window = opts->window ? opts->window : WINDOW_DEFAULT,
        .backlog = opts->backlog ? opts->backlog : BACKLOG_DEFAULT,
        .policy = opts->policy ? opts->policy : LIM_DROP_OLDEST,
        .ops = &local_ops,
        .ctx = l,
        .owner_name = lim__str("local"),
        .own_turn = true,
    };
    lim_err err = lim__sub_new(bus->channels, &config, NULL, &l->sub);
    if (err != LIM_OK) {
        free(l);
        return err;
    }
    l->bus = bus;
    l->handler = opts->handler;
    l->base.kind = LIM__LOCAL_LIVE;
    atomic_init(&l->base.refs, 2); /* ours and the process's */
    atomic_init(&l->state, LOCAL_IDLE);
    atomic_init(&l->birth, LOCAL_UNBORN);
    *out = l;
    return LIM_OK;
}

static lim_err local_spawn(local *l)
{
    local_init init = { l };
    lim_spawn_opts spawn = {
        .size = sizeof spawn,
        .name = "subscriber",
        .on_signal = local_on_signal,
        .on_end = local_on_end,
        .state_bytes = sizeof init,
        .init = &init,
        .init_bytes = sizeof init,
    };
    lim_err err = lim_runtime_spawn(l->bus->rt, &spawn, &l->pid);
    if (err == LIM_OK)
        lim__sub_own(l->sub, l->pid);
    return err;
}

/* An id that leads to it, then a place in the tables: from then on messages come. */
static lim_err local_enter(local *l, uint64_t *id)
{
    *id = lim__local_enter(l->bus->channels, &l->base);
    if (!*id)
        return LIM_E_NOMEM;
    lim_err err = lim__sub_enter(l->sub, NULL);
    if (err != LIM_OK)
        local_forget(l);
    return err;
}

lim_err lim_subscribe(lim_bus *bus, const char *pattern, const lim_sub_opts *opts, lim_sub *out)
{
    if (!bus || !pattern || !out || !opts || opts->size != sizeof *opts || !opts->handler.on_message)
        return LIM_E_MISUSE;
    if (opts->backlog == LIM_UNLIMITED)
        return LIM_E_MISUSE;
    if (is_closing(bus))
        return LIM_E_CLOSED;
    if (lim__reader_wanted(bus, lim__str(pattern), opts->policy, &opts->read))
        return lim__reads_subscribe(bus, pattern, opts, out);
    if (opts->window == LIM_PULL)
        return LIM_E_MISUSE; /* only a log waits to be fetched */
    local *l = NULL;
    lim_err err = local_new(bus, pattern, opts, &l);
    if (err != LIM_OK)
        return err;
    err = local_spawn(l);
    if (err != LIM_OK) {
        local_unref(l); /* the process's, which there is none of */
        local_unref(l);
        return err;
    }
    uint64_t id;
    err = local_enter(l, &id);
    if (err == LIM_OK && !step(&l->birth, LOCAL_UNBORN, LOCAL_BORN))
        err = LIM_E_GONE; /* the bus is closing */
    if (err == LIM_OK)
        *out = (lim_sub){ id };
    else
        lim_runtime_exit(bus->rt, l->pid, LIM_KILL);
    local_unref(l);
    return err;
}

/* ---- local subscriptions: using ---- */

lim_err lim_unsubscribe(lim_bus *bus, lim_sub sub)
{
    lim__local *any = bus ? lim__local_of(bus->channels, sub) : NULL;
    if (!any)
        return bus ? LIM_E_GONE : LIM_E_MISUSE;
    if (any->kind == LIM__LOCAL_READS)
        return lim__reads_unsubscribe(any);
    local *l = (local *)(void *)any;
    bool first = local_forget(l);
    atomic_store(&l->state, LOCAL_STOPPED);
    lim__sub_detach(l->sub);
    if (first)
        lim_runtime_exit(bus->rt, l->pid, LIM_SHUTDOWN);
    local_unref(l);
    return first ? LIM_OK : LIM_E_GONE;
}

lim_err lim_complete(lim_bus *bus, lim_sub sub, uint64_t seq)
{
    lim__local *any = bus ? lim__local_of(bus->channels, sub) : NULL;
    if (!any)
        return bus ? LIM_E_GONE : LIM_E_MISUSE;
    if (any->kind == LIM__LOCAL_READS)
        return lim__reads_complete(any, seq);
    local *l = (local *)(void *)any;
    lim_sub_info info;
    lim__sub_info(l->sub, &info);
    lim_err err = seq > 0 && seq <= info.delivered ? LIM_OK : LIM_E_INVALID;
    uint64_t before = atomic_load_explicit(&l->complete_upto, memory_order_relaxed);
    while (err == LIM_OK && before < seq) {
        /* release: pairs with the acquire in held_take */
        if (atomic_compare_exchange_weak_explicit(&l->complete_upto, &before, seq, memory_order_release,
                                                  memory_order_relaxed)) {
            lim__sub_ring(l->sub, NULL);
            break;
        }
    }
    local_unref(l);
    return err;
}

lim_err lim_sub_inspect(lim_bus *bus, lim_sub sub, lim_sub_info *out)
{
    lim__local *any = bus && out ? lim__local_of(bus->channels, sub) : NULL;
    if (!any)
        return bus && out ? LIM_E_GONE : LIM_E_MISUSE;
    if (any->kind == LIM__LOCAL_READS)
        return lim__reads_inspect(any, out);
    local *l = (local *)(void *)any;
    lim__sub_info(l->sub, out);
    local_unref(l);
    return LIM_OK;
}
