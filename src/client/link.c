/* SPDX-License-Identifier: Apache-2.0
 * link.c - the connection itself: dialling, the handshake, reading, writing, and dialling again.
 *
 * One turn reads what is there, hands out the frames, lets what is due happen and writes what was put. It is the same
 * whether a thread of the library or the caller's own loop drives it. Nobody else calls the os table.
 *
 * Writing takes two buffers. Everybody appends to `out` under the mutex; the I/O side swaps it for the empty `sending`
 * and writes that without the mutex. So a publisher never waits for a system call, and what was put while one ran
 * leaves together with the next.
 *
 * A server that has stopped without closing its sockets would leave callers waiting for ever. So whenever an answer is
 * expected and nothing has come for 2 s, a PING is sent, and 4 s later the connection is given up. A connection from
 * which nothing is expected sends no pings and wakes nobody: there the kernel's detectors watch. */
#include "client/client.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MS ((uint64_t)1000000)
#ifdef LIM_HOSTILE
enum { READ_MIN = 24 };
#else
enum { READ_MIN = 64 * 1024 };
#endif
enum { READS_MAX = 4, SENDING_KEEP = 1024 * 1024, GOODBYE_MS = 500 };
enum { BACKOFF_MIN_MS = 50, BACKOFF_MAX_MS = 2000, STEADY_MS = 200 }; /* UP for STEADY_MS: back off from the start */
enum { PATROL_NS = 200000 };                                          /* an answer is held back for so long at most */
enum { QUIET_MS = 2000, PONG_MS = 4000, KERNEL_IDLE_MS = 2000, KERNEL_TIMEOUT_MS = 6000 };

/* ---- deciding ---- */

static lim__link_move to(lim__link next, lim__link_act act)
{
    return (lim__link_move){ next, act };
}

static lim__link_move never(lim__link link)
{
    (void)LIM_NEVER(true);
    return to(link, LIM__DO_NOTHING);
}

static lim__link_move step_before_up(lim__link link, lim__link_event event)
{
    switch (event) {
    case LIM__LINK_REACHED:
        return link == LIM__LINK_DIALLING ? to(LIM__LINK_CONNECTING, LIM__DO_SHAKE) : never(link);
    case LIM__LINK_WELCOMED:
        return link == LIM__LINK_CONNECTING ? to(LIM__LINK_UP, LIM__DO_RESUME) : never(link);
    case LIM__LINK_BROKE:
    case LIM__LINK_DUE:
        return to(LIM__LINK_WAITING, LIM__DO_WAIT);
    case LIM__LINK_BANNED:
    case LIM__LINK_CLOSE:
        return to(LIM__LINK_ENDED, LIM__DO_END);
    case LIM__LINK_WRITTEN:
        break; /* the handshake is */
    }
    return to(link, LIM__DO_NOTHING);
}

static lim__link_move step_up(lim__link_event event)
{
    switch (event) {
    case LIM__LINK_BROKE:
        return to(LIM__LINK_WAITING, LIM__DO_WAIT);
    case LIM__LINK_BANNED:
        return to(LIM__LINK_ENDED, LIM__DO_END);
    case LIM__LINK_CLOSE:
        return to(LIM__LINK_LEAVING, LIM__DO_GOODBYE);
    case LIM__LINK_WRITTEN:
        return to(LIM__LINK_UP, LIM__DO_NOTHING);
    case LIM__LINK_REACHED:
    case LIM__LINK_WELCOMED:
    case LIM__LINK_DUE:
        break;
    }
    return never(LIM__LINK_UP);
}

static lim__link_move step_waiting(lim__link_event event)
{
    switch (event) {
    case LIM__LINK_DUE:
        return to(LIM__LINK_DIALLING, LIM__DO_DIAL);
    case LIM__LINK_CLOSE:
        return to(LIM__LINK_ENDED, LIM__DO_END);
    case LIM__LINK_REACHED:
    case LIM__LINK_WELCOMED:
    case LIM__LINK_BROKE:
    case LIM__LINK_BANNED:
    case LIM__LINK_WRITTEN:
        break; /* there is no connection that could say so */
    }
    return never(LIM__LINK_WAITING);
}

