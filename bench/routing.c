/* SPDX-License-Identifier: Apache-2.0
 * routing.c - what a routing decision costs, and how long a hostile function can keep its scheduler.
 *
 *      bench-routing | bench-routing --peer redis PORT        ($SERVER_PID: the redis-server's)
 *
 * Eight candidates, the sixth has room, one field of the message is read. `lua_decision` is the whole of
 * lim__router_call: comparing the candidates' stamps, the coroutine, reading the payload, the answer, the counts. Its
 * code shows that it ends before the hook would be called, so it is not set (lua_bound.c); `lua_decision_hooked` is the
 * same with a call in it that is never reached, so that it is. Each number is the best of several batches.
 *
 * The peer's number beside it is what a server that runs Lua for its clients spends on the same function: processor
 * time of an FCALL less that of a GET, both pipelined. Its workers are a table of the library, so that nothing is built
 * for a call, and the message's field comes as an argument, so that nothing is parsed. */
#include "peer.h"
#include "route/predicate.h"
#include "route/route.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 8, CALLS = 2000, BATCHES = 400, KILLS = 100 };

/* Of this thread: what others take of the processor is not the decision's, as it is not the peer's either. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
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
        uint64_t start = cpu_ns();
        for (uint32_t i = 0; i < CALLS; i++) {
            if (moves) {
                workers[5].in_flight = i & 7;
                workers[5].stamp++;
            }
            if (lim__router_call(r, &msg, list, WORKERS, NULL, &result) != LIM__ROUTE_DECIDED)
                abort();
        }
        double ns = (double)(cpu_ns() - start) / CALLS;
        best = ns < best ? ns : best;
    }
    printf("RESULT route.%s %.1f ns\n", name, best);
    lim__router_unref(r);
}

/* The most processor time that one call of the router took, over a function's whole life. */
static void stall(const char *name, const char *source)
{
    uint64_t worst = 0;
    for (int round = 0; round < 5; round++) {
        lim__router *r = open_router(LIM__ENGINE_LUA, source);
        lim__route_msg msg = { .payload = lim__str(small_json) };
        lim__route_result result;
        uint64_t start = cpu_ns();
        lim__route_how how = lim__router_call(r, &msg, list, WORKERS, NULL, &result);
        uint64_t longest = cpu_ns() - start;
        while (how == LIM__ROUTE_PENDING) {
            start = cpu_ns();
            uint32_t left = lim__router_resume(r);
            uint64_t took = cpu_ns() - start;
            longest = took > longest ? took : longest;
            if (left == 0)
                break;
        }
        worst = round == 0 || longest < worst ? longest : worst;
        lim__router_unref(r);
    }
    printf("RESULT route.stall.%s %.1f us\n", name, (double)worst / 1000);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* How long after its limit of 20 ms an endless loop is gone, in processor time, as the limit is. */
static void kills(void)
{
    static uint64_t over_ns[KILLS];
    lim__router *r = open_router(LIM__ENGINE_LUA, "return function() while true do end end");
    lim__route_msg msg = { .payload = lim__str(small_json) };
    lim__route_result result;
    for (int i = 0; i < KILLS; i++) {
        uint64_t start = cpu_ns();
        if (lim__router_call(r, &msg, list, WORKERS, NULL, &result) != LIM__ROUTE_PENDING)
            abort();
        while (lim__router_resume(r) > 0)
            continue;
        uint64_t took = cpu_ns() - start;
        over_ns[i] = took > 20000000 ? took - 20000000 : 0;
    }
    qsort(over_ns, KILLS, sizeof over_ns[0], by_value);
    printf("RESULT route.kill_overshoot.p50 %.1f us\n", (double)over_ns[KILLS / 2] / 1000);
    printf("RESULT route.kill_overshoot.p99 %.1f us\n", (double)over_ns[KILLS * 99 / 100 - 1] / 1000);
    lim__router_unref(r);
}

static void opening(void)
{
    uint64_t start = bench_now_ns();
    for (int i = 0; i < 200; i++)
        lim__router_unref(open_router(LIM__ENGINE_LUA, by_priority));
    printf("RESULT route.open_and_close %.1f us\n", (double)(bench_now_ns() - start) / 200e3);
    lim__router *r = open_router(LIM__ENGINE_LUA, by_priority);
    lim__router_stats stats;
    lim__router_stats_get(r, &stats);
    printf("RESULT route.memory %.1f KiB\n", (double)stats.memory_bytes / 1024);
    lim__router_unref(r);
}

/* Reading the message included. */
static void predicate(const char *name, const char *text, const char *payload)
{
    const lim_bytes json = lim__str(payload);
    lim__pred_reader reader = { 0 };
    lim__pred *p = NULL;
    double best = 1e9;
    uint32_t yes = 0;
    if (lim__pred_new(lim__str(text), NULL, &p) != LIM_OK)
        abort();
    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t start = cpu_ns();
        for (int i = 0; i < CALLS; i++) {
            lim__pred_reader_begin(&reader, json, lim__bytes(NULL, 0));
            yes += lim__pred_match(p, &reader);
        }
        double ns = (double)(cpu_ns() - start) / CALLS;
        best = ns < best ? ns : best;
    }
    if (yes != CALLS * BATCHES)
        abort();
    printf("RESULT route.predicate.%s %.1f ns\n", name, best);
    lim__pred_free(p);
    lim__pred_reader_fini(&reader);
}

