/* SPDX-License-Identifier: Apache-2.0
 * scan.c - what is torn, what is damaged, and what of that can be saved (J4).
 *
 * Batches have consecutive lsns. Where the expected one is not found whole, there are three explanations:
 *
 *   the log ends here    no later batch was begun that says it knew this one to be on stable storage: whoever was
 * writing it had no answer yet. It is discarded, and with it anything behind it. it is somewhere else the next segment
 * begins with this lsn: the disk had failed here, and it was written again there. it went bad          a later batch
 * says that it was on stable storage, or the next segment begins with a later lsn.
 *
 * A later batch need not be whole itself to say that: its head is enough, since it was written after the sync.
 *
 * A batch with a bad head is found by its foot: the last 64 bytes of some block, which say how long the batch is, and
 * so that it begins here. */
#include "store/scan.h"

#include <errno.h>
#include <stdlib.h>

void lim__scan_fini(lim__scan *sc)
{
    free(sc->buf);
    *sc = (lim__scan){ 0 };
}

/* ---- looking around in the bytes of a segment ---- */

static lim__batch_head head_at(const lim__scan *sc, uint64_t pos)
{
    lim__batch_head h;
    memcpy(&h, sc->buf + (pos - sc->from), sizeof h);
    return h;
}

static uint64_t bytes_end(const lim__scan *sc)
{
    return sc->from + sc->len;
}

static bool has_head(const lim__scan *sc, const lim__segment *s, uint64_t pos)
{
    const uint8_t *at = sc->buf + (pos - sc->from);
    if (!lim__head_good(at, bytes_end(sc) - pos, s->seal, LIM__HEAD_MAGIC))
        return false;
    lim__batch_head h = head_at(sc, pos);
    return lim__batch_total(&h) <= bytes_end(sc) - pos;
}

/* A foot that belongs to a batch that begins at pos and has this lsn. */
static bool find_foot(const lim__scan *sc, const lim__segment *s, uint64_t pos, uint64_t lsn, lim__batch_head *out)
{
    for (uint64_t end = pos + LIM__FILE_BLOCK; end <= bytes_end(sc); end += LIM__FILE_BLOCK) {
        const uint8_t *at = sc->buf + (end - LIM__BATCH_HEAD - sc->from);
        if (!lim__head_good(at, LIM__BATCH_HEAD, s->seal, LIM__FOOT_MAGIC))
            continue;
        memcpy(out, at, sizeof *out);
        if (out->lsn == lsn && lim__batch_total(out) == end - pos)
            return true;
    }
    return false;
}

/* What lies behind a place at which the batch `lsn` should be. */
typedef struct beyond {
    uint64_t next, next_lsn; /* the first later batch; 0: none */
    bool synced;             /* one of them says that `lsn` was on stable storage */
    bool ghosts;             /* there is a head or a foot of one */
} beyond;

static bool has_later_foot(const lim__scan *sc, const lim__segment *s, uint64_t pos, uint64_t lsn)
{
    lim__batch_head h;
    const uint8_t *at = sc->buf + (pos + LIM__FILE_BLOCK - LIM__BATCH_HEAD - sc->from);
    if (!lim__head_good(at, LIM__BATCH_HEAD, s->seal, LIM__FOOT_MAGIC))
        return false;
    memcpy(&h, at, sizeof h);
    return h.lsn > lsn;
}

static beyond look_beyond(const lim__scan *sc, const lim__segment *s, uint64_t pos, uint64_t lsn)
{
    beyond b = { 0 };
    for (; pos + LIM__FILE_BLOCK <= bytes_end(sc) && !b.synced; pos += LIM__FILE_BLOCK) {
        b.ghosts = b.ghosts || has_later_foot(sc, s, pos, lsn);
        if (!has_head(sc, s, pos))
            continue;
        lim__batch_head h = head_at(sc, pos);
        if (h.lsn <= lsn)
            continue;
        b.ghosts = true;
        if (b.next == 0) {
            b.next = pos;
            b.next_lsn = h.lsn;
        }
        b.synced = h.synced_lsn >= lsn;
    }
    return b;
}

