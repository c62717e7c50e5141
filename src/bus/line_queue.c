/* SPDX-License-Identifier: Apache-2.0
 * line_queue.c - the containers of a line: pairing heap, queues, roll.
 *
 * The pairing heap is intrusive, so nothing that waits needs memory to wait. `child` is a node's first child, `next`
 * its younger sibling, `prev` its elder sibling or, of a first child, the parent. Removing the first melds its children
 * in pairs, then the pairs into one: O(log n) amortized.
 *
 * A roll is pages of pointers by number. Removing one clears a bit in the list of pages and nothing else: that list is
 * small and near, while the slots of a million items are not. */
#include "bus/line_inside.h"

#include <stdlib.h>

/* ---- pairing heap ---- */

static lim__line_node *meld(lim__line_node *a, lim__line_node *b)
{
    if (a == NULL || b == NULL)
        return a == NULL ? b : a;
    if (lim__line_before(b, a)) {
        lim__line_node *swap = a;
        a = b;
        b = swap;
    }
    b->prev = a;
    b->next = a->child;
    if (a->child != NULL)
        a->child->prev = b;
    a->child = b;
    return a;
}

static lim__line_node *alone(lim__line_node *n)
{
    n->next = n->prev = NULL;
    return n;
}

/* One heap out of siblings. */
static lim__line_node *meld_all(lim__line_node *n)
{
    lim__line_node *pairs = NULL, *heap = NULL;
    while (n != NULL) {
        lim__line_node *a = n, *b = n->next;
        n = b != NULL ? b->next : NULL;
        a = meld(alone(a), b != NULL ? alone(b) : NULL);
        a->next = pairs;
        pairs = a;
    }
    while (pairs != NULL) {
        lim__line_node *pair = pairs;
        pairs = pairs->next;
        heap = meld(heap, alone(pair));
    }
    return heap;
}

void lim__line_heap_push(lim__line_node **heap, lim__line_node *n)
{
    alone(n)->child = NULL;
    *heap = meld(*heap, n);
}

void lim__line_heap_remove(lim__line_node **heap, lim__line_node *n)
{
    lim__line_node *children = meld_all(n->child);
    if (n == *heap) {
        *heap = children;
        return;
    }
    if (n->prev->child == n)
        n->prev->child = n->next;
    else
        n->prev->next = n->next;
    if (n->next != NULL)
        n->next->prev = n->prev;
    *heap = meld(*heap, children);
}

/* ---- queue ---- */

static bool in_order(const lim__line_queue *q, const lim__line_node *n)
{
    const lim__line_node last = { .key = q->last_key, .tie = q->last_tie };
    return !lim__line_before(n, &last);
}

static bool queue_chunk(lim__line_queue *q)
{
    lim__line_chunk *c = malloc(sizeof *c);
    if (c == NULL)
        return false;
    c->next = NULL;
    if (q->tail != NULL) {
        memcpy(q->tail->slot, q->slot, sizeof q->slot);
        q->tail->next = c;
    } else {
        q->head = c;
    }
    q->tail = c;
    q->tail_at = 0;
    return true;
}

/* False: no memory for one more. */
static bool queue_append(lim__line_queue *q, lim__line_node *n)
{
    if ((q->tail == NULL || q->tail_at == LINE_CHUNK) && !queue_chunk(q))
        return false;
    q->slot[q->tail_at] = n;
    n->slot = &q->tail->slot[q->tail_at++];
    return true;
}

void lim__line_queue_push(lim__line_queue *q, lim__line_node *n)
{
    if (q->first == NULL) {
        q->first = n;
    } else if (!in_order(q, n) || !queue_append(q, n)) {
        lim__line_heap_push(&q->heap, n);
        return;
    }
    n->child = n;
    q->last_key = n->key;
    q->last_tie = n->tie;
}

/* The head is empty: its next is the head. The one two further is fetched while there is time: look-ahead needs it. */
static void queue_turn(lim__line_queue *q)
{
    lim__line_chunk *c = q->head->next;
    free(q->head);
    q->head = c;
    q->head_at = 0;
    for (int i = 0; i < 2 && c != NULL; i++)
        c = c->next;
    lim__line_fetch(c, sizeof *c);
}

