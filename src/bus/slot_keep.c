/* SPDX-License-Identifier: Apache-2.0
 * slot_keep.c - what survives a restart: the versions of each slot, its trial, its history, and the code itself.
 *
 *      plan --row as it will be, code that is new, code that nobody has any more--> one batch --> `slot_stored` to the
 * owner stored: the plan is applied not: it is discarded
 *
 * A slot is one row, JSON behind a version byte: it is read by people who look into a store, too. Code is a row by hash
 * and engine; `uses` counts the slots whose row names it. It is put with every row that names it anew, and deleted with
 * the last row that does, in the same batch; so a batch that fails leaves nothing to mend. What a crash left over is
 * deleted at the next start.
 *
 * At start-up the rows are read into memory; a group takes its own before its first signal. Code that is not there, or
 * does not compile any more, is passed over: the first version that does is live, and the history says so. */
#include "base/base.h"
#include "base/map.h"
#include "bus/channel_slot.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/slot.h"
#include <stdio.h>
#include <stdlib.h>

enum { ROW_VERSION = 1, CODE_VERSION = 1 };

struct lim__slot_rows {
    lim__mutex mutex; /* a leaf, but for the store's queue */
    lim__smap unread; /* kind and name -> row, as it was at the start, until its owner takes it */
    lim__smap uses;   /* code key -> use */
    lim__smap hosts;  /* hash -> host: functions of the program */
};

typedef struct row {
    uint32_t key_len, len;
    uint8_t bytes[]; /* key, value */
} row;

typedef struct use {
    uint32_t count;
    uint8_t key[LIM__SLOT_CODE_KEY];
} use;

struct lim__slot_rows *lim__slot_rows_new(uint64_t seed)
{
    struct lim__slot_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return NULL;
    rows->mutex = (lim__mutex)LIM__MUTEX_INIT;
    lim__smap_init(&rows->unread, seed);
    lim__smap_init(&rows->uses, seed);
    lim__smap_init(&rows->hosts, seed);
    return rows;
}

static void free_values(lim__smap *map)
{
    size_t pos = 0;
    lim_bytes key;
    void *value;
    while (lim__smap_next(map, &pos, &key, &value))
        free(value);
    lim__smap_fini(map);
}

void lim__slot_rows_free(struct lim__slot_rows *rows)
{
    if (rows == NULL)
        return;
    free_values(&rows->unread);
    free_values(&rows->uses);
    free_values(&rows->hosts);
    free(rows);
}

/* ---- functions of the program ---- */

typedef struct host {
    uint8_t hash[LIM__HASH_SIZE];
    lim__host fn;
} host;

lim_err lim__slot_host_put(lim_bus *bus, const lim__artifact *a, lim__host fn)
{
    lim_err err = LIM_OK;
    host *h = malloc(sizeof *h);
    if (h == NULL)
        return LIM_E_NOMEM;
    h->fn = fn;
    memcpy(h->hash, a->hash, sizeof h->hash);
    const lim_bytes key = lim__bytes(h->hash, sizeof h->hash);
    pthread_mutex_lock(&bus->slot_rows->mutex);
    bool there = lim__smap_get(&bus->slot_rows->hosts, key) != NULL;
    if (!there)
        err = lim__smap_put(&bus->slot_rows->hosts, key, h);
    pthread_mutex_unlock(&bus->slot_rows->mutex);
    if (there || err != LIM_OK)
        free(h);
    return err;
}

lim__host lim__slot_host(lim_bus *bus, const lim__artifact *a)
{
    lim__host fn = { 0 };
    if (a->engine != LIM__ENGINE_HOST)
        return fn;
    pthread_mutex_lock(&bus->slot_rows->mutex);
    const host *h = lim__smap_get(&bus->slot_rows->hosts, lim__bytes(a->hash, sizeof a->hash));
    if (h != NULL)
        fn = h->fn;
    pthread_mutex_unlock(&bus->slot_rows->mutex);
    return fn;
}

/* ---- keys ---- */

static lim_bytes slot_key(const lim__slot *s, uint8_t key[256])
{
    key[0] = (uint8_t)s->o.kind[0]; /* g, c */
    memcpy(key + 1, s->o.name.ptr, s->o.name.len);
    return lim__bytes(key, s->o.name.len + 1);
}

