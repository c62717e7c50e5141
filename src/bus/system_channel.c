/* SPDX-License-Identifier: Apache-2.0
 * system_channel.c - $sys.channels: what there is, and what is done to it.
 *
 * What is stored, or has to be read, is answered later: an `errand` of this file carries the answer back from the
 * store's or the reading thread, as the one part of a gather. */
#include "bus/log_inside.h"
#include "bus/log_show.h"
#include "bus/system.h"

#include <stdio.h>
#include <stdlib.h>

#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).ptr

/* ---- errands: one answer from another thread ---- */

typedef struct errand {
    lim__job job;
    lim_bus *bus;
    lim_pid to;
    uint64_t ref;
    lim__log *log; /* counted; NULL: the channel is ephemeral, or it is about a name */
    lim_err (*look)(struct errand *e, lim__store *store, lim__json *j); /* members of the answer */
    uint64_t from;
    uint32_t max;
    uint8_t len;
    char text[256]; /* name or key */
    char why[200];
} errand;

static errand *errand_new(lim__system *s, lim_bytes text, lim__log *log)
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, text);
    errand *e = g != NULL ? calloc(1, sizeof *e) : NULL;
    if (e == NULL) {
        if (g != NULL) {
            snprintf(g->code, sizeof g->code, "NOMEM");
            lim__gather_end(s, g);
        }
        lim__log_unref(log);
        return NULL;
    }
    g->waiting = 1;
    *e = (errand){ .bus = s->bus, .to = lim_self(s->self), .ref = g->ref, .log = log, .len = (uint8_t)text.len };
    memcpy(e->text, text.ptr, text.len);
    return e;
}

static void errand_end(errand *e, lim__buf *json)
{
    lim_bytes text = lim__buf_bytes(json);
    lim__shown *shown = json->failed ? NULL : lim__letter_new(NULL, &lim__type_shown, sizeof *shown + text.len);
    if (shown != NULL) {
        *shown = (lim__shown){ .ref = e->ref, .len = (uint32_t)text.len };
        memcpy(shown->json, text.ptr, text.len);
        (void)!lim__post_reserved(e->bus->rt, e->to, shown);
    }
    lim__buf_fini(json);
    lim__log_unref(e->log);
    free(e);
}

static void errand_refuse(errand *e, lim_err err, const char *why)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "error", '{');
    lim__json_str(&j, "code", lim_err_name(err));
    lim__json_str(&j, "message", why[0] != '\0' ? why : lim_err_text(err));
    lim__json_close(&j);
    lim__json_close(&j);
    errand_end(e, &b);
}

static void errand_name(errand *e)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_bytes(&j, "name", lim__bytes(e->text, e->len));
    lim__json_close(&j);
    errand_end(e, &b);
}

/* A change ended: its name, or why not. */
static void on_changed(void *ctx, lim_err err, const char *detail)
{
    if (err == LIM_OK)
        errand_name(ctx);
    else
        errand_refuse(ctx, err, detail);
}

static void run_look(lim__job *job, lim__store *store)
{
    errand *e = LIM_CONTAINER(job, errand, job);
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (store == NULL) {
        errand_refuse(e, LIM_E_CLOSED, "the bus is closing");
        return;
    }
    lim_err err = e->look(e, store, &j);
    if (err == LIM_OK) {
        errand_end(e, &b);
        return;
    }
    lim__buf_fini(&b);
    errand_refuse(e, err, e->why);
}

static void look(errand *e, lim_err (*fn)(errand *e, lim__store *store, lim__json *j))
{
    e->look = fn;
    e->job.run = run_look;
    lim__durable_read(e->bus, &e->job);
}

/* ---- whom it is about ---- */

/* The name of a channel that is not the system's. */
static bool own_name(lim__system *s, lim_bytes *name)
{
    if (!lim__sys_name(s, "name", name))
        return false;
    if (((const char *)name->ptr)[0] != '$')
        return true;
    lim__sys_refuse(s, LIM_E_INVALID, "names that begin with $ are the system's; choose another");
    return false;
}

