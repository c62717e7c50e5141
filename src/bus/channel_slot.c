/* SPDX-License-Identifier: Apache-2.0
 * channel_slot.c - the control process of a channel's slot: versions, trial, history, breaker, what is stored.
 *
 * It takes the same letters as a group does for its slot. Deciding is not its business: whenever something else is to
 * decide, it makes a rule and installs it; what the seats of the schedulers counted it adds to the versions' numbers
 * when somebody looks, and before others take over. A change's rule is made before the change is stored: it is compiled
 * for every scheduler, or nothing has changed.
 *
 *      get --> restored, installed --> spawned --deploy--> rule, (stored), installed --remove--> no longer found -->
 * ends ^    |
 *                                        `----' killed: another process has the same control
 *
 * What was stored is installed before anybody can publish: by the thread that opens the bus. */
#include "bus/channel_slot.h"
#include "base/base.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/conv.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    LEAVE_NS = 1000000000, /* a removed one passes on for so long what was on its way to it */
    LOOK_NS = 5000000,     /* after a death: is the commit that was under way through? */
    TAG_LEAVE = 1,
    TAG_LOOK
};

typedef struct control {
    lim_bus *bus;
    lim_process *self; /* NULL: its process died, and the next one has not begun */
    lim__chan_slot *slot;
    lim__slot s;
    lim__slot_change change;
    lim__chan_rule *ready; /* of the change that is under way; NULL: none */
    lim__artifact *last;   /* least_loaded, for on_fault */
    uint64_t generation;
    lim__router_stats counted[2]; /* of the rule that is installed: what is in its versions' numbers already */
    uint64_t compared[4];
    bool gone, again; /* again: another process's life came before this one's, and may have left something */
} control;

/* ---- numbers ---- */

static void count_version(control *c, const lim__chan_rule *rule, lim__chan_role role, lim__version *v)
{
    lim__router_stats now, *past, *counted = &c->counted[role];
    if (v == NULL || rule->codes[role].artifact != v->artifact)
        return;
    if (v->past == NULL)
        v->past = calloc(1, sizeof *v->past);
    if ((past = v->past) == NULL)
        return; /* the next time */
    lim__chan_counts_sum(rule, role, &now);
    past->calls += now.calls - counted->calls;
    past->decided += now.decided - counted->decided;
    past->none += now.none - counted->none;
    past->crashed += now.crashed - counted->crashed;
    past->timed_out += now.timed_out - counted->timed_out;
    past->not_started += now.not_started - counted->not_started;
    *counted = now;
}

static void count_compared(control *c, const lim__chan_rule *rule)
{
    uint64_t now[4] = { 0 }, *const to[4] = { &c->s.agreed, &c->s.differed, &c->s.live_faults, &c->s.shadow_faults };
    if (c->s.trial == NULL || !c->s.trial->shadow || !rule->shadow)
        return;
    for (uint32_t i = 0; i < rule->seat_count; i++) {
        const struct lim__chan_tally *t = &rule->tallies[i];
        now[0] += LIM__RELAXED(t->agreed);
        now[1] += LIM__RELAXED(t->differed);
        now[2] += LIM__RELAXED(t->live_faults);
        now[3] += LIM__RELAXED(t->shadow_faults);
    }
    for (int i = 0; i < 4; i++) {
        *to[i] += now[i] - c->compared[i];
        c->compared[i] = now[i];
    }
}

/* What was counted since the last time goes to the versions that decide now. */
static void count_in(void *owner)
{
    control *c = owner;
    const lim__chan_rule *rule = LIM__RELAXED(c->slot->rule);
    if (rule == NULL)
        return;
    count_version(c, rule, LIM__CHAN_LIVE, c->s.live);
    count_version(c, rule, LIM__CHAN_TRIAL, c->s.trial);
    count_compared(c, rule);
}

/* ---- rules ---- */

static void install(control *c, lim__chan_rule *rule)
{
    lim__chan_rule *old = LIM__RELAXED(c->slot->rule);
    memset(c->counted, 0, sizeof c->counted);
    memset(c->compared, 0, sizeof c->compared);
    /* release: pairs with the acquire in lim__channel_choose */
    atomic_store_explicit(&c->slot->rule, rule, memory_order_release);
    if (old != NULL)
        lim__retire(c->bus->channels, &old->retired, lim__chan_rule_free);
}

static lim__chan_part part_of(const lim__version *v)
{
    return (lim__chan_part){ v, v != NULL ? &v->terms : NULL };
}