static void code_key(const lim__artifact *a, uint8_t key[LIM__SLOT_CODE_KEY])
{
    memcpy(key, a->hash, LIM__HASH_SIZE);
    key[LIM__HASH_SIZE] = (uint8_t)a->engine;
}

/* ---- the row ---- */

typedef struct writer {
    lim__json j;
    lim__slot *s;
    uint8_t (*codes)[LIM__SLOT_CODE_KEY]; /* that it names */
    lim__artifact **artifacts;
    uint32_t count;
} writer;

enum { NAMED_MAX = LIM__SLOT_KEEP_MAX + 2 };

static void terms_json(const lim__slot_terms *t, lim__json *j)
{
    lim__json_u64(j, "cpu_max_ns", t->limits.cpu_ns);
    lim__json_u64(j, "wall_max_ns", t->limits.wall_ns);
    lim__json_u64(j, "memory", t->limits.memory_max);
    lim__json_u64(j, "log_bytes", t->limits.log_bytes_per_s);
    lim__json_u64(j, "unfinished", t->limits.unfinished_max);
    lim__json_u64(j, "on_fault", t->on_fault);
    lim__json_u64(j, "break_faults", t->break_faults);
    lim__json_u64(j, "break_ms", t->break_ms);
    lim__json_u64(j, "keep", t->keep);
    lim__json_u64(j, "trial", t->trial);
    lim__json_u64(j, "ramp", t->ramp);
    lim__json_str(j, "ramp_key", t->ramp_key);
    lim__json_str(j, "by", t->by);
}

static void version_json(writer *w, const lim__version *v, const lim__slot_terms *terms, bool tripped, uint64_t wall_ns)
{
    char hex[LIM__HASH_TEXT];
    lim__json *j = &w->j;
    lim__hash_text(v->artifact->hash, hex);
    lim__json_open(j, NULL, '{');
    lim__json_str(j, "hash", hex);
    lim__json_u64(j, "engine", v->artifact->engine);
    if (v->artifact->engine == LIM__ENGINE_BUILTIN)
        lim__json_bytes(j, "strategy", v->artifact->bytes);
    lim__json_u64(j, "wall_ns", wall_ns);
    lim__json_bool(j, "tripped", tripped);
    terms_json(terms, j);
    lim__json_close(j);
    if (v->artifact->engine == LIM__ENGINE_BUILTIN || w->count == NAMED_MAX)
        return;
    w->artifacts[w->count] = v->artifact;
    code_key(v->artifact, w->codes[w->count++]);
}

static bool same_code(const lim__version *a, const lim__version *b)
{
    return a->artifact->engine == b->artifact->engine &&
           memcmp(a->artifact->hash, b->artifact->hash, LIM__HASH_SIZE) == 0;
}

/* As the versions will be: the plan's first, if it goes live. */
static void versions_json(writer *w, const lim__slot_plan *p, uint64_t now)
{
    const lim__version *first = p != NULL && p->act == LIM__SLOT_LIVE ? p->v : w->s->live;
    uint32_t kept = 1, keep = first == w->s->live && p == NULL ? first->terms.keep : w->s->live->terms.keep;
    bool planned = p != NULL && p->act == LIM__SLOT_LIVE;
    if (planned)
        keep = p->terms.keep;
    lim__json_open(&w->j, "versions", '[');
    version_json(w, first, planned ? &p->terms : &first->terms, false, planned ? now : first->deployed_wall_ns);
    LIM__LIST_EACH(node, &w->s->versions) {
        const lim__version *v = LIM_CONTAINER(node, lim__version, node);
        if (v == first || v->leaving || same_code(v, first) || kept == keep)
            continue;
        version_json(w, v, &v->terms, v->tripped, v->deployed_wall_ns);
        kept++;
    }
    lim__json_close(&w->j);
}

static void trial_json(writer *w, const lim__slot_plan *p, uint64_t now)
{
    const lim__version *trial = w->s->trial;
    const lim__slot_terms *terms = trial != NULL ? &trial->terms : NULL;
    uint64_t since = w->s->trial_wall_ns;
    if (p != NULL && (p->act == LIM__SLOT_TRY || p->act == LIM__SLOT_SHARE)) {
        trial = p->v;
        terms = &p->terms;
        since = p->act == LIM__SLOT_TRY ? now : since;
    } else if (p != NULL && p->v == trial) {
        trial = NULL; /* promoted, or over */
    }
    lim__json_open(&w->j, "trial", '[');
    if (trial != NULL)
        version_json(w, trial, terms, false, since);
    lim__json_close(&w->j);
}

