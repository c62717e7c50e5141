/* SPDX-License-Identifier: Apache-2.0
 * native.h - what a native routing function includes, and all it needs: nothing of liminal is linked to it.
 *
 *      #include <liminal/native.h>
 *
 *      static uint32_t route(const lim_native_call *call)
 *      {
 *          for (uint32_t i = 0; i < call->candidate_count; i++)
 *              if (call->candidates[i]->in_flight < call->candidates[i]->max_in_flight)
 *                  return i;
 *          return LIM_NATIVE_NONE;
 *      }
 *      LIM_NATIVE_ROUTER(route)
 *
 *      cc -shared -fPIC -O2 -o route.so route.c && liminal deploy GROUP route.so
 *
 * The function never runs in the bus's process. It runs in a helper process of its own that can compute, allocate within
 * its limit, and answer; any other system call ends the helper, as do a fault, an exit, and too much time or memory.
 * Then that call ends crashed or timed_out, and the next one is answered by a fresh helper: what the function keeps in
 * variables is lost with its process, and each scheduler has helpers of its own. Only libc, libm, libstdc++ and libgcc
 * are there to be linked to. Before it is deployed it is called once with the message {} and one candidate.
 *
 * One helper makes one call at a time. Pointers in a call are valid until the function returns. */
#ifndef LIMINAL_NATIVE_H
#define LIMINAL_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIM_NATIVE_ABI  2          /* changes when something below does */
#define LIM_NATIVE_NONE UINT32_MAX /* the answer: nobody shall have it */

typedef struct lim_native_bytes { /* not ended by a NUL */
    const char *ptr;
    size_t len;
} lim_native_bytes;

typedef struct lim_native_candidate {
    uint64_t id; /* never used again for another */
    uint32_t in_flight, max_in_flight, buffer_depth, latency_us;
    lim_native_bytes name, node;
    const lim_native_bytes *tags, *types;
    uint32_t tag_count, type_count;
} lim_native_candidate;

struct lim_native_host;
typedef struct lim_native_call {
    lim_native_bytes payload;
    const lim_native_candidate *const *candidates;
    uint32_t candidate_count; /* at least 1 */
    uint32_t reserved;
    const struct lim_native_host *host; /* for the functions below */
} lim_native_call;

/* What the helper does for a function; the functions below are how to ask. */
typedef struct lim_native_host {
    bool (*header)(const lim_native_call *call, lim_native_bytes key, lim_native_bytes *out);
    bool (*field_text)(const lim_native_call *call, const char *path, lim_native_bytes *out);
    bool (*field_i64)(const lim_native_call *call, const char *path, int64_t *out);
    bool (*field_f64)(const lim_native_call *call, const char *path, double *out);
    bool (*field_bool)(const lim_native_call *call, const char *path, bool *out);
    uint64_t (*counter)(const lim_native_call *call);
    uint64_t (*random)(const lim_native_call *call);
} lim_native_host;

/* A field of the payload read as JSON, by path: "priority", "user.id", "items[2].sku". False: it is not there, or is of
 * another kind; *out is not written then. The payload is parsed by the first of these calls. */
static inline bool lim_native_text(const lim_native_call *call, const char *path, lim_native_bytes *out)
{
    return call->host->field_text(call, path, out);
}
static inline bool lim_native_i64(const lim_native_call *call, const char *path, int64_t *out)
{
    return call->host->field_i64(call, path, out);
}
static inline bool lim_native_f64(const lim_native_call *call, const char *path, double *out)
{
    return call->host->field_f64(call, path, out);
}
static inline bool lim_native_bool(const lim_native_call *call, const char *path, bool *out)
{
    return call->host->field_bool(call, path, out);
}
/* A header of the message; of several with that name the last. */
static inline bool lim_native_header(const lim_native_call *call, const char *name, lim_native_bytes *out)
{
    lim_native_bytes key = { name, strlen(name) };
    return call->host->header(call, key, out);
}
/* The slot's counter: each call of this answers one more than the one before. It goes on over versions. */
static inline uint64_t lim_native_counter(const lim_native_call *call)
{
    return call->host->counter(call);
}
/* 64 bits by chance, from a seed that the bus gives with each call: whoever replays the call gets the same ones. */
static inline uint64_t lim_native_random(const lim_native_call *call)
{
    return call->host->random(call);
}
static inline bool lim_native_equal(lim_native_bytes a, const char *text)
{
    return a.len == strlen(text) && (a.len == 0 || memcmp(a.ptr, text, a.len) == 0);
}

/* ---- the one symbol that a routing function exports ---- */
typedef struct lim_native_router {
    uint32_t abi; /* LIM_NATIVE_ABI */
    uint32_t size; /* sizeof(lim_native_router) */
    uint32_t (*route)(const lim_native_call *call); /* an index into candidates, or LIM_NATIVE_NONE */
} lim_native_router;

#define LIM_NATIVE_SYMBOL "lim_native_router_v"
#ifdef __cplusplus
#define LIM_NATIVE_EXTERN extern "C"
#else
#define LIM_NATIVE_EXTERN extern
#endif
#define LIM_NATIVE_ROUTER(function)                                                                                    \
    LIM_NATIVE_EXTERN __attribute__((visibility("default"))) const lim_native_router lim_native_router_v;              \
    const lim_native_router lim_native_router_v = { LIM_NATIVE_ABI, sizeof(lim_native_router), function };

#ifdef __cplusplus
}
#endif
#endif
