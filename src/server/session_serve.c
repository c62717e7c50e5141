/* SPDX-License-Identifier: Apache-2.0
 * session_serve.c - registrations: a proxy process for each, which is the participant that the bus sees.
 *
 *   conversation --request, revoke, settled, credit--> proxy --REQUEST, REVOKED, SETTLED, CREDIT--> client
 *   conversation <--taken, part, progress, answer, holding, say-- (sent as the proxy) <-- TAKEN, PART, ... -- client
 *
 * A proxy lives on its session's scheduler, so it writes into the session's output, and the session sends in its name:
 * what the client said is on its way before the proxy's death can be. A proxy ends with the reason of its session
 * (linked), with `left` when the client says LEAVE, and when the group evicts it. Session and proxy know each other by
 * pointers that whoever ends first clears.
 *
 *   (SERVE) --join--> JOINING --joined--> SERVED --LEAVE--> LEAVING --its proxy has ended--> LEFT
 *                        |                   `------ evicted, ended -----------------------> LEFT
 *                        `-- refused ------------------------------------------------------> LEFT
 *
 * Of a request nothing is remembered but that it is in hand, by a hash of (conversation, lease), and how many parts of
 * an answer may be sent: NO_PARTS, or ROOM + that many; KEPT: an ask whose answer is settled like a task's. Who sends
 * more breaks the protocol. */
#include "server/session.h"
#include "data/options.h"

#include "bus/durable.h"
#include "bus/participant.h"
#include <stdio.h>

typedef struct unsettled_reply {
    lim_pid conv;
    uint64_t lease;
} unsettled_reply;

/* ---- what is in hand ---- */

enum { NO_PARTS = 1, KEPT, ROOM };

static uint64_t hand_key(lim_pid conv, uint64_t lease)
{
    return conv.id + lease * 0x9E3779B97F4A7C15u; /* two that fall together make a count wrong by one, no more */
}

/* `room`: NO_PARTS, KEPT, or ROOM and more. False: no memory. */
static bool hold(proxy *p, lim_pid conv, uint64_t lease, uintptr_t room)
{
    session *s = p->session;
    size_t before = p->held.count;
    lim_err err = lim__map_put(&p->held, hand_key(conv, lease), (void *)room);
    s->held += p->held.count - before;
    lim__session_busy_look(s);
    return err == LIM_OK;
}

/* 0: it is not in hand. */
static uintptr_t room_of(const proxy *p, lim_pid conv, uint64_t lease)
{
    return (uintptr_t)lim__map_get(&p->held, hand_key(conv, lease));
}

static void let_go(proxy *p, lim_pid conv, uint64_t lease)
{
    if (p->session == NULL || lim__map_remove(&p->held, hand_key(conv, lease)) == NULL)
        return;
    p->session->held--;
    lim__session_busy_look(p->session);
}

void lim__session_let_go(reg_stream *reg, lim_pid conv, uint64_t lease)
{
    if (reg->proxy != NULL)
        let_go(reg->proxy, conv, lease);
}

/* ---- the proxy ---- */

static uint32_t remaining_ms(const session *s, uint64_t deadline_ns)
{
    uint64_t now_ns = lim_now_ns(s->self);
    if (deadline_ns == UINT64_MAX)
        return LIM__NO_TIMEOUT;
    uint64_t ms = deadline_ns > now_ns ? (deadline_ns - now_ns + 999999) / 1000000 : 0;
    return ms < LIM__NO_TIMEOUT ? (uint32_t)ms : LIM__NO_TIMEOUT - 1;
}

/* Its group hands over no more than it has places; who asks it by its number, or in a conversation, goes past that. */
static bool too_many(proxy *p, lim_process *self, const lim__request *r)
{
    if (p->capacity == LIM_UNLIMITED || p->held.count < (uint64_t)p->capacity + LIM__DIRECT_MAX)
        return false;
    lim__answer *a = lim__answer_new(lim__proc_sched(self), lim_self(self), r->lease, LIM__ANSWER_FAILED, NULL,
                                     lim__str("the participant has more in hand than it can answer"));
    if (a == NULL)
        lim_exit(self, LIM_FAULT); /* the nearest truth for who asked */
    else
        (void)!lim__send_reserved(self, r->conv, a);
    return true;
}

