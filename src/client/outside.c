/* SPDX-License-Identifier: Apache-2.0
 * outside.c - conversations and tasks of anybody, by their number or name: signals, finding, history.
 *
 * A signal and a search are calls like asks: a number, an answer, and `closed` if the connection breaks first. A
 * history is an ask of $sys.conversations, whose JSON is read here. */
#include "client/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { HISTORY_MS = 10000 };

/* ---- ends ---- */

void lim__client_call_over(lim_client *c, lim__call *call, lim_err err, lim_conv conv, lim_bytes detail)
{
    lim__call was = *call;
    char text[160];
    lim_bytes clipped = lim__utf8_clip(detail, sizeof text - 1);
    snprintf(text, sizeof text, "%.*s", (int)clipped.len, clipped.len ? (const char *)clipped.ptr : "");
    lim__client_call_drop(c, call);
    lim__client_unlock(c);
    if (was.state == LIM__CALL_FIND)
        was.on_conv(was.ctx, err, conv, text);
    else if (was.on_done)
        was.on_done(was.ctx, err, text);
    lim__client_lock(c);
}

static lim__call *find(lim_client *c, uint64_t corr, lim__call_state state)
{
    lim__call *call = lim__map_get(&c->calls, corr);
    return call && call->state == state ? call : NULL;
}

static lim_err code_err(uint16_t code)
{
    return code == 0 ? LIM_OK : lim__client_code_err(code);
}

bool lim__client_call_signalled(lim_client *c, const lim__frame *frame)
{
    lim__f_signalled f;
    lim__call *call = lim__get_signalled(frame, &f) ? find(c, f.corr, LIM__CALL_SIGNAL) : NULL;
    if (!call)
        return false;
    lim__client_call_over(c, call, code_err(f.code), (lim_conv){ 0 }, f.detail);
    return true;
}

bool lim__client_call_found(lim_client *c, const lim__frame *frame)
{
    lim__f_found f;
    lim__call *call = lim__get_found(frame, &f) ? find(c, f.corr, LIM__CALL_FIND) : NULL;
    if (!call)
        return false;
    lim__client_call_over(c, call, code_err(f.code), (lim_conv){ f.conversation }, f.detail);
    return true;
}

/* ---- signal ---- */

static lim_err check_signal(const lim_client *c, lim_conv conv, const char *name)
{
    return !c || conv.id == 0 || !name || name[0] == '\0' ? LIM_E_INVALID : LIM_OK;
}

static lim_err signal_locked(lim_client *c, lim_conv conv, const char *name, lim_bytes payload, lim_on_done *on_done,
                             void *ctx)
{
    lim_err err = lim__client_may_call(c);
    if (err != LIM_OK)
        return err;
    lim__call *call = lim__client_call_new(c, LIM__CALL_SIGNAL, NULL, ctx);
    if (!call)
        return LIM_E_NOMEM;
    call->on_done = on_done;
    err = LIM__SAY(c, signal, .corr = call->corr, .conversation = conv.id, .name = lim__str(name), .payload = payload);
    if (err != LIM_OK)
        lim__client_call_drop(c, call);
    return err;
}

lim_err lim_client_signal_async(lim_client *c, lim_conv conv, const char *name, lim_bytes payload, lim_on_done *on_done,
                                void *ctx)
{
    lim_err err = check_signal(c, conv, name);
    if (err != LIM_OK)
        return err;
    lim__client_lock(c);
    err = signal_locked(c, conv, name, payload, on_done, ctx);
    lim__client_unlock_now(c);
    return err;
}

/* Waits for a call whose callback is the waiter's; unlocks. */
static lim_err wait_for(lim_client *c, lim__waiter *w, lim_err err)
{
    if (err == LIM_OK) {
        lim__client_block_wait(c, w, UINT64_MAX);
        err = w->err;
    }
    lim__client_block_leave(c, w);
    return err;
}

lim_err lim_client_signal(lim_client *c, lim_conv conv, const char *name, lim_bytes payload)
{
    lim__waiter w;
    lim_err err = check_signal(c, conv, name);
    if (err == LIM_OK)
        err = lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    return wait_for(c, &w, signal_locked(c, conv, name, payload, lim__client_waiter_on_done, &w));
}

/* ---- find ---- */

