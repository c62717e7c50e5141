/* SPDX-License-Identifier: Apache-2.0
 * system_conv.c - $sys.conversations, and tasks by their id: a task is a conversation.
 *
 * Who lives is shown by the agent of its scheduler; who has ended, by what is remembered of it (ended.c); a task that
 * ended without a result, by the dead letters of its queue. One may end while its agent is being asked: then what is
 * remembered is the answer. */
#include "bus/system.h"
#include "base/base64.h"
#include "bus/durable.h"
#include "bus/ended.h"
#include "bus/history.h"
#include "data/outcome.h"
#include <inttypes.h>
#include <stdlib.h>

#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).ptr

/* ---- one of them ---- */

static bool lives(const lim__system *s, lim_pid id)
{
    lim_pid conv = lim__alias_pid(s->bus, id.id);
    return lim_alive(s->bus->rt, conv) && lim__conv_kind_of(s->bus, conv) != 0 &&
           lim__pid_scheduler(conv) < lim__sched_count(s->bus->rt);
}

static void none_remembered(lim__system *s, lim_pid conv)
{
    lim__sys_refuse(s, LIM_E_NOTFOUND, "no conversation or task has the id %" PRIx64 ", or it ended too long ago",
                    conv.id);
}

static void ended_json(lim__json *j, lim_pid conv, lim__conv_kind kind, const lim_outcome *o)
{
    lim__json_open(j, NULL, '{');
    lim__json_id(j, "id", conv.id);
    lim__json_str(j, "kind", lim__conv_kind_text(kind));
    lim__json_str(j, "phase", lim_phase_text(o->how == LIM_HOW_REPLY ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN));
    lim__json_str(j, "outcome", lim_how_text(o->how));
    lim__json_bytes(j, "participant", o->participant);
    lim__json_str(j, "reason", o->reason != 0 ? lim_reason_text(o->reason) : "");
    lim__json_str(j, "why", lim_why_text(o->why));
    lim__json_bytes(j, "detail", o->detail);
    lim__json_str(j, "handed_over", lim_handed_text(o->handed_over));
    lim__json_u64(j, "attempts", o->attempts);
    lim__json_u64(j, "losses", o->losses);
    lim__outcome_past_json(j, o->excluded, o->excluded_count);
    lim__json_u64(j, "bytes", o->payload.len);
    if (o->compensation.id != 0)
        lim__json_id(j, "compensation", o->compensation.id);
    lim__json_u64(j, "elapsed_us", o->elapsed_ns / 1000);
    lim__json_close(j);
}

/* Of what left no outcome behind a line is remembered: asks that were answered, and talks. */
static void show_line(lim__system *s, lim__gather *g)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (lim__ended_json(s->bus, g->conv, &j, NULL))
        lim__sys_answer(s, &b);
    else
        none_remembered(s, g->conv);
}

static void show_ended(lim__system *s, lim__gather *g)
{
    lim__outcome_letter *o = lim__ended_outcome(s->bus, lim__proc_sched(s->self), g->conv, 0);
    lim_excluded excluded[LIM__EXCLUDED_MAX];
    lim__ended_info info = { 0 };
    lim_outcome view;
    if (o == NULL || !lim__ended_find(s->bus, g->conv, &info)) {
        if (o != NULL)
            lim__letter_free(lim__proc_sched(s->self), o);
        show_line(s, g);
        return;
    }
    lim__outcome_view(o, excluded, &view);
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    ended_json(&j, g->conv, info.kind, &view);
    lim__letter_free(lim__proc_sched(s->self), o);
    lim__sys_answer(s, &b);
}

/* Shown by its agent; `none` answers if it does not live (any more). */
static void show(lim__system *s, lim_pid conv, const lim__show *what, void (*none)(lim__system *, lim__gather *))
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, lim__bytes(NULL, 0));
    if (g == NULL)
        return;
    g->conv = conv;
    g->none = none;
    if (lives(s, conv))
        lim__gather_show(s, g, s->bus->agents[lim__pid_scheduler(what->only)], what, lim__bytes(NULL, 0));
    lim__gather_ready(s, g);
}

