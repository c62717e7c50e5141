/* SPDX-License-Identifier: Apache-2.0
 * upload.c - code that does not fit into one request: it comes in pieces, is checked against its SHA-256, and loaded.
 *
 *      begin --> [OPEN] --chunk, in order--> ... --end--> loader (loader.c)
 *                   `-- drop, its asker ends, a minute without a chunk --> forgotten
 *
 * Limits: an asker (a connection) has one, the bus has LIM__UPLOADS_MAX, and each is at most as long as code may be;
 * its memory is touched as the chunks come. State of the process behind $sys.artifacts alone. */
#include "base/base.h"
#include "base/base64.h"
#include "bus/loader.h"
#include "bus/system.h"
#include "route/native.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).ptr

typedef struct upload {
    lim__list node;
    uint64_t id, monitor, timer;
    lim_pid asker;
    lim__load load; /* len: of it all */
    size_t got;
} upload;

static lim__list *all(lim__system *s)
{
    if (s->uploads.next == NULL)
        lim__list_init(&s->uploads);
    return &s->uploads;
}

static void forget(lim__system *s, upload *u)
{
    if (u->monitor != 0)
        lim_demonitor(s->self, u->monitor);
    if (u->timer != 0)
        lim_timer_cancel(s->self, u->timer);
    lim__list_remove(&u->node);
    free(u->load.code);
    free(u);
}

/* ---- loading: at once, or what was uploaded ---- */

static void answer_loaded(lim__system *s, const lim__artifact *a, bool fresh, lim__buf *out)
{
    char hex[LIM__HASH_TEXT];
    lim__json j = lim__json_begin(out);
    (void)s;
    lim__hash_text(a->hash, hex);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "hash", hex);
    lim__json_str(&j, "short", a->id);
    lim__json_bool(&j, "already", !fresh);
    lim__json_close(&j);
}

/* Takes load->code. */
static void load(lim__system *s, lim__load *l)
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, lim__str(l->name));
    if (g == NULL) {
        free(l->code);
        return;
    }
    l->reply_to = lim_self(s->self);
    l->ref = g->ref;
    g->waiting = 1;
    lim_err err = lim__load_begin(s->bus, s->self, l);
    if (err != LIM_OK)
        lim__gather_refuse(s, g, err, &(lim_diag){ 0 });
}

static void on_loaded(lim__system *s, const lim__loaded *l)
{
    lim__gather *g = lim__gather_find(s, l->ref);
    if (g == NULL)
        return;
    g->waiting = 0;
    if (l->err != LIM_OK) {
        lim__gather_refuse(s, g, l->err, &l->diag);
        return;
    }
    answer_loaded(s, l->artifact, l->fresh, &g->body);
    g->got = 1;
    lim__gather_end(s, g);
}

static lim__engine engine_of(lim_bytes name)
{
    return lim__bytes_eq(name, lim__str("lua"))       ? LIM__ENGINE_LUA
           : lim__bytes_eq(name, lim__str("native"))  ? LIM__ENGINE_NATIVE
           : lim__bytes_eq(name, lim__str("builtin")) ? LIM__ENGINE_BUILTIN
                                                      : 0;
}

/* What "engine" and "name" say. */
static bool load_of(lim__system *s, lim__load *l)
{
    *l = (lim__load){ .engine = engine_of(lim__val_bytes(s->root, "engine", lim__str("lua"))) };
    snprintf(l->name, sizeof l->name, "%s", lim__val_str(s->root, "name", ""));
    return l->engine != 0;
}

void lim__sys_artifact_load(lim__system *s)
{
    lim__load l;
    lim_bytes code = lim__val_bytes(s->root, "code", lim__bytes(NULL, 0));
    lim__buf bytes = { 0 };
    bool good = load_of(s, &l) && code.len > 0;
    if (good && l.engine == LIM__ENGINE_NATIVE)
        good = lim__base64_read(&bytes, code); /* JSON holds no bytes */
    else if (good)
        lim__buf_add(&bytes, code.ptr, code.len);
    if (good && !bytes.failed && (l.code = malloc(lim__buf_bytes(&bytes).len)) != NULL) {
        l.len = lim__buf_bytes(&bytes).len;
        memcpy(l.code, lim__buf_bytes(&bytes).ptr, l.len);
        load(s, &l);
    } else if (good) {
        lim__sys_refuse(s, LIM_E_NOMEM, "out of memory");
    } else {
        lim__sys_refuse(s, LIM_E_INVALID,
                        "load needs \"code\" and an \"engine\": lua, builtin, or native, whose code is base64");
    }
    lim__buf_fini(&bytes);
}

