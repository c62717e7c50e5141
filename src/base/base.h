/* SPDX-License-Identifier: Apache-2.0
 * base.h - assertions and small helpers that every folder may use. Knows no threads and no system calls. */
#ifndef LIM__BASE_H
#define LIM__BASE_H

#include <liminal/types.h>
#include <string.h>

/* ---- four strengths of assertion ----
 * LIM_ASSERT  always on, cheap: a bug in liminal; aborts with file, line and expression.
 * LIM_CHECK   debug, simulator and fuzz builds only; may walk whole structures.
 * LIM_NEVER   defended: true is a bug, counted and logged in release, fatal when LIM_DEBUG is defined.
 * static_assert for layouts and relations of constants. */
_Noreturn void lim__panic(const char *file, int line, const char *what);
bool lim__never(const char *file, int line, const char *what); /* always returns true */
uint64_t lim__never_count(void);                               /* how often in this program; any thread */
#define LIM_ASSERT(x) ((x) ? (void)0 : lim__panic(__FILE__, __LINE__, #x))
#ifdef LIM_DEBUG
#define LIM_CHECK(x) LIM_ASSERT(x)
#define LIM_NEVER(x) ((x) ? (lim__panic(__FILE__, __LINE__, "never: " #x), true) : false)
#else
#define LIM_CHECK(x) ((void)0)
#define LIM_NEVER(x) (__builtin_expect(!!(x), 0) ? lim__never(__FILE__, __LINE__, #x) : false)
#endif

#define LIM_LIKELY(x)   __builtin_expect(!!(x), 1)
#define LIM_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define LIM_COUNT(a)    (sizeof(a) / sizeof((a)[0]))
#define LIM_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline lim_bytes lim__bytes(const void *ptr, size_t len)
{
    return (lim_bytes){ ptr, len };
}
static inline lim_bytes lim__str(const char *text)
{
    return (lim_bytes){ text, text ? strlen(text) : 0 };
}
static inline bool lim__bytes_eq(lim_bytes a, lim_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Writes a diag if the caller wants one. */
void lim__diag_set(lim_diag *diag, int line, int column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- mutations: deliberate bugs that the tests must catch (built with -Dmutations=true, chosen by $LIM_MUTATION) ---- */
#ifdef LIM_MUTATIONS
bool lim__mutation(const char *name);
#define LIM__MUTATION(name) lim__mutation(name)
#else
#define LIM__MUTATION(name) false
#endif

#endif
