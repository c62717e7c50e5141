/* SPDX-License-Identifier: Apache-2.0
 * participant.c - a handler of the host's as a participant: requests in, answers out.
 *
 * The handler runs on the participant's scheduler, one request at a time; without a handler, requests wait in a box for
 * lim_take. What it says in return is in participant_say.c.
 * Which delivery is at hand is remembered while the handler runs (`now`), so that the first answer counts and a
 * handler that says nothing is seen to have said nothing. What it holds on to is remembered in held.c, if there is
 * anything to tell it later: credit for more parts, and that it need not go on. */
#include "bus/participant.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/newest.h"
#include "bus/box.h"
#include "bus/durable.h"
#include "bus/exchange.h"
#include "bus/held.h"
#include "data/outcome.h"

#include <stdlib.h>

typedef struct participant {
    lim_bus *bus;
    lim_handler handler;
    lim__member_kind kind;
    lim_pid *groups; /* those it is in: the one it was made for, and those that it was registered in later */
    uint32_t group_count;
    lim__list held; /* what it is told of later; under the lock of held.c, once `begun` */
    bool begun;
    struct lim__box *box;    /* pulled: where requests wait */
    lim__newest heard;       /* conversation -> the newest numbered message of it */
    lim_process *self;       /* while a signal is handled */
    const lim__request *now; /* the delivery at hand */
    bool answered;
} participant;

bool *lim__participant_at_hand(lim_process *process, lim_conv conv, uint64_t lease)
{
    participant *p = process != NULL ? lim__proc_state(process) : NULL;
    return p != NULL && p->now != NULL && p->now->conv.id == conv.id && p->now->lease == lease ? &p->answered : NULL;
}

/* ---- groups ---- */

static const lim__letter_type type_entered = { "entered", NULL };

static void entered(participant *p, lim_pid group)
{
    lim_pid *more = realloc(p->groups, (p->group_count + 1) * sizeof *more);
    if (more == NULL)
        return;
    p->groups = more;
    p->groups[p->group_count++] = group;
}

void lim__participant_entered(lim_bus *bus, lim_pid who, lim_pid group)
{
    lim_pid *letter = lim__letter_new(NULL, &type_entered, sizeof *letter);
    if (letter == NULL)
        return;
    *letter = group;
    (void)!lim__post_reserved(bus->rt, who, letter);
}

static void report(const participant *p, lim_process *self, uint32_t used)
{
    for (uint32_t i = 0; i < p->group_count; i++) {
        lim__report *r = lim__letter_new(lim__proc_sched(self), &lim__type_report, sizeof *r);
        if (r == NULL)
            return;
        *r = (lim__report){ lim_self(self), used };
        (void)!lim__send_reserved(self, p->groups[i], r);
    }
}

/* ---- the process ---- */

static int64_t remaining_ms(uint64_t now_ns, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX)
        return LIM_FOREVER;
    return deadline_ns > now_ns ? (int64_t)((deadline_ns - now_ns + 999999) / 1000000) : 0;
}

static void acknowledge(lim_bus *bus, lim_process *self, const lim__request *r)
{
    lim__taken *t = lim__letter_new(lim__proc_sched(self), &lim__type_taken, sizeof *t);
    if (t == NULL)
        return;
    t->lease = r->lease;
    (void)!lim__send_reserved(self, lim__alias_pid(bus, r->conv.id), t);
}

static lim_delivery delivery(const lim__request *r, lim_pid self, uint64_t now_ns)
{
    return (lim_delivery){ .payload = lim__msg_bytes(r->payload),
                           .type = lim__bytes(r->type, r->type_len),
                           .conv = { r->conv.id },
                           .lease = r->lease,
                           .from = { r->from.id },
                           .event = (lim_event)r->event,
                           .self = { self.id },
                           .remaining_ms = remaining_ms(now_ns, r->deadline_ns),
                           .attempt = r->attempt,
                           .losses = r->losses,
                           .hops = r->hops,
                           .credit = r->credit,
                           .wants_reply = !(r->flags & LIM__REQUEST_QUIET),
                           .msg = (lim_msg *)r->payload };
}

static lim__delivery_id id_of(lim_process *self, lim_pid conv, uint64_t lease)
{
    return (lim__delivery_id){ { lim_self(self).id }, { conv.id }, lease };
}

static void say(participant *p, lim_process *self, const lim__request *r, lim__answer_how how, const char *detail)
{
    (void)!lim__participant_answer(p->bus, (lim_participant){ lim_self(self).id }, (lim_conv){ r->conv.id }, r->lease,
                                   how, lim__bytes(NULL, 0), lim__str(detail));
}

