/* SPDX-License-Identifier: Apache-2.0
 * yaml.c - YAML events in, JSON text and places out.
 *
 * libyaml knows the grammar; what a scalar means is decided here, by the core schema's own expressions, because libyaml
 * leaves that to its caller and its own habits are those of YAML 1.1.
 *
 *      text --libyaml--> events --value()--> JSON text --lim__doc_parse--> document
 *                                   `------> places: one per value, in the same order
 *
 * The recursion of value() is as deep as the text is nested, and that is bounded by LIM__YAML_DEPTH_MAX. Repeated keys
 * are found when their mapping ends, by sorting its keys: a mapping of n keys costs n log n. Keys of the mappings that
 * are open lie behind each other in `entries`, those of the innermost last. */
#include "server/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

typedef struct entry { /* a key of a mapping that is open */
    size_t at, len;    /* in reader.keys */
    size_t place;      /* of its value */
} entry;

typedef struct reader {
    yaml_parser_t parser;
    lim_bytes text;
    size_t at, index; /* a place in the text: its byte, and the number of its character; only moves on */
    lim__yaml *yaml;
    lim__buf json, keys;
    lim__json out;
    entry *entries;
    size_t entry_count, entry_cap;
    lim__yaml_on_fault *on_fault;
    void *ctx;
    bool no_memory;
} reader;

const char *lim__yaml_clip(lim_bytes text, char out[LIM__YAML_CLIP + 4])
{
    const char *p = text.ptr;
    size_t n = text.len;
    if (n > LIM__YAML_CLIP) {
        n = LIM__YAML_CLIP;
        while (n > 0 && ((uint8_t)p[n] & 0xC0) == 0x80)
            n--;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)p[i] < 0x20 || p[i] == 0x7F ? '?' : p[i];
    snprintf(out + n, 4, "%s", n < text.len ? "..." : "");
    return out;
}

/* ---- faults ---- */

static void fault(const reader *r, yaml_mark_t mark, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void fault(const reader *r, yaml_mark_t mark, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->on_fault(r->ctx, (int)mark.line + 1, (int)mark.column + 1, text);
}

/* The place of a byte, for the faults that libyaml finds before it counts lines. */
static yaml_mark_t mark_of(lim_bytes text, size_t offset)
{
    const uint8_t *p = text.ptr;
    yaml_mark_t m = { 0 };
    for (size_t i = 0; i < offset && i < text.len; i++) {
        m.column += (p[i] & 0xC0) != 0x80;
        if (p[i] == '\n') {
            m.line++;
            m.column = 0;
        }
    }
    return m;
}

/* libyaml has stopped. Its messages are static and in English. */
static void broken(reader *r)
{
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR)
        r->no_memory = true;
    else if (p->error == YAML_READER_ERROR)
        fault(r, mark_of(r->text, p->problem_offset), "not YAML: %s; write it in UTF-8", p->problem);
    else
        fault(r, p->problem_mark,
              "not YAML: %s%s%s; a line is KEY: VALUE, and what belongs to a key stands below it, indented",
              p->problem != NULL ? p->problem : "broken", p->context != NULL ? " " : "",
              p->context != NULL ? p->context : "");
}

static bool next(reader *r, yaml_event_t *event)
{
    if (!r->no_memory && yaml_parser_parse(&r->parser, event))
        return true;
    if (!r->no_memory)
        broken(r);
    return false;
}

/* ---- what a plain scalar means ---- */

static bool is_one_of(const char *s, const char *a, const char *b, const char *c)
{
    return strcmp(s, a) == 0 || strcmp(s, b) == 0 || strcmp(s, c) == 0;
}

static const char *digits_of(const char *s)
{
    while (*s >= '0' && *s <= '9')
        s++;
    return s;
}

static bool has_sign(const char *s)
{
    return *s == '-' || *s == '+';
}

