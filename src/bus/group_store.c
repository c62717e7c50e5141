/* SPDX-License-Identifier: Apache-2.0
 * group_store.c - what of a queue is also on disk, and how all of it is there again after a restart.
 *
 *      queues    name              its configuration, if its tasks are durable: before the operator is answered
 *      dead      queue, 0, id      dead letters of durable tasks: written by the task with its end; deleted from here
 *      seen      queue, 0, key     idempotency keys of durable tasks: written by the task with its admission; deleted
 * here
 *
 * Rows that nobody needs any more are deleted with others, a moment later (`sweep`): what a crash leaves behind is
 * found to be over at the next start.
 *
 *      lim__queues_restore --row: configuration, dead letters, keys--> group
 *        (scans the store)  --revive: a task, in order of admission--> group --revived--> exchange
 *                           `--relive, open----------------------------------------------^
 *
 * A task's id stays what it was: it is an alias of its new process. */
#include "bus/group.h"
#include "base/base.h"
#include "bus/ended.h"
#include "bus/exchange_inside.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SWEEP_MAX = 512, SWEEP_MS = 1000 };

bool lim__group_durable(const group *g)
{
    return g->config.durable && g->bus->durable != NULL;
}

lim__policy lim__group_policy(const group *g)
{
    lim__policy p = g->config.policy;
    p.durable = lim__group_durable(g);
    return p;
}

static lim_bytes name_of(const group *g)
{
    return lim__bytes(g->name, g->name_len);
}

/* ---- rows that go ---- */

static void nothing(void *ctx, lim__batch *batch, const lim__committed *what)
{
    (void)ctx, (void)what; /* what is still there is found to be over at the next start */
    lim__batch_free(batch);
}

void lim__group_sweep_now(group *g)
{
    if (g->sweep == NULL)
        return;
    lim__batch_small(g->sweep);
    (void)lim__durable_submit(g->bus, g->sweep, nothing, NULL);
    g->sweep = NULL;
    g->swept = 0;
}

void lim__group_sweep(group *g, lim__table table, lim_bytes key)
{
    lim__buf row = { 0 };
    if (g->bus->durable == NULL || (g->sweep == NULL && (g->sweep = lim__batch_new()) == NULL))
        return;
    lim__buf_add(&row, g->name, g->name_len);
    lim__buf_add(&row, "", 1);
    lim__buf_add(&row, key.ptr, key.len);
    if (!row.failed)
        lim__batch_delete(g->sweep, (uint8_t)table, lim__buf_bytes(&row));
    lim__buf_fini(&row);
    if (++g->swept >= SWEEP_MAX)
        lim__group_sweep_now(g);
    else if (g->sweep_timer == 0)
        (void)!lim_timer_start(g->self, SWEEP_MS * 1000000ull, LIM__GROUP_TAG_SWEEP, &g->sweep_timer);
}

/* ---- the configuration, and who changed it ---- */

void lim__group_config_changed(group *g)
{
    g->changed |= g->bus->durable != NULL && (g->config.durable || g->row);
}

static void send_answer(group *g, lim_pid to, uint64_t ref, lim__buf *json)
{
    lim__shown_send(g->self, &(lim__show){ .reply_to = to, .ref = ref }, json);
}

static void put_config(group *g, lim__batch *b)
{
    lim__buf row = { 0 };
    if (g->config.durable && g->configured) {
        lim__group_config_pack(g, &row);
        if (!row.failed)
            lim__batch_put(b, LIM__TABLE_QUEUES, name_of(g), lim__buf_bytes(&row));
        lim__buf_fini(&row);
        g->row = true;
    } else {
        lim__batch_delete(b, LIM__TABLE_QUEUES, name_of(g));
        g->row = false;
    }
}

void lim__group_config_gone(group *g)
{
    lim__batch *b = g->row ? lim__batch_new() : NULL;
    if (b == NULL)
        return;
    put_config(g, b);
    lim__batch_small(b);
    (void)lim__durable_submit(g->bus, b, nothing, NULL);
}

