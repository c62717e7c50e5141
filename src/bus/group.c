/* SPDX-License-Identifier: Apache-2.0
 * group.c - a group's process: its name, and what it hears.
 *
 * A group is made by whoever first needs it and goes when nobody is in it, nothing waits, nothing is deployed,
 * configured or remembered: it first stops being found by name (retired), lives on for a while to pass on what was
 * already on its way to it, and ends. group.h says which file does what with a signal. */
#include "bus/group.h"
#include "base/base.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { IDLE_MS = 1000 };

/* ---- names -> groups ---- */

typedef struct entry {
    lim_pid pid;
    uint8_t len;
    char name[];
} entry;

struct lim__groups {
    lim__mutex mutex; /* a leaf, but for spawning: guards `names` */
    lim__smap names;
};

lim__groups *lim__groups_new(uint64_t seed)
{
    lim__groups *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->mutex = (lim__mutex)LIM__MUTEX_INIT;
    lim__smap_init(&all->names, seed);
    return all;
}

void lim__groups_free(lim__groups *all)
{
    size_t pos = 0;
    lim_bytes key;
    void *value;
    if (all == NULL)
        return;
    while (lim__smap_next(&all->names, &pos, &key, &value))
        free(value);
    lim__smap_fini(&all->names);
    free(all);
}

size_t lim__groups_list(lim_bus *bus, lim_bytes prefix, lim_pid *out, size_t max)
{
    size_t pos = 0, n = 0;
    lim_bytes key;
    void *value;
    pthread_mutex_lock(&bus->groups->mutex);
    while (lim__smap_next(&bus->groups->names, &pos, &key, &value)) {
        if (((const char *)key.ptr)[0] == '$' || key.len < prefix.len ||
            (prefix.len > 0 && memcmp(key.ptr, prefix.ptr, prefix.len) != 0))
            continue;
        if (n < max)
            out[n] = ((entry *)value)->pid;
        n++;
    }
    pthread_mutex_unlock(&bus->groups->mutex);
    return n;
}

lim_pid lim__group_find(lim_bus *bus, lim_bytes name)
{
    pthread_mutex_lock(&bus->groups->mutex);
    entry *e = lim__smap_get(&bus->groups->names, name);
    lim_pid pid = e != NULL ? e->pid : (lim_pid){ 0 };
    pthread_mutex_unlock(&bus->groups->mutex);
    return pid;
}

static lim_spawn_opts group_spawn(const void *init, size_t bytes);

static lim_err group_make(lim_bus *bus, lim_process *self, lim_bytes name, lim_pid *out)
{
    struct {
        lim_bus *bus;
        lim_process *self;
        char name[256];
        uint8_t len;
    } init = { .bus = bus, .len = (uint8_t)name.len };
    static_assert(offsetof(group, name_len) == 2 * sizeof(void *) + 256, "init is the head of struct group");
    entry *e = malloc(sizeof *e + name.len);
    if (e == NULL)
        return LIM_E_NOMEM;
    memcpy(init.name, name.ptr, name.len);
    memcpy(e->name, name.ptr, name.len);
    e->len = (uint8_t)name.len;
    lim_spawn_opts opts = group_spawn(&init, sizeof init);
    lim_err err = self != NULL ? lim_spawn(self, &opts, &e->pid) : lim_runtime_spawn(bus->rt, &opts, &e->pid);
    if (err == LIM_OK)
        err = lim__smap_put(&bus->groups->names, lim__bytes(e->name, e->len), e);
    if (err != LIM_OK) {
        if (e->pid.id != 0)
            lim_runtime_exit(bus->rt, e->pid, LIM_KILL);
        free(e);
        return err;
    }
    *out = e->pid;
    return LIM_OK;
}

