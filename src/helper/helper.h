/* SPDX-License-Identifier: Apache-2.0
 * helper.h - liminal-helper: the program in whose processes native routing functions run.
 *
 *   main.c     the zygote: executed once per bus, forks a helper whenever it is asked to
 *   cage.c     what a helper may do: limits and system call filters; what happens when it does anything else
 *   load.c     from bytes to a function
 *   serve.c    calls: requests in, replies out (route/native_ring.h)
 *
 * A helper has two filters. While it loads, the dynamic loader's steps are allowed, but no file can be opened: when the
 * loader tries to, the call is trapped, and the handler gives it the descriptor that the bus sent. Then the strict one
 * is put on top, and stays. The function's constructors run under the first, which is why that matters.
 *
 * This program is built without sanitizers, whatever the rest is built with: their shadow memory would not fit into a
 * helper's address space limit, their system calls not through its filter, and its handlers are its own. */
#ifndef LIM__HELPER_H
#define LIM__HELPER_H

#include <liminal/native.h>
#include "base/base.h"
#include "route/native_ring.h"

enum { EVENT_FD = 3, CODE_FD = 4 }; /* a helper's only descriptors; CODE_FD is closed when it has loaded */

typedef struct helper {
    const lim__ring_requests *requests;
    lim__ring_answers *answers;
    const lim__ring_place *place;
    const lim_native_router *router;
    uint32_t rung; /* the last `bell` that was served */
} helper;
extern helper self;

/* ---- cage.c ---- */
/* Compiles the filters and tries them out in a child. False: why not. In the zygote, once. */
bool cage_prepare(char *why, size_t size);
void cage_limits(uint64_t memory_bytes, uint32_t cpu_seconds); /* no more than that; ends the process if refused */
void cage_enter(void); /* handlers, robust list, the filter for loading */
void cage_close(void); /* the strict filter */
/* Last words: the first ones count. Async-signal-safe. */
void cage_note(uint32_t kind, uint32_t number, const char *text);
_Noreturn void cage_end(void);

/* ---- load.c ---- */
void load_function(void); /* into self.router; ends the process with words if that is not possible */

/* ---- serve.c ---- */
void serve_try(void); /* the dry call */
_Noreturn void serve(void);
void serve_wake_bus(void); /* whoever waits for us: async-signal-safe */

#endif
