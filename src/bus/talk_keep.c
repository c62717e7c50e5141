/* SPDX-License-Identifier: Apache-2.0
 * talk_keep.c - durable talks: first what a step has changed is stored, then others hear of it.
 *
 *      signal --> the talk changes, its letters go into the outbox --commit--> stored: the letters leave
 *                                                                   `--------> not: once more, after a while
 *      meanwhile: signals wait, and are all of the next commit
 *
 * In the table of talks, each key an id (of its first life) and a letter:
 *   'o'        what it was opened with                      never changes
 *   's'        everything small: phase, numbers, who takes part, who did
 *   'c' lease  an ask that is not answered
 *   'i' n      a message or an event that was not received, in the order of n
 *   'm' n      something said to a participant that has not taken it yet
 * Its history is a stream of its own. A talk that has ended keeps 'o', 's' and the stream for a while.
 *
 * What changed nothing that is stored is answered without a commit. A talk that cannot even be opened (no group, a name
 * that is taken, a full store) is never stored. Receives wait only as long as whoever made them: they are in no row.
 *
 * Invariants:
 *   K1  a letter leaves only when the state it follows from is stored.
 *   K2  while `storing`, nothing of the talk changes. */
#include "bus/ended.h"
#include "bus/talk_over.h"
#include "bus/talk.h"
#include "base/base.h"
#include <stdatomic.h>
#include <stdio.h>

enum { VERSION = 1, OP_PUT = 1, OP_DELETE, OP_APPEND, AGAIN_MS = 1000, SWEEP_MS = 1000 };
#define MS UINT64_C(1000000)

typedef struct parcel {
    lim__list node;
    lim_pid to;
    void *letter;
} parcel;

uint64_t lim__talk_id(const talk *t)
{
    return t->kept ? lim__talk_keep(t)->id : lim__state_pid(t).id;
}

lim_bytes lim__keep_key(uint64_t id, char what, uint64_t n, uint8_t key[18])
{
    size_t len = lim__key_u64(key, id);
    key[len++] = (uint8_t)what;
    if (what != 'o' && what != 's')
        len += lim__key_u64(key + len, n);
    return lim__bytes(key, len);
}

uint64_t lim__keep_to_wall(const talk *t, uint64_t at_ns)
{
    lim__os *os = t->bus->os;
    return at_ns == UINT64_MAX ? 0 : os->wall_ns(os) + at_ns - os->now_ns(os);
}

/* ---- what changed ---- */

static void op(talk *t, uint8_t what, lim_bytes key, lim_bytes value)
{
    lim__buf *ops = &lim__talk_keep(t)->ops;
    lim__pack_u8(ops, what);
    lim__pack_bytes(ops, key);
    lim__pack_bytes(ops, value);
}

static void put(talk *t, char what, uint64_t n, lim__buf *value)
{
    uint8_t key[18];
    op(t, OP_PUT, lim__keep_key(lim__talk_keep(t)->id, what, n, key), lim__buf_bytes(value));
    lim__talk_keep(t)->ops.failed |= value->failed;
    lim__buf_fini(value);
}

static void gone(talk *t, char what, uint64_t n)
{
    uint8_t key[18];
    op(t, OP_DELETE, lim__keep_key(lim__talk_keep(t)->id, what, n, key), lim__bytes("", 0));
}

static void pack_msg(lim__buf *b, const lim__msg *msg)
{
    lim__pack_u8(b, msg != NULL);
    if (msg == NULL)
        return;
    lim__pack_bytes(b, lim__msg_bytes(msg));
    lim__pack_bytes(b, lim__msg_headers(msg));
}

void lim__keep_call(talk *t, const call *c)
{
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, c->ref);
    lim__pack_u64(&b, c->to.id);
    lim__pack_u64(&b, c->from.id);
    lim__pack_u64(&b, lim__keep_to_wall(t, c->started_ns));
    lim__pack_u64(&b, lim__keep_to_wall(t, c->deadline_ns));
    lim__pack_u32(&b, c->losses);
    pack_msg(&b, c->payload);
    put(t, 'c', c->lease, &b);
}

void lim__keep_call_gone(talk *t, const call *c)
{
    gone(t, 'c', c->lease);
}

void lim__keep_heard(talk *t, const note *n)
{
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, n->from.id);
    lim__pack_u8(&b, n->event);
    lim__pack_bytes(&b, lim__bytes(n->text, n->text_len));
    pack_msg(&b, n->payload);
    put(t, 'i', lim__talk_keep(t)->inbox_next++, &b);
}

