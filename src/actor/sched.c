/* SPDX-License-Identifier: Apache-2.0
 * sched.c - a scheduler: one event loop, one run queue, and the turn that joins them.
 *
 *   1 wait      nothing to run: spin a little (if configured), then sleep until an event, a wake or the next timer
 *   2 inbox     everything other threads sent, in order, once per turn: before sockets, so that what was acknowledged
 *               to one connection is visible to what the next one reads
 *   3 sockets   on_ready of ready watches (loop.c), until LIM__INTAKE_MAX letters came of it; the rest in the next turn
 *   4 timers    those due go to their mailboxes
 *   5 processes round robin, until the queue is empty or the turn's budget is spent. A slice is what was in the mailbox
 *               when it began, 64 signals and 64 KiB of output at most. Between slices outboxes are pushed when three
 *               slices added nothing to them, and every sixteenth time the inbox is dealt; every 64 signals outboxes
 *               are pushed anyway, and a turn in which others sent something ends: a busy scheduler answers others
 *   6 outboxes  one CAS per target scheduler, one wake per sleeping one: their wake-up overlaps with our sends
 *   7 flushes   one write per dirty connection (loop.c)
 *
 * There is no tick: with nothing due a scheduler sleeps for ever. Falling asleep is `sleeping = 1`, look at the inbox
 * once more, wait; a pusher pushes, then looks at `sleeping` (M5 in mailbox.c).
 *
 * The clock is read every 32 handlers (each time where they take longer than it does), so that a turn is bounded in
 * time and an overrun is noticed: whoever ran since the last look is a suspect, and where handlers are slow there is
 * one.
 *
 * A turn is odd in `phase`, the time between turns even. Whoever wants to free something that turns may have loaded
 * takes a stamp and waits until every scheduler was even or has moved on (lim__quiet_*). */
#include "actor/internal.h"
#include <stdlib.h>

enum { SPIN_LOOKS = 64, SPIN_TRIES = 64, SLOW_SIGNAL_NS = 400, UNPOLLED_TURNS_MAX = 16, UNPOLLED_SIGNALS_MAX = 256 };
enum { SLICES_PER_GLANCE = 16, QUIET_SLICES_MAX = 3, SPINS_FORGIVEN = 4, SPINS_FAILED_MAX = SPINS_FORGIVEN + 6 };
#define SECOND_NS 1000000000ull

static _Thread_local lim__sched *current __attribute__((tls_model("initial-exec")));
static _Alignas(64) _Atomic bool spin_token; /* somebody has it */

lim__sched *lim__sched_current(void)
{
    return current;
}

lim__sched *lim__sched_enter(lim__sched *s)
{
    lim__sched *outer = current;
    current = s;
    return outer;
}

