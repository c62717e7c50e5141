/* SPDX-License-Identifier: Apache-2.0
 * exchange_step.c - the life of one request: an ask, or a task.
 *
 *                     assigned                  taken                answered
 *   (open) --> PLACING ---------> OFFERED (task) -----> HELD ------------------> ENDED
 *              ^ |  |  \ `--(ask)----------------------^  |                       ^
 *              | |  |   `-- refused, deadline, cancel ----|-----------------------|
 *              | |  `------------- holding (it came back) -^                      |
 *              | |                     |                  |                       |
 *              | | <- lost, untaken ---+--- lost: next ---|                       |
 *              | `--------- failed, slow: a retry --------|   all are done, gone  |
 *              |                       `-- deadline, cancel --> DRAINING ---------|
 *              `--- another task stands for it --> FOLLOWING -- its outcome ------'
 *
 *   HELD -- done without a word --> MUTE -- deadline, cancel, gone --> ENDED
 *
 * A participant that takes too long is told to stop and becomes *stuck*: the request goes to another one at once, while
 * it keeps its place until it says something, or ends. So what would be ENDED is DRAINING as long as anybody is stuck.
 *
 * Invariants (checked by exchange_step_test over every path up to a length):
 *   E1  exactly one outcome on every path from PLACING to ENDED, unless the owner was gone first: then at most one.
 *   E2  a request is in the hands of at most one participant with a current lease; whoever had it before is suspended,
 *       stuck or revoked.
 *   E3  an answer counts only once: after an outcome every further answer is settled with `not`.
 *   E4  who works on it keeps its place taken until it is really done: capacity is a limit, not information.
 *   E5  as many attempts fail as are allowed, and not one more.
 *   E6  parts are passed on only while HELD, so never after the outcome. */
#include "bus/exchange.h"
#include "base/base.h"

/* Over, but for those who keep a place. */
static uint32_t over(lim__ex_state *state, const lim__ex_facts *f, uint32_t todo)
{
    *state = f->others ? LIM__EX_DRAINING : LIM__EX_ENDED;
    return todo | LIM__EX_DO_REVOKE_OLD | (f->others ? LIM__EX_DO_DROP_LEASE : LIM__EX_DO_END);
}

/* The participant is gone: where to now? */
static uint32_t gone(lim__ex_state *state, const lim__ex_facts *f, bool may_return)
{
    uint32_t keep = f->task && may_return ? LIM__EX_DO_KEEP_LEASE : LIM__EX_DO_DROP_LEASE;
    if (!f->group || !(f->task || f->next))
        return over(state, f, LIM__EX_DO_DROP_LEASE | LIM__EX_DO_LOSS | LIM__EX_DO_OUT_CRASHED);
    if (f->last_loss)
        return over(state, f, LIM__EX_DO_DROP_LEASE | LIM__EX_DO_LOSS | LIM__EX_DO_OUT_KILLER);
    *state = LIM__EX_PLACING;
    return keep | LIM__EX_DO_LOSS | LIM__EX_DO_WANT;
}

static uint32_t step_placing(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *f)
{
    switch (event) {
    case LIM__EX_ASSIGNED:
        *state = f->task ? LIM__EX_OFFERED : LIM__EX_HELD;
        return LIM__EX_DO_HAND | (f->task ? LIM__EX_DO_OFFER_TIMER : 0u);
    case LIM__EX_REFUSED:
        return over(state, f, LIM__EX_DO_OUT_REFUSED);
    case LIM__EX_STANDS:
        *state = f->report ? LIM__EX_FOLLOWING : LIM__EX_ENDED;
        return f->report ? LIM__EX_DO_FOLLOW : LIM__EX_DO_END;
    case LIM__EX_DEADLINE:
        return over(state, f, LIM__EX_DO_OUT_TIMEOUT);
    case LIM__EX_CANCEL:
        return over(state, f, LIM__EX_DO_OUT_CANCELLED);
    case LIM__EX_OWNER_GONE:
        return f->task ? 0 : over(state, f, 0); /* a task belongs to its queue, not to who dispatched it */
    case LIM__EX_HOLDING:
        *state = LIM__EX_HELD;
        return LIM__EX_DO_RESUME | LIM__EX_DO_UNWANT | LIM__EX_DO_START;
    case LIM__EX_FAILED_OLD:
        if (f->retry) /* it is in line already */
            return LIM__EX_DO_ATTEMPT | LIM__EX_DO_SETTLE | LIM__EX_DO_DROP_OLD;
        return over(state, f, LIM__EX_DO_ATTEMPT | LIM__EX_DO_SETTLE | LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_DROP_OLD);
    case LIM__EX_ANSWERED_OLD:
        return over(state, f, LIM__EX_DO_SETTLE | LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_DROP_OLD);
    case LIM__EX_STUCK_DONE:
        return LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_DROP_OLD;
    case LIM__EX_TAKEN: /* from one that was gone before its word arrived */
    case LIM__EX_ANSWERED:
    case LIM__EX_FAILED:
    case LIM__EX_SILENT:
    case LIM__EX_LEFT:
    case LIM__EX_LOST:
    case LIM__EX_UNTAKEN:
    case LIM__EX_UNHANDED:
    case LIM__EX_SLOW:
    case LIM__EX_STALLED:
    case LIM__EX_PROGRESS:
    case LIM__EX_PART:
    case LIM__EX_OVERRUN:
    case LIM__EX_FOLLOWED:
    case LIM__EX_EVENTS:
        return 0;
    }
    return 0;
}

