/* SPDX-License-Identifier: Apache-2.0
 * predicate_parse.c - from text to tree, and what was expected where it does not go on.
 *
 *      any    = all { "or" all }
 *      all    = one { "and" one }
 *      one    = "not" one | "(" any ")" | "true" | "false" | test
 *      test   = field ( "exists" | op value | "between" value "and" value | "in" "[" value { "," value } "]"
 *                     | ( "starts_with" | "ends_with" ) text | "contains" value )
 *      op     = "==" | "!=" | ">" | "<" | ">=" | "<="
 *      value  = text | number | "true" | "false" | "null"                    texts and numbers as in JSON
 *      field  = path | "$header." name | "$header" "[" text "]" | "$key" | "$size"
 *      path   = ( word | "[" text "]" | "[" number "]" ) { "." word | "[" text "]" | "[" number "]" }
 *
 * A field whose name is a word of the language, or has other characters, is written ["in"], or a["x.y"]. Texts and
 * numbers are read by the reader of messages, so that nothing is a little different here. */
#include "route/predicate.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct parser {
    const char *start, *end, *p;
    uint32_t depth;
    lim__pred_tree *t;
    lim__doc *doc; /* for literals */
    lim_err err;   /* the first one; then all goes home */
    lim_diag *diag;
} parser;

/* ---- faults ---- */

static uint16_t fail(parser *s, lim_err err, const char *at, const char *what)
{
    int line = 1, column = 1;
    if (s->err != LIM_OK)
        return LIM__PRED_NONE;
    for (const char *p = s->start; p < at; p++) {
        column = *p == '\n' ? 1 : column + 1;
        line += *p == '\n';
    }
    s->err = err;
    lim__diag_set(s->diag, line, column, "line %d, column %d: %s", line, column, what);
    return LIM__PRED_NONE;
}

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           (unsigned char)c >= 0x80;
}

/* What stands at `p`, for people. */
static size_t found_len(const parser *s, const char *p)
{
    size_t n = *p == '$';
    while (n < 24 && p + n < s->end && is_word_char(p[n]))
        n++;
    while (n == 24 && ((unsigned char)p[n - 1] & 0xC0) == 0x80) /* not in the middle of a character */
        n--;
    return n > 0 ? n : 1;
}

static uint16_t expected(parser *s, const char *what)
{
    char text[200];
    if (s->p == s->end)
        snprintf(text, sizeof text, "expected %s, but the text ends here", what);
    else
        snprintf(text, sizeof text, "expected %s, found '%.*s'", what, (int)found_len(s, s->p), s->p);
    return fail(s, LIM_E_INVALID, s->p, text);
}

static uint16_t no_room(parser *s, bool is_limit, const char *what)
{
    return is_limit ? fail(s, LIM_E_TOOBIG, s->p, what) : fail(s, LIM_E_NOMEM, s->p, "out of memory");
}

/* ---- words ---- */

