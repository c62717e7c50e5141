/* SPDX-License-Identifier: Apache-2.0
 * timer.c - timers of a scheduler, and the numbers that timers, monitors and requests are known by.
 *
 * A timer is one block with a letter in front. It waits in a 4-ary heap ordered by (due, start order) that the event
 * loop's sleep is measured by; when due, the block itself goes into its owner's mailbox as the TIMER letter.
 *
 *      lim_timer_start --> heap --due--> mailbox --taken--> shown, freed
 *                           |              |
 *                           `----cancel----+--> true, and it is never seen (in the mailbox it becomes VOID)
 *
 * So lim_timer_cancel answers false only for a timer whose signal has been seen (or never was this process's).
 *
 * The deadline of a process (lim__deadline_set) is in the heap without a block or a number: millions of conversations
 * have one each, and all but a few end before it. Its letter is made when it is due; when there is no memory for it, it
 * is due again a millisecond later.
 *
 * Numbers are generation 32 | index + 1 32 into one table per scheduler: looked up without hashing, never valid again
 * once given back. Free entries are reused first in, first out.
 *
 * Invariants:
 *   T1  heap[i] is not before heap[(i - 1) / 4]; what is in heap[i] knows that it is there.
 *   T2  a timer is in its owner's list exactly while it is in the heap.
 *   T3  due is never before the moment of the call plus the delay: the clock is read then, not at the turn's start. */
#include "actor/internal.h"

enum { DEADLINE_AGAIN_NS = 1000000 };

/* ---- numbers ---- */
static lim_err refs_grow(lim__sched *s)
{
    lim__refs *r = &s->refs;
    uint32_t cap = r->cap ? r->cap * 2 : LIM__TABLE_MIN;
    lim__ref *entries = lim__alloc(s, cap * sizeof *entries);
    if (!entries)
        return LIM_E_NOMEM;
    if (r->cap)
        memcpy(entries, r->entries, r->cap * sizeof *entries);
    lim__free(s, r->entries, r->cap * sizeof *entries);
    r->entries = entries;
    r->cap = cap;
    return LIM_OK;
}

static lim__ref *refs_pop(lim__refs *r)
{
    lim__ref *e = &r->entries[r->free_first - 1];
    r->free_first = e->kind_or_next;
    if (!r->free_first)
        r->free_last = 0;
    return e;
}

lim_err lim__refs_take(lim__sched *s, lim__ref_kind kind, void *object, uint64_t *out)
{
    lim__refs *r = &s->refs;
    lim__ref *e;
    if (r->free_first) {
        e = refs_pop(r);
    } else {
        if (r->used == r->cap && refs_grow(s) != LIM_OK)
            return LIM_E_NOMEM;
        e = &r->entries[r->used++];
        e->generation = 1;
    }
    e->object = object;
    e->kind_or_next = kind;
    *out = (uint64_t)e->generation << 32 | (uint64_t)(e - r->entries + 1);
    return LIM_OK;
}

static lim__ref *refs_entry(const lim__sched *s, uint64_t ref)
{
    uint32_t index = (uint32_t)ref - 1;
    if ((uint32_t)ref == 0 || index >= s->refs.used)
        return NULL;
    lim__ref *e = &s->refs.entries[index];
    return e->object && e->generation == ref >> 32 ? e : NULL;
}

void lim__refs_give(lim__sched *s, uint64_t ref)
{
    lim__refs *r = &s->refs;
    lim__ref *e = refs_entry(s, ref);
    LIM_ASSERT(e);
    e->object = NULL;
    e->generation++;
    e->kind_or_next = 0;
    if (r->free_last)
        r->entries[r->free_last - 1].kind_or_next = (uint32_t)ref;
    else
        r->free_first = (uint32_t)ref;
    r->free_last = (uint32_t)ref;
}

void *lim__refs_find(const lim__sched *s, uint64_t ref, lim__ref_kind *kind)
{
    lim__ref *e = refs_entry(s, ref);
    if (!e)
        return NULL;
    *kind = (lim__ref_kind)e->kind_or_next;
    return e->object;
}

