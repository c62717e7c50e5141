/* SPDX-License-Identifier: Apache-2.0
 * predicate.h - is this message one of those? The language of ramps and filters, as text, as a tree, and compiled.
 *
 *      tier == "gold" and not (items[0].price > 100.0 or $header.region in ["eu", "us"])
 *
 *      text --parse--> tree --compile--> code: a chain of tests, each with the next one for yes and for no
 *                        |                 |
 *                        `-- explain       `-- match: fields are looked up once, when the first test wants them
 *
 *   predicate_parse.c  text to tree, faults by line and column     predicate_tree.c   making, printing, explaining
 *   predicate_value.c  two values compared; fields of a message    predicate.c        code; the public functions
 *
 * What a comparison means is written down once, in lim__pred_test: the tree and the code differ in what they ask and in
 * which order, which nobody can see but the clock. An absent field makes its test false; `not` is plain negation.
 *
 * Invariants (lim__pred_check):
 *   P1  a test of the code goes on to tests of smaller index, or ends: so matching takes at most as many steps as tests.
 *   P2  fields, literals and texts of the code are the tree's: they live as long. */
#ifndef LIM__PREDICATE_H
#define LIM__PREDICATE_H

#include "route/lua_fields.h"
#include <liminal/liminal.h>

enum {
    LIM__PRED_DEPTH_MAX = 64,  /* not and parentheses within each other */
    LIM__PRED_NODES_MAX = 1024,
    LIM__PRED_FIELDS_MAX = 64, /* different ones */
    LIM__PRED_STEPS_MAX = 16,  /* of one path */
    LIM__PRED_LIST_MAX = 256,  /* of one `in` */
    LIM__PRED_NONE = UINT16_MAX
};

typedef enum lim__pred_kind {
    LIM__PRED_AND = 1, /* of no children: true */
    LIM__PRED_OR,      /* of no children: false */
    LIM__PRED_NOT,
    LIM__PRED_EXISTS, /* from here on: tests of one field */
    LIM__PRED_EQ,
    LIM__PRED_NE,
    LIM__PRED_GT,
    LIM__PRED_LT,
    LIM__PRED_GE,
    LIM__PRED_LE,
    LIM__PRED_BETWEEN, /* both ends included */
    LIM__PRED_IN,
    LIM__PRED_STARTS,
    LIM__PRED_ENDS,
    LIM__PRED_CONTAINS
} lim__pred_kind;

typedef enum lim__pred_from { LIM__PRED_PAYLOAD = 1, LIM__PRED_HEADER, LIM__PRED_SIZE } lim__pred_from;

typedef struct lim__pred_step {
    lim_bytes key;  /* ptr NULL: an index */
    size_t index;
} lim__pred_step;

typedef struct lim__pred_field {
    lim__pred_from from;
    lim_bytes text; /* as it was written */
    lim_bytes name; /* of a header */
    uint32_t step_count;
    lim__pred_step *steps;
} lim__pred_field;

typedef struct lim__pred_node {
    lim__pred_kind kind;
    uint16_t field;              /* of a test */
    uint16_t literal, literals;  /* of a test: the first one, how many */
    uint16_t child, next, last;  /* of and, or, not; LIM__PRED_NONE */
} lim__pred_node;

struct lim__pred_block;
typedef struct lim__pred_tree {
    lim__pred_node *nodes;
    lim__pred_field *fields;
    lim__val *literals;
    uint32_t node_count, field_count, literal_count, node_cap, field_cap, literal_cap;
    uint16_t root;
    struct lim__pred_block *blocks; /* texts and steps */
} lim__pred_tree;

/* ---- predicate_tree.c ---- */
void lim__pred_tree_fini(lim__pred_tree *t); /* zeroed memory is fine */
void *lim__pred_alloc(lim__pred_tree *t, size_t bytes); /* as long as the tree; NULL: no memory */
/* Each answers where it is, or LIM__PRED_NONE: no memory, or a limit. Children are added in order. */
uint16_t lim__pred_node_add(lim__pred_tree *t, lim__pred_kind kind);
uint16_t lim__pred_test_add(lim__pred_tree *t, lim__pred_kind kind, uint16_t field, const lim__val *literals, uint32_t n);
void lim__pred_child_add(lim__pred_tree *t, uint16_t parent, uint16_t child);
uint16_t lim__pred_field_add(lim__pred_tree *t, const lim__pred_field *f); /* steps and texts are the tree's already */
void lim__pred_print(const lim__pred_tree *t, uint16_t node, lim__buf *out); /* as text that reads as the same tree */
struct lim__pred_reader;
bool lim__pred_tree_match(const lim__pred_tree *t, uint16_t node, struct lim__pred_reader *r);
bool lim__pred_explain(const lim__pred_tree *t, uint16_t node, uint32_t depth, struct lim__pred_reader *r,
                       void (*on_step)(void *ctx, const lim_predicate_step *step), void *ctx);

/* ---- predicate_parse.c ---- */
lim_err lim__pred_parse(lim_bytes text, lim__pred_tree *out, lim_diag *diag); /* INVALID, TOOBIG, NOMEM: nothing in out */

/* ---- predicate_value.c: a message, read as far as somebody asks ---- */
typedef struct lim__pred_reader {
    lim_bytes payload, headers;
    lim__doc *doc; /* kept from message to message; NULL: none was needed yet */
    enum { LIM__PRED_UNREAD = 0, LIM__PRED_GOOD, LIM__PRED_BAD } plain, parsed;
    uint32_t looked; /* fields that were looked up, of this message */
    lim__lua_fields fields;
} lim__pred_reader;
void lim__pred_reader_begin(lim__pred_reader *r, lim_bytes payload, lim_bytes headers); /* VIEWs */
void lim__pred_reader_fini(lim__pred_reader *r);
lim__val lim__pred_get(lim__pred_reader *r, const lim__pred_field *f); /* VIEW, until the next begin */
/* The one place that says what a test means. */
bool lim__pred_test(const lim__pred_node *node, const lim__val *literals, lim__val v);
bool lim__pred_alike(lim__val a, lim__val b); /* can be compared: both numbers, both texts, ... */

/* ---- predicate.c ---- */
typedef struct lim__pred_code {
    lim__pred_node test; /* without its children */
    uint16_t yes, no;    /* P1; or LIM__PRED_TRUE, LIM__PRED_FALSE */
} lim__pred_code;
enum { LIM__PRED_TRUE = UINT16_MAX, LIM__PRED_FALSE = UINT16_MAX - 1 };

typedef struct lim__pred { /* immutable: any number of threads, each with a reader of its own */
    lim__pred_tree tree;
    uint32_t count;
    uint16_t entry;
    lim__pred_code code[];
} lim__pred;
lim_err lim__pred_new(lim_bytes text, lim_diag *diag, lim__pred **out);
lim__pred *lim__pred_compile(lim__pred_tree *tree); /* takes it over; NULL: no memory, and it is gone */
void lim__pred_free(lim__pred *p);
bool lim__pred_match(const lim__pred *p, lim__pred_reader *r); /* allocates nothing itself */
void lim__pred_check(const lim__pred *p);

#endif
