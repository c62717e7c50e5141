/* SPDX-License-Identifier: Apache-2.0
 * channel.c - the registry: which channels there are, and the table of subscriptions of each.
 *
 * A table grows at its end and gets holes; both are one atomic store, so publishers read it without a lock. It is
 * replaced when it is full or mostly holes, and the old one is retired: a publisher may still be reading it.
 *
 *      table { count 4, cap 8 }   [ s1 ][ s2 ][ -- ][ s4 ][    ][    ][    ][    ]
 *                                               hole        ^ the next one goes here, then count says so
 *
 * A hole is never filled again: a publish reads a table twice (first it takes places in `hold` subscriptions, then it
 * delivers), and must not meet somebody the second time whom it has not met the first time.
 *
 * A channel stays registered while anybody refers to it: publishers that remember it, subscriptions by its name, and
 * whoever opened it. So a subscription finds the entry that publishers already have in their hands (CH13). Patterns are
 * matched when a subscription or a name appears, never when a message does.
 *
 * Retired memory goes through two lists: what was retired since the stamp was taken, and what was retired before. When
 * all schedulers have passed the stamp and no host thread is publishing, the second is freed and the first takes its
 * place with a new stamp. */
#include "bus/channel_inside.h"
#include "bus/channel_slot.h"
#include "bus/log_inside.h"

#include <stdlib.h>

enum { HOLES_MIN = 8 }; /* fewer are not worth a new table */

/* ---- memory that publishers may still be reading ---- */

static void free_list(lim__retired *list)
{
    while (list) {
        lim__retired *next = list->next;
        list->free(list);
        list = next;
    }
}

/* True: nobody can be looking at `aging` any more. */
static bool aged(lim__channels *all)
{
    if (!lim__quiet_since(all->rt, &all->stamp))
        return false;
    /* Tried only: the lock is taken in the other order by a publisher that loses its last reference. */
    if (pthread_mutex_trylock(&all->host_lock) != 0)
        return false;
    lim__unlock(&all->host_lock);
    return true;
}

static void reclaim(lim__channels *all)
{
    for (int round = 0; round < 2; round++) { /* the second one frees at once what nobody was awake to see */
        if (all->aging && !aged(all))
            return;
        lim__retired *done = all->aging;
        all->aging = all->fresh;
        all->fresh = NULL;
        if (all->aging)
            lim__quiet_stamp_take(all->rt, &all->stamp);
        free_list(done);
    }
}

static void retire_locked(lim__channels *all, lim__retired *what, void (*free)(lim__retired *))
{
    what->free = free;
    what->next = all->fresh;
    all->fresh = what;
    reclaim(all);
}

void lim__retire(lim__channels *all, lim__retired *what, void (*free)(lim__retired *))
{
    lim__lock(&all->lock);
    retire_locked(all, what, free);
    lim__unlock(&all->lock);
}

/* ---- tables ---- */

static void table_free(lim__retired *retired)
{
    free(LIM_CONTAINER(retired, lim__sub_table, retired));
}

static lim__sub_table *table_new(uint32_t cap)
{
    lim__sub_table *t = calloc(1, sizeof *t + cap * sizeof t->subs[0]);
    if (t)
        t->cap = cap;
    return t;
}

static lim__sub_table *table_of(lim__channel *ch)
{
    return LIM__RELAXED(ch->table); /* under the registry's lock nobody else replaces it */
}

static lim__sub *table_at(lim__sub_table *t, uint32_t i)
{
    return LIM__RELAXED(t->subs[i]);
}

/* There is room. */
static void table_append(lim__channel *ch, lim__sub_table *t, lim__sub *sub)
{
    uint32_t at = LIM__RELAXED(t->count);
    LIM_ASSERT(at < t->cap);
    if (sub->channel == ch)
        sub->slot = at;
    atomic_store_explicit(&t->subs[at], sub, memory_order_relaxed);
    LIM__ADD_OWN(t->holds, sub->policy == LIM_HOLD_BACK);
    /* release: pairs with the acquire in lim__publish; the place and `holds` are seen with the count */
    atomic_store_explicit(&t->count, at + 1, memory_order_release);
}

static bool table_replace(lim__channel *ch, uint32_t cap)
{
    lim__sub_table *old = table_of(ch), *t = table_new(cap);
    if (!t)
        return false;
    for (uint32_t i = 0; i < LIM__RELAXED(old->count); i++) {
        if (table_at(old, i))
            table_append(ch, t, table_at(old, i));
    }
    /* release: pairs with the acquire in lim__publish */
    atomic_store_explicit(&ch->table, t, memory_order_release);
    retire_locked(ch->all, &old->retired, table_free);
    return true;
}

