/* SPDX-License-Identifier: Apache-2.0
 * work.c - the requests that registrations are handed, and results until the server has them for certain.
 *
 * A request that asks for it is acknowledged (TAKEN) by the I/O side as soon as it stands in the handler queue: the
 * server then knows that it is in this client's hands, however long the handler before it takes. Every request that the
 * server still counts ends with exactly one REPLY, also a revoked one: the REPLY is what frees its place.
 *
 * When the connection breaks, an ask is over (its asker has been told), but a task goes on: its lease is suspended, and
 * after registering again the client says HOLDING for what it still works on and sends again what was not SETTLED. So a
 * result is lost only with the client itself, or with a server that forgets everything (it welcomes the client under
 * another session), and whether it still counts is the server's decision, by its lease.
 *
 * A registration without on_message is pulled: its requests wait in reg->waiting instead of the handler queue, and are
 * HELD from when lim_client_take hands them out. What is revoked or lost before is never handed out. Messages of
 * conversations, and events in them (all with lease 0 here), have no place of the capacity and nothing to answer: they
 * are over when they were handed out. Those of durable conversations are numbered and acknowledged, and come again
 * under their number if the server cannot know that they came: reg->heard knows. They outlive a break of the
 * connection.
 *
 * An asker that takes parts gives credit for them: each part sent costs one, and CREDIT brings more. Who asks for a
 * part too many is told FULL here; the server would take it for a broken client.
 *
 * Invariants (of a request in reg->requests):
 *   W1  it is also in the map, in the chain of its conversation; it has the table's reference.
 *   W2  RESULT holds what was answered; nothing else does.
 *   W3  OURS and REVOKED belong to this connection, or were announced to it by HOLDING, or are numbered messages.
 *   W4  pulled and QUEUED: it is in reg->waiting, its lease is OURS or SUSPENDED, and nobody is in reg->takers. */
#include "client/client.h"

#include <stdlib.h>

enum { NOTE_MAX = 200 };
/* The server's count of places and ours differ by what is on the way, and by what does not go through the group: asks
 * of this participant by its number, and in conversations. It limits these, too. */
enum { LIVE_SLACK = 64 + 2 * 1024 };

static void unref(lim__request *request)
{
    LIM_ASSERT(request->refs > 0);
    if (--request->refs > 0)
        return;
    lim__msg_unref(request->item.msg);
    lim__msg_unref(request->result);
    free(request);
}

/* ---- the table ---- */

static lim__request *find(lim_client *c, uint64_t reg, uint64_t conv, uint64_t lease)
{
    lim__request *request = lim__map_get(&c->requests, conv);
    while (request && (request->lease_id != lease || request->reg->order.id != reg))
        request = request->same_conv;
    return request;
}

static lim_err table_add(lim_client *c, lim__request *request)
{
    request->same_conv = lim__map_get(&c->requests, request->conv);
    lim_err err = lim__map_put(&c->requests, request->conv, request);
    if (err != LIM_OK)
        return err;
    lim__list_push(&request->reg->requests, &request->node);
    request->refs++;
    return LIM_OK;
}

static void unchain(lim_client *c, lim__request *request)
{
    lim__request *first = lim__map_get(&c->requests, request->conv);
    if (first != request) {
        while (first->same_conv != request)
            first = first->same_conv;
        first->same_conv = request->same_conv;
    } else if (request->same_conv) {
        lim_err err = lim__map_put(&c->requests, request->conv, request->same_conv); /* replaces: needs no memory */
        LIM_ASSERT(err == LIM_OK);
    } else {
        lim__map_remove(&c->requests, request->conv);
    }
}

/* Nobody asks for it any more. It may be gone when this returns. */
static void over(lim_client *c, lim__request *request)
{
    LIM_ASSERT(request->state != LIM__REQUEST_OVER);
    request->state = LIM__REQUEST_OVER;
    unchain(c, request);
    lim__list_remove(&request->node);
    unref(request);
}

/* ---- answering ---- */

static lim_bytes text_of(uint8_t how, lim_bytes content)
{
    return how == LIM__REPLY_FAILED ? content : lim__bytes("", 0);
}

/* What it counts as until it is answered. */
static uint32_t *counter(const lim__request *request)
{
    return request->lease_id == 0 ? &request->reg->messages : &request->reg->live;
}