/* 10, 8 or 16 for [-+]?[0-9]+, 0o[0-7]+ and 0x[0-9a-fA-F]+; 0: not an integer. */
static int int_base(const char *s)
{
    if (s[0] == '0' && s[1] == 'o')
        return s[2] != '\0' && s[2 + strspn(s + 2, "01234567")] == '\0' ? 8 : 0;
    if (s[0] == '0' && s[1] == 'x')
        return s[2] != '\0' && s[2 + strspn(s + 2, "0123456789abcdefABCDEF")] == '\0' ? 16 : 0;
    s += has_sign(s);
    return *s != '\0' && *digits_of(s) == '\0' ? 10 : 0;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool is_float(const char *s)
{
    s += has_sign(s);
    const char *whole = digits_of(s), *end = whole;
    if (*whole == '.')
        end = digits_of(whole + 1);
    if (whole == s && end < whole + 2)
        return false;
    if (*end != 'e' && *end != 'E')
        return *end == '\0';
    end += 1 + has_sign(end + 1);
    return *end != '\0' && *digits_of(end) == '\0';
}

static bool is_endless(const char *s)
{
    return is_one_of(s, ".nan", ".NaN", ".NAN") || is_one_of(s + has_sign(s), ".inf", ".Inf", ".INF");
}

static const char *put_int(lim__json *out, const char *key, const char *s, int base)
{
    errno = 0;
    if (*s == '-')
        lim__json_i64(out, key, strtoll(s, NULL, 10));
    else
        lim__json_u64(out, key, strtoull(base == 10 ? s : s + 2, NULL, base));
    return errno == 0 ? NULL : "a whole number outside of 64 bits; write a smaller one";
}

static const char *put_float(lim__json *out, const char *key, const char *s)
{
    double n = strtod(s, NULL);
    lim__json_f64(out, key, isfinite(n) ? n : 0);
    return isfinite(n) ? NULL : "a number that is too large; write a smaller one";
}

/* NULL, or what is wrong with it; something is written in any case. */
static const char *put_plain(lim__json *out, const char *key, lim_bytes text)
{
    const char *s = text.ptr;
    int base;
    if (strlen(s) != text.len)
        lim__json_bytes(out, key, text);
    else if (*s == '\0' || strcmp(s, "~") == 0 || is_one_of(s, "null", "Null", "NULL"))
        lim__json_str(out, key, NULL);
    else if (is_one_of(s, "true", "True", "TRUE") || is_one_of(s, "false", "False", "FALSE"))
        lim__json_bool(out, key, *s == 't' || *s == 'T');
    else if ((base = int_base(s)) != 0)
        return put_int(out, key, s, base);
    else if (is_float(s))
        return put_float(out, key, s);
    else
        lim__json_bytes(out, key, text);
    return is_endless(s) ? "not a number to count with; write a finite one" : NULL;
}

lim_err lim__yaml_plain(lim__doc *doc, lim_bytes text, const char **why)
{
    lim__buf json = { 0 };
    lim__json out = lim__json_begin(&json);
    *why = put_plain(&out, NULL, text);
    lim_err err = json.failed    ? LIM_E_NOMEM
                  : *why != NULL ? LIM_E_INVALID
                                 : lim__doc_parse(doc, lim__buf_bytes(&json), NULL);
    lim__buf_fini(&json);
    return err;
}

/* ---- values ---- */

static bool value(reader *r, yaml_event_t *event, const char *key, yaml_mark_t key_mark, int depth);

/* Where the next value's place will be. */
static lim__yaml_place *add_place(reader *r, yaml_mark_t mark, bool has_key, yaml_mark_t key_mark)
{
    lim__yaml *y = r->yaml;
    if (y->count == y->cap) {
        size_t cap = y->cap > 0 ? y->cap * 2 : 64;
        lim__yaml_place *grown = realloc(y->places, cap * sizeof *grown);
        if (grown == NULL) {
            r->no_memory = true;
            return NULL;
        }
        y->places = grown;
        y->cap = cap;
    }
    y->places[y->count] = (lim__yaml_place){ .line = (int)mark.line + 1,
                                             .column = (int)mark.column + 1,
                                             .key_line = has_key ? (int)key_mark.line + 1 : 0,
                                             .key_column = has_key ? (int)key_mark.column + 1 : 0 };
    return &y->places[y->count++];
}

/* The byte at a mark. Marks count characters, so the text is walked, onwards from the last one asked for. */
static char char_at(reader *r, yaml_mark_t mark)
{
    const char *p = r->text.ptr;
    if (mark.index < r->index)
        r->at = r->index = 0;
    while (r->index < mark.index && r->at < r->text.len) {
        r->at++;
        while (r->at < r->text.len && ((uint8_t)p[r->at] & 0xC0) == 0x80)
            r->at++;
        r->index++;
    }
    return r->at < r->text.len ? p[r->at] : '\0';
}

/* Anchors and tags. False: a tag gives the value another meaning than it shows. */
static bool is_plain_node(reader *r, yaml_mark_t mark, const yaml_char_t *anchor, const yaml_char_t *tag, bool scalar)
{
    char clipped[LIM__YAML_CLIP + 4];
    if (anchor != NULL)
        fault(r, mark, "&%s: an anchor, which is not supported; write the value out where it is needed",
              lim__yaml_clip(lim__str((const char *)anchor), clipped));
    /* libyaml keeps no trace of the tag "!" on a scalar */
    if (tag == NULL && !(scalar && char_at(r, mark) == '!'))
        return true;
    fault(r, mark, "%s: a tag, which is not supported; leave it out, and put text in quotes",
          lim__yaml_clip(lim__str(tag != NULL ? (const char *)tag : "!"), clipped));
    return false;
}

static void put_scalar(reader *r, const yaml_event_t *event, const char *key, lim__yaml_place *place)
{
    lim_bytes text = { event->data.scalar.value, event->data.scalar.length };
    const char *why = NULL;
    char clipped[LIM__YAML_CLIP + 4];
    if (!is_plain_node(r, event->start_mark, event->data.scalar.anchor, event->data.scalar.tag, true))
        place->faulty = true;
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        why = put_plain(&r->out, key, text);
    else
        lim__json_bytes(&r->out, key, text);
    if (why == NULL)
        return;
    place->faulty = true;
    fault(r, event->start_mark, "%s: %s", lim__yaml_clip(text, clipped), why);
}

static void put_alias(reader *r, const yaml_event_t *event, const char *key, lim__yaml_place *place)
{
    char clipped[LIM__YAML_CLIP + 4];
    lim__json_str(&r->out, key, NULL);
    place->faulty = true;
    fault(r, event->start_mark, "*%s: an alias, which is not supported; write the value out",
          lim__yaml_clip(lim__str((const char *)event->data.alias.anchor), clipped));
}

static bool add_entry(reader *r, lim_bytes key)
{
    if (r->entry_count == r->entry_cap) {
        size_t cap = r->entry_cap > 0 ? r->entry_cap * 2 : 32;
        entry *grown = realloc(r->entries, cap * sizeof *grown);
        if (grown == NULL) {
            r->no_memory = true;
            return false;
        }
        r->entries = grown;
        r->entry_cap = cap;
    }
    r->entries[r->entry_count++] = (entry){ lim__buf_len(&r->keys), key.len, r->yaml->count };
    lim__buf_add(&r->keys, key.ptr, key.len);
    return !r->keys.failed;
}

/* By key, then as they stand in the file. */
static int entry_order(const void *a, const void *b, void *ctx)
{
    const entry *x = a, *y = b;
    const uint8_t *keys = ctx;
    size_t len = x->len < y->len ? x->len : y->len;
    int order = len > 0 ? memcmp(keys + x->at, keys + y->at, len) : 0;
    if (order == 0 && x->len != y->len)
        order = x->len < y->len ? -1 : 1;
    return order != 0 ? order : x->place < y->place ? -1 : x->place > y->place;
}

static bool same_key(const uint8_t *keys, const entry *a, const entry *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(keys + a->at, keys + b->at, a->len) == 0);
}

