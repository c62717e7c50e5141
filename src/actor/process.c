/* SPDX-License-Identifier: Apache-2.0
 * process.c - birth and death: slots, spawn, the end.
 *
 * A slot is where the world looks a process up. Slots live in chunks that are never freed, so a stale pid can always
 * be looked up safely; its generation tells that somebody else lives there now. Each scheduler has two FIFO lists of
 * free slots: one for its own spawns, without a lock, and one under `slots_lock` for other threads. A slot returns to
 * the list it came from; one whose generation would wrap is retired.
 *
 * A spawn on another thread's scheduler builds the whole process, links and monitors included, and then publishes the
 * slot's pid (release). No letter announces it: the process first matters when something is sent to it.
 *
 * The end of a process is decided anywhere on its scheduler (lim__process_end) and done when no handler of it can be
 * on the stack (lim__bury_all). The order of a burial:
 *
 *   1 the pid is cleared: from here on senders hear GONE        4 on_end(state, reason)
 *   2 its names go                                              5 its mailbox is emptied, letters dropped
 *   3 watches, flushes and timers go                            6 links and watchers are told, in letters they own
 *
 * so that what on_end sends arrives before the exit, and who hears of the exit can reuse the name. A burial only
 * appends to other processes' mailboxes: a chain of linked processes dies one run-queue entry after the other, without
 * recursion.
 *
 * Invariants:
 *   P1  a pid once published is never published again (generation).
 *   P2  on_end runs exactly once, after the last on_signal.
 *   P3  a process block is freed by bury, or by the run queue if it was queued (GHOST). */
#include "actor/internal.h"

#define GENERATION_MAX ((1u << LIM__GENERATION_BITS) - 1)

/* ---- slots ---- */
lim_err lim__slots_init(lim__sched *s)
{
    size_t bytes = LIM__CHUNKS_MAX * sizeof *s->chunks;
    s->chunks = lim__alloc(NULL, bytes);
    if (!s->chunks)
        return LIM_E_NOMEM;
    memset((void *)s->chunks, 0, bytes);
    pthread_mutex_init(&s->slots_lock, NULL);
    return LIM_OK;
}

void lim__slots_fini(lim__sched *s)
{
    if (!s->chunks)
        return;
    for (uint32_t i = 0; i < s->chunk_count; i++)
        lim__block_release(atomic_load(&s->chunks[i]));
    lim__block_release((void *)s->chunks);
    pthread_mutex_destroy(&s->slots_lock);
}

static lim__slot *slot_at(lim__sched *s, uint32_t index)
{
    return &lim__chunk_of(s, index)->slots[index % LIM__CHUNK_SLOTS];
}

static void slot_list_push(lim__sched *s, lim__slot_list *list, uint32_t index)
{
    slot_at(s, index)->idle.next = 0;
    if (list->last)
        slot_at(s, list->last - 1)->idle.next = index + 1;
    else
        list->first = index + 1;
    list->last = index + 1;
}

static lim__slot *slot_list_pop(lim__sched *s, lim__slot_list *list, uint32_t *index)
{
    if (!list->first)
        return NULL;
    *index = list->first - 1;
    lim__slot *slot = slot_at(s, *index);
    list->first = slot->idle.next;
    if (!list->first)
        list->last = 0;
    return slot;
}

/* A new chunk for one of the lists. Caller holds slots_lock. */
static lim_err slots_grow_locked(lim__sched *s, lim__slot_list *list, bool shared)
{
    if (s->chunk_count == LIM__CHUNKS_MAX)
        return LIM_E_NOMEM;
    lim__chunk *chunk = lim__alloc(NULL, sizeof *chunk);
    if (!chunk)
        return LIM_E_NOMEM;
    memset((void *)chunk, 0, sizeof *chunk);
    for (uint32_t i = 0; i < LIM__CHUNK_SLOTS; i++) {
        chunk->slots[i].shared = shared;
        chunk->slots[i].idle.generation = s->rt->first_generation;
    }
    uint32_t first = s->chunk_count * LIM__CHUNK_SLOTS;
    atomic_store_explicit(&s->chunks[s->chunk_count++], chunk, memory_order_release);
    for (uint32_t i = 0; i < LIM__CHUNK_SLOTS; i++)
        slot_list_push(s, list, first + i);
    return LIM_OK;
}

