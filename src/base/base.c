/* SPDX-License-Identifier: Apache-2.0
 * base.c - what happens when an assertion fails, and the words for errors.
 *
 * A panic writes one line to standard error with nothing but its own stack and aborts: the core dump and the line are
 * all anybody gets, so neither depends on memory that may be broken. A `never` that did happen is counted and, the
 * first few times, written: a release build survives it, and the count is a metric that should read 0. */
#include "base/base.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { NEVER_LINES_MAX = 16 }; /* a bug in a hot path must not fill the disk with its own report */

static _Atomic uint64_t never_count;

void lim__panic(const char *file, int line, const char *what)
{
    fflush(stdout);
    fprintf(stderr, "liminal: panic at %s:%d: %s\n", file, line, what);
    abort();
}

bool lim__never(const char *file, int line, const char *what)
{
    uint64_t before = atomic_fetch_add_explicit(&never_count, 1, memory_order_relaxed);
    if (before < NEVER_LINES_MAX)
        fprintf(stderr, "liminal: never at %s:%d: %s\n", file, line, what);
    return true;
}

uint64_t lim__never_count(void)
{
    return atomic_load_explicit(&never_count, memory_order_relaxed);
}

void lim__diag_set(lim_diag *diag, int line, int column, const char *format, ...)
{
    if (!diag)
        return;
    diag->line = line;
    diag->column = column;
    va_list args;
    va_start(args, format);
    vsnprintf(diag->text, sizeof diag->text, format, args);
    va_end(args);
}

const char *lim_err_text(lim_err err)
{
    switch (err) {
    case LIM_OK:
        return "ok";
#define X(name, text)                                                                                                  \
    case LIM_E_##name:                                                                                                 \
        return text;
        LIM_ERR_MAP(X)
#undef X
    }
    return "unknown error";
}

const char *lim_err_name(lim_err err)
{
    switch (err) {
    case LIM_OK:
        return "OK";
#define X(name, text)                                                                                                  \
    case LIM_E_##name:                                                                                                 \
        return #name;
        LIM_ERR_MAP(X)
#undef X
    }
    return "UNKNOWN";
}

#ifdef LIM_MUTATIONS
bool lim__mutation(const char *name)
{
    static const char *chosen;
    static _Atomic int asked;
    if (!atomic_load(&asked)) {
        chosen = getenv("LIM_MUTATION");
        atomic_store(&asked, 1);
    }
    return chosen && strcmp(chosen, name) == 0;
}
#endif
