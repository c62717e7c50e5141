/* SPDX-License-Identifier: Apache-2.0
 * channel_list.c - what operators see of channels: lists, counts, and the check of the registry's invariants.
 *
 * Lists are in order of name, and of age within a channel, so that two of them can be compared. Numbers are read while
 * others write them: each is right, together they may be of slightly different moments. */
#include "bus/channel_inside.h"

#include <stdlib.h>

static int by_name(const void *left, const void *right)
{
    const lim__channel *a = *(lim__channel *const *)left, *b = *(lim__channel *const *)right;
    return strcmp(a->name->text, b->name->text);
}

/* free() it; NULL: none, or no memory. */
static lim__channel **sorted_locked(lim__channels *all, size_t *count)
{
    size_t n = all->names.count, at = 0;
    lim__channel **list = n > 0 ? malloc(n * sizeof(lim__channel *)) : NULL;
    *count = list ? n : 0;
    if (!list)
        return NULL;
    lim_bytes name;
    void *ch;
    for (size_t pos = 0; lim__smap_next(&all->names, &pos, &name, &ch);)
        list[at++] = ch;
    qsort(list, n, sizeof *list, by_name);
    return list;
}

typedef struct sums {
    uint64_t published, matched, delivered, deferred, dropped, rejected;
} sums;

static sums tallies_sum(const lim__channel *ch)
{
    sums s = { 0 };
    for (uint32_t i = 0; i <= ch->all->sched_count; i++) {
        const lim__tally *t = &ch->tallies[i];
        s.published += LIM__RELAXED(t->published);
        s.matched += LIM__RELAXED(t->matched);
        s.delivered += LIM__RELAXED(t->delivered);
        s.deferred += LIM__RELAXED(t->deferred);
        s.dropped += LIM__RELAXED(t->dropped);
        s.rejected += LIM__RELAXED(t->rejected);
    }
    return s;
}

static void channel_members(const lim__channel *ch, lim__json *j)
{
    sums s = tallies_sum(ch);
    lim__json_bytes(j, "name", lim__name_bytes(ch->name));
    lim__json_bool(j, "opened", ch->explicit_open);
    lim__json_bool(j, "allow_hold", ch->allow_hold);
    lim__json_bool(j, "durable", LIM__RELAXED(ch->log) != NULL);
    lim__json_u64(j, "subscriptions", ch->live);
    lim__json_u64(j, "published", s.published);
    lim__json_u64(j, "matched", s.matched);
    lim__json_u64(j, "delivered", s.delivered);
    lim__json_u64(j, "deferred", s.deferred);
    lim__json_u64(j, "dropped", s.dropped);
    lim__json_u64(j, "rejected", s.rejected);
}

static const char *policy_text(lim_policy policy)
{
    switch (policy) {
    case LIM_HOLD_BACK:
        return "hold";
    case LIM_DROP_OLDEST:
        return "drop_oldest";
    case LIM_DROP_NEWEST:
        return "drop_newest";
    case LIM_CLOSE_SUB:
        return "close";
    }
    return "";
}

static const char *state_text(lim__sub_state state)
{
    switch (state) {
    case LIM__SUB_OPEN:
        return "open";
    case LIM__SUB_DRAINING:
        return "draining";
    case LIM__SUB_ENDED:
        return "ended";
    case LIM__SUB_CLOSED:
        return "closed";
    }
    return "";
}

static void sub_object(const lim__sub *sub, lim__json *j)
{
    lim_sub_info info;
    lim__sub_info(sub, &info);
    lim__json_open(j, NULL, '{');
    lim__json_u64(j, "id", sub->id);
    lim__json_bytes(j, "pattern", lim__name_bytes(sub->pattern));
    lim__json_bytes(j, "owner", lim__name_bytes(sub->owner_name));
    lim__json_u64(j, "scheduler", lim__sched_index(sub->sched));
    lim__json_str(j, "policy", policy_text(sub->policy));
    lim__json_str(j, "state", state_text(LIM__RELAXED(sub->state)));
    lim__json_u64(j, "in_flight", info.in_flight);
    lim__json_u64(j, "window", info.window);
    lim__json_u64(j, "backlog", info.backlog);
    lim__json_u64(j, "backlog_max", info.backlog_max);
    lim__json_u64(j, "delivered", info.delivered);
    lim__json_u64(j, "dropped", info.dropped);
    lim__json_close(j);
}

