/* SPDX-License-Identifier: Apache-2.0
 * api.c - groups and routing for the embedder, and what all public verbs share: each becomes a letter, and each answer
 * a call or the end of a wait (agent.h). Asks and tasks are in api_ask.c, conversations in api_conv.c, channels in
 * channel_api.c, replies in participant.c. */
#include "base/base.h"
#include "bus/channel_slot.h"
#include "bus/agent.h"
#include "bus/api.h"
#include "bus/durable.h"
#include "bus/loader.h"
#include "bus/participant.h"
#include "bus/slot.h"
#include "route/route.h"
#include "data/options.h"
#include "data/outcome.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

bool lim__api_closing(lim_bus *bus)
{
    return atomic_load_explicit(&bus->closing, memory_order_relaxed) != 0;
}

uint64_t lim__api_deadline(lim_bus *bus, int64_t timeout_ms)
{
    if (timeout_ms == LIM_FOREVER)
        return UINT64_MAX;
    return bus->os->now_ns(bus->os) + (uint64_t)timeout_ms * 1000000;
}

bool lim__api_timeout_ok(int64_t timeout_ms)
{
    return timeout_ms > 0 && (timeout_ms == LIM_FOREVER || timeout_ms <= LIM_TIMEOUT_MS_MAX);
}

/* How a wait that got no outcome letter ended. */
lim_outcome lim__api_no_letter(lim__wait_end end, lim_pid conv)
{
    lim_outcome o = { .how = LIM_HOW_CRASHED,
                      .handed_over = LIM_HANDED_UNKNOWN,
                      .reason = LIM_KILLED,
                      .conv = { conv.id },
                      .detail = lim__str("the conversation itself ended"),
                      .participant = lim__str("conversation") };
    if (end == LIM__WAIT_CLOSING) {
        o.how = LIM_HOW_CLOSED;
        o.detail = lim__str("the bus was closed");
        o.participant = lim__str("bus");
        o.reason = LIM_REASON_NONE;
    } else if (end == LIM__WAIT_FORGOTTEN) {
        o.how = LIM_HOW_TIMEOUT;
        o.detail = lim__str("it is still running");
        o.participant = lim__bytes(NULL, 0);
        o.reason = LIM_REASON_NONE;
    }
    return o;
}

/* Makes the conversation, registers the wait with its owner, gives it its first letter (taken in every outcome). After
 * LIM_OK the wait may be over, and gone, at any moment. */
lim_err lim__api_begin(lim_bus *bus, lim_pid agent, lim__open *open, lim__wait *w, lim_pid *conv_out)
{
    lim_pid conv;
    open->owner = agent;
    open->ref = w->ref;
    open->opened_ns = bus->os->now_ns(bus->os);
    lim_err err = lim__conv_spawn_at(bus, open->kind, agent, &conv);
    if (err == LIM_OK) {
        w->conv = conv;
        err = lim__agent_expect(bus, agent, w, true);
        if (err != LIM_OK)
            lim_runtime_exit(bus->rt, conv, LIM_KILL);
    }
    if (err != LIM_OK) {
        lim__letter_free(NULL, open);
        return err;
    }
    *conv_out = conv;
    (void)!lim__post(bus->rt, conv, open);
    return LIM_OK;
}

lim_err lim__api_letter(lim__conv_kind kind, const char *group, const char *type, lim_bytes payload, lim__open **out)
{
    lim__msg *msg = lim__msg_new(payload);
    lim__open *open = msg == NULL ? NULL : lim__open_new(NULL, kind, lim__str(group), lim__str(type), msg);
    if (open == NULL)
        lim__msg_unref(msg);
    *out = open;
    return open != NULL ? LIM_OK : LIM_E_NOMEM;
}

