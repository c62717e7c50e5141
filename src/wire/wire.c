/* SPDX-License-Identifier: Apache-2.0
 * wire.c - the session: what may be said when, and what is answered without asking anybody.
 *
 * Three acts per frame. `classify` turns a frame into an event (its type, sender and, for the handshake, what is in
 * it); `step` decides, from state and event alone, what to do and where to go; `act` does it. step is the whole
 * protocol of a session:
 *
 *      state \ event   opened  app     hello   connect  ack      refusal  ping   pong   goodbye  fault  broken  bye
 *      START           open    -       -        -       -        -        -      -      -        -      -       quit
 *      CONNECTING      -       fault   fault    connect greet    refused  pong   skip   over     over   fault   quit
 *      HELLO           -       fault   pass     fault   fault    fault    pong   skip   over     over   fault   quit
 *      ACTIVE          -       pass    fault    fault   fault    fault    pong   count  over     over   fault   quit
 *      CLOSING,CLOSED  -       -       -        -       -        -        -      -      -        -      -       -
 *
 *      pass: hand out (hello also goes to ACTIVE)    over: END with the peer's reason      fault: END with ours
 *
 * Which side may send which frame is not in the table: a frame of the wrong sender is `broken` before step sees it.
 * Everything else about a session (its id, its pings, its limits) belongs to whoever owns the socket. */
#include "wire/wire.h"

#include <stdarg.h>
#include <stdio.h>

typedef enum event {
    EVENT_OPENED = 1,
    EVENT_APP,   /* an application frame of the right sender and scope */
    EVENT_HELLO, /* HELLO or WELCOME */
    EVENT_CONNECT,
    EVENT_ACK,     /* CONNECT_ACK */
    EVENT_REFUSAL, /* CONNECT_ERROR */
    EVENT_PING,
    EVENT_PONG,
    EVENT_GOODBYE, /* DISCONNECT */
    EVENT_FAULT,   /* FAULT */
    EVENT_UNKNOWN, /* a type nobody has defined */
    EVENT_BROKEN,  /* malformed, or not this sender's to send */
    EVENT_BYE      /* our owner's wish */
} event;

typedef enum action {
    DO_NOTHING = 1,
    DO_OPEN,     /* -> CONNECTING; a client sends CONNECT */
    DO_CONNECT,  /* judge CONNECT: CONNECT_ACK -> HELLO, or CONNECT_ERROR -> CLOSING */
    DO_GREET,    /* judge CONNECT_ACK: HELLO -> HELLO, or -> CLOSING */
    DO_REFUSED,  /* -> CLOSING with the reason in CONNECT_ERROR */
    DO_PASS,     /* hand out */
    DO_ACTIVATE, /* hand out, -> ACTIVE */
    DO_PONG,
    DO_COUNT, /* a PONG */
    DO_OVER,  /* -> CLOSING with the peer's reason */
    DO_FAULT, /* -> CLOSING with ours */
    DO_QUIT   /* DISCONNECT if the peer knows us, -> CLOSING */
} action;

const char *lim__wire_state_name(lim__wire_state state)
{
    static const char *const names[] = { "?", "START", "CONNECTING", "HELLO", "ACTIVE", "CLOSING", "CLOSED" };
    return (unsigned)state < LIM_COUNT(names) ? names[state] : "?";
}

void lim__wire_check(const lim__wire *w)
{
    LIM_ASSERT(w->role == LIM__WIRE_CLIENT || w->role == LIM__WIRE_SERVER);
    LIM_ASSERT(w->state >= LIM__WIRE_START && w->state <= LIM__WIRE_CLOSED);
    LIM_ASSERT(w->peer == (w->role == LIM__WIRE_CLIENT ? LIM__SENDER_SERVER : LIM__SENDER_CLIENT));
    LIM_ASSERT(w->state >= LIM__WIRE_CLOSING || (w->code == LIM_OK && w->text[0] == '\0')); /* S1 */
    LIM_ASSERT(w->need <= (size_t)w->length_max + LIM__HEADER_SIZE);                        /* S2 */
}

