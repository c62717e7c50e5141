/* SPDX-License-Identifier: Apache-2.0
 * serve.c - calls: a request becomes a view that the function can read, its answer a reply.
 *
 * Candidates are kept over calls: a record is copied when its `seq` has changed, so most calls copy nothing. What
 * stands in `strings` and `messages` is read in place: it cannot be written to here, and the bus leaves it alone until
 * the call is done (a candidate that leaves meanwhile may give its place to another: its words then change under the
 * function, within bounds, and the bus does not care what index is chosen for somebody who has left). */
#include "helper/helper.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/rng.h"
#include "data/data.h"

typedef struct view {
    lim_native_candidate shown;
    lim_native_bytes *words; /* tags, then types */
    uint32_t seen, shape;
} view;

static view views[LIM__RING_CANDIDATES];
static const lim_native_candidate *list[LIM__RING_CANDIDATES];
static lim__doc *doc;
static enum { UNREAD = 1, GOOD, BAD } parsed;
static lim_bytes headers;
static uint64_t counter, chance;

/* ---- what a function may ask ---- */

static lim__val field(const lim_native_call *call, const char *path)
{
    if (parsed == UNREAD) {
        if (doc == NULL)
            doc = lim__doc_new();
        bool good =
            doc != NULL && lim__doc_parse(doc, lim__bytes(call->payload.ptr, call->payload.len), NULL) == LIM_OK;
        parsed = good ? GOOD : BAD;
    }
    return parsed == GOOD ? lim__val_path(lim__doc_root(doc), path) : (lim__val){ .kind = LIM__ABSENT };
}

static bool host_text(const lim_native_call *call, const char *path, lim_native_bytes *out)
{
    lim__val v = field(call, path);
    if (v.kind == LIM__TEXT)
        *out = (lim_native_bytes){ v.text.ptr, v.text.len };
    return v.kind == LIM__TEXT;
}

static bool host_i64(const lim_native_call *call, const char *path, int64_t *out)
{
    return lim__val_as_i64(field(call, path), out);
}

static bool host_f64(const lim_native_call *call, const char *path, double *out)
{
    return lim__val_as_f64(field(call, path), out);
}

static bool host_bool(const lim_native_call *call, const char *path, bool *out)
{
    lim__val v = field(call, path);
    if (v.kind == LIM__BOOL)
        *out = v.truth;
    return v.kind == LIM__BOOL;
}

static bool host_header(const lim_native_call *call, lim_native_bytes key, lim_native_bytes *out)
{
    lim_bytes text;
    (void)call;
    if (!lim__packed_get(headers, lim__bytes(key.ptr, key.len), &text))
        return false;
    *out = (lim_native_bytes){ text.ptr, text.len };
    return true;
}

static uint64_t host_counter(const lim_native_call *call)
{
    (void)call;
    return ++counter;
}

static uint64_t host_random(const lim_native_call *call)
{
    (void)call;
    return lim__splitmix64(&chance);
}

static const lim_native_host host = {
    host_header, host_text, host_i64, host_f64, host_bool, host_counter, host_random
};

/* ---- candidates ---- */

static bool take_words(view *v, const lim__ring_record *r)
{
    size_t n = (size_t)r->tag_count + r->type_count;
    lim_native_bytes *words = realloc(v->words, (n + 1) * sizeof *words);
    if (words == NULL)
        return false;
    v->words = words;
    const char *at = (const char *)self.requests->strings + r->strings, *end = at + r->strings_len;
    v->shown.name = (lim_native_bytes){ at, r->name_len };
    at += r->name_len;
    v->shown.node = (lim_native_bytes){ at, r->node_len };
    at += r->node_len;
    for (size_t i = 0; i < n; i++) {
        uint16_t len = 0;
        if (at + sizeof len <= end)
            memcpy(&len, at, sizeof len);
        at += sizeof len;
        words[i] = at + len <= end ? (lim_native_bytes){ at, len } : (lim_native_bytes){ "", 0 };
        at += len;
    }
    v->shown.tags = words;
    v->shown.types = words + r->tag_count;
    v->shown.tag_count = r->tag_count;
    v->shown.type_count = r->type_count;
    return true;
}

/* As the record is between two changes. */
static void refresh(view *v, const lim__ring_record *r)
{
    for (;;) {
        uint32_t seq = atomic_load_explicit(&r->seq, memory_order_acquire);
        lim__ring_record copy;
        memcpy(&copy, r, sizeof copy);
        atomic_thread_fence(memory_order_acquire);
        if ((seq & 1) != 0 || atomic_load_explicit(&r->seq, memory_order_relaxed) != seq)
            continue;
        v->shown.id = copy.id;
        v->shown.in_flight = copy.in_flight;
        v->shown.max_in_flight = copy.max_in_flight;
        v->shown.buffer_depth = copy.buffer_depth;
        v->shown.latency_us = copy.latency_us;
        if (v->shape != copy.shape && !take_words(v, &copy)) {
            cage_note(LIM__RING_SAYS, 0, "no memory was left to show it the candidates");
            cage_end();
        }
        v->shape = copy.shape;
        v->seen = seq;
        return;
    }
}

