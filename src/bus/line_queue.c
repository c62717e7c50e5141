/* SPDX-License-Identifier: Apache-2.0
 * line_queue.c - the three containers of a line: pairing heap, queue, roll.
 *
 * The pairing heap is intrusive, so nothing that waits needs memory to wait. `child` is a node's first child, `next`
 * its younger sibling, `prev` its elder sibling or, of a first child, the parent. Removing the first melds its children
 * in pairs, then the pairs into one: O(log n) amortized.
 *
 * A roll is pages of pointers by number. Removing one clears a bit in the page's head and nothing else: of a million
 * items, those that are close in number share that cache line. */
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

void lim__line_queue_push(lim__line_queue *q, lim__line_node *n)
{
    if (q->first != NULL && lim__line_before(n, q->last)) {
        lim__line_heap_push(&q->heap, n);
        return;
    }
    n->child = n; /* in the list */
    n->next = NULL;
    n->prev = q->last;
    if (q->first == NULL)
        q->first = n;
    else
        q->last->next = n;
    q->last = n;
}

void lim__line_queue_remove(lim__line_queue *q, lim__line_node *n)
{
    if (n->child != n) {
        lim__line_heap_remove(&q->heap, n);
        return;
    }
    if (n == q->first) { /* the usual case: the one behind it is not touched */
        q->first = n->next;
        return;
    }
    n->prev->next = n->next;
    if (n == q->last)
        q->last = n->prev;
    else
        n->next->prev = n->prev;
}

/* ---- roll ---- */

static bool roll_room(lim__line_roll *r)
{
    if (r->end < r->cap)
        return true;
    if (r->first > r->cap / 2) {
        memmove(r->pages, r->pages + r->first, (r->end - r->first) * sizeof *r->pages);
        r->end -= r->first;
        r->first = 0;
        return true;
    }
    size_t cap = r->cap > 0 ? r->cap * 2 : 8;
    lim__line_page **pages = realloc(r->pages, cap * sizeof *pages);
    if (pages == NULL)
        return false;
    r->pages = pages;
    r->cap = cap;
    return true;
}

static lim__line_page *roll_page(lim__line_roll *r, uint64_t no)
{
    uint64_t base = no - no % LINE_PAGE;
    if (r->first < r->end && r->pages[r->end - 1]->base == base)
        return r->pages[r->end - 1];
    lim__line_page *p = malloc(sizeof *p);
    if (p == NULL || !roll_room(r)) {
        free(p);
        if (r->first == r->end)
            lim__line_roll_fini(r);
        return NULL;
    }
    p->base = base;
    p->here = 0;
    return r->pages[r->end++] = p;
}

lim_err lim__line_roll_add(lim__line_roll *r, void *what, uint64_t *no, lim__line_page **page)
{
    lim__line_page *p = roll_page(r, r->last + 1);
    if (p == NULL)
        return LIM_E_NOMEM;
    *no = ++r->last;
    *page = p;
    p->slot[*no - p->base] = what;
    p->here |= 1ull << (*no - p->base);
    return LIM_OK;
}

/* The first page with a number over `after`. */
static size_t roll_find(const lim__line_roll *r, uint64_t after)
{
    size_t low = r->first, high = r->end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->pages[middle]->base + LINE_PAGE - 1 > after)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void lim__line_roll_remove(lim__line_roll *r, uint64_t no, lim__line_page *p)
{
    p->here &= ~(1ull << (no - p->base));
    if (p->here != 0)
        return;
    size_t at = roll_find(r, p->base > 0 ? p->base - 1 : 0);
    LIM_ASSERT(at < r->end && r->pages[at] == p);
    if (at - r->first < r->end - at) { /* move the shorter side */
        memmove(r->pages + r->first + 1, r->pages + r->first, (at - r->first) * sizeof *r->pages);
        r->first++;
    } else {
        memmove(r->pages + at, r->pages + at + 1, (r->end - at - 1) * sizeof *r->pages);
        r->end--;
    }
    free(p);
    if (r->first == r->end)
        lim__line_roll_fini(r);
}

void lim__line_roll_fini(lim__line_roll *r)
{
    for (size_t i = r->first; i < r->end; i++)
        free(r->pages[i]);
    free(r->pages);
    *r = (lim__line_roll){ .last = r->last };
}

void *lim__line_roll_next(const lim__line_roll *r, uint64_t *after, size_t *at)
{
    if (*at == SIZE_MAX)
        *at = roll_find(r, *after);
    for (; *at < r->end; ++*at) {
        const lim__line_page *p = r->pages[*at];
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
