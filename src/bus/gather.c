/* SPDX-License-Identifier: Apache-2.0
 * gather.c - one request to everybody in a group at once: a conversation that owns one ask per participant.
 *
 *   (open) --> ASKING --member_list--> WAITING --quorum | impossible | deadline | cancel--> ENDED
 *                 `--- nobody there, no group, deadline, cancel -----------------------------^
 *
 * The group says who serves it at that moment; each of them gets an exchange of its own, which is our child and linked,
 * so it cannot outlive us: ending is cancelling whoever is still asked. What each answered goes to the owner as it
 * comes, and then the outcome. Who joins the group later was not there.
 *
 * Invariants:
 *   H1  exactly one outcome; every part was sent before it.
 *   H2  replied + ended_otherwise + open == asked while WAITING. */
#include "base/base.h"
#include "bus/conv.h"
#include "bus/history.h"
#include <stdio.h>

enum { ASKED_MAX = 1024, TAG_DEADLINE = 1 };

typedef enum gather_state { ASKING = 1, WAITING, ENDED } gather_state;

typedef struct asked { /* one of them; its number, from 1, is the `ref` of its exchange */
    lim_pid conv;
    lim_bytes identity; /* in the letter `list` */
    bool over;
} asked;

typedef struct gather {
    lim_bus *bus;
    lim__conv_node node;
    lim__open *open;
    lim_pid group;
    gather_state state;
    lim__member_list *list;
    asked *asked;
    uint32_t count, open_count, replied, timed_out, parts;
    lim__waiter *waiters;
    lim__history *history;
} gather;
_Static_assert(offsetof(gather, node) == LIM__CONV_NODE_AT, "where it is listed");

static lim_bytes group_name(const lim__open *o)
{
    return lim__bytes(o->text, o->group_len);
}
static lim_bytes type_name(const lim__open *o)
{
    return lim__bytes(o->text + o->group_len, o->type_len);
}

/* ---- the end ---- */

typedef struct ending {
    lim_how how;
    lim_why why;
    uint32_t limit, current;
    const char *detail;
} ending;

static size_t letter_bytes(const lim__outcome_letter *o)
{
    return sizeof *o + o->detail_len;
}

static lim__outcome_letter *outcome_new(const gather *g, lim_process *self, const ending *e, uint64_t ref)
{
    size_t len = strlen(e->detail);
    lim__outcome_letter *o = lim__letter_new(lim__proc_sched(self), &lim__type_outcome, sizeof *o + len);
    if (o == NULL)
        return NULL;
    *o = (lim__outcome_letter){ .ref = ref,
                                .conv = lim_self(self),
                                .how = e->how,
                                .why = e->why,
                                .handed_over = g->replied > 0 ? LIM_HANDED_YES
                                               : g->count > 0 ? LIM_HANDED_UNKNOWN
                                                              : LIM_HANDED_NO,
                                .attempts = g->count,
                                .losses = g->count - g->replied,
                                .limit = e->limit,
                                .current = e->current,
                                .elapsed_ns = lim_now_ns(self) - g->open->opened_ns,
                                .detail_len = (uint16_t)len };
    memcpy(o->text, e->detail, len);
    return o;
}

static void note(const gather *g, lim_process *self, const char *kind, lim_bytes who, const char *detail,
                 uint64_t bytes)
{
    lim__history_add(g->history, self,
                     &(lim__history_note){ .kind = kind, .who = who, .detail = lim__str(detail), .bytes = bytes });
}

static void end(gather *g, lim_process *self, const ending *e)
{
    LIM_ASSERT(g->state != ENDED); /* H1 */
    g->state = ENDED;
    for (const lim__waiter *w = g->waiters; w != NULL; w = w->next) {
        lim__outcome_letter *o = outcome_new(g, self, e, w->ref);
        if (o != NULL) /* else its monitor tells it */
            (void)!lim__send_reserved(self, w->who, o);
    }
    note(g, self, "outcome", lim__bytes(NULL, 0), lim_how_text(e->how), 0);
    lim__outcome_letter *o = outcome_new(g, self, e, g->open->ref);
    if (o == NULL) {
        lim_exit(self, LIM_FAULT); /* the owner is linked: it still learns that this ended */
        return;
    }
    if (g->bus->ear.on_outcome != NULL)
        g->bus->ear.on_outcome(g->bus->ear.ctx, lim_self(self).id);
    lim__ended_add(g->bus, lim__proc_sched(self), LIM__KIND_GATHER,
                   e->how == LIM_HOW_REPLY ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN, 0, o, letter_bytes(o));
    (void)!lim__send_reserved(self, g->open->owner, o);
    lim_unlink(self, g->open->owner);
    lim_exit(self, LIM_NORMAL); /* and with us, the owner of who is still asked: cancelled */
}

