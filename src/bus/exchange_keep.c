/* SPDX-License-Identifier: Apache-2.0
 * exchange_keep.c - an exchange that is its own write-ahead log: what is stored of it, and that nobody hears of
 * anything before it is.
 *
 *      signal --> exchange.c: act() --> its rows are others now? --no--> tell
 *                    |                        | yes: one commit
 *                    | letters                v
 *                    `---------> `first` ... PAUSE_STORED (signals wait in `stash`) --stored--> tell, then the next
 * signal
 *
 * All that an event does inside happens at once; all that it says (letters, the end, what is remembered of it) waits in
 * a list. After the event the row is packed; if it is not what is stored, it is committed, and the list is told when
 * that is done. So one event is one commit at most, and one whose row stays as it was (an acknowledgement, a part,
 * progress) is none. A task that is handed over at once is two: admitted and assigned; ended.
 *
 * When the disk would not:
 *      its first row    it is refused (disk_full, disk_fault), and nobody has heard of it before
 *      UNKNOWN, or any later step    once more in a moment: the row is the same, so writing it twice is writing it once
 *
 * The same list of signals that wait serves two more questions: who is it that speaks under a lease of before (the
 * group vouches for it), and whether the task that stands for this one is stored (`sound`).
 *
 * Invariants:
 *   KE1  between a commit and its answer nothing is heard and nothing is told.
 *   KE2  `stored` exactly if there are rows of it, as far as the store's answers say. */
#include "base/base.h"
#include "base/map.h"
#include "bus/exchange_inside.h"
#include "bus/ended.h"
#include "bus/schedule.h"
#include <stdlib.h>

typedef enum later_kind {
    LATER_SEND = 1,
    LATER_WANT, /* of the group, which may be full */
    LATER_HAND, /* a request: its participant may be full */
    LATER_ENDED /* to what is remembered of ended ones */
} later_kind;
struct later {
    struct later *next;
    later_kind kind;
    lim_pid to;
    void *letter;
    uint64_t lease;
};

keep *lim__ex_keep(exchange *x, lim_process *self)
{
    extra *e = lim__ex_extra(x, self);
    if (e == NULL || e->keep != NULL)
        return e != NULL ? e->keep : NULL;
    keep *k = lim__alloc(lim__proc_sched(self), sizeof *k);
    if (k == NULL)
        return NULL;
    *k = (keep){ .id = lim_self(self) };
    k->last = &k->first;
    lim__stash_init(&k->stash);
    e->keep = k;
    x->keeping = true;
    return k;
}

bool lim__ex_make_durable(exchange *x, lim_process *self)
{
    if (x->durable)
        return true;
    if (x->bus->durable == NULL || lim__ex_keep(x, self) == NULL)
        return false;
    x->durable = true;
    return true;
}

lim_pid lim__ex_id(const exchange *x, const lim_process *self)
{
    return x->keeping ? x->extra->keep->id : lim_self(self);
}

/* ---- later ---- */

static void later_add(exchange *x, lim_process *self, later one)
{
    keep *k = x->extra->keep;
    later *l = lim__alloc(lim__proc_sched(self), sizeof *l);
    if (l == NULL) { /* it goes on from its rows after a restart */
        lim__letter_free(lim__proc_sched(self), one.letter);
        lim_exit(self, LIM_FAULT);
        return;
    }
    *l = one;
    *k->last = l;
    k->last = &l->next;
}

void lim__ex_send(exchange *x, lim_process *self, lim_pid to, void *letter)
{
    if (letter == NULL)
        return;
    if (x->durable && !LIM__MUTATION("told_before_stored"))
        later_add(x, self, (later){ .kind = LATER_SEND, .to = to, .letter = letter });
    else
        (void)!lim__send_reserved(self, to, letter);
}

void lim__ex_later_want(exchange *x, lim_process *self, void *letter)
{
    later_add(x, self, (later){ .kind = LATER_WANT, .to = x->group, .letter = letter });
}

void lim__ex_later_hand(exchange *x, lim_process *self, lim_pid to, void *letter)
{
    later_add(x, self, (later){ .kind = LATER_HAND, .to = to, .letter = letter });
}

