/* SPDX-License-Identifier: Apache-2.0
 * upkeep.c - what the store does for itself, a step at a time between log writes.
 *
 *   prepare      two segments wait, full of zeros; the last one is the reserve (commit.c)
 *   seal         a full segment's head gets where it ends
 *   look again   a segment in which a write or a sync failed is read back past the page cache (J7)
 *   checkpoint   all rows and streams into the log, page by page, while batches go on between the pages
 *   drop         a segment in which nothing is needed: the log says so, then its file goes
 *   compact      of a segment in which little is needed: that is copied to the end of the log, then it is dropped
 *
 * Checkpoints. A page says: between these two keys, these rows and streams there are, and no others, as of just before
 * the batch that it is in. When the pages of a checkpoint, one behind the other, have covered all keys, what was in the
 * log before its first one is not needed for rows and streams. Two whole checkpoints are kept, so that one may go bad.
 *
 * What keeps a segment:
 *   - a record in it that is alive;
 *   - being newer than the beginning of the older of the two checkpoints, or than what the index's base has for good;
 *   - an erase in it whose record's segment is still there: without the erase the record would be back when the index
 * is made again. A compaction copies such an erase;
 *   - an older segment in which nothing is alive and which cannot be dropped now: segments die in the order of the log,
 *     so that an erase never goes before all copies of its record have;
 *   - being damaged: it is stuck, and stays for somebody to look at. */
#include "store/inside.h"
#include "store/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    PREPARED_WANTED = 2,
    STEP_IDLE = LIM__PREPARE_STEP,
    STEP_BUSY = 32 << 10,
    PAGE_BYTES = 64 << 10,
    COPY_BYTES = 256 << 10,
    FLUSH_RECENT = 8 << 20,
    FLUSH_LOG = 32 << 20,
    SPARSE_PERCENT = 25,
    SPARSE_PERCENT_STARVED = 60,
};
#define STARVED_RETRY_NS    100000000u
#define CHECKPOINT_RETRY_NS 1000000000u

/* ---- segments to come ---- */

static void starve(lim__store *s, int err)
{
    s->upkeep.starved = true;
    s->upkeep.starved_err = err;
    s->upkeep.starved_next_ns = s->os->now_ns(s->os) + STARVED_RETRY_NS;
}

static void feed(lim__store *s)
{
    s->upkeep.starved = false;
    if (s->upkeep.told_full)
        lim__store_event(s, "disk_room", "there is room for the log again");
    s->upkeep.told_full = false;
}

/* Before a file is begun: is there room for it? */
static bool has_room(lim__store *s)
{
    lim__segments *t = &s->segments;
    if (t->preparing.file >= 0)
        return true;
    if (s->opts.bytes_max && lim__segments_bytes(t) + t->segment_bytes > s->opts.bytes_max)
        return false;
    int64_t left = s->os->disk_free(s->os, s->dir);
    return left < 0 || (uint64_t)left >= t->segment_bytes;
}

/* True: there is more to do on this file. */
static bool prepare_step(lim__store *s, size_t bytes)
{
    int err = has_room(s) ? 0 : -ENOSPC;
    bool more = err == 0 && lim__segment_prepare(&s->segments, bytes, &err);
    if (err != 0)
        starve(s, err);
    else if (!more)
        feed(s);
    return more;
}

bool lim__upkeep_prepare_now(lim__store *s)
{
    while (prepare_step(s, STEP_IDLE))
        continue;
    return !s->upkeep.starved;
}

uint64_t lim__upkeep_reserve(const lim__store *s)
{
    return s->segments.segment_bytes / 4;
}

static bool past_half(lim__store *s)
{
    const lim__segment *current = lim__segment_newest(&s->segments, LIM__CURRENT);
    return !current || current->stats.end >= current->size / 2;
}

static void prepare_paced(lim__store *s, uint64_t bytes)
{
    for (uint64_t part; bytes > 0; bytes -= part) {
        part = bytes < STEP_IDLE ? bytes : STEP_IDLE;
        if (!prepare_step(s, (size_t)part))
            return;
    }
}

/* Zeros are as dear to write as batches, so while somebody waits there are none as long as there is another segment and
 * half of this one: most crowds are gone by then. Then two bytes for each of the log's, so that it is done in time. */
