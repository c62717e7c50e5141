/* SPDX-License-Identifier: Apache-2.0
 * session_channel.c - publishing and subscribing over a connection.
 *
 * A publish is the hottest path of the server: the channel is found in a small table of those this session publishes
 * to (the last one first), and a delivery to a session of the same scheduler is written straight into that session's
 * output. That nobody knows a channel is remembered too, until the registry says that somebody may.
 *
 * The answers are merged while they are equal and consecutive (`run`). */
#include "server/session.h"

#include <stdlib.h>

/* ---- which channel ---- */

static bool may_publish(lim_bytes name)
{
    return lim__channel_name_ok(name) && ((const char *)name.ptr)[0] != '$';
}

static void known_free(known_channel *k)
{
    if (k == NULL)
        return;
    if (k->ch != NULL)
        lim__channel_unref(k->ch);
    free(k);
}

void lim__session_known_free(session *s)
{
    for (uint32_t i = 0; s->known != NULL && i < LIM__PUBLISH_SLOTS; i++)
        known_free(s->known[i]);
    free(s->known);
    s->known = NULL;
    s->last = NULL;
}

static bool is_named(const known_channel *k, lim_bytes name)
{
    return k != NULL && k->len == name.len && memcmp(k->name, name.ptr, name.len) == 0;
}

static known_channel *known_new(lim_bytes name)
{
    known_channel *k = malloc(sizeof *k + name.len);
    if (k == NULL)
        return NULL;
    *k = (known_channel){ .len = (uint8_t)name.len, .refused = !may_publish(name) };
    if (name.len > 0)
        memcpy(k->name, name.ptr, name.len);
    return k;
}

/* Its place in the table; whoever had the place is forgotten. NULL: no memory. */
static known_channel *remember(session *s, lim_bytes name)
{
    if (s->known == NULL && (s->known = calloc(LIM__PUBLISH_SLOTS, sizeof *s->known)) == NULL)
        return NULL;
    known_channel **slot = &s->known[lim__hash_bytes(name, s->calls.seed) & (LIM__PUBLISH_SLOTS - 1)];
    if (is_named(*slot, name))
        return *slot;
    known_channel *k = known_new(name);
    if (k == NULL)
        return NULL;
    if (s->last == *slot)
        s->last = NULL;
    known_free(*slot);
    *slot = k;
    return k;
}

/* Looks it up again if somebody may know it by now. */
static void refresh(session *s, known_channel *k)
{
    lim__channels *all = s->porter->bus->channels;
    uint64_t epoch = lim__channels_epoch(all);
    if (k->refused || k->ch != NULL || k->epoch == epoch)
        return;
    k->epoch = epoch; /* read before the look: a change meanwhile makes us look again */
    k->ch = lim__channel_find(all, lim__bytes(k->name, k->len));
}

static inline known_channel *find_channel(session *s, lim_bytes name)
{
    known_channel *k = s->last;
    if (LIM_LIKELY(is_named(k, name) && k->ch != NULL))
        return k;
    k = remember(s, name);
    if (k != NULL) {
        refresh(s, k);
        s->last = k;
    }
    return k;
}

/* ---- answers ---- */

void lim__session_run_end(session *s)
{
    publish_run *r = &s->run;
    if (r->count == 0)
        return;
    const lim_admission *a = &r->answer;
    LIM__SAY(s, published, .first_corr = r->first, .count = r->count, .verdict = (uint8_t)a->verdict,
             .why = (uint8_t)a->why, .matched = a->matched, .delivered = a->delivered, .deferred = a->deferred,
             .dropped = a->dropped, .limit = a->limit, .current = a->current, .retry_after_ms = a->retry_after_ms,
             .detail = lim__str(r->detail));
    r->count = 0;
}

static inline bool same(const lim_admission *a, const lim_admission *b)
{
    return (((uint32_t)a->verdict ^ (uint32_t)b->verdict) | ((uint32_t)a->why ^ (uint32_t)b->why) |
            (a->matched ^ b->matched) | (a->delivered ^ b->delivered) | (a->deferred ^ b->deferred) |
            (a->dropped ^ b->dropped) | (a->limit ^ b->limit) | (a->current ^ b->current) |
            (a->retry_after_ms ^ b->retry_after_ms)) == 0;
}

static inline void answer(session *s, uint32_t corr, const lim_admission *a, const char *detail)
{
    publish_run *r = &s->run;
    if (LIM_LIKELY(r->count > 0 && corr == r->first + r->count && r->detail == detail && same(a, &r->answer))) {
        r->count++;
        return;
    }
    lim__session_run_end(s);
    *r = (publish_run){ corr, 1, *a, detail };
}