static void not_stored(lim__buf *json, const char *why)
{
    lim__buf_fini(json);
    lim__json j = lim__json_begin(json);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "error", '{');
    lim__json_str(&j, "code", lim_err_name(LIM_E_IO));
    lim__json_str(&j, "message", why);
    lim__json_close(&j);
    lim__json_close(&j);
}

void lim__group_answer(group *g, const lim__admin *a, lim__buf *json)
{
    bool wait = g->changed || (g->urgent && g->sweep != NULL);
    lim__batch *b = wait ? g->sweep != NULL ? g->sweep : lim__batch_new() : NULL;
    answering *one = b != NULL ? lim__alloc(lim__proc_sched(g->self), sizeof *one) : NULL;
    g->urgent = false;
    if (!wait) {
        send_answer(g, a->reply_to, a->ref, json);
        return;
    }
    if (one == NULL) {
        if (b != g->sweep)
            lim__batch_free(b);
        not_stored(json, "out of memory: it is in effect until the next restart");
        send_answer(g, a->reply_to, a->ref, json);
        return;
    }
    g->sweep = NULL;
    g->swept = 0;
    if (g->changed)
        put_config(g, b);
    g->changed = false;
    lim__batch_small(b);
    *one = (answering){ .ref = ++g->next_ref, .to_ref = a->ref, .reply_to = a->reply_to, .json = *json };
    *json = (lim__buf){ 0 };
    lim__list_init(&one->node);
    lim__list_push(&g->answers, &one->node);
    if (lim__durable_commit(g->self, g->bus, b, one->ref) != LIM_OK)
        lim__group_stored(g, &(lim__stored){ .ref = one->ref, .how = LIM__COMMIT_FAILED });
}

void lim__group_stored(group *g, const lim__stored *s)
{
    LIM__LIST_EACH(node, &g->answers) {
        answering *one = LIM_CONTAINER(node, answering, node);
        if (one->ref != s->ref)
            continue;
        if (s->how != LIM__COMMITTED) {
            g->changed = true; /* with the next change */
            not_stored(&one->json, "it could not be stored: it is in effect until the next restart");
        }
        send_answer(g, one->reply_to, one->to_ref, &one->json);
        lim__list_remove(&one->node);
        lim__free(lim__proc_sched(g->self), one, sizeof *one);
        return;
    }
}

void lim__group_store_fini(group *g)
{
    while (!lim__list_empty(&g->answers)) {
        answering *one = LIM_CONTAINER(lim__list_pop(&g->answers), answering, node);
        lim__buf_fini(&one->json);
        lim__free(lim__sched_current(), one, sizeof *one);
    }
    lim__batch_free(g->sweep);
}

/* ---- long work, some in each turn ---- */

void lim__group_purge_go_on(group *g)
{
    lim__item *page[LIM__GROUP_PURGE_MAX];
    uint64_t after = 0;
    uint32_t left = LIM__GROUP_PURGE_MAX;
    if (g->purge_upto == 0)
        return;
    for (uint32_t n; left > 0 && (n = lim__line_items(&g->line, after, page, left)) > 0;) {
        after = page[n - 1]->no;
        for (uint32_t i = 0; i < n && page[i]->no <= g->purge_upto; i++) {
            claim *c = &LIM_CONTAINER(page[i], task, item)->claim;
            if (c->state == CLAIM_LEASED || c->state == CLAIM_RESTING)
                continue;
            lim__group_refuse(g, c->conv, LIM_WHY_PURGED, 0, 0, "the queue was purged");
            lim__claim_end(g, c, true);
            left--;
        }
        if (after >= g->purge_upto)
            break;
    }
    if (left > 0)
        g->purge_upto = 0;
    else
        lim__group_go_on(g);
}

void lim__group_replay_go_on(group *g)
{
    uint32_t n = 0;
    if (!g->replaying)
        return;
    LIM__LIST_EACH(node, &g->dead) {
        dead *d = LIM_CONTAINER(node, dead, node);
        lim_pid fresh;
        if (d->replayed.id != 0)
            continue;
        if (n++ == LIM__GROUP_PURGE_MAX) {
            lim__group_go_on(g);
            return;
        }
        if (lim__group_dead_replay(g, d, &fresh) != LIM_OK)
            break;
    }
    g->replaying = false;
}

