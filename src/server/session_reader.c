/* SPDX-License-Identifier: Apache-2.0
 * session_reader.c - subscriptions over a connection that read the log of a durable channel.
 *
 *      reader --letter of messages--> kept --while there is room--> DELIVER, DELIVERS   kept: two letters of 256 KiB
 *         ^------- more, when all of a letter is written ---'                        at most; the rest in the log
 *         ^------- ACK, CONFIRM ------------------------------------ client
 *
 * A DELIVER carries the channel's own number. What it says beside the publisher's headers begins with $. A letter that
 * has messages in a row, as the log has them, is one frame, whose bytes were made where they were read. */
#include "server/session.h"
#include "data/block.h"

#include <stdlib.h>

typedef struct kept_letter {
    lim__list node;
    lim__read_msgs *msgs; /* or: */
    lim__read_row *row;
    uint32_t at;
} kept_letter;

typedef struct read_stream {
    stream base;
    lim__reading reading;
    lim__list letters; /* not written yet */
    uint64_t newest, delivered;
    uint64_t row_end; /* session->written when its last frame with many messages is out */
    bool pull, over;  /* over: when the letters are written */
    lim_err why;
    char detail[96];
} read_stream;

static void kept_free(kept_letter *k)
{
    for (uint32_t i = 0; k->msgs != NULL && i < k->at; i++)
        k->msgs->item[i].msg = NULL;
    lim__letter_free(lim__sched_current(), k->msgs != NULL ? (void *)k->msgs : (void *)k->row);
    free(k);
}

static void letters_free(read_stream *st)
{
    for (lim__list *node; (node = lim__list_pop(&st->letters)) != NULL;)
        kept_free(LIM_CONTAINER(node, kept_letter, node));
}

/* ---- delivering ---- */

static void ended(read_stream *st, lim_err why, const char *detail)
{
    session *s = st->base.session;
    letters_free(st);
    lim__reader_detach(s->porter->bus, s->self, st->reading);
    LIM__SAY(s, ended, .stream = st->base.id, .code = (uint16_t)why, .delivered = st->delivered,
             .detail = lim__str(detail));
    lim__session_stream_drop(s, &st->base, sizeof *st);
}

/* Of frames with many old messages a stream has one in the output at a time: so they go out one a turn, behind what
 * others are told, and streams of one connection take turns. */
static bool has_room(const read_stream *st, const kept_letter *k)
{
    session *s = st->base.session;
    bool room = lim__buf_len(&s->out) < LIM__OUT_DELIVER && !s->over && (k->row == NULL || s->written >= st->row_end);
    s->starved |= !room;
    return room;
}

static void deliver(read_stream *st, lim__read_item *item)
{
    session *s = st->base.session;
    LIM__SAY(s, deliver, .stream = st->base.id, .seq = item->seq, .headers = lim__msg_headers(item->msg),
             .payload = lim__msg_bytes(item->msg));
    st->newest = item->seq > st->newest ? item->seq : st->newest;
    st->delivered++;
    lim__msg_unref(item->msg);
    item->msg = NULL;
}

static void deliver_row(read_stream *st, const lim__read_row *row)
{
    session *s = st->base.session;
    uint64_t last = row->first + row->count - 1;
    LIM__SAY(s, delivers, .stream = st->base.id, .first = row->first, .count = row->count, .messages = row->bytes);
    st->row_end = s->written + lim__buf_len(&s->out);
    st->newest = last > st->newest ? last : st->newest;
    st->delivered += row->count;
}

/* One message, or all of a row. True: that was the letter's last. */
static bool deliver_some(read_stream *st, kept_letter *k)
{
    if (k->row != NULL)
        deliver_row(st, k->row);
    else
        deliver(st, &k->msgs->item[k->at++]);
    return k->row != NULL || k->at == k->msgs->count;
}

