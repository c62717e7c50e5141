/* SPDX-License-Identifier: Apache-2.0
 * stash.c - what a process was told while it could not listen, in the order in which it was told. */
#include "bus/durable.h"
#include "bus/letters.h"

#include <stdlib.h>

typedef struct lim__stashed {
    struct lim__stashed *next;
    lim_signal signal;
    void *letter; /* NULL: an exit, a down, a timer */
} lim__stashed;

void lim__stash_init(lim__stash *s)
{
    *s = (lim__stash){ .last = &s->first };
}

lim_err lim__stash_put(lim__stash *s, lim_process *self, const lim_signal *signal)
{
    LIM_ASSERT(signal->type != NULL || signal->body.len == 0); /* liminal's own processes send each other letters */
    lim__stashed *one = lim__alloc(lim__proc_sched(self), sizeof *one);
    if (one == NULL)
        return LIM_E_NOMEM;
    *one = (lim__stashed){ .signal = *signal };
    if (signal->type != NULL)
        one->letter = lim__letter_keep(self, signal);
    *s->last = one;
    s->last = &one->next;
    s->count++;
    return LIM_OK;
}

static lim__stashed *take(lim__stash *s)
{
    lim__stashed *one = s->first;
    if (one == NULL)
        return NULL;
    s->first = one->next;
    if (s->first == NULL)
        s->last = &s->first;
    s->count--;
    return one;
}

bool lim__stash_replay(lim__stash *s, lim_process *self, lim_on_signal *handler, void *state)
{
    lim__stashed *one = take(s);
    if (one == NULL)
        return false;
    lim_signal signal = one->signal;
    void *letter = one->letter;
    lim__free(lim__proc_sched(self), one, sizeof *one);
    lim__letter_replay(self, &signal, letter, handler, state);
    return true;
}

void lim__stash_fini(lim__stash *s, lim_process *self)
{
    lim__sched *sched = self != NULL ? lim__proc_sched(self) : lim__sched_current();
    for (lim__stashed *one; (one = take(s)) != NULL;) {
        if (one->letter != NULL)
            lim__letter_free(sched, one->letter);
        lim__free(sched, one, sizeof *one);
    }
}