void lim__sys_conv_show(lim__system *s)
{
    lim_pid conv;
    if (!lim__sys_id(s, "id", &conv))
        return;
    const lim__show what = { .only = lim__alias_pid(s->bus, conv.id), .max = 1, .what = LIM__SHOW_FULL };
    show(s, conv, &what, show_ended);
}

static void show_dead(lim__system *s, lim__gather *living)
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_PICK_FIRST, NULL, lim__str("dead"));
    if (g == NULL)
        return;
    g->conv = living->conv;
    g->none = show_ended;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", "dead.show");
    lim__json_id(&j, "id", g->conv.id);
    lim__json_close(&j);
    lim__gather_all(s, g, lim__buf_bytes(&b));
    lim__buf_fini(&b);
}

void lim__sys_task_show(lim__system *s)
{
    lim_pid task;
    if (!lim__sys_id(s, "id", &task))
        return;
    const lim__show what = { .only = lim__alias_pid(s->bus, task.id), .max = 1, .what = LIM__SHOW_FULL };
    show(s, task, &what, show_dead);
}

/* Of an ended one there is nothing to cancel, which is not an error: it is over, as was wanted. */
void lim__sys_conv_cancel(lim__system *s)
{
    lim_pid conv;
    lim__ended_info ended;
    if (!lim__sys_id(s, "id", &conv))
        return;
    if (lim_conv_cancel(s->bus, (lim_conv){ conv.id }) == LIM_OK)
        lim__sys_answer_id(s, conv);
    else if (lim__ended_find(s->bus, conv, &ended))
        lim__sys_refuse(s, LIM_E_GONE, "%" PRIx64 " has ended already; show says how", conv.id);
    else
        none_remembered(s, conv);
}

void lim__sys_task_cancel(lim__system *s)
{
    lim_pid task;
    if (!lim__sys_id(s, "id", &task))
        return;
    if (lives(s, task) && lim__conv_kind_of(s->bus, lim__alias_pid(s->bus, task.id)) != LIM__KIND_TASK)
        lim__sys_refuse(s, LIM_E_INVALID, "%" PRIx64 " is a conversation; write conversation cancel", task.id);
    else
        lim__sys_conv_cancel(s);
}

/* ---- all of them ---- */

/* "where" as pairs of (u8 length, key) (u8 length, value). False: refused. */
static bool where_of(lim__system *s, lim__buf *out)
{
    lim__val where = lim__val_get(s->root, "where");
    bool good = !lim__val_present(where) || where.kind == LIM__OBJECT;
    lim__iter it = lim__iter_begin(where);
    while (good && lim__iter_next(&it)) {
        good =
            it.val.kind == LIM__TEXT && it.key.len <= 255 && it.val.text.len <= 255 && it.index < LIM__ATTRIBUTES_MAX;
        if (!good)
            break;
        lim__buf_add(out, &(uint8_t){ (uint8_t)it.key.len }, 1);
        lim__buf_add(out, it.key.ptr, it.key.len);
        lim__buf_add(out, &(uint8_t){ (uint8_t)it.val.text.len }, 1);
        lim__buf_add(out, it.val.text.ptr, it.val.text.len);
    }
    if (good && !out->failed)
        return true;
    lim__buf_fini(out);
    lim__sys_refuse(s, LIM_E_INVALID, "\"where\" is an object of texts of at most 255 bytes; at most %d of them",
                    LIM__ATTRIBUTES_MAX);
    return false;
}

void lim__sys_conv_ls(lim__system *s)
{
    lim__show what = { .what = LIM__SHOW_LINE };
    lim__buf where = { 0 };
    if (!lim__sys_max(s, &what.max) || !where_of(s, &where))
        return;
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_JOIN, "conversations", lim__bytes(NULL, 0));
    for (uint32_t i = 0; g != NULL && i < lim__sched_count(s->bus->rt); i++)
        lim__gather_show(s, g, s->bus->agents[i], &what, lim__buf_bytes(&where));
    lim__buf_fini(&where);
    if (g != NULL)
        lim__gather_ready(s, g);
}