/* `content`: the payload of a reply, the text of a failure. */
static lim_err put_reply(lim_client *c, lim__request *request, uint8_t how, lim_bytes content)
{
    lim__reg *reg = request->reg;
    if (c->link != LIM__LINK_UP || reg->order.state != LIM__ORDER_LIVE)
        return LIM_E_GONE;
    lim_err err = LIM_OK;
    if (request->lease_id != 0) /* else nothing was asked */
        err = LIM__SAY(c, reply, .stream = reg->order.stream, .conversation = request->conv, .lease = request->lease_id,
                       .how = how, .detail = text_of(how, content),
                       .payload = how == LIM__REPLY_REPLY ? content : lim__bytes("", 0));
    uint32_t *count = counter(request);
    if (err == LIM_OK && request->session == c->session_count && *count > 0)
        --*count;
    return err;
}

static lim_err keep_result(lim_client *c, lim__request *request, uint8_t how, lim_bytes content, bool send)
{
    lim__msg *result = lim__msg_new(content);
    if (!result)
        return LIM_E_NOMEM;
    lim_err err = send ? put_reply(c, request, how, content) : LIM_OK;
    if (err != LIM_OK) {
        lim__msg_unref(result);
        return err;
    }
    request->result = result;
    request->how = how;
    request->state = LIM__REQUEST_RESULT;
    return LIM_OK;
}

static lim_err answer(lim_client *c, lim__request *request, uint8_t how, lim_bytes content)
{
    lim_err err;
    if (request->state == LIM__REQUEST_RESULT || request->state == LIM__REQUEST_OVER)
        return LIM_E_GONE;
    switch (request->lease) {
    case LIM__LEASE_OURS:
        if (request->flags & LIM__FLAG_TAKEN)
            return keep_result(c, request, how, content, true);
        err = put_reply(c, request, how, content);
        if (err == LIM_OK)
            over(c, request);
        return err;
    case LIM__LEASE_SUSPENDED:
        return keep_result(c, request, how, content, false);
    case LIM__LEASE_REVOKED:
        err = put_reply(c, request, how, content);
        if (err != LIM_OK)
            return err;
        over(c, request);
        return LIM_E_GONE;
    case LIM__LEASE_GONE:
        break;
    }
    over(c, request);
    return LIM_E_GONE;
}

/* ---- results that are part of a step ---- */

lim_err lim__client_request_in_hand(lim_client *c, uint64_t self, uint64_t conv, uint64_t lease, uint32_t *stream)
{
    lim__request *request = lease == 0 ? NULL : find(c, self, conv, lease);
    if (!request || request->state == LIM__REQUEST_RESULT || request->state == LIM__REQUEST_OVER ||
        request->lease == LIM__LEASE_REVOKED || request->lease == LIM__LEASE_GONE)
        return LIM_E_GONE;
    if (request->lease != LIM__LEASE_OURS || request->reg->order.state != LIM__ORDER_LIVE)
        return LIM_E_CLOSED;
    *stream = request->reg->order.stream;
    return LIM_OK;
}

void lim__client_request_let_go(lim_client *c, uint64_t self, uint64_t conv, uint64_t lease)
{
    lim__request *request = find(c, self, conv, lease);
    if (!request || request->state == LIM__REQUEST_RESULT || request->state == LIM__REQUEST_OVER)
        return;
    uint32_t *count = counter(request);
    if (request->session == c->session_count && *count > 0)
        --*count;
    over(c, request);
}

/* What a handler that said LIM_DONE and nothing else means. */
static uint8_t silence(const lim__request *request)
{
    return request->reg->serve_kind == LIM__SERVE_QUEUE ? LIM__REPLY_REPLY : LIM__REPLY_NOTHING;
}

/* Answers without content. If that cannot be, because the link is going down, there is nobody to hear of it. */
static void answer_or_drop(lim_client *c, lim__request *request, uint8_t how)
{
    lim_err err = answer(c, request, how, lim__bytes("", 0));
    if (err != LIM_OK && request->state != LIM__REQUEST_OVER)
        over(c, request);
}

static lim_err answer_to(lim_client *c, uint64_t self, uint64_t conv, uint64_t lease, uint8_t how, lim_bytes content)
{
    lim__client_lock(c);
    lim__request *request = lease == 0 ? NULL : find(c, self, conv, lease); /* 0: nothing was asked */
    lim_err err = request ? answer(c, request, how, content) : LIM_E_GONE;
    lim__client_unlock_soon(c);
    return err;
}

