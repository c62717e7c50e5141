/* SPDX-License-Identifier: Apache-2.0
 * reader_row.c - what survives of a cursor: one row, written at the end of a turn in which something was settled.
 *
 *      settled --dirty--> end of turn --commit--> stored --> who waits is told       one at a time: what is settled
 * while a ^                                         |                                commit is under way is in the next
 *         `--------- not stored: again, soon <------'
 *
 * A commit that somebody waits for is synced as the channel says; one that nobody waits for comes along with whatever
 * is written next: an acknowledgement without an answer is a hint, and a message that is delivered once more is no
 * loss. Dead letters are in the same commit as the row that no longer names them. When they find no room the row is
 * written without them, out of the store's reserve: acknowledging goes on when the disk is full.
 *
 * Row: u8 version 1, channel (u32 length, bytes), u8 mode, u64 ack_ns, u32 deliveries_max, dead letter (bytes), u64
 * created (wall ns), u64 instant to begin at (wall ns; 0: decided), u64 redelivered, dead, damaged; then, to its end,
 * what is done: see lim__cursor_pack. Key: stream (u64, big-endian), name. A step's row: the same key, a 0, the
 * message's number. */
#include "bus/reader_inside.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROW_VERSION = 1, BURY_BYTES = 1 << 18 };

static bool in_commit(const lim__pend *p)
{
    return p->state == LIM__PEND_DYING && p->due_ns != 0;
}

void lim__reader_row(const lim__reader *r, lim__buf *out)
{
    lim__pack_u8(out, ROW_VERSION);
    lim__pack_bytes(out, lim__log_name(r->log));
    lim__pack_u8(out, (uint8_t)r->mode);
    lim__pack_u64(out, r->ack_ns);
    lim__pack_u32(out, r->deliveries_max);
    lim__pack_bytes(out, lim__str(r->dead_letter != NULL ? r->dead_letter : ""));
    lim__pack_u64(out, r->created_wall_ns);
    lim__pack_u64(out, r->seek_wall_ns);
    lim__pack_u64(out, r->redelivered);
    lim__pack_u64(out, r->dead);
    lim__pack_u64(out, r->damaged);
    lim__cursor_pack(&r->at, out, in_commit);
}

lim_err lim__reader_read_row(lim__reader *r, lim__unpack *u)
{
    r->mode = (lim__read_mode)lim__unpack_u8(u);
    r->ack_ns = lim__unpack_u64(u);
    r->deliveries_max = lim__unpack_u32(u);
    lim_bytes dead_letter = lim__unpack_bytes(u);
    r->created_wall_ns = lim__unpack_u64(u);
    r->seek_wall_ns = lim__unpack_u64(u);
    r->redelivered = lim__unpack_u64(u);
    r->dead = lim__unpack_u64(u);
    r->damaged = lim__unpack_u64(u);
    if (u->bad || r->mode < LIM__READ_ALONE || r->mode > LIM__READ_STANDBY || dead_letter.len > 255)
        return LIM_E_INVALID;
    if (dead_letter.len > 0 && (r->dead_letter = strndup(dead_letter.ptr, dead_letter.len)) == NULL)
        return LIM_E_NOMEM;
    return lim__cursor_unpack(&r->at, lim__bytes(u->at, (size_t)(u->end - u->at)));
}

/* ---- who waits ---- */

static void waiters_add(lim__read_waiters *w, lim__read_waiter *one)
{
    one->next = NULL;
    *w->last = one;
    w->last = &one->next;
}

