/* SPDX-License-Identifier: Apache-2.0
 * reader_cursor.c - which messages of a log are done, and what is to become of the others.
 *
 * Nothing is kept of a message that is done: everything below `next` that is not pending is. So what a cursor costs, in
 * memory and in its row, is what is under way, however long the log; and a message that is settled out of order leaves
 * no trace but a hole. */
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
        c->absent -= p->msg == NULL;
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

static lim__pend *pend_new(lim__cursor *c, uint64_t seq)
{
    size_t wanted = c->pending.count + 1;
    if (!heap_reserve(&c->due, wanted) || !heap_reserve(&c->ready, wanted))
        return NULL;
    lim__pend *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->seq = seq;
    lim__list_init(&p->in_member);
    if (lim__map_put(&c->pending, seq, p) != LIM_OK) {
        free(p);
        return NULL;
    }
    lim__list_push(&c->order, &p->in_order);
    return p;
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

lim__pend *lim__cursor_find(const lim__cursor *c, uint64_t seq)
{
    return lim__map_get(&c->pending, seq);
}

lim__pend *lim__cursor_add(lim__cursor *c, uint64_t seq, uint64_t expires_wall_ns, lim__msg *msg,
                           struct lim__read_member *member, lim__list *members_list, uint64_t due_ns)
{
    LIM_ASSERT(seq >= c->next);
    lim__pend *p = pend_new(c, seq);
    if (p == NULL)
        return NULL;
    p->expires_wall_ns = expires_wall_ns;
    keep(c, p, msg);
    c->next = seq + 1;
    fly(c, p, member, members_list, due_ns);
    return p;
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
    lim__map_remove(&c->pending, p->seq);
    free(p);
}

void lim__cursor_again(lim__cursor *c, lim__pend *p)
{
    lift(c, p);
    p->state = LIM__PEND_READY;
    c->absent += p->msg == NULL;
    heap_push(&c->ready, c, p);
}

void lim__cursor_later(lim__cursor *c, lim__pend *p, uint64_t due_ns)
{
    lift(c, p);
    p->state = LIM__PEND_LATER;
    p->due_ns = due_ns;
    heap_push(&c->due, c, p);
}

void lim__cursor_hold(lim__cursor *c, lim__pend *p, lim__pend_state state)
{
    LIM_ASSERT(state == LIM__PEND_STEP || state == LIM__PEND_DYING);
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
    LIM_ASSERT(p->msg == NULL);
    c->absent -= p->state == LIM__PEND_READY;
    keep(c, p, msg);
}

/* ---- the row ---- numbers as distances, seven bits a byte, the low ones first */

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
        pack_number(out, p->deliveries);
        last = p->seq;
    }
}

lim_err lim__cursor_unpack(lim__cursor *c, lim_bytes packed)
{
    uint64_t next, seq = 0, step, deliveries;
    if (!unpack_number(&packed, &next) || next == 0)
        return LIM_E_INVALID;
    c->next = next;
    while (packed.len > 0) {
        if (!unpack_number(&packed, &step) || !unpack_number(&packed, &deliveries) || step == 0 || step >= next - seq)
            return LIM_E_INVALID;
        seq += step;
        lim__pend *p = pend_new(c, seq);
        if (p == NULL)
            return LIM_E_NOMEM;
        p->deliveries = (uint32_t)deliveries;
        p->state = LIM__PEND_READY;
        c->absent++;
        heap_push(&c->ready, c, p);
    }
    return LIM_OK;
}

void lim__cursor_check(const lim__cursor *c)
{
    uint64_t last = 0, kept = 0;
    uint32_t ready = 0, due = 0, absent = 0;
    LIM__LIST_EACH(node, &c->order) {
        const lim__pend *p = LIM_CONTAINER(node, lim__pend, in_order);
        LIM_ASSERT(p->seq > last && p->seq < c->next); /* R1 */
        LIM_ASSERT(lim__map_get(&c->pending, p->seq) == p);
        bool held = p->state == LIM__PEND_FLIGHT || (p->state == LIM__PEND_STEP && p->member != NULL);
        LIM_ASSERT(held == (p->member != NULL) && held != lim__list_empty(&p->in_member)); /* R2 */
        ready += p->state == LIM__PEND_READY;
        due += p->state == LIM__PEND_LATER || (p->state == LIM__PEND_FLIGHT && p->due_ns != UINT64_MAX);
        absent += p->state == LIM__PEND_READY && p->msg == NULL;
        kept += p->msg != NULL ? lim__msg_cost(p->msg) : 0;
        last = p->seq;
    }
    LIM_ASSERT(ready == c->ready.count && due == c->due.count && absent == c->absent); /* R3 */
    LIM_ASSERT(kept == c->kept_bytes);                                                 /* R4 */
}