static lim__link_move step_going(lim__link link, lim__link_event event)
{
    switch (event) {
    case LIM__LINK_BROKE:
    case LIM__LINK_BANNED:
    case LIM__LINK_DUE:
        return to(LIM__LINK_ENDED, LIM__DO_END);
    case LIM__LINK_WRITTEN:
        return link == LIM__LINK_LEAVING ? to(LIM__LINK_LINGERING, LIM__DO_SHUT) : to(link, LIM__DO_NOTHING);
    case LIM__LINK_CLOSE:
        return to(link, LIM__DO_NOTHING); /* that is what it does */
    case LIM__LINK_REACHED:
    case LIM__LINK_WELCOMED:
        break;
    }
    return never(link);
}

lim__link_move lim__link_step(lim__link link, lim__link_event event)
{
    switch (link) {
    case LIM__LINK_DIALLING:
    case LIM__LINK_CONNECTING:
        return step_before_up(link, event);
    case LIM__LINK_UP:
        return step_up(event);
    case LIM__LINK_WAITING:
        return step_waiting(event);
    case LIM__LINK_LEAVING:
    case LIM__LINK_LINGERING:
        return step_going(link, event);
    case LIM__LINK_ENDED:
        break; /* nothing happens any more */
    }
    return to(LIM__LINK_ENDED, LIM__DO_NOTHING);
}

uint64_t lim__link_backoff_ns(uint32_t attempt, uint64_t random)
{
    uint64_t ns = attempt < 6 ? BACKOFF_MIN_MS * MS << attempt : BACKOFF_MAX_MS * MS;
    if (ns > BACKOFF_MAX_MS * MS)
        ns = BACKOFF_MAX_MS * MS;
    return ns - ns / 5 + random % (2 * (ns / 5) + 1);
}

/* ---- what others ask of the link ---- */

static bool is_new(const lim_client *c)
{
    return c->breaks == 0 && c->session_count == 0;
}

lim_link_state lim__link_public(const lim_client *c)
{
    switch (c->link) {
    case LIM__LINK_DIALLING:
    case LIM__LINK_CONNECTING:
        return is_new(c) ? LIM_LINK_CONNECTING : LIM_LINK_DOWN;
    case LIM__LINK_UP:
    case LIM__LINK_LEAVING:
    case LIM__LINK_LINGERING:
        return LIM_LINK_UP;
    case LIM__LINK_WAITING:
        return LIM_LINK_DOWN;
    case LIM__LINK_ENDED:
        break;
    }
    return LIM_LINK_ENDED;
}

static size_t queued(const lim_client *c)
{
    return lim__buf_len(&c->out) + lim__buf_len(&c->held) + c->sending_len;
}

lim_err lim__link_may_put(lim_client *c)
{
    if (c->closing || c->link == LIM__LINK_ENDED)
        return LIM_E_CLOSED;
    if (c->link != LIM__LINK_UP && !is_new(c))
        return LIM_E_UNREACHABLE;
    return queued(c) < LIM__OUTPUT_MAX ? LIM_OK : LIM_E_FULL;
}

lim__buf *lim__link_out(lim_client *c)
{
    return c->link == LIM__LINK_UP ? &c->out : &c->held;
}

uint64_t lim__link_offset(lim_client *c)
{
    if (c->link != LIM__LINK_UP)
        return LIM__OFFSET_HELD | lim__buf_len(&c->held);
    return c->written + c->sending_len + lim__buf_len(&c->out);
}