/* The current participant could not; this was one attempt. */
static uint32_t failed(lim__ex_state *state, const lim__ex_facts *f)
{
    uint32_t todo = LIM__EX_DO_ATTEMPT | LIM__EX_DO_SETTLE | LIM__EX_DO_REVOKE_OLD;
    if (!f->retry)
        return over(state, f, todo | LIM__EX_DO_OUT_ANSWER);
    *state = LIM__EX_PLACING;
    return todo | LIM__EX_DO_DROP_LEASE | LIM__EX_DO_LATER;
}

/* A suspended one could not. Who has acknowledged it since tries on; who has not need not. */
static uint32_t failed_old(lim__ex_state *state, const lim__ex_facts *f)
{
    uint32_t todo = LIM__EX_DO_ATTEMPT | LIM__EX_DO_SETTLE | LIM__EX_DO_REVOKE | LIM__EX_DO_DROP_OLD;
    if (*state == LIM__EX_HELD)
        return LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_DROP_OLD;
    *state = f->retry ? LIM__EX_PLACING : LIM__EX_DRAINING;
    return f->retry ? todo | LIM__EX_DO_DROP_LEASE | LIM__EX_DO_LATER
                    : todo | LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_REVOKE_OLD;
}

/* The current participant takes too long: it is stuck now, and others are asked. */
static uint32_t stuck(lim__ex_state *state, bool last, uint32_t count, uint32_t outcome, uint32_t again)
{
    uint32_t todo = count | LIM__EX_DO_REVOKE | LIM__EX_DO_STICK;
    *state = last ? LIM__EX_DRAINING : LIM__EX_PLACING;
    return last ? todo | outcome | LIM__EX_DO_REVOKE_OLD : todo | LIM__EX_DO_SHUN | again;
}

/* It was never delivered, so nothing was lost; but it is not handed about for ever. */
static uint32_t untaken(lim__ex_state *state, const lim__ex_facts *f)
{
    uint32_t todo = LIM__EX_DO_REVOKE | LIM__EX_DO_SHUN | LIM__EX_DO_DROP_LEASE;
    if (f->weary && f->last_loss)
        return over(state, f, todo | LIM__EX_DO_LOSS | LIM__EX_DO_OUT_KILLER);
    *state = LIM__EX_PLACING;
    return todo | LIM__EX_DO_WANT | (f->weary ? LIM__EX_DO_LOSS : 0u);
}

