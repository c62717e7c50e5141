/* SPDX-License-Identifier: Apache-2.0
 * predicate_value.c - a message's fields, and two values compared.
 *
 * A message is read as far as somebody asks: headers in place; members of a short, plain object in place, too
 * (lua_fields.c); for all else it becomes a document, once. A payload that is no JSON has no fields, but a size.
 *
 * Numbers compare by value, and exactly: what a double cannot hold is not rounded to it. Texts compare bytewise. All
 * other kinds are equal or not, and nothing is like a value of another kind: then every test is false. */
#include "route/predicate.h"

void lim__pred_reader_begin(lim__pred_reader *r, lim_bytes payload, lim_bytes headers)
{
    r->payload = payload;
    r->headers = headers;
    r->plain = r->parsed = LIM__PRED_UNREAD;
    r->looked = 0;
}

void lim__pred_reader_fini(lim__pred_reader *r)
{
    lim__doc_free(r->doc);
    r->doc = NULL;
}

/* ---- fields ---- */

static lim__val absent(void)
{
    return (lim__val){ .kind = LIM__ABSENT };
}

static lim__val text_of(lim_bytes text)
{
    return (lim__val){ .kind = LIM__TEXT, .text = text };
}

static lim__val plain_value(const lim__pred_reader *r, const struct lim__lua_field *f)
{
    lim__val v = { .kind = f->kind };
    if (f->kind == LIM__TEXT)
        v.text = lim__bytes((const char *)r->payload.ptr + f->at, f->len);
    else if (f->kind == LIM__DOUBLE)
        v.d = lim__lua_field_double(f);
    else if (f->kind == LIM__INT)
        v.i = f->i;
    else if (f->kind == LIM__BOOL)
        v.truth = f->truth;
    return v;
}

/* Without a document. False: there has to be one. */
static bool get_plain(lim__pred_reader *r, const lim__pred_field *f, lim__val *out)
{
    if (f->steps[0].key.ptr == NULL || r->plain == LIM__PRED_BAD || r->parsed == LIM__PRED_GOOD)
        return false;
    if (r->plain == LIM__PRED_UNREAD)
        r->plain = lim__lua_fields_read(&r->fields, r->payload) ? LIM__PRED_GOOD : LIM__PRED_BAD;
    if (r->plain == LIM__PRED_BAD)
        return false;
    const struct lim__lua_field *found = lim__lua_fields_get(&r->fields, r->payload, f->steps[0].key);
    if (found != NULL && found->kind >= LIM__ARRAY)
        return false;
    *out = found != NULL && f->step_count == 1 ? plain_value(r, found) : absent();
    return true;
}

static lim__val root_of(lim__pred_reader *r)
{
    if (r->parsed == LIM__PRED_UNREAD) {
        if (r->doc == NULL)
            r->doc = lim__doc_new();
        bool good = r->doc != NULL && lim__doc_parse(r->doc, r->payload, NULL) == LIM_OK;
        r->parsed = good ? LIM__PRED_GOOD : LIM__PRED_BAD;
    }
    return r->parsed == LIM__PRED_GOOD ? lim__doc_root(r->doc) : absent();
}

static lim__val walk(lim__val v, const lim__pred_field *f)
{
    for (uint32_t i = 0; i < f->step_count && v.kind != LIM__ABSENT; i++) {
        const lim__pred_step *s = &f->steps[i];
        v = s->key.ptr != NULL ? lim__val_get_bytes(v, s->key) : lim__val_at(v, s->index);
    }
    return v;
}

lim__val lim__pred_get(lim__pred_reader *r, const lim__pred_field *f)
{
    lim_bytes text;
    lim__val v;
    r->looked++;
    switch (f->from) {
    case LIM__PRED_SIZE:
        return (lim__val){ .kind = LIM__INT, .i = (int64_t)r->payload.len };
    case LIM__PRED_HEADER:
        return lim__packed_get(r->headers, f->name, &text) ? text_of(text) : absent();
    case LIM__PRED_PAYLOAD:
        break;
    }
    return get_plain(r, f, &v) ? v : walk(root_of(r), f);
}

/* ---- comparing ---- */

typedef enum order { LESS = 1, SAME, MORE, OTHER, UNLIKE } order; /* OTHER: not the same, and neither comes first */

static order order_of(int c)
{
    return c < 0 ? LESS : c > 0 ? MORE : SAME;
}

static order texts(lim_bytes a, lim_bytes b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;
    return order_of(c != 0 ? c : a.len < b.len ? -1 : a.len > b.len);
}

/* A whole number with its sign apart, so that all 64 bits of either kind fit. */
typedef struct whole {
    bool negative;
    uint64_t size;
} whole;

static whole whole_of(lim__val v)
{
    if (v.kind == LIM__UINT)
        return (whole){ false, v.u };
    return v.i < 0 ? (whole){ true, 0 - (uint64_t)v.i } : (whole){ false, (uint64_t)v.i };
}

static order wholes(whole a, whole b)
{
    if (a.negative != b.negative)
        return a.negative ? LESS : MORE;
    if (a.size == b.size)
        return SAME;
    return (a.size < b.size) != a.negative ? LESS : MORE;
}

