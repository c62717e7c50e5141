/* SPDX-License-Identifier: Apache-2.0
 * saga.h - sagas: steps one after the other, each with what undoes it ($sys.sagas).
 *
 * ---- the ops of $sys.sagas: JSON asks; errors are {"error":{"code","message"}} ----
 *
 * {"op":"run", ...}: answers when the saga has ended. It goes on when its asker has given up or died: `show` tells then
 *   name          for people and lists, at most 255 bytes; may be left out
 *   durable       true: it survives the bus, which needs a data directory (MISUSE); see below
 *   timeout_ms    of the steps together; then the one under way is cancelled and compensation begins. 10 minutes unless
 *                 said, at most 30 days
 *   steps         1..64 of them, in order:
 *     name            1..255 bytes, each once; none: "1", "2", ...
 *     ask             a group; or
 *     dispatch        a queue
 *     type            "" unless said
 *     payload         text as it is, anything else as its JSON; or
 *     payload_base64; neither: empty
 *     timeout_ms      60000 unless said, at most 30 days
 *     compensate      a queue; none: there is nothing to undo
 *     compensation    the task's payload, text as it is, anything else as its JSON. Unless said:
 *                     {"saga":ID,"step":NAME,"how":HOW,"handed_over":..,"request":TEXT,"reply":TEXT}; what is not UTF-8
 *                     comes as request_base64, reply_base64; no reply: no such member
 *     compensation_type         of that task; "compensate" unless said
 *     compensation_timeout_ms   from its dispatch to its result; an hour unless said, at most 30 days
 *
 *   A step succeeds with a reply. When one does not, or the whole takes too long, or it is cancelled, the compensations of
 *   those that had succeeded run in reverse order, each after the end of the one before; first that of the step that
 *   failed, unless it was surely handed to nobody (handed_over "no"). A compensation is a task: its retries, losses and
 *   dead letters are its queue's. One that a full queue rejects is offered again until its time is over. One that ends
 *   without a result leaves the saga stuck, and the others still run.
 *
 *   {"saga":ID, "name", "outcome":"done"|"compensated"|"stuck",
 *    "steps":[{"name", "how", "handed_over", "why", "detail", "payload" or "payload_base64", "participant", "id",
 *              "elapsed_ms"}...],
 *    "compensations":[{"name", "queue", "task", "how", "why", "detail", "payload" or "payload_base64"}...]}
 *   Steps that were never begun are not listed; why, detail, payload, participant, task only when there are such. A payload
 *   of more than 64 KiB, or that no longer fits into 512 KiB, is told by its size: "bytes". What has not ended: how "running".
 *
 * {"op":"ls", "ended":true}  {"sagas":[{id, name, state ("running" "compensating" "done" "compensated" "stuck"), step
 *                            (name of the one under way), steps (count), age_ms}...]}: those that run; ended: the newest
 *                            256 of those that ended, too
 * {"op":"show", "id"}        {"saga": as in ls, steps and compensations as in the answer, step_count}
 * {"op":"cancel", "id"}      the step under way is cancelled, compensation begins; answers {"id"}. Once it compensates:
 *                            INVALID
 *
 * At most 1000 run at once; one more is refused with FULL.
 *
 * ---- durable ones ----
 * How far it has come is stored before the next step or compensation begins, and goes on there after a restart; clocks run on
 * meanwhile. Its tasks are durable, too, and carry an idempotency key of their own each, so that one that was dispatched and
 * not answered when the bus died is dispatched again without running again: its result, or the task itself if it lives, is
 * there. An ask that was under way then has failed, handed_over "unknown", and is undone: what must go on is a task. While the
 * store takes nothing (full) it waits. Of those that ended the newest 256 are known after a restart, too.
 *
 * ---- who does what ----
 *   asker --run--> service ($sys.sagas) --spawns, watches--> saga process --asks, tasks--> groups and queues
 *                  `-- the book: a record per saga, outlives both
 * A saga process that dies (no memory) is started again on its record: the step that was under way counts as failed with
 * handed_over "unknown", a compensation that was under way is awaited by its id. After 5 deaths the saga is stuck. */
