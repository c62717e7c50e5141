/* SPDX-License-Identifier: Apache-2.0
 * os.h - everything that liminal asks of the machine, as one table.
 *
 * Nothing outside src/os makes a system call, reads a clock, draws a random number or has a platform #ifdef. There are
 * two tables: lim__os_linux() (epoll, eventfd) and the simulated one in src/sim, where sockets, the clock and the
 * schedulers' turns come from one seed. Code that gets its `lim__os *` handed in runs unchanged on both.
 *
 * Every call that can fail returns a negative errno (-EAGAIN, -ECONNRESET, ...) and never touches errno otherwise.
 * All sockets are non-blocking, close-on-exec and have TCP_NODELAY. No call blocks except poller_wait and those on files.
 *
 * Threads and locks below the table are used only by code that the simulator does not run (it calls turn functions
 * instead) or are leaves that are never contended there. */
#ifndef LIM__OS_H
#define LIM__OS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>

typedef struct lim__os lim__os;
typedef struct lim__poller lim__poller;

enum { LIM__IO_READ = 1, LIM__IO_WRITE = 2 }; /* an error or hang-up is reported as both */

enum { /* file_open; without WRITE: for reading only */
    LIM__FILE_WRITE = 1,
    LIM__FILE_CREATE = 2,    /* mode 0600, if it is not there */
    LIM__FILE_EXCLUSIVE = 4, /* with CREATE: -EEXIST if it is there */
    LIM__FILE_DIRECT = 8,    /* past the page cache (O_DIRECT), where the file system can */
    LIM__FILE_ALL = 15,
};
enum { LIM__FILE_BLOCK = 4096 };

typedef struct lim__io_event {
    void *ctx;      /* what poller_set was given */
    uint32_t ready; /* LIM__IO_* */
} lim__io_event;

struct lim__os {
    /* --- clock and chance --- */
    uint64_t (*now_ns)(lim__os *os);  /* monotonic; two calls may return the same value, never a smaller one */
    uint64_t (*wall_ns)(lim__os *os); /* since 1970, UTC */
    uint64_t (*random)(lim__os *os);  /* 64 random bits; any thread */

    /* --- readiness: one poller per event loop --- */
    lim__poller *(*poller_open)(lim__os *os); /* NULL: out of descriptors or memory */
    void (*poller_close)(lim__os *os, lim__poller *p);
    /* Level-triggered interest; 0 removes. `ctx` comes back in events. After removal no event for fd is returned. Remove
     * before closing the descriptor: interest is remembered by number. 0 or -errno. */
    int (*poller_set)(lim__os *os, lim__poller *p, int fd, uint32_t interest, void *ctx);
    /* Waits at most timeout_ns (0: only looks; <0: no limit), fills ev, returns how many (0: timeout or wake). */
    int (*poller_wait)(lim__os *os, lim__poller *p, lim__io_event *ev, int max, int64_t timeout_ns);
    void (*poller_wake)(lim__os *os, lim__poller *p); /* any thread: makes the current or next wait return */
    int (*poller_fd)(lim__os *os, lim__poller *p);    /* readable when poller_wait(0) would find something */

    /* --- TCP --- */
    /* `host` is a numeric address or "localhost". port 0: any; the real one goes to *port_out. */
    int (*listen)(lim__os *os, const char *host, uint16_t port, uint16_t *port_out);
    int (*accept)(lim__os *os, int listener, char *peer, size_t peer_size); /* fd; peer becomes "addr:port" */
    int (*connect)(lim__os *os, const char *host, uint16_t port); /* fd of a connection in progress: wait for WRITE */
    int (*connect_result)(lim__os *os, int fd);                   /* 0: connected; -EINPROGRESS; other: failed */
    /* recv, send, close and the poller also take the pipe ends of a lim__child. */
    long (*recv)(lim__os *os, int fd, void *buf, size_t len);     /* bytes; 0: the peer ended; negative errno */
    long (*send)(lim__os *os, int fd, const void *buf, size_t len); /* bytes taken; negative errno; no SIGPIPE */
    void (*shutdown_write)(lim__os *os, int fd);
    void (*close)(lim__os *os, int fd);
    /* Kernel detectors of a silent network: keepalive after idle_ms, TCP_USER_TIMEOUT user_timeout_ms. */
    void (*set_liveness)(lim__os *os, int fd, uint32_t idle_ms, uint32_t user_timeout_ms);

    /* --- files: these may block, and belong to the store's thread and to start-up --- */
    /* A handle (>= 0) or -errno. LIM__FILE_*; a file opened DIRECT takes only buffers, lengths and offsets that are
     * multiples of LIM__FILE_BLOCK (asserted on every file system, since some accept less and some do not). */
    int (*file_open)(lim__os *os, const char *path, uint32_t flags);
    void (*file_close)(lim__os *os, int file);
    /* Bytes, fewer than len only where the file ends; 0: at or past the end. */
    long (*file_read)(lim__os *os, int file, void *buf, size_t len, uint64_t offset);
    /* Bytes written, maybe fewer than len (the disk filled up; DIRECT: whole blocks), or -errno. On stable storage only
     * after file_sync; after an error some of it may be there all the same. */
    long (*file_write)(lim__os *os, int file, const void *buf, size_t len, uint64_t offset);
    int (*file_sync)(lim__os *os, int file); /* data and size; after an error what was unsynced may be lost for good */
    int64_t (*file_size)(lim__os *os, int file);
    int (*file_truncate)(lim__os *os, int file, uint64_t size);
    /* Against every other handle of the file, in whatever program, until closed; -EAGAIN: somebody else has it. */
    int (*file_lock)(lim__os *os, int file);
    /* Names are on stable storage only after dir_sync of their directory. rename replaces what was there. */
    int (*file_rename)(lim__os *os, const char *from, const char *to);
    int (*file_remove)(lim__os *os, const char *path);
    int (*dir_create)(lim__os *os, const char *path); /* one level, mode 0700; 0 also when the directory exists */
    int (*dir_sync)(lim__os *os, const char *path);
    /* Calls each(ctx, name) for every entry but . and .. in no promised order. 0 or -errno. */
    int (*dir_list)(lim__os *os, const char *path, void (*each)(void *ctx, const char *name), void *ctx);
    int64_t (*disk_free)(lim__os *os, const char *path); /* bytes that this program may still write there */
};