void lim__wire_init(lim__wire *w, lim__wire_role role, lim__buf *out, const lim__wire_opts *opts)
{
    *w = (lim__wire){ .out = out, .role = role, .state = LIM__WIRE_START, .need = LIM__HEADER_SIZE };
    w->peer = role == LIM__WIRE_CLIENT ? LIM__SENDER_SERVER : LIM__SENDER_CLIENT;
    if (opts)
        w->opts = *opts;
    w->length_max = w->opts.length_max ? w->opts.length_max : LIM__LENGTH_MAX;
    w->peer_length_max = LIM__LENGTH_MAX;
    lim__wire_check(w);
}

/* ---- ends ---- */

__attribute__((format(printf, 3, 0))) static void end(lim__wire *w, lim_err code, const char *format, va_list args)
{
    LIM_ASSERT(w->state < LIM__WIRE_CLOSING);
    w->state = LIM__WIRE_CLOSING;
    w->code = code;
    vsnprintf(w->text, sizeof w->text, format, args);
}

__attribute__((format(printf, 3, 4))) static void over(lim__wire *w, lim_err code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    end(w, code, format, args);
    va_end(args);
}

/* The peer's own words: not ours to format, and cut to what fits. */
static void over_text(lim__wire *w, lim_err code, lim_bytes text)
{
    lim_bytes clipped = lim__utf8_clip(text, sizeof w->text - 1);
    over(w, code, "%.*s", (int)clipped.len, clipped.len ? (const char *)clipped.ptr : "");
}

/* Ending a session cannot fail: an answer for which there is no memory marks `out` as failed, which its owner sees. */
static void ignore(lim_err err)
{
    (void)err;
}

void lim__wire_fault(lim__wire *w, lim_err code, const char *format, ...)
{
    LIM_ASSERT(code != LIM_OK);
    if (w->state >= LIM__WIRE_CLOSING)
        return;
    va_list args;
    va_start(args, format);
    end(w, code, format, args);
    va_end(args);
    if (w->role == LIM__WIRE_SERVER)
        ignore(lim__put_fault(w->out, &(lim__f_fault){ .code = (uint16_t)code, .detail = lim__str(w->text) }));
}

void lim__wire_malformed(lim__wire *w, const lim__frame *frame)
{
    lim__wire_fault(w, LIM_E_PROTOCOL, "%s of %u bytes on stream %u is malformed", lim__frame_name(frame->type),
                    frame->len, frame->stream);
}

void lim__wire_refuse(lim__wire *w, uint16_t reason, const char *text)
{
    LIM_ASSERT(w->role == LIM__WIRE_SERVER);
    if (w->state >= LIM__WIRE_ACTIVE)
        return;
    ignore(lim__put_connect_error(w->out, &(lim__f_connect_error){ .reason = reason, .message = lim__str(text) }));
    over(w, LIM_E_DENIED, "%s", text);
}

void lim__wire_gone(lim__wire *w, const char *why)
{
    if (w->state < LIM__WIRE_CLOSING)
        over(w, LIM_E_IO, "%s", why);
    w->state = LIM__WIRE_CLOSED;
}

/* ---- deciding ---- */

static action step_connecting(event e)
{
    switch (e) {
    case EVENT_CONNECT:
        return DO_CONNECT;
    case EVENT_ACK:
        return DO_GREET;
    case EVENT_REFUSAL:
        return DO_REFUSED;
    case EVENT_PING:
        return DO_PONG;
    case EVENT_PONG:
        return DO_COUNT;
    case EVENT_UNKNOWN:
        return DO_NOTHING;
    case EVENT_GOODBYE:
    case EVENT_FAULT:
        return DO_OVER;
    case EVENT_BYE:
        return DO_QUIT;
    case EVENT_APP:
    case EVENT_HELLO:
    case EVENT_BROKEN:
        return DO_FAULT;
    case EVENT_OPENED:
        break;
    }
    return LIM_NEVER(true) ? DO_NOTHING : DO_FAULT;
}

