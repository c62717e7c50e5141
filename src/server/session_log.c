/* SPDX-License-Identifier: Apache-2.0
 * session_log.c - publishing to durable channels over a connection: PUBLISH with options, answered by STORED.
 *
 * Plain ones, as they come one behind the other for one channel, are gathered into a lot while a read is decoded: from
 * there to the answer they are one thing. The lot is handed over when anything else comes, and at the end of the read.
 *
 * A ticket stands for each lot, and for each that goes alone, until it is answered. Receipts are made on the store's
 * thread: it puts the ticket into the session's box and, if the box was empty, posts the box's one letter. The session
 * empties the box, and answers in the order in which it was asked: a refusal that was known at once waits for the
 * answers before it.
 *
 *      session --lot, ticket--> log ... store's thread --box, one letter--> session --STORED, in order-->
 *
 * The box is counted: a connection may be gone when the store answers. Then whoever sees that frees the ticket. What is
 * unanswered is bounded in bytes: beyond it the session is not read (lim__session_logged_full). */
#include "server/session.h"
#include "bus/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { UNSTORED_BYTES_MAX = 16 << 20, TICKET_BYTES = 256, LOT_HEAD = 64 };

typedef struct ticket {
    lim__list node;      /* session: logged->order */
    struct ticket *next; /* in the box */
    struct lim__logged_box *box;
    uint32_t corr, count; /* of the first; how many */
    size_t bytes;
    bool done;
    lim_receipt receipt;
    const char *detail;
} ticket;

typedef struct lim__logged_box {
    lim_runtime *rt;
    lim_pid session;
    lim__mutex lock;
    uint32_t refs; /* the session's, and one per ticket that is at the store */
    bool dead;     /* the session has ended */
    ticket *first, **last;
    void *letter; /* NULL: it is on its way */
} box;

struct lim__logged_state { /* the session's */
    box *box;
    lim__list order;
    size_t bytes;
    lim__log_lot lot;  /* being gathered; log NULL: none is */
    ticket *gathering; /* its ticket, in `order` */
    size_t lot_bytes;  /* of the last one: the next is likely to be as large */
};

static const lim__letter_type type_box = { "stored_box", NULL };

/* ---- the box ---- */