lim_err lim__link_put_end(lim_client *c, lim__buf *out, size_t before, lim_err err)
{
    if (LIM_UNLIKELY(err != LIM_OK)) {
        out->failed = false; /* nothing was appended, and the caller is told */
        return err;
    }
    size_t size = lim__buf_len(out) - before;
    if (LIM_UNLIKELY(size > (size_t)c->frame_max + LIM__HEADER_SIZE)) {
        out->end -= size;
        return LIM_E_TOOBIG;
    }
    if (c->sleeping) {
        c->sleeping = false;
        c->wake = true;
    }
    return LIM_OK;
}

/* ---- ends ---- */

static void move(lim_client *c, lim__link_event event);

/* Tells on_state if the world outside sees a change. */
static void tell(lim_client *c, const char *detail)
{
    lim_link_state state = lim__link_public(c);
    if (state == c->told)
        return;
    c->told = state;
    if (!c->on_state)
        return;
    char text[sizeof c->end_text];
    snprintf(text, sizeof text, "%s", detail);
    lim__client_unlock(c);
    c->on_state(c->ctx, state, text);
    lim__client_lock(c);
}

/* The connection is over, for the reason given. Dials again if that may help. */
__attribute__((format(printf, 3, 4))) static void broke(lim_client *c, lim_err err, const char *format, ...)
{
    char why[240];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    const char *what = c->link != LIM__LINK_DIALLING && c->link != LIM__LINK_CONNECTING ? NULL
                       : err == LIM_E_UNREACHABLE                                       ? "cannot reach the server at "
                                                                                        : "refused by the server at ";
    snprintf(c->end_text, sizeof c->end_text, "%s%.120s%s%s", what ? what : "", what ? c->server : "", what ? ": " : "",
             why);
    c->end_err = err;
    bool first = !c->own_loop && c->session_count == 0; /* lim_client_open waits, and says what is wrong */
    bool useless = c->wire.refusal == LIM__REFUSED_TOKEN || c->wire.refusal == LIM__REFUSED_VERSION;
    move(c, c->no_reconnect || first || useless ? LIM__LINK_BANNED : LIM__LINK_BROKE);
}

static const char *reason_text(int error, char *text, size_t size)
{
    const char *words = strerror_r(-error, text, size);
    if (words != text)
        snprintf(text, size, "%s", words);
    text[0] = (char)tolower((unsigned char)text[0]);
    return text;
}

static void broke_errno(lim_client *c, const char *what, int error)
{
    char text[120];
    broke(c, LIM_E_UNREACHABLE, "%s%s", what, reason_text(error, text, sizeof text));
}

static void drop_connection(lim_client *c)
{
    if (c->fd >= 0) {
        c->os->poller_set(c->os, c->poller, c->fd, 0, c);
        c->os->close(c->os, c->fd);
    }
    c->fd = -1;
    c->interest = 0;
    c->in_len = 0;
    c->blocked_write = false;
    c->quiet_ns = c->ping_at_ns = 0;
    c->sending_len = 0;
    lim__buf_fini(&c->out);
    lim__buf_fini(&c->held);
    lim__buf_fini(&c->sending);
    if (c->wire.state != 0)
        lim__wire_gone(&c->wire, "the connection was dropped");
}

/* ---- acting ---- */

static void watch(lim_client *c, uint32_t interest)
{
    if (c->fd < 0 || c->interest == interest)
        return;
    c->interest = interest;
    if (c->os->poller_set(c->os, c->poller, c->fd, interest, c) != 0)
        broke(c, LIM_E_NOMEM, "no memory to watch the connection");
}

static void dial(lim_client *c)
{
    c->due_ns = c->os->now_ns(c->os) + c->connect_timeout_ns;
    int fd = c->os->connect(c->os, c->host, c->port);
    if (fd < 0) {
        broke_errno(c, "", fd);
        return;
    }
    c->fd = fd;
    watch(c, LIM__IO_WRITE);
}

