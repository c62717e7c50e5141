/* SPDX-License-Identifier: Apache-2.0
 * talk.c - the conversation with more than one exchange: participants join and leave, messages go both ways, asks and
 * receives wait side by side. Here is its life; talk.h lists the other files.
 *
 *   (letter open) --> CREATED --used--> ACTIVE --close, cancel--> COMPLETING --everybody told--> ENDED, process gone
 *                        |                |
 *                        +-- last or required participant gone (lim__talk_fail) --> BROKEN --close, deadline--> gone
 *                        `-- deadline ---------------------------------------------> BROKEN, process gone
 *
 * Everything goes through this one process, which is what makes the order of membership, signals and messages to all
 * the same for everybody. Every participant is linked before anything is forwarded to it. What the owner waits for is
 * a `call`: an ask, matched with its answer by the lease it was sent under (never by order), or a receive, served first
 * come first served from the inbox. A call ends exactly once, with an outcome letter.
 *
 * A broken one stays, so that what had arrived can still be received; whoever is pushed what arrives (a connection)
 * has it all, so there it ends at once.
 *
 * Invariants (lim__talk_check):
 *   T1  a call is in `calls` until its outcome is sent, and not a moment longer.
 *   T2  inbox not empty implies that no receive is waiting; `waiting`, `buffered` and `events` are what they say.
 *   T3  who is in `parties` is linked and alive as far as is known; who is past is never sent anything.
 *   T4  a broken one has no participants, and nothing waits in it. */
#include "bus/talk.h"
#include "base/base.h"
#include "bus/ended.h"
#include <stdio.h>

rare *lim__talk_rare(talk *t, lim_process *self)
{
    if (t->rare == NULL && (t->rare = lim__alloc(lim__proc_sched(self), sizeof *t->rare)) != NULL) {
        *t->rare = (rare){ 0 };
        lim__list_init(&t->rare->watches);
    }
    return t->rare;
}

void lim__talk_note(talk *t, lim_process *self, const char *kind, lim_pid who, lim_bytes detail, uint64_t bytes,
                    uint32_t code)
{
    if (t->rare == NULL || t->rare->history == NULL)
        return;
    char text[24];
    lim_bytes name = who.id != 0 ? lim__talk_name(t, who, text) : lim__bytes("", 0);
    lim__history_note entry = { kind, name, detail, bytes, code };
    if (t->kept)
        lim__keep_noted(t, &entry);
    lim__history_add(t->rare->history, self, &entry);
}

void lim__talk_done(talk *t, lim_process *self, lim_pid to, uint64_t ref, const lim__done *as)
{
    lim__done *d = lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = *as;
    d->ref = ref;
    d->conv = lim__state_pid(t);
    if (as->err == LIM_E_CLOSED && t->phase != LIM_PHASE_NONE) {
        d->phase = t->phase;
        d->wanted = LIM_PHASE_ACTIVE;
    }
    (void)!lim__talk_post(t, self, to, d);
}

lim_err lim__talk_step(talk *t, lim_process *self, lim__phase_event event)
{
    lim_phase phase = t->phase, before = phase;
    if (!lim__phase_step(&phase, event))
        return LIM_E_CLOSED;
    t->phase = (uint8_t)phase;
    if (phase != before)
        lim__talk_note(t, self, "phase", (lim_pid){ 0 }, lim__str(lim_phase_text(phase)), 0, event);
    return LIM_OK;
}

void lim__talk_opened(talk *t, lim_process *self, lim_err err)
{
    if (t->opened)
        return;
    t->opened = true;
    if (t->kept)
        lim__talk_keep(t)->vain = err != LIM_OK;
    lim__talk_done(t, self, t->owner, t->open->ref, &(lim__done){ .err = err });
}

/* ---- ends ---- */