static lim_err find_locked(lim_client *c, const char *name, lim_on_conv *on_found, void *ctx)
{
    lim_err err = lim__client_may_call(c);
    if (err != LIM_OK)
        return err;
    lim__call *call = lim__client_call_new(c, LIM__CALL_FIND, NULL, ctx);
    if (!call)
        return LIM_E_NOMEM;
    call->on_conv = on_found;
    err = LIM__SAY(c, find, .corr = call->corr, .name = lim__str(name));
    if (err != LIM_OK)
        lim__client_call_drop(c, call);
    return err;
}

lim_err lim_client_conv_find_async(lim_client *c, const char *name, lim_on_conv *on_found, void *ctx)
{
    if (!c || !name || name[0] == '\0' || !on_found)
        return LIM_E_INVALID;
    lim__client_lock(c);
    lim_err err = find_locked(c, name, on_found, ctx);
    lim__client_unlock_now(c);
    return err;
}

lim_err lim_client_conv_find(lim_client *c, const char *name, lim_conv *out)
{
    lim__waiter w;
    lim_err err = !c || !name || name[0] == '\0' || !out ? LIM_E_INVALID : lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    err = wait_for(c, &w, find_locked(c, name, lim__client_waiter_on_conv, &w));
    if (err == LIM_OK)
        *out = w.conv;
    return err;
}

/* ---- history ---- */

static void tell_entries(lim__val history, lim_on_history *each, void *ctx)
{
    for (lim__iter it = lim__iter_begin(history); each && lim__iter_next(&it);) {
        lim_bytes none = lim__bytes("", 0);
        lim_history_entry entry = { .n = lim__val_u64(it.val, "n", 0),
                                    .at_wall_us = lim__val_u64(it.val, "at_us", 0),
                                    .kind = lim__val_bytes(it.val, "kind", none),
                                    .who = lim__val_bytes(it.val, "who", none),
                                    .detail = lim__val_bytes(it.val, "detail", none),
                                    .bytes = lim__val_u64(it.val, "bytes", 0) };
        each(ctx, &entry);
    }
}

/* What went wrong, as a system group says it: {"error":{"code":"NOTFOUND", ...}}. LIM_OK: nothing did. */
static lim_err error_of(lim__val root)
{
    lim__val error = lim__val_get(root, "error");
    lim_bytes code = lim__val_bytes(error, "code", lim__bytes("", 0));
    if (error.kind == LIM__ABSENT)
        return LIM_OK;
#define X(name, text)                                                                                                  \
    if (lim__bytes_eq(code, lim__str(#name)))                                                                          \
        return LIM_E_##name;
    LIM_ERR_MAP(X)
#undef X
    return LIM_E_PROTOCOL;
}

static lim_err read_history(lim_bytes json, lim_on_history *each, void *ctx, uint64_t *entries)
{
    lim__doc *doc = lim__doc_new();
    lim_err err = doc ? lim__doc_parse(doc, json, NULL) : LIM_E_NOMEM;
    lim__val root = err == LIM_OK ? lim__doc_root(doc) : (lim__val){ 0 };
    if (err == LIM_OK && (err = error_of(root)) == LIM_OK) {
        if (entries)
            *entries = lim__val_u64(root, "entries", 0);
        tell_entries(lim__val_get(root, "history"), each, ctx);
    }
    lim__doc_free(doc);
    return err;
}

/* Why there is no history in an outcome. */
static lim_err no_history(lim_how how)
{
    switch (how) {
    case LIM_HOW_TIMEOUT:
        return LIM_E_TIMEOUT;
    case LIM_HOW_LOST:
    case LIM_HOW_CLOSED:
    case LIM_HOW_REFUSED:
        return LIM_E_CLOSED;
    case LIM_HOW_NONE:
    case LIM_HOW_REPLY:
    case LIM_HOW_FAILED:
    case LIM_HOW_CRASHED:
    case LIM_HOW_CANCELLED:
        break;
    }
    return LIM_E_GONE;
}

lim_err lim_client_history(lim_client *c, lim_conv conv, uint64_t after, lim_on_history *each, void *ctx,
                           uint64_t *entries)
{
    char request[96];
    lim_outcome out = { 0 };
    if (!c || conv.id == 0)
        return LIM_E_INVALID;
    snprintf(request, sizeof request, "{\"op\":\"history\",\"id\":\"%" PRIx64 "\",\"after\":%" PRIu64 "}", conv.id,
             after);
    lim_err err = lim_client_sys(c, "$sys.conversations", request, HISTORY_MS, &out);
    if (err == LIM_OK)
        err = out.how == LIM_HOW_REPLY ? read_history(out.payload, each, ctx, entries) : no_history(out.how);
    lim_outcome_fini(&out);
    return err;
}