/* Finds what is repeated among the keys from `first` on, and forgets them. */
static void end_keys(reader *r, size_t first)
{
    entry *e = r->entries;
    const uint8_t *keys = lim__buf_bytes(&r->keys).ptr;
    char clipped[LIM__YAML_CLIP + 4];
    if (r->entry_count == first)
        return;
    size_t keys_len = e[first].at;
    qsort_r(e + first, r->entry_count - first, sizeof *e, entry_order, (void *)(uintptr_t)keys);
    for (size_t i = first + 1, original = first; i < r->entry_count; i++) {
        if (!same_key(keys, &e[original], &e[i])) {
            original = i;
            continue;
        }
        lim__yaml_place *again = &r->yaml->places[e[i].place];
        again->faulty = true;
        fault(r, (yaml_mark_t){ .line = (size_t)again->key_line - 1, .column = (size_t)again->key_column - 1 },
              "%s: the key stands here a second time, first on line %d; keep one of them",
              lim__yaml_clip(lim__bytes(keys + e[i].at, e[i].len), clipped),
              r->yaml->places[e[original].place].key_line);
    }
    r->entry_count = first;
    r->keys.end = r->keys.start + keys_len;
}

/* A key and its value. */
static bool member(reader *r, yaml_event_t *event, int depth)
{
    yaml_event_t of;
    lim_bytes key = { event->data.scalar.value, event->data.scalar.length };
    bool ok = false;
    if (event->type != YAML_SCALAR_EVENT)
        fault(r, event->start_mark, "a key that is not a word; write KEY: VALUE, without brackets and without *");
    else if (strlen(key.ptr) != key.len)
        fault(r, event->start_mark, "a key with a NUL in it; leave that out");
    else {
        (void)is_plain_node(r, event->start_mark, event->data.scalar.anchor, event->data.scalar.tag, true);
        ok = add_entry(r, key) && next(r, &of) && value(r, &of, key.ptr, event->start_mark, depth);
    }
    yaml_event_delete(event);
    return ok;
}