/* A durable one; false: refused. */
static bool durable_of(lim__system *s, lim__log **log)
{
    lim_bytes name;
    lim_diag diag;
    if (!own_name(s, &name))
        return false;
    lim_err err = s->bus->logs == NULL ? lim__durable_missing(&diag) : lim__log_find(s->bus, name, log);
    if (err == LIM_OK)
        return true;
    if (s->bus->logs == NULL)
        lim__sys_refuse_diag(s, err, &diag);
    else
        lim__sys_refuse(s, err,
                        err == LIM_E_MISUSE ? "channel %.*s is ephemeral: it keeps no messages"
                                            : "there is no channel %.*s; `channel ls` shows those that there are",
                        TEXT(name));
    return false;
}

/* ---- ls, show ---- */

void lim__sys_channel_ls(lim__system *s)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__buf_text(&b, "{\"channels\":");
    lim__channels_json(s->bus->channels, &j);
    lim__buf_text(&b, "}");
    lim__sys_answer(s, &b);
}

typedef struct shown_log {
    lim__log *log;
    lim__store *store;
} shown_log;

static void more_of(void *ctx, lim__json *j)
{
    const shown_log *l = ctx;
    lim__log_json(l->log, l->store, j);
}

static lim_err look_show(errand *e, lim__store *store, lim__json *j)
{
    shown_log l = { e->log, store };
    if (lim__channel_json_with(e->bus->channels, lim__bytes(e->text, e->len), j, more_of, &l))
        return LIM_OK;
    snprintf(e->why, sizeof e->why, "the channel was deleted");
    return LIM_E_NOTFOUND;
}

void lim__sys_channel_show(lim__system *s)
{
    lim_bytes name;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (!lim__sys_name(s, "name", &name))
        return;
    lim__log *log = lim__log_by_name(s->bus, name);
    if (log != NULL) {
        errand *e = errand_new(s, name, log);
        if (e != NULL)
            look(e, look_show);
        return;
    }
    if (lim__channel_json(s->bus->channels, name, &j)) {
        lim__sys_answer(s, &b);
        return;
    }
    lim__buf_fini(&b);
    lim__sys_refuse(s, LIM_E_NOTFOUND, "nobody opened or subscribed to channel %.*s", TEXT(name));
}

/* ---- create, configure ---- */

