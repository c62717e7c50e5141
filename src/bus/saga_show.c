/* SPDX-License-Identifier: Apache-2.0
 * saga_show.c - sagas as JSON: lines of a list, and how everything in one went. */
#include "bus/saga_inside.h"
#include <stdio.h>

#include "base/base64.h"

#define MS UINT64_C(1000000)

const char *lim__saga_state_text(const lim__saga *saga)
{
    switch (saga->plan.state) {
    case LIM__SAGA_FORWARD:
        return "running";
    case LIM__SAGA_UNDO:
        return "compensating";
    case LIM__SAGA_ENDED:
        break;
    }
    bool failed = saga->ones[saga->plan.count - 1].step.how != LIM_HOW_REPLY;
    return lim__saga_stuck(&saga->plan) ? "stuck" : failed ? "compensated" : "done";
}

void lim__saga_bytes_json(lim__json *j, const char *key, lim_bytes bytes)
{
    char raw[40];
    lim__buf text = { 0 };
    if (lim__text_ok(bytes)) {
        lim__json_bytes(j, key, bytes);
        return;
    }
    snprintf(raw, sizeof raw, "%s_base64", key);
    lim__base64_write(&text, bytes);
    lim__json_bytes(j, raw, lim__buf_bytes(&text));
    j->buf->failed |= text.failed;
    lim__buf_fini(&text);
}

static void payload_json(lim__json *j, const lim__msg *reply)
{
    lim_bytes bytes = reply != NULL ? lim__msg_bytes(reply) : lim__bytes(NULL, 0);
    if (reply == NULL)
        return;
    if (bytes.len <= LIM__SAGA_SHOWN_MAX && lim__buf_len(j->buf) < 8 * LIM__SAGA_SHOWN_MAX)
        lim__saga_bytes_json(j, "payload", bytes);
    else
        lim__json_u64(j, "bytes", bytes.len);
}

static void how_json(lim__json *j, const lim__saga_work *w)
{
    if (w->how == LIM_HOW_NONE) {
        lim__json_str(j, "how", "running");
        return;
    }
    lim__json_str(j, "how", lim_how_text(w->how));
    if (w->why != LIM_WHY_NONE)
        lim__json_str(j, "why", lim_why_text(w->why));
    if (w->detail[0] != '\0')
        lim__json_str(j, "detail", w->detail);
    payload_json(j, w->reply);
}

static void step_json(lim__json *j, const lim__saga_one *one)
{
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "name", one->name);
    how_json(j, &one->step);
    if (one->step.how != LIM_HOW_NONE) {
        lim__json_str(j, "handed_over", lim_handed_text(one->step.handed));
        lim__json_u64(j, "elapsed_ms", one->step.elapsed_ns / MS);
    }
    if (one->step.participant[0] != '\0')
        lim__json_str(j, "participant", one->step.participant);
    if (one->step.conv.id != 0)
        lim__json_id(j, "id", one->step.conv.id);
    lim__json_close(j);
}

static void undo_json(lim__json *j, const lim__saga_one *one)
{
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "name", one->name);
    lim__json_bytes(j, "queue", one->undo.group);
    if (one->undo.conv.id != 0)
        lim__json_id(j, "task", one->undo.conv.id);
    how_json(j, &one->undo);
    lim__json_close(j);
}

static void works_json(const lim__saga *saga, lim__json *j)
{
    lim__json_open(j, "steps", '[');
    for (uint32_t i = 0; i < saga->plan.count; i++)
        if (saga->plan.steps[i].step != LIM__STEP_WAITING)
            step_json(j, &saga->ones[i]);
    lim__json_close(j);
    lim__json_open(j, "compensations", '[');
    for (uint32_t i = saga->plan.count; i-- > 0;) /* in the order in which they ran */
        if (saga->plan.steps[i].undo != LIM__UNDO_NONE)
            undo_json(j, &saga->ones[i]);
    lim__json_close(j);
}

void lim__saga_line_json(const lim__saga *saga, uint64_t now_ns, lim__json *j, const char *key, bool details)
{
    bool ended = saga->plan.state == LIM__SAGA_ENDED;
    lim__json_open(j, key, '{');
    lim__json_id(j, "id", saga->id);
    lim__json_bytes(j, "name", saga->name);
    lim__json_str(j, "state", lim__saga_state_text(saga));
    lim__json_bytes(j, "step", ended ? lim__bytes("", 0) : saga->ones[saga->plan.at].name);
    if (details)
        lim__json_u64(j, "step_count", saga->plan.count);
    else
        lim__json_u64(j, "steps", saga->plan.count);
    lim__json_u64(j, "age_ms", (now_ns - saga->begun_ns) / MS);
    lim__json_bool(j, "durable", saga->durable);
    if (details)
        works_json(saga, j);
    lim__json_close(j);
}

void lim__saga_answer_json(const lim__saga *saga, lim__json *j)
{
    lim__json_open(j, NULL, '{');
    lim__json_id(j, "saga", saga->id);
    lim__json_bytes(j, "name", saga->name);
    lim__json_str(j, "outcome", lim__saga_state_text(saga));
    works_json(saga, j);
    lim__json_close(j);
}
