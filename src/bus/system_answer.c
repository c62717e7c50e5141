/* SPDX-License-Identifier: Apache-2.0
 * system_answer.c - how the $sys groups answer: at once, or with what others said.
 *
 *   request --> answered at once
 *           `-> gather: show and admin letters to many --shown...--> put together --> answered
 *                                                      `--time over-> with what there is; a list says "incomplete"
 *
 * Errors are answers too, those of groups as well: {"error":{"code":"NOTFOUND","message":"..."}}. Of several refusals
 * the one that says more than NOTFOUND is told.
 *
 * Invariant Y1: a gather is in its process's list until it has answered; it answers once. */
#include "bus/channel_slot.h"
#include "bus/system.h"
#include "bus/participant.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { GROUPS_MAX = 4096 };

/* ---- answering ---- */

void lim__sys_answer(lim__system *s, lim__buf *json)
{
    lim__msg *msg = json->failed ? NULL : lim__msg_new(lim__buf_bytes(json));
    lim__answer_how how = msg != NULL ? LIM__ANSWER_REPLY : LIM__ANSWER_FAILED;
    lim__answer *a = lim__answer_new(lim__proc_sched(s->self), lim_self(s->self), s->asker.lease, how, msg,
                                     msg != NULL ? lim__bytes(NULL, 0) : lim__str("out of memory"));
    if (a != NULL)
        (void)!lim__send_reserved(s->self, s->asker.conv, a);
    lim__buf_fini(json);
}

static void refuse_as(lim__system *s, const char *code, const char *message, const lim_diag *place)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "error", '{');
    lim__json_str(&j, "code", code);
    lim__json_str(&j, "message", message);
    if (place != NULL) {
        lim__json_u64(&j, "line", (uint64_t)place->line);
        lim__json_u64(&j, "column", (uint64_t)place->column);
    }
    lim__json_close(&j);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

void lim__sys_refuse(lim__system *s, lim_err err, const char *format, ...)
{
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    refuse_as(s, lim_err_name(err), text, NULL);
}

void lim__sys_refuse_diag(lim__system *s, lim_err err, const lim_diag *diag)
{
    refuse_as(s, lim_err_name(err), diag->text[0] != '\0' ? diag->text : lim_err_text(err), diag);
}

void lim__sys_answer_id(lim__system *s, lim_pid conv)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "id", conv.id);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

/* ---- fields ---- */

bool lim__sys_given(const lim__system *s, const char *key)
{
    return lim__val_present(lim__val_get(s->root, key));
}

bool lim__sys_name(lim__system *s, const char *key, lim_bytes *out)
{
    *out = lim__val_bytes(s->root, key, lim__bytes(NULL, 0));
    if (out->len > 0 && out->len <= 255)
        return true;
    lim__sys_refuse(s, LIM_E_INVALID, "the request has no text \"%s\", or it is longer than 255 bytes", key);
    return false;
}

bool lim__sys_id(lim__system *s, const char *key, lim_pid *out)
{
    char text[24], *end;
    lim_bytes name;
    if (!lim__sys_name(s, key, &name))
        return false;
    snprintf(text, sizeof text, "%.*s", (int)(name.len < 20 ? name.len : 20), (const char *)name.ptr);
    out->id = strtoull(text, &end, 16);
    if (out->id != 0 && *end == '\0' && text[0] != '-' && text[0] != '+')
        return true;
    lim__sys_refuse(s, LIM_E_INVALID,
                    "%s is no id of a conversation or task; it is a hexadecimal number, as ls shows it", text);
    return false;
}

bool lim__sys_max(lim__system *s, uint32_t *out)
{
    lim__val v = lim__val_get(s->root, "max");
    uint64_t n = LIM__SYS_LS_MAX;
    if (!lim__val_present(v) || (lim__val_as_u64(v, &n) && n >= 1 && n <= LIM__SYS_LS_MOST)) {
        *out = (uint32_t)n;
        return true;
    }
    lim__sys_refuse(s, LIM_E_INVALID, "\"max\" is no number from 1 to %d", LIM__SYS_LS_MOST);
    return false;
}

