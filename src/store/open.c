/* SPDX-License-Identifier: Apache-2.0
 * open.c - recovery: from the files to a store that can go on.
 *
 *   the index is whole, of this store, and knows the last batch that it has       the log behind it is applied
 *   otherwise                                                                     all of the log, from its beginning
 *
 * Either way the batches are applied in the order of the log by the same code that applies them when they are
 * committed. When all of the log is applied, rows from before the last checkpoint may be old (a newer op was in a
 * segment that is gone); each checkpoint's pages put that right, since they say what there is and what is not.
 *
 * Then the end of the log is looked at. If the store was closed, or nothing but zeros follow, the log goes on there;
 * else in a new segment, so that nothing that was written and discarded can ever be taken for a batch again. What was
 * read is synced before anybody sees it: it may have been in nothing but the drive's cache (DU1). */
#include "store/inside.h"
#include "store/scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct recovery {
    lim__store *s;
    lim__scan scan;
    lim__scan_end end;  /* of the last segment that has batches */
    lim__segment *last; /* that one */
    uint64_t upto;      /* the log ends with this lsn; 0: it ends where it ends */
    uint64_t gap_lsn;   /* the last lsn of those between segments that nobody has; 0: none */
    bool lost;          /* something is lost of which not even the name is known */
    bool mark_closed;   /* the last batch that the index knows was written by close */
    struct { /* the last batch that was read, if behind what counts of it there is something else than should be */
        lim__segment *segment; /* NULL: all is as it should be */
        uint64_t at, length, total;
        lim__batch_head head;
    } tail;
} recovery;

/* ---- applying ---- */

static void apply_saved(void *ctx, uint64_t at, const lim__op *op)
{
    recovery *r = ctx;
    lim__ledger *l = &r->s->ledger;
    if (op->kind == LIM__OP_TOTAL)
        lim__ledger_missing(l, op, l->mark.wall_ns);
    else
        lim__ledger_apply(l, r->last, at, op);
}

static void apply_good(lim__ledger *l, lim__segment *segment, uint64_t at, const lim__batch_head *h,
                       const uint8_t *payload)
{
    for (size_t pos = 0;;) {
        uint64_t here = at + LIM__BATCH_HEAD + pos;
        const lim__op *op = lim__op_next(payload, h->ops_length, &pos);
        if (!op)
            break;
        lim__ledger_apply(l, segment, here, op);
    }
}

/* Zeros and a foot. Nobody needs them while the head is good. */
static bool tail_is_right(const lim__segment *segment, const lim__batch_head *h, const uint8_t *payload)
{
    const uint8_t *foot = payload + lim__batch_total(h) - 2 * (size_t)LIM__BATCH_HEAD;
    for (const uint8_t *p = payload + h->length; p < foot; p++) {
        if (*p != 0)
            return false;
    }
    return lim__head_good(foot, LIM__BATCH_HEAD, segment->seal, LIM__FOOT_MAGIC);
}

/* Of the batch that was read before this one: it was synced, so this is damage. Of the last one it is not: it may never
 * have been written to its end. */
static void tell_tail(recovery *r)
{
    if (r->tail.segment && r->s->opts.read_only)
        lim__store_note_damage(r->s, r->tail.segment, r->tail.at,
                               "behind a good batch there is something else than should be");
    r->tail.segment = NULL;
}

static void look_at_tail(recovery *r, lim__segment *segment, uint64_t at, const lim__batch_head *h,
                         const uint8_t *payload)
{
    tell_tail(r);
    if (tail_is_right(segment, h, payload))
        return;
    r->tail.segment = segment;
    r->tail.at = at;
    r->tail.length = h->length;
    r->tail.total = lim__batch_total(h);
    r->tail.head = *h;
    if (h->flags & LIM__BATCH_CLOSE) /* whoever closed had its answer */
        tell_tail(r);
}

/* The last batch of the log is good, and what is behind it in its blocks is not: a torn write. Now that the batch is in
 * the log for good, it gets its foot. The bytes that count are written again as they are, so a torn write does no harm.
 */