void lim__waiters_end(lim__reader *r, lim__read_waiters *w, lim_err err, const char *detail)
{
    lim__read_waiter *next;
    lim__read_waiter *one = w->first;
    *w = (lim__read_waiters){ NULL, &w->first };
    for (; one != NULL; one = next) {
        next = one->next;
        if (one->on_done != NULL)
            one->on_done(one->ctx, err, detail);
        lim__read_acked *a = one->owner.id != 0 && one->ref != 0
                                 ? lim__letter_new(lim__sched_current(), &lim__type_read_acked, sizeof *a)
                                 : NULL;
        if (a != NULL) {
            *a = (lim__read_acked){ .owner_ref = one->owner_ref, .ref = one->ref, .err = err };
            size_t len = strnlen(detail, sizeof a->detail - 1);
            memcpy(a->detail, detail, len);
            (void)!lim__post_reserved(r->bus->rt, one->owner, a);
        }
        free(one);
    }
}

void lim__reader_wait(lim__reader *r, const lim__read_member *m, const lim__read_done *d)
{
    lim__read_waiter *one = malloc(sizeof *one);
    if (one == NULL)
        return; /* it is stored all the same; who waits hears of it no more, as if the answer were lost */
    *one = (lim__read_waiter){
        .owner = m->owner, .owner_ref = m->owner_ref, .ref = d->ref, .on_done = d->on_done, .ctx = d->ctx
    };
    waiters_add(&r->waiting, one);
    if (r->cursor_len == 0)
        lim__waiters_end(r, &r->waiting, LIM_OK, "");
    else
        lim__reader_dirty(r);
}

/* ---- committing ---- */

void lim__reader_dirty(lim__reader *r)
{
    if (r->cursor_len == 0)
        return; /* K5 */
    r->dirty = true;
    lim__flush_queue(r->self, &r->flush);
}

static void put_row(lim__reader *r, lim__batch *b)
{
    uint8_t key[LIM__READER_KEY_MAX];
    lim__buf row = { 0 };
    lim_bytes name = lim__bytes(r->cursor, r->cursor_len);
    size_t len = lim__reader_key(key, r->stream, name);
    lim__reader_row(r, &row);
    lim__batch_put(b, LIM__TABLE_CURSORS, lim__bytes(key, len), lim__buf_bytes(&row));
    lim__buf_fini(&row);
    const uint8_t *at = lim__buf_bytes(&r->steps).ptr;
    r->steps_taken = lim__buf_len(&r->steps);
    for (size_t i = 0; i < r->steps_taken; i += sizeof(uint64_t)) {
        uint64_t seq;
        memcpy(&seq, at + i, sizeof seq);
        len = lim__reader_step_key(key, r->stream, name, seq);
        lim__batch_delete(b, LIM__TABLE_CURSORS, lim__bytes(key, len));
    }
}

/* ---- dead letters ---- */

static bool dead_headers(const lim__reader *r, const lim__pend *p, lim__buf *out)
{
    lim_bytes headers = lim__msg_headers(p->msg), key, text, channel = lim__log_name(r->log);
    char number[24];
    size_t pos = 0;
    lim_err err = LIM_OK;
    while (err == LIM_OK && lim__packed_next(headers, &pos, &key, &text))
        if (key.len > 0 && *(const char *)key.ptr != '$')
            err = lim__packed_add(out, key, text);
    if (err == LIM_OK)
        err = lim__packed_add(out, lim__str("$dead_channel"), channel);
    snprintf(number, sizeof number, "%llu", (unsigned long long)p->seq);
    if (err == LIM_OK)
        err = lim__packed_add(out, lim__str("$dead_seq"), lim__str(number));
    if (err == LIM_OK)
        err = lim__packed_add(out, lim__str("$dead_reason"), lim__str(lim__dead_why_text(p->why)));
    snprintf(number, sizeof number, "%u", p->deliveries);
    if (err == LIM_OK)
        err = lim__packed_add(out, lim__str("$dead_deliveries"), lim__str(number));
    return err == LIM_OK && !out->failed;
}

