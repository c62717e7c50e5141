/* SPDX-License-Identifier: Apache-2.0
 * channel_route.c - the publisher's side of a channel's slot: its seat, the candidates, and who is chosen.
 *
 * Candidates are kept by place in the channel's table and brought up to date before each call: a subscription that has
 * the place of another one has another id, and numbers that changed get a new stamp, as engines want it. */
#include "base/base.h"
#include "bus/channel_slot.h"
#include <stdio.h>
#include <stdlib.h>

const lim__letter_type lim__type_chan_said = { "chan_said", NULL };

/* ---- rules ---- */

static lim__chan_code code_of(const lim__version *v, lim__artifact *last)
{
    lim__chan_code c = { .artifact = v != NULL ? v->artifact : last };
    if (v != NULL)
        c.limits = v->terms.limits;
    if (c.artifact != NULL)
        lim__artifact_ref(c.artifact);
    return c;
}

lim__chan_rule *lim__chan_rule_new(uint32_t seats, uint64_t generation, const lim__version *live,
                                   const lim__version *other, lim__artifact *last)
{
    size_t bytes = sizeof(lim__chan_rule) + seats * sizeof(struct lim__chan_tally);
    lim__chan_rule *r = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (r == NULL)
        return NULL;
    memset(r, 0, bytes);
    r->generation = generation;
    r->live = code_of(live, NULL);
    r->other = code_of(other, last);
    return r;
}

void lim__chan_rule_free(lim__retired *retired)
{
    lim__chan_rule *r = LIM_CONTAINER(retired, lim__chan_rule, retired);
    lim__artifact_unref(r->live.artifact);
    lim__artifact_unref(r->other.artifact);
    free(r);
}

void lim__chan_tally_sum(const lim__chan_rule *rule, uint32_t seats, lim__router_stats *out)
{
    *out = (lim__router_stats){ 0 };
    for (uint32_t i = 0; i < seats; i++) {
        const struct lim__chan_tally *t = &rule->tallies[i];
        out->calls += LIM__RELAXED(t->calls);
        out->decided += LIM__RELAXED(t->decided);
        out->none += LIM__RELAXED(t->none);
        out->crashed += LIM__RELAXED(t->crashed);
        out->timed_out += LIM__RELAXED(t->timed_out);
        out->not_started += LIM__RELAXED(t->not_started);
    }
}

static void tally(struct lim__chan_tally *t, lim__route_how how)
{
    _Atomic uint64_t *const by_how[] = { NULL, &t->decided, &t->none, &t->crashed, &t->timed_out, &t->not_started };
    LIM__ADD_OWN(t->calls, 1);
    LIM__ADD_OWN(*by_how[how], 1);
}

/* ---- what a seat tells its control ---- */

static void say(lim__chan_slot *slot, uint64_t generation, lim__route_how how, int line, const char *text, size_t len)
{
    if (atomic_fetch_add(&slot->said, 1) >= LIM__CHAN_SAID_MAX) { /* it has enough to look at */
        atomic_fetch_sub(&slot->said, 1);
        return;
    }
    lim__chan_said *s = lim__letter_new(lim__sched_here(slot->all), &lim__type_chan_said, sizeof *s + len);
    if (s == NULL) {
        atomic_fetch_sub(&slot->said, 1);
        return;
    }
    *s = (lim__chan_said){ .generation = generation, .how = how, .line = line, .len = (uint32_t)len };
    memcpy(s->text, text, len);
    if (lim__post_reserved(slot->all->rt, slot->control, s) != LIM_OK)
        atomic_fetch_sub(&slot->said, 1);
}

static void on_log(void *ctx, const char *line, size_t len)
{
    const lim__chan_seat *seat = ctx;
    say(seat->slot, seat->generation, 0, 0, line, len);
}

/* ---- seats ---- */

static void seat_close(lim__chan_seat *seat)
{
    lim__router_unref(seat->live);
    lim__router_unref(seat->other);
    seat->live = seat->other = NULL;
}

