/* SPDX-License-Identifier: Apache-2.0
 * routing_native.c - what a decision of a native routing function costs, and what a crash or an endless loop does.
 *
 * Eight candidates, the sixth has room. The whole of lim__router_call, or of 64 of them with one hand-over. Pinned to
 * one processor, where the scheduler sleeps while its helper works and a wake is a switch; `unpinned` is where the
 * kernel puts them. Times of crashes are medians, of kills the 99th of 100. */
#include <liminal/liminal.h>
#include "route/native.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WORKERS = 8, BATCH = 64, ROUNDS = 200, BATCHES = 25, SINGLES = 2000, CRASHES = 100, KILLS = 100 };

static lim__candidate workers[WORKERS];
static const lim__candidate *list[WORKERS];
static lim__native *native;
static uint32_t done_count;
static lim__route_result last;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_done(void *ctx, void *call_ctx, const lim__route_result *result)
{
    (void)ctx, (void)call_ctx;
    done_count++;
    last = *result;
}

static void fill_workers(void)
{
    static char names[WORKERS][16];
    for (uint32_t i = 0; i < WORKERS; i++) {
        int n = snprintf(names[i], sizeof names[i], "worker-%u", i);
        workers[i] = (lim__candidate){ .id = i + 1,
                                       .stamp = 1,
                                       .slot = i,
                                       .in_flight = i < 5 ? 4 : 0,
                                       .max_in_flight = 4,
                                       .name = { names[i], (size_t)n } };
        list[i] = &workers[i];
    }
}

static lim__router *open_router(void)
{
    char path[4096];
    void *code;
    size_t len;
    lim__artifact *a;
    lim__router *r;
    lim_diag diag = { 0 };
    if (lim__program_folder(path, sizeof path - 64) != 0)
        abort();
    strcat(path, "/../tests/functions/function-quick.so");
    if (lim__file_read(path, 4 << 20, &code, &len) != 0 ||
        lim__artifact_new(LIM__ENGINE_NATIVE, lim__bytes(code, len), "quick", 0, &a) != LIM_OK)
        abort();
    free(code);
    lim__router_opts opts = { .artifact = a, .seed = 1, .native = native, .on_done = on_done };
    opts.limits.unfinished_max = BATCH;
    if (lim__router_open(&opts, &diag, &r) != LIM_OK) {
        fprintf(stderr, "%s\n", diag.text);
        abort();
    }
    lim__artifact_unref(a);
    return r;
}

static const char json[] = "{\"priority\":7,\"sku\":48213,\"amount\":129.95}";

/* To its end, however long that takes; answers when that was known. */
static uint64_t call(lim__router *r, const char *payload)
{
    lim__route_msg msg = { .payload = lim__str(payload) };
    done_count = 0;
    if (lim__router_call(r, &msg, list, WORKERS, NULL, &last) == LIM__ROUTE_PENDING)
        while (done_count == 0)
            lim__router_resume(r);
    return now_ns();
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double us_at(uint64_t *times, size_t n, size_t percent)
{
    qsort(times, n, sizeof *times, compare);
    return (double)times[(n - 1) * percent / 100] / 1000;
}

static void batches(lim__router *r, const char *name)
{
    double best = 1e9;
    lim__route_msg msg = { .payload = lim__str(json) };
    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t start = now_ns();
        for (int i = 0; i < ROUNDS; i++) {
            done_count = 0;
            lim__router_batch(r, true);
            for (int k = 0; k < BATCH; k++) {
                if (lim__router_call(r, &msg, list, WORKERS, NULL, &last) != LIM__ROUTE_PENDING)
                    abort();
            }
            lim__router_batch(r, false);
            while (done_count < BATCH)
                lim__router_resume(r);
            if (last.how != LIM__ROUTE_DECIDED || last.index != 5)
                abort();
        }
        double ns = (double)(now_ns() - start) / (ROUNDS * BATCH);
        best = ns < best ? ns : best;
    }
    printf("RESULT route.native.batch64%s %.1f ns\n", name, best);
}

static void singles(lim__router *r, const char *name)
{
    static uint64_t times[SINGLES];
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < SINGLES; i++) {
            uint64_t start = now_ns();
            times[i] = call(r, json) - start;
            if (last.how != LIM__ROUTE_DECIDED)
                abort();
        }
        double us = us_at(times, SINGLES, 50);
        best = us < best ? us : best;
    }
    printf("RESULT route.native.single%s.p50 %.2f us\n", name, best);
}

/* Between crashes the spare has time to be ready, as it has between crashes of any function that is any good. */
static void crashes(lim__router *r, const char *name)
{
    static uint64_t known[CRASHES], next[CRASHES];
    for (int i = 0; i < CRASHES; i++) {
        for (uint64_t end = now_ns() + 5000000; now_ns() < end;)
            (void)call(r, json);
        uint64_t start = now_ns(), crashed = call(r, "x");
        if (last.how != LIM__ROUTE_CRASHED)
            abort();
        uint64_t good = call(r, json);
        if (last.how != LIM__ROUTE_DECIDED)
            abort();
        known[i] = crashed - start;
        next[i] = good - start;
    }
    printf("RESULT route.native.crash_known%s.p50 %.1f us\n", name, us_at(known, CRASHES, 50));
    printf("RESULT route.native.next_good%s.p50 %.1f us\n", name, us_at(next, CRASHES, 50));
}

