/* SPDX-License-Identifier: Apache-2.0
 * reader_member.c - who reads: windows, deliveries, acknowledgements, and what becomes of what was not acknowledged.
 *
 *      deliver --> FLIGHT --done--> gone                  nack, time is over, its member has left:
 *                     `------------------------------->     delivered often enough? dead letter : again (or later)
 *
 * One cursor, several members: alone (one at most), standby (the first of them is active, the next takes over what it
 * had in the turn in which it ends), shared (in turn, whoever has room). What a member leaves behind is delivered
 * before anything new, in the order of its numbers. */
#include "bus/reader_inside.h"

#include <stdio.h>
#include <stdlib.h>

#define MS ((uint64_t)1000000)

const char *lim__read_mode_text(lim__read_mode mode)
{
    static const char *const texts[] = { "?", "exclusive", "shared", "standby" };
    return texts[mode];
}

const char *lim__dead_why_text(lim__dead_why why)
{
    static const char *const texts[] = { "?", "refused", "timeout", "lost" };
    return texts[why];
}

/* ---- members ---- */

static lim__read_member *member_of(lim__list *node)
{
    return LIM_CONTAINER(node, lim__read_member, node);
}

lim__read_member *lim__read_member_find(const lim__reader *r, uint64_t id)
{
    LIM__LIST_EACH(node, &r->members)
        if (member_of(node)->id == id)
            return member_of(node);
    return NULL;
}

static void take_terms(lim__reader *r, const lim__read_attach *a)
{
    char *dead_letter = NULL;
    bool same = a->dead_letter_len == (r->dead_letter != NULL ? strlen(r->dead_letter) : 0) &&
                (a->dead_letter_len == 0 || memcmp(a->text + a->name_len, r->dead_letter, a->dead_letter_len) == 0);
    bool changed = !same || r->ack_ns != a->ack_ns || r->deliveries_max != a->deliveries_max || r->mode != a->mode;
    r->mode = a->mode;
    r->ack_ns = a->ack_ns;
    r->deliveries_max = a->deliveries_max;
    if (!same && a->dead_letter_len > 0 && (dead_letter = strndup(a->text + a->name_len, a->dead_letter_len)) == NULL)
        return; /* the former one it stays */
    if (!same) {
        free(r->dead_letter);
        r->dead_letter = dead_letter;
    }
    if (changed)
        lim__reader_dirty(r);
}

bool lim__read_member_add(lim__reader *r, const lim__read_attach *a)
{
    lim__read_member *m = calloc(1, sizeof *m);
    if (m == NULL || lim_monitor(r->self, a->owner, &m->monitor) != LIM_OK) {
        free(m);
        return false;
    }
    m->id = a->member;
    m->owner = a->owner;
    m->owner_ref = a->owner_ref;
    m->window = a->window;
    snprintf(m->name, sizeof m->name, "%.*s", (int)a->name_len, a->text);
    lim__list_init(&m->flights);
    lim__list_push(&r->members, &m->node);
    r->member_count++;
    take_terms(r, a);
    return true;
}

void lim__read_member_leave(lim__reader *r, lim__read_member *m, bool watched)
{
    if (watched)
        lim_demonitor(r->self, m->monitor);
    if (m->out != NULL)
        lim__letter_free(lim__proc_sched(r->self), m->out);
    m->out = NULL;
    while (!lim__list_empty(&m->flights)) {
        lim__pend *p = LIM_CONTAINER(m->flights.next, lim__pend, in_member);
        if (LIM__MUTATION("left_behind_is_done"))
            lim__cursor_done(&r->at, p);
        else if (p->state == LIM__PEND_STEP)
            lim__cursor_orphan(p); /* its step decides; see lim__read_member_stepped */
        else
            lim__read_member_undone(r, p, LIM__DEAD_LOST, 0);
    }
    lim__list_remove(&m->node);
    r->member_count--;
    free(m);
}

