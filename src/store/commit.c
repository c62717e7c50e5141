/* SPDX-License-Identifier: Apache-2.0
 * commit.c - everything that waits becomes one log write, and everybody hears.
 *
 *   queue --expectations, room, numbers--> log.buf --write, sync--> ledger (index) --> answers, in the order of the log
 *
 * A batch whose expectation does not hold, or for which there is no room, is answered in its turn, and leaves no trace.
 * Expectations see the rows as they are behind all batches that come before, those of the same log write included. A
 * conflict tells of what another batch wrote, so it waits for the same sync as if it had written that itself.
 *
 * Nothing is visible before the write has come back: the index is changed only then (DU1). Numbers are given out while
 * the group is made, by the streams' `assigned`, and taken back when it could not be written.
 *
 * Room. `prepared` segments wait; the last of them is the reserve. While segments can be made, anybody may use any.
 * When they cannot (starved), an ordinary batch must leave the reserve alone, a small one may use it, and a last
 * quarter of it is for the store itself: what it writes is what makes room again. */
#include "store/inside.h"

#include <errno.h>
#include <stdlib.h>

typedef struct group {
    lim__store *s;
    size_t ops_len;
    uint32_t count;
    uint64_t wall_ns;
    bool sync, interval;
    lim__smap rows; /* (table, key) -> the last op on it in this group; made when the first expectation is met */
    bool rows_known;
    lim__list taken; /* batches, and those that are answered between them */
    uint32_t number; /* of those that are in the group */
    lim__op total;   /* of the run of appends that the echo will have next; kind 0: none */
} group;

typedef enum verdict { TAKEN = 1, ANSWERED, WAITS, STUCK } verdict; /* STUCK: the index cannot be read */

/* ---- room ---- */

static uint64_t group_bytes(const group *g, const lim__batch *b)
{
    size_t echo = lim__buf_len(&g->s->echo) + LIM__OP_HEAD + b->echo_bytes;
    return lim__up((uint64_t)LIM__BATCH_HEAD + g->ops_len + b->ops.len + echo + LIM__BATCH_HEAD, LIM__FILE_BLOCK);
}

static uint64_t room_here(const lim__segment *current)
{
    return current ? current->size - current->stats.end : 0;
}

/* May this batch be put into the current segment, or after rolling into the next? */
static bool may_stay(lim__store *s, const lim__batch *b, uint64_t need, uint64_t room)
{
    size_t prepared = lim__segment_number(&s->segments, LIM__PREPARED);
    if (need > room)
        return false;
    if (b->frees || prepared > 0 || !s->upkeep.starved || LIM__MUTATION("reserve_ignored"))
        return true;
    return (b->small || b->inner) && room - need >= lim__upkeep_reserve(s);
}

static bool may_roll(lim__store *s, const lim__batch *b)
{
    size_t prepared = lim__segment_number(&s->segments, LIM__PREPARED);
    if (prepared == 0 && !s->upkeep.starved)
        prepared += lim__upkeep_prepare_now(s);
    bool any = b->inner || b->small || !s->upkeep.starved || LIM__MUTATION("reserve_ignored");
    return prepared >= (any ? 1u : 2u);
}

static verdict refuse(lim__store *s, lim__batch *b)
{
    if (s->upkeep.starved &&
        s->upkeep.starved_err != -ENOSPC) { /* no segment could be made, but not for want of room */
        b->result.how = LIM__COMMIT_FAILED;
        return ANSWERED;
    }
    uint64_t bytes = lim__segments_bytes(&s->segments);
    int64_t left = s->os->disk_free(s->os, s->dir);
    if (!s->upkeep.told_full)
        lim__store_event(s, "disk_full", "there is no room for the log to grow: what would add to it is refused");
    s->upkeep.told_full = true;
    b->result.how = LIM__COMMIT_FULL;
    b->result.current = bytes;
    b->result.limit = s->opts.bytes_max ? s->opts.bytes_max : bytes + (left > 0 ? (uint64_t)left : 0);
    return ANSWERED;
}