static bool prepare(lim__store *s, uint64_t now)
{
    uint64_t fresh = s->log.written_bytes - s->upkeep.paced_bytes;
    size_t prepared = lim__segment_number(&s->segments, LIM__PREPARED);
    s->upkeep.paced_bytes = s->log.written_bytes;
    if (prepared >= PREPARED_WANTED || (s->upkeep.starved && now < s->upkeep.starved_next_ns))
        return false;
    if (!lim__store_waits(s))
        prepare_step(s, STEP_IDLE);
    else if (prepared == 0 || past_half(s))
        prepare_paced(s, 2 * fresh > STEP_BUSY ? 2 * fresh : STEP_BUSY);
    return !s->upkeep.starved && (s->segments.preparing.file >= 0 || prepared + 1 < PREPARED_WANTED);
}

/* ---- segments that were written ---- */

static void nothing_to_do(void *ctx, lim__segment *s, uint64_t at, const lim__batch_head *h, const uint8_t *payload,
                          bool damaged)
{
    (void)ctx, (void)s, (void)at, (void)h, (void)payload, (void)damaged;
}

static void found_damage(void *ctx, lim__segment *segment, uint64_t at, uint64_t first, uint64_t last, bool lost,
                         const char *what)
{
    (void)first, (void)last, (void)lost;
    lim__store_note_damage(ctx, segment, at, what);
}

static void look_again(lim__store *s, lim__segment *segment)
{
    const lim__scan_visitor v = { nothing_to_do, found_damage, s };
    lim__scan sc = { .segments = &s->segments };
    lim__scan_end end;
    segment->checked = true;
    if (segment->stats.last_lsn != 0)
        (void)lim__scan_segment(&sc, segment, LIM__FILE_BLOCK, segment->stats.first_lsn, segment->stats.last_lsn + 1,
                                &v, &end);
    lim__segment_close_write(&s->segments, segment);
    lim__scan_fini(&sc);
}

/* One of them. True: there may be another one. */
static bool care_for_sealed(lim__store *s, uint64_t now)
{
    for (size_t i = 0; i < s->segments.count; i++) {
        lim__segment *segment = s->segments.list[i];
        if (segment->state != LIM__SEALED || segment->dropped)
            continue;
        if (segment->stats.suspect && !segment->checked) {
            look_again(s, segment);
            return true;
        }
        bool asked = segment->loaded && !segment->sealed && now >= s->upkeep.seal_next_ns;
        if (asked && lim__segment_seal_up(&s->segments, segment) == 0)
            return true;
        if (asked)
            s->upkeep.seal_next_ns = now + STARVED_RETRY_NS;
    }
    return false;
}

static bool flush_index(lim__store *s)
{
    size_t recent = lim__index_recent(s->index);
    bool enough = recent >= FLUSH_RECENT || s->log.flushed_bytes >= FLUSH_LOG;
    if (recent == 0 || (!enough && !(s->upkeep.starved && s->os->now_ns(s->os) >= s->upkeep.starved_next_ns)))
        return false;
    if (lim__log_sync(s) == 0) { /* the base must never be ahead of the log */
        s->log.flushed_bytes = 0;
        (void)lim__index_flush(s->index, false);
    }
    return false;
}

/* ---- inner batches ---- */

/* Small segments have small parts. */
static size_t part_bytes(const lim__store *s, size_t bytes)
{
    size_t eighth = (size_t)s->segments.segment_bytes / 8;
    return bytes < eighth ? bytes : eighth;
}

static void submit(lim__store *s, lim__batch *b, lim__on_committed *on_done)
{
    if (b->error != 0) { /* no memory: another time */
        lim__batch_free(b);
        s->upkeep.work = LIM__NO_WORK;
        return;
    }
    s->upkeep.waiting = true;
    lim__submit_inner(s, b, on_done);
}

static lim__op *add_numbers(lim__batch *b, lim__op_kind kind, uint64_t stream, uint64_t seq, uint64_t arg)
{
    lim__op *op = lim__batch_add(b, kind, 0, 0);
    if (op) {
        op->stream = stream;
        op->seq = seq;
        op->wall_ns = arg;
        lim__batch_finish_op(b, op);
    }
    return op;
}

/* ---- checkpoints ---- */

