/* SPDX-License-Identifier: Apache-2.0
 * reader_local.c - reading a log for the embedder: the process behind a local subscription that reads.
 *
 *      reader --letter of messages--> process --on_message, one at a time--> DONE: acknowledged, with the others of its
 * batch |                                   HOLD: lim_ack, lim_nack, lim_complete, from anywhere
 *                                        `--more--> reader                   FAIL: refused, delivered again after a
 * pause
 *
 * IDLE <--on_message--> RUNNING, and from both STOPPED, as in channel_api.c: no call begins after lim_unsubscribe
 * returned.
 *
 * `held` has the numbers that the handler has and has not settled; it is entered before on_message is called, so that
 * whoever acknowledges from another thread, however early, finds it, and only the first settles it. Under `lock`, a
 * leaf.
 *
 * When the process of its reader was ended (`over` with UNREACHABLE) it attaches again a moment later, with the same
 * options; what it had in hand comes again, and nobody can settle it from before. */
#include "bus/bus.h"
#include "bus/channel_local.h"
#include "bus/letters.h"
#include "bus/reader.h"
#include "data/block.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW_DEFAULT = 1024, BATCH_MAX = 64, BATCH_NS_MAX = 200000, AGAIN_NS = 10000000 };

typedef enum local_state { LOCAL_IDLE = 1, LOCAL_RUNNING, LOCAL_STOPPED } local_state;
typedef enum local_birth { LOCAL_UNBORN = 1, LOCAL_BORN, LOCAL_DEAD } local_birth;

typedef struct reads {
    lim__local local; /* first */
    /* set once */
    lim_bus *bus;
    lim_handler handler;
    lim_pid pid;
    lim_read_opts read; /* its texts are ours */
    lim__name *channel;
    uint32_t window;
    /* any thread */
    _Atomic uint32_t state, birth;
    _Atomic uint64_t delivered;
    lim__mutex lock;
    lim__map held;        /* number -> this */
    lim__reading reading; /* another one when its reader has died */
    /* its process */
    lim__list letters; /* of messages, that are still to be handled */
    bool again;        /* a letter to itself is on its way */
    bool over;
    uint32_t done_count;
    uint64_t done[BATCH_MAX];
} reads;

typedef struct kept_letter {
    lim__list node;
    lim__read_msgs *msgs; /* or: */
    lim__read_row *row;
    uint32_t at, count;
    lim_bytes rest; /* of a row: those that are still to be handled */
} kept_letter;

static bool step(_Atomic uint32_t *state, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(state, &from, to);
}

/* ---- memory ---- */

static void kept_free(kept_letter *k)
{
    for (uint32_t i = 0; k->msgs != NULL && i < k->at; i++)
        k->msgs->item[i].msg = NULL;
    lim__letter_free(lim__sched_current(), k->msgs != NULL ? (void *)k->msgs : (void *)k->row);
    free(k);
}

/* The next message, with a reference. False: no memory. */
static bool kept_take(kept_letter *k, lim__read_item *out)
{
    lim_bytes rest = k->rest, headers, payload;
    if (k->msgs != NULL) {
        *out = k->msgs->item[k->at];
        k->msgs->item[k->at++].msg = NULL;
        return true;
    }
    if (LIM_NEVER(!lim__block_next(&rest, &headers, &payload)))
        return false;
    *out = (lim__read_item){ k->row->first + k->at, 1, lim__msg_new_with(payload, headers) };
    if (out->msg == NULL)
        return false;
    k->rest = rest;
    k->at++;
    return true;
}

static void letters_free(reads *s)
{
    for (lim__list *node; (node = lim__list_pop(&s->letters)) != NULL;)
        kept_free(LIM_CONTAINER(node, kept_letter, node));
}

void lim__reads_unref(lim__local *l)
{
    reads *s = (reads *)(void *)l;
    if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) > 1)
        return;
    letters_free(s);
    lim__map_fini(&s->held);
    lim__name_unref(s->channel);
    free((void *)(uintptr_t)s->read.cursor);
    free((void *)(uintptr_t)s->read.dead_letter);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- held ---- */

