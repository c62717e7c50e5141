/* SPDX-License-Identifier: Apache-2.0
 * schedule.h - schedules: a task or a message at an instant, every so often, or by a calendar rule ($sys.schedules).
 *
 * ---- the ops of $sys.schedules: JSON asks, like those of every $sys group; errors are {"error":{"code","message"}} ----
 *
 * {"op":"add", ...}: answers {"schedule": as show has it}
 *   name          1..255 bytes, segments of [A-Za-z0-9_-] joined by dots. EXISTS if it is taken, unless
 *   replace       true: the new one takes its place, and begins anew
 *   queue         a task goes there; or
 *   channel       a message goes there
 *   type          of the task; "" unless said
 *   payload       text as it is, anything else as its JSON; or
 *   payload_base64; neither: {"schedule":NAME,"at":INSTANT,"fire":N}, N = 1, 2, ... At most 64 KiB, 64 MiB over all
 *   options       object, of the task: priority key weight order_key unique_key on_duplicate delay_ms start_to_close_ms
 *                 progress_ms report_to durable trace traceparent (as in data/options.h; numbers, texts, true)
 *   timeout_ms    of the task, from fire to result; none: no limit
 *   and one of
 *   at            "2026-03-29T02:30:00" in the zone, or with Z or an offset (+02:00). A minute needs no seconds
 *   every_ms      1000 .. 366 days; counted from `start`, or from now
 *   rrule         RFC 5545, as "FREQ=DAILY;BYHOUR=2;BYMINUTE=30"; calendar.h says which parts
 *   cron          five fields, as "30 2 * * 1-5" or "@daily"
 *   start         of every_ms and rrule (its DTSTART): like `at`; none: now, to the second
 *   zone          "Europe/Berlin" (the system's zone data); none: UTC
 *   catch_up      what becomes of instants that were missed by more than `grace_ms` (the bus was busy or away, the clock
 *                 jumped): "one" (all of them fire once; the default), "skip", or "all", up to
 *   catch_up_max  1..1000 of them, the oldest; 100 unless said. Those left out are counted as missed
 *   grace_ms      1000 .. 1 day; 60000 unless said. A fire within it is on time
 *   overlap       queue only: "allow" (default), or "skip": no fire while the last fire's task still waits or runs
 *   paused        true: added paused
 *
 * {"op":"ls", "after":NAME, "max":N}   {"schedules":[line...], "more":bool}, by name; max 1..1000, 1000 unless said
 * {"op":"show", "name"}                {"schedule": line and details}
 * {"op":"pause", "name"}               while paused nothing fires, and nothing is missed
 * {"op":"resume", "name"}
 * {"op":"rm", "name"}                  its last task runs on
 *                                      each of these three answers {"schedule": line}
 * {"op":"fire", "name"}                now, also when paused, whatever overlaps; the rule goes on as it was. Answers
 *                                      {"fire": as `last` has it} once the verdict is known
 *
 * line      name, state (active paused done), to ("queue" or "channel"), target, type, rule (text: "at ...", "every ...",
 *           "rrule ...", "cron ..."), zone, next (instant; absent: none), fires (how many), last_verdict (absent: none)
 * details   start, catch_up, catch_up_max, grace_ms, overlap, bytes (of the payload; absent: the default), options,
 *           timeout_ms, upcoming ([instant...], at most 5), fires, rejected, overlapped, missed (counts), running (bool),
 *           durability (as in receipts: "memory" "os" "disk"),
 *           last: {at, fired_at, late_ms, verdict (accept defer reject), why, task, how (once it ended), manual}
 * Instants are RFC 3339 in the schedule's zone: "2026-03-29T03:30:00+02:00"; in UTC with Z.
 *
 * On a bus with a store each of them is two rows: what was asked for, and how far it has come. A change is answered when it
 * is stored; a fire is stored before it happens, so that no instant fires twice: what a bus that died at that moment had not
 * done yet is not done later. Instants that passed while the bus was away are missed ones (catch_up). `show` says under
 * "durability" what it survives. A store that takes nothing (full) holds fires back until it does.
 *
 * A done one (its rule has no more instants) stays listed, and is the first to go when there are 10,000 (MAX) schedules.
 * A rejected fire is not tried again: the next instant is.
 *
 * ---- time ----
 * Rules speak of wall clock time, timers of monotonic time. Each wake compares them anew: at a request, when the earliest
 * schedule is due, and before that after an eighth of the wait (at least a minute, at most an hour), so a jump of the wall
 * clock is noticed then. Nothing is scheduled: no wake at all. Set forward: what was jumped over is missed. Set back by
 * an hour or less: no instant fires twice; by more: rules go on from the new time. Intervals go on at once in any case. */
#ifndef LIM__SCHEDULE_H
#define LIM__SCHEDULE_H

#include "bus/bus.h"
#include "bus/durable.h"

/* The row that says that a fire has become a task: see lim__open. Nine bytes. */
static inline void lim__schedule_mark_key(uint8_t key[9], uint64_t mark)
{
    key[0] = 0; /* no name begins so */
    lim__key_u64(key + 1, mark);
}

enum { LIM__SCHEDULES_MAX = 10000, LIM__SCHEDULE_PAYLOAD_MAX = 65536, LIM__SCHEDULES_BYTES_MAX = 64 << 20 };

typedef struct lim__schedules lim__schedules; /* the book of all of them: outlives the process that reads it */
lim__schedules *lim__schedules_new(uint64_t seed); /* NULL: no memory */
void lim__schedules_free(lim__schedules *book);    /* after the runtime has ended; NULL is a no-op */
uint64_t lim__schedules_count(const lim__schedules *book);

/* Every signal of the process behind $sys.schedules, after system.c has dealt with requests. */
struct lim__system;
void lim__schedules_on_signal(struct lim__system *s, const lim_signal *signal);
void lim__schedules_before(struct lim__system *s); /* before each of them */
/* Reads the rows of a store (durable.h); the process takes them in. */
lim_err lim__schedules_restore(lim_bus *bus, lim_diag *diag);

/* Everything that changes the book goes through lim__schedules_apply. PUT: `json` is an add request that was checked. FIRED:
 * the instant `at_ns` is dealt with, whatever came of it. */
typedef enum lim__schedule_change_kind {
    LIM__SCHEDULE_PUT = 1, LIM__SCHEDULE_PAUSE, LIM__SCHEDULE_RESUME, LIM__SCHEDULE_RM, LIM__SCHEDULE_FIRED
} lim__schedule_change_kind;
typedef struct lim__schedule_change { /* VIEW */
    lim__schedule_change_kind kind;
    lim_bytes name;
    lim_bytes json;     /* PUT */
    uint64_t wall_ns;   /* when it was made; PUT: what "now" means in the request */
    uint64_t at_ns;     /* FIRED */
    uint32_t missed, overlapped; /* FIRED: how many instants up to that one were passed over, and why */
    bool nothing;       /* FIRED: nothing fired, these were only passed over */
    bool manual;        /* FIRED: by the op `fire` */
} lim__schedule_change;
/* INVALID, EXISTS, NOTFOUND, FULL, NOMEM: diag says why; nothing has changed. On the thread of the process, or any before it
 * started. */
lim_err lim__schedules_apply(lim__schedules *book, const lim__schedule_change *change, lim_diag *diag);

#endif
