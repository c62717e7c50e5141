/* SPDX-License-Identifier: Apache-2.0
 * index.c - layers of sorted maps over a base; see index.h.
 *
 *   put --> pending --commit--> recent --flush--> frozen --(base's thread)--> base
 *
 * A seek takes the best entry of the maps under the lock, and with the same lock held takes a view of the base, so that
 * both are of one moment; then it seeks in the base with no lock held, and the nearer of the two is the answer. If that
 * is a remark that the key is gone, it goes on behind it.
 *
 * Invariants:
 *   X1  a key's newest entry is in the uppermost layer that has one: frozen is emptied only after the base has it.
 *   X2  what a reader sees is a whole number of commits.
 *   X3  the base's writes are in the order of commits, and of whole commits. */
#include "store/index.h"

#include <errno.h>
#include <stdlib.h>

enum state { GOOD = 1, DAMAGED, REMAKING };

struct lim__index {
    lim__base base; /* set once */
    void (*on_event)(void *ctx);
    void *ctx;
    lim__sorted pending; /* the writer's */
    bool pending_lost;   /* the writer's: a put failed */

    lim__mutex lock; /* everything below */
    lim__cond changed;
    enum state state;
    lim__sorted recent, frozen;
    uint32_t readers;      /* that have a view */
    bool writing, closing; /* writing: frozen is the base's thread's to read */
    uint64_t lsn, frozen_lsn, stable_lsn;
    int error; /* the base's last */
    lim__thread thread;
};

/* ---- the base's thread ---- */

static void tell(lim__index *ix)
{
    if (ix->on_event)
        ix->on_event(ix->ctx);
}

static void write_frozen(lim__index *ix)
{
    pthread_mutex_unlock(&ix->lock);
    int err = ix->base.ops->write(ix->base.self, &ix->frozen);
    pthread_mutex_lock(&ix->lock);
    ix->error = err;
    if (err == 0) {
        ix->stable_lsn = ix->frozen_lsn;
        lim__sorted_fini(&ix->frozen);
    } else if (err == -EBADMSG && ix->state == GOOD) {
        ix->state = DAMAGED;
    }
    ix->writing = false;
    pthread_cond_broadcast(&ix->changed);
}

static void *run(void *arg)
{
    lim__index *ix = arg;
    pthread_mutex_lock(&ix->lock);
    while (!ix->closing) {
        if (!ix->writing) {
            lim__cond_wait_until(&ix->changed, &ix->lock, UINT64_MAX);
            continue;
        }
        write_frozen(ix);
        pthread_mutex_unlock(&ix->lock);
        tell(ix);
        pthread_mutex_lock(&ix->lock);
    }
    pthread_mutex_unlock(&ix->lock);
    return NULL;
}

/* ---- opening and closing ---- */

static bool has_base(const lim__index *ix)
{
    return ix->base.ops != NULL;
}

int lim__index_open(lim__base base, void (*on_event)(void *ctx), void *ctx, lim__index **out)
{
    lim__index *ix = calloc(1, sizeof *ix);
    if (!ix)
        return -ENOMEM;
    *ix = (lim__index){ .base = base, .on_event = on_event, .ctx = ctx, .state = REMAKING };
    lim__sorted_init(&ix->pending), lim__sorted_init(&ix->recent), lim__sorted_init(&ix->frozen);
    pthread_mutex_init(&ix->lock, NULL);
    lim__cond_init(&ix->changed);
    int err = has_base(ix) ? lim__thread_start(&ix->thread, "store-index", run, ix) : 0;
    if (err != 0) {
        pthread_cond_destroy(&ix->changed);
        pthread_mutex_destroy(&ix->lock);
        free(ix);
        return err;
    }
    *out = ix;
    return 0;
}

void lim__index_close(lim__index *ix)
{
    if (!ix)
        return;
    if (has_base(ix)) {
        pthread_mutex_lock(&ix->lock);
        ix->closing = true;
        pthread_cond_broadcast(&ix->changed);
        pthread_mutex_unlock(&ix->lock);
        lim__thread_join(ix->thread);
        ix->base.ops->close(ix->base.self);
    }
    LIM_ASSERT(ix->readers == 0);
    lim__sorted_fini(&ix->pending), lim__sorted_fini(&ix->recent), lim__sorted_fini(&ix->frozen);
    pthread_cond_destroy(&ix->changed);
    pthread_mutex_destroy(&ix->lock);
    free(ix);
}

/* ---- reading ---- */

static bool forward(lim__seek where)
{
    return where == LIM__SEEK_GE || where == LIM__SEEK_GT;
}