static void served(session *s, reg_stream *reg)
{
    reg->state = REG_SERVED;
    LIM__SAY(s, served, .stream = reg->base.id, .participant = reg->pid.id,
             .identity = lim__bytes(reg->identity, reg->identity_len));
}

static void on_request(proxy *p, lim_process *self, const lim__request *r)
{
    session *s = p->session;
    if (p->reg->state == REG_JOINING) /* a conversation elsewhere was quicker than the group's word to the session */
        served(s, p->reg);
    if (!(r->flags & LIM__REQUEST_QUIET) && too_many(p, self, r))
        return;
    lim__f_request f = { .stream = p->reg->base.id,
                         .conversation = r->conv.id,
                         .lease = r->lease,
                         .remaining_ms = remaining_ms(s, r->deadline_ns),
                         .attempt = r->attempt,
                         .losses = r->losses,
                         .hops = r->hops,
                         .credit = r->credit,
                         .event = r->event,
                         .from = r->from.id,
                         .type = lim__bytes(r->type, r->type_len) };
    if (r->payload != NULL) {
        f.payload = lim__msg_bytes(r->payload);
        f.headers = lim__msg_headers(r->payload);
    }
    if (r->flags & LIM__REQUEST_ACK)
        f.flags |= LIM__FLAG_TAKEN;
    if (r->flags & LIM__REQUEST_QUIET) {
        f.flags |= LIM__FLAG_NO_REPLY;
    } else if (!hold(p, r->conv, r->lease,
                     r->credit > 0                 ? ROOM + (uintptr_t)r->credit
                     : r->flags & LIM__REQUEST_ACK ? KEPT
                                                   : NO_PARTS)) {
        lim_exit(self, LIM_FAULT); /* the nearest truth for who asked */
        return;
    }
    (void)!lim__put_request(lim__session_out(s), &f);
}

static void on_credit(proxy *p, const lim__credit *c)
{
    uintptr_t room = room_of(p, c->conv, c->lease);
    if (room < ROOM)
        return;                                        /* answered meanwhile */
    (void)hold(p, c->conv, c->lease, room + c->parts); /* replaces: needs no memory */
    LIM__SAY(p->session, credit, .stream = p->reg->base.id, .conversation = c->conv.id, .lease = c->lease,
             .parts = c->parts);
}

static void on_revoke(proxy *p, const lim__revoke *r)
{
    let_go(p, r->conv, r->lease);
    LIM__SAY(p->session, revoked, .stream = p->reg->base.id, .conversation = r->conv.id, .lease = r->lease,
             .why = (uint8_t)r->why);
}

static void say_settled(proxy *p, lim_pid conv, uint64_t lease, bool accepted, const char *detail)
{
    LIM__SAY(p->session, settled, .stream = p->reg->base.id, .conversation = conv.id, .lease = lease,
             .accepted = accepted, .detail = lim__str(detail));
}

/* The monitor of an unsettled reply; 0: there is none. */
static uint64_t unsettled_find(proxy *p, lim_pid conv, uint64_t lease)
{
    size_t pos = 0;
    uint64_t monitor;
    void *value;
    while (lim__map_next(&p->unsettled, &pos, &monitor, &value)) {
        const unsettled_reply *u = value;
        if (u->conv.id == conv.id && u->lease == lease)
            return monitor;
    }
    return 0;
}

static void on_settled(proxy *p, lim_process *self, const lim__settled *d)
{
    uint64_t monitor = p->unsettled.count > 0 ? unsettled_find(p, d->conv, d->lease) : 0;
    if (monitor != 0) {
        lim_demonitor(self, monitor);
        lim__free(lim__proc_sched(self), lim__map_remove(&p->unsettled, monitor), sizeof(unsettled_reply));
    }
    if (p->kind == LIM__MEMBER_WORK || d->kept) /* other asks are not settled: exactly the first answer counts */
        say_settled(p, d->conv, d->lease, d->accepted,
                    d->accepted ? NULL : "it is somebody else's by now, or has ended");
}

/* The conversation is gone: did this very answer end it? */
static void settle_late(proxy *p, lim_pid conv, uint64_t lease)
{
    lim__ended_info info;
    bool accepted = lim__ended_find(p->session->porter->bus, conv, &info) && info.accepted_lease == lease && lease != 0;
    say_settled(p, conv, lease, accepted, accepted ? NULL : "the task has ended");
}

