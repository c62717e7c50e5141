/* SPDX-License-Identifier: Apache-2.0
 * exchange_follow.c - another task stands for this one: its dispatcher is told of that task, and gets its outcome.
 *
 * One that is durable may not be stored yet, though the queue has it in its books. Then it is asked (`sound`): it
 * answers when it is, because nothing is heard by it while its commit is under way; and if it is refused instead, this
 * one takes its chance with the queue. */
#include "base/base.h"
#include "bus/exchange_inside.h"

static void follow(exchange *x, lim_process *self, const lim__stands_for *s)
{
    lim__ex_admit(x, self, s->task, &(lim_admission){ .verdict = LIM_ACCEPT });
    lim__ex_happens(x, LIM__EX_STANDS, &(occasion){ .self = self });
    if (x->state != LIM__EX_FOLLOWING)
        return;
    if (s->outcome != NULL)
        lim__ex_happens(x, LIM__EX_FOLLOWED, &(occasion){ .self = self, .followed = s->outcome });
    else
        lim__ex_follow(x, self, s->task);
}

/* Nobody is told of a task that may not be stored yet: first it says that it is. */
static bool ask_sound(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__stands_for *s = signal->body.ptr;
    lim_pid task = lim__alias_pid(x->bus, s->task.id);
    lim__command *c = lim__letter_new(lim__proc_sched(self), &lim__type_sound, sizeof *c);
    uint64_t monitor;
    if (c == NULL || lim__ex_keep(x, self) == NULL || lim_monitor(self, task, &monitor) != LIM_OK) {
        lim__letter_free(lim__proc_sched(self), c);
        return false;
    }
    *c = (lim__command){ monitor, lim_self(self) };
    x->extra->keep->ref = monitor;
    lim__ex_pause_signal(x, self, signal, PAUSE_SOUND);
    (void)!lim__send_reserved(self, task, c);
    return true;
}

void lim__ex_stands(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__stands_for *s = signal->body.ptr;
    if (x->state != LIM__EX_PLACING || x->admitted || !is_task(x))
        return;
    if (s->durable && s->outcome == NULL) {
        if (!ask_sound(x, self, signal))
            lim_exit(self, LIM_FAULT);
        return;
    }
    follow(x, self, s);
}

/* The task that stands for this one is stored; or it is gone: with an outcome, or without ever having been admitted. */
static void sounded(exchange *x, lim_process *self, bool lives)
{
    keep *k = x->extra->keep;
    lim__stands_for *s = k->letter;
    k->letter = NULL;
    if (lives)
        lim_demonitor(self, k->ref);
    else
        s->outcome = lim__ended_outcome(x->bus, lim__proc_sched(self), s->task, x->open->ref);
    if (lives || s->outcome != NULL)
        follow(x, self, s);
    else
        lim__ex_want(x, self, false, 0);
    lim__letter_free(lim__proc_sched(self), s);
}

/* Somebody asks whether this one is stored: letters are not heard while that is under way, so it is, once admitted. */
static void say_sound(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__command *c = signal->body.ptr;
    lim__command *mine = lim__letter_keep(self, signal);
    if (x->admitted)
        (void)!lim__send_reserved(self, c->from, mine);
    else if (x->state == LIM__EX_PLACING) /* the group's word is on its way */
        (void)!lim__send_reserved(self, lim_self(self), mine);
    else
        lim__letter_free(lim__proc_sched(self), mine);
}

void lim__ex_followed(exchange *x, lim_process *self, lim_pid from, const lim__outcome_letter *o)
{
    if (x->state == LIM__EX_FOLLOWING && from.id == x->extra->followed.id)
        lim__ex_happens(x, LIM__EX_FOLLOWED, &(occasion){ .self = self, .followed = o });
}

void lim__ex_followed_is_gone(exchange *x, lim_process *self, const lim_signal *signal)
{
    if (x->keeping && x->extra->keep->letter != NULL && signal->ref == x->extra->keep->ref) {
        sounded(x, self, false);
        return;
    }
    if (x->state != LIM__EX_FOLLOWING || signal->from.id != x->extra->followed.id)
        return;
    lim__outcome_letter *o = lim__ex_vanished(x, self);
    if (o == NULL) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    lim__ex_followed(x, self, signal->from, o);
    lim__letter_free(lim__proc_sched(self), o);
}

void lim__ex_sound(exchange *x, lim_process *self, const lim_signal *signal)
{
    if (x->keeping && x->extra->keep->letter != NULL)
        sounded(x, self, true);
    else
        say_sound(x, self, signal);
}