static bool table_reserve(lim__channel *ch)
{
    lim__sub_table *t = table_of(ch);
    if (LIM__RELAXED(t->count) < t->cap)
        return true;
    uint32_t live = ch->live + 1;
    return table_replace(ch, live < LIM__TABLE_MIN ? LIM__TABLE_MIN : live + live / 2);
}

static void table_insert(lim__channel *ch, lim__sub *sub)
{
    table_append(ch, table_of(ch), sub);
    ch->live++;
}

static void table_remove(lim__channel *ch, lim__sub *sub)
{
    lim__sub_table *t = table_of(ch);
    uint32_t at = 0;
    if (sub->channel == ch)
        at = sub->slot;
    else
        while (table_at(t, at) != sub)
            at++;
    LIM_ASSERT(at < LIM__RELAXED(t->count) && table_at(t, at) == sub);
    atomic_store_explicit(&t->subs[at], NULL, memory_order_relaxed);
    /* release: pairs with the acquire in lim__publish; who no longer counts it no longer sees it */
    atomic_store_explicit(&t->holds, LIM__RELAXED(t->holds) - (sub->policy == LIM_HOLD_BACK), memory_order_release);
    ch->live--;
    t->holes++;
    if (t->holes >= HOLES_MIN && t->holes > ch->live)
        table_replace(ch, ch->live + ch->live / 2 + LIM__TABLE_MIN); /* without memory it stays as it is */
}

/* ---- channels ---- */

static void channel_free(lim__retired *retired)
{
    lim__channel *ch = LIM_CONTAINER(retired, lim__channel, retired);
    free(table_of(ch));
    lim__log_unref(LIM__RELAXED(ch->log));
    free(ch->tallies);
    lim__name_unref(ch->name);
    free(ch);
}

static lim__tally *tallies_new(uint32_t count)
{
    lim__tally *t = aligned_alloc(64, count * sizeof *t);
    if (t)
        memset(t, 0, count * sizeof *t);
    return t;
}

static lim__channel *channel_new(lim__channels *all, lim_bytes name, uint32_t subs)
{
    lim__channel *ch = calloc(1, sizeof *ch);
    if (!ch)
        return NULL;
    lim__sub_table *table = table_new(subs < LIM__TABLE_MIN ? LIM__TABLE_MIN : subs);
    atomic_init(&ch->table, table);
    ch->all = all;
    ch->name = lim__name_new(name);
    ch->tallies = tallies_new(all->sched_count + 1);
    ch->allow_hold = all->allow_hold;
    if (all->slots.count > 0)
        atomic_init(&ch->slot, lim__smap_get(&all->slots, name));
    if (table && ch->name && ch->tallies)
        return ch;
    channel_free(&ch->retired);
    return NULL;
}

static uint32_t wild_matching(lim__channels *all, lim_bytes name)
{
    uint32_t n = 0;
    LIM__LIST_EACH(node, &all->wild)
        n += lim__channel_matches(lim__name_bytes(LIM_CONTAINER(node, lim__sub, in_wild)->pattern), name);
    return n;
}

static void epoch_advance(lim__channels *all)
{
    /* release: who sees the new number finds what it stands for */
    atomic_fetch_add_explicit(&all->epoch, 1, memory_order_release);
}

/* A new entry with all patterns that match it; no references yet. NULL: no memory. */
static lim__channel *channel_add(lim__channels *all, lim_bytes name, uint32_t wild)
{
    lim__channel *ch = channel_new(all, name, wild);
    if (!ch)
        return NULL;
    if (lim__smap_put(&all->names, lim__name_bytes(ch->name), ch) != LIM_OK) {
        channel_free(&ch->retired);
        return NULL;
    }
    LIM__LIST_EACH(node, &all->wild) {
        lim__sub *sub = LIM_CONTAINER(node, lim__sub, in_wild);
        if (lim__channel_matches(lim__name_bytes(sub->pattern), name))
            table_insert(ch, sub);
    }
    epoch_advance(all);
    return ch;
}

static void unref_locked(lim__channel *ch)
{
    LIM_ASSERT(ch->refs > 0);
    if (--ch->refs > 0)
        return;
    if (!LIM__RELAXED(ch->closed))
        lim__smap_remove(&ch->all->names, lim__name_bytes(ch->name));
    retire_locked(ch->all, &ch->retired, channel_free); /* lim_publish looks it up by id without a reference */
}