static void refuse(gather *g, lim_process *self, lim_why why, const char *detail)
{
    end(g, self, &(ending){ .how = LIM_HOW_REFUSED, .why = why, .detail = detail });
}

/* ---- counting ---- */

static uint32_t needed(const gather *g)
{
    uint32_t quorum = lim__terms_or_default(g->open->terms)->quorum;
    return quorum != 0 ? quorum : g->count;
}

/* Is it decided? Those whose time was up are neither here nor there: the whole one's time is up with theirs. */
static void judge(gather *g, lim_process *self)
{
    LIM_ASSERT(g->state == WAITING && g->replied + g->timed_out + g->open_count <= g->count); /* H2 */
    if (g->replied >= needed(g))
        end(g, self, &(ending){ .how = LIM_HOW_REPLY, .detail = "" });
    else if (g->replied + g->open_count + g->timed_out < needed(g))
        end(g, self,
            &(ending){ .how = LIM_HOW_REFUSED,
                       .why = LIM_WHY_QUORUM,
                       .limit = needed(g),
                       .current = g->replied,
                       .detail = "not as many can reply any more as were wanted" });
    else if (g->open_count == 0)
        end(g, self, &(ending){ .how = LIM_HOW_TIMEOUT, .detail = "" });
}

/* What it said, else why it ended: a part has no other place for that. */
static lim_bytes detail_of(const lim__outcome_letter *o)
{
    if (o->detail_len > 0)
        return lim__bytes(o->text + o->participant_len + o->router_len, o->detail_len);
    return lim__str(o->how != LIM_HOW_CRASHED      ? lim_why_text(o->why)
                    : o->reason != LIM_REASON_NONE ? lim_reason_text(o->reason)
                                                   : "its conversation ended");
}

static bool send_part(gather *g, lim_process *self, const asked *a, const lim__outcome_letter *o)
{
    lim_bytes detail = detail_of(o);
    size_t text = a->identity.len + detail.len;
    lim__partial *p = lim__letter_new(lim__proc_sched(self), &lim__type_partial, sizeof *p + text);
    if (p == NULL)
        return false;
    *p = (lim__partial){ .ref = g->open->ref,
                         .conv = lim_self(self),
                         .seq = ++g->parts,
                         .how = o->how,
                         .payload = lim__msg_ref(o->payload),
                         .participant_len = (uint8_t)a->identity.len,
                         .detail_len = (uint16_t)detail.len };
    if (a->identity.len > 0)
        memcpy(p->text, a->identity.ptr, a->identity.len);
    if (detail.len > 0)
        memcpy(p->text + a->identity.len, detail.ptr, detail.len);
    (void)!lim__send_reserved(self, g->open->owner, p);
    return true;
}

static void one_ended(gather *g, lim_process *self, uint64_t ref, const lim__outcome_letter *o)
{
    asked *a = ref == 0 || ref > g->count ? NULL : &g->asked[ref - 1];
    if (g->state != WAITING || a == NULL || a->over)
        return;
    a->over = true;
    g->open_count--;
    g->replied += o->how == LIM_HOW_REPLY;
    g->timed_out += o->how == LIM_HOW_TIMEOUT;
    note(g, self, "answered", a->identity, lim_how_text(o->how),
         o->payload != NULL ? lim__msg_bytes(o->payload).len : 0);
    if (send_part(g, self, a, o))
        judge(g, self);
    else
        lim_exit(self, LIM_FAULT); /* what is missing must not look like one that was never there */
}

/* Its exchange ended without a word. */
static void one_vanished(gather *g, lim_process *self, lim_pid who)
{
    lim__outcome_letter none = { .how = LIM_HOW_CRASHED };
    for (uint32_t i = 0; i < g->count && g->state == WAITING; i++)
        if (g->asked[i].conv.id == who.id)
            one_ended(g, self, i + 1, &none);
}

/* ---- asking ---- */

static lim_err ask_one(gather *g, lim_process *self, uint32_t i)
{
    const lim__open *o = g->open;
    lim__open *open = lim__open_new(lim__proc_sched(self), LIM__KIND_ASK, lim__bytes(o->text, o->group_len),
                                    type_name(o), lim__msg_ref(o->payload));
    if (open == NULL) {
        lim__msg_unref(o->payload);
        return LIM_E_NOMEM;
    }
    open->owner = lim_self(self);
    open->ref = i + 1;
    open->opened_ns = o->opened_ns;
    open->deadline_ns = o->deadline_ns;
    open->participant = g->list->who[i];
    open->terms = lim__terms_ref(o->terms);
    return lim__conv_spawn(g->bus, self, open, &g->asked[i].conv);
}