static void on_page(void *ctx, lim__batch *b, const lim__committed *what)
{
    lim__store *s = ctx;
    s->upkeep.waiting = false;
    if (what->how != LIM__COMMITTED || s->upkeep.page_is_last)
        s->upkeep.work = LIM__NO_WORK;
    if (what->how != LIM__COMMITTED)
        s->upkeep.checkpoint_next_ns = s->os->now_ns(s->os) + CHECKPOINT_RETRY_NS;
    lim__batch_free(b);
}

static void page_add(lim__buf *entries, lim_bytes key, lim_bytes value)
{
    uint16_t key_len = (uint16_t)key.len;
    uint32_t value_len = (uint32_t)value.len;
    lim__buf_add(entries, &key_len, sizeof key_len);
    lim__buf_add(entries, &value_len, sizeof value_len);
    lim__buf_add(entries, key.ptr, key.len);
    lim__buf_add(entries, value.ptr, value.len);
}

/* The next entries behind `from`; *to becomes the last one's key, empty when there are no more. */
static int page_fill(lim__store *s, const lim__key *from, lim__buf *entries, lim__key *to)
{
    lim__buf key = { 0 }, value = { 0 };
    lim__key at = *from;
    int err;
    if (at.len == 0)
        at = lim__key_row(lim__bytes(NULL, 0));
    while ((err = lim__index_w_seek(s->index, lim__key_bytes(&at), LIM__SEEK_GT, &key, &value)) == 0) {
        lim_bytes k = lim__buf_bytes(&key);
        if (!lim__key_in_page(k) || lim__buf_len(entries) >= part_bytes(s, PAGE_BYTES))
            break;
        page_add(entries, k, lim__buf_bytes(&value));
        memcpy(at.bytes, k.ptr, k.len);
        at.len = k.len;
    }
    bool more = err == 0 && lim__key_in_page(lim__buf_bytes(&key));
    *to = at;
    to->len = more ? at.len : 0;
    lim__buf_fini(&key), lim__buf_fini(&value);
    return entries->failed ? -ENOMEM : err == -ENOENT ? 0 : err;
}

static void add_page(lim__batch *b, uint64_t id, const lim__key *from, const lim__key *to, lim_bytes entries)
{
    lim__op *op = lim__batch_add(b, LIM__OP_PAGE, from->len, 2 + to->len + entries.len);
    if (!op)
        return;
    uint8_t *at = (uint8_t *)op + LIM__OP_HEAD;
    uint16_t to_len = (uint16_t)to->len;
    op->seq = id;
    memcpy(at, from->bytes, from->len);
    at += from->len;
    memcpy(at, &to_len, 2);
    memcpy(at + 2, to->bytes, to->len);
    if (entries.len > 0)
        memcpy(at + 2 + to->len, entries.ptr, entries.len);
    lim__batch_finish_op(b, op);
}

static void add_page_end(lim__store *s, lim__batch *b, uint64_t id)
{
    lim__op *op = lim__batch_add(b, LIM__OP_PAGE_END, 0, s->segments.count * sizeof(uint64_t));
    if (!op)
        return;
    uint8_t *at = (uint8_t *)op + LIM__OP_HEAD;
    op->seq = id;
    for (size_t i = 0; i < s->segments.count; i++) {
        const lim__segment *segment = s->segments.list[i];
        bool stays = segment->state == LIM__SEALED && !segment->dropped && segment->stats.last_lsn != 0;
        uint64_t listed = stays ? segment->id : 0; /* the current one may yet fail, and what is in it move */
        memcpy(at + i * sizeof listed, &listed, sizeof listed);
    }
    lim__batch_finish_op(b, op);
}

static void checkpoint_step(lim__store *s)
{
    lim__upkeep *u = &s->upkeep;
    lim__buf entries = { 0 };
    lim__key to;
    lim__batch *b = lim__batch_new();
    bool first = u->checkpoint == 0;
    if (!b || page_fill(s, &u->after, &entries, &to) != 0) {
        u->work = LIM__NO_WORK;
        lim__batch_free(b);
    } else {
        if (first) {
            u->checkpoint = s->log.lsn + 1; /* the lsn of this batch */
            s->log.checkpoint_bytes = 0;
            add_numbers(b, LIM__OP_PAGE_BEGIN, 0, u->checkpoint, 0);
        }
        add_page(b, u->checkpoint, &u->after, &to, lim__buf_bytes(&entries));
        u->page_is_last = to.len == 0;
        if (u->page_is_last)
            add_page_end(s, b, u->checkpoint);
        u->after = to;
        b->frees = true;
        submit(s, b, on_page);
    }
    lim__buf_fini(&entries);
}