/* ---- again, after a restart: this queue ---- */

static void bad_row(group *g, const char *what)
{
    LIM__EVENT(g->bus, g->self, "store", { "kind", lim__str("bad_row") }, { "detail", lim__str(what) },
               { "queue", name_of(g) });
    lim__bus_log(g->bus, "event=bad_row queue=%.*s what=\"%s\"", g->name_len, g->name, what);
}

static void seen_row(group *g, lim_bytes key, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    uint8_t format = lim__unpack_u8(&u);
    uint64_t id = lim__unpack_u64(&u), until_wall_ns = lim__unpack_u64(&u);
    bool lives = lim__alias_pid(g->bus, id).id != id;
    if (format != 1 || !lim__unpack_end(&u)) {
        bad_row(g, "an idempotency key");
        return;
    }
    bool over = until_wall_ns <= g->bus->os->wall_ns(g->bus->os) && !lives;
    if (over || !lim__group_once_restore(g, key, id, until_wall_ns))
        lim__group_sweep(g, LIM__TABLE_SEEN, key);
}

void lim__group_row(group *g, const lim__row *r)
{
    lim_bytes key = lim__bytes(r->bytes, r->key_len), value = lim__bytes(r->bytes + r->key_len, r->len);
    if (r->table == LIM__TABLE_QUEUES) {
        if (lim__group_config_unpack(g, value) != LIM_OK)
            bad_row(g, "the configuration");
    } else if (r->table == LIM__TABLE_DEAD) {
        if (key.len != 8 || lim__group_dead_restore(g, lim__key_get_u64(key.ptr), value) != LIM_OK)
            bad_row(g, "a dead letter");
    } else {
        seen_row(g, key, value);
    }
}

/* ---- all queues ---- */

typedef struct revival { /* a task, or an ask, of before */
    uint64_t id;
    lim__relive *relive;
    lim__open *open;
    lim_pid group, pid;
} revival;
typedef struct restore {
    lim_bus *bus;
    lim_err err;
    lim__table table;
    revival *all;
    size_t count, cap;
    uint32_t bad;
} restore;

static bool to_group(restore *r, lim_bytes queue, lim_bytes key, lim_bytes value)
{
    lim_pid to;
    r->err = lim__group_get(r->bus, NULL, queue, &to);
    lim__row *row = r->err == LIM_OK ? lim__letter_new(NULL, &lim__type_row, sizeof *row + key.len + value.len) : NULL;
    if (r->err == LIM_E_INVALID) { /* no queue has such a name */
        r->bad++;
        r->err = LIM_OK;
        return true;
    }
    if (row == NULL) {
        r->err = r->err == LIM_OK ? LIM_E_NOMEM : r->err;
        return false;
    }
    *row = (lim__row){ .table = (uint8_t)r->table, .key_len = (uint32_t)key.len, .len = (uint32_t)value.len };
    if (key.len > 0)
        memcpy(row->bytes, key.ptr, key.len);
    if (value.len > 0)
        memcpy(row->bytes + key.len, value.ptr, value.len);
    r->err = lim__post_reserved(r->bus->rt, to, row);
    return r->err == LIM_OK;
}

static bool on_queue_row(void *ctx, lim_bytes key, lim_bytes value)
{
    return to_group(ctx, key, lim__bytes(NULL, 0), value);
}

/* Key: queue, 0, and what names it there. */
static bool on_named_row(void *ctx, lim_bytes key, lim_bytes value)
{
    restore *r = ctx;
    const char *end = memchr(key.ptr, 0, key.len);
    if (end == NULL) {
        r->bad++;
        return true;
    }
    size_t len = (size_t)(end - (const char *)key.ptr);
    return to_group(r, lim__bytes(key.ptr, len), lim__bytes(end + 1, key.len - len - 1), value);
}