/* ---- one segment ---- */

static int read_in(lim__scan *sc, lim__segment *s, uint64_t from, uint64_t to, size_t *bad)
{
    size_t len = (size_t)(to - from);
    *bad = 0;
    if (len > sc->cap) {
        free(sc->buf);
        sc->cap = 0;
        sc->buf = lim__aligned(len);
        if (!sc->buf)
            return -ENOMEM;
        sc->cap = (size_t)lim__up(len, LIM__FILE_BLOCK);
    }
    sc->from = from;
    sc->len = len;
    return len ? lim__segment_read_direct(sc->segments, s, sc->buf, len, from, bad) : 0;
}

typedef struct walk {
    lim__scan *sc;
    lim__segment *s;
    const lim__scan_visitor *v;
    uint64_t pos, expect, limit;
    lim__scan_end *end;
} walk;

static void pass(walk *w, const lim__batch_head *h, bool damaged)
{
    const uint8_t *payload = w->sc->buf + (w->pos - w->sc->from) + LIM__BATCH_HEAD;
    w->v->batch(w->v->ctx, w->s, w->pos, h, payload, damaged);
    w->pos += lim__batch_total(h);
    w->expect = h->lsn + 1;
    w->end->end = w->pos;
    w->end->closed = !damaged && (h->flags & LIM__BATCH_CLOSE) != 0;
}

static bool payload_good(const walk *w, const lim__batch_head *h)
{
    uint8_t *at = w->sc->buf + (w->pos - w->sc->from);
    memcpy(at, h, sizeof *h); /* from the foot, if the head was bad */
    return LIM__MUTATION("checksum_unchecked") || lim__payload_good(at, w->s->seal);
}

static void tell(const walk *w, uint64_t last, bool lost, const char *what)
{
    w->v->damage(w->v->ctx, w->s, w->pos, w->expect, last, lost, what);
}

/* The batch is known to have been here. True: there is something behind it. */
static bool pass_damaged(walk *w, const lim__batch_head *located, const beyond *b)
{
    if (located) {
        tell(w, w->expect, false, "the batch is damaged");
        pass(w, located, true);
        return true;
    }
    uint64_t next_lsn = b->next ? b->next_lsn : w->limit;
    tell(w, next_lsn - 1, true, "nothing of it can be found");
    w->expect = next_lsn;
    w->pos = b->next;
    return b->next != 0;
}

/* At a place where the expected batch is not whole. True: the log goes on, at w->pos. */
static bool step_over(walk *w)
{
    lim__batch_head h;
    bool front = has_head(w->sc, w->s, w->pos);
    if (front)
        h = head_at(w->sc, w->pos);
    front = front && h.lsn == w->expect;
    bool located = front || find_foot(w->sc, w->s, w->pos, w->expect, &h);
    beyond b = look_beyond(w->sc, w->s, located ? w->pos + lim__batch_total(&h) : w->pos, w->expect);
    bool was_there = b.synced || w->limit > w->expect;
    if (located && !front && payload_good(w, &h)) { /* the head alone went bad, or was not written */
        if (was_there)
            tell(w, w->expect, false, "the head of the batch was damaged; all of it was found again");
        pass(w, &h, false);
        return true;
    }
    if (was_there)
        return pass_damaged(w, located ? &h : NULL, &b);
    w->end->ghosts = b.ghosts;
    if (located && (LIM__MUTATION("torn_tail_accepted") || LIM__MUTATION("cursor_without_record"))) {
        pass(w, &h, LIM__MUTATION("cursor_without_record"));
        return true;
    }
    return false;
}

static void walk_batches(walk *w)
{
    while (w->limit == 0 || w->expect < w->limit) {
        if (w->pos + LIM__FILE_BLOCK > bytes_end(w->sc)) {
            if (w->limit > w->expect)
                tell(w, w->limit - 1, true, "the segment ends before it");
            break;
        }
        lim__batch_head h = head_at(w->sc, w->pos);
        if (has_head(w->sc, w->s, w->pos) && h.lsn == w->expect && payload_good(w, &h))
            pass(w, &h, false);
        else if (!step_over(w))
            break;
    }
}

