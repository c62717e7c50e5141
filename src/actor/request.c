/* SPDX-License-Identifier: Apache-2.0
 * request.c - ask and be answered exactly once.
 *
 * A request is a monitor that is also waiting for a RESPONSE, and a timer. Its number is in the scheduler's table until
 * the first of the three is taken from the mailbox; the other two then find no number and are dropped. So a late
 * answer can never be given to the next request, and whoever waits is told at once when the callee dies.
 *
 *      lim_request: MONITOR, message(ref), timer      RESPONSE(ref) --.
 *                                                     DOWN(ref)  -----+--> first one taken: LIM_SIGNAL_RESPONSE
 *                                                     TIMEOUT(ref) ---'
 * Answers are signals: they are never refused for lack of room in the mailbox. */
#include "actor/internal.h"

static uint64_t ms_to_ns(int64_t ms)
{
    return ms > INT64_MAX / 1000000 ? UINT64_MAX : (uint64_t)ms * 1000000;
}

/* Everything a request needs, before anything is visible. */
typedef struct reserve {
    lim__place place;
    lim__letter *letter;
    lim__monitor_pair pair;
    lim__timer *timer;
} reserve;

static lim_err reserve_all(lim_process *self, lim_pid to, size_t len, bool timed, reserve *r)
{
    lim__sched *s = self->sched;
    lim_err err = lim__place_take(s->rt, s, to, &r->place);
    if (err != LIM_OK)
        return err;
    r->letter = lim__letter_make(s, len);
    if (!r->letter)
        goto fail;
    if (timed && !(r->timer = lim__timer_new(self)))
        goto fail;
    if (lim__monitor_reserve(self, to, LIM__REF_REQUEST, &r->pair) == LIM_OK)
        return LIM_OK;
fail:
    lim__place_give_back(&r->place);
    if (r->letter)
        lim__letter_drop(s, r->letter);
    if (r->timer)
        lim__block_give(s, r->timer, r->timer->letter.klass);
    return LIM_E_NOMEM;
}

lim_err lim_request(lim_process *self, lim_pid to, uint32_t tag, lim_bytes body, int64_t timeout_ms, uint64_t *ref_out)
{
    if (timeout_ms <= 0 || to.id == self->pid.id) /* who asks itself would wait for its own handler to return */
        return LIM_E_MISUSE;
    if (lim__is_away(self))
        return lim__away_request(self, to, tag, body, timeout_ms, ref_out);
    if (body.len > LIM__BODY_BYTES_MAX)
        return LIM_E_TOOBIG;
    reserve r = { 0 };
    lim_err err = reserve_all(self, to, body.len, timeout_ms != LIM_FOREVER, &r);
    if (err != LIM_OK)
        return err;
    uint64_t ref = r.pair.near->letter.ref;
    if (r.timer) {
        r.timer->letter.kind = LIM__TIMEOUT;
        r.timer->letter.ref = ref;
        lim__timer_begin(self, r.timer, ms_to_ns(timeout_ms));
    }
    r.pair.near->timer = r.timer;
    lim__monitor_commit(self, &r.pair);
    r.letter->to = to;
    r.letter->from = self->pid;
    r.letter->tag = tag;
    r.letter->ref = ref;
    if (body.len)
        memcpy(r.letter + 1, body.ptr, body.len);
    lim__place_use(self->sched, &r.place, r.letter);
    *ref_out = ref;
    return LIM_OK;
}

/* On the same scheduler we can look whether anybody still waits; elsewhere only whether the asker lives. */
static bool still_asked(lim__sched *s, lim_pid asker, uint64_t ref)
{
    if (lim__sched_of(s->rt, asker) != s)
        return lim_alive(s->rt, asker);
    lim__ref_kind kind;
    lim__monitor *m = lim__refs_find(s, ref, &kind);
    return m && kind == LIM__REF_REQUEST && m->letter.from.id == asker.id;
}

lim_err lim_respond(lim_process *self, const lim_signal *request, lim_bytes body)
{
    if (lim__is_away(self))
        return lim__away_respond(self, request, body);
    lim__sched *s = self->sched;
    if (request->ref == 0 || request->from.id == 0)
        return LIM_E_INVALID;
    if (body.len > LIM__BODY_BYTES_MAX)
        return LIM_E_TOOBIG;
    if (!still_asked(s, request->from, request->ref))
        return LIM_E_GONE;
    lim__letter *l = lim__letter_make(s, body.len);
    if (!l)
        return LIM_E_NOMEM;
    l->kind = LIM__RESPONSE;
    l->to = request->from;
    l->from = self->pid;
    l->ref = request->ref;
    l->reason = LIM_NORMAL;
    if (body.len)
        memcpy(l + 1, body.ptr, body.len);
    lim__count_message(s->rt, s, l);
    lim__route(s, l);
    return LIM_OK;
}

static void show_answer(lim__sched *s, lim_process *p, lim__letter *l)
{
    lim_signal signal = { .kind = LIM_SIGNAL_RESPONSE,
                          .from = l->from,
                          .ref = l->ref,
                          .reason = LIM_NORMAL,
                          .body = { l + 1, l->len },
                          .type = l->type };
    s->letter = l;
    lim__signal_show(p, &signal);
    if (s->letter) {
        s->letter = NULL;
        lim__letter_drop(s, l);
    }
}

static void show_failure(lim_process *p, lim_pid from, uint64_t ref, lim_reason reason, uint64_t at_ns)
{
    lim_signal signal = { .kind = LIM_SIGNAL_RESPONSE, .from = from, .ref = ref, .reason = reason, .at_ns = at_ns };
    lim__signal_show(p, &signal);
}

void lim__request_answer(lim__sched *s, lim_process *p, lim__letter *l)
{
    lim__ref_kind kind;
    lim__monitor *m = lim__refs_find(s, l->ref, &kind);
    bool waiting = m && kind == LIM__REF_REQUEST && m->letter.from.id == p->pid.id;
    lim_pid callee = waiting ? m->letter.to : l->from;
    uint64_t ref = l->ref, at_ns = l->at_ns;
    lim_reason reason = l->kind == LIM__TIMEOUT ? LIM_TIMEOUT : (lim_reason)l->reason;
    bool answered = l->kind == LIM__RESPONSE, down = l->kind == LIM__DOWN;
    if (l->kind == LIM__TIMEOUT) {
        if (waiting)
            m->timer = NULL; /* it is this letter */
        lim__timer_discard(s, (lim__timer *)l);
    } else if (down) {
        lim__block_give(s, l, l->klass);
    } else if (!waiting) {
        lim__letter_drop(s, l); /* late */
    }
    if (!waiting)
        return;
    lim__monitor_end(p, m, down);
    if (answered)
        show_answer(s, p, l);
    else
        show_failure(p, callee, ref, reason, at_ns);
}
