/* SPDX-License-Identifier: Apache-2.0
 * durable.c - publishing to a durable channel: how long one takes, and how many a second when many are on their way.
 *
 *   bench-durable [DIR]                in this program: a bus with its data in DIR (/var/tmp), on the disk to be
 * measured bench-durable PORT WINDOW COUNT    over TCP, to a liminald that keeps its data on that disk
 *
 * `fdatasync`: what the disk takes for one write of 4 KiB into a file that was full of zeros before; in the same run,
 * in turns with what it is compared with. Every message is 128 bytes and acknowledged when it is on stable storage. */
#include <liminal/client.h>
#include <liminal/liminal.h>
#include "base/base.h"
#include "base/hist.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 128, ROUNDS = 5, ONE = 400, RAW_BYTES = 16 << 20, BLOCK = 4096 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

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

/* ---- the disk alone ---- */

typedef struct raw {
    int fd;
    void *block;
    off_t at;
} raw;

static raw raw_open(const char *dir)
{
    char path[4200];
    raw r = { 0 };
    snprintf(path, sizeof path, "%s/raw", dir);
    need(posix_memalign(&r.block, BLOCK, BLOCK) == 0, "no memory");
    memset(r.block, 0, BLOCK);
    r.fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
    need(r.fd >= 0, "the raw file cannot be made");
    for (off_t at = 0; at < RAW_BYTES; at += BLOCK)
        need(pwrite(r.fd, r.block, BLOCK, at) == BLOCK, "the raw file cannot be written");
    need(fsync(r.fd) == 0, "the raw file cannot be synced");
    return r;
}

static void raw_one(raw *r)
{
    need(pwrite(r->fd, r->block, BLOCK, r->at) == BLOCK && fdatasync(r->fd) == 0, "the raw file cannot be written");
    r->at = (r->at + BLOCK) % RAW_BYTES;
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
    uint64_t begin = now_ns();
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
    return (double)count * 1e9 / (double)(now_ns() - begin);
}

static void one_by_one(flow *f, raw *r, lim__hist *ours, lim__hist *disk)
{
    lim_receipt receipt;
    for (uint32_t i = 0; i < ONE; i++) {
        uint64_t begin = now_ns();
        need(lim_publish_wait(f->bus, f->channel, lim__bytes(payload(), SIZE), NULL, &receipt) == LIM_OK &&
                 receipt.admission.verdict == LIM_ACCEPT,
             "a publish failed");
        lim__hist_record(ours, now_ns() - begin);
        begin = now_ns();
        raw_one(r);
        lim__hist_record(disk, now_ns() - begin);
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
    raw r = raw_open(dir);
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
    close(r.fd);
    free(r.block);
}

/* ---- over TCP ---- */

typedef struct tcp {
    lim_client *client;
    uint32_t flying, window, left;
    uint64_t begun[4096]; /* of the oldest on its way, and those behind it */
    uint64_t offered, told;
    lim__hist hist;
    pthread_mutex_t lock;
    pthread_cond_t change;
} tcp;

static void on_told(void *ctx, const lim_receipt *r)
{
    tcp *t = ctx;
    need(r->admission.verdict == LIM_ACCEPT && r->durability == LIM_CLASS_DISK, "a message was not stored");
    pthread_mutex_lock(&t->lock);
    lim__hist_record(&t->hist, now_ns() - t->begun[t->told++ % LIM_COUNT(t->begun)]);
    t->flying--;
    pthread_cond_signal(&t->change);
    pthread_mutex_unlock(&t->lock);
}

static void over_tcp(const char *port, uint32_t window, uint32_t count)
{
    static tcp t = { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };
    char server[64], name[64];
    lim_outcome o = { 0 };
    snprintf(server, sizeof server, "127.0.0.1:%s", port);
    need(window >= 1 && window < LIM_COUNT(t.begun), "the window is 1 to 4095");
    lim_client_opts opts = { .size = sizeof opts, .server = server, .name = "bench-durable" };
    need(lim_client_open(&opts, NULL, &t.client) == LIM_OK, "the server cannot be reached");
    lim_ask_opts ask = { .size = sizeof ask, .timeout_ms = 5000 };
    lim_bytes create = lim__str("{\"op\":\"create\",\"name\":\"bench\",\"durable\":true}");
    need(lim_client_ask(t.client, "$sys.channels", create, &ask, &o) == LIM_OK && o.how == LIM_HOW_REPLY,
         "the channel cannot be made");
    lim_outcome_fini(&o);
    lim_publish_opts publish = { .size = sizeof publish, .on_receipt = on_told, .ctx = &t };
    uint64_t begin = now_ns();
    for (uint32_t i = 0; i < count; i++) {
        pthread_mutex_lock(&t.lock);
        while (t.flying >= window)
            pthread_cond_wait(&t.change, &t.lock);
        t.flying++;
        t.begun[t.offered++ % LIM_COUNT(t.begun)] = now_ns();
        pthread_mutex_unlock(&t.lock);
        need(lim_client_publish_async(t.client, "bench", lim__bytes(payload(), SIZE), &publish, NULL, NULL) == LIM_OK,
             "a publish failed");
    }
    pthread_mutex_lock(&t.lock);
    while (t.flying > 0)
        pthread_cond_wait(&t.change, &t.lock);
    pthread_mutex_unlock(&t.lock);
    uint64_t took = now_ns() - begin;
    snprintf(name, sizeof name, "tcp.w%u.rate", (unsigned)window);
    result(name, (double)count * 1e9 / (double)took, "msg/s", "disk");
    snprintf(name, sizeof name, "tcp.w%u.p50", (unsigned)window);
    result(name, (double)lim__hist_percentile(&t.hist, 50) / 1e3, "us", "disk");
    lim_client_close(t.client);
}

int main(int argc, char **argv)
{
    char dir[4096], command[4200];
    if (argc == 4) {
        over_tcp(argv[1], (uint32_t)atoi(argv[2]), (uint32_t)atoi(argv[3]));
        return 0;
    }
    snprintf(dir, sizeof dir, "%s/bench-durable-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    need(mkdtemp(dir) != NULL, "the directory cannot be made");
    embedded(dir);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : 1;
}
