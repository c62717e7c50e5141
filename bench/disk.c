/* SPDX-License-Identifier: Apache-2.0
 * disk.c - what a disk takes for the least that anything durable can be: one block of 4 KiB written into a file whose
 * blocks exist, past the page cache, and fdatasync. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 4096, BYTES = 16 << 20 };

void bench_disk_open(bench_disk *d, const char *dir)
{
    *d = (bench_disk){ .fd = -1 };
    snprintf(d->path, sizeof d->path, "%.4000s/bench-raw-XXXXXX", dir);
    int named = mkstemp(d->path);
    if (named < 0 || posix_memalign(&d->block, BLOCK, BLOCK) != 0)
        bench_die("no file in %s: %s", dir, strerror(errno));
    close(named);
    memset(d->block, 0, BLOCK);
    if ((d->fd = open(d->path, O_RDWR | O_DIRECT)) < 0)
        bench_die("%s cannot be opened past the page cache: %s", d->path, strerror(errno));
    for (off_t at = 0; at < BYTES; at += BLOCK)
        if (pwrite(d->fd, d->block, BLOCK, at) != BLOCK)
            bench_die("%s cannot be written: %s", d->path, strerror(errno));
    if (fsync(d->fd) != 0)
        bench_die("%s cannot be synced: %s", d->path, strerror(errno));
}

void bench_disk_write(bench_disk *d)
{
    if (pwrite(d->fd, d->block, BLOCK, d->at) != BLOCK || fdatasync(d->fd) != 0)
        bench_die("%s cannot be written: %s", d->path, strerror(errno));
    d->at = (d->at + BLOCK) % BYTES;
}

void bench_disk_close(bench_disk *d)
{
    close(d->fd);
    unlink(d->path);
    free(d->block);
}