static void changed(lim__system *s, lim_err err, lim_bytes name)
{
    lim__buf b = { 0 };
    if (err != LIM_OK) {
        if (err == LIM_E_EXISTS)
            lim__sys_refuse(s, err, "channel %.*s is durable, which is decided once; `channel delete` ends it",
                            TEXT(name));
        else
            lim__sys_refuse(s, err, "%s: %.*s", lim_err_text(err), TEXT(name));
        return;
    }
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_bytes(&j, "name", name);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

/* A whole number, if it is given. False: refused. */
static bool take_number(lim__system *s, const char *key, uint64_t max, uint64_t *out)
{
    lim__val v = lim__val_get(s->root, key);
    uint64_t n;
    if (!lim__val_present(v))
        return true;
    if (lim__val_as_u64(v, &n) && n <= max) {
        *out = n;
        return true;
    }
    lim__sys_refuse(s, LIM_E_INVALID, "\"%s\" is no whole number from 0 to %llu", key, (unsigned long long)max);
    return false;
}

static bool take_flag(lim__system *s, const char *key, bool *out)
{
    lim__val v = lim__val_get(s->root, key);
    if (lim__val_present(v) && v.kind != LIM__BOOL) {
        lim__sys_refuse(s, LIM_E_INVALID, "\"%s\" is true or false", key);
        return false;
    }
    *out = lim__val_bool(s->root, key, *out);
    return true;
}

static bool take_words(lim__system *s, lim_channel_opts *o, char dead[256])
{
    lim_bytes overflow = lim__val_bytes(s->root, "overflow", lim__bytes(NULL, 0));
    lim_bytes sync = lim__val_bytes(s->root, "sync", lim__bytes(NULL, 0));
    lim_bytes to = lim__val_bytes(s->root, "dead_letter", lim__bytes(NULL, 0));
    if (overflow.len > 0 && !lim__overflow_of(overflow, &o->overflow)) {
        lim__sys_refuse(s, LIM_E_INVALID, "%.*s is no \"overflow\"; it is drop_oldest, reject or dead_letter",
                        TEXT(overflow));
        return false;
    }
    if (sync.len > 0 && !lim__sync_of(sync, &o->sync)) {
        lim__sys_refuse(s, LIM_E_INVALID, "%.*s is no \"sync\"; it is always, interval or never", TEXT(sync));
        return false;
    }
    if (to.len > 255) {
        lim__sys_refuse(s, LIM_E_INVALID, "\"dead_letter\" is longer than 255 bytes");
        return false;
    }
    if (to.len > 0) {
        snprintf(dead, 256, "%.*s", TEXT(to));
        o->dead_letter = dead;
    }
    if (o->overflow != LIM_OVERFLOW_DEAD_LETTER)
        o->dead_letter = NULL;
    return true;
}

/* What the request gives, over what there is. False: refused. */
static bool take_opts(lim__system *s, lim_channel_opts *o, char dead[256])
{
    static const uint64_t ms_max = 365ull * 24 * 3600 * 1000 * 100;
    uint64_t age = (uint64_t)o->age_ms_max, window = (uint64_t)o->window_ms, keys = o->window_keys;
    if (!take_number(s, "retain_age_ms", ms_max, &age) ||
        !take_number(s, "retain_bytes", UINT64_MAX >> 1, &o->bytes_max) ||
        !take_number(s, "retain_count", UINT64_MAX >> 1, &o->count_max) ||
        !take_number(s, "window_ms", ms_max, &window) || !take_number(s, "window_keys", UINT32_MAX - 1, &keys) ||
        !take_number(s, "window_bytes", UINT64_MAX >> 1, &o->window_bytes) ||
        !take_flag(s, "retain_latest", &o->latest_per_key) || !take_flag(s, "window_slides", &o->window_slides) ||
        !take_flag(s, "window_forgets", &o->window_forgets) || !take_words(s, o, dead))
        return false;
    o->age_ms_max = (int64_t)age;
    o->window_ms = (int64_t)window;
    o->window_keys = (uint32_t)keys;
    return true;
}

static void open_durable(lim__system *s, lim_bytes name, const lim_channel_opts *o, bool may_change)
{
    lim__log *log = NULL;
    lim_diag diag = { 0 };
    if (s->bus->logs == NULL) {
        lim_err err = lim__durable_missing(&diag);
        lim__sys_refuse_diag(s, err, &diag);
        return;
    }
    errand *e = errand_new(s, name, NULL);
    if (e == NULL)
        return;
    lim__log_changed done = { on_changed, e };
    lim_err err = lim__log_open(s->bus, name, o, may_change, &done, &log, &diag);
    if (err != LIM_OK)
        errand_refuse(e, err, diag.text);
    lim__log_unref(log);
}

void lim__sys_channel_create(lim__system *s)
{
    lim_channel_opts opts = { .size = sizeof opts, .allow_hold = lim__val_bool(s->root, "allow_hold", false) };
    lim__channel *ch = NULL;
    lim_bytes name;
    char dead[256];
    if (!own_name(s, &name) || !take_flag(s, "durable", &opts.durable) || !take_opts(s, &opts, dead))
        return;
    if (!lim__channel_name_ok(name)) {
        lim__sys_refuse(s, LIM_E_INVALID, "%.*s is no name for a channel: use letters, digits, - and _, joined by dots",
                        TEXT(name));
        return;
    }
    if (opts.durable) {
        open_durable(s, name, &opts, false);
        return;
    }
    static const char *const kept[] = { "retain_age_ms", "retain_bytes", "retain_count",  "retain_latest",
                                        "overflow",      "dead_letter",  "sync",          "window_ms",
                                        "window_keys",   "window_bytes", "window_slides", "window_forgets" };
    for (size_t i = 0; i < LIM_COUNT(kept); i++)
        if (lim__sys_given(s, kept[i])) {
            lim__sys_refuse(s, LIM_E_INVALID, "\"%s\" is for durable channels; say \"durable\":true", kept[i]);
            return;
        }
    lim_err err = lim__channel_open(s->bus->channels, name, &opts, &ch);
    if (err == LIM_OK)
        lim__channel_unref(ch);
    changed(s, err, name);
}

void lim__sys_channel_configure(lim__system *s)
{
    lim__log *log;
    lim_channel_opts opts;
    char dead[256];
    if (!durable_of(s, &log))
        return;
    lim__log_opts_get(log, &opts, dead);
    lim_bytes name = lim__bytes(log->name->text, log->name->len);
    if (take_opts(s, &opts, dead))
        open_durable(s, name, &opts, true);
    lim__log_unref(log);
}

/* ---- close, delete, purge ---- */

void lim__sys_channel_close(lim__system *s)
{
    lim_bytes name;
    if (own_name(s, &name))
        changed(s, lim__channel_close(s->bus->channels, name), name);
}

void lim__sys_channel_delete(lim__system *s)
{
    lim__log *log;
    if (!durable_of(s, &log))
        return;
    errand *e = errand_new(s, lim__name_bytes(log->name), log);
    if (e == NULL)
        return;
    lim__log_changed done = { on_changed, e };
    lim_err err = lim__log_delete(e->log, &done);
    if (err != LIM_OK)
        errand_refuse(e, err, "");
}

static void on_purged(void *ctx, lim__batch *batch, const lim__committed *what)
{
    errand *e = ctx;
    const char *detail;
    lim_err err = lim__committed_err(what, &detail);
    lim__batch_free(batch);
    if (err == LIM_OK)
        lim__log_trimmed(e->log, e->from);
    on_changed(e, err, detail);
}

void lim__sys_channel_purge(lim__system *s)
{
    lim__log *log;
    uint64_t first, last, before = 0;
    if (!take_number(s, "before", UINT64_MAX - 1, &before) || !durable_of(s, &log))
        return;
    lim__log_span(log, &first, &last);
    errand *e = errand_new(s, lim__name_bytes(log->name), log);
    lim__batch *b = e != NULL ? lim__batch_new() : NULL;
    if (e == NULL)
        return;
    e->from = before == 0 || before > last + 1 ? last + 1 : before;
    if (b != NULL) {
        lim__batch_trim(b, log->stream, e->from);
        lim__batch_small(b);
    }
    lim_err err = lim__durable_submit(s->bus, b, on_purged, e);
    if (err != LIM_OK)
        errand_refuse(e, err, "");
}

/* ---- get, peek ---- */

static lim_err look_get(errand *e, lim__store *store, lim__json *j)
{
    lim_stored_message m;
    lim_err err = lim__log_get(e->log, store, lim__bytes(e->text, e->len), &m);
    if (err == LIM_E_NOTFOUND)
        snprintf(e->why, sizeof e->why, "channel %s has no message with that key", e->log->name->text);
    if (err != LIM_OK)
        return err;
    lim__stored_json(j, &m);
    lim_stored_fini(&m);
    return LIM_OK;
}

void lim__sys_channel_get(lim__system *s)
{
    lim__log *log;
    lim_bytes key;
    if (!lim__sys_name(s, "key", &key) || !durable_of(s, &log))
        return;
    errand *e = errand_new(s, key, log);
    if (e != NULL)
        look(e, look_get);
}

static lim_err look_peek(errand *e, lim__store *store, lim__json *j)
{
    uint64_t bad;
    lim__json_open(j, NULL, '{');
    lim_err err = lim__log_peek(e->log, store, e->from, e->max, j, &bad);
    lim__json_close(j);
    if (err != LIM_OK)
        snprintf(e->why, sizeof e->why, "message %llu of channel %s cannot be read; look from the next one on",
                 (unsigned long long)bad, e->log->name->text);
    return err;
}

void lim__sys_channel_peek(lim__system *s)
{
    lim__log *log;
    uint32_t max;
    uint64_t from = 1;
    if (!lim__sys_max(s, &max) || !take_number(s, "from", UINT64_MAX - 1, &from) || !durable_of(s, &log))
        return;
    errand *e = errand_new(s, lim__name_bytes(log->name), log);
    if (e == NULL)
        return;
    e->from = from > 0 ? from : 1;
    e->max = max;
    look(e, look_peek);
}