/* reason: of the process; NORMAL: it had ended in a phase of its own. */
static void remember(talk *t, lim_reason reason)
{
    const past *last = t->phase == LIM_PHASE_BROKEN ? lim__talk_past(t, (lim_pid){ 0 }) : NULL;
    bool killed = reason != LIM_NORMAL;
    uint64_t now_ns = lim__sched_now_ns(lim__sched_current());
    lim__ended_summary s = { .conv = { lim__talk_id(t) },
                             .kind = LIM__KIND_TALK,
                             .phase = killed ? LIM_PHASE_BROKEN : (lim_phase)t->phase,
                             .how = killed ? LIM_HOW_CRASHED : (lim_how)t->how,
                             .why = (lim_why)t->why,
                             .reason = reason == LIM_KILL ? LIM_KILLED
                                       : killed           ? reason
                                       : last != NULL     ? last->reason
                                                          : LIM_REASON_NONE,
                             .ended_ns = now_ns,
                             .elapsed_ns = now_ns - t->opened_ns };
    lim__ended_note(t->bus, lim__sched_current(), &s);
}

/* Nothing happens in it any more. Those who wait have been told how. */
static void end(talk *t, lim_process *self, lim_reason reason)
{
    lim__talk_let_go(t, self);
    lim_unlink(self, t->owner);
    lim__closed *c = lim__letter_new(lim__proc_sched(self), &lim__type_closed, sizeof *c);
    if (c != NULL) {
        *c = (lim__closed){ lim__state_pid(t), (lim_phase)t->phase, reason };
        (void)!lim__talk_post(t, self, t->owner, c);
    }
    lim__talk_note(t, self, "ended", (lim_pid){ 0 }, lim__str(lim_reason_text(reason)), 0, 0);
    remember(t, LIM_NORMAL);
    if (t->kept)
        lim__keep_end(t, self);
    else
        lim_exit(self, LIM_NORMAL);
}

static void close_talk(talk *t, lim_process *self, lim_how how, lim_reason reason)
{
    if (t->phase != LIM_PHASE_BROKEN)
        t->how = (uint8_t)how;
    (void)!lim__talk_step(t, self, LIM__PHASE_CLOSE); /* a broken one is let go of by this, and stays broken */
    lim__talk_opened(t, self, LIM_E_CLOSED);
    lim__talk_calls_end(t, self, how);
    (void)!lim__talk_step(t, self, LIM__PHASE_TOLD);
    end(t, self, reason);
}

void lim__talk_fail(talk *t, lim_process *self, lim_why why)
{
    if (lim__talk_step(t, self, LIM__PHASE_NOBODY_LEFT) != LIM_OK)
        return;
    t->how = LIM_HOW_CRASHED;
    t->why = (uint8_t)why;
    if (t->open->on_crash == LIM_CRASH_COMPENSATE)
        lim__talk_undo(t, self);
    lim__talk_calls_end(t, self, LIM_HOW_CRASHED);
    lim__talk_let_go(t, self);
    if (t->push) {
        const past *last = lim__talk_past(t, (lim_pid){ 0 });
        end(t, self, last != NULL ? last->reason : LIM_NOPROC);
    }
}

/* One that broke before ends now, too: nobody may have closed it. */
static void deadline(talk *t, lim_process *self)
{
    if (lim__talk_step(t, self, LIM__PHASE_DEADLINE) == LIM_OK)
        t->how = LIM_HOW_TIMEOUT;
    lim__talk_opened(t, self, LIM_E_TIMEOUT);
    lim__talk_calls_end(t, self, LIM_HOW_TIMEOUT);
    end(t, self, LIM_TIMEOUT);
}

/* ---- open ---- */

static lim_err claim_name(talk *t, lim_bytes name)
{
    char text[LIM__TERMS_KEY_MAX + 1];
    if (name.len == 0)
        return LIM_OK;
    if (memchr(name.ptr, 0, name.len) != NULL)
        return LIM_E_INVALID;
    snprintf(text, sizeof text, "%.*s", (int)name.len, (const char *)name.ptr);
    return lim_register(t->bus->rt, text, lim__state_pid(t)); /* it goes with this process, however that ends */
}

/* What most talks were opened with: nothing worth keeping. They live long, and are mostly idle. */
static const lim__open plain = { .kind = LIM__KIND_TALK, .on_crash = LIM_CRASH_FAIL, .deadline_ns = UINT64_MAX };

static void open_free(talk *t, lim__sched *s)
{
    if (t->open == NULL || t->open == &plain)
        return;
    lim__msg_unref(t->open->payload);
    lim__terms_unref(t->open->terms);
    lim__free(s, t->open, lim__open_bytes(t->open));
}