void lim__sched_leave(lim__sched *outer)
{
    current = outer;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- how busy ---- */
static void busy_pause(lim__sched *s, uint64_t now)
{
    s->busy_ns += now - s->busy_from_ns;
    s->busy_from_ns = now;
}

/* Closes the window once a second. */
static void busy_note(lim__sched *s, uint64_t now)
{
    uint64_t start = atomic_load_explicit(&s->busy_window_ns, memory_order_relaxed);
    if (LIM_LIKELY(now - start < SECOND_NS))
        return;
    busy_pause(s, now);
    uint64_t permille = s->busy_ns * 1000 / (now - start);
    atomic_store_explicit(&s->busy_permille, permille > 1000 ? 1000 : (uint32_t)permille, memory_order_relaxed);
    atomic_store_explicit(&s->busy_window_ns, now, memory_order_relaxed);
    s->busy_ns = 0;
}

uint32_t lim__sched_busy_permille(const lim__sched *s)
{
    uint64_t now = s->os->now_ns(s->os);
    uint64_t noted = atomic_load_explicit(&s->busy_window_ns, memory_order_relaxed);
    if (now > noted + 2 * SECOND_NS && atomic_load_explicit(&s->sleeping, memory_order_relaxed))
        return 0; /* asleep since */
    return atomic_load_explicit(&s->busy_permille, memory_order_relaxed);
}

/* ---- wait ---- */
static bool inbox_empty(lim__sched *s)
{
    return atomic_load(&s->inbox) == NULL; /* seq_cst: M5 */
}

static bool has_events(const lim__sched *s)
{
    return s->event_next < s->event_count;
}

static bool has_work(lim__sched *s)
{
    return has_events(s) || s->run_head || s->flush_head || s->outbox_mask || !inbox_empty(s);
}

static void poll_events(lim__sched *s, int64_t timeout_ns)
{
    LIM_ASSERT(!has_events(s));
    int n = s->os->poller_wait(s->os, s->poller, s->events, LIM__EVENTS_MAX, timeout_ns);
    s->event_count = n > 0 ? n : 0;
    s->event_next = 0;
    s->since_poll = 0;
    s->turns_since_poll = 0;
}

/* While there is work, sockets are looked at every few hundred signals, not every turn. */
static bool may_skip_poll(lim__sched *s)
{
    if (!s->rt->threads || s->since_poll >= UNPOLLED_SIGNALS_MAX)
        return false;
    return ++s->turns_since_poll < UNPOLLED_TURNS_MAX;
}

static int64_t time_to_wait(lim__sched *s, int64_t max_wait_ns, uint64_t now)
{
    uint64_t due = lim__timer_next(s);
    if (due == UINT64_MAX)
        return max_wait_ns < 0 ? -1 : max_wait_ns;
    uint64_t wait = due > now ? due - now : 0;
    if (wait > INT64_MAX)
        wait = INT64_MAX;
    return max_wait_ns < 0 || (int64_t)wait < max_wait_ns ? (int64_t)wait : max_wait_ns;
}

/* Only one scheduler of the process spins at a time. Whoever has the token now may just be receiving what we sent it,
 * and will let go of it in a moment: so we try for about a microsecond. True: we have it. False: we do not, or
 * something came. */
static bool spin_begin(lim__sched *s)
{
    for (int i = 0; i < SPIN_TRIES && !s->has_token; i++) {
        s->has_token = !atomic_load_explicit(&spin_token, memory_order_relaxed) &&
                       !atomic_exchange_explicit(&spin_token, true, memory_order_acquire);
        if (lim__inbox_glance(s))
            return false;
        relax();
    }
    return s->has_token;
}

/* Who found something keeps the token until it has passed on what came of it: letting go costs as much as a message. */
void lim__spin_end(lim__sched *s)
{
    if (LIM_LIKELY(!s->has_token))
        return;
    s->has_token = false;
    atomic_store_explicit(&spin_token, false, memory_order_release);
}

static bool glance_often(lim__sched *s)
{
    for (int i = 0; i < SPIN_LOOKS; i++) {
        if (lim__inbox_glance(s))
            return true;
        relax();
    }
    return false;
}

/* Where nothing ever comes while we look, we look less and less often: after some failures one time in 2, 4, ... 64. */
static bool spin_pays(lim__sched *s)
{
    if (s->spins_to_skip > 0) {
        s->spins_to_skip--;
        return false;
    }
    return true;
}

static bool spun(lim__sched *s, bool found)
{
    if (found) {
        s->spins_failed = 0;
        return true;
    }
    lim__spin_end(s);
    if (s->spins_failed < SPINS_FAILED_MAX)
        s->spins_failed++;
    if (s->spins_failed > SPINS_FORGIVEN)
        s->spins_to_skip = (1u << (s->spins_failed - SPINS_FORGIVEN)) - 1;
    return false;
}

/* True: something came while we looked. */
static bool spin(lim__sched *s, uint64_t now, int64_t timeout_ns)
{
    uint64_t limit = s->rt->spin_ns;
    if (limit == 0 || !s->worked || !spin_pays(s))
        return false;
    if (!spin_begin(s))
        return lim__inbox_glance(s);
    if (timeout_ns >= 0 && (uint64_t)timeout_ns < limit)
        limit = (uint64_t)timeout_ns;
    uint64_t deadline = now + limit;
    while (!glance_often(s)) {
        poll_events(s, 0);
        if (s->event_count > 0)
            break;
        if (s->os->now_ns(s->os) >= deadline)
            return spun(s, false);
        lim__thread_yield();
    }
    return spun(s, true);
}

/* The wake of a closing runtime may have been swallowed by a poll while spinning: the flag is looked at again too. */
static void sleep_until(lim__sched *s, int64_t timeout_ns)
{
    atomic_store(&s->sleeping, 1); /* seq_cst: M5 */
    poll_events(s, inbox_empty(s) && !atomic_load(&s->rt->closing) ? timeout_ns : 0);
    atomic_store_explicit(&s->sleeping, 0, memory_order_relaxed);
}

static void wait_for_work(lim__sched *s, int64_t max_wait_ns)
{
    if (!s->rt->threads)
        s->looked_ns = s->busy_from_ns = s->os->now_ns(s->os); /* between turns the caller was elsewhere */
    bool ready = has_work(s);
    if (ready || max_wait_ns == 0) {
        if (!s->rt->threads) /* else it was cleared by who slept; others read it with each push */
            atomic_store_explicit(&s->sleeping, 0, memory_order_relaxed);
        if (!has_events(s) && (!ready || !may_skip_poll(s)))
            poll_events(s, 0);
        s->now_ns = s->os->now_ns(s->os);
        lim__look(s, s->now_ns);
        return;
    }
    uint64_t now = s->os->now_ns(s->os);
    lim__look(s, now);
    busy_pause(s, now);
    int64_t timeout = time_to_wait(s, max_wait_ns, now);
    if (!spin(s, now, timeout))
        sleep_until(s, timeout);
    s->looked_ns = s->now_ns = s->busy_from_ns = s->os->now_ns(s->os);
}

/* ---- who takes too long, or says too much ---- */
static void tell_overrun(lim__sched *s, const lim__suspect *u, const lim_overrun *o)
{
    lim_overrun told = *o;
    told.name = u->name;
    told.pid = u->pid;
    if (s->rt->on_overrun)
        s->rt->on_overrun(s->rt->on_overrun_ctx, &told);
}

static void overrun(lim__sched *s, uint64_t took_ns)
{
    uint32_t n = s->suspect_count < LIM__SIGNALS_PER_LOOK ? s->suspect_count : LIM__SIGNALS_PER_LOOK;
    lim__bump(&s->counters.overruns, 1);
    for (uint32_t i = 0; i < n; i++)
        tell_overrun(s, &s->suspects[i], &(lim_overrun){ .took_ns = took_ns, .suspects = n });
}

/* Whoever ran last sent more than a slice may: the clock is looked at, since sending takes time. More than a handler
 * may send is an overrun, and there is no doubt whose. */
void lim__flood(lim__sched *s)
{
    const lim__suspect *u = &s->suspects[(s->suspect_count - 1) % LIM__SIGNALS_PER_LOOK];
    s->until_look = 1;
    if (s->output <= LIM__CALL_OUTPUT_MAX)
        return;
    lim__bump(&s->counters.overruns, 1);
    uint64_t took = s->os->now_ns(s->os) - s->looked_ns;
    tell_overrun(s, u, &(lim_overrun){ .took_ns = took, .suspects = 1, .output_bytes = s->output });
}

void lim__look(lim__sched *s, uint64_t now)
{
    uint64_t took = now - s->looked_ns;
    if (LIM_UNLIKELY(took > s->rt->overrun_ns && s->suspect_count > 0))
        overrun(s, took);
    uint64_t handled = s->look_every - s->until_look;
    if (handled > 0)
        s->look_every = took > handled * SLOW_SIGNAL_NS ? 1 : LIM__SIGNALS_PER_LOOK;
    s->until_look = s->look_every;
    s->suspect_count = 0;
    s->looked_ns = now;
}

/* ---- processes ---- */
/* Others should not wait for the end of a long turn. True: somebody sends us something, too: turns are kept short. */
static bool look_around(lim__sched *s)
{
    if (--s->looks > 0)
        return false;
    s->looks = LIM__LOOKS_PER_PUSH;
    lim__outboxes_push(s);
    return s->dealt || lim__inbox_glance(s);
}

/* A slice is bounded in time too, though handlers cannot be interrupted. */
static bool turn_is_over(lim__sched *s)
{
    if (LIM_LIKELY(--s->until_look > 0))
        return false;
    lim__look(s, s->os->now_ns(s->os));
    return look_around(s) || s->looked_ns >= s->turn_ends_ns;
}

/* One process handles what is in its mailbox, a slice at most and up to `left` signals; what it is sent meanwhile waits
 * for its next slice. It may be gone afterwards. Returns what is left of the turn: 0 when its time is up. */
static uint32_t run_slice(lim__sched *s, lim_process *p, uint32_t left)
{
    uint32_t max = left < LIM__SLICE_SIGNALS_MAX ? left : LIM__SLICE_SIGNALS_MAX, n = 0;
    const lim__letter *last = LIM_CONTAINER(p->tail, lim__letter, next);
    lim__letter *l;
    p->phase = LIM__RUNNING;
    s->output = 0;
    lim__suspect_add(s, p);
    while (n < max && (l = lim__mailbox_take(p)) != NULL) {
        n++;
        if (l == last)
            max = n;
        if (LIM_LIKELY(l->kind == LIM__MESSAGE))
            lim__message_take(s, p, l);
        else
            lim__signal_take(s, p, l);
        bool stays = p->phase == LIM__RUNNING; /* it has not ended and is not away */
        lim__bury(s);
        if (LIM_UNLIKELY(s->output > LIM__SLICE_OUTPUT_MAX)) {
            lim__flood(s);
            max = n;
        }
        if (LIM_UNLIKELY(turn_is_over(s)))
            left = n;
        if (!stays)
            return left - n;
        if (left == n)
            break;
        if (LIM_UNLIKELY(s->suspect_count == 0))
            lim__suspect_add(s, p);
    }
    if (p->head)
        lim__run_push(s, p);
    else
        p->phase = LIM__IDLE;
    return left - n;
}

/* Between two processes: what came from other schedulers takes its place in the line, and what is for them goes as
 * soon as nobody adds to it any more. Both in batches: a batch of one costs as much as one of sixteen. */
static inline void exchange(lim__sched *s)
{
    if (LIM_UNLIKELY(--s->until_glance == 0)) {
        s->until_glance = SLICES_PER_GLANCE;
        lim__spin_end(s); /* this takes longer than an answer */
        if (lim__inbox_glance(s)) {
            lim__inbox_deal(s);
            s->dealt = true;
        }
    }
    if (s->outbox_mask && ++s->quiet_slices >= QUIET_SLICES_MAX)
        lim__outboxes_push_awake(s);
}

static lim_process *run_pop(lim__sched *s)
{
    lim_process *p = s->run_head;
    s->run_head = p->run_next;
    if (!s->run_head)
        s->run_tail = &s->run_head;
    return p;
}

static void run_processes(lim__sched *s)
{
    uint32_t left = LIM__TURN_SIGNALS_MAX;
    s->turn_ends_ns = s->now_ns + LIM__TURN_NS_MAX;
    s->looks = LIM__LOOKS_PER_PUSH;
    s->until_glance = SLICES_PER_GLANCE;
    s->dealt = false;
    while (s->run_head && left > 0) {
        lim_process *p = run_pop(s);
        if (p->phase == LIM__GHOST) {
            lim__process_free(s, p);
            continue;
        }
        left = run_slice(s, p, left);
        exchange(s);
    }
    s->since_poll += LIM__TURN_SIGNALS_MAX - left;
}

/* ---- the turn ---- */
static void phase_begin(lim__sched *s)
{
    /* seq_cst: what a turn loads is loaded after its odd phase is visible; pairs with lim__quiet_stamp_take */
    atomic_store(&s->phase, atomic_load_explicit(&s->phase, memory_order_relaxed) + 1);
}

static void phase_end(lim__sched *s)
{
    uint64_t phase = atomic_load_explicit(&s->phase, memory_order_relaxed);
    atomic_store_explicit(&s->phase, phase + 1, memory_order_release); /* pairs with lim__quiet_since */
}

static void check_sometimes(lim__sched *s)
{
#ifdef LIM_DEBUG
    if (atomic_load_explicit(&s->phase, memory_order_relaxed) % 128 == 1)
        lim__sched_check(s);
#else
    (void)s;
#endif
}

/* Without a thread of its own a scheduler sleeps between turns: pushes must ring. */
static bool rest(lim__sched *s)
{
    if (s->rt->threads)
        return has_work(s);
    uint64_t now = s->os->now_ns(s->os);
    lim__look(s, now);
    busy_pause(s, now);
    if (has_work(s))
        return true;
    atomic_store(&s->sleeping, 1); /* seq_cst: M5 */
    return !inbox_empty(s);
}

bool lim__sched_turn(lim__sched *s, int64_t max_wait_ns)
{
    lim__sched *outer = lim__sched_enter(s);
    wait_for_work(s, max_wait_ns);
    phase_begin(s);
    busy_note(s, s->now_ns);
    lim__inbox_deal(s);
    bool events = has_events(s);
    lim__watches_serve(s);
    lim__timers_fire(s);
    s->worked = events || s->run_head;
    run_processes(s);
    lim__outboxes_push(s);
    lim__spin_end(s);
    if (s->flush_head) {
        lim__flushes_run(s);
        lim__outboxes_push(s);
    }
    check_sometimes(s);
    phase_end(s);
    bool more = rest(s);
    lim__sched_leave(outer);
    return more;
}

void *lim__sched_main(void *arg)
{
    lim__sched *s = arg;
    while (!atomic_load(&s->rt->closing))
        (void)lim__sched_turn(s, -1);
    lim__sched *outer = lim__sched_enter(s);
    lim__process_kill_all(s);
    lim__outboxes_push(s);
    lim__sched_leave(outer);
    return NULL;
}

uint64_t lim__sched_next_due_ns(const lim__sched *s)
{
    return lim__timer_next(s);
}

/* ---- quiet ---- */
void lim__quiet_stamp_take(lim_runtime *rt, lim__quiet_stamp *stamp)
{
    atomic_thread_fence(memory_order_seq_cst); /* what was retired before is unreachable for turns that begin later */
    for (uint32_t i = 0; i < rt->count; i++)
        stamp->turns[i] = atomic_load(&rt->scheds[i]->phase);
}

bool lim__quiet_since(lim_runtime *rt, const lim__quiet_stamp *stamp)
{
    for (uint32_t i = 0; i < rt->count; i++)
        if (stamp->turns[i] % 2 == 1 && atomic_load(&rt->scheds[i]->phase) == stamp->turns[i])
            return false;
    return true;
}

/* ---- birth and end ---- */
lim_err lim__sched_init(lim_runtime *rt, uint32_t index, lim__sched **out)
{
    lim__sched *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);
    if (!s)
        return LIM_E_NOMEM;
    memset((void *)s, 0, sizeof *s);
    *out = s; /* fini accepts it half-built */
    s->rt = rt;
    s->os = rt->os;
    s->index = index;
    s->run_tail = &s->run_head;
    s->dying_tail = &s->dying;
    s->flush_tail = &s->flush_head;
    s->until_look = s->look_every = LIM__SIGNALS_PER_LOOK;
    s->looks = LIM__LOOKS_PER_PUSH;
    s->looked_ns = s->now_ns = s->busy_from_ns = s->os->now_ns(s->os);
    atomic_store(&s->busy_window_ns, s->now_ns);
    atomic_store(&s->sleeping, rt->threads ? 0 : 1);
    lim_err err = lim__slots_init(s);
    if (err != LIM_OK)
        return err;
    s->poller = s->os->poller_open(s->os);
    return s->poller ? LIM_OK : LIM_E_NOMEM;
}

void lim__sched_fini(lim__sched *s)
{
    if (!s)
        return;
    if (s->poller)
        s->os->poller_close(s->os, s->poller);
    lim__free(s, s->refs.entries, s->refs.cap * sizeof *s->refs.entries);
    lim__free(s, s->heap, s->heap_cap * sizeof *s->heap);
    lim__slots_fini(s);
    lim__pool_fini(s);
    free(s);
}

uint32_t lim__sched_index(const lim__sched *s)
{
    return s->index;
}

lim_runtime *lim__sched_runtime(const lim__sched *s)
{
    return s->rt;
}
