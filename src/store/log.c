/* SPDX-License-Identifier: Apache-2.0
 * log.c - one log write: into the current segment, synced, and when the disk fails, somewhere else.
 *
 *   (J1) a log write is one batch with one checksum, seeded with the life of the segment.
 *   (J2) it takes whole blocks, and a block that was once written is not written again in this life.
 *   (J3) the next one is made only after this one is on stable storage (or was never asked to be).
 *   (J7) after a failed write or sync nobody knows what that segment has behind its last synced batch: it is sealed,
 * and what was not synced goes into the next segment, with the same lsns. What the next segment begins with takes the
 *        place of whatever the sealed one may turn out to have.
 *   (J8) buffers are aligned; segment.c asserts it.
 *
 *   GOOD --three segments failed in a row, or there was none--> BROKEN --mend: an empty batch could be written--> GOOD
 *
 * In BROKEN nothing is taken. The batch that failed is in doubt: it may be on the disk. The empty batch that ends
 * BROKEN has its lsn in a newer segment, and so replaces it for good.
 *
 * Batches whose callers did not wait for a sync are `kept` in memory until there is one, so that they can be written
 * again, too: they have been seen. They lie in one segment, since a segment is synced before the next one is begun. */
#include "store/inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ATTEMPTS = 3, KEPT_MAX = 4 << 20 };
#define RETRY_NS 200000000u

static bool grow_aligned(uint8_t **buf, size_t *cap, size_t need)
{
    if (need <= *cap)
        return true;
    size_t more = (size_t)lim__up(need + need / 4, LIM__FILE_BLOCK);
    uint8_t *grown = lim__aligned(more);
    if (!grown)
        return false;
    if (*cap > 0)
        memcpy(grown, *buf, *cap);
    free(*buf);
    *buf = grown;
    *cap = more;
    return true;
}

int lim__log_room(lim__store *s, size_t bytes)
{
    return grow_aligned(&s->log.buf, &s->log.cap, bytes) ? 0 : -ENOMEM;
}

/* ---- going on in another segment ---- */

static void seal_segment(lim__store *s, lim__segment *current, int err)
{
    if (s->log.kept.len > 0 && s->log.kept.segment == current->id) { /* these are not its own any more */
        current->stats.last_lsn = s->log.synced_lsn >= current->stats.first_lsn ? s->log.synced_lsn : 0;
        current->stats.end = s->log.kept.at;
    }
    lim__store_event(s, "segment_sealed",
                     "the disk failed (%s) in segment %016llx behind batch %llu: the log goes on in "
                     "another segment, and this one is read again",
                     strerror(-err), (unsigned long long)current->id, (unsigned long long)current->stats.last_lsn);
    lim__segment_distrust(&s->segments, current);
    lim__segment_close_write(&s->segments, current);
    current->state = LIM__SEALED;
}

static lim__segment *current_of(lim__store *s)
{
    return lim__segment_newest(&s->segments, LIM__CURRENT);
}

static bool take_prepared(lim__store *s)
{
    lim__segment *next = lim__segment_oldest(&s->segments, LIM__PREPARED);
    if (next)
        next->state = LIM__CURRENT;
    return next != NULL;
}

bool lim__log_roll(lim__store *s)
{
    lim__segment *current = current_of(s);
    if (lim__segment_number(&s->segments, LIM__PREPARED) == 0)
        return false;
    if (current && s->log.synced_lsn < s->log.lsn && lim__log_sync(s) != 0)
        return current_of(s) != NULL; /* it was sealed, and the next one is open already */
    if (current) {
        lim__segment_close_write(&s->segments, current);
        current->state = LIM__SEALED;
        lim__segment_touch(&s->segments, current);
    }
    return take_prepared(s);
}

/* Written, not yet synced. False: no memory to keep it, so it has to be synced. */
static bool keep(lim__store *s, const lim__segment *segment, const lim__batch_head *h)
{
    size_t total = (size_t)lim__batch_total(h);
    if (!grow_aligned(&s->log.kept.bytes, &s->log.kept.cap, s->log.kept.len + total))
        return false;
    if (s->log.kept.len == 0) {
        s->log.kept.segment = segment->id;
        s->log.kept.at = segment->stats.end;
    }
    memcpy(s->log.kept.bytes + s->log.kept.len, s->log.buf, total);
    s->log.kept.len += total;
    return true;
}

static lim__batch_head kept_head(const lim__store *s, size_t pos)
{
    lim__batch_head h;
    memcpy(&h, s->log.kept.bytes + pos, sizeof h);
    return h;
}

static void apply_kept(lim__store *s, lim__segment *segment, uint64_t at)
{
    for (size_t pos = 0; pos < s->log.kept.len;) {
        lim__batch_head h = kept_head(s, pos);
        const uint8_t *payload = s->log.kept.bytes + pos + LIM__BATCH_HEAD;
        for (size_t i = 0;;) {
            uint64_t here = at + pos + LIM__BATCH_HEAD + i;
            const lim__op *op = lim__op_next(payload, h.ops_length, &i);
            if (!op)
                break;
            lim__ledger_apply(&s->ledger, segment, here, op);
        }
        size_t next = pos + (size_t)lim__batch_total(&h);
        lim__ledger_commit(&s->ledger, h.lsn, segment, at + pos, at + next, h.wall_ns);
        pos = next;
    }
}

