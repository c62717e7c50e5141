/* SPDX-License-Identifier: Apache-2.0
 * reader_show.c - a cursor for people: where it is, who reads, and why it does not move; to set it elsewhere, or delete
 * it. What $sys.cursors passes on: one JSON object in, one out; {"error": {"code", "message"}} is a refusal. */
#include "bus/conv.h"
#include "bus/reader_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MS ((uint64_t)1000000)

static uint32_t count(const lim__reader *r, lim__pend_state state)
{
    uint32_t n = 0;
    LIM__LIST_EACH(node, &r->at.order)
        if (LIM_CONTAINER(node, lim__pend, in_order)->state == state)
            n += LIM_CONTAINER(node, lim__pend, in_order)->count;
    return n;
}

/* Messages that are retained and were not delivered yet. */
static uint64_t lag(const lim__reader *r)
{
    uint64_t first, last;
    lim__log_span(r->log, &first, &last);
    uint64_t from = r->at.next > first ? r->at.next : first;
    return r->seek_wall_ns == 0 && last >= from ? last - from + 1 : 0;
}

static void numbers_json(const lim__reader *r, lim__json *j)
{
    uint64_t first, last;
    lim__log_span(r->log, &first, &last);
    lim__json_bytes(j, "channel", lim__log_name(r->log));
    lim__json_str(j, "cursor", r->cursor);
    lim__json_u64(j, "position", lim__cursor_floor(&r->at));
    lim__json_u64(j, "last", last);
    lim__json_u64(j, "lag", lag(r));
    lim__json_u64(j, "pending", r->at.count);
    lim__json_u64(j, "redelivered", r->redelivered);
    lim__json_u64(j, "dead", r->dead);
    lim__json_u64(j, "damaged", r->damaged);
    lim__json_u64(j, "members", r->member_count);
    lim__json_str(j, "mode", lim__read_mode_text(r->mode));
}

static void members_json(const lim__reader *r, lim__json *j)
{
    lim__json_open(j, "readers", '[');
    LIM__LIST_EACH(node, &r->members) {
        const lim__read_member *m = LIM_CONTAINER(node, lim__read_member, node);
        bool active = r->mode != LIM__READ_STANDBY || node == r->members.next;
        lim__json_open(j, NULL, '{');
        lim__json_str(j, "name", m->name);
        lim__json_bool(j, "active", active);
        lim__json_u64(j, "in_flight", m->flight);
        if (m->window == LIM_PULL)
            lim__json_str(j, "window", "pull");
        else
            lim__json_u64(j, "window", m->window);
        lim__json_close(j);
    }
    lim__json_close(j);
}

static void full_json(const lim__reader *r, lim__json *j)
{
    numbers_json(r, j);
    lim__json_u64(j, "next", r->at.next);
    lim__json_u64(j, "in_flight", count(r, LIM__PEND_FLIGHT) + count(r, LIM__PEND_STEP));
    lim__json_u64(j, "again", count(r, LIM__PEND_READY));
    lim__json_u64(j, "later", count(r, LIM__PEND_LATER));
    if (r->ack_ns == UINT64_MAX)
        lim__json_str(j, "ack_ms", NULL);
    else
        lim__json_u64(j, "ack_ms", r->ack_ns / MS);
    lim__json_u64(j, "deliveries_max", r->deliveries_max);
    lim__json_str(j, "dead_letter", r->dead_letter);
    lim__json_u64(j, "created_us", r->created_wall_ns / 1000);
    members_json(r, j);
}

/* ---- why it does not move ---- */

typedef struct why {
    const char *key;
    char text[480];
} why;

static bool anybody_pulls(const lim__reader *r)
{
    LIM__LIST_EACH(node, &r->members)
        if (LIM_CONTAINER(node, lim__read_member, node)->window == LIM_PULL)
            return true;
    return false;
}

static void why_of(const lim__reader *r, why *w)
{
    unsigned in_hand = count(r, LIM__PEND_FLIGHT) + count(r, LIM__PEND_STEP), later = count(r, LIM__PEND_LATER);
    unsigned long long behind = lag(r);
    if (r->member_count == 0) {
        w->key = "no_reader";
        snprintf(w->text, sizeof w->text, "nobody reads with it; %llu messages wait; subscribe with --durable %s",
                 behind + r->at.count, r->cursor);
    } else if (behind == 0 && r->at.count == 0) {
        w->key = "caught_up";
        snprintf(w->text, sizeof w->text, "it has delivered all there is, and all of it is acknowledged");
    } else if (r->at.count >= LIM__PENDING_MAX) {
        w->key = "pending_full";
        snprintf(w->text, sizeof w->text, "%d messages are not done, its limit: acknowledge some", LIM__PENDING_MAX);
    } else if (in_hand == 0 && later > 0 && behind == 0) {
        w->key = "later";
        snprintf(w->text, sizeof w->text, "%u messages were refused and wait for their time to be delivered again",
                 later);
    } else if (behind > 0 && r->job != LIM__JOB_NONE) {
        w->key = "reading";
        snprintf(w->text, sizeof w->text, "it moves: %llu messages are still to be read from the disk", behind);
    } else if (behind > 0 && anybody_pulls(r)) {
        w->key = "not_fetched";
        snprintf(w->text, sizeof w->text, "%llu messages wait for somebody to fetch them; %u are in hand", behind,
                 in_hand);
    } else if (in_hand > 0) {
        w->key = "unacknowledged";
        snprintf(w->text, sizeof w->text,
                 "%u messages are in the hands of %u readers and not acknowledged (the oldest is %llu); %llu wait "
                 "behind them",
                 in_hand, r->member_count, (unsigned long long)lim__cursor_floor(&r->at) + 1, behind);
    } else {
        w->key = "slow";
        snprintf(w->text, sizeof w->text, "%llu messages wait until its readers take what they were sent", behind);
    }
}