static void on_conv_down(proxy *p, lim_process *self, uint64_t monitor)
{
    unsettled_reply *u = lim__map_remove(&p->unsettled, monitor);
    if (u == NULL)
        return;
    settle_late(p, u->conv, u->lease);
    lim__free(lim__proc_sched(self), u, sizeof *u);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    proxy *p = state;
    const void *body = signal->body.ptr;
    if (signal->kind == LIM_SIGNAL_EXIT && signal->from.id == p->owner.id) {
        lim_exit(self, signal->reason); /* the session's reason is ours; LEAVE. Conversations' deaths do not matter */
    } else if (p->session == NULL) {
        return; /* that exit is on its way */
    } else if (signal->kind == LIM_SIGNAL_MESSAGE) {
        if (signal->type == &lim__type_request)
            on_request(p, self, body);
        else if (signal->type == &lim__type_credit)
            on_credit(p, body);
        else if (signal->type == &lim__type_revoke)
            on_revoke(p, body);
        else if (signal->type == &lim__type_settled)
            on_settled(p, self, body);
        else if (signal->type == &lim__type_evict)
            lim_exit(self, ((const lim__evict *)body)->reason);
    } else if (signal->kind == LIM_SIGNAL_DOWN) {
        on_conv_down(p, self, signal->ref);
    }
}

static void on_end(void *state, lim_reason reason)
{
    proxy *p = state;
    size_t pos = 0;
    uint64_t key;
    void *value;
    (void)reason;
    if (p->session != NULL) {
        p->session->held -= p->held.count;
        lim__session_busy_look(p->session);
        p->reg->proxy = NULL;
    }
    while (lim__map_next(&p->unsettled, &pos, &key, &value))
        lim__free(lim__sched_current(), value, sizeof(unsettled_reply));
    lim__map_fini(&p->unsettled);
    lim__map_fini(&p->held);
}

void lim__session_reg_end(reg_stream *reg)
{
    if (reg->proxy != NULL)
        reg->proxy->session = NULL;
}

/* ---- SERVE ---- */

/* Why not; NULL: nothing speaks against it. */
static const char *objection(const session *s, const lim__f_serve *f, lim_err *code)
{
    *code = LIM_E_INVALID;
    if (f->group.len == 0 && f->namespace.len > 0)
        return "a namespace, and the name of a group in one, have no dot, and 240 bytes together at most";
    if (!lim__channel_name_ok(f->group))
        return "a group's name is segments of A-Z a-z 0-9 _ - joined by dots";
    if (lim__session_draining(s)) {
        *code = LIM_E_CLOSED;
        return "the server is closing";
    }
    if (((const char *)f->group.ptr)[0] == '$') {
        *code = LIM_E_DENIED;
        return "groups that begin with $ are the system's";
    }
    *code = LIM_E_MISUSE;
    if (f->capacity == 0)
        return "a capacity of 0 is refused: it was forgotten";
    if (f->capacity == LIM_UNLIMITED && f->kind == LIM__SERVE_QUEUE)
        return "a worker's capacity has a limit";
    return NULL;
}

/* Of a namespace: the group's whole name, in `room`; none if there can be none of that name. */
static lim_bytes whole_name(const lim__f_serve *f, char room[256])
{
    char ns[256], name[256];
    if (f->namespace.len == 0)
        return f->group;
    snprintf(ns, sizeof ns, "%.*s", (int)f->namespace.len, (const char *)f->namespace.ptr);
    snprintf(name, sizeof name, "%.*s", (int)f->group.len, (const char *)f->group.ptr);
    const char *whole = lim__in_namespace(ns, name, room);
    return whole != NULL ? lim__str(whole) : lim__bytes(NULL, 0);
}