static bool bury(lim__reader *r, lim__log *to, lim__batch *b, lim__pend *p)
{
    lim__buf headers = { 0 };
    lim_bytes key = { NULL, 0 };
    bool ok = dead_headers(r, p, &headers);
    (void)lim__packed_get(lim__msg_headers(p->msg), lim__str("$key"), &key);
    lim__log_message m = { .payload = lim__msg_bytes(p->msg), .headers = lim__buf_bytes(&headers), .key = key };
    ok = ok && lim__log_append(to, b, &m, NULL) == LIM_OK;
    lim__buf_fini(&headers);
    if (ok)
        p->due_ns = r->commits;
    return ok;
}

/* True: the batch has some. Those that cannot be buried now come again later; those that are too many for one batch are
 * in the next. */
static bool bury_all(lim__reader *r, lim__batch *b)
{
    lim__log *to = NULL;
    bool any = false;
    lim_err err = lim__log_find(r->bus, lim__str(r->dead_letter), &to);
    LIM__LIST_EACH_SAFE(node, next, &r->at.order) {
        lim__pend *p = LIM_CONTAINER(node, lim__pend, in_order);
        if (p->state != LIM__PEND_DYING)
            continue;
        if (lim__batch_bytes(b) >= BURY_BYTES)
            break;
        if (err == LIM_OK && bury(r, to, b, p)) {
            any = true;
            continue;
        }
        r->dying--;
        lim__cursor_later(&r->at, p, lim_now_ns(r->self) + 1000000000);
    }
    lim__log_unref(to);
    return any;
}

static void buried(lim__reader *r, bool stored)
{
    LIM__LIST_EACH_SAFE(node, next, &r->at.order) {
        lim__pend *p = LIM_CONTAINER(node, lim__pend, in_order);
        if (!in_commit(p))
            continue;
        r->dying--;
        if (!stored) {
            lim__cursor_later(&r->at, p, lim_now_ns(r->self) + 1000000000);
            continue;
        }
        char seq[24];
        snprintf(seq, sizeof seq, "%llu", (unsigned long long)p->seq);
        LIM__EVENT(r->bus, r->self, "dead_letter", { "channel", lim__log_name(r->log) },
                   { "cursor", lim__str(r->cursor) }, { "seq", lim__str(seq) },
                   { "reason", lim__str(lim__dead_why_text(p->why)) }, { "to", lim__str(r->dead_letter) });
        r->dead++;
        lim__cursor_done(&r->at, p);
    }
}

/* ---- one commit ---- */

typedef struct row_commit {
    lim_bus *bus;
    lim__stored *letter;
    lim_pid reader;
    uint64_t stream;
    uint8_t cursor_len;
    char cursor[LIM__CURSOR_NAME_MAX];
} row_commit;

static void on_row(void *ctx, lim__batch *batch, const lim__committed *what)
{
    row_commit *c = ctx;
    lim__log_committed(c->bus, batch, what);
    c->letter->how = what->how;
    lim__reader_place_stored(c->bus, c->stream, lim__bytes(c->cursor, c->cursor_len), c->reader, c->letter);
    lim__batch_free(batch);
    free(c);
}

static lim_err submit(lim__reader *r, lim__batch *b)
{
    row_commit *c = calloc(1, sizeof *c);
    lim__stored *letter = c != NULL ? lim__letter_new(NULL, &lim__type_stored, sizeof *letter) : NULL;
    if (letter == NULL) {
        free(c);
        lim__batch_free(b);
        return LIM_E_NOMEM;
    }
    *letter = (lim__stored){ .ref = r->commits };
    *c = (row_commit){
        .bus = r->bus, .letter = letter, .reader = lim_self(r->self), .stream = r->stream, .cursor_len = r->cursor_len
    };
    memcpy(c->cursor, r->cursor, r->cursor_len);
    lim_err err = lim__durable_submit(r->bus, b, on_row, c);
    if (err != LIM_OK) {
        lim__letter_free(NULL, letter);
        free(c);
    }
    return err;
}