static int mend_tail(recovery *r)
{
    lim__segments *t = &r->s->segments;
    uint64_t used = LIM__BATCH_HEAD + r->tail.length, from = used / LIM__FILE_BLOCK * LIM__FILE_BLOCK;
    size_t len = (size_t)(r->tail.total - from), bad = 0;
    uint8_t *blocks = lim__aligned(len);
    int err = blocks ? lim__segment_read_direct(t, r->tail.segment, blocks, len, r->tail.at + from, &bad) : -ENOMEM;
    if (err == 0 && bad > 0)
        err = -EIO;
    if (err == 0) {
        memset(blocks + (used - from), 0, (size_t)(r->tail.total - used));
        lim__batch_foot(blocks + len - LIM__BATCH_HEAD, &r->tail.head, r->tail.segment->seal);
        err = lim__segment_write(t, r->tail.segment, blocks, len, r->tail.at + from);
    }
    free(blocks);
    return err;
}

static void on_batch(void *ctx, lim__segment *segment, uint64_t at, const lim__batch_head *h, const uint8_t *payload,
                     bool damaged)
{
    enum { RECENT_MAX = 32 << 20 };
    recovery *r = ctx;
    lim__store *s = r->s;
    s->start_batches++;
    s->start_bytes += lim__batch_total(h);
    r->last = segment;
    if (damaged)
        tell_tail(r);
    else
        look_at_tail(r, segment, at, h, payload);
    if (!damaged)
        apply_good(&s->ledger, segment, at, h, payload);
    else if (!lim__scan_save(h, payload, at, segment->seal, apply_saved, r))
        r->lost = true;
    lim__ledger_commit(&s->ledger, h->lsn, segment, at, at + lim__batch_total(h), h->wall_ns);
    if (lim__index_recent(s->index) > RECENT_MAX)
        (void)lim__index_flush(s->index, true);
}

static void on_damage(void *ctx, lim__segment *segment, uint64_t at, uint64_t first, uint64_t last, bool lost,
                      const char *what)
{
    recovery *r = ctx;
    char text[160];
    snprintf(text, sizeof text, "batches %llu to %llu: %s", (unsigned long long)first, (unsigned long long)last, what);
    r->lost = r->lost || lost;
    lim__store_note_damage(r->s, segment, at, text);
}

/* ---- reading segments ---- */

typedef struct plan { /* the segments with batches, in the order of the log */
    lim__segment *segment;
    uint64_t first_lsn;
} plan;

/* Where the next one that has batches begins, if nothing can be between the two; or what this one says itself. */
static uint64_t limit_of(const recovery *r, const plan *p, size_t i, size_t count)
{
    uint64_t limit = p[i].segment->sealed ? p[i].segment->sealed_last_lsn + 1 : i + 1 < count ? p[i + 1].first_lsn : 0;
    uint64_t upto = r->upto ? r->upto + 1 : 0;
    return upto && (limit == 0 || upto < limit) ? upto : limit;
}

static int scan_one(recovery *r, lim__segment *segment, uint64_t from, uint64_t expect, uint64_t limit)
{
    const lim__scan_visitor v = { on_batch, on_damage, r };
    lim__scan_end end;
    uint64_t before = r->s->ledger.mark.lsn;
    int err = lim__scan_segment(&r->scan, segment, from, expect, limit, &v, &end);
    if (end.end == from && from > LIM__FILE_BLOCK)
        end.closed = r->mark_closed;
    if (segment->state == LIM__SEALED) /* it was opened for reading only */
        lim__segment_close_write(&r->s->segments, segment);
    if (r->s->ledger.mark.lsn != before || from > LIM__FILE_BLOCK || limit == 0) {
        r->end = end;
        r->last = segment;
    }
    return err;
}

static int scan_all(recovery *r, plan *p, size_t count, uint64_t from, uint64_t expect)
{
    for (size_t i = 0; i < count; i++) {
        lim__segment *segment = p[i].segment;
        if (LIM__MUTATION("recovery_stops_early") && i > 0 && i + 1 == count)
            break;
        if (expect == 0 || p[i].first_lsn > expect) { /* segments between them are gone, as is right, or not */
            r->gap_lsn = expect ? p[i].first_lsn - 1 : r->gap_lsn;
            expect = p[i].first_lsn;
        }
        int err = scan_one(r, segment, from, expect, limit_of(r, p, i, count));
        if (err != 0)
            return err;
        uint64_t next = r->s->ledger.mark.lsn + 1;
        expect = next > expect ? next : expect;
        from = LIM__FILE_BLOCK;
    }
    return 0;
}

