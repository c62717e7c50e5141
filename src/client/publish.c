/* SPDX-License-Identifier: Apache-2.0
 * publish.c - publishes in flight.
 *
 * PUBLISHED answers those to ephemeral channels in their order, many with one frame; STORED those to durable channels,
 * in theirs, when they are stored. Which a channel is only the server knows. So whatever an answer overtakes must be of
 * durable channels, and moves from one queue to the other:
 *
 *      fresh:  | 300 x NULL | f, ctx | f, ctx | 12 x NULL |
 *      late:   | f, ctx | 7 x NULL |
 *
 *      PUBLISHED{first_corr, count}   what stands before first_corr goes to `late`, then `count` leave from the left
 *      STORED{corr, count}            `count` leave `late` from the left, or `fresh` when that is empty
 *
 * Consecutive publishes without a callback are one run, a counter.
 *
 * Invariants:
 *   P1  the counts of all runs add up to `pending`.
 *   P2  PUBLISHED covers no more than `fresh` has; STORED is for the oldest there are, without a gap;
 *       or they break the protocol. */
#include "client/client.h"
#include "data/options.h"

#include <stdlib.h>

#ifdef LIM_HOSTILE
enum { RUNS_MIN = 1, BATCH_MAX = 2 };
#else
enum { RUNS_MIN = 64, BATCH_MAX = 64 };
#endif

/* ---- rings ---- */

static lim__pub_run *run_at(const lim__pub_ring *r, size_t i)
{
    return &r->runs[(r->first + i) & (r->cap - 1)];
}

/* Room for one more run. */
static bool ring_reserve(lim__pub_ring *r)
{
    if (r->count < r->cap)
        return true;
    size_t cap = r->cap ? r->cap * 2 : RUNS_MIN;
    lim__pub_run *runs = malloc(cap * sizeof *runs);
    if (!runs)
        return false;
    for (size_t i = 0; i < r->count; i++)
        runs[i] = *run_at(r, i);
    free(r->runs);
    r->runs = runs;
    r->cap = cap;
    r->first = 0;
    return true;
}

static bool silent(const lim__pub_run *run)
{
    return !run->on_admission && !run->on_receipt;
}

/* There is room. */
static void ring_push(lim__pub_ring *r, lim__pub_run run)
{
    lim__pub_run *last = r->count > 0 ? run_at(r, r->count - 1) : NULL;
    if (last && silent(last) && silent(&run) && last->first + last->count == run.first) {
        last->count += run.count;
        return;
    }
    LIM_ASSERT(r->count < r->cap);
    *run_at(r, r->count++) = run;
}

/* Up to n of the oldest run; how many is its count. */
static lim__pub_run ring_take(lim__pub_ring *r, uint64_t n)
{
    lim__pub_run *oldest = run_at(r, 0), taken = *oldest;
    taken.count = taken.count < n ? taken.count : (uint32_t)n;
    oldest->first += taken.count;
    oldest->count -= taken.count;
    if (oldest->count == 0) {
        r->first = (r->first + 1) & (r->cap - 1);
        r->count--;
    }
    return taken;
}

static bool ring_oldest(const lim__pub_ring *r, uint64_t *number)
{
    if (r->count == 0)
        return false;
    *number = run_at(r, 0)->first;
    return true;
}

/* ---- offering ---- */

/* Room for one more in either, so that moving it later cannot fail. */
static lim_err reserve(lim__pubs *p)
{
    if (p->pending >= LIM__CALLS_MAX)
        return LIM_E_FULL;
    if (!ring_reserve(&p->fresh))
        return LIM_E_NOMEM;
    while (p->late.cap < p->fresh.cap + p->late.count) { /* grows as if it were full */
        size_t count = p->late.count;
        p->late.count = p->late.cap;
        bool grown = ring_reserve(&p->late);
        p->late.count = count;
        if (!grown)
            return LIM_E_NOMEM;
    }
    return LIM_OK;
}

static void push(lim__pubs *p, const lim__pub_run *run)
{
    lim__pub_run one = *run;
    one.first = p->offered++;
    one.count = 1;
    p->next_corr++;
    p->pending++;
    ring_push(&p->fresh, one);
}

/* ---- being answered ---- */

/* Beside a PUBLISHED: what was not stored has a receipt, too. */
static void call(const lim__pub_run *run, lim_err err, const lim_receipt *r)
{
    if (run->on_admission)
        run->on_admission(run->ctx, err, err == LIM_OK ? &r->admission : NULL);
    if (run->on_receipt)
        run->on_receipt(run->receipt_ctx, r);
}