static verdict find_room(group *g, lim__batch *b)
{
    lim__store *s = g->s;
    uint64_t need = group_bytes(g, b);
    if (g->number > 0 && need > s->opts.batch_bytes_max)
        return WAITS;
    if (may_stay(s, b, need, room_here(lim__segment_newest(&s->segments, LIM__CURRENT))))
        return TAKEN;
    if (g->number > 0)
        return WAITS;
    if (!may_roll(s, b) || !lim__log_roll(s))
        return refuse(s, b);
    return may_stay(s, b, need, room_here(lim__segment_newest(&s->segments, LIM__CURRENT))) ? TAKEN : refuse(s, b);
}

/* ---- expectations ---- */

static bool learn_rows(group *g, const lim__batch *b)
{
    for (size_t pos = 0;;) {
        const lim__op *op = lim__op_next(b->ops.ptr, b->ops.len, &pos);
        if (!op)
            return true;
        bool row = op->kind == LIM__OP_PUT || op->kind == LIM__OP_DELETE;
        if (row && lim__smap_put(&g->rows, lim__op_key(op), (void *)(uintptr_t)op) != LIM_OK)
            return false;
    }
}

static bool know_rows(group *g)
{
    if (g->rows_known)
        return true;
    LIM__LIST_EACH(node, &g->taken) {
        const lim__batch *b = LIM_CONTAINER(node, lim__batch, node);
        if (b->result.how == LIM__COMMITTED && !learn_rows(g, b))
            return false;
    }
    g->rows_known = true;
    return true;
}

/* The row as it is just before this batch: into b->found. 0, -ENOENT, -errno. */
static int row_now(group *g, lim__batch *b, lim_bytes key)
{
    const lim__op *op = lim__smap_get(&g->rows, key);
    b->found.start = b->found.end = 0;
    if (!op) {
        lim__key k = lim__key_row(key);
        return lim__index_w_get(g->s->index, lim__key_bytes(&k), &b->found);
    }
    if (op->kind == LIM__OP_DELETE)
        return -ENOENT;
    lim__buf_add(&b->found, lim__op_data(op).ptr, op->data_len);
    return b->found.failed ? -ENOMEM : 0;
}

/* Its newest number, before this batch. False: no memory. */
static bool last_now(group *g, uint64_t stream, uint64_t *last)
{
    const lim__stream *st = lim__ledger_stream(&g->s->ledger, stream);
    if (st)
        *last = st->assigned - 1;
    return st != NULL;
}

static verdict check_stream(group *g, lim__batch *b, const uint8_t *value, uint32_t number)
{
    uint64_t wanted[2], last = 0;
    memcpy(wanted, value, sizeof wanted);
    if (!last_now(g, wanted[0], &last))
        return STUCK;
    if (last == wanted[1])
        return TAKEN;
    b->found.start = b->found.end = 0;
    lim__buf_add(&b->found, &last, sizeof last);
    b->result.how = LIM__COMMIT_CONFLICT;
    b->result.conflict = number;
    b->result.found = lim__buf_bytes(&b->found);
    return ANSWERED;
}

static verdict check_expectations(group *g, lim__batch *b)
{
    static const char nothing = 0;
    if (b->expect_count > 0 && !know_rows(g))
        return STUCK;
    size_t pos = 0;
    for (uint32_t i = 0; i < b->expect_count; i++) {
        lim__expect e;
        memcpy(&e, b->expects.ptr + pos, sizeof e);
        const uint8_t *key = b->expects.ptr + pos + sizeof e;
        if (e.key_len == 0) {
            verdict v = check_stream(g, b, key, i);
            if (v != TAKEN)
                return v;
            pos += (size_t)lim__up(sizeof e + e.value_len, 8);
            continue;
        }
        lim_bytes value = lim__bytes(key + e.key_len, e.value_len);
        int err = row_now(g, b, lim__bytes(key, e.key_len));
        if (err != 0 && err != -ENOENT)
            return STUCK;
        if (e.absent != (err == -ENOENT) || (!e.absent && !lim__bytes_eq(lim__buf_bytes(&b->found), value))) {
            b->result.how = LIM__COMMIT_CONFLICT;
            b->result.conflict = i;
            b->result.found = err == 0 ? lim__buf_bytes(&b->found) : lim__bytes(NULL, 0);
            if (err == 0 && !b->result.found.ptr)
                b->result.found.ptr = &nothing;
            return ANSWERED;
        }
        pos += (size_t)lim__up(sizeof e + e.key_len + e.value_len, 8);
    }
    return TAKEN;
}

/* ---- making the log batch ---- */

