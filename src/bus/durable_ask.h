/* SPDX-License-Identifier: Apache-2.0
 * durable_ask.h - asking a $sys group of a durable_world; for tests. One ask at a time: its answer is `answer`. */
#ifndef LIM__DURABLE_ASK_H
#define LIM__DURABLE_ASK_H

#include "bus/durable_world.h"

#include <stdio.h>

static char answer[1 << 16];
static bool answered;

static inline void on_answer(void *ctx, const lim_outcome *o)
{
    (void)ctx;
    lim_bytes text = o->how == LIM_HOW_REPLY ? o->payload : o->detail;
    snprintf(answer, sizeof answer, "%.*s", (int)text.len, text.len > 0 ? (const char *)text.ptr : "");
    answered = true;
}

static inline bool is_answered(void *ctx)
{
    (void)ctx;
    return answered;
}

static inline void durable_ask_begin(durable_world *w, const char *group, const char *json)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .wait = true };
    answered = false;
    assert_int_equal(lim_ask_async(w->bus, group, lim__str(json), &opts, on_answer, NULL, NULL), LIM_OK);
}

#endif
