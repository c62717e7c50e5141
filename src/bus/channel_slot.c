/* SPDX-License-Identifier: Apache-2.0
 * channel_slot.c - the control process of a channel's slot: versions, history, breaker, what is stored.
 *
 * It takes the same letters as a group does for its slot. Deciding is not its business: whenever another version is to
 * decide, it makes a rule and installs it; what the seats of the schedulers counted it adds to the version's numbers
 * when somebody looks, and before another one takes over.
 *
 *      get --> restored, installed --> spawned --deploy--> (stored) --> rule --remove--> no longer found --> ends
 *
 * What was stored is installed before anybody can publish: by the thread that opens the bus. */
#include "bus/channel_slot.h"
#include "base/base.h"
#include "bus/durable.h"
#include "bus/letters.h"
#include "bus/conv.h"
#include <stdio.h>
#include <stdlib.h>

enum { LEAVE_NS = 1000000000 }; /* a removed one passes on for so long what was on its way to it */

typedef struct control {
    lim_bus *bus;
    lim_process *self;
    lim__chan_slot *slot;
    lim__slot s;
    lim__artifact *last; /* least_loaded, for on_fault */
    uint64_t generation;
    lim__router_stats counted; /* of the rule that is installed: what is in its version's numbers already */
    lim__slot_plan plan;
    lim__deploy_what planned;
    lim_pid planned_by; /* {0}: nobody waits */
    uint64_t planned_ref, keep_ref;
    bool keeping, has_plan, applying, dirty, gone;
    lim__stash waiting;
} control;

static uint32_t seats(const control *c)
{
    return c->bus->channels->sched_count + 1;
}

/* ---- rules ---- */

/* What was counted since the last time goes to the version that decides now. */
static void count_in(control *c)
{
    lim__router_stats now, *past;
    lim__version *v = c->s.live;
    const lim__chan_rule *rule = LIM__RELAXED(c->slot->rule);
    if (rule == NULL || memcmp(rule->live.artifact->hash, v->artifact->hash, LIM__HASH_SIZE) != 0)
        return;
    if (v->past == NULL)
        v->past = calloc(1, sizeof *v->past);
    if ((past = v->past) == NULL)
        return; /* the next time */
    lim__chan_tally_sum(rule, seats(c), &now);
    past->calls += now.calls - c->counted.calls;
    past->decided += now.decided - c->counted.decided;
    past->none += now.none - c->counted.none;
    past->crashed += now.crashed - c->counted.crashed;
    past->timed_out += now.timed_out - c->counted.timed_out;
    past->not_started += now.not_started - c->counted.not_started;
    c->counted = now;
}

/* NULL: no memory. */
static lim__chan_rule *rule_of(control *c, const lim__version *live, lim_on_fault on_fault, const lim__version *other)
{
    return lim__chan_rule_new(seats(c), ++c->generation, live, on_fault == LIM_ON_FAULT_PREVIOUS ? other : NULL,
                              on_fault == LIM_ON_FAULT_LEAST_LOADED ? c->last : NULL);
}

static void install(control *c, lim__chan_rule *rule)
{
    lim__chan_rule *old = LIM__RELAXED(c->slot->rule);
    c->counted = (lim__router_stats){ 0 };
    /* release: pairs with the acquire in lim__channel_choose */
    atomic_store_explicit(&c->slot->rule, rule, memory_order_release);
    if (old != NULL)
        lim__retire(c->bus->channels, &old->retired, lim__chan_rule_free);
}

/* As the slot is now. False: no memory, and nothing has changed. */
static bool install_live(control *c)
{
    lim__version *live = c->s.live;
    lim_on_fault on_fault = live->terms.on_fault;
    lim__version *other = on_fault == LIM_ON_FAULT_PREVIOUS ? lim__slot_other(&c->s, live) : NULL;
    lim__chan_rule *rule = rule_of(c, live, on_fault, other);
    if (rule != NULL)
        install(c, rule);
    return rule != NULL;
}

/* ---- storing ---- */

static void keep_as_it_is(control *c)
{
    c->dirty = c->keeping;
    if (c->keeping || c->bus->durable == NULL)
        return;
    c->has_plan = false;
    c->keeping = lim__slot_keep(&c->s, NULL, false, c->slot->control, ++c->keep_ref) == LIM_OK;
    if (!c->keeping)
        lim__bus_log(c->bus, "event=slot_not_stored channel=%s", c->slot->name);
}

/* The breaker put another one in its place. */
static void on_change(void *owner)
{
    control *c = owner;
    if (c->applying)
        return;
    if (!install_live(c))
        lim__bus_log(c->bus, "event=slot_not_changed channel=%s why=\"out of memory\"", c->slot->name);
    keep_as_it_is(c);
}

static void on_ready(void *owner)
{
    (void)owner; /* its routers only prove that code compiles: nothing is ever unfinished */
}

/* ---- deploying ---- */

