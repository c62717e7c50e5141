/* SPDX-License-Identifier: Apache-2.0
 * linger.c - the last bytes of a connection whose session has ended.
 *
 *   WRITING --all written--> (until_end: our direction is shut) READING --the peer ended--> closed
 *      |                        `-- not until_end ----------------------------------------> closed
 *      `-- 2 s have passed, or the socket broke -------------------------------------------> closed
 *
 * A socket that is closed with something unread in it resets the connection, and the peer may never see what it was
 * sent: whoever is told why it is cut off must be read to its end. */
#include "server/session.h"

#include <errno.h>

enum { LINGER_MS = 2000, SIP_BYTES = 64 * 1024 };

typedef enum linger_state { LINGER_WRITING = 1, LINGER_READING } linger_state;
typedef struct linger {
    porter *porter;
    lim__buf out;
    lim__watch watch;
    int fd;
    linger_state state;
    bool until_end;
} linger;

static void write_rest(lim_process *self, linger *l)
{
    lim__os *os = l->porter->os;
    size_t len = lim__buf_len(&l->out);
    long n = len == 0 ? 0 : os->send(os, l->fd, l->out.ptr + l->out.start, len);
    l->out.start += n > 0 ? (size_t)n : 0;
    if (n < 0 && n != -EAGAIN) {
        lim_exit(self, LIM_NORMAL);
    } else if (lim__buf_len(&l->out) > 0) {
        if (lim__watch_set(self, &l->watch, l->fd, LIM__IO_WRITE) != 0)
            lim_exit(self, LIM_NORMAL);
    } else if (l->until_end) {
        l->state = LINGER_READING;
        os->shutdown_write(os, l->fd);
        if (lim__watch_set(self, &l->watch, l->fd, LIM__IO_READ) != 0)
            lim_exit(self, LIM_NORMAL);
    } else {
        lim_exit(self, LIM_NORMAL);
    }
}

static void on_ready(lim_process *self, lim__watch *watch, uint32_t ready)
{
    linger *l = LIM_CONTAINER(watch, linger, watch);
    lim__os *os = l->porter->os;
    (void)ready;
    if (l->state == LINGER_WRITING) {
        write_rest(self, l);
        return;
    }
    long n = os->recv(os, l->fd, l->porter->reading, SIP_BYTES);
    if (n <= 0 && n != -EAGAIN)
        lim_exit(self, LIM_NORMAL);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->kind == LIM_SIGNAL_TIMER)
        lim_exit(self, LIM_NORMAL);
}

static void count(porter *p, int by)
{
    uint32_t n = atomic_load_explicit(&p->session_count, memory_order_relaxed);
    atomic_store_explicit(&p->session_count, n + (uint32_t)by, memory_order_relaxed);
}

static void on_end(void *state, lim_reason reason)
{
    linger *l = state;
    (void)reason;
    l->porter->os->close(l->porter->os, l->fd);
    lim__buf_fini(&l->out);
    count(l->porter, -1);
}

void lim__linger(porter *p, lim_process *self, int fd, lim__buf *out, bool until_end)
{
    linger init = { .porter = p,
                    .out = *out,
                    .watch = { .on_ready = on_ready },
                    .fd = fd,
                    .state = LINGER_WRITING,
                    .until_end = until_end };
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "linger",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init };
    lim_pid pid;
    uint64_t timer;
    if (lim_spawn(self, &opts, &pid) != LIM_OK) {
        p->os->close(p->os, fd);
        lim__buf_fini(out);
        return;
    }
    *out = (lim__buf){ 0 };
    count(p, 1);
    lim_process *process = lim__local_process(p->sched, pid);
    if (lim_timer_start(process, LINGER_MS * 1000000ull, 1, &timer) != LIM_OK) {
        lim_exit(process, LIM_NORMAL);
        return;
    }
    write_rest(process, lim__proc_state(process));
}