int lim__scan_segment(lim__scan *sc, lim__segment *s, uint64_t from, uint64_t expect, uint64_t limit,
                      const lim__scan_visitor *v, lim__scan_end *end)
{
    size_t bad;
    *end = (lim__scan_end){ .expect = expect, .end = from };
    int err = read_in(sc, s, from, s->size > from ? s->size : from, &bad);
    if (err != 0)
        return err;
    walk w = { .sc = sc, .s = s, .v = v, .pos = from, .expect = expect, .limit = limit, .end = end };
    walk_batches(&w);
    end->expect = w.expect;
    return limit == 0 && from + bad > end->end ? -EIO : 0;
}

/* The first head, or the first foot: that of a first batch whose head is bad. */
static uint64_t first_lsn_in(const lim__scan *sc, const lim__segment *s)
{
    for (uint64_t pos = sc->from; pos + LIM__FILE_BLOCK <= bytes_end(sc); pos += LIM__FILE_BLOCK) {
        lim__batch_head h;
        if (has_head(sc, s, pos))
            return head_at(sc, pos).lsn;
        const uint8_t *foot = sc->buf + (pos + LIM__FILE_BLOCK - LIM__BATCH_HEAD - sc->from);
        if (!lim__head_good(foot, LIM__BATCH_HEAD, s->seal, LIM__FOOT_MAGIC))
            continue;
        memcpy(&h, foot, sizeof h);
        return h.lsn;
    }
    return 0;
}

int lim__scan_first_lsn(lim__scan *sc, lim__segment *s, uint64_t *lsn)
{
    size_t bad;
    uint64_t all = s->size, some = LIM__FILE_BLOCK + (64 << 10);
    int err = read_in(sc, s, LIM__FILE_BLOCK, some < all ? some : all, &bad);
    if (err == 0 && has_head(sc, s, LIM__FILE_BLOCK)) {
        *lsn = head_at(sc, LIM__FILE_BLOCK).lsn;
        return 0;
    }
    if (err == 0)
        err = read_in(sc, s, LIM__FILE_BLOCK, all, &bad);
    *lsn = err == 0 ? first_lsn_in(sc, s) : 0;
    return err ? err : bad > 0 && *lsn == 0 ? -EIO : 0;
}

/* ---- what can be saved of a damaged batch ---- */

static bool is_record_or_page(const lim__op *op)
{
    return op->kind == LIM__OP_APPEND || op->kind == LIM__OP_COPY || op->kind == LIM__OP_PAGE;
}

/* Calls for each good op of one of the two sorts, also behind bad places. True: there were no bad places. */
static bool each_good(const uint8_t *ops, size_t len, uint64_t at, lim__seal seal, bool records, lim__scan_op *each,
                      void *ctx)
{
    bool whole = true;
    for (size_t pos = 0; pos < len;) {
        if (!lim__op_good(ops + pos, len - pos, seal)) {
            whole = false;
            pos += 8;
            continue;
        }
        const lim__op *op = (const lim__op *)(const void *)(ops + pos);
        if (is_record_or_page(op) == records)
            each(ctx, at ? at + pos : 0, op);
        pos += lim__op_size(op);
    }
    return whole;
}

bool lim__scan_save(const lim__batch_head *h, const uint8_t *payload, uint64_t at, lim__seal seal, lim__scan_op *each,
                    void *ctx)
{
    const uint8_t *echo = payload + h->ops_length;
    size_t echo_len = h->length - h->ops_length;
    uint64_t ops_at = at + LIM__BATCH_HEAD;
    bool ops_whole = each_good(payload, h->ops_length, ops_at, seal, true, each, ctx);
    bool echo_whole = each_good(echo, echo_len, 0, seal, false, each, ctx);
    if (!echo_whole && ops_whole)
        each_good(payload, h->ops_length, ops_at, seal, false, each, ctx); /* what both have does no harm twice */
    return ops_whole || echo_whole;
}
