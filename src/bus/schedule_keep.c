/* SPDX-License-Identifier: Apache-2.0
 * schedule_keep.c - the rows of schedules, on a bus that has a store.
 *
 *      ops, what is due --touch, then--> the book, ahead of the disk --commit--> stored: the effects (answers, fires)
 *                                                                     `--------> not: everything as it was before
 *
 * A schedule is two rows: NAME, what was asked for and when (only `add` writes it), and NAME 0, how far it has come,
 * with the fires of tasks whose verdict is not known. Two kinds of rows begin with 0: 0 MARK (8 bytes), which a task
 * writes with its own first row, so that it is known that this fire has become one; and 0 alone, which counts the
 * batches that put records into channels: one that is in doubt is committed again, and expects to be the next.
 *
 * While a commit is under way the process listens to nothing else (system.c), so what is touched and what is to follow
 * belong to one batch. Both are the book's, not the process's: if that dies meanwhile, the next one commits the same
 * once more, which does no harm, and goes on from there.
 *
 * At start-up the rows are read by whoever opens the bus, and taken in by the process before its first signal. */
#include "base/base.h"
#include "bus/log.h"
#include "bus/schedule_inside.h"
#include "data/data.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { VERSION = 1, NAME_MAX = 255, HOLD_MS = 1000 };
#define MS UINT64_C(1000000)

/* ---- writing ---- */

static lim_bytes state_key(lim_bytes name, char key[NAME_MAX + 1])
{
    memcpy(key, name.ptr, name.len);
    key[name.len] = '\0';
    return lim__bytes(key, name.len + 1);
}

static void pack_fire(lim__buf *b, const lim__fire *f)
{
    lim__pack_u64(b, f->at_ns);
    lim__pack_u64(b, f->fired_ns);
    lim__pack_u64(b, f->task.id);
    lim__pack_u8(b, (uint8_t)f->admission.verdict);
    lim__pack_u8(b, (uint8_t)f->admission.why);
    lim__pack_u8(b, (uint8_t)f->err);
    lim__pack_u8(b, (uint8_t)f->how);
    lim__pack_u8(b, f->manual);
}

static void delete_mark(lim__batch *batch, uint64_t mark)
{
    uint8_t key[9];
    lim__schedule_mark_key(key, mark);
    lim__batch_delete(batch, LIM__TABLE_SCHEDULES, lim__bytes(key, sizeof key));
}

static void pack_pending(lim__batch *batch, lim__buf *b, lim__schedule *s)
{
    uint32_t count = 0;
    LIM__LIST_EACH(n, &s->pending)
        count += !LIM_CONTAINER(n, lim__pending_fire, node)->settled;
    lim__pack_u32(b, count);
    LIM__LIST_EACH(n, &s->pending) {
        lim__pending_fire *p = LIM_CONTAINER(n, lim__pending_fire, node);
        p->leaving = p->settled;
        if (p->settled) {
            delete_mark(batch, p->mark);
            continue;
        }
        lim__pack_u64(b, p->mark);
        lim__pack_u64(b, p->at_ns);
        lim__pack_u64(b, p->number);
        lim__pack_u8(b, p->manual);
    }
}

static void put_state(lim__batch *batch, lim__schedule *s, uint64_t wall_ns)
{
    char key[NAME_MAX + 1];
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, wall_ns);
    lim__pack_u8(&b, (uint8_t)s->state);
    lim__pack_u32(&b, s->caught_up);
    lim__pack_u64(&b, s->due_ns);
    lim__pack_u64(&b, s->fires);
    lim__pack_u64(&b, s->rejected);
    lim__pack_u64(&b, s->overlapped);
    lim__pack_u64(&b, s->missed);
    pack_fire(&b, &s->last);
    pack_pending(batch, &b, s);
    lim__batch_put(batch, LIM__TABLE_SCHEDULES, state_key(s->name, key), lim__buf_bytes(&b));
    lim__buf_fini(&b);
}

