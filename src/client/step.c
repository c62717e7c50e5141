/* SPDX-License-Identifier: Apache-2.0
 * step.c - steps: several frames in one, answered by one STEPPED.
 *
 * What a step is of is written down when it is committed, with the streams as they are then: acknowledgements and
 * results are of a connection. Until the server has answered nothing has changed here: the messages and the request
 * stay in hand. If the connection breaks first nobody knows; the messages come again, if they were not acknowledged. */
#include "client/client.h"
#include "data/options.h"

#include <stdlib.h>

typedef struct step_ack {
    lim_sub sub;
    uint64_t seq;
} step_ack;

struct lim_client_step {
    lim_client *c;
    lim__buf publishes; /* whole frames */
    step_ack *acks;
    size_t ack_count, ack_cap;
    bool replies;
    uint64_t self, conv, lease; /* of the reply, */
    lim__buf reply;             /* and its payload */
    lim_on_done *on_done;
    void *ctx;
};

/* ---- collecting ---- */

lim_err lim_client_step_new(lim_client *c, lim_client_step **out)
{
    if (!c || !out)
        return LIM_E_INVALID;
    lim_client_step *s = calloc(1, sizeof *s);
    if (!s)
        return LIM_E_NOMEM;
    s->c = c;
    *out = s;
    return LIM_OK;
}

void lim_client_step_free(lim_client_step *s)
{
    if (!s)
        return;
    lim__buf_fini(&s->publishes);
    lim__buf_fini(&s->reply);
    free(s->acks);
    free(s);
}

lim_err lim_client_step_publish(lim_client_step *s, const char *channel, lim_bytes payload,
                                const lim_publish_opts *opts)
{
    if (!s || !channel || (opts && opts->size < sizeof *opts))
        return LIM_E_INVALID;
    if (opts && (opts->on_receipt || opts->delay_ms != 0 || opts->at_wall_us != 0 || opts->mandatory))
        return LIM_E_MISUSE;
    lim__buf options = { 0 };
    lim_err err = opts ? lim__options_publish(&options, opts, 0, NULL) : LIM_OK;
    lim__f_publish f = { .channel = lim__str(channel), .options = lim__buf_bytes(&options), .payload = payload };
    if (err == LIM_OK)
        err = lim__put_publish(&s->publishes, &f);
    lim__buf_fini(&options);
    return err;
}

lim_err lim_client_step_ack(lim_client_step *s, lim_sub sub, uint64_t seq)
{
    if (!s || seq == 0)
        return LIM_E_INVALID;
    if (s->ack_count == s->ack_cap) {
        size_t cap = s->ack_cap ? s->ack_cap * 2 : 4;
        step_ack *acks = realloc(s->acks, cap * sizeof *acks);
        if (!acks)
            return LIM_E_NOMEM;
        s->acks = acks;
        s->ack_cap = cap;
    }
    s->acks[s->ack_count++] = (step_ack){ sub, seq };
    return LIM_OK;
}

lim_err lim_client_step_reply(lim_client_step *s, const lim_delivery *d, lim_bytes payload)
{
    if (!s || !d || d->lease == 0)
        return LIM_E_INVALID;
    if (s->replies)
        return LIM_E_FULL;
    lim__buf_add(&s->reply, payload.ptr, payload.len);
    if (s->reply.failed)
        return LIM_E_NOMEM;
    s->replies = true;
    s->self = d->self.id;
    s->conv = d->conv.id;
    s->lease = d->lease;
    return LIM_OK;
}

/* ---- committing ---- locked */

static lim_err put_acks(lim_client_step *s, lim__buf *frames)
{
    lim_err err = LIM_OK;
    for (size_t i = 0; i < s->ack_count && err == LIM_OK; i++) {
        uint32_t stream;
        err = lim__client_sub_in_hand(s->c, s->acks[i].sub, s->acks[i].seq, &stream);
        if (err == LIM_OK)
            err = lim__put_confirm(frames, &(lim__f_confirm){ .stream = stream, .how = 1, .seq = s->acks[i].seq });
    }
    return err;
}