static void member_list(gather *g, lim_process *self, const lim_signal *signal)
{
    const lim__member_list *said = signal->body.ptr;
    if (g->state != ASKING)
        return;
    if (said->count == 0) {
        refuse(g, self, LIM_WHY_NO_PARTICIPANT, "nobody serves this group");
        return;
    }
    g->list = lim__letter_keep(self, signal);
    g->count = g->list->count < ASKED_MAX ? g->list->count : ASKED_MAX;
    g->asked = lim__alloc(lim__proc_sched(self), g->count * sizeof *g->asked);
    if (g->asked == NULL) {
        g->count = 0;
        refuse(g, self, LIM_WHY_MEMORY, "out of memory");
        return;
    }
    memset(g->asked, 0, g->count * sizeof *g->asked);
    g->state = WAITING;
    g->open_count = g->count;
    lim__open_carry_trace(g->open); /* once, not for each */
    const char *at = g->list->text;
    for (uint32_t i = 0; i < g->count; i++) {
        g->asked[i].identity = lim__name_get(&at);
        at += sizeof((lim__assigned *)NULL)->session;
    }
    judge(g, self); /* fewer than are wanted are there */
    for (uint32_t i = 0; i < g->count && g->state == WAITING; i++) {
        note(g, self, "asked", g->asked[i].identity, "", 0);
        if (ask_one(g, self, i) != LIM_OK)
            one_ended(g, self, i + 1, &(lim__outcome_letter){ .how = LIM_HOW_REFUSED });
    }
}

static void who_is_there(gather *g, lim_process *self)
{
    lim_bytes type = type_name(g->open);
    uint64_t monitor;
    g->group = lim__group_find(g->bus, group_name(g->open));
    if (g->group.id == 0) {
        refuse(g, self, LIM_WHY_NO_PARTICIPANT, "nobody serves this group");
        return;
    }
    lim__members *m = lim__letter_new(lim__proc_sched(self), &lim__type_members, sizeof *m + type.len);
    if (m == NULL || lim_monitor(self, g->group, &monitor) != LIM_OK) {
        lim__letter_free(lim__proc_sched(self), m);
        refuse(g, self, LIM_WHY_MEMORY, "out of memory");
        return;
    }
    *m = (lim__members){ .reply_to = lim_self(self), .ref = 1, .type_len = (uint8_t)type.len };
    if (type.len > 0)
        memcpy(m->type, type.ptr, type.len);
    (void)!lim__send_reserved(self, g->group, m); /* gone: the monitor says so */
}

static void opened(gather *g, lim_process *self, const lim_signal *signal)
{
    g->open = lim__letter_keep(self, signal);
    const lim__terms *terms = lim__terms_or_default(g->open->terms);
    uint64_t now_ns = lim_now_ns(self), deadline = g->open->deadline_ns, timer;
    if (terms->trace)
        g->history = lim__history_new(g->bus, self);
    note(g, self, "opened", group_name(g->open), "", lim__msg_bytes(g->open->payload).len);
    if (terms->hops > LIM_HOPS_MAX)
        refuse(g, self, LIM_WHY_HOP_LIMIT, "too many conversations deep");
    else if (terms->window > 0 || g->open->participant.id != 0)
        refuse(g, self, LIM_WHY_BAD_REQUEST, "everybody is asked for one answer each: no window, no participant");
    else if (deadline != UINT64_MAX &&
             lim_timer_start(self, deadline > now_ns ? deadline - now_ns : 0, TAG_DEADLINE, &timer) != LIM_OK)
        refuse(g, self, LIM_WHY_MEMORY, "out of memory");
    else
        who_is_there(g, self);
}

/* ---- being looked at ---- */

static lim_phase phase(const gather *g)
{
    return g->state == ASKING ? LIM_PHASE_CREATED : g->state == WAITING ? LIM_PHASE_ACTIVE : LIM_PHASE_ENDED;
}

static uint64_t left_ms(const gather *g, uint64_t now_ns)
{
    return g->open->deadline_ns > now_ns ? (g->open->deadline_ns - now_ns) / 1000000 : 0;
}

static void inspect(const gather *g, lim_process *self, const lim__command *c)
{
    lim__done *d = lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = (lim__done){ .ref = c->ref, .conv = lim_self(self), .err = LIM_OK };
    d->info =
        (lim_conv_info){ .phase = phase(g),
                         .alive = g->open_count,
                         .dead = g->count - g->open_count - g->replied,
                         .pending = 1,
                         .sent = g->count,
                         .received = g->replied,
                         .remaining_ms =
                             g->open->deadline_ns == UINT64_MAX ? LIM_FOREVER : (int64_t)left_ms(g, lim_now_ns(self)) };
    (void)!lim__send_reserved(self, c->from, d);
}