static void delete_rows(lim__batch *batch, const lim__schedule *s)
{
    char key[NAME_MAX + 1];
    lim__batch_delete(batch, LIM__TABLE_SCHEDULES, s->name);
    lim__batch_delete(batch, LIM__TABLE_SCHEDULES, state_key(s->name, key));
    LIM__LIST_EACH(n, &s->pending) /* one that is still to come is found at the next start, and goes then */
        delete_mark(batch, LIM_CONTAINER(n, lim__pending_fire, node)->mark);
}

static void put_new(const lim__schedules *book, lim__batch *batch, lim__schedule_effect *e)
{
    lim__buf b = { 0 };
    const lim__schedule *out = lim__schedule_gives_way(book, e->s);
    if (out != NULL)
        delete_rows(batch, out);
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, e->wall_ns);
    lim__pack_bytes(&b, lim__buf_bytes(&e->json));
    lim__batch_put(batch, LIM__TABLE_SCHEDULES, e->s->name, lim__buf_bytes(&b));
    lim__buf_fini(&b);
    put_state(batch, e->s, book->wall_ns);
}

/* The record of a fire, if the channel takes it. */
static bool append(lim__batch *batch, lim__schedule_effect *e)
{
    const lim__log_message m = { .payload = lim__msg_bytes(e->payload) };
    e->logged = lim__log_append(e->log, batch, &m, NULL);
    return e->logged == LIM_OK;
}

/* Stored once, however often it is committed. */
static void expect_to_be_next(const lim__schedules *book, lim__batch *batch)
{
    uint8_t before[9] = { VERSION }, after[9] = { VERSION };
    const lim_bytes key = lim__bytes("", 1);
    lim__key_u64(before + 1, book->appended);
    lim__key_u64(after + 1, book->appended + 1);
    lim__batch_expect(batch, LIM__TABLE_SCHEDULES, key,
                      book->appended == 0 ? lim__bytes(NULL, 0) : lim__bytes(before, sizeof before));
    lim__batch_put(batch, LIM__TABLE_SCHEDULES, key, lim__bytes(after, sizeof after));
}

static void delete_old_marks(const lim__schedules *book, lim__batch *batch)
{
    lim__unpack u = lim__unpack_begin(lim__buf_bytes(&book->old_marks));
    while (u.at < u.end)
        delete_mark(batch, lim__unpack_u64(&u));
}

static lim__batch *batch_of(lim__schedules *book)
{
    lim__batch *batch = lim__batch_new();
    bool small = true, appends = false;
    if (batch == NULL)
        return NULL;
    LIM__LIST_EACH(n, &book->touched)
        put_state(batch, LIM_CONTAINER(n, lim__schedule, touched_node), book->wall_ns);
    LIM__LIST_EACH(n, &book->effects) {
        lim__schedule_effect *e = LIM_CONTAINER(n, lim__schedule_effect, node);
        if (e->act == LIM__ACT_PUT)
            put_new(book, batch, e);
        else if (e->act == LIM__ACT_RM)
            delete_rows(batch, e->s);
        else if (e->log != NULL)
            appends |= append(batch, e);
        small &= e->act != LIM__ACT_PUT && e->log == NULL;
    }
    book->appends = appends;
    if (appends && !LIM__MUTATION("fire_committed_again"))
        expect_to_be_next(book, batch);
    delete_old_marks(book, batch);
    if (small) /* nothing grows */
        lim__batch_small(batch);
    return batch;
}

/* ---- what is to follow ---- */

void lim__schedule_touch(lim__schedules *book, lim__schedule *s)
{
    if (!book->kept || s == NULL || s->touched)
        return;
    s->touched = true;
    s->before =
        (lim__schedule_now){ s->state, s->caught_up, s->due_ns, s->fires, s->rejected, s->overlapped, s->missed };
    lim__list_push(&book->touched, &s->touched_node);
}