/* A free slot for the caller alone; its next generation is still in idle. */
static lim__slot *slot_take(lim__sched *s, bool shared, uint32_t *index)
{
    lim__slot_list *list = shared ? &s->shared_free : &s->free;
    if (!shared) {
        lim__slot *slot = slot_list_pop(s, list, index);
        if (LIM_LIKELY(slot != NULL))
            return slot;
    }
    pthread_mutex_lock(&s->slots_lock);
    lim__slot *slot = slot_list_pop(s, list, index);
    if (!slot && slots_grow_locked(s, list, shared) == LIM_OK)
        slot = slot_list_pop(s, list, index);
    pthread_mutex_unlock(&s->slots_lock);
    return slot;
}

/* Back to its list with the generation of the next tenant; a slot that has none left is retired. */
static void slot_give(lim__sched *s, lim__slot *slot, uint32_t index, uint32_t generation)
{
    if (generation > GENERATION_MAX)
        return;
    bool shared = slot->shared;
    if (shared)
        pthread_mutex_lock(&s->slots_lock);
    slot->idle.generation = generation;
    slot_list_push(s, shared ? &s->shared_free : &s->free, index);
    if (shared)
        pthread_mutex_unlock(&s->slots_lock);
}

static uint32_t generation_of(lim_pid pid)
{
    return (uint32_t)pid.id & GENERATION_MAX;
}

uint64_t lim__population(const lim__sched *s)
{
    uint64_t died = atomic_load_explicit(&s->died, memory_order_relaxed);
    return atomic_load_explicit(&s->born_here, memory_order_relaxed) +
           atomic_load_explicit(&s->born_from_elsewhere, memory_order_relaxed) - died;
}

static lim__slot *slot_of(const lim_process *p)
{
    return slot_at(p->sched, lim__pid_slot(p->pid));
}

/* ---- spawn ---- */
static lim_err check_opts(const lim_spawn_opts *o, bool has_parent)
{
    if (!o || o->size != sizeof *o || !o->on_signal)
        return LIM_E_MISUSE;
    if (!has_parent && (o->link || o->monitor))
        return LIM_E_MISUSE;
    if (o->monitor && !o->monitor_out)
        return LIM_E_MISUSE;
    if (o->state_bytes > LIM__STATE_BYTES_MAX)
        return LIM_E_TOOBIG;
    return o->init_bytes > o->state_bytes || (o->init_bytes && !o->init) ? LIM_E_INVALID : LIM_OK;
}

static size_t process_bytes(size_t state_bytes, bool blocking)
{
    return blocking ? lim__job_offset(state_bytes) + sizeof(lim__job) : sizeof(lim_process) + state_bytes;
}

static lim_process *process_new(lim__sched *home, lim__sched *here, const lim_spawn_opts *o)
{
    bool blocking = o->blocking && lim__blocking_possible(home->rt);
    lim_process *p = lim__alloc(here, process_bytes(o->state_bytes, blocking));
    if (LIM_UNLIKELY(!p))
        return NULL;
    *p = (lim_process){
        .sched = home,
        .on_signal = o->on_signal,
        .on_end = o->on_end,
        .name = o->name ? o->name : "process",
        .state_bytes = (uint32_t)o->state_bytes,
        .phase = LIM__IDLE,
        .trap = o->trap_exit,
        .blocking = blocking,
    };
    p->tail = &p->head;
    if (LIM_UNLIKELY(blocking))
        lim__job_init(p, o->on_signal);
    if (o->init_bytes)
        memcpy(lim__state(p), o->init, o->init_bytes);
    if (o->state_bytes > o->init_bytes)
        memset((char *)lim__state(p) + o->init_bytes, 0, o->state_bytes - o->init_bytes);
    return p;
}

