/* SPDX-License-Identifier: Apache-2.0
 * talk_undo.c - crash policy `compensate`: a talk that failed by a death leaves a task behind that says what had
 * happened in it, for whoever can undo it: what was sent and acknowledged, one by one, from the history that such a
 * talk always keeps, and in numbers. */
#include "bus/compensate.h"
#include "bus/talk.h"
#include "base/base.h"

static void death_json(talk *t, lim__json *j)
{
    char text[24];
    const past *last = lim__talk_past(t, (lim_pid){ 0 });
    if (last == NULL)
        return;
    lim__json_bytes(j, "participant", lim__talk_name(t, last->pid, text));
    lim__json_str(j, "reason", lim_reason_text(last->reason));
    lim__json_u64(j, "crashed_us", last->wall_us);
}

static void story_json(talk *t, lim__json *j)
{
    uint64_t pending = 0;
    LIM__LIST_EACH(n, &t->calls)
        pending += LIM_CONTAINER(n, call, node)->lease != 0;
    bool traced = t->rare != NULL && t->rare->history != NULL;
    lim__json_open(j, NULL, '{');
    lim__json_id(j, "conversation", lim__talk_id(t));
    lim__json_str(j, "kind", lim__conv_kind_text(LIM__KIND_TALK));
    lim__json_bytes(j, "group", lim__bytes(t->open->text, t->open->group_len));
    lim__json_bytes(j, "name", lim__talk_terms(t)->name);
    death_json(t, j);
    lim__json_u64(j, "sent", t->sent);
    lim__json_u64(j, "received", t->received);
    lim__json_u64(j, "asked", t->asked);
    lim__json_u64(j, "answered", t->answered);
    lim__json_u64(j, "pending", pending);
    lim__json_bool(j, "traced", traced);
    if (traced)
        lim__history_json(t->rare->history, 0, j);
    lim__json_close(j);
}

void lim__talk_undo(talk *t, lim_process *self)
{
    lim__buf body = { 0 };
    lim__json j = lim__json_begin(&body);
    lim_pid task = { 0 };
    rare *r = lim__talk_rare(t, self);
    story_json(t, &j);
    lim_err err = body.failed || r == NULL ? LIM_E_NOMEM : LIM_OK;
    if (err == LIM_OK)
        err = lim__compensate(t->bus, self, lim__talk_terms(t), t->kept ? lim__talk_id(t) : 0, lim__buf_bytes(&body),
                              &task);
    lim__buf_fini(&body);
    if (err == LIM_OK) {
        r->compensation = task;
        lim__talk_note(t, self, "compensation", task, lim__talk_terms(t)->compensate, 0, 0);
    } else {
        LIM__EVENT(t->bus, self, "compensation_failed", { "why", lim__str(lim_err_text(err)) });
    }
}
