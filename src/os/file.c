/* SPDX-License-Identifier: Apache-2.0
 * file.c - files over Linux, for the os table; and a whole file at once, for programs. All of it blocks.
 *
 * A handle is a descriptor. Which of them were opened DIRECT is remembered in a bitmap by number, not asked of the
 * kernel: a file system without O_DIRECT is used through its page cache, and the alignment is asserted there, too, so
 * that a caller that would fail on ext4 fails on tmpfs. DIRECT is switched on after opening: an open that is refused
 * because of O_DIRECT may have created the file.
 *
 * The lock is flock's: it belongs to what was opened, not to the program, so a second handle of the same program is
 * refused like anybody else's, and closing some other handle of the file does not drop it (as fcntl's locks would). A
 * child that only forks keeps it; exec drops it, since every handle is close-on-exec.
 *
 * An interrupted call is made again, except close, which has closed. A write goes on after a short one until the disk
 * says why; the reason is reported only if nothing was written, else the caller meets it at its next write. */
#include "os/linux.h"
#include "base/base.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { DIRECT_MAX = 1 << 20 }; /* descriptors that can be DIRECT: Linux's default for the most a program may have */
static _Atomic uint64_t direct_bits[DIRECT_MAX / 64];

static bool is_direct(int file)
{
    return file >= 0 && file < DIRECT_MAX && (atomic_load(&direct_bits[file / 64]) >> (file % 64) & 1) != 0;
}

static void set_direct(int file, bool direct)
{
    if (direct)
        atomic_fetch_or(&direct_bits[file / 64], UINT64_C(1) << (file % 64));
    else if (file < DIRECT_MAX)
        atomic_fetch_and(&direct_bits[file / 64], ~(UINT64_C(1) << (file % 64)));
}

static void assert_aligned(int file, const void *buf, size_t len, uint64_t offset)
{
    LIM_ASSERT(!is_direct(file) || ((uintptr_t)buf | len | offset) % LIM__FILE_BLOCK == 0);
}

/* ---- opening and closing ---- */

static int open_path(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, 0600);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static int switch_direct(int file)
{
    if (file >= DIRECT_MAX)
        return -EMFILE;
    int flags = fcntl(file, F_GETFL);
    if (flags < 0 || (fcntl(file, F_SETFL, flags | O_DIRECT) != 0 && errno != EINVAL))
        return -errno;
    set_direct(file, true);
    return 0;
}

