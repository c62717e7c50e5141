/* SPDX-License-Identifier: Apache-2.0
 * store.c - the durable store against the disk that it writes to, in the same run.
 *
 * `raw` is the least that a log write can cost: write and fdatasync of as many bytes as the store's log write has, into
 * a file that was full of zeros before, past the page cache. The store adds: numbers, checksums, the index, answers.
 * One thread submits, turns and is answered, so no wake is measured. Replay is compared with reading the same files
 * from one end to the other. Each number is the best of several rounds; rounds of raw and store take turns.
 *
 *   bench-store [RECORDS [DIR [WINDOW]]]   1000000 records for replay and recovery; DIR: on the disk to be measured,
 *                                          /var/tmp; WINDOW: only appends with 1, 100 or 1000 outstanding
 *
 * `killed`: a program has filled the store and died without closing it. */
#include "base/hist.h"
#include "os/os.h"
#include "store/segment.h"
#include "store/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 128, ROUNDS = 7, RAW_BYTES = 64 << 20, WINDOW_MAX = 1000 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void need(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "bench-store: %s\n", what);
        exit(1);
    }
}

static void result(const char *name, double value, const char *unit, const char *class)
{
    printf("RESULT store.%s %.3f %s %s\n", name, value, unit, class);
    fflush(stdout);
}

static void remove_dir(const char *dir)
{
    char command[4200];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    need(system(command) == 0, "the directory cannot be removed");
}

/* ---- the disk alone ---- */

typedef struct raw {
    int file;
    uint8_t *buf;
    uint64_t at;
} raw;

static raw raw_open(const char *dir)
{
    char path[4200];
    lim__os *os = lim__os_linux();
    snprintf(path, sizeof path, "%s/raw", dir);
    raw r = { .buf = lim__aligned(1 << 20) };
    memset(r.buf, 0, 1 << 20);
    r.file = os->file_open(os, path, LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_DIRECT);
    need(r.file >= 0, "the raw file cannot be made");
    for (uint64_t at = 0; at < RAW_BYTES; at += 1 << 20)
        need(os->file_write(os, r.file, r.buf, 1 << 20, at) == 1 << 20, "the raw file cannot be written");
    need(os->file_sync(os, r.file) == 0, "the raw file cannot be synced");
    return r;
}

static void raw_write(raw *r, size_t bytes, lim__hist *hist)
{
    lim__os *os = lim__os_linux();
    if (r->at + bytes > RAW_BYTES)
        r->at = 0;
    uint64_t start = now_ns();
    need(os->file_write(os, r->file, r->buf, bytes, r->at) == (long)bytes, "a raw write failed");
    need(os->file_sync(os, r->file) == 0, "a raw sync failed");
    lim__hist_record(hist, now_ns() - start);
    r->at += bytes;
}

/* ---- the store ---- */

typedef struct bench {
    lim__store *store;
    uint64_t left, waiting; /* to be submitted; not yet answered */
    uint64_t started;       /* of the one that is outstanding */
    lim__hist hist;
    bool one;
} bench;

static lim__store *open_store(const char *dir)
{
    lim__store_error error;
    lim__store *store;
    lim__store_opts opts = { .os = lim__os_linux(), .dir = dir };
    int err = lim__store_open(&opts, &error, &store);
    if (err != 0)
        fprintf(stderr, "bench-store: %s\n", error.text);
    need(err == 0, "the store cannot be opened");
    return store;
}

static void submit_one(bench *b);

static void on_done(void *ctx, lim__batch *batch, const lim__committed *what)
{
    bench *b = ctx;
    need(what->how == LIM__COMMITTED && what->class == LIM__CLASS_DISK, "a batch was not committed");
    lim__batch_free(batch);
    b->waiting--;
    if (b->one)
        lim__hist_record(&b->hist, now_ns() - b->started);
    if (b->left > 0)
        submit_one(b);
}

static void submit_one(bench *b)
{
    static char data[SIZE];
    lim_bytes part = { data, sizeof data };
    lim__batch *batch = lim__batch_new();
    need(batch != NULL, "out of memory");
    lim__batch_append(batch, 1, lim__bytes(NULL, 0), &part, 1);
    b->left--;
    b->waiting++;
    if (b->one)
        b->started = now_ns();
    need(lim__store_submit(b->store, batch, on_done, b) == 0, "a batch was refused");
}

/* Nanoseconds for `count` records with `window` of them outstanding. */
static uint64_t append(bench *b, uint64_t window, uint64_t count)
{
    b->left = count;
    b->one = window == 1;
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < window && b->left > 0; i++)
        submit_one(b);
    while (b->waiting > 0)
        lim__store_turn(b->store, NULL);
    return now_ns() - start;
}

static void idle(bench *b)
{
    while (lim__store_turn(b->store, NULL))
        continue;
}