void lim__read_member_bereave(lim__read_member *m, lim__cursor *at)
{
    while (!lim__list_empty(&m->flights)) {
        lim__pend *p = LIM_CONTAINER(m->flights.next, lim__pend, in_member);
        p->why = LIM__DEAD_LOST;
        if (p->state == LIM__PEND_STEP)
            lim__cursor_orphan(p);
        else
            lim__cursor_again(at, p);
    }
    m->flight = 0;
}

/* ---- whose turn it is ---- */

static uint32_t fetched(lim__read_member *m, uint64_t now_ns)
{
    while (m->fetch_count > 0 && (m->fetches[0].count == 0 || m->fetches[0].ends_ns <= now_ns)) {
        m->fetch_count--;
        memmove(m->fetches, m->fetches + 1, m->fetch_count * sizeof m->fetches[0]);
    }
    return m->fetch_count > 0 ? m->fetches[0].count : 0;
}

static bool is_full(const lim__read_msgs *out, size_t bytes)
{
    return out->count == LIM__READ_LETTER_MESSAGES || bytes >= LIM__READ_LETTER_BYTES;
}

static bool has_room(lim__read_member *m, uint64_t now_ns)
{
    bool open = m->out != NULL && !is_full(m->out, m->out_bytes);
    bool letter = open || m->transit + (m->out != NULL) < LIM__READ_TRANSIT;
    if (m->window == LIM_PULL)
        return letter && fetched(m, now_ns) > 0;
    return letter && m->flight < m->window;
}

uint32_t lim__read_member_room(lim__read_member *m, uint64_t now_ns)
{
    if (m->transit + (m->out != NULL) >= LIM__READ_TRANSIT)
        return 0;
    return m->window == LIM_PULL ? fetched(m, now_ns) : m->window - m->flight;
}

lim__read_member *lim__read_member_pick(lim__reader *r, uint64_t now_ns)
{
    if (lim__list_empty(&r->members))
        return NULL;
    lim__read_member *first = member_of(r->members.next), *last = NULL, *after = NULL;
    if (r->mode != LIM__READ_SHARED)
        return has_room(first, now_ns) ? first : NULL;
    LIM__LIST_EACH(node, &r->members) {
        lim__read_member *m = member_of(node);
        if (!has_room(m, now_ns))
            continue;
        if (m->id > r->turn && after == NULL) /* they came in the order of their ids */
            after = m;
        if (last == NULL)
            last = m;
    }
    return after != NULL ? after : last;
}

void lim__read_member_fetch(lim__reader *r, const lim__read_fetch *f)
{
    lim__read_member *m = lim__read_member_find(r, f->member);
    if (m == NULL || m->window != LIM_PULL)
        return;
    (void)fetched(m, lim_now_ns(r->self));
    if (m->fetch_count == LIM__READ_FETCHES_MAX) { /* one more counts as part of the last */
        uint32_t *count = &m->fetches[LIM__READ_FETCHES_MAX - 1].count;
        *count = *count > UINT32_MAX - f->count ? UINT32_MAX : *count + f->count;
        m->fetches[LIM__READ_FETCHES_MAX - 1].ends_ns = f->ends_ns;
        return;
    }
    m->fetches[m->fetch_count].count = f->count;
    m->fetches[m->fetch_count++].ends_ns = f->ends_ns;
}

/* ---- delivering ---- */

static void send_out(lim__reader *r, lim__read_member *m)
{
    if (m->out == NULL)
        return;
    lim__read_msgs *out = m->out;
    m->out = NULL;
    m->out_bytes = 0;
    m->transit++;
    LIM_CHECK(m->transit <= LIM__READ_TRANSIT);        /* K3 */
    (void)!lim__send_reserved(r->self, m->owner, out); /* dead: its DOWN follows, and all of it goes to another one */
}

void lim__read_members_send(lim__reader *r)
{
    LIM__LIST_EACH(node, &r->members)
        send_out(r, member_of(node));
}