void lim__keep_taken(talk *t)
{
    gone(t, 'i', lim__talk_keep(t)->inbox_first++);
}

void lim__keep_held(talk *t, const held *h)
{
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, h->to.id);
    lim__pack_u64(&b, h->from.id);
    lim__pack_u8(&b, h->event);
    lim__pack_bytes(&b, lim__bytes(h->text, h->text_len));
    pack_msg(&b, h->payload);
    put(t, 'm', h->n, &b);
}

void lim__keep_held_gone(talk *t, const held *h)
{
    gone(t, 'm', h->n);
}

void lim__keep_held_taken(talk *t, const held *h)
{
    uint8_t key[18];
    lim__buf *late = &lim__talk_keep(t)->late;
    lim__pack_u8(late, OP_DELETE);
    lim__pack_bytes(late, lim__keep_key(lim__talk_keep(t)->id, 'm', h->n, key));
    lim__pack_bytes(late, lim__bytes("", 0));
    if (late->failed) /* it stays, and is sent again in vain after a restart */
        lim__buf_fini(late);
}

void lim__keep_noted(talk *t, const lim__history_note *entry)
{
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, t->bus->os->wall_ns(t->bus->os) / 1000);
    lim__pack_bytes(&b, lim__str(entry->kind));
    lim__pack_bytes(&b, entry->who);
    lim__pack_bytes(&b, entry->detail);
    lim__pack_u64(&b, entry->bytes);
    lim__pack_u32(&b, entry->code);
    op(t, OP_APPEND, lim__bytes("", 0), lim__buf_bytes(&b));
    lim__buf_fini(&b);
    lim__talk_keep(t)->noted++;
}

/* ---- the state ---- */

static lim_bytes identity(const lim__assigned *a)
{
    return a != NULL ? lim__bytes(a->text, a->identity_len) : lim__bytes("", 0);
}

static void pack_party(lim__buf *b, lim_pid pid, bool required, const lim__assigned *a)
{
    lim__pack_u64(b, pid.id);
    lim__pack_u8(b, (uint8_t)((required ? 1 : 0) | (a != NULL ? 2 : 0)));
    lim__pack_bytes(b, identity(a));
    lim__pack_bytes(b, a != NULL ? lim__bytes(a->session, sizeof a->session) : lim__bytes("", 0));
}

static void pack_parties(const talk *t, lim__buf *b)
{
    const keep *k = lim__talk_keep(t);
    uint32_t awaited = 0, names = 0;
    LIM__LIST_EACH(n, &k->away)
        awaited += n != NULL;
    LIM__LIST_EACH(n, &k->renamed)
        names += n != NULL;
    lim__pack_u32(b, t->alive + awaited);
    for (uint32_t i = 0; i < t->alive; i++)
        pack_party(b, t->parties[i].pid, t->parties[i].required, t->parties[i].assigned);
    LIM__LIST_EACH(n, &k->away) {
        const away *a = LIM_CONTAINER(n, away, node);
        pack_party(b, a->pid, a->required, a->assigned);
    }
    lim__pack_u32(b, names);
    LIM__LIST_EACH(n, &k->renamed) {
        lim__pack_u64(b, LIM_CONTAINER(n, renamed, node)->was.id);
        lim__pack_u64(b, LIM_CONTAINER(n, renamed, node)->now.id);
    }
}

static void pack_past(const rare *r, lim__buf *b)
{
    lim__pack_u32(b, r->past_count);
    for (uint32_t i = 0; i < r->past_count; i++) {
        const past *p = &r->past[i];
        pack_party(b, p->pid, p->crashed, p->assigned);
        lim__pack_u32(b, (uint32_t)p->reason);
        lim__pack_u64(b, p->wall_us);
        lim__pack_u64(b, p->rerouted_wall_us);
    }
}