#ifndef LIM__SAGA_H
#define LIM__SAGA_H

#include "bus/bus.h"

enum { LIM__SAGA_STEPS_MAX = 64, LIM__SAGAS_MAX = 1000, LIM__SAGAS_ENDED_MAX = 256 };

typedef struct lim__sagas lim__sagas; /* the book */
lim__sagas *lim__sagas_new(void);       /* NULL: no memory */
void lim__sagas_free(lim__sagas *book);    /* after the runtime has ended; NULL is a no-op */
uint64_t lim__sagas_running(const lim__sagas *book);

/* Every signal of the process behind $sys.sagas, after system.c has dealt with requests. */
struct lim__system;
void lim__sagas_on_signal(struct lim__system *s, const lim_signal *signal);
void lim__sagas_before(struct lim__system *s); /* before each of them */
/* Reads the rows of a store (durable.h); the process takes them in. */
lim_err lim__sagas_restore(lim_bus *bus, lim_diag *diag);

/* ---- the state machine of one saga, without a bus ----
 *
 *   FORWARD --reply of the last step--> ENDED (done)
 *      | a step did not succeed, time over, cancelled
 *      v
 *   UNDO  --each compensation ended, newest first--> ENDED (compensated, or stuck if one had no result)
 *
 * A step is WAITING, RUNNING, SUCCEEDED or FAILED; UNTOUCHED: failed, and surely handed to nobody. Undoing goes from
 * NONE (nothing to undo, or not yet due) over RUNNING to UNDONE or STUCK.
 *
 * Invariants (lim__saga_check):
 *   S1  at most one step or compensation is RUNNING, and exactly one unless ENDED.
 *   S2  steps before the one under way have SUCCEEDED, those after it are WAITING.
 *   S3  a compensation is begun only for SUCCEEDED or FAILED steps that have one, newest first, each once.
 *   S4  ENDED without failure: nothing was undone. ENDED after one: everything of S3 is UNDONE or STUCK. */
typedef enum lim__saga_state { LIM__SAGA_FORWARD = 1, LIM__SAGA_UNDO, LIM__SAGA_ENDED } lim__saga_state;
typedef enum lim__saga_step_state {
    LIM__STEP_WAITING = 1, LIM__STEP_RUNNING, LIM__STEP_SUCCEEDED, LIM__STEP_FAILED, LIM__STEP_UNTOUCHED
} lim__saga_step_state;
typedef enum lim__saga_undo_state {
    LIM__UNDO_NONE = 1, LIM__UNDO_RUNNING, LIM__UNDO_UNDONE, LIM__UNDO_STUCK
} lim__saga_undo_state;
typedef struct lim__saga_plan {
    lim__saga_state state;
    uint32_t count, at; /* at: the step, or the step whose compensation is under way */
    struct {
        lim__saga_step_state step;
        lim__saga_undo_state undo;
        bool undoable;  /* it has a compensation */
    } steps[LIM__SAGA_STEPS_MAX];
} lim__saga_plan;
typedef enum lim__saga_event {
    LIM__SAGA_SUCCEEDED = 1, /* what is under way has ended with a reply */
    LIM__SAGA_FAILED,        /* or otherwise */
    LIM__SAGA_UNTOUCHED      /* a step: and surely nobody had it */
} lim__saga_event;
typedef enum lim__saga_do { LIM__SAGA_DO_STEP = 1, LIM__SAGA_DO_UNDO, LIM__SAGA_DO_END } lim__saga_do;
/* Moves the plan; what to do now, with plan->at. Does nothing itself. */
lim__saga_do lim__saga_begin(lim__saga_plan *plan);
lim__saga_do lim__saga_step(lim__saga_plan *plan, lim__saga_event event);
bool lim__saga_stuck(const lim__saga_plan *plan); /* some compensation had no result */
void lim__saga_check(const lim__saga_plan *plan);

#endif
