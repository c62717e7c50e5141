/* SPDX-License-Identifier: Apache-2.0
 * participant.c - a handler of the host's as a participant: requests in, answers out.
 *
 * The handler runs on the participant's scheduler, one request at a time; without a handler, requests wait in a box for
 * lim_take. An answer goes straight to the conversation.
 * Which delivery is at hand is remembered while the handler runs (`now`), so that the first answer counts and a
 * handler that says nothing is seen to have said nothing. */
#include "bus/participant.h"
#include "base/base.h"
#include "base/buf.h"
#include "bus/box.h"
#include "data/outcome.h"

#include <stdlib.h>

typedef struct participant {
    lim_bus *bus;
    lim_handler handler;
    lim__member_kind kind;
    lim_pid group;           /* the one it was made for, or {0} */
    struct lim__box *box;    /* pulled: where requests wait */
    lim_process *self;       /* while a signal is handled */
    const lim__request *now; /* the delivery at hand */
    bool answered;
} participant;

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

static lim_err send_answer(lim_bus *bus, lim_pid from, lim_conv conv, uint64_t lease, lim__answer_how how,
                           lim_bytes payload, lim_bytes detail)
{
    lim__sched *s = lim__sched_current();
    lim_process *self = s != NULL ? lim__local_process(s, from) : NULL;
    lim__msg *msg = NULL;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    if (how == LIM__ANSWER_REPLY && (msg = lim__msg_new(payload)) == NULL)
        return LIM_E_NOMEM;
    lim__answer *a = lim__answer_new(self != NULL ? s : NULL, from, lease, how, msg, detail);
    if (a == NULL)
        return LIM_E_NOMEM;
    return self != NULL ? lim__send_reserved(self, (lim_pid){ conv.id }, a)
                        : lim__post_reserved(bus->rt, (lim_pid){ conv.id }, a);
}

/* The state, if this call is made by the handler for the delivery at hand. */
static participant *at_hand(lim_participant self, lim_conv conv, uint64_t lease)
{
    lim__sched *s = lim__sched_current();
    lim_process *process = s != NULL ? lim__local_process(s, (lim_pid){ self.id }) : NULL;
    participant *p = process != NULL ? lim__proc_state(process) : NULL;
    return p != NULL && p->now != NULL && p->now->conv.id == conv.id && p->now->lease == lease ? p : NULL;
}

static lim_err answer(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, lim__answer_how how,
                      lim_bytes payload, lim_bytes detail)
{
    participant *p = at_hand(self, conv, lease);
    if (lease == 0 || (p != NULL && p->answered))
        return LIM_E_GONE;
    lim_err err = send_answer(bus, (lim_pid){ self.id }, conv, lease, how, payload, detail);
    if (p != NULL && err != LIM_E_TOOBIG)
        p->answered = true;
    return err;
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

lim_err lim_conv_say(lim_bus *bus, const lim_delivery *d, lim_bytes payload)
{
    lim__sched *s = lim__sched_current();
    lim_process *self = s != NULL ? lim__local_process(s, (lim_pid){ d->self.id }) : NULL;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim__say *say = lim__letter_new(self != NULL ? s : NULL, &lim__type_say, sizeof *say);
    if (say == NULL)
        return LIM_E_NOMEM;
    *say = (lim__say){ .from = { d->self.id }, .payload = lim__msg_new(payload) };
    if (say->payload == NULL) {
        lim__letter_free(self != NULL ? s : NULL, say);
        return LIM_E_NOMEM;
    }
    return self != NULL ? lim__send(self, (lim_pid){ d->conv.id }, say)
                        : lim__post(bus->rt, (lim_pid){ d->conv.id }, say);
}

static void report(const participant *p, lim_process *self, uint32_t used)
{
    lim__report *r = p->group.id == 0 ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_report, sizeof *r);
    if (r == NULL)
        return;
    *r = (lim__report){ lim_self(self), used };
    (void)!lim__send_reserved(self, p->group, r);
}

/* ---- the process ---- */

static int64_t remaining_ms(uint64_t now_ns, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX)
        return LIM_FOREVER;
    return deadline_ns > now_ns ? (int64_t)((deadline_ns - now_ns + 999999) / 1000000) : 0;
}