static void shake(lim_client *c)
{
    lim__wire_opts opts = { .hello = { .liveness_ms = c->liveness_ms,
                                       .session = c->session,
                                       .client = lim__str(c->name),
                                       .node = lim__str(c->node) } };
    c->written = 0;
    c->os->set_liveness(c->os, c->fd, KERNEL_IDLE_MS, KERNEL_TIMEOUT_MS);
    lim__wire_init(&c->wire, LIM__WIRE_CLIENT, &c->out, &opts);
    lim__wire_open(&c->wire);
    watch(c, LIM__IO_READ);
}

/* What was said before the server was there follows what it must know first. */
static void release_held(lim_client *c)
{
    lim_bytes held = lim__buf_bytes(&c->held);
    uint64_t base = lim__link_offset(c);
    lim__buf_add(&c->out, held.ptr, held.len);
    lim__client_call_held(c, base);
    lim__buf_fini(&c->held);
    if (c->out.failed)
        broke(c, LIM_E_NOMEM, "no memory for what was to be sent");
}

static void resume(lim_client *c)
{
    c->due_ns = UINT64_MAX;
    c->up_at_ns = c->os->now_ns(c->os);
    c->session_count++;
    c->frame_max = c->wire.peer_length_max;
    lim__client_orders_resume(c);
    release_held(c);
    if (c->link == LIM__LINK_UP)
        tell(c, c->server);
}

static void wait_to_dial(lim_client *c)
{
    uint64_t now = c->os->now_ns(c->os);
    if (c->up_at_ns != 0 && now - c->up_at_ns >= STEADY_MS * MS)
        c->attempt = 0;
    c->up_at_ns = 0;
    c->due_ns = now + lim__link_backoff_ns(c->attempt++, c->os->random(c->os));
    c->breaks++;
    drop_connection(c);
    lim__client_orders_break(c);
    tell(c, c->end_text);
    lim__client_pub_break(c);
    lim__client_call_break(c, LIM_HOW_LOST, c->end_text);
    lim__client_convs_break(c, LIM_HOW_LOST, c->end_text);
}

static void end_all(lim_client *c)
{
    if (c->closing) {
        c->end_err = LIM_OK;
        snprintf(c->end_text, sizeof c->end_text, "the client was closed");
    } else if (c->end_err == LIM_OK) {
        c->end_err = LIM_E_CLOSED; /* the server's goodbye */
    }
    lim_how how = c->closing ? LIM_HOW_CLOSED : LIM_HOW_LOST;
    c->due_ns = UINT64_MAX;
    c->breaks++;
    drop_connection(c);
    lim__client_orders_break(c);
    tell(c, c->end_text);
    lim__client_pub_break(c);
    lim__client_call_break(c, how, c->end_text);
    lim__client_convs_break(c, how, c->end_text);
    lim__client_orders_end(c, c->end_err, c->end_text);
}

static void goodbye(lim_client *c)
{
    c->due_ns = c->os->now_ns(c->os) + GOODBYE_MS * MS;
    lim__wire_bye(&c->wire);
}

static void move(lim_client *c, lim__link_event event)
{
    lim__link_move m = lim__link_step(c->link, event);
    c->link = m.next;
    switch (m.act) {
    case LIM__DO_NOTHING:
        break;
    case LIM__DO_DIAL:
        dial(c);
        break;
    case LIM__DO_SHAKE:
        shake(c);
        break;
    case LIM__DO_RESUME:
        resume(c);
        break;
    case LIM__DO_WAIT:
        wait_to_dial(c);
        break;
    case LIM__DO_GOODBYE:
        goodbye(c);
        break;
    case LIM__DO_SHUT:
        c->os->shutdown_write(c->os, c->fd);
        break;
    case LIM__DO_END:
        end_all(c);
        break;
    }
}

void lim__link_start(lim_client *c)
{
    LIM_ASSERT(c->link == LIM__LINK_DIALLING && c->fd < 0);
    dial(c);
}

/* ---- reading ---- */

