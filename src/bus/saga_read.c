/* SPDX-License-Identifier: Apache-2.0
 * saga_read.c - a run request, read: everything that may be wrong with it is told before anything begins. */
#include "base/base64.h"
#include "bus/saga_inside.h"
#include "data/options.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)
enum { STEP_MS = 60000, UNDO_MS = 3600000, ALL_MS = 600000 };
#define MS_MOST (UINT64_C(30) * 24 * 3600 * 1000)

typedef struct reader {
    lim__saga *saga;
    char *at;      /* where the next text goes */
    uint32_t step; /* for words: from 1; 0: the saga itself */
    lim_err err;
    char words[300];
} reader;

static bool wrong(reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(reader *r, const char *format, ...)
{
    va_list args;
    if (r->err != LIM_OK)
        return false;
    r->err = LIM_E_INVALID;
    int used = r->step > 0 ? snprintf(r->words, sizeof r->words, "step %u: ", r->step) : 0;
    va_start(args, format);
    vsnprintf(r->words + used, sizeof r->words - (size_t)used, format, args);
    va_end(args);
    return false;
}

static bool no_memory(reader *r)
{
    if (r->err == LIM_OK)
        r->err = LIM_E_NOMEM;
    return false;
}

static lim_bytes keep(reader *r, lim_bytes text)
{
    char *at = r->at;
    if (text.len > 0)
        memcpy(at, text.ptr, text.len);
    r->at += text.len;
    return lim__bytes(at, text.len);
}

static bool read_text(reader *r, lim__val from, const char *key, const char *otherwise, lim_bytes *out)
{
    lim__val v = lim__val_get(from, key);
    if (lim__val_present(v) && (v.kind != LIM__TEXT || v.text.len > 255))
        return wrong(r, "\"%s\" is no text of at most 255 bytes", key);
    *out = keep(r, lim__val_present(v) ? v.text : lim__str(otherwise));
    return true;
}

static bool read_ms(reader *r, lim__val from, const char *key, uint64_t otherwise, uint64_t *out_ns)
{
    uint64_t ms = otherwise;
    lim__val v = lim__val_get(from, key);
    if (lim__val_present(v) && (!lim__val_as_u64(v, &ms) || ms < 1 || ms > MS_MOST))
        return wrong(r, "\"%s\" is no number of milliseconds from 1 to %" PRIu64 " (30 days)", key, MS_MOST);
    *out_ns = ms * MS;
    return true;
}

static bool read_name(reader *r, lim__val from, const char *key, bool system, lim_bytes *out)
{
    if (!read_text(r, from, key, "", out))
        return false;
    if (out->len == 0 && !lim__val_present(lim__val_get(from, key)))
        return true;
    if (lim__channel_name_ok(*out) && (system || *(const char *)out->ptr != '$'))
        return true;
    return wrong(r, "\"%s\": '%.*s' is no name; use letters, digits, - and _, joined by dots", key,
                 (int)(out->len < 60 ? out->len : 60), (const char *)out->ptr);
}

/* "payload" (text as it is, else as its JSON) or "payload_base64"; NULL: neither. */
static bool read_payload(reader *r, lim__val from, const char *key, const char *raw_key, lim__msg **out)
{
    lim__val v = lim__val_get(from, key), raw = raw_key != NULL ? lim__val_get(from, raw_key) : (lim__val){ 0 };
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (!lim__val_present(v) && !lim__val_present(raw))
        return true;
    bool good = !lim__val_present(v) || !lim__val_present(raw);
    if (v.kind == LIM__TEXT)
        lim__buf_add(&b, v.text.ptr, v.text.len);
    else if (lim__val_present(v))
        lim__json_val(&j, NULL, v);
    else
        good = raw.kind == LIM__TEXT && lim__base64_read(&b, raw.text);
    *out = good && !b.failed ? lim__msg_new(lim__buf_bytes(&b)) : NULL;
    bool failed = b.failed;
    r->saga->bytes += lim__buf_len(&b);
    lim__buf_fini(&b);
    if (!good && !failed)
        return wrong(r, "\"%s\" is base64 text, and there is no \"%s\" beside it", raw_key, key);
    return *out != NULL || no_memory(r);
}

static bool known_fields(reader *r, lim__val from)
{
    static const char *const all[] = { "name",
                                       "ask",
                                       "dispatch",
                                       "type",
                                       "payload",
                                       "timeout_ms",
                                       "payload_base64",
                                       "compensate",
                                       "compensation",
                                       "compensation_type",
                                       "compensation_timeout_ms" };
    lim__iter it = lim__iter_begin(from);
    while (lim__iter_next(&it)) {
        bool known = false;
        for (size_t i = 0; i < LIM_COUNT(all); i++)
            known |= lim__bytes_eq(it.key, lim__str(all[i]));
        if (!known)
            return wrong(
                r,
                "\"%.*s\" is unknown; a step has name, ask or dispatch, type, payload, timeout_ms, compensate, "
                "compensation, compensation_type, compensation_timeout_ms",
                (int)(it.key.len < 60 ? it.key.len : 60), (const char *)it.key.ptr);
    }
    return true;
}

static bool read_undo(reader *r, lim__val from, lim__saga_work *w)
{
    static const char *const others[] = { "compensation", "compensation_type", "compensation_timeout_ms" };
    w->task = true;
    if (!read_name(r, from, "compensate", false, &w->group))
        return false;
    for (size_t i = 0; w->group.len == 0 && i < LIM_COUNT(others); i++)
        if (lim__val_present(lim__val_get(from, others[i])))
            return wrong(r, "\"%s\" needs \"compensate\", the queue that undoes the step", others[i]);
    return read_text(r, from, "compensation_type", "compensate", &w->type) &&
           read_ms(r, from, "compensation_timeout_ms", UNDO_MS, &w->timeout_ns) &&
           read_payload(r, from, "compensation", NULL, &w->payload);
}

static bool read_work(reader *r, lim__val from, lim__saga_work *w)
{
    w->task = lim__val_present(lim__val_get(from, "dispatch"));
    if (w->task == lim__val_present(lim__val_get(from, "ask")))
        return wrong(r, "say who does it: \"ask\", a group, or \"dispatch\", a queue");
    if (!read_name(r, from, w->task ? "dispatch" : "ask", !w->task, &w->group) ||
        !read_text(r, from, "type", "", &w->type) || !read_ms(r, from, "timeout_ms", STEP_MS, &w->timeout_ns) ||
        !read_payload(r, from, "payload", "payload_base64", &w->payload))
        return false;
    if (w->group.len == 0)
        return wrong(r, "\"%s\" is empty", w->task ? "dispatch" : "ask");
    if (w->payload == NULL)
        w->payload = lim__msg_new(lim__bytes("", 0));
    return w->payload != NULL || no_memory(r);
}

static bool read_step(reader *r, lim__val from, lim__saga_one *one)
{
    char number[16];
    snprintf(number, sizeof number, "%u", r->step);
    if (from.kind != LIM__OBJECT)
        return wrong(r, "it is no object");
    if (!known_fields(r, from) || !read_text(r, from, "name", number, &one->name) || !read_work(r, from, &one->step) ||
        !read_undo(r, from, &one->undo))
        return false;
    if (one->name.len == 0)
        return wrong(r, "its \"name\" is empty; leave it out for a number");
    for (const lim__saga_one *other = r->saga->ones; other < one; other++)
        if (lim__bytes_eq(other->name, one->name))
            return wrong(r, "there is another step of the name %.*s", (int)one->name.len, (const char *)one->name.ptr);
    return true;
}

static bool read_steps(reader *r, lim__val root)
{
    lim__val steps = lim__val_get(root, "steps");
    size_t count = lim__val_count(steps);
    lim__saga *saga = r->saga;
    if (steps.kind != LIM__ARRAY || count < 1 || count > LIM__SAGA_STEPS_MAX)
        return wrong(r, "\"steps\" is no list of 1 to %d steps, as [{\"ask\":\"stock\",\"payload\":\"...\"}]",
                     LIM__SAGA_STEPS_MAX);
    saga->ones = calloc(count, sizeof *saga->ones);
    if (saga->ones == NULL)
        return no_memory(r);
    saga->plan.count = (uint32_t)count; /* now what is there will be freed */
    saga->bytes += count * sizeof *saga->ones;
    lim__iter it = lim__iter_begin(steps);
    while (lim__iter_next(&it)) {
        r->step = (uint32_t)it.index + 1;
        if (!read_step(r, it.val, &saga->ones[it.index]))
            return false;
        saga->plan.steps[it.index].undoable = saga->ones[it.index].undo.group.len > 0;
    }
    r->step = 0;
    return true;
}

/* Its texts are at most as long as the request that they came in, and the names and types that stand for none. */
static bool text_room(reader *r, lim__val root)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_val(&j, NULL, root);
    size_t room = lim__buf_len(&b) + LIM__SAGA_STEPS_MAX * (sizeof "compensate" + 4);
    bool failed = b.failed;
    lim__buf_fini(&b);
    r->saga->text = failed ? NULL : malloc(room);
    r->saga->bytes = sizeof *r->saga + room;
    r->at = r->saga->text;
    return r->at != NULL || no_memory(r);
}

