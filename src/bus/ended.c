/* SPDX-License-Identifier: Apache-2.0
 * ended.c - what is remembered of conversations that have ended: rings per scheduler, the oldest forgotten first, by
 * their number and by the bytes of their results.
 *
 * Tasks keep their outcome letter, so that a result can be asked for by its id a while after it came, and so do asks
 * that got no reply, in a ring of their own. Each ring has a leaf mutex: written by its scheduler, read by anybody.
 *
 * Everybody leaves a line: half a cache line in a ring that is only ever written by its scheduler, without a lock,
 * because it is part of what an ask costs. A reader may meet a line that is being written:
 *
 *      writer   id = 0, then the words, then id          each store releases what was stored before
 *      reader   id, then the words, then id again        each load but the last acquires
 *
 * A reader that saw a word of a later line sees the 0 before it, or a later id, in its second look: then what it read
 * is no line. Ids are never used again, so the same id twice means one line. */
#include "bus/ended.h"
#include "base/base.h"
#include "bus/conv.h"
#include <stdatomic.h>
#include <stdlib.h>

enum { RING = 4096 };
#define RING_BYTES (64u << 20) /* of results, each scheduler's */

typedef struct summary {
    lim_pid conv;
    uint64_t accepted_lease;
    lim__outcome_letter *outcome; /* malloc'd copy with its own reference to the payload; tasks only */
    uint32_t outcome_bytes;
    uint8_t phase, kind;
} summary;

typedef struct ring {
    lim__mutex mutex;
    uint64_t next, bytes, kept; /* kept: the newest so many, and so many bytes of results, are remembered */
    summary *items;             /* RING of them, made with the first task that ends */
} ring;

typedef struct line {
    _Atomic uint64_t conv, ended_ns, elapsed_ns;
    _Atomic uint64_t rest; /* reason 32 | why 8 | how 8 | phase 8 | kind 8 */
} line;

typedef struct page { /* written by its scheduler only */
    uint64_t next;
    _Atomic(line *) lines; /* LIM__ENDED_MAX of them, made for the first */
} page;

struct lim__ended {
    ring rings[2 * 64]; /* per scheduler: tasks, and asks that got no reply */
    page pages[64];
};

lim__ended *lim__ended_new(void)
{
    lim__ended *e = calloc(1, sizeof *e);
    for (size_t i = 0; e != NULL && i < LIM_COUNT(e->rings); i++)
        e->rings[i].mutex = (lim__mutex)LIM__MUTEX_INIT;
    return e;
}

static size_t weight(const summary *s)
{
    return s->outcome == NULL            ? 0
           : s->outcome->payload == NULL ? s->outcome_bytes
                                         : s->outcome_bytes + lim__msg_bytes(s->outcome->payload).len;
}

static void forget(summary *s)
{
    if (s->outcome != NULL) {
        lim__msg_unref(s->outcome->payload);
        free(s->outcome);
    }
    *s = (summary){ 0 };
}

void lim__ended_free(lim__ended *e)
{
    for (size_t i = 0; e != NULL && i < LIM_COUNT(e->rings); i++) {
        for (size_t k = 0; e->rings[i].items != NULL && k < RING; k++)
            forget(&e->rings[i].items[k]);
        free(e->rings[i].items);
    }
    for (size_t i = 0; e != NULL && i < LIM_COUNT(e->pages); i++)
        free(atomic_load(&e->pages[i].lines));
    free(e);
}

/* ---- lines ---- */

static line *lines_of(page *p)
{
    line *lines = atomic_load_explicit(&p->lines, memory_order_relaxed);
    if (lines != NULL)
        return lines;
    lines = calloc(LIM__ENDED_MAX, sizeof *lines);
    atomic_store_explicit(&p->lines, lines, memory_order_release); /* pairs with the acquire in lim__ended_summary_of */
    return lines;
}

void lim__ended_note(lim_bus *bus, lim__sched *s, const lim__ended_summary *e)
{
    page *p = &bus->ended->pages[lim__sched_index(s)];
    line *lines = lines_of(p);
    if (lines == NULL)
        return;
    line *l = &lines[p->next++ % LIM__ENDED_MAX];
    uint64_t rest = (uint64_t)(uint32_t)e->reason << 32 | (uint64_t)(uint8_t)e->why << 24 |
                    (uint64_t)(uint8_t)e->how << 16 | (uint64_t)(uint8_t)e->phase << 8 | (uint8_t)e->kind;
    atomic_store_explicit(&l->conv, 0, memory_order_relaxed);
    atomic_store_explicit(&l->ended_ns, e->ended_ns, memory_order_release);
    atomic_store_explicit(&l->elapsed_ns, e->elapsed_ns, memory_order_release);
    atomic_store_explicit(&l->rest, rest, memory_order_release);
    atomic_store_explicit(&l->conv, e->conv.id, memory_order_release);
}

static bool read_line(line *l, lim_pid conv, lim__ended_summary *out)
{
    if (atomic_load_explicit(&l->conv, memory_order_acquire) != conv.id)
        return false;
    uint64_t ended_ns = atomic_load_explicit(&l->ended_ns, memory_order_acquire);
    uint64_t elapsed_ns = atomic_load_explicit(&l->elapsed_ns, memory_order_acquire);
    uint64_t rest = atomic_load_explicit(&l->rest, memory_order_acquire);
    *out = (lim__ended_summary){ .conv = conv,
                                 .kind = (lim__conv_kind)(rest & 255),
                                 .phase = (lim_phase)(rest >> 8 & 255),
                                 .how = (lim_how)(rest >> 16 & 255),
                                 .why = (lim_why)(rest >> 24 & 255),
                                 .reason = (lim_reason)(rest >> 32),
                                 .ended_ns = ended_ns,
                                 .elapsed_ns = elapsed_ns };
    return atomic_load_explicit(&l->conv, memory_order_relaxed) == conv.id;
}

