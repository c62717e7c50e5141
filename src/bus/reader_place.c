/* SPDX-License-Identifier: Apache-2.0
 * reader_place.c - where readers are found: cursor -> process; subscribing; cursors of a former life.
 *
 * Whether a subscription may read with a cursor is decided here, under one lock, by whoever subscribes: so it is
 * answered at once and from any thread. The process hears of it by a letter; the row of a new cursor is handed to the
 * store before the call returns, and the store keeps its order: whatever is published afterwards is stored after the
 * row, so no message can be missed by a cursor that was answered for, whenever the power fails.
 *
 * Order of locks: the registry's is a leaf but for posting letters and for lim__durable_submit. */
#include "bus/reader_inside.h"
#include "bus/channel_inside.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct lim__readers {
    lim__mutex lock;
    lim__smap places; /* key -> lim__reader_place */
    uint64_t next_member, seed;
    _Atomic uint64_t births;
    uint32_t page_messages, page_bytes;
};

lim__readers *lim__readers_new(uint64_t seed)
{
    lim__readers *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->lock = (lim__mutex)LIM__MUTEX_INIT;
    all->seed = seed;
    lim__smap_init(&all->places, seed);
    lim__readers_limit(all, 0, 0);
    return all;
}

void lim__readers_limit(lim__readers *all, uint32_t page_messages, uint32_t page_bytes)
{
    all->page_messages = page_messages != 0 ? page_messages : LIM__READ_PAGE_MESSAGES;
    all->page_bytes = page_bytes != 0 ? page_bytes : LIM__READ_PAGE_BYTES;
}

static void place_free(lim__reader_place *p)
{
    if (p == NULL)
        return;
    lim__buf_fini(&p->stepped);
    free(p);
}

