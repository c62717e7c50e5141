/* SPDX-License-Identifier: Apache-2.0
 * step.c - the step object: collected by one owner, then committed as one batch. See step.h.
 *
 * Readers answer on their schedulers, in any order: the last answer goes on. What they agreed to stays where it is
 * until they are told how it ended, so nobody else gets the message meanwhile. A step whose bus closes is not answered.
 */
#include "bus/step.h"
#include "bus/agent.h"
#include "bus/log_inside.h"
#include "bus/participant.h"

#include <stdlib.h>

enum { PARTS_MAX = 4096 };

typedef struct published {
    struct published *next;
    lim__log *log;
    lim__log_message message; /* views of what is behind this */
    uint8_t bytes[];
} published;

typedef struct acked {
    struct acked *next;
    lim__step *step;
    lim__step_ack ack;
    bool agreed;
} acked;

typedef struct replied {
    uint64_t task, lease, from;
    lim__msg *payload;
} replied;

struct lim_step {
    lim_bus *bus;
    published *published, **published_last;
    acked *acked, **acked_last;
    replied reply; /* payload NULL: none */
    uint32_t parts;
    /* committed: */
    lim__on_step *done;
    void *ctx;
    _Atomic uint32_t waiting; /* answers of readers, and one while they are being asked */
    _Atomic uint32_t refused; /* the first lim_err that one of them answered */
    uint32_t expects;         /* of publishes; those of a reply come behind them */
};

/* ---- collecting ---- */

lim__step *lim__step_open(lim_bus *bus)
{
    lim__step *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->bus = bus;
    s->published_last = &s->published;
    s->acked_last = &s->acked;
    return s;
}

void lim__step_drop(lim__step *s)
{
    if (s == NULL)
        return;
    for (published *p = s->published, *next; p != NULL; p = next) {
        next = p->next;
        lim__log_unref(p->log);
        free(p);
    }
    for (acked *a = s->acked, *next; a != NULL; a = next) {
        next = a->next;
        free(a);
    }
    lim__msg_unref(s->reply.payload);
    free(s);
}

static lim_bytes keep(uint8_t **at, lim_bytes bytes)
{
    lim_bytes kept = { *at, bytes.len };
    if (bytes.len > 0)
        memcpy(*at, bytes.ptr, bytes.len);
    *at += bytes.len;
    return kept;
}