lim__saga *lim__saga_read(lim__system *s)
{
    reader r = { .saga = calloc(1, sizeof(lim__saga)) };
    uint64_t timeout_ns = 0;
    if (r.saga == NULL) {
        lim__sys_refuse(s, LIM_E_NOMEM, "out of memory");
        return NULL;
    }
    r.saga->durable = lim__val_bool(s->root, "durable", false);
    if (text_room(&r, s->root) && read_text(&r, s->root, "name", "", &r.saga->name) &&
        read_ms(&r, s->root, "timeout_ms", ALL_MS, &timeout_ns) && read_steps(&r, s->root)) {
        r.saga->begun_ns = lim_now_ns(s->self);
        r.saga->deadline_ns = r.saga->begun_ns + timeout_ns;
        r.saga->asker = s->asker;
        return r.saga;
    }
    LIM_ASSERT(r.err != LIM_OK);
    lim__sys_refuse(s, r.err, "%s", r.err == LIM_E_NOMEM ? "out of memory" : r.words);
    lim__saga_free(r.saga);
    return NULL;
}

static void work_fini(lim__saga_work *w)
{
    lim__msg_unref(w->payload);
    lim__msg_unref(w->reply);
}

void lim__saga_free(lim__saga *saga)
{
    if (saga == NULL)
        return;
    for (uint32_t i = 0; saga->ones != NULL && i < saga->plan.count; i++) {
        work_fini(&saga->ones[i].step);
        work_fini(&saga->ones[i].undo);
    }
    lim__terms_unref(saga->terms);
    lim__buf_fini(&saga->request);
    free(saga->ones);
    free(saga->text);
    free(saga);
}
