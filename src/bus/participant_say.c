/* SPDX-License-Identifier: Apache-2.0
 * participant_say.c - what a participant of the host's says: replies, parts of them, progress, messages.
 *
 * An answer goes straight to the conversation, in the participant's name, from whatever thread. But what belongs
 * together must arrive in order: parts, and the reply that comes after them, may be sent by the handler and then by
 * other threads, which are other senders. So of a stream everything passes through the participant's process: what the
 * handler sends leaves in its turn, what other threads send waits in its mailbox for the next. */
#include "base/base.h"
#include "bus/durable.h"
#include "bus/held.h"
#include "bus/participant.h"

/* The participant's process, if this is its scheduler: then it is sent in its name, at once. */
static lim_process *here(lim_bus *bus, lim_participant who)
{
    lim__sched *s = lim__sched_current();
    return s != NULL && lim__sched_runtime(s) == bus->rt ? lim__local_process(s, (lim_pid){ who.id }) : NULL;
}

static lim__sched *sched_of(lim_process *self)
{
    return self != NULL ? lim__proc_sched(self) : NULL;
}

static lim__delivery_id delivery_id(lim_participant self, lim_conv conv, uint64_t lease)
{
    return (lim__delivery_id){ self, conv, lease };
}

/* ---- letters on their way through the participant ---- */

typedef struct relayed {
    lim_pid to;
    void *letter;
} relayed;
static void relayed_drop(void *body)
{
    lim__letter_free(lim__sched_current(), ((relayed *)body)->letter);
}
static const lim__letter_type type_relayed = { "relayed", relayed_drop };

bool lim__participant_relay(lim_process *self, const lim_signal *signal)
{
    if (signal->type != &type_relayed)
        return false;
    relayed *r = (relayed *)(uintptr_t)signal->body.ptr;
    void *letter = r->letter;
    r->letter = NULL;
    (void)!lim__send_reserved(self, r->to, letter);
    return true;
}

static lim_err relay(lim_bus *bus, lim_participant who, lim_conv conv, void *letter)
{
    relayed *r = lim__letter_new(NULL, &type_relayed, sizeof *r);
    if (r == NULL) {
        lim__letter_free(NULL, letter);
        return LIM_E_NOMEM;
    }
    *r = (relayed){ lim__alias_pid(bus, conv.id), letter };
    return lim__post_reserved(bus->rt, (lim_pid){ who.id }, r);
}

/* ---- answers ---- */

lim__answer *lim__answer_new(lim__sched *s, lim_pid from, uint64_t lease, lim__answer_how how, lim__msg *payload,
                             lim_bytes detail)
{
    if (detail.len > 1024)
        detail.len = 1024;
    lim__answer *a = lim__letter_new(s, &lim__type_answer, sizeof *a + detail.len);
    if (a == NULL) {
        lim__msg_unref(payload);
        return NULL;
    }
    *a = (lim__answer){
        .lease = lease, .from = from, .how = how, .payload = payload, .detail_len = (uint16_t)detail.len
    };
    if (detail.len > 0)
        memcpy(a->detail, detail.ptr, detail.len);
    return a;
}

lim_err lim__participant_answer(lim_bus *bus, lim_participant who, lim_conv conv, uint64_t lease, lim__answer_how how,
                                lim_bytes payload, lim_bytes detail)
{
    lim_process *self = here(bus, who);
    lim__msg *msg = NULL;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    if (how == LIM__ANSWER_REPLY && (msg = lim__msg_new(payload)) == NULL)
        return LIM_E_NOMEM;
    lim__answer *a = lim__answer_new(sched_of(self), (lim_pid){ who.id }, lease, how, msg, detail);
    if (a == NULL)
        return LIM_E_NOMEM;
    bool stream = self == NULL && lim__held_is_stream(bus->held, delivery_id(who, conv, lease));
    lim__held_remove(bus->held, delivery_id(who, conv, lease));
    lim_pid to = lim__alias_pid(bus, conv.id);
    return self != NULL ? lim__send_reserved(self, to, a)
           : stream     ? relay(bus, who, conv, a)
                        : lim__post_reserved(bus->rt, to, a);
}