/* What a segment begins with takes the place of the same in older ones (J7): of those that begin no earlier, nothing
 * counts. */
static size_t drop_replaced(plan *p, size_t count)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = count; i > 0; i--) {
        if (p[i - 1].first_lsn < least) {
            least = p[i - 1].first_lsn;
            continue;
        }
        memmove(p + i - 1, p + i, (count - i) * sizeof *p);
        count--;
    }
    return count;
}

/* Segments from `from_id` on that have batches. A head that cannot be read costs all that is in it. */
static int make_plan(recovery *r, uint64_t from_id, plan **out, size_t *count)
{
    lim__segments *t = &r->s->segments;
    plan *p = calloc(t->count + 1, sizeof *p);
    *count = 0;
    *out = p;
    for (size_t i = 0; p && i < t->count; i++) {
        lim__segment *segment = t->list[i];
        if (segment->id < from_id)
            continue;
        int err = lim__segment_load(t, segment);
        if (err == -EBADMSG) {
            lim__store_note_damage(r->s, segment, 0, "the head of the segment is damaged: nothing of it can be read");
            r->lost = true;
            continue;
        }
        if (err == 0 && r->upto && segment->state == LIM__PREPARED)
            continue;
        uint64_t lsn = 0;
        if (err == 0)
            err = lim__scan_first_lsn(&r->scan, segment, &lsn);
        if (segment->state == LIM__SEALED)
            lim__segment_close_write(t, segment);
        if (err != 0)
            return err;
        if (lsn != 0 && !(segment->sealed && lsn > segment->sealed_last_lsn))
            p[(*count)++] = (plan){ segment, lsn };
    }
    *count = p ? drop_replaced(p, *count) : 0;
    return p ? 0 : -ENOMEM;
}

/* ---- all of the log ---- */

static void check_listed(recovery *r)
{
    lim__ledger *l = &r->s->ledger;
    for (size_t i = 0; i < l->listed_count; i++) {
        if (l->listed[i] == 0 || lim__segment_find(l->segments, l->listed[i]))
            continue;
        char text[96];
        snprintf(text, sizeof text, "the file of segment %016llx is missing", (unsigned long long)l->listed[i]);
        lim__store_note_damage(r->s, NULL, 0, text);
        r->lost = true;
    }
    if (r->gap_lsn && r->gap_lsn >= l->mark.checkpoint) { /* so new that none can have been dropped */
        lim__store_note_damage(r->s, NULL, 0, "a segment of the log is missing");
        r->lost = true;
    }
}

/* Something is lost, and its name is unknown: then every number that should be there and is not is lost. */
static void lose_what_is_missing(recovery *r)
{
    lim__ledger *l = &r->s->ledger;
    lim__buf key = { 0 };
    lim__key at = lim__key_stream(0);
    lim__seek where = LIM__SEEK_GE;
    while (lim__index_w_seek(r->s->index, lim__key_bytes(&at), where, &key, NULL) == 0 &&
           *(const char *)lim__buf_bytes(&key).ptr == 'S') {
        uint64_t id = lim__key_number(lim__buf_bytes(&key), 1);
        lim__stream *st = lim__ledger_stream(l, id);
        lim__op total = { .kind = LIM__OP_TOTAL, .stream = id };
        if (st) {
            total.seq = st->info.first;
            total.wall_ns = st->info.next - st->info.first;
            lim__ledger_missing(l, &total, st->info.last_ns);
        }
        at = lim__key_stream(id);
        where = LIM__SEEK_GT;
    }
    lim__buf_fini(&key);
    if (l->mark.segment)
        lim__ledger_commit(l, l->mark.lsn, lim__segment_find(l->segments, l->mark.segment), l->mark.at, l->mark.end,
                           l->mark.wall_ns);
}

