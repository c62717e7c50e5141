/* SPDX-License-Identifier: Apache-2.0
 * predicate_tree.c - a predicate as a tree: made, written as text, asked as it stands, and explained.
 *
 * Nodes, fields and literals are three arrays, and everything names its parts by their places; texts and paths are
 * blocks that live as long as the tree. Asking the tree is the plain meaning of the language, against which the code
 * is tested; explaining is asking without leaving anything out. */
#include "route/predicate.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct lim__pred_block {
    struct lim__pred_block *next;
    _Alignas(16) char bytes[];
};

void *lim__pred_alloc(lim__pred_tree *t, size_t bytes)
{
    struct lim__pred_block *b = malloc(sizeof *b + bytes + (bytes == 0));
    if (b == NULL)
        return NULL;
    b->next = t->blocks;
    t->blocks = b;
    return b->bytes;
}

void lim__pred_tree_fini(lim__pred_tree *t)
{
    while (t->blocks != NULL) {
        struct lim__pred_block *next = t->blocks->next;
        free(t->blocks);
        t->blocks = next;
    }
    free(t->nodes);
    free(t->fields);
    free(t->literals);
    *t = (lim__pred_tree){ 0 };
}

/* ---- making ---- */

/* One more of `n`; false: no memory. */
static bool grow(void **array, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    uint32_t more = *cap * 2 + 8;
    void *moved = realloc(*array, more * size);
    if (moved == NULL)
        return false;
    *array = moved;
    *cap = more;
    return true;
}

uint16_t lim__pred_node_add(lim__pred_tree *t, lim__pred_kind kind)
{
    if (t->node_count == LIM__PRED_NODES_MAX ||
        !grow((void **)&t->nodes, t->node_count, &t->node_cap, sizeof *t->nodes))
        return LIM__PRED_NONE;
    t->nodes[t->node_count] =
        (lim__pred_node){ .kind = kind, .child = LIM__PRED_NONE, .next = LIM__PRED_NONE, .last = LIM__PRED_NONE };
    return (uint16_t)t->node_count++;
}

uint16_t lim__pred_test_add(lim__pred_tree *t, lim__pred_kind kind, uint16_t field, const lim__val *literals,
                            uint32_t n)
{
    LIM_ASSERT(kind >= LIM__PRED_EXISTS && field < t->field_count);
    if (t->literal_count + n >= LIM__PRED_NONE)
        return LIM__PRED_NONE;
    uint32_t first = t->literal_count;
    for (uint32_t i = 0; i < n; i++) {
        if (!grow((void **)&t->literals, t->literal_count, &t->literal_cap, sizeof *t->literals))
            return LIM__PRED_NONE;
        t->literals[t->literal_count++] = literals[i];
    }
    uint16_t at = lim__pred_node_add(t, kind);
    if (at == LIM__PRED_NONE)
        return at;
    t->nodes[at].field = field;
    t->nodes[at].literal = (uint16_t)first;
    t->nodes[at].literals = (uint16_t)n;
    return at;
}

void lim__pred_child_add(lim__pred_tree *t, uint16_t parent, uint16_t child)
{
    lim__pred_node *p = &t->nodes[parent];
    LIM_ASSERT(p->kind < LIM__PRED_NOT || (p->kind == LIM__PRED_NOT && p->child == LIM__PRED_NONE));
    if (p->child == LIM__PRED_NONE)
        p->child = child;
    else
        t->nodes[p->last].next = child;
    p->last = child;
}

static bool same_steps(const lim__pred_field *a, const lim__pred_field *b)
{
    if (a->step_count != b->step_count)
        return false;
    for (uint32_t i = 0; i < a->step_count; i++) {
        const lim__pred_step *x = &a->steps[i], *y = &b->steps[i];
        if ((x->key.ptr == NULL) != (y->key.ptr == NULL) || !lim__bytes_eq(x->key, y->key) || x->index != y->index)
            return false;
    }
    return true;
}

/* However it was written. */
static bool same_field(const lim__pred_field *a, const lim__pred_field *b)
{
    return a->from == b->from && lim__bytes_eq(a->name, b->name) && same_steps(a, b);
}