/* The outcome of a blocker whose wait is over, as the caller's own. */
lim_err lim__api_outcome(lim__blocker *b, lim_outcome *out)
{
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    lim_outcome view = lim__api_no_letter(b->end, b->wait.conv);
    if (b->body != NULL && b->type == &lim__type_outcome)
        lim__outcome_view(b->body, excluded, &view);
    return b->err != LIM_OK ? b->err : lim__outcome_copy(&view, out);
}

/* Has the agent send a letter to a conversation, and waits for what comes back under its ref, its first field. After
 * LIM_OK the blocker is the caller's to end. */
lim_err lim__api_call(lim_bus *bus, lim__blocker *b, lim_conv conv, void *letter, uint64_t deadline_ns)
{
    lim_pid to = lim__alias_pid(bus, conv.id), agent = lim__agent_for(bus, to);
    if (lim__conv_kind_of(bus, to) == 0) { /* it has ended, or it is something else */
        lim__letter_free(NULL, letter);
        return LIM_E_GONE;
    }
    lim__blocker_init(b, bus, to);
    memcpy(letter, &b->wait.ref, sizeof b->wait.ref);
    lim_err err = lim__agent_ask(bus, agent, &b->wait, letter);
    if (err != LIM_OK) {
        lim__blocker_fini(b);
        return err;
    }
    lim__blocker_wait(b, agent, deadline_ns);
    return LIM_OK;
}

lim_err lim__api_command(lim_bus *bus, lim__blocker *b, const lim__letter_type *type, lim_conv conv,
                         uint64_t deadline_ns)
{
    lim__command *c = lim__letter_new(NULL, type, sizeof *c);
    if (c == NULL)
        return LIM_E_NOMEM;
    *c = (lim__command){ .from = lim__agent_for(bus, lim__alias_pid(bus, conv.id)) };
    return lim__api_call(bus, b, conv, c, deadline_ns);
}

/* ---- groups ---- */

static lim_err serve_check(const lim_serve_opts *o)
{
    if (o == NULL || o->size < sizeof *o || o->capacity == 0)
        return LIM_E_MISUSE;
    if (o->identity != NULL && strlen(o->identity) > 255)
        return LIM_E_TOOBIG;
    return lim__text_ok(lim__str(o->identity)) ? LIM_OK : LIM_E_INVALID;
}

static lim_err enter(lim_bus *bus, const char *named, const lim_serve_opts *o, lim__member_kind kind,
                     lim_participant *out)
{
    lim__blocker b;
    lim_pid to, who;
    char name[48], room[256];
    lim_err err = !lim__may_block() || named == NULL ? LIM_E_MISUSE : serve_check(o);
    const char *group = err == LIM_OK ? lim__in_namespace(o->ns, named, room) : NULL;
    if (err == LIM_OK && (group == NULL || !lim__channel_name_ok(lim__str(group)) || group[0] == '$'))
        err = LIM_E_INVALID;
    if (err == LIM_OK)
        err = lim__api_closing(bus) ? LIM_E_CLOSED : lim__group_get(bus, NULL, lim__str(group), &to);
    if (err != LIM_OK)
        return err;
    snprintf(name, sizeof name, "%s-%llu", kind == LIM__MEMBER_WORK ? "worker" : "participant",
             (unsigned long long)atomic_fetch_add(&bus->next_name, 1) + 1);
    bool made = o->participant.id == 0;
    who = pid_of(o->participant.id);
    if (made && (err = lim__participant_spawn(bus, &o->handler, kind, to, &who)) != LIM_OK)
        return err;
    lim_pid agent = lim__agent_for(bus, to);
    lim__blocker_init(&b, bus, to);
    lim__join *j = lim__join_new(NULL, who, kind, lim__str(o->identity != NULL ? o->identity : name), o->capacity,
                                 o->types, o->tags);
    err = j == NULL ? LIM_E_INVALID : lim__agent_expect(bus, agent, &b.wait, true);
    if (err == LIM_OK) {
        j->reply_to = agent;
        j->ref = b.wait.ref;
        if (lim__post_reserved(bus->rt, to, j) != LIM_OK)
            lim__agent_forget(bus, agent, b.wait.ref);
        lim__blocker_wait(&b, agent, UINT64_MAX);
        err = b.err != LIM_OK ? b.err : b.body == NULL ? LIM_E_GONE : ((lim__joined *)b.body)->err;
    } else if (j != NULL) {
        lim__letter_free(NULL, j);
    }
    lim__blocker_fini(&b);
    if (err != LIM_OK && made)
        lim_runtime_exit(bus->rt, who, LIM_KILL);
    if (err == LIM_OK && !made) /* what lim_report_used says concerns this group, too */
        lim__participant_entered(bus, who, to);
    if (err == LIM_OK)
        *out = (lim_participant){ who.id };
    return err;
}

