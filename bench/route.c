/* SPDX-License-Identifier: Apache-2.0
 * route.c - what a routing decision costs, and how long a hostile function can keep its scheduler.
 *
 * Eight candidates, the sixth has room, one field of the message is read. `lua_decision` is the whole of
 * lim__router_call: comparing the candidates' stamps, the coroutine, reading the payload, the answer, the counts. Its
 * code shows that it ends before the hook would be called, so it is not set (lua_bound.c); `lua_decision_hooked` is the
 * same with a call in it that is never reached, so that it is. Each number is the best of several batches. */
#include "route/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WORKERS = 8, CALLS = 20000, BATCHES = 25 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static lim__candidate workers[WORKERS];
static const lim__candidate *list[WORKERS];

static void fill_workers(void)
{
    static const uint32_t in_flight[WORKERS] = { 4, 4, 9, 1, 2, 0, 0, 0 }, max[WORKERS] = { 4, 4, 9, 1, 2, 8, 8, 8 };
    static char names[WORKERS][16];
    for (uint32_t i = 0; i < WORKERS; i++) {
        int n = snprintf(names[i], sizeof names[i], "worker-%u", i);
        workers[i] = (lim__candidate){ .id = i + 1,
                                       .stamp = 1,
                                       .slot = i,
                                       .in_flight = in_flight[i],
                                       .max_in_flight = max[i],
                                       .name = { names[i], (size_t)n } };
        list[i] = &workers[i];
    }
}

static lim__router *open_router(lim__engine engine, const char *source)
{
    lim__artifact *a;
    lim__router *r;
    lim_diag diag;
    if (lim__artifact_new(engine, lim__str(source), "bench", 0, &a) != LIM_OK)
        abort();
    lim__router_opts opts = { .artifact = a, .seed = 1 };
    if (lim__router_open(&opts, &diag, &r) != LIM_OK) {
        fprintf(stderr, "%s\n", diag.text);
        abort();
    }
    lim__artifact_unref(a);
    return r;
}

static const char by_room[] = "return function(msg, candidates)\n"
                              "  local prio = msg.priority\n"
                              "  for i = 1, #candidates do\n"
                              "    local c = candidates[i]\n"
                              "    if c.available > 0 and c.buffer_depth <= prio then return c end\n"
                              "  end\n"
                              "end\n";
static const char by_room_hooked[] = "return function(msg, candidates)\n"
                                     "  local prio = msg.priority\n"
                                     "  if not prio then error('no priority') end\n"
                                     "  for i = 1, #candidates do\n"
                                     "    local c = candidates[i]\n"
                                     "    if c.available > 0 and c.buffer_depth <= prio then return c end\n"
                                     "  end\n"
                                     "end\n";
/* word for word what the reference numbers were measured with: two fields of each full candidate instead of one */
static const char by_priority[] = "return function(msg, consumers)\n"
                                  "  local prio = msg.priority\n"
                                  "  for i = 1, #consumers do\n"
                                  "    local c = consumers[i]\n"
                                  "    if c.in_flight < c.max_in_flight and c.buffer_depth <= prio then return c end\n"
                                  "  end\n"
                                  "end\n";
static const char without_message[] = "return function(msg, consumers)\n"
                                      "  for i = 1, #consumers do\n"
                                      "    local c = consumers[i]\n"
                                      "    if c.in_flight < c.max_in_flight and c.buffer_depth <= 7 then return c end\n"
                                      "  end\n"
                                      "end\n";
static const char small_json[] = "{\"priority\":7,\"sku\":48213,\"amount\":129.95}";
static const char large_json[] =
    "{\"id\":\"7f3c2a10-9b1e-4c55-8d27-0a1b2c3d4e5f\",\"type\":\"order.created\",\"priority\":7,"
    "\"customer\":{\"id\":48213,\"tier\":\"gold\",\"region\":\"eu-west\"},\"total\":129.95,"
    "\"items\":[3,17,42],\"note\":\"leave at door\"}";

