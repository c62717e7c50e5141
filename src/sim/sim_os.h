/* SPDX-License-Identifier: Apache-2.0
 * sim_os.h - a world in one thread: machines, a network between them, a clock that jumps, and chance from one seed.
 *
 * A test opens a world, asks it for a host (a `lim__os` table) per simulated program, opens runtimes, servers and
 * clients over these tables, registers whatever they would give to a thread as tasks, and steps. Everything that could
 * go one way or another is decided by the seed: which task runs next, how long a segment travels, how many bytes a
 * recv returns. The same seed gives the same history, byte for byte; lim__sim_hash says whether it did.
 *
 *      lim__sim *sim = lim__sim_open(seed);
 *      lim__os *server = lim__sim_host(sim, "server"), *client = lim__sim_host(sim, "client");
 *      ... open things over `server` and `client`, lim__sim_task_add for each of their loops ...
 *      lim__sim_at(sim, lim__sim_now(sim) + 5000000000u, pull_the_plug, server);
 *      assert_true(lim__sim_run(sim, lim__sim_now(sim) + 60000000000u, everybody_has_answers, ctx));
 *      lim__sim_close(sim);
 *
 * Limits: 64 machines; addresses are 10.0.0.N, a machine's name, or "localhost" for oneself; a disk per machine; no threads.
 * All functions belong to the one thread of the test, and may be called inside turns and scripts. Functions that take
 * a host take any table that lim__sim_host returned, a killed program's too: they mean its machine, kill and freeze
 * mean the program. Memory that runs out aborts. */
#ifndef LIM__SIM_OS_H
#define LIM__SIM_OS_H

#include "os/os.h"
#include "base/rng.h"
#include <stdio.h>

typedef struct lim__sim lim__sim;
typedef struct lim__sim_task lim__sim_task;

enum { LIM__SIM_MACHINES_MAX = 64 };
#define LIM__SIM_NEVER UINT64_MAX

/* The network's manners. lim__sim_open draws them from the seed (tiny buffers in one world, slow links in another);
 * get, change and set them to fix some. Buffers are drawn per direction of each new connection. */
typedef struct lim__sim_net {
    uint64_t delay_min_ns, delay_max_ns; /* of one segment between two machines */
    uint64_t spike_max_ns;               /* a delayed segment's delay, at most ... */
    uint32_t spike_permille;             /* ... and how often that happens */
    uint32_t buffer_min, buffer_max;     /* bytes a socket can send ahead, and as many it can receive unread; > 0 */
    uint32_t short_read_permille;        /* recv returns less than it could */
    uint32_t short_write_permille;       /* send takes less than it could */
    uint64_t turn_min_ns, turn_max_ns;   /* what a task's turn takes; > 0, or a busy task would stop the clock */
    uint64_t clock_read_ns;              /* what reading the clock takes: a loop that waits for time gets there */
} lim__sim_net;

/* ---- the world ---- */
lim__sim *lim__sim_open(uint64_t seed);
void lim__sim_close(lim__sim *sim); /* frees every table, poller and socket; close what runs over them before */
uint64_t lim__sim_seed(const lim__sim *sim);
lim__sim_net lim__sim_net_get(const lim__sim *sim);
void lim__sim_net_set(lim__sim *sim, const lim__sim_net *net);
/* For the script's own choices: a stream of its own, so that the network's draws do not change the script. */
lim__rng *lim__sim_rng(lim__sim *sim);

/* ---- hosts ---- */
/* The running program of that machine; starts the machine, or a new program on it when the last one was killed. The
 * table lives until lim__sim_close. Name: at most 31 bytes. */
lim__os *lim__sim_host(lim__sim *sim, const char *name);
const char *lim__sim_host_address(const lim__os *host); /* "10.0.0.1" */
lim__sim *lim__sim_of(const lim__os *host);
/* SIGKILL: its tasks never run again, the kernel closes its sockets; peers read what was in flight, then 0, or
 * -ECONNRESET if it left bytes unread. Calls through its table fail with -EBADF and change nothing, so what is left
 * of the program can be torn down afterwards. Idempotent. */
void lim__sim_kill_host(lim__sim *sim, lim__os *host);
/* The same, in the middle of a turn: at the n-th call through the table that concerns sockets from now, before it
 * acts. 0 takes it back. */
void lim__sim_kill_host_at_call(lim__sim *sim, lim__os *host, uint64_t n);
/* Power loss of the machine: as a kill of its program, if one runs, but nobody is told. Peers find out by their own
 * detectors (set_liveness), or by a reset once the machine is up again (lim__sim_host) and they send. */
void lim__sim_power_off(lim__sim *sim, lim__os *host);
bool lim__sim_host_alive(const lim__os *host);
void lim__sim_freeze_host(lim__sim *sim, lim__os *host); /* SIGSTOP: its kernel goes on receiving */
void lim__sim_thaw_host(lim__sim *sim, lim__os *host);

/* ---- the network between two machines ---- */
/* Silence both ways. What is sent meanwhile arrives after the healing, if the sockets live that long: those with
 * set_liveness end with -ETIMEDOUT. */
void lim__sim_cut(lim__sim *sim, lim__os *a, lim__os *b);
void lim__sim_heal(lim__sim *sim, lim__os *a, lim__os *b);
/* Every connection between the two ends with -ECONNRESET at both ends; what was in flight is lost. */
void lim__sim_reset(lim__sim *sim, lim__os *a, lim__os *b);