lim_err lim__group_get(lim_bus *bus, lim_process *self, lim_bytes name, lim_pid *out)
{
    if (!lim__channel_name_ok(name))
        return LIM_E_INVALID;
    pthread_mutex_lock(&bus->groups->mutex);
    entry *e = lim__smap_get(&bus->groups->names, name);
    lim_err err = LIM_OK;
    if (e != NULL)
        *out = e->pid;
    else
        err = group_make(bus, self, name, out);
    pthread_mutex_unlock(&bus->groups->mutex);
    return err;
}

static void forget_name(group *g)
{
    lim__groups *all = g->bus->groups;
    pthread_mutex_lock(&all->mutex);
    entry *e = lim__smap_get(&all->names, lim__bytes(g->name, g->name_len));
    if (e != NULL && e->pid.id == lim_self(g->self).id) {
        lim__smap_remove(&all->names, lim__bytes(e->name, e->len));
        free(e);
    }
    pthread_mutex_unlock(&all->mutex);
    g->retired = true;
}

/* ---- signals ---- */

static bool idle(const group *g)
{
    return !g->slot.deployed && !g->change.keeping && !g->configured && lim__list_empty(&g->answers) &&
           lim__list_empty(&g->members) && g->watched.count == 0 && g->dead_count == 0 &&
           (g->retired || lim__list_empty(&g->onces)); /* without its name nobody asks for those */
}

static void consider_idle(group *g)
{
    if (idle(g) && g->idle_timer == 0)
        (void)!lim_timer_start(g->self, IDLE_MS * 1000000ull, LIM__GROUP_TAG_IDLE, &g->idle_timer);
}

static void on_idle_timer(group *g)
{
    g->idle_timer = 0;
    lim__group_expire(g);
    if (!idle(g))
        return;
    if (g->retired) {
        lim_exit(g->self, LIM_NORMAL);
        return;
    }
    forget_name(g);
    consider_idle(g);
}

/* A retired group hands what still arrives to the one that has its name now. */
static bool pass_on(group *g, const lim_signal *signal)
{
    if (!g->retired ||
        (signal->type != &lim__type_want && signal->type != &lim__type_join && signal->type != &lim__type_deploy &&
         signal->type != &lim__type_report && signal->type != &lim__type_dead && signal->type != &lim__type_admin &&
         signal->type != &lim__type_members))
        return false;
    lim_pid to;
    if (lim__group_get(g->bus, g->self, lim__bytes(g->name, g->name_len), &to) != LIM_OK ||
        to.id == lim_self(g->self).id)
        return false;
    (void)!lim__send_reserved(g->self, to, lim__letter_keep(g->self, signal));
    return true;
}

void lim__group_forget(group *g)
{
    g->slot.deployed = g->configured = false;
    lim__group_config_gone(g);
    forget_name(g);
}

static void on_show(group *g, const lim__show *show)
{
    lim__buf buf = { 0 };
    lim__json j = lim__json_begin(&buf);
    if (show->what == LIM__SHOW_ROUTE_LINE)
        lim__slot_line_json(&g->slot, &j);
    else if (show->what == LIM__SHOW_ROUTE)
        lim__slot_json(&g->slot, &j);
    else if (show->what == LIM__SHOW_ROUTE_HISTORY)
        lim__slot_history_json(&g->slot, show->after, show->max, &j);
    else if (show->what == LIM__SHOW_ROUTE_LOG)
        lim__slot_lines_json(&g->slot, show->after, show->max, &j);
    else
        lim__group_json(g, show->what, &j);
    lim__shown_send(g->self, show, &buf);
}

static void on_resume(group *g)
{
    lim__group_purge_go_on(g);
    lim__group_replay_go_on(g);
    lim__group_resume(g);
    g->together = true;
    lim__group_dispatch(g);
    g->together = false;
}

