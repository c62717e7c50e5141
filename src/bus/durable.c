/* SPDX-License-Identifier: Apache-2.0
 * durable.c - the threads around the store, and the letters that tell processes what became of their batches.
 *
 *            submit                     turn
 *   OPEN ----------------> store's own list ----> written, synced ----> on_done, in the order of the log
 *    |
 *    `--stop: no more is taken, the threads end when everything is answered--> STOPPED --free--> gone
 *
 * A letter `stored` is made when its batch is handed over, so that nothing can go wrong when it is answered. Only what
 * a conflict found is copied then; without memory for it the letter says that there is something, and not what.
 *
 * Invariants:
 *   D1  a batch that was taken is answered exactly once: by the store's thread, or by whoever stops it.
 *   D2  nothing is submitted after `stopped` was set under `lock`: the store may be closed then. */
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/reader.h"
#include "bus/log_inside.h"
#include "bus/saga.h"
#include "bus/schedule.h"
#include "bus/talk.h"
#include "bus/slot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)LIM_CLASS_DISK == (int)LIM__CLASS_DISK && (int)LIM_SYNC_NEVER == (int)LIM__SYNC_NEVER,
               "one numbering");

/* A reading thread, and what it is to do. */
typedef struct reading {
    struct lim__durable *durable;
    lim__thread thread;
    lim__cond cond;
    lim__job *jobs, **jobs_last; /* under wake_lock, and: */
    uint64_t began_ns;           /* the job that it runs; 0: none */
} reading;

enum {
    LIVELY_NS = 100000000, /* so long after somebody was served patient jobs give way */
    STUCK_NS = 20000000,   /* one that took so long did not get the processor: for a while they do not */
    UNSTUCK_NS = 1000000000
};

struct lim__durable {
    lim_bus *bus;
    lim__store *store;
    lim__os *os;
    bool threads;
    lim__sync sync;
    lim__class class;
    lim__thread writer;
    reading now, patient;
    uint64_t stuck_ns; /* until then nothing is given to `patient`; under wake_lock */
    lim__mutex lock;   /* submitting, and: */
    bool stopped;
    lim__mutex wake_lock; /* a leaf; what wakes the threads: */
    lim__cond write_cond;
    bool ending, write_wanted;
    void (*poke)(void *ctx);
    void *poke_ctx;
    uint64_t next_due_ns; /* without threads: as the last turn said */
    _Atomic uint64_t streams;
    struct copying
        *copying; /* under `lock`: a copy that is being made, or its thread is still to be joined; NULL: none */
};

lim_err lim__durable_missing(lim_diag *diag)
{
    lim__diag_set(diag, 0, 0, "this bus keeps nothing on disk; open it with a data directory (liminald --data DIR)");
    return LIM_E_MISUSE;
}

/* ---- the threads ---- */

static void poke(lim__durable *d)
{
    if (d->poke != NULL)
        d->poke(d->poke_ctx);
}

/* The store has something to do. Any thread, also one that submits. */
static void on_wake(void *ctx)
{
    lim__durable *d = ctx;
    if (!d->threads) {
        poke(d);
        return;
    }
    pthread_mutex_lock(&d->wake_lock);
    d->write_wanted = true;
    pthread_cond_signal(&d->write_cond);
    pthread_mutex_unlock(&d->wake_lock);
}

static void on_event(void *ctx, const char *kind, const char *text)
{
    lim__durable *d = ctx;
    if (d->bus->supervisor.id == 0) /* nobody could hear of it yet */
        lim__bus_log(d->bus, "event=store kind=%s detail=\"%s\"", kind, text);
    else /* logs it, too */
        LIM__EVENT(d->bus, NULL, "store", { "kind", lim__str(kind) }, { "detail", lim__str(text) });
}

static void *write_loop(void *arg)
{
    lim__durable *d = arg;
    for (bool ending = false; !ending;) {
        uint64_t next = UINT64_MAX;
        while (lim__store_turn(d->store, &next))
            continue;
        pthread_mutex_lock(&d->wake_lock);
        while (!d->write_wanted && !d->ending && lim__cond_wait_until(&d->write_cond, &d->wake_lock, next))
            continue;
        d->write_wanted = false;
        ending = d->ending;
        pthread_mutex_unlock(&d->wake_lock);
    }
    return NULL;
}

static lim__job *job_take_locked(reading *r)
{
    lim__job *job = r->jobs;
    if (job == NULL)
        return NULL;
    r->jobs = job->next;
    if (r->jobs == NULL)
        r->jobs_last = &r->jobs;
    return job;
}

