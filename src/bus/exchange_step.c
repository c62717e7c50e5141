/* SPDX-License-Identifier: Apache-2.0
 * exchange_step.c - the life of one request: an ask, or a task.
 *
 *                     assigned                  taken                answered
 *   (open) --> PLACING ---------> OFFERED (task) -----> HELD ------------------> ENDED
 *               ^   |  \ `--(ask)----------------------^  |                       ^
 *               |   |   `-- refused, deadline, cancel ----|-----------------------|
 *               |   `------------ holding (it came back) -^                       |
 *               |                     |                   |                       |
 *               `-- lost, untaken ----+---- lost: next ---+                       |
 *                                     |                   |   answered, gone      |
 *                                     `-- deadline, cancel --> DRAINING ----------'
 *
 *   HELD -- done without a word --> MUTE -- deadline, cancel, gone --> ENDED
 *
 * Invariants (checked by exchange_step_test over every path up to a length):
 *   E1  exactly one outcome on every path from PLACING to ENDED, unless the owner was gone first: then at most one.
 *   E2  a request is in the hands of at most one participant with a current lease; whoever had it before is suspended
 *       or revoked.
 *   E3  an answer counts only once: after an outcome every further answer is settled with `not`.
 *   E4  DRAINING keeps the participant's place taken until it is really done: capacity is a limit, not information. */
#include "bus/exchange.h"
#include "base/base.h"

/* The participant is gone: where to now? */
static uint32_t gone(lim__ex_state *state, const lim__ex_facts *f, bool may_return)
{
    uint32_t keep = f->task && may_return ? LIM__EX_DO_KEEP_LEASE : LIM__EX_DO_DROP_LEASE;
    if (f->group && (f->task || f->next)) {
        if (f->last_loss) {
            *state = LIM__EX_ENDED;
            return LIM__EX_DO_DROP_LEASE | LIM__EX_DO_LOSS | LIM__EX_DO_OUT_KILLER | LIM__EX_DO_END;
        }
        *state = LIM__EX_PLACING;
        return keep | LIM__EX_DO_LOSS | LIM__EX_DO_WANT;
    }
    *state = LIM__EX_ENDED;
    return LIM__EX_DO_DROP_LEASE | LIM__EX_DO_LOSS | LIM__EX_DO_OUT_CRASHED | LIM__EX_DO_END;
}

static uint32_t step_placing(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *f)
{
    switch (event) {
    case LIM__EX_ASSIGNED:
        *state = f->task ? LIM__EX_OFFERED : LIM__EX_HELD;
        return LIM__EX_DO_HAND | (f->task ? LIM__EX_DO_OFFER_TIMER : 0u);
    case LIM__EX_REFUSED:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_OUT_REFUSED | LIM__EX_DO_END;
    case LIM__EX_DEADLINE:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_REVOKE_OLD | LIM__EX_DO_OUT_TIMEOUT | LIM__EX_DO_END;
    case LIM__EX_CANCEL:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_REVOKE_OLD | LIM__EX_DO_OUT_CANCELLED | LIM__EX_DO_END;
    case LIM__EX_OWNER_GONE:
        if (f->task) /* a task belongs to its queue, not to who dispatched it */
            return 0;
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_END;
    case LIM__EX_HOLDING:
        *state = LIM__EX_HELD;
        return LIM__EX_DO_RESUME | LIM__EX_DO_UNWANT;
    case LIM__EX_ANSWERED_OLD:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_SETTLE | LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_END;
    case LIM__EX_TAKEN: /* from one that was gone before its word arrived */
    case LIM__EX_ANSWERED:
    case LIM__EX_SILENT:
    case LIM__EX_LEFT:
    case LIM__EX_LOST:
    case LIM__EX_UNTAKEN:
        return 0;
    }
    return 0;
}