static void entry_json(lim__json *j, uint64_t n, uint64_t wall_ns, const char *const text[5])
{
    static const char *const names[] = { "kind", "version", "previous", "by", "detail" };
    lim__json_open(j, NULL, '{');
    lim__json_u64(j, "n", n);
    lim__json_u64(j, "wall_ns", wall_ns);
    for (int i = 0; i < 5; i++)
        lim__json_str(j, names[i], text[i]);
    lim__json_close(j);
}

static void history_json(writer *w, const lim__slot_plan *p, uint64_t now)
{
    lim__json_open(&w->j, "history", '[');
    LIM__LIST_EACH(node, &w->s->history) {
        const lim__slot_entry *e = LIM_CONTAINER(node, lim__slot_entry, node);
        entry_json(&w->j, e->n, e->wall_ns,
                   (const char *const[]){ e->kind, e->version, e->previous, e->by, e->detail });
    }
    if (p != NULL)
        entry_json(&w->j, w->s->next_entry + 1, now,
                   (const char *const[]){ p->kind, p->v->id, w->s->live->id, p->by, p->detail });
    lim__json_close(&w->j);
}

static void write_row(writer *w, lim__buf *b, const lim__slot_plan *p)
{
    uint64_t now = w->s->o.bus->os->wall_ns(w->s->o.bus->os);
    lim__pack_u8(b, ROW_VERSION);
    w->j = lim__json_begin(b);
    lim__json_open(&w->j, NULL, '{');
    lim__json_bytes(&w->j, "name", w->s->o.name);
    versions_json(w, p, now);
    trial_json(w, p, now);
    history_json(w, p, now);
    lim__json_close(&w->j);
}

/* ---- the code that rows name ---- */

static bool names(uint8_t (*codes)[LIM__SLOT_CODE_KEY], uint32_t count, const uint8_t *key)
{
    for (uint32_t i = 0; i < count; i++)
        if (memcmp(codes[i], key, LIM__SLOT_CODE_KEY) == 0)
            return true;
    return false;
}

static void put_code(lim__batch *batch, const lim__artifact *a, const uint8_t *key)
{
    lim__buf b = { 0 };
    lim__pack_u8(&b, CODE_VERSION);
    lim__pack_u8(&b, (uint8_t)a->engine);
    lim__pack_u64(&b, a->loaded_at_ns);
    lim__pack_bytes(&b, lim__str(a->name));
    lim__pack_bytes(&b, a->bytes);
    lim__batch_put(batch, LIM__TABLE_ARTIFACTS, lim__bytes(key, LIM__SLOT_CODE_KEY), lim__buf_bytes(&b));
    lim__buf_fini(&b);
}

/* How many rows name it, one more or less; UINT32_MAX: no memory. */
static uint32_t count_use(struct lim__slot_rows *rows, const uint8_t *key, int change)
{
    use *u = lim__smap_get(&rows->uses, lim__bytes(key, LIM__SLOT_CODE_KEY));
    if (u == NULL) {
        if (change < 0 || (u = calloc(1, sizeof *u)) == NULL)
            return change < 0 ? 0 : UINT32_MAX;
        memcpy(u->key, key, sizeof u->key);
        if (lim__smap_put(&rows->uses, lim__bytes(u->key, sizeof u->key), u) != LIM_OK) {
            free(u);
            return UINT32_MAX;
        }
    }
    u->count = change > 0 ? u->count + 1 : u->count - (u->count > 0);
    uint32_t n = u->count;
    if (n == 0) {
        lim__smap_remove(&rows->uses, lim__bytes(u->key, sizeof u->key));
        free(u);
    }
    return n;
}

/* ---- storing ---- */

typedef struct keeping { /* a commit that is under way */
    lim_bus *bus;
    lim_pid owner;
    lim__slot_stored *letter; /* made beforehand: it is sent, whatever happens */
    uint32_t before_count, after_count;
    uint8_t (*before)[LIM__SLOT_CODE_KEY], (*after)[LIM__SLOT_CODE_KEY]; /* code that the row named, and will */
} keeping;