static uint8_t *payload(const group *g)
{
    return g->s->log.buf + LIM__BATCH_HEAD;
}

static void end_total(group *g)
{
    if (g->total.kind != 0)
        lim__buf_add(&g->s->echo, &g->total, sizeof g->total);
    g->total.kind = 0;
}

/* What the echo says of an op: of records how many there are, everything else again; pages are too large for that. */
static void echo(group *g, const lim__op *op)
{
    bool record = op->kind == LIM__OP_APPEND || op->kind == LIM__OP_COPY;
    uint8_t flag = op->kind == LIM__OP_COPY;
    bool goes_on = record && g->total.kind != 0 && g->total.flag == flag && g->total.stream == op->stream &&
                   g->total.seq + g->total.wall_ns == op->seq;
    if (goes_on) {
        g->total.wall_ns++;
        return;
    }
    end_total(g);
    if (record)
        g->total = (lim__op){ .kind = LIM__OP_TOTAL, .flag = flag, .stream = op->stream, .seq = op->seq, .wall_ns = 1 };
    else if (op->kind != LIM__OP_PAGE)
        lim__buf_add(&g->s->echo, op, lim__op_size(op));
}

typedef enum effect { EFFECT = 1, NO_EFFECT, UNREADABLE } effect;

/* An op that forgets a record says in which segment that is: 0, in this one. */
static effect resolve_erase(group *g, const lim__stream *st, lim__op *op)
{
    lim__run run;
    if (op->seq >= st->assigned)
        return NO_EFFECT;
    if (op->seq >= st->info.next || op->wall_ns != 0) /* of this group; or upkeep has found out where */
        return EFFECT;
    int err = lim__run_find(lim__index_w_seek, g->s->index, op->stream, op->seq, &run);
    if (err != 0 && err != -ENOENT)
        return UNREADABLE;
    if (err != 0 || run.first > op->seq)
        return NO_EFFECT;
    op->wall_ns = run.segment;
    return EFFECT;
}

/* Fills in what only the writer knows. */
static effect resolve(group *g, lim__batch *b, lim__stream *st, lim__op *op)
{
    switch ((lim__op_kind)op->kind) {
    case LIM__OP_APPEND:
        op->seq = st->assigned++;
        op->wall_ns = g->wall_ns;
        break;
    case LIM__OP_TRIM:
        op->seq = op->seq < st->assigned ? op->seq : st->assigned;
        if (LIM__MUTATION("trim_forgets_too_much") && op->seq < st->assigned)
            op->seq++;
        break;
    case LIM__OP_ERASE:
        return resolve_erase(g, st, op);
    case LIM__OP_PUT:
        if (op->flag == LIM__OP_STAMPED)
            lim__batch_stamp(b, op, g->wall_ns);
        break;
    case LIM__OP_COPY:
    case LIM__OP_DELETE:
    case LIM__OP_DROP:
    case LIM__OP_PAGE_BEGIN:
    case LIM__OP_PAGE:
    case LIM__OP_PAGE_END:
    case LIM__OP_TOTAL:
    case LIM__OP_KINDS:
        break;
    }
    return EFFECT;
}

static bool of_stream(const lim__op *op)
{
    return op->kind == LIM__OP_APPEND || op->kind == LIM__OP_TRIM || op->kind == LIM__OP_ERASE;
}

/* Into the log batch; what only the store in memory needs of it stays behind. */
static const lim__op *put_down(group *g, const lim__op *op, size_t size)
{
    lim__op *to = (lim__op *)(void *)(payload(g) + g->ops_len);
    memcpy(to, op, size);
    if (op->kind == LIM__OP_PUT)
        to->flag = 0, to->seq = 0;
    g->ops_len += size;
    g->count++;
    return to;
}

static verdict add_ops(group *g, lim__batch *b)
{
    lim__store *s = g->s;
    if (lim__log_room(s, (size_t)group_bytes(g, b)) != 0)
        return STUCK;
    for (size_t pos = 0; pos < b->ops.len;) {
        lim__op *op = (lim__op *)(void *)(b->ops.ptr + pos);
        size_t size = lim__op_size(op);
        lim__stream *st = of_stream(op) ? lim__ledger_stream(&s->ledger, op->stream) : NULL;
        if (of_stream(op) && !st)
            return STUCK;
        pos += size;
        effect e = resolve(g, b, st, op);
        if (e == UNREADABLE)
            return STUCK;
        if (e == NO_EFFECT)
            continue;
        echo(g, put_down(g, op, size));
    }
    return g->rows_known && !learn_rows(g, b) ? STUCK : TAKEN;
}

