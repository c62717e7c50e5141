/* SPDX-License-Identifier: Apache-2.0
 * session.c - one connection: a process that reads frames, acts, and writes what others tell it.
 *
 *   readable --one recv--> shared buffer --frames--> act ----.
 *                             `-- incomplete tail: `kept'    |     out --end of turn, one send--> socket
 *   letters (outcomes, joined, ...) -------------------------+----^
 *   deliveries and requests, written by other processes -----'     the rest waits until the socket is writable
 *
 * What one read brought is acted on in portions, a turn of the scheduler for each: whoever gets a request out of the
 * first one works on it while the server deals with the next. Publishes are not counted: they are done where they are
 * read.
 *
 * Answers to publishes are merged into runs until the batch is over. A client that does not read is not read either
 * (`paused`), and its messages stay in the backlogs of its subscriptions (`starved`), so what waits here is bounded by
 * what it asked for; one that lets that pile up is cut off.
 *
 * The end: what was received before it has been dealt with, in order; then the session's process ends with the reason
 * its participants are to have. They are linked and follow; their answers were sent before, so nobody takes an answer
 * that was given for a crash. Bytes that are still to be written are left to a lingering process (linger.c).
 *
 * Invariants (session_check):
 *   N1  `busy` says whether calls or held requests exist, and is counted once in the porter.
 *   N2  a ping timer runs only if it was busy since the timer's last look; an idle connection has no timer.
 *   N3  paused implies more than LIM__OUT_RESUME bytes waiting for a writable socket, or publishes at the store: it
 * ends. */
#include "server/session.h"
#include "bus/durable.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MS ((uint64_t)1000000)
enum { HELLO_MS = 10000, PING_MS = 2000 };
enum { IDLE_MS = 2000, LOOSE_MS = 60000, TIGHT_MS = 6000 }; /* the kernel's detectors */
enum { TAG_HELLO = 1, TAG_PING };
#ifdef LIM_HOSTILE
enum { PORTION_LEAST = 1, PORTION_MOST = 2 };
#else
enum {
    PORTION_LEAST = 32,
    PORTION_MOST = 64
}; /* frames; sending wakes somebody, which costs as much as a few of them */
#endif

static void read_in(session *s);

static void session_check(const session *s)
{
    LIM_CHECK(s->busy == (s->calls.count + s->held > 0));                  /* N1 */
    LIM_CHECK(s->over || !s->paused || !s->writable || s->logged != NULL); /* N3 */
    LIM_CHECK(s->over || s->streams.count >= s->peers.count);
    (void)s;
}

/* ---- the end ---- */

static const char *shown_name(const session *s, char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < s->client.len && n + 1 < size; i++) {
        char c = ((const char *)s->client.ptr)[i];
        text[n++] = c <= ' ' || c == '"' || c == '\\' || c == 0x7f ? '_' : c;
    }
    text[n] = '\0';
    return text;
}

static void log_end(session *s, lim_reason reason)
{
    char name[64], why[sizeof s->wire.text];
    snprintf(why, sizeof why, "%s", s->wire.text);
    for (char *c = why; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == '"')
            *c = '\'';
    lim__bus_log(s->porter->bus, "event=disconnect session=%llx peer=%s client=%s reason=%s detail=\"%s\"",
                 (unsigned long long)lim_self(s->self).id, s->peer, shown_name(s, name, sizeof name),
                 lim_reason_text(reason), why);
}

/* Frames that the wire has made itself take their place behind what was answered before. */
static void take_words(session *s)
{
    if (LIM_LIKELY(lim__buf_len(&s->words) == 0 && !s->words.failed))
        return;
    lim_bytes words = lim__buf_bytes(&s->words);
    lim__buf_add(lim__session_out(s), words.ptr, words.len);
    s->out.failed |= s->words.failed;
    lim__buf_fini(&s->words);
}

static void end_runs(session *s)
{
    if (LIM_UNLIKELY(s->logged != NULL))
        lim__session_lot_end(s);
    lim__session_run_end(s);
    if (LIM_UNLIKELY(!lim__list_empty(&s->answering)))
        lim__session_talk_runs_end(s);
    take_words(s);
}