/* A letter with a place for one more. */
static lim__read_msgs *room(lim__reader *r, lim__read_member *m)
{
    if (m->out != NULL && is_full(m->out, m->out_bytes))
        send_out(r, m);
    if (m->out != NULL)
        return m->out;
    size_t bytes = sizeof *m->out + LIM__READ_LETTER_MESSAGES * sizeof m->out->item[0];
    m->out = lim__letter_new(lim__proc_sched(r->self), &lim__type_read_msgs, bytes);
    if (m->out != NULL)
        *m->out = (lim__read_msgs){ .owner_ref = m->owner_ref, .member = m->id };
    return m->out;
}

/* A copy that says how often; NULL: no memory. */
static lim__msg *marked(const lim__msg *msg, uint32_t deliveries)
{
    lim__buf headers = { 0 };
    char text[16];
    int len = snprintf(text, sizeof text, "%u", deliveries);
    lim_bytes before = lim__msg_headers(msg);
    lim__msg *copy = NULL;
    lim__buf_add(&headers, before.ptr, before.len);
    if (!headers.failed && lim__packed_add(&headers, lim__str("$deliveries"), lim__bytes(text, (size_t)len)) == LIM_OK)
        copy = lim__msg_new_with(lim__msg_bytes(msg), lim__buf_bytes(&headers));
    lim__buf_fini(&headers);
    return copy;
}

static uint64_t ack_due(const lim__reader *r)
{
    return r->ack_ns == UINT64_MAX ? UINT64_MAX : lim_now_ns(r->self) + r->ack_ns;
}

static void put(lim__reader *r, lim__read_member *m, uint64_t seq, uint32_t deliveries, lim__msg *msg)
{
    lim__read_msgs *out = m->out;
    out->item[out->count++] = (lim__read_item){ seq, deliveries, msg };
    m->out_bytes += lim__msg_cost(msg);
    m->flight++;
    if (m->window == LIM_PULL)
        m->fetches[0].count--;
    r->turn = m->id;
    r->delivered++;
    LIM_CHECK(m->window == LIM_PULL || m->flight <= m->window); /* K3 */
}

bool lim__read_member_give_again(lim__reader *r, lim__read_member *m, lim__pend *p)
{
    lim__msg *msg = p->deliveries > 0 ? marked(p->msg, p->deliveries + 1) : lim__msg_ref(p->msg);
    if (msg == NULL || room(r, m) == NULL) {
        lim__msg_unref(msg);
        return false;
    }
    r->redelivered += p->deliveries > 0;
    lim__cursor_deliver(&r->at, p, m, &m->flights, ack_due(r));
    put(r, m, p->seq, p->deliveries, msg);
    lim__reader_dirty(r); /* how often it was delivered is to survive */
    return true;
}

bool lim__read_member_give(lim__reader *r, lim__read_member *m, const lim__logged *next)
{
    if (room(r, m) == NULL)
        return false;
    lim__msg *msg = lim__msg_ref(next->msg);
    lim__pend *p = lim__cursor_add(&r->at, next->seq, next->expires_wall_ns, next->msg, m, &m->flights, ack_due(r));
    if (p == NULL) {
        lim__msg_unref(msg);
        return false;
    }
    put(r, m, next->seq, p->deliveries, msg);
    return true;
}

/* The first of them, as many as may be. */
static uint32_t slice(const lim__read_page *page, uint32_t max, lim_bytes *rest)
{
    lim_bytes headers, payload;
    uint32_t left = page->count - page->at;
    *rest = page->rest;
    if (max >= left) {
        *rest = lim__bytes((const uint8_t *)rest->ptr + rest->len, 0);
        return left;
    }
    for (uint32_t i = 0; i < max; i++)
        (void)lim__block_next(rest, &headers, &payload);
    return max;
}