static void reject(session *s, uint32_t corr, lim_why why, uint32_t limit, const char *detail)
{
    answer(s, corr, &(lim_admission){ .verdict = LIM_REJECT, .why = why, .limit = limit }, detail);
}

/* ---- PUBLISH ---- */

static void publish_failed(session *s, uint32_t corr, lim_err err)
{
    lim_admission a = { .verdict = LIM_REJECT, .why = LIM_WHY_MEMORY, .retry_after_ms = 100 };
    if (err != LIM_E_NOMEM)
        a.why = LIM_WHY_UNKNOWN_CHANNEL;
    answer(s, corr, &a, lim_err_text(err));
}

/* The channel was closed under its name: somebody may have opened another one. */
static void find_again(session *s, known_channel *k)
{
    lim__channels *all = s->porter->bus->channels;
    lim__channel_unref(k->ch);
    k->ch = NULL;
    k->epoch = lim__channels_epoch(all);
    k->ch = lim__channel_find(all, lim__bytes(k->name, k->len));
}

static lim_err publish_again(session *s, known_channel *k, const lim__f_publish *f, lim_admission *a)
{
    lim__channels *all = s->porter->bus->channels;
    find_again(s, k);
    return lim__publish(all, s->self, k->ch, f->payload, f->headers, f->flags & LIM__FLAG_MANDATORY, a);
}

bool lim__session_headers_ok(lim_bytes headers)
{
    lim_bytes key, text;
    for (size_t pos = 0; lim__packed_next(headers, &pos, &key, &text);)
        if (((const char *)key.ptr)[0] == '$')
            return false;
    return true;
}

/* Of the options an ephemeral channel knows the key: it becomes a header. NULL: done; else why it is refused. */
static const char *publish_keyed(session *s, known_channel *k, const lim__f_publish *f)
{
    lim__log_message m = { 0 };
    lim_admission a;
    if (!lim__log_message_options(f->options, &m))
        return "an option is unknown, or is not what it should be";
    if (m.idempotency_key.len > 0 || m.expires_ms > 0 || m.delay_ms > 0 || m.expect_last)
        return "idempotency_key, expires_ms, delay_ms and expect_last are for durable channels; this one is not";
    lim__buf headers = { 0 };
    lim_err err = lim__headers_keyed(&headers, m.key, f->headers);
    if (err == LIM_OK)
        err = lim__publish(s->porter->bus->channels, s->self, k->ch, f->payload, lim__buf_bytes(&headers),
                           f->flags & LIM__FLAG_MANDATORY, &a);
    lim__buf_fini(&headers);
    if (err != LIM_OK)
        publish_failed(s, f->corr, err);
    else
        answer(s, f->corr, &a, NULL);
    return NULL;
}

/* To a durable channel, or with options. True: it has been dealt with. */
static bool publish_specially(session *s, known_channel *k, const lim__f_publish *f)
{
    lim__log *log = lim__channel_log(k->ch);
    for (int i = 0; log != NULL && i < 2; i++, log = lim__channel_log(k->ch)) {
        if (lim__session_publish_logged(s, log, f) == LIM_OK)
            return true;
        find_again(s, k); /* it was deleted */
    }
    if (f->options.len == 0)
        return false;
    const char *wrong = publish_keyed(s, k, f);
    if (wrong != NULL)
        reject(s, f->corr, LIM_WHY_BAD_REQUEST, 0, wrong);
    return true;
}

void lim__session_publish(session *s, const lim__frame *frame)
{
    lim__f_publish f;
    lim_bus *bus = s->porter->bus;
    lim_admission a;
    if (LIM_UNLIKELY(!lim__get_publish(frame, &f))) {
        lim__session_malformed(s, frame);
        return;
    }
    known_channel *k = find_channel(s, f.channel);
    if (LIM_UNLIKELY(k == NULL)) {
        reject(s, f.corr, LIM_WHY_MEMORY, 0, "out of memory");
        return;
    }
    if (LIM_UNLIKELY(k->refused)) {
        reject(s, f.corr, LIM_WHY_BAD_NAME, 0,
               f.channel.len > 0 && k->name[0] == '$' ? "names that begin with $ are the system's"
                                                      : "a name is segments of A-Z a-z 0-9 _ - joined by dots");
        return;
    }
    if (LIM_UNLIKELY(f.payload.len > bus->opts.payload_bytes_max)) {
        reject(s, f.corr, LIM_WHY_TOO_BIG, bus->opts.payload_bytes_max, "the payload is over the size limit");
        return;
    }
    if (LIM_UNLIKELY(lim__session_draining(s))) {
        reject(s, f.corr, LIM_WHY_CLOSING, 0, "the server is closing");
        return;
    }
    if (LIM_UNLIKELY(f.headers.len > 0 && !lim__session_headers_ok(f.headers))) {
        reject(s, f.corr, LIM_WHY_BAD_REQUEST, 0, "headers that begin with $ are the system's");
        return;
    }
    if (LIM_UNLIKELY((lim__channel_log(k->ch) != NULL || f.options.len > 0) && publish_specially(s, k, &f)))
        return;
    lim_err err = lim__publish(bus->channels, s->self, k->ch, f.payload, f.headers, f.flags & LIM__FLAG_MANDATORY, &a);
    if (LIM_UNLIKELY(err == LIM_E_CLOSED))
        err = publish_again(s, k, &f, &a);
    if (LIM_UNLIKELY(err != LIM_OK))
        publish_failed(s, f.corr, err);
    else
        answer(s, f.corr, &a, NULL);
}