/* ---- a gather's life ---- */

static bool is_list(const lim__gather *g)
{
    return g->how == LIM__GATHER_JOIN || g->how == LIM__GATHER_PICK || g->how == LIM__GATHER_EACH;
}

lim__gather *lim__gather_begin(lim__system *s, lim__gather_how how, const char *list, lim_bytes what)
{
    lim__gather *g = calloc(1, sizeof *g);
    bool one = how == LIM__GATHER_FIRST || how == LIM__GATHER_PICK_FIRST; /* may have much to do: purge, replay */
    uint64_t ms = one ? 4 * LIM__SYS_GATHER_MS : LIM__SYS_GATHER_MS;
    if (g == NULL || lim_timer_start(s->self, ms * 1000000, 1, &g->timer) != LIM_OK) {
        free(g);
        lim__sys_refuse(s, LIM_E_NOMEM, "out of memory");
        return NULL;
    }
    g->ref = ++s->next_ref;
    g->asker = s->asker;
    g->how = how;
    snprintf(g->what, sizeof g->what, "%.*s", (int)what.len, what.len > 0 ? (const char *)what.ptr : "");
    if (is_list(g))
        lim__buf_format(&g->body, "{\"%s\":[", list);
    lim__list_push(&s->gathers, &g->node);
    return g;
}

lim__gather *lim__gather_find(lim__system *s, uint64_t ref)
{
    LIM__LIST_EACH(node, &s->gathers) {
        lim__gather *g = LIM_CONTAINER(node, lim__gather, node);
        if (g->ref == ref)
            return g;
    }
    return NULL;
}

/* Nobody had it: the refusal that says most, or what `none` knows better. */
static void answer_none(lim__system *s, lim__gather *g)
{
    bool told = g->code[0] != '\0' && strcmp(g->code, lim_err_name(LIM_E_NOTFOUND)) != 0;
    lim__buf_fini(&g->body);
    if (g->none != NULL && !told && g->waiting == 0)
        g->none(s, g);
    else if (g->waiting > 0)
        refuse_as(s, lim_err_name(LIM_E_TIMEOUT), "who would know did not answer in time; try again", NULL);
    else if (g->code[0] != '\0')
        refuse_as(s, g->code, g->why, NULL);
    else
        lim__sys_refuse(s, LIM_E_NOTFOUND, "there is no such thing; ls shows what there is");
}

void lim__gather_end(lim__system *s, lim__gather *g)
{
    if (g->timer != 0)
        lim_timer_cancel(s->self, g->timer);
    lim__list_remove(&g->node);
    s->asker = g->asker;
    if (g->got == 0 && g->how != LIM__GATHER_JOIN && g->how != LIM__GATHER_PICK) {
        answer_none(s, g);
    } else {
        if (is_list(g))
            lim__buf_text(&g->body, g->waiting > 0 ? "],\"incomplete\":true}" : "]}");
        lim__sys_answer(s, &g->body);
    }
    free(g);
}

void lim__gather_refuse(lim__system *s, lim__gather *g, lim_err err, const lim_diag *diag)
{
    if (g->timer != 0)
        lim_timer_cancel(s->self, g->timer);
    lim__list_remove(&g->node);
    s->asker = g->asker;
    lim__sys_refuse_diag(s, err, diag);
    lim__buf_fini(&g->body);
    free(g);
}

void lim__gather_ready(lim__system *s, lim__gather *g)
{
    if (g->waiting == 0)
        lim__gather_end(s, g);
}

void lim__gather_timer(lim__system *s, uint64_t timer)
{
    LIM__LIST_EACH(node, &s->gathers) {
        lim__gather *g = LIM_CONTAINER(node, lim__gather, node);
        if (g->timer != timer)
            continue;
        g->timer = 0;
        lim__gather_end(s, g);
        return;
    }
}

