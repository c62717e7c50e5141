/* SPDX-License-Identifier: Apache-2.0
 * lua.c - any text as a routing function: it is refused, or each of its calls ends, whatever it does.
 *
 * What stands behind the first zero byte, if there is one, is the message. Time is counted in instructions, so a text
 * that hangs is a finding and not the machine's mood. With libFuzzer: ./dev fuzz lua 60. Alone (-DLIM_FUZZ_ALONE): each
 * argument is a file to run, for regressions. */
#include "route/route.h"

#include <stdlib.h>

enum { WORKERS = 3, CALLS = 3 };

static int unfinished;

static void on_done(void *ctx, void *call_ctx, const lim__route_result *result)
{
    (void)ctx, (void)call_ctx;
    LIM_ASSERT(result->how >= LIM__ROUTE_DECIDED && result->how < LIM__ROUTE_PENDING && result->text != NULL);
    unfinished--;
}

static void on_log(void *ctx, const char *line, size_t len)
{
    (void)ctx;
    LIM_ASSERT(len <= LIM__ROUTE_LINE_MAX && (len == 0 || memchr(line, '\n', len) == NULL));
}

static void call(lim__router *r, uint32_t n, lim_bytes payload)
{
    static const lim_bytes tags[] = { { "gpu", 3 } };
    static lim__candidate workers[WORKERS];
    const lim__candidate *list[WORKERS];
    for (uint32_t i = 0; i < n; i++) {
        workers[i] = (lim__candidate){ .id = i + 1,
                                       .stamp = workers[i].stamp + 1,
                                       .slot = i,
                                       .in_flight = n,
                                       .name = { "w", 1 },
                                       .max_in_flight = 4,
                                       .tags = tags,
                                       .tag_count = 1 };
        list[i] = &workers[i];
    }
    lim__route_msg msg = { .payload = payload };
    lim__route_result result;
    unfinished++;
    if (lim__router_call(r, &msg, list, n, NULL, &result) != LIM__ROUTE_PENDING)
        on_done(NULL, NULL, &result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lim__artifact *a = NULL;
    lim__router *r = NULL;
    lim_diag diag;
    lim_bytes payload = lim__str("{\"a\":{\"b\":[1,\"x\",null]},\"c\":7}");
    const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
    if (zero != NULL) {
        payload = (lim_bytes){ zero + 1, size - (size_t)(zero + 1 - data) };
        size = (size_t)(zero - data);
    }
    if (size == 0 || lim__artifact_new(LIM__ENGINE_LUA, (lim_bytes){ data, size }, "fuzz", 0, &a) != LIM_OK)
        return 0;
    lim__router_opts opts = { .artifact = a,
                              .seed = 1,
                              .instruction_ns = 1000,
                              .on_done = on_done,
                              .on_log = on_log,
                              .limits = { .memory_max = 64 << 10, .slice_ns = 3000000 } };
    if (lim__router_open(&opts, &diag, &r) == LIM_OK) {
        for (uint32_t i = 0; i < CALLS; i++)
            call(r, 1 + i % WORKERS, payload);
        lim__router_unref(r);
        while (unfinished > 0)
            (void)lim__router_resume(r); /* the last one frees it */
    }
    lim__artifact_unref(a);
    return 0;
}

#include "alone.h"
