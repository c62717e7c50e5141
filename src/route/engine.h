/* SPDX-License-Identifier: Apache-2.0
 * engine.h - what the engines behind route.h share: the router itself and the table each engine fills in. */
#ifndef LIM__ROUTE_ENGINE_H
#define LIM__ROUTE_ENGINE_H

#include "base/rng.h"
#include "route/route.h"

typedef struct lim__engine_ops {
    /* Compiles and checks; on success r->state is set. On failure it leaves nothing behind. */
    lim_err (*open)(lim__router *r, lim_diag *diag);
    /* n > 0. Whatever it answers except PENDING is in *result. */
    lim__route_how (*call)(lim__router *r, const lim__route_msg *msg, const lim__candidate *const *candidates,
                           uint32_t n, void *call_ctx, lim__route_result *result);
    uint32_t (*resume)(lim__router *r);  /* one slice; answers how many are left */
    uint32_t (*abandon)(lim__router *r); /* answers how many were dropped */
    uint32_t (*pending)(const lim__router *r);
    uint32_t (*runnable)(const lim__router *r); /* NULL: all that are pending */
    void (*batch)(lim__router *r, bool on);     /* NULL, and the next two: calls are made at once */
    uint32_t (*batch_room)(const lim__router *r);
    void (*batch_wait)(lim__router *r);
    bool (*busy)(lim__router *r); /* NULL: never */
    uint64_t (*memory)(const lim__router *r);
    void (*close)(lim__router *r);
} lim__engine_ops;

extern const lim__engine_ops lim__engine_lua;
extern const lim__engine_ops lim__engine_native; /* native.c */
extern const lim__engine_ops lim__engine_host;   /* host.c */
extern const lim__engine_ops lim__engine_isolated; /* isolated.c */
const lim__engine_ops *lim__engine_builtin(lim_bytes name, lim_diag *diag); /* NULL: there is no such strategy */

struct lim__router {
    uint32_t refs; /* the owners' and one per unfinished call; one scheduler, so not atomic */
    const lim__engine_ops *ops;
    void *state;
    lim__artifact *artifact;
    lim__os *os;
    lim__route_limits limits; /* none is 0 */
    lim__rng rng;
    uint64_t *counter, own_counter;
    uint32_t instruction_ns;
    void (*on_done)(void *ctx, void *call_ctx, const lim__route_result *result);
    void (*on_log)(void *ctx, const char *line, size_t len);
    void (*on_ready)(void *ctx);
    void *ctx;
    struct lim__native *native;
    bool sets;
    uint32_t *set, set_cap;  /* scratch: lim__router_set_* */
    bool only_checked; /* it is closed because that was all it was opened for */
    lim__host host;
    uint64_t log_since_ns; /* when the second began in which log_bytes were printed */
    uint32_t log_bytes;
    lim__router_stats stats;
    char name[48]; /* printable, shorter than what Lua would cut */
    char hash_text[LIM__HASH_TEXT];
    char text[512]; /* what results point at */
};

/* A candidate as a program's function sees it; it borrows the texts. */
void lim__host_view(const lim__candidate *c, struct lim_candidate *out);
/* A set is marked, one by one, and then written to a result: NONE if nobody is in it. False: no memory. */
bool lim__router_set_begin(lim__router *r, uint32_t n);
void lim__router_set_mark(lim__router *r, uint32_t index);
lim__route_how lim__router_set_end(lim__router *r, uint32_t n, lim__route_result *out); /* id is the caller's to write */
/* Counts a result that goes to the owner. */
void lim__router_count(lim__router *r, const lim__route_result *result);
/* A line that a function printed: to the owner, or dropped and counted. */
void lim__router_log(lim__router *r, const char *line, size_t len);

#endif