static action step_hello(event e)
{
    switch (e) {
    case EVENT_HELLO:
        return DO_ACTIVATE;
    case EVENT_PING:
        return DO_PONG;
    case EVENT_PONG:
        return DO_COUNT;
    case EVENT_UNKNOWN:
        return DO_NOTHING;
    case EVENT_GOODBYE:
    case EVENT_FAULT:
        return DO_OVER;
    case EVENT_BYE:
        return DO_QUIT;
    case EVENT_APP:
    case EVENT_CONNECT:
    case EVENT_ACK:
    case EVENT_REFUSAL:
    case EVENT_BROKEN:
        return DO_FAULT;
    case EVENT_OPENED:
        break;
    }
    return LIM_NEVER(true) ? DO_NOTHING : DO_FAULT;
}

static action step_active(event e)
{
    switch (e) {
    case EVENT_APP:
        return DO_PASS;
    case EVENT_PING:
        return DO_PONG;
    case EVENT_PONG:
        return DO_COUNT;
    case EVENT_UNKNOWN:
        return DO_NOTHING;
    case EVENT_GOODBYE:
    case EVENT_FAULT:
        return DO_OVER;
    case EVENT_BYE:
        return DO_QUIT;
    case EVENT_HELLO:
    case EVENT_CONNECT:
    case EVENT_ACK:
    case EVENT_REFUSAL:
    case EVENT_BROKEN:
        return DO_FAULT;
    case EVENT_OPENED:
        break;
    }
    return LIM_NEVER(true) ? DO_NOTHING : DO_FAULT;
}

static action step(lim__wire_state state, event e)
{
    switch (state) {
    case LIM__WIRE_START:
        return e == EVENT_OPENED ? DO_OPEN : e == EVENT_BYE ? DO_QUIT : DO_NOTHING;
    case LIM__WIRE_CONNECTING:
        return step_connecting(e);
    case LIM__WIRE_HELLO:
        return step_hello(e);
    case LIM__WIRE_ACTIVE:
        return step_active(e);
    case LIM__WIRE_CLOSING:
    case LIM__WIRE_CLOSED:
        break; /* S3 */
    }
    return DO_NOTHING;
}

/* ---- acting ---- */

static void send_connect(lim__wire *w)
{
    lim__f_connect f = {
        .min_major = 1, .max_major = LIM__VERSION_MAJOR, .max_minor = LIM__VERSION_MINOR, .token = w->opts.token
    };
    ignore(lim__put_connect(w->out, &f));
}

/* Takes the same time wherever the two differ. */
static bool same_secret(lim_bytes want, lim_bytes given)
{
    const uint8_t *a = (const uint8_t *)want.ptr, *b = (const uint8_t *)given.ptr;
    uint8_t difference = want.len != given.len;
    for (size_t i = 0; i < given.len; i++)
        difference |= (uint8_t)(b[i] ^ a[want.len ? i % want.len : 0]);
    return difference == 0;
}

static uint32_t version(uint16_t major, uint16_t minor)
{
    return (uint32_t)major << 16 | minor;
}

static void judge_connect(lim__wire *w, const lim__frame *frame)
{
    const uint32_t ours = version(LIM__VERSION_MAJOR, LIM__VERSION_MINOR);
    char text[160];
    lim__f_connect f;
    if (!lim__get_connect(frame, &f)) {
        lim__wire_malformed(w, frame);
        return;
    }
    if (w->opts.token.len > 0 && !same_secret(w->opts.token, f.token)) {
        lim__wire_refuse(w, LIM__REFUSED_TOKEN, "connection authentication token rejected");
        return;
    }
    if (ours < version(f.min_major, f.min_minor) || ours > version(f.max_major, f.max_minor)) {
        snprintf(text, sizeof text, "no common version: this server speaks %d.%d, the client offered %u.%u to %u.%u",
                 LIM__VERSION_MAJOR, LIM__VERSION_MINOR, f.min_major, f.min_minor, f.max_major, f.max_minor);
        lim__wire_refuse(w, LIM__REFUSED_VERSION, text);
        w->code = LIM_E_PROTOCOL;
        return;
    }
    w->state = LIM__WIRE_HELLO;
    ignore(lim__put_connect_ack(w->out,
                                &(lim__f_connect_ack){ .major = LIM__VERSION_MAJOR, .minor = LIM__VERSION_MINOR }));
}

