/* SPDX-License-Identifier: Apache-2.0
 * native.h - native routing functions: shared objects that run in helper processes, never here.
 *
 * A bus that has the engine turned on opens one lim__native and hands it to its routers (lim__router_opts.native). It
 * holds the zygote, the process that helpers are forked from, and on each scheduler a small process, the keeper, that
 * hears of answers, deaths and time for the routers there. Any thread may use it; a router belongs to its scheduler. */
#ifndef LIM__ROUTE_NATIVE_H
#define LIM__ROUTE_NATIVE_H

#include "actor/actor.h"
#include "route/route.h"

typedef struct lim__native lim__native; /* OBJECT, one owner; closed after all its routers */

/* In place of helper processes, where there are none (the simulator): answers at once, in the bus's process. */
typedef lim__route_how lim__native_script(void *ctx, const lim__artifact *code, const lim__route_msg *msg,
                                          const lim__candidate *const *candidates, uint32_t n, uint32_t *index,
                                          const char **text);

typedef struct lim__native_opts {
    lim_runtime *rt;    /* NULL: routers without a scheduler only */
    const char *helper; /* the program; NULL: found, see below */
    lim__native_script *script;
    void *script_ctx;
} lim__native_opts;
/* Starts the zygote and waits until it has tried out the filters: B. `helper` NULL: liminal-helper beside the running
 * program, or where it was installed. NOTFOUND, IO, DENIED (this machine cannot hold helpers back): diag says why. */
lim_err lim__native_open(const lim__native_opts *opts, lim_diag *diag, lim__native **out);
void lim__native_close(lim__native *n); /* ends all helpers; NULL is a no-op */

int lim__native_zygote(lim__native *n); /* its process id, for tests; any thread */

enum { LIM__NATIVE_CODE_MAX = 16 << 20, LIM__NATIVE_MESSAGE_MAX = 2 << 20 };

#endif