/* The letter's body without its envelope. */
static bool keep_open(talk *t, lim_process *self, const lim_signal *signal)
{
    lim__sched *s = lim__proc_sched(self);
    size_t bytes = lim__open_bytes(signal->body.ptr);
    lim__open *o = lim__alloc(s, bytes);
    if (o == NULL)
        return false;
    lim__open *letter = lim__letter_keep(self, signal);
    memcpy(o, letter, bytes);
    lim__letter_recycle(s, letter);
    if (o->group_len == 0) { /* only routers look at it */
        lim__msg_unref(o->payload);
        o->payload = NULL;
    }
    t->open = o;
    t->owner = o->owner;
    t->opened_ns = o->opened_ns;
    t->deadline_ns = o->deadline_ns;
    return true;
}

static lim_err begin(talk *t, lim_process *self)
{
    uint64_t now_ns = lim_now_ns(self), deadline_ns = t->deadline_ns;
    const lim__terms *terms = lim__talk_terms(t);
    if (terms->hops > LIM_HOPS_MAX)
        return LIM_E_INVALID;
    lim_err err = claim_name(t, terms->name);
    if (err == LIM_OK && deadline_ns != UINT64_MAX)
        err = lim__deadline_set(self, deadline_ns > now_ns ? deadline_ns - now_ns : 0);
    return err;
}

static void on_open(talk *t, lim_process *self, const lim_signal *signal)
{
    if (t->open != NULL || !keep_open(t, self, signal)) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    t->phase = LIM_PHASE_CREATED;
    /* Who is to undo it has to know what was done. */
    bool trace = lim__talk_terms(t)->trace || t->open->on_crash == LIM_CRASH_COMPENSATE || lim__talk_terms(t)->durable;
    if (trace && lim__talk_rare(t, self) != NULL)
        t->rare->history = lim__history_new(t->bus, self);
    lim_err err = lim__talk_terms(t)->durable ? lim__keep_begin(t, self) : LIM_OK;
    lim__talk_note(t, self, "opened", (lim_pid){ 0 }, lim__bytes(t->open->text, t->open->group_len), 0, 0);
    if (err == LIM_OK)
        err = begin(t, self);
    if (err != LIM_OK)
        lim__talk_opened(t, self, err);
    else if (t->open->participant.id != 0)
        lim__talk_opened(t, self, lim__talk_enter(t, self, &(party){ .pid = t->open->participant }, true));
    else if (t->open->group_len > 0)
        lim__talk_want(t, self);
    else
        lim__talk_opened(t, self, LIM_OK);
    if (!t->opened || t->open->group_len > 0 || t->open->terms != NULL)
        return;
    open_free(t, lim__proc_sched(self));
    t->open = (lim__open *)(uintptr_t)&plain;
}

/* ---- signals ---- */

static void on_letter(talk *t, lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *type = signal->type;
    const void *body = signal->body.ptr;
    if (type == &lim__type_ask)
        lim__talk_ask(t, self, signal->from, body);
    else if (type == &lim__type_answer)
        lim__talk_answer(t, self, body);
    else if (type == &lim__type_tell)
        lim__talk_tell(t, self, signal->from, body);
    else if (type == &lim__type_receive)
        lim__talk_receive(t, self, signal->from, body);
    else if (type == &lim__type_say)
        lim__talk_say(t, self, body);
    else if (type == &lim__type_join_conv)
        lim__talk_join(t, self, signal->from, body);
    else if (type == &lim__type_leave_conv)
        lim__talk_leave(t, self, signal->from, body);
    else if (type == &lim__type_signal_in)
        lim__talk_signal(t, self, body);
    else if (type == &lim__type_assigned)
        lim__talk_assigned(t, self, signal);
    else if (type == &lim__type_refused)
        lim__talk_refused(t, self, body);
    else if (type == &lim__type_close)
        close_talk(t, self, LIM_HOW_CLOSED, LIM_NORMAL);
    else if (type == &lim__type_cancel)
        close_talk(t, self, LIM_HOW_CANCELLED, LIM_NORMAL);
    else if (type == &lim__type_notify)
        lim__talk_notify(t, self, body);
    else if (type == &lim__type_push)
        lim__talk_push(t, self);
    else if (type == &lim__type_taken && t->kept)
        lim__hold_taken(t, self, signal->from, ((const lim__taken *)body)->lease);
    else if (type == &lim__type_attach)
        lim__keep_attach(t, self, body);
    else if (type == &lim__type_member_list && t->kept)
        lim__back_members(t, self, body);
    else if (type == &lim__type_inspect)
        lim__talk_done(t, self, ((const lim__command *)body)->from, ((const lim__command *)body)->ref,
                       &(lim__done){ .info = lim__talk_info(t, lim_now_ns(self)) });
}

