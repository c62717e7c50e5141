/* SPDX-License-Identifier: Apache-2.0
 * predicate.c - predicates as code: a chain of tests, each with the next one for yes and for no.
 *
 *      a > 1 and not (b or c)          2: a > 1   yes 1    no FALSE
 *                                      1: b       yes FALSE no 0
 *                                      0: c       yes FALSE no TRUE
 *
 * `and`, `or` and `not` are only in where the arrows go: nothing of them is left to be evaluated. Code is written from
 * its end, because a test must know who comes after it; so arrows go to smaller indices (P1).
 *
 * Before that the children of each `and` and `or` are put in order: cheap ones first, of those with the same cost the
 * ones whose field is asked for most often among them, since that is looked up only once; otherwise as they were
 * written. Nothing has an effect, so no order answers anything else. */
#include "route/predicate.h"

#include <stdlib.h>

/* ---- order ---- */

static uint32_t cost(const lim__pred_tree *t, const lim__pred_node *n)
{
    uint32_t sum = n->kind == LIM__PRED_NOT ? 0 : 1;
    if (n->kind == LIM__PRED_EXISTS)
        return 1;
    if (n->kind > LIM__PRED_EXISTS)
        return n->kind == LIM__PRED_BETWEEN || n->kind == LIM__PRED_IN ? 3 : 2;
    for (uint16_t c = n->child; c != LIM__PRED_NONE; c = t->nodes[c].next)
        sum += cost(t, &t->nodes[c]);
    return sum;
}

/* Of a test, also of one behind `not`; else NONE. */
static uint16_t field_of(const lim__pred_tree *t, const lim__pred_node *n)
{
    while (n->kind == LIM__PRED_NOT)
        n = &t->nodes[n->child];
    return n->kind >= LIM__PRED_EXISTS ? n->field : LIM__PRED_NONE;
}

typedef struct child {
    uint32_t cost, asked;
    uint16_t node, place;
} child;

static int before(const void *left, const void *right)
{
    const child *a = left, *b = right;
    if (a->cost != b->cost)
        return a->cost < b->cost ? -1 : 1;
    if (a->asked != b->asked)
        return a->asked > b->asked ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

static void put_in_order(const lim__pred_tree *t, child *list, uint32_t n)
{
    uint32_t asked[LIM__PRED_FIELDS_MAX] = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        uint16_t f = field_of(t, &t->nodes[list[i].node]);
        if (f != LIM__PRED_NONE)
            asked[f]++;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint16_t f = field_of(t, &t->nodes[list[i].node]);
        list[i].asked = f != LIM__PRED_NONE ? asked[f] : 0;
        list[i].cost = cost(t, &t->nodes[list[i].node]);
    }
    qsort(list, n, sizeof *list, before);
}

/* ---- code ---- */

typedef struct maker {
    lim__pred *p;
    child *list; /* room for all nodes: of each `and` and `or` that is under way, one behind the other */
    uint32_t used;
} maker;

static uint16_t emit(maker *m, uint16_t node, uint16_t yes, uint16_t no);

static uint16_t emit_all(maker *m, const lim__pred_node *n, uint16_t yes, uint16_t no)
{
    const lim__pred_tree *t = &m->p->tree;
    child *list = m->list + m->used;
    uint32_t count = 0;
    uint16_t next = n->kind == LIM__PRED_AND ? yes : no;
    for (uint16_t c = n->child; c != LIM__PRED_NONE; c = t->nodes[c].next, count++)
        list[count] = (child){ .node = c, .place = (uint16_t)count };
    put_in_order(t, list, count);
    m->used += count;
    for (uint32_t i = count; i-- > 0;)
        next = n->kind == LIM__PRED_AND ? emit(m, list[i].node, next, no) : emit(m, list[i].node, yes, next);
    m->used -= count;
    return next;
}

static uint16_t emit(maker *m, uint16_t node, uint16_t yes, uint16_t no)
{
    const lim__pred_node *n = &m->p->tree.nodes[node];
    if (n->kind == LIM__PRED_NOT)
        return LIM__MUTATION("predicate_not_lost") ? emit(m, n->child, yes, no) : emit(m, n->child, no, yes);
    if (n->kind < LIM__PRED_NOT)
        return emit_all(m, n, yes, no);
    uint16_t at = (uint16_t)m->p->count++;
    m->p->code[at] = (lim__pred_code){ .test = *n, .yes = yes, .no = no };
    return at;
}