static void answer(control *c, lim_pid to, uint64_t ref, lim_err err, const lim_diag *diag, const lim_hash *previous)
{
    lim__slot_answer(c->self, &c->s, to, &(lim__deployed){ .ref = ref, .err = err, .diag = *diag }, previous);
}

static lim_err plan_deploy(control *c, const lim__deploy *d, lim_diag *diag)
{
    lim__slot_terms terms;
    lim_err err = lim__slot_terms_of(&d->opts, &terms, diag);
    if (err != LIM_OK)
        return err;
    if (terms.trial != LIM_TRIAL_NONE || d->artifact->engine == LIM__ENGINE_NATIVE ||
        lim__slot_host(c->bus, d->artifact).isolated) {
        lim__diag_set(diag, 0, 0,
                      terms.trial != LIM_TRIAL_NONE
                          ? "a channel's slot has no shadows and ramps; deploy it without"
                          : "native and isolated functions answer later, and a publish does not wait: a channel takes "
                            "built-in strategies, Lua and functions of the program that are not isolated");
        return LIM_E_MISUSE;
    }
    return lim__slot_plan_deploy(&c->s, d->artifact, &terms, d->version, diag, &c->plan);
}

static lim_err plan(control *c, const lim__deploy *d, lim_diag *diag)
{
    switch (d->what) {
    case LIM__DEPLOY:
        return plan_deploy(c, d, diag);
    case LIM__DEPLOY_ROLLBACK:
        return lim__slot_plan_rollback(&c->s, d->version, d->by, diag, &c->plan);
    case LIM__DEPLOY_PROMOTE:
    case LIM__DEPLOY_STOP:
        lim__diag_set(diag, 0, 0, "nothing is being tried out here");
        return LIM_E_NOTFOUND;
    case LIM__DEPLOY_REMOVE:
        break;
    }
    return LIM_OK;
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

static void leave(control *c)
{
    uint64_t timer;
    detach(c);
    if (lim_timer_start(c->self, LEAVE_NS, 1, &timer) != LIM_OK)
        lim_exit(c->self, LIM_NORMAL);
}

static lim_err carry_out(control *c, lim__deploy_what what, lim_pid to, uint64_t ref)
{
    lim_diag none = { 0 };
    lim_hash previous = c->plan.previous;
    bool had = c->s.deployed && what != LIM__DEPLOY_REMOVE;
    if (what == LIM__DEPLOY_REMOVE) {
        answer(c, to, ref, LIM_OK, &none, NULL);
        leave(c);
        return LIM_OK;
    }
    count_in(c);
    c->applying = true;
    lim__slot_apply(&c->s, &c->plan);
    c->applying = false;
    if (!install_live(c)) { /* the version is live, and the next change installs it; who asked is told */
        lim__diag_set(&none, 0, 0, "out of memory: publishes still go by the version before");
        answer(c, to, ref, LIM_E_NOMEM, &none, NULL);
        return LIM_E_NOMEM;
    }
    answer(c, to, ref, LIM_OK, &none, had ? &previous : NULL);
    return LIM_OK;
}

static void on_deploy(control *c, const lim_signal *signal)
{
    const lim__deploy *d = signal->body.ptr;
    lim_diag diag = { 0 };
    if (c->keeping) {
        lim_err full = lim__stash_put(&c->waiting, c->self, signal);
        if (full != LIM_OK)
            answer(c, d->reply_to, d->ref, full, &diag, NULL);
        return;
    }
    lim_err err = plan(c, d, &diag);
    if (err == LIM_OK && c->bus->durable != NULL) {
        err = lim__slot_keep(&c->s, c->plan.v != NULL ? &c->plan : NULL, d->what == LIM__DEPLOY_REMOVE,
                             lim_self(c->self), ++c->keep_ref);
        c->keeping = c->has_plan = err == LIM_OK;
        c->planned = d->what;
        c->planned_by = d->reply_to;
        c->planned_ref = d->ref;
    } else if (err == LIM_OK) {
        (void)carry_out(c, d->what, d->reply_to, d->ref);
    }
    if (err != LIM_OK) {
        lim__slot_discard(&c->s, &c->plan);
        answer(c, d->reply_to, d->ref, err, &diag, NULL);
    }
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state);

static void on_stored(control *c, const lim__slot_stored *k, void *state)
{
    lim_diag diag = { 0 };
    bool planned = c->has_plan;
    if (!c->keeping || k->ref != c->keep_ref)
        return;
    c->keeping = c->has_plan = false;
    lim__slot_kept(&c->s, k->err == LIM_OK);
    if (k->err == LIM_OK && planned) {
        (void)carry_out(c, c->planned, c->planned_by, c->planned_ref);
    } else if (planned) {
        lim__slot_discard(&c->s, &c->plan);
        lim__diag_set(&diag, 0, 0, "it was not stored, and nothing has changed: %s",
                      k->err == LIM_E_FULL ? "the store is full" : "the disk failed");
        answer(c, c->planned_by, c->planned_ref, k->err, &diag, NULL);
    } else if (k->err != LIM_OK) {
        lim__bus_log(c->bus, "event=slot_not_stored channel=%s", c->slot->name); /* the next change stores this, too */
    }
    if (c->dirty && !c->gone)
        keep_as_it_is(c);
    while (!c->keeping && lim__stash_replay(&c->waiting, c->self, on_signal, state))
        continue;
}

/* ---- what seats and people say ---- */

static void on_said(control *c, const lim__chan_said *said)
{
    const lim__chan_rule *rule = LIM__RELAXED(c->slot->rule);
    atomic_fetch_sub(&c->slot->said, 1);
    if (rule == NULL || said->generation != rule->generation)
        return; /* of one that decides no longer */
    if (said->how == 0) {
        lim__slot_log(c->s.live, said->text, said->len);
        return;
    }
    char text[LIM__ROUTE_LINE_MAX];
    snprintf(text, sizeof text, "%.*s", (int)(said->len < sizeof text ? said->len : sizeof text - 1), said->text);
    const lim__route_result r = { .how = said->how, .line = said->line, .text = text };
    count_in(c);
    c->s.busy++;
    lim__slot_fault(&c->s, c->s.live, &r);
    c->s.busy--;
    lim__slot_tidy(&c->s);
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

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    control *c = *(control **)state;
    c->self = self;
    c->s.self = self;
    if (c->dirty && !c->keeping && !c->gone)
        keep_as_it_is(c); /* what was restored is not as its row says */
    if (signal->kind == LIM_SIGNAL_TIMER)
        lim_exit(self, LIM_NORMAL);
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type == NULL)
        return;
    if (signal->type == &lim__type_chan_said)
        on_said(c, signal->body.ptr);
    else if (c->gone)
        pass_on(c, signal);
    else if (signal->type == &lim__type_deploy)
        on_deploy(c, signal);
    else if (signal->type == &lim__type_slot_stored)
        on_stored(c, signal->body.ptr, state);
    else if (signal->type == &lim__type_show)
        on_show(c, signal->body.ptr);
}

