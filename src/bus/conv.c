/* SPDX-License-Identifier: Apache-2.0
 * conv.c - what all conversations share: phases, lists, spawning. */
#include "bus/conv.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

bool lim__phase_step(lim_phase *phase, lim__phase_event event)
{
    lim_phase next = LIM_PHASE_NONE;
    switch (*phase) {
    case LIM_PHASE_CREATED:
    case LIM_PHASE_ACTIVE:
        next = event == LIM__PHASE_USE     ? LIM_PHASE_ACTIVE
               : event == LIM__PHASE_CLOSE ? LIM_PHASE_COMPLETING
               : event == LIM__PHASE_TOLD  ? LIM_PHASE_NONE
                                           : LIM_PHASE_BROKEN;
        break;
    case LIM_PHASE_COMPLETING:
        next = event == LIM__PHASE_TOLD                                          ? LIM_PHASE_ENDED
               : event == LIM__PHASE_DEADLINE || event == LIM__PHASE_NOBODY_LEFT ? LIM_PHASE_BROKEN
                                                                                 : LIM_PHASE_NONE;
        break;
    case LIM_PHASE_BROKEN: /* a broken one may still be closed, which lets go of it; it stays broken */
        next = event == LIM__PHASE_CLOSE || event == LIM__PHASE_TOLD ? LIM_PHASE_BROKEN : LIM_PHASE_NONE;
        break;
    case LIM_PHASE_ENDED:
    case LIM_PHASE_NONE:
        break;
    }
    if (next == LIM_PHASE_NONE)
        return false;
    *phase = next;
    return true;
}

static void count(lim_bus *bus, lim__sched *s, int by) /* one writer: no need for a locked instruction */
{
    _Atomic uint64_t *n = &bus->conv_count[lim__sched_index(s)];
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + (uint64_t)(int64_t)by,
                          memory_order_release);
}

const lim__conv_kindred *lim__conv_as(lim_bus *bus, const lim__conv_node *node)
{
    lim__conv_kind kind = (lim__conv_kind)lim__pid_marked(bus->rt, lim__state_pid(lim__conv_state(node)));
    return kind == LIM__KIND_TALK ? &lim__as_talk : kind == LIM__KIND_GATHER ? &lim__as_gather : &lim__as_exchange;
}

void lim__conv_enter(lim_bus *bus, lim_process *self, lim__conv_node *node)
{
    lim__list_push(&bus->convs[lim__sched_index(lim__proc_sched(self))], &node->node);
}

void lim__conv_leave(lim_bus *bus, lim__conv_node *node)
{
    if (node->node.next != NULL)
        lim__list_remove(&node->node);
    count(bus, lim__sched_current(), -1);
}

void lim__conv_apart(lim_bus *bus, bool apart)
{
    count(bus, lim__sched_current(), apart ? -1 : 1);
}

/* The value of `key` as conversations are found by it; false: it has none. */
static bool fact(const lim__conv_facts *f, lim_bytes key, lim_bytes *value)
{
    const lim__open *o = f->open;
    if (lim__bytes_eq(key, lim__str("kind")))
        *value = lim__str(lim__conv_kind_text(o->kind));
    else if (lim__bytes_eq(key, lim__str("phase")))
        *value = lim__str(lim_phase_text(f->phase));
    else if (lim__bytes_eq(key, lim__str("group")))
        *value = lim__bytes(o->text, o->group_len);
    else if (lim__bytes_eq(key, lim__str("type")))
        *value = lim__bytes(o->text + o->group_len, o->type_len);
    else if (lim__bytes_eq(key, lim__str("name")))
        *value = lim__terms_or_default(o->terms)->name;
    else
        return o->terms != NULL && lim__terms_attribute(o->terms, key, value);
    return true;
}

bool lim__conv_matches(lim_bus *bus, const lim__conv_node *node, lim_bytes where)
{
    if (where.len == 0)
        return true;
    const lim__conv_facts f = lim__conv_as(bus, node)->facts(lim__conv_state(node));
    const char *at = where.ptr, *end = at + where.len;
    while (f.open != NULL && at < end) {
        lim_bytes key = lim__name_get(&at), want = lim__name_get(&at), has;
        if (!fact(&f, key, &has) || !lim__bytes_eq(has, want))
            return false;
    }
    return f.open != NULL;
}

void lim__json_id(lim__json *j, const char *key, uint64_t id)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIx64, id);
    lim__json_str(j, key, text);
}