lim__buf lim__keep_state(const talk *t, lim_process *self)
{
    const keep *k = lim__talk_keep(t);
    lim__buf b = { 0 };
    (void)self;
    lim__pack_u8(&b, VERSION);
    lim__pack_u8(&b, t->phase);
    lim__pack_u8(&b, t->how);
    lim__pack_u8(&b, t->why);
    lim__pack_u64(&b, k->ending ? t->bus->os->wall_ns(t->bus->os) : 0);
    lim__pack_u64(&b, t->owner.id);
    lim__pack_u8(&b, (uint8_t)((t->push ? 1 : 0) | (t->wanting ? 2 : 0)));
    lim__pack_u64(&b, t->rare->compensation.id);
    const uint64_t numbers[] = { t->next_lease,  t->told,       t->sent,          t->received,
                                 t->asked,       t->answered,   t->rare->refused, t->rare->unasked,
                                 k->inbox_first, k->inbox_next, k->held_next };
    for (size_t i = 0; i < LIM_COUNT(numbers); i++)
        lim__pack_u64(&b, numbers[i]);
    pack_parties(t, &b);
    pack_past(t->rare, &b);
    return b;
}

static void put_open(const talk *t, lim__batch *batch)
{
    const keep *k = lim__talk_keep(t);
    const lim__open *o = t->open;
    uint8_t key[18];
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, k->stream);
    lim__pack_u64(&b, k->opened_wall_ns);
    lim__pack_u64(&b, lim__keep_to_wall(t, t->deadline_ns));
    lim__pack_u8(&b, (uint8_t)o->on_crash);
    lim__pack_bytes(&b, lim__bytes(o->text, o->group_len));
    lim__pack_bytes(&b, o->terms->block);
    pack_msg(&b, o->payload);
    lim__batch_put(batch, LIM__TABLE_TALKS, lim__keep_key(k->id, 'o', 0, key), lim__buf_bytes(&b));
    lim__buf_fini(&b);
}

/* ---- commits ---- */

static lim__batch *batch_of(talk *t)
{
    keep *k = lim__talk_keep(t);
    uint8_t key[18];
    lim__batch *batch = k->ops.failed || k->state.failed ? NULL : lim__batch_new();
    if (batch == NULL)
        return NULL;
    if (k->stream == 0)
        k->stream = lim__durable_stream(t->bus, batch);
    if (k->fresh)
        put_open(t, batch);
    if (k->ending)
        lim__batch_small(batch);
    lim__batch_put(batch, LIM__TABLE_TALKS, lim__keep_key(k->id, 's', 0, key), lim__buf_bytes(&k->state));
    lim__unpack u = lim__unpack_begin(lim__buf_bytes(&k->ops));
    while (u.at < u.end) {
        uint8_t what = lim__unpack_u8(&u);
        lim_bytes row = lim__unpack_bytes(&u), value = lim__unpack_bytes(&u);
        if (what == OP_PUT)
            lim__batch_put(batch, LIM__TABLE_TALKS, row, value);
        else if (what == OP_DELETE)
            lim__batch_delete(batch, LIM__TABLE_TALKS, row);
        else
            lim__batch_append(batch, k->stream, lim__bytes("", 0), &value, 1);
    }
    return batch;
}