static bool on_outcome_row(void *ctx, lim_bytes key, lim_bytes value)
{
    restore *r = ctx;
    lim_err err = lim__kept_read(r->bus, key, value);
    r->bad += err == LIM_E_INVALID;
    r->err = err == LIM_E_NOMEM ? err : LIM_OK;
    return r->err == LIM_OK;
}

static revival *revival_new(restore *r, uint64_t id, lim_bytes row)
{
    if (r->count == r->cap) {
        size_t cap = r->cap == 0 ? 256 : r->cap * 2;
        revival *more = realloc(r->all, cap * sizeof *more);
        if (more == NULL)
            return NULL;
        r->all = more;
        r->cap = cap;
    }
    lim__relive *letter = lim__letter_new(NULL, &lim__type_relive, sizeof *letter + row.len);
    if (letter == NULL)
        return NULL;
    *letter = (lim__relive){ .id = { id }, .len = (uint32_t)row.len };
    if (row.len > 0)
        memcpy(letter->row, row.ptr, row.len);
    revival *v = &r->all[r->count++];
    *v = (revival){ .id = id, .relive = letter };
    return v;
}

/* The row of what changes comes first, and right behind it that of what does not. */
static bool on_task_row(void *ctx, lim_bytes key, lim_bytes value)
{
    restore *r = ctx;
    uint64_t id = key.len >= 8 ? lim__key_get_u64(key.ptr) : 0;
    if (key.len == 8) {
        if (revival_new(r, id, value) == NULL)
            r->err = LIM_E_NOMEM;
        return r->err == LIM_OK;
    }
    revival *v = r->count > 0 && r->all[r->count - 1].id == id ? &r->all[r->count - 1] : NULL;
    if (v != NULL && v->open == NULL)
        v->open = lim__ex_row_open(r->bus, value, v->relive);
    r->bad += v == NULL || v->open == NULL;
    return true;
}

static int by_order(const void *a, const void *b)
{
    uint64_t x = ((const revival *)a)->relive->order, y = ((const revival *)b)->relive->order;
    return x < y ? -1 : x > y;
}

/* Its process, which nobody can reach yet; by its id from here on. */
static lim_err revive_spawn(restore *r, revival *v)
{
    lim_bytes name = lim__bytes(v->open->text, v->open->group_len);
    lim_err err = name.len > 0 ? lim__group_get(r->bus, NULL, name, &v->group) : LIM_OK;
    if (err == LIM_OK)
        err = lim__conv_spawn_at(r->bus, v->open->kind, v->group.id != 0 ? v->group : r->bus->agents[0], &v->pid);
    return err == LIM_OK ? lim__alias_put(r->bus, v->id, v->pid) : err;
}

static lim__revive *revive_letter(restore *r, const revival *v)
{
    lim__revive head = { .conv = v->pid, .id = { v->id }, .kind = v->open->kind };
    lim_bytes type = lim__bytes(v->open->text + v->open->group_len, v->open->type_len);
    lim__buf leases = { 0 };
    uint64_t due_wall_ns = 0, now_ns = r->bus->os->now_ns(r->bus->os), now_wall = r->bus->os->wall_ns(r->bus->os);
    bool good = lim__ex_row_revive(lim__bytes(v->relive->row, v->relive->len), &head, &due_wall_ns, &leases);
    size_t len = lim__buf_len(&leases);
    lim__revive *letter = good ? lim__letter_new(NULL, &lim__type_revive, sizeof *letter + type.len + len) : NULL;
    if (letter != NULL) {
        head.due_ns = due_wall_ns > now_wall ? now_ns + (due_wall_ns - now_wall) : 0;
        head.since_ns = v->open->opened_ns;
        head.terms = lim__terms_ref(v->open->terms);
        head.payload = lim__msg_ref(v->open->payload);
        head.type_len = (uint8_t)type.len;
        head.leases_len = (uint32_t)len;
        *letter = head;
        if (type.len > 0)
            memcpy(letter->text, type.ptr, type.len);
        if (len > 0)
            memcpy(letter->text + type.len, leases.ptr + leases.start, len);
    }
    lim__buf_fini(&leases);
    return letter;
}