/* Is a nearer to where the search began than b? A tie is nobody's. */
static bool nearer(lim__seek where, lim_bytes a, lim_bytes b)
{
    int order = lim__key_cmp(a, b);
    return forward(where) ? order < 0 : order > 0;
}

static bool fill(lim__buf *to, lim_bytes from)
{
    if (!to)
        return true;
    to->start = to->end = 0;
    lim__buf_add(to, from.ptr, from.len);
    bool filled = !to->failed;
    to->failed = false;
    return filled;
}

/* One search. Its result of the maps is copied, because they change when the lock is let go. */
struct search {
    lim__index *ix;
    bool writer;
    lim__buf *found, *value;
    bool any, gone; /* any: the maps have something, which is in found and value, or gone */
    lim__buf base_key, base_value;
};

static int look_into(struct search *s, const lim__sorted *map, lim_bytes key, lim__seek where)
{
    const lim__entry *e = lim__sorted_seek(map, key, where);
    if (!e || (s->any && !nearer(where, lim__entry_key(e), lim__buf_bytes(s->found))))
        return 0;
    s->any = true;
    s->gone = e->gone;
    return fill(s->found, lim__entry_key(e)) && fill(s->value, lim__entry_value(e)) ? 0 : -ENOMEM;
}

static int look_into_maps(struct search *s, lim_bytes key, lim__seek where)
{
    lim__index *ix = s->ix;
    s->any = s->gone = false;
    int err = s->writer ? look_into(s, &ix->pending, key, where) : 0;
    if (err == 0)
        err = look_into(s, &ix->recent, key, where);
    return err ? err : look_into(s, &ix->frozen, key, where);
}

/* Takes the base's answer if it is nearer; unlocks. */
static int look_into_base(struct search *s, lim_bytes key, lim__seek where)
{
    lim__index *ix = s->ix;
    void *view = ix->base.ops->view(ix->base.self);
    ix->readers++;
    pthread_mutex_unlock(&ix->lock);
    int err = view ? ix->base.ops->seek(ix->base.self, view, key, where, &s->base_key, &s->base_value) : -ENOMEM;
    if (view)
        ix->base.ops->unview(ix->base.self, view);
    pthread_mutex_lock(&ix->lock);
    if (err == -EBADMSG && ix->state == GOOD)
        ix->state = DAMAGED;
    if (--ix->readers == 0)
        pthread_cond_broadcast(&ix->changed);
    pthread_mutex_unlock(&ix->lock);
    if (err == -EBADMSG)
        tell(ix);
    if (err != 0)
        return err == -ENOENT ? 0 : err == -EBADMSG ? -EAGAIN : err;
    if (s->any && !nearer(where, lim__buf_bytes(&s->base_key), lim__buf_bytes(s->found)))
        return 0;
    s->any = true;
    s->gone = false;
    return fill(s->found, lim__buf_bytes(&s->base_key)) && fill(s->value, lim__buf_bytes(&s->base_value)) ? 0 : -ENOMEM;
}

static int search_once(struct search *s, lim_bytes key, lim__seek where)
{
    lim__index *ix = s->ix;
    pthread_mutex_lock(&ix->lock);
    if (ix->state == DAMAGED || (ix->state == REMAKING && !s->writer)) {
        pthread_mutex_unlock(&ix->lock);
        return -EAGAIN;
    }
    int err = look_into_maps(s, key, where);
    if (err == 0 && has_base(ix))
        return look_into_base(s, key, where);
    pthread_mutex_unlock(&ix->lock);
    return err;
}

static int seek(lim__index *ix, bool writer, lim_bytes key, lim__seek where, lim__buf *found, lim__buf *value)
{
    lim__buf own = { 0 }, from = { 0 };
    struct search s = { .ix = ix, .writer = writer, .found = found ? found : &own, .value = value };
    int err;
    while ((err = search_once(&s, key, where)) == 0 && s.any && s.gone) {
        if (!fill(&from, lim__buf_bytes(s.found))) {
            err = -ENOMEM;
            break;
        }
        key = lim__buf_bytes(&from);
        where = forward(where) ? LIM__SEEK_GT : LIM__SEEK_LT;
    }
    lim__buf_fini(&own), lim__buf_fini(&from), lim__buf_fini(&s.base_key), lim__buf_fini(&s.base_value);
    return err ? err : s.any ? 0 : -ENOENT;
}

static int get(lim__index *ix, bool writer, lim_bytes key, lim__buf *value)
{
    lim__buf found = { 0 };
    int err = seek(ix, writer, key, LIM__SEEK_GE, &found, value);
    if (err == 0 && !lim__bytes_eq(lim__buf_bytes(&found), key))
        err = -ENOENT;
    lim__buf_fini(&found);
    return err;
}

