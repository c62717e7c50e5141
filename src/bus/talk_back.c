/* SPDX-License-Identifier: Apache-2.0
 * talk_back.c - durable talks, made again from what is stored: at start-up, and when the process of one died.
 *
 *   start-up:  rows --> a process each --rows--> the talk as it was, timers running, its old id an alias
 *   a death:   on_end --> (what it had submitted is stored) --> reading thread --rows--> the same
 *
 * Whoever took part is linked again. One whose process is gone, which after a restart all are, is away: its asks wait,
 * and what is said to it is kept. Its group is looked at again and again; when its identity is there, under the session
 * that it had (like a lease: another program of that name is somebody else), it takes part again under its new id, and
 * gets everything that it had not answered, under the leases that it had. When the grace is over it counts as crashed.
 * Who took part without a group cannot be found, and is away for no time at all. */
#include "bus/ended.h"
#include "bus/talk_over.h"
#include "bus/talk.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { VERSION = 1, PAUSE_MS = 50, PAUSE_MAX_MS = 1000 };
#define MS       UINT64_C(1000000)
#define GRACE_MS UINT64_C(10000)

typedef struct talk_rows { /* letter */
    uint64_t id;
    uint32_t len;
    uint8_t bytes[]; /* key, value, key, value ...; entries of the history have the key "h" */
} talk_rows;
const lim__letter_type lim__type_talk_rows = { "talk_rows", NULL };

/* ---- away ---- */

away *lim__back_away(const talk *t, lim_pid pid)
{
    LIM__LIST_EACH(n, &lim__talk_keep(t)->away)
        if (pid.id == 0 || LIM_CONTAINER(n, away, node)->pid.id == pid.id)
            return LIM_CONTAINER(n, away, node);
    return NULL;
}

bool lim__back_waits(const talk *t, lim_pid pid)
{
    return lim__back_away(t, pid) != NULL;
}

lim_pid lim__back_now(const talk *t, lim_pid pid)
{
    if (pid.id == 0) /* whoever comes back first */
        return lim__back_away(t, pid) != NULL ? lim__back_away(t, pid)->pid : pid;
    LIM__LIST_EACH(n, &lim__talk_keep(t)->renamed)
        if (LIM_CONTAINER(n, renamed, node)->was.id == pid.id)
            return lim__back_now(t, LIM_CONTAINER(n, renamed, node)->now);
    return pid;
}

static void away_free(lim__sched *s, away *a)
{
    lim__list_remove(&a->node);
    lim__free(s, a, sizeof *a);
}

