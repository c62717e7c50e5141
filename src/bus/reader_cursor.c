/* SPDX-License-Identifier: Apache-2.0
 * reader_cursor.c - which messages of a log are done, and what is to become of the others.
 *
 * Nothing is kept of a message that is done: everything below `next` that is not pending is. So what a cursor costs, in
 * memory and in its row, is what is under way, however long the log; and a message that is settled out of order leaves
 * no trace but a hole. A row of messages costs as much as one, as long as it is settled from its ends. */
#include "bus/reader_cursor.h"
#include "base/base.h"

#include <stdlib.h>

/* ---- heaps ---- */

static uint64_t rank(const lim__pends *h, const lim__cursor *c, const lim__pend *p)
{
    return h == &c->ready ? p->seq : p->due_ns;
}

static bool before(const lim__pends *h, const lim__cursor *c, const lim__pend *a, const lim__pend *b)
{
    uint64_t x = rank(h, c, a), y = rank(h, c, b);
    return x != y ? x < y : a->seq < b->seq;
}

static void set(lim__pends *h, uint32_t i, lim__pend *p)
{
    h->at[i] = p;
    p->at = i + 1;
}

static void sift_up(lim__pends *h, const lim__cursor *c, uint32_t i, lim__pend *p)
{
    for (; i > 0 && before(h, c, p, h->at[(i - 1) / 2]); i = (i - 1) / 2)
        set(h, i, h->at[(i - 1) / 2]);
    set(h, i, p);
}

static void sift_down(lim__pends *h, const lim__cursor *c, uint32_t i, lim__pend *p)
{
    for (uint32_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(h, c, h->at[child + 1], h->at[child]))
            child++;
        if (!before(h, c, h->at[child], p))
            break;
        set(h, i, h->at[child]);
    }
    set(h, i, p);
}

static void heap_push(lim__pends *h, const lim__cursor *c, lim__pend *p)
{
    LIM_ASSERT(h->count < h->cap && p->at == 0);
    sift_up(h, c, h->count++, p);
}

static void heap_remove(lim__pends *h, const lim__cursor *c, lim__pend *p)
{
    uint32_t i = p->at - 1;
    LIM_ASSERT(i < h->count && h->at[i] == p);
    lim__pend *last = h->at[--h->count];
    p->at = 0;
    if (last == p)
        return;
    if (i > 0 && before(h, c, last, h->at[(i - 1) / 2]))
        sift_up(h, c, i, last);
    else
        sift_down(h, c, i, last);
}

static bool heap_reserve(lim__pends *h, size_t wanted)
{
    if (wanted <= h->cap)
        return true;
    uint32_t cap = h->cap != 0 ? h->cap * 2 : 16;
    lim__pend **at = realloc(h->at, cap * sizeof(lim__pend *));
    if (at == NULL)
        return false;
    h->at = at;
    h->cap = cap;
    return true;
}

/* ---- one message ---- */

static void let_go(lim__cursor *c, lim__pend *p)
{
    if (p->msg == NULL)
        return;
    c->kept_bytes -= lim__msg_cost(p->msg);
    lim__msg_unref(p->msg);
    p->msg = NULL;
}

static void keep(lim__cursor *c, lim__pend *p, lim__msg *msg)
{
    p->msg = msg;
    c->kept_bytes += lim__msg_cost(msg);
}

/* Out of its heap and its member's hands: in no state. */
static void lift(lim__cursor *c, lim__pend *p)
{
    if (p->state == LIM__PEND_READY) {
        heap_remove(&c->ready, c, p);
    } else if (p->at != 0) {
        heap_remove(&c->due, c, p);
    }
    lim__list_remove(&p->in_member);
    p->member = NULL;
}

static void fly(lim__cursor *c, lim__pend *p, struct lim__read_member *member, lim__list *members_list, uint64_t due_ns)
{
    p->state = LIM__PEND_FLIGHT;
    p->member = member;
    p->deliveries++;
    p->due_ns = due_ns;
    lim__list_push(members_list, &p->in_member);
    if (due_ns != UINT64_MAX)
        heap_push(&c->due, c, p);
    if (c->kept_bytes > c->kept_max)
        let_go(c, p);
}

/* Room in both heaps for so many more: an arrow of one that is there cannot fail. */
static bool reserve(lim__cursor *c, uint32_t more)
{
    size_t wanted = (size_t)c->nodes + more;
    return heap_reserve(&c->due, wanted) && heap_reserve(&c->ready, wanted);
}

