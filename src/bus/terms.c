/* SPDX-License-Identifier: Apache-2.0
 * terms.c - reads packed options. The one place that knows which there are and what they may be. */
#include "bus/terms.h"
#include "bus/channel.h"
#include "data/data.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind {
    KIND_NUMBER,
    KIND_ID,
    KIND_FLAG,
    KIND_MS,
    KIND_NAME,
    KIND_QUEUE,
    KIND_UNIQUE,
    KIND_ATTR,
    KIND_TRACE
} kind;

typedef struct option {
    const char *key;
    kind kind;
    uint64_t min, max; /* of numbers */
    size_t at;
    size_t size; /* of the number there */
} option;

#define PLACE(field) offsetof(lim__terms, field), sizeof(((lim__terms *)0)->field)
#define MS_MAX       (uint64_t)(365ull * 24 * 3600 * 1000 * 100)
static const option options[] = {
    { "parent", KIND_ID, 0, 0, PLACE(parent) },
    { "hops", KIND_NUMBER, 0, UINT16_MAX, PLACE(hops) },
    { "traceparent", KIND_TRACE, 0, 0, PLACE(traceparent) },
    { "trace", KIND_FLAG, 0, 0, PLACE(trace) },
    { "compensate", KIND_QUEUE, 0, 0, PLACE(compensate) },
    { "window", KIND_NUMBER, 1, 65536, PLACE(window) },
    { "quorum", KIND_NUMBER, 0, 1024, PLACE(quorum) },
    { "priority", KIND_NUMBER, 0, 9, PLACE(priority) },
    { "key", KIND_NAME, 0, 0, PLACE(key) },
    { "weight", KIND_NUMBER, 1, 1000, PLACE(weight) },
    { "order_key", KIND_NAME, 0, 0, PLACE(order_key) },
    { "unique_key", KIND_NAME, 0, 0, PLACE(unique_key) },
    { "on_duplicate", KIND_UNIQUE, 0, 0, PLACE(on_duplicate) },
    { "idempotency_key", KIND_NAME, 0, 0, PLACE(idempotency_key) },
    { "delay_ms", KIND_MS, 0, MS_MAX, PLACE(delay_ns) },
    { "start_to_close_ms", KIND_MS, 1, MS_MAX, PLACE(start_to_close_ns) },
    { "progress_ms", KIND_MS, 1, MS_MAX, PLACE(progress_ns) },
    { "report_to", KIND_ID, 0, 0, PLACE(report_to) },
    { "name", KIND_NAME, 0, 0, PLACE(name) },
    { "attr", KIND_ATTR, 0, 0, 0, 0 },
    { "inbox_max", KIND_NUMBER, 1, 1000000, PLACE(inbox_max) },
    { "attach", KIND_ID, 0, 0, PLACE(attach) },
    { "required", KIND_FLAG, 0, 0, PLACE(required) },
    { "durable", KIND_FLAG, 0, 0, PLACE(durable) },
};

static const lim__terms defaults = { .priority = 4, .weight = 1, .inbox_max = 1024, .on_duplicate = LIM_UNIQUE_REJECT };

static const option *option_named(lim_bytes key)
{
    for (size_t i = 0; i < LIM_COUNT(options); i++)
        if (lim__bytes_eq(key, lim__str(options[i].key)))
            return &options[i];
    return NULL;
}

static bool number(lim_bytes text, unsigned base, uint64_t *out)
{
    uint64_t n = 0;
    if (text.len == 0 || text.len > 20)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = ((const char *)text.ptr)[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 99;
        if (digit >= base || n > (UINT64_MAX - digit) / base)
            return false;
        n = n * base + digit;
    }
    *out = n;
    return true;
}

static void store(lim__terms *t, const option *o, uint64_t n)
{
    char *at = (char *)t + o->at;
    if (o->size == 1)
        *(uint8_t *)at = (uint8_t)n;
    else if (o->size == 2)
        *(uint16_t *)(void *)at = (uint16_t)n;
    else if (o->size == 4)
        *(uint32_t *)(void *)at = (uint32_t)n;
    else
        *(uint64_t *)(void *)at = n;
}

static lim_err bad(lim_diag *diag, const option *o, lim_bytes text, const char *what)
{
    lim__diag_set(diag, 0, 0, "option %s: '%.*s' is not %s", o->key, text.len < 60 ? (int)text.len : 60,
                  (const char *)text.ptr, what);
    return LIM_E_INVALID;
}

static lim_err set_number(lim__terms *t, const option *o, lim_bytes text, lim_diag *diag)
{
    uint64_t n;
    if (number(text, 10, &n) && n >= o->min && n <= o->max) {
        store(t, o, o->kind == KIND_MS ? n * 1000000 : n);
        return LIM_OK;
    }
    lim__diag_set(diag, 0, 0, "option %s: '%.*s' is not a whole number from %llu to %llu", o->key,
                  text.len < 60 ? (int)text.len : 60, (const char *)text.ptr, (unsigned long long)o->min,
                  (unsigned long long)o->max);
    return LIM_E_INVALID;
}