lim_err lim_serve(lim_bus *bus, const char *group, const lim_serve_opts *opts, lim_participant *out)
{
    return enter(bus, group, opts, LIM__MEMBER_SERVE, out);
}

lim_err lim_work(lim_bus *bus, const char *queue, const lim_serve_opts *opts, lim_participant *out)
{
    return enter(bus, queue, opts, LIM__MEMBER_WORK, out);
}

lim_err lim_participant_open(lim_bus *bus, const lim_serve_opts *opts, lim_participant *out)
{
    lim_pid who;
    lim_err err = serve_check(opts);
    if (err == LIM_OK)
        err = lim__participant_spawn(bus, &opts->handler, LIM__MEMBER_SERVE, pid_of(0), &who);
    if (err == LIM_OK)
        *out = (lim_participant){ who.id };
    return err;
}

lim_err lim_leave(lim_bus *bus, lim_participant participant)
{
    lim__evict *e = lim__letter_new(NULL, &lim__type_evict, sizeof *e);
    if (e == NULL)
        return LIM_E_NOMEM;
    e->reason = LIM_LEFT;
    return lim__post_reserved(bus->rt, pid_of(participant.id), e);
}

/* ---- routing ---- */

uint32_t lim__bus_instruction_ns(const lim_bus *bus)
{
    return bus->os == lim__os_linux() ? 0 : 20;
}

lim_err lim__bus_load(lim_bus *bus, lim__engine engine, lim_bytes code, const char *name, lim_diag *diag, bool *fresh,
                      lim__artifact **out)
{
    lim__artifact *a = NULL;
    uint64_t now = bus->os->wall_ns(bus->os);
    lim_err err = lim__artifact_new(engine, code, name, now, &a);
    if (err != LIM_OK)
        return err;
    lim__router_opts check = {
        .os = bus->os, .artifact = a, .instruction_ns = lim__bus_instruction_ns(bus), .native = bus->native
    };
    err = lim__router_check(&check, diag);
    lim__artifact_unref(a);
    return err == LIM_OK ? lim__artifacts_put(bus->artifacts, engine, code, name, now, fresh, out) : err;
}

lim_err lim_artifact_load(lim_bus *bus, lim_engine engine, lim_bytes code, const char *name, lim_diag *diag,
                          lim_hash *out)
{
    lim__artifact *a = NULL;
    if (!lim__may_block() || (engine != LIM_BUILTIN && engine != LIM_LUA && engine != LIM_NATIVE))
        return LIM_E_MISUSE;
    lim_err err = lim__bus_load(bus, (lim__engine)engine, code, name, diag, NULL, &a);
    if (err == LIM_OK) {
        memcpy(out->b, a->hash, sizeof out->b);
        lim__artifact_unref(a);
    }
    return err;
}

