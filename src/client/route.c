/* SPDX-License-Identifier: Apache-2.0
 * route.c - router slots of the server: loading code, deploying it, going back, ending trials.
 *
 * Each verb is one JSON ask of a $sys group, but for loading code that does not fit into one:
 *
 *      LOAD --answered--> told          BEGIN --is there already--> told
 *       `--the request is too long--.     `--> CHUNK --> ... --> END --answered--> told
 *                                    `--> BEGIN
 *
 * The next ask is made in the callback of the one before; what is wrong ends it, and an upload that was left is
 * forgotten by the server. A blocking verb is the same one with somebody who waits for it. */
#include "artifact/artifact.h"
#include "base/base64.h"
#include "client/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 10000, INLINE_MAX = 64 << 10 };

typedef enum verb_step { VERB_PLAIN = 1, VERB_LOAD, VERB_BEGIN, VERB_CHUNK, VERB_END } verb_step;

typedef struct verb {
    lim_client *c;
    verb_step step;
    int64_t timeout_ms;
    lim_on_routed *on_routed;
    void *ctx;
    /* loading */
    lim_engine engine;
    char name[256], hash[LIM__HASH_TEXT], upload[24];
    size_t len, got, chunk_max;
    char code[]; /* len bytes */
} verb;

static lim_err verb_ask(verb *v);

/* ---- what comes back ---- */

static void tell(verb *v, const lim_routed *r)
{
    if (v->on_routed)
        v->on_routed(v->ctx, r);
    free(v);
}

static void tell_err(verb *v, lim_err err, const char *why)
{
    lim_routed r = { .err = err };
    lim__diag_set(&r.diag, 0, 0, "%s", why);
    tell(v, &r);
}