/* `farewell`: our last words matter; they are lost if the socket is closed while there is something unread in it. */
static void end(session *s, lim_reason reason, bool farewell)
{
    porter *p = s->porter;
    if (s->over)
        return;
    end_runs(s);
    s->over = true;
    log_end(s, reason);
    if (!s->broken && s->out.ptr != NULL && !s->out.failed && (farewell || lim__buf_len(&s->out) > 0)) {
        (void)lim__watch_set(s->self, &s->watch, s->fd, 0);
        lim__linger(p, s->self, s->fd, &s->out, farewell);
        s->fd = -1;
    }
    lim_exit(s->self, reason);
}

void lim__session_fault(session *s, lim_err code, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lim__wire_fault(&s->wire, code, "%s", text); /* the reading loop finds the wire closing */
}

void lim__session_malformed(session *s, const lim__frame *frame)
{
    lim__wire_malformed(&s->wire, frame);
}

static void end_of_wire(session *s)
{
    bool goodbye = s->wire.code == LIM_OK;
    end(s, goodbye ? LIM_LOST : LIM_PROTOCOL, !goodbye); /* leaving is LEAVE: a goodbye gives nothing back */
}

static void end_of_stream(session *s, long error)
{
    lim__wire_gone(&s->wire, error == 0            ? "closed by the peer"
                             : error == -ETIMEDOUT ? "the network is silent"
                                                   : "connection reset");
    end(s, error == -ETIMEDOUT ? LIM_SILENT : LIM_LOST, false);
}

/* ---- writing ---- */

void lim__session_room(session *s)
{
    porter *p = s->porter;
    if (p->spare_count > 0)
        s->out = p->spares[--p->spare_count];
}

/* An empty buffer serves whoever writes next: idle connections have none. */
static void give_room(session *s)
{
    porter *p = s->porter;
    if (s->out.cap <= LIM__SPARE_BYTES_MAX && p->spare_count < LIM__SPARES_MAX && s->out.ptr != NULL) {
        p->spares[p->spare_count++] = (lim__buf){ .ptr = s->out.ptr, .cap = s->out.cap };
        s->out = (lim__buf){ 0 };
    } else {
        lim__buf_fini(&s->out);
    }
}

static void interest(session *s)
{
    uint32_t want = (s->paused ? 0u : LIM__IO_READ) | (s->writable ? 0u : LIM__IO_WRITE);
    if (s->watch.interest != want && lim__watch_set(s->self, &s->watch, s->fd, want) != 0) {
        lim__wire_gone(&s->wire, "cannot be watched");
        end(s, LIM_LOST, false);
    }
}

/* Nothing more can be written. What the peer said before may still be unread, an answer perhaps: reading goes on to its
 * end, which is near. */
static void write_broken(session *s)
{
    s->broken = true;
    s->writable = true;
    s->paused = false;
    lim__buf_fini(&s->out);
}

static void write_once(session *s)
{
    size_t len = lim__buf_len(&s->out);
    lim__os *os = s->porter->os;
    long n = len == 0 ? 0 : os->send(os, s->fd, s->out.ptr + s->out.start, len);
    if (n < 0 && n != -EAGAIN) {
        write_broken(s);
        return;
    }
    s->heard |= n > 0 && s->paused; /* not read, but it reads: a sign of life */
    s->out.start += n > 0 ? (size_t)n : 0;
    s->written += n > 0 ? (uint64_t)n : 0;
    s->writable = lim__buf_len(&s->out) == 0;
    if (s->writable)
        give_room(s);
}

/* What follows from how much is left to write. */
static void weigh(session *s)
{
    size_t left = lim__buf_len(&s->out);
    if (left > LIM__OUT_FULL) {
        lim__wire_gone(&s->wire, "it does not read what it is sent");
        end(s, LIM_SILENT, false);
        return;
    }
    s->paused = (!s->writable && left > (s->paused ? LIM__OUT_RESUME : LIM__OUT_PAUSE)) || lim__session_logged_full(s);
    if (s->starved && left < LIM__OUT_DELIVER)
        lim__session_pump(s);
    interest(s);
    session_check(s);
}

