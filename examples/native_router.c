/* SPDX-License-Identifier: Apache-2.0
 * native_router.c - a routing function in C: a customer stays with one worker as long as that one has room.
 *
 *      cc -shared -fPIC -O2 -o sticky.so native_router.c
 *      liminald --routing-native &
 *      liminal deploy orders sticky.so
 *      liminal ask orders '{"customer":"c-4711"}'
 *
 * The highest of hash(customer, worker) wins (rendezvous hashing), so that when a worker comes or goes only its share
 * of the customers moves; a message without a customer goes to whoever has most room. */
#include <liminal/native.h>

static uint64_t hash(uint64_t h, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)bytes[i]) * UINT64_C(1099511628211); /* FNV-1a */
    return h ^ (h >> 29);
}

static uint32_t room(const lim_native_candidate *c)
{
    return c->in_flight < c->max_in_flight ? c->max_in_flight - c->in_flight : 0;
}

static uint32_t route(const lim_native_call *call)
{
    lim_native_bytes customer;
    bool sticky = lim_native_text(call, "customer", &customer);
    uint32_t best = LIM_NATIVE_NONE;
    uint64_t best_score = 0;
    for (uint32_t i = 0; i < call->candidate_count; i++) {
        const lim_native_candidate *c = call->candidates[i];
        if (room(c) == 0)
            continue;
        uint64_t score = room(c);
        if (sticky)
            score = hash(hash(UINT64_C(14695981039346656037), customer.ptr, customer.len), c->name.ptr, c->name.len);
        if (best == LIM_NATIVE_NONE || score > best_score) {
            best = i;
            best_score = score;
        }
    }
    return best;
}
LIM_NATIVE_ROUTER(route)