/* From here on the process is alive for everybody who learns its pid. */
static void publish(lim__sched *home, lim__sched *here, lim_process *p, const lim_spawn_opts *o)
{
    lim__slot *slot = slot_of(p);
    atomic_store_explicit(&lim__inner_of(home, p->pid)->process, p, memory_order_release); /* pairs with process_of */
    atomic_store_explicit(&slot->mark, 0, memory_order_release);
    atomic_store_explicit(&slot->mailbox_max, o->mailbox_max ? o->mailbox_max : LIM__MAILBOX_DEFAULT,
                          memory_order_relaxed);
    if (here == home)
        lim__bump(&home->born_here, 1);
    else
        atomic_fetch_add_explicit(&home->born_from_elsewhere, 1, memory_order_relaxed);
    LIM__COUNT(here, home->rt, processes, 1);
    atomic_store_explicit(&slot->pid, p->pid.id, memory_order_release); /* pairs with place_far */
}

/* A process with a slot, known to nobody yet. */
static lim_process *conceive(lim__sched *home, lim__sched *here, const lim_spawn_opts *o, uint32_t *generation)
{
    lim_process *p = process_new(home, here, o);
    if (!p)
        return NULL;
    uint32_t index;
    const lim__slot *slot = slot_take(home, here != home, &index);
    if (!slot) {
        lim__process_free(here, p);
        return NULL;
    }
    *generation = slot->idle.generation;
    p->pid.id = lim__pid_make(home->index, index, *generation);
    return p;
}

static void misconceive(lim__sched *home, lim__sched *here, lim_process *p, uint32_t generation)
{
    slot_give(home, slot_of(p), lim__pid_slot(p->pid), generation);
    lim__process_free(here, p);
}

static lim_err spawn_child(lim_process *self, lim__sched *home, const lim_spawn_opts *o, lim_pid *out)
{
    lim__sched *s = self->sched;
    uint32_t generation;
    lim_process *p = conceive(home, s, o, &generation);
    if (LIM_UNLIKELY(!p))
        return LIM_E_NOMEM;
    lim__link_pair link = { 0 };
    lim__monitor_pair monitor = { 0 };
    if ((o->link && lim__link_reserve(s, home == s, &link) != LIM_OK) ||
        (o->monitor && lim__monitor_reserve(self, p->pid, LIM__REF_MONITOR, &monitor) != LIM_OK)) {
        lim__link_cancel(s, &link);
        misconceive(home, s, p, generation);
        return LIM_E_NOMEM;
    }
    if (o->link)
        lim__link_commit(self, p, &link, self->on_signal == lim__supervisor_on_signal);
    if (o->monitor) {
        *o->monitor_out = monitor.near->letter.ref;
        lim__monitor_commit_child(self, p, &monitor);
    }
    *out = p->pid;
    publish(home, s, p, o);
    return LIM_OK;
}

lim_err lim_spawn(lim_process *self, const lim_spawn_opts *opts, lim_pid *out)
{
    if (lim__is_away(self))
        return lim__away_spawn(self, opts, out);
    lim_err err = check_opts(opts, true);
    if (err != LIM_OK)
        return err;
    lim_runtime *rt = self->sched->rt;
    if (opts->place && opts->scheduler >= rt->count)
        return LIM_E_INVALID;
    if (LIM_UNLIKELY(atomic_load_explicit(&rt->closing, memory_order_relaxed)))
        return LIM_E_CLOSED;
    if (LIM_UNLIKELY(opts->blocking) && lim__blocking_possible(rt) && lim__blocking_prepare(rt) != LIM_OK)
        return LIM_E_NOMEM;
    return spawn_child(self, opts->place ? rt->scheds[opts->scheduler] : self->sched, opts, out);
}

/* Whoever was least busy over the last second; among equals, who has fewer processes. */
static lim__sched *least_busy(lim_runtime *rt)
{
    lim__sched *best = rt->scheds[0];
    for (uint32_t i = 1; i < rt->count; i++) {
        lim__sched *s = rt->scheds[i];
        uint32_t a = lim__sched_busy_permille(s) / 100, b = lim__sched_busy_permille(best) / 100;
        if (a < b || (a == b && lim__population(s) < lim__population(best)))
            best = s;
    }
    return best;
}