static void write_out(session *s)
{
    if (s->broken)
        lim__buf_fini(&s->out); /* nobody will read it */
    else
        write_once(s);
    weigh(s);
}

static bool out_failed(session *s)
{
    if (LIM_LIKELY(!s->out.failed))
        return false;
    lim__wire_gone(&s->wire, "out of memory");
    end(s, LIM_FAULT, false);
    return true;
}

static void on_flush(lim_process *owner, lim__flush *flush)
{
    session *s = LIM_CONTAINER(flush, session, flush);
    (void)owner;
    if (s->over)
        return;
    end_runs(s);
    if (out_failed(s))
        return;
    if (s->writable || s->broken)
        write_out(s);
    else
        weigh(s); /* the socket says when */
}

/* ---- reading ---- */

static lim_bytes welcome_name(void)
{
    return lim__bytes("liminald", 8);
}

/* A session that comes back keeps its token: it is what its leases know it by. One of a server that ran here before
 * gets another one, and so learns that nothing of what it had is known: the numbers of conversations begin anew with a
 * server, and a lease of then could be taken for one of now. */
static void take_token(session *s, const lim__c_id16 *given)
{
    lim__os *os = s->porter->os;
    uint64_t words[2] = { s->porter->server->birth, 0 };
    memcpy(s->token, given->bytes, sizeof s->token);
    if (memcmp(s->token, words, sizeof words[0]) == 0)
        return;
    words[1] = os->random(os);
    memcpy(s->token, words, sizeof s->token);
}