static uint32_t step_in_hand(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *f)
{
    bool held = *state == LIM__EX_HELD;
    switch (event) {
    case LIM__EX_TAKEN:
        *state = LIM__EX_HELD;
        return LIM__EX_DO_REVOKE_OLD | (held ? 0u : LIM__EX_DO_START);
    case LIM__EX_ANSWERED:
        return over(state, f, LIM__EX_DO_SETTLE | LIM__EX_DO_OUT_ANSWER);
    case LIM__EX_FAILED:
        return failed(state, f);
    case LIM__EX_ANSWERED_OLD:
        *state = LIM__EX_DRAINING; /* the one who has it now is told to stop, and keeps its place until it has */
        return LIM__EX_DO_SETTLE | LIM__EX_DO_REVOKE | LIM__EX_DO_OUT_ANSWER | LIM__EX_DO_DROP_OLD |
               LIM__EX_DO_REVOKE_OLD;
    case LIM__EX_FAILED_OLD:
        return failed_old(state, f);
    case LIM__EX_SILENT:
        *state = LIM__EX_MUTE;
        return LIM__EX_DO_DROP_LEASE;
    case LIM__EX_LEFT:
        return gone(state, f, false);
    case LIM__EX_LOST: /* what it had not acknowledged is not in its hands: its place must not wait for it */
        return gone(state, f, held);
    case LIM__EX_HOLDING:
        if (held)
            return LIM__EX_DO_SETTLE_NOT; /* another one has acknowledged it: revoked */
        *state = LIM__EX_HELD;
        return LIM__EX_DO_REVOKE | LIM__EX_DO_DROP_LEASE | LIM__EX_DO_RESUME | LIM__EX_DO_START;
    case LIM__EX_UNTAKEN:
        if (held)
            return 0;
        return untaken(state, f);
    case LIM__EX_UNHANDED:
        if (!f->task)
            return over(state, f, LIM__EX_DO_DROP_LEASE | LIM__EX_DO_OUT_REFUSED);
        *state = LIM__EX_PLACING;
        return LIM__EX_DO_SHUN | LIM__EX_DO_DROP_LEASE | LIM__EX_DO_WANT;
    case LIM__EX_SLOW:
        return held ? stuck(state, !f->retry, LIM__EX_DO_ATTEMPT, LIM__EX_DO_OUT_SLOW, LIM__EX_DO_LATER) : 0;
    case LIM__EX_STALLED:
        return held ? stuck(state, f->last_loss, LIM__EX_DO_LOSS, LIM__EX_DO_OUT_KILLER, LIM__EX_DO_WANT) : 0;
    case LIM__EX_PROGRESS:
        return held ? LIM__EX_DO_PROGRESS : 0;
    case LIM__EX_PART:
        return held ? LIM__EX_DO_PART : 0;
    case LIM__EX_OVERRUN:
        if (!held)
            return 0;
        *state = LIM__EX_DRAINING;
        return LIM__EX_DO_REVOKE | LIM__EX_DO_OUT_OVERRUN;
    case LIM__EX_STUCK_DONE:
        return LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_DROP_OLD;
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
    case LIM__EX_ASSIGNED: /* the group answers one want with one participant, or with a word */
    case LIM__EX_REFUSED:
    case LIM__EX_STANDS:
        (void)LIM_NEVER(event == LIM__EX_ASSIGNED || event == LIM__EX_REFUSED || event == LIM__EX_STANDS);
        return 0;
    case LIM__EX_FOLLOWED:
    case LIM__EX_EVENTS:
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
        return over(state, f, LIM__EX_DO_OUT_TIMEOUT);
    case LIM__EX_CANCEL:
        return over(state, f, LIM__EX_DO_OUT_CANCELLED);
    case LIM__EX_OWNER_GONE:
        return f->task ? 0 : over(state, f, 0);
    case LIM__EX_SLOW: /* it is done, and there is no result: that will not change */
        if (!f->retry)
            return over(state, f, LIM__EX_DO_ATTEMPT | LIM__EX_DO_OUT_SLOW);
        *state = LIM__EX_PLACING;
        return LIM__EX_DO_ATTEMPT | LIM__EX_DO_DROP_LEASE | LIM__EX_DO_LATER;
    case LIM__EX_ANSWERED: /* whoever is done has had its say */
    case LIM__EX_FAILED:
    case LIM__EX_HOLDING:
        return LIM__EX_DO_SETTLE_NOT;
    case LIM__EX_ANSWERED_OLD:
    case LIM__EX_FAILED_OLD:
    case LIM__EX_STUCK_DONE:
        return LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_DROP_OLD;
    case LIM__EX_SILENT:
    case LIM__EX_TAKEN:
    case LIM__EX_UNTAKEN:
    case LIM__EX_UNHANDED:
    case LIM__EX_STALLED:
    case LIM__EX_PROGRESS:
    case LIM__EX_PART:
    case LIM__EX_OVERRUN:
    case LIM__EX_ASSIGNED:
    case LIM__EX_REFUSED:
    case LIM__EX_STANDS:
    case LIM__EX_FOLLOWED:
    case LIM__EX_EVENTS:
        return 0;
    }
    return 0;
}

static uint32_t step_draining(lim__ex_state *state, lim__ex_event event, const lim__ex_facts *f)
{
    switch (event) {
    case LIM__EX_ANSWERED:
    case LIM__EX_FAILED:
        return over(state, f, LIM__EX_DO_SETTLE_NOT);
    case LIM__EX_SILENT:
    case LIM__EX_LEFT:
    case LIM__EX_LOST:
        return over(state, f, 0);
    case LIM__EX_STUCK_DONE:
        if (f->others)
            return LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_DROP_OLD;
        *state = LIM__EX_ENDED;
        return LIM__EX_DO_SETTLE_NOT | LIM__EX_DO_DROP_OLD | LIM__EX_DO_END;
    case LIM__EX_ANSWERED_OLD:
    case LIM__EX_FAILED_OLD:
    case LIM__EX_HOLDING:
        return LIM__EX_DO_SETTLE_NOT;
    case LIM__EX_TAKEN: /* the asker has its outcome: nothing changes that */
    case LIM__EX_DEADLINE:
    case LIM__EX_CANCEL:
    case LIM__EX_OWNER_GONE:
    case LIM__EX_UNTAKEN:
    case LIM__EX_UNHANDED:
    case LIM__EX_SLOW:
    case LIM__EX_STALLED:
    case LIM__EX_PROGRESS:
    case LIM__EX_PART:
    case LIM__EX_OVERRUN:
    case LIM__EX_ASSIGNED:
    case LIM__EX_REFUSED:
    case LIM__EX_STANDS:
    case LIM__EX_FOLLOWED:
    case LIM__EX_EVENTS:
        return 0;
    }
    return 0;
}