static void blanks(parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

static bool take_char(parser *s, char c)
{
    blanks(s);
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

static size_t word_len(const parser *s)
{
    size_t n = 0;
    while (s->p + n < s->end && is_word_char(s->p[n]))
        n++;
    return n;
}

static bool take_word(parser *s, const char *word)
{
    blanks(s);
    size_t n = strlen(word);
    if (word_len(s) != n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

static bool is_reserved(const char *p, size_t n)
{
    static const char *const words[] = { "and",         "or",        "not",      "in",   "between", "exists",
                                         "starts_with", "ends_with", "contains", "true", "false",   "null" };
    for (size_t i = 0; i < LIM_COUNT(words); i++)
        if (strlen(words[i]) == n && memcmp(words[i], p, n) == 0)
            return true;
    return false;
}

/* ---- literals ---- */

static bool keep_text(parser *s, lim__val *v)
{
    char *copy = lim__pred_alloc(s->t, v->text.len);
    if (copy == NULL)
        return no_room(s, false, "") != LIM__PRED_NONE;
    if (v->text.len > 0)
        memcpy(copy, v->text.ptr, v->text.len);
    v->text.ptr = copy;
    return true;
}

/* A JSON value from the cursor to `end`. */
static bool read_json(parser *s, const char *end, const char *what, lim__val *out)
{
    lim_diag diag = { 0 };
    char text[200];
    lim_err err = lim__doc_parse(s->doc, lim__bytes(s->p, (size_t)(end - s->p)), &diag);
    if (err == LIM_E_NOMEM)
        return no_room(s, false, "") != LIM__PRED_NONE;
    if (err != LIM_OK) {
        const char *why = strstr(diag.text, ": ");
        snprintf(text, sizeof text, "%s: %.140s", what, why != NULL ? why + 2 : diag.text);
        return fail(s, LIM_E_INVALID, s->p + (diag.column > 0 ? diag.column - 1 : 0), text) != LIM__PRED_NONE;
    }
    *out = lim__doc_root(s->doc);
    s->p = end;
    return out->kind != LIM__TEXT || keep_text(s, out);
}

static bool read_text(parser *s, lim__val *out)
{
    const char *p = s->p + 1;
    while (p < s->end && *p != '"' && *p != '\n')
        p += *p == '\\' && p + 1 < s->end ? 2 : 1;
    if (p < s->end && *p == '"')
        return read_json(s, p + 1, "no text as in JSON", out);
    return fail(s, LIM_E_INVALID, s->p, "this text has no closing quote") != LIM__PRED_NONE;
}

static bool read_number(parser *s, lim__val *out)
{
    const char *p = s->p;
    while (p < s->end && (is_word_char(*p) || *p == '.' || *p == '+'))
        p++;
    return read_json(s, p, "no number", out);
}

static bool want_text(parser *s, const char *what, lim__val *out)
{
    blanks(s);
    if (s->p < s->end && *s->p == '"')
        return read_text(s, out);
    return expected(s, what) != LIM__PRED_NONE;
}

static bool value(parser *s, lim__val *out)
{
    blanks(s);
    char c = '\0';
    if (s->p < s->end)
        c = *s->p;
    if (c == '"')
        return read_text(s, out);
    if ((c >= '0' && c <= '9') || c == '-')
        return read_number(s, out);
    if (take_word(s, "null")) {
        *out = (lim__val){ .kind = LIM__NULL };
        return true;
    }
    if (take_word(s, "true")) {
        *out = (lim__val){ .kind = LIM__BOOL, .truth = true };
        return true;
    }
    if (take_word(s, "false")) {
        *out = (lim__val){ .kind = LIM__BOOL, .truth = false };
        return true;
    }
    return expected(s, c == '\'' ? "a text in double quotes"
                                 : "a text in double quotes, a number, true, false or null") != LIM__PRED_NONE;
}

/* ---- fields ---- */

typedef struct path {
    lim__pred_step steps[LIM__PRED_STEPS_MAX];
    uint32_t count;
} path;

static bool add_step(parser *s, path *to, lim_bytes key, size_t index)
{
    if (to->count == LIM__PRED_STEPS_MAX)
        return no_room(s, true, "a path has at most 16 steps") != LIM__PRED_NONE;
    to->steps[to->count++] = (lim__pred_step){ key, index };
    return true;
}

/* "[12]" or "[\"a b\"]": at the bracket. */
static bool bracket_step(parser *s, path *to)
{
    lim__val v;
    s->p++;
    blanks(s);
    bool text = s->p < s->end && *s->p == '"', digits = s->p < s->end && *s->p >= '0' && *s->p <= '9';
    if (!text && !digits)
        return expected(s, "a number from 0 or a text in double quotes") != LIM__PRED_NONE;
    const char *at = s->p;
    if (!(text ? read_text(s, &v) : read_number(s, &v)))
        return false;
    if (!text && v.kind != LIM__INT)
        return fail(s, LIM_E_INVALID, at, "no place in an array: write [0], [1], ...") != LIM__PRED_NONE;
    if (!take_char(s, ']'))
        return expected(s, "]") != LIM__PRED_NONE;
    return add_step(s, to, text ? v.text : lim__bytes(NULL, 0), text ? 0 : (size_t)v.i);
}

static bool word_step(parser *s, path *to)
{
    lim__val key = { .kind = LIM__TEXT, .text = { s->p, word_len(s) } };
    if (key.text.len == 0)
        return expected(s, "the name of a field") != LIM__PRED_NONE;
    if (!lim__text_ok(key.text))
        return fail(s, LIM_E_INVALID, s->p, "not UTF-8") != LIM__PRED_NONE;
    s->p += key.text.len;
    return keep_text(s, &key) && add_step(s, to, key.text, 0);
}

static bool read_path(parser *s, lim__pred_field *f)
{
    path all = { .count = 0 };
    if (*s->p == '[' ? !bracket_step(s, &all) : !word_step(s, &all))
        return false;
    while (s->p < s->end && (*s->p == '.' || *s->p == '[')) {
        if (*s->p == '.' && s->p++ ? !word_step(s, &all) : !bracket_step(s, &all))
            return false;
    }
    f->from = LIM__PRED_PAYLOAD;
    f->step_count = all.count;
    f->steps = lim__pred_alloc(s->t, all.count * sizeof *f->steps);
    if (f->steps == NULL)
        return no_room(s, false, "") != LIM__PRED_NONE;
    memcpy(f->steps, all.steps, all.count * sizeof *f->steps);
    return true;
}

/* "$header.tenant", "$header[\"a b\"]": behind "$header". */
static bool read_header(parser *s, lim__pred_field *f)
{
    lim__val name = { .kind = LIM__TEXT };
    f->from = LIM__PRED_HEADER;
    if (s->p < s->end && *s->p == '[') {
        s->p++;
        if (!want_text(s, "the name of a header in double quotes", &name))
            return false;
        f->name = name.text;
        return take_char(s, ']') || expected(s, "]") != LIM__PRED_NONE;
    }
    if (s->p == s->end || *s->p != '.')
        return expected(s, "$header.NAME, $key or $size") != LIM__PRED_NONE;
    name.text.ptr = ++s->p;
    while (s->p < s->end && (is_word_char(*s->p) || *s->p == '.' || *s->p == '$'))
        s->p++;
    name.text.len = (size_t)(s->p - (const char *)name.text.ptr);
    if (name.text.len == 0)
        return expected(s, "the name of a header") != LIM__PRED_NONE;
    if (!keep_text(s, &name))
        return false;
    f->name = name.text;
    return true;
}

static bool read_special(parser *s, lim__pred_field *f)
{
    s->p++;
    if (word_len(s) == 0)
        return expected(s, "$header.NAME, $key or $size") != LIM__PRED_NONE;
    if (take_word(s, "size")) {
        f->from = LIM__PRED_SIZE;
        return true;
    }
    if (take_word(s, "key")) {
        f->from = LIM__PRED_HEADER;
        f->name = lim__str("$key"); /* as it travels */
        return true;
    }
    if (take_word(s, "header"))
        return read_header(s, f);
    s->p--;
    return expected(s, "$header.NAME, $key or $size") != LIM__PRED_NONE;
}

static uint16_t field(parser *s)
{
    static const char what[] = "a field, not or (";
    lim__pred_field f = { 0 };
    blanks(s);
    const char *begin = s->p;
    if (s->p == s->end || !(is_word_char(*s->p) || *s->p == '[' || *s->p == '$') || is_reserved(s->p, word_len(s)))
        return expected(s, what);
    if (*s->p == '$' ? !read_special(s, &f) : !read_path(s, &f))
        return LIM__PRED_NONE;
    lim__val text = { .kind = LIM__TEXT, .text = { begin, (size_t)(s->p - begin) } };
    if (!keep_text(s, &text))
        return LIM__PRED_NONE;
    f.text = text.text;
    if (!lim__text_ok(f.text))
        return fail(s, LIM_E_INVALID, begin, "not UTF-8");
    uint16_t at = lim__pred_field_add(s->t, &f);
    return at != LIM__PRED_NONE
               ? at
               : no_room(s, s->t->field_count == LIM__PRED_FIELDS_MAX, "a predicate asks for at most 64 fields");
}

/* ---- tests ---- */

static uint16_t test(parser *s, lim__pred_kind kind, uint16_t f, const lim__val *list, uint32_t n)
{
    uint16_t at = lim__pred_test_add(s->t, kind, f, list, n);
    return at != LIM__PRED_NONE ? at
                                : no_room(s, s->t->node_count == LIM__PRED_NODES_MAX || s->t->literal_count > 60000,
                                          "a predicate has at most 1024 tests, and, or and not");
}

static uint16_t in_list(parser *s, uint16_t f)
{
    lim__val list[LIM__PRED_LIST_MAX];
    uint32_t n = 0;
    if (!take_char(s, '['))
        return expected(s, "[ and the values");
    do {
        if (n == LIM_COUNT(list))
            return no_room(s, true, "a list has at most 256 values");
        if (!value(s, &list[n++]))
            return LIM__PRED_NONE;
    } while (take_char(s, ','));
    return take_char(s, ']') ? test(s, LIM__PRED_IN, f, list, n) : expected(s, ", or ]");
}

static uint16_t between(parser *s, uint16_t f)
{
    lim__val ends[2];
    if (!value(s, &ends[0]))
        return LIM__PRED_NONE;
    if (!take_word(s, "and"))
        return expected(s, "and, and the upper end");
    return value(s, &ends[1]) ? test(s, LIM__PRED_BETWEEN, f, ends, 2) : LIM__PRED_NONE;
}

/* == and its like; 0: none of them. */
static lim__pred_kind operator(parser *s)
{
    static const struct {
        const char *text;
        lim__pred_kind kind;
    } all[] = { { "==", LIM__PRED_EQ }, { "!=", LIM__PRED_NE }, { ">=", LIM__PRED_GE },
                { "<=", LIM__PRED_LE }, { ">", LIM__PRED_GT },  { "<", LIM__PRED_LT } };
    blanks(s);
    for (size_t i = 0; i < LIM_COUNT(all); i++) {
        size_t n = strlen(all[i].text);
        if ((size_t)(s->end - s->p) < n || memcmp(s->p, all[i].text, n) != 0)
            continue;
        s->p += n;
        return all[i].kind;
    }
    return 0;
}

static uint16_t one_value(parser *s, lim__pred_kind kind, uint16_t f, bool only_text)
{
    lim__val v;
    if (only_text ? !want_text(s, "a text in double quotes", &v) : !value(s, &v))
        return LIM__PRED_NONE;
    return test(s, kind, f, &v, 1);
}

static uint16_t field_test(parser *s)
{
    uint16_t f = field(s);
    if (f == LIM__PRED_NONE)
        return f;
    lim__pred_kind kind = operator(s);
    if (kind != 0)
        return one_value(s, kind, f, false);
    if (take_word(s, "exists"))
        return test(s, LIM__PRED_EXISTS, f, NULL, 0);
    if (take_word(s, "between"))
        return between(s, f);
    if (take_word(s, "in"))
        return in_list(s, f);
    if (take_word(s, "starts_with"))
        return one_value(s, LIM__PRED_STARTS, f, true);
    if (take_word(s, "ends_with"))
        return one_value(s, LIM__PRED_ENDS, f, true);
    if (take_word(s, "contains"))
        return one_value(s, LIM__PRED_CONTAINS, f, false);
    return expected(s, "==, !=, >, <, >=, <=, exists, in, between, starts_with, ends_with or contains");
}

/* ---- and, or, not ---- */

static uint16_t any(parser *s);

static uint16_t node(parser *s, lim__pred_kind kind)
{
    uint16_t at = lim__pred_node_add(s->t, kind);
    return at != LIM__PRED_NONE ? at
                                : no_room(s, s->t->node_count == LIM__PRED_NODES_MAX,
                                          "a predicate has at most 1024 tests, and, or and not");
}

static uint16_t one(parser *s);

static uint16_t negated(parser *s)
{
    uint16_t child = one(s), at = child != LIM__PRED_NONE ? node(s, LIM__PRED_NOT) : LIM__PRED_NONE;
    if (at != LIM__PRED_NONE)
        lim__pred_child_add(s->t, at, child);
    return at;
}

static uint16_t inside(parser *s)
{
    uint16_t at = any(s);
    if (at != LIM__PRED_NONE && !take_char(s, ')'))
        return expected(s, "and, or or )");
    return at;
}

static uint16_t one(parser *s)
{
    uint16_t at;
    blanks(s);
    if (s->depth == LIM__PRED_DEPTH_MAX)
        return no_room(s, true, "not and parentheses go at most 64 deep");
    s->depth++;
    if (take_word(s, "not"))
        at = negated(s);
    else if (take_char(s, '('))
        at = inside(s);
    else if (take_word(s, "true"))
        at = node(s, LIM__PRED_AND);
    else if (take_word(s, "false"))
        at = node(s, LIM__PRED_OR);
    else
        at = field_test(s);
    s->depth--;
    return at;
}

/* One or more, joined by `word`; of one nothing is made but that. */
static uint16_t joined(parser *s, uint16_t (*part)(parser *), const char *word, lim__pred_kind kind)
{
    uint16_t first = part(s), at = LIM__PRED_NONE;
    if (first == LIM__PRED_NONE || !take_word(s, word))
        return first;
    if ((at = node(s, kind)) == LIM__PRED_NONE)
        return at;
    lim__pred_child_add(s->t, at, first);
    do {
        uint16_t next = part(s);
        if (next == LIM__PRED_NONE)
            return next;
        lim__pred_child_add(s->t, at, next);
    } while (take_word(s, word));
    return at;
}

static uint16_t all(parser *s)
{
    return joined(s, one, "and", LIM__PRED_AND);
}

static uint16_t any(parser *s)
{
    return joined(s, all, "or", LIM__PRED_OR);
}

lim_err lim__pred_parse(lim_bytes text, lim__pred_tree *out, lim_diag *diag)
{
    parser s = { .start = text.ptr != NULL ? text.ptr : "", .t = out, .diag = diag };
    *out = (lim__pred_tree){ 0 };
    if (text.len > LIM_PREDICATE_BYTES_MAX) {
        lim__diag_set(diag, 0, 0, "%zu bytes; a predicate has at most %d", text.len, LIM_PREDICATE_BYTES_MAX);
        return LIM_E_TOOBIG;
    }
    s.p = s.start;
    s.end = s.start + text.len;
    if ((s.doc = lim__doc_new()) == NULL)
        return LIM_E_NOMEM;
    out->root = any(&s);
    blanks(&s);
    if (s.err == LIM_OK && s.p != s.end)
        expected(&s, "and, or or the end");
    lim__doc_free(s.doc);
    if (s.err != LIM_OK)
        lim__pred_tree_fini(out);
    return s.err;
}