lim__schedule_effect *lim__schedule_effect_new(lim__system *sys, lim__schedule_act act, lim__schedule *s)
{
    lim__schedule_effect *e = calloc(1, sizeof *e);
    (void)sys;
    if (e != NULL)
        *e = (lim__schedule_effect){ .act = act, .s = s };
    return e;
}

void lim__schedule_effect_free(lim__schedule_effect *e)
{
    if (e->act == LIM__ACT_PUT)
        lim__schedule_drop(e->s); /* NULL once it has entered */
    if (e->log != NULL)
        lim__log_unref(e->log);
    lim__msg_unref(e->payload);
    lim__buf_fini(&e->json);
    free(e);
}

void lim__schedule_then(lim__system *sys, lim__schedule_effect *e)
{
    if (sys->bus->schedules->kept)
        lim__list_push(&sys->bus->schedules->effects, &e->node);
    else
        lim__schedule_act_out(sys, e);
}

/* ---- fires of tasks ---- */

lim__pending_fire *lim__schedule_pend(lim__system *sys, lim__schedule *s, const lim__schedule_effect *e)
{
    lim__pending_fire *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    *p = (lim__pending_fire){
        .mark = sys->bus->os->random(sys->bus->os) | 1, .at_ns = e->at_ns, .number = e->number, .manual = e->manual
    };
    lim__list_push(&s->pending, &p->node);
    return p;
}

void lim__pending_free(lim__pending_fire *p)
{
    lim__list_remove(&p->node);
    free(p);
}

void lim__schedule_settled(lim__schedules *book, lim__schedule *s, uint64_t ref, bool now)
{
    LIM__LIST_EACH(n, &s->pending) {
        lim__pending_fire *p = LIM_CONTAINER(n, lim__pending_fire, node);
        if (p->ref != ref || ref == 0)
            continue;
        if (now)
            lim__schedule_touch(book, s); /* nothing else says that it was dealt with */
        p->settled = true;
        return;
    }
}

static void forget_settled(lim__schedule *s, bool stored)
{
    LIM__LIST_EACH_SAFE(n, next, &s->pending) {
        lim__pending_fire *p = LIM_CONTAINER(n, lim__pending_fire, node);
        if (stored && p->leaving)
            lim__pending_free(p);
        else
            p->leaving = false;
    }
}

static void untouch(lim__schedules *book, bool back)
{
    for (lim__list *n; (n = lim__list_pop(&book->touched)) != NULL;) {
        lim__schedule *s = LIM_CONTAINER(n, lim__schedule, touched_node);
        s->touched = false;
        forget_settled(s, !back);
        if (back)
            lim__schedule_set(book, s, &s->before);
    }
}

/* One that the row has already is fired a little later. */
static void not_fired(lim__schedules *book, lim__pending_fire *p, bool in_row)
{
    if (!in_row) {
        lim__pending_free(p);
        return;
    }
    p->restored = true;
    book->again = true;
}

/* Nothing of it was stored: it was not, and is not, done. */
static void take_back(lim__system *sys, lim_err err, const char *why)
{
    lim__schedules *book = sys->bus->schedules;
    untouch(book, true);
    book->hold_ns = lim_now_ns(sys->self) + HOLD_MS * MS;
    for (lim__list *n; (n = lim__list_pop(&book->effects)) != NULL;) {
        lim__schedule_effect *e = LIM_CONTAINER(n, lim__schedule_effect, node);
        if (e->act == LIM__ACT_FIRE)
            e->s->planned = false;
        if (e->pending != NULL)
            not_fired(book, e->pending, e->old);
        if (e->act == LIM__ACT_RM)
            e->s->leaving = false;
        lim__schedule *stays = e->act == LIM__ACT_PUT ? lim__schedule_gives_way(book, e->s) : NULL;
        if (stays != NULL)
            stays->leaving = false;
        sys->asker = e->asker;
        if (e->asker.conv.id != 0)
            lim__sys_refuse(sys, err, "it was not stored, and nothing has changed: %s", why);
        lim__schedule_effect_free(e);
    }
    LIM_CHECK((lim__schedules_check(book), true));
}

