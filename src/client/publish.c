/* SPDX-License-Identifier: Apache-2.0
 * publish.c - publishes in flight.
 *
 * The server answers them in order, many with one frame, so what is in flight is a queue and needs no numbers of its
 * own: the oldest is next_corr - pending. Consecutive publishes without a callback are one run, a counter:
 *
 *      runs:  | 300 x NULL | f, ctx | f, ctx | 12 x NULL |         PUBLISHED {first_corr, count} takes from the left
 *
 * Invariants:
 *   P1  the counts of all runs add up to `pending`; offered - answered is `pending`, too.
 *   P2  PUBLISHED begins at the oldest and covers no more than `pending`; anything else breaks the protocol. */
#include "client/client.h"

#include <stdlib.h>

#ifdef LIM_HOSTILE
enum { RUNS_MIN = 1, BATCH_MAX = 2 };
#else
enum { RUNS_MIN = 64, BATCH_MAX = 64 };
#endif

static lim__pub_run *run_at(const lim__pubs *p, size_t i)
{
    return &p->runs[(p->first + i) & (p->cap - 1)];
}

/* Room for one more run. */
static lim_err reserve(lim__pubs *p)
{
    if (p->pending >= LIM__CALLS_MAX)
        return LIM_E_FULL;
    if (p->count < p->cap)
        return LIM_OK;
    size_t cap = p->cap ? p->cap * 2 : RUNS_MIN;
    lim__pub_run *runs = malloc(cap * sizeof *runs);
    if (!runs)
        return LIM_E_NOMEM;
    for (size_t i = 0; i < p->count; i++)
        runs[i] = *run_at(p, i);
    free(p->runs);
    p->runs = runs;
    p->cap = cap;
    p->first = 0;
    return LIM_OK;
}

static void push(lim__pubs *p, lim_on_admission *on_admission, void *ctx)
{
    lim__pub_run *last = p->count > 0 ? run_at(p, p->count - 1) : NULL;
    p->next_corr++;
    p->pending++;
    p->offered++;
    if (last && !last->on_admission && !on_admission) {
        last->count++;
        return;
    }
    LIM_ASSERT(p->count < p->cap);
    *run_at(p, p->count++) = (lim__pub_run){ on_admission, ctx, 1 };
}

/* Takes up to n of the oldest, those with callbacks into `batch`; how many publishes that were goes to *taken. */
static size_t pop(lim__pubs *p, uint32_t n, lim__pub_run *batch, size_t batch_max, uint32_t *taken)
{
    size_t found = 0;
    *taken = 0;
    while (*taken < n && found < batch_max) {
        lim__pub_run *oldest = run_at(p, 0);
        uint32_t now = oldest->count < n - *taken ? oldest->count : n - *taken;
        if (oldest->on_admission)
            batch[found++] = *oldest;
        oldest->count -= now;
        *taken += now;
        if (oldest->count == 0) {
            p->first = (p->first + 1) & (p->cap - 1);
            p->count--;
        }
    }
    p->pending -= *taken;
    p->answered += *taken;
    LIM_CHECK(p->offered - p->answered == p->pending); /* P1 */
    return found;
}

static void answer(lim_client *c, uint32_t n, lim_err err, const lim_admission *admission)
{
    while (n > 0) {
        lim__pub_run batch[BATCH_MAX];
        uint32_t taken;
        size_t found = pop(&c->pubs, n, batch, BATCH_MAX, &taken);
        n -= taken;
        if (found == 0)
            continue;
        lim__client_unlock(c);
        for (size_t i = 0; i < found; i++)
            batch[i].on_admission(batch[i].ctx, err, admission);
        lim__client_lock(c);
    }
}

bool lim__client_pub_answered(lim_client *c, const lim__frame *frame)
{
    lim__f_published f;
    lim__pubs *p = &c->pubs;
    if (!lim__get_published(frame, &f) || f.count == 0 || f.count > p->pending ||
        f.first_corr != p->next_corr - p->pending)
        return false; /* P2 */
    lim_admission admission = { .verdict = (lim_verdict)f.verdict,
                                .why = (lim_why)f.why,
                                .matched = f.matched,
                                .delivered = f.delivered,
                                .deferred = f.deferred,
                                .dropped = f.dropped,
                                .limit = f.limit,
                                .current = f.current,
                                .retry_after_ms = f.retry_after_ms };
    answer(c, f.count, LIM_OK, &admission);
    return true;
}

void lim__client_pub_break(lim_client *c)
{
    answer(c, c->pubs.pending, LIM_E_CLOSED, NULL);
}

void lim__client_pub_fini(lim_client *c)
{
    LIM_ASSERT(c->pubs.pending == 0);
    free(c->pubs.runs);
    c->pubs = (lim__pubs){ 0 };
}

static lim_err publish(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                       lim_on_admission *on_admission, void *ctx)
{
    lim_err err = lim__link_may_put(c);
    if (err == LIM_OK)
        err = reserve(&c->pubs);
    if (err == LIM_OK)
        err = LIM__SAY(c, publish, .flags = opts && opts->mandatory ? LIM__FLAG_MANDATORY : 0,
                       .corr = c->pubs.next_corr, .channel = lim__str(channel), .payload = payload);
    if (err == LIM_OK)
        push(&c->pubs, on_admission, ctx);
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
    err = publish(c, channel, payload, opts, on_admission, ctx);
    lim__client_unlock(c);
    return err;
}

lim_err lim_client_publish(lim_client *c, const char *channel, lim_bytes payload, const lim_publish_opts *opts,
                           lim_admission *out)
{
    lim__waiter w;
    lim_err err = check_args(c, channel, opts);
    if (err == LIM_OK)
        err = lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    err = publish(c, channel, payload, opts, lim__client_waiter_on_admission, &w);
    if (err == LIM_OK) {
        lim__client_block_wait(c, &w, UINT64_MAX);
        err = w.err;
    }
    lim__client_block_leave(c, &w);
    if (err == LIM_OK && out)
        *out = w.admission;
    return err;
}