/* ---- names, signals, histories ---- */

/* By "name". False: refused. */
static bool named(lim__system *s, lim_pid *out)
{
    char text[256];
    lim_bytes name;
    lim_conv conv = { 0 };
    if (!lim__sys_name(s, "name", &name))
        return false;
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    if (lim_conv_find(s->bus, text, &conv) == LIM_OK) {
        out->id = conv.id;
        return true;
    }
    lim__sys_refuse(s, LIM_E_NOTFOUND, "no living conversation has the name %.*s", TEXT(name));
    return false;
}

void lim__sys_conv_find(lim__system *s)
{
    lim_pid conv;
    if (named(s, &conv))
        lim__sys_answer_id(s, conv);
}

/* "payload": text is meant as it is, anything else as its JSON; or "payload_base64". False: refused. */
static bool payload_of(lim__system *s, lim__buf *out)
{
    lim__val v = lim__val_get(s->root, "payload"), raw = lim__val_get(s->root, "payload_base64");
    if (lim__val_present(raw) && (lim__val_present(v) || raw.kind != LIM__TEXT || !lim__base64_read(out, raw.text))) {
        lim__buf_fini(out);
        lim__sys_refuse(s, LIM_E_INVALID, "\"payload_base64\" is base64 text, and there is no \"payload\" beside it");
        return false;
    }
    lim__json j = lim__json_begin(out);
    if (v.kind == LIM__TEXT)
        lim__buf_add(out, v.text.ptr, v.text.len);
    else if (lim__val_present(v))
        lim__json_val(&j, NULL, v);
    return true;
}

void lim__sys_conv_signal(lim__system *s)
{
    lim_pid conv;
    lim_bytes name;
    char text[256];
    lim__buf payload = { 0 };
    if (lim__sys_given(s, "id") == lim__sys_given(s, "name")) {
        lim__sys_refuse(s, LIM_E_INVALID, "say which conversation: an \"id\", or a \"name\"");
        return;
    }
    if (!lim__sys_name(s, "signal", &name) ||
        !(lim__sys_given(s, "id") ? lim__sys_id(s, "id", &conv) : named(s, &conv)) || !payload_of(s, &payload))
        return;
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    lim_err err = lim_conv_signal(s->bus, (lim_conv){ conv.id }, text, lim__buf_bytes(&payload));
    lim__buf_fini(&payload);
    if (err == LIM_OK)
        lim__sys_answer_id(s, conv);
    else if (err == LIM_E_GONE)
        lim__sys_refuse(s, err, "%" PRIx64 " has ended, or never was; nobody got the signal", conv.id);
    else
        lim__sys_refuse(s, err, "%s: %.*s; a signal's name is letters, digits, - and _", lim_err_text(err), TEXT(name));
}

static void show_ended_history(lim__system *s, lim__gather *g)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "id", g->conv.id);
    if (lim__history_ended_json(s->bus, g->conv, g->after, &j)) {
        lim__json_bool(&j, "living", false);
        lim__json_close(&j);
        lim__sys_answer(s, &b);
        return;
    }
    lim__buf_fini(&b);
    lim__sys_refuse(s, LIM_E_NOTFOUND,
                    "no history of %" PRIx64 " is kept; open it with trace, or configure its queue so", g->conv.id);
}

void lim__sys_conv_history(lim__system *s)
{
    lim_pid conv;
    if (!lim__sys_id(s, "id", &conv))
        return;
    const lim__show what = { .only = lim__alias_pid(s->bus, conv.id),
                             .after = lim__val_u64(s->root, "after", 0),
                             .max = 1,
                             .what = LIM__SHOW_HISTORY };
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, lim__bytes(NULL, 0));
    if (g == NULL)
        return;
    g->conv = conv;
    g->after = what.after;
    g->none = show_ended_history;
    if (lives(s, conv))
        lim__gather_show(s, g, s->bus->agents[lim__pid_scheduler(what.only)], &what, lim__bytes(NULL, 0));
    lim__gather_ready(s, g);
}