static void keeping_free(keeping *k)
{
    if (k->letter != NULL)
        lim__letter_free(NULL, k->letter);
    free(k->before);
    free(k->after);
    free(k);
}

static void count_all(struct lim__slot_rows *rows, const keeping *k, int sign, lim__batch *batch,
                      lim__artifact *const *artifacts)
{
    for (uint32_t i = 0; i < k->after_count; i++) {
        if (names(k->before, k->before_count, k->after[i]))
            continue;
        (void)count_use(rows, k->after[i], sign);
        if (batch != NULL)
            put_code(batch, artifacts[i], k->after[i]);
    }
    for (uint32_t i = 0; i < k->before_count; i++)
        if (!names(k->after, k->after_count, k->before[i]) && count_use(rows, k->before[i], -sign) == 0 &&
            batch != NULL)
            lim__batch_delete(batch, LIM__TABLE_ARTIFACTS, lim__bytes(k->before[i], LIM__SLOT_CODE_KEY));
}

/* On the store's thread. */
static void on_stored(void *ctx, lim__batch *batch, const lim__committed *what)
{
    keeping *k = ctx;
    lim__batch_free(batch);
    if (what->how != LIM__COMMITTED) {
        pthread_mutex_lock(&k->bus->slot_rows->mutex);
        count_all(k->bus->slot_rows, k, -1, NULL, NULL);
        pthread_mutex_unlock(&k->bus->slot_rows->mutex);
    }
    k->letter->err = what->how == LIM__COMMITTED ? LIM_OK : what->how == LIM__COMMIT_FULL ? LIM_E_FULL : LIM_E_IO;
    (void)!lim__post_reserved(k->bus->rt, k->owner, k->letter);
    k->letter = NULL;
    keeping_free(k);
}

static lim_err submit(lim__slot *s, keeping *k, lim__batch *batch, lim__artifact *const *artifacts)
{
    struct lim__slot_rows *rows = s->o.bus->slot_rows;
    lim_bus *bus = k->bus;
    uint8_t(*named)[LIM__SLOT_CODE_KEY] = NULL;
    if (k->after_count > 0 && (named = malloc(k->after_count * sizeof *named)) == NULL) {
        lim__batch_free(batch);
        keeping_free(k);
        return LIM_E_NOMEM;
    }
    if (named != NULL)
        memcpy(named, k->after, k->after_count * sizeof *named);
    uint32_t count = k->after_count;
    pthread_mutex_lock(&rows->mutex); /* who counts first is stored first */
    count_all(rows, k, 1, batch, artifacts);
    lim_err err = lim__durable_submit(bus, batch, on_stored, k);
    if (err != LIM_OK)
        count_all(rows, k, -1, NULL, NULL);
    pthread_mutex_unlock(&rows->mutex);
    if (err != LIM_OK) {
        keeping_free(k);
        free(named);
        return err;
    }
    s->named_before = s->named; /* lim__slot_kept says which of the two it is */
    s->named_before_count = s->named_count;
    s->named = named;
    s->named_count = count;
    return LIM_OK;
}

void lim__slot_kept(lim__slot *s, bool stored)
{
    free(stored ? s->named_before : s->named);
    if (!stored) {
        s->named = s->named_before;
        s->named_count = s->named_before_count;
    }
    s->named_before = NULL;
    s->named_before_count = 0;
}

static keeping *keeping_new(lim__slot *s, lim_pid owner, uint64_t ref)
{
    keeping *k = calloc(1, sizeof *k);
    if (k == NULL)
        return NULL;
    *k = (keeping){ .bus = s->o.bus, .owner = owner, .before_count = s->named_count };
    k->letter = lim__letter_new(NULL, &lim__type_slot_stored, sizeof *k->letter);
    k->before = malloc((s->named_count + 1) * sizeof *k->before);
    k->after = malloc(NAMED_MAX * sizeof *k->after);
    if (k->before == NULL || k->after == NULL || k->letter == NULL) {
        keeping_free(k);
        return NULL;
    }
    *k->letter = (lim__slot_stored){ .ref = ref };
    if (s->named_count > 0)
        memcpy(k->before, s->named, s->named_count * sizeof *k->before);
    return k;
}

