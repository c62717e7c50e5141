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

/* ---- what a seat tells its control ---- */

/* Room for `len` bytes of text in a letter; NULL: none, or it has enough to look at. */
static lim__chan_said *say_begin(lim__chan_slot *slot, uint64_t generation, lim__chan_role role, size_t len)
{
    lim__chan_said *s = NULL;
    if (atomic_fetch_add(&slot->said, 1) < LIM__CHAN_SAID_MAX)
        s = lim__letter_new(lim__sched_here(slot->all), &lim__type_chan_said, sizeof *s + len);
    if (s == NULL)
        atomic_fetch_sub(&slot->said, 1);
    else
        *s = (lim__chan_said){ .generation = generation, .role = role, .len = (uint32_t)len };
    return s;
}

static void say_end(lim__chan_slot *slot, lim__chan_said *s)
{
    lim_pid control = { atomic_load_explicit(&slot->control, memory_order_relaxed) };
    if (lim__post_reserved(slot->all->rt, control, s) != LIM_OK)
        atomic_fetch_sub(&slot->said, 1);
}

static void say_fault(lim__chan_seat *seat, lim__chan_role role, const lim__route_result *r)
{
    size_t len = strlen(r->text);
    lim__chan_said *s = say_begin(seat->slot, seat->generation, role, len);
    if (s == NULL)
        return;
    s->how = r->how;
    s->line = r->line;
    memcpy(s->text, r->text, len);
    say_end(seat->slot, s);
}

void lim__chan_on_log(void *ctx, const char *line, size_t len)
{
    const struct lim__chan_voice *voice = ctx;
    if (voice == NULL)
        return; /* while it is compiled */
    lim__chan_said *s = say_begin(voice->seat->slot, voice->seat->generation, voice->role, len);
    if (s == NULL)
        return;
    memcpy(s->text, line, len);
    say_end(voice->seat->slot, s);
}

/* ---- seats ---- */

static void seat_close(lim__chan_seat *seat)
{
    for (int role = 0; role < LIM__CHAN_ROLES; role++) {
        lim__router_unref(seat->routers[role]);
        seat->routers[role] = NULL;
    }
}