uint16_t lim__pred_field_add(lim__pred_tree *t, const lim__pred_field *f)
{
    for (uint32_t i = 0; i < t->field_count; i++)
        if (same_field(&t->fields[i], f))
            return (uint16_t)i;
    if (t->field_count == LIM__PRED_FIELDS_MAX ||
        !grow((void **)&t->fields, t->field_count, &t->field_cap, sizeof *t->fields))
        return LIM__PRED_NONE;
    t->fields[t->field_count] = *f;
    return (uint16_t)t->field_count++;
}

/* ---- writing ---- */

static const char *word_of(lim__pred_kind kind)
{
    static const char *const words[] = {
        "",  "and", "or", "not",     "exists", "==",          "!=",        ">",
        "<", ">=",  "<=", "between", "in",     "starts_with", "ends_with", "contains"
    };
    static_assert(LIM_COUNT(words) == LIM__PRED_CONTAINS + 1, "a word for each");
    return words[kind];
}

static void print_literal(lim__val v, lim__buf *out)
{
    lim__json j = lim__json_begin(out);
    lim__json_val(&j, NULL, v);
}

static void print_test(const lim__pred_tree *t, const lim__pred_node *n, lim__buf *out)
{
    const lim_bytes field = t->fields[n->field].text;
    bool list = n->kind == LIM__PRED_IN;
    lim__buf_add(out, field.ptr, field.len);
    lim__buf_format(out, " %s%s", word_of(n->kind), list ? " [" : n->literals > 0 ? " " : "");
    for (uint32_t i = 0; i < n->literals; i++) {
        if (i > 0)
            lim__buf_text(out, list ? ", " : " and ");
        print_literal(t->literals[n->literal + i], out);
    }
    if (list)
        lim__buf_text(out, "]");
}

/* Of an `and` or `or`: each child, in parentheses if it is one of these itself. */
static void print_all(const lim__pred_tree *t, const lim__pred_node *n, lim__buf *out)
{
    if (n->child == LIM__PRED_NONE)
        lim__buf_text(out, n->kind == LIM__PRED_AND ? "true" : "false");
    else if (t->nodes[n->child].next == LIM__PRED_NONE) /* of one: the same as that one */
        lim__pred_print(t, n->child, out);
    else
        for (uint16_t c = n->child; c != LIM__PRED_NONE; c = t->nodes[c].next) {
            bool inside = t->nodes[c].kind < LIM__PRED_NOT && t->nodes[c].child != LIM__PRED_NONE;
            lim__buf_format(out, "%s%s%s%s", c != n->child ? " " : "", c != n->child ? word_of(n->kind) : "",
                            c != n->child ? " " : "", inside ? "(" : "");
            lim__pred_print(t, c, out);
            lim__buf_text(out, inside ? ")" : "");
        }
}

void lim__pred_print(const lim__pred_tree *t, uint16_t node, lim__buf *out)
{
    const lim__pred_node *n = &t->nodes[node];
    if (n->kind >= LIM__PRED_EXISTS) {
        print_test(t, n, out);
    } else if (n->kind == LIM__PRED_NOT) {
        bool inside = t->nodes[n->child].kind < LIM__PRED_NOT;
        lim__buf_text(out, inside ? "not (" : "not ");
        lim__pred_print(t, n->child, out);
        lim__buf_text(out, inside ? ")" : "");
    } else {
        print_all(t, n, out);
    }
}

/* ---- asking ---- */

bool lim__pred_tree_match(const lim__pred_tree *t, uint16_t node, lim__pred_reader *r)
{
    const lim__pred_node *n = &t->nodes[node];
    if (n->kind >= LIM__PRED_EXISTS)
        return lim__pred_test(n, t->literals, lim__pred_get(r, &t->fields[n->field]));
    if (n->kind == LIM__PRED_NOT)
        return !lim__pred_tree_match(t, n->child, r);
    bool all = n->kind == LIM__PRED_AND;
    for (uint16_t c = n->child; c != LIM__PRED_NONE; c = t->nodes[c].next)
        if (lim__pred_tree_match(t, c, r) != all)
            return !all;
    return all;
}

/* ---- explaining ---- */

enum { SHOWN_MAX = 200, FIELD_MAX = 60 };

static const char *people_kind(lim__kind kind)
{
    if (kind == LIM__INT || kind == LIM__UINT || kind == LIM__DOUBLE)
        return "a number";
    if (kind == LIM__ARRAY || kind == LIM__OBJECT)
        return kind == LIM__ARRAY ? "an array" : "an object";
    return kind == LIM__TEXT ? "a text" : kind == LIM__BOOL ? "true or false" : "null";
}