static void judge_ack(lim__wire *w, const lim__frame *frame)
{
    lim__f_connect_ack f;
    if (!lim__get_connect_ack(frame, &f)) {
        lim__wire_malformed(w, frame);
        return;
    }
    if (version(f.major, f.minor) != version(LIM__VERSION_MAJOR, LIM__VERSION_MINOR)) {
        over(w, LIM_E_PROTOCOL, "the server speaks version %u.%u, this client %d.%d", f.major, f.minor,
             LIM__VERSION_MAJOR, LIM__VERSION_MINOR);
        return;
    }
    lim_err err = lim__put_hello(w->out, &w->opts.hello);
    if (err == LIM_OK || err == LIM_E_NOMEM)
        w->state = LIM__WIRE_HELLO;
    else
        over(w, err, "the client's name is not a name");
}

static void note_refusal(lim__wire *w, const lim__frame *frame)
{
    lim__f_connect_error f;
    if (!lim__get_connect_error(frame, &f)) {
        lim__wire_malformed(w, frame);
        return;
    }
    w->refusal = f.reason;
    over_text(w, f.reason == LIM__REFUSED_VERSION ? LIM_E_PROTOCOL : LIM_E_DENIED, f.message);
}

static void note_end(lim__wire *w, const lim__frame *frame)
{
    lim__f_fault f;
    lim__f_disconnect bye;
    if (frame->type == LIM__DISCONNECT && lim__get_disconnect(frame, &bye))
        over(w, LIM_OK, "the peer said goodbye");
    else if (frame->type == LIM__FAULT && lim__get_fault(frame, &f))
        over_text(w, f.code == 0 ? LIM_E_PROTOCOL : (lim_err)f.code, f.detail);
    else
        lim__wire_malformed(w, frame);
}

static bool meet_client(const lim__frame *frame)
{
    lim__f_hello f;
    return lim__get_hello(frame, &f);
}

static bool meet_server(lim__wire *w, const lim__frame *frame)
{
    lim__f_welcome f;
    if (!lim__get_welcome(frame, &f))
        return false;
    if (f.frame_max > 0)
        w->peer_length_max = f.frame_max;
    return true;
}

static void activate(lim__wire *w, const lim__frame *frame)
{
    if (w->role == LIM__WIRE_SERVER ? meet_client(frame) : meet_server(w, frame))
        w->state = LIM__WIRE_ACTIVE;
    else
        lim__wire_malformed(w, frame);
}

static void complain(lim__wire *w, const lim__frame *frame)
{
    const lim__frame_info *info = &lim__frame_infos[frame->type];
    const char *name = lim__frame_name(frame->type);
    if (info->sender == LIM__SENDER_NONE)
        lim__wire_fault(w, LIM_E_PROTOCOL, "frame 0x%02x (%s) belongs to version 1.0", frame->type, name);
    else if (info->sender != w->peer && info->sender != LIM__SENDER_BOTH)
        lim__wire_fault(w, LIM_E_PROTOCOL, "%s is not a %s's to send", name,
                        w->role == LIM__WIRE_SERVER ? "client" : "server");
    else if (info->stream != (frame->stream != 0))
        lim__wire_fault(w, LIM_E_PROTOCOL, "%s on stream %u", name, frame->stream);
    else if (frame->type == LIM__PING || frame->type == LIM__PONG)
        lim__wire_malformed(w, frame);
    else
        lim__wire_fault(w, LIM_E_PROTOCOL, "%s in state %s", name, lim__wire_state_name(w->state));
}

/* Nothing to say to a peer that does not know us yet: a server before HELLO, a client before it has sent anything. */
static void quit(lim__wire *w)
{
    if (w->state != LIM__WIRE_START)
        ignore(lim__put_disconnect(w->out, &(lim__f_disconnect){ 0 }));
    over(w, LIM_OK, "%s", "we said goodbye");
}