static bool welcomed(lim_client *c, const lim__frame *frame)
{
    lim__f_welcome f;
    if (c->link != LIM__LINK_CONNECTING || !lim__get_welcome(frame, &f))
        return false;
    bool known = memcmp(c->session.bytes, f.session.bytes, sizeof f.session.bytes) == 0;
    c->session = f.session;
    if (!known && c->session_count > 0)
        lim__client_regs_forgotten(c);
    move(c, LIM__LINK_WELCOMED);
    return true;
}

static bool deal(lim_client *c, const lim__frame *frame)
{
    switch (frame->type) {
    case LIM__WELCOME:
        return welcomed(c, frame);
    case LIM__PUBLISHED:
        return lim__client_pub_answered(c, frame);
    case LIM__STORED:
        return lim__client_pub_stored(c, frame);
    case LIM__STEPPED:
        return lim__client_stepped(c, frame);
    case LIM__OUTCOME:
        return lim__client_call_outcome(c, frame);
    case LIM__PARTIAL:
        return lim__client_call_partial(c, frame);
    case LIM__SIGNALLED:
        return lim__client_call_signalled(c, frame);
    case LIM__FOUND:
        return lim__client_call_found(c, frame);
    case LIM__DISPATCHED:
        return lim__client_call_dispatched(c, frame);
    case LIM__SUBSCRIBED:
    case LIM__DELIVER:
    case LIM__DELIVERS:
    case LIM__ENDED:
    case LIM__DROPPED:
    case LIM__CONFIRMED:
        return frame->stream < c->next_stream && lim__client_sub_frame(c, frame);
    case LIM__SERVED:
    case LIM__LEFT:
    case LIM__REQUEST:
    case LIM__REVOKED:
    case LIM__SETTLED:
    case LIM__CREDIT:
        return frame->stream < c->next_stream && lim__client_reg_frame(c, frame);
    case LIM__OPENED:
    case LIM__SENT:
    case LIM__MESSAGE:
    case LIM__CLOSED:
    case LIM__JOINED:
        return frame->stream < c->next_stream && lim__client_conv_frame(c, frame);
    default:
        return true; /* of a later version */
    }
}

static void broke_wire(lim_client *c)
{
    char text[sizeof c->wire.text];
    memcpy(text, c->wire.text, sizeof text);
    broke(c, c->wire.code, "%s", text);
}

/* Hands out every whole frame that has arrived; keeps the rest. */
static void parse(lim_client *c)
{
    lim__span in = { c->in, c->in + c->in_len };
    lim__frame frame;
    while (c->link == LIM__LINK_CONNECTING || c->link == LIM__LINK_UP) {
        switch (lim__wire_next(&c->wire, &in, &frame)) {
        case LIM__WIRE_FRAME:
            if (!deal(c, &frame))
                lim__wire_malformed(&c->wire, &frame);
            continue;
        case LIM__WIRE_MORE:
            c->in_len = (size_t)(in.end - in.p);
            memmove(c->in, in.p, c->in_len);
            return;
        case LIM__WIRE_END:
            broke_wire(c);
            return;
        }
    }
}

static bool read_room(lim_client *c)
{
    size_t need = c->wire.need > READ_MIN ? c->wire.need : READ_MIN;
    if (c->in_cap >= need)
        return true;
    uint8_t *in = realloc(c->in, need);
    if (!in)
        return false;
    c->in = in;
    c->in_cap = need;
    return true;
}

/* True: there may be more. */
static bool read_once(lim_client *c)
{
    if (!read_room(c)) {
        broke(c, LIM_E_NOMEM, "no memory for a message");
        return false;
    }
    size_t room = c->in_cap - c->in_len;
    lim__client_unlock(c);
    long n = c->os->recv(c->os, c->fd, c->in + c->in_len, room);
    lim__client_lock(c);
    if (n == -EAGAIN)
        return false;
    if (n <= 0 && (c->link == LIM__LINK_LEAVING || c->link == LIM__LINK_LINGERING))
        move(c, LIM__LINK_BROKE);
    else if (n == 0)
        broke(c, LIM_E_UNREACHABLE, "the server closed the connection");
    else if (n < 0)
        broke_errno(c, "the connection broke: ", (int)n);
    if (n <= 0)
        return false;
    c->quiet_ns = c->ping_at_ns = 0;
    if (c->link == LIM__LINK_LEAVING || c->link == LIM__LINK_LINGERING)
        return true; /* nobody waits for it any more: in_len stays */
    c->in_len += (size_t)n;
    parse(c);
    return (size_t)n == room;
}