lim_err lim_route_host_load(lim_bus *bus, lim_bytes identity, const char *name, lim_route_decide *decide, void *ctx,
                            const lim_route_host_opts *opts, lim_hash *out)
{
    lim__artifact *a = NULL;
    if (decide == NULL || identity.len == 0 || (opts != NULL && opts->size < sizeof *opts))
        return LIM_E_MISUSE;
    lim_err err =
        lim__artifacts_put(bus->artifacts, LIM__ENGINE_HOST, identity, name, bus->os->wall_ns(bus->os), NULL, &a);
    if (err == LIM_OK)
        err = lim__slot_host_put(bus, a, (lim__host){ decide, ctx, opts != NULL && opts->isolated });
    if (err == LIM_OK)
        memcpy(out->b, a->hash, sizeof out->b);
    lim__artifact_unref(a);
    return err;
}

/* A letter to a group's slot, which is taken in every outcome, and its answer. */
static lim_err slot_command(lim_bus *bus, lim_pid to, lim__deploy *d, lim_diag *diag, lim_hash *previous)
{
    lim__blocker b;
    lim_pid agent = lim__agent_for(bus, to);
    lim__blocker_init(&b, bus, to);
    d->reply_to = agent;
    d->ref = b.wait.ref;
    lim_err err = lim__agent_expect(bus, agent, &b.wait, true);
    if (err != LIM_OK) {
        lim__letter_free(NULL, d);
        lim__blocker_fini(&b);
        return err;
    }
    if (lim__post_reserved(bus->rt, to, d) != LIM_OK)
        lim__agent_forget(bus, agent, b.wait.ref);
    lim__blocker_wait(&b, agent, UINT64_MAX);
    lim__deployed *r = b.body;
    err = b.err != LIM_OK ? b.err : r == NULL ? LIM_E_GONE : r->err;
    if (r != NULL && err != LIM_OK && diag != NULL)
        *diag = r->diag;
    if (r != NULL && err == LIM_OK && previous != NULL)
        *previous = r->had_previous ? r->previous : (lim_hash){ 0 };
    lim__blocker_fini(&b);
    return err;
}

static lim_err command_letter(lim__deploy_what what, const lim_deploy_opts *o, lim__deploy **out)
{
    lim__deploy *d = lim__letter_new(NULL, &lim__type_deploy, sizeof *d);
    if (d == NULL)
        return LIM_E_NOMEM;
    *d = (lim__deploy){ .what = what };
    lim_err err = lim__deploy_texts(d, o);
    if (err != LIM_OK)
        lim__letter_free(NULL, d);
    else
        *out = d;
    return err;
}

static lim_err loaded(lim_bus *bus, const lim_hash *artifact, lim__artifact **out)
{
    char hex[LIM__HASH_TEXT];
    lim__hash_text(artifact->b, hex);
    return lim__artifacts_get(bus->artifacts, lim__str(hex), out);
}

/* Takes the reference. `found`: whether there is a process `to`. */
static lim_err deploy_to(lim_bus *bus, lim_err found, lim_pid to, lim__artifact *a, const lim_deploy_opts *opts,
                         lim_diag *diag, lim_hash *previous)
{
    lim__deploy *d;
    lim_err err = found == LIM_OK ? command_letter(LIM__DEPLOY, opts, &d) : found;
    if (err != LIM_OK) {
        lim__artifact_unref(a);
        return err;
    }
    d->artifact = a;
    err = lim__deploy_check(bus, d, diag);
    if (err != LIM_OK) {
        lim__letter_free(NULL, d);
        return err;
    }
    return slot_command(bus, to, d, diag, previous);
}

lim_err lim_deploy(lim_bus *bus, const char *group, const lim_hash *artifact, const lim_deploy_opts *opts,
                   lim_diag *diag, lim_hash *previous)
{
    lim__artifact *a = NULL;
    lim_pid to;
    if (!lim__may_block() || group == NULL || group[0] == '$' || opts == NULL || opts->size < sizeof *opts)
        return LIM_E_MISUSE;
    lim_err err = loaded(bus, artifact, &a);
    if (err != LIM_OK)
        return err;
    err = lim__group_get(bus, NULL, lim__str(group), &to);
    return deploy_to(bus, err, to, a, opts, diag, previous);
}

