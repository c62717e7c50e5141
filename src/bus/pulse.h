/* SPDX-License-Identifier: Apache-2.0
 * pulse.h - when a connection was heard last, for whoever lists its participants.
 *
 * A session beats once per read, which is a store on a line of its own; groups, which may live on other schedulers, look.
 * Counted: it lasts as long as the session or any registration that came over it. */
#ifndef LIM__PULSE_H
#define LIM__PULSE_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct lim__pulse { /* any thread */
    _Atomic uint64_t heard_ns; /* monotonic; only the session writes it. Relaxed: it is a number for people */
    _Atomic uint32_t refs;
} lim__pulse;

static inline lim__pulse *lim__pulse_new(uint64_t now_ns) /* one reference; NULL: no memory */
{
    lim__pulse *p = malloc(sizeof *p);
    if (p != NULL) {
        atomic_init(&p->heard_ns, now_ns);
        atomic_init(&p->refs, 1);
    }
    return p;
}

static inline lim__pulse *lim__pulse_ref(lim__pulse *p) /* NULL stays NULL */
{
    if (p != NULL)
        atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

static inline void lim__pulse_unref(lim__pulse *p) /* NULL is a no-op */
{
    if (p != NULL && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        free(p);
}

static inline void lim__pulse_beat(lim__pulse *p, uint64_t now_ns)
{
    atomic_store_explicit(&p->heard_ns, now_ns, memory_order_relaxed);
}

static inline uint64_t lim__pulse_heard_ns(const lim__pulse *p)
{
    return atomic_load_explicit(&p->heard_ns, memory_order_relaxed);
}

#endif