static lim__job *job_take(reading *r)
{
    pthread_mutex_lock(&r->durable->wake_lock);
    lim__job *job = job_take_locked(r);
    pthread_mutex_unlock(&r->durable->wake_lock);
    return job;
}

static void job_put_locked(reading *r, lim__job *job)
{
    job->next = NULL;
    *r->jobs_last = job;
    r->jobs_last = &job->next;
    pthread_cond_signal(&r->cond);
}

/* What has waited behind a job that took too long goes to the other thread. */
static void job_ended_locked(reading *r, uint64_t now_ns)
{
    lim__durable *d = r->durable;
    bool stuck = now_ns > r->began_ns + STUCK_NS;
    r->began_ns = 0;
    if (r != &d->patient || !stuck)
        return;
    d->stuck_ns = now_ns + UNSTUCK_NS;
    for (lim__job *job; (job = job_take_locked(r)) != NULL;)
        job_put_locked(&d->now, job);
}

static void *read_loop(void *arg)
{
    reading *r = arg;
    lim__durable *d = r->durable;
    if (r == &d->patient)
        lim__thread_give_way();
    pthread_mutex_lock(&d->wake_lock);
    for (;;) {
        lim__job *job = job_take_locked(r);
        bool ending = d->ending;
        if (job == NULL && ending)
            break;
        if (job == NULL) {
            (void)lim__cond_wait_until(&r->cond, &d->wake_lock, UINT64_MAX);
            continue;
        }
        r->began_ns = d->os->now_ns(d->os);
        pthread_mutex_unlock(&d->wake_lock);
        job->run(job, ending ? NULL : d->store);
        uint64_t now_ns = d->os->now_ns(d->os);
        pthread_mutex_lock(&d->wake_lock);
        job_ended_locked(r, now_ns);
    }
    pthread_mutex_unlock(&d->wake_lock);
    return NULL;
}

bool lim__durable_turn(lim_bus *bus)
{
    lim__durable *d = bus->durable;
    lim__job *job = job_take(&d->now);
    if (job != NULL)
        job->run(job, d->store);
    bool more = lim__store_turn(d->store, &d->next_due_ns);
    return more || d->now.jobs != NULL;
}

uint64_t lim__durable_next_due_ns(lim_bus *bus)
{
    return bus->durable->next_due_ns;
}

void lim__durable_on_poke(lim_bus *bus, void (*fn)(void *ctx), void *ctx)
{
    bus->durable->poke = fn;
    bus->durable->poke_ctx = ctx;
}

/* ---- copies ---- */

typedef struct copying {
    lim__durable *durable;
    lim__thread thread;
    bool ended; /* under the durable's lock */
    lim__on_copied *on_done;
    void *ctx;
    char to[];
} copying;

static void *copy_run(void *arg)
{
    copying *c = arg;
    lim__store_error error = { "" };
    int err = lim__store_backup(c->durable->store, c->to, &error);
    c->on_done(c->ctx,
               err == 0         ? LIM_OK
               : err == -EEXIST ? LIM_E_EXISTS
                                : LIM_E_IO,
               error.text[0] != '\0' || err == 0 ? error.text : strerror(-err));
    pthread_mutex_lock(&c->durable->lock);
    c->ended = true;
    pthread_mutex_unlock(&c->durable->lock);
    return NULL;
}

/* Waits for it: a copy cannot be given up. */
static void copy_join(lim__durable *d)
{
    if (d->copying == NULL)
        return;
    lim__thread_join(d->copying->thread);
    free(d->copying);
    d->copying = NULL;
}

static lim_err copy_begin(lim__durable *d, copying *c)
{
    pthread_mutex_lock(&d->lock);
    lim_err err = d->stopped ? LIM_E_CLOSED : d->copying != NULL && !d->copying->ended ? LIM_E_EXISTS : LIM_OK;
    if (err == LIM_OK)
        copy_join(d); /* its last instructions */
    if (err == LIM_OK && lim__thread_start(&c->thread, "lim-copy", copy_run, c) != 0)
        err = LIM_E_NOMEM;
    if (err == LIM_OK)
        d->copying = c;
    pthread_mutex_unlock(&d->lock);
    return err;
}

lim_err lim__durable_copy(lim_bus *bus, lim_bytes to, lim__on_copied *on_done, void *ctx)
{
    copying *c = bus->durable->threads ? calloc(1, sizeof *c + to.len + 1) : NULL;
    if (!bus->durable->threads)
        return LIM_E_MISUSE;
    if (c == NULL)
        return LIM_E_NOMEM;
    c->durable = bus->durable;
    c->on_done = on_done;
    c->ctx = ctx;
    memcpy(c->to, to.ptr, to.len);
    lim_err err = copy_begin(bus->durable, c);
    if (err != LIM_OK)
        free(c);
    return err;
}

