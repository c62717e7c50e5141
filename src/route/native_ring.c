/* SPDX-License-Identifier: Apache-2.0
 * native_ring.c - writing requests: candidates' records, changed in place, and messages.
 *
 * A record is written when the candidate's stamp has changed; a call brings only the slots of its candidates. Names,
 * tags and types stand in blocks of a power of two; a candidate that takes over a slot takes the block, too, if it
 * fits. Everything here is memory that helpers cannot write, so what was written can be relied on; lists of free blocks
 * run through the blocks.
 *
 *      messages    |.......| list payload headers | list payload headers |..........|
 *                          first: oldest call                            last: next one */
#include "route/native_inside.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- strings ---- */

static uint32_t block_bytes(uint32_t class)
{
    return 64u << class;
}

static void block_give(lim__ring *g, lim__native_view *v)
{
    if (v->class == LIM__NATIVE_CLASSES)
        return;
    memcpy(g->requests->strings + v->block, &g->free_blocks[v->class], sizeof(uint32_t));
    g->free_blocks[v->class] = v->block + 1;
    v->class = LIM__NATIVE_CLASSES;
}

/* Room for `need` bytes in the view's block. */
static bool block_take(lim__ring *g, lim__native_view *v, uint32_t need)
{
    uint32_t class = 0;
    while (class < LIM__NATIVE_CLASSES && block_bytes(class) < need)
        class ++;
    if (class == LIM__NATIVE_CLASSES)
        return false;
    if (v->class == class)
        return true;
    block_give(g, v);
    if (g->free_blocks[class] != 0) {
        v->block = g->free_blocks[class] - 1;
        memcpy(&g->free_blocks[class], g->requests->strings + v->block, sizeof(uint32_t));
    } else if (g->strings_used + block_bytes(class) <= LIM__RING_STRINGS) {
        v->block = g->strings_used;
        g->strings_used += block_bytes(class);
    } else {
        return false;
    }
    v->class = class;
    return true;
}

static uint32_t words_bytes(const lim__candidate *c)
{
    size_t need = c->name.len + c->node.len;
    for (uint32_t i = 0; i < c->tag_count; i++)
        need += sizeof(uint16_t) + c->tags[i].len;
    for (uint32_t i = 0; i < c->type_count; i++)
        need += sizeof(uint16_t) + c->types[i].len;
    return need < UINT32_MAX ? (uint32_t)need : UINT32_MAX;
}

static uint8_t *put_words(uint8_t *to, const lim_bytes *words, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t len = (uint16_t)words[i].len;
        memcpy(to, &len, sizeof len);
        if (len > 0)
            memcpy(to + sizeof len, words[i].ptr, len);
        to += sizeof len + len;
    }
    return to;
}

static bool words_fit(const lim_bytes *words, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (words[i].len > UINT16_MAX)
            return false;
    }
    return n <= UINT16_MAX;
}

/* ---- records ---- */

static bool views_cover(lim__ring *g, uint32_t slot)
{
    if (slot < g->view_count)
        return true;
    uint32_t count = g->view_count != 0 ? g->view_count : 16;
    while (count <= slot)
        count *= 2;
    lim__native_view *views = realloc(g->views, count * sizeof *views);
    if (views == NULL)
        return false;
    for (uint32_t i = g->view_count; i < count; i++)
        views[i] = (lim__native_view){ .class = LIM__NATIVE_CLASSES };
    g->views = views;
    g->view_count = count;
    return true;
}

static bool new_words(lim__ring *g, lim__native_view *v, lim__ring_record *r, const lim__candidate *c)
{
    uint32_t need = words_bytes(c);
    if (c->name.len > UINT16_MAX || c->node.len > UINT16_MAX || !words_fit(c->tags, c->tag_count) ||
        !words_fit(c->types, c->type_count) || !block_take(g, v, need))
        return false;
    uint8_t *at = g->requests->strings + v->block;
    if (c->name.len > 0)
        memcpy(at, c->name.ptr, c->name.len);
    at += c->name.len;
    if (c->node.len > 0)
        memcpy(at, c->node.ptr, c->node.len);
    at = put_words(at + c->node.len, c->tags, c->tag_count);
    (void)put_words(at, c->types, c->type_count);
    r->strings = v->block;
    r->strings_len = need;
    r->name_len = (uint16_t)c->name.len;
    r->node_len = (uint16_t)c->node.len;
    r->tag_count = (uint16_t)c->tag_count;
    r->type_count = (uint16_t)c->type_count;
    r->shape = ++g->shapes;
    return true;
}