static void look_again(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    uint64_t timer, now = lim_now_ns(self), left = k->grace_ns > now ? k->grace_ns - now : 0;
    k->pause_ns = k->pause_ns == 0 ? PAUSE_MS * MS : 2 * k->pause_ns;
    if (k->pause_ns > PAUSE_MAX_MS * MS)
        k->pause_ns = PAUSE_MAX_MS * MS;
    if (lim_timer_start(self, k->pause_ns < left ? k->pause_ns : left, LIM__TALK_TAG_GRACE, &timer) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

bool lim__back_gone(talk *t, lim_process *self, const party *was)
{
    keep *k = lim__talk_keep(t);
    if (lim_now_ns(self) >= k->grace_ns || was->assigned == NULL)
        return false;
    away *a = lim__alloc(lim__proc_sched(self), sizeof *a);
    if (a == NULL)
        return false;
    *a = (away){ .pid = was->pid, .assigned = was->assigned, .required = was->required, .held = was->held };
    bool first = lim__list_empty(&k->away);
    lim__list_push(&k->away, &a->node);
    if (first)
        look_again(t, self);
    return true;
}

/* Its time is over. */
static void give_up(talk *t, lim_process *self, away *a)
{
    party was = { .pid = a->pid, .assigned = a->assigned, .required = a->required };
    past gone = { .pid = a->pid,
                  .reason = LIM_NOPROC,
                  .crashed = true,
                  .at_ns = lim_now_ns(self),
                  .wall_us = t->bus->os->wall_ns(t->bus->os) / 1000 };
    lim__hold_drop(t, self, was.pid);
    away_free(lim__proc_sched(self), a);
    lim__talk_lost(t, self, &was, &gone);
}

static void ask_group(talk *t, lim_process *self)
{
    lim_pid group = lim__group_find(t->bus, lim__bytes(t->open->text, t->open->group_len));
    lim__members *m = group.id == 0 ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_members, sizeof *m);
    if (m == NULL)
        return;
    *m = (lim__members){ .reply_to = lim_self(self) };
    (void)!lim__send(self, group, m); /* full: later */
}

void lim__back_look(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    bool over = lim_now_ns(self) >= k->grace_ns;
    if (lim__list_empty(&k->away) || k->ending)
        return;
    while (over && !lim__list_empty(&k->away) && t->phase != LIM_PHASE_BROKEN && !k->ending)
        give_up(t, self, LIM_CONTAINER(k->away.next, away, node));
    if (over)
        return;
    ask_group(t, self);
    look_again(t, self);
}

/* ---- back ---- */

static void rejoin(talk *t, lim_process *self, away *a, lim_pid now)
{
    party p = { .pid = now, .assigned = a->assigned, .required = a->required, .held = a->held };
    renamed *r = lim__alloc(lim__proc_sched(self), sizeof *r);
    if (r == NULL)
        return; /* the next look finds it again */
    if (lim__talk_enter(t, self, &p, true) != LIM_OK) {
        lim__free(lim__proc_sched(self), r, sizeof *r);
        return;
    }
    *r = (renamed){ .was = a->pid, .now = now };
    lim__list_push(&lim__talk_keep(t)->renamed, &r->node);
    away_free(lim__proc_sched(self), a);
    lim__talk_note(t, self, "rejoined", now, lim__bytes("", 0), 0, 0);
    lim__hold_resend(t, self, r->was, now);
    lim__talk_calls_resend(t, self, r->was, now);
}

void lim__back_members(talk *t, lim_process *self, const lim__member_list *m)
{
    const char *at = m->text;
    for (uint32_t i = 0; i < m->count; i++) {
        lim_bytes identity = lim__name_get(&at);
        const char *session = at;
        at += sizeof((lim__assigned *)NULL)->session;
        LIM__LIST_EACH_SAFE(n, tmp, &lim__talk_keep(t)->away) {
            away *a = LIM_CONTAINER(n, away, node);
            if (!lim__bytes_eq(identity, lim__bytes(a->assigned->text, a->assigned->identity_len)) ||
                memcmp(session, a->assigned->session, sizeof a->assigned->session) != 0)
                continue; /* somebody else of that name, perhaps: it knows nothing of this */
            rejoin(t, self, a, m->who[i]);
            break;
        }
    }
}

/* ---- from rows ---- */

typedef struct reading {
    talk *t;
    lim_process *self;
    lim__sched *s;
    bool bad;
    uint64_t stream, opened_wall_ns, ended_wall_ns;
} reading;

/* Until when it may take, on this run's clock. Clocks went on meanwhile. */
static uint64_t from_wall(const reading *r, uint64_t wall_ns)
{
    lim__os *os = r->t->bus->os;
    uint64_t now = os->now_ns(os), wall = os->wall_ns(os);
    if (wall_ns == 0)
        return UINT64_MAX;
    return wall_ns > wall ? now + (wall_ns - wall) : now;
}

static uint64_t since_wall(const reading *r, uint64_t wall_ns)
{
    lim__os *os = r->t->bus->os;
    uint64_t now = os->now_ns(os), wall = os->wall_ns(os);
    return wall > wall_ns && wall - wall_ns < now ? now - (wall - wall_ns) : wall > wall_ns ? 1 : now;
}

static lim__msg *read_msg(reading *r, lim__unpack *u)
{
    if (lim__unpack_u8(u) == 0)
        return NULL;
    lim_bytes payload = lim__unpack_bytes(u), headers = lim__unpack_bytes(u);
    lim__msg *msg = u->bad ? NULL : lim__msg_new_with(payload, headers);
    r->bad |= msg == NULL;
    return msg;
}

static void read_open(reading *r, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    talk *t = r->t;
    bool known = lim__unpack_u8(&u) == VERSION;
    r->stream = lim__unpack_u64(&u);
    r->opened_wall_ns = lim__unpack_u64(&u);
    t->deadline_ns = from_wall(r, lim__unpack_u64(&u));
    t->opened_ns = since_wall(r, r->opened_wall_ns);
    uint8_t on_crash = lim__unpack_u8(&u);
    lim_bytes group = lim__unpack_bytes(&u), block = lim__unpack_bytes(&u);
    lim__msg *payload = read_msg(r, &u);
    lim__open *o = group.len > 255 || !known ? NULL : lim__alloc(r->s, offsetof(lim__open, text) + group.len);
    r->bad |= o == NULL || !lim__unpack_end(&u);
    if (o == NULL) {
        lim__msg_unref(payload);
        return;
    }
    *o = (lim__open){ .kind = LIM__KIND_TALK,
                      .on_crash = (lim_crash)on_crash,
                      .deadline_ns = t->deadline_ns,
                      .opened_ns = t->opened_ns,
                      .payload = payload,
                      .group_len = (uint8_t)group.len };
    memcpy(o->text, group.ptr, group.len);
    r->bad |= lim__terms_parse(block, NULL, &o->terms) != LIM_OK || o->terms == NULL;
    t->open = o;
}

/* An assignment as the group would have sent it, without a place in the group. */
static lim__assigned *assignment(reading *r, lim_pid pid, lim_bytes identity, lim_bytes session)
{
    lim__assigned *a = identity.len > 255 ? NULL : lim__letter_new(r->s, &lim__type_assigned, sizeof *a + identity.len);
    r->bad |= a == NULL;
    if (a == NULL)
        return NULL;
    *a = (lim__assigned){ .participant = pid, .identity_len = (uint8_t)identity.len };
    memcpy(a->text, identity.ptr, identity.len);
    if (session.len == sizeof a->session)
        memcpy(a->session, session.ptr, sizeof a->session);
    return a;
}

static party read_party(reading *r, lim__unpack *u)
{
    party p = { .pid = { lim__unpack_u64(u) } };
    uint8_t flags = lim__unpack_u8(u);
    lim_bytes identity = lim__unpack_bytes(u), session = lim__unpack_bytes(u);
    p.required = flags & 1;
    p.assigned = (flags & 2) != 0 && !u->bad ? assignment(r, p.pid, identity, session) : NULL;
    return p;
}

/* All of them as away: who is alive is found when they are linked. */
static void read_parties(reading *r, lim__unpack *u)
{
    keep *k = lim__talk_keep(r->t);
    uint32_t count = lim__unpack_u32(u);
    for (uint32_t i = 0; i < count && !u->bad && !r->bad; i++) {
        party p = read_party(r, u);
        away *a = lim__alloc(r->s, sizeof *a);
        r->bad |= a == NULL;
        if (a == NULL)
            return;
        *a = (away){ .pid = p.pid, .assigned = p.assigned, .required = p.required };
        lim__list_push(&k->away, &a->node);
    }
    count = lim__unpack_u32(u);
    for (uint32_t i = 0; i < count && !u->bad && !r->bad; i++) {
        renamed *n = lim__alloc(r->s, sizeof *n);
        r->bad |= n == NULL;
        if (n == NULL)
            return;
        n->was.id = lim__unpack_u64(u);
        n->now.id = lim__unpack_u64(u);
        lim__list_push(&k->renamed, &n->node);
    }
}

static void read_past(reading *r, lim__unpack *u)
{
    uint32_t count = lim__unpack_u32(u);
    for (uint32_t i = 0; i < count && !u->bad && !r->bad; i++) {
        party p = read_party(r, u);
        past was = { .pid = p.pid, .assigned = p.assigned, .crashed = p.required };
        was.reason = (lim_reason)lim__unpack_u32(u);
        was.wall_us = lim__unpack_u64(u);
        was.rerouted_wall_us = lim__unpack_u64(u);
        was.at_ns = since_wall(r, was.wall_us * 1000);
        lim__talk_past_add(r->t, r->self, &was);
    }
}

static void read_state(reading *r, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    talk *t = r->t;
    keep *k = lim__talk_keep(t);
    r->bad |= lim__unpack_u8(&u) != VERSION;
    t->phase = lim__unpack_u8(&u);
    t->how = lim__unpack_u8(&u);
    t->why = lim__unpack_u8(&u);
    r->ended_wall_ns = lim__unpack_u64(&u);
    t->owner.id = lim__unpack_u64(&u);
    uint8_t flags = lim__unpack_u8(&u);
    t->push = flags & 1;
    t->wanting = (flags & 2) != 0;
    t->rare->compensation.id = lim__unpack_u64(&u);
    uint64_t *const numbers[] = { &t->next_lease,  &t->told,       &t->sent,          &t->received,
                                  &t->asked,       &t->answered,   &t->rare->refused, &t->rare->unasked,
                                  &k->inbox_first, &k->inbox_next, &k->held_next };
    for (size_t i = 0; i < LIM_COUNT(numbers); i++)
        *numbers[i] = lim__unpack_u64(&u);
    read_parties(r, &u);
    read_past(r, &u);
    r->bad |= !lim__unpack_end(&u);
}

static void read_call(reading *r, uint64_t lease, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    bool known = lim__unpack_u8(&u) == VERSION;
    call c = { .lease = lease };
    c.ref = lim__unpack_u64(&u);
    c.to.id = lim__unpack_u64(&u);
    c.from.id = lim__unpack_u64(&u);
    uint64_t started = lim__unpack_u64(&u);
    uint64_t deadline = from_wall(r, lim__unpack_u64(&u));
    c.losses = lim__unpack_u32(&u);
    c.payload = read_msg(r, &u);
    c.started_ns = lim_now_ns(r->self);
    c.deadline_ns = deadline;
    call *kept = known && lim__unpack_end(&u) && !r->bad ? lim__talk_call_new(r->t, r->self, &c) : NULL;
    r->bad |= kept == NULL;
    if (kept != NULL)
        kept->started_ns = since_wall(r, started);
    else
        lim__msg_unref(c.payload);
}

static void read_note(reading *r, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    talk *t = r->t;
    bool known = lim__unpack_u8(&u) == VERSION;
    lim_pid from = { lim__unpack_u64(&u) };
    uint8_t event = lim__unpack_u8(&u);
    lim_bytes text = lim__unpack_bytes(&u);
    lim__msg *payload = read_msg(r, &u);
    note *n = known && lim__unpack_end(&u) && text.len <= 255 ? lim__alloc(r->s, sizeof *n + text.len) : NULL;
    r->bad |= n == NULL;
    if (n == NULL) {
        lim__msg_unref(payload);
        return;
    }
    *n = (note){ .from = from, .payload = payload, .event = event, .text_len = (uint8_t)text.len };
    memcpy(n->text, text.ptr, text.len);
    lim__list_push(&t->inbox, &n->node);
    bool message = event == LIM_EVENT_NONE || event == LIM_EVENT_SIGNAL;
    t->buffered += message;
    t->rare->events += !message;
}

static void read_held(reading *r, uint64_t number, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    bool known = lim__unpack_u8(&u) == VERSION;
    lim_pid to = { lim__unpack_u64(&u) };
    heard what = { .from = { lim__unpack_u64(&u) } };
    what.event = (lim_event)lim__unpack_u8(&u);
    what.text = lim__unpack_bytes(&u);
    what.payload = read_msg(r, &u);
    bool good = known && lim__unpack_end(&u) && what.payload != NULL && what.text.len <= 255;
    held *h = good ? lim__hold_new(r->s, to, &what) : NULL;
    lim__msg_unref(what.payload);
    r->bad |= h == NULL;
    if (h == NULL)
        return;
    h->n = number;
    lim__list_push(&lim__talk_keep(r->t)->held, &h->node);
}

static void read_entry(reading *r, lim_bytes value)
{
    lim__unpack u = lim__unpack_begin(value);
    bool known = lim__unpack_u8(&u) == VERSION;
    uint64_t at_us = lim__unpack_u64(&u);
    lim__history_note n = { 0 };
    lim_bytes kind = lim__unpack_bytes(&u);
    n.who = lim__unpack_bytes(&u);
    n.detail = lim__unpack_bytes(&u);
    n.bytes = lim__unpack_u64(&u);
    n.code = lim__unpack_u32(&u);
    if (known && lim__unpack_end(&u))
        lim__history_put_back(r->t->rare->history, kind, at_us, &n);
}

static void read_row(reading *r, lim_bytes key, lim_bytes value)
{
    const uint8_t *at = key.ptr;
    char what = key.len == 1 ? 'h' : key.len >= 9 ? (char)at[8] : '\0';
    uint64_t n = key.len == 17 ? lim__key_get_u64(at + 9) : 0;
    if (what == 'o')
        read_open(r, value);
    else if (what == 's')
        read_state(r, value);
    else if (what == 'c')
        read_call(r, n, value);
    else if (what == 'i')
        read_note(r, value);
    else if (what == 'm')
        read_held(r, n, value);
    else if (what == 'h')
        read_entry(r, value);
}

/* ---- going on ---- */

static void remember_ended(reading *r)
{
    const talk *t = r->t;
    lim__os *os = t->bus->os;
    uint64_t now = os->now_ns(os), ended = since_wall(r, r->ended_wall_ns);
    lim__ended_summary s = { .conv = { lim__talk_keep(t)->id },
                             .kind = LIM__KIND_TALK,
                             .phase = (lim_phase)t->phase,
                             .how = (lim_how)t->how,
                             .why = (lim_why)t->why,
                             .ended_ns = ended < now ? ended : now,
                             .elapsed_ns = r->ended_wall_ns - r->opened_wall_ns };
    lim__ended_note(t->bus, r->s, &s);
}

/* Those that took part are linked; the dead ones say so by their exit, which is on its way then. */
static void link_parties(talk *t, lim_process *self)
{
    keep *k = lim__talk_keep(t);
    lim__list all;
    lim__list_init(&all);
    for (lim__list *n; (n = lim__list_pop(&k->away)) != NULL;)
        lim__list_push(&all, n);
    for (lim__list *n; (n = lim__list_pop(&all)) != NULL;) {
        away *a = LIM_CONTAINER(n, away, node);
        party p = { .pid = a->pid, .assigned = a->assigned, .required = a->required, .held = a->held };
        lim__free(lim__proc_sched(self), a, sizeof *a);
        if (!lim__talk_relink(t, self, &p)) {
            lim_exit(self, LIM_FAULT);
            return;
        }
    }
}

static void go_on(reading *r)
{
    talk *t = r->t;
    keep *k = lim__talk_keep(t);
    uint64_t now = lim_now_ns(r->self);
    const lim__terms *terms = t->open->terms;
    char name[LIM__TERMS_KEY_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)terms->name.len, terms->name.len > 0 ? (const char *)terms->name.ptr : "");
    if (name[0] != '\0')
        (void)!lim_register(t->bus->rt, name, lim__state_pid(t));
    if (t->deadline_ns != UINT64_MAX &&
        lim__deadline_set(r->self, t->deadline_ns > now ? t->deadline_ns - now : 0) != LIM_OK)
        lim_exit(r->self, LIM_FAULT);
    k->grace_ns = now + GRACE_MS * MS;
    t->opened = true;
    if (t->owner.id != 0 && lim_link(r->self, t->owner) != LIM_OK)
        lim_exit(r->self, LIM_FAULT);
    link_parties(t, r->self);
    lim__talk_note(t, r->self, "restored", (lim_pid){ 0 }, lim__bytes("", 0), 0, 0);
    lim__hold_restored(t, r->self);
    for (uint32_t i = 0; i < t->alive; i++)
        lim__hold_resend(t, r->self, t->parties[i].pid, t->parties[i].pid);
    for (uint32_t i = 0; i < t->alive; i++)
        lim__talk_calls_resend(t, r->self, t->parties[i].pid, t->parties[i].pid);
    if (t->wanting)
        lim__talk_want(t, r->self);
}

