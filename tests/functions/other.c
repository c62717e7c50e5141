/* SPDX-License-Identifier: Apache-2.0
 * other.c - native functions that cannot be deployed; FUNCTION says why. */
#include <liminal/native.h>

static uint32_t route(const lim_native_call *call)
{
#if FUNCTION == 3
    static volatile int *volatile nowhere;
    *nowhere = 1;
#endif
    return call->candidate_count + 3;
}

#if FUNCTION == 1
LIM_NATIVE_EXTERN __attribute__((visibility("default"))) const lim_native_router lim_native_router_v;
const lim_native_router lim_native_router_v = { LIM_NATIVE_ABI + 1, sizeof(lim_native_router), route };
#elif FUNCTION == 2
__attribute__((visibility("default"))) uint32_t (*const not_the_symbol)(const lim_native_call *) = route;
#else
LIM_NATIVE_ROUTER(route)
#endif