static lim_err set(lim__terms *t, const option *o, lim_bytes text, lim_diag *diag)
{
    static const char *const unique[] = { "", "reject", "replace", "join" };
    uint64_t n;
    switch (o->kind) {
    case KIND_NUMBER:
    case KIND_MS:
        return set_number(t, o, text, diag);
    case KIND_ID:
        if (!number(text, 16, &n) || n == 0)
            return bad(diag, o, text, "an id, in hexadecimal digits");
        store(t, o, n);
        return LIM_OK;
    case KIND_FLAG:
        if (!lim__bytes_eq(text, lim__str("1")))
            return bad(diag, o, text, "1");
        store(t, o, 1);
        return LIM_OK;
    case KIND_UNIQUE:
        for (uint32_t i = 1; i < LIM_COUNT(unique); i++)
            if (lim__bytes_eq(text, lim__str(unique[i]))) {
                t->on_duplicate = (lim_unique)i;
                return LIM_OK;
            }
        return bad(diag, o, text, "reject, replace or join");
    case KIND_QUEUE:
        if (!lim__channel_name_ok(text) || *(const char *)text.ptr == '$')
            return bad(diag, o, text, "the name of a queue");
        break;
    case KIND_ATTR:
        if (memchr(text.ptr, '=', text.len) == NULL || *(const char *)text.ptr == '=')
            return bad(diag, o, text, "of the form key=value");
        return LIM_OK;
    case KIND_TRACE:
        if (text.len != 55)
            return bad(diag, o, text, "a W3C traceparent of 55 characters");
        break;
    case KIND_NAME:
        if (text.len == 0 || text.len > LIM__TERMS_KEY_MAX)
            return bad(diag, o, text, "1 to 255 bytes long");
        break;
    }
    memcpy((char *)t + o->at, &text, sizeof text);
    return LIM_OK;
}

static lim_err read_all(lim__terms *t, lim_diag *diag)
{
    size_t pos = 0;
    uint32_t attributes = 0;
    lim_bytes key, text;
    while (lim__packed_next(t->block, &pos, &key, &text)) {
        const option *o = option_named(key);
        if (o == NULL) {
            lim__diag_set(diag, 0, 0, "option '%.*s' is unknown", key.len < 60 ? (int)key.len : 60,
                          (const char *)key.ptr);
            return LIM_E_INVALID;
        }
        lim_err err = set(t, o, text, diag);
        if (err != LIM_OK)
            return err;
        t->gather |= strcmp(o->key, "quorum") == 0;
        if (o->kind == KIND_ATTR && ++attributes > LIM__ATTRIBUTES_MAX) {
            lim__diag_set(diag, 0, 0, "more than %d attributes", LIM__ATTRIBUTES_MAX);
            return LIM_E_INVALID;
        }
    }
    return LIM_OK;
}

lim_err lim__terms_parse(lim_bytes block, lim_diag *diag, lim__terms **out)
{
    *out = NULL;
    if (block.len == 0)
        return LIM_OK;
    if (!lim__packed_valid(block)) {
        lim__diag_set(diag, 0, 0, "the options are not a list of names and texts");
        return LIM_E_INVALID;
    }
    lim__terms *t = malloc(sizeof *t + block.len);
    if (t == NULL)
        return LIM_E_NOMEM;
    memcpy((void *)t, &defaults, sizeof *t);
    atomic_init(&t->refs, 1);
    memcpy(t->bytes, block.ptr, block.len);
    t->block = lim__bytes(t->bytes, block.len);
    lim_err err = read_all(t, diag);
    if (err != LIM_OK) {
        free(t);
        return err;
    }
    *out = t;
    return LIM_OK;
}

lim__terms *lim__terms_ref(lim__terms *t)
{
    if (t != NULL)
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void lim__terms_unref(lim__terms *t)
{
    if (t != NULL && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
        free(t);
}

const lim__terms *lim__terms_or_default(const lim__terms *t)
{
    return t != NULL ? t : &defaults;
}

bool lim__terms_attribute(const lim__terms *t, lim_bytes key, lim_bytes *value)
{
    size_t pos = 0;
    lim_bytes k, text;
    while (t != NULL && lim__packed_next(t->block, &pos, &k, &text)) {
        if (!lim__bytes_eq(k, lim__str("attr")) || text.len <= key.len || memcmp(text.ptr, key.ptr, key.len) != 0 ||
            ((const char *)text.ptr)[key.len] != '=')
            continue;
        *value = lim__bytes((const char *)text.ptr + key.len + 1, text.len - key.len - 1);
        return true;
    }
    return false;
}