lim_err lim__step_add_message(lim__step *s, lim_bytes channel, const lim__log_message *m)
{
    lim__log *log;
    if (m->delay_ms > 0 || m->key.len > LIM__LOG_KEY_MAX || m->idempotency_key.len > LIM__LOG_KEY_MAX ||
        m->headers.len > UINT16_MAX)
        return LIM_E_INVALID;
    if (m->payload.len > s->bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    if (s->parts >= PARTS_MAX)
        return LIM_E_FULL;
    lim_err err = lim__log_find(s->bus, channel, &log);
    if (err != LIM_OK)
        return err;
    published *p = malloc(sizeof *p + m->payload.len + m->headers.len + m->key.len + m->idempotency_key.len);
    if (p == NULL) {
        lim__log_unref(log);
        return LIM_E_NOMEM;
    }
    uint8_t *at = p->bytes;
    *p = (published){ .log = log, .message = *m };
    p->message.payload = keep(&at, m->payload);
    p->message.headers = keep(&at, m->headers);
    p->message.key = keep(&at, m->key);
    p->message.idempotency_key = keep(&at, m->idempotency_key);
    *s->published_last = p;
    s->published_last = &p->next;
    s->parts++;
    return LIM_OK;
}

static void on_answer(lim__step_ack *ack, lim_err err);

lim_err lim__step_add_ack(lim__step *s, lim__reading reading, uint64_t seq)
{
    if (s->parts >= PARTS_MAX)
        return LIM_E_FULL;
    acked *a = calloc(1, sizeof *a);
    if (a == NULL)
        return LIM_E_NOMEM;
    a->step = s;
    a->ack = (lim__step_ack){ .reading = reading, .seq = seq, .on_answer = on_answer, .ctx = a };
    *s->acked_last = a;
    s->acked_last = &a->next;
    s->parts++;
    return LIM_OK;
}

lim_err lim__step_add_reply(lim__step *s, uint64_t task, uint64_t lease, uint64_t from, lim_bytes payload)
{
    if (s->reply.payload != NULL)
        return LIM_E_FULL;
    if (payload.len > s->bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim__msg *msg = lim__msg_new(payload);
    if (msg == NULL)
        return LIM_E_NOMEM;
    s->reply = (replied){ task, lease, from, msg };
    s->parts++;
    return LIM_OK;
}

/* ---- the end ---- */

/* Readers hear how it ended, then whoever committed it. */
static void end(lim__step *s, lim_err err, const char *detail)
{
    for (acked *a = s->acked; a != NULL; a = a->next)
        if (a->agreed)
            lim__reader_step_end(s->bus, &a->ack, err == LIM_OK);
    if (s->reply.payload != NULL && err == LIM_OK)
        lim__participant_let_go(s->bus, (lim_participant){ s->reply.from }, (lim_conv){ s->reply.task },
                                s->reply.lease);
    s->done(s->ctx, err, detail);
    lim__step_drop(s);
}

static lim_err conflict_of(const lim__step *s, const lim__committed *what, const char **detail)
{
    if (what->conflict >= s->expects) {
        *detail = "the task is not this participant's to end any more";
        return LIM_E_GONE;
    }
    *detail = "an idempotency key was seen before, or a channel's last number is another one; nothing is changed";
    return LIM_E_EXISTS;
}

static void on_stored(void *ctx, lim__batch *batch, const lim__committed *what)
{
    lim__step *s = ctx;
    const char *detail;
    lim__log_committed(s->bus, batch, what);
    lim_err err = lim__committed_err(what, &detail);
    if (what->how == LIM__COMMIT_CONFLICT)
        err = conflict_of(s, what, &detail);
    lim__batch_free(batch);
    end(s, err, detail);
}

static void refused(void *ctx, lim__batch *batch, lim_err err)
{
    lim__batch_free(batch);
    end(ctx, err, err == LIM_E_GONE ? "the task is not this participant's to end any more" : lim_err_text(err));
}

/* ---- one batch ---- */

static lim_err fill(lim__step *s, lim__batch *b)
{
    lim_err err = LIM_OK;
    for (published *p = s->published; p != NULL && err == LIM_OK; p = p->next)
        err = lim__log_append(p->log, b, &p->message, &s->expects);
    for (acked *a = s->acked; a != NULL && err == LIM_OK; a = a->next)
        lim__reader_step_row(&a->ack, b);
    return err;
}

/* Acknowledgements alone may use the reserve of a full disk. */
static lim_err hand_over(lim__step *s)
{
    lim__batch *b = lim__batch_new();
    lim_err err = b != NULL ? fill(s, b) : LIM_E_NOMEM;
    if (err != LIM_OK) {
        lim__batch_free(b);
        return err;
    }
    if (s->published == NULL && s->reply.payload == NULL)
        lim__batch_small(b);
    if (s->reply.payload == NULL)
        return lim__durable_submit(s->bus, b, on_stored, s);
    lim__step_reply r = {
        s->reply.task, s->reply.lease, s->reply.from, lim__msg_bytes(s->reply.payload), on_stored, refused, s
    };
    err = lim__exchange_step_reply(s->bus, b, &r);
    if (err != LIM_OK)
        lim__batch_free(b);
    return err;
}

static void go_on(lim__step *s)
{
    lim_err err = (lim_err)atomic_load(&s->refused);
    if (err == LIM_OK && (err = hand_over(s)) == LIM_OK)
        return;
    end(s, err,
        err == LIM_E_GONE   ? "a message is not this subscription's to acknowledge any more"
        : err == LIM_E_FULL ? "a channel is full, or remembers as many keys as it may"
                            : lim_err_text(err));
}

static void answered(lim__step *s, lim_err err)
{
    uint32_t none = LIM_OK;
    if (err != LIM_OK)
        atomic_compare_exchange_strong(&s->refused, &none, (uint32_t)err);
    if (atomic_fetch_sub(&s->waiting, 1) == 1)
        go_on(s);
}

static void on_answer(lim__step_ack *ack, lim_err err)
{
    acked *a = ack->ctx;
    a->agreed = err == LIM_OK;
    answered(a->step, err);
}

lim_err lim__step_commit(lim__step *s, lim__on_step *done, void *ctx)
{
    if (s->parts == 0) {
        lim__step_drop(s);
        return LIM_E_INVALID;
    }
    s->done = done;
    s->ctx = ctx;
    atomic_init(&s->refused, LIM_OK);
    atomic_init(&s->waiting, 1);
    for (acked *a = s->acked; a != NULL; a = a->next)
        atomic_fetch_add(&s->waiting, 1);
    for (acked *a = s->acked, *next; a != NULL; a = next) {
        next = a->next; /* its answer may end all of this, but not before ours */
        lim_err err = lim__reader_step_ask(s->bus, NULL, &a->ack);
        if (err != LIM_OK)
            answered(s, err);
    }
    answered(s, LIM_OK);
    return LIM_OK;
}

/* ---- for the embedder ---- */

lim_err lim_step_new(lim_bus *bus, lim_step **out)
{
    if (bus == NULL || out == NULL || bus->logs == NULL)
        return LIM_E_MISUSE;
    lim_step *s = lim__step_open(bus);
    if (s == NULL)
        return LIM_E_NOMEM;
    *out = s;
    return LIM_OK;
}

void lim_step_free(lim_step *step)
{
    lim__step_drop(step);
}

lim_err lim_step_publish(lim_step *step, const char *channel, lim_bytes payload, const lim_publish_opts *opts)
{
    lim__log_message m;
    if (step == NULL || channel == NULL || (payload.len > 0 && payload.ptr == NULL) ||
        (opts != NULL &&
         (opts->size != sizeof *opts || opts->on_receipt != NULL || opts->delay_ms != 0 || opts->at_wall_us != 0)))
        return LIM_E_MISUSE;
    lim_err err = lim__log_message_of(payload, opts, &m);
    return err == LIM_OK ? lim__step_add_message(step, lim__str(channel), &m) : err;
}

lim_err lim_step_ack(lim_step *step, lim_sub sub, uint64_t seq)
{
    lim__reading reading;
    lim_err err = step != NULL ? lim__reader_of(step->bus, sub, &reading) : LIM_E_MISUSE;
    return err == LIM_OK ? lim__step_add_ack(step, reading, seq) : err;
}

lim_err lim_step_reply(lim_step *step, const lim_delivery *d, lim_bytes payload)
{
    if (step == NULL || d == NULL || d->lease == 0)
        return LIM_E_MISUSE;
    return lim__step_add_reply(step, d->conv.id, d->lease, d->self.id, payload);
}

typedef struct told { /* the host's callback, carried to an agent */
    lim__errand errand;
    lim_on_done *on_done;
    void *ctx;
    lim_bus *bus;
    lim_pid agent;
    lim_err err;
    const char *detail;
} told;

static void run_told(lim__errand *e)
{
    told *t = (told *)(void *)e;
    t->on_done(t->ctx, t->err, t->detail);
}

static void on_step(void *ctx, lim_err err, const char *detail)
{
    told *t = ctx;
    if (t == NULL)
        return;
    t->err = err;
    t->detail = detail;
    (void)!lim__post_reserved(t->bus->rt, t->agent, t);
}

lim_err lim_step_commit(lim_step *step, lim_on_done *on_done, void *ctx)
{
    if (step == NULL)
        return LIM_E_MISUSE;
    lim_bus *bus = step->bus;
    told *t = on_done != NULL ? lim__letter_new(NULL, &lim__type_errand, sizeof *t) : NULL;
    if (on_done != NULL && t == NULL) {
        lim__step_drop(step);
        return LIM_E_NOMEM;
    }
    if (t != NULL)
        *t = (told){ .errand = { run_told },
                     .on_done = on_done,
                     .ctx = ctx,
                     .bus = bus,
                     .agent = lim__agent_for(bus, (lim_pid){ 0 }) };
    lim_err err = lim__step_commit(step, on_step, t);
    if (err != LIM_OK)
        lim__letter_free(NULL, t);
    return err;
}

typedef struct waiter {
    lim__mutex mutex;
    lim__cond cond;
    bool over;
    lim_err err;
} waiter;

static void on_waited(void *ctx, lim_err err, const char *detail)
{
    waiter *w = ctx;
    (void)detail;
    pthread_mutex_lock(&w->mutex);
    w->err = err;
    w->over = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mutex);
}

lim_err lim_step_commit_wait(lim_step *step)
{
    if (step == NULL || !lim__may_block()) {
        lim__step_drop(step);
        return LIM_E_MISUSE;
    }
    waiter w = { .mutex = LIM__MUTEX_INIT };
    lim__cond_init(&w.cond);
    lim_err err = lim__step_commit(step, on_waited, &w);
    pthread_mutex_lock(&w.mutex);
    while (err == LIM_OK && !w.over)
        (void)lim__cond_wait_until(&w.cond, &w.mutex, UINT64_MAX);
    pthread_mutex_unlock(&w.mutex);
    pthread_cond_destroy(&w.cond);
    return err == LIM_OK ? w.err : err;
}