static void begin_checkpoint(lim__store *s)
{
    s->upkeep.work = LIM__CHECKPOINT;
    s->upkeep.checkpoint = 0;
    s->upkeep.after.len = 0;
}

/* ---- which segment goes next ---- */

/* May it go, as far as others are concerned? */
static bool is_free(lim__store *s, size_t i)
{
    const lim__segment *segment = s->segments.list[i], *before = i ? s->segments.list[i - 1] : NULL;
    const lim__mark *m = &s->ledger.mark;
    if (segment->stats.last_lsn >= m->older || segment->stats.last_lsn > lim__index_stable(s->index))
        return false;
    return (!segment->stats.suspect || segment->checked) && (!before || before->sealed || before->stuck);
}

static bool is_dead(const lim__segment *segment)
{
    return segment->stats.live_records == 0;
}

/* The next to be compacted or dropped; NULL: none now. *pinned: one is dead, and a checkpoint would free it. */
static lim__segment *choose(lim__store *s, bool *pinned)
{
    uint64_t percent = s->upkeep.starved ? SPARSE_PERCENT_STARVED : SPARSE_PERCENT;
    lim__segment *sparse = NULL;
    *pinned = false;
    for (size_t i = 0; i < s->segments.count; i++) {
        lim__segment *segment = s->segments.list[i];
        if (segment->state != LIM__SEALED)
            break;
        segment->stuck = segment->stuck || segment->stats.damages > 0;
        if (segment->stuck)
            continue;
        if (i > 0)
            (void)lim__segment_load(&s->segments, s->segments.list[i - 1]); /* is it sealed? */
        if (is_dead(segment)) {
            *pinned = segment->stats.last_lsn >= s->ledger.mark.older;
            return is_free(s, i) ? segment : NULL;
        }
        bool is_sparse = segment->stats.live_bytes * 100 < segment->stats.end * percent;
        if (!sparse && is_sparse && is_free(s, i))
            sparse = segment;
    }
    return sparse;
}

/* ---- dropping and compacting ---- */

static void retire(lim__store *s, lim__segment *segment)
{
    bool again = lim__segment_number(&s->segments, LIM__PREPARED) < PREPARED_WANTED;
    uint64_t id = segment->id;
    if (!lim__segment_leave(&s->segments, segment) || lim__segment_retire(&s->segments, segment, again) != 0) {
        s->upkeep.retire_next_ns = s->os->now_ns(s->os) + STARVED_RETRY_NS;
        return;
    }
    s->upkeep.retiring = s->upkeep.retiring == id ? 0 : s->upkeep.retiring;
    s->upkeep.starved_next_ns = 0;
    if (lim__segment_number(&s->segments, LIM__PREPARED) > 0 && s->upkeep.starved)
        feed(s);
}

static void on_dropped(void *ctx, lim__batch *b, const lim__committed *what)
{
    lim__store *s = ctx;
    lim__segment *segment = lim__segment_find(&s->segments, s->upkeep.segment);
    s->upkeep.waiting = false;
    s->upkeep.work = LIM__NO_WORK;
    if (what->how == LIM__COMMITTED && segment) {
        s->upkeep.retiring = segment->id;
        retire(s, segment);
    }
    lim__batch_free(b);
}

static void drop_segment(lim__store *s, lim__segment *segment)
{
    lim__batch *b = lim__batch_new();
    if (!b)
        return;
    b->frees = true;
    s->upkeep.segment = segment->id;
    add_numbers(b, LIM__OP_DROP, 0, segment->id, 0);
    submit(s, b, on_dropped);
}

static void on_copied(void *ctx, lim__batch *b, const lim__committed *what)
{
    lim__store *s = ctx;
    s->upkeep.waiting = false;
    if (what->how != LIM__COMMITTED)
        s->upkeep.work = LIM__NO_WORK;
    lim__batch_free(b);
}