lim_err lim_client_reply_to(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease, lim_bytes payload)
{
    return answer_to(c, self.id, conv.id, lease, LIM__REPLY_REPLY, payload);
}

lim_err lim_client_fail_to(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease, const char *why)
{
    return answer_to(c, self.id, conv.id, lease, LIM__REPLY_FAILED, lim__str(why));
}

lim_err lim_client_reply(lim_client *c, const lim_delivery *d, lim_bytes payload)
{
    return lim_client_reply_to(c, d->self, d->conv, d->lease, payload);
}

lim_err lim_client_fail(lim_client *c, const lim_delivery *d, const char *why)
{
    return lim_client_fail_to(c, d->self, d->conv, d->lease, why);
}

/* ---- parts and progress ---- */

static lim_err part(lim_client *c, lim__request *request, lim_bytes payload)
{
    bool over = request->state == LIM__REQUEST_RESULT || request->state == LIM__REQUEST_OVER;
    if (over || request->lease != LIM__LEASE_OURS || c->link != LIM__LINK_UP)
        return LIM_E_GONE;
    if (!request->parts)
        return LIM_E_MISUSE;
    if (request->credit == 0)
        return LIM_E_FULL;
    lim_err err = LIM__SAY(c, part, .stream = request->reg->order.stream, .conversation = request->conv,
                           .lease = request->lease_id, .payload = payload);
    request->credit -= err == LIM_OK;
    return err;
}

lim_err lim_client_part_to(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease, lim_bytes payload)
{
    lim__client_lock(c);
    lim__request *request = find(c, self.id, conv.id, lease);
    lim_err err = request ? part(c, request, payload) : LIM_E_GONE;
    lim__client_unlock_now(c);
    return err;
}

lim_err lim_client_part(lim_client *c, const lim_delivery *d, lim_bytes payload)
{
    return lim_client_part_to(c, d->self, d->conv, d->lease, payload);
}

static lim_err progress(lim_client *c, lim__request *request, lim_bytes note)
{
    bool over = request->state == LIM__REQUEST_RESULT || request->state == LIM__REQUEST_OVER;
    if (over || request->lease == LIM__LEASE_REVOKED || request->lease == LIM__LEASE_GONE)
        return LIM_E_GONE;
    if (request->lease == LIM__LEASE_SUSPENDED || c->link != LIM__LINK_UP)
        return LIM_E_UNREACHABLE;
    return LIM__SAY(c, progress, .stream = request->reg->order.stream, .conversation = request->conv,
                    .lease = request->lease_id, .note = note);
}

lim_err lim_client_progress(lim_client *c, lim_participant self, lim_conv conv, uint64_t lease, const char *note)
{
    lim_bytes text = lim__str(note);
    if (text.len > NOTE_MAX)
        return LIM_E_TOOBIG;
    lim__client_lock(c);
    lim__request *request = find(c, self.id, conv.id, lease);
    lim_err err = request ? progress(c, request, text) : LIM_E_GONE;
    lim__client_unlock_now(c);
    return err;
}

/* ---- running the handler ---- */

static lim_delivery delivery_of(lim_client *c, lim__request *request, lim_bytes payload)
{
    uint64_t now = c->os->now_ns(c->os), deadline = request->deadline_ns;
    int64_t left_ms = deadline > now ? (int64_t)((deadline - now) / 1000000) : 0;
    return (lim_delivery){ .payload = payload,
                           .type = lim__bytes(request->type, request->type_len),
                           .conv = { request->conv },
                           .lease = request->event ? request->about : request->lease_id,
                           .from = { request->from },
                           .event = (lim_event)request->event,
                           .self = { request->reg->order.id },
                           .remaining_ms = deadline == UINT64_MAX ? LIM_FOREVER : left_ms,
                           .attempt = request->attempt,
                           .losses = request->losses,
                           .hops = request->hops,
                           .credit = request->credit,
                           .wants_reply = !(request->flags & LIM__FLAG_NO_REPLY),
                           .msg = (lim_msg *)(void *)request->item.msg };
}