static lim__router *compile(lim__chan_seat *seat, const lim__chan_code *code)
{
    lim_bus *bus = seat->slot->bus;
    lim_diag diag = { 0 };
    lim__router *r = NULL;
    if (code->artifact == NULL)
        return NULL;
    const lim__router_opts opts = { .os = bus->os,
                                    .artifact = code->artifact,
                                    .counter = &seat->counter,
                                    .seed = bus->os->random(bus->os),
                                    .instruction_ns = lim__bus_instruction_ns(bus),
                                    .limits = code->limits,
                                    .on_log = on_log,
                                    .host = lim__slot_host(bus, code->artifact),
                                    .ctx = seat };
    lim_err err = lim__router_open(&opts, &diag, &r);
    if (err != LIM_OK)
        snprintf(seat->why, sizeof seat->why, "it could not be compiled here: %s",
                 diag.text[0] != '\0' ? diag.text : lim_err_text(err));
    return err == LIM_OK ? r : NULL;
}

static void seat_take(lim__chan_seat *seat, const lim__chan_rule *rule)
{
    seat_close(seat);
    seat->generation = rule->generation;
    seat->why[0] = '\0';
    seat->live = compile(seat, &rule->live);
}

/* ---- candidates ---- */

static bool seat_grow(lim__chan_seat *seat, uint32_t count)
{
    if (count <= seat->cap)
        return true;
    uint32_t cap = count + count / 2 + 8;
    lim__chan_view *views = calloc(cap, sizeof *views); /* names point into it: all are made again */
    const lim__candidate **list = calloc(cap, sizeof *list);
    uint32_t *places = calloc(cap, sizeof *places);
    if (views == NULL || list == NULL || places == NULL) {
        free(views);
        free(list);
        free(places);
        return false;
    }
    free(seat->views);
    free(seat->list);
    free(seat->places);
    seat->views = views;
    seat->list = list;
    seat->places = places;
    seat->cap = cap;
    return true;
}

/* A program's own subscriptions are all called "local": these go by their number, as `channel show` has it. */
static lim_bytes name_of(lim__chan_view *v, const lim__sub *sub)
{
    lim_bytes owner = lim__name_bytes(sub->owner_name);
    if (owner.len > 0 && !lim__bytes_eq(owner, lim__str("local")))
        return owner;
    int len = snprintf(v->text, sizeof v->text, "%llu", (unsigned long long)sub->id);
    return lim__bytes(v->text, (size_t)len);
}

static const lim__candidate *view(lim__chan_seat *seat, uint32_t place, const lim__sub *sub)
{
    lim__chan_view *v = &seat->views[place];
    lim__candidate now = { .id = sub->id,
                           .slot = place,
                           .in_flight = LIM__RELAXED(sub->in_flight),
                           .max_in_flight = sub->window,
                           .buffer_depth = LIM__RELAXED(sub->queued) };
    bool same = v->c.id == now.id;
    if (same && v->c.in_flight == now.in_flight && v->c.buffer_depth == now.buffer_depth)
        return &v->c;
    now.name = same ? v->c.name : name_of(v, sub);
    now.stamp = ++seat->stamp;
    v->c = now;
    return &v->c;
}

/* Those that are open. */
static uint32_t candidates(lim__chan_seat *seat, lim__sub_table *table, uint32_t count)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        const lim__sub *sub = atomic_load_explicit(&table->subs[i], memory_order_relaxed);
        /* acquire: pairs with the stores of `state` under the subscription's lock */
        if (sub == NULL || atomic_load_explicit(&sub->state, memory_order_acquire) != LIM__SUB_OPEN)
            continue;
        seat->list[n] = view(seat, i, sub);
        seat->places[n++] = i;
    }
    return n;
}

/* ---- choosing ---- */

static bool is_fault(lim__route_how how)
{
    return how != LIM__ROUTE_DECIDED && how != LIM__ROUTE_NONE;
}