static void again(talk *t, lim_process *self)
{
    uint64_t timer;
    (void)t;
    if (lim_timer_start(self, AGAIN_MS * MS, LIM__TALK_TAG_STORE, &timer) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

static void commit(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    k->storing = true;
    lim_err err = lim__durable_commit(self, t->bus, batch_of(t), ++k->ref);
    if (err != LIM_OK && err != LIM_E_CLOSED) /* closed: it stands as it was stored last */
        again(t, self);
}

lim_err lim__keep_post(talk *t, lim_process *self, lim_pid to, void *letter)
{
    if (LIM__MUTATION("talk_told_before_stored"))
        return lim__send_reserved(self, to, letter);
    parcel *p = lim__alloc(lim__proc_sched(self), sizeof *p);
    if (p == NULL) {
        lim__letter_free(lim__proc_sched(self), letter);
        lim_exit(self, LIM_FAULT);
        return LIM_OK; /* it is sent by the process that follows */
    }
    *p = (parcel){ .to = to, .letter = letter };
    lim__list_push(&lim__talk_keep(t)->outbox, &p->node);
    return LIM_OK;
}

static void flush(talk *t, lim_process *self)
{
    for (lim__list *n; (n = lim__list_pop(&lim__talk_keep(t)->outbox)) != NULL;) {
        parcel *p = LIM_CONTAINER(n, parcel, node);
        (void)!lim__send_reserved(self, p->to, p->letter); /* gone: its exit is on its way */
        lim__free(lim__proc_sched(self), p, sizeof *p);
    }
}

static void drop_outbox(keep *k, lim__sched *s)
{
    for (lim__list *n; (n = lim__list_pop(&k->outbox)) != NULL;) {
        parcel *p = LIM_CONTAINER(n, parcel, node);
        lim__letter_free(s, p->letter);
        lim__free(s, p, sizeof *p);
    }
}

/* What is left of its rows when it has ended: 'o', 's', the history. */
static void clear_rows(talk *t)
{
    keep *k = lim__talk_keep(t);
    while (k->inbox_first < k->inbox_next)
        lim__keep_taken(t);
    LIM__LIST_EACH(n, &k->held)
        lim__keep_held_gone(t, LIM_CONTAINER(n, held, node));
}

/* What can wait goes with what cannot; if nothing comes, by itself, some time. */
static void with_late(keep *k)
{
    lim_bytes late = lim__buf_bytes(&k->late);
    if (late.len > 0)
        lim__buf_add(&k->ops, late.ptr, late.len);
    lim__buf_fini(&k->late);
    k->sweep = false;
}

static void sweep_later(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    uint64_t timer;
    if (!k->sweeping && lim__buf_len(&k->late) > 0)
        k->sweeping = lim_timer_start(self, SWEEP_MS * MS, LIM__TALK_TAG_SWEEP, &timer) == LIM_OK;
}

static void finished(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    k->ended = true;
    flush(t, self);
    if (!k->vain)
        lim__over_ended(t->bus, k->id, k->stream, t->bus->os->wall_ns(t->bus->os));
    lim_exit(self, LIM_NORMAL);
}

void lim__keep_end(talk *t, lim_process *self)
{
    (void)self;
    if (!lim__talk_keep(t)->ending)
        clear_rows(t);
    lim__talk_keep(t)->ending = true;
}

/* While the group looks for its first participant nothing is stored, and nothing is said: only then it is open. */
static bool opening(const talk *t)
{
    return !t->opened && t->phase != LIM_PHASE_BROKEN && !lim__talk_keep(t)->ending;
}

void lim__keep_settle(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    if (k->storing || k->replaying || k->ended || (opening(t) && !k->vain))
        return;
    if (k->vain || (k->fresh && k->ending)) {
        k->vain = true;
        if (k->ending)
            finished(t, self);
        else
            flush(t, self);
        return;
    }
    lim__buf state = lim__keep_state(t, self);
    lim_bytes now = lim__buf_bytes(&state);
    bool same = !k->fresh && !k->ending && !k->sweep && lim__buf_len(&k->ops) == 0 &&
                lim__bytes_eq(now, lim__buf_bytes(&k->state));
    lim__buf_fini(&k->state);
    k->state = state;
    if (same) {
        flush(t, self);
        sweep_later(t, self);
        return;
    }
    with_late(k);
    commit(t, self);
}

/* Not even its beginning could be stored. */
static void not_opened(talk *t, lim_process *self, lim_err err)
{
    keep *k = lim__talk_keep(t);
    drop_outbox(k, lim__proc_sched(self));
    k->vain = true;
    k->storing = false;
    lim__talk_done(t, self, t->owner, t->open->ref, &(lim__done){ .err = err });
    lim__talk_calls_end(t, self, LIM_HOW_CLOSED);
    lim__talk_let_go(t, self);
    finished(t, self);
}

static void on_stored(talk *t, lim_process *self, const lim__stored *what, lim_on_signal *handler)
{
    keep *k = lim__talk_keep(t);
    if (what->ref != k->ref || !k->storing)
        return;
    if (what->how == LIM__COMMIT_CLOSED)
        return;
    if (what->how != LIM__COMMITTED && k->fresh && what->how != LIM__COMMIT_UNKNOWN) {
        not_opened(t, self, what->how == LIM__COMMIT_FULL ? LIM_E_FULL : LIM_E_IO);
        return;
    }
    if (what->how != LIM__COMMITTED) {
        again(t, self);
        return;
    }
    k->storing = k->fresh = false;
    lim__buf_fini(&k->ops);
    if (k->ending) {
        finished(t, self);
        return;
    }
    flush(t, self);
    k->replaying = true;
    while (!k->ending && lim__stash_replay(&k->stash, self, handler, t))
        continue;
    k->replaying = false;
    lim__keep_settle(t, self);
}

/* Its time has come; what waits for a commit meanwhile has gone with that. True: there is nothing to do. */
static bool sweep(keep *k)
{
    k->sweeping = false;
    k->sweep = !k->storing && lim__buf_len(&k->late) > 0;
    return !k->sweep;
}

bool lim__keep_signal(talk *t, lim_process *self, const lim_signal *signal, lim_on_signal *handler)
{
    keep *k = lim__talk_keep(t);
    if (signal->kind == LIM_SIGNAL_EXIT && signal->from.id == 0)
        return false; /* somebody ends this process */
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &lim__type_stored)
        on_stored(t, self, signal->body.ptr, handler);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__TALK_TAG_STORE)
        commit(t, self);
    else if (k->ended || (k->ending && k->replaying))
        return true; /* it is over */
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__TALK_TAG_SWEEP)
        return sweep(k);
    else if (!k->storing)
        return false;
    else if (lim__stash_put(&k->stash, self, signal) != LIM_OK)
        lim_exit(self, LIM_FAULT);
    return true;
}