lim__os *lim__os_linux(void); /* one per program, static */

/* --- threads and locks (os/thread.c) --- */
typedef pthread_mutex_t lim__mutex;
typedef pthread_cond_t lim__cond;
typedef pthread_t lim__thread;
#define LIM__MUTEX_INIT PTHREAD_MUTEX_INITIALIZER

int lim__thread_start(lim__thread *t, const char *name, void *(*run)(void *), void *arg); /* 0 or -errno; signals blocked */
void lim__thread_join(lim__thread t);
void lim__thread_yield(void);
void lim__thread_give_way(void); /* from here on the caller runs when nobody else wants to, if the system can do that */
void lim__cond_init(lim__cond *c); /* on the monotonic clock */
bool lim__cond_wait_until(lim__cond *c, lim__mutex *m, uint64_t deadline_ns); /* false: deadline passed; UINT64_MAX: none */
unsigned lim__cpu_count(void);

/* --- files (os/file.c) --- */
/* Whole file into malloc'd memory (NUL after the last byte); "-" is standard input. 0 or -errno; -EFBIG over max. */
int lim__file_read(const char *path, size_t max, void **out, size_t *len);

/* --- child processes (os/child.c): what `--exec` needs --- */
typedef struct lim__child {
    int pid, pidfd;       /* pidfd is readable when the child has ended */
    int in, out, err;     /* our non-blocking ends of its stdin, stdout and stderr; -1 when closed. pid -1: reaped */
} lim__child;
/* Runs `sh -c command` in a process group of its own, with only descriptors 0, 1 and 2, killed by the kernel when the
 * thread that started it dies (PR_SET_PDEATHSIG, checked against the race). 0 or -errno. `env`: extra NAME=value, or NULL. */
int lim__child_start(lim__child *c, const char *command, const char *const *env);
void lim__child_kill(lim__child *c);             /* SIGKILL to its process group; nothing once it is reaped */
int lim__child_reap(lim__child *c, int *status); /* 1 reaped (wait status), 0 still running, -errno; never blocks */
void lim__child_fini(lim__child *c);             /* closes the descriptors that are not -1; kills and reaps nothing */

/* --- helper processes, and memory shared with them (os/helper.c): what the native engine needs. 0 or more, or -errno --- */
int lim__memory_open(const char *name, size_t bytes);                       /* descriptor of zeroes, to be shared */
int lim__memory_sealed(const char *name, const void *bytes, size_t len);    /* of these bytes, for ever */
int lim__memory_seal_writers(int fd); /* whoever maps it from now on may only read; who has mapped it may go on */
void *lim__memory_map(int fd, size_t bytes); /* shared, to read and write; NULL: no memory */
void lim__memory_unmap(void *at, size_t bytes);
void lim__futex_wake(_Atomic uint32_t *word); /* everybody who waits there, in whatever process */
/* While *word == value, at most timeout_ns; may return early. */
void lim__futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
int lim__event_open(void);       /* readable once somebody wrote to it */
void lim__event_clear(int event);
int lim__pair_open(int ends[2]); /* of connected sockets that keep packets apart; non-blocking */
int lim__packet_send(int fd, const void *packet, size_t len, const int *fds, int fd_count);
/* Bytes of a packet, cut to len; 0: the other end is closed; -EAGAIN. *fd gets a descriptor that came along, or -1. */
long lim__packet_recv(int fd, void *packet, size_t len, int *fd_out);
bool lim__readable(int fd, int64_t timeout_ns); /* or its other end is closed */
void lim__pidfd_kill(int pidfd);                /* SIGKILL */
uint64_t lim__process_cpu_ns(int pid);          /* processor time so far; 0: no such process */
uint64_t lim__thread_cpu_ns(void);              /* of the calling thread; not a clock of the simulator */
uint64_t lim__process_memory(int pid);          /* resident bytes; 0: no such process */
/* Runs `path` with `control` as descriptor 3, no other, no environment and default signals, in a process group of its
 * own. Answers its pid; it is the caller's to reap. */
int lim__program_start(const char *path, int control);
void lim__program_reap(int pid); /* waits for its end */
const char *lim__signal_text(int signal); /* "SEGV"; "?" if there is none of that number; static */
void lim__status_text(int status, char *out, size_t size); /* of a wait status: "ended by signal 11 (SEGV)" */
/* The folder of the program that runs, without a slash at the end. */
int lim__program_folder(char *out, size_t size);
bool lim__file_executable(const char *path);

#endif