static lim_err put_reply(lim_client_step *s, lim__buf *frames)
{
    uint32_t stream;
    lim_err err = lim__client_request_in_hand(s->c, s->self, s->conv, s->lease, &stream);
    if (err != LIM_OK)
        return err;
    return lim__put_reply(frames, &(lim__f_reply){ .stream = stream,
                                                   .conversation = s->conv,
                                                   .lease = s->lease,
                                                   .how = LIM__REPLY_REPLY,
                                                   .payload = lim__buf_bytes(&s->reply) });
}

static lim_err put_frames(lim_client_step *s, lim__buf *frames)
{
    lim_bytes publishes = lim__buf_bytes(&s->publishes);
    lim__buf_add(frames, publishes.ptr, publishes.len);
    lim_err err = put_acks(s, frames);
    if (err == LIM_OK && s->replies)
        err = put_reply(s, frames);
    if (err == LIM_OK && frames->failed)
        err = LIM_E_NOMEM;
    return err == LIM_OK && lim__buf_len(frames) == 0 ? LIM_E_INVALID : err;
}

/* What was in hand is not any more. Without the mutex. */
static void on_stepped(void *ctx, lim_err err, const char *detail)
{
    lim_client_step *s = ctx;
    lim_client *c = s->c;
    if (err == LIM_OK) {
        lim__client_lock(c);
        for (size_t i = 0; i < s->ack_count; i++)
            lim__client_sub_let_go(c, s->acks[i].sub, s->acks[i].seq);
        if (s->replies)
            lim__client_request_let_go(c, s->self, s->conv, s->lease);
        lim__client_unlock(c);
    }
    if (s->on_done)
        s->on_done(s->ctx, err, detail);
    lim_client_step_free(s);
}

static lim_err commit_locked(lim_client_step *s)
{
    lim_client *c = s->c;
    lim__buf frames = { 0 };
    lim_err err = c->link == LIM__LINK_UP ? lim__link_may_put(c) : LIM_E_CLOSED;
    if (err == LIM_OK)
        err = put_frames(s, &frames);
    lim__call *call = err == LIM_OK ? lim__client_call_new(c, LIM__CALL_SIGNAL, NULL, s) : NULL;
    if (err == LIM_OK && !call)
        err = LIM_E_NOMEM;
    if (err == LIM_OK) {
        call->on_done = on_stepped;
        err = LIM__SAY(c, step, .corr = (uint32_t)call->corr, .frames = lim__buf_bytes(&frames));
        if (err != LIM_OK)
            lim__client_call_drop(c, call);
    }
    lim__buf_fini(&frames);
    return err;
}

lim_err lim_client_step_commit(lim_client_step *s, lim_on_done *on_done, void *ctx)
{
    if (!s)
        return LIM_E_INVALID;
    lim_client *c = s->c;
    s->on_done = on_done;
    s->ctx = ctx;
    lim__client_lock(c);
    lim_err err = commit_locked(s);
    lim__client_unlock_now(c);
    if (err != LIM_OK)
        lim_client_step_free(s);
    return err;
}

lim_err lim_client_step_commit_wait(lim_client_step *s)
{
    lim__waiter w;
    if (!s)
        return LIM_E_INVALID;
    lim_client *c = s->c;
    lim_err err = lim__client_block_enter(c, &w);
    if (err != LIM_OK) {
        lim_client_step_free(s);
        return err;
    }
    lim__client_block_room(c);
    s->on_done = lim__client_waiter_on_done;
    s->ctx = &w;
    err = commit_locked(s);
    if (err == LIM_OK) {
        lim__client_block_wait(c, &w, UINT64_MAX);
        err = w.err;
    } else {
        lim_client_step_free(s);
    }
    lim__client_block_leave(c, &w);
    return err;
}

bool lim__client_stepped(lim_client *c, const lim__frame *frame)
{
    lim__f_stepped f;
    if (!lim__get_stepped(frame, &f))
        return false;
    return lim__client_answered(c, f.corr, f.code, f.detail);
}
