/* SPDX-License-Identifier: Apache-2.0
 * outcome.c - the words for verdicts and outcomes, and outcomes and taken requests that belong to somebody.
 *
 * An outcome in a callback is a view: its texts lie in a receive buffer or in a letter. Who waits for it needs a copy,
 * which is one block, so that an outcome is kept by one malloc and ended by one free:
 *
 *      owned --> | excluded[0] .. excluded[n-1] | payload | detail | participant | router | names of the excluded | */
#include "data/outcome.h"
#include "base/base.h"

#include <stdlib.h>

const char *lim_class_text(lim_class durability)
{
    static const char *const texts[] = { [LIM_CLASS_NONE] = "",
#define X(name, text) [LIM_CLASS_##name] = text,
                                         LIM_CLASS_MAP(X)
#undef X
    };
    return (size_t)durability < LIM_COUNT(texts) ? texts[durability] : "";
}

const char *lim_why_text(lim_why why)
{
    switch (why) {
    case LIM_WHY_NONE:
        return "";
#define X(name, text)                                                                                                  \
    case LIM_WHY_##name:                                                                                               \
        return text;
        LIM_WHY_MAP(X)
#undef X
    }
    return "unknown";
}

const char *lim_how_text(lim_how how)
{
    switch (how) {
    case LIM_HOW_NONE:
        return "";
#define X(name, text)                                                                                                  \
    case LIM_HOW_##name:                                                                                               \
        return text;
        LIM_HOW_MAP(X)
#undef X
    }
    return "unknown";
}

const char *lim_handed_text(lim_handed handed)
{
    switch (handed) {
    case LIM_HANDED_NO:
        return "no";
    case LIM_HANDED_YES:
        return "yes";
    case LIM_HANDED_UNKNOWN:
        return "unknown";
    }
    return "unknown";
}

const char *lim_event_text(lim_event event)
{
    switch (event) {
    case LIM_EVENT_NONE:
        return "";
    case LIM_EVENT_JOINED:
        return "joined";
    case LIM_EVENT_LEFT:
        return "left";
    case LIM_EVENT_CRASHED:
        return "crashed";
    case LIM_EVENT_SIGNAL:
        return "signal";
    case LIM_EVENT_REFUSED:
        return "refused";
    }
    return "unknown";
}

const char *lim_phase_text(lim_phase phase)
{
    switch (phase) {
    case LIM_PHASE_NONE:
        return "";
#define X(name, text)                                                                                                  \
    case LIM_PHASE_##name:                                                                                             \
        return text;
        LIM_PHASE_MAP(X)
#undef X
    }
    return "unknown";
}

static lim_bytes move_bytes(uint8_t **to, lim_bytes from)
{
    if (from.len == 0)
        return lim__bytes(NULL, 0);
    lim_bytes moved = lim__bytes(memcpy(*to, from.ptr, from.len), from.len);
    *to += from.len;
    return moved;
}

static size_t size_of(const lim_outcome *o)
{
    size_t size = o->payload.len + o->detail.len + o->participant.len + o->router.len;
    for (uint32_t i = 0; i < o->excluded_count; i++)
        size += sizeof o->excluded[i] + o->excluded[i].identity.len;
    return size;
}

lim_err lim__outcome_copy(const lim_outcome *view, lim_outcome *owned)
{
    lim_outcome copy = *view;
    size_t size = size_of(view);
    lim_excluded *block = malloc(size ? size : 1);
    if (!block)
        return LIM_E_NOMEM;
    uint8_t *to = (uint8_t *)(block + view->excluded_count);
    copy.owned = block;
    copy.payload = move_bytes(&to, view->payload);
    copy.detail = move_bytes(&to, view->detail);
    copy.participant = move_bytes(&to, view->participant);
    copy.router = move_bytes(&to, view->router);
    for (uint32_t i = 0; i < view->excluded_count; i++) {
        block[i] = view->excluded[i];
        block[i].identity = move_bytes(&to, view->excluded[i].identity);
    }
    copy.excluded = view->excluded_count ? block : NULL;
    LIM_ASSERT(to == (uint8_t *)block + size);
    *owned = copy;
    return LIM_OK;
}

static void instant(lim__json *j, const char *key, uint64_t wall_us)
{
    if (wall_us != 0)
        lim__json_u64(j, key, wall_us);
    else
        lim__json_str(j, key, NULL);
}

void lim__outcome_past_json(lim__json *j, const lim_excluded *excluded, uint32_t count)
{
    lim__json_open(j, "rerouted_past", '[');
    for (uint32_t i = 0; i < count; i++) {
        lim__json_open(j, NULL, '{');
        lim__json_bytes(j, "participant", excluded[i].identity);
        instant(j, "observed_wall_us", excluded[i].observed_wall_us);
        instant(j, "rerouted_wall_us", excluded[i].rerouted_wall_us);
        lim__json_close(j);
    }
    lim__json_close(j);
}

void lim_outcome_fini(lim_outcome *outcome)
{
    if (!outcome)
        return;
    free(outcome->owned);
    *outcome = (lim_outcome){ 0 };
}

void lim_taken_fini(lim_taken *taken)
{
    if (!taken)
        return;
    lim__taken_owned *owned = taken->owned;
    if (owned)
        owned->free(owned);
    *taken = (lim_taken){ 0 };
}