/* ---- what a subscription says ---- called in the turn of whoever publishes: only buffers and flags are touched */

static bool on_room(void *ctx)
{
    session *s = ((sub_stream *)ctx)->base.session;
    bool room = lim__buf_len(&s->out) < LIM__OUT_DELIVER && !s->over;
    s->starved |= !room;
    return room;
}

static void on_deliver(void *ctx, lim__sub *sub, uint64_t seq, lim_bytes channel, lim_bytes headers, lim_bytes payload,
                       lim__msg *msg)
{
    sub_stream *st = ctx;
    lim__buf *out = lim__session_out(st->base.session);
    (void)sub, (void)msg;
    st->delivered = seq;
    if (LIM_UNLIKELY(headers.len > 0 || st->wild)) {
        lim__f_deliver f = { .stream = st->base.id, .seq = seq, .headers = headers, .payload = payload };
        if (st->wild)
            f.channel = channel;
        (void)!lim__put_deliver(out, &f);
        return;
    }
    size_t len = 8 + payload.len; /* the usual case, in few instructions: seq and payload */
    uint8_t *p = lim__out_begin(out, LIM__HEADER_SIZE + len);
    if (LIM_UNLIKELY(p == NULL))
        return;
    p = lim__store64(lim__out_header(p, LIM__DELIVER, 0, st->base.id, (uint32_t)len), seq);
    if (payload.len > 0)
        memcpy(p, payload.ptr, payload.len);
    out->end += LIM__HEADER_SIZE + len;
}

static void on_dropped(void *ctx, lim__sub *sub, uint64_t dropped_total)
{
    sub_stream *st = ctx;
    (void)sub;
    LIM__SAY(st->base.session, dropped, .stream = st->base.id, .dropped_total = dropped_total, .policy = st->policy);
}

static void sub_over(sub_stream *st, lim_err code, const char *detail)
{
    session *s = st->base.session;
    lim_sub_info info;
    lim__sub_info(st->sub, &info);
    lim__sub_close(s->self, st->sub);
    LIM__SAY(s, ended, .stream = st->base.id, .code = (uint16_t)code, .delivered = info.delivered,
             .dropped = info.dropped, .detail = lim__str(detail));
    lim__session_stream_drop(s, &st->base, sizeof *st);
}

static void on_ended(void *ctx, lim__sub *sub, lim_err why)
{
    (void)sub;
    sub_over(ctx, why,
             why == LIM_E_FULL ? "it did not keep up, and its policy is to end then" : "the channel was closed");
}

static const lim__sub_ops sub_ops = { on_room, on_deliver, on_dropped, on_ended };

/* ---- SUBSCRIBE, ACK, UNSUBSCRIBE ---- */

static bool may_subscribe(lim_bytes pattern)
{
    static const char *const open_to_all[] = { "$sys.events", "$sys.history" };
    if (pattern.len == 0 || ((const char *)pattern.ptr)[0] != '$')
        return true;
    for (size_t i = 0; i < LIM_COUNT(open_to_all); i++) {
        size_t len = strlen(open_to_all[i]);
        if (pattern.len >= len && memcmp(pattern.ptr, open_to_all[i], len) == 0 &&
            (pattern.len == len || ((const char *)pattern.ptr)[len] == '.'))
            return true;
    }
    return false;
}

static bool is_wild(lim_bytes pattern)
{
    return pattern.len > 0 && (memchr(pattern.ptr, '*', pattern.len) || memchr(pattern.ptr, '>', pattern.len));
}

