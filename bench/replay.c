/* SPDX-License-Identifier: Apache-2.0
 * replay.c - reading a durable channel: how fast all of it comes, what a live message takes through a reader and
 * without, and what a replay costs those who are live.
 *
 *   bench-replay [DIR] [COUNT]     a bus in this program with its data in DIR (/var/tmp); COUNT messages of 128 bytes
 * (500000)
 *
 * `raw` reads the same files from the first byte to the last with 1 MiB at a time, in turns with the replays. Minima
 * and maxima of rounds are what a noisy machine shows of itself: the best of five counts. */
#include <liminal/liminal.h>
#include "base/base.h"
#include "base/hist.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 128, ROUNDS = 5, LIVE = 2000, PAUSE_US = 500 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void need(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "bench-replay: %s\n", what);
        exit(1);
    }
}

static void result(const char *name, double value, const char *unit)
{
    printf("RESULT replay.%s %.3f %s\n", name, value, unit);
    fflush(stdout);
}

/* ---- what is waited for ---- */

typedef struct count {
    pthread_mutex_t lock;
    pthread_cond_t more;
    uint64_t seen, sum_ns, sent_ns;
    lim__hist *hist;
} count;

static count count_new(lim__hist *hist)
{
    return (count){ .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .hist = hist };
}

static void bump(count *c)
{
    pthread_mutex_lock(&c->lock);
    c->seen++;
    pthread_cond_signal(&c->more);
    pthread_mutex_unlock(&c->lock);
}

static void await(count *c, uint64_t seen)
{
    pthread_mutex_lock(&c->lock);
    while (c->seen < seen)
        pthread_cond_wait(&c->more, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static lim_done on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d;
    bump(ctx);
    return LIM_DONE;
}

static lim_done on_timed(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    count *c = ctx;
    uint64_t sent;
    (void)bus;
    memcpy(&sent, d->payload.ptr, sizeof sent);
    lim__hist_record(c->hist, now_ns() - sent);
    bump(c);
    return LIM_DONE;
}

static void on_receipt(void *ctx, const lim_receipt *r)
{
    need(r->admission.verdict == LIM_ACCEPT, "a message was not stored");
    bump(ctx);
}

/* ---- the log ---- */

static lim_bus *bus_open(const char *dir)
{
    lim_diag diag = { 0 };
    lim_bus *bus;
    const lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1, .data_dir = dir, .diag = &diag };
    if (lim_bus_open(&opts, &bus) != LIM_OK)
        need(false, diag.text);
    return bus;
}

static lim_channel channel(lim_bus *bus, const char *name, lim_sync sync)
{
    lim_channel ch;
    const lim_channel_opts opts = { .size = sizeof opts, .durable = true, .sync = sync };
    need(lim_channel_open(bus, name, &opts, &ch) == LIM_OK, "the channel cannot be made");
    lim_receipt r;
    char text[SIZE] = "";
    need(lim_publish_wait(bus, ch, lim__bytes(text, SIZE), NULL, &r) == LIM_OK, "nothing is stored");
    return ch;
}

static void fill(lim_bus *bus, uint64_t messages)
{
    lim_channel ch = channel(bus, "log", LIM_SYNC_INTERVAL);
    count c = count_new(NULL);
    const lim_publish_opts opts = { .size = sizeof opts, .on_receipt = on_receipt, .ctx = &c };
    char text[SIZE] = "";
    lim_admission a;
    for (uint64_t i = 1; i < messages; i++) {
        need(lim_publish(bus, ch, lim__bytes(text, SIZE), &opts, &a) == LIM_OK, "a publish failed");
        if (i % 4096 == 0)
            await(&c, i - 2048);
    }
    await(&c, messages - 1);
}

static double replay(lim_bus *bus, uint64_t messages)
{
    count c = count_new(NULL);
    lim_sub sub;
    const lim_sub_opts opts = { .size = sizeof opts,
                                .window = 4096,
                                .handler = { .on_message = on_message, .ctx = &c },
                                .read = { .from = LIM_FROM_ALL } };
    uint64_t begin = now_ns();
    need(lim_subscribe(bus, "log", &opts, &sub) == LIM_OK, "the log cannot be read");
    await(&c, messages);
    double per_second = (double)messages * 1e9 / (double)(now_ns() - begin);
    need(lim_unsubscribe(bus, sub) == LIM_OK, "it has ended");
    usleep(20000); /* its last call is over */
    return per_second;
}