static int remake(recovery *r)
{
    lim__store *s = r->s;
    plan *p = NULL;
    size_t count = 0;
    int err = lim__index_wipe(s->index);
    lim__ledger_clear(&s->ledger);
    s->ledger.mark.store_id = s->store_id;
    for (size_t i = 0; i < s->segments.count; i++) {
        lim__segment *segment = s->segments.list[i];
        uint32_t suspect = segment->stats.suspect;
        uint64_t end = segment->stats.end;
        segment->stats = (lim__segment_stats){ .suspect = suspect, .end = end };
        lim__segment_touch(&s->segments, segment);
    }
    s->damages = 0;
    s->ledger.remaking = true;
    if (err == 0)
        err = make_plan(r, 0, &p, &count);
    if (err == 0)
        err = scan_all(r, p, count, LIM__FILE_BLOCK, 0);
    if (err == 0)
        check_listed(r);
    if (err == 0 && r->lost)
        lose_what_is_missing(r);
    s->ledger.remaking = false;
    free(p);
    return err ? err : s->ledger.failed ? -ENOMEM : 0;
}

int lim__remake_index(lim__store *s, lim__store_error *error)
{
    recovery r = { .s = s, .scan = { .segments = &s->segments }, .upto = s->log.lsn };
    lim__store_event(s, "index_remade", "the index was damaged and is made again from the log");
    int err = remake(&r);
    lim__scan_fini(&r.scan);
    if (err == 0)
        lim__index_ready(s->index);
    else
        lim__store_fail(error, "the index could not be made again from the log: %s", strerror(-err));
    return err;
}

/* ---- what the index has, and the log behind it ---- */

/* Is the batch there that the index has last? Else this is not its log, or the batch went bad. */
static bool mark_holds(recovery *r, bool *bad)
{
    const lim__mark *m = &r->s->ledger.mark;
    lim__segment *segment = lim__segment_find(&r->s->segments, m->segment);
    *bad = false;
    if (!segment || lim__segment_load(&r->s->segments, segment) != 0 || m->end > segment->size || m->at >= m->end)
        return false;
    uint8_t *block = lim__aligned(LIM__FILE_BLOCK);
    size_t unread = 0;
    bool holds = false;
    if (block && lim__segment_read_direct(&r->s->segments, segment, block, LIM__FILE_BLOCK, m->at, &unread) == 0) {
        lim__batch_head h;
        memcpy(&h, block, sizeof h);
        bool good = lim__head_good(block, LIM__FILE_BLOCK, segment->seal, LIM__HEAD_MAGIC);
        *bad = !good && (block[0] != 0 || memcmp(block, block + 1, LIM__BATCH_HEAD - 1) != 0);
        holds = *bad || (good && h.lsn == m->lsn && lim__batch_total(&h) == m->end - m->at);
        r->mark_closed = good && (h.flags & LIM__BATCH_CLOSE) != 0;
    }
    lim__segment_close_write(&r->s->segments, segment);
    free(block);
    return holds;
}

/* What was found to be bad when the index was made, and not now. */
static void tell_known_damage(lim__store *s, uint32_t told)
{
    uint32_t all = 0;
    for (size_t i = 0; i < s->segments.count; i++) {
        const lim__segment *segment = s->segments.list[i];
        all += segment->stats.damages;
        if (segment->stats.damages > 0)
            lim__store_event(s, "quarantined", "segment %016llx has %u damaged places", (unsigned long long)segment->id,
                             segment->stats.damages);
    }
    s->damages = all > told ? all : told;
}

static int catch_up(recovery *r)
{
    lim__store *s = r->s;
    bool bad;
    int err = lim__ledger_load(&s->ledger);
    if (err == -ENOENT) /* a new one: it was never given anything */
        return err;
    if (err != 0 || s->ledger.mark.store_id != s->store_id || !mark_holds(r, &bad))
        return -EBADMSG;
    const lim__mark m = s->ledger.mark;
    lim__index_loaded(s->index, m.lsn);
    plan *p = NULL;
    size_t count = 0;
    const uint32_t before = s->damages;
    r->last = lim__segment_find(&s->segments, m.segment);
    if (bad)
        lim__store_note_damage(s, r->last, m.at, "the last batch that the index knows is damaged");
    err = make_plan(r, m.segment, &p, &count);
    if (err == 0 && (count == 0 || p[0].segment->id != m.segment))
        err = -EBADMSG;
    if (err == 0)
        err = scan_all(r, p, count, m.end, m.lsn + 1);
    free(p);
    for (size_t i = 0; i < s->ledger.listed_count; i++)
        r->lost =
            r->lost || s->ledger.listed[i] != 0; /* a file is missing, and the log does not say that it was dropped */
    s->ledger.listed_count = 0;
    if (err != 0 || s->ledger.failed || r->lost || r->gap_lsn)
        return err ? err : -EBADMSG;
    tell_known_damage(s, before);
    return 0;
}

