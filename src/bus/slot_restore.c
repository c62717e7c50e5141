/* SPDX-License-Identifier: Apache-2.0
 * slot_restore.c - slots as a store has them, at the start: rows and code are read into memory, and code that no row
 * names is deleted; each owner takes its own row before its first signal, and is woken so that lists show it.
 *
 * Code that is not there, or does not compile any more, is passed over: the first version that does is live, and the
 * history says so. */
#include "bus/slot_inside.h"
#include "base/base.h"
#include "bus/channel_slot.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include <stdio.h>
#include <stdlib.h>

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
    if (version != SLOT__CODE_VERSION || u.bad ||
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
    slot__row *r = malloc(sizeof *r + key.len + value.len);
    if (r == NULL)
        return false;
    *r = (slot__row){ .key_len = (uint32_t)key.len, .len = (uint32_t)value.len };
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
static void count_row(lim_bus *bus, lim__doc *doc, const slot__row *r)
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
            lim__slot_code_key(a, key);
            key[LIM__HASH_SIZE] = (uint8_t)lim__val_u64(it.val, "engine", 0);
            (void)lim__slot_count_use(bus->slot_rows, key, 1);
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
static void wake(lim_bus *bus, const slot__row *r)
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
    const slot__row **all = calloc(bus->slot_rows->unread.count + 1, sizeof *all);
    while (all != NULL && lim__smap_next(&bus->slot_rows->unread, &pos, &key, &value)) {
        count_row(bus, doc, value);
        all[n++] = value;
    }
    lim__doc_free(doc);
    if (all == NULL)
        return LIM_E_NOMEM;
    sweep(bus);
    slot__row **copies =
        (slot__row **)(void *)all; /* the first wake lets somebody take his own: names are copied before */
    for (size_t i = 0; i < n; i++) {
        slot__row *copy = malloc(sizeof *copy + all[i]->key_len);
        if (copy != NULL) {
            *copy = (slot__row){ .key_len = all[i]->key_len };
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
    snprintf(t->ramp_where, sizeof t->ramp_where, "%s", lim__val_str(v, "ramp_where", ""));
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
    if (err == LIM_OK && made->terms.ramp_where[0] != '\0')
        err = lim__pred_new(lim__str(made->terms.ramp_where), &diag, &made->where);
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
            lim__slot_code_key(v->artifact, s->named[s->named_count++]);
    }
    if (s->trial != NULL && s->trial->artifact->engine != LIM__ENGINE_BUILTIN)
        lim__slot_code_key(s->trial->artifact, s->named[s->named_count++]);
}

bool lim__slot_restore(lim__slot *s)
{
    uint8_t key[256];
    struct lim__slot_rows *rows = s->o.bus->slot_rows;
    uint64_t entries = 0;
    pthread_mutex_lock(&rows->mutex);
    slot__row *r = rows->unread.count > 0 ? lim__smap_remove(&rows->unread, lim__slot_key(s, key)) : NULL;
    pthread_mutex_unlock(&rows->mutex);
    if (r == NULL)
        return false;
    lim__doc *doc = lim__doc_new();
    bool good = doc != NULL && r->len > 1 && r->bytes[r->key_len] == SLOT__ROW_VERSION &&
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
