/* SPDX-License-Identifier: Apache-2.0
 * log.c - one log write: into the current segment, synced, and when the disk fails, somewhere else.
 *
 *   (J1) a log write is one batch with one checksum, seeded with the life of the segment.
 *   (J2) it takes whole blocks, and a block that was once written is not written again in this life.
 *   (J3) the next one is made only after this one is on stable storage (or was never asked to be).
 *   (J7) after a failed write or sync nobody knows what that segment has behind its last good batch: it is sealed, and
 * the same batch, with the same lsn, goes into the next segment. What the next segment begins with takes the place of
 *        whatever the sealed one may turn out to have.
 *   (J8) buffers are aligned; segment.c asserts it.
 *
 *   GOOD --three segments failed in a row, or there was none--> BROKEN --mend: an empty batch could be written--> GOOD
 *
 * In BROKEN nothing is taken. The batch that failed is in doubt: it may be on the disk. The empty batch that ends
 * BROKEN has its lsn in a newer segment, and so replaces it for good. */
#include "store/inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ATTEMPTS = 3 };
#define RETRY_NS 200000000u

int lim__log_room(lim__store *s, size_t bytes)
{
    if (bytes <= s->log.cap)
        return 0;
    size_t cap = (size_t)lim__up(bytes + bytes / 4, LIM__FILE_BLOCK);
    uint8_t *buf = lim__aligned(cap);
    if (!buf)
        return -ENOMEM;
    if (s->log.cap > 0)
        memcpy(buf, s->log.buf, s->log.cap);
    free(s->log.buf);
    s->log.buf = buf;
    s->log.cap = cap;
    return 0;
}

static void seal_segment(lim__store *s, lim__segment *current, int err)
{
    lim__store_event(s, "segment_sealed",
                     "the disk failed (%s) in segment %016llx behind batch %llu: the log goes on in "
                     "another segment, and this one is read again",
                     strerror(-err), (unsigned long long)current->id, (unsigned long long)current->stats.last_lsn);
    lim__segment_distrust(&s->segments, current);
    lim__segment_close_write(&s->segments, current);
    current->state = LIM__SEALED;
}

bool lim__log_roll(lim__store *s, bool reserve)
{
    lim__segments *t = &s->segments;
    if (lim__segment_number(t, LIM__PREPARED) < (reserve ? 1u : 2u))
        return false;
    lim__segment *current = lim__segment_newest(t, LIM__CURRENT);
    if (current && s->log.synced_lsn < s->log.lsn && lim__log_sync(s) != 0)
        return lim__segment_newest(t, LIM__CURRENT) != NULL; /* it was sealed, and the next one is open already */
    if (current) {
        lim__segment_close_write(t, current);
        current->state = LIM__SEALED;
        lim__segment_touch(t, current);
    }
    lim__segment *next = lim__segment_oldest(t, LIM__PREPARED);
    next->state = LIM__CURRENT;
    return true;
}

/* The segment that goes on behind one that failed. */
static bool replace_current(lim__store *s)
{
    return lim__log_roll(s, true) || (lim__upkeep_prepare_now(s) && lim__log_roll(s, true));
}

static int write_once(lim__store *s, lim__segment *current, lim__batch_head *h, bool sync)
{
    uint64_t total = lim__batch_total(h);
    lim__batch_seal(s->log.buf, h, current->seal);
    LIM_ASSERT(current->stats.end + total <= current->size);
    int err = lim__segment_write(&s->segments, current, s->log.buf, (size_t)total, current->stats.end);
    if (err != 0 || !sync || LIM__MUTATION("ack_before_sync"))
        return err;
    err = lim__segment_sync(&s->segments, current);
    s->syncs += err == 0;
    return LIM__MUTATION("failed_sync_ignored") ? 0 : err;
}

static void break_log(lim__store *s)
{
    s->log.state = LIM__LOG_BROKEN;
    s->log.retry_ns = s->os->now_ns(s->os) + RETRY_NS;
    lim__store_event(s, "log_broken", "the log can be written nowhere: nothing is stored until that works again");
}

int lim__log_write(lim__store *s, lim__batch_head *h, bool sync, lim__segment **segment, uint64_t *at)
{
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        lim__segment *current = lim__segment_newest(&s->segments, LIM__CURRENT);
        if (!current && !replace_current(s))
            break;
        current = lim__segment_newest(&s->segments, LIM__CURRENT);
        int err = write_once(s, current, h, sync);
        if (err != 0) {
            seal_segment(s, current, err);
            continue;
        }
        *segment = current;
        *at = current->stats.end;
        s->log.lsn = h->lsn;
        s->log.wall_ns = h->wall_ns;
        s->log.flushed_bytes += lim__batch_total(h);
        s->log.checkpoint_bytes += lim__batch_total(h);
        if (sync) {
            s->log.synced_lsn = h->lsn;
            s->log.sync_due_ns = UINT64_MAX;
        }
        return 0;
    }
    break_log(s);
    return -EIO;
}

/* Of batches that did not ask for it when they were written. */
int lim__log_sync(lim__store *s)
{
    lim__segment *current = lim__segment_newest(&s->segments, LIM__CURRENT);
    s->log.sync_due_ns = UINT64_MAX;
    if (!current || s->log.synced_lsn == s->log.lsn)
        return 0;
    int err = lim__segment_sync(&s->segments, current);
    if (err == 0) {
        s->syncs++;
        s->log.synced_lsn = s->log.lsn;
        return 0;
    }
    seal_segment(s, current, err);
    if (!replace_current(s))
        break_log(s);
    return err;
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
