/* SPDX-License-Identifier: Apache-2.0
 * types.h - the few types that every public header of liminal shares.
 *
 * Three kinds of thing, told apart by their C type, in all of liminal's headers:
 *
 *   VALUE   struct { uint64_t id }   something that can end by itself (a process, a channel). Ids are never reused:
 *                                    a dead one answers LIM_E_GONE, it never crashes.
 *   OBJECT  lim_x *                  memory you own or share. Ends with _close or _unref; NULL is a no-op.
 *   VIEW    lim_bytes, const T *     borrowed: valid until the call, or the handler that was given it, returns.
 *
 * The letter after each function is its contract:
 *   A  any thread, also inside a handler        B  blocks: refused (LIM_E_MISUSE) inside a handler
 *   P  only inside the handler of a process, with its `self`
 *
 * Out-parameters come last and are written only when LIM_OK is returned (a lim_diag: only when it is not). Options
 * are structs whose first field is `size` (= sizeof the struct, so that it may grow). Zero in a limit or an enum
 * means "forgotten" and is refused with LIM_E_MISUSE unless its comment names a default; no limit is LIM_UNLIMITED. */
#ifndef LIMINAL_TYPES_H
#define LIMINAL_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIM_VERSION "0.1.0"

#define LIM_API      __attribute__((visibility("default"), warn_unused_result))
#define LIM_API_VOID __attribute__((visibility("default")))

#define LIM_UNLIMITED UINT32_MAX /* for every 32-bit limit */
#define LIM_FOREVER   INT64_MAX  /* for every timeout */
#define LIM_TIMEOUT_MS_MAX INT64_C(4294967294) /* the longest timeout beside it, 49 days 17 hours; more is MISUSE */

/* A bug aborts. An operating fault is a lim_err: the call had no effect. What became of a request after it was handed
 * over is never a lim_err: it is a lim_outcome. */
#define LIM_ERR_MAP(X)                                                                                                 \
    X(NOMEM, "memory budget exhausted")                                                                                \
    X(GONE, "no longer exists")                                                                                        \
    X(FULL, "mailbox or backlog is full")                                                                              \
    X(MISUSE, "call not allowed here, or an option was forgotten")                                                     \
    X(INVALID, "malformed argument")                                                                                   \
    X(EXISTS, "already exists")                                                                                        \
    X(NOTFOUND, "not found")                                                                                           \
    X(TOOBIG, "over the size limit")                                                                                   \
    X(TIMEOUT, "timed out")                                                                                            \
    X(CLOSED, "closed")                                                                                                \
    X(CODE, "routing code refused")                                                                                    \
    X(SCHEMA, "payload breaks the schema")                                                                             \
    X(IO, "storage or network fault")                                                                                  \
    X(UNREACHABLE, "server not reachable")                                                                             \
    X(PROTOCOL, "peer broke the protocol")                                                                             \
    X(DENIED, "not permitted")
typedef enum lim_err {
    LIM_OK = 0,
#define X(name, text) LIM_E_##name,
    LIM_ERR_MAP(X)
#undef X
} lim_err;

typedef struct lim_bytes { /* VIEW */
    const void *ptr;
    size_t len;
} lim_bytes;

typedef struct lim_diag { /* for people, optional everywhere: pass NULL if you do not want it */
    int line, column;     /* 0 when there is no place to point at */
    char text[240];
} lim_diag;

/* The version of the library that is running, "0.1.0"; static storage. */
LIM_API const char *lim_version(void); /* A */
/* One line of English for an error; never NULL, static storage. */
LIM_API const char *lim_err_text(lim_err err); /* A */
/* The name without prefix, "GONE"; never NULL, static storage. */
LIM_API const char *lim_err_name(lim_err err); /* A */

#ifdef __cplusplus
}
#endif
#endif