/* ---- beginning and end ---- */

static void control_free(control *c)
{
    lim__slot_discard(&c->s, &c->plan);
    lim__stash_fini(&c->waiting, NULL);
    lim__slot_fini(&c->s);
    lim__artifact_unref(c->last);
    free(c);
}

static void on_end(void *state, lim_reason reason)
{
    control *c = *(control **)state;
    (void)reason;
    detach(c);
    lim__retire(c->bus->channels, &c->slot->retired, lim__chan_slot_free);
    control_free(c);
}

static control *control_new(lim_bus *bus, lim_bytes name)
{
    control *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->bus = bus;
    lim__stash_init(&c->waiting);
    c->slot = lim__chan_slot_new(bus, name);
    const lim__slot_opts opts = { .bus = bus,
                                  .kind = "channel",
                                  .name = c->slot != NULL ? lim__bytes(c->slot->name, c->slot->len) : name,
                                  .owner = c,
                                  .on_ready = on_ready,
                                  .on_change = on_change };
    lim_err err = c->slot != NULL ? lim__slot_init(&c->s, &opts) : LIM_E_NOMEM;
    if (err == LIM_OK)
        err = lim__artifact_new(LIM__ENGINE_BUILTIN, lim__str("least_loaded"), "least_loaded", 0, &c->last);
    if (err == LIM_OK && bus->durable != NULL)
        c->dirty = lim__slot_restore(&c->s);
    if (err == LIM_OK && (!c->s.deployed || install_live(c)))
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
    const lim_spawn_opts opts = { .size = sizeof opts,
                                  .name = "channel-slot",
                                  .on_signal = on_signal,
                                  .on_end = on_end,
                                  .state_bytes = sizeof c,
                                  .init = &c,
                                  .init_bytes = sizeof c,
                                  .trap_exit = true };
    lim__chan_slot *slot = c->slot; /* `c` belongs to its process from its first signal on */
    lim_err err = lim__channels_slot_set(bus->channels, name, slot);
    if (err == LIM_OK)
        err = self != NULL ? lim_spawn(self, &opts, &slot->control) : lim_runtime_spawn(bus->rt, &opts, &slot->control);
    if (err == LIM_OK) {
        *out = slot->control;
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
        *out = slot->control;
    else
        err = make(bus, self, name, out);
    lim__unlock(&all->slots_lock);
    return err;
}

lim_pid lim__chan_slot_find(lim_bus *bus, lim_bytes name)
{
    lim__lock(&bus->channels->slots_lock);
    const lim__chan_slot *slot = lim__smap_get(&bus->channels->slots, name);
    lim_pid pid = slot != NULL ? slot->control : (lim_pid){ 0 };
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
            out[n] = ((lim__chan_slot *)value)->control;
        n++;
    }
    lim__unlock(&bus->channels->slots_lock);
    return n;
}