/* The deadline is 20 ms of processor time: `overshoot` is what the call had beyond that. `late` is by the clock, and
 * includes what the helper did not get of a processor that others wanted, too. */
static void kills(lim__router *r, const char *name)
{
    static uint64_t over[KILLS], late[KILLS];
    for (int i = 0; i < KILLS; i++) {
        uint64_t start = now_ns(), took = call(r, "l") - start;
        if (last.how != LIM__ROUTE_TIMED_OUT)
            abort();
        over[i] = last.after_ns > 20000000 ? last.after_ns - 20000000 : 0;
        late[i] = took > 20000000 ? took - 20000000 : 0;
        (void)call(r, json);
    }
    printf("RESULT route.native.kill_overshoot%s.p99 %.1f us\n", name, us_at(over, KILLS, 99));
    printf("RESULT route.native.kill_late%s.p50 %.1f us\n", name, us_at(late, KILLS, 50));
}

/* ---- what others on the scheduler feel of a function that loops for ever, in each of four calls at a time ---- */

static _Atomic bool over;
static _Atomic int looping;

static lim_done on_request(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void on_loop_ended(void *bus, const lim_outcome *outcome)
{
    (void)outcome;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    if (over || lim_ask_async(bus, "loops", lim__str("l"), &opts, on_loop_ended, bus, NULL) != LIM_OK)
        looping--;
}

static void put_up(lim_bus *bus, const char *group)
{
    char path[4096];
    void *code;
    size_t len;
    lim_hash hash;
    lim_participant p;
    lim_serve_opts serve = { .size = sizeof serve, .capacity = LIM_UNLIMITED, .handler = { .on_message = on_request } };
    lim_deploy_opts deploy = { .size = sizeof deploy, .unfinished_max = 4 };
    deploy.breaker_faults = LIM_UNLIMITED;
    if (lim__program_folder(path, sizeof path - 64) != 0)
        abort();
    strcat(path, "/../tests/functions/function-quick.so");
    if (lim__file_read(path, 4 << 20, &code, &len) != 0 || lim_serve(bus, group, &serve, &p) != LIM_OK ||
        lim_artifact_load(bus, LIM_NATIVE, lim__bytes(code, len), "quick", NULL, &hash) != LIM_OK ||
        lim_deploy(bus, group, &hash, &deploy, NULL, NULL) != LIM_OK)
        abort();
    free(code);
}

static void ask_beside(lim_bus *bus, const char *name)
{
    static uint64_t times[SINGLES];
    for (int i = 0; i < SINGLES; i++) {
        lim_outcome o;
        lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
        uint64_t start = now_ns();
        if (lim_ask(bus, "good", lim__str(json), &opts, &o) != LIM_OK || o.how != LIM_HOW_REPLY)
            abort();
        times[i] = now_ns() - start;
        lim_outcome_fini(&o);
    }
    printf("RESULT route.native.ask_%s.p50 %.1f us\n", name, us_at(times, SINGLES, 50));
    printf("RESULT route.native.ask_%s.p99 %.1f us\n", name, us_at(times, SINGLES, 99));
}

static void beside_loops(void)
{
    lim_bus *bus;
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1, .native_engine = true };
    if (lim_bus_open(&opts, &bus) != LIM_OK)
        abort();
    put_up(bus, "good");
    put_up(bus, "loops");
    ask_beside(bus, "alone");
    looping = 4;
    for (int i = 0; i < 4; i++) {
        lim_ask_opts ask = { .size = sizeof ask, .timeout_ms = 60000 };
        if (lim_ask_async(bus, "loops", lim__str("l"), &ask, on_loop_ended, bus, NULL) != LIM_OK)
            abort();
    }
    ask_beside(bus, "beside_loops");
    over = true;
    while (looping > 0)
        sched_yield();
    lim_bus_close(bus);
}

static void opening(const char *name)
{
    uint64_t start = now_ns();
    for (int i = 0; i < 100; i++)
        lim__router_unref(open_router());
    printf("RESULT route.native.open_and_close%s %.1f us\n", name, (double)(now_ns() - start) / 100e3);
}

static void all(const char *name)
{
    lim_diag diag = { 0 };
    if (lim__native_open(&(lim__native_opts){ 0 }, &diag, &native) != LIM_OK) {
        fprintf(stderr, "%s\n", diag.text);
        exit(1);
    }
    lim__router *r = open_router();
    batches(r, name);
    singles(r, name);
    crashes(r, name);
    kills(r, name);
    lim__router_unref(r);
    opening(name);
    lim__native_close(native);
}

int main(void)
{
    cpu_set_t before, one;
    fill_workers();
    sched_getaffinity(0, sizeof before, &before);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    }
    sched_setaffinity(0, sizeof one, &one);
    all("");
    sched_setaffinity(0, sizeof before, &before);
    all(".unpinned");
    beside_loops();
    return 0;
}