/* ---- opening, closing ---- */

static bool max_stream(void *ctx, lim_bytes key, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    if (key.len == 7 && memcmp(key.ptr, "streams", 7) == 0 && lim__unpack_u8(&u) == 1)
        *(uint64_t *)ctx = lim__unpack_u64(&u);
    return true;
}

static lim_err store_open(lim__durable *d, lim_diag *diag)
{
    const lim_bus_opts *o = &d->bus->opts;
    lim__store_error error = { "" };
    lim__store_opts opts = { .os = d->os,
                             .dir = o->data_dir,
                             .bytes_max = o->data_bytes_max,
                             .segment_bytes = o->data_segment_bytes,
                             .interval_ns = (uint64_t)o->sync_interval_ms * 1000000,
                             .index_in_memory = !d->threads,
                             .wake = on_wake,
                             .on_event = on_event,
                             .ctx = d };
    int err = lim__store_open(&opts, &error, &d->store);
    if (err == 0)
        return LIM_OK;
    lim__diag_set(diag, 0, 0, "%s", error.text[0] != '\0' ? error.text : strerror(-err));
    return err == -ENOMEM ? LIM_E_NOMEM : err == -EAGAIN ? LIM_E_EXISTS : err == -EINVAL ? LIM_E_INVALID : LIM_E_IO;
}

static void end_threads(lim__durable *d)
{
    pthread_mutex_lock(&d->wake_lock);
    d->ending = true;
    pthread_cond_signal(&d->write_cond);
    pthread_cond_signal(&d->now.cond);
    pthread_cond_signal(&d->patient.cond);
    pthread_mutex_unlock(&d->wake_lock);
}

static lim_err start_threads(lim__durable *d)
{
    lim__cond_init(&d->write_cond);
    lim__cond_init(&d->now.cond);
    lim__cond_init(&d->patient.cond);
    if (!d->threads)
        return LIM_OK;
    if (lim__thread_start(&d->writer, "lim-store", write_loop, d) != 0)
        return LIM_E_NOMEM;
    bool reads = lim__thread_start(&d->now.thread, "lim-read", read_loop, &d->now) == 0;
    if (reads && lim__thread_start(&d->patient.thread, "lim-replay", read_loop, &d->patient) == 0)
        return LIM_OK;
    end_threads(d);
    if (reads)
        lim__thread_join(d->now.thread);
    lim__thread_join(d->writer);
    return LIM_E_NOMEM;
}

lim_err lim__durable_open(lim_bus *bus, bool threads, lim_diag *diag)
{
    lim__durable *d = calloc(1, sizeof *d);
    if (d == NULL)
        return LIM_E_NOMEM;
    *d = (lim__durable){
        .bus = bus, .os = bus->os, .threads = threads, .lock = LIM__MUTEX_INIT, .wake_lock = LIM__MUTEX_INIT
    };
    d->now = (reading){ .durable = d, .jobs_last = &d->now.jobs };
    d->patient = (reading){ .durable = d, .jobs_last = &d->patient.jobs };
    d->sync = bus->opts.sync != 0 ? (lim__sync)bus->opts.sync : LIM__SYNC_ALWAYS;
    d->class = d->sync == LIM__SYNC_ALWAYS ? LIM__CLASS_DISK : LIM__CLASS_OS;
    lim_err err = store_open(d, diag);
    uint64_t streams = 0;
    if (err == LIM_OK &&
        lim__store_scan(d->store, LIM__TABLE_META, lim__bytes(NULL, 0), lim__bytes(NULL, 0), max_stream, &streams) != 0)
        err = LIM_E_IO;
    atomic_init(&d->streams, streams);
    if (err == LIM_OK)
        err = start_threads(d);
    if (err != LIM_OK) {
        lim__store_close(d->store);
        free(d);
        return err;
    }
    bus->durable = d;
    return LIM_OK;
}

static void run_what_is_left(lim__durable *d)
{
    for (lim__job *job; (job = job_take(&d->now)) != NULL || (job = job_take(&d->patient)) != NULL;)
        job->run(job, NULL);
}

void lim__durable_stop(lim_bus *bus)
{
    lim__durable *d = bus->durable;
    if (d == NULL)
        return;
    pthread_mutex_lock(&d->lock);
    d->stopped = true;
    pthread_mutex_unlock(&d->lock);
    end_threads(d);
    if (d->threads) {
        lim__thread_join(d->patient.thread);
        lim__thread_join(d->now.thread);
        lim__thread_join(d->writer);
    }
    copy_join(d);
    run_what_is_left(d);
    lim__store_close(d->store); /* D1: answers what was submitted */
    d->store = NULL;
}