static uint32_t step_in_hand(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *f)
{
    switch (event) {
    case LIM__EX_TAKEN:
        *state = LIM__EX_HELD;
        return LIM__EX_DO_REVOKE_OLD;
    case LIM__EX_ANSWERED:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_REVOKE_OLD | LIM__EX_DO_SETTLE | LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_END;
    case LIM__EX_ANSWERED_OLD:
        *state = LIM__EX_DRAINING; /* the one who has it now is told to stop, and keeps its place until it has */
        return LIM__EX_DO_REVOKE | LIM__EX_DO_REVOKE_OLD | LIM__EX_DO_SETTLE | LIM__EX_DO_OUT_ANSWER;
    case LIM__EX_SILENT:
        *state = LIM__EX_MUTE;
        return LIM__EX_DO_DROP_LEASE;
    case LIM__EX_LEFT:
        return gone(state, f, false);
    case LIM__EX_LOST:
        return gone(state, f, true);
    case LIM__EX_HOLDING:
        if (*state != LIM__EX_OFFERED)
            return LIM__EX_DO_SETTLE_NOT; /* another one has acknowledged it: revoked */
        *state = LIM__EX_HELD;
        return LIM__EX_DO_DROP_LEASE | LIM__EX_DO_REVOKE | LIM__EX_DO_RESUME;
    case LIM__EX_UNTAKEN:
        if (*state != LIM__EX_OFFERED)
            return 0;
        *state = LIM__EX_PLACING; /* it was never delivered, so nothing was lost */
        return LIM__EX_DO_DROP_LEASE | LIM__EX_DO_SHUN | LIM__EX_DO_REVOKE | LIM__EX_DO_WANT;
    case LIM__EX_DEADLINE:
        *state = LIM__EX_DRAINING;
        return LIM__EX_DO_REVOKE | LIM__EX_DO_REVOKE_OLD | LIM__EX_DO_OUT_TIMEOUT;
    case LIM__EX_CANCEL:
        *state = LIM__EX_DRAINING;
        return LIM__EX_DO_REVOKE | LIM__EX_DO_REVOKE_OLD | LIM__EX_DO_OUT_CANCELLED;
    case LIM__EX_OWNER_GONE:
        if (f->task)
            return 0;
        *state = LIM__EX_DRAINING;
        return LIM__EX_DO_REVOKE;
    case LIM__EX_ASSIGNED: /* the group answers one want with one participant */
    case LIM__EX_REFUSED:
        (void)LIM_NEVER(event == LIM__EX_ASSIGNED || event == LIM__EX_REFUSED);
        return 0;
    }
    return 0;
}

static uint32_t step_mute(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *f)
{
    switch (event) {
    case LIM__EX_LEFT:
    case LIM__EX_LOST:
        return gone(state, f, false);
    case LIM__EX_DEADLINE:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_OUT_TIMEOUT | LIM__EX_DO_END;
    case LIM__EX_CANCEL:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_OUT_CANCELLED | LIM__EX_DO_END;
    case LIM__EX_OWNER_GONE:
        if (f->task)
            return 0;
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_END;
    case LIM__EX_ANSWERED: /* whoever is done has had its say */
    case LIM__EX_ANSWERED_OLD:
    case LIM__EX_HOLDING:
        return LIM__EX_DO_SETTLE_NOT;
    case LIM__EX_SILENT:
    case LIM__EX_TAKEN:
    case LIM__EX_UNTAKEN:
    case LIM__EX_ASSIGNED:
    case LIM__EX_REFUSED:
        return 0;
    }
    return 0;
}

static uint32_t step_draining(lim__ex_state *state, lim__ex_event event)
{
    switch (event) {
    case LIM__EX_ANSWERED:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_END;
    case LIM__EX_SILENT:
    case LIM__EX_LEFT:
    case LIM__EX_LOST:
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_END;
    case LIM__EX_ANSWERED_OLD:
    case LIM__EX_HOLDING:
        return LIM__EX_DO_SETTLE_NOT;
    case LIM__EX_TAKEN: /* the asker has its outcome: nothing changes that */
    case LIM__EX_DEADLINE:
    case LIM__EX_CANCEL:
    case LIM__EX_OWNER_GONE:
    case LIM__EX_UNTAKEN:
    case LIM__EX_ASSIGNED:
    case LIM__EX_REFUSED:
        return 0;
    }
    return 0;
}

uint32_t lim__ex_step(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *facts)
{
    switch (*state) {
    case LIM__EX_PLACING:
        return step_placing(state, event, facts);
    case LIM__EX_OFFERED:
    case LIM__EX_HELD:
        return step_in_hand(state, event, facts);
    case LIM__EX_MUTE:
        return step_mute(state, event, facts);
    case LIM__EX_DRAINING:
        return step_draining(state, event);
    case LIM__EX_ENDED:
        return 0;
    }
    return 0;
}