lim_err lim_runtime_spawn(lim_runtime *rt, const lim_spawn_opts *opts, lim_pid *out)
{
    lim_err err = check_opts(opts, false);
    if (err != LIM_OK)
        return err;
    if (opts->place && opts->scheduler >= rt->count)
        return LIM_E_INVALID;
    if (atomic_load(&rt->closing))
        return LIM_E_CLOSED;
    if (LIM_UNLIKELY(opts->blocking) && lim__blocking_possible(rt) && lim__blocking_prepare(rt) != LIM_OK)
        return LIM_E_NOMEM;
    lim__sched *here = lim__sched_current();
    if (here && here->rt != rt)
        here = NULL;
    lim__sched *home = opts->place ? rt->scheds[opts->scheduler] : least_busy(rt);
    uint32_t generation;
    lim_process *p = conceive(home, here, opts, &generation);
    if (!p)
        return LIM_E_NOMEM;
    *out = p->pid;
    publish(home, here, p, opts);
    return LIM_OK;
}

/* ---- the end ---- */
static void dying_push(lim_process *p)
{
    lim__sched *s = p->sched;
    p->dying_next = NULL;
    *s->dying_tail = p;
    s->dying_tail = &p->dying_next;
}

void lim__process_end(lim_process *p, lim_reason reason)
{
    if (lim__ending(p))
        return;
    lim__deadline_end(p);
    p->reason = reason == LIM_KILL ? LIM_KILLED : reason == LIM_REASON_NONE ? LIM_NORMAL : reason;
    if (p->phase == LIM__AWAY) {
        p->phase = LIM__AWAY_ENDING; /* when its handler has returned */
        return;
    }
    p->phase = p->phase == LIM__QUEUED ? LIM__ENDING_QUEUED : LIM__ENDING;
    dying_push(p);
}

void lim__process_end_now(lim_process *p)
{
    LIM_ASSERT(p->phase == LIM__AWAY_ENDING);
    p->phase = LIM__ENDING;
    dying_push(p);
}

lim__rare *lim__process_rare(lim_process *p)
{
    if (!p->rare && (p->rare = lim__alloc(p->sched, sizeof *p->rare)) != NULL)
        *p->rare = (lim__rare){ 0 };
    return p->rare;
}

void lim__process_free(lim__sched *s, lim_process *p)
{
    lim__free(s, p->rare, sizeof *p->rare);
    lim__free(s, p, process_bytes(p->state_bytes, p->blocking));
}

static void clear_pid(lim__sched *s, lim_process *p)
{
    lim__slot *slot = slot_of(p);
    atomic_store_explicit(&lim__inner_of(s, p->pid)->process, NULL, memory_order_relaxed); /* only we look */
    atomic_store(&slot->pid, 0); /* seq_cst, as is `named`: registry.c sees the end or we see the name */
    if (LIM_UNLIKELY(atomic_load(&slot->named)))
        lim__registry_forget(s->rt, p->pid);
}

static void release_slot(lim__sched *s, lim_process *p)
{
    lim__slot *slot = slot_of(p);
    uint32_t generation = generation_of(p->pid) + (LIM__MUTATION("stale_id") ? 0 : 1);
    atomic_store_explicit(&lim__inner_of(s, p->pid)->local, 0, memory_order_relaxed);
    lim__grant_revoke(slot); /* it was granted for this mailbox */
    slot_give(s, slot, lim__pid_slot(p->pid), generation);
}

static void bury(lim__sched *s, lim_process *p)
{
    clear_pid(s, p);
    lim__watches_end(s, p);
    lim__flushes_end(s, p);
    lim__timers_end(s, p);
    if (p->on_end)
        p->on_end(lim__state(p), (lim_reason)p->reason);
    lim__signals_tell_end(s, p);
    lim__bump(&s->died, 1);
    lim__bump(&s->counters.processes, (uint64_t)-1);
    release_slot(s, p);
    if (p->phase == LIM__ENDING_QUEUED)
        p->phase = LIM__GHOST;
    else
        lim__process_free(s, p);
}

