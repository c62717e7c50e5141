/* SPDX-License-Identifier: Apache-2.0
 * loop.c - sockets and end-of-turn work of processes.
 *
 * Both run as the process that owns them, outside of on_signal, and may do what a handler may: send, spawn, lim_exit.
 * A watch or flush is memory of its owner; the runtime only links it. What must not happen is that a readiness event,
 * already fetched from the kernel, reaches a watch that was cleared since: clearing a watch strikes it from the rest
 * of the batch.
 *
 * Invariants:
 *   L1  a watch is in its owner's list exactly while the poller knows its descriptor.
 *   L2  no event of the batch behind event_next names a watch that is in no list.
 *   L3  a flush is in the scheduler's list at most once; owner->flushes counts them, so that a burial need not look. */
#include "actor/internal.h"
#include <errno.h>

static void strike_events(lim__sched *s, const lim__watch *w)
{
    for (int i = s->event_next; i < s->event_count; i++)
        if (s->events[i].ctx == w)
            s->events[i].ctx = NULL;
}

static void watch_clear(lim__sched *s, lim__watch *w)
{
    (void)s->os->poller_set(s->os, s->poller, w->fd, 0, NULL);
    strike_events(s, w);
    *w->prev = w->next;
    if (w->next)
        w->next->prev = w->prev;
    w->next = NULL;
    w->prev = NULL;
    w->interest = 0;
    s->watch_count--;
}

int lim__watch_set(lim_process *self, lim__watch *w, int fd, uint32_t interest)
{
    lim__sched *s = self->sched;
    LIM_ASSERT(!self->blocking); /* readiness is told to it while its handler runs */
    if (w->prev && (interest == 0 || w->fd != fd))
        watch_clear(s, w);
    if (interest == 0 || (w->prev && w->interest == interest))
        return 0;
    lim__rare *rare = lim__process_rare(self);
    int err = rare ? s->os->poller_set(s->os, s->poller, fd, interest, w) : -ENOMEM;
    if (err < 0)
        return err;
    w->fd = fd;
    w->interest = interest;
    if (w->prev)
        return 0;
    w->owner = self;
    w->next = rare->watches;
    w->prev = &rare->watches;
    if (w->next)
        w->next->prev = &w->next;
    rare->watches = w;
    s->watch_count++;
    return 0;
}

static uint64_t letters(const lim__sched *s) /* that wait; a burial takes some away */
{
    return atomic_load_explicit(&s->counters.messages, memory_order_relaxed);
}

/* What many letters came of is acted on, and its outcome written, before more is read: whoever gets that has begun with
 * it by then. The rest of the batch is served in the next turn. */
void lim__watches_serve(lim__sched *s)
{
    uint64_t start = letters(s);
    while (s->event_next < s->event_count && (int64_t)(letters(s) - start) < LIM__INTAKE_MAX) {
        const lim__io_event *e = &s->events[s->event_next++];
        lim__watch *w = e->ctx;
        uint32_t ready = w ? e->ready & w->interest : 0; /* it may want less than when the event was fetched */
        if (!ready)
            continue;
        lim__suspect_add(s, w->owner);
        w->on_ready(w->owner, w, ready);
        lim__bury(s);
        lim__handler_done(s);
    }
}

void lim__watches_end(lim__sched *s, lim_process *p)
{
    while (p->rare && p->rare->watches)
        watch_clear(s, p->rare->watches);
}

/* ---- flushes ---- */
static void flush_unlink(lim__sched *s, lim__flush *f)
{
    *f->prev = f->next;
    if (f->next)
        f->next->prev = f->prev;
    else
        s->flush_tail = f->prev;
    f->next = NULL;
    f->prev = NULL;
    f->owner->flushes--;
    s->flush_count--;
}

void lim__flush_queue(lim_process *owner, lim__flush *f)
{
    lim__sched *s = owner->sched;
    LIM_CHECK(s == lim__sched_current());
    if (f->prev)
        return;
    f->owner = owner;
    f->next = NULL;
    f->prev = s->flush_tail;
    *s->flush_tail = f;
    s->flush_tail = &f->next;
    owner->flushes++;
    s->flush_count++;
}

/* Those queued meanwhile wait for the next turn. */
void lim__flushes_run(lim__sched *s)
{
    for (uint32_t n = s->flush_count; n > 0 && s->flush_head; n--) {
        lim__flush *f = s->flush_head;
        lim_process *owner = f->owner;
        flush_unlink(s, f);
        lim__suspect_add(s, owner);
        f->run(owner, f);
        lim__bury(s);
        lim__handler_done(s);
    }
}

void lim__flushes_end(lim__sched *s, lim_process *p)
{
    for (lim__flush *f = s->flush_head, *next; f && p->flushes > 0; f = next) {
        next = f->next;
        if (f->owner == p)
            flush_unlink(s, f);
    }
}