/* In no state, in front of `before`, which is in the order. */
static void enter(lim__cursor *c, lim__pend *p, lim__list *before)
{
    lim__list_init(&p->in_member);
    lim__list_push(before, &p->in_order);
    c->nodes++;
    c->rows += p->row;
    c->count += p->count;
}

static lim__pend *pend_new(lim__cursor *c, uint64_t seq, lim__list *before)
{
    lim__pend *p = reserve(c, 1) ? calloc(1, sizeof *p) : NULL;
    if (p == NULL)
        return NULL;
    p->seq = seq;
    p->count = 1;
    if (lim__map_put(&c->pending, seq, p) != LIM_OK) {
        free(p);
        return NULL;
    }
    enter(c, p, before);
    return p;
}

static lim__pend *row_new(lim__cursor *c, uint64_t seq, uint32_t count, lim__list *before)
{
    lim__pend *p = reserve(c, 1) ? calloc(1, sizeof *p) : NULL;
    if (p == NULL)
        return NULL;
    p->seq = seq;
    p->count = count;
    p->row = true;
    enter(c, p, before);
    return p;
}

static uint64_t last_of(const lim__pend *p)
{
    return p->seq + p->count - 1;
}

/* ---- the cursor ---- */

void lim__cursor_init(lim__cursor *c, uint64_t seed, uint64_t kept_max)
{
    *c = (lim__cursor){ .next = 1, .kept_max = kept_max };
    lim__map_init(&c->pending, seed);
    lim__list_init(&c->order);
}

void lim__cursor_drop(lim__cursor *c)
{
    while (!lim__list_empty(&c->order))
        lim__cursor_done(c, LIM_CONTAINER(c->order.next, lim__pend, in_order));
}

void lim__cursor_fini(lim__cursor *c)
{
    if (c->order.next != NULL)
        lim__cursor_drop(c);
    lim__map_fini(&c->pending);
    free(c->due.at);
    free(c->ready.at);
}

uint64_t lim__cursor_floor(const lim__cursor *c)
{
    return (lim__list_empty(&c->order) ? c->next : LIM_CONTAINER(c->order.next, lim__pend, in_order)->seq) - 1;
}

lim__pend *lim__cursor_from(const lim__cursor *c, uint64_t seq)
{
    LIM__LIST_EACH(node, &c->order)
        if (last_of(LIM_CONTAINER(node, lim__pend, in_order)) >= seq)
            return LIM_CONTAINER(node, lim__pend, in_order);
    return NULL;
}

lim__pend *lim__cursor_find(const lim__cursor *c, uint64_t seq)
{
    lim__pend *p = lim__map_get(&c->pending, seq);
    if (p != NULL || c->rows == 0)
        return p;
    p = lim__cursor_from(c, seq);
    return p != NULL && p->seq <= seq ? p : NULL;
}

lim__pend *lim__cursor_add(lim__cursor *c, uint64_t seq, uint64_t expires_wall_ns, lim__msg *msg,
                           struct lim__read_member *member, lim__list *members_list, uint64_t due_ns)
{
    LIM_ASSERT(seq >= c->next);
    lim__pend *p = pend_new(c, seq, &c->order);
    if (p == NULL)
        return NULL;
    p->expires_wall_ns = expires_wall_ns;
    keep(c, p, msg);
    c->next = seq + 1;
    fly(c, p, member, members_list, due_ns);
    return p;
}

bool lim__cursor_add_row(lim__cursor *c, uint64_t seq, uint32_t count, struct lim__read_member *member,
                         lim__list *members_list, uint64_t due_ns)
{
    LIM_ASSERT(seq >= c->next && count > 0);
    lim__pend *p = row_new(c, seq, count, &c->order);
    if (p == NULL)
        return false;
    c->next = seq + count;
    fly(c, p, member, members_list, due_ns);
    return true;
}

void lim__cursor_pass(lim__cursor *c, uint64_t next)
{
    if (next > c->next)
        c->next = next;
}

void lim__cursor_done(lim__cursor *c, lim__pend *p)
{
    lift(c, p);
    let_go(c, p);
    lim__list_remove(&p->in_order);
    if (!p->row)
        lim__map_remove(&c->pending, p->seq);
    c->nodes--;
    c->rows -= p->row;
    c->count -= p->count;
    free(p);
}

/* Less of a row from its front. Whatever stands behind it in a heap still does: nobody else has a number in it. */
static void shorten(lim__cursor *c, lim__pend *row, uint32_t by)
{
    row->seq += by;
    row->count -= by;
    c->count -= by;
}