static lim_err rule_of(control *c, lim__chan_part live, lim__chan_part trial, const lim__version *before,
                       lim_diag *diag, lim__chan_rule **out)
{
    return lim__chan_rule_new(c->slot, ++c->generation, live, trial, part_of(before), c->last, diag, out);
}

/* As the slot is now. */
static lim_err install_as_it_is(control *c, lim_diag *diag)
{
    lim__version *live = c->s.live;
    bool previous = live->terms.on_fault == LIM_ON_FAULT_PREVIOUS;
    lim__chan_rule *rule = NULL;
    lim_err err =
        rule_of(c, part_of(live), part_of(c->s.trial), previous ? lim__slot_other(&c->s, live) : NULL, diag, &rule);
    if (err == LIM_OK)
        install(c, rule);
    return err;
}

/* The one that will be behind `v` when that is live. */
static const lim__version *behind(const control *c, const lim__version *v)
{
    LIM__LIST_EACH(node, &c->s.versions) {
        const lim__version *w = LIM_CONTAINER(node, lim__version, node);
        bool same = w->artifact->engine == v->artifact->engine &&
                    memcmp(w->artifact->hash, v->artifact->hash, LIM__HASH_SIZE) == 0;
        if (!same && !w->leaving && !w->tripped)
            return w;
    }
    return NULL;
}

/* Where the breaker has put another one, or a trial is over. */
static void on_change(void *owner)
{
    control *c = owner;
    lim_diag diag = { 0 };
    if (!c->change.applying && install_as_it_is(c, &diag) != LIM_OK)
        lim__bus_log(c->bus, "event=slot_not_changed channel=%s why=\"%s\"", c->slot->name,
                     diag.text[0] != '\0' ? diag.text : "out of memory");
    lim__slot_change_noticed(&c->change);
}

static void on_ready(void *owner)
{
    (void)owner; /* its routers only prove that code compiles: nothing is ever unfinished */
}

/* ---- changes ---- */

static lim_err may(void *owner, const lim__deploy *d, lim_diag *diag)
{
    const control *c = owner;
    if (d->what != LIM__DEPLOY ||
        (d->artifact->engine != LIM__ENGINE_NATIVE && !lim__slot_host(c->bus, d->artifact).isolated))
        return LIM_OK;
    lim__diag_set(diag, 0, 0,
                  "native and isolated functions answer later, and a publish does not wait: a channel takes built-in "
                  "strategies, Lua and functions of the program that are not isolated");
    return LIM_E_MISUSE;
}

static lim_err prepare(void *owner, const lim__slot_plan *p, lim_diag *diag)
{
    control *c = owner;
    const lim__chan_part planned = { p->v, &p->terms };
    lim__chan_part live = part_of(c->s.live), trial = part_of(c->s.trial);
    const lim__version *before = behind(c, c->s.live);
    if (p->act == LIM__SLOT_LIVE) {
        live = planned;
        before = behind(c, p->v);
        trial = c->s.trial == p->v ? part_of(NULL) : trial;
    } else {
        trial = p->act == LIM__SLOT_END ? part_of(NULL) : planned;
    }
    return rule_of(c, live, trial, before, diag, &c->ready);
}

static void discard(void *owner)
{
    control *c = owner;
    if (c->ready != NULL)
        lim__chan_rule_free(&c->ready->retired);
    c->ready = NULL;
}

static void installed(void *owner)
{
    control *c = owner;
    lim__chan_rule *rule = c->ready;
    c->ready = NULL;
    install(c, rule);
}

/* Publishes no longer find it; it is freed when the last one is through. */
static void detach(control *c)
{
    lim__channels *all = c->bus->channels;
    if (c->gone)
        return;
    c->gone = true;
    lim__lock(&all->slots_lock);
    (void)lim__channels_slot_set(all, lim__bytes(c->slot->name, c->slot->len), NULL);
    lim__unlock(&all->slots_lock);
}

static void done(void *owner, int what)
{
    control *c = owner;
    uint64_t timer;
    if (what != LIM__DEPLOY_REMOVE)
        return;
    detach(c);
    if (lim_timer_start(c->self, LEAVE_NS, TAG_LEAVE, &timer) != LIM_OK)
        lim_exit(c->self, LIM_NORMAL);
}

static const lim__slot_change_ops change_ops = {
    .may = may, .prepare = prepare, .discard = discard, .before = count_in, .installed = installed, .done = done
};

static void on_signal(lim_process *self, const lim_signal *signal, void *state);

/* ---- what seats and people say ---- */