static lim__reading reading_of(reads *s)
{
    lim__lock(&s->lock);
    lim__reading reading = s->reading;
    lim__unlock(&s->lock);
    return reading;
}

static bool hold(reads *s, uint64_t seq)
{
    lim__lock(&s->lock);
    bool ok = lim__map_put(&s->held, seq, s) == LIM_OK;
    lim__unlock(&s->lock);
    return ok;
}

/* True for the one who settles it. */
static bool settle(reads *s, uint64_t seq)
{
    lim__lock(&s->lock);
    bool was = lim__map_remove(&s->held, seq) != NULL;
    lim__unlock(&s->lock);
    return was;
}

/* ---- its process ---- */

/* Messages may come from here on, which when subscribing is before the caller knows the id. */
static lim_err attach(reads *s, lim_process *self, lim__reading *out)
{
    lim_diag diag = { 0 };
    const lim__read_want want = { .channel = lim__name_bytes(s->channel),
                                  .read = s->read,
                                  .window = s->window,
                                  .owner = s->pid,
                                  .owner_name = lim__str("local") };
    lim_err err = lim__reader_attach(s->bus, self, &want, &diag, out);
    if (err != LIM_OK && diag.text[0] != '\0')
        lim__bus_log(s->bus, "event=subscribe_refused detail=\"%s\"", diag.text);
    return err;
}

static void send_done(lim_process *self, reads *s)
{
    if (s->done_count == 0)
        return;
    const lim__read_ack ack = { .how = LIM__READ_DONE, .seqs = s->done, .count = s->done_count };
    s->done_count = 0;
    (void)!lim__reader_ack(s->bus, self, s->reading, &ack); /* no memory: it is delivered again when its time is over */
}

static void refuse(lim_process *self, reads *s, uint64_t seq)
{
    const lim__read_ack ack = { .how = LIM__READ_AGAIN, .delay_ns = LIM__READ_BACKOFF, .seqs = &seq, .count = 1 };
    (void)!lim__reader_ack(s->bus, self, s->reading, &ack);
}

/* False: unsubscribed. */
static bool handle(lim_process *self, reads *s, const lim__read_item *item)
{
    lim_delivery d = { .payload = lim__msg_bytes(item->msg),
                       .headers = lim__msg_headers(item->msg),
                       .channel = lim__name_bytes(s->channel),
                       .seq = item->seq,
                       .remaining_ms = LIM_FOREVER,
                       .msg = (lim_msg *)(void *)item->msg };
    if (!step(&s->state, LOCAL_IDLE, LOCAL_RUNNING))
        return false;
    atomic_fetch_add_explicit(&s->delivered, 1, memory_order_relaxed);
    bool noted = hold(s, item->seq);
    lim_done done = s->handler.on_message(s->bus, &d, s->handler.ctx);
    step(&s->state, LOCAL_RUNNING, LOCAL_IDLE);
    if (done == LIM_HOLD && noted)
        return true;
    if (noted && !settle(s, item->seq))
        return true; /* lim_ack was faster */
    if (done == LIM_DONE)
        s->done[s->done_count++] = item->seq;
    else
        refuse(self, s, item->seq);
    return true;
}

static uint64_t clock_ns(const reads *s)
{
    return s->bus->os->now_ns(s->bus->os);
}

static void ring_itself(lim_process *self, reads *s)
{
    lim__command *c = s->again ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_push, sizeof *c);
    if (c == NULL)
        return;
    *c = (lim__command){ 0 };
    s->again = true;
    (void)!lim__send_reserved(self, s->pid, c);
}

