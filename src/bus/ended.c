/* SPDX-License-Identifier: Apache-2.0
 * ended.c - what is remembered of conversations that have ended: a ring per scheduler, the oldest forgotten first,
 * by their number and by the bytes of their results.
 *
 * Tasks keep their outcome letter, so that a result can be asked for by its id a while after it came, and so do asks
 * that got no reply, in a ring of their own. Each ring has a leaf mutex: written by its scheduler, read by anybody. */
#include "base/base.h"
#include "bus/bus.h"
#include "bus/letters.h"
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

struct lim__ended {
    ring rings[2 * 64]; /* per scheduler: tasks, and asks that got no reply */
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
    free(e);
}

void lim__ended_add(lim_bus *bus, lim__sched *s, lim__conv_kind kind, lim_phase phase, uint64_t accepted_lease,
                    const lim__outcome_letter *outcome, size_t bytes)
{
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
        return false;
    *out = (lim__ended_info){ (lim_phase)at->phase, (lim__conv_kind)at->kind, at->accepted_lease };
    pthread_mutex_unlock(&r->mutex);
    return true;
}

lim__outcome_letter *lim__ended_outcome(lim_bus *bus, lim__sched *s, lim_pid conv, uint64_t ref)
{
    ring *r;
    const summary *at = find(bus, conv, &r);
    if (at == NULL)
        return NULL;
    lim__outcome_letter *copy = lim__letter_new(s, &lim__type_outcome, at->outcome_bytes);
    if (copy != NULL) {
        memcpy(copy, at->outcome, at->outcome_bytes);
        copy->ref = ref;
        lim__msg_ref(copy->payload);
    }
    pthread_mutex_unlock(&r->mutex);
    return copy;
}