/* The entry of that name, made if need be; not yet referred to when it was. */
static lim_err obtain_locked(lim__channels *all, lim_bytes name, lim__channel **out)
{
    *out = lim__smap_get(&all->names, name);
    if (*out)
        return LIM_OK;
    if (all->names.count >= all->channels_max)
        return LIM_E_FULL;
    *out = channel_add(all, name, wild_matching(all, name));
    return *out ? LIM_OK : LIM_E_NOMEM;
}

lim_err lim__channel_open_locked(lim__channels *all, lim_bytes name, const lim_channel_opts *opts, lim__channel **out)
{
    lim_err err = obtain_locked(all, name, out);
    if (err != LIM_OK)
        return err;
    lim__channel *ch = *out;
    bool durable = LIM__RELAXED(ch->log) != NULL;
    if (opts && opts->durable != durable) {
        ch->refs++;
        unref_locked(ch);
        return LIM_E_EXISTS;
    }
    if (opts && !durable)
        ch->allow_hold = opts->allow_hold;
    ch->refs += 1 + !ch->explicit_open;
    ch->explicit_open = true;
    return LIM_OK;
}

lim_err lim__channel_open(lim__channels *all, lim_bytes name, const lim_channel_opts *opts, lim__channel **out)
{
    if (!lim__channel_name_ok(name))
        return LIM_E_INVALID;
    lim__channel *ch = NULL;
    lim__lock(&all->lock);
    lim_err err = lim__channel_open_locked(all, name, opts, &ch);
    lim__unlock(&all->lock);
    if (err == LIM_OK)
        *out = ch;
    return err;
}

lim__channel *lim__channel_find(lim__channels *all, lim_bytes name)
{
    if (!lim__channel_name_ok(name))
        return NULL;
    lim__lock(&all->lock);
    lim__channel *ch = lim__smap_get(&all->names, name);
    uint32_t wild = ch ? 0 : wild_matching(all, name);
    if (wild > 0)
        ch = channel_add(all, name, wild); /* not counted against channels_max: it lasts as long as its publisher */
    if (ch)
        ch->refs++;
    lim__unlock(&all->lock);
    return ch;
}

lim__channel *lim__channel_ref(lim__channel *ch)
{
    lim__lock(&ch->all->lock);
    ch->refs++;
    lim__unlock(&ch->all->lock);
    return ch;
}

void lim__channel_unref(lim__channel *ch)
{
    if (!ch)
        return;
    lim__channels *all = ch->all;
    lim__lock(&all->lock);
    unref_locked(ch);
    lim__unlock(&all->lock);
}

lim_bytes lim__channel_name(const lim__channel *ch)
{
    return lim__name_bytes(ch->name);
}

static void end_exact_locked(lim__channel *ch)
{
    lim__sub_table *t = table_of(ch);
    for (uint32_t i = 0; i < LIM__RELAXED(t->count); i++) {
        lim__sub *sub = table_at(t, i);
        /* A bell that finds nobody drops its reference here, never the last: who is in the table is not closed yet. */
        if (sub && !sub->wild)
            lim__sub_end(sub, LIM__SUB_DRAINING, LIM_E_CLOSED);
    }
}

/* What is stored stays, and so does the entry: only its subscriptions and its handle end. */
static void close_durable_locked(lim__channel *ch, lim__log *log)
{
    if (ch->id)
        lim__ids_give(&ch->all->channel_ids, ch->id);
    ch->id = 0;
    end_exact_locked(ch);
    lim__log_tell(log, LIM_E_CLOSED);
    if (ch->explicit_open)
        unref_locked(ch); /* never the last one: the log has one */
    ch->explicit_open = false;
}

/* Its table stays as it is, for publishers that are reading it; patterns in it are forgotten without a trace, because
 * nobody begins to read it from now on. */
static void close_for_good_locked(lim__channel *ch)
{
    lim__channels *all = ch->all;
    ch->refs++; /* ours */
    lim__smap_remove(&all->names, lim__name_bytes(ch->name));
    atomic_store_explicit(&ch->closed, 1, memory_order_release);
    atomic_store_explicit(&ch->slot, NULL, memory_order_release); /* who comes by this name finds it in another entry */
    if (ch->id)
        lim__ids_give(&all->channel_ids, ch->id);
    end_exact_locked(ch);
    if (ch->explicit_open)
        unref_locked(ch);
    ch->explicit_open = false;
    unref_locked(ch);
}

void lim__channel_close_locked(lim__channel *ch)
{
    lim__log *log = LIM__RELAXED(ch->log);
    if (log)
        close_durable_locked(ch, log);
    else
        close_for_good_locked(ch);
}