/* Takes over the queue's reference. */
static void run(lim_client *c, lim__request *request, lim_bytes payload)
{
    lim_client_handler handler = request->reg->order.handler;
    lim_delivery d = delivery_of(c, request, payload);
    request->state = LIM__REQUEST_RUNNING;
    lim__client_unlock(c);
    lim_done result = handler.on_message(c, &d, handler.ctx);
    lim__client_lock(c);
    lim__msg_unref(request->item.msg);
    request->item.msg = NULL;
    bool holds = result == LIM_HOLD && request->lease != LIM__LEASE_GONE && request->event == 0;
    if (request->state == LIM__REQUEST_RUNNING && holds)
        request->state = LIM__REQUEST_HELD;
    else if (request->state == LIM__REQUEST_RUNNING)
        answer_or_drop(c, request, result == LIM_FAIL ? LIM__REPLY_FAILED : silence(request));
    unref(request);
}

/* ---- pulled ---- */

typedef struct taken_msg { /* what a lim_taken of a client owns */
    lim__taken_owned base;
    lim__msg *msg;
    char type[];
} taken_msg;

static void taken_msg_free(lim__taken_owned *owned)
{
    taken_msg *t = (taken_msg *)owned;
    lim__msg_unref(t->msg);
    free(t);
}

/* Hands out the first that waits. */
static lim_err take_first(lim_client *c, lim__reg *reg, lim_taken *out)
{
    lim__request *request = LIM_CONTAINER(reg->waiting.next, lim__request, item.node);
    taken_msg *t = malloc(sizeof *t + request->type_len);
    if (!t)
        return LIM_E_NOMEM;
    t->base.free = taken_msg_free;
    t->msg = request->item.msg;
    memcpy(t->type, request->type, request->type_len);
    *out = (lim_taken){ delivery_of(c, request, lim__msg_bytes(t->msg)), t };
    out->delivery.type.ptr = t->type;
    request->item.msg = NULL;
    lim__list_remove(&request->item.node);
    request->state = LIM__REQUEST_HELD;
    if (!out->delivery.wants_reply)
        answer_or_drop(c, request, LIM__REPLY_NOTHING);
    unref(request);
    return LIM_OK;
}

/* To who waits for it, or it waits. */
static void offer(lim_client *c, lim__request *request)
{
    lim__reg *reg = request->reg;
    lim__list *first = lim__list_pop(&reg->takers);
    lim__list_push(&reg->waiting, &request->item.node);
    if (!first)
        return;
    lim__waiter *w = LIM_CONTAINER(first, lim__waiter, node);
    lim__client_waiter_done_locked(w, take_first(c, reg, &w->taken));
}

static lim_err take(lim_client *c, lim__reg *reg, lim_taken *out)
{
    if (!reg)
        return LIM_E_GONE;
    if (!reg->pulled)
        return LIM_E_MISUSE;
    return lim__list_empty(&reg->waiting) ? LIM_E_TIMEOUT : take_first(c, reg, out);
}

static lim_err take_or_wait(lim_client *c, lim_participant registration, uint64_t deadline_ns, lim__waiter *w)
{
    lim__reg *reg = lim__client_reg_find(c, registration);
    lim_err err = take(c, reg, &w->taken);
    if (err != LIM_E_TIMEOUT)
        return err;
    lim__list_push(&reg->takers, &w->node);
    if (lim__client_block_wait(c, w, deadline_ns))
        return w->err;
    lim__list_remove(&w->node);
    return LIM_E_TIMEOUT;
}

lim_err lim_client_take(lim_client *c, lim_participant registration, int64_t timeout_ms, lim_taken *out)
{
    lim__waiter w;
    if (!c || !out)
        return LIM_E_INVALID;
    if (timeout_ms < 0 || (c->own_loop && timeout_ms > 0))
        return LIM_E_MISUSE;
    if (c->own_loop)
        return take(c, lim__client_reg_find(c, registration), out);
    lim_err err = lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    err = take_or_wait(c, registration, lim__client_deadline_ns(c, timeout_ms), &w);
    lim__client_block_leave(c, &w);
    if (err == LIM_OK)
        *out = w.taken;
    return err;
}

/* It was revoked, or its registration or connection ended, before its handler began. */
static void skip(lim_client *c, lim__request *request)
{
    LIM_ASSERT(request->state == LIM__REQUEST_QUEUED);
    answer_or_drop(c, request, LIM__REPLY_NOTHING);
    unref(request);
}

static bool is_waiting(const lim__request *request)
{
    return request->reg->pulled && request->state == LIM__REQUEST_QUEUED;
}

static void skip_waiting(lim_client *c, lim__request *request)
{
    lim__list_remove(&request->item.node);
    skip(c, request);
}

