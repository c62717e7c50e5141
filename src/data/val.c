/* SPDX-License-Identifier: Apache-2.0
 * val.c - comfort on top of JSON values: faults told to people, paths, numbers, defaults, writing back. */
#include "data/data.h"

lim_err lim__doc_parse(lim__doc *doc, lim_bytes json, lim_diag *diag)
{
    const char *why = NULL;
    if (json.len > LIM__JSON_MAX) {
        lim__diag_set(diag, 0, 0, "%zu bytes of JSON, at most %d are taken", json.len, LIM__JSON_MAX);
        return LIM_E_TOOBIG;
    }
    bool mark = json.len >= 3 && memcmp(json.ptr, "\xEF\xBB\xBF", 3) == 0;
    /* simdjson would skip a byte order mark; with an empty text in its place the document is absent as promised */
    if (lim__doc_parse_raw(doc, mark ? (lim_bytes){ NULL, 0 } : json, &why) == 0)
        return LIM_OK;
    if (why == NULL) {
        lim__diag_set(diag, 0, 0, "no memory to parse %zu bytes of JSON", json.len);
        return LIM_E_NOMEM;
    }
    if (diag != NULL && !lim__json_fault(json, diag))
        lim__diag_set(diag, 0, 0, "not JSON: %s", why);
    return LIM_E_INVALID;
}

const char *lim__kind_text(lim__kind kind)
{
    static const char *const texts[] = { "absent", "null", "bool", "int", "uint", "double", "text", "array", "object" };
    return (size_t)kind < LIM_COUNT(texts) ? texts[kind] : "unknown";
}

/* ---- paths ---- */

/* "[12]" at *at: moves behind it. */
static bool take_index(const char *p, size_t len, size_t *at, size_t *index)
{
    size_t i = *at + 1, n = 0, digits = 0;
    for (; i < len && p[i] >= '0' && p[i] <= '9' && digits < 18; i++, digits++)
        n = n * 10 + (size_t)(p[i] - '0');
    if (digits == 0 || i >= len || p[i] != ']')
        return false;
    *at = i + 1;
    *index = n;
    return true;
}

static lim__val path_step(lim__val from, const char *p, size_t len, size_t *at)
{
    size_t index;
    if (p[*at] == '[')
        return take_index(p, len, at, &index) ? lim__val_at(from, index) : (lim__val){ .kind = LIM__ABSENT };
    if (p[*at] == '.')
        ++*at;
    size_t start = *at;
    while (*at < len && p[*at] != '.' && p[*at] != '[')
        ++*at;
    return lim__val_get_bytes(from, (lim_bytes){ p + start, *at - start });
}

lim__val lim__val_path_bytes(lim__val from, lim_bytes path)
{
    for (size_t at = 0; at < path.len && from.kind != LIM__ABSENT;)
        from = path_step(from, path.ptr, path.len, &at);
    return from;
}

lim__val lim__val_path(lim__val from, const char *path)
{
    return lim__val_path_bytes(from, lim__str(path));
}

/* ---- numbers ---- */

bool lim__val_as_i64(lim__val v, int64_t *out)
{
    if (v.kind == LIM__INT)
        *out = v.i;
    else if (v.kind == LIM__DOUBLE && v.d >= -0x1p63 && v.d < 0x1p63 && (double)(int64_t)v.d == v.d)
        *out = (int64_t)v.d;
    else
        return false;
    return true;
}

bool lim__val_as_u64(lim__val v, uint64_t *out)
{
    if (v.kind == LIM__UINT)
        *out = v.u;
    else if (v.kind == LIM__INT && v.i >= 0)
        *out = (uint64_t)v.i;
    else if (v.kind == LIM__DOUBLE && v.d >= 0 && v.d < 0x1p64 && (double)(uint64_t)v.d == v.d)
        *out = (uint64_t)v.d;
    else
        return false;
    return true;
}

bool lim__val_as_f64(lim__val v, double *out)
{
    if (v.kind == LIM__DOUBLE)
        *out = v.d;
    else if (v.kind == LIM__INT)
        *out = (double)v.i;
    else if (v.kind == LIM__UINT)
        *out = (double)v.u;
    else
        return false;
    return true;
}

