/* SPDX-License-Identifier: Apache-2.0
 * group_dead.c - dead letters: tasks of this queue that ended without a result, for somebody to look at.
 *
 * The conversation says how it ended (`dead`) before it is gone. The newest dead_max are kept, in the order in which
 * they came; what is forgotten is counted and told (event dead_letter_dropped), because nothing is lost silently. */
#include "bus/group.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdio.h>

static lim_bytes name_of(const group *g)
{
    return lim__bytes(g->name, g->name_len);
}

static lim_bytes dead_type(const lim__dead *d)
{
    return lim__bytes(d->text, d->type_len);
}

static lim_bytes dead_detail(const lim__dead *d)
{
    return lim__bytes(d->text + d->type_len, d->detail_len);
}

static void forget(group *g, dead *d)
{
    lim__list_remove(&d->node);
    g->dead_count--;
    lim__letter_free(lim__sched_current(), d->letter);
    lim__free(lim__sched_current(), d, sizeof *d);
}

void lim__group_dead_drop(group *g, dead *d)
{
    uint8_t id[8];
    lim__key_u64(id, d->letter->conv.id);
    if (d->letter->durable)
        lim__group_sweep(g, LIM__TABLE_DEAD, lim__bytes(id, sizeof id));
    forget(g, d);
}

void lim__group_dead_fini(group *g)
{
    while (!lim__list_empty(&g->dead))
        forget(g, LIM_CONTAINER(g->dead.next, dead, node));
}

static void tell(group *g, const char *kind, const lim__dead *d)
{
    char id[24];
    snprintf(id, sizeof id, "%" PRIx64, d->conv.id);
    LIM__EVENT(g->bus, g->self, kind, { "queue", name_of(g) }, { "task", lim__str(id) },
               { "how", lim__str(lim_how_text(d->how)) }, { "why", lim__str(lim_why_text(d->why)) },
               { "detail", dead_detail(d) });
}

void lim__group_dead_add(group *g, const lim_signal *signal)
{
    dead *d = lim__alloc(lim__proc_sched(g->self), sizeof *d);
    if (d == NULL) {
        g->dead_dropped++;
        tell(g, "dead_letter_dropped", signal->body.ptr);
        return;
    }
    *d = (dead){ .letter = lim__letter_keep(g->self, signal) };
    lim__list_init(&d->node);
    lim__list_push(&g->dead, &d->node);
    g->dead_count++;
    tell(g, "dead_letter", d->letter);
    while (g->dead_count > g->config.dead_max) {
        dead *oldest = LIM_CONTAINER(g->dead.next, dead, node);
        g->dead_dropped++;
        tell(g, "dead_letter_dropped", oldest->letter);
        lim__group_dead_drop(g, oldest);
    }
}

dead *lim__group_dead_find(group *g, uint64_t conv)
{
    LIM__LIST_EACH(node, &g->dead) {
        dead *d = LIM_CONTAINER(node, dead, node);
        if (d->letter->conv.id == conv)
            return d;
    }
    return NULL;
}

/* A new task with the same words. Its deadline was over or is of no use; its idempotency key must not answer for it. */
lim_err lim__group_dead_replay(group *g, dead *d, lim_pid *out)
{
    lim__open *open = lim__open_new(lim__proc_sched(g->self), LIM__KIND_TASK, name_of(g), dead_type(d->letter),
                                    lim__msg_ref(d->letter->payload));
    if (open == NULL)
        return LIM_E_NOMEM;
    open->owner = lim_self(g->self);
    open->opened_ns = lim_now_ns(g->self);
    open->terms = lim__terms_ref(d->letter->terms);
    if (open->terms != NULL)
        lim__group_forget_once(g, open->terms->idempotency_key);
    lim_err err = lim__conv_spawn(g->bus, g->self, open, out);
    if (err == LIM_OK)
        d->replayed = *out;
    return err;
}

