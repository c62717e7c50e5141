/* SPDX-License-Identifier: Apache-2.0
 * exchange_reply.c - a worker's result that is stored in one step with other things: publishes, acknowledgements.
 *
 *   lim__exchange_step_reply --step--> exchange: is it this participant's lease? --no--> refused(GONE)
 *                                        | its end's rows into the batch, submit
 *                                        v
 *                                      PAUSE_STEP --stored: COMMITTED--> as if it had been answered now, and is stored
 *                                                 `-- anything else ---> as if nothing had come
 *
 * The rows are made from the answer before anything has changed, because a step may fail for reasons that have nothing
 * to do with the task. Whoever made the step hears of it on the store's thread; the exchange by a letter behind that.
 */
#include "base/base.h"
#include "bus/exchange_inside.h"
#include "bus/participant.h"
#include <stdlib.h>

typedef struct step {
    lim__answer *answer;
    lim__batch *batch; /* NULL: submitted */
    lim__step_reply r; /* without the payload */
} step;
static void refuse(step *s, lim_err err)
{
    lim__batch *batch = s->batch;
    s->batch = NULL;
    s->r.refused(s->r.ctx, batch, err);
}

static void step_drop(void *body)
{
    step *s = body;
    if (s->batch != NULL) /* it never came to be heard */
        refuse(s, LIM_E_GONE);
    lim__letter_free(lim__sched_current(), s->answer);
}
static const lim__letter_type type_step = { "step", step_drop };

lim_err lim__exchange_step_reply(lim_bus *bus, lim__batch *batch, const lim__step_reply *r)
{
    lim_pid task = lim__alias_pid(bus, r->task);
    if (r->payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    if (lim__conv_kind_of(bus, task) == 0 || r->lease == 0)
        return LIM_E_GONE;
    lim__msg *msg = lim__msg_new(r->payload);
    lim__answer *a = msg == NULL ? NULL
                                 : lim__answer_new(NULL, (lim_pid){ r->from }, r->lease, LIM__ANSWER_REPLY, msg,
                                                   lim__bytes(NULL, 0));
    step *s = a != NULL ? lim__letter_new(NULL, &type_step, sizeof *s) : NULL;
    if (s == NULL) {
        lim__letter_free(NULL, a);
        return LIM_E_NOMEM;
    }
    *s = (step){ .answer = a, .batch = batch, .r = *r };
    s->r.payload = lim__bytes(NULL, 0);
    (void)!lim__post_reserved(bus->rt, task, s); /* gone meanwhile: its drop refuses the step */
    return LIM_OK;
}

/* ---- in the task's process ---- */

typedef struct told { /* whom, when the store has done with it */
    lim__stored *letter;
    lim_bus *bus;
    lim_pid task;
    lim__on_committed *on_done;
    void *ctx;
} told;

static void on_committed(void *ctx, lim__batch *batch, const lim__committed *what)
{
    told *t = ctx;
    t->letter->how = what->how;
    t->on_done(t->ctx, batch, what);
    (void)!lim__post_reserved(t->bus->rt, t->task, t->letter);
    free(t);
}

/* LIM_OK: it is under way. */
static lim_err submit(exchange *x, lim_process *self, step *s)
{
    keep *k = x->extra->keep;
    occasion now = { .self = self, .answer = s->answer, .speaker = s->answer->from, .lease = s->answer->lease };
    lim__outcome_letter *o = lim__ex_answer_outcome(x, &now);
    told *t = o != NULL ? malloc(sizeof *t) : NULL;
    lim__stored *letter = t != NULL ? lim__letter_new(NULL, &lim__type_stored, sizeof *letter) : NULL;
    if (letter == NULL) {
        free(t);
        lim__letter_free(lim__proc_sched(self), o);
        return LIM_E_NOMEM;
    }
    *letter = (lim__stored){ .ref = ++k->ref };
    *t = (told){ letter, x->bus, lim_self(self), s->r.on_done, s->r.ctx };
    lim__ex_end_row(x, self, o, now.lease, &k->end);
    lim__letter_free(lim__proc_sched(self), o);
    lim__ex_put_end(x, s->batch);
    lim__buf_fini(&k->end);
    lim__batch *batch = s->batch;
    s->batch = NULL;
    lim_err err = lim__durable_submit(x->bus, batch, on_committed, t);
    if (err == LIM_OK)
        return LIM_OK;
    lim__letter_free(NULL, letter); /* the batch is gone */
    free(t);
    s->r.refused(s->r.ctx, NULL, err);
    return err;
}

bool lim__ex_step_reply(exchange *x, lim_process *self, const lim_signal *signal)
{
    step *s = (step *)(uintptr_t)signal->body.ptr;
    if (signal->type != &type_step)
        return false;
    bool mine = false;
    if (!lim__ex_answerable(x, self, signal, s->answer->from, s->answer->lease, &mine))
        return true; /* it is heard again when that is known */
    if (!mine)
        refuse(s, LIM_E_GONE);
    else if (!x->durable || !x->extra->keep->stored)
        refuse(s, LIM_E_MISUSE);
    else {
        lim_err err = submit(x, self, s);
        if (err == LIM_OK)
            lim__ex_pause_signal(x, self, signal, PAUSE_STEP);
        else if (s->batch != NULL)
            refuse(s, err);
    }
    return true;
}

void lim__ex_stepped(exchange *x, lim_process *self, bool done)
{
    keep *k = x->extra->keep;
    step *s = k->letter;
    lim__answer *a = s->answer;
    k->letter = NULL;
    k->pause = PAUSE_NONE;
    if (done) {
        k->put_end = true; /* of its rows nothing is left */
        lim__ex_happens(x, LIM__EX_ANSWERED,
                        &(occasion){ .self = self, .answer = a, .speaker = a->from, .lease = a->lease });
    }
    lim__letter_free(lim__proc_sched(self), s);
}