/* `moves`: one candidate's numbers change before each call, as they do when each decision is carried out. */
static void decisions(const char *name, lim__engine engine, const char *source, const char *json, bool moves)
{
    lim__router *r = open_router(engine, source);
    lim__route_msg msg = { .payload = lim__str(json) };
    lim__route_result result;
    double best = 1e9;
    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t start = now_ns();
        for (uint32_t i = 0; i < CALLS; i++) {
            if (moves) {
                workers[5].in_flight = i & 7;
                workers[5].stamp++;
            }
            if (lim__router_call(r, &msg, list, WORKERS, NULL, &result) != LIM__ROUTE_DECIDED)
                abort();
        }
        double ns = (double)(now_ns() - start) / CALLS;
        best = ns < best ? ns : best;
    }
    printf("RESULT route.%s %.1f ns\n", name, best);
    lim__router_unref(r);
}

/* The longest that one call of the router took, over a function's whole life. */
static void stall(const char *name, const char *source)
{
    uint64_t worst = 0;
    for (int round = 0; round < 5; round++) {
        lim__router *r = open_router(LIM__ENGINE_LUA, source);
        lim__route_msg msg = { .payload = lim__str(small_json) };
        lim__route_result result;
        uint64_t start = now_ns();
        lim__route_how how = lim__router_call(r, &msg, list, WORKERS, NULL, &result);
        uint64_t longest = now_ns() - start;
        while (how == LIM__ROUTE_PENDING) {
            start = now_ns();
            uint32_t left = lim__router_resume(r);
            uint64_t took = now_ns() - start;
            longest = took > longest ? took : longest;
            if (left == 0)
                break;
        }
        worst = round == 0 || longest < worst ? longest : worst;
        lim__router_unref(r);
    }
    printf("RESULT route.stall.%s %.1f us\n", name, (double)worst / 1000);
}

static void opening(void)
{
    uint64_t start = now_ns();
    for (int i = 0; i < 200; i++)
        lim__router_unref(open_router(LIM__ENGINE_LUA, by_priority));
    printf("RESULT route.open_and_close %.1f us\n", (double)(now_ns() - start) / 200e3);
    lim__router *r = open_router(LIM__ENGINE_LUA, by_priority);
    lim__router_stats stats;
    lim__router_stats_get(r, &stats);
    printf("RESULT route.memory %.1f KiB\n", (double)stats.memory_bytes / 1024);
    lim__router_unref(r);
}

int main(void)
{
    fill_workers();
    decisions("lua_decision", LIM__ENGINE_LUA, by_room, small_json, false);
    decisions("lua_decision_hooked", LIM__ENGINE_LUA, by_room_hooked, small_json, false);
    decisions("lua_decision_reference", LIM__ENGINE_LUA, by_priority, small_json, false);
    decisions("lua_decision_reference_without_message", LIM__ENGINE_LUA, without_message, small_json, false);
    decisions("lua_decision_194_bytes", LIM__ENGINE_LUA, by_room, large_json, false);
    decisions("lua_decision_and_update", LIM__ENGINE_LUA, by_room, small_json, true);
    decisions("least_loaded", LIM__ENGINE_BUILTIN, "least_loaded", small_json, false);
    decisions("round_robin", LIM__ENGINE_BUILTIN, "round_robin", small_json, false);
    opening();
    stall("loop", "return function() while true do end end");
    stall("tables", "return function() local t = {} while true do t[#t + 1] = {} end end");
    stall("texts", "return function() local a = 'x' while #a < 30000 do a = a .. a end local b = a .. 'y' a = a .. 'z' "
                   "while true do local x = a < b end end");
    stall("catching",
          "return function() while true do pcall(function() local t = {} while true do t[#t + 1] = {} end end) "
          "end end");
    stall("pairs",
          "return function() local t = {} for i = 1, 1000 do t['k' .. i] = i end while true do pairs(t) end end");
    return 0;
}
