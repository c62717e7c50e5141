/* SPDX-License-Identifier: Apache-2.0
 * saga_keep.c - the rows of durable sagas.
 *
 *   ID 'd'          what was asked for, what its children inherit, when it began and until when it may take
 *   ID 's'          how far it has come: the plan
 *   ID 'w' u8 u8    how a step (0), or the compensation of a step (1), ended
 *   "next"          the newest id that was given: keys of tasks are made of it, and never occur twice
 *
 * What is under way has no row of its own: that it is, is what the plan says; and whatever is dispatched for it carries
 * a key that follows from saga and step, so that dispatching it once more is no harm. Times are wall clock. */
#include "bus/saga_inside.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { VERSION = 1, KEY = 11 };

static lim_bytes key_of(uint64_t id, char what, uint32_t undo, uint32_t at, uint8_t key[KEY])
{
    size_t n = lim__key_u64(key, id);
    key[n++] = (uint8_t)what;
    if (what == 'w') {
        key[n++] = (uint8_t)undo;
        key[n++] = (uint8_t)at;
    }
    return lim__bytes(key, n);
}

static uint64_t to_wall(const lim_bus *bus, uint64_t now_ns, uint64_t at_ns)
{
    return at_ns == 0 ? 0 : bus->os->wall_ns(bus->os) + at_ns - now_ns;
}

/* What is past by wall clock is just past; what is to come by more than `most` was written with another clock. */
static uint64_t from_wall(const lim_bus *bus, uint64_t now_ns, uint64_t wall_ns)
{
    uint64_t wall_now = bus->os->wall_ns(bus->os);
    if (wall_ns == 0)
        return 0;
    if (wall_ns <= wall_now)
        return now_ns > wall_now - wall_ns ? now_ns - (wall_now - wall_ns) : 1;
    return now_ns + (wall_ns - wall_now);
}

/* ---- writing ---- */

static void put(lim__batch *batch, lim_bytes key, lim__buf *value)
{
    lim__batch_put(batch, LIM__TABLE_SAGAS, key, lim__buf_bytes(value));
    lim__buf_fini(value);
}

static void put_definition(lim_bus *bus, lim__batch *batch, const lim__saga *saga, uint64_t now_ns)
{
    uint8_t key[KEY];
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, to_wall(bus, now_ns, saga->begun_ns));
    lim__pack_u64(&b, to_wall(bus, now_ns, saga->deadline_ns));
    lim__pack_bytes(&b, saga->terms != NULL ? saga->terms->block : lim__bytes("", 0));
    lim__pack_bytes(&b, lim__buf_bytes(&saga->request));
    put(batch, key_of(saga->id, 'd', 0, 0, key), &b);
    lim__pack_u8(&b, VERSION);
    lim__pack_u64(&b, saga->id);
    put(batch, lim__str("next"), &b);
}

static void put_plan(lim_bus *bus, lim__batch *batch, const lim__saga *saga, uint64_t now_ns)
{
    uint8_t key[KEY];
    lim__buf b = { 0 };
    lim__pack_u8(&b, VERSION);
    lim__pack_u8(&b, (uint8_t)saga->plan.state);
    lim__pack_u8(&b, (uint8_t)saga->plan.at);
    lim__pack_u8(&b, saga->cancelled);
    lim__pack_u64(&b, to_wall(bus, now_ns, saga->ended_ns));
    lim__pack_u8(&b, (uint8_t)saga->plan.count);
    for (uint32_t i = 0; i < saga->plan.count; i++) {
        lim__pack_u8(&b, (uint8_t)saga->plan.steps[i].step);
        lim__pack_u8(&b, (uint8_t)saga->plan.steps[i].undo);
    }
    put(batch, key_of(saga->id, 's', 0, 0, key), &b);
}

static void put_work(lim__batch *batch, const lim__saga *saga, uint32_t at, uint32_t undo)
{
    uint8_t key[KEY];
    const lim__saga_work *w = undo ? &saga->ones[at].undo : &saga->ones[at].step;
    lim__buf b = { 0 };
    if (w->how == LIM_HOW_NONE || w->stored)
        return;
    lim__pack_u8(&b, VERSION);
    lim__pack_u8(&b, (uint8_t)w->how);
    lim__pack_u8(&b, (uint8_t)w->handed);
    lim__pack_u8(&b, (uint8_t)w->why);
    lim__pack_u64(&b, w->elapsed_ns);
    lim__pack_u64(&b, w->conv.id);
    lim__pack_bytes(&b, lim__str(w->detail));
    lim__pack_bytes(&b, lim__str(w->participant));
    lim__pack_u8(&b, w->reply != NULL);
    lim__pack_bytes(&b, w->reply != NULL ? lim__msg_bytes(w->reply) : lim__bytes("", 0));
    put(batch, key_of(saga->id, 'w', undo, at, key), &b);
}