/* ---- writing ---- */

/* Fills `sending` again. False: nothing is left to write. */
static bool refill(lim_client *c)
{
    if (c->sending_len > 0)
        return true;
    if (c->sending.cap > SENDING_KEEP)
        lim__buf_fini(&c->sending);
    c->sending.start = c->sending.end = 0;
    lim__buf empty = c->sending;
    c->sending = c->out;
    c->out = empty;
    c->sending_len = lim__buf_len(&c->sending);
    return c->sending_len > 0;
}

static void write_all(lim_client *c)
{
    while (c->fd >= 0 && c->link != LIM__LINK_DIALLING && !c->blocked_write && refill(c)) {
        lim_bytes bytes = lim__buf_bytes(&c->sending);
        lim__client_unlock(c);
        long n = c->os->send(c->os, c->fd, bytes.ptr, bytes.len);
        lim__client_lock(c);
        if (n == -EAGAIN || n == 0) {
            c->blocked_write = true;
        } else if (n < 0) {
            broke_errno(c, "the connection broke: ", (int)n);
            return;
        } else {
            c->sending.start += (size_t)n;
            c->sending_len -= (size_t)n;
            c->written += (uint64_t)n;
        }
    }
    if (c->fd < 0 || c->link == LIM__LINK_DIALLING)
        return;
    if (!c->blocked_write)
        move(c, LIM__LINK_WRITTEN);
    watch(c, LIM__IO_READ | (c->blocked_write ? LIM__IO_WRITE : 0u));
    if (c->blocked > 0 && queued(c) < LIM__OUTPUT_MAX / 2)
        pthread_cond_broadcast(&c->room);
}

/* Nobody but the I/O side sends, except here: it sleeps, and the mutex keeps it from waking up. So a caller that is
 * about to wait can save the time of waking it. What is not taken at once is left to the I/O thread. */
void lim__link_write_through(lim_client *c)
{
    if (!c->wake || c->link != LIM__LINK_UP || c->sending_len > 0 || c->blocked_write)
        return;
    lim_bytes bytes = lim__buf_bytes(&c->out);
    long n = c->os->send(c->os, c->fd, bytes.ptr, bytes.len);
    if (n <= 0)
        return;
    c->written += (uint64_t)n;
    lim__buf_consume(&c->out, (size_t)n);
    if (lim__buf_len(&c->out) == 0) {
        c->wake = false;
        c->sleeping = true;
    }
}

/* ---- time ---- */

static bool expecting(const lim_client *c)
{
    return c->link == LIM__LINK_UP &&
           (c->calls.count > 0 || c->pubs.pending > 0 || c->sends_offered != c->sends_answered || c->receiving > 0);
}

uint64_t lim__link_due_ns(const lim_client *c)
{
    if (c->closing && c->link != LIM__LINK_LEAVING && c->link != LIM__LINK_LINGERING && c->link != LIM__LINK_ENDED)
        return 0;
    if (c->fd >= 0 && c->link != LIM__LINK_DIALLING && !c->blocked_write && lim__buf_len(&c->out) > 0)
        return 0;
    if (!lim__list_empty(&c->receives_done))
        return 0;
    uint64_t due = c->due_ns;
    if (expecting(c))
        due = c->ping_at_ns ? c->ping_at_ns + PONG_MS * MS : c->quiet_ns ? c->quiet_ns + QUIET_MS * MS : 0;
    due = due < c->retry_ns ? due : c->retry_ns;
    return due < c->receive_due_ns ? due : c->receive_due_ns;
}