/* ---- uploads ---- */

static upload *upload_of(lim__system *s)
{
    lim_bytes name;
    char id[24];
    if (!lim__sys_name(s, "upload", &name))
        return NULL;
    LIM__LIST_EACH(node, all(s)) {
        upload *u = LIM_CONTAINER(node, upload, node);
        int len = snprintf(id, sizeof id, "%" PRIx64, u->id);
        if (u->asker.id == s->request->asker.id && lim__bytes_eq(name, lim__bytes(id, (size_t)len)))
            return u;
    }
    lim__sys_refuse(s, LIM_E_NOTFOUND, "this connection has no upload %.*s; begin again", TEXT(name));
    return NULL;
}

static void answer_upload(lim__system *s, const upload *u)
{
    size_t payload = s->bus->opts.payload_bytes_max, most = payload > 1024 ? (payload - 512) / 4 * 3 : 256;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "upload", u->id);
    lim__json_u64(&j, "got", u->got);
    lim__json_u64(&j, "chunk_max", most < LIM__UPLOAD_CHUNK ? most : LIM__UPLOAD_CHUNK);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

static bool wind_up(lim__system *s, upload *u)
{
    if (u->timer != 0)
        lim_timer_cancel(s->self, u->timer);
    u->timer = 0;
    return lim_timer_start(s->self, LIM__UPLOAD_IDLE_MS * 1000000ull, 1, &u->timer) == LIM_OK;
}

/* False: refused. */
static bool has_room(lim__system *s)
{
    uint32_t count = 0;
    LIM__LIST_EACH(node, all(s)) {
        const upload *u = LIM_CONTAINER(node, upload, node);
        if (u->asker.id == s->request->asker.id) {
            lim__sys_refuse(s, LIM_E_FULL,
                            "this connection has an upload under way (%" PRIx64 "); end or drop it first", u->id);
            return false;
        }
        count++;
    }
    if (count < LIM__UPLOADS_MAX)
        return true;
    lim__sys_refuse(s, LIM_E_FULL, "%u uploads are under way, which is the limit; try again later", count);
    return false;
}

static bool hash_of(lim__system *s, uint8_t out[static LIM__HASH_SIZE])
{
    lim_bytes hex = lim__val_bytes(s->root, "hash", lim__bytes(NULL, 0));
    for (size_t i = 0; hex.len == 2 * LIM__HASH_SIZE && i < hex.len; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, ((const char *)hex.ptr)[i]);
        if (at == NULL || *at == '\0')
            break;
        out[i / 2] = (uint8_t)(out[i / 2] << 4 | (uint8_t)(at - digits));
        if (i + 1 == hex.len)
            return true;
    }
    lim__sys_refuse(s, LIM_E_INVALID, "\"hash\" is no SHA-256: 64 hexadecimal digits, in small letters");
    return false;
}

/* It is there already: nothing need be sent. */
static bool is_known(lim__system *s, const lim__load *l)
{
    lim__artifact *a = NULL;
    char hex[LIM__HASH_TEXT];
    lim__hash_text(l->hash, hex);
    if (lim__artifacts_get(s->bus->artifacts, lim__str(hex), &a) != LIM_OK)
        return false;
    bool same = a->engine == l->engine;
    if (same) {
        lim__buf b = { 0 };
        answer_loaded(s, a, false, &b);
        lim__sys_answer(s, &b);
    }
    lim__artifact_unref(a);
    return same;
}

/* On failure `l` is the caller's. */
static upload *upload_new(lim__system *s, const lim__load *l)
{
    upload *u = calloc(1, sizeof *u);
    if (u == NULL)
        return NULL;
    *u = (upload){ .id = ++s->next_upload, .asker = s->request->asker, .load = *l };
    lim__list_init(&u->node);
    u->load.code = malloc(l->len);
    bool good = u->load.code != NULL && wind_up(s, u);
    if (good && u->asker.id != 0)
        good = lim_monitor(s->self, u->asker, &u->monitor) == LIM_OK;
    if (good) {
        lim__list_push(all(s), &u->node);
        return u;
    }
    forget(s, u);
    return NULL;
}