lim__batch *lim__saga_batch(lim_bus *bus, const lim__saga *saga, uint64_t now_ns)
{
    lim__batch *batch = lim__batch_new();
    if (batch == NULL)
        return NULL;
    if (lim__buf_len(&saga->request) > 0)
        put_definition(bus, batch, saga, now_ns);
    else
        lim__batch_small(batch); /* one that runs may end */
    put_plan(bus, batch, saga, now_ns);
    for (uint32_t i = 0; i < saga->plan.count; i++) {
        put_work(batch, saga, i, 0);
        put_work(batch, saga, i, 1);
    }
    return batch;
}

void lim__saga_stored(lim__saga *saga)
{
    lim__buf_fini(&saga->request);
    saga->request = (lim__buf){ 0 };
    for (uint32_t i = 0; i < saga->plan.count; i++) {
        saga->ones[i].step.stored = saga->ones[i].step.how != LIM_HOW_NONE;
        saga->ones[i].undo.stored = saga->ones[i].undo.how != LIM_HOW_NONE;
    }
}

static void done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what; /* what is left of it is forgotten at the next start */
    lim__batch_free(batch);
}

void lim__saga_unstore(lim_bus *bus, const lim__saga *saga)
{
    uint8_t key[KEY];
    lim__batch *batch = lim__batch_new();
    if (batch == NULL)
        return;
    lim__batch_small(batch);
    lim__batch_delete(batch, LIM__TABLE_SAGAS, key_of(saga->id, 'd', 0, 0, key));
    lim__batch_delete(batch, LIM__TABLE_SAGAS, key_of(saga->id, 's', 0, 0, key));
    for (uint32_t i = 0; i < 2 * saga->plan.count; i++)
        if (saga->plan.steps[i / 2].step != LIM__STEP_WAITING)
            lim__batch_delete(batch, LIM__TABLE_SAGAS, key_of(saga->id, 'w', i % 2, i / 2, key));
    (void)!lim__durable_submit(bus, batch, done, NULL);
}

/* ---- reading ---- */

typedef struct reading {
    lim__system *s;
    lim__saga *saga; /* the one whose rows come now, in order of their keys: d, s, w ... */
} reading;

static lim__saga *read_definition(lim__system *s, uint64_t id, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    bool known = lim__unpack_u8(&u) == VERSION;
    uint64_t now = lim_now_ns(s->self), begun = lim__unpack_u64(&u), deadline = lim__unpack_u64(&u);
    lim_bytes terms = lim__unpack_bytes(&u), json = lim__unpack_bytes(&u);
    if (!known || !lim__unpack_end(&u) || lim__doc_parse(s->doc, json, NULL) != LIM_OK)
        return NULL;
    s->root = lim__doc_root(s->doc);
    s->asker = (lim__asker){ { 0 }, 0 }; /* nobody hears what is wrong with it: nothing was when it was written */
    lim__saga *saga = lim__saga_read(s);
    if (saga == NULL)
        return NULL;
    saga->id = id;
    saga->begun_ns = from_wall(s->bus, now, begun);
    saga->deadline_ns = from_wall(s->bus, now, deadline);
    if (lim__terms_parse(terms, NULL, &saga->terms) == LIM_OK)
        return saga;
    lim__saga_free(saga);
    return NULL;
}

static bool read_plan(lim__system *s, lim__saga *saga, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    bool known = lim__unpack_u8(&u) == VERSION;
    saga->plan.state = (lim__saga_state)lim__unpack_u8(&u);
    saga->plan.at = lim__unpack_u8(&u);
    saga->cancelled = lim__unpack_u8(&u) != 0;
    saga->ended_ns = from_wall(s->bus, lim_now_ns(s->self), lim__unpack_u64(&u));
    if (!known || lim__unpack_u8(&u) != saga->plan.count || saga->plan.at >= saga->plan.count)
        return false;
    for (uint32_t i = 0; i < saga->plan.count; i++) {
        saga->plan.steps[i].step = (lim__saga_step_state)lim__unpack_u8(&u);
        saga->plan.steps[i].undo = (lim__saga_undo_state)lim__unpack_u8(&u);
    }
    return lim__unpack_end(&u);
}

