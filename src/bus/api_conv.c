/* SPDX-License-Identifier: Apache-2.0
 * api_conv.c - conversations with more than one exchange for the embedder: each public verb becomes a letter to the
 * conversation, and each answer the end of a wait (agent.h). Asks and tasks are in api.c. */
#include "base/base.h"
#include "bus/agent.h"
#include "bus/api.h"
#include "bus/durable.h"
#include "bus/ended.h"
#include "data/options.h"
#include <stdio.h>
#include <stdlib.h>

/* What the letter says beside the usual; INVALID: an option is malformed, or the conversation is too deep. */
static lim_err open_terms(const lim_conv_opts *o, lim__terms **out)
{
    lim__buf block = { 0 };
    lim_err err = lim__options_open(&block, o, NULL);
    if (err == LIM_OK)
        err = lim__terms_parse(lim__buf_bytes(&block), NULL, out);
    lim__buf_fini(&block);
    if (err == LIM_OK && lim__terms_or_default(*out)->hops > LIM_HOPS_MAX) {
        lim__terms_unref(*out);
        *out = NULL;
        err = LIM_E_INVALID;
    }
    return err;
}

static lim_err open_check(lim_bus *bus, const lim_conv_opts *o)
{
    if (!lim__may_block() || o == NULL || o->size < sizeof *o || !lim__api_timeout_ok(o->timeout_ms) ||
        (o->group != NULL && o->participant.id != 0) ||
        (o->on_crash == LIM_CRASH_COMPENSATE) != (o->compensate != NULL))
        return LIM_E_MISUSE;
    if (o->durable && bus->durable == NULL)
        return LIM_E_MISUSE;
    if (lim__api_closing(bus))
        return LIM_E_CLOSED;
    return o->group != NULL && !lim__channel_name_ok(lim__str(o->group)) ? LIM_E_INVALID : LIM_OK;
}

static lim_err open_letter(lim_bus *bus, const lim_conv_opts *o, lim__open **out)
{
    lim__terms *terms = NULL;
    lim_err err = open_terms(o, &terms);
    if (err == LIM_OK)
        err = lim__api_letter(LIM__KIND_TALK, o->group, NULL, lim__bytes(NULL, 0), out);
    if (err != LIM_OK) {
        lim__terms_unref(terms);
        return err;
    }
    (*out)->terms = terms;
    (*out)->deadline_ns = lim__api_deadline(bus, lim__options_timeout(o->timeout_ms, &o->cause));
    (*out)->on_crash = o->on_crash != 0 ? o->on_crash : LIM_CRASH_FAIL;
    (*out)->participant = pid_of(o->participant.id);
    return LIM_OK;
}

/* An agent becomes its owner, as of any that is opened here. */
static lim_err attach(lim_bus *bus, lim_conv conv)
{
    lim__blocker b;
    lim_err err = lim__api_command(bus, &b, &lim__type_attach, conv, lim__api_deadline(bus, 10000));
    if (err != LIM_OK)
        return err;
    err = b.err != LIM_OK ? b.err : b.body == NULL ? LIM_E_GONE : ((lim__done *)b.body)->err;
    lim__blocker_fini(&b);
    return err;
}

lim_err lim_conv_open(lim_bus *bus, const lim_conv_opts *o, lim_conv *out)
{
    lim__blocker b;
    lim__open *open;
    lim_pid conv;
    lim_err err = open_check(bus, o);
    if (err == LIM_OK && o->attach.id != 0) {
        err = attach(bus, o->attach);
        if (err == LIM_OK)
            *out = o->attach;
        return err;
    }
    if (err == LIM_OK)
        err = open_letter(bus, o, &open);
    if (err != LIM_OK)
        return err;
    lim__blocker_init(&b, bus, pid_of(0));
    lim_pid near = o->group != NULL ? lim__group_find(bus, lim__str(o->group)) : open->participant;
    err = lim__api_begin(bus, lim__agent_for(bus, near), open, &b.wait, &conv);
    if (err == LIM_OK) {
        lim__blocker_wait(&b, pid_of(0), UINT64_MAX);
        err = b.err != LIM_OK ? b.err : b.body == NULL ? LIM_E_CLOSED : ((lim__done *)b.body)->err;
        if (err != LIM_OK)
            (void)!lim_conv_close(bus, (lim_conv){ conv.id });
    }
    lim__blocker_fini(&b);
    if (err == LIM_OK)
        *out = (lim_conv){ conv.id };
    return err;
}

