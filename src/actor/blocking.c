/* SPDX-License-Identifier: Apache-2.0
 * blocking.c - handlers that may block: a pool of threads, and the way home.
 *
 * A process spawned `blocking` lives on a scheduler like any other; only its handler runs elsewhere. When a signal is
 * to be shown to it, the scheduler puts the process AWAY, with its job, and goes on; a thread of the pool runs the
 * handler; the job comes home through the inbox. While a process is away its mailbox only grows, so it sees one signal
 * at a time, in order, and nothing can end it before its handler has returned.
 *
 *      scheduler                                          thread of the pool
 *      RUNNING --show--> AWAY --job--> queue ------------> on_signal(self, ...)
 *                                                            |  lim_link(self, ...): a call
 *      inbox <---------------- the job as a letter ----------+  (the thread waits for the answer)
 *        |-- a call: done as the process, outboxes pushed, answered
 *        `-- returned: IDLE, QUEUED, or ENDING if it called lim_exit
 *
 * What a handler does with `self` belongs to the scheduler, so each public P function, called on the thread of the
 * pool, is carried home and done there (lim__away_*). lim_send is not: it goes like a host thread's, and keeps its
 * order with the calls, because a call's letters are pushed to their inboxes before it is answered.
 *
 * A process and its job are one block. Threads are started when blocking processes are spawned, one each, up to the
 * runtime's blocking_max. Runtimes without threads (the simulator's) run such handlers in the turn.
 *
 * Invariants:
 *   B1  a job is in one place: at its process (not AWAY), in the queue, with a thread, or on its way home.
 *   B2  the block of a process that is AWAY is not freed.
 *   B3  a thread that waits for an answer is answered: schedulers turn until the pool has stopped. */
#include "actor/internal.h"
#include <stdio.h>

struct lim__worker { /* on the stack of its thread */
    lim__mutex lock;
    lim__cond answered;
    bool done;
};

bool lim__blocking_possible(const lim_runtime *rt)
{
    return rt->threads || rt->own_loop;
}

size_t lim__job_offset(size_t state_bytes)
{
    return sizeof(lim_process) + (state_bytes + 15) / 16 * 16;
}

static lim__job *job_of(lim_process *p)
{
    return (lim__job *)(void *)((char *)p + lim__job_offset(p->state_bytes));
}

uint32_t lim__blocking_thread_max(const lim_runtime *rt)
{
    return rt->blocking.thread_max;
}

_Atomic uint32_t *lim__blocking_lost(lim_runtime *rt)
{
    return &rt->blocking.lost;
}

/* ---- the way home ---- */
static void go_home(lim__job *job)
{
    lim__sched *home = job->process->sched;
    lim__inbox_push(home, &job->letter, &job->letter);
    lim__sched_wake(NULL, home);
}

void lim__call_home(lim_process *self, void (*call)(void *arg), void *arg)
{
    lim__job *job = job_of(self);
    lim__worker *w = job->worker;
    job->call = call;
    job->arg = arg;
    w->done = false;
    go_home(job);
    pthread_mutex_lock(&w->lock);
    while (!w->done)
        pthread_cond_wait(&w->answered, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static void serve_call(lim__sched *s, lim__job *job)
{
    lim__worker *w = job->worker;
    job->call(job->arg);
    job->call = NULL;
    lim__outboxes_push(s);
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->answered);
    pthread_mutex_unlock(&w->lock);
}

static void job_return(lim__sched *s, lim__job *job)
{
    lim_process *p = job->process;
    atomic_fetch_sub_explicit(&s->rt->blocking.blocked, 1, memory_order_relaxed);
    if (job->kept)
        lim__letter_drop(s, job->kept);
    job->kept = NULL;
    if (p->phase == LIM__AWAY_ENDING) {
        lim__process_end_now(p);
        lim__bury_all(s);
    } else if (p->head) {
        lim__run_push(s, p);
    } else {
        p->phase = LIM__IDLE;
    }
}

void lim__job_home(lim__sched *s, lim__letter *l)
{
    lim__job *job = (lim__job *)l;
    if (job->call)
        serve_call(s, job);
    else
        job_return(s, job);
}

/* ---- the pool ---- */
static lim__job *job_take(lim__blocking *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->head && !b->stopping)
        pthread_cond_wait(&b->work, &b->lock);
    lim__job *job = b->head;
    if (job) {
        b->head = job->next;
        if (!b->head)
            b->tail = &b->head;
    }
    pthread_mutex_unlock(&b->lock);
    return job;
}