lim_err lim__channel_close(lim__channels *all, lim_bytes name)
{
    lim__lock(&all->lock);
    lim__channel *ch = lim__smap_get(&all->names, name);
    if (ch)
        lim__channel_close_locked(ch);
    lim__unlock(&all->lock);
    return ch ? LIM_OK : LIM_E_NOTFOUND;
}

/* ---- functions in front of channels ---- */

lim_err lim__channels_slot_set(lim__channels *all, lim_bytes name, lim__chan_slot *slot)
{
    lim_err err = LIM_OK;
    lim__lock(&all->lock);
    if (slot)
        err = lim__smap_put(&all->slots, lim__bytes(slot->name, slot->len), slot);
    else
        lim__smap_remove(&all->slots, name);
    lim__channel *ch = err == LIM_OK ? lim__smap_get(&all->names, name) : NULL;
    if (ch)
        /* release: pairs with the acquire in publish */
        atomic_store_explicit(&ch->slot, slot, memory_order_release);
    lim__unlock(&all->lock);
    return err;
}

/* ---- durable channels ---- */

static lim_err attach_locked(lim__channel *ch, lim__log *log, lim_diag *diag)
{
    const char *why = ch->explicit_open                       ? "is ephemeral, and open"
                      : LIM__RELAXED(table_of(ch)->holds) > 0 ? "has subscriptions with policy hold"
                                                              : NULL;
    if (why != NULL) {
        lim__diag_set(diag, 0, 0, "channel %s %s; close it, or choose another name", ch->name->text, why);
        return LIM_E_EXISTS;
    }
    ch->refs++; /* the log's */
    ch->allow_hold = false;
    /* release: pairs with the acquire in lim__channel_log */
    atomic_store_explicit(&ch->log, lim__log_ref(log), memory_order_release);
    atomic_store_explicit(&log->ch, ch, memory_order_release);
    return LIM_OK;
}

lim_err lim__channel_attach_log(lim__log *log, lim_diag *diag)
{
    lim__channels *all = log->bus->channels;
    lim__channel *ch;
    lim__lock(&all->lock);
    lim_err err = obtain_locked(all, lim__name_bytes(log->name), &ch);
    if (err == LIM_OK) {
        ch->refs++;
        err = attach_locked(ch, log, diag);
        unref_locked(ch);
    }
    lim__unlock(&all->lock);
    return err;
}

void lim__channel_detach_log(lim__log *log)
{
    lim__channels *all = log->bus->channels;
    lim__lock(&all->lock);
    lim__channel *ch = atomic_exchange(&log->ch, NULL);
    if (ch) {
        close_for_good_locked(ch);
        unref_locked(ch);
    }
    lim__unlock(&all->lock);
}

uint32_t lim__channels_live(lim__channels *all, lim_bytes name)
{
    lim__lock(&all->lock);
    lim__channel *ch = lim__smap_get(&all->names, name);
    uint32_t live = ch ? ch->live : 0;
    lim__unlock(&all->lock);
    return live;
}

/* ---- subscriptions come and go ---- */

static lim_err enter_exact(lim__sub *sub, lim_diag *diag)
{
    lim__channels *all = sub->all;
    lim__channel *ch = NULL;
    lim_err err = obtain_locked(all, lim__name_bytes(sub->pattern), &ch);
    if (err == LIM_E_FULL)
        lim__diag_set(diag, 0, 0, "this bus has %u channels, its limit", (unsigned)all->channels_max);
    if (err != LIM_OK)
        return err;
    ch->refs++;
    if (sub->policy == LIM_HOLD_BACK && !ch->allow_hold) {
        lim__diag_set(diag, 0, 0, "channel %s does not allow policy hold", ch->name->text);
        err = LIM_E_MISUSE;
    } else if (!table_reserve(ch)) {
        err = LIM_E_NOMEM;
    }
    if (err != LIM_OK) {
        unref_locked(ch);
        return err;
    }
    sub->channel = ch;
    table_insert(ch, sub);
    return LIM_OK;
}

/* First room in every table, then a place in each: a failure half-way has changed nothing. */
static lim_err enter_wild(lim__sub *sub)
{
    lim__channels *all = sub->all;
    lim_bytes name, pattern = lim__name_bytes(sub->pattern);
    void *ch;
    for (size_t pos = 0; lim__smap_next(&all->names, &pos, &name, &ch);) {
        if (lim__channel_matches(pattern, name) && !table_reserve(ch))
            return LIM_E_NOMEM;
    }
    for (size_t pos = 0; lim__smap_next(&all->names, &pos, &name, &ch);) {
        if (lim__channel_matches(pattern, name))
            table_insert(ch, sub);
    }
    lim__list_push(&all->wild, &sub->in_wild);
    epoch_advance(all);
    return LIM_OK;
}