/* Letters that a talk answers with `done` or with an outcome; an ask or a task says INVALID to them. */
static lim_err talk_done(lim_bus *bus, lim_conv conv, void *letter)
{
    lim__blocker b;
    if (letter == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim__api_call(bus, &b, conv, letter, UINT64_MAX);
    if (err != LIM_OK)
        return err;
    err = b.err != LIM_OK ? b.err : b.body == NULL ? LIM_E_GONE : ((lim__done *)b.body)->err;
    lim__blocker_fini(&b);
    return err;
}

static lim_err talk_outcome(lim_bus *bus, lim_conv conv, void *letter, lim_outcome *out)
{
    lim__blocker b;
    if (letter == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim__api_call(bus, &b, conv, letter, UINT64_MAX);
    if (err != LIM_OK)
        return err;
    err = b.body != NULL && b.type == &lim__type_done ? ((lim__done *)b.body)->err : lim__api_outcome(&b, out);
    lim__blocker_fini(&b);
    return err;
}

/* `type`: of a lim__join_conv. */
static lim_err membership(lim_bus *bus, lim_conv conv, const lim__letter_type *type, lim_participant who, bool required)
{
    if (!lim__may_block() || who.id == 0)
        return LIM_E_MISUSE;
    lim__join_conv *j = lim__letter_new(NULL, type, sizeof *j);
    if (j != NULL)
        *j = (lim__join_conv){ .participant = pid_of(who.id), .required = required };
    return talk_done(bus, conv, j);
}

lim_err lim_conv_join(lim_bus *bus, lim_conv conv, lim_participant participant)
{
    return membership(bus, conv, &lim__type_join_conv, participant, false);
}

lim_err lim_conv_join_required(lim_bus *bus, lim_conv conv, lim_participant participant)
{
    return membership(bus, conv, &lim__type_join_conv, participant, true);
}

lim_err lim_conv_leave(lim_bus *bus, lim_conv conv, lim_participant participant)
{
    return membership(bus, conv, &lim__type_leave_conv, participant, false);
}

lim_err lim_conv_send(lim_bus *bus, lim_conv conv, lim_participant to, lim_bytes payload, lim_admission *out)
{
    if (!lim__may_block())
        return LIM_E_MISUSE;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim__msg *msg = lim__msg_new(payload);
    lim__tell *t = msg == NULL ? NULL : lim__letter_new(NULL, &lim__type_tell, sizeof *t);
    if (t != NULL)
        *t = (lim__tell){ .to = pid_of(to.id), .payload = msg };
    else
        lim__msg_unref(msg);
    if (t == NULL)
        return LIM_E_NOMEM;
    lim__blocker b;
    lim_err err = lim__api_call(bus, &b, conv, t, UINT64_MAX);
    if (err != LIM_OK)
        return err;
    const lim__done *d = b.body;
    err = b.err != LIM_OK ? b.err : d == NULL ? LIM_E_GONE : d->admission.verdict == 0 ? d->err : LIM_OK;
    if (err == LIM_OK)
        *out = d->admission;
    lim__blocker_fini(&b);
    return err;
}

lim_err lim_conv_receive(lim_bus *bus, lim_conv conv, int64_t timeout_ms, lim_outcome *out)
{
    if (!lim__may_block() || !lim__api_timeout_ok(timeout_ms))
        return LIM_E_MISUSE;
    lim__receive *r = lim__letter_new(NULL, &lim__type_receive, sizeof *r);
    if (r != NULL)
        *r = (lim__receive){ .deadline_ns = lim__api_deadline(bus, timeout_ms) };
    return talk_outcome(bus, conv, r, out);
}

lim_err lim_conv_ask(lim_bus *bus, lim_conv conv, lim_participant to, lim_bytes request, int64_t timeout_ms,
                     lim_outcome *out)
{
    if (!lim__may_block() || !lim__api_timeout_ok(timeout_ms))
        return LIM_E_MISUSE;
    if (request.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim__msg *msg = lim__msg_new(request);
    lim__ask *a = msg == NULL ? NULL : lim__letter_new(NULL, &lim__type_ask, sizeof *a);
    if (a != NULL)
        *a = (lim__ask){ .to = pid_of(to.id), .deadline_ns = lim__api_deadline(bus, timeout_ms), .payload = msg };
    else
        lim__msg_unref(msg);
    return talk_outcome(bus, conv, a, out);
}

static lim_err post_command(lim_bus *bus, const lim__letter_type *type, lim_conv conv)
{
    lim_pid to = lim__alias_pid(bus, conv.id);
    if (lim__conv_kind_of(bus, to) == 0)
        return LIM_E_GONE; /* it has ended, or it is something else */
    lim__command *c = lim__letter_new(NULL, type, sizeof *c);
    if (c == NULL)
        return LIM_E_NOMEM;
    *c = (lim__command){ 0 };
    return lim__post_reserved(bus->rt, to, c);
}

lim_err lim_conv_close(lim_bus *bus, lim_conv conv)
{
    return post_command(bus, &lim__type_close, conv);
}

lim_err lim_conv_cancel(lim_bus *bus, lim_conv conv)
{
    return post_command(bus, &lim__type_cancel, conv);
}

/* What is left to say of one that has ended: how. */
static lim_err inspect_ended(lim_bus *bus, lim_conv conv, lim_conv_info *out)
{
    lim__ended_summary was;
    if (!lim__ended_summary_of(bus, pid_of(conv.id), &was))
        return LIM_E_GONE;
    *out = (lim_conv_info){ .phase = was.phase, .remaining_ms = LIM_FOREVER };
    return LIM_OK;
}

lim_err lim_conv_inspect(lim_bus *bus, lim_conv conv, lim_conv_info *out)
{
    lim__blocker b;
    if (!lim__may_block())
        return LIM_E_MISUSE;
    lim_err err = lim__api_command(bus, &b, &lim__type_inspect, conv, lim__api_deadline(bus, 5000));
    if (err != LIM_OK)
        return err == LIM_E_GONE ? inspect_ended(bus, conv, out) : err;
    err = b.err != LIM_OK ? b.err : b.body != NULL ? LIM_OK : inspect_ended(bus, conv, out);
    if (b.body != NULL && err == LIM_OK)
        *out = ((lim__done *)b.body)->info;
    lim__blocker_fini(&b);
    return err;
}

typedef struct notifier {
    lim__wait wait;
    lim_participant participant;
    lim_on_exit *on_exit;
    void *ctx;
} notifier;

static bool notifier_letter(lim__wait *w, lim__wait_end end, const lim_signal *signal)
{
    notifier *n = LIM_CONTAINER(w, notifier, wait);
    lim_reason reason = LIM_REASON_NONE;
    uint64_t at_ns = 0;
    if (end == LIM__WAIT_LETTER) {
        const lim__exited *e = signal->body.ptr;
        reason = e->reason;
        at_ns = e->at_ns;
    }
    n->on_exit(n->ctx, n->participant, reason, at_ns);
    free(n);
    return true;
}

lim_err lim_conv_notify(lim_bus *bus, lim_conv conv, lim_participant participant, lim_on_exit *on_exit, void *ctx)
{
    lim_pid to = pid_of(conv.id), agent = lim__agent_for(bus, to);
    notifier *n = calloc(1, sizeof *n);
    lim__notify *letter = lim__letter_new(NULL, &lim__type_notify, sizeof *letter);
    lim_err err = on_exit == NULL ? LIM_E_MISUSE : n == NULL || letter == NULL ? LIM_E_NOMEM : LIM_OK;
    if (err == LIM_OK) {
        *n = (notifier){ .wait = { .conv = to, .ref = lim__wait_ref(bus), .on_letter = notifier_letter },
                         .participant = participant,
                         .on_exit = on_exit,
                         .ctx = ctx };
        *letter = (lim__notify){ n->wait.ref, agent, pid_of(participant.id) };
        err =
            lim__conv_kind_of(bus, to) == LIM__KIND_TALK ? lim__agent_expect(bus, agent, &n->wait, false) : LIM_E_GONE;
    }
    if (err != LIM_OK) {
        free(n);
        if (letter != NULL)
            lim__letter_free(NULL, letter);
        return err;
    }
    uint64_t ref = letter->ref;
    if (lim__post_reserved(bus->rt, to, letter) != LIM_OK)
        lim__agent_forget(bus, agent, ref); /* it ended just now: on_exit is told so */
    return LIM_OK;
}

/* ---- from outside: by name, by signal ---- */

lim_err lim_conv_find(lim_bus *bus, const char *name, lim_conv *out)
{
    if (name == NULL)
        return LIM_E_MISUSE;
    lim_pid conv = lim_whereis(bus->rt, name);
    if (lim__conv_kind_of(bus, conv) != LIM__KIND_TALK)
        return LIM_E_NOTFOUND;
    *out = (lim_conv){ lim__alias_of(bus, conv) };
    return LIM_OK;
}

/* One segment of a channel's name, and not the system's. */
static bool segment_ok(lim_bytes name)
{
    return lim__channel_name_ok(name) && memchr(name.ptr, '.', name.len) == NULL && *(const char *)name.ptr != '$';
}

lim_err lim_conv_signal(lim_bus *bus, lim_conv conv, const char *name, lim_bytes payload)
{
    lim_bytes text = lim__str(name);
    if (name == NULL)
        return LIM_E_MISUSE;
    if (!segment_ok(text))
        return LIM_E_INVALID;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim_pid to = lim__alias_pid(bus, conv.id);
    if (lim__conv_kind_of(bus, to) == 0)
        return LIM_E_GONE;
    lim__msg *msg = lim__msg_new(payload);
    lim__signal_in *m = msg == NULL ? NULL : lim__letter_new(NULL, &lim__type_signal_in, sizeof *m + text.len);
    if (m == NULL) {
        lim__msg_unref(msg);
        return LIM_E_NOMEM;
    }
    *m = (lim__signal_in){ .payload = msg, .name_len = (uint8_t)text.len };
    memcpy(m->name, text.ptr, text.len);
    return lim__post(bus->rt, to, m);
}

lim_err lim_conv_say_to(lim_bus *bus, const lim_delivery *d, lim_participant to, lim_bytes payload)
{
    lim__sched *s = lim__sched_current();
    lim_process *self = s != NULL ? lim__local_process(s, pid_of(d->self.id)) : NULL;
    if (payload.len > bus->opts.payload_bytes_max)
        return LIM_E_TOOBIG;
    lim__msg *msg = lim__msg_new(payload);
    lim__say *say = msg == NULL ? NULL : lim__letter_new(self != NULL ? s : NULL, &lim__type_say, sizeof *say);
    if (say == NULL) {
        lim__msg_unref(msg);
        return LIM_E_NOMEM;
    }
    *say = (lim__say){ .from = pid_of(d->self.id), .to = pid_of(to.id), .payload = msg };
    return self != NULL ? lim__send(self, pid_of(d->conv.id), say) : lim__post(bus->rt, pid_of(d->conv.id), say);
}

/* ---- names of workflow engines ---- */

static lim_err part_ok(const char *part, const char *text, lim_diag *diag)
{
    const char *fault = text[0] == '\0'               ? "is empty"
                        : strchr(text, '.') != NULL   ? "has a dot"
                        : !segment_ok(lim__str(text)) ? "has something else than A-Z a-z 0-9 _ - or is too long"
                                                      : NULL;
    if (fault == NULL)
        return LIM_OK;
    lim__diag_set(diag, 0, 0, "%s '%.60s' %s", part, text, fault);
    return LIM_E_INVALID;
}

lim_err lim_workflow_name(const char *kind, const char *ns, const char *id, char out[256], lim_diag *diag)
{
    if (kind == NULL || ns == NULL || id == NULL)
        return LIM_E_MISUSE;
    bool dispatch = strcmp(kind, "dispatch") == 0;
    if (!dispatch && strcmp(kind, "signal") != 0 && strcmp(kind, "history") != 0) {
        lim__diag_set(diag, 0, 0, "kind '%.60s' is not dispatch, signal or history", kind);
        return LIM_E_INVALID;
    }
    lim_err err = part_ok("namespace", ns, diag);
    if (err == LIM_OK)
        err = part_ok(dispatch ? "task_queue" : "workflow_id", id, diag);
    if (err != LIM_OK)
        return err;
    if (strlen("aion...") + strlen(kind) + strlen(ns) + strlen(id) > 255) {
        lim__diag_set(diag, 0, 0, "%s '%.60s' is too long: a name has at most 255 bytes",
                      strlen(ns) > strlen(id) ? "namespace"
                      : dispatch              ? "task_queue"
                                              : "workflow_id",
                      strlen(ns) > strlen(id) ? ns : id);
        return LIM_E_INVALID;
    }
    snprintf(out, 256, "aion.%s.%s.%s", kind, ns, id);
    return LIM_OK;
}

/* ---- histories ---- */

static lim_err each_entry(lim_bytes json, lim_on_history *each, void *ctx, uint64_t *entries)
{
    lim__doc *doc = lim__doc_new();
    lim_err err = doc == NULL ? LIM_E_NOMEM : lim__doc_parse(doc, json, NULL);
    if (err == LIM_OK) {
        lim__val root = lim__doc_root(doc);
        lim__iter it = lim__iter_begin(lim__val_get(root, "history"));
        while (lim__iter_next(&it)) {
            lim_history_entry e = { .n = lim__val_u64(it.val, "n", 0),
                                    .at_wall_us = lim__val_u64(it.val, "at_us", 0),
                                    .kind = lim__val_bytes(it.val, "kind", lim__bytes("", 0)),
                                    .who = lim__val_bytes(it.val, "who", lim__bytes("", 0)),
                                    .detail = lim__val_bytes(it.val, "detail", lim__bytes("", 0)),
                                    .bytes = lim__val_u64(it.val, "bytes", 0) };
            each(ctx, &e);
        }
        *entries = lim__val_u64(root, "entries", 0);
    }
    lim__doc_free(doc);
    return err;
}

lim_err lim_conv_history(lim_bus *bus, lim_conv conv, uint64_t after, lim_on_history *each, void *ctx,
                         uint64_t *entries)
{
    lim__blocker b;
    lim_pid to = pid_of(conv.id);
    if (!lim__may_block() || each == NULL)
        return LIM_E_MISUSE;
    if (conv.id == 0 || lim__pid_scheduler(to) >= lim__sched_count(bus->rt))
        return LIM_E_NOTFOUND;
    lim_pid agent = lim__agent_for(bus, to);
    lim__show *show = lim__letter_new(NULL, &lim__type_show, sizeof *show);
    if (show == NULL)
        return LIM_E_NOMEM;
    lim__blocker_init(&b, bus, pid_of(0));
    *show = (lim__show){
        .reply_to = agent, .ref = b.wait.ref, .only = to, .after = after, .what = LIM__SHOW_HISTORY, .max = 1
    };
    lim_err err = lim__agent_expect(bus, agent, &b.wait, false);
    if (err != LIM_OK) {
        lim__letter_free(NULL, show);
    } else {
        (void)!lim__post_reserved(bus->rt, agent, show); /* gone: so is the wait */
        lim__blocker_wait(&b, agent, UINT64_MAX);
        const lim__shown *shown = b.body;
        err = b.err != LIM_OK   ? b.err
              : shown == NULL   ? LIM_E_CLOSED
              : shown->len == 0 ? LIM_E_NOTFOUND
                                : each_entry(lim__bytes(shown->json, shown->len), each, ctx, entries);
    }
    lim__blocker_fini(&b);
    return err;
}