/* The next of the chunks that is still there becomes the first. Chunks that are empty go; a last one stays for what
 * comes, as long as something is here. */
static void queue_advance(lim__line_queue *q)
{
    q->first = NULL;
    while (q->first == NULL && q->head != NULL) {
        if (q->head == q->tail && q->head_at == q->tail_at) {
            lim__line_queue_fini(q);
        } else if (q->head_at < LINE_CHUNK) {
            q->first = (q->head == q->tail ? q->slot : q->head->slot)[q->head_at++];
        } else {
            queue_turn(q);
        }
    }
    if (q->head == q->tail && q->head_at == q->tail_at)
        q->head_at = q->tail_at = 0;
}

void lim__line_queue_remove(lim__line_queue *q, lim__line_node *n)
{
    if (n->child != n) {
        lim__line_heap_remove(&q->heap, n);
    } else if (n == q->first) {
        queue_advance(q);
    } else {
        uintptr_t in_tail = ((uintptr_t)n->slot - (uintptr_t)q->tail->slot) / sizeof *n->slot;
        *(in_tail < LINE_CHUNK ? &q->slot[in_tail] : n->slot) = NULL;
    }
}

void lim__line_queue_fini(lim__line_queue *q)
{
    for (lim__line_chunk *c = q->head, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    q->head = q->tail = NULL;
    q->head_at = q->tail_at = 0;
}

lim__line_node *lim__line_queue_ahead(const lim__line_queue *q, unsigned n)
{
    const lim__line_chunk *c = q->head;
    unsigned at = q->head_at + n - 1;
    for (; c != q->tail && at >= LINE_CHUNK; at -= LINE_CHUNK)
        c = c->next;
    if (c != q->tail)
        return c->slot[at];
    return c != NULL && at < q->tail_at ? q->slot[at] : NULL;
}

/* ---- queues of cells ---- */

static lim__line_queue *ready_more(lim__line_ready *r)
{
    if (r->queues == 0)
        r->queues = 1;
    lim__line_queue *q = r->queues < LINE_QUEUES ? calloc(1, sizeof *q) : NULL;
    if (q != NULL)
        r->more[r->queues++ - 1] = q;
    return q;
}

/* Is a better than b for n? A queue behind whose last it comes is better than an empty one, and that than none. */
static bool better(const lim__line_queue *a, const lim__line_queue *b, const lim__line_node *n)
{
    if (a->first == NULL)
        return b == NULL;
    if (!in_order(a, n))
        return false;
    const lim__line_node last = { .key = a->last_key, .tie = a->last_tie };
    return b == NULL || b->first == NULL || in_order(b, &last);
}

unsigned lim__line_ready_push(lim__line_ready *r, lim__line_node *n)
{
    unsigned at = 0;
    const lim__line_queue *best = NULL;
    for (unsigned i = 0; i == 0 || i < r->queues; i++) {
        const lim__line_queue *q = lim__line_ready_queue(r, i);
        if (better(q, best, n)) {
            best = q;
            at = i;
        }
    }
    if (best == NULL && ready_more(r) != NULL)
        at = r->queues - 1;
    lim__line_queue_push(lim__line_ready_queue(r, at), n);
    return at;
}

lim__line_node *lim__line_ready_first(lim__line_ready *r)
{
    lim__line_node *first = lim__line_queue_first(&r->queue);
    for (unsigned i = 1; i < r->queues; i++) {
        lim__line_node *n = lim__line_queue_first(r->more[i - 1]);
        if (first == NULL || (n != NULL && lim__line_before(n, first)))
            first = n;
    }
    return first;
}

void lim__line_ready_fini(lim__line_ready *r)
{
    lim__line_queue_fini(&r->queue);
    for (unsigned i = 1; i < r->queues; i++) {
        lim__line_queue_fini(r->more[i - 1]);
        free(r->more[i - 1]);
    }
}

/* ---- roll ---- */

/* Closes the gaps that pages left. */
static void roll_pack(lim__line_roll *r)
{
    size_t to = 0;
    for (size_t i = r->first; i < r->end; i++)
        if (r->pages[i].here != 0)
            r->pages[to++] = r->pages[i];
    r->first = r->gone = 0;
    r->end = to;
}

static bool roll_room(lim__line_roll *r)
{
    if (r->end < r->cap)
        return true;
    if (r->first + r->gone > r->cap / 2) {
        roll_pack(r);
        return true;
    }
    size_t cap = r->cap > 0 ? r->cap * 2 : 8;
    lim__line_page *pages = realloc(r->pages, cap * sizeof *pages);
    if (pages == NULL)
        return false;
    r->pages = pages;
    r->cap = cap;
    return true;
}

static lim__line_page *roll_page(lim__line_roll *r, uint64_t no)
{
    uint64_t base = no - no % LINE_PAGE;
    if (r->first < r->end && r->pages[r->end - 1].base == base && r->pages[r->end - 1].here != 0)
        return &r->pages[r->end - 1];
    void **slot = malloc(LINE_PAGE * sizeof *slot);
    if (slot == NULL || !roll_room(r)) {
        free(slot);
        if (r->first == r->end)
            lim__line_roll_fini(r);
        return NULL;
    }
    r->pages[r->end] = (lim__line_page){ .base = base, .slot = slot };
    return &r->pages[r->end++];
}

lim_err lim__line_roll_add(lim__line_roll *r, void *what, uint64_t *no)
{
    lim__line_page *p = roll_page(r, r->last + 1);
    if (p == NULL)
        return LIM_E_NOMEM;
    *no = ++r->last;
    p->slot[*no % LINE_PAGE] = what;
    p->here |= 1ull << (*no % LINE_PAGE);
    return LIM_OK;
}

/* The first page with a number over `after`, gone ones too. */
static size_t roll_find(const lim__line_roll *r, uint64_t after)
{
    size_t low = r->first, high = r->end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->pages[middle].base + LINE_PAGE - 1 > after)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Where the page of this number is, if no gap was ever closed. */
static inline size_t roll_guess(const lim__line_roll *r, uint64_t no)
{
    return r->first + (size_t)((no - no % LINE_PAGE - r->pages[r->first].base) / LINE_PAGE);
}

static lim__line_page *roll_page_of(const lim__line_roll *r, uint64_t no)
{
    uint64_t base = no - no % LINE_PAGE;
    size_t at = roll_guess(r, no);
    if (at >= r->end || r->pages[at].base != base || r->pages[at].here == 0)
        for (at = roll_find(r, no - 1); r->pages[at].here == 0; at++)
            continue; /* a page that was gone before its last number was given has a second one with the same base */
    LIM_ASSERT(at < r->end && r->pages[at].base == base && (r->pages[at].here >> (no % LINE_PAGE) & 1) != 0);
    return &r->pages[at];
}

static void roll_page_gone(lim__line_roll *r, lim__line_page *p)
{
    free(p->slot);
    p->slot = NULL;
    r->gone++;
    for (; r->first < r->end && r->pages[r->first].here == 0; r->first++)
        r->gone--;
    if (r->first == r->end)
        lim__line_roll_fini(r);
}

void lim__line_roll_fetch(const lim__line_roll *r, uint64_t no)
{
    lim__line_fetch(&r->pages[roll_guess(r, no)], 1);
}

void lim__line_roll_remove(lim__line_roll *r, uint64_t no)
{
    lim__line_page *p = roll_page_of(r, no);
    p->here &= ~(1ull << (no % LINE_PAGE));
    if (p->here == 0)
        roll_page_gone(r, p);
}

void lim__line_roll_fini(lim__line_roll *r)
{
    for (size_t i = r->first; i < r->end; i++)
        free(r->pages[i].slot);
    free(r->pages);
    *r = (lim__line_roll){ .last = r->last };
}

void *lim__line_roll_next(const lim__line_roll *r, uint64_t *after, size_t *at)
{
    if (*at == SIZE_MAX)
        *at = roll_find(r, *after);
    for (; *at < r->end; ++*at) {
        const lim__line_page *p = &r->pages[*at];
        uint64_t skip = *after >= p->base ? *after - p->base + 1 : 0;
        uint64_t left = skip >= LINE_PAGE ? 0 : p->here >> skip << skip;
        if (left != 0) {
            unsigned bit = (unsigned)__builtin_ctzll(left);
            *after = p->base + bit;
            return p->slot[bit];
        }
    }
    return NULL;
}