lim_err lim__slot_keep(lim__slot *s, const lim__slot_plan *p, bool forget, lim_pid owner, uint64_t ref)
{
    uint8_t key[256];
    lim__artifact *artifacts[NAMED_MAX];
    lim__buf b = { 0 };
    keeping *k = keeping_new(s, owner, ref);
    lim__batch *batch = k != NULL ? lim__batch_new() : NULL;
    if (batch == NULL) {
        if (k != NULL)
            keeping_free(k);
        return LIM_E_NOMEM;
    }
    writer w = { .s = s, .codes = k->after, .artifacts = artifacts };
    if (forget) {
        lim__batch_delete(batch, LIM__TABLE_SLOTS, slot_key(s, key));
    } else {
        write_row(&w, &b, p);
        lim__batch_put(batch, LIM__TABLE_SLOTS, slot_key(s, key), lim__buf_bytes(&b));
    }
    k->after_count = w.count;
    bool failed = b.failed;
    lim__buf_fini(&b);
    if (failed) {
        lim__batch_free(batch);
        keeping_free(k);
        return LIM_E_NOMEM;
    }
    return submit(s, k, batch, artifacts);
}

/* ---- reading ---- */

static bool take_code(void *ctx, lim_bytes key, lim_bytes value)
{
    lim_bus *bus = ctx;
    lim__artifact *a = NULL;
    char name[256];
    lim__unpack u = lim__unpack_begin(value);
    uint8_t version = lim__unpack_u8(&u), engine = lim__unpack_u8(&u);
    uint64_t loaded_ns = lim__unpack_u64(&u);
    lim_bytes called = lim__unpack_bytes(&u), bytes = lim__unpack_bytes(&u);
    snprintf(name, sizeof name, "%.*s", (int)(called.len < 255 ? called.len : 255),
             called.len > 0 ? (const char *)called.ptr : "");
    if (version != CODE_VERSION || u.bad ||
        lim__artifacts_put(bus->artifacts, (lim__engine)engine, bytes, name, loaded_ns, NULL, &a) != LIM_OK) {
        lim__bus_log(bus, "event=restore_fault table=artifacts bytes=%zu", key.len);
        return true;
    }
    if (key.len != LIM__SLOT_CODE_KEY || memcmp(key.ptr, a->hash, sizeof a->hash) != 0) {
        lim__bus_log(bus, "event=restore_fault table=artifacts version=%s why=\"its bytes are not what they were\"",
                     a->id);
        (void)lim__artifacts_forget(bus->artifacts, a);
    }
    lim__artifact_unref(a);
    return true;
}

static bool take_row(void *ctx, lim_bytes key, lim_bytes value)
{
    lim_bus *bus = ctx;
    row *r = malloc(sizeof *r + key.len + value.len);
    if (r == NULL)
        return false;
    *r = (row){ .key_len = (uint32_t)key.len, .len = (uint32_t)value.len };
    memcpy(r->bytes, key.ptr, key.len);
    if (value.len > 0)
        memcpy(r->bytes + key.len, value.ptr, value.len);
    if (lim__smap_put(&bus->slot_rows->unread, lim__bytes(r->bytes, r->key_len), r) != LIM_OK) {
        free(r);
        return false;
    }
    return true;
}

/* Counts what a row names, before anybody changes one. */
static void count_row(lim_bus *bus, lim__doc *doc, const row *r)
{
    if (r->len < 2 || lim__doc_parse(doc, lim__bytes(r->bytes + r->key_len + 1, r->len - 1), NULL) != LIM_OK)
        return;
    static const char *const lists[] = { "versions", "trial" };
    for (int i = 0; i < 2; i++) {
        lim__iter it = lim__iter_begin(lim__val_get(lim__doc_root(doc), lists[i]));
        while (lim__iter_next(&it)) {
            lim__artifact *a = NULL;
            uint8_t key[LIM__SLOT_CODE_KEY];
            if (lim__artifacts_get(bus->artifacts, lim__val_bytes(it.val, "hash", lim__bytes("", 0)), &a) != LIM_OK)
                continue;
            code_key(a, key);
            key[LIM__HASH_SIZE] = (uint8_t)lim__val_u64(it.val, "engine", 0);
            (void)count_use(bus->slot_rows, key, 1);
            lim__artifact_unref(a);
        }
    }
}

