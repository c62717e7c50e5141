/* SPDX-License-Identifier: Apache-2.0
 * history.c - what happened in conversations that are traced: a ring of entries each, and a shelf of those that ended.
 *
 *      conversation --add--> its ring --------end--------> shelf of its scheduler (mutex; the oldest falls off)
 *                     `---> $sys.history.<id>                  |
 *      agent --living_json--> ring                    ended_json, any thread
 *
 * An entry is put into the ring and published in one step of its conversation, and the agent of that scheduler reads
 * the ring in a step of its own. So who subscribes first and reads then has every entry in one of the two, or in both
 * under the same number. A ring is on its scheduler's list of the living until it moves to the shelf: it is always
 * found in exactly one place, looking at the living first.
 *
 * When nobody follows, publishing an entry costs one comparison: that nobody does is remembered until the channels say
 * that it may have changed. */
#include "bus/history.h"
#include "base/base.h"
#include "base/map.h"
#include "bus/conv.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SHELF = 512, FIRST_ROOM = 8 };
#define SHELF_BYTES (16u << 20) /* of entries, each scheduler's */

typedef struct entry {
    uint64_t n, at_us, bytes;
    const char *kind;
    uint32_t code;
    uint8_t who_len, detail_len;
    char text[]; /* who, detail */
} entry;

struct lim__history { /* owner only, until it is on a shelf */
    lim_bus *bus;
    lim_pid conv;        /* as people know it, */
    lim_pid pid;         /* and its process */
    entry **ring;        /* room is a power of two; entry n is at n % room */
    uint32_t room, kept; /* the newest so many */
    uint64_t newest;
    size_t bytes;
    uint64_t nobody_epoch; /* nobody followed in this epoch of the channels; 0: not known */
};

typedef struct shelf {
    lim__mutex mutex;
    uint64_t next, kept;
    size_t bytes;
    lim__history **items; /* SHELF of them, made for the first one */
} shelf;

struct lim__histories {
    lim__map living[64]; /* conversation -> history; each touched by its scheduler only */
    shelf shelves[64];
};

lim__histories *lim__histories_new(uint64_t seed)
{
    lim__histories *all = calloc(1, sizeof *all);
    for (uint32_t i = 0; all != NULL && i < LIM_COUNT(all->shelves); i++) {
        all->shelves[i].mutex = (lim__mutex)LIM__MUTEX_INIT;
        lim__map_init(&all->living[i], seed + i);
    }
    return all;
}

static entry *entry_at(const lim__history *h, uint64_t n)
{
    return h->ring[n % h->room];
}

static size_t entry_bytes(const entry *e)
{
    return sizeof *e + e->who_len + e->detail_len;
}

static void history_free(lim__history *h)
{
    for (uint32_t i = 0; i < h->kept; i++)
        free(entry_at(h, h->newest - i));
    free(h->ring);
    free(h);
}

void lim__histories_free(lim__histories *all)
{
    for (uint32_t i = 0; all != NULL && i < LIM_COUNT(all->shelves); i++) {
        shelf *s = &all->shelves[i];
        for (uint64_t k = 0; k < s->kept; k++)
            history_free(s->items[(s->next - 1 - k) % SHELF]);
        free(s->items);
        lim__map_fini(&all->living[i]);
    }
    free(all);
}

lim__history *lim__history_new(lim_bus *bus, lim_process *self)
{
    return lim__history_new_as(bus, self, lim_self(self));
}

lim__history *lim__history_new_as(lim_bus *bus, lim_process *self, lim_pid conv)
{
    lim__history *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    *h = (lim__history){ .bus = bus, .conv = conv, .pid = lim_self(self), .room = FIRST_ROOM };
    h->ring = malloc(FIRST_ROOM * sizeof *h->ring);
    if (h->ring == NULL || lim__map_put(&bus->histories->living[lim__pid_scheduler(h->pid)], h->pid.id, h) != LIM_OK) {
        history_free(h);
        return NULL;
    }
    return h;
}

