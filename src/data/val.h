/* SPDX-License-Identifier: Apache-2.0
 * val.h - values of a JSON document: the part of data.h that the C++ file behind it can include too.
 *
 * Plain C types only: simdjson's stay in json.cc. A value of an array or object refers into its document's tape by
 * position; all other values carry what they are. */
#ifndef LIM__VAL_H
#define LIM__VAL_H

#include <liminal/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- JSON ----
 * Strict RFC 8259 in UTF-8 without a byte order mark. Limits: LIM__JSON_DEPTH_MAX levels (an empty array or
 * object is none), LIM__JSON_MAX bytes. Integers keep all 64 bits (int, or uint above INT64_MAX); an integer outside of
 * that, or a number outside of double, is an error. Of members with the same key the last one counts, as in most
 * languages' parsers. */
enum { LIM__JSON_DEPTH_MAX = 128, LIM__JSON_MAX = 256 * 1024 * 1024 };

typedef enum lim__kind {
    LIM__ABSENT = 0, /* there is no such value: also what zeroed memory means */
    LIM__NULL,
    LIM__BOOL,
    LIM__INT,
    LIM__UINT, /* above INT64_MAX only */
    LIM__DOUBLE,
    LIM__TEXT,
    LIM__ARRAY,
    LIM__OBJECT
} lim__kind;

typedef struct lim__doc lim__doc; /* OBJECT, one owner */
typedef struct lim__val {         /* VIEW: valid until its document is parsed again or freed */
    lim__kind kind;
    union {
        bool truth;
        int64_t i;
        uint64_t u;
        double d;
        lim_bytes text; /* UTF-8, unescaped; may contain NUL; followed by a NUL */
        struct {
            const void *doc;
            size_t at;
        } tree; /* private to json.cc */
    };
} lim__val;

lim__doc *lim__doc_new(void);       /* NULL: no memory */
void lim__doc_free(lim__doc *doc);  /* NULL is a no-op */
/* Copies `json`. INVALID with line, column and reason in diag; TOOBIG; NOMEM. On failure the document is absent.
 * Keeps its memory for the next parse, except what exceeds 1 MiB. */
lim_err lim__doc_parse(lim__doc *doc, lim_bytes json, lim_diag *diag);
lim__val lim__doc_root(const lim__doc *doc); /* absent before the first good parse */

lim__val lim__val_get(lim__val object, const char *key); /* absent if not an object or no such member */
lim__val lim__val_get_bytes(lim__val object, lim_bytes key);
lim__val lim__val_at(lim__val array, size_t index); /* from 0; walks the array */
size_t lim__val_count(lim__val v); /* elements, or members (repeated keys counted each); 0 for all else */

/* Iteration over an array or object in document order (repeated keys each):
 *     lim__iter it = lim__iter_begin(v); while (lim__iter_next(&it)) use(it.key, it.val);
 * Anything else iterates as empty. */
typedef struct lim__iter {
    lim_bytes key; /* empty in arrays */
    lim__val val;
    size_t index; /* of the item, from 0 */
    /* private */
    const void *doc;
    size_t at, end;
    bool members, started;
} lim__iter;
lim__iter lim__iter_begin(lim__val v);
bool lim__iter_next(lim__iter *it);

/* The members of an object in bytewise key order, each key once: answers how many. `max` is the room in `out`; if that is
 * less than lim__val_count(object), nothing is filled in and that count is the answer. Not an object: 0. */
typedef struct lim__member {
    lim_bytes key;
    lim__val val;
} lim__member;
size_t lim__val_members_sorted(lim__val object, lim__member *out, size_t max);

/* What lim__doc_parse is made of: 0, or simdjson's word for the fault in *why (static). NULL: no memory. */
int lim__doc_parse_raw(lim__doc *doc, lim_bytes json, const char **why);

#ifdef __cplusplus
}
#endif
#endif