/* Bytes a second of the data directory's files, and how many there are. */
static double raw(const char *dir, uint64_t *bytes)
{
    DIR *d = opendir(dir);
    char *block = malloc(1 << 20), path[4400];
    uint64_t begin = now_ns();
    need(d != NULL && block != NULL, "the directory cannot be read");
    *bytes = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strstr(e->d_name, ".seg") == NULL)
            continue;
        snprintf(path, sizeof path, "%.4000s/%s", dir, e->d_name);
        int fd = open(path, O_RDONLY);
        ssize_t n;
        while (fd >= 0 && (n = read(fd, block, 1 << 20)) > 0)
            *bytes += (uint64_t)n;
        close(fd);
    }
    closedir(d);
    free(block);
    return (double)*bytes * 1e9 / (double)(now_ns() - begin);
}

/* ---- live ---- */

typedef struct replaying { /* until `stop` */
    lim_bus *bus;
    uint64_t messages;
    _Atomic bool stop;
} replaying;

static void *replay_on(void *arg)
{
    replaying *r = arg;
    while (!r->stop)
        (void)replay(r->bus, r->messages);
    return NULL;
}

static void live(lim_bus *bus, lim_policy policy, lim__hist *hist)
{
    lim_channel ch = channel(bus, "live", LIM_SYNC_ALWAYS);
    count c = count_new(hist);
    lim_sub sub;
    const lim_sub_opts opts = { .size = sizeof opts,
                                .policy = policy,
                                .handler = { .on_message = on_timed, .ctx = &c } };
    need(lim_subscribe(bus, "live", &opts, &sub) == LIM_OK, "nobody is live");
    for (uint64_t i = 1; i <= LIVE; i++) {
        char text[SIZE] = "";
        lim_admission a;
        uint64_t now = now_ns();
        memcpy(text, &now, sizeof now);
        need(lim_publish(bus, ch, lim__bytes(text, SIZE), NULL, &a) == LIM_OK, "a publish failed");
        await(&c, i);
        usleep(PAUSE_US);
    }
    need(lim_unsubscribe(bus, sub) == LIM_OK, "it has ended");
    usleep(20000);
}

static uint64_t best(lim_bus *bus, lim_policy policy, double percentile, uint64_t *p50)
{
    uint64_t least = UINT64_MAX;
    *p50 = UINT64_MAX;
    for (int i = 0; i < ROUNDS; i++) {
        static lim__hist hist;
        lim__hist_reset(&hist);
        live(bus, policy, &hist);
        uint64_t at = lim__hist_percentile(&hist, percentile), half = lim__hist_percentile(&hist, 50);
        least = at < least ? at : least;
        *p50 = half < *p50 ? half : *p50;
    }
    return least;
}

static void measure_live(lim_bus *bus, uint64_t messages)
{
    uint64_t half, quiet, busy;
    quiet = best(bus, LIM_DROP_OLDEST, 99, &half);
    result("live.plain.p50", (double)half / 1000, "us");
    result("live.plain.p99", (double)quiet / 1000, "us");
    quiet = best(bus, 0, 99, &half);
    result("live.reader.p50", (double)half / 1000, "us");
    result("live.reader.p99", (double)quiet / 1000, "us");
    replaying r = { .bus = bus, .messages = messages };
    pthread_t thread;
    need(pthread_create(&thread, NULL, replay_on, &r) == 0, "no thread");
    busy = best(bus, 0, 99, &half);
    r.stop = true;
    pthread_join(thread, NULL);
    result("live.during_replay.p50", (double)half / 1000, "us");
    result("live.during_replay.p99", (double)busy / 1000, "us");
    result("live.during_replay.p99_ratio", (double)busy / (double)quiet, "x");
}

int main(int argc, char **argv)
{
    char dir[4096], command[4200];
    uint64_t messages = argc > 2 ? strtoull(argv[2], NULL, 10) : 500000, bytes = 0;
    snprintf(dir, sizeof dir, "%s/bench-replay-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    need(mkdtemp(dir) != NULL, "no directory");
    lim_bus *bus = bus_open(dir);
    fill(bus, messages);
    lim_bus_close(bus);
    bus = bus_open(dir); /* nothing of the log is in the bus's memory */
    double fastest = 0, disk = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double now = replay(bus, messages), read = raw(dir, &bytes);
        fastest = now > fastest ? now : fastest;
        disk = read > disk ? read : disk;
    }
    result("rate", fastest, "msg/s");
    result("bytes", fastest * SIZE / 1e6, "MB/s");
    result("raw", disk / 1e6, "MB/s");
    result("of_raw", fastest * ((double)bytes / (double)messages) / disk, "x");
    measure_live(bus, messages);
    lim_bus_close(bus);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : 1;
}