/* A place for entry newest + 1. False: no memory. */
static bool make_room(lim__history *h)
{
    if (h->kept == h->room && h->room < LIM__HISTORY_MAX) {
        entry **wider = malloc(2 * h->room * sizeof *wider);
        if (wider == NULL)
            return false;
        for (uint32_t i = 0; i < h->kept; i++)
            wider[(h->newest - i) % (2 * h->room)] = entry_at(h, h->newest - i);
        free(h->ring);
        h->ring = wider;
        h->room *= 2;
    }
    if (h->kept == h->room) {
        entry *oldest = entry_at(h, h->newest - --h->kept);
        h->bytes -= entry_bytes(oldest);
        free(oldest);
    }
    return true;
}

static void entry_json(const entry *e, lim__json *j)
{
    lim__json_open(j, NULL, '{');
    lim__json_u64(j, "n", e->n);
    lim__json_u64(j, "at_us", e->at_us);
    lim__json_str(j, "kind", e->kind);
    lim__json_bytes(j, "who", lim__bytes(e->text, e->who_len));
    lim__json_bytes(j, "detail", lim__bytes(e->text + e->who_len, e->detail_len));
    lim__json_u64(j, "bytes", e->bytes);
    lim__json_u64(j, "code", e->code);
    lim__json_close(j);
}

static lim__channel *follower(lim__history *h)
{
    uint64_t epoch = lim__channels_epoch(h->bus->channels); /* before the look: a later change is seen the next time */
    if (h->nobody_epoch == epoch + 1)
        return NULL;
    char name[40];
    int len = snprintf(name, sizeof name, "$sys.history.%" PRIx64, h->conv.id);
    lim__channel *ch = lim__channel_find(h->bus->channels, lim__bytes(name, (size_t)len));
    h->nobody_epoch = ch == NULL ? epoch + 1 : 0;
    return ch;
}

static void publish(lim__history *h, lim_process *self, const entry *e)
{
    lim__channel *ch = follower(h);
    if (ch == NULL)
        return;
    lim__buf body = { 0 };
    lim_admission ignored;
    lim__json j = lim__json_begin(&body);
    entry_json(e, &j);
    if (!body.failed)
        (void)!lim__publish(h->bus->channels, self, ch, lim__buf_bytes(&body), lim__bytes(NULL, 0), false, &ignored);
    lim__buf_fini(&body);
    lim__channel_unref(ch);
}

static lim_bytes cut(lim_bytes text)
{
    return lim__bytes(text.ptr, text.len < LIM__HISTORY_DETAIL_MAX ? text.len : LIM__HISTORY_DETAIL_MAX);
}

static entry *add(lim__history *h, uint64_t at_us, const lim__history_note *note)
{
    if (h == NULL)
        return NULL;
    lim_bytes who = cut(note->who), detail = cut(note->detail);
    entry *e = malloc(sizeof *e + who.len + detail.len);
    if (e == NULL || !make_room(h)) {
        free(e);
        return NULL;
    }
    *e = (entry){ .n = h->newest + 1,
                  .at_us = at_us,
                  .bytes = note->bytes,
                  .kind = note->kind,
                  .code = note->code,
                  .who_len = (uint8_t)who.len,
                  .detail_len = (uint8_t)detail.len };
    if (who.len > 0)
        memcpy(e->text, who.ptr, who.len);
    if (detail.len > 0)
        memcpy(e->text + who.len, detail.ptr, detail.len);
    h->ring[++h->newest % h->room] = e;
    h->kept++;
    h->bytes += entry_bytes(e);
    return e;
}

void lim__history_add(lim__history *h, lim_process *self, const lim__history_note *note)
{
    const entry *e = h == NULL ? NULL : add(h, h->bus->os->wall_ns(h->bus->os) / 1000, note);
    if (e != NULL)
        publish(h, self, e);
}