static lim_err answer(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, lim__answer_how how,
                      lim_bytes payload, lim_bytes detail)
{
    bool *answered = lim__participant_at_hand(here(bus, self), conv, lease);
    if (lease == 0 || (answered != NULL && *answered))
        return LIM_E_GONE;
    lim_err err = lim__participant_answer(bus, self, conv, lease, how, payload, detail);
    if (answered != NULL && err != LIM_E_TOOBIG)
        *answered = true;
    return err;
}

void lim__participant_let_go(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease)
{
    lim__held_remove(bus->held, delivery_id(self, conv, lease));
}

lim_err lim_reply(lim_bus *bus, const lim_delivery *d, lim_bytes payload)
{
    return answer(bus, d->self, d->conv, d->lease, LIM__ANSWER_REPLY, payload, lim__bytes(NULL, 0));
}

lim_err lim_fail(lim_bus *bus, const lim_delivery *d, const char *why)
{
    return answer(bus, d->self, d->conv, d->lease, LIM__ANSWER_FAILED, lim__bytes(NULL, 0), lim__str(why));
}

lim_err lim_reply_to(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, lim_bytes payload)
{
    return answer(bus, self, conv, lease, LIM__ANSWER_REPLY, payload, lim__bytes(NULL, 0));
}

lim_err lim_fail_to(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, const char *why)
{
    return answer(bus, self, conv, lease, LIM__ANSWER_FAILED, lim__bytes(NULL, 0), lim__str(why));
}

/* ---- parts ---- */

lim_err lim_part_to(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, lim_bytes payload)
{
    lim_process *process = here(bus, self);
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim__msg *msg = lim__msg_new(payload);
    lim__part *p = msg == NULL ? NULL : lim__letter_new(sched_of(process), &lim__type_part, sizeof *p);
    if (p == NULL) {
        lim__msg_unref(msg);
        return LIM_E_NOMEM;
    }
    *p = (lim__part){ .lease = lease, .from = { self.id }, .payload = msg };
    lim_err err = lim__held_spend(bus->held, delivery_id(self, conv, lease)); /* last: what is spent is sent */
    if (err == LIM_E_NOTFOUND)                                                /* answered, or no stream */
        err = lim__conv_kind_of(bus, (lim_pid){ conv.id }) == 0 ? LIM_E_GONE : LIM_E_MISUSE;
    if (err != LIM_OK) {
        lim__letter_free(sched_of(process), p);
        return err;
    }
    return process != NULL ? lim__send_reserved(process, (lim_pid){ conv.id }, p) : relay(bus, self, conv, p);
}

lim_err lim_part(lim_bus *bus, const lim_delivery *d, lim_bytes payload)
{
    return lim_part_to(bus, d->self, d->conv, d->lease, payload);
}

/* ---- progress ---- */

lim_err lim_progress(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, const char *note)
{
    lim_bytes text = lim__str(note);
    lim_process *process = here(bus, self);
    lim_pid to = lim__alias_pid(bus, conv.id);
    lim__conv_kind kind = lim__conv_kind_of(bus, to);
    if (kind != LIM__KIND_TASK)
        return kind == 0 ? LIM_E_GONE : LIM_E_MISUSE;
    if (text.len > LIM__NOTE_MAX)
        return LIM_E_TOOBIG;
    if (!lim__text_ok(text))
        return LIM_E_INVALID;
    lim__progress *p = lim__letter_new(sched_of(process), &lim__type_progress, sizeof *p + text.len);
    if (p == NULL)
        return LIM_E_NOMEM;
    *p = (lim__progress){ .lease = lease, .from = { self.id }, .note_len = (uint8_t)text.len };
    if (text.len > 0)
        memcpy(p->note, text.ptr, text.len);
    return process != NULL ? lim__send_reserved(process, to, p) : lim__post_reserved(bus->rt, to, p);
}

/* ---- messages ---- */

lim_err lim_conv_say(lim_bus *bus, const lim_delivery *d, lim_bytes payload)
{
    return lim_conv_say_to(bus, d, (lim_participant){ 0 }, payload);
}