/* Of a group that is there. */
static lim_err command(lim_bus *bus, const char *group, lim__deploy_what what, const lim_hash *to, const char *by,
                       lim_diag *diag, lim_hash *previous)
{
    const lim_deploy_opts opts = { .if_version = to, .by = by };
    lim__deploy *d;
    if (!lim__may_block() || group == NULL || group[0] == '$')
        return LIM_E_MISUSE;
    lim_pid pid = lim__group_find(bus, lim__str(group));
    if (pid.id == 0) {
        lim__diag_set(diag, 0, 0, "there is no group %s", group);
        return LIM_E_NOTFOUND;
    }
    lim_err err = command_letter(what, &opts, &d);
    return err != LIM_OK ? err : slot_command(bus, pid, d, diag, previous);
}

/* ---- of channels ---- */

static lim_err channel_command(lim_bus *bus, const char *channel, lim__deploy_what what, const lim_hash *to,
                               const char *by, lim_diag *diag, lim_hash *previous)
{
    const lim_deploy_opts opts = { .if_version = to, .by = by };
    lim__deploy *d;
    if (!lim__may_block() || channel == NULL)
        return LIM_E_MISUSE;
    lim_pid pid = lim__chan_slot_find(bus, lim__str(channel));
    if (pid.id == 0) {
        lim__diag_set(diag, 0, 0, "no function is deployed in front of channel %s", channel);
        return LIM_E_NOTFOUND;
    }
    lim_err err = command_letter(what, &opts, &d);
    return err != LIM_OK ? err : slot_command(bus, pid, d, diag, previous);
}

lim_err lim_channel_deploy(lim_bus *bus, const char *channel, const lim_hash *artifact, const lim_deploy_opts *opts,
                           lim_diag *diag, lim_hash *previous)
{
    lim__artifact *a = NULL;
    lim_pid to;
    if (!lim__may_block() || channel == NULL || opts == NULL || opts->size < sizeof *opts)
        return LIM_E_MISUSE;
    lim_err err = loaded(bus, artifact, &a);
    if (err != LIM_OK)
        return err;
    err = lim__chan_slot_get(bus, NULL, lim__str(channel), &to);
    return deploy_to(bus, err, to, a, opts, diag, previous);
}

lim_err lim_channel_rollback(lim_bus *bus, const char *channel, const lim_hash *to, const char *by, lim_diag *diag,
                             lim_hash *previous)
{
    return channel_command(bus, channel, LIM__DEPLOY_ROLLBACK, to, by, diag, previous);
}

lim_err lim_channel_promote(lim_bus *bus, const char *channel, const char *by, lim_diag *diag, lim_hash *previous)
{
    return channel_command(bus, channel, LIM__DEPLOY_PROMOTE, NULL, by, diag, previous);
}

lim_err lim_channel_stop(lim_bus *bus, const char *channel, const char *by, lim_diag *diag)
{
    return channel_command(bus, channel, LIM__DEPLOY_STOP, NULL, by, diag, NULL);
}

lim_err lim_channel_undeploy(lim_bus *bus, const char *channel, lim_diag *diag)
{
    return channel_command(bus, channel, LIM__DEPLOY_REMOVE, NULL, NULL, diag, NULL);
}

lim_err lim_rollback(lim_bus *bus, const char *group, const lim_hash *to, const char *by, lim_diag *diag,
                     lim_hash *previous)
{
    return command(bus, group, LIM__DEPLOY_ROLLBACK, to, by, diag, previous);
}

lim_err lim_trial_promote(lim_bus *bus, const char *group, const char *by, lim_diag *diag, lim_hash *previous)
{
    return command(bus, group, LIM__DEPLOY_PROMOTE, NULL, by, diag, previous);
}

lim_err lim_trial_stop(lim_bus *bus, const char *group, const char *by, lim_diag *diag)
{
    return command(bus, group, LIM__DEPLOY_STOP, NULL, by, diag, NULL);
}