static verdict take(group *g, lim__batch *b)
{
    verdict v = check_expectations(g, b);
    if (v == TAKEN)
        v = find_room(g, b);
    if (v == TAKEN)
        v = add_ops(g, b);
    if (v == ANSWERED && b->result.how == LIM__COMMIT_CONFLICT && !LIM__MUTATION("conflict_not_synced"))
        g->sync = g->sync || b->sync == LIM__SYNC_ALWAYS; /* it tells of what another one wrote */
    if (v == TAKEN) {
        g->number++;
        g->sync = g->sync || b->sync == LIM__SYNC_ALWAYS;
        g->interval = g->interval || b->sync == LIM__SYNC_INTERVAL;
    }
    return v;
}

/* ---- the group ---- */

static void fetch(lim__store *s)
{
    pthread_mutex_lock(&s->inbox_lock);
    if (!lim__list_empty(&s->inbox)) { /* the whole list, behind what is in the queue */
        lim__list *first = s->inbox.next, *last = s->inbox.prev;
        first->prev = s->queue.prev;
        s->queue.prev->next = first;
        last->next = &s->queue;
        s->queue.prev = last;
        lim__list_init(&s->inbox);
    }
    pthread_mutex_unlock(&s->inbox_lock);
}

static void put_back(lim__list *queue, lim__list *taken)
{
    while (!lim__list_empty(taken)) {
        lim__list *last = taken->prev;
        lim__list_remove(last);
        lim__list_push_front(queue, last);
    }
}

static void answer_all(lim__store *s, lim__list *batches, lim__commit_how how)
{
    lim__list *node;
    while ((node = lim__list_pop(batches)) != NULL) {
        LIM_CONTAINER(node, lim__batch, node)->result.how = how;
        lim__list_push(&s->done, node);
    }
}

static uint64_t wall_now(lim__store *s)
{
    uint64_t wall = s->os->wall_ns(s->os) / LIM__WALL_UNIT * LIM__WALL_UNIT;
    return wall > s->log.wall_ns ? wall : s->log.wall_ns;
}

/* Batches from the queue until one does not fit. False: the index cannot be read, everything is back in the queue. */
static bool gather(group *g)
{
    lim__list *node;
    while ((node = lim__list_pop(&g->s->queue)) != NULL) {
        lim__batch *b = LIM_CONTAINER(node, lim__batch, node);
        b->result = (lim__committed){ .how = LIM__COMMITTED };
        verdict v = take(g, b);
        if (v == TAKEN || v == ANSWERED) {
            lim__list_push(&g->taken, node);
            continue;
        }
        lim__list_push_front(&g->s->queue, node);
        if (v == WAITS)
            return true;
        put_back(&g->s->queue, &g->taken);
        lim__ledger_abandon(&g->s->ledger);
        return false;
    }
    return true;
}

static void apply_ops(group *g, lim__segment *segment, uint64_t at)
{
    for (size_t pos = 0;;) {
        uint64_t here = at + LIM__BATCH_HEAD + pos;
        const lim__op *op = lim__op_next(payload(g), g->ops_len, &pos);
        if (!op)
            return;
        lim__ledger_apply(&g->s->ledger, segment, here, op);
    }
}

static void succeeded(group *g, const lim__batch_head *h, lim__segment *segment, uint64_t at)
{
    lim__store *s = g->s;
    lim__list *node;
    if (!LIM__MUTATION("index_before_log"))
        apply_ops(g, segment, at);
    lim__ledger_commit(&s->ledger, h->lsn, segment, at, at + lim__batch_total(h), h->wall_ns);
    if (!g->sync && g->interval && s->log.sync_due_ns == UINT64_MAX)
        s->log.sync_due_ns = s->os->now_ns(s->os) + s->opts.interval_ns;
    while ((node = lim__list_pop(&g->taken)) != NULL) {
        lim__batch *b = LIM_CONTAINER(node, lim__batch, node);
        if (b->result.how == LIM__COMMITTED) {
            b->result.class = g->sync ? LIM__CLASS_DISK : LIM__CLASS_OS;
            b->result.lsn = h->lsn;
            b->result.first_ns = h->wall_ns;
            s->batches += !b->inner;
        } else if (b->result.how == LIM__COMMIT_CONFLICT) {
            b->result.class = s->log.synced_lsn == s->log.lsn ? LIM__CLASS_DISK : LIM__CLASS_OS;
        }
        lim__list_push(&s->done, node);
    }
}