static void on_exit_signal(talk *t, lim_process *self, const lim_signal *signal)
{
    if (t->open == NULL)
        lim_exit(self, LIM_SHUTDOWN);
    else if (signal->from.id == 0) /* somebody ended it from outside: its links tell of that */
        lim_exit(self, signal->reason);
    else if (signal->from.id == t->owner.id && t->kept && t->opened)
        lim__keep_owner_gone(t, self);
    else if (signal->from.id == t->owner.id)
        close_talk(t, self, LIM_HOW_CLOSED, signal->reason);
    else
        lim__talk_gone(t, self, signal);
}

void lim__talk_check(const talk *t)
{
    uint32_t waiting = 0, messages = 0, events = 0;
    LIM__LIST_EACH(n, &t->calls)
        waiting += LIM_CONTAINER(n, call, node)->lease == 0;
    LIM__LIST_EACH(n, &t->inbox) {
        uint8_t event = LIM_CONTAINER(n, note, node)->event;
        messages += event == LIM_EVENT_NONE || event == LIM_EVENT_SIGNAL;
        events += !(event == LIM_EVENT_NONE || event == LIM_EVENT_SIGNAL);
    }
    LIM_ASSERT(waiting == t->waiting && messages == t->buffered);
    LIM_ASSERT(t->rare == NULL ? events == 0 : events == t->rare->events);
    LIM_ASSERT(lim__list_empty(&t->inbox) || waiting == 0);
    LIM_ASSERT(t->phase != LIM_PHASE_BROKEN || (t->alive == 0 && lim__list_empty(&t->calls)));
    LIM_ASSERT(t->alive <= t->room && t->alive <= LIM__PARTIES_MAX);
    if (t->kept && t->opened)
        lim__hold_check(t);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    talk *t = state;
    if (t->calls.next == NULL) {
        lim__list_init(&t->calls);
        lim__list_init(&t->inbox);
        lim__conv_enter(t->bus, self, &t->node);
    }
    if (t->kept && lim__keep_signal(t, self, signal, on_signal))
        return;
    if (signal->kind == LIM_SIGNAL_EXIT)
        on_exit_signal(t, self, signal);
    else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &lim__type_open)
        on_open(t, self, signal);
    else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &lim__type_talk_rows && t->open == NULL)
        lim__back_rows(t, self, signal);
    else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type != NULL && t->open != NULL)
        on_letter(t, self, signal);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__TALK_TAG_WHOLE)
        deadline(t, self);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__TALK_TAG_GRACE)
        lim__back_look(t, self);
    else if (signal->kind == LIM_SIGNAL_TIMER)
        lim__talk_late(t, self, signal->ref);
    LIM_CHECK((lim__talk_check(t), true));
    if (t->kept)
        lim__keep_settle(t, self);
}

static void on_end(void *state, lim_reason reason)
{
    talk *t = state;
    lim__sched *s = lim__sched_current();
    bool kept = t->kept;
    lim__conv_leave(t->bus, &t->node);
    if (t->calls.next == NULL)
        return;
    if (t->kept) {
        lim__keep_free(t, reason, s);
        t->kept = false;
    }
    lim__talk_calls_free(t, s);
    for (note *n; (n = lim__talk_take(t)) != NULL;)
        lim__talk_note_free(s, n);
    if (t->open != NULL && reason != LIM_NORMAL && !kept) /* else it left its line before anybody could miss it */
        remember(t, reason);
    if (t->rare != NULL)
        lim__history_end(t->rare->history);
    lim__talk_parties_free(t, s);
    open_free(t, s);
}

lim_spawn_opts lim__talk_spawn(lim_bus *const *bus, bool link)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "talk",
                             .on_signal = on_signal,
                             .on_end = on_end,
                             .state_bytes = sizeof(talk),
                             .init = bus,
                             .init_bytes = sizeof *bus,
                             .mailbox_max = 1024,
                             .trap_exit = true,
                             .link = link };
}