bool lim__ended_summary_of(lim_bus *bus, lim_pid conv, lim__ended_summary *out)
{
    line *lines = atomic_load_explicit(&bus->ended->pages[lim__pid_scheduler(conv)].lines, memory_order_acquire);
    for (uint32_t i = 0; lines != NULL && conv.id != 0 && i < LIM__ENDED_MAX; i++)
        if (read_line(&lines[i], conv, out))
            return true;
    return false;
}

bool lim__ended_json(lim_bus *bus, lim_pid conv, lim__json *j, const char *key)
{
    lim__ended_summary e;
    if (!lim__ended_summary_of(bus, conv, &e))
        return false;
    uint64_t now_ns = bus->os->now_ns(bus->os), ago_ns = now_ns > e.ended_ns ? now_ns - e.ended_ns : 0;
    lim__json_open(j, key, '{');
    lim__json_id(j, "id", conv.id);
    lim__json_str(j, "kind", lim__conv_kind_text(e.kind));
    lim__json_str(j, "phase", lim_phase_text(e.phase));
    lim__json_str(j, "outcome", lim_how_text(e.how));
    lim__json_str(j, "why", lim_why_text(e.why));
    lim__json_str(j, "reason", e.reason != LIM_REASON_NONE ? lim_reason_text(e.reason) : "");
    lim__json_u64(j, "elapsed_us", e.elapsed_ns / 1000);
    lim__json_u64(j, "ended_us", (bus->os->wall_ns(bus->os) - ago_ns) / 1000);
    lim__json_close(j);
    return true;
}

/* ---- outcomes ---- */

void lim__ended_add(lim_bus *bus, lim__sched *s, lim__conv_kind kind, lim_phase phase, uint64_t accepted_lease,
                    const lim__outcome_letter *outcome, size_t bytes)
{
    lim__ended_note(bus, s,
                    &(lim__ended_summary){ .conv = outcome->conv,
                                           .kind = kind,
                                           .phase = phase,
                                           .how = outcome->how,
                                           .why = outcome->why,
                                           .reason = outcome->reason,
                                           .ended_ns = lim__sched_now_ns(s),
                                           .elapsed_ns = outcome->elapsed_ns });
    if (kind == LIM__KIND_ASK && outcome->how == LIM_HOW_REPLY) /* what went well is known to whoever asked */
        return;
    ring *r = &bus->ended->rings[lim__sched_index(s) + (kind == LIM__KIND_TASK ? 0 : 64)];
    lim__outcome_letter *copy = malloc(bytes);
    if (copy == NULL)
        return;
    memcpy(copy, outcome, bytes);
    lim__msg_ref(copy->payload);
    pthread_mutex_lock(&r->mutex);
    if (r->items == NULL)
        r->items = calloc(RING, sizeof *r->items);
    if (r->items != NULL) {
        summary one = { outcome->conv, accepted_lease, copy, (uint32_t)bytes, (uint8_t)phase, (uint8_t)kind };
        r->bytes += weight(&one);
        while (r->kept > 0 && (r->kept == RING || r->bytes > RING_BYTES)) {
            summary *oldest = &r->items[(r->next - r->kept--) % RING];
            r->bytes -= weight(oldest);
            forget(oldest);
        }
        r->items[r->next++ % RING] = one;
        r->kept++;
        copy = NULL;
    }
    pthread_mutex_unlock(&r->mutex);
    if (copy != NULL) {
        lim__msg_unref(copy->payload);
        free(copy);
    }
}

static summary *find_locked(ring *r, lim_pid conv)
{
    for (uint64_t n = 0; r->items != NULL && n < r->kept; n++) { /* the newest first */
        summary *at = &r->items[(r->next - 1 - n) % RING];
        if (at->conv.id == conv.id)
            return at;
    }
    return NULL;
}

/* Locks the ring that knows the conversation; NULL: none does, and nothing is locked. */
static summary *find(lim_bus *bus, lim_pid conv, ring **where)
{
    for (uint32_t i = 0; i < 2; i++) {
        *where = &bus->ended->rings[lim__pid_scheduler(conv) + i * 64];
        pthread_mutex_lock(&(*where)->mutex);
        summary *at = find_locked(*where, conv);
        if (at != NULL)
            return at;
        pthread_mutex_unlock(&(*where)->mutex);
    }
    return NULL;
}

bool lim__ended_find(lim_bus *bus, lim_pid conv, lim__ended_info *out)
{
    ring *r;
    const summary *at = find(bus, conv, &r);
    if (at == NULL)
        return lim__kept_find(bus, conv, out);
    *out = (lim__ended_info){ (lim_phase)at->phase, (lim__conv_kind)at->kind, at->accepted_lease };
    pthread_mutex_unlock(&r->mutex);
    return true;
}

lim__outcome_letter *lim__ended_outcome(lim_bus *bus, lim__sched *s, lim_pid conv, uint64_t ref)
{
    ring *r;
    const summary *at = find(bus, conv, &r);
    if (at == NULL)
        return lim__kept_outcome(bus, s, conv, ref);
    lim__outcome_letter *copy = lim__letter_new(s, &lim__type_outcome, at->outcome_bytes);
    if (copy != NULL) {
        memcpy(copy, at->outcome, at->outcome_bytes);
        copy->ref = ref;
        lim__msg_ref(copy->payload);
    }
    pthread_mutex_unlock(&r->mutex);
    return copy;
}