typedef struct leftovers {
    lim_bus *bus;
    lim__batch *batch;
} leftovers;

static bool find_leftover(void *ctx, lim_bytes key, lim_bytes value)
{
    leftovers *l = ctx;
    (void)value;
    if (lim__smap_get(&l->bus->slot_rows->uses, key) == NULL)
        lim__batch_delete(l->batch, LIM__TABLE_ARTIFACTS, key);
    return true;
}

static void swept(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what; /* else at the next start */
    lim__batch_free(batch);
}

static void sweep(lim_bus *bus)
{
    leftovers l = { bus, lim__batch_new() };
    if (l.batch == NULL)
        return;
    lim__batch_small(l.batch);
    (void)lim__store_scan(lim__durable_store(bus), LIM__TABLE_ARTIFACTS, lim__bytes(NULL, 0), lim__bytes(NULL, 0),
                          find_leftover, &l);
    if (lim__batch_bytes(l.batch) == 0 || lim__durable_submit(bus, l.batch, swept, NULL) != LIM_OK)
        lim__batch_free(l.batch);
}

/* So that it is there, and lists show it: a group takes its row before its first signal, a channel's slot now. */
static void wake(lim_bus *bus, const row *r)
{
    lim_pid group;
    if (r->bytes[0] == 'c' && lim__chan_slot_get(bus, NULL, lim__bytes(r->bytes + 1, r->key_len - 1), &group) != LIM_OK)
        lim__bus_log(bus, "event=restore_fault table=slots channel=%.*s", (int)r->key_len - 1,
                     (const char *)r->bytes + 1);
    if (r->bytes[0] != 'g' || lim__group_get(bus, NULL, lim__bytes(r->bytes + 1, r->key_len - 1), &group) != LIM_OK)
        return;
    void *letter = lim__letter_new(NULL, &lim__type_resume, 0);
    if (letter != NULL)
        (void)!lim__post_reserved(bus->rt, group, letter);
}

lim_err lim__slots_restore(lim_bus *bus, lim_diag *diag)
{
    const lim_bytes none = { NULL, 0 };
    lim__store *store = lim__durable_store(bus);
    lim__doc *doc = lim__doc_new();
    size_t pos = 0, n = 0;
    lim_bytes key;
    void *value;
    if (doc == NULL)
        return LIM_E_NOMEM;
    int err = lim__store_scan(store, LIM__TABLE_ARTIFACTS, none, none, take_code, bus);
    if (err == 0)
        err = lim__store_scan(store, LIM__TABLE_SLOTS, none, none, take_row, bus);
    if (err != 0) {
        lim__doc_free(doc);
        lim__diag_set(diag, 0, 0, "the router slots could not be read: %s", strerror(-err));
        return LIM_E_IO;
    }
    const row **all = calloc(bus->slot_rows->unread.count + 1, sizeof *all);
    while (all != NULL && lim__smap_next(&bus->slot_rows->unread, &pos, &key, &value)) {
        count_row(bus, doc, value);
        all[n++] = value;
    }
    lim__doc_free(doc);
    if (all == NULL)
        return LIM_E_NOMEM;
    sweep(bus);
    row **copies = (row **)(void *)all; /* the first wake lets somebody take his own: names are copied before */
    for (size_t i = 0; i < n; i++) {
        row *copy = malloc(sizeof *copy + all[i]->key_len);
        if (copy != NULL) {
            *copy = (row){ .key_len = all[i]->key_len };
            memcpy(copy->bytes, all[i]->bytes, copy->key_len);
        }
        copies[i] = copy;
    }
    for (size_t i = 0; i < n; i++) {
        if (copies[i] != NULL)
            wake(bus, copies[i]);
        free(copies[i]);
    }
    free(all);
    return LIM_OK;
}

/* ---- a slot is made again ---- */