/* Most calls have the candidates of the one before, and nothing has changed about them. */
static void show(const uint16_t *slots, uint32_t count)
{
    static uint16_t shown[LIM__RING_CANDIDATES];
    static uint32_t shown_count, changes;
    const lim__ring_requests *q = self.requests;
    uint32_t now = atomic_load_explicit(&q->changes, memory_order_acquire);
    if (now == changes && count == shown_count && memcmp(shown, slots, count * sizeof *slots) == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const lim__ring_record *r = &q->records[slots[i]];
        view *v = &views[slots[i]];
        if (v->seen != atomic_load_explicit(&r->seq, memory_order_acquire))
            refresh(v, r);
        list[i] = &v->shown;
        shown[i] = slots[i];
    }
    shown_count = count;
    changes = now;
}

/* ---- calls ---- */

static void one_call(uint32_t serial)
{
    const lim__ring_requests *q = self.requests;
    const lim__ring_call *c = &q->calls[serial % LIM__RING_CALLS];
    const uint64_t *ids = (const uint64_t *)(const void *)(q->messages + c->list);
    const uint16_t *slots = (const uint16_t *)(const void *)(ids + c->count);
    show(slots, c->count);
    headers = lim__bytes(q->messages + c->headers, c->headers_len);
    parsed = UNREAD;
    chance = c->seed;
    if (counter < c->counter)
        counter = c->counter;
    lim_native_call call = { .payload = { (const char *)q->messages + c->payload, c->payload_len },
                             .candidates = list,
                             .candidate_count = c->count,
                             .host = &host };
    uint32_t index = self.router->route(&call);
    lim__ring_reply *reply = &self.answers->replies[serial % LIM__RING_CALLS];
    *reply = (lim__ring_reply){
        .serial = serial, .index = index, .id = index < c->count ? ids[index] : 0, .counter = counter
    };
}

void serve_try(void)
{
    static const char payload[] = "{}";
    static const lim_native_bytes nothing = { "", 0 };
    static const lim_native_candidate somebody = {
        .id = 1, .max_in_flight = 1, .name = { "candidate", 9 }, .tags = &nothing, .types = &nothing
    };
    list[0] = &somebody;
    parsed = UNREAD;
    lim_native_call call = {
        .payload = { payload, sizeof payload - 1 }, .candidates = list, .candidate_count = 1, .host = &host
    };
    uint32_t index = self.router->route(&call);
    if (index != LIM_NATIVE_NONE && index != 0) {
        cage_note(LIM__RING_SAYS, 0, "of one candidate it chose another: an index, or LIM_NATIVE_NONE, is expected");
        cage_end();
    }
    counter = 0;
}

/* ---- waking the bus ---- */

void serve_wake_bus(void)
{
    lim__ring_answers *a = self.answers;
    atomic_thread_fence(
        memory_order_seq_cst); /* with the bus's, between WAITERS or bell and its look at what we wrote */
    if ((atomic_load_explicit(&a->word, memory_order_relaxed) & LIM__RING_WAITERS) != 0) {
        atomic_fetch_and(&a->word, ~LIM__RING_WAITERS);
        syscall(SYS_futex, &a->word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    }
    uint32_t bell = atomic_load_explicit(&self.requests->bell, memory_order_relaxed);
    if (bell != self.rung) {
        uint64_t one = 1;
        self.rung = bell;
        syscall(SYS_write, EVENT_FD, &one, sizeof one);
    }
}

/* Between two calls of a row a `want` that is being written may be missed: then the next one sees it. After the last it
 * may not. */
static void served(uint32_t done, bool last)
{
    atomic_store_explicit(&self.answers->done, done, memory_order_release);
    if (last)
        atomic_thread_fence(memory_order_seq_cst); /* pairs with the bus's, after it wrote `want` */
    uint32_t want = atomic_load_explicit(&self.requests->want, memory_order_relaxed);
    if ((int32_t)(done - want) >= 0)
        serve_wake_bus();
}

/* Until there are more than `done`. */
static void sleep_for(uint32_t done, bool active)
{
    lim__ring_answers *a = self.answers;
    lim__ring_place *place = (lim__ring_place *)(uintptr_t)self.place; /* the kernel only reads it */
    atomic_store_explicit(&a->asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the bus's, after it wrote `upto` */
    uint32_t upto = atomic_load_explicit(&place->upto, memory_order_acquire);
    bool work = active ? upto != done : atomic_load_explicit(&place->active, memory_order_acquire) != 0;
    if (!work)
        syscall(SYS_futex, &place->upto, FUTEX_WAIT, upto, NULL, NULL, 0);
    atomic_store_explicit(&a->asleep, 0, memory_order_relaxed);
}

_Noreturn void serve(void)
{
    uint32_t done = 0;
    bool active = false;
    for (;;) {
        if (!active && atomic_load_explicit(&self.place->active, memory_order_acquire) != 0) {
            done = self.place->from;
            active = true;
        }
        uint32_t upto = atomic_load_explicit(&self.place->upto, memory_order_acquire);
        if (!active || upto == done)
            sleep_for(done, active);
        while (active && done != upto) {
            atomic_store_explicit(&self.answers->started, done + 1, memory_order_relaxed);
            one_call(done);
            done++;
            served(done, done == upto);
        }
    }
}