static void on_hello(session *s, const lim__frame *frame)
{
    lim__server *server = s->porter->server;
    lim__f_hello f;
    if (!lim__get_hello(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    char *name = malloc(f.client.len + f.node.len + 1);
    if (name == NULL) {
        lim__session_fault(s, LIM_E_NOMEM, "out of memory");
        return;
    }
    if (f.client.len > 0)
        memcpy(name, f.client.ptr, f.client.len);
    if (f.node.len > 0)
        memcpy(name + f.client.len, f.node.ptr, f.node.len);
    s->client = lim__bytes(name, f.client.len);
    s->place = lim__bytes(name + f.client.len, f.node.len);
    s->liveness_ms = f.liveness_ms;
    take_token(s, &f.session);
    if (s->hello_timer != 0)
        lim_timer_cancel(s->self, s->hello_timer);
    s->hello_timer = 0;
    take_words(s); /* CONNECT_ACK goes first */
    lim__f_welcome w = { .frame_max = server->opts.frame_max,
                         .ping_ms = server->opts.ping_ms,
                         .server = welcome_name(),
                         .version = lim__str(LIM_VERSION),
                         .durability_class = lim__str(lim_class_text((lim_class)lim__durable_class(s->porter->bus))) };
    memcpy(w.session.bytes, s->token, sizeof s->token);
    (void)!lim__put_welcome(lim__session_out(s), &w);
    char shown[64];
    lim__bus_log(s->porter->bus, "event=connect session=%llx peer=%s client=%s",
                 (unsigned long long)lim_self(s->self).id, s->peer, shown_name(s, shown, sizeof shown));
}

static void on_frame(session *s, const lim__frame *frame)
{
    static void (*const handlers[256])(session *, const lim__frame *) = {
        [LIM__HELLO] = on_hello,
        [LIM__PUBLISH] = lim__session_publish,
        [LIM__SUBSCRIBE] = lim__session_subscribe,
        [LIM__ACK] = lim__session_ack,
        [LIM__CONFIRM] = lim__session_confirm,
        [LIM__UNSUBSCRIBE] = lim__session_unsubscribe,
        [LIM__STEP] = lim__session_step,
        [LIM__ASK] = lim__session_ask,
        [LIM__CANCEL] = lim__session_cancel,
        [LIM__SERVE] = lim__session_serve,
        [LIM__LEAVE] = lim__session_leave,
        [LIM__TAKEN] = lim__session_taken,
        [LIM__REPLY] = lim__session_reply,
        [LIM__HOLDING] = lim__session_holding,
        [LIM__REPORT] = lim__session_report,
        [LIM__SAY] = lim__session_say,
        [LIM__PART] = lim__session_part,
        [LIM__PROGRESS] = lim__session_progress,
        [LIM__DISPATCH] = lim__session_dispatch,
        [LIM__AWAIT] = lim__session_await,
        [LIM__GRANT] = lim__session_grant,
        [LIM__SIGNAL] = lim__session_signal,
        [LIM__FIND] = lim__session_find,
        [LIM__OPEN] = lim__session_talk_open,
        [LIM__SEND] = lim__session_talk_send,
        [LIM__CLOSE] = lim__session_talk_close,
        [LIM__ASKIN] = lim__session_talk_ask,
        [LIM__JOIN] = lim__session_talk_join,
        [LIM__DEPART] = lim__session_talk_depart,
    };
    static const bool waits_for_nothing[256] = { [LIM__HELLO] = true,
                                                 [LIM__SUBSCRIBE] = true,
                                                 [LIM__ACK] = true,
                                                 [LIM__CONFIRM] = true,
                                                 [LIM__UNSUBSCRIBE] = true };
    if (LIM_NEVER(handlers[frame->type] == NULL))
        return;
    if (!waits_for_nothing[frame->type])
        lim__bus_lively(s->porter->bus, lim_now_ns(s->self));
    if (LIM_UNLIKELY(s->logged != NULL))
        lim__session_lot_end(s); /* what was published before goes first */
    handlers[frame->type](s, frame);
}

/* After so many frames and bytes: the last ones that were read are not split into less than is worth a turn. */
static bool portion_ends(uint32_t frames, size_t done, size_t left)
{
    if (frames < PORTION_LEAST || left == 0)
        return false;
    return frames >= PORTION_MOST || (left <= done && left >= done / 4);
}

/* False: the session has ended. What it leaves in `in` is an incomplete frame, or comes with the next turn. */
static bool take_frames(session *s, lim__span *in)
{
    const uint8_t *start = in->p;
    uint32_t frames = 0;
    lim__frame frame;
    s->read_end = in->end;
    for (;;) {
        switch (lim__wire_next(&s->wire, in, &frame)) {
        case LIM__WIRE_FRAME:
            if (LIM_LIKELY(frame.type == LIM__PUBLISH)) {
                lim__bus_lively(s->porter->bus, lim_now_ns(s->self));
                lim__session_publish(s, &frame);
                continue;
            }
            on_frame(s, &frame);
            if (portion_ends(++frames, (size_t)(in->p - start), (size_t)(in->end - in->p))) {
                end_runs(s);
                lim__flush_queue(s->self, &s->more);
                return true;
            }
            continue;
        case LIM__WIRE_MORE:
            end_runs(s);
            return true;
        case LIM__WIRE_END:
            end_of_wire(s);
            return false;
        }
    }
}

static void keep(session *s, const lim__span *in)
{
    size_t len = (size_t)(in->end - in->p);
    s->kept.start = s->kept.end = 0;
    if (len == 0) {
        if (s->kept.ptr != NULL)
            lim__buf_fini(&s->kept);
        return;
    }
    lim__buf_add(&s->kept, in->p, len);
    if (s->kept.failed) {
        lim__wire_gone(&s->wire, "out of memory");
        end(s, LIM_FAULT, false);
    }
}

static void heard(session *s)
{
    s->heard = true;
    if (s->pulse != NULL)
        lim__pulse_beat(s->pulse, lim_now_ns(s->self));
}

/* A frame larger than the shared buffer grows in the session's own, as its bytes come: its length is only a promise. */
static void read_large(session *s)
{
    lim__os *os = s->porter->os;
    size_t have = lim__buf_len(&s->kept), missing = s->wire.need - have;
    uint8_t *to = lim__buf_reserve(&s->kept, missing < LIM__READ_BYTES ? missing : LIM__READ_BYTES);
    if (to == NULL) {
        lim__wire_gone(&s->wire, "out of memory");
        end(s, LIM_FAULT, false);
        return;
    }
    long n = os->recv(os, s->fd, to, missing < LIM__READ_BYTES ? missing : LIM__READ_BYTES);
    if (n <= 0) {
        if (n != -EAGAIN)
            end_of_stream(s, n);
        return;
    }
    heard(s);
    s->kept.end += (size_t)n;
    lim__span in = { s->kept.ptr + s->kept.start, s->kept.ptr + s->kept.end };
    if ((size_t)n == missing && take_frames(s, &in))
        lim__buf_fini(&s->kept);
}

static void read_in(session *s)
{
    lim__os *os = s->porter->os;
    uint8_t *buffer = s->porter->reading;
    size_t have = lim__buf_len(&s->kept);
    if (s->wire.need > LIM__READ_BYTES && have > 0) {
        read_large(s);
        return;
    }
    long n = os->recv(os, s->fd, buffer + have, LIM__READ_BYTES - have);
    if (n <= 0) {
        if (n != -EAGAIN)
            end_of_stream(s, n);
        return;
    }
    heard(s);
    if (have > 0)
        memcpy(buffer, s->kept.ptr + s->kept.start, have);
    lim__span in = { buffer, buffer + have + (size_t)n };
    if (take_frames(s, &in))
        keep(s, &in);
    session_check(s);
}

/* The next portion. */
static void on_more(lim_process *owner, lim__flush *flush)
{
    session *s = LIM_CONTAINER(flush, session, more);
    (void)owner;
    if (s->over)
        return;
    lim__span in = { s->kept.ptr + s->kept.start, s->kept.ptr + s->kept.end };
    if (!take_frames(s, &in))
        return;
    s->kept.start = (size_t)(in.p - s->kept.ptr);
    if (in.p == in.end)
        lim__buf_fini(&s->kept);
    session_check(s);
}

static void on_ready(lim_process *owner, lim__watch *watch, uint32_t ready)
{
    session *s = LIM_CONTAINER(watch, session, watch);
    (void)owner;
    if ((ready & LIM__IO_WRITE) && !s->writable && !s->broken)
        write_out(s);
    if ((ready & LIM__IO_READ) && !s->over && !s->paused && s->more.prev == NULL)
        read_in(s);
}

/* ---- is it alive? ---- */

void lim__session_watch_closely(session *s)
{
    lim__os *os = s->porter->os;
    if (s->tight)
        return;
    s->tight = true;
    os->set_liveness(os, s->fd, IDLE_MS, TIGHT_MS);
}

void lim__session_busy_look(session *s)
{
    porter *p = s->porter;
    bool busy = s->calls.count + s->held > 0;
    if (busy == s->busy)
        return;
    s->busy = busy;
    uint32_t count = atomic_load_explicit(&p->busy_count, memory_order_relaxed);
    atomic_store_explicit(&p->busy_count, busy ? count + 1 : count - 1, memory_order_relaxed);
    if (busy && s->liveness_ms > 0 && s->ping_timer == 0)
        (void)!lim_timer_start(s->self, p->server->opts.ping_ms * MS, TAG_PING, &s->ping_timer);
}

/* The kernel finds a silent network; this finds a client that is stopped or stuck. */
static void on_ping_timer(session *s)
{
    uint64_t now_ns = lim_now_ns(s->self), wait_ns = s->porter->server->opts.ping_ms * MS;
    s->ping_timer = 0;
    if (s->heard || !s->busy)
        s->asked_ns = 0;
    s->heard = false;
    if (!s->busy) /* N2 */
        return;

    uint64_t due_ns = s->asked_ns + s->liveness_ms * MS;
    if (s->asked_ns != 0 && now_ns >= due_ns) {
        lim__wire_gone(&s->wire, "it does not answer");
        end(s, LIM_SILENT, false);
        return;
    }
    if (s->asked_ns == 0) {
        s->asked_ns = now_ns;
        due_ns = now_ns + s->liveness_ms * MS;
    }
    lim__wire_ping(&s->wire);
    take_words(s);
    if (due_ns - now_ns < wait_ns)
        wait_ns = due_ns - now_ns;
    (void)!lim_timer_start(s->self, wait_ns, TAG_PING, &s->ping_timer);
}

static void on_timer(session *s, const lim_signal *signal)
{
    if (signal->tag == TAG_PING) {
        on_ping_timer(s);
        return;
    }
    s->hello_timer = 0;
    lim__wire_refuse(&s->wire, LIM__REFUSED_OTHER, "no HELLO within 10 s");
    end(s, LIM_PROTOCOL, true);
}

/* ---- streams ---- */

stream *lim__session_stream(session *s, const lim__frame *frame, stream_kind kind)
{
    stream *st = s->recent;
    if (st == NULL || st->id != frame->stream)
        st = lim__map_get(&s->streams, frame->stream);
    if (st != NULL && st->kind != kind) {
        lim__session_fault(s, LIM_E_PROTOCOL, "%s on stream %u, which is something else", lim__frame_name(frame->type),
                           frame->stream);
        return NULL;
    }
    s->recent = st;
    return st; /* an unknown one may have ended while the frame was on its way */
}

bool lim__session_stream_free(session *s, const lim__frame *frame)
{
    if (lim__map_get(&s->streams, frame->stream) == NULL)
        return true;
    lim__session_fault(s, LIM_E_PROTOCOL, "%s on stream %u, which is in use", lim__frame_name(frame->type),
                       frame->stream);
    return false;
}

lim_err lim__session_stream_add(session *s, stream *st, stream_kind kind, uint32_t id)
{
    *st = (stream){ s, id, kind };
    return lim__map_put(&s->streams, id, st);
}

void lim__session_stream_drop(session *s, stream *st, size_t bytes)
{
    lim__map_remove(&s->streams, st->id);
    s->recent = NULL;
    lim__free(s->porter->sched, st, bytes);
}

uint64_t lim__session_deadline(const session *s, uint32_t timeout_ms)
{
    return timeout_ms == LIM__NO_TIMEOUT ? UINT64_MAX : lim_now_ns(s->self) + timeout_ms * MS;
}

/* ---- signals ---- */

static void on_letter(session *s, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    const void *body = signal->body.ptr;
    if (t == &lim__type_outcome) {
        lim__session_outcome(s, signal->from, body);
    } else if (t == &lim__type_partial) {
        lim__session_partial(s, body);
    } else if (t == &lim__type_admitted) {
        lim__session_admitted(s, body);
    } else if (t == &lim__type_joined) {
        lim__session_joined(s, body);
    } else if (t == &lim__type_message) {
        lim__session_talk_message(s, body);
    } else if (t == &lim__type_done) {
        lim__session_talk_done(s, body);
    } else if (t == &lim__type_closed) {
        lim__session_talk_closed(s, body);
    } else if (t == &lim__type_read_msgs) {
        lim__session_read_msgs(s, signal);
    } else if (t == &lim__type_read_row) {
        lim__session_read_row(s, signal);
    } else if (t == &lim__type_read_acked) {
        lim__session_read_acked(s, body);
    } else if (t == &lim__type_read_over) {
        lim__session_read_over(s, body);
    } else if (t == &lim__type_goodbye) {
        lim__wire_bye(&s->wire);
        end(s, LIM_DRAINED, true);
    }
}

static void on_exit_signal(session *s, const lim_signal *signal)
{
    stream *st = lim__map_get(&s->peers, signal->from.id);
    if (st == NULL)
        lim__session_conv_gone(s, signal->from, 0);
    else if (st->kind == STREAM_REG)
        lim__session_left(s, (reg_stream *)st, signal->reason);
    else
        lim__session_talk_gone(s, (talk_stream *)st, signal->reason);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    session *s = state;
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type != NULL) {
        if (!lim__sub_on_signal(self, signal) && !lim__session_logged(s, self, signal) &&
            !lim__session_stepped(s, signal))
            on_letter(s, signal);
    } else if (signal->kind == LIM_SIGNAL_EXIT) {
        on_exit_signal(s, signal);
    } else if (signal->kind == LIM_SIGNAL_DOWN) {
        lim__session_conv_gone(s, signal->from, signal->ref);
    } else if (signal->kind == LIM_SIGNAL_TIMER) {
        on_timer(s, signal);
    }
    session_check(s);
}

/* ---- birth and burial ---- */

static void streams_end(session *s)
{
    size_t pos = 0;
    uint64_t key;
    void *value;
    lim__sched *sched = s->porter->sched;
    while (lim__map_next(&s->streams, &pos, &key, &value)) {
        stream *st = value;
        switch (st->kind) {
        case STREAM_SUB:
            lim__session_sub_end((sub_stream *)st);
            lim__free(sched, st, sizeof(sub_stream));
            break;
        case STREAM_READ:
            lim__session_read_end(st);
            break;
        case STREAM_REG:
            lim__session_reg_end((reg_stream *)st);
            lim__free(sched, st, sizeof(reg_stream));
            break;
        case STREAM_TALK:
            lim__session_talk_end((talk_stream *)st);
            lim__free(sched, st, sizeof(talk_stream));
            break;
        }
    }
    lim__map_fini(&s->streams);
    lim__map_fini(&s->peers);
}

static void calls_end(session *s)
{
    size_t pos = 0;
    uint64_t key;
    void *value;
    while (lim__map_next(&s->calls, &pos, &key, &value)) /* asks are linked with this process: they know */
        lim__free(s->porter->sched, value, sizeof(call));
    lim__map_fini(&s->calls);
}

static void count_session(porter *p, int by)
{
    uint32_t n = atomic_load_explicit(&p->session_count, memory_order_relaxed);
    atomic_store_explicit(&p->session_count, n + (uint32_t)by, memory_order_relaxed);
}

static void on_end(void *state, lim_reason reason)
{
    session *s = state;
    porter *p = s->porter;
    (void)reason;
    calls_end(s);
    s->calls.count = s->held = 0;
    if (s->busy)
        atomic_store_explicit(&p->busy_count, atomic_load_explicit(&p->busy_count, memory_order_relaxed) - 1,
                              memory_order_relaxed);
    streams_end(s);
    lim__session_logged_end(s);
    lim__session_known_free(s);
    if (s->fd >= 0)
        p->os->close(p->os, s->fd);
    lim__buf_fini(&s->words);
    lim__buf_fini(&s->kept);
    lim__buf_fini(&s->out);
    free((void *)(uintptr_t)s->client.ptr);
    lim__pulse_unref(s->pulse);
    lim__list_remove(&s->node);
    count_session(p, -1);
}

static void init(session *s, porter *p, lim_process *self, int fd, const char *peer)
{
    lim__wire_opts opts = { .length_max = p->server->opts.frame_max };
    s->porter = p;
    s->self = self;
    s->fd = fd;
    s->writable = true;
    s->watch.on_ready = on_ready;
    s->flush.run = on_flush;
    s->more.run = on_more;
    snprintf(s->peer, sizeof s->peer, "%s", peer);
    uint64_t seed = p->os->random(p->os);
    lim__map_init(&s->streams, seed);
    lim__map_init(&s->peers, seed);
    lim__map_init(&s->calls, seed);
    lim__list_init(&s->answering);
    lim__list_push(&p->sessions, &s->node);
    count_session(p, 1);
    lim__wire_init(&s->wire, LIM__WIRE_SERVER, &s->words, &opts);
    lim__wire_open(&s->wire);
}

void lim__session_open(porter *p, int fd, const char *peer)
{
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "session",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof(session),
                            .mailbox_max = 1u << 20,
                            .trap_exit = true };
    lim_pid pid;
    if (lim_spawn(p->self, &opts, &pid) != LIM_OK) {
        p->os->close(p->os, fd);
        return;
    }
    lim_process *self = lim__local_process(p->sched, pid);
    LIM_ASSERT(self != NULL);
    session *s = lim__proc_state(self);
    init(s, p, self, fd, peer);
    p->os->set_liveness(p->os, fd, IDLE_MS, LOOSE_MS);
    if (lim__watch_set(self, &s->watch, fd, LIM__IO_READ) != 0 ||
        lim_timer_start(self, HELLO_MS * MS, TAG_HELLO, &s->hello_timer) != LIM_OK)
        lim_exit_process(p->self, pid, LIM_KILL); /* on_end closes the descriptor */
}