/* ---- the disk of a machine ----
 * A machine has one disk; its files outlive the programs. What was written and not synced is in the page cache (or,
 * DIRECT, in the drive's cache): a kill leaves it, a power_off (of a machine whose program was killed, too) does not.
 * What a power loss leaves of each unsynced write is drawn from the seed, 512-byte sector by sector: old bytes, new
 * bytes, and later writes may survive earlier ones. So is the size: an extension may survive without its bytes, which
 * are zeros then. Names (create, rename, remove) that no dir_sync covered may or may not have happened, in any subset.
 *
 * A file_sync that fails settles the same question there and then, for good, but for sizes, which are kept: DIRECT reads
 * show what the device has, reads through the page cache show what was written through it, and a later sync succeeds
 * and writes nothing, until the page is written again. A DIRECT write that fails may have written any of its sectors.
 *
 * Paths are relative to the root of the machine; ".." is -EINVAL; files are renamed, directories are not. A byte that
 * was never written takes no space, a page of 4 KiB with one that was takes all of it. Reads take no time. */
typedef struct lim__sim_disk {                   /* lim__sim_host draws times and short writes; the rest is 0 unless set */
    uint64_t capacity;                           /* bytes; a write beyond is short, then -ENOSPC. default 1 TiB */
    uint64_t write_min_ns, write_max_ns;         /* what a write or a change of names takes of the caller's time */
    uint64_t sync_min_ns, sync_max_ns;           /* and a sync */
    uint32_t short_write_permille;               /* a write takes less than it could */
    uint32_t write_error_permille, sync_error_permille, read_error_permille; /* -EIO; sync: of files and directories */
    bool keep_nothing, keep_everything;          /* of unsynced changes, whenever some are lost; neither: drawn */
} lim__sim_disk;
lim__sim_disk lim__sim_disk_get(const lim__os *host);
void lim__sim_disk_set(lim__os *host, const lim__sim_disk *disk);
/* The n-th call from now on the host's machine that concerns files (file_close does not count) fails with -err before it
 * acts (err > 0; of a failed file_sync see above), or, with err 0, kills the program there; a write may have happened in
 * part. n = 0 takes it back. */
void lim__sim_disk_fail_at_call(lim__os *host, uint64_t n, int err);
uint64_t lim__sim_disk_calls(const lim__os *host);  /* so far, all programs of the machine */
uint64_t lim__sim_disk_syncs(const lim__os *host);  /* successful file_syncs so far: what a commit is counted in */
/* Rot: flips bit `bit` (0..8*size-1) of a file, on the platter and in what any reader sees; a sector that is unsynced is
 * written as it was. -ENOENT, -ERANGE or 0. */
int lim__sim_disk_flip(lim__os *host, const char *path, uint64_t bit);
/* The contents as a reader through the page cache would see them now, for a test; malloc'd. 0 or -errno. */
int lim__sim_disk_read(lim__os *host, const char *path, void **out, size_t *len);

/* ---- time ---- */
uint64_t lim__sim_now(const lim__sim *sim);
/* Lets the network and the scripts happen until then, running no task. */
void lim__sim_advance_to(lim__sim *sim, uint64_t when_ns);
/* Runs fn once, between turns, when the clock gets there (the past: at the next step). Same instant: in order of call.
 */
void lim__sim_at(lim__sim *sim, uint64_t when_ns, void (*fn)(lim__sim *sim, void *ctx), void *ctx);

/* ---- tasks: what would be threads ---- */
/* `turn` runs without blocking and returns true if there is more to do at once. It runs first soon after it was added,
 * then whenever a poller that it waits on is ready, woken or past the time it wanted to wait, or `next_due_ns` (may be
 * NULL; LIM__SIM_NEVER: nothing) has come, or the last turn returned true. A poller belongs to the task that waited on
 * it last. `name` is copied (31 bytes). */
lim__sim_task *lim__sim_task_add(lim__sim *sim, lim__os *host, const char *name, bool (*turn)(void *ctx),
                                 uint64_t (*next_due_ns)(void *ctx), void *ctx);
void lim__sim_task_remove(lim__sim *sim, lim__sim_task *task); /* NULL is a no-op; also inside its own turn */
/* Makes the task run again, as if it had returned true. */
void lim__sim_task_poke(lim__sim_task *task);

/* One turn of one task that can run, chosen by the seed; or, when none can, a jump of the clock to the next event.
 * False: nothing will ever happen again. */
bool lim__sim_step(lim__sim *sim);
/* Steps until done(ctx) holds (true), or the clock reaches until_ns or nothing is left to happen (false). done may be
 * NULL; then until_ns is reached unless nothing is left to happen, in which case the clock is set to it. */
bool lim__sim_run(lim__sim *sim, uint64_t until_ns, bool (*done)(void *ctx), void *ctx);

/* ---- history ---- */
/* Adds a line to the history. No addresses, no real time, nothing that differs between two runs of a seed. */
void lim__sim_note(lim__sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t lim__sim_hash(const lim__sim *sim); /* of every line so far */
uint64_t lim__sim_steps(const lim__sim *sim);
void lim__sim_trace(lim__sim *sim, FILE *out); /* from now on also print the lines there; NULL: no more */

#endif