/* A dead letter was dispatched again: it is there until the new task is. */
void lim__group_dead_admitted(group *g, const lim_signal *signal)
{
    const lim__admitted *a = signal->body.ptr;
    LIM__LIST_EACH(node, &g->dead) {
        dead *d = LIM_CONTAINER(node, dead, node);
        if (d->replayed.id != signal->from.id)
            continue;
        d->replayed = (lim_pid){ 0 };
        dead *gone = a->admission.verdict != LIM_REJECT ? d : lim__group_dead_find(g, signal->from.id);
        if (gone != NULL) /* one that is refused leaves the letter that there was, and not another one */
            lim__group_dead_drop(g, gone);
        return;
    }
}

/* ---- again, after a restart ---- */

lim_err lim__group_dead_restore(group *g, uint64_t id, lim_bytes row)
{
    lim__sched *s = lim__proc_sched(g->self);
    lim__unpack u = lim__unpack_begin(row);
    lim__dead head = { .conv = { id }, .durable = true };
    uint8_t format = lim__unpack_u8(&u);
    head.how = (lim_how)lim__unpack_u8(&u);
    head.why = (lim_why)lim__unpack_u8(&u);
    head.reason = (lim_reason)lim__unpack_u32(&u);
    head.attempts = lim__unpack_u32(&u);
    head.losses = lim__unpack_u32(&u);
    head.at_wall_us = lim__unpack_u64(&u);
    lim_bytes type = lim__unpack_bytes(&u), detail = lim__unpack_bytes(&u), terms = lim__unpack_bytes(&u);
    lim_bytes headers = lim__unpack_bytes(&u), payload = lim__unpack_bytes(&u);
    if (format != 1 || !lim__unpack_end(&u) || type.len > 255 || detail.len > UINT16_MAX)
        return LIM_E_INVALID;
    lim_err err = lim__terms_parse(terms, NULL, &head.terms);
    head.payload = err == LIM_OK ? lim__msg_new_with(payload, headers) : NULL;
    lim__dead *letter =
        head.payload != NULL ? lim__letter_new(s, &lim__type_dead, sizeof *letter + type.len + detail.len) : NULL;
    dead *d = letter != NULL ? lim__alloc(s, sizeof *d) : NULL;
    if (d == NULL) {
        lim__terms_unref(head.terms);
        lim__msg_unref(head.payload);
        if (letter != NULL)
            lim__letter_recycle(s, letter);
        return err != LIM_OK ? err : LIM_E_NOMEM;
    }
    head.type_len = (uint8_t)type.len;
    head.detail_len = (uint16_t)detail.len;
    *letter = head;
    if (type.len > 0)
        memcpy(letter->text, type.ptr, type.len);
    if (detail.len > 0)
        memcpy(letter->text + type.len, detail.ptr, detail.len);
    *d = (dead){ .letter = letter };
    lim__list_init(&d->node);
    lim__list_push(&g->dead, &d->node);
    g->dead_count++;
    return LIM_OK;
}

void lim__dead_json(const dead *d, const char *queue, bool full, lim__json *j)
{
    const lim__dead *l = d->letter;
    lim_bytes payload = lim__msg_bytes(l->payload);
    lim__json_open(j, NULL, '{');
    lim__json_str(j, "queue", queue);
    lim__json_id(j, "id", l->conv.id);
    lim__json_bytes(j, "type", dead_type(l));
    lim__json_str(j, "how", lim_how_text(l->how));
    lim__json_str(j, "why", lim_why_text(l->why));
    lim__json_str(j, "reason", l->how == LIM_HOW_CRASHED ? lim_reason_text(l->reason) : "");
    lim__json_bytes(j, "detail", dead_detail(l));
    lim__json_u64(j, "attempts", l->attempts);
    lim__json_u64(j, "losses", l->losses);
    lim__json_u64(j, "at_wall_us", d->letter->at_wall_us);
    lim__json_u64(j, "bytes", payload.len);
    if (full && lim__text_ok(payload))
        lim__json_bytes(j, "payload", payload);
    else if (full)
        lim__json_str(j, "payload", NULL);
    lim__json_close(j);
}