uint32_t lim__read_member_give_row(lim__reader *r, lim__read_member *m, lim__read_page *page, uint32_t max)
{
    lim_bytes rest;
    uint32_t count = slice(page, max, &rest);
    send_out(r, m);
    lim__read_row *row = lim__letter_new(lim__proc_sched(r->self), &lim__type_read_row, sizeof *row);
    if (row == NULL)
        return 0;
    *row = (lim__read_row){ .owner_ref = m->owner_ref,
                            .member = m->id,
                            .first = page->block->first + page->at,
                            .count = count,
                            .block = lim__block_ref(page->block),
                            .bytes = { page->rest.ptr, page->rest.len - rest.len } };
    if (!lim__cursor_add_row(&r->at, row->first, count, m, &m->flights, ack_due(r))) {
        lim__letter_free(lim__proc_sched(r->self), row);
        return 0;
    }
    lim__reader_row_taken(r, count, rest);
    m->flight += count;
    if (m->window == LIM_PULL)
        m->fetches[0].count -= count;
    r->turn = m->id;
    r->delivered += count;
    m->transit++;
    LIM_CHECK(m->transit <= LIM__READ_TRANSIT && (m->window == LIM_PULL || m->flight <= m->window)); /* K3 */
    (void)!lim__send_reserved(r->self, m->owner, row);
    return count;
}

/* ---- not done ---- */

static void from_member(lim__pend *p)
{
    if (p->member != NULL)
        p->member->flight -= p->count;
}

static void event(lim__reader *r, const char *kind, const lim__pend *p)
{
    char seq[24], times[16];
    snprintf(seq, sizeof seq, "%llu", (unsigned long long)p->seq);
    snprintf(times, sizeof times, "%u", p->deliveries);
    LIM__EVENT(r->bus, r->self, kind, { "channel", lim__log_name(r->log) }, { "cursor", lim__str(r->cursor) },
               { "seq", lim__str(seq) }, { "reason", lim__str(lim__dead_why_text(p->why)) },
               { "deliveries", lim__str(times) });
}

void lim__read_member_doom(lim__reader *r, lim__pend *p)
{
    if (r->dead_letter == NULL) {
        event(r, "given_up", p);
        r->dead++;
        lim__cursor_done(&r->at, p);
    } else {
        lim__cursor_hold(&r->at, p, LIM__PEND_DYING);
        p->due_ns = 0; /* not in a commit yet */
        r->dying++;
    }
    lim__reader_dirty(r);
}

static uint64_t backoff_ns(uint32_t deliveries)
{
    uint32_t doublings = deliveries > 0 ? deliveries - 1 : 0;
    return doublings >= 9 ? 30000 * MS : (100 * MS) << doublings;
}

void lim__read_member_undone(lim__reader *r, lim__pend *p, lim__dead_why why, uint64_t delay_ns)
{
    from_member(p);
    p->why = why;
    bool enough = r->deliveries_max > 0 && p->deliveries >= r->deliveries_max;
    if (delay_ns == LIM__READ_BACKOFF)
        delay_ns = backoff_ns(p->deliveries);
    uint64_t now = lim_now_ns(r->self);
    if (enough && p->msg != NULL)
        lim__read_member_doom(r, p);
    else if (enough || delay_ns == 0)
        lim__cursor_again(&r->at, p); /* enough: when it has been read again */
    else
        lim__cursor_later(&r->at, p, delay_ns > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + delay_ns);
}

void lim__read_member_late(lim__reader *r, uint64_t now_ns)
{
    for (lim__pend *p; (p = lim__cursor_first_due(&r->at)) != NULL && p->due_ns <= now_ns;) {
        if (p->state == LIM__PEND_FLIGHT)
            lim__read_member_undone(r, p, LIM__DEAD_TIMEOUT, 0);
        else
            lim__cursor_again(&r->at, p);
    }
}

/* ---- acknowledgements ---- */

static void done(lim__reader *r, lim__pend *p)
{
    from_member(p);
    lim__cursor_done(&r->at, p);
}