static lim_err enter_locked(lim__sub *sub, lim_diag *diag)
{
    lim__channels *all = sub->all;
    if (all->sub_count >= all->subs_max) {
        lim__diag_set(diag, 0, 0, "this bus has %u subscriptions, its limit", (unsigned)all->subs_max);
        return LIM_E_FULL;
    }
    if (LIM__RELAXED(sub->state) == LIM__SUB_CLOSED)
        return LIM_E_GONE;
    sub->id = ++all->next_sub;
    lim_err err = sub->wild ? enter_wild(sub) : enter_exact(sub, diag);
    if (err != LIM_OK)
        return err;
    lim__list_push(&all->subs, &sub->in_all);
    sub->listed = true;
    all->sub_count++;
    reclaim(all);
    return LIM_OK;
}

lim_err lim__sub_enter(lim__sub *sub, lim_diag *diag)
{
    lim__lock(&sub->all->lock);
    lim_err err = enter_locked(sub, diag);
    lim__unlock(&sub->all->lock);
    return err;
}

static void leave_wild(lim__sub *sub)
{
    lim_bytes name, pattern = lim__name_bytes(sub->pattern);
    void *ch;
    for (size_t pos = 0; lim__smap_next(&sub->all->names, &pos, &name, &ch);) {
        if (lim__channel_matches(pattern, name))
            table_remove(ch, sub);
    }
    lim__list_remove(&sub->in_wild);
}

static void leave_exact(lim__sub *sub)
{
    lim__channel *ch = sub->channel;
    if (!LIM__RELAXED(ch->closed))
        table_remove(ch, sub);
    sub->channel = NULL;
    unref_locked(ch);
}

void lim__sub_leave(lim__sub *sub)
{
    lim__channels *all = sub->all;
    lim__lock(&all->lock);
    if (sub->listed) {
        if (sub->wild)
            leave_wild(sub);
        else
            leave_exact(sub);
        lim__list_remove(&sub->in_all);
        sub->listed = false;
        all->sub_count--;
    }
    lim__unlock(&all->lock);
}

/* ---- open, close ---- */

uint64_t lim__channels_epoch(const lim__channels *all)
{
    return atomic_load_explicit(&all->epoch, memory_order_acquire);
}

lim_err lim__channels_open(lim_runtime *rt, lim__channels **out)
{
    lim__channels *all = aligned_alloc(64, sizeof *all);
    if (!all)
        return LIM_E_NOMEM;
    memset(all, 0, sizeof *all);
    lim__os *os = lim__runtime_os(rt);
    all->rt = rt;
    all->sched_count = lim__sched_count(rt);
    pthread_mutex_init(&all->lock, NULL);
    pthread_mutex_init(&all->host_lock, NULL);
    lim__smap_init(&all->names, os->random(os));
    lim__smap_init(&all->slots, os->random(os));
    pthread_mutex_init(&all->slots_lock, NULL);
    lim__list_init(&all->wild);
    lim__list_init(&all->subs);
    atomic_init(&all->epoch, 1);
    lim__channels_limit(all, 0, 0, true);
    *out = all;
    return LIM_OK;
}

void lim__channels_limit(lim__channels *all, uint32_t channels_max, uint32_t subscriptions_max, bool allow_hold)
{
    lim__lock(&all->lock);
    all->channels_max = channels_max ? channels_max : LIM__CHANNELS_MAX;
    all->subs_max = subscriptions_max ? subscriptions_max : LIM__SUBS_MAX;
    all->allow_hold = allow_hold;
    lim__unlock(&all->lock);
}

void lim__channels_close(lim__channels *all)
{
    if (!all)
        return;
    LIM_ASSERT(all->sub_count == 0); /* every owner has ended, and closed what it had */
    free_list(all->aging);
    free_list(all->fresh);
    lim_bytes name;
    void *ch;
    for (size_t pos = 0; lim__smap_next(&all->names, &pos, &name, &ch);)
        channel_free(&((lim__channel *)ch)->retired);
    LIM_ASSERT(all->slots.count == 0); /* their controls have ended */
    lim__smap_fini(&all->slots);
    lim__smap_fini(&all->names);
    pthread_mutex_destroy(&all->slots_lock);
    lim__ids_fini(&all->channel_ids);
    lim__ids_fini(&all->local_ids);
    pthread_mutex_destroy(&all->lock);
    pthread_mutex_destroy(&all->host_lock);
    free(all);
}