void lim__ex_later_ended(exchange *x, lim_process *self, lim__outcome_letter *copy, uint64_t lease)
{
    later_add(x, self, (later){ .kind = LATER_ENDED, .letter = copy, .lease = lease });
}

static later *later_take(keep *k)
{
    later *l = k->first;
    if (l == NULL)
        return NULL;
    k->first = l->next;
    if (k->first == NULL)
        k->last = &k->first;
    return l;
}

static void later_drop(keep *k, lim__sched *s)
{
    for (later *l; (l = later_take(k)) != NULL;) {
        lim__letter_free(s, l->letter);
        lim__free(s, l, sizeof *l);
    }
}

static void remember_ended(exchange *x, lim_process *self, lim__outcome_letter *o, uint64_t lease)
{
    keep *k = x->extra->keep;
    lim__sched *s = lim__proc_sched(self);
    if (x->bus->ear.on_outcome != NULL)
        x->bus->ear.on_outcome(x->bus->ear.ctx, o->conv.id);
    if (k->end_until_wall_ns != 0)
        lim__kept_add(
            x->bus,
            &(lim__kept_note){ x->open->kind, k->seen_until_wall_ns != 0, lim_self(self), lease, k->end_until_wall_ns },
            o);
    lim__ended_note(x->bus, s,
                    &(lim__ended_summary){ .conv = o->conv,
                                           .kind = x->open->kind,
                                           .phase = o->how == LIM_HOW_REPLY ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN,
                                           .how = o->how,
                                           .why = o->why,
                                           .reason = o->reason,
                                           .ended_ns = lim_now_ns(self),
                                           .elapsed_ns = o->elapsed_ns });
    lim__letter_free(s, o);
}

static void hand(exchange *x, lim_process *self, const later *l)
{
    if (lim__send(self, l->to, l->letter) == LIM_E_FULL) {
        lim__ex_happens(x, LIM__EX_UNHANDED,
                        &(occasion){ .self = self, .refused = &(lim__refused){ .why = LIM_WHY_PARTICIPANT_FULL } });
        return;
    }
    if (x->state == LIM__EX_OFFERED)
        lim__ex_offer_timer(x, self);
    lim__ex_pass_signals(x, self); /* behind it */
}

static void tell_one(exchange *x, lim_process *self, const later *l)
{
    switch (l->kind) {
    case LATER_SEND:
        (void)!lim__send_reserved(self, l->to, l->letter);
        return;
    case LATER_WANT:
        lim__ex_want_sent(x, self, lim__send(self, l->to, l->letter));
        return;
    case LATER_HAND:
        hand(x, self, l);
        return;
    case LATER_ENDED:
        remember_ended(x, self, l->letter, l->lease);
        return;
    }
}

static void tell_all(exchange *x, lim_process *self)
{
    for (later *l; (l = later_take(x->extra->keep)) != NULL;) {
        tell_one(x, self, l);
        lim__free(lim__proc_sched(self), l, sizeof *l);
    }
}

/* ---- committing ---- */

static void part_key(uint8_t *key, lim_pid id)
{
    lim__key_u64(key, id.id);
    key[8] = 1; /* what does not change: written once */
}

static void put_seen(const exchange *x, const keep *k, lim__batch *b)
{
    lim_bytes key = lim__terms_or_default(x->open->terms)->idempotency_key;
    lim__buf row = { 0 }, name = { 0 };
    if (key.len == 0 || !is_task(x))
        return;
    lim_bytes queue = group_name(x->open);
    lim__buf_add(&name, queue.ptr, queue.len);
    lim__pack_u8(&name, 0);
    lim__buf_add(&name, key.ptr, key.len);
    lim__pack_u8(&row, 1);
    lim__pack_u64(&row, k->id.id);
    lim__pack_u64(&row, k->seen_until_wall_ns);
    lim__batch_put(b, LIM__TABLE_SEEN, lim__buf_bytes(&name), lim__buf_bytes(&row));
    lim__buf_fini(&name);
    lim__buf_fini(&row);
}

