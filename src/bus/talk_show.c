/* SPDX-License-Identifier: Apache-2.0
 * talk_show.c - a talk as others see it: inspected, listed, found. */
#include "bus/talk.h"
#include "base/base.h"

lim_conv_info lim__talk_info(const talk *t, uint64_t now_ns)
{
    lim_conv_info i = { .phase = (lim_phase)t->phase,
                        .alive = t->alive,
                        .dead = t->rare != NULL ? t->rare->past_count : 0,
                        .buffered = t->buffered + (t->rare != NULL ? t->rare->events : 0),
                        .sent = t->sent,
                        .received = t->received,
                        .remaining_ms = LIM_FOREVER };
    LIM__LIST_EACH(n, &t->calls)
        i.pending++;
    if (t->deadline_ns != UINT64_MAX)
        i.remaining_ms = t->deadline_ns > now_ns ? (int64_t)((t->deadline_ns - now_ns) / 1000000) : 0;
    return i;
}

static lim_bytes identity(const lim__assigned *a)
{
    return a != NULL ? lim__bytes(a->text, a->identity_len) : lim__bytes("", 0);
}

static void participants_json(const talk *t, lim__json *j)
{
    lim__json_open(j, "participants", '[');
    for (uint32_t i = 0; t->rare != NULL && i < t->rare->past_count; i++) {
        const past *p = &t->rare->past[i];
        lim__json_open(j, NULL, '{');
        lim__json_id(j, "id", p->pid.id);
        lim__json_bytes(j, "identity", identity(p->assigned));
        lim__json_bool(j, "alive", false);
        lim__json_str(j, "reason", lim_reason_text(p->reason));
        lim__json_u64(j, "at_us", p->wall_us);
        lim__json_close(j);
    }
    for (uint32_t i = 0; i < t->alive; i++) {
        const party *p = &t->parties[i];
        lim__json_open(j, NULL, '{');
        lim__json_id(j, "id", p->pid.id);
        lim__json_bytes(j, "identity", identity(p->assigned));
        lim__json_bool(j, "alive", true);
        lim__json_bool(j, "required", p->required);
        lim__json_close(j);
    }
    lim__json_close(j);
}

static void attributes_json(const lim__terms *terms, lim__json *j)
{
    size_t pos = 0;
    lim_bytes key, text;
    lim__json_open(j, "attributes", '{');
    while (terms != NULL && lim__packed_next(terms->block, &pos, &key, &text)) {
        if (!lim__bytes_eq(key, lim__str("attr")))
            continue;
        char name[256];
        const char *is = memchr(text.ptr, '=', text.len);
        size_t len = (size_t)(is - (const char *)text.ptr);
        if (len >= sizeof name)
            continue;
        memcpy(name, text.ptr, len);
        name[len] = '\0';
        lim__json_bytes(j, name, lim__bytes(is + 1, text.len - len - 1));
    }
    lim__json_close(j);
}

static void origin_json(const talk *t, lim__json *j)
{
    const lim__terms *terms = lim__talk_terms(t);
    if (terms->name.len > 0)
        lim__json_bytes(j, "name", terms->name);
    if (terms->parent.id != 0)
        lim__json_id(j, "parent", terms->parent.id);
    if (terms->hops > 0)
        lim__json_u64(j, "hops", terms->hops);
    attributes_json(t->open->terms, j);
}

static void talk_json(const void *state, lim__json *j, const char *key)
{
    const talk *t = state;
    if (t->open == NULL)
        return;
    uint64_t now_ns = t->bus->os->now_ns(t->bus->os);
    lim_conv_info i = lim__talk_info(t, now_ns);
    lim__json_open(j, key, '{');
    lim__json_id(j, "id", lim__talk_id(t));
    lim__json_str(j, "kind", lim__conv_kind_text(LIM__KIND_TALK));
    lim__json_bool(j, "durable", t->kept);
    if (t->kept)
        lim__json_bool(j, "owned", t->owner.id != 0);
    lim__json_str(j, "phase", lim_phase_text(i.phase));
    lim__json_bytes(j, "group", lim__bytes(t->open->text, t->open->group_len));
    lim__json_u64(j, "age_ms", (now_ns - t->opened_ns) / 1000000);
    if (i.remaining_ms != LIM_FOREVER)
        lim__json_u64(j, "remaining_ms", (uint64_t)i.remaining_ms);
    lim__json_u64(j, "pending", i.pending);
    lim__json_u64(j, "buffered", i.buffered);
    lim__json_u64(j, "inbox_max", lim__talk_terms(t)->inbox_max);
    lim__json_u64(j, "sent", i.sent);
    lim__json_u64(j, "received", i.received);
    lim__json_u64(j, "refused", t->rare != NULL ? t->rare->refused : 0);
    lim__json_u64(j, "unasked", t->rare != NULL ? t->rare->unasked : 0);
    lim__json_bool(j, "traced", t->rare != NULL && t->rare->history != NULL);
    if (t->rare != NULL && t->rare->compensation.id != 0)
        lim__json_id(j, "compensation", t->rare->compensation.id);
    origin_json(t, j);
    participants_json(t, j);
    lim__json_close(j);
}

static lim__conv_facts talk_facts(const void *state)
{
    const talk *t = state;
    return (lim__conv_facts){ t->open, (lim_phase)t->phase };
}

const lim__conv_kindred lim__as_talk = { talk_json, talk_facts };