/* The items of a list or mapping, to its end. */
static bool items(reader *r, bool mapping, int depth)
{
    const yaml_mark_t nowhere = { 0 };
    size_t first = r->entry_count;
    yaml_event_t event;
    for (;;) {
        if (!next(r, &event))
            return false;
        if (event.type == YAML_MAPPING_END_EVENT || event.type == YAML_SEQUENCE_END_EVENT)
            break;
        if (!(mapping ? member(r, &event, depth) : value(r, &event, NULL, nowhere, depth)))
            return false;
    }
    yaml_event_delete(&event);
    end_keys(r, first);
    lim__json_close(&r->out);
    return true;
}

/* Takes the event. False: reading ends here, the reason was told. */
static bool value(reader *r, yaml_event_t *event, const char *key, yaml_mark_t key_mark, int depth)
{
    yaml_mark_t mark = event->start_mark;
    lim__yaml_place *place = add_place(r, mark, key != NULL, key_mark);
    bool mapping = event->type == YAML_MAPPING_START_EVENT, list = event->type == YAML_SEQUENCE_START_EVENT;
    if (place == NULL) {
        yaml_event_delete(event);
        return false;
    }
    if (event->type == YAML_SCALAR_EVENT)
        put_scalar(r, event, key, place);
    else if (event->type == YAML_ALIAS_EVENT)
        put_alias(r, event, key, place);
    else if (mapping)
        place->faulty = !is_plain_node(r, mark, event->data.mapping_start.anchor, event->data.mapping_start.tag, false);
    else if (list)
        place->faulty =
            !is_plain_node(r, mark, event->data.sequence_start.anchor, event->data.sequence_start.tag, false);
    yaml_event_delete(event);
    if (!mapping && !list)
        return true;
    if (depth == LIM__YAML_DEPTH_MAX) {
        fault(r, mark, "nested more than %d deep; a configuration has no use for that", LIM__YAML_DEPTH_MAX);
        return false;
    }
    lim__json_open(&r->out, key, mapping ? '{' : '[');
    return items(r, mapping, depth + 1);
}

