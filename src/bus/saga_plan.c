/* SPDX-License-Identifier: Apache-2.0
 * saga_plan.c - what a saga does next, without a bus. The picture and the invariants are in saga.h. */
#include "base/base.h"
#include "bus/saga.h"

static bool to_undo(const lim__saga_plan *p, uint32_t i)
{
    bool touched = p->steps[i].step == LIM__STEP_SUCCEEDED || p->steps[i].step == LIM__STEP_FAILED;
    return p->steps[i].undoable && touched && p->steps[i].undo == LIM__UNDO_NONE;
}

/* The newest step that is still to be undone, or the end. */
static lim__saga_do undo_next(lim__saga_plan *p)
{
    for (uint32_t i = p->count; i-- > 0;)
        if (to_undo(p, i)) {
            p->at = i;
            p->steps[i].undo = LIM__UNDO_RUNNING;
            return LIM__SAGA_DO_UNDO;
        }
    p->state = LIM__SAGA_ENDED;
    return LIM__SAGA_DO_END;
}

lim__saga_do lim__saga_begin(lim__saga_plan *p)
{
    LIM_ASSERT(p->count >= 1 && p->count <= LIM__SAGA_STEPS_MAX);
    p->state = LIM__SAGA_FORWARD;
    p->at = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        p->steps[i].step = i == 0 ? LIM__STEP_RUNNING : LIM__STEP_WAITING;
        p->steps[i].undo = LIM__UNDO_NONE;
    }
    return LIM__SAGA_DO_STEP;
}

static lim__saga_do forward(lim__saga_plan *p, lim__saga_event event)
{
    switch (event) {
    case LIM__SAGA_SUCCEEDED:
        p->steps[p->at].step = LIM__STEP_SUCCEEDED;
        if (p->at + 1 == p->count) {
            p->state = LIM__SAGA_ENDED;
            return LIM__SAGA_DO_END;
        }
        p->steps[++p->at].step = LIM__STEP_RUNNING;
        return LIM__SAGA_DO_STEP;
    case LIM__SAGA_FAILED:
    case LIM__SAGA_UNTOUCHED:
        p->steps[p->at].step = event == LIM__SAGA_FAILED ? LIM__STEP_FAILED : LIM__STEP_UNTOUCHED;
        p->state = LIM__SAGA_UNDO;
        return undo_next(p);
    }
    LIM_ASSERT(!"no such event");
    return LIM__SAGA_DO_END;
}

lim__saga_do lim__saga_step(lim__saga_plan *p, lim__saga_event event)
{
    switch (p->state) {
    case LIM__SAGA_FORWARD:
        return forward(p, event);
    case LIM__SAGA_UNDO:
        p->steps[p->at].undo = event == LIM__SAGA_SUCCEEDED ? LIM__UNDO_UNDONE : LIM__UNDO_STUCK;
        return undo_next(p);
    case LIM__SAGA_ENDED:
        break;
    }
    LIM_ASSERT(!"a saga that has ended has nothing under way");
    return LIM__SAGA_DO_END;
}

bool lim__saga_stuck(const lim__saga_plan *p)
{
    for (uint32_t i = 0; i < p->count; i++)
        if (p->steps[i].undo == LIM__UNDO_STUCK)
            return true;
    return false;
}

static bool has_failed(const lim__saga_plan *p)
{
    return p->steps[p->at].step == LIM__STEP_FAILED || p->steps[p->at].step == LIM__STEP_UNTOUCHED ||
           p->state == LIM__SAGA_UNDO;
}

void lim__saga_check(const lim__saga_plan *p)
{
    uint32_t running = 0, begun = 0;
    bool failed = false, undone_below = false;
    for (uint32_t i = 0; i < p->count; i++) {
        lim__saga_step_state step = p->steps[i].step;
        lim__saga_undo_state undo = p->steps[i].undo;
        running += (step == LIM__STEP_RUNNING) + (undo == LIM__UNDO_RUNNING);
        LIM_ASSERT(step == LIM__STEP_WAITING || begun == i); /* S2: no gap before it */
        begun += step != LIM__STEP_WAITING;
        LIM_ASSERT(!failed || step == LIM__STEP_WAITING); /* S2 */
        failed |= step == LIM__STEP_FAILED || step == LIM__STEP_UNTOUCHED;
        bool touched = step == LIM__STEP_SUCCEEDED || step == LIM__STEP_FAILED;
        LIM_ASSERT(undo == LIM__UNDO_NONE || (touched && p->steps[i].undoable)); /* S3 */
        bool wanted = touched && p->steps[i].undoable;
        LIM_ASSERT(!undone_below || !wanted || undo != LIM__UNDO_NONE); /* S3: newest first */
        undone_below |= undo != LIM__UNDO_NONE;
    }
    LIM_ASSERT(running == (p->state == LIM__SAGA_ENDED ? 0u : 1u)); /* S1 */
    LIM_ASSERT(failed || !undone_below);                            /* S4 */
    LIM_ASSERT(p->state != LIM__SAGA_UNDO || (failed && has_failed(p)));
    for (uint32_t i = 0; p->state == LIM__SAGA_ENDED && failed && i < p->count; i++)
        LIM_ASSERT(!to_undo(p, i)); /* S4 */
}
