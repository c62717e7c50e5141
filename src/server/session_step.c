/* SPDX-License-Identifier: Apache-2.0
 * session_step.c - STEP: a row of PUBLISH, CONFIRM and REPLY frames that are done together, or not at all.
 *
 * The frames inside are read as if each had come alone, but nothing happens until all of them are understood. STEPPED
 * answers when it is stored, or why nothing was done. */
#include "bus/step.h"
#include "server/session.h"

#include <stdio.h>

enum { STEPS_MAX = 1024 }; /* under way, of one session */

typedef struct stepped { /* letter */
    lim_runtime *rt;
    lim_pid session;
    uint32_t corr;
    uint32_t stream; /* of the registration whose request it answers; 0: it answers none */
    uint64_t conv, lease;
    lim_err err;
    const char *detail; /* static */
} stepped;
static const lim__letter_type type_stepped = { "stepped", NULL };

static void say(session *s, uint32_t corr, lim_err err, const char *detail)
{
    LIM__SAY(s, stepped, .corr = corr, .code = (uint16_t)err, .detail = lim__str(detail));
}

/* ---- what is in it ---- */

static lim_err add_publish(session *s, lim__step *step, const lim__frame *frame, const char **why)
{
    lim__f_publish f;
    lim__log_message m = { 0 };
    (void)s;
    if (!lim__get_publish(frame, &f))
        return LIM_E_PROTOCOL;
    *why = "an option of a PUBLISH is unknown, or is not what it should be";
    if (!lim__log_message_options(f.options, &m) || m.delay_ms > 0 || !lim__session_headers_ok(f.headers))
        return LIM_E_INVALID;
    m.payload = f.payload;
    m.headers = f.headers;
    lim_err err = lim__step_add_message(step, f.channel, &m);
    *why = err == LIM_E_MISUSE || err == LIM_E_NOTFOUND ? "a PUBLISH of a step needs a durable channel" : "";
    return err;
}

static lim_err add_confirm(session *s, lim__step *step, const lim__frame *frame, const char **why)
{
    lim__f_confirm f;
    lim__reading reading;
    if (!lim__get_confirm(frame, &f))
        return LIM_E_PROTOCOL;
    *why = "a CONFIRM of a step is of one message, in a subscription with a cursor";
    if (f.how != 1)
        return LIM_E_INVALID;
    if (!lim__session_reading(s, frame->stream, &reading))
        return LIM_E_GONE;
    return lim__step_add_ack(step, reading, f.seq);
}

/* What it was the answer to is not in the client's hands any more. */
static void let_go(session *s, const stepped *l)
{
    stream *st = l->stream != 0 ? lim__map_get(&s->streams, l->stream) : NULL;
    if (l->err == LIM_OK && st != NULL && st->kind == STREAM_REG)
        lim__session_let_go((reg_stream *)st, (lim_pid){ l->conv }, l->lease);
}

static lim_err add_reply(session *s, lim__step *step, const lim__frame *frame, stepped *l, const char **why)
{
    lim__f_reply f;
    if (!lim__get_reply(frame, &f))
        return LIM_E_PROTOCOL;
    *why = "a REPLY of a step is the result of a durable task";
    stream *st = lim__map_get(&s->streams, frame->stream);
    if (st == NULL || st->kind != STREAM_REG)
        return LIM_E_GONE;
    if (f.how != LIM__ANSWER_REPLY)
        return LIM_E_INVALID;
    *why = "";
    l->stream = frame->stream;
    l->conv = f.conversation;
    l->lease = f.lease;
    return lim__step_add_reply(step, f.conversation, f.lease, ((reg_stream *)st)->pid.id, f.payload);
}

static lim_err add(session *s, lim__step *step, const lim__frame *frame, stepped *l, const char **why)
{
    switch (frame->type) {
    case LIM__PUBLISH:
        return add_publish(s, step, frame, why);
    case LIM__CONFIRM:
        return add_confirm(s, step, frame, why);
    case LIM__REPLY:
        return add_reply(s, step, frame, l, why);
    default:
        return LIM_E_PROTOCOL;
    }
}

/* PROTOCOL: these bytes are no row of such frames. */
static lim_err add_all(session *s, lim__step *step, lim_bytes frames, stepped *l, const char **why)
{
    const uint8_t *p = frames.ptr, *end = p + frames.len;
    lim_err err = LIM_OK;
    while (p < end && err == LIM_OK) {
        if ((size_t)(end - p) < LIM__HEADER_SIZE)
            return LIM_E_PROTOCOL;
        lim__frame frame = { p[0], p[1], lim__load32(p + 2), lim__load32(p + 6), p + LIM__HEADER_SIZE };
        if ((size_t)(end - p) - LIM__HEADER_SIZE < frame.len)
            return LIM_E_PROTOCOL;
        p += LIM__HEADER_SIZE + frame.len;
        err = add(s, step, &frame, l, why);
    }
    return err;
}

/* ---- STEP ---- */

static void on_step(void *ctx, lim_err err, const char *detail)
{
    stepped *l = ctx;
    l->err = err;
    l->detail = detail;
    (void)!lim__post_reserved(l->rt, l->session, l);
}

static const char *cannot(session *s)
{
    if (s->porter->bus->logs == NULL)
        return "this bus keeps nothing on disk; start it with a data directory (liminald --data DIR)";
    if (lim__session_draining(s))
        return "the server is closing";
    return s->steps >= STEPS_MAX ? "too many steps of this connection are under way" : NULL;
}

void lim__session_step(session *s, const lim__frame *frame)
{
    lim__f_step f;
    if (!lim__get_step(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    const char *why = cannot(s);
    if (why != NULL) {
        say(s, f.corr, s->steps >= STEPS_MAX ? LIM_E_FULL : LIM_E_MISUSE, why);
        return;
    }
    stepped *l = lim__letter_new(s->porter->sched, &type_stepped, sizeof *l);
    lim__step *step = l != NULL ? lim__step_open(s->porter->bus) : NULL;
    lim_err err = step != NULL ? LIM_OK : LIM_E_NOMEM;
    why = "";
    if (err == LIM_OK) {
        *l = (stepped){ .rt = s->porter->bus->rt, .session = lim_self(s->self), .corr = f.corr };
        err = add_all(s, step, f.frames, l, &why);
    }
    if (err != LIM_OK)
        lim__step_drop(step);
    else if ((err = lim__step_commit(step, on_step, l)) == LIM_OK)
        s->steps++;
    if (err == LIM_OK)
        return;
    lim__letter_free(s->porter->sched, l);
    if (err == LIM_E_PROTOCOL)
        lim__session_malformed(s, frame);
    else
        say(s, f.corr, err, why[0] != '\0' ? why : lim_err_text(err));
}

bool lim__session_stepped(session *s, const lim_signal *signal)
{
    if (signal->type != &type_stepped)
        return false;
    const stepped *l = signal->body.ptr;
    s->steps--;
    let_go(s, l);
    say(s, l->corr, l->err, l->detail);
    return true;
}