static void acknowledge(lim_process *self, const lim__request *r)
{
    lim__taken *t = lim__letter_new(lim__proc_sched(self), &lim__type_taken, sizeof *t);
    if (t == NULL)
        return;
    t->lease = r->lease;
    (void)!lim__send_reserved(self, r->conv, t);
}

static lim_delivery delivery(const lim__request *r, lim_pid self, uint64_t now_ns)
{
    return (lim_delivery){ .payload = lim__msg_bytes(r->payload),
                           .type = lim__bytes(r->type, r->type_len),
                           .conv = { r->conv.id },
                           .lease = r->lease,
                           .self = { self.id },
                           .remaining_ms = remaining_ms(now_ns, r->deadline_ns),
                           .attempt = r->attempt,
                           .losses = r->losses,
                           .hops = r->hops,
                           .from = { r->from.id },
                           .event = (lim_event)r->event,
                           .wants_reply = !(r->flags & LIM__REQUEST_QUIET),
                           .msg = (lim_msg *)r->payload };
}

static void on_request(participant *p, lim_process *self, const lim_signal *signal)
{
    const lim__request *r = signal->body.ptr;
    lim_delivery d = delivery(r, lim_self(self), lim_now_ns(self));
    if (r->flags & LIM__REQUEST_ACK)
        acknowledge(self, r);
    if (p->box != NULL) {
        lim__request *kept = lim__letter_keep(self, signal);
        if (!lim__box_push(p->box, kept)) {
            if (kept->lease != 0)
                (void)!send_answer(p->bus, lim_self(self), d.conv, d.lease, LIM__ANSWER_FAILED, lim__bytes(NULL, 0),
                                   lim__str("nobody takes this participant's requests, and its box is full"));
            lim__letter_free(lim__proc_sched(self), kept);
        }
        return;
    }
    p->now = r;
    p->answered = !d.wants_reply;
    lim_done done = p->handler.on_message(p->bus, &d, p->handler.ctx);
    if (!p->answered && done == LIM_FAIL)
        (void)!lim_fail(p->bus, &d, "the handler failed");
    else if (!p->answered && done != LIM_HOLD)
        (void)!send_answer(p->bus, lim_self(self), d.conv, d.lease,
                           p->kind == LIM__MEMBER_WORK ? LIM__ANSWER_REPLY : LIM__ANSWER_NOTHING, lim__bytes(NULL, 0),
                           lim__bytes(NULL, 0));
    p->now = NULL;
}

/* What nobody has taken yet is not taken any more; its conversation need not wait for the participant. */
static void on_revoke(participant *p, lim_process *self, const lim__revoke *revoke)
{
    lim__request *r;
    while (p->box != NULL && (r = lim__box_withdraw(p->box, revoke->conv, revoke->lease)) != NULL) {
        if (r->lease != 0)
            (void)!send_answer(p->bus, lim_self(self), (lim_conv){ r->conv.id }, r->lease, LIM__ANSWER_NOTHING,
                               lim__bytes(NULL, 0), lim__bytes(NULL, 0));
        lim__letter_free(lim__proc_sched(self), r);
    }
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    participant *p = state;
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type == NULL)
        return; /* a conversation that ended: whatever is in hand will be told GONE */
    if (signal->type == &lim__type_request)
        on_request(p, self, signal);
    else if (signal->type == &lim__type_revoke)
        on_revoke(p, self, signal->body.ptr);
    else if (signal->type == &lim__type_report)
        report(p, self, ((const lim__report *)signal->body.ptr)->used);
    else if (signal->type == &lim__type_evict)
        lim_exit(self, ((const lim__evict *)signal->body.ptr)->reason);
}

static void on_end(void *state, lim_reason reason)
{
    participant *p = state;
    (void)reason;
    if (p->box != NULL)
        lim__box_close(p->bus->boxes, p->box);
    if (p->handler.on_end != NULL)
        p->handler.on_end(p->handler.ctx);
}