/* A record of the segment that is compacted: copied if it is the one that counts. */
static void keep_record(lim__store *s, lim__batch *b, uint64_t at, const lim__op *op)
{
    lim__run run;
    int err = lim__run_find(lim__index_w_seek, s->index, op->stream, op->seq, &run);
    bool there = err == 0 && run.first <= op->seq;
    if (err != 0 && err != -ENOENT)
        b->error = b->error ? b->error : err;
    if (there && lim__ledger_alive(&s->ledger, op->stream, op->seq, s->upkeep.segment, at)) {
        lim__op *copy = lim__batch_add(b, LIM__OP_COPY, op->key_len, op->data_len);
        if (!copy)
            return;
        copy->stream = op->stream;
        copy->seq = op->seq;
        copy->wall_ns = op->wall_ns;
        memcpy((uint8_t *)copy + LIM__OP_HEAD, (const uint8_t *)op + LIM__OP_HEAD, (size_t)op->key_len + op->data_len);
        lim__batch_finish_op(b, copy);
    } else if (!there && op->key_len > 0) { /* nobody finds it under its key any more */
        lim__key k = lim__key_keyed(op->stream, lim__op_key(op), op->seq);
        lim__index_put(s->index, lim__key_bytes(&k), lim__bytes(NULL, 0));
    }
}

/* The oldest that is damaged, and stays; UINT64_MAX: none. */
static uint64_t oldest_stuck(const lim__store *s)
{
    for (size_t i = 0; i < s->segments.count; i++) {
        if (s->segments.list[i]->stuck)
            return s->segments.list[i]->id;
    }
    return UINT64_MAX;
}

/* Needed while its record is there, or an earlier copy of it may be. */
static void keep_erase(lim__store *s, lim__batch *b, const lim__op *op)
{
    uint64_t where = op->wall_ns ? op->wall_ns : s->upkeep.segment;
    const lim__segment *target = lim__segment_find(&s->segments, where);
    bool there = target && target->id != s->upkeep.segment && !target->dropped;
    if (there || oldest_stuck(s) < where)
        add_numbers(b, LIM__OP_ERASE, op->stream, op->seq, where);
}

static void keep_alive(lim__store *s, lim__batch *b, uint64_t at, const lim__batch_head *h, const uint8_t *payload)
{
    for (size_t pos = 0;;) {
        uint64_t here = at + LIM__BATCH_HEAD + pos;
        const lim__op *op = lim__op_next(payload, h->ops_length, &pos);
        if (!op)
            return;
        if (op->kind == LIM__OP_APPEND || op->kind == LIM__OP_COPY)
            keep_record(s, b, here, op);
        else if (op->kind == LIM__OP_ERASE)
            keep_erase(s, b, op);
    }
}

/* The batch at upkeep.at, malloc'd; NULL: it cannot be read. */
static uint8_t *read_batch(lim__store *s, lim__segment *segment, lim__batch_head *h)
{
    uint8_t head[LIM__BATCH_HEAD];
    uint64_t room = segment->stats.end - s->upkeep.at;
    if (lim__segment_load(&s->segments, segment) != 0 ||
        lim__segment_read(&s->segments, segment, head, sizeof head, s->upkeep.at) != 0 ||
        !lim__head_good(head, room, segment->seal, LIM__HEAD_MAGIC))
        return NULL;
    memcpy(h, head, sizeof head);
    uint64_t total = lim__batch_total(h);
    uint8_t *batch = total <= room ? malloc((size_t)total) : NULL;
    if (batch && (lim__segment_read(&s->segments, segment, batch, (size_t)total, s->upkeep.at) != 0 ||
                  !lim__payload_good(batch, segment->seal))) {
        free(batch);
        batch = NULL;
    }
    return batch;
}

static void give_up(lim__store *s, lim__segment *segment)
{
    segment->stuck = true;
    s->upkeep.work = LIM__NO_WORK;
    lim__store_note_damage(s, segment, s->upkeep.at, "a batch cannot be read: the segment is kept as it is");
}