static void seat_take(lim__chan_seat *seat, uint32_t index, lim__chan_rule *rule)
{
    seat_close(seat);
    seat->generation = rule->generation;
    for (int role = 0; role < LIM__CHAN_ROLES; role++) {
        lim__router *r = rule->made[index].routers[role];
        rule->made[index].routers[role] = NULL;
        seat->routers[role] = r;
        seat->voices[role] = (struct lim__chan_voice){ seat, (lim__chan_role)role };
        if (r != NULL)
            lim__router_adopt(r, &seat->voices[role],
                              role == LIM__CHAN_TRIAL && rule->shadow ? &seat->shadow_counter : &seat->counter);
    }
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

static void tally(lim__chan_counts *t, lim__route_how how)
{
    _Atomic uint64_t *const by_how[] = { NULL, &t->decided, &t->none, &t->crashed, &t->timed_out, &t->not_started };
    LIM__ADD_OWN(t->calls, 1);
    LIM__ADD_OWN(*by_how[how], 1);
}

/* `text` lives as long as *result is looked at. */
static lim__route_how ask(lim__chan_seat *seat, lim__router *r, const lim__route_msg *msg, uint32_t n,
                          lim__route_result *result)
{
    lim__route_how how = lim__router_call(r, msg, seat->list, n, NULL, result);
    if (how != LIM__ROUTE_PENDING)
        return how;
    lim__router_abandon(r);
    *result = (lim__route_result){ .how = LIM__ROUTE_TIMED_OUT,
                                   .text = "it took longer than a slice, and a publish does not wait" };
    return result->how;
}

static lim__route_how ask_role(lim__chan_seat *seat, lim__chan_rule *rule, uint32_t index, lim__chan_role role,
                               const lim__route_msg *msg, uint32_t n, lim__route_result *result)
{
    lim__route_how how = ask(seat, seat->routers[role], msg, n, result);
    tally(&rule->tallies[index].of[role], how);
    if (is_fault(how))
        say_fault(seat, role, result);
    return how;
}

/* Places in the table, at *choice. False: no memory. */
static bool choose_places(const lim__chan_seat *seat, const lim__route_result *r, lim__chan_choice *choice)
{
    uint32_t count = r->set != NULL ? r->set_count : 1;
    if (count > LIM_COUNT(choice->few) && (choice->places = malloc(count * sizeof *choice->places)) == NULL) {
        choice->places = choice->few;
        return false;
    }
    choice->count = count;
    for (uint32_t i = 0; i < count; i++)
        choice->places[i] = seat->places[r->set != NULL ? r->set[i] : r->index];
    return true;
}

void lim__chan_choice_fini(lim__chan_choice *choice)
{
    if (choice->places != choice->few)
        free(choice->places);
}

/* ---- shadows ---- */

static bool same_choice(const lim__chan_seat *seat, const lim__chan_choice *live, const lim__route_result *shadow)
{
    uint32_t count = shadow->set != NULL ? shadow->set_count : 1;
    if (live->count != count)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (live->places[i] != seat->places[shadow->set != NULL ? shadow->set[i] : shadow->index])
            return false;
    return true;
}

/* "a, b and 3 more", by place. */
static void names_text(const lim__chan_seat *seat, const uint32_t *places, uint32_t count, char *to, size_t size)
{
    uint32_t shown = count < 3 ? count : 3;
    size_t used = 0;
    for (uint32_t i = 0; i < shown && used < size; i++) {
        lim_bytes name = seat->views[places[i]].c.name;
        used += (size_t)snprintf(to + used, size - used, "%s%.*s", i > 0 ? ", " : "",
                                 (int)(name.len < 24 ? name.len : 24), (const char *)name.ptr);
    }
    if (count > shown && used < size)
        snprintf(to + used, size - used, " and %u more", count - shown);
}

static void answer_text(const lim__chan_seat *seat, lim__route_how how, const lim__chan_choice *choice,
                        const char *fault, char *to, size_t size)
{
    if (how == LIM__ROUTE_DECIDED)
        names_text(seat, choice->places, choice->count, to, size);
    else if (how == LIM__ROUTE_NONE)
        snprintf(to, size, "none");
    else
        snprintf(to, size, "%s: %.60s", lim__route_how_text(how), fault);
}

static void say_difference(lim__chan_seat *seat, const char *live, const char *shadow, lim_bytes about)
{
    size_t live_len = strlen(live) + 1, shadow_len = strlen(shadow) + 1, len = about.len < 150 ? about.len : 150;
    lim__chan_said *s = say_begin(seat->slot, seat->generation, LIM__CHAN_TRIAL, live_len + shadow_len + len);
    if (s == NULL)
        return;
    s->shadow = (uint32_t)live_len;
    s->about = (uint32_t)(live_len + shadow_len);
    memcpy(s->text, live, live_len);
    memcpy(s->text + s->shadow, shadow, shadow_len);
    if (len > 0)
        memcpy(s->text + s->about, about.ptr, len);
    say_end(seat->slot, s);
}

/* The live version has said `how`; `fault` is its text. */
static void ask_shadow(lim__chan_seat *seat, lim__chan_rule *rule, uint32_t index, const lim__route_msg *msg,
                       uint32_t n, lim__route_how how, const lim__chan_choice *choice, const char *fault)
{
    struct lim__chan_tally *t = &rule->tallies[index];
    lim__route_result r = { 0 };
    lim__route_how other = ask(seat, seat->routers[LIM__CHAN_TRIAL], msg, n, &r);
    tally(&t->of[LIM__CHAN_TRIAL], other);
    LIM__ADD_OWN(t->live_faults, is_fault(how));
    LIM__ADD_OWN(t->shadow_faults, is_fault(other));
    if (is_fault(how) && is_fault(other))
        return;
    if (how == other && (how == LIM__ROUTE_NONE || same_choice(seat, choice, &r))) {
        LIM__ADD_OWN(t->agreed, 1);
        return;
    }
    LIM__ADD_OWN(t->differed, !is_fault(how) && !is_fault(other));
    char live_text[100] = "", shadow_text[100] = "";
    lim__chan_choice shadow = { .places = shadow.few };
    if (other == LIM__ROUTE_DECIDED && !choose_places(seat, &r, &shadow))
        return;
    answer_text(seat, how, choice, fault, live_text, sizeof live_text);
    answer_text(seat, other, &shadow, r.text, shadow_text, sizeof shadow_text);
    say_difference(seat, live_text, shadow_text, msg->payload);
    lim__chan_choice_fini(&shadow);
}

/* ---- a message ---- */

static lim__chan_role role_of(lim__chan_seat *seat, const lim__chan_rule *rule, const lim__route_msg *msg)
{
    if (seat->routers[LIM__CHAN_TRIAL] == NULL || rule->shadow)
        return LIM__CHAN_LIVE;
    return lim__ramp_takes(&rule->ramp, &seat->reader, msg, ++seat->number) ? LIM__CHAN_TRIAL : LIM__CHAN_LIVE;
}

/* After a fault of that one, as its on_fault says. */
static lim__route_how ask_other(lim__chan_seat *seat, lim__chan_rule *rule, uint32_t index, lim__chan_role role,
                                const lim__route_msg *msg, uint32_t n, lim__route_result *result)
{
    lim_on_fault policy = rule->on_fault[role];
    if (policy == LIM_ON_FAULT_PREVIOUS && role == LIM__CHAN_TRIAL)
        return ask_role(seat, rule, index, LIM__CHAN_LIVE, msg, n, result);
    lim__router *r = policy == LIM_ON_FAULT_PREVIOUS       ? seat->routers[LIM__CHAN_BEFORE]
                     : policy == LIM_ON_FAULT_LEAST_LOADED ? seat->routers[LIM__CHAN_LAST]
                                                           : NULL;
    return r != NULL ? ask(seat, r, msg, n, result) : result->how;
}

static lim__chose choose(lim__chan_seat *seat, uint32_t index, lim__chan_rule *rule, const lim__route_msg *msg,
                         uint32_t n, lim__chan_choice *choice)
{
    lim__route_result result = { 0 };
    lim__chan_role role = role_of(seat, rule, msg);
    lim__route_how how = ask_role(seat, rule, index, role, msg, n, &result);
    if (how == LIM__ROUTE_DECIDED && !choose_places(seat, &result, choice))
        return LIM__CHOSE_FAULT;
    if (seat->routers[LIM__CHAN_TRIAL] != NULL && rule->shadow)
        ask_shadow(seat, rule, index, msg, n, how, choice, result.text);
    if (is_fault(how)) {
        how = ask_other(seat, rule, index, role, msg, n, &result);
        if (how == LIM__ROUTE_DECIDED && !choose_places(seat, &result, choice))
            return LIM__CHOSE_FAULT;
    }
    if (is_fault(how))
        return LIM__CHOSE_FAULT;
    return how == LIM__ROUTE_NONE ? LIM__CHOSE_NOBODY : LIM__CHOSE_SOME;
}

lim__chose lim__channel_choose(lim__chan_slot *slot, uint32_t index, lim__sub_table *table, uint32_t count,
                               const lim__route_msg *msg, lim__chan_choice *choice)
{
    lim__chan_seat *seat = &slot->seats[index];
    /* acquire: pairs with the release of the control's install */
    lim__chan_rule *rule = atomic_load_explicit(&slot->rule, memory_order_acquire);
    if (rule == NULL)
        return LIM__CHOSE_ALL;
    if (seat->busy || count > LIM__CHAN_CANDIDATES_MAX || !seat_grow(seat, count)) {
        tally(&rule->tallies[index].of[LIM__CHAN_LIVE], LIM__ROUTE_NOT_STARTED);
        return LIM__CHOSE_FAULT;
    }
    uint32_t n = candidates(seat, table, count);
    if (n == 0)
        return LIM__CHOSE_ALL;
    seat->busy = true;
    if (seat->generation != rule->generation)
        seat_take(seat, index, rule);
    lim__chose chose = choose(seat, index, rule, msg, n, choice);
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
        lim__ramp_reader_fini(&seat->reader);
        free(seat->views);
        free(seat->list);
        free(seat->places);
    }
    if (rule != NULL)
        lim__chan_rule_free(&rule->retired);
    free(slot);
}