void lim__channels_json(lim__channels *all, lim__json *j)
{
    size_t count;
    lim__json_open(j, NULL, '[');
    lim__lock(&all->lock);
    lim__channel **list = sorted_locked(all, &count);
    for (size_t i = 0; i < count; i++) {
        lim__json_open(j, NULL, '{');
        channel_members(list[i], j);
        lim__json_close(j);
    }
    lim__unlock(&all->lock);
    lim__json_close(j);
    free(list);
}

bool lim__channel_json(lim__channels *all, lim_bytes name, lim__json *j)
{
    return lim__channel_json_with(all, name, j, NULL, NULL);
}

bool lim__channel_json_with(lim__channels *all, lim_bytes name, lim__json *j, void (*more)(void *ctx, lim__json *j),
                            void *ctx)
{
    lim__lock(&all->lock);
    lim__channel *ch = lim__smap_get(&all->names, name);
    if (ch) {
        lim__sub_table *t = LIM__RELAXED(ch->table);
        lim__json_open(j, NULL, '{');
        channel_members(ch, j);
        lim__json_open(j, "subscribers", '[');
        for (uint32_t i = 0; i < LIM__RELAXED(t->count); i++) {
            if (LIM__RELAXED(t->subs[i]))
                sub_object(LIM__RELAXED(t->subs[i]), j);
        }
        lim__json_close(j);
    }
    lim__unlock(&all->lock);
    if (ch && more)
        more(ctx, j);
    if (ch)
        lim__json_close(j);
    return ch != NULL;
}

void lim__channels_count(lim__channels *all, uint64_t *channels, uint64_t *subscriptions, uint64_t *messages_kept)
{
    lim__lock(&all->lock);
    *channels = all->names.count;
    *subscriptions = all->sub_count;
    *messages_kept = 0;
    LIM__LIST_EACH(node, &all->subs)
        *messages_kept += LIM__RELAXED(LIM_CONTAINER(node, lim__sub, in_all)->queued);
    lim__unlock(&all->lock);
}

/* ---- invariants ---- */

/* How often it stands in the table. */
static uint32_t table_standing(lim__sub_table *t, const lim__sub *sub)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < LIM__RELAXED(t->count); i++)
        n += LIM__RELAXED(t->subs[i]) == sub;
    return n;
}

static void table_check(const lim__channel *ch)
{
    lim__sub_table *t = LIM__RELAXED(ch->table);
    uint32_t live = 0, holds = 0, count = LIM__RELAXED(t->count);
    for (uint32_t i = 0; i < count; i++) {
        lim__sub *sub = LIM__RELAXED(t->subs[i]);
        live += sub != NULL;
        holds += sub && sub->policy == LIM_HOLD_BACK;
        LIM_ASSERT(!sub || sub->channel != ch || sub->slot == i);
    }
    LIM_ASSERT(count <= t->cap && live == ch->live && holds == LIM__RELAXED(t->holds));
    LIM_ASSERT(live + t->holes == count);
}

void lim__channels_check(lim__channels *all)
{
    lim_bytes name;
    void *found;
    lim__lock(&all->lock);
    for (size_t pos = 0; lim__smap_next(&all->names, &pos, &name, &found);) {
        lim__channel *ch = found;
        table_check(ch);
        LIM_ASSERT(ch->refs > 0 && !LIM__RELAXED(ch->closed));
        LIM__LIST_EACH(node, &all->subs) {
            lim__sub *sub = LIM_CONTAINER(node, lim__sub, in_all);
            bool matches = lim__channel_matches(lim__name_bytes(sub->pattern), name);
            if (sub->channel && LIM__RELAXED(sub->channel->closed))
                matches = false;
            LIM_ASSERT(table_standing(LIM__RELAXED(ch->table), sub) == matches); /* C1 */
        }
    }
    lim__unlock(&all->lock);
}
