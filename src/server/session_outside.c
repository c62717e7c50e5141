/* SPDX-License-Identifier: Apache-2.0
 * session_outside.c - conversations from outside, by their number or name: SIGNAL and FIND.
 *
 * Both are answered at once. SIGNALLED with code 0 says that the conversation lived when the signal was sent to it;
 * whether anybody works on it, and takes signals, is theirs to know. */
#include "server/session.h"

#include "bus/durable.h"

#include <stdio.h>

/* ---- SIGNAL ---- */

static bool is_segment(lim_bytes name)
{
    return lim__channel_name_ok(name) && memchr(name.ptr, '.', name.len) == NULL && ((const char *)name.ptr)[0] != '$';
}

static const char *objection(const session *s, const lim__f_signal *f, lim_err *code)
{
    *code = LIM_E_INVALID;
    if (!is_segment(f->name))
        return "a signal's name is A-Z a-z 0-9 _ - without dots";
    *code = LIM_E_TOOBIG;
    if (f->payload.len > s->porter->bus->opts.payload_bytes_max)
        return "the payload is over the size limit";
    *code = LIM_E_GONE;
    return lim__conv_kind_of(s->porter->bus, lim__alias_pid(s->porter->bus, f->conversation)) == 0
               ? lim_err_text(LIM_E_GONE)
               : NULL;
}

static lim_err pass_signal(session *s, const lim__f_signal *f)
{
    lim__msg *msg = lim__msg_new(f->payload);
    lim__signal_in *m =
        msg == NULL ? NULL : lim__letter_new(s->porter->sched, &lim__type_signal_in, sizeof *m + f->name.len);
    if (m == NULL) {
        lim__msg_unref(msg);
        return LIM_E_NOMEM;
    }
    *m = (lim__signal_in){ .payload = msg, .name_len = (uint8_t)f->name.len };
    memcpy(m->name, f->name.ptr, f->name.len);
    return lim__send(s->self, lim__alias_pid(s->porter->bus, f->conversation), m);
}

void lim__session_signal(session *s, const lim__frame *frame)
{
    lim__f_signal f;
    lim_err err;
    if (!lim__get_signal(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    const char *why = objection(s, &f, &err);
    if (why == NULL && (err = pass_signal(s, &f)) != LIM_OK)
        why = lim_err_text(err);
    LIM__SAY(s, signalled, .corr = f.corr, .code = (uint16_t)(why != NULL ? err : LIM_OK), .detail = lim__str(why));
}

/* ---- FIND ---- */

void lim__session_find(session *s, const lim__frame *frame)
{
    lim__f_find f;
    char name[256];
    lim_conv conv = { 0 };
    if (!lim__get_find(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    lim_err err = f.name.len == 0 || memchr(f.name.ptr, 0, f.name.len) != NULL ? LIM_E_NOTFOUND : LIM_OK;
    if (err == LIM_OK) {
        snprintf(name, sizeof name, "%.*s", (int)f.name.len, (const char *)f.name.ptr);
        err = lim_conv_find(s->porter->bus, name, &conv);
    }
    LIM__SAY(s, found, .corr = f.corr, .conversation = conv.id, .code = (uint16_t)err,
             .detail = lim__str(err == LIM_OK ? NULL : "no living conversation has that name"));
}