static lim__route_how ask(lim__chan_seat *seat, lim__router *r, const lim__route_msg *msg, uint32_t n,
                          lim__route_result *result)
{
    if (r == NULL) {
        *result = (lim__route_result){ .how = LIM__ROUTE_NOT_STARTED, .text = seat->why };
        return result->how;
    }
    lim__route_how how = lim__router_call(r, msg, seat->list, n, NULL, result);
    if (how != LIM__ROUTE_PENDING)
        return how;
    lim__router_abandon(r);
    *result = (lim__route_result){ .how = LIM__ROUTE_TIMED_OUT,
                                   .text = "it took longer than a slice, and a publish does not wait" };
    return result->how;
}

static lim__chose choose(lim__chan_seat *seat, uint32_t index, lim__chan_rule *rule, const lim__route_msg *msg,
                         uint32_t n, uint32_t *place)
{
    lim__route_result result = { 0 };
    lim__route_how how = ask(seat, seat->live, msg, n, &result);
    tally(&rule->tallies[index], how);
    if (is_fault(how)) {
        say(seat->slot, rule->generation, how, result.line, result.text, strlen(result.text));
        if (seat->other == NULL)
            seat->other = compile(seat, &rule->other);
        how = seat->other != NULL ? ask(seat, seat->other, msg, n, &result) : how;
    }
    if (is_fault(how))
        return LIM__CHOSE_FAULT;
    if (how == LIM__ROUTE_NONE)
        return LIM__CHOSE_NOBODY;
    *place = seat->places[result.index];
    return LIM__CHOSE_ONE;
}

lim__chose lim__channel_choose(lim__chan_slot *slot, uint32_t index, lim__sub_table *table, uint32_t count,
                               const lim__route_msg *msg, uint32_t *place)
{
    lim__chan_seat *seat = &slot->seats[index];
    /* acquire: pairs with the release of the control's install */
    lim__chan_rule *rule = atomic_load_explicit(&slot->rule, memory_order_acquire);
    if (rule == NULL)
        return LIM__CHOSE_ALL;
    if (seat->busy || count > LIM__CHAN_CANDIDATES_MAX || !seat_grow(seat, count)) {
        tally(&rule->tallies[index], LIM__ROUTE_NOT_STARTED);
        return LIM__CHOSE_FAULT;
    }
    uint32_t n = candidates(seat, table, count);
    if (n == 0)
        return LIM__CHOSE_ALL;
    seat->busy = true;
    if (seat->generation != rule->generation)
        seat_take(seat, rule);
    lim__chose chose = choose(seat, index, rule, msg, n, place);
    seat->busy = false;
    return chose;
}

/* ---- slots ---- */

lim__chan_slot *lim__chan_slot_new(lim_bus *bus, lim_bytes name)
{
    uint32_t seats = bus->channels->sched_count + 1;
    size_t bytes = sizeof(lim__chan_slot) + seats * sizeof(lim__chan_seat);
    lim__chan_slot *slot = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (slot == NULL)
        return NULL;
    memset(slot, 0, bytes);
    slot->all = bus->channels;
    slot->bus = bus;
    slot->len = (uint8_t)name.len;
    memcpy(slot->name, name.ptr, name.len);
    for (uint32_t i = 0; i < seats; i++)
        slot->seats[i].slot = slot;
    return slot;
}

/* Nobody publishes through it any more: what its seats compiled is closed here, whichever thread this is. */
void lim__chan_slot_free(lim__retired *retired)
{
    lim__chan_slot *slot = LIM_CONTAINER(retired, lim__chan_slot, retired);
    lim__chan_rule *rule = LIM__RELAXED(slot->rule);
    for (uint32_t i = 0; i <= slot->all->sched_count; i++) {
        lim__chan_seat *seat = &slot->seats[i];
        seat_close(seat);
        free(seat->views);
        free(seat->list);
        free(seat->places);
    }
    if (rule != NULL)
        lim__chan_rule_free(&rule->retired);
    free(slot);
}