static void unreadable(talk *t, lim_process *self, uint64_t id)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIx64, id);
    LIM__EVENT(t->bus, self, "conversation.unreadable", { "id", lim__str(text) });
    if (t->kept)
        lim__talk_keep(t)->vain = true; /* its rows stay as they are */
    lim_exit(self, LIM_NORMAL);
}

void lim__back_rows(talk *t, lim_process *self, const lim_signal *signal)
{
    const talk_rows *rows = signal->body.ptr;
    reading r = { .t = t, .self = self, .s = lim__proc_sched(self) };
    if (lim__keep_begin(t, self) != LIM_OK) {
        lim_exit(self, LIM_FAULT);
        return;
    }
    keep *k = lim__talk_keep(t);
    k->id = rows->id;
    k->fresh = false;
    t->rare->history = lim__history_new_as(t->bus, self, (lim_pid){ rows->id });
    lim__unpack u = lim__unpack_begin(lim__bytes(rows->bytes, rows->len));
    while (u.at < u.end && !r.bad) {
        lim_bytes key = lim__unpack_bytes(&u), value = lim__unpack_bytes(&u);
        read_row(&r, key, value);
    }
    k->stream = r.stream;
    k->opened_wall_ns = r.opened_wall_ns;
    if (r.bad || t->open == NULL || t->phase == LIM_PHASE_NONE) {
        unreadable(t, self, rows->id);
    } else if (r.ended_wall_ns != 0) {
        remember_ended(&r);
        k->ended = true;
        lim_exit(self, LIM_NORMAL);
    } else {
        go_on(&r);
    }
}