static void predicates(void)
{
    static const char four[] = "priority >= 7 and sku in [1, 2, 48213] and (amount > 200 or amount < 130.0)";
    predicate("size", "$size > 0", small_json);
    predicate("one_field", "priority == 7", small_json);
    predicate("four_tests", four, small_json);
    predicate("nested_194_bytes", "not (customer.tier == \"none\") and priority == 7", large_json);
}

/* ---- the peer ---- */

enum { PIPE = 100, PEER_CALLS = 20000, PEER_BATCHES = 25 };

static const char library[] = "#!lua name=bench\n"
                              "local candidates = {}\n"
                              "local room = { 0, 0, 0, 0, 0, 8, 8, 8 }\n"
                              "for i = 1, 8 do candidates[i] = { available = room[i], buffer_depth = 0 } end\n"
                              "redis.register_function('route', function(keys, args)\n"
                              "  local prio = tonumber(args[1])\n"
                              "  for i = 1, #candidates do\n"
                              "    local c = candidates[i]\n"
                              "    if c.available > 0 and c.buffer_depth <= prio then return i end\n"
                              "  end\n"
                              "end)\n";

static int dial(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        bench_die("cannot connect to port %u", port);
    return fd;
}

/* Sends what it is given, and reads an answer of that many bytes, which has to be `count` times `expected`. */
static void exchange(int fd, const char *request, size_t len, const char *expected, size_t count)
{
    char answer[PIPE * 16];
    size_t each = strlen(expected), have = 0;
    if (write(fd, request, len) != (ssize_t)len)
        bench_die("cannot write to the peer");
    while (have < each * count) {
        ssize_t n = read(fd, answer + have, each * count - have);
        if (n <= 0)
            bench_die("the peer left");
        have += (size_t)n;
    }
    for (size_t i = 0; i < count; i++) {
        if (memcmp(answer + i * each, expected, each) != 0)
            bench_die("the peer answered %.*s", (int)have, answer);
    }
}

static double peer_batch(int fd, const char *command, const char *expected)
{
    char request[PIPE * 64];
    size_t len = strlen(command);
    for (size_t i = 0; i < PIPE; i++)
        memcpy(request + i * len, command, len);
    uint64_t start = bench_server_cpu_ns();
    for (int i = 0; i < PEER_CALLS / PIPE; i++)
        exchange(fd, request, PIPE * len, expected, PIPE);
    return (double)(bench_server_cpu_ns() - start) / PEER_CALLS;
}

static void peer(uint16_t port)
{
    int fd = dial(port);
    char load[1024];
    double get = 1e9, fcall = 1e9;
    int n = snprintf(load, sizeof load, "*4\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n$7\r\nREPLACE\r\n$%zu\r\n%s\r\n",
                     strlen(library), library);
    exchange(fd, load, (size_t)n, "$5\r\nbench\r\n", 1);
    exchange(fd, "SET k 7\r\n", 9, "+OK\r\n", 1);
    for (int batch = 0; batch < PEER_BATCHES; batch++) {
        double ns = peer_batch(fd, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "$1\r\n7\r\n");
        get = ns < get ? ns : get;
        ns = peer_batch(fd, "*4\r\n$5\r\nFCALL\r\n$5\r\nroute\r\n$1\r\n0\r\n$1\r\n7\r\n", ":6\r\n");
        fcall = ns < fcall ? ns : fcall;
    }
    close(fd);
    printf("RESULT route.lua_decision %.1f ns\n", fcall - get);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--peer") == 0 && strcmp(argv[2], "redis") == 0) {
        peer((uint16_t)atoi(argv[3]));
        return 0;
    }
    fill_workers();
    decisions("lua_decision", LIM__ENGINE_LUA, by_room, small_json, false);
    decisions("lua_decision_hooked", LIM__ENGINE_LUA, by_room_hooked, small_json, false);
    decisions("lua_decision_reference", LIM__ENGINE_LUA, by_priority, small_json, false);
    decisions("lua_decision_reference_without_message", LIM__ENGINE_LUA, without_message, small_json, false);
    decisions("lua_decision_194_bytes", LIM__ENGINE_LUA, by_room, large_json, false);
    decisions("lua_decision_and_update", LIM__ENGINE_LUA, by_room, small_json, true);
    decisions("least_loaded", LIM__ENGINE_BUILTIN, "least_loaded", small_json, false);
    decisions("round_robin", LIM__ENGINE_BUILTIN, "round_robin", small_json, false);
    predicates();
    opening();
    kills();
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