static void commit(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    book->planned_bytes = 0;
    lim_err err = lim__durable_commit(sys->self, sys->bus, batch_of(book), ++book->ref);
    book->committing = sys->busy = err == LIM_OK;
    if (err != LIM_OK)
        take_back(sys, err, lim_err_text(err));
}

void lim__schedules_commit(lim__system *sys)
{
    const lim__schedules *book = sys->bus->schedules;
    if (!book->committing && (!lim__list_empty(&book->touched) || !lim__list_empty(&book->effects)))
        commit(sys);
}

void lim__schedules_doubt(lim__system *sys)
{
    LIM__LIST_EACH(n, &sys->bus->schedules->effects)
        LIM_CONTAINER(n, lim__schedule_effect, node)->asker = (lim__asker){ { 0 }, 0 }; /* has heard of the death */
    commit(sys);
}

static const char *not_stored(lim__commit_how how)
{
    return how == LIM__COMMIT_FULL     ? "the store is full"
           : how == LIM__COMMIT_CLOSED ? "the bus is closing"
                                       : "the disk failed";
}

void lim__schedules_stored(lim__system *sys, const lim__stored *what)
{
    lim__schedules *book = sys->bus->schedules;
    if (what->ref != book->ref || !book->committing)
        return;
    book->committing = sys->busy = false;
    bool before = what->how == LIM__COMMIT_CONFLICT && book->appends; /* a process before this one did it, and died */
    if (what->how != LIM__COMMITTED && !before) {
        take_back(sys, what->how == LIM__COMMIT_FULL ? LIM_E_FULL : LIM_E_IO, not_stored(what->how));
        return;
    }
    book->appended += book->appends;
    lim__buf_fini(&book->old_marks);
    untouch(book, false);
    for (lim__list *n; (n = lim__list_pop(&book->effects)) != NULL;)
        lim__schedule_act_out(sys, LIM_CONTAINER(n, lim__schedule_effect, node));
}

/* ---- reading ---- */

lim_err lim__schedules_restore(lim_bus *bus, lim_diag *diag)
{
    return lim__rows_read(bus, LIM__TABLE_SCHEDULES, "$sys.schedules", &bus->schedules->rows, diag);
}

static void unpack_fire(lim__unpack *u, lim__fire *f)
{
    f->at_ns = lim__unpack_u64(u);
    f->fired_ns = lim__unpack_u64(u);
    f->task.id = lim__unpack_u64(u);
    f->admission.verdict = (lim_verdict)lim__unpack_u8(u);
    f->admission.why = (lim_why)lim__unpack_u8(u);
    f->err = (lim_err)lim__unpack_u8(u);
    f->how = (lim_how)lim__unpack_u8(u);
    f->manual = lim__unpack_u8(u) != 0;
}

/* Those that became tasks are dealt with. */
static bool take_pending(lim__schedules *book, lim__schedule *s, lim__unpack *u)
{
    for (uint32_t left = lim__unpack_u32(u); left > 0 && !u->bad; left--) {
        lim__pending_fire *p = calloc(1, sizeof *p);
        if (p == NULL)
            return false;
        p->mark = lim__unpack_u64(u);
        p->at_ns = lim__unpack_u64(u);
        p->number = lim__unpack_u64(u);
        p->manual = lim__unpack_u8(u) != 0;
        p->settled = lim__map_remove(&book->marks, p->mark) != NULL;
        p->restored = !p->settled;
        book->again |= p->restored;
        lim__list_push(&s->pending, &p->node);
    }
    return true;
}