/* ---- rows, read ---- */

typedef struct gathering { /* rows of one talk after the other */
    lim_bus *bus;
    lim__store *store;
    uint64_t id, stream, ended_wall_ns;
    lim__buf rows;
    lim_err err;
} gathering;

static bool add_entry(void *ctx, const lim__record *record)
{
    gathering *g = ctx;
    lim__pack_bytes(&g->rows, lim__str("h"));
    lim__pack_bytes(&g->rows, record->data);
    return true;
}

static void add_history(gathering *g)
{
    lim__stream_info info;
    uint64_t bad;
    if (g->stream == 0 || lim__store_stream(g->store, g->stream, &info) != 0)
        return;
    uint64_t from = info.next > info.first + LIM__HISTORY_MAX ? info.next - LIM__HISTORY_MAX : info.first;
    (void)lim__store_read(g->store, g->stream, from, 0, add_entry, g, &bad); /* what can be read of it */
}

static lim_err bring(gathering *g)
{
    lim_pid pid;
    add_history(g);
    size_t len = lim__buf_len(&g->rows);
    talk_rows *letter = g->rows.failed ? NULL : lim__letter_new(NULL, &lim__type_talk_rows, sizeof *letter + len);
    if (letter == NULL)
        return LIM_E_NOMEM;
    letter->id = g->id;
    letter->len = (uint32_t)len;
    memcpy(letter->bytes, lim__buf_bytes(&g->rows).ptr, len);
    lim_err err = lim__conv_spawn_again(g->bus, LIM__KIND_TALK, g->id, &pid);
    if (err == LIM_OK && g->ended_wall_ns == 0)
        err = lim__alias_put(g->bus, g->id, pid);
    if (err != LIM_OK) {
        lim__letter_free(NULL, letter);
        return err;
    }
    lim__durable_stream_seen(g->bus, g->stream);
    return lim__post_reserved(g->bus->rt, pid, letter);
}