void lim__client_request_run(lim_client *c, lim__request *request)
{
    LIM_ASSERT(request->refs > 0);
    if (request->lease == LIM__LEASE_OURS || request->lease == LIM__LEASE_SUSPENDED)
        run(c, request, lim__msg_bytes(request->item.msg));
    else
        skip(c, request);
}

/* ---- what the server says ---- */

static lim__request *request_new(lim_client *c, lim__reg *reg, const lim__f_request *f)
{
    lim__request *r = calloc(1, sizeof *r + f->type.len);
    if (!r)
        return NULL;
    r->item = (lim__item){ .kind = LIM__ITEM_REQUEST, .order = &reg->order };
    r->reg = reg;
    r->conv = f->conversation;
    r->lease_id = f->event ? 0 : f->lease; /* it must not be taken for the request that it may name */
    r->about = f->lease;
    r->from = f->from;
    r->event = f->event;
    r->parts = f->credit > 0;
    r->credit = f->credit;
    r->hops = f->hops;
    r->session = c->session_count;
    r->state = LIM__REQUEST_QUEUED;
    r->lease = LIM__LEASE_OURS;
    r->refs = 1;
    r->flags = f->flags;
    r->attempt = f->attempt;
    r->losses = f->losses;
    r->type_len = (uint8_t)f->type.len;
    if (f->type.len > 0)
        memcpy(r->type, f->type.ptr, f->type.len);
    bool forever = f->remaining_ms == LIM__NO_TIMEOUT;
    r->deadline_ns = forever ? UINT64_MAX : c->os->now_ns(c->os) + (uint64_t)f->remaining_ms * 1000000u;
    lim__list_init(&r->item.node);
    lim__list_init(&r->node);
    bool copied = !c->own_loop || reg->pulled || f->headers.len > 0; /* lim_cause_of looks at the headers */
    if (copied)
        r->item.msg = lim__msg_new_with(f->payload, f->headers);
    if ((copied && !r->item.msg) || table_add(c, r) != LIM_OK) {
        unref(r);
        return NULL;
    }
    return r;
}

static bool may_hand_over(lim_client *c, const lim__reg *reg, const lim__f_request *f)
{
    bool message = f->lease == 0 || f->event != 0;
    if (message && reg->messages >= LIM__MESSAGES_MAX)
        lim__wire_fault(&c->wire, LIM_E_FULL, "more than %d messages of conversations are not handled yet",
                        LIM__MESSAGES_MAX);
    else if (!message && reg->capacity != LIM_UNLIMITED && reg->live >= reg->capacity * (uint64_t)2 + LIVE_SLACK)
        lim__wire_fault(&c->wire, LIM_E_PROTOCOL, "the server handed over more than a capacity of %u", reg->capacity);
    else
        return true;
    return false;
}

/* Of a message of a durable conversation, which has no lease then; 0: it is something else. */
static uint64_t number_of(lim__f_request *f)
{
    const uint8_t both = LIM__FLAG_TAKEN | LIM__FLAG_NO_REPLY;
    if ((f->flags & both) != both)
        return 0;
    uint64_t number = f->lease;
    f->lease = 0;
    f->flags &= (uint8_t)~LIM__FLAG_TAKEN;
    return number;
}

static lim_err say_taken(lim_client *c, const lim__reg *reg, uint64_t conv, uint64_t lease)
{
    return LIM__SAY(c, taken, .stream = reg->order.stream, .conversation = conv, .lease = lease);
}

static lim_err taken_in(lim_client *c, lim__request *request, uint64_t number)
{
    lim_err err = say_taken(c, request->reg, request->conv, number);
    request->numbered = err == LIM_OK;
    if (err == LIM_OK)
        (void)lim__newest_is(&request->reg->heard, request->conv, number);
    return err;
}

static bool on_request(lim_client *c, lim__reg *reg, const lim__frame *frame)
{
    lim__f_request f;
    if (!lim__get_request(frame, &f) || reg->order.state != LIM__ORDER_LIVE)
        return false;
    uint64_t number = number_of(&f);
    if (number != 0 && lim__newest_has(&reg->heard, f.conversation, number)) {
        (void)!say_taken(c, reg, f.conversation, number); /* then the break tells the server, and it comes again */
        return true;
    }
    if (!may_hand_over(c, reg, &f))
        return true;
    lim__request *request = request_new(c, reg, &f);
    lim_err err = request ? LIM_OK : LIM_E_NOMEM;
    if (request && number != 0)
        err = taken_in(c, request, number);
    else if (request && (f.flags & LIM__FLAG_TAKEN) && f.event == 0)
        err = say_taken(c, reg, f.conversation, f.lease);
    if (err != LIM_OK) {
        if (request) {
            over(c, request);
            unref(request);
        }
        lim__wire_fault(&c->wire, err, "no memory for a request");
        return true;
    }
    ++*counter(request);
    if (reg->pulled)
        offer(c, request);
    else if (c->own_loop)
        run(c, request, f.payload);
    else
        lim__client_queue_push(c, &request->item);
    return true;
}