lim_err lim__participant_spawn(lim_bus *bus, const lim_handler *handler, lim__member_kind kind, lim_pid group,
                               lim_pid *out)
{
    participant init = { .bus = bus, .handler = *handler, .kind = kind, .group = group };
    if (handler->on_message == NULL && (init.box = lim__box_new()) == NULL)
        return LIM_E_NOMEM;
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "participant",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init,
                            .mailbox_max = 65536,
                            .trap_exit = true };
    if (group.id != 0) {
        opts.place = true;
        opts.scheduler = lim__pid_scheduler(group);
    }
    lim_err err = lim_runtime_spawn(bus->rt, &opts, out);
    if (err == LIM_OK && init.box != NULL && (err = lim__box_enter(bus->boxes, init.box, *out)) != LIM_OK)
        lim_runtime_exit(bus->rt, *out, LIM_KILL);
    else if (err != LIM_OK && init.box != NULL)
        lim__box_unref(init.box);
    return err;
}

lim_err lim_report_used(lim_bus *bus, lim_participant who, uint32_t used)
{
    lim__report *r = lim__letter_new(NULL, &lim__type_report, sizeof *r);
    if (r == NULL)
        return LIM_E_NOMEM;
    *r = (lim__report){ { who.id }, used };
    return lim__post_reserved(bus->rt, (lim_pid){ who.id }, r);
}

typedef struct taken_letter { /* what a lim_taken of the bus owns */
    lim__taken_owned base;
    lim__request *request;
} taken_letter;

static void taken_letter_free(lim__taken_owned *owned)
{
    taken_letter *t = (taken_letter *)owned;
    if (t->request != NULL)
        lim__letter_free(NULL, t->request);
    free(t);
}

lim_err lim_take(lim_bus *bus, lim_participant who, int64_t timeout_ms, lim_taken *out)
{
    if (lim__sched_current() != NULL || timeout_ms < 0)
        return LIM_E_MISUSE;
    uint64_t now = bus->os->now_ns(bus->os);
    bool ever = (uint64_t)timeout_ms > (UINT64_MAX - now) / 1000000; /* as good as LIM_FOREVER */
    uint64_t end = ever ? UINT64_MAX : now + (uint64_t)timeout_ms * 1000000;
    lim__box *b = lim__box_find(bus->boxes, (lim_pid){ who.id });
    if (b == NULL)
        return LIM_E_GONE;
    taken_letter *t = calloc(1, sizeof *t); /* before it leaves the box: nothing may fail afterwards */
    lim_err err = t == NULL ? LIM_E_NOMEM : lim__box_pop(b, end, &t->request);
    lim__box_unref(b);
    if (err != LIM_OK) {
        free(t);
        return err;
    }
    t->base.free = taken_letter_free;
    *out = (lim_taken){ delivery(t->request, (lim_pid){ who.id }, bus->os->now_ns(bus->os)), t };
    return LIM_OK;
}

static size_t list_bytes(const char *const *list, uint16_t *count)
{
    size_t bytes = 0;
    *count = 0;
    for (; list != NULL && *list != NULL; list++, (*count)++)
        bytes += 1 + strlen(*list);
    return bytes;
}

static bool list_ok(const char *const *list)
{
    for (; list != NULL && *list != NULL; list++)
        if (strlen(*list) == 0 || strlen(*list) > 255 || !lim__text_ok(lim__str(*list)))
            return false;
    return true;
}

lim__join *lim__join_new(lim__sched *s, lim_pid who, lim__member_kind kind, lim_bytes identity, uint32_t capacity,
                         const char *const *types, const char *const *tags)
{
    uint16_t type_count, tag_count;
    size_t bytes = identity.len + list_bytes(types, &type_count) + list_bytes(tags, &tag_count);
    if (bytes > UINT16_MAX || identity.len > 255 || !list_ok(types) || !list_ok(tags))
        return NULL;
    lim__join *j = lim__letter_new(s, &lim__type_join, sizeof *j + bytes);
    if (j == NULL)
        return NULL;
    *j = (lim__join){ .participant = who,
                      .kind = kind,
                      .capacity = capacity,
                      .type_count = type_count,
                      .tag_count = tag_count,
                      .text_len = (uint16_t)bytes,
                      .identity_len = (uint8_t)identity.len };
    char *at = j->text;
    memcpy(at, identity.ptr, identity.len);
    at += identity.len;
    for (uint16_t i = 0; i < type_count; i++)
        at += lim__name_put(at, lim__str(types[i]));
    for (uint16_t i = 0; i < tag_count; i++)
        at += lim__name_put(at, lim__str(tags[i]));
    return j;
}