/* What is kept goes into this segment, if it is in one that was sealed. */
static int write_kept(lim__store *s, lim__segment *current)
{
    if (s->log.kept.len == 0 || s->log.kept.segment == current->id)
        return 0;
    uint64_t at = current->stats.end;
    for (size_t pos = 0; pos < s->log.kept.len;) {
        lim__batch_head h = kept_head(s, pos);
        lim__batch_seal(s->log.kept.bytes + pos, &h, current->seal);
        pos += (size_t)lim__batch_total(&h);
    }
    if (s->log.kept.len > current->size - at)
        return -ENOSPC;
    int err = lim__segment_write(&s->segments, current, s->log.kept.bytes, s->log.kept.len, at);
    if (err == 0)
        err = lim__segment_sync(&s->segments, current);
    if (err != 0)
        return err;
    s->syncs++;
    apply_kept(s, current, at);
    s->log.synced_lsn = s->log.lsn;
    s->log.kept.len = 0;
    return 0;
}

/* A segment with room in which everything before is on its way or on stable storage; NULL: there is none. */
static lim__segment *next_segment(lim__store *s, uint64_t room)
{
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        lim__segment *current = current_of(s);
        if (!current) {
            bool any = take_prepared(s) || (lim__upkeep_prepare_now(s) && take_prepared(s));
            current = any ? current_of(s) : NULL;
        }
        if (!current)
            return NULL;
        int err = write_kept(s, current);
        if (err != 0) {
            seal_segment(s, current, err);
            continue;
        }
        if (current->size - current->stats.end >= room)
            return current;
        lim__segment_close_write(&s->segments, current);
        current->state = LIM__SEALED;
        lim__segment_touch(&s->segments, current);
    }
    return NULL;
}

static void break_log(lim__store *s)
{
    s->log.state = LIM__LOG_BROKEN;
    s->log.retry_ns = s->os->now_ns(s->os) + RETRY_NS;
    lim__store_event(s, "log_broken", "the log can be written nowhere: nothing is stored until that works again");
}

/* ---- writing ---- */

static int write_once(lim__store *s, lim__segment *current, lim__batch_head *h, bool *sync)
{
    lim__batch_seal(s->log.buf, h, current->seal);
    int err = lim__segment_write(&s->segments, current, s->log.buf, (size_t)lim__batch_total(h), current->stats.end);
    size_t kept_max = KEPT_MAX < s->segments.segment_bytes / 4 ? KEPT_MAX : (size_t)s->segments.segment_bytes / 4;
    if (err == 0 && !*sync)
        *sync = s->log.kept.len + lim__batch_total(h) > kept_max || !keep(s, current, h);
    if (err != 0 || !*sync || LIM__MUTATION("ack_before_sync"))
        return err;
    err = lim__segment_sync(&s->segments, current);
    s->syncs += err == 0;
    return LIM__MUTATION("failed_sync_ignored") ? 0 : err;
}

static void wrote(lim__store *s, const lim__batch_head *h, bool sync)
{
    s->log.lsn = h->lsn;
    s->log.wall_ns = h->wall_ns;
    s->log.written_bytes += lim__batch_total(h);
    s->log.flushed_bytes += lim__batch_total(h);
    s->log.checkpoint_bytes += lim__batch_total(h);
    if (!sync)
        return;
    s->log.synced_lsn = h->lsn;
    s->log.sync_due_ns = UINT64_MAX;
    s->log.kept.len = 0;
}

int lim__log_write(lim__store *s, lim__batch_head *h, bool sync, lim__segment **segment, uint64_t *at)
{
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        lim__segment *current = next_segment(s, lim__batch_total(h));
        if (!current)
            break;
        int err = write_once(s, current, h, &sync);
        if (err != 0) {
            seal_segment(s, current, err);
            continue;
        }
        *segment = current;
        *at = current->stats.end;
        wrote(s, h, sync);
        return 0;
    }
    break_log(s);
    return -EIO;
}

int lim__log_sync(lim__store *s)
{
    lim__segment *current = current_of(s);
    s->log.sync_due_ns = UINT64_MAX;
    if (s->log.state != LIM__LOG_GOOD || s->log.synced_lsn == s->log.lsn)
        return s->log.state == LIM__LOG_GOOD ? 0 : -EIO;
    int err = current ? lim__segment_sync(&s->segments, current) : -EIO;
    if (err == 0) {
        s->syncs++;
        s->log.synced_lsn = s->log.lsn;
        s->log.kept.len = 0;
        return 0;
    }
    if (current)
        seal_segment(s, current, err);
    if (next_segment(s, LIM__FILE_BLOCK)) /* with what was kept, and synced */
        return -EIO;
    break_log(s);
    return -EIO;
}

void lim__log_mend(lim__store *s)
{
    lim__segment *segment;
    uint64_t at, now = s->os->now_ns(s->os);
    if (s->log.state != LIM__LOG_BROKEN || now < s->log.retry_ns)
        return;
    s->log.retry_ns = now + RETRY_NS;
    lim__batch_head h = { .lsn = s->log.lsn + 1, .synced_lsn = s->log.synced_lsn, .wall_ns = s->log.wall_ns };
    if (lim__log_room(s, (size_t)lim__batch_total(&h)) != 0 || lim__log_write(s, &h, true, &segment, &at) != 0)
        return;
    s->log.state = LIM__LOG_GOOD;
    lim__ledger_commit(&s->ledger, h.lsn, segment, at, at + lim__batch_total(&h), h.wall_ns);
    lim__store_event(s, "log_mended", "the log goes on in segment %016llx", (unsigned long long)segment->id);
}