static void put_const(const exchange *x, lim_process *self, lim__batch *b)
{
    keep *k = x->extra->keep;
    uint8_t key[9];
    lim__buf row = { 0 };
    lim__ex_const_row(x, self, &row);
    part_key(key, k->id);
    lim__batch_put(b, LIM__TABLE_TASKS, lim__bytes(key, 9), lim__buf_bytes(&row));
    lim__buf_fini(&row);
    if (lim__open_mark(x->open) != 0 && !LIM__MUTATION("fire_unmarked")) {
        lim__schedule_mark_key(key, lim__open_mark(x->open));
        lim__batch_put(b, LIM__TABLE_SCHEDULES, lim__bytes(key, 9), lim__bytes(&(uint8_t){ 1 }, 1));
    }
    put_seen(x, k, b);
}

static void put_dead(const exchange *x, const keep *k, lim__batch *b)
{
    lim__buf name = { 0 };
    uint8_t id[8];
    lim_bytes queue = group_name(x->open);
    lim__key_u64(id, k->id.id);
    lim__buf_add(&name, queue.ptr, queue.len);
    lim__pack_u8(&name, 0);
    lim__buf_add(&name, id, sizeof id);
    lim__batch_put(b, LIM__TABLE_DEAD, lim__buf_bytes(&name), lim__buf_bytes(&k->dead));
    lim__buf_fini(&name);
}

void lim__ex_put_end(const exchange *x, lim__batch *b)
{
    keep *k = x->extra->keep;
    uint8_t key[9];
    part_key(key, k->id);
    lim__batch_delete(b, LIM__TABLE_TASKS, lim__bytes(key, 8));
    lim__batch_delete(b, LIM__TABLE_TASKS, lim__bytes(key, 9));
    if (lim__buf_len(&k->end) > 0)
        lim__batch_put(b, LIM__TABLE_OUTCOMES, lim__bytes(key, 8), lim__buf_bytes(&k->end));
    if (lim__buf_len(&k->dead) > 0)
        put_dead(x, k, b);
    lim__kept_sweep(x->bus, b);
}

/* What has changed, as a batch; NULL: nothing. *failed: no memory. */
static lim__batch *changes(const exchange *x, lim_process *self, bool *failed)
{
    keep *k = x->extra->keep;
    bool lives = lim__ex_lives(x);
    if (k->put_end && !lives) {
        k->put_end = k->stored = false;
        k->hash = 0;
        lim__buf_fini(&k->end);
    }
    uint64_t hash = 0;
    uint8_t key[9];
    lim__buf row = { 0 };
    *failed = false;
    if (!lives && !k->stored)
        return NULL;
    if (lives) {
        lim__ex_row(x, self, &row);
        hash = lim__hash_bytes(lim__buf_bytes(&row), 0) | 1;
    }
    if (lives && k->stored && hash == k->hash && !row.failed) {
        lim__buf_fini(&row);
        return NULL;
    }
    lim__batch *b = row.failed || k->end.failed || k->dead.failed ? NULL : lim__batch_new();
    if (b != NULL && lives) {
        part_key(key, k->id);
        if (!k->stored)
            put_const(x, self, b);
        if (k->stored || k->doubt)
            lim__batch_small(b); /* what is on its way must not stand still because the disk is full */
        lim__batch_put(b, LIM__TABLE_TASKS, lim__bytes(key, 8), lim__buf_bytes(&row));
    } else if (b != NULL) {
        lim__ex_put_end(x, b);
        lim__batch_small(b);
    }
    k->hash = hash;
    lim__buf_fini(&row);
    *failed = b == NULL;
    return b;
}