/* Of number `n` of a row that begins with `r`, at number `first`: what is stored has numbers of its own. */
static lim_receipt in_row(const lim_receipt *r, uint64_t first, uint64_t n)
{
    lim_receipt own = *r;
    own.seq += r->seq != 0 && !r->duplicate ? n - first : 0;
    return own;
}

static void count_answered(lim__pubs *p)
{
    uint64_t late = p->offered, fresh = p->offered;
    (void)ring_oldest(&p->late, &late);
    (void)ring_oldest(&p->fresh, &fresh);
    p->answered = late < fresh ? late : fresh;
    LIM_CHECK(p->pending > 0 || p->answered == p->offered); /* P1 */
}

static void answer(lim_client *c, lim__pub_ring *ring, uint32_t n, lim_err err, const lim_receipt *receipt)
{
    lim__pubs *p = &c->pubs;
    uint64_t first = 0;
    (void)ring_oldest(ring, &first);
    while (n > 0) {
        lim__pub_run batch[BATCH_MAX];
        size_t found = 0;
        while (n > 0 && found < BATCH_MAX) {
            lim__pub_run run = ring_take(ring, n);
            n -= run.count;
            p->pending -= run.count;
            if (!silent(&run))
                batch[found++] = run;
        }
        count_answered(p);
        if (found == 0)
            continue;
        lim__client_unlock(c);
        for (size_t i = 0; i < found; i++) {
            lim_receipt own = in_row(receipt, first, batch[i].first);
            call(&batch[i], err, &own);
        }
        lim__client_lock(c);
    }
}

static uint64_t ring_sum(const lim__pub_ring *r)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < r->count; i++)
        sum += run_at(r, i)->count;
    return sum;
}

/* Of publish number n, counted from 0. */
static uint32_t corr_of(const lim__pubs *p, uint64_t n)
{
    return p->next_corr - (uint32_t)(p->offered - n);
}

bool lim__client_pub_answered(lim_client *c, const lim__frame *frame)
{
    lim__f_published f;
    lim__pubs *p = &c->pubs;
    uint64_t oldest;
    if (!lim__get_published(frame, &f) || f.count == 0 || !ring_oldest(&p->fresh, &oldest))
        return false;
    uint32_t overtaken = f.first_corr - corr_of(p, oldest);
    uint64_t fresh = p->offered - oldest; /* nothing in it is missing */
    if (overtaken > fresh || f.count > fresh - overtaken)
        return false; /* P2 */
    while (overtaken > 0) {
        lim__pub_run run = ring_take(&p->fresh, overtaken);
        overtaken -= run.count;
        ring_push(&p->late, run);
    }
    lim_receipt r = { .admission = { .verdict = (lim_verdict)f.verdict,
                                     .why = (lim_why)f.why,
                                     .matched = f.matched,
                                     .delivered = f.delivered,
                                     .deferred = f.deferred,
                                     .dropped = f.dropped,
                                     .limit = f.limit,
                                     .current = f.current,
                                     .retry_after_ms = f.retry_after_ms },
                      .durability = f.verdict == LIM_REJECT ? LIM_CLASS_NONE : LIM_CLASS_MEMORY };
    answer(c, &p->fresh, f.count, LIM_OK, &r);
    return true;
}

/* Are the `count` oldest of this ring one row? */
static bool ring_has_row(const lim__pub_ring *r, uint32_t count)
{
    uint64_t next = r->count > 0 ? run_at(r, 0)->first : 0;
    for (size_t i = 0; count > 0; i++) {
        const lim__pub_run *run = i < r->count ? run_at(r, i) : NULL;
        if (!run || run->first != next)
            return false;
        next += run->count;
        count -= run->count < count ? run->count : count;
    }
    return true;
}

bool lim__client_pub_stored(lim_client *c, const lim__frame *frame)
{
    lim__f_stored f;
    lim__pubs *p = &c->pubs;
    uint64_t oldest;
    if (!lim__get_stored(frame, &f))
        return false;
    lim__pub_ring *ring = p->late.count > 0 ? &p->late : &p->fresh;
    if (!ring_oldest(ring, &oldest) || corr_of(p, oldest) != f.corr || f.count == 0 || !ring_has_row(ring, f.count))
        return false; /* P2 */
    lim_receipt r = { .admission = { .verdict = (lim_verdict)f.verdict,
                                     .why = (lim_why)f.why,
                                     .matched = f.matched,
                                     .delivered = f.matched,
                                     .limit = f.limit,
                                     .current = f.current,
                                     .retry_after_ms = f.retry_after_ms },
                      .seq = f.seq,
                      .durability = (lim_class)f.class,
                      .duplicate = f.duplicate,
                      .at_wall_us = f.at_us,
                      .delayed = f.due_us != 0,
                      .due_wall_us = f.due_us };
    answer(c, ring, f.count, LIM_OK, &r);
    return true;
}

