/* SPDX-License-Identifier: Apache-2.0
 * quick.c - the function that measurements use: the first candidate with room; no message. Unless that is one byte, in
 * which case it crashes (x) or goes on for ever (l). */
#include <liminal/native.h>

static volatile int *volatile nowhere;

static uint32_t route(const lim_native_call *call)
{
    if (call->payload.len == 1 && call->payload.ptr[0] == 'x')
        *nowhere = 1;
    for (volatile int forever = 1; call->payload.len == 1 && call->payload.ptr[0] == 'l' && forever;)
        ;
    for (uint32_t i = 0; i < call->candidate_count; i++)
        if (call->candidates[i]->in_flight < call->candidates[i]->max_in_flight)
            return i;
    return LIM_NATIVE_NONE;
}
LIM_NATIVE_ROUTER(route)
