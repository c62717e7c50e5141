/* SPDX-License-Identifier: Apache-2.0
 * routing_bus.c - routing functions in a whole bus: what a decision adds to an ask, what ten thousand swaps do to those
 * who ask meanwhile, and how long healthy calls wait beside functions that do nothing but harm.
 *
 * One scheduler, and asks through a group with two members that reply at once; UNDER_WAY of them at any time. A gap is
 * the time between two outcomes; a swap's pause would be one. What a deployment costs is paid by its group, in its
 * turn, so `gap` beside `gap_without` is the pause that swapping makes. */
#include <liminal/liminal.h>
#include "base/base.h"
#include "os/os.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { UNDER_WAY = 64, ASKS = 100000, SWAPS = 10000, LOOPS = 4, HEALTHY = 1000, GAPS = 1 << 22 };

typedef struct load {
    lim_bus *bus;
    const char *group, *payload;
    _Atomic uint64_t left, under_way, good, bad;
    uint64_t last_ns; /* of an outcome; the scheduler's thread */
    uint64_t *gaps, gap_count;
} load;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double us_at(uint64_t *times, size_t n, double part)
{
    qsort(times, n, sizeof *times, compare);
    return (double)times[(size_t)((double)(n - 1) * part)] / 1000;
}

/* ---- asks, as many as there are to be, so many at a time ---- */

static void on_outcome(void *ctx, const lim_outcome *o);

static void ask_one(load *l)
{
    const lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
    must(lim_ask_async(l->bus, l->group, lim__str(l->payload), &opts, on_outcome, l, NULL) == LIM_OK, "ask");
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    load *l = ctx;
    uint64_t now = l->gaps != NULL ? now_ns() : 0;
    if (l->gaps != NULL && l->last_ns != 0 && l->gap_count < GAPS)
        l->gaps[l->gap_count++] = now - l->last_ns;
    l->last_ns = now;
    atomic_fetch_add(o->how == LIM_HOW_REPLY ? &l->good : &l->bad, 1);
    if (atomic_load(&l->left) > 0) {
        atomic_fetch_sub(&l->left, 1);
        ask_one(l);
    } else {
        atomic_fetch_sub(&l->under_way, 1);
    }
}

static void load_begin(load *l, uint64_t asks, uint64_t at_once)
{
    atomic_store(&l->left, asks);
    atomic_store(&l->under_way, at_once);
    for (uint64_t i = 0; i < at_once; i++)
        ask_one(l);
}

static void load_end(load *l)
{
    while (atomic_load(&l->under_way) > 0)
        sched_yield();
}

/* ---- the bus ---- */

static lim_done on_request(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void put_up(lim_bus *bus, const char *group)
{
    for (int i = 0; i < 2; i++) {
        lim_participant p;
        const lim_serve_opts opts = { .size = sizeof opts,
                                      .capacity = 1 << 20,
                                      .handler = { .on_message = on_request } };
        must(lim_serve(bus, group, &opts, &p) == LIM_OK, "serve");
    }
}

static lim_hash loaded(lim_bus *bus, lim_engine engine, lim_bytes code)
{
    lim_hash hash;
    lim_diag diag = { 0 };
    must(lim_artifact_load(bus, engine, code, "f", &diag, &hash) == LIM_OK, diag.text);
    return hash;
}

static lim_hash lua(lim_bus *bus, const char *code)
{
    return loaded(bus, LIM_LUA, lim__str(code));
}

static lim_hash native(lim_bus *bus)
{
    char path[4096];
    void *code;
    size_t len;
    must(lim__program_folder(path, sizeof path - 64) == 0, "folder");
    strcat(path, "/../tests/functions/function-quick.so");
    must(lim__file_read(path, 4 << 20, &code, &len) == 0, path);
    lim_hash hash = loaded(bus, LIM_NATIVE, lim__bytes(code, len));
    free(code);
    return hash;
}

static void deploy(lim_bus *bus, const char *group, const lim_hash *hash, lim_deploy_opts opts)
{
    lim_diag diag = { 0 };
    opts.size = sizeof opts;
    must(lim_deploy(bus, group, hash, &opts, &diag, NULL) == LIM_OK, diag.text);
}

static double rss_mib(void)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (f != NULL)
        fclose(f);
    return (double)resident * 4096 / (1 << 20);
}

/* ---- what a decision adds to an ask ---- */

static void asks(lim_bus *bus, const char *name, const lim_hash *hash, uint32_t unfinished)
{
    double best = 1e9;
    load l = { .bus = bus, .group = "g", .payload = "{\"priority\":7}" };
    deploy(bus, "g", hash, (lim_deploy_opts){ .unfinished_max = unfinished });
    for (int i = 0; i < 5; i++) {
        uint64_t start = now_ns();
        load_begin(&l, ASKS / 5, UNDER_WAY);
        load_end(&l);
        double ns = (double)(now_ns() - start) / (ASKS / 5);
        best = ns < best ? ns : best;
    }
    must(l.bad == 0, "an ask was refused");
    printf("RESULT route.bus.ask.%s %.0f ns\n", name, best);
}

/* ---- swaps ---- */