static void on_fault_said(control *c, lim__version *v, const lim__chan_said *said)
{
    char text[LIM__ROUTE_LINE_MAX];
    snprintf(text, sizeof text, "%.*s", (int)(said->len < sizeof text ? said->len : sizeof text - 1), said->text);
    const lim__route_result r = { .how = said->how, .line = said->line, .text = text };
    count_in(c);
    c->s.busy++;
    lim__slot_fault(&c->s, v, &r);
    c->s.busy--;
    lim__slot_tidy(&c->s);
}

static void on_said(control *c, const lim__chan_said *said)
{
    const lim__chan_rule *rule = LIM__RELAXED(c->slot->rule);
    lim__version *v = said->role == LIM__CHAN_TRIAL ? c->s.trial : c->s.live;
    atomic_fetch_sub(&c->slot->said, 1);
    if (rule == NULL || said->generation != rule->generation || v == NULL)
        return; /* of one that decides no longer */
    if (said->how != 0)
        on_fault_said(c, v, said);
    else if (said->shadow > 0)
        lim__slot_diff_add(&c->s, said->text, said->text + said->shadow,
                           lim__bytes(said->text + said->about, said->len - said->about));
    else
        lim__slot_log(v, said->text, said->len);
}

static void on_show(control *c, const lim__show *show)
{
    lim__buf buf = { 0 };
    lim__json j = lim__json_begin(&buf);
    count_in(c);
    if (show->what == LIM__SHOW_ROUTE_LINE)
        lim__slot_line_json(&c->s, &j);
    else if (show->what == LIM__SHOW_ROUTE)
        lim__slot_json(&c->s, &j);
    else if (show->what == LIM__SHOW_ROUTE_HISTORY)
        lim__slot_history_json(&c->s, show->after, show->max, &j);
    else
        lim__slot_lines_json(&c->s, show->after, show->max, &j);
    lim__shown_send(c->self, show, &buf);
}

/* A removed one hands what still arrives to the one that has its name now. */
static void pass_on(control *c, const lim_signal *signal)
{
    lim_pid to;
    if ((signal->type != &lim__type_deploy && signal->type != &lim__type_show) ||
        lim__chan_slot_get(c->bus, c->self, lim__bytes(c->slot->name, c->slot->len), &to) != LIM_OK)
        return;
    (void)!lim__send_reserved(c->self, to, lim__letter_keep(c->self, signal));
}

/* The process before this one died; what it left is finished here. */
static void go_on(control *c, void *state)
{
    uint64_t timer;
    c->again = !c->gone && !lim__slot_change_again(&c->change, on_signal, state);
    if (c->again)
        (void)!lim_timer_start(c->self, LOOK_NS, TAG_LOOK, &timer); /* else the next signal looks */
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    control *c = *(control **)state;
    c->self = self;
    c->s.self = self;
    if (c->again)
        go_on(c, state);
    if (signal->kind == LIM_SIGNAL_TIMER && signal->tag == TAG_LEAVE)
        lim_exit(self, LIM_NORMAL);
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type == NULL)
        return;
    if (signal->type == &lim__type_chan_said)
        on_said(c, signal->body.ptr);
    else if (c->gone)
        pass_on(c, signal);
    else if (signal->type == &lim__type_deploy)
        lim__slot_change_begin(&c->change, signal);
    else if (signal->type == &lim__type_slot_stored)
        lim__slot_change_stored(&c->change, signal->body.ptr, on_signal, state);
    else if (signal->type == &lim__type_show)
        on_show(c, signal->body.ptr);
}

/* ---- beginning and end ---- */

static void control_free(control *c)
{
    discard(c);
    lim__slot_change_fini(&c->change);
    lim__slot_fini(&c->s);
    lim__artifact_unref(c->last);
    free(c);
}

static lim_err spawn(control *c, lim_process *by);

/* Killed: another process takes over, with everything. It ends well when it was removed, or the bus is closed. */
static void on_end(void *state, lim_reason reason)
{
    control *c = *(control **)state;
    c->self = c->s.self = NULL;
    if (reason != LIM_NORMAL && !c->gone && atomic_load(&c->bus->closing) < 2) {
        c->again = true;
        if (spawn(c, NULL) == LIM_OK)
            return;
    }
    detach(c);
    lim__retire(c->bus->channels, &c->slot->retired, lim__chan_slot_free);
    control_free(c);
}