static void cut(char *at, size_t size, lim_bytes text)
{
    snprintf(at, size, "%.*s", (int)(text.len < size ? text.len : size), text.len > 0 ? (const char *)text.ptr : "");
}

static bool read_work(lim__saga *saga, uint32_t undo, uint32_t at, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    if (at >= saga->plan.count || undo > 1 || lim__unpack_u8(&u) != VERSION)
        return false;
    lim__saga_work *w = undo ? &saga->ones[at].undo : &saga->ones[at].step;
    w->how = (lim_how)lim__unpack_u8(&u);
    w->handed = (lim_handed)lim__unpack_u8(&u);
    w->why = (lim_why)lim__unpack_u8(&u);
    w->elapsed_ns = lim__unpack_u64(&u);
    w->conv.id = lim__unpack_u64(&u);
    cut(w->detail, sizeof w->detail, lim__unpack_bytes(&u));
    cut(w->participant, sizeof w->participant, lim__unpack_bytes(&u));
    bool reply = lim__unpack_u8(&u) != 0;
    lim_bytes bytes = lim__unpack_bytes(&u);
    w->stored = true;
    w->reply = reply ? lim__msg_new(bytes) : NULL;
    return lim__unpack_end(&u) && (!reply || w->reply != NULL);
}

static void unreadable(lim__system *s, uint64_t id)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIx64, id);
    LIM__EVENT(s->bus, s->self, "saga.unreadable", { "id", lim__str(text) });
}

/* All its rows have come: it goes on, or is among those that ended. */
static void whole(reading *r)
{
    lim__saga *saga = r->saga;
    lim__sagas *book = r->s->bus->sagas;
    r->saga = NULL;
    if (saga == NULL)
        return;
    if (saga->plan.state == 0) { /* its plan was not readable */
        unreadable(r->s, saga->id);
        lim__saga_free(saga);
        return;
    }
    book->running_count++;
    lim__list_push(&book->running, &saga->node);
    if (saga->plan.state == LIM__SAGA_ENDED)
        lim__saga_remember(r->s->bus, saga);
    else if (lim__saga_start(r->s, saga) != LIM_OK)
        lim_exit(r->s->self, LIM_FAULT); /* the next one finds it without a process */
}

static void row(reading *r, lim_bytes key, lim_bytes value)
{
    const uint8_t *at = key.ptr;
    lim__unpack u = lim__unpack_begin(value);
    if (key.len == 4 && lim__unpack_u8(&u) == VERSION) {
        uint64_t next = lim__unpack_u64(&u);
        r->s->bus->sagas->next_id = next > r->s->bus->sagas->next_id ? next : r->s->bus->sagas->next_id;
    }
    if (key.len < 9)
        return;
    uint64_t id = lim__key_get_u64(at);
    if (r->saga == NULL || r->saga->id != id)
        whole(r);
    if (at[8] == 'd' && (r->saga = read_definition(r->s, id, value)) == NULL)
        unreadable(r->s, id);
    if (r->saga == NULL || at[8] == 'd')
        return;
    if (at[8] == 's' ? !read_plan(r->s, r->saga, value) : key.len < KEY || !read_work(r->saga, at[9], at[10], value))
        r->saga->plan.state = 0;
}

void lim__sagas_take_rows(lim__system *s)
{
    lim__buf *rows = lim__rows_take(&s->bus->sagas->rows);
    reading r = { .s = s };
    if (rows == NULL)
        return;
    lim__unpack u = lim__unpack_begin(lim__buf_bytes(rows));
    while (u.at < u.end) {
        lim_bytes key = lim__unpack_bytes(&u), value = lim__unpack_bytes(&u);
        row(&r, key, value);
    }
    whole(&r);
    lim__rows_free(rows);
}

lim_err lim__sagas_restore(lim_bus *bus, lim_diag *diag)
{
    return lim__rows_read(bus, LIM__TABLE_SAGAS, "$sys.sagas", &bus->sagas->rows, diag);
}
