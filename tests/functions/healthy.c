/* SPDX-License-Identifier: Apache-2.0
 * healthy.c - a native function for tests: the one that has room, or whom the message names. */
#include <liminal/native.h>

static uint32_t by_name(const lim_native_call *call, lim_native_bytes name)
{
    for (uint32_t i = 0; i < call->candidate_count; i++) {
        const lim_native_bytes *is = &call->candidates[i]->name;
        if (is->len == name.len && memcmp(is->ptr, name.ptr, name.len) == 0)
            return i;
    }
    return LIM_NATIVE_NONE;
}

static uint32_t by_tag(const lim_native_call *call, lim_native_bytes tag)
{
    for (uint32_t i = 0; i < call->candidate_count; i++) {
        const lim_native_candidate *c = call->candidates[i];
        for (uint32_t t = 0; t < c->tag_count; t++)
            if (c->tags[t].len == tag.len && memcmp(c->tags[t].ptr, tag.ptr, tag.len) == 0)
                return i;
    }
    return LIM_NATIVE_NONE;
}

static uint32_t by_node(const lim_native_call *call, lim_native_bytes node)
{
    for (uint32_t i = 0; i < call->candidate_count; i++) {
        const lim_native_bytes *is = &call->candidates[i]->node;
        if (is->len == node.len && memcmp(is->ptr, node.ptr, node.len) == 0)
            return i;
    }
    return LIM_NATIVE_NONE;
}

static uint32_t route(const lim_native_call *call)
{
    lim_native_bytes text;
    int64_t number;
    double real;
    bool truth;
    if (lim_native_text(call, "name", &text) || lim_native_header(call, "name", &text))
        return by_name(call, text);
    if (lim_native_text(call, "tag", &text))
        return by_tag(call, text);
    if (lim_native_text(call, "node", &text))
        return by_node(call, text);
    if (lim_native_i64(call, "user.pick[1]", &number))
        return (uint32_t)number;
    if (lim_native_f64(call, "share", &real))
        return (uint32_t)(real * call->candidate_count);
    if (lim_native_bool(call, "count", &truth) && truth)
        return (uint32_t)(lim_native_counter(call) % call->candidate_count);
    if (lim_native_bool(call, "chance", &truth) && truth)
        return (uint32_t)(lim_native_random(call) % call->candidate_count);
    for (uint32_t i = 0; i < call->candidate_count; i++)
        if (call->candidates[i]->in_flight < call->candidates[i]->max_in_flight)
            return i;
    return LIM_NATIVE_NONE;
}
LIM_NATIVE_ROUTER(route)