static uint32_t done_upto(lim__reader *r, lim__read_member *m, uint64_t seq)
{
    uint32_t n = 0;
    LIM__LIST_EACH_SAFE(node, next, &m->flights) {
        lim__pend *p = LIM_CONTAINER(node, lim__pend, in_member);
        if (p->seq > seq || p->state != LIM__PEND_FLIGHT)
            continue;
        uint32_t count = lim__cursor_done_upto(&r->at, p, seq);
        m->flight -= count;
        n += count;
    }
    return n;
}

/* How many of them were this member's. */
static uint32_t settle(lim__reader *r, lim__read_member *m, const lim__read_done *d)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->how == LIM__READ_UPTO) {
            n += done_upto(r, m, d->seqs[i]);
            continue;
        }
        lim__pend *p = lim__cursor_find(&r->at, d->seqs[i]);
        if (p == NULL || p->member != m || p->state != LIM__PEND_FLIGHT)
            continue;
        if (d->how == LIM__READ_DONE && p->seq == d->seqs[i]) { /* of a row, its first: that needs no memory */
            m->flight -= lim__cursor_done_upto(&r->at, p, p->seq);
            n++;
            continue;
        }
        p = lim__cursor_take_of(&r->at, p, d->seqs[i]);
        if (p == NULL)
            continue; /* delivered again when its time is over, or its member has left */
        n++;
        if (d->how == LIM__READ_DONE)
            done(r, p);
        else
            lim__read_member_undone(r, p, LIM__DEAD_NACK, d->delay_ns);
    }
    return n;
}

void lim__read_member_ack(lim__reader *r, const lim__read_done *d)
{
    lim__read_member *m = lim__read_member_find(r, d->member);
    lim__read_waiters none = { NULL, &none.first };
    uint32_t n = m != NULL ? settle(r, m, d) : 0;
    if (n > 0)
        lim__reader_dirty(r);
    if (d->ref == 0 && d->on_done == NULL)
        return;
    if (n > 0 || (m != NULL && d->how == LIM__READ_UPTO)) {
        lim__reader_wait(r, m, d);
        return;
    }
    lim__read_waiter w = {
        .owner_ref = m != NULL ? m->owner_ref : 0, .ref = d->ref, .on_done = d->on_done, .ctx = d->ctx
    };
    w.owner = m != NULL ? m->owner : (lim_pid){ 0 };
    lim__read_waiter *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return;
    *copy = w;
    none.first = copy;
    lim__waiters_end(r, &none, LIM_E_NOTFOUND, "it is not in this subscription's hands (any more)");
}

/* ---- steps ---- */

void lim__read_member_step(lim__reader *r, lim__step_ack *ack)
{
    lim__pend *p = r->cursor_len > 0 ? lim__cursor_take(&r->at, ack->seq) : NULL;
    lim_err err = LIM_E_GONE;
    if (r->cursor_len == 0) {
        err = LIM_E_MISUSE;
    } else if (p != NULL && p->state == LIM__PEND_FLIGHT && p->member->id == ack->reading.member) {
        lim__cursor_hold(&r->at, p, LIM__PEND_STEP);
        ack->stream = r->stream;
        ack->cursor_len = r->cursor_len;
        memcpy(ack->cursor, r->cursor, r->cursor_len);
        err = LIM_OK;
    }
    ack->on_answer(ack, err);
}

void lim__read_member_stepped(lim__reader *r, const lim__read_stepped *s)
{
    lim__pend *p = lim__cursor_find(&r->at, s->seq);
    if (p == NULL || p->state != LIM__PEND_STEP)
        return; /* the channel was deleted meanwhile */
    if (s->committed) {
        lim__buf_add(&r->steps, &s->seq, sizeof s->seq);
        done(r, p);
        lim__reader_dirty(r);
    } else if (p->member != NULL) { /* it has it still, and may do with it what it likes */
        lim__cursor_resume(&r->at, p, ack_due(r));
    } else {
        lim__read_member_undone(r, p, LIM__DEAD_LOST, 0);
    }
}
