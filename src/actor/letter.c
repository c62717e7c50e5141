/* SPDX-License-Identifier: Apache-2.0
 * letter.c - the block that every signal travels in: a 64-byte header and the body behind it.
 *
 * Whoever holds a letter owns it. A letter is in exactly one place: somebody's hands, an outbox, an inbox, a mailbox.
 * What a typed letter's body refers to is released by type->drop wherever the letter ends: after the handler, in the
 * mailbox of a process that died, or at once when it is refused. `recycle` is for a handler that kept the letter and
 * moved those references on. */
#include "actor/internal.h"

static lim__letter *spare_letter(lim_runtime *rt)
{
    lim__depot *d = &rt->depot;
    pthread_mutex_lock(&d->lock);
    lim__block *b = d->spare;
    if (b) {
        d->spare = b->next;
        atomic_fetch_sub_explicit(&d->spare_count, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&d->lock);
    return (lim__letter *)b;
}

lim__letter *lim__exit_letter(lim_runtime *rt, lim__sched *s)
{
    lim__letter *l = lim__letter_make(s, 0);
    if (LIM_UNLIKELY(!l)) {
        l = spare_letter(rt);
        if (!l)
            return NULL;
        *l = (lim__letter){ .klass = (uint8_t)lim__class_of(sizeof(lim__letter)) };
    } else if (LIM_UNLIKELY(atomic_load_explicit(&rt->depot.spare_count, memory_order_relaxed) < LIM__SPARE_LETTERS)) {
        lim__depot_restock(&rt->depot); /* memory is there again */
    }
    l->kind = LIM__EXIT;
    return l;
}

static lim__letter *letter_of(void *body)
{
    return (lim__letter *)body - 1;
}

void *lim__letter_new(lim__sched *s, const lim__letter_type *type, size_t bytes)
{
    lim__letter *l = lim__letter_make(s, bytes);
    if (!l)
        return NULL;
    l->type = type;
    return l + 1;
}

void lim__letter_free(lim__sched *s, void *body)
{
    if (body)
        lim__letter_drop(s, letter_of(body));
}

void lim__letter_recycle(lim__sched *s, void *body)
{
    if (body)
        lim__block_give(s, letter_of(body), letter_of(body)->klass);
}

void *lim__letter_keep(lim_process *self, const lim_signal *signal)
{
    lim__sched *s = self->sched;
    LIM_ASSERT(s->letter && signal->body.ptr == s->letter + 1); /* the letter being handled, and not kept before */
    lim__letter *l = s->letter;
    s->letter = NULL;
    return l + 1;
}

void lim__letter_replay(lim_process *self, const lim_signal *signal, void *body, lim_on_signal *handler, void *state)
{
    lim__sched *s = self->sched;
    lim__letter *before = s->letter;
    s->letter = body ? letter_of(body) : NULL;
    handler(self, signal, state);
    if (s->letter)
        lim__letter_drop(s, s->letter);
    s->letter = before;
}