/* ---- heap ---- */
static bool before(const lim__heap_entry *a, const lim__heap_entry *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->seq < b->seq;
}

static void heap_set(lim__sched *s, uint32_t i, lim__heap_entry e)
{
    s->heap[i] = e;
    if (e.what & LIM__HEAP_DEADLINE)
        ((lim_process *)(e.what - LIM__HEAP_DEADLINE))->deadline = i + 1;
    else
        ((lim__timer *)e.what)->heap_index = i;
}

static void heap_up(lim__sched *s, uint32_t i, lim__heap_entry e)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 4;
        if (!before(&e, &s->heap[parent]))
            break;
        heap_set(s, i, s->heap[parent]);
        i = parent;
    }
    heap_set(s, i, e);
}

static void heap_down(lim__sched *s, uint32_t i, lim__heap_entry e)
{
    for (;;) {
        uint32_t first = 4 * i + 1, least = first;
        if (first >= s->heap_count)
            break;
        for (uint32_t c = first + 1; c < first + 4 && c < s->heap_count; c++)
            if (before(&s->heap[c], &s->heap[least]))
                least = c;
        if (!before(&s->heap[least], &e))
            break;
        heap_set(s, i, s->heap[least]);
        i = least;
    }
    heap_set(s, i, e);
}

static void heap_remove(lim__sched *s, uint32_t i)
{
    LIM_ASSERT(i < s->heap_count);
    lim__heap_entry last = s->heap[--s->heap_count];
    if (i == s->heap_count)
        return;
    if (i > 0 && before(&last, &s->heap[(i - 1) / 4]))
        heap_up(s, i, last);
    else
        heap_down(s, i, last);
}

static lim_err heap_reserve(lim__sched *s)
{
    if (s->heap_count < s->heap_cap)
        return LIM_OK;
    uint32_t cap = s->heap_cap ? s->heap_cap * 2 : LIM__TABLE_MIN;
    lim__heap_entry *heap = lim__alloc(s, cap * sizeof *heap);
    if (!heap)
        return LIM_E_NOMEM;
    if (s->heap_cap)
        memcpy(heap, s->heap, s->heap_count * sizeof *heap);
    lim__free(s, s->heap, s->heap_cap * sizeof *heap);
    s->heap = heap;
    s->heap_cap = cap;
    return LIM_OK;
}

/* ---- timers ---- */
lim__timer *lim__timer_new(lim_process *p)
{
    lim__sched *s = p->sched;
    if (heap_reserve(s) != LIM_OK)
        return NULL;
    lim__timer *t = lim__letter_block(s, LIM__TIMER_BYTES);
    if (t)
        t->owner = p;
    return t;
}

static void heap_add(lim__sched *s, uint64_t delay_ns, uintptr_t what)
{
    uint64_t now = s->os->now_ns(s->os); /* T3 */
    uint64_t due = delay_ns > UINT64_MAX - now ? UINT64_MAX : now + delay_ns;
    lim__bump(&s->counters.timers, 1);
    heap_up(s, s->heap_count++, (lim__heap_entry){ due, s->timer_seq++, what });
}

void lim__timer_begin(lim_process *p, lim__timer *t, uint64_t delay_ns)
{
    t->letter.to = p->pid;
    lim__node_insert(&p->timers, &t->node);
    heap_add(p->sched, delay_ns, (uintptr_t)t);
}

void lim__timer_discard(lim__sched *s, lim__timer *t)
{
    lim__bump(&s->counters.timers, (uint64_t)-1);
    lim__block_give(s, t, t->letter.klass);
}

void lim__timer_stop(lim__sched *s, lim__timer *t)
{
    if (t->heap_index == LIM__FIRED) {
        lim__bump(&s->counters.timers, (uint64_t)-1);
        t->letter.kind = LIM__VOID;
        return;
    }
    heap_remove(s, (uint32_t)t->heap_index);
    lim__node_remove(&t->node);
    if (!LIM__MUTATION("leak_timer"))
        lim__timer_discard(s, t);
}