/* {"error":{"code","message","line","column"}}: true if that is what it is. */
static bool read_error(lim__val root, lim_routed *r)
{
    lim__val error = lim__val_get(root, "error");
    lim_bytes code = lim__val_bytes(error, "code", lim__bytes("", 0));
    if (error.kind == LIM__ABSENT)
        return false;
    r->err = LIM_E_PROTOCOL;
#define X(name, text)                                                                                                  \
    if (lim__bytes_eq(code, lim__str(#name)))                                                                          \
        r->err = LIM_E_##name;
    LIM_ERR_MAP(X)
#undef X
    lim__diag_set(&r->diag, (int)lim__val_i64(error, "line", 0), (int)lim__val_i64(error, "column", 0), "%s",
                  lim__val_str(error, "message", ""));
    return true;
}

static lim_hash read_hash(lim__val root, const char *key)
{
    lim_hash h = { 0 };
    const char *hex = lim__val_str(root, key, "");
    for (size_t i = 0; strlen(hex) == 2 * sizeof h.b && i < sizeof h.b; i++) {
        unsigned byte = 0;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return (lim_hash){ 0 };
        h.b[i] = (uint8_t)byte;
    }
    return h;
}

static void answered(verb *v, lim__val root)
{
    lim_routed r = { 0 };
    if (!read_error(root, &r)) {
        r.hash = read_hash(root, "hash");
        r.previous = read_hash(root, "previous");
        r.already = lim__val_bool(root, "already", false);
        snprintf(r.version, sizeof r.version, "%s", lim__val_str(root, "version", lim__val_str(root, "short", "")));
    }
    tell(v, &r);
}

/* BEGIN and CHUNK: another one follows. False: that was all. */
static bool goes_on(verb *v, lim__val root)
{
    const char *upload = lim__val_str(root, "upload", NULL);
    if ((v->step != VERB_BEGIN && v->step != VERB_CHUNK) || upload == NULL)
        return false;
    snprintf(v->upload, sizeof v->upload, "%s", upload);
    v->got = (size_t)lim__val_u64(root, "got", 0);
    v->chunk_max = (size_t)lim__val_u64(root, "chunk_max", 0);
    v->step = v->got < v->len ? VERB_CHUNK : VERB_END;
    return true;
}

static lim_err err_of(lim_how how)
{
    switch (how) {
    case LIM_HOW_TIMEOUT:
        return LIM_E_TIMEOUT;
    case LIM_HOW_LOST:
    case LIM_HOW_CLOSED:
        return LIM_E_CLOSED;
    case LIM_HOW_REFUSED:
        return LIM_E_FULL;
    case LIM_HOW_NONE:
    case LIM_HOW_REPLY:
    case LIM_HOW_FAILED:
    case LIM_HOW_CRASHED:
    case LIM_HOW_CANCELLED:
        break;
    }
    return LIM_E_GONE;
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    verb *v = ctx;
    lim__doc *doc = NULL;
    if (o->how != LIM_HOW_REPLY) {
        char why[200];
        snprintf(why, sizeof why, "%s%s%.*s", lim_how_text(o->how), o->detail.len > 0 ? ": " : "",
                 (int)(o->detail.len < 150 ? o->detail.len : 150),
                 o->detail.len > 0 ? (const char *)o->detail.ptr : "");
        tell_err(v, err_of(o->how), why);
        return;
    }
    if ((doc = lim__doc_new()) == NULL || lim__doc_parse(doc, o->payload, NULL) != LIM_OK) {
        tell_err(v, doc == NULL ? LIM_E_NOMEM : LIM_E_PROTOCOL, "the server's answer is not JSON");
    } else if (goes_on(v, lim__doc_root(doc))) {
        lim_err err = v->step == VERB_CHUNK && v->chunk_max == 0 ? LIM_E_PROTOCOL : verb_ask(v);
        if (err != LIM_OK)
            tell_err(v, err, lim_err_text(err));
    } else {
        answered(v, lim__doc_root(doc));
    }
    lim__doc_free(doc);
}

/* ---- requests ---- */

static lim__json begin(lim__buf *b, const char *op)
{
    lim__json j = lim__json_begin(b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", op);
    return j;
}

static const char *engine_text(lim_engine engine)
{
    return engine == LIM_NATIVE ? "native" : engine == LIM_BUILTIN ? "builtin" : "lua";
}

static void code_json(lim__json *j, lim_bytes code, bool base64)
{
    lim__buf text = { 0 };
    if (base64)
        lim__base64_write(&text, code);
    lim__json_bytes(j, "code", base64 ? lim__buf_bytes(&text) : code);
    j->buf->failed |= text.failed;
    lim__buf_fini(&text);
}

static void load_json(const verb *v, lim__buf *b)
{
    static const char *const ops[] = { "", "", "load", "begin", "chunk", "end" };
    size_t rest = v->len - v->got, chunk = rest < v->chunk_max ? rest : v->chunk_max;
    lim__json j = begin(b, ops[v->step]);
    if (v->step == VERB_LOAD || v->step == VERB_BEGIN) {
        lim__json_str(&j, "engine", engine_text(v->engine));
        lim__json_str(&j, "name", v->name);
    } else {
        lim__json_str(&j, "upload", v->upload);
    }
    if (v->step == VERB_LOAD)
        code_json(&j, lim__bytes(v->code, v->len), v->engine == LIM_NATIVE);
    if (v->step == VERB_BEGIN) {
        lim__json_u64(&j, "bytes", v->len);
        lim__json_str(&j, "hash", v->hash);
    }
    if (v->step == VERB_CHUNK) {
        lim__json_u64(&j, "at", v->got);
        code_json(&j, lim__bytes(v->code + v->got, chunk), true);
    }
    lim__json_close(&j);
}

static lim_err ask(verb *v, const char *group, const lim__buf *request)
{
    const lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = v->timeout_ms };
    if (request->failed)
        return LIM_E_NOMEM;
    return lim_client_ask_async(v->c, group, lim__buf_bytes(request), &opts, on_outcome, v, NULL);
}

/* The next request of a load. */
static lim_err verb_ask(verb *v)
{
    lim__buf b = { 0 };
    load_json(v, &b);
    lim_err err = ask(v, "$sys.artifacts", &b);
    lim__buf_fini(&b);
    if (err == LIM_E_TOOBIG && v->step == VERB_LOAD) { /* for this server's frames */
        v->step = VERB_BEGIN;
        return verb_ask(v);
    }
    return err;
}

/* Takes the request. */
static lim_err plain(lim_client *c, lim__buf *request, int64_t timeout_ms, lim_on_routed *on_routed, void *ctx)
{
    verb *v = timeout_ms > 0 ? calloc(1, sizeof *v) : NULL;
    lim_err err = timeout_ms <= 0 ? LIM_E_MISUSE : v == NULL ? LIM_E_NOMEM : LIM_OK;
    if (v != NULL) {
        *v = (verb){ .c = c, .step = VERB_PLAIN, .timeout_ms = timeout_ms, .on_routed = on_routed, .ctx = ctx };
        err = ask(v, "$sys.routes", request);
    }
    if (err != LIM_OK)
        free(v);
    lim__buf_fini(request);
    return err;
}

/* ---- loading ---- */

lim_err lim_client_artifact_load_async(lim_client *c, lim_engine engine, lim_bytes code, const char *name,
                                       int64_t timeout_ms, lim_on_routed *on_routed, void *ctx)
{
    uint8_t hash[LIM__HASH_SIZE];
    if (!c || code.len == 0 || !code.ptr || timeout_ms <= 0 ||
        (engine != LIM_BUILTIN && engine != LIM_LUA && engine != LIM_NATIVE))
        return LIM_E_MISUSE;
    lim_err err = lim__sha256(code, hash);
    verb *v = err == LIM_OK ? malloc(sizeof *v + code.len) : NULL;
    if (v == NULL)
        return err != LIM_OK ? err : LIM_E_NOMEM;
    *v = (verb){ .c = c,
                 .step = code.len <= INLINE_MAX ? VERB_LOAD : VERB_BEGIN,
                 .timeout_ms = timeout_ms,
                 .on_routed = on_routed,
                 .ctx = ctx,
                 .engine = engine,
                 .len = code.len };
    memcpy(v->code, code.ptr, code.len);
    lim__hash_text(hash, v->hash);
    snprintf(v->name, sizeof v->name, "%s", name ? name : "");
    err = verb_ask(v);
    if (err != LIM_OK)
        free(v);
    return err;
}

/* ---- deploying ---- */

static bool terms_json(lim__json *j, const lim_deploy_opts *o)
{
    static const char *const faults[] = { NULL, "reject", "previous", "least_loaded" };
    static const char *const trials[] = { NULL, "shadow", "ramp" };
    const struct {
        const char *key;
        uint32_t n;
    } numbers[] = { { "cpu_us", o->cpu_us_max },
                    { "wall_ms", o->wall_ms_max },
                    { "memory_bytes", o->memory_bytes_max },
                    { "unfinished", o->unfinished_max },
                    { "log_bytes", o->log_bytes_max },
                    { "breaker_ms", o->breaker_ms },
                    { "keep", o->keep } };
    if (o->on_fault > LIM_ON_FAULT_LEAST_LOADED || o->trial > LIM_TRIAL_RAMP)
        return false;
    for (size_t i = 0; i < LIM_COUNT(numbers); i++)
        if (numbers[i].n != 0)
            lim__json_u64(j, numbers[i].key, numbers[i].n);
    if (o->breaker_faults != 0)
        lim__json_u64(j, "breaker_faults", o->breaker_faults == LIM_UNLIMITED ? 0 : o->breaker_faults);
    if (o->on_fault != 0)
        lim__json_str(j, "on_fault", faults[o->on_fault]);
    if (o->trial != LIM_TRIAL_NONE)
        lim__json_str(j, "trial", trials[o->trial]);
    if (o->ramp != 0)
        lim__json_f64(j, "percent", o->ramp / 100.0);
    if (o->ramp_key)
        lim__json_str(j, "ramp_key", o->ramp_key);
    if (o->ramp_where)
        lim__json_str(j, "ramp_where", o->ramp_where);
    if (o->by)
        lim__json_str(j, "by", o->by);
    return true;
}

static lim_err deploy(lim_client *c, const char *kind, const char *slot, const lim_hash *artifact,
                      const lim_deploy_opts *o, int64_t timeout_ms, lim_on_routed *on_routed, void *ctx)
{
    lim__buf b = { 0 };
    char hex[LIM__HASH_TEXT];
    if (!c || !slot || !artifact || !o || o->size < sizeof *o)
        return LIM_E_MISUSE;
    lim__json j = begin(&b, "deploy");
    lim__json_str(&j, kind, slot);
    lim__hash_text(artifact->b, hex);
    lim__json_str(&j, "hash", hex);
    bool good = terms_json(&j, o);
    if (o->if_version)
        lim__hash_text(o->if_version->b, hex);
    if (o->if_version || o->if_named)
        lim__json_str(&j, "if_version", o->if_version ? hex : o->if_named);
    lim__json_close(&j);
    if (good)
        return plain(c, &b, timeout_ms, on_routed, ctx);
    lim__buf_fini(&b);
    return LIM_E_INVALID;
}

lim_err lim_client_deploy_async(lim_client *c, const char *group, const lim_hash *artifact, const lim_deploy_opts *opts,
                                int64_t timeout_ms, lim_on_routed *on_routed, void *ctx)
{
    return deploy(c, "group", group, artifact, opts, timeout_ms, on_routed, ctx);
}

lim_err lim_client_channel_deploy_async(lim_client *c, const char *channel, const lim_hash *artifact,
                                        const lim_deploy_opts *opts, int64_t timeout_ms, lim_on_routed *on_routed,
                                        void *ctx)
{
    return deploy(c, "channel", channel, artifact, opts, timeout_ms, on_routed, ctx);
}

/* ---- commands ---- */

static lim_err command(lim_client *c, const char *op, const char *kind, const char *slot, const char *to,
                       const char *by, int64_t timeout_ms, lim_on_routed *on_routed, void *ctx)
{
    lim__buf b = { 0 };
    if (!c || !slot)
        return LIM_E_MISUSE;
    lim__json j = begin(&b, op);
    lim__json_str(&j, kind, slot);
    if (to)
        lim__json_str(&j, "version", to);
    if (by)
        lim__json_str(&j, "by", by);
    lim__json_close(&j);
    return plain(c, &b, timeout_ms, on_routed, ctx);
}

lim_err lim_client_rollback_async(lim_client *c, const char *group, const char *to, const char *by, int64_t timeout_ms,
                                  lim_on_routed *on_routed, void *ctx)
{
    return command(c, "rollback", "group", group, to, by, timeout_ms, on_routed, ctx);
}

lim_err lim_client_trial_promote_async(lim_client *c, const char *group, const char *by, int64_t timeout_ms,
                                       lim_on_routed *on_routed, void *ctx)
{
    return command(c, "promote", "group", group, NULL, by, timeout_ms, on_routed, ctx);
}

lim_err lim_client_trial_stop_async(lim_client *c, const char *group, const char *by, int64_t timeout_ms,
                                    lim_on_routed *on_routed, void *ctx)
{
    return command(c, "stop", "group", group, NULL, by, timeout_ms, on_routed, ctx);
}

lim_err lim_client_channel_rollback_async(lim_client *c, const char *channel, const char *to, const char *by,
                                          int64_t timeout_ms, lim_on_routed *on_routed, void *ctx)
{
    return command(c, "rollback", "channel", channel, to, by, timeout_ms, on_routed, ctx);
}

lim_err lim_client_channel_promote_async(lim_client *c, const char *channel, const char *by, int64_t timeout_ms,
                                         lim_on_routed *on_routed, void *ctx)
{
    return command(c, "promote", "channel", channel, NULL, by, timeout_ms, on_routed, ctx);
}

lim_err lim_client_channel_stop_async(lim_client *c, const char *channel, const char *by, int64_t timeout_ms,
                                      lim_on_routed *on_routed, void *ctx)
{
    return command(c, "stop", "channel", channel, NULL, by, timeout_ms, on_routed, ctx);
}

lim_err lim_client_channel_undeploy_async(lim_client *c, const char *channel, int64_t timeout_ms,
                                          lim_on_routed *on_routed, void *ctx)
{
    return command(c, "rm", "channel", channel, NULL, NULL, timeout_ms, on_routed, ctx);
}

/* ---- waiting ---- */

typedef struct wait {
    lim__waiter w;
    lim_routed routed;
} wait;

static void on_waited(void *ctx, const lim_routed *r)
{
    wait *wt = ctx;
    lim_client *c = wt->w.c;
    lim__client_lock(c);
    wt->routed = *r;
    lim__client_waiter_done_locked(&wt->w, r->err);
    lim__client_unlock(c);
}

/* The room for one more call; not locked afterwards. */
static lim_err wait_begin(lim_client *c, wait *wt)
{
    lim_err err = !c ? LIM_E_MISUSE : lim__client_block_enter(c, &wt->w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    lim__client_unlock(c);
    return LIM_OK;
}

/* `err`: of the asynchronous call, whose callback is on_waited. */
static lim_err wait_end(lim_client *c, wait *wt, lim_err err, lim_diag *diag)
{
    lim__client_lock(c);
    if (err == LIM_OK) {
        lim__client_block_wait(c, &wt->w, UINT64_MAX);
        err = wt->w.err;
        if (err != LIM_OK && diag)
            *diag = wt->routed.diag;
    }
    lim__client_block_leave(c, &wt->w);
    return err;
}

#define WAIT_FOR(call)                                                                                                 \
    wait wt = { 0 };                                                                                                   \
    lim_err err = wait_begin(c, &wt);                                                                                  \
    if (err == LIM_OK)                                                                                                 \
        err = wait_end(c, &wt, (call), diag);                                                                          \
    if (err != LIM_OK)                                                                                                 \
    return err

lim_err lim_client_artifact_load(lim_client *c, lim_engine engine, lim_bytes code, const char *name, lim_diag *diag,
                                 lim_hash *out)
{
    WAIT_FOR(lim_client_artifact_load_async(c, engine, code, name, TIMEOUT_MS, on_waited, &wt));
    *out = wt.routed.hash;
    return LIM_OK;
}

static lim_err give_previous(const wait *wt, lim_hash *previous)
{
    if (previous)
        *previous = wt->routed.previous;
    return LIM_OK;
}

lim_err lim_client_deploy(lim_client *c, const char *group, const lim_hash *artifact, const lim_deploy_opts *opts,
                          lim_diag *diag, lim_hash *previous)
{
    WAIT_FOR(lim_client_deploy_async(c, group, artifact, opts, TIMEOUT_MS, on_waited, &wt));
    return give_previous(&wt, previous);
}

lim_err lim_client_channel_deploy(lim_client *c, const char *channel, const lim_hash *artifact,
                                  const lim_deploy_opts *opts, lim_diag *diag, lim_hash *previous)
{
    WAIT_FOR(lim_client_channel_deploy_async(c, channel, artifact, opts, TIMEOUT_MS, on_waited, &wt));
    return give_previous(&wt, previous);
}

lim_err lim_client_rollback(lim_client *c, const char *group, const char *to, const char *by, lim_diag *diag,
                            lim_hash *previous)
{
    WAIT_FOR(lim_client_rollback_async(c, group, to, by, TIMEOUT_MS, on_waited, &wt));
    return give_previous(&wt, previous);
}

lim_err lim_client_trial_promote(lim_client *c, const char *group, const char *by, lim_diag *diag, lim_hash *previous)
{
    WAIT_FOR(lim_client_trial_promote_async(c, group, by, TIMEOUT_MS, on_waited, &wt));
    return give_previous(&wt, previous);
}

lim_err lim_client_trial_stop(lim_client *c, const char *group, const char *by, lim_diag *diag)
{
    WAIT_FOR(lim_client_trial_stop_async(c, group, by, TIMEOUT_MS, on_waited, &wt));
    return LIM_OK;
}

lim_err lim_client_channel_rollback(lim_client *c, const char *channel, const char *to, const char *by, lim_diag *diag,
                                    lim_hash *previous)
{
    WAIT_FOR(lim_client_channel_rollback_async(c, channel, to, by, TIMEOUT_MS, on_waited, &wt));
    return give_previous(&wt, previous);
}

lim_err lim_client_channel_promote(lim_client *c, const char *channel, const char *by, lim_diag *diag,
                                   lim_hash *previous)
{
    WAIT_FOR(lim_client_channel_promote_async(c, channel, by, TIMEOUT_MS, on_waited, &wt));
    return give_previous(&wt, previous);
}

lim_err lim_client_channel_stop(lim_client *c, const char *channel, const char *by, lim_diag *diag)
{
    WAIT_FOR(lim_client_channel_stop_async(c, channel, by, TIMEOUT_MS, on_waited, &wt));
    return LIM_OK;
}

lim_err lim_client_channel_undeploy(lim_client *c, const char *channel, lim_diag *diag)
{
    WAIT_FOR(lim_client_channel_undeploy_async(c, channel, TIMEOUT_MS, on_waited, &wt));
    return LIM_OK;
}

/* ---- history ---- */

static void tell_entries(lim__val history, lim_on_route_history *each, void *ctx)
{
    for (lim__iter it = lim__iter_begin(history); each && lim__iter_next(&it);) {
        const lim_route_entry entry = { .n = lim__val_u64(it.val, "n", 0),
                                        .at_wall_us = lim__val_u64(it.val, "wall_us", 0),
                                        .kind = lim__val_str(it.val, "kind", ""),
                                        .version = lim__val_str(it.val, "version", ""),
                                        .previous = lim__val_str(it.val, "previous", ""),
                                        .by = lim__val_str(it.val, "by", ""),
                                        .detail = lim__val_str(it.val, "detail", "") };
        each(ctx, &entry);
    }
}

static lim_err read_history(lim_bytes json, lim_on_route_history *each, void *ctx, lim_diag *diag, uint64_t *entries)
{
    lim_routed r = { 0 };
    lim__doc *doc = lim__doc_new();
    lim_err err = doc ? lim__doc_parse(doc, json, diag) : LIM_E_NOMEM;
    if (err == LIM_OK && read_error(lim__doc_root(doc), &r)) {
        err = r.err;
        if (diag)
            *diag = r.diag;
    } else if (err == LIM_OK) {
        if (entries)
            *entries = lim__val_u64(lim__doc_root(doc), "entries", 0);
        tell_entries(lim__val_get(lim__doc_root(doc), "history"), each, ctx);
    }
    lim__doc_free(doc);
    return err;
}

lim_err lim_client_route_history(lim_client *c, const char *group, uint64_t after, lim_on_route_history *each,
                                 void *ctx, lim_diag *diag, uint64_t *entries)
{
    lim__buf b = { 0 };
    lim_outcome out = { 0 };
    if (!c || !group)
        return LIM_E_MISUSE;
    lim__json j = begin(&b, "history");
    lim__json_str(&j, "group", group);
    lim__json_u64(&j, "after", after);
    lim__json_close(&j);
    const lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = TIMEOUT_MS };
    lim_err err = b.failed ? LIM_E_NOMEM : lim_client_ask(c, "$sys.routes", lim__buf_bytes(&b), &opts, &out);
    lim__buf_fini(&b);
    if (err == LIM_OK)
        err = out.how == LIM_HOW_REPLY ? read_history(out.payload, each, ctx, diag, entries) : err_of(out.how);
    lim_outcome_fini(&out);
    return err;
}
