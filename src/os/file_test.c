/* SPDX-License-Identifier: Apache-2.0
 * file_test.c - what only the real kernel has: descriptors, O_DIRECT where a file system may refuse it, a full device,
 * locks between programs. What both tables must do is in sim/contract_test.c. */
#include "os/os.h"
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[200], path[256];

static int make_dir_in(const char *parent)
{
    snprintf(dir, sizeof dir, "%s/lim-file-XXXXXX", parent);
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/file", dir);
    return 0;
}

static int make_dir(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    return make_dir_in(parent && *parent ? parent : "/tmp");
}

static int drop_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void test_handles_are_descriptors_that_exec_closes(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    int file = os->file_open(os, path, LIM__FILE_WRITE | LIM__FILE_CREATE);
    struct stat st;
    assert_true(file >= 0);
    assert_true(fcntl(file, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777 & ~0600, 0);
    os->file_close(os, file);
    assert_int_equal(fcntl(file, F_GETFD), -1);
    os->file_close(os, -1);
    assert_int_equal(os->file_size(os, file), -EBADF);
}

static void write_direct_and_read_back(void)
{
    lim__os *os = lim__os_linux();
    char *block = aligned_alloc(LIM__FILE_BLOCK, 2 * LIM__FILE_BLOCK);
    assert_non_null(block);
    memset(block, 'd', 2 * LIM__FILE_BLOCK);
    int file = os->file_open(os, path, LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_EXCLUSIVE | LIM__FILE_DIRECT);
    assert_true(file >= 0);
    assert_int_equal(os->file_write(os, file, block, 2 * LIM__FILE_BLOCK, LIM__FILE_BLOCK), 2 * LIM__FILE_BLOCK);
    assert_int_equal(os->file_sync(os, file), 0);
    memset(block, 0, 2 * LIM__FILE_BLOCK);
    assert_int_equal(os->file_read(os, file, block, 2 * LIM__FILE_BLOCK, 2 * LIM__FILE_BLOCK), LIM__FILE_BLOCK);
    assert_int_equal(block[0], 'd');
    assert_int_equal(block[LIM__FILE_BLOCK - 1], 'd');
    assert_int_equal(os->file_truncate(os, file, LIM__FILE_BLOCK + 100), 0);
    assert_int_equal(os->file_read(os, file, block, 2 * LIM__FILE_BLOCK, LIM__FILE_BLOCK), 100);
    os->file_close(os, file);
    free(block);
}

static void test_direct_files_work(void **state)
{
    (void)state;
    write_direct_and_read_back();
}

/* /dev/shm is a tmpfs: kernels before 6.6 refuse O_DIRECT there. */
static void test_direct_works_where_the_file_system_has_none(void **state)
{
    char mine[sizeof dir];
    if (access("/dev/shm", W_OK) != 0)
        skip();
    snprintf(mine, sizeof mine, "%s", dir);
    assert_int_equal(make_dir_in("/dev/shm"), 0);
    write_direct_and_read_back();
    assert_int_equal(drop_dir(state), 0);
    snprintf(dir, sizeof dir, "%s", mine);
    snprintf(path, sizeof path, "%s/file", dir);
}

/* How a child ends that does this with a file. */
static int child_that(void (*what)(lim__os *os, int file, char *bytes), uint32_t flags)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        lim__os *os = lim__os_linux();
        char *bytes = aligned_alloc(LIM__FILE_BLOCK, 2 * LIM__FILE_BLOCK);
        if (!bytes || !freopen("/dev/null", "w", stderr))
            _exit(9);
        memset(bytes, 'x', 2 * LIM__FILE_BLOCK);
        signal(SIGABRT, SIG_DFL);
        what(os, os->file_open(os, path, flags), bytes);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void write_at_one(lim__os *os, int file, char *bytes)
{
    os->file_write(os, file, bytes, LIM__FILE_BLOCK, 1);
}

static void write_from_one(lim__os *os, int file, char *bytes)
{
    os->file_write(os, file, bytes + 1, LIM__FILE_BLOCK, 0);
}

static void read_one(lim__os *os, int file, char *bytes)
{
    os->file_read(os, file, bytes, 1, 0);
}

static void test_alignment_is_asserted_for_direct_files_only(void **state)
{
    (void)state;
    void (*const unaligned[])(lim__os *, int, char *) = { write_at_one, write_from_one, read_one };
    for (size_t i = 0; i < LIM_COUNT(unaligned); i++) {
        int status = child_that(unaligned[i], LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_DIRECT);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        status = child_that(unaligned[i], LIM__FILE_WRITE | LIM__FILE_CREATE);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

static void test_a_closed_direct_number_is_an_ordinary_one_again(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    int direct = os->file_open(os, path, LIM__FILE_WRITE | LIM__FILE_CREATE | LIM__FILE_DIRECT);
    os->file_close(os, direct);
    int file = os->file_open(os, path, LIM__FILE_WRITE);
    assert_int_equal(file, direct);
    assert_int_equal(os->file_write(os, file, "odd", 3, 1), 3);
    os->file_close(os, file);
}

static void test_a_full_device_is_enospc(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    if (access("/dev/full", W_OK) != 0)
        skip();
    int file = os->file_open(os, "/dev/full", LIM__FILE_WRITE);
    assert_true(file >= 0);
    assert_int_equal(os->file_write(os, file, "x", 1, 0), -ENOSPC);
    os->file_close(os, file);
}

/* A limit on the size of files makes a write short, and the next one fail, without filling anything. */
static void write_beyond_the_limit(lim__os *os, int file, char *bytes)
{
    bool short_first = os->file_write(os, file, bytes, 2 * LIM__FILE_BLOCK, 0) == LIM__FILE_BLOCK + 1024;
    long then = os->file_write(os, file, bytes, 1, LIM__FILE_BLOCK + 1024);
    _exit(short_first && then == -EFBIG ? 7 : 1);
}

static void write_limited(lim__os *os, int file, char *bytes)
{
    struct rlimit limit = { LIM__FILE_BLOCK + 1024, LIM__FILE_BLOCK + 1024 };
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) == 0)
        write_beyond_the_limit(os, file, bytes);
}

static void test_a_short_write_is_reported_and_its_reason_next(void **state)
{
    (void)state;
    int status = child_that(write_limited, LIM__FILE_WRITE | LIM__FILE_CREATE);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

static void lock_refused(lim__os *os, int file, char *bytes)
{
    (void)bytes;
    _exit(os->file_lock(os, file) == -EAGAIN ? 7 : 1);
}

static void lock_and_be_killed(lim__os *os, int file, char *bytes)
{
    (void)bytes;
    if (os->file_lock(os, file) == 0)
        raise(SIGKILL);
}

static void test_a_lock_excludes_other_programs_and_dies_with_its_own(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    int status = child_that(lock_and_be_killed, LIM__FILE_WRITE | LIM__FILE_CREATE);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int file = os->file_open(os, path, LIM__FILE_WRITE);
    assert_int_equal(os->file_lock(os, file), 0);
    status = child_that(lock_refused, LIM__FILE_WRITE);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    os->file_close(os, file);
}

static void test_free_space_is_what_the_file_system_says(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    assert_true(os->disk_free(os, dir) > 0);
    assert_int_equal(os->disk_free(os, path), -ENOENT);
    if (access("/proc/self", R_OK) == 0)
        assert_int_equal(os->disk_free(os, "/proc"), 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_dir, drop_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_handles_are_descriptors_that_exec_closes),
        CASE(test_direct_files_work),
        CASE(test_direct_works_where_the_file_system_has_none),
        CASE(test_alignment_is_asserted_for_direct_files_only),
        CASE(test_a_closed_direct_number_is_an_ordinary_one_again),
        CASE(test_a_full_device_is_enospc),
        CASE(test_a_short_write_is_reported_and_its_reason_next),
        CASE(test_a_lock_excludes_other_programs_and_dies_with_its_own),
        CASE(test_free_space_is_what_the_file_system_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
