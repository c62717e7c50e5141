/* SPDX-License-Identifier: Apache-2.0
 * durable.c - publishing to a durable channel of a bus in this program: how long one takes, and how many a second when
 * many are on their way. Over TCP, with peers: durable_tcp.c.
 *
 *   bench-durable [DIR]      the data is in DIR (/var/tmp), on the disk to be measured
 *
 * `fdatasync`: what the disk alone takes (disk.c); in the same run, in turns with what it is compared with. Every
 * message is 128 bytes and acknowledged when it is on stable storage. */
#include <liminal/liminal.h>
#include "base/base.h"
#include "base/hist.h"
#include "peer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIZE = 128, ROUNDS = 5, ONE = 400 };

static void need(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "bench-durable: %s\n", what);
        exit(1);
    }
}

static void result(const char *name, double value, const char *unit, const char *class)
{
    printf("RESULT durable.%s %.3f %s %s\n", name, value, unit, class);
    fflush(stdout);
}

static const char *payload(void)
{
    static char text[SIZE + 1];
    memset(text, 'x', SIZE);
    return text;
}

/* ---- in this program ---- */

typedef struct flow { /* publishes on their way */
    lim_bus *bus;
    lim_channel channel;
    pthread_mutex_t lock;
    pthread_cond_t room;
    uint32_t flying, window;
    uint64_t stored;
} flow;

static void on_receipt(void *ctx, const lim_receipt *r)
{
    flow *f = ctx;
    need(r->admission.verdict == LIM_ACCEPT && r->durability == LIM_CLASS_DISK, "a message was not stored");
    pthread_mutex_lock(&f->lock);
    f->flying--;
    f->stored++;
    if (f->flying <= f->window / 2)
        pthread_cond_signal(&f->room);
    pthread_mutex_unlock(&f->lock);
}

static void await_at_most(flow *f, uint32_t flying)
{
    pthread_mutex_lock(&f->lock);
    while (f->flying > flying)
        pthread_cond_wait(&f->room, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

static double pipelined(flow *f, uint32_t window, uint32_t count)
{
    lim_publish_opts opts = { .size = sizeof opts, .on_receipt = on_receipt, .ctx = f };
    lim_admission a;
    uint64_t begin = bench_now_ns();
    f->window = window;
    for (uint32_t i = 0; i < count; i++) {
        if (f->flying >= window)
            await_at_most(f, window / 2);
        pthread_mutex_lock(&f->lock);
        f->flying++;
        pthread_mutex_unlock(&f->lock);
        need(lim_publish(f->bus, f->channel, lim__bytes(payload(), SIZE), &opts, &a) == LIM_OK, "a publish failed");
    }
    f->window = 0;
    await_at_most(f, 0);
    return (double)count * 1e9 / (double)(bench_now_ns() - begin);
}

static void one_by_one(flow *f, bench_disk *r, lim__hist *ours, lim__hist *disk)
{
    lim_receipt receipt;
    for (uint32_t i = 0; i < ONE; i++) {
        uint64_t begin = bench_now_ns();
        need(lim_publish_wait(f->bus, f->channel, lim__bytes(payload(), SIZE), NULL, &receipt) == LIM_OK &&
                 receipt.admission.verdict == LIM_ACCEPT,
             "a publish failed");
        lim__hist_record(ours, bench_now_ns() - begin);
        begin = bench_now_ns();
        bench_disk_write(r);
        lim__hist_record(disk, bench_now_ns() - begin);
    }
}

static void embedded(const char *dir)
{
    flow f = { .lock = PTHREAD_MUTEX_INITIALIZER, .room = PTHREAD_COND_INITIALIZER };
    lim_diag diag = { 0 };
    char data[4300];
    snprintf(data, sizeof data, "%s/data", dir);
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = 1, .data_dir = data, .diag = &diag };
    lim_channel_opts durable = { .size = sizeof durable, .durable = true };
    need(lim_bus_open(&opts, &f.bus) == LIM_OK, diag.text);
    need(lim_channel_open(f.bus, "bench", &durable, &f.channel) == LIM_OK, "the channel cannot be made");
    bench_disk r;
    bench_disk_open(&r, dir);
    static lim__hist ours, disk;
    one_by_one(&f, &r, &ours, &disk);
    result("one.p50", (double)lim__hist_percentile(&ours, 50) / 1e3, "us", "disk");
    result("one.p99", (double)lim__hist_percentile(&ours, 99) / 1e3, "us", "disk");
    result("fdatasync.p50", (double)lim__hist_percentile(&disk, 50) / 1e3, "us", "disk");
    result("one.syncs", (double)lim__hist_percentile(&ours, 50) / (double)lim__hist_percentile(&disk, 50), "syncs",
           "disk");
    const struct {
        const char *name;
        uint32_t window, count;
    } pipes[] = { { "pipe100", 100, 20000 }, { "pipe1000", 1000, 60000 } };
    for (size_t i = 0; i < LIM_COUNT(pipes); i++) {
        double best = 0;
        for (int round = 0; round < ROUNDS; round++) {
            double now = pipelined(&f, pipes[i].window, pipes[i].count);
            best = now > best ? now : best;
        }
        result(pipes[i].name, best, "msg/s", "disk");
    }
    lim_bus_close(f.bus);
    bench_disk_close(&r);
}

int main(int argc, char **argv)
{
    char dir[4096], command[4200];
    snprintf(dir, sizeof dir, "%s/bench-durable-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    need(mkdtemp(dir) != NULL, "the directory cannot be made");
    embedded(dir);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : 1;
}