/* `frame` is NULL for what our owner wants. */
static void act(lim__wire *w, action what, const lim__frame *frame)
{
    switch (what) {
    case DO_OPEN:
        w->state = LIM__WIRE_CONNECTING;
        if (w->role == LIM__WIRE_CLIENT)
            send_connect(w);
        break;
    case DO_CONNECT:
        judge_connect(w, frame);
        break;
    case DO_GREET:
        judge_ack(w, frame);
        break;
    case DO_REFUSED:
        note_refusal(w, frame);
        break;
    case DO_ACTIVATE:
        activate(w, frame);
        break;
    case DO_PONG:
        ignore(lim__put_pong(w->out, &(lim__f_pong){ 0 }));
        break;
    case DO_COUNT:
        w->pongs++;
        break;
    case DO_OVER:
        note_end(w, frame);
        break;
    case DO_FAULT:
        complain(w, frame);
        break;
    case DO_QUIT:
        quit(w);
        break;
    case DO_PASS:
    case DO_NOTHING:
        break;
    }
    lim__wire_check(w);
}

void lim__wire_open(lim__wire *w)
{
    LIM_ASSERT(w->state == LIM__WIRE_START);
    act(w, step(w->state, EVENT_OPENED), NULL);
}

void lim__wire_bye(lim__wire *w)
{
    act(w, step(w->state, EVENT_BYE), NULL);
}

void lim__wire_ping(lim__wire *w)
{
    if (w->state == LIM__WIRE_ACTIVE)
        ignore(lim__put_ping(w->out, &(lim__f_ping){ 0 }));
}

/* ---- reading ---- */

static event classify(const lim__wire *w, const lim__frame *frame)
{
    const lim__frame_info *info = &lim__frame_infos[frame->type];
    if (info->name == NULL)
        return EVENT_UNKNOWN;
    if ((info->sender != w->peer && info->sender != LIM__SENDER_BOTH) || info->stream != (frame->stream != 0))
        return EVENT_BROKEN;
    switch (frame->type) {
    case LIM__CONNECT:
        return EVENT_CONNECT;
    case LIM__CONNECT_ACK:
        return EVENT_ACK;
    case LIM__CONNECT_ERROR:
        return EVENT_REFUSAL;
    case LIM__DISCONNECT:
        return EVENT_GOODBYE;
    case LIM__PING:
        return frame->len == 0 ? EVENT_PING : EVENT_BROKEN;
    case LIM__PONG:
        return frame->len == 0 ? EVENT_PONG : EVENT_BROKEN;
    case LIM__HELLO:
    case LIM__WELCOME:
        return EVENT_HELLO;
    case LIM__FAULT:
        return EVENT_FAULT;
    default:
        return EVENT_APP;
    }
}

/* True: a whole frame is at in->p. A frame that is too long ends the session before its payload arrives (S2). */
static bool whole(lim__wire *w, const lim__span *in, lim__frame *frame)
{
    size_t n = (size_t)(in->end - in->p);
    const uint8_t *p = in->p;
    w->need = LIM__HEADER_SIZE;
    if (n < LIM__HEADER_SIZE)
        return false;
    *frame = (lim__frame){ p[0], p[1], lim__load32(p + 2), lim__load32(p + 6), p + LIM__HEADER_SIZE };
    uint32_t max =
        w->state == LIM__WIRE_ACTIVE || w->length_max < LIM__HANDSHAKE_MAX ? w->length_max : LIM__HANDSHAKE_MAX;
    if (frame->len > max) {
        lim__wire_fault(w, LIM_E_TOOBIG, "frame 0x%02x announces %u bytes, the limit is %u", frame->type, frame->len,
                        max);
        return false;
    }
    w->need += frame->len;
    return n >= w->need;
}

lim__wire_got lim__wire_next_slow(lim__wire *w, lim__span *in, lim__frame *frame)
{
    LIM_ASSERT(in->p <= in->end);
    LIM_ASSERT(w->state != LIM__WIRE_START);
    while (w->state < LIM__WIRE_CLOSING && whole(w, in, frame)) {
        action what = step(w->state, classify(w, frame));
        in->p += LIM__HEADER_SIZE + frame->len;
        act(w, what, frame);
        if ((what == DO_PASS || what == DO_ACTIVATE) && w->state == LIM__WIRE_ACTIVE)
            return LIM__WIRE_FRAME;
    }
    return w->state < LIM__WIRE_CLOSING ? LIM__WIRE_MORE : LIM__WIRE_END;
}