static void say_value(lim__val v, lim__buf *out)
{
    if (v.kind == LIM__ARRAY || v.kind == LIM__OBJECT)
        lim__buf_format(out, "%s of %zu", people_kind(v.kind), lim__val_count(v));
    else
        print_literal(v, out);
}

static bool is_number_kind(lim__kind kind)
{
    return kind == LIM__INT || kind == LIM__UINT || kind == LIM__DOUBLE;
}

/* No literal of the test can be compared with it. */
static bool is_unlike(const lim__pred_tree *t, const lim__pred_node *n, lim__val v)
{
    if (n->kind == LIM__PRED_CONTAINS && v.kind == LIM__ARRAY)
        return false;
    for (uint32_t i = 0; i < n->literals; i++)
        if (lim__pred_alike(v, t->literals[n->literal + i]))
            return false;
    return n->literals > 0;
}

/* At most so many bytes, and no part of a character. */
static size_t whole_chars(lim_bytes text, size_t max)
{
    if (text.len <= max)
        return text.len;
    while (max > 0 && (((const uint8_t *)text.ptr)[max] & 0xC0) == 0x80)
        max--;
    return max;
}

static void say_why(const lim__pred_tree *t, const lim__pred_node *n, lim__val v, lim__buf *out)
{
    lim_bytes field = t->fields[n->field].text;
    lim__buf_add(out, field.ptr, whole_chars(field, FIELD_MAX));
    lim__buf_text(out, " is ");
    if (v.kind == LIM__ABSENT) {
        lim__buf_text(out, "absent");
        return;
    }
    say_value(v, out);
    if (is_unlike(t, n, v) && v.kind < LIM__ARRAY)
        lim__buf_format(out, ": %s, and is compared with %s", people_kind(v.kind),
                        people_kind(t->literals[n->literal].kind));
    else if (is_unlike(t, n, v))
        lim__buf_text(out, ", which is like nothing");
    else if (n->kind >= LIM__PRED_GT && n->kind <= LIM__PRED_BETWEEN && v.kind != LIM__TEXT && !is_number_kind(v.kind))
        lim__buf_text(out, ": neither true, false nor null come before or behind anything");
}

/* A text with its NUL, cut between characters. VIEW of `b`. */
static const char *shown(lim__buf *b, size_t max)
{
    static const char cut[] = "...";
    if (b->failed)
        return "";
    if (lim__buf_len(b) > max) {
        b->end = b->start + whole_chars(lim__buf_bytes(b), max - sizeof cut);
        lim__buf_text(b, cut);
    }
    lim__buf_add(b, "", 1);
    return b->failed ? "" : (const char *)lim__buf_bytes(b).ptr;
}

static bool explain_test(const lim__pred_tree *t, uint16_t node, uint32_t depth, lim__pred_reader *r,
                         void (*on_step)(void *ctx, const lim_predicate_step *step), void *ctx)
{
    const lim__pred_node *n = &t->nodes[node];
    lim__buf text = { 0 }, why = { 0 };
    lim__val v = lim__pred_get(r, &t->fields[n->field]);
    bool verdict = lim__pred_test(n, t->literals, v);
    lim__pred_print(t, node, &text);
    say_why(t, n, v, &why);
    const lim_predicate_step step = { depth, verdict, shown(&text, SHOWN_MAX), shown(&why, SHOWN_MAX) };
    on_step(ctx, &step);
    lim__buf_fini(&text);
    lim__buf_fini(&why);
    return verdict;
}

bool lim__pred_explain(const lim__pred_tree *t, uint16_t node, uint32_t depth, lim__pred_reader *r,
                       void (*on_step)(void *ctx, const lim_predicate_step *step), void *ctx)
{
    const lim__pred_node *n = &t->nodes[node];
    if (n->kind >= LIM__PRED_EXISTS)
        return explain_test(t, node, depth, r, on_step, ctx);
    bool verdict = lim__pred_tree_match(t, node, r); /* told before those it is made of */
    const char *word = word_of(n->kind);
    if (n->child == LIM__PRED_NONE)
        word = verdict ? "true" : "false";
    const lim_predicate_step step = { depth, verdict, word, "" };
    on_step(ctx, &step);
    for (uint16_t c = n->child; c != LIM__PRED_NONE; c = t->nodes[c].next)
        (void)lim__pred_explain(t, c, depth + 1, r, on_step, ctx);
    return verdict;
}