static lim_err spawn(control *c, lim_process *by)
{
    const lim_spawn_opts opts = { .size = sizeof opts,
                                  .name = "channel-slot",
                                  .on_signal = on_signal,
                                  .on_end = on_end,
                                  .state_bytes = sizeof c,
                                  .init = &c,
                                  .init_bytes = sizeof c,
                                  .trap_exit = true };
    lim__chan_slot *slot = c->slot; /* `c` belongs to its process from its first signal on */
    bool again = c->again;
    lim_pid pid = { 0 };
    lim_err err = by != NULL ? lim_spawn(by, &opts, &pid) : lim_runtime_spawn(slot->bus->rt, &opts, &pid);
    if (err != LIM_OK)
        return err;
    atomic_store_explicit(&slot->control, pid.id, memory_order_relaxed);
    void *letter = again ? lim__letter_new(NULL, &lim__type_resume, 0) : NULL;
    if (letter != NULL)
        (void)!lim__post_reserved(slot->bus->rt, pid, letter); /* else its first signal is somebody's request */
    return LIM_OK;
}

static control *control_new(lim_bus *bus, lim_bytes name)
{
    control *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->bus = bus;
    c->slot = lim__chan_slot_new(bus, name);
    const lim__slot_opts opts = { .bus = bus,
                                  .kind = "channel",
                                  .name = c->slot != NULL ? lim__bytes(c->slot->name, c->slot->len) : name,
                                  .first = "everybody", /* as without a function */
                                  .owner = c,
                                  .on_ready = on_ready,
                                  .on_change = on_change };
    lim_err err = c->slot != NULL ? lim__slot_init(&c->s, &opts) : LIM_E_NOMEM;
    if (err == LIM_OK)
        err = lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str("least_loaded"), "least_loaded", 0, &c->last);
    lim__slot_change_init(&c->change, &c->s, &change_ops, c, bus->durable != NULL);
    if (err == LIM_OK && bus->durable != NULL)
        c->again = c->change.dirty = lim__slot_restore(&c->s);
    if (err == LIM_OK && (!c->s.deployed || install_as_it_is(c, NULL) == LIM_OK))
        return c;
    if (c->slot != NULL)
        lim__chan_slot_free(&c->slot->retired);
    control_free(c);
    return NULL;
}

/* Under slots_lock. */
static lim_err make(lim_bus *bus, lim_process *self, lim_bytes name, lim_pid *out)
{
    if (bus->channels->slots.count >= LIM__CHAN_SLOTS_MAX)
        return LIM_E_FULL;
    control *c = control_new(bus, name);
    if (c == NULL)
        return LIM_E_NOMEM;
    lim__chan_slot *slot = c->slot; /* `c` belongs to its process from its first signal on */
    lim_err err = lim__channels_slot_set(bus->channels, name, slot);
    if (err == LIM_OK)
        err = spawn(c, self);
    if (err == LIM_OK) {
        *out = (lim_pid){ LIM__RELAXED(slot->control) };
        return LIM_OK;
    }
    (void)lim__channels_slot_set(bus->channels, name, NULL);
    lim__retire(bus->channels, &slot->retired, lim__chan_slot_free);
    control_free(c);
    return err;
}

lim_err lim__chan_slot_get(lim_bus *bus, lim_process *self, lim_bytes name, lim_pid *out)
{
    lim__channels *all = bus->channels;
    if (!lim__channel_name_ok(name) || ((const char *)name.ptr)[0] == '$')
        return LIM_E_INVALID;
    lim__lock(&all->slots_lock);
    lim__chan_slot *slot = lim__smap_get(&all->slots, name);
    lim_err err = LIM_OK;
    if (slot != NULL)
        *out = (lim_pid){ LIM__RELAXED(slot->control) };
    else
        err = make(bus, self, name, out);
    lim__unlock(&all->slots_lock);
    return err;
}

lim_pid lim__chan_slot_find(lim_bus *bus, lim_bytes name)
{
    lim__lock(&bus->channels->slots_lock);
    const lim__chan_slot *slot = lim__smap_get(&bus->channels->slots, name);
    lim_pid pid = { slot != NULL ? LIM__RELAXED(slot->control) : 0 };
    lim__unlock(&bus->channels->slots_lock);
    return pid;
}

size_t lim__chan_slots_list(lim_bus *bus, lim_pid *out, size_t max)
{
    size_t pos = 0, n = 0;
    lim_bytes key;
    void *value;
    lim__lock(&bus->channels->slots_lock);
    while (lim__smap_next(&bus->channels->slots, &pos, &key, &value)) {
        if (n < max)
            out[n] = (lim_pid){ LIM__RELAXED(((lim__chan_slot *)value)->control) };
        n++;
    }
    lim__unlock(&bus->channels->slots_lock);
    return n;
}