static void *worker_main(void *arg)
{
    lim__blocking *b = arg;
    lim__worker w = { .done = false };
    pthread_mutex_init(&w.lock, NULL);
    lim__cond_init(&w.answered);
    lim__job *job;
    while ((job = job_take(b)) != NULL) {
        lim_process *p = job->process;
        job->worker = &w;
        job->on_signal(p, &job->signal, lim__state(p));
        go_home(job);
    }
    pthread_cond_destroy(&w.answered);
    pthread_mutex_destroy(&w.lock);
    atomic_fetch_sub(&b->running, 1);
    return NULL;
}

/* What is shown to a blocking process; runs in its place on the scheduler. */
static void show_elsewhere(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    lim__sched *s = self->sched;
    lim__blocking *b = &s->rt->blocking;
    lim__job *job = job_of(self);
    LIM_ASSERT(self->phase == LIM__RUNNING);
    self->phase = LIM__AWAY;
    job->signal = *signal;
    job->kept = s->letter;
    job->next = NULL;
    s->letter = NULL;
    atomic_fetch_add_explicit(&b->blocked, 1, memory_order_relaxed);
    pthread_mutex_lock(&b->lock);
    bool taken = !b->stopping;
    if (taken) {
        *b->tail = job;
        b->tail = &job->next;
        pthread_cond_signal(&b->work);
    }
    pthread_mutex_unlock(&b->lock);
    if (!taken)
        go_home(job); /* the runtime closes: no handler begins any more */
}

void lim__job_init(lim_process *p, lim_on_signal *on_signal)
{
    lim__job *job = job_of(p);
    *job = (lim__job){ .letter = { .kind = LIM__HOME }, .process = p, .on_signal = on_signal };
    p->on_signal = show_elsewhere;
}

/* One more thread unless there are enough. */
lim_err lim__blocking_prepare(lim_runtime *rt)
{
    lim__blocking *b = &rt->blocking;
    pthread_mutex_lock(&b->lock);
    if (b->thread_count < b->thread_max && !b->stopping) {
        char name[24];
        snprintf(name, sizeof name, "blocking-%u", (unsigned)b->thread_count);
        atomic_fetch_add(&b->running, 1);
        if (lim__thread_start(&b->threads[b->thread_count], name, worker_main, b) == 0)
            b->thread_count++;
        else
            atomic_fetch_sub(&b->running, 1);
    }
    bool any = b->thread_count > 0;
    pthread_mutex_unlock(&b->lock);
    return any ? LIM_OK : LIM_E_NOMEM;
}

void lim__blocking_init(lim__blocking *b, uint32_t thread_max)
{
    pthread_mutex_init(&b->lock, NULL);
    lim__cond_init(&b->work);
    b->tail = &b->head;
    b->thread_max = thread_max == 0 ? LIM__BLOCKING_DEFAULT : thread_max;
    if (b->thread_max > LIM__BLOCKING_MAX)
        b->thread_max = LIM__BLOCKING_MAX;
}

void lim__blocking_fini(lim__blocking *b)
{
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
}

/* No handler begins any more; returns when those that run have returned. Schedulers still turn. */
void lim__blocking_stop(lim_runtime *rt)
{
    lim__blocking *b = &rt->blocking;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    lim__job *waiting = b->head;
    b->head = NULL;
    b->tail = &b->head;
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&b->lock);
    for (lim__job *next; waiting; waiting = next) {
        next = waiting->next;
        go_home(waiting);
    }
    while (rt->own_loop && atomic_load(&b->running) > 0) /* they may still call home */
        (void)lim__sched_turn(rt->scheds[0], 1000000);
    for (uint32_t i = 0; i < b->thread_count; i++)
        lim__thread_join(b->threads[i]);
    b->thread_count = 0;
}