/* ---- going on ---- */

/* Behind the log there are only prepared segments, with no batch of theirs in them. What was dropped goes now, and what
 * was sealed before it had a batch. Nothing that is damaged is ever removed here. */
static int tidy_segments(recovery *r)
{
    lim__segments *t = &r->s->segments;
    uint64_t last = r->last ? r->last->id : 0;
    for (size_t i = t->count; i > 0; i--) {
        lim__segment *segment = t->list[i - 1];
        bool behind = segment->id > last, empty = segment->stats.last_lsn == 0;
        if (segment->id == last || segment->stats.damages > 0 || (!behind && !empty && !segment->dropped))
            continue;
        if (behind && segment->loaded && !segment->sealed && segment->size == t->segment_bytes) {
            segment->state = LIM__PREPARED;
            segment->stats.end = LIM__FILE_BLOCK;
            continue;
        }
        int err = lim__segment_forget(t, segment);
        if (err != 0)
            return err;
    }
    return 0;
}

/* The log goes on in its last segment. Batches behind its end that are not in it must not come back. */
static int go_on_in(recovery *r, lim__segment *last)
{
    lim__segments *t = &r->s->segments;
    last->state = LIM__CURRENT;
    last->stats.end = r->end.end;
    int err = r->end.ghosts ? lim__segment_zero(t, last) : 0;
    if (err == 0 && r->tail.segment == last && !LIM__MUTATION("tail_not_mended"))
        err = mend_tail(r);
    if (err == 0 && !r->end.closed) /* what was read may have been in no more than a cache */
        err = lim__segment_sync(t, last);
    return err;
}

static int seal_last(recovery *r, lim__segment *last)
{
    lim__segments *t = &r->s->segments;
    int err = lim__segment_sync(t, last);
    lim__segment_close_write(t, last);
    if (err == 0)
        err = lim__segment_seal_up(t, last);
    return err ? err : lim__segment_cut(t, last);
}

static int go_on(recovery *r)
{
    lim__store *s = r->s;
    lim__segment *last = r->last;
    int err = tidy_segments(r);
    if (err != 0)
        return err;
    if (last && last->size == s->segments.segment_bytes && !last->sealed && !last->stats.suspect)
        return go_on_in(r, last);
    if (last)
        err = seal_last(r, last);
    if (err != 0 || lim__log_roll(s))
        return err;
    if (lim__upkeep_prepare_now(s) && lim__log_roll(s))
        return 0;
    return s->upkeep.starved_err == -ENOSPC ? 0 : s->upkeep.starved_err; /* a full disk can be read */
}

static int recover_index(recovery *r, lim__store_error *error)
{
    int err = r->s->has_base ? catch_up(r) : -EBADMSG;
    if ((err == -EBADMSG || err == -ENOENT) && r->s->from != LIM__INDEX_LOOK) {
        *r = (recovery){ .s = r->s, .scan = r->scan };
        if (r->s->segments.count > 0 && r->s->has_base)
            lim__store_event(r->s, "index_remade",
                             "the index is missing, older than its log or damaged: it is made again from the log");
        err = remake(r);
    }
    if (err == -EIO)
        lim__store_fail(error,
                        "the end of the log in %s cannot be read: nothing was changed; see to the disk, try again",
                        r->s->dir);
    else if (err != 0)
        lim__store_fail(error, "the log in %s cannot be read: %s", r->s->dir, strerror(-err));
    return err;
}

int lim__recover(lim__store *s, lim__store_error *error)
{
    recovery r = { .s = s, .scan = { .segments = &s->segments } };
    int err = recover_index(&r, error);
    s->log.lsn = s->log.synced_lsn = s->ledger.mark.lsn;
    s->log.wall_ns = s->ledger.mark.wall_ns;
    if (err == 0 && !s->opts.read_only) {
        err = go_on(&r);
        if (err != 0)
            lim__store_fail(error, "the log in %s cannot be continued: %s", s->dir, strerror(-err));
    }
    if (err == 0)
        lim__index_ready(s->index);
    lim__scan_fini(&r.scan);
    return err;
}