/* A batch of what has come; the rest in the next turn. */
static void work_off(lim_process *self, reads *s)
{
    if (atomic_load(&s->state) == LOCAL_STOPPED)
        return; /* about to end; of a letter that was left in the middle nothing more is taken */
    uint64_t began = clock_ns(s);
    for (uint32_t n = 0; !lim__list_empty(&s->letters); n++) {
        kept_letter *k = LIM_CONTAINER(s->letters.next, kept_letter, node);
        if (n >= BATCH_MAX || (n >= BATCH_MAX / 8 && n % 4 == 0 && clock_ns(s) - began >= BATCH_NS_MAX)) {
            ring_itself(self, s);
            break;
        }
        lim__read_item item;
        if (!kept_take(k, &item)) {
            ring_itself(self, s); /* no memory: in the next turn */
            break;
        }
        bool handled = handle(self, s, &item);
        lim__msg_unref(item.msg);
        if (!handled)
            break;
        if (k->at < k->count)
            continue;
        lim__list_remove(&k->node);
        kept_free(k);
        send_done(self, s); /* before `more`: there is room when the next ones come */
        lim__reader_more(s->bus, self, s->reading);
    }
    send_done(self, s);
}

static void keep(lim_process *self, reads *s, const lim_signal *signal)
{
    uint64_t member = signal->type == &lim__type_read_msgs ? ((const lim__read_msgs *)signal->body.ptr)->member
                                                           : ((const lim__read_row *)signal->body.ptr)->member;
    if (member != s->reading.member)
        return; /* of a reader that has died: it comes again */
    kept_letter *k = malloc(sizeof *k);
    if (k == NULL)
        return; /* not acknowledged: delivered again when its time is over, or to somebody else */
    void *letter = lim__letter_keep(self, signal);
    if (signal->type == &lim__type_read_msgs) {
        *k = (kept_letter){ .msgs = letter, .count = ((lim__read_msgs *)letter)->count };
    } else {
        lim__read_row *row = letter;
        *k = (kept_letter){ .row = row, .count = row->count, .rest = row->bytes };
    }
    lim__list_push(&s->letters, &k->node);
}

/* ---- when its reader has died ---- */

static void read_as(reads *s, lim__reading reading)
{
    lim__lock(&s->lock);
    s->reading = reading;
    lim__map_clear(&s->held);
    lim__unlock(&s->lock);
}

static void again_soon(lim_process *self, reads *s)
{
    uint64_t timer;
    s->over = lim_timer_start(self, AGAIN_NS, 0, &timer) != LIM_OK;
}

static void attach_again(lim_process *self, reads *s)
{
    lim__reading reading = { .member = 0 };
    lim_err err = attach(s, self, &reading);
    if (err == LIM_OK)
        read_as(s, reading);
    else if (err == LIM_E_NOMEM)
        again_soon(self, s);
    else
        s->over = true; /* somebody else reads with it by now, or it was deleted */
}

static void on_over(lim_process *self, reads *s, const lim__read_over *o)
{
    if (o->member != s->reading.member)
        return;
    s->over = o->why != LIM_E_UNREACHABLE || s->read.cursor == NULL;
    if (s->over)
        return;
    lim__reader_detach(s->bus, self, s->reading);
    letters_free(s);
    s->done_count = 0;
    read_as(s, (lim__reading){ .member = 0 });
    again_soon(self, s);
}

typedef struct reads_init {
    reads *s;
} reads_init;

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    reads *s = ((reads_init *)state)->s;
    if (signal->kind == LIM_SIGNAL_TIMER)
        attach_again(self, s);
    else if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    else if (signal->type == &lim__type_push)
        s->again = false;
    else if (signal->type == &lim__type_read_msgs || signal->type == &lim__type_read_row)
        keep(self, s, signal);
    else if (signal->type == &lim__type_read_over)
        on_over(self, s, signal->body.ptr);
    work_off(self, s);
    if (s->over && lim__list_empty(&s->letters)) {
        lim__local_forget(s->bus->channels, &s->local);
        lim_exit(self, LIM_SHUTDOWN);
    }
}

static void on_end(void *state, lim_reason reason)
{
    reads *s = ((reads_init *)state)->s;
    (void)reason;
    lim__local_forget(s->bus->channels, &s->local);
    atomic_store(&s->state, LOCAL_STOPPED);
    bool born = atomic_exchange(&s->birth, LOCAL_DEAD) == LOCAL_BORN;
    if (s->reading.member != 0 && born)
        lim__reader_detach(s->bus, NULL, s->reading);
    if (s->handler.on_end && born)
        s->handler.on_end(s->handler.ctx);
    lim__reads_unref(&s->local);
}