void lim__durable_free(lim_bus *bus)
{
    lim__durable *d = bus->durable;
    if (d == NULL)
        return;
    LIM_ASSERT(d->stopped);
    run_what_is_left(d); /* of processes that ended after the stop */
    pthread_cond_destroy(&d->write_cond);
    pthread_cond_destroy(&d->now.cond);
    pthread_cond_destroy(&d->patient.cond);
    free(d);
    bus->durable = NULL;
}

/* ---- writing ---- */

static lim_err submit_fault(int err)
{
    switch (-err) {
    case ENOMEM:
        return LIM_E_NOMEM;
    case EMSGSIZE:
        return LIM_E_TOOBIG;
    case EINVAL:
        return LIM_E_INVALID;
    case EPIPE:
        return LIM_E_CLOSED;
    default:
        return LIM_E_IO;
    }
}

lim_err lim__durable_submit(lim_bus *bus, lim__batch *batch, lim__on_committed *on_done, void *ctx)
{
    lim__durable *d = bus->durable;
    if (batch == NULL)
        return LIM_E_NOMEM;
    if (d == NULL) {
        lim__batch_free(batch);
        return LIM_E_MISUSE;
    }
    pthread_mutex_lock(&d->lock);
    int err = d->stopped ? -EPIPE : lim__store_submit(d->store, batch, on_done, ctx);
    pthread_mutex_unlock(&d->lock);
    if (err == 0)
        return LIM_OK;
    lim__batch_free(batch);
    return submit_fault(err);
}

typedef struct pending { /* whom to tell */
    lim__durable *durable;
    lim_pid to;
    lim__stored *letter;
} pending;

/* The letter, with a copy of what was found behind it; without memory for that, as it is. */
static lim__stored *with_found(lim__stored *letter, lim_bytes found)
{
    letter->found = found.ptr != NULL;
    if (found.len == 0)
        return letter;
    lim__stored *longer = lim__letter_new(NULL, &lim__type_stored, sizeof *longer + found.len);
    if (longer == NULL)
        return letter;
    *longer = *letter;
    longer->found_len = (uint32_t)found.len;
    memcpy(longer->found_bytes, found.ptr, found.len);
    lim__letter_free(NULL, letter);
    return longer;
}

static void on_committed(void *ctx, lim__batch *batch, const lim__committed *what)
{
    pending *p = ctx;
    lim__stored *l = p->letter;
    lim__log_committed(p->durable->bus, batch, what);
    l->how = what->how;
    l->class = what->class;
    l->wall_ns = what->first_ns;
    l->seq = what->how == LIM__COMMITTED && lim__batch_appends(batch) > 0 ? lim__batch_seq(batch, 0) : 0;
    l->limit = what->limit;
    l->current = what->current;
    if (what->how == LIM__COMMIT_CONFLICT)
        l = with_found(l, what->found);
    (void)!lim__post_reserved(p->durable->bus->rt, p->to, l); /* dead: nobody waits for it any more */
    lim__batch_free(batch);
    free(p);
}

lim_err lim__durable_commit(lim_process *self, lim_bus *bus, lim__batch *batch, uint64_t ref)
{
    pending *p = malloc(sizeof *p);
    lim__stored *letter = p != NULL ? lim__letter_new(NULL, &lim__type_stored, sizeof *letter) : NULL;
    if (letter == NULL || batch == NULL) {
        lim__letter_free(NULL, letter);
        free(p);
        lim__batch_free(batch);
        return LIM_E_NOMEM;
    }
    *letter = (lim__stored){ .ref = ref };
    *p = (pending){ bus->durable, lim_self(self), letter };
    lim_err err = lim__durable_submit(bus, batch, on_committed, p);
    if (err != LIM_OK) {
        lim__letter_free(NULL, letter);
        free(p);
    }
    return err;
}

lim__sync lim__durable_sync(const lim_bus *bus)
{
    return bus->durable->sync;
}

lim__class lim__durable_class(const lim_bus *bus)
{
    return bus->durable != NULL ? bus->durable->class : LIM__CLASS_MEMORY;
}

/* Two of them may be committed in the other order: what is read back is at least the smaller, and the rows of both tell
 * their numbers. So each also counts what it finds in its owner's row: see lim__durable_stream_seen. */
