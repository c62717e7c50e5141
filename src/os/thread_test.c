/* SPDX-License-Identifier: Apache-2.0
 * thread_test.c - threads, condition variables and whole files. */
#include "os/os.h"
#include "base/base.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

struct meeting {
    lim__mutex lock;
    lim__cond changed;
    bool arrived, signals_blocked;
};

static void *arrive(void *arg)
{
    struct meeting *m = arg;
    sigset_t mine;
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    pthread_mutex_lock(&m->lock);
    m->signals_blocked = sigismember(&mine, SIGTERM) && sigismember(&mine, SIGCHLD) && !sigismember(&mine, SIGSEGV);
    m->arrived = true;
    pthread_cond_signal(&m->changed);
    pthread_mutex_unlock(&m->lock);
    return m;
}

static void test_a_thread_runs_with_signals_blocked_and_can_be_met(void **state)
{
    (void)state;
    struct meeting m = { .lock = LIM__MUTEX_INIT };
    lim__thread t;
    sigset_t ours;
    lim__cond_init(&m.changed);
    assert_int_equal(lim__thread_start(&t, "a name longer than fifteen", arrive, &m), 0);
    pthread_mutex_lock(&m.lock);
    while (!m.arrived)
        assert_true(lim__cond_wait_until(&m.changed, &m.lock, UINT64_MAX));
    pthread_mutex_unlock(&m.lock);
    lim__thread_join(t);
    assert_true(m.signals_blocked);
    pthread_sigmask(SIG_SETMASK, NULL, &ours);
    assert_false(sigismember(&ours, SIGTERM));
    pthread_cond_destroy(&m.changed);
}

static void test_a_wait_ends_at_its_deadline(void **state)
{
    (void)state;
    lim__os *os = lim__os_linux();
    struct meeting m = { .lock = LIM__MUTEX_INIT };
    lim__cond_init(&m.changed);
    pthread_mutex_lock(&m.lock);
    uint64_t deadline = os->now_ns(os) + 1000000;
    while (lim__cond_wait_until(&m.changed, &m.lock, deadline))
        ; /* spurious */
    assert_true(os->now_ns(os) >= deadline);
    assert_false(lim__cond_wait_until(&m.changed, &m.lock, 0));
    pthread_mutex_unlock(&m.lock);
    pthread_cond_destroy(&m.changed);
    assert_true(lim__cpu_count() >= 1);
    lim__thread_yield();
}

static void test_a_file_is_read_whole_or_not_at_all(void **state)
{
    (void)state;
    char path[] = "/tmp/lim_file_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static char content[10000];
    memset(content, 'z', sizeof content);
    assert_int_equal(write(fd, content, sizeof content), sizeof content);
    close(fd);
    void *data = NULL;
    size_t len = 0;
    assert_int_equal(lim__file_read(path, sizeof content, &data, &len), 0);
    assert_int_equal(len, sizeof content);
    assert_memory_equal(data, content, len);
    assert_int_equal(((char *)data)[len], 0);
    free(data);
    data = NULL;
    assert_int_equal(lim__file_read(path, sizeof content - 1, &data, &len), -EFBIG);
    assert_null(data);
    unlink(path);
    assert_int_equal(lim__file_read(path, 10, &data, &len), -ENOENT);
    assert_int_equal(lim__file_read("/", 10, &data, &len), -EISDIR);
    assert_int_equal(lim__file_read("/proc/self/cmdline", 4096, &data, &len), 0); /* its size says 0 */
    assert_true(len > 0);
    free(data);
    assert_int_equal(lim__file_read("/dev/null", 0, &data, &len), 0);
    assert_int_equal(len, 0);
    free(data);
}

static void test_a_dash_is_standard_input(void **state)
{
    (void)state;
    int ends[2], keep = dup(0);
    void *data;
    size_t len;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(dup2(ends[0], 0), 0);
    close(ends[0]);
    assert_int_equal(write(ends[1], "typed", 5), 5);
    close(ends[1]);
    assert_int_equal(lim__file_read("-", 100, &data, &len), 0);
    assert_string_equal((char *)data, "typed");
    free(data);
    if (keep >= 0) {
        dup2(keep, 0);
        close(keep);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_runs_with_signals_blocked_and_can_be_met),
        cmocka_unit_test(test_a_wait_ends_at_its_deadline),
        cmocka_unit_test(test_a_file_is_read_whole_or_not_at_all),
        cmocka_unit_test(test_a_dash_is_standard_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