static void appends(const char *dir, uint64_t window, uint64_t count)
{
    char name[64];
    bench *b = calloc(1, sizeof *b);
    lim__hist raw_hist = { 0 };
    raw r = raw_open(dir);
    char path[4200];
    snprintf(path, sizeof path, "%s/store", dir);
    b->store = open_store(path);
    idle(b); /* segments are prepared between the rounds, as in a server that is idle now and then */
    size_t bytes =
        (size_t)lim__up(2 * LIM__BATCH_HEAD + LIM__OP_HEAD + window * (LIM__OP_HEAD + SIZE), LIM__FILE_BLOCK);
    double best = 1e18, best_raw = 1e18;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t writes = count / window, start = now_ns();
        for (uint64_t i = 0; i < writes; i++)
            raw_write(&r, bytes, &raw_hist);
        double raw_ns = (double)(now_ns() - start) / (double)(writes * window);
        double ns = (double)append(b, window, count) / (double)count;
        best = ns < best ? ns : best;
        best_raw = raw_ns < best_raw ? raw_ns : best_raw;
        idle(b);
    }
    snprintf(name, sizeof name, "append.w%llu", (unsigned long long)window);
    result(name, 1e9 / best, "records/s", "disk");
    snprintf(name, sizeof name, "raw.w%llu", (unsigned long long)window);
    result(name, 1e9 / best_raw, "records/s", "disk");
    snprintf(name, sizeof name, "append_to_raw.w%llu", (unsigned long long)window);
    result(name, best_raw / best, "x", "disk");
    if (window == 1) {
        result("append.w1.p50", (double)lim__hist_percentile(&b->hist, 50) / 1000, "us", "disk");
        result("append.w1.p99", (double)lim__hist_percentile(&b->hist, 99) / 1000, "us", "disk");
        result("raw.w1.p99", (double)lim__hist_percentile(&raw_hist, 99) / 1000, "us", "disk");
        result("raw.w1.p50", (double)lim__hist_percentile(&raw_hist, 50) / 1000, "us", "disk");
        result("append_to_raw.w1.p50",
               (double)lim__hist_percentile(&b->hist, 50) / (double)lim__hist_percentile(&raw_hist, 50), "times",
               "disk");
    }
    lim__store_close(b->store);
    lim__os_linux()->file_close(lim__os_linux(), r.file);
    free(r.buf);
    free(b);
    remove_dir(path);
}

/* ---- replay and recovery ---- */

/* Another program fills the store and is gone. */
static void fill_and_die(const char *dir, uint64_t count)
{
    pid_t child = fork();
    need(child >= 0, "fork failed");
    if (child == 0) {
        bench *b = calloc(1, sizeof *b);
        b->store = open_store(dir);
        append(b, WINDOW_MAX, count);
        idle(b);
        append(b, WINDOW_MAX, count / 100); /* it was busy when it died */
        _exit(0);
    }
    int status;
    need(waitpid(child, &status, 0) == child && status == 0, "filling the store failed");
}

static uint64_t read_files(const char *dir, uint64_t *bytes)
{
    static uint8_t buf[1 << 20];
    DIR *d = opendir(dir);
    uint64_t start = now_ns();
    *bytes = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[4600];
        if (!strstr(e->d_name, ".seg"))
            continue;
        snprintf(path, sizeof path, "%.4200s/%s", dir, e->d_name);
        int file = open(path, O_RDONLY);
        for (ssize_t n; (n = read(file, buf, sizeof buf)) > 0;)
            *bytes += (uint64_t)n;
        close(file);
    }
    closedir(d);
    return now_ns() - start;
}

static bool count_record(void *ctx, const lim__record *r)
{
    (void)r;
    ++*(uint64_t *)ctx;
    return true;
}

static void replay(lim__store *store, const char *dir, uint64_t count)
{
    double best = 1e18, best_raw = 1e18;
    lim__store_info info;
    lim__store_info_get(store, &info);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t bytes, seen = 0, bad, start = now_ns();
        need(lim__store_read(store, 1, 1, 0, count_record, &seen, &bad) == 0 && seen >= count,
             "not all records were read");
        double ns = (double)(now_ns() - start) / (double)seen;
        best = ns < best ? ns : best;
        double raw_ns =
            (double)read_files(dir, &bytes) / (double)bytes; /* for a byte of a file; a part of it is empty */
        raw_ns *= (double)(info.live_bytes) / (double)seen;
        best_raw = raw_ns < best_raw ? raw_ns : best_raw;
    }
    result("replay", 1e9 / best, "records/s", "disk");
    result("raw_read", 1e9 / best_raw, "records/s", "disk");
    result("replay_to_raw", best_raw / best, "x", "disk");
}

static double open_ms(const char *dir, lim__store **out)
{
    uint64_t start = now_ns();
    *out = open_store(dir);
    return (double)(now_ns() - start) / 1e6;
}

static void recovery(const char *dir, uint64_t count)
{
    char path[4200], index[4400];
    lim__store *store;
    snprintf(path, sizeof path, "%s/store", dir);
    snprintf(index, sizeof index, "%s/index", path);
    fill_and_die(path, count);
    result("ready_after_kill", open_ms(path, &store), "ms", "disk");
    replay(store, path, count);
    lim__store_close(store);
    result("ready_after_close", open_ms(path, &store), "ms", "disk");
    lim__store_close(store);
    remove_dir(index);
    result("ready_without_index", open_ms(path, &store), "ms", "disk");
    lim__store_close(store);
    remove_dir(path);
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/liminal-bench-XXXXXX", argc > 2 ? argv[2] : "/var/tmp");
    need(mkdtemp(dir) != NULL, "no directory can be made there");
    uint64_t only = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    if (only == 0)
        recovery(dir, count);
    if (only == 0 || only == 1)
        appends(dir, 1, 2000);
    if (only == 0 || only == 100)
        appends(dir, 100, 100000);
    if (only == 0 || only == 1000)
        appends(dir, 1000, 200000);
    remove_dir(dir);
    return 0;
}