/* ---- its life ---- */

lim_err lim__keep_begin(talk *t, lim_process *self)
{
    lim__sched *s = lim__proc_sched(self);
    rare *r = lim__talk_rare(t, self);
    if (t->bus->durable == NULL)
        return LIM_E_MISUSE;
    if (r == NULL || (r->keep = lim__alloc(s, sizeof *r->keep)) == NULL)
        return LIM_E_NOMEM;
    *r->keep = (keep){ .id = lim__state_pid(t).id, .opened_wall_ns = t->bus->os->wall_ns(t->bus->os), .fresh = true };
    lim__list_init(&r->keep->outbox);
    lim__list_init(&r->keep->away);
    lim__list_init(&r->keep->held);
    lim__list_init(&r->keep->renamed);
    lim__stash_init(&r->keep->stash);
    t->kept = true;
    lim__conv_apart(t->bus, true);
    return LIM_OK;
}

static void lists_free(keep *k, lim__sched *s)
{
    for (lim__list *n; (n = lim__list_pop(&k->away)) != NULL;) {
        away *a = LIM_CONTAINER(n, away, node);
        if (a->assigned != NULL)
            lim__letter_free(s, a->assigned);
        lim__free(s, a, sizeof *a);
    }
    for (lim__list *n; (n = lim__list_pop(&k->held)) != NULL;) {
        lim__hold_free(s, LIM_CONTAINER(n, held, node));
    }
    for (lim__list *n; (n = lim__list_pop(&k->renamed)) != NULL;)
        lim__free(s, LIM_CONTAINER(n, renamed, node), sizeof(renamed));
}

void lim__keep_free(talk *t, lim_reason reason, lim__sched *s)
{
    keep *k = lim__talk_keep(t);
    bool closing = atomic_load_explicit(&t->bus->closing, memory_order_relaxed) == 2;
    drop_outbox(k, s);
    lim__stash_fini(&k->stash, NULL);
    lists_free(k, s);
    lim__buf_fini(&k->ops);
    lim__buf_fini(&k->late);
    lim__buf_fini(&k->state);
    lim__conv_apart(t->bus, false);
    if (k->id != lim__state_pid(t).id && (k->ended || closing))
        lim__alias_drop(t->bus, k->id);
    if (!k->ended && !k->vain && reason != LIM_NORMAL && !closing)
        lim__back_bring(t->bus, k->id);
    lim__free(s, k, sizeof *k);
    t->rare->keep = NULL;
}

/* ---- owners ---- */

void lim__keep_owner_gone(talk *t, lim_process *self)
{
    lim__talk_note(t, self, "detached", (lim_pid){ 0 }, lim__bytes("", 0), 0, 0);
    lim__talk_calls_disown(t, self);
    t->owner = (lim_pid){ 0 };
    t->push = false;
}

void lim__keep_attach(talk *t, lim_process *self, const lim__command *m)
{
    if (t->kept && t->owner.id != 0 && !lim_alive(t->bus->rt, t->owner))
        lim__keep_owner_gone(t, self); /* it is about to hear of that */
    lim_err err = !t->kept ? LIM_E_INVALID : t->owner.id != 0 && t->owner.id != m->from.id ? LIM_E_EXISTS : LIM_OK;
    if (err == LIM_OK)
        err = lim_link(self, m->from);
    if (err == LIM_OK) {
        t->owner = m->from;
        lim__talk_note(t, self, "attached", (lim_pid){ 0 }, lim__bytes("", 0), 0, 0);
    }
    lim__talk_done(t, self, m->from, m->ref, &(lim__done){ .err = err });
}