uint32_t lim__cursor_done_upto(lim__cursor *c, lim__pend *p, uint64_t seq)
{
    uint32_t count = p->count;
    if (seq < p->seq)
        return 0;
    if (seq >= last_of(p)) {
        lim__cursor_done(c, p);
        return count;
    }
    count = (uint32_t)(seq + 1 - p->seq);
    shorten(c, p, count);
    return count;
}

/* As `like` is, which is beside it in the order, and behind it (or in front) in its member's list and its heap. */
static void take_after(lim__cursor *c, lim__pend *p, const lim__pend *like, lim__list *before)
{
    p->state = like->state;
    p->why = like->why;
    p->deliveries = like->deliveries;
    p->due_ns = like->due_ns;
    p->member = like->member;
    if (before != NULL)
        lim__list_push(before, &p->in_member);
    if (like->at != 0)
        heap_push(p->state == LIM__PEND_READY ? &c->ready : &c->due, c, p);
}

/* What a row has behind a number, into a row of its own. False: no memory. */
static bool cut(lim__cursor *c, lim__pend *row, uint64_t seq)
{
    uint32_t rest = (uint32_t)(last_of(row) - seq);
    if (rest == 0)
        return true;
    lim__pend *behind = row_new(c, seq + 1, rest, row->in_order.next);
    if (behind == NULL)
        return false;
    row->count -= rest;
    c->count -= rest; /* they were counted anew */
    take_after(c, behind, row, row->member != NULL ? row->in_member.next : NULL);
    return true;
}

lim__pend *lim__cursor_take(lim__cursor *c, uint64_t seq)
{
    lim__pend *p = lim__cursor_find(c, seq);
    return p != NULL ? lim__cursor_take_of(c, p, seq) : NULL;
}

lim__pend *lim__cursor_take_of(lim__cursor *c, lim__pend *row, uint64_t seq)
{
    if (!row->row)
        return row;
    LIM_ASSERT(row->seq <= seq && seq <= last_of(row));
    if (!cut(c, row, seq))
        return NULL;
    lim__pend *p = pend_new(c, seq, row->in_order.next);
    if (p == NULL)
        return NULL; /* two rows, then: that is as good as one */
    c->count--;
    row->count--;
    take_after(c, p, row, row->member != NULL ? row->in_member.next : NULL);
    if (row->count == 0)
        lim__cursor_done(c, row);
    return p;
}

void lim__cursor_again(lim__cursor *c, lim__pend *p)
{
    lift(c, p);
    p->state = LIM__PEND_READY;
    heap_push(&c->ready, c, p);
}

void lim__cursor_later(lim__cursor *c, lim__pend *p, uint64_t due_ns)
{
    LIM_ASSERT(!p->row);
    lift(c, p);
    p->state = LIM__PEND_LATER;
    p->due_ns = due_ns;
    heap_push(&c->due, c, p);
}

void lim__cursor_hold(lim__cursor *c, lim__pend *p, lim__pend_state state)
{
    LIM_ASSERT((state == LIM__PEND_STEP || state == LIM__PEND_DYING) && !p->row);
    if (state == LIM__PEND_STEP) {
        LIM_ASSERT(p->state == LIM__PEND_FLIGHT);
        if (p->at != 0)
            heap_remove(&c->due, c, p);
    } else {
        lift(c, p);
    }
    p->state = state;
}

void lim__cursor_orphan(lim__pend *p)
{
    LIM_ASSERT(p->state == LIM__PEND_STEP);
    lim__list_remove(&p->in_member);
    p->member = NULL;
}

void lim__cursor_resume(lim__cursor *c, lim__pend *p, uint64_t due_ns)
{
    LIM_ASSERT(p->state == LIM__PEND_STEP && p->member != NULL);
    p->state = LIM__PEND_FLIGHT;
    p->due_ns = due_ns;
    if (due_ns != UINT64_MAX)
        heap_push(&c->due, c, p);
}

void lim__cursor_deliver(lim__cursor *c, lim__pend *p, struct lim__read_member *member, lim__list *members_list,
                         uint64_t due_ns)
{
    LIM_ASSERT(p->state == LIM__PEND_READY && p->msg != NULL);
    lift(c, p);
    fly(c, p, member, members_list, due_ns);
}

lim__pend *lim__cursor_first_due(const lim__cursor *c)
{
    return c->due.count > 0 ? c->due.at[0] : NULL;
}

lim__pend *lim__cursor_first_ready(const lim__cursor *c)
{
    return c->ready.count > 0 ? c->ready.at[0] : NULL;
}

void lim__cursor_give(lim__cursor *c, lim__pend *p, lim__msg *msg)
{
    LIM_ASSERT(p->msg == NULL && !p->row);
    keep(c, p, msg);
}