lim__pred *lim__pred_compile(lim__pred_tree *tree)
{
    lim__pred *p = calloc(1, sizeof *p + tree->node_count * sizeof p->code[0]);
    maker m = { .p = p, .list = calloc(tree->node_count + 1, sizeof *m.list) };
    if (p == NULL || m.list == NULL) {
        lim__pred_tree_fini(tree);
        free(m.list);
        free(p);
        return NULL;
    }
    p->tree = *tree;
    *tree = (lim__pred_tree){ 0 };
    p->entry = emit(&m, p->tree.root, LIM__PRED_TRUE, LIM__PRED_FALSE);
    free(m.list);
    lim__pred_check(p);
    return p;
}

lim_err lim__pred_new(lim_bytes text, lim_diag *diag, lim__pred **out)
{
    lim__pred_tree tree = { 0 };
    lim_err err = lim__pred_parse(text, &tree, diag);
    if (err != LIM_OK)
        return err;
    *out = lim__pred_compile(&tree);
    return *out != NULL ? LIM_OK : LIM_E_NOMEM;
}

void lim__pred_free(lim__pred *p)
{
    if (p == NULL)
        return;
    lim__pred_tree_fini(&p->tree);
    free(p);
}

static bool is_end(uint16_t at)
{
    return at == LIM__PRED_TRUE || at == LIM__PRED_FALSE;
}

void lim__pred_check(const lim__pred *p)
{
    LIM_ASSERT(is_end(p->entry) || p->entry < p->count);
    for (uint32_t i = 0; i < p->count; i++) {
        const lim__pred_code *c = &p->code[i];
        LIM_ASSERT((is_end(c->yes) || c->yes < i) && (is_end(c->no) || c->no < i)); /* P1 */
        LIM_ASSERT(c->test.field < p->tree.field_count);                            /* P2 */
    }
}

bool lim__pred_match(const lim__pred *p, lim__pred_reader *r)
{
    lim__val values[LIM__PRED_FIELDS_MAX];
    uint64_t have = 0;
    uint16_t at = p->entry;
    while (!is_end(at)) {
        const lim__pred_code *c = &p->code[at];
        uint16_t f = c->test.field;
        if ((have >> f & 1) == 0) {
            values[f] = lim__pred_get(r, &p->tree.fields[f]);
            have |= UINT64_C(1) << f;
        }
        at = lim__pred_test(&c->test, p->tree.literals, values[f]) ? c->yes : c->no;
    }
    return at == LIM__PRED_TRUE;
}

/* ---- the public functions ---- */

struct lim_predicate {
    lim__pred *p;
    lim__pred_reader reader;
};

lim_err lim_predicate_compile(lim_bytes text, lim_diag *diag, lim_predicate **out)
{
    if (out == NULL)
        return LIM_E_MISUSE;
    lim_predicate *made = calloc(1, sizeof *made);
    if (made == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim__pred_new(text, diag, &made->p);
    if (err != LIM_OK) {
        free(made);
        return err;
    }
    *out = made;
    return LIM_OK;
}

bool lim_predicate_match(lim_predicate *predicate, const lim_route_message *message)
{
    lim__pred_reader_begin(&predicate->reader, message->payload, message->headers);
    return lim__pred_match(predicate->p, &predicate->reader);
}

bool lim_predicate_explain(lim_predicate *predicate, const lim_route_message *message,
                           void (*on_step)(void *ctx, const lim_predicate_step *step), void *ctx)
{
    lim__pred_reader_begin(&predicate->reader, message->payload, message->headers);
    return lim__pred_explain(&predicate->p->tree, predicate->p->tree.root, 0, &predicate->reader, on_step, ctx);
}

void lim_predicate_free(lim_predicate *predicate)
{
    if (predicate == NULL)
        return;
    lim__pred_free(predicate->p);
    lim__pred_reader_fini(&predicate->reader);
    free(predicate);
}