static lim__join *join_letter(session *s, const lim__f_serve *f, reg_stream *reg)
{
    char made[40];
    if (s->pulse == NULL)
        s->pulse = lim__pulse_new(lim_now_ns(s->self)); /* none for want of memory: it is seen by its results */
    lim_bytes identity = f->identity;
    if (identity.len == 0) {
        unsigned long long n = atomic_fetch_add(&s->porter->bus->next_name, 1) + 1;
        int len = snprintf(made, sizeof made, "%s-%llu", reg->kind == LIM__MEMBER_WORK ? "worker" : "participant", n);
        identity = lim__bytes(made, (size_t)len);
    }
    reg->identity_len = (uint8_t)identity.len;
    memcpy(reg->identity, identity.ptr, identity.len);
    size_t bytes = identity.len + f->types.len + f->tags.len + s->place.len;
    lim__join *j = bytes > UINT16_MAX ? NULL : lim__letter_new(s->porter->sched, &lim__type_join, sizeof *j + bytes);
    if (j == NULL)
        return NULL;
    *j = (lim__join){ .participant = reg->pid,
                      .reply_to = lim_self(s->self),
                      .ref = reg->ref,
                      .kind = reg->kind,
                      .capacity = f->capacity,
                      .type_count = f->types.count,
                      .tag_count = f->tags.count,
                      .pulse = lim__pulse_ref(s->pulse),
                      .text_len = (uint16_t)bytes,
                      .node_len = (uint8_t)s->place.len,
                      .identity_len = (uint8_t)identity.len };
    memcpy(j->session, s->token, sizeof j->session);
    memcpy(j->text, identity.ptr, identity.len);
    if (f->types.len > 0) /* packed as on the wire */
        memcpy(j->text + identity.len, f->types.ptr, f->types.len);
    if (f->tags.len > 0)
        memcpy(j->text + identity.len + f->types.len, f->tags.ptr, f->tags.len);
    if (s->place.len > 0)
        memcpy(j->text + bytes - s->place.len, s->place.ptr, s->place.len);
    return j;
}

static lim_err proxy_open(session *s, reg_stream *reg, uint32_t capacity)
{
    proxy init = { .session = s, .owner = lim_self(s->self), .reg = reg, .kind = reg->kind, .capacity = capacity };
    uint64_t seed = s->porter->os->random(s->porter->os);
    lim__map_init(&init.held, seed);
    lim__map_init(&init.unsettled, seed);
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "proxy",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof init,
                            .init = &init,
                            .init_bytes = sizeof init,
                            .mailbox_max = 1u << 20,
                            .trap_exit = true,
                            .link = true };
    lim_err err = lim_spawn(s->self, &opts, &reg->pid);
    if (err != LIM_OK)
        return err;
    reg->proxy = lim__proc_state(lim__local_process(s->porter->sched, reg->pid));
    err = lim__map_put(&s->peers, reg->pid.id, &reg->base);
    if (err != LIM_OK) {
        lim__session_reg_end(reg);
        lim_unlink(s->self, reg->pid);
        lim_exit_process(s->self, reg->pid, LIM_KILL);
    }
    return err;
}

/* Lets go of the registration and says why. */
static void left(session *s, reg_stream *reg, lim_err code, const char *detail)
{
    if (reg->proxy != NULL) {
        s->held -= reg->proxy->held.count;
        reg->proxy->session = NULL;
        lim__session_busy_look(s);
        lim_unlink(s->self, reg->pid);
        lim_exit_process(s->self, reg->pid, LIM_LEFT);
    }
    lim__map_remove(&s->peers, reg->pid.id);
    LIM__SAY(s, left, .stream = reg->base.id, .code = (uint16_t)code, .detail = lim__str(detail));
    lim__session_stream_drop(s, &reg->base, sizeof *reg);
}

static lim_err join(session *s, const lim__f_serve *f, reg_stream *reg)
{
    lim_err err = proxy_open(s, reg, f->capacity);
    if (err != LIM_OK)
        return err;
    err = lim__group_get(s->porter->bus, s->self, f->group, &reg->group);
    lim__join *j = err == LIM_OK ? join_letter(s, f, reg) : NULL;
    if (err == LIM_OK && j == NULL)
        err = LIM_E_NOMEM;
    return err == LIM_OK ? lim__send(s->self, reg->group, j) : err;
}

