/* SPDX-License-Identifier: Apache-2.0
 * exchange_show.c - an exchange as people see it. */
#include "base/base.h"
#include "bus/exchange_inside.h"
#include "data/outcome.h"

lim_phase lim__ex_phase(const exchange *x)
{
    switch ((lim__ex_state)x->state) {
    case LIM__EX_PLACING:
        return LIM_PHASE_CREATED;
    case LIM__EX_OFFERED:
    case LIM__EX_HELD:
    case LIM__EX_MUTE:
    case LIM__EX_FOLLOWING:
        return LIM_PHASE_ACTIVE;
    case LIM__EX_DRAINING:
        return LIM_PHASE_COMPLETING;
    case LIM__EX_ENDED:
        return LIM_PHASE_ENDED;
    }
    return LIM_PHASE_NONE;
}

static uint64_t left_ms(const exchange *x, uint64_t now_ns)
{
    return x->open->deadline_ns > now_ns ? (x->open->deadline_ns - now_ns) / 1000000 : 0;
}

void lim__ex_inspect(exchange *x, lim_process *self, const lim_signal *signal)
{
    const lim__command *c = signal->body.ptr;
    lim__done *d = lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = (lim__done){ .ref = c->ref, .conv = lim__ex_id(x, self), .err = LIM_OK };
    d->info =
        (lim_conv_info){ .phase = lim__ex_phase(x),
                         .alive = x->current != NULL,
                         .dead = x->losses,
                         .pending = 1,
                         .received = x->extra != NULL ? x->extra->parts : 0,
                         .remaining_ms =
                             x->open->deadline_ns == UINT64_MAX ? LIM_FOREVER : (int64_t)left_ms(x, lim_now_ns(self)) };
    (void)!lim__send_reserved(self, c->from, d);
}

/* When each of them was lost, and when another one had it. */
static void past_json(const exchange *x, lim__json *j)
{
    const trouble *t = troubled(x);
    lim_excluded past[LIM__EX_OLD_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; t != NULL && i < t->old_count; i++)
        if (t->old[i].lost)
            past[n++] = lim__ex_excluded(&t->old[i]);
    if (n > 0)
        lim__outcome_past_json(j, past, n);
}

static void old_json(const exchange *x, lim__json *j)
{
    const trouble *t = troubled(x);
    lim__json_open(j, "excluded", '[');
    for (uint32_t i = 0; t != NULL && i < t->old_count; i++)
        if (t->old[i].lost)
            lim__json_bytes(j, NULL, identity_of(t->old[i].was));
    lim__json_close(j);
    past_json(x, j);
    if (lim__ex_stuck(x) == 0)
        return;
    lim__json_open(j, "stuck", '[');
    for (uint32_t i = 0; i < t->old_count; i++)
        if (t->old[i].is == OLD_STUCK)
            lim__json_bytes(j, NULL, identity_of(t->old[i].was));
    lim__json_close(j);
}

static void extra_json(const exchange *x, lim__json *j)
{
    const extra *e = x->extra;
    if (e == NULL)
        return;
    if (e->parts + e->granted > 0) {
        lim__json_u64(j, "parts", e->parts);
        lim__json_u64(j, "granted", e->granted);
    }
    if (e->note != NULL)
        lim__json_bytes(j, "progress", lim__bytes(e->note->note, e->note->note_len));
    if (e->follows.id != 0)
        lim__json_id(j, "follows", e->follows.id);
}

static void exchange_json(const void *state, lim__json *j, const char *key)
{
    const exchange *x = state;
    uint64_t now_ns = x->bus->os->now_ns(x->bus->os);
    if (x->open == NULL)
        return; /* born, not yet told what for */
    lim__json_open(j, key, '{');
    lim__json_id(j, "id", x->keeping ? x->extra->keep->id.id : lim__state_pid(x).id);
    lim__json_str(j, "kind", lim__conv_kind_text(x->open->kind));
    lim__json_str(j, "phase", lim_phase_text(lim__ex_phase(x)));
    lim__json_bytes(j, "group", group_name(x->open));
    lim__json_bytes(j, "type", type_name(x->open));
    lim__json_bytes(j, "participant", identity_of(x->current));
    lim__json_u64(j, "bytes", x->payload_len);
    lim__json_u64(j, "age_ms", (now_ns - x->open->opened_ns) / 1000000);
    if (x->open->deadline_ns != UINT64_MAX)
        lim__json_u64(j, "remaining_ms", left_ms(x, now_ns));
    lim__json_bool(j, "acknowledged", x->taken);
    lim__json_bool(j, "durable", x->durable);
    if (x->durable) {
        lim__json_str(j, "class", lim_class_text((lim_class)lim__durable_class(x->bus)));
        lim__json_bool(j, "suspended", x->current != NULL && x->current->participant.id == 0);
    }
    lim__json_u64(j, "attempts", x->attempts);
    lim__json_u64(j, "losses", x->losses);
    old_json(x, j);
    extra_json(x, j);
    lim__json_close(j);
}

static lim__conv_facts exchange_facts(const void *state)
{
    const exchange *x = state;
    return (lim__conv_facts){ x->open, x->open != NULL ? lim__ex_phase(x) : LIM_PHASE_NONE };
}

const lim__conv_kindred lim__as_exchange = { exchange_json, exchange_facts };