static lim_err subscribe(session *s, const lim__f_subscribe *f, sub_stream *st, lim_diag *diag)
{
    lim__sub_config config = { .pattern = f->pattern,
                               .window = f->window,
                               .backlog = f->backlog,
                               .policy = (lim_policy)st->policy,
                               .ops = &sub_ops,
                               .ctx = st,
                               .owner_name = s->client };
    if (lim__session_draining(s)) {
        lim__diag_set(diag, 0, 0, "the server is closing");
        return LIM_E_CLOSED;
    }
    if (!may_subscribe(f->pattern)) {
        lim__diag_set(diag, 0, 0,
                      "of the system's channels only $sys.events.> and $sys.history.> can be subscribed to");
        return LIM_E_DENIED;
    }
    return lim__sub_open(s->porter->bus->channels, s->self, &config, diag, &st->sub);
}

void lim__session_subscribe(session *s, const lim__frame *frame)
{
    lim__f_subscribe f;
    lim_diag diag = { 0 };
    if (!lim__get_subscribe(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (!lim__session_stream_free(s, frame))
        return;
    if (may_subscribe(f.pattern) && lim__session_reads(s, &f)) {
        lim__session_read_subscribe(s, &f);
        return;
    }
    sub_stream *st = lim__alloc(s->porter->sched, sizeof *st);
    lim_err err = st == NULL ? LIM_E_NOMEM : LIM_OK;
    if (st != NULL) {
        *st = (sub_stream){ .policy = f.policy != 0 ? f.policy : LIM_DROP_OLDEST, .wild = is_wild(f.pattern) };
        err = lim__session_stream_add(s, &st->base, STREAM_SUB, f.stream);
    }
    if (err == LIM_OK)
        err = subscribe(s, &f, st, &diag);
    if (err == LIM_OK) { /* nothing is delivered before this: that takes a turn of its own */
        LIM__SAY(s, subscribed, .stream = f.stream, .subscription = lim__sub_id(st->sub));
        return;
    }
    if (st != NULL)
        lim__session_stream_drop(s, &st->base, sizeof *st);
    LIM__SAY(s, ended, .stream = f.stream, .code = (uint16_t)err,
             .detail = lim__str(diag.text[0] != '\0' ? diag.text : lim_err_text(err)));
}

/* NULL: it is not one that reads a log. */
static stream *reading_stream(session *s, const lim__frame *frame)
{
    stream *st = lim__map_get(&s->streams, frame->stream);
    return st != NULL && st->kind == STREAM_READ ? st : NULL;
}

void lim__session_ack(session *s, const lim__frame *frame)
{
    lim__f_ack f;
    if (!lim__get_ack(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    stream *reads = reading_stream(s, frame);
    if (reads != NULL) {
        lim__session_read_ack(reads, f.upto_seq);
        return;
    }
    sub_stream *st = (sub_stream *)lim__session_stream(s, frame, STREAM_SUB);
    if (st == NULL)
        return;
    if (f.upto_seq > st->delivered)
        lim__session_fault(s, LIM_E_PROTOCOL, "ACK of message %llu on stream %u, which has seen %llu",
                           (unsigned long long)f.upto_seq, f.stream, (unsigned long long)st->delivered);
    else
        lim__sub_ack(s->self, st->sub, f.upto_seq);
}

void lim__session_unsubscribe(session *s, const lim__frame *frame)
{
    lim__f_unsubscribe f;
    if (!lim__get_unsubscribe(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    stream *reads = reading_stream(s, frame);
    if (reads != NULL) {
        lim__session_read_unsubscribe(reads);
        return;
    }
    sub_stream *st = (sub_stream *)lim__session_stream(s, frame, STREAM_SUB);
    if (st != NULL)
        sub_over(st, LIM_OK, NULL);
}

/* One that reads a log and has nothing more to say; NULL: none. */
static stream *pump(session *s)
{
    size_t pos = 0;
    uint64_t key;
    void *value;
    stream *over = NULL;
    while (lim__map_next(&s->streams, &pos, &key, &value)) {
        stream *st = value;
        if (st->kind == STREAM_SUB)
            lim__sub_pump(s->self, ((sub_stream *)st)->sub);
        else if (st->kind == STREAM_READ && !lim__session_read_pump(st))
            over = st;
    }
    return over;
}

void lim__session_pump(session *s)
{
    s->starved = false; /* set again by whoever finds no room */
    for (stream *over; (over = pump(s)) != NULL;)
        lim__session_read_finish(over);
}

void lim__session_sub_end(sub_stream *st)
{
    lim__sub_close(NULL, st->sub);
}