/* ---- opening ---- */

static reads *reads_new(lim_bus *bus, const char *channel, const lim_sub_opts *opts)
{
    reads *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->local.kind = LIM__LOCAL_READS;
    s->bus = bus;
    s->handler = opts->handler;
    s->window = opts->window ? opts->window : WINDOW_DEFAULT;
    s->channel = lim__name_new(lim__str(channel));
    s->read = opts->read;
    s->read.cursor = opts->read.cursor != NULL ? strdup(opts->read.cursor) : NULL;
    s->read.dead_letter = opts->read.dead_letter != NULL ? strdup(opts->read.dead_letter) : NULL;
    s->lock = (lim__mutex)LIM__MUTEX_INIT;
    lim__map_init(&s->held, bus->os->random(bus->os));
    lim__list_init(&s->letters);
    atomic_init(&s->local.refs, 2); /* ours and the process's */
    atomic_init(&s->state, LOCAL_IDLE);
    atomic_init(&s->birth, LOCAL_UNBORN);
    return s;
}

static lim_err spawn(reads *s)
{
    reads_init init = { s };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "subscriber",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init };
    return lim_runtime_spawn(s->bus->rt, &opts, &s->pid);
}

static bool has_texts(const reads *s, const lim_sub_opts *opts)
{
    return (s->read.cursor != NULL) == (opts->read.cursor != NULL) &&
           (s->read.dead_letter != NULL) == (opts->read.dead_letter != NULL);
}

lim_err lim__reads_subscribe(lim_bus *bus, const char *channel, const lim_sub_opts *opts, lim_sub *out)
{
    reads *s = reads_new(bus, channel, opts);
    lim_err err = s == NULL || s->channel == NULL ? LIM_E_NOMEM : spawn(s);
    if (err != LIM_OK) {
        if (s != NULL)
            lim__reads_unref(&s->local); /* the process's, which there is none of */
        if (s != NULL)
            lim__reads_unref(&s->local);
        return err;
    }
    uint64_t id = lim__local_enter(bus->channels, &s->local);
    err = id == 0 || !has_texts(s, opts) ? LIM_E_NOMEM : attach(s, NULL, &s->reading);
    if (err == LIM_OK && !step(&s->birth, LOCAL_UNBORN, LOCAL_BORN)) {
        lim__reader_detach(bus, NULL, reading_of(s));
        err = LIM_E_GONE; /* the bus is closing */
    }
    if (err == LIM_OK)
        *out = (lim_sub){ id };
    else
        lim_runtime_exit(bus->rt, s->pid, LIM_KILL);
    lim__reads_unref(&s->local);
    return err;
}

/* ---- using ---- */

lim_err lim__reads_unsubscribe(lim__local *l)
{
    reads *s = (reads *)(void *)l;
    bool first = lim__local_forget(s->bus->channels, l);
    atomic_store(&s->state, LOCAL_STOPPED);
    if (first)
        lim_runtime_exit(s->bus->rt, s->pid, LIM_SHUTDOWN);
    lim__reads_unref(l);
    return first ? LIM_OK : LIM_E_GONE;
}

static uint64_t max_seen(const reads *s)
{
    return atomic_load_explicit(&s->delivered, memory_order_relaxed);
}