/* ---- members with a default ---- */

lim_bytes lim__val_bytes(lim__val object, const char *key, lim_bytes otherwise)
{
    lim__val v = lim__val_get(object, key);
    return v.kind == LIM__TEXT ? v.text : otherwise;
}

const char *lim__val_str(lim__val object, const char *key, const char *otherwise)
{
    lim__val v = lim__val_get(object, key);
    if (v.kind != LIM__TEXT || memchr(v.text.ptr, 0, v.text.len) != NULL)
        return otherwise;
    const char *text = v.text.ptr;
    LIM_ASSERT(text[v.text.len] == 0);
    return text;
}

uint64_t lim__val_u64(lim__val object, const char *key, uint64_t otherwise)
{
    uint64_t n;
    return lim__val_as_u64(lim__val_get(object, key), &n) ? n : otherwise;
}

int64_t lim__val_i64(lim__val object, const char *key, int64_t otherwise)
{
    int64_t n;
    return lim__val_as_i64(lim__val_get(object, key), &n) ? n : otherwise;
}

double lim__val_f64(lim__val object, const char *key, double otherwise)
{
    double n;
    return lim__val_as_f64(lim__val_get(object, key), &n) ? n : otherwise;
}

bool lim__val_bool(lim__val object, const char *key, bool otherwise)
{
    lim__val v = lim__val_get(object, key);
    return v.kind == LIM__BOOL ? v.truth : otherwise;
}

/* ---- writing back ----
 * Depth is bounded by the parser, but may exceed what a lim__json nests: each scalar gets a writer of its own, and
 * brackets and commas are written here. */

static void write_val(lim__buf *b, lim__val v);

/* A whole double stays one: 2.0 would be read as an integer if it were written as 2, and -0.0 would lose its sign. */
static void write_double(lim__buf *b, double d)
{
    size_t from = b->end;
    lim__json j = lim__json_begin(b);
    lim__json_f64(&j, NULL, d);
    if (!b->failed && memchr(b->ptr + from, '.', b->end - from) == NULL &&
        memchr(b->ptr + from, 'e', b->end - from) == NULL)
        lim__buf_text(b, ".0");
}

static void write_scalar(lim__buf *b, lim__val v)
{
    lim__json j = lim__json_begin(b);
    switch (v.kind) {
    case LIM__BOOL:
        lim__json_bool(&j, NULL, v.truth);
        break;
    case LIM__INT:
        lim__json_i64(&j, NULL, v.i);
        break;
    case LIM__UINT:
        lim__json_u64(&j, NULL, v.u);
        break;
    case LIM__DOUBLE:
        write_double(b, v.d);
        break;
    case LIM__TEXT:
        lim__json_bytes(&j, NULL, v.text);
        break;
    case LIM__ABSENT:
    case LIM__NULL:
    case LIM__ARRAY:
    case LIM__OBJECT:
        lim__json_str(&j, NULL, NULL);
    }
}

static void write_items(lim__buf *b, lim__val v)
{
    lim__iter it = lim__iter_begin(v);
    while (lim__iter_next(&it)) {
        if (it.index > 0)
            lim__buf_text(b, ",");
        if (v.kind == LIM__OBJECT) {
            write_scalar(b, (lim__val){ .kind = LIM__TEXT, .text = it.key });
            lim__buf_text(b, ":");
        }
        write_val(b, it.val);
    }
}

static void write_val(lim__buf *b, lim__val v)
{
    if (v.kind != LIM__ARRAY && v.kind != LIM__OBJECT) {
        write_scalar(b, v);
        return;
    }
    lim__buf_text(b, v.kind == LIM__ARRAY ? "[" : "{");
    write_items(b, v);
    lim__buf_text(b, v.kind == LIM__ARRAY ? "]" : "}");
}

void lim__json_val(lim__json *j, const char *key, lim__val v)
{
    lim__buf text = { 0 };
    write_val(&text, v);
    if (text.failed)
        j->buf->failed = true;
    else
        lim__json_raw(j, key, lim__buf_bytes(&text));
    lim__buf_fini(&text);
}