static void again_later(exchange *x, lim_process *self)
{
    keep *k = x->extra->keep;
    k->pause = PAUSE_AGAIN;
    k->hash = 0;
    if (lim_timer_start(self, LIM__EX_AGAIN_MS * 1000000ull, LIM__EX_TAG_KEEP, &k->timer) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

/* It was not stored that there is such a task: nobody has heard of it, and nobody will. */
static void refuse(exchange *x, lim_process *self, lim_why why, uint64_t limit, uint64_t current)
{
    keep *k = x->extra->keep;
    lim__sched *s = lim__proc_sched(self);
    later_drop(k, s);
    lim__buf_fini(&k->end);
    lim__buf_fini(&k->dead);
    k->hash = 0;
    k->end_until_wall_ns = 0;
    x->admitted = false;
    x->durable = false; /* what follows is told at once */
    lim__release *r = lim__letter_new(s, &lim__type_release, sizeof *r);
    if (r != NULL) {
        *r = (lim__release){ .lease = x->current != NULL ? x->current->lease : 0, .never = true };
        (void)!lim__send_reserved(self, x->group, r);
    }
    if (x->current != NULL)
        lim_unlink(self, x->current->participant);
    lim__ex_given_free(x, s, x->current);
    x->current = NULL;
    x->state = LIM__EX_PLACING;
    lim__ex_happens(x, LIM__EX_REFUSED,
                    &(occasion){ .self = self,
                                 .refused = &(lim__refused){ .why = why,
                                                             .limit = (uint32_t)(limit >> 20),
                                                             .current = (uint32_t)(current >> 20),
                                                             .retry_after_ms = 1000 } });
}

static void not_submitted(exchange *x, lim_process *self, lim_err err)
{
    keep *k = x->extra->keep;
    if (err == LIM_E_CLOSED)
        k->pause = PAUSE_CLOSED;
    else if (k->stored || k->doubt || err == LIM_E_NOMEM)
        again_later(x, self);
    else
        refuse(x, self, err == LIM_E_TOOBIG ? LIM_WHY_TOO_BIG : LIM_WHY_DISK_FAULT, 0, 0);
}

/* True: there is a commit under way. */
static bool commit(exchange *x, lim_process *self)
{
    keep *k = x->extra->keep;
    bool failed;
    lim__batch *b = changes(x, self, &failed);
    if (b == NULL) {
        if (failed)
            again_later(x, self);
        return failed;
    }
    lim_err err = lim__durable_commit(self, x->bus, b, ++k->ref);
    if (err == LIM_OK)
        k->pause = PAUSE_STORED;
    else
        not_submitted(x, self, err);
    return k->pause != PAUSE_NONE;
}

static void committed(exchange *x)
{
    keep *k = x->extra->keep;
    k->stored = k->hash != 0;
    k->doubt = false;
    lim__buf_fini(&k->end);
    lim__buf_fini(&k->dead);
}

static void on_stored(exchange *x, lim_process *self, const lim__stored *s)
{
    keep *k = x->extra->keep;
    k->pause = PAUSE_NONE;
    switch (s->how) {
    case LIM__COMMITTED:
        committed(x);
        return;
    case LIM__COMMIT_CLOSED:
        k->pause = PAUSE_CLOSED;
        return;
    case LIM__COMMIT_FULL:
    case LIM__COMMIT_FAILED:
        if (k->stored || k->doubt)
            again_later(x, self);
        else
            refuse(x, self, s->how == LIM__COMMIT_FULL ? LIM_WHY_DISK_FULL : LIM_WHY_DISK_FAULT, s->limit, s->current);
        return;
    case LIM__COMMIT_UNKNOWN:
        k->doubt = true;
        again_later(x, self);
        return;
    case LIM__COMMIT_CONFLICT:
        (void)LIM_NEVER("it expects nothing");
        again_later(x, self);
        return;
    }
}

/* ---- what waits ---- */

void lim__ex_pause_signal(exchange *x, lim_process *self, const lim_signal *signal, pause_for what)
{
    keep *k = x->extra->keep;
    LIM_ASSERT(k->pause == PAUSE_NONE && k->letter == NULL);
    k->signal = *signal;
    k->letter = lim__letter_keep(self, signal);
    k->pause = what;
}

bool lim__ex_vouched(const exchange *x, lim_pid who, uint64_t lease)
{
    const keep *k = x->keeping ? x->extra->keep : NULL;
    return k != NULL && k->vouched.id == who.id && k->vouched_lease == lease;
}

static void hear_kept(exchange *x, lim_process *self)
{
    keep *k = x->extra->keep;
    lim_signal signal = k->signal;
    void *letter = k->letter;
    k->pause = PAUSE_NONE;
    k->letter = NULL;
    lim__letter_replay(self, &signal, letter, lim__ex_hear_again, x);
}

static void on_vouched(exchange *x, lim_process *self, const lim__vouched *v)
{
    keep *k = x->extra->keep;
    k->vouched = v->yes ? v->who : (lim_pid){ UINT64_MAX };
    k->vouched_lease = v->lease;
    hear_kept(x, self);
    k->vouched = (lim_pid){ 0 };
}

/* Is it what the pause is for? Then it is over. */
static bool awaited(exchange *x, lim_process *self, const lim_signal *signal)
{
    keep *k = x->extra->keep;
    const lim__letter_type *t = signal->kind == LIM_SIGNAL_MESSAGE ? signal->type : NULL;
    switch (k->pause) {
    case PAUSE_STORED:
        if (t != &lim__type_stored || ((const lim__stored *)signal->body.ptr)->ref != k->ref)
            return false;
        on_stored(x, self, signal->body.ptr);
        return true;
    case PAUSE_AGAIN:
        if (signal->kind != LIM_SIGNAL_TIMER || signal->ref != k->timer)
            return false;
        k->pause = PAUSE_NONE;
        k->timer = 0;
        return true;
    case PAUSE_VOUCHED:
        if (t != &lim__type_vouched)
            return false;
        on_vouched(x, self, signal->body.ptr);
        return true;
    case PAUSE_REVIVED:
        if (t != &lim__type_open && t != &lim__type_revived)
            return false;
        lim__ex_hear(x, self, signal); /* which ends the pause */
        return true;
    case PAUSE_SOUND:
        if (t != &lim__type_sound && !(signal->kind == LIM_SIGNAL_DOWN && signal->ref == k->ref))
            return false;
        k->pause = PAUSE_NONE;
        lim__ex_hear(x, self, signal);
        return true;
    case PAUSE_STEP:
        if (t != &lim__type_stored || ((const lim__stored *)signal->body.ptr)->ref != k->ref)
            return false;
        lim__ex_stepped(x, self, ((const lim__stored *)signal->body.ptr)->how == LIM__COMMITTED);
        return true;
    case PAUSE_NONE:
    case PAUSE_CLOSED:
        return false;
    }
    return false;
}

static void finish(exchange *x, lim_process *self)
{
    if (!is_task(x) && x->open->owner.id != 0)
        lim_unlink(self, x->open->owner);
    if (x->current != NULL)
        lim_unlink(self, x->current->participant);
    lim_exit(self, LIM_NORMAL);
}

void lim__ex_store(exchange *x, lim_process *self)
{
    keep *k = x->extra->keep;
    for (;;) {
        while (k->pause == PAUSE_NONE && x->open != NULL && !(x->durable && commit(x, self)) && k->first != NULL)
            tell_all(x, self); /* which may change it once more */
        if (k->pause != PAUSE_NONE)
            return;
        if (k->ending) {
            finish(x, self);
            return;
        }
        if (!lim__stash_replay(&k->stash, self, lim__ex_hear_again, x))
            return;
    }
}

void lim__ex_kept_signal(exchange *x, lim_process *self, const lim_signal *signal)
{
    keep *k = x->extra->keep;
    if (k->pause == PAUSE_NONE) {
        lim__ex_hear(x, self, signal);
    } else if (!awaited(x, self, signal)) {
        if (lim__stash_put(&k->stash, self, signal) != LIM_OK)
            lim_exit(self, LIM_FAULT);
        return;
    }
    lim__ex_store(x, self);
}

void lim__ex_keep_free(exchange *x, lim_process *self)
{
    keep *k = x->extra->keep;
    lim__sched *s = self != NULL ? lim__proc_sched(self) : lim__sched_current();
    if (k->id.id != lim__state_pid(x).id)
        lim__alias_drop(x->bus, k->id.id);
    later_drop(k, s);
    lim__stash_fini(&k->stash, self);
    lim__buf_fini(&k->end);
    lim__buf_fini(&k->dead);
    lim__letter_free(s, k->letter);
    lim__letter_free(s, k->relive);
    lim__free(s, k, sizeof *k);
}