/* Into the books of held.c, if it is going to be told anything. False: no memory, and it was told that it failed. */
static bool hold_on(participant *p, lim_process *self, const lim__request *r)
{
    bool stream = r->credit > 0;
    if ((r->flags & LIM__REQUEST_QUIET) || (!stream && p->handler.on_cancel == NULL))
        return true;
    if (lim__held_add(p->bus->held, &p->held, id_of(self, r->conv, r->lease), stream, r->credit) == LIM_OK)
        return true;
    say(p, self, r, LIM__ANSWER_FAILED, "the participant is out of memory");
    return false;
}

static void on_boxed(participant *p, lim_process *self, const lim_signal *signal)
{
    lim__request *kept = lim__letter_keep(self, signal);
    bool held = hold_on(p, self, kept);
    if (held && lim__box_push(p->box, kept))
        return;
    if (held && kept->lease != 0)
        say(p, self, kept, LIM__ANSWER_FAILED, "nobody takes this participant's requests, and its box is full");
    lim__letter_free(lim__proc_sched(self), kept);
}

/* An ask is not acknowledged, but its exchange shall know that it was read, should its participant die with it in hand:
 * where they live on one scheduler that costs nothing. */
static void note_read(lim_bus *bus, lim_process *self, const lim__request *r)
{
    if ((r->flags & (LIM__REQUEST_ACK | LIM__REQUEST_QUIET)) || lim__conv_kind_of(bus, r->conv) != LIM__KIND_ASK)
        return;
    lim_process *exchange = lim__local_process(lim__proc_sched(self), r->conv);
    if (exchange != NULL)
        lim__exchange_taken(exchange, r->lease);
    else
        acknowledge(bus, self, r);
}

/* A numbered one; from now on it is a message like any other. */
static bool first_time(participant *p, lim__request *r)
{
    uint64_t number = r->lease;
    r->lease = 0;
    r->flags &= (uint8_t)~LIM__REQUEST_ACK;
    return lim__newest_is(&p->heard, r->conv.id, number);
}

static void on_request(participant *p, lim_process *self, const lim_signal *signal)
{
    lim__request *r = (lim__request *)(uintptr_t)signal->body.ptr;
    if (r->flags & LIM__REQUEST_ACK)
        acknowledge(p->bus, self, r);
    if (lim__request_numbered(r) && !first_time(p, r))
        return;
    if (p->box != NULL) {
        on_boxed(p, self, signal);
        return;
    }
    lim_delivery d = delivery(r, lim_self(self), lim_now_ns(self));
    if (!hold_on(p, self, r))
        return;
    p->now = r;
    p->answered = !d.wants_reply;
    lim_done done = p->handler.on_message(p->bus, &d, p->handler.ctx);
    p->now = NULL;
    if (p->answered)
        return;
    if (done == LIM_FAIL)
        say(p, self, r, LIM__ANSWER_FAILED, "the handler failed");
    else if (done != LIM_HOLD)
        say(p, self, r, p->kind == LIM__MEMBER_WORK ? LIM__ANSWER_REPLY : LIM__ANSWER_NOTHING, NULL);
    else
        note_read(p->bus, self, r);
}

/* ---- what it is told while it has something in hand ---- */

static const char *revoke_text(lim__revoke_why why)
{
    switch (why) {
    case LIM__REVOKE_CANCELLED:
        return "cancelled";
    case LIM__REVOKE_TIMEOUT:
        return "timeout";
    case LIM__REVOKE_TAKEN:
        return "taken";
    case LIM__REVOKE_ENDED:
        return "ended";
    }
    return "";
}

static void tell_cancel(participant *p, lim_process *self, lim_pid conv, uint64_t lease, lim__revoke_why why)
{
    if (p->handler.on_cancel != NULL)
        p->handler.on_cancel(p->bus, (lim_participant){ lim_self(self).id }, (lim_conv){ conv.id }, lease,
                             revoke_text(why), p->handler.ctx);
}

/* What nobody has taken yet is not taken any more; its conversation need not wait for the participant. What somebody
 * has taken is told to stop. */
static void on_revoke(participant *p, lim_process *self, const lim__revoke *revoke)
{
    lim__request *r;
    while (p->box != NULL && (r = lim__box_withdraw(p->box, revoke->conv, revoke->lease)) != NULL) {
        if (r->lease != 0)
            say(p, self, r, LIM__ANSWER_NOTHING, NULL);
        lim__letter_free(lim__proc_sched(self), r);
    }
    if (lim__held_revoke(p->bus->held, id_of(self, revoke->conv, revoke->lease)))
        tell_cancel(p, self, revoke->conv, revoke->lease, revoke->why);
}