/* The record as the candidate is. False: no room for its words. */
static bool show(lim__ring *g, const lim__candidate *c)
{
    if (!views_cover(g, c->slot))
        return false;
    lim__native_view *v = &g->views[c->slot];
    lim__ring_record *r = &g->requests->records[c->slot];
    uint32_t seq = atomic_load_explicit(&r->seq, memory_order_relaxed);
    bool good = true;
    atomic_store_explicit(&r->seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    if (v->id != c->id)
        good = new_words(g, v, r, c);
    if (good) {
        r->id = c->id;
        r->in_flight = c->in_flight;
        r->max_in_flight = c->max_in_flight;
        r->buffer_depth = c->buffer_depth;
        r->latency_us = c->latency_us;
        v->id = c->id;
        v->stamp = c->stamp;
    } else {
        v->id = v->stamp = 0;
    }
    atomic_store_explicit(&r->seq, seq + 2, memory_order_release);
    uint32_t changes = atomic_load_explicit(&g->requests->changes, memory_order_relaxed);
    atomic_store_explicit(&g->requests->changes, changes + 1,
                          memory_order_release); /* last: who sees it sees the rest */
    return good;
}

/* ---- messages ---- */

/* `need` bytes in a row. Row of calls empty: all is free. */
static bool messages_take(lim__ring *g, uint32_t need, uint32_t *at)
{
    if (g->head == g->tail)
        g->first = g->last = 0;
    bool around = g->last < g->first;
    uint32_t end = around ? g->first : LIM__RING_MESSAGES;
    if (need < end - g->last) { /* never full to the last byte: first == last means empty */
        *at = g->last;
    } else if (!around && need < g->first) {
        *at = 0;
    } else {
        return false;
    }
    g->last = *at + need;
    return true;
}

void lim__ring_release(lim__ring *g, const lim__native_call *c)
{
    g->first = c->messages_end;
}

/* ---- requests ---- */

static uint32_t aligned(size_t bytes)
{
    return (uint32_t)((bytes + 15) & ~(size_t)15);
}

/* The list of a call: n ids, then n slots. */
static bool show_all(lim__ring *g, uint8_t *list, const lim__candidate *const *candidates, uint32_t n)
{
    uint64_t *ids = (uint64_t *)(void *)list;
    uint16_t *slots = (uint16_t *)(void *)(ids + n);
    for (uint32_t i = 0; i < n; i++) {
        const lim__candidate *who = candidates[i];
        uint32_t slot = who->slot;
        if (LIM_UNLIKELY(slot >= g->view_count || g->views[slot].stamp != who->stamp || g->views[slot].id != who->id) &&
            (slot >= LIM__RING_CANDIDATES || !show(g, who)))
            return false;
        ids[i] = who->id;
        slots[i] = (uint16_t)slot;
    }
    return true;
}

bool lim__ring_write(lim__ring *g, lim__native_call *c, const lim__route_msg *msg,
                     const lim__candidate *const *candidates, uint32_t n, const char **why)
{
    lim__ring_requests *q = g->requests;
    uint32_t list = aligned(n * (sizeof(uint64_t) + sizeof(uint16_t))), at, last = g->last;
    if (n > LIM__RING_CANDIDATES) {
        *why = "a native function is shown at most 4096 candidates";
        return false;
    }
    if (msg->payload.len > LIM__NATIVE_MESSAGE_MAX || msg->headers.len > LIM__NATIVE_MESSAGE_MAX / 2) {
        *why = "a native function is given messages of at most 2 MiB, and 1 MiB of headers";
        return false;
    }
    uint32_t need = list + aligned(msg->payload.len) + aligned(msg->headers.len);
    if (!messages_take(g, need, &at)) {
        *why = "4 MiB of messages are with the function already";
        return false;
    }
    if (!show_all(g, q->messages + at, candidates, n)) {
        g->last = last;
        *why = "the candidates' names, tags and types are more than 1 MiB, or there are more than 4096";
        return false;
    }
    lim__ring_call *r = &q->calls[g->tail % LIM__RING_CALLS];
    *r = (lim__ring_call){ .serial = g->tail,
                           .count = n,
                           .list = at,
                           .payload = at + list,
                           .payload_len = (uint32_t)msg->payload.len,
                           .headers = at + list + aligned(msg->payload.len),
                           .headers_len = (uint32_t)msg->headers.len,
                           .seed = lim__rng_next(&g->router->rng),
                           .counter = *g->router->counter };
    if (msg->payload.len > 0)
        memcpy(q->messages + r->payload, msg->payload.ptr, msg->payload.len);
    if (msg->headers.len > 0)
        memcpy(q->messages + r->headers, msg->headers.ptr, msg->headers.len);
    c->count = n;
    c->ids = (const uint64_t *)(const void *)(q->messages + at);
    c->messages_end = g->last;
    return true;
}