void lim__session_serve(session *s, const lim__frame *frame)
{
    lim__f_serve f;
    lim_err err;
    if (!lim__get_serve(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (!lim__session_stream_free(s, frame))
        return;
    char room[256];
    f.group = whole_name(&f, room);
    const char *why = objection(s, &f, &err);
    reg_stream *reg = why == NULL ? lim__alloc(s->porter->sched, sizeof *reg) : NULL;
    if (reg == NULL) {
        LIM__SAY(s, left, .stream = f.stream, .code = (uint16_t)(why != NULL ? err : LIM_E_NOMEM),
                 .detail = lim__str(why != NULL ? why : "out of memory"));
        return;
    }
    *reg = (reg_stream){ .ref = ++s->next_ref,
                         .state = REG_JOINING,
                         .kind = f.kind == LIM__SERVE_QUEUE ? LIM__MEMBER_WORK : LIM__MEMBER_SERVE };
    err = lim__session_stream_add(s, &reg->base, STREAM_REG, f.stream);
    if (err == LIM_OK)
        err = join(s, &f, reg);
    if (err != LIM_OK)
        left(s, reg, err, lim_err_text(err));
    else
        lim__session_watch_closely(s);
}

static reg_stream *joining(session *s, uint64_t ref)
{
    size_t pos = 0;
    uint64_t key;
    void *value;
    while (lim__map_next(&s->streams, &pos, &key, &value)) {
        reg_stream *reg = value;
        if (reg->base.kind == STREAM_REG && reg->ref == ref)
            return reg;
    }
    return NULL;
}

void lim__session_joined(session *s, const lim__joined *j)
{
    reg_stream *reg = joining(s, j->ref);
    if (reg == NULL || reg->state != REG_JOINING)
        return; /* left meanwhile */
    if (j->err != LIM_OK) {
        left(s, reg, j->err,
             j->err == LIM_E_EXISTS ? "somebody else in the group has that identity" : lim_err_text(j->err));
        return;
    }
    LIM_CHECK(lim__bytes_eq(lim__bytes(j->identity, j->identity_len), lim__bytes(reg->identity, reg->identity_len)));
    served(s, reg);
}

/* ---- LEAVE, and other ends ---- */

void lim__session_leave(session *s, const lim__frame *frame)
{
    lim__f_leave f;
    if (!lim__get_leave(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    reg_stream *reg = (reg_stream *)lim__session_stream(s, frame, STREAM_REG);
    if (reg == NULL || reg->state == REG_LEAVING)
        return;
    reg->state = REG_LEAVING;
    lim_exit_process(s->self, reg->pid, LIM_LEFT); /* behind the answers that were sent in its name */
}

void lim__session_left(session *s, reg_stream *reg, lim_reason reason)
{
    if (reg->state == REG_LEAVING)
        left(s, reg, LIM_OK, NULL);
    else
        left(s, reg, reason == LIM_REPLACED ? LIM_E_EXISTS : LIM_E_GONE, lim_reason_text(reason));
}

/* ---- TAKEN, REPLY, HOLDING ---- */

/* The process in whose name the client speaks; NULL: it has left. */
static lim_process *speaker(session *s, const lim__frame *frame, reg_stream **reg)
{
    *reg = (reg_stream *)lim__session_stream(s, frame, STREAM_REG);
    if (*reg == NULL || (*reg)->proxy == NULL || (*reg)->state == REG_LEAVING)
        return NULL;
    return lim__local_process(s->porter->sched, (*reg)->pid);
}

void lim__session_taken(session *s, const lim__frame *frame)
{
    lim__f_taken f;
    reg_stream *reg;
    if (!lim__get_taken(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    lim_process *self = speaker(s, frame, &reg);
    lim__taken *t = self == NULL ? NULL : lim__letter_new(s->porter->sched, &lim__type_taken, sizeof *t);
    if (t == NULL)
        return;
    t->lease = f.lease;
    (void)!lim__send_reserved(self, lim__alias_pid(s->porter->bus, f.conversation), t);
}

/* On another scheduler a conversation can end while the answer is on its way: then nobody would settle it. */
static void watch_reply(proxy *p, lim_process *self, lim_pid conv, uint64_t lease)
{
    uint64_t monitor;
    lim__sched *sched = lim__proc_sched(self);
    lim_pid there = lim__alias_pid(p->session->porter->bus, conv.id);
    if (lim__pid_scheduler(there) == lim__sched_index(sched))
        return;
    unsettled_reply *u = lim__alloc(sched, sizeof *u);
    if (u == NULL)
        return;
    *u = (unsettled_reply){ conv, lease };
    if (lim_monitor(self, there, &monitor) != LIM_OK) {
        lim__free(sched, u, sizeof *u);
    } else if (lim__map_put(&p->unsettled, monitor, u) != LIM_OK) {
        lim_demonitor(self, monitor);
        lim__free(sched, u, sizeof *u);
    }
}

static lim__answer *answer_letter(session *s, const reg_stream *reg, const lim__f_reply *f)
{
    lim__msg *msg = NULL;
    uint32_t payload_max = s->porter->bus->opts.payload_bytes_max;
    lim_pid from = reg->pid;
    if (f->how == LIM__REPLY_REPLY && f->payload.len > payload_max)
        return lim__answer_new(s->porter->sched, from, f->lease, LIM__ANSWER_FAILED, NULL,
                               lim__str("the reply is over the size limit"));
    if (f->how == LIM__REPLY_REPLY && (msg = lim__msg_new(f->payload)) == NULL)
        return NULL;
    return lim__answer_new(s->porter->sched, from, f->lease, (lim__answer_how)f->how, msg, f->detail);
}

void lim__session_reply(session *s, const lim__frame *frame)
{
    lim__f_reply f;
    reg_stream *reg;
    if (!lim__get_reply(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    lim_process *self = speaker(s, frame, &reg);
    if (self == NULL)
        return;
    lim_pid conv = { f.conversation };
    bool work = reg->kind == LIM__MEMBER_WORK || room_of(reg->proxy, conv, f.lease) == KEPT;
    let_go(reg->proxy, conv, f.lease);
    lim__answer *a = answer_letter(s, reg, &f);
    if (a == NULL) { /* its asker would wait for ever; the crash of who answered is the nearest truth */
        lim_exit_process(s->self, reg->pid, LIM_FAULT);
        return;
    }
    if (work)
        watch_reply(reg->proxy, self, conv, f.lease);
    if (lim__send_reserved(self, lim__alias_pid(s->porter->bus, conv.id), a) == LIM_E_GONE && work &&
        unsettled_find(reg->proxy, conv, f.lease) == 0) /* else its DOWN says so */
        settle_late(reg->proxy, conv, f.lease);
}

void lim__session_holding(session *s, const lim__frame *frame)
{
    lim__f_holding f;
    reg_stream *reg;
    if (!lim__get_holding(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    lim_process *self = speaker(s, frame, &reg);
    if (self == NULL)
        return;
    lim_pid conv = { f.conversation };
    lim__holding *h = lim__letter_new(s->porter->sched, &lim__type_holding, sizeof *h);
    if (hold(reg->proxy, conv, f.lease, KEPT) && h != NULL) {
        *h = (lim__holding){ f.lease, reg->pid };
        if (lim__send_reserved(self, lim__alias_pid(s->porter->bus, conv.id), h) == LIM_OK)
            return;
    } else if (h != NULL) {
        lim__letter_free(s->porter->sched, h);
    }
    on_revoke(reg->proxy, &(lim__revoke){ conv, f.lease, LIM__REVOKE_ENDED });
}

/* ---- PART, PROGRESS ---- */

/* A part that cannot be passed on ends the answer: the asker must not take what follows for all of it. */
static void part_fails(session *s, const reg_stream *reg, lim_process *self, const lim__f_part *f)
{
    lim_pid conv = { f->conversation };
    lim__answer *a = lim__answer_new(s->porter->sched, reg->pid, f->lease, LIM__ANSWER_FAILED, NULL,
                                     lim__str("a part of the answer is over the size limit"));
    if (a == NULL) {
        lim_exit_process(s->self, reg->pid, LIM_FAULT);
        return;
    }
    (void)!lim__send_reserved(self, conv, a);
    on_revoke(reg->proxy, &(lim__revoke){ conv, f->lease, LIM__REVOKE_ENDED });
}

static void pass_part(session *s, const reg_stream *reg, lim_process *self, const lim__f_part *f)
{
    lim__msg *msg = lim__msg_new(f->payload);
    lim__part *part = msg == NULL ? NULL : lim__letter_new(s->porter->sched, &lim__type_part, sizeof *part);
    if (part == NULL) {
        lim__msg_unref(msg);
        lim_exit_process(s->self, reg->pid, LIM_FAULT);
        return;
    }
    *part = (lim__part){ f->lease, reg->pid, msg };
    (void)!lim__send_reserved(self, (lim_pid){ f->conversation }, part); /* its room is the credit */
}

void lim__session_part(session *s, const lim__frame *frame)
{
    lim__f_part f;
    reg_stream *reg;
    if (!lim__get_part(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    lim_process *self = speaker(s, frame, &reg);
    lim_pid conv = { f.conversation };
    uintptr_t room = self == NULL ? 0 : room_of(reg->proxy, conv, f.lease);
    if (room == 0)
        return; /* revoked meanwhile */
    if (room <= ROOM) {
        lim__session_fault(s, LIM_E_PROTOCOL, "PART on stream %u %s", f.stream,
                           room < ROOM ? "for an asker that takes none" : "without credit");
        return;
    }
    (void)hold(reg->proxy, conv, f.lease, room - 1); /* replaces */
    if (f.payload.len > s->porter->bus->opts.payload_bytes_max)
        part_fails(s, reg, self, &f);
    else
        pass_part(s, reg, self, &f);
}

void lim__session_progress(session *s, const lim__frame *frame)
{
    enum { NOTE_MAX = 200 };
    lim__f_progress f;
    reg_stream *reg;
    if (!lim__get_progress(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    lim_process *self = speaker(s, frame, &reg);
    if (self == NULL || room_of(reg->proxy, (lim_pid){ f.conversation }, f.lease) == 0)
        return; /* revoked meanwhile */
    lim_bytes note = lim__utf8_clip(f.note, NOTE_MAX);
    lim__progress *m = lim__letter_new(s->porter->sched, &lim__type_progress, sizeof *m + note.len);
    if (m == NULL)
        return; /* the next one will do */
    *m = (lim__progress){ f.lease, reg->pid, (uint8_t)note.len };
    if (note.len > 0)
        memcpy(m->note, note.ptr, note.len);
    (void)!lim__send_reserved(self, lim__alias_pid(s->porter->bus, f.conversation), m);
}

/* ---- SAY, REPORT ---- */

void lim__session_say(session *s, const lim__frame *frame)
{
    lim__f_say f;
    reg_stream *reg;
    if (!lim__get_say(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    lim_process *self = speaker(s, frame, &reg);
    if (self == NULL)
        return;
    lim_pid conv = lim__alias_pid(s->porter->bus, f.conversation);
    if (f.payload.len > s->porter->bus->opts.payload_bytes_max) {
        lim__session_fault(s, LIM_E_TOOBIG, "SAY with a payload over the size limit"); /* it has no answer to say so */
        return;
    }
    if (lim__conv_kind_of(s->porter->bus, conv) != LIM__KIND_TALK) { /* it has ended, or it is something else */
        on_revoke(reg->proxy, &(lim__revoke){ { f.conversation }, 0, LIM__REVOKE_ENDED });
        return;
    }
    lim__msg *msg = lim__msg_new(f.payload);
    lim__say *m = msg == NULL ? NULL : lim__letter_new(s->porter->sched, &lim__type_say, sizeof *m);
    if (m == NULL) {
        lim__msg_unref(msg);
        lim__session_fault(s, LIM_E_NOMEM, "out of memory");
        return;
    }
    *m = (lim__say){ .from = reg->pid, .to = { f.to }, .payload = msg };
    if (lim__send_reserved(self, conv, m) == LIM_E_GONE)
        on_revoke(reg->proxy, &(lim__revoke){ { f.conversation }, 0, LIM__REVOKE_ENDED });
}

void lim__session_report(session *s, const lim__frame *frame)
{
    lim__f_report f;
    reg_stream *reg;
    if (!lim__get_report(frame, &f)) {
        lim__session_malformed(s, frame);
        return;
    }
    if (speaker(s, frame, &reg) == NULL)
        return;
    lim__report *r = lim__letter_new(s->porter->sched, &lim__type_report, sizeof *r);
    if (r == NULL) {
        lim__session_fault(s, LIM_E_NOMEM, "out of memory");
        return;
    }
    *r = (lim__report){ reg->pid, f.used };
    (void)!lim__send_reserved(s->self, reg->group, r); /* behind the join, which was sent in the same name */
}