void lim__readers_free(lim__readers *all)
{
    if (all == NULL)
        return;
    size_t pos = 0;
    lim_bytes key;
    void *place;
    while (lim__smap_next(&all->places, &pos, &key, &place))
        place_free(place); /* of readers that were killed, and could not be made again */
    lim__smap_fini(&all->places);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

/* ---- keys ---- */

size_t lim__reader_key(uint8_t *at, uint64_t stream, lim_bytes cursor)
{
    size_t len = lim__key_u64(at, stream);
    memcpy(at + len, cursor.ptr, cursor.len);
    return len + cursor.len;
}

size_t lim__reader_step_key(uint8_t *at, uint64_t stream, lim_bytes cursor, uint64_t seq)
{
    size_t len = lim__reader_key(at, stream, cursor);
    at[len++] = 0;
    return len + lim__key_u64(at + len, seq);
}

void lim__reader_step_row(const lim__step_ack *ack, lim__batch *batch)
{
    uint8_t key[LIM__READER_KEY_MAX], version = 1;
    size_t len = lim__reader_step_key(key, ack->stream, lim__bytes(ack->cursor, ack->cursor_len), ack->seq);
    lim__batch_put(batch, LIM__TABLE_CURSORS, lim__bytes(key, len), lim__bytes(&version, 1));
}

/* ---- places ---- */

static lim_bytes place_key(const lim__reader_place *p)
{
    return lim__bytes(p->text + p->channel_len + p->cursor_len, p->key_len);
}

static lim__reader_place *place_new(lim_bytes channel, lim_bytes cursor, uint64_t stream)
{
    lim__reader_place *p = calloc(1, sizeof *p + channel.len + cursor.len + LIM__READER_KEY_MAX);
    if (p == NULL)
        return NULL;
    p->stream = stream;
    p->channel_len = (uint8_t)channel.len;
    p->cursor_len = (uint8_t)cursor.len;
    memcpy(p->text, channel.ptr, channel.len);
    memcpy(p->text + channel.len, cursor.ptr, cursor.len);
    p->key_len = (uint16_t)lim__reader_key((uint8_t *)p->text + channel.len + cursor.len, stream, cursor);
    return p;
}

void lim__reader_place_drop(lim__reader *r)
{
    lim__readers *all = r->bus->readers;
    if (r->place == NULL)
        return;
    lim__lock(&all->lock);
    lim__smap_remove(&all->places, place_key(r->place));
    place_free(r->place);
    r->place = NULL;
    lim__unlock(&all->lock);
}

static lim__reader_place *find_locked(lim_bus *bus, uint64_t stream, lim_bytes cursor)
{
    uint8_t key[LIM__READER_KEY_MAX];
    size_t len = lim__reader_key(key, stream, cursor);
    return lim__smap_get(&bus->readers->places, lim__bytes(key, len));
}

void lim__reader_place_stored(lim_bus *bus, uint64_t stream, lim_bytes cursor, lim_pid reader, lim__stored *letter)
{
    if (bus->readers == NULL) { /* it has closed */
        lim__letter_free(NULL, letter);
        return;
    }
    lim__lock(&bus->readers->lock);
    lim__reader_place *p = find_locked(bus, stream, cursor);
    if (p != NULL) {
        p->stored = letter->ref;
        p->how = letter->how;
        reader = p->pid;
    }
    lim__unlock(&bus->readers->lock);
    (void)!lim__post_reserved(bus->rt, reader, letter);
}

void lim__reader_place_news(lim__reader *r)
{
    lim__read_stepped s;
    if (r->place == NULL)
        return;
    lim__lock(&r->bus->readers->lock);
    lim__buf stepped = r->place->stepped;
    uint64_t ref = r->place->stored;
    lim__commit_how how = r->place->how;
    r->place->stepped = (lim__buf){ 0 };
    lim__unlock(&r->bus->readers->lock);
    for (; lim__buf_len(&stepped) > 0; lim__buf_consume(&stepped, sizeof s)) {
        memcpy(&s, lim__buf_bytes(&stepped).ptr, sizeof s);
        lim__read_member_stepped(r, &s);
    }
    lim__buf_fini(&stepped);
    if (ref != 0)
        lim__reader_on_stored(r, ref, how);
}

lim_err lim__reader_place_heir(lim__reader *r, lim_pid *out)
{
    lim__readers *all = r->bus->readers;
    lim_pid heir = { 0 };
    lim__lock(&all->lock);
    lim_err err = out == NULL ? LIM_E_NOMEM : lim__reader_spawn(r, true, lim__sched_index(lim__sched_current()), &heir);
    if (r->place != NULL) {
        r->place->pid = heir;
        r->place->members = 0; /* of the dead one; they count where they attach to */
    }
    lim__unlock(&all->lock);
    if (out != NULL)
        *out = heir;
    return err;
}

static bool is_of(const lim__reader_place *p, lim_bytes channel, lim_bytes cursor)
{
    return (channel.len == 0 || lim__bytes_eq(channel, lim__bytes(p->text, p->channel_len))) &&
           (cursor.len == 0 || lim__bytes_eq(cursor, lim__bytes(p->text + p->channel_len, p->cursor_len)));
}

size_t lim__readers_list(lim_bus *bus, lim_bytes channel, lim_bytes cursor, lim_pid *out, size_t max)
{
    lim__readers *all = bus->readers;
    size_t n = 0, pos = 0;
    lim_bytes key;
    void *value;
    lim__lock(&all->lock);
    while (lim__smap_next(&all->places, &pos, &key, &value)) {
        const lim__reader_place *p = value;
        if (!is_of(p, channel, cursor))
            continue;
        if (p->pid.id == 0)
            continue;
        if (n < max)
            out[n] = p->pid;
        n++;
    }
    lim__unlock(&all->lock);
    return n;
}

/* ---- what is wanted ---- */

static bool says_how(const lim_read_opts *read)
{
    return read->from != 0 || read->start != 0 || read->cursor != NULL || read->shared || read->standby ||
           read->ack_ms != 0 || read->deliveries_max != 0 || read->dead_letter != NULL || read->last_per_key;
}

bool lim__reader_wanted(lim_bus *bus, lim_bytes pattern, lim_policy policy, const lim_read_opts *read)
{
    lim__log *log = NULL;
    if (says_how(read))
        return true;
    if ((policy != 0 && policy != LIM_HOLD_BACK) || !lim__channel_name_ok(pattern) || bus->durable == NULL)
        return false;
    bool durable = lim__log_find(bus, pattern, &log) == LIM_OK;
    lim__log_unref(log);
    return durable;
}

static lim_err misuse(lim_diag *diag, const char *text)
{
    lim__diag_set(diag, 0, 0, "%s", text);
    return LIM_E_MISUSE;
}

static bool cursor_name_ok(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len <= LIM__CURSOR_NAME_MAX &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.") == len;
}

static lim_err check(const lim__read_want *w, lim_diag *diag)
{
    const lim_read_opts *o = &w->read;
    bool named = o->cursor != NULL;
    if (lim__pattern_is_wild(w->channel))
        return misuse(diag,
                      "a pattern cannot be read from the log; name one durable channel, or leave out from and cursor");
    if ((int)o->from < 0 || o->from > LIM_FROM_TIME)
        return misuse(diag, "from is new, all, a sequence number or a time");
    if (named && !cursor_name_ok(o->cursor))
        return misuse(diag, "a cursor's name is 1 to 255 of A-Z a-z 0-9 _ - .");
    if ((o->shared || o->standby || o->deliveries_max != 0 || o->dead_letter != NULL) && !named)
        return misuse(diag, "shared, standby, deliveries_max and dead_letter need a cursor; name one");
    if (o->shared && o->standby)
        return misuse(diag, "a cursor is shared, or has members that stand by, not both");
    if (o->last_per_key && (named || (o->from != 0 && o->from != LIM_FROM_NEW)))
        return misuse(diag, "last_per_key begins by itself, and has no cursor; leave out from and cursor");
    if (o->ack_ms < 0 || (w->window != LIM_PULL && (w->window == 0 || w->window > LIM__PENDING_MAX)))
        return misuse(diag, "ack_ms is negative, or the window is not 1 to 16384: so many messages may be under way");
    return LIM_OK;
}

static lim_err check_dead_letter(lim_bus *bus, const lim__read_want *w, lim_diag *diag)
{
    lim__log *log = NULL;
    if (w->read.dead_letter == NULL)
        return LIM_OK;
    if (lim__bytes_eq(lim__str(w->read.dead_letter), w->channel))
        return misuse(diag, "a channel cannot be its own dead letter; name another one");
    lim_err err = lim__log_find(bus, lim__str(w->read.dead_letter), &log);
    lim__log_unref(log);
    if (err != LIM_OK)
        lim__diag_set(diag, 0, 0, "dead_letter %s is no durable channel; create it first, durable",
                      w->read.dead_letter);
    return err;
}

static lim_err find_log(lim_bus *bus, const lim__read_want *w, lim_diag *diag, lim__log **out)
{
    if (bus->durable == NULL)
        return lim__durable_missing(diag);
    lim_err err = lim__log_find(bus, w->channel, out);
    if (err == LIM_E_NOTFOUND)
        lim__diag_set(diag, 0, 0, "there is no channel %.*s; create it first, durable", (int)w->channel.len,
                      (const char *)w->channel.ptr);
    else if (err == LIM_E_MISUSE)
        lim__diag_set(diag, 0, 0, "channel %.*s is ephemeral: nothing is kept of it; leave out from and cursor",
                      (int)w->channel.len, (const char *)w->channel.ptr);
    return err;
}

/* ---- a new reader ---- */

static void begin_at(lim__reader *r, const lim_read_opts *o)
{
    uint64_t first, last;
    lim__log_span(r->log, &first, &last);
    r->at.next = last + 1;
    if (o->from == LIM_FROM_ALL)
        r->at.next = 1;
    else if (o->from == LIM_FROM_SEQ)
        r->at.next = o->start != 0 ? o->start : 1;
    else if (o->from == LIM_FROM_TIME)
        r->seek_wall_ns = o->start != 0 ? (o->start > UINT64_MAX / 1000 ? UINT64_MAX : o->start * 1000) : 1;
    r->keys_wanted = o->last_per_key;
    r->read_next = r->at.next;
}

static lim__reader *reader_new(lim_bus *bus, lim__log *log, lim_bytes cursor)
{
    lim__reader *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    lim__readers *all = bus->readers;
    r->bus = bus;
    r->log = lim__log_ref(log);
    r->stream = lim__log_stream(log);
    r->cursor_len = (uint8_t)cursor.len;
    if (cursor.len > 0)
        memcpy(r->cursor, cursor.ptr, cursor.len);
    r->page_messages = all->page_messages;
    r->page_bytes = all->page_bytes;
    r->created_wall_ns = bus->os->wall_ns(bus->os);
    r->commits = atomic_fetch_add(&all->births, 1) << 24;
    r->life = LIM__READ_LIVES;
    r->job = LIM__JOB_NONE;
    r->mode = LIM__READ_ALONE;
    r->ack_ns = UINT64_MAX;
    r->waiting.last = &r->waiting.first;
    r->committing.last = &r->committing.first;
    lim__list_init(&r->members);
    lim__cursor_init(&r->at, all->seed, LIM__READ_KEPT_BYTES);
    return r;
}

typedef struct first_row {
    lim_bus *bus;
    lim_pid reader;
    lim__read_made *letter;
} first_row;

static void made(first_row *f, lim__commit_how how)
{
    f->letter->how = how;
    (void)!lim__post_reserved(f->bus->rt, f->reader, f->letter);
    free(f);
}

static void on_first_row(void *ctx, lim__batch *batch, const lim__committed *what)
{
    lim__batch_free(batch);
    made(ctx, what->how);
}

/* Before it is spawned: it is ours. */
static lim_err first_row_new(lim__reader *r, lim__batch **batch, first_row **ctx)
{
    uint8_t key[LIM__READER_KEY_MAX];
    lim__buf row = { 0 };
    *batch = lim__batch_new();
    *ctx = malloc(sizeof **ctx);
    lim__read_made *letter = lim__letter_new(NULL, &lim__type_read_made, sizeof *letter);
    lim__reader_row(r, &row);
    bool ok = *batch != NULL && *ctx != NULL && letter != NULL && !row.failed;
    if (ok) {
        size_t len = lim__reader_key(key, r->stream, lim__bytes(r->cursor, r->cursor_len));
        lim__batch_put(*batch, LIM__TABLE_CURSORS, lim__bytes(key, len), lim__buf_bytes(&row));
        lim__batch_small(*batch);
        (*ctx)->letter = letter;
    } else {
        lim__batch_free(*batch);
        lim__letter_free(NULL, letter);
        free(*ctx);
    }
    lim__buf_fini(&row);
    return ok ? LIM_OK : LIM_E_NOMEM;
}

static lim_err spawn(lim__reader *r, lim_pid *out)
{
    lim__sched *here = lim__sched_current();
    bool place = here != NULL && lim__sched_runtime(here) == r->bus->rt;
    return lim__reader_spawn(r, place, place ? lim__sched_index(here) : 0, out);
}

/* *out is not {0}: the process has r, whatever the answer is. */
static lim_err spawn_with_row(lim_bus *bus, lim__reader *r, lim_pid *out)
{
    lim__batch *batch;
    first_row *ctx;
    lim_err err = first_row_new(r, &batch, &ctx);
    if (err != LIM_OK)
        return err;
    err = spawn(r, out);
    if (err != LIM_OK) {
        lim__batch_free(batch);
        lim__letter_free(NULL, ctx->letter);
        free(ctx);
        return err;
    }
    ctx->bus = bus;
    ctx->reader = *out;
    err = lim__durable_submit(bus, batch, on_first_row, ctx);
    if (err == LIM_OK)
        return LIM_OK;
    made(ctx, LIM__COMMIT_FAILED); /* it ends, and its place with it */
    return err;
}

/* ---- subscribing ---- */

static lim__read_mode mode_of(const lim_read_opts *o)
{
    return o->shared ? LIM__READ_SHARED : o->standby ? LIM__READ_STANDBY : LIM__READ_ALONE;
}

static lim__read_attach *attach_new(const lim__read_want *w, lim__sched *s)
{
    const lim_read_opts *o = &w->read;
    size_t name = w->owner_name.len < 255 ? w->owner_name.len : 255;
    size_t dead = o->dead_letter != NULL ? strlen(o->dead_letter) : 0;
    lim__read_attach *a = lim__letter_new(s, &lim__type_read_attach, sizeof *a + name + dead);
    if (a == NULL)
        return NULL;
    int64_t ms = o->ack_ms != 0 ? o->ack_ms : o->cursor != NULL ? LIM__READ_ACK_MS : LIM_FOREVER;
    *a = (lim__read_attach){ .owner_ref = w->owner_ref,
                             .owner = w->owner,
                             .window = w->window,
                             .mode = mode_of(o),
                             .cursor = o->cursor != NULL,
                             .ack_ns =
                                 ms == LIM_FOREVER || ms > INT64_MAX / 1000000 ? UINT64_MAX : (uint64_t)ms * 1000000,
                             .deliveries_max = o->deliveries_max,
                             .name_len = (uint8_t)name,
                             .dead_letter_len = (uint16_t)dead };
    if (name > 0)
        memcpy(a->text, w->owner_name.ptr, name);
    if (dead > 0)
        memcpy(a->text + name, o->dead_letter, dead);
    return a;
}

static lim_err post(lim_bus *bus, lim_process *self, lim_pid to, void *letter)
{
    return self != NULL ? lim__send_reserved(self, to, letter) : lim__post_reserved(bus->rt, to, letter);
}

static lim_err may_join(const lim__reader_place *p, const lim__read_want *w, lim_diag *diag)
{
    lim__read_mode mode = mode_of(&w->read);
    if (p->pid.id == 0) {
        lim__diag_set(diag, 0, 0, "the reader of cursor %s was ended when memory was short; start the bus again",
                      w->read.cursor);
        return LIM_E_GONE;
    }
    if (p->members == 0 || (mode == p->mode && mode != LIM__READ_ALONE))
        return LIM_OK;
    lim__diag_set(diag, 0, 0, "cursor %s of %.*s is read by %s (%s); end that, or subscribe %s like it", w->read.cursor,
                  (int)w->channel.len, (const char *)w->channel.ptr, p->who, lim__read_mode_text(p->mode),
                  p->mode == LIM__READ_ALONE ? "both shared or both standby," : lim__read_mode_text(p->mode));
    return LIM_E_EXISTS;
}

static void note_member(lim__reader_place *p, const lim__read_want *w)
{
    p->mode = mode_of(&w->read);
    if (p->members++ == 0)
        snprintf(p->who, sizeof p->who, "%.*s", (int)w->owner_name.len,
                 w->owner_name.len > 0 ? (const char *)w->owner_name.ptr : "");
}

/* A reader that nobody else can find. */
static lim_err alone(lim_bus *bus, lim__log *log, const lim__read_want *w, lim_pid *out, uint64_t *begins)
{
    lim__reader *r = reader_new(bus, log, lim__bytes(NULL, 0));
    if (r == NULL)
        return LIM_E_NOMEM;
    begin_at(r, &w->read);
    *begins = r->seek_wall_ns != 0 || r->keys_wanted ? 0 : r->at.next;
    lim_err err = spawn(r, out);
    if (err != LIM_OK)
        lim__reader_free(r);
    return err;
}

static lim_err new_place_locked(lim_bus *bus, lim__log *log, const lim__read_want *w, lim__reader_place **out)
{
    lim_bytes cursor = lim__str(w->read.cursor);
    lim__reader_place *p = place_new(w->channel, cursor, lim__log_stream(log));
    lim__reader *r = reader_new(bus, log, cursor);
    if (p == NULL || r == NULL || lim__smap_put(&bus->readers->places, place_key(p), p) != LIM_OK) {
        free(p);
        lim__reader_free(r);
        return LIM_E_NOMEM;
    }
    begin_at(r, &w->read);
    r->mode = mode_of(&w->read);
    r->place = p;
    lim_err err = spawn_with_row(bus, r, &p->pid);
    if (err == LIM_OK) {
        *out = p;
    } else if (p->pid.id == 0) {
        lim__smap_remove(&bus->readers->places, place_key(p));
        place_free(p);
        lim__reader_free(r);
    }
    return err;
}

static lim_err find_or_make(lim_bus *bus, lim__log *log, const lim__read_want *w, lim_diag *diag, lim_pid *out)
{
    lim__readers *all = bus->readers;
    lim__lock(&all->lock);
    lim__reader_place *p = find_locked(bus, lim__log_stream(log), lim__str(w->read.cursor));
    lim_err err = p != NULL ? may_join(p, w, diag) : new_place_locked(bus, log, w, &p);
    if (err == LIM_OK) {
        note_member(p, w);
        *out = p->pid;
    }
    lim__unlock(&all->lock);
    return err;
}

static void place_left(lim_bus *bus, lim_pid reader)
{
    lim__readers *all = bus->readers;
    size_t pos = 0;
    lim_bytes key;
    void *value;
    lim__lock(&all->lock);
    while (lim__smap_next(&all->places, &pos, &key, &value)) {
        lim__reader_place *p = value;
        if (p->pid.id != reader.id)
            continue;
        LIM_ASSERT(p->members > 0);
        p->members--;
        break;
    }
    lim__unlock(&all->lock);
}

lim_err lim__reader_attach(lim_bus *bus, lim_process *self, const lim__read_want *want, lim_diag *diag,
                           lim__reading *out)
{
    lim__log *log = NULL;
    lim_pid reader = { 0 };
    uint64_t begins = 0;
    lim_err err = check(want, diag);
    if (err == LIM_OK)
        err = find_log(bus, want, diag, &log);
    if (err == LIM_OK)
        err = check_dead_letter(bus, want, diag);
    lim__read_attach *a = err == LIM_OK ? attach_new(want, self != NULL ? lim__proc_sched(self) : NULL) : NULL;
    if (err == LIM_OK && a == NULL)
        err = LIM_E_NOMEM;
    if (err == LIM_OK)
        err = want->read.cursor != NULL ? find_or_make(bus, log, want, diag, &reader)
                                        : alone(bus, log, want, &reader, &begins);
    lim__log_unref(log);
    if (err != LIM_OK) {
        if (a != NULL)
            lim__letter_free(NULL, a);
        return err;
    }
    lim__lock(&bus->readers->lock);
    a->member = ++bus->readers->next_member;
    lim__unlock(&bus->readers->lock);
    *out = (lim__reading){ reader, a->member, begins };
    a->bus = bus; /* from here on the owner is told if it is not read */
    err = post(bus, self, reader, a);
    if (err == LIM_E_GONE && want->read.cursor != NULL)
        return LIM_OK; /* it has just died: the owner is told UNREACHABLE, as if it had died a moment later */
    if (err != LIM_OK)
        place_left(bus, reader);
    return err;
}

void lim__reader_detach(lim_bus *bus, lim_process *self, lim__reading reading)
{
    place_left(bus, reading.reader);
    lim__read_detach *d =
        lim__letter_new(self != NULL ? lim__proc_sched(self) : NULL, &lim__type_read_detach, sizeof *d);
    if (d == NULL)
        return; /* the owner's end tells it, too */
    d->member = reading.member;
    (void)!post(bus, self, reading.reader, d);
}

/* ---- what members say ---- */

lim_err lim__reader_ack(lim_bus *bus, lim_process *self, lim__reading reading, const lim__read_ack *ack)
{
    size_t bytes = sizeof(lim__read_done) + ack->count * sizeof(uint64_t);
    lim__read_done *d = lim__letter_new(self != NULL ? lim__proc_sched(self) : NULL, &lim__type_read_done, bytes);
    if (d == NULL)
        return LIM_E_NOMEM;
    *d = (lim__read_done){ .member = reading.member,
                           .delay_ns = ack->delay_ns,
                           .ref = ack->ref,
                           .how = ack->how,
                           .on_done = ack->on_done,
                           .ctx = ack->ctx,
                           .count = ack->count };
    memcpy(d->seqs, ack->seqs, ack->count * sizeof(uint64_t));
    lim_err err = post(bus, self, reading.reader, d);
    return ack->on_done != NULL ? LIM_OK : err; /* it was told, when the letter was dropped */
}

void lim__reader_more(lim_bus *bus, lim_process *self, lim__reading reading)
{
    lim__read_detach *more =
        lim__letter_new(self != NULL ? lim__proc_sched(self) : NULL, &lim__type_read_more, sizeof *more);
    if (more == NULL)
        return; /* nothing more comes to it until it subscribes again */
    more->member = reading.member;
    (void)!post(bus, self, reading.reader, more);
}

lim_err lim__reader_fetch(lim_bus *bus, lim_process *self, lim__reading reading, uint32_t count, uint64_t ends_ns)
{
    lim__read_fetch *f = lim__letter_new(self != NULL ? lim__proc_sched(self) : NULL, &lim__type_read_fetch, sizeof *f);
    if (f == NULL)
        return LIM_E_NOMEM;
    *f = (lim__read_fetch){ .member = reading.member, .ends_ns = ends_ns, .count = count };
    return post(bus, self, reading.reader, f);
}

/* ---- steps ---- */

lim_err lim__reader_step_ask(lim_bus *bus, lim_process *self, lim__step_ack *ack)
{
    lim__read_step *s = lim__letter_new(self != NULL ? lim__proc_sched(self) : NULL, &lim__type_read_step, sizeof *s);
    if (s == NULL)
        return LIM_E_NOMEM;
    s->ack = ack;
    (void)!post(bus, self, ack->reading.reader, s); /* one that is gone: dropping the letter answers CLOSED */
    return LIM_OK;
}

void lim__reader_step_end(lim_bus *bus, const lim__step_ack *ack, bool committed)
{
    lim__read_news *news = lim__letter_new(NULL, &lim__type_read_news, sizeof *news);
    const lim__read_stepped s = { .seq = ack->seq, .committed = committed };
    lim_pid reader = { 0 };
    if (news == NULL || bus->readers == NULL) {
        lim__letter_free(NULL, news);
        return; /* it stays where it is; a start reads the step's row */
    }
    news->first = false;
    lim__lock(&bus->readers->lock);
    lim__reader_place *p = find_locked(bus, ack->stream, lim__bytes(ack->cursor, ack->cursor_len));
    if (p != NULL) {
        lim__buf_add(&p->stepped, &s, sizeof s);
        reader = p->pid;
    }
    lim__unlock(&bus->readers->lock);
    (void)!lim__post_reserved(bus->rt, reader, news);
}

/* ---- cursors of a former life ---- */

typedef struct restoring {
    lim_bus *bus;
    lim_diag *diag;
    lim_err err;
    lim__reader *open; /* read, not spawned: rows of steps may follow */
    lim__batch *stale; /* rows of what is no more */
} restoring;

static void restore_spawn(restoring *s)
{
    lim__reader *r = s->open;
    if (r == NULL || s->err != LIM_OK)
        return;
    s->open = NULL;
    lim__reader_place *p = place_new(lim__log_name(r->log), lim__bytes(r->cursor, r->cursor_len), r->stream);
    lim__readers *all = s->bus->readers;
    lim__lock(&all->lock);
    s->err = p == NULL ? LIM_E_NOMEM : lim__smap_put(&all->places, place_key(p), p);
    if (s->err == LIM_OK) {
        r->place = p;
        p->mode = r->mode;
        s->err = lim__reader_spawn(r, false, 0, &p->pid);
    } else {
        free(p);
    }
    lim__unlock(&all->lock);
    if (s->err != LIM_OK)
        lim__reader_free(r);
}

static void stale(restoring *s, lim_bytes key)
{
    if (s->stale == NULL && (s->stale = lim__batch_new()) == NULL)
        return; /* at the next start, then */
    lim__batch_delete(s->stale, LIM__TABLE_CURSORS, key);
}

/* An acknowledgement by a step that its cursor had not taken over yet. */
static void restore_step(restoring *s, uint64_t stream, lim_bytes name, uint64_t seq, lim_bytes key)
{
    lim__reader *r = s->open;
    if (r == NULL || r->stream != stream || !lim__bytes_eq(name, lim__bytes(r->cursor, r->cursor_len))) {
        stale(s, key);
        return;
    }
    lim__pend *p = lim__cursor_take(&r->at, seq);
    if (p != NULL)
        lim__cursor_done(&r->at, p);
    else if (lim__cursor_find(&r->at, seq) != NULL)
        s->err = LIM_E_NOMEM;
    lim__buf_add(seq < r->at.next ? &r->steps : &r->skips, &seq, sizeof seq);
}

static void restore_cursor(restoring *s, uint64_t stream, lim_bytes name, lim_bytes key, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    uint8_t version = lim__unpack_u8(&u);
    lim_bytes channel = lim__unpack_bytes(&u);
    lim__log *log = NULL;
    if (version != 1 || u.bad || name.len == 0 || name.len > LIM__CURSOR_NAME_MAX) {
        lim__diag_set(s->diag, 0, 0, "the row of cursor %.*s of stream %" PRIu64 " cannot be read; use a newer liminal",
                      (int)name.len, (const char *)name.ptr, stream);
        s->err = LIM_E_INVALID;
        return;
    }
    if (lim__log_find(s->bus, channel, &log) != LIM_OK || lim__log_stream(log) != stream) {
        lim__log_unref(log);
        stale(s, key);
        return;
    }
    lim__reader *r = reader_new(s->bus, log, name);
    lim__log_unref(log);
    s->err = r != NULL ? lim__reader_read_row(r, &u) : LIM_E_NOMEM;
    if (s->err == LIM_OK) {
        r->read_next = r->at.next;
        s->open = r;
        return;
    }
    lim__reader_free(r);
    if (s->err == LIM_E_INVALID)
        lim__diag_set(s->diag, 0, 0, "the row of cursor %.*s of %.*s cannot be read; use a newer liminal",
                      (int)name.len, (const char *)name.ptr, (int)channel.len, (const char *)channel.ptr);
}

static bool restore_row(void *ctx, lim_bytes key, lim_bytes value)
{
    restoring *s = ctx;
    if (key.len <= 8)
        return true;
    uint64_t stream = lim__key_get_u64(key.ptr);
    lim_bytes name = lim__bytes((const char *)key.ptr + 8, key.len - 8);
    const char *end = memchr(name.ptr, 0, name.len);
    if (end != NULL) {
        lim_bytes of = lim__bytes(name.ptr, (size_t)(end - (const char *)name.ptr));
        if (name.len - of.len == 9)
            restore_step(s, stream, of, lim__key_get_u64((const uint8_t *)end + 1), key);
    } else {
        restore_spawn(s);
        restore_cursor(s, stream, name, key, value);
    }
    return s->err == LIM_OK;
}

static void forgotten(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what; /* if not, at the next start */
    lim__batch_free(batch);
}

lim_err lim__readers_restore(lim_bus *bus, lim_diag *diag)
{
    restoring s = { .bus = bus, .diag = diag };
    lim_bytes none = lim__bytes(NULL, 0);
    int err = lim__store_scan(lim__durable_store(bus), LIM__TABLE_CURSORS, none, none, restore_row, &s);
    restore_spawn(&s);
    lim__reader_free(s.open);
    if (s.stale != NULL)
        (void)!lim__durable_submit(bus, s.stale, forgotten, NULL);
    return s.err == LIM_OK && err != 0 ? LIM_E_IO : s.err;
}