static void compaction_step(lim__store *s)
{
    lim__upkeep *u = &s->upkeep;
    lim__segment *segment = lim__segment_find(&s->segments, u->segment);
    lim__batch *b = lim__batch_new();
    if (!segment || !b) {
        u->work = LIM__NO_WORK;
        lim__batch_free(b);
        return;
    }
    while (u->at < segment->stats.end && b->ops.len < part_bytes(s, COPY_BYTES)) {
        lim__batch_head h;
        uint8_t *batch = read_batch(s, segment, &h);
        if (!batch) {
            give_up(s, segment);
            lim__batch_free(b);
            return;
        }
        keep_alive(s, b, u->at, &h, batch + LIM__BATCH_HEAD);
        u->at += lim__batch_total(&h);
        free(batch);
    }
    if (b->op_count > 0 || b->error != 0) {
        submit(s, b, on_copied);
        return;
    }
    lim__batch_free(b);
    if (is_dead(segment))
        drop_segment(s, segment);
    else
        give_up(s, segment);
}

static void begin_compaction(lim__store *s, lim__segment *segment)
{
    if (is_dead(segment) && segment->stats.keyed == 0 && segment->stats.erases == 0) {
        drop_segment(s, segment);
        return;
    }
    s->upkeep.work = LIM__COMPACTION;
    s->upkeep.segment = segment->id;
    s->upkeep.at = LIM__FILE_BLOCK;
}

/* ---- what to do next ---- */

/* When there is no room, a checkpoint that frees a segment is worth the last of it, but only if it fits. */
static bool checkpoint_due(lim__store *s, bool pinned, uint64_t now)
{
    const lim__mark *m = &s->ledger.mark;
    uint64_t least = 2 * m->checkpoint_bytes;
    least = least > s->segments.segment_bytes ? least : s->segments.segment_bytes;
    if (now < s->upkeep.checkpoint_next_ns)
        return false;
    if (!s->upkeep.starved)
        return s->log.checkpoint_bytes >= least;
    const lim__segment *current = lim__segment_newest(&s->segments, LIM__CURRENT);
    uint64_t room = current ? current->size - current->stats.end : 0;
    room += lim__segment_number(&s->segments, LIM__PREPARED) * s->segments.segment_bytes;
    uint64_t need =
        2 * lim__up(m->checkpoint_bytes + 1024, LIM__FILE_BLOCK); /* both that keep a segment are replaced */
    return pinned && s->log.checkpoint_bytes > 0 && need <= room;
}

/* True: a batch of the store's own waits to be written. */
static bool work_step(lim__store *s, uint64_t now)
{
    lim__upkeep *u = &s->upkeep;
    bool pinned;
    if (u->waiting)
        return true;
    if (s->log.state != LIM__LOG_GOOD)
        return false;
    if (u->retiring != 0) { /* in the order of the log: nothing else before its file is gone */
        lim__segment *segment = lim__segment_find(&s->segments, u->retiring);
        if (segment && now >= u->retire_next_ns)
            retire(s, segment);
        u->retiring = segment ? u->retiring : 0;
        return false;
    }
    if (u->work == LIM__NO_WORK) {
        lim__segment *next = choose(s, &pinned);
        if (next)
            begin_compaction(s, next);
        else if (checkpoint_due(s, pinned, now))
            begin_checkpoint(s);
    }
    if (u->work == LIM__CHECKPOINT)
        checkpoint_step(s);
    else if (u->work == LIM__COMPACTION && !u->waiting)
        compaction_step(s);
    return u->waiting;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

bool lim__upkeep_turn(lim__store *s, uint64_t *next_ns)
{
    uint64_t now = s->os->now_ns(s->os);
    bool more = work_step(s, now);
    more = prepare(s, now) || more;
    more = care_for_sealed(s, now) || more;
    more = flush_index(s) || more;
    if (s->upkeep.starved)
        *next_ns = sooner(*next_ns, s->upkeep.starved_next_ns);
    if (s->upkeep.retiring)
        *next_ns = sooner(*next_ns, s->upkeep.retire_next_ns);
    if (s->upkeep.seal_next_ns > now)
        *next_ns = sooner(*next_ns, s->upkeep.seal_next_ns);
    return more;
}

void lim__upkeep_checkpoint(lim__store *s)
{
    if (s->upkeep.waiting)
        return; /* the log is broken */
    uint64_t before = UINT64_MAX;
    begin_checkpoint(s);
    while (s->upkeep.work == LIM__CHECKPOINT && s->log.state == LIM__LOG_GOOD && !lim__index_damaged(s->index) &&
           s->log.lsn != before) {
        before = s->log.lsn;
        checkpoint_step(s);
        lim__commit_group(s);
        lim__commit_answer(s);
    }
}