static void on_message(group *g, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    if (pass_on(g, signal))
        return;
    if (t == &lim__type_want)
        lim__group_want(g, signal);
    else if (t == &lim__type_release)
        lim__group_release(g, signal);
    else if (t == &lim__type_join)
        lim__group_join(g, signal);
    else if (t == &lim__type_resume)
        on_resume(g);
    else if (t == &lim__type_deploy)
        lim__group_deploy(g, signal);
    else if (t == &lim__type_slot_stored)
        lim__group_kept(g, signal->body.ptr);
    else if (t == &lim__type_report)
        lim__group_report(g, signal->body.ptr);
    else if (t == &lim__type_members)
        lim__group_members(g, signal->body.ptr);
    else if (t == &lim__type_outcome)
        lim__group_outcome(g, signal);
    else if (t == &lim__type_dead)
        lim__group_dead_add(g, signal);
    else if (t == &lim__type_vouch)
        lim__group_vouch(g, signal);
    else if (t == &lim__type_admitted)
        lim__group_dead_admitted(g, signal);
    else if (t == &lim__type_stored)
        lim__group_stored(g, signal->body.ptr);
    else if (t == &lim__type_revive)
        lim__group_revive(g, signal);
    else if (t == &lim__type_row)
        lim__group_row(g, signal->body.ptr);
    else if (t == &lim__type_admin)
        lim__group_admin(g, signal->body.ptr);
    else if (t == &lim__type_show)
        on_show(g, signal->body.ptr);
}

static void on_down(group *g, const lim_signal *signal)
{
    watched *w = lim__map_get(&g->watched, signal->ref);
    if (w == NULL)
        return;
    if (w->is_member) {
        lim__member_down(g, (member *)(void *)w, signal);
    } else if (!LIM__MUTATION("place_lost")) {
        lim__claim_end(g, (claim *)(void *)w, false);
        lim__group_dispatch(g);
    }
}

#ifdef LIM_DEBUG
static void group_check(const group *g)
{
    uint32_t leased = 0, members = 0, asks = 0;
    size_t pos = 0;
    uint64_t key;
    void *value;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        uint32_t leases = 0;
        LIM__LIST_EACH(n, &m->leases) {
            const lease *l = LIM_CONTAINER(n, lease, node);
            LIM_ASSERT(l->id != 0 && l->member == m); /* K2 */
            leases++;
        }
        LIM_ASSERT(leases + m->elsewhere == m->view.in_flight);                                             /* G2 */
        LIM_ASSERT(m->pid.id == 0 || leases <= m->view.max_in_flight || m->join->kind == LIM__MEMBER_WORK); /* G3 */
        leased += leases;
        uint32_t buffered = 0;
        LIM__LIST_EACH(waits, &LIM_CONTAINER(node, member, node)->parked)
            buffered++;
        LIM_ASSERT(buffered == LIM_CONTAINER(node, member, node)->view.buffer_depth); /* G5 */
        members++;
    }
    LIM_ASSERT(leased == g->leased_count && members == g->member_count);
    if (g->watched.count > 256)
        return; /* looking at all of them after each signal would take for ever */
    while (lim__map_next(&g->watched, &pos, &key, &value)) {
        const claim *c = value;
        if (c->watched.is_member)
            continue;
        LIM_ASSERT(c->monitor == key &&
                   (!(c->is_task || c->kept) || lim__map_get(&g->claims, c->conv.id) == c)); /* K1 */
        LIM_ASSERT((c->lease.id != 0) == (c->state == CLAIM_LEASED));                        /* K2 */
        LIM_ASSERT((c->want == NULL) == (c->state == CLAIM_LEASED || c->state == CLAIM_RESTING));
        asks += !c->is_task && c->want != NULL;
        if (!c->is_task)
            continue;
        lim__item_state s = (lim__item_state)((const task *)(const void *)c)->item.state;
        LIM_ASSERT((s == LIM__ITEM_OUT) == (c->state == CLAIM_LEASED || c->state == CLAIM_RESTING) ||
                   (s == LIM__ITEM_NONE && c->state == CLAIM_RESTING));                             /* K3 */
        LIM_ASSERT((s == LIM__ITEM_HELD) == (c->state == CLAIM_HELD || c->state == CLAIM_ROUTING)); /* G1 */
    }
    LIM_ASSERT(asks == g->ask_count);
    lim__line_check(&g->line);
}
#else
#define group_check(g) ((void)0)
#endif