/* Kinds are words of the program. */
static const char *word_of(lim_bytes kind)
{
    static const char *const all[] = { "opened", "phase",    "assigned", "joined",   "left",     "crashed",
                                       "sent",   "said",     "asked",    "answered", "ended",    "refused",
                                       "signal", "detached", "attached", "rejoined", "restored", "compensation" };
    for (size_t i = 0; i < LIM_COUNT(all); i++)
        if (lim__bytes_eq(kind, lim__str(all[i])))
            return all[i];
    return "other";
}

void lim__history_put_back(lim__history *h, lim_bytes kind, uint64_t at_us, const lim__history_note *note)
{
    lim__history_note as = *note;
    as.kind = word_of(kind);
    (void)add(h, at_us, &as);
}

void lim__history_json(const lim__history *h, uint64_t after, lim__json *j)
{
    lim__json_u64(j, "entries", h->newest);
    lim__json_open(j, "history", '[');
    for (uint32_t i = h->kept; i > 0; i--) {
        const entry *e = entry_at(h, h->newest - (i - 1));
        if (e->n > after)
            entry_json(e, j);
    }
    lim__json_close(j);
}

bool lim__history_living_json(lim_bus *bus, lim_pid conv, uint64_t after, lim__json *j)
{
    const lim__history *h = lim__map_get(&bus->histories->living[lim__pid_scheduler(conv)], conv.id);
    if (h != NULL)
        lim__history_json(h, after, j);
    return h != NULL;
}

/* ---- the shelf ---- */

static void make_place_locked(shelf *s, size_t bytes)
{
    while (s->kept > 0 && (s->kept == SHELF || s->bytes + bytes > SHELF_BYTES)) {
        lim__history *oldest = s->items[(s->next - s->kept--) % SHELF];
        s->bytes -= oldest->bytes;
        history_free(oldest);
    }
}

void lim__history_end(lim__history *h)
{
    if (h == NULL)
        return;
    lim__histories *all = h->bus->histories;
    shelf *s = &all->shelves[lim__pid_scheduler(h->conv)];
    lim__map_remove(&all->living[lim__pid_scheduler(h->pid)], h->pid.id);
    pthread_mutex_lock(&s->mutex);
    if (s->items == NULL)
        s->items = calloc(SHELF, sizeof(lim__history *));
    bool kept = s->items != NULL;
    if (kept) {
        make_place_locked(s, h->bytes);
        s->items[s->next++ % SHELF] = h;
        s->kept++;
        s->bytes += h->bytes;
    }
    pthread_mutex_unlock(&s->mutex);
    if (!kept)
        history_free(h);
}

bool lim__history_ended_json(lim_bus *bus, lim_pid conv, uint64_t after, lim__json *j)
{
    shelf *s = &bus->histories->shelves[lim__pid_scheduler(conv)];
    bool found = false;
    pthread_mutex_lock(&s->mutex);
    for (uint64_t k = 0; !found && k < s->kept; k++) {
        const lim__history *h = s->items[(s->next - 1 - k) % SHELF];
        found = h->conv.id == conv.id;
        if (found)
            lim__history_json(h, after, j);
    }
    pthread_mutex_unlock(&s->mutex);
    return found;
}

void lim__history_show(lim_bus *bus, lim_process *self, const lim__show *show)
{
    lim__buf body = { 0 };
    lim__json j = lim__json_begin(&body);
    bool here = lim__pid_scheduler(show->only) == lim__sched_index(lim__proc_sched(self));
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "id", show->only.id);
    bool known = here && lim__history_living_json(bus, show->only, show->after, &j);
    lim__json_bool(&j, "living", known);
    known = known || lim__history_ended_json(bus, show->only, show->after, &j);
    lim__json_close(&j);
    if (!known)
        lim__buf_fini(&body);
    lim__shown_send(self, show, &body);
}