static void gather_json(const void *state, lim__json *j, const char *key)
{
    const gather *g = state;
    uint64_t now_ns = g->bus->os->now_ns(g->bus->os);
    if (g->open == NULL)
        return; /* born, not yet told what for */
    lim__json_open(j, key, '{');
    lim__json_id(j, "id", lim__state_pid(g).id);
    lim__json_str(j, "kind", lim__conv_kind_text(LIM__KIND_GATHER));
    lim__json_str(j, "phase", lim_phase_text(phase(g)));
    lim__json_bytes(j, "group", group_name(g->open));
    lim__json_bytes(j, "type", type_name(g->open));
    lim__json_u64(j, "bytes", lim__msg_bytes(g->open->payload).len);
    lim__json_u64(j, "age_ms", (now_ns - g->open->opened_ns) / 1000000);
    if (g->open->deadline_ns != UINT64_MAX)
        lim__json_u64(j, "remaining_ms", left_ms(g, now_ns));
    lim__json_u64(j, "asked", g->count);
    lim__json_u64(j, "replied", g->replied);
    lim__json_u64(j, "quorum", needed(g));
    lim__json_open(j, "waiting_for", '[');
    for (uint32_t i = 0; i < g->count; i++)
        if (!g->asked[i].over)
            lim__json_bytes(j, NULL, g->asked[i].identity);
    lim__json_close(j);
    lim__json_close(j);
}

static lim__conv_facts gather_facts(const void *state)
{
    const gather *g = state;
    return (lim__conv_facts){ g->open, g->open != NULL ? phase(g) : LIM_PHASE_NONE };
}

const lim__conv_kindred lim__as_gather = { gather_json, gather_facts };

/* ---- signals ---- */

static void on_message(gather *g, lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    const void *body = signal->body.ptr;
    if (t == &lim__type_open)
        opened(g, self, signal);
    else if (g->open == NULL || g->state == ENDED)
        return; /* killed before it was told what for, or over */
    else if (t == &lim__type_member_list)
        member_list(g, self, signal);
    else if (t == &lim__type_outcome)
        one_ended(g, self, ((const lim__outcome_letter *)body)->ref, body);
    else if (t == &lim__type_cancel || t == &lim__type_close)
        end(g, self, &(ending){ .how = LIM_HOW_CANCELLED, .detail = "" });
    else if (t == &lim__type_await)
        lim__waiter_add(&g->waiters, self, body);
    else if (t == &lim__type_unawait)
        lim__waiter_remove(&g->waiters, self, body);
    else if (t == &lim__type_inspect)
        inspect(g, self, body);
    else
        lim__conv_not_a_talk(self, signal);
}

static void on_gone(gather *g, lim_process *self, lim_pid who)
{
    if (g->open == NULL)
        lim_exit(self, LIM_SHUTDOWN);
    else if (who.id == g->open->owner.id)
        lim_exit(self, LIM_NORMAL); /* nobody is left to be told */
    else if (g->state == ASKING && who.id == g->group.id)
        refuse(g, self, LIM_WHY_NO_PARTICIPANT, "the group has just ended");
    else
        one_vanished(g, self, who);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    gather *g = state;
    if (g->state == 0) {
        lim__conv_enter(g->bus, self, &g->node);
        g->state = ASKING;
    }
    switch (signal->kind) {
    case LIM_SIGNAL_MESSAGE:
        if (signal->type != NULL)
            on_message(g, self, signal);
        return;
    case LIM_SIGNAL_EXIT:
    case LIM_SIGNAL_DOWN:
        if (g->state != ENDED)
            on_gone(g, self, signal->from);
        return;
    case LIM_SIGNAL_TIMER:
        if (g->state != ENDED)
            end(g, self, &(ending){ .how = LIM_HOW_TIMEOUT, .detail = "" });
        return;
    case LIM_SIGNAL_RESPONSE:
        return;
    }
}

static void on_end(void *state, lim_reason reason)
{
    gather *g = state;
    lim__sched *s = lim__sched_current();
    (void)reason;
    lim__conv_leave(g->bus, &g->node);
    lim__history_end(g->history);
    lim__letter_free(s, g->open);
    lim__letter_free(s, g->list);
    if (g->asked != NULL)
        lim__free(s, g->asked, g->count * sizeof *g->asked);
    lim__waiters_free(g->waiters, s);
}

lim_spawn_opts lim__gather_spawn(lim_bus *const *bus, bool link)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "gather",
                             .on_signal = on_signal,
                             .on_end = on_end,
                             .state_bytes = sizeof(gather),
                             .init = bus,
                             .init_bytes = sizeof *bus,
                             .mailbox_max = 64,
                             .trap_exit = true,
                             .link = link };
}