void lim__gather_drop(lim__system *s)
{
    for (lim__list *n; (n = lim__list_pop(&s->gathers)) != NULL;) {
        lim__gather *g = LIM_CONTAINER(n, lim__gather, node);
        lim__buf_fini(&g->body);
        free(g);
    }
}

/* ---- asking ---- */

void lim__gather_show(lim__system *s, lim__gather *g, lim_pid who, const lim__show *show, lim_bytes where)
{
    lim__show *letter = lim__letter_new(lim__proc_sched(s->self), &lim__type_show, sizeof *letter + where.len);
    if (letter == NULL)
        return;
    *letter = *show;
    letter->reply_to = lim_self(s->self);
    letter->ref = g->ref;
    letter->where_len = (uint16_t)where.len;
    if (where.len > 0)
        memcpy(letter->where, where.ptr, where.len);
    if (lim__send_reserved(s->self, who, letter) == LIM_OK)
        g->waiting++;
}

/* {"op":"SUBJECT.OP", and the request's other members}. */
static void admin_text(lim__system *s, lim__buf *b, const char *subject)
{
    char op[64];
    lim_bytes name = lim__val_bytes(s->root, "op", lim__bytes("", 0));
    lim__json j = lim__json_begin(b);
    snprintf(op, sizeof op, "%s.%.*s", subject, (int)name.len, (const char *)name.ptr);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", op);
    lim__iter it = lim__iter_begin(s->root);
    while (lim__iter_next(&it)) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)it.key.len, (const char *)it.key.ptr);
        if (strcmp(key, "op") != 0)
            lim__json_val(&j, key, it.val);
    }
    lim__json_close(&j);
}

static void send_admin(lim__system *s, lim__gather *g, lim_pid group, lim_bytes json)
{
    lim__admin *a = lim__letter_new(lim__proc_sched(s->self), &lim__type_admin, sizeof *a + json.len);
    if (a == NULL)
        return;
    *a = (lim__admin){ .reply_to = lim_self(s->self), .ref = g->ref, .len = (uint32_t)json.len };
    memcpy(a->json, json.ptr, json.len);
    if (lim__send_reserved(s->self, group, a) == LIM_OK)
        g->waiting++;
}

void lim__gather_admin(lim__system *s, lim__gather *g, lim_pid group, const char *subject)
{
    lim__buf b = { 0 };
    admin_text(s, &b, subject);
    if (!b.failed)
        send_admin(s, g, group, lim__buf_bytes(&b));
    lim__buf_fini(&b);
}

void lim__gather_groups(lim__system *s, lim__gather *g, lim__show_what what)
{
    lim_pid *groups = calloc(GROUPS_MAX, sizeof *groups);
    char prefix[256];
    const char *ns = lim__val_str(s->root, "namespace", "");
    int len =
        ns[0] != '\0' ? snprintf(prefix, sizeof prefix, "aion.dispatch.%s.", ns) : 0; /* too long: there is none */
    lim_bytes under = lim__bytes(prefix, (size_t)len < sizeof prefix ? (size_t)len : sizeof prefix - 1);
    size_t n = groups != NULL ? lim__groups_list(s->bus, under, groups, GROUPS_MAX) : 0;
    const lim__show show = { .max = LIM__SYS_LS_MAX, .what = what };
    for (size_t i = 0; i < n && i < GROUPS_MAX; i++)
        lim__gather_show(s, g, groups[i], &show, lim__bytes(NULL, 0));
    n = groups != NULL && what == LIM__SHOW_ROUTE_LINE ? lim__chan_slots_list(s->bus, groups, GROUPS_MAX) : 0;
    for (size_t i = 0; i < n && i < GROUPS_MAX; i++)
        lim__gather_show(s, g, groups[i], &show, lim__bytes(NULL, 0));
    free(groups);
    lim__gather_ready(s, g);
}

