/* SPDX-License-Identifier: Apache-2.0
 * letters.c - the types of the bus's letters: what each refers to, and so must release when it is never read. */
#include "bus/letters.h"
#include "artifact/artifact.h"
#include "base/base.h"
#include "bus/durable.h"

static void drop_payload_open(void *body)
{
    lim__msg_unref(((lim__open *)body)->payload);
    lim__terms_unref(((lim__open *)body)->terms);
}
static void drop_payload_signal_in(void *body)
{
    lim__msg_unref(((lim__signal_in *)body)->payload);
}
static void drop_payload_partial(void *body)
{
    lim__msg_unref(((lim__partial *)body)->payload);
}
static void drop_payload_part(void *body)
{
    lim__msg_unref(((lim__part *)body)->payload);
}
static void drop_payload_dead(void *body)
{
    lim__msg_unref(((lim__dead *)body)->payload);
    lim__terms_unref(((lim__dead *)body)->terms);
}
static void drop_outcome_stands_for(void *body)
{
    lim__outcome_letter *o = ((lim__stands_for *)body)->outcome;
    if (o != NULL)
        lim__letter_free(lim__sched_current(), o);
}
static void drop_member_list(void *body)
{
    lim__member_list *m = body;
    lim__free(lim__sched_current(), m->who, m->count * sizeof *m->who + 1);
}
static void drop_payload_ask(void *body)
{
    lim__msg_unref(((lim__ask *)body)->payload);
}
static void drop_payload_tell(void *body)
{
    lim__msg_unref(((lim__tell *)body)->payload);
}
static void drop_payload_outcome(void *body)
{
    lim__msg_unref(((lim__outcome_letter *)body)->payload);
}
static void drop_payload_message(void *body)
{
    lim__msg_unref(((lim__message *)body)->payload);
}
static void drop_payload_request(void *body)
{
    lim__msg_unref(((lim__request *)body)->payload);
}
static void drop_payload_answer(void *body)
{
    lim__msg_unref(((lim__answer *)body)->payload);
}
static void drop_payload_say(void *body)
{
    lim__msg_unref(((lim__say *)body)->payload);
}
static void drop_payload_want(void *body)
{
    lim__msg_unref(((lim__want *)body)->payload);
    lim__terms_unref(((lim__want *)body)->terms);
}
static void drop_payload_revive(void *body)
{
    lim__msg_unref(((lim__revive *)body)->payload);
    lim__terms_unref(((lim__revive *)body)->terms);
}
static void drop_pulse_join(void *body)
{
    lim__pulse_unref(((lim__join *)body)->pulse);
}
static void drop_artifact_deploy(void *body)
{
    lim__artifact_unref(((lim__deploy *)body)->artifact);
}

lim_err lim__deploy_texts(lim__deploy *d, const lim_deploy_opts *opts)
{
    if (strlen(opts->by != NULL ? opts->by : "") >= sizeof d->by ||
        strlen(opts->ramp_key != NULL ? opts->ramp_key : "") >= sizeof d->ramp_key ||
        strlen(opts->ramp_where != NULL ? opts->ramp_where : "") >= sizeof d->ramp_where ||
        strlen(opts->if_named != NULL ? opts->if_named : "") >= sizeof d->version)
        return LIM_E_TOOBIG;
    d->opts = *opts;
    d->opts.if_version = NULL;
    d->opts.if_named = NULL;
    if (opts->if_version != NULL)
        lim__hash_text(opts->if_version->b, d->version);
    else if (opts->if_named != NULL)
        strcpy(d->version, opts->if_named);
    if (opts->by != NULL)
        d->opts.by = strcpy(d->by, opts->by);
    if (opts->ramp_key != NULL)
        d->opts.ramp_key = strcpy(d->ramp_key, opts->ramp_key);
    if (opts->ramp_where != NULL)
        d->opts.ramp_where = strcpy(d->ramp_where, opts->ramp_where);
    return LIM_OK;
}

#define PLAIN(name)          const lim__letter_type lim__type_##name = { #name, NULL };
#define HOLDS(name, release) const lim__letter_type lim__type_##name = { #name, release };
HOLDS(open, drop_payload_open)
HOLDS(ask, drop_payload_ask)
HOLDS(tell, drop_payload_tell)
HOLDS(outcome, drop_payload_outcome)
HOLDS(message, drop_payload_message)
HOLDS(request, drop_payload_request)
HOLDS(answer, drop_payload_answer)
HOLDS(say, drop_payload_say)
HOLDS(want, drop_payload_want)
HOLDS(signal_in, drop_payload_signal_in)
HOLDS(partial, drop_payload_partial)
HOLDS(part, drop_payload_part)
HOLDS(dead, drop_payload_dead)
HOLDS(stands_for, drop_outcome_stands_for)
HOLDS(member_list, drop_member_list)
HOLDS(deploy, drop_artifact_deploy)
HOLDS(revive, drop_payload_revive)
HOLDS(join, drop_pulse_join)
PLAIN(receive)
PLAIN(join_conv)
PLAIN(notify)
PLAIN(close)
PLAIN(cancel)
PLAIN(inspect)
PLAIN(await)
PLAIN(unawait)
PLAIN(push)
PLAIN(attach)
PLAIN(show)
PLAIN(admitted)
PLAIN(done)
PLAIN(exited)
PLAIN(closed)
PLAIN(revoke)
PLAIN(settled)
PLAIN(taken)
PLAIN(holding)
PLAIN(joined)
PLAIN(evict)
PLAIN(assigned)
PLAIN(refused)
PLAIN(queued)
PLAIN(release)
PLAIN(shown)
PLAIN(deployed)
PLAIN(slot_stored)
PLAIN(resume)
PLAIN(report)
PLAIN(leave_conv)
PLAIN(grant)
PLAIN(credit)
PLAIN(progress)
PLAIN(members)
PLAIN(admin)
PLAIN(stored)
PLAIN(vouch)
PLAIN(vouched)
PLAIN(vacated)
PLAIN(row)
PLAIN(revived)
PLAIN(relive)
PLAIN(sound)

