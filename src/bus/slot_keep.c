/* SPDX-License-Identifier: Apache-2.0
 * slot_keep.c - what survives a restart: the versions of each slot, its trial, its history, and the code itself.
 *
 *      plan --row as it will be, code that is new, code that nobody has any more--> one batch --> `slot_stored` to the
 * owner stored: the plan is applied        not: it is discarded
 *
 * A slot is one row, JSON behind a version byte: it is read by people who look into a store, too. Code is a row by hash
 * and engine; `uses` counts the slots whose row names it. It is put with every row that names it anew, and deleted with
 * the last row that does, in the same batch; so a batch that fails leaves nothing to mend. What a crash left over is
 * deleted at the next start. Reading it again: slot_restore.c. */
#include "base/base.h"
#include "base/map.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/slot_inside.h"
#include <stdio.h>
#include <stdlib.h>

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

lim_bytes lim__slot_key(const lim__slot *s, uint8_t key[256])
{
    key[0] = (uint8_t)s->o.kind[0]; /* g, c */
    memcpy(key + 1, s->o.name.ptr, s->o.name.len);
    return lim__bytes(key, s->o.name.len + 1);
}

void lim__slot_code_key(const lim__artifact *a, uint8_t key[LIM__SLOT_CODE_KEY])
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
    lim__json_str(j, "ramp_where", t->ramp_where);
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
    lim__slot_code_key(v->artifact, w->codes[w->count++]);
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
    lim__pack_u8(b, SLOT__ROW_VERSION);
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
    lim__pack_u8(&b, SLOT__CODE_VERSION);
    lim__pack_u8(&b, (uint8_t)a->engine);
    lim__pack_u64(&b, a->loaded_at_ns);
    lim__pack_bytes(&b, lim__str(a->name));
    lim__pack_bytes(&b, a->bytes);
    lim__batch_put(batch, LIM__TABLE_ARTIFACTS, lim__bytes(key, LIM__SLOT_CODE_KEY), lim__buf_bytes(&b));
    lim__buf_fini(&b);
}

/* How many rows name it, one more or less; UINT32_MAX: no memory. */
uint32_t lim__slot_count_use(struct lim__slot_rows *rows, const uint8_t *key, int change)
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

/* What became of a commit; held by the slot and by the commit. */
struct lim__slot_receipt {
    _Atomic uint32_t holders;
    _Atomic int outcome; /* a lim_err; -1: not known yet */
};

static void receipt_unref(struct lim__slot_receipt *r)
{
    if (r != NULL && atomic_fetch_sub(&r->holders, 1) == 1)
        free(r);
}

static struct lim__slot_receipt *receipt_new(void)
{
    struct lim__slot_receipt *r = malloc(sizeof *r);
    if (r == NULL)
        return NULL;
    atomic_init(&r->holders, 1);
    atomic_init(&r->outcome, -1);
    return r;
}

bool lim__slot_keep_outcome(const lim__slot *s, lim_err *out)
{
    LIM_ASSERT(s->receipt != NULL);
    /* acquire: pairs with the release in on_stored */
    int outcome = atomic_load_explicit(&s->receipt->outcome, memory_order_acquire);
    *out = outcome < 0 ? LIM_OK : (lim_err)outcome;
    return outcome >= 0;
}

void lim__slot_receipt_fini(lim__slot *s)
{
    receipt_unref(s->receipt);
    s->receipt = NULL;
}

typedef struct keeping { /* a commit that is under way */
    struct lim__slot_receipt *receipt;
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
    receipt_unref(k->receipt);
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
        (void)lim__slot_count_use(rows, k->after[i], sign);
        if (batch != NULL)
            put_code(batch, artifacts[i], k->after[i]);
    }
    for (uint32_t i = 0; i < k->before_count; i++)
        if (!names(k->after, k->after_count, k->before[i]) && lim__slot_count_use(rows, k->before[i], -sign) == 0 &&
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
    /* release: the counts above come first */
    atomic_store_explicit(&k->receipt->outcome, (int)k->letter->err, memory_order_release);
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
    struct lim__slot_receipt *receipt = k->receipt;
    atomic_fetch_add(&receipt->holders, 1); /* for the slot */
    pthread_mutex_lock(&rows->mutex);       /* who counts first is stored first */
    count_all(rows, k, 1, batch, artifacts);
    lim_err err = lim__durable_submit(bus, batch, on_stored, k);
    if (err != LIM_OK)
        count_all(rows, k, -1, NULL, NULL);
    pthread_mutex_unlock(&rows->mutex);
    if (err != LIM_OK) {
        receipt_unref(receipt);
        keeping_free(k);
        free(named);
        return err;
    }
    receipt_unref(s->receipt);
    s->receipt = receipt;
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
    k->receipt = receipt_new();
    if (k->before == NULL || k->after == NULL || k->letter == NULL || k->receipt == NULL) {
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
        lim__batch_delete(batch, LIM__TABLE_SLOTS, lim__slot_key(s, key));
    } else {
        write_row(&w, &b, p);
        lim__batch_put(batch, LIM__TABLE_SLOTS, lim__slot_key(s, key), lim__buf_bytes(&b));
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