/* Whoever asks something of a group that cannot even begin is told so. */
static void no_memory(group *g, const lim_signal *signal)
{
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (signal->type == &lim__type_want) {
        lim__group_refuse(g, ((const lim__want *)signal->body.ptr)->conv, LIM_WHY_MEMORY, 0, 0, "out of memory");
    } else if (signal->type == &lim__type_join) {
        lim__group_joined(g, signal->body.ptr, LIM_E_NOMEM, lim__bytes(NULL, 0));
    } else if (signal->type == &lim__type_deploy) {
        const lim__deploy *d = signal->body.ptr;
        lim__deployed *r = lim__letter_new(lim__proc_sched(g->self), &lim__type_deployed, sizeof *r);
        if (r == NULL)
            return;
        *r = (lim__deployed){ .ref = d->ref, .err = LIM_E_NOMEM };
        (void)!lim__send_reserved(g->self, d->reply_to, r);
    }
}

void lim__group_on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    group *g = state;
    g->self = self;
    g->slot.self = self;
    if (g->slot.live == NULL) {
        lim__list_init(&g->members);
        lim__list_init(&g->asks);
        lim__list_init(&g->undecided);
        lim__list_init(&g->routing);
        lim__list_init(&g->onces);
        lim__list_init(&g->dead);
        lim__list_init(&g->answers);
        uint64_t seed = g->bus->os->random(g->bus->os);
        lim__map_init(&g->watched, seed);
        lim__map_init(&g->claims, seed);
        lim__smap_init(&g->unique, seed);
        lim__smap_init(&g->once, seed);
        lim__line_init(&g->line, seed);
        lim__group_config_init(g);
        if (lim__group_slot_init(g) != LIM_OK) { /* the next signal tries again */
            no_memory(g, signal);
            return;
        }
    }
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type != NULL)
        on_message(g, signal);
    else if (signal->kind == LIM_SIGNAL_DOWN)
        on_down(g, signal);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__GROUP_TAG_IDLE)
        on_idle_timer(g);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__GROUP_TAG_RETRY) {
        g->retry_timer = 0;
        if (!g->resuming)
            lim__group_resume(g);
        lim__group_unpark(g, NULL, true);
        lim__group_dispatch(g);
    } else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__GROUP_TAG_SWEEP) {
        g->sweep_timer = 0;
        lim__group_sweep_now(g);
    } else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__GROUP_TAG_BACK) {
        lim__group_back_over(g);
    } else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__GROUP_TAG_SLICE) {
        on_resume(g);
    } else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == LIM__GROUP_TAG_LINE) {
        g->line_timer = 0;
        lim__group_dispatch(g);
    }
    consider_idle(g);
    group_check(g);
}

static void on_end(void *state, lim_reason reason)
{
    group *g = state;
    (void)reason;
    if (g->members.next == NULL)
        return;
    lim__group_claims_fini(g);
    while (!lim__list_empty(&g->members)) {
        member *m = LIM_CONTAINER(g->members.next, member, node);
        lim__list_init(&m->parked); /* whose claims are gone */
        lim__member_free(g, m);
    }
    lim__group_dead_fini(g);
    lim__group_store_fini(g);
    lim__map_fini(&g->watched);
    lim__group_slot_fini(g);
    free(g->candidates);
    free(g->candidate_members);
    free(g->slots);
}

static lim_spawn_opts group_spawn(const void *init, size_t bytes)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "group",
                             .on_signal = lim__group_on_signal,
                             .on_end = on_end,
                             .state_bytes = sizeof(group),
                             .init = init,
                             .init_bytes = bytes,
                             .mailbox_max = LIM__GROUP_QUEUE_MAX + 65536,
                             .trap_exit = true };
}
