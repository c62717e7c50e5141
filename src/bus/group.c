/* SPDX-License-Identifier: Apache-2.0
 * group.c - a group's process: who is in it, who has left, who comes back.
 *
 *   join --> member, watched before it can be chosen --down, no leases--> gone
 *                      | down, leases left
 *                      v
 *                    away --the same identity and session joins--> member again, its leases intact
 *                      `---- last lease taken by others ---------> gone
 *
 * A group is made by whoever first needs it and goes when nobody is in it, nothing waits and nothing is deployed:
 * it first stops being found by name (retired), lives on for a while to pass on what was already on its way to it, and
 * ends. What group_place.c decides, it decides in this process, one signal at a time. */
#include "bus/group.h"
#include "base/base.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { TAG_RETRY = 1, TAG_IDLE = 2, IDLE_MS = 1000, USED_MAX = 1 << 30 };
#define NO_SLOT UINT32_MAX

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

size_t lim__groups_list(lim_bus *bus, lim_pid *out, size_t max)
{
    size_t pos = 0, n = 0;
    lim_bytes key;
    void *value;
    pthread_mutex_lock(&bus->groups->mutex);
    while (lim__smap_next(&bus->groups->names, &pos, &key, &value)) {
        if (((const char *)key.ptr)[0] == '$')
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

/* ---- members ---- */

static lim_bytes identity(const member *m)
{
    return m->view.name;
}

void lim__member_free(group *g, member *m)
{
    lim__sched *s = lim__sched_current();
    lim__list_remove(&m->node);
    if (m->view.slot != NO_SLOT)
        g->slots[m->view.slot / 64] &= ~(1ull << m->view.slot % 64);
    g->member_count--;
    if (m->join != NULL)
        lim__letter_free(s, m->join);
    lim__free(s, m->names, m->name_count * sizeof *m->names + 1);
    lim__free(s, m, sizeof *m);
}

static void joined(group *g, const lim__join *j, lim_err err, lim_bytes name)
{
    lim__joined *r = lim__letter_new(lim__proc_sched(g->self), &lim__type_joined, sizeof *r + name.len);
    if (r == NULL)
        return;
    *r = (lim__joined){ .ref = j->ref, .err = err, .identity_len = (uint8_t)name.len };
    if (name.len > 0)
        memcpy(r->identity, name.ptr, name.len);
    (void)!lim__send_reserved(g->self, j->reply_to, r);
}

static void evict(group *g, lim_pid pid, lim_reason reason)
{
    lim__evict *e = lim__letter_new(lim__proc_sched(g->self), &lim__type_evict, sizeof *e);
    if (e == NULL)
        return;
    e->reason = reason;
    (void)!lim__send_reserved(g->self, pid, e);
}

static member *member_named(group *g, lim_bytes name)
{
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (lim__bytes_eq(identity(m), name))
            return m;
    }
    return NULL;
}

static bool same_session(const member *m, const lim__join *j)
{
    static const uint8_t none[16];
    return memcmp(m->join->session, j->session, 16) == 0 && memcmp(j->session, none, 16) != 0;
}

static lim_err scratch_grow(group *g)
{
    if (g->member_count < g->candidate_cap)
        return LIM_OK;
    uint32_t cap = g->candidate_cap == 0 ? 64 : g->candidate_cap * 2;
    uint64_t *slots = realloc(g->slots, cap / 64 * sizeof *slots);
    if (slots == NULL)
        return LIM_E_NOMEM;
    g->slots = slots;
    memset(slots + g->candidate_cap / 64, 0, (cap - g->candidate_cap) / 64 * sizeof *slots);
    const lim__candidate **c = realloc(g->candidates, cap * sizeof *c);
    if (c == NULL)
        return LIM_E_NOMEM;
    g->candidates = c;
    member **m = realloc(g->candidate_members, cap * sizeof *m);
    if (m == NULL)
        return LIM_E_NOMEM;
    g->candidate_members = m;
    g->candidate_cap = cap;
    return LIM_OK;
}

/* Slots are a small dense index for routing engines: no two members have the same. */
static uint32_t slot_take(group *g)
{
    for (uint32_t i = 0; i < g->candidate_cap / 64; i++)
        if (g->slots[i] != UINT64_MAX) {
            uint32_t bit = (uint32_t)__builtin_ctzll(~g->slots[i]);
            g->slots[i] |= 1ull << bit;
            return i * 64 + bit;
        }
    LIM_ASSERT(!"fewer slots than members");
    return NO_SLOT;
}

static lim_err member_names(member *m, lim__sched *s, lim_bytes name)
{
    const lim__join *j = m->join;
    const char *at = j->text + j->identity_len;
    m->name_count = (uint32_t)j->type_count + j->tag_count;
    m->names = lim__alloc(s, m->name_count * sizeof *m->names + 1);
    if (m->names == NULL)
        return LIM_E_NOMEM;
    for (uint32_t i = 0; i < m->name_count; i++)
        m->names[i] = lim__name_get(&at);
    m->view.name = name;
    m->view.types = m->names;
    m->view.type_count = j->type_count;
    m->view.tags = m->names + j->type_count;
    m->view.tag_count = j->tag_count;
    return LIM_OK;
}

static void member_attach(group *g, member *m, lim__join *j)
{
    m->pid = j->participant;
    m->view.id = j->participant.id;
    m->view.max_in_flight = j->capacity;
    m->view.stamp = ++g->stamp;
    m->joined_ns = lim_now_ns(g->self);
    *(j->kind == LIM__MEMBER_WORK ? &g->work_count : &g->serve_count) += 1;
}

static void count_out(group *g, const member *m)
{
    *(m->join->kind == LIM__MEMBER_WORK ? &g->work_count : &g->serve_count) -= 1;
}

static lim_err member_new(group *g, lim__join *j, uint64_t monitor, member **out)
{
    lim__sched *s = lim__proc_sched(g->self);
    member *m = lim__alloc(s, sizeof *m);
    if (m == NULL)
        return LIM_E_NOMEM;
    *m = (member){ .watched = { true }, .join = j, .monitor = monitor };
    m->view.slot = NO_SLOT;
    lim__list_init(&m->node);
    lim__list_init(&m->claims);
    lim__list_init(&m->parked);
    g->member_count++;
    lim_err err = scratch_grow(g);
    if (err == LIM_OK)
        err = member_names(m, s, lim__bytes(j->text, j->identity_len));
    if (err == LIM_OK)
        err = lim__map_put(&g->watched, monitor, m);
    if (err != LIM_OK) {
        m->join = NULL;
        lim__member_free(g, m);
        return err;
    }
    m->view.slot = slot_take(g);
    lim__list_push(&g->members, &m->node);
    member_attach(g, m, j);
    *out = m;
    return LIM_OK;
}

/* The same worker again, over another connection: its leases stay its own. */
static lim_err member_again(group *g, member *m, lim__join *j, uint64_t monitor)
{
    lim_err err = lim__map_put(&g->watched, monitor, m);
    if (err != LIM_OK)
        return err;
    if (m->pid.id != 0) {
        lim__map_remove(&g->watched, m->monitor);
        lim_demonitor(g->self, m->monitor);
        evict(g, m->pid, LIM_REPLACED);
        count_out(g, m);
        m->view.in_flight -= m->elsewhere; /* that was the word of the one before */
        m->elsewhere = 0;
        lim__group_unpark(g, m, true);
    }
    m->monitor = monitor;
    lim__letter_free(lim__proc_sched(g->self), j); /* what it said the first time still holds, but for its capacity */
    return LIM_OK;
}

static void join(group *g, const lim_signal *signal)
{
    lim__join *j = lim__letter_keep(g->self, signal);
    member *m = member_named(g, lim__bytes(j->text, j->identity_len));
    bool again = m != NULL && same_session(m, j) && m->join->kind == j->kind;
    lim_bytes name = lim__bytes(j->text, j->identity_len);
    uint64_t monitor = 0;
    lim_err err = m != NULL && m->pid.id != 0 && !again       ? LIM_E_EXISTS
                  : g->member_count >= LIM__GROUP_MEMBERS_MAX ? LIM_E_FULL
                                                              : lim_monitor(g->self, j->participant, &monitor);
    if (err == LIM_OK && again) { /* its watch is armed before it can be chosen */
        lim__join head = *j;
        err = member_again(g, m, j, monitor);
        if (err == LIM_OK) {
            head.kind = m->join->kind;
            member_attach(g, m, &head);
            joined(g, &head, LIM_OK, identity(m));
            lim__group_unpark(g, NULL, !LIM__MUTATION("return_unseen"));
            lim__group_dispatch(g);
            return;
        }
    } else if (err == LIM_OK) {
        if (m != NULL) /* one of that name is away with a task: it keeps its lease, not its name */
            m->view.name = lim__bytes("(away)", 6);
        err = member_new(g, j, monitor, &m);
    }
    joined(g, j, err, name);
    if (err != LIM_OK) {
        if (monitor != 0)
            lim_demonitor(g->self, monitor);
        lim__letter_free(lim__proc_sched(g->self), j);
        return;
    }
    if (g->name[0] != '$') /* the bus itself comes and goes without a word */
        LIM__EVENT(g->bus, g->self, "join", { "group", lim__bytes(g->name, g->name_len) }, { "participant", name },
                   { "kind", lim__str(j->kind == LIM__MEMBER_WORK ? "work" : "serve") });
    lim__group_unpark(g, NULL, true);
    lim__group_dispatch(g);
}

static void member_down(group *g, member *m, const lim_signal *signal)
{
    char leases[16];
    snprintf(leases, sizeof leases, "%u", m->view.in_flight);
    bool left = signal->reason == LIM_LEFT || (m->view.in_flight == 0 && signal->reason == LIM_DRAINED);
    LIM__EVENT(g->bus, g->self, left ? "leave" : "crash", { "group", lim__bytes(g->name, g->name_len) },
               { "participant", identity(m) }, { "reason", lim__str(lim_reason_text(signal->reason)) },
               { "leases", lim__str(leases) });
    lim__map_remove(&g->watched, m->monitor);
    m->pid = (lim_pid){ 0 };
    count_out(g, m);
    m->view.in_flight -= m->elsewhere;
    m->elsewhere = 0;
    g->lost += m->view.in_flight;
    lim__group_unpark(g, m, true);
    if (lim__list_empty(&m->claims))
        lim__member_free(g, m);
    g->left = true;
    lim__group_dispatch(g);
}

/* ---- signals ---- */

static bool idle(const group *g)
{
    return !g->deployed && lim__list_empty(&g->members) && g->watched.count == 0;
}

static void consider_idle(group *g)
{
    if (idle(g) && g->idle_timer == 0)
        (void)!lim_timer_start(g->self, IDLE_MS * 1000000ull, TAG_IDLE, &g->idle_timer);
}

static void on_idle_timer(group *g)
{
    g->idle_timer = 0;
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
    if (!g->retired || (signal->type != &lim__type_want && signal->type != &lim__type_join &&
                        signal->type != &lim__type_deploy && signal->type != &lim__type_report))
        return false;
    lim_pid to;
    if (lim__group_get(g->bus, g->self, lim__bytes(g->name, g->name_len), &to) != LIM_OK ||
        to.id == lim_self(g->self).id)
        return false;
    (void)!lim__send_reserved(g->self, to, lim__letter_keep(g->self, signal));
    return true;
}

static void on_deploy(group *g, const lim__deploy *d)
{
    lim__deployed *r = lim__letter_new(lim__proc_sched(g->self), &lim__type_deployed, sizeof *r);
    if (r == NULL)
        return;
    *r = (lim__deployed){ .ref = d->ref };
    if (!d->remove) {
        r->err = lim__group_deploy(g, d, &r->diag, &r->had_previous, &r->previous);
    } else if (!lim__list_empty(&g->members) || g->watched.count > 0) {
        r->err = LIM_E_MISUSE;
        lim__diag_set(&r->diag, 0, 0, "%u members and %u tasks are in it; end them first", g->member_count,
                      g->task_count);
    } else {
        g->deployed = false;
        forget_name(g);
    }
    (void)!lim__send_reserved(g->self, d->reply_to, r);
}

static claim *claim_of(lim__list *line, lim_pid conv)
{
    LIM__LIST_EACH(node, line)
        if (LIM_CONTAINER(node, claim, node)->conv.id == conv.id)
            return LIM_CONTAINER(node, claim, node);
    return NULL;
}

static void on_release(group *g, const lim_signal *signal)
{
    const lim__release *r = signal->body.ptr;
    if (r->lease != 0) {
        watched *w = lim__map_get(&g->watched, r->lease);
        if (w != NULL && !w->is_member && ((claim *)(void *)w)->conv.id == signal->from.id)
            lim__group_unclaim(g, (claim *)(void *)w, true);
    } else { /* whatever this conversation still waits for */
        lim__list *lines[] = { &g->asks, &g->tasks, &g->undecided, &g->unserved, &g->routing };
        claim *c = NULL;
        for (size_t i = 0; i < LIM_COUNT(lines) && c == NULL; i++)
            c = claim_of(lines[i], signal->from);
        LIM__LIST_EACH(node, &g->members)
            c = c != NULL ? c : claim_of(&LIM_CONTAINER(node, member, node)->parked, signal->from);
        if (c != NULL)
            lim__group_unclaim(g, c, true);
    }
    lim__group_dispatch(g);
}

static void on_report(group *g, const lim__report *r)
{
    LIM__LIST_EACH(node, &g->members) {
        member *m = LIM_CONTAINER(node, member, node);
        if (m->pid.id != r->participant.id)
            continue;
        uint32_t used = r->used < USED_MAX ? r->used : USED_MAX; /* a sum that wraps would look like places */
        m->view.in_flight += used - m->elsewhere;
        m->elsewhere = used;
        m->view.stamp = ++g->stamp;
        lim__group_unpark(g, m, true);
        lim__group_unpark(g, NULL, false);
        lim__group_dispatch(g);
        return;
    }
}

static void on_show(group *g, const lim__show *show)
{
    lim__buf buf = { 0 };
    lim__json j = lim__json_begin(&buf);
    lim__group_json(g, show->what, &j);
    lim__shown_send(g->self, show, &buf);
}

static void on_message(group *g, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    if (pass_on(g, signal))
        return;
    if (t == &lim__type_want)
        lim__group_want(g, signal);
    else if (t == &lim__type_release)
        on_release(g, signal);
    else if (t == &lim__type_join)
        join(g, signal);
    else if (t == &lim__type_resume)
        lim__group_resume(g);
    else if (t == &lim__type_deploy)
        on_deploy(g, signal->body.ptr);
    else if (t == &lim__type_report)
        on_report(g, signal->body.ptr);
    else if (t == &lim__type_show)
        on_show(g, signal->body.ptr);
}

static void on_down(group *g, const lim_signal *signal)
{
    watched *w = lim__map_get(&g->watched, signal->ref);
    if (w == NULL)
        return;
    if (w->is_member) {
        member_down(g, (member *)(void *)w, signal);
    } else if (!LIM__MUTATION("place_lost")) {
        lim__group_unclaim(g, (claim *)(void *)w, false);
        lim__group_dispatch(g);
    }
}

#ifdef LIM_DEBUG
static void group_check(const group *g)
{
    uint32_t leased = 0, members = 0;
    LIM__LIST_EACH(node, &g->members) {
        const member *m = LIM_CONTAINER(node, member, node);
        uint32_t leases = 0;
        LIM__LIST_EACH(n, &m->claims) {
            const claim *c = LIM_CONTAINER(n, claim, node);
            LIM_ASSERT(c->state == CLAIM_LEASED && c->member == m); /* G1 */
            leases++;
        }
        LIM_ASSERT(leases + m->elsewhere == m->view.in_flight);                                             /* G2 */
        LIM_ASSERT(m->pid.id == 0 || leases <= m->view.max_in_flight || m->join->kind == LIM__MEMBER_WORK); /* G3 */
        leased += leases;
        members++;
    }
    LIM_ASSERT(leased == g->leased_count && members == g->member_count);
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
        joined(g, signal->body.ptr, LIM_E_NOMEM, lim__bytes(NULL, 0));
    } else if (signal->type == &lim__type_deploy) {
        const lim__deploy *d = signal->body.ptr;
        lim__deployed *r = lim__letter_new(lim__proc_sched(g->self), &lim__type_deployed, sizeof *r);
        if (r == NULL)
            return;
        *r = (lim__deployed){ .ref = d->ref, .err = LIM_E_NOMEM };
        (void)!lim__send_reserved(g->self, d->reply_to, r);
    }
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    group *g = state;
    g->self = self;
    if (g->router == NULL) {
        lim__list_init(&g->members);
        lim__list_init(&g->asks);
        lim__list_init(&g->tasks);
        lim__list_init(&g->undecided);
        lim__list_init(&g->unserved);
        lim__list_init(&g->routing);
        lim__map_init(&g->watched, g->bus->os->random(g->bus->os));
        if (lim__group_router_init(g) != LIM_OK) { /* the next signal tries again */
            no_memory(g, signal);
            return;
        }
    }
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type != NULL)
        on_message(g, signal);
    else if (signal->kind == LIM_SIGNAL_DOWN)
        on_down(g, signal);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == TAG_IDLE)
        on_idle_timer(g);
    else if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == TAG_RETRY) {
        g->retry_timer = 0;
        if (!g->resuming)
            lim__group_resume(g);
        lim__group_unpark(g, NULL, true);
        lim__group_dispatch(g);
    }
    consider_idle(g);
    group_check(g);
}