void lim__bury_all(lim__sched *s)
{
    while (s->dying) {
        lim_process *p = s->dying;
        s->dying = p->dying_next;
        if (!s->dying)
            s->dying_tail = &s->dying;
        bury(s, p);
    }
}

/* The runtime closes: every process of this scheduler ends now. */
void lim__process_kill_all(lim__sched *s)
{
    pthread_mutex_lock(&s->slots_lock);
    uint32_t count = s->chunk_count * LIM__CHUNK_SLOTS;
    pthread_mutex_unlock(&s->slots_lock);
    for (uint32_t i = 0; i < count; i++) {
        lim__inner *inner = &lim__chunk_of(s, i)->inners[i % LIM__CHUNK_SLOTS];
        lim_process *p = atomic_load_explicit(&inner->process, memory_order_acquire);
        if (p)
            lim__process_end(p, LIM_KILLED);
    }
    lim__bury_all(s);
    while (s->run_head) { /* only ghosts are left */
        lim_process *p = s->run_head;
        LIM_ASSERT(p->phase == LIM__GHOST);
        s->run_head = p->run_next;
        lim__process_free(s, p);
    }
    s->run_tail = &s->run_head;
}

/* ---- what a process asks about itself ---- */
lim_pid lim_self(const lim_process *self)
{
    return self->pid;
}

lim_runtime *lim_process_runtime(const lim_process *self)
{
    return self->sched->rt;
}

uint64_t lim_now_ns(const lim_process *self)
{
    lim__os *os = self->sched->os;
    return lim__is_away(self) ? os->now_ns(os) : self->sched->now_ns;
}

void lim_trap_exit(lim_process *self, bool trap)
{
    self->trap = trap;
}

void lim_exit(lim_process *self, lim_reason reason)
{
    if (lim__is_away(self)) {
        lim__away_exit(self, reason);
        return;
    }
    LIM_ASSERT(self->sched == lim__sched_current()); /* contract P */
    lim__process_end(self, reason);
}

uint64_t lim__sched_now_ns(const lim__sched *s)
{
    return s->now_ns;
}

lim__sched *lim__proc_sched(const lim_process *self)
{
    return self->sched;
}

void *lim__proc_state(const lim_process *self)
{
    return lim__state(self);
}

size_t lim__proc_state_bytes(const lim_process *self)
{
    return self->state_bytes;
}

lim_pid lim__state_pid(const void *state)
{
    return ((const lim_process *)state - 1)->pid;
}

uint32_t lim__pid_scheduler(lim_pid pid)
{
    return lim__pid_sched(pid);
}

lim_process *lim__local_process(lim__sched *s, lim_pid pid)
{
    if (lim__sched_of(s->rt, pid) != s)
        return NULL;
    lim_process *p = lim__process_of(s, pid);
    return p && !lim__ending(p) ? p : NULL;
}

bool lim_alive(lim_runtime *rt, lim_pid pid)
{
    lim__sched *target = lim__sched_of(rt, pid);
    lim__slot *slot = target ? lim__slot_of(target, pid) : NULL;
    return slot && pid.id && atomic_load_explicit(&slot->pid, memory_order_acquire) == pid.id;
}

void lim__pid_mark(lim_runtime *rt, lim_pid pid, uint8_t mark)
{
    lim__sched *target = lim__sched_of(rt, pid);
    lim__slot *slot = target ? lim__slot_of(target, pid) : NULL;
    if (slot && atomic_load_explicit(&slot->pid, memory_order_acquire) == pid.id)
        atomic_store_explicit(&slot->mark, mark, memory_order_release);
}

uint8_t lim__pid_marked(lim_runtime *rt, lim_pid pid)
{
    lim__sched *target = lim__sched_of(rt, pid);
    lim__slot *slot = target ? lim__slot_of(target, pid) : NULL;
    if (!slot || !pid.id || atomic_load_explicit(&slot->pid, memory_order_acquire) != pid.id)
        return 0;
    /* acquire: a mark of the next tenant comes with the end of this one, so the pid is looked at again */
    uint8_t mark = atomic_load_explicit(&slot->mark, memory_order_acquire);
    return atomic_load_explicit(&slot->pid, memory_order_acquire) == pid.id ? mark : 0;
}