static void failed(group *g)
{
    lim__store *s = g->s;
    lim__list *node;
    lim__ledger_abandon(&s->ledger);
    while ((node = lim__list_pop(&g->taken)) != NULL) {
        lim__batch *b = LIM_CONTAINER(node, lim__batch, node);
        if (b->result.how == LIM__COMMIT_CONFLICT) /* with what another one wrote, perhaps, and that is not there */
            b->result = (lim__committed){ .how = LIM__COMMIT_FAILED };
        else if (b->result.how == LIM__COMMITTED)
            b->result.how = LIM__COMMIT_UNKNOWN;
        lim__list_push(&s->done, node);
    }
}

/* Nothing is to be written. What an expectation found may not have been synced, though: a sync that this batch asks
 * for. */
static void only_answers(group *g)
{
    lim__store *s = g->s;
    lim__list *node;
    if (g->sync && lim__log_sync(s) != 0 && s->log.state != LIM__LOG_GOOD) {
        failed(g);
        return;
    }
    while ((node = lim__list_pop(&g->taken)) != NULL) {
        lim__batch *b = LIM_CONTAINER(node, lim__batch, node);
        if (b->result.how == LIM__COMMIT_CONFLICT)
            b->result.class = s->log.synced_lsn == s->log.lsn ? LIM__CLASS_DISK : LIM__CLASS_OS;
        lim__list_push(&s->done, node);
    }
}

static void write_group(group *g)
{
    lim__store *s = g->s;
    lim__segment *segment = lim__segment_newest(&s->segments, LIM__CURRENT);
    uint64_t at;
    end_total(g);
    lim__batch_head h = { .lsn = s->log.lsn + 1,
                          .synced_lsn = s->log.synced_lsn,
                          .wall_ns = g->wall_ns,
                          .ops_length = (uint32_t)g->ops_len,
                          .length = (uint32_t)(g->ops_len + lim__buf_len(&s->echo)),
                          .count = g->count };
    memcpy(payload(g) + g->ops_len, lim__buf_bytes(&s->echo).ptr, lim__buf_len(&s->echo));
    if (LIM__MUTATION("index_before_log"))
        apply_ops(g, segment, segment->stats.end);
    if (lim__log_write(s, &h, g->sync, &segment, &at) == 0)
        succeeded(g, &h, segment, at);
    else
        failed(g);
}

bool lim__commit_group(lim__store *s)
{
    group g = { .s = s };
    fetch(s);
    if (lim__list_empty(&s->queue))
        return false;
    if (s->log.state == LIM__LOG_BROKEN) {
        answer_all(s, &s->queue, LIM__COMMIT_FAILED);
        return true;
    }
    lim__smap_init(&g.rows, s->store_id);
    lim__list_init(&g.taken);
    s->echo.start = s->echo.end = 0;
    g.wall_ns = wall_now(s);
    if (gather(&g) && g.number > 0 && !s->echo.failed) {
        write_group(&g);
    } else if (s->echo.failed) { /* no memory: as if the disk had refused */
        s->echo.failed = false;
        lim__ledger_abandon(&s->ledger);
        answer_all(s, &g.taken, LIM__COMMIT_FAILED);
    }
    only_answers(&g);
    lim__smap_fini(&g.rows);
    return true;
}

void lim__commit_answer(lim__store *s)
{
    lim__list *node;
    while ((node = lim__list_pop(&s->done)) != NULL) {
        lim__batch *b = LIM_CONTAINER(node, lim__batch, node);
        lim__committed what = b->result; /* a copy: on_done may free the batch */
        b->on_done(b->ctx, b, &what);
    }
}

void lim__submit_inner(lim__store *s, lim__batch *b, lim__on_committed *on_done)
{
    b->inner = true;
    b->on_done = on_done;
    b->ctx = s;
    lim__list_push_front(&s->queue, &b->node);
}