void lim__sys_upload_begin(lim__system *s)
{
    lim__load l;
    uint64_t len = 0;
    if (!load_of(s, &l) || !lim__val_as_u64(lim__val_get(s->root, "bytes"), &len) || len == 0) {
        lim__sys_refuse(s, LIM_E_INVALID, "begin needs \"bytes\", \"hash\" and an \"engine\": lua, builtin or native");
        return;
    }
    l.has_hash = true;
    if (!hash_of(s, l.hash))
        return;
    if (len > LIM__NATIVE_CODE_MAX) {
        lim__sys_refuse(s, LIM_E_TOOBIG, "%" PRIu64 " bytes of code; at most %d are taken", len, LIM__NATIVE_CODE_MAX);
        return;
    }
    l.len = (size_t)len;
    if (is_known(s, &l) || !has_room(s))
        return;
    const upload *u = upload_new(s, &l);
    if (u != NULL)
        answer_upload(s, u);
    else
        lim__sys_refuse(s, LIM_E_NOMEM, "no memory for %" PRIu64 " bytes", len);
}

void lim__sys_upload_chunk(lim__system *s)
{
    upload *u = upload_of(s);
    uint64_t at = 0;
    lim__buf bytes = { 0 };
    if (u == NULL)
        return;
    bool good = lim__val_as_u64(lim__val_get(s->root, "at"), &at) &&
                lim__base64_read(&bytes, lim__val_bytes(s->root, "code", lim__bytes(NULL, 0)));
    lim_bytes code = lim__buf_bytes(&bytes);
    if (!good || code.len == 0) {
        lim__sys_refuse(s, LIM_E_INVALID, "chunk needs \"at\" and \"code\" in base64");
    } else if (at != u->got) {
        lim__sys_refuse(s, LIM_E_INVALID, "%zu bytes are there; the next chunk begins at %zu, not at %" PRIu64, u->got,
                        u->got, at);
    } else if (code.len > u->load.len - u->got) {
        lim__sys_refuse(s, LIM_E_TOOBIG, "%zu bytes were announced, and %zu have come", u->load.len, u->got + code.len);
    } else if (!wind_up(s, u)) {
        lim__sys_refuse(s, LIM_E_NOMEM, "out of memory");
    } else {
        memcpy(u->load.code + u->got, code.ptr, code.len);
        u->got += code.len;
        answer_upload(s, u);
    }
    lim__buf_fini(&bytes);
}

void lim__sys_upload_end(lim__system *s)
{
    upload *u = upload_of(s);
    if (u == NULL)
        return;
    if (u->got < u->load.len) {
        lim__sys_refuse(s, LIM_E_INVALID, "%zu bytes were announced, and %zu have come", u->load.len, u->got);
        return;
    }
    lim__load l = u->load;
    u->load.code = NULL;
    forget(s, u);
    load(s, &l);
}

void lim__sys_upload_drop(lim__system *s)
{
    upload *u = upload_of(s);
    lim__buf b = { 0 };
    if (u == NULL)
        return;
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "upload", u->id);
    lim__json_close(&j);
    forget(s, u);
    lim__sys_answer(s, &b);
}

void lim__sys_artifacts_on_signal(lim__system *s, const lim_signal *signal)
{
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &lim__type_loaded)
        on_loaded(s, signal->body.ptr);
    if (signal->kind != LIM_SIGNAL_TIMER && signal->kind != LIM_SIGNAL_DOWN)
        return;
    LIM__LIST_EACH_SAFE(node, tmp, all(s)) {
        upload *u = LIM_CONTAINER(node, upload, node);
        bool over = signal->kind == LIM_SIGNAL_TIMER && u->timer == signal->ref;
        bool gone = signal->kind == LIM_SIGNAL_DOWN && u->monitor == signal->ref;
        if (over)
            u->timer = 0;
        if (gone)
            u->monitor = 0;
        if (over || gone)
            forget(s, u);
    }
}

void lim__sys_uploads_drop(lim__system *s)
{
    while (s->uploads.next != NULL && !lim__list_empty(&s->uploads)) {
        upload *u = LIM_CONTAINER(lim__list_pop(&s->uploads), upload, node);
        free(u->load.code); /* its timer and its monitor end with the process */
        free(u);
    }
}