lim_err lim_timer_start(lim_process *self, uint64_t delay_ns, uint32_t tag, uint64_t *timer_out)
{
    if (lim__is_away(self))
        return lim__away_timer_start(self, delay_ns, tag, timer_out);
    lim__sched *s = self->sched;
    lim__timer *t = lim__timer_new(self);
    if (!t)
        return LIM_E_NOMEM;
    if (lim__refs_take(s, LIM__REF_TIMER, t, &t->letter.ref) != LIM_OK) {
        lim__block_give(s, t, t->letter.klass);
        return LIM_E_NOMEM;
    }
    t->letter.kind = LIM__TIMER;
    t->letter.reason = tag;
    *timer_out = t->letter.ref;
    lim__timer_begin(self, t, delay_ns);
    return LIM_OK;
}

bool lim_timer_cancel(lim_process *self, uint64_t timer)
{
    if (lim__is_away(self))
        return lim__away_timer_cancel(self, timer);
    lim__sched *s = self->sched;
    lim__ref_kind kind;
    lim__timer *t = lim__refs_find(s, timer, &kind);
    if (!t || kind != LIM__REF_TIMER || t->owner != self)
        return false;
    lim__refs_give(s, timer);
    lim__timer_stop(s, t);
    return true;
}

/* ---- deadlines ---- */
lim_err lim__deadline_set(lim_process *self, uint64_t delay_ns)
{
    lim__sched *s = self->sched;
    LIM_ASSERT(!self->blocking);
    if (lim__ending(self))
        return LIM_OK; /* and sees nothing more */
    lim__deadline_end(self);
    if (heap_reserve(s) != LIM_OK)
        return LIM_E_NOMEM;
    heap_add(s, delay_ns, (uintptr_t)self + LIM__HEAP_DEADLINE);
    return LIM_OK;
}

void lim__deadline_end(lim_process *p)
{
    if (p->deadline == 0)
        return;
    heap_remove(p->sched, p->deadline - 1);
    p->deadline = 0;
    lim__bump(&p->sched->counters.timers, (uint64_t)-1);
}

static void deadline_fire(lim__sched *s, lim_process *p)
{
    lim__letter *l = lim__letter_block(s, LIM__SHORT_LETTER);
    if (LIM_UNLIKELY(!l)) {
        lim__heap_entry later = s->heap[0];
        later.due_ns = s->now_ns + DEADLINE_AGAIN_NS;
        heap_down(s, 0, later);
        return;
    }
    l->kind = LIM__DUE;
    l->to = p->pid;
    lim__deadline_end(p);
    lim__mailbox_push(p, l);
}

static void timer_fire(lim__sched *s, lim__timer *t)
{
    heap_remove(s, 0);
    lim__node_remove(&t->node);
    t->heap_index = LIM__FIRED;
    lim__mailbox_push(t->owner, &t->letter);
}

void lim__timers_fire(lim__sched *s)
{
    while (s->heap_count && s->heap[0].due_ns <= s->now_ns && s->heap[0].due_ns != UINT64_MAX) {
        uintptr_t what = s->heap[0].what;
        if (what & LIM__HEAP_DEADLINE)
            deadline_fire(s, (lim_process *)(what - LIM__HEAP_DEADLINE));
        else
            timer_fire(s, (lim__timer *)what);
    }
}

/* Those of requests go with their requests, those that have fired with the mailbox. */
void lim__timers_end(lim__sched *s, lim_process *p)
{
    for (lim__node *n = p->timers, *next; n; n = next) {
        next = n->next;
        lim__timer *t = (lim__timer *)n;
        if (t->letter.kind != LIM__TIMER)
            continue;
        lim__refs_give(s, t->letter.ref);
        lim__timer_stop(s, t);
    }
}

uint64_t lim__timer_next(const lim__sched *s)
{
    return s->heap_count ? s->heap[0].due_ns : UINT64_MAX;
}