static void box_unref(box *b)
{
    pthread_mutex_lock(&b->lock);
    bool last = --b->refs == 0;
    pthread_mutex_unlock(&b->lock);
    if (!last)
        return;
    lim__letter_free(NULL, b->letter);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static box *box_new(session *s)
{
    box *b = calloc(1, sizeof *b);
    void *letter = b != NULL ? lim__letter_new(NULL, &type_box, 1) : NULL;
    if (letter == NULL) {
        free(b);
        return NULL;
    }
    *b = (box){ .rt = s->porter->bus->rt, .session = lim_self(s->self), .refs = 1, .letter = letter };
    b->last = &b->first;
    pthread_mutex_init(&b->lock, NULL);
    return b;
}

static struct lim__logged_state *state_of(session *s)
{
    if (s->logged != NULL)
        return s->logged;
    struct lim__logged_state *l = calloc(1, sizeof *l);
    if (l != NULL && (l->box = box_new(s)) == NULL) {
        free(l);
        l = NULL;
    }
    if (l != NULL)
        lim__list_init(&l->order);
    s->logged = l;
    return l;
}

/* The store's thread; or inside lim__log_publish. */
static void on_logged(void *ctx, const lim_receipt *receipt, const char *detail)
{
    ticket *t = ctx;
    box *b = t->box;
    t->receipt = *receipt;
    t->detail = detail;
    t->next = NULL;
    pthread_mutex_lock(&b->lock);
    bool dead = b->dead;
    void *letter = NULL;
    if (!dead) {
        *b->last = t;
        b->last = &t->next;
        letter = b->letter;
        b->letter = NULL;
    }
    pthread_mutex_unlock(&b->lock);
    if (dead)
        free(t);
    if (letter != NULL)
        (void)!lim__post_reserved(b->rt, b->session, letter);
    box_unref(b);
}

/* ---- answering ---- */

/* What was accepted is one row; refusals are said one by one. */
static void say_stored(session *s, const ticket *t)
{
    const lim_receipt *r = &t->receipt;
    const lim_admission *a = &r->admission;
    uint32_t row = a->verdict == LIM_ACCEPT ? t->count : 1;
    for (uint32_t i = 0; i < t->count; i += row)
        LIM__SAY(s, stored, .corr = t->corr + i, .count = row, .verdict = (uint8_t)a->verdict, .why = (uint8_t)a->why,
                 .class = (uint8_t)r->durability, .duplicate = r->duplicate, .seq = r->seq, .at_us = r->at_wall_us,
                 .due_us = r->delayed ? r->due_wall_us : 0, .matched = a->matched, .limit = a->limit,
                 .current = a->current, .retry_after_ms = a->retry_after_ms, .detail = lim__str(t->detail));
}

static void answer_in_order(session *s)
{
    struct lim__logged_state *l = s->logged;
    while (!lim__list_empty(&l->order)) {
        ticket *t = LIM_CONTAINER(l->order.next, ticket, node);
        if (!t->done)
            return;
        lim__list_remove(&t->node);
        l->bytes -= t->bytes;
        say_stored(s, t);
        free(t);
    }
}

bool lim__session_logged(session *s, lim_process *self, const lim_signal *signal)
{
    if (signal->type != &type_box)
        return false;
    box *b = s->logged->box;
    void *letter = lim__letter_keep(self, signal);
    pthread_mutex_lock(&b->lock);
    ticket *first = b->first;
    b->first = NULL;
    b->last = &b->first;
    b->letter = letter; /* whoever puts something in from here on posts it again */
    pthread_mutex_unlock(&b->lock);
    for (ticket *t = first; t != NULL; t = t->next)
        t->done = true;
    answer_in_order(s);
    return true;
}

static void ticket_undo(struct lim__logged_state *l, ticket *t)
{
    lim__list_remove(&t->node);
    l->bytes -= t->bytes;
    box_unref(l->box);
    free(t);
}

bool lim__session_logged_full(const session *s)
{
    return s->logged != NULL && s->logged->bytes > UNSTORED_BYTES_MAX;
}

void lim__session_logged_end(session *s)
{
    struct lim__logged_state *l = s->logged;
    if (l == NULL)
        return;
    box *b = l->box;
    if (l->lot.log != NULL) { /* its process was killed in the middle of a read */
        lim__log_lot_drop(&l->lot);
        ticket_undo(l, l->gathering);
    }
    pthread_mutex_lock(&b->lock);
    b->dead = true;
    ticket *in_box = b->first;
    b->first = NULL;
    pthread_mutex_unlock(&b->lock);
    for (ticket *t = in_box; t != NULL; t = t->next)
        t->done = true;
    while (!lim__list_empty(&l->order)) {
        ticket *t = LIM_CONTAINER(l->order.next, ticket, node);
        lim__list_remove(&t->node);
        if (t->done)
            free(t); /* the others are at the store, and end there */
    }
    box_unref(b);
    free(l);
    s->logged = NULL;
}

/* ---- PUBLISH ---- */

static void refused(ticket *t, lim_why why, const char *detail)
{
    lim_receipt r = { .admission = { .verdict = LIM_REJECT, .why = why } };
    on_logged(t, &r, detail);
}

static const char *message_of(const lim__f_publish *f, lim__log_message *m)
{
    *m =
        (lim__log_message){ .payload = f->payload, .headers = f->headers, .mandatory = f->flags & LIM__FLAG_MANDATORY };
    if (!lim__log_message_options(f->options, m))
        return "an option is unknown, or is not what it should be";
    return f->headers.len > UINT16_MAX ? "the headers are over 65535 bytes" : NULL;
}

/* More is unanswered. */
static void weigh(session *s, ticket *t, size_t bytes)
{
    t->bytes += bytes;
    s->logged->bytes += bytes;
    if (lim__session_logged_full(s))
        lim__flush_queue(s->self, &s->flush); /* which pauses the reading */
}

/* For what is about to be handed over. NULL: no memory, and the session ends. */
static ticket *take_ticket(session *s, uint32_t corr, size_t bytes)
{
    struct lim__logged_state *l = s->logged;
    ticket *t = calloc(1, sizeof *t);
    if (t == NULL) {
        lim__session_fault(s, LIM_E_NOMEM, "out of memory");
        return NULL;
    }
    *t = (ticket){ .box = l->box, .corr = corr, .count = 1 };
    lim__list_push(&l->order, &t->node);
    weigh(s, t, TICKET_BYTES + bytes);
    pthread_mutex_lock(&l->box->lock);
    l->box->refs++;
    pthread_mutex_unlock(&l->box->lock);
    return t;
}

/* ---- lots ---- */

void lim__session_lot_end(session *s)
{
    struct lim__logged_state *l = s->logged;
    ticket *t = l->gathering;
    if (l->lot.log == NULL)
        return;
    t->count = l->lot.count;
    l->lot_bytes = lim__batch_bytes(l->lot.batch);
    weigh(s, t, l->lot.bytes);
    lim_err err = lim__log_lot_publish(&l->lot, on_logged, t);
    if (err == LIM_E_CLOSED)
        refused(t, LIM_WHY_UNKNOWN_CHANNEL, "the channel was deleted, or the bus is closing");
    else if (err != LIM_OK)
        refused(t, err == LIM_E_TOOBIG ? LIM_WHY_TOO_BIG : LIM_WHY_MEMORY, lim_err_text(err));
}

static void lot_begin(session *s, lim__log *log, const lim__f_publish *f)
{
    struct lim__logged_state *l = s->logged;
    size_t left = (size_t)(s->read_end - (const uint8_t *)f->payload.ptr), likely = LOT_HEAD + left + left / 4;
    if (!lim__log_lot_begin(log, likely < l->lot_bytes ? likely : l->lot_bytes, &l->lot))
        return;
    l->gathering = take_ticket(s, f->corr, 0);
    if (l->gathering == NULL)
        lim__log_lot_drop(&l->lot);
    else
        (void)lim__log_lot_add(&l->lot, f->headers, f->payload); /* the first one fits */
}

/* False: it goes alone. */
static bool gathered(session *s, lim__log *log, const lim__f_publish *f)
{
    struct lim__logged_state *l = s->logged;
    bool plain = f->options.len == 0 && (f->flags & LIM__FLAG_MANDATORY) == 0 && f->headers.len <= UINT16_MAX;
    bool goes_on = plain && l->lot.log == log && f->corr == l->gathering->corr + l->lot.count;
    if (LIM_LIKELY(goes_on && lim__log_lot_add(&l->lot, f->headers, f->payload)))
        return true;
    lim__session_lot_end(s);
    if (plain)
        lot_begin(s, log, f);
    return l->lot.log != NULL;
}

lim_err lim__session_publish_logged(session *s, lim__log *log, const lim__f_publish *f)
{
    lim__log_message m;
    if (state_of(s) == NULL) {
        lim__session_fault(s, LIM_E_NOMEM, "out of memory");
        return LIM_OK;
    }
    if (gathered(s, log, f))
        return LIM_OK;
    ticket *t = take_ticket(s, f->corr, f->payload.len);
    if (t == NULL)
        return LIM_OK;
    const char *wrong = message_of(f, &m);
    lim_err err = LIM_OK;
    if (wrong != NULL)
        refused(t, LIM_WHY_BAD_REQUEST, wrong);
    else
        err = lim__log_publish(log, &m, on_logged, t, NULL);
    if (err == LIM_E_CLOSED) /* deleted: the name may mean something else by now */
        ticket_undo(s->logged, t);
    else if (err != LIM_OK)
        refused(t, err == LIM_E_TOOBIG ? LIM_WHY_TOO_BIG : LIM_WHY_MEMORY, lim_err_text(err));
    return err == LIM_E_CLOSED ? err : LIM_OK;
}