/* ---- the row ---- numbers as distances, seven bits a byte, the low ones first; of each that is pending the distance
 * and its deliveries, of several in a row that were delivered as often: the distance, 0, how many, deliveries */

static void pack_number(lim__buf *b, uint64_t n)
{
    for (; n >= 0x80; n >>= 7)
        lim__buf_add(b, &(uint8_t){ (uint8_t)(n | 0x80) }, 1);
    lim__buf_add(b, &(uint8_t){ (uint8_t)n }, 1);
}

static bool unpack_number(lim_bytes *in, uint64_t *out)
{
    const uint8_t *at = in->ptr;
    *out = 0;
    for (size_t i = 0; i < in->len && i < 10; i++) {
        *out |= (uint64_t)(at[i] & 0x7f) << (7 * i);
        if (at[i] & 0x80)
            continue;
        *in = lim__bytes(at + i + 1, in->len - i - 1);
        return true;
    }
    return false;
}

void lim__cursor_pack(const lim__cursor *c, lim__buf *out, bool (*without)(const lim__pend *p))
{
    uint64_t last = 0;
    pack_number(out, c->next);
    LIM__LIST_EACH(node, &c->order) {
        const lim__pend *p = LIM_CONTAINER(node, lim__pend, in_order);
        if (without != NULL && without(p))
            continue;
        pack_number(out, p->seq - last);
        if (p->row) {
            pack_number(out, 0);
            pack_number(out, p->count);
        }
        pack_number(out, p->deliveries);
        last = last_of(p);
    }
}

/* Deliveries, and how many messages have them. */
static bool unpack_deliveries(lim_bytes *in, uint64_t *deliveries, uint64_t *count)
{
    *count = 0;
    if (!unpack_number(in, deliveries))
        return false;
    return *deliveries != 0 || (unpack_number(in, count) && *count > 0 && unpack_number(in, deliveries));
}

lim_err lim__cursor_unpack(lim__cursor *c, lim_bytes packed)
{
    uint64_t next, seq = 0, step, count, deliveries;
    if (!unpack_number(&packed, &next) || next == 0)
        return LIM_E_INVALID;
    c->next = next;
    while (packed.len > 0) {
        if (!unpack_number(&packed, &step) || !unpack_deliveries(&packed, &deliveries, &count) || step == 0 ||
            step >= next - seq || count > LIM__PENDING_MAX || count > next - seq - step)
            return LIM_E_INVALID;
        seq += step;
        lim__pend *p = count > 0 ? row_new(c, seq, (uint32_t)count, &c->order) : pend_new(c, seq, &c->order);
        if (p == NULL)
            return LIM_E_NOMEM;
        p->deliveries = (uint32_t)deliveries;
        p->state = LIM__PEND_READY;
        heap_push(&c->ready, c, p);
        seq = last_of(p);
    }
    return LIM_OK;
}

void lim__cursor_check(const lim__cursor *c)
{
    uint64_t last = 0, kept = 0;
    uint32_t ready = 0, due = 0, count = 0, nodes = 0, rows = 0;
    LIM__LIST_EACH(node, &c->order) {
        const lim__pend *p = LIM_CONTAINER(node, lim__pend, in_order);
        LIM_ASSERT(p->seq > last && p->count > 0 && last_of(p) < c->next);    /* R1 */
        LIM_ASSERT(lim__map_get(&c->pending, p->seq) == (p->row ? NULL : p)); /* R5 */
        LIM_ASSERT(!p->row || (p->msg == NULL && (p->state == LIM__PEND_FLIGHT || p->state == LIM__PEND_READY)));
        bool held = p->state == LIM__PEND_FLIGHT || (p->state == LIM__PEND_STEP && p->member != NULL);
        LIM_ASSERT(held == (p->member != NULL) && held != lim__list_empty(&p->in_member)); /* R2 */
        ready += p->state == LIM__PEND_READY;
        due += p->state == LIM__PEND_LATER || (p->state == LIM__PEND_FLIGHT && p->due_ns != UINT64_MAX);
        kept += p->msg != NULL ? lim__msg_cost(p->msg) : 0;
        last = last_of(p);
        count += p->count;
        nodes++;
        rows += p->row;
    }
    LIM_ASSERT(ready == c->ready.count && due == c->due.count);            /* R3 */
    LIM_ASSERT(kept == c->kept_bytes);                                     /* R4 */
    LIM_ASSERT(count == c->count && nodes == c->nodes && rows == c->rows); /* R5 */
}