static void on_credit(participant *p, lim_process *self, const lim__credit *c)
{
    if (lim__held_grant(p->bus->held, id_of(self, c->conv, c->lease), c->parts) && p->handler.on_credit != NULL)
        p->handler.on_credit(p->bus, (lim_participant){ lim_self(self).id }, (lim_conv){ c->conv.id }, c->lease,
                             c->parts, p->handler.ctx);
}

/* A conversation that ended before it could say so. */
static void on_conv_gone(participant *p, lim_process *self, lim_pid conv)
{
    for (uint64_t lease; (lease = lim__held_revoke_in(p->bus->held, &p->held, (lim_conv){ conv.id })) != 0;)
        tell_cancel(p, self, conv, lease, LIM__REVOKE_ENDED);
}

static void on_message(participant *p, lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    if (t == &lim__type_request)
        on_request(p, self, signal);
    else if (t == &lim__type_revoke)
        on_revoke(p, self, signal->body.ptr);
    else if (t == &lim__type_credit)
        on_credit(p, self, signal->body.ptr);
    else if (t == &lim__type_report)
        report(p, self, ((const lim__report *)signal->body.ptr)->used);
    else if (t == &type_entered)
        entered(p, *(const lim_pid *)signal->body.ptr);
    else if (t == &lim__type_evict)
        lim_exit(self, ((const lim__evict *)signal->body.ptr)->reason);
    else
        (void)lim__participant_relay(self, signal);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    participant *p = state;
    if (!p->begun)
        lim__list_init(&p->held);
    p->begun = true;
    if (signal->kind == LIM_SIGNAL_EXIT)
        on_conv_gone(p, self, signal->from);
    else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type != NULL)
        on_message(p, self, signal);
}

static void on_end(void *state, lim_reason reason)
{
    participant *p = state;
    (void)reason;
    if (p->box != NULL)
        lim__box_close(p->bus->boxes, p->box);
    lim__newest_fini(&p->heard);
    if (p->begun)
        lim__held_remove_all(p->bus->held, &p->held);
    free(p->groups);
    if (p->handler.on_end != NULL)
        p->handler.on_end(p->handler.ctx);
}

lim_err lim__participant_spawn(lim_bus *bus, const lim_handler *handler, lim__member_kind kind, lim_pid group,
                               lim_pid *out)
{
    participant init = { .bus = bus, .handler = *handler, .kind = kind };
    lim__newest_init(&init.heard, bus->os->random(bus->os));
    if (group.id != 0)
        entered(&init, group);
    bool pulled = handler->on_message == NULL;
    if ((group.id != 0 && init.groups == NULL) || (pulled && (init.box = lim__box_new()) == NULL)) {
        free(init.groups);
        return LIM_E_NOMEM;
    }
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
    if (err != LIM_OK) {
        if (init.box != NULL)
            lim__box_unref(init.box);
        free(init.groups);
        return err;
    }
    if (init.box != NULL && (err = lim__box_enter(bus->boxes, init.box, *out)) != LIM_OK)
        lim_runtime_exit(bus->rt, *out, LIM_KILL);
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

/* As note_read, for one that was taken out of the box by a thread of the host's. */
static void note_taken(lim_bus *bus, const lim__request *r)
{
    bool ask =
        !(r->flags & (LIM__REQUEST_ACK | LIM__REQUEST_QUIET)) && lim__conv_kind_of(bus, r->conv) == LIM__KIND_ASK;
    lim__taken *t = ask ? lim__letter_new(NULL, &lim__type_taken, sizeof *t) : NULL;
    if (t == NULL)
        return;
    t->lease = r->lease;
    (void)!lim__post_reserved(bus->rt, r->conv, t);
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
    note_taken(bus, t->request);
    t->base.free = taken_letter_free;
    *out = (lim_taken){ delivery(t->request, (lim_pid){ who.id }, bus->os->now_ns(bus->os)), t };
    return LIM_OK;
}

lim_err lim_take_fd(lim_bus *bus, lim_participant who, int *out)
{
    lim__box *b = out != NULL ? lim__box_find(bus->boxes, (lim_pid){ who.id }) : NULL;
    if (b == NULL)
        return out != NULL ? LIM_E_GONE : LIM_E_MISUSE;
    int fd = lim__box_fd(b, bus->os);
    lim__box_unref(b);
    if (fd < 0)
        return LIM_E_NOMEM;
    *out = fd;
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