static lim_err revive_post(restore *r, revival *v)
{
    lim__revive *letter = v->group.id != 0 ? revive_letter(r, v) : NULL;
    if (v->group.id != 0 && letter == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim__post_reserved(r->bus->rt, v->pid, v->relive);
    v->relive = NULL;
    if (err == LIM_OK)
        err = lim__post_reserved(r->bus->rt, v->pid, v->open);
    else
        lim__letter_free(NULL, v->open);
    v->open = NULL;
    if (letter != NULL && err == LIM_OK)
        err = lim__post_reserved(r->bus->rt, v->group, letter);
    else
        lim__letter_free(NULL, letter);
    return err;
}

/* What is not is left alone: its rows stay, and nobody is told of such a task. */
static bool is_readable(const revival *v)
{
    lim__revive head = { 0 };
    lim__buf leases = { 0 };
    uint64_t due_wall_ns;
    lim_bytes name = lim__bytes(v->open->text, v->open->group_len);
    bool good = lim__ex_row_revive(lim__bytes(v->relive->row, v->relive->len), &head, &due_wall_ns, &leases);
    lim__buf_fini(&leases);
    return good && (name.len == 0 || lim__channel_name_ok(name));
}

static void revive_spawns(restore *r)
{
    if (r->count > 0) /* qsort wants an array even for nothing */
        qsort(r->all, r->count, sizeof *r->all, by_order);
    for (size_t i = 0; r->err == LIM_OK && i < r->count; i++) {
        if (r->all[i].relive->order >= atomic_load(&r->bus->next_order))
            atomic_store(&r->bus->next_order, r->all[i].relive->order + 1);
        if (r->all[i].open != NULL && !is_readable(&r->all[i])) {
            r->bad++;
            lim__letter_free(NULL, r->all[i].open);
            r->all[i].open = NULL;
        }
        if (r->all[i].open != NULL)
            r->err = revive_spawn(r, &r->all[i]);
    }
}

static void revive_posts(restore *r)
{
    for (size_t i = 0; r->err == LIM_OK && i < r->count; i++)
        if (r->all[i].open != NULL)
            r->err = revive_post(r, &r->all[i]);
}

static void restore_fini(restore *r)
{
    for (size_t i = 0; i < r->count; i++) {
        lim__letter_free(NULL, r->all[i].relive);
        lim__letter_free(NULL, r->all[i].open);
    }
    free(r->all);
}

static bool scan(restore *r, lim__table table, bool (*each)(void *ctx, lim_bytes key, lim_bytes value))
{
    r->table = table;
    if (r->err == LIM_OK && lim__store_scan(lim__durable_store(r->bus), (uint8_t)table, lim__bytes(NULL, 0),
                                            lim__bytes(NULL, 0), each, r) != 0)
        r->err = LIM_E_IO;
    return r->err == LIM_OK;
}

lim_err lim__queues_restore(lim_bus *bus, lim_diag *diag)
{
    restore r = { .bus = bus, .err = LIM_OK };
    atomic_store(&bus->next_ref, bus->os->random(bus->os) >> 2); /* so that no lease has a number of before */
    if (scan(&r, LIM__TABLE_OUTCOMES, on_outcome_row))
        lim__kept_sort(bus);
    (void)scan(&r, LIM__TABLE_TASKS, on_task_row);
    revive_spawns(&r); /* before the keys: whether their tasks live is seen by their ids */
    (void)scan(&r, LIM__TABLE_QUEUES, on_queue_row);
    (void)scan(&r, LIM__TABLE_DEAD, on_named_row);
    (void)scan(&r, LIM__TABLE_SEEN, on_named_row);
    revive_posts(&r);
    restore_fini(&r);
    if (r.bad > 0)
        lim__bus_log(bus, "event=bad_row what=\"%u rows of tasks, outcomes or queues cannot be read\"", r.bad);
    if (r.err != LIM_OK)
        lim__diag_set(diag, 0, 0, "the stored queues and tasks cannot be made again: %s", lim_err_text(r.err));
    return r.err;
}