const char *lim__conv_kind_text(lim__conv_kind kind)
{
    switch (kind) {
    case LIM__KIND_ASK:
        return "ask";
    case LIM__KIND_TASK:
        return "task";
    case LIM__KIND_TALK:
        return "talk";
    case LIM__KIND_GATHER:
        return "gather";
    }
    return "";
}

size_t lim__name_put(char *at, lim_bytes name)
{
    LIM_ASSERT(name.len <= 255);
    at[0] = (char)(uint8_t)name.len;
    if (name.len > 0)
        memcpy(at + 1, name.ptr, name.len);
    return name.len + 1;
}

lim_bytes lim__name_get(const char **at)
{
    size_t len = (uint8_t) * *at;
    lim_bytes name = { *at + 1, len };
    *at += len + 1;
    return name;
}

size_t lim__gone_put(char *at, const lim_excluded *gone)
{
    size_t len = lim__name_put(at, gone->identity);
    lim__key_u64((uint8_t *)at + len, gone->observed_wall_us);
    lim__key_u64((uint8_t *)at + len + 8, gone->rerouted_wall_us);
    return len + 16;
}

static lim_excluded gone_get(const char **at)
{
    lim_excluded gone = { .identity = lim__name_get(at) };
    gone.observed_wall_us = lim__key_get_u64((const uint8_t *)*at);
    gone.rerouted_wall_us = lim__key_get_u64((const uint8_t *)*at + 8);
    *at += 16;
    return gone;
}

size_t lim__outcome_bytes(const lim__outcome_letter *o)
{
    return sizeof *o + o->participant_len + o->router_len + o->detail_len + o->excluded_bytes;
}

void lim__outcome_view(const lim__outcome_letter *letter, lim_excluded *excluded, lim_outcome *out)
{
    const char *at = letter->text;
    *out = (lim_outcome){
        .how = letter->how,
        .handed_over = letter->handed_over,
        .why = letter->why,
        .reason = letter->reason,
        .conv = { letter->conv.id },
        .attempts = letter->attempts,
        .losses = letter->losses,
        .limit = letter->limit,
        .current = letter->current,
        .retry_after_ms = letter->retry_after_ms,
        .elapsed_ns = letter->elapsed_ns,
        .crashed_wall_us = letter->crashed_wall_us,
        .rerouted_ns = letter->rerouted_ns,
        .compensation = { letter->compensation.id },
        .from = { letter->from.id },
        .event = letter->event,
        .excluded_count = letter->excluded_count,
        .excluded = excluded,
    };
    if (letter->payload != NULL)
        out->payload = lim__msg_bytes(letter->payload);
    out->participant = lim__bytes(at, letter->participant_len);
    at += letter->participant_len;
    out->router = lim__bytes(at, letter->router_len);
    at += letter->router_len;
    out->detail = lim__bytes(at, letter->detail_len);
    at += letter->detail_len;
    LIM_ASSERT(letter->excluded_count <= LIM__EXCLUDED_MAX);
    for (uint32_t i = 0; i < letter->excluded_count; i++)
        excluded[i] = gone_get(&at);
}

lim__open *lim__open_new(lim__sched *s, lim__conv_kind kind, lim_bytes group, lim_bytes type, lim__msg *payload)
{
    LIM_ASSERT(group.len <= 255 && type.len <= 255);
    lim__open *open = lim__letter_new(s, &lim__type_open, sizeof *open + group.len + type.len + sizeof(uint64_t));
    if (open == NULL)
        return NULL;
    *open = (lim__open){ .kind = kind, .payload = payload, .on_crash = LIM_CRASH_FAIL, .deadline_ns = UINT64_MAX };
    open->group_len = (uint8_t)group.len;
    open->type_len = (uint8_t)type.len;
    if (group.len > 0)
        memcpy(open->text, group.ptr, group.len);
    if (type.len > 0)
        memcpy(open->text + group.len, type.ptr, type.len);
    return open;
}

uint64_t lim__open_mark(const lim__open *o)
{
    uint64_t mark = 0;
    if (o->flags & LIM__OPEN_MARKED)
        memcpy(&mark, o->text + o->group_len + o->type_len, sizeof mark);
    return mark;
}

void lim__open_set_mark(lim__open *o, uint64_t mark)
{
    if (mark == 0)
        return;
    o->flags |= LIM__OPEN_MARKED;
    memcpy(o->text + o->group_len + o->type_len, &mark, sizeof mark);
}