/* Everything up to seq that the handler has. */
lim_err lim__reads_complete(lim__local *l, uint64_t seq)
{
    reads *s = (reads *)(void *)l;
    size_t pos = 0, n = 0;
    uint64_t key;
    void *value;
    lim_err err = seq == 0 || max_seen(s) == 0 ? LIM_E_INVALID : LIM_OK;
    lim__lock(&s->lock);
    uint64_t *seqs = err == LIM_OK ? calloc(s->held.count + 1, sizeof *seqs) : NULL;
    if (err == LIM_OK && seqs == NULL)
        err = LIM_E_NOMEM;
    while (err == LIM_OK && lim__map_next(&s->held, &pos, &key, &value))
        if (key <= seq)
            seqs[n++] = key;
    for (size_t i = 0; i < n; i++)
        lim__map_remove(&s->held, seqs[i]);
    lim__unlock(&s->lock);
    if (n > 0)
        err = lim__reader_ack(s->bus, NULL, reading_of(s),
                              &(lim__read_ack){ .how = LIM__READ_DONE, .seqs = seqs, .count = (uint32_t)n });
    free(seqs);
    lim__reads_unref(l);
    return err;
}

lim_err lim__reads_inspect(lim__local *l, lim_sub_info *out)
{
    reads *s = (reads *)(void *)l;
    lim__lock(&s->lock);
    *out = (lim_sub_info){ .delivered = max_seen(s),
                           .in_flight = (uint32_t)s->held.count,
                           .window = s->window == LIM_PULL ? 0 : s->window };
    lim__unlock(&s->lock);
    lim__reads_unref(l);
    return LIM_OK;
}

/* With a reference. MISUSE: it reads no log. */
static lim_err find(lim_bus *bus, lim_sub sub, reads **out)
{
    lim__local *l = bus != NULL ? lim__local_of(bus->channels, sub) : NULL;
    if (l == NULL)
        return bus != NULL ? LIM_E_GONE : LIM_E_MISUSE;
    *out = (reads *)(void *)l;
    if (l->kind == LIM__LOCAL_READS)
        return LIM_OK;
    lim__local_unref(l);
    return LIM_E_MISUSE;
}

static lim_err settle_with(lim_bus *bus, lim_sub sub, uint64_t seq, lim__read_ack ack)
{
    reads *s;
    lim_err err = find(bus, sub, &s);
    if (err != LIM_OK)
        return err;
    ack.seqs = &seq;
    ack.count = 1;
    err = settle(s, seq) ? lim__reader_ack(bus, NULL, reading_of(s), &ack) : LIM_E_NOTFOUND;
    lim__reads_unref(&s->local);
    return err;
}

lim_err lim_ack(lim_bus *bus, lim_sub sub, uint64_t seq, lim_on_done *on_done, void *ctx)
{
    return settle_with(bus, sub, seq, (lim__read_ack){ .how = LIM__READ_DONE, .on_done = on_done, .ctx = ctx });
}

lim_err lim_nack(lim_bus *bus, lim_sub sub, uint64_t seq, int64_t delay_ms)
{
    if (delay_ms < 0)
        return LIM_E_INVALID;
    uint64_t delay_ns = delay_ms > INT64_MAX / 1000000 ? INT64_MAX : (uint64_t)delay_ms * 1000000;
    return settle_with(bus, sub, seq, (lim__read_ack){ .how = LIM__READ_AGAIN, .delay_ns = delay_ns });
}

lim_err lim_fetch(lim_bus *bus, lim_sub sub, uint32_t count, int64_t ends_ms)
{
    reads *s;
    lim_err err = find(bus, sub, &s);
    if (err != LIM_OK)
        return err;
    uint64_t now = bus->os->now_ns(bus->os);
    bool ever = ends_ms == LIM_FOREVER || ends_ms > (int64_t)((UINT64_MAX - now) / 1000000 / 2);
    if (s->window != LIM_PULL)
        err = LIM_E_MISUSE;
    else if (count == 0 || ends_ms <= 0)
        err = LIM_E_INVALID;
    else
        err = lim__reader_fetch(bus, NULL, reading_of(s), count, ever ? UINT64_MAX : now + (uint64_t)ends_ms * 1000000);
    lim__reads_unref(&s->local);
    return err;
}

lim_err lim__reader_of(lim_bus *bus, lim_sub sub, lim__reading *out)
{
    reads *s;
    lim_err err = find(bus, sub, &s);
    if (err != LIM_OK)
        return err;
    *out = reading_of(s);
    lim__reads_unref(&s->local);
    return LIM_OK;
}