static bool take_state(lim__schedules *book, lim__schedule *s, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    lim__schedule_now now;
    lim__fire last = { 0 };
    if (lim__unpack_u8(&u) != VERSION)
        return false;
    uint64_t wall_ns = lim__unpack_u64(&u);
    now.state = (lim__schedule_state)lim__unpack_u8(&u);
    now.caught_up = lim__unpack_u32(&u);
    now.due_ns = lim__unpack_u64(&u);
    now.fires = lim__unpack_u64(&u);
    now.rejected = lim__unpack_u64(&u);
    now.overlapped = lim__unpack_u64(&u);
    now.missed = lim__unpack_u64(&u);
    unpack_fire(&u, &last);
    if (!take_pending(book, s, &u) || !lim__unpack_end(&u) || now.state < LIM__SCHEDULE_ACTIVE ||
        now.state > LIM__SCHEDULE_DONE)
        return false;
    lim__schedule_set(book, s, &now);
    s->last = last;
    if (book->wall_ns < wall_ns)
        book->wall_ns = wall_ns; /* a clock that was set back meanwhile is noticed */
    return true;
}

static bool take_new(lim__schedules *book, lim_bytes value, lim_diag *diag)
{
    lim__unpack u = lim__unpack_begin(value);
    lim__schedule *s;
    bool known = lim__unpack_u8(&u) == VERSION;
    uint64_t wall_ns = lim__unpack_u64(&u);
    lim_bytes json = lim__unpack_bytes(&u);
    if (!known || !lim__unpack_end(&u))
        return false;
    lim__schedule_change c = { .kind = LIM__SCHEDULE_PUT, .json = json, .wall_ns = wall_ns };
    if (lim__schedule_prepare(book, &c, diag, &s) != LIM_OK)
        return false;
    lim__schedule_enter(book, s);
    return true;
}

/* The rows that begin with 0 come first. */
static void take_own(lim__schedules *book, lim_bytes key, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    if (key.len == 9)
        (void)!lim__map_put(&book->marks, lim__key_get_u64((const uint8_t *)key.ptr + 1), book);
    else if (key.len == 1 && lim__unpack_u8(&u) == VERSION && value.len == 9)
        book->appended = lim__key_get_u64((const uint8_t *)value.ptr + 1);
}

/* Marks of schedules that are gone. */
static void leave_marks(lim__schedules *book)
{
    size_t pos = 0;
    uint64_t id;
    void *value;
    while (lim__map_next(&book->marks, &pos, &id, &value))
        lim__pack_u64(&book->old_marks, id);
    lim__map_fini(&book->marks);
    lim__map_init(&book->marks, 0);
}

/* The row of what was asked for comes first, then that of its state. One that cannot be read is left as it is. */
void lim__schedules_take_rows(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    lim__buf *rows = lim__rows_take(&book->rows);
    if (rows == NULL)
        return;
    book->kept = true;
    book->durability = (lim_class)lim__durable_class(sys->bus);
    lim__unpack u = lim__unpack_begin(lim__buf_bytes(rows));
    while (u.at < u.end) {
        lim_diag diag = { 0 };
        lim_bytes key = lim__unpack_bytes(&u), value = lim__unpack_bytes(&u);
        if (key.len > 0 && *(const char *)key.ptr == '\0') {
            take_own(book, key, value);
            continue;
        }
        bool state = key.len > 0 && ((const char *)key.ptr)[key.len - 1] == '\0';
        lim__schedule *s = state ? lim__schedule_named(book, lim__bytes(key.ptr, key.len - 1)) : NULL;
        if (state ? s == NULL || take_state(book, s, value) : take_new(book, value, &diag))
            continue;
        LIM__EVENT(sys->bus, sys->self, "schedule.unreadable", { "name", lim__bytes(key.ptr, key.len - state) },
                   { "why", lim__str(diag.text) });
    }
    lim__rows_free(rows);
    leave_marks(book);
    LIM_CHECK((lim__schedules_check(book), true));
}