/* ---- the stream ---- */

/* The event is a document's start; takes it. */
static bool document(reader *r, yaml_event_t *event)
{
    const yaml_mark_t nowhere = { 0 };
    const yaml_version_directive_t *version = event->data.document_start.version_directive;
    bool again = r->yaml->count > 0;
    if (again)
        fault(r, event->start_mark, "a second document; keep one in a file");
    else if (version != NULL && version->minor < 2)
        fault(r, event->start_mark, "%%YAML %d.%d: the file is read by the rules of 1.2; write %%YAML 1.2, or nothing",
              version->major, version->minor);
    if (!again && event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
        fault(r, event->start_mark, "%%TAG: tags are not supported; leave the line out");
    yaml_event_delete(event);
    if (again || !next(r, event) || !value(r, event, NULL, nowhere, 0) || !next(r, event))
        return false;
    yaml_event_delete(event); /* the document's end: a document has one value */
    return true;
}

static bool stream(reader *r)
{
    yaml_event_t event;
    while (next(r, &event)) {
        yaml_event_type_t type = event.type;
        if (type == YAML_DOCUMENT_START_EVENT) {
            if (!document(r, &event))
                return false;
            continue;
        }
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT)
            return true;
    }
    return false;
}

/* Nothing but comments is no value at all. */
static bool add_nothing(reader *r)
{
    if (r->yaml->count > 0)
        return true;
    lim__json_str(&r->out, NULL, NULL);
    return add_place(r, (yaml_mark_t){ 0 }, false, (yaml_mark_t){ 0 }) != NULL;
}

static lim_err parse(reader *r)
{
    if (!yaml_parser_initialize(&r->parser))
        return LIM_E_NOMEM;
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, r->text.len > 0 ? r->text.ptr : (const uint8_t *)"", r->text.len);
    bool whole = stream(r) && add_nothing(r);
    yaml_parser_delete(&r->parser);
    if (r->no_memory || r->json.failed || r->keys.failed)
        return LIM_E_NOMEM;
    return whole ? lim__doc_parse(r->yaml->doc, lim__buf_bytes(&r->json), NULL) : LIM_E_INVALID;
}

/* An editor's byte order mark says UTF-8, which is what is read anyway. */
static lim_bytes without_mark(lim_bytes text)
{
    bool marked = text.len >= 3 && memcmp(text.ptr, "\xEF\xBB\xBF", 3) == 0;
    return marked ? lim__bytes((const char *)text.ptr + 3, text.len - 3) : text;
}

lim_err lim__yaml_read(lim__yaml *y, lim_bytes text, lim__yaml_on_fault *on_fault, void *ctx)
{
    reader r = { .text = without_mark(text), .yaml = y, .on_fault = on_fault, .ctx = ctx };
    y->count = 0;
    if (y->doc == NULL)
        y->doc = lim__doc_new();
    if (y->doc == NULL)
        return LIM_E_NOMEM;
    if (text.len > LIM__YAML_BYTES_MAX) {
        fault(&r, (yaml_mark_t){ 0 }, "larger than %d MiB; a configuration is far smaller", LIM__YAML_BYTES_MAX >> 20);
        return LIM_E_TOOBIG;
    }
    r.out = lim__json_begin(&r.json);
    lim_err err = parse(&r);
    lim__buf_fini(&r.json);
    lim__buf_fini(&r.keys);
    free(r.entries);
    LIM_ASSERT(err != LIM_OK || y->count > 0);
    return err;
}

void lim__yaml_fini(lim__yaml *y)
{
    lim__doc_free(y->doc);
    free(y->places);
    *y = (lim__yaml){ 0 };
}