int lim__index_seek(lim__index *ix, lim_bytes key, lim__seek where, lim__buf *found, lim__buf *value)
{
    return seek(ix, false, key, where, found, value);
}

int lim__index_get(lim__index *ix, lim_bytes key, lim__buf *value)
{
    return get(ix, false, key, value);
}

int lim__index_w_seek(lim__index *ix, lim_bytes key, lim__seek where, lim__buf *found, lim__buf *value)
{
    return seek(ix, true, key, where, found, value);
}

int lim__index_w_get(lim__index *ix, lim_bytes key, lim__buf *value)
{
    return get(ix, true, key, value);
}

/* ---- writing ---- */

void lim__index_put(lim__index *ix, lim_bytes key, lim_bytes value)
{
    static const char nothing = 0;
    if (value.len == 0 && value.ptr)
        value.ptr = &nothing;
    if (lim__sorted_put(&ix->pending, key, value) != 0)
        ix->pending_lost = true;
}

void lim__index_commit(lim__index *ix, uint64_t lsn)
{
    pthread_mutex_lock(&ix->lock);
    lim__sorted_join(&ix->recent, &ix->pending, !has_base(ix));
    ix->lsn = lsn;
    if (ix->pending_lost)
        ix->state = DAMAGED;
    ix->pending_lost = false;
    pthread_mutex_unlock(&ix->lock);
}

bool lim__index_damaged(lim__index *ix)
{
    pthread_mutex_lock(&ix->lock);
    bool damaged = ix->state == DAMAGED;
    pthread_mutex_unlock(&ix->lock);
    return damaged;
}

void lim__index_damage(lim__index *ix)
{
    pthread_mutex_lock(&ix->lock);
    ix->state = DAMAGED;
    pthread_mutex_unlock(&ix->lock);
    tell(ix);
}

int lim__index_wipe(lim__index *ix)
{
    pthread_mutex_lock(&ix->lock);
    ix->state = REMAKING;
    while (ix->writing || ix->readers > 0)
        lim__cond_wait_until(&ix->changed, &ix->lock, UINT64_MAX);
    lim__sorted_fini(&ix->recent), lim__sorted_fini(&ix->frozen), lim__sorted_fini(&ix->pending);
    ix->lsn = ix->stable_lsn = 0;
    ix->error = 0;
    ix->pending_lost = false;
    int err = has_base(ix) ? ix->base.ops->wipe(ix->base.self) : 0;
    pthread_mutex_unlock(&ix->lock);
    return err;
}

void lim__index_loaded(lim__index *ix, uint64_t lsn)
{
    pthread_mutex_lock(&ix->lock);
    ix->lsn = ix->stable_lsn = lsn;
    pthread_mutex_unlock(&ix->lock);
}

void lim__index_ready(lim__index *ix)
{
    pthread_mutex_lock(&ix->lock);
    if (ix->state == REMAKING)
        ix->state = GOOD;
    pthread_mutex_unlock(&ix->lock);
}

static void freeze(lim__index *ix)
{
    if (ix->frozen.count == 0 && ix->recent.count > 0) {
        lim__sorted swap = ix->frozen;
        ix->frozen = ix->recent;
        ix->recent = swap;
        ix->frozen_lsn = ix->lsn;
    }
    if (ix->frozen.count > 0) {
        ix->writing = true;
        pthread_cond_broadcast(&ix->changed);
    }
}

int lim__index_flush(lim__index *ix, bool wait)
{
    if (!has_base(ix))
        return 0;
    pthread_mutex_lock(&ix->lock);
    for (int round = 0; round < (wait ? 2 : 1); round++) { /* twice: what is frozen now, and what is recent now */
        while (wait && ix->writing)
            lim__cond_wait_until(&ix->changed, &ix->lock, UINT64_MAX);
        if (!ix->writing && ix->state != DAMAGED)
            freeze(ix);
        while (wait && ix->writing)
            lim__cond_wait_until(&ix->changed, &ix->lock, UINT64_MAX);
        if (wait && ix->error != 0)
            break;
    }
    int err = ix->error;
    pthread_mutex_unlock(&ix->lock);
    return err;
}

size_t lim__index_recent(lim__index *ix)
{
    pthread_mutex_lock(&ix->lock);
    size_t bytes = has_base(ix) ? ix->recent.bytes + ix->frozen.bytes : 0;
    pthread_mutex_unlock(&ix->lock);
    return bytes;
}

uint64_t lim__index_stable(lim__index *ix)
{
    pthread_mutex_lock(&ix->lock);
    uint64_t lsn = has_base(ix) ? ix->stable_lsn : UINT64_MAX;
    pthread_mutex_unlock(&ix->lock);
    return lsn;
}