static void terms_of(lim__val v, lim__slot_terms *t)
{
    *t = (lim__slot_terms){ .limits = { .cpu_ns = lim__val_u64(v, "cpu_max_ns", 0),
                                        .wall_ns = lim__val_u64(v, "wall_max_ns", 0),
                                        .memory_max = (uint32_t)lim__val_u64(v, "memory", 0),
                                        .log_bytes_per_s = (uint32_t)lim__val_u64(v, "log_bytes", 0),
                                        .unfinished_max = (uint32_t)lim__val_u64(v, "unfinished", 0) },
                            .on_fault = (lim_on_fault)lim__val_u64(v, "on_fault", LIM_ON_FAULT_REJECT),
                            .break_faults = (uint32_t)lim__val_u64(v, "break_faults", LIM__SLOT_BREAK_FAULTS),
                            .break_ms = (uint32_t)lim__val_u64(v, "break_ms", LIM__SLOT_BREAK_MS),
                            .keep = (uint32_t)lim__val_u64(v, "keep", LIM__SLOT_KEEP),
                            .trial = (lim_trial)lim__val_u64(v, "trial", 0),
                            .ramp = (uint32_t)lim__val_u64(v, "ramp", 0) };
    snprintf(t->by, sizeof t->by, "%s", lim__val_str(v, "by", ""));
    snprintf(t->ramp_key, sizeof t->ramp_key, "%s", lim__val_str(v, "ramp_key", ""));
}

static lim__artifact *artifact_of(lim__slot *s, lim__val v)
{
    lim__artifact *a = NULL;
    lim__engine engine = (lim__engine)lim__val_u64(v, "engine", 0);
    lim_bytes strategy = lim__val_bytes(v, "strategy", lim__bytes("", 0));
    if (engine == LIM__ENGINE_BUILTIN && strategy.len > 0)
        (void)!lim__artifact_new(engine, strategy, lim__val_str(v, "strategy", ""), 0, &a);
    else if (lim__artifacts_get(s->o.bus->artifacts, lim__val_bytes(v, "hash", lim__bytes("", 0)), &a) == LIM_OK &&
             a->engine != engine) {
        lim__artifact_unref(a);
        a = NULL;
    }
    return a;
}

/* A version as it stands in a row; not compiled. NULL: its code is not there. */
static lim__version *version_of(lim__slot *s, lim__val v)
{
    lim__slot_terms terms;
    lim__artifact *a = artifact_of(s, v);
    if (a == NULL)
        return NULL;
    terms_of(v, &terms);
    lim__version *made = lim__slot_version_new(s, a, &terms);
    lim__artifact_unref(a);
    if (made == NULL)
        return NULL;
    made->deployed_wall_ns = lim__val_u64(v, "wall_ns", 0);
    made->tripped = lim__val_bool(v, "tripped", false);
    made->shadow = terms.trial == LIM_TRIAL_SHADOW;
    return made;
}

static void restore_history(lim__slot *s, lim__val list)
{
    lim__iter it = lim__iter_begin(list);
    while (lim__iter_next(&it)) {
        lim__slot_entry e = { .n = lim__val_u64(it.val, "n", 0), .wall_ns = lim__val_u64(it.val, "wall_ns", 0) };
        snprintf(e.kind, sizeof e.kind, "%s", lim__val_str(it.val, "kind", ""));
        snprintf(e.version, sizeof e.version, "%s", lim__val_str(it.val, "version", ""));
        snprintf(e.previous, sizeof e.previous, "%s", lim__val_str(it.val, "previous", ""));
        snprintf(e.by, sizeof e.by, "%s", lim__val_str(it.val, "by", ""));
        snprintf(e.detail, sizeof e.detail, "%s", lim__val_str(it.val, "detail", ""));
        lim__slot_remember(s, &e);
    }
}

static void passed_over(lim__slot *s, lim__val v, const lim__version *made, const char *why)
{
    char id[LIM__HASH_SHORT];
    snprintf(id, sizeof id, "%.16s", lim__val_str(v, "hash", "?"));
    lim__slot_note(s, "restore", s->live->id, made != NULL ? made->id : id, "", "it could not be made again: %s", why);
}