void lim__shown_send(lim_process *self, const lim__show *show, lim__buf *json)
{
    lim__shown *s = lim__letter_new(lim__proc_sched(self), &lim__type_shown, sizeof *s + lim__buf_len(json));
    if (s != NULL) {
        *s = (lim__shown){ .ref = show->ref, .len = (uint32_t)lim__buf_len(json) };
        if (s->len > 0)
            memcpy(s->json, json->ptr + json->start, s->len);
        (void)!lim__send_reserved(self, show->reply_to, s);
    }
    lim__buf_fini(json);
}

void lim__conv_not_a_talk(lim_process *self, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    bool asks = t == &lim__type_ask || t == &lim__type_tell || t == &lim__type_receive || t == &lim__type_join_conv ||
                t == &lim__type_leave_conv;
    lim__done *d = !asks ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_done, sizeof *d);
    if (d == NULL)
        return;
    *d = (lim__done){ .conv = lim_self(self), .err = LIM_E_INVALID };
    memcpy(&d->ref, signal->body.ptr, sizeof d->ref); /* the first field of each of them */
    (void)!lim__send_reserved(self, signal->from, d);
}

/* ---- waiters ---- */

void lim__waiter_add(lim__waiter **list, lim_process *self, const lim__command *await)
{
    lim__waiter *w = lim__alloc(lim__proc_sched(self), sizeof *w);
    if (w == NULL)
        return;
    *w = (lim__waiter){ *list, await->from, await->ref };
    *list = w;
}

void lim__waiter_remove(lim__waiter **list, lim_process *self, const lim__command *unawait)
{
    for (lim__waiter **at = list; *at != NULL; at = &(*at)->next)
        if ((*at)->ref == unawait->ref && (*at)->who.id == unawait->from.id) {
            lim__waiter *w = *at;
            *at = w->next;
            lim__free(lim__proc_sched(self), w, sizeof *w);
            return;
        }
}

void lim__waiters_free(lim__waiter *list, lim__sched *s)
{
    for (lim__waiter *w = list, *next; w != NULL; w = next) {
        next = w->next;
        lim__free(s, w, sizeof *w);
    }
}

/* ---- spawning ---- */

static lim_spawn_opts spawn_opts(lim_bus *const *bus, lim__conv_kind kind, bool link, const lim__open *open)
{
    return kind == LIM__KIND_TALK     ? lim__talk_spawn(bus, link)
           : kind == LIM__KIND_GATHER ? lim__gather_spawn(bus, link)
                                      : lim__exchange_spawn(bus, link, open);
}

lim_err lim__conv_spawn(lim_bus *bus, lim_process *self, lim__open *open, lim_pid *out)
{
    lim_spawn_opts opts = spawn_opts(&bus, open->kind, open->kind != LIM__KIND_TASK, open);
    lim_pid pid = { 0 };
    count(bus, lim__proc_sched(self), 1);
    lim_err err = lim_spawn(self, &opts, &pid);
    if (err != LIM_OK) {
        count(bus, lim__proc_sched(self), -1);
        lim__letter_free(lim__proc_sched(self), open);
        return err;
    }
    *out = pid;
    lim__pid_mark(bus->rt, pid, (uint8_t)open->kind);
    (void)!lim__send(self, pid, open); /* its mailbox is new: there is room */
    return LIM_OK;
}

lim_err lim__conv_spawn_at(lim_bus *bus, lim__conv_kind kind, lim_pid owner, lim_pid *out)
{
    lim_spawn_opts opts = spawn_opts(&bus, kind, false, NULL);
    opts.place = true;
    opts.scheduler = lim__pid_scheduler(owner);
    atomic_fetch_add(&bus->conv_entering, 1); /* before `closing` is read: a drain that saw nobody has missed nobody */
    lim_err err = LIM_E_CLOSED;
    if (atomic_load(&bus->closing) == 0) {
        atomic_fetch_add(&bus->conv_hosted, 1);
        err = lim_runtime_spawn(bus->rt, &opts, out);
        if (err == LIM_OK)
            lim__pid_mark(bus->rt, *out, (uint8_t)kind);
        else
            atomic_fetch_sub(&bus->conv_hosted, 1);
    }
    atomic_fetch_sub(&bus->conv_entering, 1);
    return err;
}

lim_err lim__conv_spawn_again(lim_bus *bus, lim__conv_kind kind, uint64_t id, lim_pid *out)
{
    lim_spawn_opts opts = spawn_opts(&bus, kind, false, NULL);
    opts.place = true;
    opts.scheduler = lim__pid_scheduler((lim_pid){ id }) % lim__sched_count(bus->rt);
    atomic_fetch_add(&bus->conv_hosted, 1);
    lim_err err = lim_runtime_spawn(bus->rt, &opts, out);
    if (err == LIM_OK)
        lim__pid_mark(bus->rt, *out, (uint8_t)kind);
    else
        atomic_fetch_sub(&bus->conv_hosted, 1);
    return err;
}