/* Reading a directory would fail only later. */
static int refuse_directory(int file)
{
    struct stat st;
    if (fstat(file, &st) != 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? -EISDIR : 0;
}

int lim__linux_file_open(lim__os *os, const char *path, uint32_t flags)
{
    (void)os;
    LIM_ASSERT((flags & ~(uint32_t)LIM__FILE_ALL) == 0);
    LIM_ASSERT(!(flags & LIM__FILE_EXCLUSIVE) || (flags & LIM__FILE_CREATE));
    int file =
        open_path(path, (flags & LIM__FILE_WRITE ? O_RDWR : O_RDONLY) | (flags & LIM__FILE_CREATE ? O_CREAT : 0) |
                            (flags & LIM__FILE_EXCLUSIVE ? O_EXCL : 0));
    if (file < 0)
        return file;
    int err = refuse_directory(file);
    if (err == 0 && (flags & LIM__FILE_DIRECT))
        err = switch_direct(file);
    if (err == 0)
        return file;
    close(file);
    return err;
}

void lim__linux_file_close(lim__os *os, int file)
{
    (void)os;
    if (file < 0)
        return;
    set_direct(file, false); /* before: the number may be somebody's again at once */
    close(file);
}

/* ---- bytes ---- */

long lim__linux_file_read(lim__os *os, int file, void *buf, size_t len, uint64_t offset)
{
    (void)os;
    assert_aligned(file, buf, len, offset);
    size_t have = 0;
    while (have < len) {
        ssize_t n = pread(file, (char *)buf + have, len - have, (off_t)(offset + have));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return have ? (long)have : -errno;
        have += (size_t)n;
        if (n == 0 || (is_direct(file) && n % LIM__FILE_BLOCK != 0)) /* the end; there is nothing aligned behind it */
            break;
    }
    return (long)have;
}

long lim__linux_file_write(lim__os *os, int file, const void *buf, size_t len, uint64_t offset)
{
    (void)os;
    assert_aligned(file, buf, len, offset);
    size_t done = 0;
    while (done < len) {
        ssize_t n = pwrite(file, (const char *)buf + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return done ? (long)done : -errno;
        if (is_direct(file) && n % LIM__FILE_BLOCK != 0) { /* the disk filled up inside a block, which does not count */
            done += (size_t)(n - n % LIM__FILE_BLOCK);
            return done ? (long)done : -ENOSPC;
        }
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (long)done;
}

int lim__linux_file_sync(lim__os *os, int file)
{
    (void)os;
    int failed;
    do
        failed = fdatasync(file);
    while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

int64_t lim__linux_file_size(lim__os *os, int file)
{
    (void)os;
    struct stat st;
    return fstat(file, &st) == 0 ? (int64_t)st.st_size : -errno;
}

int lim__linux_file_truncate(lim__os *os, int file, uint64_t size)
{
    (void)os;
    int failed;
    do
        failed = ftruncate(file, (off_t)size);
    while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

int lim__linux_file_lock(lim__os *os, int file)
{
    (void)os;
    static_assert(EWOULDBLOCK == EAGAIN, "the number that os.h promises");
    int failed;
    do
        failed = flock(file, LOCK_EX | LOCK_NB);
    while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

/* ---- names ---- */

int lim__linux_file_rename(lim__os *os, const char *from, const char *to)
{
    (void)os;
    return rename(from, to) == 0 ? 0 : -errno;
}

int lim__linux_file_remove(lim__os *os, const char *path)
{
    (void)os;
    return unlink(path) == 0 ? 0 : -errno;
}

int lim__linux_dir_create(lim__os *os, const char *path)
{
    (void)os;
    struct stat st;
    if (mkdir(path, 0700) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    if (stat(path, &st) != 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int lim__linux_dir_sync(lim__os *os, const char *path)
{
    (void)os;
    int dir = open_path(path, O_RDONLY | O_DIRECTORY);
    if (dir < 0)
        return dir;
    int failed;
    do
        failed = fsync(dir);
    while (failed && errno == EINTR);
    int err = failed ? -errno : 0;
    close(dir);
    return err;
}

int lim__linux_dir_list(lim__os *os, const char *path, void (*each)(void *ctx, const char *name), void *ctx)
{
    (void)os;
    DIR *dir = opendir(path);
    if (!dir)
        return -errno;
    int err = 0;
    for (;;) {
        errno = 0; /* each may have changed it */
        struct dirent *entry = readdir(dir);
        err = entry ? 0 : -errno;
        if (!entry)
            break;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(ctx, entry->d_name);
    }
    closedir(dir);
    return err;
}

int64_t lim__linux_disk_free(lim__os *os, const char *path)
{
    (void)os;
    struct statvfs st;
    int failed;
    do
        failed = statvfs(path, &st);
    while (failed && errno == EINTR);
    if (failed)
        return -errno;
    uint64_t unit = st.f_frsize ? st.f_frsize : 1;
    return st.f_bavail > (uint64_t)INT64_MAX / unit ? INT64_MAX : (int64_t)(st.f_bavail * unit);
}

/* ---- a whole file at once ---- */

/* Guesses how much there will be; 0 for pipes and the like. One more than the size, so that the end is seen at once. */
static size_t size_hint(int fd, size_t max)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 0)
        return 0;
    return (uint64_t)st.st_size < max ? (size_t)st.st_size + 1 : max;
}

/* Reads to the end; *data keeps room for one byte more than *len. */
static int read_all(int fd, size_t max, char **data, size_t *len)
{
    size_t cap = size_hint(fd, max);
    cap = cap < 4096 ? 4096 : cap;
    for (;;) {
        char *grown = realloc(*data, cap + 1);
        if (!grown)
            return -ENOMEM;
        *data = grown;
        while (*len < cap) {
            ssize_t n = read(fd, *data + *len, cap - *len);
            if (n == 0)
                return 0;
            if (n < 0 && errno != EINTR)
                return -errno;
            *len += n > 0 ? (size_t)n : 0;
            if (*len > max)
                return -EFBIG;
        }
        cap = cap > SIZE_MAX / 4 ? SIZE_MAX / 2 : cap * 2;
    }
}

int lim__file_read(const char *path, size_t max, void **out, size_t *len)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    char *data = NULL;
    size_t have = 0;
    int err = read_all(fd, max, &data, &have);
    if (!is_stdin)
        close(fd);
    if (err != 0) {
        free(data);
        return err;
    }
    data[have] = 0;
    *out = data;
    *len = have;
    return 0;
}