static void tell_revoked(lim_client *c, lim__reg *reg, uint64_t conv, uint64_t lease, const char *why)
{
    void (*on_revoked)(void *, lim_conv, uint64_t, const char *) = reg->on_revoked;
    void *ctx = reg->order.handler.ctx;
    if (!on_revoked)
        return;
    lim__client_unlock(c);
    on_revoked(ctx, (lim_conv){ conv }, lease, why);
    lim__client_lock(c);
}

static const char *revoked_text(uint8_t why)
{
    static const char *const texts[] = { "", "cancelled", "timed out", "taken by another", "ended" };
    return why < LIM_COUNT(texts) ? texts[why] : "revoked";
}

static bool on_revoked(lim_client *c, lim__reg *reg, const lim__frame *frame)
{
    lim__f_revoked f;
    if (!lim__get_revoked(frame, &f))
        return false;
    if (f.lease == 0) { /* the conversation, not a request: what was said in it before is still handled */
        tell_revoked(c, reg, f.conversation, 0, revoked_text(f.why));
        return true;
    }
    lim__request *request = find(c, reg->order.id, f.conversation, f.lease);
    if (!request)
        return true; /* answered meanwhile */
    bool result = request->state == LIM__REQUEST_RESULT;
    if (!result)
        request->lease = LIM__LEASE_REVOKED;
    if (result)
        over(c, request); /* sent already; it will be refused */
    else if (is_waiting(request))
        skip_waiting(c, request);
    tell_revoked(c, reg, f.conversation, f.lease, revoked_text(f.why));
    return true;
}

static void tell_credit(lim_client *c, const lim__reg *reg, const lim__f_credit *f)
{
    void (*on_credit)(void *, lim_conv, uint64_t, uint32_t) = reg->on_credit;
    void *ctx = reg->order.handler.ctx;
    if (!on_credit)
        return;
    lim__client_unlock(c);
    on_credit(ctx, (lim_conv){ f->conversation }, f->lease, f->parts);
    lim__client_lock(c);
}

static bool on_credit(lim_client *c, lim__reg *reg, const lim__frame *frame)
{
    lim__f_credit f;
    if (!lim__get_credit(frame, &f))
        return false;
    lim__request *request = find(c, reg->order.id, f.conversation, f.lease);
    if (!request || !request->parts || request->state == LIM__REQUEST_RESULT)
        return true; /* answered meanwhile */
    if (f.parts > UINT32_MAX - request->credit)
        return false;
    request->credit += f.parts;
    tell_credit(c, reg, &f);
    return true;
}

static bool on_settled(lim_client *c, lim__reg *reg, const lim__frame *frame)
{
    lim__f_settled f;
    if (!lim__get_settled(frame, &f))
        return false;
    lim__request *request = find(c, reg->order.id, f.conversation, f.lease);
    if (!request || request->state != LIM__REQUEST_RESULT)
        return true;
    over(c, request);
    if (!f.accepted)
        tell_revoked(c, reg, f.conversation, f.lease, "the result was refused");
    return true;
}

/* The new registration takes up what the old one left: W3. */
static lim_err take_up(lim_client *c, lim__reg *reg, lim__request *request)
{
    request->lease = LIM__LEASE_OURS;
    if (request->state == LIM__REQUEST_RESULT)
        return put_reply(c, request, request->how, lim__msg_bytes(request->result));
    return LIM__SAY(c, holding, .stream = reg->order.stream, .conversation = request->conv, .lease = request->lease_id);
}

