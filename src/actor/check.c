/* SPDX-License-Identifier: Apache-2.0
 * check.c - what must hold of a process and of a scheduler between two turns, by the names the essays give it. */
#include "actor/internal.h"

enum { WALK_MAX = 64 }; /* of long lists only a beginning is walked: a check must not make tests slow */

static void check_mailbox(const lim_process *p) /* M3 */
{
    uint32_t counted = 0, reserved = 0, seen = 0;
    const lim__letter *l = p->head;
    for (; l && seen < WALK_MAX; l = l->next, seen++) {
        LIM_ASSERT(l->to.id == p->pid.id);
        LIM_ASSERT(l->kind >= LIM__MESSAGE && l->kind <= LIM__VOID);
        LIM_ASSERT(l->flags != (LIM__COUNTED | LIM__RESERVED));
        counted += l->flags & LIM__COUNTED ? 1 : 0;
        reserved += l->flags & LIM__RESERVED ? 1 : 0;
    }
    uint32_t local = atomic_load_explicit(&lim__inner_of(p->sched, p->pid)->local, memory_order_relaxed);
    uint64_t far = atomic_load_explicit(&lim__slot_of(p->sched, p->pid)->far, memory_order_relaxed);
    LIM_ASSERT(l ? counted <= local : counted == local);
    LIM_ASSERT(reserved <= lim__far_taken(far) -
                               atomic_load_explicit(&lim__inner_of(p->sched, p->pid)->ended, memory_order_relaxed));
    LIM_ASSERT((int32_t)(lim__far_granted(far) - lim__far_taken(far)) >= 0);
    LIM_ASSERT((p->head == NULL) == (p->tail == &p->head));
}

static void check_links(const lim_process *p) /* S1 */
{
    uint32_t seen = 0;
    const lim__node *n = p->links;
    for (; n && seen < WALK_MAX; n = n->next, seen++) {
        const lim__link *k = lim__link_of(n);
        LIM_ASSERT(lim__link_phase_of(k) == LIM__LINKED || lim__link_phase_of(k) == LIM__MUTED);
        LIM_ASSERT(*n->prev == n);
        LIM_ASSERT((lim__link_is_first(n) ? k->a : k->b).id == p->pid.id && lim__link_other(n).id != p->pid.id);
        LIM_ASSERT(lim__link_is_first(n) || (k->link & (LIM__LINK_NEAR | LIM__LINK_POSTED)) == LIM__LINK_NEAR);
    }
    LIM_ASSERT(n || seen == p->link_count);
}

static void check_monitors(const lim_process *p) /* S4 */
{
    uint32_t seen = 0;
    for (const lim__node *n = p->rare ? p->rare->monitors : NULL; n && seen < WALK_MAX; n = n->next, seen++) {
        const lim__monitor *m = (const lim__monitor *)n;
        lim__ref_kind kind;
        LIM_ASSERT(lim__refs_find(p->sched, m->letter.ref, &kind) == m);
        LIM_ASSERT(kind == LIM__REF_MONITOR || (kind == LIM__REF_REQUEST));
        LIM_ASSERT(m->letter.from.id == p->pid.id);
    }
}

static void check_timers(const lim_process *p) /* T2 */
{
    uint32_t seen = 0;
    for (const lim__node *n = p->timers; n && seen < WALK_MAX; n = n->next, seen++) {
        const lim__timer *t = (const lim__timer *)n;
        LIM_ASSERT(t->owner == p);
        LIM_ASSERT(t->heap_index < p->sched->heap_count && p->sched->heap[t->heap_index].what == (uintptr_t)t);
    }
}

void lim__proc_check(const lim_process *p)
{
    LIM_ASSERT(p->phase >= LIM__IDLE && p->phase <= LIM__GHOST);
    if (p->phase == LIM__GHOST)
        return;
    LIM_ASSERT(atomic_load_explicit(&lim__inner_of(p->sched, p->pid)->process, memory_order_relaxed) == p);
    LIM_ASSERT(p->phase != LIM__IDLE || !p->head);
    LIM_ASSERT(p->blocking || (p->phase != LIM__AWAY && p->phase != LIM__AWAY_ENDING)); /* B1 */
    check_mailbox(p);
    check_links(p);
    check_monitors(p);
    check_timers(p);
    LIM_ASSERT(lim__ending(p) || p->deadline == 0 ||
               (p->deadline <= p->sched->heap_count &&
                p->sched->heap[p->deadline - 1].what == (uintptr_t)p + LIM__HEAP_DEADLINE));
}

void lim__sched_check(const lim__sched *s)
{
    LIM_ASSERT(!s->dying && !s->letter); /* between turns nobody is half dead and no letter is in a handler's hands */
    uint32_t seen = 0;
    for (const lim_process *p = s->run_head; p && seen < WALK_MAX; p = p->run_next, seen++) {
        LIM_ASSERT(p->phase == LIM__QUEUED || p->phase == LIM__GHOST); /* P3 */
        lim__proc_check(p);
    }
    for (uint32_t i = 1; i < s->heap_count && i < WALK_MAX; i++) { /* T1 */
        uintptr_t what = s->heap[i].what;
        LIM_ASSERT((what & LIM__HEAP_DEADLINE ? ((lim_process *)(what - LIM__HEAP_DEADLINE))->deadline - 1
                                              : ((lim__timer *)what)->heap_index) == i);
        LIM_ASSERT(s->heap[i].due_ns >= s->heap[(i - 1) / 4].due_ns);
    }
    seen = 0;
    for (const lim__flush *f = s->flush_head; f && seen < WALK_MAX; f = f->next, seen++)
        LIM_ASSERT(f->owner->flushes > 0); /* L3 */
}