/* The rows of one have all been read. */
static void whole(gathering *g)
{
    uint64_t now = g->bus->os->wall_ns(g->bus->os);
    if (g->id != 0 && g->ended_wall_ns != 0)
        lim__over_ended(g->bus, g->id, g->stream, g->ended_wall_ns);
    bool over = g->ended_wall_ns != 0 && g->ended_wall_ns + LIM__OVER_MS * MS <= now;
    if (g->id != 0 && !over && g->err == LIM_OK)
        g->err = bring(g);
    lim__buf_fini(&g->rows);
    g->id = g->stream = g->ended_wall_ns = 0;
}

static bool gather(void *ctx, lim_bytes key, lim_bytes value)
{
    gathering *g = ctx;
    const uint8_t *at = key.ptr;
    if (key.len < 9)
        return true;
    uint64_t id = lim__key_get_u64(at);
    lim__unpack u = lim__unpack_begin(value);
    if (id != g->id)
        whole(g);
    g->id = id;
    if (at[8] == 'o' && lim__unpack_u8(&u) == VERSION)
        g->stream = lim__unpack_u64(&u);
    if (at[8] == 's' && lim__unpack_u8(&u) == VERSION && lim__unpack_u8(&u) != 0 && lim__unpack_u8(&u) != UINT8_MAX &&
        lim__unpack_u8(&u) != UINT8_MAX)
        g->ended_wall_ns = lim__unpack_u64(&u);
    lim__pack_bytes(&g->rows, key);
    lim__pack_bytes(&g->rows, value);
    return g->err == LIM_OK;
}