/* ---- calls carried home ---- */
typedef struct args { /* of any of them */
    lim_process *self;
    lim_pid pid;
    uint32_t number; /* tag, reason or flag */
    uint64_t ref;    /* or a delay */
    int64_t timeout_ms;
    lim_bytes body;
    const void *in; /* options, or the request that is answered */
    lim_pid *pid_out;
    uint64_t *ref_out;
    lim_err err;
    bool yes;
} args;

static void do_link(void *arg)
{
    args *a = arg;
    a->err = lim_link(a->self, a->pid);
}
static void do_unlink(void *arg)
{
    args *a = arg;
    lim_unlink(a->self, a->pid);
}
static void do_monitor(void *arg)
{
    args *a = arg;
    a->err = lim_monitor(a->self, a->pid, a->ref_out);
}
static void do_demonitor(void *arg)
{
    args *a = arg;
    lim_demonitor(a->self, a->ref);
}
static void do_spawn(void *arg)
{
    args *a = arg;
    a->err = lim_spawn(a->self, a->in, a->pid_out);
}
static void do_exit(void *arg)
{
    args *a = arg;
    lim_exit(a->self, (lim_reason)a->number);
}
static void do_exit_process(void *arg)
{
    args *a = arg;
    a->err = lim_exit_process(a->self, a->pid, (lim_reason)a->number);
}
static void do_request(void *arg)
{
    args *a = arg;
    a->err = lim_request(a->self, a->pid, a->number, a->body, a->timeout_ms, a->ref_out);
}
static void do_respond(void *arg)
{
    args *a = arg;
    a->err = lim_respond(a->self, a->in, a->body);
}
static void do_timer_start(void *arg)
{
    args *a = arg;
    a->err = lim_timer_start(a->self, a->ref, a->number, a->ref_out);
}
static void do_timer_cancel(void *arg)
{
    args *a = arg;
    a->yes = lim_timer_cancel(a->self, a->ref);
}
static void do_ready(void *arg)
{
    args *a = arg;
    a->err = lim_ready(a->self);
}

static lim_err carry(void (*call)(void *arg), args a)
{
    lim__call_home(a.self, call, &a);
    return a.err;
}

lim_err lim__away_link(lim_process *self, lim_pid other)
{
    return carry(do_link, (args){ .self = self, .pid = other });
}
void lim__away_unlink(lim_process *self, lim_pid other)
{
    (void)carry(do_unlink, (args){ .self = self, .pid = other });
}
lim_err lim__away_monitor(lim_process *self, lim_pid other, uint64_t *out)
{
    return carry(do_monitor, (args){ .self = self, .pid = other, .ref_out = out });
}
void lim__away_demonitor(lim_process *self, uint64_t monitor)
{
    (void)carry(do_demonitor, (args){ .self = self, .ref = monitor });
}
lim_err lim__away_spawn(lim_process *self, const lim_spawn_opts *opts, lim_pid *out)
{
    return carry(do_spawn, (args){ .self = self, .in = opts, .pid_out = out });
}
void lim__away_exit(lim_process *self, lim_reason reason)
{
    (void)carry(do_exit, (args){ .self = self, .number = reason });
}
lim_err lim__away_exit_process(lim_process *self, lim_pid target, lim_reason reason)
{
    return carry(do_exit_process, (args){ .self = self, .pid = target, .number = reason });
}
lim_err lim__away_request(lim_process *self, lim_pid to, uint32_t tag, lim_bytes body, int64_t timeout_ms,
                          uint64_t *out)
{
    return carry(
        do_request,
        (args){ .self = self, .pid = to, .number = tag, .body = body, .timeout_ms = timeout_ms, .ref_out = out });
}
lim_err lim__away_respond(lim_process *self, const lim_signal *request, lim_bytes body)
{
    return carry(do_respond, (args){ .self = self, .in = request, .body = body });
}
lim_err lim__away_timer_start(lim_process *self, uint64_t delay_ns, uint32_t tag, uint64_t *out)
{
    return carry(do_timer_start, (args){ .self = self, .ref = delay_ns, .number = tag, .ref_out = out });
}
bool lim__away_timer_cancel(lim_process *self, uint64_t timer)
{
    args a = { .self = self, .ref = timer };
    lim__call_home(self, do_timer_cancel, &a);
    return a.yes;
}
lim_err lim__away_ready(lim_process *self)
{
    return carry(do_ready, (args){ .self = self });
}