void lim__gather_all(lim__system *s, lim__gather *g, lim_bytes json)
{
    lim_pid *groups = calloc(GROUPS_MAX, sizeof *groups);
    size_t n = groups != NULL ? lim__groups_list(s->bus, lim__bytes(NULL, 0), groups, GROUPS_MAX) : 0;
    for (size_t i = 0; i < n && i < GROUPS_MAX; i++)
        send_admin(s, g, groups[i], json);
    free(groups);
    lim__gather_ready(s, g);
}

void lim__gather_admins(lim__system *s, lim__gather *g, const char *subject)
{
    lim__buf b = { 0 };
    admin_text(s, &b, subject);
    lim__gather_all(s, g, b.failed ? lim__str("{}") : lim__buf_bytes(&b));
    lim__buf_fini(&b);
}

/* ---- being answered ---- */

static void add_raw(lim__gather *g, lim_bytes json)
{
    if (g->got++ > 0)
        lim__buf_text(&g->body, ",");
    lim__buf_add(&g->body, json.ptr, json.len);
}

static void add_val(lim__gather *g, lim__val v)
{
    if (g->got++ > 0)
        lim__buf_text(&g->body, ",");
    lim__json j = lim__json_begin(&g->body);
    lim__json_val(&j, NULL, v);
}

/* Of a piece of a list, the one with the identity that was asked for. */
static void add_matching(lim__system *s, lim__gather *g, lim_bytes piece)
{
    lim__buf array = { 0 };
    lim__buf_text(&array, "[");
    lim__buf_add(&array, piece.ptr, piece.len);
    lim__buf_text(&array, "]");
    if (!array.failed && lim__doc_parse(s->part, lim__buf_bytes(&array), NULL) == LIM_OK) {
        lim__iter it = lim__iter_begin(lim__doc_root(s->part));
        while (g->got == 0 && lim__iter_next(&it))
            if (lim__bytes_eq(lim__val_bytes(it.val, "identity", lim__bytes(NULL, 0)), lim__str(g->what)))
                add_val(g, it.val);
    }
    lim__buf_fini(&array);
}

/* Is it a refusal? Then the gather knows it, unless it knows one that says more. */
static bool refused(lim__gather *g, lim__val part)
{
    lim__val error = lim__val_get(part, "error");
    if (error.kind != LIM__OBJECT)
        return false;
    if (g->code[0] == '\0' || strcmp(g->code, lim_err_name(LIM_E_NOTFOUND)) == 0) {
        snprintf(g->code, sizeof g->code, "%s", lim__val_str(error, "code", lim_err_name(LIM_E_INVALID)));
        snprintf(g->why, sizeof g->why, "%s", lim__val_str(error, "message", "no reason was given"));
    }
    return true;
}

static void add_object(lim__system *s, lim__gather *g, lim_bytes json)
{
    if (lim__doc_parse(s->part, json, NULL) != LIM_OK || refused(g, lim__doc_root(s->part)))
        return;
    if (g->how == LIM__GATHER_PICK || g->how == LIM__GATHER_PICK_FIRST) {
        lim__iter it = lim__iter_begin(lim__val_get(lim__doc_root(s->part), g->what));
        while (lim__iter_next(&it) && (g->how == LIM__GATHER_PICK || g->got == 0))
            add_val(g, it.val);
    } else if (g->how == LIM__GATHER_EACH || g->got == 0) {
        add_raw(g, json);
    }
}

void lim__gather_part(lim__system *s, uint64_t ref, lim_bytes json)
{
    lim__gather *g = lim__gather_find(s, ref);
    if (g == NULL)
        return;
    if (json.len > 0) {
        if (g->how == LIM__GATHER_JOIN)
            add_raw(g, json);
        else if (g->how == LIM__GATHER_MATCH)
            add_matching(s, g, json);
        else
            add_object(s, g, json);
    }
    g->waiting--;
    lim__gather_ready(s, g);
}
