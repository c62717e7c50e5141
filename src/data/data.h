/* SPDX-License-Identifier: Apache-2.0
 * data.h - what a message is made of: its bytes, its headers, and the JSON inside.
 *
 *   lim__msg       the payload and headers of a message: one block, counted, never changed. Any thread.
 *   lim__packed_*  the packed form of headers: made once, passed on as bytes.
 *   lim__doc       a JSON text, parsed. Reusable; one owner, one thread at a time.
 *   lim__val       one value in a document: a small struct, by value, valid until its document is parsed again.
 *
 * Absence is a value, not an error: every getter takes what another getter answered, so a chain of them needs one look
 * at the end, and whatever is not there reads as its default. */
#ifndef LIM__DATA_H
#define LIM__DATA_H

#include "base/base.h"
#include "base/buf.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- message ----
 *      | refs | headers_len | payload_len | payload ... | headers ... |      one malloc, freed by the last unref */
typedef struct lim__msg lim__msg; /* OBJECT, shared, immutable */
lim__msg *lim__msg_new(lim_bytes payload);                        /* copies; one reference; NULL: no memory */
lim__msg *lim__msg_new_with(lim_bytes payload, lim_bytes headers); /* headers: a packed block, may be empty */
lim__msg *lim__msg_ref(lim__msg *msg);                            /* any thread; answers msg; NULL stays NULL */
void lim__msg_unref(lim__msg *msg);                               /* any thread; NULL is a no-op */
lim_bytes lim__msg_bytes(const lim__msg *msg);                    /* VIEW: as long as the caller's reference */
lim_bytes lim__msg_headers(const lim__msg *msg);                  /* VIEW: packed; empty: none */
size_t lim__msg_cost(const lim__msg *msg);                        /* bytes of memory it takes, for accounting */

/* ---- headers, packed ---- as on the wire, its count in front, little endian; no bytes at all: no headers
 *      u16 count | { u8 length, key, u16 length, text } ...                        in the order they were added */
/* For tests and the command line: adds one to a block being built. INVALID: empty key; TOOBIG: a key over 255 bytes, a
 * text over 65535, more than 65535 of them; NOMEM. Nothing is added then. */
lim_err lim__packed_add(lim__buf *block, lim_bytes key, lim_bytes text);
bool lim__packed_valid(lim_bytes block); /* for blocks that come from outside; the calls below stop at a fault */
/* Visits all: *pos = 0 at first; false at the end. */
bool lim__packed_next(lim_bytes block, size_t *pos, lim_bytes *key, lim_bytes *text);
bool lim__packed_get(lim_bytes block, lim_bytes key, lim_bytes *text); /* of several, the last */

/* ---- JSON ----
 * Strict RFC 8259 in UTF-8 without a byte order mark. Limits: LIM__JSON_DEPTH_MAX levels, LIM__JSON_MAX bytes. Integers
 * keep all 64 bits (int, or uint above INT64_MAX); an integer outside of that, or a number outside of double, is an
 * error. Of members with the same key the last one counts, as in most languages' parsers. */
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
/* "a.b[2].c": members by name, elements by [index]. A key with a dot or bracket in it is not reachable this way. */
lim__val lim__val_path(lim__val from, const char *path);
lim__val lim__val_path_bytes(lim__val from, lim_bytes path);
size_t lim__val_count(lim__val v); /* elements, or members (repeated keys counted each); 0 for all else */

static inline bool lim__val_present(lim__val v)
{
    return v.kind != LIM__ABSENT;
}
const char *lim__kind_text(lim__kind kind); /* "text"; static */
bool lim__val_as_i64(lim__val v, int64_t *out);  /* ints, and doubles that are whole and fit */
bool lim__val_as_u64(lim__val v, uint64_t *out);
bool lim__val_as_f64(lim__val v, double *out);   /* every number; rounds */
/* A member by name with a default, for configuration and requests. A member of another kind reads as the default. */
lim_bytes lim__val_bytes(lim__val object, const char *key, lim_bytes otherwise);
const char *lim__val_str(lim__val object, const char *key, const char *otherwise); /* a text with a NUL inside: default */
uint64_t lim__val_u64(lim__val object, const char *key, uint64_t otherwise);
int64_t lim__val_i64(lim__val object, const char *key, int64_t otherwise);
double lim__val_f64(lim__val object, const char *key, double otherwise);
bool lim__val_bool(lim__val object, const char *key, bool otherwise);

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

/* The members of an object in bytewise key order, each key once: fills at most `max`, answers how many there are.
 * Takes two passes if the caller does not know; sorts in place. Not an object: 0. */
typedef struct lim__member {
    lim_bytes key;
    lim__val val;
} lim__member;
size_t lim__val_members_sorted(lim__val object, lim__member *out, size_t max);

/* Writes a value back as JSON under `key` (NULL inside an array or at the top). */
void lim__json_val(lim__json *j, const char *key, lim__val v);
/* Where and why `json` is not JSON, for people; used by lim__doc_parse. False: it finds no fault. */
bool lim__json_fault(lim_bytes json, lim_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
