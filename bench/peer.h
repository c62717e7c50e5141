/* SPDX-License-Identifier: Apache-2.0
 * peer.h - what bench-tcp drives: raw connections, and a table of functions for each protocol that it can speak.
 *
 * The clients are as small as the protocol allows: one thread, bytes encoded ahead, large reads, and of what comes back
 * only counts are kept. What is measured is the server, and the same workload code measures every server: nothing in
 * tcp.c knows whom it talks to.
 *
 *      recv --> in --take--> counters and events of the connection, answers due into `out` --bench_flush--> send
 *
 * Some servers keep what is published, and can be read from the beginning: those have the last lines of the table, too
 * (bench-durable_tcp).
 *
 * Whatever goes wrong ends the program with a line on stderr: a number from a broken run is worse than none. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include "wire/wire.h"

#include <stdio.h>
#include <sys/types.h>

enum {
    BENCH_IN = 256 * 1024,     /* one recv */
    BENCH_WRITE = 64 * 1024,   /* one batch of publishes */
    BENCH_PAYLOAD = 16,        /* of a request, and of its reply */
    BENCH_SLOTS_MAX = 4096,    /* outstanding requests of one connection */
    BENCH_WINDOW = 1024 * 1024 /* a subscriber's credit, in messages */
};

typedef struct bench_peer bench_peer;

/* One connection and what it has seen. `take` is the only writer of the counters. */
typedef struct bench_conn {
    const bench_peer *peer;
    int fd;
    uint32_t index; /* among the connections of its process; names a reply inbox */
    lim__buf out;   /* to be flushed */
    uint8_t *in;    /* BENCH_IN bytes; the first `have` are an incomplete frame */
    size_t have;
    lim__wire wire; /* liminal's session; unused by others */
    /* a subscriber */
    size_t unit;     /* bytes of one delivery on the wire; 0: expects none */
    uint32_t window; /* of its credit */
    uint64_t delivered, acked, dropped;
    uint64_t next; /* number of the next message, of one that reads a log; 0: they are not looked at */
    /* a publisher */
    uint64_t answered; /* publishes that the server has answered */
    uint64_t deferred, rejected; /* deliveries that had to wait in the server, publishes that were in vain */
    uint64_t pongs;
    uint64_t last_id[2]; /* redis: of the last entry of the page being read */
    bool confirmed; /* the subscription or registration is in force */
    /* an asker: the slots whose answer `take` has found, to be emptied by whoever called it */
    uint32_t done_count, crashed_count;
    uint32_t done[BENCH_SLOTS_MAX];
    lim__buf request; /* encoded once, numbered at each use */
    /* a responder */
    uint64_t requests; /* seen, and answered into `out` unless it is deaf */
    bool deaf;         /* counts requests without answering them */
    bool tasks;        /* its asks are dispatches */
    bool kept;         /* its asks, or tasks, are durable */
    bool listens;      /* what answers an ask goes to `heard`, with a 0 behind it */
    lim__buf heard;
    uint64_t conv, lease; /* of the last request that a deaf one was handed */
} bench_conn;

struct bench_peer {
    const char *name;
    bool tells_crashes; /* whoever waits for a participant that died is told */
    bool tells_waiting; /* whoever publishes is told what had to wait */
    void (*greet)(bench_conn *c); /* blocks until the server takes orders */
    /* Blocks until in force. `size`: of the messages; `backlog`: how many may wait beyond the window before old ones go. */
    void (*subscribe)(bench_conn *c, const char *channel, size_t size, uint32_t window, uint32_t backlog);
    void (*serve)(bench_conn *c, const char *group); /* blocks until in force */
    void (*prepare_asking)(bench_conn *c, const char *group); /* before the first put_ask; fills c->request */
    void (*put_publish)(lim__buf *out, const char *channel, size_t size); /* one message */
    /* Numbers a batch of equal publishes, `stride` bytes each, before it is sent. */
    void (*number)(uint8_t *batch, size_t stride, size_t count, uint64_t first);
    void (*put_ask)(bench_conn *c, uint32_t slot);
    /* Deals with all whole frames and answers with the first byte that belongs to none. */
    const uint8_t *(*take)(bench_conn *c, const uint8_t *p, const uint8_t *end);
    void (*settle)(bench_conn *c, uint64_t published); /* blocks until the server has handled them all */
    /* ---- of those that keep a log: each publish to it is answered when it is kept, in order (c->answered) ---- */
    const char *class;                                  /* what a publish that was answered survives */
    void (*create)(bench_conn *c, const char *channel); /* blocks; one that is there is left as it is; before publishing */
    void (*replay)(bench_conn *c, const char *channel, size_t size); /* from the first on; the log has nobody else's */
};

extern const bench_peer bench_liminal, bench_nats, bench_redis, bench_jetstream;

/* ---- tasks, which only liminald has in this form (peer_liminal.c) ---- */
void bench_liminal_work(bench_conn *c, const char *queue, uint32_t capacity); /* blocks until in force */
void bench_liminal_prepare_tasks(bench_conn *c, const char *queue);           /* put_ask then dispatches */
void bench_liminal_acknowledge(bench_conn *c); /* a deaf worker: the last request is in its hands */
void bench_liminal_answer(bench_conn *c);      /* and is done */
void bench_liminal_read_on(bench_conn *c, const char *log, size_t size); /* what is new in it, up to 16384 messages */
uint64_t bench_liminal_batches(bench_conn *c); /* that the store has written */

/* ---- connections (peer.c) ---- */
bench_conn *bench_connect(const bench_peer *peer, uint16_t port, uint32_t index); /* greeted */
void bench_close(bench_conn *c);
void bench_flush(bench_conn *c); /* blocks until `out` is empty */
/* One recv, then take. Answers false if there was nothing (flags has MSG_DONTWAIT). The end of the stream ends us. */
bool bench_read(bench_conn *c, int flags);

/* ---- numbers (peer.c) ---- */
uint64_t bench_now_ns(void);
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern const char *bench_class; /* of all results that follow; "": memory */
void bench_result(double value, const char *unit, const char *format, ...) __attribute__((format(printf, 3, 4)));
void bench_percentiles(uint64_t *ns, size_t count, const char *name); /* sorts; p50, p99, p999 in microseconds */

/* ---- the disk alone (disk.c): a file that was full of zeros before, past the page cache ---- */
typedef struct bench_disk {
    int fd;
    void *block;
    off_t at;
    char path[4200];
} bench_disk;
void bench_disk_open(bench_disk *d, const char *dir); /* a file in that directory */
void bench_disk_write(bench_disk *d);                 /* one block of 4 KiB, synced */
void bench_disk_close(bench_disk *d);                 /* and removes it */

/* ---- the least that a server can do which answers when it is on the disk (durable_floor.c) ---- */
extern const bench_peer bench_floor;
pid_t bench_floor_start(const char *dir, uint16_t *port); /* a process of its own, for one connection; its file is in dir */
void bench_floor_stop(pid_t pid);

/* Of the server, whose process id is in $SERVER_PID; 0 without it. */
uint64_t bench_server_cpu_ns(void); /* of all its threads that live */
uint64_t bench_server_wakes(void);  /* voluntary switches of all its threads */

#endif
