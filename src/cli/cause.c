/* SPDX-License-Identifier: Apache-2.0
 * cause.c - where a request comes from, handed to the command that answers it, in its environment, so that what that
 * command asks is a child of the request: as deep as it is plus one, in its trace, and with no more time than it has.
 * That is what ends a loop of commands that ask each other.
 *
 *      request --serve--> CMD's environment --ask, dispatch--> request, one deeper
 *
 * Time is passed as a moment of the machine's own clock, so none is won between the two. */
#include "cli/cli.h"
#include "base/base.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)

void cli_cause_env(const lim_delivery *d, cli_cause_words *w)
{
    lim_cause c;
    lim_cause_of(d, &c);
    snprintf(w->conversation, sizeof w->conversation, "LIMINAL_CONVERSATION=" CLI_ID_FORMAT,
             (unsigned long long)c.conv.id);
    snprintf(w->hops, sizeof w->hops, "LIMINAL_HOPS=%" PRIu32, c.hops);
    bool timed = c.remaining_ms > 0 && c.remaining_ms != LIM_FOREVER;
    snprintf(w->until, sizeof w->until, "LIMINAL_UNTIL_MS=%" PRIu64,
             timed ? cli_now_ns() / MS + (uint64_t)c.remaining_ms : 0);
    snprintf(w->traceparent, sizeof w->traceparent, "TRACEPARENT=%s", c.traceparent);
}

static uint64_t number(const char *name, int base)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, base) : 0;
}

lim_cause cli_cause(bool timed)
{
    uint64_t hops = number("LIMINAL_HOPS", 10), until = number("LIMINAL_UNTIL_MS", 10), now = cli_now_ns() / MS;
    lim_cause c = { .conv = { number("LIMINAL_CONVERSATION", 16) },
                    .hops = hops > LIM_HOPS_MAX ? LIM_HOPS_MAX : (uint32_t)hops };
    const char *trace = getenv("TRACEPARENT");
    if (timed && until > 0) /* what is over has a moment left, and so a proper end */
        c.remaining_ms = until > now ? (int64_t)(until - now) : 1;
    if (trace && strlen(trace) == sizeof c.traceparent - 1)
        memcpy(c.traceparent, trace, sizeof c.traceparent);
    return c;
}