static void commit(lim__reader *r)
{
    lim__batch *b = lim__batch_new();
    if (b == NULL) {
        lim__reader_retry(r);
        return;
    }
    r->commits++;
    r->dead_in_commit = r->dying > 0 && bury_all(r, b);
    put_row(r, b);
    bool waits = r->waiting.first != NULL;
    if (!r->dead_in_commit)
        lim__batch_small(b);
    if (lim__log_class(r->log) != LIM__CLASS_DISK || (!waits && !r->dead_in_commit))
        lim__batch_sync(b, LIM__SYNC_INTERVAL);
    if (submit(r, b) != LIM_OK) {
        r->steps_taken = 0;
        buried(r, false);
        lim__reader_retry(r);
        return;
    }
    r->dirty = false;
    r->commit = r->commits;
    r->committing = r->waiting;
    if (r->committing.first == NULL)
        r->committing.last = &r->committing.first;
    r->waiting = (lim__read_waiters){ NULL, &r->waiting.first };
    if (LIM__MUTATION("acknowledged_early"))
        lim__waiters_end(r, &r->committing, LIM_OK, "");
}

static void commit_delete(lim__reader *r)
{
    uint8_t key[LIM__READER_KEY_MAX];
    lim__batch *b = lim__batch_new();
    if (b == NULL) {
        lim__reader_retry(r);
        return;
    }
    lim_bytes name = lim__bytes(r->cursor, r->cursor_len);
    put_row(r, b); /* for the rows of steps that go with it */
    lim__batch_delete(b, LIM__TABLE_CURSORS, lim__bytes(key, lim__reader_key(key, r->stream, name)));
    lim__batch_small(b);
    if (lim__durable_commit(r->self, r->bus, b, ++r->commits) != LIM_OK) {
        lim__reader_retry(r);
        return;
    }
    r->dirty = false;
    r->commit = r->commits;
}

void lim__reader_flush(lim_process *self, lim__flush *flush)
{
    lim__reader *r = LIM_CONTAINER(flush, lim__reader, flush);
    r->self = self;
    if (!r->dirty || r->commit != 0 || r->life == LIM__READ_ENDED)
        return;
    if (r->life == LIM__READ_DELETING)
        commit_delete(r);
    else
        commit(r);
}

/* Back to the others, in front of them: they are told when it has worked, or has failed without the dead letters, too.
 */
static void wait_again(lim__reader *r)
{
    if (r->committing.first == NULL)
        return;
    *r->committing.last = r->waiting.first;
    if (r->waiting.first != NULL)
        r->committing.last = r->waiting.last;
    r->waiting = r->committing;
    r->committing = (lim__read_waiters){ NULL, &r->committing.first };
}

static void not_stored(lim__reader *r, lim__commit_how how)
{
    bool full = how == LIM__COMMIT_FULL;
    r->steps_taken = 0;
    r->dirty = true;
    if (r->dead_in_commit) {
        wait_again(r);
        lim__flush_queue(r->self, &r->flush);
        return;
    }
    lim__waiters_end(r, &r->committing, full ? LIM_E_FULL : LIM_E_IO,
                     full ? "the disk is full" : "the disk did not take it");
    lim__reader_retry(r);
}

void lim__reader_on_stored(lim__reader *r, uint64_t ref, lim__commit_how how)
{
    bool stored = how == LIM__COMMITTED;
    if (ref != r->commit)
        return;
    r->commit = 0;
    if (r->life == LIM__READ_DELETING) {
        if (stored)
            lim__reader_deleted(r);
        else
            not_stored(r, how);
        return;
    }
    buried(r, stored);
    if (!stored) {
        not_stored(r, how);
        return;
    }
    lim__buf_consume(&r->steps, r->steps_taken);
    r->steps_taken = 0;
    lim__waiters_end(r, &r->committing, LIM_OK, "");
    r->dirty |= r->dying > 0;
    if (r->dirty)
        lim__flush_queue(r->self, &r->flush);
}