static void free_claims(lim__list *line)
{
    lim__sched *s = lim__sched_current();
    for (lim__list *n; (n = lim__list_pop(line)) != NULL;) {
        claim *c = LIM_CONTAINER(n, claim, node);
        if (c->want != NULL)
            lim__letter_free(s, c->want);
        lim__free(s, c, sizeof *c);
    }
}

static void on_end(void *state, lim_reason reason)
{
    group *g = state;
    (void)reason;
    if (g->members.next == NULL)
        return;
    while (!lim__list_empty(&g->members)) {
        member *m = LIM_CONTAINER(g->members.next, member, node);
        free_claims(&m->claims);
        free_claims(&m->parked);
        lim__member_free(g, m);
    }
    free_claims(&g->asks);
    free_claims(&g->tasks);
    free_claims(&g->undecided);
    free_claims(&g->unserved);
    free_claims(&g->routing);
    lim__map_fini(&g->watched);
    lim__group_router_fini(g);
    free(g->candidates);
    free(g->candidate_members);
    free(g->slots);
}

static lim_spawn_opts group_spawn(const void *init, size_t bytes)
{
    return (lim_spawn_opts){ .size = sizeof(lim_spawn_opts),
                             .name = "group",
                             .on_signal = on_signal,
                             .on_end = on_end,
                             .state_bytes = sizeof(group),
                             .init = init,
                             .init_bytes = bytes,
                             .mailbox_max = LIM__GROUP_QUEUE_MAX + 65536,
                             .trap_exit = true };
}