/* d is no NaN. Within 64 bits its whole part is exact, and what is behind the point decides if that is the same. */
static order whole_and_double(whole w, double d)
{
    bool negative = d < 0;
    double size = negative ? -d : d;
    if (size >= 0x1p64)
        return negative ? MORE : LESS;
    whole part = { negative, (uint64_t)size };
    if (part.size == 0)
        part.negative = false;
    order o = wholes(w, part);
    double rest = size - (double)part.size;
    if (o != SAME || rest == 0 || LIM__MUTATION("predicate_rounds"))
        return o;
    return negative ? MORE : LESS;
}

static order turned(order o)
{
    return o == LESS ? MORE : o == MORE ? LESS : o;
}

static order doubles(double a, double b)
{
    return a < b ? LESS : a > b ? MORE : a == b ? SAME : UNLIKE; /* NaN is like nothing */
}

static bool is_number(lim__val v)
{
    return v.kind == LIM__INT || v.kind == LIM__UINT || v.kind == LIM__DOUBLE;
}

static order numbers(lim__val a, lim__val b)
{
    if (a.kind == LIM__DOUBLE && b.kind == LIM__DOUBLE)
        return doubles(a.d, b.d);
    if ((a.kind == LIM__DOUBLE && a.d != a.d) || (b.kind == LIM__DOUBLE && b.d != b.d))
        return UNLIKE;
    if (b.kind == LIM__DOUBLE)
        return whole_and_double(whole_of(a), b.d);
    if (a.kind == LIM__DOUBLE)
        return turned(whole_and_double(whole_of(b), a.d));
    return wholes(whole_of(a), whole_of(b));
}

static order compare(lim__val a, lim__val b)
{
    if (is_number(a) && is_number(b))
        return numbers(a, b);
    if (a.kind != b.kind)
        return UNLIKE;
    if (a.kind == LIM__TEXT)
        return texts(a.text, b.text);
    if (a.kind == LIM__BOOL)
        return a.truth == b.truth ? SAME : OTHER;
    return a.kind == LIM__NULL ? SAME : UNLIKE;
}

bool lim__pred_alike(lim__val a, lim__val b)
{
    return compare(a, b) != UNLIKE;
}

/* ---- tests ---- */

static bool is_ordered(lim__val v)
{
    return is_number(v) || v.kind == LIM__TEXT;
}

static bool is_least(lim__val v, lim__val least)
{
    order o = compare(v, least);
    return is_ordered(v) && (o == MORE || o == SAME);
}

static bool is_most(lim__val v, lim__val most)
{
    order o = compare(v, most);
    return is_ordered(v) && (o == LESS || o == SAME);
}

static bool is_in(lim__val v, const lim__val *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (compare(v, list[i]) == SAME)
            return true;
    return false;
}

static bool has_element(lim__val array, lim__val wanted)
{
    lim__iter it = lim__iter_begin(array);
    while (lim__iter_next(&it))
        if (compare(it.val, wanted) == SAME)
            return true;
    return false;
}

static bool has_part(lim_bytes text, lim_bytes part)
{
    return part.len == 0 || (text.len >= part.len && memmem(text.ptr, text.len, part.ptr, part.len) != NULL);
}

static bool begins(lim_bytes text, lim_bytes with)
{
    return text.len >= with.len && (with.len == 0 || memcmp(text.ptr, with.ptr, with.len) == 0);
}

static bool ends(lim_bytes text, lim_bytes with)
{
    size_t n = with.len;
    return text.len >= n && (n == 0 || memcmp((const char *)text.ptr + text.len - n, with.ptr, n) == 0);
}

static bool contains(lim__val v, lim__val wanted)
{
    if (v.kind == LIM__ARRAY)
        return has_element(v, wanted);
    return v.kind == LIM__TEXT && wanted.kind == LIM__TEXT && has_part(v.text, wanted.text);
}

bool lim__pred_test(const lim__pred_node *node, const lim__val *literals, lim__val v)
{
    const lim__val *list = literals + node->literal, a = node->literals > 0 ? list[0] : absent();
    if (v.kind == LIM__ABSENT)
        return false;
    order o = node->kind >= LIM__PRED_EQ && node->kind <= LIM__PRED_LT ? compare(v, a) : UNLIKE;
    switch (node->kind) {
    case LIM__PRED_EXISTS:
        return true;
    case LIM__PRED_EQ:
        return o == SAME;
    case LIM__PRED_NE:
        return o == LESS || o == MORE || o == OTHER;
    case LIM__PRED_GT:
        return o == MORE;
    case LIM__PRED_LT:
        return o == LESS;
    case LIM__PRED_GE:
        return is_least(v, a);
    case LIM__PRED_LE:
        return is_most(v, a);
    case LIM__PRED_BETWEEN:
        return is_least(v, a) && is_most(v, list[1]);
    case LIM__PRED_IN:
        return is_in(v, list, node->literals);
    case LIM__PRED_STARTS:
        return v.kind == LIM__TEXT && begins(v.text, a.text);
    case LIM__PRED_ENDS:
        return v.kind == LIM__TEXT && ends(v.text, a.text);
    case LIM__PRED_CONTAINS:
        return contains(v, a);
    case LIM__PRED_AND:
    case LIM__PRED_OR:
    case LIM__PRED_NOT:
        break;
    }
    LIM_ASSERT(!"a test");
    return false;
}