void lim__client_pub_break(lim_client *c)
{
    lim__pubs *p = &c->pubs;
    lim_receipt nobody_knows = { .admission = { .verdict = LIM_REJECT } };
    lim__pub_ring *rings[] = { &p->late, &p->fresh };
    for (size_t i = 0; i < LIM_COUNT(rings); i++)
        answer(c, rings[i], (uint32_t)ring_sum(rings[i]), LIM_E_CLOSED, &nobody_knows);
}

void lim__client_pub_fini(lim_client *c)
{
    LIM_ASSERT(c->pubs.pending == 0);
    free(c->pubs.fresh.runs);
    free(c->pubs.late.runs);
    c->pubs = (lim__pubs){ 0 };
}

/* ---- publishing ---- */

static lim_err publish(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                       const lim__pub_run *run)
{
    lim__buf options = { 0 };
    lim_err err = lim__link_may_put(c);
    if (err == LIM_OK)
        err = reserve(&c->pubs);
    if (err == LIM_OK && opts)
        err = lim__options_publish(&options, opts, c->os->wall_ns(c->os) / 1000, NULL);
    if (err == LIM_OK)
        err =
            LIM__SAY(c, publish, .flags = opts && opts->mandatory ? LIM__FLAG_MANDATORY : 0, .corr = c->pubs.next_corr,
                     .channel = lim__str(channel), .options = lim__buf_bytes(&options), .payload = payload);
    if (err == LIM_OK)
        push(&c->pubs, run);
    lim__buf_fini(&options);
    return err;
}

static lim_err check_args(const lim_client *c, const char *channel, const lim_publish_opts *opts)
{
    if (!c || !channel || channel[0] == '\0')
        return LIM_E_INVALID;
    return opts && opts->size < sizeof *opts ? LIM_E_MISUSE : LIM_OK;
}

lim_err lim_client_publish_async(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                                 lim_on_admission *on_admission, void *ctx)
{
    lim_err err = check_args(c, channel, opts);
    if (err != LIM_OK)
        return err;
    lim__client_lock(c);
    lim__pub_run run = { .on_admission = on_admission, .ctx = ctx };
    if (opts) {
        run.on_receipt = opts->on_receipt;
        run.receipt_ctx = opts->ctx;
    }
    err = publish(c, channel, payload, opts, &run);
    lim__client_unlock(c);
    return err;
}

/* CLOSED: the connection broke first; whether it is stored nobody knows. */
static void on_waited_receipt(void *ctx, const lim_receipt *receipt)
{
    lim__waiter *w = ctx;
    lim_client *c = w->c;
    bool unknown = receipt->admission.verdict == LIM_REJECT && receipt->admission.why == LIM_WHY_NONE;
    lim__client_lock(c);
    w->receipt = *receipt;
    lim__client_waiter_done_locked(w, unknown ? LIM_E_CLOSED : LIM_OK);
    lim__client_unlock(c);
}

static lim_err publish_and_wait(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                                lim__waiter *w)
{
    lim_err err = check_args(c, channel, opts);
    if (err == LIM_OK && opts && opts->on_receipt)
        err = LIM_E_MISUSE; /* it is told here */
    if (err == LIM_OK)
        err = lim__client_block_enter(c, w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    lim__pub_run run = { .on_receipt = on_waited_receipt, .receipt_ctx = w };
    err = publish(c, channel, payload, opts, &run);
    if (err == LIM_OK) {
        lim__client_block_wait(c, w, UINT64_MAX);
        err = w->err;
    }
    lim__client_block_leave(c, w);
    return err;
}

lim_err lim_client_publish(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                           lim_admission *out)
{
    lim__waiter w;
    lim_err err = publish_and_wait(c, channel, payload, opts, &w);
    if (err == LIM_OK && out)
        *out = w.receipt.admission;
    return err;
}

lim_err lim_client_publish_wait(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                                lim_receipt *out)
{
    lim__waiter w;
    lim_err err = publish_and_wait(c, channel, payload, opts, &w);
    if (err == LIM_OK && out)
        *out = w.receipt;
    return err;
}