static void ask_whether_alive(lim_client *c, uint64_t now)
{
    if (!expecting(c)) {
        c->quiet_ns = c->ping_at_ns = 0;
    } else if (c->ping_at_ns != 0) {
        if (now >= c->ping_at_ns + PONG_MS * MS)
            broke(c, LIM_E_UNREACHABLE, "the server has been silent for %d ms", QUIET_MS + PONG_MS);
    } else if (c->quiet_ns == 0) {
        c->quiet_ns = now;
    } else if (now >= c->quiet_ns + QUIET_MS * MS) {
        lim__wire_ping(&c->wire);
        c->ping_at_ns = now;
    }
}

static void late(lim_client *c)
{
    switch (c->link) {
    case LIM__LINK_DIALLING:
    case LIM__LINK_CONNECTING:
        broke(c, LIM_E_UNREACHABLE, "no answer within %llu ms", (unsigned long long)(c->connect_timeout_ns / MS));
        break;
    case LIM__LINK_WAITING:
    case LIM__LINK_LEAVING:
    case LIM__LINK_LINGERING:
        move(c, LIM__LINK_DUE);
        break;
    case LIM__LINK_UP:
    case LIM__LINK_ENDED:
        (void)LIM_NEVER(true);
        break;
    }
}

static void look_at_the_clock(lim_client *c)
{
    uint64_t now = c->os->now_ns(c->os);
    if (c->closing && c->link == LIM__LINK_UP)
        lim__client_sub_acks(c);
    if (c->closing)
        move(c, LIM__LINK_CLOSE);
    if (now >= c->due_ns)
        late(c);
    ask_whether_alive(c, now);
    lim__client_sub_retry(c);
    lim__client_receives_run(c);
}

/* ---- the turn ---- */

static void reached(lim_client *c)
{
    int result = c->os->connect_result(c->os, c->fd);
    if (result == 0)
        move(c, LIM__LINK_REACHED);
    else if (result != -EINPROGRESS)
        broke_errno(c, "", result);
}

static void ready(lim_client *c, uint32_t what)
{
    if (c->link == LIM__LINK_DIALLING) {
        reached(c);
        return;
    }
    if (what & LIM__IO_WRITE)
        c->blocked_write = false;
    if (what & LIM__IO_READ) {
        for (int i = 0; i < READS_MAX && c->fd >= 0 && read_once(c); i++)
            ;
    }
}

static int64_t wait_ns(lim_client *c)
{
    uint64_t due = lim__link_due_ns(c), now;
    if (due == UINT64_MAX)
        return -1;
    now = c->os->now_ns(c->os);
    return due > now ? (int64_t)(due - now) : 0;
}

void lim__link_turn(lim_client *c, bool may_wait)
{
    lim__io_event events[2];
    look_at_the_clock(c);
    write_all(c);
    if (c->link == LIM__LINK_ENDED)
        return;
    int64_t timeout = may_wait ? wait_ns(c) : 0;
    c->sleeping = !c->own_loop && timeout != 0;
    c->patrols = c->sleeping && c->patrol_wanted;
    c->patrol_wanted = false;
    if (c->patrols && (timeout < 0 || timeout > PATROL_NS))
        timeout = PATROL_NS;
    lim__client_unlock(c);
    int n = c->os->poller_wait(c->os, c->poller, events, LIM_COUNT(events), timeout);
    lim__client_lock(c);
    c->sleeping = c->patrols = false;
    if (n > 0 && c->fd >= 0)
        ready(c, events[0].ready);
    look_at_the_clock(c);
    if (c->own_loop)
        lim__client_sub_acks(c);
    write_all(c);
    if (c->blocked > 0) {
        pthread_cond_broadcast(&c->progress);
        if (c->link != LIM__LINK_UP)
            pthread_cond_broadcast(&c->room);
    }
    lim__client_check(c);
}