static void swaps(lim_bus *bus, const lim_hash *versions, bool swapping)
{
    static uint64_t gaps[GAPS];
    load l = { .bus = bus, .group = "g", .payload = "{\"priority\":7}", .gaps = gaps };
    double before = 0;
    memset(gaps, 1, sizeof gaps); /* so that it is there: memory is measured, too */
    load_begin(&l, UINT64_MAX / 2, 4);
    uint64_t start = now_ns(), took = 0;
    for (uint32_t i = 0; swapping && i < SWAPS; i++) {
        deploy(bus, "g", &versions[i % 3], (lim_deploy_opts){ .unfinished_max = 8 });
        if (i == SWAPS / 2)
            before = rss_mib();
    }
    while (!swapping && now_ns() - start < 1500000000)
        sched_yield();
    took = now_ns() - start;
    atomic_store(&l.left, 0);
    load_end(&l);
    const char *which = swapping ? "" : "_without";
    printf("RESULT route.swaps.ask_gap%s.p50 %.1f us\n", which, us_at(gaps, l.gap_count, 0.5));
    printf("RESULT route.swaps.ask_gap%s.p99_9 %.1f us\n", which, us_at(gaps, l.gap_count, 0.999));
    printf("RESULT route.swaps.ask_gap%s.max %.1f us\n", which, us_at(gaps, l.gap_count, 1));
    if (!swapping)
        return;
    printf("RESULT route.swaps.failed %llu calls\n", (unsigned long long)l.bad);
    printf("RESULT route.swaps.asks_meanwhile %llu calls\n", (unsigned long long)l.good);
    printf("RESULT route.swaps.swap %.1f us\n", (double)took / SWAPS / 1000);
    printf("RESULT route.swaps.memory_growth %.2f MiB\n", rss_mib() - before);
}

/* ---- beside hostile ones ---- */

static const char hostile[] = "local kept = {}\n"
                              "return function(m, c)\n"
                              "  local k = m.k\n"
                              "  if k == 1 then while true do end end\n"
                              "  if k == 2 then local t = {} while true do t[#t + 1] = { t } end end\n"
                              "  if k == 3 then local function f() return 1 + f() end return f() end\n"
                              "  if k == 4 then local s = 'x' while true do s = s .. s end end\n"
                              "  if k == 5 then repeat pcall(error, {}) until false end\n"
                              "  if k == 6 then error({ {} }) end\n"
                              "  while true do for a, b in pairs(m) do kept[a] = b end end\n"
                              "end";

/* What a healthy call on the same scheduler waits, of a function that needs no slice of its own, while LOOPS hostile
 * ones are unfinished at any time. RF9's bound: (LOOPS + 1) slices of 200 us and 2 ms. */
static void contained(lim_bus *bus, uint64_t seconds)
{
    static const char *const payloads[] = { "{\"k\":1}", "{\"k\":2}", "{\"k\":5}", "{\"k\":7}" };
    static uint64_t times[HEALTHY * 64];
    load bad[LOOPS];
    uint64_t n = 0, late = 0, start = now_ns();
    lim_hash good = lua(bus, "return function(m, c) return c[1] end"), h = lua(bus, hostile);
    put_up(bus, "bad");
    deploy(bus, "bad", &h, (lim_deploy_opts){ .unfinished_max = LOOPS, .breaker_faults = LIM_UNLIMITED });
    deploy(bus, "g", &good, (lim_deploy_opts){ .unfinished_max = 4 });
    for (uint32_t i = 0; i < LOOPS; i++) {
        bad[i] = (load){ .bus = bus, .group = "bad", .payload = payloads[i] };
        load_begin(&bad[i], UINT64_MAX / 2, 1);
    }
    while (n < sizeof times / sizeof *times && now_ns() - start < seconds * 1000000000) {
        lim_outcome o;
        const lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 60000 };
        uint64_t at = now_ns();
        must(lim_ask(bus, "g", lim__str("{}"), &opts, &o) == LIM_OK && o.how == LIM_HOW_REPLY, "healthy");
        times[n] = now_ns() - at;
        late += times[n++] > (LOOPS + 1) * 200000 + 2000000;
        lim_outcome_fini(&o);
    }
    uint64_t ended = 0;
    for (uint32_t i = 0; i < LOOPS; i++) {
        atomic_store(&bad[i].left, 0);
        load_end(&bad[i]);
        ended += bad[i].bad;
        must(bad[i].good == 0, "a hostile call was answered");
    }
    printf("RESULT route.contain.healthy.p50 %.1f us\n", us_at(times, n, 0.5));
    printf("RESULT route.contain.healthy.p99_9 %.1f us\n", us_at(times, n, 0.999));
    printf("RESULT route.contain.healthy.max %.1f us\n", us_at(times, n, 1));
    printf("RESULT route.contain.over_the_bound %.4f percent\n", 100.0 * (double)late / (double)n);
    printf("RESULT route.contain.hostile_calls %llu calls\n", (unsigned long long)ended);
}

int main(void)
{
    lim_bus *bus;
    lim_diag diag = { 0 };
    const char *seconds = getenv("CONTAIN_SECONDS");
    const lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1, .native_engine = true, .diag = &diag };
    must(lim_bus_open(&opts, &bus) == LIM_OK, diag.text);
    put_up(bus, "g");
    const lim_hash builtin = loaded(bus, LIM_BUILTIN, lim__str("least_loaded")), quick = native(bus);
    const lim_hash versions[] = { lua(bus, "return function(m, c) return c[1] end"),
                                  lua(bus, "return function(m, c) return c[2] end"),
                                  lua(bus,
                                      "return function(m, c) local n = 0 for i = 1, 20000 do n = n + i end return c[2] "
                                      "end") };
    asks(bus, "least_loaded", &builtin, 64);
    asks(bus, "lua", &versions[0], 64);
    asks(bus, "native", &quick, 64);
    deploy(bus, "g", &versions[2], (lim_deploy_opts){ .unfinished_max = 8 });
    swaps(bus, versions, false);
    swaps(bus, versions, true);
    contained(bus, seconds != NULL ? strtoull(seconds, NULL, 10) : 2);
    lim_bus_close(bus);
    return 0;
}