static bool on_served(lim_client *c, lim__reg *reg, const lim__frame *frame)
{
    lim__f_served f;
    if (reg->order.state != LIM__ORDER_ASKED || !lim__get_served(frame, &f))
        return false;
    if (f.identity.len > 0) {
        memcpy(reg->identity, f.identity.ptr, f.identity.len);
        reg->identity[f.identity.len] = '\0';
    }
    reg->participant = f.participant;
    lim__client_order_ready(c, &reg->order);
    lim_err err = LIM_OK;
    if (reg->used > 0)
        err = LIM__SAY(c, report, .stream = reg->order.stream, .used = reg->used);
    LIM__LIST_EACH(node, &reg->requests) {
        lim__request *request = LIM_CONTAINER(node, lim__request, node);
        if (request->lease == LIM__LEASE_SUSPENDED && err == LIM_OK)
            err = take_up(c, reg, request);
    }
    if (err != LIM_OK)
        lim__wire_fault(&c->wire, err, "what is in hand cannot be told");
    return true;
}

static bool on_left(lim_client *c, lim__reg *reg, const lim__frame *frame)
{
    lim__f_left f;
    if (!lim__get_left(frame, &f))
        return false;
    lim__client_order_end(c, &reg->order, lim__client_code_err(f.code), f.detail.ptr, f.detail.len);
    return true;
}

bool lim__client_reg_frame(lim_client *c, const lim__frame *frame)
{
    lim__reg *reg = lim__map_get(&c->streams, frame->stream);
    if (!reg)
        return true; /* on its way when it ended here */
    if (reg->order.kind != LIM__REG)
        return false;
    switch (frame->type) {
    case LIM__SERVED:
        return on_served(c, reg, frame);
    case LIM__LEFT:
        return on_left(c, reg, frame);
    case LIM__REQUEST:
        return on_request(c, reg, frame);
    case LIM__REVOKED:
        return on_revoked(c, reg, frame);
    case LIM__CREDIT:
        return on_credit(c, reg, frame);
    default:
        return on_settled(c, reg, frame);
    }
}

/* ---- breaks and ends ---- */

/* Nobody wants to hear of it any more. What a handler has in hand, or is about to, it ends itself. */
static void lose(lim_client *c, lim__request *request)
{
    request->lease = LIM__LEASE_GONE;
    if (request->state == LIM__REQUEST_HELD || request->state == LIM__REQUEST_RESULT)
        over(c, request);
    else if (is_waiting(request))
        skip_waiting(c, request);
}

void lim__client_reg_break(lim_client *c, lim__reg *reg)
{
    reg->live = reg->messages = 0;
    reg->participant = 0;
    LIM__LIST_EACH_SAFE(node, after, &reg->requests) {
        lim__request *request = LIM_CONTAINER(node, lim__request, node);
        if (request->numbered)
            continue;
        bool ours = request->lease == LIM__LEASE_OURS || request->lease == LIM__LEASE_SUSPENDED;
        if (ours && (request->flags & LIM__FLAG_TAKEN))
            request->lease = LIM__LEASE_SUSPENDED;
        else
            lose(c, request);
    }
}

static lim__request *find_suspended(lim_client *c)
{
    LIM__LIST_EACH(at, &c->orders) {
        lim__order *order = LIM_CONTAINER(at, lim__order, node);
        if (order->kind != LIM__REG || order->state == LIM__ORDER_ENDED)
            continue;
        LIM__LIST_EACH(node, &((lim__reg *)order)->requests) {
            lim__request *request = LIM_CONTAINER(node, lim__request, node);
            if (request->lease == LIM__LEASE_SUSPENDED)
                return request;
        }
    }
    return NULL;
}

/* A server that was started anew: what it handed out before nobody waits for, and its numbers may mean others now. */
void lim__client_regs_forgotten(lim_client *c)
{
    for (lim__request *request; (request = find_suspended(c)) != NULL;) {
        lim__reg *reg = request->reg;
        uint64_t conv = request->conv, lease = request->lease_id;
        lose(c, request);
        tell_revoked(c, reg, conv, lease, "forgotten by the server");
    }
    LIM__LIST_EACH(at, &c->orders) {
        lim__order *order = LIM_CONTAINER(at, lim__order, node);
        if (order->kind == LIM__REG)
            lim__newest_clear(&((lim__reg *)order)->heard);
    }
}

void lim__client_reg_over(lim_client *c, lim__reg *reg)
{
    LIM__LIST_EACH_SAFE(node, after, &reg->requests)
        lose(c, LIM_CONTAINER(node, lim__request, node));
    for (lim__list *node; (node = lim__list_pop(&reg->takers)) != NULL;)
        lim__client_waiter_done_locked(LIM_CONTAINER(node, lim__waiter, node), LIM_E_GONE);
}
