/* SPDX-License-Identifier: Apache-2.0
 * disk_box.h - what the tests of the simulated disk share: one machine, and a directory on its platter. */
#ifndef LIM__SIM_DISK_BOX_H
#define LIM__SIM_DISK_BOX_H

#include "sim/sim_os.h"
#include "base/base.h"
#include "base/map.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { SEEDS = 300, BLOCK = LIM__FILE_BLOCK, SECTOR = 512 };
enum { NEW = LIM__FILE_WRITE | LIM__FILE_CREATE, DIRECT = LIM__FILE_WRITE | LIM__FILE_DIRECT };

/* A machine with a directory /d that is on the platter; writes are whole and take no time unless a test says otherwise.
 */
struct box {
    lim__sim *sim;
    lim__os *os;
};

static inline void box_open(struct box *b, uint64_t seed)
{
    b->sim = lim__sim_open(seed);
    b->os = lim__sim_host(b->sim, "m");
    lim__sim_disk disk = lim__sim_disk_get(b->os);
    disk.short_write_permille = 0;
    lim__sim_disk_set(b->os, &disk);
    assert_int_equal(b->os->dir_create(b->os, "/d"), 0);
    assert_int_equal(b->os->dir_sync(b->os, "/"), 0);
}

static inline void restart(struct box *b)
{
    b->os = lim__sim_host(b->sim, "m");
    assert_true(lim__sim_host_alive(b->os));
}

static inline void lose_power(struct box *b)
{
    lim__sim_power_off(b->sim, b->os);
    restart(b);
}

static inline int opened(struct box *b, const char *path, uint32_t flags)
{
    int file = b->os->file_open(b->os, path, flags);
    assert_true(file >= 0);
    return file;
}

static inline void put(struct box *b, int file, const void *data, size_t len, uint64_t offset)
{
    assert_int_equal(b->os->file_write(b->os, file, data, len, offset), len);
}

static inline void sync_file(struct box *b, int file)
{
    assert_int_equal(b->os->file_sync(b->os, file), 0);
}

/* A file /d/f of `len` bytes `fill`, on the platter with its name. */
static inline int synced_file(struct box *b, size_t len, int fill)
{
    static uint8_t bytes[16 * BLOCK];
    assert_true(len <= sizeof bytes);
    int file = opened(b, "/d/f", NEW);
    memset(bytes, fill, len);
    put(b, file, bytes, len, 0);
    sync_file(b, file);
    assert_int_equal(b->os->dir_sync(b->os, "/d"), 0);
    return file;
}

/* Blocks of one byte each, aligned for DIRECT. */
static inline const uint8_t *blocks_of(int fill)
{
    static uint8_t bytes[16 * BLOCK] __attribute__((aligned(LIM__FILE_BLOCK)));
    memset(bytes, fill, sizeof bytes);
    return bytes;
}

/* What a handle shows of the first bytes; the caller's until the next call. */
static inline uint8_t *shown(struct box *b, const char *path, uint32_t flags, size_t len)
{
    static uint8_t bytes[16 * BLOCK] __attribute__((aligned(LIM__FILE_BLOCK)));
    int file = opened(b, path, flags);
    memset(bytes, 0xEE, sizeof bytes);
    assert_int_equal(b->os->file_read(b->os, file, bytes, len, 0), len);
    b->os->file_close(b->os, file);
    return bytes;
}

static inline uint64_t size_of(struct box *b, const char *path)
{
    int file = opened(b, path, 0);
    int64_t size = b->os->file_size(b->os, file);
    assert_true(size >= 0);
    b->os->file_close(b->os, file);
    return (uint64_t)size;
}

static inline bool exists(struct box *b, const char *path)
{
    int file = b->os->file_open(b->os, path, 0);
    assert_true(file >= 0 || file == -ENOENT);
    b->os->file_close(b->os, file);
    return file >= 0;
}

/* How many sectors hold only this byte. */
static inline int sectors_of(const uint8_t *bytes, size_t len, int fill)
{
    int count = 0;
    for (size_t at = 0; at + SECTOR <= len; at += SECTOR)
        count += bytes[at] == fill && memcmp(bytes + at, bytes + at + 1, SECTOR - 1) == 0;
    return count;
}

static inline void set_manners(struct box *b, void (*change)(lim__sim_disk *disk))
{
    lim__sim_disk disk = lim__sim_disk_get(b->os);
    change(&disk);
    lim__sim_disk_set(b->os, &disk);
}

static inline void keep_nothing(lim__sim_disk *disk)
{
    disk->keep_nothing = true;
}

static inline void keep_everything(lim__sim_disk *disk)
{
    disk->keep_everything = true;
}

#endif