/* Nobody works on it: the other task has workers. */
static uint32_t step_following(lim__ex_state *state, lim__ex_event event)
{
    uint32_t todo = event == LIM__EX_FOLLOWED     ? LIM__EX_DO_OUT_FOLLOWED
                    : event == LIM__EX_DEADLINE   ? LIM__EX_DO_OUT_TIMEOUT
                    : event == LIM__EX_CANCEL     ? LIM__EX_DO_OUT_CANCELLED
                    : event == LIM__EX_OWNER_GONE ? LIM__EX_DO_END /* nobody waits for it any more */
                                                  : 0;
    if (todo == 0)
        return 0;
    *state = LIM__EX_ENDED;
    return todo | LIM__EX_DO_END;
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
        return step_draining(state, event, facts);
    case LIM__EX_FOLLOWING:
        return step_following(state, event);
    case LIM__EX_ENDED:
        return 0;
    }
    return 0;
}

/* ---- histories ---- */

enum { FACT_BITS = 8 };

uint32_t lim__ex_code(lim__ex_event event, const lim__ex_facts *f)
{
    const bool facts[] = { f->task, f->next, f->group, f->last_loss, f->retry, f->report, f->others, f->weary };
    uint32_t code = (uint32_t)event;
    for (uint32_t i = 0; i < LIM_COUNT(facts); i++)
        code |= (uint32_t)facts[i] << (FACT_BITS + i);
    return code;
}

lim__ex_state lim__ex_replay(const uint32_t *codes, size_t count)
{
    lim__ex_state state = LIM__EX_PLACING;
    for (size_t i = 0; i < count; i++) {
        uint32_t event = codes[i] & ((1u << FACT_BITS) - 1), bits = codes[i] >> FACT_BITS;
        lim__ex_facts f = { .task = bits & 1,
                            .next = bits >> 1 & 1,
                            .group = bits >> 2 & 1,
                            .last_loss = bits >> 3 & 1,
                            .retry = bits >> 4 & 1,
                            .report = bits >> 5 & 1,
                            .others = bits >> 6 & 1,
                            .weary = bits >> 7 & 1 };
        if (event == 0 || event >= LIM__EX_EVENTS || bits >> 8 != 0)
            return (lim__ex_state)0;
        (void)lim__ex_step(&state, (lim__ex_event)event, &f);
    }
    return state;
}

const char *lim__ex_event_text(lim__ex_event event)
{
    static const char *const words[LIM__EX_EVENTS] = {
        [LIM__EX_ASSIGNED] = "assigned", [LIM__EX_REFUSED] = "refused",       [LIM__EX_STANDS] = "stands",
        [LIM__EX_FOLLOWED] = "followed", [LIM__EX_TAKEN] = "taken",           [LIM__EX_ANSWERED] = "answered",
        [LIM__EX_FAILED] = "failed",     [LIM__EX_ANSWERED_OLD] = "answered", [LIM__EX_FAILED_OLD] = "failed",
        [LIM__EX_SILENT] = "silent",     [LIM__EX_LEFT] = "crashed",          [LIM__EX_LOST] = "crashed",
        [LIM__EX_HOLDING] = "holding",   [LIM__EX_UNTAKEN] = "untaken",       [LIM__EX_UNHANDED] = "unhanded",
        [LIM__EX_SLOW] = "slow",         [LIM__EX_STALLED] = "stalled",       [LIM__EX_PROGRESS] = "progress",
        [LIM__EX_PART] = "part",         [LIM__EX_OVERRUN] = "overrun",       [LIM__EX_STUCK_DONE] = "stuck_done",
        [LIM__EX_DEADLINE] = "timeout",  [LIM__EX_CANCEL] = "cancel",         [LIM__EX_OWNER_GONE] = "owner_gone",
    };
    return event > 0 && event < LIM__EX_EVENTS ? words[event] : "";
}