/* Ends nothing, so that all streams can be gone through. */
bool lim__session_read_pump(stream *base)
{
    read_stream *st = (read_stream *)base;
    session *s = st->base.session;
    while (!lim__list_empty(&st->letters)) {
        kept_letter *k = LIM_CONTAINER(st->letters.next, kept_letter, node);
        if (!has_room(st, k))
            break;
        if (!deliver_some(st, k))
            continue;
        lim__list_remove(&k->node);
        kept_free(k);
        lim__reader_more(s->porter->bus, s->self, st->reading);
    }
    return !st->over || !lim__list_empty(&st->letters);
}

void lim__session_read_finish(stream *base)
{
    read_stream *st = (read_stream *)base;
    ended(st, st->why, st->detail);
}

static read_stream *stream_of(session *s, uint64_t ref)
{
    stream *st = lim__map_get(&s->streams, ref);
    return st != NULL && st->kind == STREAM_READ ? (read_stream *)st : NULL;
}

static void take_letter(session *s, const lim_signal *signal, uint64_t owner_ref, uint64_t member)
{
    read_stream *st = stream_of(s, owner_ref);
    if (st == NULL || st->reading.member != member)
        return; /* of one that has ended; its number may be somebody else's by now */
    kept_letter *k = malloc(sizeof *k);
    if (k == NULL)
        return; /* not acknowledged, so not lost */
    void *letter = lim__letter_keep(s->self, signal);
    *k = (kept_letter){ .msgs = signal->type == &lim__type_read_msgs ? letter : NULL,
                        .row = signal->type == &lim__type_read_row ? letter : NULL };
    lim__list_push(&st->letters, &k->node);
    (void)lim__session_read_pump(&st->base); /* nothing comes behind its end */
}

void lim__session_read_msgs(session *s, const lim_signal *signal)
{
    const lim__read_msgs *m = signal->body.ptr;
    if (m->count > 0)
        take_letter(s, signal, m->owner_ref, m->member);
}

void lim__session_read_row(session *s, const lim_signal *signal)
{
    const lim__read_row *row = signal->body.ptr;
    take_letter(s, signal, row->owner_ref, row->member);
}

void lim__session_read_over(session *s, const lim__read_over *o)
{
    read_stream *st = stream_of(s, o->owner_ref);
    if (st == NULL || st->reading.member != o->member)
        return;
    st->over = true;
    st->why = o->why;
    memcpy(st->detail, o->detail, sizeof st->detail);
    if (!lim__session_read_pump(&st->base))
        lim__session_read_finish(&st->base);
}

/* ---- SUBSCRIBE, UNSUBSCRIBE ---- */

bool lim__session_reads(session *s, const lim__f_subscribe *f)
{
    const lim_read_opts none = { .cursor = NULL };
    return f->options.len > 0 || lim__reader_wanted(s->porter->bus, f->pattern, (lim_policy)f->policy, &none);
}

static lim_err attach(session *s, const lim__f_subscribe *f, read_stream *st, lim_diag *diag)
{
    lim__read_options o;
    if (lim__session_draining(s)) {
        lim__diag_set(diag, 0, 0, "the server is closing");
        return LIM_E_CLOSED;
    }
    lim_err err = lim__read_options_parse(f->options, diag, &o);
    if (err != LIM_OK)
        return err;
    st->pull = o.pull;
    const lim__read_want want = { .channel = f->pattern,
                                  .read = o.read,
                                  .window = o.pull ? LIM_PULL : f->window,
                                  .owner = lim_self(s->self),
                                  .owner_ref = f->stream,
                                  .owner_name = s->client };
    return lim__reader_attach(s->porter->bus, s->self, &want, diag, &st->reading);
}

void lim__session_read_subscribe(session *s, const lim__f_subscribe *f)
{
    lim_diag diag = { 0 };
    read_stream *st = lim__alloc(s->porter->sched, sizeof *st);
    lim_err err = st == NULL ? LIM_E_NOMEM : LIM_OK;
    if (st != NULL) {
        *st = (read_stream){ .pull = false };
        lim__list_init(&st->letters);
        err = lim__session_stream_add(s, &st->base, STREAM_READ, f->stream);
    }
    if (err == LIM_OK)
        err = attach(s, f, st, &diag);
    if (err == LIM_OK) {
        LIM__SAY(s, subscribed, .flags = LIM__FLAG_READS, .stream = f->stream, .subscription = st->reading.begins);
        return;
    }
    if (st != NULL)
        lim__session_stream_drop(s, &st->base, sizeof *st);
    LIM__SAY(s, ended, .stream = f->stream, .code = (uint16_t)err,
             .detail = lim__str(diag.text[0] != '\0' ? diag.text : lim_err_text(err)));
}