uint64_t lim__durable_stream(lim_bus *bus, lim__batch *batch)
{
    uint64_t n = atomic_fetch_add(&bus->durable->streams, 1) + 1;
    lim__buf value = { 0 };
    lim__pack_u8(&value, 1);
    lim__pack_u64(&value, n);
    lim__batch_put(batch, LIM__TABLE_META, lim__str("streams"), lim__buf_bytes(&value));
    lim__buf_fini(&value);
    return n;
}

void lim__durable_stream_seen(lim_bus *bus, uint64_t stream)
{
    uint64_t now = atomic_load(&bus->durable->streams);
    while (now < stream && !atomic_compare_exchange_weak(&bus->durable->streams, &now, stream))
        continue;
}

/* ---- reading ---- */

lim__store *lim__durable_store(lim_bus *bus)
{
    return bus->durable->store;
}

/* Who is to run a patient job? */
static reading *who_waits_locked(lim__durable *d)
{
    uint64_t now = d->os->now_ns(d->os);
    uint64_t lively = atomic_load_explicit(&d->bus->lively_ns, memory_order_relaxed);
    bool quiet = lively == 0 || (now > lively && now - lively > LIVELY_NS);
    bool stuck = now < d->stuck_ns || (d->patient.began_ns != 0 && now > d->patient.began_ns + STUCK_NS);
    return quiet || stuck ? &d->now : &d->patient;
}

void lim__durable_read(lim_bus *bus, lim__job *job)
{
    lim__durable *d = bus->durable;
    pthread_mutex_lock(&d->wake_lock);
    job_put_locked(job->patient && d->threads ? who_waits_locked(d) : &d->now, job);
    pthread_mutex_unlock(&d->wake_lock);
    if (!d->threads)
        poke(d);
}

/* ---- what was stored before ----
 * Each part reads its rows with lim__store_scan and makes its processes; in this order, because later ones use earlier
 * ones. Nobody is served yet, but the schedulers turn. */

enum { ROWS_FORMAT = 1 };

static bool row_format(void *ctx, lim_bytes key, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    if (key.len == 6 && memcmp(key.ptr, "format", 6) == 0)
        *(uint32_t *)ctx = lim__unpack_u32(&u);
    return true;
}

static void nothing(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what; /* a new store without this row is a new store at the next start, too */
    lim__batch_free(batch);
}

/* Rows of a later version are not read by an older one. */
static lim_err format_restore(lim_bus *bus, lim_diag *diag)
{
    uint32_t format = 0;
    if (lim__store_scan(bus->durable->store, LIM__TABLE_META, lim__str("format"), lim__bytes(NULL, 0), row_format,
                        &format) != 0)
        return LIM_E_IO;
    if (format > ROWS_FORMAT) {
        lim__diag_set(diag, 0, 0,
                      "%s was written by a newer liminal (rows of format %u, this one knows %d); use that one",
                      bus->opts.data_dir, format, ROWS_FORMAT);
        return LIM_E_INVALID;
    }
    lim__batch *b = format == 0 ? lim__batch_new() : NULL;
    if (b == NULL)
        return format == 0 ? LIM_E_NOMEM : LIM_OK;
    uint8_t value[4] = { ROWS_FORMAT };
    lim__batch_put(b, LIM__TABLE_META, lim__str("format"), lim__bytes(value, sizeof value));
    return lim__durable_submit(bus, b, nothing, NULL);
}

uint64_t lim__durable_birth(lim_bus *bus)
{
    uint64_t birth = bus->os->random(bus->os);
    void *was = NULL;
    size_t len = 0;
    uint8_t value[8];
    if (bus->durable == NULL)
        return birth;
    bool known = lim__store_get(bus->durable->store, LIM__TABLE_META, lim__str("birth"), &was, &len) == 0 && len == 8;
    if (known)
        birth = lim__key_get_u64(was);
    free(was);
    lim__batch *b = known ? NULL : lim__batch_new();
    if (b == NULL)
        return birth;
    lim__key_u64(value, birth);
    lim__batch_put(b, LIM__TABLE_META, lim__str("birth"), lim__bytes(value, sizeof value));
    (void)!lim__durable_submit(bus, b, nothing, NULL); /* if it is lost, those of this run are not known at the next */
    return birth;
}

lim_err lim__durable_restore(lim_bus *bus, lim_diag *diag)
{
    static lim_err (*const parts[])(lim_bus * bus, lim_diag * diag) = {
        format_restore,       lim__logs_restore,   lim__slots_restore, /* makes groups: before who uses them */
        lim__readers_restore, lim__queues_restore, lim__talks_restore, lim__schedules_restore, lim__sagas_restore,
    };
    lim_err err = LIM_OK;
    for (size_t i = 0; err == LIM_OK && i < LIM_COUNT(parts); i++)
        err = parts[i](bus, diag);
    return err;
}