static lim_err gather_all(lim_bus *bus, lim__store *store, lim_bytes prefix)
{
    gathering g = { .bus = bus, .store = store };
    int err = lim__store_scan(store, LIM__TABLE_TALKS, prefix, lim__bytes(NULL, 0), gather, &g);
    whole(&g);
    return g.err != LIM_OK ? g.err : err != 0 ? LIM_E_IO : LIM_OK;
}

lim_err lim__talks_restore(lim_bus *bus, lim_diag *diag)
{
    lim_err err = gather_all(bus, lim__durable_store(bus), lim__bytes(NULL, 0));
    if (err == LIM_OK)
        err = lim__over_start(bus);
    if (err != LIM_OK)
        lim__diag_set(diag, 0, 0, "the durable conversations could not be brought back: %s", lim_err_text(err));
    return err;
}

/* ---- the process of one died ---- */

typedef struct bringing {
    lim__job job;
    lim_bus *bus;
    uint64_t id;
} bringing;

static void read_again(lim__job *job, lim__store *store)
{
    bringing *b = LIM_CONTAINER(job, bringing, job);
    uint8_t prefix[8];
    lim__key_u64(prefix, b->id);
    if (store != NULL && gather_all(b->bus, store, lim__bytes(prefix, sizeof prefix)) != LIM_OK)
        lim__bus_log(b->bus, "event=conversation id=%" PRIx64 " detail=\"it died and could not be brought back now\"",
                     b->id);
    free(b);
}

static void all_stored(void *ctx, lim__batch *batch, const lim__committed *what)
{
    bringing *b = ctx;
    lim__batch_free(batch);
    if (what->how == LIM__COMMIT_CLOSED)
        free(b);
    else
        lim__durable_read(b->bus, &b->job);
}

/* What it had submitted comes before this batch, which changes nothing, and so is read. */
void lim__back_bring(lim_bus *bus, uint64_t id)
{
    uint8_t key[18];
    bringing *b = malloc(sizeof *b);
    lim__batch *batch = b != NULL ? lim__batch_new() : NULL;
    if (batch == NULL) {
        free(b);
        return;
    }
    *b = (bringing){ .job = { .run = read_again }, .bus = bus, .id = id };
    lim__batch_small(batch);
    lim__batch_delete(batch, LIM__TABLE_TALKS, lim__keep_key(id, 'b', 0, key));
    if (lim__durable_submit(bus, batch, all_stored, b) != LIM_OK)
        free(b);
}