void lim__session_read_unsubscribe(stream *base)
{
    ended((read_stream *)base, LIM_OK, "");
}

void lim__session_read_end(stream *base)
{
    read_stream *st = (read_stream *)base;
    letters_free(st);
    lim__reader_detach(st->base.session->porter->bus, NULL, st->reading);
    lim__free(st->base.session->porter->sched, st, sizeof *st);
}

/* ---- ACK, CONFIRM ---- */

static void confirmed(read_stream *st, uint32_t corr, lim_err err, const char *detail)
{
    if (corr != 0)
        LIM__SAY(st->base.session, confirmed, .stream = st->base.id, .corr = corr, .code = (uint16_t)err,
                 .detail = lim__str(detail));
}

static void settle(read_stream *st, lim__read_ack ack, uint64_t seq, uint32_t corr)
{
    session *s = st->base.session;
    ack.seqs = &seq;
    ack.count = 1;
    ack.ref = corr;
    lim_err err = lim__reader_ack(s->porter->bus, s->self, st->reading, &ack);
    if (err != LIM_OK)
        confirmed(st, corr, err, lim_err_text(err));
}

void lim__session_read_ack(stream *base, uint64_t upto_seq)
{
    read_stream *st = (read_stream *)base;
    if (upto_seq > st->newest)
        lim__session_fault(st->base.session, LIM_E_PROTOCOL, "ACK of message %llu on stream %u, which has seen %llu",
                           (unsigned long long)upto_seq, st->base.id, (unsigned long long)st->newest);
    else
        settle(st, (lim__read_ack){ .how = LIM__READ_UPTO }, upto_seq, 0);
}

static void fetch(read_stream *st, const lim__f_confirm *f)
{
    session *s = st->base.session;
    lim_err err = LIM_E_MISUSE;
    if (f->seq == 0 || f->delay_ms == 0)
        err = LIM_E_INVALID;
    else if (st->pull)
        err =
            lim__reader_fetch(s->porter->bus, s->self, st->reading, f->seq > UINT32_MAX ? UINT32_MAX : (uint32_t)f->seq,
                              lim__session_deadline(s, f->delay_ms));
    confirmed(st, f->corr, err, err == LIM_E_MISUSE ? "it is not a subscription that pulls; subscribe with pull" : "");
}

void lim__session_confirm(session *s, const lim__frame *frame)
{
    lim__f_confirm f;
    if (!lim__get_confirm(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    read_stream *st = (read_stream *)lim__session_stream(s, frame, STREAM_READ);
    if (st == NULL)
        return;
    uint64_t delay_ns = f.delay_ms == UINT32_MAX ? LIM__READ_BACKOFF : (uint64_t)f.delay_ms * 1000000;
    if (f.how == 4)
        fetch(st, &f);
    else if (f.how == 3)
        settle(st, (lim__read_ack){ .how = LIM__READ_AGAIN, .delay_ns = delay_ns }, f.seq, f.corr);
    else
        settle(st, (lim__read_ack){ .how = f.how == 1 ? LIM__READ_DONE : LIM__READ_UPTO }, f.seq, f.corr);
}

void lim__session_read_acked(session *s, const lim__read_acked *a)
{
    read_stream *st = stream_of(s, a->owner_ref);
    if (st != NULL)
        confirmed(st, (uint32_t)a->ref, a->err, a->detail);
}

bool lim__session_reading(session *s, uint32_t id, lim__reading *out)
{
    read_stream *st = stream_of(s, id);
    if (st != NULL)
        *out = st->reading;
    return st != NULL;
}
