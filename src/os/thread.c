/* SPDX-License-Identifier: Apache-2.0
 * thread.c - threads that leave the host's signals alone, and condition variables on the monotonic clock. */
#include "os/os.h"
#include "base/base.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* A signal sent to the program is the host's business, so our threads never take one. Faults of the thread itself stay
 * open: the host's crash reporter should see them. */
static void block_signals(sigset_t *before)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < LIM_COUNT(faults); i++)
        sigdelset(&set, faults[i]);
    pthread_sigmask(SIG_BLOCK, &set, before);
}

int lim__thread_start(lim__thread *t, const char *name, void *(*run)(void *), void *arg)
{
    sigset_t before;
    block_signals(&before);
    int err = pthread_create(t, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0 && name) {
        char cut[16] = { 0 }; /* the kernel's limit */
        strncpy(cut, name, sizeof cut - 1);
        pthread_setname_np(*t, cut);
    }
    return -err;
}

void lim__thread_join(lim__thread t)
{
    int err = pthread_join(t, NULL);
    LIM_ASSERT(err == 0);
}

/* Not a nice value: those wait for the end of a time slice before they give way. */
void lim__thread_give_way(void)
{
    (void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){ .sched_priority = 0 });
}

void lim__thread_yield(void)
{
    sched_yield();
}

void lim__cond_init(lim__cond *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    int err = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    LIM_ASSERT(err == 0);
    err = pthread_cond_init(c, &attr);
    LIM_ASSERT(err == 0);
    pthread_condattr_destroy(&attr);
}

bool lim__cond_wait_until(lim__cond *c, lim__mutex *m, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX)
        return pthread_cond_wait(c, m) == 0;
    struct timespec t = { .tv_sec = (time_t)(deadline_ns / 1000000000), .tv_nsec = (long)(deadline_ns % 1000000000) };
    int err = pthread_cond_timedwait(c, m, &t);
    LIM_ASSERT(err == 0 || err == ETIMEDOUT);
    return err == 0;
}

unsigned lim__cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN); /* more than 1024 CPUs */
    return n > 0 ? (unsigned)n : 1;
}
