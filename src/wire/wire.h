/* SPDX-License-Identifier: Apache-2.0
 * wire.h - a session's bytes in, frames out; frames in, bytes out. Knows no sockets, no clock and no bus.
 *
 * Reading. The caller reads into a buffer of its own, usually one shared by all connections of a thread, pulls frames
 * out of it, and keeps only what is left:
 *
 *      lim__wire_open(&w);                                       // a client's CONNECT is now in `out`
 *      lim__span in = { bytes, bytes + n };                      // kept tail, then new bytes
 *      lim__frame frame;
 *      for (;;) switch (lim__wire_next(&w, &in, &frame)) {
 *          case LIM__WIRE_FRAME:  handle(&frame); continue;      // views are valid as long as `bytes`
 *          case LIM__WIRE_MORE:   keep(in.p, in.end - in.p); return;   // w.need: size of the frame that is incomplete
 *          case LIM__WIRE_END:    flush(out), close(); return;   // w.code, w.text say why
 *      }
 *
 * Frames handed out are of the right sender and scope, in the right state; their fields are not yet decoded: switch on
 * frame.type, lim__get_x, and lim__wire_malformed when that says false. Not handed out: CONNECT, CONNECT_ACK, PING
 * (answered at once), PONG (counted), DISCONNECT and FAULT (the end), unknown types (skipped by length).
 * What is handed out before anything else: HELLO (to a server, which answers WELCOME), WELCOME (to a client).
 *
 * Writing. lim__put_x(out, &f) appends to a buffer of the caller's; `w.out` is that buffer, and the session appends its
 * own answers (CONNECT_ACK, PONG, FAULT) to it. After WIRE_END or a goodbye nothing more may be put.
 *
 * The session:
 *                        client: sent CONNECT          client: sent HELLO
 *      START --open--> CONNECTING ----CONNECT(_ACK)--> HELLO ----HELLO / WELCOME--> ACTIVE
 *                        |  server: waits for it         |  server: waits for it      |
 *                        `-- refusal, fault, goodbye, too big ------------------------+--> CLOSING --gone--> CLOSED
 *
 * Invariants (lim__wire_check):
 *   S1  `code` and `text` say why exactly from CLOSING on.
 *   S2  a frame over length_max (LIM__HANDSHAKE_MAX until ACTIVE, if less) is refused from its header alone: `need`
 *       never exceeds header + length_max.
 *   S3  from CLOSING on nothing is parsed and nothing is appended to `out`.
 * Not here: deadlines and pings' timing (server, client), what frames mean (server, client). Single owner. */
#ifndef LIM__WIRE_H
#define LIM__WIRE_H

#include "wire/frame.h"

#define LIM__LENGTH_MAX (1024u * 1024u + 64u * 1024u) /* default: 1 MiB of payload, 64 KiB of names and headers */
#define LIM__HANDSHAKE_MAX (64u * 1024u) /* for every frame before ACTIVE: strangers get little memory */
#define LIM__VERSION_MAJOR 2
#define LIM__VERSION_MINOR 0

/* Reasons of CONNECT_ERROR, version 1.0's numbers. */
enum { LIM__REFUSED_TOKEN = 6, LIM__REFUSED_VERSION = 7, LIM__REFUSED_OTHER = 0xffff };

typedef enum lim__wire_role { LIM__WIRE_CLIENT = 1, LIM__WIRE_SERVER } lim__wire_role;

typedef enum lim__wire_state {
    LIM__WIRE_START = 1,
    LIM__WIRE_CONNECTING,
    LIM__WIRE_HELLO,
    LIM__WIRE_ACTIVE,
    LIM__WIRE_CLOSING, /* over: write what is in `out`, then close */
    LIM__WIRE_CLOSED
} lim__wire_state;

typedef enum lim__wire_got {
    LIM__WIRE_FRAME = 1,
    LIM__WIRE_MORE,
    LIM__WIRE_END
} lim__wire_got;

typedef struct lim__wire_opts { /* views must live as long as the session is not ACTIVE */
    uint32_t length_max;  /* largest `length` accepted; 0: LIM__LENGTH_MAX */
    lim_bytes token;      /* client: sent in CONNECT; server: required, empty: any is accepted */
    lim__f_hello hello;   /* client only: what it says after CONNECT_ACK */
} lim__wire_opts;

typedef struct lim__wire {
    lim__buf *out; /* the caller's */
    lim__wire_role role;
    lim__wire_state state;
    lim__frame_sender peer; /* who sends what we read */
    uint32_t length_max;
    uint32_t peer_length_max; /* client: the server's frame_max once ACTIVE: do not send a larger `length` */
    size_t need;      /* after WIRE_MORE: bytes from in.p to the end of the incomplete frame (10 while its header is) */
    uint64_t pongs;   /* received */
    lim__wire_opts opts;
    lim_err code;     /* from CLOSING on; LIM_OK: a goodbye */
    uint16_t refusal; /* client: reason of CONNECT_ERROR, 0 if there was none */
    char text[240];
} lim__wire;

typedef struct lim__span { /* input; p advances as frames are taken */
    const uint8_t *p, *end;
} lim__span;

void lim__wire_init(lim__wire *w, lim__wire_role role, lim__buf *out, const lim__wire_opts *opts); /* opts NULL: all 0 */
void lim__wire_open(lim__wire *w); /* the transport is there; a client's CONNECT is appended */
lim__wire_got lim__wire_next_slow(lim__wire *w, lim__span *in, lim__frame *frame);

/* Takes the next frame. Costs a few nanoseconds for an application frame; loops inside for what it does not hand out. */
static inline lim__wire_got lim__wire_next(lim__wire *w, lim__span *in, lim__frame *frame)
{
    size_t n = (size_t)(in->end - in->p);
    if (LIM_LIKELY(n >= LIM__HEADER_SIZE && w->state == LIM__WIRE_ACTIVE)) {
        const uint8_t *p = in->p;
        *frame = (lim__frame){ p[0], p[1], lim__load32(p + 2), lim__load32(p + 6), p + LIM__HEADER_SIZE };
        const lim__frame_info *info = &lim__frame_infos[frame->type];
        if (LIM_LIKELY(frame->len <= w->length_max && n - LIM__HEADER_SIZE >= frame->len && info->sender == w->peer &&
                       frame->type >= LIM__PUBLISH && frame->type != LIM__FAULT &&
                       info->stream == (frame->stream != 0))) {
            in->p += LIM__HEADER_SIZE + frame->len;
            return LIM__WIRE_FRAME;
        }
    }
    return lim__wire_next_slow(w, in, frame);
}

/* Ends the session with a reason: a server's FAULT is appended (a client just closes). Repeating changes nothing. */
void lim__wire_fault(lim__wire *w, lim_err code, const char *format, ...) __attribute__((format(printf, 3, 4)));
void lim__wire_malformed(lim__wire *w, const lim__frame *frame); /* fault PROTOCOL, naming the frame */
/* Refuses a client that is not yet ACTIVE (too many connections, say) with CONNECT_ERROR; server only. */
void lim__wire_refuse(lim__wire *w, uint16_t reason, const char *text);
void lim__wire_bye(lim__wire *w);  /* DISCONNECT: the last frame of ours; what still comes in is not looked at */
void lim__wire_ping(lim__wire *w); /* ignored unless ACTIVE */
void lim__wire_gone(lim__wire *w, const char *why); /* the transport ended: CLOSED; keeps an earlier reason, else IO */
const char *lim__wire_state_name(lim__wire_state state);
void lim__wire_check(const lim__wire *w);

#endif