/* The first one that compiles is live; those behind it are compiled when they are needed. */
static bool restore_version(lim__slot *s, lim__val v, bool first)
{
    lim_diag diag = { 0 };
    lim__version *made = version_of(s, v);
    lim_err err = made == NULL              ? LIM_E_NOTFOUND
                  : first && !made->tripped ? lim__slot_open_router(s, made, &diag)
                                            : LIM_OK;
    if (err != LIM_OK) {
        passed_over(s, v, made,
                    made == NULL           ? "its code is not there"
                    : diag.text[0] != '\0' ? diag.text
                                           : lim_err_text(err));
        lim__slot_version_free(made);
        return false;
    }
    lim__list_push(&s->versions, &made->node);
    return made->router != NULL;
}

static void restore_versions(lim__slot *s, lim__val list)
{
    lim__version *before = s->live; /* what a new slot has */
    lim__version *live = NULL;
    bool kept = false;
    lim__iter it = lim__iter_begin(list);
    while (lim__iter_next(&it))
        if (restore_version(s, it.val, live == NULL))
            live = LIM_CONTAINER(s->versions.prev, lim__version, node);
    if (live == NULL)
        return;
    LIM__LIST_EACH(node, &s->versions) {
        const lim__version *v = LIM_CONTAINER(node, lim__version, node);
        kept |= v != before && strcmp(v->id, before->id) == 0;
    }
    lim__list_remove(&live->node);
    lim__list_push_front(&s->versions, &live->node);
    s->live = live;
    lim__list_remove(&before->node);
    if (kept)
        lim__slot_version_free(before);
    else
        lim__list_push(&s->versions, &before->node);
    if (!kept)
        before->leaving = true;
}

static void restore_trial(lim__slot *s, lim__val list)
{
    lim_diag diag = { 0 };
    lim__val v = lim__val_at(list, 0);
    if (v.kind != LIM__OBJECT)
        return;
    lim__version *made = version_of(s, v);
    lim_err err = made == NULL ? LIM_E_NOTFOUND : lim__slot_open_router(s, made, &diag);
    if (err != LIM_OK) {
        passed_over(s, v, made, made == NULL ? "its code is not there" : diag.text);
        lim__slot_version_free(made);
        return;
    }
    s->trial = made;
    s->trial_wall_ns = made->deployed_wall_ns;
}

static void name_again(lim__slot *s)
{
    uint32_t n = s->trial != NULL;
    LIM__LIST_EACH(node, &s->versions)
        n++;
    s->named = calloc(n + 1, sizeof *s->named);
    s->named_count = 0;
    if (s->named == NULL)
        return;
    LIM__LIST_EACH(node, &s->versions) {
        const lim__version *v = LIM_CONTAINER(node, lim__version, node);
        if (v->artifact->engine != LIM__ENGINE_BUILTIN)
            code_key(v->artifact, s->named[s->named_count++]);
    }
    if (s->trial != NULL && s->trial->artifact->engine != LIM__ENGINE_BUILTIN)
        code_key(s->trial->artifact, s->named[s->named_count++]);
}

bool lim__slot_restore(lim__slot *s)
{
    uint8_t key[256];
    struct lim__slot_rows *rows = s->o.bus->slot_rows;
    uint64_t entries = 0;
    pthread_mutex_lock(&rows->mutex);
    row *r = rows->unread.count > 0 ? lim__smap_remove(&rows->unread, slot_key(s, key)) : NULL;
    pthread_mutex_unlock(&rows->mutex);
    if (r == NULL)
        return false;
    lim__doc *doc = lim__doc_new();
    bool good = doc != NULL && r->len > 1 && r->bytes[r->key_len] == ROW_VERSION &&
                lim__doc_parse(doc, lim__bytes(r->bytes + r->key_len + 1, r->len - 1), NULL) == LIM_OK;
    if (good) {
        lim__val root = lim__doc_root(doc);
        restore_history(s, lim__val_get(root, "history"));
        entries = s->next_entry;
        restore_versions(s, lim__val_get(root, "versions"));
        restore_trial(s, lim__val_get(root, "trial"));
        name_again(s);
        s->deployed = true;
    } else {
        lim__bus_log(s->o.bus, "event=restore_fault table=slots %s=%.*s", s->o.kind, (int)s->o.name.len,
                     (const char *)s->o.name.ptr);
    }
    lim__doc_free(doc);
    free(r);
    s->untidy = true;
    lim__slot_tidy(s);
    return good && s->next_entry != entries; /* something is not as the row says */
}