/* ---- requests ---- */

typedef struct request {
    lim__reader *r;
    const lim__admin *letter;
    lim__val root;
    lim__json *j; /* the answer: an object that is open */
    bool later;   /* answered when it is done */
} request;

__attribute__((format(printf, 3, 4))) static void refuse(request *q, lim_err err, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lim__json_open(q->j, "error", '{');
    lim__json_str(q->j, "code", lim_err_name(err));
    lim__json_str(q->j, "message", text);
    lim__json_close(q->j);
}

static void op_show(request *q)
{
    full_json(q->r, q->j);
}

static void op_why(request *q)
{
    why w;
    why_of(q->r, &w);
    numbers_json(q->r, q->j);
    lim__json_str(q->j, "why", w.key);
    lim__json_str(q->j, "text", w.text);
}

static bool no_step(request *q)
{
    if (count(q->r, LIM__PEND_STEP) == 0)
        return true;
    refuse(q, LIM_E_FULL, "a step that acknowledges a message of it is being stored; try again");
    return false;
}

static void op_reset(request *q)
{
    lim__reader *r = q->r;
    lim_read_opts at = { .from = LIM_FROM_ALL };
    lim_bytes from = lim__val_bytes(q->root, "from", lim__str(""));
    if (lim__read_from(from, &at) != LIM_OK) {
        refuse(q, LIM_E_INVALID, "\"from\" is all, new, seq:NUMBER or time:MICROSECONDS");
        return;
    }
    if (!no_step(q))
        return;
    uint64_t first, last;
    lim__log_span(r->log, &first, &last);
    r->seek_wall_ns = at.from == LIM_FROM_TIME ? at.start * 1000 + (at.start == 0) : 0;
    lim__reader_rewind(r, at.from == LIM_FROM_NEW ? last + 1 : at.from == LIM_FROM_SEQ && at.start > 0 ? at.start : 1);
    lim__reader_dirty(r);
    numbers_json(r, q->j);
}

static void op_delete(request *q)
{
    lim__reader *r = q->r;
    if (!no_step(q))
        return;
    r->deleter = q->letter->reply_to;
    r->deleter_ref = q->letter->ref;
    q->later = true;
    lim__reader_tell_over(r, LIM_E_GONE, "the cursor was deleted");
    lim__reader_delete(r);
}

static const struct {
    const char *op;
    void (*run)(request *q);
} ops[] = {
    { "cursor.show", op_show }, { "cursor.why", op_why }, { "cursor.reset", op_reset }, { "cursor.delete", op_delete }
};

static void answer(lim__reader *r, lim_pid to, uint64_t ref, lim__buf *b)
{
    lim__shown_send(r->self, &(lim__show){ .reply_to = to, .ref = ref }, b);
}

void lim__reader_admin(lim__reader *r, const lim__admin *a)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__doc *doc = lim__doc_new();
    request q = { .r = r, .letter = a, .j = &j };
    lim__json_open(&j, NULL, '{');
    lim_err err = doc != NULL ? lim__doc_parse(doc, lim__bytes(a->json, a->len), NULL) : LIM_E_NOMEM;
    q.root = err == LIM_OK ? lim__doc_root(doc) : (lim__val){ 0 };
    lim_bytes op = err == LIM_OK ? lim__val_bytes(q.root, "op", lim__str("")) : lim__str("");
    size_t i = 0;
    while (i < LIM_COUNT(ops) && !lim__bytes_eq(op, lim__str(ops[i].op)))
        i++;
    if (r->life != LIM__READ_LIVES)
        refuse(&q, LIM_E_NOTFOUND, "cursor %s is being deleted", r->cursor);
    else if (i < LIM_COUNT(ops))
        ops[i].run(&q);
    else
        refuse(&q, LIM_E_INVALID, "unknown op %.*s", (int)(op.len < 60 ? op.len : 60), (const char *)op.ptr);
    lim__json_close(&j);
    lim__doc_free(doc);
    if (q.later)
        lim__buf_fini(&b);
    else
        answer(r, a->reply_to, a->ref, &b);
}

void lim__reader_show(lim__reader *r, const lim__show *show)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    numbers_json(r, &j);
    lim__json_close(&j);
    lim__shown_send(r->self, show, &b);
}

void lim__reader_deleted(lim__reader *r)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (r->deleter.id != 0) {
        lim__json_open(&j, NULL, '{');
        lim__json_bytes(&j, "channel", lim__log_name(r->log));
        lim__json_str(&j, "cursor", r->cursor);
        lim__json_close(&j);
        answer(r, r->deleter, r->deleter_ref, &b);
    }
    r->life = LIM__READ_ENDED;
    lim_exit(r->self, LIM_NORMAL);
}
